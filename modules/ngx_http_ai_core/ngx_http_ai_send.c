
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_core.h"
#include "ngx_http_ai_send.h"


ngx_int_t
ngx_http_ai_send(ngx_http_request_t *r, ngx_uint_t status, ngx_str_t *type,
    u_char *start, u_char *last)
{
    ngx_int_t     rc;
    ngx_buf_t    *b;
    ngx_chain_t   cl;

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b->pos = start;
    b->last = last;
    b->memory = 1;
    b->last_buf = (r == r->main);
    b->last_in_chain = 1;

    r->headers_out.status = status;
    r->headers_out.content_length_n = last - start;
    r->headers_out.content_type = *type;
    r->headers_out.content_type_len = type->len;
    r->headers_out.content_type_lowcase = NULL;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    cl.buf = b;
    cl.next = NULL;

    return ngx_http_output_filter(r, &cl);
}


ngx_int_t
ngx_http_ai_send_json(ngx_http_request_t *r, ngx_uint_t status,
    ngx_http_ai_out_t *out)
{
    static ngx_str_t  type = ngx_string("application/json");

    if (out->failed) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_ai_send(r, status, &type, out->start, out->last);
}


ngx_int_t
ngx_http_ai_send_state(ngx_http_request_t *r, ngx_uint_t status,
    ngx_http_ai_out_t *out)
{
    static ngx_str_t  value = ngx_string("no-store");

    if (ngx_http_ai_header_add(&r->headers_out.headers, "Cache-Control",
                               &value)
        == NULL)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_ai_send_json(r, status, out);
}
