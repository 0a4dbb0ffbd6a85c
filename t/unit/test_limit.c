
/*
 * Copyright (C) nginx AI gateway authors
 */


/* the ledger of limits, one process; times and amounts by hand */


#include "test.h"
#include "ngx_http_ai_limit_block.h"


#define M(name)   NGX_HTTP_AI_METER_ ## name

#define T0        ((int64_t) 1700000000000)
#define HOUR      3600000


static u_char                       block[256 * 1024]
                                    __attribute__((aligned(64)));
static ngx_http_ai_limit_store_t   *st;
static ngx_http_ai_limit_t          limits[M(MAX)];
static ngx_http_ai_limit_refusal_t  refusal;
static ngx_http_ai_limit_state_t    states[M(MAX)];
static ngx_http_ai_hold_t           holds[1024];
static uint64_t                     rnd = 88172645463325252;


static uint64_t
rand64(void)
{
    rnd ^= rnd << 13;
    rnd ^= rnd >> 7;
    rnd ^= rnd << 17;

    return rnd;
}


static int64_t
below(int64_t n)
{
    return rand64() % n;
}


static void
none(void)
{
    ngx_uint_t  i;

    memset(limits, 0, sizeof(limits));

    for (i = 0; i < M(MAX); i++) {
        limits[i].limit = -1;
    }
}


static void
fresh_size(size_t size)
{
    memset(block, 0, sizeof(block));

    st = ngx_http_ai_limit_store_init(block, size, 32);

    none();
}


static void
fresh(void)
{
    fresh_size(sizeof(block));
}


static void
rate(ngx_uint_t m, int64_t limit, int64_t period, int64_t burst)
{
    limits[m].limit = limit;
    limits[m].period = period;
    limits[m].burst = burst;
}


static void
window(ngx_uint_t m, int64_t limit, int64_t now, int64_t length)
{
    limits[m].limit = limit;
    limits[m].start = now / length * length;
    limits[m].end = limits[m].start + length;
}


static void
name(u_char *id, ngx_uint_t n)
{
    memset(id, 0, 16);
    memcpy(id, &n, sizeof(ngx_uint_t));
}


static ngx_http_ai_limit_e
take(const char *key, ngx_uint_t n, int64_t now,
    ngx_http_ai_amounts_t *amounts)
{
    u_char               id[16];
    ngx_str_t            s;
    ngx_http_ai_limit_e  rc;

    name(id, n);

    s.data = test_copy(key, strlen(key));
    s.len = strlen(key);

    memset(&refusal, 0, sizeof(refusal));

    rc = ngx_http_ai_limit_reserve(st, &s, id, 1, now, now + 30000, limits,
                                   amounts, &holds[n], &refusal);
    free(s.data);

    return rc;
}


static ngx_http_ai_limit_e
take1(const char *key, ngx_uint_t n, int64_t now, ngx_uint_t m, int64_t v)
{
    ngx_http_ai_amounts_t  amounts;

    memset(&amounts, 0, sizeof(amounts));
    amounts.v[m] = v;

    return take(key, n, now, &amounts);
}


static ngx_http_ai_limit_e
more1(ngx_uint_t n, int64_t now, ngx_uint_t m, int64_t v)
{
    ngx_http_ai_amounts_t  amounts;

    memset(&amounts, 0, sizeof(amounts));
    amounts.v[m] = v;

    return ngx_http_ai_limit_topup(st, &holds[n], now, now + 30000, limits,
                                   &amounts, &refusal);
}


static ngx_http_ai_limit_e
settle(ngx_uint_t n, int64_t now, ngx_http_ai_amounts_t *amounts)
{
    u_char  id[16];

    name(id, n);

    return ngx_http_ai_limit_settle(st, &holds[n], id, now, amounts);
}


static ngx_http_ai_limit_e
settle1(ngx_uint_t n, int64_t now, ngx_uint_t m, int64_t v)
{
    ngx_http_ai_amounts_t  amounts;

    memset(&amounts, 0, sizeof(amounts));
    amounts.v[m] = v;

    return settle(n, now, &amounts);
}


static void
peek(const char *key, int64_t now)
{
    ngx_str_t  s;

    s.data = (u_char *) key;
    s.len = strlen(key);

    ngx_http_ai_limit_peek(st, &s, now, limits, states);
}


static void
good(const char *what)
{
    const char  *error;

    error = ngx_http_ai_limit_check(st);

    if (error) {
        ok(0, "check: %s: %s", what, error);
    }
}


static ngx_uint_t
dead(uint64_t owner)
{
    return 0;
}


static ngx_uint_t
living(uint64_t owner)
{
    return 1;
}


static void
test_layout(void)
{
    size_t  size;

    fresh();
    ok(st != NULL, "laid out");
    ok(ngx_http_ai_limit_store_attach(block, sizeof(block)) == st,
       "attached");
    ok(ngx_http_ai_limit_store_attach(block, sizeof(block) - 8) == NULL,
       "not with another size");

    st->version++;
    ok(ngx_http_ai_limit_store_attach(block, sizeof(block)) == NULL,
       "not with another version");

    st->version--;
    st->nkeys--;
    ok(ngx_http_ai_limit_store_attach(block, sizeof(block)) == NULL,
       "not with another layout");

    memset(block, 0, sizeof(block));
    ok(ngx_http_ai_limit_store_attach(block, sizeof(block)) == NULL,
       "not an empty block");
    ok(ngx_http_ai_limit_store_init(block, 1024, 0) == NULL, "too small");

    for (size = 0; size < 40000; size += 8) {
        memset(block, 0, 40000);

        if (ngx_http_ai_limit_store_init(block, size, 0)
            && st->holds + (st->nholds + 1) * sizeof(ngx_http_ai_limit_slot_t)
               > size)
        {
            ok(0, "size %d", (int) size);
        }
    }

    fresh();
    diag("%u keys, %u holds in %u KB; a key %u bytes, a hold %u",
         st->nkeys, st->nholds, (unsigned) sizeof(block) / 1024,
         st->key_size, (unsigned) sizeof(ngx_http_ai_limit_slot_t));
}


static void
test_requests(void)
{
    int64_t      now, n;
    ngx_uint_t   i;

    /* "60r/m": all of the minute at once, then one each second */

    fresh();
    rate(M(REQUESTS), 60, 60000, 0);

    for (i = 0; i < 60; i++) {
        if (take1("a", i, T0, M(REQUESTS), 1) != NGX_HTTP_AI_LIMIT_OK) {
            break;
        }
    }

    is_int(i, 60, "requests: a whole minute's at once");
    is_int(take1("a", 60, T0, M(REQUESTS), 1), NGX_HTTP_AI_LIMIT_REFUSED,
           "... and no more");
    is_int(refusal.wait, 1000, "... for a second");
    is_int(refusal.meter, M(REQUESTS), "... says the meter");
    is_int(refusal.held, 0, "... which is no matter of holds");
    is_int(refusal.state.remaining, 0, "... nothing is left");
    is_int(refusal.state.reset, 60000, "... all is back in a minute");
    is_int(refusal.state.used, 60, "... all is used");
    is_int(take1("a", 60, T0 + 999, M(REQUESTS), 1),
           NGX_HTTP_AI_LIMIT_REFUSED, "not a millisecond earlier");
    is_int(refusal.wait, 1, "... which is what to wait");
    is_int(take1("a", 60, T0 + 1000, M(REQUESTS), 1), NGX_HTTP_AI_LIMIT_OK,
           "but then");
    is_int(take1("b", 61, T0 + 1000, M(REQUESTS), 1), NGX_HTTP_AI_LIMIT_OK,
           "another key");
    good("requests");

    /* strictly one each second; thirds of milliseconds are not lost */

    fresh();
    rate(M(REQUESTS), 7, 1000, 1);

    n = 0;

    for (now = T0; now < T0 + 100000; now++) {
        if (take1("a", n, now, M(REQUESTS), 1) == NGX_HTTP_AI_LIMIT_OK) {
            settle1(n, now, M(REQUESTS), 1);
            n++;
        }
    }

    /* of whole milliseconds, each time rounded up to the next */
    is_int(n, 700, "no drift: 7 a second, 100 seconds");

    /* "60r/m" and "1r/s" by turns */

    fresh();
    n = 0;

    for (now = T0; now < T0 + 100000; now += 7) {
        rate(M(REQUESTS), (now & 1) ? 60 : 1, (now & 1) ? 60000 : 1000, 1);

        if (take1("a", 0, now, M(REQUESTS), 1) == NGX_HTTP_AI_LIMIT_OK) {
            settle1(0, now, M(REQUESTS), 1);
            n++;
        }
    }

    ok(n >= 98 && n <= 100, "no drift when the period changes: %d", (int) n);

    /* what was not served is given back */

    fresh();
    rate(M(REQUESTS), 1, 1000, 1);

    take1("a", 0, T0, M(REQUESTS), 1);
    settle1(0, T0 + 5, M(REQUESTS), 0);
    peek("a", T0 + 5);
    is_int(states[M(REQUESTS)].remaining, 1, "requests: given back");

    take1("a", 0, T0 + 5, M(REQUESTS), 1);
    settle1(0, T0 + 10, M(REQUESTS), 1);
    peek("a", T0 + 10);
    is_int(states[M(REQUESTS)].remaining, 0, "requests: not given back");
    is_int(states[M(REQUESTS)].held, 0, "requests: are not held");
}


static void
test_tokens(void)
{
    fresh();
    rate(M(TOKENS), 1000, 60000, 0);

    is_int(take1("a", 0, T0, M(TOKENS), 600), NGX_HTTP_AI_LIMIT_OK,
           "tokens: taken");
    peek("a", T0);
    is_int(states[M(TOKENS)].held, 600, "... held");
    is_int(states[M(TOKENS)].used, 0, "... not used");
    is_int(states[M(TOKENS)].remaining, 400, "... what remains");
    is_int(states[M(TOKENS)].reset, 36000, "... all is back");
    is_int(states[M(REQUESTS)].limit, -1, "... no other limit");

    is_int(take1("a", 1, T0, M(TOKENS), 500), NGX_HTTP_AI_LIMIT_REFUSED,
           "... too much");
    is_int(refusal.wait, 6000, "... 100 come back in 6 s");
    is_int(refusal.held, 0, "... whatever is held");

    is_int(settle1(0, T0, M(TOKENS), 100), NGX_HTTP_AI_LIMIT_OK, "settled");
    is_int(settle1(0, T0, M(TOKENS), 100), NGX_HTTP_AI_LIMIT_GONE,
           "... but once");
    peek("a", T0);
    is_int(states[M(TOKENS)].used, 100, "... used");
    is_int(states[M(TOKENS)].held, 0, "... not held");
    is_int(states[M(TOKENS)].remaining, 900, "... what remains");

    /* debt is paid by refill */

    take1("a", 1, T0, M(TOKENS), 900);
    settle1(1, T0, M(TOKENS), 2900);
    peek("a", T0);
    is_int(states[M(TOKENS)].used, 3000, "debt");
    is_int(states[M(TOKENS)].remaining, 0, "... nothing remains");
    is_int(states[M(TOKENS)].reset, 180000, "... paid back, and all there");
    is_int(take1("a", 2, T0, M(TOKENS), 1), NGX_HTTP_AI_LIMIT_REFUSED,
           "... refused");
    is_int(refusal.wait, 120060, "... until there is one");

    /* a limit that grows and shrinks */

    rate(M(TOKENS), 10000, 60000, 0);
    is_int(take1("a", 2, T0, M(TOKENS), 7000), NGX_HTTP_AI_LIMIT_OK,
           "a raise is in force at once");
    rate(M(TOKENS), 100, 60000, 0);
    peek("a", T0);
    is_int(states[M(TOKENS)].remaining, 0, "a smaller limit, too");
    is_int(take1("a", 3, T0, M(TOKENS), 1), NGX_HTTP_AI_LIMIT_REFUSED,
           "... refused");
    settle1(2, T0, M(TOKENS), 0);
    peek("a", T0 + 60000);
    is_int(states[M(TOKENS)].used, 2900, "... at its own speed");
    good("tokens");

    /* too much is cut down, if there is nothing else */

    fresh();
    rate(M(TOKENS), 1000, 60000, 2000);
    is_int(take1("a", 0, T0, M(TOKENS), 5000), NGX_HTTP_AI_LIMIT_OK,
           "more than all");
    peek("a", T0);
    is_int(states[M(TOKENS)].held, 2000, "... is cut down to the burst");
    is_int(take1("a", 1, T0, M(TOKENS), 5000), NGX_HTTP_AI_LIMIT_REFUSED,
           "... the second time not");
    is_int(refusal.wait, 120000, "... until all is there");
    is_int(take1("a", 1, T0 + 120000, M(TOKENS), 5000), NGX_HTTP_AI_LIMIT_OK,
           "... and it is");

    /* a limit of 0, no limit, and nothing asked for */

    fresh();
    rate(M(TOKENS), 0, 60000, 0);
    is_int(take1("a", 0, T0, M(TOKENS), 1), NGX_HTTP_AI_LIMIT_REFUSED,
           "limit 0 refuses");
    ok(refusal.wait == NGX_HTTP_AI_LIMIT_NEVER, "... for ever");
    is_int(take1("a", 0, T0, M(TOKENS), 0), NGX_HTTP_AI_LIMIT_OK,
           "... but not nothing");
    limits[M(TOKENS)].limit = -1;
    is_int(take1("a", 1, T0, M(TOKENS), 5), NGX_HTTP_AI_LIMIT_OK,
           "no limit");
    peek("a", T0);
    is_int(states[M(TOKENS)].limit, -1, "... is none");
    is_int(states[M(TOKENS)].held + states[M(TOKENS)].used
           + states[M(TOKENS)].remaining + states[M(TOKENS)].reset, 0,
           "... and counts nothing");
    good("limits of nothing");
}


/* what is given back is never more than had not come back by itself */

static void
test_refund(void)
{
    fresh();
    rate(M(TOKENS), 1000, 1000, 0);

    /* half of it has come back, then another took the rest */

    take1("a", 0, T0, M(TOKENS), 1000);
    settle1(0, T0 + 400, M(TOKENS), 100);
    peek("a", T0 + 400);
    is_int(states[M(TOKENS)].used, 0, "refund: 100 came back by then");

    fresh();
    rate(M(TOKENS), 1000, 1000, 0);

    take1("a", 0, T0, M(TOKENS), 900);
    take1("a", 1, T0 + 800, M(TOKENS), 800);
    peek("a", T0 + 800);
    is_int(states[M(TOKENS)].remaining, 100, "refund: before");
    settle1(0, T0 + 800, M(TOKENS), 0);
    peek("a", T0 + 800);
    is_int(states[M(TOKENS)].remaining, 200, "refund: only what was left");
    settle1(1, T0 + 800, M(TOKENS), 0);
    peek("a", T0 + 800);
    is_int(states[M(TOKENS)].remaining, 1000, "refund: of the second");

    /* two at once: exactly */

    fresh();
    rate(M(TOKENS), 10000, 60000, 0);

    take1("a", 0, T0, M(TOKENS), 4096);
    take1("a", 1, T0, M(TOKENS), 4096);
    settle1(1, T0, M(TOKENS), 100);
    settle1(0, T0, M(TOKENS), 100);
    peek("a", T0);
    is_int(states[M(TOKENS)].used, 200, "refund: of two at once");

    /* the same low must not serve two */

    fresh();
    rate(M(TOKENS), 10000, 1000, 0);

    take1("a", 0, T0, M(TOKENS), 4096);
    take1("a", 1, T0, M(TOKENS), 4096);
    take1("a", 2, T0 + 519, M(TOKENS), 5000);
    settle1(1, T0 + 519, M(TOKENS), 100);
    settle1(0, T0 + 519, M(TOKENS), 100);
    peek("a", T0 + 519);
    is_int(states[M(TOKENS)].used + states[M(TOKENS)].held, 5000,
           "refund: a low serves one");
    good("refund");
}


static void
test_windows(void)
{
    int64_t  now;

    now = T0 / HOUR * HOUR + 1000;

    fresh();
    window(M(Q_TOKENS), 1000, now, HOUR);

    is_int(take1("a", 0, now, M(Q_TOKENS), 700), NGX_HTTP_AI_LIMIT_OK,
           "window: taken");
    is_int(take1("a", 1, now, M(Q_TOKENS), 400), NGX_HTTP_AI_LIMIT_REFUSED,
           "window: too much");
    is_int(refusal.held, 1, "... only a hold is in the way");
    is_int(refusal.wait, 1000, "... which ends soon");
    is_int(settle1(0, now, M(Q_TOKENS), 650), NGX_HTTP_AI_LIMIT_OK,
           "window: settled");
    is_int(take1("a", 1, now, M(Q_TOKENS), 400), NGX_HTTP_AI_LIMIT_REFUSED,
           "window: still too much");
    is_int(refusal.held, 0, "... which is used");
    is_int(refusal.wait, HOUR - 1000, "... until the end");
    is_int(refusal.state.used, 650, "... used");
    is_int(refusal.state.remaining, 350, "... and left");

    /* a hold into the next window, the use of which begins with it */

    take1("a", 1, now, M(Q_TOKENS), 300);
    window(M(Q_TOKENS), 1000, now + HOUR, HOUR);
    peek("a", now + HOUR);
    is_int(states[M(Q_TOKENS)].used, 0, "next window: nothing used");
    is_int(states[M(Q_TOKENS)].held, 300, "... still held");
    is_int(states[M(Q_TOKENS)].reset, HOUR - 1000, "... and its end");

    settle1(1, now + HOUR, M(Q_TOKENS), 200);
    peek("a", now + HOUR);
    is_int(states[M(Q_TOKENS)].used, 200, "settled there");
    peek("a", now + HOUR);

    is_int(take1("a", 2, now + HOUR, M(Q_TOKENS), 800), NGX_HTTP_AI_LIMIT_OK,
           "window: full");

    /* the clock goes back, and on again: no second window */

    window(M(Q_TOKENS), 1000, now, HOUR);
    is_int(take1("a", 3, now, M(Q_TOKENS), 1), NGX_HTTP_AI_LIMIT_REFUSED,
           "clock back: the same window");
    settle1(2, now, M(Q_TOKENS), 800);
    window(M(Q_TOKENS), 1000, now + HOUR, HOUR);
    is_int(take1("a", 3, now + HOUR, M(Q_TOKENS), 1),
           NGX_HTTP_AI_LIMIT_REFUSED, "clock forth: still the same");
    peek("a", now + HOUR);
    is_int(states[M(Q_TOKENS)].used, 1000, "... all used");

    /* debt is carried on, as long as it takes */

    fresh();
    now = T0 / HOUR * HOUR + 1000;
    window(M(Q_MONEY), 1000, now, HOUR);
    take1("a", 0, now, M(Q_MONEY), 1000);
    settle1(0, now, M(Q_MONEY), 3500);
    is_int(take1("a", 1, now, M(Q_MONEY), 600), NGX_HTTP_AI_LIMIT_REFUSED,
           "debt: refused");
    is_int(refusal.wait, 4 * HOUR - 1000, "debt: for windows");
    is_int(refusal.state.reset, 4 * HOUR - 1000, "debt: until all is there");

    window(M(Q_MONEY), 1000, now + HOUR, HOUR);
    peek("a", now + HOUR);
    is_int(states[M(Q_MONEY)].used, 2500, "debt: after one");
    is_int(take1("a", 1, now + HOUR, M(Q_MONEY), 600),
           NGX_HTTP_AI_LIMIT_REFUSED, "debt: refused");
    is_int(refusal.wait, 3 * HOUR - 1000, "debt: one less");

    window(M(Q_MONEY), 1000, now + 3 * HOUR, HOUR);
    peek("a", now + 3 * HOUR);
    is_int(states[M(Q_MONEY)].used, 500, "debt: two at once");
    window(M(Q_MONEY), 1000, now + 4 * HOUR, HOUR);
    is_int(take1("a", 1, now + 4 * HOUR, M(Q_MONEY), 600),
           NGX_HTTP_AI_LIMIT_OK, "debt: paid");

    /* a limit that was lowered makes no debt */

    fresh();
    window(M(Q_TOKENS), 1000, now, HOUR);
    take1("a", 0, now, M(Q_TOKENS), 900);
    settle1(0, now, M(Q_TOKENS), 900);
    window(M(Q_TOKENS), 10, now, HOUR);
    is_int(take1("a", 0, now, M(Q_TOKENS), 1), NGX_HTTP_AI_LIMIT_REFUSED,
           "lowered");
    window(M(Q_TOKENS), 10, now + HOUR, HOUR);
    peek("a", now + HOUR);
    is_int(states[M(Q_TOKENS)].used, 0, "lowered: no debt");

    /* the window is over, but nobody has said so before the settle */

    fresh();
    window(M(Q_TOKENS), 1000, now, HOUR);
    take1("a", 0, now, M(Q_TOKENS), 500);
    settle1(0, now + HOUR, M(Q_TOKENS), 400);
    window(M(Q_TOKENS), 1000, now + HOUR, HOUR);
    peek("a", now + HOUR);
    is_int(states[M(Q_TOKENS)].used, 400, "settled in the next window");
    window(M(Q_TOKENS), 1000, now + 2 * HOUR, HOUR);
    peek("a", now + 2 * HOUR);
    is_int(states[M(Q_TOKENS)].used, 0, "... not in the one after it");

    /* estimates above all */

    fresh();
    window(M(Q_TOKENS), 1000, now, HOUR);
    is_int(take1("a", 0, now, M(Q_TOKENS), 1500), NGX_HTTP_AI_LIMIT_OK,
           "above all");
    peek("a", now);
    is_int(states[M(Q_TOKENS)].held, 1000, "... is cut down");
    is_int(take1("a", 1, now, M(Q_TOKENS), 1500), NGX_HTTP_AI_LIMIT_REFUSED,
           "... once");
    is_int(refusal.held, 1, "... there is a hold");
    settle1(0, now, M(Q_TOKENS), 1);
    is_int(take1("a", 1, now, M(Q_TOKENS), 1500), NGX_HTTP_AI_LIMIT_REFUSED,
           "... there is use");
    is_int(refusal.wait, HOUR - 1000, "... until the end");
    good("windows");
}


static void
test_slots(void)
{
    ngx_http_ai_amounts_t  a;

    fresh();
    limits[M(CONCURRENT)].limit = 2;

    take1("a", 0, T0, M(CONCURRENT), 1);
    take1("a", 1, T0, M(CONCURRENT), 1);
    is_int(take1("a", 2, T0, M(CONCURRENT), 1), NGX_HTTP_AI_LIMIT_REFUSED,
           "slots: no third");
    is_int(refusal.held, 1, "... held");
    is_int(refusal.wait, 1000, "... for a second");
    is_int(refusal.meter, M(CONCURRENT), "... by slots");
    is_int(refusal.state.held, 2, "... two");
    is_int(take1("a", 1, T0, M(CONCURRENT), 1), NGX_HTTP_AI_LIMIT_REPEATED,
           "the same id again");
    settle1(0, T0, M(CONCURRENT), 1);
    peek("a", T0);
    is_int(states[M(CONCURRENT)].held, 1, "slots: always released");
    is_int(states[M(CONCURRENT)].remaining, 1, "... one is free");
    is_int(states[M(CONCURRENT)].used, 0, "... never used");

    /* several meters: all or none, and the longest wait counts */

    fresh();
    rate(M(REQUESTS), 60, 60000, 1);
    rate(M(TOKENS), 1000, 60000, 0);
    window(M(Q_TOKENS), 5000, T0, HOUR);
    limits[M(CONCURRENT)].limit = 1;

    memset(&a, 0, sizeof(a));
    a.v[M(REQUESTS)] = 1;
    a.v[M(TOKENS)] = 1000;
    a.v[M(Q_TOKENS)] = 1000;
    a.v[M(CONCURRENT)] = 1;

    is_int(take("a", 0, T0, &a), NGX_HTTP_AI_LIMIT_OK, "all meters");
    is_int(take("a", 1, T0, &a), NGX_HTTP_AI_LIMIT_REFUSED, "all meters");
    is_int(refusal.meter, M(TOKENS), "the meter that refuses longest");
    is_int(refusal.wait, 60000, "... its wait");
    is_int(refusal.held, 0, "... no matter of holds");
    settle(0, T0, &a);
    peek("a", T0);
    is_int(states[M(Q_TOKENS)].used, 1000, "a refusal takes nothing");
    is_int(states[M(Q_TOKENS)].held, 0, "... and holds nothing");
    good("slots");
}


/* amounts that may be too large */

static void
test_bound(void)
{
    u_char                   id[16];
    ngx_str_t                s;
    ngx_uint_t               mask;
    ngx_http_ai_amounts_t    a;
    ngx_http_ai_limit_ask_t  ask;

    fresh();
    rate(M(REQUESTS), 2, 60000, 0);
    rate(M(TOKENS), 1000, 60000, 0);

    memset(&a, 0, sizeof(a));
    a.v[M(REQUESTS)] = 1;
    a.v[M(TOKENS)] = 120;

    mask = 1 << M(REQUESTS) | 1 << M(TOKENS) | NGX_HTTP_AI_LIMIT_BOUND;
    ngx_str_set(&s, "a");

    ask.id = id;
    ask.owner = 1;
    ask.now = T0;
    ask.deadline = T0 + 30000;
    ask.amounts = &a;
    ask.show = 0;

#define bound(n)                                                              \
    (name(id, n), memset(&holds[n], 0, sizeof(holds[n])),                     \
     ngx_http_ai_limit_reserve_of(st, &s, &ask, limits, mask, &holds[n],      \
                                  &refusal, NULL))

    is_int(bound(0), NGX_HTTP_AI_LIMIT_OK, "a bound: eight times are there");
    is_int(bound(1), NGX_HTTP_AI_LIMIT_SCARCE, "... too little is left");
    is_int(holds[1].index, 0, "... nothing is taken");
    is_int(holds[1].cut, 0, "... or cut");
    peek("a", T0);
    is_int(states[M(TOKENS)].held, 120, "... the first one is there");
    is_int(states[M(REQUESTS)].used, 1, "... and its request");

    a.v[M(TOKENS)] = 110;
    is_int(bound(1), NGX_HTTP_AI_LIMIT_OK, "... 880 are left");
    a.v[M(TOKENS)] = 10;
    is_int(bound(2), NGX_HTTP_AI_LIMIT_REFUSED, "... no third request");
    is_int(refusal.meter, M(REQUESTS), "... that is why");

    settle1(0, T0, M(TOKENS), 5);
    settle1(1, T0, M(TOKENS), 5);
    peek("a", T0);
    is_int(states[M(TOKENS)].used, 10, "... settled");

    ngx_str_set(&s, "new");
    a.v[M(TOKENS)] = 126;
    is_int(bound(3), NGX_HTTP_AI_LIMIT_SCARCE, "... of a new key");
    a.v[M(TOKENS)] = 5000;
    is_int(bound(3), NGX_HTTP_AI_LIMIT_SCARCE, "... above the limit");
    ok(ngx_http_ai_limit_check(st) == NULL, "... consistent");
}


static void
test_topup(void)
{
    fresh();
    window(M(Q_TOKENS), 1000, T0, HOUR);
    rate(M(OUTPUT), 1000, 60000, 0);

    take1("a", 0, T0, M(Q_TOKENS), 100);
    is_int(more1(0, T0, M(Q_TOKENS), 800), NGX_HTTP_AI_LIMIT_OK, "more");
    is_int(more1(0, T0, M(Q_TOKENS), 101), NGX_HTTP_AI_LIMIT_REFUSED,
           "too much more");
    is_int(refusal.state.remaining, 100, "... what is left");
    is_int(more1(0, T0, M(Q_TOKENS), 100), NGX_HTTP_AI_LIMIT_OK,
           "exactly that");
    is_int(more1(0, T0, M(OUTPUT), 300), NGX_HTTP_AI_LIMIT_OK,
           "of a meter that was not asked for");
    settle1(0, T0, M(Q_TOKENS), 1000);
    is_int(more1(0, T0, M(Q_TOKENS), 1), NGX_HTTP_AI_LIMIT_GONE, "gone");
    peek("a", T0);
    is_int(states[M(Q_TOKENS)].used, 1000, "all used");
    is_int(states[M(OUTPUT)].remaining, 1000, "all given back");
    good("topup");
}


static void
test_reap(void)
{
    ngx_http_ai_amounts_t      a;
    ngx_http_ai_limit_stats_t  stats;

    fresh();
    window(M(Q_TOKENS), 10000, T0, HOUR);
    window(M(Q_MONEY), 10000, T0, HOUR);
    rate(M(TOKENS), 10000, 60000, 0);
    limits[M(CONCURRENT)].limit = 5;

    memset(&a, 0, sizeof(a));
    a.v[M(INPUT)] = 100;
    a.v[M(OUTPUT)] = 200;
    a.v[M(TOKENS)] = 300;
    a.v[M(Q_TOKENS)] = 300;
    a.v[M(Q_MONEY)] = 30;
    a.v[M(CONCURRENT)] = 1;

    take("a", 0, T0, &a);
    take("a", 1, T0, &a);
    take("a", 2, T0, &a);
    take("a", 3, T0 + 20000, &a);

    ngx_http_ai_limit_seen(st, &holds[1], 900, 90);
    ngx_http_ai_limit_seen(st, &holds[2], 10, 1);

    is_int(ngx_http_ai_limit_reap(st, T0 + 1000, living, 100), 0,
           "reap: nothing yet");
    is_int(ngx_http_ai_limit_reap(st, T0 + 30001, living, 2), 2,
           "reap: no more than asked");
    is_int(ngx_http_ai_limit_reap(st, T0 + 30001, living, 100), 1,
           "reap: past the deadline");

    peek("a", T0 + 30001);
    is_int(states[M(Q_TOKENS)].used, 300 + 1000 + 300,
           "charged: the larger of held and seen");
    is_int(states[M(Q_MONEY)].used, 30 + 90 + 30, "... money");
    is_int(states[M(CONCURRENT)].held, 1, "... slots are free");

    /* late figures */

    a.v[M(Q_TOKENS)] = 350;
    a.v[M(TOKENS)] = 350;
    is_int(settle(0, T0 + 40000, &a), NGX_HTTP_AI_LIMIT_OK, "late: more");
    peek("a", T0 + 40000);
    is_int(states[M(Q_TOKENS)].used, 350 + 1000 + 300, "... corrected");
    is_int(settle(0, T0 + 40000, &a), NGX_HTTP_AI_LIMIT_GONE, "... once");

    a.v[M(Q_TOKENS)] = 50;
    is_int(settle(1, T0 + 40000, &a), NGX_HTTP_AI_LIMIT_OK, "late: less");
    peek("a", T0 + 40000);
    is_int(states[M(Q_TOKENS)].used, 350 + 50 + 300, "... corrected");

    /* of a window that is over: nothing to correct */

    window(M(Q_TOKENS), 10000, T0 + HOUR, HOUR);
    window(M(Q_MONEY), 10000, T0 + HOUR, HOUR);
    take("a", 4, T0 + HOUR, &a);
    settle1(4, T0 + HOUR, M(Q_TOKENS), 500);
    is_int(settle1(2, T0 + HOUR, M(Q_TOKENS), 0), NGX_HTTP_AI_LIMIT_OK,
           "later: less");
    peek("a", T0 + HOUR);
    is_int(states[M(Q_TOKENS)].used, 500, "... of the last window");
    good("late");

    /* the clock jumps: deadlines, too */

    fresh();
    limits[M(CONCURRENT)].limit = 5;
    take1("a", 0, T0, M(CONCURRENT), 1);
    ngx_http_ai_limit_reap(st, T0, living, 100);
    is_int(ngx_http_ai_limit_reap(st, T0 + HOUR, living, 100), 0,
           "a jump is not the deadline");
    is_int(ngx_http_ai_limit_reap(st, T0 + HOUR + 29000, living, 100), 0,
           "... nor shortly before it");
    is_int(ngx_http_ai_limit_reap(st, T0 + HOUR + 31000, living, 100), 1,
           "... but then");
    ngx_http_ai_limit_reap(st, T0 + 31000, living, 100);
    take1("a", 1, T0 + 31000, M(CONCURRENT), 1);
    is_int(ngx_http_ai_limit_reap(st, T0 + 62000, living, 100), 1,
           "the same after a jump back");

    take1("a", 2, T0 + 62000, M(CONCURRENT), 1);
    is_int(ngx_http_ai_limit_reap(st, T0 + 62000, dead, 100), 1,
           "of a dead process at once");
    peek("a", T0 + 62000);
    is_int(states[M(CONCURRENT)].held, 0, "no slot is held");

    ngx_http_ai_limit_stats(st, &stats);
    is_int(stats.expired, 3, "counted");
    is_int(st->head.ntombs, 3, "tombstones");

    for (rnd = 0; rnd < 20; rnd++) {
        ngx_http_ai_limit_reap(st, T0 + 62000 + rnd * 50000, living, 100);
    }

    rnd = 88172645463325252;
    is_int(st->head.ntombs, 0, "... for 15 minutes");
    good("reap");
}


static void
test_full(void)
{
    char                       key[16];
    int64_t                    now;
    ngx_uint_t                 i, n, nkeys;
    ngx_http_ai_limit_e        rc;
    ngx_http_ai_limit_stats_t  stats;

    now = T0 / HOUR * HOUR + 1000;

    fresh_size(64 * 1024);
    nkeys = st->nkeys;
    window(M(Q_TOKENS), 1000, now, HOUR);
    rate(M(TOKENS), 1000, 3600000, 0);

    /* three of four keys are used in the window, others only by rate */

    for (i = 0; i < nkeys; i++) {
        snprintf(key, sizeof(key), "key%u", (unsigned) i);

        take1(key, i, now, (i % 4) ? M(Q_TOKENS) : M(TOKENS), 10);

        if (i % 2) {
            settle1(i, now, (i % 4) ? M(Q_TOKENS) : M(TOKENS), 10);
        }
    }

    good("full");
    ngx_http_ai_limit_stats(st, &stats);
    is_int(stats.keys, nkeys, "full: all keys");

    n = 0;

    for (i = 0; i < 10 * nkeys; i++) {
        snprintf(key, sizeof(key), "other%u", (unsigned) i);
        rc = take1(key, nkeys, now, M(Q_TOKENS), 10);
        n += (rc == NGX_HTTP_AI_LIMIT_OK);

        if (rc != NGX_HTTP_AI_LIMIT_OK && rc != NGX_HTTP_AI_LIMIT_FULL) {
            break;
        }
    }

    is_int(i, 10 * nkeys, "full: ten times as many");
    is_int(n, 0, "full: none has the place of one that is held or used");
    good("full");

    for (i = 0; i < nkeys; i++) {
        snprintf(key, sizeof(key), "key%u", (unsigned) i);
        peek(key, now);

        if (states[(i % 4) ? M(Q_TOKENS) : M(TOKENS)].held != (i % 2 ? 0 : 10)
            || states[M(Q_TOKENS)].used != (i % 2 ? 10 : 0))
        {
            break;
        }
    }

    is_int(i, nkeys, "full: all are as they were");

    /* those whose window is over, or with use of a rate only, give way */

    for (i = 0; i < nkeys; i += 4) {
        settle1(i, now, M(TOKENS), 10);
    }

    n = 0;

    for (i = 0; i < 10 * nkeys; i++) {
        snprintf(key, sizeof(key), "other%u", (unsigned) i);
        n += (take1(key, nkeys, now, M(Q_TOKENS), 10)
              == NGX_HTTP_AI_LIMIT_OK);
    }

    is_int(n, (nkeys + 3) / 4, "full: rates give way");
    ngx_http_ai_limit_stats(st, &stats);
    is_int(stats.evicted, n, "... which is counted");

    now += HOUR;
    n = 0;
    window(M(Q_TOKENS), 1000, now, HOUR);

    /* "now" is a second after its start */

    for (i = 0; i < 10 * nkeys; i++) {
        snprintf(key, sizeof(key), "third%u", (unsigned) i);
        n += (take1(key, nkeys, now, M(Q_TOKENS), 10)
              == NGX_HTTP_AI_LIMIT_OK);
    }

    ok(n >= nkeys / 2 - 1 && n <= nkeys / 2 + 1,
       "full: windows that are over give way");
    good("full");

    fresh();
    limits[M(CONCURRENT)].limit = 10;
    is_int(take1("01234567890123456789012345678901", 0, now, M(CONCURRENT), 1),
           NGX_HTTP_AI_LIMIT_OK, "the longest key");
    is_int(take1("012345678901234567890123456789012", 1, now, M(CONCURRENT),
                 1),
           NGX_HTTP_AI_LIMIT_FULL, "too long a key");
    good("long keys");

    /* of a window that has just ended, for one worker but not for another */

    fresh_size(24 * 1024);
    now = T0 / HOUR * HOUR + HOUR - 10;
    window(M(Q_TOKENS), 1000, now, HOUR);

    for (i = 0; i < st->nkeys; i++) {
        snprintf(key, sizeof(key), "key%u", (unsigned) i);
        take1(key, 0, now, M(Q_TOKENS), 1000);
        settle1(0, now, M(Q_TOKENS), 1000);
    }

    window(M(Q_TOKENS), 1000, now + 20, HOUR);
    is_int(take1("new", 0, now + 20, M(Q_TOKENS), 1), NGX_HTTP_AI_LIMIT_FULL,
           "full: a window that has just ended");
    window(M(Q_TOKENS), 1000, now, HOUR);
    is_int(take1("key0", 0, now, M(Q_TOKENS), 1), NGX_HTTP_AI_LIMIT_REFUSED,
           "full: ... is not for all");
    window(M(Q_TOKENS), 1000, now + 1020, HOUR);
    is_int(take1("new", 0, now + 1020, M(Q_TOKENS), 1), NGX_HTTP_AI_LIMIT_OK,
           "full: ... a second later it is");
    good("just ended");

    /* holds */

    fresh_size(64 * 1024);
    limits[M(CONCURRENT)].limit = 1000000;

    for (i = 0; i < 1024; i++) {
        rc = take1("a", i, now, M(CONCURRENT), 1);
        if (rc != NGX_HTTP_AI_LIMIT_OK) {
            break;
        }
    }

    is_int(i, st->nholds, "holds: as many as there is room for");
    is_int(rc, NGX_HTTP_AI_LIMIT_FULL, "... then it is full");
    settle1(5, now, M(CONCURRENT), 1);
    is_int(take1("a", i, now, M(CONCURRENT), 1), NGX_HTTP_AI_LIMIT_OK,
           "... but for one that is free again");
    ngx_http_ai_limit_reap(st, now, dead, 10);
    is_int(take1("a", 1000, now, M(CONCURRENT), 1), NGX_HTTP_AI_LIMIT_OK,
           "tombstones give way");
    is_int(st->head.ntombs, 9, "... one of ten");
    peek("a", now);
    is_int(states[M(CONCURRENT)].held, st->nholds - 9, "holds: counted");
    good("holds");
}


static void
test_clock(void)
{
    int64_t     t;
    ngx_uint_t  i, n;

    fresh();
    rate(M(TOKENS), 1000, 1000, 0);

    /* two workers, one of which is 50 ms behind: no time is made of it */

    take1("a", 0, T0, M(TOKENS), 1000);

    for (i = 0; i < 100; i++) {
        peek("a", T0 - 50);
        take1("a", 1, T0 - 50, M(TOKENS), 5000);
        take1("a", 1, T0, M(TOKENS), 5000);
    }

    peek("a", T0);
    is_int(states[M(TOKENS)].remaining, 0, "clock: skew makes no time");

    /* far back, noticed by one of two */

    for (i = 0; i < 100; i++) {
        take1("a", 1, T0 - HOUR, M(TOKENS), 5000);
        take1("a", 1, T0, M(TOKENS), 5000);
    }

    peek("a", T0);
    is_int(states[M(TOKENS)].remaining, 0, "clock: not while one is right");

    /* by all: after two seconds, it goes on from when it was noticed */

    t = T0 - HOUR;
    is_int(take1("a", 1, t, M(TOKENS), 100), NGX_HTTP_AI_LIMIT_REFUSED,
           "clock: back");
    is_int(refusal.wait, 2000, "... to be sure");
    take1("a", 1, t + 1999, M(TOKENS), 5000);
    peek("a", t + 1999);
    is_int(states[M(TOKENS)].remaining, 0, "... not yet");
    is_int(take1("a", 1, t + 2000, M(TOKENS), 100), NGX_HTTP_AI_LIMIT_OK,
           "... the wait was true");
    peek("a", t + 2000);
    is_int(states[M(TOKENS)].remaining, 900, "... it goes on from there");
    settle1(1, t + 2000, M(TOKENS), 100);

    /* a little back: it waits until it has caught up */

    fresh();
    rate(M(TOKENS), 1000, 1000, 0);
    take1("a", 0, T0, M(TOKENS), 1000);
    take1("a", 1, T0 - 30000, M(TOKENS), 100);
    is_int(refusal.wait, 30100, "clock: a little back");
    is_int(take1("a", 1, T0 - 30000 + refusal.wait, M(TOKENS), 100),
           NGX_HTTP_AI_LIMIT_OK, "... the wait was true");

    /* one hour to and fro: each way forth is an hour, no way back is */

    fresh();
    rate(M(TOKENS), 1000, 3600000, 0);
    n = 0;
    t = T0;

    for (i = 0; i < 20; i++) {

        if (take1("a", 0, t, M(TOKENS), 1000) == NGX_HTTP_AI_LIMIT_OK) {
            settle1(0, t, M(TOKENS), 1000);
            n++;
        }

        t += (i % 2) ? -HOUR : HOUR;
    }

    ok(n <= 11, "clock: to and fro, %u in %u hours", (unsigned) n, 10);
    good("clock");
}


static void
test_snapshot(void)
{
    char         key[16];
    u_char      *buf, *copy;
    size_t       size, len, i;
    int64_t      now;
    ngx_uint_t   n, bad;

    now = T0 / HOUR * HOUR + 1000;

    fresh();
    window(M(Q_TOKENS), 1000, now, HOUR);
    window(M(Q_MONEY), 100000, now, 24 * HOUR);
    rate(M(TOKENS), 1000, 60000, 0);

    for (n = 0; n < 20; n++) {
        snprintf(key, sizeof(key), "k%u", (unsigned) n);
        take1(key, n, now, M(Q_TOKENS), 10 + n);
        settle1(n, now, M(Q_TOKENS), n);
    }

    take1("money", n, now, M(Q_MONEY), 5000);
    settle1(n, now, M(Q_MONEY), 4000);
    take1("held", n, now, M(Q_MONEY), 5000);

    size = ngx_http_ai_limit_snapshot_size(st);
    buf = malloc(size);
    len = ngx_http_ai_limit_snapshot(st, buf, size);
    is_int(len, size, "snapshot: its size");
    is_int(ngx_http_ai_limit_snapshot(st, buf, size - 1), 0,
           "snapshot: too small");
    is_int(ngx_http_ai_limit_snapshot(st, buf, 10), 0,
           "snapshot: much too small");
    len = ngx_http_ai_limit_snapshot(st, buf, size);

    fresh();
    window(M(Q_TOKENS), 1000, now, HOUR);
    window(M(Q_MONEY), 100000, now, 24 * HOUR);

    is_int(ngx_http_ai_limit_restore(st, buf, len), NGX_OK, "restored");
    good("restored");

    bad = 0;

    for (n = 0; n < 20; n++) {
        snprintf(key, sizeof(key), "k%u", (unsigned) n);
        peek(key, now);
        bad += (states[M(Q_TOKENS)].used != (int64_t) n);
    }

    is_int(bad, 0, "restored: what was used");
    peek("money", now);
    is_int(states[M(Q_MONEY)].used, 4000, "restored: money");
    peek("held", now);
    is_int(states[M(Q_MONEY)].used + states[M(Q_MONEY)].held, 0,
           "restored: no holds");

    ngx_http_ai_limit_restore(st, buf, len);
    peek("money", now);
    is_int(states[M(Q_MONEY)].used, 8000, "restored again: added");

    /* any change, any cut */

    fresh();
    bad = 0;

    for (i = 0; i < len; i++) {
        copy = test_copy(buf, i);
        bad += (ngx_http_ai_limit_restore(st, copy, i) != NGX_DECLINED);
        free(copy);

        copy = test_copy(buf, len);
        copy[i] ^= 1 << (i % 8);
        bad += (ngx_http_ai_limit_restore(st, copy, len) != NGX_DECLINED);
        free(copy);
    }

    is_int(bad, 0, "damaged: declined");
    is_int(st->head.stats.keys, 0, "... and nothing added");

    /* more than there is room for */

    fresh_size(16 * 1024);
    is_int(ngx_http_ai_limit_restore(st, buf, len), NGX_OK,
           "restored: less room");
    is_int(st->head.stats.keys, st->nkeys, "... as much as there is");
    good("less room");

    free(buf);
}


static void
test_view(void)
{
    ngx_str_t    key, s = ngx_string("a");
    ngx_uint_t   pos, n, running, sum;

    fresh();
    window(M(Q_TOKENS), 1000, T0, HOUR);
    limits[M(CONCURRENT)].limit = 10;

    take1("a", 0, T0, M(Q_TOKENS), 100);
    take1("b", 1, T0, M(Q_TOKENS), 100);
    take1("c", 2, T0, M(Q_TOKENS), 100);
    settle1(0, T0, M(Q_TOKENS), 70);

    pos = 0;
    n = 0;
    sum = 0;

    while (ngx_http_ai_limit_next(st, &pos, &key, T0, states, &running)) {
        n++;
        sum += states[M(Q_TOKENS)].used + running;
        ok(key.len == 1 && states[M(Q_TOKENS)].limit == 1000
           && states[M(TOKENS)].limit == -1, "view: a key");
    }

    is_int(n, 3, "view: all keys");
    is_int(sum, 72, "view: use and holds");

    is_int(ngx_http_ai_limit_reset(st, &s), 1, "reset: one");
    peek("a", T0);
    is_int(states[M(Q_TOKENS)].used, 0, "... is forgotten");
    peek("b", T0);
    is_int(states[M(Q_TOKENS)].held, 100, "... another is not");
    s.len = 0;
    is_int(ngx_http_ai_limit_reset(st, &s), 0, "reset: not there");

    ngx_http_ai_limit_reap(st, T0, dead, 1);
    is_int(ngx_http_ai_limit_reset(st, NULL), 3, "reset: all");
    peek("c", T0);
    is_int(states[M(Q_TOKENS)].held, 100, "... holds stay");
    is_int(settle1(1, T0, M(Q_TOKENS), 500), NGX_HTTP_AI_LIMIT_GONE,
           "... what was charged before is not corrected");
    is_int(settle1(2, T0, M(Q_TOKENS), 50), NGX_HTTP_AI_LIMIT_OK,
           "... what is held is settled");
    good("view");

    /* a window that is over, and nobody asked since */

    pos = 2;
    ngx_http_ai_limit_next(st, &pos, &key, T0 + HOUR, states, &running);
    is_int(states[M(Q_TOKENS)].used, 0, "view: a window that is over");
    is_int(states[M(Q_TOKENS)].remaining, 1000, "... all is there");
}


/* waiting that long is enough, and one millisecond less is not, for rates */

static void
test_wait(void)
{
    int64_t                now, length, wait, bad, early, n, v;
    ngx_uint_t             i, k, m, held;
    ngx_http_ai_amounts_t  a;

    static const int64_t   periods[] = { 1, 7, 1000, 60000, 86400000 };

    bad = 0;
    early = 0;
    n = 0;

    for (i = 0; i < 20000; i++) {
        fresh_size(16 * 1024);
        now = T0 + below(1000000000);
        length = periods[below(3) + 2];

        for (m = 0; m < M(CONCURRENT); m++) {
            if (below(2)) {
                rate(m, 1 + below((int64_t) 1 << below(54)),
                     periods[below(5)],
                     below(2) ? 0 : 1 + below((int64_t) 1 << below(54)));
            }
        }

        if (below(2)) {
            window(M(Q_TOKENS), 1 + below(100000), now, length);
        }

        for (k = 0; k < 8; k++) {

            for (m = 0; m < M(MAX); m++) {
                v = limits[m].burst ? limits[m].burst : limits[m].limit;
                a.v[m] = (v > 0) ? below(v + v / 8 + 1) : 0;
            }

            if (take("a", k, now, &a) == NGX_HTTP_AI_LIMIT_REFUSED) {
                wait = refusal.wait;
                held = refusal.held;
                m = refusal.meter;

                if (wait == NGX_HTTP_AI_LIMIT_NEVER
                    || wait > ((int64_t) 1 << 50))
                {
                    continue;
                }

                n++;

                if (!held && m < M(CONCURRENT) && wait > 1
                    && take("a", k, now + wait - 1, &a)
                       == NGX_HTTP_AI_LIMIT_OK)
                {
                    early++;
                    break;
                }

                if (held) {
                    continue;
                }

                now += wait;

                if (limits[M(Q_TOKENS)].limit >= 0) {
                    window(M(Q_TOKENS), limits[M(Q_TOKENS)].limit, now,
                           length);
                }

                if (take("a", k, now, &a) != NGX_HTTP_AI_LIMIT_OK
                    && !refusal.held)
                {
                    bad++;
                    diag("meter %u: waited %lld, now %lld", (unsigned) m,
                         (long long) wait, (long long) refusal.wait);
                }
            }

            if (below(3) == 0 && holds[k].index) {
                for (m = 0; m < M(MAX); m++) {
                    a.v[m] = below(a.v[m] + a.v[m] / 2 + 1);
                }

                settle(k, now, &a);
                holds[k].index = 0;
            }

            now += below(2) ? below(100000) : 0;

            if (limits[M(Q_TOKENS)].limit >= 0) {
                window(M(Q_TOKENS), limits[M(Q_TOKENS)].limit, now, length);
            }
        }

        good("wait");
    }

    ok(n > 5000, "waits: %d of them", (int) n);
    is_int(bad, 0, "waits: long enough");
    is_int(early, 0, "waits: no longer than needed");
}


/*
 * A bucket against one of exact fractions: what is taken and given back, by
 * many at a time, never lets through more than if only the true amounts had
 * been taken when they were.
 */

typedef struct {
    int64_t  time;
    int64_t  amount;
    int64_t  actual;
} event_t;


static void
test_true(void)
{
    int64_t      now, limit, period, burst, n, over, excess, charged, truth;
    __int128     level, top;
    event_t      events[600], *e;
    ngx_uint_t   i, k, round, nevents, running[16];

    over = 0;
    n = 0;
    excess = 0;
    charged = 0;

    for (round = 0; round < 1500; round++) {
        fresh_size(32 * 1024);

        period = 1 + below(60000);
        limit = 1 + below(10000);
        burst = 1 + below(2 * limit);
        now = T0;
        nevents = 0;

        memset(running, 0, sizeof(running));

        rate(M(TOKENS), limit, period, burst);

        for (i = 0; i < 400; i++) {
            now += below(3) ? 0 : below(period / 4 + 2);
            k = below(16);

            if (running[k]) {
                e = &events[running[k] - 1];

                if (below(4)) {

                    /* not charged with more than was taken */

                    e->actual = below(2) ? below(e->amount + 1)
                                         : e->amount / (1 + below(20));
                    settle1(k, now, M(TOKENS), e->actual);
                    running[k] = 0;

                } else if (more1(k, now, M(TOKENS), below(burst / 8 + 1))
                           == NGX_HTTP_AI_LIMIT_OK)
                {
                    /* the rest of it is used by others as from now */

                    events[nevents].time = now;
                    events[nevents].amount = 0;
                    events[nevents].actual = 0;
                    nevents++;
                }

                continue;
            }

            e = &events[nevents];
            e->time = now;
            e->amount = 1 + below(burst);

            if (take1("a", k, now, M(TOKENS), e->amount)
                == NGX_HTTP_AI_LIMIT_OK)
            {
                e->actual = e->amount;
                running[k] = ++nevents;
                n++;
            }
        }

        level = 0;
        top = (__int128) burst * period;

        for (i = 0; i < nevents; i++) {
            e = &events[i];

            if (i) {
                level -= (__int128) limit * (e->time - events[i - 1].time);
                level = (level > 0) ? level : 0;
            }

            level += (__int128) e->actual * period;
            over += (level > top);
        }

        for (k = 0; k < 16; k++) {
            if (running[k]) {
                settle1(k, now, M(TOKENS), events[running[k] - 1].amount);
            }
        }

        level -= (__int128) limit * (now - events[nevents - 1].time);
        level = (level > 0) ? level : 0;

        peek("a", now);
        charged = states[M(TOKENS)].used;
        truth = (int64_t) ((level + period - 1) / period);

        /* topped up amounts that stay are not in the model's level */

        if (charged < truth) {
            ok(0, "true: %lld used, but %lld charged", (long long) truth,
               (long long) charged);
            break;
        }

        excess += (charged - truth) * 1000 / burst;
        good("true");
    }

    is_int(over, 0, "true: never more than the burst");
    ok(n > 10000, "true: %d reservations, at most %d %% of a burst lost",
       (int) n, (int) (excess / round / 10));
}


/* extremes of all arguments, for the sanitizers */

static void
test_extreme(void)
{
    int64_t                     v, now;
    ngx_uint_t                  i, k, m;
    ngx_http_ai_amounts_t       a;

    static const int64_t        values[] = {
        INT64_MIN, -1, 0, 1, 2, 1000, (int64_t) 1 << 31, (int64_t) 1 << 52,
        (int64_t) 1 << 53, ((int64_t) 1 << 53) + 1, INT64_MAX
    };

    for (i = 0; i < 3000; i++) {
        fresh_size(16 * 1024);

        for (k = 0; k < 30; k++) {
            now = (below(4) == 0) ? below((int64_t) 1 << 52) : T0;

            for (m = 0; m < M(MAX); m++) {
                limits[m].limit = values[below(11)];
                limits[m].period = values[below(11)];
                limits[m].burst = values[below(11)];
                v = below(2) ? below((int64_t) 1 << 52) : now;
                limits[m].start = v;
                limits[m].end = v + below(3) * below(100000000);
                a.v[m] = values[below(11)];
            }

            (void) take(below(2) ? "a" : "b", k, now, &a);

            for (m = 0; m < M(MAX); m++) {
                a.v[m] = values[below(11)];
            }

            m = below(k + 1);

            (void) ngx_http_ai_limit_topup(st, &holds[m], now, now, limits,
                                           &a, &refusal);
            ngx_http_ai_limit_seen(st, &holds[m], values[below(11)],
                                   values[below(11)]);

            if (below(2)) {
                (void) settle(below(k + 1), now, &a);
            }

            if (below(4) == 0) {
                (void) ngx_http_ai_limit_reap(st, now, NULL, 2);
            }

            peek("a", now);

            for (m = 0; m < M(MAX); m++) {
                if (limits[m].limit >= 0
                    && (states[m].remaining < 0 || states[m].used < 0
                        || states[m].held < 0 || states[m].reset < 0))
                {
                    ok(0, "extreme: a negative state of %u", (unsigned) m);
                }
            }
        }

        good("extreme");
    }

    ok(1, "extremes");
}


/*
 * The same operations where the usual case is tried first, and where it is
 * not: two ledgers that stay the same.
 */

static void
test_plain(void)
{
    char                          key[8];
    u_char                       *other, id[16];
    int64_t                       now, n;
    ngx_str_t                     s;
    ngx_uint_t                    i, j, k, m, mask, bad;
    ngx_http_ai_rate_t           *r;
    ngx_http_ai_hold_t            h[2][64];
    ngx_http_ai_limit_e           rc[2];
    ngx_http_ai_limit_key_t      *key0, *key1;
    ngx_http_ai_meters_t          meters[2];
    ngx_http_ai_limit_ask_t       ask;
    ngx_http_ai_limit_state_t     states[2][M(MAX)];
    ngx_http_ai_limit_store_t    *st2;
    ngx_http_ai_amounts_t         a[2];
    ngx_http_ai_limit_refusal_t   re[2];

    fresh();

    other = calloc(1, sizeof(block));
    st2 = ngx_http_ai_limit_store_init(other, sizeof(block), 32);
    memcpy(st2->seed, st->seed, sizeof(st->seed));

    memset(h, 0, sizeof(h));
    memset(a, 0, sizeof(a));

    now = T0;
    bad = 0;
    srandom(17);

    for (m = 0; m < M(CONCURRENT); m++) {
        rate(m, 2000, 60000, 0);
    }

    limits[M(REQUESTS)].limit = 200;
    limits[M(REQUESTS)].burst = 20;
    limits[M(CONCURRENT)].limit = 9;

    for (i = 0; i < 200000 && bad == 0; i++) {
        now += (random() % 4) ? random() % 30 : 0;

        if (random() % 2000 == 0) {
            limits[random() % M(MAX)].limit = random() % 3000;
        }

        for (m = M(Q_REQUESTS); m < M(MAX); m++) {
            window(m, ngx_max(limits[m].limit, 20000), now, 60000);
        }

        j = random() % 64;
        name(id, j + 1);

        if (h[0][j].index == 0) {
            mask = (random() % 4) ? random() & 0xff : 0xff;
            mask |= (random() % 4) ? 0 : NGX_HTTP_AI_LIMIT_BOUND;

            for (m = 0; m < M(MAX); m++) {
                a[0].v[m] = random() % ((random() % 50) ? 100 : 3000);
            }

            a[0].v[M(REQUESTS)] = random() % 8 != 0;
            a[0].v[M(CONCURRENT)] = 1;
            a[1] = a[0];

            snprintf(key, sizeof(key), "k%d", (int) (j % 5));
            s.data = (u_char *) key;
            s.len = 2;

            memset(re, 0, sizeof(re));
            memset(states, 0, sizeof(states));

            ask.id = id;
            ask.owner = 1;
            ask.now = now;
            ask.deadline = now + 9;
            ask.show = random() & 0xff;

            ask.amounts = &a[0];
            rc[0] = ngx_http_ai_limit_reserve_of(st, &s, &ask, limits, mask,
                                                 &h[0][j], &re[0], states[0]);
            ask.amounts = &a[1];
            rc[1] = ngx_http_ai_limit_reserve_any(st2, &s, &ask, limits, mask,
                                                  &h[1][j], &re[1]);

            if (h[1][j].index) {
                ngx_http_ai_limit_left(st2, &h[1][j], now,
                                       mask & ask.show & 0xff, states[1]);
            }

            bad += (memcmp(&h[0][j], &h[1][j], sizeof(h[0][j])) != 0
                    || (h[0][j].index
                        && memcmp(states[0], states[1], sizeof(states[0]))
                           != 0)
                    || memcmp(&re[0], &re[1], sizeof(re[0])) != 0
                    || memcmp(&a[0], &a[1], sizeof(a[0])) != 0);

        } else {
            for (m = 0; m < M(MAX); m++) {
                n = random() % 200;
                a[0].v[m] = (n > 150) ? 0 : n;
            }

            k = h[0][j].index;

            rc[0] = ngx_http_ai_limit_settle(st, &h[0][j], id, now, &a[0]);
            rc[1] = ngx_http_ai_limit_settle_any(st2, k, now, &a[0]);

            h[0][j].index = 0;
            h[1][j].index = 0;
        }

        bad += (rc[0] != rc[1]
                || memcmp(&st->head, &st2->head, sizeof(st->head)) != 0
                || ngx_http_ai_limit_check(st) != NULL
                || ngx_http_ai_limit_check(st2) != NULL);

        for (k = 1; k <= st->head.ktop; k++) {
            key0 = ngx_http_ai_limit_key(st, k);
            key1 = ngx_http_ai_limit_key(st2, k);

            meters[0] = key0->meters;
            meters[1] = key1->meters;

            for (m = 0; m < NGX_HTTP_AI_LIMIT_RATES; m++) {
                n = NGX_HTTP_AI_LIMIT_LOWS - meters[0].rates[m].nlows;

                for ( /* void */ ; n; n--) {
                    r = &meters[0].rates[m];
                    r->seq[NGX_HTTP_AI_LIMIT_LOWS - n] = 0;
                    r->low[NGX_HTTP_AI_LIMIT_LOWS - n] = 0;

                    r = &meters[1].rates[m];
                    r->seq[NGX_HTTP_AI_LIMIT_LOWS - n] = 0;
                    r->low[NGX_HTTP_AI_LIMIT_LOWS - n] = 0;
                }
            }

            bad += (memcmp(&key0->link, &key1->link, sizeof(key0->link)) != 0
                    || memcmp(&meters[0], &meters[1], sizeof(meters[0]))
                       != 0);
        }
    }

    ok(bad == 0 && st->head.stats.reserved > 20000,
       "plain: %u operations, %u of them reservations, %u refused: the same",
       (unsigned) i, (unsigned) st->head.stats.reserved,
       (unsigned) st->head.stats.refused);

    free(other);
}


int
main(void)
{
    test_layout();
    test_requests();
    test_tokens();
    test_refund();
    test_windows();
    test_slots();
    test_bound();
    test_plain();
    test_topup();
    test_reap();
    test_full();
    test_clock();
    test_snapshot();
    test_view();
    test_wait();
    test_true();
    test_extreme();

    return done_testing();
}
