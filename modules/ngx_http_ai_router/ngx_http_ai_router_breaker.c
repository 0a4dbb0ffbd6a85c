
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_router_breaker.h"


static void ngx_http_ai_breaker_advance(ngx_http_ai_breaker_t *b,
    ngx_http_ai_breaker_conf_t *conf, ngx_msec_t now);
static void ngx_http_ai_breaker_open(ngx_http_ai_breaker_t *b,
    ngx_http_ai_breaker_conf_t *conf, ngx_msec_t now);
static void ngx_http_ai_breaker_clear(ngx_http_ai_breaker_t *b);


ngx_http_ai_breaker_answer_e
ngx_http_ai_breaker_peek(ngx_http_ai_breaker_t *b,
    ngx_http_ai_breaker_conf_t *conf, ngx_msec_t now, ngx_msec_t *wait)
{
    ngx_msec_t  left;

    *wait = 0;

    if (conf->rate == 0) {
        return NGX_HTTP_AI_BREAKER_PASS;
    }

    switch (b->state) {

    case NGX_HTTP_AI_BREAKER_OPEN:

        left = ngx_http_ai_breaker_left(b->until, now, conf->open);

        if (left) {
            *wait = left;
            return NGX_HTTP_AI_BREAKER_REFUSE;
        }

        return NGX_HTTP_AI_BREAKER_TRY;

    case NGX_HTTP_AI_BREAKER_HALF_OPEN:

        if (b->probe == 0) {
            return NGX_HTTP_AI_BREAKER_TRY;
        }

        left = ngx_http_ai_breaker_left(b->probe_until, now,
                                        NGX_HTTP_AI_BREAKER_PROBE);

        if (left) {
            *wait = (left < NGX_HTTP_AI_BREAKER_WAIT)
                    ? left : NGX_HTTP_AI_BREAKER_WAIT;
            return NGX_HTTP_AI_BREAKER_REFUSE;
        }

        return NGX_HTTP_AI_BREAKER_TRY;

    default: /* NGX_HTTP_AI_BREAKER_CLOSED */
        return NGX_HTTP_AI_BREAKER_PASS;
    }
}


ngx_http_ai_breaker_answer_e
ngx_http_ai_breaker_check(ngx_http_ai_breaker_t *b,
    ngx_http_ai_breaker_conf_t *conf, ngx_msec_t now, ngx_pid_t pid,
    ngx_msec_t *wait)
{
    ngx_http_ai_breaker_answer_e  rc;

    rc = ngx_http_ai_breaker_peek(b, conf, now, wait);

    if (rc == NGX_HTTP_AI_BREAKER_TRY) {
        b->probe_until = now + NGX_HTTP_AI_BREAKER_PROBE;
        b->probe = pid;
        b->state = NGX_HTTP_AI_BREAKER_HALF_OPEN;
    }

    return rc;
}


ngx_http_ai_breaker_change_e
ngx_http_ai_breaker_result(ngx_http_ai_breaker_t *b,
    ngx_http_ai_breaker_conf_t *conf, ngx_msec_t now, ngx_uint_t failed,
    ngx_uint_t probe, ngx_uint_t *nfailed, ngx_uint_t *total)
{
    uint64_t                       f, n;
    ngx_uint_t                     i;
    ngx_http_ai_breaker_bucket_t  *bucket;

    *nfailed = 0;
    *total = 0;

    if (conf->rate == 0) {
        return NGX_HTTP_AI_BREAKER_SAME;
    }

    if (b->state == NGX_HTTP_AI_BREAKER_HALF_OPEN && probe) {

        /*
         * the probe may have outlived its time and another one may be under
         * way; what it has found out is as good
         */

        if (failed) {
            ngx_http_ai_breaker_open(b, conf, now);
            return NGX_HTTP_AI_BREAKER_REOPENED;
        }

        ngx_http_ai_breaker_clear(b);
        b->probe = 0;
        b->state = NGX_HTTP_AI_BREAKER_CLOSED;

        return NGX_HTTP_AI_BREAKER_RECOVERED;
    }

    if (b->state != NGX_HTTP_AI_BREAKER_CLOSED) {
        /* a request from before the breaker opened */
        return NGX_HTTP_AI_BREAKER_SAME;
    }

    ngx_http_ai_breaker_advance(b, conf, now);

    bucket = &b->buckets[b->slot % NGX_HTTP_AI_BREAKER_BUCKETS];

    if (failed) {
        bucket->failed++;

    } else {
        bucket->ok++;
    }

    f = 0;
    n = 0;

    for (i = 0; i < NGX_HTTP_AI_BREAKER_BUCKETS; i++) {
        f += b->buckets[i].failed;
        n += (uint64_t) b->buckets[i].failed + b->buckets[i].ok;
    }

    if (f == 0 || n < conf->min || f * 100 < conf->rate * n) {
        return NGX_HTTP_AI_BREAKER_SAME;
    }

    *nfailed = (ngx_uint_t) f;
    *total = (ngx_uint_t) n;

    ngx_http_ai_breaker_open(b, conf, now);

    return NGX_HTTP_AI_BREAKER_OPENED;
}


void
ngx_http_ai_breaker_release(ngx_http_ai_breaker_t *b, ngx_pid_t pid)
{
    if (b->state == NGX_HTTP_AI_BREAKER_HALF_OPEN && b->probe == pid) {
        b->probe = 0;
    }
}


ngx_msec_t
ngx_http_ai_breaker_left(ngx_msec_t until, ngx_msec_t now, ngx_msec_t max)
{
    ngx_msec_int_t  left;

    /*
     * "max" for a configuration that was made shorter, and for 32-bit
     * milliseconds that have wrapped since
     */

    left = (ngx_msec_int_t) (until - now);

    if (left <= 0 || (ngx_msec_t) left > max) {
        return 0;
    }

    return left;
}


static void
ngx_http_ai_breaker_advance(ngx_http_ai_breaker_t *b,
    ngx_http_ai_breaker_conf_t *conf, ngx_msec_t now)
{
    ngx_msec_t      width, slot;
    ngx_msec_int_t  n;

    width = conf->window / NGX_HTTP_AI_BREAKER_BUCKETS;

    if (width == 0) {
        width = 1;
    }

    slot = now / width;

    if (b->width != width) {
        ngx_http_ai_breaker_clear(b);
        b->width = width;
        b->slot = slot;
        return;
    }

    n = (ngx_msec_int_t) (slot - b->slot);

    if (n == 0) {
        return;
    }

    if (n >= NGX_HTTP_AI_BREAKER_BUCKETS || n <= -NGX_HTTP_AI_BREAKER_BUCKETS)
    {
        ngx_http_ai_breaker_clear(b);
        b->slot = slot;
        return;
    }

    /* a little behind: the cached times of processes differ */

    while (n > 0) {
        slot = b->slot + 1;
        ngx_memzero(&b->buckets[slot % NGX_HTTP_AI_BREAKER_BUCKETS],
                    sizeof(ngx_http_ai_breaker_bucket_t));
        b->slot = slot;
        n--;
    }
}


static void
ngx_http_ai_breaker_open(ngx_http_ai_breaker_t *b,
    ngx_http_ai_breaker_conf_t *conf, ngx_msec_t now)
{
    b->until = now + conf->open;
    b->state = NGX_HTTP_AI_BREAKER_OPEN;
    b->probe = 0;

    ngx_http_ai_breaker_clear(b);
}


static void
ngx_http_ai_breaker_clear(ngx_http_ai_breaker_t *b)
{
    ngx_memzero(b->buckets, sizeof(b->buckets));
}
