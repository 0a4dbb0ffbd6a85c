
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The client of Redis: commands of a worker go pipelined over its own
 * connections, and no call ever waits.  Other modules reach it through the
 * function table.
 */


#ifndef _NGX_HTTP_AI_REDIS_H_INCLUDED_
#define _NGX_HTTP_AI_REDIS_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


typedef struct ngx_http_ai_redis_s     ngx_http_ai_redis_t;
typedef struct ngx_http_ai_redis_op_s  ngx_http_ai_redis_op_t;


/* what is to be done without an answer: of "on_error", for those who ask */

typedef enum {
    NGX_HTTP_AI_REDIS_UNSET = 0,
    NGX_HTTP_AI_REDIS_DENY,
    NGX_HTTP_AI_REDIS_LOCAL,
    NGX_HTTP_AI_REDIS_ALLOW
} ngx_http_ai_redis_on_error_e;


typedef enum {
    NGX_HTTP_AI_REDIS_OK = 0,
    NGX_HTTP_AI_REDIS_REFUSED,        /* Redis says an error: text */
    NGX_HTTP_AI_REDIS_TIMEOUT,        /* it may have been executed */
    NGX_HTTP_AI_REDIS_LOST            /* ... the same */
} ngx_http_ai_redis_rc_e;


typedef struct {
    ngx_http_ai_redis_rc_e     rc;
    int64_t                    integer;
    ngx_str_t                  text;      /* gone after the handler */
    unsigned                   nil:1;
} ngx_http_ai_redis_reply_t;


typedef void (*ngx_http_ai_redis_pt)(void *data,
    ngx_http_ai_redis_reply_t *reply);


/* a Lua script; sha1 is made by the client */

typedef struct {
    ngx_str_t                  text;
    u_char                     sha1[40];
    ngx_uint_t                 ready;
} ngx_http_ai_redis_script_t;


typedef struct {
    unsigned                   up:1;      /* a connection of this worker is */
    unsigned                   open:1;    /* breaker, of all workers */
    ngx_int_t                  appendonly;    /* -1: not known */
    ngx_msec_t                 latency;   /* of the last answer */
    ngx_uint_t                 errors;    /* of this worker, since its start */
    ngx_uint_t                 timeouts;
    ngx_uint_t                 commands;
    ngx_uint_t                 pending;
    ngx_uint_t                 histories; /* how often it came back with data
                                             that may not be the last */
} ngx_http_ai_redis_status_t;


/*
 * After all of http {} was read: the "ai_redis" of that name, or NULL with
 * *near set to ", did you mean ...".
 */
ngx_http_ai_redis_t *ngx_http_ai_redis_find(ngx_conf_t *cf, ngx_str_t *name,
    ngx_str_t *near);

/* somebody's data must survive a restart of Redis: it warns if it would not */
void ngx_http_ai_redis_durable(ngx_http_ai_redis_t *redis);

/* calls handler in a worker that ends, while commands can still be sent */
ngx_int_t ngx_http_ai_redis_at_exit(ngx_http_ai_redis_t *redis,
    void (*handler)(ngx_cycle_t *cycle));

ngx_http_ai_redis_on_error_e ngx_http_ai_redis_on_error(
    ngx_http_ai_redis_t *redis);

ngx_msec_t ngx_http_ai_redis_timeout(ngx_http_ai_redis_t *redis);

/* "nodes": how many gateways there are while nobody can tell */
ngx_uint_t ngx_http_ai_redis_nodes(ngx_http_ai_redis_t *redis);

/*
 * Sends a command, or a script with argv = number of keys, keys, arguments;
 * all is copied.  NGX_OK: the handler will be called once, never from inside
 * this call, and *op is valid until then; NGX_DECLINED: there is no
 * connection, or the breaker is open, and nothing was sent; NGX_ERROR: no
 * memory.  A script may be executed twice, so it must be idempotent.
 */
ngx_int_t ngx_http_ai_redis_send(ngx_http_ai_redis_t *redis,
    ngx_http_ai_redis_script_t *script, ngx_str_t *argv, ngx_uint_t argc,
    ngx_http_ai_redis_pt handler, void *data, ngx_http_ai_redis_op_t **op);

/* the handler will not be called */
void ngx_http_ai_redis_cancel(ngx_http_ai_redis_op_t *op);

void ngx_http_ai_redis_status(ngx_http_ai_redis_t *redis,
    ngx_http_ai_redis_status_t *status);

/* the "ai_redis" n of the configuration, from 0, and its name; NULL: there are
 * only n */
ngx_http_ai_redis_t *ngx_http_ai_redis_at(ngx_cycle_t *cycle, ngx_uint_t n,
    ngx_str_t *name);


#endif /* _NGX_HTTP_AI_REDIS_H_INCLUDED_ */
