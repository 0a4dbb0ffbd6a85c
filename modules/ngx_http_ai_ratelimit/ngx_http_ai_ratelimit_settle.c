
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The end of a request: what it held is replaced by what it has used.  One
 * that got no answer from any provider costs nothing, but it counts as a
 * request of a rate.
 */


#include "ngx_http_ai_ratelimit_lease.h"


static void ngx_http_ai_settle_ticket(ngx_http_ai_limited_t *l,
    ngx_http_ai_ticket_t *t, ngx_http_ai_amounts_t *actual, int64_t now,
    ngx_http_ai_webhook_t *hook);
static void ngx_http_ai_settle_states(ngx_http_ai_ticket_t *t, int64_t now,
    ngx_http_ai_limit_state_t *states);


ngx_int_t
ngx_http_ai_limit_settle_hook(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    int64_t                             now, input, output;
    ngx_uint_t                          i;
    ngx_http_ai_ticket_t               *t;
    ngx_http_ai_limited_t              *l;
    ngx_http_ai_amounts_t               actual;
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    l = ctx->ratelimit;

    if (l == NULL || !l->running) {
        return NGX_DECLINED;
    }

    ngx_queue_remove(&l->queue);
    l->running = 0;

    rmcf = ngx_http_get_module_main_conf(r, ngx_http_ai_ratelimit_module);

    input = ngx_http_ai_usage_input(&ctx->usage);
    output = ctx->usage.out;

    if (ctx->usage_state == NGX_HTTP_AI_USAGE_NONE || ctx->free) {
        input = 0;
        output = 0;
    }

    input = ngx_min(ngx_max(input, 0), NGX_HTTP_AI_LIMIT_MOST / 4);
    output = ngx_min(ngx_max(output, 0), NGX_HTTP_AI_LIMIT_MOST / 4);

    ngx_http_ai_limit_tokens(input, output, &actual);

    actual.v[NGX_HTTP_AI_METER_Q_MONEY] = ngx_max(ctx->cost, 0);
    actual.v[NGX_HTTP_AI_METER_REQUESTS] = 1;

    if (!ctx->free
        && (ctx->usage_state != NGX_HTTP_AI_USAGE_NONE
            || ctx->error == NGX_HTTP_AI_ERR_NONE))
    {
        actual.v[NGX_HTTP_AI_METER_Q_REQUESTS] = 1;
    }

    now = ngx_http_ai_zone_now();

    for (i = 0; i < l->n; i++) {
        t = &l->tickets[i];

        if (t->taken) {
            ngx_http_ai_zone_warm(t->zone, t->hold.key, t->hold.index);
        }
    }

    if (!ctx->free) {
        ngx_http_ai_output_learn(rmcf, ctx);
    }

    for (i = 0; i < l->n; i++) {
        if (l->tickets[i].taken) {
            ngx_http_ai_settle_ticket(l, &l->tickets[i], &actual, now,
                                      rmcf->webhook);
        }
    }

    return NGX_OK;
}


static void
ngx_http_ai_settle_ticket(ngx_http_ai_limited_t *l, ngx_http_ai_ticket_t *t,
    ngx_http_ai_amounts_t *actual, int64_t now, ngx_http_ai_webhook_t *hook)
{
    ngx_uint_t                  alert;
    ngx_http_ai_limit_zone_t   *zone;
    ngx_http_ai_limit_state_t   before[NGX_HTTP_AI_METER_MAX];
    ngx_http_ai_limit_state_t   after[NGX_HTTP_AI_METER_MAX];

    zone = t->zone;
    alert = (zone->nalerts != 0);

    if (alert) {
        ngx_http_ai_ticket_windows(t, now);
    }

    ngx_http_ai_zone_lock(zone);

    if (alert) {
        ngx_http_ai_settle_states(t, now, before);
    }

    (void) ngx_http_ai_limit_settle(zone->store, &t->hold, l->id, now,
                                    actual);

    if (zone->redis) {
        ngx_http_ai_lease_touch(zone, &t->key);
    }

    if (alert) {
        ngx_http_ai_settle_states(t, now, after);
    }

    /* elsewhere nobody looks at it, and workers share what is around it */

    if (zone->snapshot.len) {
        zone->sh->changes++;
    }

    ngx_http_ai_zone_unlock(zone);

    t->taken = 0;

    if (alert) {
        ngx_http_ai_alert_passed(hook, zone, &t->key, before, after,
                                 l->ctx->request->connection->log);
    }
}


static void
ngx_http_ai_settle_states(ngx_http_ai_ticket_t *t, int64_t now,
    ngx_http_ai_limit_state_t *states)
{
    ngx_http_ai_limit_zone_t  *zone;

    zone = t->zone;

    if (zone->redis == NULL
        && ngx_http_ai_limit_used(zone->store, &t->key, &t->hold, now, states)
           == NGX_OK)
    {
        return;
    }

    ngx_http_ai_limit_peek(zone->store, &t->key, now, t->limits, states);

    if (zone->redis) {
        ngx_http_ai_lease_states(zone, &t->key, states, now);
    }
}


void
ngx_http_ai_limit_abandon(ngx_http_ai_limited_t *l)
{
    int64_t                 now;
    ngx_uint_t              i, m;
    ngx_http_ai_ticket_t   *t;
    ngx_http_ai_amounts_t   seen;

    ngx_queue_remove(&l->queue);
    l->running = 0;

    now = ngx_http_ai_zone_now();

    /* as a reaper would do it */

    ngx_http_ai_limit_amounts(l->ctx, l->input, l->seen, &seen);

    for (i = 0; i < l->n; i++) {
        t = &l->tickets[i];

        if (!t->taken) {
            continue;
        }

        for (m = 0; m < NGX_HTTP_AI_METER_MAX; m++) {
            t->held.v[m] = ngx_max(t->held.v[m], seen.v[m]);
        }

        /* nothing can be posted any more */

        ngx_http_ai_settle_ticket(l, t, &t->held, now, NULL);
    }
}
