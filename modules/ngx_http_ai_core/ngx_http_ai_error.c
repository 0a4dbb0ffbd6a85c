
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Errors in the client's dialect: those that the gateway makes, and by a
 * filter those that nginx makes in a location of the gateway (413, 502, ...).
 */


#include "ngx_http_ai_core_module.h"


static ngx_int_t ngx_http_ai_error_header_filter(ngx_http_request_t *r);
static ngx_int_t ngx_http_ai_error_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_int_t ngx_http_ai_error_default(ngx_http_request_t *r,
    ngx_uint_t status, ngx_http_ai_error_t *err);
static ngx_buf_t *ngx_http_ai_error_body(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_error_t *err, ngx_uint_t same);
static void ngx_http_ai_error_content(ngx_http_request_t *r, off_t length);
static ngx_http_ai_err_e ngx_http_ai_error_class(ngx_uint_t status);


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_next_body_filter;


ngx_int_t
ngx_http_ai_send_error(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_error_t *err, int64_t retry_after, ngx_uint_t same)
{
    u_char       *p;
    ngx_int_t     rc;
    ngx_str_t     value;
    ngx_buf_t    *b;
    ngx_chain_t   out;

    if (err->status < 400) {
        err->status = ngx_http_ai_err_status(err->class);
    }

    ctx->error = err->class;

    if (ngx_http_discard_request_body(r) != NGX_OK) {
        r->keepalive = 0;
    }

    b = ngx_http_ai_error_body(r, ctx, err, same);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->headers_out.status = err->status;
    ngx_http_ai_error_content(r, b->last - b->pos);

    if (retry_after >= 0) {
        p = ngx_pnalloc(r->pool, 2 * NGX_INT64_LEN);
        if (p == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        value.data = p;
        value.len = ngx_sprintf(p, "%L", ngx_http_ai_max((retry_after + 999)
                                                         / 1000, 1))
                    - p;

        if (ngx_http_ai_header_add(&r->headers_out.headers, "Retry-After",
                                   &value)
            == NULL)
        {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        p += NGX_INT64_LEN;

        value.data = p;
        value.len = ngx_sprintf(p, "%L", retry_after) - p;

        if (ngx_http_ai_header_add(&r->headers_out.headers, "retry-after-ms",
                                   &value)
            == NULL)
        {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

    } else if (ctx->attempts > 1
               && (err->status >= 500 || err->status == 429))
    {
        /* the gateway has used its retries, clients must not multiply them */

        ngx_str_set(&value, "false");

        if (ngx_http_ai_header_add(&r->headers_out.headers, "x-should-retry",
                                   &value)
            == NULL)
        {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    if (ngx_http_ai_add_headers(r, ctx) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->answered = 1;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}


ngx_int_t
ngx_http_ai_refuse(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_error_t *err)
{
    if (ctx->refusal == NULL) {
        ctx->refusal = ngx_palloc(r->pool, sizeof(ngx_http_ai_error_t));
        if (ctx->refusal == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    if (err->status < 400) {
        err->status = ngx_http_ai_err_status(err->class);
    }

    *ctx->refusal = *err;

    return err->status;
}


ngx_int_t
ngx_http_ai_add_headers(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    ngx_str_t                       value;
    ngx_uint_t                      i;
    ngx_list_t                     *headers;
    ngx_http_ai_hook_pt            *hook;
    ngx_http_ai_core_main_conf_t   *amcf;

    headers = &r->headers_out.headers;

    if (ngx_http_ai_header_add(headers, "x-request-id", &ctx->request_id)
        == NULL)
    {
        return NGX_ERROR;
    }

    /* where its client libraries look; the provider's own is better */

    if (ctx->dialect == &ngx_http_ai_dialect_anthropic
        && ngx_http_ai_list_find(headers, "request-id",
                                 sizeof("request-id") - 1)
           == NULL
        && ngx_http_ai_header_add(headers, "request-id", &ctx->request_id)
           == NULL)
    {
        return NGX_ERROR;
    }

    if (ctx->model.len
        && ngx_http_ai_header_add(headers, "x-ai-model", &ctx->model) == NULL)
    {
        return NGX_ERROR;
    }

    if (ctx->provider.len
        && ngx_http_ai_header_add(headers, "x-ai-provider", &ctx->provider)
           == NULL)
    {
        return NGX_ERROR;
    }

    if (ctx->attempts) {
        value.data = ngx_pnalloc(r->pool, NGX_INT_T_LEN);
        if (value.data == NULL) {
            return NGX_ERROR;
        }

        value.len = ngx_sprintf(value.data, "%ui", ctx->attempts)
                    - value.data;

        if (ngx_http_ai_header_add(headers, "x-ai-attempts", &value) == NULL) {
            return NGX_ERROR;
        }
    }

    amcf = ngx_http_get_module_main_conf(r, ngx_http_ai_core_module);
    hook = amcf->header_hooks.elts;

    for (i = 0; i < amcf->header_hooks.nelts; i++) {
        if (hook[i](r, ctx) == NGX_ERROR) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_buf_t *
ngx_http_ai_error_body(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_error_t *err, ngx_uint_t same)
{
    ngx_buf_t          *b;
    ngx_http_ai_out_t   out;

    if (err->request_id.len == 0) {
        err->request_id = ctx->request_id;
    }

    if (ngx_http_ai_out_init(&out, r->pool, 512) != NGX_OK) {
        return NULL;
    }

    ctx->dialect->encode_error(&out, err, same);

    if (out.failed) {
        return NULL;
    }

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NULL;
    }

    b->start = out.start;
    b->pos = out.start;
    b->last = out.last;
    b->end = out.end;
    b->memory = 1;
    b->last_buf = 1;
    b->last_in_chain = 1;

    return b;
}


static void
ngx_http_ai_error_content(ngx_http_request_t *r, off_t length)
{
    ngx_http_clear_content_length(r);
    ngx_http_clear_accept_ranges(r);
    ngx_http_clear_last_modified(r);
    ngx_http_clear_etag(r);

    r->headers_out.content_length_n = length;
    ngx_str_set(&r->headers_out.content_type, "application/json");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;
    ngx_str_null(&r->headers_out.charset);
}


static ngx_int_t
ngx_http_ai_error_header_filter(ngx_http_request_t *r)
{
    ngx_buf_t                    *b;
    ngx_uint_t                    status;
    ngx_chain_t                  *cl;
    ngx_http_ai_ctx_t            *ctx;
    ngx_http_ai_error_t           err;
    ngx_http_ai_core_loc_conf_t  *alcf;

    if (r->err_status < 400 || r != r->main) {
        return ngx_http_next_header_filter(r);
    }

    alcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_core_module);

    if (!alcf->enable) {
        return ngx_http_next_header_filter(r);
    }

    ctx = ngx_http_ai_get_ctx(r);

    if (ctx == NULL) {
        ctx = ngx_http_ai_create_ctx(r);
        if (ctx == NULL) {
            return NGX_ERROR;
        }
    }

    if (ctx->answered || ctx->error_out) {
        return ngx_http_next_header_filter(r);
    }

    status = r->err_status;

    if (ctx->refusal && ctx->refusal->status == status) {
        err = *ctx->refusal;

    } else if (ngx_http_ai_error_default(r, status, &err) != NGX_OK) {
        return NGX_ERROR;
    }

    b = ngx_http_ai_error_body(r, ctx, &err, 0);
    cl = ngx_alloc_chain_link(r->pool);

    if (b == NULL || cl == NULL) {
        return NGX_ERROR;
    }

    cl->buf = b;
    cl->next = NULL;

    ctx->error = err.class;
    ctx->error_out = cl;

    ngx_http_ai_error_content(r, b->last - b->pos);

    if (ngx_http_ai_add_headers(r, ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_next_header_filter(r);
}


static ngx_int_t
ngx_http_ai_error_default(ngx_http_request_t *r, ngx_uint_t status,
    ngx_http_ai_error_t *err)
{
    ngx_memzero(err, sizeof(ngx_http_ai_error_t));

    err->class = ngx_http_ai_error_class(status);
    err->status = status;

    if (status == NGX_HTTP_REQUEST_ENTITY_TOO_LARGE) {
        ngx_str_set(&err->message, "the request body is too large "
                                   "(client_max_body_size)");
        return NGX_OK;
    }

    err->message.data = ngx_pnalloc(r->pool, 64);
    if (err->message.data == NULL) {
        return NGX_ERROR;
    }

    err->message.len = ngx_sprintf(err->message.data, "the request was "
                                   "refused with status %ui", status)
                       - err->message.data;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_error_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_chain_t        *cl;
    ngx_http_ai_ctx_t  *ctx;

    if (r->err_status < 400 || r != r->main || in == NULL) {
        return ngx_http_next_body_filter(r, in);
    }

    ctx = ngx_http_ai_get_ctx(r);

    if (ctx == NULL || ctx->error_out == NULL) {
        return ngx_http_next_body_filter(r, in);
    }

    /* nginx's page is taken as written, ours goes out instead of it */

    for (cl = in; cl; cl = cl->next) {
        cl->buf->pos = cl->buf->last;
        cl->buf->file_pos = cl->buf->file_last;
    }

    if (ctx->error_body) {
        return NGX_OK;
    }

    ctx->error_body = 1;

    return ngx_http_next_body_filter(r, ctx->error_out);
}


static ngx_http_ai_err_e
ngx_http_ai_error_class(ngx_uint_t status)
{
    switch (status) {

    case NGX_HTTP_UNAUTHORIZED:
        return NGX_HTTP_AI_ERR_AUTH;

    case NGX_HTTP_FORBIDDEN:
        return NGX_HTTP_AI_ERR_PERMISSION;

    case NGX_HTTP_NOT_FOUND:
        return NGX_HTTP_AI_ERR_NOT_FOUND;

    case NGX_HTTP_NOT_ALLOWED:
        return NGX_HTTP_AI_ERR_METHOD;

    case NGX_HTTP_REQUEST_TIME_OUT:
    case NGX_HTTP_GATEWAY_TIME_OUT:
        return NGX_HTTP_AI_ERR_TIMEOUT;

    case NGX_HTTP_REQUEST_ENTITY_TOO_LARGE:
    case NGX_HTTP_REQUEST_URI_TOO_LARGE:
        return NGX_HTTP_AI_ERR_TOO_LARGE;

    case NGX_HTTP_TOO_MANY_REQUESTS:
        return NGX_HTTP_AI_ERR_RATE_LIMIT;

    case NGX_HTTP_SERVICE_UNAVAILABLE:
        return NGX_HTTP_AI_ERR_OVERLOADED;

    default:
        return (status < 500) ? NGX_HTTP_AI_ERR_INVALID_REQUEST
                              : NGX_HTTP_AI_ERR_SERVER;
    }
}


ngx_int_t
ngx_http_ai_error_filter_init(ngx_conf_t *cf)
{
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_ai_error_header_filter;

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_ai_error_body_filter;

    return NGX_OK;
}
