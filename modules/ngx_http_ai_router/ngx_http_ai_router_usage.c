
/*
 * Copyright (C) nginx AI gateway authors
 */


/* what a request has used and cost, over all of its attempts */


#include "ngx_http_ai_router_exec.h"


ngx_int_t
ngx_http_ai_router_meter(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    int64_t                 input, cost;
    ngx_uint_t              i;
    ngx_http_ai_exec_t     *x;
    ngx_http_ai_usage_t    *u, *sum;
    ngx_http_ai_price_t    *price;
    ngx_http_ai_attempt_t  *a;

    x = ctx->router;

    if (x == NULL || ctx->op == NGX_HTTP_AI_OP_PASS
        || ctx->op == NGX_HTTP_AI_OP_COUNT_TOKENS)
    {
        return NGX_OK;
    }

    sum = &ctx->usage;

    for (i = 0; i < x->nattempts; i++) {
        a = x->attempts[i];
        u = &a->usage;

        if (!a->sent) {
            continue;
        }

        if (a->error.class != NGX_HTTP_AI_ERR_NONE && !a->content) {
            /* it has failed before it made anything */
            continue;
        }

        if (a->canceled && !a->content && a != x->winner && x->winner) {
            /* the loser of a hedge */
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
    }

    if (x->winner) {
        ctx->finish = x->winner->finish;
    }

    price = &ctx->price;

    /* an answer made here costs nothing */

    if (ctx->usage_state != NGX_HTTP_AI_USAGE_NONE && price->in >= 0
        && ctx->cost < 0)
    {

        cost = 0;

        if (sum->in_fresh > 0) {
            cost += sum->in_fresh * price->in;
        }

        if (sum->cache_read > 0) {
            cost += sum->cache_read * price->cached;
        }

        if (sum->cache_write > 0) {
            cost += sum->cache_write * price->cache_write;
        }

        if (sum->out > 0) {
            cost += sum->out * price->out;
        }

        /* pico to nano */
        ctx->cost = (cost + 500) / 1000;
    }

    return NGX_OK;
}


void
ngx_http_ai_router_foretell(ngx_http_ai_exec_t *x)
{
    ngx_uint_t               i, made;
    ngx_http_ai_ctx_t       *ctx;
    ngx_http_ai_provider_t  *provider;

    ctx = x->ctx;
    ctx->price = x->model->price;
    ctx->price_version = 0;

    made = 1;

    for (i = 0; i < x->ncandidates; i++) {
        provider = x->candidates[i].target->provider;

        if (!provider->is_static) {
            made = 0;
        }

        ctx->patience = ngx_max(ctx->patience,
                                ngx_max(provider->first, provider->idle));
    }

    if (x->ncandidates) {
        ctx->max_output = x->candidates[0].target->provider->max_output;
    }

    if (made) {
        /* an answer made here costs nothing */
        ngx_memzero(&ctx->price, sizeof(ngx_http_ai_price_t));
    }
}
