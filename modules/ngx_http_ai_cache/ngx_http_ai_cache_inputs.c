
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Embeddings of several inputs: each is looked for and stored by itself, a
 * provider is asked for those that are missing.  Flights are of whole
 * requests: who asks for the same inputs follows, and gets the whole answer.
 */


#include "ngx_http_ai_cache.h"
#include "ngx_http_ai_cache_batch.h"


typedef struct {
    ngx_http_ai_cached_t      *cached;
    ngx_http_ai_cache_found_t  found;
    ngx_int_t                  rc;            /* NGX_BUSY: a stale one */
} ngx_http_ai_cache_look_t;


struct ngx_http_ai_cache_inputs_s {
    ngx_http_ai_cache_batch_t  batch;
    ngx_http_ai_cache_look_t  *looks;         /* one for each input */
    ngx_uint_t                 waiting;       /* for so many of them */
    unsigned                   reduced:1;     /* the body is not the client's
                                                 any more */
};


static void ngx_http_ai_cache_inputs_found(void *data, ngx_int_t rc,
    ngx_http_ai_cache_found_t *found);
static ngx_int_t ngx_http_ai_cache_inputs_send(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_e cached);
static void ngx_http_ai_cache_inputs_usage(ngx_http_ai_cached_t *c,
    ngx_http_ai_usage_t *sum);
static ngx_int_t ngx_http_ai_cache_inputs_reduce(ngx_http_ai_cached_t *c);
static ngx_int_t ngx_http_ai_cache_inputs_body(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_str_t *body);
static void ngx_http_ai_cache_inputs_data(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_chain_t *in);
static void ngx_http_ai_cache_inputs_end(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);


static const ngx_http_ai_tap_t  ngx_http_ai_cache_inputs_tap = {
    ngx_http_ai_cache_inputs_body,
    ngx_http_ai_cache_inputs_data,
    ngx_http_ai_cache_tap_wanted,
    ngx_http_ai_cache_tap_failed,
    ngx_http_ai_cache_inputs_end
};


ngx_int_t
ngx_http_ai_cache_inputs(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_ask_t *ask)
{
    ngx_int_t                    rc;
    ngx_uint_t                   i;
    ngx_pool_t                  *pool;
    ngx_http_ai_cache_inputs_t  *in;

    pool = c->request->pool;

    in = ngx_pcalloc(pool, sizeof(ngx_http_ai_cache_inputs_t));
    if (in == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_http_ai_cache_batch(pool, ask, &in->batch);

    if (rc == NGX_DECLINED) {
        return NGX_OK;
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    in->looks = ngx_pcalloc(pool, in->batch.ninputs
                                  * sizeof(ngx_http_ai_cache_look_t));
    if (in->looks == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < in->batch.ninputs; i++) {
        in->looks[i].cached = c;
        in->looks[i].rc = NGX_DECLINED;
    }

    c->inputs = in;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_cache_inputs_look(ngx_http_ai_cached_t *c)
{
    ngx_uint_t                   i;
    ngx_http_ai_cache_look_t    *look;
    ngx_http_ai_cache_inputs_t  *in;

    in = c->inputs;

    c->step = NGX_HTTP_AI_CACHED_LOOKING;

    for (i = 0; i < in->batch.ninputs && !c->no_lookup; i++) {

        if (in->batch.inputs[i].same != i) {
            continue;
        }

        look = &in->looks[i];

        look->rc = ngx_http_ai_cache_lookup(c->zone,
                                            in->batch.inputs[i].key.id,
                                            c->request->pool, &look->found,
                                            ngx_http_ai_cache_inputs_found,
                                            look);

        if (look->rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        in->waiting += (look->rc == NGX_AGAIN);
    }

    return in->waiting ? NGX_AGAIN : ngx_http_ai_cache_inputs_looked(c);
}


static void
ngx_http_ai_cache_inputs_found(void *data, ngx_int_t rc,
    ngx_http_ai_cache_found_t *found)
{
    ngx_http_ai_cache_look_t *look = data;

    ngx_http_ai_cached_t  *c;

    look->rc = rc;
    c = look->cached;

    if (--c->inputs->waiting == 0) {
        c->api->resume(c->request);
    }
}


ngx_int_t
ngx_http_ai_cache_inputs_looked(ngx_http_ai_cached_t *c)
{
    int64_t                      now;
    ngx_uint_t                   i, missing, stale;
    ngx_http_ai_ctx_t           *ctx;
    ngx_http_ai_cache_look_t    *look;
    ngx_http_ai_cache_batch_t   *batch;
    ngx_http_ai_cache_inputs_t  *in;

    in = c->inputs;
    ctx = c->ctx;
    batch = &in->batch;

    if (in->waiting) {
        return NGX_AGAIN;
    }

    now = ngx_http_ai_cache_now();
    missing = 0;
    stale = 0;

    for (i = 0; i < batch->ninputs; i++) {
        look = &in->looks[i];

        if (batch->inputs[i].same != i) {
            continue;
        }

        if (look->rc == NGX_OK && now < look->found.meta.fresh
            && (c->max_age < 0
                || now - look->found.meta.created <= c->max_age))
        {
            look->rc = ngx_http_ai_cache_batch_add(batch, i,
                                                   &look->found.data);

        } else if (look->rc == NGX_OK) {
            look->rc = NGX_BUSY;
        }

        switch (look->rc) {

        case NGX_OK:
            break;

        case NGX_DECLINED:
            missing++;
            break;

        case NGX_BUSY:
            missing++;
            stale++;
            break;

        default:
            return NGX_ERROR;
        }
    }

    if (missing == 0) {
        return ngx_http_ai_cache_inputs_send(c, NGX_HTTP_AI_CACHE_HIT);
    }

    c->stale = (stale == missing && c->max_age < 0);

    ctx->cached = c->no_lookup ? NGX_HTTP_AI_CACHE_BYPASS
                  : c->stale ? NGX_HTTP_AI_CACHE_EXPIRED
                             : NGX_HTTP_AI_CACHE_MISS;

    if (c->only) {
        c->step = NGX_HTTP_AI_CACHED_PASSED;
        return ngx_http_ai_cache_only(c);
    }

    return ngx_http_ai_cache_join(c);
}


ngx_int_t
ngx_http_ai_cache_inputs_ask(ngx_http_ai_cached_t *c)
{
    ngx_http_ai_cache_batch_t  *batch;

    batch = &c->inputs->batch;

    if (ngx_http_ai_cache_batch_missing(batch) < batch->ninputs
        && ngx_http_ai_cache_inputs_reduce(c) != NGX_OK)
    {
        return NGX_ERROR;
    }

    c->ctx->tap = &ngx_http_ai_cache_inputs_tap;
    c->ctx->spool = c->flight ? c->use->max_size : 0;

    return NGX_DECLINED;
}


/* all of them are there; as ngx_http_ai_cache_replay() */

static ngx_int_t
ngx_http_ai_cache_inputs_send(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_e cached)
{
    ngx_uint_t                   i;
    ngx_http_ai_usage_t          usage;
    ngx_http_ai_cache_meta_t    *meta;
    ngx_http_ai_cache_batch_t   *batch;
    ngx_http_ai_cache_found_t   *found;
    ngx_http_ai_cache_inputs_t  *in;

    in = c->inputs;
    batch = &in->batch;
    found = &c->found;

    if (ngx_http_ai_cache_batch_merge(batch, &found->data) != NGX_OK) {
        return NGX_ERROR;
    }

    found->meta = c->meta;

    for (i = 0; i < batch->ninputs; i++) {
        meta = &in->looks[batch->inputs[i].same].found.meta;

        /* as old as the oldest of them */

        found->meta.created = ngx_min(found->meta.created, meta->created);
    }

    ngx_http_ai_cache_inputs_usage(c, &usage);
    ngx_http_ai_cache_set_usage(&found->meta, &usage);

    return ngx_http_ai_cache_replay(c, found, cached);
}


/* of all inputs, whoever has them */

static void
ngx_http_ai_cache_inputs_usage(ngx_http_ai_cached_t *c,
    ngx_http_ai_usage_t *sum)
{
    int64_t                     tokens;
    ngx_uint_t                  i, n;
    ngx_http_ai_usage_t         usage;
    ngx_http_ai_cache_batch_t  *batch;

    batch = &c->inputs->batch;

    ngx_http_ai_usage_init(sum);
    sum->in_fresh = 0;

    for (i = 0; i < batch->ninputs; i++) {
        n = batch->inputs[i].same;

        if (batch->inputs[n].fresh) {
            tokens = batch->inputs[n].tokens;

        } else {
            ngx_http_ai_cache_get_usage(&c->inputs->looks[n].found.meta,
                                        &usage);
            tokens = ngx_http_ai_usage_input(&usage);
        }

        sum->in_fresh += ngx_max(tokens, 0);
    }
}


/* the rest of the inputs instead of the client's body */

static ngx_int_t
ngx_http_ai_cache_inputs_reduce(ngx_http_ai_cached_t *c)
{
    ngx_str_t             body;
    ngx_http_ai_ctx_t    *ctx;
    ngx_http_ai_error_t   err;

    ctx = c->ctx;

    if (ngx_http_ai_cache_batch_body(&c->inputs->batch, &body) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_memzero(&err, sizeof(ngx_http_ai_error_t));

    c->inputs->reduced = 1;

    ctx->body = body;
    ctx->whole = 0;

    /* less of what was parsed before */

    return (c->api->parse_body(ctx, &err) == NGX_OK) ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_http_ai_cache_inputs_body(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_str_t *body)
{
    ngx_int_t                    rc;
    ngx_http_ai_cached_t        *c;
    ngx_http_ai_cache_inputs_t  *in;

    c = ctx->cache;
    in = c->inputs;

    rc = ngx_http_ai_cache_batch_split(&in->batch, body);

    if (rc == NGX_DECLINED && !in->reduced) {
        /* whatever it is, it is the client's */
        return NGX_OK;
    }

    if (rc == NGX_OK && in->reduced) {
        return ngx_http_ai_cache_batch_merge(&in->batch, body);
    }

    if (rc == NGX_DECLINED) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "ai cache: the provider's answer has other vectors "
                      "than those that it was asked for");
    }

    return (rc == NGX_OK) ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_http_ai_cache_inputs_stale(ngx_http_ai_cached_t *c)
{
    ngx_uint_t                   i;
    ngx_http_ai_cache_batch_t   *batch;
    ngx_http_ai_cache_inputs_t  *in;

    in = c->inputs;
    batch = &in->batch;

    for (i = 0; i < batch->ninputs; i++) {

        if (batch->inputs[i].same == i && in->looks[i].rc == NGX_BUSY
            && ngx_http_ai_cache_batch_add(batch, i, &in->looks[i].found.data)
               != NGX_OK)
        {
            return NGX_DECLINED;
        }
    }

    return (ngx_http_ai_cache_inputs_send(c, NGX_HTTP_AI_CACHE_STALE)
            == NGX_DONE)
           ? NGX_DONE : NGX_ERROR;
}


static void
ngx_http_ai_cache_inputs_data(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_chain_t *in)
{
    if (ctx->error == NGX_HTTP_AI_ERR_NONE) {
        ngx_http_ai_cache_share(ctx->cache, in);
    }
}


static void
ngx_http_ai_cache_inputs_end(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    ngx_uint_t                  i;
    ngx_http_ai_usage_t         usage;
    ngx_http_ai_cached_t       *c;
    ngx_http_ai_cache_meta_t   *meta;
    ngx_http_ai_cache_batch_t  *batch;
    ngx_http_ai_cache_input_t  *input;

    c = ctx->cache;
    meta = &c->meta;
    batch = &c->inputs->batch;

    if (!ctx->complete || !c->opened || ctx->cut) {
        ngx_http_ai_cache_abandon(c);
        return;
    }

    meta->finish = ctx->finish;

    /* the whole of it is for those who follow, and no entry */

    ngx_http_ai_cache_inputs_usage(c, &usage);
    ngx_http_ai_cache_set_usage(meta, &usage);

    meta->usage_state = ctx->usage_state;
    meta->fresh = 0;
    meta->stale = 0;

    ngx_http_ai_cache_landed(c);

    if (!ngx_http_ai_cache_storable(c)) {
        return;
    }

    meta->fresh = ngx_http_ai_cache_now() + c->ttl;
    meta->stale = meta->fresh + (int64_t) c->use->stale * 1000;

    for (i = 0; i < batch->ninputs; i++) {
        input = &batch->inputs[i];

        if (!input->fresh || input->stored.len > c->use->max_size) {
            continue;
        }

        ngx_memcpy(meta->id, input->key.id, NGX_HTTP_AI_CACHE_ID);
        meta->exact = input->key.exact;

        ngx_http_ai_usage_init(&usage);
        usage.in_fresh = input->tokens;

        ngx_http_ai_cache_set_usage(meta, &usage);
        ngx_http_ai_cache_store(c->zone, meta, input->stored.data,
                                input->stored.len, 0);
    }
}
