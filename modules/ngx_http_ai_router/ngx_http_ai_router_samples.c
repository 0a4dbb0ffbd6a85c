
/*
 * Copyright (C) nginx AI gateway authors
 */


/* the state of targets, keys and providers, for metrics */


#include "ngx_http_ai_router.h"


typedef void (*ngx_http_ai_router_show_pt)(ngx_http_ai_samples_t *s,
    ngx_http_ai_label_t *labels, ngx_http_ai_health_status_t *status);


static void ngx_http_ai_samples_targets(ngx_http_ai_router_main_conf_t *amcf,
    ngx_http_ai_samples_t *s, ngx_http_ai_router_show_pt show);
static void ngx_http_ai_samples_target(ngx_http_ai_samples_t *s,
    ngx_str_t *model, ngx_http_ai_target_t *target,
    ngx_http_ai_router_show_pt show);
static ngx_uint_t ngx_http_ai_samples_seen(ngx_array_t *targets, ngx_uint_t n,
    ngx_http_ai_health_t *h);
static ngx_uint_t ngx_http_ai_samples_shown(
    ngx_http_ai_router_main_conf_t *amcf, ngx_uint_t n,
    ngx_http_ai_health_t *h);
static ngx_array_t *ngx_http_ai_samples_fallbacks(
    ngx_http_ai_router_loc_conf_t *arlcf);
static void ngx_http_ai_samples_state(ngx_http_ai_samples_t *s,
    ngx_http_ai_label_t *labels, ngx_http_ai_health_status_t *status);
static void ngx_http_ai_samples_opens(ngx_http_ai_samples_t *s,
    ngx_http_ai_label_t *labels, ngx_http_ai_health_status_t *status);
static void ngx_http_ai_samples_cooldown(ngx_http_ai_samples_t *s,
    ngx_http_ai_label_t *labels, ngx_http_ai_health_status_t *status);
static void ngx_http_ai_samples_keys(ngx_http_ai_router_main_conf_t *amcf,
    ngx_http_ai_samples_t *s);
static void ngx_http_ai_samples_running(ngx_http_ai_router_main_conf_t *amcf,
    ngx_http_ai_samples_t *s);


void
ngx_http_ai_router_samples(void *data, ngx_http_ai_samples_t *s)
{
    ngx_http_ai_router_main_conf_t *amcf = data;

    s->family(s, NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_breaker_state",
              "Breaker of a target: 0 closed, 1 half-open, 2 open.");
    ngx_http_ai_samples_targets(amcf, s, ngx_http_ai_samples_state);

    s->family(s, NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_breaker_opens",
              "How often the breaker of a target has opened.");
    ngx_http_ai_samples_targets(amcf, s, ngx_http_ai_samples_opens);

    s->family(s, NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_target_cooldown_seconds",
              "How long a target is not asked, as it has told; 0: it is.");
    ngx_http_ai_samples_targets(amcf, s, ngx_http_ai_samples_cooldown);

    ngx_http_ai_samples_keys(amcf, s);
    ngx_http_ai_samples_running(amcf, s);
}


/* each once, wherever it is written again */

static void
ngx_http_ai_samples_targets(ngx_http_ai_router_main_conf_t *amcf,
    ngx_http_ai_samples_t *s, ngx_http_ai_router_show_pt show)
{
    ngx_str_t                        none;
    ngx_uint_t                       i, k, n;
    ngx_array_t                     *targets;
    ngx_http_ai_model_t            **models;
    ngx_http_ai_target_t            *target;
    ngx_http_ai_router_loc_conf_t  **locations;

    models = amcf->models.elts;

    for (i = 0; i < amcf->models.nelts; i++) {

        for (k = 0; k < 2; k++) {
            targets = k ? &models[i]->fallbacks : &models[i]->targets;
            target = targets->elts;

            for (n = 0; n < targets->nelts; n++) {

                if (ngx_http_ai_samples_seen(targets, n, target[n].health)
                    || (k && ngx_http_ai_samples_seen(&models[i]->targets,
                                                 models[i]->targets.nelts,
                                                 target[n].health)))
                {
                    continue;
                }

                ngx_http_ai_samples_target(s, &models[i]->name, &target[n],
                                           show);
            }
        }
    }

    ngx_str_set(&none, "none");

    locations = amcf->locations.elts;

    for (i = 0; i < amcf->locations.nelts; i++) {
        targets = ngx_http_ai_samples_fallbacks(locations[i]);

        if (targets == NULL) {
            continue;
        }

        target = targets->elts;

        for (n = 0; n < targets->nelts; n++) {

            if (ngx_http_ai_samples_seen(targets, n, target[n].health)
                || ngx_http_ai_samples_shown(amcf, i, target[n].health))
            {
                continue;
            }

            ngx_http_ai_samples_target(s, &none, &target[n], show);
        }
    }
}


static void
ngx_http_ai_samples_target(ngx_http_ai_samples_t *s, ngx_str_t *model,
    ngx_http_ai_target_t *target, ngx_http_ai_router_show_pt show)
{
    ngx_http_ai_label_t          labels[3];
    ngx_http_ai_health_status_t  status;

    if (target->health == NULL || target->provider->is_static) {
        return;
    }

    ngx_http_ai_health_status(target->health, &status);

    labels[0].name = "model";
    labels[0].value = *model;
    labels[1].name = "provider";
    labels[1].value = target->provider->name;
    labels[2].name = "target";
    labels[2].value = target->name;

    show(s, labels, &status);
}


static ngx_uint_t
ngx_http_ai_samples_seen(ngx_array_t *targets, ngx_uint_t n,
    ngx_http_ai_health_t *h)
{
    ngx_uint_t             i;
    ngx_http_ai_target_t  *target;

    target = targets->elts;

    for (i = 0; i < n; i++) {
        if (target[i].health == h) {
            return 1;
        }
    }

    return 0;
}


/* by one of the first n locations? */

static ngx_uint_t
ngx_http_ai_samples_shown(ngx_http_ai_router_main_conf_t *amcf, ngx_uint_t n,
    ngx_http_ai_health_t *h)
{
    ngx_uint_t                       i;
    ngx_array_t                     *targets;
    ngx_http_ai_router_loc_conf_t  **locations;

    locations = amcf->locations.elts;

    for (i = 0; i < n; i++) {
        targets = ngx_http_ai_samples_fallbacks(locations[i]);

        if (targets && ngx_http_ai_samples_seen(targets, targets->nelts, h)) {
            return 1;
        }
    }

    return 0;
}


static ngx_array_t *
ngx_http_ai_samples_fallbacks(ngx_http_ai_router_loc_conf_t *arlcf)
{
    return (arlcf->fallbacks == NGX_CONF_UNSET_PTR) ? NULL : arlcf->fallbacks;
}


static void
ngx_http_ai_samples_state(ngx_http_ai_samples_t *s,
    ngx_http_ai_label_t *labels, ngx_http_ai_health_status_t *status)
{
    s->sample(s, labels, 3, status->state, 0);
}


static void
ngx_http_ai_samples_opens(ngx_http_ai_samples_t *s,
    ngx_http_ai_label_t *labels, ngx_http_ai_health_status_t *status)
{
    s->sample(s, labels, 3, status->opens, 0);
}


static void
ngx_http_ai_samples_cooldown(ngx_http_ai_samples_t *s,
    ngx_http_ai_label_t *labels, ngx_http_ai_health_status_t *status)
{
    s->sample(s, labels, 3, status->cooldown, 3);
}


/* by their number: what they are is nobody's business */

static void
ngx_http_ai_samples_keys(ngx_http_ai_router_main_conf_t *amcf,
    ngx_http_ai_samples_t *s)
{
    u_char                        number[NGX_INT_T_LEN];
    ngx_uint_t                    i, k;
    ngx_http_ai_key_t            *keys;
    ngx_http_ai_label_t           labels[2];
    ngx_http_ai_provider_t      **providers;
    ngx_http_ai_health_status_t   status;

    s->family(s, NGX_HTTP_AI_SAMPLES_GAUGE,
              "nginx_ai_provider_key_cooldown_seconds",
              "How long a provider's key is avoided; 0: it is not.");

    labels[0].name = "provider";
    labels[1].name = "key";
    labels[1].value.data = number;

    providers = amcf->providers.elts;

    for (i = 0; i < amcf->providers.nelts; i++) {
        labels[0].value = providers[i]->name;
        keys = providers[i]->keys.elts;

        for (k = 0; k < providers[i]->keys.nelts; k++) {
            ngx_http_ai_health_status(keys[k].health, &status);

            labels[1].value.len = ngx_sprintf(number, "%ui", k + 1) - number;
            s->sample(s, labels, 2, status.cooldown, 3);
        }
    }
}


static void
ngx_http_ai_samples_running(ngx_http_ai_router_main_conf_t *amcf,
    ngx_http_ai_samples_t *s)
{
    ngx_uint_t                    i, k;
    ngx_http_ai_label_t           label;
    ngx_http_ai_provider_t      **providers;
    ngx_http_ai_health_status_t   status;

    label.name = "provider";
    providers = amcf->providers.elts;

    for (k = 0; k < 2; k++) {

        if (k) {
            s->family(s, NGX_HTTP_AI_SAMPLES_GAUGE,
                      "nginx_ai_provider_max_attempts",
                      "The most attempts at a time (max_concurrent).");

        } else {
            s->family(s, NGX_HTTP_AI_SAMPLES_GAUGE,
                      "nginx_ai_provider_running_attempts",
                      "Attempts that run, of providers with max_concurrent.");
        }

        for (i = 0; i < amcf->providers.nelts; i++) {

            if (providers[i]->max_concurrent == 0) {
                continue;
            }

            label.value = providers[i]->name;

            if (k) {
                s->sample(s, &label, 1, providers[i]->max_concurrent, 0);
                continue;
            }

            ngx_http_ai_health_status(providers[i]->health, &status);
            s->sample(s, &label, 1, status.running, 0);
        }
    }
}
