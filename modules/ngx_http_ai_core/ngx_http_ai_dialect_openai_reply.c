
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_dialect.h"
#include "ngx_http_ai_dialect_openai.h"


/* of an answer that is gathered */

#define NGX_HTTP_AI_OPENAI_MAX_ANSWER    (64 * 1024 * 1024)
#define NGX_HTTP_AI_OPENAI_MAX_CHOICES   128
#define NGX_HTTP_AI_OPENAI_MAX_CALLS     1024


typedef struct ngx_http_ai_openai_tool_s  ngx_http_ai_openai_tool_t;
typedef struct ngx_http_ai_openai_msg_s  ngx_http_ai_openai_msg_t;


struct ngx_http_ai_openai_tool_s {
    ngx_uint_t                 index;
    ngx_str_t                  id;
    ngx_str_t                  name;
    ngx_http_ai_out_t          args;
    ngx_http_ai_openai_tool_t *next;
};


/* one choice of an answer that is gathered */

struct ngx_http_ai_openai_msg_s {
    ngx_uint_t                 choice;

    ngx_http_ai_out_t          content;
    ngx_http_ai_out_t          reasoning;
    ngx_http_ai_out_t          signature;
    ngx_http_ai_out_t          redacted;
    ngx_http_ai_out_t          refusal;
    ngx_http_ai_out_t          annotations;
    ngx_http_ai_openai_tool_t *tools;

    ngx_http_ai_finish_e       finish;
    ngx_str_t                  stop;

    ngx_http_ai_openai_msg_t  *next;
};


typedef struct {
    ngx_str_t                  id;        /* raw text */
    ngx_str_t                  model;
    int64_t                    created;

    ngx_str_t                  head;      /* of each chunk */
    ngx_http_ai_usage_t        usage;
    ngx_str_t                  tier;

    ngx_http_ai_openai_msg_t  *msgs;
    ngx_uint_t                 nmsgs;
    ngx_uint_t                 ncalls;
    size_t                     size;

    /* by choice, as in the decoder */
    uint64_t                   seen;
    uint64_t                   finished;

    unsigned                   started:1;
    unsigned                   failed:1;
    unsigned                   ended:1;
} ngx_http_ai_openai_enc_t;


static ngx_int_t ngx_http_ai_openai_reply_start(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_event_t *ev);
static ngx_int_t ngx_http_ai_openai_reply_usage(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_usage_t *usage);
static ngx_int_t ngx_http_ai_openai_stream_event(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_event_t *ev);
static void ngx_http_ai_openai_stream_open(ngx_http_ai_encoder_t *enc,
    ngx_uint_t choice);
static void ngx_http_ai_openai_stream_close(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_finish_e finish, ngx_str_t *stop);
static void ngx_http_ai_openai_stream_text(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_event_t *ev, const char *name);
static void ngx_http_ai_openai_stream_role(ngx_http_ai_encoder_t *enc,
    ngx_uint_t choice);
static void ngx_http_ai_openai_stream_finish(ngx_http_ai_encoder_t *enc,
    ngx_uint_t choice, ngx_http_ai_finish_e finish, ngx_str_t *stop);
static void ngx_http_ai_openai_stream_end(ngx_http_ai_encoder_t *enc);
static ngx_int_t ngx_http_ai_openai_gather(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_event_t *ev);
static ngx_http_ai_openai_msg_t *ngx_http_ai_openai_gather_choice(
    ngx_http_ai_encoder_t *enc, ngx_uint_t choice);
static ngx_http_ai_openai_tool_t *ngx_http_ai_openai_gather_tool(
    ngx_http_ai_openai_msg_t *msg, ngx_uint_t index);
static ngx_int_t ngx_http_ai_openai_gather_add(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_out_t *out, ngx_str_t *text);
static ngx_int_t ngx_http_ai_openai_gather_item(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_out_t *out, ngx_str_t *text, ngx_uint_t quote);
static ngx_int_t ngx_http_ai_openai_copy(ngx_pool_t *pool, ngx_str_t *dst,
    ngx_str_t *src);
static void ngx_http_ai_openai_body(ngx_http_ai_encoder_t *enc);
static void ngx_http_ai_openai_body_choice(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_openai_msg_t *msg);
static void ngx_http_ai_openai_body_text(ngx_http_ai_out_t *out,
    const char *name, ngx_http_ai_out_t *text);
static void ngx_http_ai_openai_out_usage(ngx_http_ai_out_t *out,
    ngx_http_ai_usage_t *u);
static void ngx_http_ai_openai_out_call_id(ngx_http_ai_encoder_t *enc,
    ngx_str_t *id, ngx_uint_t choice, ngx_uint_t index);
static void ngx_http_ai_openai_out_finish(ngx_http_ai_out_t *out,
    ngx_http_ai_finish_e finish, ngx_str_t *stop);


ngx_int_t
ngx_http_ai_openai_encode_init(ngx_http_ai_encoder_t *enc)
{
    ngx_http_ai_openai_enc_t  *ctx;

    ctx = ngx_pcalloc(enc->pool, sizeof(ngx_http_ai_openai_enc_t));
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    ngx_http_ai_usage_init(&ctx->usage);

    enc->ctx = ctx;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_openai_encode_event(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_event_t *ev)
{
    ngx_int_t                  rc;
    ngx_http_ai_openai_enc_t  *ctx;

    ctx = enc->ctx;

    if (ctx->ended || ctx->failed) {
        return NGX_OK;
    }

    switch (ev->type) {

    case NGX_HTTP_AI_EV_ERROR:

        if (enc->stream) {
            ctx->failed = 1;
            ngx_http_ai_openai_encode_stream_error(enc->out, ev->error);
        }

        return enc->out->failed ? NGX_ERROR : NGX_OK;

    case NGX_HTTP_AI_EV_USAGE:
        return ngx_http_ai_openai_reply_usage(enc, ev->usage);

    default:
        break;
    }

    /* a second start is that of another attempt, which goes on here */

    if (!ctx->started) {
        rc = ngx_http_ai_openai_reply_start(enc, ev);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (ev->type == NGX_HTTP_AI_EV_START) {
        return enc->out->failed ? NGX_ERROR : NGX_OK;
    }

    if (enc->stream) {
        return ngx_http_ai_openai_stream_event(enc, ev);
    }

    return ngx_http_ai_openai_gather(enc, ev);
}


static ngx_int_t
ngx_http_ai_openai_reply_start(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_event_t *ev)
{
    ngx_http_ai_out_t          out;
    ngx_http_ai_openai_enc_t  *ctx;

    ctx = enc->ctx;

    ctx->started = 1;
    ctx->created = enc->now;

    if (ngx_http_ai_out_init(&out, enc->pool, 256) != NGX_OK) {
        return NGX_ERROR;
    }

    /* the name and the id first: both are kept as raw text */

    if (ev->type == NGX_HTTP_AI_EV_START && ev->model.len) {
        ngx_http_ai_out_str(&out, &ev->model);

    } else {
        ngx_http_ai_out_escaped(&out, enc->model.data, enc->model.len);
    }

    ctx->model.len = out.last - out.start;

    if (ev->type == NGX_HTTP_AI_EV_START && ev->id.len) {
        ngx_http_ai_out_str(&out, &ev->id);

    } else {
        if (enc->op == NGX_HTTP_AI_OP_COMPLETIONS) {
            ngx_http_ai_out_lit(&out, "cmpl-");

        } else {
            ngx_http_ai_out_lit(&out, "chatcmpl-");
        }

        ngx_http_ai_out_escaped(&out, enc->id.data, enc->id.len);
    }

    if (out.failed) {
        return NGX_ERROR;
    }

    ctx->model.data = out.start;
    ctx->id.data = out.start + ctx->model.len;
    ctx->id.len = out.last - ctx->id.data;

    if (ev->type == NGX_HTTP_AI_EV_START && ev->created > 0) {
        ctx->created = ev->created;
    }

    if (!enc->stream) {
        return NGX_OK;
    }

    if (ngx_http_ai_out_init(&out, enc->pool,
                             ctx->id.len + ctx->model.len + 128)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_http_ai_out_lit(&out, "data: {\"id\":\"");
    ngx_http_ai_out_str(&out, &ctx->id);

    if (enc->op == NGX_HTTP_AI_OP_COMPLETIONS) {
        ngx_http_ai_out_lit(&out, "\",\"object\":\"text_completion");

    } else {
        ngx_http_ai_out_lit(&out, "\",\"object\":\"chat.completion.chunk");
    }

    ngx_http_ai_out_lit(&out, "\",\"created\":");
    ngx_http_ai_out_int(&out, ctx->created);
    ngx_http_ai_out_lit(&out, ",\"model\":\"");
    ngx_http_ai_out_str(&out, &ctx->model);
    ngx_http_ai_out_lit(&out, "\",\"choices\":[");

    if (out.failed) {
        return NGX_ERROR;
    }

    ctx->head.data = out.start;
    ctx->head.len = out.last - out.start;

    /* clients see at once that the answer has begun */

    ngx_http_ai_openai_stream_role(enc, 0);

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_openai_reply_usage(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_usage_t *usage)
{
    ngx_http_ai_openai_enc_t  *ctx;

    ctx = enc->ctx;

    ngx_http_ai_usage_merge(&ctx->usage, usage);

    /* the slice is not valid later on */

    ngx_str_null(&ctx->usage.service_tier);

    if (usage->service_tier.len
        && (usage->service_tier.len != ctx->tier.len
            || ngx_memcmp(usage->service_tier.data, ctx->tier.data,
                          ctx->tier.len)
               != 0))
    {
        return ngx_http_ai_openai_copy(enc->pool, &ctx->tier,
                                       &usage->service_tier);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_openai_stream_event(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_event_t *ev)
{
    ngx_http_ai_out_t         *out;
    ngx_http_ai_error_t        err;
    ngx_http_ai_openai_enc_t  *ctx;

    ctx = enc->ctx;
    out = enc->out;

    switch (ev->type) {

    case NGX_HTTP_AI_EV_TEXT:

        if (enc->op == NGX_HTTP_AI_OP_COMPLETIONS) {
            ngx_http_ai_out_str(out, &ctx->head);
            ngx_http_ai_out_lit(out, "{\"text\":\"");
            ngx_http_ai_out_str(out, &ev->text);
            ngx_http_ai_out_lit(out, "\",\"index\":");
            ngx_http_ai_out_int(out, ev->choice);
            ngx_http_ai_openai_stream_close(enc, NGX_HTTP_AI_FINISH_NONE,
                                            NULL);
            ctx->seen |= ngx_http_ai_openai_bit(ev->choice);
            break;
        }

        ngx_http_ai_openai_stream_text(enc, ev, "content");
        break;

    case NGX_HTTP_AI_EV_REASONING:
        ngx_http_ai_openai_stream_text(enc, ev, "reasoning_content");
        break;

    case NGX_HTTP_AI_EV_SIGNATURE:
        ngx_http_ai_openai_stream_text(enc, ev, "reasoning_signature");
        break;

    case NGX_HTTP_AI_EV_REFUSAL:
        ngx_http_ai_openai_stream_text(enc, ev, "refusal");
        break;

    case NGX_HTTP_AI_EV_REDACTED:
        ngx_http_ai_openai_stream_open(enc, ev->choice);
        ngx_http_ai_out_lit(out, "\"reasoning_redacted\":[\"");
        ngx_http_ai_out_str(out, &ev->text);
        ngx_http_ai_out_lit(out, "\"]}");
        ngx_http_ai_openai_stream_close(enc, NGX_HTTP_AI_FINISH_NONE, NULL);
        break;

    case NGX_HTTP_AI_EV_CITATION:
        ngx_http_ai_openai_stream_open(enc, ev->choice);
        ngx_http_ai_out_lit(out, "\"annotations\":[");
        ngx_http_ai_out_str(out, &ev->text);
        ngx_http_ai_out_lit(out, "]}");
        ngx_http_ai_openai_stream_close(enc, NGX_HTTP_AI_FINISH_NONE, NULL);
        break;

    case NGX_HTTP_AI_EV_TOOL_START:
        ngx_http_ai_openai_stream_open(enc, ev->choice);
        ngx_http_ai_out_lit(out, "\"tool_calls\":[{\"index\":");
        ngx_http_ai_out_int(out, ev->index);
        ngx_http_ai_out_lit(out, ",\"id\":\"");
        ngx_http_ai_openai_out_call_id(enc, &ev->id, ev->choice, ev->index);
        ngx_http_ai_out_lit(out, "\",\"type\":\"function\",\"function\":"
                                 "{\"name\":\"");
        ngx_http_ai_out_str(out, &ev->name);
        ngx_http_ai_out_lit(out, "\",\"arguments\":\"\"}}]}");
        ngx_http_ai_openai_stream_close(enc, NGX_HTTP_AI_FINISH_NONE, NULL);
        break;

    case NGX_HTTP_AI_EV_TOOL_ARGS:
        ngx_http_ai_openai_stream_open(enc, ev->choice);
        ngx_http_ai_out_lit(out, "\"tool_calls\":[{\"index\":");
        ngx_http_ai_out_int(out, ev->index);
        ngx_http_ai_out_lit(out, ",\"function\":{\"arguments\":\"");
        ngx_http_ai_out_str(out, &ev->text);
        ngx_http_ai_out_lit(out, "\"}}]}");
        ngx_http_ai_openai_stream_close(enc, NGX_HTTP_AI_FINISH_NONE, NULL);
        break;

    case NGX_HTTP_AI_EV_FINISH:

        if (ctx->finished & ngx_http_ai_openai_bit(ev->choice)) {
            break;
        }

        if (ev->finish == NGX_HTTP_AI_FINISH_ERROR) {

            /* the dialect has no reason for it, and "stop" would be a lie */

            ngx_memzero(&err, sizeof(ngx_http_ai_error_t));

            err.class = NGX_HTTP_AI_ERR_SERVER;
            ngx_str_set(&err.message,
                        "the provider ended the answer with an error");

            ctx->failed = 1;
            ngx_http_ai_openai_encode_stream_error(out, &err);
            break;
        }

        ngx_http_ai_openai_stream_finish(enc, ev->choice, ev->finish,
                                         &ev->text);
        break;

    case NGX_HTTP_AI_EV_END:
        ngx_http_ai_openai_stream_end(enc);
        break;

    default:
        break;
    }

    return out->failed ? NGX_ERROR : NGX_OK;
}


/* up to the opening brace of the delta */

static void
ngx_http_ai_openai_stream_open(ngx_http_ai_encoder_t *enc, ngx_uint_t choice)
{
    ngx_http_ai_out_t         *out;
    ngx_http_ai_openai_enc_t  *ctx;

    ctx = enc->ctx;
    out = enc->out;

    if (!(ctx->seen & ngx_http_ai_openai_bit(choice))) {
        ngx_http_ai_openai_stream_role(enc, choice);
    }

    ngx_http_ai_out_str(out, &ctx->head);
    ngx_http_ai_out_lit(out, "{\"index\":");
    ngx_http_ai_out_int(out, choice);
    ngx_http_ai_out_lit(out, ",\"delta\":{");
}


/* what follows the delta */

static void
ngx_http_ai_openai_stream_close(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_finish_e finish, ngx_str_t *stop)
{
    ngx_http_ai_out_t  *out;

    out = enc->out;

    ngx_http_ai_out_lit(out, ",\"logprobs\":null,\"finish_reason\":");
    ngx_http_ai_openai_out_finish(out, finish, stop);

    if (enc->include_usage) {
        ngx_http_ai_out_lit(out, "}],\"usage\":null}\n\n");

    } else {
        ngx_http_ai_out_lit(out, "}]}\n\n");
    }
}


static void
ngx_http_ai_openai_stream_text(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_event_t *ev, const char *name)
{
    ngx_http_ai_out_t  *out;

    out = enc->out;

    ngx_http_ai_openai_stream_open(enc, ev->choice);

    ngx_http_ai_out_lit(out, "\"");
    ngx_http_ai_out_mem(out, name, ngx_strlen(name));
    ngx_http_ai_out_lit(out, "\":\"");
    ngx_http_ai_out_str(out, &ev->text);
    ngx_http_ai_out_lit(out, "\"}");

    ngx_http_ai_openai_stream_close(enc, NGX_HTTP_AI_FINISH_NONE, NULL);
}


static void
ngx_http_ai_openai_stream_role(ngx_http_ai_encoder_t *enc, ngx_uint_t choice)
{
    ngx_http_ai_openai_enc_t  *ctx;

    ctx = enc->ctx;

    if (enc->op == NGX_HTTP_AI_OP_COMPLETIONS) {
        return;
    }

    ctx->seen |= ngx_http_ai_openai_bit(choice);

    ngx_http_ai_openai_stream_open(enc, choice);
    ngx_http_ai_out_lit(enc->out, "\"role\":\"assistant\",\"content\":\"\"}");
    ngx_http_ai_openai_stream_close(enc, NGX_HTTP_AI_FINISH_NONE, NULL);
}


static void
ngx_http_ai_openai_stream_finish(ngx_http_ai_encoder_t *enc,
    ngx_uint_t choice, ngx_http_ai_finish_e finish, ngx_str_t *stop)
{
    ngx_http_ai_openai_enc_t  *ctx;

    ctx = enc->ctx;
    ctx->finished |= ngx_http_ai_openai_bit(choice);

    if (enc->op == NGX_HTTP_AI_OP_COMPLETIONS) {
        ctx->seen |= ngx_http_ai_openai_bit(choice);

        ngx_http_ai_out_str(enc->out, &ctx->head);
        ngx_http_ai_out_lit(enc->out, "{\"text\":\"\",\"index\":");
        ngx_http_ai_out_int(enc->out, choice);

    } else {
        ngx_http_ai_openai_stream_open(enc, choice);
        ngx_http_ai_out_lit(enc->out, "}");
    }

    ngx_http_ai_openai_stream_close(enc, finish, stop);
}


static void
ngx_http_ai_openai_stream_end(ngx_http_ai_encoder_t *enc)
{
    ngx_uint_t                 i;
    ngx_http_ai_out_t         *out;
    ngx_http_ai_openai_enc_t  *ctx;

    ctx = enc->ctx;
    out = enc->out;

    ctx->ended = 1;

    for (i = 0; i < 63; i++) {
        if (ctx->seen & ~ctx->finished & (1ull << i)) {
            ngx_http_ai_openai_stream_finish(enc, i,
                                             NGX_HTTP_AI_FINISH_UNKNOWN, NULL);
        }
    }

    if (enc->include_usage
        && (ngx_http_ai_usage_input(&ctx->usage) >= 0 || ctx->usage.out >= 0))
    {
        ngx_http_ai_out_str(out, &ctx->head);
        ngx_http_ai_out_lit(out, "],\"usage\":");
        ngx_http_ai_openai_out_usage(out, &ctx->usage);

        if (ctx->tier.len) {
            ngx_http_ai_out_lit(out, ",\"service_tier\":\"");
            ngx_http_ai_out_str(out, &ctx->tier);
            ngx_http_ai_out_lit(out, "\"");
        }

        ngx_http_ai_out_lit(out, "}\n\n");
    }

    ngx_http_ai_out_lit(out, "data: [DONE]\n\n");
}


static ngx_int_t
ngx_http_ai_openai_gather(ngx_http_ai_encoder_t *enc, ngx_http_ai_event_t *ev)
{
    ngx_http_ai_openai_enc_t    *ctx;
    ngx_http_ai_openai_msg_t    *msg;
    ngx_http_ai_openai_tool_t   *tool, **last;

    ctx = enc->ctx;

    if (ev->type == NGX_HTTP_AI_EV_END) {
        ctx->ended = 1;
        ngx_http_ai_openai_body(enc);
        return enc->out->failed ? NGX_ERROR : NGX_OK;
    }

    msg = ngx_http_ai_openai_gather_choice(enc, ev->choice);
    if (msg == NULL) {
        return NGX_ERROR;
    }

    switch (ev->type) {

    case NGX_HTTP_AI_EV_TEXT:
        return ngx_http_ai_openai_gather_add(enc, &msg->content, &ev->text);

    case NGX_HTTP_AI_EV_REASONING:
        return ngx_http_ai_openai_gather_add(enc, &msg->reasoning, &ev->text);

    case NGX_HTTP_AI_EV_SIGNATURE:
        return ngx_http_ai_openai_gather_add(enc, &msg->signature, &ev->text);

    case NGX_HTTP_AI_EV_REFUSAL:
        return ngx_http_ai_openai_gather_add(enc, &msg->refusal, &ev->text);

    case NGX_HTTP_AI_EV_REDACTED:
        return ngx_http_ai_openai_gather_item(enc, &msg->redacted, &ev->text,
                                              1);

    case NGX_HTTP_AI_EV_CITATION:
        return ngx_http_ai_openai_gather_item(enc, &msg->annotations,
                                              &ev->text, 0);

    case NGX_HTTP_AI_EV_TOOL_START:

        if (ctx->ncalls++ >= NGX_HTTP_AI_OPENAI_MAX_CALLS) {
            return NGX_ERROR;
        }

        tool = ngx_pcalloc(enc->pool, sizeof(ngx_http_ai_openai_tool_t));
        if (tool == NULL) {
            return NGX_ERROR;
        }

        tool->index = ev->index;

        if (ngx_http_ai_openai_copy(enc->pool, &tool->id, &ev->id) != NGX_OK
            || ngx_http_ai_openai_copy(enc->pool, &tool->name, &ev->name)
               != NGX_OK)
        {
            return NGX_ERROR;
        }

        for (last = &msg->tools; *last; last = &(*last)->next) { /* void */ }

        *last = tool;

        return NGX_OK;

    case NGX_HTTP_AI_EV_TOOL_ARGS:

        tool = ngx_http_ai_openai_gather_tool(msg, ev->index);
        if (tool == NULL) {
            return NGX_OK;
        }

        return ngx_http_ai_openai_gather_add(enc, &tool->args, &ev->text);

    case NGX_HTTP_AI_EV_FINISH:

        msg->finish = ev->finish;

        return ngx_http_ai_openai_copy(enc->pool, &msg->stop, &ev->text);

    default:
        return NGX_OK;
    }
}


static ngx_http_ai_openai_msg_t *
ngx_http_ai_openai_gather_choice(ngx_http_ai_encoder_t *enc,
    ngx_uint_t choice)
{
    ngx_http_ai_openai_enc_t   *ctx;
    ngx_http_ai_openai_msg_t   *msg, **last;

    ctx = enc->ctx;

    /* in order of their numbers */

    for (last = &ctx->msgs;
         *last && (*last)->choice <= choice;
         last = &(*last)->next)
    {
        if ((*last)->choice == choice) {
            return *last;
        }
    }

    if (ctx->nmsgs++ >= NGX_HTTP_AI_OPENAI_MAX_CHOICES) {
        return NULL;
    }

    msg = ngx_pcalloc(enc->pool, sizeof(ngx_http_ai_openai_msg_t));
    if (msg == NULL) {
        return NULL;
    }

    msg->choice = choice;
    msg->next = *last;
    *last = msg;

    return msg;
}


static ngx_http_ai_openai_tool_t *
ngx_http_ai_openai_gather_tool(ngx_http_ai_openai_msg_t *msg, ngx_uint_t index)
{
    ngx_http_ai_openai_tool_t  *tool;

    for (tool = msg->tools; tool; tool = tool->next) {
        if (tool->index == index) {
            return tool;
        }
    }

    return NULL;
}


static ngx_int_t
ngx_http_ai_openai_gather_add(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_out_t *out, ngx_str_t *text)
{
    ngx_http_ai_openai_enc_t  *ctx;

    ctx = enc->ctx;

    if (ctx->size + text->len > NGX_HTTP_AI_OPENAI_MAX_ANSWER) {
        return NGX_ERROR;
    }

    ctx->size += text->len;

    if (out->pool == NULL
        && ngx_http_ai_out_init(out, enc->pool,
                                ngx_http_ai_max(text->len, 256))
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_http_ai_out_str(out, text);

    return out->failed ? NGX_ERROR : NGX_OK;
}


static ngx_int_t
ngx_http_ai_openai_gather_item(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_out_t *out, ngx_str_t *text, ngx_uint_t quote)
{
    ngx_int_t  rc;
    ngx_str_t  s;

    if (out->last != out->start) {
        ngx_str_set(&s, ",");

        if (ngx_http_ai_openai_gather_add(enc, out, &s) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    ngx_str_set(&s, "\"");

    if (quote && ngx_http_ai_openai_gather_add(enc, out, &s) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_http_ai_openai_gather_add(enc, out, text);

    if (rc != NGX_OK || !quote) {
        return rc;
    }

    return ngx_http_ai_openai_gather_add(enc, out, &s);
}


static ngx_int_t
ngx_http_ai_openai_copy(ngx_pool_t *pool, ngx_str_t *dst, ngx_str_t *src)
{
    if (src->len == 0) {
        dst->len = 0;
        return NGX_OK;
    }

    dst->data = ngx_pstrdup(pool, src);
    if (dst->data == NULL) {
        return NGX_ERROR;
    }

    dst->len = src->len;

    return NGX_OK;
}


static void
ngx_http_ai_openai_body(ngx_http_ai_encoder_t *enc)
{
    ngx_http_ai_out_t         *out;
    ngx_http_ai_openai_enc_t  *ctx;
    ngx_http_ai_openai_msg_t  *msg;

    ctx = enc->ctx;
    out = enc->out;

    ngx_http_ai_out_lit(out, "{\"id\":\"");
    ngx_http_ai_out_str(out, &ctx->id);

    if (enc->op == NGX_HTTP_AI_OP_COMPLETIONS) {
        ngx_http_ai_out_lit(out, "\",\"object\":\"text_completion");

    } else {
        ngx_http_ai_out_lit(out, "\",\"object\":\"chat.completion");
    }

    ngx_http_ai_out_lit(out, "\",\"created\":");
    ngx_http_ai_out_int(out, ctx->created);
    ngx_http_ai_out_lit(out, ",\"model\":\"");
    ngx_http_ai_out_str(out, &ctx->model);
    ngx_http_ai_out_lit(out, "\",\"choices\":[");

    if (ctx->msgs == NULL
        && ngx_http_ai_openai_gather_choice(enc, 0) == NULL)
    {
        out->failed = 1;
        return;
    }

    for (msg = ctx->msgs; msg; msg = msg->next) {

        if (msg != ctx->msgs) {
            ngx_http_ai_out_lit(out, ",");
        }

        ngx_http_ai_openai_body_choice(enc, msg);
    }

    ngx_http_ai_out_lit(out, "]");

    if (ngx_http_ai_usage_input(&ctx->usage) >= 0 || ctx->usage.out >= 0) {
        ngx_http_ai_out_lit(out, ",\"usage\":");
        ngx_http_ai_openai_out_usage(out, &ctx->usage);
    }

    if (ctx->tier.len) {
        ngx_http_ai_out_lit(out, ",\"service_tier\":\"");
        ngx_http_ai_out_str(out, &ctx->tier);
        ngx_http_ai_out_lit(out, "\"");
    }

    ngx_http_ai_out_lit(out, "}");
}


static void
ngx_http_ai_openai_body_choice(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_openai_msg_t *msg)
{
    ngx_http_ai_out_t          *out;
    ngx_http_ai_openai_tool_t  *tool;

    out = enc->out;

    ngx_http_ai_out_lit(out, "{\"index\":");
    ngx_http_ai_out_int(out, msg->choice);

    if (enc->op == NGX_HTTP_AI_OP_COMPLETIONS) {
        ngx_http_ai_out_lit(out, ",\"text\":\"");
        ngx_http_ai_out_mem(out, msg->content.start,
                            msg->content.last - msg->content.start);
        ngx_http_ai_out_lit(out, "\"");

        goto finish;
    }

    ngx_http_ai_out_lit(out, ",\"message\":{\"role\":\"assistant\"");
    ngx_http_ai_openai_body_text(out, "content", &msg->content);
    ngx_http_ai_openai_body_text(out, "refusal", &msg->refusal);

    if (msg->reasoning.last != msg->reasoning.start) {
        ngx_http_ai_openai_body_text(out, "reasoning_content",
                                     &msg->reasoning);
    }

    if (msg->signature.last != msg->signature.start) {
        ngx_http_ai_openai_body_text(out, "reasoning_signature",
                                     &msg->signature);
    }

    if (msg->redacted.last != msg->redacted.start) {
        ngx_http_ai_out_lit(out, ",\"reasoning_redacted\":[");
        ngx_http_ai_out_mem(out, msg->redacted.start,
                            msg->redacted.last - msg->redacted.start);
        ngx_http_ai_out_lit(out, "]");
    }

    if (msg->annotations.last != msg->annotations.start) {
        ngx_http_ai_out_lit(out, ",\"annotations\":[");
        ngx_http_ai_out_mem(out, msg->annotations.start,
                            msg->annotations.last - msg->annotations.start);
        ngx_http_ai_out_lit(out, "]");
    }

    if (msg->tools) {
        ngx_http_ai_out_lit(out, ",\"tool_calls\":[");

        for (tool = msg->tools; tool; tool = tool->next) {

            if (tool != msg->tools) {
                ngx_http_ai_out_lit(out, ",");
            }

            ngx_http_ai_out_lit(out, "{\"id\":\"");
            ngx_http_ai_openai_out_call_id(enc, &tool->id, msg->choice,
                                           tool->index);
            ngx_http_ai_out_lit(out, "\",\"type\":\"function\",\"function\":"
                                     "{\"name\":\"");
            ngx_http_ai_out_str(out, &tool->name);
            ngx_http_ai_out_lit(out, "\",\"arguments\":\"");

            if (tool->args.last == tool->args.start) {
                ngx_http_ai_out_lit(out, "{}");

            } else {
                ngx_http_ai_out_mem(out, tool->args.start,
                                    tool->args.last - tool->args.start);
            }

            ngx_http_ai_out_lit(out, "\"}}");
        }

        ngx_http_ai_out_lit(out, "]");
    }

    ngx_http_ai_out_lit(out, "}");

finish:

    ngx_http_ai_out_lit(out, ",\"logprobs\":null,\"finish_reason\":");
    ngx_http_ai_openai_out_finish(out, msg->finish
                                       ? msg->finish
                                       : NGX_HTTP_AI_FINISH_UNKNOWN,
                                  &msg->stop);
    ngx_http_ai_out_lit(out, "}");
}


static void
ngx_http_ai_openai_body_text(ngx_http_ai_out_t *out, const char *name,
    ngx_http_ai_out_t *text)
{
    ngx_http_ai_out_lit(out, ",\"");
    ngx_http_ai_out_mem(out, name, ngx_strlen(name));

    if (text->last == text->start) {
        ngx_http_ai_out_lit(out, "\":null");
        return;
    }

    ngx_http_ai_out_lit(out, "\":\"");
    ngx_http_ai_out_mem(out, text->start, text->last - text->start);
    ngx_http_ai_out_lit(out, "\"");
}


static void
ngx_http_ai_openai_out_usage(ngx_http_ai_out_t *out, ngx_http_ai_usage_t *u)
{
    int64_t  in, reply;

    in = ngx_http_ai_max(ngx_http_ai_usage_input(u), 0);
    reply = ngx_http_ai_max(u->out, 0);

    ngx_http_ai_out_lit(out, "{\"prompt_tokens\":");
    ngx_http_ai_out_int(out, in);
    ngx_http_ai_out_lit(out, ",\"completion_tokens\":");
    ngx_http_ai_out_int(out, reply);
    ngx_http_ai_out_lit(out, ",\"total_tokens\":");
    ngx_http_ai_out_int(out, in + reply);

    ngx_http_ai_out_lit(out, ",\"prompt_tokens_details\":"
                             "{\"cached_tokens\":");
    ngx_http_ai_out_int(out, ngx_http_ai_max(u->cache_read, 0));

    if (u->cache_write >= 0) {
        ngx_http_ai_out_lit(out, ",\"cache_write_tokens\":");
        ngx_http_ai_out_int(out, u->cache_write);
    }

    if (u->audio_in >= 0) {
        ngx_http_ai_out_lit(out, ",\"audio_tokens\":");
        ngx_http_ai_out_int(out, u->audio_in);
    }

    ngx_http_ai_out_lit(out, "},\"completion_tokens_details\":"
                             "{\"reasoning_tokens\":");
    ngx_http_ai_out_int(out, ngx_http_ai_max(u->reasoning, 0));

    if (u->audio_out >= 0) {
        ngx_http_ai_out_lit(out, ",\"audio_tokens\":");
        ngx_http_ai_out_int(out, u->audio_out);
    }

    ngx_http_ai_out_lit(out, "}");

    if (u->cost >= 0) {
        ngx_http_ai_out_lit(out, ",\"cost\":");
        ngx_http_ai_out_dollars(out, u->cost);
    }

    ngx_http_ai_out_lit(out, "}");
}


static void
ngx_http_ai_openai_out_call_id(ngx_http_ai_encoder_t *enc, ngx_str_t *id,
    ngx_uint_t choice, ngx_uint_t index)
{
    if (id->len) {
        ngx_http_ai_out_str(enc->out, id);
        return;
    }

    ngx_http_ai_out_lit(enc->out, "call_");
    ngx_http_ai_out_escaped(enc->out, enc->id.data, enc->id.len);
    ngx_http_ai_out_lit(enc->out, "_");

    if (choice) {
        ngx_http_ai_out_int(enc->out, choice);
        ngx_http_ai_out_lit(enc->out, "_");
    }

    ngx_http_ai_out_int(enc->out, index);
}


/* the value, and what the dialect's few reasons do not tell: the sequence as
 * vLLM has it, the rest as OpenRouter has it */

static void
ngx_http_ai_openai_out_finish(ngx_http_ai_out_t *out,
    ngx_http_ai_finish_e finish, ngx_str_t *stop)
{
    switch (finish) {

    case NGX_HTTP_AI_FINISH_NONE:
        ngx_http_ai_out_lit(out, "null");
        break;

    case NGX_HTTP_AI_FINISH_LENGTH:
    case NGX_HTTP_AI_FINISH_CONTEXT:
        ngx_http_ai_out_lit(out, "\"length\"");
        break;

    case NGX_HTTP_AI_FINISH_TOOL:
        ngx_http_ai_out_lit(out, "\"tool_calls\"");
        break;

    case NGX_HTTP_AI_FINISH_FILTER:
    case NGX_HTTP_AI_FINISH_REFUSAL:
        ngx_http_ai_out_lit(out, "\"content_filter\"");
        break;

    case NGX_HTTP_AI_FINISH_PAUSE:
        ngx_http_ai_out_lit(out, "\"stop\",\"native_finish_reason\":"
                                 "\"pause_turn\"");
        break;

    case NGX_HTTP_AI_FINISH_ERROR:
        ngx_http_ai_out_lit(out, "\"stop\",\"native_finish_reason\":"
                                 "\"error\"");
        break;

    case NGX_HTTP_AI_FINISH_STOP_SEQUENCE:
        ngx_http_ai_out_lit(out, "\"stop\"");

        if (stop && stop->len) {
            ngx_http_ai_out_lit(out, ",\"stop_reason\":\"");
            ngx_http_ai_out_str(out, stop);
            ngx_http_ai_out_lit(out, "\"");
        }

        break;

    default:
        ngx_http_ai_out_lit(out, "\"stop\"");
    }
}
