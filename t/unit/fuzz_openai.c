
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include "ngx_http_ai_dialect.h"
#include "ngx_http_ai_patch.h"


/*
 * The first byte chooses what the rest is: a request, a stream (one event a
 * line) or a body.  Whatever comes out must be valid JSON, and must be read
 * again without a refusal.
 */


#define MAX_TOOLS  2048


typedef struct {
    ngx_http_ai_encoder_t  *enc;
    ngx_uint_t              started;
    ngx_uint_t              ended;
    ngx_uint_t              error;
    ngx_uint_t              tools;
    u_char                  state[MAX_TOOLS];
} state_t;


static ngx_pool_t             *pool;
static ngx_http_ai_dialect_t  *dialect = &ngx_http_ai_dialect_openai;


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
must(int good)
{
    if (!good) {
        abort();
    }
}


static void
must_parse(u_char *p, size_t len, ngx_http_ai_json_t *j)
{
    ngx_memzero(j, sizeof(ngx_http_ai_json_t));
    j->pool = pool;
    j->max_depth = 1024;

    must(ngx_http_ai_json_parse(j, p, len) == NGX_OK);
}


static void
request(u_char *p, size_t len, ngx_uint_t v)
{
    ngx_int_t                   rc;
    ngx_http_ai_out_t           out;
    ngx_http_ai_json_t          j;
    ngx_http_ai_codec_t         codec;
    ngx_http_ai_request_t       req;
    ngx_http_ai_target_info_t   target;

    static const char  *vendors[] = {
        "openai", "azure", "openrouter", "deepseek", "mistral", "groq",
        "together", "vllm", "llamacpp", "other"
    };

    ngx_memzero(&j, sizeof(j));
    ngx_memzero(&codec, sizeof(codec));
    ngx_memzero(&target, sizeof(target));

    j.pool = pool;
    codec.pool = pool;

    if (ngx_http_ai_json_parse(&j, p, len) != NGX_OK) {
        return;
    }

    rc = dialect->decode_request(&codec, &j, &req);

    if (rc == NGX_DECLINED) {
        must(codec.error.message.len != 0);
        return;
    }

    must(rc == NGX_OK);

    ngx_str_set(&target.model, "a\"b\xff");
    target.vendor.data = (u_char *) vendors[v % 10];
    target.vendor.len = strlen(vendors[v % 10]);

    ngx_http_ai_out_init(&out, pool, 0);

    rc = dialect->encode_request(&codec, &req, &target, &out);

    if (rc == NGX_DECLINED) {
        must(codec.error.message.len != 0);
        return;
    }

    must(rc == NGX_OK);

    must_parse(out.start, out.last - out.start, &j);

    /* Mistral's documents and audio are not those of the dialect */

    rc = dialect->decode_request(&codec, &j, &req);
    must(rc == NGX_OK || (rc == NGX_DECLINED && v % 10 == 4));
}


static ngx_int_t
sink(void *data, ngx_http_ai_event_t *ev)
{
    state_t  *s = data;

    must(!s->ended);

    switch (ev->type) {

    case NGX_HTTP_AI_EV_START:
        must(!s->started);
        s->started = 1;
        break;

    case NGX_HTTP_AI_EV_ERROR:
        s->error = 1;
        break;

    case NGX_HTTP_AI_EV_END:
        s->ended = 1;
        break;

    default:
        must(s->started);
    }

    if (ev->choice == 0) {

        switch (ev->type) {

        case NGX_HTTP_AI_EV_TOOL_START:
            must(ev->index == s->tools && ev->id.len);
            s->state[s->tools++] = 1;
            break;

        case NGX_HTTP_AI_EV_TOOL_ARGS:
            must(ev->index < s->tools && s->state[ev->index] == 1);
            break;

        case NGX_HTTP_AI_EV_TOOL_END:
            must(ev->index < s->tools && s->state[ev->index] == 1);
            s->state[ev->index] = 2;
            break;

        default:
            break;
        }
    }

    /* an encoder may refuse what is too much, not more */

    return dialect->encode_event(s->enc, ev);
}


static ngx_int_t
drop(void *data, ngx_http_ai_event_t *ev)
{
    return NGX_OK;
}


static void
answer(u_char *p, size_t len, ngx_uint_t mode, ngx_uint_t flags)
{
    u_char                 *last, *eol;
    ngx_int_t               rc;
    ngx_str_t               name, data;
    static state_t          s;
    ngx_http_ai_out_t       out;
    ngx_http_ai_json_t      j;
    ngx_http_ai_decoder_t   dec;
    ngx_http_ai_encoder_t   enc;

    static ngx_http_ai_op_e  ops[] = {
        NGX_HTTP_AI_OP_CHAT, NGX_HTTP_AI_OP_COMPLETIONS,
        NGX_HTTP_AI_OP_EMBEDDINGS, NGX_HTTP_AI_OP_CHAT
    };

    ngx_memzero(&s, sizeof(s));
    ngx_memzero(&dec, sizeof(dec));
    ngx_memzero(&enc, sizeof(enc));

    ngx_http_ai_out_init(&out, pool, 0);

    enc.pool = pool;
    enc.op = NGX_HTTP_AI_OP_CHAT;
    enc.out = &out;
    enc.stream = flags & 1;
    enc.include_usage = (flags & 2) ? 1 : 0;
    ngx_str_set(&enc.model, "a\"b");
    ngx_str_set(&enc.id, "ID");

    must(dialect->encode_init(&enc) == NGX_OK);

    s.enc = &enc;

    dec.pool = pool;
    dec.op = ops[(flags >> 2) & 3];
    dec.sink.handler = sink;
    dec.sink.data = &s;

    must(dialect->decode_init(&dec) == NGX_OK);

    if (mode) {
        rc = dialect->decode_body(&dec, p, len);

        if (rc == NGX_DECLINED) {
            must(dec.error.message.len != 0);
        }

    } else {
        last = p + len;

        for ( /* void */ ; p < last; p = eol + 1) {

            for (eol = p; eol < last && *eol != '\n'; eol++) { /* void */ }

            ngx_str_null(&name);
            data.data = p;
            data.len = eol - p;

            if (data.len && *p == '!') {
                ngx_str_set(&name, "error");
            }

            rc = dialect->decode_event(&dec, &name, &data);

            if (rc == NGX_ERROR) {
                return;
            }
        }

        rc = dialect->decode_finish(&dec);
    }

    if (rc != NGX_OK || s.error) {
        return;
    }

    must(s.ended);

    if (!enc.stream) {
        must_parse(out.start, out.last - out.start, &j);
    }

    ngx_memzero(&dec, sizeof(dec));

    dec.pool = pool;
    dec.op = NGX_HTTP_AI_OP_CHAT;
    dec.sink.handler = drop;

    must(dialect->decode_init(&dec) == NGX_OK);

    if (!enc.stream) {
        must(dialect->decode_body(&dec, out.start, out.last - out.start)
             == NGX_OK);
        return;
    }

    last = out.last;

    for (p = out.start; p < last; p = eol + 2) {
        for (eol = p; eol < last && *eol != '\n'; eol++) { /* void */ }

        must(eol + 1 < last && eol[1] == '\n' && memcmp(p, "data: ", 6) == 0);

        ngx_str_null(&name);
        data.data = p + 6;
        data.len = eol - data.data;

        must(dialect->decode_event(&dec, &name, &data) == NGX_OK);
    }
}


static void
patch(u_char *p, size_t len)
{
    u_char                 *buf, *q;
    size_t                  n;
    ngx_str_t               body, *s;
    ngx_uint_t              i;
    ngx_array_t             slices;
    ngx_http_ai_json_t      j, full;
    ngx_http_ai_patch_op_t  ops[4];

    ngx_memzero(&j, sizeof(j));
    j.pool = pool;
    j.shallow = 1;

    if (ngx_http_ai_json_parse(&j, p, len) != NGX_OK) {
        return;
    }

    body.data = p;
    body.len = len;

    ngx_memzero(ops, sizeof(ops));

    if (ngx_http_ai_patch_stream_options(pool, &j, &ops[0]) != NGX_OK) {
        ngx_str_set(&ops[0].name, "x");
        ngx_str_set(&ops[0].value, "[]");
        ops[0].mode = NGX_HTTP_AI_PATCH_SET;
    }

    ngx_str_set(&ops[1].name, "a");
    ops[1].mode = NGX_HTTP_AI_PATCH_DELETE;
    ngx_str_set(&ops[2].name, "b");
    ngx_str_set(&ops[2].value, "2");
    ngx_str_set(&ops[3].name, "c");
    ngx_str_set(&ops[3].value, "3");
    ops[3].mode = NGX_HTTP_AI_PATCH_DEFAULT;

    must(ngx_array_init(&slices, pool, 4, sizeof(ngx_str_t)) == NGX_OK);

    if (ngx_http_ai_patch(pool, &j, &body, ops, 4, &slices, &n) != NGX_OK) {
        return;
    }

    buf = ngx_pnalloc(pool, n);
    q = buf;
    s = slices.elts;

    for (i = 0; i < slices.nelts; i++) {
        q = ngx_cpymem(q, s[i].data, s[i].len);
    }

    must((size_t) (q - buf) == n);

    must_parse(buf, n, &full);

    must(ngx_http_ai_json_member(&full, 0, "a") == NGX_HTTP_AI_JSON_NONE);
    must(ngx_http_ai_json_member(&full, 0, "b") != NGX_HTTP_AI_JSON_NONE);
    must(ngx_http_ai_json_member(&full, 0, "c") != NGX_HTTP_AI_JSON_NONE);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    u_char  *p;

    if (size == 0) {
        return 0;
    }

    pool = ngx_create_pool(4096, NULL);
    must(pool != NULL);

    p = test_copy(data + 1, size - 1);

    switch (data[0] & 3) {

    case 0:
        request(p, size - 1, data[0] >> 2);
        break;

    case 1:
        answer(p, size - 1, 0, data[0] >> 2);
        break;

    case 2:
        answer(p, size - 1, 1, data[0] >> 2);
        break;

    case 3:
        patch(p, size - 1);
        break;
    }

    free(p);
    ngx_destroy_pool(pool);

    return 0;
}
