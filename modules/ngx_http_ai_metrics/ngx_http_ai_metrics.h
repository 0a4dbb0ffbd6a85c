
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * What requests have come to, counted in memory that all workers share.
 *
 * To read it from another module of this library:
 *
 *     ngx_http_ai_metrics_enable(cf) in a directive's handler: counting is on;
 *
 *     mcf = ngx_http_get_module_main_conf(r, ngx_http_ai_metrics_module);
 *
 *     for (s = ngx_http_ai_metrics_first(mcf->store,
 *                                        NGX_HTTP_AI_METRICS_REQUEST);
 *          s;
 *          s = s->next)
 *     {
 *         ngx_http_ai_metrics_sum(mcf->store, s, &cells);
 *         ... s->names[0] is the model, cells.request.outcomes[] ...
 *     }
 *
 * and ngx_http_ai_metrics_callers_copy() for tenants and keys.  Names are
 * good UTF-8 without control characters.
 */


#ifndef _NGX_HTTP_AI_METRICS_H_INCLUDED_
#define _NGX_HTTP_AI_METRICS_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_ai_core.h"
#include "ngx_http_ai_conf.h"
#include "ngx_http_ai_metrics_store.h"


#define NGX_HTTP_AI_METRICS_CACHE  1024


/* what a worker has found, by the addresses of names that last */

typedef struct {
    u_char                        *names[2];
    ngx_uint_t                     op;
    ngx_http_ai_series_t          *series;
    ngx_http_ai_cells_t           *cells;     /* of the worker's shard */
    ngx_http_ai_cells_t           *sizes;     /* NULL: not counted */
} ngx_http_ai_metrics_found_t;


/* where a directive was read */

typedef struct {
    u_char                        *file;      /* NULL: it was not */
    ngx_uint_t                     line;
} ngx_http_ai_metrics_said_t;


typedef struct {
    const ngx_http_ai_api_t       *api;
    ngx_cycle_t                   *cycle;
    size_t                         zone_size;
    ngx_uint_t                     tenants;   /* most series; 0: none */
    ngx_uint_t                     keys;
    ngx_uint_t                     sizes;     /* of requests, in tokens */
    ngx_slab_pool_t               *shpool;
    ngx_http_ai_metrics_store_t   *store;     /* NULL: nothing is counted */
    ngx_http_ai_metrics_said_t     zone_said;
    ngx_http_ai_metrics_said_t     labels_said;
    ngx_http_ai_metrics_said_t     otel_said;

    /* of a worker */
    ngx_http_ai_metrics_process_t *process;
    ngx_uint_t                     shard;     /* not 0: its own */
    time_t                         looked;    /* ... for one */
    ngx_http_ai_metrics_found_t   *requests;
    ngx_http_ai_metrics_found_t   *attempts;
    ngx_http_ai_metrics_found_t   *models;
    ngx_http_ai_metrics_hint_t     hints[2][NGX_HTTP_AI_METRICS_HINTS];
    time_t                         complained;

    unsigned                       enabled:1;
} ngx_http_ai_metrics_main_conf_t;


typedef struct {
    ngx_flag_t                     otel;
    ngx_uint_t                     metrics;   /* the location has it */
} ngx_http_ai_metrics_loc_conf_t;


/* a tenant or a key, copied */

typedef struct {
    ngx_str_t                      name;
    ngx_http_ai_caller_cells_t     cells;
} ngx_http_ai_metrics_caller_t;


/* something shows the figures: they are to be counted */
void ngx_http_ai_metrics_enable(ngx_conf_t *cf);

/* of ngx_http_ai_metrics_caller_t, in the pool, at one moment; the first one
 * is "other".  NGX_ERROR: no memory */
ngx_int_t ngx_http_ai_metrics_callers_copy(
    ngx_http_ai_metrics_main_conf_t *mcf, ngx_http_ai_metrics_kind_e kind,
    ngx_pool_t *pool, ngx_array_t *callers);

ngx_str_t *ngx_http_ai_metrics_outcome_name(ngx_http_ai_outcome_e outcome);
ngx_str_t *ngx_http_ai_metrics_token_name(ngx_http_ai_token_e token);

/* ngx_http_ai_err_name(), "success" and "canceled" */
ngx_str_t *ngx_http_ai_metrics_result_name(ngx_uint_t result);


/* ngx_http_ai_metrics_zone.c */

ngx_int_t ngx_http_ai_metrics_zone(ngx_conf_t *cf,
    ngx_http_ai_metrics_main_conf_t *mcf);
void ngx_http_ai_metrics_start(ngx_http_ai_metrics_main_conf_t *mcf);
void ngx_http_ai_metrics_shard(ngx_http_ai_metrics_main_conf_t *mcf);
void ngx_http_ai_metrics_stop(ngx_http_ai_metrics_main_conf_t *mcf);

/* figures of the zone and of the workers */
void ngx_http_ai_metrics_collect(void *data, ngx_http_ai_samples_t *s);


/* ngx_http_ai_metrics_record.c: hooks */

ngx_int_t ngx_http_ai_metrics_begin(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);
ngx_int_t ngx_http_ai_metrics_settle(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);


/* ngx_http_ai_metrics_scrape.c */

ngx_int_t ngx_http_ai_metrics_handler(ngx_http_request_t *r);


extern ngx_module_t  ngx_http_ai_metrics_module;


#endif /* _NGX_HTTP_AI_METRICS_H_INCLUDED_ */
