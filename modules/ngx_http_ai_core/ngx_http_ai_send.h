
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Whole answers of locations that are the gateway's own.  Keeps no state:
 * linked into each module that needs it.
 */


#ifndef _NGX_HTTP_AI_SEND_H_INCLUDED_
#define _NGX_HTTP_AI_SEND_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_ai_json.h"


/* header and body, which lives as long as the request; headers that the caller
 * has added go along.  Returns what to finalize with */
ngx_int_t ngx_http_ai_send(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *type, u_char *start, u_char *last);

/* the same of JSON; one that has failed is a 500 */
ngx_int_t ngx_http_ai_send_json(ngx_http_request_t *r, ngx_uint_t status,
    ngx_http_ai_out_t *out);

/* the same, and caches are told to keep nothing of it */
ngx_int_t ngx_http_ai_send_state(ngx_http_request_t *r, ngx_uint_t status,
    ngx_http_ai_out_t *out);


#endif /* _NGX_HTTP_AI_SEND_H_INCLUDED_ */
