
/*
 * Copyright (C) nginx AI gateway authors
 */


/* what a request has used and cost, over all of its attempts */


#include "ngx_http_ai_router_exec.h"


ngx_int_t
ngx_http_ai_router_settle(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
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

        if (u->out >= 0 && a->complete) {

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
            input = ngx_http_ai_input_estimate(ctx);
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

    if (x->model == NULL) {
        /* none was found for the request */
        return NGX_OK;
    }

    price = &x->model->price;

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


int64_t
ngx_http_ai_input_estimate(ngx_http_ai_ctx_t *ctx)
{
    uint64_t                  sum;
    ngx_uint_t                i;
    ngx_http_ai_json_t       *j;
    ngx_http_ai_error_t       err;
    ngx_http_ai_json_node_t  *node;

    if (!ctx->parsed) {
        return 0;
    }

    ngx_memzero(&err, sizeof(ngx_http_ai_error_t));

    j = &ctx->json;

    if (!ctx->whole) {
        j->shallow = 0;

        if (ngx_http_ai_json_parse(j, ctx->body.data, ctx->body.len)
            != NGX_OK)
        {
            return (int64_t) ctx->body.len / 4;
        }

        ctx->whole = 1;
        ctx->model_node = ngx_http_ai_json_member(j, 0, "model");
    }

    sum = 0;

    for (i = 0; i < j->nnodes; i++) {
        node = &j->nodes[i];

        if (node->type == NGX_HTTP_AI_JSON_OBJECT) {
            /* a message or part has an overhead of its own */
            sum += 200;
            continue;
        }

        if (node->type != NGX_HTTP_AI_JSON_STRING || node->key) {
            continue;
        }

        if (node->len > 512
            && ngx_strlchr(node->start, node->start + 512, ' ') == NULL
            && ngx_strlchr(node->start, node->start + 512, '\\') == NULL)
        {
            /* base64: an image or a file, about one tile of it */
            sum += 8500;
            continue;
        }

        sum += ngx_http_ai_tokens_raw(node->start, node->len);
    }

    return ngx_http_ai_tokens_round(sum);
}
