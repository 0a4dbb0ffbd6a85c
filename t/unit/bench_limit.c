
/*
 * Copyright (C) nginx AI gateway authors
 */


/* Times of a reservation and its end, with a lock as nginx's; not a test. */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_limit_store.h"


#define M(name)  NGX_HTTP_AI_METER_ ## name

#define SIZE     (64 * 1024 * 1024)
#define KEYS     20000

#define T0       ((int64_t) 1700000000000)


static ngx_http_ai_limit_store_t  *st[4];
static ngx_atomic_t                locks[4];
static ngx_http_ai_limit_t         limits[M(MAX)];
static char                        keys[KEYS][24];


static double
bench_now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);

    return ts.tv_sec * 1e9 + ts.tv_nsec;
}


static void
bench_limit(ngx_uint_t m, int64_t limit)
{
    limits[m].limit = limit;
    limits[m].period = 60000;
    limits[m].start = T0;
    limits[m].end = T0 + 86400000;
}


static void
bench_run(const char *name, ngx_uint_t nzones, ngx_uint_t nkeys)
{
    u_char                        id[16];
    double                        t, best;
    int64_t                       now;
    uint64_t                      n;
    ngx_str_t                     s;
    ngx_uint_t                    i, k, z, failed;
    ngx_http_ai_hold_t            holds[4];
    ngx_http_ai_amounts_t         a, b;
    ngx_http_ai_limit_refusal_t   refusal;

    memset(id, 0, sizeof(id));

    for (i = 0; i < M(MAX); i++) {
        a.v[i] = 500;
        b.v[i] = 300;
    }

    a.v[M(REQUESTS)] = 1;
    a.v[M(CONCURRENT)] = 1;

    best = 1e18;
    failed = 0;
    n = 0;
    now = T0;

    for (k = 0; k < 5; k++) {
        t = bench_now();

        for (i = 0; i < 400000; i++) {
            n++;
            memcpy(id + 8, &n, 8);
            now += (i % 16 == 0);

            s.data = (u_char *) keys[n * 7919 % nkeys];
            s.len = 21;

            for (z = 0; z < nzones; z++) {
                while (!ngx_atomic_cmp_set(&locks[z], 0, 1)) { /* void */ }

                (void) ngx_http_ai_limit_enter(st[z]);

                failed += ngx_http_ai_limit_reserve(st[z], &s, id, 1, now,
                                                    now + 30000, limits, &a,
                                                    &holds[z], &refusal)
                          != NGX_HTTP_AI_LIMIT_OK;

                ngx_http_ai_limit_leave(st[z]);
                (void) ngx_atomic_cmp_set(&locks[z], 1, 0);
            }

            for (z = 0; z < nzones; z++) {
                while (!ngx_atomic_cmp_set(&locks[z], 0, 1)) { /* void */ }

                (void) ngx_http_ai_limit_enter(st[z]);

                failed += ngx_http_ai_limit_settle(st[z], &holds[z], id, now,
                                                   &b)
                          != NGX_HTTP_AI_LIMIT_OK;

                ngx_http_ai_limit_leave(st[z]);
                (void) ngx_atomic_cmp_set(&locks[z], 1, 0);
            }
        }

        t = (bench_now() - t) / 400000;
        best = (t < best) ? t : best;
    }

    printf("%-34s %u zones %7u keys %8.0f ns, %5.0f each%s\n", name,
           (unsigned) nzones, (unsigned) nkeys, best, best / nzones,
           failed ? " (refused)" : "");
}


static void
bench_fresh(void)
{
    ngx_uint_t    i;
    static void  *blocks[4];

    for (i = 0; i < 4; i++) {
        free(blocks[i]);
        blocks[i] = calloc(1, SIZE);

        if (blocks[i] == NULL) {
            abort();
        }

        st[i] = ngx_http_ai_limit_store_init(blocks[i], SIZE, 0);
    }

    for (i = 0; i < M(MAX); i++) {
        limits[i].limit = -1;
    }
}


int
main(void)
{
    ngx_uint_t  i;

    for (i = 0; i < KEYS; i++) {
        snprintf(keys[i], sizeof(keys[i]), "sk-0123456789-%07u", (unsigned) i);
    }

    bench_fresh();
    bench_limit(M(TOKENS), (int64_t) 1 << 50);
    bench_run("tokens", 1, 1);
    bench_run("tokens", 4, 1);
    bench_run("tokens", 1, KEYS);

    bench_fresh();
    bench_limit(M(REQUESTS), (int64_t) 1 << 50);
    bench_limit(M(TOKENS), (int64_t) 1 << 50);
    bench_limit(M(CONCURRENT), 1000000);
    bench_run("requests, tokens, concurrent", 1, 1);
    bench_run("requests, tokens, concurrent", 4, 1);
    bench_run("requests, tokens, concurrent", 1, KEYS);

    bench_fresh();
    bench_limit(M(Q_TOKENS), (int64_t) 1 << 50);
    bench_limit(M(Q_MONEY), (int64_t) 1 << 50);
    bench_run("quota: tokens, money", 1, 1);
    bench_run("quota: tokens, money", 4, 1);
    bench_run("quota: tokens, money", 1, KEYS);

    return 0;
}
