
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Figures that modules show when they are asked for them: the state of
 * breakers, limits, caches, live data, Redis.  A module registers a collector
 * with api->add_collector(); it is called in a worker, at a scrape, and shows
 * what all workers share.  It must be done in a millisecond: sums of a zone,
 * not each of a million keys.
 */


#ifndef _NGX_HTTP_AI_SAMPLES_H_INCLUDED_
#define _NGX_HTTP_AI_SAMPLES_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


typedef enum {
    NGX_HTTP_AI_SAMPLES_COUNTER = 0,
    NGX_HTTP_AI_SAMPLES_GAUGE,
    NGX_HTTP_AI_SAMPLES_INFO          /* a gauge of 1 with labels */
} ngx_http_ai_samples_e;


typedef struct {
    const char                *name;
    ngx_str_t                  value;         /* any bytes */
} ngx_http_ai_label_t;


typedef struct ngx_http_ai_samples_s  ngx_http_ai_samples_t;

struct ngx_http_ai_samples_s {
    void                      *data;          /* of whom it is made for */

    /*
     * Begins a family: its samples follow until the next one begins.  name:
     * "nginx_ai_..." in base units by Prometheus' rules, without the "_total"
     * of counters.  One family comes from one module only.
     */
    void                     (*family)(ngx_http_ai_samples_t *s,
                                       ngx_http_ai_samples_e type,
                                       const char *name, const char *help);

    /* a sample: value / 10^scale */
    void                     (*sample)(ngx_http_ai_samples_t *s,
                                       ngx_http_ai_label_t *labels,
                                       ngx_uint_t nlabels, int64_t value,
                                       ngx_uint_t scale);
};


typedef void (*ngx_http_ai_collect_pt)(void *data, ngx_http_ai_samples_t *s);


#endif /* _NGX_HTTP_AI_SAMPLES_H_INCLUDED_ */
