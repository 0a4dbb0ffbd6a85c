
/*
 * Copyright (C) nginx AI gateway authors
 */


/* private to the writer of requests: messages and options */


#ifndef _NGX_HTTP_AI_DIALECT_OPENAI_REQUEST_H_INCLUDED_
#define _NGX_HTTP_AI_DIALECT_OPENAI_REQUEST_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_dialect.h"


/* what a vendor takes */

#define NGX_HTTP_AI_OPENAI_COMPLETION    0x0001  /* max_completion_tokens */
#define NGX_HTTP_AI_OPENAI_DEVELOPER     0x0002  /* the role */
#define NGX_HTTP_AI_OPENAI_ARRAYS        0x0004  /* content of any role */
#define NGX_HTTP_AI_OPENAI_NAMES         0x0008  /* messages[].name */
#define NGX_HTTP_AI_OPENAI_CUSTOM        0x0010  /* custom tool calls */
#define NGX_HTTP_AI_OPENAI_REFUSALS      0x0020  /* in the assistant's turn */
#define NGX_HTTP_AI_OPENAI_SAFETY        0x0040  /* safety_identifier */
#define NGX_HTTP_AI_OPENAI_USER          0x0080
#define NGX_HTTP_AI_OPENAI_TIER          0x0100  /* service_tier */
#define NGX_HTTP_AI_OPENAI_USAGE         0x0200  /* stream_options */
#define NGX_HTTP_AI_OPENAI_TOP_K         0x0400
#define NGX_HTTP_AI_OPENAI_THOUGHTS      0x0800  /* reasoning_content */
#define NGX_HTTP_AI_OPENAI_DETAILS       0x1000  /* reasoning_details */
#define NGX_HTTP_AI_OPENAI_CACHE         0x2000  /* cache_control */
#define NGX_HTTP_AI_OPENAI_THINKING      0x4000  /* thinking.type */
#define NGX_HTTP_AI_OPENAI_ONE_TOOL      0x8000  /* no named tool_choice */
#define NGX_HTTP_AI_OPENAI_MISTRAL       0x10000 /* random_seed, ids, ... */
#define NGX_HTTP_AI_OPENAI_FILE_URL      0x20000


typedef struct {
    ngx_http_ai_codec_t       *codec;
    ngx_http_ai_request_t     *req;
    ngx_http_ai_out_t         *out;
    ngx_uint_t                 flags;
    ngx_uint_t                 messages;  /* written so far */
    ngx_http_ai_turn_t        *assistant; /* the last one */
} ngx_http_ai_openai_wr_t;


/* a cache mark, where the vendor takes it */
void ngx_http_ai_openai_wr_mark(ngx_http_ai_openai_wr_t *w,
    unsigned cached, ngx_str_t *cache);

/* all of the body but its messages */

void ngx_http_ai_openai_wr_tools(ngx_http_ai_openai_wr_t *w);
void ngx_http_ai_openai_wr_choice(ngx_http_ai_openai_wr_t *w);
void ngx_http_ai_openai_wr_sampling(ngx_http_ai_openai_wr_t *w);
void ngx_http_ai_openai_wr_format(ngx_http_ai_openai_wr_t *w);
void ngx_http_ai_openai_wr_effort(ngx_http_ai_openai_wr_t *w,
    const char **efforts);
void ngx_http_ai_openai_wr_user_id(ngx_http_ai_openai_wr_t *w);
void ngx_http_ai_openai_wr_tier(ngx_http_ai_openai_wr_t *w);


#endif /* _NGX_HTTP_AI_DIALECT_OPENAI_REQUEST_H_INCLUDED_ */
