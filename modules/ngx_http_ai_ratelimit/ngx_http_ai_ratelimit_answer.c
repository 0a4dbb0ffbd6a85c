
/*
 * Copyright (C) nginx AI gateway authors
 */


/* what clients are told: refusals in their dialect, and what is left */


#include "ngx_http_ai_ratelimit.h"


/* ms: SDKs do not wait longer, and trying again at once is of no use */
#define NGX_HTTP_AI_LIMIT_PATIENCE  60000

/* bytes of a duration or a date, and of what tells of one kind of limit */
#define NGX_HTTP_AI_LIMIT_TEXT      64
#define NGX_HTTP_AI_LIMIT_TRIPLE                                              \
    (2 * NGX_INT64_LEN + NGX_HTTP_AI_LIMIT_TEXT)

#define NGX_HTTP_AI_LIMIT_TRIPLES   4

/* meters that these headers tell of */
#define NGX_HTTP_AI_LIMIT_TOLD                                                \
    (ngx_http_ai_meter_bit(REQUESTS)|ngx_http_ai_meter_bit(TOKENS)            \
     |ngx_http_ai_meter_bit(INPUT)|ngx_http_ai_meter_bit(OUTPUT)              \
     |ngx_http_ai_meter_bit(Q_REQUESTS)|ngx_http_ai_meter_bit(Q_TOKENS))


/* headers that tell of one kind of limit */

typedef struct {
    ngx_str_t                   limit;
    ngx_str_t                   remaining;
    ngx_str_t                   reset;
} ngx_http_ai_triple_t;


/* those of a dialect */

typedef struct {
    ngx_uint_t                  date;     /* a reset is a date */
    ngx_uint_t                  n;
    u_char                      kinds[NGX_HTTP_AI_METER_MAX];
                                          /* which triple tells of a meter */
    ngx_http_ai_triple_t        triples[NGX_HTTP_AI_LIMIT_TRIPLES];
} ngx_http_ai_told_t;


static ngx_int_t ngx_http_ai_limit_message(ngx_http_request_t *r,
    ngx_http_ai_limited_t *l, ngx_str_t *message, int64_t wait);
static void ngx_http_ai_limit_unbound(ngx_http_ai_limited_t *l);
static void ngx_http_ai_limit_least(ngx_http_ai_limited_t *l,
    u_char *kinds, ngx_http_ai_limit_state_t **least);
static ngx_int_t ngx_http_ai_limit_triple(ngx_http_request_t *r,
    ngx_http_ai_limit_state_t *state, ngx_http_ai_triple_t *triple,
    ngx_uint_t date, u_char *p);
static ngx_int_t ngx_http_ai_limit_ietf(ngx_http_request_t *r,
    ngx_http_ai_limited_t *l);
static u_char *ngx_http_ai_limit_duration(u_char *last, int64_t ms);
static u_char *ngx_http_ai_limit_date(u_char *p, u_char *last, int64_t ms);


/* the order of kinds is that of ngx_http_ai_meter_e; the fifth is not told */

static ngx_http_ai_told_t  ngx_http_ai_openai_told = {
    0, 2,
    { 0, 1, 1, 1, 0, 0, 1, 0 },
    { { ngx_string("x-ratelimit-limit-requests"),
        ngx_string("x-ratelimit-remaining-requests"),
        ngx_string("x-ratelimit-reset-requests") },

      { ngx_string("x-ratelimit-limit-tokens"),
        ngx_string("x-ratelimit-remaining-tokens"),
        ngx_string("x-ratelimit-reset-tokens") } }
};


static ngx_http_ai_told_t  ngx_http_ai_anthropic_told = {
    1, 4,
    { 0, 1, 2, 3, 0, 0, 1, 0 },
    { { ngx_string("anthropic-ratelimit-requests-limit"),
        ngx_string("anthropic-ratelimit-requests-remaining"),
        ngx_string("anthropic-ratelimit-requests-reset") },

      { ngx_string("anthropic-ratelimit-tokens-limit"),
        ngx_string("anthropic-ratelimit-tokens-remaining"),
        ngx_string("anthropic-ratelimit-tokens-reset") },

      { ngx_string("anthropic-ratelimit-input-tokens-limit"),
        ngx_string("anthropic-ratelimit-input-tokens-remaining"),
        ngx_string("anthropic-ratelimit-input-tokens-reset") },

      { ngx_string("anthropic-ratelimit-output-tokens-limit"),
        ngx_string("anthropic-ratelimit-output-tokens-remaining"),
        ngx_string("anthropic-ratelimit-output-tokens-reset") } }
};


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
    u_char                     *p, *last,
                                duration[NGX_HTTP_AI_LIMIT_TEXT];
    ngx_str_t                  *name, value;
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
        value.data = ngx_http_ai_limit_duration(duration + sizeof(duration),
                                                ngx_max(wait, 1));
        value.len = duration + sizeof(duration) - value.data;
        p = ngx_slprintf(p, last, " Please try again in %V.", &value);
    }

done:

    message->len = p - message->data;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_limit_header_hook(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    u_char                            *p;
    ngx_uint_t                         i;
    ngx_http_ai_told_t                *told;
    ngx_http_ai_limited_t             *l;
    ngx_http_ai_limit_state_t         *least[NGX_HTTP_AI_LIMIT_TRIPLES];
    ngx_http_ai_ratelimit_loc_conf_t  *rlcf;

    l = ctx->ratelimit;

    if (l == NULL) {
        return NGX_OK;
    }

    rlcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_ratelimit_module);

    if (rlcf->headers & (NGX_HTTP_AI_HEADERS_IETF
                         |NGX_HTTP_AI_HEADERS_RATELIMIT))
    {
        ngx_http_ai_limit_unbound(l);
    }

    if ((rlcf->headers & NGX_HTTP_AI_HEADERS_IETF)
        && ngx_http_ai_limit_ietf(r, l) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (!(rlcf->headers & NGX_HTTP_AI_HEADERS_RATELIMIT)) {
        return NGX_OK;
    }

    told = ngx_http_ai_str_is(&ctx->dialect->name, "anthropic")
           ? &ngx_http_ai_anthropic_told : &ngx_http_ai_openai_told;

    ngx_memzero(least, sizeof(least));

    ngx_http_ai_limit_least(l, told->kinds, least);

    p = ngx_pnalloc(r->pool, told->n * NGX_HTTP_AI_LIMIT_TRIPLE);
    if (p == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < told->n; i++) {

        if (least[i]
            && ngx_http_ai_limit_triple(r, least[i], &told->triples[i],
                                        told->date, p)
               != NGX_OK)
        {
            return NGX_ERROR;
        }

        p += NGX_HTTP_AI_LIMIT_TRIPLE;
    }

    return NGX_OK;
}


/*
 * What was taken for an input that nobody had counted is not what a client is
 * told: by now the provider has.
 */

static void
ngx_http_ai_limit_unbound(ngx_http_ai_limited_t *l)
{
    int64_t                     input, more;
    ngx_uint_t                  i, m;
    ngx_http_ai_ticket_t       *t;
    ngx_http_ai_limit_state_t  *state;

    input = 0;

    if (l->ctx->usage_state != NGX_HTTP_AI_USAGE_NONE && !l->ctx->free) {
        input = ngx_http_ai_usage_input(&l->ctx->usage);
        input = ngx_min(ngx_max(input, 0), NGX_HTTP_AI_LIMIT_MOST / 4);
    }

    for (i = 0; i < l->n; i++) {
        t = &l->tickets[i];

        if (!t->bound || !t->taken) {
            continue;
        }

        /* a header may be made twice */
        t->bound = 0;

        more = t->held.v[NGX_HTTP_AI_METER_INPUT] - input;

        for (m = NGX_HTTP_AI_METER_TOKENS; m <= NGX_HTTP_AI_METER_INPUT; m++) {

            if (t->meters & (ngx_uint_t) 1 << m) {
                state = &t->states[m];

                state->used = ngx_max(state->used - more, 0);
                state->remaining = ngx_max(state->remaining + more, 0);
            }
        }
    }
}


static ngx_inline ngx_uint_t
ngx_http_ai_limit_tighter(ngx_http_ai_limit_state_t *one,
    ngx_http_ai_limit_state_t *two)
{
    if (one->limit == two->limit) {
        return one->remaining < two->remaining;
    }

    /* a product may be too large for an integer */

    return (double) one->remaining * (double) two->limit
           < (double) two->remaining * (double) one->limit;
}


/* for each triple, of all zones the one of which the smallest share is left */

static void
ngx_http_ai_limit_least(ngx_http_ai_limited_t *l, u_char *kinds,
    ngx_http_ai_limit_state_t **least)
{
    ngx_uint_t                   i, m, bits;
    ngx_http_ai_ticket_t        *t;
    ngx_http_ai_limit_state_t  **found, *state;

    for (i = 0; i < l->n; i++) {
        t = &l->tickets[i];

        if (!t->shown || t->dry) {
            continue;
        }

        for (m = 0, bits = NGX_HTTP_AI_LIMIT_TOLD & t->meters;
             bits;
             m++, bits >>= 1)
        {
            if (!(bits & 1)) {
                continue;
            }

            state = &t->states[m];
            found = &least[kinds[m]];

            if (*found == NULL || ngx_http_ai_limit_tighter(state, *found)) {
                *found = state;
            }
        }
    }
}


static ngx_int_t
ngx_http_ai_limit_triple(ngx_http_request_t *r,
    ngx_http_ai_limit_state_t *state, ngx_http_ai_triple_t *triple,
    ngx_uint_t date, u_char *p)
{
    u_char      *last;
    int64_t      reset;
    ngx_str_t    value;
    ngx_list_t  *headers;

    headers = &r->headers_out.headers;

    p += NGX_INT64_LEN;
    value.data = ngx_http_ai_digits(p, state->limit);
    value.len = p - value.data;

    if (ngx_http_ai_header_push(headers, (char *) triple->limit.data,
                                triple->limit.len, &value)
        == NULL)
    {
        return NGX_ERROR;
    }

    p += NGX_INT64_LEN;
    value.data = ngx_http_ai_digits(p, state->remaining);
    value.len = p - value.data;

    if (ngx_http_ai_header_push(headers, (char *) triple->remaining.data,
                                triple->remaining.len, &value)
        == NULL)
    {
        return NGX_ERROR;
    }

    reset = ngx_http_ai_limit_reset_time(state);
    last = p + NGX_HTTP_AI_LIMIT_TEXT;

    if (date) {
        value.data = p;
        value.len = ngx_http_ai_limit_date(p, last, reset) - p;

    } else {
        value.data = ngx_http_ai_limit_duration(last, reset);
        value.len = last - value.data;
    }

    if (ngx_http_ai_header_push(headers, (char *) triple->reset.data,
                                triple->reset.len, &value)
        == NULL)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
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
                ngx_http_ai_out_int(&left,
                                    (ngx_http_ai_limit_reset_time(state) + 999)
                                    / 1000);
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

    p = ngx_pnalloc(r->pool, NGX_HTTP_AI_DOLLARS_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    value.data = p;
    value.len = ngx_http_ai_dollars(p, ctx->cost) - p;

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


/*
 * "120ms", "1.5s", "6m0s", "48h0m0s", as OpenAI writes it; rounded up.  As
 * the number, before "last".
 */

static u_char *
ngx_http_ai_limit_duration(u_char *last, int64_t ms)
{
    int64_t  s;

    *--last = 's';

    if (ms <= 0) {
        *--last = '0';
        return last;
    }

    if (ms < 1000) {
        *--last = 'm';
        return ngx_http_ai_digits(last, ms);
    }

    if (ms < 10000) {
        s = (ms + 99) / 100;

        if (s % 10) {
            *--last = (u_char) ('0' + s % 10);
            *--last = '.';
        }

        return ngx_http_ai_digits(last, s / 10);
    }

    s = (ms + 999) / 1000;

    last = ngx_http_ai_digits(last, s % 60);

    if (s >= 60) {
        *--last = 'm';
        last = ngx_http_ai_digits(last, s / 60 % 60);
    }

    if (s >= 3600) {
        *--last = 'h';
        last = ngx_http_ai_digits(last, s / 3600);
    }

    return last;
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
