
/*
 * Copyright (C) nginx AI gateway authors
 */


/* what the tests of the OpenAI dialect share */


#ifndef _TEST_OPENAI_H_INCLUDED_
#define _TEST_OPENAI_H_INCLUDED_


#include "test.h"
#include "ngx_http_ai_dialect.h"


#define MAX_TOOLS  64


/* an answer put together again */

typedef struct {
    ngx_http_ai_out_t      text;
    ngx_http_ai_out_t      reasoning;
    ngx_http_ai_out_t      signature;
    ngx_http_ai_out_t      refusal;
    ngx_http_ai_out_t      annotations;

    ngx_str_t              id[MAX_TOOLS];
    ngx_str_t              name[MAX_TOOLS];
    ngx_http_ai_out_t      args[MAX_TOOLS];
    ngx_uint_t             state[MAX_TOOLS];    /* 0, 1 started, 2 ended */
    ngx_uint_t             ntools;

    ngx_http_ai_finish_e   finish;
    ngx_http_ai_usage_t    usage;
    ngx_str_t              answer;
    ngx_str_t              model;
    int64_t                created;
    ngx_uint_t             started;
    ngx_uint_t             finished;
    ngx_uint_t             metered;
    ngx_uint_t             error;
    ngx_http_ai_err_e      class;
    ngx_uint_t             ended;
    ngx_uint_t             disorder;
} fold_t;


static ngx_pool_t             *pool;
static ngx_http_ai_dialect_t  *dialect = &ngx_http_ai_dialect_openai;

/* events are written down or counted, and may be sent on */

static fold_t                 *fold_to;
static ngx_http_ai_encoder_t  *encode_to;
static ngx_http_ai_out_t       dump;


test_unused
static void
fold_init(fold_t *f)
{
    ngx_uint_t  i;

    ngx_memzero(f, sizeof(fold_t));

    ngx_http_ai_out_init(&f->text, pool, 64);
    ngx_http_ai_out_init(&f->reasoning, pool, 64);
    ngx_http_ai_out_init(&f->signature, pool, 64);
    ngx_http_ai_out_init(&f->refusal, pool, 64);
    ngx_http_ai_out_init(&f->annotations, pool, 64);
    ngx_http_ai_usage_init(&f->usage);

    for (i = 0; i < MAX_TOOLS; i++) {
        ngx_http_ai_out_init(&f->args[i], pool, 64);
    }
}


test_unused
static ngx_str_t
keep(ngx_str_t *s)
{
    ngx_str_t  copy;

    copy.data = ngx_pstrdup(pool, s);
    copy.len = s->len;

    return copy;
}


test_unused
static void
dump_str(const char *name, ngx_str_t *s)
{
    ngx_http_ai_out_mem(&dump, name, strlen(name));
    ngx_http_ai_out_mem(&dump, s->data, s->len);
}


test_unused
static void
dump_int(const char *name, int64_t n)
{
    ngx_http_ai_out_mem(&dump, name, strlen(name));
    ngx_http_ai_out_int(&dump, n);
}


test_unused
static void
dump_event(ngx_http_ai_event_t *ev)
{
    static const char  *names[] = {
        "start", "text", "reasoning", "signature", "redacted", "refusal",
        "tool", "args", "/tool", "cite", "finish", "usage", "error", "end"
    };

    if (dump.last != dump.start) {
        ngx_http_ai_out_lit(&dump, "|");
    }

    ngx_http_ai_out_mem(&dump, names[ev->type], strlen(names[ev->type]));

    if (ev->choice) {
        dump_int("#", ev->choice);
    }

    switch (ev->type) {

    case NGX_HTTP_AI_EV_START:
        dump_str(" ", &ev->id);
        dump_str(" ", &ev->model);
        dump_int(" ", ev->created);
        break;

    case NGX_HTTP_AI_EV_TOOL_START:
        dump_int(" ", ev->index);
        dump_str(" ", &ev->id);
        dump_str(" ", &ev->name);
        break;

    case NGX_HTTP_AI_EV_TOOL_ARGS:
        dump_int(" ", ev->index);
        dump_str(" ", &ev->text);
        break;

    case NGX_HTTP_AI_EV_TOOL_END:
        dump_int(" ", ev->index);
        break;

    case NGX_HTTP_AI_EV_FINISH:
        dump_int(" ", ev->finish);
        dump_str(ev->text.len ? " " : "", &ev->text);
        break;

    case NGX_HTTP_AI_EV_USAGE:
        dump_int(" ", ngx_http_ai_usage_input(ev->usage));
        dump_int("/", ev->usage->cache_read);
        dump_int("/", ev->usage->cache_write);
        dump_int(" ", ev->usage->out);
        dump_int("/", ev->usage->reasoning);
        break;

    case NGX_HTTP_AI_EV_ERROR:
        dump_str(" ", ngx_http_ai_err_name(ev->error->class));
        dump_str(" ", &ev->error->message);
        break;

    case NGX_HTTP_AI_EV_END:
        break;

    default:
        dump_str(" ", &ev->text);
    }
}


test_unused
static ngx_int_t
sink(void *data, ngx_http_ai_event_t *ev)
{
    fold_t      *f;
    ngx_uint_t   i;

    if (dump.pool) {
        dump_event(ev);
    }

    if (encode_to && dialect->encode_event(encode_to, ev) != NGX_OK) {
        return NGX_ERROR;
    }

    f = fold_to;

    if (f == NULL || ev->choice != 0) {
        return NGX_OK;
    }

    if (!f->started && ev->type != NGX_HTTP_AI_EV_START
        && ev->type != NGX_HTTP_AI_EV_ERROR)
    {
        f->disorder = 1;
    }

    if (f->ended) {
        f->disorder = 2;
    }

    i = ev->index;

    switch (ev->type) {

    case NGX_HTTP_AI_EV_START:
        if (f->started++) {
            f->disorder = 3;
        }

        f->answer = keep(&ev->id);
        f->model = keep(&ev->model);
        f->created = ev->created;
        break;

    case NGX_HTTP_AI_EV_TEXT:
        ngx_http_ai_out_str(&f->text, &ev->text);
        break;

    case NGX_HTTP_AI_EV_REASONING:
        ngx_http_ai_out_str(&f->reasoning, &ev->text);
        break;

    case NGX_HTTP_AI_EV_SIGNATURE:
        ngx_http_ai_out_str(&f->signature, &ev->text);
        break;

    case NGX_HTTP_AI_EV_REFUSAL:
        ngx_http_ai_out_str(&f->refusal, &ev->text);
        break;

    case NGX_HTTP_AI_EV_CITATION:
        ngx_http_ai_out_str(&f->annotations, &ev->text);
        break;

    case NGX_HTTP_AI_EV_TOOL_START:
        if (i >= MAX_TOOLS || i != f->ntools || f->finished) {
            f->disorder = 4;
            break;
        }

        f->ntools++;
        f->state[i] = 1;
        f->id[i] = keep(&ev->id);
        f->name[i] = keep(&ev->name);
        break;

    case NGX_HTTP_AI_EV_TOOL_ARGS:
        if (i >= MAX_TOOLS || f->state[i] != 1) {
            f->disorder = 5;
            break;
        }

        ngx_http_ai_out_str(&f->args[i], &ev->text);
        break;

    case NGX_HTTP_AI_EV_TOOL_END:
        if (i >= MAX_TOOLS || f->state[i] != 1) {
            f->disorder = 6;
            break;
        }

        f->state[i] = 2;
        break;

    case NGX_HTTP_AI_EV_FINISH:
        if (f->finished++) {
            f->disorder = 7;
        }

        f->finish = ev->finish;
        break;

    case NGX_HTTP_AI_EV_USAGE:
        ngx_http_ai_usage_merge(&f->usage, ev->usage);
        ngx_str_null(&f->usage.service_tier);
        f->metered = 1;
        break;

    case NGX_HTTP_AI_EV_ERROR:
        f->error++;
        f->class = ev->error->class;
        break;

    case NGX_HTTP_AI_EV_END:
        f->ended = 1;

        for (i = 0; i < f->ntools; i++) {
            if (f->state[i] != 2) {
                f->disorder = 8;
            }
        }

        break;

    default:
        break;
    }

    return NGX_OK;
}


test_unused
static void
decoder_init(ngx_http_ai_decoder_t *dec, ngx_http_ai_op_e op)
{
    ngx_memzero(dec, sizeof(ngx_http_ai_decoder_t));

    dec->pool = pool;
    dec->op = op;
    dec->sink.handler = sink;

    if (dialect->decode_init(dec) != NGX_OK) {
        abort();
    }
}


test_unused
static void
encoder_init(ngx_http_ai_encoder_t *enc, ngx_http_ai_out_t *out,
    ngx_uint_t stream)
{
    ngx_memzero(enc, sizeof(ngx_http_ai_encoder_t));

    ngx_http_ai_out_init(out, pool, 0);

    enc->pool = pool;
    enc->op = NGX_HTTP_AI_OP_CHAT;
    enc->out = out;
    enc->stream = stream;
    enc->include_usage = 1;
    enc->now = 1700000000;
    ngx_str_set(&enc->model, "m");
    ngx_str_set(&enc->id, "ID");

    if (dialect->encode_init(enc) != NGX_OK) {
        abort();
    }
}


/* the blocks of a stream one by one, by a reader of the test's own */

test_unused
static ngx_int_t
feed(ngx_http_ai_decoder_t *dec, u_char *p, size_t len, ngx_uint_t bare)
{
    u_char     *last, *eol, *line;
    ngx_int_t   rc;
    ngx_str_t   name, data;

    last = p + len;
    ngx_str_null(&name);

    while (p < last) {
        line = p;

        for (eol = p; eol < last && *eol != '\n'; eol++) { /* void */ }

        p = eol + 1;

        if (eol > line && eol[-1] == '\r') {
            eol--;
        }

        if (eol == line) {
            ngx_str_null(&name);
            continue;
        }

        if (bare) {
            data.data = line;
            data.len = eol - line;

        } else if (eol - line > 6 && memcmp(line, "event:", 6) == 0) {
            name.data = line + 7;
            name.len = eol - name.data;
            continue;

        } else if (eol - line > 5 && memcmp(line, "data:", 5) == 0) {
            data.data = line + 5 + (line[5] == ' ');
            data.len = eol - data.data;

        } else {
            continue;
        }

        line = test_copy(data.data, data.len);
        data.data = line;

        rc = dialect->decode_event(dec, &name, &data);

        free(line);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    return NGX_OK;
}


test_unused
static ngx_int_t
request(const char *text, size_t len, const char *vendor,
    ngx_http_ai_codec_t *codec, ngx_http_ai_request_t *req,
    ngx_http_ai_out_t *out)
{
    ngx_int_t                  rc;
    ngx_http_ai_json_t         j;
    ngx_http_ai_target_info_t  target;

    ngx_memzero(&j, sizeof(ngx_http_ai_json_t));
    ngx_memzero(codec, sizeof(ngx_http_ai_codec_t));
    ngx_memzero(&target, sizeof(ngx_http_ai_target_info_t));

    j.pool = pool;
    codec->pool = pool;

    if (ngx_http_ai_json_parse(&j, (u_char *) text, len) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = dialect->decode_request(codec, &j, req);

    if (rc != NGX_OK || out == NULL) {
        return rc;
    }

    ngx_str_set(&target.model, "M");
    target.vendor.data = (u_char *) vendor;
    target.vendor.len = strlen(vendor);

    ngx_http_ai_out_init(out, pool, 0);

    return dialect->encode_request(codec, req, &target, out);
}


#endif /* _TEST_OPENAI_H_INCLUDED_ */
