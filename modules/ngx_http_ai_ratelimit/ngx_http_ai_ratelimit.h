
/*
 * Copyright (C) nginx AI gateway authors
 */


/* private to the limits: what their nginx files share */


#ifndef _NGX_HTTP_AI_RATELIMIT_H_INCLUDED_
#define _NGX_HTTP_AI_RATELIMIT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_ai_core.h"
#include "ngx_http_ai_quantity.h"
#include "ngx_http_ai_limit_store.h"
#include "ngx_http_ai_limit_window.h"


#define NGX_HTTP_AI_LIMIT_KEY_MAX     128
#define NGX_HTTP_AI_LIMIT_KEY_ROOM    32
#define NGX_HTTP_AI_LIMIT_PARTS       4
#define NGX_HTTP_AI_LIMIT_GUESSES     256
#define NGX_HTTP_AI_LIMIT_ALERTS      8
#define NGX_HTTP_AI_LIMIT_WORKERS     512
#define NGX_HTTP_AI_LIMIT_RAISES      64

#define NGX_HTTP_AI_LIMIT_MOST        NGX_HTTP_AI_QUANTITY_MOST

#define ngx_http_ai_meter_bit(m)  ((ngx_uint_t) 1 << NGX_HTTP_AI_METER_##m)

/* meters that output changes; those that need an estimate */
#define NGX_HTTP_AI_LIMIT_OUTPUT                                              \
    (ngx_http_ai_meter_bit(TOKENS)|ngx_http_ai_meter_bit(OUTPUT)              \
     |ngx_http_ai_meter_bit(Q_TOKENS)|ngx_http_ai_meter_bit(Q_MONEY))
#define NGX_HTTP_AI_LIMIT_TOKENS                                              \
    (NGX_HTTP_AI_LIMIT_OUTPUT|ngx_http_ai_meter_bit(INPUT))

/* output that is taken more for a stream that goes on, tokens */
#define NGX_HTTP_AI_LIMIT_TOPUP       256

#define NGX_HTTP_AI_LIMIT_MORE        -1

/* ms of silence that a hold survives beyond that of its provider */
#define NGX_HTTP_AI_LIMIT_GRACE       30000


typedef struct ngx_http_ai_switches_s  ngx_http_ai_switches_t;
typedef struct ngx_http_ai_webhook_s   ngx_http_ai_webhook_t;


typedef enum {
    NGX_HTTP_AI_ZONE_LIMIT = 0,
    NGX_HTTP_AI_ZONE_QUOTA
} ngx_http_ai_zone_kind_e;


typedef enum {
    NGX_HTTP_AI_OVERRUN_FINISH = 0,
    NGX_HTTP_AI_OVERRUN_CUT
} ngx_http_ai_overrun_e;


/* "60r/m": an amount and its unit of time */

typedef struct {
    int64_t                        n;         /* < 0: none */
    ngx_int_t                      unit;      /* ngx_http_ai_window_e;
                                                 NGX_ERROR: not written */
} ngx_http_ai_quantity_t;


typedef struct {
    ngx_str_t                      text;      /* as written */
    ngx_http_complex_value_t      *value;     /* NULL: always "rate" */
    ngx_http_ai_quantity_t             rate;
    unsigned                       set:1;
} ngx_http_ai_amount_t;


/* a worker, for the owner of a hold to be known as alive */

typedef struct {
    uint64_t                       owner;     /* 0: free */
    ngx_atomic_t                   beat;      /* ngx_current_msec */
} ngx_http_ai_worker_t;


typedef struct {
    u_char                         key[20];   /* SHA-1; of a free one zeroes */
    ngx_uint_t                     meter;
    int64_t                        amount;    /* more than the limit */
    int64_t                        until;     /* ms, wall clock */
} ngx_http_ai_raise_t;


/* the beginning of a zone's shared memory, at shpool->data */

typedef struct {
    void                          *leases;    /* of a zone with Redis */
    ngx_uint_t                     nleases;
    uint64_t                       operations;
    ngx_uint_t                     nodes;     /* as Redis has said last */
    ngx_uint_t                     scanned;
    void                          *block;     /* of the store */
    size_t                         size;
    uint64_t                       epoch;     /* names this memory in its
                                                 snapshot file */
    ngx_msec_t                     reaped;
    ngx_msec_t                     written;
    ngx_atomic_t                   changes;   /* since the start, */
    ngx_atomic_t                   saved;     /* ... those in the file */
    ngx_atomic_t                   claimed;   /* the file is ours */
    ngx_atomic_t                   alerts;    /* thresholds passed */
    ngx_atomic_t                   nraises;
    ngx_http_ai_raise_t            raises[NGX_HTTP_AI_LIMIT_RAISES];
    ngx_http_ai_worker_t           workers[NGX_HTTP_AI_LIMIT_WORKERS];
} ngx_http_ai_zone_sh_t;


/* of a key */

typedef struct {
    ngx_str_t                      text;
    ngx_int_t                      index;     /* of a variable; NGX_ERROR:
                                                 the text */
} ngx_http_ai_key_part_t;


/* what each request looks at is at the beginning, in few cache lines */

typedef struct {
    ngx_http_ai_limit_store_t     *store;
    ngx_http_ai_zone_sh_t         *sh;
#if (NGX_HAVE_ATOMIC_OPS)
    ngx_atomic_t                  *lock;      /* of the slab pool */
#endif
    ngx_http_ai_redis_t           *redis;     /* NULL: none */
    ngx_str_t                      snapshot;
    ngx_uint_t                     nalerts;
    ngx_http_ai_zone_kind_e        kind;
    unsigned                       unknown_price:1;   /* is let through */
    ngx_uint_t                     given;     /* bits of those with a limit */
    ngx_uint_t                     zeros;     /* ... that allow nothing */
    ngx_uint_t                     variable;  /* ... set by variables */
    ngx_str_t                      constant;  /* a key without variables */
    ngx_uint_t                     nparts;    /* 0: a complex value only */
    ngx_http_ai_key_part_t         parts[NGX_HTTP_AI_LIMIT_PARTS];

    /*
     * Those of requests, as far as they are constant: all but the windows,
     * which are the worker's.
     */
    ngx_http_ai_limit_t            limits[NGX_HTTP_AI_METER_MAX];
    ngx_http_ai_window_e           units[NGX_HTTP_AI_METER_MAX];

    uint32_t                       guesses[NGX_HTTP_AI_LIMIT_GUESSES];
                                              /* where keys are, per worker */

    ngx_str_t                      name;
    ngx_str_t                      key_text;
    ngx_http_complex_value_t       key;
    ngx_http_ai_amount_t           amounts[NGX_HTTP_AI_METER_MAX];
    ngx_uint_t                     meters;    /* bits of those set */
    int64_t                        burst;     /* 0: the whole limit */

    ngx_http_ai_tz_t              *tz;
    ngx_uint_t                     week;      /* first day, 1 is Monday */
    ngx_uint_t                     month;     /* first day */
    ngx_uint_t                     alerts[NGX_HTTP_AI_LIMIT_ALERTS];
                                              /* percents, rising */
    ngx_str_t                      loaded;    /* what was in the file, until
                                                 the file is ours */
    ngx_str_t                      redis_name;
    ngx_uint_t                     nodes;     /* while nobody can tell */
    ngx_array_t                   *kept;      /* leases of the worker */
    ngx_uint_t                     tended;
    ngx_uint_t                     histories; /* of Redis */

    ngx_shm_zone_t                *shm_zone;
    ngx_slab_pool_t               *shpool;

    ngx_msec_t                     complained;    /* per worker */
    u_char                        *file;
    ngx_uint_t                     line;
} ngx_http_ai_limit_zone_t;


/* a use of a zone in a location */

typedef struct {
    ngx_str_t                      name;
    ngx_http_ai_limit_zone_t      *zone;
    ngx_http_ai_zone_kind_e        kind;
    ngx_http_ai_overrun_e          overrun;
    u_char                        *file;
    ngx_uint_t                     line;
} ngx_http_ai_limit_use_t;


typedef struct ngx_http_ai_ratelimit_loc_conf_s
    ngx_http_ai_ratelimit_loc_conf_t;


typedef struct {
    const ngx_http_ai_api_t       *api;
    ngx_array_t                    zones;     /* ngx_http_ai_limit_zone_t * */
    ngx_array_t                    locations; /* loc confs with ai_limit or
                                                 ai_quota in the file */
    void                          *learned;   /* shared: see _estimate.c */
    ngx_http_ai_data_t            *switch_data;   /* NULL: no ai_data */
    ngx_http_ai_switches_t        *switches;  /* per worker */
    ngx_http_ai_webhook_t         *webhook;   /* of alerts; NULL: none */
    ngx_uint_t                     used;      /* a location has limits */
    ngx_uint_t                     cost;      /* ... has "ai_headers cost", */
    ngx_uint_t                     usage_cost;    /* ... usage_cost */
} ngx_http_ai_ratelimit_main_conf_t;


#define NGX_HTTP_AI_HEADERS_OFF        0x0001
#define NGX_HTTP_AI_HEADERS_RATELIMIT  0x0002
#define NGX_HTTP_AI_HEADERS_IETF       0x0004
#define NGX_HTTP_AI_HEADERS_COST       0x0008
#define NGX_HTTP_AI_HEADERS_USAGE      0x0010

#define NGX_HTTP_AI_DRY_OFF            0x0001
#define NGX_HTTP_AI_DRY_LIMIT          0x0002
#define NGX_HTTP_AI_DRY_QUOTA          0x0004


struct ngx_http_ai_ratelimit_loc_conf_s {
    ngx_array_t                   *limits;    /* ngx_http_ai_limit_use_t */
    ngx_array_t                   *quotas;
    ngx_array_t                   *uses;      /* of both, merged */
    ngx_uint_t                     nstates;   /* ... of their meters */
    ngx_uint_t                     dry;
    ngx_uint_t                     headers;
    ngx_uint_t                     quota_status;
    unsigned                       limits_off:1;
    unsigned                       quotas_off:1;
    unsigned                       view:1;
    unsigned                       view_write:1;

    /* of the first ai_limit or ai_quota of this level */
    ngx_str_t                      directive;
    u_char                        *file;
    ngx_uint_t                     line;
    unsigned                       location:1;

    ngx_http_ai_ratelimit_loc_conf_t  *parent;
    unsigned                       served:1;  /* by ai_pass here or below */
};


typedef struct ngx_http_ai_waiter_s  ngx_http_ai_waiter_t;


/* what a request holds in one zone */

typedef struct {
    ngx_http_ai_limit_zone_t      *zone;
    ngx_str_t                      key;
    uint32_t                      *guess;     /* where it is */

    /* of each meter; those of the zone as long as they are the same */
    ngx_http_ai_limit_t           *limits;
    ngx_http_ai_window_e          *units;
    ngx_uint_t                     meters;    /* bits of those with a limit */
    ngx_uint_t                     zeros;     /* ... that allow nothing */
    ngx_http_ai_amounts_t          held;
    ngx_http_ai_limit_state_t     *states;    /* of the meters of its kind */
    ngx_http_ai_hold_t             hold;
    int64_t                        output;    /* tokens held of the output */
    ngx_http_ai_overrun_e          overrun;

    ngx_http_ai_amounts_t         *cut;       /* held, within the limits;
                                                 with Redis only */
    ngx_http_ai_waiter_t          *waiter;    /* for a grant */
    ngx_http_ai_waiter_t          *pending;   /* ... while it streams */
    int64_t                        step;      /* output to be asked for next */
    unsigned                       passed:1;  /* unlimited, without Redis */
    unsigned                       taken:1;
    unsigned                       dry:1;
    unsigned                       shown:1;   /* states are good */
    unsigned                       bound:1;   /* input was not counted */

    u_char                         room[NGX_HTTP_AI_LIMIT_KEY_ROOM];
                                              /* for a short key */
} ngx_http_ai_ticket_t;


typedef struct {
    ngx_queue_t                    queue;     /* running ones of the worker */
    ngx_http_ai_ctx_t             *ctx;
    u_char                         id[16];

    ngx_http_ai_ticket_t          *tickets;
    ngx_uint_t                     n;
    ngx_uint_t                     meters;    /* bits of all of them */

    int64_t                        input;     /* the estimate, tokens */
    int64_t                        output;
    ngx_http_ai_amounts_t          amounts;   /* ... in each meter */
    int64_t                        seen;      /* output counted so far */
    ngx_uint_t                     next;      /* ticket that is to be had */
    int64_t                        deadline;  /* ms from now */
    int64_t                        refreshed; /* when it was told last */

    ngx_http_ai_ticket_t          *refused;
    ngx_http_ai_limit_refusal_t    refusal;
    unsigned                       unpriced:1;    /* refused for that */
    unsigned                       forbidden:1;   /* its limit is 0 */
    unsigned                       full:1;    /* no room in the zone */
    unsigned                       away:1;    /* Redis does not answer */
    unsigned                       dry:1;     /* would have been refused */
    unsigned                       running:1; /* in the queue */
    unsigned                       shared:1;  /* a zone is of several nodes */
    unsigned                       bound:1;   /* input is an upper bound */
    unsigned                       capped:1;  /* a zone has overrun=cut */
} ngx_http_ai_limited_t;


/* meters of a kind of zone are numbered from 0 on, below that */

#define ngx_http_ai_kind_meters(kind)                                         \
    (((kind) == NGX_HTTP_AI_ZONE_LIMIT) ? NGX_HTTP_AI_METER_CONCURRENT + 1    \
                                        : NGX_HTTP_AI_METER_MAX)


extern ngx_module_t  ngx_http_ai_ratelimit_module;


/* ngx_http_ai_ratelimit_conf.c */

typedef struct {
    ngx_str_t                      name;      /* of the parameter */
    ngx_http_ai_meter_e            meter;
    unsigned                       usd:1;
} ngx_http_ai_meter_name_t;

/* names of a zone's meters, ending with an empty one */
ngx_http_ai_meter_name_t *ngx_http_ai_meter_names(
    ngx_http_ai_zone_kind_e kind);
ngx_str_t *ngx_http_ai_meter_name(ngx_uint_t meter);

char *ngx_http_ai_limit_zone_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_ai_limit_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_ai_limit_flags(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/*
 * "60r/m", "100k/m", "5m/day", "20", ""; NULL or what is wrong with it.  An
 * empty one, also "/m", is none.
 */
const char *ngx_http_ai_quantity_parse(ngx_str_t *text,
    ngx_http_ai_meter_e meter, ngx_http_ai_quantity_t *rate);

/* resolves names of zones; [emerg] for what dangles */
ngx_int_t ngx_http_ai_limit_resolve(ngx_conf_t *cf,
    ngx_http_ai_ratelimit_main_conf_t *rmcf);

ngx_http_ai_limit_zone_t *ngx_http_ai_limit_zone_find(
    ngx_http_ai_ratelimit_main_conf_t *rmcf, ngx_str_t *name);

const char *ngx_http_ai_unit_name(ngx_http_ai_window_e unit);


/* ngx_http_ai_ratelimit_zone.c: shared memory, workers, the reaper */

ngx_int_t ngx_http_ai_zone_init(ngx_shm_zone_t *shm_zone, void *data);
ngx_int_t ngx_http_ai_zone_start(ngx_cycle_t *cycle,
    ngx_http_ai_ratelimit_main_conf_t *rmcf);
void ngx_http_ai_zone_stop(ngx_cycle_t *cycle,
    ngx_http_ai_ratelimit_main_conf_t *rmcf);

/* all use of a zone's store is between these */
static void ngx_http_ai_zone_lock(ngx_http_ai_limit_zone_t *zone);
static void ngx_http_ai_zone_unlock(ngx_http_ai_limit_zone_t *zone);

void ngx_http_ai_zone_wait(ngx_http_ai_limit_zone_t *zone);
void ngx_http_ai_zone_repaired(ngx_http_ai_limit_zone_t *zone);

/* 16 bytes that no other request has, and who holds it */
void ngx_http_ai_zone_id(u_char *id);
uint64_t ngx_http_ai_zone_owner(void);

/* under the lock: does the worker live? */
ngx_uint_t ngx_http_ai_zone_living(ngx_http_ai_limit_zone_t *zone,
    uint64_t owner);

/* requests of this worker that hold something */
void ngx_http_ai_zone_running(ngx_http_ai_limited_t *l);

/* ms of the wall clock */
int64_t ngx_http_ai_zone_now(void);


/* ngx_http_ai_ratelimit_key.c */

ngx_int_t ngx_http_ai_zone_key(ngx_conf_t *cf, ngx_http_ai_limit_zone_t *zone);

/* NGX_DECLINED: it is empty; "room" is KEY_ROOM bytes */
ngx_int_t ngx_http_ai_limit_key(ngx_http_request_t *r,
    ngx_http_ai_limit_zone_t *zone, ngx_str_t *key, u_char *room);

/* a key that may be too long; NGX_DECLINED: it is empty */
ngx_int_t ngx_http_ai_key_fit(ngx_http_request_t *r, ngx_str_t *key);

uint32_t *ngx_http_ai_key_guess(ngx_http_ai_limit_zone_t *zone,
    ngx_str_t *key);


/* ngx_http_ai_ratelimit_limits.c: the limits of a request in a zone */

/*
 * Where they may be other than those of the zone; without meters: none is for
 * the request.  NGX_ERROR: an amount is no amount.
 */
ngx_int_t ngx_http_ai_ticket_limits(ngx_http_request_t *r,
    ngx_http_ai_limited_t *l, ngx_http_ai_ticket_t *t);

/* limits of its own, to be changed */
ngx_int_t ngx_http_ai_ticket_own(ngx_pool_t *pool, ngx_http_ai_ticket_t *t);

/* what is the same for all requests, at configuration */
void ngx_http_ai_zone_limits(ngx_http_ai_limit_zone_t *zone);

/* windows that "now" is in */
void ngx_http_ai_ticket_windows(ngx_http_ai_ticket_t *t, int64_t now);

/* temporary raises of an operator, under the zone's lock */
void ngx_http_ai_raise_apply(ngx_http_ai_limit_zone_t *zone, ngx_str_t *key,
    ngx_http_ai_limit_t *limits, int64_t now);
ngx_int_t ngx_http_ai_raise_set(ngx_http_ai_limit_zone_t *zone,
    ngx_str_t *key, ngx_uint_t meter, int64_t amount, int64_t until,
    int64_t now);


/* ngx_http_ai_ratelimit_reserve.c */

ngx_int_t ngx_http_ai_limit_hook(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);

/* t->states of its key, as they are looked up; under the lock */
void ngx_http_ai_ticket_peek(ngx_http_ai_ticket_t *t, int64_t now);

/* gives back what was taken; show: its states are told */
void ngx_http_ai_limit_release(ngx_http_ai_limited_t *l, ngx_uint_t show);

/* what so many tokens are in each meter; input is NGX_HTTP_AI_LIMIT_MORE:
 * of more output of a request that was counted before */
void ngx_http_ai_limit_amounts(ngx_http_ai_ctx_t *ctx, int64_t input,
    int64_t output, ngx_http_ai_amounts_t *amounts);


/* ... but for money */

static ngx_inline void
ngx_http_ai_limit_tokens(int64_t input, int64_t output,
    ngx_http_ai_amounts_t *amounts)
{
    ngx_memzero(amounts, sizeof(ngx_http_ai_amounts_t));

    amounts->v[NGX_HTTP_AI_METER_TOKENS] = input + output;
    amounts->v[NGX_HTTP_AI_METER_INPUT] = input;
    amounts->v[NGX_HTTP_AI_METER_OUTPUT] = output;
    amounts->v[NGX_HTTP_AI_METER_Q_TOKENS] = input + output;
}


/* ngx_http_ai_ratelimit_estimate.c */

ngx_int_t ngx_http_ai_learned_init(ngx_slab_pool_t *shpool, void **data,
    void *conf, ngx_log_t *log);
int64_t ngx_http_ai_output_estimate(ngx_http_ai_ratelimit_main_conf_t *rmcf,
    ngx_http_ai_ctx_t *ctx);

/* what the client allows, else the model's own limit, of all choices together;
 * -1: none is known */
int64_t ngx_http_ai_output_asked(ngx_http_ai_ctx_t *ctx, int64_t *times);

void ngx_http_ai_output_learn(ngx_http_ai_ratelimit_main_conf_t *rmcf,
    ngx_http_ai_ctx_t *ctx);


/* ngx_http_ai_ratelimit_cap.c */

/* ctx->output_cap; NGX_DECLINED: there is nothing left for an answer */
ngx_int_t ngx_http_ai_limit_cap(ngx_http_ai_limited_t *l);


/* ngx_http_ai_ratelimit_stream.c */

void ngx_http_ai_limit_watch(ngx_http_ai_limited_t *l);
ngx_int_t ngx_http_ai_limit_observer(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, uint64_t counted);

/* new deadlines for what runs long */
void ngx_http_ai_limit_refresh(ngx_http_ai_limited_t *l, int64_t now);


/* ngx_http_ai_ratelimit_settle.c */

ngx_int_t ngx_http_ai_limit_settle_hook(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);

/* at the end of a worker that does not wait for its requests */
void ngx_http_ai_limit_abandon(ngx_http_ai_limited_t *l);


/* ngx_http_ai_ratelimit_answer.c */

/* sends the refusal; what a hook returns */
ngx_int_t ngx_http_ai_limit_refuse(ngx_http_request_t *r,
    ngx_http_ai_limited_t *l);

ngx_int_t ngx_http_ai_limit_header_hook(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);

ngx_int_t ngx_http_ai_cost_usage_hook(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);
ngx_int_t ngx_http_ai_cost_header_hook(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);

/* an amount of a meter as people write it: money in dollars */
u_char *ngx_http_ai_limit_amount(u_char *p, u_char *last, ngx_uint_t meter,
    int64_t amount);


/* ngx_http_ai_ratelimit_switches.c, ngx_http_ai_ratelimit_switch.c */

ngx_int_t ngx_http_ai_switches_init(ngx_conf_t *cf,
    ngx_http_ai_ratelimit_main_conf_t *rmcf);
ngx_int_t ngx_http_ai_switch_start(ngx_cycle_t *cycle,
    ngx_http_ai_ratelimit_main_conf_t *rmcf);

ngx_int_t ngx_http_ai_switch_resolve(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);
ngx_int_t ngx_http_ai_switch_authorize(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);
ngx_int_t ngx_http_ai_switch_permit(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_route_t *route,
    ngx_http_ai_error_t *err);
ngx_int_t ngx_http_ai_switch_settle(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);

/* temporary raises of live data */
ngx_int_t ngx_http_ai_switch_raises(ngx_http_ai_ratelimit_main_conf_t *rmcf,
    ngx_pool_t *pool, ngx_http_ai_ticket_t *t);


/* ngx_http_ai_ratelimit_webhook.c */

char *ngx_http_ai_alert_webhook(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
void ngx_http_ai_alert_post(ngx_http_ai_webhook_t *hook,
    ngx_http_ai_limit_zone_t *zone, ngx_str_t *key, ngx_uint_t meter,
    ngx_uint_t percent, ngx_http_ai_limit_state_t *state);


/* ngx_http_ai_ratelimit_alert.c */

/* charges that one call of the reaper makes */
#define NGX_HTTP_AI_ZONE_REAP  64

typedef struct {
    size_t                         len;
    u_char                         data[NGX_HTTP_AI_LIMIT_KEY_MAX];
    ngx_http_ai_limit_state_t      before[NGX_HTTP_AI_METER_MAX];
    ngx_http_ai_limit_state_t      after[NGX_HTTP_AI_METER_MAX];
} ngx_http_ai_alert_key_t;

typedef struct {
    ngx_http_ai_limit_zone_t      *zone;
    ngx_uint_t                     n;
    ngx_http_ai_alert_key_t        keys[NGX_HTTP_AI_ZONE_REAP];
} ngx_http_ai_alerts_t;

/* which thresholds were passed between the states of a key?  hook may be
 * NULL */
void ngx_http_ai_alert_passed(ngx_http_ai_webhook_t *hook,
    ngx_http_ai_limit_zone_t *zone, ngx_str_t *key,
    ngx_http_ai_limit_state_t *before, ngx_http_ai_limit_state_t *after,
    ngx_log_t *log);

/* notes what the reaper charges, and tells of it without the lock */
void ngx_http_ai_alert_reaped(void *data, ngx_uint_t pos, ngx_uint_t charged);
void ngx_http_ai_alert_flush(ngx_http_ai_webhook_t *hook,
    ngx_http_ai_alerts_t *alerts, ngx_log_t *log);


/* ngx_http_ai_ratelimit_view.c */

char *ngx_http_ai_limit_view(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);


/* ngx_http_ai_ratelimit_samples.c: a collector; data is the main conf */

void ngx_http_ai_ratelimit_samples(void *data, ngx_http_ai_samples_t *s);


/* ngx_http_ai_ratelimit_snapshot.c */

/* at the start: what the file holds into an empty store */
ngx_int_t ngx_http_ai_snapshot_load(ngx_http_ai_limit_zone_t *zone,
    ngx_log_t *log);

/* writes when there is something new; last: at the end of a worker */
void ngx_http_ai_snapshot_tick(ngx_http_ai_limit_zone_t *zone,
    ngx_log_t *log, ngx_uint_t last);


/* what the next two are going to need, for all zones before the first one */

static ngx_inline void
ngx_http_ai_zone_warm(ngx_http_ai_limit_zone_t *zone, uint32_t key,
    uint32_t hold)
{
#if (NGX_HAVE_ATOMIC_OPS)
    ngx_http_ai_limit_fetch(zone->lock);
#endif

    ngx_http_ai_limit_warm(zone->store, key, hold);
}


/*
 * Nobody sleeps until this lock is free, so nobody has to be woken, and giving
 * it back is a store: a locked instruction would cost as much as the taking.
 * Nothing is allocated in the zone while workers run, so nginx does not take
 * it, but for the dead.
 */

static ngx_inline void
ngx_http_ai_zone_lock(ngx_http_ai_limit_zone_t *zone)
{
#if (NGX_HAVE_ATOMIC_OPS)

    if (!ngx_atomic_cmp_set(zone->lock, 0, ngx_pid)) {
        ngx_http_ai_zone_wait(zone);
    }

#else
    ngx_shmtx_lock(&zone->shpool->mutex);
#endif

    if (ngx_http_ai_limit_enter(zone->store)) {
        ngx_http_ai_zone_repaired(zone);
    }
}


static ngx_inline void
ngx_http_ai_zone_unlock(ngx_http_ai_limit_zone_t *zone)
{
    ngx_http_ai_limit_leave(zone->store);

#if (NGX_HAVE_ATOMIC_OPS)

#if defined __GNUC__ || defined __clang__
    __atomic_store_n(zone->lock, 0, __ATOMIC_RELEASE);
#else
    ngx_memory_barrier();
    *zone->lock = 0;
#endif

#else
    ngx_shmtx_unlock(&zone->shpool->mutex);
#endif
}


#endif /* _NGX_HTTP_AI_RATELIMIT_H_INCLUDED_ */
