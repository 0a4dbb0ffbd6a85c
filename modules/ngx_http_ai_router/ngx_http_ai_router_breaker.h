
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * A circuit breaker as plain data: the caller gives the time and the lock.
 */


#ifndef _NGX_HTTP_AI_ROUTER_BREAKER_H_INCLUDED_
#define _NGX_HTTP_AI_ROUTER_BREAKER_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


#define NGX_HTTP_AI_BREAKER_BUCKETS  10

/* a probe that was never answered for, of a killed worker say, ends itself */
#define NGX_HTTP_AI_BREAKER_PROBE    60000

/* what to tell to those who wait for another's probe */
#define NGX_HTTP_AI_BREAKER_WAIT     1000


typedef enum {
    NGX_HTTP_AI_BREAKER_CLOSED = 0,
    NGX_HTTP_AI_BREAKER_OPEN,
    NGX_HTTP_AI_BREAKER_HALF_OPEN
} ngx_http_ai_breaker_state_e;


typedef enum {
    NGX_HTTP_AI_BREAKER_PASS = 0,
    NGX_HTTP_AI_BREAKER_TRY,          /* half-open, the caller is the probe */
    NGX_HTTP_AI_BREAKER_REFUSE
} ngx_http_ai_breaker_answer_e;


typedef enum {
    NGX_HTTP_AI_BREAKER_SAME = 0,
    NGX_HTTP_AI_BREAKER_OPENED,
    NGX_HTTP_AI_BREAKER_REOPENED,
    NGX_HTTP_AI_BREAKER_RECOVERED
} ngx_http_ai_breaker_change_e;


typedef struct {
    ngx_uint_t   rate;                /* percent of failures; 0: off */
    ngx_uint_t   min;                 /* results in the window */
    ngx_msec_t   window;
    ngx_msec_t   open;
} ngx_http_ai_breaker_conf_t;


typedef struct {
    uint32_t     ok;
    uint32_t     failed;
} ngx_http_ai_breaker_bucket_t;


/* all zeroes: closed, nothing known */

typedef struct {
    ngx_uint_t                    state;
    ngx_msec_t                    until;      /* of open */
    ngx_msec_t                    probe_until;
    ngx_pid_t                     probe;      /* who probes, or 0 */

    ngx_msec_t                    width;      /* ms of one bucket */
    ngx_msec_t                    slot;       /* number of the newest */
    ngx_http_ai_breaker_bucket_t  buckets[NGX_HTTP_AI_BREAKER_BUCKETS];
} ngx_http_ai_breaker_t;


/* wait: ms until it makes sense to ask again, when refused */
ngx_http_ai_breaker_answer_e ngx_http_ai_breaker_peek(
    ngx_http_ai_breaker_t *b, ngx_http_ai_breaker_conf_t *conf,
    ngx_msec_t now, ngx_msec_t *wait);

/* the same, and takes the probe for pid */
ngx_http_ai_breaker_answer_e ngx_http_ai_breaker_check(
    ngx_http_ai_breaker_t *b, ngx_http_ai_breaker_conf_t *conf,
    ngx_msec_t now, ngx_pid_t pid, ngx_msec_t *wait);

/* nfailed, total: those of the window when it opened */
ngx_http_ai_breaker_change_e ngx_http_ai_breaker_result(
    ngx_http_ai_breaker_t *b, ngx_http_ai_breaker_conf_t *conf,
    ngx_msec_t now, ngx_uint_t failed, ngx_uint_t probe, ngx_uint_t *nfailed,
    ngx_uint_t *total);

/* the probe of pid ended without a result: the next caller is the probe */
void ngx_http_ai_breaker_release(ngx_http_ai_breaker_t *b, ngx_pid_t pid);

/* ms from now to "until"; 0 when over, or when further than "max" away */
ngx_msec_t ngx_http_ai_breaker_left(ngx_msec_t until, ngx_msec_t now,
    ngx_msec_t max);


#endif /* _NGX_HTTP_AI_ROUTER_BREAKER_H_INCLUDED_ */
