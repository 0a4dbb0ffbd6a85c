
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_limit_meter.h"


/* so much of a period is far from never */
#define NGX_HTTP_AI_LIMIT_SMALL  ((int64_t) 1 << 52)


static int64_t ngx_http_ai_rate_time(ngx_http_ai_rate_t *r, int64_t need);
static int64_t ngx_http_ai_rate_divide(int64_t a, int64_t b, int64_t c,
    int64_t *rest);
static void ngx_http_ai_calendar_adopt(ngx_http_ai_calendar_t *w,
    ngx_http_ai_limit_t *limit);
static void ngx_http_ai_calendar_charge(ngx_http_ai_calendar_t *w,
    int64_t amount, int64_t now);
static int64_t ngx_http_ai_calendar_debt(ngx_http_ai_calendar_t *w,
    int64_t passed);
static int64_t ngx_http_ai_calendar_used(ngx_http_ai_calendar_t *w,
    int64_t now);
static int64_t ngx_http_ai_calendar_wait(ngx_http_ai_calendar_t *w,
    int64_t most, int64_t now);
static int64_t ngx_http_ai_calendar_length(ngx_http_ai_calendar_t *w,
    int64_t *more);


/* of what is not negative; a division of 32 bits takes a third of the time */

static ngx_inline int64_t
ngx_http_ai_quotient(int64_t a, int64_t b)
{
    if ((a | b) >> 32 == 0) {
        return (uint32_t) a / (uint32_t) b;
    }

    return a / b;
}


void
ngx_http_ai_meters_init(ngx_http_ai_meters_t *meters)
{
    ngx_uint_t  i;

    ngx_memzero(meters, sizeof(ngx_http_ai_meters_t));

    for (i = 0; i < NGX_HTTP_AI_LIMIT_RATES; i++) {
        meters->rates[i].limit = -1;
        meters->rates[i].period = 1;
    }

    for (i = 0; i < NGX_HTTP_AI_LIMIT_WINDOWS; i++) {
        meters->windows[i].limit = -1;
    }

    meters->slots.limit = -1;
}


void
ngx_http_ai_meter_advance(ngx_http_ai_meters_t *meters, ngx_uint_t m,
    ngx_http_ai_limit_t *limit, int64_t time)
{
    ngx_http_ai_rate_t  *r;

    if (ngx_http_ai_meter_is_rate(m)) {
        r = &meters->rates[m];

        /* what came back by now did so at the old speed */

        ngx_http_ai_rate_refill(r, time);

        if (limit && !ngx_http_ai_rate_same(r, limit)) {
            ngx_http_ai_rate_adopt(r, limit, time);
        }

        return;
    }

    if (limit == NULL) {
        return;
    }

    if (ngx_http_ai_meter_is_window(m)) {
        ngx_http_ai_calendar_adopt(ngx_http_ai_meter_window(meters, m), limit);
        return;
    }

    meters->slots.limit = ngx_http_ai_amount(limit->limit);
}


int64_t
ngx_http_ai_meter_fits(ngx_http_ai_meters_t *meters, ngx_uint_t m,
    int64_t amount, ngx_uint_t whole)
{
    ngx_http_ai_rate_t      *r;
    ngx_http_ai_calendar_t  *w;

    if (ngx_http_ai_meter_is_rate(m)) {
        r = &meters->rates[m];

        return ngx_http_ai_fits(r->limit, r->burst, r->used, amount, whole);
    }

    if (ngx_http_ai_meter_is_window(m)) {
        w = ngx_http_ai_meter_window(meters, m);

        return ngx_http_ai_fits(w->limit, w->limit, w->used + w->held, amount,
                                whole);
    }

    return ngx_http_ai_fits(meters->slots.limit, meters->slots.limit,
                            meters->slots.held, amount, whole);
}


int64_t
ngx_http_ai_meter_wait(ngx_http_ai_meters_t *meters, ngx_uint_t m,
    int64_t amount, int64_t now, ngx_uint_t *held)
{
    int64_t                  most;
    ngx_http_ai_rate_t      *r;
    ngx_http_ai_calendar_t  *w;

    *held = 0;

    if (ngx_http_ai_meter_is_rate(m)) {
        r = &meters->rates[m];

        if (r->limit <= 0) {
            return NGX_HTTP_AI_LIMIT_NEVER;
        }

        /* what is above all waits for all */

        most = ngx_http_ai_difference(r->burst, amount);

        return ngx_http_ai_rate_time(r, r->used - most);
    }

    if (ngx_http_ai_meter_is_window(m)) {
        w = ngx_http_ai_meter_window(meters, m);

        if (w->limit <= 0) {
            return NGX_HTTP_AI_LIMIT_NEVER;
        }

        most = ngx_http_ai_difference(w->limit, amount);

        if (w->used > most) {
            return ngx_http_ai_calendar_wait(w, most, now);
        }

    } else if (meters->slots.limit <= 0) {
        return NGX_HTTP_AI_LIMIT_NEVER;
    }

    *held = 1;

    return 1000;
}


void
ngx_http_ai_meter_hold(ngx_http_ai_meters_t *meters, ngx_uint_t m,
    int64_t amount, int64_t seq, ngx_uint_t alone)
{
    ngx_http_ai_calendar_t  *w;

    if (ngx_http_ai_meter_is_rate(m)) {
        ngx_http_ai_rate_hold(meters, m, amount, seq, alone);
        return;
    }

    if (ngx_http_ai_meter_is_window(m)) {
        w = ngx_http_ai_meter_window(meters, m);
        w->held = ngx_http_ai_sum(w->held, amount);
        return;
    }

    meters->slots.held = ngx_http_ai_sum(meters->slots.held, amount);
}


void
ngx_http_ai_meter_settle(ngx_http_ai_meters_t *meters, ngx_uint_t m,
    ngx_http_ai_taken_t *taken, int64_t actual, int64_t seq, int64_t now)
{
    ngx_http_ai_calendar_t  *w;

    if (ngx_http_ai_meter_is_rate(m)) {
        ngx_http_ai_rate_settle(&meters->rates[m], taken, actual, seq);
        return;
    }

    if (ngx_http_ai_meter_is_window(m)) {
        w = ngx_http_ai_meter_window(meters, m);
        w->held = ngx_http_ai_difference(w->held, taken->amount);
        ngx_http_ai_calendar_charge(w, actual, now);
        return;
    }

    ngx_http_ai_slots_settle(&meters->slots, taken->amount);
}


void
ngx_http_ai_meter_correct(ngx_http_ai_meters_t *meters, ngx_uint_t m,
    ngx_http_ai_taken_t *taken, int64_t actual, int64_t seq, int64_t then,
    int64_t now)
{
    int64_t                  lack;
    ngx_http_ai_calendar_t  *w;

    if (ngx_http_ai_meter_is_rate(m)) {
        ngx_http_ai_rate_correct(&meters->rates[m], taken, actual, seq);
        return;
    }

    if (!ngx_http_ai_meter_is_window(m)) {
        return;
    }

    w = ngx_http_ai_meter_window(meters, m);
    lack = taken->amount - actual;

    if (lack <= 0) {
        ngx_http_ai_calendar_charge(w, -lack, now);
        return;
    }

    /* the use of a window that is over is no more */

    if (then < w->start) {
        return;
    }

    if (then < w->end) {
        w->used = ngx_http_ai_difference(w->used, lack);

    } else {
        w->next = ngx_http_ai_difference(w->next, lack);
    }
}


void
ngx_http_ai_meter_forget(ngx_http_ai_meters_t *meters, ngx_uint_t m,
    int64_t seq)
{
    ngx_http_ai_rate_t      *r;
    ngx_http_ai_calendar_t  *w;

    if (ngx_http_ai_meter_is_rate(m)) {
        r = &meters->rates[m];
        r->used = 0;
        r->frac = 0;
        r->nlows = 0;
        r->base = seq;

    } else if (ngx_http_ai_meter_is_window(m)) {
        w = ngx_http_ai_meter_window(meters, m);
        w->used = 0;
        w->next = 0;
    }
}


void
ngx_http_ai_meter_state(ngx_http_ai_meters_t *meters, ngx_uint_t m,
    int64_t now, ngx_http_ai_limit_state_t *state)
{
    ngx_http_ai_rate_t      *r;
    ngx_http_ai_calendar_t  *w;

    ngx_memzero(state, sizeof(ngx_http_ai_limit_state_t));

    if (ngx_http_ai_meter_is_rate(m)) {
        r = &meters->rates[m];
        state->limit = r->limit;

        if (r->limit < 0) {
            return;
        }

        /* holds are charged already, and part of it may have come back */

        if (m != NGX_HTTP_AI_METER_REQUESTS) {
            state->held = ngx_min(r->held, r->used);
        }

        state->used = r->used - state->held;

        if (r->limit > 0) {
            state->remaining = ngx_http_ai_difference(r->burst, r->used);
            state->reset = ngx_http_ai_rate_time(r, r->used);
        }

        return;
    }

    if (ngx_http_ai_meter_is_window(m)) {
        w = ngx_http_ai_meter_window(meters, m);
        state->limit = w->limit;

        if (w->limit < 0) {
            return;
        }

        state->used = (now < w->end) ? w->used
                                     : ngx_http_ai_calendar_used(w, now);
        state->held = w->held;
        state->remaining = ngx_http_ai_difference(w->limit,
                                                  state->used + w->held);

        if (now < w->end) {
            state->reset = (w->used > w->most && w->limit > 0)
                           ? ngx_http_ai_calendar_wait(w, 0, now)
                           : w->end - now;
        }

        return;
    }

    state->limit = meters->slots.limit;

    if (state->limit >= 0) {
        state->held = meters->slots.held;
        state->remaining = ngx_http_ai_difference(state->limit, state->held);
        state->reset = state->held ? 1000 : 0;
    }
}


int64_t
ngx_http_ai_limit_reset_time(ngx_http_ai_limit_state_t *state)
{
    ngx_http_ai_rate_t  r;

    if (state->reset < 0) {
        r.limit = state->limit;
        r.period = (int32_t) -state->reset;
        r.frac = state->held;

        state->reset = ngx_http_ai_rate_time(&r, state->used);
    }

    return state->reset;
}


ngx_uint_t
ngx_http_ai_meter_idle(ngx_http_ai_meters_t *meters, ngx_uint_t m,
    int64_t now, int64_t time)
{
    ngx_http_ai_rate_t       r;
    ngx_http_ai_calendar_t  *w;

    if (ngx_http_ai_meter_is_rate(m)) {

        if (meters->rates[m].used == 0) {
            return 1;
        }

        r = meters->rates[m];
        ngx_http_ai_rate_refill(&r, time);

        return r.used == 0;
    }

    if (ngx_http_ai_meter_is_window(m)) {
        w = ngx_http_ai_meter_window(meters, m);

        if (w->held) {
            return 0;
        }

        /* it may not be over for a worker whose clock is behind */

        if (now < w->end + 1000) {
            return w->used == 0 && w->next == 0;
        }

        return ngx_http_ai_calendar_used(w, now) == 0;
    }

    return meters->slots.held == 0;
}


const char *
ngx_http_ai_meter_check(ngx_http_ai_meters_t *meters, ngx_uint_t m)
{
    int64_t                  i;
    ngx_http_ai_rate_t      *r;
    ngx_http_ai_calendar_t  *w;

    if (ngx_http_ai_meter_is_rate(m)) {
        r = &meters->rates[m];

        if (r->limit > NGX_HTTP_AI_LIMIT_MAX || r->period <= 0) {
            return "limit of a rate";
        }

        if (r->used < 0 || r->used > NGX_HTTP_AI_LIMIT_SUM || r->held < 0) {
            return "use of a rate";
        }

        if (r->frac < 0 || r->frac >= r->period
            || (r->used == 0 && r->frac != 0))
        {
            return "fraction of a rate";
        }

        if (r->nlows > NGX_HTTP_AI_LIMIT_LOWS) {
            return "number of lows";
        }

        for (i = 0; i < (int64_t) r->nlows; i++) {
            if (r->low[i] < 0
                || (i && (r->low[i] <= r->low[i - 1]
                          || r->seq[i] <= r->seq[i - 1])))
            {
                return "lows of a rate";
            }
        }

        return NULL;
    }

    if (ngx_http_ai_meter_is_window(m)) {
        w = ngx_http_ai_meter_window(meters, m);

        if (w->used < 0 || w->used > NGX_HTTP_AI_LIMIT_SUM || w->held < 0
            || w->next < 0 || w->next > NGX_HTTP_AI_LIMIT_SUM)
        {
            return "use of a window";
        }

        if (w->limit > NGX_HTTP_AI_LIMIT_MAX || w->most < 0
            || (w->limit >= 0 && w->end <= w->start))
        {
            return "bounds of a window";
        }

        return NULL;
    }

    return (meters->slots.held < 0) ? "slots" : NULL;
}


void
ngx_http_ai_rate_adopt(ngx_http_ai_rate_t *r, ngx_http_ai_limit_t *limit,
    int64_t time)
{
    int64_t  period;

    if (r->limit < 0) {
        r->time = time;
    }

    period = ngx_max(limit->period, 1);
    period = ngx_min(period, NGX_HTTP_AI_LIMIT_PERIOD);

    if (period != r->period) {
        r->frac = r->frac * period / r->period;
        r->period = (int32_t) period;
    }

    r->limit = ngx_http_ai_amount(limit->limit);
    r->burst = (limit->burst > 0) ? ngx_http_ai_amount(limit->burst)
                                  : r->limit;
}


void
ngx_http_ai_rate_refill(ngx_http_ai_rate_t *r, int64_t time)
{
    int64_t  passed, n, rest, sum;

    passed = time - r->time;

    if (passed <= 0) {
        return;
    }

    r->time = time;

    if (r->used == 0 || r->limit <= 0
        || r->period == NGX_HTTP_AI_LIMIT_STILL)
    {
        return;
    }

    if (r->limit <= NGX_HTTP_AI_LIMIT_PERIOD
        && passed <= NGX_HTTP_AI_LIMIT_PERIOD)
    {
        sum = r->limit * passed + r->frac;
        n = ngx_http_ai_quotient(sum, r->period);
        rest = sum - n * r->period;

    } else {
        n = passed / r->period;
        rest = passed % r->period;

        if (n > r->used / r->limit) {
            r->used = 0;
            r->frac = 0;
            return;
        }

        sum = r->limit % r->period * rest + r->frac;
        n = n * r->limit + r->limit / r->period * rest + sum / r->period;
        rest = sum % r->period;
    }

    if (n >= r->used) {
        r->used = 0;
        r->frac = 0;
        return;
    }

    r->used -= n;
    r->frac = rest;
}


/* when "need" units will have come back, rounded up */

static int64_t
ngx_http_ai_rate_time(ngx_http_ai_rate_t *r, int64_t need)
{
    int64_t  n, t, rest;

    if (need <= 0) {
        return 0;
    }

    if (need <= NGX_HTTP_AI_LIMIT_PERIOD
        && need * r->period <= NGX_HTTP_AI_LIMIT_SMALL)
    {
        n = need * r->period - r->frac;

        return (n <= r->limit) ? 1
                               : ngx_http_ai_quotient(n - 1, r->limit) + 1;
    }

    n = need / r->limit;

    if (n >= NGX_HTTP_AI_LIMIT_NEVER / r->period - 1) {
        return NGX_HTTP_AI_LIMIT_NEVER;
    }

    t = n * r->period + ngx_http_ai_rate_divide(need % r->limit, r->period,
                                                r->limit, &rest);

    return (r->frac < rest) ? t + 1 : t - (r->frac - rest) / r->limit;
}


/* a * b / c, a < c: in several steps when the product is too large */

static int64_t
ngx_http_ai_rate_divide(int64_t a, int64_t b, int64_t c, int64_t *rest)
{
    int64_t  n, r, bit;

    if (a <= NGX_HTTP_AI_LIMIT_PERIOD) {
        *rest = a * b % c;
        return a * b / c;
    }

    n = 0;
    r = 0;

    for (bit = (int64_t) 1 << 30; bit; bit >>= 1) {
        n <<= 1;
        r <<= 1;

        if (b & bit) {
            r += a;
        }

        while (r >= c) {
            r -= c;
            n++;
        }
    }

    *rest = r;

    return n;
}


/*
 * A charge follows, so the use as it is now may be the least for those who
 * have a hold.  What was noted before and was not less says nothing any more.
 */

void
ngx_http_ai_rate_note(ngx_http_ai_rate_t *r, int64_t seq)
{
    int64_t     low, least, d;
    ngx_uint_t  i, n, k;

    low = r->used - (r->frac ? 1 : 0);
    n = r->nlows;

    while (n && r->low[n - 1] >= low) {
        n--;
    }

    if (n == NGX_HTTP_AI_LIMIT_LOWS) {

        /* one of two neighbours goes, those that differ least */

        k = n;
        least = low - r->low[n - 1];

        for (i = 1; i < n; i++) {
            d = r->low[i] - r->low[i - 1];

            if (d < least) {
                least = d;
                k = i;
            }
        }

        if (k == n) {
            r->seq[n - 1] = seq;
            return;
        }

        r->seq[k - 1] = r->seq[k];

        for (i = k; i < n - 1; i++) {
            r->seq[i] = r->seq[i + 1];
            r->low[i] = r->low[i + 1];
        }

        n--;
    }

    r->seq[n] = seq;
    r->low[n] = low;
    r->nlows = n + 1;
}


/*
 * As if it had never been charged.  The use would have been less since then
 * by the amount, but never below nothing.
 */

void
ngx_http_ai_rate_refund(ngx_http_ai_rate_t *r, int64_t amount, int64_t since)
{
    ngx_uint_t  i, k, n;

    if (since < r->base) {
        return;
    }

    n = r->nlows;

    for (k = 0; k < n && r->seq[k] <= since; k++) { /* void */ }

    if (k < n) {
        amount = ngx_min(amount, r->low[k]);

        /* the past of the others is less, too */

        for (i = k; i < n; i++) {
            r->low[i] -= amount;
        }

        for (i = k; i && r->low[i - 1] >= r->low[k]; i--) { /* void */ }

        if (i < k) {
            r->nlows = n - (k - i);

            for ( /* void */ ; k < n; i++, k++) {
                r->seq[i] = r->seq[k];
                r->low[i] = r->low[k];
            }
        }
    }

    if (amount >= r->used) {
        r->used = 0;
        r->frac = 0;

    } else {
        r->used -= amount;
    }
}


static void
ngx_http_ai_calendar_adopt(ngx_http_ai_calendar_t *w,
    ngx_http_ai_limit_t *limit)
{
    int64_t  n;

    n = ngx_http_ai_amount(limit->limit);

    if (w->limit < 0) {
        w->start = limit->start;
        w->end = ngx_max(limit->end, limit->start + 1);
        w->most = n;

    } else if (limit->start > w->start) {

        /* holds stay, and count in the new window */

        w->used = ngx_http_ai_calendar_debt(w, limit->start - w->start);

        if (w->at >= limit->start) {
            w->used = ngx_http_ai_sum(w->used, w->next);
        }

        w->next = 0;
        w->start = limit->start;
        w->end = ngx_max(limit->end, limit->start + 1);
        w->most = n;

    } else if (limit->start == w->start) {
        w->end = ngx_max(limit->end, limit->start + 1);
        w->most = ngx_max(w->most, n);

    } else {
        w->most = ngx_max(w->most, n);
    }

    w->limit = n;
}


static void
ngx_http_ai_calendar_charge(ngx_http_ai_calendar_t *w, int64_t amount,
    int64_t now)
{
    if (amount <= 0) {
        return;
    }

    if (now < w->end) {
        w->used = ngx_http_ai_sum(w->used, amount);
        return;
    }

    w->next = ngx_http_ai_sum(w->next, amount);
    w->at = ngx_max(w->at, now);
}


/*
 * What is carried on when so much time has passed since the window began:
 * what the windows in between could not pay.  A limit that was lowered
 * makes no debt of what it had allowed before.
 */

static int64_t
ngx_http_ai_calendar_debt(ngx_http_ai_calendar_t *w, int64_t passed)
{
    int64_t  n, debt, length, more;

    debt = ngx_http_ai_difference(w->used, w->most);

    if (debt == 0 || w->limit <= 0) {
        return debt;
    }

    length = ngx_http_ai_calendar_length(w, &more);
    n = (passed + length / 2) / length - 1;

    if (n <= 0) {
        return debt;
    }

    return (n > debt / w->limit) ? 0 : debt - n * w->limit;
}


/* of the window that now is in, after the one that is known */

static int64_t
ngx_http_ai_calendar_used(ngx_http_ai_calendar_t *w, int64_t now)
{
    int64_t  used, half, more;

    if (w->limit < 0) {
        return 0;
    }

    /* now is not the beginning of a window */

    half = ngx_http_ai_calendar_length(w, &more) / 2;
    used = ngx_http_ai_calendar_debt(w, now - w->start - half);

    if (w->next && now - w->at < w->end - w->start) {
        used = ngx_http_ai_sum(used, w->next);
    }

    return used;
}


/* how long until no more than "most" is used */

static int64_t
ngx_http_ai_calendar_wait(ngx_http_ai_calendar_t *w, int64_t most,
    int64_t now)
{
    int64_t  n, wait, used, length, more;

    wait = (now < w->end) ? w->end - now : 1000;

    used = ngx_http_ai_sum(ngx_http_ai_difference(w->used, w->most), w->next);

    if (used <= most) {
        return wait;
    }

    n = (used - most - 1) / w->limit + 1;
    length = ngx_http_ai_calendar_length(w, &more);

    if (n > (NGX_HTTP_AI_LIMIT_NEVER - wait) / length - 1) {
        return NGX_HTTP_AI_LIMIT_NEVER;
    }

    return wait + n * length + more;
}


/*
 * The windows that follow are as long on average; several of them may be
 * longer by "more" together
 */

static int64_t
ngx_http_ai_calendar_length(ngx_http_ai_calendar_t *w, int64_t *more)
{
    int64_t  length;

    enum { hour = 3600000 };

    length = w->end - w->start;
    *more = 0;

    if (length > (int64_t) 27 * 24 * hour) {
        *more = 3 * 24 * hour;
        return 2629746000;
    }

    if (length >= 167 * hour && length <= 169 * hour) {
        *more = 2 * hour;
        return 168 * hour;
    }

    if (length >= 23 * hour && length <= 25 * hour) {
        *more = 2 * hour;
        return 24 * hour;
    }

    return length;
}
