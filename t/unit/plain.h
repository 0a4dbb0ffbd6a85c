
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The plain form of a chat, and the same in the long way: decoded, and looked
 * through for what the decoder has left out.
 */


#ifndef _PLAIN_H_INCLUDED_
#define _PLAIN_H_INCLUDED_


#include "ngx_http_ai_dialect.h"
#include "ngx_http_ai_cache_member.h"
#include "ngx_http_ai_cache_pivot.h"
#include "ngx_http_ai_cache_plain.h"


/* of what is in the pivot and nothing else: NGX_OK */

static ngx_int_t
plain_long_way(ngx_pool_t *pool, ngx_http_ai_json_t *j, ngx_str_t *form,
    ngx_uint_t *zero)
{
    ngx_http_ai_codec_t        codec;
    ngx_http_ai_request_t      req;
    ngx_http_ai_cache_walk_t   w;
    ngx_http_ai_cache_canon_t  c;

    ngx_memzero(&codec, sizeof(codec));
    codec.pool = pool;

    if (ngx_http_ai_dialect_openai.decode_request(&codec, j, &req) != NGX_OK) {
        return NGX_DECLINED;
    }

    ngx_memzero(&w, sizeof(w));
    w.pool = pool;
    w.json = j;

    if (ngx_http_ai_cache_walk(&w, NGX_HTTP_AI_CACHE_O_CHAT) != NGX_OK
        || w.extra)
    {
        return NGX_DECLINED;
    }

    if (ngx_http_ai_cache_canon_init(&c, pool, 0) != NGX_OK) {
        abort();
    }

    ngx_http_ai_cache_pivot(&c, j, &req);

    form->data = c.out.start;
    form->len = c.out.last - c.out.start;
    *zero = w.zero;

    return c.out.failed ? NGX_ERROR : NGX_OK;
}


/* 1: it is plain, and both are the same; 0: it is not plain; -1: wrong */

static int
plain_check(ngx_pool_t *pool, ngx_http_ai_json_t *j)
{
    size_t                     len;
    ngx_str_t                  form;
    ngx_uint_t                 zero, other;
    ngx_http_ai_cache_canon_t  c;

    if (ngx_http_ai_cache_canon_init(&c, pool, 0) != NGX_OK) {
        abort();
    }

    ngx_http_ai_cache_canon_count(&c, 1000);
    len = c.out.last - c.out.start;

    if (ngx_http_ai_cache_plain(&c, j, &zero) != NGX_OK) {
        return (c.out.last == c.out.start + len) ? 0 : -1;
    }

    if (plain_long_way(pool, j, &form, &other) != NGX_OK
        || zero != other
        || c.out.last - c.out.start - len != form.len
        || ngx_memcmp(c.out.start + len, form.data, form.len) != 0)
    {
        return -1;
    }

    return 1;
}


#endif /* _PLAIN_H_INCLUDED_ */
