
/*
 * Copyright (C) nginx AI gateway authors
 */


/* what a zone's limits are for one request */


#include <ngx_sha1.h>
#include "ngx_http_ai_ratelimit.h"


typedef struct {
    ngx_http_ai_limit_t        limits[NGX_HTTP_AI_METER_MAX];
    ngx_http_ai_window_e       units[NGX_HTTP_AI_METER_MAX];
} ngx_http_ai_own_limits_t;


static void ngx_http_ai_limit_bits(ngx_http_ai_limit_t *limits,
    ngx_uint_t *given, ngx_uint_t *zeros);
static ngx_int_t ngx_http_ai_ticket_overrides(ngx_http_request_t *r,
    ngx_http_ai_limited_t *l, ngx_http_ai_ticket_t *t, ngx_str_t *text);
static void ngx_http_ai_limit_set(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_limit_t *limits, ngx_http_ai_window_e *units,
    ngx_http_ai_meter_e meter, ngx_http_ai_quantity_t *rate);
static void ngx_http_ai_raise_key(ngx_str_t *key, u_char *id);


/* ms of the units that are no windows of the calendar */

static int64_t  ngx_http_ai_periods[] = {
    1000, 60000, 3600000, 86400000, 604800000
};


ngx_int_t
ngx_http_ai_ticket_limits(ngx_http_request_t *r, ngx_http_ai_limited_t *l,
    ngx_http_ai_ticket_t *t)
{
    ngx_str_t                          *text, value;
    ngx_uint_t                          i;
    const char                         *error;
    ngx_http_ai_amount_t               *amount;
    ngx_http_ai_quantity_t              rate;
    ngx_http_ai_limit_zone_t           *zone;
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    zone = t->zone;
    text = NULL;

    if (l->ctx->principal) {
        text = (zone->kind == NGX_HTTP_AI_ZONE_LIMIT)
               ? &l->ctx->principal->limits : &l->ctx->principal->quotas;
    }

    rmcf = ngx_http_get_module_main_conf(r, ngx_http_ai_ratelimit_module);

    if ((zone->variable || (text && text->len))
        && ngx_http_ai_ticket_own(r->pool, t) != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (i = 0; zone->variable >> i; i++) {

        if (!(zone->variable & ((ngx_uint_t) 1 << i))) {
            continue;
        }

        amount = &zone->amounts[i];

        if (ngx_http_complex_value(r, amount->value, &value) != NGX_OK) {
            return NGX_ERROR;
        }

        rate.unit = NGX_ERROR;

        error = ngx_http_ai_quantity_parse(&value, i, &rate);

        if (error) {
            ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                          "ai ratelimit: zone \"%V\": \"%V=%V\" is \"%V\": "
                          "%s", &zone->name, ngx_http_ai_meter_name(i),
                          &amount->text, &value, error);
            return NGX_ERROR;
        }

        ngx_http_ai_limit_set(zone, t->limits, t->units, i, &rate);
    }

    if (text && text->len
        && ngx_http_ai_ticket_overrides(r, l, t, text) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (rmcf->switch_data
        && ngx_http_ai_switch_raises(rmcf, r->pool, t) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (t->limits != zone->limits) {
        ngx_http_ai_limit_bits(t->limits, &t->meters, &t->zeros);
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_ticket_own(ngx_pool_t *pool, ngx_http_ai_ticket_t *t)
{
    ngx_http_ai_own_limits_t  *own;

    if (t->limits != t->zone->limits) {
        return NGX_OK;
    }

    own = ngx_palloc(pool, sizeof(ngx_http_ai_own_limits_t));
    if (own == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(own->limits, t->limits, sizeof(own->limits));
    ngx_memcpy(own->units, t->units, sizeof(own->units));

    t->limits = own->limits;
    t->units = own->units;

    return NGX_OK;
}


static void
ngx_http_ai_limit_bits(ngx_http_ai_limit_t *limits, ngx_uint_t *given,
    ngx_uint_t *zeros)
{
    ngx_uint_t  i;

    *given = 0;
    *zeros = 0;

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
        *given |= (ngx_uint_t) (limits[i].limit >= 0) << i;
        *zeros |= (ngx_uint_t) (limits[i].limit == 0) << i;
    }
}


void
ngx_http_ai_zone_limits(ngx_http_ai_limit_zone_t *zone)
{
    ngx_uint_t             i;
    ngx_http_ai_amount_t  *amount;

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
        amount = &zone->amounts[i];

        zone->limits[i].limit = -1;

        if (amount->set && amount->value) {
            zone->variable |= (ngx_uint_t) 1 << i;

        } else if (amount->set) {
            ngx_http_ai_limit_set(zone, zone->limits, zone->units, i,
                                  &amount->rate);
        }
    }

    ngx_http_ai_limit_bits(zone->limits, &zone->given, &zone->zeros);
}


static void
ngx_http_ai_limit_set(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_limit_t *limits, ngx_http_ai_window_e *units,
    ngx_http_ai_meter_e meter, ngx_http_ai_quantity_t *rate)
{
    ngx_http_ai_limit_t  *limit;

    limit = &limits[meter];

    limit->limit = rate->n;
    units[meter] = rate->unit;

    if (meter < NGX_HTTP_AI_METER_CONCURRENT && rate->n >= 0) {
        limit->period = ngx_http_ai_periods[rate->unit];
    }

    if (meter == NGX_HTTP_AI_METER_REQUESTS) {
        limit->burst = zone->burst;
    }
}


/*
 * What the caller's key says of this zone replaces what the zone says:
 * {"perkey":{"requests":"120r/m","concurrent":50}}; null is no limit.
 */

static ngx_int_t
ngx_http_ai_ticket_overrides(ngx_http_request_t *r, ngx_http_ai_limited_t *l,
    ngx_http_ai_ticket_t *t, ngx_str_t *text)
{
    ngx_str_t                  value;
    ngx_uint_t                 i, n, obj, type;
    const char                *error;
    ngx_http_ai_quantity_t         rate;
    ngx_http_ai_json_t         j;
    ngx_http_ai_json_node_t    nodes[32];
    ngx_http_ai_principal_t   *principal;
    ngx_http_ai_limit_zone_t  *zone;
    ngx_http_ai_meter_name_t  *m;

    zone = t->zone;
    principal = l->ctx->principal;

    ngx_memzero(&j, sizeof(ngx_http_ai_json_t));

    j.pool = r->pool;
    j.nodes = nodes;
    j.nalloc = 32;

    if (ngx_http_ai_json_parse(&j, text->data, text->len) != NGX_OK) {
        error = "it is no JSON object";
        value = *text;
        i = 0;
        goto invalid;
    }

    obj = ngx_http_ai_json_get(&j, 0, (char *) zone->name.data,
                               zone->name.len);

    if (ngx_http_ai_json_type(&j, obj) != NGX_HTTP_AI_JSON_OBJECT) {
        return NGX_OK;
    }

    for (m = ngx_http_ai_meter_names(zone->kind); m->name.len; m++) {

        i = m->meter;
        n = ngx_http_ai_json_get(&j, obj, (char *) m->name.data, m->name.len);

        if (n == NGX_HTTP_AI_JSON_NONE) {
            continue;
        }

        type = ngx_http_ai_json_type(&j, n);
        value = ngx_http_ai_json_raw(&j, n);

        rate.n = -1;
        rate.unit = t->units[i];

        if (t->limits[i].limit < 0) {
            /* the zone has no unit that a bare number could have */
            rate.unit = NGX_ERROR;
        }

        if (type == NGX_HTTP_AI_JSON_NULL) {
            ngx_http_ai_limit_set(zone, t->limits, t->units, i, &rate);
            continue;
        }

        if (type != NGX_HTTP_AI_JSON_STRING && type != NGX_HTTP_AI_JSON_NUMBER)
        {
            error = "it is a string such as \"60r/m\"";
            goto invalid;
        }

        error = ngx_http_ai_quantity_parse(&value, i, &rate);

        if (error) {
            goto invalid;
        }

        ngx_http_ai_limit_set(zone, t->limits, t->units, i, &rate);
    }

    return NGX_OK;

invalid:

    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "ai ratelimit: key \"%V\": limit \"%V\" of zone \"%V\" is "
                  "\"%V\": %s", &principal->key_id,
                  ngx_http_ai_meter_name(i), &zone->name, &value, error);

    return NGX_ERROR;
}


void
ngx_http_ai_ticket_windows(ngx_http_ai_ticket_t *t, int64_t now)
{
    ngx_uint_t                 i, first;
    ngx_http_ai_limit_t       *limit;
    ngx_http_ai_limit_zone_t  *zone;

    zone = t->zone;

    if (zone->kind == NGX_HTTP_AI_ZONE_LIMIT) {
        return;
    }

    for (i = NGX_HTTP_AI_METER_Q_REQUESTS; i < NGX_HTTP_AI_METER_MAX; i++) {
        limit = &t->limits[i];

        if (limit->limit < 0 || (now >= limit->start && now < limit->end)) {
            continue;
        }

        first = (t->units[i] == NGX_HTTP_AI_WINDOW_WEEK) ? zone->week
                                                         : zone->month;

        ngx_http_ai_window(zone->tz, t->units[i], first ? first : 1, now,
                           &limit->start, &limit->end);
    }
}


static void
ngx_http_ai_raise_key(ngx_str_t *key, u_char *id)
{
    ngx_sha1_t  sha1;

    ngx_sha1_init(&sha1);
    ngx_sha1_update(&sha1, key->data, key->len);
    ngx_sha1_final(id, &sha1);
}


void
ngx_http_ai_raise_apply(ngx_http_ai_limit_zone_t *zone, ngx_str_t *key,
    ngx_http_ai_limit_t *limits, int64_t now)
{
    u_char                id[20];
    ngx_uint_t            i;
    ngx_http_ai_limit_t  *limit;
    ngx_http_ai_raise_t  *raise;

    if (zone->sh->nraises == 0) {
        return;
    }

    ngx_http_ai_raise_key(key, id);

    raise = zone->sh->raises;

    for (i = 0; i < NGX_HTTP_AI_LIMIT_RAISES; i++) {

        if (raise[i].until <= now
            || ngx_memcmp(raise[i].key, id, sizeof(id)) != 0)
        {
            continue;
        }

        limit = &limits[raise[i].meter];

        if (limit->limit < 0) {
            continue;
        }

        limit->limit = ngx_min(limit->limit + raise[i].amount,
                               NGX_HTTP_AI_LIMIT_MOST);

        if (limit->burst) {
            limit->burst = ngx_min(limit->burst + raise[i].amount,
                                   NGX_HTTP_AI_LIMIT_MOST);
        }
    }
}


/* NGX_DECLINED: all places are taken */

ngx_int_t
ngx_http_ai_raise_set(ngx_http_ai_limit_zone_t *zone, ngx_str_t *key,
    ngx_uint_t meter, int64_t amount, int64_t until, int64_t now)
{
    u_char                  id[20];
    ngx_uint_t              i, n;
    ngx_http_ai_raise_t    *raise;
    ngx_http_ai_zone_sh_t  *sh;

    ngx_http_ai_raise_key(key, id);

    sh = zone->sh;
    raise = sh->raises;
    n = NGX_HTTP_AI_LIMIT_RAISES;

    for (i = 0; i < NGX_HTTP_AI_LIMIT_RAISES; i++) {

        if (raise[i].until > now && raise[i].meter == meter
            && ngx_memcmp(raise[i].key, id, sizeof(id)) == 0)
        {
            n = i;
            break;
        }

        if (n == NGX_HTTP_AI_LIMIT_RAISES && raise[i].until <= now) {
            n = i;
        }
    }

    if (n == NGX_HTTP_AI_LIMIT_RAISES) {
        return NGX_DECLINED;
    }

    raise = &raise[n];

    raise->until = 0;
    raise->meter = meter;
    raise->amount = amount;
    ngx_memcpy(raise->key, id, sizeof(id));

    if (amount) {
        raise->until = until;
    }

    for (n = 0, i = 0; i < NGX_HTTP_AI_LIMIT_RAISES; i++) {
        n += (sh->raises[i].until > now);
    }

    sh->nraises = n;

    return NGX_OK;
}
