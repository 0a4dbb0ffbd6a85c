
/*
 * Copyright (C) nginx AI gateway authors
 */


/* Tokens: form, header, algorithm, signature, and which key is taken. */


#include "jose.h"
#include "jose_rfc.h"


#define NOW  1700000000


static ngx_pool_t                *pool;
static jose_key_t                 hs, hs5, rs, ps, es, es3, es5, ed, ed4;
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


static void
test_rfc(void)
{
    size_t                i, k;
    ngx_str_t             s;
    ngx_uint_t            bad;
    ngx_http_ai_jwks_t   *jwks;

    for (i = 0; i < sizeof(jose_rfc) / sizeof(jose_rfc[0]); i++) {
        jwks = jose_set(pool, jose_rfc[i].jwk, JOSE_ALL);

        if (!ok(jwks && ngx_http_ai_jwks_count(jwks, NULL), "%s: the key",
                jose_rfc[i].name))
        {
            continue;
        }

        s = jose_text(pool, jose_rfc[i].token);

        is_rc(jose_verify(pool, &s, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_OK,
              jose_rfc[i].name);

        /* each byte of it matters */

        bad = 0;

        for (k = 0; k < s.len; k++) {
            s.data[k] ^= 1;
            bad += (jose_verify(pool, &s, jwks, JOSE_ALL)
                    == NGX_HTTP_AI_JWT_OK);
            s.data[k] ^= 1;

            if (s.data[k] >= '0') {
                s.data[k] ^= 2;
                bad += (jose_verify(pool, &s, jwks, JOSE_ALL)
                        == NGX_HTTP_AI_JWT_OK);
                s.data[k] ^= 2;
            }
        }

        ok(bad == 0, "%s: no byte can be another", jose_rfc[i].name);

        /* with the key of another example */

        jwks = jose_set(pool, jose_rfc[i ? 0 : 1].jwk, JOSE_ALL);

        ok(jose_verify(pool, &s, jwks, JOSE_ALL) != NGX_HTTP_AI_JWT_OK,
           "%s: not with another key", jose_rfc[i].name);
    }
}


/* tokens that are refused before a key is looked for, written out */

static void
test_form(void)
{
    size_t               i;
    ngx_str_t            s;
    ngx_http_ai_jwt_t    jwt;
    ngx_http_ai_jwt_e    rc;

    static struct {
        const char         *name;
        const char         *token;
        ngx_http_ai_jwt_e   rc;
    } tests[] = {

        { "empty", "", NGX_HTTP_AI_JWT_MALFORMED },
        { "a dot", ".", NGX_HTTP_AI_JWT_MALFORMED },
        { "two dots", "..", NGX_HTTP_AI_JWT_MALFORMED },
        { "a word", "token", NGX_HTTP_AI_JWT_MALFORMED },
        { "two parts", "eyJhbGciOiJIUzI1NiJ9.e30",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "four parts", "eyJhbGciOiJIUzI1NiJ9.e30.AAAA.",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "five parts (JWE)", "eyJhbGciOiJIUzI1NiJ9.AAAA.AAAA.e30.AAAA",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "RFC 7515 A.6: JSON serialization",
          "{\"payload\":\"e30\",\"signatures\":[{\"protected\":"
          "\"eyJhbGciOiJIUzI1NiJ9\",\"signature\":\"AAAA\"}]}",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "RFC 7515 A.7: flattened JSON",
          "{\"payload\":\"e30\",\"protected\":\"eyJhbGciOiJIUzI1NiJ9\","
          "\"signature\":\"AAAA\"}", NGX_HTTP_AI_JWT_MALFORMED },

        { "well formed", "eyJhbGciOiJIUzI1NiJ9.e30.AAAA",
          NGX_HTTP_AI_JWT_OK },
        { "no signature is for later", "eyJhbGciOiJIUzI1NiJ9.e30.",
          NGX_HTTP_AI_JWT_OK },
        { "padding in the header", "eyJhbGciOiJIUzI1NiJ9=.e30.AAAA",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "padding in the claims", "eyJhbGciOiJIUzI1NiJ9.e30=.AAAA",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "padding in the signature", "eyJhbGciOiJIUzI1NiJ9.e30.AA==",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "'+'", "eyJhbGciOiJIUzI1NiJ9.e30.AA+A",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "'/'", "eyJhbGciOiJIUzI1NiJ9.e30.AA/A",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "space before", " eyJhbGciOiJIUzI1NiJ9.e30.AAAA",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "space after", "eyJhbGciOiJIUzI1NiJ9.e30.AAAA ",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "line feed", "eyJhbGciOiJIUzI1NiJ9.e30.AA\nAA",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "one digit too many", "eyJhbGciOiJIUzI1NiJ9.e30.AAAAA",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "bits left over, of one byte", "eyJhbGciOiJIUzI1NiJ9.e30.AB",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "bits left over, of two bytes", "eyJhbGciOiJIUzI1NiJ9.e31.AAAA",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "a byte above 127", "eyJhbGciOiJIUzI1NiJ9.e30.AA\xc3\xa9",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "no header", ".e30.AAAA", NGX_HTTP_AI_JWT_MALFORMED },
        { "no claims", "eyJhbGciOiJIUzI1NiJ9..AAAA",
          NGX_HTTP_AI_JWT_MALFORMED }
    };

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        s.len = strlen(tests[i].token);
        s.data = test_copy(tests[i].token, s.len);

        rc = ngx_http_ai_jwt_parse(pool, &s, &jwt);
        is_rc(rc, tests[i].rc, tests[i].name);

        ok(jwt.verified == 0, "%s: not verified", tests[i].name);

        free(s.data);
    }
}


/* signed with the right key: the header or the claims decide */

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


static void
test_header(void)
{
    char                 big[6000];
    size_t               i;
    ngx_http_ai_jwks_t  *jwks;

    static struct {
        const char         *name;
        const char         *header;
        ngx_http_ai_jwt_e   rc;
    } tests[] = {

        { "plain", "{\"alg\":\"HS256\"}", NGX_HTTP_AI_JWT_OK },
        { "white space", " {\r\n\t\"alg\" : \"HS256\" } ",
          NGX_HTTP_AI_JWT_OK },
        { "escapes", "{\"\\u0061lg\":\"HS\\u0032\\u0035\\u0036\"}",
          NGX_HTTP_AI_JWT_OK },
        { "members that are not looked at",
          "{\"alg\":\"HS256\",\"x\":[1,{}],\"cty\":\"x\",\"x5t\":1}",
          NGX_HTTP_AI_JWT_OK },
        { "jku, jwk, x5u, x5c",
          "{\"alg\":\"HS256\",\"jku\":\"https://evil.example/\","
          "\"jwk\":{\"kty\":\"oct\",\"k\":\"AAAA\"},\"x5u\":\"x\","
          "\"x5c\":[\"AAAA\"]}", NGX_HTTP_AI_JWT_OK },

        { "no alg", "{}", NGX_HTTP_AI_JWT_MALFORMED },
        { "an empty alg", "{\"alg\":\"\"}", NGX_HTTP_AI_JWT_MALFORMED },
        { "a null alg", "{\"alg\":null}", NGX_HTTP_AI_JWT_MALFORMED },
        { "a number as alg", "{\"alg\":256}", NGX_HTTP_AI_JWT_MALFORMED },
        { "an array as alg", "{\"alg\":[\"HS256\"]}",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "none", "{\"alg\":\"none\"}", NGX_HTTP_AI_JWT_ALG },
        { "None", "{\"alg\":\"None\"}", NGX_HTTP_AI_JWT_ALG },
        { "NONE", "{\"alg\":\"NONE\"}", NGX_HTTP_AI_JWT_ALG },
        { "nOnE", "{\"alg\":\"nOnE\"}", NGX_HTTP_AI_JWT_ALG },
        { "hs256", "{\"alg\":\"hs256\"}", NGX_HTTP_AI_JWT_ALG },
        { "a space in the name", "{\"alg\":\"HS256 \"}",
          NGX_HTTP_AI_JWT_ALG },
        { "a zero byte in the name", "{\"alg\":\"HS256\\u0000\"}",
          NGX_HTTP_AI_JWT_ALG },
        { "HS1", "{\"alg\":\"HS1\"}", NGX_HTTP_AI_JWT_ALG },
        { "ES256K", "{\"alg\":\"ES256K\"}", NGX_HTTP_AI_JWT_ALG },
        { "RSA-OAEP", "{\"alg\":\"RSA-OAEP\"}", NGX_HTTP_AI_JWT_ALG },
        { "Alg", "{\"Alg\":\"HS256\"}", NGX_HTTP_AI_JWT_MALFORMED },

        { "crit", "{\"alg\":\"HS256\",\"crit\":[\"exp\"],\"exp\":1}",
          NGX_HTTP_AI_JWT_CRIT },
        { "an empty crit", "{\"alg\":\"HS256\",\"crit\":[]}",
          NGX_HTTP_AI_JWT_CRIT },
        { "a null crit", "{\"alg\":\"HS256\",\"crit\":null}",
          NGX_HTTP_AI_JWT_CRIT },
        { "an escaped crit", "{\"alg\":\"HS256\",\"cri\\u0074\":[\"x\"]}",
          NGX_HTTP_AI_JWT_CRIT },
        { "b64 (RFC 7797)",
          "{\"alg\":\"HS256\",\"b64\":false,\"crit\":[\"b64\"]}",
          NGX_HTTP_AI_JWT_CRIT },
        { "b64 alone", "{\"alg\":\"HS256\",\"b64\":true}",
          NGX_HTTP_AI_JWT_CRIT },
        { "zip", "{\"alg\":\"HS256\",\"zip\":\"DEF\"}",
          NGX_HTTP_AI_JWT_CRIT },
        { "enc", "{\"alg\":\"HS256\",\"enc\":\"A128GCM\"}",
          NGX_HTTP_AI_JWT_MALFORMED },

        { "alg twice", "{\"alg\":\"HS256\",\"alg\":\"HS256\"}",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "alg twice, once escaped",
          "{\"alg\":\"none\",\"\\u0061lg\":\"HS256\"}",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "kid twice", "{\"alg\":\"HS256\",\"kid\":\"a\",\"kid\":\"b\"}",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "a name twice within",
          "{\"alg\":\"HS256\",\"x\":{\"a\":1,\"a\":1}}",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "the same name at two places",
          "{\"alg\":\"HS256\",\"x\":{\"alg\":1},\"y\":{\"alg\":2}}",
          NGX_HTTP_AI_JWT_OK },

        { "a kid of another type", "{\"alg\":\"HS256\",\"kid\":1}",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "a type of another type", "{\"alg\":\"HS256\",\"typ\":1}",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "an array", "[\"alg\",\"HS256\"]", NGX_HTTP_AI_JWT_MALFORMED },
        { "a string", "\"HS256\"", NGX_HTTP_AI_JWT_MALFORMED },
        { "two objects", "{\"alg\":\"HS256\"}{}",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "a comma too many", "{\"alg\":\"HS256\",}",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "a byte order mark", "\xef\xbb\xbf{\"alg\":\"HS256\"}",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "bad UTF-8", "{\"alg\":\"HS256\",\"x\":\"\xff\"}",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "an overlong byte", "{\"alg\":\"HS256\",\"x\":\"\xc0\xaf\"}",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "half a pair in UTF-8", "{\"alg\":\"HS256\",\"x\":"
          "\"\xed\xa0\x80\"}", NGX_HTTP_AI_JWT_MALFORMED },
        { "half an escaped pair", "{\"alg\":\"HS256\",\"x\":\"\\ud800\"}",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "the other half", "{\"alg\":\"HS256\",\"x\":\"\\uDC00\"}",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "halves with a letter between",
          "{\"alg\":\"HS256\",\"x\":\"\\ud83dx\\ude00\"}",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "half and an escape", "{\"alg\":\"HS256\",\"x\":\"\\ud83d\\n\"}",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "half in a name", "{\"alg\":\"HS256\",\"\\ud83d\":1}",
          NGX_HTTP_AI_JWT_MALFORMED },
        { "a whole pair", "{\"alg\":\"HS256\",\"x\":\"\\ud83d\\uDe00\"}",
          NGX_HTTP_AI_JWT_OK },
        { "16 levels", "{\"alg\":\"HS256\",\"x\":[[[[[[[[[[[[[[[1]"
          "]]]]]]]]]]]]]]}", NGX_HTTP_AI_JWT_OK },
        { "17 levels", "{\"alg\":\"HS256\",\"x\":[[[[[[[[[[[[[[[[1]"
          "]]]]]]]]]]]]]]]}", NGX_HTTP_AI_JWT_MALFORMED }
    };

    jwks = jose_set(pool, hs.jwk, JOSE_ALL);

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        is_rc(signed_by(&hs, jwks, tests[i].header, "{}", 2), tests[i].rc,
              tests[i].name);
    }

    i = snprintf(big, sizeof(big), "{\"alg\":\"HS256\",\"x\":\"");
    memset(big + i, 'x', 4096 - i);
    strcpy(big + 4096 - 2, "\"}");

    is_rc(signed_by(&hs, jwks, big, "{}", 2), NGX_HTTP_AI_JWT_OK,
          "a header of 4096 bytes");

    memset(big + i, 'x', 4097 - i);
    strcpy(big + 4097 - 2, "\"}");

    is_rc(signed_by(&hs, jwks, big, "{}", 2), NGX_HTTP_AI_JWT_MALFORMED,
          "a header of 4097 bytes");

    i = snprintf(big, sizeof(big), "{\"alg\":\"HS256\",\"x\":[0");

    while (i < 600) {
        big[i++] = ',';
        big[i++] = '0';
    }

    strcpy(big + i, "]}");

    is_rc(signed_by(&hs, jwks, big, "{}", 2), NGX_HTTP_AI_JWT_MALFORMED,
          "a header of too many values");
}


static void
test_payload(void)
{
    char                 big[13000];
    size_t               i;
    ngx_str_t            s;
    ngx_http_ai_jwt_t    jwt;
    ngx_http_ai_jwks_t  *jwks;

    static const char  head[] = "{\"alg\":\"HS256\"}";

    static struct {
        const char         *name;
        const char         *payload;
        size_t              len;
        ngx_http_ai_jwt_e   rc;
    } tests[] = {

#define P(s)  s, sizeof(s) - 1

        { "nothing", P(""), NGX_HTTP_AI_JWT_MALFORMED },
        { "text", P("Payload"), NGX_HTTP_AI_JWT_MALFORMED },
        { "an array", P("[{}]"), NGX_HTTP_AI_JWT_MALFORMED },
        { "a token in a token", P("\"eyJhbGciOiJIUzI1NiJ9.e30.AAAA\""),
          NGX_HTTP_AI_JWT_MALFORMED },
        { "an object", P("{}"), NGX_HTTP_AI_JWT_OK },
        { "white space", P(" {\n\t}\r "), NGX_HTTP_AI_JWT_OK },
        { "a zero byte after it", P("{}\0"), NGX_HTTP_AI_JWT_MALFORMED },
        { "a claim twice", P("{\"sub\":\"a\",\"sub\":\"b\"}"),
          NGX_HTTP_AI_JWT_MALFORMED },
        { "a claim twice, escaped", P("{\"sub\":\"a\",\"s\\u0075b\":\"b\"}"),
          NGX_HTTP_AI_JWT_MALFORMED },
        { "an empty name twice", P("{\"\":1,\"\":1}"),
          NGX_HTTP_AI_JWT_MALFORMED },
        { "a claim twice in an array", P("{\"a\":[{\"b\":1,\"b\":2}]}"),
          NGX_HTTP_AI_JWT_MALFORMED },
        { "names of either case", P("{\"Sub\":\"a\",\"sub\":\"b\"}"),
          NGX_HTTP_AI_JWT_OK },
        { "UTF-8", P("{\"sub\":\"J\xc3\xbcrgen \xf0\x9f\x98\x80\"}"),
          NGX_HTTP_AI_JWT_OK },
        { "Latin-1", P("{\"sub\":\"J\xfcrgen\"}"),
          NGX_HTTP_AI_JWT_MALFORMED },
        { "UTF-8 cut short", P("{\"sub\":\"\xf0\x9f\x98\"}"),
          NGX_HTTP_AI_JWT_MALFORMED },
        { "above U+10FFFF", P("{\"sub\":\"\xf4\x90\x80\x80\"}"),
          NGX_HTTP_AI_JWT_MALFORMED },
        { "UTF-16", P("{\0\"\0s\0\"\0:\0" "1\0}\0"),
          NGX_HTTP_AI_JWT_MALFORMED }
    };

    jwks = jose_set(pool, hs.jwk, JOSE_ALL);

    for (i = 0; i < sizeof(tests) / sizeof(tests[0]); i++) {
        is_rc(signed_by(&hs, jwks, head, tests[i].payload, tests[i].len),
              tests[i].rc, tests[i].name);
    }

    i = snprintf(big, sizeof(big), "{\"x\":\"");
    memset(big + i, 'x', sizeof(big) - i);
    strcpy(big + sizeof(big) - 3, "\"}");

    s = jose_token(pool, &hs, "", big);

    ok(s.len > NGX_HTTP_AI_JWT_MAX, "a token of %u bytes", (unsigned) s.len);
    is_rc(ngx_http_ai_jwt_parse(pool, &s, &jwt), NGX_HTTP_AI_JWT_MALFORMED,
          "is too long");

    strcpy(big + 12000, "\"}");
    s = jose_token(pool, &hs, "", big);
    is_rc(ngx_http_ai_jwt_parse(pool, &s, &jwt), NGX_HTTP_AI_JWT_OK,
          "a long token");

    /* many names, none of them twice, then one of them */

    i = snprintf(big, sizeof(big), "{\"a0\":0");

    while (i < 8000) {
        i += snprintf(big + i, sizeof(big) - i, ",\"a%u\":0", (unsigned) i);
    }

    strcpy(big + i, "}");
    is_rc(signed_by(&hs, jwks, head, big, strlen(big)), NGX_HTTP_AI_JWT_OK,
          "many claims");

    strcpy(big + i, ",\"a0\":1}");
    is_rc(signed_by(&hs, jwks, head, big, strlen(big)),
          NGX_HTTP_AI_JWT_MALFORMED, "many claims, the first one twice");

    i = snprintf(big, sizeof(big), "{\"x\":[0");

    while (i < 6000) {
        big[i++] = ',';
        big[i++] = '0';
    }

    strcpy(big + i, "]}");
    is_rc(signed_by(&hs, jwks, head, big, strlen(big)),
          NGX_HTTP_AI_JWT_MALFORMED, "too many values");
}


/* every algorithm: its own, and none of the others */

static void
test_algorithms(void)
{
    char                  header[2048];
    size_t                i, k;
    ngx_str_t             s, h, p, input, sig;
    ngx_uint_t            bad;
    jose_key_t           *key;
    ngx_http_ai_jwks_t   *jwks, *any;

    static jose_key_t  *keys[] = { &hs, &hs5, &rs, &ps, &es, &es3, &es5, &ed,
                                   &ed4 };

    static const char  *names[] = {
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256",
        "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
        "Ed448", "none", "None", "NONE", "", "ES256K", "RS1", "HS1"
    };

    for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        key = keys[i];
        jwks = jose_set(pool, key->jwk, JOSE_ALL);

        snprintf(header, sizeof(header), "{%s}", key->members);
        any = jose_set(pool, header, JOSE_ALL);

        s = jose_token(pool, key, "", "{\"sub\":\"a\"}");

        is_rc(jose_verify(pool, &s, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_OK,
              key->alg);
        is_rc(jose_verify(pool, &s, any, JOSE_ALL), NGX_HTTP_AI_JWT_OK,
              "by a key without alg");
        is_rc(jose_verify(pool, &s, jwks, 0), NGX_HTTP_AI_JWT_ALG,
              "but not when it is not allowed");

        /* the signature is right for the bytes, the name is another */

        bad = 0;

        for (k = 0; k < sizeof(names) / sizeof(names[0]); k++) {

            if (strcmp(names[k], key->alg) == 0) {
                continue;
            }

            snprintf(header, sizeof(header), "{\"alg\":\"%s\"}", names[k]);
            h = jose_text(pool, header);
            p = jose_text(pool, "{\"sub\":\"a\"}");
            s = jose_sign(pool, key, &h, &p);

            if (jose_verify(pool, &s, jwks, JOSE_ALL) == NGX_HTTP_AI_JWT_OK) {
                diag("%s as %s", key->alg, names[k]);
                bad++;
            }

            if (jose_verify(pool, &s, any, JOSE_ALL) == NGX_HTTP_AI_JWT_OK
                && !(key == &ed && strcmp(names[k], "Ed25519") == 0)
                && !(key == &ed4 && strcmp(names[k], "Ed448") == 0)
                && !(key == &ed4 && strcmp(names[k], "EdDSA") == 0))
            {
                diag("%s as %s by a key without alg", key->alg, names[k]);
                bad++;
            }

            /* and without a signature */

            input = jose_input(pool, &h, &p);
            ngx_str_null(&sig);
            s = jose_join(pool, &input, &sig);

            if (jose_verify(pool, &s, jwks, JOSE_ALL) == NGX_HTTP_AI_JWT_OK
                || jose_verify(pool, &s, any, JOSE_ALL)
                   == NGX_HTTP_AI_JWT_OK)
            {
                diag("%s without a signature", names[k]);
                bad++;
            }
        }

        ok(bad == 0, "%s by no other name", key->alg);
    }
}


/* a public key is no secret: all its usual spellings as one of HS256 */

static void
test_confusion(void)
{
    int                   n;
    char                  header[64], buf[4096];
    u_char               *der;
    size_t                i, k, len;
    ngx_str_t             h, p, input, sig, s;
    ngx_uint_t            bad;
    jose_key_t           *key;
    ngx_http_ai_jwks_t   *jwks;

    static jose_key_t  *keys[] = { &rs, &ps, &es, &es5, &ed };
    static const char  *algs[] = { "HS256", "HS384", "HS512" };

    p = jose_text(pool, "{\"sub\":\"admin\"}");

    for (i = 0; i < sizeof(keys) / sizeof(keys[0]); i++) {
        key = keys[i];
        bad = 0;

        snprintf(buf, sizeof(buf), "{%s}", key->members);
        jwks = jose_set(pool, buf, JOSE_ALL);

        for (k = 0; k < 3; k++) {
            snprintf(header, sizeof(header), "{\"alg\":\"%s\"}", algs[k]);
            h = jose_text(pool, header);
            input = jose_input(pool, &h, &p);

            sig = jose_mac(pool, algs[k], key->jwk, strlen(key->jwk), &input);
            s = jose_join(pool, &input, &sig);
            bad += (jose_verify(pool, &s, jwks, JOSE_ALL)
                    != NGX_HTTP_AI_JWT_NO_KEY);

            sig = jose_mac(pool, algs[k], "", 0, &input);
            s = jose_join(pool, &input, &sig);
            bad += (jose_verify(pool, &s, jwks, JOSE_ALL)
                    != NGX_HTTP_AI_JWT_NO_KEY);

            der = NULL;
            n = i2d_PUBKEY(key->pkey, &der);
            sig = jose_mac(pool, algs[k], der, n, &input);
            s = jose_join(pool, &input, &sig);
            bad += (jose_verify(pool, &s, jwks, JOSE_ALL)
                    != NGX_HTTP_AI_JWT_NO_KEY);

            len = EVP_EncodeBlock((u_char *) buf, der, n);
            sig = jose_mac(pool, algs[k], buf, len, &input);
            s = jose_join(pool, &input, &sig);
            bad += (jose_verify(pool, &s, jwks, JOSE_ALL)
                    != NGX_HTTP_AI_JWT_NO_KEY);

            OPENSSL_free(der);
        }

        ok(bad == 0, "%s: its public key is no secret", key->alg);
    }
}


/* signatures that are almost right */

static void
test_signatures(void)
{
    int                   salt;
    u_char               *p;
    size_t                i, size;
    BIGNUM               *n, *s;
    ngx_str_t             h, b, input, sig, bad, t;
    jose_key_t           *key;
    ngx_http_ai_jwks_t   *jwks;

    static jose_key_t  *ec[] = { &es, &es3, &es5 };

    static const char  *order[] = {
        "FFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551",
        "FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF"
        "581A0DB248B0A77AECEC196ACCC52973",
        "1FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"
        "FFFA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E913864"
        "09"
    };

    b = jose_text(pool, "{}");

    /* ES*: two numbers of full length, from 1 to below the order */

    for (i = 0; i < 3; i++) {
        key = ec[i];
        jwks = jose_set(pool, key->jwk, JOSE_ALL);
        jose_curve(key->alg, &size);

        h = jose_text(pool, i == 0 ? "{\"alg\":\"ES256\"}"
                            : i == 1 ? "{\"alg\":\"ES384\"}"
                            : "{\"alg\":\"ES512\"}");
        input = jose_input(pool, &h, &b);
        sig = jose_signature(pool, key, &input, 0);

        t = jose_join(pool, &input, &sig);
        is_rc(jose_verify(pool, &t, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_OK,
              key->alg);

        bad = jose_dup(pool, sig.data, sig.len);
        ngx_memzero(bad.data, size);
        t = jose_join(pool, &input, &bad);
        is_rc(jose_verify(pool, &t, jwks, JOSE_ALL),
              NGX_HTTP_AI_JWT_SIGNATURE, "r is 0");

        bad = jose_dup(pool, sig.data, sig.len);
        ngx_memzero(bad.data + size, size);
        t = jose_join(pool, &input, &bad);
        is_rc(jose_verify(pool, &t, jwks, JOSE_ALL),
              NGX_HTTP_AI_JWT_SIGNATURE, "s is 0");

        ngx_memzero(bad.data, 2 * size);
        t = jose_join(pool, &input, &bad);
        is_rc(jose_verify(pool, &t, jwks, JOSE_ALL),
              NGX_HTTP_AI_JWT_SIGNATURE, "r and s are 0 (CVE-2022-21449)");

        n = NULL;
        BN_hex2bn(&n, order[i]);

        bad = jose_dup(pool, sig.data, sig.len);
        BN_bn2binpad(n, bad.data, (int) size);
        t = jose_join(pool, &input, &bad);
        is_rc(jose_verify(pool, &t, jwks, JOSE_ALL),
              NGX_HTTP_AI_JWT_SIGNATURE, "r is the order");

        bad = jose_dup(pool, sig.data, sig.len);
        BN_bn2binpad(n, bad.data + size, (int) size);
        t = jose_join(pool, &input, &bad);
        is_rc(jose_verify(pool, &t, jwks, JOSE_ALL),
              NGX_HTTP_AI_JWT_SIGNATURE, "s is the order");

        /* s above the order stands for the same number */

        s = BN_bin2bn(sig.data + size, (int) size, NULL);
        BN_add(s, s, n);

        if (BN_num_bytes(s) <= (int) size) {
            BN_bn2binpad(s, bad.data + size, (int) size);
            t = jose_join(pool, &input, &bad);
            is_rc(jose_verify(pool, &t, jwks, JOSE_ALL),
                  NGX_HTTP_AI_JWT_SIGNATURE, "s is above the order");
        }

        BN_free(s);
        BN_free(n);

        bad = jose_dup(pool, sig.data, sig.len);
        bad.len--;
        t = jose_join(pool, &input, &bad);
        is_rc(jose_verify(pool, &t, jwks, JOSE_ALL),
              NGX_HTTP_AI_JWT_SIGNATURE, "a byte too few");

        bad.data = ngx_pcalloc(pool, sig.len + 2);
        bad.len = sig.len + 2;
        ngx_memcpy(bad.data + 1, sig.data, size);
        ngx_memcpy(bad.data + 2 + size, sig.data + size, size);
        t = jose_join(pool, &input, &bad);
        is_rc(jose_verify(pool, &t, jwks, JOSE_ALL),
              NGX_HTTP_AI_JWT_SIGNATURE, "with leading zeros");

        /* that of another library: ASN.1 */

        size = 512;
        p = ngx_pnalloc(pool, size);
        {
            EVP_MD_CTX  *ctx;

            ctx = EVP_MD_CTX_new();
            EVP_DigestSignInit(ctx, NULL, jose_md(key->alg), NULL, key->pkey);
            EVP_DigestSign(ctx, p, &size, input.data, input.len);
            EVP_MD_CTX_free(ctx);
        }

        bad.data = p;
        bad.len = size;
        t = jose_join(pool, &input, &bad);
        is_rc(jose_verify(pool, &t, jwks, JOSE_ALL),
              NGX_HTTP_AI_JWT_SIGNATURE, "in DER");
    }

    /* PS*: the salt is as long as the hash */

    jwks = jose_set(pool, ps.jwk, JOSE_ALL);
    h = jose_text(pool, "{\"alg\":\"PS256\"}");
    input = jose_input(pool, &h, &b);

    for (salt = 16; salt <= 64; salt += 8) {
        sig = jose_signature(pool, &ps, &input, salt);
        t = jose_join(pool, &input, &sig);

        ok((jose_verify(pool, &t, jwks, JOSE_ALL) == NGX_HTTP_AI_JWT_OK)
           == (salt == 32), "PS256 with a salt of %d bytes", salt);
    }

    /* RS256 and PS256 are two algorithms of one key */

    jwks = jose_set(pool, rs.jwk, JOSE_ALL);
    h = jose_text(pool, "{\"alg\":\"RS256\"}");
    input = jose_input(pool, &h, &b);

    key = &rs;
    key->alg = "PS256";
    sig = jose_signature(pool, key, &input, 0);
    key->alg = "RS256";
    t = jose_join(pool, &input, &sig);
    is_rc(jose_verify(pool, &t, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_SIGNATURE,
          "PSS where RS256 is said");

    sig = jose_signature(pool, key, &input, 0);

    bad.data = ngx_pcalloc(pool, sig.len + 1);
    bad.len = sig.len + 1;
    ngx_memcpy(bad.data + 1, sig.data, sig.len);
    t = jose_join(pool, &input, &bad);
    is_rc(jose_verify(pool, &t, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_SIGNATURE,
          "RS256 with a leading zero");

    ngx_memzero(bad.data, bad.len);
    bad.len = sig.len;
    t = jose_join(pool, &input, &bad);
    is_rc(jose_verify(pool, &t, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_SIGNATURE,
          "RS256 of zeros");

    ngx_memset(bad.data, 0xff, bad.len);
    t = jose_join(pool, &input, &bad);
    is_rc(jose_verify(pool, &t, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_SIGNATURE,
          "RS256 above the modulus");

    /* HS256: no part of the code will do */

    jwks = jose_set(pool, hs.jwk, JOSE_ALL);
    h = jose_text(pool, "{\"alg\":\"HS256\"}");
    input = jose_input(pool, &h, &b);
    sig = jose_signature(pool, &hs, &input, 0);

    for (i = 0; i < sig.len; i++) {
        bad.data = sig.data;
        bad.len = i;
        t = jose_join(pool, &input, &bad);

        if (jose_verify(pool, &t, jwks, JOSE_ALL) == NGX_HTTP_AI_JWT_OK) {
            break;
        }
    }

    ok(i == sig.len, "HS256 cut short is refused at any length");
}


static void
test_kids(void)
{
    char                  set[12000];
    size_t                i;
    ngx_str_t             s, other;
    const char           *error;
    jose_key_t            a, b, none, many[10];
    ngx_http_ai_jwks_t   *jwks;

    jose_new(pool, &a, "ES256", "a");
    jose_new(pool, &b, "ES256", "b");
    jose_new(pool, &none, "ES256", NULL);

    snprintf(set, sizeof(set), "%s,%s", a.jwk, b.jwk);
    jwks = jose_set(pool, set, JOSE_ALL);

    s = jose_token(pool, &a, "", "{}");
    is_rc(jose_verify(pool, &s, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_OK,
          "kid a");

    s = jose_token(pool, &b, "", "{}");
    is_rc(jose_verify(pool, &s, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_OK,
          "kid b");

    a.kid = "b";
    s = jose_token(pool, &a, "", "{}");
    is_rc(jose_verify(pool, &s, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_SIGNATURE,
          "kid b of key a");

    a.kid = "c";
    s = jose_token(pool, &a, "", "{}");
    is_rc(jose_verify(pool, &s, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_NO_KEY,
          "kid c");

    a.kid = "../../dev/null";
    s = jose_token(pool, &a, "", "{}");
    is_rc(jose_verify(pool, &s, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_NO_KEY,
          "a path as kid");

    a.kid = NULL;
    s = jose_token(pool, &a, "", "{}");
    is_rc(jose_verify(pool, &s, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_OK,
          "no kid: any key");

    s = jose_token(pool, &none, "", "{}");
    is_rc(jose_verify(pool, &s, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_SIGNATURE,
          "no kid, no such key");

    /* a key without a name */

    snprintf(set, sizeof(set), "%s,%s", none.jwk, b.jwk);
    jwks = jose_set(pool, set, JOSE_ALL);

    none.kid = "x";
    s = jose_token(pool, &none, "", "{}");
    is_rc(jose_verify(pool, &s, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_OK,
          "a kid, and a key without one");

    none.kid = "b";
    s = jose_token(pool, &none, "", "{}");
    is_rc(jose_verify(pool, &s, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_OK,
          "the kid of another, and a key without one");

    a.kid = "x";
    s = jose_token(pool, &a, "", "{}");
    is_rc(jose_verify(pool, &s, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_NO_KEY,
          "a kid that the set does not have");

    /* of many keys without names, some are tried */

    set[0] = '\0';

    for (i = 0; i < 10; i++) {
        jose_new(pool, &many[i], "ES256", NULL);

        if (i) {
            strcat(set, ",");
        }

        strcat(set, many[i].jwk);
    }

    jwks = jose_set(pool, set, JOSE_ALL);
    is_int(ngx_http_ai_jwks_count(jwks, NULL), 10, "ten keys");

    s = jose_token(pool, &many[7], "", "{}");
    is_rc(jose_verify(pool, &s, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_OK,
          "the eighth");

    s = jose_token(pool, &many[8], "", "{}");
    is_rc(jose_verify(pool, &s, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_SIGNATURE,
          "the ninth is not tried");

    for (i = 0; i < 10; i++) {
        jose_free(&many[i]);
    }

    /* a secret beside the set, which is the operator's to add */

    jwks = jose_set(pool, b.jwk, JOSE_ALL);
    other = jose_dup(pool, hs.secret, hs.len);

    is_int(ngx_http_ai_jwks_add_secret(jwks, &other, NGX_HTTP_AI_JWA_HS256,
                                       &error), NGX_OK, "a secret");

    s = jose_token(pool, &hs, "", "{}");
    is_rc(jose_verify(pool, &s, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_OK,
          "a token of the secret");

    s = jose_token(pool, &b, "", "{}");
    is_rc(jose_verify(pool, &s, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_OK,
          "a token of the key");

    hs.alg = "HS384";
    s = jose_token(pool, &hs, "", "{}");
    is_rc(jose_verify(pool, &s, jwks, JOSE_ALL), NGX_HTTP_AI_JWT_NO_KEY,
          "the secret with another algorithm");
    hs.alg = "HS256";

    jose_free(&a);
    jose_free(&b);
    jose_free(&none);
}


static void
test_names(void)
{
    size_t     i;
    ngx_str_t  s;

    static const char  *names[] = {
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256",
        "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
        "Ed448"
    };

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        s.data = (u_char *) names[i];
        s.len = strlen(names[i]);

        is_int(ngx_http_ai_jwa_find(&s), (int64_t) 1 << i, names[i]);
    }

    ngx_str_set(&s, "none");
    is_int(ngx_http_ai_jwa_find(&s), 0, "none");

    ngx_str_null(&s);
    is_int(ngx_http_ai_jwa_find(&s), 0, "nothing");

    ok(strcmp(name_of(NGX_HTTP_AI_JWT_NO_MEMORY), "no memory") == 0,
       "the last error has its text");
    ok(strcmp(name_of(NGX_HTTP_AI_JWT_NO_MEMORY + 1), "unknown error") == 0,
       "what is no error has another");
}


/* each allocation fails once: no crash, no leak, nothing accepted */

static void
test_memory(void)
{
    char                  set[8192];
    time_t                expires;
    ngx_str_t             s, t, path, value;
    ngx_int_t             rc;
    ngx_uint_t            i, accepted, alive;
    ngx_pool_t           *p;
    const char           *error;
    ngx_http_ai_jwt_t     jwt;
    ngx_http_ai_jwks_t   *jwks;

    s = jose_token(pool, &es, "\"typ\":\"JWT\",\"a\":\"\\n\"",
                   "{\"iss\":\"https://login.acme.com\",\"exp\":1700000100,"
                   "\"aud\":[\"\\u0061i\",\"b\"],"
                   "\"r\":{\"x\":[\"a\",\"b\\n\"]}}");

    snprintf(set, sizeof(set), "{\"keys\":[%s,%s]}", es.jwk, rs.jwk);
    t = jose_text(pool, set);

    alive = stub_alive;
    accepted = 0;

    for (i = 1; i < 200; i++) {
        p = ngx_create_pool(4096, NULL);

        stub_fail = i;

        rc = ngx_http_ai_jwks_parse(p, &t, JOSE_ALL, 8, &jwks, &error);

        if (rc == NGX_OK
            && ngx_http_ai_jwt_parse(p, &s, &jwt) == NGX_HTTP_AI_JWT_OK
            && ngx_http_ai_jwt_verify(&jwt, jwks, &rules)
               == NGX_HTTP_AI_JWT_OK
            && ngx_http_ai_jwt_check(&jwt, &rules, NOW, &expires)
               == NGX_HTTP_AI_JWT_OK)
        {
            ngx_str_set(&path, "r.x");

            if (ngx_http_ai_jwt_claim(&jwt.claims, p, &path, ' ', &value)
                == NGX_OK)
            {
                accepted += (stub_fail != 0);

                if (stub_fail == 0) {
                    diag("allocation %u failed unnoticed", (unsigned) i);
                    accepted = 1000;
                }
            }
        }

        stub_fail = 0;
        ngx_destroy_pool(p);
    }

    ok(accepted > 0 && accepted < 199, "%u runs with enough memory",
       (unsigned) accepted);
    is_int(stub_alive, alive, "what was allocated is free");
    ok(ERR_peek_error() == 0, "no error is left");
}


int
main(void)
{
    ngx_str_t  *s;

    pool = ngx_create_pool(4096, NULL);

    jose_new(pool, &hs, "HS256", NULL);
    jose_new(pool, &hs5, "HS512", NULL);
    jose_new(pool, &rs, "RS256", NULL);
    jose_new(pool, &ps, "PS256", NULL);
    jose_new(pool, &es, "ES256", NULL);
    jose_new(pool, &es3, "ES384", NULL);
    jose_new(pool, &es5, "ES512", NULL);
    jose_new(pool, &ed, "EdDSA", NULL);
    jose_new(pool, &ed4, "Ed448", NULL);

    rules.algs = JOSE_ALL;
    rules.leeway = 60;
    ngx_str_set(&rules.issuer, "https://login.acme.com");

    rules.audiences = ngx_array_create(pool, 2, sizeof(ngx_str_t));
    s = ngx_array_push(rules.audiences);
    ngx_str_set(s, "ai");
    s = ngx_array_push(rules.audiences);
    ngx_str_set(s, "ai-test");

    test_names();
    test_rfc();
    test_form();
    test_header();
    test_payload();
    test_algorithms();
    test_confusion();
    test_signatures();
    test_kids();
    test_memory();

    jose_free(&rs);
    jose_free(&ps);
    jose_free(&es);
    jose_free(&es3);
    jose_free(&es5);
    jose_free(&ed);
    jose_free(&ed4);

    ngx_destroy_pool(pool);

    is_int(stub_alive, 0, "nothing is left");

    return done_testing();
}
