
/*
 * Copyright (C) nginx AI gateway authors
 */


/* what the core shows of itself: its build, memory, live data and Redis */


#include "ngx_http_ai_redis_ctx.h"


static void ngx_http_ai_samples_build(ngx_http_ai_samples_t *s);
static void ngx_http_ai_samples_zone(ngx_http_ai_core_main_conf_t *amcf,
    ngx_http_ai_samples_t *s);
static void ngx_http_ai_samples_data(ngx_http_ai_core_main_conf_t *amcf,
    ngx_http_ai_samples_t *s);
static void ngx_http_ai_samples_redis(ngx_http_ai_core_main_conf_t *amcf,
    ngx_http_ai_samples_t *s);


void
ngx_http_ai_core_samples(void *data, ngx_http_ai_samples_t *s)
{
    ngx_http_ai_core_main_conf_t *amcf = data;

    ngx_http_ai_samples_build(s);
    ngx_http_ai_samples_zone(amcf, s);

    if (amcf->data.nelts) {
        ngx_http_ai_samples_data(amcf, s);
    }

    if (amcf->redises.nelts) {
        ngx_http_ai_samples_redis(amcf, s);
    }
}


static void
ngx_http_ai_samples_build(ngx_http_ai_samples_t *s)
{
    ngx_http_ai_label_t  labels[2];

    labels[0].name = "version";
    ngx_str_set(&labels[0].value, NGX_HTTP_AI_VERSION);
    labels[1].name = "nginx";
    ngx_str_set(&labels[1].value, NGINX_VERSION);

    s->family(s, NGX_HTTP_AI_SAMPLES_INFO, "nginx_ai_build_info",
              "Versions of the gateway and of nginx.");
    s->sample(s, labels, 2, 1, 0);
}


static void
ngx_http_ai_samples_zone(ngx_http_ai_core_main_conf_t *amcf,
    ngx_http_ai_samples_t *s)
{
    ngx_slab_pool_t      *shpool;
    ngx_http_ai_label_t   label;

    shpool = (ngx_slab_pool_t *) amcf->zone->shm.addr;

    label.name = "zone";
    label.value = amcf->zone_name;

    s->family(s, NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_zone_size_bytes",
              "Memory that workers share (ai_zone).");
    s->sample(s, &label, 1, amcf->zone->shm.size, 0);

    s->family(s, NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_zone_free_bytes",
              "Pages of it that are free.");
    s->sample(s, &label, 1, (int64_t) shpool->pfree * ngx_pagesize, 0);
}


static void
ngx_http_ai_samples_data(ngx_http_ai_core_main_conf_t *amcf,
    ngx_http_ai_samples_t *s)
{
    int64_t                     value;
    ngx_uint_t                  i, n, k;
    ngx_pool_t                 *pool;
    ngx_http_ai_label_t         label;
    ngx_http_ai_data_status_t  *status;

    static struct {
        ngx_http_ai_samples_e   type;
        const char             *name;
        const char             *help;

    } families[] = {
        { NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_data_generation",
          "Number of the generation of live data that is in force." },
        { NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_data_records",
          "Records of it." },
        { NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_data_stale",
          "1 when the file is bad or gone, and older data are in force." },
        { NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_data_failures",
          "Contents of the file that were refused." },
        { NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_data_loaded_timestamp_seconds",
          "When the generation in force was loaded." },
        { NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_data_used_bytes",
          "Memory that it uses." },
        { NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_data_size_bytes",
          "Memory for it (ai_data)." }
    };

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        return;
    }

    status = ngx_pcalloc(pool, amcf->data.nelts
                               * sizeof(ngx_http_ai_data_status_t));

    for (n = 0; status && n < amcf->data.nelts; n++) {
        if (ngx_http_ai_data_status(n, pool, &status[n]) != NGX_OK) {
            break;
        }
    }

    label.name = "dataset";

    for (k = 0; status && k < sizeof(families) / sizeof(families[0]); k++) {

        s->family(s, families[k].type, families[k].name, families[k].help);

        for (i = 0; i < n; i++) {

            switch (k) {

            case 0:
                value = status[i].generation;
                break;

            case 1:
                value = status[i].records;
                break;

            case 2:
                value = (status[i].state == NGX_HTTP_AI_DATA_STALE);
                break;

            case 3:
                value = status[i].failures;
                break;

            case 4:
                value = status[i].loaded;
                break;

            case 5:
                value = status[i].used;
                break;

            default:
                value = status[i].size;
            }

            label.value = status[i].name;
            s->sample(s, &label, 1, value, 0);
        }
    }

    ngx_destroy_pool(pool);
}


static void
ngx_http_ai_samples_redis(ngx_http_ai_core_main_conf_t *amcf,
    ngx_http_ai_samples_t *s)
{
    int64_t                   value;
    ngx_uint_t                i, k;
    ngx_http_ai_label_t       label;
    ngx_http_ai_redis_t     **redis;
    ngx_http_ai_redis_sh_t   *sh;

    static struct {
        ngx_http_ai_samples_e   type;
        const char             *name;
        const char             *help;
        ngx_uint_t              scale;

    } families[] = {
        { NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_redis_up",
          "1 when Redis has answered since a connection was lost last, and "
          "is asked.", 0 },
        { NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_redis_breaker_open",
          "1 when Redis is not asked for a while.", 0 },
        { NGX_HTTP_AI_SAMPLES_GAUGE, "nginx_ai_redis_latency_seconds",
          "Time of the last answer.", 3 },
        { NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_redis_commands",
          "Commands that were sent.", 0 },
        { NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_redis_errors",
          "Errors that Redis has answered, and connections lost.", 0 },
        { NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_redis_timeouts",
          "Commands without an answer in time.", 0 }
    };

    redis = amcf->redises.elts;
    label.name = "redis";

    for (k = 0; k < sizeof(families) / sizeof(families[0]); k++) {

        s->family(s, families[k].type, families[k].name, families[k].help);

        for (i = 0; i < amcf->redises.nelts; i++) {
            sh = redis[i]->sh;

            switch (k) {

            case 0:
                value = (sh->answered && sh->open == 0
                         && (sh->lost == 0
                             || (ngx_msec_int_t) (sh->answered - sh->lost)
                                > 0));
                break;

            case 1:
                value = (sh->open != 0);
                break;

            case 2:
                value = sh->latency;
                break;

            case 3:
                value = sh->commands;
                break;

            case 4:
                value = sh->errors;
                break;

            default:
                value = sh->timeouts;
            }

            label.value = redis[i]->name;
            s->sample(s, &label, 1, value, families[k].scale);
        }
    }
}
