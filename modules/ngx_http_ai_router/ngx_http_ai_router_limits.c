
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * What a provider tells of its own limits: one that has nothing left, or asks
 * to wait, is not asked until it has.  All workers know of it.
 */


#include "ngx_http_ai_router_exec.h"


/* the longest that is believed, ms */
#define NGX_HTTP_AI_LIMITS_MAX  300000


static ngx_str_t  ngx_http_ai_limits_openai = ngx_string("x-ratelimit-");
static ngx_str_t  ngx_http_ai_limits_anthropic =
    ngx_string("anthropic-ratelimit-");


/* by NGX_HTTP_AI_LIMITS_KINDS */

static ngx_str_t  ngx_http_ai_limits_kinds[] = {
    ngx_string("requests"),
    ngx_string("tokens"),
    ngx_string("input-tokens"),
    ngx_string("output-tokens")
};


/* "x-ratelimit-remaining-tokens", "anthropic-ratelimit-tokens-remaining" */

ngx_uint_t
ngx_http_ai_limits_header(ngx_http_ai_attempt_t *a, ngx_str_t *name,
    ngx_str_t *value)
{
    u_char      *p;
    size_t       len;
    ngx_str_t    none, *kind;
    ngx_uint_t   i, remaining;

    static ngx_str_t  words[] = {
        ngx_string("reset"), ngx_string("remaining")
    };

    kind = &ngx_http_ai_limits_openai;

    if (name->len > kind->len
        && ngx_strncasecmp(name->data, kind->data, kind->len) == 0)
    {
        p = name->data + kind->len;
        len = name->len - kind->len;

        for (remaining = 0; remaining < 2; remaining++) {
            if (len > words[remaining].len + 1
                && p[words[remaining].len] == '-'
                && ngx_strncasecmp(p, words[remaining].data,
                                   words[remaining].len)
                   == 0)
            {
                break;
            }
        }

        if (remaining == 2) {
            return 0;
        }

        p += words[remaining].len + 1;
        len -= words[remaining].len + 1;

    } else {
        kind = &ngx_http_ai_limits_anthropic;

        if (name->len <= kind->len
            || ngx_strncasecmp(name->data, kind->data, kind->len) != 0)
        {
            return 0;
        }

        p = name->data + kind->len;
        len = name->len - kind->len;

        for (remaining = 0; remaining < 2; remaining++) {
            if (len > words[remaining].len + 1
                && p[len - words[remaining].len - 1] == '-'
                && ngx_strncasecmp(p + len - words[remaining].len,
                                   words[remaining].data,
                                   words[remaining].len)
                   == 0)
            {
                break;
            }
        }

        if (remaining == 2) {
            return 0;
        }

        len -= words[remaining].len + 1;
    }

    for (i = 0; i < NGX_HTTP_AI_LIMITS_KINDS; i++) {

        kind = &ngx_http_ai_limits_kinds[i];

        if (kind->len != len || ngx_strncasecmp(kind->data, p, len) != 0) {
            continue;
        }

        if (remaining) {
            a->exhausted &= ~((ngx_uint_t) 1 << i);

            if (value->len && ngx_atoof(value->data, value->len) == 0) {
                a->exhausted |= (ngx_uint_t) 1 << i;
            }

        } else {
            ngx_str_null(&none);
            a->resets[i] = ngx_http_ai_retry_after(value, &none, ngx_time());
        }

        return 1;
    }

    return 0;
}


int64_t
ngx_http_ai_limits_wait(ngx_http_ai_attempt_t *a)
{
    int64_t     wait;
    ngx_uint_t  i;

    wait = -1;

    for (i = 0; i < NGX_HTTP_AI_LIMITS_KINDS; i++) {
        if (a->exhausted & ((ngx_uint_t) 1 << i)) {
            wait = ngx_max(wait, a->resets[i]);
        }
    }

    return wait;
}


/* at the end of a header; what refuses is handled by the plan */

void
ngx_http_ai_limits_learn(ngx_http_ai_attempt_t *a)
{
    int64_t               wait;
    ngx_msec_t            left, least;
    ngx_uint_t            i;
    ngx_http_ai_key_t    *keys;
    ngx_http_ai_model_t  *model;

    if (a->status.code >= 400
        || (a->exhausted == 0 && a->retry_after.len == 0
            && a->retry_after_ms.len == 0))
    {
        return;
    }

    wait = ngx_max(ngx_http_ai_limits_wait(a),
                   ngx_http_ai_retry_after(&a->retry_after,
                                           &a->retry_after_ms, ngx_time()));
    if (wait <= 0) {
        return;
    }

    wait = ngx_min(wait, NGX_HTTP_AI_LIMITS_MAX);
    least = (ngx_msec_t) wait;
    model = a->exec->model;

    if (a->key && a->provider->keys.nelts > 1) {

        /* the others may have something left */

        ngx_http_ai_health_cooldown(a->key->health, (ngx_msec_t) wait);

        keys = a->provider->keys.elts;

        for (i = 0; i < a->provider->keys.nelts; i++) {
            left = 0;

            if (ngx_http_ai_health_peek(keys[i].health, model, &left)
                != NGX_HTTP_AI_HEALTH_COOLING)
            {
                return;
            }

            least = ngx_min(least, left);
        }
    }

    ngx_log_error(NGX_LOG_INFO, a->exec->request->connection->log, 0,
                  "ai router: \"%V\" has nothing left for %M ms",
                  &a->target->name, least);

    ngx_http_ai_health_cooldown(a->target->health, least);
}
