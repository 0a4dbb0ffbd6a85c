
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The arithmetic of one meter: what is used and held against a limit, at a
 * given time.  No memory but the structures; integers only.
 *
 * A rate is a bucket: "used" units are missing from a burst, and "limit" of
 * them come back each period, exactly: "frac" is what has come back of the
 * next one, in units of 1/period.  For requests this is GCRA with a tolerance
 * of (burst - 1) * period / limit.  Reservations are charged at once, so that
 * a long answer does not keep others out when its tokens have long come back.
 * What is given back at the end may be less than what was not needed: had it
 * never been charged, the bucket might have been full meanwhile, and what
 * comes back then is lost.  How low the use was since each reservation is
 * noted ("low", ascending; exact for the last few, never too high).
 *
 * A window has its use and the holds apart.
 */


#ifndef _NGX_HTTP_AI_LIMIT_METER_H_INCLUDED_
#define _NGX_HTTP_AI_LIMIT_METER_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_limit_store.h"


#define NGX_HTTP_AI_LIMIT_RATES    4
#define NGX_HTTP_AI_LIMIT_WINDOWS  3
#define NGX_HTTP_AI_LIMIT_LOWS     4

/* of a limit or an amount, and of a sum of them */
#define NGX_HTTP_AI_LIMIT_MAX      ((int64_t) 1 << 53)
#define NGX_HTTP_AI_LIMIT_SUM      ((int64_t) 1 << 60)
#define NGX_HTTP_AI_LIMIT_PERIOD   (((int64_t) 1 << 31) - 1)


/* two cache lines, of which the second is for several holds at a time */

typedef struct {
    int64_t                    time;      /* up to which it was refilled */
    int64_t                    used;
    int64_t                    frac;      /* [0, period); 0 if used is */
    int64_t                    held;      /* of requests: 0, they are used */
    int64_t                    base;      /* nothing is noted before */
    uint32_t                   nlows;

    /* seldom changed */
    int32_t                    period;
    int64_t                    limit;     /* < 0: was never given */
    int64_t                    burst;

    int64_t                    seq[NGX_HTTP_AI_LIMIT_LOWS];
    int64_t                    low[NGX_HTTP_AI_LIMIT_LOWS];
} ngx_http_ai_rate_t;


typedef struct {
    int64_t                    limit;     /* < 0: was never given */
    int64_t                    most;      /* largest limit in this window */
    int64_t                    start;
    int64_t                    end;
    int64_t                    used;
    int64_t                    held;
    int64_t                    next;      /* used after "end", before the next
                                             window was heard of */
    int64_t                    at;        /* when, the last of it */
} ngx_http_ai_calendar_t;


typedef struct {
    int64_t                    limit;     /* < 0: was never given */
    int64_t                    held;
} ngx_http_ai_slots_t;


typedef struct {
    ngx_http_ai_slots_t        slots;
    ngx_http_ai_rate_t         rates[NGX_HTTP_AI_LIMIT_RATES];
    ngx_http_ai_calendar_t     windows[NGX_HTTP_AI_LIMIT_WINDOWS];
} ngx_http_ai_meters_t;


/* what a hold has of a meter, and how much of it came last */

typedef struct {
    int64_t                    amount;
    int64_t                    seq;
    int64_t                    last;
    int64_t                    last_seq;
} ngx_http_ai_taken_t;


#define ngx_http_ai_meter_is_rate(m)                                          \
    ((m) < NGX_HTTP_AI_METER_CONCURRENT)

#define ngx_http_ai_meter_is_window(m)                                        \
    ((m) > NGX_HTTP_AI_METER_CONCURRENT)

#define ngx_http_ai_meter_window(meters, m)                                   \
    (&(meters)->windows[(m) - NGX_HTTP_AI_METER_Q_REQUESTS])


/* "seq" and "low" mean nothing as long as "nlows" is 0 */

/* has the rate this limit already? */

#define ngx_http_ai_rate_same(r, l)                                           \
    ((r)->limit == (l)->limit && (r)->period == (l)->period                   \
     && (r)->burst == ((l)->burst > 0 ? (l)->burst : (l)->limit))


/* is the window the one that it is in, with this limit? */

#define ngx_http_ai_calendar_same(w, l)                                       \
    ((w)->limit == (l)->limit && (w)->start == (l)->start                     \
     && (w)->end == (l)->end && (w)->most >= (w)->limit)


static ngx_inline int64_t
ngx_http_ai_amount(int64_t v)
{
    return (v < 0) ? 0
                   : (v > NGX_HTTP_AI_LIMIT_MAX) ? NGX_HTTP_AI_LIMIT_MAX : v;
}


static ngx_inline int64_t
ngx_http_ai_sum(int64_t a, int64_t b)
{
    a += b;

    return ngx_min(a, NGX_HTTP_AI_LIMIT_SUM);
}


static ngx_inline int64_t
ngx_http_ai_difference(int64_t a, int64_t b)
{
    return (a > b) ? a - b : 0;
}


void ngx_http_ai_rate_refill(ngx_http_ai_rate_t *r, int64_t time);
void ngx_http_ai_rate_adopt(ngx_http_ai_rate_t *r, ngx_http_ai_limit_t *limit,
    int64_t time);
void ngx_http_ai_rate_note(ngx_http_ai_rate_t *r, int64_t seq);
void ngx_http_ai_rate_refund(ngx_http_ai_rate_t *r, int64_t amount,
    int64_t since);


/* as ngx_http_ai_meter_fits() */

static ngx_inline int64_t
ngx_http_ai_fits(int64_t limit, int64_t all, int64_t taken, int64_t amount,
    ngx_uint_t whole)
{
    if (amount == 0) {
        return 0;
    }

    if (limit <= 0) {
        return -1;
    }

    if (amount <= all - taken) {
        return amount;
    }

    return (whole && taken == 0) ? all : -1;
}


/* without a division when all of it has come back, and soon */

static ngx_inline void
ngx_http_ai_rate_pass(ngx_http_ai_rate_t *r, int64_t time)
{
    int64_t  passed;

    passed = time - r->time;

    if (passed <= 0) {
        return;
    }

    if (r->used == 0) {
        r->time = time;
        return;
    }

    if (passed < 1024 && r->used <= NGX_HTTP_AI_LIMIT_PERIOD
        && r->limit * passed + r->frac >= r->used * r->period
        && r->period != NGX_HTTP_AI_LIMIT_STILL)
    {
        r->time = time;
        r->used = 0;
        r->frac = 0;
        return;
    }

    ngx_http_ai_rate_refill(r, time);
}


static ngx_inline void
ngx_http_ai_rate_charge(ngx_http_ai_rate_t *r, int64_t amount, int64_t seq)
{
    if (amount == 0) {
        return;
    }

    if (seq > r->base) {
        ngx_http_ai_rate_note(r, seq);
    }

    r->used = ngx_http_ai_sum(r->used, amount);
}


static ngx_inline void
ngx_http_ai_rate_hold(ngx_http_ai_meters_t *meters, ngx_uint_t m,
    int64_t amount, int64_t seq, ngx_uint_t alone)
{
    ngx_http_ai_rate_t  *r;

    r = &meters->rates[m];

    if (alone) {
        r->nlows = 0;
        r->base = seq;
    }

    if (m != NGX_HTTP_AI_METER_REQUESTS) {
        r->held = ngx_http_ai_sum(r->held, amount);
    }

    ngx_http_ai_rate_charge(r, amount, seq);
}


static ngx_inline void
ngx_http_ai_rate_correct(ngx_http_ai_rate_t *r, ngx_http_ai_taken_t *taken,
    int64_t actual, int64_t seq)
{
    int64_t  lack, last;

    lack = taken->amount - actual;

    if (lack <= 0) {
        ngx_http_ai_rate_charge(r, -lack, seq);
        return;
    }

    /* what came last was not needed first */

    last = ngx_min(lack, taken->last);

    if (last) {
        ngx_http_ai_rate_refund(r, last, taken->last_seq);
    }

    if (lack > last) {
        ngx_http_ai_rate_refund(r, lack - last, taken->seq);
    }
}


static ngx_inline void
ngx_http_ai_slots_settle(ngx_http_ai_slots_t *slots, int64_t amount)
{
    slots->held = ngx_http_ai_difference(slots->held, amount);
}


static ngx_inline void
ngx_http_ai_rate_settle(ngx_http_ai_rate_t *r, ngx_http_ai_taken_t *taken,
    int64_t actual, int64_t seq)
{
    r->held = ngx_http_ai_difference(r->held, taken->amount);
    ngx_http_ai_rate_correct(r, taken, actual, seq);
}


void ngx_http_ai_meters_init(ngx_http_ai_meters_t *meters);

/*
 * Brings a meter to a time and a limit; NULL: the limit it has.  "time" is
 * that of rates, which never goes back.
 */
void ngx_http_ai_meter_advance(ngx_http_ai_meters_t *meters, ngx_uint_t m,
    ngx_http_ai_limit_t *limit, int64_t time);

/*
 * What of the amount may be taken: the amount, or less if it is above all and
 * nothing is taken ("whole" allows that), or -1.
 */
int64_t ngx_http_ai_meter_fits(ngx_http_ai_meters_t *meters, ngx_uint_t m,
    int64_t amount, ngx_uint_t whole);

/* how long until it fits; *held: only holds are in the way */
int64_t ngx_http_ai_meter_wait(ngx_http_ai_meters_t *meters, ngx_uint_t m,
    int64_t amount, int64_t now, ngx_uint_t *held);

/*
 * seq: a number for each change of a key, ascending; alone: no other hold of
 * the key is running
 */
void ngx_http_ai_meter_hold(ngx_http_ai_meters_t *meters, ngx_uint_t m,
    int64_t amount, int64_t seq, ngx_uint_t alone);

/* a hold becomes use */
void ngx_http_ai_meter_settle(ngx_http_ai_meters_t *meters, ngx_uint_t m,
    ngx_http_ai_taken_t *taken, int64_t actual, int64_t seq, int64_t now);

/* corrects what was charged by settle() at "then" */
void ngx_http_ai_meter_correct(ngx_http_ai_meters_t *meters, ngx_uint_t m,
    ngx_http_ai_taken_t *taken, int64_t actual, int64_t seq, int64_t then,
    int64_t now);

void ngx_http_ai_meter_forget(ngx_http_ai_meters_t *meters, ngx_uint_t m,
    int64_t seq);

void ngx_http_ai_meter_state(ngx_http_ai_meters_t *meters, ngx_uint_t m,
    int64_t now, ngx_http_ai_limit_state_t *state);

/* nothing is held, and nothing used that still counts */
ngx_uint_t ngx_http_ai_meter_idle(ngx_http_ai_meters_t *meters, ngx_uint_t m,
    int64_t now, int64_t time);

/* NULL: good, else what is wrong */
const char *ngx_http_ai_meter_check(ngx_http_ai_meters_t *meters,
    ngx_uint_t m);


/* as far as it needs no division: see ngx_http_ai_limit_reset_time() */

static ngx_inline void
ngx_http_ai_rate_left(ngx_http_ai_rate_t *r, ngx_http_ai_limit_state_t *state)
{
    state->limit = r->limit;
    state->used = r->used;
    state->held = r->frac;
    state->remaining = ngx_http_ai_difference(r->burst, r->used);
    state->reset = -(int64_t) r->period;
}


static ngx_inline void
ngx_http_ai_meter_left(ngx_http_ai_meters_t *meters, ngx_uint_t m,
    int64_t now, ngx_http_ai_limit_state_t *state)
{
    if (!ngx_http_ai_meter_is_rate(m) || meters->rates[m].limit <= 0) {
        ngx_http_ai_meter_state(meters, m, now, state);
        return;
    }

    ngx_http_ai_rate_left(&meters->rates[m], state);
}


#endif /* _NGX_HTTP_AI_LIMIT_METER_H_INCLUDED_ */
