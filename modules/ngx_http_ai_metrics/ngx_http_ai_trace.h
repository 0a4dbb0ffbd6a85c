
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Traces: the trace context of each request, its spans when it has ended, and
 * their way to a collector.
 */


#ifndef _NGX_HTTP_AI_TRACE_H_INCLUDED_
#define _NGX_HTTP_AI_TRACE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_ai_core.h"
#include "ngx_http_ai_conf.h"
#include "ngx_http_ai_otlp.h"
#include "ngx_http_ai_traceparent.h"


/* attempts of a request that have a span of their own */
#define NGX_HTTP_AI_TRACE_ATTEMPTS  16


typedef struct ngx_http_ai_exporter_s  ngx_http_ai_exporter_t;


/* counters of all workers */

typedef struct {
    ngx_atomic_t               sent;
    ngx_atomic_t               dropped;       /* the queue was full */
    ngx_atomic_t               failed;        /* the collector did not take
                                                 them */
} ngx_http_ai_trace_sh_t;


typedef struct {
    const ngx_http_ai_api_t   *api;
    ngx_array_t                exporters;     /* ngx_http_ai_exporter_t * */
    ngx_http_ai_trace_sh_t    *sh;
} ngx_http_ai_trace_main_conf_t;


typedef struct {
    ngx_str_t                  name;
    ngx_http_complex_value_t  *value;
    ngx_uint_t                 list;          /* with commas between */
} ngx_http_ai_trace_attribute_t;


typedef struct {
    ngx_http_ai_exporter_t    *exporter;      /* NULL: off */
    uint64_t                   sample;        /* see ..._trace_sampled() */
    size_t                     content;       /* bytes of prompts and of
                                                 answers; 0: none */
    ngx_flag_t                 parent;        /* its flag decides */
    ngx_flag_t                 propagate;
    ngx_array_t               *attributes;
    unsigned                   set:1;         /* ai_trace was there */
} ngx_http_ai_trace_loc_conf_t;


/* of a request: ctx->trace */

typedef struct {
    uint64_t                   high;          /* of the trace's id */
    uint64_t                   low;
    uint64_t                   parent;        /* 0: none was given */
    uint64_t                   span;
    uint64_t                   attempts[NGX_HTTP_AI_TRACE_ATTEMPTS];
    ngx_str_t                  state;         /* tracestate */
    u_char                     trace[NGX_HTTP_AI_TRACE_ID];   /* in hex */
    unsigned                   sampled:1;
} ngx_http_ai_trace_t;


/* ngx_http_ai_trace_module.c */

/* the trace of a request, begun when it has none; NULL: no memory */
ngx_http_ai_trace_t *ngx_http_ai_trace_get(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);

/* are there spans of such requests? */
ngx_uint_t ngx_http_ai_trace_exported(ngx_http_request_t *r);


/* ngx_http_ai_trace_conf.c */

char *ngx_http_ai_trace_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_ai_trace_attribute(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


/* ngx_http_ai_trace_span.c */

/* what all spans of a batch have in common, before the first one */
void ngx_http_ai_trace_resource(ngx_http_ai_otlp_t *w, ngx_str_t *service);

/* spans of a request that has ended; returns how many */
ngx_uint_t ngx_http_ai_trace_spans(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_trace_t *t,
    ngx_http_ai_trace_loc_conf_t *tlcf, ngx_http_ai_otlp_t *w);


/* ngx_http_ai_trace_export.c */

typedef struct {
    ngx_str_t                  url;
    ngx_str_t                  headers;       /* lines with CRLF */
    ngx_str_t                  service;
    ngx_uint_t                 batch;         /* spans */
    size_t                     queue;         /* bytes, of a worker */
    ngx_msec_t                 flush;
    ngx_msec_t                 timeout;
    ngx_str_t                  tls_ca;
    ngx_uint_t                 tls_verify;
    const ngx_http_ai_otlp_encoding_t  *encoding;
} ngx_http_ai_exporter_conf_t;

/* NULL after an [emerg] */
ngx_http_ai_exporter_t *ngx_http_ai_exporter_create(ngx_conf_t *cf,
    ngx_http_ai_trace_main_conf_t *tmcf, ngx_http_ai_exporter_conf_t *conf);

/*
 * Where the next spans are to be written, behind what is there; they are then
 * added.  NULL: there is no room, n spans are dropped and counted.
 */
ngx_http_ai_otlp_t *ngx_http_ai_exporter_begin(ngx_http_ai_exporter_t *e,
    ngx_uint_t n);
void ngx_http_ai_exporter_add(ngx_http_ai_exporter_t *e, ngx_uint_t n);


extern ngx_module_t  ngx_http_ai_trace_module;


#endif /* _NGX_HTTP_AI_TRACE_H_INCLUDED_ */
