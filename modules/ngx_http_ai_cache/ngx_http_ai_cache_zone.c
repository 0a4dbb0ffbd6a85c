
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * A zone's shared memory and what its workers do from time to time.  The lock
 * is the mutex of the zone's slab pool, which nginx forces open when a worker
 * dies inside.
 */


#include "ngx_http_ai_cache.h"
#include "ngx_http_ai_cache_disk.h"
#include "ngx_http_ai_cache_remote.h"
#include "ngx_http_ai_cache_purge.h"

#include <openssl/rand.h>


/* ms between the calls of a worker's timer */
#define NGX_HTTP_AI_CACHE_TIMER  200


static ngx_int_t ngx_http_ai_cache_zone_init(ngx_shm_zone_t *shm_zone,
    void *data);
static void ngx_http_ai_cache_zone_timer(ngx_event_t *ev);
static void ngx_http_ai_cache_collect(void *data, ngx_http_ai_samples_t *s);


static ngx_event_t               ngx_http_ai_cache_timer;
static ngx_http_ai_cache_event_t  ngx_http_ai_cache_timer_data;

static ngx_str_t  ngx_http_ai_cache_tier_names[] = {
    ngx_string("memory"),
    ngx_string("disk"),
    ngx_string("redis")
};

static ngx_str_t  ngx_http_ai_cache_results[] = {
    ngx_string("none"),
    ngx_string("miss"),
    ngx_string("bypass"),
    ngx_string("expired"),
    ngx_string("hit"),
    ngx_string("stale"),
    ngx_string("coalesced")
};

#define NGX_HTTP_AI_CACHE_RESULTS                                             \
    (sizeof(ngx_http_ai_cache_results) / sizeof(ngx_str_t))


ngx_int_t
ngx_http_ai_cache_zones_create(ngx_conf_t *cf,
    ngx_http_ai_cache_zones_t *zones)
{
    if (ngx_array_init(&zones->zones, cf->pool, 2,
                       sizeof(ngx_http_ai_cache_zone_t *))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_array_init(&zones->purges, cf->pool, 1,
                          sizeof(ngx_http_ai_cache_purge_conf_t *));
}


char *
ngx_http_ai_cache_zone_add(ngx_conf_t *cf, ngx_http_ai_cache_zones_t *zones,
    ngx_http_ai_cache_zone_t *zone)
{
    ngx_http_ai_cache_zone_t  **slot;

    zone->worker = NGX_ERROR;

    zone->shm_zone = ngx_shared_memory_add(cf, &zone->name, zone->size,
                                           &ngx_http_ai_cache_module);
    if (zone->shm_zone == NULL) {
        return NGX_CONF_ERROR;
    }

    if (zone->shm_zone->data) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate cache zone \"%V\"", &zone->name);
        return NGX_CONF_ERROR;
    }

    zone->shm_zone->init = ngx_http_ai_cache_zone_init;
    zone->shm_zone->data = zone;

    if (zone->disk.len && ngx_http_ai_cache_disk_add(cf, zone) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    slot = ngx_array_push(&zones->zones);
    if (slot == NULL) {
        return NGX_CONF_ERROR;
    }

    *slot = zone;

    return NGX_CONF_OK;
}


ngx_http_ai_cache_zone_t *
ngx_http_ai_cache_zone_find(ngx_conf_t *cf, ngx_http_ai_cache_zones_t *zones,
    ngx_str_t *name, ngx_str_t *near)
{
    ngx_str_t                  *names;
    ngx_uint_t                  i, n;
    ngx_http_ai_cache_zone_t  **zone;

    zone = zones->zones.elts;
    n = zones->zones.nelts;

    for (i = 0; i < n; i++) {
        if (zone[i]->name.len == name->len
            && ngx_strncmp(zone[i]->name.data, name->data, name->len) == 0)
        {
            return zone[i];
        }
    }

    ngx_str_null(near);

    names = ngx_palloc(cf->temp_pool, (n + 1) * sizeof(ngx_str_t));

    if (names) {
        for (i = 0; i < n; i++) {
            names[i] = zone[i]->name;
        }

        *near = ngx_http_ai_near_text(cf->temp_pool, name, names, n);
    }

    return NULL;
}


ngx_int_t
ngx_http_ai_cache_zones_init(ngx_conf_t *cf, ngx_http_ai_cache_zones_t *zones)
{
    ngx_uint_t                  i;
    ngx_http_ai_cache_zone_t  **zone;

    zone = zones->zones.elts;

    for (i = 0; i < zones->zones.nelts; i++) {
        zone[i]->api = zones->api;

        if (zone[i]->redis_name.len
            && ngx_http_ai_cache_remote_init(cf, zone[i]) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (ngx_http_ai_cache_purges_init(cf, zones) != NGX_OK) {
        return NGX_ERROR;
    }

    if (zones->zones.nelts == 0) {
        return NGX_OK;
    }

    return zones->api->add_collector(cf, ngx_http_ai_cache_collect, zones);
}


static ngx_int_t
ngx_http_ai_cache_zone_init(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_http_ai_cache_zone_t *old = data;

    u_char                    *block;
    size_t                     size;
    ngx_slab_pool_t           *shpool;
    ngx_http_ai_cache_sh_t    *sh;
    ngx_http_ai_cache_zone_t  *zone;

    zone = shm_zone->data;
    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;
    zone->shpool = shpool;

    if (old) {
        zone->sh = old->sh;
        ngx_http_ai_nh_init(&zone->nh, zone->sh->secret);

        if (zone->disk.len
            && (old->disk.len != zone->disk.len
                || ngx_strncmp(old->disk.data, zone->disk.data,
                               zone->disk.len)
                   != 0))
        {
            ngx_http_ai_cache_disk_begin(zone, shm_zone->shm.log);
        }

        return NGX_OK;
    }

    if (shm_zone->shm.exists) {
        zone->sh = shpool->data;
        ngx_http_ai_nh_init(&zone->nh, zone->sh->secret);

        return NGX_OK;
    }

    sh = ngx_slab_calloc(shpool, sizeof(ngx_http_ai_cache_sh_t));
    if (sh == NULL) {
        goto small;
    }

    /* all that is left, in one piece; pages that nobody touches cost nothing,
     * and new ones are zeroed */

    shpool->log_nomem = 0;

    block = NULL;

    for (size = shpool->pfree * ngx_pagesize; size; size -= ngx_pagesize) {
        block = ngx_slab_alloc(shpool, size);

        if (block) {
            break;
        }
    }

    if (block == NULL) {
        goto small;
    }

#if (NGX_DEBUG_MALLOC)
    ngx_memzero(block, size);
#endif

    sh->store = ngx_http_ai_cache_store_init(block, size);

    if (sh->store == NULL) {
        goto small;
    }

    /* kept for as long as the answers are */

    if (RAND_bytes(sh->secret, sizeof(sh->secret)) != 1) {
        ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                      "ai cache: RAND_bytes() failed");
        return NGX_ERROR;
    }

    shpool->data = sh;
    zone->sh = sh;
    ngx_http_ai_nh_init(&zone->nh, sh->secret);

    if (zone->disk.len) {
        ngx_http_ai_cache_disk_begin(zone, shm_zone->shm.log);
    }

    return NGX_OK;

small:

    ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                  "ai cache: zone \"%V\" is too small", &zone->name);

    return NGX_ERROR;
}


ngx_int_t
ngx_http_ai_cache_zones_start(ngx_cycle_t *cycle,
    ngx_http_ai_cache_zones_t *zones)
{
    ngx_uint_t                  i;
    ngx_http_ai_cache_zone_t  **zone;
    ngx_http_ai_cache_store_t  *st;

    if ((ngx_process != NGX_PROCESS_WORKER
         && ngx_process != NGX_PROCESS_SINGLE)
        || zones->zones.nelts == 0)
    {
        return NGX_OK;
    }

    zone = zones->zones.elts;

    for (i = 0; i < zones->zones.nelts; i++) {
        st = ngx_http_ai_cache_lock(zone[i]);

        zone[i]->worker = ngx_http_ai_cache_enroll(st, ngx_pid,
                                                   ngx_http_ai_cache_now());

        ngx_http_ai_cache_unlock(zone[i]);

        if (zone[i]->worker == NGX_ERROR) {
            ngx_log_error(NGX_LOG_WARN, cycle->log, 0,
                          "ai cache: more than %d workers in zone \"%V\"",
                          NGX_HTTP_AI_CACHE_WORKERS, &zone[i]->name);
        }

        if (zone[i]->on_disk) {
            ngx_http_ai_cache_disk_start(zone[i]);
        }

        ngx_http_ai_cache_purges_tick(zones, zone[i]);
    }

    ngx_http_ai_cache_timer_data.data = zones;
    ngx_http_ai_cache_timer_data.fd = (ngx_socket_t) -1;

    ngx_http_ai_cache_timer.handler = ngx_http_ai_cache_zone_timer;
    ngx_http_ai_cache_timer.data = &ngx_http_ai_cache_timer_data;
    ngx_http_ai_cache_timer.log = cycle->log;
    ngx_http_ai_cache_timer.cancelable = 1;

    ngx_add_timer(&ngx_http_ai_cache_timer, NGX_HTTP_AI_CACHE_TIMER);

    return NGX_OK;
}


void
ngx_http_ai_cache_zones_stop(ngx_cycle_t *cycle,
    ngx_http_ai_cache_zones_t *zones)
{
    ngx_uint_t                  i;
    ngx_http_ai_cache_zone_t  **zone;
    ngx_http_ai_cache_store_t  *st;

    if (ngx_process != NGX_PROCESS_WORKER
        && ngx_process != NGX_PROCESS_SINGLE)
    {
        return;
    }

    zone = zones->zones.elts;

    for (i = 0; i < zones->zones.nelts; i++) {

        if (zone[i]->on_disk) {
            ngx_http_ai_cache_disk_stop(zone[i]);
        }

        st = ngx_http_ai_cache_lock(zone[i]);
        ngx_http_ai_cache_dismiss(st, zone[i]->worker,
                                  ngx_http_ai_cache_now());
        ngx_http_ai_cache_unlock(zone[i]);

        zone[i]->worker = NGX_ERROR;
    }
}


static void
ngx_http_ai_cache_zone_timer(ngx_event_t *ev)
{
    ngx_uint_t                   i;
    ngx_http_ai_cache_zone_t   **zone;
    ngx_http_ai_cache_event_t   *data;
    ngx_http_ai_cache_store_t   *st;
    ngx_http_ai_cache_zones_t   *zones;

    data = ev->data;
    zones = data->data;
    zone = zones->zones.elts;

    for (i = 0; i < zones->zones.nelts; i++) {
        st = ngx_http_ai_cache_lock(zone[i]);

        zone[i]->worker = ngx_http_ai_cache_tick(st, zone[i]->worker, ngx_pid,
                                                 ngx_http_ai_cache_now());

        ngx_http_ai_cache_unlock(zone[i]);

        ngx_http_ai_cache_purges_tick(zones, zone[i]);
    }

    ngx_add_timer(ev, NGX_HTTP_AI_CACHE_TIMER);
}


ngx_http_ai_cache_store_t *
ngx_http_ai_cache_lock(ngx_http_ai_cache_zone_t *zone)
{
    ngx_shmtx_lock(&zone->shpool->mutex);

    if (ngx_http_ai_cache_enter(zone->sh->store)) {
        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                      "ai cache: zone \"%V\" was emptied after a process had "
                      "died in it", &zone->name);
    }

    return zone->sh->store;
}


void
ngx_http_ai_cache_unlock(ngx_http_ai_cache_zone_t *zone)
{
    ngx_http_ai_cache_leave(zone->sh->store);
    ngx_shmtx_unlock(&zone->shpool->mutex);
}


ngx_http_ai_nh_t *
ngx_http_ai_cache_nh(ngx_http_ai_cache_zone_t *zone)
{
    return (zone->on_disk || zone->remote) ? NULL : &zone->nh;
}


int64_t
ngx_http_ai_cache_now(void)
{
    ngx_time_t  *tp;

    tp = ngx_timeofday();

    return (int64_t) tp->sec * 1000 + tp->msec;
}


void
ngx_http_ai_cache_count(ngx_http_ai_cache_zone_t *zone,
    ngx_http_ai_cache_e result)
{
    (void) ngx_atomic_fetch_add(&zone->sh->lookups[result], 1);
}


static void
ngx_http_ai_cache_collect(void *data, ngx_http_ai_samples_t *s)
{
    ngx_http_ai_cache_zones_t *zones = data;

    int64_t                       n;
    ngx_uint_t                    i, k, f, ntiers;
    ngx_http_ai_label_t           labels[2];
    ngx_http_ai_cache_sh_t       *sh;
    ngx_http_ai_cache_zone_t    **zone;
    ngx_http_ai_cache_figures_t  *figures, *fg;

    static const struct {
        ngx_http_ai_samples_e     type;
        const char               *name;
        const char               *help;
        ngx_uint_t                tiers;
    } families[] = {
        { NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_cache_size_bytes",
          "Bytes in use, by zone and tier.", 2 },
        { NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_cache_max_bytes",
          "Bytes that may be in use, by zone and tier.", 2 },
        { NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_cache_entries",
          "Answers that are kept, by zone and tier.", 2 },
        { NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_cache_evictions",
          "Answers removed for others, by zone and tier.", 2 },
        { NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_cache_stored",
          "Answers stored, by zone and tier.", 3 },
        { NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_cache_rejected",
          "Answers not stored, as there was no room for them, by zone and "
          "tier.", 3 },
        { NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_cache_corrupt",
          "Answers found to be damaged, by zone and tier.", 3 },
        { NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_cache_tier_hits",
          "Answers found, by zone and tier.", 3 },
        { NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_cache_tier_misses",
          "Answers not found, by zone and tier.", 3 }
    };

    zone = zones->zones.elts;

    figures = ngx_alloc(zones->zones.nelts
                        * sizeof(ngx_http_ai_cache_figures_t),
                        ngx_cycle->log);
    if (figures == NULL) {
        return;
    }

    for (i = 0; i < zones->zones.nelts; i++) {
        ngx_http_ai_cache_figures(ngx_http_ai_cache_lock(zone[i]),
                                  &figures[i]);
        ngx_http_ai_cache_unlock(zone[i]);
    }

    labels[0].name = "zone";
    labels[1].name = "tier";

    for (f = 0; f < sizeof(families) / sizeof(families[0]); f++) {

        s->family(s, families[f].type, families[f].name, families[f].help);

        for (i = 0; i < zones->zones.nelts; i++) {
            labels[0].value = zone[i]->name;
            ntiers = families[f].tiers;
            sh = zone[i]->sh;
            fg = &figures[i];

            for (k = 0; k < ntiers; k++) {

                if ((k == NGX_HTTP_AI_CACHE_DISK && zone[i]->on_disk == NULL)
                    || (k == NGX_HTTP_AI_CACHE_REDIS
                        && zone[i]->remote == NULL))
                {
                    continue;
                }

                labels[1].value = ngx_http_ai_cache_tier_names[k];

                switch (f) {

                case 0:
                    n = k ? (int64_t) sh->disk_bytes : (int64_t) fg->used;
                    break;

                case 1:
                    n = k ? zone[i]->disk_size : (int64_t) fg->size;
                    break;

                case 2:
                    n = k ? (int64_t) sh->disk_files : (int64_t) fg->entries;
                    break;

                case 3:
                    n = k ? (int64_t) sh->evicted[k] : (int64_t) fg->evicted;
                    break;

                case 4:
                    n = k ? (int64_t) sh->stored[k] : (int64_t) fg->stored;
                    break;

                case 5:
                    n = k ? (int64_t) sh->dropped[k] : (int64_t) fg->rejected;
                    break;

                case 6:
                    n = k ? (int64_t) sh->corrupt[k] : (int64_t) fg->corrupt;
                    break;

                case 7:
                    n = k ? (int64_t) sh->hits[k] : (int64_t) fg->hits;
                    break;

                default:
                    n = k ? (int64_t) sh->misses[k] : (int64_t) fg->misses;
                }

                s->sample(s, labels, 2, n, 0);
            }
        }
    }

    ngx_free(figures);

    s->family(s, NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_cache_lookups",
              "Requests, by zone and what the cache did for them.");

    labels[1].name = "result";

    for (i = 0; i < zones->zones.nelts; i++) {
        labels[0].value = zone[i]->name;

        for (k = NGX_HTTP_AI_CACHE_MISS; k < NGX_HTTP_AI_CACHE_RESULTS; k++) {
            labels[1].value = ngx_http_ai_cache_results[k];
            s->sample(s, labels, 2, (int64_t) zone[i]->sh->lookups[k], 0);
        }
    }
}
