
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Leases in the zone's memory: a table of small sets, without links, so that
 * a process may die anywhere in it.  What is granted is never more than Redis
 * has counted; each change is made in the order that keeps it so.
 */


#include "ngx_http_ai_ratelimit_lease.h"


static int64_t ngx_http_ai_lease_share(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_lease_t *le, int64_t limit);


#define ngx_http_ai_is_rate(m)    ((m) < NGX_HTTP_AI_METER_CONCURRENT)
#define ngx_http_ai_is_window(m)  ((m) > NGX_HTTP_AI_METER_CONCURRENT)


ngx_int_t
ngx_http_ai_lease_init(ngx_http_ai_limit_zone_t *zone)
{
    size_t                  size;
    ngx_http_ai_zone_sh_t  *sh;

    sh = zone->sh;

    size = zone->shpool->pfree / 2 * ngx_pagesize;

    sh->leases = ngx_slab_alloc(zone->shpool, size);
    if (sh->leases == NULL) {
        return NGX_ERROR;
    }

#if (NGX_DEBUG_MALLOC)
    ngx_memzero(sh->leases, size);
#endif

    sh->nleases = size / sizeof(ngx_http_ai_lease_t)
                  / NGX_HTTP_AI_LEASE_SET * NGX_HTTP_AI_LEASE_SET;

    return sh->nleases ? NGX_OK : NGX_ERROR;
}


ngx_http_ai_lease_t *
ngx_http_ai_lease_get(ngx_http_ai_limit_zone_t *zone, ngx_str_t *key,
    ngx_uint_t create)
{
    uint32_t                hash;
    ngx_uint_t              i;
    ngx_http_ai_lease_t    *le, *found;
    ngx_http_ai_zone_sh_t  *sh;

    sh = zone->sh;

    hash = ngx_murmur_hash2(key->data, key->len);

    le = sh->leases;
    le += hash % (sh->nleases / NGX_HTTP_AI_LEASE_SET)
          * NGX_HTTP_AI_LEASE_SET;

    found = NULL;

    for (i = 0; i < NGX_HTTP_AI_LEASE_SET; i++) {

        if (le[i].len == 0) {
            if (found == NULL || found->len) {
                found = &le[i];
            }

            continue;
        }

        if (le[i].hash == hash && le[i].len == key->len
            && ngx_memcmp(le[i].key, key->data, key->len) == 0)
        {
            return &le[i];
        }

        if (le[i].busy) {
            continue;
        }

        if (found == NULL
            || (found->len
                && (ngx_msec_int_t) (le[i].touched - found->touched) < 0))
        {
            found = &le[i];
        }
    }

    if (!create || found == NULL) {
        return NULL;
    }

    /* what another key was granted is lost to it until the window ends */

    found->len = 0;

    ngx_memzero(found, sizeof(ngx_http_ai_lease_t));

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
        found->m[i].limit = -1;
    }

    found->hash = hash;
    found->touched = ngx_current_msec;
    ngx_memcpy(found->key, key->data, key->len);

    ngx_memory_barrier();

    found->len = key->len;

    return found;
}


void
ngx_http_ai_lease_adopt(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_lease_t *le, ngx_http_ai_limit_t *limits, int64_t now)
{
    ngx_str_t                   key;
    ngx_uint_t                  i, first;
    ngx_http_ai_limit_t         out[NGX_HTTP_AI_METER_MAX];
    ngx_http_ai_lease_meter_t  *m;
    ngx_http_ai_limit_state_t   states[NGX_HTTP_AI_METER_MAX];

    le->touched = ngx_current_msec;
    first = 0;

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
        m = &le->m[i];

        if (limits[i].limit < 0) {
            continue;
        }

        if (ngx_http_ai_is_window(i) && limits[i].start > m->start) {
            m->granted = 0;
            m->told = 0;
            m->used = 0;
            m->wait = 0;
            m->free = limits[i].limit;
            m->start = limits[i].start;
            m->end = limits[i].end;
        }

        if (m->limit < 0) {
            m->free = limits[i].limit;
            m->level = -1;
            first |= (ngx_uint_t) 1 << i;
        }

        m->period = limits[i].period;
        m->burst = limits[i].burst ? limits[i].burst : limits[i].limit;
        m->limit = limits[i].limit;
    }

    if (first == 0) {
        return;
    }

    /*
     * the store may know the key from before its record was given up: what
     * is used of a rate was granted then
     */

    key.data = le->key;
    key.len = le->len;

    ngx_http_ai_lease_limits(zone, le, out, 0);
    ngx_http_ai_limit_peek(zone->store, &key, now, out, states);

    for (i = 0; i < NGX_HTTP_AI_METER_CONCURRENT; i++) {
        if (first & ((ngx_uint_t) 1 << i)) {
            le->m[i].granted = states[i].used + states[i].held;
        }
    }
}


/* slots and tokens that are not spent are lost with the lease */

ngx_uint_t
ngx_http_ai_lease_valid(ngx_http_ai_lease_t *le)
{
    return le->known
           && ngx_http_ai_lease_since(le->synced)
              < NGX_HTTP_AI_LEASE_TIME - NGX_HTTP_AI_LEASE_MARGIN;
}


static int64_t
ngx_http_ai_lease_share(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_lease_t *le, int64_t limit)
{
    ngx_uint_t  nodes;

    nodes = ngx_max(le->nodes, zone->sh->nodes);

    if (nodes == 0) {
        nodes = zone->nodes;
    }

    return limit / (int64_t) ngx_max(nodes, 1);
}


void
ngx_http_ai_lease_limits(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_lease_t *le, ngx_http_ai_limit_t *out, ngx_uint_t local)
{
    int64_t                     share;
    ngx_uint_t                  i;
    ngx_http_ai_lease_meter_t  *m;

    ngx_memzero(out, NGX_HTTP_AI_METER_MAX * sizeof(ngx_http_ai_limit_t));

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
        m = &le->m[i];

        if (m->limit < 0) {
            out[i].limit = -1;
            continue;
        }

        if (ngx_http_ai_is_rate(i)) {
            out[i].limit = 1;
            out[i].period = NGX_HTTP_AI_LIMIT_STILL;
            out[i].burst = ngx_max(m->granted, 1);
            continue;
        }

        share = local ? ngx_http_ai_lease_share(zone, le, m->limit) : 0;

        if (ngx_http_ai_is_window(i)) {
            out[i].limit = ngx_max(m->granted, share);
            out[i].start = m->start;
            out[i].end = m->end;
            continue;
        }

        out[i].limit = ngx_http_ai_lease_valid(le) ? m->granted : 0;

        if (local) {
            out[i].limit = ngx_max(out[i].limit, ngx_max(share, 1));
        }
    }
}


void
ngx_http_ai_lease_lack(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_lease_t *le, int64_t now, ngx_http_ai_limit_t *limits,
    ngx_http_ai_amounts_t *amounts, ngx_http_ai_amounts_t *lack,
    ngx_uint_t *lacks)
{
    int64_t                     most;
    ngx_str_t                   key;
    ngx_uint_t                  i;
    ngx_http_ai_lease_meter_t  *m;
    ngx_http_ai_limit_state_t   states[NGX_HTTP_AI_METER_MAX];

    key.data = le->key;
    key.len = le->len;

    ngx_http_ai_limit_peek(zone->store, &key, now, limits, states);

    *lacks = 0;

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
        m = &le->m[i];
        lack->v[i] = 0;

        if (m->limit < 0 || amounts->v[i] <= 0) {
            continue;
        }

        most = limits[i].limit;

        if (ngx_http_ai_is_rate(i)) {

            most = m->granted;

            if (!ngx_http_ai_lease_valid(le) && m->debit == 0) {
                most = ngx_min(most, states[i].used + states[i].held);
                m->granted = most;
            }
        }

        lack->v[i] = states[i].used + states[i].held + amounts->v[i] - most;

        if (lack->v[i] > 0) {
            *lacks = 1;

        } else {
            lack->v[i] = 0;
        }
    }
}


ngx_int_t
ngx_http_ai_lease_grant(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_lease_t *le, int64_t now, ngx_http_ai_amounts_t *amounts,
    ngx_http_ai_limit_refusal_t *refusal)
{
    int64_t                     share, passed, n;
    ngx_uint_t                  i, lacks;
    ngx_http_ai_limit_t         limits[NGX_HTTP_AI_METER_MAX];
    ngx_http_ai_amounts_t       lack;
    ngx_http_ai_lease_meter_t  *m;

    ngx_http_ai_lease_limits(zone, le, limits, 1);
    ngx_http_ai_lease_lack(zone, le, now, limits, amounts, &lack, &lacks);

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
        m = &le->m[i];

        if (m->limit < 0) {
            continue;
        }

        if (!ngx_http_ai_is_rate(i)) {

            if (lack.v[i] == 0) {
                continue;
            }

            refusal->meter = i;
            refusal->wait = 1000;

            if (ngx_http_ai_is_window(i)) {
                refusal->wait = ngx_max(m->end - now, 1);
            }

            return NGX_DECLINED;
        }

        /* a bucket of the node's own with its share */

        share = ngx_max(ngx_http_ai_lease_share(zone, le, m->limit), 1);

        if (m->level < 0) {
            m->level = ngx_http_ai_lease_share(zone, le, m->burst);
            m->level = ngx_max(m->level, 1);
            m->filled = now;
        }

        passed = ngx_min(now - m->filled, m->period);

        if (passed < 0) {
            m->filled = now;

        } else {
            n = (int64_t) ((double) passed * share / m->period);

            if (n > 0) {
                m->level = ngx_min(m->level + n,
                                   ngx_max(ngx_http_ai_lease_share(zone, le,
                                                            m->burst), 1));
                m->filled += (int64_t) ((double) n * m->period / share) + 1;
            }
        }

        if (lack.v[i] > m->level) {
            refusal->meter = i;
            refusal->wait = (int64_t) ((double) (lack.v[i] - m->level)
                                       * m->period / share)
                            + 1;
            return NGX_DECLINED;
        }
    }

    for (i = 0; i < NGX_HTTP_AI_METER_CONCURRENT; i++) {
        m = &le->m[i];

        if (m->limit >= 0 && lack.v[i] > 0) {
            m->level -= lack.v[i];
            m->debit += lack.v[i];
            m->granted += lack.v[i];
        }
    }

    return NGX_OK;
}


void
ngx_http_ai_lease_states(ngx_http_ai_limit_zone_t *zone, ngx_str_t *key,
    ngx_http_ai_limit_state_t *states, int64_t now)
{
    int64_t                     own, rest, limit, burst;
    ngx_uint_t                  i;
    ngx_http_ai_lease_t        *le;
    ngx_http_ai_lease_meter_t  *m;
    ngx_http_ai_limit_state_t  *s;

    le = ngx_http_ai_lease_get(zone, key, 0);

    if (le == NULL) {
        return;
    }

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
        m = &le->m[i];
        s = &states[i];

        if (s->limit < 0 || m->limit < 0) {
            continue;
        }

        own = s->used + s->held;

        /* what this node still has, and what nobody has */

        rest = ngx_max(m->granted - own, 0) + ngx_max(m->free, 0);

        limit = m->limit + m->raise;
        burst = m->burst + m->raise;

        if (ngx_http_ai_is_rate(i)) {
            rest = ngx_min(rest, burst);
            s->held = ngx_min(s->held, burst - rest);
            s->used = burst - rest - s->held;
            s->reset = (limit > 0)
                       ? (int64_t) ((double) (burst - rest) * m->period
                                    / limit)
                       : 0;

        } else if (ngx_http_ai_is_window(i)) {

            if (m->told >= 0) {
                s->used += m->used - m->told;
            }

            rest = ngx_min(rest, limit);
            s->reset = ngx_max(m->end - now, 0);

        } else {
            s->held = ngx_max(s->held, m->used - m->granted + s->held);
            rest = ngx_min(rest, limit);
            s->reset = s->held ? 1000 : 0;
        }

        s->limit = limit;
        s->remaining = rest;
    }
}


void
ngx_http_ai_lease_forget(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_lease_t *le, uint64_t era, int64_t now)
{
    ngx_str_t                   key;
    ngx_uint_t                  i;
    ngx_http_ai_limit_t         limits[NGX_HTTP_AI_METER_MAX];
    ngx_http_ai_lease_meter_t  *m;
    ngx_http_ai_limit_state_t   states[NGX_HTTP_AI_METER_MAX];

    key.data = le->key;
    key.len = le->len;

    ngx_http_ai_lease_limits(zone, le, limits, 0);

    (void) ngx_http_ai_limit_reset(zone->store, &key);

    ngx_http_ai_limit_peek(zone->store, &key, now, limits, states);

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
        m = &le->m[i];

        if (m->limit < 0 || i == NGX_HTTP_AI_METER_CONCURRENT) {
            continue;
        }

        m->granted = states[i].used + states[i].held;
        m->debit = 0;
        m->level = -1;
        m->free = m->limit;
        m->used = 0;
        m->told = -1;
        m->wait = 0;
    }

    /* the last of all: who dies before it leaves it to be done again */

    le->era = era;
}


ngx_uint_t
ngx_http_ai_lease_empty(ngx_http_ai_lease_t *le)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
        if (le->m[i].granted || le->m[i].debit) {
            return 0;
        }
    }

    return 1;
}
