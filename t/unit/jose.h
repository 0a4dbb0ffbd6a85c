
/*
 * Copyright (C) nginx AI gateway authors
 */


/* Keys and tokens made by the tests themselves. */


#ifndef _JOSE_H_INCLUDED_
#define _JOSE_H_INCLUDED_


#include "test.h"
#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rsa.h>
#include "ngx_http_ai_auth_jwt.h"


#define JOSE_ALL  0x7fff

#define jose_str(s)  { sizeof(s) - 1, (u_char *) s }


typedef struct {
    const char      *alg;
    const char      *kid;
    EVP_PKEY        *pkey;
    u_char           secret[64];
    size_t           len;           /* of the secret */
    char             jwk[2048];
    char             members[1600]; /* of the JWK: kty and the key */
} jose_key_t;


static void
jose_die(const char *what)
{
    fprintf(stderr, "%s\n", what);
    abort();
}


static ngx_str_t
jose_dup(ngx_pool_t *pool, const void *data, size_t len)
{
    ngx_str_t  s;

    s.len = len;
    s.data = ngx_pnalloc(pool, len);

    if (s.data == NULL) {
        jose_die("no memory");
    }

    if (len) {
        memcpy(s.data, data, len);
    }

    return s;
}


test_unused
static ngx_str_t
jose_text(ngx_pool_t *pool, const char *text)
{
    return jose_dup(pool, text, strlen(text));
}


static ngx_str_t
jose_b64(ngx_pool_t *pool, const void *data, size_t len)
{
    ngx_str_t  src, dst;

    src.data = (u_char *) data;
    src.len = len;

    dst.data = ngx_pnalloc(pool, len / 3 * 4 + 5);
    if (dst.data == NULL) {
        jose_die("no memory");
    }

    ngx_encode_base64url(&dst, &src);

    return dst;
}


static const EVP_MD *
jose_md(const char *alg)
{
    if (strcmp(alg + 2, "256") == 0) {
        return EVP_sha256();
    }

    return strcmp(alg + 2, "384") == 0 ? EVP_sha384() : EVP_sha512();
}


/* "P-256" and the size of a coordinate of ES*, or NULL */

static const char *
jose_curve(const char *alg, size_t *size)
{
    if (strncmp(alg, "ES", 2) != 0) {
        return NULL;
    }

    if (strcmp(alg, "ES256") == 0) {
        *size = 32;
        return "P-256";
    }

    if (strcmp(alg, "ES384") == 0) {
        *size = 48;
        return "P-384";
    }

    *size = 66;
    return "P-521";
}


static void
jose_bn(ngx_pool_t *pool, EVP_PKEY *pkey, const char *name, size_t size,
    ngx_str_t *text)
{
    int      n;
    BIGNUM  *bn;
    u_char   buf[1024];

    bn = NULL;

    if (EVP_PKEY_get_bn_param(pkey, name, &bn) != 1) {
        jose_die(name);
    }

    n = size ? (int) size : BN_num_bytes(bn);

    if (BN_bn2binpad(bn, buf, n) != n) {
        jose_die(name);
    }

    *text = jose_b64(pool, buf, n);

    BN_free(bn);
}


/* a new key; kid may be NULL */

test_unused
static void
jose_new(ngx_pool_t *pool, jose_key_t *key, const char *alg, const char *kid)
{
    size_t        i, size;
    u_char        raw[64];
    ngx_str_t     a, b;
    const char   *curve;

    static u_char  seed = 1;

    memset(key, 0, sizeof(jose_key_t));

    key->alg = alg;
    key->kid = kid;

    curve = jose_curve(alg, &size);

    if (alg[0] == 'H') {
        key->len = 64;

        for (i = 0; i < key->len; i++) {
            key->secret[i] = (u_char) (i * 7 + seed);
        }

        seed += 3;

        a = jose_b64(pool, key->secret, key->len);

        snprintf(key->members, sizeof(key->members),
                 "\"kty\":\"oct\",\"k\":\"%.*s\"", (int) a.len, a.data);

    } else if (curve) {
        key->pkey = EVP_EC_gen(curve);

        if (key->pkey == NULL) {
            jose_die(curve);
        }

        jose_bn(pool, key->pkey, OSSL_PKEY_PARAM_EC_PUB_X, size, &a);
        jose_bn(pool, key->pkey, OSSL_PKEY_PARAM_EC_PUB_Y, size, &b);

        snprintf(key->members, sizeof(key->members),
                 "\"kty\":\"EC\",\"crv\":\"%s\",\"x\":\"%.*s\",\"y\":"
                 "\"%.*s\"", curve, (int) a.len, a.data, (int) b.len, b.data);

    } else if (alg[0] == 'E') {
        curve = strcmp(alg, "Ed448") == 0 ? "Ed448" : "Ed25519";

        key->pkey = EVP_PKEY_Q_keygen(NULL, NULL,
                                      strcmp(curve, "Ed448") == 0
                                      ? "ED448" : "ED25519");
        size = sizeof(raw);

        if (key->pkey == NULL
            || EVP_PKEY_get_raw_public_key(key->pkey, raw, &size) != 1)
        {
            jose_die(curve);
        }

        a = jose_b64(pool, raw, size);

        snprintf(key->members, sizeof(key->members),
                 "\"kty\":\"OKP\",\"crv\":\"%s\",\"x\":\"%.*s\"", curve,
                 (int) a.len, a.data);

    } else {
        key->pkey = EVP_RSA_gen(2048);

        if (key->pkey == NULL) {
            jose_die("RSA");
        }

        jose_bn(pool, key->pkey, OSSL_PKEY_PARAM_RSA_N, 0, &a);
        jose_bn(pool, key->pkey, OSSL_PKEY_PARAM_RSA_E, 0, &b);

        snprintf(key->members, sizeof(key->members),
                 "\"kty\":\"RSA\",\"n\":\"%.*s\",\"e\":\"%.*s\"",
                 (int) a.len, a.data, (int) b.len, b.data);
    }

    snprintf(key->jwk, sizeof(key->jwk), "{%s,\"alg\":\"%s\",\"use\":\"sig\""
             "%s%s%s}", key->members, alg, kid ? ",\"kid\":\"" : "",
             kid ? kid : "", kid ? "\"" : "");
}


test_unused
static void
jose_free(jose_key_t *key)
{
    EVP_PKEY_free(key->pkey);
}


/* HMAC of any bytes as the secret */

static ngx_str_t
jose_mac(ngx_pool_t *pool, const char *alg, const void *secret, size_t len,
    ngx_str_t *input)
{
    u_char        mac[EVP_MAX_MD_SIZE];
    unsigned int  n;

    if (HMAC(jose_md(alg), secret, (int) len, input->data, input->len, mac,
             &n) == NULL)
    {
        jose_die("HMAC");
    }

    return jose_dup(pool, mac, n);
}


/* salt: of PS*, 0 for that of the hash's length */

static ngx_str_t
jose_signature(ngx_pool_t *pool, jose_key_t *key, ngx_str_t *input, int salt)
{
    size_t         len, size;
    u_char         buf[1024], raw[2 * 66];
    ECDSA_SIG     *sig;
    EVP_MD_CTX    *ctx;
    const u_char  *p;
    EVP_PKEY_CTX  *pctx;

    if (key->pkey == NULL) {
        return jose_mac(pool, key->alg, key->secret, key->len, input);
    }

    len = sizeof(buf);
    ctx = EVP_MD_CTX_new();

    if (EVP_DigestSignInit(ctx, &pctx, (key->alg[1] == 'd')
                                       ? NULL : jose_md(key->alg), NULL,
                           key->pkey)
        != 1)
    {
        jose_die("sign");
    }

    if (key->alg[0] == 'P'
        && (EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING) <= 0
            || EVP_PKEY_CTX_set_rsa_pss_saltlen(pctx,
                                     salt ? salt : RSA_PSS_SALTLEN_DIGEST)
               <= 0))
    {
        jose_die("pss");
    }

    if (EVP_DigestSign(ctx, buf, &len, input->data, input->len) != 1) {
        jose_die("sign");
    }

    EVP_MD_CTX_free(ctx);

    if (jose_curve(key->alg, &size) == NULL) {
        return jose_dup(pool, buf, len);
    }

    p = buf;
    sig = d2i_ECDSA_SIG(NULL, &p, (long) len);

    if (sig == NULL
        || BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, (int) size) < 0
        || BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + size, (int) size) < 0)
    {
        jose_die("ecdsa");
    }

    ECDSA_SIG_free(sig);

    return jose_dup(pool, raw, 2 * size);
}


/* b64(header) "." b64(payload) */

static ngx_str_t
jose_input(ngx_pool_t *pool, ngx_str_t *header, ngx_str_t *payload)
{
    u_char     *p;
    ngx_str_t   h, b, s;

    h = jose_b64(pool, header->data, header->len);
    b = jose_b64(pool, payload->data, payload->len);

    s.len = h.len + 1 + b.len;
    s.data = ngx_pnalloc(pool, s.len);

    if (s.data == NULL) {
        jose_die("no memory");
    }

    p = ngx_cpymem(s.data, h.data, h.len);
    *p++ = '.';
    ngx_memcpy(p, b.data, b.len);

    return s;
}


static ngx_str_t
jose_join(ngx_pool_t *pool, ngx_str_t *input, ngx_str_t *signature)
{
    u_char     *p;
    ngx_str_t   b, s;

    b = jose_b64(pool, signature->data, signature->len);

    s.len = input->len + 1 + b.len;
    s.data = ngx_pnalloc(pool, s.len);

    if (s.data == NULL) {
        jose_die("no memory");
    }

    p = ngx_cpymem(s.data, input->data, input->len);
    *p++ = '.';
    ngx_memcpy(p, b.data, b.len);

    return s;
}


test_unused
static ngx_str_t
jose_sign(ngx_pool_t *pool, jose_key_t *key, ngx_str_t *header,
    ngx_str_t *payload)
{
    ngx_str_t  input, signature;

    input = jose_input(pool, header, payload);
    signature = jose_signature(pool, key, &input, 0);

    return jose_join(pool, &input, &signature);
}


/* a token with the plainest header, and "more" in it */

test_unused
static ngx_str_t
jose_token(ngx_pool_t *pool, jose_key_t *key, const char *more,
    const char *payload)
{
    char       buf[8192];
    ngx_str_t  header, body;

    snprintf(buf, sizeof(buf), "{\"alg\":\"%s\"%s%s%s%s%s}", key->alg,
             key->kid ? ",\"kid\":\"" : "", key->kid ? key->kid : "",
             key->kid ? "\"" : "", more[0] ? "," : "", more);

    header.data = (u_char *) buf;
    header.len = strlen(buf);

    body.data = (u_char *) payload;
    body.len = strlen(payload);

    return jose_sign(pool, key, &header, &body);
}


/* a key set of one JWK or of several with commas */

test_unused
static ngx_http_ai_jwks_t *
jose_set(ngx_pool_t *pool, const char *keys, ngx_uint_t algs)
{
    char                 buf[16384];
    ngx_int_t            rc;
    ngx_str_t            text;
    const char          *error;
    ngx_http_ai_jwks_t  *jwks;

    snprintf(buf, sizeof(buf), "{\"keys\":[%s]}", keys);

    text = jose_text(pool, buf);

    rc = ngx_http_ai_jwks_parse(pool, &text, algs, 64, &jwks, &error);

    /* a set must not point into its text */

    ngx_memset(text.data, 'x', text.len);

    return (rc == NGX_OK) ? jwks : NULL;
}


/* a JWS of any payload: is its signature that of a key of the set? */

test_unused
static ngx_http_ai_jwt_e
jose_verify(ngx_pool_t *pool, ngx_str_t *token, ngx_http_ai_jwks_t *jwks,
    ngx_uint_t algs)
{
    u_char                   *copy;
    ngx_str_t                 s;
    ngx_http_ai_jwt_t         jwt;
    ngx_http_ai_jwt_e         rc;
    ngx_http_ai_jwt_rules_t   rules;

    ngx_memzero(&rules, sizeof(rules));
    rules.algs = algs;

    copy = test_copy(token->data, token->len);

    s.data = copy;
    s.len = token->len;

    rc = ngx_http_ai_jws_parse(pool, &s, &jwt);

    if (rc == NGX_HTTP_AI_JWT_OK) {
        rc = ngx_http_ai_jwt_verify(&jwt, jwks, &rules);

        if (jwt.verified != (rc == NGX_HTTP_AI_JWT_OK)) {
            jose_die("\"verified\" is not as the answer");
        }
    }

    free(copy);

    if (ERR_peek_error() != 0) {
        jose_die("an error is left in the library's queue");
    }

    return rc;
}


#endif /* _JOSE_H_INCLUDED_ */
