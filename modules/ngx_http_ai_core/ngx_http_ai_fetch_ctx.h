
/*
 * Copyright (C) nginx AI gateway authors
 */


/* what ngx_http_ai_fetch.c, ..._answer.c and ..._idle.c share */


#ifndef _NGX_HTTP_AI_FETCH_CTX_H_INCLUDED_
#define _NGX_HTTP_AI_FETCH_CTX_H_INCLUDED_


#include "ngx_http_ai_core_module.h"
#include "ngx_http_ai_conf.h"


#define NGX_HTTP_AI_FETCH_ERROR    160


typedef enum {
    NGX_HTTP_AI_FETCH_LENGTH = 0,
    NGX_HTTP_AI_FETCH_CHUNKED,
    NGX_HTTP_AI_FETCH_EOF
} ngx_http_ai_fetch_body_e;


typedef enum {
    NGX_HTTP_AI_CHUNK_SIZE = 0,
    NGX_HTTP_AI_CHUNK_EXT,
    NGX_HTTP_AI_CHUNK_SIZE_LF,
    NGX_HTTP_AI_CHUNK_DATA,
    NGX_HTTP_AI_CHUNK_DATA_CR,
    NGX_HTTP_AI_CHUNK_DATA_LF,
    NGX_HTTP_AI_CHUNK_TRAILER,
    NGX_HTTP_AI_CHUNK_TRAILER_TEXT,
    NGX_HTTP_AI_CHUNK_TRAILER_LF
} ngx_http_ai_chunk_e;


struct ngx_http_ai_fetcher_s {
    ngx_http_ai_fetch_conf_t        conf;
    ngx_http_ai_url_t               url;
    ngx_http_ai_core_main_conf_t   *amcf;
#if (NGX_HTTP_SSL)
    ngx_ssl_t                      *ssl;      /* NULL: http only */
#endif

    /* of a worker */
    ngx_connection_t               *idle;     /* NULL: none is kept */
    ngx_queue_t                     queue;    /* of those who keep one */
};


typedef struct {
    ngx_http_ai_fetch_t             fetch;    /* must stay first */

    ngx_queue_t                     queue;
    ngx_pool_t                     *pool;
    ngx_log_t                      *log;
    ngx_http_ai_fetcher_t          *fetcher;
    ngx_http_ai_url_t               url;
    ngx_str_t                       text;     /* the URL, for the log */

    ngx_event_t                     start;    /* posted */
    ngx_event_t                     timer;    /* of all */
    ngx_event_t                     wait;     /* of one address */

    ngx_resolver_ctx_t             *resolving;
    ngx_array_t                     addrs;    /* of ngx_addr_t */
    ngx_uint_t                      next;
#if (NGX_HTTP_SSL)
    ngx_http_ai_tls_peer_t          tls;
#endif

    ngx_peer_connection_t           peer;
    ngx_buf_t                      *request;
    ngx_buf_t                       body;     /* the caller's, goes after it */
    ngx_chain_t                     chain[2]; /* both of them */
    ngx_chain_t                    *unsent;
    ngx_buf_t                      *in;
    ngx_buf_t                       out;      /* the answer's body */

    ngx_http_ai_fetch_body_e        framing;
    ngx_http_ai_chunk_e             chunk;
    off_t                           rest;     /* of the body or a chunk */
    size_t                          trailers;
    u_char                          error[NGX_HTTP_AI_FETCH_ERROR];

    unsigned                        connected:1;
    unsigned                        kept:1;   /* the connection is an old one,
                                                 nothing has been read yet */
    unsigned                        other:1;  /* of another URL */
    unsigned                        persistent:1;  /* by the answer */
    unsigned                        header:1; /* was read */
    unsigned                        chunk_digits:1;
    unsigned                        finished:1;
} ngx_http_ai_fetch_ctx_t;


/*
 * Takes what is in x->in.  NGX_AGAIN: more is needed; NGX_DONE: all is here;
 * NGX_ERROR: it has failed and x is gone.
 */
ngx_int_t ngx_http_ai_fetch_input(ngx_http_ai_fetch_ctx_t *x);

/* ends it with an error; x is gone */
void ngx_http_ai_fetch_fail(ngx_http_ai_fetch_ctx_t *x, ngx_err_t err,
    const char *fmt, ...);

void ngx_http_ai_fetch_close_connection(ngx_connection_t *c);
void ngx_http_ai_fetch_dummy_handler(ngx_event_t *ev);

/* ngx_http_ai_fetch_idle.c */

/* x gets the connection that is kept, or NGX_DECLINED */
ngx_int_t ngx_http_ai_fetch_take(ngx_http_ai_fetch_ctx_t *x);

/* the connection of x, whose answer is whole, is kept if it may be */
void ngx_http_ai_fetch_keep(ngx_http_ai_fetch_ctx_t *x);

void ngx_http_ai_fetch_drop(ngx_http_ai_fetcher_t *fetcher);


#endif /* _NGX_HTTP_AI_FETCH_CTX_H_INCLUDED_ */
