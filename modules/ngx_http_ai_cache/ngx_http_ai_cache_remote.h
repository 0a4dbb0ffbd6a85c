
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * A zone in Redis: "nginx_ai:cache:<zone>:{<id in hex>}" are answers, in the
 * form of files, and "nginx_ai:cache:<zone>:{purges}" is what has been purged,
 * a sorted set of "<kind>:<hash>" by time.
 */


#ifndef _NGX_HTTP_AI_CACHE_REMOTE_H_INCLUDED_
#define _NGX_HTTP_AI_CACHE_REMOTE_H_INCLUDED_


#include "ngx_http_ai_cache_tiers.h"


/* in postconfiguration */
ngx_int_t ngx_http_ai_cache_remote_init(ngx_conf_t *cf,
    ngx_http_ai_cache_zone_t *zone);

/*
 * NGX_AGAIN: the handler will be called; NGX_DECLINED: Redis is not to be
 * asked now, or what it says cannot be trusted as its purges are not known;
 * NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_ai_cache_remote_get(ngx_http_ai_cache_zone_t *zone,
    u_char *id, ngx_pool_t *pool, ngx_http_ai_cache_found_t *found,
    ngx_http_ai_cache_found_pt handler, void *data);

void ngx_http_ai_cache_remote_put(ngx_http_ai_cache_zone_t *zone,
    ngx_http_ai_cache_meta_t *meta, u_char *data, size_t size);

/* tells Redis of purges and asks for those of others, when it is time */
void ngx_http_ai_cache_remote_sync(ngx_http_ai_cache_zone_t *zone);


#endif /* _NGX_HTTP_AI_CACHE_REMOTE_H_INCLUDED_ */
