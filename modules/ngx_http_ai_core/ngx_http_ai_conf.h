
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * What the directives of all modules have in common: blocks with
 * sub-directives, messages that name a near match, secrets, URLs.  Keeps no
 * state: linked into each module that needs it.
 */


#ifndef _NGX_HTTP_AI_CONF_H_INCLUDED_
#define _NGX_HTTP_AI_CONF_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_ai_near.h"


#define NGX_HTTP_AI_SECRET_MAX  16384         /* bytes of a secret's file */


typedef struct {
    ngx_str_t                  name;
    char                    *(*handler)(ngx_conf_t *cf, void *ctx);
    ngx_uint_t                 min;           /* arguments */
    ngx_uint_t                 max;
    ngx_uint_t                 multi;         /* may be repeated */
} ngx_http_ai_sub_t;


typedef struct {
    const char                *block;         /* "provider", "model" */
    ngx_str_t                 *name;
    ngx_http_ai_sub_t         *subs;          /* ends with an empty name */
    ngx_uint_t                 seen;          /* bits of subs */
    void                      *ctx;
} ngx_http_ai_block_t;


/* reads "{ ... }" with the sub-directives of block->subs */
char *ngx_http_ai_conf_block(ngx_conf_t *cf, ngx_http_ai_block_t *block);

/* [emerg] about a directive that was read before; returns NGX_CONF_ERROR */
char *ngx_http_ai_conf_error(ngx_conf_t *cf, u_char *file, ngx_uint_t line,
    const char *fmt, ...);

/* the value of argument "name=value"; 0: arg is another one */
ngx_uint_t ngx_http_ai_conf_arg(ngx_str_t *arg, const char *name,
    ngx_str_t *value);

char *ngx_http_ai_conf_complex(ngx_conf_t *cf, ngx_str_t *text,
    ngx_http_complex_value_t **value);

/* of a text in which "$" means nothing; NULL: no memory */
ngx_http_complex_value_t *ngx_http_ai_conf_literal(ngx_conf_t *cf,
    ngx_str_t *text);

/* adds the variables of a list that ends with an empty name; NGX_ERROR */
ngx_int_t ngx_http_ai_conf_variables(ngx_conf_t *cf,
    ngx_http_variable_t *vars);

/* letters, digits, "-", "_" and "."? */
ngx_uint_t ngx_http_ai_conf_name(ngx_str_t *text, size_t max);

/* "100", "128k", "5m": decimal; NGX_ERROR */
ngx_int_t ngx_http_ai_conf_count(ngx_str_t *text);

/*
 * A secret that is not written in the configuration: "env:NAME" or
 * "file:PATH", without the white space around it.  who and name are for
 * messages: provider "x": "key env:" expects ...  NGX_DECLINED: text is
 * neither; NGX_ERROR after an [emerg].
 */
ngx_int_t ngx_http_ai_conf_secret(ngx_conf_t *cf, ngx_str_t *who,
    const char *name, ngx_str_t *text, ngx_str_t *secret);


typedef struct {
    ngx_str_t                  host;          /* Host header: with the port if
                                                 not the default one */
    ngx_str_t                  hostname;      /* lower case, without brackets
                                                 and port, NUL at the end */
    ngx_str_t                  path;          /* slice: the rest, or "" */
    in_port_t                  port;
    unsigned                   ssl:1;
    unsigned                   no_port:1;     /* none was written */
} ngx_http_ai_url_t;


/* http:// or https:// URL without a fragment; NULL or what is wrong */
const char *ngx_http_ai_url_parse(ngx_pool_t *pool, ngx_str_t *text,
    ngx_http_ai_url_t *url);


#endif /* _NGX_HTTP_AI_CONF_H_INCLUDED_ */
