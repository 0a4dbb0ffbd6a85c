
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Any bytes: the verdict does not depend on what is asked for or on the CPU,
 * nodes lie in the text, what is written can be read again.
 */


#include "test.h"
#include "ngx_http_ai_json.h"
#include "ngx_http_ai_scan.h"
#include "ngx_http_ai_tokens.h"


#define check(x)                                                              \
    do {                                                                      \
        if (!(x)) {                                                           \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);           \
            abort();                                                          \
        }                                                                     \
    } while (0)


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
walk(ngx_pool_t *pool, ngx_http_ai_json_t *j, u_char *data, size_t size)
{
    u_char                   *p;
    int64_t                   value;
    ngx_str_t                 raw, plain, again;
    ngx_uint_t                i, k, n;
    ngx_http_ai_out_t         out;
    ngx_http_ai_json_t        j2;
    ngx_http_ai_json_node_t  *node;

    check(j->nnodes > 0 && j->nodes[0].next == j->nnodes);

    for (i = 0; i < j->nnodes; i++) {
        node = &j->nodes[i];

        check(node->start >= data);
        check(node->start + node->len <= data + size);
        check(node->next > i && node->next <= j->nnodes);

        if (node->type >= NGX_HTTP_AI_JSON_ARRAY) {
            n = 0;

            for (k = ngx_http_ai_json_first(j, i);
                 k != NGX_HTTP_AI_JSON_NONE;
                 k = ngx_http_ai_json_next(j, i, k))
            {
                check(j->nodes[k].key
                      == (node->type == NGX_HTTP_AI_JSON_OBJECT));
                n++;
            }

            check(n == node->count);
            continue;
        }

        if (node->type == NGX_HTTP_AI_JSON_NUMBER) {
            raw = ngx_http_ai_json_raw(j, i);
            (void) ngx_http_ai_json_int(j, i, &value);

            if (ngx_http_ai_json_fixed(&raw, 6, &value) == NGX_OK) {
                check(value >= 0);
            }

            continue;
        }

        if (node->type != NGX_HTTP_AI_JSON_STRING) {
            continue;
        }

        /* plain bytes that are escaped stand for the same */

        raw = ngx_http_ai_json_raw(j, i);
        check((memchr(raw.data, '\\', raw.len) != NULL) == node->escaped);

        check(ngx_http_ai_json_unescape_str(pool, &raw, &plain) == NGX_OK);
        check(plain.len <= raw.len);

        check(ngx_http_ai_out_init(&out, pool, 0) == NGX_OK);
        ngx_http_ai_out_lit(&out, "\"");
        ngx_http_ai_out_escaped(&out, plain.data, plain.len);
        ngx_http_ai_out_lit(&out, "\"");

        ngx_memzero(&j2, sizeof(j2));
        j2.pool = pool;
        check(ngx_http_ai_json_parse(&j2, out.start, out.last - out.start)
              == NGX_OK);

        raw = ngx_http_ai_json_raw(&j2, 0);
        check(ngx_http_ai_json_unescape_str(pool, &raw, &again) == NGX_OK);

        /* bad UTF-8 is replaced, that once is enough */

        check(ngx_http_ai_out_init(&out, pool, 0) == NGX_OK);
        ngx_http_ai_out_escaped(&out, again.data, again.len);
        check((size_t) (out.last - out.start) == raw.len);
        check(raw.len == 0 || memcmp(out.start, raw.data, raw.len) == 0);

        if (node->key) {
            p = plain.data;
            check(ngx_http_ai_json_key_eq(j, i, (char *) p, plain.len));
        }
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    u_char              *text;
    ngx_int_t            rc, rc2;
    ngx_str_t            s;
    ngx_uint_t           i, v;
    ngx_pool_t          *pool;
    ngx_http_ai_out_t    out;
    ngx_http_ai_json_t   j, j2;

    pool = ngx_create_pool(4096, NULL);
    text = test_copy(data, size);

    (void) ngx_http_ai_scan_select(0);

    ngx_memzero(&j, sizeof(j));
    j.pool = pool;
    rc = ngx_http_ai_json_parse(&j, text, size);

    check(rc == NGX_OK || rc == NGX_DECLINED);
    check((rc == NGX_OK) == (j.error == NULL));
    check(j.error_offset <= size);

    for (v = 0; v < 3; v++) {
        (void) ngx_http_ai_scan_select(v);

        for (i = 0; i < 4; i++) {
            ngx_memzero(&j2, sizeof(j2));
            j2.pool = pool;
            j2.shallow = i;
            rc2 = ngx_http_ai_json_parse(&j2, text, size);

            check(rc2 == rc && j2.error == j.error);
            check(j2.error_offset == j.error_offset);
            check(i || j2.nnodes == j.nnodes);
        }
    }

    (void) ngx_http_ai_scan_select(0);

    if (rc == NGX_OK) {
        walk(pool, &j, text, size);

        /* JSON in a string and out of it again is the same */

        s.data = text;
        s.len = size;

        check(ngx_http_ai_out_init(&out, pool, 0) == NGX_OK);
        ngx_http_ai_out_lit(&out, "\"");
        ngx_http_ai_out_reescaped(&out, &s);
        ngx_http_ai_out_lit(&out, "\"");

        ngx_memzero(&j2, sizeof(j2));
        j2.pool = pool;
        check(ngx_http_ai_json_parse(&j2, out.start, out.last - out.start)
              == NGX_OK);

        s = ngx_http_ai_json_raw(&j2, 0);

        check(ngx_http_ai_out_init(&out, pool, 0) == NGX_OK);
        ngx_http_ai_out_unescaped(&out, &s);
        check((size_t) (out.last - out.start) == size);
        check(memcmp(out.start, text, size) == 0);
    }

    check(ngx_http_ai_tokens_raw(text, size) <= (uint64_t) size * 400);

    free(text);
    ngx_destroy_pool(pool);
    check(stub_alive == 0);

    return 0;
}
