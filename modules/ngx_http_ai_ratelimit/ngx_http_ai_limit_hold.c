
/*
 * Copyright (C) nginx AI gateway authors
 */


/* holds: reserve, top up, settle, and what becomes of those of the dead */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_limit_block.h"


/* ms */
#define NGX_HTTP_AI_LIMIT_TOMB   900000
#define NGX_HTTP_AI_LIMIT_JUMP   60000

#define NGX_HTTP_AI_LIMIT_TOMBS  1024

#define NGX_HTTP_AI_LIMIT_SEEN   (((uint64_t) 1 << 48) - 1)


static ngx_int_t ngx_http_ai_limit_fit(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_meters_t *meters, ngx_uint_t known, int64_t time,
    ngx_http_ai_limit_t *limits, ngx_uint_t mask, ngx_uint_t bound,
    ngx_http_ai_amounts_t *amounts, ngx_http_ai_amounts_t *taken,
    uint32_t *cut);
static void ngx_http_ai_limit_hold(ngx_http_ai_limit_link_t *link,
    ngx_http_ai_meters_t *meters, ngx_uint_t mask,
    ngx_http_ai_amounts_t *taken);
static ngx_int_t ngx_http_ai_limit_allowed(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_meters_t *meters, ngx_http_ai_limit_t *limits,
    ngx_http_ai_amounts_t *amounts, ngx_uint_t whole, int64_t now,
    ngx_http_ai_limit_refusal_t *refusal);
static uint32_t ngx_http_ai_limit_running(ngx_http_ai_limit_store_t *st,
    uint32_t key, u_char *id, uint32_t hash);
static ngx_int_t ngx_http_ai_limit_space(ngx_http_ai_limit_store_t *st);
static uint32_t ngx_http_ai_limit_alloc(ngx_http_ai_limit_store_t *st);
static void ngx_http_ai_limit_release(ngx_http_ai_limit_store_t *st,
    uint32_t i);
static void ngx_http_ai_limit_unchain(ngx_http_ai_limit_store_t *st,
    uint32_t i);
static void ngx_http_ai_limit_bury(ngx_http_ai_limit_store_t *st, uint32_t i,
    int64_t time);
static void ngx_http_ai_limit_exhume(ngx_http_ai_limit_store_t *st,
    uint32_t i);
static void ngx_http_ai_limit_lapse(ngx_http_ai_limit_store_t *st,
    uint32_t i);
static ngx_http_ai_limit_e ngx_http_ai_limit_correct(
    ngx_http_ai_limit_store_t *st, uint32_t i, int64_t now,
    ngx_http_ai_amounts_t *actual);
static void ngx_http_ai_limit_charge(ngx_http_ai_limit_store_t *st,
    uint32_t i, int64_t now, ngx_http_ai_amounts_t *actual);
static void ngx_http_ai_limit_expire(ngx_http_ai_limit_store_t *st,
    uint32_t i, int64_t now);


static ngx_inline void
ngx_http_ai_limit_taken(ngx_http_ai_limit_slot_t *h, ngx_uint_t m,
    ngx_http_ai_taken_t *taken)
{
    taken->amount = h->amounts.v[m];
    taken->seq = h->seq;
    taken->last = 0;
    taken->last_seq = 0;

    if (ngx_http_ai_meter_is_rate(m)
        && (h->place.mask & NGX_HTTP_AI_HOLD_TOPPED))
    {
        taken->last = h->last[m];
        taken->last_seq = h->last_seq;
    }
}


ngx_http_ai_limit_e
ngx_http_ai_limit_reserve(ngx_http_ai_limit_store_t *st, ngx_str_t *key,
    u_char *id, uint64_t owner, int64_t now, int64_t deadline,
    ngx_http_ai_limit_t *limits, ngx_http_ai_amounts_t *amounts,
    ngx_http_ai_hold_t *hold, ngx_http_ai_limit_refusal_t *refusal)
{
    ngx_uint_t               m, mask;
    ngx_http_ai_limit_ask_t  ask;

    mask = 0;

    for (m = 0; m < NGX_HTTP_AI_METER_MAX; m++) {
        mask |= (ngx_uint_t) (limits[m].limit >= 0) << m;
    }

    ask.id = id;
    ask.owner = owner;
    ask.now = now;
    ask.deadline = deadline;
    ask.amounts = amounts;
    ask.show = 0;

    return ngx_http_ai_limit_reserve_of(st, key, &ask, limits, mask, hold,
                                        refusal, NULL);
}


ngx_http_ai_limit_e
ngx_http_ai_limit_reserve_any(ngx_http_ai_limit_store_t *st, ngx_str_t *key,
    ngx_http_ai_limit_ask_t *ask, ngx_http_ai_limit_t *limits,
    ngx_uint_t mask, ngx_http_ai_hold_t *hold,
    ngx_http_ai_limit_refusal_t *refusal)
{
    int64_t                    time, now;
    uint32_t                   i, k, hash, chain, *head;
    ngx_int_t                  rc;
    ngx_uint_t                 m, bound;
    ngx_http_ai_meters_t      *meters, fresh;
    ngx_http_ai_amounts_t     *amounts, taken;
    ngx_http_ai_limit_key_t   *kp;
    ngx_http_ai_limit_slot_t  *h;

    now = ask->now;
    amounts = ask->amounts;

    hold->index = 0;
    hold->serial = 0;
    hold->cut = 0;

    bound = mask & NGX_HTTP_AI_LIMIT_BOUND;
    mask &= ~NGX_HTTP_AI_LIMIT_BOUND;

    time = ngx_http_ai_limit_time(st, now, 0);

    hash = 0;
    k = hold->key;

    if (!ngx_http_ai_limit_is(st, k, key)) {
        hash = ngx_http_ai_limit_hash(st->seed, key->data, key->len);
        k = ngx_http_ai_limit_find(st, key, hash);
        hold->key = k;
    }

    chain = ngx_http_ai_limit_chain(st, ask->id);
    i = k ? ngx_http_ai_limit_running(st, k, ask->id, chain) : 0;

    if (i) {
        hold->index = i;
        hold->serial = ngx_http_ai_limit_slot(st, i)->place.serial;

        return NGX_HTTP_AI_LIMIT_REPEATED;
    }

    if (k) {
        kp = ngx_http_ai_limit_key(st, k);
        meters = &kp->meters;

        ngx_http_ai_limit_keep_holds(st);
        ngx_http_ai_limit_keep_count(st, &kp->link);

        if (ngx_http_ai_limit_stale(st, k, &kp->link, now)) {
            ngx_http_ai_limit_touch(st, k, now);
        }

    } else {
        kp = NULL;
        meters = &fresh;

        ngx_http_ai_meters_init(meters);
    }

    ngx_memzero(&taken, sizeof(ngx_http_ai_amounts_t));

    rc = ngx_http_ai_limit_fit(st, meters, k != 0, time, limits, mask, bound,
                               amounts, &taken, &hold->cut);

    if (rc == NGX_AGAIN) {
        ngx_http_ai_limit_commit(st);
        return NGX_HTTP_AI_LIMIT_SCARCE;
    }

    if (rc != NGX_OK) {
        (void) ngx_http_ai_limit_allowed(st, meters, limits, &taken, 1, now,
                                         refusal);

        ngx_http_ai_limit_keep(st, &st->head.stats.refused, sizeof(uint64_t));
        st->head.stats.refused++;
        ngx_http_ai_limit_commit(st);

        return NGX_HTTP_AI_LIMIT_REFUSED;
    }

    /* what was brought up to date may stay so */

    if (!st->head.hfree && st->head.htop == st->nholds) {
        ngx_http_ai_limit_commit(st);
    }

    if (key->len > st->key_max
        || ngx_http_ai_limit_space(st) != NGX_OK
        || (k == 0 && ngx_http_ai_limit_room(st, now) != NGX_OK))
    {
        ngx_http_ai_limit_keep(st, &st->head.stats.full, sizeof(uint64_t));
        st->head.stats.full++;
        ngx_http_ai_limit_commit(st);

        return NGX_HTTP_AI_LIMIT_FULL;
    }

    if (k == 0 || st->nundo == 0) {
        ngx_http_ai_limit_keep(st, &st->head, sizeof(st->head));

        if (k == 0) {
            k = ngx_http_ai_limit_add(st, key, hash, meters, now);
            kp = ngx_http_ai_limit_key(st, k);
            hold->key = k;

        } else {
            ngx_http_ai_limit_keep(st, &kp->link, sizeof(kp->link));

            for (m = 0; mask >> m; m++) {
                if (mask & ((ngx_uint_t) 1 << m)) {
                    ngx_http_ai_limit_keep_meter(st, &kp->meters, m);
                }
            }
        }

        meters = &kp->meters;
    }

    i = ngx_http_ai_limit_alloc(st);
    h = ngx_http_ai_limit_slot(st, i);

    /* the rest of a free slot is nobody's: nothing of it is kept */

    ngx_http_ai_limit_hold(&kp->link, meters, mask, &taken);

    h->key = k;
    h->chain = chain;
    h->owner = ask->owner;
    h->deadline = ask->deadline - st->jumped;
    h->seq = kp->link.seq;
    h->input = ngx_http_ai_limit_input(amounts);
    h->amounts = taken;

    ngx_memcpy(h->id, ask->id, 16);

    head = ngx_http_ai_limit_hchain(st, chain);
    ngx_http_ai_limit_keep(st, head, sizeof(uint32_t));

    if (*head) {
        ngx_http_ai_limit_keep(st, &ngx_http_ai_limit_slot(st, *head)->place,
                               sizeof(ngx_http_ai_limit_place_t));
        ngx_http_ai_limit_slot(st, *head)->place.prev = i;
    }

    h->place.prev = 0;
    h->place.next = *head;
    *head = i;

    h->place.state = NGX_HTTP_AI_HOLD_LIVE;
    h->place.mask = (uint16_t) mask;
    st->head.nlive++;
    st->head.stats.reserved++;

    hold->index = i;
    hold->serial = h->place.serial;

    ngx_http_ai_limit_commit(st);

    return NGX_HTTP_AI_LIMIT_OK;
}


/* NGX_OK: all of it may be taken; NGX_AGAIN: it is a bound, too large */

static ngx_inline ngx_int_t
ngx_http_ai_limit_fit(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_meters_t *meters, ngx_uint_t known, int64_t time,
    ngx_http_ai_limit_t *limits, ngx_uint_t mask, ngx_uint_t bound,
    ngx_http_ai_amounts_t *amounts, ngx_http_ai_amounts_t *taken,
    uint32_t *cut)
{
    int64_t               amount, fits;
    ngx_int_t             rc;
    ngx_uint_t            m, bits, given, scarce;
    ngx_http_ai_rate_t   *r;
    ngx_http_ai_slots_t  *slots;

    rc = NGX_OK;
    scarce = 0;

    for (m = 0, bits = mask & NGX_HTTP_AI_LIMIT_RATE_BITS;
         bits;
         m++, bits >>= 1)
    {
        if (!(bits & 1)) {
            continue;
        }

        r = &meters->rates[m];
        given = !ngx_http_ai_rate_same(r, &limits[m]);

        if (known) {
            ngx_http_ai_limit_keep_rate(st, r);

            if (given) {
                ngx_http_ai_limit_keep_given(st, r);
            }
        }

        /* what came back by now did so at the old speed */

        ngx_http_ai_rate_pass(r, time);

        if (given) {
            ngx_http_ai_rate_adopt(r, &limits[m], time);
        }

        amount = ngx_http_ai_amount(amounts->v[m]);

        if (bound && m != NGX_HTTP_AI_METER_REQUESTS
            && amount > (r->burst - r->used) / NGX_HTTP_AI_LIMIT_AMPLE)
        {
            scarce = 1;
        }

        fits = ngx_http_ai_fits(r->limit, r->burst, r->used, amount, 1);

        if (fits < 0) {
            rc = NGX_DECLINED;
            fits = amount;
        }

        *cut |= (fits < amount);
        taken->v[m] = fits;
    }

    m = NGX_HTTP_AI_METER_CONCURRENT;
    bits = mask >> m;

    if (bits & 1) {
        slots = &meters->slots;

        if (known) {
            ngx_http_ai_limit_keep(st, slots, sizeof(ngx_http_ai_slots_t));
        }

        slots->limit = ngx_http_ai_amount(limits[m].limit);

        amount = ngx_http_ai_amount(amounts->v[m]);
        fits = ngx_http_ai_fits(slots->limit, slots->limit, slots->held,
                                amount, 1);

        if (fits < 0) {
            rc = NGX_DECLINED;
            fits = amount;
        }

        *cut |= (fits < amount);
        taken->v[m] = fits;
    }

    for (m++, bits >>= 1; bits; m++, bits >>= 1) {

        if (!(bits & 1)) {
            continue;
        }

        if (known) {
            ngx_http_ai_limit_keep_meter(st, meters, m);
        }

        ngx_http_ai_meter_advance(meters, m, &limits[m], time);

        amount = ngx_http_ai_amount(amounts->v[m]);
        fits = ngx_http_ai_meter_fits(meters, m, amount, 1);

        if (fits < 0) {
            rc = NGX_DECLINED;
            fits = amount;
        }

        *cut |= (fits < amount);
        taken->v[m] = fits;
    }

    return scarce ? NGX_AGAIN : rc;
}


static ngx_inline void
ngx_http_ai_limit_hold(ngx_http_ai_limit_link_t *link,
    ngx_http_ai_meters_t *meters, ngx_uint_t mask,
    ngx_http_ai_amounts_t *taken)
{
    int64_t     seq;
    ngx_uint_t  m, bits, alone;

    alone = (link->nholds == 0);
    seq = ++link->seq;
    link->nholds++;

    for (m = 0, bits = mask & NGX_HTTP_AI_LIMIT_RATE_BITS;
         bits;
         m++, bits >>= 1)
    {
        if (bits & 1) {
            ngx_http_ai_rate_hold(meters, m, taken->v[m], seq, alone);
        }
    }

    m = NGX_HTTP_AI_METER_CONCURRENT;
    bits = mask >> m;

    if (bits & 1) {
        meters->slots.held = ngx_http_ai_sum(meters->slots.held, taken->v[m]);
    }

    for (m++, bits >>= 1; bits; m++, bits >>= 1) {
        if (bits & 1) {
            ngx_http_ai_meter_hold(meters, m, taken->v[m], seq, alone);
        }
    }
}


ngx_http_ai_limit_e
ngx_http_ai_limit_topup(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_hold_t *hold, int64_t now, int64_t deadline,
    ngx_http_ai_limit_t *limits, ngx_http_ai_amounts_t *amounts,
    ngx_http_ai_limit_refusal_t *refusal)
{
    int64_t                    time;
    ngx_int_t                  rc;
    ngx_uint_t                 m;
    ngx_http_ai_meters_t      *meters;
    ngx_http_ai_amounts_t      taken;
    ngx_http_ai_limit_key_t   *k;
    ngx_http_ai_limit_slot_t  *h;

    if (hold->index == 0 || hold->index > st->head.htop) {
        return NGX_HTTP_AI_LIMIT_GONE;
    }

    h = ngx_http_ai_limit_slot(st, hold->index);

    if (h->place.serial != hold->serial
        || h->place.state != NGX_HTTP_AI_HOLD_LIVE)
    {
        return NGX_HTTP_AI_LIMIT_GONE;
    }

    time = ngx_http_ai_limit_time(st, now, 0);

    k = ngx_http_ai_limit_key(st, h->key);
    meters = &k->meters;

    ngx_http_ai_limit_keep(st, &k->link, sizeof(k->link));
    ngx_http_ai_limit_keep(st, h, offsetof(ngx_http_ai_limit_slot_t, output));

    for (m = 0; m < NGX_HTTP_AI_METER_MAX; m++) {
        taken.v[m] = 0;

        if (limits[m].limit >= 0) {

            if (!(h->place.mask & 1 << m)) {
                h->amounts.v[m] = 0;
            }

            taken.v[m] = ngx_http_ai_amount(amounts->v[m]);
            taken.v[m] = ngx_min(taken.v[m],
                                 NGX_HTTP_AI_LIMIT_MAX - h->amounts.v[m]);

            ngx_http_ai_limit_keep_meter(st, meters, m);
            ngx_http_ai_meter_advance(meters, m, &limits[m], time);
        }
    }

    /* who asks lives */

    h->deadline = deadline - st->jumped;

    rc = ngx_http_ai_limit_allowed(st, meters, limits, &taken, 0, now,
                                   refusal);

    if (rc == NGX_OK) {
        k->link.seq++;

        for (m = 0; m < NGX_HTTP_AI_METER_MAX; m++) {
            if (limits[m].limit >= 0) {
                h->place.mask |= 1 << m;

                if (taken.v[m] == 0) {
                    continue;
                }

                if (!(h->place.mask & NGX_HTTP_AI_HOLD_TOPPED)
                    || h->last_seq != k->link.seq)
                {
                    h->place.mask |= NGX_HTTP_AI_HOLD_TOPPED;
                    h->last_seq = k->link.seq;
                    ngx_memzero(h->last, sizeof(h->last));
                }

                if (ngx_http_ai_meter_is_rate(m)) {
                    h->last[m] = taken.v[m];
                }

                h->amounts.v[m] += taken.v[m];
                ngx_http_ai_meter_hold(meters, m, taken.v[m], k->link.seq, 0);
            }
        }
    }

    ngx_http_ai_limit_commit(st);

    return (rc == NGX_OK) ? NGX_HTTP_AI_LIMIT_OK : NGX_HTTP_AI_LIMIT_REFUSED;
}


/*
 * No lock: a slot that has another hold by now takes no notice of what has
 * another serial.
 */

void
ngx_http_ai_limit_seen(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_hold_t *hold, int64_t output, int64_t money)
{
    uint64_t                   tag;
    ngx_http_ai_limit_slot_t  *h;

    if (hold->index == 0 || hold->index > st->nholds) {
        return;
    }

    h = ngx_http_ai_limit_slot(st, hold->index);

    if (*(volatile uint32_t *) &h->place.serial != hold->serial) {
        return;
    }

    tag = (uint64_t) (hold->serial & 0xffff) << 48;

    *(volatile uint64_t *) &h->output =
        tag | ngx_min((uint64_t) ngx_http_ai_amount(output),
                      NGX_HTTP_AI_LIMIT_SEEN);
    *(volatile uint64_t *) &h->money =
        tag | ngx_min((uint64_t) ngx_http_ai_amount(money),
                      NGX_HTTP_AI_LIMIT_SEEN);
}


ngx_http_ai_limit_e
ngx_http_ai_limit_settle_any(ngx_http_ai_limit_store_t *st, uint32_t i,
    int64_t now, ngx_http_ai_amounts_t *actual)
{
    ngx_http_ai_amounts_t      amounts;
    ngx_http_ai_limit_slot_t  *h;

    h = ngx_http_ai_limit_slot(st, i);
    amounts = *actual;

    if (amounts.v[NGX_HTTP_AI_METER_REQUESTS] > 0) {
        amounts.v[NGX_HTTP_AI_METER_REQUESTS] =
            h->amounts.v[NGX_HTTP_AI_METER_REQUESTS];
    }

    if (h->place.state == NGX_HTTP_AI_HOLD_TOMB) {
        return ngx_http_ai_limit_correct(st, i, now, &amounts);
    }

    ngx_http_ai_limit_keep_holds(st);

    ngx_http_ai_limit_charge(st, i, now, &amounts);
    ngx_http_ai_limit_unchain(st, i);
    ngx_http_ai_limit_release(st, i);

    st->head.nlive--;
    st->head.stats.settled++;

    ngx_http_ai_limit_commit(st);

    return NGX_HTTP_AI_LIMIT_OK;
}


ngx_uint_t
ngx_http_ai_limit_reap(ngx_http_ai_limit_store_t *st, int64_t now,
    ngx_uint_t (*alive)(uint64_t owner), ngx_uint_t max)
{
    return ngx_http_ai_limit_reap_each(st, now, alive, max, NULL, NULL);
}


ngx_uint_t
ngx_http_ai_limit_reap_each(ngx_http_ai_limit_store_t *st, int64_t now,
    ngx_uint_t (*alive)(uint64_t owner), ngx_uint_t max,
    ngx_http_ai_limit_reap_pt handler, void *data)
{
    int64_t                    time, passed;
    uint32_t                   i;
    uint64_t                   owner, live;
    ngx_uint_t                 n, pos, lives;
    ngx_http_ai_limit_slot_t  *h;

    (void) ngx_http_ai_limit_time(st, now, 0);

    passed = now - st->reaped;

    if (passed) {
        ngx_http_ai_limit_keep(st, &st->reaped, 2 * sizeof(int64_t));

        /* this is called each second: the clock was set */

        if (st->reaped
            && (passed > NGX_HTTP_AI_LIMIT_JUMP
                || passed < -NGX_HTTP_AI_LIMIT_JUMP))
        {
            st->jumped += passed;
        }

        st->reaped = now;

        ngx_http_ai_limit_commit(st);
    }

    time = now - st->jumped;

    for (n = 0; n < NGX_HTTP_AI_LIMIT_TOMBS; n++) {
        i = st->head.tomb_first;

        if (i == 0
            || time - ngx_http_ai_limit_slot(st, i)->deadline
               < NGX_HTTP_AI_LIMIT_TOMB)
        {
            break;
        }

        ngx_http_ai_limit_lapse(st, i);
    }

    n = 0;
    owner = 0;
    lives = 0;
    live = st->head.nlive;

    for (i = 1; i <= st->head.htop && live && n < max; i++) {
        h = ngx_http_ai_limit_slot(st, i);

        if (h->place.state != NGX_HTTP_AI_HOLD_LIVE) {
            continue;
        }

        live--;

        if (h->deadline >= time) {

            /* those of a process are often side by side */

            if (h->owner != owner || !lives) {
                owner = h->owner;
                lives = (alive == NULL) || alive(owner);
            }

            if (lives) {
                continue;
            }
        }

        pos = h->key - 1;

        if (handler) {
            handler(data, pos, 0);
        }

        ngx_http_ai_limit_expire(st, i, now);
        n++;

        if (handler) {
            handler(data, pos, 1);
        }
    }

    return n;
}


static ngx_int_t
ngx_http_ai_limit_allowed(ngx_http_ai_limit_store_t *st,
    ngx_http_ai_meters_t *meters, ngx_http_ai_limit_t *limits,
    ngx_http_ai_amounts_t *amounts, ngx_uint_t whole, int64_t now,
    ngx_http_ai_limit_refusal_t *refusal)
{
    int64_t     fits, wait, behind;
    ngx_int_t   rc;
    ngx_uint_t  m, held;

    rc = NGX_OK;

    for (m = 0; m < NGX_HTTP_AI_METER_MAX; m++) {

        if (limits[m].limit < 0) {
            continue;
        }

        fits = ngx_http_ai_meter_fits(meters, m, amounts->v[m], whole);

        if (fits >= 0) {
            amounts->v[m] = fits;
            continue;
        }

        wait = ngx_http_ai_meter_wait(meters, m, amounts->v[m], now, &held);

        if (ngx_http_ai_meter_is_rate(m) && wait < NGX_HTTP_AI_LIMIT_NEVER) {
            behind = st->time - (now + st->shift);

            if (behind > 0) {
                wait = st->behind ? ngx_max(wait, 2000) : wait + behind;
            }
        }

        if (rc == NGX_OK || wait > refusal->wait) {
            refusal->meter = m;
            refusal->wait = wait;
            refusal->held = held;
            ngx_http_ai_meter_state(meters, m, now, &refusal->state);
        }

        rc = NGX_DECLINED;
    }

    return rc;
}


/* a hold of that key with that id */

static uint32_t
ngx_http_ai_limit_running(ngx_http_ai_limit_store_t *st, uint32_t key,
    u_char *id, uint32_t hash)
{
    uint32_t                   i;
    ngx_http_ai_limit_slot_t  *h;

    for (i = *ngx_http_ai_limit_hchain(st, hash); i; i = h->place.next) {
        h = ngx_http_ai_limit_slot(st, i);

        if (h->chain == hash && h->key == key
            && ngx_memcmp(h->id, id, 16) == 0)
        {
            return i;
        }
    }

    return 0;
}


/* a free slot: tombstones give way, the oldest first */

static ngx_int_t
ngx_http_ai_limit_space(ngx_http_ai_limit_store_t *st)
{
    if (st->head.hfree || st->head.htop < st->nholds) {
        return NGX_OK;
    }

    if (st->head.tomb_first == 0) {
        return NGX_DECLINED;
    }

    ngx_http_ai_limit_lapse(st, st->head.tomb_first);

    return NGX_OK;
}


/* for these, the caller has kept the head */

static uint32_t
ngx_http_ai_limit_alloc(ngx_http_ai_limit_store_t *st)
{
    uint32_t                   i;
    ngx_http_ai_limit_slot_t  *h;

    i = st->head.hfree ? st->head.hfree : st->head.htop + 1;
    h = ngx_http_ai_limit_slot(st, i);

    ngx_http_ai_limit_keep(st, &h->place, sizeof(h->place));

    if (st->head.hfree) {
        st->head.hfree = h->place.next;

    } else {
        st->head.htop++;
    }

    h->place.serial++;

    if ((h->place.serial & 0xffff) == 0) {
        h->output = 0;
        h->money = 0;
    }

    return i;
}


static void
ngx_http_ai_limit_release(ngx_http_ai_limit_store_t *st, uint32_t i)
{
    ngx_http_ai_limit_slot_t  *h;

    h = ngx_http_ai_limit_slot(st, i);

    h->place.state = NGX_HTTP_AI_HOLD_FREE;
    h->place.prev = 0;
    h->place.next = st->head.hfree;
    st->head.hfree = i;
}


static ngx_inline void
ngx_http_ai_limit_unchain(ngx_http_ai_limit_store_t *st, uint32_t i)
{
    uint32_t                  *next;
    ngx_http_ai_limit_slot_t  *h, *other;

    h = ngx_http_ai_limit_slot(st, i);

    ngx_http_ai_limit_keep(st, &h->place, sizeof(h->place));

    next = h->place.prev
           ? &ngx_http_ai_limit_slot(st, h->place.prev)->place.next
           : ngx_http_ai_limit_hchain(st, h->chain);

    ngx_http_ai_limit_keep(st, next, sizeof(uint32_t));
    *next = h->place.next;

    if (h->place.next) {
        other = ngx_http_ai_limit_slot(st, h->place.next);

        ngx_http_ai_limit_keep(st, &other->place.prev, sizeof(uint32_t));
        other->place.prev = h->place.prev;
    }
}


static void
ngx_http_ai_limit_bury(ngx_http_ai_limit_store_t *st, uint32_t i,
    int64_t time)
{
    uint32_t                  *next;
    ngx_http_ai_limit_slot_t  *h;

    h = ngx_http_ai_limit_slot(st, i);

    next = st->head.tomb_last
           ? &ngx_http_ai_limit_slot(st, st->head.tomb_last)->place.next
           : &st->head.tomb_first;

    ngx_http_ai_limit_keep(st, next, sizeof(uint32_t));

    *next = i;
    h->place.state = NGX_HTTP_AI_HOLD_TOMB;
    h->place.prev = st->head.tomb_last;
    h->place.next = 0;
    h->deadline = time;

    st->head.tomb_last = i;
    st->head.ntombs++;
}


static void
ngx_http_ai_limit_exhume(ngx_http_ai_limit_store_t *st, uint32_t i)
{
    uint32_t                  *next, *prev;
    ngx_http_ai_limit_slot_t  *h;

    h = ngx_http_ai_limit_slot(st, i);

    next = h->place.prev
           ? &ngx_http_ai_limit_slot(st, h->place.prev)->place.next
           : &st->head.tomb_first;

    prev = h->place.next
           ? &ngx_http_ai_limit_slot(st, h->place.next)->place.prev
           : &st->head.tomb_last;

    ngx_http_ai_limit_keep(st, &h->place, sizeof(h->place));
    ngx_http_ai_limit_keep(st, next, sizeof(uint32_t));
    ngx_http_ai_limit_keep(st, prev, sizeof(uint32_t));

    *next = h->place.next;
    *prev = h->place.prev;

    st->head.ntombs--;

    ngx_http_ai_limit_release(st, i);
}


/* a tombstone is not kept any longer */

static void
ngx_http_ai_limit_lapse(ngx_http_ai_limit_store_t *st, uint32_t i)
{
    ngx_http_ai_limit_keep(st, &st->head, sizeof(st->head));
    ngx_http_ai_limit_exhume(st, i);
    ngx_http_ai_limit_commit(st);
}


static ngx_http_ai_limit_e
ngx_http_ai_limit_correct(ngx_http_ai_limit_store_t *st, uint32_t i,
    int64_t now, ngx_http_ai_amounts_t *actual)
{
    int64_t                    time;
    ngx_uint_t                 m;
    ngx_http_ai_limit_e        rc;
    ngx_http_ai_taken_t        taken;
    ngx_http_ai_limit_key_t   *k;
    ngx_http_ai_limit_slot_t  *h;

    h = ngx_http_ai_limit_slot(st, i);
    k = ngx_http_ai_limit_key(st, h->key);

    time = ngx_http_ai_limit_time(st, now, 0);

    ngx_http_ai_limit_keep(st, &st->head, sizeof(st->head));

    rc = NGX_HTTP_AI_LIMIT_GONE;

    if (k->link.used && k->link.serial == h->chain) {
        rc = NGX_HTTP_AI_LIMIT_OK;

        ngx_http_ai_limit_keep(st, &k->link, sizeof(k->link));
        k->link.seq++;

        for (m = 0; m < NGX_HTTP_AI_METER_MAX; m++) {
            if (h->place.mask & 1 << m) {
                ngx_http_ai_limit_keep_meter(st, &k->meters, m);
                ngx_http_ai_meter_advance(&k->meters, m, NULL, time);
                ngx_http_ai_limit_taken(h, m, &taken);
                ngx_http_ai_meter_correct(&k->meters, m, &taken,
                                          ngx_http_ai_amount(actual->v[m]),
                                          k->link.seq, h->input, now);
            }
        }

        st->head.stats.settled++;
    }

    ngx_http_ai_limit_exhume(st, i);
    ngx_http_ai_limit_commit(st);

    return rc;
}


/* a hold becomes use; the caller commits */

static ngx_inline void
ngx_http_ai_limit_charge(ngx_http_ai_limit_store_t *st, uint32_t i,
    int64_t now, ngx_http_ai_amounts_t *actual)
{
    int64_t                    time;
    ngx_uint_t                 m, mask, bits;
    ngx_http_ai_rate_t        *r;
    ngx_http_ai_taken_t        taken;
    ngx_http_ai_limit_key_t   *k;
    ngx_http_ai_limit_slot_t  *h;

    time = ngx_http_ai_limit_time(st, now, 0);

    h = ngx_http_ai_limit_slot(st, i);
    k = ngx_http_ai_limit_key(st, h->key);

    ngx_http_ai_limit_keep_count(st, &k->link);
    k->link.nholds--;
    k->link.seq++;

    mask = h->place.mask & NGX_HTTP_AI_HOLD_METERS;

    for (m = 0, bits = mask & NGX_HTTP_AI_LIMIT_RATE_BITS;
         bits;
         m++, bits >>= 1)
    {
        if (!(bits & 1)) {
            continue;
        }

        if (m == NGX_HTTP_AI_METER_REQUESTS
            && ngx_http_ai_amount(actual->v[m]) == h->amounts.v[m])
        {
            /* it was charged when it came */
            continue;
        }

        r = &k->meters.rates[m];

        ngx_http_ai_limit_keep_rate(st, r);

        ngx_http_ai_rate_pass(r, time);

        ngx_http_ai_limit_taken(h, m, &taken);
        ngx_http_ai_rate_settle(r, &taken, ngx_http_ai_amount(actual->v[m]),
                                k->link.seq);
    }

    m = NGX_HTTP_AI_METER_CONCURRENT;
    bits = mask >> m;

    if (bits & 1) {
        ngx_http_ai_limit_keep(st, &k->meters.slots,
                               sizeof(ngx_http_ai_slots_t));
        ngx_http_ai_slots_settle(&k->meters.slots, h->amounts.v[m]);
    }

    for (m++, bits >>= 1; bits; m++, bits >>= 1) {
        if (bits & 1) {
            ngx_http_ai_limit_keep_meter(st, &k->meters, m);
            ngx_http_ai_limit_taken(h, m, &taken);
            ngx_http_ai_meter_settle(&k->meters, m, &taken,
                                     ngx_http_ai_amount(actual->v[m]),
                                     k->link.seq, now);
        }
    }
}


/* charged with the larger of what it held and what was seen */

static void
ngx_http_ai_limit_expire(ngx_http_ai_limit_store_t *st, uint32_t i,
    int64_t now)
{
    int64_t                    output, money, tokens;
    uint64_t                   seen;
    ngx_uint_t                 m;
    ngx_http_ai_amounts_t      v;
    ngx_http_ai_limit_slot_t  *h;

    h = ngx_http_ai_limit_slot(st, i);

    output = 0;
    money = 0;

    seen = *(volatile uint64_t *) &h->output;

    if (seen >> 48 == (h->place.serial & 0xffff)) {
        output = seen & NGX_HTTP_AI_LIMIT_SEEN;
    }

    seen = *(volatile uint64_t *) &h->money;

    if (seen >> 48 == (h->place.serial & 0xffff)) {
        money = seen & NGX_HTTP_AI_LIMIT_SEEN;
    }

    for (m = 0; m < NGX_HTTP_AI_METER_MAX; m++) {
        v.v[m] = (h->place.mask & 1 << m) ? h->amounts.v[m] : 0;
    }

    if (output) {
        tokens = h->input + output;

        v.v[NGX_HTTP_AI_METER_OUTPUT] =
            ngx_max(v.v[NGX_HTTP_AI_METER_OUTPUT], output);
        v.v[NGX_HTTP_AI_METER_TOKENS] =
            ngx_max(v.v[NGX_HTTP_AI_METER_TOKENS], tokens);
        v.v[NGX_HTTP_AI_METER_Q_TOKENS] =
            ngx_max(v.v[NGX_HTTP_AI_METER_Q_TOKENS], tokens);
    }

    v.v[NGX_HTTP_AI_METER_Q_MONEY] =
        ngx_max(v.v[NGX_HTTP_AI_METER_Q_MONEY], money);

    ngx_http_ai_limit_keep(st, &st->head, sizeof(st->head));
    ngx_http_ai_limit_keep(st, h, offsetof(ngx_http_ai_limit_slot_t, output));

    ngx_http_ai_limit_charge(st, i, now, &v);
    ngx_http_ai_limit_unchain(st, i);
    ngx_http_ai_limit_bury(st, i, now - st->jumped);

    h->chain = ngx_http_ai_limit_key(st, h->key)->link.serial;
    h->amounts = v;
    h->input = now;

    st->head.nlive--;
    st->head.stats.expired++;

    ngx_http_ai_limit_commit(st);
}
