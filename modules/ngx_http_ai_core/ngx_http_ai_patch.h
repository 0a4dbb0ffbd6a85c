
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Changes members of a JSON object in place: the result is a list of slices
 * of the original text and of new values, in order, ready to be chained.  All
 * other bytes stay as they came, with their order and white space, since
 * prompt caches of providers depend on them.
 */


#ifndef _NGX_HTTP_AI_PATCH_H_INCLUDED_
#define _NGX_HTTP_AI_PATCH_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_compat.h"
#include "ngx_http_ai_json.h"


typedef enum {
    NGX_HTTP_AI_PATCH_SET = 0,    /* replaces the value, the last one of
                                     duplicates, or appends the member */
    NGX_HTTP_AI_PATCH_DEFAULT,    /* appends the member if it is absent */
    NGX_HTTP_AI_PATCH_DELETE      /* removes all members of the name */
} ngx_http_ai_patch_e;


typedef struct {
    ngx_str_t                  name;      /* plain; no two alike in a list */
    ngx_str_t                  value;     /* json text; not for DELETE */
    ngx_http_ai_patch_e        mode;
} ngx_http_ai_patch_op_t;


/*
 * "j" is the parsed tree of "body" (any depth, shallow = 1 will do), which
 * must be an object.  "slices" (of ngx_str_t) is appended to; empty slices are
 * left out.  "len", if not NULL, is set to the total length.
 *
 * NGX_OK, NGX_DECLINED when the document is no object, NGX_ERROR when out of
 * memory.
 */
ngx_int_t ngx_http_ai_patch(ngx_pool_t *pool, ngx_http_ai_json_t *j,
    ngx_str_t *body, ngx_http_ai_patch_op_t *ops, ngx_uint_t nops,
    ngx_array_t *slices, size_t *len);

/*
 * Fills "op" so that "stream_options.include_usage" becomes true: the other
 * options of an existing object are kept, null or no member becomes a new one.
 *
 * NGX_OK, NGX_DECLINED when there is nothing to change (it is true already, or
 * the member is neither an object nor null, which is for the provider to
 * refuse), NGX_ERROR when out of memory.
 */
ngx_int_t ngx_http_ai_patch_stream_options(ngx_pool_t *pool,
    ngx_http_ai_json_t *j, ngx_http_ai_patch_op_t *op);


#endif /* _NGX_HTTP_AI_PATCH_H_INCLUDED_ */
