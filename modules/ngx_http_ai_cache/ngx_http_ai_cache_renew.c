
/*
 * Copyright (C) nginx AI gateway authors
 */


/* new ids and times for an answer that is sent again */


#include "ngx_http_ai_cache.h"


/* an id that is shorter may be some other text as well */
#define NGX_HTTP_AI_CACHE_ID_MIN  8


static ngx_int_t ngx_http_ai_cache_first(ngx_str_t *data, ngx_str_t *text);
static void ngx_http_ai_cache_new_id(ngx_str_t *id, u_char *last);
static void ngx_http_ai_cache_new_time(ngx_str_t *text, u_char *created,
    u_char *last);
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
    size_t                    n;
    u_char                   *last, created[NGX_TIME_T_LEN];
    ngx_str_t                 text, id;
    ngx_uint_t                i, obj;
    ngx_http_ai_json_t        j;
    ngx_http_ai_json_node_t   nodes[64];

    if (c->ctx->op == NGX_HTTP_AI_OP_EMBEDDINGS) {
        /* has neither */
        return;
    }

    last = data->data + data->len;
    text = *data;

    if (c->ctx->stream && ngx_http_ai_cache_first(data, &text) != NGX_OK) {
        return;
    }

    ngx_memzero(&j, sizeof(ngx_http_ai_json_t));

    j.pool = c->request->pool;
    j.nodes = nodes;
    j.nalloc = 64;
    j.shallow = c->ctx->stream ? 2 : 1;

    if (ngx_http_ai_json_parse(&j, text.data, text.len) != NGX_OK) {
        return;
    }

    /* Anthropic's "message_start" has it inside */

    obj = ngx_http_ai_json_member(&j, 0, "message");

    if (obj == NGX_HTTP_AI_JSON_NONE) {
        obj = 0;
    }

    i = ngx_http_ai_json_member(&j, obj, "id");

    if (ngx_http_ai_json_type(&j, i) == NGX_HTTP_AI_JSON_STRING) {
        id = ngx_http_ai_json_raw(&j, i);
        ngx_http_ai_cache_new_id(&id, c->ctx->stream ? last : NULL);
    }

    i = ngx_http_ai_json_member(&j, 0, "created");

    if (ngx_http_ai_json_type(&j, i) != NGX_HTTP_AI_JSON_NUMBER) {
        return;
    }

    text = ngx_http_ai_json_raw(&j, i);
    n = ngx_sprintf(created, "%T", ngx_time()) - created;

    if (text.len != n) {
        return;
    }

    if (c->ctx->stream) {
        ngx_http_ai_cache_new_time(&text, created, last);

    } else {
        ngx_memcpy(text.data, created, n);
    }
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


/* what is behind its prefix ("chatcmpl-", "msg_") is drawn anew, the same up
 * to "last" */

static void
ngx_http_ai_cache_new_id(ngx_str_t *id, u_char *last)
{
    u_char      *p, *end, old[128];
    uint32_t     n;
    ngx_uint_t   left;

    static u_char  hex[] = "0123456789abcdef";

    if (id->len < NGX_HTTP_AI_CACHE_ID_MIN || id->len > sizeof(old)) {
        return;
    }

    ngx_memcpy(old, id->data, id->len);

    end = id->data + id->len;

    for (p = id->data; p < end && *p != '-' && *p != '_'; p++) { /* void */ }

    p = (p < end) ? p + 1 : id->data;

    n = 0;

    for (left = 0; p < end; p++, left--) {

        if (left == 0) {
            n = ngx_random();
            left = 7;
        }

        if ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z')
            || (*p >= '0' && *p <= '9'))
        {
            *p = hex[n & 15];
            n >>= 4;
        }
    }

    if (last == NULL) {
        return;
    }

    for (p = end; /* void */ ; p += id->len) {
        p = ngx_http_ai_cache_mem(p, last, old, id->len);

        if (p == NULL || p + id->len == last) {
            return;
        }

        if (p[-1] == '"' && p[id->len] == '"') {
            ngx_memcpy(p, id->data, id->len);
        }
    }
}


static void
ngx_http_ai_cache_new_time(ngx_str_t *text, u_char *created, u_char *last)
{
    u_char  *p, old[NGX_TIME_T_LEN];
    size_t   len;

    len = text->len;
    ngx_memcpy(old, text->data, len);

    p = text->data;

    do {
        if ((size_t) (last - p) > len && ngx_memcmp(p, old, len) == 0) {
            ngx_memcpy(p, created, len);
        }

        p = ngx_http_ai_cache_member(p, last, "\"created\"",
                                     sizeof("\"created\"") - 1);
    } while (p);
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
