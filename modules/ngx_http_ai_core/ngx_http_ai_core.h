
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * What the core offers to the other modules of the suite: the request context
 * and a versioned function table, found by module name at preconfiguration
 * (ngx_http_ai_core_api()), so that modules load in any order and share no
 * symbol.  The plain-C base (json, scan, sse, tokens, pivot, patch) is
 * stateless and linked into each module that needs it; dialects live in the
 * core and are reached through the table only.
 */


#ifndef _NGX_HTTP_AI_CORE_H_INCLUDED_
#define _NGX_HTTP_AI_CORE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_ai_compat.h"
#include "ngx_http_ai_json.h"
#include "ngx_http_ai_sse.h"
#include "ngx_http_ai_tokens.h"
#include "ngx_http_ai_pivot.h"
#include "ngx_http_ai_patch.h"
#include "ngx_http_ai_dialect.h"
#include "ngx_http_ai_data.h"
#include "ngx_http_ai_fetch.h"
#include "ngx_http_ai_net.h"
#include "ngx_http_ai_price.h"
#include "ngx_http_ai_redis.h"
#include "ngx_http_ai_samples.h"


/* changes with any change of what is below */
#define NGX_HTTP_AI_ABI  9

#define NGX_HTTP_AI_VERSION  "0.1.0"


/*
 * The order of a request's way through the gateway; hooks of one stage run in
 * registration order.  A hook returns NGX_OK (go on), NGX_DECLINED (not
 * concerned, go on), NGX_AGAIN (it waits; it calls api->resume() later and is
 * then called again), NGX_DONE (it has sent an answer, ctx->rc is what to
 * finalize the request with) or NGX_ERROR.
 */

typedef enum {
    NGX_HTTP_AI_STAGE_RESOLVE = 0,    /* body is parsed: model and targets */
    NGX_HTTP_AI_STAGE_AUTHORIZE,
    NGX_HTTP_AI_STAGE_GUARD,
    NGX_HTTP_AI_STAGE_LIMIT,
    NGX_HTTP_AI_STAGE_CACHE,
    NGX_HTTP_AI_STAGE_METER,          /* at the end, once: usage is summed, */
    NGX_HTTP_AI_STAGE_SETTLE,         /* ... then settled, then logged */
    NGX_HTTP_AI_STAGE_MAX
} ngx_http_ai_stage_e;


typedef struct ngx_http_ai_ctx_s  ngx_http_ai_ctx_t;

typedef ngx_int_t (*ngx_http_ai_hook_pt)(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);


/*
 * Who calls.  A list holds its items one after another, each with a NUL at its
 * end; one whose data is NULL was not given and allows everything.
 */

typedef struct {
    ngx_str_t                  key_id;        /* never empty */
    ngx_str_t                  tenant;
    ngx_str_t                  user;
    ngx_str_t                  team;
    ngx_str_t                  plan;
    ngx_str_t                  scopes;        /* with a space between them */
    ngx_str_t                  models;        /* list of patterns */
    ngx_str_t                  deny;          /* list of patterns */
    ngx_str_t                  providers;     /* list of patterns */
    ngx_str_t                  endpoints;     /* list of ngx_http_ai_op_name()
                                                 and "passthrough" */
    ngx_str_t                  limits;        /* JSON object by zone, or "" */
    ngx_str_t                  quotas;        /* JSON object by zone, or "" */
    ngx_str_t                  metadata;      /* JSON object, or "" */
    time_t                     expires;       /* 0: never */
} ngx_http_ai_principal_t;


/* what a request may be sent to; asked of everything that is about to be
 * tried or shown */

typedef struct {
    ngx_str_t                  model;         /* aliases resolved */
    ngx_str_t                  provider;      /* empty: the model as such */
    ngx_str_t                  upstream;      /* the provider's model name */
} ngx_http_ai_route_t;

/* NGX_OK, NGX_DECLINED (err is filled in, when not NULL) or NGX_ERROR */
typedef ngx_int_t (*ngx_http_ai_permit_pt)(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_route_t *route,
    ngx_http_ai_error_t *err);


/*
 * What is to be told of a stream while it is relayed: called when its counted
 * output, in 1/100 token over all attempts, is above ctx->watch, which it may
 * set anew.  NGX_OK; NGX_ABORT: the text that made it so is not relayed, the
 * answer ends before it as one that has reached its length; NGX_AGAIN: it is,
 * and what comes behind it waits until ctx->proceed() is called.
 */
typedef ngx_int_t (*ngx_http_ai_observer_pt)(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, uint64_t counted);

#define NGX_HTTP_AI_WATCH_NEVER  ((uint64_t) -1)


/*
 * What goes along with an answer that the router gets from a provider.  One at
 * most, set in ctx->tap by a hook before the content handler runs; all but
 * "end" may be NULL.
 */

typedef struct {
    /* the body of an unstreamed answer before anything of it is sent; it may
     * be replaced.  NGX_OK or NGX_ERROR */
    ngx_int_t                (*body)(ngx_http_request_t *r,
                                     ngx_http_ai_ctx_t *ctx, ngx_str_t *body);

    /* what the client is sent, in order, also while it is not there any more;
     * buffers in memory, of which nothing is to be changed */
    void                     (*data)(ngx_http_request_t *r,
                                     ngx_http_ai_ctx_t *ctx, ngx_chain_t *in);

    /* the client has left; not 0: others wait for the answer, go on.  Asked
     * again with all that comes */
    ngx_uint_t               (*wanted)(ngx_http_request_t *r,
                                       ngx_http_ai_ctx_t *ctx);

    /* nobody is left to be asked, nothing was sent.  NGX_DECLINED: the client
     * gets err; else another answer was sent, finalize with *rc */
    ngx_int_t                (*failed)(ngx_http_request_t *r,
                                       ngx_http_ai_ctx_t *ctx,
                                       ngx_http_ai_error_t *err,
                                       ngx_int_t *rc);

    /* called once: ctx->complete tells whether the answer was whole; usage,
     * cost and finish are known.  The request may be about to be destroyed */
    void                     (*end)(ngx_http_request_t *r,
                                    ngx_http_ai_ctx_t *ctx);
} ngx_http_ai_tap_t;


/* one of a request's attempts, for logs and traces */

typedef struct {
    ngx_str_t                  target;        /* provider/upstream-model */
    ngx_str_t                  name;          /* as the configuration names
                                                 it; empty: it does not */
    ngx_str_t                  provider;
    ngx_str_t                  vendor;        /* "openai"; or its dialect */
    ngx_str_t                  region;
    ngx_str_t                  model;         /* upstream's name */
    ngx_str_t                  upstream_id;   /* its request id */
    ngx_uint_t                 status;        /* of HTTP; 0: none came */
    ngx_http_ai_err_e          error;
    ngx_msec_t                 start;         /* ngx_current_msec */
    ngx_msec_int_t             first;         /* ms to the first event; -1 */
    ngx_msec_int_t             duration;      /* ms; -1: it runs */
    ngx_http_ai_finish_e       finish;
    ngx_http_ai_usage_t       *usage;
    unsigned                   won:1;         /* the answer is its */
    unsigned                   canceled:1;
} ngx_http_ai_try_t;

/*
 * Adds header lines, each with its CRLF, to what attempt n (from 0) sends to
 * its provider.  NGX_OK or NGX_ERROR.
 */
typedef ngx_int_t (*ngx_http_ai_attempt_pt)(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_uint_t n, ngx_http_ai_out_t *headers);


typedef struct {
    ngx_uint_t                 max_depth;     /* of JSON */
    ngx_uint_t                 max_nodes;
    size_t                     max_body;      /* bytes of a request parsed */
    size_t                     max_answer;    /* bytes of an unstreamed answer
                                                 that is held */
    size_t                     max_event;     /* bytes of one SSE event */
    size_t                     max_header;    /* bytes of an answer's header */
} ngx_http_ai_limits_t;


/* one per main request; survives internal redirects */

struct ngx_http_ai_ctx_s {
    ngx_http_request_t        *request;
    ngx_http_ai_limits_t      *limits;

    ngx_http_ai_op_e           op;
    ngx_http_ai_dialect_t     *dialect;       /* the client's */
    ngx_str_t                  op_model;      /* of ".../models/{id}" */
    ngx_str_t                  request_id;

    ngx_str_t                  body;          /* contiguous, NULL if none */
    ngx_http_ai_json_t         json;          /* top level of body; the whole
                                                 tree after parse_body() */
    ngx_str_t                  request_model; /* plain; as the client wrote */
    ngx_uint_t                 model_node;    /* its node in json */

    ngx_http_ai_principal_t   *principal;     /* NULL: nobody was asked */
    ngx_http_ai_error_t       *refusal;       /* of a phase handler */

    /* known when the stage RESOLVE is over, for what comes behind it */
    const ngx_http_ai_price_t
                              *price;         /* of the first target that has
                                                 one; NULL: none has */
    ngx_str_t                  price_version; /* of the price that is charged,
                                                 at first of that above */
    ngx_uint_t                 max_output;    /* default of the first target;
                                                 0: not known */
    ngx_msec_t                 patience;      /* the longest silence that a
                                                 target may keep */

    int64_t                    input_estimate;    /* -1: not made yet */
    int64_t                    images;            /* -1: not counted yet */
    uint64_t                   watch;         /* see observers */
    int64_t                    output_cap;    /* tokens that a provider may
                                                 make of each choice; -1: any
                                                 number */

    ngx_uint_t                 stage;         /* how far the hooks are */
    ngx_uint_t                 hook;
    ngx_int_t                  rc;            /* with NGX_DONE of a hook */

    unsigned                   parsed:1;      /* json is valid */
    unsigned                   whole:1;       /* ... and holds all nodes */
    unsigned                   stream:1;
    unsigned                   include_usage:1;
    unsigned                   reading:1;
    unsigned                   waiting:1;     /* a hook has returned AGAIN */
    unsigned                   ready:1;       /* passed the stages */
    unsigned                   routed:1;      /* the content handler ran */
    unsigned                   answered:1;    /* header sent by the gateway */
    unsigned                   fallback:1;    /* served by another target than
                                                 the first choice */
    unsigned                   settled:1;
    unsigned                   listed:1;      /* in the queue "running" */
    unsigned                   error_body:1;  /* nginx's error page replaced */
    unsigned                   may_cut:1;     /* an observer may say ABORT; to
                                                 be set before the attempts */
    unsigned                   cut:1;         /* ... it did */
    unsigned                   cost_trailer:1;    /* x-ai-cost of a stream */
    unsigned                   cost_usage:1;  /* the cost is told in usage */
    unsigned                   need_price:1;  /* targets without a price are
                                                 not asked */
    unsigned                   free:1;        /* limits charge nothing for the
                                                 answer */
    unsigned                   complete:1;    /* the answer was whole */
    unsigned                   recovered:1;   /* it is of two attempts */
    unsigned                   named:1;       /* model is one of the
                                                 configuration */
    unsigned                   background:1;  /* its client was answered: what
                                                 goes on is for others */

    /* results, for variables, hooks and logs */
    ngx_str_t                  model;         /* the configured model's name */
    ngx_str_t                  provider;
    ngx_str_t                  region;
    ngx_str_t                  target;        /* provider/upstream-model */
    ngx_uint_t                 attempts;
    ngx_http_ai_finish_e       finish;
    ngx_http_ai_err_e          error;         /* class, when it failed */
    ngx_msec_t                 start;         /* ngx_current_msec */
    ngx_msec_int_t             ttft;          /* ms to the first token; -1 */
    ngx_http_ai_usage_t        usage;         /* sum over attempts */
    ngx_http_ai_usage_state_e  usage_state;
    int64_t                    cost;          /* nano-dollars; -1 unknown */
    ngx_http_ai_cache_e        cached;

    /* attempt n, from 0; NGX_DECLINED: there are only n.  NULL: there is no
     * router */
    ngx_int_t                (*attempt)(ngx_http_ai_ctx_t *ctx, ngx_uint_t n,
                                        ngx_http_ai_try_t *t);

    /* a hash of all that may be asked and how, by the configuration and the
     * caller's permissions; after the stage RESOLVE */
    uint64_t                 (*plan)(ngx_http_ai_ctx_t *ctx);

    const ngx_http_ai_tap_t   *tap;
    size_t                     spool;         /* bytes that may be copied for
                                                 a slow client, lest it slow
                                                 those who wait as well */

    /*
     * Of a request that the router serves, for what ends it before its time:
     * with err, in whatever way its client can still be told.  provider: a
     * pattern; ends only what is asked of such a provider, and asks others
     * when the client has seen nothing yet.  NGX_DONE: the request may be
     * gone; NGX_OK: it goes on.
     */
    ngx_int_t                (*end)(ngx_http_request_t *r,
                                    ngx_http_ai_ctx_t *ctx,
                                    ngx_str_t *provider,
                                    ngx_http_ai_error_t *err);

    /* a stream goes on that an observer holds; it may be gone on return */
    void                     (*proceed)(ngx_http_request_t *r,
                                        ngx_http_ai_ctx_t *ctx);
    ngx_queue_t                running;       /* of the switches */
    ngx_str_t                  switched;      /* the switch that was in force
                                                 for it */
    ngx_str_t                  reroute;       /* a model to take instead */

    ngx_chain_t               *error_out;
    void                      *router;        /* the router's state */
    void                      *ratelimit;     /* that of the limits */
    void                      *cache;
    void                      *log;
    void                      *trace;
    ngx_uint_t                 active;        /* of the metrics: which figure
                                                 it counts in as running, + 1;
                                                 0: none */
};


/* makes or finds the part of the shared zone that a module owns: runs in the
 * master, with *data == NULL for a new zone */
typedef ngx_int_t (*ngx_http_ai_shared_pt)(ngx_slab_pool_t *shpool,
    void **data, void *conf, ngx_log_t *log);


typedef struct {
    /* marks the location being parsed as one served by the gateway */
    void  (*enable)(ngx_conf_t *cf);

    /* ... and is it one?  In a merge, of the location that is merged */
    ngx_uint_t  (*serves)(ngx_conf_t *cf);

    /* in a merge: requests of the location are parsed with all nodes at once,
     * as they will be needed */
    void  (*parse_whole)(ngx_conf_t *cf);

    /* 64 bits at random, unique enough for a name, and not a secret */
    uint64_t  (*random)(void);

    /* is the request's location one of these? */
    ngx_uint_t  (*enabled)(ngx_http_request_t *r);

    ngx_int_t  (*add_hook)(ngx_conf_t *cf, ngx_http_ai_stage_e stage,
                   ngx_http_ai_hook_pt hook);
    ngx_int_t  (*add_permit)(ngx_conf_t *cf, ngx_http_ai_permit_pt permit);

    /* a part of the shared zone, kept over reloads when the zone's name and
     * size stay.  name: a literal with a version, "router-1" */
    ngx_int_t  (*add_shared)(ngx_conf_t *cf, const char *name,
                   ngx_http_ai_shared_pt init, void *conf);

    ngx_int_t  (*add_observer)(ngx_conf_t *cf, ngx_http_ai_observer_pt pt);

    /* headers of what is sent to providers, and the call of all of these */
    ngx_int_t  (*add_attempt_hook)(ngx_conf_t *cf, ngx_http_ai_attempt_pt pt);
    ngx_int_t  (*attempt_headers)(ngx_http_request_t *r,
                   ngx_http_ai_ctx_t *ctx, ngx_uint_t n,
                   ngx_http_ai_out_t *headers);

    /* figures for ai_metrics, see ngx_http_ai_samples.h */
    ngx_int_t  (*add_collector)(ngx_conf_t *cf, ngx_http_ai_collect_pt pt,
                   void *data);
    void  (*collect)(ngx_http_ai_samples_t *s);

    /* more of what add_headers() below writes; NGX_OK or NGX_ERROR */
    ngx_int_t  (*add_header_hook)(ngx_conf_t *cf, ngx_http_ai_hook_pt hook);

    ngx_http_ai_dialect_t  *(*dialect)(ngx_str_t *name);
    ngx_http_ai_dialect_t  **dialects;        /* NULL-terminated */

    /* ctx of a request of an enabled location, or NULL; create_ctx() makes it
     * where there is none yet, NULL: no memory */
    ngx_http_ai_ctx_t  *(*get_ctx)(ngx_http_request_t *r);
    ngx_http_ai_ctx_t  *(*create_ctx)(ngx_http_request_t *r);

    /* goes on after a hook's NGX_AGAIN; the request may be gone on return */
    void  (*resume)(ngx_http_request_t *r);

    /* in a read event handler, when the whole request was read: has its client
     * left? */
    ngx_uint_t  (*client_closed)(ngx_http_request_t *r);

    /* may the route be taken?  As ngx_http_ai_permit_pt; all must agree */
    ngx_int_t  (*permit)(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
                   ngx_http_ai_route_t *route, ngx_http_ai_error_t *err);

    /* ctx->json with all nodes; NGX_DECLINED: a limit, err is set */
    ngx_int_t  (*parse_body)(ngx_http_ai_ctx_t *ctx, ngx_http_ai_error_t *err);

    /* tokens of the request's text, counted once; 0 when it cannot be told */
    int64_t  (*input_estimate)(ngx_http_ai_ctx_t *ctx);

    /* images and the like in the request, counted once */
    int64_t  (*images)(ngx_http_ai_ctx_t *ctx);

    /* calls the observers; the answer of the first that does not say OK */
    ngx_int_t  (*observe)(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
                   uint64_t counted);

    /*
     * Sends err as a whole answer in the client's dialect: status err->status
     * or the class's.  retry_after: ms, or -1.  same: type and code are of the
     * client's dialect and are kept.  Returns what to finalize with.
     */
    ngx_int_t  (*send_error)(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
                   ngx_http_ai_error_t *err, int64_t retry_after,
                   ngx_uint_t same);

    /*
     * For a handler of a phase before the body is read: keeps err, which
     * becomes the body of nginx's answer with that status, and returns the
     * status for the phase handler to return.
     */
    ngx_int_t  (*refuse)(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
                   ngx_http_ai_error_t *err);

    /* the gateway's own headers into r->headers_out before they are sent */
    ngx_int_t  (*add_headers)(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx);

    /* live data, see ngx_http_ai_data.h */
    ngx_http_ai_data_t  *(*data_register)(ngx_conf_t *cf,
                             ngx_http_ai_data_def_t *def);
    ngx_int_t  (*data_add)(ngx_http_ai_data_load_t *load, ngx_str_t *blob,
                   ngx_str_t *keys, ngx_uint_t nkeys, ngx_uint_t *dup);
    ngx_int_t  (*data_find)(ngx_http_ai_data_t *data, ngx_str_t *key,
                   ngx_pool_t *pool, ngx_str_t *blob);
    uint64_t  (*data_generation)(ngx_http_ai_data_t *data);
    uint64_t  (*data_flags)(ngx_http_ai_data_t *data);
    ngx_int_t  (*data_walk)(ngx_http_ai_data_t *data, ngx_pool_t *pool,
                   ngx_int_t (*handler)(void *ctx, ngx_str_t *blob),
                   void *ctx);
    ngx_uint_t  (*data_enabled)(ngx_conf_t *cf);
    ngx_int_t  (*data_status)(ngx_uint_t n, ngx_pool_t *pool,
                   ngx_http_ai_data_status_t *status);

    /* background requests, see ngx_http_ai_fetch.h */
    ngx_http_ai_fetcher_t  *(*fetcher_create)(ngx_conf_t *cf,
                                ngx_http_ai_fetch_conf_t *conf);
    ngx_int_t  (*fetch)(ngx_http_ai_fetcher_t *fetcher, ngx_str_t *url,
                   ngx_http_ai_fetch_t *f);
    ngx_resolver_t  *(*resolver)(ngx_conf_t *cf, ngx_msec_t *timeout);
    ngx_int_t  (*hosts)(ngx_pool_t *pool, ngx_log_t *log, ngx_str_t *name,
                   ngx_array_t *addrs);
    ngx_int_t  (*tls_client)(ngx_conf_t *cf, ngx_uint_t verify, ngx_str_t *ca,
                   ngx_ssl_t **ssl);

    /* Redis, see ngx_http_ai_redis.h */
    ngx_http_ai_redis_t  *(*redis_find)(ngx_conf_t *cf, ngx_str_t *name,
                             ngx_str_t *near);
    void  (*redis_durable)(ngx_http_ai_redis_t *redis);
    ngx_int_t  (*redis_at_exit)(ngx_http_ai_redis_t *redis,
                   void (*handler)(ngx_cycle_t *cycle));
    ngx_http_ai_redis_on_error_e  (*redis_on_error)(
                                      ngx_http_ai_redis_t *redis);
    ngx_msec_t  (*redis_timeout)(ngx_http_ai_redis_t *redis);
    ngx_uint_t  (*redis_nodes)(ngx_http_ai_redis_t *redis);
    ngx_int_t  (*redis_send)(ngx_http_ai_redis_t *redis,
                   ngx_http_ai_redis_script_t *script, ngx_str_t *argv,
                   ngx_uint_t argc, ngx_http_ai_redis_pt handler, void *data,
                   ngx_http_ai_redis_op_t **op);
    void  (*redis_cancel)(ngx_http_ai_redis_op_t *op);
    void  (*redis_status)(ngx_http_ai_redis_t *redis,
              ngx_http_ai_redis_status_t *status);
    ngx_http_ai_redis_t  *(*redis_at)(ngx_cycle_t *cycle, ngx_uint_t n,
                             ngx_str_t *name);
} ngx_http_ai_api_t;


typedef struct {
    ngx_uint_t                 abi;           /* must stay the first two */
    const ngx_http_ai_api_t   *api;
} ngx_http_ai_core_main_head_t;


/* the function table, or NULL after an [emerg]; call it in preconfiguration */

static ngx_inline const ngx_http_ai_api_t *
ngx_http_ai_core_api(ngx_conf_t *cf, const char *who)
{
    ngx_uint_t                      i;
    ngx_module_t                   *m;
    ngx_http_ai_core_main_head_t   *head;

    for (i = 0; cf->cycle->modules[i]; i++) {
        m = cf->cycle->modules[i];

        if (ngx_strcmp(m->name, "ngx_http_ai_core_module") != 0) {
            continue;
        }

        head = ((ngx_http_conf_ctx_t *) cf->ctx)->main_conf[m->ctx_index];

        if (head->abi != NGX_HTTP_AI_ABI) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "%s: ngx_http_ai_core_module has interface %ui, "
                          "this module needs %d: install both from the same "
                          "build", who, head->abi, NGX_HTTP_AI_ABI);
            return NULL;
        }

        return head->api;
    }

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "%s needs ngx_http_ai_core_module, add \"load_module "
                  "modules/ngx_http_ai_core_module.so;\"", who);

    return NULL;
}


/* the first header of a list by lower-case name, or NULL */

static ngx_inline ngx_table_elt_t *
ngx_http_ai_list_find(ngx_list_t *headers, const char *name, size_t len)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    for (part = &headers->part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            if (h[i].hash && h[i].key.len == len
                && ngx_strncasecmp(h[i].key.data, (u_char *) name, len) == 0)
            {
                return &h[i];
            }
        }
    }

    return NULL;
}

#define ngx_http_ai_header_in(r, literal)                                     \
    ngx_http_ai_list_find(&(r)->headers_in.headers, literal,                  \
                          sizeof(literal) - 1)


/* a response header; value is not copied.  NULL: no memory */

static ngx_inline ngx_table_elt_t *
ngx_http_ai_header_push(ngx_list_t *headers, const char *key, size_t key_len,
    ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(headers);
    if (h == NULL) {
        return NULL;
    }

    h->hash = 1;
    h->key.data = (u_char *) key;
    h->key.len = key_len;
    h->value = *value;
    h->lowcase_key = (u_char *) key;
#if (nginx_version >= 1023000)
    h->next = NULL;
#endif

    return h;
}

#define ngx_http_ai_header_add(headers, literal, value)                       \
    ngx_http_ai_header_push(headers, literal, sizeof(literal) - 1, value)


#endif /* _NGX_HTTP_AI_CORE_H_INCLUDED_ */
