
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The model of test_limit_shared.c: what the records of a log should have
 * made of the ledger.
 */


#ifndef _TEST_LIMIT_MODEL_H_INCLUDED_
#define _TEST_LIMIT_MODEL_H_INCLUDED_


static void
wrong(ngx_uint_t z, record_t *r, const char *what, ngx_uint_t m)
{
    diag("zone %u, key %u, operation %u, result %u, doubt %u, id %llu: "
         "%s of meter %u", (unsigned) z, r->key, r->op, r->result, r->doubt,
         (unsigned long long) r->id, what, (unsigned) m);

    sh->failed = 1;
}


static int32_t
event(ngx_uint_t z, record_t *r, ngx_uint_t m, int64_t amount,
    ngx_uint_t admitted)
{
    event_t  *e;

    if (nevents[z] == maxevents) {
        die("too many events");
    }

    e = &events[z][nevents[z]];
    e->time = r->time;
    e->limit = r->known ? r->rates[m] : 0;
    e->burst = r->limits[m].burst ? r->limits[m].burst : r->limits[m].limit;
    e->amount = amount;
    e->next = -1;
    e->admitted = admitted;
    e->m = m;
    e->key = r->key;

    return nevents[z]++;
}


/* the truth is known: the first of what was taken was used first */

static void
truth(ngx_uint_t z, record_t *r, mhold_t *h, ngx_uint_t m, int64_t actual)
{
    int32_t   i;
    event_t  *e;

    for (i = h->events[m]; i != -1; i = e->next) {
        e = &events[z][i];
        e->amount = ngx_min(e->amount, actual);
        actual -= e->amount;

        if (e->next == -1) {
            e->next = event(z, r, m, actual, 0);
            break;
        }
    }
}


static void
model_roll(ngx_uint_t z, record_t *r)
{
    int64_t                  limit;
    ngx_uint_t               m;
    ngx_http_ai_calendar_t  *w, *s;

    for (m = M(Q_REQUESTS); m < MAX; m++) {
        w = &mkeys[z][r->key].windows[m - M(Q_REQUESTS)];
        s = &r->windows[m - M(Q_REQUESTS)];

        if (!r->known || s->limit < 0) {
            continue;
        }

        if (w->used == 0 && w->held == 0 && w->next == 0) {

            /* it may have been given up in between */

            s->used -= (r->op == OP_SETTLE || r->op == OP_REAP) ? 0 : s->used;
            w->limit = s->limit;
            w->most = s->most;
            w->start = s->start;
            w->end = s->end;
            w->at = s->at;
            continue;
        }

        limit = (r->op == OP_RESERVE || r->op == OP_TOPUP)
                ? r->limits[m].limit : w->limit;

        if (s->start > w->start) {
            w->used = (w->used > w->most) ? w->used - w->most : 0;

            if (s->start != w->end) {

                /* windows of the same length have passed in between */

                w->used -= ngx_min(w->used, w->limit * ((s->start - w->end)
                                                    / (w->end - w->start)));
            }

            w->used += (w->at >= s->start) ? w->next : 0;
            w->next = 0;
            w->start = s->start;
            w->end = s->end;
            w->most = limit;
            w->limit = limit;
        }

        if (s->start != w->start || s->end != w->end
            || (s->limit != w->limit && s->limit != limit)
            || (s->most != w->most && s->most != ngx_max(w->most, limit)))
        {
            wrong(z, r, "window", m);
        }

        w->limit = s->limit;
        w->most = s->most;
    }
}


static void
model_charge(ngx_http_ai_calendar_t *w, int64_t amount, int64_t now)
{
    if (amount == 0) {
        return;
    }

    if (now < w->end) {
        w->used += amount;

    } else {
        w->next += amount;
        w->at = ngx_max(w->at, now);
    }
}


static void
model_take(ngx_uint_t z, record_t *r, mhold_t *h, mkey_t *k)
{
    int32_t                  i, e;
    int64_t                  v, all;
    ngx_uint_t               m;
    ngx_http_ai_calendar_t  *w;

    for (m = 0; m < MAX; m++) {
        v = r->has.v[m] - h->v.v[m];

        if (r->limits[m].limit < 0) {
            if (v) {
                wrong(z, r, "no limit", m);
            }

            continue;
        }

        if (v < 0 || v > r->asked.v[m]) {
            wrong(z, r, "amount", m);
        }

        if (m < M(CONCURRENT)) {
            e = event(z, r, m, v, 1);

            if (h->events[m] == -1) {
                h->events[m] = e;

            } else {
                for (i = h->events[m]; events[z][i].next != -1; ) {
                    i = events[z][i].next;
                }

                events[z][i].next = e;
            }

            continue;
        }

        if (m == M(CONCURRENT)) {
            k->slots += v;
            all = k->slots;

        } else {
            w = &k->windows[m - M(Q_REQUESTS)];

            if (v != r->asked.v[m] && (w->used || w->held)) {
                wrong(z, r, "cut", m);
            }

            w->held += v;
            all = w->used + w->held;
        }

        if (v && all > r->limits[m].limit) {
            wrong(z, r, "limit", m);
        }
    }

    h->v = r->has;
}


static void
model_end(ngx_uint_t z, record_t *r, mhold_t *h, mkey_t *k)
{
    int64_t                  charged;
    ngx_uint_t               m;
    ngx_http_ai_calendar_t  *w;

    k->slots -= h->v.v[M(CONCURRENT)];
    k->holds--;

    for (m = 0; m < M(CONCURRENT); m++) {
        charged = r->asked.v[m];

        if (r->op == OP_REAP) {
            charged = r->has.v[m];

        } else if (m == M(REQUESTS)) {
            charged = charged ? h->v.v[m] : 0;
        }

        truth(z, r, h, m, charged);
    }

    for (m = M(Q_REQUESTS); m < MAX; m++) {
        w = &k->windows[m - M(Q_REQUESTS)];

        if (w->limit < 0) {
            continue;
        }

        w->held -= h->v.v[m];
        model_charge(w, (r->op == OP_REAP) ? r->has.v[m] : r->asked.v[m],
                     r->now);
    }
}


static void
model_late(ngx_uint_t z, record_t *r, mhold_t *h, mkey_t *k)
{
    int64_t                  lack;
    ngx_uint_t               m;
    ngx_http_ai_calendar_t  *w;

    for (m = M(Q_REQUESTS); m < MAX; m++) {
        w = &k->windows[m - M(Q_REQUESTS)];
        lack = h->v.v[m] - r->asked.v[m];

        if (w->limit < 0) {
            continue;
        }

        if (lack < 0) {
            model_charge(w, -lack, r->now);

        } else if (h->then >= w->end) {
            w->next -= ngx_min(w->next, lack);

        } else if (h->then >= w->start) {
            w->used -= ngx_min(w->used, lack);
        }
    }

    for (m = 0; m < M(CONCURRENT); m++) {
        truth(z, r, h, m, (m != M(REQUESTS)) ? r->asked.v[m]
                          : r->asked.v[m] ? h->v.v[m] : 0);
    }
}


static void
model_reaped(ngx_uint_t z, record_t *r, mhold_t *h)
{
    seen_t  *s;
    int64_t  v, lo;

    s = &sh->zones[z].seen[r->id];
    v = r->has.v[M(OUTPUT)];

    /* who lives may have seen more by now */

    lo = r->dead ? s->lo : 0;

    if (v < ngx_max(h->v.v[M(OUTPUT)], lo)
        || v > ngx_max(h->v.v[M(OUTPUT)], s->hi)
        || r->has.v[M(TOKENS)] < h->v.v[M(TOKENS)]
        || r->has.v[M(Q_TOKENS)] < h->v.v[M(Q_TOKENS)]
        || r->has.v[M(Q_MONEY)] < ngx_max(h->v.v[M(Q_MONEY)], lo * 100)
        || r->has.v[M(Q_MONEY)] > ngx_max(h->v.v[M(Q_MONEY)], s->hi * 100))
    {
        wrong(z, r, "what was seen", M(OUTPUT));
    }
}


static void
model_record(ngx_uint_t z, record_t *r)
{
    mkey_t                  *k;
    mhold_t                 *h;
    ngx_uint_t               m;
    ngx_http_ai_calendar_t  *w, *s;

    counts[r->op][r->result]++;
    late += (r->late && r->result == DONE);
    doubts[r->op][r->result] += r->doubt;

    if (r->time < last_time[z]) {
        wrong(z, r, "time goes back", 0);
    }

    last_time[z] = r->time;
    last_now[z] = ngx_max(last_now[z], r->now);

    if (r->op == OP_REAP && r->result != DONE) {
        return;
    }

    h = &mholds[z][r->id];
    k = &mkeys[z][r->key];

    model_roll(z, r);

    switch (r->op) {

    case OP_RESERVE:

        for (m = 0; m < M(CONCURRENT); m++) {
            if (r->limits[m].limit >= 0 && r->result != DONE) {
                (void) event(z, r, m, 0, 0);
            }
        }

        if (r->result != DONE) {
            break;
        }

        if (h->state != NGX_HTTP_AI_HOLD_FREE) {
            wrong(z, r, "second hold", 0);
        }

        memset(h, 0, sizeof(mhold_t));
        memset(h->events, 0xff, sizeof(h->events));

        h->state = NGX_HTTP_AI_HOLD_LIVE;
        h->key = r->key;
        k->holds++;

        model_take(z, r, h, k);
        break;

    case OP_TOPUP:

        for (m = 0; m < M(CONCURRENT); m++) {
            if (r->limits[m].limit >= 0 && r->result != DONE) {
                (void) event(z, r, m, 0, 0);
            }
        }

        if (r->result == DONE) {
            model_take(z, r, h, k);
        }

        break;

    case OP_SETTLE:

        if (r->result != DONE) {
            break;
        }

        if (h->state == NGX_HTTP_AI_HOLD_TOMB) {
            model_late(z, r, h, k);

        } else if (h->state == NGX_HTTP_AI_HOLD_LIVE && !r->late) {
            model_end(z, r, h, k);

        } else {
            wrong(z, r, "settled again", 0);
        }

        h->state = NGX_HTTP_AI_HOLD_FREE;
        break;

    case OP_REAP:

        if (h->state != NGX_HTTP_AI_HOLD_LIVE || h->key != r->key) {
            wrong(z, r, "reaped again", 0);
        }

        model_reaped(z, r, h);
        model_end(z, r, h, k);

        h->state = NGX_HTTP_AI_HOLD_TOMB;
        h->then = r->now;
        h->v = r->has;
        break;
    }

    for (m = M(Q_REQUESTS); m < MAX; m++) {
        w = &k->windows[m - M(Q_REQUESTS)];
        s = &r->windows[m - M(Q_REQUESTS)];

        if (r->known && s->limit >= 0) {

            if (s->used != w->used || s->held != w->held
                || s->next != w->next)
            {
                wrong(z, r, "ledger", m);
                diag("used %lld %lld held %lld %lld next %lld %lld "
                     "start %lld %lld, now %lld %lld",
                     (long long) s->used, (long long) w->used,
                     (long long) s->held, (long long) w->held,
                     (long long) s->next, (long long) w->next,
                     (long long) s->start - T0, (long long) w->start - T0,
                     (long long) r->now - T0, (long long) last_now[z] - T0);
            }

        } else if (w->held || (w->used && last_now[z] < w->end)) {
            wrong(z, r, "forgotten", m);
        }
    }
}


/* the rates, with true amounts only */

static void
model_rates(ngx_uint_t z)
{
    int64_t                   over, missing, lost, n, used;
    int32_t                   i;
    event_t                  *e;
    ngx_uint_t                m, k;
    ngx_http_ai_rate_t       *r;
    ngx_http_ai_meters_t      meters;
    ngx_http_ai_limit_key_t  *key;

    struct {
        __int128              level;
        int64_t               time;
        int64_t               limit;
        int64_t               burst;
    } rates[NGX_HTTP_AI_LIMIT_RATES][KEYS], *b;

    over = 0;
    missing = 0;
    lost = 0;
    n = 0;

    memset(rates, 0, sizeof(rates));

    for (i = 0; i < nevents[z]; i++) {
        e = &events[z][i];
        b = &rates[e->m][e->key];

        b->level -= (__int128) b->limit * (e->time - b->time);
        b->level = (b->level > 0) ? b->level : 0;
        b->time = e->time;
        b->limit = ngx_max(e->limit, 0);

        b->level += (__int128) e->amount * ((z == 0) ? 7000 : 6000);

        if (e->admitted && e->amount) {
            b->burst = e->burst;
            over += (b->level > (__int128) e->burst
                                * ((z == 0) ? 7000 : 6000));
            n++;
        }
    }

    for (k = 1; k <= st[z]->head.ktop; k++) {
        key = ngx_http_ai_limit_key(st[z], k);

        if (!key->link.used) {
            continue;
        }

        meters = key->meters;

        for (m = 0; m < NGX_HTTP_AI_LIMIT_RATES; m++) {
            r = &meters.rates[m];

            if (r->limit < 0) {
                continue;
            }

            ngx_http_ai_meter_advance(&meters, m, NULL, st[z]->time);

            b = &rates[m][atoi((char *) key->data)];

            b->level -= (__int128) b->limit * (r->time - b->time);
            b->level = (b->level > 0) ? b->level : 0;

            used = (int64_t) ((b->level + r->period - 1) / r->period);
            missing += (used > r->used);
            lost = b->burst
                   ? ngx_max(lost, (r->used - used) * 100 / b->burst) : lost;
        }
    }

    if (over || missing) {
        diag("zone %u: %lld of %lld admitted above a rate, %lld rates with "
             "less use than true", (unsigned) z, (long long) over,
             (long long) n, (long long) missing);
        sh->failed = 1;
    }
}


#endif /* _TEST_LIMIT_MODEL_H_INCLUDED_ */
