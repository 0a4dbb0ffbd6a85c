
/*
 * Copyright (C) nginx AI gateway authors
 */


/* the block of a ledger: its layout, its keys, and how changes are undone */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_limit_block.h"


#define NGX_HTTP_AI_LIMIT_MAGIC    0x4c6e6941
#define NGX_HTTP_AI_LIMIT_VERSION  3

/* clocks of workers differ, as they are cached; ms */
#define NGX_HTTP_AI_LIMIT_SKEW     60000
#define NGX_HTTP_AI_LIMIT_SURE     2000

#define NGX_HTTP_AI_LIMIT_WALK     64


static uint64_t ngx_http_ai_limit_layout(ngx_http_ai_limit_store_t *st,
    uint64_t nkeys, size_t key_max);
static void ngx_http_ai_limit_seed(ngx_http_ai_limit_store_t *st);
static void ngx_http_ai_limit_unlink(ngx_http_ai_limit_store_t *st,
    uint32_t i);
static void ngx_http_ai_limit_newest(ngx_http_ai_limit_store_t *st,
    uint32_t i, int64_t now);
static void ngx_http_ai_limit_drop(ngx_http_ai_limit_store_t *st, uint32_t i,
    ngx_uint_t evicted);
static ngx_uint_t ngx_http_ai_limit_idle(ngx_http_ai_limit_key_t *k,
    ngx_uint_t first, int64_t now, int64_t time);
static void ngx_http_ai_limit_forget(ngx_http_ai_limit_store_t *st,
    uint32_t i);


ngx_http_ai_limit_store_t *
ngx_http_ai_limit_store_init(void *block, size_t size, size_t key_max)
{
    uint64_t                    n, bit;
    ngx_http_ai_limit_store_t  *st;

    st = block;

    if (size < sizeof(ngx_http_ai_limit_store_t) || (uintptr_t) block & 7
        || key_max > 4096)
    {
        return NULL;
    }

    key_max = key_max ? ngx_align(key_max, 8) : 128;

    /* as many keys as fit */

    n = 0;

    for (bit = 1 << 28; bit; bit >>= 1) {
        if (n + bit <= size / sizeof(ngx_http_ai_limit_key_t)
            && ngx_http_ai_limit_layout(st, n + bit, key_max) <= size)
        {
            n += bit;
        }
    }

    if (n < 8) {
        return NULL;
    }

    (void) ngx_http_ai_limit_layout(st, n, key_max);

    ngx_http_ai_limit_seed(st);

    st->version = NGX_HTTP_AI_LIMIT_VERSION;
    st->size = size;
    ngx_http_ai_limit_barrier();
    st->magic = NGX_HTTP_AI_LIMIT_MAGIC;

    return st;
}


ngx_http_ai_limit_store_t *
ngx_http_ai_limit_store_attach(void *block, size_t size)
{
    ngx_http_ai_limit_store_t  *st, layout;

    st = block;

    if (size < sizeof(ngx_http_ai_limit_store_t) || (uintptr_t) block & 7
        || st->magic != NGX_HTTP_AI_LIMIT_MAGIC
        || st->version != NGX_HTTP_AI_LIMIT_VERSION
        || st->size != size || st->key_max > 4096)
    {
        return NULL;
    }

    if (ngx_http_ai_limit_layout(&layout, st->nkeys, st->key_max) > size
        || layout.nholds != st->nholds || layout.key_size != st->key_size
        || layout.kmask != st->kmask || layout.hmask != st->hmask
        || layout.kchains != st->kchains || layout.hchains != st->hchains
        || layout.keys != st->keys || layout.holds != st->holds)
    {
        return NULL;
    }

    return st;
}


/* returns the size; for each key two holds */

static uint64_t
ngx_http_ai_limit_layout(ngx_http_ai_limit_store_t *st, uint64_t nkeys,
    size_t key_max)
{
    uint64_t  n, size;

    size = ngx_align(sizeof(ngx_http_ai_limit_store_t), 64);

    st->nkeys = nkeys;
    st->nholds = 2 * nkeys;
    st->key_max = key_max;
    st->key_size = ngx_align(offsetof(ngx_http_ai_limit_key_t, data) + key_max,
                             64);

    for (n = 1; n < nkeys; n <<= 1) { /* void */ }

    st->kmask = n - 1;
    st->kchains = size;
    size += n * sizeof(uint32_t);

    st->hmask = 2 * n - 1;
    st->hchains = size;
    size += 2 * n * sizeof(uint32_t);

    size = ngx_align(size, (uint64_t) 64);

    /* slot 0 is none */

    st->keys = size;
    size += (nkeys + 1) * st->key_size;

    st->holds = size;
    size += (2 * nkeys + 1) * sizeof(ngx_http_ai_limit_slot_t);

    return size;
}


/* of the hash: whoever chooses keys must not choose chains */

static void
ngx_http_ai_limit_seed(ngx_http_ai_limit_store_t *st)
{
    ngx_fd_t        fd;
    struct timeval  tv;

    ngx_gettimeofday(&tv);

    st->seed[0] = ((uint64_t) ngx_random() << 32) ^ ngx_random()
                  ^ (uintptr_t) &tv;
    st->seed[1] = ((uint64_t) tv.tv_usec << 40) ^ ((uint64_t) getpid() << 20)
                  ^ tv.tv_sec ^ (uintptr_t) st;

    fd = open("/dev/urandom", O_RDONLY);

    if (fd == -1) {
        return;
    }

    if (read(fd, st->seed, sizeof(st->seed)) == -1) {
        /* what there is must do */
        st->seed[0] ^= ngx_random();
    }

    (void) close(fd);
}


ngx_uint_t
ngx_http_ai_limit_enter(ngx_http_ai_limit_store_t *st)
{
    if (st->nundo == 0) {
        return 0;
    }

    ngx_http_ai_limit_undo(st);

    ngx_http_ai_limit_keep(st, &st->head.stats, sizeof(st->head.stats));
    st->head.stats.repaired++;
    ngx_http_ai_limit_commit(st);

    return 1;
}


void
ngx_http_ai_limit_undo(ngx_http_ai_limit_store_t *st)
{
    u_char    *p;
    uint64_t   entry, size, n;

    /* from the last to the first; the size only goes to 0, at the end, for
     * the case that this process dies, too */

    p = st->undo + st->nundo;

    while (p > st->undo) {
        p -= sizeof(uint64_t);
        ngx_memcpy(&entry, p, sizeof(uint64_t));

        size = entry & 0xffff;
        n = ngx_align(size, 8);
        p -= n;

        ngx_memcpy((u_char *) st + (entry >> 16), p, size);
    }

    ngx_http_ai_limit_commit(st);
}


void
ngx_http_ai_limit_leave(ngx_http_ai_limit_store_t *st)
{
    ngx_http_ai_limit_commit(st);
}


/* SipHash-1-3 */

#define ngx_http_ai_rotate(x, b)  (((x) << (b)) | ((x) >> (64 - (b))))

#define ngx_http_ai_round(v)                                                  \
    v[0] += v[1];                                                             \
    v[1] = ngx_http_ai_rotate(v[1], 13) ^ v[0];                               \
    v[0] = ngx_http_ai_rotate(v[0], 32);                                      \
    v[2] += v[3];                                                             \
    v[3] = ngx_http_ai_rotate(v[3], 16) ^ v[2];                               \
    v[0] += v[3];                                                             \
    v[3] = ngx_http_ai_rotate(v[3], 21) ^ v[0];                               \
    v[2] += v[1];                                                             \
    v[1] = ngx_http_ai_rotate(v[1], 17) ^ v[2];                               \
    v[2] = ngx_http_ai_rotate(v[2], 32)


uint64_t
ngx_http_ai_limit_hash(uint64_t *seed, u_char *p, size_t len)
{
    size_t    n;
    uint64_t  m, v[4];

    v[0] = seed[0] ^ 0x736f6d6570736575;
    v[1] = seed[1] ^ 0x646f72616e646f6d;
    v[2] = seed[0] ^ 0x6c7967656e657261;
    v[3] = seed[1] ^ 0x7465646279746573;

    for (n = len; n >= 8; n -= 8, p += 8) {
        ngx_memcpy(&m, p, 8);

        v[3] ^= m;
        ngx_http_ai_round(v);
        v[0] ^= m;
    }

    m = (uint64_t) len << 56;

    while (n) {
        n--;
        m |= (uint64_t) p[n] << 8 * n;
    }

    v[3] ^= m;
    ngx_http_ai_round(v);
    v[0] ^= m;

    v[2] ^= 0xff;
    ngx_http_ai_round(v);
    ngx_http_ai_round(v);
    ngx_http_ai_round(v);

    return v[0] ^ v[1] ^ v[2] ^ v[3];
}


/*
 * A wall clock that was put back would stop all rates until it has caught up:
 * when it is far behind for two seconds, it is what counts from now on.  Not
 * at once: another worker may not have noticed, and between the two clocks
 * time would fly.
 */

int64_t
ngx_http_ai_limit_time(ngx_http_ai_limit_store_t *st, int64_t now,
    ngx_uint_t peeked)
{
    int64_t  time;

    time = now + st->shift;

    if (time >= st->time) {

        if (!peeked) {
            st->time = time;
            st->behind = 0;
        }

        return time;
    }

    if (st->behind == 0 || now < st->behind) {

        if (st->time - time > NGX_HTTP_AI_LIMIT_SKEW && !peeked) {
            st->behind = now;
        }

        return st->time;
    }

    if (now - st->behind < NGX_HTTP_AI_LIMIT_SURE) {
        return st->time;
    }

    time = st->time + (now - st->behind);

    if (!peeked) {
        st->shift = time - now;
        st->time = time;
        st->behind = 0;
    }

    return time;
}


uint32_t
ngx_http_ai_limit_find(ngx_http_ai_limit_store_t *st, ngx_str_t *key,
    uint32_t hash)
{
    uint32_t                  i;
    ngx_http_ai_limit_key_t  *k;

    for (i = *ngx_http_ai_limit_kchain(st, hash); i; i = k->link.next) {
        k = ngx_http_ai_limit_key(st, i);

        if (k->link.hash == hash && k->link.len == key->len
            && ngx_memcmp(k->data, key->data, key->len) == 0)
        {
            return i;
        }
    }

    return 0;
}


/* a free slot for another key */

ngx_int_t
ngx_http_ai_limit_room(ngx_http_ai_limit_store_t *st, int64_t now)
{
    int64_t                   time;
    uint32_t                  i;
    ngx_uint_t                n;
    ngx_http_ai_limit_key_t  *k;

    time = ngx_http_ai_limit_time(st, now, 1);

    /* as those come that nobody misses go */

    for (n = 0; n < 2 && st->head.oldest; n++) {
        i = st->head.oldest;

        if (!ngx_http_ai_limit_idle(ngx_http_ai_limit_key(st, i), 0, now,
                                    time))
        {
            break;
        }

        ngx_http_ai_limit_drop(st, i, 0);
    }

    if (st->head.kfree || st->head.ktop < st->nkeys) {
        return NGX_OK;
    }

    /* those that must stay get out of the way of the next search */

    for (n = 0; n < NGX_HTTP_AI_LIMIT_WALK; n++) {
        i = st->head.oldest;
        k = ngx_http_ai_limit_key(st, i);

        if (ngx_http_ai_limit_idle(k, NGX_HTTP_AI_METER_Q_REQUESTS, now,
                                   time))
        {
            ngx_http_ai_limit_drop(st, i, 1);
            return NGX_OK;
        }

        ngx_http_ai_limit_touch(st, i, now);
        ngx_http_ai_limit_commit(st);
    }

    return NGX_DECLINED;
}


/* the caller has made room, and kept the head */

uint32_t
ngx_http_ai_limit_add(ngx_http_ai_limit_store_t *st, ngx_str_t *key,
    uint32_t hash, ngx_http_ai_meters_t *meters, int64_t now)
{
    uint32_t                  i, *chain;
    ngx_http_ai_limit_key_t  *k;

    i = st->head.kfree ? st->head.kfree : st->head.ktop + 1;
    k = ngx_http_ai_limit_key(st, i);

    ngx_http_ai_limit_keep(st, &k->link, sizeof(k->link));

    if (st->head.kfree) {
        st->head.kfree = k->link.next;

    } else {
        st->head.ktop++;
    }

    chain = ngx_http_ai_limit_kchain(st, hash);
    ngx_http_ai_limit_keep(st, chain, sizeof(uint32_t));

    /* the rest of a free slot is nobody's */

    k->meters = *meters;
    ngx_memcpy(k->data, key->data, key->len);

    k->link.hash = hash;
    k->link.len = key->len;
    k->link.nholds = 0;
    k->link.seq = 0;
    k->link.used = 1;

    k->link.next = *chain;
    *chain = i;

    ngx_http_ai_limit_newest(st, i, now);

    st->head.stats.keys++;

    return i;
}


void
ngx_http_ai_limit_touch(ngx_http_ai_limit_store_t *st, uint32_t i,
    int64_t now)
{
    ngx_http_ai_limit_link_t  *link;

    if (st->head.newest == i) {
        return;
    }

    link = &ngx_http_ai_limit_key(st, i)->link;

    ngx_http_ai_limit_keep(st, &st->head.newest, 2 * sizeof(uint32_t));
    ngx_http_ai_limit_keep(st, &link->newer, 3 * sizeof(uint32_t));

    ngx_http_ai_limit_unlink(st, i);
    ngx_http_ai_limit_newest(st, i, now);
}


static void
ngx_http_ai_limit_unlink(ngx_http_ai_limit_store_t *st, uint32_t i)
{
    uint32_t                  *older, *newer;
    ngx_http_ai_limit_link_t  *link;

    link = &ngx_http_ai_limit_key(st, i)->link;

    newer = link->newer
            ? &ngx_http_ai_limit_key(st, link->newer)->link.older
            : &st->head.newest;

    older = link->older
            ? &ngx_http_ai_limit_key(st, link->older)->link.newer
            : &st->head.oldest;

    ngx_http_ai_limit_keep(st, newer, sizeof(uint32_t));
    ngx_http_ai_limit_keep(st, older, sizeof(uint32_t));

    *newer = link->older;
    *older = link->newer;
}


static void
ngx_http_ai_limit_newest(ngx_http_ai_limit_store_t *st, uint32_t i,
    int64_t now)
{
    uint32_t                  *newer;
    ngx_http_ai_limit_link_t  *link;

    link = &ngx_http_ai_limit_key(st, i)->link;

    newer = st->head.newest
            ? &ngx_http_ai_limit_key(st, st->head.newest)->link.newer
            : &st->head.oldest;

    ngx_http_ai_limit_keep(st, newer, sizeof(uint32_t));

    *newer = i;
    link->newer = 0;
    link->older = st->head.newest;
    link->moved = (uint32_t) now;
    st->head.newest = i;
}


static void
ngx_http_ai_limit_drop(ngx_http_ai_limit_store_t *st, uint32_t i,
    ngx_uint_t evicted)
{
    uint32_t                 *next;
    ngx_http_ai_limit_key_t  *k;

    k = ngx_http_ai_limit_key(st, i);

    ngx_http_ai_limit_keep(st, &st->head, sizeof(st->head));
    ngx_http_ai_limit_keep(st, &k->link, sizeof(k->link));

    next = ngx_http_ai_limit_kchain(st, k->link.hash);

    while (*next != i) {
        next = &ngx_http_ai_limit_key(st, *next)->link.next;
    }

    ngx_http_ai_limit_keep(st, next, sizeof(uint32_t));
    *next = k->link.next;

    ngx_http_ai_limit_unlink(st, i);

    k->link.used = 0;
    k->link.serial++;
    k->link.next = st->head.kfree;
    st->head.kfree = i;

    st->head.stats.keys--;
    st->head.stats.evicted += evicted;

    ngx_http_ai_limit_commit(st);
}


static ngx_uint_t
ngx_http_ai_limit_idle(ngx_http_ai_limit_key_t *k, ngx_uint_t first,
    int64_t now, int64_t time)
{
    ngx_uint_t  m;

    if (k->link.nholds) {
        return 0;
    }

    /* use of a rate that does not refill is never over */

    for (m = 0; m < first && ngx_http_ai_meter_is_rate(m); m++) {
        if (k->meters.rates[m].period == NGX_HTTP_AI_LIMIT_STILL
            && k->meters.rates[m].used)
        {
            return 0;
        }
    }

    for (m = first; m < NGX_HTTP_AI_METER_MAX; m++) {
        if (!ngx_http_ai_meter_idle(&k->meters, m, now, time)) {
            return 0;
        }
    }

    return 1;
}


void
ngx_http_ai_limit_peek(ngx_http_ai_limit_store_t *st, ngx_str_t *key,
    int64_t now, ngx_http_ai_limit_t *limits,
    ngx_http_ai_limit_state_t *states)
{
    int64_t               time;
    uint32_t              i;
    ngx_uint_t            m;
    ngx_http_ai_meters_t  meters;

    time = ngx_http_ai_limit_time(st, now, 1);

    i = ngx_http_ai_limit_find(st, key,
                               ngx_http_ai_limit_hash(st->seed, key->data,
                                                      key->len));

    if (i) {
        meters = ngx_http_ai_limit_key(st, i)->meters;

    } else {
        ngx_http_ai_meters_init(&meters);
    }

    for (m = 0; m < NGX_HTTP_AI_METER_MAX; m++) {

        if (limits[m].limit < 0) {
            ngx_memzero(&states[m], sizeof(ngx_http_ai_limit_state_t));
            states[m].limit = -1;
            continue;
        }

        ngx_http_ai_meter_advance(&meters, m, &limits[m], time);
        ngx_http_ai_meter_state(&meters, m, now, &states[m]);
    }
}


void
ngx_http_ai_limit_left(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_hold_t *hold, int64_t now, ngx_uint_t mask,
    ngx_http_ai_limit_state_t *states)
{
    ngx_uint_t             m;
    ngx_http_ai_meters_t  *meters;

    meters = &ngx_http_ai_limit_key(st, hold->key)->meters;

    for (m = 0; mask; m++, mask >>= 1) {
        if (mask & 1) {
            ngx_http_ai_meter_left(meters, m, now, &states[m]);
        }
    }
}


ngx_int_t
ngx_http_ai_limit_used(ngx_http_ai_limit_store_t *st, ngx_str_t *key,
    ngx_http_ai_hold_t *hold, int64_t now, ngx_http_ai_limit_state_t *states)
{
    ngx_uint_t             m;
    ngx_http_ai_meters_t  *meters;

    if (!ngx_http_ai_limit_is(st, hold->key, key)) {
        return NGX_DECLINED;
    }

    meters = &ngx_http_ai_limit_key(st, hold->key)->meters;

    for (m = NGX_HTTP_AI_METER_Q_REQUESTS; m < NGX_HTTP_AI_METER_MAX; m++) {
        ngx_http_ai_meter_state(meters, m, now, &states[m]);
    }

    return NGX_OK;
}


ngx_uint_t
ngx_http_ai_limit_reset(ngx_http_ai_limit_store_t *st, ngx_str_t *key)
{
    uint32_t    i;
    ngx_uint_t  n;

    if (key) {
        i = ngx_http_ai_limit_find(st, key,
                                   ngx_http_ai_limit_hash(st->seed, key->data,
                                                          key->len));
        if (i == 0) {
            return 0;
        }

        ngx_http_ai_limit_forget(st, i);

        return 1;
    }

    n = 0;

    for (i = 1; i <= st->head.ktop; i++) {
        if (ngx_http_ai_limit_key(st, i)->link.used) {
            ngx_http_ai_limit_forget(st, i);
            n++;
        }
    }

    return n;
}


static void
ngx_http_ai_limit_forget(ngx_http_ai_limit_store_t *st, uint32_t i)
{
    ngx_uint_t                m;
    ngx_http_ai_limit_key_t  *k;

    k = ngx_http_ai_limit_key(st, i);

    ngx_http_ai_limit_keep(st, &k->link, sizeof(k->link));

    /* corrections of what was charged before come too late */

    k->link.serial++;
    k->link.seq++;

    for (m = 0; m < NGX_HTTP_AI_METER_MAX; m++) {
        ngx_http_ai_limit_keep_meter(st, &k->meters, m);
        ngx_http_ai_meter_forget(&k->meters, m, k->link.seq);
    }

    ngx_http_ai_limit_commit(st);
}


ngx_uint_t
ngx_http_ai_limit_next(ngx_http_ai_limit_store_t *st, ngx_uint_t *pos,
    ngx_str_t *key, int64_t now, ngx_http_ai_limit_state_t *states,
    ngx_uint_t *holds)
{
    int64_t                   time;
    ngx_uint_t                i, m;
    ngx_http_ai_meters_t      meters;
    ngx_http_ai_limit_key_t  *k;

    for (i = *pos + 1; i <= st->head.ktop; i++) {
        k = ngx_http_ai_limit_key(st, i);

        if (!k->link.used) {
            continue;
        }

        time = ngx_http_ai_limit_time(st, now, 1);
        meters = k->meters;

        for (m = 0; m < NGX_HTTP_AI_METER_MAX; m++) {
            ngx_http_ai_meter_advance(&meters, m, NULL, time);
            ngx_http_ai_meter_state(&meters, m, now, &states[m]);
        }

        key->len = k->link.len;
        key->data = k->data;
        *holds = k->link.nholds;
        *pos = i;

        return 1;
    }

    *pos = i;

    return 0;
}


void
ngx_http_ai_limit_stats(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_limit_stats_t *stats)
{
    *stats = st->head.stats;
    stats->holds = st->head.nlive;
}
