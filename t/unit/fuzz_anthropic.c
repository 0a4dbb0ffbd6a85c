
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include "order.h"
#include "ngx_http_ai_dialect.h"


/*
 * The first byte chooses what the rest is: a request, a stream (one event a
 * line) or a body, and whose.  What comes out of either dialect must be valid,
 * in order, and must be read again without a refusal.
 */


#define MAX_TOOLS  4096


typedef struct {
    ngx_http_ai_encoder_t  *enc;
    ngx_http_ai_dialect_t  *to;
    ngx_uint_t              started;
    ngx_uint_t              finished;
    ngx_uint_t              ended;
    ngx_uint_t              error;
    ngx_uint_t              tools;
    ngx_uint_t              failed;
    u_char                  state[MAX_TOOLS];
} state_t;


static ngx_pool_t             *pool;
static ngx_http_ai_dialect_t  *anthropic = &ngx_http_ai_dialect_anthropic;
static ngx_http_ai_dialect_t  *openai = &ngx_http_ai_dialect_openai;


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
    ngx_http_ai_dialect_t      *from, *to;
    ngx_http_ai_request_t       req;
    ngx_http_ai_target_info_t   target;

    static const char  *models[] = {
        "claude-opus-4-7", "claude-sonnet-4-5", "claude-3-haiku-20240307",
        "a\"b\xff", "claude-opus-4-6", "claude-", "opus-4.", "claude-fable-5"
    };

    ngx_memzero(&j, sizeof(j));
    ngx_memzero(&codec, sizeof(codec));
    ngx_memzero(&target, sizeof(target));

    j.pool = pool;
    codec.pool = pool;

    if (ngx_http_ai_json_parse(&j, p, len) != NGX_OK) {
        return;
    }

    from = (v & 8) ? openai : anthropic;
    to = (v & 16) ? openai : anthropic;

    rc = from->decode_request(&codec, &j, &req);

    if (rc == NGX_DECLINED) {
        must(codec.error.message.len != 0);
        return;
    }

    must(rc == NGX_OK);

    target.model.data = (u_char *) models[v & 7];
    target.model.len = strlen(models[v & 7]);
    ngx_str_set(&target.vendor, "openai");

    ngx_http_ai_out_init(&out, pool, 0);

    rc = to->encode_request(&codec, &req, &target, &out);

    if (rc == NGX_DECLINED) {
        must(codec.error.message.len != 0);
        return;
    }

    must(rc == NGX_OK);

    must_parse(out.start, out.last - out.start, &j);

    must(to->decode_request(&codec, &j, &req) == NGX_OK);
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
        must(s->started);
        s->ended = 1;
        break;

    case NGX_HTTP_AI_EV_FINISH:
        must(s->started && !s->finished);
        s->finished = 1;
        break;

    case NGX_HTTP_AI_EV_TOOL_START:
        must(s->started && ev->index == s->tools && s->tools < MAX_TOOLS);
        s->state[s->tools++] = 1;
        break;

    case NGX_HTTP_AI_EV_TOOL_ARGS:
        must(ev->index < s->tools && s->state[ev->index] == 1
             && ev->text.len);
        break;

    case NGX_HTTP_AI_EV_TOOL_END:
        must(ev->index < s->tools && s->state[ev->index] == 1);
        s->state[ev->index] = 2;
        break;

    case NGX_HTTP_AI_EV_USAGE:
        must(s->started && ev->usage->in_fresh >= -1 && ev->usage->out >= -1);
        break;

    default:
        must(s->started);
    }

    /* an encoder may refuse what is too much, not more */

    if (s->to->encode_event(s->enc, ev) != NGX_OK) {
        s->failed = 1;
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
drop(void *data, ngx_http_ai_event_t *ev)
{
    return NGX_OK;
}


static void
answer(u_char *p, size_t len, ngx_uint_t body, ngx_uint_t flags)
{
    u_char                 *last, *eol;
    ngx_int_t               rc;
    ngx_str_t               name, data;
    const char             *what;
    static state_t          s;
    ngx_http_ai_out_t       out;
    ngx_http_ai_json_t      j;
    ngx_http_ai_decoder_t   dec;
    ngx_http_ai_encoder_t   enc;

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

    s.enc = &enc;
    s.to = (flags & 4) ? openai : anthropic;

    must(s.to->encode_init(&enc) == NGX_OK);

    dec.pool = pool;
    dec.op = (flags & 8) ? NGX_HTTP_AI_OP_COUNT_TOKENS : NGX_HTTP_AI_OP_CHAT;
    dec.sink.handler = sink;
    dec.sink.data = &s;

    must(anthropic->decode_init(&dec) == NGX_OK);

    if (body) {
        rc = anthropic->decode_body(&dec, p, len);

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

            rc = anthropic->decode_event(&dec, &name, &data);

            if (rc == NGX_ERROR) {
                break;
            }
        }

        rc = anthropic->decode_finish(&dec);
    }

    if (s.failed) {
        return;
    }

    must(rc == NGX_OK || rc == NGX_DECLINED);

    if (enc.stream) {
        what = (s.to == anthropic)
               ? order_anthropic(pool, out.start, out.last - out.start,
                                 s.ended)
               : order_openai(pool, out.start, out.last - out.start, s.ended);

        if (what) {
            fprintf(stderr, "%s in %.*s\n", what, (int) (out.last - out.start),
                    out.start);
            abort();
        }
    }

    if (!s.ended || enc.stream) {
        return;
    }

    must_parse(out.start, out.last - out.start, &j);

    ngx_memzero(&dec, sizeof(dec));

    dec.pool = pool;
    dec.op = NGX_HTTP_AI_OP_CHAT;
    dec.sink.handler = drop;

    must(s.to->decode_init(&dec) == NGX_OK);
    must(s.to->decode_body(&dec, out.start, out.last - out.start) == NGX_OK);
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

    switch (data[0] % 3) {

    case 0:
        request(p, size - 1, data[0] / 3);
        break;

    case 1:
        answer(p, size - 1, 0, data[0] / 3);
        break;

    case 2:
        answer(p, size - 1, 1, data[0] / 3);
        break;
    }

    free(p);
    ngx_destroy_pool(pool);

    return 0;
}
