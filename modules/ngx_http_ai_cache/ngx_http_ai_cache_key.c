
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <openssl/evp.h>
#include "ngx_http_ai_cache_key.h"
#include "ngx_http_ai_cache_member.h"
#include "ngx_http_ai_cache_pivot.h"
#include "ngx_http_ai_cache_plain.h"


/* to be changed with anything that is hashed: entries outlive the binary */

#define NGX_HTTP_AI_CACHE_KEY_VERSION  1

/* room for what is hashed besides the body */

#define NGX_HTTP_AI_CACHE_KEY_ROOM     512


static ngx_int_t ngx_http_ai_cache_key_begin(ngx_pool_t *pool,
    ngx_http_ai_cache_ask_t *ask, ngx_http_ai_cache_canon_t *c,
    ngx_http_ai_cache_walk_t *w, ngx_http_ai_cache_key_t *key);
static ngx_int_t ngx_http_ai_cache_key_declined(ngx_http_ai_cache_key_t *key,
    const char *why);
static ngx_int_t ngx_http_ai_cache_key_members(ngx_http_ai_cache_canon_t *c,
    ngx_http_ai_cache_walk_t *w, ngx_uint_t exact);
static ngx_uint_t ngx_http_ai_cache_key_alone(ngx_http_ai_json_t *j,
    ngx_uint_t n);
static ngx_int_t ngx_http_ai_cache_key_end(ngx_http_ai_cache_canon_t *c,
    ngx_http_ai_cache_ask_t *ask, ngx_http_ai_cache_key_t *key);
static ngx_int_t ngx_http_ai_cache_sha256(u_char *dst, u_char *data,
    size_t len);


static const EVP_MD  *ngx_http_ai_cache_md;
static EVP_MD_CTX    *ngx_http_ai_cache_md_ctx;


ngx_int_t
ngx_http_ai_cache_key(ngx_pool_t *pool, ngx_http_ai_cache_ask_t *ask,
    ngx_http_ai_cache_key_t *key)
{
    ngx_int_t                  rc;
    ngx_http_ai_cache_walk_t   w;
    ngx_http_ai_cache_canon_t  c;

    rc = ngx_http_ai_cache_key_begin(pool, ask, &c, &w, key);
    if (rc != NGX_OK) {
        return rc;
    }

    if (w.input != NGX_HTTP_AI_JSON_NONE) {
        ngx_http_ai_cache_canon_json(&c, ask->json,
                              ngx_http_ai_cache_key_alone(ask->json, w.input));
    }

    rc = ngx_http_ai_cache_key_end(&c, ask, key);

    ngx_http_ai_cache_canon_free(&c);

    return rc;
}


ngx_int_t
ngx_http_ai_cache_key_inputs(ngx_pool_t *pool, ngx_http_ai_cache_ask_t *ask,
    ngx_uint_t array, ngx_http_ai_cache_key_t *keys)
{
    size_t                     len;
    ngx_int_t                  rc;
    ngx_uint_t                 i, n;
    ngx_http_ai_json_t        *j;
    ngx_http_ai_cache_key_t    key;
    ngx_http_ai_cache_walk_t   w;
    ngx_http_ai_cache_canon_t  c;

    j = ask->json;

    rc = ngx_http_ai_cache_key_begin(pool, ask, &c, &w, &key);
    if (rc != NGX_OK) {
        keys[0] = key;
        return rc;
    }

    len = c.out.last - c.out.start;
    n = 0;

    for (i = ngx_http_ai_json_first(j, array);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, array, i))
    {
        keys[n] = key;

        c.out.last = c.out.start + len;
        ngx_http_ai_cache_canon_json(&c, j, i);

        rc = ngx_http_ai_cache_key_end(&c, ask, &keys[n]);
        if (rc != NGX_OK) {
            break;
        }

        n++;
    }

    ngx_http_ai_cache_canon_free(&c);

    return rc;
}


/* all but the input of embeddings, which is the last */

static ngx_int_t
ngx_http_ai_cache_key_begin(ngx_pool_t *pool, ngx_http_ai_cache_ask_t *ask,
    ngx_http_ai_cache_canon_t *c, ngx_http_ai_cache_walk_t *w,
    ngx_http_ai_cache_key_t *key)
{
    size_t                 size;
    ngx_int_t              rc;
    ngx_uint_t             place, refused, zero;
    ngx_http_ai_codec_t    codec;
    ngx_http_ai_request_t  req;

    ngx_memzero(key, sizeof(ngx_http_ai_cache_key_t));

    switch (ask->op) {

    case NGX_HTTP_AI_OP_CHAT:
    case NGX_HTTP_AI_OP_COMPLETIONS:
    case NGX_HTTP_AI_OP_EMBEDDINGS:
    case NGX_HTTP_AI_OP_COUNT_TOKENS:
        break;

    default:
        return ngx_http_ai_cache_key_declined(key, "not this operation");
    }

    if (ngx_http_ai_json_type(ask->json, 0) != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_cache_key_declined(key, "not a JSON object");
    }

    size = ask->json->nodes[0].len;

    if (size > NGX_HTTP_AI_CACHE_KEY_MAX) {
        return ngx_http_ai_cache_key_declined(key, "the request is too large");
    }

    if (ngx_http_ai_cache_canon_init(c, pool, size + ask->model.len
                                              + ask->scope.len
                                              + ask->vary.len
                                              + NGX_HTTP_AI_CACHE_KEY_ROOM)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_http_ai_cache_canon_count(c, NGX_HTTP_AI_CACHE_KEY_VERSION);
    ngx_http_ai_cache_canon_count(c, ask->op);
    ngx_http_ai_cache_canon_count(c, ask->plan);
    ngx_http_ai_cache_canon_bytes(c, &ask->scope);
    ngx_http_ai_cache_canon_bytes(c, &ask->model);
    ngx_http_ai_cache_canon_bytes(c, &ask->vary);

    place = ngx_http_ai_cache_body_place(ask->dialect, ask->op);

    if (place == NGX_HTTP_AI_CACHE_O_CHAT
        && ngx_http_ai_cache_plain(c, ask->json, &zero) == NGX_OK)
    {
        w->input = NGX_HTTP_AI_JSON_NONE;
        key->deterministic = zero;

        return NGX_OK;
    }

    w->pool = pool;
    w->json = ask->json;
    w->all = 1;

    refused = 0;

    if (ask->op == NGX_HTTP_AI_OP_CHAT) {

        ngx_memzero(&codec, sizeof(ngx_http_ai_codec_t));
        codec.pool = pool;

        rc = ask->dialect->decode_request(&codec, ask->json, &req);

        if (rc == NGX_ERROR) {
            goto failed;
        }

        if (rc == NGX_OK) {
            ngx_http_ai_cache_pivot(c, ask->json, &req);
            w->all = 0;

        } else {

            /* what only providers of the same dialect may understand */

            refused = 1;
        }
    }

    rc = ngx_http_ai_cache_walk(w, place);

    if (rc == NGX_DECLINED) {
        ngx_http_ai_cache_canon_free(c);
        return ngx_http_ai_cache_key_declined(key, "too many extra members");
    }

    if (rc == NGX_ERROR) {
        goto failed;
    }

    key->exact = w->extra || refused;
    key->deterministic = w->zero || ask->op == NGX_HTTP_AI_OP_EMBEDDINGS
                         || ask->op == NGX_HTTP_AI_OP_COUNT_TOKENS;

    if (w->all || key->exact) {
        ngx_http_ai_cache_canon_bytes(c, &ask->dialect->name);

        if (ngx_http_ai_cache_key_members(c, w, key->exact) != NGX_OK) {
            goto failed;
        }
    }

    return NGX_OK;

failed:

    ngx_http_ai_cache_canon_free(c);

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_ai_cache_key_declined(ngx_http_ai_cache_key_t *key, const char *why)
{
    key->why = why;

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_ai_cache_key_members(ngx_http_ai_cache_canon_t *c,
    ngx_http_ai_cache_walk_t *w, ngx_uint_t exact)
{
    ngx_uint_t                  i, stream;
    ngx_http_ai_cache_entry_t  *e;

    if (ngx_http_ai_cache_entries_sort(&w->entries, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_ai_cache_canon_count(c, w->entries.nelts);

    for (i = 0; i < w->entries.nelts; i++) {
        e = &w->entries.elts[i];

        ngx_http_ai_cache_canon_bytes(c, &e->name);
        ngx_http_ai_cache_canon_json(c, w->json, e->node);
    }

    if (!exact) {
        return NGX_OK;
    }

    stream = (ngx_http_ai_json_type(w->json, w->mode[0])
              == NGX_HTTP_AI_JSON_TRUE);

    ngx_http_ai_cache_canon_tag(c, stream ? 't' : 'f');

    if (stream && w->mode[1] != NGX_HTTP_AI_JSON_NONE) {
        ngx_http_ai_cache_canon_json(c, w->json, w->mode[1]);
    }

    return NGX_OK;
}


/* one text, and one list of tokens, may be in an array or not */

static ngx_uint_t
ngx_http_ai_cache_key_alone(ngx_http_ai_json_t *j, ngx_uint_t n)
{
    if (j->nodes[n].type == NGX_HTTP_AI_JSON_ARRAY && j->nodes[n].count == 1
        && (j->nodes[n + 1].type == NGX_HTTP_AI_JSON_STRING
            || j->nodes[n + 1].type == NGX_HTTP_AI_JSON_ARRAY))
    {
        return n + 1;
    }

    return n;
}


static ngx_int_t
ngx_http_ai_cache_key_end(ngx_http_ai_cache_canon_t *c,
    ngx_http_ai_cache_ask_t *ask, ngx_http_ai_cache_key_t *key)
{
    uint64_t   tag[2];
    ngx_str_t  text;

    if (c->out.failed) {
        return NGX_ERROR;
    }

    text.data = c->out.start;
    text.len = c->out.last - c->out.start;

    if (ask->nh == NULL) {
        return ngx_http_ai_cache_sha256(key->id, text.data, text.len);
    }

    ngx_http_ai_nh_tag(ask->nh, &text, 1, tag);
    ngx_memcpy(key->id, tag, sizeof(tag));

    return NGX_OK;
}


/* SHA256() of OpenSSL 3 looks for the algorithm each time */

static ngx_int_t
ngx_http_ai_cache_sha256(u_char *dst, u_char *data, size_t len)
{
    if (ngx_http_ai_cache_md_ctx == NULL) {

#if (OPENSSL_VERSION_NUMBER >= 0x30000000L && !defined LIBRESSL_VERSION_NUMBER)
        ngx_http_ai_cache_md = EVP_MD_fetch(NULL, "SHA256", NULL);
#else
        ngx_http_ai_cache_md = EVP_sha256();
#endif

        if (ngx_http_ai_cache_md == NULL) {
            return NGX_ERROR;
        }

        ngx_http_ai_cache_md_ctx = EVP_MD_CTX_new();
        if (ngx_http_ai_cache_md_ctx == NULL) {
            return NGX_ERROR;
        }
    }

    if (EVP_DigestInit_ex(ngx_http_ai_cache_md_ctx, ngx_http_ai_cache_md, NULL)
        != 1
        || EVP_DigestUpdate(ngx_http_ai_cache_md_ctx, data, len) != 1
        || EVP_DigestFinal_ex(ngx_http_ai_cache_md_ctx, dst, NULL) != 1)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


void
ngx_http_ai_cache_key_exit(void)
{
    if (ngx_http_ai_cache_md_ctx) {
        EVP_MD_CTX_free(ngx_http_ai_cache_md_ctx);
        ngx_http_ai_cache_md_ctx = NULL;
    }

#if (OPENSSL_VERSION_NUMBER >= 0x30000000L && !defined LIBRESSL_VERSION_NUMBER)
    EVP_MD_free((EVP_MD *) ngx_http_ai_cache_md);
#endif

    ngx_http_ai_cache_md = NULL;
}
