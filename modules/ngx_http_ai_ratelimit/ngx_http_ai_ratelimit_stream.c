
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * While an answer streams: what was reserved for its output is topped up
 * before it is used up.  Where that is refused, the answer goes on in debt
 * ("finish"), or ends with the last token that was reserved ("cut").
 */


#include "ngx_http_ai_ratelimit_lease.h"


static uint64_t ngx_http_ai_limit_soon(ngx_http_ai_ticket_t *t);
static ngx_int_t ngx_http_ai_limit_more(ngx_http_request_t *r,
    ngx_http_ai_limited_t *l, ngx_http_ai_ticket_t *t, int64_t output);
static ngx_int_t ngx_http_ai_limit_topup_by(ngx_http_ai_limited_t *l,
    ngx_http_ai_ticket_t *t, int64_t output,
    ngx_http_ai_limit_refusal_t *refusal);


void
ngx_http_ai_limit_watch(ngx_http_ai_limited_t *l)
{
    ngx_uint_t             i;
    ngx_http_ai_ctx_t     *ctx;
    ngx_http_ai_ticket_t  *t;

    ctx = l->ctx;

    if (ctx->op != NGX_HTTP_AI_OP_CHAT
        && ctx->op != NGX_HTTP_AI_OP_COMPLETIONS)
    {
        return;
    }

    for (i = 0; i < l->n; i++) {
        t = &l->tickets[i];

        if (!t->taken || !(t->meters & NGX_HTTP_AI_LIMIT_OUTPUT)) {
            continue;
        }

        ctx->watch = ngx_min(ctx->watch, ngx_http_ai_limit_soon(t));

        if (t->overrun == NGX_HTTP_AI_OVERRUN_CUT && !t->dry) {
            ctx->may_cut = 1;
        }
    }
}


/* when a quarter of a step is left, in 1/100 token */

static uint64_t
ngx_http_ai_limit_soon(ngx_http_ai_ticket_t *t)
{
    return (uint64_t) (t->output - ngx_min(t->output / 4,
                                           NGX_HTTP_AI_LIMIT_TOPUP / 4))
           * 100;
}


ngx_int_t
ngx_http_ai_limit_observer(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    uint64_t counted)
{
    int64_t                 output;
    uint64_t                watch, next;
    ngx_int_t               rc;
    ngx_uint_t              i;
    ngx_http_ai_ticket_t   *t;
    ngx_http_ai_limited_t  *l;

    l = ctx->ratelimit;

    if (l == NULL || !l->running) {
        return NGX_OK;
    }

    output = ngx_http_ai_tokens_round(counted);
    l->seen = output;
    watch = NGX_HTTP_AI_WATCH_NEVER;

    for (i = 0; i < l->n; i++) {
        t = &l->tickets[i];

        if (!t->taken || !(t->meters & NGX_HTTP_AI_LIMIT_OUTPUT)) {
            continue;
        }

        next = ngx_http_ai_limit_soon(t);

        if (counted > next) {

            rc = ngx_http_ai_limit_more(r, l, t, output);

            if (rc == NGX_ABORT) {
                l->refused = t;
                return NGX_ABORT;
            }

            if (rc == NGX_AGAIN) {
                /* it is asked again with the next text */
                ctx->watch = counted;
                return NGX_AGAIN;
            }

            if (rc == NGX_OK) {
                next = ngx_http_ai_limit_soon(t);

            } else if (counted <= (uint64_t) t->output * 100) {
                /* to the last token of those that are there */
                next = (uint64_t) t->output * 100;

            } else {
                /* in debt: from time to time, for a reaper to know */
                next = counted + NGX_HTTP_AI_LIMIT_TOPUP * 100;
            }
        }

        watch = ngx_min(watch, next);
    }

    ctx->watch = watch;

    return NGX_OK;
}


/*
 * NGX_OK: there is more; NGX_DECLINED: there is not, go on; NGX_AGAIN: there
 * may be soon; NGX_ABORT: what was counted by now is too much
 */

static ngx_int_t
ngx_http_ai_limit_more(ngx_http_request_t *r, ngx_http_ai_limited_t *l,
    ngx_http_ai_ticket_t *t, int64_t output)
{
    int64_t                      lack, room;
    ngx_http_ai_amounts_t        amounts;
    ngx_http_ai_limit_refusal_t  refusal, other;

    lack = output - t->output;

    if (ngx_http_ai_limit_topup_by(l, t, ngx_max(lack, 0) + t->step, &refusal)
        == NGX_OK)
    {
        t->step = NGX_HTTP_AI_LIMIT_TOPUP;
        return NGX_OK;
    }

    if (lack <= 0 && t->zone->redis
        && t->overrun == NGX_HTTP_AI_OVERRUN_CUT && !t->dry)
    {
        return ngx_http_ai_lease_hold(r, l, t);
    }

    if (lack <= 0) {
        return NGX_DECLINED;
    }

    /* not a whole step, but perhaps just what was made */

    other = refusal;

    if (ngx_http_ai_limit_topup_by(l, t, lack, &refusal) == NGX_OK) {

        refusal = other;

        /* ... and all that is left, to ask less often */

        ngx_http_ai_limit_amounts(l->ctx, NGX_HTTP_AI_LIMIT_MORE, 1, &amounts);

        if (refusal.state.remaining > 0
            && amounts.v[refusal.meter] > 0)
        {
            room = refusal.state.remaining / amounts.v[refusal.meter] - lack;

            if (room > 0) {
                (void) ngx_http_ai_limit_topup_by(l, t, room, &other);
            }
        }

        return NGX_DECLINED;
    }

    ngx_http_ai_limit_amounts(l->ctx, l->input, output, &amounts);

    ngx_http_ai_limit_seen(t->zone->store, &t->hold, output,
                           amounts.v[NGX_HTTP_AI_METER_Q_MONEY]);

    if (t->overrun != NGX_HTTP_AI_OVERRUN_CUT || t->dry) {
        return NGX_DECLINED;
    }

    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                  "ai ratelimit: zone \"%V\", key \"%V\": %V is exhausted, "
                  "the answer ends after %L tokens", &t->zone->name, &t->key,
                  ngx_http_ai_meter_name(refusal.meter), t->output);

    l->refusal = refusal;

    return NGX_ABORT;
}


static ngx_int_t
ngx_http_ai_limit_topup_by(ngx_http_ai_limited_t *l, ngx_http_ai_ticket_t *t,
    int64_t output, ngx_http_ai_limit_refusal_t *refusal)
{
    int64_t                now;
    ngx_uint_t             i;
    ngx_http_ai_limit_e    rc;
    ngx_http_ai_amounts_t  amounts;

    ngx_memzero(refusal, sizeof(ngx_http_ai_limit_refusal_t));

    ngx_http_ai_limit_amounts(l->ctx, NGX_HTTP_AI_LIMIT_MORE, output,
                              &amounts);

    now = ngx_http_ai_zone_now();
    ngx_http_ai_ticket_windows(t, now);

    if (t->zone->redis) {
        if (ngx_http_ai_lease_topup(l, t, &amounts, now, refusal) != NGX_OK) {
            return NGX_DECLINED;
        }

        goto taken;
    }

    ngx_http_ai_zone_lock(t->zone);

    rc = ngx_http_ai_limit_topup(t->zone->store, &t->hold, now,
                                 now + l->deadline, t->limits, &amounts,
                                 refusal);

    ngx_http_ai_zone_unlock(t->zone);

    if (rc != NGX_HTTP_AI_LIMIT_OK) {
        return NGX_DECLINED;
    }

taken:

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
        t->held.v[i] += amounts.v[i];
    }

    t->output += output;

    return NGX_OK;
}


/* a request that is silent for long lives, as its worker does */

void
ngx_http_ai_limit_refresh(ngx_http_ai_limited_t *l, int64_t now)
{
    ngx_uint_t                    i;
    ngx_http_ai_ticket_t         *t;
    ngx_http_ai_amounts_t         none;
    ngx_http_ai_limit_refusal_t   refusal;

    if (now - l->refreshed < l->deadline / 4 && now >= l->refreshed) {
        return;
    }

    l->refreshed = now;

    ngx_memzero(&none, sizeof(ngx_http_ai_amounts_t));

    for (i = 0; i < l->n; i++) {
        t = &l->tickets[i];

        if (!t->taken) {
            continue;
        }

        ngx_http_ai_ticket_windows(t, now);

        if (t->zone->redis) {
            (void) ngx_http_ai_lease_topup(l, t, &none, now, &refusal);
            continue;
        }

        ngx_http_ai_zone_lock(t->zone);

        (void) ngx_http_ai_limit_topup(t->zone->store, &t->hold, now,
                                       now + l->deadline, t->limits, &none,
                                       &refusal);

        ngx_http_ai_zone_unlock(t->zone);
    }
}
