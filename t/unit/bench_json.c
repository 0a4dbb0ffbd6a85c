
/*
 * Copyright (C) nginx AI gateway authors
 */


/* Times of parsing by kind of document; not a test. */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_json.h"
#include "ngx_http_ai_scan.h"
#include "ngx_http_ai_tokens.h"


static const char  chunk[] =
    "{\"id\":\"chatcmpl-B7z5sMzGmVeqhDWp0oEh3Gz0y8KGq\",\"object\":\"chat."
    "completion.chunk\",\"created\":1741570283,\"model\":\"gpt-4o-2024-08-06"
    "\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_eb9dce56a8\""
    ",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" the\"},\"logprobs\""
    ":null,\"finish_reason\":null}]}";

static const char  prose[] =
    "The quick brown fox jumps over the lazy dog while a careful reader "
    "notes how every sentence of a long prompt goes on and on. ";

static const char  code[] =
    "    if (rc == NGX_ERROR) { return;\\n"
    "    s = \\\"text\\\"; n++; call(a, b);\\n";


static double
bench_now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return ts.tv_sec * 1e9 + ts.tv_nsec;
}


static void
bench_fill(ngx_http_ai_out_t *out, const char *text, size_t size)
{
    ngx_http_ai_out_lit(out, "{\"model\":\"gpt-4o\",\"stream\":true,"
                             "\"messages\":[{\"role\":\"user\",\"content\":"
                             "\"");

    while ((size_t) (out->last - out->start) < size) {
        ngx_http_ai_out_mem(out, text, strlen(text));
    }

    ngx_http_ai_out_lit(out, "\"}],\"temperature\":0.7,\"max_tokens\":100}");
}


static void
bench_run(const char *name, ngx_pool_t *pool, u_char *data, size_t len)
{
    double                   t, best, tok;
    ngx_uint_t               i, k, n;
    ngx_http_ai_json_t       j;
    ngx_http_ai_json_node_t  nodes[64];

    n = 20000000 / (len + 200);
    best = 1e18;
    tok = 1e18;

    for (k = 0; k < 7; k++) {
        t = bench_now();

        for (i = 0; i < n; i++) {
            ngx_memzero(&j, sizeof(ngx_http_ai_json_t));

            j.pool = pool;
            j.nodes = nodes;
            j.nalloc = 64;

            if (ngx_http_ai_json_parse(&j, data, len) != NGX_OK) {
                printf("%s: %s\n", name, j.error);
                return;
            }
        }

        t = (bench_now() - t) / n;
        best = (t < best) ? t : best;
    }

    for (k = 0; k < 3; k++) {
        volatile uint64_t  sum = 0;

        t = bench_now();

        for (i = 0; i < n / 10 + 1; i++) {
            sum += ngx_http_ai_tokens_raw(data, len);
        }

        t = (bench_now() - t) / (n / 10 + 1);
        tok = (t < tok) ? t : tok;
    }

    printf("%-24s %7zu B %4u nodes %10.0f ns %7.2f GB/s   tokens %9.0f ns\n",
           name, len, (unsigned) j.nnodes, best, len / best, tok);
}


int
main(void)
{
    ngx_uint_t          v;
    ngx_pool_t         *pool;
    ngx_http_ai_out_t   small, big, dense;

    pool = ngx_create_pool(4096, NULL);

    (void) ngx_http_ai_out_init(&small, pool, 0);
    (void) ngx_http_ai_out_init(&big, pool, 0);
    (void) ngx_http_ai_out_init(&dense, pool, 0);

    bench_fill(&small, prose, 4096);
    bench_fill(&big, prose, 131072);
    bench_fill(&dense, code, 131072);

    for (v = 0; v < 3; v++) {
        printf("%s:\n", ngx_http_ai_scan_select(v));

        bench_run("chunk", pool, (u_char *) chunk, sizeof(chunk) - 1);
        bench_run("4 KB prose", pool, small.start, small.last - small.start);
        bench_run("128 KB prose", pool, big.start, big.last - big.start);
        bench_run("128 KB escapes", pool, dense.start,
                  dense.last - dense.start);
    }

    ngx_destroy_pool(pool);

    return 0;
}
