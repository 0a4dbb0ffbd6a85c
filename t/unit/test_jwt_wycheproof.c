
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The JOSE vectors of Project Wycheproof (github.com/C2SP/wycheproof), which
 * are not part of this tree: AI_WYCHEPROOF is the directory with
 * json_web_signature_test.json and so on.
 */


#include "jose.h"


typedef struct {
    const char  *file;
    int          id;
    int          accepted;
    const char  *why;
} exception_t;


/* where a vector says one thing and its label another */

static exception_t  exceptions[] = {

    { "json_web_signature_test.json", 346, 0,
      "the key is for PS256, the token is of PS384" },
    { "json_web_signature_test.json", 350, 0,
      "the key is for PS256, the token is of PS384" },
    { "json_web_signature_test.json", 347, 0,
      "the key is for ES521, which is no algorithm" },
    { "json_web_signature_test.json", 351, 0,
      "the key is for ES521, which is no algorithm" },
    { "json_web_signature_test.json", 372, 0,
      "a question mark in the header's base64" },
    { "json_web_signature_test.json", 373, 0,
      "a question mark in the payload's base64" },
    { "json_web_signature_test.json", 367, 1,
      "the padding is not there: the same token as 357, which is valid" },
    { "json_web_signature_test.json", 370, 1,
      "the padding is not there: the same token as 357, which is valid" },
    { "json_web_key_test.json", 4, 1,
      "the second key with this \"kid\" is not base64url, so there is one" }
};


static ngx_pool_t  *pool;


static ngx_str_t
member(ngx_http_ai_json_t *j, ngx_uint_t obj, const char *name)
{
    ngx_str_t  raw, s;

    raw = ngx_http_ai_json_raw(j, ngx_http_ai_json_get(j, obj, name,
                                                       strlen(name)));
    ngx_str_null(&s);

    if (raw.len) {
        (void) ngx_http_ai_json_unescape_str(pool, &raw, &s);
    }

    return s;
}


static u_char *
read_all(const char *dir, const char *name, size_t *len)
{
    FILE         *f;
    char          path[4096];
    u_char       *p;
    struct stat   st;

    snprintf(path, sizeof(path), "%s/%s", dir, name);

    f = fopen(path, "rb");

    if (f == NULL) {
        return NULL;
    }

    if (fstat(fileno(f), &st) != 0) {
        fclose(f);
        return NULL;
    }

    p = malloc(st.st_size + 1);

    if (p == NULL) {
        abort();
    }

    *len = fread(p, 1, st.st_size, f);

    fclose(f);

    return p;
}


static void
test_file(const char *dir, const char *file)
{
    size_t                len, i;
    u_char               *data;
    int64_t               id;
    ngx_int_t             rc;
    ngx_str_t             set, token, result, comment;
    ngx_uint_t            groups, g, key, tests, t, n, bad, valid, invalid,
                          except, node;
    const char           *error;
    ngx_http_ai_out_t     out;
    ngx_http_ai_json_t    j;
    ngx_http_ai_jwks_t   *jwks;
    ngx_http_ai_jwt_e     verdict;

    data = read_all(dir, file, &len);

    if (data == NULL) {
        ok(0, "%s/%s can be read", dir, file);
        return;
    }

    ngx_memzero(&j, sizeof(j));
    j.pool = pool;

    if (!ok(ngx_http_ai_json_parse(&j, data, len) == NGX_OK, "%s is JSON",
            file))
    {
        free(data);
        return;
    }

    n = 0;
    bad = 0;
    valid = 0;
    invalid = 0;
    except = 0;

    groups = ngx_http_ai_json_member(&j, 0, "testGroups");

    for (g = ngx_http_ai_json_first(&j, groups);
         g != NGX_HTTP_AI_JSON_NONE;
         g = ngx_http_ai_json_next(&j, groups, g))
    {
        comment = member(&j, g, "comment");

        if (comment.len > 3 && memcmp(comment.data, "jwe", 3) == 0) {
            continue;
        }

        key = ngx_http_ai_json_member(&j, g, "public");

        if (key == NGX_HTTP_AI_JSON_NONE) {
            key = ngx_http_ai_json_member(&j, g, "private");
        }

        set = ngx_http_ai_json_raw(&j, key);

        if (ngx_http_ai_json_member(&j, key, "keys")
            == NGX_HTTP_AI_JSON_NONE)
        {
            ngx_http_ai_out_init(&out, pool, 0);
            ngx_http_ai_out_lit(&out, "{\"keys\":[");
            ngx_http_ai_out_str(&out, &set);
            ngx_http_ai_out_lit(&out, "]}");

            set.data = out.start;
            set.len = out.last - out.start;
        }

        rc = ngx_http_ai_jwks_parse(pool, &set, JOSE_ALL, 64, &jwks, &error);

        if (rc != NGX_OK) {
            jwks = ngx_http_ai_jwks_create(pool);
        }

        tests = ngx_http_ai_json_member(&j, g, "tests");

        for (t = ngx_http_ai_json_first(&j, tests);
             t != NGX_HTTP_AI_JSON_NONE;
             t = ngx_http_ai_json_next(&j, tests, t))
        {
            id = 0;
            (void) ngx_http_ai_json_int(&j, ngx_http_ai_json_member(&j, t,
                                                           "tcId"), &id);
            result = member(&j, t, "result");
            node = ngx_http_ai_json_member(&j, t, "jws");

            token = (ngx_http_ai_json_type(&j, node)
                     == NGX_HTTP_AI_JSON_STRING)
                    ? member(&j, t, "jws") : ngx_http_ai_json_raw(&j, node);

            verdict = jose_verify(pool, &token, jwks, JOSE_ALL);

            n++;

            for (i = 0; i < sizeof(exceptions) / sizeof(exceptions[0]); i++) {

                if (exceptions[i].id == id
                    && strcmp(exceptions[i].file, file) == 0)
                {
                    break;
                }
            }

            if (i < sizeof(exceptions) / sizeof(exceptions[0])) {
                except++;

                ok((verdict == NGX_HTTP_AI_JWT_OK) == exceptions[i].accepted,
                   "%s %d: %s", file, (int) id, exceptions[i].why);
                continue;
            }

            if (result.len == 5 && memcmp(result.data, "valid", 5) == 0) {
                valid++;

                if (verdict == NGX_HTTP_AI_JWT_OK) {
                    continue;
                }

            } else if (result.len == 7
                       && memcmp(result.data, "invalid", 7) == 0)
            {
                invalid++;

                if (verdict != NGX_HTTP_AI_JWT_OK) {
                    continue;
                }
            }

            /* also what is "acceptable": none is known */

            bad++;
            comment = member(&j, t, "comment");

            diag("%s %d, %.*s (%.*s): %s", file, (int) id, (int) comment.len,
                 comment.data, (int) result.len, result.data,
                 ngx_http_ai_jwt_error(verdict));
        }
    }

    ok(bad == 0 && n > 10, "%s: %u valid, %u invalid, %u by hand", file,
       (unsigned) valid, (unsigned) invalid, (unsigned) except);

    free(data);
}


int
main(void)
{
    size_t               i;
    const char          *dir;
    struct stat          st;
    static const char   *dirs[] = { "../../../shared/wycheproof",
                                    "../shared/wycheproof", NULL };

    dir = getenv("AI_WYCHEPROOF");

    if (dir == NULL || *dir == '\0') {
        dir = NULL;

        for (i = 0; dirs[i]; i++) {
            if (stat(dirs[i], &st) == 0) {
                dir = dirs[i];
                break;
            }
        }
    }

    if (dir == NULL) {
        skip("no Wycheproof vectors: set AI_WYCHEPROOF");
        return done_testing();
    }

    pool = ngx_create_pool(4096, NULL);

    test_file(dir, "json_web_signature_test.json");
    test_file(dir, "json_web_key_test.json");
    test_file(dir, "json_web_crypto_test.json");

    ngx_destroy_pool(pool);

    is_int(stub_alive, 0, "nothing is left");

    return done_testing();
}
