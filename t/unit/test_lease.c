
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Leases of limits that nodes share, as workers see them whose cached times
 * differ: one writes a time that another has not reached yet.
 */


#include "test.h"
#include "ngx_http_ai_ratelimit_lease.c"


volatile ngx_msec_t  ngx_current_msec;


/* what functions call that are not called here */

void *
ngx_slab_alloc(ngx_slab_pool_t *pool, size_t size)
{
    (void) pool;
    (void) size;

    return NULL;
}


uint32_t
ngx_murmur_hash2(u_char *data, size_t len)
{
    (void) data;

    return (uint32_t) len;
}


int
main(void)
{
    ngx_http_ai_lease_t  le;

    ngx_memzero(&le, sizeof(ngx_http_ai_lease_t));

    ngx_current_msec = 1000000;
    le.synced = 1000000;

    ok(!ngx_http_ai_lease_valid(&le), "never answered: not valid");

    le.known = 1;

    ok(ngx_http_ai_lease_valid(&le), "answered now: valid");

    ngx_current_msec = 1000000 + NGX_HTTP_AI_LEASE_TIME
                       - NGX_HTTP_AI_LEASE_MARGIN - 1;
    ok(ngx_http_ai_lease_valid(&le), "the last millisecond: valid");

    ngx_current_msec++;
    ok(!ngx_http_ai_lease_valid(&le), "then it is over");

    ngx_current_msec = 999999;
    ok(ngx_http_ai_lease_valid(&le), "by a worker that is ahead: valid");
    ok(ngx_http_ai_lease_since(le.synced) == -1, "... how far it is");

    ngx_current_msec = 1000000 - 400;
    ok(ngx_http_ai_lease_valid(&le), "... by much: valid");

    return done_testing();
}
