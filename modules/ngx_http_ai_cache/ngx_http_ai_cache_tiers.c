
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_cache.h"
#include "ngx_http_ai_cache_disk.h"
#include "ngx_http_ai_cache_remote.h"


typedef struct {
    ngx_http_ai_cache_zone_t    *zone;
    ngx_pool_t                  *pool;
    ngx_http_ai_cache_found_t   *found;
    ngx_http_ai_cache_found_t    other;       /* of Redis */
    ngx_http_ai_cache_found_pt   handler;
    void                        *data;
    unsigned                     stale:1;     /* found has a stale one */
    u_char                       id[NGX_HTTP_AI_CACHE_ID];
} ngx_http_ai_cache_lookup_t;


static void ngx_http_ai_cache_disk_looked(void *data, ngx_int_t rc,
    ngx_http_ai_cache_found_t *found);
static ngx_int_t ngx_http_ai_cache_further(ngx_http_ai_cache_lookup_t *lookup,
    ngx_int_t rc);
static ngx_int_t ngx_http_ai_cache_in_memory(ngx_http_ai_cache_zone_t *zone,
    u_char *id, ngx_pool_t *pool, ngx_http_ai_cache_found_t *found);
static void ngx_http_ai_cache_promote(ngx_http_ai_cache_zone_t *zone,
    ngx_http_ai_cache_found_t *found);
static void ngx_http_ai_cache_looked(void *data, ngx_int_t rc,
    ngx_http_ai_cache_found_t *found);


ngx_int_t
ngx_http_ai_cache_lookup(ngx_http_ai_cache_zone_t *zone, u_char *id,
    ngx_pool_t *pool, ngx_http_ai_cache_found_t *found,
    ngx_http_ai_cache_found_pt handler, void *data)
{
    ngx_int_t                    rc;
    ngx_http_ai_cache_lookup_t  *lookup;

    rc = ngx_http_ai_cache_in_memory(zone, id, pool, found);

    if (rc == NGX_ERROR
        || (rc == NGX_OK && found->meta.fresh > ngx_http_ai_cache_now())
        || (zone->on_disk == NULL && zone->remote == NULL))
    {
        return rc;
    }

    lookup = ngx_palloc(pool, sizeof(ngx_http_ai_cache_lookup_t));
    if (lookup == NULL) {
        return NGX_ERROR;
    }

    lookup->zone = zone;
    lookup->pool = pool;
    lookup->found = found;
    lookup->handler = handler;
    lookup->data = data;
    ngx_memcpy(lookup->id, id, NGX_HTTP_AI_CACHE_ID);

    if (rc == NGX_DECLINED && zone->on_disk) {
        rc = ngx_http_ai_cache_disk_read(zone, id, pool, found,
                                         ngx_http_ai_cache_disk_looked,
                                         lookup);
        if (rc == NGX_AGAIN) {
            return NGX_AGAIN;
        }

        if (rc == NGX_OK) {
            ngx_http_ai_cache_promote(zone, found);
        }
    }

    return ngx_http_ai_cache_further(lookup, rc);
}


static void
ngx_http_ai_cache_disk_looked(void *data, ngx_int_t rc,
    ngx_http_ai_cache_found_t *found)
{
    ngx_http_ai_cache_lookup_t *lookup = data;

    if (rc == NGX_OK) {
        ngx_http_ai_cache_promote(lookup->zone, found);
    }

    rc = ngx_http_ai_cache_further(lookup, rc);

    if (rc != NGX_AGAIN) {
        lookup->handler(lookup->data, rc, found);
    }
}


/* another node may have a younger one than a stale one here */

static ngx_int_t
ngx_http_ai_cache_further(ngx_http_ai_cache_lookup_t *lookup, ngx_int_t rc)
{
    ngx_int_t                  remote;
    ngx_http_ai_cache_zone_t  *zone;

    zone = lookup->zone;

    if (rc == NGX_ERROR || zone->remote == NULL
        || (rc == NGX_OK
            && lookup->found->meta.fresh > ngx_http_ai_cache_now()))
    {
        return rc;
    }

    lookup->stale = (rc == NGX_OK);

    remote = ngx_http_ai_cache_remote_get(zone, lookup->id, lookup->pool,
                                          &lookup->other,
                                          ngx_http_ai_cache_looked, lookup);

    return (remote == NGX_DECLINED) ? rc : remote;
}


static ngx_int_t
ngx_http_ai_cache_in_memory(ngx_http_ai_cache_zone_t *zone, u_char *id,
    ngx_pool_t *pool, ngx_http_ai_cache_found_t *found)
{
    u_char                     *p;
    ngx_int_t                   rc;
    ngx_http_ai_cache_store_t  *st;

    p = NULL;

    st = ngx_http_ai_cache_lock(zone);

    rc = ngx_http_ai_cache_get(st, id, ngx_http_ai_cache_now(), &found->meta);

    /* what is small has room in the pool, and the lock is kept */

    if (rc == NGX_OK && found->meta.size < NGX_MAX_ALLOC_FROM_POOL) {
        p = ngx_pnalloc(pool, found->meta.size + 1);

        if (p) {
            rc = ngx_http_ai_cache_copy(st, &found->meta, p);
        }
    }

    ngx_http_ai_cache_unlock(zone);

    if (rc != NGX_OK) {
        return rc;
    }

    if (p == NULL) {
        p = ngx_pnalloc(pool, found->meta.size + 1);
        if (p == NULL) {
            return NGX_ERROR;
        }

        st = ngx_http_ai_cache_lock(zone);
        rc = ngx_http_ai_cache_copy(st, &found->meta, p);
        ngx_http_ai_cache_unlock(zone);
    }

    found->data.data = p;
    found->data.len = found->meta.size;
    found->tier = NGX_HTTP_AI_CACHE_MEMORY;

    return rc;
}


static void
ngx_http_ai_cache_promote(ngx_http_ai_cache_zone_t *zone,
    ngx_http_ai_cache_found_t *found)
{
    ngx_http_ai_cache_meta_t    meta;
    ngx_http_ai_cache_store_t  *st;

    meta = found->meta;

    st = ngx_http_ai_cache_lock(zone);
    (void) ngx_http_ai_cache_put(st, &meta, found->data.data, found->data.len,
                                 ngx_http_ai_cache_now());
    ngx_http_ai_cache_unlock(zone);
}


static void
ngx_http_ai_cache_looked(void *data, ngx_int_t rc,
    ngx_http_ai_cache_found_t *found)
{
    ngx_http_ai_cache_lookup_t *lookup = data;

    if (rc == NGX_OK
        && (!lookup->stale
            || found->meta.created > lookup->found->meta.created))
    {
        *lookup->found = *found;
        ngx_http_ai_cache_promote(lookup->zone, found);

    } else if (lookup->stale) {
        rc = NGX_OK;
    }

    lookup->handler(lookup->data, rc, lookup->found);
}


void
ngx_http_ai_cache_store(ngx_http_ai_cache_zone_t *zone,
    ngx_http_ai_cache_meta_t *meta, u_char *data, size_t size,
    ngx_uint_t in_memory)
{
    int64_t                     now;
    ngx_uint_t                  purged;
    ngx_http_ai_cache_store_t  *st;

    now = ngx_http_ai_cache_now();

    if (size > zone->max_size || meta->stale <= now) {
        return;
    }

    st = ngx_http_ai_cache_lock(zone);

    purged = ngx_http_ai_cache_purged(st, meta);

    if (!in_memory) {
        (void) ngx_http_ai_cache_put(st, meta, data, size, now);
    }

    ngx_http_ai_cache_unlock(zone);

    if (purged) {
        return;
    }

    if (zone->on_disk) {
        ngx_http_ai_cache_disk_write(zone, meta, data, size);
    }

    if (zone->remote) {
        ngx_http_ai_cache_remote_put(zone, meta, data, size);
    }
}
