
/*
 * Copyright (C) nginx AI gateway authors
 */


/* private to the client of Redis: what its files share */


#ifndef _NGX_HTTP_AI_REDIS_CTX_H_INCLUDED_
#define _NGX_HTTP_AI_REDIS_CTX_H_INCLUDED_


#include "ngx_http_ai_core_module.h"
#include <ngx_event_connect.h>
#include <hiredis/hiredis.h>


#define NGX_HTTP_AI_REDIS_MAX       16    /* of a configuration */
#define NGX_HTTP_AI_REDIS_NAME      32
#define NGX_HTTP_AI_REDIS_POOL      16
#define NGX_HTTP_AI_REDIS_ADDRS     4

/* bytes that wait to be sent, or of an answer: more is no good sign */
#define NGX_HTTP_AI_REDIS_BUFFER    (8 * 1024 * 1024)

/* ms without an answer after which a connection is given up */
#define NGX_HTTP_AI_REDIS_STALL     1000

#define NGX_HTTP_AI_REDIS_BACKOFF_MIN  50
#define NGX_HTTP_AI_REDIS_BACKOFF_MAX  2000


/* shared by all workers */

typedef struct {
    u_char                          name[NGX_HTTP_AI_REDIS_NAME + 1];
    ngx_atomic_t                    failures;
    ngx_atomic_t                    since;    /* the first of them, ms */
    ngx_atomic_t                    open;     /* when to probe; 0: closed */
    ngx_atomic_t                    warned;   /* of no append-only file */

    /* figures of all workers */
    ngx_atomic_t                    commands;
    ngx_atomic_t                    errors;
    ngx_atomic_t                    timeouts;
    ngx_atomic_t                    latency;  /* of the last answer, ms */
    ngx_atomic_t                    answered; /* when it came; 0: none did */
    ngx_atomic_t                    lost;     /* a connection was, last */
} ngx_http_ai_redis_sh_t;

#define ngx_http_ai_redis_count(redis, figure)                                \
    (redis)->status.figure++;                                                 \
    (void) ngx_atomic_fetch_add(&(redis)->sh->figure, 1)


typedef enum {
    NGX_HTTP_AI_REDIS_DOWN = 0,       /* waits for the next try */
    NGX_HTTP_AI_REDIS_RESOLVING,
    NGX_HTTP_AI_REDIS_CONNECTING,
    NGX_HTTP_AI_REDIS_HELLO,
    NGX_HTTP_AI_REDIS_UP
} ngx_http_ai_redis_state_e;


typedef enum {
    NGX_HTTP_AI_REDIS_USER = 0,
    NGX_HTTP_AI_REDIS_AUTH,
    NGX_HTTP_AI_REDIS_SELECT,
    NGX_HTTP_AI_REDIS_SETNAME,
    NGX_HTTP_AI_REDIS_CONFIG,
    NGX_HTTP_AI_REDIS_INFO
} ngx_http_ai_redis_kind_e;


typedef struct {
    ngx_http_ai_redis_t            *redis;
    ngx_http_ai_redis_state_e       state;
    ngx_log_t                       log;
    ngx_pool_t                     *pool;     /* of one connection */
    ngx_peer_connection_t           peer;
    ngx_resolver_ctx_t             *resolving;
    ngx_addr_t                      addrs[NGX_HTTP_AI_REDIS_ADDRS];
    ngx_uint_t                      naddrs;
    ngx_uint_t                      next;
#if (NGX_HTTP_SSL)
    ngx_http_ai_tls_peer_t          tls;
#endif

    redisReader                    *reader;
    u_char                         *out;
    size_t                          pos;
    size_t                          last;
    size_t                          size;

    ngx_queue_t                     waiting;  /* for their answers */
    ngx_uint_t                      nwaiting;
    ngx_uint_t                      failed;   /* tries since the last one */
    ngx_msec_t                      backoff;
    ngx_msec_t                      since;    /* it is up */
    ngx_event_t                     timer;    /* of a try, or until the next */
    ngx_event_t                     stall;
    unsigned                        said:1;   /* that it is down */
} ngx_http_ai_redis_conn_t;


struct ngx_http_ai_redis_s {
    ngx_str_t                       name;
    ngx_str_t                       server;   /* as written */
    ngx_url_t                       url;
    ngx_str_t                       user;
    ngx_str_t                       password;
    ngx_int_t                       database;
    ngx_str_t                       tls_ca;
    ngx_str_t                       tls_name;
    ngx_flag_t                      tls;
    ngx_flag_t                      tls_verify;
    ngx_msec_t                      timeout;
    ngx_msec_t                      connect_timeout;
    ngx_http_ai_redis_on_error_e    on_error;
    ngx_uint_t                      max_failures; /* 0: no breaker */
    ngx_msec_t                      within;
    ngx_msec_t                      open;
    ngx_uint_t                      nconns;
    ngx_uint_t                      nodes;
    u_char                         *file;
    ngx_uint_t                      line;
#if (NGX_HTTP_SSL)
    ngx_ssl_t                      *ssl;
#endif
    ngx_http_ai_core_main_conf_t   *amcf;
    ngx_http_ai_redis_sh_t         *sh;
    ngx_array_t                     at_exit;
    unsigned                        durable:1;

    /* of a worker */
    ngx_http_ai_redis_conn_t       *conns;
    ngx_queue_t                     queued;   /* until there is a connection */
    ngx_queue_t                     timed;    /* all with a handler */
    ngx_event_t                     timer;
    ngx_event_t                     probe;
    ngx_connection_t                dummy;
    ngx_str_t                       replid;
    u_char                          replid_data[40];
    ngx_http_ai_redis_status_t      status;
    unsigned                        started:1;
    unsigned                        probing:1;
};


struct ngx_http_ai_redis_op_s {
    ngx_queue_t                     queue;
    ngx_queue_t                     timed;
    ngx_http_ai_redis_t            *redis;
    ngx_http_ai_redis_conn_t       *conn;     /* NULL: it is not sent */
    ngx_http_ai_redis_kind_e        kind;
    ngx_http_ai_redis_script_t     *script;
    ngx_http_ai_redis_pt            handler;  /* NULL: nobody waits */
    void                           *data;
    ngx_msec_t                      sent;
    ngx_msec_t                      deadline;
    ngx_uint_t                      argc;
    ngx_str_t                      *argv;
    unsigned                        again:1;
    unsigned                        whole:1;  /* the script's text is sent */
};


/* ngx_http_ai_redis_conn.c */

void ngx_http_ai_redis_connect(ngx_http_ai_redis_conn_t *rc);
void ngx_http_ai_redis_conn_init(ngx_http_ai_redis_conn_t *rc,
    ngx_http_ai_redis_t *redis);

/* closes, all that wait are told that it is lost, and tries again later */
void ngx_http_ai_redis_down(ngx_http_ai_redis_conn_t *rc, const char *fmt,
    ...);
void ngx_http_ai_redis_close(ngx_http_ai_redis_conn_t *rc);

/* what is to be sent is there */
void ngx_http_ai_redis_flush(ngx_http_ai_redis_conn_t *rc);

/* for the end of a process: waits so many ms for answers */
void ngx_http_ai_redis_drain(ngx_http_ai_redis_conn_t *rc, ngx_msec_t ms);


/* ngx_http_ai_redis.c */

/* the first commands of a connection; NGX_ERROR: no memory */
ngx_int_t ngx_http_ai_redis_hello(ngx_http_ai_redis_conn_t *rc);

/* an answer to the first one that waits; NGX_ERROR: give it up (said) */
ngx_int_t ngx_http_ai_redis_answer(ngx_http_ai_redis_conn_t *rc,
    redisReply *reply);

/* those in the list will not be answered */
void ngx_http_ai_redis_lost(ngx_http_ai_redis_t *redis, ngx_queue_t *list);

ngx_int_t ngx_http_ai_redis_shared(ngx_conf_t *cf);


#endif /* _NGX_HTTP_AI_REDIS_CTX_H_INCLUDED_ */
