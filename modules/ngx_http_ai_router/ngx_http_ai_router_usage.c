
/*
 * Copyright (C) nginx AI gateway authors
 */


/* what a request has used and cost, over all of its attempts */


#include "ngx_http_ai_router_exec.h"


#define NGX_HTTP_AI_FNV        0xcbf29ce484222325ULL
#define NGX_HTTP_AI_FNV_PRIME  0x100000001b3ULL


static uint64_t ngx_http_ai_fnv(uint64_t hash, ngx_str_t *s);


ngx_int_t
ngx_http_ai_router_meter(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    int64_t                     input, cost;
    ngx_uint_t                  i, known;
    ngx_http_ai_exec_t         *x;
    ngx_http_ai_usage_t        *u, *sum;
    ngx_http_ai_attempt_t      *a;
    const ngx_http_ai_price_t  *price;

    x = ctx->router;

    if (x == NULL || ctx->op == NGX_HTTP_AI_OP_PASS
        || ctx->op == NGX_HTTP_AI_OP_COUNT_TOKENS)
    {
        return NGX_OK;
    }

    if (x->metered) {
        return NGX_OK;
    }

    x->metered = 1;

    sum = &ctx->usage;
    cost = 0;
    known = (x->nattempts != 0);

    for (i = 0; i < x->nattempts; i++) {
        a = x->attempts[i];
        u = &a->usage;

        if (!ngx_http_ai_usage_counts(a)) {
            continue;
        }

        if (u->out >= 0 && a->complete && !a->cut) {

            if (ctx->usage_state == NGX_HTTP_AI_USAGE_NONE) {
                ctx->usage_state = NGX_HTTP_AI_USAGE_PROVIDER;
            }

        } else if (a->content) {
            u->out = ngx_http_ai_max(u->out,
                                     ngx_http_ai_tokens_round(a->counted));
            ctx->usage_state = NGX_HTTP_AI_USAGE_COUNTED;

        } else if (ctx->op == NGX_HTTP_AI_OP_CHAT
                   || ctx->op == NGX_HTTP_AI_OP_COMPLETIONS
                   || ctx->op == NGX_HTTP_AI_OP_EMBEDDINGS)
        {
            if (u->in_fresh >= 0 && a->complete) {
                /* embeddings have no output */
                if (ctx->usage_state == NGX_HTTP_AI_USAGE_NONE) {
                    ctx->usage_state = NGX_HTTP_AI_USAGE_PROVIDER;
                }

            } else {
                ctx->usage_state = NGX_HTTP_AI_USAGE_ESTIMATED;
            }

        } else {
            continue;
        }

        if (u->in_fresh < 0) {
            input = x->api->input_estimate(ctx);
            u->in_fresh = input;
        }

#define ngx_http_ai_usage_add(f)                                              \
        if (u->f >= 0) {                                                      \
            sum->f = (sum->f < 0) ? u->f : sum->f + u->f;                     \
        }

        ngx_http_ai_usage_add(in_fresh);
        ngx_http_ai_usage_add(cache_read);
        ngx_http_ai_usage_add(cache_write);
        ngx_http_ai_usage_add(cache_write_1h);
        ngx_http_ai_usage_add(out);
        ngx_http_ai_usage_add(reasoning);
        ngx_http_ai_usage_add(audio_in);
        ngx_http_ai_usage_add(audio_out);

        price = a->candidate->price;

        if (price == NULL) {
            known = 0;
            continue;
        }

        cost = ngx_http_ai_price_add(cost, ngx_http_ai_usage_price(a, u));

        ctx->price_version = price->version;
    }

    if (x->winner) {
        ctx->finish = x->winner->finish;
    }

    if (ctx->usage_state != NGX_HTTP_AI_USAGE_NONE && ctx->cost < 0
        && known)
    {
        ctx->cost = ngx_http_ai_price_nano(cost);
    }

    return NGX_OK;
}


ngx_uint_t
ngx_http_ai_usage_counts(ngx_http_ai_attempt_t *a)
{
    if (!a->sent && !a->complete) {
        return 0;
    }

    if (a->error.class != NGX_HTTP_AI_ERR_NONE && !a->content) {
        /* it has failed before it made anything */
        return 0;
    }

    if (a->canceled && !a->content && a->exec->winner
        && a != a->exec->winner)
    {
        /* the loser of a hedge */
        return 0;
    }

    return 1;
}


int64_t
ngx_http_ai_usage_price(ngx_http_ai_attempt_t *a, ngx_http_ai_usage_t *u)
{
    const ngx_http_ai_price_t  *price;

    price = a->candidate->price;

    return ngx_http_ai_price_cost(price, u,
                                  price->image
                                  ? a->exec->api->images(a->exec->ctx) : 0);
}


ngx_int_t
ngx_http_ai_router_foretell(ngx_http_ai_exec_t *x)
{
    ngx_uint_t                  i, made;
    ngx_http_ai_ctx_t          *ctx;
    ngx_http_ai_provider_t     *provider;
    const ngx_http_ai_price_t  *price;

    ctx = x->ctx;

    if (ngx_http_ai_prices_set(x) != NGX_OK) {
        return NGX_ERROR;
    }

    made = 1;

    for (i = 0; i < x->ncandidates; i++) {
        provider = x->candidates[i].target->provider;
        price = x->candidates[i].price;

        if (price && (ctx->price == NULL || made)) {
            /* an answer made here costs nothing, but the next one may */
            ctx->price = price;
            ctx->price_version = price->version;
        }

        made = made && provider->is_static;

        ctx->patience = ngx_max(ctx->patience,
                                ngx_max(provider->first, provider->idle));
    }

    if (x->ncandidates) {
        ctx->max_output = x->candidates[0].target->provider->max_output;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_router_attempt(ngx_http_ai_ctx_t *ctx, ngx_uint_t n,
    ngx_http_ai_try_t *t)
{
    ngx_http_ai_exec_t     *x;
    ngx_http_ai_attempt_t  *a;

    x = ctx->router;

    if (x == NULL || n >= x->nattempts) {
        return NGX_DECLINED;
    }

    a = x->attempts[n];

    ngx_http_ai_plan_name(x, a->target, &t->target);
    t->provider = a->provider->name;
    t->vendor = a->provider->vendor.len ? a->provider->vendor
                                        : a->provider->dialect->name;

    if (a->target->direct) {
        ngx_str_null(&t->name);

    } else {
        t->name = a->target->name;
    }

    t->region = a->provider->region;
    t->model = a->model;
    t->upstream_id = a->upstream_id;
    t->status = a->status.code;
    t->error = a->error.class;
    t->start = a->start;
    t->first = a->first ? (ngx_msec_int_t) (a->first_at - a->start) : -1;
    t->duration = a->finished ? (ngx_msec_int_t) (a->end - a->start) : -1;
    t->finish = a->finish;
    t->usage = &a->usage;
    t->won = (a == x->winner);
    t->canceled = a->canceled;

    return NGX_OK;
}


/* FNV-1a of each, summed: the order of targets is drawn anew each time */

uint64_t
ngx_http_ai_router_plan_hash(ngx_http_ai_ctx_t *ctx)
{
    uint64_t              sum;
    ngx_uint_t            i;
    ngx_http_ai_exec_t   *x;
    ngx_http_ai_param_t  *param;

    x = ctx->router;

    if (x == NULL) {
        return 0;
    }

    sum = 0;

    for (i = 0; i < x->ncandidates; i++) {
        sum += ngx_http_ai_fnv(NGX_HTTP_AI_FNV,
                               &x->candidates[i].target->name);
    }

    if (x->model) {
        param = x->model->params.elts;

        for (i = 0; i < x->model->params.nelts; i++) {
            sum += ngx_http_ai_fnv(ngx_http_ai_fnv(NGX_HTTP_AI_FNV
                                                   + param[i].force,
                                                   &param[i].name),
                                   &param[i].value);
        }
    }

    return sum;
}


ngx_int_t
ngx_http_ai_router_trailer(ngx_http_ai_exec_t *x)
{
    u_char              *p;
    ngx_str_t            value;
    ngx_http_ai_ctx_t   *ctx;
    ngx_http_request_t  *r;

    r = x->request;
    ctx = x->ctx;

    if (!ctx->cost_trailer) {
        return NGX_OK;
    }

    if (ngx_http_ai_router_meter(r, ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ctx->cost < 0) {
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, NGX_HTTP_AI_DOLLARS_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    value.data = p;
    value.len = ngx_http_ai_dollars(p, ctx->cost) - p;

    return ngx_http_ai_header_add(&r->headers_out.trailers, "x-ai-cost",
                                  &value)
           ? NGX_OK : NGX_ERROR;
}


static uint64_t
ngx_http_ai_fnv(uint64_t hash, ngx_str_t *s)
{
    size_t  i;

    for (i = 0; i < s->len; i++) {
        hash = (hash ^ s->data[i]) * NGX_HTTP_AI_FNV_PRIME;
    }

    return hash;
}
