
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The pivot: the canonical request, the canonical events of an answer, the
 * canonical usage and the canonical error.  Every dialect maps to and from
 * it and knows no other dialect.
 *
 * All texts are raw JSON string bytes (escapes as they came, no quotes) unless
 * marked "json" (a complete JSON value) or "plain" (unescaped bytes).  An
 * ngx_str_t with data == NULL means absent; len == 0 with data != NULL means
 * present and empty.
 */


#ifndef _NGX_HTTP_AI_PIVOT_H_INCLUDED_
#define _NGX_HTTP_AI_PIVOT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_compat.h"
#include "ngx_http_ai_json.h"


/* operations; also the OpenTelemetry gen_ai.operation.name they report */

typedef enum {
    NGX_HTTP_AI_OP_NONE = 0,
    NGX_HTTP_AI_OP_CHAT,            /* chat */
    NGX_HTTP_AI_OP_COMPLETIONS,     /* text_completion (legacy) */
    NGX_HTTP_AI_OP_EMBEDDINGS,      /* embeddings */
    NGX_HTTP_AI_OP_COUNT_TOKENS,    /* count_tokens */
    NGX_HTTP_AI_OP_MODELS,          /* list */
    NGX_HTTP_AI_OP_MODEL,           /* one of them */
    NGX_HTTP_AI_OP_PASS,            /* any other path of a provider */
    NGX_HTTP_AI_OP_MAX
} ngx_http_ai_op_e;


/* failure classes; wire.md section 21 */

typedef enum {
    NGX_HTTP_AI_ERR_NONE = 0,
    NGX_HTTP_AI_ERR_INVALID_REQUEST,
    NGX_HTTP_AI_ERR_CONTEXT_LENGTH,
    NGX_HTTP_AI_ERR_TOO_LARGE,
    NGX_HTTP_AI_ERR_CONTENT_FILTER,
    NGX_HTTP_AI_ERR_AUTH,             /* credentials refused */
    NGX_HTTP_AI_ERR_PERMISSION,
    NGX_HTTP_AI_ERR_BILLING,
    NGX_HTTP_AI_ERR_QUOTA,            /* plan or period exhausted */
    NGX_HTTP_AI_ERR_NOT_FOUND,
    NGX_HTTP_AI_ERR_RATE_LIMIT,
    NGX_HTTP_AI_ERR_OVERLOADED,
    NGX_HTTP_AI_ERR_TIMEOUT,
    NGX_HTTP_AI_ERR_SERVER,           /* 5xx, bad answer */
    NGX_HTTP_AI_ERR_INCOMPLETE,       /* ended without its terminal event */
    NGX_HTTP_AI_ERR_CONNECT,          /* refused, reset, TLS, DNS */
    NGX_HTTP_AI_ERR_INVALID_ANSWER,   /* not an answer in the dialect */
    NGX_HTTP_AI_ERR_SATURATED,        /* the gateway's own limit */
    NGX_HTTP_AI_ERR_METHOD,           /* 405, by the gateway only */
    NGX_HTTP_AI_ERR_MEDIA_TYPE,       /* 415, by the gateway only */
    NGX_HTTP_AI_ERR_INTERNAL,         /* 500, by the gateway only */
    NGX_HTTP_AI_ERR_MAX
} ngx_http_ai_err_e;


typedef struct {
    ngx_http_ai_err_e          class;
    ngx_uint_t                 status;    /* HTTP status of the provider's
                                             reply, or the one to send */
    ngx_str_t                  message;   /* plain */
    ngx_str_t                  type;      /* plain; the provider's own */
    ngx_str_t                  code;      /* plain; the provider's own */
    ngx_str_t                  param;     /* plain */
    ngx_str_t                  request_id;    /* plain; in its body */
    ngx_msec_t                 retry_after;   /* told in the body; 0: not */
} ngx_http_ai_error_t;


/*
 * Usage in tokens; -1 means not reported.  Non-overlapping on the input side:
 * in_fresh excludes cache reads and writes (wire.md section 2).  out is all
 * output with reasoning inside; reasoning is the part of it that is known to
 * be reasoning.
 */

typedef struct {
    int64_t                    in_fresh;
    int64_t                    cache_read;
    int64_t                    cache_write;       /* all ttls */
    int64_t                    cache_write_1h;    /* part of cache_write */
    int64_t                    out;
    int64_t                    reasoning;         /* part of out */
    int64_t                    audio_in;          /* part of in_fresh */
    int64_t                    audio_out;         /* part of out */
    int64_t                    cost;              /* nano-dollars, to be told
                                                     to the client */
    ngx_str_t                  service_tier;      /* raw text, may be absent */
} ngx_http_ai_usage_t;


/* how the figures of a request are known */

typedef enum {
    NGX_HTTP_AI_USAGE_NONE = 0,
    NGX_HTTP_AI_USAGE_PROVIDER,       /* the provider's figures */
    NGX_HTTP_AI_USAGE_COUNTED,        /* counted from what was relayed */
    NGX_HTTP_AI_USAGE_ESTIMATED       /* input figure only, or a cut answer */
} ngx_http_ai_usage_state_e;


/* where the answer came from */

typedef enum {
    NGX_HTTP_AI_CACHE_NONE = 0,       /* nobody has looked */
    NGX_HTTP_AI_CACHE_MISS,
    NGX_HTTP_AI_CACHE_BYPASS,         /* was not to be looked for */
    NGX_HTTP_AI_CACHE_EXPIRED,        /* there was one, too old */
    NGX_HTTP_AI_CACHE_HIT,
    NGX_HTTP_AI_CACHE_STALE,          /* too old, and better than nothing */
    NGX_HTTP_AI_CACHE_COALESCED       /* that of a request that was running */
} ngx_http_ai_cache_e;


typedef enum {
    NGX_HTTP_AI_FINISH_NONE = 0,
    NGX_HTTP_AI_FINISH_STOP,
    NGX_HTTP_AI_FINISH_STOP_SEQUENCE,     /* stop; the sequence is known */
    NGX_HTTP_AI_FINISH_LENGTH,
    NGX_HTTP_AI_FINISH_TOOL,
    NGX_HTTP_AI_FINISH_FILTER,
    NGX_HTTP_AI_FINISH_REFUSAL,
    NGX_HTTP_AI_FINISH_CONTEXT,
    NGX_HTTP_AI_FINISH_PAUSE,
    NGX_HTTP_AI_FINISH_ERROR,
    NGX_HTTP_AI_FINISH_UNKNOWN
} ngx_http_ai_finish_e;


/* the canonical request */

typedef enum {
    NGX_HTTP_AI_ROLE_SYSTEM = 0,
    NGX_HTTP_AI_ROLE_DEVELOPER,
    NGX_HTTP_AI_ROLE_USER,
    NGX_HTTP_AI_ROLE_ASSISTANT,
    NGX_HTTP_AI_ROLE_TOOL
} ngx_http_ai_role_e;


typedef enum {
    NGX_HTTP_AI_PART_TEXT = 0,
    NGX_HTTP_AI_PART_IMAGE,
    NGX_HTTP_AI_PART_AUDIO,
    NGX_HTTP_AI_PART_FILE,
    NGX_HTTP_AI_PART_TOOL_CALL,
    NGX_HTTP_AI_PART_TOOL_RESULT,
    NGX_HTTP_AI_PART_REASONING,
    NGX_HTTP_AI_PART_REDACTED,        /* opaque reasoning */
    NGX_HTTP_AI_PART_REFUSAL
} ngx_http_ai_part_e;


typedef struct ngx_http_ai_part_s  ngx_http_ai_part_t;
typedef struct ngx_http_ai_turn_s  ngx_http_ai_turn_t;
typedef struct ngx_http_ai_tool_s  ngx_http_ai_tool_t;


struct ngx_http_ai_part_s {
    ngx_http_ai_part_e         type;

    ngx_str_t                  text;      /* TEXT, REASONING, REFUSAL, and the
                                             text of a text FILE */
    ngx_str_t                  url;       /* IMAGE, FILE by reference */
    ngx_str_t                  data;      /* base64 of IMAGE, AUDIO, FILE;
                                             payload of REDACTED */
    ngx_str_t                  mime;      /* "image/png"; AUDIO: "wav" */
    ngx_str_t                  detail;    /* IMAGE */
    ngx_str_t                  file_id;

    ngx_str_t                  id;        /* tool call id */
    ngx_str_t                  name;      /* tool, file */
    ngx_str_t                  args;      /* json: TOOL_CALL arguments as an
                                             object's text, unless ... */
    ngx_str_t                  args_text; /* ... raw text of the string that
                                             holds them; one of both is set */
    ngx_str_t                  signature; /* REASONING */

    ngx_http_ai_part_t        *parts;     /* TOOL_RESULT */
    ngx_str_t                  cache;     /* json of the cache mark's ttl
                                             string, "" for a mark without */
    unsigned                   is_error:1;
    unsigned                   custom:1;  /* free-form tool call: args_text */
    unsigned                   cached:1;  /* carries a cache mark */

    ngx_http_ai_part_t        *next;
};


struct ngx_http_ai_turn_s {
    ngx_http_ai_role_e         role;
    ngx_str_t                  name;
    ngx_http_ai_part_t        *parts;
    ngx_http_ai_turn_t        *next;
};


struct ngx_http_ai_tool_s {
    ngx_str_t                  name;
    ngx_str_t                  description;
    ngx_str_t                  schema;    /* json object */
    ngx_str_t                  cache;
    unsigned                   strict:2;  /* 0 absent, 1 false, 2 true */
    unsigned                   cached:1;
    ngx_http_ai_tool_t        *next;
};


typedef enum {
    NGX_HTTP_AI_CHOICE_ABSENT = 0,
    NGX_HTTP_AI_CHOICE_AUTO,
    NGX_HTTP_AI_CHOICE_NONE,
    NGX_HTTP_AI_CHOICE_REQUIRED,
    NGX_HTTP_AI_CHOICE_NAMED
} ngx_http_ai_choice_e;


typedef enum {
    NGX_HTTP_AI_FORMAT_TEXT = 0,
    NGX_HTTP_AI_FORMAT_JSON,
    NGX_HTTP_AI_FORMAT_SCHEMA
} ngx_http_ai_format_e;


typedef enum {
    NGX_HTTP_AI_EFFORT_ABSENT = 0,
    NGX_HTTP_AI_EFFORT_NONE,
    NGX_HTTP_AI_EFFORT_MINIMAL,
    NGX_HTTP_AI_EFFORT_LOW,
    NGX_HTTP_AI_EFFORT_MEDIUM,
    NGX_HTTP_AI_EFFORT_HIGH,
    NGX_HTTP_AI_EFFORT_XHIGH,
    NGX_HTTP_AI_EFFORT_MAX
} ngx_http_ai_effort_e;


typedef struct {
    ngx_str_t                  model;         /* the client's; encoders write
                                                 the target's instead */

    ngx_http_ai_turn_t        *turns;         /* system turns in place, the
                                                 leading ones first */
    ngx_http_ai_tool_t        *tools;
    ngx_http_ai_choice_e       choice;
    ngx_str_t                  choice_name;
    unsigned                   parallel:2;    /* 0 absent, 1 false, 2 true */

    ngx_str_t                  max_output;    /* json number */
    ngx_str_t                 *stop;          /* raw texts */
    ngx_uint_t                 nstop;

    ngx_str_t                  temperature;   /* json numbers, as they came */
    ngx_str_t                  top_p;
    ngx_str_t                  top_k;
    ngx_str_t                  seed;
    ngx_str_t                  frequency_penalty;
    ngx_str_t                  presence_penalty;

    ngx_http_ai_format_e       format;
    ngx_str_t                  schema;        /* json */
    ngx_str_t                  schema_name;
    ngx_str_t                  schema_description;
    unsigned                   schema_strict:2;

    ngx_http_ai_effort_e       effort;
    ngx_str_t                  thinking_budget;   /* json number */
    unsigned                   thinking:2;    /* 0 absent, 1 off, 2 on,
                                                 3 adaptive */

    ngx_str_t                  user;          /* end user's id */
    ngx_str_t                  service_tier;  /* raw text */

    unsigned                   stream:1;
    unsigned                   include_usage:1;
} ngx_http_ai_request_t;


/* events of an answer, streamed or not */

typedef enum {
    NGX_HTTP_AI_EV_START = 0,     /* id, model, created */
    NGX_HTTP_AI_EV_TEXT,          /* choice, text */
    NGX_HTTP_AI_EV_REASONING,     /* choice, text */
    NGX_HTTP_AI_EV_SIGNATURE,     /* text: of the reasoning before it */
    NGX_HTTP_AI_EV_REDACTED,      /* text: opaque reasoning, whole */
    NGX_HTTP_AI_EV_REFUSAL,       /* choice, text */
    NGX_HTTP_AI_EV_TOOL_START,    /* choice, index, id, name */
    NGX_HTTP_AI_EV_TOOL_ARGS,     /* choice, index, text: raw text of a piece
                                     of the arguments' JSON */
    NGX_HTTP_AI_EV_TOOL_END,      /* choice, index */
    NGX_HTTP_AI_EV_CITATION,      /* text: json of an OpenAI annotation */
    NGX_HTTP_AI_EV_FINISH,        /* choice, finish, text: stop sequence */
    NGX_HTTP_AI_EV_USAGE,         /* usage: figures so far, cumulative */
    NGX_HTTP_AI_EV_ERROR,         /* error */
    NGX_HTTP_AI_EV_END            /* the dialect's terminal event was seen */
} ngx_http_ai_event_e;


typedef struct {
    ngx_http_ai_event_e        type;
    ngx_uint_t                 choice;    /* of n > 1 */
    ngx_uint_t                 index;     /* tool call, from 0 in a choice */
    ngx_str_t                  text;
    ngx_str_t                  id;
    ngx_str_t                  name;
    ngx_str_t                  model;
    int64_t                    created;   /* seconds; 0 when not told */
    ngx_http_ai_finish_e       finish;
    ngx_http_ai_usage_t       *usage;
    ngx_http_ai_error_t       *error;
} ngx_http_ai_event_t;


/*
 * Receives events in order; slices are valid during the call only.  Anything
 * but NGX_OK stops the decoder, which returns that value.
 */
typedef ngx_int_t (*ngx_http_ai_sink_pt)(void *data, ngx_http_ai_event_t *ev);


typedef struct {
    ngx_http_ai_sink_pt        handler;
    void                      *data;
} ngx_http_ai_sink_t;


void ngx_http_ai_usage_init(ngx_http_ai_usage_t *u);

/* takes every reported figure of "from"; figures are cumulative, last wins */
void ngx_http_ai_usage_merge(ngx_http_ai_usage_t *to,
    ngx_http_ai_usage_t *from);

/* total input: fresh + cache read + cache write; -1 when nothing is known */
int64_t ngx_http_ai_usage_input(ngx_http_ai_usage_t *u);

/* names for logs, variables and messages; "" for NONE */
ngx_str_t *ngx_http_ai_op_name(ngx_http_ai_op_e op);
ngx_str_t *ngx_http_ai_finish_name(ngx_http_ai_finish_e f);  /* OpenAI's */
ngx_str_t *ngx_http_ai_err_name(ngx_http_ai_err_e e);
ngx_str_t *ngx_http_ai_usage_name(ngx_http_ai_usage_state_e state);  /* "none",
                                                 ... */
ngx_str_t *ngx_http_ai_cached_name(ngx_http_ai_cache_e cached);  /* "hit" */
ngx_str_t *ngx_http_ai_cached_word(ngx_http_ai_cache_e cached);  /* "HIT", as
                                                 in x-ai-cache */

/* status that the gateway sends for a class when it has no better one */
ngx_uint_t ngx_http_ai_err_status(ngx_http_ai_err_e e);

/*
 * Class of a provider's error reply from its HTTP status and its type, code
 * and message (plain, compared without case), by wire.md section 21.
 */
ngx_http_ai_err_e ngx_http_ai_err_classify(ngx_uint_t status, ngx_str_t *type,
    ngx_str_t *code, ngx_str_t *message);

/*
 * Reads any provider's error body: JSON of the known shapes whatever the
 * content type, an array's first element, text, HTML or nothing.  Fills class,
 * message (plain, at most 1 KiB of a foreign text, credentials masked), type,
 * code, param.  status is the reply's; 200 for an error inside a good reply.
 * NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_ai_error_read(ngx_pool_t *pool, ngx_uint_t status,
    u_char *body, size_t len, ngx_http_ai_error_t *err);

/* words of a plain text that look like credentials lose all but a known
 * prefix: in place, it becomes no longer */
void ngx_http_ai_mask(ngx_str_t *s);

/*
 * The wait a provider asks for in milliseconds from the values of its
 * "retry-after" and "retry-after-ms" headers (either may be empty), relative
 * to "now" (seconds): seconds, decimals, Go durations, HTTP dates, RFC 3339,
 * epoch seconds or milliseconds.  The larger counts; -1 when there is none.
 */
int64_t ngx_http_ai_retry_after(ngx_str_t *value, ngx_str_t *value_ms,
    time_t now);


#endif /* _NGX_HTTP_AI_PIVOT_H_INCLUDED_ */
