
/*
 * Copyright (C) nginx AI gateway authors
 */


/* private: the table of what ai_metrics shows */


#ifndef _NGX_HTTP_AI_METRICS_FAMILIES_H_INCLUDED_
#define _NGX_HTTP_AI_METRICS_FAMILIES_H_INCLUDED_


#include "ngx_http_ai_metrics.h"
#include "ngx_http_ai_metrics_text.h"


#define NGX_HTTP_AI_FAMILY_ZERO  0x01         /* zeroes are shown */
#define NGX_HTTP_AI_FAMILY_OTEL  0x02         /* with "ai_metrics_otel" */

#define NGX_HTTP_AI_FAMILY_NO_EXEMPLARS  ((size_t) -1)


typedef struct {
    const char                   *name;       /* NULL: the end of the table */
    const char                   *help;
    ngx_http_ai_metrics_kind_e    kind;
    ngx_uint_t                    flags;
    size_t                        offset;     /* of its cells */

    /* counters: one for each value of a label, or one without; histograms:
     * the text of one more label, or NULL */
    const char                   *label;
    ngx_uint_t                    n;
    ngx_str_t                  *(*value)(ngx_uint_t i);

    /* histograms */
    const ngx_http_ai_bounds_t   *bounds;
    size_t                        exemplars;

    ngx_uint_t                    scale;
} ngx_http_ai_family_t;


extern const ngx_http_ai_family_t  ngx_http_ai_families[];


/* writes the labels of a series' names */
void ngx_http_ai_family_labels(ngx_http_ai_out_t *labels,
    ngx_http_ai_metrics_kind_e kind, ngx_str_t *names, ngx_uint_t otel);

/* the samples of one series */
void ngx_http_ai_family_samples(ngx_http_ai_text_t *t,
    const ngx_http_ai_family_t *f, ngx_str_t *labels, void *cells,
    ngx_http_ai_exemplars_t *exemplars);


#endif /* _NGX_HTTP_AI_METRICS_FAMILIES_H_INCLUDED_ */
