
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_auth_jwk.h"


#define NGX_HTTP_AI_JWKS_DEPTH     16
#define NGX_HTTP_AI_JWKS_NODES     65536


static void ngx_http_ai_jwks_cleanup(void *data);
static void ngx_http_ai_jwks_drop(ngx_http_ai_jwks_t *jwks, ngx_uint_t i);
static ngx_int_t ngx_http_ai_jwks_key(ngx_http_ai_jwk_ctx_t *ctx);
static ngx_int_t ngx_http_ai_jwk_usable(ngx_http_ai_jwk_ctx_t *ctx);
static ngx_int_t ngx_http_ai_jwk_member(ngx_http_ai_jwk_ctx_t *ctx,
    const char *name, ngx_str_t *value);
static ngx_int_t ngx_http_ai_jwk_oct(ngx_http_ai_jwk_ctx_t *ctx);
static ngx_uint_t ngx_http_ai_jwks_ambiguous(ngx_http_ai_jwks_t *jwks);
static ngx_uint_t ngx_http_ai_jwk_same(ngx_http_ai_jwk_t *a,
    ngx_http_ai_jwk_t *b);


ngx_http_ai_jwks_t *
ngx_http_ai_jwks_create(ngx_pool_t *pool)
{
    ngx_pool_cleanup_t  *cln;
    ngx_http_ai_jwks_t  *jwks;

    jwks = ngx_pcalloc(pool, sizeof(ngx_http_ai_jwks_t));
    if (jwks == NULL) {
        return NULL;
    }

    jwks->pool = pool;

    if (ngx_array_init(&jwks->keys, pool, 8, sizeof(ngx_http_ai_jwk_t))
        != NGX_OK)
    {
        return NULL;
    }

    cln = ngx_pool_cleanup_add(pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    cln->handler = ngx_http_ai_jwks_cleanup;
    cln->data = jwks;

    return jwks;
}


static void
ngx_http_ai_jwks_cleanup(void *data)
{
    ngx_http_ai_jwks_t  *jwks = data;

    while (jwks->keys.nelts) {
        ngx_http_ai_jwks_drop(jwks, jwks->keys.nelts - 1);
    }
}


static void
ngx_http_ai_jwks_drop(ngx_http_ai_jwks_t *jwks, ngx_uint_t i)
{
    ngx_http_ai_jwk_t  *key;

    key = jwks->keys.elts;

    /* a secret is the key's own, a public key is counted */

    if (key[i].secret.len) {
        OPENSSL_cleanse(key[i].secret.data, key[i].secret.len);
    }

    EVP_PKEY_free(key[i].pkey);

    jwks->keys.nelts--;

    if (i < jwks->keys.nelts) {
        ngx_memmove(&key[i], &key[i + 1],
                    (jwks->keys.nelts - i) * sizeof(ngx_http_ai_jwk_t));
    }
}


ngx_uint_t
ngx_http_ai_jwks_count(ngx_http_ai_jwks_t *jwks, ngx_uint_t *ignored)
{
    if (ignored) {
        *ignored = jwks->ignored;
    }

    return jwks->keys.nelts;
}


const char *
ngx_http_ai_jwks_why(ngx_http_ai_jwks_t *jwks)
{
    return jwks->why;
}


ngx_int_t
ngx_http_ai_jwks_add_secret(ngx_http_ai_jwks_t *jwks, ngx_str_t *secret,
    ngx_uint_t algs, const char **error)
{
    ngx_uint_t                    added;
    ngx_http_ai_jwk_t            *key;
    const ngx_http_ai_jwk_alg_t  *alg;

    added = 0;

    if ((algs & NGX_HTTP_AI_JWA_HMAC) == 0) {
        *error = "no algorithm of the secret is allowed";
        return NGX_DECLINED;
    }

    for (alg = ngx_http_ai_jwk_algs; alg->alg; alg++) {

        if (alg->type != NGX_HTTP_AI_JWK_OCT
            || (alg->alg & algs) == 0
            || secret->len < alg->hash)
        {
            continue;
        }

        key = ngx_array_push(&jwks->keys);
        if (key == NULL) {
            *error = "no memory";
            return NGX_ERROR;
        }

        ngx_memzero(key, sizeof(ngx_http_ai_jwk_t));

        key->n = NGX_MAX_UINT32_VALUE;
        key->alg = alg;
        key->size = alg->hash;

        key->secret.data = ngx_pnalloc(jwks->pool, secret->len);
        if (key->secret.data == NULL) {
            jwks->keys.nelts--;
            *error = "no memory";
            return NGX_ERROR;
        }

        ngx_memcpy(key->secret.data, secret->data, secret->len);
        key->secret.len = secret->len;

        added = 1;
    }

    if (!added) {
        *error = "the secret is shorter than the hash of the algorithm";
        return NGX_DECLINED;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_jwks_parse(ngx_pool_t *pool, ngx_str_t *text, ngx_uint_t algs,
    ngx_uint_t max, ngx_http_ai_jwks_t **result, const char **error)
{
    ngx_int_t               rc;
    ngx_str_t               kty;
    ngx_uint_t              n, keys, public;
    ngx_http_ai_json_t      j;
    ngx_http_ai_jwks_t     *jwks;
    ngx_http_ai_jwk_ctx_t   ctx;

    ngx_memzero(&j, sizeof(ngx_http_ai_json_t));

    j.pool = pool;
    j.max_depth = NGX_HTTP_AI_JWKS_DEPTH;
    j.max_nodes = NGX_HTTP_AI_JWKS_NODES;

    *error = "no memory";

    rc = ngx_http_ai_json_parse(&j, text->data, text->len);

    if (rc == NGX_OK) {
        rc = ngx_http_ai_jwt_unique(pool, &j);

        if (rc == NGX_DECLINED) {
            *error = "a name is there twice";
            return NGX_DECLINED;
        }
    }

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (rc == NGX_DECLINED) {
        *error = j.limit ? j.error : "it is not JSON";
        return NGX_DECLINED;
    }

    keys = ngx_http_ai_json_member(&j, 0, "keys");

    if (ngx_http_ai_json_type(&j, keys) != NGX_HTTP_AI_JSON_ARRAY) {
        *error = (ngx_http_ai_json_member(&j, 0, "kty")
                  != NGX_HTTP_AI_JSON_NONE)
                 ? "it is a key, not a key set: {\"keys\": [...]} is expected"
                 : "it has no array \"keys\"";
        return NGX_DECLINED;
    }

    jwks = ngx_http_ai_jwks_create(pool);
    if (jwks == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(&ctx, sizeof(ngx_http_ai_jwk_ctx_t));

    ctx.jwks = jwks;
    ctx.json = &j;

    /* a set with public keys is meant to be public: no place for a secret */

    public = 0;

    for (n = ngx_http_ai_json_first(&j, keys);
         n != NGX_HTTP_AI_JSON_NONE;
         n = ngx_http_ai_json_next(&j, keys, n))
    {
        ctx.node = n;

        if (ngx_http_ai_jwk_member(&ctx, "kty", &kty) == NGX_OK
            && !ngx_http_ai_jwk_is(&kty, "oct"))
        {
            public = 1;
        }
    }

    for (n = ngx_http_ai_json_first(&j, keys);
         n != NGX_HTTP_AI_JSON_NONE;
         n = ngx_http_ai_json_next(&j, keys, n))
    {
        ctx.node = n;
        ctx.n = n;
        ctx.algs = algs;
        ctx.why = NULL;

        if (public) {
            ctx.algs &= ~ (ngx_uint_t) NGX_HTTP_AI_JWA_HMAC;
        }

        if (max == 0) {
            ctx.why = "too many keys";
            rc = NGX_DECLINED;

        } else {
            rc = ngx_http_ai_jwks_key(&ctx);
        }

        if (rc == NGX_ERROR) {
            ERR_clear_error();
            return NGX_ERROR;
        }

        if (rc == NGX_OK) {
            max--;
            continue;
        }

        ERR_clear_error();

        jwks->ignored++;

        if (jwks->why == NULL) {
            jwks->why = ctx.why ? ctx.why : "malformed key";
        }
    }

    n = ngx_http_ai_jwks_ambiguous(jwks);

    if (n) {
        jwks->ignored += n;

        if (jwks->why == NULL) {
            jwks->why = "different keys with the same \"kid\"";
        }
    }

    (void) ngx_pfree(pool, j.nodes);

    *error = NULL;
    *result = jwks;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_jwks_key(ngx_http_ai_jwk_ctx_t *ctx)
{
    ngx_int_t  rc;
    ngx_str_t  kty, alg, kid;

    if (ngx_http_ai_json_type(ctx->json, ctx->node)
        != NGX_HTTP_AI_JSON_OBJECT)
    {
        return NGX_DECLINED;
    }

    if (ngx_http_ai_json_member(ctx->json, ctx->node, "kty")
        == NGX_HTTP_AI_JSON_NONE)
    {
        ctx->why = "a key without \"kty\"";
        return NGX_DECLINED;
    }

    rc = ngx_http_ai_jwk_member(ctx, "kty", &kty);

    if (rc != NGX_OK) {
        return rc;
    }

    ngx_str_null(&ctx->kid);

    if (ngx_http_ai_json_member(ctx->json, ctx->node, "kid")
        != NGX_HTTP_AI_JSON_NONE)
    {
        rc = ngx_http_ai_jwk_member(ctx, "kid", &kid);

        if (rc != NGX_OK) {
            return rc;
        }

        /* the text need not live as long as the keys */

        ctx->kid.data = ngx_pstrdup(ctx->jwks->pool, &kid);
        if (ctx->kid.data == NULL) {
            return NGX_ERROR;
        }

        ctx->kid.len = kid.len;
    }

    rc = ngx_http_ai_jwk_usable(ctx);

    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_http_ai_json_member(ctx->json, ctx->node, "alg")
        != NGX_HTTP_AI_JSON_NONE)
    {
        rc = ngx_http_ai_jwk_member(ctx, "alg", &alg);

        if (rc != NGX_OK) {
            return rc;
        }

        ctx->algs &= ngx_http_ai_jwa_find(&alg);

        if (ctx->algs == 0) {
            ctx->why = "a key for an algorithm that is not allowed";
            return NGX_DECLINED;
        }
    }

    if (ngx_http_ai_jwk_is(&kty, "RSA")) {
        return ngx_http_ai_jwk_rsa(ctx);
    }

    if (ngx_http_ai_jwk_is(&kty, "oct")) {
        return ngx_http_ai_jwk_oct(ctx);
    }

    if (!ngx_http_ai_jwk_is(&kty, "EC") && !ngx_http_ai_jwk_is(&kty, "OKP")) {
        ctx->why = "a key of an unknown kind";
        return NGX_DECLINED;
    }

    rc = ngx_http_ai_jwk_member(ctx, "crv", &ctx->crv);

    if (rc != NGX_OK) {
        return rc;
    }

    return (kty.len == 2) ? ngx_http_ai_jwk_ec(ctx) : ngx_http_ai_jwk_okp(ctx);
}


/* meant for signatures, and without the part that makes them */

static ngx_int_t
ngx_http_ai_jwk_usable(ngx_http_ai_jwk_ctx_t *ctx)
{
    ngx_int_t            rc;
    ngx_str_t            value;
    ngx_uint_t           i, node, verify;
    ngx_http_ai_json_t  *j;

    j = ctx->json;

    if (ngx_http_ai_json_member(j, ctx->node, "use")
        != NGX_HTTP_AI_JSON_NONE)
    {
        rc = ngx_http_ai_jwk_member(ctx, "use", &value);

        if (rc != NGX_OK) {
            return rc;
        }

        if (!ngx_http_ai_jwk_is(&value, "sig")) {
            ctx->why = "a key that is not for signatures (\"use\")";
            return NGX_DECLINED;
        }
    }

    node = ngx_http_ai_json_member(j, ctx->node, "key_ops");

    if (node != NGX_HTTP_AI_JSON_NONE) {

        if (j->nodes[node].type != NGX_HTTP_AI_JSON_ARRAY) {
            return NGX_DECLINED;
        }

        verify = 0;

        for (i = ngx_http_ai_json_first(j, node);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, node, i))
        {
            if (j->nodes[i].type != NGX_HTTP_AI_JSON_STRING) {
                return NGX_DECLINED;
            }

            if (ngx_http_ai_json_key_is(j, i, "verify")) {
                verify = 1;
            }
        }

        if (!verify) {
            ctx->why = "a key that is not for signatures (\"key_ops\")";
            return NGX_DECLINED;
        }
    }

    /* who can read the set could sign */

    if (ngx_http_ai_json_member(j, ctx->node, "d") != NGX_HTTP_AI_JSON_NONE) {
        ctx->why = "a private key: only its public part belongs here";
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_jwk_member(ngx_http_ai_jwk_ctx_t *ctx, const char *name,
    ngx_str_t *value)
{
    ngx_str_t   raw;
    ngx_uint_t  node;

    node = ngx_http_ai_json_get(ctx->json, ctx->node, name, ngx_strlen(name));

    if (ngx_http_ai_json_type(ctx->json, node) != NGX_HTTP_AI_JSON_STRING) {
        return NGX_DECLINED;
    }

    raw = ngx_http_ai_json_raw(ctx->json, node);

    return ngx_http_ai_json_unescape_str(ctx->jwks->pool, &raw, value);
}


ngx_int_t
ngx_http_ai_jwk_bytes(ngx_http_ai_jwk_ctx_t *ctx, const char *name,
    ngx_str_t *value)
{
    ngx_int_t  rc;
    ngx_str_t  text;

    rc = ngx_http_ai_jwk_member(ctx, name, &text);

    if (rc != NGX_OK) {
        return rc;
    }

    return ngx_http_ai_jwt_base64url(ctx->jwks->pool, &text, value);
}


ngx_uint_t
ngx_http_ai_jwk_is(ngx_str_t *value, const char *text)
{
    return value->len == ngx_strlen(text)
           && ngx_memcmp(value->data, text, value->len) == 0;
}


/* a key object for each algorithm of the type that is allowed */

ngx_int_t
ngx_http_ai_jwk_add(ngx_http_ai_jwk_ctx_t *ctx, ngx_http_ai_jwk_type_e type,
    ngx_http_ai_jwk_t *proto)
{
    ngx_uint_t                    added;
    ngx_http_ai_jwk_t            *key;
    const ngx_http_ai_jwk_alg_t  *alg;

    added = 0;

    for (alg = ngx_http_ai_jwk_algs; alg->alg; alg++) {

        if ((alg->alg & ctx->algs) == 0) {
            continue;
        }

        if (alg->type != type
            && (type != NGX_HTTP_AI_JWK_RSA
                || alg->type != NGX_HTTP_AI_JWK_PSS))
        {
            continue;
        }

        if (alg->curve && !ngx_http_ai_jwk_is(&ctx->crv, alg->curve)) {
            continue;
        }

        key = ngx_array_push(&ctx->jwks->keys);
        if (key == NULL) {
            return NGX_ERROR;
        }

        *key = *proto;

        key->alg = alg;
        key->kid = ctx->kid;
        key->n = ctx->n;

        if (EVP_PKEY_up_ref(key->pkey) != 1) {
            ctx->jwks->keys.nelts--;
            return NGX_ERROR;
        }

        added = 1;
    }

    if (!added) {
        ctx->why = "a key for an algorithm that is not allowed";
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_jwk_oct(ngx_http_ai_jwk_ctx_t *ctx)
{
    ngx_int_t           rc;
    ngx_str_t           secret;
    ngx_uint_t          i, n;
    ngx_http_ai_jwk_t  *key;

    if ((ctx->algs & NGX_HTTP_AI_JWA_HMAC) == 0) {
        ctx->why = "a shared secret where public keys are expected";
        return NGX_DECLINED;
    }

    rc = ngx_http_ai_jwk_bytes(ctx, "k", &secret);

    if (rc != NGX_OK) {
        return rc;
    }

    n = ctx->jwks->keys.nelts;

    rc = ngx_http_ai_jwks_add_secret(ctx->jwks, &secret, ctx->algs, &ctx->why);

    if (secret.len) {
        OPENSSL_cleanse(secret.data, secret.len);
    }

    key = ctx->jwks->keys.elts;

    for (i = n; i < ctx->jwks->keys.nelts; i++) {
        key[i].kid = ctx->kid;
        key[i].n = ctx->n;
    }

    return rc;
}


/*
 * "kid" and algorithm name one key.  The same key twice is one; of different
 * keys none is used, as a set that anybody has added to is like that.
 */

static ngx_uint_t
ngx_http_ai_jwks_ambiguous(ngx_http_ai_jwks_t *jwks)
{
    ngx_uint_t          i, k, n, last;
    ngx_http_ai_jwk_t  *key;

    key = jwks->keys.elts;

    for (i = 0; i < jwks->keys.nelts; i++) {

        if (key[i].kid.len == 0 || key[i].alg == NULL) {
            continue;
        }

        for (k = i + 1; k < jwks->keys.nelts; /* void */ ) {

            if (key[k].alg != key[i].alg
                || key[k].kid.len != key[i].kid.len
                || ngx_memcmp(key[k].kid.data, key[i].kid.data,
                              key[i].kid.len) != 0)
            {
                k++;
                continue;
            }

            if (ngx_http_ai_jwk_same(&key[i], &key[k])) {
                ngx_http_ai_jwks_drop(jwks, k);
                continue;
            }

            key[i].size = 0;
            key[k++].size = 0;
        }
    }

    n = 0;
    last = NGX_MAX_UINT32_VALUE;

    for (i = 0; i < jwks->keys.nelts; /* void */ ) {

        if (key[i].size) {
            i++;
            continue;
        }

        /* the key objects of a JWK are side by side */

        if (key[i].n != last) {
            last = key[i].n;
            n++;
        }

        ngx_http_ai_jwks_drop(jwks, i);
    }

    return n;
}


static ngx_uint_t
ngx_http_ai_jwk_same(ngx_http_ai_jwk_t *a, ngx_http_ai_jwk_t *b)
{
    if (a->size == 0 || a->size != b->size) {
        return 0;
    }

    if (a->pkey == NULL) {
        return a->secret.len == b->secret.len
               && CRYPTO_memcmp(a->secret.data, b->secret.data,
                                a->secret.len) == 0;
    }

    return b->pkey != NULL
#if (NGX_HTTP_AI_JWK_PROVIDERS)
           && EVP_PKEY_eq(a->pkey, b->pkey) == 1;
#else
           && EVP_PKEY_cmp(a->pkey, b->pkey) == 1;
#endif
}
