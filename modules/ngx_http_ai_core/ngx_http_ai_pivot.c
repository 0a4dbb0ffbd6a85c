
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_pivot.h"


static int64_t ngx_http_ai_wait_value(u_char *p, size_t len, time_t now);
static ngx_int_t ngx_http_ai_wait_decimal(u_char **pos, u_char *last,
    uint64_t unit, int64_t *ns);
static ngx_int_t ngx_http_ai_wait_rfc3339(u_char *p, size_t len, int64_t *ms);
static int64_t ngx_http_ai_wait_days(int64_t year, int64_t month,
    int64_t day);


static ngx_str_t  ngx_http_ai_op_names[] = {
    ngx_string(""),
    ngx_string("chat"),
    ngx_string("text_completion"),
    ngx_string("embeddings"),
    ngx_string("count_tokens"),
    ngx_string("models"),
    ngx_string("model"),
    ngx_string("pass")
};


static ngx_str_t  ngx_http_ai_usage_names[] = {
    ngx_string("none"),
    ngx_string("provider"),
    ngx_string("counted"),
    ngx_string("estimated")
};


static ngx_str_t  ngx_http_ai_cached_names[] = {
    ngx_string(""),
    ngx_string("miss"),
    ngx_string("bypass"),
    ngx_string("expired"),
    ngx_string("hit"),
    ngx_string("stale"),
    ngx_string("coalesced")
};


static ngx_str_t  ngx_http_ai_cached_words[] = {
    ngx_string(""),
    ngx_string("MISS"),
    ngx_string("BYPASS"),
    ngx_string("EXPIRED"),
    ngx_string("HIT"),
    ngx_string("STALE"),
    ngx_string("COALESCED")
};


static ngx_str_t  ngx_http_ai_finish_names[] = {
    ngx_string(""),
    ngx_string("stop"),
    ngx_string("stop"),
    ngx_string("length"),
    ngx_string("tool_calls"),
    ngx_string("content_filter"),
    ngx_string("content_filter"),
    ngx_string("length"),
    ngx_string("stop"),
    ngx_string("error"),
    ngx_string("stop")
};


static struct {
    ngx_str_t                  name;
    ngx_uint_t                 status;
}  ngx_http_ai_errs[] = {
    { ngx_string(""), 0 },
    { ngx_string("invalid_request"), 400 },
    { ngx_string("context_length"), 400 },
    { ngx_string("too_large"), 413 },
    { ngx_string("content_filter"), 400 },
    { ngx_string("auth"), 401 },
    { ngx_string("permission"), 403 },
    { ngx_string("billing"), 402 },
    { ngx_string("quota_exhausted"), 429 },
    { ngx_string("not_found"), 404 },
    { ngx_string("rate_limit"), 429 },
    { ngx_string("overloaded"), 503 },
    { ngx_string("timeout"), 504 },
    { ngx_string("server_error"), 502 },
    { ngx_string("incomplete"), 502 },
    { ngx_string("connect"), 502 },
    { ngx_string("invalid_answer"), 502 },
    { ngx_string("saturated"), 503 },
    { ngx_string("method"), 405 },
    { ngx_string("media_type"), 415 },
    { ngx_string("internal"), 500 }
};


void
ngx_http_ai_usage_init(ngx_http_ai_usage_t *u)
{
    u->in_fresh = -1;
    u->cache_read = -1;
    u->cache_write = -1;
    u->cache_write_1h = -1;
    u->out = -1;
    u->reasoning = -1;
    u->audio_in = -1;
    u->audio_out = -1;
    u->cost = -1;

    ngx_str_null(&u->service_tier);
}


void
ngx_http_ai_usage_merge(ngx_http_ai_usage_t *to, ngx_http_ai_usage_t *from)
{
#define ngx_http_ai_usage_take(field)                                         \
    if (from->field >= 0) {                                                   \
        to->field = from->field;                                              \
    }

    ngx_http_ai_usage_take(in_fresh);
    ngx_http_ai_usage_take(cache_read);
    ngx_http_ai_usage_take(cache_write);
    ngx_http_ai_usage_take(cache_write_1h);
    ngx_http_ai_usage_take(out);
    ngx_http_ai_usage_take(reasoning);
    ngx_http_ai_usage_take(audio_in);
    ngx_http_ai_usage_take(audio_out);
    ngx_http_ai_usage_take(cost);

    if (from->service_tier.data) {
        to->service_tier = from->service_tier;
    }
}


int64_t
ngx_http_ai_usage_input(ngx_http_ai_usage_t *u)
{
    int64_t  n;

    if (u->in_fresh < 0 && u->cache_read < 0 && u->cache_write < 0) {
        return -1;
    }

    n = ngx_http_ai_max(u->in_fresh, 0);
    n += ngx_http_ai_max(u->cache_read, 0);
    n += ngx_http_ai_max(u->cache_write, 0);

    return n;
}


ngx_str_t *
ngx_http_ai_op_name(ngx_http_ai_op_e op)
{
    if ((ngx_uint_t) op >= NGX_HTTP_AI_OP_MAX) {
        op = NGX_HTTP_AI_OP_NONE;
    }

    return &ngx_http_ai_op_names[op];
}


ngx_str_t *
ngx_http_ai_usage_name(ngx_http_ai_usage_state_e state)
{
    return &ngx_http_ai_usage_names[state];
}


ngx_str_t *
ngx_http_ai_cached_name(ngx_http_ai_cache_e cached)
{
    return &ngx_http_ai_cached_names[cached];
}


ngx_str_t *
ngx_http_ai_cached_word(ngx_http_ai_cache_e cached)
{
    return &ngx_http_ai_cached_words[cached];
}


ngx_str_t *
ngx_http_ai_finish_name(ngx_http_ai_finish_e f)
{
    if ((ngx_uint_t) f > NGX_HTTP_AI_FINISH_UNKNOWN) {
        f = NGX_HTTP_AI_FINISH_UNKNOWN;
    }

    return &ngx_http_ai_finish_names[f];
}


ngx_str_t *
ngx_http_ai_err_name(ngx_http_ai_err_e e)
{
    if ((ngx_uint_t) e >= NGX_HTTP_AI_ERR_MAX) {
        e = NGX_HTTP_AI_ERR_INTERNAL;
    }

    return &ngx_http_ai_errs[e].name;
}


ngx_uint_t
ngx_http_ai_err_status(ngx_http_ai_err_e e)
{
    if ((ngx_uint_t) e >= NGX_HTTP_AI_ERR_MAX) {
        e = NGX_HTTP_AI_ERR_INTERNAL;
    }

    return ngx_http_ai_errs[e].status;
}


int64_t
ngx_http_ai_retry_after(ngx_str_t *value, ngx_str_t *value_ms, time_t now)
{
    u_char   *p;
    int64_t   wait, ns;

    wait = ngx_http_ai_wait_value(value->data, value->len, now);

    if (value_ms->len == 0) {
        return wait;
    }

    p = value_ms->data;

    if (ngx_http_ai_wait_decimal(&p, p + value_ms->len, 1000000, &ns)
        == NGX_OK
        && p == value_ms->data + value_ms->len)
    {
        ns = ns / 1000000 + (ns % 1000000 != 0);
        wait = ngx_http_ai_max(wait, ns);
    }

    return wait;
}


static int64_t
ngx_http_ai_wait_value(u_char *p, size_t len, time_t now)
{
    u_char   *first, *start, *last;
    time_t    t;
    int64_t   ms, ns, sum, limit;
    uint64_t  unit;

    if (len == 0) {
        return -1;
    }

    last = p + len;

    while (p < last && (*p == ' ' || *p == '\t')) {
        p++;
    }

    while (p < last && (last[-1] == ' ' || last[-1] == '\t')) {
        last--;
    }

    if (p == last) {
        return -1;
    }

    len = last - p;

    if (ngx_http_ai_wait_rfc3339(p, len, &ms) == NGX_OK) {
        ms -= (int64_t) now * 1000;
        return ngx_http_ai_max(ms, 0);
    }

    if (*p < '0' || *p > '9') {

        if (*p == '-' || *p == '+' || *p == '.') {
            return -1;
        }

        t = ngx_parse_http_time(p, len);

        if (t == (time_t) NGX_ERROR) {
            return -1;
        }

        return (t > now) ? (int64_t) (t - now) * 1000 : 0;
    }

    /* nanoseconds: what adds up to years is not a wait */

    limit = (int64_t) 1 << 60;
    sum = 0;
    first = p;

    for ( ;; ) {
        start = p;

        if (ngx_http_ai_wait_decimal(&p, last, 1, &ns) != NGX_OK) {
            return -1;
        }

        if (p == last) {

            if (start == first) {
                break;
            }

            return -1;
        }

        if (*p == 'h') {
            unit = 3600000000000ULL;
            p++;

        } else if (*p == 'm' && last - p > 1 && p[1] == 's') {
            unit = 1000000;
            p += 2;

        } else if (*p == 'm') {
            unit = 60000000000ULL;
            p++;

        } else if (*p == 's') {
            unit = 1000000000;
            p++;

        } else if (*p == 'u' && last - p > 1 && p[1] == 's') {
            unit = 1000;
            p += 2;

        } else if (last - p > 2 && p[2] == 's'
                   && ((p[0] == 0xc2 && p[1] == 0xb5)
                       || (p[0] == 0xce && p[1] == 0xbc)))
        {
            unit = 1000;
            p += 3;

        } else if (*p == 'n' && last - p > 1 && p[1] == 's') {
            unit = 1;
            p += 2;

        } else {
            return -1;
        }

        /* the number once more, now in its unit */

        if (ngx_http_ai_wait_decimal(&start, last, unit, &ns) != NGX_OK
            || ns > limit - sum)
        {
            return -1;
        }

        sum += ns;

        if (p == last) {
            return sum / 1000000 + (sum % 1000000 != 0);
        }
    }

    /* a bare number of seconds, or a time */

    if (ngx_http_ai_wait_decimal(&first, last, 1000, &ms) != NGX_OK) {
        return -1;
    }

    if (ms > 1000000000000000LL) {
        ms = ms / 1000 - (int64_t) now * 1000;

    } else if (ms > 1000000000000LL) {
        ms -= (int64_t) now * 1000;
    }

    return ngx_http_ai_max(ms, 0);
}


/* digits [ "." digits ] times unit, rounded up; NGX_ERROR on overflow */

static ngx_int_t
ngx_http_ai_wait_decimal(u_char **pos, u_char *last, uint64_t unit,
    int64_t *ns)
{
    u_char    *p;
    uint64_t   n, fraction, scale, more;

    p = *pos;

    if (p == last || *p < '0' || *p > '9') {
        return NGX_ERROR;
    }

    for (n = 0; p < last && *p >= '0' && *p <= '9'; p++) {

        if (n > 1000000000000000ULL) {
            return NGX_ERROR;
        }

        n = n * 10 + (*p - '0');
    }

    if (n > (uint64_t) INT64_MAX / 2 / unit) {
        return NGX_ERROR;
    }

    n *= unit;

    if (p < last && *p == '.') {
        p++;

        fraction = 0;
        scale = 1;
        more = 0;

        for ( /* void */ ; p < last && *p >= '0' && *p <= '9'; p++) {

            if (scale < 1000000) {
                fraction = fraction * 10 + (*p - '0');
                scale *= 10;

            } else if (*p != '0') {
                more = 1;
            }
        }

        n += ((fraction + more) * unit + scale - 1) / scale;
    }

    *pos = p;
    *ns = (int64_t) n;

    return NGX_OK;
}


/* 2026-11-21T06:30:48[.123]Z or with an offset, to epoch milliseconds */

static ngx_int_t
ngx_http_ai_wait_rfc3339(u_char *p, size_t len, int64_t *ms)
{
    u_char    *last;
    ngx_int_t  year, month, day, hour, min, sec, oh, om;
    int64_t    t, n, unit, sign;

    if (len < sizeof("2026-11-21T06:30:48Z") - 1
        || p[4] != '-' || p[7] != '-'
        || (p[10] != 'T' && p[10] != 't' && p[10] != ' ')
        || p[13] != ':' || p[16] != ':')
    {
        return NGX_ERROR;
    }

    last = p + len;

    year = ngx_atoi(p, 4);
    month = ngx_atoi(p + 5, 2);
    day = ngx_atoi(p + 8, 2);
    hour = ngx_atoi(p + 11, 2);
    min = ngx_atoi(p + 14, 2);
    sec = ngx_atoi(p + 17, 2);

    if (year == NGX_ERROR
        || month < 1 || month > 12
        || day < 1 || day > 31
        || hour < 0 || hour > 23
        || min < 0 || min > 59
        || sec < 0 || sec > 60)
    {
        return NGX_ERROR;
    }

    t = ngx_http_ai_wait_days(year, month, day) * 86400
        + hour * 3600 + min * 60 + sec;

    t *= 1000;

    p += 19;

    if (p < last && *p == '.') {
        unit = 100;

        for (p++; p < last && *p >= '0' && *p <= '9'; p++) {
            t += (*p - '0') * unit;
            unit /= 10;
        }
    }

    if (last - p == 1 && (*p == 'Z' || *p == 'z')) {
        *ms = t;
        return NGX_OK;
    }

    if (last - p != 6 || (*p != '+' && *p != '-') || p[3] != ':') {
        return NGX_ERROR;
    }

    sign = (*p == '+') ? 1 : -1;

    oh = ngx_atoi(p + 1, 2);
    om = ngx_atoi(p + 4, 2);

    if (oh == NGX_ERROR || om == NGX_ERROR) {
        return NGX_ERROR;
    }

    n = (int64_t) (oh * 3600 + om * 60) * 1000;

    *ms = t - sign * n;

    return NGX_OK;
}


/* days since 1970-01-01 in the Gregorian calendar */

static int64_t
ngx_http_ai_wait_days(int64_t year, int64_t month, int64_t day)
{
    if (month <= 2) {
        month += 12;
        year--;
    }

    return 365 * year + year / 4 - year / 100 + year / 400
           + (153 * (month - 3) + 2) / 5 + day - 719469;
}
