
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_dialect.h"
#include "ngx_http_ai_dialect_anthropic.h"


#define NGX_HTTP_AI_ANTHROPIC_MAX_CALLS   1024
#define NGX_HTTP_AI_ANTHROPIC_MAX_HELD    (16 * 1024 * 1024)
#define NGX_HTTP_AI_ANTHROPIC_MAX_ANSWER  (64 * 1024 * 1024)


typedef enum {
    NGX_HTTP_AI_ANTHROPIC_OPEN_NONE = 0,
    NGX_HTTP_AI_ANTHROPIC_OPEN_TEXT,
    NGX_HTTP_AI_ANTHROPIC_OPEN_THINKING,
    NGX_HTTP_AI_ANTHROPIC_OPEN_TOOL
} ngx_http_ai_anthropic_open_e;


typedef struct ngx_http_ai_anthropic_call_s  ngx_http_ai_anthropic_call_t;


struct ngx_http_ai_anthropic_call_s {
    ngx_uint_t                      index;
    ngx_str_t                       id;       /* raw texts */
    ngx_str_t                       name;
    ngx_http_ai_out_t               args;     /* that wait for their block */
    unsigned                        ended:1;
    unsigned                        written:1;
    ngx_http_ai_anthropic_call_t   *next;
};


typedef struct {
    ngx_http_ai_out_t              *out;      /* events, or the content of an
                                                 answer that is gathered */
    ngx_http_ai_out_t               content;
    ngx_http_ai_json_t              json;

    ngx_http_ai_anthropic_open_e    open;
    ngx_uint_t                      block;    /* that is open or comes next */
    ngx_http_ai_anthropic_call_t   *call;     /* whose block is open */
    ngx_http_ai_anthropic_call_t   *calls;    /* all of them */
    ngx_http_ai_anthropic_call_t   *waiting;  /* the first without a block */
    ngx_uint_t                      ncalls;
    size_t                          held;

    ngx_str_t                       id;
    ngx_str_t                       model;
    ngx_str_t                       tier;
    ngx_http_ai_usage_t             usage;
    ngx_http_ai_finish_e            finish;
    ngx_str_t                       stop;

    unsigned                        started:1;
    unsigned                        refused:1;
    unsigned                        finished:1;
    unsigned                        failed:1;
    unsigned                        ended:1;
} ngx_http_ai_anthropic_enc_t;


static ngx_int_t ngx_http_ai_anthropic_reply_start(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_event_t *ev);
static ngx_int_t ngx_http_ai_anthropic_reply_usage(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_usage_t *usage);
static ngx_int_t ngx_http_ai_anthropic_reply_text(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_anthropic_open_e open, ngx_str_t *text);
static ngx_int_t ngx_http_ai_anthropic_reply_signature(
    ngx_http_ai_encoder_t *enc, ngx_str_t *text);
static ngx_int_t ngx_http_ai_anthropic_reply_redacted(
    ngx_http_ai_encoder_t *enc, ngx_str_t *text);
static ngx_int_t ngx_http_ai_anthropic_reply_call(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_event_t *ev);
static ngx_int_t ngx_http_ai_anthropic_reply_args(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_event_t *ev);
static ngx_int_t ngx_http_ai_anthropic_reply_call_end(
    ngx_http_ai_encoder_t *enc, ngx_uint_t index);
static ngx_int_t ngx_http_ai_anthropic_reply_end(ngx_http_ai_encoder_t *enc);

static ngx_http_ai_anthropic_call_t *ngx_http_ai_anthropic_call(
    ngx_http_ai_anthropic_enc_t *ctx, ngx_uint_t index);
static ngx_int_t ngx_http_ai_anthropic_drain(ngx_http_ai_encoder_t *enc,
    ngx_uint_t all);
static ngx_int_t ngx_http_ai_anthropic_settle(ngx_http_ai_encoder_t *enc);
static void ngx_http_ai_anthropic_close(ngx_http_ai_encoder_t *enc);
static void ngx_http_ai_anthropic_block_open(ngx_http_ai_encoder_t *enc,
    const char *type, size_t len);
static void ngx_http_ai_anthropic_block_delta(ngx_http_ai_encoder_t *enc,
    const char *type, size_t len, ngx_str_t *text);
static void ngx_http_ai_anthropic_call_open(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_anthropic_call_t *call);
static ngx_int_t ngx_http_ai_anthropic_call_whole(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_anthropic_call_t *call);
static void ngx_http_ai_anthropic_call_id(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_anthropic_call_t *call);
static void ngx_http_ai_anthropic_out_usage(ngx_http_ai_encoder_t *enc);
static void ngx_http_ai_anthropic_out_stop(ngx_http_ai_encoder_t *enc);
static ngx_int_t ngx_http_ai_anthropic_keep(ngx_pool_t *pool, ngx_str_t *dst,
    ngx_str_t *src);


#define ngx_http_ai_anthropic_open_lit(enc, literal)                          \
    ngx_http_ai_anthropic_block_open(enc, literal, sizeof(literal) - 1)

#define ngx_http_ai_anthropic_delta_lit(enc, literal, text)                   \
    ngx_http_ai_anthropic_block_delta(enc, literal, sizeof(literal) - 1, text)


ngx_int_t
ngx_http_ai_anthropic_encode_init(ngx_http_ai_encoder_t *enc)
{
    ngx_http_ai_anthropic_enc_t  *ctx;

    ctx = ngx_pcalloc(enc->pool, sizeof(ngx_http_ai_anthropic_enc_t));
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    ngx_http_ai_usage_init(&ctx->usage);

    ctx->out = enc->out;

    if (!enc->stream) {
        ctx->out = &ctx->content;

        if (ngx_http_ai_out_init(&ctx->content, enc->pool, 0) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    ctx->json.pool = enc->pool;
    ctx->json.shallow = 1;

    enc->ctx = ctx;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_anthropic_encode_event(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_event_t *ev)
{
    ngx_int_t                     rc;
    ngx_http_ai_error_t           err;
    ngx_http_ai_anthropic_enc_t  *ctx;

    ctx = enc->ctx;

    if (ctx->ended || ctx->failed || ev->choice != 0) {
        return NGX_OK;
    }

    if (enc->stream) {
        /* another attempt that goes on has an output of its own */
        ctx->out = enc->out;
    }

    switch (ev->type) {

    case NGX_HTTP_AI_EV_ERROR:

        if (enc->stream) {
            ctx->failed = 1;
            ngx_http_ai_anthropic_encode_stream_error(enc->out, ev->error);
        }

        return enc->out->failed ? NGX_ERROR : NGX_OK;

    case NGX_HTTP_AI_EV_USAGE:
        return ngx_http_ai_anthropic_reply_usage(enc, ev->usage);

    default:
        break;
    }

    /* a second start is that of another attempt, which goes on here */

    if (!ctx->started) {
        rc = ngx_http_ai_anthropic_reply_start(enc, ev);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    rc = NGX_OK;

    switch (ev->type) {

    case NGX_HTTP_AI_EV_TEXT:
        rc = ngx_http_ai_anthropic_reply_text(enc,
                                              NGX_HTTP_AI_ANTHROPIC_OPEN_TEXT,
                                              &ev->text);
        break;

    case NGX_HTTP_AI_EV_REFUSAL:
        if (ev->text.len) {
            ctx->refused = 1;
        }

        rc = ngx_http_ai_anthropic_reply_text(enc,
                                              NGX_HTTP_AI_ANTHROPIC_OPEN_TEXT,
                                              &ev->text);
        break;

    case NGX_HTTP_AI_EV_REASONING:
        rc = ngx_http_ai_anthropic_reply_text(enc,
                                          NGX_HTTP_AI_ANTHROPIC_OPEN_THINKING,
                                          &ev->text);
        break;

    case NGX_HTTP_AI_EV_SIGNATURE:
        rc = ngx_http_ai_anthropic_reply_signature(enc, &ev->text);
        break;

    case NGX_HTTP_AI_EV_REDACTED:
        rc = ngx_http_ai_anthropic_reply_redacted(enc, &ev->text);
        break;

    case NGX_HTTP_AI_EV_TOOL_START:
        rc = ngx_http_ai_anthropic_reply_call(enc, ev);
        break;

    case NGX_HTTP_AI_EV_TOOL_ARGS:
        rc = ngx_http_ai_anthropic_reply_args(enc, ev);
        break;

    case NGX_HTTP_AI_EV_TOOL_END:
        rc = ngx_http_ai_anthropic_reply_call_end(enc, ev->index);
        break;

    case NGX_HTTP_AI_EV_FINISH:

        if (ctx->finished) {
            break;
        }

        if (ev->finish == NGX_HTTP_AI_FINISH_ERROR && enc->stream) {

            /* the dialect has no reason for it, "end_turn" would be a lie */

            ngx_memzero(&err, sizeof(ngx_http_ai_error_t));

            err.class = NGX_HTTP_AI_ERR_SERVER;
            ngx_str_set(&err.message,
                        "the provider ended the answer with an error");

            ctx->failed = 1;
            ngx_http_ai_anthropic_encode_stream_error(enc->out, &err);
            break;
        }

        ctx->finished = 1;
        ctx->finish = ev->finish;

        rc = ngx_http_ai_anthropic_keep(enc->pool, &ctx->stop, &ev->text);
        if (rc == NGX_OK) {
            rc = ngx_http_ai_anthropic_settle(enc);
        }

        break;

    case NGX_HTTP_AI_EV_END:
        rc = ngx_http_ai_anthropic_reply_end(enc);
        break;

    default:
        break;
    }

    if (rc != NGX_OK) {
        return rc;
    }

    if (!enc->stream
        && ctx->content.last - ctx->content.start
           > NGX_HTTP_AI_ANTHROPIC_MAX_ANSWER)
    {
        return NGX_ERROR;
    }

    return (enc->out->failed || ctx->out->failed) ? NGX_ERROR : NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_reply_start(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_event_t *ev)
{
    ngx_http_ai_out_t             buf, *out;
    ngx_http_ai_anthropic_enc_t  *ctx;

    ctx = enc->ctx;

    ctx->started = 1;

    if (ngx_http_ai_out_init(&buf, enc->pool, 256) != NGX_OK) {
        return NGX_ERROR;
    }

    /* both are kept as raw text */

    if (ev->type == NGX_HTTP_AI_EV_START && ev->model.len) {
        ngx_http_ai_out_str(&buf, &ev->model);

    } else {
        ngx_http_ai_out_escaped(&buf, enc->model.data, enc->model.len);
    }

    ctx->model.len = buf.last - buf.start;

    if (ev->type == NGX_HTTP_AI_EV_START && ev->id.len > 4
        && ngx_strncmp(ev->id.data, "msg_", 4) == 0)
    {
        ngx_http_ai_out_str(&buf, &ev->id);

    } else {
        ngx_http_ai_out_lit(&buf, "msg_");
        ngx_http_ai_out_escaped(&buf, enc->id.data, enc->id.len);
    }

    if (buf.failed) {
        return NGX_ERROR;
    }

    ctx->model.data = buf.start;
    ctx->id.data = buf.start + ctx->model.len;
    ctx->id.len = buf.last - ctx->id.data;

    if (!enc->stream) {
        return NGX_OK;
    }

    out = enc->out;

    ngx_http_ai_out_lit(out, "event: message_start\n"
                             "data: {\"type\":\"message_start\",\"message\":"
                             "{\"id\":\"");
    ngx_http_ai_out_str(out, &ctx->id);
    ngx_http_ai_out_lit(out, "\",\"type\":\"message\",\"role\":\"assistant\","
                             "\"model\":\"");
    ngx_http_ai_out_str(out, &ctx->model);
    ngx_http_ai_out_lit(out, "\",\"content\":[],\"stop_reason\":null,"
                             "\"stop_sequence\":null,\"usage\":"
                             "{\"input_tokens\":");
    ngx_http_ai_out_int(out, ngx_http_ai_max(enc->input_estimate, 0));
    ngx_http_ai_out_lit(out, ",\"cache_creation_input_tokens\":0,"
                             "\"cache_read_input_tokens\":0,"
                             "\"output_tokens\":0}}}\n\n");

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_reply_usage(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_usage_t *usage)
{
    ngx_http_ai_anthropic_enc_t  *ctx;

    ctx = enc->ctx;

    ngx_http_ai_usage_merge(&ctx->usage, usage);

    /* the slice is not valid later on */

    ngx_str_null(&ctx->usage.service_tier);

    if (ngx_http_ai_str_is(&usage->service_tier, "standard")
        || ngx_http_ai_str_is(&usage->service_tier, "default"))
    {
        ngx_str_set(&ctx->tier, "standard");

    } else if (ngx_http_ai_str_is(&usage->service_tier, "priority")) {
        ngx_str_set(&ctx->tier, "priority");

    } else if (ngx_http_ai_str_is(&usage->service_tier, "batch")) {
        ngx_str_set(&ctx->tier, "batch");
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_reply_text(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_anthropic_open_e open, ngx_str_t *text)
{
    ngx_int_t                     rc;
    ngx_http_ai_anthropic_enc_t  *ctx;

    ctx = enc->ctx;

    if (text->len == 0) {
        return NGX_OK;
    }

    if (ctx->open != open) {
        rc = ngx_http_ai_anthropic_settle(enc);
        if (rc != NGX_OK) {
            return rc;
        }

        ctx->open = open;

        if (open == NGX_HTTP_AI_ANTHROPIC_OPEN_TEXT) {

            if (enc->stream) {
                ngx_http_ai_anthropic_open_lit(enc, "{\"type\":\"text\","
                                                    "\"text\":\"\"}");

            } else {
                ngx_http_ai_anthropic_open_lit(enc, "{\"type\":\"text\","
                                                    "\"text\":\"");
            }

        } else if (enc->stream) {
            ngx_http_ai_anthropic_open_lit(enc, "{\"type\":\"thinking\","
                                                "\"thinking\":\"\","
                                                "\"signature\":\"\"}");

        } else {
            ngx_http_ai_anthropic_open_lit(enc, "{\"type\":\"thinking\","
                                                "\"thinking\":\"");
        }
    }

    if (!enc->stream) {
        ngx_http_ai_out_str(ctx->out, text);

    } else if (open == NGX_HTTP_AI_ANTHROPIC_OPEN_TEXT) {
        ngx_http_ai_anthropic_delta_lit(enc, "text_delta\",\"text", text);

    } else {
        ngx_http_ai_anthropic_delta_lit(enc, "thinking_delta\",\"thinking",
                                        text);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_reply_signature(ngx_http_ai_encoder_t *enc,
    ngx_str_t *text)
{
    ngx_int_t                     rc;
    ngx_http_ai_anthropic_enc_t  *ctx;

    ctx = enc->ctx;

    if (text->len == 0) {
        return NGX_OK;
    }

    if (ctx->open != NGX_HTTP_AI_ANTHROPIC_OPEN_THINKING) {

        /* of thoughts that are not shown */

        rc = ngx_http_ai_anthropic_settle(enc);
        if (rc != NGX_OK) {
            return rc;
        }

        ctx->open = NGX_HTTP_AI_ANTHROPIC_OPEN_THINKING;

        if (enc->stream) {
            ngx_http_ai_anthropic_open_lit(enc, "{\"type\":\"thinking\","
                                                "\"thinking\":\"\","
                                                "\"signature\":\"\"}");

        } else {
            ngx_http_ai_anthropic_open_lit(enc, "{\"type\":\"thinking\","
                                                "\"thinking\":\"");
        }
    }

    /* it comes in one piece, and ends what was thought */

    if (enc->stream) {
        ngx_http_ai_anthropic_delta_lit(enc, "signature_delta\",\"signature",
                                        text);
        ngx_http_ai_anthropic_close(enc);

        return NGX_OK;
    }

    ngx_http_ai_out_lit(ctx->out, "\",\"signature\":\"");
    ngx_http_ai_out_str(ctx->out, text);
    ngx_http_ai_out_lit(ctx->out, "\"}");

    ctx->open = NGX_HTTP_AI_ANTHROPIC_OPEN_NONE;
    ctx->block++;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_reply_redacted(ngx_http_ai_encoder_t *enc,
    ngx_str_t *text)
{
    ngx_int_t                     rc;
    ngx_http_ai_anthropic_enc_t  *ctx;

    ctx = enc->ctx;

    if (text->len == 0) {
        return NGX_OK;
    }

    rc = ngx_http_ai_anthropic_settle(enc);
    if (rc != NGX_OK) {
        return rc;
    }

    ngx_http_ai_anthropic_open_lit(enc, "{\"type\":\"redacted_thinking\","
                                        "\"data\":\"");
    ngx_http_ai_out_str(ctx->out, text);
    ngx_http_ai_out_lit(ctx->out, "\"}");

    if (enc->stream) {
        ngx_http_ai_out_lit(ctx->out, "}\n\nevent: content_block_stop\n"
                                      "data: {\"type\":\"content_block_stop\","
                                      "\"index\":");
        ngx_http_ai_out_int(ctx->out, ctx->block);
        ngx_http_ai_out_lit(ctx->out, "}\n\n");
    }

    ctx->block++;

    return NGX_OK;
}


/*
 * One block is open at a time: a call that begins while another one is open
 * waits until that one ends.  Where the answer is gathered all of them wait,
 * as the arguments are looked at when they are complete.
 */

static ngx_int_t
ngx_http_ai_anthropic_reply_call(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_event_t *ev)
{
    ngx_int_t                      rc;
    ngx_http_ai_anthropic_enc_t   *ctx;
    ngx_http_ai_anthropic_call_t  *call, **last;

    ctx = enc->ctx;

    if (ngx_http_ai_anthropic_call(ctx, ev->index)) {
        return NGX_OK;
    }

    if (ctx->ncalls++ >= NGX_HTTP_AI_ANTHROPIC_MAX_CALLS) {
        return NGX_ERROR;
    }

    call = ngx_pcalloc(enc->pool, sizeof(ngx_http_ai_anthropic_call_t));
    if (call == NULL) {
        return NGX_ERROR;
    }

    call->index = ev->index;

    if (ngx_http_ai_out_init(&call->args, enc->pool, 0) != NGX_OK
        || ngx_http_ai_anthropic_keep(enc->pool, &call->id, &ev->id) != NGX_OK
        || ngx_http_ai_anthropic_keep(enc->pool, &call->name, &ev->name)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (last = &ctx->calls; *last; last = &(*last)->next) { /* void */ }

    *last = call;

    if (enc->stream && ctx->open != NGX_HTTP_AI_ANTHROPIC_OPEN_TOOL) {
        rc = ngx_http_ai_anthropic_settle(enc);
        if (rc != NGX_OK) {
            return rc;
        }

        ngx_http_ai_anthropic_call_open(enc, call);

        return NGX_OK;
    }

    if (!enc->stream) {
        ngx_http_ai_anthropic_close(enc);
    }

    if (ctx->waiting == NULL) {
        ctx->waiting = call;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_reply_args(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_event_t *ev)
{
    ngx_http_ai_anthropic_enc_t   *ctx;
    ngx_http_ai_anthropic_call_t  *call;

    ctx = enc->ctx;

    if (ev->text.len == 0) {
        return NGX_OK;
    }

    if (ctx->open == NGX_HTTP_AI_ANTHROPIC_OPEN_TOOL
        && ctx->call->index == ev->index)
    {
        ngx_http_ai_anthropic_delta_lit(enc,
                                        "input_json_delta\",\"partial_json",
                                        &ev->text);
        return NGX_OK;
    }

    call = ngx_http_ai_anthropic_call(ctx, ev->index);

    if (call == NULL || call->written) {
        return NGX_OK;
    }

    ctx->held += ev->text.len;

    if (ctx->held > NGX_HTTP_AI_ANTHROPIC_MAX_HELD) {
        return NGX_ERROR;
    }

    ngx_http_ai_out_str(&call->args, &ev->text);

    return call->args.failed ? NGX_ERROR : NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_reply_call_end(ngx_http_ai_encoder_t *enc,
    ngx_uint_t index)
{
    ngx_http_ai_anthropic_enc_t   *ctx;
    ngx_http_ai_anthropic_call_t  *call;

    ctx = enc->ctx;

    call = ngx_http_ai_anthropic_call(ctx, index);
    if (call == NULL) {
        return NGX_OK;
    }

    call->ended = 1;

    if (!enc->stream || ctx->call != call) {
        return NGX_OK;
    }

    ngx_http_ai_anthropic_close(enc);

    return ngx_http_ai_anthropic_drain(enc, 0);
}


static ngx_http_ai_anthropic_call_t *
ngx_http_ai_anthropic_call(ngx_http_ai_anthropic_enc_t *ctx, ngx_uint_t index)
{
    ngx_http_ai_anthropic_call_t  *call;

    for (call = ctx->calls; call; call = call->next) {
        if (call->index == index) {
            return call;
        }
    }

    return NULL;
}


/* blocks of the calls that wait, up to one that has not ended unless "all" */

static ngx_int_t
ngx_http_ai_anthropic_drain(ngx_http_ai_encoder_t *enc, ngx_uint_t all)
{
    ngx_int_t                      rc;
    ngx_str_t                      text;
    ngx_http_ai_anthropic_enc_t   *ctx;
    ngx_http_ai_anthropic_call_t  *call;

    ctx = enc->ctx;

    while (ctx->waiting) {
        call = ctx->waiting;
        ctx->waiting = call->next;

        if (!enc->stream) {
            rc = ngx_http_ai_anthropic_call_whole(enc, call);
            if (rc != NGX_OK) {
                return rc;
            }

            continue;
        }

        ngx_http_ai_anthropic_call_open(enc, call);

        text.data = call->args.start;
        text.len = call->args.last - call->args.start;

        if (text.len) {
            ngx_http_ai_anthropic_delta_lit(enc,
                                            "input_json_delta\","
                                            "\"partial_json", &text);
        }

        if (!all && !call->ended) {
            break;
        }

        ngx_http_ai_anthropic_close(enc);
    }

    return NGX_OK;
}


/* no block is open and no call waits after it */

static ngx_int_t
ngx_http_ai_anthropic_settle(ngx_http_ai_encoder_t *enc)
{
    ngx_http_ai_anthropic_close(enc);

    return ngx_http_ai_anthropic_drain(enc, 1);
}


static void
ngx_http_ai_anthropic_close(ngx_http_ai_encoder_t *enc)
{
    ngx_http_ai_out_t             *out;
    ngx_http_ai_anthropic_enc_t   *ctx;
    ngx_http_ai_anthropic_open_e   open;

    ctx = enc->ctx;
    out = ctx->out;

    open = ctx->open;

    if (open == NGX_HTTP_AI_ANTHROPIC_OPEN_NONE) {
        return;
    }

    ctx->open = NGX_HTTP_AI_ANTHROPIC_OPEN_NONE;
    ctx->call = NULL;

    if (enc->stream) {
        ngx_http_ai_out_lit(out, "event: content_block_stop\n"
                                 "data: {\"type\":\"content_block_stop\","
                                 "\"index\":");
        ngx_http_ai_out_int(out, ctx->block);
        ngx_http_ai_out_lit(out, "}\n\n");

    } else if (open == NGX_HTTP_AI_ANTHROPIC_OPEN_THINKING) {
        ngx_http_ai_out_lit(out, "\",\"signature\":\"\"}");

    } else {
        ngx_http_ai_out_lit(out, "\"}");
    }

    ctx->block++;
}


static void
ngx_http_ai_anthropic_block_open(ngx_http_ai_encoder_t *enc, const char *type,
    size_t len)
{
    ngx_http_ai_out_t            *out;
    ngx_http_ai_anthropic_enc_t  *ctx;

    ctx = enc->ctx;
    out = ctx->out;

    if (!enc->stream) {
        if (ctx->block) {
            ngx_http_ai_out_lit(out, ",");
        }

        ngx_http_ai_out_mem(out, type, len);

        return;
    }

    ngx_http_ai_out_lit(out, "event: content_block_start\n"
                             "data: {\"type\":\"content_block_start\","
                             "\"index\":");
    ngx_http_ai_out_int(out, ctx->block);
    ngx_http_ai_out_lit(out, ",\"content_block\":");
    ngx_http_ai_out_mem(out, type, len);

    /* some are written in pieces, and then end themselves */

    if (type[len - 1] == '}') {
        ngx_http_ai_out_lit(out, "}\n\n");
    }
}


static void
ngx_http_ai_anthropic_block_delta(ngx_http_ai_encoder_t *enc,
    const char *type, size_t len, ngx_str_t *text)
{
    ngx_http_ai_out_t            *out;
    ngx_http_ai_anthropic_enc_t  *ctx;

    ctx = enc->ctx;
    out = ctx->out;

    ngx_http_ai_out_lit(out, "event: content_block_delta\n"
                             "data: {\"type\":\"content_block_delta\","
                             "\"index\":");
    ngx_http_ai_out_int(out, ctx->block);
    ngx_http_ai_out_lit(out, ",\"delta\":{\"type\":\"");
    ngx_http_ai_out_mem(out, type, len);
    ngx_http_ai_out_lit(out, "\":\"");
    ngx_http_ai_out_str(out, text);
    ngx_http_ai_out_lit(out, "\"}}\n\n");
}


static void
ngx_http_ai_anthropic_call_open(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_anthropic_call_t *call)
{
    ngx_http_ai_anthropic_enc_t  *ctx;

    ctx = enc->ctx;

    ngx_http_ai_anthropic_open_lit(enc, "{\"type\":\"tool_use\",\"id\":\"");
    ngx_http_ai_anthropic_call_id(enc, call);
    ngx_http_ai_out_lit(ctx->out, "\",\"name\":\"");
    ngx_http_ai_out_str(ctx->out, &call->name);
    ngx_http_ai_out_lit(ctx->out, "\",\"input\":{}}}\n\n");

    ctx->open = NGX_HTTP_AI_ANTHROPIC_OPEN_TOOL;
    ctx->call = call;

    call->written = 1;
}


/* arguments that are no object go on as what they are */

static ngx_int_t
ngx_http_ai_anthropic_call_whole(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_anthropic_call_t *call)
{
    u_char                       *p, *last;
    ngx_int_t                     rc;
    ngx_str_t                     raw, text;
    ngx_http_ai_out_t            *out;
    ngx_http_ai_anthropic_enc_t  *ctx;

    ctx = enc->ctx;
    out = ctx->out;

    ngx_http_ai_anthropic_open_lit(enc, "{\"type\":\"tool_use\",\"id\":\"");
    ngx_http_ai_anthropic_call_id(enc, call);
    ngx_http_ai_out_lit(out, "\",\"name\":\"");
    ngx_http_ai_out_str(out, &call->name);
    ngx_http_ai_out_lit(out, "\",\"input\":");

    call->written = 1;
    ctx->block++;

    raw.data = call->args.start;
    raw.len = call->args.last - call->args.start;

    if (raw.len == 0) {
        ngx_http_ai_out_lit(out, "{}}");
        return NGX_OK;
    }

    if (ngx_http_ai_json_unescape_str(enc->pool, &raw, &text) != NGX_OK) {
        return NGX_ERROR;
    }

    last = text.data + text.len;
    p = ngx_http_ai_json_skip_space(text.data, last);

    if (p == last) {
        ngx_http_ai_out_lit(out, "{}}");
        return NGX_OK;
    }

    rc = ngx_http_ai_json_parse(&ctx->json, text.data, text.len);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (rc == NGX_OK && ctx->json.nodes[0].type == NGX_HTTP_AI_JSON_OBJECT) {
        ngx_http_ai_out_mem(out, ctx->json.nodes[0].start,
                            ctx->json.nodes[0].len);

    } else if (rc == NGX_OK
               && ctx->json.nodes[0].type == NGX_HTTP_AI_JSON_NULL)
    {
        ngx_http_ai_out_lit(out, "{}");

    } else {
        ngx_http_ai_out_lit(out, "{\"_raw\":\"");
        ngx_http_ai_out_str(out, &raw);
        ngx_http_ai_out_lit(out, "\"}");
    }

    ngx_http_ai_out_lit(out, "}");

    return NGX_OK;
}


static void
ngx_http_ai_anthropic_call_id(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_anthropic_call_t *call)
{
    ngx_http_ai_anthropic_enc_t  *ctx;

    ctx = enc->ctx;

    if (call->id.len) {
        ngx_http_ai_out_str(ctx->out, &call->id);
        return;
    }

    ngx_http_ai_out_lit(ctx->out, "toolu_");
    ngx_http_ai_out_escaped(ctx->out, enc->id.data, enc->id.len);
    ngx_http_ai_out_lit(ctx->out, "_");
    ngx_http_ai_out_int(ctx->out, call->index);
}


static ngx_int_t
ngx_http_ai_anthropic_reply_end(ngx_http_ai_encoder_t *enc)
{
    ngx_int_t                     rc;
    ngx_http_ai_out_t            *out;
    ngx_http_ai_anthropic_enc_t  *ctx;

    ctx = enc->ctx;
    out = enc->out;

    ctx->ended = 1;

    if (enc->op == NGX_HTTP_AI_OP_COUNT_TOKENS) {
        ngx_http_ai_out_lit(out, "{\"input_tokens\":");
        ngx_http_ai_out_int(out, ngx_http_ai_max(
                               ngx_http_ai_usage_input(&ctx->usage), 0));
        ngx_http_ai_out_lit(out, "}");
        return NGX_OK;
    }

    rc = ngx_http_ai_anthropic_settle(enc);
    if (rc != NGX_OK) {
        return rc;
    }

    if (enc->stream) {
        ngx_http_ai_out_lit(out, "event: message_delta\n"
                                 "data: {\"type\":\"message_delta\","
                                 "\"delta\":{");
        ngx_http_ai_anthropic_out_stop(enc);
        ngx_http_ai_out_lit(out, "},");
        ngx_http_ai_anthropic_out_usage(enc);
        ngx_http_ai_out_lit(out, "}\n\n"
                                 "event: message_stop\n"
                                 "data: {\"type\":\"message_stop\"}\n\n");
        return NGX_OK;
    }

    if (ctx->content.failed) {
        return NGX_ERROR;
    }

    ngx_http_ai_out_lit(out, "{\"id\":\"");
    ngx_http_ai_out_str(out, &ctx->id);
    ngx_http_ai_out_lit(out, "\",\"type\":\"message\",\"role\":\"assistant\","
                             "\"model\":\"");
    ngx_http_ai_out_str(out, &ctx->model);
    ngx_http_ai_out_lit(out, "\",\"content\":[");
    ngx_http_ai_out_mem(out, ctx->content.start,
                        ctx->content.last - ctx->content.start);
    ngx_http_ai_out_lit(out, "],");
    ngx_http_ai_anthropic_out_stop(enc);
    ngx_http_ai_out_lit(out, ",");
    ngx_http_ai_anthropic_out_usage(enc);
    ngx_http_ai_out_lit(out, "}");

    return NGX_OK;
}


static void
ngx_http_ai_anthropic_out_stop(ngx_http_ai_encoder_t *enc)
{
    ngx_str_t                     reason;
    ngx_uint_t                    sequence;
    ngx_http_ai_out_t            *out;
    ngx_http_ai_anthropic_enc_t  *ctx;

    ctx = enc->ctx;
    out = enc->out;

    sequence = 0;

    ngx_str_set(&reason, "end_turn");

    switch (ctx->finish) {

    case NGX_HTTP_AI_FINISH_LENGTH:
        ngx_str_set(&reason, "max_tokens");
        break;

    case NGX_HTTP_AI_FINISH_CONTEXT:
        ngx_str_set(&reason, "model_context_window_exceeded");
        break;

    case NGX_HTTP_AI_FINISH_FILTER:
    case NGX_HTTP_AI_FINISH_REFUSAL:
        ngx_str_set(&reason, "refusal");
        break;

    case NGX_HTTP_AI_FINISH_PAUSE:
        ngx_str_set(&reason, "pause_turn");
        break;

    case NGX_HTTP_AI_FINISH_STOP_SEQUENCE:

        if (ctx->stop.len) {
            ngx_str_set(&reason, "stop_sequence");
            sequence = 1;
        }

        break;

    default:

        /* by what the answer holds: some servers say "stop" after calls, or
         * name calls that they did not make */

        if (ctx->calls) {
            ngx_str_set(&reason, "tool_use");

        } else if (ctx->refused) {
            ngx_str_set(&reason, "refusal");
        }

        break;
    }

    ngx_http_ai_out_lit(out, "\"stop_reason\":\"");
    ngx_http_ai_out_str(out, &reason);

    if (sequence) {
        ngx_http_ai_out_lit(out, "\",\"stop_sequence\":\"");
        ngx_http_ai_out_str(out, &ctx->stop);
        ngx_http_ai_out_lit(out, "\"");

    } else {
        ngx_http_ai_out_lit(out, "\",\"stop_sequence\":null");
    }
}


static void
ngx_http_ai_anthropic_out_usage(ngx_http_ai_encoder_t *enc)
{
    ngx_http_ai_out_t            *out;
    ngx_http_ai_usage_t          *u;
    ngx_http_ai_anthropic_enc_t  *ctx;

    ctx = enc->ctx;
    out = enc->out;
    u = &ctx->usage;

    ngx_http_ai_out_lit(out, "\"usage\":{\"input_tokens\":");
    ngx_http_ai_out_int(out, (ngx_http_ai_usage_input(u) >= 0)
                             ? ngx_http_ai_max(u->in_fresh, 0)
                             : ngx_http_ai_max(enc->input_estimate, 0));
    ngx_http_ai_out_lit(out, ",\"cache_creation_input_tokens\":");
    ngx_http_ai_out_int(out, ngx_http_ai_max(u->cache_write, 0));
    ngx_http_ai_out_lit(out, ",\"cache_read_input_tokens\":");
    ngx_http_ai_out_int(out, ngx_http_ai_max(u->cache_read, 0));

    if (u->cache_write_1h >= 0) {
        ngx_http_ai_out_lit(out, ",\"cache_creation\":"
                                 "{\"ephemeral_5m_input_tokens\":");
        ngx_http_ai_out_int(out, ngx_http_ai_max(u->cache_write
                                                 - u->cache_write_1h, 0));
        ngx_http_ai_out_lit(out, ",\"ephemeral_1h_input_tokens\":");
        ngx_http_ai_out_int(out, u->cache_write_1h);
        ngx_http_ai_out_lit(out, "}");
    }

    ngx_http_ai_out_lit(out, ",\"output_tokens\":");
    ngx_http_ai_out_int(out, ngx_http_ai_max(u->out, 0));

    if (u->reasoning >= 0) {
        ngx_http_ai_out_lit(out, ",\"output_tokens_details\":"
                                 "{\"thinking_tokens\":");
        ngx_http_ai_out_int(out, u->reasoning);
        ngx_http_ai_out_lit(out, "}");
    }

    if (ctx->tier.len) {
        ngx_http_ai_out_lit(out, ",\"service_tier\":\"");
        ngx_http_ai_out_str(out, &ctx->tier);
        ngx_http_ai_out_lit(out, "\"");
    }

    if (u->cost >= 0) {
        ngx_http_ai_out_lit(out, ",\"cost\":");
        ngx_http_ai_out_dollars(out, u->cost);
    }

    ngx_http_ai_out_lit(out, "}");
}


static ngx_int_t
ngx_http_ai_anthropic_keep(ngx_pool_t *pool, ngx_str_t *dst, ngx_str_t *src)
{
    dst->len = 0;

    if (src->len == 0) {
        return NGX_OK;
    }

    dst->data = ngx_pnalloc(pool, src->len);
    if (dst->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(dst->data, src->data, src->len);
    dst->len = src->len;

    return NGX_OK;
}
