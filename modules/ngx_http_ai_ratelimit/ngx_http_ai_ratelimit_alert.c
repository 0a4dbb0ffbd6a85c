
/*
 * Copyright (C) nginx AI gateway authors
 */


/* a quota comes to its end: a line in the log, and a post */


#include "ngx_http_ai_ratelimit_lease.h"


/* use only grows within a window, so each threshold is passed once */

void
ngx_http_ai_alert_passed(ngx_http_ai_webhook_t *hook,
    ngx_http_ai_limit_zone_t *zone, ngx_str_t *key,
    ngx_http_ai_limit_state_t *before, ngx_http_ai_limit_state_t *after,
    ngx_log_t *log)
{
    u_char      used[64], limit[64];
    int64_t     threshold, most;
    ngx_str_t   u, m;
    ngx_uint_t  i, k;

    for (i = NGX_HTTP_AI_METER_Q_REQUESTS; i < NGX_HTTP_AI_METER_MAX; i++) {

        most = after[i].limit;

        if (most <= 0) {
            continue;
        }

        for (k = zone->nalerts; k > 0; k--) {

            threshold = most / 100 * zone->alerts[k - 1]
                        + most % 100 * zone->alerts[k - 1] / 100;

            if (before[i].used >= threshold || after[i].used < threshold) {
                continue;
            }

            (void) ngx_atomic_fetch_add(&zone->sh->alerts, 1);

            u.data = used;
            u.len = ngx_http_ai_limit_amount(used, used + sizeof(used), i,
                                             after[i].used)
                    - used;
            m.data = limit;
            m.len = ngx_http_ai_limit_amount(limit, limit + sizeof(limit), i,
                                             most)
                    - limit;

            ngx_log_error(NGX_LOG_WARN, log, 0,
                          "ai ratelimit: zone \"%V\", key \"%V\": %ui%% of "
                          "the quota of %V is used, %V of %V",
                          &zone->name, key, zone->alerts[k - 1],
                          ngx_http_ai_meter_name(i), &u, &m);

            if (hook) {
                ngx_http_ai_alert_post(hook, zone, key, i,
                                       zone->alerts[k - 1], &after[i]);
            }

            /* one line for all that were passed at once */
            break;
        }
    }
}


/* the reaper tells of a key before and after a charge, under the lock */

void
ngx_http_ai_alert_reaped(void *data, ngx_uint_t pos, ngx_uint_t charged)
{
    ngx_http_ai_alerts_t *alerts = data;

    int64_t                     now;
    ngx_str_t                   key;
    ngx_uint_t                  found, holds;
    ngx_http_ai_alert_key_t    *k;
    ngx_http_ai_limit_state_t  *states;

    k = &alerts->keys[alerts->n];
    states = charged ? k->after : k->before;
    now = ngx_http_ai_zone_now();
    found = pos;

    if (ngx_http_ai_limit_next(alerts->zone->store, &found, &key, now, states,
                               &holds)
        == 0
        || found != pos + 1)
    {
        /* it has used nothing, and was given up */
        return;
    }

    if (alerts->zone->redis) {
        ngx_http_ai_lease_states(alerts->zone, &key, states, now);
    }

    if (charged) {
        k->len = ngx_min(key.len, NGX_HTTP_AI_LIMIT_KEY_MAX);
        ngx_memcpy(k->data, key.data, k->len);
        alerts->n++;
    }
}


void
ngx_http_ai_alert_flush(ngx_http_ai_webhook_t *hook,
    ngx_http_ai_alerts_t *alerts, ngx_log_t *log)
{
    ngx_str_t                 key;
    ngx_uint_t                i;
    ngx_http_ai_alert_key_t  *k;

    for (i = 0; i < alerts->n; i++) {
        k = &alerts->keys[i];

        key.data = k->data;
        key.len = k->len;

        ngx_http_ai_alert_passed(hook, alerts->zone, &key, k->before,
                                 k->after, log);
    }

    alerts->n = 0;
}
