
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * An answer outside of memory, in a file or in Redis: a head with what it is,
 * and its bytes.  What is cut, changed, of another version or of a machine
 * with another byte order is not accepted.  Plain C.
 */


#ifndef _NGX_HTTP_AI_CACHE_RECORD_H_INCLUDED_
#define _NGX_HTTP_AI_CACHE_RECORD_H_INCLUDED_


#include "ngx_http_ai_cache_store.h"


/* a checksum, made piece by piece; finds damage, not malice */

typedef struct {
    uint64_t                   lanes[4];
    uint64_t                   size;
    u_char                     rest[32];
} ngx_http_ai_cache_sum_t;


void ngx_http_ai_cache_sum_init(ngx_http_ai_cache_sum_t *sum);
void ngx_http_ai_cache_sum_add(ngx_http_ai_cache_sum_t *sum, u_char *data,
    size_t size);
uint64_t ngx_http_ai_cache_sum_end(ngx_http_ai_cache_sum_t *sum);

uint64_t ngx_http_ai_cache_sum(u_char *data, size_t size);


typedef struct {
    u_char                     magic[8];
    uint64_t                   sum;           /* of meta */
    ngx_http_ai_cache_meta_t   meta;
} ngx_http_ai_cache_head_t;


/* meta->size and meta->sum are those of the bytes */
void ngx_http_ai_cache_head_write(ngx_http_ai_cache_head_t *head,
    ngx_http_ai_cache_meta_t *meta);

/* of a whole record; NGX_OK, with data a slice; NGX_DECLINED: it is no good */
ngx_int_t ngx_http_ai_cache_record_read(u_char *p, size_t len, u_char *id,
    ngx_http_ai_cache_meta_t *meta, ngx_str_t *data);


#endif /* _NGX_HTTP_AI_CACHE_RECORD_H_INCLUDED_ */
