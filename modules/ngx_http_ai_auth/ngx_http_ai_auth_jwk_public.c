
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <openssl/ec.h>
#include <openssl/rsa.h>
#include "ngx_http_ai_auth_jwk.h"

#if (NGX_HTTP_AI_JWK_PROVIDERS)
#include <openssl/core_names.h>
#include <openssl/param_build.h>
#endif


#define NGX_HTTP_AI_JWK_RSA_MIN    2048
#define NGX_HTTP_AI_JWK_RSA_MAX    8192
#define NGX_HTTP_AI_JWK_E_MAX      64


static const char *ngx_http_ai_jwk_rsa_bad(BIGNUM *n, BIGNUM *e);
static EVP_PKEY *ngx_http_ai_jwk_rsa_make(BIGNUM *n, BIGNUM *e);
static EVP_PKEY *ngx_http_ai_jwk_ec_make(
    const ngx_http_ai_jwk_curve_t *curve, u_char *point);
static ngx_uint_t ngx_http_ai_jwk_small_order(ngx_str_t *x);


static const ngx_http_ai_jwk_curve_t  ngx_http_ai_jwk_curves[] = {

    { "P-256", "prime256v1", NID_X9_62_prime256v1, 32,
      "\xff\xff\xff\xff\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff"
      "\xbc\xe6\xfa\xad\xa7\x17\x9e\x84\xf3\xb9\xca\xc2\xfc\x63\x25\x51" },

    { "P-384", "secp384r1", NID_secp384r1, 48,
      "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
      "\xff\xff\xff\xff\xff\xff\xff\xff\xc7\x63\x4d\x81\xf4\x37\x2d\xdf"
      "\x58\x1a\x0d\xb2\x48\xb0\xa7\x7a\xec\xec\x19\x6a\xcc\xc5\x29\x73" },

    { "P-521", "secp521r1", NID_secp521r1, 66,
      "\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
      "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"
      "\xff\xfa\x51\x86\x87\x83\xbf\x2f\x96\x6b\x7f\xcc\x01\x48\xf7\x09"
      "\xa5\xd0\x3b\xb5\xc9\xb8\x89\x9c\x47\xae\xbb\x6f\xb7\x1e\x91\x38"
      "\x64\x09" },

    { NULL, NULL, 0, 0, NULL }
};


ngx_int_t
ngx_http_ai_jwk_rsa(ngx_http_ai_jwk_ctx_t *ctx)
{
    BIGNUM             *bn, *be;
    ngx_int_t           rc;
    ngx_str_t           n, e;
    ngx_http_ai_jwk_t   key;

    rc = ngx_http_ai_jwk_bytes(ctx, "n", &n);

    if (rc == NGX_OK) {
        rc = ngx_http_ai_jwk_bytes(ctx, "e", &e);
    }

    if (rc != NGX_OK) {
        return rc;
    }

    /* a zero byte more is usual, many are not */

    if (n.len > NGX_HTTP_AI_JWK_RSA_MAX / 8 + 1) {
        ctx->why = "an RSA key above 8192 bits";
        return NGX_DECLINED;
    }

    if (e.len == 0 || e.len > NGX_HTTP_AI_JWK_E_MAX / 8 + 1) {
        ctx->why = "an RSA key with a bad exponent";
        return NGX_DECLINED;
    }

    ngx_memzero(&key, sizeof(ngx_http_ai_jwk_t));

    bn = BN_bin2bn(n.data, (int) n.len, NULL);
    be = BN_bin2bn(e.data, (int) e.len, NULL);

    if (bn == NULL || be == NULL) {
        rc = NGX_ERROR;
        goto done;
    }

    rc = NGX_DECLINED;

    ctx->why = ngx_http_ai_jwk_rsa_bad(bn, be);

    if (ctx->why) {
        goto done;
    }

    key.size = BN_num_bytes(bn);
    key.pkey = ngx_http_ai_jwk_rsa_make(bn, be);

    if (key.pkey) {
        rc = ngx_http_ai_jwk_add(ctx, NGX_HTTP_AI_JWK_RSA, &key);
        EVP_PKEY_free(key.pkey);

    } else {
        ctx->why = "an RSA key that the library does not take";
    }

done:

    BN_free(bn);
    BN_free(be);

    return rc;
}


static const char *
ngx_http_ai_jwk_rsa_bad(BIGNUM *n, BIGNUM *e)
{
    BN_ULONG    r, g;
    ngx_uint_t  i, roca;

    static u_char  primes[] = {
          3,   5,   7,  11,  13,  17,  19,  23,  29,  31,  37,  41,  43,
         47,  53,  59,  61,  67,  71,  73,  79,  83,  89,  97, 101, 103,
        107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167
    };

    if (BN_num_bits(n) < NGX_HTTP_AI_JWK_RSA_MIN) {
        return "an RSA key below 2048 bits";
    }

    if (BN_num_bits(n) > NGX_HTTP_AI_JWK_RSA_MAX) {
        return "an RSA key above 8192 bits";
    }

    if (!BN_is_odd(e)
        || BN_is_one(e)
        || BN_num_bits(e) > NGX_HTTP_AI_JWK_E_MAX)
    {
        return "an RSA key with a bad exponent";
    }

    if (!BN_is_odd(n)) {
        return "an RSA key with a small factor";
    }

    /*
     * CVE-2017-15361 (ROCA): primes that are powers of 65537 modulo small
     * primes, and so is their product
     */

    roca = 1;

    for (i = 0; i < sizeof(primes); i++) {
        r = BN_mod_word(n, primes[i]);

        if (r == 0) {
            return "an RSA key with a small factor";
        }

        g = 1;

        do {
            g = g * 65537 % primes[i];
        } while (g != 1 && g != r);

        if (g != r) {
            roca = 0;
        }
    }

    return roca ? "an RSA key of a broken generator (CVE-2017-15361)" : NULL;
}


static EVP_PKEY *
ngx_http_ai_jwk_rsa_make(BIGNUM *n, BIGNUM *e)
{
#if (NGX_HTTP_AI_JWK_PROVIDERS)

    EVP_PKEY        *pkey;
    OSSL_PARAM      *params;
    EVP_PKEY_CTX    *ctx;
    OSSL_PARAM_BLD  *bld;

    pkey = NULL;
    params = NULL;

    ctx = EVP_PKEY_CTX_new_from_name(NULL, "RSA", NULL);
    bld = OSSL_PARAM_BLD_new();

    if (ctx
        && bld
        && OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_N, n) == 1
        && OSSL_PARAM_BLD_push_BN(bld, OSSL_PKEY_PARAM_RSA_E, e) == 1)
    {
        params = OSSL_PARAM_BLD_to_param(bld);
    }

    if (params == NULL
        || EVP_PKEY_fromdata_init(ctx) != 1
        || EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params) != 1)
    {
        EVP_PKEY_free(pkey);
        pkey = NULL;
    }

    OSSL_PARAM_free(params);
    OSSL_PARAM_BLD_free(bld);
    EVP_PKEY_CTX_free(ctx);

    return pkey;

#else

    RSA       *rsa;
    BIGNUM    *dn, *de;
    EVP_PKEY  *pkey;

    rsa = RSA_new();
    pkey = EVP_PKEY_new();
    dn = BN_dup(n);
    de = BN_dup(e);

    if (rsa == NULL
        || pkey == NULL
        || dn == NULL
        || de == NULL
        || RSA_set0_key(rsa, dn, de, NULL) != 1)
    {
        BN_free(dn);
        BN_free(de);
        goto failed;
    }

    if (EVP_PKEY_assign_RSA(pkey, rsa) != 1) {
        goto failed;
    }

    return pkey;

failed:

    RSA_free(rsa);
    EVP_PKEY_free(pkey);

    return NULL;

#endif
}


ngx_int_t
ngx_http_ai_jwk_ec(ngx_http_ai_jwk_ctx_t *ctx)
{
    u_char                          point[1 + 2 * NGX_HTTP_AI_JWK_EC_MAX];
    ngx_int_t                       rc;
    ngx_str_t                       x, y;
    EVP_PKEY_CTX                   *check;
    ngx_http_ai_jwk_t               key;
    const ngx_http_ai_jwk_curve_t  *curve;

    for (curve = ngx_http_ai_jwk_curves; curve->name; curve++) {

        if (ngx_http_ai_jwk_is(&ctx->crv, curve->name)) {
            break;
        }
    }

    if (curve->name == NULL) {
        ctx->why = "a key on an unknown curve";
        return NGX_DECLINED;
    }

    rc = ngx_http_ai_jwk_bytes(ctx, "x", &x);

    if (rc == NGX_OK) {
        rc = ngx_http_ai_jwk_bytes(ctx, "y", &y);
    }

    if (rc != NGX_OK) {
        return rc;
    }

    if (x.len != curve->size || y.len != curve->size) {
        ctx->why = "a point of another length than its curve's";
        return NGX_DECLINED;
    }

    point[0] = POINT_CONVERSION_UNCOMPRESSED;
    ngx_memcpy(&point[1], x.data, x.len);
    ngx_memcpy(&point[1 + x.len], y.data, y.len);

    ngx_memzero(&key, sizeof(ngx_http_ai_jwk_t));

    key.curve = curve;
    key.size = 2 * curve->size;
    key.pkey = ngx_http_ai_jwk_ec_make(curve, point);

    if (key.pkey == NULL) {
        ctx->why = "a point that is not on its curve";
        return NGX_DECLINED;
    }

    check = EVP_PKEY_CTX_new(key.pkey, NULL);

    if (check == NULL || EVP_PKEY_public_check(check) != 1) {
        ctx->why = "a point that is not on its curve";
        rc = NGX_DECLINED;

    } else {
        rc = ngx_http_ai_jwk_add(ctx, NGX_HTTP_AI_JWK_EC, &key);
    }

    EVP_PKEY_CTX_free(check);
    EVP_PKEY_free(key.pkey);

    return rc;
}


static EVP_PKEY *
ngx_http_ai_jwk_ec_make(const ngx_http_ai_jwk_curve_t *curve, u_char *point)
{
#if (NGX_HTTP_AI_JWK_PROVIDERS)

    EVP_PKEY      *pkey;
    OSSL_PARAM     params[3];
    EVP_PKEY_CTX  *ctx;

    pkey = NULL;

    params[0] = OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME,
                                                 (char *) curve->group, 0);
    params[1] = OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY,
                                                  point, 1 + 2 * curve->size);
    params[2] = OSSL_PARAM_construct_end();

    ctx = EVP_PKEY_CTX_new_from_name(NULL, "EC", NULL);

    if (ctx == NULL
        || EVP_PKEY_fromdata_init(ctx) != 1
        || EVP_PKEY_fromdata(ctx, &pkey, EVP_PKEY_PUBLIC_KEY, params) != 1)
    {
        EVP_PKEY_free(pkey);
        pkey = NULL;
    }

    EVP_PKEY_CTX_free(ctx);

    return pkey;

#else

    EC_KEY    *ec;
    EVP_PKEY  *pkey;

    ec = EC_KEY_new_by_curve_name(curve->nid);
    pkey = EVP_PKEY_new();

    if (ec == NULL
        || pkey == NULL
        || EC_KEY_oct2key(ec, point, 1 + 2 * curve->size, NULL) != 1
        || EC_KEY_check_key(ec) != 1
        || EVP_PKEY_assign_EC_KEY(pkey, ec) != 1)
    {
        EC_KEY_free(ec);
        EVP_PKEY_free(pkey);
        return NULL;
    }

    return pkey;

#endif
}


ngx_int_t
ngx_http_ai_jwk_okp(ngx_http_ai_jwk_ctx_t *ctx)
{
    int                 type;
    size_t              size;
    ngx_int_t           rc;
    ngx_str_t           x;
    ngx_http_ai_jwk_t   key;

    ngx_memzero(&key, sizeof(ngx_http_ai_jwk_t));

    if (ngx_http_ai_jwk_is(&ctx->crv, "Ed25519")) {
        type = EVP_PKEY_ED25519;
        size = 32;

    } else if (ngx_http_ai_jwk_is(&ctx->crv, "Ed448")) {
        type = EVP_PKEY_ED448;
        size = 57;

    } else {
        ctx->why = "a key on an unknown curve";
        return NGX_DECLINED;
    }

    rc = ngx_http_ai_jwk_bytes(ctx, "x", &x);

    if (rc != NGX_OK) {
        return rc;
    }

    if (x.len != size) {
        ctx->why = "a point of another length than its curve's";
        return NGX_DECLINED;
    }

    if (ngx_http_ai_jwk_small_order(&x)) {
        ctx->why = "a point of small order";
        return NGX_DECLINED;
    }

    key.size = 2 * size;
    key.pkey = EVP_PKEY_new_raw_public_key(type, NULL, x.data, size);

    if (key.pkey == NULL) {
        ctx->why = "a key that the library does not take";
        return NGX_DECLINED;
    }

    rc = ngx_http_ai_jwk_add(ctx, NGX_HTTP_AI_JWK_OKP, &key);

    EVP_PKEY_free(key.pkey);

    return rc;
}


/* of such a point anybody can make signatures; the sign bit is not compared */

static ngx_uint_t
ngx_http_ai_jwk_small_order(ngx_str_t *x)
{
    u_char      y[57];
    ngx_uint_t  i, n;

    /* y of the points of order 8; little endian */

    static const char  *eight[] = {
        "\x26\xe8\x95\x8f\xc2\xb2\x27\xb0\x45\xc3\xf4\x89\xf2\xef\x98\xf0"
        "\xd5\xdf\xac\x05\xd3\xc6\x33\x39\xb1\x38\x02\x88\x6d\x53\xfc\x05",
        "\xc7\x17\x6a\x70\x3d\x4d\xd8\x4f\xba\x3c\x0b\x76\x0d\x10\x67\x0f"
        "\x2a\x20\x53\xfa\x2c\x39\xcc\xc6\x4e\xc7\xfd\x77\x92\xac\x03\x7a"
    };

    n = x->len;
    ngx_memcpy(y, x->data, n);

    if (n == 32) {
        y[31] &= 0x7f;

        for (i = 0; i < 2; i++) {

            if (ngx_memcmp(y, eight[i], 32) == 0) {
                return 1;
            }
        }

        /* 0, 1 and -1, and the same above p = 2^255 - 19 */

        if (y[0] >= 0xec && y[31] == 0x7f) {

            for (i = 1; i < 31 && y[i] == 0xff; i++) { /* void */ }

            if (i == 31 && y[0] <= 0xee) {
                return 1;
            }
        }

    } else if (y[0] >= 0xfe) {

        /* p = 2^448 - 2^224 - 1 */

        for (i = 1; i < 56 && y[i] == ((i == 28) ? 0xfe : 0xff); i++) {
            /* void */
        }

        if (i == 56) {
            return 1;
        }
    }

    for (i = 1; i < ((n == 32) ? n : n - 1) && y[i] == 0; i++) { /* void */ }

    return i == ((n == 32) ? n : n - 1) && y[0] <= 1;
}
