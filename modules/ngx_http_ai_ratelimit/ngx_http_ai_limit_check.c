
/*
 * Copyright (C) nginx AI gateway authors
 */


/* is a ledger in order? */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_limit_block.h"


static const char *ngx_http_ai_limit_check_keys(ngx_http_ai_limit_store_t *st,
    uint64_t *sums);
static const char *ngx_http_ai_limit_check_holds(
    ngx_http_ai_limit_store_t *st, uint64_t *sums);


/*
 * Sums of holds are compared with those of keys without memory for them: each
 * is multiplied by a number that its key and meter give.
 */

static ngx_inline uint64_t
ngx_http_ai_limit_weight(uint64_t key, uint64_t m)
{
    uint64_t  n;

    n = (key << 8 | m) * 0x9e3779b97f4a7c15;
    n = (n ^ (n >> 29)) * 0xbf58476d1ce4e5b9;

    return n ^ (n >> 32);
}


const char *
ngx_http_ai_limit_check(ngx_http_ai_limit_store_t *st)
{
    uint64_t     sums[2];
    const char  *error;

    if (st->nundo) {
        return "a change is not finished";
    }

    if (st->head.ktop > st->nkeys || st->head.htop > st->nholds) {
        return "number of slots";
    }

    sums[0] = 0;
    sums[1] = 0;

    error = ngx_http_ai_limit_check_keys(st, sums);
    if (error) {
        return error;
    }

    error = ngx_http_ai_limit_check_holds(st, sums);
    if (error) {
        return error;
    }

    if (sums[0] || sums[1]) {
        return "sums of holds";
    }

    return NULL;
}


static const char *
ngx_http_ai_limit_check_keys(ngx_http_ai_limit_store_t *st, uint64_t *sums)
{
    uint32_t                  i, c, older;
    uint64_t                  n, used, held;
    ngx_uint_t                m;
    const char               *error;
    ngx_http_ai_limit_key_t  *k;

    used = 0;

    for (i = 1; i <= st->head.ktop; i++) {
        k = ngx_http_ai_limit_key(st, i);

        if (!k->link.used) {
            continue;
        }

        used++;

        if (k->link.len > st->key_max
            || k->link.hash != (uint32_t) ngx_http_ai_limit_hash(st->seed,
                                                    k->data, k->link.len))
        {
            return "hash of a key";
        }

        for (m = 0; m < NGX_HTTP_AI_METER_MAX; m++) {
            error = ngx_http_ai_meter_check(&k->meters, m);
            if (error) {
                return error;
            }

            held = ngx_http_ai_meter_is_rate(m) ? k->meters.rates[m].held
                   : ngx_http_ai_meter_is_window(m)
                   ? ngx_http_ai_meter_window(&k->meters, m)->held
                   : k->meters.slots.held;

            if (m != NGX_HTTP_AI_METER_REQUESTS) {
                sums[0] += held * ngx_http_ai_limit_weight(i, m);
            }
        }

        sums[1] += k->link.nholds * ngx_http_ai_limit_weight(i, m);
    }

    if (used != st->head.stats.keys) {
        return "number of keys";
    }

    n = 0;

    for (c = 0; c <= st->kmask; c++) {
        i = *ngx_http_ai_limit_kchain(st, c);

        for ( /* void */ ; i; i = k->link.next) {

            if (i > st->head.ktop) {
                return "chain of keys";
            }

            k = ngx_http_ai_limit_key(st, i);

            if (!k->link.used || (k->link.hash & st->kmask) != c
                || ++n > used)
            {
                return "chain of keys";
            }
        }
    }

    if (n != used) {
        return "key without chain";
    }

    n = 0;
    older = 0;

    for (i = st->head.oldest; i; i = k->link.newer) {

        if (i > st->head.ktop) {
            return "order of keys";
        }

        k = ngx_http_ai_limit_key(st, i);

        if (!k->link.used || k->link.older != older || ++n > used) {
            return "order of keys";
        }

        older = i;
    }

    if (n != used || st->head.newest != older) {
        return "order of keys";
    }

    for (i = st->head.kfree; i; i = k->link.next) {

        if (i > st->head.ktop) {
            return "free keys";
        }

        k = ngx_http_ai_limit_key(st, i);

        if (k->link.used || ++n > st->head.ktop) {
            return "free keys";
        }
    }

    return (n == st->head.ktop) ? NULL : "lost keys";
}


static const char *
ngx_http_ai_limit_check_holds(ngx_http_ai_limit_store_t *st, uint64_t *sums)
{
    uint32_t                   i, c, prev;
    uint64_t                   n, live, tombs;
    ngx_uint_t                 m;
    ngx_http_ai_limit_slot_t  *h;

    live = 0;
    tombs = 0;

    for (i = 1; i <= st->head.htop; i++) {
        h = ngx_http_ai_limit_slot(st, i);

        if (h->place.state == NGX_HTTP_AI_HOLD_TOMB) {
            tombs++;
            continue;
        }

        if (h->place.state == NGX_HTTP_AI_HOLD_FREE) {
            continue;
        }

        if (h->place.state != NGX_HTTP_AI_HOLD_LIVE) {
            return "state of a hold";
        }

        live++;

        if (h->key == 0 || h->key > st->head.ktop
            || !ngx_http_ai_limit_key(st, h->key)->link.used)
        {
            return "hold without key";
        }

        for (m = 0; m < NGX_HTTP_AI_METER_MAX; m++) {
            if ((h->place.mask & 1 << m) && m != NGX_HTTP_AI_METER_REQUESTS) {
                sums[0] -= h->amounts.v[m]
                           * ngx_http_ai_limit_weight(h->key, m);
            }
        }

        sums[1] -= ngx_http_ai_limit_weight(h->key, m);
    }

    if (live != st->head.nlive || tombs != st->head.ntombs) {
        return "number of holds";
    }

    n = 0;

    for (c = 0; c <= st->hmask; c++) {
        prev = 0;
        i = *ngx_http_ai_limit_hchain(st, c);

        for ( /* void */ ; i; i = h->place.next) {

            if (i > st->head.htop) {
                return "chain of holds";
            }

            h = ngx_http_ai_limit_slot(st, i);

            if (h->place.state != NGX_HTTP_AI_HOLD_LIVE
                || (h->chain & st->hmask) != c || h->place.prev != prev
                || ++n > live)
            {
                return "chain of holds";
            }

            prev = i;
        }
    }

    if (n != live) {
        return "hold without chain";
    }

    prev = 0;

    for (i = st->head.tomb_first; i; i = h->place.next) {

        if (i > st->head.htop) {
            return "tombstones";
        }

        h = ngx_http_ai_limit_slot(st, i);

        if (h->place.state != NGX_HTTP_AI_HOLD_TOMB
            || h->place.prev != prev || ++n > live + tombs)
        {
            return "tombstones";
        }

        prev = i;
    }

    if (n != live + tombs || st->head.tomb_last != prev) {
        return "tombstones";
    }

    for (i = st->head.hfree; i; i = h->place.next) {

        if (i > st->head.htop) {
            return "free holds";
        }

        h = ngx_http_ai_limit_slot(st, i);

        if (h->place.state != NGX_HTTP_AI_HOLD_FREE || ++n > st->head.htop) {
            return "free holds";
        }
    }

    return (n == st->head.htop) ? NULL : "lost holds";
}
