
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_data_store.h"


#define NGX_HTTP_AI_DATA_KEYS    256
#define NGX_HTTP_AI_DATA_CHAIN   100000
#define NGX_HTTP_AI_DATA_TRIES   10000
#define NGX_HTTP_AI_DATA_BYTES   64     /* of a file for each bucket */
#define NGX_HTTP_AI_DATA_PIECE   (64 * 1024)

#define NGX_HTTP_AI_DATA_MAX                                                  \
    ((size_t) NGX_MAX_UINT32_VALUE * 8 > NGX_MAX_UINT32_VALUE                 \
     ? (size_t) NGX_MAX_UINT32_VALUE * 8 : NGX_MAX_UINT32_VALUE / 2)


/* reads of what another process may be writing: neither before this nor after
 * it, and for nothing on most machines */

#define ngx_http_ai_data_fence()  __atomic_thread_fence(__ATOMIC_ACQUIRE)


typedef struct {
    uint32_t                   size;      /* with its keys, divided by 8 */
    uint32_t                   len;       /* of the blob that follows */
} ngx_http_ai_data_record_t;


typedef struct {
    uint32_t                   next;
    uint32_t                   hash;
    uint32_t                   record;
    uint32_t                   len;       /* of the key that follows */
} ngx_http_ai_data_key_t;


typedef struct {
    u_char                    *base;
    size_t                     size;
    uint32_t                   mask;
} ngx_http_ai_data_view_t;


static ngx_http_ai_data_half_t *ngx_http_ai_data_begin(
    ngx_http_ai_data_sh_t *sh, ngx_http_ai_data_view_t *view,
    ngx_atomic_uint_t *generation);
static volatile ngx_http_ai_data_record_t *ngx_http_ai_data_lookup(
    ngx_http_ai_data_view_t *view, uint32_t hash, ngx_str_t *key);
static ngx_uint_t ngx_http_ai_data_same(u_char *a, u_char *b, size_t len);
static ngx_int_t ngx_http_ai_data_copy(ngx_http_ai_data_view_t *view,
    volatile ngx_http_ai_data_record_t *record, ngx_pool_t *pool,
    ngx_str_t *blob);
static ngx_int_t ngx_http_ai_data_snapshot(ngx_http_ai_data_view_t *view,
    size_t used, ngx_pool_t *pool, ngx_array_t *blobs);


ngx_int_t
ngx_http_ai_data_store_init(ngx_slab_pool_t *shpool,
    ngx_http_ai_data_sh_t **shp)
{
    size_t                  size;
    u_char                 *p;
    ngx_http_ai_data_sh_t  *sh;

    sh = ngx_slab_calloc(shpool, sizeof(ngx_http_ai_data_sh_t));
    if (sh == NULL) {
        return NGX_ERROR;
    }

    /*
     * All the rest, so that nothing else is ever allocated.  Pages are taken
     * from the system only when they are written to.
     */

    shpool->log_nomem = 0;
    size = (size_t) shpool->pfree * ngx_pagesize;
    p = (size >= 4 * ngx_pagesize) ? ngx_slab_alloc(shpool, size) : NULL;

    if (p == NULL) {
        return NGX_ERROR;
    }

    sh->size = ngx_min(size / 2 / ngx_pagesize * ngx_pagesize,
                       NGX_HTTP_AI_DATA_MAX);
    sh->half[0].base = p;
    sh->half[1].base = p + sh->size;

    shpool->data = sh;
    *shp = sh;

    return NGX_OK;
}


void
ngx_http_ai_data_store_begin(ngx_http_ai_data_loading_t *ld, off_t size)
{
    size_t                   n, max;
    ngx_http_ai_data_sh_t   *sh;

    sh = ld->load.data->sh;

    ld->half = &sh->half[(sh->generation + 1) & 1];
    ld->size = sh->size;

    ld->half->stamp = 0;
    ngx_memory_barrier();

    max = ngx_min(ld->size / 4 / sizeof(uint32_t), 1 << 30);

    for (n = 64;
         n * 2 <= max && (off_t) (n * NGX_HTTP_AI_DATA_BYTES) < size;
         n *= 2)
    {
        /* void */
    }

    ld->mask = n - 1;
    ld->used = n * sizeof(uint32_t);
    ld->cleared = 0;
    ld->records = 0;
}


ngx_int_t
ngx_http_ai_data_store_clear(ngx_http_ai_data_loading_t *ld)
{
    size_t  n;

    n = ngx_min(NGX_HTTP_AI_DATA_PIECE / sizeof(uint32_t),
                (size_t) ld->mask + 1 - ld->cleared);

    ngx_memzero((uint32_t *) ld->half->base + ld->cleared,
                n * sizeof(uint32_t));

    ld->cleared += n;

    return (ld->cleared > ld->mask) ? NGX_OK : NGX_AGAIN;
}


void
ngx_http_ai_data_store_commit(ngx_http_ai_data_loading_t *ld)
{
    ngx_atomic_uint_t         generation;
    ngx_http_ai_data_sh_t    *sh;
    ngx_http_ai_data_half_t  *half;

    sh = ld->load.data->sh;
    half = ld->half;
    generation = sh->generation + 1;

    half->mask = ld->mask;
    half->flags = ld->load.flags;
    half->records = ld->records;
    half->used = ld->used;
    half->loaded = ngx_time();

    ngx_memory_barrier();

    half->stamp = generation;

    ngx_memory_barrier();

    sh->generation = generation;
}


ngx_int_t
ngx_http_ai_data_add(ngx_http_ai_data_load_t *load, ngx_str_t *blob,
    ngx_str_t *keys, ngx_uint_t nkeys, ngx_uint_t *dup)
{
    size_t                       size;
    u_char                      *p, *base;
    uint32_t                    *bucket, hashes[NGX_HTTP_AI_DATA_KEYS];
    ngx_uint_t                   i, n;
    ngx_http_ai_data_key_t      *key;
    ngx_http_ai_data_view_t      view;
    ngx_http_ai_data_record_t   *record;
    ngx_http_ai_data_loading_t  *ld;

    ld = (ngx_http_ai_data_loading_t *) load;

    if (nkeys > NGX_HTTP_AI_DATA_KEYS) {
        return NGX_ERROR;
    }

    base = ld->half->base;

    view.base = base;
    view.size = ld->used;
    view.mask = ld->mask;

    size = ngx_align(sizeof(ngx_http_ai_data_record_t) + blob->len, 8);

    for (i = 0; i < nkeys; i++) {
        hashes[i] = ngx_murmur_hash2(keys[i].data, keys[i].len);

        if (ngx_http_ai_data_lookup(&view, hashes[i], &keys[i]) != NULL) {
            *dup = i;
            return NGX_DECLINED;
        }

        for (n = 0; n < i; n++) {
            if (hashes[n] == hashes[i] && keys[n].len == keys[i].len
                && ngx_memcmp(keys[n].data, keys[i].data, keys[i].len) == 0)
            {
                *dup = i;
                return NGX_DECLINED;
            }
        }

        size += ngx_align(sizeof(ngx_http_ai_data_key_t) + keys[i].len, 8);
    }

    if (size > ld->size - ld->used) {
        ld->full = 1;
        return NGX_ABORT;
    }

    p = base + ld->used;

    record = (ngx_http_ai_data_record_t *) p;
    record->size = size / 8;
    record->len = blob->len;

    p += sizeof(ngx_http_ai_data_record_t);
    ngx_memcpy(p, blob->data, blob->len);

    p = base + ld->used
        + ngx_align(sizeof(ngx_http_ai_data_record_t) + blob->len, 8);

    for (i = 0; i < nkeys; i++) {
        bucket = (uint32_t *) base + (hashes[i] & ld->mask);

        key = (ngx_http_ai_data_key_t *) p;
        key->next = *bucket;
        key->hash = hashes[i];
        key->record = ld->used / 8;
        key->len = keys[i].len;

        ngx_memcpy(p + sizeof(ngx_http_ai_data_key_t), keys[i].data,
                   keys[i].len);

        *bucket = (p - base) / 8;

        p += ngx_align(sizeof(ngx_http_ai_data_key_t) + keys[i].len, 8);
    }

    ld->used += size;

    return NGX_OK;
}


/*
 * The half in force.  What is read of it may have been replaced since: it is
 * mapped for good, so offsets that stay within it cannot do harm, and its
 * stamp tells at the end.  NULL: it is being replaced, again.
 */

static ngx_http_ai_data_half_t *
ngx_http_ai_data_begin(ngx_http_ai_data_sh_t *sh,
    ngx_http_ai_data_view_t *view, ngx_atomic_uint_t *generation)
{
    ngx_http_ai_data_half_t  *half;

    *generation = sh->generation;

    half = &sh->half[*generation & 1];

    if (half->stamp != *generation) {
        ngx_cpu_pause();
        return NULL;
    }

    ngx_http_ai_data_fence();

    view->base = half->base;
    view->size = sh->size;
    view->mask = *(volatile uint32_t *) &half->mask;

    return half;
}


ngx_int_t
ngx_http_ai_data_find(ngx_http_ai_data_t *data, ngx_str_t *key,
    ngx_pool_t *pool, ngx_str_t *blob)
{
    uint32_t                              hash;
    ngx_int_t                             rc;
    ngx_uint_t                            tries;
    ngx_atomic_uint_t                     generation;
    ngx_http_ai_data_sh_t                *sh;
    ngx_http_ai_data_half_t              *half;
    ngx_http_ai_data_view_t               view;
    volatile ngx_http_ai_data_record_t   *record;

    sh = data->sh;
    hash = ngx_murmur_hash2(key->data, key->len);

    for (tries = 0; tries < NGX_HTTP_AI_DATA_TRIES; tries++) {

        if (sh->generation == 0) {
            return NGX_DECLINED;
        }

        half = ngx_http_ai_data_begin(sh, &view, &generation);

        if (half == NULL) {
            continue;
        }

        record = ngx_http_ai_data_lookup(&view, hash, key);

        rc = (record == NULL) ? NGX_DECLINED
                              : ngx_http_ai_data_copy(&view, record, pool,
                                                      blob);

        ngx_http_ai_data_fence();

        if (half->stamp == generation) {
            return rc;
        }
    }

    return NGX_ERROR;
}


uint64_t
ngx_http_ai_data_generation(ngx_http_ai_data_t *data)
{
    return data->sh->generation;
}


uint64_t
ngx_http_ai_data_flags(ngx_http_ai_data_t *data)
{
    uint64_t                  flags;
    ngx_uint_t                tries;
    ngx_atomic_uint_t         generation;
    ngx_http_ai_data_sh_t    *sh;
    ngx_http_ai_data_half_t  *half;

    sh = data->sh;

    for (tries = 0; tries < NGX_HTTP_AI_DATA_TRIES; tries++) {

        generation = sh->generation;

        if (generation == 0) {
            return 0;
        }

        half = &sh->half[generation & 1];

        ngx_http_ai_data_fence();
        flags = *(volatile uint64_t *) &half->flags;
        ngx_http_ai_data_fence();

        if (half->stamp == generation) {
            return flags;
        }
    }

    /* whoever leaves something out for a flag must not do it now */

    return (uint64_t) -1;
}


ngx_int_t
ngx_http_ai_data_walk(ngx_http_ai_data_t *data, ngx_pool_t *pool,
    ngx_int_t (*handler)(void *ctx, ngx_str_t *blob), void *ctx)
{
    ngx_int_t                 rc;
    ngx_str_t                *blob;
    ngx_uint_t                i, tries;
    ngx_array_t               blobs;
    ngx_atomic_uint_t         generation;
    ngx_http_ai_data_sh_t    *sh;
    ngx_http_ai_data_half_t  *half;
    ngx_http_ai_data_view_t   view;

    sh = data->sh;

    if (ngx_array_init(&blobs, pool, 16, sizeof(ngx_str_t)) != NGX_OK) {
        return NGX_ERROR;
    }

    for (tries = 0; /* void */; tries++) {

        if (tries == NGX_HTTP_AI_DATA_TRIES) {
            return NGX_ERROR;
        }

        if (sh->generation == 0) {
            return NGX_OK;
        }

        half = ngx_http_ai_data_begin(sh, &view, &generation);

        if (half == NULL) {
            continue;
        }

        blobs.nelts = 0;

        rc = ngx_http_ai_data_snapshot(&view,
                                       *(volatile size_t *) &half->used,
                                       pool, &blobs);
        ngx_http_ai_data_fence();

        if (half->stamp == generation) {
            break;
        }
    }

    if (rc != NGX_OK) {
        return rc;
    }

    blob = blobs.elts;

    for (i = 0; i < blobs.nelts; i++) {
        rc = handler(ctx, &blob[i]);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_data_snapshot(ngx_http_ai_data_view_t *view, size_t used,
    ngx_pool_t *pool, ngx_array_t *blobs)
{
    size_t                                offset, size;
    ngx_str_t                            *blob;
    volatile ngx_http_ai_data_record_t   *record;

    used = ngx_min(used, view->size);
    offset = ((size_t) view->mask + 1) * sizeof(uint32_t);

    while (offset + sizeof(ngx_http_ai_data_record_t) <= used) {

        record = (ngx_http_ai_data_record_t *) (view->base + offset);
        size = (size_t) record->size * 8;

        if (size == 0) {
            break;
        }

        blob = ngx_array_push(blobs);
        if (blob == NULL) {
            return NGX_ERROR;
        }

        switch (ngx_http_ai_data_copy(view, record, pool, blob)) {

        case NGX_OK:
            break;

        case NGX_DECLINED:
            /* replaced meanwhile */
            return NGX_OK;

        default:
            return NGX_ERROR;
        }

        offset += size;
    }

    return NGX_OK;
}


static volatile ngx_http_ai_data_record_t *
ngx_http_ai_data_lookup(ngx_http_ai_data_view_t *view, uint32_t hash,
    ngx_str_t *key)
{
    size_t                             offset;
    uint32_t                           ref;
    ngx_uint_t                         n;
    volatile uint32_t                 *buckets;
    volatile ngx_http_ai_data_key_t   *k;

    if (((size_t) view->mask + 1) * sizeof(uint32_t) > view->size) {
        return NULL;
    }

    buckets = (uint32_t *) view->base;
    ref = buckets[hash & view->mask];

    for (n = 0; ref != 0 && n < NGX_HTTP_AI_DATA_CHAIN; n++) {

        offset = (size_t) ref * 8;

        if (offset + sizeof(ngx_http_ai_data_key_t) > view->size) {
            return NULL;
        }

        k = (ngx_http_ai_data_key_t *) (view->base + offset);
        offset += sizeof(ngx_http_ai_data_key_t);

        if (k->hash == hash && k->len == key->len
            && key->len <= view->size - offset
            && ngx_http_ai_data_same(view->base + offset, key->data, key->len))
        {
            offset = (size_t) k->record * 8;

            if (offset + sizeof(ngx_http_ai_data_record_t) > view->size) {
                return NULL;
            }

            return (ngx_http_ai_data_record_t *) (view->base + offset);
        }

        ref = k->next;
    }

    return NULL;
}


/* takes as long wherever they differ */

static ngx_uint_t
ngx_http_ai_data_same(u_char *a, u_char *b, size_t len)
{
    size_t            i;
    u_char            differ;
    volatile u_char  *va, *vb;

    va = a;
    vb = b;
    differ = 0;

    for (i = 0; i < len; i++) {
        differ |= va[i] ^ vb[i];
    }

    return differ == 0;
}


static ngx_int_t
ngx_http_ai_data_copy(ngx_http_ai_data_view_t *view,
    volatile ngx_http_ai_data_record_t *record, ngx_pool_t *pool,
    ngx_str_t *blob)
{
    size_t   len;
    u_char  *p;

    p = (u_char *) record + sizeof(ngx_http_ai_data_record_t);
    len = record->len;

    if (len > (size_t) (view->base + view->size - p)) {
        return NGX_DECLINED;
    }

    blob->data = ngx_palloc(pool, len ? len : 1);
    if (blob->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(blob->data, p, len);
    blob->len = len;

    return NGX_OK;
}
