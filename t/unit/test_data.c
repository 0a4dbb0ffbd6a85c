
/*
 * Copyright (C) nginx AI gateway authors
 */


/* the memory of live data: what is added is found, also while it is being
 * replaced */


#include "test.h"
#include "ngx_http_ai_data_store.c"

#include <sys/mman.h>
#include <sys/wait.h>


#define SIZE     (256 * 1024)
#define RECORDS  200
#define READERS  3


ngx_module_t  ngx_http_ai_core_module;

static ngx_time_t                    now;
volatile ngx_time_t                 *ngx_cached_time = &now;

static ngx_http_ai_data_sh_t        *sh;
static ngx_http_ai_data_t            data;
static ngx_http_ai_data_loading_t    ld;
static ngx_pool_t                   *pool;


void *
ngx_slab_alloc(ngx_slab_pool_t *p, size_t size)
{
    return mmap(NULL, size, PROT_READ|PROT_WRITE, MAP_ANON|MAP_SHARED, -1, 0);
}


void *
ngx_slab_calloc(ngx_slab_pool_t *p, size_t size)
{
    return ngx_slab_alloc(p, size);
}


uint32_t
ngx_murmur_hash2(u_char *p, size_t len)
{
    uint32_t  h;

    for (h = 5381; len; len--) {
        h = h * 33 + *p++;
    }

    return h;
}


static void
begin(off_t size)
{
    ngx_memzero(&ld, sizeof(ld));
    ld.load.data = &data;

    ngx_http_ai_data_store_begin(&ld, size);

    while (ngx_http_ai_data_store_clear(&ld) == NGX_AGAIN) { /* void */ }
}


static ngx_int_t
add(const char *blob, const char *key1, const char *key2, ngx_uint_t *dup)
{
    ngx_str_t  b, keys[2];

    b.data = (u_char *) blob;
    b.len = strlen(blob);
    keys[0].data = (u_char *) key1;
    keys[0].len = strlen(key1);
    keys[1].data = (u_char *) key2;
    keys[1].len = key2 ? strlen(key2) : 0;

    ld.records++;

    return ngx_http_ai_data_add(&ld.load, &b, keys, key2 ? 2 : 1, dup);
}


static int
found(const char *key, const char *expected)
{
    ngx_int_t  rc;
    ngx_str_t  k, blob;

    k.data = (u_char *) key;
    k.len = strlen(key);

    rc = ngx_http_ai_data_find(&data, &k, pool, &blob);

    if (expected == NULL) {
        return rc == NGX_DECLINED;
    }

    return rc == NGX_OK && blob.len == strlen(expected)
           && memcmp(blob.data, expected, blob.len) == 0;
}


static void
test_store(void)
{
    ngx_str_t   b, k[2];
    ngx_uint_t  dup;

    ok(ngx_http_ai_data_generation(&data) == 0, "no generation");
    ok(found("a", NULL), "... finds nothing");

    begin(1000);
    dup = 9;
    is_int(add("one", "a", "b", &dup), NGX_OK, "add");
    is_int(add("", "empty", NULL, &dup), NGX_OK, "... an empty blob");
    is_int(add("two", "c", "b", &dup), NGX_DECLINED, "... a duplicate");
    is_int(dup, 1, "... which");
    is_int(add("two", "c", "c", &dup), NGX_DECLINED, "... twice in a record");
    is_int(dup, 1, "... which");
    is_int(add("two", "c", NULL, &dup), NGX_OK, "... had no effect");

    ok(found("a", NULL), "not yet in force");

    ld.load.flags = 5;
    ngx_http_ai_data_store_commit(&ld);

    is_int(ngx_http_ai_data_generation(&data), 1, "in force");
    is_int(ngx_http_ai_data_flags(&data), 5, "... flags");
    ok(found("a", "one") && found("b", "one"), "... by both keys");
    ok(found("c", "two"), "... another one");
    ok(found("empty", ""), "... an empty blob");
    ok(found("", NULL) && found("ab", NULL) && found("A", NULL),
       "... nothing else");

    begin(1000000);
    ok(found("a", "one"), "the old one while the new one is made");
    is_int(add("three", "a", NULL, &dup), NGX_OK, "add");
    ok(found("a", "one"), "... the old one");
    ngx_http_ai_data_store_commit(&ld);
    is_int(ngx_http_ai_data_generation(&data), 2, "in force");
    ok(found("a", "three") && found("b", NULL), "... and only this");

    begin(0);
    ok(found("a", "three"), "one that is given up");
    is_int(add("four", "a", NULL, &dup), NGX_OK, "... add");
    begin(0);
    is_int(add("five", "a", NULL, &dup), NGX_OK, "... and made anew");
    ngx_http_ai_data_store_commit(&ld);
    ok(found("a", "five"), "... in force");

    ngx_memzero(&b, sizeof(b));
    k[0].data = (u_char *) "x";
    k[0].len = 1;
    is_int(ngx_http_ai_data_add(&ld.load, &b, k, 1000, &dup), NGX_ERROR,
           "too many keys");
}


static ngx_int_t
count(void *ctx, ngx_str_t *blob)
{
    ngx_uint_t  *n = ctx;

    (*n)++;

    return (blob->len == 4) ? NGX_OK : NGX_ABORT;
}


static ngx_int_t
stop(void *ctx, ngx_str_t *blob)
{
    ngx_uint_t  *n = ctx;

    return (++*n == 2) ? NGX_DONE : NGX_OK;
}


static void
test_full(void)
{
    char        key[32];
    ngx_int_t   rc;
    ngx_uint_t  i, n, dup;

    begin(SIZE);

    for (i = 0; /* void */; i++) {
        snprintf(key, sizeof(key), "key%u", (unsigned) i);
        rc = add("blob", key, NULL, &dup);

        if (rc != NGX_OK) {
            break;
        }
    }

    is_int(rc, NGX_ABORT, "a full half");
    ok(ld.full, "... is noted");
    ok(i > sh->size / 64 && ld.used <= sh->size, "... after %u records",
       (unsigned) i);

    ngx_http_ai_data_store_commit(&ld);

    snprintf(key, sizeof(key), "key%u", (unsigned) i - 1);
    ok(found(key, "blob"), "the last one is found");

    n = 0;
    is_int(ngx_http_ai_data_walk(&data, pool, count, &n), NGX_OK, "walk");
    is_int(n, i, "... all of them");

    n = 0;
    is_int(ngx_http_ai_data_walk(&data, pool, stop, &n), NGX_DONE,
           "... until it is enough");
    is_int(n, 2, "... not further");

    begin(0);
    ngx_http_ai_data_store_commit(&ld);
    n = 0;
    is_int(ngx_http_ai_data_walk(&data, pool, count, &n), NGX_OK,
           "... of nothing");
    is_int(n, 0, "... no call");
}


/* whatever is in the memory, nothing else is read */

static void
test_garbage(void)
{
    size_t       i;
    u_char      *p;
    ngx_str_t    k, blob;
    ngx_uint_t   n, m;

    srand(1);

    for (n = 0; n < 200; n++) {
        p = sh->half[sh->generation & 1].base;

        for (i = 0; i < sh->size; i++) {
            p[i] = (u_char) (rand() & ((n & 1) ? 0xff : 0x0f));
        }

        sh->half[sh->generation & 1].mask = rand();
        sh->half[sh->generation & 1].used = (size_t) rand() << 8;

        if (n & 2) {
            sh->half[sh->generation & 1].mask &= 0xff;
        }

        k.data = (u_char *) "key";
        k.len = 3;
        (void) ngx_http_ai_data_find(&data, &k, pool, &blob);

        m = 0;
        (void) ngx_http_ai_data_walk(&data, pool, stop, &m);

        ngx_reset_pool(pool);
    }

    ok(1, "garbage");
}


static void
reader(void)
{
    char          key[32];
    u_char       *p;
    uint32_t      values[64];
    ngx_str_t     k, blob;
    ngx_uint_t    n, i;

    for (n = 0; sh->state == NGX_HTTP_AI_DATA_OK; n++) {
        k.data = (u_char *) key;
        k.len = snprintf(key, sizeof(key), "key%u", (unsigned) n % RECORDS);

        if (ngx_http_ai_data_find(&data, &k, pool, &blob) != NGX_OK
            || blob.len != sizeof(values))
        {
            _exit(1);
        }

        p = ngx_cpymem(values, blob.data, sizeof(values));
        (void) p;

        if (values[0] != n % RECORDS) {
            _exit(2);
        }

        for (i = 2; i < 64; i++) {
            if (values[i] != values[1]) {
                _exit(3);
            }
        }

        ngx_reset_pool(pool);
    }

    _exit(n > 100 ? 0 : 4);
}


static void
load(ngx_uint_t generation)
{
    char         key[32];
    uint32_t     values[64];
    ngx_str_t    k, blob;
    ngx_uint_t   i, n, dup;

    begin(RECORDS * 100);

    for (i = 0; i < RECORDS; i++) {
        values[0] = i;

        for (n = 1; n < 64; n++) {
            values[n] = generation;
        }

        k.data = (u_char *) key;
        k.len = snprintf(key, sizeof(key), "key%u", (unsigned) i);
        blob.data = (u_char *) values;
        blob.len = sizeof(values);

        (void) ngx_http_ai_data_add(&ld.load, &blob, &k, 1, &dup);
    }

    ngx_http_ai_data_store_commit(&ld);
}


/* a writer that never rests, and readers that must not notice */

static void
test_readers(void)
{
    int          status, bad;
    pid_t        pids[READERS];
    time_t       end;
    ngx_uint_t   i, n;

    sh->state = NGX_HTTP_AI_DATA_OK;
    load(0);

    for (i = 0; i < READERS; i++) {
        pids[i] = fork();

        if (pids[i] == 0) {
            reader();
        }
    }

    end = time(NULL) + 2;

    for (n = 1; time(NULL) <= end; n++) {
        load(n);
    }

    sh->state = NGX_HTTP_AI_DATA_NONE;
    bad = 0;

    for (i = 0; i < READERS; i++) {
        waitpid(pids[i], &status, 0);
        bad |= status;
    }

    is_int(bad, 0, "readers see whole records of one generation");
    diag("%u generations", (unsigned) n);
}


int
main(void)
{
    ngx_log_t         log;
    ngx_slab_pool_t   shpool;

    ngx_memzero(&log, sizeof(log));
    ngx_memzero(&shpool, sizeof(shpool));

    pool = ngx_create_pool(1024, &log);

    shpool.pfree = 2;
    is_int(ngx_http_ai_data_store_init(&shpool, &sh), NGX_ERROR,
           "too small a zone");

    shpool.pfree = SIZE / ngx_pagesize;
    is_int(ngx_http_ai_data_store_init(&shpool, &sh), NGX_OK, "a zone");
    ok(sh->size == SIZE / 2 && shpool.data == sh, "... of this size");

    data.sh = sh;

    test_store();
    test_full();
    test_garbage();
    test_readers();

    ngx_destroy_pool(pool);

    return done_testing();
}
