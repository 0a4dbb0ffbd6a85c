
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * What a provider may make at most, where limits leave less than the client
 * allows: its max_tokens is lowered, never raised.
 */


#include "ngx_http_ai_router_exec.h"


/* tokens that any model can be asked for; beyond it a max_tokens that nobody
 * wrote might be refused */
#define NGX_HTTP_AI_CAP_DEFAULT  4096

/* the least that a budget of thinking may be */
#define NGX_HTTP_AI_CAP_THINKING  1024


static ngx_http_ai_patch_op_t *ngx_http_ai_cap_op(ngx_http_ai_patch_op_t *ops,
    ngx_uint_t *n, ngx_str_t *name, ngx_uint_t create);
static ngx_int_t ngx_http_ai_cap_set(ngx_http_ai_attempt_t *a,
    ngx_http_ai_patch_op_t *op, const char *before, int64_t value,
    const char *behind);
static ngx_int_t ngx_http_ai_cap_thinking(ngx_http_ai_attempt_t *a,
    ngx_http_ai_json_t *j, ngx_http_ai_patch_op_t *ops, ngx_uint_t *n,
    int64_t cap);


static ngx_str_t  ngx_http_ai_cap_names[] = {
    ngx_string("max_tokens"),
    ngx_string("max_completion_tokens"),
    ngx_null_string
};


ngx_int_t
ngx_http_ai_build_cap(ngx_http_ai_attempt_t *a, ngx_http_ai_json_t *j,
    ngx_http_ai_patch_op_t *ops, ngx_uint_t *n)
{
    int64_t                  cap, value, most;
    ngx_str_t               *name, text;
    ngx_uint_t               node, found, lowered;
    ngx_http_ai_ctx_t       *ctx;
    ngx_http_ai_patch_op_t  *op;

    ctx = a->exec->ctx;

    if (ctx->output_cap < 0) {
        return NGX_OK;
    }

    cap = ctx->output_cap;

    if (a->resume) {
        /* it has made a part of it before */
        ngx_http_ai_answer_counted(a);
        cap -= ngx_http_ai_tokens_round(a->exec->counted);
        cap = ngx_max(cap, 1);
    }

    found = 0;
    lowered = 0;

    for (name = ngx_http_ai_cap_names; name->len; name++) {
        node = ngx_http_ai_json_get(j, 0, (char *) name->data, name->len);
        op = ngx_http_ai_cap_op(ops, n, name, 0);

        if (op && (node == NGX_HTTP_AI_JSON_NONE
                   || op->mode == NGX_HTTP_AI_PATCH_SET))
        {
            text = op->value;

        } else if (ngx_http_ai_json_type(j, node) != NGX_HTTP_AI_JSON_NULL) {
            text = ngx_http_ai_json_raw(j, node);

        } else {
            continue;
        }

        found = 1;

        if (ngx_http_ai_json_fixed(&text, 0, &value) == NGX_OK
            && value <= cap)
        {
            continue;
        }

        op = ngx_http_ai_cap_op(ops, n, name, 1);

        if (ngx_http_ai_cap_set(a, op, "", cap, "") != NGX_OK) {
            return NGX_ERROR;
        }

        lowered = 1;
    }

    if (!found) {
        most = a->provider->max_output ? (int64_t) a->provider->max_output
                                       : NGX_HTTP_AI_CAP_DEFAULT;

        if (cap >= most) {
            return NGX_OK;
        }

        name = ngx_http_ai_cap_names;

        if (ctx->op == NGX_HTTP_AI_OP_CHAT
            && (ngx_http_ai_str_is(&a->provider->vendor, "openai")
                || ngx_http_ai_str_is(&a->provider->vendor, "azure")))
        {
            /* models that reason take no other */
            name++;
        }

        op = ngx_http_ai_cap_op(ops, n, name, 1);

        if (ngx_http_ai_cap_set(a, op, "", cap, "") != NGX_OK) {
            return NGX_ERROR;
        }

        lowered = 1;
    }

    return lowered ? ngx_http_ai_cap_thinking(a, j, ops, n, cap) : NGX_OK;
}


static ngx_http_ai_patch_op_t *
ngx_http_ai_cap_op(ngx_http_ai_patch_op_t *ops, ngx_uint_t *n,
    ngx_str_t *name, ngx_uint_t create)
{
    ngx_uint_t  i;

    for (i = 0; i < *n; i++) {
        if (ops[i].name.len == name->len
            && ngx_memcmp(ops[i].name.data, name->data, name->len) == 0)
        {
            return &ops[i];
        }
    }

    if (!create) {
        return NULL;
    }

    (*n)++;
    ops[i].name = *name;

    return &ops[i];
}


static ngx_int_t
ngx_http_ai_cap_set(ngx_http_ai_attempt_t *a, ngx_http_ai_patch_op_t *op,
    const char *before, int64_t value, const char *behind)
{
    size_t   len;
    u_char  *p;

    len = ngx_strlen(before) + NGX_INT64_LEN + ngx_strlen(behind);

    p = ngx_pnalloc(a->exec->request->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    op->mode = NGX_HTTP_AI_PATCH_SET;
    op->value.data = p;
    op->value.len = ngx_snprintf(p, len, "%s%L%s", before, value, behind) - p;

    return NGX_OK;
}


/* Anthropic's budget of thinking must be below max_tokens, and 1024 at least:
 * half of it, or there is no thinking */

static ngx_int_t
ngx_http_ai_cap_thinking(ngx_http_ai_attempt_t *a, ngx_http_ai_json_t *j,
    ngx_http_ai_patch_op_t *ops, ngx_uint_t *n, int64_t cap)
{
    int64_t                  budget;
    ngx_str_t                text;
    ngx_uint_t               node;
    ngx_http_ai_json_t       thinking;
    ngx_http_ai_patch_op_t  *op;

    static ngx_str_t         name = ngx_string("thinking");

    node = ngx_http_ai_json_member(j, 0, "thinking");

    if (!ngx_http_ai_str_is(&a->provider->dialect->name, "anthropic")
        || ngx_http_ai_json_type(j, node) != NGX_HTTP_AI_JSON_OBJECT)
    {
        return NGX_OK;
    }

    text = ngx_http_ai_json_value(j, node);

    ngx_memzero(&thinking, sizeof(ngx_http_ai_json_t));
    thinking.pool = a->exec->request->pool;

    if (ngx_http_ai_json_parse(&thinking, text.data, text.len) != NGX_OK) {
        return NGX_ERROR;
    }

    node = ngx_http_ai_json_member(&thinking, 0, "budget_tokens");

    if (node == NGX_HTTP_AI_JSON_NONE
        || ngx_http_ai_json_int(&thinking, node, &budget) != NGX_OK
        || budget < cap)
    {
        return NGX_OK;
    }

    op = ngx_http_ai_cap_op(ops, n, &name, 1);

    if (cap > NGX_HTTP_AI_CAP_THINKING) {
        return ngx_http_ai_cap_set(a, op,
                                   "{\"type\":\"enabled\",\"budget_tokens\":",
                                   ngx_max(cap / 2, NGX_HTTP_AI_CAP_THINKING),
                                   "}");
    }

    op->mode = NGX_HTTP_AI_PATCH_SET;
    ngx_str_set(&op->value, "{\"type\":\"disabled\"}");

    return NGX_OK;
}
