
/*
 * Copyright (C) nginx AI gateway authors
 */


/* the store of answers, one process; then several that are killed */


#include "test.h"
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "ngx_http_ai_cache_block.h"


#define SIZE     (512 * 1024)
#define T0       ((int64_t) 1700000000000)
#define FOREVER  (T0 + 86400000)
#define IDS      64
#define MAX      (128 * 1024)


typedef struct {
    volatile ngx_atomic_t   lock;
    volatile ngx_atomic_t   done;
    volatile ngx_atomic_t   failed;
    volatile ngx_atomic_t   ops;
    volatile ngx_atomic_t   now;
    u_char                  block[SIZE];
} shared_t;


static u_char                      *block;
static ngx_http_ai_cache_store_t   *st;
static u_char                       bytes[MAX * 2];
static u_char                       buf[MAX * 2];
static uint64_t                     rnd = 88172645463325252;


static uint64_t
rand64(void)
{
    rnd ^= rnd << 13;
    rnd ^= rnd >> 7;
    rnd ^= rnd << 17;

    return rnd;
}


static size_t
below(size_t n)
{
    return rand64() % n;
}


/* from 1 to n */

static size_t
upto(size_t n, size_t max)
{
    n = below(n) + 1;

    return ngx_min(n, max);
}


static void
fresh(size_t size)
{
    memset(block, 0, SIZE);
    st = ngx_http_ai_cache_store_init(block, size);
}


/* like a SHA-256 */

static void
id_of(uint64_t n, u_char *id)
{
    uint64_t    w;
    ngx_uint_t  i;

    for (i = 0; i < 4; i++) {
        w = (n * 4 + i + 1) * 0x9e3779b97f4a7c15ull;
        w ^= w >> 29;
        w *= 0xbf58476d1ce4e5b9ull;
        w ^= w >> 32;
        memcpy(id + i * 8, &w, 8);
    }
}


static ngx_http_ai_cache_meta_t
meta_of(uint64_t n)
{
    ngx_http_ai_cache_meta_t  m;

    memset(&m, 0, sizeof(m));
    id_of(n, m.id);
    m.scope = n % 7 + 1;
    m.model = n % 3 + 1;
    m.tag = n % 5;
    m.created = T0;
    m.fresh = FOREVER;
    m.stale = FOREVER;

    return m;
}


/* bytes that tell whose they are */

static u_char *
data_of(uint64_t n, size_t size, u_char *p)
{
    size_t  i;

    for (i = 0; i < size; i++) {
        p[i] = (u_char) (n * 31 + i * 7 + (i >> 8) + size);
    }

    return p;
}


static ngx_int_t
put(uint64_t n, size_t size)
{
    ngx_http_ai_cache_meta_t  m;

    m = meta_of(n);

    return ngx_http_ai_cache_put(st, &m, data_of(n, size, bytes), size, T0);
}


/* 1: there, and right */

static int
have_at(uint64_t n, int64_t now)
{
    u_char                    id[NGX_HTTP_AI_CACHE_ID];
    ngx_http_ai_cache_meta_t  m;

    id_of(n, id);

    if (ngx_http_ai_cache_get(st, id, now, &m) != NGX_OK) {
        return 0;
    }

    if (ngx_http_ai_cache_copy(st, &m, buf) != NGX_OK) {
        return 0;
    }

    if (memcmp(buf, data_of(n, m.size, bytes), m.size) != 0) {
        ok(0, "bytes of %u", (unsigned) n);
    }

    return 1;
}


static int
have(uint64_t n)
{
    return have_at(n, T0);
}


static int
sound(const char *what)
{
    const char  *error;

    error = ngx_http_ai_cache_store_check(st);

    if (error) {
        diag("%s: %s", what, error);
    }

    return error == NULL;
}


static ngx_int_t
purge(ngx_uint_t kind, uint64_t hash, int64_t time)
{
    ngx_http_ai_cache_rule_t  rule;

    rule.kind = kind;
    rule.hash = hash;
    rule.time = time;

    return ngx_http_ai_cache_purge_add(st, &rule);
}


static void
test_sums(void)
{
    size_t                    i, n, part, bad;
    uint64_t                  sum;
    ngx_str_t                 data;
    ngx_http_ai_cache_sum_t   s;
    ngx_http_ai_cache_meta_t  m, got;
    ngx_http_ai_cache_head_t  head;

    ok(sizeof(ngx_http_ai_cache_meta_t) == 168
       && sizeof(ngx_http_ai_cache_head_t) == 184, "no padding");

    bad = 0;

    for (i = 0; i < 2000; i++) {
        data_of(i, i, bytes);
        sum = ngx_http_ai_cache_sum(bytes, i);

        ngx_http_ai_cache_sum_init(&s);

        for (n = 0; n < i; /* void */) {
            part = upto(70, i - n);
            ngx_http_ai_cache_sum_add(&s, bytes + n, part);
            n += part;
        }

        bad += ngx_http_ai_cache_sum_end(&s) != sum;

        if (i) {
            bytes[below(i)] ^= 1 << below(8);
            bad += ngx_http_ai_cache_sum(bytes, i) == sum;
        }
    }

    ok(bad == 0, "sums: piece by piece the same, another with another bit");

#if (NGX_HAVE_LITTLE_ENDIAN)

    /* files, and lists of what was purged, outlive the binary */

    for (i = 0; i < 1000; i++) {
        bytes[i] = (u_char) (i * 7);
    }

    ok(ngx_http_ai_cache_sum(bytes, 0) == 0x6f2998f51a846e8d
       && ngx_http_ai_cache_sum(bytes, 1) == 0x05a00bcb0cc5564c
       && ngx_http_ai_cache_sum(bytes, 31) == 0x919de8bd2f39ff11
       && ngx_http_ai_cache_sum(bytes, 32) == 0xa48b077cae36886a
       && ngx_http_ai_cache_sum(bytes, 33) == 0x8aa106a7156579d1
       && ngx_http_ai_cache_sum(bytes, 999) == 0x5deb10f325617303
       && ngx_http_ai_cache_hash((u_char *) "acme", 4) == 0x720ad70414bb7818,
       "... and those that have always been");

#endif

    m = meta_of(1);
    m.size = 1000;
    data_of(1, 1000, bytes + sizeof(head));
    m.sum = ngx_http_ai_cache_sum(bytes + sizeof(head), 1000);
    ngx_http_ai_cache_head_write(&head, &m);
    memcpy(bytes, &head, sizeof(head));
    n = sizeof(head) + 1000;

    ok(ngx_http_ai_cache_record_read(bytes, n, m.id, &got, &data) == NGX_OK
       && data.len == 1000 && data.data == bytes + sizeof(head)
       && memcmp(&got, &m, sizeof(m)) == 0, "a record is read");

    bad = 0;

    for (i = 0; i < n; i++) {
        bad += ngx_http_ai_cache_record_read(bytes, i, m.id, &got, &data)
               == NGX_OK;

        bytes[i] ^= 1 << below(8);
        bad += ngx_http_ai_cache_record_read(bytes, n, m.id, &got, &data)
               == NGX_OK;
        memcpy(bytes, &head, sizeof(head));
        data_of(1, 1000, bytes + sizeof(head));
    }

    ok(bad == 0, "a record that is cut or has another bit is not");

    got.id[0] ^= 1;
    ok(ngx_http_ai_cache_record_read(bytes, n, got.id, &got, &data)
       == NGX_DECLINED, "nor one of another answer");
}


static void
test_entries(void)
{
    size_t                        i, n, bad, sizes[] = { 0, 1, 800, 823, 824,
                                  825, 1847, 1848, 1849, 5000, 60000 };
    ngx_http_ai_cache_meta_t      m, got;
    ngx_http_ai_cache_figures_t   f;

    fresh(1024);
    ok(st == NULL, "too small a zone is none");

    fresh(SIZE);
    ok(st != NULL && st->size <= SIZE && SIZE - st->size < 2048,
       "pieces fill the zone");
    ok(have(1) == 0, "an empty zone has nothing");

    bad = 0;

    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        bad += put(i, sizes[i]) != NGX_OK;
    }

    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        bad += have(i) == 0;
    }

    ok(bad == 0 && sound("sizes"), "entries of all sizes");

    ok(put(3, 100) == NGX_OK && have(3) && sound("replace"),
       "one is replaced");

    ngx_http_ai_cache_figures(st, &f);
    ok(f.entries == sizeof(sizes) / sizeof(sizes[0]), "the old one is gone");

    m = meta_of(3);
    ngx_http_ai_cache_remove(st, m.id);
    ok(!have(3) && sound("remove"), "one is removed");

    m = meta_of(20);
    m.fresh = T0 + 10;
    m.stale = T0 + 20;
    m.usage[4] = 77;
    m.dialect = 1;
    ok(ngx_http_ai_cache_put(st, &m, data_of(20, 50, bytes), 50, T0) == NGX_OK
       && ngx_http_ai_cache_get(st, m.id, T0 + 15, &got) == NGX_OK
       && memcmp(&m, &got, sizeof(m)) == 0, "its meta is what it was");
    ok(!have_at(20, T0 + 20) && sound("stale"), "it is gone when it is stale");
    ok(ngx_http_ai_cache_put(st, &m, bytes, 50, T0 + 20) == NGX_DECLINED,
       "one that is gone already is not stored");

    ok(put(21, SIZE / 4 + 1024) == NGX_DECLINED && sound("large"),
       "a quarter of the zone at most");

    /* a bit */

    (void) put(22, 5000);
    m = meta_of(22);
    i = ngx_http_ai_cache_find(st, m.id);
    n = ngx_http_ai_cache_link(st, i)->next;
    ngx_http_ai_cache_piece(st, n)[100] ^= 4;
    ok(!have(22), "a corrupt entry is a miss");
    ngx_http_ai_cache_figures(st, &f);
    ok(ngx_http_ai_cache_find(st, m.id) == 0 && f.corrupt == 1
       && sound("corrupt"), "... and removed");

    /* a process has died */

    st->dirty = 1;
    ok(ngx_http_ai_cache_enter(st) == 1 && sound("enter") && !have(1)
       && put(1, 100) == NGX_OK && have(1),
       "who finds the mark empties the zone");
    ok(ngx_http_ai_cache_enter(st) == 0, "once");
}


static void
test_admission(void)
{
    size_t                       i, k, hits, all, hot;
    ngx_http_ai_cache_figures_t  f;

    fresh(64 * 1024);

    /* a small zone, full of what is asked for */

    for (k = 0; k < 6; k++) {
        for (i = 0; i < 10; i++) {
            if (!have(i)) {
                (void) put(i, 2000);
            }
        }
    }

    for (hot = 0, i = 0; i < 10; i++) {
        hot += have(i);
    }

    ok(hot == 10 && sound("hot"), "a small zone keeps what is asked for");

    /* a scan of a thousand that are asked for once */

    for (i = 100; i < 1100; i++) {
        if (!have(i)) {
            (void) put(i, 2000);
        }

        if (i % 10 == 0) {
            for (k = 0; k < 10; k++) {
                if (!have(k)) {
                    (void) put(k, 2000);
                }
            }
        }
    }

    for (hot = 0, i = 0; i < 10; i++) {
        hot += have(i);
    }

    ngx_http_ai_cache_figures(st, &f);

    ok(hot >= 9 && f.rejected > 500 && sound("scan"),
       "what is asked for once does not drive it out: %u left, %u rejected",
       (unsigned) hot, (unsigned) f.rejected);

    /* others are asked for now */

    for (k = 0; k < 40; k++) {
        for (i = 2000; i < 2010; i++) {
            if (!have(i)) {
                (void) put(i, 2000);
            }
        }
    }

    for (hot = 0, i = 2000; i < 2010; i++) {
        hot += have(i);
    }

    ok(hot >= 9 && sound("shift"), "what is asked for later gets in: %u",
       (unsigned) hot);

    /* Zipf over more than fits */

    fresh(SIZE);
    hits = 0;
    all = 60000;

    for (i = 0; i < all; i++) {
        k = (size_t) (4000.0 / (1 + (double) below(4000)));
        k += (k > 20) ? below(k) : 0;
        k += (below(3) == 0) ? 10000 + i : 0;

        if (have(k)) {
            hits++;

        } else {
            (void) put(k, 500 + k % 6000);
        }
    }

    ok(hits > all / 2 && sound("zipf"), "skewed: %u %% of 67 %% are hits",
       (unsigned) (hits * 100 / all));
}


static void
test_model(void)
{
    size_t                     i, n, k, bad, sizes[IDS];
    int64_t                    now, gone[IDS];
    ngx_http_ai_cache_meta_t   m;

    fresh(SIZE);
    memset(sizes, 0, sizeof(sizes));
    memset(gone, 0, sizeof(gone));

    now = T0;
    bad = 0;

    for (n = 0; n < 20000; n++) {
        i = below(IDS);
        now += below(3);

        switch (below(4)) {

        case 0:
            m = meta_of(i);
            k = below(8) ? below(4000) : below(60000);
            m.fresh = m.stale = now + 1 + below(1000);

            sizes[i] = k;
            gone[i] = m.stale;

            if (ngx_http_ai_cache_put(st, &m, data_of(i, k, bytes), k, now)
                != NGX_OK)
            {
                gone[i] = 0;
            }

            break;

        case 1:
            id_of(i, m.id);
            ngx_http_ai_cache_remove(st, m.id);
            gone[i] = 0;
            break;

        default:
            id_of(i, m.id);

            if (ngx_http_ai_cache_get(st, m.id, now, &m) == NGX_OK) {
                bad += gone[i] <= now || m.size != sizes[i]
                       || ngx_http_ai_cache_copy(st, &m, buf) != NGX_OK
                       || memcmp(buf, data_of(i, m.size, bytes), m.size) != 0;
            }
        }

        if (n % 64 == 0) {
            (void) ngx_http_ai_cache_tick(st, NGX_ERROR, getpid(), now);
            bad += !sound("model");
        }
    }

    ok(bad == 0, "20,000 operations against a model");
}


static void
test_rules(void)
{
    size_t                    i, bad;
    ngx_int_t                 w;
    u_char                    data[8];
    uint64_t                  flight, version;
    ngx_uint_t                n;
    ngx_http_ai_cache_meta_t  m;
    ngx_http_ai_cache_rule_t  rules[NGX_HTTP_AI_CACHE_RULES + 1];

    ok(ngx_http_ai_cache_hash((u_char *) "acme", 4)
       != ngx_http_ai_cache_hash((u_char *) "acmf", 4)
       && ngx_http_ai_cache_hash(data, 0) != 0, "hashes");

    fresh(SIZE);

    for (i = 0; i < 20; i++) {
        (void) put(i, 100);
    }

    version = ngx_http_ai_cache_purge_version(st);

    ok(purge(NGX_HTTP_AI_CACHE_RULE_SCOPE, 3, T0 - 1) == NGX_OK && have(2),
       "an entry younger than the rule stays");
    ok(ngx_http_ai_cache_purge_version(st) != version, "another version");
    version = ngx_http_ai_cache_purge_version(st);
    ok(purge(NGX_HTTP_AI_CACHE_RULE_SCOPE, 3, T0 - 1) == NGX_DECLINED
       && purge(NGX_HTTP_AI_CACHE_RULE_SCOPE, 3, T0 - 9) == NGX_DECLINED
       && ngx_http_ai_cache_purge_version(st) == version,
       "a rule that is in force changes nothing");

    (void) purge(NGX_HTTP_AI_CACHE_RULE_SCOPE, 3, T0);
    ok(!have(2) && !have(9) && !have(16) && have(3) && have(1), "by scope");

    (void) purge(NGX_HTTP_AI_CACHE_RULE_MODEL, 2, T0);
    ok(!have(1) && !have(4) && have(3) && have(5), "by model");

    (void) purge(NGX_HTTP_AI_CACHE_RULE_TAG, 3, T0);
    ok(!have(3) && !have(8) && have(5) && have(0), "by tag");

    m = meta_of(5);
    (void) purge(NGX_HTTP_AI_CACHE_RULE_ID, ngx_http_ai_cache_word(m.id, 0),
                 T0);
    ok(!have(5) && have(6), "by id");

    ok(put(5, 100) == NGX_DECLINED, "what was asked for before is not stored");
    m.created = T0 + 1;
    ok(ngx_http_ai_cache_put(st, &m, data_of(5, 100, bytes), 100, T0 + 1)
       == NGX_OK && have(5), "what was asked for later is");

    (void) purge(NGX_HTTP_AI_CACHE_RULE_ALL, 0, T0);
    ok(!have(6) && have(5) && ngx_http_ai_cache_purge_list(st, rules) == 1
       && rules[0].time == T0, "all; it stands for those before it");

    st->dirty = 1;
    (void) ngx_http_ai_cache_enter(st);
    ok(put(6, 100) == NGX_DECLINED, "purges stay when the zone is emptied");

    /* many */

    bad = 0;

    for (i = 0; i < 1000; i++) {
        (void) purge(NGX_HTTP_AI_CACHE_RULE_TAG, 100 + i, T0 + 1 + i);

        m = meta_of(0);
        m.tag = 100 + i;
        m.created = T0 + 1 + i;
        bad += !ngx_http_ai_cache_purged(st, &m);
    }

    n = ngx_http_ai_cache_purge_list(st, rules);

    m = meta_of(0);
    m.tag = 100;
    m.created = T0 + 1;
    bad += !ngx_http_ai_cache_purged(st, &m);
    m.tag = 1;
    m.created = T0 + 1001;

    ok(bad == 0 && n <= NGX_HTTP_AI_CACHE_RULES + 1
       && !ngx_http_ai_cache_purged(st, &m), "the oldest of too many become "
       "one for all: %u rules", (unsigned) n);

    /* memory comes back, of flights nothing is stored */

    fresh(SIZE);
    w = ngx_http_ai_cache_enroll(st, getpid(), T0);

    for (i = 0; i < 20; i++) {
        (void) put(i, 1000);
    }

    m = meta_of(40);
    (void) ngx_http_ai_cache_begin(st, &m, w, T0, &flight);
    (void) purge(NGX_HTTP_AI_CACHE_RULE_ALL, 0, T0);

    for (i = 0; i < 3; i++) {
        (void) ngx_http_ai_cache_tick(st, w, getpid(), T0 + i * 200);
    }

    ok(st->figures.entries == 0 && st->figures.purged == 20 && sound("purged"),
       "what is purged makes room");

    (void) ngx_http_ai_cache_append(st, flight, w, bytes, 100, T0 + 1);
    m = meta_of(40);
    ok(ngx_http_ai_cache_begin(st, &m, w, T0 + 2, &version) == NGX_OK
       && version != flight, "nobody joins what was begun before a purge");
    ok(ngx_http_ai_cache_end(st, flight, w, &m, T0 + 1) == NGX_DECLINED
       && !have(40) && sound("flight"), "nor is it stored");
}


static size_t
follow(ngx_http_ai_cache_reader_t *rd, u_char *to, size_t part)
{
    size_t  n, sum;

    sum = 0;

    do {
        n = ngx_http_ai_cache_read(st, rd, to + sum, part);
        sum += n;
    } while (n);

    return sum;
}


static void
test_flights(void)
{
    pid_t                         pid;
    size_t                        i, n, part, bad;
    uint64_t                      flight, other;
    ngx_int_t                     w, w2;
    ngx_http_ai_cache_meta_t      m;
    ngx_http_ai_cache_reader_t    rd, rd2;
    ngx_http_ai_cache_figures_t   f;

    fresh(SIZE);

    w = ngx_http_ai_cache_enroll(st, getpid(), T0);
    w2 = ngx_http_ai_cache_enroll(st, getppid(), T0);
    ok(w == 0 && w2 == 1, "two workers");

    m = meta_of(1);
    ok(ngx_http_ai_cache_begin(st, &m, NGX_ERROR, T0, &flight) == NGX_DECLINED,
       "one without a place goes alone");
    ok(ngx_http_ai_cache_begin(st, &m, w, T0, &flight) == NGX_OK, "one leads");
    ok(ngx_http_ai_cache_begin(st, &m, w2, T0, &other) == NGX_AGAIN
       && other == flight
       && ngx_http_ai_cache_begin(st, &m, w, T0, &other) == NGX_AGAIN
       && ngx_http_ai_cache_followers(st, flight) == 2, "two follow");

    memset(&rd, 0, sizeof(rd));
    rd.flight = flight;
    memset(&rd2, 0, sizeof(rd2));
    rd2.flight = flight;

    ok(ngx_http_ai_cache_read(st, &rd, buf, 100) == 0
       && rd.state == NGX_HTTP_AI_CACHE_FLIGHT_RUNNING && !rd.open,
       "nothing yet");

    m.stream = 1;
    m.dialect = 1;
    ok(ngx_http_ai_cache_open(st, flight, w2, &m) == NGX_DECLINED
       && ngx_http_ai_cache_open(st, flight, w, &m) == NGX_OK,
       "the leader opens it, nobody else");

    data_of(1, 30000, bytes);
    bad = 0;
    n = 0;

    for (i = 0; i < 30000; i += part) {
        part = upto(2000, 30000 - i);
        bad += ngx_http_ai_cache_append(st, flight, w, bytes + i, part, T0)
               != NGX_OK;

        if (below(2)) {
            n += follow(&rd, buf + n, below(3000) + 1);
        }
    }

    n += follow(&rd, buf + n, 777);

    ok(bad == 0 && n == 30000 && memcmp(buf, bytes, n) == 0
       && rd.open && rd.meta.stream && rd.meta.dialect == 1
       && sound("append"), "a follower reads along");

    m = meta_of(1);
    m.usage[0] = 5;
    ok(ngx_http_ai_cache_end(st, flight, w, &m, T0) == NGX_OK
       && m.size == 30000 && have(1) && sound("end"),
       "the whole answer is an entry");

    n = follow(&rd2, buf, 4096);
    ok(n == 30000 && memcmp(buf, bytes, n) == 0
       && rd2.state == NGX_HTTP_AI_CACHE_FLIGHT_WHOLE
       && rd2.meta.usage[0] == 5, "a slow follower reads all of it");

    ngx_http_ai_cache_remove(st, m.id);
    rd2.offset = 0;
    rd2.piece = 0;
    ok(follow(&rd2, buf, 4096) == 30000 && !have(1) && sound("evict"),
       "also when the entry has been removed");

    ngx_http_ai_cache_depart(st, flight, w2);
    ngx_http_ai_cache_depart(st, flight, w);
    (void) ngx_http_ai_cache_read(st, &rd, buf, 1);
    ok(rd.state == NGX_HTTP_AI_CACHE_FLIGHT_GONE && sound("depart"),
       "it is gone when all have left");
    ngx_http_ai_cache_figures(st, &f);
    ok(f.used == 0, "and its memory is free");

    /* without followers */

    m = meta_of(2);
    (void) ngx_http_ai_cache_begin(st, &m, w, T0, &flight);
    (void) ngx_http_ai_cache_append(st, flight, w, data_of(2, 100, bytes), 100,
                                    T0);
    ok(ngx_http_ai_cache_end(st, flight, w, &m, T0) == NGX_OK && have(2)
       && ngx_http_ai_cache_append(st, flight, w, bytes, 1, T0)
          == NGX_DECLINED && sound("alone"), "a flight that nobody joined");

    m = meta_of(3);
    (void) ngx_http_ai_cache_begin(st, &m, w, T0, &flight);
    (void) ngx_http_ai_cache_begin(st, &m, w2, T0, &flight);
    (void) ngx_http_ai_cache_append(st, flight, w, data_of(3, 100, bytes), 100,
                                    T0);
    m.stale = 0;
    memset(&rd, 0, sizeof(rd));
    rd.flight = flight;
    ok(ngx_http_ai_cache_end(st, flight, w, &m, T0) == NGX_DECLINED
       && !have(3) && follow(&rd, buf, 30) == 100
       && ngx_http_ai_cache_begin(st, &m, w, T0, &other) == NGX_OK
       && other != flight && sound("nostore"),
       "one that is not to be stored is for those only who waited");

    (void) ngx_http_ai_cache_tick(st, w, getpid(),
                                  T0 + NGX_HTTP_AI_CACHE_LINGER + 1);
    (void) ngx_http_ai_cache_read(st, &rd, buf, 1);
    ok(rd.state == NGX_HTTP_AI_CACHE_FLIGHT_GONE, "... and not for ever");
    ngx_http_ai_cache_fail(st, other, w, 1, 0, T0);

    /* failures */

    m = meta_of(4);
    (void) ngx_http_ai_cache_begin(st, &m, w, T0, &flight);
    (void) ngx_http_ai_cache_begin(st, &m, w2, T0, &other);
    (void) ngx_http_ai_cache_begin(st, &m, w2, T0, &other);
    (void) ngx_http_ai_cache_append(st, flight, w, data_of(4, 100, bytes), 50,
                                    T0);
    memset(&rd, 0, sizeof(rd));
    rd.flight = flight;
    (void) follow(&rd, buf, 30);
    ok(ngx_http_ai_cache_takeover(st, flight, w2, T0) == NGX_DECLINED,
       "a running flight is not taken over");
    ngx_http_ai_cache_fail(st, flight, w, 9, 0, T0);
    (void) ngx_http_ai_cache_read(st, &rd, NULL, 0);
    ok(rd.state == NGX_HTTP_AI_CACHE_FLIGHT_FAILED && rd.error == 9,
       "a failure is told");
    ok(ngx_http_ai_cache_takeover(st, flight, w2, T0) == NGX_OK
       && ngx_http_ai_cache_takeover(st, flight, w2, T0) == NGX_DECLINED
       && ngx_http_ai_cache_followers(st, flight) == 1,
       "exactly one takes over");
    (void) ngx_http_ai_cache_read(st, &rd, NULL, 0);
    ok(rd.state == NGX_HTTP_AI_CACHE_FLIGHT_RUNNING && rd.round == 2
       && rd.offset == 0 && rd.size == 0, "another round");
    (void) ngx_http_ai_cache_append(st, flight, w2, bytes, 100, T0);
    ok(ngx_http_ai_cache_end(st, flight, w, &m, T0) == NGX_DECLINED
       && ngx_http_ai_cache_end(st, flight, w2, &m, T0) == NGX_OK
       && have(4) && sound("takeover"), "it leads then");
    ngx_http_ai_cache_depart(st, flight, w2);

    m = meta_of(5);
    (void) ngx_http_ai_cache_begin(st, &m, w, T0, &flight);
    (void) ngx_http_ai_cache_begin(st, &m, w2, T0, &flight);
    ngx_http_ai_cache_fail(st, flight, w, 9, 1, T0);
    ok(ngx_http_ai_cache_takeover(st, flight, w2, T0) == NGX_DECLINED
       && ngx_http_ai_cache_begin(st, &m, w, T0, &other) == NGX_OK
       && other != flight, "nobody takes over a final failure");
    ngx_http_ai_cache_depart(st, flight, w2);
    (void) ngx_http_ai_cache_begin(st, &m, w2, T0, &other);
    ngx_http_ai_cache_fail(st, other, w, 9, 0, T0);
    flight = other;
    ok(ngx_http_ai_cache_begin(st, &m, w, T0, &other) == NGX_OK
       && other == flight, "a newcomer leads a failed one on");
    ngx_http_ai_cache_fail(st, other, w, 9, 1, T0);
    ngx_http_ai_cache_depart(st, flight, w2);
    ok(sound("failures"), "all sound");

    /* room */

    m = meta_of(6);
    (void) ngx_http_ai_cache_begin(st, &m, w, T0, &flight);
    memset(bytes, 'x', sizeof(bytes));

    for (n = 0; n < SIZE; n += 10000) {
        if (ngx_http_ai_cache_append(st, flight, w, bytes, 10000, T0)
            != NGX_OK)
        {
            break;
        }
    }

    ok(n > SIZE / 8 && n <= SIZE / 4 && sound("quarter"),
       "a flight has a quarter of the zone");
    ngx_http_ai_cache_fail(st, flight, w, 1, 1, T0);

    for (i = 100; i < 1000; i++) {
        (void) put(i, 2000);
    }

    n = st->figures.entries;
    m = meta_of(6);
    (void) ngx_http_ai_cache_begin(st, &m, w, T0, &flight);
    ok(ngx_http_ai_cache_append(st, flight, w, bytes, 20000, T0) == NGX_OK
       && st->figures.entries < n && sound("evicts"),
       "entries make room for flights");
    ok(ngx_http_ai_cache_end(st, flight, w, &m, T0) == NGX_DECLINED
       && sound("rejected"),
       "in a full zone a flight that was asked for once does not stay");

    bad = 0;

    for (i = 0; i < 5000; i++) {
        m = meta_of(10000 + i);
        bad += ngx_http_ai_cache_begin(st, &m, w, T0, &flight) == NGX_DECLINED;
    }

    ngx_http_ai_cache_figures(st, &f);
    ok(bad > 0 && f.flights == 5000 - bad && sound("many"),
       "a bounded number of flights: %u", (unsigned) (5000 - bad));

    /* of the dead */

    fresh(SIZE);

    fflush(stdout);
    pid = fork();

    if (pid == 0) {
        w = ngx_http_ai_cache_enroll(st, getpid(), T0);
        m = meta_of(1);
        (void) ngx_http_ai_cache_begin(st, &m, w, T0, &flight);
        m = meta_of(2);
        (void) ngx_http_ai_cache_begin(st, &m, w, T0, &flight);
        (void) ngx_http_ai_cache_begin(st, &m, w, T0, &flight);
        _exit(0);
    }

    (void) waitpid(pid, NULL, 0);

    w = ngx_http_ai_cache_enroll(st, getpid(), T0);
    ok(w == 0 && sound("dead"), "the place of a dead worker is taken");

    m = meta_of(1);
    ok(ngx_http_ai_cache_begin(st, &m, w, T0, &flight) == NGX_OK,
       "what a dead one led is led on");
    m = meta_of(2);
    ok(ngx_http_ai_cache_begin(st, &m, w, T0, &other) == NGX_OK
       && ngx_http_ai_cache_followers(st, other) == 0,
       "a dead one follows no more");

    pid = fork();

    if (pid == 0) {
        w2 = ngx_http_ai_cache_enroll(st, getpid(), T0);
        m = meta_of(3);
        (void) ngx_http_ai_cache_begin(st, &m, w2, T0, &flight);
        (void) ngx_http_ai_cache_append(st, flight, w2, bytes, 100, T0);
        m = meta_of(1);
        (void) ngx_http_ai_cache_begin(st, &m, w2, T0, &flight);
        raise(SIGKILL);
    }

    (void) waitpid(pid, NULL, 0);

    m = meta_of(3);
    ok(ngx_http_ai_cache_begin(st, &m, w, T0, &other) == NGX_AGAIN
       && ngx_http_ai_cache_followers(st, flight) == 1, "nobody knows yet");
    w2 = ngx_http_ai_cache_tick(st, w, getpid(), T0 + 1000);
    memset(&rd, 0, sizeof(rd));
    rd.flight = other;
    (void) ngx_http_ai_cache_read(st, &rd, NULL, 0);
    ok(w2 == w && rd.state == NGX_HTTP_AI_CACHE_FLIGHT_FAILED
       && ngx_http_ai_cache_followers(st, flight) == 0
       && ngx_http_ai_cache_takeover(st, other, w, T0) == NGX_OK
       && sound("bury"), "a tick finds out");

    /* one that hangs, and one that comes back */

    fresh(SIZE);
    w = ngx_http_ai_cache_enroll(st, getpid(), T0);
    w2 = ngx_http_ai_cache_enroll(st, getppid(), T0);
    m = meta_of(3);
    (void) ngx_http_ai_cache_begin(st, &m, w2, T0, &flight);
    (void) ngx_http_ai_cache_tick(st, w, getpid(), T0 + 100000);
    memset(&rd, 0, sizeof(rd));
    rd.flight = flight;
    (void) ngx_http_ai_cache_read(st, &rd, NULL, 0);
    ok(rd.state == NGX_HTTP_AI_CACHE_FLIGHT_RUNNING,
       "a machine that has slept has killed nobody");

    for (i = 1; i < 70; i++) {
        (void) ngx_http_ai_cache_tick(st, w, getpid(), T0 + 100000 + i * 1000);
    }

    (void) ngx_http_ai_cache_read(st, &rd, NULL, 0);
    ok(rd.state == NGX_HTTP_AI_CACHE_FLIGHT_GONE, "a worker that hangs has");
    ok(ngx_http_ai_cache_append(st, flight, w2, bytes, 100, T0)
       == NGX_DECLINED, "when it wakes up it leads no more");
    i = ngx_http_ai_cache_tick(st, w2, getppid(), T0 + 171000);
    ok((ngx_int_t) i == w2 && st->workers[i].pid == getppid()
       && sound("back"), "and it is back");

    ngx_http_ai_cache_dismiss(st, w2, T0);
    ok(st->workers[w2].pid == 0 && sound("dismiss"), "a worker that ends");
}


static void
lock(shared_t *sh, ngx_pid_t pid)
{
    while (!ngx_atomic_cmp_set(&sh->lock, 0, pid)) {
        sched_yield();
    }

    (void) ngx_http_ai_cache_enter(st);
}


static void
unlock(shared_t *sh)
{
    ngx_http_ai_cache_leave(st);
    ngx_memory_barrier();
    sh->lock = 0;
}


/* a worker: asks, leads, follows, purges; verifies each byte it gets */

static void
work(shared_t *sh, uint64_t seed)
{
    size_t                      i, n, k, size;
    int64_t                     now;
    uint64_t                    flight;
    ngx_int_t                   w, rc;
    ngx_http_ai_cache_meta_t    m;
    ngx_http_ai_cache_reader_t  rd;

    rnd = seed | 1;

    lock(sh, getpid());
    w = ngx_http_ai_cache_enroll(st, getpid(), T0 + sh->now);
    unlock(sh);

    while (!sh->done) {
        now = T0 + ngx_atomic_fetch_add(&sh->now, 1);
        (void) ngx_atomic_fetch_add(&sh->ops, 1);

        i = below(IDS);
        size = 10 + i * 300;

        lock(sh, getpid());
        w = ngx_http_ai_cache_tick(st, w, getpid(), now);
        sh->failed += have_at(i, now) > 1;

        m = meta_of(i);
        m.created = now;
        m.fresh = m.stale = now + 2000;

        if (below(50) == 0) {
            (void) purge(below(NGX_HTTP_AI_CACHE_RULE_MAX), below(8), now);
        }

        if (below(3) == 0) {
            (void) ngx_http_ai_cache_put(st, &m, data_of(i, size, bytes), size,
                                         now);
        }

        rc = ngx_http_ai_cache_begin(st, &m, w, now, &flight);
        unlock(sh);

        memset(&rd, 0, sizeof(rd));
        rd.flight = flight;

        if (rc == NGX_AGAIN) {
            for (n = 0; n < 200 && !sh->done; n++) {
                lock(sh, getpid());
                k = ngx_http_ai_cache_read(st, &rd, buf, 1000);
                data_of(i, size, bytes);
                sh->failed += k && memcmp(buf, bytes + rd.offset - k, k) != 0;

                if (rd.state == NGX_HTTP_AI_CACHE_FLIGHT_FAILED
                    && ngx_http_ai_cache_takeover(st, flight, w, now)
                       == NGX_OK)
                {
                    rc = NGX_OK;
                    unlock(sh);
                    break;
                }

                unlock(sh);

                if (rd.state != NGX_HTTP_AI_CACHE_FLIGHT_RUNNING
                    && rd.offset == rd.size)
                {
                    sh->failed += rd.state == NGX_HTTP_AI_CACHE_FLIGHT_WHOLE
                                  && rd.size != size;
                    break;
                }

                sched_yield();
            }

            if (rc == NGX_AGAIN) {
                lock(sh, getpid());
                ngx_http_ai_cache_depart(st, flight, w);
                unlock(sh);
                continue;
            }
        }

        if (rc != NGX_OK) {
            continue;
        }

        for (n = 0; n < size && rc == NGX_OK; n += k) {
            k = upto(1500, size - n);
            data_of(i, size, bytes);

            lock(sh, getpid());
            rc = ngx_http_ai_cache_append(st, flight, w, bytes + n, k, now);
            unlock(sh);
        }

        lock(sh, getpid());

        if (rc == NGX_OK && below(5)) {
            m.stale = below(5) ? now + 2000 : 0;
            (void) ngx_http_ai_cache_end(st, flight, w, &m, now);

        } else {
            ngx_http_ai_cache_fail(st, flight, w, 1, below(2), now);
        }

        unlock(sh);
    }
}


static void
test_shared(void)
{
    pid_t        pid[4];
    time_t       end;
    size_t       i, kills, resets, bad;
    u_char      *own;
    shared_t    *sh;
    const char  *error;

    sh = mmap(NULL, sizeof(shared_t), PROT_READ|PROT_WRITE,
              MAP_ANON|MAP_SHARED, -1, 0);

    if (sh == MAP_FAILED) {
        ok(0, "mmap()");
        return;
    }

    own = block;
    block = sh->block;
    fresh(256 * 1024);

    kills = 0;
    resets = 0;
    bad = 0;
    end = time(NULL) + (getenv("AI_CACHE_TIME") ? atoi(getenv("AI_CACHE_TIME"))
                                                : 5);
    fflush(stdout);

    for (i = 0; i < 4; i++) {
        pid[i] = 0;
    }

    while (time(NULL) < end) {
        for (i = 0; i < 4; i++) {
            if (pid[i]) {
                continue;
            }

            pid[i] = fork();

            if (pid[i] == 0) {
                work(sh, kills * 7919 + i * 104729 + 1);
                _exit(0);
            }
        }

        usleep(below(8000));

        i = below(4);
        kill(pid[i], SIGKILL);
        (void) waitpid(pid[i], NULL, 0);
        kills++;

        /* as nginx's master does */

        (void) ngx_atomic_cmp_set(&sh->lock, pid[i], 0);
        pid[i] = 0;

        lock(sh, getpid());
        error = ngx_http_ai_cache_store_check(st);
        resets = st->figures.resets;
        unlock(sh);

        if (error && bad++ == 0) {
            diag("after %u kills: %s", (unsigned) kills, error);
        }
    }

    sh->done = 1;

    for (i = 0; i < 4; i++) {
        if (pid[i]) {
            end = time(NULL) + 5;

            while (waitpid(pid[i], NULL, WNOHANG) == 0) {
                if (time(NULL) > end) {
                    kill(pid[i], SIGKILL);
                }

                usleep(1000);
            }
        }
    }

    sh->lock = 0;

    (void) ngx_http_ai_cache_enter(st);

    ok(bad == 0 && sh->failed == 0 && sh->ops > 100 && sound("shared"),
       "%u kills in %u operations, %u in the middle of a change",
       (unsigned) kills, (unsigned) sh->ops, (unsigned) resets);

    /* nothing has leaked: all that is left can be evicted */

    (void) ngx_http_ai_cache_tick(st, NGX_ERROR, getpid(),
                                  T0 + sh->now + 3600000 * 2);
    (void) ngx_http_ai_cache_tick(st, NGX_ERROR, getpid(),
                                  T0 + sh->now + 3600000 * 4);
    ok(st->fused == 0 && st->top - st->nfree == 0 && sound("leaks"),
       "nothing has leaked");

    block = own;
    (void) munmap(sh, sizeof(shared_t));
}


/* is there another one than what was found before? */

static void
test_younger(void)
{
    ngx_http_ai_cache_meta_t     m;
    ngx_http_ai_cache_figures_t  before, after;

    fresh(SIZE);

    m = meta_of(1);

    ok(!ngx_http_ai_cache_younger(st, m.id, -1, T0), "nothing there");

    m.stale = T0 + 100;
    data_of(1, 100, bytes);
    ok(ngx_http_ai_cache_put(st, &m, bytes, 100, T0) == NGX_OK, "an entry");

    ngx_http_ai_cache_figures(st, &before);

    ok(ngx_http_ai_cache_younger(st, m.id, -1, T0)
       && ngx_http_ai_cache_younger(st, m.id, T0 - 1, T0), "it is younger");
    ok(!ngx_http_ai_cache_younger(st, m.id, T0, T0)
       && !ngx_http_ai_cache_younger(st, m.id, T0 + 1, T0), "it is not");
    ok(ngx_http_ai_cache_younger(st, m.id, -1, T0 + 99)
       && !ngx_http_ai_cache_younger(st, m.id, -1, T0 + 100), "it is gone");

    ngx_http_ai_cache_figures(st, &after);
    ok(memcmp(&before, &after, sizeof(before)) == 0, "nothing was counted");

    (void) purge(NGX_HTTP_AI_CACHE_RULE_MODEL, m.model, T0);
    ok(!ngx_http_ai_cache_younger(st, m.id, -1, T0), "it is purged");
}


int
main(void)
{
    block = mmap(NULL, SIZE, PROT_READ|PROT_WRITE, MAP_ANON|MAP_SHARED, -1, 0);

    if (block == MAP_FAILED) {
        return 1;
    }

    test_sums();
    test_entries();
    test_admission();
    test_model();
    test_rules();
    test_flights();
    test_younger();
    test_shared();

    return done_testing();
}
