
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_auth_record.h"
#include "ngx_http_ai_auth_key.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>


#define NGX_HTTP_AI_AUTH_BLOCK     64          /* of SHA-256, bytes */
#define NGX_HTTP_AI_AUTH_NAME_MAX  4096        /* of an identity */


static ngx_int_t ngx_http_ai_auth_digest_init(ngx_log_t *log);
static ngx_int_t ngx_http_ai_auth_sha256(u_char *dst, ngx_str_t *head,
    ngx_str_t *tail);
static ngx_int_t ngx_http_ai_auth_hmac(u_char *dst, ngx_str_t *secret,
    ngx_str_t *text);
static ngx_int_t ngx_http_ai_auth_key_lookup(
    ngx_http_ai_auth_main_conf_t *aamcf, ngx_str_t *key, ngx_pool_t *pool,
    u_char *digest, ngx_str_t *blob);
static ngx_http_ai_auth_reason_e ngx_http_ai_auth_key_check_revoked(
    ngx_http_ai_auth_main_conf_t *aamcf, ngx_pool_t *pool,
    ngx_http_ai_auth_reason_e reason, ngx_http_ai_principal_t *p);
static ngx_uint_t ngx_http_ai_auth_is_revoked(
    ngx_http_ai_auth_main_conf_t *aamcf, ngx_pool_t *pool, ngx_uint_t kind,
    ngx_str_t *issuer, ngx_str_t *value);


/*
 * For the life of the process: to look for the algorithm and to allocate a
 * context for each key would take longer than to compute its digest.
 */

static const EVP_MD  *ngx_http_ai_auth_md;
static EVP_MD_CTX    *ngx_http_ai_auth_md_ctx;


ngx_int_t
ngx_http_ai_auth_keys_init(ngx_conf_t *cf, ngx_http_ai_auth_main_conf_t *aamcf)
{
    ngx_http_ai_data_def_t  def;

    if (!aamcf->used_keys && aamcf->issuers.nelts == 0) {
        return NGX_OK;
    }

    if (aamcf->used_keys) {

        if (ngx_http_ai_auth_digest_init(cf->log) != NGX_OK) {
            return NGX_ERROR;
        }

        ngx_memzero(&def, sizeof(ngx_http_ai_data_def_t));

        ngx_str_set(&def.name, "keys");
        ngx_str_set(&def.create, "aigw keys create --data");
        def.required = 1;
        def.conf = aamcf;
        def.record = ngx_http_ai_auth_keys_record;

        aamcf->keys = aamcf->api->data_register(cf, &def);
        if (aamcf->keys == NULL) {
            return NGX_ERROR;
        }
    }

    if (!aamcf->api->data_enabled(cf)) {
        return NGX_OK;
    }

    ngx_memzero(&def, sizeof(ngx_http_ai_data_def_t));

    ngx_str_set(&def.name, "revoked");
    def.conf = aamcf;
    def.record = ngx_http_ai_auth_revoked_record;

    aamcf->revoked = aamcf->api->data_register(cf, &def);

    return (aamcf->revoked == NULL) ? NGX_ERROR : NGX_OK;
}


ngx_http_ai_auth_reason_e
ngx_http_ai_auth_key_find(ngx_http_ai_auth_main_conf_t *aamcf, ngx_str_t *key,
    ngx_pool_t *pool, ngx_http_ai_principal_t *p)
{
    u_char                      digest[NGX_HTTP_AI_AUTH_DIGEST];
    uint64_t                    generation, tag[2];
    ngx_int_t                   rc;
    ngx_str_t                   blob;
    ngx_uint_t                  foreign;
    const u_char               *id;
    ngx_http_ai_auth_reason_e   reason;

    ngx_memzero(p, sizeof(ngx_http_ai_principal_t));

    if (key->len == 0) {
        return NGX_HTTP_AI_AUTH_NONE;
    }

    if (aamcf->keys == NULL) {
        return NGX_HTTP_AI_AUTH_UNAVAILABLE;
    }

    generation = aamcf->api->data_generation(aamcf->keys);

    if (generation == 0) {
        return NGX_HTTP_AI_AUTH_UNAVAILABLE;
    }

    if (key->len > NGX_HTTP_AI_KEY_TEXT_MAX) {
        return NGX_HTTP_AI_AUTH_MALFORMED;
    }

    foreign = !ngx_http_ai_key_is_ours(key->data, key->len);

    rc = ngx_http_ai_auth_recent_find(key, generation, pool, tag, digest,
                                      &blob);

    if (rc == NGX_ERROR) {
        return NGX_HTTP_AI_AUTH_UNAVAILABLE;
    }

    if (rc == NGX_OK) {
        goto found;
    }

    if (!foreign && !ngx_http_ai_key_check(key->data, key->len, &id)) {
        return NGX_HTTP_AI_AUTH_MALFORMED;
    }

    if (foreign
        && !(aamcf->api->data_flags(aamcf->keys) & NGX_HTTP_AI_AUTH_FOREIGN))
    {
        return NGX_HTTP_AI_AUTH_MALFORMED;
    }

    switch (ngx_http_ai_auth_key_lookup(aamcf, key, pool, digest, &blob)) {

    case NGX_OK:
        break;

    case NGX_DECLINED:
        return NGX_HTTP_AI_AUTH_UNKNOWN;

    default:
        return NGX_HTTP_AI_AUTH_UNAVAILABLE;
    }

    /* what was found while the data changed may be of either generation */

    if (rc == NGX_DECLINED
        && generation == aamcf->api->data_generation(aamcf->keys))
    {
        ngx_http_ai_auth_recent_keep(tag, generation, digest, &blob);
    }

found:

    reason = ngx_http_ai_auth_record_read(&blob, digest, foreign, ngx_time(),
                                          p);

    return ngx_http_ai_auth_key_check_revoked(aamcf, pool, reason, p);
}


static ngx_int_t
ngx_http_ai_auth_key_lookup(ngx_http_ai_auth_main_conf_t *aamcf,
    ngx_str_t *key, ngx_pool_t *pool, u_char *digest, ngx_str_t *blob)
{
    u_char      text[NGX_HTTP_AI_AUTH_DIGEST + 1];
    uint64_t    flags;
    ngx_int_t   rc;
    ngx_str_t   name;

    flags = aamcf->api->data_flags(aamcf->keys);

    name.data = text;
    name.len = sizeof(text);

    if (flags & NGX_HTTP_AI_AUTH_SHA) {

        if (ngx_http_ai_auth_sha256(digest, NULL, key) != NGX_OK) {
            return NGX_ERROR;
        }

        text[0] = NGX_HTTP_AI_AUTH_BY_SHA;
        ngx_memcpy(text + 1, digest, NGX_HTTP_AI_AUTH_DIGEST);

        rc = aamcf->api->data_find(aamcf->keys, &name, pool, blob);

        if (rc != NGX_DECLINED) {
            return rc;
        }
    }

    if ((flags & NGX_HTTP_AI_AUTH_HMAC) && aamcf->pepper.len) {

        if (ngx_http_ai_auth_hmac(digest, &aamcf->pepper, key) != NGX_OK) {
            return NGX_ERROR;
        }

        text[0] = NGX_HTTP_AI_AUTH_BY_HMAC;
        ngx_memcpy(text + 1, digest, NGX_HTTP_AI_AUTH_DIGEST);

        return aamcf->api->data_find(aamcf->keys, &name, pool, blob);
    }

    return NGX_DECLINED;
}


ngx_http_ai_auth_reason_e
ngx_http_ai_auth_key_by_id(ngx_http_ai_auth_main_conf_t *aamcf, ngx_str_t *id,
    ngx_pool_t *pool, ngx_http_ai_principal_t *p)
{
    ngx_str_t                   name, blob;
    ngx_http_ai_auth_reason_e   reason;

    ngx_memzero(p, sizeof(ngx_http_ai_principal_t));

    if (id->len == 0) {
        return NGX_HTTP_AI_AUTH_NONE;
    }

    if (aamcf->keys == NULL
        || aamcf->api->data_generation(aamcf->keys) == 0)
    {
        return NGX_HTTP_AI_AUTH_UNAVAILABLE;
    }

    if (id->len > NGX_HTTP_AI_AUTH_NAME_MAX) {
        return NGX_HTTP_AI_AUTH_MALFORMED;
    }

    name.len = id->len + 1;
    name.data = ngx_pnalloc(pool, name.len);
    if (name.data == NULL) {
        return NGX_HTTP_AI_AUTH_UNAVAILABLE;
    }

    name.data[0] = NGX_HTTP_AI_AUTH_BY_NAME;
    ngx_memcpy(name.data + 1, id->data, id->len);

    switch (aamcf->api->data_find(aamcf->keys, &name, pool, &blob)) {

    case NGX_OK:
        break;

    case NGX_DECLINED:
        return NGX_HTTP_AI_AUTH_UNKNOWN;

    default:
        return NGX_HTTP_AI_AUTH_UNAVAILABLE;
    }

    reason = ngx_http_ai_auth_record_read(&blob, NULL, 0, ngx_time(), p);

    return ngx_http_ai_auth_key_check_revoked(aamcf, pool, reason, p);
}


static ngx_http_ai_auth_reason_e
ngx_http_ai_auth_key_check_revoked(ngx_http_ai_auth_main_conf_t *aamcf,
    ngx_pool_t *pool, ngx_http_ai_auth_reason_e reason,
    ngx_http_ai_principal_t *p)
{
    ngx_str_t  none;

    if (reason != NGX_HTTP_AI_AUTH_OK || aamcf->revoked == NULL
        || !(aamcf->api->data_flags(aamcf->revoked)
             & NGX_HTTP_AI_AUTH_REVOKE_KEY))
    {
        return reason;
    }

    ngx_str_null(&none);

    return ngx_http_ai_auth_is_revoked(aamcf, pool,
                                       NGX_HTTP_AI_AUTH_REVOKE_KEY, &none,
                                       &p->key_id)
           ? NGX_HTTP_AI_AUTH_REVOKED : NGX_HTTP_AI_AUTH_OK;
}


ngx_uint_t
ngx_http_ai_auth_revoked(ngx_http_ai_auth_main_conf_t *aamcf,
    ngx_str_t *issuer, ngx_str_t *jti, ngx_str_t *sub)
{
    uint64_t     flags;
    ngx_str_t    none;
    ngx_uint_t   revoked;
    ngx_pool_t  *pool;

    if (aamcf->revoked == NULL) {
        return 0;
    }

    flags = aamcf->api->data_flags(aamcf->revoked);

    if (!(flags & (NGX_HTTP_AI_AUTH_REVOKE_JTI
                   |NGX_HTTP_AI_AUTH_REVOKE_SUB)))
    {
        return 0;
    }

    pool = ngx_create_pool(NGX_DEFAULT_POOL_SIZE, ngx_cycle->log);
    if (pool == NULL) {
        return 1;
    }

    ngx_str_null(&none);

    revoked = 0;

    if ((flags & NGX_HTTP_AI_AUTH_REVOKE_JTI) && jti->len) {
        revoked = ngx_http_ai_auth_is_revoked(aamcf, pool,
                                              NGX_HTTP_AI_AUTH_REVOKE_JTI,
                                              &none, jti)
                  || (issuer->len
                      && ngx_http_ai_auth_is_revoked(aamcf, pool,
                                              NGX_HTTP_AI_AUTH_REVOKE_JTI,
                                              issuer, jti));
    }

    if (!revoked && (flags & NGX_HTTP_AI_AUTH_REVOKE_SUB) && sub->len) {
        revoked = ngx_http_ai_auth_is_revoked(aamcf, pool,
                                              NGX_HTTP_AI_AUTH_REVOKE_SUB,
                                              &none, sub)
                  || (issuer->len
                      && ngx_http_ai_auth_is_revoked(aamcf, pool,
                                              NGX_HTTP_AI_AUTH_REVOKE_SUB,
                                              issuer, sub));
    }

    ngx_destroy_pool(pool);

    return revoked;
}


static ngx_uint_t
ngx_http_ai_auth_is_revoked(ngx_http_ai_auth_main_conf_t *aamcf,
    ngx_pool_t *pool, ngx_uint_t kind, ngx_str_t *issuer, ngx_str_t *value)
{
    int64_t     until;
    ngx_str_t   key, blob;
    ngx_uint_t  n;

    for (n = 0; n < NGX_HTTP_AI_AUTH_REVOKE_MAX; n++) {

        key = ngx_http_ai_auth_revoked_key(pool, kind, issuer, value, n);
        if (key.data == NULL) {
            return 1;
        }

        switch (aamcf->api->data_find(aamcf->revoked, &key, pool, &blob)) {

        case NGX_OK:
            break;

        case NGX_DECLINED:
            return 0;

        default:
            return 1;
        }

        ngx_memcpy(&until, blob.data, sizeof(int64_t));

        if (until == 0 || until > (int64_t) ngx_time()) {
            return 1;
        }
    }

    return 0;
}


static ngx_int_t
ngx_http_ai_auth_digest_init(ngx_log_t *log)
{
    if (ngx_http_ai_auth_md_ctx) {
        return NGX_OK;
    }

#if (OPENSSL_VERSION_NUMBER >= 0x30000000L && !defined LIBRESSL_VERSION_NUMBER)
    ngx_http_ai_auth_md = EVP_MD_fetch(NULL, "SHA256", NULL);
#else
    ngx_http_ai_auth_md = EVP_sha256();
#endif

    if (ngx_http_ai_auth_md) {
        ngx_http_ai_auth_md_ctx = EVP_MD_CTX_new();
    }

    if (ngx_http_ai_auth_md_ctx == NULL) {
        ngx_log_error(NGX_LOG_EMERG, log, 0,
                      "ai auth: OpenSSL has no SHA-256");
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_auth_sha256(u_char *dst, ngx_str_t *head, ngx_str_t *tail)
{
    EVP_MD_CTX  *ctx;

    ctx = ngx_http_ai_auth_md_ctx;

    if (EVP_DigestInit_ex(ctx, ngx_http_ai_auth_md, NULL) != 1
        || (head && EVP_DigestUpdate(ctx, head->data, head->len) != 1)
        || EVP_DigestUpdate(ctx, tail->data, tail->len) != 1
        || EVP_DigestFinal_ex(ctx, dst, NULL) != 1)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* RFC 2104; HMAC() of OpenSSL allocates and looks for the algorithm */

static ngx_int_t
ngx_http_ai_auth_hmac(u_char *dst, ngx_str_t *secret, ngx_str_t *text)
{
    u_char      key[NGX_HTTP_AI_AUTH_BLOCK], pad[NGX_HTTP_AI_AUTH_BLOCK];
    ngx_int_t   rc;
    ngx_str_t   head, inner;
    ngx_uint_t  i;

    ngx_memzero(key, NGX_HTTP_AI_AUTH_BLOCK);

    if (secret->len > NGX_HTTP_AI_AUTH_BLOCK) {
        if (ngx_http_ai_auth_sha256(key, NULL, secret) != NGX_OK) {
            return NGX_ERROR;
        }

    } else {
        ngx_memcpy(key, secret->data, secret->len);
    }

    head.data = pad;
    head.len = NGX_HTTP_AI_AUTH_BLOCK;

    for (i = 0; i < NGX_HTTP_AI_AUTH_BLOCK; i++) {
        pad[i] = key[i] ^ 0x36;
    }

    rc = ngx_http_ai_auth_sha256(dst, &head, text);

    if (rc == NGX_OK) {

        for (i = 0; i < NGX_HTTP_AI_AUTH_BLOCK; i++) {
            pad[i] = key[i] ^ 0x5c;
        }

        inner.data = dst;
        inner.len = NGX_HTTP_AI_AUTH_DIGEST;

        rc = ngx_http_ai_auth_sha256(dst, &head, &inner);
    }

    OPENSSL_cleanse(key, NGX_HTTP_AI_AUTH_BLOCK);
    OPENSSL_cleanse(pad, NGX_HTTP_AI_AUTH_BLOCK);

    return rc;
}
