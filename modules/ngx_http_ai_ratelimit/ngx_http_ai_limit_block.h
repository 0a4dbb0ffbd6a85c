
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * What is in the block of a ledger, and how it is changed.
 *
 *     head | chains of keys | chains of holds | keys | holds
 *
 * Links are indices; 0 is none, so a zeroed block is empty.  Slots above
 * "ktop" and "htop" were never used, so that memory is touched as needed.
 *
 * A change is made of ngx_http_ai_limit_keep() for each piece of memory that
 * is going to change, the change, and ngx_http_ai_limit_commit().  What was
 * kept is on a stack, so putting it back from the top restores everything,
 * links as well, whenever the process died; and it can be done again when it
 * dies in doing so.  The order of stores is that of the program: only
 * the compiler must be kept from changing it, as a process that is no more
 * has finished its stores.
 */


#ifndef _NGX_HTTP_AI_LIMIT_BLOCK_H_INCLUDED_
#define _NGX_HTTP_AI_LIMIT_BLOCK_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_limit_store.h"
#include "ngx_http_ai_limit_meter.h"


#define NGX_HTTP_AI_LIMIT_UNDO     4096

#define NGX_HTTP_AI_HOLD_FREE      0
#define NGX_HTTP_AI_HOLD_LIVE      1
#define NGX_HTTP_AI_HOLD_TOMB      2

/* with the meters in the mask of a hold */
#define NGX_HTTP_AI_HOLD_METERS    0x00ff
#define NGX_HTTP_AI_HOLD_TOPPED    0x0100

/* bits of the meters that are rates */
#define NGX_HTTP_AI_LIMIT_RATE_BITS                                           \
    (((ngx_uint_t) 1 << NGX_HTTP_AI_LIMIT_RATES) - 1)


#if defined __GNUC__ || defined __clang__
#define ngx_http_ai_limit_barrier()  __asm__ volatile ("" ::: "memory")
#else
#define ngx_http_ai_limit_barrier()  ngx_memory_barrier()
#endif


typedef struct {
    uint32_t                   next;      /* in its chain, or of free ones */
    uint32_t                   newer;
    uint32_t                   older;
    uint32_t                   moved;     /* ms: when it became the newest */
    uint32_t                   hash;
    uint32_t                   serial;    /* changes when use is forgotten */
    uint32_t                   used;      /* the slot is */
    uint32_t                   len;
    uint64_t                   nholds;    /* a hold changes what follows */
    int64_t                    seq;
} ngx_http_ai_limit_link_t;


/*
 * Of cache lines: one has the links and the slots, each rate that is used has
 * one, each window, and the key's bytes.
 */

typedef struct {
    ngx_http_ai_limit_link_t   link;
    ngx_http_ai_meters_t       meters;
    u_char                     data[8];   /* key_max of them */
} ngx_http_ai_limit_key_t;


typedef struct {
    uint16_t                   state;
    uint16_t                   mask;      /* meters that had a limit */
    uint32_t                   serial;
    uint32_t                   next;      /* live: in the chain of its id; */
    uint32_t                   prev;      /* tombstones: by age; or free */
} ngx_http_ai_limit_place_t;


/* three cache lines; the last one is for money and for what was topped up */

typedef struct {
    ngx_http_ai_limit_place_t  place;
    uint32_t                   key;
    uint32_t                   chain;     /* tombstones: serial of the key */
    u_char                     id[16];
    uint64_t                   owner;
    int64_t                    deadline;  /* tombstones: of the charge */
    int64_t                    seq;

    int64_t                    input;     /* tombstones: of the charge, by the
                                             wall clock */
    ngx_http_ai_amounts_t      amounts;   /* of the meters of the mask */

    /* if the mask has TOPPED */
    int64_t                    last_seq;
    int64_t                    last[NGX_HTTP_AI_LIMIT_RATES];

    /*
     * Written without the lock, with the serial in the upper 16 bits; zeroed
     * whenever these are 0, so that they are never those of another hold.
     */
    uint64_t                   output;
    uint64_t                   money;
} ngx_http_ai_limit_slot_t;


typedef struct {
    uint32_t                   newest;
    uint32_t                   oldest;
    uint32_t                   kfree;
    uint32_t                   ktop;

    /* what holds change, up to the first numbers of the statistics */
    uint32_t                   hfree;
    uint32_t                   htop;
    uint32_t                   tomb_first;
    uint32_t                   tomb_last;
    uint32_t                   ntombs;
    uint32_t                   nlive;
    ngx_http_ai_limit_stats_t  stats;
} ngx_http_ai_limit_head_t;


struct ngx_http_ai_limit_store_s {
    uint32_t                   magic;
    uint32_t                   version;
    uint64_t                   size;
    uint32_t                   key_max;
    uint32_t                   key_size;
    uint32_t                   nkeys;
    uint32_t                   nholds;
    uint32_t                   kmask;
    uint32_t                   hmask;
    uint64_t                   kchains;   /* offsets */
    uint64_t                   hchains;
    uint64_t                   keys;
    uint64_t                   holds;
    uint64_t                   seed[2];

    /* what follows is written, most of it in two cache lines and those of the
     * undo record */
    uint64_t                   line[5];
    uint64_t                   nundo;

    /*
     * Rates have a clock of their own that only goes forward: the wall clock
     * plus "shift".  "behind": since when it has been behind.
     */
    int64_t                    time;
    int64_t                    shift;
    int64_t                    behind;

    /* deadlines have theirs without jumps: the wall clock minus "jumped" */
    int64_t                    reaped;
    int64_t                    jumped;

    ngx_http_ai_limit_head_t   head;

    uint64_t                   lines[4];
    u_char                     undo[NGX_HTTP_AI_LIMIT_UNDO];
};


#define NGX_HTTP_AI_LIMIT_HOLDS_SIZE                                          \
    (offsetof(ngx_http_ai_limit_head_t, stats.expired)                        \
     - offsetof(ngx_http_ai_limit_head_t, hfree))

#define NGX_HTTP_AI_LIMIT_LOWS_SIZE                                           \
    (2 * NGX_HTTP_AI_LIMIT_LOWS * sizeof(int64_t))


static ngx_inline uint32_t *
ngx_http_ai_limit_kchain(ngx_http_ai_limit_store_t *st, uint32_t hash)
{
    return (uint32_t *) ((u_char *) st + st->kchains) + (hash & st->kmask);
}


static ngx_inline uint32_t *
ngx_http_ai_limit_hchain(ngx_http_ai_limit_store_t *st, uint32_t hash)
{
    return (uint32_t *) ((u_char *) st + st->hchains) + (hash & st->hmask);
}


static ngx_inline ngx_http_ai_limit_key_t *
ngx_http_ai_limit_key(ngx_http_ai_limit_store_t *st, uint32_t i)
{
    return (ngx_http_ai_limit_key_t *)
               ((u_char *) st + st->keys + (size_t) i * st->key_size);
}


static ngx_inline ngx_http_ai_limit_slot_t *
ngx_http_ai_limit_slot(ngx_http_ai_limit_store_t *st, uint32_t i)
{
    return (ngx_http_ai_limit_slot_t *)
               ((u_char *) st + st->holds
                + (size_t) i * sizeof(ngx_http_ai_limit_slot_t));
}


/*
 * The largest change keeps less than half of what there is room for: a head,
 * a hold, a key with all its meters, and links of neighbours.  Inline, as most
 * sizes are constants.
 */

static ngx_inline void
ngx_http_ai_limit_keep(ngx_http_ai_limit_store_t *st, void *p, size_t size)
{
    u_char    *to;
    uint64_t   entry, n;

    n = (size + 7) & ~(size_t) 7;

    if (st->nundo > NGX_HTTP_AI_LIMIT_UNDO - sizeof(uint64_t) - n) {
        return;
    }

    to = st->undo + st->nundo;
    entry = (uint64_t) ((u_char *) p - (u_char *) st) << 16 | size;

    ngx_memcpy(to, p, size);
    ngx_memcpy(to + n, &entry, sizeof(uint64_t));

    ngx_http_ai_limit_barrier();
    st->nundo += n + sizeof(uint64_t);
    ngx_http_ai_limit_barrier();
}


static ngx_inline void
ngx_http_ai_limit_commit(ngx_http_ai_limit_store_t *st)
{
    ngx_http_ai_limit_barrier();
    st->nundo = 0;
    ngx_http_ai_limit_barrier();
}


/* what a hold that comes or goes changes of the head */

static ngx_inline void
ngx_http_ai_limit_keep_holds(ngx_http_ai_limit_store_t *st)
{
    ngx_http_ai_limit_keep(st, &st->head.hfree, NGX_HTTP_AI_LIMIT_HOLDS_SIZE);
}


static ngx_inline void
ngx_http_ai_limit_keep_count(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_limit_link_t *link)
{
    ngx_http_ai_limit_keep(st, &link->nholds,
                           sizeof(ngx_http_ai_limit_link_t)
                           - offsetof(ngx_http_ai_limit_link_t, nholds));
}


/* what changes with the use of a rate, and with it what does with its limit */

static ngx_inline void
ngx_http_ai_limit_keep_rate(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_rate_t *r)
{
    ngx_http_ai_limit_keep(st, r, offsetof(ngx_http_ai_rate_t, limit));

    if (r->nlows) {
        ngx_http_ai_limit_keep(st, &r->seq, NGX_HTTP_AI_LIMIT_LOWS_SIZE);
    }
}


static ngx_inline void
ngx_http_ai_limit_keep_given(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_rate_t *r)
{
    ngx_http_ai_limit_keep(st, &r->limit, 2 * sizeof(int64_t));
}


static ngx_inline void
ngx_http_ai_limit_keep_meter(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_meters_t *meters, ngx_uint_t m)
{
    if (ngx_http_ai_meter_is_rate(m)) {
        ngx_http_ai_limit_keep_rate(st, &meters->rates[m]);
        ngx_http_ai_limit_keep_given(st, &meters->rates[m]);

    } else if (ngx_http_ai_meter_is_window(m)) {
        ngx_http_ai_limit_keep(st, ngx_http_ai_meter_window(meters, m),
                               sizeof(ngx_http_ai_calendar_t));

    } else {
        ngx_http_ai_limit_keep(st, &meters->slots,
                               sizeof(ngx_http_ai_slots_t));
    }
}


/*
 * Ids are made by the gateway.  They are often counted, and the chains of
 * neighbours are in one cache line.
 */

static ngx_inline uint32_t
ngx_http_ai_limit_chain(ngx_http_ai_limit_store_t *st, u_char *id)
{
    uint64_t  n[2], h;

    ngx_memcpy(n, id, 16);

    h = (n[0] ^ st->seed[0]) + (n[1] >> 4);
    h *= 0x9e3779b97f4a7c15;

    return ((uint32_t) (h >> 32) & ~(uint32_t) 15) | (n[1] & 15);
}


/* the input of a reservation, also where no meter counts it */

static ngx_inline int64_t
ngx_http_ai_limit_input(ngx_http_ai_amounts_t *amounts)
{
    int64_t  input, tokens, output;

    input = ngx_http_ai_amount(amounts->v[NGX_HTTP_AI_METER_INPUT]);

    if (input) {
        return input;
    }

    tokens = ngx_max(amounts->v[NGX_HTTP_AI_METER_TOKENS],
                     amounts->v[NGX_HTTP_AI_METER_Q_TOKENS]);
    output = ngx_http_ai_amount(amounts->v[NGX_HTTP_AI_METER_OUTPUT]);

    return ngx_http_ai_amount(ngx_http_ai_amount(tokens) - output);
}


/* most keys are short, and not worth a call */

static ngx_inline ngx_uint_t
ngx_http_ai_limit_equal(u_char *a, u_char *b, size_t len)
{
    uint64_t  n[4];

    if (len < 8 || len > 16) {
        return ngx_memcmp(a, b, len) == 0;
    }

    ngx_memcpy(&n[0], a, 8);
    ngx_memcpy(&n[1], b, 8);
    ngx_memcpy(&n[2], a + len - 8, 8);
    ngx_memcpy(&n[3], b + len - 8, 8);

    return ((n[0] ^ n[1]) | (n[2] ^ n[3])) == 0;
}


/* is the key there? */

static ngx_inline ngx_uint_t
ngx_http_ai_limit_is(ngx_http_ai_limit_store_t *st, uint32_t i, ngx_str_t *key)
{
    ngx_http_ai_limit_key_t  *k;

    if (i == 0 || i > st->head.ktop) {
        return 0;
    }

    k = ngx_http_ai_limit_key(st, i);

    return k->link.used && k->link.len == key->len
           && ngx_http_ai_limit_equal(k->data, key->data, key->len);
}


/* puts back what was kept */
void ngx_http_ai_limit_undo(ngx_http_ai_limit_store_t *st);

uint64_t ngx_http_ai_limit_hash(uint64_t *seed, u_char *p, size_t len);

/* the clock of rates; peeked: "now" changes nothing */
int64_t ngx_http_ai_limit_time(ngx_http_ai_limit_store_t *st, int64_t now,
    ngx_uint_t peeked);

/* keys; add() wants the head kept */
uint32_t ngx_http_ai_limit_find(ngx_http_ai_limit_store_t *st, ngx_str_t *key,
    uint32_t hash);
ngx_int_t ngx_http_ai_limit_room(ngx_http_ai_limit_store_t *st, int64_t now);
uint32_t ngx_http_ai_limit_add(ngx_http_ai_limit_store_t *st, ngx_str_t *key,
    uint32_t hash, ngx_http_ai_meters_t *meters, int64_t now);
void ngx_http_ai_limit_touch(ngx_http_ai_limit_store_t *st, uint32_t i,
    int64_t now);

/* whatever the case; those of ngx_http_ai_limit_store.h try the usual one */
ngx_http_ai_limit_e ngx_http_ai_limit_reserve_any(
    ngx_http_ai_limit_store_t *st, ngx_str_t *key,
    ngx_http_ai_limit_ask_t *ask, ngx_http_ai_limit_t *limits,
    ngx_uint_t mask, ngx_http_ai_hold_t *hold,
    ngx_http_ai_limit_refusal_t *refusal);
ngx_http_ai_limit_e ngx_http_ai_limit_settle_any(
    ngx_http_ai_limit_store_t *st, uint32_t i, int64_t now,
    ngx_http_ai_amounts_t *actual);


/* does the order of use, to the second, want the key elsewhere? */

static ngx_inline ngx_uint_t
ngx_http_ai_limit_stale(ngx_http_ai_limit_store_t *st, uint32_t i,
    ngx_http_ai_limit_link_t *link, int64_t now)
{
    return st->head.newest != i && (uint32_t) now - link->moved >= 1000;
}


#endif /* _NGX_HTTP_AI_LIMIT_BLOCK_H_INCLUDED_ */
