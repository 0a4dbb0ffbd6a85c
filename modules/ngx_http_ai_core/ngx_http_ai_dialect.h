
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * A dialect is a codec between one wire format and the pivot: plain C, no
 * nginx request types.  To add one: write ngx_http_ai_dialect_<name>.c, define
 * its ngx_http_ai_dialect_t, and add it to the table in ngx_http_ai_dialect.c.
 */


#ifndef _NGX_HTTP_AI_DIALECT_H_INCLUDED_
#define _NGX_HTTP_AI_DIALECT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_compat.h"
#include "ngx_http_ai_json.h"
#include "ngx_http_ai_sse.h"
#include "ngx_http_ai_pivot.h"


/* what a target can do; from its vendor, model and configuration */

typedef struct {
    ngx_str_t                  model;         /* plain: name sent upstream */
    ngx_str_t                  vendor;        /* plain: "openai", "azure",
                                                 "anthropic", "deepseek",
                                                 ... or the dialect's name */
    ngx_uint_t                 max_output;    /* default of "max_tokens" where
                                                 the dialect demands one;
                                                 0: the dialect's own table */
} ngx_http_ai_target_info_t;


/*
 * Refusal of a request by a codec: what the client gets as a 400.  "param" is
 * the path of the member at fault in the client's dialect.
 */

typedef struct {
    ngx_pool_t                *pool;
    ngx_http_ai_error_t        error;         /* set with NGX_DECLINED */
} ngx_http_ai_codec_t;

/* sets codec->error to INVALID_REQUEST with a printf-style (ngx_sprintf)
 * message, returns NGX_DECLINED (NGX_ERROR when out of memory) */
ngx_int_t ngx_http_ai_codec_refuse(ngx_http_ai_codec_t *codec,
    const char *param, const char *fmt, ...);

/* the same as "path: what", with the value at fault when there is one; path
 * may be empty */
ngx_int_t ngx_http_ai_codec_refuse_at(ngx_http_ai_codec_t *codec,
    const char *path, const char *what, ngx_str_t *value);


/*
 * State of decoding one answer of a provider.  The dialect keeps its own part
 * in "ctx" (allocated from pool in decode_init, bounded, not per event).
 * "json" is scratch for the dialect: its nodes are reused by all events.  The
 * caller may set a table of its own (nodes, nalloc), zeroed otherwise, which
 * decoders that never run at the same time may share.
 */

typedef struct {
    ngx_pool_t                *pool;
    ngx_http_ai_op_e           op;
    ngx_http_ai_sink_t         sink;
    ngx_http_ai_json_t         json;
    void                      *ctx;
    ngx_http_ai_error_t        error;     /* for EV_ERROR, NGX_DECLINED */
    unsigned                   usage_only:1;  /* set by decode_event: the event
                                                 just decoded held usage and
                                                 nothing else (OpenAI's chunk
                                                 for include_usage) */
    unsigned                   done:1;        /* terminal event was decoded */
} ngx_http_ai_decoder_t;


/*
 * State of encoding one answer for a client.  Fields up to "private" are set
 * by the caller before encode_init.
 */

typedef struct {
    ngx_pool_t                *pool;
    ngx_http_ai_op_e           op;
    ngx_http_ai_out_t         *out;
    ngx_str_t                  model;     /* plain: shown when the provider
                                             names none */
    ngx_str_t                  id;        /* plain: used when the provider
                                             gives none; bare, the dialect adds
                                             its prefix ("chatcmpl-",
                                             "msg_") */
    time_t                     now;
    unsigned                   stream:1;
    unsigned                   include_usage:1;   /* the client asked for it */
    int64_t                    input_estimate;    /* for message_start; 0 */

    /* private */
    void                      *ctx;
} ngx_http_ai_encoder_t;


typedef struct ngx_http_ai_dialect_s  ngx_http_ai_dialect_t;


struct ngx_http_ai_dialect_s {
    ngx_str_t                  name;

    /* --- the client's side --- */

    /*
     * Chat request body (parsed by j, whole tree) to the pivot.  Every member
     * is mapped, deliberately dropped (docs/dialects/), or refused:
     * NGX_DECLINED with codec->error.  Slices point into the body.
     */
    ngx_int_t  (*decode_request)(ngx_http_ai_codec_t *codec,
                   ngx_http_ai_json_t *j, ngx_http_ai_request_t *req);

    /*
     * Answer events to bytes in enc->out.  Streaming: complete SSE events as
     * they come.  Not streaming: nothing until END, then the body.
     * encode_event is given a whole answer's events in order, EV_END last.
     * EV_ERROR writes the dialect's in-stream error event (streaming only).
     * USAGE may come before or after FINISH; what must wait for it waits for
     * END.
     * NGX_OK or NGX_ERROR.
     */
    ngx_int_t  (*encode_init)(ngx_http_ai_encoder_t *enc);
    ngx_int_t  (*encode_event)(ngx_http_ai_encoder_t *enc,
                   ngx_http_ai_event_t *ev);

    /* error body in this dialect; err->class decides type and code, err->type
     * and err->code are kept where err->status < 500 and they are set and the
     * error came from the same dialect (same != 0) */
    void       (*encode_error)(ngx_http_ai_out_t *out,
                   ngx_http_ai_error_t *err, ngx_uint_t same);

    /* error event in a stream, with what ends a stream after it if anything */
    void       (*encode_stream_error)(ngx_http_ai_out_t *out,
                   ngx_http_ai_error_t *err);

    /* models list and single model; names are plain, created in seconds;
     * one != 0: the single object of names[0] */
    void       (*encode_models)(ngx_http_ai_out_t *out, ngx_str_t *names,
                   ngx_uint_t n, time_t created, ngx_uint_t one);

    /* --- the provider's side --- */

    /* pivot to a chat request body; NGX_DECLINED with codec->error for what
     * this dialect cannot express (docs/dialects/ says what is dropped) */
    ngx_int_t  (*encode_request)(ngx_http_ai_codec_t *codec,
                   ngx_http_ai_request_t *req,
                   ngx_http_ai_target_info_t *target, ngx_http_ai_out_t *out);

    /*
     * Provider's answer to events.  decode_body: a whole unstreamed JSON body
     * of the operation in dec->op (chat; for completions, embeddings and
     * count_tokens only START, TEXT, USAGE, FINISH, END as they apply).
     * decode_event: one server-sent event with data.  Both return NGX_OK;
     * the sink's value when it stopped; NGX_DECLINED for data that is not an
     * answer in the dialect (dec->error says what; a stream may skip the
     * event and go on); NGX_ERROR for no memory.  An error inside (HTTP 200
     * with an error body or event) gives EV_ERROR and returns NGX_OK.
     * decode_finish: end of a stream at EOF; emits END if the answer is
     * complete by the dialect's rules though its terminal event is missing
     * (OpenAI: finish_reason was seen), else returns NGX_DECLINED.
     */
    ngx_int_t  (*decode_init)(ngx_http_ai_decoder_t *dec);
    ngx_int_t  (*decode_body)(ngx_http_ai_decoder_t *dec, u_char *data,
                   size_t len);
    ngx_int_t  (*decode_event)(ngx_http_ai_decoder_t *dec, ngx_str_t *name,
                   ngx_str_t *data);
    ngx_int_t  (*decode_finish)(ngx_http_ai_decoder_t *dec);

    /* what completes a relayed stream whose terminal event is missing
     * ("data: [DONE]\n\n"); empty when nothing can be added */
    ngx_str_t                  terminal;

    /* path below the endpoint for an operation; empty: not supported */
    ngx_str_t                  paths[NGX_HTTP_AI_OP_MAX];
};


/* a dialect by name; NULL when unknown */
ngx_http_ai_dialect_t *ngx_http_ai_dialect_find(ngx_str_t *name);

extern ngx_http_ai_dialect_t  *ngx_http_ai_dialects[];    /* NULL-terminated */

extern ngx_http_ai_dialect_t   ngx_http_ai_dialect_openai;
extern ngx_http_ai_dialect_t   ngx_http_ai_dialect_anthropic;


#endif /* _NGX_HTTP_AI_DIALECT_H_INCLUDED_ */
