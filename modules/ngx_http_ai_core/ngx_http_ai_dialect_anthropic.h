
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * What the files of the Anthropic dialect share: _anthropic.c has the table,
 * the errors, the models and the client's request, with its messages in
 * _anthropic_message.c; _anthropic_request.c the request to a provider, with
 * its messages in _anthropic_content.c and its schemas in
 * _anthropic_schema.c; _anthropic_answer.c a provider's answer and
 * _anthropic_reply.c the answer to a client.
 */


#ifndef _NGX_HTTP_AI_DIALECT_ANTHROPIC_H_INCLUDED_
#define _NGX_HTTP_AI_DIALECT_ANTHROPIC_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_dialect.h"


/* as ngx_http_ai_json_key_is(), without a call for the usual key */

#define ngx_http_ai_anthropic_key_is(j, i, literal)                           \
    ((j)->nodes[i].escaped                                                    \
     ? ngx_http_ai_json_key_is(j, i, literal)                                 \
     : ((j)->nodes[i].len == sizeof(literal) - 1                              \
        && ngx_memcmp((j)->nodes[i].start, literal, sizeof(literal) - 1)      \
           == 0))


/* state of reading a client's request */

typedef struct {
    ngx_http_ai_codec_t       *codec;
    ngx_http_ai_json_t        *json;
    ngx_http_ai_request_t     *req;

    ngx_http_ai_turn_t       **turn;      /* where the next one goes */

    /* the place that is being read, for messages */
    const char                *list;
    ngx_uint_t                 index;
    ngx_uint_t                 block;
    ngx_uint_t                 inner;
    unsigned                   in_block:1;
    unsigned                   in_inner:1;
} ngx_http_ai_anthropic_req_t;


/* what a model can do, told by its name */

typedef struct {
    int64_t                    max_output;
    unsigned                   known:1;
    unsigned                   thinking:1;    /* has it at all */
    unsigned                   adaptive:1;    /* and decides how much */
    unsigned                   fixed:1;       /* refuses sampling parameters,
                                                 takes system messages */
    unsigned                   one:1;         /* not temperature and top_p */
    unsigned                   structured:1;  /* output_config.format, strict
                                                 tools */
    unsigned                   forced:1;      /* not without thinking when the
                                                 effort is above high */
} ngx_http_ai_anthropic_model_t;


/* state of writing a request */

typedef struct {
    ngx_http_ai_codec_t            *codec;
    ngx_http_ai_request_t          *req;
    ngx_http_ai_target_info_t      *target;
    ngx_http_ai_out_t              *out;
    ngx_http_ai_json_t              json;
    ngx_http_ai_anthropic_model_t   model;

    ngx_http_ai_turn_t             *first;    /* behind the leading system */
    ngx_http_ai_part_t             *trim;     /* ends a prefill */
    ngx_uint_t                      turn;     /* that is written, its number */

    const char                     *role;     /* of the open message */
    ngx_uint_t                      messages;
    ngx_uint_t                      marks;

    int64_t                         max_tokens;
    int64_t                         budget;
    const char                     *thinking;
    const char                     *effort;

    unsigned                        native:1;     /* output_config.format */
} ngx_http_ai_anthropic_write_t;


ngx_int_t ngx_http_ai_anthropic_bad(ngx_http_ai_anthropic_req_t *r,
    const char *name, const char *what, ngx_str_t *value);
ngx_int_t ngx_http_ai_anthropic_string(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n, const char *name, ngx_uint_t required, ngx_str_t *value);
ngx_int_t ngx_http_ai_anthropic_word(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n, const char *name, ngx_str_t *value);
void ngx_http_ai_anthropic_mark(ngx_http_ai_json_t *j, ngx_uint_t n,
    unsigned *cached, ngx_str_t *cache);

ngx_int_t ngx_http_ai_anthropic_system(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n);
ngx_int_t ngx_http_ai_anthropic_messages(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n);

ngx_int_t ngx_http_ai_anthropic_out_messages(
    ngx_http_ai_anthropic_write_t *w);
void ngx_http_ai_anthropic_out_text(ngx_http_ai_anthropic_write_t *w,
    ngx_str_t *text, ngx_http_ai_part_t *part);
void ngx_http_ai_anthropic_out_mark(ngx_http_ai_anthropic_write_t *w,
    ngx_uint_t cached, ngx_str_t *cache);
void ngx_http_ai_anthropic_out_open(ngx_http_ai_anthropic_write_t *w,
    const char *role);
ngx_uint_t ngx_http_ai_anthropic_blank(ngx_str_t *raw);
ngx_int_t ngx_http_ai_anthropic_parse(ngx_http_ai_anthropic_write_t *w,
    ngx_str_t *text);

ngx_int_t ngx_http_ai_anthropic_schema_closed(
    ngx_http_ai_anthropic_write_t *w, ngx_str_t *schema);
ngx_int_t ngx_http_ai_anthropic_out_closed(ngx_http_ai_anthropic_write_t *w,
    ngx_str_t *schema);

ngx_int_t ngx_http_ai_anthropic_encode_request(ngx_http_ai_codec_t *codec,
    ngx_http_ai_request_t *req, ngx_http_ai_target_info_t *target,
    ngx_http_ai_out_t *out);

void ngx_http_ai_anthropic_encode_error(ngx_http_ai_out_t *out,
    ngx_http_ai_error_t *err, ngx_uint_t same);
void ngx_http_ai_anthropic_encode_stream_error(ngx_http_ai_out_t *out,
    ngx_http_ai_error_t *err);

ngx_int_t ngx_http_ai_anthropic_encode_init(ngx_http_ai_encoder_t *enc);
ngx_int_t ngx_http_ai_anthropic_encode_event(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_event_t *ev);

ngx_int_t ngx_http_ai_anthropic_decode_init(ngx_http_ai_decoder_t *dec);
ngx_int_t ngx_http_ai_anthropic_decode_body(ngx_http_ai_decoder_t *dec,
    u_char *data, size_t len);
ngx_int_t ngx_http_ai_anthropic_decode_event(ngx_http_ai_decoder_t *dec,
    ngx_str_t *name, ngx_str_t *data);
ngx_int_t ngx_http_ai_anthropic_decode_finish(ngx_http_ai_decoder_t *dec);


#endif /* _NGX_HTTP_AI_DIALECT_ANTHROPIC_H_INCLUDED_ */
