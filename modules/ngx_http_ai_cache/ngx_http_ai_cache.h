
/*
 * Copyright (C) nginx AI gateway authors
 */


#ifndef _NGX_HTTP_AI_CACHE_H_INCLUDED_
#define _NGX_HTTP_AI_CACHE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_ai_core.h"
#include "ngx_http_ai_conf.h"


/* ai_cache_use_stale */

#define NGX_HTTP_AI_STALE_OFF       0x0001
#define NGX_HTTP_AI_STALE_ERROR     0x0002
#define NGX_HTTP_AI_STALE_TIMEOUT   0x0004
#define NGX_HTTP_AI_STALE_429       0x0008
#define NGX_HTTP_AI_STALE_5XX       0x0010
#define NGX_HTTP_AI_STALE_UPDATING  0x0020


typedef struct {
    ngx_str_t                  name;
    ngx_shm_zone_t            *shm_zone;
    size_t                     size;
    size_t                     max_size;      /* bytes of an entry */

    ngx_str_t                  disk;          /* path; empty: none */
    off_t                      disk_size;
    time_t                     inactive;      /* s, of files; 0: any time */

    ngx_str_t                  redis_name;    /* empty: none */

    void                      *store;         /* of the stores */

    u_char                    *file;
    ngx_uint_t                 line;
} ngx_http_ai_cache_zone_t;


/* one "ai_cache" */

typedef struct {
    ngx_str_t                  name;
    ngx_http_ai_cache_zone_t  *zone;

    ngx_http_complex_value_t  *ttl;
    ngx_http_complex_value_t  *scope;         /* NULL: global */
    ngx_http_complex_value_t  *filter;        /* if=; NULL: all */
    ngx_http_complex_value_t  *tag;
    ngx_http_complex_value_t  *vary;

    size_t                     literal;       /* bytes of scope that are not of
                                                 variables */
    ngx_uint_t                 ops;           /* bits of ngx_http_ai_op_e */
    time_t                     stale;
    size_t                     max_size;      /* 0: the zone's */
    ngx_msec_t                 pace;          /* 0: off */
    unsigned                   count:1;
    unsigned                   warned:1;      /* of an empty scope */

    u_char                    *file;
    ngx_uint_t                 line;
} ngx_http_ai_cache_use_t;


typedef struct ngx_http_ai_cache_loc_conf_s  ngx_http_ai_cache_loc_conf_t;

struct ngx_http_ai_cache_loc_conf_s {
    ngx_array_t               *own;           /* of ngx_http_ai_cache_use_t */
    ngx_array_t               *uses;          /* ... or those inherited */
    ngx_array_t               *bypass;
    ngx_array_t               *no_cache;

    ngx_flag_t                 any;
    ngx_flag_t                 lock;
    ngx_flag_t                 background;
    ngx_msec_t                 lock_timeout;
    ngx_uint_t                 use_stale;

    ngx_http_ai_cache_loc_conf_t
                              *parent;
    u_char                    *file;
    ngx_uint_t                 line;
    unsigned                   off:1;
    unsigned                   location:1;
    unsigned                   served:1;
};


typedef struct {
    const ngx_http_ai_api_t   *api;
    ngx_array_t                zones;     /* ngx_http_ai_cache_zone_t * */
    ngx_array_t                locations; /* ngx_http_ai_cache_loc_conf_t * */
    ngx_uint_t                 used;
} ngx_http_ai_cache_main_conf_t;


/* ngx_http_ai_cache_conf.c */

char *ngx_http_ai_cache_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_ai_cache(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

ngx_http_ai_cache_zone_t *ngx_http_ai_cache_zone_find(
    ngx_http_ai_cache_main_conf_t *cmcf, ngx_str_t *name);

/* ", did you mean ...", of the names of zones */
ngx_str_t ngx_http_ai_cache_zone_near(ngx_conf_t *cf,
    ngx_http_ai_cache_main_conf_t *cmcf, ngx_str_t *name);

/* after all of http{} was read */
ngx_int_t ngx_http_ai_cache_resolve(ngx_conf_t *cf,
    ngx_http_ai_cache_main_conf_t *cmcf);


/* ngx_http_ai_cache_hook.c */

ngx_int_t ngx_http_ai_cache_hook(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);


extern ngx_module_t  ngx_http_ai_cache_module;


#endif /* _NGX_HTTP_AI_CACHE_H_INCLUDED_ */
