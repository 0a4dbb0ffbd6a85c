
/*
 * Copyright (C) nginx AI gateway authors
 */


/* What a token's claims and type must be like, and values of claims. */


#include "jose.h"


#define NOW  1700000000


static ngx_pool_t                *pool;
static jose_key_t                 hs, es;
static ngx_http_ai_jwt_rules_t    rules;


static const char *
name_of(ngx_http_ai_jwt_e rc)
{
    return ngx_http_ai_jwt_error(rc);
}


static void
is_rc(ngx_http_ai_jwt_e got, ngx_http_ai_jwt_e expected, const char *name)
{
    if (!ok(got == expected, "%s", name)) {
        diag("got: %s; expected: %s", name_of(got), name_of(expected));
    }
}


static ngx_http_ai_jwt_e
signed_by(jose_key_t *key, ngx_http_ai_jwks_t *jwks, const char *header,
    const char *payload, size_t len)
{
    ngx_str_t            h, p, s;
    ngx_http_ai_jwt_t    jwt;
    ngx_http_ai_jwt_e    rc;

    h = jose_text(pool, header);
    p = jose_dup(pool, payload, len);
    s = jose_sign(pool, key, &h, &p);

    rc = ngx_http_ai_jwt_parse(pool, &s, &jwt);

    if (rc == NGX_HTTP_AI_JWT_OK) {
        rc = ngx_http_ai_jwt_verify(&jwt, jwks, &rules);
    }

    return rc;
}


static ngx_http_ai_jwt_e
check_at(const char *payload, int64_t now, time_t *expires)
{
    ngx_str_t             s;
    ngx_http_ai_jwt_t     jwt;
    ngx_http_ai_jwt_e     rc;

    static ngx_http_ai_jwks_t  *jwks;

    if (jwks == NULL) {
        jwks = jose_set(pool, hs.jwk, JOSE_ALL);
    }

    s = jose_token(pool, &hs, "", payload);

    rc = ngx_http_ai_jwt_parse(pool, &s, &jwt);

    if (rc == NGX_HTTP_AI_JWT_OK) {
        rc = ngx_http_ai_jwt_verify(&jwt, jwks, &rules);
    }

    if (rc == NGX_HTTP_AI_JWT_OK) {
        rc = ngx_http_ai_jwt_check(&jwt, &rules, (time_t) now, expires);
    }

    return rc;
}


static void
test_claims(void)
{
    size_t       i;
    time_t       expires;
    ngx_str_t   *s;

    static struct {
        const char         *name;
        const char         *payload;
        ngx_http_ai_jwt_e   rc;
    } tests[] = {

#define ISS  "\"iss\":\"https://login.acme.com\""
#define AUD  "\"aud\":\"ai\""
#define EXP  "\"exp\":1700000100"

        { "as it should be", "{" ISS "," AUD "," EXP "}",
          NGX_HTTP_AI_JWT_OK },
        { "no iss", "{" AUD "," EXP "}", NGX_HTTP_AI_JWT_ISSUER },
        { "another iss", "{\"iss\":\"https://login.acme.co\"," AUD "," EXP
          "}", NGX_HTTP_AI_JWT_ISSUER },
        { "iss with a slash", "{\"iss\":\"https://login.acme.com/\"," AUD ","
          EXP "}", NGX_HTTP_AI_JWT_ISSUER },
        { "iss in capitals", "{\"iss\":\"HTTPS://login.acme.com\"," AUD ","
          EXP "}", NGX_HTTP_AI_JWT_ISSUER },
        { "iss with a zero byte", "{\"iss\":\"https://login.acme.com\\u0000"
          "\"," AUD "," EXP "}", NGX_HTTP_AI_JWT_ISSUER },
        { "iss with escapes", "{\"iss\":\"https:\\/\\/login.acme.com\"," AUD
          "," EXP "}", NGX_HTTP_AI_JWT_OK },
        { "an array as iss", "{\"iss\":[\"https://login.acme.com\"]," AUD ","
          EXP "}", NGX_HTTP_AI_JWT_CLAIMS },
        { "a null iss", "{\"iss\":null," AUD "," EXP "}",
          NGX_HTTP_AI_JWT_CLAIMS },
        { "an empty iss", "{\"iss\":\"\"," AUD "," EXP "}",
          NGX_HTTP_AI_JWT_ISSUER },

        { "no aud", "{" ISS "," EXP "}", NGX_HTTP_AI_JWT_AUDIENCE },
        { "another aud", "{" ISS ",\"aud\":\"ai2\"," EXP "}",
          NGX_HTTP_AI_JWT_AUDIENCE },
        { "an empty aud", "{" ISS ",\"aud\":\"\"," EXP "}",
          NGX_HTTP_AI_JWT_AUDIENCE },
        { "the second audience", "{" ISS ",\"aud\":\"ai-test\"," EXP "}",
          NGX_HTTP_AI_JWT_OK },
        { "an array with it", "{" ISS ",\"aud\":[\"x\",\"ai\"]," EXP "}",
          NGX_HTTP_AI_JWT_OK },
        { "an array without it", "{" ISS ",\"aud\":[\"x\",\"y\"]," EXP "}",
          NGX_HTTP_AI_JWT_AUDIENCE },
        { "an empty array", "{" ISS ",\"aud\":[]," EXP "}",
          NGX_HTTP_AI_JWT_AUDIENCE },
        { "an array with a number", "{" ISS ",\"aud\":[\"ai\",1]," EXP "}",
          NGX_HTTP_AI_JWT_CLAIMS },
        { "an array in an array", "{" ISS ",\"aud\":[[\"ai\"]]," EXP "}",
          NGX_HTTP_AI_JWT_CLAIMS },
        { "an object as aud", "{" ISS ",\"aud\":{\"ai\":1}," EXP "}",
          NGX_HTTP_AI_JWT_CLAIMS },
        { "a null aud", "{" ISS ",\"aud\":null," EXP "}",
          NGX_HTTP_AI_JWT_CLAIMS },

        { "no exp", "{" ISS "," AUD "}", NGX_HTTP_AI_JWT_CLAIMS },
        { "exp now, with leeway", "{" ISS "," AUD ",\"exp\":1700000000}",
          NGX_HTTP_AI_JWT_OK },
        { "exp at the end of leeway", "{" ISS "," AUD ",\"exp\":1699999941}",
          NGX_HTTP_AI_JWT_OK },
        { "exp beyond leeway", "{" ISS "," AUD ",\"exp\":1699999940}",
          NGX_HTTP_AI_JWT_EXPIRED },
        { "a fraction", "{" ISS "," AUD ",\"exp\":1700000000.75}",
          NGX_HTTP_AI_JWT_OK },
        { "an exponent", "{" ISS "," AUD ",\"exp\":1.8e9}",
          NGX_HTTP_AI_JWT_OK },
        { "exp 0", "{" ISS "," AUD ",\"exp\":0}", NGX_HTTP_AI_JWT_EXPIRED },
        { "exp -1", "{" ISS "," AUD ",\"exp\":-1}",
          NGX_HTTP_AI_JWT_EXPIRED },
        { "exp -2^63", "{" ISS "," AUD ",\"exp\":-9223372036854775808}",
          NGX_HTTP_AI_JWT_CLAIMS },
        { "exp 2^63-1", "{" ISS "," AUD ",\"exp\":9223372036854775807}",
          NGX_HTTP_AI_JWT_CLAIMS },
        { "exp 2^64", "{" ISS "," AUD ",\"exp\":18446744073709551616}",
          NGX_HTTP_AI_JWT_CLAIMS },
        { "exp 2^64 and a little", "{" ISS "," AUD
          ",\"exp\":18446744075409551716}", NGX_HTTP_AI_JWT_CLAIMS },
        { "exp 1e999", "{" ISS "," AUD ",\"exp\":1e999}",
          NGX_HTTP_AI_JWT_CLAIMS },
        { "exp in the year 9999", "{" ISS "," AUD ",\"exp\":253402300799}",
          NGX_HTTP_AI_JWT_OK },
        { "exp in milliseconds", "{" ISS "," AUD ",\"exp\":1700000100000}",
          NGX_HTTP_AI_JWT_CLAIMS },
        { "exp as a string", "{" ISS "," AUD ",\"exp\":\"1700000100\"}",
          NGX_HTTP_AI_JWT_CLAIMS },
        { "exp null", "{" ISS "," AUD ",\"exp\":null}",
          NGX_HTTP_AI_JWT_CLAIMS },
        { "exp true", "{" ISS "," AUD ",\"exp\":true}",
          NGX_HTTP_AI_JWT_CLAIMS },
        { "exp in an array", "{" ISS "," AUD ",\"exp\":[1700000100]}",
          NGX_HTTP_AI_JWT_CLAIMS },

        { "nbf now", "{" ISS "," AUD "," EXP ",\"nbf\":1700000000}",
          NGX_HTTP_AI_JWT_OK },
        { "nbf within leeway", "{" ISS "," AUD "," EXP
          ",\"nbf\":1700000060}", NGX_HTTP_AI_JWT_OK },
        { "nbf beyond leeway", "{" ISS "," AUD "," EXP
          ",\"nbf\":1700000061}", NGX_HTTP_AI_JWT_NOT_YET },
        { "nbf negative", "{" ISS "," AUD "," EXP ",\"nbf\":-5}",
          NGX_HTTP_AI_JWT_OK },
        { "nbf huge", "{" ISS "," AUD "," EXP ",\"nbf\":1e30}",
          NGX_HTTP_AI_JWT_CLAIMS },
        { "nbf as a string", "{" ISS "," AUD "," EXP ",\"nbf\":\"1\"}",
          NGX_HTTP_AI_JWT_CLAIMS },
        { "iat in the past", "{" ISS "," AUD "," EXP ",\"iat\":1}",
          NGX_HTTP_AI_JWT_OK },
        { "iat in the future", "{" ISS "," AUD "," EXP
          ",\"iat\":1700000061}", NGX_HTTP_AI_JWT_NOT_YET },
        { "iat as a string", "{" ISS "," AUD "," EXP ",\"iat\":\"1\"}",
          NGX_HTTP_AI_JWT_CLAIMS },

        { "sub", "{" ISS "," AUD "," EXP ",\"sub\":\"alice\"}",
          NGX_HTTP_AI_JWT_OK },
        { "sub as a number", "{" ISS "," AUD "," EXP ",\"sub\":1}",
          NGX_HTTP_AI_JWT_CLAIMS },
        { "jti as a number", "{" ISS "," AUD "," EXP ",\"jti\":1}",
          NGX_HTTP_AI_JWT_CLAIMS },
        { "an array as azp", "{" ISS "," AUD "," EXP ",\"azp\":[\"x\"]}",
          NGX_HTTP_AI_JWT_CLAIMS },
        { "an object as client_id", "{" ISS "," AUD "," EXP
          ",\"client_id\":{}}", NGX_HTTP_AI_JWT_CLAIMS },
        { "sub null", "{" ISS "," AUD "," EXP ",\"sub\":null}",
          NGX_HTTP_AI_JWT_CLAIMS },
        { "azp when it is not asked for", "{" ISS "," AUD "," EXP
          ",\"azp\":\"x\"}", NGX_HTTP_AI_JWT_OK }
    };

    static struct {
        const char         *name;
        const char         *payload;
        ngx_http_ai_jwt_e   rc;
    } parties[] = {

        { "no azp", "{" ISS "," AUD "," EXP "}", NGX_HTTP_AI_JWT_AZP },
        { "azp", "{" ISS "," AUD "," EXP ",\"azp\":\"web\"}",
          NGX_HTTP_AI_JWT_OK },
        { "another azp", "{" ISS "," AUD "," EXP ",\"azp\":\"webx\"}",
          NGX_HTTP_AI_JWT_AZP },
        { "client_id", "{" ISS "," AUD "," EXP ",\"client_id\":\"web\"}",
          NGX_HTTP_AI_JWT_OK },
        { "azp goes first", "{" ISS "," AUD "," EXP
          ",\"azp\":\"x\",\"client_id\":\"web\"}", NGX_HTTP_AI_JWT_AZP },
        { "an array as azp", "{" ISS "," AUD "," EXP
          ",\"azp\":[\"web\"]}", NGX_HTTP_AI_JWT_CLAIMS },
        { "several audiences", "{" ISS "," EXP
          ",\"aud\":[\"ai\",\"x\"],\"azp\":\"web\"}", NGX_HTTP_AI_JWT_OK }
    };

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        is_rc(check_at(tests[i].payload, NOW, &expires), tests[i].rc,
              tests[i].name);
    }

    is_rc(check_at(tests[0].payload, NOW, &expires), NGX_HTTP_AI_JWT_OK,
          "expires");
    is_int(expires, 1700000100, "is exp");

    /* azp */

    rules.azp = ngx_array_create(pool, 2, sizeof(ngx_str_t));
    s = ngx_array_push(rules.azp);
    ngx_str_set(s, "cli");
    s = ngx_array_push(rules.azp);
    ngx_str_set(s, "web");

    for (i = 0; i < sizeof(parties) / sizeof(parties[0]); i++) {
        is_rc(check_at(parties[i].payload, NOW, &expires), parties[i].rc,
              parties[i].name);
    }

    rules.azp = NULL;

    /* max_age */

    rules.max_age = 600;

    is_rc(check_at("{" ISS "," AUD "," EXP ",\"iat\":1699999400}", NOW,
                   &expires), NGX_HTTP_AI_JWT_OK, "10 minutes old");
    is_rc(check_at("{" ISS "," AUD "," EXP ",\"iat\":1699999340}", NOW,
                   &expires), NGX_HTTP_AI_JWT_OK, "and leeway");
    is_rc(check_at("{" ISS "," AUD "," EXP ",\"iat\":1699999339}", NOW,
                   &expires), NGX_HTTP_AI_JWT_EXPIRED, "older");
    is_rc(check_at("{" ISS "," AUD "," EXP "}", NOW, &expires),
          NGX_HTTP_AI_JWT_CLAIMS, "of unknown age");
    is_rc(check_at("{" ISS "," AUD "," EXP ",\"iat\":-253402300799}", NOW,
                   &expires), NGX_HTTP_AI_JWT_EXPIRED, "very old");

    rules.max_age = 0;

    /* exp may be missing */

    rules.no_exp = 1;

    is_rc(check_at("{" ISS "," AUD "}", NOW, &expires), NGX_HTTP_AI_JWT_OK,
          "no exp, which is allowed");
    is_int(expires, 0, "expires never");
    is_rc(check_at("{" ISS "," AUD ",\"exp\":1}", NOW, &expires),
          NGX_HTTP_AI_JWT_EXPIRED, "but the one that is there counts");
    is_rc(check_at("{" ISS "," AUD ",\"exp\":\"\"}", NOW, &expires),
          NGX_HTTP_AI_JWT_CLAIMS, "and must be a time");

    rules.no_exp = 0;

    /* no audience, no leeway */

    {
        ngx_array_t  *audiences;

        audiences = rules.audiences;
        rules.audiences = NULL;

        is_rc(check_at("{" ISS "," EXP "}", NOW, &expires),
              NGX_HTTP_AI_JWT_OK, "aud is not looked at");

        rules.audiences = audiences;
    }

    rules.leeway = 0;

    is_rc(check_at("{" ISS "," AUD ",\"exp\":1700000000}", NOW, &expires),
          NGX_HTTP_AI_JWT_EXPIRED, "exp now");
    is_rc(check_at("{" ISS "," AUD ",\"exp\":1700000001}", NOW, &expires),
          NGX_HTTP_AI_JWT_OK, "exp in a second");
    is_rc(check_at("{" ISS "," AUD "," EXP ",\"nbf\":1700000001}", NOW,
                   &expires), NGX_HTTP_AI_JWT_NOT_YET, "nbf in a second");

    rules.leeway = 60;

    /* without an issuer nothing is accepted */

    ngx_str_null(&rules.issuer);

    is_rc(check_at("{\"iss\":\"\"," AUD "," EXP "}", NOW, &expires),
          NGX_HTTP_AI_JWT_ISSUER, "no issuer in the rules");

    ngx_str_set(&rules.issuer, "https://login.acme.com");
}


static void
test_unverified(void)
{
    time_t               expires;
    ngx_str_t            s;
    ngx_http_ai_jwt_t    jwt;
    ngx_http_ai_jwks_t  *jwks;

    s = jose_token(pool, &hs, "", "{" ISS "," AUD "," EXP "}");

    is_rc(ngx_http_ai_jwt_parse(pool, &s, &jwt), NGX_HTTP_AI_JWT_OK,
          "a token that was not verified");
    is_rc(ngx_http_ai_jwt_check(&jwt, &rules, NOW, &expires),
          NGX_HTTP_AI_JWT_SIGNATURE, "has no claims");

    jwks = jose_set(pool, es.jwk, JOSE_ALL);

    is_rc(ngx_http_ai_jwt_verify(&jwt, jwks, &rules),
          NGX_HTTP_AI_JWT_NO_KEY, "a set without its key");
    is_rc(ngx_http_ai_jwt_check(&jwt, &rules, NOW, &expires),
          NGX_HTTP_AI_JWT_SIGNATURE, "still has none");

    jwks = jose_set(pool, hs.jwk, JOSE_ALL);

    is_rc(ngx_http_ai_jwt_verify(&jwt, jwks, &rules), NGX_HTTP_AI_JWT_OK,
          "with the key");
    is_rc(ngx_http_ai_jwt_check(&jwt, &rules, NOW, &expires),
          NGX_HTTP_AI_JWT_OK, "has claims");

    jwks = ngx_http_ai_jwks_create(pool);

    is_rc(ngx_http_ai_jwt_verify(&jwt, jwks, &rules),
          NGX_HTTP_AI_JWT_NO_KEY, "an empty set");
    is_rc(ngx_http_ai_jwt_check(&jwt, &rules, NOW, &expires),
          NGX_HTTP_AI_JWT_SIGNATURE, "takes it back");

    /* a JWS whose payload was not looked at */

    jwks = jose_set(pool, hs.jwk, JOSE_ALL);

    is_rc(ngx_http_ai_jws_parse(pool, &s, &jwt), NGX_HTTP_AI_JWT_OK,
          "a JWS");
    is_rc(ngx_http_ai_jwt_verify(&jwt, jwks, &rules), NGX_HTTP_AI_JWT_OK,
          "that is verified");
    is_rc(ngx_http_ai_jwt_check(&jwt, &rules, NOW, &expires),
          NGX_HTTP_AI_JWT_CLAIMS, "has no claims");
}


static void
test_types(void)
{
    char                 header[128];
    size_t               i;
    ngx_http_ai_jwks_t  *jwks;

    static struct {
        const char         *typ;
        const char         *type;
        ngx_http_ai_jwt_e   rc;
    } tests[] = {

        { NULL, "", NGX_HTTP_AI_JWT_OK },
        { "", "", NGX_HTTP_AI_JWT_OK },
        { "JWT", "", NGX_HTTP_AI_JWT_OK },
        { "jwt", "", NGX_HTTP_AI_JWT_OK },
        { "application/jwt", "", NGX_HTTP_AI_JWT_OK },
        { "at+jwt", "", NGX_HTTP_AI_JWT_OK },
        { "application/at+JWT", "", NGX_HTTP_AI_JWT_OK },
        { "dpop+jwt", "", NGX_HTTP_AI_JWT_TYPE },
        { "DPoP+JWT", "", NGX_HTTP_AI_JWT_TYPE },
        { "application/dpop+jwt", "", NGX_HTTP_AI_JWT_TYPE },
        { "logout+jwt", "", NGX_HTTP_AI_JWT_TYPE },
        { "secevent+jwt", "", NGX_HTTP_AI_JWT_TYPE },
        { "token-introspection+jwt", "", NGX_HTTP_AI_JWT_TYPE },
        { "oauth-authz-req+jwt", "", NGX_HTTP_AI_JWT_TYPE },
        { "kb+jwt", "", NGX_HTTP_AI_JWT_TYPE },
        { "+jwt", "", NGX_HTTP_AI_JWT_TYPE },
        { "at+jwt", "at+jwt", NGX_HTTP_AI_JWT_OK },
        { "AT+JWT", "at+jwt", NGX_HTTP_AI_JWT_OK },
        { "application/at+jwt", "at+jwt", NGX_HTTP_AI_JWT_OK },
        { "application/at+jwt/x", "at+jwt", NGX_HTTP_AI_JWT_TYPE },
        { "text/at+jwt", "at+jwt", NGX_HTTP_AI_JWT_TYPE },
        { "JWT", "at+jwt", NGX_HTTP_AI_JWT_TYPE },
        { "", "at+jwt", NGX_HTTP_AI_JWT_TYPE },
        { NULL, "at+jwt", NGX_HTTP_AI_JWT_TYPE },
        { "at+jwt ", "at+jwt", NGX_HTTP_AI_JWT_TYPE },
        { "dpop+jwt", "dpop+jwt", NGX_HTTP_AI_JWT_OK },
        { "at+jwt", "jwt", NGX_HTTP_AI_JWT_TYPE }
    };

    jwks = jose_set(pool, hs.jwk, JOSE_ALL);

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        snprintf(header, sizeof(header), "{\"alg\":\"HS256\"%s%s%s}",
                 tests[i].typ ? ",\"typ\":\"" : "",
                 tests[i].typ ? tests[i].typ : "",
                 tests[i].typ ? "\"" : "");

        rules.type.data = (u_char *) tests[i].type;
        rules.type.len = strlen(tests[i].type);

        ok(signed_by(&hs, jwks, header, "{}", 2) == tests[i].rc,
           "type \"%s\", \"%s\" is asked for",
           tests[i].typ ? tests[i].typ : "(none)", tests[i].type);
    }

    ngx_str_null(&rules.type);
}


static void
test_values(void)
{
    size_t               i;
    ngx_int_t            rc;
    ngx_str_t            s, path, value;
    ngx_http_ai_jwt_t    jwt;

    static const char  payload[] =
        "{\"sub\":\"a\\u00e9\\n\\\"b\",\"n\":1.50e1,\"t\":true,\"z\":null,"
        "\"e\":\"\",\"l\":[\"a\",\"b\"],\"le\":[],"
        "\"lx\":[\"a b\",\"c\",\"\",null,1,[\"x\", 2],{\"k\" : \" v\" },"
        "\"d\\u0020e\",false],"
        "\"o\": { \"a\" : [ 1 , \"x y\" ],\n \"b\":\"q\\\" }\" } ,"
        "\"a.b\":\"whole\",\"a\":{\"b\":\"nested\",\"c\":{\"d\":\"deep\"},"
        "\"x.y\":{\"z\":\"dots\"}},"
        "\"https://acme.com/t\":\"uri\","
        "\"resource_access\":{\"my.app\":{\"roles\":[\"r1\",\"r2\"]}},"
        "\"/p\":\"slash\",\"s/t\":{\"~\":\"tilde\"},\"\":{\"\":\"empty\"},"
        "\"first\":[\"a b\"],\"p\":{\"q\":[{\"r\":\"item\"},\"i1\"]}}";

    static struct {
        const char  *path;
        const char  *value;         /* NULL: there is none */
    } tests[] = {
        { "sub", "a\xc3\xa9\n\"b" },
        { "n", "1.50e1" },
        { "t", "true" },
        { "z", NULL },
        { "e", "" },
        { "l", "a b" },
        { "le", "" },
        { "lx", "c 1 [\"x\",2] false" },
        { "first", "" },
        { "o", "{\"a\":[1,\"x y\"],\"b\":\"q\\\" }\"}" },
        { "a.b", "whole" },
        { "a.c.d", "deep" },
        { "a.x.y.z", "dots" },
        { "a.c", "{\"d\":\"deep\"}" },
        { "a.c.d.e", NULL },
        { "a.", NULL },
        { ".", "empty" },
        { ".a", NULL },
        { "https://acme.com/t", "uri" },
        { "resource_access.my.app.roles", "r1 r2" },
        { "/p", "slash" },
        { "/a/b", "nested" },
        { "/a/c/d", "deep" },
        { "/a.b", "whole" },
        { "/s~1t/~0", "tilde" },
        { "/s~2t", NULL },
        { "/s~", NULL },
        { "/", "{\"\":\"empty\"}" },
        { "//", "empty" },
        { "/p/q", "{\"r\":\"item\"} i1" },
        { "/l/0", "a" },
        { "/l/1", "b" },
        { "/l/2", NULL },
        { "/l/00", NULL },
        { "/l/-1", NULL },
        { "/l/-", NULL },
        { "/l/", NULL },
        { "/l/18446744073709551616", NULL },
        { "/p/q/0/r", "item" },
        { "p.q", "{\"r\":\"item\"} i1" },
        { "missing", NULL },
        { "sub.x", NULL },
        { "l.0", NULL }
    };

    s = jose_token(pool, &hs, "", payload);

    is_rc(ngx_http_ai_jwt_parse(pool, &s, &jwt), NGX_HTTP_AI_JWT_OK,
          "a token with many claims");

    is_mem(jwt.payload.data, jwt.payload.len, payload, sizeof(payload) - 1,
           "its text");

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        path.data = (u_char *) tests[i].path;
        path.len = strlen(tests[i].path);

        rc = ngx_http_ai_jwt_claim(&jwt.claims, pool, &path, ' ', &value);

        if (tests[i].value == NULL) {
            is_int(rc, NGX_DECLINED, tests[i].path);
            continue;
        }

        if (ok(rc == NGX_OK, "%s: there", tests[i].path)) {
            is_str(&value, tests[i].value, tests[i].path);
        }
    }

    ngx_str_set(&path, "lx");
    rc = ngx_http_ai_jwt_claim(&jwt.claims, pool, &path, ',', &value);
    ok(rc == NGX_OK, "another separator");
    is_str(&value, "a b,c,1,{\"k\":\" v\"},d e,false", "other items");

    ngx_str_null(&path);
    is_int(ngx_http_ai_jwt_claim(&jwt.claims, pool, &path, ' ', &value),
           NGX_DECLINED, "an empty path");

    ngx_memzero(&jwt, sizeof(jwt));
    ngx_str_set(&path, "sub");
    is_int(ngx_http_ai_jwt_claim(&jwt.claims, pool, &path, ' ', &value),
           NGX_DECLINED, "no claims at all");
}


int
main(void)
{
    ngx_str_t  *s;

    pool = ngx_create_pool(4096, NULL);

    jose_new(pool, &hs, "HS256", NULL);
    jose_new(pool, &es, "ES256", NULL);

    rules.algs = JOSE_ALL;
    rules.leeway = 60;
    ngx_str_set(&rules.issuer, "https://login.acme.com");

    rules.audiences = ngx_array_create(pool, 2, sizeof(ngx_str_t));
    s = ngx_array_push(rules.audiences);
    ngx_str_set(s, "ai");
    s = ngx_array_push(rules.audiences);
    ngx_str_set(s, "ai-test");

    test_claims();
    test_unverified();
    test_types();
    test_values();

    jose_free(&es);

    ngx_destroy_pool(pool);

    is_int(stub_alive, 0, "nothing is left");

    return done_testing();
}
