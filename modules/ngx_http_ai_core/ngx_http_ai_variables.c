
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_core_module.h"
#include "ngx_http_ai_conf.h"


static ngx_int_t ngx_http_ai_str_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_ai_tokens_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_ai_state_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


typedef enum {
    NGX_HTTP_AI_STATE_OPERATION = 0,
    NGX_HTTP_AI_STATE_STREAM,
    NGX_HTTP_AI_STATE_ATTEMPTS,
    NGX_HTTP_AI_STATE_FALLBACK,
    NGX_HTTP_AI_STATE_FINISH,
    NGX_HTTP_AI_STATE_ERROR,
    NGX_HTTP_AI_STATE_USAGE,
    NGX_HTTP_AI_STATE_TTFT,
    NGX_HTTP_AI_STATE_COST,
    NGX_HTTP_AI_STATE_PRICE
} ngx_http_ai_state_e;


typedef enum {
    NGX_HTTP_AI_TOKENS_INPUT = 0,
    NGX_HTTP_AI_TOKENS_OUTPUT,
    NGX_HTTP_AI_TOKENS_CACHED,
    NGX_HTTP_AI_TOKENS_REASONING
} ngx_http_ai_tokens_e;


static ngx_http_variable_t  ngx_http_ai_vars[] = {

    { ngx_string("ai_model"), NULL, ngx_http_ai_str_variable,
      offsetof(ngx_http_ai_ctx_t, model), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_request_model"), NULL, ngx_http_ai_str_variable,
      offsetof(ngx_http_ai_ctx_t, request_model),
      NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_provider"), NULL, ngx_http_ai_str_variable,
      offsetof(ngx_http_ai_ctx_t, provider), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_region"), NULL, ngx_http_ai_str_variable,
      offsetof(ngx_http_ai_ctx_t, region), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_target"), NULL, ngx_http_ai_str_variable,
      offsetof(ngx_http_ai_ctx_t, target), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_request_id"), NULL, ngx_http_ai_str_variable,
      offsetof(ngx_http_ai_ctx_t, request_id), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_operation"), NULL, ngx_http_ai_state_variable,
      NGX_HTTP_AI_STATE_OPERATION, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_stream"), NULL, ngx_http_ai_state_variable,
      NGX_HTTP_AI_STATE_STREAM, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_attempts"), NULL, ngx_http_ai_state_variable,
      NGX_HTTP_AI_STATE_ATTEMPTS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_fallback"), NULL, ngx_http_ai_state_variable,
      NGX_HTTP_AI_STATE_FALLBACK, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_finish_reason"), NULL, ngx_http_ai_state_variable,
      NGX_HTTP_AI_STATE_FINISH, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_error"), NULL, ngx_http_ai_state_variable,
      NGX_HTTP_AI_STATE_ERROR, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_usage_state"), NULL, ngx_http_ai_state_variable,
      NGX_HTTP_AI_STATE_USAGE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_ttft"), NULL, ngx_http_ai_state_variable,
      NGX_HTTP_AI_STATE_TTFT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_cost"), NULL, ngx_http_ai_state_variable,
      NGX_HTTP_AI_STATE_COST, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_price_version"), NULL, ngx_http_ai_state_variable,
      NGX_HTTP_AI_STATE_PRICE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_input_tokens"), NULL, ngx_http_ai_tokens_variable,
      NGX_HTTP_AI_TOKENS_INPUT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_output_tokens"), NULL, ngx_http_ai_tokens_variable,
      NGX_HTTP_AI_TOKENS_OUTPUT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_cached_tokens"), NULL, ngx_http_ai_tokens_variable,
      NGX_HTTP_AI_TOKENS_CACHED, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_reasoning_tokens"), NULL, ngx_http_ai_tokens_variable,
      NGX_HTTP_AI_TOKENS_REASONING, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


static void
ngx_http_ai_set_variable(ngx_http_variable_value_t *v, u_char *data,
    size_t len)
{
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->data = data;
    v->len = len;
}


static ngx_int_t
ngx_http_ai_str_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    ngx_str_t          *s;
    ngx_http_ai_ctx_t  *ctx;

    ctx = ngx_http_ai_get_ctx(r);

    if (ctx == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    s = (ngx_str_t *) ((char *) ctx + data);

    if (s->len == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    ngx_http_ai_set_variable(v, s->data, s->len);

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_tokens_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char             *p;
    int64_t             n;
    ngx_http_ai_ctx_t  *ctx;

    ctx = ngx_http_ai_get_ctx(r);

    if (ctx == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    switch ((ngx_http_ai_tokens_e) data) {

    case NGX_HTTP_AI_TOKENS_INPUT:
        n = ngx_http_ai_usage_input(&ctx->usage);
        break;

    case NGX_HTTP_AI_TOKENS_OUTPUT:
        n = ctx->usage.out;
        break;

    case NGX_HTTP_AI_TOKENS_CACHED:
        n = ctx->usage.cache_read;
        break;

    default: /* NGX_HTTP_AI_TOKENS_REASONING */
        n = ctx->usage.reasoning;
    }

    if (n < 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, NGX_INT64_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_http_ai_set_variable(v, p, ngx_sprintf(p, "%L", n) - p);

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_state_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char             *p;
    ngx_str_t          *s;
    ngx_http_ai_ctx_t  *ctx;

    ctx = ngx_http_ai_get_ctx(r);

    if (ctx == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    switch ((ngx_http_ai_state_e) data) {

    case NGX_HTTP_AI_STATE_OPERATION:
        s = ngx_http_ai_op_name(ctx->op);
        ngx_http_ai_set_variable(v, s->data, s->len);
        return NGX_OK;

    case NGX_HTTP_AI_STATE_STREAM:
        ngx_http_ai_set_variable(v, (u_char *) (ctx->stream ? "1" : "0"), 1);
        return NGX_OK;

    case NGX_HTTP_AI_STATE_FALLBACK:
        ngx_http_ai_set_variable(v, (u_char *) (ctx->fallback ? "1" : "0"), 1);
        return NGX_OK;

    case NGX_HTTP_AI_STATE_FINISH:

        if (ctx->finish == NGX_HTTP_AI_FINISH_NONE) {
            break;
        }

        s = ngx_http_ai_finish_name(ctx->finish);
        ngx_http_ai_set_variable(v, s->data, s->len);
        return NGX_OK;

    case NGX_HTTP_AI_STATE_ERROR:

        if (ctx->error == NGX_HTTP_AI_ERR_NONE) {
            break;
        }

        s = ngx_http_ai_err_name(ctx->error);
        ngx_http_ai_set_variable(v, s->data, s->len);
        return NGX_OK;

    case NGX_HTTP_AI_STATE_USAGE:
        s = ngx_http_ai_usage_name(ctx->usage_state);
        ngx_http_ai_set_variable(v, s->data, s->len);
        return NGX_OK;

    case NGX_HTTP_AI_STATE_ATTEMPTS:

        p = ngx_pnalloc(r->pool, NGX_INT_T_LEN);
        if (p == NULL) {
            return NGX_ERROR;
        }

        ngx_http_ai_set_variable(v, p,
                                 ngx_sprintf(p, "%ui", ctx->attempts) - p);
        return NGX_OK;

    case NGX_HTTP_AI_STATE_TTFT:

        if (ctx->ttft < 0) {
            break;
        }

        p = ngx_pnalloc(r->pool, NGX_TIME_T_LEN + 4);
        if (p == NULL) {
            return NGX_ERROR;
        }

        /* seconds with milliseconds, as $request_time */

        ngx_http_ai_set_variable(v, p,
                                 ngx_sprintf(p, "%T.%03M",
                                             (time_t) ctx->ttft / 1000,
                                             (ngx_msec_t) ctx->ttft % 1000)
                                 - p);
        return NGX_OK;

    case NGX_HTTP_AI_STATE_PRICE:

        if (ctx->price_version.len == 0) {
            break;
        }

        ngx_http_ai_set_variable(v, ctx->price_version.data,
                                 ctx->price_version.len);
        return NGX_OK;

    case NGX_HTTP_AI_STATE_COST:

        if (ctx->cost < 0) {
            break;
        }

        p = ngx_pnalloc(r->pool, NGX_HTTP_AI_DOLLARS_LEN);
        if (p == NULL) {
            return NGX_ERROR;
        }

        ngx_http_ai_set_variable(v, p, ngx_http_ai_dollars(p, ctx->cost) - p);
        return NGX_OK;
    }

    v->not_found = 1;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_add_variables(ngx_conf_t *cf)
{
    return ngx_http_ai_conf_variables(cf, ngx_http_ai_vars);
}
