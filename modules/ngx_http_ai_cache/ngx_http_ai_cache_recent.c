
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <openssl/rand.h>
#include "ngx_http_ai_cache_recent.h"


#define NGX_HTTP_AI_CACHE_RECENT_SLOTS  4096      /* a power of two */

/* of what is hashed besides the body, mostly */

#define NGX_HTTP_AI_CACHE_RECENT_TEXT   512


/* tags are apart from keys, as most lookups need no key, and are near each
 * other then; nothing is there where the first word is 0 */

typedef struct {
    uint64_t                   tags[NGX_HTTP_AI_CACHE_RECENT_SLOTS][2];
    ngx_http_ai_cache_key_t    keys[NGX_HTTP_AI_CACHE_RECENT_SLOTS];
} ngx_http_ai_cache_recent_t;


/* all but the texts; nothing between the members, and none that is not set */

typedef struct {
    uint64_t                   secret[2];     /* of the zone, or zeros */
    uint64_t                   dialect;
    uint64_t                   op;
    uint64_t                   plan;
    uint64_t                   max_depth;
    uint64_t                   max_nodes;
    uint64_t                   scope;
    uint64_t                   model;
    uint64_t                   vary;
} ngx_http_ai_cache_recent_head_t;


static ngx_int_t ngx_http_ai_cache_recent_init(ngx_log_t *log);


static ngx_http_ai_cache_recent_t  *ngx_http_ai_cache_recent;

static ngx_http_ai_nh_t             ngx_http_ai_cache_recent_nh;


ngx_int_t
ngx_http_ai_cache_recent_find(ngx_pool_t *pool, ngx_http_ai_cache_ask_t *ask,
    ngx_str_t *body, uint64_t *tag, ngx_http_ai_cache_key_t *key)
{
    u_char                           *p;
    u_char                            buf[NGX_HTTP_AI_CACHE_RECENT_TEXT];
    size_t                            len;
    uint64_t                         *kept;
    ngx_str_t                         texts[2];
    ngx_uint_t                        n;
    ngx_http_ai_cache_recent_head_t   head;

    if (ngx_http_ai_cache_recent == NULL
        && ngx_http_ai_cache_recent_init(pool->log) != NGX_OK)
    {
        return NGX_ABORT;
    }

    if (ask->nh) {
        ngx_memcpy(head.secret, ask->nh->secret, sizeof(head.secret));

    } else {
        ngx_memzero(head.secret, sizeof(head.secret));
    }

    head.dialect = (uint64_t) (uintptr_t) ask->dialect;
    head.op = ask->op;
    head.plan = ask->plan;
    head.max_depth = ask->json->max_depth;
    head.max_nodes = ask->json->max_nodes;
    head.scope = ask->scope.len;
    head.model = ask->model.len;
    head.vary = ask->vary.len;

    len = sizeof(ngx_http_ai_cache_recent_head_t)
          + ask->scope.len + ask->model.len + ask->vary.len;

    texts[0] = *body;
    texts[1].len = len;
    texts[1].data = buf;

    if (len > sizeof(buf)) {
        texts[1].data = ngx_pnalloc(pool, len);
        if (texts[1].data == NULL) {
            return NGX_ERROR;
        }
    }

    p = ngx_cpymem(texts[1].data, &head,
                   sizeof(ngx_http_ai_cache_recent_head_t));

    if (ask->scope.len) {
        p = ngx_cpymem(p, ask->scope.data, ask->scope.len);
    }

    if (ask->model.len) {
        p = ngx_cpymem(p, ask->model.data, ask->model.len);
    }

    if (ask->vary.len) {
        ngx_memcpy(p, ask->vary.data, ask->vary.len);
    }

    ngx_http_ai_nh_tag(&ngx_http_ai_cache_recent_nh, texts, 2, tag);

    n = tag[0] & (NGX_HTTP_AI_CACHE_RECENT_SLOTS - 1);
    kept = ngx_http_ai_cache_recent->tags[n];

    if (kept[0] != tag[0] || kept[1] != tag[1] || tag[0] == 0) {
        return NGX_DECLINED;
    }

    *key = ngx_http_ai_cache_recent->keys[n];

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_cache_recent_init(ngx_log_t *log)
{
    u_char  secret[NGX_HTTP_AI_SIPHASH_SECRET];

    /* of each worker: the master serves no requests */

    if (RAND_bytes(secret, sizeof(secret)) != 1) {
        return NGX_ERROR;
    }

    ngx_http_ai_nh_init(&ngx_http_ai_cache_recent_nh, secret);

    ngx_http_ai_cache_recent = ngx_calloc(sizeof(ngx_http_ai_cache_recent_t),
                                          log);

    return ngx_http_ai_cache_recent ? NGX_OK : NGX_ERROR;
}


void
ngx_http_ai_cache_recent_keep(uint64_t *tag, ngx_http_ai_cache_key_t *key)
{
    ngx_uint_t  n;

    n = tag[0] & (NGX_HTTP_AI_CACHE_RECENT_SLOTS - 1);

    ngx_http_ai_cache_recent->tags[n][0] = tag[0];
    ngx_http_ai_cache_recent->tags[n][1] = tag[1];
    ngx_http_ai_cache_recent->keys[n] = *key;
}


void
ngx_http_ai_cache_recent_exit(void)
{
    if (ngx_http_ai_cache_recent) {
        ngx_free(ngx_http_ai_cache_recent);
        ngx_http_ai_cache_recent = NULL;
    }
}
