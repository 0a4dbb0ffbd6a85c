
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Operations on leases: one at a time for a key and node.  A request that
 * the node's grants do not cover waits for one, never longer than "timeout";
 * the next one is asked for before it is needed.
 */


#include "ngx_http_ai_ratelimit_lease.h"
#include "ngx_http_ai_ratelimit_script.h"


/* ms between looks at an operation of another worker */
#define NGX_HTTP_AI_LEASE_POLL   2

#define NGX_HTTP_AI_LEASE_TEXT   1024


struct ngx_http_ai_ask_s {
    ngx_queue_t                    queue;     /* of the worker */
    ngx_http_ai_limit_zone_t      *zone;
    ngx_str_t                      key;
    u_char                         data[NGX_HTTP_AI_LIMIT_KEY_MAX];
    uint64_t                       seq;
    ngx_http_ai_redis_op_t        *op;        /* NULL: another worker's */
    ngx_event_t                    timer;     /* ... is looked at */
    ngx_msec_t                     sent;
    ngx_queue_t                    waiters;
    int64_t                        debit[NGX_HTTP_AI_METER_MAX];
    int64_t                        debt[NGX_HTTP_AI_METER_MAX];
    int64_t                        start[NGX_HTTP_AI_METER_MAX];
    int64_t                        told[NGX_HTTP_AI_METER_MAX];
    unsigned                       returns:1;
};


struct ngx_http_ai_waiter_s {
    ngx_queue_t                    queue;     /* of its ask */
    ngx_http_ai_ask_t             *ask;       /* NULL: it waits for none */
    ngx_http_request_t            *request;
    ngx_http_ai_limited_t         *l;
    ngx_event_t                    timer;
    ngx_msec_t                     deadline;
    ngx_msec_t                     since;
    ngx_uint_t                     failed;
    int64_t                        output;    /* of a stream that is held */
    unsigned                       stream:1;
    unsigned                       begun:1;
};


static ngx_int_t ngx_http_ai_lease_try(ngx_http_request_t *r,
    ngx_http_ai_limited_t *l, ngx_http_ai_ticket_t *t, ngx_uint_t show,
    ngx_uint_t local, ngx_http_ai_amounts_t *lack);
static ngx_int_t ngx_http_ai_lease_wait(ngx_http_request_t *r,
    ngx_http_ai_limited_t *l, ngx_http_ai_ticket_t *t,
    ngx_http_ai_amounts_t *lack);
static ngx_uint_t ngx_http_ai_lease_exhausted(ngx_http_ai_ticket_t *t,
    ngx_http_ai_lease_t *le, ngx_http_ai_amounts_t *lack, ngx_msec_t since,
    ngx_http_ai_limit_refusal_t *refusal);
static ngx_int_t ngx_http_ai_lease_away(ngx_http_request_t *r,
    ngx_http_ai_limited_t *l, ngx_http_ai_ticket_t *t, ngx_uint_t show);
static ngx_http_ai_redis_on_error_e ngx_http_ai_lease_policy(
    ngx_http_ai_limit_zone_t *zone);
static ngx_http_ai_waiter_t *ngx_http_ai_lease_pending(
    ngx_http_request_t *r, ngx_http_ai_limited_t *l, ngx_http_ai_ticket_t *t);
static ngx_http_ai_ask_t *ngx_http_ai_lease_running(
    ngx_http_ai_limit_zone_t *zone, ngx_str_t *key);
static u_char *ngx_http_ai_lease_words(u_char *p, ngx_http_ai_ask_t *ask,
    ngx_http_ai_lease_t *le, ngx_http_ai_ask_e what,
    ngx_http_ai_amounts_t *need, ngx_str_t *keys, ngx_uint_t *nkeys);
static void ngx_http_ai_lease_answer(void *data,
    ngx_http_ai_redis_reply_t *reply);
static ngx_int_t ngx_http_ai_lease_read(ngx_http_ai_ask_t *ask,
    ngx_http_ai_lease_t *le, ngx_str_t *text);
static void ngx_http_ai_lease_done(ngx_http_ai_ask_t *ask,
    ngx_uint_t failed);
static void ngx_http_ai_lease_poll(ngx_event_t *ev);
static void ngx_http_ai_lease_late(ngx_event_t *ev);
static void ngx_http_ai_lease_cleanup(void *data);
static void ngx_http_ai_lease_resume(ngx_http_ai_waiter_t *w,
    ngx_uint_t failed);
static void ngx_http_ai_lease_prefetch(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_lease_t *le, int64_t now, ngx_http_ai_amounts_t *amounts);


static ngx_queue_t              ngx_http_ai_asks;
static ngx_connection_t         ngx_http_ai_ask_dummy;
static const ngx_http_ai_api_t  *ngx_http_ai_lease_api;

/* how many try again, the next operation may be for all of them */
static ngx_uint_t               ngx_http_ai_ask_crowd = 1;


static ngx_http_ai_redis_script_t  ngx_http_ai_lease_script = {
    ngx_string(NGX_HTTP_AI_RATELIMIT_SCRIPT), "", 0
};


ngx_int_t
ngx_http_ai_lease_configure(ngx_conf_t *cf,
    ngx_http_ai_ratelimit_main_conf_t *rmcf)
{
    ngx_str_t                   near;
    ngx_uint_t                  i;
    ngx_http_ai_limit_zone_t  **zone, *z;

    zone = rmcf->zones.elts;

    for (i = 0; i < rmcf->zones.nelts; i++) {
        z = zone[i];

        if (z->redis_name.len == 0) {
            continue;
        }

        z->redis = rmcf->api->redis_find(cf, &z->redis_name, &near);

        if (z->redis == NULL) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "zone \"%V\": no ai_redis \"%V\"%V in %s:%ui",
                          &z->name, &z->redis_name, &near, z->file, z->line);
            return NGX_ERROR;
        }

        if (z->snapshot.len) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "zone \"%V\": \"snapshot\" is of no use beside "
                          "\"redis\" in %s:%ui", &z->name, z->file, z->line);
            return NGX_ERROR;
        }

        z->nodes = rmcf->api->redis_nodes(z->redis);

        if (z->kind == NGX_HTTP_AI_ZONE_QUOTA) {
            rmcf->api->redis_durable(z->redis);
        }

        if (rmcf->api->redis_at_exit(z->redis, ngx_http_ai_lease_exit)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


void
ngx_http_ai_lease_start(ngx_http_ai_ratelimit_main_conf_t *rmcf)
{
    ngx_http_ai_lease_api = rmcf->api;
    ngx_http_ai_ask_dummy.fd = (ngx_socket_t) -1;

    ngx_queue_init(&ngx_http_ai_asks);
}


static ngx_http_ai_redis_on_error_e
ngx_http_ai_lease_policy(ngx_http_ai_limit_zone_t *zone)
{
    ngx_http_ai_redis_on_error_e  policy;

    policy = ngx_http_ai_lease_api->redis_on_error(zone->redis);

    if (policy != NGX_HTTP_AI_REDIS_UNSET) {
        return policy;
    }

    return zone->amounts[NGX_HTTP_AI_METER_Q_MONEY].set
           ? NGX_HTTP_AI_REDIS_DENY : NGX_HTTP_AI_REDIS_LOCAL;
}


ngx_int_t
ngx_http_ai_lease_take(ngx_http_request_t *r, ngx_http_ai_limited_t *l,
    ngx_http_ai_ticket_t *t, ngx_uint_t show)
{
    ngx_int_t               rc;
    ngx_uint_t              i;
    ngx_http_ai_amounts_t   lack;
    ngx_http_ai_waiter_t   *w;

    if (t->cut == NULL) {
        t->cut = ngx_palloc(r->pool, sizeof(ngx_http_ai_amounts_t));
        if (t->cut == NULL) {
            return NGX_ERROR;
        }
    }

    /* an estimate above a whole limit is cut down to it */

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {

        if (t->limits[i].limit < 0) {
            t->cut->v[i] = 0;
            continue;
        }

        t->cut->v[i] = ngx_min(t->held.v[i], t->limits[i].limit);

        if (t->limits[i].burst > 0) {
            t->cut->v[i] = ngx_min(t->cut->v[i], t->limits[i].burst);
        }
    }

    w = t->waiter;

    if (w && w->failed) {
        return ngx_http_ai_lease_away(r, l, t, show);
    }

    rc = ngx_http_ai_lease_try(r, l, t, show, 0, &lack);

    if (rc != NGX_AGAIN) {
        return rc;
    }

    rc = ngx_http_ai_lease_wait(r, l, t, &lack);

    if (rc == NGX_BUSY) {
        return ngx_http_ai_lease_away(r, l, t, show);
    }

    return rc;
}


/* NGX_AGAIN: grants are lacking */

static ngx_int_t
ngx_http_ai_lease_try(ngx_http_request_t *r, ngx_http_ai_limited_t *l,
    ngx_http_ai_ticket_t *t, ngx_uint_t show, ngx_uint_t local,
    ngx_http_ai_amounts_t *lack)
{
    int64_t                    now;
    ngx_int_t                  rc;
    ngx_msec_t                 since;
    ngx_uint_t                 i, lacks;
    ngx_http_ai_lease_t       *le;
    ngx_http_ai_limit_e        e;
    ngx_http_ai_limit_t        limits[NGX_HTTP_AI_METER_MAX];
    ngx_http_ai_limit_zone_t  *zone;

    zone = t->zone;
    now = ngx_http_ai_zone_now();
    rc = NGX_DECLINED;

    ngx_http_ai_zone_lock(zone);

    le = ngx_http_ai_lease_get(zone, &t->key, 1);

    if (le == NULL) {
        l->full = 1;
        goto done;
    }

    ngx_http_ai_lease_adopt(zone, le, t->limits, now);

    if (local
        && ngx_http_ai_lease_grant(zone, le, now, t->cut, &l->refusal)
           != NGX_OK)
    {
        goto refused;
    }

    ngx_http_ai_lease_limits(zone, le, limits, local);

    /* meters that this request has no limit of are of no concern to it */

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
        if (t->limits[i].limit < 0) {
            limits[i].limit = -1;
        }
    }

    ngx_http_ai_lease_lack(zone, le, now, limits, t->cut, lack, &lacks);

    if (lacks) {

        since = t->waiter ? t->waiter->since
                          : ngx_current_msec - NGX_HTTP_AI_LEASE_KNOWN;

        if (local
            || ngx_http_ai_lease_exhausted(t, le, lack, since, &l->refusal))
        {
            goto refused;
        }

        rc = NGX_AGAIN;
        goto done;
    }

    e = ngx_http_ai_limit_reserve(zone->store, &t->key, l->id,
                                  ngx_http_ai_zone_owner(), now,
                                  now + l->deadline, limits, t->cut,
                                  &t->hold, &l->refusal);

    if (e == NGX_HTTP_AI_LIMIT_OK || e == NGX_HTTP_AI_LIMIT_REPEATED) {
        rc = NGX_OK;
        ngx_http_ai_lease_keep(zone, le);
        ngx_http_ai_lease_prefetch(zone, le, now, t->cut);

    } else if (e == NGX_HTTP_AI_LIMIT_FULL) {
        l->full = 1;
        goto done;
    }

refused:

    ngx_http_ai_ticket_peek(t, now);

    if (rc != NGX_OK) {
        l->refusal.state = t->states[l->refusal.meter];
        l->refusal.held = (l->refusal.state.held > 0
                           && l->refusal.wait <= 1000);
    }

    t->shown = show;

done:

    ngx_http_ai_zone_unlock(zone);

    if (rc == NGX_OK) {
        t->taken = 1;
    }

    return rc;
}


/* has Redis said, lately, that there is not enough? */

static ngx_uint_t
ngx_http_ai_lease_exhausted(ngx_http_ai_ticket_t *t, ngx_http_ai_lease_t *le,
    ngx_http_ai_amounts_t *lack, ngx_msec_t since,
    ngx_http_ai_limit_refusal_t *refusal)
{
    int64_t                     wait;
    ngx_uint_t                  i, found;
    ngx_http_ai_lease_meter_t  *m;

    if (!le->known || (ngx_msec_int_t) (le->answered - since) < 0) {
        return 0;
    }

    found = 0;

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
        m = &le->m[i];

        if (m->limit < 0 || lack->v[i] <= m->free || lack->v[i] == 0) {
            continue;
        }

        wait = m->wait;

        if (i < NGX_HTTP_AI_METER_CONCURRENT && m->limit > 0) {
            wait = (int64_t) ((double) (lack->v[i] - m->free) * m->period
                              / m->limit)
                   + 1;
            wait = ngx_max(wait, m->wait);
        }

        wait = wait ? wait : 1000;

        if (!found || wait > refusal->wait) {
            refusal->meter = i;
            refusal->wait = wait;
        }

        found = 1;
    }

    return found;
}


/* NGX_BUSY: Redis cannot be asked */

static ngx_int_t
ngx_http_ai_lease_wait(ngx_http_request_t *r, ngx_http_ai_limited_t *l,
    ngx_http_ai_ticket_t *t, ngx_http_ai_amounts_t *lack)
{
    ngx_int_t              rc;
    ngx_http_ai_ask_t     *ask;
    ngx_pool_cleanup_t    *cln;
    ngx_http_ai_lease_t   *le;
    ngx_http_ai_waiter_t  *w;

    w = t->waiter;

    if (w && (ngx_msec_int_t) (w->deadline - ngx_current_msec) <= 0) {
        return NGX_BUSY;
    }

    ask = ngx_http_ai_lease_running(t->zone, &t->key);

    if (ask == NULL) {
        ngx_http_ai_zone_lock(t->zone);

        le = ngx_http_ai_lease_get(t->zone, &t->key, 0);

        rc = le ? ngx_http_ai_lease_ask(t->zone, le, NGX_HTTP_AI_ASK_MORE,
                                        t->cut, &ask)
                : NGX_ERROR;

        ngx_http_ai_zone_unlock(t->zone);

        if (rc != NGX_OK) {
            return NGX_BUSY;
        }
    }

    if (w == NULL) {
        w = ngx_pcalloc(r->pool, sizeof(ngx_http_ai_waiter_t));
        if (w == NULL) {
            return NGX_ERROR;
        }

        cln = ngx_pool_cleanup_add(r->pool, 0);
        if (cln == NULL) {
            return NGX_ERROR;
        }

        cln->handler = ngx_http_ai_lease_cleanup;
        cln->data = w;

        w->request = r;
        w->l = l;
        w->since = ngx_current_msec;
        w->deadline = ngx_current_msec
                      + ngx_http_ai_lease_api->redis_timeout(t->zone->redis);
        w->timer.handler = ngx_http_ai_lease_late;
        w->timer.data = w;
        w->timer.log = r->connection->log;

        t->waiter = w;
    }

    w->ask = ask;
    ngx_queue_insert_tail(&ask->waiters, &w->queue);

    if (!w->timer.timer_set) {
        ngx_add_timer(&w->timer, ngx_max(w->deadline - ngx_current_msec, 1));
    }

    return NGX_AGAIN;
}


/* Redis has not answered: what "on_error" says */

static ngx_int_t
ngx_http_ai_lease_away(ngx_http_request_t *r, ngx_http_ai_limited_t *l,
    ngx_http_ai_ticket_t *t, ngx_uint_t show)
{
    ngx_http_ai_amounts_t  lack;

    switch (ngx_http_ai_lease_policy(t->zone)) {

    case NGX_HTTP_AI_REDIS_LOCAL:
        return ngx_http_ai_lease_try(r, l, t, show, 1, &lack);

    case NGX_HTTP_AI_REDIS_ALLOW:

        if (t->zone->complained == 0
            || ngx_current_msec - t->zone->complained >= 60000)
        {
            t->zone->complained = ngx_current_msec;

            ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                          "ai ratelimit: zone \"%V\": redis \"%V\" does not "
                          "answer, requests pass unlimited", &t->zone->name,
                          &t->zone->redis_name);
        }

        t->passed = 1;

        return NGX_OK;

    default:
        l->away = 1;
        return NGX_DECLINED;
    }
}


ngx_int_t
ngx_http_ai_lease_topup(ngx_http_ai_limited_t *l, ngx_http_ai_ticket_t *t,
    ngx_http_ai_amounts_t *amounts, int64_t now,
    ngx_http_ai_limit_refusal_t *refusal)
{
    ngx_int_t                  rc;
    ngx_uint_t                 i, lacks;
    ngx_http_ai_limit_e        e;
    ngx_http_ai_lease_t       *le;
    ngx_http_ai_limit_t        limits[NGX_HTTP_AI_METER_MAX];
    ngx_http_ai_amounts_t      lack, none;
    ngx_http_ai_limit_zone_t  *zone;

    zone = t->zone;
    rc = NGX_DECLINED;

    ngx_http_ai_zone_lock(zone);

    le = ngx_http_ai_lease_get(zone, &t->key, 1);

    if (le == NULL) {
        goto done;
    }

    ngx_http_ai_lease_adopt(zone, le, t->limits, now);
    ngx_http_ai_lease_limits(zone, le, limits, 0);
    ngx_http_ai_lease_lack(zone, le, now, limits, amounts, &lack, &lacks);

    if (lacks) {
        rc = ngx_http_ai_lease_ask(zone, le, NGX_HTTP_AI_ASK_MORE, amounts,
                                   NULL);

        if (rc == NGX_DECLINED
            && ngx_http_ai_lease_policy(zone) == NGX_HTTP_AI_REDIS_LOCAL
            && ngx_http_ai_lease_grant(zone, le, now, amounts, refusal)
               == NGX_OK)
        {
            lacks = 0;
            ngx_http_ai_lease_limits(zone, le, limits, 1);
        }

        rc = NGX_DECLINED;
    }

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
        if (t->limits[i].limit < 0) {
            limits[i].limit = -1;
        }
    }

    if (lacks) {

        for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
            if (lack.v[i] > 0) {
                refusal->meter = i;
                refusal->state.remaining = ngx_max(amounts->v[i] - lack.v[i],
                                                   0);
            }
        }

        /* it lives, whatever it is refused */

        ngx_memzero(&none, sizeof(ngx_http_ai_amounts_t));

        amounts = &none;
    }

    e = ngx_http_ai_limit_topup(zone->store, &t->hold, now,
                                now + l->deadline, limits, amounts, refusal);

    if (e == NGX_HTTP_AI_LIMIT_OK && !lacks) {
        rc = NGX_OK;
        ngx_http_ai_lease_keep(zone, le);
        ngx_http_ai_lease_prefetch(zone, le, now, amounts);
    }

done:

    ngx_http_ai_zone_unlock(zone);

    return rc;
}


ngx_int_t
ngx_http_ai_lease_hold(ngx_http_request_t *r, ngx_http_ai_limited_t *l,
    ngx_http_ai_ticket_t *t)
{
    int64_t                       now, rest;
    ngx_int_t                     rc;
    ngx_uint_t                    lacks, exhausted;
    ngx_http_ai_ask_t            *ask;
    ngx_http_ai_lease_t          *le;
    ngx_http_ai_limit_t           limits[NGX_HTTP_AI_METER_MAX];
    ngx_http_ai_waiter_t         *w;
    ngx_http_ai_amounts_t         amounts, lack, one;
    ngx_http_ai_limit_zone_t     *zone;
    ngx_http_ai_limit_refusal_t   refusal;

    zone = t->zone;
    w = ngx_http_ai_lease_pending(r, l, t);

    if (w == NULL) {
        return NGX_DECLINED;
    }

    if (w->ask) {
        return NGX_AGAIN;
    }

    if (w->failed
        || (ngx_msec_int_t) (w->deadline - ngx_current_msec) <= 0)
    {
        return NGX_DECLINED;
    }

    ngx_http_ai_limit_amounts(l->ctx, NGX_HTTP_AI_LIMIT_MORE, t->step,
                              &amounts);
    ngx_http_ai_limit_amounts(l->ctx, NGX_HTTP_AI_LIMIT_MORE, 1, &one);

    now = ngx_http_ai_zone_now();
    exhausted = 0;
    rest = 0;

    ngx_memzero(&refusal, sizeof(ngx_http_ai_limit_refusal_t));

    ngx_http_ai_zone_lock(zone);

    le = ngx_http_ai_lease_get(zone, &t->key, 0);

    if (le) {
        ngx_http_ai_lease_limits(zone, le, limits, 0);
        ngx_http_ai_lease_lack(zone, le, now, limits, &amounts, &lack,
                               &lacks);

        exhausted = ngx_http_ai_lease_exhausted(t, le, &lack, w->since,
                                                &refusal);
    }

    if (exhausted && one.v[refusal.meter] > 0) {

        /* what is here, and what Redis still has */

        rest = (amounts.v[refusal.meter] - lack.v[refusal.meter]
                + le->m[refusal.meter].free)
               / one.v[refusal.meter];
    }

    ngx_http_ai_zone_unlock(zone);

    if (exhausted) {

        if (rest <= 0 || rest >= t->step) {
            return NGX_DECLINED;
        }

        /* a smaller one, when the operation that runs is over */

        t->step = rest;

        ngx_http_ai_limit_amounts(l->ctx, NGX_HTTP_AI_LIMIT_MORE, rest,
                                  &amounts);
    }

    ask = ngx_http_ai_lease_running(zone, &t->key);

    if (ask == NULL) {
        ngx_http_ai_zone_lock(zone);

        le = ngx_http_ai_lease_get(zone, &t->key, 0);

        rc = le ? ngx_http_ai_lease_ask(zone, le, NGX_HTTP_AI_ASK_MORE,
                                        &amounts, &ask)
                : NGX_DECLINED;

        ngx_http_ai_zone_unlock(zone);

        if (rc != NGX_OK) {
            return NGX_DECLINED;
        }
    }

    w->ask = ask;
    ngx_queue_insert_tail(&ask->waiters, &w->queue);

    ngx_add_timer(&w->timer, ngx_max(w->deadline - ngx_current_msec, 1));

    return NGX_AGAIN;
}


/* one time limit for what the same tokens need */

static ngx_http_ai_waiter_t *
ngx_http_ai_lease_pending(ngx_http_request_t *r, ngx_http_ai_limited_t *l,
    ngx_http_ai_ticket_t *t)
{
    ngx_pool_cleanup_t    *cln;
    ngx_http_ai_waiter_t  *w;

    w = t->pending;

    if (w == NULL) {
        w = ngx_pcalloc(r->pool, sizeof(ngx_http_ai_waiter_t));
        if (w == NULL) {
            return NULL;
        }

        cln = ngx_pool_cleanup_add(r->pool, 0);
        if (cln == NULL) {
            return NULL;
        }

        cln->handler = ngx_http_ai_lease_cleanup;
        cln->data = w;

        w->stream = 1;
        w->request = r;
        w->l = l;
        w->timer.handler = ngx_http_ai_lease_late;
        w->timer.data = w;
        w->timer.log = r->connection->log;

        t->pending = w;
    }

    if (w->ask == NULL && (!w->begun || w->output != t->output)) {
        w->begun = 1;
        w->output = t->output;
        w->failed = 0;
        w->since = ngx_current_msec - NGX_HTTP_AI_LEASE_KNOWN;
        w->deadline = ngx_current_msec
                  + ngx_http_ai_lease_api->redis_timeout(t->zone->redis);
    }

    return w;
}


void
ngx_http_ai_lease_touch(ngx_http_ai_limit_zone_t *zone, ngx_str_t *key)
{
    ngx_http_ai_lease_t  *le;

    le = ngx_http_ai_lease_get(zone, key, 0);

    if (le) {
        le->touched = ngx_current_msec;
        ngx_http_ai_lease_keep(zone, le);
    }
}


/* a quarter of a grant is left: the next one, before it is needed */

static void
ngx_http_ai_lease_prefetch(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_lease_t *le, int64_t now, ngx_http_ai_amounts_t *amounts)
{
    ngx_str_t                   key;
    ngx_uint_t                  i;
    ngx_http_ai_limit_t         limits[NGX_HTTP_AI_METER_MAX];
    ngx_http_ai_amounts_t       none;
    ngx_http_ai_lease_meter_t  *m;
    ngx_http_ai_limit_state_t   states[NGX_HTTP_AI_METER_MAX];

    if (le->busy) {
        return;
    }

    key.data = le->key;
    key.len = le->len;

    ngx_http_ai_lease_limits(zone, le, limits, 0);
    ngx_http_ai_limit_peek(zone->store, &key, now, limits, states);

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
        m = &le->m[i];

        /* not for one that came alone, or long after the last one */

        if (m->limit < 0 || m->free < 4 || m->chunk < 4 * amounts->v[i]
            || amounts->v[i] == 0 || ngx_http_ai_lease_since(m->given) > 1000)
        {
            continue;
        }

        if (m->granted - states[i].used - states[i].held <= m->chunk / 4) {
            ngx_memzero(&none, sizeof(ngx_http_ai_amounts_t));

            (void) ngx_http_ai_lease_ask(zone, le, NGX_HTTP_AI_ASK_MORE,
                                         &none, NULL);
            return;
        }
    }
}


static ngx_http_ai_ask_t *
ngx_http_ai_lease_running(ngx_http_ai_limit_zone_t *zone, ngx_str_t *key)
{
    ngx_queue_t        *q;
    ngx_http_ai_ask_t  *ask;

    for (q = ngx_queue_head(&ngx_http_ai_asks);
         q != ngx_queue_sentinel(&ngx_http_ai_asks);
         q = ngx_queue_next(q))
    {
        ask = ngx_queue_data(q, ngx_http_ai_ask_t, queue);

        if (ask->zone == zone && ask->key.len == key->len
            && ngx_memcmp(ask->key.data, key->data, key->len) == 0)
        {
            return ask;
        }
    }

    return NULL;
}


void
ngx_http_ai_lease_status(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_redis_status_t *status)
{
    ngx_http_ai_lease_api->redis_status(zone->redis, status);
}


ngx_int_t
ngx_http_ai_lease_ask(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_lease_t *le, ngx_http_ai_ask_e what,
    ngx_http_ai_amounts_t *need, ngx_http_ai_ask_t **ret)
{
    u_char                     *p, text[NGX_HTTP_AI_LEASE_TEXT];
    u_char                      names[4][NGX_HTTP_AI_LEASE_NAME];
    u_char                      number[NGX_INT_T_LEN];
    ngx_int_t                   rc;
    ngx_str_t                   keys[4], argv[6];
    ngx_uint_t                  i, n, busy;
    ngx_http_ai_ask_t          *ask;
    ngx_http_ai_redis_status_t  status;

    busy = le->busy && (ngx_msec_int_t) (le->until - ngx_current_msec) > 0;

    if (busy && ret == NULL) {
        return NGX_OK;
    }

    if (!busy) {

        /* nothing is prepared for one that cannot be sent */

        ngx_http_ai_lease_api->redis_status(zone->redis, &status);

        if (status.open) {
            return NGX_DECLINED;
        }
    }

    ask = ngx_alloc(sizeof(ngx_http_ai_ask_t), ngx_cycle->log);
    if (ask == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(ask, sizeof(ngx_http_ai_ask_t));

    ask->zone = zone;
    ask->key.data = ask->data;
    ask->key.len = le->len;
    ngx_memcpy(ask->data, le->key, le->len);

    ask->timer.handler = ngx_http_ai_lease_poll;
    ask->timer.data = ask;
    ask->timer.log = ngx_cycle->log;

    ngx_queue_init(&ask->waiters);

    if (busy) {
        ask->seq = le->seq;
        ngx_add_timer(&ask->timer, NGX_HTTP_AI_LEASE_POLL);

    } else {

        for (i = 0; i < 4; i++) {
            keys[i].data = names[i];
        }

        p = ngx_http_ai_lease_name(names[0], zone, le->key, le->len);
        keys[0].len = p - names[0];

        ask->seq = zone->sh->operations + 1;
        ask->sent = ngx_current_msec;

        p = ngx_http_ai_lease_words(text, ask, le, what, need, keys, &n);

        argv[0].data = number;
        argv[0].len = ngx_sprintf(number, "%ui", n) - number;

        for (i = 0; i < n; i++) {
            argv[1 + i] = keys[i];
        }

        argv[1 + n].data = text;
        argv[1 + n].len = p - text;

        le->busy = 1;
        le->until = ngx_current_msec
                    + ngx_http_ai_lease_api->redis_timeout(zone->redis) + 100;
        zone->sh->operations++;
        le->seq = ask->seq;

        rc = ngx_http_ai_lease_api->redis_send(zone->redis,
                                               &ngx_http_ai_lease_script,
                                               argv, n + 2,
                                               ngx_http_ai_lease_answer, ask,
                                               &ask->op);

        if (rc != NGX_OK) {
            le->busy = 0;
            ngx_free(ask);
            return rc;
        }

        ngx_http_ai_lease_keep(zone, le);
    }

    ngx_queue_insert_tail(&ngx_http_ai_asks, &ask->queue);

    if (ret) {
        *ret = ask;
    }

    return NGX_OK;
}


u_char *
ngx_http_ai_lease_name(u_char *p, ngx_http_ai_limit_zone_t *zone,
    u_char *key, size_t len)
{
    p = ngx_sprintf(p, "ai:{%V:", &zone->name);
    p = ngx_cpymem(p, key, len);
    *p++ = '}';

    return p;
}


static u_char *
ngx_http_ai_lease_words(u_char *p, ngx_http_ai_ask_t *ask,
    ngx_http_ai_lease_t *le, ngx_http_ai_ask_e what,
    ngx_http_ai_amounts_t *need, ngx_str_t *keys, ngx_uint_t *nkeys)
{
    int64_t                     now, own, lack, want, unspent, have;
    ngx_uint_t                  i;
    ngx_http_ai_limit_t         limits[NGX_HTTP_AI_METER_MAX];
    ngx_http_ai_lease_meter_t  *m;
    ngx_http_ai_limit_state_t   states[NGX_HTTP_AI_METER_MAX];

    now = ngx_http_ai_zone_now();
    *nkeys = 1;

    ngx_http_ai_lease_limits(ask->zone, le, limits, 0);
    ngx_http_ai_limit_peek(ask->zone->store, &ask->key, now, limits, states);

    p = ngx_sprintf(p, "%xL %uL %uL %d %uL", ask->zone->sh->epoch, ask->seq,
                    le->got, NGX_HTTP_AI_LEASE_TIME, le->era);

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
        m = &le->m[i];

        if (m->limit < 0) {
            continue;
        }

        own = states[i].used + states[i].held;
        want = 0;

        if (what == NGX_HTTP_AI_ASK_MORE) {

            /* one that was used up soon was too small */

            if (ngx_http_ai_lease_since(m->given) < 500) {
                m->chunk = ngx_min(m->chunk * 2, NGX_HTTP_AI_LIMIT_MOST / 4);

            } else if (ngx_http_ai_lease_since(m->given) > 4000) {
                m->chunk = m->chunk / 2;
            }

            m->chunk = ngx_max(m->chunk,
                               need->v[i] * (int64_t) ngx_http_ai_ask_crowd);
            m->chunk = ngx_max(m->chunk, 1);

            /* of others there may be enough */

            want = (m->granted - own - need->v[i] <= m->chunk / 4)
                   ? m->chunk : 0;
        }

        if (i < NGX_HTTP_AI_METER_CONCURRENT) {
            unspent = m->granted - own;
            ask->debit[i] = m->debit;
            ask->debt[i] = ngx_max(-unspent, 0);

            if (what == NGX_HTTP_AI_ASK_RETURN && unspent > 0) {

                /* no request may use it from now on */

                m->granted -= unspent;
                p = ngx_sprintf(p, " r %ui %L %L %L 0 %L 0 0", i, m->limit,
                                m->period, m->burst, m->debit - unspent);
                continue;
            }

            lack = need ? ngx_max(need->v[i] - ngx_max(unspent, 0), 0) : 0;
            want = ngx_max(want, lack);

            p = ngx_sprintf(p, " r %ui %L %L %L %L %L %L %L", i, m->limit,
                            m->period, m->burst, unspent, m->debit, lack,
                            want);
            continue;
        }

        have = m->granted;

        if (i == NGX_HTTP_AI_METER_CONCURRENT) {

            if (!ngx_http_ai_lease_valid(le)) {
                have = own;
                m->granted = own;
            }

            if (what == NGX_HTTP_AI_ASK_RETURN) {
                want = own;
                m->granted = ngx_min(m->granted, own);

            } else {
                want = ngx_max(have, own + want);
            }

            p = ngx_sprintf(p, " s %ui %L %L %L %L %L", i, m->limit,
                            ngx_max(have, own), own,
                            own + (need ? need->v[i] : 0),
                            ngx_max(want, own));
            continue;
        }

        /* what was used in debt, or without Redis, is granted with that */

        have = ngx_max(have, own);

        if (what == NGX_HTTP_AI_ASK_RETURN) {
            want = own;
            m->granted = own;

            /* should it get lost, it is told again */
            m->told = -1;

        } else {
            m->granted = have;
            want = ngx_max(have, own + want);
        }

        ask->start[i] = m->start;
        ask->told[i] = states[i].used;

        keys[*nkeys].len = ngx_sprintf(keys[*nkeys].data, "%V:%ui:%L",
                                       &keys[0], i, m->start)
                           - keys[*nkeys].data;
        (*nkeys)++;

        p = ngx_sprintf(p, " w %ui %ui %L %L %L %L %L %L %L", i, *nkeys,
                        m->start, m->end, m->limit, have, states[i].used,
                        own + (need ? need->v[i] : 0), want);
    }

    ask->returns = (what == NGX_HTTP_AI_ASK_RETURN);

    return p;
}


static void
ngx_http_ai_lease_answer(void *data, ngx_http_ai_redis_reply_t *reply)
{
    ngx_http_ai_ask_t *ask = data;

    ngx_uint_t            failed;
    ngx_http_ai_lease_t  *le;

    ask->op = NULL;
    failed = 1;

    ngx_http_ai_zone_lock(ask->zone);

    le = ngx_http_ai_lease_get(ask->zone, &ask->key, 0);

    /* one that was overtaken is of no interest */

    if (le && le->seq == ask->seq) {
        le->busy = 0;

        if (reply->rc == NGX_HTTP_AI_REDIS_OK
            && ngx_http_ai_lease_read(ask, le, &reply->text) == NGX_OK)
        {
            failed = 0;
        }
    }

    ngx_http_ai_zone_unlock(ask->zone);

    if (reply->rc == NGX_HTTP_AI_REDIS_REFUSED) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "ai ratelimit: zone \"%V\": redis \"%V\" answers "
                      "\"%V\"", &ask->zone->name, &ask->zone->redis_name,
                      &reply->text);
    }

    ngx_http_ai_lease_done(ask, failed);
}


static ngx_int_t
ngx_http_ai_lease_read(ngx_http_ai_ask_t *ask, ngx_http_ai_lease_t *le,
    ngx_str_t *text)
{
    u_char                     *p, *last, ch;
    int64_t                     v[4 + 6 * NGX_HTTP_AI_METER_MAX];
    ngx_str_t                   key;
    ngx_uint_t                  n, i, k, minus;
    ngx_http_ai_lease_meter_t  *m;

    p = text->data;
    last = p + text->len;
    n = 0;

    while (p < last && n < sizeof(v) / sizeof(v[0])) {
        minus = (*p == '-');
        p += minus;
        v[n] = 0;

        while (p < last) {
            ch = *p++;

            if (ch < '0' || ch > '9') {
                break;
            }

            v[n] = v[n] * 10 + (ch - '0');
        }

        v[n] = minus ? -v[n] : v[n];
        n++;
    }

    if (n < 4 || (uint64_t) v[0] != ask->seq) {
        return NGX_ERROR;
    }

    /* before the grants: none is counted twice */

    le->got = ask->seq;
    le->synced = ask->sent;
    le->answered = ngx_current_msec;
    le->known = 1;
    le->nodes = v[2];
    ask->zone->sh->nodes = v[2];

    if ((uint64_t) v[3] > le->era) {
        ngx_http_ai_lease_forget(ask->zone, le, v[3], ngx_http_ai_zone_now());
        return NGX_OK;
    }

    if ((uint64_t) v[3] < le->era) {
        /* it was reset meanwhile */
        return NGX_OK;
    }

    for (k = 4; k + 6 <= n; k += 6) {
        i = v[k];

        if (i >= NGX_HTTP_AI_METER_MAX) {
            return NGX_ERROR;
        }

        m = &le->m[i];

        if (i < NGX_HTTP_AI_METER_CONCURRENT) {
            m->debit -= ask->debit[i];
            m->granted += v[k + 1] + ask->debt[i];

            if (v[k + 1] > 0) {
                m->given = ngx_current_msec;
            }

        } else {

            if (i > NGX_HTTP_AI_METER_CONCURRENT
                && m->start != ask->start[i])
            {
                continue;
            }

            if (v[k + 1] > m->granted && !ask->returns) {
                m->given = ngx_current_msec;
                m->granted = v[k + 1];

            } else if (v[k + 1] < m->granted) {
                m->granted = v[k + 1];
            }

            m->used = v[k + 4];
            m->told = ask->told[i];
        }

        m->free = v[k + 2];
        m->wait = v[k + 3];
        m->raise = v[k + 5];
    }

    if (!ask->returns) {
        return NGX_OK;
    }

    /* use of rates begins again, or the store would keep the key for ever */

    for (i = 0; i < NGX_HTTP_AI_METER_CONCURRENT; i++) {
        if (le->m[i].granted && le->m[i].debit == 0) {
            break;
        }
    }

    if (i < NGX_HTTP_AI_METER_CONCURRENT
        && ngx_http_ai_lease_since(le->touched) > NGX_HTTP_AI_LEASE_IDLE)
    {
        key = ask->key;

        for (i = 0; i < NGX_HTTP_AI_METER_CONCURRENT; i++) {
            le->m[i].granted = 0;
        }

        (void) ngx_http_ai_limit_reset(ask->zone->store, &key);
    }

    return NGX_OK;
}


/* all that waited try again; some may go meanwhile */

static void
ngx_http_ai_lease_done(ngx_http_ai_ask_t *ask, ngx_uint_t failed)
{
    ngx_uint_t             n;
    ngx_queue_t           *q;
    ngx_http_ai_waiter_t  *w;

    ngx_queue_remove(&ask->queue);

    if (ask->timer.timer_set) {
        ngx_del_timer(&ask->timer);
    }

    n = 0;

    for (q = ngx_queue_head(&ask->waiters);
         q != ngx_queue_sentinel(&ask->waiters);
         q = ngx_queue_next(q))
    {
        n++;
    }

    while (!ngx_queue_empty(&ask->waiters)) {
        ngx_http_ai_ask_crowd = ngx_max(n, 1);
        n--;

        q = ngx_queue_head(&ask->waiters);
        w = ngx_queue_data(q, ngx_http_ai_waiter_t, queue);

        ngx_http_ai_lease_resume(w, failed);
    }

    ngx_http_ai_ask_crowd = 1;

    ngx_free(ask);
}


static void
ngx_http_ai_lease_resume(ngx_http_ai_waiter_t *w, ngx_uint_t failed)
{
    ngx_queue_remove(&w->queue);
    w->ask = NULL;
    w->failed = failed;

    if (w->timer.timer_set) {
        ngx_del_timer(&w->timer);
    }

    if (w->stream) {
        w->l->ctx->proceed(w->request, w->l->ctx);
        return;
    }

    ngx_http_ai_lease_api->resume(w->request);
}


static void
ngx_http_ai_lease_late(ngx_event_t *ev)
{
    ngx_http_ai_lease_resume(ev->data, 1);
}


/* the request is gone: so is what it holds in the zones before */

static void
ngx_http_ai_lease_cleanup(void *data)
{
    ngx_http_ai_waiter_t  *w = data;

    if (w->ask == NULL) {
        return;
    }

    ngx_queue_remove(&w->queue);
    w->ask = NULL;

    if (w->timer.timer_set) {
        ngx_del_timer(&w->timer);
    }

    if (!w->stream) {
        ngx_http_ai_limit_release(w->l, 0);
    }
}


/* an operation of another worker: is it over? */

static void
ngx_http_ai_lease_poll(ngx_event_t *ev)
{
    ngx_uint_t            busy;
    ngx_http_ai_ask_t    *ask;
    ngx_http_ai_lease_t  *le;

    ask = ev->data;

    ngx_http_ai_zone_lock(ask->zone);

    le = ngx_http_ai_lease_get(ask->zone, &ask->key, 0);

    busy = (le && le->busy && le->seq == ask->seq
            && (ngx_msec_int_t) (le->until - ngx_current_msec) > 0);

    ngx_http_ai_zone_unlock(ask->zone);

    if (busy) {
        ngx_add_timer(&ask->timer, NGX_HTTP_AI_LEASE_POLL);
        return;
    }

    ngx_http_ai_lease_done(ask, 0);
}


void
ngx_http_ai_lease_drop(void)
{
    ngx_queue_t           *q;
    ngx_http_ai_ask_t     *ask;
    ngx_http_ai_waiter_t  *w;

    while (!ngx_queue_empty(&ngx_http_ai_asks)) {
        q = ngx_queue_head(&ngx_http_ai_asks);
        ask = ngx_queue_data(q, ngx_http_ai_ask_t, queue);

        ngx_queue_remove(q);

        if (ask->op) {
            ngx_http_ai_lease_api->redis_cancel(ask->op);
        }

        if (ask->timer.timer_set) {
            ngx_del_timer(&ask->timer);
        }

        while (!ngx_queue_empty(&ask->waiters)) {
            q = ngx_queue_head(&ask->waiters);
            w = ngx_queue_data(q, ngx_http_ai_waiter_t, queue);

            ngx_queue_remove(q);
            w->ask = NULL;

            if (w->timer.timer_set) {
                ngx_del_timer(&w->timer);
            }
        }

        ngx_free(ask);
    }
}
