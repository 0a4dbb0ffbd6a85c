
/*
 * Copyright (C) nginx AI gateway authors
 */


/* the state of all zones for the operator, who may reset and raise a limit */


#include "ngx_http_ai_ratelimit_lease.h"
#include "ngx_http_ai_send.h"


/* keys that are read under the lock at once, and shown when none is asked */
#define NGX_HTTP_AI_VIEW_BATCH  64
#define NGX_HTTP_AI_VIEW_MAX    1000


typedef struct {
    ngx_str_t                  zone;
    ngx_str_t                  key;
    ngx_uint_t                 from;
    ngx_uint_t                 max;
    unsigned                   has_key:1;
    unsigned                   check:1;
} ngx_http_ai_view_args_t;


typedef struct {
    u_char                     data[NGX_HTTP_AI_LIMIT_KEY_MAX];
    size_t                     len;
    ngx_uint_t                 holds;
    ngx_http_ai_limit_state_t  states[NGX_HTTP_AI_METER_MAX];
} ngx_http_ai_view_entry_t;


static ngx_int_t ngx_http_ai_view_handler(ngx_http_request_t *r);
static void ngx_http_ai_view_body(ngx_http_request_t *r);
static ngx_int_t ngx_http_ai_view_change(ngx_http_request_t *r);
static ngx_int_t ngx_http_ai_view_raise(ngx_http_request_t *r,
    ngx_http_ai_limit_zone_t *zone, ngx_str_t *key, const char **error);
static ngx_int_t ngx_http_ai_view_wait(ngx_http_request_t *r, ngx_int_t rc);
static void ngx_http_ai_view_reset(ngx_http_request_t *r, ngx_uint_t failed);
static void ngx_http_ai_view_raised(ngx_http_request_t *r,
    ngx_uint_t failed);
static void ngx_http_ai_view_changed(ngx_http_request_t *r,
    ngx_uint_t failed, const char *text);
static ngx_int_t ngx_http_ai_view_show(ngx_http_request_t *r,
    ngx_http_ai_ratelimit_main_conf_t *rmcf);
static ngx_int_t ngx_http_ai_view_zone(ngx_http_request_t *r,
    ngx_http_ai_limit_zone_t *zone, ngx_http_ai_view_args_t *args,
    ngx_http_ai_out_t *out);
static void ngx_http_ai_view_entry(ngx_http_ai_view_entry_t *e,
    ngx_http_ai_limit_zone_t *zone, ngx_http_ai_out_t *out);
static void ngx_http_ai_view_count(ngx_http_ai_out_t *out, const char *name,
    int64_t n);
static ngx_int_t ngx_http_ai_view_arg(ngx_http_request_t *r,
    const char *name, ngx_str_t *value);
static ngx_int_t ngx_http_ai_view_error(ngx_http_request_t *r,
    ngx_uint_t status, const char *text);


char *
ngx_http_ai_limit_view(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_ratelimit_loc_conf_t *rlcf = conf;

    ngx_str_t                 *value;
    ngx_http_core_loc_conf_t  *clcf;

    if (rlcf->view) {
        return "is duplicate";
    }

    rlcf->view = 1;

    if (cf->args->nelts == 2) {
        value = cf->args->elts;

        if (!ngx_http_ai_str_is(&value[1], "write")) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "unknown parameter \"%V\" of "
                               "\"ai_limit_view\", it has \"write\"",
                               &value[1]);
            return NGX_CONF_ERROR;
        }

        rlcf->view_write = 1;
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = ngx_http_ai_view_handler;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_ai_view_handler(ngx_http_request_t *r)
{
    ngx_int_t                           rc;
    ngx_http_ai_ratelimit_loc_conf_t   *rlcf;
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    rlcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_ratelimit_module);
    rmcf = ngx_http_get_module_main_conf(r, ngx_http_ai_ratelimit_module);

    if (r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD)) {

        rc = ngx_http_discard_request_body(r);
        if (rc != NGX_OK) {
            return rc;
        }

        return ngx_http_ai_view_show(r, rmcf);
    }

    if (r->method != NGX_HTTP_POST || !rlcf->view_write) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    /* what is to be done is in the arguments */

    rc = ngx_http_read_client_request_body(r, ngx_http_ai_view_body);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    return NGX_DONE;
}


static void
ngx_http_ai_view_body(ngx_http_request_t *r)
{
    ngx_http_finalize_request(r, ngx_http_ai_view_change(r));
}


static ngx_int_t
ngx_http_ai_view_change(ngx_http_request_t *r)
{
    ngx_int_t                           rc;
    ngx_str_t                           name, key, action, all;
    ngx_uint_t                          n, has_key;
    const char                         *error;
    ngx_http_ai_out_t                   out;
    ngx_http_ai_limit_zone_t           *zone;
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    rmcf = ngx_http_get_module_main_conf(r, ngx_http_ai_ratelimit_module);

    if (ngx_http_ai_view_arg(r, "zone", &name) != NGX_OK) {
        return ngx_http_ai_view_error(r, 400, "the argument \"zone\" is "
                                              "missing");
    }

    zone = ngx_http_ai_limit_zone_find(rmcf, &name);

    if (zone == NULL) {
        return ngx_http_ai_view_error(r, 404, "there is no such zone");
    }

    has_key = (ngx_http_ai_view_arg(r, "key", &key) == NGX_OK);

    if (ngx_http_ai_view_arg(r, "action", &action) != NGX_OK) {
        ngx_str_set(&action, "reset");
    }

    if (ngx_http_ai_out_init(&out, r->pool, 128) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ngx_http_ai_str_is(&action, "reset")) {

        if (!has_key
            && (ngx_http_ai_view_arg(r, "all", &all) != NGX_OK
                || !ngx_http_ai_str_is(&all, "1")))
        {
            return ngx_http_ai_view_error(r, 400, "name a \"key\", or "
                                                  "\"all=1\"");
        }

        if (zone->redis && !has_key) {
            return ngx_http_ai_view_error(r, 409, "the zone is shared by "
                                          "Redis, name a \"key\"");
        }

        if (zone->redis) {
            ngx_log_error(NGX_LOG_NOTICE, r->connection->log, 0,
                          "ai ratelimit: zone \"%V\", key \"%V\": to be reset "
                          "on all nodes", &zone->name, &key);

            return ngx_http_ai_view_wait(r,
                           ngx_http_ai_change_send(r, zone, &key, 0, 0, 0,
                                                   ngx_http_ai_view_reset));
        }

        ngx_http_ai_zone_lock(zone);

        n = ngx_http_ai_limit_reset(zone->store, has_key ? &key : NULL);
        zone->sh->changes++;

        ngx_http_ai_zone_unlock(zone);

        ngx_log_error(NGX_LOG_NOTICE, r->connection->log, 0,
                      "ai ratelimit: zone \"%V\": %ui keys were reset",
                      &zone->name, n);

        ngx_http_ai_out_lit(&out, "{\"reset\":");
        ngx_http_ai_out_int(&out, n);
        ngx_http_ai_out_lit(&out, "}\n");

        return ngx_http_ai_send_json(r, NGX_HTTP_OK, &out);
    }

    if (ngx_http_ai_str_is(&action, "raise")) {

        if (!has_key) {
            return ngx_http_ai_view_error(r, 400, "the argument \"key\" is "
                                                  "missing");
        }

        error = NULL;
        rc = ngx_http_ai_view_raise(r, zone, &key, &error);

        if (rc == NGX_DONE) {
            return ngx_http_ai_view_wait(r, NGX_OK);
        }

        if (rc != NGX_OK) {
            return ngx_http_ai_view_error(r, rc, error);
        }

        ngx_http_ai_out_lit(&out, "{\"raised\":1}\n");

        return ngx_http_ai_send_json(r, NGX_HTTP_OK, &out);
    }

    return ngx_http_ai_view_error(r, 400, "\"action\" is \"reset\" or "
                                          "\"raise\"");
}


/* for the answer of Redis; what is to be returned */

static ngx_int_t
ngx_http_ai_view_wait(ngx_http_request_t *r, ngx_int_t rc)
{
    if (rc != NGX_OK) {
        return ngx_http_ai_view_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                      "Redis does not answer");
    }

    r->main->count++;
    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    return NGX_DONE;
}


static void
ngx_http_ai_view_reset(ngx_http_request_t *r, ngx_uint_t failed)
{
    ngx_http_ai_view_changed(r, failed, "{\"reset\":1}\n");
}


static void
ngx_http_ai_view_raised(ngx_http_request_t *r, ngx_uint_t failed)
{
    ngx_http_ai_view_changed(r, failed, "{\"raised\":1}\n");
}


static void
ngx_http_ai_view_changed(ngx_http_request_t *r, ngx_uint_t failed,
    const char *text)
{
    ngx_int_t          rc;
    ngx_http_ai_out_t  out;

    if (failed) {
        rc = ngx_http_ai_view_error(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                    "Redis does not answer");

    } else if (ngx_http_ai_out_init(&out, r->pool, 128) != NGX_OK) {
        rc = NGX_HTTP_INTERNAL_SERVER_ERROR;

    } else {
        ngx_http_ai_out_mem(&out, text, ngx_strlen(text));
        rc = ngx_http_ai_send_json(r, NGX_HTTP_OK, &out);
    }

    ngx_http_finalize_request(r, rc);
}


/* a status and *error, NGX_OK, or NGX_DONE: it waits */

static ngx_int_t
ngx_http_ai_view_raise(ngx_http_request_t *r, ngx_http_ai_limit_zone_t *zone,
    ngx_str_t *key, const char **error)
{
    int64_t                    now, until, amount;
    ngx_int_t                  rc, time;
    ngx_str_t                  value, text;
    const char                *wrong;
    ngx_http_ai_quantity_t         rate;
    ngx_http_ai_meter_name_t  *m;

    if (ngx_http_ai_view_arg(r, "meter", &value) != NGX_OK) {
        *error = "the argument \"meter\" is missing";
        return 400;
    }

    for (m = ngx_http_ai_meter_names(zone->kind); m->name.len; m++) {
        if (m->name.len == value.len
            && ngx_strncmp(m->name.data, value.data, value.len) == 0)
        {
            break;
        }
    }

    if (m->name.len == 0) {
        *error = "the zone has no such meter";
        return 400;
    }

    amount = 0;

    if (ngx_http_ai_view_arg(r, "amount", &text) != NGX_OK) {
        *error = "the argument \"amount\" is missing";
        return 400;
    }

    rate.unit = NGX_HTTP_AI_WINDOW_DAY;
    wrong = ngx_http_ai_quantity_parse(&text, m->meter, &rate);

    if (wrong || rate.n < 0) {
        *error = "the \"amount\" is no number";
        return 400;
    }

    amount = rate.n;
    now = ngx_http_ai_zone_now();

    if (ngx_http_ai_view_arg(r, "time", &value) == NGX_OK) {

        time = ngx_parse_time(&value, 1);

        if (time == NGX_ERROR || time == 0) {
            *error = "the \"time\" is no time such as 1h";
            return 400;
        }

        until = now + (int64_t) time * 1000;

    } else if (zone->kind == NGX_HTTP_AI_ZONE_QUOTA
               && zone->amounts[m->meter].set
               && zone->amounts[m->meter].value == NULL)
    {
        int64_t     start;
        ngx_uint_t  first;

        first = (zone->amounts[m->meter].rate.unit == NGX_HTTP_AI_WINDOW_WEEK)
                ? zone->week : zone->month;

        ngx_http_ai_window(zone->tz, zone->amounts[m->meter].rate.unit,
                           first ? first : 1, now, &start, &until);

    } else {
        until = now + 3600 * 1000;
    }

    if (zone->redis) {

        rc = ngx_http_ai_change_send(r, zone, key, m->meter, amount,
                                     until - now, ngx_http_ai_view_raised);
        if (rc != NGX_OK) {
            *error = "Redis does not answer";
            return 503;
        }

    } else {
        ngx_http_ai_zone_lock(zone);

        rc = ngx_http_ai_raise_set(zone, key, m->meter, amount, until, now);

        ngx_http_ai_zone_unlock(zone);

        if (rc != NGX_OK) {
            *error = "too many limits are raised";
            return 409;
        }
    }

    ngx_log_error(NGX_LOG_NOTICE, r->connection->log, 0,
                  "ai ratelimit: zone \"%V\", key \"%V\": %V is raised by %V "
                  "for %L s", &zone->name, key, &m->name, &text,
                  (until - now) / 1000);

    return zone->redis ? NGX_DONE : NGX_OK;
}


static ngx_int_t
ngx_http_ai_view_show(ngx_http_request_t *r,
    ngx_http_ai_ratelimit_main_conf_t *rmcf)
{
    ngx_int_t                   n;
    ngx_str_t                   value;
    ngx_uint_t                  i, shown;
    ngx_http_ai_out_t           out;
    ngx_http_ai_view_args_t     args;
    ngx_http_ai_limit_zone_t  **zone;

    ngx_memzero(&args, sizeof(ngx_http_ai_view_args_t));

    args.max = NGX_HTTP_AI_VIEW_MAX;

    (void) ngx_http_ai_view_arg(r, "zone", &args.zone);
    args.has_key = (ngx_http_ai_view_arg(r, "key", &args.key) == NGX_OK);

    if (ngx_http_ai_view_arg(r, "max", &value) == NGX_OK) {
        n = ngx_atoi(value.data, value.len);

        if (n == NGX_ERROR || n > 100000) {
            return ngx_http_ai_view_error(r, 400, "\"max\" is a number up to "
                                                  "100000");
        }

        args.max = n;
    }

    if (ngx_http_ai_view_arg(r, "check", &value) == NGX_OK) {
        /* walks through all of the zone under its lock */
        args.check = ngx_http_ai_str_is(&value, "1");
    }

    if (ngx_http_ai_view_arg(r, "from", &value) == NGX_OK) {
        n = ngx_atoi(value.data, value.len);

        if (n == NGX_ERROR) {
            return ngx_http_ai_view_error(r, 400, "\"from\" is a number");
        }

        args.from = n;
    }

    if (ngx_http_ai_out_init(&out, r->pool, 4096) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_ai_out_lit(&out, "{\"zones\":[");

    zone = rmcf->zones.elts;
    shown = 0;

    for (i = 0; i < rmcf->zones.nelts; i++) {

        if (args.zone.len
            && (args.zone.len != zone[i]->name.len
                || ngx_strncmp(args.zone.data, zone[i]->name.data,
                               args.zone.len)
                   != 0))
        {
            continue;
        }

        ngx_http_ai_out_mem(&out, ",", shown ? 1 : 0);

        if (ngx_http_ai_view_zone(r, zone[i], &args, &out) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        shown++;
    }

    if (args.zone.len && shown == 0) {
        return ngx_http_ai_view_error(r, 404, "there is no such zone");
    }

    ngx_http_ai_out_lit(&out, "]}\n");

    return ngx_http_ai_send_json(r, NGX_HTTP_OK, &out);
}


static ngx_int_t
ngx_http_ai_view_zone(ngx_http_request_t *r, ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_view_args_t *args, ngx_http_ai_out_t *out)
{
    int64_t                     now;
    ngx_str_t                   key;
    ngx_uint_t                  i, n, pos, shown, more;
    const char                 *error;
    ngx_http_ai_view_entry_t   *batch, *e;
    ngx_http_ai_limit_stats_t   stats;

    batch = ngx_palloc(r->pool, NGX_HTTP_AI_VIEW_BATCH
                                * sizeof(ngx_http_ai_view_entry_t));
    if (batch == NULL) {
        return NGX_ERROR;
    }

    ngx_http_ai_zone_lock(zone);
    ngx_http_ai_limit_stats(zone->store, &stats);
    error = args->check ? ngx_http_ai_limit_check(zone->store) : NULL;
    ngx_http_ai_zone_unlock(zone);

    ngx_http_ai_out_lit(out, "{\"name\":\"");
    ngx_http_ai_out_escaped(out, zone->name.data, zone->name.len);

    if (zone->kind == NGX_HTTP_AI_ZONE_LIMIT) {
        ngx_http_ai_out_lit(out, "\",\"kind\":\"limit\"");
    } else {
        ngx_http_ai_out_lit(out, "\",\"kind\":\"quota\"");
    }

    ngx_http_ai_view_count(out, "size", zone->shm_zone->shm.size);
    ngx_http_ai_view_count(out, "keys", stats.keys);
    ngx_http_ai_view_count(out, "holds", stats.holds);
    ngx_http_ai_view_count(out, "reserved", stats.reserved);
    ngx_http_ai_view_count(out, "refused", stats.refused);
    ngx_http_ai_view_count(out, "settled", stats.settled);
    ngx_http_ai_view_count(out, "expired", stats.expired);
    ngx_http_ai_view_count(out, "repaired", stats.repaired);
    ngx_http_ai_view_count(out, "evicted", stats.evicted);
    ngx_http_ai_view_count(out, "full", stats.full);

    if (args->check && error == NULL) {
        ngx_http_ai_out_lit(out, ",\"consistent\":true");

    } else if (args->check) {
        ngx_http_ai_out_lit(out, ",\"consistent\":false");
        ngx_log_error(NGX_LOG_ALERT, r->connection->log, 0,
                      "ai ratelimit: zone \"%V\" is not consistent: %s",
                      &zone->name, error);
    }

    ngx_http_ai_out_lit(out, ",\"entries\":[");

    pos = args->from;
    shown = 0;
    more = 1;

    while (more && shown < args->max) {

        /* others wait for the lock for one batch only */

        now = ngx_http_ai_zone_now();

        ngx_http_ai_zone_lock(zone);

        for (n = 0; n < NGX_HTTP_AI_VIEW_BATCH
                    && shown + n < args->max; n++)
        {
            e = &batch[n];

            more = ngx_http_ai_limit_next(zone->store, &pos, &key, now,
                                          e->states, &e->holds);
            if (!more) {
                break;
            }

            if (zone->redis) {
                ngx_http_ai_lease_states(zone, &key, e->states, now);
            }

            e->len = ngx_min(key.len, sizeof(e->data));
            ngx_memcpy(e->data, key.data, e->len);
        }

        ngx_http_ai_zone_unlock(zone);

        for (i = 0; i < n; i++) {
            e = &batch[i];

            if (args->has_key
                && (args->key.len != e->len
                    || ngx_memcmp(args->key.data, e->data, e->len) != 0))
            {
                continue;
            }

            ngx_http_ai_out_mem(out, ",", shown ? 1 : 0);
            ngx_http_ai_view_entry(e, zone, out);
            shown++;
        }
    }

    ngx_http_ai_out_lit(out, "]");

    if (more) {
        ngx_http_ai_view_count(out, "next", pos);
    }

    ngx_http_ai_out_lit(out, "}");

    return out->failed ? NGX_ERROR : NGX_OK;
}


static void
ngx_http_ai_view_entry(ngx_http_ai_view_entry_t *e,
    ngx_http_ai_limit_zone_t *zone, ngx_http_ai_out_t *out)
{
    u_char                      buf[64];
    int64_t                     amounts[4];
    ngx_uint_t                  i;
    ngx_http_ai_limit_state_t  *state;
    ngx_http_ai_meter_name_t   *m;

    static ngx_str_t  names[] = {
        ngx_string("{\"limit\":"),
        ngx_string(",\"used\":"),
        ngx_string(",\"held\":"),
        ngx_string(",\"remaining\":")
    };

    ngx_http_ai_out_lit(out, "{\"key\":\"");
    ngx_http_ai_out_escaped(out, e->data, e->len);
    ngx_http_ai_out_lit(out, "\"");
    ngx_http_ai_view_count(out, "holds", e->holds);

    for (m = ngx_http_ai_meter_names(zone->kind); m->name.len; m++) {
        state = &e->states[m->meter];

        if (state->limit < 0) {
            continue;
        }

        amounts[0] = state->limit;
        amounts[1] = state->used;
        amounts[2] = state->held;
        amounts[3] = state->remaining;

        ngx_http_ai_out_lit(out, ",\"");
        ngx_http_ai_out_str(out, &m->name);
        ngx_http_ai_out_lit(out, "\":");

        for (i = 0; i < 4; i++) {
            ngx_http_ai_out_str(out, &names[i]);
            ngx_http_ai_out_mem(out, buf,
                                ngx_http_ai_limit_amount(buf,
                                                         buf + sizeof(buf),
                                                         m->meter, amounts[i])
                                - buf);
        }

        ngx_http_ai_view_count(out, "reset", (state->reset + 999) / 1000);
        ngx_http_ai_out_lit(out, "}");
    }

    ngx_http_ai_out_lit(out, "}");
}


static void
ngx_http_ai_view_count(ngx_http_ai_out_t *out, const char *name, int64_t n)
{
    ngx_http_ai_out_lit(out, ",\"");
    ngx_http_ai_out_mem(out, name, ngx_strlen(name));
    ngx_http_ai_out_lit(out, "\":");
    ngx_http_ai_out_int(out, n);
}


static ngx_int_t
ngx_http_ai_view_arg(ngx_http_request_t *r, const char *name,
    ngx_str_t *value)
{
    u_char     *dst, *src;
    ngx_str_t   raw;

    ngx_str_null(value);

    if (ngx_http_arg(r, (u_char *) name, ngx_strlen(name), &raw) != NGX_OK) {
        return NGX_DECLINED;
    }

    dst = ngx_pnalloc(r->pool, raw.len + 1);
    if (dst == NULL) {
        return NGX_ERROR;
    }

    value->data = dst;
    src = raw.data;

    ngx_unescape_uri(&dst, &src, raw.len, 0);

    value->len = dst - value->data;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_view_error(ngx_http_request_t *r, ngx_uint_t status,
    const char *text)
{
    ngx_http_ai_out_t  out;

    if (ngx_http_ai_out_init(&out, r->pool, 128) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_ai_out_lit(&out, "{\"error\":\"");
    ngx_http_ai_out_escaped(&out, (u_char *) text, ngx_strlen(text));
    ngx_http_ai_out_lit(&out, "\"}\n");

    return ngx_http_ai_send_json(r, status, &out);
}
