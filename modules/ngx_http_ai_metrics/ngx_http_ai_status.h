
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The status page: ngx_http_ai_status_page.c is the page as it is sent, made
 * of the files in "page/" by page/make.pl; the rest is what it shows.
 */


#ifndef _NGX_HTTP_AI_STATUS_H_INCLUDED_
#define _NGX_HTTP_AI_STATUS_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_ai_core.h"
#include "ngx_http_ai_conf.h"
#include "ngx_http_ai_metrics.h"


/* of the JSON; see docs/status.md */
#define NGX_HTTP_AI_STATUS_VERSION   1

#define NGX_HTTP_AI_STATUS_RING      64
#define NGX_HTTP_AI_STATUS_MODEL     64
#define NGX_HTTP_AI_STATUS_PROVIDER  40
#define NGX_HTTP_AI_STATUS_ID        128


/* lists of recent requests, so that many of one do not push out another */

typedef enum {
    NGX_HTTP_AI_STATUS_FAILED = 0,    /* by the provider, or the gateway */
    NGX_HTTP_AI_STATUS_REFUSED,       /* the client's mistake, or a limit */
    NGX_HTTP_AI_STATUS_SLOW,
    NGX_HTTP_AI_STATUS_RECENT_MAX
} ngx_http_ai_status_recent_e;


typedef struct {
    int64_t                    time;          /* ms since 1970 */
    ngx_msec_int_t             duration;
    ngx_msec_int_t             ttft;          /* -1: none */
    ngx_http_ai_err_e          error;
    uint16_t                   status;
    uint16_t                   attempts;
    uint8_t                    model_len;
    uint8_t                    provider_len;
    uint8_t                    id_len;
    u_char                     model[NGX_HTTP_AI_STATUS_MODEL];
    u_char                     provider[NGX_HTTP_AI_STATUS_PROVIDER];
    u_char                     id[NGX_HTTP_AI_STATUS_ID];
} ngx_http_ai_status_recent_t;


typedef struct {
    ngx_uint_t                   n;           /* of all that ever came */
    ngx_http_ai_status_recent_t  entries[NGX_HTTP_AI_STATUS_RING];
} ngx_http_ai_status_ring_t;


typedef struct {
    time_t                     started;
    time_t                     loaded;        /* the configuration */
    ngx_uint_t                 loads;
    ngx_http_ai_status_ring_t  rings[NGX_HTTP_AI_STATUS_RECENT_MAX];
} ngx_http_ai_status_shared_t;


typedef struct {
    const ngx_http_ai_api_t      *api;
    ngx_slab_pool_t              *shpool;
    ngx_http_ai_status_shared_t  *shared;
    ngx_msec_t                    slow;       /* the least of all locations */
    ngx_uint_t                    used;       /* there is an ai_status */
} ngx_http_ai_status_main_conf_t;


typedef struct {
    ngx_msec_t                 slow;
    ngx_uint_t                 enable;
} ngx_http_ai_status_loc_conf_t;


/* sums that are being made for an answer; see ngx_http_ai_status_series.c */

typedef struct ngx_http_ai_status_row_s  ngx_http_ai_status_row_t;

typedef struct {
    ngx_http_ai_status_row_t        **hash;
    ngx_uint_t                        n;
} ngx_http_ai_status_rows_t;


typedef struct {
    ngx_http_request_t               *request;
    ngx_pool_t                       *pool;
    ngx_http_ai_metrics_main_conf_t  *mcf;
    ngx_event_t                       event;
    ngx_uint_t                        kind;
    ngx_http_ai_series_t             *series;     /* the next one */
    ngx_http_ai_status_rows_t         models;
    ngx_http_ai_status_rows_t         providers;
    unsigned                          walking:1;
} ngx_http_ai_status_sums_t;


/* ngx_http_ai_status_recent.c */

ngx_int_t ngx_http_ai_status_recent_init(ngx_conf_t *cf,
    ngx_http_ai_status_main_conf_t *mcf);

/* the last requests of a list, newest first, n at most; their number */
ngx_uint_t ngx_http_ai_status_recent(ngx_http_ai_status_main_conf_t *mcf,
    ngx_http_ai_status_recent_e list, ngx_http_ai_status_recent_t *entries,
    ngx_uint_t n);

/* ngx_http_ai_status_json.c */

ngx_int_t ngx_http_ai_status_json(ngx_http_ai_status_sums_t *sums,
    ngx_http_ai_out_t *out);

/* "name": with the comma before it, unless it is the first of its object */
void ngx_http_ai_status_name(ngx_http_ai_out_t *out, const char *name);
void ngx_http_ai_status_int(ngx_http_ai_out_t *out, const char *name,
    int64_t n);
void ngx_http_ai_status_text(ngx_http_ai_out_t *out, const char *name,
    u_char *data, size_t len);

/* n / 10^scale */
void ngx_http_ai_status_scaled(ngx_http_ai_out_t *out, int64_t n,
    ngx_uint_t scale);

/* ngx_http_ai_status_series.c */

/* some more of the sums; NGX_OK, NGX_AGAIN or NGX_ERROR */
ngx_int_t ngx_http_ai_status_sum(ngx_http_ai_status_sums_t *sums);

ngx_int_t ngx_http_ai_status_series(ngx_http_ai_status_sums_t *sums,
    ngx_http_ai_out_t *out);

/* ngx_http_ai_status_page.c */

extern const ngx_str_t  ngx_http_ai_status_page;
extern const ngx_str_t  ngx_http_ai_status_policy;


extern ngx_module_t  ngx_http_ai_status_module;


#endif /* _NGX_HTTP_AI_STATUS_H_INCLUDED_ */
