
/*
 * Copyright (C) nginx AI gateway authors
 */


/* new ids and times for an answer that is sent again */


#include "ngx_http_ai_cache.h"


/* an id that is shorter may be some other text as well */
#define NGX_HTTP_AI_CACHE_ID_MIN    8
#define NGX_HTTP_AI_CACHE_ID_MAX    128

/* of a chunk up to the second of both */
#define NGX_HTTP_AI_CACHE_HEAD_MAX  256


typedef struct {
    ngx_str_t                  id;            /* len 0: none */
    ngx_str_t                  created;
    u_char                     old_id[NGX_HTTP_AI_CACHE_ID_MAX];
    u_char                     old_created[NGX_TIME_T_LEN];
} ngx_http_ai_cache_names_t;


static ngx_str_t *ngx_http_ai_cache_time(void);
static ngx_int_t ngx_http_ai_cache_first(ngx_str_t *data, ngx_str_t *text);
static ngx_int_t ngx_http_ai_cache_names(ngx_http_ai_cached_t *c,
    ngx_str_t *text, ngx_http_ai_cache_names_t *names);
static ngx_int_t ngx_http_ai_cache_names_first(ngx_str_t *text,
    ngx_uint_t created, ngx_http_ai_cache_names_t *names);
static ngx_int_t ngx_http_ai_cache_unescaped(u_char *p, u_char *last,
    ngx_str_t *s);
static ngx_int_t ngx_http_ai_cache_names_parse(ngx_http_ai_cached_t *c,
    ngx_str_t *text, ngx_http_ai_cache_names_t *names);
static void ngx_http_ai_cache_new_id(ngx_http_ai_cached_t *c, ngx_str_t *id);
static void ngx_http_ai_cache_renew_chunks(ngx_http_ai_cache_names_t *names,
    ngx_str_t *old, u_char *start, u_char *p, u_char *last);
static void ngx_http_ai_cache_renew_line(ngx_http_ai_cache_names_t *names,
    u_char *p, u_char *last);
static u_char *ngx_http_ai_cache_member(u_char *p, u_char *last,
    const char *name, size_t len);
static u_char *ngx_http_ai_cache_mem(u_char *p, u_char *last,
    const u_char *text, size_t len);


/*
 * Ids and times keep their length, so that they are renewed in place.  In a
 * stream they are in each chunk.  The texts of an answer are JSON strings, in
 * which the quotes around a member would be escaped: what is found between
 * bare ones is no text.
 */

void
ngx_http_ai_cache_renew(ngx_http_ai_cached_t *c, ngx_str_t *data)
{
    size_t                      n;
    u_char                     *end, head[NGX_HTTP_AI_CACHE_HEAD_MAX];
    ngx_str_t                   text, old, *created;
    ngx_http_ai_cache_names_t   names;

    if (c->ctx->op == NGX_HTTP_AI_OP_EMBEDDINGS) {
        /* has neither */
        return;
    }

    text = *data;

    if (c->ctx->stream && ngx_http_ai_cache_first(data, &text) != NGX_OK) {
        return;
    }

    if (ngx_http_ai_cache_names(c, &text, &names) != NGX_OK) {
        return;
    }

    if (names.id.len < NGX_HTTP_AI_CACHE_ID_MIN
        || names.id.len > NGX_HTTP_AI_CACHE_ID_MAX)
    {
        names.id.len = 0;
    }

    created = ngx_http_ai_cache_time();
    n = created->len;

    if (names.created.len != n) {
        names.created.len = 0;
    }

    end = text.data;

    if (names.id.len) {
        end = names.id.data + names.id.len;
    }

    if (names.created.len && names.created.data + n > end) {
        end = names.created.data + n;
    }

    if (end == text.data) {
        return;
    }

    old.len = 0;
    old.data = head;

    if (c->ctx->stream && end - text.data <= NGX_HTTP_AI_CACHE_HEAD_MAX) {
        old.len = end - text.data;
        ngx_memcpy(head, text.data, old.len);
    }

    if (names.id.len) {
        ngx_memcpy(names.old_id, names.id.data, names.id.len);
        ngx_http_ai_cache_new_id(c, &names.id);
    }

    if (names.created.len) {
        ngx_memcpy(names.old_created, names.created.data, n);
        ngx_memcpy(names.created.data, created->data, n);
    }

    if (c->ctx->stream) {
        ngx_http_ai_cache_renew_chunks(&names, &old, text.data, end,
                                       data->data + data->len);
    }
}


/* the current second as a text */

static ngx_str_t *
ngx_http_ai_cache_time(void)
{
    static time_t     sec;
    static u_char     text[NGX_TIME_T_LEN];
    static ngx_str_t  s = { 0, text };

    if (s.len == 0 || sec != ngx_time()) {
        sec = ngx_time();
        s.len = ngx_sprintf(text, "%T", sec) - text;
    }

    return &s;
}


/* the data of the first event that has some */

static ngx_int_t
ngx_http_ai_cache_first(ngx_str_t *data, ngx_str_t *text)
{
    u_char  *p, *last;

    last = data->data + data->len;

    for (p = data->data; p < last; p++) {

        if (last - p > 5 && ngx_strncmp(p, "data:", 5) == 0) {
            text->data = p + 5;
            p = ngx_strlchr(p, last, LF);
            text->len = (p ? p : last) - text->data;

            return NGX_OK;
        }

        p = ngx_strlchr(p, last, LF);

        if (p == NULL) {
            break;
        }
    }

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_ai_cache_names(ngx_http_ai_cached_t *c, ngx_str_t *text,
    ngx_http_ai_cache_names_t *names)
{
    ngx_uint_t  created;

    created = !ngx_http_ai_str_is(&c->ctx->dialect->name, "anthropic");

    if (ngx_http_ai_cache_names_first(text, created, names) == NGX_OK) {
        return NGX_OK;
    }

    return ngx_http_ai_cache_names_parse(c, text, names);
}


/* of an object that begins with them, as it does most often: the long texts
 * are behind */

static ngx_int_t
ngx_http_ai_cache_names_first(ngx_str_t *text, ngx_uint_t created,
    ngx_http_ai_cache_names_t *names)
{
    u_char     *p, *last;
    ngx_str_t   key, value;

    last = text->data + text->len;

    ngx_str_null(&names->id);
    ngx_str_null(&names->created);

    p = ngx_http_ai_json_skip_space(text->data, last);

    if (p == last || *p != '{') {
        return NGX_DECLINED;
    }

    do {
        p = ngx_http_ai_json_skip_space(p + 1, last);

        if (ngx_http_ai_cache_unescaped(p, last, &key) != NGX_OK) {
            return NGX_DECLINED;
        }

        p = ngx_http_ai_json_skip_space(key.data + key.len + 1, last);

        if (p == last || *p != ':') {
            return NGX_DECLINED;
        }

        p = ngx_http_ai_json_skip_space(p + 1, last);

        if (ngx_http_ai_cache_unescaped(p, last, &value) == NGX_OK) {

            if (ngx_http_ai_str_is(&key, "id")) {
                names->id = value;
            }

            p = value.data + value.len + 1;

        } else {
            value.data = p;

            while (p < last && *p >= '0' && *p <= '9') {
                p++;
            }

            value.len = p - value.data;

            if (ngx_http_ai_str_is(&key, "created")) {
                names->created = value;
            }
        }

        if (names->id.len && (names->created.len || !created)) {
            return NGX_OK;
        }

        p = ngx_http_ai_json_skip_space(p, last);

    } while (p < last && *p == ',');

    return NGX_DECLINED;
}


/* a string in which nothing is escaped */

static ngx_int_t
ngx_http_ai_cache_unescaped(u_char *p, u_char *last, ngx_str_t *s)
{
    u_char  *end;

    if (p == last || *p != '"') {
        return NGX_DECLINED;
    }

    p++;
    end = memchr(p, '"', last - p);

    if (end == NULL || memchr(p, '\\', end - p)) {
        return NGX_DECLINED;
    }

    s->data = p;
    s->len = end - p;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_cache_names_parse(ngx_http_ai_cached_t *c, ngx_str_t *text,
    ngx_http_ai_cache_names_t *names)
{
    ngx_uint_t                i, obj;
    ngx_http_ai_json_t        j;
    ngx_http_ai_json_node_t   nodes[64];

    ngx_str_null(&names->id);
    ngx_str_null(&names->created);

    ngx_memzero(&j, sizeof(ngx_http_ai_json_t));

    j.pool = c->request->pool;
    j.nodes = nodes;
    j.nalloc = 64;
    j.shallow = c->ctx->stream ? 2 : 1;

    if (ngx_http_ai_json_parse(&j, text->data, text->len) != NGX_OK) {
        return NGX_DECLINED;
    }

    /* Anthropic's "message_start" has it inside */

    obj = ngx_http_ai_json_member(&j, 0, "message");

    if (obj == NGX_HTTP_AI_JSON_NONE) {
        obj = 0;
    }

    i = ngx_http_ai_json_member(&j, obj, "id");

    if (ngx_http_ai_json_type(&j, i) == NGX_HTTP_AI_JSON_STRING) {
        names->id = ngx_http_ai_json_raw(&j, i);
    }

    i = ngx_http_ai_json_member(&j, 0, "created");

    if (ngx_http_ai_json_type(&j, i) == NGX_HTTP_AI_JSON_NUMBER) {
        names->created = ngx_http_ai_json_raw(&j, i);
    }

    return NGX_OK;
}


/* what is behind its prefix ("chatcmpl-", "msg_") is drawn anew */

static void
ngx_http_ai_cache_new_id(ngx_http_ai_cached_t *c, ngx_str_t *id)
{
    u_char      *p, *end;
    uint64_t     n;
    ngx_uint_t   left;

    static u_char  hex[] = "0123456789abcdef";

    end = id->data + id->len;

    for (p = id->data; p < end && *p != '-' && *p != '_'; p++) { /* void */ }

    p = (p < end) ? p + 1 : id->data;

    n = 0;

    for (left = 0; p < end; p++, left--) {

        if (left == 0) {
            n = c->zone->api->random();
            left = 16;
        }

        if ((u_char) ((*p | 0x20) - 'a') < 26 || (u_char) (*p - '0') < 10) {
            *p = hex[n & 15];
            n >>= 4;
        }
    }
}


/*
 * The first chunk is renewed up to p.  Most others begin with the same bytes,
 * "old", and get its new ones.
 */

static void
ngx_http_ai_cache_renew_chunks(ngx_http_ai_cache_names_t *names,
    ngx_str_t *old, u_char *start, u_char *p, u_char *last)
{
    u_char  *end;

    for ( ;; ) {
        end = memchr(p, LF, last - p);

        ngx_http_ai_cache_renew_line(names, p, end ? end : last);

        if (end == NULL) {
            return;
        }

        p = end + 1;

        if (last - p <= 5 || ngx_memcmp(p, "data:", 5) != 0) {
            continue;
        }

        p += 5;

        if (old->len && (size_t) (last - p) >= old->len
            && ngx_memcmp(p, old->data, old->len) == 0)
        {
            p = ngx_cpymem(p, start, old->len);
            end = memchr(p, LF, last - p);

            if (end == NULL) {
                return;
            }

            p = end;
        }
    }
}


static void
ngx_http_ai_cache_renew_line(ngx_http_ai_cache_names_t *names, u_char *p,
    u_char *last)
{
    u_char     *at;
    ngx_str_t  *s;

    s = &names->id;

    for (at = p; s->len; at += s->len) {
        at = ngx_http_ai_cache_mem(at, last, names->old_id, s->len);

        if (at == NULL || at + s->len == last) {
            break;
        }

        if (at > p && at[-1] == '"' && at[s->len] == '"') {
            ngx_memcpy(at, s->data, s->len);
        }
    }

    s = &names->created;

    for (at = p; s->len; /* void */ ) {
        at = ngx_http_ai_cache_member(at, last, "\"created\"",
                                      sizeof("\"created\"") - 1);
        if (at == NULL) {
            break;
        }

        if ((size_t) (last - at) > s->len
            && ngx_memcmp(at, names->old_created, s->len) == 0)
        {
            ngx_memcpy(at, s->data, s->len);
        }
    }
}


/* the value of the next member with that name */

static u_char *
ngx_http_ai_cache_member(u_char *p, u_char *last, const char *name,
    size_t len)
{
    for ( ;; ) {
        p = ngx_http_ai_cache_mem(p, last, (u_char *) name, len);

        if (p == NULL) {
            return NULL;
        }

        p = ngx_http_ai_json_skip_space(p + len, last);

        if (p < last && *p == ':') {
            return ngx_http_ai_json_skip_space(p + 1, last);
        }
    }
}


static u_char *
ngx_http_ai_cache_mem(u_char *p, u_char *last, const u_char *text, size_t len)
{
    while ((size_t) (last - p) >= len) {

        p = memchr(p, text[0], last - p - len + 1);

        if (p == NULL) {
            return NULL;
        }

        if (ngx_memcmp(p, text, len) == 0) {
            return p;
        }

        p++;
    }

    return NULL;
}
