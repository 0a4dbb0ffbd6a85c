
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Before a request goes to a provider it takes what it may need from every
 * zone that it is under, or nothing from any.
 */


#include "ngx_http_ai_ratelimit_lease.h"


static ngx_int_t ngx_http_ai_limit_prepare(ngx_http_request_t *r,
    ngx_http_ai_limited_t *l, ngx_http_ai_ratelimit_loc_conf_t *rlcf,
    ngx_http_ai_limit_state_t *states);
static ngx_int_t ngx_http_ai_limit_take(ngx_http_request_t *r,
    ngx_http_ai_limited_t *l, ngx_http_ai_ticket_t *t,
    ngx_http_ai_limit_ask_t *ask);
static ngx_uint_t ngx_http_ai_limit_unpriced(ngx_http_ai_limited_t *l,
    ngx_http_ai_ticket_t *t);
static ngx_uint_t ngx_http_ai_limit_forbidden(ngx_http_ai_limited_t *l,
    ngx_http_ai_ticket_t *t);
static void ngx_http_ai_limit_granted(ngx_http_ai_limited_t *l,
    ngx_http_ai_ticket_t *t);
static ngx_int_t ngx_http_ai_limit_go(ngx_http_request_t *r,
    ngx_http_ai_limited_t *l);
static void ngx_http_ai_limit_expect(ngx_http_request_t *r,
    ngx_http_ai_limited_t *l);
static void ngx_http_ai_limit_count(ngx_http_request_t *r,
    ngx_http_ai_limited_t *l);
static void ngx_http_ai_limit_sum(ngx_http_ai_limited_t *l);
static void ngx_http_ai_limit_log(ngx_http_request_t *r,
    ngx_http_ai_limited_t *l, ngx_http_ai_ticket_t *t);


ngx_int_t
ngx_http_ai_limit_hook(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    size_t                             size;
    ngx_int_t                          rc;
    ngx_http_ai_limited_t             *l;
    ngx_http_ai_ratelimit_loc_conf_t  *rlcf;

    rlcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_ratelimit_module);

    l = ctx->ratelimit;

    if (l && l->next < l->n && l->tickets[l->next].waiter) {
        /* it has waited for a grant */
        return ngx_http_ai_limit_go(r, l);
    }

    if (rlcf->uses == NULL || l
        || ctx->op == NGX_HTTP_AI_OP_MODELS
        || ctx->op == NGX_HTTP_AI_OP_MODEL)
    {
        return NGX_DECLINED;
    }

    size = sizeof(ngx_http_ai_limited_t)
           + rlcf->uses->nelts * sizeof(ngx_http_ai_ticket_t);

    l = ngx_palloc(r->pool, size
                   + rlcf->nstates * sizeof(ngx_http_ai_limit_state_t));
    if (l == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(l, sizeof(ngx_http_ai_limited_t));

    /*
     * set by ngx_memzero():
     *
     *     l->n = 0;
     *     l->refused = NULL;
     *     l->input = 0;
     *     l->output = 0;
     */

    l->ctx = ctx;
    l->tickets = (ngx_http_ai_ticket_t *) (l + 1);

    rc = ngx_http_ai_limit_prepare(r, l, rlcf,
                                   (void *) ((u_char *) l + size));

    if (rc != NGX_OK) {
        return rc;
    }

    if (l->n == 0) {
        return NGX_DECLINED;
    }

    ctx->ratelimit = l;
    ngx_http_ai_zone_id(l->id);

    ngx_http_ai_limit_expect(r, l);

    l->deadline = (int64_t) ctx->patience + NGX_HTTP_AI_LIMIT_GRACE;

    return ngx_http_ai_limit_go(r, l);
}


/* goes on where it had to wait */

static ngx_int_t
ngx_http_ai_limit_go(ngx_http_request_t *r, ngx_http_ai_limited_t *l)
{
    ngx_int_t                          rc;
    ngx_uint_t                         show;
    ngx_http_ai_ticket_t              *t;
    ngx_http_ai_limit_ask_t            ask;
    ngx_http_ai_ratelimit_loc_conf_t  *rlcf;

    rlcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_ratelimit_module);

    /* meters that the answer will tell of */

    show = 0;

    if (rlcf->headers & NGX_HTTP_AI_HEADERS_IETF) {
        show = (ngx_uint_t) -1;

    } else if (!(rlcf->headers & NGX_HTTP_AI_HEADERS_OFF)) {
        show = ~ngx_http_ai_meter_bit(CONCURRENT)
               & ~ngx_http_ai_meter_bit(Q_MONEY);
    }

    ask.id = l->id;
    ask.owner = ngx_http_ai_zone_owner();
    ask.now = ngx_http_ai_zone_now();
    ask.deadline = ask.now + l->deadline;
    ask.show = show;

    for ( /* void */ ; l->next < l->n; l->next++) {
        t = &l->tickets[l->next];

        rc = ngx_http_ai_limit_take(r, l, t, &ask);

        if (rc == NGX_OK) {
            continue;
        }

        if (rc == NGX_AGAIN) {
            return NGX_AGAIN;
        }

        if (rc == NGX_ERROR) {
            ngx_http_ai_limit_release(l, 0);
            return NGX_ERROR;
        }

        if (l->refused == NULL || !t->dry) {
            l->refused = t;
        }

        ngx_http_ai_limit_log(r, l, t);

        if (t->dry) {
            l->dry = 1;
            l->forbidden = 0;
            l->unpriced = 0;
            l->full = 0;
            l->away = 0;
            continue;
        }

        l->dry = 0;
        ngx_http_ai_limit_release(l, show);

        return ngx_http_ai_limit_refuse(r, l);
    }

    if (l->capped && ngx_http_ai_limit_cap(l) != NGX_OK) {
        ngx_http_ai_limit_log(r, l, l->refused);

        l->dry = 0;
        ngx_http_ai_limit_release(l, show);

        return ngx_http_ai_limit_refuse(r, l);
    }

    l->refreshed = ask.now;
    ngx_http_ai_zone_running(l);

    if (l->ctx->stream) {
        ngx_http_ai_limit_watch(l);
    }

    return NGX_OK;
}


/* the zones that have a key and a limit for this request */

static ngx_int_t
ngx_http_ai_limit_prepare(ngx_http_request_t *r, ngx_http_ai_limited_t *l,
    ngx_http_ai_ratelimit_loc_conf_t *rlcf, ngx_http_ai_limit_state_t *states)
{
    ngx_int_t                           rc;
    ngx_uint_t                          i, own;
    ngx_http_ai_ticket_t               *t;
    ngx_http_ai_limit_use_t            *use;
    ngx_http_ai_limit_zone_t           *zone;
    ngx_http_ai_principal_t            *principal;
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    rmcf = ngx_http_get_module_main_conf(r, ngx_http_ai_ratelimit_module);

    use = rlcf->uses->elts;
    principal = l->ctx->principal;

    /* may limits be other than those of the zone? */

    own = (rmcf->switch_data
           || (principal && (principal->limits.len || principal->quotas.len)));

    for (i = 0; i < rlcf->uses->nelts; i++) {

        zone = use[i].zone;
        t = &l->tickets[l->n];

        if (zone->constant.len) {
            t->key = zone->constant;
            t->guess = zone->guesses;

        } else {
            rc = ngx_http_ai_limit_key(r, zone, &t->key, t->room);

            if (rc == NGX_DECLINED) {
                continue;
            }

            if (rc != NGX_OK) {
                return NGX_ERROR;
            }

            t->guess = ngx_http_ai_key_guess(zone, &t->key);
        }

        ngx_http_ai_zone_warm(zone, *t->guess, 0);

        /* the rest is set when it is taken */

        t->zone = zone;
        t->limits = zone->limits;
        t->units = zone->units;
        t->meters = zone->given;
        t->zeros = zone->zeros;
        t->states = states;
        t->overrun = use[i].overrun;
        t->output = 0;
        t->cut = NULL;
        t->waiter = NULL;
        t->pending = NULL;
        t->step = NGX_HTTP_AI_LIMIT_TOPUP;
        t->hold.key = 0;
        t->passed = 0;
        t->taken = 0;
        t->shown = 0;
        t->bound = 0;
        t->dry = (rlcf->dry & ((zone->kind == NGX_HTTP_AI_ZONE_LIMIT)
                               ? NGX_HTTP_AI_DRY_LIMIT
                               : NGX_HTTP_AI_DRY_QUOTA))
                 != 0;

        if ((own || zone->variable)
            && ngx_http_ai_ticket_limits(r, l, t) != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (t->meters == 0) {
            continue;
        }

        l->n++;
        l->meters |= t->meters;
        l->shared |= (zone->redis != NULL);
        l->capped |= (t->overrun == NGX_HTTP_AI_OVERRUN_CUT);

        states += ngx_http_ai_kind_meters(zone->kind);
    }

    return NGX_OK;
}


/*
 * A text has no more tokens than bytes.  Where rates have plenty left that is
 * enough for a request which soon gets back what it did not need; quotas would
 * keep what a request held that died.
 */

static void
ngx_http_ai_limit_expect(ngx_http_request_t *r, ngx_http_ai_limited_t *l)
{
    ngx_http_ai_ctx_t                  *ctx;
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    ctx = l->ctx;

    if (!(l->meters & NGX_HTTP_AI_LIMIT_TOKENS)
        || ctx->op == NGX_HTTP_AI_OP_PASS
        || ctx->op == NGX_HTTP_AI_OP_COUNT_TOKENS)
    {
        ngx_http_ai_limit_sum(l);
        return;
    }

    rmcf = ngx_http_get_module_main_conf(r, ngx_http_ai_ratelimit_module);

    l->output = ngx_http_ai_output_estimate(rmcf, ctx);

    if (ctx->parsed && !ctx->stream && !l->shared
        && !(l->meters & (ngx_http_ai_meter_bit(Q_TOKENS)
                          |ngx_http_ai_meter_bit(Q_MONEY))))
    {
        l->bound = 1;
        l->input = ctx->body.len;

        ngx_http_ai_limit_sum(l);
        return;
    }

    ngx_http_ai_limit_count(r, l);
}


static void
ngx_http_ai_limit_count(ngx_http_request_t *r, ngx_http_ai_limited_t *l)
{
    ngx_http_ai_ctx_t                  *ctx;
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    rmcf = ngx_http_get_module_main_conf(r, ngx_http_ai_ratelimit_module);

    ctx = l->ctx;

    l->bound = 0;
    l->input = rmcf->api->input_estimate(ctx);

    if (ctx->price && ctx->price->image) {
        (void) rmcf->api->images(ctx);
    }

    ngx_http_ai_limit_sum(l);
}


/* all meters, also those without a limit: a reaper needs to know the input */

static void
ngx_http_ai_limit_sum(ngx_http_ai_limited_t *l)
{
    if (l->meters & ngx_http_ai_meter_bit(Q_MONEY)) {
        ngx_http_ai_limit_amounts(l->ctx, l->input, l->output, &l->amounts);

    } else {
        ngx_http_ai_limit_tokens(l->input, l->output, &l->amounts);
    }

    l->amounts.v[NGX_HTTP_AI_METER_REQUESTS] = 1;
    l->amounts.v[NGX_HTTP_AI_METER_CONCURRENT] = 1;
    l->amounts.v[NGX_HTTP_AI_METER_Q_REQUESTS] = 1;
}


void
ngx_http_ai_limit_amounts(ngx_http_ai_ctx_t *ctx, int64_t input,
    int64_t output, ngx_http_ai_amounts_t *amounts)
{
    int64_t     cost;
    ngx_uint_t  more;

    more = (input == NGX_HTTP_AI_LIMIT_MORE);
    input = ngx_max(input, 0);

    ngx_http_ai_limit_tokens(input, output, amounts);

    if (ctx->price == NULL) {
        return;
    }

    cost = more ? ngx_http_ai_price_output(ctx->price, ctx->input_estimate,
                                           output)
                : ngx_http_ai_price_estimate(ctx->price, input, output,
                                             ctx->images);

    amounts->v[NGX_HTTP_AI_METER_Q_MONEY] = ngx_min(cost,
                                                    NGX_HTTP_AI_LIMIT_MOST);
}


/* money needs a price, if the zone has nothing else to say about it */

static ngx_uint_t
ngx_http_ai_limit_unpriced(ngx_http_ai_limited_t *l, ngx_http_ai_ticket_t *t)
{
    ngx_http_ai_ctx_t  *ctx;

    ctx = l->ctx;

    if (t->zone->unknown_price || ctx->op == NGX_HTTP_AI_OP_COUNT_TOKENS) {
        return 0;
    }

    if (ctx->price == NULL) {
        l->unpriced = 1;
        l->refusal.meter = NGX_HTTP_AI_METER_Q_MONEY;
        return 1;
    }

    if (!t->dry) {
        ctx->need_price = 1;
    }

    return 0;
}


/* the store would let the first one have all that there is */

static ngx_uint_t
ngx_http_ai_limit_forbidden(ngx_http_ai_limited_t *l, ngx_http_ai_ticket_t *t)
{
    ngx_uint_t  i;

    for (i = 0; t->zeros >> i; i++) {
        if ((t->zeros & ((ngx_uint_t) 1 << i)) && t->limits[i].limit == 0) {
            l->forbidden = 1;
            l->refusal.meter = i;
            return 1;
        }
    }

    return 0;
}


/* NGX_DECLINED: refused, l->refusal says by what */

static ngx_int_t
ngx_http_ai_limit_take(ngx_http_request_t *r, ngx_http_ai_limited_t *l,
    ngx_http_ai_ticket_t *t, ngx_http_ai_limit_ask_t *ask)
{
    ngx_int_t                  rc;
    ngx_http_ai_limit_e        e;
    ngx_http_ai_limit_zone_t  *zone;

    zone = t->zone;

    if (t->waiter) {
        rc = ngx_http_ai_lease_take(r, l, t, ask->show);
        goto shared;
    }

    if ((t->meters & ngx_http_ai_meter_bit(Q_MONEY))
        && ngx_http_ai_limit_unpriced(l, t))
    {
        return NGX_DECLINED;
    }

    t->bound = l->bound;
    t->held = l->amounts;

    if (zone->kind != NGX_HTTP_AI_ZONE_LIMIT) {
        ngx_http_ai_ticket_windows(t, ask->now);
    }

    if (zone->sh->nraises && ngx_http_ai_ticket_own(r->pool, t) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_ai_zone_lock(zone);

    if (t->limits != zone->limits) {
        ngx_http_ai_raise_apply(zone, &t->key, t->limits, ask->now);
    }

    if (t->zeros && ngx_http_ai_limit_forbidden(l, t)) {
        ngx_http_ai_zone_unlock(zone);
        return NGX_DECLINED;
    }

    if (zone->redis) {
        ngx_http_ai_zone_unlock(zone);

        rc = ngx_http_ai_lease_take(r, l, t, ask->show);
        goto shared;
    }

    t->hold.key = *t->guess;
    ask->amounts = &t->held;

    e = ngx_http_ai_limit_reserve_of(zone->store, &t->key, ask, t->limits,
                                     t->bound
                                     ? t->meters | NGX_HTTP_AI_LIMIT_BOUND
                                     : t->meters,
                                     &t->hold, &l->refusal, t->states);
    *t->guess = t->hold.key;

    if (e == NGX_HTTP_AI_LIMIT_SCARCE) {
        ngx_http_ai_zone_unlock(zone);

        ngx_http_ai_limit_count(r, l);

        return ngx_http_ai_limit_take(r, l, t, ask);
    }

    if (ask->show && e != NGX_HTTP_AI_LIMIT_FULL) {

        if (t->hold.index == 0) {
            ngx_http_ai_ticket_peek(t, ask->now);
        }

        t->shown = 1;
    }

    ngx_http_ai_zone_unlock(zone);

    switch (e) {

    case NGX_HTTP_AI_LIMIT_OK:
    case NGX_HTTP_AI_LIMIT_REPEATED:
        t->taken = 1;
        t->output = l->output;

        if (t->hold.cut) {
            ngx_http_ai_limit_granted(l, t);
        }

        return NGX_OK;

    case NGX_HTTP_AI_LIMIT_FULL:
        l->full = 1;
        break;

    default:
        break;
    }

    return NGX_DECLINED;

shared:

    if (rc == NGX_OK) {
        ngx_http_ai_limit_granted(l, t);
    }

    return rc;
}


/*
 * An estimate above a whole limit was cut down to it: so much less output is
 * held.
 */

static void
ngx_http_ai_limit_granted(ngx_http_ai_limited_t *l, ngx_http_ai_ticket_t *t)
{
    int64_t                 lack, price;
    ngx_uint_t              i;
    ngx_http_ai_amounts_t   one;

    t->output = l->output;

    for (i = 0; t->meters >> i; i++) {

        if (!(t->meters & ((ngx_uint_t) 1 << i))
            || t->held.v[i] <= t->limits[i].limit)
        {
            continue;
        }

        lack = t->held.v[i] - t->limits[i].limit;
        t->held.v[i] = t->limits[i].limit;

        ngx_http_ai_limit_amounts(l->ctx, NGX_HTTP_AI_LIMIT_MORE, 1, &one);

        if (one.v[i] == 0) {
            continue;
        }

        price = (i == NGX_HTTP_AI_METER_Q_MONEY)
                ? ngx_http_ai_price_rate(l->ctx->price,
                                         l->ctx->input_estimate)
                : 1000;
        lack = (lack < NGX_HTTP_AI_LIMIT_MOST / 1024)
               ? (lack * 1000 + price - 1) / price : l->output;

        t->output = ngx_min(t->output, l->output - ngx_min(lack, l->output));
    }
}


void
ngx_http_ai_ticket_peek(ngx_http_ai_ticket_t *t, int64_t now)
{
    ngx_http_ai_limit_zone_t   *zone;
    ngx_http_ai_limit_state_t   states[NGX_HTTP_AI_METER_MAX];

    zone = t->zone;

    ngx_http_ai_limit_peek(zone->store, &t->key, now, t->limits, states);

    if (zone->redis) {
        ngx_http_ai_lease_states(zone, &t->key, states, now);
    }

    ngx_memcpy(t->states, states,
               ngx_http_ai_kind_meters(zone->kind)
               * sizeof(ngx_http_ai_limit_state_t));
}


/* all or none: those before the one that refused get theirs back */

void
ngx_http_ai_limit_release(ngx_http_ai_limited_t *l, ngx_uint_t show)
{
    int64_t                 now;
    ngx_uint_t              i;
    ngx_http_ai_ticket_t   *t;
    ngx_http_ai_amounts_t   none;

    ngx_memzero(&none, sizeof(ngx_http_ai_amounts_t));

    now = ngx_http_ai_zone_now();

    for (i = 0; i < l->n; i++) {
        t = &l->tickets[i];

        if (!t->taken) {
            continue;
        }

        t->taken = 0;

        ngx_http_ai_zone_lock(t->zone);

        (void) ngx_http_ai_limit_settle(t->zone->store, &t->hold, l->id, now,
                                        &none);

        if (t->zone->redis) {
            ngx_http_ai_lease_touch(t->zone, &t->key);
        }

        if (show) {
            ngx_http_ai_ticket_peek(t, now);
        }

        ngx_http_ai_zone_unlock(t->zone);
    }
}


static void
ngx_http_ai_limit_log(ngx_http_request_t *r, ngx_http_ai_limited_t *l,
    ngx_http_ai_ticket_t *t)
{
    ngx_uint_t  level;

    if (l->away) {

        if (ngx_current_msec - t->zone->complained < 60000
            && t->zone->complained)
        {
            return;
        }

        t->zone->complained = ngx_current_msec;

        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "ai ratelimit: zone \"%V\": redis \"%V\" does not "
                      "answer, requests are refused", &t->zone->name,
                      &t->zone->redis_name);
        return;
    }

    if (l->full) {

        /* once a minute: there may be very many */

        if (t->zone->complained
            && ngx_current_msec - t->zone->complained < 60000)
        {
            return;
        }

        t->zone->complained = ngx_current_msec;

        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "ai ratelimit: zone \"%V\" is full, requests are "
                      "refused: increase its size", &t->zone->name);
        return;
    }

    level = (l->refusal.held && !l->unpriced && !l->forbidden)
            ? NGX_LOG_INFO : NGX_LOG_WARN;

    ngx_log_error(level, r->connection->log, 0,
                  "ai ratelimit: %s by zone \"%V\", key \"%V\": %s%V",
                  t->dry ? "would be refused (dry run)" : "refused",
                  &t->zone->name, &t->key,
                  l->unpriced ? "no price is known for " : "",
                  l->unpriced ? &l->ctx->model
                              : ngx_http_ai_meter_name(l->refusal.meter));
}
