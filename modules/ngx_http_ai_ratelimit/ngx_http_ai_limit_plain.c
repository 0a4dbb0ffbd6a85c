
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Nearly all reservations and their ends are plain: the key is known, its
 * limits are those that it has, there is enough, and no other hold is in the
 * chain.  These are made in one pass over the meters.  What turns out not to
 * be plain is undone, and done by ngx_http_ai_limit_hold.c.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_limit_block.h"


/* links and slots of a key, as far as holds change them */
#define NGX_HTTP_AI_LIMIT_COUNT_SIZE                                          \
    (sizeof(ngx_http_ai_limit_link_t)                                         \
     - offsetof(ngx_http_ai_limit_link_t, nholds)                             \
     + sizeof(ngx_http_ai_slots_t))


static ngx_int_t ngx_http_ai_limit_reserve_plain(
    ngx_http_ai_limit_store_t *st, ngx_str_t *key,
    ngx_http_ai_limit_ask_t *ask, ngx_http_ai_limit_t *limits,
    ngx_uint_t mask, ngx_http_ai_hold_t *hold,
    ngx_http_ai_limit_state_t *states);
static ngx_int_t ngx_http_ai_limit_settle_plain(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_limit_slot_t *h, uint32_t i, int64_t now,
    ngx_http_ai_amounts_t *actual);


/*
 * As ngx_http_ai_limit_keep(), of whole words, but the notes count only from
 * ngx_http_ai_limit_arm() on.  There are fewer than there is room for.
 */

static ngx_inline u_char *
ngx_http_ai_limit_note(ngx_http_ai_limit_store_t *st, u_char *to, void *p,
    size_t size)
{
    uint64_t  entry;

    entry = (uint64_t) ((u_char *) p - (u_char *) st) << 16 | size;

    ngx_memcpy(to, p, size);
    ngx_memcpy(to + ngx_align(size, 8), &entry, sizeof(uint64_t));

    return to + ngx_align(size, 8) + sizeof(uint64_t);
}


static ngx_inline u_char *
ngx_http_ai_limit_note_rate(ngx_http_ai_limit_store_t *st, u_char *to,
    ngx_http_ai_rate_t *r)
{
    to = ngx_http_ai_limit_note(st, to, r,
                                offsetof(ngx_http_ai_rate_t, limit));

    if (r->nlows) {
        to = ngx_http_ai_limit_note(st, to, &r->seq,
                                    NGX_HTTP_AI_LIMIT_LOWS_SIZE);
    }

    return to;
}


static ngx_inline void
ngx_http_ai_limit_arm(ngx_http_ai_limit_store_t *st, u_char *to)
{
    ngx_http_ai_limit_barrier();
    st->nundo = to - st->undo;
    ngx_http_ai_limit_barrier();
}


/* what changes with each hold; the first notes of a change */

static ngx_inline u_char *
ngx_http_ai_limit_note_hold(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_limit_key_t *k, ngx_http_ai_limit_slot_t *h, uint32_t *head)
{
    u_char  *to;

    to = ngx_http_ai_limit_note(st, st->undo, &st->head.hfree,
                                NGX_HTTP_AI_LIMIT_HOLDS_SIZE);
    to = ngx_http_ai_limit_note(st, to, &k->link.nholds,
                                NGX_HTTP_AI_LIMIT_COUNT_SIZE);
    to = ngx_http_ai_limit_note(st, to, &h->place,
                                sizeof(ngx_http_ai_limit_place_t));

    return ngx_http_ai_limit_note(st, to, head, sizeof(uint32_t));
}


/* the time of rates, where no clock was set */

static ngx_inline int64_t
ngx_http_ai_limit_clock(ngx_http_ai_limit_store_t *st, int64_t now)
{
    if (now + st->shift < st->time || st->behind) {
        return ngx_http_ai_limit_time(st, now, 0);
    }

    st->time = now + st->shift;

    return st->time;
}


void
ngx_http_ai_limit_warm(ngx_http_ai_limit_store_t *st, uint32_t key,
    uint32_t hold)
{
    ngx_http_ai_limit_key_t   *k;
    ngx_http_ai_limit_slot_t  *h;

    ngx_http_ai_limit_fetch(&st->nundo);
    ngx_http_ai_limit_fetch(&st->head.hfree);
    ngx_http_ai_limit_fetch(st->undo);
    ngx_http_ai_limit_fetch(st->undo + 64);
    ngx_http_ai_limit_fetch(st->undo + 128);

    if (key) {
        k = ngx_http_ai_limit_key(st, key);

        ngx_http_ai_limit_fetch(k);
        ngx_http_ai_limit_fetch(&k->meters.rates[0]);
        ngx_http_ai_limit_fetch(&k->meters.rates[1]);
        ngx_http_ai_limit_fetch(k->data);
    }

    h = ngx_http_ai_limit_slot(st, hold ? hold : st->head.hfree);

    ngx_http_ai_limit_fetch(h);
    ngx_http_ai_limit_fetch(&h->input);
}


ngx_http_ai_limit_e
ngx_http_ai_limit_reserve_of(ngx_http_ai_limit_store_t *st, ngx_str_t *key,
    ngx_http_ai_limit_ask_t *ask, ngx_http_ai_limit_t *limits,
    ngx_uint_t mask, ngx_http_ai_hold_t *hold,
    ngx_http_ai_limit_refusal_t *refusal, ngx_http_ai_limit_state_t *states)
{
    ngx_http_ai_limit_e  rc;

    if (ngx_http_ai_limit_reserve_plain(st, key, ask, limits, mask, hold,
                                        states)
        == NGX_OK)
    {
        return NGX_HTTP_AI_LIMIT_OK;
    }

    rc = ngx_http_ai_limit_reserve_any(st, key, ask, limits, mask, hold,
                                       refusal);

    if (hold->index) {
        ngx_http_ai_limit_left(st, hold, ask->now,
                               mask & ask->show & NGX_HTTP_AI_HOLD_METERS,
                               states);
    }

    return rc;
}


static ngx_inline ngx_int_t
ngx_http_ai_limit_reserve_plain(ngx_http_ai_limit_store_t *st, ngx_str_t *key,
    ngx_http_ai_limit_ask_t *ask, ngx_http_ai_limit_t *limits,
    ngx_uint_t mask, ngx_http_ai_hold_t *hold,
    ngx_http_ai_limit_state_t *states)
{
    u_char                    *to;
    int64_t                    time, now, amount, used, left, seq;
    uint32_t                   i, k, chain, serial, *head;
    ngx_uint_t                 m, bits, bound, alone, show;
    ngx_http_ai_rate_t        *r;
    ngx_http_ai_slots_t       *slots;
    ngx_http_ai_amounts_t     *amounts;
    ngx_http_ai_calendar_t    *w;
    ngx_http_ai_limit_key_t   *kp;
    ngx_http_ai_limit_slot_t  *h;

    now = ask->now;
    k = hold->key;
    i = st->head.hfree;

    if (!ngx_http_ai_limit_is(st, k, key)) {
        k = ngx_http_ai_limit_find(st, key,
                                   ngx_http_ai_limit_hash(st->seed, key->data,
                                                          key->len));
        hold->key = k;
    }

    if (i == 0 || k == 0) {
        return NGX_DECLINED;
    }

    kp = ngx_http_ai_limit_key(st, k);
    h = ngx_http_ai_limit_slot(st, i);
    serial = h->place.serial + 1;

    chain = ngx_http_ai_limit_chain(st, ask->id);
    head = ngx_http_ai_limit_hchain(st, chain);

    if (*head || (serial & 0xffff) == 0) {
        return NGX_DECLINED;
    }

    bound = mask & NGX_HTTP_AI_LIMIT_BOUND;
    mask &= NGX_HTTP_AI_HOLD_METERS;

    show = mask & ask->show;
    amounts = ask->amounts;
    slots = &kp->meters.slots;

    to = ngx_http_ai_limit_note_hold(st, kp, h, head);
    time = ngx_http_ai_limit_clock(st, now);

    ngx_http_ai_limit_arm(st, to);

    if (ngx_http_ai_limit_stale(st, k, &kp->link, now)) {
        ngx_http_ai_limit_touch(st, k, now);
        to = st->undo + st->nundo;
    }

    alone = (kp->link.nholds == 0);
    kp->link.nholds++;
    seq = ++kp->link.seq;

    for (m = 0, bits = mask & NGX_HTTP_AI_LIMIT_RATE_BITS;
         bits;
         m++, bits >>= 1)
    {
        if (!(bits & 1)) {
            continue;
        }

        r = &kp->meters.rates[m];

        if (r->limit <= 0 || !ngx_http_ai_rate_same(r, &limits[m])) {
            goto other;
        }

        to = ngx_http_ai_limit_note_rate(st, to, r);
        ngx_http_ai_limit_arm(st, to);

        ngx_http_ai_rate_pass(r, time);

        amount = amounts->v[m];
        used = r->used;
        left = r->burst - used;

        if (amount < 0 || amount > left || r->held > NGX_HTTP_AI_LIMIT_MAX
            || (bound && m != NGX_HTTP_AI_METER_REQUESTS
                && amount > left / NGX_HTTP_AI_LIMIT_AMPLE))
        {
            goto other;
        }

        if (alone) {
            r->nlows = 0;
            r->base = seq;

        } else if (amount) {
            ngx_http_ai_rate_note(r, seq);
        }

        if (m != NGX_HTTP_AI_METER_REQUESTS) {
            r->held += amount;
        }

        used += amount;

        r->used = used;
        h->amounts.v[m] = amount;

        if (show & (ngx_uint_t) 1 << m) {
            states[m].limit = r->limit;
            states[m].used = used;
            states[m].held = r->frac;
            states[m].remaining = left - amount;
            states[m].reset = -(int64_t) r->period;
        }
    }

    m = NGX_HTTP_AI_METER_CONCURRENT;

    if (mask & (ngx_uint_t) 1 << m) {
        amount = amounts->v[m];
        left = limits[m].limit - slots->held;

        if (amount < 0 || amount > left || left > NGX_HTTP_AI_LIMIT_MAX) {
            goto other;
        }

        slots->limit = limits[m].limit;
        slots->held += amount;
        h->amounts.v[m] = amount;

        if (show & (ngx_uint_t) 1 << m) {
            ngx_http_ai_meter_state(&kp->meters, m, now, &states[m]);
        }
    }

    for (m++, bits = mask >> m; bits; m++, bits >>= 1) {

        if (!(bits & 1)) {
            continue;
        }

        w = ngx_http_ai_meter_window(&kp->meters, m);

        amount = amounts->v[m];
        left = w->limit - w->used - w->held;

        if (amount < 0 || amount > left || now >= w->end
            || w->used > w->most || !ngx_http_ai_calendar_same(w, &limits[m]))
        {
            goto other;
        }

        to = ngx_http_ai_limit_note(st, to, &w->held, sizeof(int64_t));
        ngx_http_ai_limit_arm(st, to);

        w->held += amount;
        h->amounts.v[m] = amount;

        if (show & (ngx_uint_t) 1 << m) {
            states[m].limit = w->limit;
            states[m].used = w->used;
            states[m].held = w->held;
            states[m].remaining = left - amount;
            states[m].reset = w->end - now;
        }
    }

    /* the rest of a free slot is nobody's: nothing of it is kept */

    h->key = k;
    h->chain = chain;
    ngx_memcpy(h->id, ask->id, 16);
    h->owner = ask->owner;
    h->deadline = ask->deadline - st->jumped;
    h->seq = seq;
    h->input = ngx_http_ai_limit_input(amounts);

    st->head.hfree = h->place.next;
    st->head.nlive++;
    st->head.stats.reserved++;

    h->place.state = NGX_HTTP_AI_HOLD_LIVE;
    h->place.mask = (uint16_t) mask;
    h->place.serial = serial;
    h->place.next = 0;
    h->place.prev = 0;

    *head = i;

    hold->index = i;
    hold->serial = serial;
    hold->cut = 0;

    ngx_http_ai_limit_commit(st);

    return NGX_OK;

other:

    ngx_http_ai_limit_undo(st);

    return NGX_DECLINED;
}


ngx_http_ai_limit_e
ngx_http_ai_limit_settle(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_hold_t *hold, u_char *id, int64_t now,
    ngx_http_ai_amounts_t *actual)
{
    ngx_http_ai_limit_slot_t  *h;

    if (hold->index == 0 || hold->index > st->head.htop) {
        return NGX_HTTP_AI_LIMIT_GONE;
    }

    h = ngx_http_ai_limit_slot(st, hold->index);

    if (h->place.serial != hold->serial
        || h->place.state == NGX_HTTP_AI_HOLD_FREE
        || ngx_memcmp(h->id, id, 16) != 0)
    {
        return NGX_HTTP_AI_LIMIT_GONE;
    }

    if (h->place.state == NGX_HTTP_AI_HOLD_LIVE
        && ngx_http_ai_limit_settle_plain(st, h, hold->index, now, actual)
           == NGX_OK)
    {
        return NGX_HTTP_AI_LIMIT_OK;
    }

    return ngx_http_ai_limit_settle_any(st, hold->index, now, actual);
}


static ngx_inline ngx_int_t
ngx_http_ai_limit_settle_plain(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_limit_slot_t *h, uint32_t i, int64_t now,
    ngx_http_ai_amounts_t *actual)
{
    u_char                   *to;
    int64_t                   time, amount, lack, seq;
    uint32_t                 *head;
    ngx_uint_t                m, mask, bits;
    ngx_http_ai_rate_t       *r;
    ngx_http_ai_calendar_t   *w;
    ngx_http_ai_limit_key_t  *k;

    mask = h->place.mask;

    if (h->place.next || h->place.prev || (mask & NGX_HTTP_AI_HOLD_TOPPED)) {
        return NGX_DECLINED;
    }

    k = ngx_http_ai_limit_key(st, h->key);
    head = ngx_http_ai_limit_hchain(st, h->chain);

    to = ngx_http_ai_limit_note_hold(st, k, h, head);
    time = ngx_http_ai_limit_clock(st, now);

    ngx_http_ai_limit_arm(st, to);

    k->link.nholds--;
    seq = ++k->link.seq;

    for (m = 0, bits = mask & NGX_HTTP_AI_LIMIT_RATE_BITS;
         bits;
         m++, bits >>= 1)
    {
        if (!(bits & 1)) {
            continue;
        }

        amount = h->amounts.v[m];

        if (m == NGX_HTTP_AI_METER_REQUESTS
            && (actual->v[m] > 0 || amount == 0))
        {
            /* it was charged when it came */
            continue;
        }

        r = &k->meters.rates[m];

        to = ngx_http_ai_limit_note_rate(st, to, r);
        ngx_http_ai_limit_arm(st, to);

        ngx_http_ai_rate_pass(r, time);

        r->held = ngx_http_ai_difference(r->held, amount);

        lack = amount - ngx_http_ai_amount(actual->v[m]);

        if (lack <= 0) {
            ngx_http_ai_rate_charge(r, -lack, seq);

        } else if (r->nlows || lack < r->used) {
            ngx_http_ai_rate_refund(r, lack, h->seq);

        } else if (h->seq >= r->base) {
            r->used = 0;
            r->frac = 0;
        }
    }

    m = NGX_HTTP_AI_METER_CONCURRENT;

    if (mask & (ngx_uint_t) 1 << m) {
        ngx_http_ai_slots_settle(&k->meters.slots, h->amounts.v[m]);
    }

    for (m++, bits = mask >> m; bits; m++, bits >>= 1) {

        if (!(bits & 1)) {
            continue;
        }

        w = ngx_http_ai_meter_window(&k->meters, m);

        if (now >= w->end) {
            ngx_http_ai_limit_undo(st);
            return NGX_DECLINED;
        }

        to = ngx_http_ai_limit_note(st, to, &w->used, 2 * sizeof(int64_t));
        ngx_http_ai_limit_arm(st, to);

        w->held = ngx_http_ai_difference(w->held, h->amounts.v[m]);
        w->used = ngx_http_ai_sum(w->used, ngx_http_ai_amount(actual->v[m]));
    }

    *head = 0;

    h->place.state = NGX_HTTP_AI_HOLD_FREE;
    h->place.next = st->head.hfree;

    st->head.hfree = i;
    st->head.nlive--;
    st->head.stats.settled++;

    ngx_http_ai_limit_commit(st);

    return NGX_OK;
}
