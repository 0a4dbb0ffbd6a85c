
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_cache_canon.h"


#define NGX_HTTP_AI_CACHE_COUNT_LEN  10    /* bytes of a 64-bit count */
#define NGX_HTTP_AI_CACHE_INSERT     12    /* entries, sorted without memory */

/* digits of an exponent; numbers with more are compared as text */

#define NGX_HTTP_AI_CACHE_EXPONENT   9


static ngx_int_t ngx_http_ai_cache_canon_room(ngx_http_ai_cache_canon_t *c,
    size_t n);
static u_char *ngx_http_ai_cache_canon_put(u_char *p, uint64_t n);
static void ngx_http_ai_cache_canon_escaped(ngx_http_ai_cache_canon_t *c,
    ngx_str_t *raw);
static void ngx_http_ai_cache_canon_object(ngx_http_ai_cache_canon_t *c,
    ngx_http_ai_json_t *j, ngx_uint_t n);
static ngx_int_t ngx_http_ai_cache_entry_cmp(ngx_http_ai_cache_entry_t *one,
    ngx_http_ai_cache_entry_t *two);


ngx_int_t
ngx_http_ai_cache_canon_init(ngx_http_ai_cache_canon_t *c, ngx_pool_t *pool,
    size_t size)
{
    ngx_http_ai_cache_entries_init(&c->sort, pool);

    return ngx_http_ai_out_init(&c->out, pool, size);
}


void
ngx_http_ai_cache_canon_free(ngx_http_ai_cache_canon_t *c)
{
    if (c->out.start) {
        (void) ngx_pfree(c->out.pool, c->out.start);
    }

    if (c->sort.elts != c->sort.first) {
        (void) ngx_pfree(c->sort.pool, c->sort.elts);
    }
}


static ngx_int_t
ngx_http_ai_cache_canon_room(ngx_http_ai_cache_canon_t *c, size_t n)
{
    if ((size_t) (c->out.end - c->out.last) >= n) {
        return NGX_OK;
    }

    return ngx_http_ai_out_grow(&c->out, n);
}


/* seven bits a byte, the lowest first */

static u_char *
ngx_http_ai_cache_canon_put(u_char *p, uint64_t n)
{
    while (n >= 0x80) {
        *p++ = (u_char) (n | 0x80);
        n >>= 7;
    }

    *p++ = (u_char) n;

    return p;
}


void
ngx_http_ai_cache_canon_count(ngx_http_ai_cache_canon_t *c, uint64_t n)
{
    if (ngx_http_ai_cache_canon_room(c, NGX_HTTP_AI_CACHE_COUNT_LEN)
        == NGX_OK)
    {
        c->out.last = ngx_http_ai_cache_canon_put(c->out.last, n);
    }
}


void
ngx_http_ai_cache_canon_bytes(ngx_http_ai_cache_canon_t *c, ngx_str_t *bytes)
{
    u_char  *p;

    if (ngx_http_ai_cache_canon_room(c, 1 + NGX_HTTP_AI_CACHE_COUNT_LEN
                                        + bytes->len)
        != NGX_OK)
    {
        return;
    }

    p = c->out.last;

    *p++ = 's';
    p = ngx_http_ai_cache_canon_put(p, bytes->len);

    if (bytes->len) {
        p = ngx_cpymem(p, bytes->data, bytes->len);
    }

    c->out.last = p;
}


void
ngx_http_ai_cache_canon_text(ngx_http_ai_cache_canon_t *c, ngx_str_t *raw)
{
    if (raw->len && memchr(raw->data, '\\', raw->len)) {
        ngx_http_ai_cache_canon_escaped(c, raw);

    } else {
        ngx_http_ai_cache_canon_bytes(c, raw);
    }
}


static void
ngx_http_ai_cache_canon_escaped(ngx_http_ai_cache_canon_t *c, ngx_str_t *raw)
{
    u_char      *p, *text, *end;
    size_t       head;
    ngx_uint_t   lossy;

    head = 1 + NGX_HTTP_AI_CACHE_COUNT_LEN;

    if (ngx_http_ai_cache_canon_room(c, head + raw->len) != NGX_OK) {
        return;
    }

    p = c->out.last;
    text = p + head;
    end = ngx_http_ai_cache_unescape(text, raw, &lossy);

    *p++ = lossy ? 'r' : 's';
    p = ngx_http_ai_cache_canon_put(p, end - text);

    c->out.last = ngx_movemem(p, text, end - text);
}


/*
 * A lone half of a surrogate pair becomes the same replacement as any other,
 * and a provider may tell them apart
 */

u_char *
ngx_http_ai_cache_unescape(u_char *dst, ngx_str_t *raw, ngx_uint_t *lossy)
{
    u_char  *p, *end;

    *lossy = 0;

    end = ngx_http_ai_json_unescape(dst, raw);

    for (p = dst; p < end; p++) {
        p = memchr(p, 0xef, end - p);

        if (p == NULL || end - p < 3) {
            break;
        }

        if (p[1] == 0xbf && p[2] == 0xbd) {
            *lossy = 1;
            return ngx_cpymem(dst, raw->data, raw->len);
        }
    }

    return end;
}


/* 0.DIGITS * 10^point without zeros at either end of the digits */

void
ngx_http_ai_cache_canon_number(ngx_http_ai_cache_canon_t *c, ngx_str_t *text)
{
    u_char      *p, *s, *last, *digits, tag;
    size_t       n, len;
    int64_t      point, exp;
    ngx_uint_t   fraction, negative;

    if (ngx_http_ai_cache_canon_room(c, 1 + 2 * NGX_HTTP_AI_CACHE_COUNT_LEN
                                        + text->len)
        != NGX_OK)
    {
        return;
    }

    s = text->data;
    last = s + text->len;
    p = c->out.last;
    digits = p + 1 + 2 * NGX_HTTP_AI_CACHE_COUNT_LEN;
    tag = 'd';

    if (s < last && *s == '-') {
        tag = 'm';
        s++;
    }

    n = 0;
    len = 0;
    point = 0;
    fraction = 0;

    for ( /* void */ ; s < last && (*s | 0x20) != 'e'; s++) {

        if (*s == '.') {
            fraction = 1;
            continue;
        }

        if (*s == '0' && n == 0) {
            point -= fraction;
            continue;
        }

        point += !fraction;
        digits[n++] = *s;

        if (*s != '0') {
            len = n;
        }
    }

    if (len == 0) {
        point = 0;

    } else if (s < last) {
        s++;

        negative = (*s == '-');

        if (*s == '-' || *s == '+') {
            s++;
        }

        while (s < last && *s == '0') {
            s++;
        }

        if (last - s > NGX_HTTP_AI_CACHE_EXPONENT) {
            *p++ = 'e';
            p = ngx_http_ai_cache_canon_put(p, text->len);
            c->out.last = ngx_cpymem(p, text->data, text->len);
            return;
        }

        for (exp = 0; s < last; s++) {
            exp = exp * 10 + (*s - '0');
        }

        point += negative ? -exp : exp;
    }

    *p++ = tag;

    /* small numbers of either sign in a byte */

    p = ngx_http_ai_cache_canon_put(p, ((uint64_t) point << 1)
                                       ^ (point < 0 ? (uint64_t) -1 : 0));
    p = ngx_http_ai_cache_canon_put(p, len);

    c->out.last = ngx_movemem(p, digits, len);
}


void
ngx_http_ai_cache_canon_json(ngx_http_ai_cache_canon_t *c,
    ngx_http_ai_json_t *j, ngx_uint_t n)
{
    ngx_str_t                 s;
    ngx_uint_t                i;
    ngx_http_ai_json_node_t  *node;

    node = &j->nodes[n];

    switch (node->type) {

    case NGX_HTTP_AI_JSON_NULL:
        ngx_http_ai_cache_canon_tag(c, 'n');
        return;

    case NGX_HTTP_AI_JSON_FALSE:
        ngx_http_ai_cache_canon_tag(c, 'f');
        return;

    case NGX_HTTP_AI_JSON_TRUE:
        ngx_http_ai_cache_canon_tag(c, 't');
        return;

    case NGX_HTTP_AI_JSON_NUMBER:
        s = ngx_http_ai_json_raw(j, n);
        ngx_http_ai_cache_canon_number(c, &s);
        return;

    case NGX_HTTP_AI_JSON_STRING:
        s = ngx_http_ai_json_raw(j, n);

        if (node->escaped) {
            ngx_http_ai_cache_canon_escaped(c, &s);

        } else {
            ngx_http_ai_cache_canon_bytes(c, &s);
        }

        return;

    case NGX_HTTP_AI_JSON_ARRAY:
        ngx_http_ai_cache_canon_tag(c, 'a');
        ngx_http_ai_cache_canon_count(c, node->count);

        for (i = ngx_http_ai_json_first(j, n);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, n, i))
        {
            ngx_http_ai_cache_canon_json(c, j, i);
        }

        return;

    default:
        ngx_http_ai_cache_canon_object(c, j, n);
        return;
    }
}


static void
ngx_http_ai_cache_canon_object(ngx_http_ai_cache_canon_t *c,
    ngx_http_ai_json_t *j, ngx_uint_t n)
{
    ngx_str_t                   raw;
    ngx_uint_t                  i, from, end;
    ngx_http_ai_cache_entry_t  *e;

    from = c->sort.nelts;

    for (i = ngx_http_ai_json_first(j, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, n, i))
    {
        e = ngx_http_ai_cache_entries_push(&c->sort);
        if (e == NULL) {
            c->out.failed = 1;
            return;
        }

        e->node = i;
        e->name = ngx_http_ai_json_raw(j, i);

        if (j->nodes[i].escaped) {
            raw = e->name;

            if (ngx_http_ai_json_unescape_str(c->out.pool, &raw, &e->name)
                != NGX_OK)
            {
                c->out.failed = 1;
                return;
            }
        }
    }

    if (ngx_http_ai_cache_entries_sort(&c->sort, from) != NGX_OK) {
        c->out.failed = 1;
        return;
    }

    end = c->sort.nelts;

    ngx_http_ai_cache_canon_tag(c, 'o');
    ngx_http_ai_cache_canon_count(c, end - from);

    for (i = from; i < end; i++) {

        /* the array moves when it grows below */

        n = c->sort.elts[i].node;

        ngx_http_ai_cache_canon_json(c, j, n);
        ngx_http_ai_cache_canon_json(c, j, n + 1);
    }

    c->sort.nelts = from;
}


void
ngx_http_ai_cache_entries_init(ngx_http_ai_cache_entries_t *e,
    ngx_pool_t *pool)
{
    e->pool = pool;
    e->elts = e->first;
    e->nelts = 0;
    e->nalloc = NGX_HTTP_AI_CACHE_ENTRIES;
}


ngx_http_ai_cache_entry_t *
ngx_http_ai_cache_entries_push(ngx_http_ai_cache_entries_t *e)
{
    ngx_http_ai_cache_entry_t  *elts;

    if (e->nelts == e->nalloc) {

        elts = ngx_palloc(e->pool, 2 * e->nalloc
                                   * sizeof(ngx_http_ai_cache_entry_t));
        if (elts == NULL) {
            return NULL;
        }

        ngx_memcpy(elts, e->elts,
                   e->nelts * sizeof(ngx_http_ai_cache_entry_t));

        if (e->elts != e->first) {
            (void) ngx_pfree(e->pool, e->elts);
        }

        e->elts = elts;
        e->nalloc *= 2;
    }

    return &e->elts[e->nelts++];
}


ngx_int_t
ngx_http_ai_cache_entries_sort(ngx_http_ai_cache_entries_t *e,
    ngx_uint_t from)
{
    ngx_uint_t                  i, j, k, n, mid, end, width;
    ngx_http_ai_cache_entry_t  *a, *b, *t, *spare, entry;

    a = e->elts + from;
    n = e->nelts - from;

    for (i = 1; i < n && i < NGX_HTTP_AI_CACHE_INSERT; i++) {
        entry = a[i];

        for (j = i;
             j && ngx_http_ai_cache_entry_cmp(&a[j - 1], &entry) > 0;
             j--)
        {
            a[j] = a[j - 1];
        }

        a[j] = entry;
    }

    if (n <= NGX_HTTP_AI_CACHE_INSERT) {
        return NGX_OK;
    }

    spare = ngx_palloc(e->pool, n * sizeof(ngx_http_ai_cache_entry_t));
    if (spare == NULL) {
        return NGX_ERROR;
    }

    b = spare;

    for (width = 1; width < n; width *= 2) {

        for (i = 0; i < n; i = end) {
            mid = ngx_http_ai_min(i + width, n);
            end = ngx_http_ai_min(mid + width, n);

            j = i;
            k = mid;

            for (t = &b[i]; t < &b[end]; t++) {

                if (k == end
                    || (j < mid
                        && ngx_http_ai_cache_entry_cmp(&a[j], &a[k]) <= 0))
                {
                    *t = a[j++];

                } else {
                    *t = a[k++];
                }
            }
        }

        t = a;
        a = b;
        b = t;
    }

    if (a == spare) {
        ngx_memcpy(e->elts + from, a, n * sizeof(ngx_http_ai_cache_entry_t));
    }

    (void) ngx_pfree(e->pool, spare);

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_cache_entry_cmp(ngx_http_ai_cache_entry_t *one,
    ngx_http_ai_cache_entry_t *two)
{
    size_t     len;
    ngx_int_t  rc;

    len = ngx_http_ai_min(one->name.len, two->name.len);

    rc = len ? ngx_memcmp(one->name.data, two->name.data, len) : 0;

    if (rc) {
        return rc;
    }

    return (one->name.len > two->name.len) - (one->name.len < two->name.len);
}
