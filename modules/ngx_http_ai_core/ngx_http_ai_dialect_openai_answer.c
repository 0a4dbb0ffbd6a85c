
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_dialect.h"
#include "ngx_http_ai_dialect_openai.h"


#define NGX_HTTP_AI_OPENAI_NODES  96      /* of a usual chunk */


/* members of a chunk or a body */

typedef struct {
    ngx_uint_t                 id;
    ngx_uint_t                 model;
    ngx_uint_t                 created;
    ngx_uint_t                 choices;
    ngx_uint_t                 usage;
    ngx_uint_t                 error;
    ngx_uint_t                 object;
    ngx_uint_t                 service_tier;
    ngx_uint_t                 x_groq;
    ngx_uint_t                 timings;
} ngx_http_ai_openai_chunk_t;


/* members of a delta or a message */

typedef struct {
    ngx_uint_t                 content;
    ngx_uint_t                 reasoning;
    ngx_uint_t                 reasoning_content;
    ngx_uint_t                 reasoning_details;
    ngx_uint_t                 reasoning_signature;
    ngx_uint_t                 reasoning_redacted;
    ngx_uint_t                 refusal;
    ngx_uint_t                 annotations;
    ngx_uint_t                 tool_calls;
    ngx_uint_t                 function_call;
} ngx_http_ai_openai_delta_t;


static void ngx_http_ai_openai_chunk(ngx_http_ai_json_t *j,
    ngx_http_ai_openai_chunk_t *c);
static ngx_int_t ngx_http_ai_openai_emit(ngx_http_ai_decoder_t *dec,
    ngx_http_ai_event_e type, ngx_uint_t choice, ngx_str_t *text);
static ngx_int_t ngx_http_ai_openai_start(ngx_http_ai_decoder_t *dec,
    ngx_http_ai_openai_chunk_t *c);
static ngx_uint_t ngx_http_ai_openai_is_error(ngx_http_ai_json_t *j,
    ngx_http_ai_openai_chunk_t *c);
static ngx_int_t ngx_http_ai_openai_error(ngx_http_ai_decoder_t *dec,
    u_char *data, size_t len);
static ngx_int_t ngx_http_ai_openai_choice(ngx_http_ai_decoder_t *dec,
    ngx_uint_t n, ngx_uint_t position, ngx_uint_t whole);
static ngx_int_t ngx_http_ai_openai_delta(ngx_http_ai_decoder_t *dec,
    ngx_uint_t n, ngx_uint_t choice, ngx_uint_t whole);
static ngx_int_t ngx_http_ai_openai_thought(ngx_http_ai_decoder_t *dec,
    ngx_http_ai_openai_delta_t *d, ngx_uint_t choice);
static ngx_int_t ngx_http_ai_openai_details(ngx_http_ai_decoder_t *dec,
    ngx_uint_t n, ngx_uint_t choice, ngx_uint_t text);
static ngx_int_t ngx_http_ai_openai_parts(ngx_http_ai_decoder_t *dec,
    ngx_uint_t n, ngx_uint_t choice);
static ngx_int_t ngx_http_ai_openai_part_text(ngx_http_ai_decoder_t *dec,
    ngx_uint_t n, ngx_http_ai_event_e type, ngx_uint_t choice);
static ngx_int_t ngx_http_ai_openai_finish(ngx_http_ai_decoder_t *dec,
    ngx_uint_t choice, ngx_http_ai_finish_e finish, ngx_str_t *text);
static ngx_int_t ngx_http_ai_openai_end(ngx_http_ai_decoder_t *dec);


ngx_int_t
ngx_http_ai_openai_decode_init(ngx_http_ai_decoder_t *dec)
{
    ngx_http_ai_openai_dec_t  *ctx;

    ctx = ngx_pcalloc(dec->pool, sizeof(ngx_http_ai_openai_dec_t));
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_ai_out_init(&ctx->scratch, dec->pool, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    ctx->id_hash = NGX_HTTP_AI_OPENAI_HASH;

    dec->json.pool = dec->pool;

    if (dec->json.nodes == NULL) {
        dec->json.nodes = ngx_palloc(dec->pool, NGX_HTTP_AI_OPENAI_NODES
                                            * sizeof(ngx_http_ai_json_node_t));
        if (dec->json.nodes == NULL) {
            return NGX_ERROR;
        }

        dec->json.nalloc = NGX_HTTP_AI_OPENAI_NODES;
    }

    dec->ctx = ctx;
    dec->usage_only = 0;
    dec->done = 0;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_openai_decode_body(ngx_http_ai_decoder_t *dec, u_char *data,
    size_t len)
{
    ngx_int_t                    rc;
    ngx_str_t                    tier;
    ngx_uint_t                   i, n;
    ngx_http_ai_json_t          *j;
    ngx_http_ai_openai_dec_t    *ctx;
    ngx_http_ai_openai_chunk_t   c;

    ctx = dec->ctx;
    j = &dec->json;

    if (dec->done) {
        return NGX_OK;
    }

    /* vectors are checked, but give no nodes */

    j->shallow = (dec->op == NGX_HTTP_AI_OP_EMBEDDINGS) ? 1 : 0;

    rc = ngx_http_ai_json_parse(j, data, len);

    if (rc == NGX_DECLINED) {
        return ngx_http_ai_openai_declined(dec,
                                       "the answer is not valid JSON");
    }

    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_http_ai_json_type(j, 0) != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_openai_declined(dec,
                                       "the answer is not a JSON object");
    }

    ngx_http_ai_openai_chunk(j, &c);

    if (ngx_http_ai_openai_is_error(j, &c)) {
        dec->done = 1;
        return ngx_http_ai_openai_error(dec, data, len);
    }

    if (c.choices == NGX_HTTP_AI_JSON_NONE
        && (c.usage == NGX_HTTP_AI_JSON_NONE
            || dec->op == NGX_HTTP_AI_OP_CHAT)
        && c.object == NGX_HTTP_AI_JSON_NONE)
    {
        return ngx_http_ai_openai_declined(dec,
                             "the answer is not one of an OpenAI endpoint");
    }

    rc = ngx_http_ai_openai_start(dec, &c);
    if (rc != NGX_OK) {
        return rc;
    }

    if (dec->op == NGX_HTTP_AI_OP_EMBEDDINGS) {

        if (ngx_http_ai_json_type(j, c.usage) == NGX_HTTP_AI_JSON_OBJECT) {
            rc = ngx_http_ai_openai_embeddings(dec);
            if (rc != NGX_OK) {
                return rc;
            }
        }

        dec->done = 1;

        return ngx_http_ai_openai_emit(dec, NGX_HTTP_AI_EV_END, 0, NULL);
    }

    n = 0;

    if (ngx_http_ai_json_type(j, c.choices) == NGX_HTTP_AI_JSON_ARRAY) {

        for (i = ngx_http_ai_json_first(j, c.choices);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, c.choices, i))
        {
            rc = ngx_http_ai_openai_choice(dec, i, n++, 1);
            if (rc != NGX_OK) {
                return rc;
            }
        }
    }

    tier = ngx_http_ai_json_raw(j, c.service_tier);

    if (ngx_http_ai_json_type(j, c.usage) == NGX_HTTP_AI_JSON_OBJECT) {
        rc = ngx_http_ai_openai_usage(dec, j, c.usage, &tier);
        if (rc != NGX_OK) {
            return rc;
        }

    } else if (ngx_http_ai_json_type(j, c.timings)
               == NGX_HTTP_AI_JSON_OBJECT)
    {
        rc = ngx_http_ai_openai_timings(dec, c.timings);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    /* a body without choices is an answer of nothing */

    ctx->seen |= 1;

    return ngx_http_ai_openai_end(dec);
}


ngx_int_t
ngx_http_ai_openai_decode_event(ngx_http_ai_decoder_t *dec, ngx_str_t *name,
    ngx_str_t *data)
{
    u_char                      *p, *last;
    ngx_int_t                    rc;
    ngx_str_t                    tier;
    ngx_uint_t                   i, n;
    ngx_http_ai_json_t          *j;
    ngx_http_ai_openai_dec_t    *ctx;
    ngx_http_ai_openai_chunk_t   c;

    ctx = dec->ctx;
    j = &dec->json;

    dec->usage_only = 0;

    if (dec->done) {
        return NGX_OK;
    }

    p = data->data;
    last = p + data->len;

    if (data->len < 16) {
        p = ngx_http_ai_json_skip_space(p, last);

        while (last > p && (last[-1] == ' ' || last[-1] == '\t')) {
            last--;
        }

        if (last - p == sizeof("[DONE]") - 1
            && ngx_memcmp(p, "[DONE]", sizeof("[DONE]") - 1) == 0)
        {
            if (ctx->failed) {
                dec->done = 1;
                return NGX_OK;
            }

            if (!ctx->started) {
                rc = ngx_http_ai_openai_start(dec, NULL);
                if (rc != NGX_OK) {
                    return rc;
                }
            }

            return ngx_http_ai_openai_end(dec);
        }
    }

    if (name && ngx_http_ai_str_is(name, "error")) {
        return ngx_http_ai_openai_error(dec, data->data, data->len);
    }

    j->shallow = 0;
    j->max_nodes = NGX_HTTP_AI_OPENAI_MAX_NODES;

    rc = ngx_http_ai_json_parse(j, data->data, data->len);

    if (rc == NGX_DECLINED) {
        return ngx_http_ai_openai_declined(dec, "an event is not valid JSON");
    }

    if (rc != NGX_OK) {
        return rc;
    }

    if (j->nodes[0].type != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_openai_declined(dec,
                                           "an event is not a JSON object");
    }

    ngx_http_ai_openai_chunk(j, &c);

    if (ngx_http_ai_openai_is_error(j, &c)) {
        return ngx_http_ai_openai_error(dec, data->data, data->len);
    }

    i = NGX_HTTP_AI_JSON_NONE;

    if (ngx_http_ai_json_type(j, c.choices) == NGX_HTTP_AI_JSON_ARRAY) {
        i = ngx_http_ai_json_first(j, c.choices);
    }

    if (ngx_http_ai_json_type(j, c.usage) != NGX_HTTP_AI_JSON_OBJECT
        && c.x_groq != NGX_HTTP_AI_JSON_NONE)
    {
        c.usage = ngx_http_ai_json_member(j, c.x_groq, "usage");
    }

    if (ngx_http_ai_json_type(j, c.usage) != NGX_HTTP_AI_JSON_OBJECT) {
        c.usage = NGX_HTTP_AI_JSON_NONE;

    } else if (i == NGX_HTTP_AI_JSON_NONE) {
        dec->usage_only = 1;
    }

    /* Azure begins with a chunk that holds nothing but its filter's verdict */

    if (!ctx->started
        && (i != NGX_HTTP_AI_JSON_NONE
            || c.usage != NGX_HTTP_AI_JSON_NONE
            || ngx_http_ai_json_raw(j, c.id).len))
    {
        rc = ngx_http_ai_openai_start(dec, &c);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    for (n = 0;
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, c.choices, i))
    {
        rc = ngx_http_ai_openai_choice(dec, i, n++, 0);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (c.usage != NGX_HTTP_AI_JSON_NONE) {
        tier = ngx_http_ai_json_raw(j, c.service_tier);
        return ngx_http_ai_openai_usage(dec, j, c.usage, &tier);
    }

    if (c.timings != NGX_HTTP_AI_JSON_NONE && ctx->started && !ctx->metered) {
        return ngx_http_ai_openai_timings(dec, c.timings);
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_openai_decode_finish(ngx_http_ai_decoder_t *dec)
{
    ngx_http_ai_openai_dec_t  *ctx;

    ctx = dec->ctx;

    if (dec->done) {
        return NGX_OK;
    }

    if (ctx->failed) {
        return NGX_DECLINED;
    }

    if (ctx->seen == 0 || (ctx->seen & ~ctx->finished)) {
        return ngx_http_ai_openai_declined(dec,
                                     "the stream ended before the answer did");
    }

    return ngx_http_ai_openai_end(dec);
}


static void
ngx_http_ai_openai_chunk(ngx_http_ai_json_t *j, ngx_http_ai_openai_chunk_t *c)
{
    ngx_uint_t  i;

    ngx_memset(c, 0xff, sizeof(ngx_http_ai_openai_chunk_t));

    for (i = ngx_http_ai_json_first(j, 0);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, 0, i))
    {
        if (j->nodes[i + 1].type == NGX_HTTP_AI_JSON_NULL) {
            continue;
        }

        /* an escaped key may begin with any letter */

        switch (j->nodes[i].escaped ? '\\' : j->nodes[i].start[0]) {

        case 'i':
            if (ngx_http_ai_openai_key_is(j, i, "id")) {
                c->id = i + 1;
            }

            break;

        case 'o':
            if (ngx_http_ai_openai_key_is(j, i, "object")) {
                c->object = i + 1;
            }

            break;

        case 'c':
            if (ngx_http_ai_openai_key_is(j, i, "choices")) {
                c->choices = i + 1;

            } else if (ngx_http_ai_openai_key_is(j, i, "created")) {
                c->created = i + 1;
            }

            break;

        case 'm':
            if (ngx_http_ai_openai_key_is(j, i, "model")) {
                c->model = i + 1;
            }

            break;

        case 'u':
            if (ngx_http_ai_openai_key_is(j, i, "usage")) {
                c->usage = i + 1;
            }

            break;

        case 'e':
            if (ngx_http_ai_openai_key_is(j, i, "error")) {
                c->error = i + 1;
            }

            break;

        case 's':
            if (ngx_http_ai_openai_key_is(j, i, "service_tier")
                && j->nodes[i + 1].type == NGX_HTTP_AI_JSON_STRING)
            {
                c->service_tier = i + 1;
            }

            break;

        case 'x':
            if (ngx_http_ai_openai_key_is(j, i, "x_groq")) {
                c->x_groq = i + 1;
            }

            break;

        case 't':
            if (ngx_http_ai_openai_key_is(j, i, "timings")
                && j->nodes[i + 1].type == NGX_HTTP_AI_JSON_OBJECT)
            {
                c->timings = i + 1;
            }

            break;

        case '\\':
            if (ngx_http_ai_json_key_is(j, i, "choices")) {
                c->choices = i + 1;

            } else if (ngx_http_ai_json_key_is(j, i, "usage")) {
                c->usage = i + 1;

            } else if (ngx_http_ai_json_key_is(j, i, "error")) {
                c->error = i + 1;
            }

            break;
        }
    }
}


ngx_int_t
ngx_http_ai_openai_declined(ngx_http_ai_decoder_t *dec, const char *message)
{
    ngx_memzero(&dec->error, sizeof(ngx_http_ai_error_t));

    dec->error.class = NGX_HTTP_AI_ERR_INVALID_ANSWER;
    dec->error.message.data = (u_char *) message;
    dec->error.message.len = ngx_strlen(message);

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_ai_openai_emit(ngx_http_ai_decoder_t *dec, ngx_http_ai_event_e type,
    ngx_uint_t choice, ngx_str_t *text)
{
    ngx_http_ai_event_t  ev;

    ngx_memzero(&ev, sizeof(ngx_http_ai_event_t));

    ev.type = type;
    ev.choice = choice;

    if (text) {
        ev.text = *text;
    }

    return dec->sink.handler(dec->sink.data, &ev);
}


static ngx_int_t
ngx_http_ai_openai_start(ngx_http_ai_decoder_t *dec,
    ngx_http_ai_openai_chunk_t *c)
{
    int64_t                    created;
    ngx_http_ai_json_t        *j;
    ngx_http_ai_event_t        ev;
    ngx_http_ai_openai_dec_t  *ctx;

    ctx = dec->ctx;
    j = &dec->json;

    ctx->started = 1;

    ngx_memzero(&ev, sizeof(ngx_http_ai_event_t));
    ev.type = NGX_HTTP_AI_EV_START;

    if (c) {
        if (ngx_http_ai_json_type(j, c->id) == NGX_HTTP_AI_JSON_STRING) {
            ev.id = ngx_http_ai_json_raw(j, c->id);
        }

        if (ngx_http_ai_json_type(j, c->model) == NGX_HTTP_AI_JSON_STRING) {
            ev.model = ngx_http_ai_json_raw(j, c->model);
        }

        if (c->created != NGX_HTTP_AI_JSON_NONE
            && ngx_http_ai_json_int(j, c->created, &created) == NGX_OK
            && created > 0)
        {
            /* some servers count milliseconds */

            while (created > 100000000000) {
                created /= 1000;
            }

            ev.created = created;
        }
    }

    ctx->id_hash = ngx_http_ai_openai_hash(ev.id.data, ev.id.len,
                                           ctx->id_hash ^ ev.created);

    return dec->sink.handler(dec->sink.data, &ev);
}


static ngx_uint_t
ngx_http_ai_openai_is_error(ngx_http_ai_json_t *j,
    ngx_http_ai_openai_chunk_t *c)
{
    ngx_str_t  s;

    switch (ngx_http_ai_json_type(j, c->error)) {

    case NGX_HTTP_AI_JSON_STRING:
        if (j->nodes[c->error].len) {
            return 1;
        }

        break;

    case NGX_HTTP_AI_JSON_OBJECT:

        /* a shallow tree does not tell whether there are members */

        if (j->nodes[c->error].len > 2) {
            return 1;
        }

        break;
    }

    if (ngx_http_ai_json_type(j, c->object) == NGX_HTTP_AI_JSON_STRING) {
        s = ngx_http_ai_json_raw(j, c->object);
        return ngx_http_ai_str_is(&s, "error");
    }

    return 0;
}


static ngx_int_t
ngx_http_ai_openai_error(ngx_http_ai_decoder_t *dec, u_char *data, size_t len)
{
    int64_t                    v;
    ngx_int_t                  rc;
    ngx_uint_t                 e, n, status;
    ngx_http_ai_json_t        *j;
    ngx_http_ai_event_t        ev;
    ngx_http_ai_openai_dec_t  *ctx;

    ctx = dec->ctx;
    j = &dec->json;

    if (ctx->failed) {
        return NGX_OK;
    }

    ctx->failed = 1;

    /* what the status would have been if it had failed at once */

    status = 200;

    j->shallow = 0;
    j->max_nodes = NGX_HTTP_AI_OPENAI_MAX_NODES;

    rc = ngx_http_ai_json_parse(j, data, len);

    if (rc == NGX_ERROR) {
        return rc;
    }

    if (rc == NGX_OK) {
        e = ngx_http_ai_json_member(j, 0, "error");

        if (ngx_http_ai_json_type(j, e) != NGX_HTTP_AI_JSON_OBJECT) {
            e = 0;
        }

        n = ngx_http_ai_json_member(j, e, "status_code");

        if (n == NGX_HTTP_AI_JSON_NONE) {
            n = ngx_http_ai_json_member(j, e, "code");
        }

        if (n != NGX_HTTP_AI_JSON_NONE
            && ngx_http_ai_json_int(j, n, &v) == NGX_OK
            && v >= 400 && v < 600)
        {
            status = v;
        }
    }

    ngx_memzero(&dec->error, sizeof(ngx_http_ai_error_t));

    if (ngx_http_ai_error_read(dec->pool, status, data, len, &dec->error)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_memzero(&ev, sizeof(ngx_http_ai_event_t));

    ev.type = NGX_HTTP_AI_EV_ERROR;
    ev.error = &dec->error;

    return dec->sink.handler(dec->sink.data, &ev);
}


static ngx_int_t
ngx_http_ai_openai_choice(ngx_http_ai_decoder_t *dec, ngx_uint_t n,
    ngx_uint_t position, ngx_uint_t whole)
{
    int64_t                    v;
    ngx_int_t                  rc;
    ngx_str_t                  s, stop;
    ngx_uint_t                 i, choice, delta, message, text, finish, reason;
    ngx_http_ai_json_t        *j;
    ngx_http_ai_finish_e       f;
    ngx_http_ai_openai_dec_t  *ctx;

    ctx = dec->ctx;
    j = &dec->json;

    if (j->nodes[n].type != NGX_HTTP_AI_JSON_OBJECT) {
        return NGX_OK;
    }

    choice = position;
    delta = NGX_HTTP_AI_JSON_NONE;
    message = NGX_HTTP_AI_JSON_NONE;
    text = NGX_HTTP_AI_JSON_NONE;
    finish = NGX_HTTP_AI_JSON_NONE;
    reason = NGX_HTTP_AI_JSON_NONE;

    for (i = ngx_http_ai_json_first(j, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, n, i))
    {
        if (j->nodes[i + 1].type == NGX_HTTP_AI_JSON_NULL) {
            continue;
        }

        switch (j->nodes[i].start[0]) {

        case 'i':
            if (ngx_http_ai_openai_key_is(j, i, "index")
                && ngx_http_ai_json_int(j, i + 1, &v) == NGX_OK
                && v >= 0 && v < NGX_MAX_INT32_VALUE)
            {
                choice = v;
            }

            break;

        case 'd':
            if (ngx_http_ai_openai_key_is(j, i, "delta")) {
                delta = i + 1;
            }

            break;

        case 'm':
            if (ngx_http_ai_openai_key_is(j, i, "message")) {
                message = i + 1;
            }

            break;

        case 't':
            if (ngx_http_ai_openai_key_is(j, i, "text")) {
                text = i + 1;
            }

            break;

        case 'f':
            if (ngx_http_ai_openai_key_is(j, i, "finish_reason")) {
                finish = i + 1;
            }

            break;

        case 's':
            if (ngx_http_ai_openai_key_is(j, i, "stop_reason")) {
                reason = i + 1;
            }

            break;
        }
    }

    ctx->seen |= ngx_http_ai_openai_bit(choice);

    /* some servers have both, one of them empty */

    if (delta == NGX_HTTP_AI_JSON_NONE
        || (whole && message != NGX_HTTP_AI_JSON_NONE))
    {
        delta = message;
    }

    if (ngx_http_ai_json_type(j, delta) == NGX_HTTP_AI_JSON_OBJECT) {
        rc = ngx_http_ai_openai_delta(dec, delta, choice, whole);
        if (rc != NGX_OK) {
            return rc;
        }

    } else if (ngx_http_ai_json_type(j, text) == NGX_HTTP_AI_JSON_STRING
               && j->nodes[text].len)
    {
        s = ngx_http_ai_json_raw(j, text);

        rc = ngx_http_ai_openai_emit(dec, NGX_HTTP_AI_EV_TEXT, choice, &s);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (ngx_http_ai_json_type(j, finish) != NGX_HTTP_AI_JSON_STRING
        || j->nodes[finish].len == 0)
    {
        return NGX_OK;
    }

    s = ngx_http_ai_json_raw(j, finish);
    ngx_str_null(&stop);

    if (ngx_http_ai_str_is(&s, "stop")
        || ngx_http_ai_str_is(&s, "eos")
        || ngx_http_ai_str_is(&s, "end_turn"))
    {
        f = NGX_HTTP_AI_FINISH_STOP;

        /* vLLM names the sequence that it stopped at */

        if (ngx_http_ai_json_type(j, reason) == NGX_HTTP_AI_JSON_STRING
            && j->nodes[reason].len)
        {
            f = NGX_HTTP_AI_FINISH_STOP_SEQUENCE;
            stop = ngx_http_ai_json_raw(j, reason);
        }

    } else if (ngx_http_ai_str_is(&s, "tool_calls")
               || ngx_http_ai_str_is(&s, "function_call")
               || ngx_http_ai_str_is(&s, "tool_use"))
    {
        f = NGX_HTTP_AI_FINISH_TOOL;

    } else if (ngx_http_ai_str_is(&s, "length")
               || ngx_http_ai_str_is(&s, "model_length")
               || ngx_http_ai_str_is(&s, "max_tokens"))
    {
        f = NGX_HTTP_AI_FINISH_LENGTH;

    } else if (ngx_http_ai_str_is(&s, "content_filter")) {
        f = NGX_HTTP_AI_FINISH_FILTER;

    } else if (ngx_http_ai_str_is(&s, "error")
               || ngx_http_ai_str_is(&s, "insufficient_system_resource"))
    {
        f = NGX_HTTP_AI_FINISH_ERROR;

    } else {
        f = NGX_HTTP_AI_FINISH_UNKNOWN;
    }

    return ngx_http_ai_openai_finish(dec, choice, f, &stop);
}


static ngx_int_t
ngx_http_ai_openai_delta(ngx_http_ai_decoder_t *dec, ngx_uint_t n,
    ngx_uint_t choice, ngx_uint_t whole)
{
    ngx_int_t                    rc;
    ngx_str_t                    s;
    ngx_uint_t                   i;
    ngx_http_ai_json_t          *j;
    ngx_http_ai_openai_delta_t   d;

    j = &dec->json;

    ngx_memset(&d, 0xff, sizeof(ngx_http_ai_openai_delta_t));

    for (i = ngx_http_ai_json_first(j, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, n, i))
    {
        if (j->nodes[i + 1].type == NGX_HTTP_AI_JSON_NULL) {
            continue;
        }

        switch (j->nodes[i].start[0]) {

        case 'c':
            if (ngx_http_ai_openai_key_is(j, i, "content")) {
                d.content = i + 1;
            }

            break;

        case 'r':
            if (ngx_http_ai_openai_key_is(j, i, "reasoning_content")) {
                d.reasoning_content = i + 1;

            } else if (ngx_http_ai_openai_key_is(j, i, "reasoning")) {
                d.reasoning = i + 1;

            } else if (ngx_http_ai_openai_key_is(j, i, "reasoning_details")) {
                d.reasoning_details = i + 1;

            } else if (ngx_http_ai_openai_key_is(j, i, "reasoning_signature"))
            {
                d.reasoning_signature = i + 1;

            } else if (ngx_http_ai_openai_key_is(j, i, "reasoning_redacted"))
            {
                d.reasoning_redacted = i + 1;

            } else if (ngx_http_ai_openai_key_is(j, i, "refusal")) {
                d.refusal = i + 1;
            }

            break;

        case 'a':
            if (ngx_http_ai_openai_key_is(j, i, "annotations")) {
                d.annotations = i + 1;
            }

            break;

        case 't':
            if (ngx_http_ai_openai_key_is(j, i, "tool_calls")) {
                d.tool_calls = i + 1;
            }

            break;

        case 'f':
            if (ngx_http_ai_openai_key_is(j, i, "function_call")) {
                d.function_call = i + 1;
            }

            break;
        }
    }

    rc = ngx_http_ai_openai_thought(dec, &d, choice);
    if (rc != NGX_OK) {
        return rc;
    }

    switch (ngx_http_ai_json_type(j, d.content)) {

    case NGX_HTTP_AI_JSON_STRING:
        s = ngx_http_ai_json_raw(j, d.content);

        if (s.len) {
            rc = ngx_http_ai_openai_emit(dec, NGX_HTTP_AI_EV_TEXT, choice, &s);
        }

        break;

    case NGX_HTTP_AI_JSON_ARRAY:
        rc = ngx_http_ai_openai_parts(dec, d.content, choice);
        break;
    }

    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_http_ai_json_type(j, d.refusal) == NGX_HTTP_AI_JSON_STRING
        && j->nodes[d.refusal].len)
    {
        s = ngx_http_ai_json_raw(j, d.refusal);

        rc = ngx_http_ai_openai_emit(dec, NGX_HTTP_AI_EV_REFUSAL, choice, &s);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (ngx_http_ai_json_type(j, d.annotations) == NGX_HTTP_AI_JSON_ARRAY) {

        for (i = ngx_http_ai_json_first(j, d.annotations);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, d.annotations, i))
        {
            if (j->nodes[i].type != NGX_HTTP_AI_JSON_OBJECT) {
                continue;
            }

            s = ngx_http_ai_json_raw(j, i);

            rc = ngx_http_ai_openai_emit(dec, NGX_HTTP_AI_EV_CITATION, choice,
                                         &s);
            if (rc != NGX_OK) {
                return rc;
            }
        }
    }

    if (ngx_http_ai_json_type(j, d.tool_calls) == NGX_HTTP_AI_JSON_ARRAY) {

        for (i = ngx_http_ai_json_first(j, d.tool_calls);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, d.tool_calls, i))
        {
            rc = ngx_http_ai_openai_call(dec, i, choice, 0, whole);
            if (rc != NGX_OK) {
                return rc;
            }
        }
    }

    if (ngx_http_ai_json_type(j, d.function_call) == NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_openai_call(dec, d.function_call, choice, 1, whole);
    }

    return NGX_OK;
}


/* the text goes by two names, and servers that send both send the same */

static ngx_int_t
ngx_http_ai_openai_thought(ngx_http_ai_decoder_t *dec,
    ngx_http_ai_openai_delta_t *d, ngx_uint_t choice)
{
    ngx_int_t            rc;
    ngx_str_t            s;
    ngx_uint_t           i, n, sent;
    ngx_http_ai_json_t  *j;

    j = &dec->json;
    sent = 0;

    n = d->reasoning_content;

    if (ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_STRING
        || j->nodes[n].len == 0)
    {
        n = d->reasoning;
    }

    if (ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_STRING
        && j->nodes[n].len)
    {
        s = ngx_http_ai_json_raw(j, n);
        sent = 1;

        rc = ngx_http_ai_openai_emit(dec, NGX_HTTP_AI_EV_REASONING, choice,
                                     &s);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    n = d->reasoning_details;

    if (ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_ARRAY) {

        for (i = ngx_http_ai_json_first(j, n);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, n, i))
        {
            rc = ngx_http_ai_openai_details(dec, i, choice, !sent);
            if (rc != NGX_OK) {
                return rc;
            }
        }
    }

    n = d->reasoning_signature;

    if (ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_STRING
        && j->nodes[n].len)
    {
        s = ngx_http_ai_json_raw(j, n);

        rc = ngx_http_ai_openai_emit(dec, NGX_HTTP_AI_EV_SIGNATURE, choice,
                                     &s);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    n = d->reasoning_redacted;

    if (ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_ARRAY) {

        for (i = ngx_http_ai_json_first(j, n);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, n, i))
        {
            if (j->nodes[i].type != NGX_HTTP_AI_JSON_STRING) {
                continue;
            }

            s = ngx_http_ai_json_raw(j, i);

            rc = ngx_http_ai_openai_emit(dec, NGX_HTTP_AI_EV_REDACTED, choice,
                                         &s);
            if (rc != NGX_OK) {
                return rc;
            }
        }
    }

    return NGX_OK;
}


/*
 * OpenRouter's: signatures and opaque parts are of use to their own vendor
 * only, so those are taken that another Anthropic endpoint accepts
 */

static ngx_int_t
ngx_http_ai_openai_details(ngx_http_ai_decoder_t *dec, ngx_uint_t n,
    ngx_uint_t choice, ngx_uint_t text)
{
    ngx_int_t            rc;
    ngx_str_t            s, type, format;
    ngx_uint_t           v;
    ngx_http_ai_json_t  *j;

    j = &dec->json;

    type = ngx_http_ai_json_raw(j, ngx_http_ai_json_member(j, n, "type"));
    format = ngx_http_ai_json_raw(j, ngx_http_ai_json_member(j, n, "format"));

    if (text) {
        v = ngx_http_ai_json_member(j, n, "text");

        if (v == NGX_HTTP_AI_JSON_NONE) {
            v = ngx_http_ai_json_member(j, n, "summary");
        }

        rc = ngx_http_ai_openai_part_text(dec, v, NGX_HTTP_AI_EV_REASONING,
                                          choice);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (format.len < sizeof("anthropic") - 1
        || ngx_memcmp(format.data, "anthropic", sizeof("anthropic") - 1) != 0)
    {
        return NGX_OK;
    }

    v = ngx_http_ai_json_member(j, n, "signature");

    if (ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_STRING
        && j->nodes[v].len)
    {
        s = ngx_http_ai_json_raw(j, v);

        rc = ngx_http_ai_openai_emit(dec, NGX_HTTP_AI_EV_SIGNATURE, choice,
                                     &s);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    v = ngx_http_ai_json_member(j, n, "data");

    if (ngx_http_ai_str_is(&type, "reasoning.encrypted")
        && ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_STRING)
    {
        s = ngx_http_ai_json_raw(j, v);
        return ngx_http_ai_openai_emit(dec, NGX_HTTP_AI_EV_REDACTED, choice,
                                       &s);
    }

    return NGX_OK;
}


/* content as an array, which is how Mistral sends thoughts */

static ngx_int_t
ngx_http_ai_openai_parts(ngx_http_ai_decoder_t *dec, ngx_uint_t n,
    ngx_uint_t choice)
{
    ngx_int_t            rc;
    ngx_str_t            type;
    ngx_uint_t           i, k, v;
    ngx_http_ai_json_t  *j;

    j = &dec->json;

    for (i = ngx_http_ai_json_first(j, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, n, i))
    {
        type = ngx_http_ai_json_raw(j, ngx_http_ai_json_member(j, i, "type"));

        if (ngx_http_ai_str_is(&type, "text")) {
            v = ngx_http_ai_json_member(j, i, "text");

            rc = ngx_http_ai_openai_part_text(dec, v, NGX_HTTP_AI_EV_TEXT,
                                              choice);

        } else if (ngx_http_ai_str_is(&type, "refusal")) {
            v = ngx_http_ai_json_member(j, i, "refusal");

            rc = ngx_http_ai_openai_part_text(dec, v, NGX_HTTP_AI_EV_REFUSAL,
                                              choice);

        } else if (ngx_http_ai_str_is(&type, "thinking")) {
            v = ngx_http_ai_json_member(j, i, "thinking");

            if (ngx_http_ai_json_type(j, v) != NGX_HTTP_AI_JSON_ARRAY) {
                rc = ngx_http_ai_openai_part_text(dec, v,
                                           NGX_HTTP_AI_EV_REASONING, choice);

            } else {
                rc = NGX_OK;

                for (k = ngx_http_ai_json_first(j, v);
                     k != NGX_HTTP_AI_JSON_NONE && rc == NGX_OK;
                     k = ngx_http_ai_json_next(j, v, k))
                {
                    rc = ngx_http_ai_openai_part_text(dec,
                                        ngx_http_ai_json_member(j, k, "text"),
                                        NGX_HTTP_AI_EV_REASONING, choice);
                }
            }

        } else {
            continue;
        }

        if (rc != NGX_OK) {
            return rc;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_openai_part_text(ngx_http_ai_decoder_t *dec, ngx_uint_t n,
    ngx_http_ai_event_e type, ngx_uint_t choice)
{
    ngx_str_t  s;

    if (ngx_http_ai_json_type(&dec->json, n) != NGX_HTTP_AI_JSON_STRING
        || dec->json.nodes[n].len == 0)
    {
        return NGX_OK;
    }

    s = ngx_http_ai_json_raw(&dec->json, n);

    return ngx_http_ai_openai_emit(dec, type, choice, &s);
}


static ngx_int_t
ngx_http_ai_openai_finish(ngx_http_ai_decoder_t *dec, ngx_uint_t choice,
    ngx_http_ai_finish_e finish, ngx_str_t *text)
{
    uint64_t                   bit;
    ngx_int_t                  rc;
    ngx_http_ai_event_t        ev;
    ngx_http_ai_openai_dec_t  *ctx;

    ctx = dec->ctx;
    bit = ngx_http_ai_openai_bit(choice);

    /* OpenRouter repeats the reason in its chunk with the usage */

    if (ctx->finished & bit) {
        return NGX_OK;
    }

    ctx->finished |= bit;

    rc = ngx_http_ai_openai_calls_end(dec, choice, 0);
    if (rc != NGX_OK) {
        return rc;
    }

    ngx_memzero(&ev, sizeof(ngx_http_ai_event_t));

    ev.type = NGX_HTTP_AI_EV_FINISH;
    ev.choice = choice;
    ev.finish = finish;

    if (finish == NGX_HTTP_AI_FINISH_STOP_SEQUENCE) {
        ev.text = *text;
    }

    if ((ctx->called & bit)
        && (finish == NGX_HTTP_AI_FINISH_STOP
            || finish == NGX_HTTP_AI_FINISH_UNKNOWN))
    {
        ev.finish = NGX_HTTP_AI_FINISH_TOOL;
    }

    return dec->sink.handler(dec->sink.data, &ev);
}


static ngx_int_t
ngx_http_ai_openai_end(ngx_http_ai_decoder_t *dec)
{
    ngx_int_t                  rc;
    ngx_uint_t                 i;
    ngx_http_ai_openai_dec_t  *ctx;

    ctx = dec->ctx;

    dec->done = 1;

    for (i = 0; i < ctx->ncalls; i++) {

        if (ctx->calls[i].ended) {
            continue;
        }

        rc = ngx_http_ai_openai_call_end(dec, &ctx->calls[i]);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    /* choices that have not told why they end */

    for (i = 0; i < 63 && (ctx->seen & ~ctx->finished); i++) {

        if (!(ctx->seen & ~ctx->finished & (1ull << i))) {
            continue;
        }

        rc = ngx_http_ai_openai_finish(dec, i, NGX_HTTP_AI_FINISH_UNKNOWN,
                                       NULL);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    return ngx_http_ai_openai_emit(dec, NGX_HTTP_AI_EV_END, 0, NULL);
}
