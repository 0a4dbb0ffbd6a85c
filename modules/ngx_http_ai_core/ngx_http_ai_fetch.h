
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * A small HTTP/1.1 client on nginx's event loop for what the gateway itself
 * asks for in the background: key sets, webhooks, trace collectors.  Nothing
 * of a client's request is needed.  URLs come from the configuration only; no
 * redirect is followed.
 */


#ifndef _NGX_HTTP_AI_FETCH_H_INCLUDED_
#define _NGX_HTTP_AI_FETCH_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


typedef struct ngx_http_ai_fetcher_s  ngx_http_ai_fetcher_t;
typedef struct ngx_http_ai_fetch_s    ngx_http_ai_fetch_t;


typedef struct {
    ngx_str_t                  url;           /* http:// or https:// */
    ngx_str_t                  tls_ca;        /* file; empty: the system's */
    ngx_str_t                  tls_name;      /* empty: the URL's host */
    ngx_uint_t                 tls_verify;
    ngx_msec_t                 timeout;       /* whole exchange, ms */
    ngx_msec_t                 idle;          /* how long a connection is kept
                                                 for the next one; 0: not */
    size_t                     max_size;      /* of the answer's body */
} ngx_http_ai_fetch_conf_t;


struct ngx_http_ai_fetch_s {
    /* set by the caller */
    ngx_str_t                  method;        /* empty: GET */
    ngx_str_t                  path;          /* empty: the URL's; must begin
                                                 with "/" */
    ngx_str_t                  headers;       /* whole lines with CRLF */
    ngx_str_t                  body;
    ngx_uint_t                 keep;          /* the body stays where it is
                                                 until the handler is called:
                                                 it is not copied */
    ngx_uint_t                 quiet;         /* details of a failure are not
                                                 logged, the handler does */
    void                     (*handler)(ngx_http_ai_fetch_t *f);
    void                      *data;

    /* for the handler, which is called exactly once; memory is the fetch's
     * and gone after the handler */
    ngx_uint_t                 status;        /* 0: no answer, see error */
    const char                *error;         /* "timed out", ... */
    ngx_str_t                  answer;
    time_t                     max_age;       /* of Cache-Control; -1 */
    time_t                     retry_after;   /* seconds; 0: not told */
};


/*
 * At configuration time: the URL, its TLS context.  NULL after an [emerg] with
 * the directive's file:line.
 */
ngx_http_ai_fetcher_t *ngx_http_ai_fetcher_create(ngx_conf_t *cf,
    ngx_http_ai_fetch_conf_t *conf);

/*
 * Starts an exchange in a worker (f and its texts are copied).  NGX_OK: the
 * handler will be called, never from inside this call; NGX_ERROR: it will not.
 * url, when not NULL, replaces the configured one (same TLS settings), for a
 * key set that discovery names; it must be https when the configured one is.
 * When the worker ends, running exchanges fail.
 *
 * With "idle" one connection is kept for each fetcher and worker.  What goes
 * over a kept one may come twice: it is sent again over a fresh one when the
 * connection ends before the first byte of an answer.
 */
ngx_int_t ngx_http_ai_fetch(ngx_http_ai_fetcher_t *fetcher, ngx_str_t *url,
    ngx_http_ai_fetch_t *f);


#endif /* _NGX_HTTP_AI_FETCH_H_INCLUDED_ */
