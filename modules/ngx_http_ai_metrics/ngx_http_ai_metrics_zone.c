
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The memory of the counters, a zone of its own.  It is kept over reloads
 * while its size stays.  The lock is the mutex of its slab pool, which nginx
 * forces open when a worker dies inside.
 */


#include "ngx_http_ai_metrics.h"


static ngx_int_t ngx_http_ai_metrics_zone_init(ngx_shm_zone_t *shm_zone,
    void *data);
static ngx_uint_t ngx_http_ai_metrics_alive(ngx_pid_t pid);


ngx_int_t
ngx_http_ai_metrics_zone(ngx_conf_t *cf, ngx_http_ai_metrics_main_conf_t *mcf)
{
    ngx_str_t        name;
    ngx_shm_zone_t  *shm_zone;

    ngx_str_set(&name, "ai_metrics");

    shm_zone = ngx_shared_memory_add(cf, &name, mcf->zone_size,
                                     &ngx_http_ai_metrics_module);
    if (shm_zone == NULL) {
        return NGX_ERROR;
    }

    shm_zone->init = ngx_http_ai_metrics_zone_init;
    shm_zone->data = mcf;

    mcf->cycle = cf->cycle;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_metrics_zone_init(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_http_ai_metrics_main_conf_t *old = data;

    void                             *block;
    size_t                            size;
    ngx_int_t                         rc;
    ngx_slab_pool_t                  *shpool;
    ngx_core_conf_t                  *ccf;
    ngx_http_ai_metrics_main_conf_t  *mcf;

    mcf = shm_zone->data;
    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;
    mcf->shpool = shpool;

    if (old) {
        mcf->store = old->store;

    } else if (shm_zone->shm.exists) {
        mcf->store = shpool->data;

    } else {
        ccf = (ngx_core_conf_t *) ngx_get_conf(mcf->cycle->conf_ctx,
                                               ngx_core_module);

        /* all that there is, in one piece; new pages are zeroes */

        shpool->log_nomem = 0;
        block = NULL;

        for (size = shpool->pfree * ngx_pagesize; size; size -= ngx_pagesize) {
            block = ngx_slab_alloc(shpool, size);

            if (block) {
                break;
            }
        }

        if (block == NULL) {
            goto nomem;
        }

#if (NGX_DEBUG_MALLOC)
        ngx_memzero(block, size);
#endif

        mcf->store = ngx_http_ai_metrics_store_init(block, size,
                                                 ccf->worker_processes + 1);
        if (mcf->store == NULL) {
            goto nomem;
        }

        shpool->data = mcf->store;
    }

    /* workers of the configuration before are counting */

    ngx_shmtx_lock(&shpool->mutex);

    rc = ngx_http_ai_metrics_store_caps(mcf->store, mcf->tenants, mcf->keys);

    (void) ngx_http_ai_metrics_generation(mcf->store, 1);

    ngx_shmtx_unlock(&shpool->mutex);

    if (rc == NGX_OK) {
        return NGX_OK;
    }

nomem:

    ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                  "no memory for the figures of ai_metrics, increase the "
                  "size in \"ai_metrics_zone\"");

    return NGX_ERROR;
}


void
ngx_http_ai_metrics_start(ngx_http_ai_metrics_main_conf_t *mcf)
{
    size_t  size;

    if (mcf->requests == NULL) {
        size = NGX_HTTP_AI_METRICS_CACHE * sizeof(ngx_http_ai_metrics_found_t);

        mcf->requests = ngx_pcalloc(mcf->cycle->pool, 3 * size);
        if (mcf->requests == NULL) {
            return;
        }

        mcf->attempts = mcf->requests + NGX_HTTP_AI_METRICS_CACHE;
        mcf->models = mcf->attempts + NGX_HTTP_AI_METRICS_CACHE;
    }

    ngx_shmtx_lock(&mcf->shpool->mutex);

    mcf->process = ngx_http_ai_metrics_enroll(mcf->store, ngx_pid,
                                              ngx_http_ai_metrics_alive);

    ngx_shmtx_unlock(&mcf->shpool->mutex);

    ngx_http_ai_metrics_shard(mcf);

    if (mcf->process == NULL) {
        ngx_log_error(NGX_LOG_WARN, mcf->cycle->log, 0,
                      "ai metrics: no memory to count what this worker runs, "
                      "increase the size in \"ai_metrics_zone\"");
    }
}


/* after a reload the workers before have theirs until they end */

void
ngx_http_ai_metrics_shard(ngx_http_ai_metrics_main_conf_t *mcf)
{
    mcf->looked = ngx_time();

    ngx_shmtx_lock(&mcf->shpool->mutex);

    mcf->shard = ngx_http_ai_metrics_claim(mcf->store, ngx_pid,
                                           ngx_http_ai_metrics_alive);

    ngx_shmtx_unlock(&mcf->shpool->mutex);

    if (mcf->shard) {
        /* they know the cells of the first one */
        ngx_memzero(mcf->requests, 3 * NGX_HTTP_AI_METRICS_CACHE
                                   * sizeof(ngx_http_ai_metrics_found_t));
    }
}


void
ngx_http_ai_metrics_stop(ngx_http_ai_metrics_main_conf_t *mcf)
{
    if (mcf->shard) {
        ngx_shmtx_lock(&mcf->shpool->mutex);

        ngx_http_ai_metrics_release(mcf->store, mcf->shard);

        ngx_shmtx_unlock(&mcf->shpool->mutex);

        mcf->shard = 0;
    }

    if (mcf->process) {
        mcf->process->pid = 0;
        mcf->process = NULL;
    }
}


static ngx_uint_t
ngx_http_ai_metrics_alive(ngx_pid_t pid)
{
    return kill(pid, 0) == 0 || ngx_errno == NGX_EPERM;
}


ngx_int_t
ngx_http_ai_metrics_callers_copy(ngx_http_ai_metrics_main_conf_t *mcf,
    ngx_http_ai_metrics_kind_e kind, ngx_pool_t *pool, ngx_array_t *callers)
{
    u_char                         *names;
    ngx_uint_t                      i, n, max;
    ngx_http_ai_metrics_caller_t   *c;

    max = (kind == NGX_HTTP_AI_METRICS_TENANT) ? mcf->tenants : mcf->keys;

    if (max == 0) {
        return ngx_array_init(callers, pool, 1,
                              sizeof(ngx_http_ai_metrics_caller_t));
    }

    max++;

    names = ngx_pnalloc(pool, max * NGX_HTTP_AI_METRICS_CALLER);

    if (names == NULL
        || ngx_array_init(callers, pool, max,
                          sizeof(ngx_http_ai_metrics_caller_t))
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    c = callers->elts;

    ngx_shmtx_lock(&mcf->shpool->mutex);

    n = ngx_min(ngx_http_ai_metrics_callers(mcf->store, kind), max);

    for (i = 0; i < n; i++) {
        c->name.data = names;
        ngx_http_ai_metrics_caller_get(mcf->store, kind, i, &c->name,
                                       &c->cells);

        /* of a place that a dying worker has left without a name */

        if (c->name.len) {
            names += NGX_HTTP_AI_METRICS_CALLER;
            c++;
        }
    }

    ngx_shmtx_unlock(&mcf->shpool->mutex);

    callers->nelts = c - (ngx_http_ai_metrics_caller_t *) callers->elts;

    return NGX_OK;
}


void
ngx_http_ai_metrics_collect(void *data, ngx_http_ai_samples_t *s)
{
    ngx_http_ai_metrics_main_conf_t *mcf = data;

    ngx_pid_t                       pid;
    ngx_uint_t                      i, last, n[2];
    ngx_http_ai_cells_t             cells;
    ngx_http_ai_label_t             label;
    ngx_http_ai_series_t           *series;
    ngx_http_ai_metrics_stats_t     stats;
    ngx_http_ai_metrics_process_t  *p;

    static ngx_str_t                states[] = {
        ngx_string("active"),
        ngx_string("draining")
    };

    static ngx_str_t                labels[] = {
        ngx_string("tenant"),
        ngx_string("key")
    };

    if (mcf->store == NULL) {
        return;
    }

    last = 0;
    ngx_memzero(n, sizeof(n));

    for (p = ngx_http_ai_metrics_processes(mcf->store); p; p = p->next) {

        pid = p->pid;

        if (pid && !ngx_http_ai_metrics_alive(pid)) {
            /* it was killed, and its successor may be taking the place */
            (void) __sync_bool_compare_and_swap(&p->pid, pid, 0);
        }

        if (p->pid) {
            last = ngx_max(last, p->generation);
        }
    }

    for (p = ngx_http_ai_metrics_processes(mcf->store); p; p = p->next) {
        if (p->pid) {
            n[p->generation != last]++;
        }
    }

    label.name = "state";

    s->family(s, NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_workers",
              "Worker processes: of the configuration in force, and those "
              "before that finish their requests.");

    for (i = 0; i < 2; i++) {
        label.value = states[i];
        s->sample(s, &label, 1, n[i], 0);
    }

    label.name = "model";

    s->family(s, NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_active_requests",
              "Requests that are being served.");

    for (i = 0; i < 2; i++) {

        if (i == 1) {
            s->family(s, NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_active_streams",
                      "Those of them that are streams.");
        }

        for (series = ngx_http_ai_metrics_first(mcf->store,
                                                NGX_HTTP_AI_METRICS_MODEL);
             series;
             series = series->next)
        {
            ngx_http_ai_metrics_sum(mcf->store, series, &cells);

            label.value = series->names[0];
            s->sample(s, &label, 1, i ? cells.model.streams
                                      : cells.model.running, 0);
        }
    }

    ngx_http_ai_metrics_stats(mcf->store, &stats);

    s->family(s, NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_metrics_zone_size_bytes",
              "Memory for the figures (ai_metrics_zone).");
    s->sample(s, NULL, 0, stats.size, 0);

    s->family(s, NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_metrics_zone_used_bytes",
              "Memory that is used of it.");
    s->sample(s, NULL, 0, stats.used, 0);

    s->family(s, NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_metrics_overflows",
              "Series that found no room there: counted as \"other\".");
    s->sample(s, NULL, 0, stats.overflows, 0);

    if (mcf->tenants == 0 && mcf->keys == 0) {
        return;
    }

    s->family(s, NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_metrics_evictions",
              "Series that gave their place away (ai_metrics_labels): added "
              "to \"other\".");

    label.name = "label";

    for (i = 0; i < 2; i++) {
        if (i ? mcf->keys : mcf->tenants) {
            label.value = labels[i];
            s->sample(s, &label, 1, stats.evictions[i], 0);
        }
    }
}
