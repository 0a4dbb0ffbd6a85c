
/*
 * Copyright (C) nginx AI gateway authors
 */


/* Prometheus' text format 0.0.4 and OpenMetrics 1.0; plain C */


#ifndef _NGX_HTTP_AI_METRICS_TEXT_H_INCLUDED_
#define _NGX_HTTP_AI_METRICS_TEXT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_json.h"
#include "ngx_http_ai_metrics_store.h"


typedef enum {
    NGX_HTTP_AI_TEXT_COUNTER = 0,
    NGX_HTTP_AI_TEXT_GAUGE,
    NGX_HTTP_AI_TEXT_INFO,
    NGX_HTTP_AI_TEXT_HISTOGRAM
} ngx_http_ai_text_type_e;


typedef struct {
    ngx_http_ai_out_t          out;
    const char                *name;          /* of the family that was begun,
                                                 without a suffix */
    size_t                     len;
    ngx_http_ai_text_type_e    type;
    unsigned                   openmetrics:1;
} ngx_http_ai_text_t;


/* from the value of "Accept": 1 for OpenMetrics */
ngx_uint_t ngx_http_ai_text_accept(ngx_str_t *accept);

/* name: without "_total" of counters; "_info" of INFO may be there or not */
void ngx_http_ai_text_family(ngx_http_ai_text_t *t,
    ngx_http_ai_text_type_e type, const char *name, const char *help);

/* name="value", behind a comma if it is not the first; invalid UTF-8 becomes
 * U+FFFD */
void ngx_http_ai_text_label(ngx_http_ai_out_t *labels, const char *name,
    ngx_str_t *value);

/* value / 10^scale.  labels: text of labels, may be empty; name, text: one
 * more label, which needs no escape, or NULL */
void ngx_http_ai_text_sample(ngx_http_ai_text_t *t, ngx_str_t *labels,
    const char *name, ngx_str_t *text, int64_t value, ngx_uint_t scale);

/* exemplars: one for each bucket, or NULL */
void ngx_http_ai_text_histogram(ngx_http_ai_text_t *t, ngx_str_t *labels,
    const uint64_t *cells, const ngx_http_ai_bounds_t *b, ngx_uint_t scale,
    ngx_http_ai_exemplar_t *exemplars);

void ngx_http_ai_text_end(ngx_http_ai_text_t *t);

/* value / 10^scale, exactly, without zeroes behind the point at its end */
void ngx_http_ai_text_number(ngx_http_ai_out_t *out, int64_t value,
    ngx_uint_t scale);


#endif /* _NGX_HTTP_AI_METRICS_TEXT_H_INCLUDED_ */
