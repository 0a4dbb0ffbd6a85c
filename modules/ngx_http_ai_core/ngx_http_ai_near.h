
/*
 * Copyright (C) nginx AI gateway authors
 */


/* names that resemble another one, for messages; plain C */


#ifndef _NGX_HTTP_AI_NEAR_H_INCLUDED_
#define _NGX_HTTP_AI_NEAR_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/* best match of a list of names, or NULL */
ngx_str_t *ngx_http_ai_near(ngx_str_t *name, ngx_str_t *names, ngx_uint_t n);

/* the same as ", did you mean "x"?"; empty when there is none */
ngx_str_t ngx_http_ai_near_text(ngx_pool_t *pool, ngx_str_t *name,
    ngx_str_t *names, ngx_uint_t n);

/* likeness, less is closer; NGX_MAX_UINT32_VALUE: none */
ngx_uint_t ngx_http_ai_near_score(ngx_str_t *name, ngx_str_t *other);


#endif /* _NGX_HTTP_AI_NEAR_H_INCLUDED_ */
