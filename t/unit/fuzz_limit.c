
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Snapshots of a ledger: with the checksum that it has, and with the right
 * one, so that what is behind it is reached.  Whatever is in it, the ledger
 * is in order and can be used.
 */


#include "test.h"
#include "ngx_http_ai_limit_block.h"


#define check(x)                                                              \
    do {                                                                      \
        if (!(x)) {                                                           \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);           \
            abort();                                                          \
        }                                                                     \
    } while (0)


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static u_char                      block[16 * 1024]
                                   __attribute__((aligned(64)));
static ngx_http_ai_limit_store_t  *st;


static void
restore(u_char *data, size_t size)
{
    size_t                        n;
    u_char                       *buf, id[16];
    ngx_int_t                     rc;
    ngx_str_t                     key;
    ngx_uint_t                    pos, running, i, nkeys;
    ngx_http_ai_hold_t            hold;
    ngx_http_ai_limit_t           limits[NGX_HTTP_AI_METER_MAX];
    ngx_http_ai_limit_state_t     states[NGX_HTTP_AI_METER_MAX];
    ngx_http_ai_amounts_t         amounts;
    ngx_http_ai_limit_refusal_t   refusal;

    memset(block, 0, sizeof(block));
    memset(id, 0, sizeof(id));
    memset(limits, 0, sizeof(limits));

    st = ngx_http_ai_limit_store_init(block, sizeof(block), 16);
    check(st);

    rc = ngx_http_ai_limit_restore(st, data, size);

    check(st->nundo == 0);
    check(ngx_http_ai_limit_check(st) == NULL);

    if (rc != NGX_OK) {
        check(rc == NGX_DECLINED && st->head.stats.keys == 0);
        return;
    }

    nkeys = st->head.stats.keys;

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
        limits[i].limit = 1000;
        limits[i].period = 1000;
        limits[i].start = 1000000;
        limits[i].end = 2000000;
        amounts.v[i] = 1;
    }

    pos = 0;

    while (ngx_http_ai_limit_next(st, &pos, &key, 1500000, states, &running)) {

        for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
            check(states[i].used >= 0 && states[i].remaining >= 0
                  && states[i].reset >= 0 && states[i].held == 0);
        }

        ngx_http_ai_limit_peek(st, &key, 1500000, limits, states);

        for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
            check(states[i].used >= 0 && states[i].remaining >= 0
                  && states[i].reset >= 0);
        }

        if (ngx_http_ai_limit_reserve(st, &key, id, 1, 1500000, 1600000,
                                      limits, &amounts, &hold, &refusal)
            == NGX_HTTP_AI_LIMIT_OK)
        {
            check(ngx_http_ai_limit_settle(st, &hold, id, 1500001, &amounts)
                  == NGX_HTTP_AI_LIMIT_OK);
        }

        nkeys--;
    }

    check(nkeys == 0);
    check(ngx_http_ai_limit_check(st) == NULL);

    n = ngx_http_ai_limit_snapshot_size(st);
    buf = malloc(n);
    check(buf);
    check(ngx_http_ai_limit_snapshot(st, buf, n) == n);

    memset(block, 0, sizeof(block));
    st = ngx_http_ai_limit_store_init(block, sizeof(block), 16);

    check(ngx_http_ai_limit_restore(st, buf, n) == NGX_OK);
    check(ngx_http_ai_limit_check(st) == NULL);

    free(buf);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    u_char           *copy;
    uint64_t          sum, len;
    static uint64_t   seed[2] = { 0x41694c69, 0x6d697473 };

    copy = test_copy(data, size);

    restore(copy, size);

    if (size >= 32) {
        len = size;

        ngx_memcpy(copy, "AinS\1\0\0\0", 8);
        ngx_memcpy(copy + 16, &len, 8);

        sum = ngx_http_ai_limit_hash(seed, copy, size - 8);
        ngx_memcpy(copy + size - 8, &sum, 8);

        restore(copy, size);
    }

    free(copy);

    return 0;
}
