
/*
 * Copyright (C) nginx AI gateway authors
 */


/* what clients are told: refusals in their dialect, and what is left */


#include "ngx_http_ai_ratelimit.h"


/* ms: SDKs do not wait longer, and trying again at once is of no use */
#define NGX_HTTP_AI_LIMIT_PATIENCE  60000


typedef struct {
    ngx_http_ai_limit_state_t  *state;
    int64_t                     limit;    /* scaled */
    int64_t                     left;
} ngx_http_ai_least_t;


static ngx_int_t ngx_http_ai_limit_message(ngx_http_request_t *r,
    ngx_http_ai_limited_t *l, ngx_str_t *message, int64_t wait);
static void ngx_http_ai_limit_least(ngx_http_ai_limited_t *l,
    ngx_uint_t meters, ngx_http_ai_least_t *least);
static ngx_int_t ngx_http_ai_limit_triple(ngx_http_request_t *r,
    ngx_http_ai_least_t *least, const char *limit, const char *remaining,
    const char *reset, ngx_uint_t date);
static u_char *ngx_http_ai_limit_number(u_char *p, int64_t n);
static ngx_int_t ngx_http_ai_limit_ietf(ngx_http_request_t *r,
    ngx_http_ai_limited_t *l);
static u_char *ngx_http_ai_limit_duration(u_char *p, u_char *last,
    int64_t ms);
static u_char *ngx_http_ai_limit_date(u_char *p, u_char *last, int64_t ms);


ngx_int_t
ngx_http_ai_limit_refuse(ngx_http_request_t *r, ngx_http_ai_limited_t *l)
{
    int64_t                             wait;
    ngx_str_t                           value;
    ngx_uint_t                          meter, same, quota, again;
    ngx_http_ai_ctx_t                  *ctx;
    ngx_http_ai_error_t                 err;
    ngx_http_ai_limit_zone_t           *zone;
    ngx_http_ai_ratelimit_loc_conf_t   *rlcf;
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    rlcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_ratelimit_module);
    rmcf = ngx_http_get_module_main_conf(r, ngx_http_ai_ratelimit_module);

    ctx = l->ctx;
    zone = l->refused->zone;
    meter = l->refusal.meter;
    quota = (zone->kind == NGX_HTTP_AI_ZONE_QUOTA);

    ngx_memzero(&err, sizeof(ngx_http_ai_error_t));

    same = 0;
    again = 0;
    wait = l->refusal.wait;

    if (l->unpriced) {
        err.class = NGX_HTTP_AI_ERR_PERMISSION;
        wait = -1;

    } else if (l->full || l->away) {
        err.class = NGX_HTTP_AI_ERR_SATURATED;
        wait = 1000;
        again = 1;

    } else if (quota && !l->refusal.held) {

        err.class = NGX_HTTP_AI_ERR_QUOTA;

        if (meter == NGX_HTTP_AI_METER_Q_MONEY && rlcf->quota_status == 402) {
            err.class = NGX_HTTP_AI_ERR_BILLING;
        }

    } else {
        err.class = NGX_HTTP_AI_ERR_RATE_LIMIT;

        if (ngx_http_ai_str_is(&ctx->dialect->name, "openai")
            && meter != NGX_HTTP_AI_METER_REQUESTS
            && meter != NGX_HTTP_AI_METER_CONCURRENT)
        {
            /* as OpenAI tells the one from the other */
            ngx_str_set(&err.type, "tokens");
            ngx_str_set(&err.code, "rate_limit_exceeded");
            err.status = NGX_HTTP_TOO_MANY_REQUESTS;
            same = 1;
        }
    }

    if (l->forbidden) {
        wait = -1;
    }

    if (wait >= 0 && wait <= NGX_HTTP_AI_LIMIT_PATIENCE) {
        again = 1;
    }

    if (ngx_http_ai_limit_message(r, l, &err.message, wait) != NGX_OK) {
        return NGX_ERROR;
    }

    if (!again) {
        ngx_str_set(&value, "false");

        if (ngx_http_ai_header_add(&r->headers_out.headers, "x-should-retry",
                                   &value)
            == NULL)
        {
            return NGX_ERROR;
        }
    }

    ctx->rc = rmcf->api->send_error(r, ctx, &err, wait, same);

    return NGX_DONE;
}


static ngx_int_t
ngx_http_ai_limit_message(ngx_http_request_t *r, ngx_http_ai_limited_t *l,
    ngx_str_t *message, int64_t wait)
{
    u_char                     *p, *last;
    ngx_str_t                  *name;
    ngx_uint_t                  meter;
    ngx_http_ai_ticket_t       *t;
    ngx_http_ai_limit_state_t  *state;

    enum { size = 512 };

    t = l->refused;
    meter = l->refusal.meter;
    state = &l->refusal.state;
    name = ngx_http_ai_meter_name(meter);

    p = ngx_pnalloc(r->pool, size);
    if (p == NULL) {
        return NGX_ERROR;
    }

    message->data = p;
    last = p + size;

    if (l->unpriced) {
        p = ngx_slprintf(p, last, "No price is known for the model \"%V\", "
                         "which the budget \"%V\" needs.", &l->ctx->model,
                         &t->zone->name);
        goto done;
    }

    if (l->away) {
        p = ngx_slprintf(p, last, "The limit \"%V\" cannot be checked at the "
                         "moment. Please try again later.", &t->zone->name);
        goto done;
    }

    if (l->full) {
        p = ngx_slprintf(p, last, "The gateway's table of limits (\"%V\") is "
                         "full. Please try again later.", &t->zone->name);
        goto done;
    }

    if (l->forbidden) {
        p = ngx_slprintf(p, last, "The limit \"%V\" allows no %s%V.",
                         &t->zone->name,
                         (meter == NGX_HTTP_AI_METER_CONCURRENT)
                         ? "requests: " : "", name);
        goto done;
    }

    if (meter == NGX_HTTP_AI_METER_CONCURRENT) {
        p = ngx_slprintf(p, last, "Limit \"%V\" reached: %L requests at a "
                         "time, %L are running.", &t->zone->name,
                         t->limits[meter].limit, state->held);

    } else {
        p = ngx_slprintf(p, last, "%s \"%V\" reached: limit ",
                         (t->zone->kind == NGX_HTTP_AI_ZONE_QUOTA)
                         ? "Quota" : "Rate limit", &t->zone->name);
        p = ngx_http_ai_limit_amount(p, last, meter, t->limits[meter].limit);
        p = ngx_slprintf(p, last, " %V per %s, used ", name,
                         ngx_http_ai_unit_name(t->units[meter]));
        p = ngx_http_ai_limit_amount(p, last, meter, state->used);

        if (state->held) {
            p = ngx_slprintf(p, last, ", in use by running requests ");
            p = ngx_http_ai_limit_amount(p, last, meter, state->held);
        }

        p = ngx_slprintf(p, last, ", requested ");
        p = ngx_http_ai_limit_amount(p, last, meter, t->held.v[meter]);
        p = ngx_slprintf(p, last, ", remaining ");
        p = ngx_http_ai_limit_amount(p, last, meter, state->remaining);
        p = ngx_slprintf(p, last, ".");
    }

    if (wait >= 0) {
        p = ngx_slprintf(p, last, " Please try again in ");
        p = ngx_http_ai_limit_duration(p, last, ngx_max(wait, 1));
        p = ngx_slprintf(p, last, ".");
    }

done:

    message->len = p - message->data;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_limit_header_hook(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    ngx_uint_t                         tokens, requests, anthropic;
    ngx_http_ai_least_t                least;
    ngx_http_ai_limited_t             *l;
    ngx_http_ai_ratelimit_loc_conf_t  *rlcf;

    l = ctx->ratelimit;

    if (l == NULL) {
        return NGX_OK;
    }

    rlcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_ratelimit_module);

    if ((rlcf->headers & NGX_HTTP_AI_HEADERS_IETF)
        && ngx_http_ai_limit_ietf(r, l) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (!(rlcf->headers & NGX_HTTP_AI_HEADERS_RATELIMIT)) {
        return NGX_OK;
    }

    anthropic = ngx_http_ai_str_is(&ctx->dialect->name, "anthropic");

    requests = ngx_http_ai_meter_bit(REQUESTS)
               | ngx_http_ai_meter_bit(Q_REQUESTS);
    tokens = ngx_http_ai_meter_bit(TOKENS) | ngx_http_ai_meter_bit(Q_TOKENS);

    ngx_http_ai_limit_least(l, requests, &least);

    if (!anthropic) {

        if (ngx_http_ai_limit_triple(r, &least, "x-ratelimit-limit-requests",
                                     "x-ratelimit-remaining-requests",
                                     "x-ratelimit-reset-requests", 0)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        ngx_http_ai_limit_least(l, tokens | ngx_http_ai_meter_bit(INPUT)
                                   | ngx_http_ai_meter_bit(OUTPUT), &least);

        return ngx_http_ai_limit_triple(r, &least,
                                        "x-ratelimit-limit-tokens",
                                        "x-ratelimit-remaining-tokens",
                                        "x-ratelimit-reset-tokens", 0);
    }

    if (ngx_http_ai_limit_triple(r, &least,
                                 "anthropic-ratelimit-requests-limit",
                                 "anthropic-ratelimit-requests-remaining",
                                 "anthropic-ratelimit-requests-reset", 1)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_http_ai_limit_least(l, tokens, &least);

    if (ngx_http_ai_limit_triple(r, &least,
                                 "anthropic-ratelimit-tokens-limit",
                                 "anthropic-ratelimit-tokens-remaining",
                                 "anthropic-ratelimit-tokens-reset", 1)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_http_ai_limit_least(l, ngx_http_ai_meter_bit(INPUT), &least);

    if (ngx_http_ai_limit_triple(r, &least,
                                 "anthropic-ratelimit-input-tokens-limit",
                                 "anthropic-ratelimit-input-tokens-remaining",
                                 "anthropic-ratelimit-input-tokens-reset", 1)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_http_ai_limit_least(l, ngx_http_ai_meter_bit(OUTPUT), &least);

    return ngx_http_ai_limit_triple(r, &least,
                                "anthropic-ratelimit-output-tokens-limit",
                                "anthropic-ratelimit-output-tokens-remaining",
                                "anthropic-ratelimit-output-tokens-reset", 1);
}


/* of all zones the one of which the smallest share is left */

static void
ngx_http_ai_limit_least(ngx_http_ai_limited_t *l, ngx_uint_t meters,
    ngx_http_ai_least_t *least)
{
    int64_t                     limit, left;
    ngx_uint_t                  i, m, bits;
    ngx_http_ai_ticket_t       *t;
    ngx_http_ai_limit_state_t  *state;

    least->state = NULL;
    least->limit = 1;
    least->left = 0;

    for (i = 0; i < l->n; i++) {
        t = &l->tickets[i];

        if (!t->shown || t->dry) {
            continue;
        }

        bits = meters & t->meters;

        for (m = 0; bits >> m; m++) {

            if (!(bits & ((ngx_uint_t) 1 << m))) {
                continue;
            }

            state = &t->states[m];

            /* 31 bits are enough to compare, and their product fits */

            limit = state->limit;
            left = state->remaining;

            while (limit >> 31) {
                limit >>= 1;
                left >>= 1;
            }

            if (least->state == NULL
                || left * least->limit < least->left * limit)
            {
                least->state = state;
                least->limit = limit;
                least->left = left;
            }
        }
    }
}


static ngx_int_t
ngx_http_ai_limit_triple(ngx_http_request_t *r, ngx_http_ai_least_t *least,
    const char *limit, const char *remaining, const char *reset,
    ngx_uint_t date)
{
    u_char                     *p;
    ngx_str_t                   value;
    ngx_list_t                 *headers;
    ngx_http_ai_limit_state_t  *state;

    state = least->state;

    if (state == NULL) {
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, 2 * NGX_INT64_LEN + 64);
    if (p == NULL) {
        return NGX_ERROR;
    }

    headers = &r->headers_out.headers;

    value.data = p;
    p = ngx_http_ai_limit_number(p, state->limit);
    value.len = p - value.data;

    if (ngx_http_ai_header_push(headers, limit, ngx_strlen(limit), &value)
        == NULL)
    {
        return NGX_ERROR;
    }

    value.data = p;
    p = ngx_http_ai_limit_number(p, state->remaining);
    value.len = p - value.data;

    if (ngx_http_ai_header_push(headers, remaining, ngx_strlen(remaining),
                                &value)
        == NULL)
    {
        return NGX_ERROR;
    }

    value.data = p;

    if (date) {
        p = ngx_http_ai_limit_date(p, p + 64, state->reset);

    } else {
        p = ngx_http_ai_limit_duration(p, p + 64, state->reset);
    }

    value.len = p - value.data;

    if (ngx_http_ai_header_push(headers, reset, ngx_strlen(reset), &value)
        == NULL)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* ngx_sprintf() is slow in this */

static u_char *
ngx_http_ai_limit_number(u_char *p, int64_t n)
{
    u_char  buf[NGX_INT64_LEN], *last;

    last = buf + NGX_INT64_LEN;

    do {
        *--last = (u_char) ('0' + n % 10);
        n /= 10;
    } while (n > 0);

    return ngx_cpymem(p, last, buf + NGX_INT64_LEN - last);
}


/* RateLimit and RateLimit-Policy of the IETF's draft: all limits but money */

static ngx_int_t
ngx_http_ai_limit_ietf(ngx_http_request_t *r, ngx_http_ai_limited_t *l)
{
    int64_t                     window;
    ngx_str_t                   value;
    ngx_uint_t                  i, m, n;
    ngx_list_t                 *headers;
    const char                 *unit;
    ngx_http_ai_out_t           policy, left;
    ngx_http_ai_ticket_t       *t;
    ngx_http_ai_limit_state_t  *state;

    if (ngx_http_ai_out_init(&policy, r->pool, 256) != NGX_OK
        || ngx_http_ai_out_init(&left, r->pool, 256) != NGX_OK)
    {
        return NGX_ERROR;
    }

    n = 0;

    for (i = 0; i < l->n; i++) {
        t = &l->tickets[i];

        if (!t->shown || t->dry) {
            continue;
        }

        for (m = 0; m < NGX_HTTP_AI_METER_Q_MONEY; m++) {

            if (t->limits[m].limit < 0) {
                continue;
            }

            state = &t->states[m];

            window = t->limits[m].period;
            unit = "tokens";

            switch (m) {

            case NGX_HTTP_AI_METER_REQUESTS:
            case NGX_HTTP_AI_METER_Q_REQUESTS:
                unit = "requests";
                break;

            case NGX_HTTP_AI_METER_CONCURRENT:
                unit = "concurrent-requests";
                break;
            }

            if (m >= NGX_HTTP_AI_METER_Q_REQUESTS) {
                window = t->limits[m].end - t->limits[m].start;
            }

            ngx_http_ai_out_mem(&policy, ", ", n ? 2 : 0);
            ngx_http_ai_out_mem(&left, ", ", n ? 2 : 0);

            ngx_http_ai_out_lit(&policy, "\"");
            ngx_http_ai_out_str(&policy, &t->zone->name);
            ngx_http_ai_out_lit(&policy, "-");
            ngx_http_ai_out_str(&policy, ngx_http_ai_meter_name(m));
            ngx_http_ai_out_lit(&policy, "\";q=");
            ngx_http_ai_out_int(&policy, state->limit);

            if (window) {
                ngx_http_ai_out_lit(&policy, ";w=");
                ngx_http_ai_out_int(&policy, window / 1000);
            }

            ngx_http_ai_out_lit(&policy, ";qu=\"");
            ngx_http_ai_out_mem(&policy, unit, ngx_strlen(unit));
            ngx_http_ai_out_lit(&policy, "\"");

            ngx_http_ai_out_lit(&left, "\"");
            ngx_http_ai_out_str(&left, &t->zone->name);
            ngx_http_ai_out_lit(&left, "-");
            ngx_http_ai_out_str(&left, ngx_http_ai_meter_name(m));
            ngx_http_ai_out_lit(&left, "\";r=");
            ngx_http_ai_out_int(&left, state->remaining);

            if (window) {
                ngx_http_ai_out_lit(&left, ";t=");
                ngx_http_ai_out_int(&left, (state->reset + 999) / 1000);
            }

            n++;
        }
    }

    if (n == 0) {
        return NGX_OK;
    }

    if (policy.failed || left.failed) {
        return NGX_ERROR;
    }

    headers = &r->headers_out.headers;

    value.data = policy.start;
    value.len = policy.last - policy.start;

    if (ngx_http_ai_header_add(headers, "RateLimit-Policy", &value) == NULL) {
        return NGX_ERROR;
    }

    value.data = left.start;
    value.len = left.last - left.start;

    if (ngx_http_ai_header_add(headers, "RateLimit", &value) == NULL) {
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_cost_usage_hook(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    ngx_http_ai_ratelimit_loc_conf_t  *rlcf;

    rlcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_ratelimit_module);

    ctx->cost_usage = (rlcf->headers & NGX_HTTP_AI_HEADERS_USAGE) != 0;

    return NGX_DECLINED;
}


/*
 * The cost is known before an unstreamed answer is sent, and after a streamed
 * one: that has it in its trailer, for a client that takes trailers.
 */

ngx_int_t
ngx_http_ai_cost_header_hook(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    u_char                            *p;
    ngx_str_t                          value;
    ngx_table_elt_t                   *te;
    ngx_http_ai_ratelimit_loc_conf_t  *rlcf;

    rlcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_ratelimit_module);

    if (!(rlcf->headers & NGX_HTTP_AI_HEADERS_COST)) {
        return NGX_OK;
    }

    if (ctx->stream) {
        te = ngx_http_ai_header_in(r, "te");

        if (r->http_version < NGX_HTTP_VERSION_11 || te == NULL
            || ngx_strlcasestrn(te->value.data,
                                te->value.data + te->value.len,
                                (u_char *) "trailers", 8 - 1)
               == NULL)
        {
            return NGX_OK;
        }

        ctx->cost_trailer = 1;
        r->expect_trailers = 1;

        ngx_str_set(&value, "x-ai-cost");

        return ngx_http_ai_header_add(&r->headers_out.headers, "Trailer",
                                      &value)
               ? NGX_OK : NGX_ERROR;
    }

    if (ctx->cost < 0 || ctx->error != NGX_HTTP_AI_ERR_NONE) {
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, NGX_INT64_LEN + 10);
    if (p == NULL) {
        return NGX_ERROR;
    }

    value.data = p;
    value.len = ngx_sprintf(p, "%L.%09L", ctx->cost / 1000000000,
                            ctx->cost % 1000000000)
                - p;

    return ngx_http_ai_header_add(&r->headers_out.headers, "x-ai-cost",
                                  &value)
           ? NGX_OK : NGX_ERROR;
}


u_char *
ngx_http_ai_limit_amount(u_char *p, u_char *last, ngx_uint_t meter,
    int64_t amount)
{
    u_char  *end, *cents;

    if (meter != NGX_HTTP_AI_METER_Q_MONEY) {
        return ngx_slprintf(p, last, "%L", amount);
    }

    end = ngx_slprintf(p, last, "%s%L.", (amount < 0) ? "-" : "",
                       ngx_abs(amount) / 1000000000);
    cents = end + 2;
    end = ngx_slprintf(end, last, "%09L", ngx_abs(amount) % 1000000000);

    while (end > cents && end[-1] == '0') {
        end--;
    }

    return end;
}


/* "120ms", "1.5s", "6m0s", "48h0m0s", as OpenAI writes it; rounded up */

static u_char *
ngx_http_ai_limit_duration(u_char *p, u_char *last, int64_t ms)
{
    int64_t  s;

    if (ms < 1000) {
        p = ngx_http_ai_limit_number(p, ngx_max(ms, 0));

        if (ms > 0) {
            *p++ = 'm';
        }

        *p++ = 's';

        return p;
    }

    if (ms < 10000 && ms % 100) {
        ms = (ms + 99) / 100;
        return (ms % 10) ? ngx_slprintf(p, last, "%L.%Ls", ms / 10, ms % 10)
                         : ngx_slprintf(p, last, "%Ls", ms / 10);
    }

    if (ms < 10000 && ms % 1000) {
        return ngx_slprintf(p, last, "%L.%Ls", ms / 1000, ms / 100 % 10);
    }

    s = (ms + 999) / 1000;

    if (s >= 3600) {
        p = ngx_slprintf(p, last, "%Lh", s / 3600);
    }

    if (s >= 60) {
        p = ngx_slprintf(p, last, "%Lm", s / 60 % 60);
    }

    return ngx_slprintf(p, last, "%Ls", s % 60);
}


static u_char *
ngx_http_ai_limit_date(u_char *p, u_char *last, int64_t ms)
{
    ngx_tm_t  tm;

    ngx_gmtime((time_t) ((ngx_http_ai_zone_now() + ms + 999) / 1000), &tm);

    return ngx_slprintf(p, last, "%4d-%02d-%02dT%02d:%02d:%02dZ",
                        tm.ngx_tm_year, tm.ngx_tm_mon, tm.ngx_tm_mday,
                        tm.ngx_tm_hour, tm.ngx_tm_min, tm.ngx_tm_sec);
}
