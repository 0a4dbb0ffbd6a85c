
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_dialect.h"
#include "ngx_http_ai_dialect_anthropic.h"


#define NGX_HTTP_AI_ANTHROPIC_NODES      96      /* of a usual event */
#define NGX_HTTP_AI_ANTHROPIC_MAX_NODES  100000
#define NGX_HTTP_AI_ANTHROPIC_BLOCKS     16      /* open at the same time */
#define NGX_HTTP_AI_ANTHROPIC_TIER       32


typedef enum {
    NGX_HTTP_AI_ANTHROPIC_BLOCK_NONE = 0,
    NGX_HTTP_AI_ANTHROPIC_BLOCK_TEXT,
    NGX_HTTP_AI_ANTHROPIC_BLOCK_THINKING,
    NGX_HTTP_AI_ANTHROPIC_BLOCK_TOOL,
    NGX_HTTP_AI_ANTHROPIC_BLOCK_OTHER     /* the provider's own tools ... */
} ngx_http_ai_anthropic_block_e;


typedef struct {
    ngx_http_ai_anthropic_block_e   type;
    int64_t                         index;
    ngx_uint_t                      tool;
    unsigned                        args:1;   /* some were there */
    unsigned                        input:1;  /* came with the start, is kept
                                                 until deltas come or not */
} ngx_http_ai_anthropic_block_t;


typedef struct {
    ngx_http_ai_usage_t             usage;
    u_char                          tier[NGX_HTTP_AI_ANTHROPIC_TIER];

    ngx_http_ai_anthropic_block_t   blocks[NGX_HTTP_AI_ANTHROPIC_BLOCKS];
    ngx_uint_t                      nblocks;  /* up to the last open one */
    ngx_uint_t                      tools;

    ngx_http_ai_out_t               input;    /* raw text of "input" above */
    ngx_http_ai_out_t               scratch;

    int64_t                         chars;    /* of text, where it counts */
    unsigned                        search:1;     /* citations may come */
    unsigned                        started:1;
    unsigned                        finished:1;
    unsigned                        failed:1;
} ngx_http_ai_anthropic_dec_t;


/* members of an event or a body */

typedef struct {
    ngx_uint_t                      type;
    ngx_uint_t                      index;
    ngx_uint_t                      delta;
    ngx_uint_t                      usage;
    ngx_uint_t                      message;
    ngx_uint_t                      block;
    ngx_uint_t                      error;
    ngx_uint_t                      content;
    ngx_uint_t                      input_tokens;
} ngx_http_ai_anthropic_event_t;


static void ngx_http_ai_anthropic_members_of(ngx_http_ai_json_t *j,
    ngx_http_ai_anthropic_event_t *e);
static ngx_int_t ngx_http_ai_anthropic_declined(ngx_http_ai_decoder_t *dec,
    const char *what);
static ngx_int_t ngx_http_ai_anthropic_emit(ngx_http_ai_decoder_t *dec,
    ngx_http_ai_event_e type, ngx_uint_t index, ngx_str_t *text);
static ngx_int_t ngx_http_ai_anthropic_error(ngx_http_ai_decoder_t *dec,
    u_char *data, size_t len);
static ngx_int_t ngx_http_ai_anthropic_start(ngx_http_ai_decoder_t *dec,
    ngx_uint_t n);
static ngx_int_t ngx_http_ai_anthropic_delta(ngx_http_ai_decoder_t *dec,
    ngx_http_ai_anthropic_event_t *e);
static ngx_int_t ngx_http_ai_anthropic_block_start(ngx_http_ai_decoder_t *dec,
    ngx_uint_t n, int64_t index);
static ngx_int_t ngx_http_ai_anthropic_block_stop(ngx_http_ai_decoder_t *dec,
    ngx_http_ai_anthropic_block_t *b);
static ngx_int_t ngx_http_ai_anthropic_close_all(ngx_http_ai_decoder_t *dec);
static ngx_http_ai_anthropic_block_t *ngx_http_ai_anthropic_find(
    ngx_http_ai_anthropic_dec_t *ctx, int64_t index);
static ngx_int_t ngx_http_ai_anthropic_text(ngx_http_ai_decoder_t *dec,
    ngx_uint_t n);
static ngx_int_t ngx_http_ai_anthropic_cite(ngx_http_ai_decoder_t *dec,
    ngx_uint_t n, int64_t length);
static ngx_int_t ngx_http_ai_anthropic_finish(ngx_http_ai_decoder_t *dec,
    ngx_uint_t n);
static ngx_int_t ngx_http_ai_anthropic_usage(ngx_http_ai_decoder_t *dec,
    ngx_uint_t n);
static void ngx_http_ai_anthropic_usage_read(ngx_http_ai_json_t *j,
    ngx_uint_t n, ngx_http_ai_usage_t *u);
static int64_t ngx_http_ai_anthropic_chars(ngx_str_t *raw);


ngx_int_t
ngx_http_ai_anthropic_decode_init(ngx_http_ai_decoder_t *dec)
{
    ngx_http_ai_anthropic_dec_t  *ctx;

    ctx = ngx_pcalloc(dec->pool, sizeof(ngx_http_ai_anthropic_dec_t));
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    ngx_http_ai_usage_init(&ctx->usage);

    if (ngx_http_ai_out_init(&ctx->input, dec->pool, 0) != NGX_OK
        || ngx_http_ai_out_init(&ctx->scratch, dec->pool, 0) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_memzero(&dec->json, sizeof(ngx_http_ai_json_t));
    dec->json.pool = dec->pool;

    dec->json.nodes = ngx_palloc(dec->pool, NGX_HTTP_AI_ANTHROPIC_NODES
                                            * sizeof(ngx_http_ai_json_node_t));
    if (dec->json.nodes == NULL) {
        return NGX_ERROR;
    }

    dec->json.nalloc = NGX_HTTP_AI_ANTHROPIC_NODES;

    dec->ctx = ctx;
    dec->usage_only = 0;
    dec->done = 0;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_anthropic_decode_body(ngx_http_ai_decoder_t *dec, u_char *data,
    size_t len)
{
    int64_t                        index;
    ngx_int_t                      rc;
    ngx_str_t                      type;
    ngx_uint_t                     i, c, n;
    ngx_http_ai_json_t            *j;
    ngx_http_ai_anthropic_dec_t   *ctx;
    ngx_http_ai_anthropic_event_t  e;

    ctx = dec->ctx;
    j = &dec->json;

    if (dec->done) {
        return NGX_OK;
    }

    rc = ngx_http_ai_json_parse(j, data, len);

    if (rc == NGX_DECLINED) {
        return ngx_http_ai_anthropic_declined(dec,
                                              "the answer is not valid JSON");
    }

    if (rc != NGX_OK) {
        return rc;
    }

    if (j->nodes[0].type != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_anthropic_declined(dec,
                                           "the answer is not a JSON object");
    }

    ngx_http_ai_anthropic_members_of(j, &e);

    type = ngx_http_ai_json_raw(j, e.type);

    if (ngx_http_ai_str_is(&type, "error")
        || (type.len == 0
            && ngx_http_ai_json_type(j, e.error) != NGX_HTTP_AI_JSON_NULL))
    {
        dec->done = 1;
        return ngx_http_ai_anthropic_error(dec, data, len);
    }

    if (ngx_http_ai_json_type(j, e.input_tokens) == NGX_HTTP_AI_JSON_NUMBER
        && e.content == NGX_HTTP_AI_JSON_NONE)
    {
        /* of count_tokens; the body is the usage */

        dec->done = 1;

        rc = ngx_http_ai_anthropic_start(dec, NGX_HTTP_AI_JSON_NONE);
        if (rc != NGX_OK) {
            return rc;
        }

        rc = ngx_http_ai_anthropic_usage(dec, 0);
        if (rc != NGX_OK) {
            return rc;
        }

        return ngx_http_ai_anthropic_emit(dec, NGX_HTTP_AI_EV_END, 0, NULL);
    }

    if (ngx_http_ai_json_type(j, e.content) != NGX_HTTP_AI_JSON_ARRAY
        || dec->op == NGX_HTTP_AI_OP_COUNT_TOKENS)
    {
        return ngx_http_ai_anthropic_declined(dec,
                              "the answer is not one of the Messages API");
    }

    rc = ngx_http_ai_anthropic_start(dec, 0);
    if (rc != NGX_OK) {
        return rc;
    }

    index = 0;

    for (i = ngx_http_ai_json_first(j, e.content);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, e.content, i))
    {
        rc = ngx_http_ai_anthropic_block_start(dec, i, index);
        if (rc != NGX_OK) {
            return rc;
        }

        n = ngx_http_ai_json_member(j, i, "citations");

        if (ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_ARRAY) {

            type = ngx_http_ai_json_raw(j,
                                        ngx_http_ai_json_member(j, i, "text"));

            for (c = ngx_http_ai_json_first(j, n);
                 c != NGX_HTTP_AI_JSON_NONE;
                 c = ngx_http_ai_json_next(j, n, c))
            {
                rc = ngx_http_ai_anthropic_cite(dec, c,
                                         ngx_http_ai_anthropic_chars(&type));
                if (rc != NGX_OK) {
                    return rc;
                }
            }
        }

        rc = ngx_http_ai_anthropic_block_stop(dec,
                                   ngx_http_ai_anthropic_find(ctx, index));
        if (rc != NGX_OK) {
            return rc;
        }

        index++;
    }

    rc = ngx_http_ai_anthropic_finish(dec, 0);
    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_http_ai_json_type(j, e.usage) == NGX_HTTP_AI_JSON_OBJECT) {
        rc = ngx_http_ai_anthropic_usage(dec, e.usage);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    dec->done = 1;

    return ngx_http_ai_anthropic_emit(dec, NGX_HTTP_AI_EV_END, 0, NULL);
}


/* what an event is, is told by its data: some hosts leave out its name */

ngx_int_t
ngx_http_ai_anthropic_decode_event(ngx_http_ai_decoder_t *dec,
    ngx_str_t *name, ngx_str_t *data)
{
    int64_t                        index;
    ngx_int_t                      rc;
    ngx_str_t                      type;
    ngx_uint_t                     n;
    ngx_http_ai_json_t            *j;
    ngx_http_ai_anthropic_dec_t   *ctx;
    ngx_http_ai_anthropic_block_t *b;
    ngx_http_ai_anthropic_event_t  e;

    ctx = dec->ctx;
    j = &dec->json;

    dec->usage_only = 0;

    if (dec->done || ctx->failed) {
        return NGX_OK;
    }

    j->max_nodes = NGX_HTTP_AI_ANTHROPIC_MAX_NODES;

    rc = ngx_http_ai_json_parse(j, data->data, data->len);

    if (rc == NGX_DECLINED) {

        if (name && ngx_http_ai_str_is(name, "error")) {
            return ngx_http_ai_anthropic_error(dec, data->data, data->len);
        }

        return ngx_http_ai_anthropic_declined(dec,
                                              "an event is not valid JSON");
    }

    if (rc != NGX_OK) {
        return rc;
    }

    if (j->nodes[0].type != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_anthropic_declined(dec,
                                            "an event is not a JSON object");
    }

    ngx_http_ai_anthropic_members_of(j, &e);

    type = ngx_http_ai_json_raw(j, e.type);

    if (ngx_http_ai_json_type(j, e.type) != NGX_HTTP_AI_JSON_STRING) {

        if (ngx_http_ai_json_type(j, e.error) != NGX_HTTP_AI_JSON_NULL) {
            return ngx_http_ai_anthropic_error(dec, data->data, data->len);
        }

        return ngx_http_ai_anthropic_declined(dec, "an event has no type");
    }

    if (ngx_http_ai_str_is(&type, "error")) {
        return ngx_http_ai_anthropic_error(dec, data->data, data->len);
    }

    if (ngx_http_ai_str_is(&type, "ping")) {
        return NGX_OK;
    }

    if (!ctx->started) {
        n = NGX_HTTP_AI_JSON_NONE;

        if (ngx_http_ai_str_is(&type, "message_start")) {
            n = e.message;
        }

        rc = ngx_http_ai_anthropic_start(dec, n);
        if (rc != NGX_OK) {
            return rc;
        }

        n = ngx_http_ai_json_member(j, n, "usage");

        if (ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_OBJECT) {
            rc = ngx_http_ai_anthropic_usage(dec, n);
            if (rc != NGX_OK) {
                return rc;
            }
        }
    }

    if (ctx->finished
        && type.len > sizeof("content_block_") - 1
        && ngx_strncmp(type.data, "content_block_",
                       sizeof("content_block_") - 1)
           == 0)
    {
        /* nothing may follow the reason to stop */

        return NGX_OK;
    }

    if (ngx_http_ai_str_is(&type, "content_block_delta")) {
        return ngx_http_ai_anthropic_delta(dec, &e);
    }

    if (ngx_http_ai_str_is(&type, "content_block_start")) {

        if (ngx_http_ai_json_int(j, e.index, &index) != NGX_OK) {
            index = -1;
        }

        return ngx_http_ai_anthropic_block_start(dec, e.block, index);
    }

    if (ngx_http_ai_str_is(&type, "content_block_stop")) {

        if (ngx_http_ai_json_int(j, e.index, &index) != NGX_OK) {
            return NGX_OK;
        }

        b = ngx_http_ai_anthropic_find(ctx, index);

        return ngx_http_ai_anthropic_block_stop(dec, b);
    }

    if (ngx_http_ai_str_is(&type, "message_delta")) {
        rc = ngx_http_ai_anthropic_finish(dec, e.delta);
        if (rc != NGX_OK) {
            return rc;
        }

        if (ngx_http_ai_json_type(j, e.usage) != NGX_HTTP_AI_JSON_OBJECT) {
            return NGX_OK;
        }

        return ngx_http_ai_anthropic_usage(dec, e.usage);
    }

    if (ngx_http_ai_str_is(&type, "message_stop")) {
        dec->done = 1;

        rc = ngx_http_ai_anthropic_close_all(dec);
        if (rc != NGX_OK) {
            return rc;
        }

        return ngx_http_ai_anthropic_emit(dec, NGX_HTTP_AI_EV_END, 0, NULL);
    }

    /*
     * A second "message_start", which comes from a proxy that tried again or
     * glued two streams, and what may be added to the API.
     */

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_anthropic_decode_finish(ngx_http_ai_decoder_t *dec)
{
    ngx_http_ai_anthropic_dec_t  *ctx;

    ctx = dec->ctx;

    if (dec->done) {
        return NGX_OK;
    }

    if (ctx->failed || !ctx->finished) {
        return ngx_http_ai_anthropic_declined(dec,
                                     "the stream ended before the answer did");
    }

    dec->done = 1;

    return ngx_http_ai_anthropic_emit(dec, NGX_HTTP_AI_EV_END, 0, NULL);
}


static void
ngx_http_ai_anthropic_members_of(ngx_http_ai_json_t *j,
    ngx_http_ai_anthropic_event_t *e)
{
    ngx_uint_t  i;

    ngx_memset(e, 0xff, sizeof(ngx_http_ai_anthropic_event_t));

    for (i = ngx_http_ai_json_first(j, 0);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, 0, i))
    {
        if (ngx_http_ai_anthropic_key_is(j, i, "type")) {
            e->type = i + 1;

        } else if (ngx_http_ai_anthropic_key_is(j, i, "index")) {
            e->index = i + 1;

        } else if (ngx_http_ai_anthropic_key_is(j, i, "delta")) {
            e->delta = i + 1;

        } else if (ngx_http_ai_anthropic_key_is(j, i, "usage")) {
            e->usage = i + 1;

        } else if (ngx_http_ai_anthropic_key_is(j, i, "message")) {
            e->message = i + 1;

        } else if (ngx_http_ai_anthropic_key_is(j, i, "content_block")) {
            e->block = i + 1;

        } else if (ngx_http_ai_anthropic_key_is(j, i, "error")) {
            e->error = i + 1;

        } else if (ngx_http_ai_anthropic_key_is(j, i, "content")) {
            e->content = i + 1;

        } else if (ngx_http_ai_anthropic_key_is(j, i, "input_tokens")) {
            e->input_tokens = i + 1;
        }
    }
}


static ngx_int_t
ngx_http_ai_anthropic_declined(ngx_http_ai_decoder_t *dec, const char *what)
{
    ngx_memzero(&dec->error, sizeof(ngx_http_ai_error_t));

    dec->error.class = NGX_HTTP_AI_ERR_INVALID_ANSWER;
    dec->error.status = ngx_http_ai_err_status(dec->error.class);
    dec->error.message.data = (u_char *) what;
    dec->error.message.len = ngx_strlen(what);

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_ai_anthropic_emit(ngx_http_ai_decoder_t *dec,
    ngx_http_ai_event_e type, ngx_uint_t index, ngx_str_t *text)
{
    ngx_http_ai_event_t  ev;

    ngx_memzero(&ev, sizeof(ngx_http_ai_event_t));

    ev.type = type;
    ev.index = index;

    if (text) {
        ev.text = *text;
    }

    return dec->sink.handler(dec->sink.data, &ev);
}


static ngx_int_t
ngx_http_ai_anthropic_error(ngx_http_ai_decoder_t *dec, u_char *data,
    size_t len)
{
    ngx_http_ai_event_t           ev;
    ngx_http_ai_anthropic_dec_t  *ctx;

    ctx = dec->ctx;

    if (ctx->failed) {
        return NGX_OK;
    }

    ctx->failed = 1;

    if (ngx_http_ai_error_read(dec->pool, 200, data, len, &dec->error)
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
ngx_http_ai_anthropic_start(ngx_http_ai_decoder_t *dec, ngx_uint_t n)
{
    ngx_uint_t                    id, model;
    ngx_http_ai_json_t           *j;
    ngx_http_ai_event_t           ev;
    ngx_http_ai_anthropic_dec_t  *ctx;

    ctx = dec->ctx;
    ctx->started = 1;

    j = &dec->json;

    ngx_memzero(&ev, sizeof(ngx_http_ai_event_t));

    ev.type = NGX_HTTP_AI_EV_START;

    if (n != NGX_HTTP_AI_JSON_NONE) {
        id = ngx_http_ai_json_member(j, n, "id");
        model = ngx_http_ai_json_member(j, n, "model");

        if (ngx_http_ai_json_type(j, id) == NGX_HTTP_AI_JSON_STRING) {
            ev.id = ngx_http_ai_json_raw(j, id);
        }

        if (ngx_http_ai_json_type(j, model) == NGX_HTTP_AI_JSON_STRING) {
            ev.model = ngx_http_ai_json_raw(j, model);
        }
    }

    return dec->sink.handler(dec->sink.data, &ev);
}


static ngx_int_t
ngx_http_ai_anthropic_delta(ngx_http_ai_decoder_t *dec,
    ngx_http_ai_anthropic_event_t *e)
{
    int64_t                         index;
    ngx_str_t                       type, text;
    ngx_uint_t                      i, kind, value;
    ngx_http_ai_json_t             *j;
    ngx_http_ai_event_e             event;
    ngx_http_ai_anthropic_dec_t    *ctx;
    ngx_http_ai_anthropic_block_t  *b;
    ngx_http_ai_anthropic_block_e   wanted;

    ctx = dec->ctx;
    j = &dec->json;

    kind = NGX_HTTP_AI_JSON_NONE;
    value = NGX_HTTP_AI_JSON_NONE;

    /* a delta has its type and what its type says */

    for (i = ngx_http_ai_json_first(j, e->delta);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, e->delta, i))
    {
        if (ngx_http_ai_anthropic_key_is(j, i, "type")) {
            kind = i + 1;

        } else if (ngx_http_ai_anthropic_key_is(j, i, "text")
                   || ngx_http_ai_anthropic_key_is(j, i, "partial_json")
                   || ngx_http_ai_anthropic_key_is(j, i, "thinking")
                   || ngx_http_ai_anthropic_key_is(j, i, "signature")
                   || ngx_http_ai_anthropic_key_is(j, i, "citation"))
        {
            value = i + 1;
        }
    }

    if (kind == NGX_HTTP_AI_JSON_NONE || value == NGX_HTTP_AI_JSON_NONE) {
        return NGX_OK;
    }

    if (ngx_http_ai_json_type(j, e->index) == NGX_HTTP_AI_JSON_NUMBER
        && j->nodes[e->index].len == 1)
    {
        index = j->nodes[e->index].start[0] - '0';

    } else if (ngx_http_ai_json_int(j, e->index, &index) != NGX_OK) {
        index = -1;
    }

    b = ngx_http_ai_anthropic_find(ctx, index);

    type = ngx_http_ai_json_raw(j, kind);
    text = ngx_http_ai_json_raw(j, value);

    if (ngx_http_ai_str_is(&type, "text_delta")) {
        wanted = NGX_HTTP_AI_ANTHROPIC_BLOCK_TEXT;
        event = NGX_HTTP_AI_EV_TEXT;

    } else if (ngx_http_ai_str_is(&type, "input_json_delta")) {
        wanted = NGX_HTTP_AI_ANTHROPIC_BLOCK_TOOL;
        event = NGX_HTTP_AI_EV_TOOL_ARGS;

    } else if (ngx_http_ai_str_is(&type, "thinking_delta")) {
        wanted = NGX_HTTP_AI_ANTHROPIC_BLOCK_THINKING;
        event = NGX_HTTP_AI_EV_REASONING;

    } else if (ngx_http_ai_str_is(&type, "signature_delta")) {
        wanted = NGX_HTTP_AI_ANTHROPIC_BLOCK_THINKING;
        event = NGX_HTTP_AI_EV_SIGNATURE;

    } else if (ngx_http_ai_str_is(&type, "citations_delta")) {
        return ngx_http_ai_anthropic_cite(dec, value, 0);

    } else {
        return NGX_OK;
    }

    if (j->nodes[value].type != NGX_HTTP_AI_JSON_STRING || text.len == 0) {
        return NGX_OK;
    }

    if (b == NULL) {

        /* the start was lost: only calls cannot do without */

        if (wanted == NGX_HTTP_AI_ANTHROPIC_BLOCK_TOOL) {
            return NGX_OK;
        }

    } else if (b->type != wanted) {
        return NGX_OK;

    } else if (wanted == NGX_HTTP_AI_ANTHROPIC_BLOCK_TOOL) {
        b->args = 1;
        b->input = 0;

        return ngx_http_ai_anthropic_emit(dec, event, b->tool, &text);
    }

    if (wanted == NGX_HTTP_AI_ANTHROPIC_BLOCK_TEXT && ctx->search) {
        ctx->chars += ngx_http_ai_anthropic_chars(&text);
    }

    return ngx_http_ai_anthropic_emit(dec, event, 0, &text);
}


static ngx_int_t
ngx_http_ai_anthropic_block_start(ngx_http_ai_decoder_t *dec, ngx_uint_t n,
    int64_t index)
{
    ngx_int_t                       rc;
    ngx_str_t                       type, s;
    ngx_uint_t                      i, v;
    ngx_http_ai_json_t             *j;
    ngx_http_ai_event_t             ev;
    ngx_http_ai_anthropic_dec_t    *ctx;
    ngx_http_ai_anthropic_block_t  *b;

    ctx = dec->ctx;
    j = &dec->json;

    if (ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_OBJECT) {
        return NGX_OK;
    }

    type = ngx_http_ai_json_raw(j, ngx_http_ai_json_member(j, n, "type"));

    /* one that has the same index was not closed */

    b = ngx_http_ai_anthropic_find(ctx, index);

    if (b) {
        rc = ngx_http_ai_anthropic_block_stop(dec, b);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    for (i = 0; i < NGX_HTTP_AI_ANTHROPIC_BLOCKS; i++) {
        if (ctx->blocks[i].type == NGX_HTTP_AI_ANTHROPIC_BLOCK_NONE) {
            break;
        }
    }

    if (i == NGX_HTTP_AI_ANTHROPIC_BLOCKS) {
        rc = ngx_http_ai_anthropic_close_all(dec);
        if (rc != NGX_OK) {
            return rc;
        }

        i = 0;
    }

    b = &ctx->blocks[i];

    ctx->nblocks = ngx_http_ai_max(ctx->nblocks, i + 1);

    ngx_memzero(b, sizeof(ngx_http_ai_anthropic_block_t));

    b->index = index;

    if (ngx_http_ai_str_is(&type, "text")) {
        b->type = NGX_HTTP_AI_ANTHROPIC_BLOCK_TEXT;

        return ngx_http_ai_anthropic_text(dec,
                                       ngx_http_ai_json_member(j, n, "text"));
    }

    if (ngx_http_ai_str_is(&type, "thinking")) {
        b->type = NGX_HTTP_AI_ANTHROPIC_BLOCK_THINKING;

        v = ngx_http_ai_json_member(j, n, "thinking");
        s = ngx_http_ai_json_raw(j, v);

        if (ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_STRING && s.len) {
            rc = ngx_http_ai_anthropic_emit(dec, NGX_HTTP_AI_EV_REASONING, 0,
                                            &s);
            if (rc != NGX_OK) {
                return rc;
            }
        }

        v = ngx_http_ai_json_member(j, n, "signature");
        s = ngx_http_ai_json_raw(j, v);

        if (ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_STRING && s.len) {
            return ngx_http_ai_anthropic_emit(dec, NGX_HTTP_AI_EV_SIGNATURE,
                                              0, &s);
        }

        return NGX_OK;
    }

    if (ngx_http_ai_str_is(&type, "redacted_thinking")) {
        b->type = NGX_HTTP_AI_ANTHROPIC_BLOCK_OTHER;

        v = ngx_http_ai_json_member(j, n, "data");
        s = ngx_http_ai_json_raw(j, v);

        if (ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_STRING && s.len) {
            return ngx_http_ai_anthropic_emit(dec, NGX_HTTP_AI_EV_REDACTED,
                                              0, &s);
        }

        return NGX_OK;
    }

    if (!ngx_http_ai_str_is(&type, "tool_use")) {
        b->type = NGX_HTTP_AI_ANTHROPIC_BLOCK_OTHER;

        /* what follows may cite */

        ctx->search = 1;

        return NGX_OK;
    }

    b->type = NGX_HTTP_AI_ANTHROPIC_BLOCK_TOOL;
    b->tool = ctx->tools++;

    v = ngx_http_ai_json_member(j, n, "input");

    if (ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_OBJECT
        && j->nodes[v].next > v + 1)
    {
        /* there is room for the input of one: that of another goes out */

        for (i = 0; i < ctx->nblocks; i++) {

            if (!ctx->blocks[i].input) {
                continue;
            }

            ctx->blocks[i].input = 0;
            ctx->blocks[i].args = 1;

            s.data = ctx->input.start;
            s.len = ctx->input.last - ctx->input.start;

            rc = ngx_http_ai_anthropic_emit(dec, NGX_HTTP_AI_EV_TOOL_ARGS,
                                            ctx->blocks[i].tool, &s);
            if (rc != NGX_OK) {
                return rc;
            }
        }

        s = ngx_http_ai_json_raw(j, v);

        ctx->input.last = ctx->input.start;
        ngx_http_ai_out_reescaped(&ctx->input, &s);

        if (ctx->input.failed) {
            return NGX_ERROR;
        }

        b->input = 1;
    }

    ngx_memzero(&ev, sizeof(ngx_http_ai_event_t));

    ev.type = NGX_HTTP_AI_EV_TOOL_START;
    ev.index = b->tool;

    v = ngx_http_ai_json_member(j, n, "id");

    if (ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_STRING) {
        ev.id = ngx_http_ai_json_raw(j, v);
    }

    v = ngx_http_ai_json_member(j, n, "name");

    if (ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_STRING) {
        ev.name = ngx_http_ai_json_raw(j, v);
    }

    return dec->sink.handler(dec->sink.data, &ev);
}


static ngx_int_t
ngx_http_ai_anthropic_block_stop(ngx_http_ai_decoder_t *dec,
    ngx_http_ai_anthropic_block_t *b)
{
    ngx_int_t                     rc;
    ngx_str_t                     s;
    ngx_uint_t                    tool, args;
    ngx_http_ai_anthropic_dec_t  *ctx;

    ctx = dec->ctx;

    if (b == NULL) {
        return NGX_OK;
    }

    if (b->type != NGX_HTTP_AI_ANTHROPIC_BLOCK_TOOL) {
        b->type = NGX_HTTP_AI_ANTHROPIC_BLOCK_NONE;
        return NGX_OK;
    }

    tool = b->tool;
    args = b->args;

    ngx_str_set(&s, "{}");

    if (b->input) {
        s.data = ctx->input.start;
        s.len = ctx->input.last - ctx->input.start;
    }

    b->type = NGX_HTTP_AI_ANTHROPIC_BLOCK_NONE;
    b->input = 0;

    if (!args) {
        rc = ngx_http_ai_anthropic_emit(dec, NGX_HTTP_AI_EV_TOOL_ARGS, tool,
                                        &s);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    return ngx_http_ai_anthropic_emit(dec, NGX_HTTP_AI_EV_TOOL_END, tool,
                                      NULL);
}


static ngx_int_t
ngx_http_ai_anthropic_close_all(ngx_http_ai_decoder_t *dec)
{
    ngx_int_t                     rc;
    ngx_uint_t                    i;
    ngx_http_ai_anthropic_dec_t  *ctx;

    ctx = dec->ctx;

    for (i = 0; i < ctx->nblocks; i++) {
        rc = ngx_http_ai_anthropic_block_stop(dec, &ctx->blocks[i]);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    ctx->nblocks = 0;

    return NGX_OK;
}


static ngx_http_ai_anthropic_block_t *
ngx_http_ai_anthropic_find(ngx_http_ai_anthropic_dec_t *ctx, int64_t index)
{
    ngx_uint_t  i;

    for (i = 0; i < ctx->nblocks; i++) {
        if (ctx->blocks[i].index == index
            && ctx->blocks[i].type != NGX_HTTP_AI_ANTHROPIC_BLOCK_NONE)
        {
            return &ctx->blocks[i];
        }
    }

    return NULL;
}


static ngx_int_t
ngx_http_ai_anthropic_text(ngx_http_ai_decoder_t *dec, ngx_uint_t n)
{
    ngx_str_t                     s;
    ngx_http_ai_anthropic_dec_t  *ctx;

    ctx = dec->ctx;

    if (ngx_http_ai_json_type(&dec->json, n) != NGX_HTTP_AI_JSON_STRING) {
        return NGX_OK;
    }

    s = ngx_http_ai_json_raw(&dec->json, n);

    if (s.len == 0) {
        return NGX_OK;
    }

    if (ctx->search) {
        ctx->chars += ngx_http_ai_anthropic_chars(&s);
    }

    return ngx_http_ai_anthropic_emit(dec, NGX_HTTP_AI_EV_TEXT, 0, &s);
}


/*
 * Only what cites a page of the web has an equal.  In a stream it comes
 * before the text, whose length is not known then.
 */

static ngx_int_t
ngx_http_ai_anthropic_cite(ngx_http_ai_decoder_t *dec, ngx_uint_t n,
    int64_t length)
{
    int64_t                       end;
    ngx_str_t                     type, url, title, text;
    ngx_http_ai_out_t            *out;
    ngx_http_ai_json_t           *j;
    ngx_http_ai_anthropic_dec_t  *ctx;

    ctx = dec->ctx;
    j = &dec->json;

    type = ngx_http_ai_json_raw(j, ngx_http_ai_json_member(j, n, "type"));

    if (!ngx_http_ai_str_is(&type, "web_search_result_location")
        || ngx_http_ai_json_type(j, ngx_http_ai_json_member(j, n, "url"))
           != NGX_HTTP_AI_JSON_STRING)
    {
        return NGX_OK;
    }

    url = ngx_http_ai_json_raw(j, ngx_http_ai_json_member(j, n, "url"));
    ngx_str_null(&title);

    if (ngx_http_ai_json_type(j, ngx_http_ai_json_member(j, n, "title"))
        == NGX_HTTP_AI_JSON_STRING)
    {
        title = ngx_http_ai_json_raw(j,
                                     ngx_http_ai_json_member(j, n, "title"));
    }

    end = ctx->chars;
    length = ngx_http_ai_min(length, end);

    out = &ctx->scratch;
    out->last = out->start;

    ngx_http_ai_out_lit(out, "{\"type\":\"url_citation\",\"url_citation\":"
                             "{\"url\":\"");
    ngx_http_ai_out_str(out, &url);
    ngx_http_ai_out_lit(out, "\",\"title\":\"");
    ngx_http_ai_out_str(out, &title);
    ngx_http_ai_out_lit(out, "\",\"start_index\":");
    ngx_http_ai_out_int(out, end - length);
    ngx_http_ai_out_lit(out, ",\"end_index\":");
    ngx_http_ai_out_int(out, end);
    ngx_http_ai_out_lit(out, "}}");

    if (out->failed) {
        return NGX_ERROR;
    }

    text.data = out->start;
    text.len = out->last - out->start;

    return ngx_http_ai_anthropic_emit(dec, NGX_HTTP_AI_EV_CITATION, 0, &text);
}


/* "n" is the delta of a stream or a whole message */

static ngx_int_t
ngx_http_ai_anthropic_finish(ngx_http_ai_decoder_t *dec, ngx_uint_t n)
{
    ngx_int_t                     rc;
    ngx_str_t                     s;
    ngx_uint_t                    v;
    ngx_http_ai_json_t           *j;
    ngx_http_ai_event_t           ev;
    ngx_http_ai_anthropic_dec_t  *ctx;

    ctx = dec->ctx;
    j = &dec->json;

    v = ngx_http_ai_json_member(j, n, "stop_reason");

    if (ngx_http_ai_json_type(j, v) != NGX_HTTP_AI_JSON_STRING
        || ctx->finished)
    {
        return NGX_OK;
    }

    rc = ngx_http_ai_anthropic_close_all(dec);
    if (rc != NGX_OK) {
        return rc;
    }

    ctx->finished = 1;

    ngx_memzero(&ev, sizeof(ngx_http_ai_event_t));

    ev.type = NGX_HTTP_AI_EV_FINISH;

    s = ngx_http_ai_json_raw(j, v);

    if (ngx_http_ai_str_is(&s, "end_turn")) {
        ev.finish = NGX_HTTP_AI_FINISH_STOP;

    } else if (ngx_http_ai_str_is(&s, "tool_use")) {
        ev.finish = NGX_HTTP_AI_FINISH_TOOL;

    } else if (ngx_http_ai_str_is(&s, "max_tokens")) {
        ev.finish = NGX_HTTP_AI_FINISH_LENGTH;

    } else if (ngx_http_ai_str_is(&s, "stop_sequence")) {
        ev.finish = NGX_HTTP_AI_FINISH_STOP_SEQUENCE;

        v = ngx_http_ai_json_member(j, n, "stop_sequence");

        if (ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_STRING) {
            ev.text = ngx_http_ai_json_raw(j, v);
        }

    } else if (ngx_http_ai_str_is(&s, "refusal")) {
        ev.finish = NGX_HTTP_AI_FINISH_REFUSAL;

    } else if (ngx_http_ai_str_is(&s, "pause_turn")) {
        ev.finish = NGX_HTTP_AI_FINISH_PAUSE;

    } else if (ngx_http_ai_str_is(&s, "model_context_window_exceeded")) {
        ev.finish = NGX_HTTP_AI_FINISH_CONTEXT;

    } else {
        ev.finish = NGX_HTTP_AI_FINISH_UNKNOWN;
    }

    return dec->sink.handler(dec->sink.data, &ev);
}


/*
 * Figures are cumulative, and the last one counts.  "iterations" has passes
 * that the figures beside it leave out, though they are billed.
 */

static ngx_int_t
ngx_http_ai_anthropic_usage(ngx_http_ai_decoder_t *dec, ngx_uint_t n)
{
    size_t                        len;
    ngx_uint_t                    i, v;
    ngx_http_ai_json_t           *j;
    ngx_http_ai_event_t           ev;
    ngx_http_ai_usage_t           u, sum, one;
    ngx_http_ai_anthropic_dec_t  *ctx;

    ctx = dec->ctx;
    j = &dec->json;

    ngx_http_ai_usage_init(&u);
    ngx_http_ai_anthropic_usage_read(j, n, &u);

    v = ngx_http_ai_json_member(j, n, "iterations");

    if (ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_ARRAY) {

        ngx_http_ai_usage_init(&sum);

        for (i = ngx_http_ai_json_first(j, v);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, v, i))
        {
            ngx_http_ai_usage_init(&one);
            ngx_http_ai_anthropic_usage_read(j, i, &one);

#define ngx_http_ai_anthropic_sum(field)                                      \
            if (one.field >= 0 && sum.field <= INT64_MAX - one.field) {       \
                sum.field = ngx_http_ai_max(sum.field, 0) + one.field;        \
            }

            ngx_http_ai_anthropic_sum(in_fresh);
            ngx_http_ai_anthropic_sum(cache_read);
            ngx_http_ai_anthropic_sum(cache_write);
            ngx_http_ai_anthropic_sum(cache_write_1h);
            ngx_http_ai_anthropic_sum(out);
        }

        ngx_http_ai_usage_merge(&u, &sum);
    }

    ngx_http_ai_usage_merge(&ctx->usage, &u);

    v = ngx_http_ai_json_member(j, n, "service_tier");

    if (ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_STRING) {
        len = ngx_http_ai_min(j->nodes[v].len, NGX_HTTP_AI_ANTHROPIC_TIER);

        /* not cut inside of an escape */

        if (len == j->nodes[v].len && len) {
            ngx_memcpy(ctx->tier, j->nodes[v].start, len);

            ctx->usage.service_tier.data = ctx->tier;
            ctx->usage.service_tier.len = len;
        }
    }

    ngx_memzero(&ev, sizeof(ngx_http_ai_event_t));

    ev.type = NGX_HTTP_AI_EV_USAGE;
    ev.usage = &ctx->usage;

    return dec->sink.handler(dec->sink.data, &ev);
}


static void
ngx_http_ai_anthropic_usage_read(ngx_http_ai_json_t *j, ngx_uint_t n,
    ngx_http_ai_usage_t *u)
{
    int64_t     v;
    ngx_uint_t  m;

#define ngx_http_ai_anthropic_figure(obj, name, field)                        \
    if (ngx_http_ai_json_int(j, ngx_http_ai_json_member(j, obj, name), &v)    \
        == NGX_OK && v >= 0)                                                  \
    {                                                                         \
        u->field = v;                                                         \
    }

    ngx_http_ai_anthropic_figure(n, "input_tokens", in_fresh);
    ngx_http_ai_anthropic_figure(n, "cache_read_input_tokens", cache_read);
    ngx_http_ai_anthropic_figure(n, "cache_creation_input_tokens",
                                 cache_write);
    ngx_http_ai_anthropic_figure(n, "output_tokens", out);

    m = ngx_http_ai_json_member(j, n, "cache_creation");

    ngx_http_ai_anthropic_figure(m, "ephemeral_1h_input_tokens",
                                 cache_write_1h);

    m = ngx_http_ai_json_member(j, n, "output_tokens_details");

    ngx_http_ai_anthropic_figure(m, "thinking_tokens", reasoning);
}


/* characters of raw text */

static int64_t
ngx_http_ai_anthropic_chars(ngx_str_t *raw)
{
    u_char   *p, *last;
    int64_t   n;

    if (raw->len == 0) {
        return 0;
    }

    n = 0;
    p = raw->data;
    last = p + raw->len;

    while (p < last) {

        if (*p == '\\' && last - p > 1) {

            if (p[1] != 'u' || last - p < 6) {
                p += 2;
                n++;
                continue;
            }

            /* of a surrogate pair only the first half */

            if (!((p[2] == 'd' || p[2] == 'D')
                  && ((p[3] >= 'c' && p[3] <= 'f')
                      || (p[3] >= 'C' && p[3] <= 'F'))))
            {
                n++;
            }

            p += 6;
            continue;
        }

        if ((*p & 0xc0) != 0x80) {
            n++;
        }

        p++;
    }

    return n;
}
