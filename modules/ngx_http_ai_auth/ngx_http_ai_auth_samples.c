
/*
 * Copyright (C) nginx AI gateway authors
 */


/* refusals of all workers by reason, for metrics */


#include "ngx_http_ai_auth.h"


#define NGX_HTTP_AI_AUTH_REASONS  (NGX_HTTP_AI_AUTH_CONFLICT + 1)


static ngx_int_t ngx_http_ai_auth_samples_shared(ngx_slab_pool_t *shpool,
    void **data, void *conf, ngx_log_t *log);
static void ngx_http_ai_auth_samples(void *data, ngx_http_ai_samples_t *s);


ngx_int_t
ngx_http_ai_auth_samples_init(ngx_conf_t *cf,
    ngx_http_ai_auth_main_conf_t *aamcf)
{
    if (aamcf->api->add_shared(cf, "auth-1", ngx_http_ai_auth_samples_shared,
                               aamcf)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return aamcf->api->add_collector(cf, ngx_http_ai_auth_samples, aamcf);
}


static ngx_int_t
ngx_http_ai_auth_samples_shared(ngx_slab_pool_t *shpool, void **data,
    void *conf, ngx_log_t *log)
{
    ngx_http_ai_auth_main_conf_t *aamcf = conf;

    if (*data == NULL) {
        *data = ngx_slab_calloc(shpool, NGX_HTTP_AI_AUTH_REASONS
                                        * sizeof(ngx_atomic_t));
        if (*data == NULL) {
            ngx_log_error(NGX_LOG_EMERG, log, 0,
                          "ai auth: no memory for the counters of refusals, "
                          "increase the size of \"ai_zone\"");
            return NGX_ERROR;
        }
    }

    aamcf->refusals = *data;

    return NGX_OK;
}


static void
ngx_http_ai_auth_samples(void *data, ngx_http_ai_samples_t *s)
{
    ngx_http_ai_auth_main_conf_t *aamcf = data;

    ngx_uint_t           i;
    ngx_http_ai_label_t  label;

    label.name = "reason";

    s->family(s, NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_auth_refusals",
              "Requests that were refused for their credential or for what "
              "it permits.");

    for (i = NGX_HTTP_AI_AUTH_NONE; i < NGX_HTTP_AI_AUTH_REASONS; i++) {
        label.value = *ngx_http_ai_auth_reason_name(i);
        s->sample(s, &label, 1, aamcf->refusals[i], 0);
    }
}
