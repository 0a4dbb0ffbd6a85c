
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_price.h"
#include "ngx_http_ai_near.h"


#define NGX_HTTP_AI_PRICE_MOST  ((int64_t) 0x7fffffffffffffff)


static int64_t ngx_http_ai_price_mul(int64_t n, int64_t price);
static const char *ngx_http_ai_price_rates_parse(ngx_http_ai_json_t *j,
    ngx_uint_t obj, ngx_pool_t *pool, ngx_http_ai_price_t *price,
    ngx_http_ai_rates_t *rates);
static const char *ngx_http_ai_price_above(ngx_http_ai_json_t *j,
    ngx_uint_t obj, ngx_pool_t *pool, ngx_http_ai_price_t *price);
static const char *ngx_http_ai_price_figure(ngx_http_ai_json_t *j,
    ngx_uint_t n, ngx_pool_t *pool, ngx_str_t *name, ngx_uint_t scale,
    int64_t max, int64_t *value);
static const char *ngx_http_ai_price_error(ngx_pool_t *pool, const char *fmt,
    ...);


ngx_str_t  ngx_http_ai_rate_names[] = {
    ngx_string("input"),
    ngx_string("output"),
    ngx_string("cached"),
    ngx_string("cache_write"),
    ngx_string("cache_write_1h"),
    ngx_string("reasoning"),
    ngx_string("audio_input"),
    ngx_string("audio_output"),

    /* these are of the record as such only */
    ngx_string("request"),
    ngx_string("image"),
    ngx_string("above"),
    ngx_string("batch"),
    ngx_string("currency"),
    ngx_string("version"),
    ngx_string("model"),
    ngx_string("comment")
};


#define NGX_HTTP_AI_PRICE_NAMES                                               \
    (sizeof(ngx_http_ai_rate_names) / sizeof(ngx_str_t))


void
ngx_http_ai_price_init(ngx_http_ai_price_t *price)
{
    ngx_uint_t  i, k;

    ngx_memzero(price, sizeof(ngx_http_ai_price_t));

    for (i = 0; i < NGX_HTTP_AI_RATE_MAX; i++) {
        price->base.v[i] = -1;
        price->batch.v[i] = -1;

        for (k = 0; k < NGX_HTTP_AI_PRICE_TIERS; k++) {
            price->tiers[k].v[i] = -1;
        }
    }
}


const char *
ngx_http_ai_price_complete(ngx_http_ai_price_t *price)
{
    ngx_uint_t           i, k, n;
    ngx_http_ai_rates_t  tmp, *r, *all[NGX_HTTP_AI_PRICE_TIERS + 2];

    static const ngx_uint_t  follows[] = {
        NGX_HTTP_AI_RATE_INPUT,
        NGX_HTTP_AI_RATE_OUTPUT,
        NGX_HTTP_AI_RATE_INPUT,
        NGX_HTTP_AI_RATE_INPUT,
        NGX_HTTP_AI_RATE_CACHE_WRITE,
        NGX_HTTP_AI_RATE_OUTPUT,
        NGX_HTTP_AI_RATE_INPUT,
        NGX_HTTP_AI_RATE_OUTPUT
    };

    if (price->base.v[NGX_HTTP_AI_RATE_INPUT] < 0) {
        return "no \"input\"";
    }

    if (price->base.v[NGX_HTTP_AI_RATE_OUTPUT] < 0) {
        return "no \"output\"";
    }

    for (i = 1; i < price->ntiers; i++) {
        for (k = i; k > 0 && price->tiers[k].above < price->tiers[k - 1].above;
             k--)
        {
            tmp = price->tiers[k];
            price->tiers[k] = price->tiers[k - 1];
            price->tiers[k - 1] = tmp;
        }
    }

    n = 0;

    for (i = 0; i < price->ntiers; i++) {
        all[n++] = &price->tiers[i];
    }

    for (i = 0; i < NGX_HTTP_AI_RATE_MAX; i++) {
        if (price->batch.v[i] >= 0) {
            all[n++] = &price->batch;
            break;
        }
    }

    for (k = 0; k < n; k++) {
        for (i = 0; i < NGX_HTTP_AI_RATE_MAX; i++) {
            if (all[k]->v[i] < 0) {
                all[k]->v[i] = price->base.v[i];
            }
        }
    }

    all[n++] = &price->base;

    for (k = 0; k < n; k++) {
        r = all[k];

        for (i = 0; i < NGX_HTTP_AI_RATE_MAX; i++) {
            if (r->v[i] < 0) {
                r->v[i] = r->v[follows[i]];
            }
        }
    }

    return NULL;
}


const char *
ngx_http_ai_price_parse(ngx_http_ai_json_t *j, ngx_pool_t *pool,
    ngx_http_ai_price_t *price)
{
    const char  *error;

    ngx_http_ai_price_init(price);

    error = ngx_http_ai_price_rates_parse(j, 0, pool, price, &price->base);

    return error ? error : ngx_http_ai_price_complete(price);
}


/* members of the record (rates is its base), of a tier or of batch */

static const char *
ngx_http_ai_price_rates_parse(ngx_http_ai_json_t *j, ngx_uint_t obj,
    ngx_pool_t *pool, ngx_http_ai_price_t *price, ngx_http_ai_rates_t *rates)
{
    ngx_str_t    raw, name, near;
    ngx_uint_t   i, k, n;
    const char  *error;

    n = (rates == &price->base) ? NGX_HTTP_AI_PRICE_NAMES
                                : (ngx_uint_t) NGX_HTTP_AI_RATE_MAX;
    error = NULL;

    for (i = ngx_http_ai_json_first(j, obj);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, obj, i))
    {
        raw = ngx_http_ai_json_raw(j, i);

        if (ngx_http_ai_json_unescape_str(pool, &raw, &name) != NGX_OK) {
            return "no memory";
        }

        for (k = 0; k < n; k++) {
            if (ngx_http_ai_rate_names[k].len == name.len
                && ngx_strncmp(ngx_http_ai_rate_names[k].data, name.data,
                               name.len)
                   == 0)
            {
                break;
            }
        }

        if (k == n) {
            near = ngx_http_ai_near_text(pool, &name, ngx_http_ai_rate_names,
                                         n);
            return ngx_http_ai_price_error(pool, "unknown member \"%V\"%V",
                                           &name, &near);
        }

        if (ngx_http_ai_json_duplicate(j, obj, (char *) name.data, name.len)) {
            return ngx_http_ai_price_error(pool, "duplicate member \"%V\"",
                                           &name);
        }

        if (k < NGX_HTTP_AI_RATE_MAX) {
            error = ngx_http_ai_price_figure(j, i + 1, pool, &name, 6,
                                             NGX_HTTP_AI_PRICE_TOKEN_MAX,
                                             &rates->v[k]);

        } else if (ngx_http_ai_json_key_is(j, i, "request")) {
            error = ngx_http_ai_price_figure(j, i + 1, pool, &name, 12,
                                             NGX_HTTP_AI_PRICE_EACH_MAX,
                                             &price->request);

        } else if (ngx_http_ai_json_key_is(j, i, "image")) {
            error = ngx_http_ai_price_figure(j, i + 1, pool, &name, 12,
                                             NGX_HTTP_AI_PRICE_EACH_MAX,
                                             &price->image);

        } else if (ngx_http_ai_json_key_is(j, i, "above")) {
            error = ngx_http_ai_price_above(j, i + 1, pool, price);

        } else if (ngx_http_ai_json_key_is(j, i, "batch")) {

            if (ngx_http_ai_json_type(j, i + 1) != NGX_HTTP_AI_JSON_OBJECT) {
                return "\"batch\" must be an object";
            }

            error = ngx_http_ai_price_rates_parse(j, i + 1, pool, price,
                                                  &price->batch);

        } else if (ngx_http_ai_json_type(j, i + 1) != NGX_HTTP_AI_JSON_STRING)
        {
            error = ngx_http_ai_price_error(pool, "\"%V\" must be a string",
                                            &name);

        } else if (ngx_http_ai_json_key_is(j, i, "currency")) {
            raw = ngx_http_ai_json_raw(j, i + 1);

            if (raw.len != 3 || ngx_strncmp(raw.data, "USD", 3) != 0) {
                error = "\"currency\" must be \"USD\"";
            }

        } else if (ngx_http_ai_json_key_is(j, i, "version")) {
            raw = ngx_http_ai_json_raw(j, i + 1);

            if (ngx_http_ai_json_unescape_str(pool, &raw, &price->version)
                != NGX_OK)
            {
                return "no memory";
            }

            if (price->version.len > 64) {
                error = "\"version\" is longer than 64 bytes";
            }
        }

        if (error) {
            return error;
        }
    }

    return NULL;
}


/* {"200000":{"input":2.5,...}} */

static const char *
ngx_http_ai_price_above(ngx_http_ai_json_t *j, ngx_uint_t obj,
    ngx_pool_t *pool, ngx_http_ai_price_t *price)
{
    off_t                 n;
    ngx_str_t             raw;
    ngx_uint_t            i, k;
    const char           *error;
    ngx_http_ai_rates_t  *tier;

    if (ngx_http_ai_json_type(j, obj) != NGX_HTTP_AI_JSON_OBJECT) {
        return "\"above\" must be an object";
    }

    for (i = ngx_http_ai_json_first(j, obj);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, obj, i))
    {
        raw = ngx_http_ai_json_raw(j, i);
        n = ngx_atoof(raw.data, raw.len);

        if (n == NGX_ERROR || n == 0) {
            return ngx_http_ai_price_error(pool, "\"above\": \"%V\" is no "
                                           "number of tokens", &raw);
        }

        if (ngx_http_ai_json_type(j, i + 1) != NGX_HTTP_AI_JSON_OBJECT) {
            return ngx_http_ai_price_error(pool, "\"above\": \"%V\" must be "
                                           "an object", &raw);
        }

        if (price->ntiers == NGX_HTTP_AI_PRICE_TIERS) {
            return "\"above\" has more than 4 members";
        }

        for (k = 0; k < price->ntiers; k++) {
            if (price->tiers[k].above == n) {
                return ngx_http_ai_price_error(pool, "\"above\": duplicate "
                                               "member \"%V\"", &raw);
            }
        }

        tier = &price->tiers[price->ntiers++];
        tier->above = n;

        error = ngx_http_ai_price_rates_parse(j, i + 1, pool, price, tier);

        if (error) {
            return error;
        }
    }

    return NULL;
}


static const char *
ngx_http_ai_price_figure(ngx_http_ai_json_t *j, ngx_uint_t n, ngx_pool_t *pool,
    ngx_str_t *name, ngx_uint_t scale, int64_t max, int64_t *value)
{
    ngx_str_t  raw;

    raw = ngx_http_ai_json_raw(j, n);

    if (ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_NUMBER
        || ngx_http_ai_json_fixed(&raw, scale, value) != NGX_OK)
    {
        return ngx_http_ai_price_error(pool, "\"%V\" must be a number of "
                                       "dollars, 0 or more", name);
    }

    if (*value > max) {
        return ngx_http_ai_price_error(pool, "\"%V\" is too much", name);
    }

    return NULL;
}


static const char *
ngx_http_ai_price_error(ngx_pool_t *pool, const char *fmt, ...)
{
    u_char   buf[256], *p, *text;
    va_list  args;

    va_start(args, fmt);
    p = ngx_vslprintf(buf, buf + sizeof(buf) - 1, fmt, args);
    va_end(args);

    text = ngx_pnalloc(pool, p - buf + 1);
    if (text == NULL) {
        return "no memory";
    }

    ngx_memcpy(text, buf, p - buf);
    text[p - buf] = '\0';

    return (const char *) text;
}


const ngx_http_ai_rates_t *
ngx_http_ai_price_rates(const ngx_http_ai_price_t *price, int64_t input)
{
    ngx_uint_t  i;

    for (i = price->ntiers; i > 0; i--) {
        if (input > price->tiers[i - 1].above) {
            return &price->tiers[i - 1];
        }
    }

    return &price->base;
}


int64_t
ngx_http_ai_price_cost(const ngx_http_ai_price_t *price,
    ngx_http_ai_usage_t *usage, int64_t images)
{
    int64_t                     n[NGX_HTTP_AI_RATE_MAX], cost;
    ngx_uint_t                  i;
    const ngx_http_ai_rates_t  *rates;

    if (price->batch.v[NGX_HTTP_AI_RATE_INPUT] >= 0
        && usage->service_tier.len == 5
        && ngx_strncmp(usage->service_tier.data, "batch", 5) == 0)
    {
        rates = &price->batch;

    } else {
        rates = ngx_http_ai_price_rates(price,
                                        ngx_http_ai_usage_input(usage));
    }

    ngx_memzero(n, sizeof(n));

    /* figures that are part of another are taken out of it */

    n[NGX_HTTP_AI_RATE_INPUT] = ngx_max(usage->in_fresh, 0);
    n[NGX_HTTP_AI_RATE_AUDIO_INPUT] =
        ngx_min(ngx_max(usage->audio_in, 0), n[NGX_HTTP_AI_RATE_INPUT]);
    n[NGX_HTTP_AI_RATE_INPUT] -= n[NGX_HTTP_AI_RATE_AUDIO_INPUT];

    n[NGX_HTTP_AI_RATE_CACHED] = ngx_max(usage->cache_read, 0);

    n[NGX_HTTP_AI_RATE_CACHE_WRITE] = ngx_max(usage->cache_write, 0);
    n[NGX_HTTP_AI_RATE_CACHE_WRITE_1H] =
        ngx_min(ngx_max(usage->cache_write_1h, 0),
                n[NGX_HTTP_AI_RATE_CACHE_WRITE]);
    n[NGX_HTTP_AI_RATE_CACHE_WRITE] -= n[NGX_HTTP_AI_RATE_CACHE_WRITE_1H];

    n[NGX_HTTP_AI_RATE_OUTPUT] = ngx_max(usage->out, 0);
    n[NGX_HTTP_AI_RATE_REASONING] =
        ngx_min(ngx_max(usage->reasoning, 0), n[NGX_HTTP_AI_RATE_OUTPUT]);
    n[NGX_HTTP_AI_RATE_OUTPUT] -= n[NGX_HTTP_AI_RATE_REASONING];
    n[NGX_HTTP_AI_RATE_AUDIO_OUTPUT] =
        ngx_min(ngx_max(usage->audio_out, 0), n[NGX_HTTP_AI_RATE_OUTPUT]);
    n[NGX_HTTP_AI_RATE_OUTPUT] -= n[NGX_HTTP_AI_RATE_AUDIO_OUTPUT];

    cost = price->request;

    for (i = 0; i < NGX_HTTP_AI_RATE_MAX; i++) {
        cost = ngx_http_ai_price_add(cost,
                                     ngx_http_ai_price_mul(n[i],
                                                           rates->v[i]));
    }

    return ngx_http_ai_price_add(cost,
                             ngx_http_ai_price_mul(images, price->image));
}


int64_t
ngx_http_ai_price_estimate(const ngx_http_ai_price_t *price, int64_t input,
    int64_t output, int64_t images)
{
    int64_t                     cost;
    const ngx_http_ai_rates_t  *rates;

    rates = ngx_http_ai_price_rates(price, input);

    cost = ngx_http_ai_price_add(price->request,
                   ngx_http_ai_price_mul(input,
                                         rates->v[NGX_HTTP_AI_RATE_INPUT]));
    cost = ngx_http_ai_price_add(cost,
                   ngx_http_ai_price_mul(output,
                                         ngx_http_ai_price_rate(price,
                                                                input)));
    cost = ngx_http_ai_price_add(cost,
                             ngx_http_ai_price_mul(images, price->image));

    return cost / 1000 + (cost % 1000 != 0);
}


int64_t
ngx_http_ai_price_rate(const ngx_http_ai_price_t *price, int64_t input)
{
    const ngx_http_ai_rates_t  *rates;

    rates = ngx_http_ai_price_rates(price, input);

    return ngx_max(rates->v[NGX_HTTP_AI_RATE_OUTPUT],
                   rates->v[NGX_HTTP_AI_RATE_REASONING]);
}


int64_t
ngx_http_ai_price_output(const ngx_http_ai_price_t *price, int64_t input,
    int64_t output)
{
    int64_t  cost;

    cost = ngx_http_ai_price_mul(output,
                                 ngx_http_ai_price_rate(price, input));

    return cost / 1000 + (cost % 1000 != 0);
}


static int64_t
ngx_http_ai_price_mul(int64_t n, int64_t price)
{
    if (n <= 0 || price <= 0) {
        return 0;
    }

    return (n > NGX_HTTP_AI_PRICE_MOST / price) ? NGX_HTTP_AI_PRICE_MOST
                                                : n * price;
}


int64_t
ngx_http_ai_price_add(int64_t a, int64_t b)
{
    return (a > NGX_HTTP_AI_PRICE_MOST - b) ? NGX_HTTP_AI_PRICE_MOST : a + b;
}


int64_t
ngx_http_ai_price_nano(int64_t pico)
{
    return pico / 1000 + (pico % 1000 >= 500);
}


ngx_uint_t
ngx_http_ai_price_match(ngx_str_t *pattern, ngx_str_t *name)
{
    size_t  i, n, star, mark;

    i = 0;
    n = 0;
    mark = 0;
    star = pattern->len;

    while (n < name->len) {

        if (i < pattern->len && pattern->data[i] == '*') {
            star = i++;
            mark = n;
            continue;
        }

        if (i < pattern->len && pattern->data[i] == name->data[n]) {
            i++;
            n++;
            continue;
        }

        if (star == pattern->len) {
            return 0;
        }

        i = star + 1;
        n = ++mark;
    }

    while (i < pattern->len && pattern->data[i] == '*') {
        i++;
    }

    return i == pattern->len;
}
