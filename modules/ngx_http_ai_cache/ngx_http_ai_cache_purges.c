
/*
 * Copyright (C) nginx AI gateway authors
 */


/* what has been purged: as JSON, as live data, on disk and in Redis */


#include "ngx_http_ai_cache.h"
#include "ngx_http_ai_cache_disk.h"
#include "ngx_http_ai_cache_purge.h"
#include "ngx_http_ai_cache_remote.h"
#include "ngx_http_ai_time.h"


#define NGX_HTTP_AI_CACHE_TEXT_MAX   1024
#define NGX_HTTP_AI_CACHE_TIME_MAX   100000000000


enum {
    /* those before are kinds of rules */
    NGX_HTTP_AI_CACHE_PURGE_ZONE = NGX_HTTP_AI_CACHE_RULE_MAX,
    NGX_HTTP_AI_CACHE_PURGE_BEFORE,
    NGX_HTTP_AI_CACHE_PURGE_COMMENT,
    NGX_HTTP_AI_CACHE_PURGE_MEMBERS
};


static ngx_int_t ngx_http_ai_cache_purge_member(ngx_http_ai_json_t *j,
    ngx_uint_t k, ngx_uint_t node, ngx_http_ai_cache_purge_t *purge,
    ngx_str_t *error);
static ngx_int_t ngx_http_ai_cache_purge_error(ngx_http_ai_json_t *j,
    ngx_str_t *error, const char *fmt, ...);
static ngx_int_t ngx_http_ai_cache_purge_record(ngx_http_ai_data_load_t *load,
    ngx_http_ai_json_t *j, ngx_str_t *name, ngx_str_t *error);
static ngx_int_t ngx_http_ai_cache_purge_apply(void *ctx, ngx_str_t *blob);


ngx_str_t  ngx_http_ai_cache_rule_names[] = {
    ngx_string("all"),
    ngx_string("scope"),
    ngx_string("model"),
    ngx_string("tag"),
    ngx_string("key"),
    ngx_string("zone"),
    ngx_string("before"),
    ngx_string("comment")
};


ngx_int_t
ngx_http_ai_cache_purges_init(ngx_conf_t *cf,
    ngx_http_ai_cache_zones_t *zones)
{
    ngx_str_t                         near;
    ngx_uint_t                        i;
    ngx_http_ai_data_def_t            def;
    ngx_http_ai_cache_purge_conf_t  **purge;

    purge = zones->purges.elts;

    for (i = 0; i < zones->purges.nelts; i++) {
        purge[i]->zone = ngx_http_ai_cache_zone_find(cf, zones,
                                                     &purge[i]->name, &near);

        if (purge[i]->zone == NULL) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"ai_cache_purge\": no cache zone \"%V\"%V in "
                          "%s:%ui", &purge[i]->name, &near, purge[i]->file,
                          purge[i]->line);
            return NGX_ERROR;
        }
    }

    if (zones->zones.nelts == 0 || !zones->api->data_enabled(cf)) {
        return NGX_OK;
    }

    ngx_memzero(&def, sizeof(ngx_http_ai_data_def_t));

    ngx_str_set(&def.name, "cache");
    def.size = 256 * 1024;
    def.conf = zones;
    def.record = ngx_http_ai_cache_purge_record;

    zones->data = zones->api->data_register(cf, &def);

    return zones->data ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_http_ai_cache_purge_read(ngx_http_ai_json_t *j, ngx_uint_t live,
    ngx_http_ai_cache_purge_t *purge, ngx_str_t *error)
{
    ngx_int_t   rc;
    ngx_str_t   name, near;
    ngx_uint_t  i, k, n, seen, kinds;

    ngx_memzero(purge, sizeof(ngx_http_ai_cache_purge_t));

    if (ngx_http_ai_json_type(j, 0) != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_cache_purge_error(j, error, "it must be an object");
    }

    n = live ? NGX_HTTP_AI_CACHE_PURGE_MEMBERS : NGX_HTTP_AI_CACHE_RULE_MAX;
    seen = 0;
    kinds = 0;

    for (i = ngx_http_ai_json_first(j, 0);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, 0, i))
    {
        for (k = 0; k < n; k++) {
            if (ngx_http_ai_json_key_eq(j, i,
                                 (char *) ngx_http_ai_cache_rule_names[k].data,
                                 ngx_http_ai_cache_rule_names[k].len))
            {
                break;
            }
        }

        if (k == n) {
            name = ngx_http_ai_json_raw(j, i);
            near = ngx_http_ai_near_text(j->pool, &name,
                                         ngx_http_ai_cache_rule_names, n);

            return ngx_http_ai_cache_purge_error(j, error,
                                                 "unknown member \"%V\"%V",
                                                 &name, &near);
        }

        if (seen & ((ngx_uint_t) 1 << k)) {
            return ngx_http_ai_cache_purge_error(j, error,
                                           "duplicate member \"%V\"",
                                           &ngx_http_ai_cache_rule_names[k]);
        }

        seen |= (ngx_uint_t) 1 << k;
        kinds += (k < NGX_HTTP_AI_CACHE_RULE_MAX);

        rc = ngx_http_ai_cache_purge_member(j, k, i + 1, purge, error);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (kinds != 1) {
        return ngx_http_ai_cache_purge_error(j, error, "it must have one of "
                                             "\"all\", \"scope\", \"model\", "
                                             "\"tag\" and \"key\"");
    }

    if (live && purge->zone.len == 0) {
        return ngx_http_ai_cache_purge_error(j, error, "no \"zone\"");
    }

    if (live && purge->rule.time == 0) {
        return ngx_http_ai_cache_purge_error(j, error, "no \"before\"");
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_cache_purge_member(ngx_http_ai_json_t *j, ngx_uint_t k,
    ngx_uint_t node, ngx_http_ai_cache_purge_t *purge, ngx_str_t *error)
{
    int64_t      time;
    ngx_int_t    n;
    ngx_str_t    raw, word, *name;
    ngx_uint_t   i, type;
    u_char       id[NGX_HTTP_AI_CACHE_ID];

    name = &ngx_http_ai_cache_rule_names[k];
    type = ngx_http_ai_json_type(j, node);
    raw = ngx_http_ai_json_raw(j, node);

    switch (k) {

    case NGX_HTTP_AI_CACHE_PURGE_COMMENT:
        return NGX_OK;

    case NGX_HTTP_AI_CACHE_RULE_ALL:

        if (type != NGX_HTTP_AI_JSON_TRUE) {
            return ngx_http_ai_cache_purge_error(j, error,
                                                 "\"all\" must be true");
        }

        return NGX_OK;

    case NGX_HTTP_AI_CACHE_PURGE_BEFORE:

        if ((type == NGX_HTTP_AI_JSON_STRING
             && ngx_http_ai_rfc3339(&raw, &time) == NGX_OK)
            || (type == NGX_HTTP_AI_JSON_NUMBER
                && ngx_http_ai_json_int(j, node, &time) == NGX_OK
                && time > 0 && time < NGX_HTTP_AI_CACHE_TIME_MAX))
        {
            purge->rule.time = time * 1000;
            return NGX_OK;
        }

        return ngx_http_ai_cache_purge_error(j, error, "\"before\" must be a "
                                             "time like "
                                             "\"2027-01-31T00:00:00Z\", or a "
                                             "number of seconds since 1970");
    }

    if (type != NGX_HTTP_AI_JSON_STRING) {
        return ngx_http_ai_cache_purge_error(j, error,
                                             "\"%V\" must be a string", name);
    }

    if (ngx_http_ai_json_unescape_str(j->pool, &raw, &word) != NGX_OK) {
        return NGX_ERROR;
    }

    if (word.len == 0 || word.len > NGX_HTTP_AI_CACHE_TEXT_MAX) {
        return ngx_http_ai_cache_purge_error(j, error, "\"%V\" must have from "
                                             "1 to %d bytes", name,
                                             NGX_HTTP_AI_CACHE_TEXT_MAX);
    }

    if (k == NGX_HTTP_AI_CACHE_PURGE_ZONE) {
        purge->zone = word;
        return NGX_OK;
    }

    purge->value = word;
    purge->rule.kind = k;

    if (k != NGX_HTTP_AI_CACHE_RULE_ID) {
        purge->rule.hash = ngx_http_ai_cache_hash(word.data, word.len);
        return NGX_OK;
    }

    for (i = 0; i < NGX_HTTP_AI_CACHE_ID; i++) {
        n = (word.len == NGX_HTTP_AI_CACHE_ID * 2)
            ? ngx_hextoi(word.data + i * 2, 2) : NGX_ERROR;

        if (n == NGX_ERROR) {
            return ngx_http_ai_cache_purge_error(j, error, "\"key\" must be "
                                                 "%d hexadecimal digits",
                                                 NGX_HTTP_AI_CACHE_ID * 2);
        }

        id[i] = (u_char) n;
    }

    ngx_memcpy(&purge->rule.hash, id, sizeof(uint64_t));

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_cache_purge_error(ngx_http_ai_json_t *j, ngx_str_t *error,
    const char *fmt, ...)
{
    va_list  args;

    error->data = ngx_pnalloc(j->pool, NGX_MAX_CONF_ERRSTR);
    if (error->data == NULL) {
        return NGX_ERROR;
    }

    va_start(args, fmt);
    error->len = ngx_vslprintf(error->data, error->data + NGX_MAX_CONF_ERRSTR,
                               fmt, args)
                 - error->data;
    va_end(args);

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_ai_cache_purge_record(ngx_http_ai_data_load_t *load,
    ngx_http_ai_json_t *j, ngx_str_t *name, ngx_str_t *error)
{
    ngx_http_ai_cache_zones_t *zones = load->conf;

    u_char                      *p;
    ngx_int_t                    rc;
    ngx_str_t                    blob, key;
    ngx_uint_t                   i, dup, *count;
    ngx_http_ai_cache_zone_t   **zone;
    ngx_http_ai_cache_purge_t    purge;

    rc = ngx_http_ai_cache_purge_read(j, 1, &purge, error);

    if (rc != NGX_OK) {
        return rc;
    }

    *name = purge.zone;
    zone = zones->zones.elts;

    for (i = 0; i < zones->zones.nelts; i++) {
        if (zone[i]->name.len == purge.zone.len
            && ngx_strncmp(zone[i]->name.data, purge.zone.data,
                           purge.zone.len)
               == 0)
        {
            break;
        }
    }

    if (i == zones->zones.nelts) {
        return ngx_http_ai_cache_purge_error(j, error, "no cache zone \"%V\"",
                                             &purge.zone);
    }

    if (load->state == NULL) {
        load->state = ngx_pcalloc(load->pool, sizeof(ngx_uint_t));
        if (load->state == NULL) {
            return NGX_ERROR;
        }
    }

    count = load->state;

    if (++(*count) > NGX_HTTP_AI_CACHE_RULES) {
        return ngx_http_ai_cache_purge_error(j, error, "there are more than "
                                             "%d purges",
                                             NGX_HTTP_AI_CACHE_RULES);
    }

    blob.len = sizeof(ngx_http_ai_cache_rule_t) + purge.zone.len;
    blob.data = ngx_pnalloc(j->pool, blob.len);

    if (blob.data == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(blob.data, &purge.rule, sizeof(ngx_http_ai_cache_rule_t));
    ngx_memcpy(p, purge.zone.data, purge.zone.len);

    /* all of it but the time */

    key.len = blob.len;
    key.data = ngx_pnalloc(j->pool, key.len);

    if (key.data == NULL) {
        return NGX_ERROR;
    }

    purge.rule.time = 0;

    p = ngx_cpymem(key.data, &purge.rule, sizeof(ngx_http_ai_cache_rule_t));
    ngx_memcpy(p, purge.zone.data, purge.zone.len);

    rc = zones->api->data_add(load, &blob, &key, 1, &dup);

    if (rc == NGX_DECLINED) {
        return ngx_http_ai_cache_purge_error(j, error, "this purge is there "
                                             "twice");
    }

    return rc;
}


static ngx_int_t
ngx_http_ai_cache_purge_apply(void *ctx, ngx_str_t *blob)
{
    ngx_http_ai_cache_zone_t *zone = ctx;

    ngx_http_ai_cache_rule_t    rule;
    ngx_http_ai_cache_store_t  *st;

    if (blob->len != sizeof(ngx_http_ai_cache_rule_t) + zone->name.len
        || ngx_memcmp(blob->data + sizeof(ngx_http_ai_cache_rule_t),
                      zone->name.data, zone->name.len)
           != 0)
    {
        return NGX_OK;
    }

    ngx_memcpy(&rule, blob->data, sizeof(ngx_http_ai_cache_rule_t));

    st = ngx_http_ai_cache_lock(zone);
    (void) ngx_http_ai_cache_purge_add(st, &rule);
    ngx_http_ai_cache_unlock(zone);

    return NGX_OK;
}


void
ngx_http_ai_cache_purges_tick(ngx_http_ai_cache_zones_t *zones,
    ngx_http_ai_cache_zone_t *zone)
{
    uint64_t     generation;
    ngx_pool_t  *pool;

    if (zones->data) {
        generation = zones->api->data_generation(zones->data);

        if (generation != zone->generation) {
            pool = ngx_create_pool(4096, ngx_cycle->log);

            if (pool) {
                if (zones->api->data_walk(zones->data, pool,
                                          ngx_http_ai_cache_purge_apply, zone)
                    == NGX_OK)
                {
                    zone->generation = generation;
                }

                ngx_destroy_pool(pool);
            }
        }
    }

    if (zone->on_disk) {
        ngx_http_ai_cache_disk_save(zone, ngx_cycle->log);
    }

    if (zone->remote) {
        ngx_http_ai_cache_remote_sync(zone);
    }
}
