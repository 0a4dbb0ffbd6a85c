
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <openssl/hmac.h>
#include <openssl/rsa.h>
#include "ngx_http_ai_auth_jwk.h"


/* keys of one set that a token is tried with */
#define NGX_HTTP_AI_JWK_TRIES      8


static ngx_http_ai_jwt_e ngx_http_ai_jwk_verify(ngx_http_ai_jwk_t *key,
    ngx_http_ai_jwt_t *jwt);
static ngx_http_ai_jwt_e ngx_http_ai_jwk_mac(ngx_http_ai_jwk_t *key,
    ngx_http_ai_jwt_t *jwt);
static int ngx_http_ai_jwk_der(ngx_http_ai_jwk_t *key, ngx_str_t *signature,
    u_char *dst);


const ngx_http_ai_jwk_alg_t  ngx_http_ai_jwk_algs[] = {
    { NGX_HTTP_AI_JWA_HS256, NGX_HTTP_AI_JWK_OCT, 32, EVP_sha256, NULL },
    { NGX_HTTP_AI_JWA_HS384, NGX_HTTP_AI_JWK_OCT, 48, EVP_sha384, NULL },
    { NGX_HTTP_AI_JWA_HS512, NGX_HTTP_AI_JWK_OCT, 64, EVP_sha512, NULL },
    { NGX_HTTP_AI_JWA_RS256, NGX_HTTP_AI_JWK_RSA, 32, EVP_sha256, NULL },
    { NGX_HTTP_AI_JWA_RS384, NGX_HTTP_AI_JWK_RSA, 48, EVP_sha384, NULL },
    { NGX_HTTP_AI_JWA_RS512, NGX_HTTP_AI_JWK_RSA, 64, EVP_sha512, NULL },
    { NGX_HTTP_AI_JWA_PS256, NGX_HTTP_AI_JWK_PSS, 32, EVP_sha256, NULL },
    { NGX_HTTP_AI_JWA_PS384, NGX_HTTP_AI_JWK_PSS, 48, EVP_sha384, NULL },
    { NGX_HTTP_AI_JWA_PS512, NGX_HTTP_AI_JWK_PSS, 64, EVP_sha512, NULL },
    { NGX_HTTP_AI_JWA_ES256, NGX_HTTP_AI_JWK_EC, 32, EVP_sha256, "P-256" },
    { NGX_HTTP_AI_JWA_ES384, NGX_HTTP_AI_JWK_EC, 48, EVP_sha384, "P-384" },
    { NGX_HTTP_AI_JWA_ES512, NGX_HTTP_AI_JWK_EC, 64, EVP_sha512, "P-521" },
    { NGX_HTTP_AI_JWA_EDDSA, NGX_HTTP_AI_JWK_OKP, 0, NULL, NULL },
    { NGX_HTTP_AI_JWA_ED25519, NGX_HTTP_AI_JWK_OKP, 0, NULL, "Ed25519" },
    { NGX_HTTP_AI_JWA_ED448, NGX_HTTP_AI_JWK_OKP, 0, NULL, "Ed448" },
    { 0, NGX_HTTP_AI_JWK_OCT, 0, NULL, NULL }
};


ngx_http_ai_jwt_e
ngx_http_ai_jwt_verify(ngx_http_ai_jwt_t *jwt, ngx_http_ai_jwks_t *jwks,
    ngx_http_ai_jwt_rules_t *rules)
{
    ngx_str_t           *type;
    ngx_uint_t           i, pass, tries, known;
    ngx_http_ai_jwk_t   *key;
    ngx_http_ai_jwt_e    rc;

    jwt->verified = 0;

    if (jwt->alg == 0 || (jwt->alg & rules->algs) == 0) {
        return NGX_HTTP_AI_JWT_ALG;
    }

    type = &jwt->type;

    if (rules->type.len) {

        if (type->len != rules->type.len
            || ngx_memcmp(type->data, rules->type.data, type->len) != 0)
        {
            return NGX_HTTP_AI_JWT_TYPE;
        }

    } else if (type->len >= 4
               && ngx_memcmp(type->data + type->len - 4, "+jwt", 4) == 0
               && !ngx_http_ai_jwk_is(type, "at+jwt"))
    {
        /* of a proof, a logout, a security event, and so on */

        return NGX_HTTP_AI_JWT_TYPE;
    }

    key = jwks->keys.elts;
    tries = 0;
    known = 0;

    /* those of the token's name, then those without a name */

    for (pass = 0; pass < 2; pass++) {

        for (i = 0; i < jwks->keys.nelts; i++) {

            if (key[i].alg->alg != jwt->alg) {
                continue;
            }

            if (jwt->kid.len == 0 || key[i].kid.len == 0) {

                if (pass == 0) {
                    continue;
                }

            } else if (pass == 1
                       || key[i].kid.len != jwt->kid.len
                       || ngx_memcmp(key[i].kid.data, jwt->kid.data,
                                     jwt->kid.len) != 0)
            {
                continue;
            }

            if (pass == 0 || jwt->kid.len == 0) {
                known = 1;
            }

            if (tries++ == NGX_HTTP_AI_JWK_TRIES) {
                return NGX_HTTP_AI_JWT_SIGNATURE;
            }

            rc = ngx_http_ai_jwk_verify(&key[i], jwt);

            if (rc == NGX_HTTP_AI_JWT_OK) {
                jwt->verified = 1;
                return rc;
            }

            if (rc == NGX_HTTP_AI_JWT_NO_MEMORY) {
                return rc;
            }
        }
    }

    return known ? NGX_HTTP_AI_JWT_SIGNATURE : NGX_HTTP_AI_JWT_NO_KEY;
}


static ngx_http_ai_jwt_e
ngx_http_ai_jwk_verify(ngx_http_ai_jwk_t *key, ngx_http_ai_jwt_t *jwt)
{
    int                           len;
    u_char                       *signature,
                                  der[16 + 2 * NGX_HTTP_AI_JWK_EC_MAX];
    size_t                        size;
    EVP_MD_CTX                   *ctx;
    EVP_PKEY_CTX                 *pctx;
    ngx_http_ai_jwt_e             rc;
    const ngx_http_ai_jwk_alg_t  *alg;

    alg = key->alg;

    if (alg->alg != jwt->alg || jwt->signature.len != key->size) {
        return NGX_HTTP_AI_JWT_SIGNATURE;
    }

    if (alg->type == NGX_HTTP_AI_JWK_OCT) {
        return ngx_http_ai_jwk_mac(key, jwt);
    }

    signature = jwt->signature.data;
    size = jwt->signature.len;

    if (alg->type == NGX_HTTP_AI_JWK_EC) {
        len = ngx_http_ai_jwk_der(key, &jwt->signature, der);

        if (len <= 0) {
            return NGX_HTTP_AI_JWT_SIGNATURE;
        }

        signature = der;
        size = len;
    }

    ctx = EVP_MD_CTX_new();

    if (ctx == NULL) {
        ERR_clear_error();
        return NGX_HTTP_AI_JWT_NO_MEMORY;
    }

    rc = NGX_HTTP_AI_JWT_SIGNATURE;

    if (EVP_DigestVerifyInit(ctx, &pctx, alg->md ? alg->md() : NULL, NULL,
                             key->pkey)
        != 1)
    {
        goto done;
    }

    if (alg->type == NGX_HTTP_AI_JWK_RSA
        && EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PADDING) <= 0)
    {
        goto done;
    }

    if (alg->type == NGX_HTTP_AI_JWK_PSS
        && (EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING) <= 0
            || EVP_PKEY_CTX_set_rsa_mgf1_md(pctx, alg->md()) <= 0
            || EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx, (int) alg->hash) <= 0))
    {
        goto done;
    }

    if (EVP_DigestVerify(ctx, signature, size, jwt->signing_input.data,
                         jwt->signing_input.len)
        == 1)
    {
        rc = NGX_HTTP_AI_JWT_OK;
    }

done:

    EVP_MD_CTX_free(ctx);

    /* what is left there would be reported of another connection */

    if (rc != NGX_HTTP_AI_JWT_OK) {
        ERR_clear_error();
    }

    return rc;
}


static ngx_http_ai_jwt_e
ngx_http_ai_jwk_mac(ngx_http_ai_jwk_t *key, ngx_http_ai_jwt_t *jwt)
{
    u_char             mac[EVP_MAX_MD_SIZE];
    unsigned int       len;
    ngx_http_ai_jwt_e  rc;

    rc = NGX_HTTP_AI_JWT_SIGNATURE;
    len = 0;

    if (HMAC(key->alg->md(), key->secret.data, (int) key->secret.len,
             jwt->signing_input.data, jwt->signing_input.len, mac, &len)
        == NULL)
    {
        ERR_clear_error();
        return NGX_HTTP_AI_JWT_NO_MEMORY;
    }

    if (len == key->alg->hash
        && len == jwt->signature.len
        && CRYPTO_memcmp(mac, jwt->signature.data, len) == 0)
    {
        rc = NGX_HTTP_AI_JWT_OK;
    }

    OPENSSL_cleanse(mac, sizeof(mac));

    return rc;
}


/* r || s to what the library reads; both in [1, n - 1] */

static int
ngx_http_ai_jwk_der(ngx_http_ai_jwk_t *key, ngx_str_t *signature, u_char *dst)
{
    int         len;
    u_char     *p, *d;
    size_t      size, n, i, k;

    size = key->curve->size;

    /* two integers of at most 67 bytes, with a header each */

    d = dst + 3;

    for (i = 0; i < 2; i++) {
        p = signature->data + i * size;

        if (ngx_memcmp(p, key->curve->order, size) >= 0) {
            return 0;
        }

        for (k = 0; k < size && p[k] == 0; k++) { /* void */ }

        if (k == size) {
            return 0;
        }

        n = size - k;

        *d++ = 0x02;
        *d++ = (u_char) (n + (p[k] >> 7));

        if (p[k] & 0x80) {
            *d++ = 0;
        }

        d = ngx_cpymem(d, p + k, n);
    }

    len = (int) (d - dst) - 3;

    if (len < 0x80) {
        dst[0] = 0x30;
        dst[1] = (u_char) len;
        ngx_memmove(dst + 2, dst + 3, len);
        return len + 2;
    }

    dst[0] = 0x30;
    dst[1] = 0x81;
    dst[2] = (u_char) len;

    return len + 3;
}
