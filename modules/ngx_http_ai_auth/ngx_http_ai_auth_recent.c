
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Keys that were found lately.  The digest of a key and the search for it cost
 * more than the rest of its check, so a worker keeps what it has found until
 * the data change.  An entry is named by 128 bits of SipHash of the whole key
 * under a secret of the worker: neither a key is kept nor anything that could
 * be compared with one elsewhere.
 */


#include "ngx_http_ai_auth_record.h"
#include "ngx_http_ai_siphash.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>


#define NGX_HTTP_AI_RECENT_SLOTS  1024        /* a power of two */
#define NGX_HTTP_AI_RECENT_BLOB   2048        /* bytes of a record, at most */


typedef struct {
    uint64_t                   tag[2];
    uint64_t                   generation;    /* 0: empty */
    u_char                     digest[NGX_HTTP_AI_AUTH_DIGEST];
    ngx_str_t                  blob;
    size_t                     size;          /* allocated */
} ngx_http_ai_recent_t;


static ngx_http_ai_recent_t  *ngx_http_ai_recent;
static u_char                 ngx_http_ai_recent_secret[16];


ngx_int_t
ngx_http_ai_auth_recent_find(ngx_str_t *key, uint64_t generation,
    ngx_pool_t *pool, uint64_t *tag, u_char *digest, ngx_str_t *blob)
{
    ngx_http_ai_recent_t  *e;

    if (ngx_http_ai_recent == NULL) {

        /* of each worker: the master checks no keys */

        if (RAND_bytes(ngx_http_ai_recent_secret,
                       sizeof(ngx_http_ai_recent_secret))
            != 1)
        {
            return NGX_ABORT;
        }

        ngx_http_ai_recent = ngx_calloc(NGX_HTTP_AI_RECENT_SLOTS
                                        * sizeof(ngx_http_ai_recent_t),
                                        ngx_cycle->log);
        if (ngx_http_ai_recent == NULL) {
            return NGX_ABORT;
        }
    }

    ngx_http_ai_siphash128(ngx_http_ai_recent_secret, key->data, key->len,
                           tag);

    e = &ngx_http_ai_recent[tag[0] & (NGX_HTTP_AI_RECENT_SLOTS - 1)];

    if (e->generation != generation
        || CRYPTO_memcmp(e->tag, tag, sizeof(e->tag)) != 0)
    {
        return NGX_DECLINED;
    }

    blob->len = e->blob.len;
    blob->data = ngx_pnalloc(pool, blob->len);
    if (blob->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(blob->data, e->blob.data, blob->len);
    ngx_memcpy(digest, e->digest, NGX_HTTP_AI_AUTH_DIGEST);

    return NGX_OK;
}


void
ngx_http_ai_auth_recent_keep(uint64_t *tag, uint64_t generation,
    u_char *digest, ngx_str_t *blob)
{
    u_char                *p;
    ngx_http_ai_recent_t  *e;

    if (blob->len > NGX_HTTP_AI_RECENT_BLOB) {
        return;
    }

    e = &ngx_http_ai_recent[tag[0] & (NGX_HTTP_AI_RECENT_SLOTS - 1)];

    e->generation = 0;

    if (e->size < blob->len) {
        p = ngx_alloc(blob->len, ngx_cycle->log);
        if (p == NULL) {
            return;
        }

        if (e->blob.data) {
            ngx_free(e->blob.data);
        }

        e->blob.data = p;
        e->size = blob->len;
    }

    ngx_memcpy(e->blob.data, blob->data, blob->len);
    e->blob.len = blob->len;

    ngx_memcpy(e->digest, digest, NGX_HTTP_AI_AUTH_DIGEST);
    e->tag[0] = tag[0];
    e->tag[1] = tag[1];
    e->generation = generation;
}


void
ngx_http_ai_auth_recent_reset(void)
{
    ngx_uint_t  i;

    if (ngx_http_ai_recent == NULL) {
        return;
    }

    for (i = 0; i < NGX_HTTP_AI_RECENT_SLOTS; i++) {
        ngx_http_ai_recent[i].generation = 0;
    }
}
