
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_patch.h"


typedef struct {
    ngx_array_t               *slices;
    size_t                     len;
    ngx_uint_t                 failed;
} ngx_http_ai_patch_ctx_t;


static ngx_http_ai_patch_op_t *ngx_http_ai_patch_find(ngx_http_ai_json_t *j,
    ngx_uint_t key, ngx_http_ai_patch_op_t *ops, ngx_uint_t nops);
static void ngx_http_ai_patch_add(ngx_http_ai_patch_ctx_t *ctx, u_char *start,
    u_char *end);


ngx_int_t
ngx_http_ai_patch(ngx_pool_t *pool, ngx_http_ai_json_t *j, ngx_str_t *body,
    ngx_http_ai_patch_op_t *ops, ngx_uint_t nops, ngx_array_t *slices,
    size_t *len)
{
    u_char                   *pos, *start, *end, *kept, *close;
    ngx_str_t                 value;
    ngx_uint_t                i, k, n;
    ngx_http_ai_out_t         out;
    ngx_http_ai_patch_op_t   *op;
    ngx_http_ai_patch_ctx_t   ctx;

    if (j->nnodes == 0 || j->nodes[0].type != NGX_HTTP_AI_JSON_OBJECT) {
        return NGX_DECLINED;
    }

    ctx.slices = slices;
    ctx.len = 0;
    ctx.failed = 0;

    pos = body->data;
    close = j->nodes[0].start + j->nodes[0].len - 1;

    /* end of the last member that stays */

    kept = NULL;

    for (i = ngx_http_ai_json_first(j, 0);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, 0, i))
    {
        value = ngx_http_ai_json_value(j, i + 1);
        start = j->nodes[i].start - 1;
        end = value.data + value.len;

        op = ngx_http_ai_patch_find(j, i, ops, nops);

        if (op && op->mode == NGX_HTTP_AI_PATCH_DELETE) {

            /*
             * goes with the comma before it, or, as long as no member stays,
             * with the one behind it: the next member that stays moves pos
             */

            if (kept) {
                ngx_http_ai_patch_add(&ctx, pos, kept);

            } else if (pos == body->data) {
                ngx_http_ai_patch_add(&ctx, pos, start);
            }

            pos = end;

            continue;
        }

        if (kept == NULL && pos != body->data) {
            pos = start;
        }

        if (op && op->mode == NGX_HTTP_AI_PATCH_SET
            && ngx_http_ai_json_get(j, 0, (char *) op->name.data,
                                    op->name.len)
               == i + 1)
        {
            ngx_http_ai_patch_add(&ctx, pos, value.data);
            ngx_http_ai_patch_add(&ctx, op->value.data,
                                  op->value.data + op->value.len);
            pos = end;
        }

        kept = end;
    }

    n = 0;

    for (k = 0; k < nops; k++) {
        if (ops[k].mode == NGX_HTTP_AI_PATCH_DELETE
            || ngx_http_ai_json_get(j, 0, (char *) ops[k].name.data,
                                    ops[k].name.len)
               != NGX_HTTP_AI_JSON_NONE)
        {
            continue;
        }

        if (n++ == 0) {
            ngx_http_ai_patch_add(&ctx, pos, close);
            pos = close;
        }

        if (ngx_http_ai_out_init(&out, pool, ops[k].name.len + 8) != NGX_OK) {
            return NGX_ERROR;
        }

        if (kept || n > 1) {
            ngx_http_ai_out_lit(&out, ",");
        }

        ngx_http_ai_out_lit(&out, "\"");
        ngx_http_ai_out_escaped(&out, ops[k].name.data, ops[k].name.len);
        ngx_http_ai_out_lit(&out, "\":");

        if (out.failed) {
            return NGX_ERROR;
        }

        ngx_http_ai_patch_add(&ctx, out.start, out.last);
        ngx_http_ai_patch_add(&ctx, ops[k].value.data,
                              ops[k].value.data + ops[k].value.len);
    }

    ngx_http_ai_patch_add(&ctx, pos, body->data + body->len);

    if (ctx.failed) {
        return NGX_ERROR;
    }

    if (len) {
        *len = ctx.len;
    }

    return NGX_OK;
}


static ngx_http_ai_patch_op_t *
ngx_http_ai_patch_find(ngx_http_ai_json_t *j, ngx_uint_t key,
    ngx_http_ai_patch_op_t *ops, ngx_uint_t nops)
{
    ngx_uint_t  i;

    for (i = 0; i < nops; i++) {
        if (ngx_http_ai_json_key_eq(j, key, (char *) ops[i].name.data,
                                    ops[i].name.len))
        {
            return &ops[i];
        }
    }

    return NULL;
}


static void
ngx_http_ai_patch_add(ngx_http_ai_patch_ctx_t *ctx, u_char *start, u_char *end)
{
    ngx_str_t  *s;

    if (end <= start) {
        return;
    }

    s = ngx_array_push(ctx->slices);
    if (s == NULL) {
        ctx->failed = 1;
        return;
    }

    s->data = start;
    s->len = end - start;

    ctx->len += s->len;
}


ngx_int_t
ngx_http_ai_patch_stream_options(ngx_pool_t *pool, ngx_http_ai_json_t *j,
    ngx_http_ai_patch_op_t *op)
{
    u_char                  *p;
    size_t                   len;
    ngx_int_t                rc;
    ngx_str_t                body, *s;
    ngx_uint_t               i, n, v;
    ngx_array_t              slices;
    ngx_http_ai_json_t       sub;
    ngx_http_ai_patch_op_t   set;

    ngx_str_set(&op->name, "stream_options");
    ngx_str_set(&op->value, "{\"include_usage\":true}");
    op->mode = NGX_HTTP_AI_PATCH_SET;

    n = ngx_http_ai_json_member(j, 0, "stream_options");

    if (ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_NULL) {
        return NGX_OK;
    }

    if (ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_OBJECT) {
        return NGX_DECLINED;
    }

    /* the tree may be shallow: the object is read again on its own */

    body = ngx_http_ai_json_raw(j, n);

    ngx_memzero(&sub, sizeof(ngx_http_ai_json_t));
    sub.pool = pool;
    sub.shallow = 1;

    rc = ngx_http_ai_json_parse(&sub, body.data, body.len);
    if (rc != NGX_OK) {
        return rc;
    }

    v = ngx_http_ai_json_member(&sub, 0, "include_usage");

    if (ngx_http_ai_json_type(&sub, v) == NGX_HTTP_AI_JSON_TRUE) {
        return NGX_DECLINED;
    }

    if (ngx_array_init(&slices, pool, 4, sizeof(ngx_str_t)) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_str_set(&set.name, "include_usage");
    ngx_str_set(&set.value, "true");
    set.mode = NGX_HTTP_AI_PATCH_SET;

    rc = ngx_http_ai_patch(pool, &sub, &body, &set, 1, &slices, &len);
    if (rc != NGX_OK) {
        return rc;
    }

    p = ngx_pnalloc(pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    op->value.data = p;
    op->value.len = len;

    s = slices.elts;

    for (i = 0; i < slices.nelts; i++) {
        p = ngx_cpymem(p, s[i].data, s[i].len);
    }

    return NGX_OK;
}
