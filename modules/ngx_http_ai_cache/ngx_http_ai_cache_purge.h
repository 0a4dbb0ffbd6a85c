
/*
 * Copyright (C) nginx AI gateway authors
 */


#ifndef _NGX_HTTP_AI_CACHE_PURGE_H_INCLUDED_
#define _NGX_HTTP_AI_CACHE_PURGE_H_INCLUDED_


#include "ngx_http_ai_cache_tiers.h"


/* an "ai_cache_purge" */

typedef struct {
    ngx_str_t                    name;
    ngx_http_ai_cache_zone_t    *zone;        /* after postconfiguration */
    ngx_http_ai_cache_zones_t   *zones;
    u_char                      *file;
    ngx_uint_t                   line;
} ngx_http_ai_cache_purge_conf_t;


/* what a JSON object says of a purge */

typedef struct {
    ngx_http_ai_cache_rule_t     rule;        /* time: of "before", or 0 */
    ngx_str_t                    zone;
    ngx_str_t                    value;       /* of the rule, unescaped */
} ngx_http_ai_cache_purge_t;


/* live: a record of live data.  NGX_OK; NGX_DECLINED, with *error in the pool
 * of j; NGX_ERROR: no memory */
ngx_int_t ngx_http_ai_cache_purge_read(ngx_http_ai_json_t *j, ngx_uint_t live,
    ngx_http_ai_cache_purge_t *purge, ngx_str_t *error);

extern ngx_str_t  ngx_http_ai_cache_rule_names[];


/* in postconfiguration */
ngx_int_t ngx_http_ai_cache_purges_init(ngx_conf_t *cf,
    ngx_http_ai_cache_zones_t *zones);

/* brings what has been purged from where it is said to where it is kept */
void ngx_http_ai_cache_purges_tick(ngx_http_ai_cache_zones_t *zones,
    ngx_http_ai_cache_zone_t *zone);


#endif /* _NGX_HTTP_AI_CACHE_PURGE_H_INCLUDED_ */
