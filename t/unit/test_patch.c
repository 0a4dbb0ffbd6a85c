
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include "ngx_http_ai_patch.h"


static ngx_pool_t  *pool;


static ngx_int_t
parse(ngx_http_ai_json_t *j, ngx_str_t *body, ngx_uint_t shallow)
{
    ngx_memzero(j, sizeof(ngx_http_ai_json_t));

    j->pool = pool;
    j->shallow = shallow;

    return ngx_http_ai_json_parse(j, body->data, body->len);
}


static void
patch(const char *text, ngx_http_ai_patch_op_t *ops, ngx_uint_t nops,
    const char *expected)
{
    u_char              *buf, *p;
    size_t               len, sum;
    ngx_int_t            rc;
    ngx_str_t            body, *s;
    ngx_uint_t           i, shallow;
    ngx_array_t          slices;
    ngx_http_ai_json_t   j;

    for (shallow = 0; shallow < 2; shallow++) {

        body.len = strlen(text);
        body.data = test_copy(text, body.len);

        if (parse(&j, &body, shallow) != NGX_OK) {
            ok(0, "parse %s", text);
            free(body.data);
            return;
        }

        ngx_array_init(&slices, pool, 2, sizeof(ngx_str_t));

        rc = ngx_http_ai_patch(pool, &j, &body, ops, nops, &slices, &len);

        if (expected == NULL) {
            ok(rc == NGX_DECLINED, "declined: %s", text);
            free(body.data);
            continue;
        }

        if (rc != NGX_OK) {
            ok(0, "patched: %s", text);
            free(body.data);
            return;
        }

        s = slices.elts;
        sum = 0;

        for (i = 0; i < slices.nelts; i++) {
            sum += s[i].len;
        }

        buf = malloc(sum + 1);
        p = buf;

        for (i = 0; i < slices.nelts; i++) {
            p = ngx_cpymem(p, s[i].data, s[i].len);
        }

        is_mem(buf, sum, expected, strlen(expected), text);

        if (sum != len) {
            is_int(len, sum, "its length");
        }

        free(body.data);

        /* the result is a document again */

        body.data = buf;
        body.len = sum;

        if (parse(&j, &body, 0) != NGX_OK) {
            ok(0, "result is valid: %s", expected);
        }

        free(buf);
    }
}


static void
patch1(const char *text, const char *name, const char *value,
    ngx_http_ai_patch_e mode, const char *expected)
{
    ngx_http_ai_patch_op_t  op;

    op.name.data = (u_char *) name;
    op.name.len = strlen(name);
    op.value.data = (u_char *) value;
    op.value.len = strlen(value);
    op.mode = mode;

    patch(text, &op, 1, expected);
}


static void
stream_options(const char *text, const char *expected)
{
    ngx_int_t                rc;
    ngx_str_t                body;
    ngx_http_ai_json_t       j;
    ngx_http_ai_patch_op_t   op;

    body.data = (u_char *) text;
    body.len = strlen(text);

    if (parse(&j, &body, 1) != NGX_OK) {
        ok(0, "parse %s", text);
        return;
    }

    rc = ngx_http_ai_patch_stream_options(pool, &j, &op);

    if (expected == NULL) {
        ok(rc == NGX_DECLINED, "stream_options left: %s", text);
        return;
    }

    if (!ok(rc == NGX_OK, "stream_options: %s", text)) {
        return;
    }

    patch(text, &op, 1, expected);
}


#define set(text, name, value, expected)                                      \
    patch1(text, name, value, NGX_HTTP_AI_PATCH_SET, expected)
#define def(text, name, value, expected)                                      \
    patch1(text, name, value, NGX_HTTP_AI_PATCH_DEFAULT, expected)
#define del(text, name, expected)                                             \
    patch1(text, name, "", NGX_HTTP_AI_PATCH_DELETE, expected)


int
main(void)
{
    ngx_http_ai_patch_op_t  ops[] = {
        { ngx_string("model"), ngx_string("\"x\""), NGX_HTTP_AI_PATCH_SET },
        { ngx_string("max"), ngx_string("7"), NGX_HTTP_AI_PATCH_DEFAULT },
        { ngx_string("user"), ngx_null_string, NGX_HTTP_AI_PATCH_DELETE },
        { ngx_string("n\"n"), ngx_string("[1]"), NGX_HTTP_AI_PATCH_SET }
    };

    pool = ngx_create_pool(4096, NULL);

    set("{\"model\":\"a\"}", "model", "\"b\"", "{\"model\":\"b\"}");
    set(" { \"a\" : 1 , \"model\" : \"long name\" , \"z\":{} } \n", "model",
        "\"b\"", " { \"a\" : 1 , \"model\" : \"b\" , \"z\":{} } \n");
    set("{\"model\":{\"a\":[1,2]},\"b\":1}", "model", "null",
        "{\"model\":null,\"b\":1}");
    set("{}", "model", "1", "{\"model\":1}");
    set(" { } ", "model", "1", " { \"model\":1} ");
    set("{\"a\":1}", "model", "1", "{\"a\":1,\"model\":1}");
    set("{\"a\":1 \n}", "model", "1", "{\"a\":1 \n,\"model\":1}");
    set("\xef\xbb\xbf{\"a\":1}", "a", "2", "\xef\xbb\xbf{\"a\":2}");
    set("{\"model\":1,\"x\":2,\"model\":3}", "model", "4",
        "{\"model\":1,\"x\":2,\"model\":4}");
    set("{\"mod\\u0065l\":1}", "model", "2", "{\"mod\\u0065l\":2}");
    set("{\"o\":{\"model\":1}}", "model", "2",
        "{\"o\":{\"model\":1},\"model\":2}");
    set("{\"model\":\"\\\"}\"}", "model", "2", "{\"model\":2}");
    set("{\"model\":\"\"}", "model", "\"\"", "{\"model\":\"\"}");
    set("[1]", "model", "2", NULL);
    set("\"model\"", "model", "2", NULL);

    def("{\"a\":1}", "a", "2", "{\"a\":1}");
    def("{\"a\":null}", "a", "2", "{\"a\":null}");
    def("{\"b\":1}", "a", "2", "{\"b\":1,\"a\":2}");
    def("{}", "a", "2", "{\"a\":2}");

    del("{\"a\":1}", "a", "{}");
    del("{ \"a\" : 1 }", "a", "{  }");
    del("{\"a\":1,\"b\":2}", "a", "{\"b\":2}");
    del("{\"a\":1,\"b\":2}", "b", "{\"a\":1}");
    del("{\"a\":1 , \"b\":2 , \"c\":3}", "b", "{\"a\":1 , \"c\":3}");
    del("{\"a\":1,\"a\":2}", "a", "{}");
    del("{\"a\":1,\"a\":2,\"b\":3}", "a", "{\"b\":3}");
    del("{\"b\":3,\"a\":1,\"a\":2}", "a", "{\"b\":3}");
    del("{\"a\":1,\"b\":3,\"a\":2}", "a", "{\"b\":3}");
    del("{\"a\":1,\"b\":3,\"a\":2,\"c\":4,\"a\":5}", "a",
        "{\"b\":3,\"c\":4}");
    del("{\"b\":1}", "a", "{\"b\":1}");

    patch("{\"user\":\"u\",\"model\":\"m\"}", ops, 4,
          "{\"model\":\"x\",\"max\":7,\"n\\\"n\":[1]}");
    patch("{\"model\":\"m\",\"max\":1,\"user\":2,\"n\\\"n\":3}", ops, 4,
          "{\"model\":\"x\",\"max\":1,\"n\\\"n\":[1]}");
    patch("{\"user\":1}", ops, 4,
          "{\"model\":\"x\",\"max\":7,\"n\\\"n\":[1]}");
    patch("{ }", ops, 4, "{ \"model\":\"x\",\"max\":7,\"n\\\"n\":[1]}");
    patch("{\"model\":1, \"user\":2, \"z\":3}", ops, 4,
          "{\"model\":\"x\", \"z\":3,\"max\":7,\"n\\\"n\":[1]}");
    patch("{\"z\":1e5}", ops, 0, "{\"z\":1e5}");

    stream_options("{\"a\":1}",
                   "{\"a\":1,\"stream_options\":{\"include_usage\":true}}");
    stream_options("{\"stream_options\":null,\"a\":1}",
                   "{\"stream_options\":{\"include_usage\":true},\"a\":1}");
    stream_options("{\"stream_options\":{}}",
                   "{\"stream_options\":{\"include_usage\":true}}");
    stream_options("{\"stream_options\": {\"x\": [1] , "
                   "\"include_usage\": false } }",
                   "{\"stream_options\": {\"x\": [1] , "
                   "\"include_usage\": true } }");
    stream_options("{\"stream_options\":{\"include_obfuscation\":false}}",
                   "{\"stream_options\":{\"include_obfuscation\":false,"
                   "\"include_usage\":true}}");
    stream_options("{\"stream_options\":{\"include_usage\":true}}", NULL);
    stream_options("{\"stream_options\":1}", NULL);

    ngx_destroy_pool(pool);

    return done_testing();
}
