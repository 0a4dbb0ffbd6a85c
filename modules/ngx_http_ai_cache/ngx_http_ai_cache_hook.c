
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * A request's way through the cache: looked for, then sent, or led by this
 * request, or followed.  The hook is called anew after each wait; "step" tells
 * what it has waited for.
 */


#include "ngx_http_ai_cache.h"


/* of one flight, and then its followers fail with it */
#define NGX_HTTP_AI_CACHE_TAKEOVERS  3


static ngx_int_t ngx_http_ai_cache_look(ngx_http_ai_cached_t *c);
static void ngx_http_ai_cache_look_done(void *data, ngx_int_t rc,
    ngx_http_ai_cache_found_t *found);
static ngx_int_t ngx_http_ai_cache_looked(ngx_http_ai_cached_t *c);
static ngx_int_t ngx_http_ai_cache_waited(ngx_http_ai_cached_t *c);
static ngx_int_t ngx_http_ai_cache_whole(ngx_http_ai_cached_t *c);
static ngx_int_t ngx_http_ai_cache_failed(ngx_http_ai_cached_t *c);
static ngx_int_t ngx_http_ai_cache_lead(ngx_http_ai_cached_t *c,
    uint64_t flight);
static ngx_int_t ngx_http_ai_cache_alone(ngx_http_ai_cached_t *c);
static ngx_int_t ngx_http_ai_cache_go_on(ngx_http_ai_cached_t *c);
static void ngx_http_ai_cache_cleanup(void *data);


ngx_int_t
ngx_http_ai_cache_hook(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    ngx_int_t              rc;
    ngx_http_cleanup_t    *cln;
    ngx_http_ai_cached_t  *c;

    c = ctx->cache;

    if (c == NULL) {
        rc = ngx_http_ai_cache_prepare(r, ctx, &c);

        if (rc != NGX_OK) {
            return rc;
        }

        cln = ngx_http_cleanup_add(r, 0);
        if (cln == NULL) {
            return NGX_ERROR;
        }

        cln->handler = ngx_http_ai_cache_cleanup;
        cln->data = c;
    }

    switch (c->step) {

    case NGX_HTTP_AI_CACHED_LOOK:
        return c->inputs ? ngx_http_ai_cache_inputs_look(c)
                         : ngx_http_ai_cache_look(c);

    case NGX_HTTP_AI_CACHED_LOOKING:
        return c->inputs ? ngx_http_ai_cache_inputs_looked(c)
                         : ngx_http_ai_cache_looked(c);

    case NGX_HTTP_AI_CACHED_WAITING:
        return ngx_http_ai_cache_waited(c);

    default:
        return NGX_DECLINED;
    }
}


static ngx_int_t
ngx_http_ai_cache_look(ngx_http_ai_cached_t *c)
{
    if (c->no_lookup) {
        c->ctx->cached = NGX_HTTP_AI_CACHE_BYPASS;
        return ngx_http_ai_cache_lead(c, 0);
    }

    c->step = NGX_HTTP_AI_CACHED_LOOKING;
    c->stale = 0;

    c->found_rc = ngx_http_ai_cache_lookup(c->zone, c->key.id,
                                           c->request->pool, &c->found,
                                           ngx_http_ai_cache_look_done, c);

    if (c->found_rc == NGX_AGAIN) {
        return NGX_AGAIN;
    }

    return ngx_http_ai_cache_looked(c);
}


static void
ngx_http_ai_cache_look_done(void *data, ngx_int_t rc,
    ngx_http_ai_cache_found_t *found)
{
    ngx_http_ai_cached_t *c = data;

    c->found_rc = rc;

    c->api->resume(c->request);
}


static ngx_int_t
ngx_http_ai_cache_looked(ngx_http_ai_cached_t *c)
{
    int64_t    now;
    ngx_int_t  rc;

    if (c->found_rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    c->ctx->cached = NGX_HTTP_AI_CACHE_MISS;

    if (c->found_rc == NGX_OK) {
        now = ngx_http_ai_cache_now();

        if (now < c->found.meta.fresh
            && (c->max_age < 0
                || now - c->found.meta.created <= c->max_age))
        {
            rc = ngx_http_ai_cache_replay(c, &c->found,
                                          NGX_HTTP_AI_CACHE_HIT);

            if (rc != NGX_DECLINED) {
                return rc;
            }

        } else {
            /* never one that the client has called too old */

            c->stale = (c->max_age < 0);
            c->ctx->cached = NGX_HTTP_AI_CACHE_EXPIRED;
        }
    }

    if (c->only) {
        c->step = NGX_HTTP_AI_CACHED_PASSED;
        return ngx_http_ai_cache_only(c);
    }

    return ngx_http_ai_cache_join(c);
}


ngx_int_t
ngx_http_ai_cache_join(ngx_http_ai_cached_t *c)
{
    int64_t                     now, created;
    uint64_t                    flight;
    ngx_int_t                   rc;
    ngx_http_ai_cache_store_t  *st;

    if (!c->conf->lock || c->no_lookup) {
        return ngx_http_ai_cache_lead(c, 0);
    }

    now = ngx_http_ai_cache_now();
    created = (c->found_rc == NGX_OK) ? c->found.meta.created : -1;

    st = ngx_http_ai_cache_lock(c->zone);

    if (c->inputs == NULL
        && ngx_http_ai_cache_younger(st, c->key.id, created, now))
    {

        /* a flight has ended since it was looked for */

        ngx_http_ai_cache_unlock(c->zone);

        return ngx_http_ai_cache_look(c);
    }

    rc = ngx_http_ai_cache_begin(st, &c->meta, c->zone->worker, now, &flight);

    ngx_http_ai_cache_unlock(c->zone);

    if (rc == NGX_OK) {
        return ngx_http_ai_cache_lead(c, flight);
    }

    if (rc != NGX_AGAIN) {
        return ngx_http_ai_cache_lead(c, 0);
    }

    ngx_memzero(&c->reader, sizeof(ngx_http_ai_cache_reader_t));
    c->reader.flight = flight;

    if (c->stale
        && (c->conf->background
            || (c->conf->use_stale & NGX_HTTP_AI_STALE_UPDATING)))
    {
        /* somebody else is getting a new one */

        st = ngx_http_ai_cache_lock(c->zone);
        ngx_http_ai_cache_depart(st, flight, c->zone->worker);
        ngx_http_ai_cache_unlock(c->zone);

        c->reader.flight = 0;

        rc = ngx_http_ai_cache_send_stale(c);

        return (rc == NGX_DECLINED) ? ngx_http_ai_cache_alone(c) : rc;
    }

    c->step = NGX_HTTP_AI_CACHED_WAITING;

    return ngx_http_ai_cache_follow(c);
}


static ngx_int_t
ngx_http_ai_cache_waited(ngx_http_ai_cached_t *c)
{
    ngx_http_ai_cache_store_t   *st;
    ngx_http_ai_cache_reader_t  *rd;

    if (c->timedout) {
        ngx_http_ai_cache_unfollow(c);
        return ngx_http_ai_cache_alone(c);
    }

    rd = &c->reader;

    st = ngx_http_ai_cache_lock(c->zone);
    (void) ngx_http_ai_cache_read(st, rd, NULL, 0);
    ngx_http_ai_cache_unlock(c->zone);

    switch (rd->state) {

    case NGX_HTTP_AI_CACHE_FLIGHT_RUNNING:

        if (ngx_http_ai_cache_ready(c)) {
            return ngx_http_ai_cache_live(c);
        }

        return NGX_AGAIN;

    case NGX_HTTP_AI_CACHE_FLIGHT_WHOLE:
        return ngx_http_ai_cache_whole(c);

    case NGX_HTTP_AI_CACHE_FLIGHT_FAILED:
        return ngx_http_ai_cache_failed(c);

    default: /* NGX_HTTP_AI_CACHE_FLIGHT_GONE */

        ngx_http_ai_cache_unfollow(c);

        if (c->again) {
            return ngx_http_ai_cache_alone(c);
        }

        c->again = 1;

        return ngx_http_ai_cache_join(c);
    }
}


static ngx_int_t
ngx_http_ai_cache_whole(ngx_http_ai_cached_t *c)
{
    ngx_int_t                    rc;
    ngx_str_t                    data;
    ngx_http_ai_cache_store_t   *st;
    ngx_http_ai_cache_found_t    found;
    ngx_http_ai_cache_reader_t  *rd;

    rd = &c->reader;

    data.data = ngx_pnalloc(c->request->pool, rd->size + 1);
    if (data.data == NULL) {
        return NGX_ERROR;
    }

    st = ngx_http_ai_cache_lock(c->zone);
    data.len = ngx_http_ai_cache_read(st, rd, data.data, rd->size);
    ngx_http_ai_cache_unlock(c->zone);

    ngx_http_ai_cache_unfollow(c);

    if (rd->state != NGX_HTTP_AI_CACHE_FLIGHT_WHOLE || data.len != rd->size) {
        return ngx_http_ai_cache_alone(c);
    }

    ngx_memzero(&found, sizeof(ngx_http_ai_cache_found_t));

    found.meta = rd->meta;
    found.data = data;

    rc = ngx_http_ai_cache_replay(c, &found, NGX_HTTP_AI_CACHE_COALESCED);

    return (rc == NGX_DECLINED) ? ngx_http_ai_cache_alone(c) : rc;
}


/* whom it followed has failed, and this client was sent nothing yet */

static ngx_int_t
ngx_http_ai_cache_failed(ngx_http_ai_cached_t *c)
{
    uint64_t                    flight;
    ngx_int_t                   rc;
    ngx_uint_t                  error;
    ngx_http_ai_error_t         err;
    ngx_http_ai_cache_store_t  *st;

    error = c->reader.error;
    flight = c->reader.flight;

    if (error < NGX_HTTP_AI_ERR_MAX && ngx_http_ai_cache_use_stale(c, error)) {
        ngx_http_ai_cache_unfollow(c);

        rc = ngx_http_ai_cache_send_stale(c);

        return (rc == NGX_DECLINED) ? ngx_http_ai_cache_alone(c) : rc;
    }

    if (c->reader.round <= NGX_HTTP_AI_CACHE_TAKEOVERS) {
        st = ngx_http_ai_cache_lock(c->zone);

        rc = ngx_http_ai_cache_takeover(st, flight, c->zone->worker,
                                        ngx_http_ai_cache_now());
        if (rc != NGX_OK) {
            (void) ngx_http_ai_cache_read(st, &c->reader, NULL, 0);
        }

        ngx_http_ai_cache_unlock(c->zone);

        if (rc == NGX_OK) {
            /* no follower any more */
            c->reader.flight = 0;
            ngx_http_ai_cache_unfollow(c);

            return ngx_http_ai_cache_lead(c, flight);
        }

        if (c->reader.state == NGX_HTTP_AI_CACHE_FLIGHT_RUNNING) {
            /* another one was faster */
            return NGX_AGAIN;
        }
    }

    ngx_http_ai_cache_unfollow(c);

    if (error >= NGX_HTTP_AI_ERR_MAX || error == NGX_HTTP_AI_ERR_NONE) {
        /* it has not failed, but it has no answer for others */
        return ngx_http_ai_cache_alone(c);
    }

    c->step = NGX_HTTP_AI_CACHED_PASSED;
    c->ctx->cached = NGX_HTTP_AI_CACHE_COALESCED;
    c->ctx->free = 1;

    ngx_memzero(&err, sizeof(ngx_http_ai_error_t));

    err.class = error;
    ngx_str_set(&err.message, "The request that this one has waited for has "
                              "failed.");

    c->ctx->rc = c->api->send_error(c->request, c->ctx, &err, -1, 0);

    return NGX_DONE;
}


/* the request goes to a provider, others may follow it */

static ngx_int_t
ngx_http_ai_cache_lead(ngx_http_ai_cached_t *c, uint64_t flight)
{
    ngx_int_t  rc;

    c->flight = flight;
    c->step = NGX_HTTP_AI_CACHED_PASSED;

    if (c->stale && c->conf->background && c->inputs == NULL
        && c->ctx->cached == NGX_HTTP_AI_CACHE_EXPIRED)
    {
        c->background = 1;

        rc = ngx_http_ai_cache_replay(c, &c->found, NGX_HTTP_AI_CACHE_STALE);

        if (rc == NGX_ERROR
            || (rc == NGX_DONE
                && (c->ctx->rc == NGX_ERROR || c->ctx->rc > NGX_OK)))
        {
            ngx_http_ai_cache_abandon(c);
            return rc;
        }

        /* the client is served, what goes on is the refresh */

        c->background = (rc == NGX_DONE);
        c->ctx->background = c->background;
    }

    return ngx_http_ai_cache_go_on(c);
}


ngx_int_t
ngx_http_ai_cache_send_stale(ngx_http_ai_cached_t *c)
{
    if (c->inputs) {
        return ngx_http_ai_cache_inputs_stale(c);
    }

    return ngx_http_ai_cache_replay(c, &c->found, NGX_HTTP_AI_CACHE_STALE);
}


/* it has waited in vain; nobody waits for this one */

static ngx_int_t
ngx_http_ai_cache_alone(ngx_http_ai_cached_t *c)
{
    c->step = NGX_HTTP_AI_CACHED_PASSED;
    c->ctx->cached = c->stale ? NGX_HTTP_AI_CACHE_EXPIRED
                              : NGX_HTTP_AI_CACHE_MISS;

    return ngx_http_ai_cache_go_on(c);
}


static ngx_int_t
ngx_http_ai_cache_go_on(ngx_http_ai_cached_t *c)
{
    if (c->inputs) {
        return ngx_http_ai_cache_inputs_ask(c);
    }

    ngx_http_ai_cache_tap(c);

    return NGX_DECLINED;
}


static void
ngx_http_ai_cache_cleanup(void *data)
{
    ngx_http_ai_cached_t *c = data;

    ngx_http_ai_cache_unfollow(c);
    ngx_http_ai_cache_abandon(c);
}


ngx_int_t
ngx_http_ai_cache_settle(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    ngx_http_ai_cached_t  *c;

    c = ctx->cache;

    if (c == NULL || ctx->cached == NGX_HTTP_AI_CACHE_NONE) {
        return NGX_DECLINED;
    }

    ngx_http_ai_cache_count(c->zone, ctx->cached);

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_cache_header_hook(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    int64_t                age;
    ngx_str_t              value;
    ngx_http_ai_cached_t  *c;

    if (ctx->cached == NGX_HTTP_AI_CACHE_NONE) {
        return NGX_DECLINED;
    }

    if (ngx_http_ai_header_add(&r->headers_out.headers, "x-ai-cache",
                               ngx_http_ai_cached_word(ctx->cached))
        == NULL)
    {
        return NGX_ERROR;
    }

    c = ctx->cache;

    if (c == NULL
        || (ctx->cached != NGX_HTTP_AI_CACHE_HIT
            && ctx->cached != NGX_HTTP_AI_CACHE_STALE))
    {
        return NGX_OK;
    }

    value.data = ngx_pnalloc(r->pool, NGX_INT64_LEN);
    if (value.data == NULL) {
        return NGX_ERROR;
    }

    age = ngx_http_ai_cache_now() - c->found.meta.created;

    value.len = ngx_sprintf(value.data, "%L", ngx_max(age, 0) / 1000)
                - value.data;

    return ngx_http_ai_header_add(&r->headers_out.headers, "Age", &value)
           ? NGX_OK : NGX_ERROR;
}
