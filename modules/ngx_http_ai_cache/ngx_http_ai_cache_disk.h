
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * A zone's directory: one file for an answer, <directory>/<xx>/<id in hex>,
 * and "purges" with what has been purged.  Files are written under another
 * name and renamed.  nginx's cache manager keeps the size within its bound.
 */


#ifndef _NGX_HTTP_AI_CACHE_DISK_H_INCLUDED_
#define _NGX_HTTP_AI_CACHE_DISK_H_INCLUDED_


#include "ngx_http_ai_cache_tiers.h"


/* from the directive's handler */
ngx_int_t ngx_http_ai_cache_disk_add(ngx_conf_t *cf,
    ngx_http_ai_cache_zone_t *zone);

/* the zone's memory is new, or its directory is: in the master */
void ngx_http_ai_cache_disk_begin(ngx_http_ai_cache_zone_t *zone,
    ngx_log_t *log);

/* what waits to be written is written by stop() */
void ngx_http_ai_cache_disk_start(ngx_http_ai_cache_zone_t *zone);
void ngx_http_ai_cache_disk_stop(ngx_http_ai_cache_zone_t *zone);

/* as ngx_http_ai_cache_lookup() */
ngx_int_t ngx_http_ai_cache_disk_read(ngx_http_ai_cache_zone_t *zone,
    u_char *id, ngx_pool_t *pool, ngx_http_ai_cache_found_t *found,
    ngx_http_ai_cache_found_pt handler, void *data);

/* soon, from the event loop; the bytes are copied */
void ngx_http_ai_cache_disk_write(ngx_http_ai_cache_zone_t *zone,
    ngx_http_ai_cache_meta_t *meta, u_char *data, size_t size);

/* writes the rules if they have changed */
void ngx_http_ai_cache_disk_save(ngx_http_ai_cache_zone_t *zone,
    ngx_log_t *log);


#endif /* _NGX_HTTP_AI_CACHE_DISK_H_INCLUDED_ */
