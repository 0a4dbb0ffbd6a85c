
/*
 * Copyright (C) nginx AI gateway authors
 */


/* private to the core: what its nginx files share */


#ifndef _NGX_HTTP_AI_CORE_MODULE_H_INCLUDED_
#define _NGX_HTTP_AI_CORE_MODULE_H_INCLUDED_


#include "ngx_http_ai_core.h"


typedef struct {
    ngx_http_ai_core_main_head_t   head;          /* must stay first */

    ngx_array_t                    hooks[NGX_HTTP_AI_STAGE_MAX];
    ngx_array_t                    permits;
    ngx_array_t                    shared;        /* ngx_http_ai_shared_t */
    ngx_array_t                    observers;
    ngx_array_t                    header_hooks;
    ngx_array_t                    attempt_hooks;
    ngx_array_t                    collectors;

    ngx_str_t                      zone_name;
    size_t                         zone_size;
    ngx_shm_zone_t                *zone;

    size_t                         memory_retain;

    ngx_str_t                      data_dir;      /* ai_data; empty: none */
    ngx_msec_t                     data_interval;
    size_t                         data_size;
    ngx_array_t                    data;          /* ngx_http_ai_data_t * */

    /* ngx_http_ai_net.c, ngx_http_ai_fetch.c */
    ngx_resolver_t                *resolver;
    ngx_msec_t                     resolver_timeout;
    ngx_uint_t                     fetchers;
    ngx_queue_t                    fetches;       /* running, of a worker */
    ngx_queue_t                    kept;          /* with a connection */
    ngx_uint_t                     nfetches;
    void                          *store;         /* X509_STORE of the
                                                     system's certificates */
    ngx_array_t                    redises;   /* ngx_http_ai_redis_t * */
    unsigned                       configured:1;  /* http {} was read */
    unsigned                       resolved:1;    /* resolver is final */
} ngx_http_ai_core_main_conf_t;


typedef struct {
    const char                    *name;
    ngx_http_ai_shared_pt          init;
    void                          *conf;
} ngx_http_ai_shared_t;


typedef struct {
    ngx_http_ai_collect_pt         handler;
    void                          *data;
} ngx_http_ai_collector_t;


typedef struct {
    ngx_flag_t                     enable;
    ngx_http_ai_limits_t           limits;
    ngx_uint_t                     whole;         /* see parse_whole() */
} ngx_http_ai_core_loc_conf_t;


/* ngx_http_ai_core_module.c: as api->add_shared() */

ngx_int_t ngx_http_ai_add_shared(ngx_conf_t *cf, const char *name,
    ngx_http_ai_shared_pt init, void *conf);

/* ngx_http_ai_request.c */

/* the request's ctx, or NULL; finds it again after an internal redirect */
ngx_http_ai_ctx_t *ngx_http_ai_get_ctx(ngx_http_request_t *r);

/* the same, made when there is none */
ngx_http_ai_ctx_t *ngx_http_ai_create_ctx(ngx_http_request_t *r);

ngx_int_t ngx_http_ai_precontent_handler(ngx_http_request_t *r);
void ngx_http_ai_resume(ngx_http_request_t *r);
ngx_uint_t ngx_http_ai_client_closed(ngx_http_request_t *r);
ngx_int_t ngx_http_ai_permit(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_route_t *route, ngx_http_ai_error_t *err);
ngx_int_t ngx_http_ai_parse_body(ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_error_t *err);

ngx_int_t ngx_http_ai_observe(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    uint64_t counted);

/* seeds the generator of request ids in a worker */
void ngx_http_ai_random_seed(void);
uint64_t ngx_http_ai_random(void);

/* ngx_http_ai_error.c */

ngx_int_t ngx_http_ai_send_error(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_error_t *err, int64_t retry_after,
    ngx_uint_t same);
ngx_int_t ngx_http_ai_refuse(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_error_t *err);
ngx_int_t ngx_http_ai_add_headers(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);
ngx_int_t ngx_http_ai_error_filter_init(ngx_conf_t *cf);

/* ngx_http_ai_estimate.c */

int64_t ngx_http_ai_input_estimate(ngx_http_ai_ctx_t *ctx);
int64_t ngx_http_ai_images(ngx_http_ai_ctx_t *ctx);

/* ngx_http_ai_redis_conf.c, ngx_http_ai_redis.c */

char *ngx_http_ai_redis_block(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
ngx_int_t ngx_http_ai_redis_postconfiguration(ngx_conf_t *cf);
void ngx_http_ai_redis_start(ngx_cycle_t *cycle,
    ngx_http_ai_core_main_conf_t *amcf);
void ngx_http_ai_redis_stop(ngx_cycle_t *cycle,
    ngx_http_ai_core_main_conf_t *amcf);

/* ngx_http_ai_core_samples.c */

void ngx_http_ai_core_samples(void *data, ngx_http_ai_samples_t *s);

/* ngx_http_ai_fetch.c */

void ngx_http_ai_fetch_init(ngx_http_ai_core_main_conf_t *amcf);
void ngx_http_ai_fetch_exit(ngx_http_ai_core_main_conf_t *amcf);

/* ngx_http_ai_variables.c */

ngx_int_t ngx_http_ai_add_variables(ngx_conf_t *cf);

/* ngx_http_ai_data.c */

char *ngx_http_ai_data_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
ngx_int_t ngx_http_ai_data_add_variables(ngx_conf_t *cf);
ngx_int_t ngx_http_ai_data_init_process(ngx_cycle_t *cycle);
void ngx_http_ai_data_exit_process(ngx_cycle_t *cycle);


extern ngx_module_t  ngx_http_ai_core_module;


#endif /* _NGX_HTTP_AI_CORE_MODULE_H_INCLUDED_ */
