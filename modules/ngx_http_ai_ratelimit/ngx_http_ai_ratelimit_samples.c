
/*
 * Copyright (C) nginx AI gateway authors
 */


/* what zones of limits and quotas have decided and hold, for metrics */


#include "ngx_http_ai_ratelimit.h"


typedef struct {
    ngx_http_ai_limit_stats_t    stats;
    ngx_http_ai_limit_state_t    states[NGX_HTTP_AI_METER_MAX];
    ngx_uint_t                   single;      /* states are those of its only
                                                 key */
} ngx_http_ai_zone_figures_t;


static void ngx_http_ai_samples_look(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_zone_figures_t *f);
static void ngx_http_ai_samples_meters(ngx_http_ai_samples_t *s,
    ngx_http_ai_limit_zone_t *zone, ngx_http_ai_zone_figures_t *f,
    ngx_uint_t what);


void
ngx_http_ai_ratelimit_samples(void *data, ngx_http_ai_samples_t *s)
{
    ngx_http_ai_ratelimit_main_conf_t *rmcf = data;

    int64_t                       value;
    ngx_uint_t                    i, k, n;
    ngx_pool_t                   *pool;
    ngx_http_ai_label_t           labels[2];
    ngx_http_ai_limit_zone_t    **zone;
    ngx_http_ai_zone_figures_t   *f;

    static ngx_str_t              decisions[] = {
        ngx_string("allowed"),
        ngx_string("refused"),
        ngx_string("full")
    };

    static struct {
        ngx_http_ai_samples_e     type;
        const char               *name;
        const char               *help;

    } families[] = {
        { NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_limit_expired_reservations",
          "Reservations that were charged as nobody has settled them." },
        { NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_limit_repairs",
          "Changes that were undone after a process had died in them." },
        { NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_limit_evictions",
          "Keys that gave their place away." },
        { NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_quota_alerts",
          "Thresholds of quotas that were passed (alert=)." },
        { NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_limit_keys",
          "Keys in the zone." },
        { NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_limit_reservations",
          "Reservations of running requests." },
        { NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_limit_zone_size_bytes",
          "Memory of the zone." }
    };

    static struct {
        const char               *name;
        const char               *help;

    } meters[] = {
        { "nginx_ai_limit_amount",
          "Limit of a zone that has one key: requests, tokens or dollars." },
        { "nginx_ai_limit_used", "What is used of it." },
        { "nginx_ai_limit_held", "What running requests hold of it." }
    };

    n = rmcf->zones.nelts;
    zone = rmcf->zones.elts;

    if (n == 0) {
        return;
    }

    pool = ngx_create_pool(4096, ngx_cycle->log);
    if (pool == NULL) {
        return;
    }

    f = ngx_palloc(pool, n * sizeof(ngx_http_ai_zone_figures_t));

    if (f == NULL) {
        ngx_destroy_pool(pool);
        return;
    }

    for (i = 0; i < n; i++) {
        ngx_http_ai_samples_look(zone[i], &f[i]);
    }

    labels[0].name = "zone";
    labels[1].name = "decision";

    s->family(s, NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_limit_decisions",
              "Reservations that were asked for; full: the zone has no room.");

    for (i = 0; i < n; i++) {
        labels[0].value = zone[i]->name;

        for (k = 0; k < 3; k++) {
            labels[1].value = decisions[k];
            s->sample(s, labels, 2, k == 0 ? f[i].stats.reserved
                                  : k == 1 ? f[i].stats.refused
                                           : f[i].stats.full, 0);
        }
    }

    for (k = 0; k < sizeof(families) / sizeof(families[0]); k++) {

        s->family(s, families[k].type, families[k].name, families[k].help);

        for (i = 0; i < n; i++) {

            switch (k) {

            case 0:
                value = f[i].stats.expired;
                break;

            case 1:
                value = f[i].stats.repaired;
                break;

            case 2:
                value = f[i].stats.evicted;
                break;

            case 3:
                value = zone[i]->sh->alerts;
                break;

            case 4:
                value = f[i].stats.keys;
                break;

            case 5:
                value = f[i].stats.holds;
                break;

            default:
                value = zone[i]->shm_zone->shm.size;
            }

            labels[0].value = zone[i]->name;
            s->sample(s, labels, 1, value, 0);
        }
    }

    for (k = 0; k < sizeof(meters) / sizeof(meters[0]); k++) {

        s->family(s, NGX_HTTP_AI_SAMPLES_GAUGE, meters[k].name,
                  meters[k].help);

        for (i = 0; i < n; i++) {
            ngx_http_ai_samples_meters(s, zone[i], &f[i], k);
        }
    }

    ngx_destroy_pool(pool);
}


/* a key without variables is the only one */

static void
ngx_http_ai_samples_look(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_zone_figures_t *f)
{
    ngx_str_t   key;
    ngx_uint_t  pos, holds;

    pos = 0;
    f->single = 0;

    ngx_http_ai_zone_lock(zone);

    ngx_http_ai_limit_stats(zone->store, &f->stats);

    if (zone->key.lengths == NULL) {
        f->single = ngx_http_ai_limit_next(zone->store, &pos, &key,
                                           ngx_http_ai_zone_now(), f->states,
                                           &holds);
    }

    ngx_http_ai_zone_unlock(zone);
}


static void
ngx_http_ai_samples_meters(ngx_http_ai_samples_t *s,
    ngx_http_ai_limit_zone_t *zone, ngx_http_ai_zone_figures_t *f,
    ngx_uint_t what)
{
    int64_t                    value;
    ngx_http_ai_label_t        labels[2];
    ngx_http_ai_limit_state_t *state;
    ngx_http_ai_meter_name_t  *m;

    if (!f->single) {
        return;
    }

    labels[0].name = "zone";
    labels[0].value = zone->name;
    labels[1].name = "meter";

    for (m = ngx_http_ai_meter_names(zone->kind); m->name.len; m++) {
        state = &f->states[m->meter];

        if (state->limit < 0) {
            continue;
        }

        switch (what) {

        case 0:
            value = state->limit;
            break;

        case 1:
            value = state->used;
            break;

        default:
            value = state->held;
        }

        labels[1].value = m->name;
        s->sample(s, labels, 2, value,
                  m->meter == NGX_HTTP_AI_METER_Q_MONEY ? 9 : 0);
    }
}
