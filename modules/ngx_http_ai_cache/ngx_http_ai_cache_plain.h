
/*
 * Copyright (C) nginx AI gateway authors
 */


/* plain C, private to the key and its tests */


#ifndef _NGX_HTTP_AI_CACHE_PLAIN_H_INCLUDED_
#define _NGX_HTTP_AI_CACHE_PLAIN_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_json.h"
#include "ngx_http_ai_cache_canon.h"


/*
 * Of a chat in the dialect openai as most are, with messages that are one text
 * each and parameters that are numbers: writes what ngx_http_ai_cache_pivot()
 * would of the decoded request.  *zero: its temperature is 0.  NGX_DECLINED:
 * it has something else, which may be known as well, and nothing is written.
 */
ngx_int_t ngx_http_ai_cache_plain(ngx_http_ai_cache_canon_t *c,
    ngx_http_ai_json_t *j, ngx_uint_t *zero);


#endif /* _NGX_HTTP_AI_CACHE_PLAIN_H_INCLUDED_ */
