
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * What is read of a key in place is what a look-up says; guesses of where a
 * key is are only guesses.
 */


#include "test.h"
#include "ngx_http_ai_limit_block.h"


#define M(name)  NGX_HTTP_AI_METER_ ## name

#define T0       ((int64_t) 1700000000000)


static u_char                        block[512 * 1024]
                                     __attribute__((aligned(64)));
static ngx_http_ai_limit_store_t    *st;
static ngx_http_ai_limit_t           limits[M(MAX)];
static ngx_http_ai_amounts_t         amounts;
static ngx_http_ai_limit_refusal_t   refusal;
static uint64_t                      serial;


static void
limit(ngx_uint_t m, int64_t n)
{
    limits[m].limit = n;
    limits[m].period = 60000;
    limits[m].start = T0 - T0 % 86400000;
    limits[m].end = limits[m].start + 86400000;
}


static ngx_http_ai_limit_e
reserve(const char *name, int64_t now, ngx_http_ai_hold_t *hold, u_char *id)
{
    ngx_str_t  key;

    key.data = (u_char *) name;
    key.len = strlen(name);

    memset(id, 0, 16);
    serial++;
    memcpy(id + 8, &serial, 8);

    return ngx_http_ai_limit_reserve(st, &key, id, 1, now, now + 60000,
                                     limits, &amounts, hold, &refusal);
}


static void
same(const char *name, ngx_http_ai_hold_t *hold, int64_t now, const char *what)
{
    ngx_str_t                  key;
    ngx_uint_t                 m, bad;
    ngx_http_ai_limit_state_t  a[M(MAX)], b[M(MAX)];

    key.data = (u_char *) name;
    key.len = strlen(name);

    bad = 0;

    ngx_http_ai_limit_left(st, hold, now, ((ngx_uint_t) 1 << M(MAX)) - 1, a);
    ngx_http_ai_limit_peek(st, &key, now, limits, b);

    for (m = 0; m < M(MAX); m++) {
        bad += (a[m].limit != b[m].limit);
        bad += (a[m].remaining != b[m].remaining);
        bad += (ngx_http_ai_limit_reset_time(&a[m]) != b[m].reset);
        bad += (ngx_http_ai_limit_reset_time(&a[m]) != b[m].reset);
    }

    ok(bad == 0, "%s: what is left", what);

    if (!ok(ngx_http_ai_limit_used(st, &key, hold, now, a) == NGX_OK,
            "%s: what is used", what))
    {
        return;
    }

    bad = 0;

    for (m = M(Q_REQUESTS); m < M(MAX); m++) {
        bad += (a[m].used != b[m].used || a[m].held != b[m].held);
    }

    ok(bad == 0, "%s: ... as it is looked up", what);
}


static void
test_left(void)
{
    u_char              ids[4][16];
    ngx_uint_t          m;
    ngx_http_ai_hold_t  holds[4];

    memset(holds, 0, sizeof(holds));

    for (m = 0; m < M(MAX); m++) {
        limit(m, 1000);
        amounts.v[m] = 70;
    }

    amounts.v[M(REQUESTS)] = 1;
    amounts.v[M(CONCURRENT)] = 1;

    is_int(reserve("a", T0, &holds[0], ids[0]), NGX_HTTP_AI_LIMIT_OK, "one");
    is_int(holds[0].cut, 0, "... not cut");
    same("a", &holds[0], T0, "one");

    is_int(reserve("a", T0 + 1234, &holds[1], ids[1]), NGX_HTTP_AI_LIMIT_OK,
           "two");
    same("a", &holds[1], T0 + 1234, "two");

    /* as they were given last */

    limit(M(TOKENS), 500);
    limit(M(OUTPUT), 3000000000);

    is_int(reserve("a", T0 + 1300, &holds[2], ids[2]), NGX_HTTP_AI_LIMIT_OK,
           "other limits");
    same("a", &holds[2], T0 + 1300, "other limits");

    amounts.v[M(TOKENS)] = 900;

    is_int(reserve("b", T0 + 1300, &holds[3], ids[3]), NGX_HTTP_AI_LIMIT_OK,
           "above a limit");
    is_int(holds[3].cut, 1, "... cut");
    same("b", &holds[3], T0 + 1300, "above a limit");

    amounts.v[M(TOKENS)] = 7;

    for (m = 0; m < 4; m++) {
        is_int(ngx_http_ai_limit_settle(st, &holds[m], ids[m], T0 + 2000 + m,
                                        &amounts),
               NGX_HTTP_AI_LIMIT_OK, "settled");
    }

    ok(ngx_http_ai_limit_check(st) == NULL, "consistent");
}


static void
test_guess(void)
{
    char                name[16];
    u_char              id[16];
    ngx_str_t           key;
    ngx_uint_t          i, bad, n;
    ngx_http_ai_hold_t  hold;

    static uint32_t  guesses[5];

    ngx_http_ai_limit_state_t  states[M(MAX)];

    bad = 0;
    n = 0;

    for (i = 0; i < M(MAX); i++) {
        amounts.v[i] = 1;
    }

    /* each guess is that of another key, most of the time */

    for (i = 0; i < 2000; i++) {
        snprintf(name, sizeof(name), "key-%u", (unsigned) (i * 7 % 40));
        hold.key = (i % 3) ? guesses[i % 5] : (uint32_t) (i * 2654435761U);

        bad += (reserve(name, T0 + 5000 + i, &hold, id)
                != NGX_HTTP_AI_LIMIT_OK);

        key.data = (u_char *) name;
        key.len = strlen(name);

        bad += (hold.key != ngx_http_ai_limit_find(st, &key,
                                (uint32_t) ngx_http_ai_limit_hash(st->seed,
                                                        key.data, key.len)));
        n += (hold.key == guesses[i % 5]);
        guesses[i % 5] = hold.key;

        bad += (ngx_http_ai_limit_settle(st, &hold, id, T0 + 5000 + i,
                                         &amounts)
                != NGX_HTTP_AI_LIMIT_OK);
    }

    ok(bad == 0, "guesses: each key is where it is");
    ok(n < 2000, "... not where another one was");
    ok(ngx_http_ai_limit_check(st) == NULL, "... consistent");

    /* a key that was given up is not used for another one */

    for (i = 0; i < M(MAX); i++) {
        limits[i].limit = -1;
    }

    limit(M(CONCURRENT), 5);

    hold.key = 0;
    is_int(reserve("gone", T0 + 90000000, &hold, id), NGX_HTTP_AI_LIMIT_OK,
           "a key");
    is_int(ngx_http_ai_limit_settle(st, &hold, id, T0 + 90000000, &amounts),
           NGX_HTTP_AI_LIMIT_OK, "... without use");

    key.data = (u_char *) "other";
    key.len = 5;

    is_int(ngx_http_ai_limit_used(st, &key, &hold, T0 + 90000000, states),
           NGX_DECLINED, "... is not another one");
}


/* a guess is of a key that has all bytes but one */

static void
test_alike(void)
{
    char                name[40];
    u_char              id[16];
    size_t              len, i;
    uint32_t            first;
    ngx_uint_t          n, bad;
    ngx_http_ai_hold_t  hold;

    static size_t  lens[] = { 1, 7, 8, 9, 15, 16, 17, 33 };

    bad = 0;

    for (i = 0; i < M(MAX); i++) {
        limits[i].limit = -1;
        amounts.v[i] = 1;
    }

    /* none is forgotten as long as it has been used */

    limit(M(Q_TOKENS), 1000);
    limits[M(Q_TOKENS)].end = T0 + 100000000;

    for (n = 0; n < sizeof(lens) / sizeof(lens[0]); n++) {
        len = lens[n];

        memset(name, 'k', len);
        name[len] = '\0';

        hold.key = 0;
        bad += (reserve(name, T0 + 95000000, &hold, id)
                != NGX_HTTP_AI_LIMIT_OK);
        first = hold.key;

        bad += (ngx_http_ai_limit_settle(st, &hold, id, T0 + 95000000,
                                         &amounts)
                != NGX_HTTP_AI_LIMIT_OK);

        for (i = 0; i < len; i++) {
            name[i] ^= 1;
            hold.key = first;

            bad += (reserve(name, T0 + 95000000, &hold, id)
                    != NGX_HTTP_AI_LIMIT_OK);
            bad += (hold.key == first);

            bad += (ngx_http_ai_limit_settle(st, &hold, id, T0 + 95000000,
                                             &amounts)
                    != NGX_HTTP_AI_LIMIT_OK);
            name[i] ^= 1;
        }

        hold.key = first;
        bad += (reserve(name, T0 + 95000000, &hold, id)
                != NGX_HTTP_AI_LIMIT_OK);
        bad += (hold.key != first);

        bad += (ngx_http_ai_limit_settle(st, &hold, id, T0 + 95000000,
                                         &amounts)
                != NGX_HTTP_AI_LIMIT_OK);
    }

    ok(bad == 0, "keys: one byte makes another");
}


/* with a division of 32 bits, of 64, and in steps */

static void
test_reset(void)
{
    int64_t                    used, frac, limit, period;
    __int128                   ms;
    ngx_uint_t                 i, bad;
    ngx_http_ai_limit_state_t  state;

    srandom(11);
    bad = 0;

    for (i = 0; i < 200000; i++) {
        limit = 1 + (((int64_t) random() << 22 ^ random()) >> random() % 53);
        used = 1 + (((int64_t) random() << 22 ^ random()) >> random() % 53);
        period = 1 + (random() >> random() % 31) % 2147483646;
        frac = random() % period;

        ms = ((__int128) used * period - frac + limit - 1) / limit;

        if (ms > (int64_t) 1 << 51) {
            continue;
        }

        memset(&state, 0, sizeof(state));

        state.limit = limit;
        state.used = used;
        state.held = frac;
        state.reset = -period;

        bad += (ngx_http_ai_limit_reset_time(&state) != (int64_t) ms);
    }

    ok(bad == 0, "reset: to the millisecond");
}


int
main(void)
{
    ngx_uint_t  m;

    st = ngx_http_ai_limit_store_init(block, sizeof(block), 0);

    for (m = 0; m < M(MAX); m++) {
        limits[m].limit = -1;
    }

    ok(st != NULL, "laid out");

    test_left();
    test_guess();
    test_alike();
    test_reset();

    return done_testing();
}
