
/*
 * Copyright (C) nginx AI gateway authors
 */


#ifndef _NGX_HTTP_AI_ROUTER_H_INCLUDED_
#define _NGX_HTTP_AI_ROUTER_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_ai_core.h"
#include "ngx_http_ai_conf.h"


#define NGX_HTTP_AI_MODEL_NAME_MAX  256


typedef struct ngx_http_ai_provider_s  ngx_http_ai_provider_t;
typedef struct ngx_http_ai_target_s    ngx_http_ai_target_t;
typedef struct ngx_http_ai_model_s     ngx_http_ai_model_t;
typedef struct ngx_http_ai_peers_s     ngx_http_ai_peers_t;
typedef struct ngx_http_ai_health_s    ngx_http_ai_health_t;
typedef struct ngx_http_ai_prices_s    ngx_http_ai_prices_t;


/* failure classes of "on=" */

#define NGX_HTTP_AI_ON_ERROR      0x0001   /* connect, TLS, reset, cut */
#define NGX_HTTP_AI_ON_TIMEOUT    0x0002
#define NGX_HTTP_AI_ON_429        0x0004
#define NGX_HTTP_AI_ON_5XX        0x0008   /* with 529 */
#define NGX_HTTP_AI_ON_AUTH       0x0010   /* 401, 402, 403 */
#define NGX_HTTP_AI_ON_CONTEXT    0x0020
#define NGX_HTTP_AI_ON_FILTER     0x0040
#define NGX_HTTP_AI_ON_INVALID    0x0080
#define NGX_HTTP_AI_ON_SATURATED  0x0100

#define NGX_HTTP_AI_ON_DEFAULT                                                \
    (NGX_HTTP_AI_ON_ERROR|NGX_HTTP_AI_ON_TIMEOUT|NGX_HTTP_AI_ON_429           \
     |NGX_HTTP_AI_ON_5XX|NGX_HTTP_AI_ON_AUTH|NGX_HTTP_AI_ON_CONTEXT           \
     |NGX_HTTP_AI_ON_INVALID|NGX_HTTP_AI_ON_SATURATED)


/* where a provider's credential goes */

typedef enum {
    NGX_HTTP_AI_AUTH_BEARER = 0,      /* Authorization: Bearer */
    NGX_HTTP_AI_AUTH_X_API_KEY,       /* x-api-key */
    NGX_HTTP_AI_AUTH_API_KEY          /* api-key */
} ngx_http_ai_auth_e;


typedef struct {
    ngx_http_complex_value_t  *value;         /* may hold variables */
    ngx_http_ai_health_t      *health;        /* cooldown of this key */
} ngx_http_ai_key_t;


typedef struct {
    ngx_str_t                  name;          /* lower case */
    ngx_http_complex_value_t  *value;         /* empty value: not sent */
} ngx_http_ai_header_t;


struct ngx_http_ai_provider_s {
    ngx_str_t                  name;
    ngx_str_t                  vendor;        /* of the vendor table, or "" */
    ngx_http_ai_dialect_t     *dialect;       /* NULL: static */
    ngx_http_ai_auth_e         auth;

    ngx_str_t                  endpoint;      /* as written */
    ngx_str_t                  host;          /* Host header, with the port if
                                                 not the default one */
    ngx_str_t                  hostname;      /* for TLS and DNS; without the
                                                 brackets and port */
    ngx_str_t                  path;          /* prefix, "" or "/v1", never
                                                 with a trailing slash */
    in_port_t                  port;

    ngx_array_t                keys;          /* of ngx_http_ai_key_t */
    ngx_array_t                headers;       /* of ngx_http_ai_header_t */
    ngx_str_t                  region;

    ngx_msec_t                 connect;       /* ms */
    ngx_msec_t                 first;         /* request sent to first event */
    ngx_msec_t                 idle;          /* between events */
    ngx_msec_t                 total;         /* whole attempt */

    ngx_uint_t                 max_concurrent;    /* 0: no limit */
    ngx_uint_t                 max_output;        /* default of max_tokens */

    off_t                      drain_bytes;   /* after the client has left: */
    ngx_msec_t                 drain_time;    /* 0: cancel at once */

    ngx_http_complex_value_t  *text;          /* static; NULL: echo */

    /* const after configuration: keepalive compares this address */
    ngx_http_upstream_conf_t   upstream;
    ngx_http_ai_peers_t       *peers;         /* NULL: a user's upstream {} */
    ngx_http_ai_health_t      *health;        /* max_concurrent; breaker for
                                                 targets without a model */
    ngx_str_t                  tls_ca;
    ngx_str_t                  tls_name;      /* SNI and verification name */
    ngx_uint_t                 next_key;      /* per worker, round robin */

    u_char                    *file;          /* where it was defined */
    ngx_uint_t                 line;

    unsigned                   ssl:1;
    unsigned                   no_port:1;     /* the endpoint names no port */
    unsigned                   tls_verify:1;
    unsigned                   key_none:1;
    unsigned                   key_pass:1;    /* the client's own credential */
    unsigned                   is_static:1;
};


struct ngx_http_ai_target_s {
    ngx_str_t                  name;          /* provider/upstream-model */
    ngx_str_t                  model;         /* upstream model; empty: what
                                                 the client asked for */
    ngx_http_ai_provider_t    *provider;
    ngx_uint_t                 weight;
    ngx_uint_t                 context;       /* window in tokens, 0 unknown */
    ngx_uint_t                 on;            /* NGX_HTTP_AI_ON_*; fallbacks */
    ngx_http_complex_value_t  *cond;          /* if= */
    ngx_http_ai_health_t      *health;
    uint64_t                   priced;        /* price is of this generation
                                                 of live data; per worker */
    const ngx_http_ai_price_t *price;
    u_char                    *file;
    ngx_uint_t                 line;
    unsigned                   fallback:1;
    unsigned                   direct:1;      /* not of the configuration */
    unsigned                   prefill:2;     /* 0 by the dialect's table,
                                                 1 off, 2 on */
};


typedef struct {
    ngx_str_t                  name;
    ngx_str_t                  value;         /* json */
    unsigned                   force:1;
} ngx_http_ai_param_t;


typedef enum {
    NGX_HTTP_AI_RECOVER_OFF = 0,
    NGX_HTTP_AI_RECOVER_CONTINUE,     /* prefill where the target takes it */
    NGX_HTTP_AI_RECOVER_RESTART       /* the delivered prefix is skipped */
} ngx_http_ai_recover_e;


struct ngx_http_ai_model_s {
    ngx_str_t                  name;
    ngx_array_t                targets;       /* of ngx_http_ai_target_t */
    ngx_array_t                fallbacks;

    ngx_uint_t                 retries;       /* on the same target */
    ngx_msec_t                 backoff_min;
    ngx_msec_t                 backoff_max;
    ngx_msec_t                 wait;          /* longest Retry-After waited */

    ngx_uint_t                 breaker;       /* failure rate in percent; 0:
                                                 off */
    ngx_msec_t                 breaker_window;
    ngx_uint_t                 breaker_min;   /* requests in the window */
    ngx_msec_t                 breaker_open;

    ngx_http_ai_recover_e      recover;
    size_t                     recover_max;   /* bytes of answer kept for it */
    ngx_msec_t                 hedge;         /* 0: off */
    ngx_http_ai_price_t       *price;         /* NULL: of live data */
    ngx_array_t                params;        /* of ngx_http_ai_param_t */

    u_char                    *file;
    ngx_uint_t                 line;
};


typedef struct {
    ngx_str_t                  name;
    ngx_str_t                  model_name;
    ngx_http_ai_model_t       *model;
    u_char                    *file;
    ngx_uint_t                 line;
} ngx_http_ai_alias_t;


typedef enum {
    NGX_HTTP_AI_PASS_NONE = 0,
    NGX_HTTP_AI_PASS_MODEL,
    NGX_HTTP_AI_PASS_PROVIDER,
    NGX_HTTP_AI_PASS_VARIABLE
} ngx_http_ai_pass_e;


typedef struct {
    const ngx_http_ai_api_t   *api;
    ngx_array_t                providers;     /* of ngx_http_ai_provider_t * */
    ngx_array_t                models;        /* of ngx_http_ai_model_t * */
    ngx_array_t                aliases;       /* of ngx_http_ai_alias_t */
    ngx_array_t                locations;     /* of router loc confs with names
                                                 to resolve */
    ngx_hash_t                 model_hash;    /* models and aliases by name;
                                                 value ngx_http_ai_model_t * */
    ngx_http_ai_model_t       *defaults;      /* for targets asked directly */
    ngx_http_ai_data_t        *prices;        /* NULL: there is no ai_data */
    ngx_http_ai_prices_t      *prices_now;    /* per worker */
    ngx_resolver_t            *resolver;
    ngx_msec_t                 resolver_timeout;
    time_t                     started;       /* "created" of models */
} ngx_http_ai_router_main_conf_t;


typedef struct {
    ngx_http_ai_pass_e         pass;
    ngx_str_t                  pass_name;
    ngx_http_ai_provider_t    *provider;
    ngx_http_complex_value_t  *variable;
    ngx_flag_t                 direct;

    ngx_array_t               *fallbacks;     /* of ngx_http_ai_target_t;
                                                 ai_fallback; NULL: none,
                                                 empty: off */
    ngx_http_core_loc_conf_t  *clcf;          /* of the location of ai_pass */
    u_char                    *file;
    ngx_uint_t                 line;
} ngx_http_ai_router_loc_conf_t;


/* ngx_http_ai_router_provider.c: "ai_provider name { ... }" */

char *ngx_http_ai_provider_block(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

ngx_http_ai_provider_t *ngx_http_ai_provider_find(
    ngx_http_ai_router_main_conf_t *amcf, ngx_str_t *name);


/* ngx_http_ai_router_endpoint.c */

/* provider->endpoint to host, hostname, port and path; NULL or an error */
const char *ngx_http_ai_provider_url(ngx_pool_t *pool,
    ngx_http_ai_provider_t *provider);

/* after all of http{} was read: upstreams, TLS contexts, peers */
ngx_int_t ngx_http_ai_provider_init(ngx_conf_t *cf,
    ngx_http_ai_router_main_conf_t *amcf);


/* ngx_http_ai_router_model.c: ai_model, ai_alias, ai_fallback, ai_pass */

char *ngx_http_ai_model_block(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_ai_alias(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_ai_fallback(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_ai_pass(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/* with the defaults of all settings; NULL: no memory */
ngx_http_ai_model_t *ngx_http_ai_model_create(ngx_conf_t *cf);

/* "model "name"", for messages */
ngx_str_t ngx_http_ai_model_who(ngx_pool_t *pool, ngx_http_ai_model_t *model);


/* ngx_http_ai_router_names.c */

/* in configuration order: works before the hash is built */
ngx_http_ai_model_t *ngx_http_ai_model_by_name(
    ngx_http_ai_router_main_conf_t *amcf, ngx_str_t *name);
ngx_http_ai_alias_t *ngx_http_ai_alias_by_name(
    ngx_http_ai_router_main_conf_t *amcf, ngx_str_t *name);

/* resolves names to providers and models; [emerg] with file:line and a near
 * match for what dangles */
ngx_int_t ngx_http_ai_model_init(ngx_conf_t *cf,
    ngx_http_ai_router_main_conf_t *amcf);

ngx_http_ai_model_t *ngx_http_ai_model_find(
    ngx_http_ai_router_main_conf_t *amcf, ngx_str_t *name);

/* may the caller use the model, by one of its targets at least? */
ngx_uint_t ngx_http_ai_model_permitted(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_router_main_conf_t *amcf,
    ngx_http_ai_model_t *model);

/* up to 3 names that resemble "name" and that the caller may use, as
 * ", did you mean "a" or "b"?" text in the pool; empty when none does */
ngx_int_t ngx_http_ai_model_near(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_router_main_conf_t *amcf,
    ngx_str_t *name, ngx_str_t *text);

/*
 * ngx_http_ai_router_peer.c: connections to the endpoint of one provider:
 * address list followed by DNS, keepalive cache, TLS sessions; per worker.
 */

/* creates the peers and puts an unregistered upstream with our peer.init into
 * provider->upstream.upstream */
ngx_int_t ngx_http_ai_peers_create(ngx_conf_t *cf,
    ngx_http_ai_router_main_conf_t *amcf, ngx_http_ai_provider_t *provider);

/* sets amcf->resolver: that of http {}, or one of /etc/resolv.conf, or NULL */
ngx_int_t ngx_http_ai_peers_resolver(ngx_conf_t *cf,
    ngx_http_ai_router_main_conf_t *amcf);

/* starts resolving in a worker */
ngx_int_t ngx_http_ai_peers_start(ngx_cycle_t *cycle,
    ngx_http_ai_router_main_conf_t *amcf);


/* ngx_http_ai_router_price.c */

ngx_int_t ngx_http_ai_prices_init(ngx_conf_t *cf,
    ngx_http_ai_router_main_conf_t *amcf);


/*
 * ngx_http_ai_router_health.c: what all workers share about providers, targets
 * and keys: breaker, cooldown, running attempts.
 */

/* registers the shared part; after providers and models are resolved */
ngx_int_t ngx_http_ai_health_init(ngx_conf_t *cf,
    ngx_http_ai_router_main_conf_t *amcf);

typedef enum {
    NGX_HTTP_AI_HEALTH_OK = 0,
    NGX_HTTP_AI_HEALTH_PROBE,         /* half-open, the caller is the probe */
    NGX_HTTP_AI_HEALTH_OPEN,          /* breaker is open */
    NGX_HTTP_AI_HEALTH_COOLING        /* asked to wait */
} ngx_http_ai_health_e;

/* may the target be asked now?  wait: ms until it may, when not.  PROBE must
 * be followed by ngx_http_ai_health_result() or _release() */
ngx_http_ai_health_e ngx_http_ai_health_check(ngx_http_ai_health_t *h,
    ngx_http_ai_model_t *model, ngx_msec_t *wait);

/* look without taking the probe */
ngx_http_ai_health_e ngx_http_ai_health_peek(ngx_http_ai_health_t *h,
    ngx_http_ai_model_t *model, ngx_msec_t *wait);

void ngx_http_ai_health_result(ngx_http_ai_health_t *h,
    ngx_http_ai_model_t *model, ngx_uint_t failed, ngx_uint_t probe);

/* an attempt that says nothing about the target (client left) ends a probe */
void ngx_http_ai_health_release(ngx_http_ai_health_t *h);

void ngx_http_ai_health_cooldown(ngx_http_ai_health_t *h, ngx_msec_t wait);

/* takes one of "max" running attempts; NGX_BUSY when there is none.  Slots of
 * dead workers are taken back. */
ngx_int_t ngx_http_ai_health_enter(ngx_http_ai_health_t *h, ngx_uint_t max);
void ngx_http_ai_health_leave(ngx_http_ai_health_t *h);

typedef struct {
    ngx_uint_t                 state;         /* 0 closed, 1 half-open,
                                                 2 open */
    ngx_uint_t                 opens;         /* how often it has opened */
    ngx_msec_t                 cooldown;      /* ms left */
    ngx_uint_t                 running;
} ngx_http_ai_health_status_t;

void ngx_http_ai_health_status(ngx_http_ai_health_t *h,
    ngx_http_ai_health_status_t *status);


/* ngx_http_ai_router_samples.c: a collector; data is the main conf */

void ngx_http_ai_router_samples(void *data, ngx_http_ai_samples_t *s);


/* ngx_http_ai_router_exec.c: the content handler and the attempts' engine */

ngx_int_t ngx_http_ai_router_handler(ngx_http_request_t *r);

/* hook: the plan of a request, or its refusal */
ngx_int_t ngx_http_ai_router_resolve(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);

/* usage, its state and the cost into the ctx, before the request is logged */
ngx_int_t ngx_http_ai_router_meter(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);


extern ngx_module_t  ngx_http_ai_router_module;


#endif /* _NGX_HTTP_AI_ROUTER_H_INCLUDED_ */
