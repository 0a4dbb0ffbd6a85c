
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The key of a request: a hash of all that can change its answer.  Plain C.
 * docs/cache-key.md says what is in it; what is not is in the table of
 * ngx_http_ai_cache_member.c.
 *
 * It is SHA-256 where it leaves the zone's memory, for a disk or Redis.  Where
 * it does not it is a tag of 128 bits under a secret of the zone, and zeros,
 * which costs a twentieth: who does not know the secret cannot look for
 * requests of the same key.
 */


#ifndef _NGX_HTTP_AI_CACHE_KEY_H_INCLUDED_
#define _NGX_HTTP_AI_CACHE_KEY_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_json.h"
#include "ngx_http_ai_nh.h"
#include "ngx_http_ai_pivot.h"
#include "ngx_http_ai_dialect.h"


#define NGX_HTTP_AI_CACHE_ID_LEN   32

/* a longer request has no key: what hashes it would hold up others */

#define NGX_HTTP_AI_CACHE_KEY_MAX  (8 * 1024 * 1024)


typedef struct {
    ngx_http_ai_dialect_t     *dialect;       /* the client's */
    ngx_http_ai_op_e           op;            /* chat, completions,
                                                 embeddings, count_tokens */
    ngx_http_ai_json_t        *json;          /* the whole tree of the body */
    ngx_str_t                  model;         /* plain; aliases resolved */
    uint64_t                   plan;          /* of ctx->plan() */
    ngx_str_t                  scope;         /* plain; with whom the answer
                                                 may be shared */
    ngx_str_t                  vary;          /* plain; all else that changes
                                                 the answer: values of headers,
                                                 versions of policies */
    ngx_http_ai_nh_t          *nh;            /* of the zone; NULL: SHA-256 */
} ngx_http_ai_cache_ask_t;


typedef struct {
    u_char                     id[NGX_HTTP_AI_CACHE_ID_LEN];
    const char                *why;           /* of NGX_DECLINED */
    uint64_t                   scope;         /* hashes for purges, set by */
    uint64_t                   model;         /* ... whoever needs them */
    unsigned                   exact:1;       /* has members that no other
                                                 dialect can tell: an answer
                                                 for the same dialect and mode;
                                                 these are in the id then */
    unsigned                   deterministic:1;   /* temperature 0, or
                                                     embeddings */
} ngx_http_ai_cache_key_t;


/*
 * NGX_OK, NGX_DECLINED: it has none, key->why tells why (static), NGX_ERROR:
 * no memory.
 */
ngx_int_t ngx_http_ai_cache_key(ngx_pool_t *pool,
    ngx_http_ai_cache_ask_t *ask, ngx_http_ai_cache_key_t *key);

/*
 * Keys of all elements of "array", which is the "input" of embeddings, as if
 * each was asked for alone; keys[] has room for them.
 */
ngx_int_t ngx_http_ai_cache_key_inputs(ngx_pool_t *pool,
    ngx_http_ai_cache_ask_t *ask, ngx_uint_t array,
    ngx_http_ai_cache_key_t *keys);

/* the process ends: frees what keys were made with */
void ngx_http_ai_cache_key_exit(void);


#endif /* _NGX_HTTP_AI_CACHE_KEY_H_INCLUDED_ */
