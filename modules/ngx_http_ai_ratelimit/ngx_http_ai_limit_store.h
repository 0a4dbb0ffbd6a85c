
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The ledger of one zone of limits, in a block of memory that processes
 * share: what each key has used and what its running requests hold.  Plain C:
 * no request, no allocator, no clock of its own.
 *
 *     reserve(estimate) -> top up while the answer streams -> settle(actual)
 *
 * Invariant: for each key and meter, what was admitted and is held, plus what
 * was used, never exceeds the limit given with a reservation at its moment
 * (an overrun that "finish" allows is debt, counted by a settle).  Rates are
 * charged when reserved, and what was charged comes back with time whether
 * its request is still running or not.
 *
 * Crash safety: the block holds fixed arrays linked by index.  Each change is
 * made under the caller's lock with the old values, of links as well, kept in
 * an undo record before it; whoever takes the lock after a process died inside
 * undoes the change.  A hold of a dead process is found by its owner and
 * charged once (ngx_http_ai_limit_reap()).
 *
 * Amounts are int64_t: requests and tokens in units, money in nano-dollars.
 * Times are int64_t milliseconds of the wall clock, and given by the caller;
 * time that goes backwards refills nothing and resets no window.  When the
 * clock has been more than a minute behind for two seconds, rates go on from
 * there; deadlines move with a clock that jumps by more than a minute between
 * two calls of ngx_http_ai_limit_reap().
 */


#ifndef _NGX_HTTP_AI_LIMIT_STORE_H_INCLUDED_
#define _NGX_HTTP_AI_LIMIT_STORE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/*
 * Meters of a zone.  Rates refill steadily, windows are of the calendar.
 */

typedef enum {
    NGX_HTTP_AI_METER_REQUESTS = 0,   /* rate: GCRA, one per reservation */
    NGX_HTTP_AI_METER_TOKENS,         /* rate: bucket that may be in debt */
    NGX_HTTP_AI_METER_INPUT,
    NGX_HTTP_AI_METER_OUTPUT,
    NGX_HTTP_AI_METER_CONCURRENT,     /* held only, never used */
    NGX_HTTP_AI_METER_Q_REQUESTS,     /* windows */
    NGX_HTTP_AI_METER_Q_TOKENS,
    NGX_HTTP_AI_METER_Q_MONEY,        /* nano-dollars */
    NGX_HTTP_AI_METER_MAX
} ngx_http_ai_meter_e;


/* a period: of a rate that does not refill */

#define NGX_HTTP_AI_LIMIT_STILL  (((int64_t) 1 << 31) - 1)


typedef struct {
    int64_t                    limit;     /* < 0: no such limit.  Per period
                                             for rates */
    int64_t                    period;    /* ms, rates */
    int64_t                    burst;     /* most at once, rates (that of
                                             limit_req plus 1); 0: limit, so
                                             all of a period at once */
    int64_t                    start;     /* window that now is in, ms; */
    int64_t                    end;       /* [start, end) */
} ngx_http_ai_limit_t;


typedef struct {
    int64_t                    v[NGX_HTTP_AI_METER_MAX];
} ngx_http_ai_amounts_t;


typedef struct {
    int64_t                    limit;     /* as given; -1: none */
    int64_t                    used;      /* windows: settled (may exceed the
                                             limit: debt); rates: what is
                                             missing of the burst, not held */
    int64_t                    held;      /* rates: as far as it has not come
                                             back, requests: 0 */
    int64_t                    remaining; /* never below 0 */
    int64_t                    reset;     /* ms until all is there again; 1000
                                             for slots, if one is held.  < 0:
                                             see reset_time() */
} ngx_http_ai_limit_state_t;


typedef enum {
    NGX_HTTP_AI_LIMIT_OK = 0,
    NGX_HTTP_AI_LIMIT_REFUSED,
    NGX_HTTP_AI_LIMIT_REPEATED,       /* the id holds already: same hold */
    NGX_HTTP_AI_LIMIT_SCARCE,         /* too little is left for a bound */
    NGX_HTTP_AI_LIMIT_FULL,           /* no room for another key or hold, or
                                         for so long a key */
    NGX_HTTP_AI_LIMIT_GONE            /* the hold was reaped or settled */
} ngx_http_ai_limit_e;


/*
 * With a mask: amounts of rates may be above what is needed, so more than
 * that much of them has to be left, or nothing is taken and the caller counts.
 */

#define NGX_HTTP_AI_LIMIT_BOUND  ((ngx_uint_t) 1 << 16)
#define NGX_HTTP_AI_LIMIT_AMPLE  8


/* no time is long enough: the limit is 0 */

#define NGX_HTTP_AI_LIMIT_NEVER  ((int64_t) 1 << 53)


typedef struct {
    ngx_http_ai_meter_e        meter;     /* that refuses longest */
    int64_t                    wait;      /* ms: then it is enough, if nobody
                                             else takes it; 1000 when only
                                             holds are in the way, which is
                                             never said of rates */
    unsigned                   held:1;    /* holds are in the way, not use */
    ngx_http_ai_limit_state_t  state;     /* of that meter */
} ngx_http_ai_limit_refusal_t;


/* a hold, as its owner refers to it */

typedef struct {
    uint32_t                   index;
    uint32_t                   serial;    /* of the slot's use */
    uint32_t                   key;       /* where its key is; before
                                             reserve() a guess, or 0 */
    uint32_t                   cut;       /* less was taken than asked for */
} ngx_http_ai_hold_t;


/* what is the same for all zones of a request */

typedef struct {
    u_char                    *id;        /* 16 bytes that name it */
    uint64_t                   owner;
    int64_t                    now;
    int64_t                    deadline;
    ngx_http_ai_amounts_t     *amounts;
    ngx_uint_t                 show;      /* meters of which the state is
                                             wanted, as limit_left() has it */
} ngx_http_ai_limit_ask_t;


typedef struct ngx_http_ai_limit_store_s  ngx_http_ai_limit_store_t;


/*
 * Lays out a zeroed block of "size" bytes for as many keys and holds as fit
 * (key_max: longest key in bytes, default 128; longer keys are hashed to
 * SHA-256 by the caller).  NULL: too small.  The block starts with a magic
 * number and a version, attach() returns NULL when they do not fit.
 */
ngx_http_ai_limit_store_t *ngx_http_ai_limit_store_init(void *block,
    size_t size, size_t key_max);
ngx_http_ai_limit_store_t *ngx_http_ai_limit_store_attach(void *block,
    size_t size);

/*
 * To be called first under each lock.  Returns 1 when a process had died
 * inside a change, which is now undone and the links rebuilt; 0 usually.
 */
ngx_uint_t ngx_http_ai_limit_enter(ngx_http_ai_limit_store_t *st);
void ngx_http_ai_limit_leave(ngx_http_ai_limit_store_t *st);

/*
 * The caller holds the lock (between enter and leave) for all that follows.
 *
 * Takes "amounts" for the key when all meters of limits[] allow it, else
 * takes nothing.  An amount above the whole limit (or burst) is cut down to it
 * when nothing is used and held, so that it is not locked out for ever, unless
 * the limit is 0.  An amount of 0 is always allowed.  Meters without limit
 * count nothing.
 * id: 16 bytes that name the request; the same id again gives the same hold.
 * owner: which process; deadline: ms, after it the hold is charged.
 * Keys without holds and use (or, when the zone is full, the least recently
 * used, to the second, without holds and without use in a current window) are
 * given up.
 */
ngx_http_ai_limit_e ngx_http_ai_limit_reserve(ngx_http_ai_limit_store_t *st,
    ngx_str_t *key, u_char *id, uint64_t owner, int64_t now, int64_t deadline,
    ngx_http_ai_limit_t *limits, ngx_http_ai_amounts_t *amounts,
    ngx_http_ai_hold_t *hold, ngx_http_ai_limit_refusal_t *refusal);

/* the same, for whoever knows which limits there are: a bit for each, and
 * perhaps BOUND; states of what was taken */
ngx_http_ai_limit_e ngx_http_ai_limit_reserve_of(
    ngx_http_ai_limit_store_t *st, ngx_str_t *key,
    ngx_http_ai_limit_ask_t *ask, ngx_http_ai_limit_t *limits,
    ngx_uint_t mask, ngx_http_ai_hold_t *hold,
    ngx_http_ai_limit_refusal_t *refusal, ngx_http_ai_limit_state_t *states);

/* more for a running request, or none, only for the deadline, which also a
 * refusal moves; REFUSED takes nothing */
ngx_http_ai_limit_e ngx_http_ai_limit_topup(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_hold_t *hold, int64_t now, int64_t deadline,
    ngx_http_ai_limit_t *limits, ngx_http_ai_amounts_t *amounts,
    ngx_http_ai_limit_refusal_t *refusal);

/* notes what was seen so far, without the lock: one store, for a reaper */
void ngx_http_ai_limit_seen(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_hold_t *hold, int64_t output, int64_t money);

/*
 * Replaces the hold by the true amounts: exactly once, GONE the second time.
 * One that was reaped meanwhile is corrected (tombstones are kept for
 * 15 minutes as far as there is room).  Money and tokens go to the window in
 * which they were reserved when it still is the current one, else to the
 * current one.  CONCURRENT is always released; REQUESTS is not given back
 * unless actual->v[REQUESTS] is 0.  What is given back to a rate is at most
 * what had not yet come back by itself.
 */
ngx_http_ai_limit_e ngx_http_ai_limit_settle(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_hold_t *hold, u_char *id, int64_t now,
    ngx_http_ai_amounts_t *actual);

/* memory that is going to be written */

#if defined __GNUC__ || defined __clang__
#define ngx_http_ai_limit_fetch(p)  __builtin_prefetch((void *) (p), 1)
#else
#define ngx_http_ai_limit_fetch(p)  ((void) (p))
#endif


/*
 * Without the lock: fetches what a reservation or the end of a hold (0: none)
 * is going to change of this key (0: any).  To be called for several ledgers
 * before the first of them is locked, so that their memory comes at once.
 */
void ngx_http_ai_limit_warm(ngx_http_ai_limit_store_t *st, uint32_t key,
    uint32_t hold);

/*
 * State of the meters of a hold's key as it was left by reserve() or topup(),
 * for those that "mask" has a bit for; of rates "limit" and "remaining", and
 * what reset_time() makes "reset" of, as that is only sometimes asked for.
 */
void ngx_http_ai_limit_left(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_hold_t *hold, int64_t now, ngx_uint_t mask,
    ngx_http_ai_limit_state_t *states);
/* of the windows of a hold's key, also after its end; NGX_DECLINED: the key
 * was given up meanwhile */
ngx_int_t ngx_http_ai_limit_used(ngx_http_ai_limit_store_t *st,
    ngx_str_t *key, ngx_http_ai_hold_t *hold, int64_t now,
    ngx_http_ai_limit_state_t *states);

int64_t ngx_http_ai_limit_reset_time(ngx_http_ai_limit_state_t *state);

/*
 * Charges holds past their deadline or of owners that alive() denies: the
 * larger of what is held and what was seen; concurrency is freed.  At most
 * max of them; returns how many.  To be called each second.
 */
ngx_uint_t ngx_http_ai_limit_reap(ngx_http_ai_limit_store_t *st, int64_t now,
    ngx_uint_t (*alive)(uint64_t owner), ngx_uint_t max);

/*
 * The same, and tells of each key before (charged is 0) and after it is
 * charged; pos is that with which ngx_http_ai_limit_next() finds it, if it is
 * still there.
 */
typedef void (*ngx_http_ai_limit_reap_pt)(void *data, ngx_uint_t pos,
    ngx_uint_t charged);

ngx_uint_t ngx_http_ai_limit_reap_each(ngx_http_ai_limit_store_t *st,
    int64_t now, ngx_uint_t (*alive)(uint64_t owner), ngx_uint_t max,
    ngx_http_ai_limit_reap_pt handler, void *data);

/* state of all meters of a key; one that is not there has used nothing */
void ngx_http_ai_limit_peek(ngx_http_ai_limit_store_t *st, ngx_str_t *key,
    int64_t now, ngx_http_ai_limit_t *limits,
    ngx_http_ai_limit_state_t *states);

/* operator: forgets the use of a key (NULL: of all), holds stay */
ngx_uint_t ngx_http_ai_limit_reset(ngx_http_ai_limit_store_t *st,
    ngx_str_t *key);

/* iteration for views: *pos starts with 0; 0 at the end.  The key's bytes are
 * those of the block; limits are those last given, -1 if none was */
ngx_uint_t ngx_http_ai_limit_next(ngx_http_ai_limit_store_t *st,
    ngx_uint_t *pos, ngx_str_t *key, int64_t now,
    ngx_http_ai_limit_state_t *states, ngx_uint_t *holds);

/*
 * Use of windows (not holds, not rates) as a versioned byte string with a
 * checksum, and back: restore() adds to an empty store, as much as there is
 * room for, the newest keys first; NGX_DECLINED: not a whole snapshot, and
 * nothing was added.  snapshot() returns the length, 0: "size" is too small.
 */
size_t ngx_http_ai_limit_snapshot_size(ngx_http_ai_limit_store_t *st);
size_t ngx_http_ai_limit_snapshot(ngx_http_ai_limit_store_t *st, u_char *buf,
    size_t size);
ngx_int_t ngx_http_ai_limit_restore(ngx_http_ai_limit_store_t *st,
    u_char *buf, size_t len);

/* consistency of links, sums of holds against keys, free lists; NULL: good,
 * else what is wrong */
const char *ngx_http_ai_limit_check(ngx_http_ai_limit_store_t *st);

typedef struct {
    uint64_t                   reserved;
    uint64_t                   refused;
    uint64_t                   settled;
    uint64_t                   expired;   /* charged by the reaper */
    uint64_t                   repaired;  /* undone, of dead processes */
    uint64_t                   evicted;
    uint64_t                   keys;
    uint64_t                   holds;
    uint64_t                   full;      /* refusals for want of room */
} ngx_http_ai_limit_stats_t;

void ngx_http_ai_limit_stats(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_limit_stats_t *stats);


#endif /* _NGX_HTTP_AI_LIMIT_STORE_H_INCLUDED_ */
