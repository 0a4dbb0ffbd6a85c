
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Any bytes as a token, as the header and the claims of a signed one, as a
 * key set, and as the path of a claim: nothing that was not signed is
 * accepted, what was taken apart is what was there.
 */


#include "jose.h"


#define check(x)                                                              \
    do {                                                                      \
        if (!(x)) {                                                           \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);           \
            abort();                                                          \
        }                                                                     \
    } while (0)


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static jose_key_t                key;
static ngx_http_ai_jwt_rules_t   rules;


static void
fuzz_claims(ngx_pool_t *pool, ngx_http_ai_jwt_t *jwt, ngx_str_t *path)
{
    size_t               i;
    time_t               expires;
    ngx_int_t            rc;
    ngx_str_t            value;
    ngx_uint_t           n;
    ngx_http_ai_jwt_e    error;
    ngx_http_ai_json_t  *j;

    static const char  *paths[] = { "sub", "a.b", "/a/b/0", "/", ".", "" };

    j = &jwt->claims;

    for (i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
        value.data = (u_char *) paths[i];
        value.len = strlen(paths[i]);

        rc = ngx_http_ai_jwt_claim(j, pool, &value, ' ', &value);
        check(rc == NGX_OK || rc == NGX_DECLINED);
    }

    rc = ngx_http_ai_jwt_claim(j, pool, path, ',', &value);
    check(rc == NGX_OK || rc == NGX_DECLINED);
    check(rc != NGX_OK || value.len <= jwt->payload.len);

    /* each claim by its name */

    for (n = ngx_http_ai_json_first(j, 0);
         n != NGX_HTTP_AI_JSON_NONE;
         n = ngx_http_ai_json_next(j, 0, n))
    {
        value = ngx_http_ai_json_raw(j, n);

        check(ngx_http_ai_json_unescape_str(pool, &value, &value) == NGX_OK);

        if (value.len == 0) {
            continue;
        }

        rc = ngx_http_ai_jwt_claim(j, pool, &value, ' ', &value);

        check(rc == ((j->nodes[n + 1].type == NGX_HTTP_AI_JSON_NULL)
                     ? NGX_DECLINED : NGX_OK));
    }

    error = ngx_http_ai_jwt_check(jwt, &rules, 1700000000, &expires);

    if (!jwt->verified) {
        check(error == NGX_HTTP_AI_JWT_SIGNATURE);

    } else if (error == NGX_HTTP_AI_JWT_OK) {
        check(expires > 1700000000 - 60);
    }
}


static void
fuzz_token(ngx_pool_t *pool, ngx_http_ai_jwks_t *jwks, u_char *data,
    size_t size)
{
    ngx_str_t           s, path;
    ngx_http_ai_jwt_t   jwt;
    ngx_http_ai_jwt_e   rc;

    s.data = data;
    s.len = size;

    rc = ngx_http_ai_jwt_parse(pool, &s, &jwt);

    check(rc == NGX_HTTP_AI_JWT_OK || rc == NGX_HTTP_AI_JWT_MALFORMED
          || rc == NGX_HTTP_AI_JWT_CRIT);
    check(!jwt.verified);

    if (rc != NGX_HTTP_AI_JWT_OK) {
        check(jwt.alg == 0 || jwt.claims.nnodes == 0);
        return;
    }

    /* one text for each token */

    check(jwt.signing_input.data == data);
    check(jwt.signing_input.len < size);

    path = jose_join(pool, &jwt.signing_input, &jwt.signature);
    check(path.len == size && memcmp(path.data, data, size) == 0);

    check(ngx_http_ai_jwt_verify(&jwt, jwks, &rules) != NGX_HTTP_AI_JWT_OK);

    ngx_str_set(&path, "a.b.c");
    fuzz_claims(pool, &jwt, &path);
}


/* header, 0, claims, 0, path */

static void
fuzz_signed(ngx_pool_t *pool, ngx_http_ai_jwks_t *jwks, u_char *data,
    size_t size)
{
    u_char             *p;
    size_t              n;
    ngx_str_t           header, payload, path, s;
    ngx_http_ai_jwt_t   jwt;
    ngx_http_ai_jwt_e   rc;

    p = memchr(data, 0, size);
    n = p ? (size_t) (p - data) : size;

    header.data = data;
    header.len = n;

    data += n + (p != NULL);
    size -= n + (p != NULL);

    p = memchr(data, 0, size);
    n = p ? (size_t) (p - data) : size;

    payload.data = data;
    payload.len = n;

    path.data = data + n + (p != NULL);
    path.len = size - n - (p != NULL);

    s = jose_sign(pool, &key, &header, &payload);

    rc = ngx_http_ai_jwt_parse(pool, &s, &jwt);

    if (rc != NGX_HTTP_AI_JWT_OK) {
        return;
    }

    check(jwt.payload.len == payload.len);
    check(memcmp(jwt.payload.data, payload.data, payload.len) == 0);

    rc = ngx_http_ai_jwt_verify(&jwt, jwks, &rules);

    switch (rc) {

    case NGX_HTTP_AI_JWT_OK:
        check(jwt.alg == NGX_HTTP_AI_JWA_HS256);
        break;

    case NGX_HTTP_AI_JWT_ALG:
        check(jwt.alg == 0);
        break;

    case NGX_HTTP_AI_JWT_TYPE:
        check(jwt.type.len >= 4);
        break;

    case NGX_HTTP_AI_JWT_NO_KEY:
        check(jwt.alg != NGX_HTTP_AI_JWA_HS256);
        break;

    default:
        check(jwt.alg == NGX_HTTP_AI_JWA_ES256);
    }

    fuzz_claims(pool, &jwt, &path);
}


static void
fuzz_set(ngx_pool_t *pool, u_char *data, size_t size)
{
    ngx_int_t             rc;
    ngx_str_t             s;
    ngx_uint_t            ignored, n;
    const char           *error;
    ngx_http_ai_jwks_t   *set;

    s.data = data;
    s.len = size;
    error = NULL;

    rc = ngx_http_ai_jwks_parse(pool, &s, JOSE_ALL, 4, &set, &error);

    check(rc == NGX_OK || rc == NGX_DECLINED);
    check((rc == NGX_DECLINED) == (error != NULL));

    if (rc == NGX_OK) {
        n = ngx_http_ai_jwks_count(set, &ignored);
        check(n <= 4 * 6);
        check((ignored != 0) == (ngx_http_ai_jwks_why(set) != NULL));
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    u_char               *text;
    ngx_str_t             s;
    const char           *error;
    ngx_pool_t           *pool;
    ngx_http_ai_jwks_t   *jwks;

    static jose_key_t  es;

    if (size == 0) {
        return 0;
    }

    pool = ngx_create_pool(4096, NULL);

    if (es.alg == NULL) {
        jose_new(pool, &es, "ES256", "k");
        jose_new(pool, &key, "HS256", NULL);

        rules.algs = JOSE_ALL;
        rules.leeway = 60;
        ngx_str_set(&rules.issuer, "a");
    }

    jwks = jose_set(pool, es.jwk, JOSE_ALL);

    s.data = key.secret;
    s.len = key.len;

    check(ngx_http_ai_jwks_add_secret(jwks, &s, NGX_HTTP_AI_JWA_HS256, &error)
          == NGX_OK);

    text = test_copy(data + 1, size - 1);

    switch (data[0] % 3) {

    case 0:
        fuzz_token(pool, jwks, text, size - 1);
        break;

    case 1:
        fuzz_signed(pool, jwks, text, size - 1);
        break;

    default:
        fuzz_set(pool, text, size - 1);
        break;
    }

    free(text);

    check(ERR_peek_error() == 0);

    ngx_destroy_pool(pool);
    check(stub_alive == 0);

    return 0;
}
