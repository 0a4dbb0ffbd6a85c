
/*
 * Copyright (C) nginx AI gateway authors
 */


/* plain C, private to the key */


#ifndef _NGX_HTTP_AI_CACHE_PIVOT_H_INCLUDED_
#define _NGX_HTTP_AI_CACHE_PIVOT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_json.h"
#include "ngx_http_ai_pivot.h"
#include "ngx_http_ai_cache_canon.h"


/*
 * Writes all of a request that can change its answer.  "j" is the tree it was
 * decoded from, in which its JSON is looked for.
 */
void ngx_http_ai_cache_pivot(ngx_http_ai_cache_canon_t *c,
    ngx_http_ai_json_t *j, ngx_http_ai_request_t *req);


/* the same in pieces: all turns, then the rest */

typedef struct {
    ngx_http_ai_cache_canon_t *canon;
    ngx_http_ai_json_t        *json;          /* of the body */
    ngx_http_ai_json_t         text;          /* of a text that holds JSON */
} ngx_http_ai_cache_pivot_t;


void ngx_http_ai_cache_pivot_init(ngx_http_ai_cache_pivot_t *p,
    ngx_http_ai_cache_canon_t *c, ngx_http_ai_json_t *j);
void ngx_http_ai_cache_pivot_turn(ngx_http_ai_cache_pivot_t *p,
    ngx_http_ai_turn_t *turn);
void ngx_http_ai_cache_pivot_rest(ngx_http_ai_cache_pivot_t *p,
    ngx_http_ai_request_t *req);


#endif /* _NGX_HTTP_AI_CACHE_PIVOT_H_INCLUDED_ */
