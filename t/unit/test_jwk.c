
/*
 * Copyright (C) nginx AI gateway authors
 */


/* Key sets: what is a set, which keys are used, and for which algorithms. */


#include "jose.h"


#define RSA_A1                                                                \
    "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7a" \
    "PFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArw" \
    "l93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0z" \
    "gdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2Nc" \
    "Rwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"

#define X_A1  "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4"
#define Y_A1  "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"

#define ED    "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"

#define K32   "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
#define K31   "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHg"
#define K64                                                                  \
    "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKiss"           \
    "LS4vMDEyMzQ1Njc4OTo7PD0-Pw"

#define RSA   "\"kty\":\"RSA\",\"n\":\"" RSA_A1 "\",\"e\":\"AQAB\""
#define EC    "\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"" X_A1 "\"," \
              "\"y\":\"" Y_A1 "\""
#define OKP   "\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"" ED "\""
#define OCT   "\"kty\":\"oct\",\"k\":\"" K64 "\""

#define ALG(a)  ",\"alg\":\"" a "\""
#define KID(k)  ",\"kid\":\"" k "\""

#define ASYMMETRIC  (JOSE_ALL & ~NGX_HTTP_AI_JWA_HMAC)


static ngx_pool_t  *pool;


typedef struct {
    const char  *name;
    const char  *text;
    ngx_uint_t   algs;
    ngx_uint_t   count;
    ngx_uint_t   ignored;
    const char  *why;       /* a part of it */
} test_set_t;


static void
test_sets(void)
{
    size_t                i;
    ngx_int_t             rc;
    ngx_str_t             text;
    ngx_uint_t            count, ignored;
    const char           *error, *why;
    ngx_pool_t           *p;
    ngx_http_ai_jwks_t   *jwks;

    static test_set_t  tests[] = {

#define SET(keys)  "{\"keys\":[" keys "]}"

        { "RFC 7517 A.1", SET("{" EC ",\"use\":\"enc\",\"kid\":\"1\"},{" RSA
          ALG("RS256") KID("2011-04-29") "}"), JOSE_ALL, 1, 1, "\"use\"" },
        { "no key at all", SET(""), JOSE_ALL, 0, 0, NULL },
        { "other members", "{\"x\":[{}],\"keys\":[],\"y\":\"keys\"}",
          JOSE_ALL, 0, 0, NULL },

        { "RSA", SET("{" RSA "}"), JOSE_ALL, 6, 0, NULL },
        { "RSA for RS256", SET("{" RSA ALG("RS256") "}"), JOSE_ALL, 1, 0,
          NULL },
        { "RSA, RS256 and PS512 are allowed", SET("{" RSA "}"),
          NGX_HTTP_AI_JWA_RS256 | NGX_HTTP_AI_JWA_PS512, 2, 0, NULL },
        { "RSA for RS256, which is not allowed", SET("{" RSA ALG("RS256")
          "}"), JOSE_ALL & ~NGX_HTTP_AI_JWA_RS256, 0, 1, "not allowed" },
        { "RSA, ES256 is allowed", SET("{" RSA "}"), NGX_HTTP_AI_JWA_ES256,
          0, 1, "not allowed" },
        { "RSA for HS256", SET("{" RSA ALG("HS256") "}"), JOSE_ALL, 0, 1,
          "not allowed" },
        { "RSA for ES256", SET("{" RSA ALG("ES256") "}"), JOSE_ALL, 0, 1,
          "not allowed" },
        { "RSA for RSA-OAEP", SET("{" RSA ALG("RSA-OAEP") "}"), JOSE_ALL, 0,
          1, "not allowed" },
        { "RSA for none", SET("{" RSA ALG("none") "}"), JOSE_ALL, 0, 1,
          "not allowed" },
        { "RSA for rs256", SET("{" RSA ALG("rs256") "}"), JOSE_ALL, 0, 1,
          "not allowed" },

        { "EC", SET("{" EC "}"), JOSE_ALL, 1, 0, NULL },
        { "EC for ES256", SET("{" EC ALG("ES256") "}"), JOSE_ALL, 1, 0,
          NULL },
        { "EC for ES384", SET("{" EC ALG("ES384") "}"), JOSE_ALL, 0, 1,
          "not allowed" },
        { "EC for ES521", SET("{" EC ALG("ES521") "}"), JOSE_ALL, 0, 1,
          "not allowed" },
        { "EC for ECDH-ES", SET("{" EC ALG("ECDH-ES") "}"), JOSE_ALL, 0, 1,
          "not allowed" },

        { "OKP", SET("{" OKP "}"), JOSE_ALL, 2, 0, NULL },
        { "OKP for EdDSA", SET("{" OKP ALG("EdDSA") "}"), JOSE_ALL, 1, 0,
          NULL },
        { "OKP for Ed25519", SET("{" OKP ALG("Ed25519") "}"), JOSE_ALL, 1, 0,
          NULL },
        { "OKP for Ed448", SET("{" OKP ALG("Ed448") "}"), JOSE_ALL, 0, 1,
          "not allowed" },
        { "OKP, EdDSA is allowed", SET("{" OKP "}"), NGX_HTTP_AI_JWA_EDDSA,
          1, 0, NULL },

        { "oct", SET("{" OCT "}"), JOSE_ALL, 3, 0, NULL },
        { "oct of 32 bytes", SET("{\"kty\":\"oct\",\"k\":\"" K32 "\"}"),
          JOSE_ALL, 1, 0, NULL },
        { "oct of 31 bytes", SET("{\"kty\":\"oct\",\"k\":\"" K31 "\"}"),
          JOSE_ALL, 0, 1, "shorter" },
        { "oct of 32 bytes for HS512", SET("{\"kty\":\"oct\",\"k\":\"" K32
          "\"" ALG("HS512") "}"), JOSE_ALL, 0, 1, "shorter" },
        { "an empty secret", SET("{\"kty\":\"oct\",\"k\":\"\"}"), JOSE_ALL,
          0, 1, "shorter" },
        { "oct where it is not allowed", SET("{" OCT "}"), ASYMMETRIC, 0, 1,
          "secret" },
        { "oct for A256GCM", SET("{" OCT ALG("A256GCM") "}"), JOSE_ALL, 0, 1,
          "not allowed" },
        { "oct for RS256", SET("{" OCT ALG("RS256") "}"), JOSE_ALL, 0, 1,
          "secret" },
        { "oct beside a public key", SET("{" OCT "},{" EC "}"), JOSE_ALL, 1,
          1, "secret" },
        { "oct beside an unusable public key",
          SET("{" OCT "},{\"kty\":\"RSA\"}"), JOSE_ALL, 0, 2, "secret" },

        { "for signatures", SET("{" EC ",\"use\":\"sig\"}"), JOSE_ALL, 1, 0,
          NULL },
        { "for encryption", SET("{" EC ",\"use\":\"enc\"}"), JOSE_ALL, 0, 1,
          "\"use\"" },
        { "for something", SET("{" EC ",\"use\":\"Sig\"}"), JOSE_ALL, 0, 1,
          "\"use\"" },
        { "use is a number", SET("{" EC ",\"use\":1}"), JOSE_ALL, 0, 1,
          "malformed" },
        { "to verify", SET("{" EC ",\"key_ops\":[\"verify\"]}"), JOSE_ALL, 1,
          0, NULL },
        { "to sign and to verify",
          SET("{" EC ",\"key_ops\":[\"sign\",\"verify\"]}"), JOSE_ALL, 1, 0,
          NULL },
        { "to sign", SET("{" EC ",\"key_ops\":[\"sign\"]}"), JOSE_ALL, 0, 1,
          "key_ops" },
        { "to encrypt", SET("{" EC ",\"key_ops\":[\"encrypt\"]}"), JOSE_ALL,
          0, 1, "key_ops" },
        { "for nothing", SET("{" EC ",\"key_ops\":[]}"), JOSE_ALL, 0, 1,
          "key_ops" },
        { "key_ops is a string", SET("{" EC ",\"key_ops\":\"verify\"}"),
          JOSE_ALL, 0, 1, "malformed" },
        { "key_ops has a number", SET("{" EC
          ",\"key_ops\":[\"verify\",1]}"), JOSE_ALL, 0, 1, "malformed" },
        { "a private key", SET("{" EC ",\"d\":\"AAAA\"}"), JOSE_ALL, 0, 1,
          "private" },
        { "a private RSA key", SET("{" RSA ",\"d\":\"AAAA\"}"), JOSE_ALL, 0,
          1, "private" },

        { "no kty", SET("{\"x\":\"a\"}"), JOSE_ALL, 0, 1, "kty" },
        { "kty is a number", SET("{\"kty\":1}"), JOSE_ALL, 0, 1,
          "malformed" },
        { "an unknown kty", SET("{\"kty\":\"PQ\"}"), JOSE_ALL, 0, 1,
          "unknown kind" },
        { "rsa in small letters", SET("{\"kty\":\"rsa\",\"n\":\"" RSA_A1
          "\",\"e\":\"AQAB\"}"), JOSE_ALL, 0, 1, "unknown kind" },
        { "a string for a key", SET("\"RSA\""), JOSE_ALL, 0, 1,
          "malformed" },
        { "null for a key", SET("null,{" EC "}"), JOSE_ALL, 1, 1,
          "malformed" },
        { "kid is a number", SET("{" EC ",\"kid\":1}"), JOSE_ALL, 0, 1,
          "malformed" },
        { "alg is a number", SET("{" EC ",\"alg\":256}"), JOSE_ALL, 0, 1,
          "malformed" },
        { "alg is null", SET("{" EC ",\"alg\":null}"), JOSE_ALL, 0, 1,
          "malformed" },

        { "EC without y", SET("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\""
          X_A1 "\"}"), JOSE_ALL, 0, 1, "malformed" },
        { "EC without a curve", SET("{\"kty\":\"EC\",\"x\":\"" X_A1
          "\",\"y\":\"" Y_A1 "\"}"), JOSE_ALL, 0, 1, "malformed" },
        { "EC with another curve", SET("{\"kty\":\"EC\",\"crv\":\"P-384\","
          "\"x\":\"" X_A1 "\",\"y\":\"" Y_A1 "\"}"), JOSE_ALL, 0, 1,
          "length" },
        { "secp256k1", SET("{\"kty\":\"EC\",\"crv\":\"secp256k1\",\"x\":\""
          X_A1 "\",\"y\":\"" Y_A1 "\"}"), JOSE_ALL, 0, 1, "unknown curve" },
        { "x and y swapped", SET("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\""
          Y_A1 "\",\"y\":\"" X_A1 "\"}"), JOSE_ALL, 0, 1, "not on its" },
        { "the point (0, 0)", SET("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":"
          "\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\",\"y\":"
          "\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"}"), JOSE_ALL, 0,
          1, "not on its" },
        { "a coordinate above the prime", SET("{\"kty\":\"EC\",\"crv\":"
          "\"P-256\",\"x\":\"__________________________________________8\","
          "\"y\":\"" Y_A1 "\"}"), JOSE_ALL, 0, 1, "not on its" },
        { "a coordinate with a zero byte too many",
          SET("{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"ADCgQkzSHClEg4otdc"
          "krN-duog2fAIk6O07uijwKr-w-\",\"y\":\"" Y_A1 "\"}"), JOSE_ALL, 0,
          1, "length" },
        { "base64 with padding", SET("{\"kty\":\"EC\",\"crv\":\"P-256\","
          "\"x\":\"" X_A1 "=\",\"y\":\"" Y_A1 "\"}"), JOSE_ALL, 0, 1,
          "malformed" },

        { "X25519", SET("{\"kty\":\"OKP\",\"crv\":\"X25519\",\"x\":\"" ED
          "\"}"), JOSE_ALL, 0, 1, "unknown curve" },
        { "Ed25519 of 31 bytes", SET("{\"kty\":\"OKP\",\"crv\":\"Ed25519\","
          "\"x\":\"" K31 "\"}"), JOSE_ALL, 0, 1, "length" },
        { "Ed448 of 32 bytes", SET("{\"kty\":\"OKP\",\"crv\":\"Ed448\","
          "\"x\":\"" ED "\"}"), JOSE_ALL, 0, 1, "length" },
        { "P-256 as OKP", SET("{\"kty\":\"OKP\",\"crv\":\"P-256\",\"x\":\""
          ED "\"}"), JOSE_ALL, 0, 1, "unknown curve" },
        { "Ed25519 as EC", SET("{\"kty\":\"EC\",\"crv\":\"Ed25519\",\"x\":\""
          ED "\"}"), JOSE_ALL, 0, 1, "unknown curve" },

        { "a kid twice, the same key", SET("{" EC KID("a") "},{" EC KID("a")
          "}"), JOSE_ALL, 1, 0, NULL },
        { "a kid twice, other algorithms", SET("{" RSA ALG("RS256") KID("a")
          "},{" RSA ALG("PS256") KID("a") "}"), JOSE_ALL, 2, 0, NULL },
        { "a kid twice, other kinds", SET("{" RSA KID("a") "},{" EC KID("a")
          "}"), JOSE_ALL, 7, 0, NULL },
        { "a kid twice, another key", SET("{" OCT KID("a")
          "},{\"kty\":\"oct\",\"k\":\"" K32 "\"" KID("a") "},{" OCT KID("b")
          "}"), JOSE_ALL, 5, 2, "same \"kid\"" },
        { "a kid three times", SET("{\"kty\":\"oct\",\"k\":\"" K32 "\""
          KID("a") "},{\"kty\":\"oct\",\"k\":\"" K32 "A\"" KID("a")
          "},{\"kty\":\"oct\",\"k\":\"" K32 "\"" KID("a") "}"),
          NGX_HTTP_AI_JWA_HS256, 0, 3, "same \"kid\"" },
        { "the same key, no kid", SET("{" EC "},{" EC "}"), JOSE_ALL, 2, 0,
          NULL }
    };

    static test_set_t  bad[] = {
        { "nothing", "", JOSE_ALL, 0, 0, "not JSON" },
        { "text", "<html>", JOSE_ALL, 0, 0, "not JSON" },
        { "an array", "[{" EC "}]", JOSE_ALL, 0, 0, "no array \"keys\"" },
        { "an object", "{}", JOSE_ALL, 0, 0, "no array \"keys\"" },
        { "a key", "{" EC "}", JOSE_ALL, 0, 0, "is a key" },
        { "an object for keys", "{\"keys\":{" EC "}}", JOSE_ALL, 0, 0,
          "no array \"keys\"" },
        { "cut short", "{\"keys\":[{" EC "}", JOSE_ALL, 0, 0, "not JSON" },
        { "keys twice", "{\"keys\":[],\"keys\":[{" EC "}]}", JOSE_ALL, 0, 0,
          "twice" },
        { "alg twice", SET("{" RSA ALG("RS256") ALG("HS256") "}"), JOSE_ALL,
          0, 0, "twice" },
        { "too deep", SET("[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]"), JOSE_ALL,
          0, 0, "deep" }
    };

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        p = ngx_create_pool(4096, NULL);

        text.len = strlen(tests[i].text);
        text.data = test_copy(tests[i].text, text.len);

        rc = ngx_http_ai_jwks_parse(p, &text, tests[i].algs, 16, &jwks,
                                    &error);

        free(text.data);

        if (!ok(rc == NGX_OK, "%s", tests[i].name)) {
            diag("%s", error);
            ngx_destroy_pool(p);
            continue;
        }

        count = ngx_http_ai_jwks_count(jwks, &ignored);
        why = ngx_http_ai_jwks_why(jwks);

        if (!ok(count == tests[i].count && ignored == tests[i].ignored
                && (tests[i].why == NULL) == (why == NULL)
                && (why == NULL || strstr(why, tests[i].why)),
                "%s: %u keys, %u left out", tests[i].name,
                (unsigned) tests[i].count, (unsigned) tests[i].ignored))
        {
            diag("%u keys, %u left out: %s", (unsigned) count,
                 (unsigned) ignored, why ? why : "-");
        }

        ok(ERR_peek_error() == 0, "%s: no error is left", tests[i].name);

        ngx_destroy_pool(p);
    }

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        p = ngx_create_pool(4096, NULL);

        text.len = strlen(bad[i].text);
        text.data = test_copy(bad[i].text, text.len);

        rc = ngx_http_ai_jwks_parse(p, &text, JOSE_ALL, 16, &jwks, &error);

        free(text.data);

        if (!ok(rc == NGX_DECLINED && error && strstr(error, bad[i].why),
                "%s is no set", bad[i].name))
        {
            diag("%s", error ? error : "-");
        }

        ngx_destroy_pool(p);
    }
}


static void
is_rsa(BIGNUM *n, unsigned long e, size_t zeros, ngx_uint_t count,
    const char *why, const char *name)
{
    int                   len;
    char                  set[4096];
    u_char                buf[2100], be[16];
    size_t                i;
    ngx_str_t             sn, se;
    ngx_uint_t            got;
    const char           *reason;
    ngx_http_ai_jwks_t   *jwks;

    memset(buf, 0, zeros);
    len = BN_bn2bin(n, buf + zeros);
    sn = jose_b64(pool, buf, len + zeros);

    for (i = 0; i < 8; i++) {
        be[i] = (u_char) (e >> (56 - 8 * i));
    }

    for (i = 0; i < 7 && be[i] == 0; i++) { /* void */ }

    se = jose_b64(pool, be + i, 8 - i);

    snprintf(set, sizeof(set), "{\"kty\":\"RSA\",\"alg\":\"RS256\",\"n\":"
             "\"%.*s\",\"e\":\"%.*s\"}", (int) sn.len, sn.data, (int) se.len,
             se.data);

    jwks = jose_set(pool, set, JOSE_ALL);

    got = ngx_http_ai_jwks_count(jwks, NULL);
    reason = ngx_http_ai_jwks_why(jwks);

    if (!ok(got == count && (count || (reason && strstr(reason, why))),
            "%s", name))
    {
        diag("%u, %s", (unsigned) got, reason ? reason : "-");
    }
}


static void
test_rsa(void)
{
    BIGNUM      *n, *p, *q, *m, *g;
    BN_CTX      *ctx;
    ngx_uint_t   i, k;

    ctx = BN_CTX_new();
    n = BN_new();
    p = BN_new();
    q = BN_new();
    m = BN_new();
    g = BN_new();

    /* not primes, but without the small factors that are looked for */

    BN_one(n);
    BN_lshift(n, n, 2047);

    do {
        BN_add_word(n, 1);

        for (i = 2, k = 0; i < 200; i++) {
            k += (BN_mod_word(n, i) == 0);
        }
    } while (k);

    is_rsa(n, 65537, 0, 1, NULL, "2048 bits");
    is_rsa(n, 65537, 1, 1, NULL, "2048 bits with a zero byte");
    is_rsa(n, 3, 0, 1, NULL, "e = 3");
    is_rsa(n, 0xfffffffffffffffdUL, 0, 1, NULL, "e of 64 bits");
    is_rsa(n, 0, 0, 0, "exponent", "e = 0");
    is_rsa(n, 1, 0, 0, "exponent", "e = 1");
    is_rsa(n, 2, 0, 0, "exponent", "e = 2");
    is_rsa(n, 65536, 0, 0, "exponent", "an even e");

    BN_add_word(n, 1);
    is_rsa(n, 65537, 0, 0, "factor", "an even modulus");

    BN_one(n);
    BN_lshift(n, n, 2047);

    while (BN_mod_word(n, 3) != 0 || !BN_is_odd(n)) {
        BN_add_word(n, 1);
    }

    is_rsa(n, 65537, 0, 0, "factor", "a multiple of 3");

    BN_zero(n);
    is_rsa(n, 65537, 0, 0, "below 2048", "zero");

    BN_one(n);
    BN_lshift(n, n, 2047);
    BN_sub_word(n, 1);
    is_rsa(n, 65537, 0, 0, "below 2048", "2047 bits");
    is_rsa(n, 65537, 1, 0, "below 2048", "2047 bits with a zero byte");

    BN_one(n);
    BN_lshift(n, n, 8192);
    BN_add_word(n, 1);
    is_rsa(n, 65537, 0, 0, "above 8192", "8193 bits");

    BN_lshift(n, n, 8000);
    BN_add_word(n, 1);
    is_rsa(n, 65537, 0, 0, "above 8192", "16000 bits");

    /* two numbers of the form k * M + 65537 ^ a, M the product of primes */

    BN_one(m);

    for (i = 2; i < 170; i++) {

        for (k = 2; k < i && i % k; k++) { /* void */ }

        if (k == i) {
            BN_mul_word(m, i);
        }
    }

    BN_set_word(p, 65537);
    BN_set_word(q, 777);
    BN_mod_exp(g, p, q, m, ctx);

    BN_one(p);
    BN_lshift(p, p, 1023 - BN_num_bits(m) + 1);
    BN_add_word(p, 1);
    BN_mul(q, p, m, ctx);
    BN_add(q, q, g);
    BN_add_word(p, 12345);
    BN_mul(n, p, m, ctx);
    BN_add(n, n, g);
    BN_mul(n, n, q, ctx);
    BN_lshift(p, m, 2048 - BN_num_bits(m));
    BN_add(n, n, p);

    is_rsa(n, 65537, 0, 0, "CVE-2017-15361", "of a broken generator");

    BN_free(n);
    BN_free(p);
    BN_free(q);
    BN_free(m);
    BN_free(g);
    BN_CTX_free(ctx);
}


/* points of which anybody can make signatures */

static void
test_small_order(void)
{
    char                  set[256];
    u_char                y[57];
    size_t                i, k, n;
    ngx_str_t             x;
    ngx_http_ai_jwks_t   *jwks;

    static const char  *hex[] = {
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "00000000000000000000000000000000000000000000000000000000"
        "0000000000000000000000000000000000000000000000000000000000",
        "01000000000000000000000000000000000000000000000000000000"
        "0000000000000000000000000000000000000000000000000000000000",
        "feffffffffffffffffffffffffffffffffffffffffffffffffffffff"
        "feffffffffffffffffffffffffffffffffffffffffffffffffffffff00",
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
        "feffffffffffffffffffffffffffffffffffffffffffffffffffffff00"
    };

    for (i = 0; i < sizeof(hex) / sizeof(hex[0]); i++) {
        n = strlen(hex[i]) / 2;

        for (k = 0; k < n; k++) {
            y[k] = (u_char) ngx_hextoi((u_char *) hex[i] + 2 * k, 2);
        }

        for (k = 0; k < 2; k++) {
            y[n - 1] ^= 0x80;

            x = jose_b64(pool, y, n);

            snprintf(set, sizeof(set), "{\"kty\":\"OKP\",\"crv\":\"%s\","
                     "\"x\":\"%.*s\"}", n == 32 ? "Ed25519" : "Ed448",
                     (int) x.len, x.data);

            jwks = jose_set(pool, set, JOSE_ALL);

            ok(jwks && ngx_http_ai_jwks_count(jwks, NULL) == 0
               && strstr(ngx_http_ai_jwks_why(jwks), "small order"),
               "small order: %.16s...%s", hex[i], k ? "" : ", other sign");
        }
    }

    /* and one that is none of them */

    jwks = jose_set(pool, "{" OKP "}", NGX_HTTP_AI_JWA_EDDSA);
    is_int(ngx_http_ai_jwks_count(jwks, NULL), 1, "another point");
}


static void
test_max(void)
{
    size_t                i;
    ngx_int_t             rc;
    ngx_str_t             text;
    ngx_uint_t            ignored;
    const char           *error;
    ngx_http_ai_out_t     out;
    ngx_http_ai_jwks_t   *jwks;

    ngx_http_ai_out_init(&out, pool, 0);
    ngx_http_ai_out_lit(&out, "{\"keys\":[{\"kty\":\"x\"}");

    for (i = 0; i < 20; i++) {
        ngx_http_ai_out_lit(&out, ",{" EC KID("a"));
        out.last -= 2;
        ngx_http_ai_out_int(&out, i);
        ngx_http_ai_out_lit(&out, "\"}");
    }

    ngx_http_ai_out_lit(&out, "]}");

    text.data = out.start;
    text.len = out.last - out.start;

    rc = ngx_http_ai_jwks_parse(pool, &text, JOSE_ALL, 5, &jwks, &error);

    is_int(rc, NGX_OK, "more keys than are taken");
    is_int(ngx_http_ai_jwks_count(jwks, &ignored), 5, "some are taken");
    is_int(ignored, 16, "the others are left out");

    rc = ngx_http_ai_jwks_parse(pool, &text, JOSE_ALL, 0, &jwks, &error);

    is_int(rc, NGX_OK, "none is taken");
    is_int(ngx_http_ai_jwks_count(jwks, &ignored), 0, "not one");
}


static void
test_secret(void)
{
    size_t                i;
    u_char                secret[64];
    ngx_int_t             rc;
    ngx_str_t             s;
    const char           *error;
    ngx_http_ai_jwks_t   *jwks;

    static struct {
        size_t       len;
        ngx_uint_t   algs;
        ngx_int_t    rc;
        ngx_uint_t   count;
    } tests[] = {
        { 0, NGX_HTTP_AI_JWA_HS256, NGX_DECLINED, 0 },
        { 31, NGX_HTTP_AI_JWA_HS256, NGX_DECLINED, 0 },
        { 32, NGX_HTTP_AI_JWA_HS256, NGX_OK, 1 },
        { 32, NGX_HTTP_AI_JWA_HMAC, NGX_OK, 1 },
        { 47, NGX_HTTP_AI_JWA_HS384, NGX_DECLINED, 0 },
        { 48, NGX_HTTP_AI_JWA_HMAC, NGX_OK, 2 },
        { 63, NGX_HTTP_AI_JWA_HS512, NGX_DECLINED, 0 },
        { 64, NGX_HTTP_AI_JWA_HMAC, NGX_OK, 3 },
        { 64, ASYMMETRIC, NGX_DECLINED, 0 },
        { 64, 0, NGX_DECLINED, 0 }
    };

    memset(secret, 's', sizeof(secret));

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        jwks = ngx_http_ai_jwks_create(pool);

        s.data = secret;
        s.len = tests[i].len;
        error = NULL;

        rc = ngx_http_ai_jwks_add_secret(jwks, &s, tests[i].algs, &error);

        ok(rc == tests[i].rc
           && ngx_http_ai_jwks_count(jwks, NULL) == tests[i].count
           && (rc == NGX_OK || error),
           "a secret of %u bytes, algorithms %x", (unsigned) tests[i].len,
           (unsigned) tests[i].algs);
    }
}


static void
test_memory(void)
{
    ngx_int_t             rc;
    ngx_str_t             text;
    ngx_uint_t            i, alive;
    ngx_pool_t           *p;
    const char           *error;
    ngx_http_ai_jwks_t   *jwks;

    static char  set[] =
        SET("{" RSA KID("r\\u0061") "},{" EC KID("b") "},{" OKP KID("c")
            "},{" EC KID("b") "},{" OKP ALG("Ed25519") KID("d") "}");
    static char  secrets[] = SET("{" OCT KID("a") "}");

    alive = stub_alive;

    for (i = 1; i < 200; i++) {
        p = ngx_create_pool(4096, NULL);

        text.data = (u_char *) ((i & 1) ? set : secrets);
        text.len = strlen((char *) text.data);

        stub_fail = (i + 1) / 2;

        rc = ngx_http_ai_jwks_parse(p, &text, JOSE_ALL, 64, &jwks, &error);

        if (stub_fail == 0 && rc != NGX_ERROR) {
            ok(0, "allocation %u failed unnoticed", (unsigned) i);
        }

        if (stub_fail && rc != NGX_OK) {
            ok(0, "allocation %u was not asked for", (unsigned) i);
        }

        stub_fail = 0;
        ngx_destroy_pool(p);
    }

    is_int(stub_alive, alive, "without memory nothing is left");
}


int
main(void)
{
    pool = ngx_create_pool(4096, NULL);

    test_sets();
    test_rsa();
    test_small_order();
    test_max();
    test_secret();
    test_memory();

    ngx_destroy_pool(pool);

    is_int(stub_alive, 0, "nothing is left");

    return done_testing();
}
