
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_ratelimit_lease.h"
#include "ngx_http_ai_conf.h"


static ngx_int_t ngx_http_ai_ratelimit_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_ai_ratelimit_postconfiguration(ngx_conf_t *cf);
static void *ngx_http_ai_ratelimit_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_ai_ratelimit_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_ai_ratelimit_merge_loc_conf(ngx_conf_t *cf,
    void *parent, void *child);
static ngx_int_t ngx_http_ai_ratelimit_inherit(ngx_conf_t *cf,
    ngx_array_t **to, ngx_array_t *own, ngx_uint_t off, ngx_array_t *prev,
    ngx_http_ai_zone_kind_e kind);
static ngx_int_t ngx_http_ai_ratelimit_init_process(ngx_cycle_t *cycle);
static void ngx_http_ai_ratelimit_exit_process(ngx_cycle_t *cycle);
static ngx_int_t ngx_http_ai_ratelimit_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


static ngx_conf_enum_t  ngx_http_ai_quota_statuses[] = {
    { ngx_string("429"), NGX_HTTP_TOO_MANY_REQUESTS },
    { ngx_string("402"), 402 },
    { ngx_null_string, 0 }
};


static ngx_command_t  ngx_http_ai_ratelimit_commands[] = {

    { ngx_string("ai_limit_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_2MORE,
      ngx_http_ai_limit_zone_directive,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_quota_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_2MORE,
      ngx_http_ai_limit_zone_directive,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_limit"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_ai_limit_directive,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_quota"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_ai_limit_directive,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_dry_run"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_ai_limit_flags,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_ai_ratelimit_loc_conf_t, dry),
      NULL },

    { ngx_string("ai_headers"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_ai_limit_flags,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_ai_ratelimit_loc_conf_t, headers),
      NULL },

    { ngx_string("ai_quota_status"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_ai_ratelimit_loc_conf_t, quota_status),
      &ngx_http_ai_quota_statuses },

    { ngx_string("ai_alert_webhook"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_1MORE,
      ngx_http_ai_alert_webhook,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_limit_view"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE1,
      ngx_http_ai_limit_view,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_ai_ratelimit_module_ctx = {
    ngx_http_ai_ratelimit_preconfiguration,    /* preconfiguration */
    ngx_http_ai_ratelimit_postconfiguration,   /* postconfiguration */

    ngx_http_ai_ratelimit_create_main_conf,    /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_ai_ratelimit_create_loc_conf, /* create location configuration */
    ngx_http_ai_ratelimit_merge_loc_conf   /* merge location configuration */
};


ngx_module_t  ngx_http_ai_ratelimit_module = {
    NGX_MODULE_V1,
    &ngx_http_ai_ratelimit_module_ctx,     /* module context */
    ngx_http_ai_ratelimit_commands,        /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_ai_ratelimit_init_process,    /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_ai_ratelimit_exit_process,    /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


enum {
    NGX_HTTP_AI_VAR_LIMIT = 0,
    NGX_HTTP_AI_VAR_QUOTA,
    NGX_HTTP_AI_VAR_STATUS,
    NGX_HTTP_AI_VAR_SWITCH
};


static ngx_http_variable_t  ngx_http_ai_ratelimit_vars[] = {

    { ngx_string("ai_limit"), NULL, ngx_http_ai_ratelimit_variable,
      NGX_HTTP_AI_VAR_LIMIT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_quota"), NULL, ngx_http_ai_ratelimit_variable,
      NGX_HTTP_AI_VAR_QUOTA, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_limit_status"), NULL, ngx_http_ai_ratelimit_variable,
      NGX_HTTP_AI_VAR_STATUS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_switch"), NULL, ngx_http_ai_ratelimit_variable,
      NGX_HTTP_AI_VAR_SWITCH, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


static ngx_int_t
ngx_http_ai_ratelimit_preconfiguration(ngx_conf_t *cf)
{
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    rmcf = ngx_http_conf_get_module_main_conf(cf,
                                              ngx_http_ai_ratelimit_module);

    rmcf->api = ngx_http_ai_core_api(cf, "ngx_http_ai_ratelimit_module");

    if (rmcf->api == NULL) {
        return NGX_ERROR;
    }

    return ngx_http_ai_conf_variables(cf, ngx_http_ai_ratelimit_vars);
}


static ngx_int_t
ngx_http_ai_ratelimit_postconfiguration(ngx_conf_t *cf)
{
    const ngx_http_ai_api_t            *api;
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    rmcf = ngx_http_conf_get_module_main_conf(cf,
                                              ngx_http_ai_ratelimit_module);
    api = rmcf->api;

    if (ngx_http_ai_limit_resolve(cf, rmcf) != NGX_OK
        || ngx_http_ai_lease_configure(cf, rmcf) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (rmcf->cost
        && api->add_header_hook(cf, ngx_http_ai_cost_header_hook) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (rmcf->usage_cost
        && api->add_hook(cf, NGX_HTTP_AI_STAGE_LIMIT,
                         ngx_http_ai_cost_usage_hook)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_http_ai_switches_init(cf, rmcf) != NGX_OK) {
        return NGX_ERROR;
    }

    if (rmcf->switch_data
        && (api->add_hook(cf, NGX_HTTP_AI_STAGE_RESOLVE,
                          ngx_http_ai_switch_resolve)
            != NGX_OK
            || api->add_hook(cf, NGX_HTTP_AI_STAGE_AUTHORIZE,
                             ngx_http_ai_switch_authorize)
               != NGX_OK
            || api->add_hook(cf, NGX_HTTP_AI_STAGE_SETTLE,
                             ngx_http_ai_switch_settle)
               != NGX_OK
            || api->add_permit(cf, ngx_http_ai_switch_permit) != NGX_OK))
    {
        return NGX_ERROR;
    }

    if (!rmcf->used) {
        return NGX_OK;
    }

    if (api->add_shared(cf, "ratelimit-1", ngx_http_ai_learned_init, rmcf)
        != NGX_OK
        || api->add_hook(cf, NGX_HTTP_AI_STAGE_LIMIT, ngx_http_ai_limit_hook)
           != NGX_OK
        || api->add_hook(cf, NGX_HTTP_AI_STAGE_SETTLE,
                         ngx_http_ai_limit_settle_hook)
           != NGX_OK
        || api->add_observer(cf, ngx_http_ai_limit_observer) != NGX_OK
        || api->add_header_hook(cf, ngx_http_ai_limit_header_hook) != NGX_OK
        || api->add_collector(cf, ngx_http_ai_ratelimit_samples, rmcf)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void *
ngx_http_ai_ratelimit_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    rmcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_ratelimit_main_conf_t));
    if (rmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&rmcf->zones, cf->pool, 4,
                       sizeof(ngx_http_ai_limit_zone_t *))
        != NGX_OK
        || ngx_array_init(&rmcf->locations, cf->pool, 4,
                          sizeof(ngx_http_ai_ratelimit_loc_conf_t *))
           != NGX_OK)
    {
        return NULL;
    }

    return rmcf;
}


static void *
ngx_http_ai_ratelimit_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_ai_ratelimit_loc_conf_t  *rlcf;

    rlcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_ratelimit_loc_conf_t));
    if (rlcf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     rlcf->limits = NULL;
     *     rlcf->quotas = NULL;
     *     rlcf->uses = NULL;
     *     rlcf->dry = 0;
     *     rlcf->headers = 0;
     */

    rlcf->quota_status = NGX_CONF_UNSET_UINT;

    return rlcf;
}


static char *
ngx_http_ai_ratelimit_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child)
{
    ngx_http_ai_ratelimit_loc_conf_t *prev = parent;
    ngx_http_ai_ratelimit_loc_conf_t *conf = child;

    ngx_uint_t                          i;
    ngx_http_ai_limit_use_t            *use;
    ngx_http_ai_ratelimit_loc_conf_t   *p;
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    rmcf = ngx_http_conf_get_module_main_conf(cf,
                                              ngx_http_ai_ratelimit_module);

    if (prev->uses == NULL && (prev->limits || prev->quotas)) {

        /* that of http{} is never merged itself */

        if (ngx_http_ai_ratelimit_inherit(cf, &prev->uses, prev->limits, 1,
                                          NULL, NGX_HTTP_AI_ZONE_LIMIT)
            != NGX_OK
            || ngx_http_ai_ratelimit_inherit(cf, &prev->uses, prev->quotas, 1,
                                             NULL, NGX_HTTP_AI_ZONE_QUOTA)
               != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    if (ngx_http_ai_ratelimit_inherit(cf, &conf->uses, conf->limits,
                                      conf->limits_off, prev->uses,
                                      NGX_HTTP_AI_ZONE_LIMIT)
        != NGX_OK
        || ngx_http_ai_ratelimit_inherit(cf, &conf->uses, conf->quotas,
                                         conf->quotas_off, prev->uses,
                                         NGX_HTTP_AI_ZONE_QUOTA)
           != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    if (conf->dry == 0) {
        conf->dry = prev->dry;
    }

    if (conf->headers == 0) {
        conf->headers = prev->headers ? prev->headers
                                      : NGX_HTTP_AI_HEADERS_RATELIMIT;
    }

    ngx_conf_merge_uint_value(conf->quota_status, prev->quota_status,
                              NGX_HTTP_TOO_MANY_REQUESTS);

    conf->parent = prev;

    if (rmcf->api->serves(cf)) {

        for (p = conf; p && !p->served; p = p->parent) {
            p->served = 1;
        }

        if (conf->uses) {
            rmcf->used = 1;

            use = conf->uses->elts;

            for (i = 0; i < conf->uses->nelts; i++) {
                conf->nstates += ngx_http_ai_kind_meters(use[i].kind);

                if (use[i].zone
                    && (use[i].zone->meters & NGX_HTTP_AI_LIMIT_TOKENS))
                {
                    /* tokens of the request will be counted */
                    rmcf->api->parse_whole(cf);
                }
            }
        }

        if (conf->headers & NGX_HTTP_AI_HEADERS_COST) {
            rmcf->cost = 1;
        }

        if (conf->headers & NGX_HTTP_AI_HEADERS_USAGE) {
            rmcf->usage_cost = 1;
        }
    }

    return NGX_CONF_OK;
}


/* own uses first, they are the narrower ones; each zone once */

static ngx_int_t
ngx_http_ai_ratelimit_inherit(ngx_conf_t *cf, ngx_array_t **to,
    ngx_array_t *own, ngx_uint_t off, ngx_array_t *prev,
    ngx_http_ai_zone_kind_e kind)
{
    ngx_uint_t                          i, k, n;
    ngx_array_t                        *from[2];
    ngx_http_ai_limit_use_t            *use, *known, *add;
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    rmcf = ngx_http_conf_get_module_main_conf(cf,
                                              ngx_http_ai_ratelimit_module);

    from[0] = own;
    from[1] = off ? NULL : prev;

    for (n = 0; n < 2; n++) {

        if (from[n] == NULL) {
            continue;
        }

        use = from[n]->elts;

        for (i = 0; i < from[n]->nelts; i++) {

            if (use[i].kind != kind) {
                continue;
            }

            if (*to == NULL) {
                *to = ngx_array_create(cf->pool, 4,
                                       sizeof(ngx_http_ai_limit_use_t));
                if (*to == NULL) {
                    return NGX_ERROR;
                }
            }

            known = (*to)->elts;

            for (k = 0; k < (*to)->nelts; k++) {
                if (known[k].name.len == use[i].name.len
                    && ngx_strncmp(known[k].name.data, use[i].name.data,
                                   use[i].name.len)
                       == 0)
                {
                    break;
                }
            }

            if (k < (*to)->nelts) {
                continue;
            }

            add = ngx_array_push(*to);
            if (add == NULL) {
                return NGX_ERROR;
            }

            *add = use[i];

            /* all of http{} was read; what is not found is told later */
            add->zone = ngx_http_ai_limit_zone_find(rmcf, &use[i].name);
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_ratelimit_init_process(ngx_cycle_t *cycle)
{
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    if (ngx_process != NGX_PROCESS_WORKER
        && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    rmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_ai_ratelimit_module);

    if (rmcf == NULL) {
        return NGX_OK;
    }

    if (rmcf->switch_data && ngx_http_ai_switch_start(cycle, rmcf) != NGX_OK) {
        return NGX_ERROR;
    }

    if (rmcf->zones.nelts == 0) {
        return NGX_OK;
    }

    return ngx_http_ai_zone_start(cycle, rmcf);
}


static void
ngx_http_ai_ratelimit_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    if (ngx_process != NGX_PROCESS_WORKER
        && ngx_process != NGX_PROCESS_SINGLE)
    {
        return;
    }

    rmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_ai_ratelimit_module);

    if (rmcf && rmcf->zones.nelts) {
        ngx_http_ai_zone_stop(cycle, rmcf);
    }
}


static ngx_int_t
ngx_http_ai_ratelimit_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t                           s;
    ngx_http_ai_ctx_t                  *ctx;
    ngx_http_ai_limited_t              *l;
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    rmcf = ngx_http_get_module_main_conf(r, ngx_http_ai_ratelimit_module);

    ctx = rmcf->api->get_ctx(r);
    l = ctx ? ctx->ratelimit : NULL;

    ngx_str_null(&s);

    if (data == NGX_HTTP_AI_VAR_SWITCH) {

        if (ctx) {
            s = ctx->switched;
        }

    } else if (l == NULL) {
        v->not_found = 1;
        return NGX_OK;

    } else if (data == NGX_HTTP_AI_VAR_STATUS) {

        if (l->refused && !l->dry) {
            ngx_str_set(&s, "refused");

        } else if (l->dry) {
            ngx_str_set(&s, "dry_run");

        } else {
            ngx_str_set(&s, "passed");
        }

    } else if (l->refused
               && (l->refused->zone->kind == NGX_HTTP_AI_ZONE_QUOTA)
                  == (data == NGX_HTTP_AI_VAR_QUOTA))
    {
        s = l->refused->zone->name;
    }

    if (s.len == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->data = s.data;
    v->len = s.len;

    return NGX_OK;
}
