
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * What the files of the OpenAI dialect share: _openai.c has the table, the
 * errors, the models and the client's request, with its messages and tools in
 * _openai_message.c and _openai_tool.c; _openai_request.c the request to a
 * provider; _openai_answer.c a provider's answer, with its tool calls and
 * usage in _openai_call.c and _openai_usage.c; _openai_reply.c the answer to a
 * client.
 */


#ifndef _NGX_HTTP_AI_DIALECT_OPENAI_H_INCLUDED_
#define _NGX_HTTP_AI_DIALECT_OPENAI_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_dialect.h"


/* as ngx_http_ai_json_key_is(), without a call for the usual key */

#define ngx_http_ai_openai_key_is(j, i, literal)                              \
    ((j)->nodes[i].escaped                                                    \
     ? ngx_http_ai_json_key_is(j, i, literal)                                 \
     : ((j)->nodes[i].len == sizeof(literal) - 1                              \
        && ngx_memcmp((j)->nodes[i].start, literal, sizeof(literal) - 1)      \
           == 0))


#define NGX_HTTP_AI_OPENAI_HASH  0xcbf29ce484222325ull

/* FNV-1a; not for secrets: makes ids that must be the same each time */

static ngx_inline uint64_t
ngx_http_ai_openai_hash(u_char *p, size_t len, uint64_t hash)
{
    size_t  i;

    for (i = 0; i < len; i++) {
        hash = (hash ^ p[i]) * 0x100000001b3ull;
    }

    return hash;
}


/* state of reading a client's request */

typedef struct {
    ngx_http_ai_codec_t       *codec;
    ngx_http_ai_json_t        *json;
    ngx_http_ai_request_t     *req;

    ngx_http_ai_turn_t       **turn;      /* where the next one goes */
    ngx_http_ai_tool_t       **tool;

    /* members that are read when all of them are known */
    ngx_uint_t                 messages;
    ngx_uint_t                 tools;
    ngx_uint_t                 tool_choice;
    ngx_uint_t                 functions;
    ngx_uint_t                 function_call;
    ngx_uint_t                 stop;
    ngx_uint_t                 response_format;
    ngx_uint_t                 stream_options;
    ngx_uint_t                 max_tokens;
    ngx_uint_t                 max_completion_tokens;
    ngx_uint_t                 user;
    ngx_uint_t                 safety_identifier;
    ngx_uint_t                 reasoning;

    /* the place that is being read, for messages */
    const char                *list;
    ngx_uint_t                 index;
    const char                *sublist;
    ngx_uint_t                 subindex;

    ngx_str_t                  function_id;   /* of the deprecated call that
                                                 waits for its result */
} ngx_http_ai_openai_req_t;


ngx_int_t ngx_http_ai_openai_bad(ngx_http_ai_openai_req_t *r,
    const char *name, const char *what, ngx_str_t *value);
ngx_int_t ngx_http_ai_openai_string(ngx_http_ai_openai_req_t *r,
    ngx_uint_t n, const char *name, ngx_str_t *value);
ngx_int_t ngx_http_ai_openai_messages(ngx_http_ai_openai_req_t *r);
void ngx_http_ai_openai_mark(ngx_http_ai_openai_req_t *r, ngx_uint_t n,
    unsigned *cached, ngx_str_t *cache);
ngx_int_t ngx_http_ai_openai_tools(ngx_http_ai_openai_req_t *r);
ngx_int_t ngx_http_ai_openai_tool_choice(ngx_http_ai_openai_req_t *r);

void ngx_http_ai_openai_out_hex(ngx_http_ai_out_t *out, uint64_t n);

ngx_int_t ngx_http_ai_openai_encode_request(ngx_http_ai_codec_t *codec,
    ngx_http_ai_request_t *req, ngx_http_ai_target_info_t *target,
    ngx_http_ai_out_t *out);

void ngx_http_ai_openai_encode_error(ngx_http_ai_out_t *out,
    ngx_http_ai_error_t *err, ngx_uint_t same);
void ngx_http_ai_openai_encode_stream_error(ngx_http_ai_out_t *out,
    ngx_http_ai_error_t *err);

ngx_int_t ngx_http_ai_openai_encode_init(ngx_http_ai_encoder_t *enc);
ngx_int_t ngx_http_ai_openai_encode_event(ngx_http_ai_encoder_t *enc,
    ngx_http_ai_event_t *ev);

ngx_int_t ngx_http_ai_openai_decode_init(ngx_http_ai_decoder_t *dec);
ngx_int_t ngx_http_ai_openai_decode_body(ngx_http_ai_decoder_t *dec,
    u_char *data, size_t len);
ngx_int_t ngx_http_ai_openai_decode_event(ngx_http_ai_decoder_t *dec,
    ngx_str_t *name, ngx_str_t *data);
ngx_int_t ngx_http_ai_openai_decode_finish(ngx_http_ai_decoder_t *dec);


#define NGX_HTTP_AI_OPENAI_MAX_NODES  65536   /* of any chunk */


/* one tool call of a stream */

typedef struct {
    ngx_uint_t                 choice;
    ngx_int_t                  wire;      /* index as the provider counts */
    ngx_uint_t                 index;     /* from 0 in the choice */
    uint64_t                   hash;      /* of the id; 0: none yet */

    /* kept until both are known */
    ngx_str_t                  id;
    ngx_str_t                  name;
    ngx_http_ai_out_t          held;

    /* of the arguments' text */
    ngx_uint_t                 depth;
    unsigned                   quoted:1;
    unsigned                   escape:1;
    unsigned                   complete:1;    /* its brackets are closed */
    unsigned                   text:1;        /* some was sent on */

    unsigned                   named:1;
    unsigned                   started:1;
    unsigned                   ended:1;
} ngx_http_ai_openai_call_t;


/* state of decoding an answer */

typedef struct {
    ngx_http_ai_openai_call_t *calls;
    ngx_uint_t                 ncalls;
    ngx_uint_t                 ncalls_alloc;

    /* by choice, the last bit for all above */
    uint64_t                   seen;
    uint64_t                   finished;
    uint64_t                   called;

    uint64_t                   id_hash;
    ngx_http_ai_usage_t        usage;
    ngx_http_ai_out_t          scratch;

    unsigned                   started:1;
    unsigned                   failed:1;
    unsigned                   metered:1;
} ngx_http_ai_openai_dec_t;


#define ngx_http_ai_openai_bit(choice)  (1ull << ngx_http_ai_min(choice, 63))


ngx_int_t ngx_http_ai_openai_declined(ngx_http_ai_decoder_t *dec,
    const char *message);
ngx_int_t ngx_http_ai_openai_call(ngx_http_ai_decoder_t *dec,
    ngx_uint_t n, ngx_uint_t choice, ngx_int_t legacy, ngx_uint_t whole);
ngx_int_t ngx_http_ai_openai_call_end(ngx_http_ai_decoder_t *dec,
    ngx_http_ai_openai_call_t *call);
ngx_int_t ngx_http_ai_openai_calls_end(ngx_http_ai_decoder_t *dec,
    ngx_uint_t choice, ngx_uint_t complete);
ngx_int_t ngx_http_ai_openai_usage(ngx_http_ai_decoder_t *dec,
    ngx_http_ai_json_t *j, ngx_uint_t n, ngx_str_t *tier);
ngx_int_t ngx_http_ai_openai_timings(ngx_http_ai_decoder_t *dec,
    ngx_uint_t n);
ngx_int_t ngx_http_ai_openai_embeddings(ngx_http_ai_decoder_t *dec);


#endif /* _NGX_HTTP_AI_DIALECT_OPENAI_H_INCLUDED_ */
