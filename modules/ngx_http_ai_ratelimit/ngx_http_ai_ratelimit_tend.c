
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Leases are looked after by a worker each: it tells Redis what is used,
 * renews what is granted for a time, and gives back what nobody uses.
 */


#include "ngx_http_ai_ratelimit_lease.h"


/* operations of a worker that one call of its timer begins */
#define NGX_HTTP_AI_LEASE_BATCH  512

/* leases that are looked at for one whose keeper is gone, in a second */
#define NGX_HTTP_AI_LEASE_SCAN   4096


static void ngx_http_ai_lease_remind(ngx_http_ai_limit_zone_t *zone);
static ngx_uint_t ngx_http_ai_lease_tend(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_lease_t *le, int64_t now);
static ngx_uint_t ngx_http_ai_lease_last(ngx_http_ai_limit_zone_t *zone);


/* this worker looks after it from now on */

void
ngx_http_ai_lease_keep(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_lease_t *le)
{
    uint32_t  *index;

    if (le->keeper) {
        return;
    }

    if (zone->kept == NULL) {
        zone->kept = ngx_array_create(ngx_cycle->pool, 64, sizeof(uint32_t));
        if (zone->kept == NULL) {
            return;
        }
    }

    index = ngx_array_push(zone->kept);
    if (index == NULL) {
        return;
    }

    *index = le - (ngx_http_ai_lease_t *) zone->sh->leases;
    le->keeper = ngx_http_ai_zone_owner();
}


/* each second: of leases of this worker, and some whose keeper is gone */

void
ngx_http_ai_lease_tick(ngx_http_ai_limit_zone_t *zone)
{
    int64_t                      now;
    uint32_t                    *index;
    ngx_uint_t                   i, n, left, rc, sent;
    ngx_http_ai_lease_t         *le, *all;
    ngx_http_ai_redis_status_t   status;

    all = zone->sh->leases;
    now = ngx_http_ai_zone_now();
    sent = 0;

    ngx_http_ai_lease_status(zone, &status);

    if (status.histories != zone->histories) {
        zone->histories = status.histories;
        ngx_http_ai_lease_remind(zone);
    }

    /* the lock is taken for some of them at a time */

    left = zone->kept ? zone->kept->nelts : 0;

    while (left && sent < NGX_HTTP_AI_LEASE_BATCH) {

        ngx_http_ai_zone_lock(zone);

        for (n = 0; n < 64 && left; n++, left--) {

            if (zone->tended >= zone->kept->nelts) {
                zone->tended = 0;
            }

            i = zone->tended;
            index = zone->kept->elts;
            le = &all[index[i]];
            rc = 0;

            if (le->len && le->keeper == ngx_http_ai_zone_owner()) {
                rc = ngx_http_ai_lease_tend(zone, le, now);

                if (rc == 0) {
                    le->keeper = 0;
                }
            }

            if (rc == 0) {
                index[i] = index[--zone->kept->nelts];
                continue;
            }

            sent += (rc == 2);
            zone->tended++;
        }

        ngx_http_ai_zone_unlock(zone);
    }

    ngx_http_ai_zone_lock(zone);

    for (n = 0; n < ngx_min(NGX_HTTP_AI_LEASE_SCAN, zone->sh->nleases); n++) {

        le = &all[zone->sh->scanned++ % zone->sh->nleases];

        if (le->len == 0
            || (le->keeper == 0 && ngx_http_ai_lease_empty(le))
            || (le->keeper && ngx_http_ai_zone_living(zone, le->keeper)))
        {
            continue;
        }

        le->keeper = 0;
        ngx_http_ai_lease_keep(zone, le);
    }

    ngx_http_ai_zone_unlock(zone);
}


/* Redis may have lost what it was told last: all that is used is told */

static void
ngx_http_ai_lease_remind(ngx_http_ai_limit_zone_t *zone)
{
    int64_t               now;
    ngx_uint_t            i, k, n;
    ngx_http_ai_lease_t  *le;

    now = ngx_http_ai_zone_now();
    le = zone->sh->leases;

    for (k = 0; k < zone->sh->nleases; /* void */ ) {

        ngx_http_ai_zone_lock(zone);

        for (n = 0; n < 256 && k < zone->sh->nleases; n++, k++) {

            for (i = NGX_HTTP_AI_METER_Q_REQUESTS;
                 i < NGX_HTTP_AI_METER_MAX && le[k].len;
                 i++)
            {
                if (le[k].m[i].limit >= 0 && le[k].m[i].granted
                    && le[k].m[i].end > now)
                {
                    le[k].m[i].told = -1;
                    ngx_http_ai_lease_keep(zone, &le[k]);
                }
            }
        }

        ngx_http_ai_zone_unlock(zone);
    }
}


/* 0: nothing is left to be done for it; 2: it was tried */

static ngx_uint_t
ngx_http_ai_lease_tend(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_lease_t *le, int64_t now)
{
    ngx_str_t                   key;
    ngx_uint_t                  i, held, own, told;
    ngx_msec_int_t              idle;
    ngx_http_ai_limit_t         limits[NGX_HTTP_AI_METER_MAX];
    ngx_http_ai_lease_meter_t  *m;
    ngx_http_ai_limit_state_t   states[NGX_HTTP_AI_METER_MAX];

    if (le->busy && (ngx_msec_int_t) (le->until - ngx_current_msec) > 0) {
        return 1;
    }

    idle = ngx_http_ai_lease_since(le->touched);

    key.data = le->key;
    key.len = le->len;

    ngx_http_ai_lease_limits(zone, le, limits, 0);
    ngx_http_ai_limit_peek(zone->store, &key, now, limits, states);

    held = 0;           /* of running requests */
    own = 0;            /* not used, or to be renewed */
    told = 1;

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
        m = &le->m[i];

        if (m->limit < 0) {
            continue;
        }

        if (i > NGX_HTTP_AI_METER_CONCURRENT) {

            if (now >= m->end) {
                continue;
            }

            if (m->told != states[i].used) {
                told = 0;
            }
        }

        if (i != NGX_HTTP_AI_METER_REQUESTS && states[i].held) {
            held = 1;
        }

        if (i < NGX_HTTP_AI_METER_CONCURRENT) {

            /* use is told by what is not spent, and begins again */

            own |= (m->granted || m->debit || states[i].used);

        } else {
            own |= (m->granted != states[i].used + states[i].held
                    || states[i].held);
        }
    }

    if (idle > NGX_HTTP_AI_LEASE_IDLE && !held) {

        if (!own && told) {
            return 0;
        }

        (void) ngx_http_ai_lease_ask(zone, le, NGX_HTTP_AI_ASK_RETURN, NULL,
                                     NULL);
        return 2;
    }

    if (!told
        || (own
            && ngx_http_ai_lease_since(le->synced) > NGX_HTTP_AI_LEASE_RENEW))
    {
        (void) ngx_http_ai_lease_ask(zone, le, NGX_HTTP_AI_ASK_TELL, NULL,
                                     NULL);
        return 2;
    }

    return 1;
}


/* the last worker of a node gives back what nobody will use there */

void
ngx_http_ai_lease_exit(ngx_cycle_t *cycle)
{
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    rmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_ai_ratelimit_module);

    /* it calls ngx_http_ai_lease_stop() */

    ngx_http_ai_zone_stop(cycle, rmcf);
}


void
ngx_http_ai_lease_stop(ngx_http_ai_ratelimit_main_conf_t *rmcf)
{
    ngx_uint_t                  i, k;
    ngx_http_ai_lease_t        *le;
    ngx_http_ai_limit_zone_t  **zone;

    zone = rmcf->zones.elts;

    ngx_http_ai_lease_drop();

    for (i = 0; i < rmcf->zones.nelts; i++) {

        if (zone[i]->redis == NULL) {
            continue;
        }

        ngx_http_ai_zone_lock(zone[i]);

        if (ngx_http_ai_lease_last(zone[i])) {
            le = zone[i]->sh->leases;

            for (k = 0; k < zone[i]->sh->nleases; k++, le++) {
                if (le->len && !ngx_http_ai_lease_empty(le)) {
                    le->busy = 0;
                    (void) ngx_http_ai_lease_ask(zone[i], le,
                                                 NGX_HTTP_AI_ASK_RETURN, NULL,
                                                 NULL);
                }
            }
        }

        ngx_http_ai_zone_unlock(zone[i]);
    }
}


static ngx_uint_t
ngx_http_ai_lease_last(ngx_http_ai_limit_zone_t *zone)
{
    ngx_uint_t             i;
    ngx_http_ai_worker_t  *w;

    w = zone->sh->workers;

    for (i = 0; i < NGX_HTTP_AI_LIMIT_WORKERS; i++) {
        if (w[i].owner && w[i].owner != ngx_http_ai_zone_owner()
            && ngx_http_ai_zone_living(zone, w[i].owner))
        {
            return 0;
        }
    }

    return 1;
}
