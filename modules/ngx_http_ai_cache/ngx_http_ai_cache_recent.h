
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Keys that were made lately, found by the bytes of the request, so that one
 * that is repeated byte by byte is neither parsed as a whole nor brought into
 * one form again.  An entry is named by a tag of 128 bits of all that a key is
 * made of, under a secret of the worker.  Plain C.
 */


#ifndef _NGX_HTTP_AI_CACHE_RECENT_H_INCLUDED_
#define _NGX_HTTP_AI_CACHE_RECENT_H_INCLUDED_


#include "ngx_http_ai_cache_key.h"


/*
 * "body" is the text of ask->json, of which only the limits are read.  NGX_OK:
 * *key is set; NGX_DECLINED: it is not there, "tag" is its name; NGX_ABORT:
 * nothing is kept; NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_ai_cache_recent_find(ngx_pool_t *pool,
    ngx_http_ai_cache_ask_t *ask, ngx_str_t *body, uint64_t *tag,
    ngx_http_ai_cache_key_t *key);

/* after NGX_DECLINED */
void ngx_http_ai_cache_recent_keep(uint64_t *tag,
    ngx_http_ai_cache_key_t *key);

/* the process ends */
void ngx_http_ai_cache_recent_exit(void);


#endif /* _NGX_HTTP_AI_CACHE_RECENT_H_INCLUDED_ */
