
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Embeddings of several inputs in one request, each of which is cached by
 * itself: as the answer that a request for this input alone would get.  Plain
 * C.  The order of calls:
 *
 *     ngx_http_ai_cache_batch()          inputs and their keys
 *     ngx_http_ai_cache_batch_add()      for each that the caller has found
 *     ngx_http_ai_cache_batch_body()     the request for what misses
 *     ngx_http_ai_cache_batch_split()    the provider's answer, by inputs
 *     ngx_http_ai_cache_batch_merge()    the answer for the client
 */


#ifndef _NGX_HTTP_AI_CACHE_BATCH_H_INCLUDED_
#define _NGX_HTTP_AI_CACHE_BATCH_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_cache_key.h"


/* a request for more is not split: all of it is stored at once */

#define NGX_HTTP_AI_CACHE_BATCH_MAX  256


typedef struct {
    ngx_http_ai_cache_key_t    key;
    ngx_str_t                  input;     /* json, as it came */
    ngx_uint_t                 same;      /* the first input with this key,
                                             often itself: only that one is
                                             looked for, asked for, stored */
    ngx_str_t                  stored;    /* a whole answer for this input
                                             alone; data == NULL: it misses */
    ngx_str_t                  vector[2]; /* of it, before and behind the
                                             number in "index" */
    int64_t                    tokens;    /* of the input: "prompt_tokens" and
                                             "total_tokens"; -1: not told */
    int64_t                    total;
    unsigned                   fresh:1;   /* set by batch_split(): it is to be
                                             stored */
} ngx_http_ai_cache_input_t;


typedef struct {
    ngx_pool_t                *pool;
    ngx_str_t                  text;      /* json: the whole body */
    ngx_str_t                  array;     /* json: its "input" */
    ngx_http_ai_cache_input_t *inputs;
    ngx_uint_t                 ninputs;
    ngx_str_t                  usage;     /* json; the provider's figures for
                                             what it was asked for */
    unsigned                   asked:1;   /* batch_split() was called */
} ngx_http_ai_cache_batch_t;


/*
 * NGX_OK; NGX_DECLINED: there are not several inputs, or it is not to be
 * split (ngx_http_ai_cache_key() is for the whole request then); NGX_ERROR.
 */
ngx_int_t ngx_http_ai_cache_batch(ngx_pool_t *pool,
    ngx_http_ai_cache_ask_t *ask, ngx_http_ai_cache_batch_t *batch);

/* what was stored for input i; NGX_DECLINED: it is no answer, and misses */
ngx_int_t ngx_http_ai_cache_batch_add(ngx_http_ai_cache_batch_t *batch,
    ngx_uint_t i, ngx_str_t *stored);

/* inputs to be asked for: those that miss, each one once */
ngx_uint_t ngx_http_ai_cache_batch_missing(ngx_http_ai_cache_batch_t *batch);

/* the body with these inputs only, all else byte for byte */
ngx_int_t ngx_http_ai_cache_batch_body(ngx_http_ai_cache_batch_t *batch,
    ngx_str_t *body);

/*
 * The answer to that body, which must stay: sets all of the inputs that were
 * missing.  NGX_DECLINED: it is not an answer for just these inputs.
 */
ngx_int_t ngx_http_ai_cache_batch_split(ngx_http_ai_cache_batch_t *batch,
    ngx_str_t *answer);

/* the whole answer in order; none may miss */
ngx_int_t ngx_http_ai_cache_batch_merge(ngx_http_ai_cache_batch_t *batch,
    ngx_str_t *answer);


#endif /* _NGX_HTTP_AI_CACHE_BATCH_H_INCLUDED_ */
