
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Limits that several nodes share.  A node takes grants from Redis and serves
 * requests from its own store, whose limit is what was granted: a window's
 * limit is the sum granted in it, a rate's burst is all that was granted since
 * its use began and nothing comes back by itself, slots are slots.
 */


#ifndef _NGX_HTTP_AI_RATELIMIT_LEASE_H_INCLUDED_
#define _NGX_HTTP_AI_RATELIMIT_LEASE_H_INCLUDED_


#include "ngx_http_ai_ratelimit.h"


/* ms: slots and tokens of rates are a node's so long after an operation */
#define NGX_HTTP_AI_LEASE_TIME    10000

/* ... it does not use them in the last of these */
#define NGX_HTTP_AI_LEASE_MARGIN  1000

/* ... they are renewed after, */
#define NGX_HTTP_AI_LEASE_RENEW   3000

/* ... and given back when nobody has asked for */
#define NGX_HTTP_AI_LEASE_IDLE    5000

/* ms in which a refusal of Redis is repeated without asking it */
#define NGX_HTTP_AI_LEASE_KNOWN   50

#define NGX_HTTP_AI_LEASE_SET     8

/*
 * ms since a time that any worker has written: it may be ahead of this one's,
 * which is that of the beginning of its turn
 */
#define ngx_http_ai_lease_since(t)                                            \
    ((ngx_msec_int_t) (ngx_current_msec - (t)))


typedef struct {
    int64_t                        limit;     /* as last asked for; -1: not */
    int64_t                        period;
    int64_t                        burst;
    int64_t                        start;
    int64_t                        end;

    int64_t                        granted;
    int64_t                        debit;     /* rates: local grants of which
                                                 Redis does not know */
    int64_t                        level;     /* rates: of local grants */
    int64_t                        filled;    /* ms, wall clock */
    int64_t                        chunk;
    int64_t                        free;      /* in Redis, as it said */
    int64_t                        used;      /* by all nodes, as it said; */
    int64_t                        told;      /* ... with so much of ours */
    int64_t                        wait;
    int64_t                        raise;     /* in Redis, of the limit */
    ngx_msec_t                     given;     /* when a grant came */
} ngx_http_ai_lease_meter_t;


typedef struct {
    uint32_t                       hash;
    uint32_t                       len;       /* 0: free */
    u_char                         key[NGX_HTTP_AI_LIMIT_KEY_MAX];

    uint64_t                       keeper;    /* worker that looks after it */
    uint64_t                       seq;       /* of the last operation */
    uint64_t                       got;       /* ... that was answered */
    uint64_t                       era;       /* the last reset of it */
    ngx_uint_t                     busy;      /* it runs, until then, or */
    ngx_msec_t                     until;     /* ... its worker is dead */
    ngx_msec_t                     touched;   /* by a request */
    ngx_msec_t                     synced;    /* start of the last operation
                                                 that was answered; */
    ngx_msec_t                     answered;  /* ... its end */
    ngx_uint_t                     known;     /* ... there was one */
    ngx_uint_t                     nodes;
    ngx_http_ai_lease_meter_t      m[NGX_HTTP_AI_METER_MAX];
} ngx_http_ai_lease_t;


typedef enum {
    NGX_HTTP_AI_ASK_MORE = 0,         /* a grant */
    NGX_HTTP_AI_ASK_TELL,             /* tells what is used, renews */
    NGX_HTTP_AI_ASK_RETURN            /* gives back what is not used */
} ngx_http_ai_ask_e;


typedef struct ngx_http_ai_ask_s  ngx_http_ai_ask_t;


/* ngx_http_ai_ratelimit_lease.c; all of it under the zone's lock */

/* room for leases in the zone's memory, before the store takes the rest */
ngx_int_t ngx_http_ai_lease_init(ngx_http_ai_limit_zone_t *zone);

/* NULL: there is none (or, with create, no room) */
ngx_http_ai_lease_t *ngx_http_ai_lease_get(ngx_http_ai_limit_zone_t *zone,
    ngx_str_t *key, ngx_uint_t create);

/* is what was granted for a time still this node's? */
ngx_uint_t ngx_http_ai_lease_valid(ngx_http_ai_lease_t *le);

/* takes over what is asked for now */
void ngx_http_ai_lease_adopt(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_lease_t *le, ngx_http_ai_limit_t *limits, int64_t now);

/* limits for the store; local: with the node's share of what nobody grants */
void ngx_http_ai_lease_limits(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_lease_t *le, ngx_http_ai_limit_t *out, ngx_uint_t local);

/* what is lacking of the amounts, with those limits; *lacks: of any */
void ngx_http_ai_lease_lack(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_lease_t *le, int64_t now, ngx_http_ai_limit_t *limits,
    ngx_http_ai_amounts_t *amounts, ngx_http_ai_amounts_t *lack,
    ngx_uint_t *lacks);

/* grants of this node to itself; NGX_DECLINED: it has used its share */
ngx_int_t ngx_http_ai_lease_grant(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_lease_t *le, int64_t now, ngx_http_ai_amounts_t *amounts,
    ngx_http_ai_limit_refusal_t *refusal);

/* states as the clients see them: of all nodes */
void ngx_http_ai_lease_states(ngx_http_ai_limit_zone_t *zone, ngx_str_t *key,
    ngx_http_ai_limit_state_t *states, int64_t now);

/* what was used before that reset is forgotten, what is held stays */
void ngx_http_ai_lease_forget(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_lease_t *le, uint64_t era, int64_t now);

/* nothing is used, granted or owed: the record may go */
ngx_uint_t ngx_http_ai_lease_empty(ngx_http_ai_lease_t *le);


/* ngx_http_ai_ratelimit_redis.c */

ngx_int_t ngx_http_ai_lease_configure(ngx_conf_t *cf,
    ngx_http_ai_ratelimit_main_conf_t *rmcf);
void ngx_http_ai_lease_start(ngx_http_ai_ratelimit_main_conf_t *rmcf);

/* as ngx_http_ai_limit_take(); NGX_AGAIN: it waits for a grant */
ngx_int_t ngx_http_ai_lease_take(ngx_http_request_t *r,
    ngx_http_ai_limited_t *l, ngx_http_ai_ticket_t *t, ngx_uint_t show);

ngx_int_t ngx_http_ai_lease_topup(ngx_http_ai_limited_t *l,
    ngx_http_ai_ticket_t *t, ngx_http_ai_amounts_t *amounts, int64_t now,
    ngx_http_ai_limit_refusal_t *refusal);

/*
 * A stream has come near the end of what it holds, and the next step is not
 * here.  NGX_AGAIN: it is held until a grant has come, or is late;
 * NGX_DECLINED: there is none.
 */
ngx_int_t ngx_http_ai_lease_hold(ngx_http_request_t *r,
    ngx_http_ai_limited_t *l, ngx_http_ai_ticket_t *t);

/* under the lock: something of the key was settled */
void ngx_http_ai_lease_touch(ngx_http_ai_limit_zone_t *zone, ngx_str_t *key);

/*
 * Under the lock.  NGX_DECLINED: Redis cannot be asked.  An operation of
 * another worker is waited for (with ret), or is enough (without).
 */
ngx_int_t ngx_http_ai_lease_ask(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_lease_t *le, ngx_http_ai_ask_e what,
    ngx_http_ai_amounts_t *need, ngx_http_ai_ask_t **ret);

void ngx_http_ai_lease_status(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_redis_status_t *status);

/* the worker ends: requests are not resumed any more */
void ngx_http_ai_lease_drop(void);


/* the name of a key's hash in Redis, into a buffer of as much as it needs */
u_char *ngx_http_ai_lease_name(u_char *p, ngx_http_ai_limit_zone_t *zone,
    u_char *key, size_t len);

#define NGX_HTTP_AI_LEASE_NAME  (NGX_HTTP_AI_LIMIT_KEY_MAX + 128)


/* ngx_http_ai_ratelimit_change.c: what an operator changes for all nodes */

typedef void (*ngx_http_ai_change_pt)(ngx_http_request_t *r,
    ngx_uint_t failed);

/*
 * ms > 0: raises the meter by amount for so long, else resets the key.
 * NGX_OK: the handler will be called, unless the request goes before;
 * NGX_DECLINED: Redis cannot be asked.
 */
ngx_int_t ngx_http_ai_change_send(ngx_http_request_t *r,
    ngx_http_ai_limit_zone_t *zone, ngx_str_t *key, ngx_uint_t meter,
    int64_t amount, int64_t ms, ngx_http_ai_change_pt handler);


/* ngx_http_ai_ratelimit_tend.c */

/* under the lock: this worker looks after it from now on */
void ngx_http_ai_lease_keep(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_lease_t *le);

void ngx_http_ai_lease_tick(ngx_http_ai_limit_zone_t *zone);

/* of the client of Redis, before the process ends */
void ngx_http_ai_lease_exit(ngx_cycle_t *cycle);
void ngx_http_ai_lease_stop(ngx_http_ai_ratelimit_main_conf_t *rmcf);


#endif /* _NGX_HTTP_AI_RATELIMIT_LEASE_H_INCLUDED_ */
