
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * A zone's shared memory: the store of its keys and holds, and the workers
 * that have holds there.  The lock is the mutex of the zone's slab pool, which
 * nginx forces open when a worker dies inside.
 */


#include "ngx_http_ai_ratelimit_lease.h"


/* ms between the calls of a worker's timer */
#define NGX_HTTP_AI_ZONE_TICK    1000

/* a worker that gave no sign of life for so long is gone, ms */
#define NGX_HTTP_AI_ZONE_SILENT  60000

/* holds that are charged in one go under the lock */

/* bits of an owner that are its pid; the others are the time of its start */
#define NGX_HTTP_AI_ZONE_PID     22


static void ngx_http_ai_zone_resized(ngx_shm_zone_t *shm_zone,
    ngx_http_ai_limit_zone_t *zone);
static void ngx_http_ai_zone_enroll(ngx_http_ai_limit_zone_t *zone,
    ngx_log_t *log);
static void ngx_http_ai_zone_timer(ngx_event_t *ev);
static void ngx_http_ai_zone_beat(ngx_http_ai_limit_zone_t *zone);
static void ngx_http_ai_zone_reap(ngx_http_ai_ratelimit_main_conf_t *rmcf,
    ngx_http_ai_limit_zone_t *zone, ngx_log_t *log);
static ngx_uint_t ngx_http_ai_zone_alive(uint64_t owner);


static uint64_t                   ngx_http_ai_zone_self;
static uint64_t                   ngx_http_ai_zone_serial;
static ngx_queue_t                ngx_http_ai_zone_queue;
static ngx_event_t                ngx_http_ai_zone_event;
static ngx_connection_t           ngx_http_ai_zone_dummy;

/* whose workers ngx_http_ai_zone_alive() is asked for */
static ngx_http_ai_limit_zone_t  *ngx_http_ai_zone_current;


ngx_int_t
ngx_http_ai_zone_init(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_http_ai_limit_zone_t *old = data;

    size_t                     size;
    ngx_time_t                *tp;
    ngx_slab_pool_t           *shpool;
    ngx_http_ai_zone_sh_t     *sh;
    ngx_http_ai_limit_zone_t  *zone;

    zone = shm_zone->data;
    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;
    zone->shpool = shpool;

#if (NGX_HAVE_ATOMIC_OPS)
    zone->lock = shpool->mutex.lock;
#endif

    if (old) {

        if (old->key_text.len != zone->key_text.len
            || ngx_strncmp(old->key_text.data, zone->key_text.data,
                           zone->key_text.len)
               != 0)
        {
            ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                          "zone \"%V\" uses the key \"%V\" while previously "
                          "it used the key \"%V\", in %s:%ui",
                          &zone->name, &zone->key_text, &old->key_text,
                          zone->file, zone->line);
            return NGX_ERROR;
        }

        if ((old->redis_name.len == 0) != (zone->redis_name.len == 0)) {
            ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                          "zone \"%V\" was %s \"redis\" before, give it "
                          "another name or size in %s:%ui", &zone->name,
                          old->redis_name.len ? "with" : "without",
                          zone->file, zone->line);
            return NGX_ERROR;
        }

        zone->sh = old->sh;
        zone->store = old->store;

        return NGX_OK;
    }

    if (shm_zone->shm.exists) {
        sh = shpool->data;
        zone->sh = sh;
        zone->store = ngx_http_ai_limit_store_attach(sh->block, sh->size);

        return zone->store ? NGX_OK : NGX_ERROR;
    }

    ngx_http_ai_zone_resized(shm_zone, zone);

    sh = ngx_slab_calloc(shpool, sizeof(ngx_http_ai_zone_sh_t));
    if (sh == NULL) {
        goto nomem;
    }

    zone->sh = sh;

    if (zone->redis_name.len && ngx_http_ai_lease_init(zone) != NGX_OK) {
        goto nomem;
    }

    /* all that is left, in one piece; pages that nobody touches cost nothing,
     * and new ones are zeroed */

    shpool->log_nomem = 0;

    size = shpool->pfree * ngx_pagesize;

    while (size > 0) {
        sh->block = ngx_slab_alloc(shpool, size);

        if (sh->block) {
            break;
        }

        size -= ngx_pagesize;
    }

    if (sh->block == NULL) {
        goto nomem;
    }

#if (NGX_DEBUG_MALLOC)
    ngx_memzero(sh->block, size);
#endif

    sh->size = size;

    tp = ngx_timeofday();
    sh->epoch = ((uint64_t) tp->sec << 32) ^ ((uint64_t) ngx_pid << 12)
                ^ (uint64_t) ngx_random();

    shpool->data = sh;
    zone->store = ngx_http_ai_limit_store_init(sh->block, size,
                                               NGX_HTTP_AI_LIMIT_KEY_MAX);
    if (zone->store == NULL) {
        goto nomem;
    }

    if (zone->snapshot.len) {
        return ngx_http_ai_snapshot_load(zone, shm_zone->shm.log);
    }

    return NGX_OK;

nomem:

    ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                  "ai ratelimit: zone \"%V\" is too small", &zone->name);

    return NGX_ERROR;
}


/* ngx_cycle is still the one before */

static void
ngx_http_ai_zone_resized(ngx_shm_zone_t *shm_zone,
    ngx_http_ai_limit_zone_t *zone)
{
    ngx_uint_t        i;
    ngx_shm_zone_t   *z;
    ngx_list_part_t  *part;

    if (ngx_cycle == NULL || ngx_cycle->shared_memory.part.nelts == 0) {
        return;
    }

    for (part = (ngx_list_part_t *) &ngx_cycle->shared_memory.part;
         part;
         part = part->next)
    {
        z = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (z[i].tag == shm_zone->tag
                && z[i].shm.size != shm_zone->shm.size
                && z[i].shm.name.len == shm_zone->shm.name.len
                && ngx_strncmp(z[i].shm.name.data, shm_zone->shm.name.data,
                               z[i].shm.name.len)
                   == 0)
            {
                ngx_log_error(NGX_LOG_WARN, shm_zone->shm.log, 0,
                              "zone \"%V\" has another size now: it starts "
                              "%s in %s:%ui", &zone->name,
                              zone->snapshot.len ? "from its snapshot"
                                                 : "empty",
                              zone->file, zone->line);
                return;
            }
        }
    }
}


ngx_int_t
ngx_http_ai_zone_start(ngx_cycle_t *cycle,
    ngx_http_ai_ratelimit_main_conf_t *rmcf)
{
    ngx_uint_t                  i;
    ngx_http_ai_limit_zone_t  **zone;

    /* two processes with one pid do not start in the same millisecond */

    ngx_http_ai_zone_self = ((uint64_t) ngx_http_ai_zone_now()
                             << NGX_HTTP_AI_ZONE_PID)
                            | ((uint64_t) ngx_pid
                               & (((uint64_t) 1 << NGX_HTTP_AI_ZONE_PID)
                                  - 1));

    ngx_queue_init(&ngx_http_ai_zone_queue);
    ngx_http_ai_lease_start(rmcf);

    zone = rmcf->zones.elts;

    for (i = 0; i < rmcf->zones.nelts; i++) {
        ngx_http_ai_zone_enroll(zone[i], cycle->log);
    }

    ngx_http_ai_zone_dummy.data = rmcf;
    ngx_http_ai_zone_dummy.fd = (ngx_socket_t) -1;

    ngx_http_ai_zone_event.handler = ngx_http_ai_zone_timer;
    ngx_http_ai_zone_event.data = &ngx_http_ai_zone_dummy;
    ngx_http_ai_zone_event.log = cycle->log;
    ngx_http_ai_zone_event.cancelable = 1;

    ngx_add_timer(&ngx_http_ai_zone_event, 1);

    return NGX_OK;
}


void
ngx_http_ai_zone_stop(ngx_cycle_t *cycle,
    ngx_http_ai_ratelimit_main_conf_t *rmcf)
{
    ngx_uint_t                  i, n;
    ngx_queue_t                *q;
    ngx_http_ai_worker_t       *w;
    ngx_http_ai_limited_t      *l;
    ngx_http_ai_limit_zone_t  **zone;

    if (ngx_http_ai_zone_self == 0) {
        return;
    }

    while (!ngx_queue_empty(&ngx_http_ai_zone_queue)) {
        q = ngx_queue_head(&ngx_http_ai_zone_queue);
        l = ngx_queue_data(q, ngx_http_ai_limited_t, queue);

        ngx_http_ai_limit_abandon(l);
    }

    zone = rmcf->zones.elts;

    for (i = 0; i < rmcf->zones.nelts; i++) {

        if (zone[i]->snapshot.len) {
            ngx_http_ai_snapshot_tick(zone[i], cycle->log, 1);
        }

        ngx_http_ai_zone_lock(zone[i]);

        w = zone[i]->sh->workers;

        for (n = 0; n < NGX_HTTP_AI_LIMIT_WORKERS; n++) {
            if (w[n].owner == ngx_http_ai_zone_self) {
                w[n].owner = 0;
            }
        }

        ngx_http_ai_zone_unlock(zone[i]);
    }

    ngx_http_ai_lease_stop(rmcf);

    ngx_http_ai_zone_self = 0;
}


/* the place of one that is gone is taken first: it may have had our pid */

static void
ngx_http_ai_zone_enroll(ngx_http_ai_limit_zone_t *zone, ngx_log_t *log)
{
    uint64_t               pid;
    ngx_uint_t             i, n, mask;
    ngx_http_ai_worker_t  *w;

    mask = ((ngx_uint_t) 1 << NGX_HTTP_AI_ZONE_PID) - 1;
    pid = ngx_http_ai_zone_self & mask;

    ngx_http_ai_zone_lock(zone);

    w = zone->sh->workers;
    n = NGX_HTTP_AI_LIMIT_WORKERS;

    ngx_http_ai_zone_current = zone;

    for (i = 0; i < NGX_HTTP_AI_LIMIT_WORKERS; i++) {

        if (w[i].owner && (w[i].owner & mask) == pid) {
            n = i;
            break;
        }

        if (n == NGX_HTTP_AI_LIMIT_WORKERS
            && (w[i].owner == 0 || !ngx_http_ai_zone_alive(w[i].owner)))
        {
            n = i;
        }
    }

    if (n < NGX_HTTP_AI_LIMIT_WORKERS) {
        w[n].owner = ngx_http_ai_zone_self;
        w[n].beat = ngx_current_msec;
    }

    ngx_http_ai_zone_unlock(zone);

    if (n == NGX_HTTP_AI_LIMIT_WORKERS) {
        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "ai ratelimit: more than %d workers in zone \"%V\"",
                      NGX_HTTP_AI_LIMIT_WORKERS, &zone->name);
    }
}


/* as ngx_shmtx_lock() where there are no semaphores */

void
ngx_http_ai_zone_wait(ngx_http_ai_limit_zone_t *zone)
{
#if (NGX_HAVE_ATOMIC_OPS)

    ngx_uint_t  i, n, spin;

    spin = zone->shpool->mutex.spin;

    for ( ;; ) {

        if (*zone->lock == 0 && ngx_atomic_cmp_set(zone->lock, 0, ngx_pid)) {
            return;
        }

        if (ngx_ncpu > 1) {

            for (n = 1; n < spin; n <<= 1) {

                for (i = 0; i < n; i++) {
                    ngx_cpu_pause();
                }

                if (*zone->lock == 0
                    && ngx_atomic_cmp_set(zone->lock, 0, ngx_pid))
                {
                    return;
                }
            }
        }

        ngx_sched_yield();
    }

#endif
}


void
ngx_http_ai_zone_repaired(ngx_http_ai_limit_zone_t *zone)
{
    ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                  "ai ratelimit: zone \"%V\" was repaired after a process "
                  "had died in it", &zone->name);
}


int64_t
ngx_http_ai_zone_now(void)
{
    ngx_time_t  *tp;

    tp = ngx_timeofday();

    return (int64_t) tp->sec * 1000 + tp->msec;
}


uint64_t
ngx_http_ai_zone_owner(void)
{
    return ngx_http_ai_zone_self;
}


void
ngx_http_ai_zone_id(u_char *id)
{
    ngx_http_ai_zone_serial++;

    ngx_memcpy(id, &ngx_http_ai_zone_self, 8);
    ngx_memcpy(id + 8, &ngx_http_ai_zone_serial, 8);
}


void
ngx_http_ai_zone_running(ngx_http_ai_limited_t *l)
{
    ngx_queue_insert_tail(&ngx_http_ai_zone_queue, &l->queue);
    l->running = 1;
}


static void
ngx_http_ai_zone_timer(ngx_event_t *ev)
{
    int64_t                              now;
    ngx_uint_t                           i;
    ngx_queue_t                         *q;
    ngx_connection_t                    *c;
    ngx_http_ai_limited_t               *l;
    ngx_http_ai_limit_zone_t           **zone;
    ngx_http_ai_ratelimit_main_conf_t   *rmcf;

    c = ev->data;
    rmcf = c->data;

    zone = rmcf->zones.elts;

    for (i = 0; i < rmcf->zones.nelts; i++) {
        ngx_http_ai_zone_beat(zone[i]);
        ngx_http_ai_zone_reap(rmcf, zone[i], ev->log);

        if (zone[i]->redis) {
            ngx_http_ai_lease_tick(zone[i]);
        }

        if (zone[i]->snapshot.len) {
            ngx_http_ai_snapshot_tick(zone[i], ev->log, 0);
        }
    }

    now = ngx_http_ai_zone_now();

    for (q = ngx_queue_head(&ngx_http_ai_zone_queue);
         q != ngx_queue_sentinel(&ngx_http_ai_zone_queue);
         q = ngx_queue_next(q))
    {
        l = ngx_queue_data(q, ngx_http_ai_limited_t, queue);
        ngx_http_ai_limit_refresh(l, now);
    }

    ngx_add_timer(ev, NGX_HTTP_AI_ZONE_TICK);
}


static void
ngx_http_ai_zone_beat(ngx_http_ai_limit_zone_t *zone)
{
    ngx_uint_t             i;
    ngx_http_ai_worker_t  *w;

    w = zone->sh->workers;

    for (i = 0; i < NGX_HTTP_AI_LIMIT_WORKERS; i++) {
        if (w[i].owner == ngx_http_ai_zone_self) {
            w[i].beat = ngx_current_msec;
            return;
        }
    }
}


/* one worker does it for all */

static void
ngx_http_ai_zone_reap(ngx_http_ai_ratelimit_main_conf_t *rmcf,
    ngx_http_ai_limit_zone_t *zone, ngx_log_t *log)
{
    ngx_uint_t              n, sum;
    ngx_http_ai_zone_sh_t  *sh;

    static ngx_http_ai_alerts_t  alerts;

    sh = zone->sh;
    sum = 0;

    do {
        ngx_http_ai_zone_lock(zone);

        if (sum == 0 && ngx_current_msec - sh->reaped
                        < NGX_HTTP_AI_ZONE_TICK - 100)
        {
            ngx_http_ai_zone_unlock(zone);
            return;
        }

        sh->reaped = ngx_current_msec;
        ngx_http_ai_zone_current = zone;

        alerts.zone = zone;

        n = ngx_http_ai_limit_reap_each(zone->store, ngx_http_ai_zone_now(),
                                        ngx_http_ai_zone_alive,
                                        NGX_HTTP_AI_ZONE_REAP,
                                        zone->nalerts
                                        ? ngx_http_ai_alert_reaped : NULL,
                                        &alerts);

        if (n) {
            sh->changes++;
        }

        ngx_http_ai_zone_unlock(zone);

        ngx_http_ai_alert_flush(rmcf->webhook, &alerts, log);

        sum += n;

    } while (n == NGX_HTTP_AI_ZONE_REAP && sum < 4096);

    if (sum) {
        ngx_log_error(NGX_LOG_NOTICE, log, 0,
                      "ai ratelimit: charged %ui reservations in zone "
                      "\"%V\" whose requests have not ended properly",
                      sum, &zone->name);
    }
}


ngx_uint_t
ngx_http_ai_zone_living(ngx_http_ai_limit_zone_t *zone, uint64_t owner)
{
    ngx_http_ai_zone_current = zone;

    return ngx_http_ai_zone_alive(owner);
}


static ngx_uint_t
ngx_http_ai_zone_alive(uint64_t owner)
{
    ngx_pid_t              pid;
    ngx_uint_t             i, mask;
    ngx_http_ai_worker_t  *w;

    mask = ((ngx_uint_t) 1 << NGX_HTTP_AI_ZONE_PID) - 1;
    pid = (ngx_pid_t) (owner & mask);

    if (owner == ngx_http_ai_zone_self) {
        return 1;
    }

    w = ngx_http_ai_zone_current->sh->workers;

    for (i = 0; i < NGX_HTTP_AI_LIMIT_WORKERS; i++) {

        if ((w[i].owner & mask) != (owner & mask)) {
            continue;
        }

        if (w[i].owner != owner) {
            /* its pid is that of a younger one */
            return 0;
        }

        if (ngx_current_msec - w[i].beat > NGX_HTTP_AI_ZONE_SILENT
            && (ngx_msec_int_t) (ngx_current_msec - w[i].beat) > 0)
        {
            return 0;
        }

        break;
    }

    return kill(pid, 0) == 0 || ngx_errno == NGX_EPERM;
}
