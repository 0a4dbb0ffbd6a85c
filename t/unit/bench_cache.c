
/*
 * Copyright (C) nginx AI gateway authors
 */


/* Times of the store of answers, with a lock as nginx's; not a test. */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_cache_block.h"


#define SIZE  (256 * 1024 * 1024)
#define IDS   20000
#define T0    ((int64_t) 1700000000000)


static ngx_http_ai_cache_store_t  *st;
static ngx_atomic_t                mutex;
static ngx_http_ai_cache_meta_t    metas[IDS];
static u_char                      bytes[65536], buf[65536];


static double
bench_now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);

    return ts.tv_sec * 1e9 + ts.tv_nsec;
}


static void
bench_lock(void)
{
    while (!ngx_atomic_cmp_set(&mutex, 0, 1)) { /* void */ }

    (void) ngx_http_ai_cache_enter(st);
}


static void
bench_unlock(void)
{
    ngx_http_ai_cache_leave(st);
    (void) ngx_atomic_cmp_set(&mutex, 1, 0);
}


static void
bench_fresh(void *block)
{
    ngx_uint_t  i, k;

    memset(block, 0, SIZE);
    st = ngx_http_ai_cache_store_init(block, SIZE);

    memset(metas, 0, sizeof(metas));

    for (i = 0; i < IDS; i++) {
        for (k = 0; k < NGX_HTTP_AI_CACHE_ID; k++) {
            metas[i].id[k] = (u_char) random();
        }

        metas[i].created = T0;
        metas[i].stale = T0 + 1000000;
    }
}


static void
bench_run(void *block, size_t size)
{
    double                    t, put, get, miss, flight;
    uint64_t                  number;
    ngx_int_t                 worker;
    ngx_uint_t                i, n, nput, hits;
    ngx_http_ai_cache_meta_t  m;

    bench_fresh(block);

    worker = ngx_http_ai_cache_enroll(st, getpid(), T0);
    n = ngx_min(IDS, SIZE / 2 / (size + 2048));

    t = bench_now();

    for (i = 0; i < n; i++) {
        bench_lock();
        (void) ngx_http_ai_cache_put(st, &metas[i], bytes, size, T0);
        bench_unlock();
    }

    put = (bench_now() - t) / n;
    nput = n;
    hits = 0;

    t = bench_now();

    for (i = 0; i < 100000; i++) {
        bench_lock();

        if (ngx_http_ai_cache_get(st, metas[(i * 7919) % n].id, T0, &m)
            != NGX_OK)
        {
            bench_unlock();
            continue;
        }

        bench_unlock();
        bench_lock();
        hits += ngx_http_ai_cache_copy(st, &m, buf) == NGX_OK;
        bench_unlock();
    }

    get = (bench_now() - t) / 100000;

    memset(&m, 0, sizeof(m));

    t = bench_now();

    for (i = 0; i < 100000; i++) {
        memcpy(m.id, &i, sizeof(i));
        bench_lock();
        (void) ngx_http_ai_cache_get(st, m.id, T0, &m);
        bench_unlock();
    }

    miss = (bench_now() - t) / 100000;

    bench_fresh(block);
    worker = ngx_http_ai_cache_enroll(st, getpid(), T0);

    t = bench_now();

    for (i = 0; i < n; i++) {
        bench_lock();
        (void) ngx_http_ai_cache_begin(st, &metas[i], worker, T0, &number);
        bench_unlock();
        bench_lock();
        (void) ngx_http_ai_cache_open(st, number, worker, &metas[i]);
        (void) ngx_http_ai_cache_append(st, number, worker, bytes, size, T0);
        bench_unlock();
        bench_lock();
        (void) ngx_http_ai_cache_end(st, number, worker, &metas[i], T0);
        bench_unlock();
    }

    flight = (bench_now() - t) / n;

    printf("# %6lu bytes: hit %6.0f ns, miss %4.0f ns, put %6.0f ns, flight "
           "%6.0f ns (%lu stored, %lu hits)\n", (unsigned long) size, get,
           miss, put, flight, (unsigned long) nput, (unsigned long) hits);
}


int
main(void)
{
    void  *block;

    block = malloc(SIZE);

    if (block == NULL) {
        return 1;
    }

    bench_run(block, 500);
    bench_run(block, 2000);
    bench_run(block, 20000);
    bench_run(block, 60000);

    free(block);

    return 0;
}
