
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * With overrun=cut a provider is told not to make more than can be paid: the
 * output that is held, and what the window has left besides.
 */


#include "ngx_http_ai_ratelimit_lease.h"


static int64_t ngx_http_ai_cap_ticket(ngx_http_ai_limited_t *l,
    ngx_http_ai_ticket_t *t, ngx_http_ai_limit_refusal_t *refusal);


ngx_int_t
ngx_http_ai_limit_cap(ngx_http_ai_limited_t *l)
{
    int64_t                       n, most, asked, times;
    ngx_uint_t                    i;
    ngx_http_ai_ctx_t            *ctx;
    ngx_http_ai_ticket_t         *t, *found;
    ngx_http_ai_limit_refusal_t   refusal;

    ctx = l->ctx;
    most = NGX_HTTP_AI_LIMIT_MOST;
    found = NULL;

    if (ctx->op != NGX_HTTP_AI_OP_CHAT
        && ctx->op != NGX_HTTP_AI_OP_COMPLETIONS)
    {
        return NGX_OK;
    }

    for (i = 0; i < l->n; i++) {
        t = &l->tickets[i];

        if (t->overrun != NGX_HTTP_AI_OVERRUN_CUT || !t->taken || t->dry) {
            continue;
        }

        n = ngx_http_ai_cap_ticket(l, t, &refusal);

        if (n >= 0 && n < most) {
            most = n;
            found = t;
            l->refusal = refusal;
        }
    }

    if (found == NULL) {
        return NGX_OK;
    }

    asked = ngx_http_ai_output_asked(ctx, &times);

    if (most >= times) {
        ctx->output_cap = most / times;
        return NGX_OK;
    }

    if (asked >= 0 && asked <= most) {
        return NGX_OK;
    }

    l->refused = found;

    return NGX_DECLINED;
}


/* tokens; -1: output is no concern of this zone */

static int64_t
ngx_http_ai_cap_ticket(ngx_http_ai_limited_t *l, ngx_http_ai_ticket_t *t,
    ngx_http_ai_limit_refusal_t *refusal)
{
    int64_t                     now, n, most, price;
    ngx_uint_t                  m;
    ngx_http_ai_amounts_t       one;
    ngx_http_ai_limit_state_t  *s, states[NGX_HTTP_AI_METER_MAX];

    now = ngx_http_ai_zone_now();
    most = -1;

    ngx_http_ai_limit_amounts(l->ctx, NGX_HTTP_AI_LIMIT_MORE, 1, &one);

    ngx_http_ai_zone_lock(t->zone);

    ngx_http_ai_limit_peek(t->zone->store, &t->key, now, t->limits, states);

    if (t->zone->redis) {
        ngx_http_ai_lease_states(t->zone, &t->key, states, now);
    }

    ngx_http_ai_zone_unlock(t->zone);

    for (m = NGX_HTTP_AI_METER_Q_TOKENS; m < NGX_HTTP_AI_METER_MAX; m++) {
        s = &states[m];

        if (t->limits[m].limit < 0 || one.v[m] == 0) {
            continue;
        }

        price = (m == NGX_HTTP_AI_METER_Q_MONEY)
                ? ngx_http_ai_price_rate(l->ctx->price, l->ctx->input_estimate)
                : 1000;

        /* an amount is below 2^53 */
        n = t->output + s->remaining * 1000 / price;

        if (most >= 0 && n >= most) {
            continue;
        }

        most = n;

        /* as it is when this request has given back what it holds */

        s->held = ngx_max(s->held - t->held.v[m], 0);
        s->remaining = ngx_min(s->remaining + t->held.v[m], s->limit);

        refusal->meter = m;
        refusal->state = *s;
        refusal->held = (s->held > 0);
        refusal->wait = s->held ? 1000 : s->used > 0 ? s->reset : -1;
    }

    return most;
}
