
/*
 * Copyright (C) nginx AI gateway authors
 */


/* how many tokens a request is, before a provider has told */


#include "ngx_http_ai_core_module.h"


/* bytes of text that are counted; of more the rest is inferred */
#define NGX_HTTP_AI_ESTIMATE_MAX  16384


int64_t
ngx_http_ai_input_estimate(ngx_http_ai_ctx_t *ctx)
{
    size_t                    len;
    uint64_t                  sum, n, tokens, counted, left;
    ngx_uint_t                i;
    ngx_http_ai_json_t       *j;
    ngx_http_ai_error_t       err;
    ngx_http_ai_json_node_t  *node;

    if (!ctx->parsed) {
        return 0;
    }

    if (ctx->input_estimate >= 0) {
        return ctx->input_estimate;
    }

    ngx_memzero(&err, sizeof(ngx_http_ai_error_t));

    j = &ctx->json;

    if (ngx_http_ai_parse_body(ctx, &err) != NGX_OK) {

        /* too many values to be walked through: the top level is enough */

        j->shallow = 1;

        if (ngx_http_ai_json_parse(j, ctx->body.data, ctx->body.len)
            == NGX_OK)
        {
            ctx->model_node = ngx_http_ai_json_member(j, 0, "model");
        }

        ctx->input_estimate = (int64_t) ctx->body.len / 4;

        return ctx->input_estimate;
    }

    sum = 0;
    tokens = 0;
    counted = 0;
    left = 0;

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

        len = node->len;

        if (ctx->op != NGX_HTTP_AI_OP_COUNT_TOKENS) {
            len = ngx_min(len, NGX_HTTP_AI_ESTIMATE_MAX - counted);
            left += node->len - len;
        }

        if (len) {
            n = ngx_http_ai_tokens_raw(node->start, len);

            sum += n;
            tokens += n;
            counted += len;
        }
    }

    /* the rest is like what was counted of it */

    if (left) {
        sum += left * (tokens * 1000 / counted) / 1000;
    }

    ctx->input_estimate = ngx_http_ai_tokens_round(sum);

    return ctx->input_estimate;
}
