
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The answer of a provider on its way to the client: into the flight, for
 * those who follow, and kept for the tiers.
 */


#include "ngx_http_ai_cache.h"


/* of a flight that has no answer for others, and has not failed */
#define NGX_HTTP_AI_CACHE_UNSHARED  NGX_HTTP_AI_ERR_MAX


static void ngx_http_ai_cache_tap_data(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_chain_t *in);
static void ngx_http_ai_cache_tap_end(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);
static void ngx_http_ai_cache_keep(ngx_http_ai_cached_t *c, ngx_chain_t *in);
static ngx_uint_t ngx_http_ai_cache_choices(ngx_http_ai_cached_t *c);
static void ngx_http_ai_cache_usage(ngx_http_ai_cached_t *c);


static const ngx_http_ai_tap_t  ngx_http_ai_cache_tap_pt = {
    NULL,
    ngx_http_ai_cache_tap_data,
    ngx_http_ai_cache_tap_wanted,
    ngx_http_ai_cache_tap_failed,
    ngx_http_ai_cache_tap_end
};


void
ngx_http_ai_cache_tap(ngx_http_ai_cached_t *c)
{
    c->several = ngx_http_ai_cache_choices(c);

    /* what the flight becomes an entry of is enough for memory */

    c->keep = (c->flight == 0 || c->zone->on_disk || c->zone->remote
               || c->several);

    c->body.pool = c->request->pool;

    c->ctx->tap = &ngx_http_ai_cache_tap_pt;
    c->ctx->spool = c->flight ? c->use->max_size : 0;
}


static void
ngx_http_ai_cache_tap_data(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_chain_t *in)
{
    ngx_http_ai_cached_t  *c;

    c = ctx->cache;

    if (ctx->error != NGX_HTTP_AI_ERR_NONE) {
        /* how it has failed, followers tell their clients themselves */
        return;
    }

    ngx_http_ai_cache_keep(c, in);
    ngx_http_ai_cache_share(c, in);
}


static void
ngx_http_ai_cache_keep(ngx_http_ai_cached_t *c, ngx_chain_t *in)
{
    size_t        size;
    ngx_chain_t  *cl;

    for (cl = in; cl && !c->lost; cl = cl->next) {
        size = cl->buf->last - cl->buf->pos;
        c->size += size;

        if (c->size > c->use->max_size) {
            c->lost = 1;

        } else if (c->keep) {
            ngx_http_ai_out_mem(&c->body, cl->buf->pos, size);
            c->lost = c->body.failed;
        }
    }

    if (c->lost && c->body.start) {
        (void) ngx_pfree(c->request->pool, c->body.start);
        ngx_memzero(&c->body, sizeof(ngx_http_ai_out_t));
    }
}


void
ngx_http_ai_cache_share(ngx_http_ai_cached_t *c, ngx_chain_t *in)
{
    int64_t                     now;
    uint64_t                    flight;
    ngx_int_t                   rc;
    ngx_uint_t                  opened;
    ngx_chain_t                *cl;
    ngx_http_ai_cache_store_t  *st;

    flight = c->flight;
    opened = c->opened;
    c->opened = 1;

    if (flight == 0) {
        return;
    }

    rc = NGX_OK;
    now = ngx_http_ai_cache_now();

    st = ngx_http_ai_cache_lock(c->zone);

    if (!opened) {
        rc = ngx_http_ai_cache_open(st, flight, c->zone->worker, &c->meta);
    }

    for (cl = in; cl && rc == NGX_OK; cl = cl->next) {
        rc = ngx_http_ai_cache_append(st, flight, c->zone->worker,
                                      cl->buf->pos,
                                      cl->buf->last - cl->buf->pos, now);
    }

    if (rc != NGX_OK) {
        ngx_http_ai_cache_fail(st, flight, c->zone->worker,
                               NGX_HTTP_AI_CACHE_UNSHARED, 1, now);
        c->flight = 0;

        if (!c->keep) {
            c->lost = 1;
        }
    }

    ngx_http_ai_cache_unlock(c->zone);

    ngx_http_ai_cache_wake(c->zone, flight);
}


ngx_uint_t
ngx_http_ai_cache_tap_wanted(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    ngx_uint_t                  n;
    ngx_http_ai_cached_t       *c;
    ngx_http_ai_cache_store_t  *st;

    c = ctx->cache;

    if (c->background) {
        return 1;
    }

    if (c->flight == 0) {
        return 0;
    }

    st = ngx_http_ai_cache_lock(c->zone);
    n = ngx_http_ai_cache_followers(st, c->flight);
    ngx_http_ai_cache_unlock(c->zone);

    return n;
}


ngx_int_t
ngx_http_ai_cache_tap_failed(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_error_t *err, ngx_int_t *rc)
{
    ngx_int_t              n;
    ngx_http_ai_cached_t  *c;

    c = ctx->cache;

    if (!ngx_http_ai_cache_use_stale(c, err->class)) {
        return NGX_DECLINED;
    }

    n = ngx_http_ai_cache_send_stale(c);

    if (n == NGX_DECLINED) {
        return NGX_DECLINED;
    }

    ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                  "ai cache: a stale answer is sent instead of an error: %V",
                  ngx_http_ai_err_name(err->class));

    /* what followers without a stale one are told */
    c->error = err->class;

    *rc = (n == NGX_DONE) ? ctx->rc : NGX_ERROR;

    return NGX_OK;
}


static void
ngx_http_ai_cache_tap_end(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    int64_t                    now;
    uint64_t                   flight;
    ngx_uint_t                 whole, storable;
    ngx_http_ai_cached_t      *c;
    ngx_http_ai_cache_meta_t  *meta;

    c = ctx->cache;
    meta = &c->meta;

    whole = ctx->complete && c->opened && !ctx->cut;

    if (!whole) {
        ngx_http_ai_cache_abandon(c);
        return;
    }

    storable = ngx_http_ai_cache_storable(c) && !c->lost;

    if (storable && c->several) {
        storable = (ngx_http_ai_cache_finishes(c, meta, c->body.start,
                                            c->body.last - c->body.start)
                    == NGX_OK);
    }

    now = ngx_http_ai_cache_now();

    ngx_http_ai_cache_usage(c);

    meta->finish = ctx->finish;
    meta->usage_state = ctx->usage_state;
    meta->fresh = storable ? now + c->ttl : 0;
    meta->stale = storable ? meta->fresh + (int64_t) c->use->stale * 1000 : 0;

    flight = c->flight;

    ngx_http_ai_cache_landed(c);

    if (storable && c->keep) {
        ngx_http_ai_cache_store(c->zone, meta, c->body.start,
                                c->body.last - c->body.start, flight != 0);
    }

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "ai cache: the answer has ended, storable:%ui flight:%uL",
                   storable, flight);
}


void
ngx_http_ai_cache_landed(ngx_http_ai_cached_t *c)
{
    uint64_t                    flight;
    ngx_http_ai_cache_store_t  *st;

    flight = c->flight;

    if (flight == 0) {
        return;
    }

    c->flight = 0;

    st = ngx_http_ai_cache_lock(c->zone);

    (void) ngx_http_ai_cache_end(st, flight, c->zone->worker, &c->meta,
                                 ngx_http_ai_cache_now());

    ngx_http_ai_cache_unlock(c->zone);

    ngx_http_ai_cache_wake(c->zone, flight);
}


void
ngx_http_ai_cache_abandon(ngx_http_ai_cached_t *c)
{
    uint64_t                    flight;
    ngx_uint_t                  error, final;
    ngx_http_ai_cache_store_t  *st;

    flight = c->flight;

    if (flight == 0) {
        return;
    }

    c->flight = 0;

    error = c->error ? c->error : c->ctx->error;

    /* what was made here is never shared, all others make it as well */
    final = (error == NGX_HTTP_AI_ERR_NONE && !c->opened && c->ctx->answered);

    if (error == NGX_HTTP_AI_ERR_NONE) {
        error = NGX_HTTP_AI_CACHE_UNSHARED;
    }

    st = ngx_http_ai_cache_lock(c->zone);

    ngx_http_ai_cache_fail(st, flight, c->zone->worker, error, final,
                           ngx_http_ai_cache_now());

    ngx_http_ai_cache_unlock(c->zone);

    ngx_http_ai_cache_wake(c->zone, flight);
}


static ngx_uint_t
ngx_http_ai_cache_choices(ngx_http_ai_cached_t *c)
{
    ngx_uint_t           n;
    ngx_http_ai_json_t  *j;

    j = &c->ctx->json;

    n = ngx_http_ai_json_member(j, 0, "n");

    return ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_NULL;
}


/* of the attempt that has won, as its answer shows it */

static void
ngx_http_ai_cache_usage(ngx_http_ai_cached_t *c)
{
    ngx_uint_t          i;
    ngx_http_ai_try_t   t;
    ngx_http_ai_ctx_t  *ctx;

    ctx = c->ctx;

    for (i = 0; ctx->attempt && ctx->attempt(ctx, i, &t) == NGX_OK; i++) {
        if (t.won) {
            ngx_http_ai_cache_set_usage(&c->meta, t.usage);
            return;
        }
    }

    ngx_http_ai_cache_set_usage(&c->meta, &ctx->usage);
}
