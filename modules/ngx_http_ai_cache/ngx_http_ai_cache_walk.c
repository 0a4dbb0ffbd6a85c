
/*
 * Copyright (C) nginx AI gateway authors
 */


/* what of a body is not in the pivot, and may change the answer */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_cache_member.h"


#define NGX_HTTP_AI_CACHE_MAX_EXTRAS  1024

/* of a data URL before its comma */

#define NGX_HTTP_AI_CACHE_MAX_HEAD    256

/* numbers of kinds in the table of places */

#define NGX_HTTP_AI_CACHE_RESULT      3     /* of A_BLOCK */
#define NGX_HTTP_AI_CACHE_TEXT        3     /* of A_SOURCE */


/* the way to a value */

typedef struct ngx_http_ai_cache_step_s  ngx_http_ai_cache_step_t;

struct ngx_http_ai_cache_step_s {
    ngx_http_ai_cache_step_t  *up;
    ngx_uint_t                 key;       /* node; NONE: an element */
    ngx_uint_t                 index;
};


static ngx_int_t ngx_http_ai_cache_walk_object(ngx_http_ai_cache_walk_t *w,
    ngx_uint_t n, ngx_uint_t place, ngx_http_ai_cache_step_t *up);
static ngx_uint_t ngx_http_ai_cache_walk_kind(ngx_http_ai_cache_walk_t *w,
    ngx_uint_t n, ngx_uint_t place);
static ngx_int_t ngx_http_ai_cache_walk_member(ngx_http_ai_cache_walk_t *w,
    ngx_uint_t n, ngx_uint_t kind, const ngx_http_ai_cache_member_t *m,
    ngx_http_ai_cache_step_t *step);
static ngx_int_t ngx_http_ai_cache_walk_array(ngx_http_ai_cache_walk_t *w,
    ngx_uint_t n, const ngx_http_ai_cache_member_t *m,
    ngx_http_ai_cache_step_t *up);
static ngx_int_t ngx_http_ai_cache_walk_extra(ngx_http_ai_cache_walk_t *w,
    ngx_uint_t n, ngx_http_ai_cache_step_t *step);
static ngx_int_t ngx_http_ai_cache_walk_add(ngx_http_ai_cache_walk_t *w,
    ngx_uint_t n, ngx_http_ai_cache_step_t *step);
static ngx_uint_t ngx_http_ai_cache_is_neutral(ngx_http_ai_cache_walk_t *w,
    ngx_uint_t n, const char *neutral);
static ngx_uint_t ngx_http_ai_cache_is_number(ngx_http_ai_cache_walk_t *w,
    ngx_uint_t n, const char *number);
static ngx_uint_t ngx_http_ai_cache_has_parameters(ngx_str_t *url);


ngx_int_t
ngx_http_ai_cache_walk(ngx_http_ai_cache_walk_t *w, ngx_uint_t place)
{
    ngx_http_ai_cache_entries_init(&w->entries, w->pool);

    w->mode[0] = NGX_HTTP_AI_JSON_NONE;
    w->mode[1] = NGX_HTTP_AI_JSON_NONE;
    w->input = NGX_HTTP_AI_JSON_NONE;
    w->extra = 0;
    w->zero = 0;

    return ngx_http_ai_cache_walk_object(w, 0, place, NULL);
}


static ngx_int_t
ngx_http_ai_cache_walk_object(ngx_http_ai_cache_walk_t *w, ngx_uint_t n,
    ngx_uint_t place, ngx_http_ai_cache_step_t *up)
{
    uint64_t                           seen;
    ngx_int_t                          rc;
    ngx_uint_t                         i, v, bit, kind, first;
    ngx_http_ai_json_t                *j;
    ngx_http_ai_cache_step_t           step;
    const ngx_http_ai_cache_member_t  *m;

    j = w->json;

    kind = ngx_http_ai_cache_walk_kind(w, n, place);

    w->kind = kind;

    if (kind == NGX_HTTP_AI_CACHE_KINDS) {
        return ngx_http_ai_cache_walk_extra(w, n, up);
    }

    first = w->entries.nelts;
    seen = 0;

    step.up = up;
    step.index = 0;

    for (i = ngx_http_ai_json_first(j, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, n, i))
    {
        v = i + 1;
        step.key = i;

        m = ngx_http_ai_cache_member(j, i, place, &bit);

        if (m == NULL) {
            rc = ngx_http_ai_cache_walk_extra(w, v, &step);

        } else if (seen & ((uint64_t) 1 << bit)) {

            /* which one counts is not the same everywhere */

            w->entries.nelts = first;
            w->zero = 0;
            w->input = NGX_HTTP_AI_JSON_NONE;
            w->kind = kind;

            return ngx_http_ai_cache_walk_extra(w, n, up);

        } else {
            seen |= (uint64_t) 1 << bit;

            if (j->nodes[v].type == NGX_HTTP_AI_JSON_NULL) {
                continue;
            }

            rc = ngx_http_ai_cache_walk_member(w, v, kind, m, &step);
        }

        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (place == NGX_HTTP_AI_CACHE_O_CHAT && !w->all) {

        v = ngx_http_ai_json_member(j, n, "max_tokens");
        i = ngx_http_ai_json_member(j, n, "max_completion_tokens");

        if (ngx_http_ai_json_type(j, v) != NGX_HTTP_AI_JSON_NULL
            && ngx_http_ai_json_type(j, i) != NGX_HTTP_AI_JSON_NULL)
        {
            /* only one of them is in the pivot */

            step.key = v - 1;

            rc = ngx_http_ai_cache_walk_extra(w, v, &step);
            if (rc != NGX_OK) {
                return rc;
            }
        }
    }

    w->kind = kind;

    return NGX_OK;
}


/* NGX_HTTP_AI_CACHE_KINDS: it is of none */

static ngx_uint_t
ngx_http_ai_cache_walk_kind(ngx_http_ai_cache_walk_t *w, ngx_uint_t n,
    ngx_uint_t place)
{
    ngx_uint_t                        i, v;
    const ngx_http_ai_cache_place_t  *p;

    p = &ngx_http_ai_cache_places[place];

    if (p->member.len == 0) {
        return 0;
    }

    v = ngx_http_ai_json_get(w->json, n, (char *) p->member.data,
                             p->member.len);

    switch (ngx_http_ai_json_type(w->json, v)) {

    case NGX_HTTP_AI_JSON_NULL:
        return p->absent ? 0 : NGX_HTTP_AI_CACHE_KINDS;

    case NGX_HTTP_AI_JSON_STRING:
        break;

    default:
        return NGX_HTTP_AI_CACHE_KINDS;
    }

    for (i = 0; p->kinds[i]; i++) {
        if (ngx_http_ai_json_key_eq(w->json, v, p->kinds[i],
                                    ngx_strlen(p->kinds[i])))
        {
            return i;
        }
    }

    return NGX_HTTP_AI_CACHE_KINDS;
}


static ngx_int_t
ngx_http_ai_cache_walk_member(ngx_http_ai_cache_walk_t *w, ngx_uint_t n,
    ngx_uint_t kind, const ngx_http_ai_cache_member_t *m,
    ngx_http_ai_cache_step_t *step)
{
    ngx_str_t                 s;
    ngx_http_ai_json_node_t  *node;

    node = &w->json->nodes[n];

    if (m->kinds && !(m->kinds & (1 << kind))) {
        return ngx_http_ai_cache_walk_extra(w, n, step);
    }

    switch (m->use) {

    case NGX_HTTP_AI_CACHE_SKIP:
        return NGX_OK;

    case NGX_HTTP_AI_CACHE_MODE:
        w->mode[m->name.len > sizeof("stream") - 1] = n;
        return NGX_OK;

    case NGX_HTTP_AI_CACHE_NEUTRAL:

        if (ngx_http_ai_cache_is_neutral(w, n, m->neutral)) {
            return NGX_OK;
        }

        return ngx_http_ai_cache_walk_extra(w, n, step);

    default:
        break;
    }

    if (m->form & NGX_HTTP_AI_CACHE_HEAT) {
        s = ngx_http_ai_json_raw(w->json, n);
        w->zero = node->type == NGX_HTTP_AI_JSON_NUMBER
                  && ngx_http_ai_cache_is_zero(&s);
    }

    if (w->all) {

        if (m->form & NGX_HTTP_AI_CACHE_INPUT) {
            w->input = n;
            return NGX_OK;
        }

        return ngx_http_ai_cache_walk_add(w, n, step);
    }

    if (!(m->form & (1 << node->type))) {
        return ngx_http_ai_cache_walk_extra(w, n, step);
    }

    switch (node->type) {

    case NGX_HTTP_AI_JSON_OBJECT:

        if (m->inner == NGX_HTTP_AI_CACHE_NOWHERE) {
            return NGX_OK;
        }

        return ngx_http_ai_cache_walk_object(w, n, m->inner, step);

    case NGX_HTTP_AI_JSON_ARRAY:
        return ngx_http_ai_cache_walk_array(w, n, m, step);

    case NGX_HTTP_AI_JSON_STRING:
        break;

    default:
        return NGX_OK;
    }

    s = ngx_http_ai_json_raw(w->json, n);

    if (((m->form & NGX_HTTP_AI_CACHE_URL)
         && ngx_http_ai_cache_has_parameters(&s))
        || ((m->form & NGX_HTTP_AI_CACHE_PLAIN)
            && kind == NGX_HTTP_AI_CACHE_TEXT
            && !ngx_http_ai_json_key_is(w->json, n, "text/plain"))
        || ((m->form & NGX_HTTP_AI_CACHE_TEXTS)
            && (m->form & NGX_HTTP_AI_CACHE_FILLED)
            && s.len == 0))
    {
        return ngx_http_ai_cache_walk_extra(w, n, step);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_cache_walk_array(ngx_http_ai_cache_walk_t *w, ngx_uint_t n,
    const ngx_http_ai_cache_member_t *m, ngx_http_ai_cache_step_t *up)
{
    ngx_int_t                  rc;
    ngx_uint_t                 i, other, extra;
    ngx_http_ai_json_t        *j;
    ngx_http_ai_json_node_t   *node;
    ngx_http_ai_cache_step_t   step;

    j = w->json;

    if (j->nodes[n].count == 0
        && m->inner && (m->form & NGX_HTTP_AI_CACHE_FILLED))
    {
        return ngx_http_ai_cache_walk_extra(w, n, up);
    }

    step.up = up;
    step.key = NGX_HTTP_AI_JSON_NONE;
    step.index = 0;

    other = 0;

    for (i = ngx_http_ai_json_first(j, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, n, i))
    {
        node = &j->nodes[i];
        extra = 0;

        if (node->type == NGX_HTTP_AI_JSON_OBJECT && m->inner) {

            rc = ngx_http_ai_cache_walk_object(w, i, m->inner, &step);
            if (rc != NGX_OK) {
                return rc;
            }

            /* the pivot has results first */

            if (m->place == NGX_HTTP_AI_CACHE_A_MESSAGE) {

                if (w->kind != NGX_HTTP_AI_CACHE_RESULT) {
                    other = 1;

                } else if (other) {
                    extra = 1;
                }
            }

        } else if (node->type != NGX_HTTP_AI_JSON_STRING
                   || !(m->form & NGX_HTTP_AI_CACHE_TEXTS)
                   || ((m->form & NGX_HTTP_AI_CACHE_FILLED)
                       && node->len == 0))
        {
            extra = 1;
        }

        if (extra) {
            rc = ngx_http_ai_cache_walk_extra(w, i, &step);
            if (rc != NGX_OK) {
                return rc;
            }
        }

        step.index++;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_cache_walk_extra(ngx_http_ai_cache_walk_t *w, ngx_uint_t n,
    ngx_http_ai_cache_step_t *step)
{
    w->extra = 1;

    return ngx_http_ai_cache_walk_add(w, n, step);
}


static ngx_int_t
ngx_http_ai_cache_walk_add(ngx_http_ai_cache_walk_t *w, ngx_uint_t n,
    ngx_http_ai_cache_step_t *step)
{
    size_t                      len;
    u_char                     *p, *start, *end;
    uint32_t                    size;
    ngx_str_t                   name;
    ngx_uint_t                  lossy;
    ngx_http_ai_cache_step_t   *s;
    ngx_http_ai_cache_entry_t  *e;

    if (w->entries.nelts == NGX_HTTP_AI_CACHE_MAX_EXTRAS) {
        return NGX_DECLINED;
    }

    e = ngx_http_ai_cache_entries_push(&w->entries);
    if (e == NULL) {
        return NGX_ERROR;
    }

    e->node = (uint32_t) n;

    len = 1;

    for (s = step; s; s = s->up) {
        len += 1 + sizeof(uint32_t);

        if (s->key != NGX_HTTP_AI_JSON_NONE) {
            len += w->json->nodes[s->key].len;
        }
    }

    e->name.data = ngx_pnalloc(w->pool, len);
    if (e->name.data == NULL) {
        return NGX_ERROR;
    }

    /* from the value up to the body */

    p = e->name.data;

    for (s = step; s; s = s->up) {

        start = p;
        p += 1 + sizeof(uint32_t);

        if (s->key == NGX_HTTP_AI_JSON_NONE) {
            *start++ = 'i';
            size = (uint32_t) s->index;

        } else {
            name = ngx_http_ai_json_raw(w->json, s->key);
            end = p;
            lossy = 0;

            if (w->json->nodes[s->key].escaped) {
                end = ngx_http_ai_cache_unescape(p, &name, &lossy);

            } else if (name.len) {
                end = ngx_cpymem(p, name.data, name.len);
            }

            *start++ = lossy ? 'r' : 'k';
            size = (uint32_t) (end - p);
            p = end;
        }

        ngx_memcpy(start, &size, sizeof(uint32_t));
    }

    e->name.len = p - e->name.data;

    return NGX_OK;
}


static ngx_uint_t
ngx_http_ai_cache_is_neutral(ngx_http_ai_cache_walk_t *w, ngx_uint_t n,
    const char *neutral)
{
    ngx_http_ai_json_node_t  *node;

    node = &w->json->nodes[n];

    switch (neutral[0]) {

    case 'f':
        return node->type == NGX_HTTP_AI_JSON_FALSE;

    case '{':
        return node->type == NGX_HTTP_AI_JSON_OBJECT && node->count == 0;

    case '[':

        if (node->type != NGX_HTTP_AI_JSON_ARRAY) {
            return 0;
        }

        if (neutral[1] == ']') {
            return node->count == 0;
        }

        return node->count == 1
               && node[1].type == NGX_HTTP_AI_JSON_STRING
               && ngx_http_ai_json_key_is(w->json, n + 1, "text");

    case 'n':
        return 0;

    default:
        return node->type == NGX_HTTP_AI_JSON_NUMBER
               && ngx_http_ai_cache_is_number(w, n, neutral);
    }
}


static ngx_uint_t
ngx_http_ai_cache_is_number(ngx_http_ai_cache_walk_t *w, ngx_uint_t n,
    const char *number)
{
    u_char                     *p;
    size_t                      len;
    ngx_str_t                   s;
    ngx_uint_t                  same;
    ngx_http_ai_cache_canon_t   c;

    s = ngx_http_ai_json_raw(w->json, n);

    if (s.len == 1) {
        return s.data[0] == (u_char) number[0];
    }

    if (ngx_http_ai_cache_canon_init(&c, w->pool, 0) != NGX_OK) {
        return 0;
    }

    ngx_http_ai_cache_canon_number(&c, &s);

    len = c.out.last - c.out.start;

    s.data = (u_char *) number;
    s.len = 1;

    ngx_http_ai_cache_canon_number(&c, &s);

    p = c.out.start;

    same = !c.out.failed
           && (size_t) (c.out.last - p) == 2 * len
           && ngx_memcmp(p, p + len, len) == 0;

    ngx_http_ai_cache_canon_free(&c);

    return same;
}


ngx_uint_t
ngx_http_ai_cache_is_zero(ngx_str_t *number)
{
    u_char  *p, *last;

    last = number->data + number->len;

    for (p = number->data; p < last && (*p | 0x20) != 'e'; p++) {
        if (*p >= '1' && *p <= '9') {
            return 0;
        }
    }

    return 1;
}


/* "data:text/plain;charset=...;base64,": the pivot has only the type */

static ngx_uint_t
ngx_http_ai_cache_has_parameters(ngx_str_t *url)
{
    u_char      *p, *last, buf[NGX_HTTP_AI_CACHE_MAX_HEAD];
    ngx_str_t    head;
    ngx_uint_t   n;

    head.data = url->data;
    head.len = ngx_http_ai_min(url->len, NGX_HTTP_AI_CACHE_MAX_HEAD);

    last = ngx_http_ai_json_unescape(buf, &head);

    if (last - buf < 5
        || ngx_strncasecmp(buf, (u_char *) "data:", 5) != 0)
    {
        return 0;
    }

    n = 0;

    for (p = buf; p < last; p++) {

        if (*p == ',') {
            return n != 1;
        }

        n += (*p == ';');
    }

    return 1;
}
