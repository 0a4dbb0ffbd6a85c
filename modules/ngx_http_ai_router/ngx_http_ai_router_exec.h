
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * One request's execution: a plan of candidates, attempts one after another
 * (two at once when hedging), at most one of them committed.
 *
 * An attempt is a background clone subrequest with an upstream of its own.
 * It never writes by itself: what it decodes goes to the main request, which
 * stays the connection's active one, so that the client's side (writing,
 * aborts, time limits) is in one place whatever attempts come and go.
 */


#ifndef _NGX_HTTP_AI_ROUTER_EXEC_H_INCLUDED_
#define _NGX_HTTP_AI_ROUTER_EXEC_H_INCLUDED_


#include "ngx_http_ai_router.h"


/* requests, tokens, input tokens, output tokens */
#define NGX_HTTP_AI_LIMITS_KINDS  4

/* all attempts of one request, retries included */
#define NGX_HTTP_AI_MAX_ATTEMPTS  16


/* as much of ngx_connection_t as the debug log reads of a timer's data */

typedef struct {
    void                      *data;
    void                      *reserved[2];
    ngx_socket_t               fd;
} ngx_http_ai_timer_data_t;


typedef struct ngx_http_ai_exec_s     ngx_http_ai_exec_t;
typedef struct ngx_http_ai_attempt_s  ngx_http_ai_attempt_t;


typedef struct {
    ngx_http_ai_target_t      *target;
    ngx_uint_t                 tries;
    ngx_uint_t                 keys;          /* bit mask of keys refused */
    const ngx_http_ai_price_t *price;         /* at admission; NULL: it is not
                                                 known */
    unsigned                   skip:1;        /* not to be asked again */
    unsigned                   no_prefill:1;  /* it has refused one */
} ngx_http_ai_candidate_t;


typedef enum {
    NGX_HTTP_AI_MODE_HEADER = 0,
    NGX_HTTP_AI_MODE_ERROR,           /* an error body is being read */
    NGX_HTTP_AI_MODE_BODY,            /* an unstreamed answer */
    NGX_HTTP_AI_MODE_EVENTS,          /* server-sent events */
    NGX_HTTP_AI_MODE_RAW              /* relayed unseen */
} ngx_http_ai_mode_e;


struct ngx_http_ai_attempt_s {
    ngx_http_ai_exec_t        *exec;
    ngx_http_request_t        *sr;
    ngx_http_ai_candidate_t   *candidate;
    ngx_http_ai_target_t      *target;
    ngx_http_ai_provider_t    *provider;
    ngx_http_ai_key_t         *key;
    ngx_uint_t                 key_index;
    ngx_str_t                  model;         /* upstream name */

    ngx_event_t                timer;
    ngx_http_ai_timer_data_t   timer_data;
    ngx_queue_t                young;         /* waits for its timer */
    ngx_msec_t                 start;
    ngx_msec_t                 progress;      /* time of the last event */
    ngx_msec_t                 first_at;      /* ... of the first one */
    ngx_msec_t                 end;

    /* the provider's reply */
    ngx_http_status_t          status;
    ngx_http_chunked_t         chunk;
    ngx_http_ai_mode_e         mode;
    size_t                     header_size;
    off_t                      length;        /* content-length; -1 */
    ngx_str_t                  content_type;
    ngx_str_t                  upstream_id;   /* its request id */
    ngx_str_t                  retry_after;
    ngx_str_t                  retry_after_ms;
    ngx_uint_t                 exhausted;     /* bits of its limits that have
                                                 nothing left */
    int64_t                    resets[NGX_HTTP_AI_LIMITS_KINDS];
    ngx_array_t                headers;       /* of ngx_table_elt_t, to pass */

    ngx_http_ai_decoder_t      dec;
    ngx_http_ai_sse_t          sse;
    ngx_http_ai_encoder_t     *enc;
    ngx_http_ai_out_t          out;           /* encoder's output */
    ngx_http_ai_out_t          hold;          /* bytes kept: body, or events
                                                 before the commit */

    /* of a stream that is held: where it goes on, and what keeps its buffer
     * from being read into anew */
    u_char                    *held;
    ngx_buf_t                 *stop;

    ngx_chain_t               *relay;         /* batch being relayed */
    ngx_chain_t              **last_relay;

    /* what was learned */
    ngx_http_ai_error_t        error;         /* class NONE: none */
    int64_t                    wait;          /* Retry-After in ms; -1 */
    ngx_http_ai_usage_t        usage;
    ngx_http_ai_finish_e       finish;
    uint64_t                   counted;       /* 1/100 token of output */
    uint64_t                   counted_last;  /* ... that is delivered */
    uint64_t                   choices;       /* bits of those not finished */
    ngx_http_ai_out_t          recorded;      /* text, for a recovery */
    ngx_http_ai_out_t          scratch;
    size_t                     matched;       /* bytes of the delivered text
                                                 that came again */

    unsigned                   chunked:1;
    unsigned                   close:1;       /* connection cannot be kept */
    unsigned                   status_done:1;
    unsigned                   header_done:1;
    unsigned                   entered:1;     /* counts in max_concurrent */
    unsigned                   probe:1;
    unsigned                   same:1;        /* client's dialect */
    unsigned                   relaying:1;    /* bytes as they come */
    unsigned                   hide_usage:1;
    unsigned                   content:1;     /* something worth a commit */
    unsigned                   committed:1;
    unsigned                   complete:1;    /* whole answer decoded */
    unsigned                   body_ended:1;
    unsigned                   linger:1;      /* complete; its message is
                                                 not at its end */
    unsigned                   first:1;       /* first event was seen */
    unsigned                   sent:1;        /* request may have been seen */
    unsigned                   canceled:1;
    unsigned                   finished:1;    /* upstream is gone */
    unsigned                   handled:1;
    unsigned                   has_usage:1;
    unsigned                   prefill:1;     /* continues a delivered text */
    unsigned                   restart:1;     /* repeats a delivered text */
    unsigned                   resume:1;      /* either of both */
    unsigned                   last_sent:1;   /* body went with its end */
    unsigned                   counting:1;    /* output is counted */
    unsigned                   queued:1;      /* in the queue of the young */
    unsigned                   gzip:1;
    unsigned                   cut:1;         /* ended by an observer */
    unsigned                   waits:1;       /* it is held, until told */
    unsigned                   told:1;        /* the event holds usage */
    unsigned                   local_error:1; /* made here, not the provider's
                                                 words */
};


struct ngx_http_ai_exec_s {
    ngx_http_request_t        *request;
    ngx_http_ai_ctx_t         *ctx;
    ngx_http_ai_model_t       *model;
    const ngx_http_ai_api_t   *api;

    ngx_http_ai_candidate_t   *candidates;
    ngx_uint_t                 ncandidates;
    ngx_uint_t                 current;

    ngx_http_ai_attempt_t     *attempts[NGX_HTTP_AI_MAX_ATTEMPTS];
    ngx_uint_t                 nattempts;
    ngx_uint_t                 running;
    ngx_http_ai_attempt_t     *winner;

    ngx_event_t                timer;         /* backoff, hedge */
    ngx_http_ai_timer_data_t   timer_data;

    ngx_http_ai_request_t     *pivot;         /* decoded once, when needed */
    ngx_http_ai_error_t        error;         /* what to tell the client */
    int64_t                    retry_after;   /* ms; -1 */
    ngx_http_ai_err_e          last_class;    /* of the failure before */

    /* the answer as the client has seen it */
    ngx_http_ai_encoder_t     *enc;           /* kept over recovery */
    ngx_http_ai_out_t          enc_out;
    ngx_http_ai_out_t         *delivered;     /* its text, unescaped */

    ngx_chain_t               *copies;        /* for a client that may be
                                                 slow, the oldest first */
    ngx_chain_t               *last_copy;

    uint64_t                   counted;       /* output of attempts before
                                                 the winner */

    ngx_msec_t                 drain_end;
    off_t                      drain_left;

    unsigned                   backoff:1;     /* timer waits to retry */
    unsigned                   hedging:1;     /* timer waits to hedge */
    unsigned                   hedged:1;
    unsigned                   committed:1;
    unsigned                   done:1;
    unsigned                   gone:1;        /* client left, draining */
    unsigned                   started_tool:1;    /* delivered: no recovery */
    unsigned                   recording:1;   /* delivered text is kept */
    unsigned                   error_same:1;  /* error is of the client's
                                                 dialect */
    unsigned                   unsupported:1; /* a target lacks the endpoint */
    unsigned                   metered:1;
    unsigned                   rerouted:1;    /* to another model */
    unsigned                   kept:1;        /* gone, and others wait for the
                                                 answer */
    unsigned                   told:1;        /* the tap knows of the end */
};


/* ngx_http_ai_router_exec.c */

/* ends an attempt early; class NONE when it says nothing about the target */
void ngx_http_ai_attempt_cancel(ngx_http_ai_attempt_t *a,
    ngx_http_ai_err_e class, const char *why);

/* (re)arms the attempt's timer */
void ngx_http_ai_attempt_set_timer(ngx_http_ai_attempt_t *a, ngx_msec_t wait);

/* notes a failure found here, in the gateway's words */
void ngx_http_ai_attempt_fail(ngx_http_ai_attempt_t *a,
    ngx_http_ai_err_e class, const char *message);

/* makes the attempt the answer: cancels others, sends the client's header.
 * length: of the body, -1 when it is streamed.  NGX_OK or NGX_ERROR */
ngx_int_t ngx_http_ai_commit(ngx_http_ai_attempt_t *a, off_t length);

/* finishes a request answered without an upstream (static provider) */
void ngx_http_ai_exec_finish(ngx_http_ai_exec_t *x, ngx_int_t rc);


/* ngx_http_ai_router_client.c */

/* tells the tap of the end, once */
void ngx_http_ai_exec_over(ngx_http_ai_exec_t *x);

/* writes to the client; NGX_OK also when it has left and is being drained */
ngx_int_t ngx_http_ai_exec_output(ngx_http_ai_exec_t *x, ngx_chain_t *out);

/* the same at the end of this turn of the event loop, where it can wait */
ngx_int_t ngx_http_ai_exec_output_later(ngx_http_ai_exec_t *x,
    ngx_chain_t *out);

/* the main request's read event handler */
void ngx_http_ai_exec_read(ngx_http_request_t *r);


/* ngx_http_ai_router_usage.c */

/* ctx->attempt, ctx->plan */
ngx_int_t ngx_http_ai_router_attempt(ngx_http_ai_ctx_t *ctx, ngx_uint_t n,
    ngx_http_ai_try_t *t);
uint64_t ngx_http_ai_router_plan_hash(ngx_http_ai_ctx_t *ctx);

/* what limits need to know of the plan, into the ctx */
ngx_int_t ngx_http_ai_router_foretell(ngx_http_ai_exec_t *x);

/* before the end of a stream is sent: its cost as a trailer */
ngx_int_t ngx_http_ai_router_trailer(ngx_http_ai_exec_t *x);


/* has the attempt made anything that is charged? */
ngx_uint_t ngx_http_ai_usage_counts(ngx_http_ai_attempt_t *a);

/* pico-dollars of what one with a price has used */
int64_t ngx_http_ai_usage_price(ngx_http_ai_attempt_t *a,
    ngx_http_ai_usage_t *u);


/* ngx_http_ai_router_cost.c */

/* nano-dollars of all attempts up to this one, whose usage has come; -1: they
 * are not known */
int64_t ngx_http_ai_router_cost(ngx_http_ai_attempt_t *a);

/* relays an event, or replaces a whole answer, with the cost in its usage */
ngx_int_t ngx_http_ai_cost_event(ngx_http_ai_attempt_t *a,
    ngx_http_ai_sse_event_t *ev);
ngx_int_t ngx_http_ai_cost_body(ngx_http_ai_attempt_t *a, u_char **data,
    size_t *len);


/* ngx_http_ai_router_price.c: the price of each candidate */

ngx_int_t ngx_http_ai_prices_set(ngx_http_ai_exec_t *x);


/* ngx_http_ai_router_limits.c */

/* is it a header that tells of limits?  Then it is noted */
ngx_uint_t ngx_http_ai_limits_header(ngx_http_ai_attempt_t *a,
    ngx_str_t *name, ngx_str_t *value);

/* ms until what is exhausted is there again; -1: nothing is */
int64_t ngx_http_ai_limits_wait(ngx_http_ai_attempt_t *a);

void ngx_http_ai_limits_learn(ngx_http_ai_attempt_t *a);


/* ngx_http_ai_router_cut.c */

/* ctx->end */
ngx_int_t ngx_http_ai_router_end(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_str_t *provider, ngx_http_ai_error_t *err);

/* ctx->proceed */
void ngx_http_ai_router_proceed(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);

/* follows a watched stream; NGX_ABORT: the event is not to be relayed */
ngx_int_t ngx_http_ai_answer_watch(ngx_http_ai_attempt_t *a,
    ngx_http_ai_event_t *ev);

/* output of the attempts before this one, when it goes on with theirs */
void ngx_http_ai_answer_counted(ngx_http_ai_attempt_t *a);

/* ends a stream of which the observers want no more */
ngx_int_t ngx_http_ai_answer_cut(ngx_http_ai_attempt_t *a);


/* ngx_http_ai_router_plan.c */

/* candidates in the order they are to be asked; NGX_DECLINED: x->error says
 * why there is none */
ngx_int_t ngx_http_ai_plan(ngx_http_ai_exec_t *x,
    ngx_http_ai_router_loc_conf_t *arlcf);

typedef enum {
    NGX_HTTP_AI_NEXT_START = 0,       /* *candidate */
    NGX_HTTP_AI_NEXT_WAIT,            /* *wait ms, then *candidate */
    NGX_HTTP_AI_NEXT_NONE             /* give up */
} ngx_http_ai_next_e;

/* what to do after attempt "a" failed (NULL: at the start) */
ngx_http_ai_next_e ngx_http_ai_plan_next(ngx_http_ai_exec_t *x,
    ngx_http_ai_attempt_t *a, ngx_http_ai_candidate_t **candidate,
    ngx_msec_t *wait);

/* provider/model of a target, also of one that takes the client's model */
void ngx_http_ai_plan_name(ngx_http_ai_exec_t *x,
    ngx_http_ai_target_t *target, ngx_str_t *name);


/* ngx_http_ai_router_upstream.c */

/* creates the upstream of the attempt's subrequest and starts it */
ngx_int_t ngx_http_ai_upstream_start(ngx_http_ai_attempt_t *a);

/* a stream that was held goes on; NGX_ERROR: it is at its end */
ngx_int_t ngx_http_ai_upstream_proceed(ngx_http_ai_attempt_t *a);


/* ngx_http_ai_router_build.c */

/* body for the target as a chain of buffers, and its length; NGX_DECLINED:
 * a->error says what the target cannot express */
ngx_int_t ngx_http_ai_build_body(ngx_http_ai_attempt_t *a, ngx_chain_t **body,
    off_t *length);

/* request line and header; NGX_DECLINED as above */
ngx_int_t ngx_http_ai_build_header(ngx_http_ai_attempt_t *a, off_t length,
    ngx_buf_t **header);


/* ngx_http_ai_router_cap.c */

/* so many changes at most */
#define NGX_HTTP_AI_CAP_PATCH  3

/* adds to ops[] what keeps an answer within ctx->output_cap */
ngx_int_t ngx_http_ai_build_cap(ngx_http_ai_attempt_t *a,
    ngx_http_ai_json_t *j, ngx_http_ai_patch_op_t *ops, ngx_uint_t *n);


/* ngx_http_ai_router_answer.c */

ngx_int_t ngx_http_ai_answer_init(ngx_http_ai_attempt_t *a);
ngx_int_t ngx_http_ai_answer_data(ngx_http_ai_attempt_t *a, u_char *data,
    size_t len);
ngx_int_t ngx_http_ai_answer_end(ngx_http_ai_attempt_t *a);

/* a buffer of this attempt: with memory for "size" bytes, or without any */
ngx_chain_t *ngx_http_ai_answer_buf(ngx_http_ai_attempt_t *a, size_t size);

/* bytes of a stream as they are, at once or after its commit; in_place: they
 * stay until they are sent */
ngx_int_t ngx_http_ai_answer_pass(ngx_http_ai_attempt_t *a, ngx_str_t *text,
    ngx_uint_t in_place);

/* a stream that has told how it finished: it lacks only what ends a stream,
 * and perhaps the usage */
ngx_uint_t ngx_http_ai_answer_whole(ngx_http_ai_attempt_t *a);

/* commits a stream with what was held before its first token */
ngx_int_t ngx_http_ai_answer_commit_stream(ngx_http_ai_attempt_t *a);

/* sends what the batch has made; after each read */
ngx_int_t ngx_http_ai_answer_flush(ngx_http_ai_attempt_t *a);

/* encoder for the client's side */
ngx_http_ai_encoder_t *ngx_http_ai_answer_encoder(ngx_http_ai_exec_t *x,
    ngx_http_ai_out_t *out, ngx_str_t *model);

/* the end of a committed stream that failed: the dialect's error event */
ngx_int_t ngx_http_ai_answer_error(ngx_http_ai_exec_t *x,
    ngx_http_ai_error_t *err);


/* ngx_http_ai_router_local.c: answers that need no provider */

ngx_int_t ngx_http_ai_static_answer(ngx_http_ai_exec_t *x,
    ngx_http_ai_target_t *target);
ngx_int_t ngx_http_ai_models_answer(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_router_main_conf_t *amcf);
ngx_int_t ngx_http_ai_count_tokens_answer(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);


#endif /* _NGX_HTTP_AI_ROUTER_EXEC_H_INCLUDED_ */
