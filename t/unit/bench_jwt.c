
/*
 * Copyright (C) nginx AI gateway authors
 */


/* Times of taking a token apart, verifying and checking it; not a test. */


#include "jose.h"


static double
bench_now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);

    return ts.tv_sec * 1e9 + ts.tv_nsec;
}


int
main(void)
{
    double                    start, parse, all;
    time_t                    expires;
    ngx_str_t                 s, claims;
    ngx_uint_t                i, k, n, bad;
    jose_key_t                key;
    ngx_pool_t               *pool, *p;
    ngx_http_ai_jwt_t         jwt;
    ngx_http_ai_jwks_t       *jwks;
    ngx_http_ai_jwt_rules_t   rules;

    static const char  *algs[] = {
        "HS256", "HS512", "RS256", "RS512", "PS256", "ES256", "ES384",
        "ES512", "EdDSA", "Ed448"
    };

    pool = ngx_create_pool(4096, NULL);

    ngx_memzero(&rules, sizeof(rules));
    rules.algs = JOSE_ALL;
    ngx_str_set(&rules.issuer, "https://login.acme.com/realms/main");

    ngx_str_set(&claims,
        "{\"exp\":1900000000,\"iat\":1700000000,\"jti\":\"5c1e3a4e-7a3e-4a53"
        "-9d0c-0fb6a1b6a5a1\",\"iss\":\"https://login.acme.com/realms/main\""
        ",\"aud\":[\"ai\",\"account\"],\"sub\":\"f2c1a0de-55b8-4f6d-8a52-7f6"
        "d2f0c9a11\",\"typ\":\"Bearer\",\"azp\":\"web\",\"realm_access\":{"
        "\"roles\":[\"offline_access\",\"default-roles-main\",\"ai-user\"]}"
        ",\"resource_access\":{\"account\":{\"roles\":[\"manage-account\","
        "\"view-profile\"]}},\"scope\":\"openid profile email ai\",\"email_v"
        "erified\":true,\"preferred_username\":\"alice\",\"email\":\"alice@a"
        "cme.com\",\"tenant\":\"acme\"}");

    printf("%-8s %8s %10s %10s\n", "", "bytes", "parse, us", "all, us");

    for (k = 0; k < sizeof(algs) / sizeof(algs[0]); k++) {
        jose_new(pool, &key, algs[k], "key-1");

        jwks = jose_set(pool, key.jwk, JOSE_ALL);
        s = jose_token(pool, &key, "\"typ\":\"JWT\"", (char *) claims.data);

        n = 5000;
        bad = 0;

        start = bench_now();

        for (i = 0; i < n; i++) {
            p = ngx_create_pool(4096, NULL);
            bad += (ngx_http_ai_jwt_parse(p, &s, &jwt) != NGX_HTTP_AI_JWT_OK);
            ngx_destroy_pool(p);
        }

        parse = bench_now() - start;
        start = bench_now();

        for (i = 0; i < n; i++) {
            p = ngx_create_pool(4096, NULL);
            bad += (ngx_http_ai_jwt_parse(p, &s, &jwt) != NGX_HTTP_AI_JWT_OK
                    || ngx_http_ai_jwt_verify(&jwt, jwks, &rules)
                       != NGX_HTTP_AI_JWT_OK
                    || ngx_http_ai_jwt_check(&jwt, &rules, 1700000000,
                                             &expires)
                       != NGX_HTTP_AI_JWT_OK);
            ngx_destroy_pool(p);
        }

        all = bench_now() - start;

        printf("%-8s %8u %10.2f %10.2f%s\n", algs[k], (unsigned) s.len,
               parse / n / 1e3, all / n / 1e3, bad ? "  refused" : "");

        jose_free(&key);
    }

    ngx_destroy_pool(pool);

    return 0;
}
