
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * What a key is hashed of: bytes that are the same for the same value,
 * however it was spelled, and differ for others.  Each item begins with a tag
 * and tells its length or number of items before them, so that no sequence of
 * items is the beginning of another.  Plain C, private to the key.
 */


#ifndef _NGX_HTTP_AI_CACHE_CANON_H_INCLUDED_
#define _NGX_HTTP_AI_CACHE_CANON_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_json.h"


#define NGX_HTTP_AI_CACHE_ENTRIES  32


/* to be put in order by name; those of one name stay in theirs */

typedef struct {
    ngx_str_t                    name;
    uint32_t                     node;
} ngx_http_ai_cache_entry_t;


/* a growing array of these, used as a stack */

typedef struct {
    ngx_pool_t                  *pool;
    ngx_http_ai_cache_entry_t   *elts;
    ngx_uint_t                   nelts;
    ngx_uint_t                   nalloc;
    ngx_http_ai_cache_entry_t    first[NGX_HTTP_AI_CACHE_ENTRIES];
} ngx_http_ai_cache_entries_t;


typedef struct {
    ngx_http_ai_out_t            out;
    ngx_http_ai_cache_entries_t  sort;
} ngx_http_ai_cache_canon_t;


/* size: what is expected */
ngx_int_t ngx_http_ai_cache_canon_init(ngx_http_ai_cache_canon_t *c,
    ngx_pool_t *pool, size_t size);

/* gives back what is large */
void ngx_http_ai_cache_canon_free(ngx_http_ai_cache_canon_t *c);

/* errors are sticky: c->out.failed */

/* a length, a number of items */
void ngx_http_ai_cache_canon_count(ngx_http_ai_cache_canon_t *c, uint64_t n);

/* bytes as they are */
void ngx_http_ai_cache_canon_bytes(ngx_http_ai_cache_canon_t *c,
    ngx_str_t *bytes);

/* raw text of a JSON string, unescaped */
void ngx_http_ai_cache_canon_text(ngx_http_ai_cache_canon_t *c,
    ngx_str_t *raw);

/* the text of a JSON number */
void ngx_http_ai_cache_canon_number(ngx_http_ai_cache_canon_t *c,
    ngx_str_t *text);

/*
 * Unescapes raw text into dst, with room for raw->len bytes, and returns the
 * end.  *lossy: some of it cannot be told from another text then, what is
 * written is the raw text.
 */
u_char *ngx_http_ai_cache_unescape(u_char *dst, ngx_str_t *raw,
    ngx_uint_t *lossy);

/* any value; members of objects are sorted */
void ngx_http_ai_cache_canon_json(ngx_http_ai_cache_canon_t *c,
    ngx_http_ai_json_t *j, ngx_uint_t n);


void ngx_http_ai_cache_entries_init(ngx_http_ai_cache_entries_t *e,
    ngx_pool_t *pool);
ngx_http_ai_cache_entry_t *ngx_http_ai_cache_entries_push(
    ngx_http_ai_cache_entries_t *e);

/* those from "from" on */
ngx_int_t ngx_http_ai_cache_entries_sort(ngx_http_ai_cache_entries_t *e,
    ngx_uint_t from);


static ngx_inline void
ngx_http_ai_cache_canon_tag(ngx_http_ai_cache_canon_t *c, u_char tag)
{
    if (c->out.last == c->out.end
        && ngx_http_ai_out_grow(&c->out, 1) != NGX_OK)
    {
        return;
    }

    *c->out.last++ = tag;
}


#endif /* _NGX_HTTP_AI_CACHE_CANON_H_INCLUDED_ */
