
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_cache.h"
#include "ngx_http_ai_cache_recent.h"


static ngx_int_t ngx_http_ai_cache_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_ai_cache_postconfiguration(ngx_conf_t *cf);
static void *ngx_http_ai_cache_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_ai_cache_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_ai_cache_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_ai_cache_init_process(ngx_cycle_t *cycle);
static void ngx_http_ai_cache_exit_process(ngx_cycle_t *cycle);
static ngx_int_t ngx_http_ai_cache_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


static ngx_conf_bitmask_t  ngx_http_ai_cache_stales[] = {
    { ngx_string("off"), NGX_HTTP_AI_STALE_OFF },
    { ngx_string("error"), NGX_HTTP_AI_STALE_ERROR },
    { ngx_string("timeout"), NGX_HTTP_AI_STALE_TIMEOUT },
    { ngx_string("429"), NGX_HTTP_AI_STALE_429 },
    { ngx_string("5xx"), NGX_HTTP_AI_STALE_5XX },
    { ngx_string("updating"), NGX_HTTP_AI_STALE_UPDATING },
    { ngx_null_string, 0 }
};


static ngx_command_t  ngx_http_ai_cache_commands[] = {

    { ngx_string("ai_cache_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_2MORE,
      ngx_http_ai_cache_zone,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_cache"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_ai_cache,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_cache_any"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_ai_cache_loc_conf_t, any),
      NULL },

    { ngx_string("ai_cache_bypass"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_set_predicate_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_ai_cache_loc_conf_t, bypass),
      NULL },

    { ngx_string("ai_no_cache"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_set_predicate_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_ai_cache_loc_conf_t, no_cache),
      NULL },

    { ngx_string("ai_cache_use_stale"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_conf_set_bitmask_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_ai_cache_loc_conf_t, use_stale),
      &ngx_http_ai_cache_stales },

    { ngx_string("ai_cache_background_update"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_ai_cache_loc_conf_t, background),
      NULL },

    { ngx_string("ai_cache_lock"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_ai_cache_loc_conf_t, lock),
      NULL },

    { ngx_string("ai_cache_lock_timeout"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_ai_cache_loc_conf_t, lock_timeout),
      NULL },

    { ngx_string("ai_cache_purge"),
      NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_ai_cache_purge,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_ai_cache_module_ctx = {
    ngx_http_ai_cache_preconfiguration,    /* preconfiguration */
    ngx_http_ai_cache_postconfiguration,   /* postconfiguration */

    ngx_http_ai_cache_create_main_conf,    /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_ai_cache_create_loc_conf,     /* create location configuration */
    ngx_http_ai_cache_merge_loc_conf       /* merge location configuration */
};


ngx_module_t  ngx_http_ai_cache_module = {
    NGX_MODULE_V1,
    &ngx_http_ai_cache_module_ctx,         /* module context */
    ngx_http_ai_cache_commands,            /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_ai_cache_init_process,        /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_ai_cache_exit_process,        /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_str_t  ngx_http_ai_cache_variable_name = ngx_string("ai_cache");


static ngx_int_t
ngx_http_ai_cache_preconfiguration(ngx_conf_t *cf)
{
    ngx_http_variable_t            *var;
    ngx_http_ai_cache_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_cache_module);

    cmcf->api = ngx_http_ai_core_api(cf, "ngx_http_ai_cache_module");

    if (cmcf->api == NULL) {
        return NGX_ERROR;
    }

    cmcf->zones.api = cmcf->api;

    var = ngx_http_add_variable(cf, &ngx_http_ai_cache_variable_name,
                                NGX_HTTP_VAR_NOCACHEABLE);
    if (var == NULL) {
        return NGX_ERROR;
    }

    var->get_handler = ngx_http_ai_cache_variable;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_cache_postconfiguration(ngx_conf_t *cf)
{
    ngx_http_ai_cache_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_cache_module);

    if (ngx_http_ai_cache_zones_init(cf, &cmcf->zones) != NGX_OK
        || ngx_http_ai_cache_resolve(cf, cmcf) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (!cmcf->used) {
        return NGX_OK;
    }

    if (cmcf->api->add_hook(cf, NGX_HTTP_AI_STAGE_CACHE,
                            ngx_http_ai_cache_hook)
        != NGX_OK
        || cmcf->api->add_hook(cf, NGX_HTTP_AI_STAGE_SETTLE,
                               ngx_http_ai_cache_settle)
           != NGX_OK
        || cmcf->api->add_header_hook(cf, ngx_http_ai_cache_header_hook)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void *
ngx_http_ai_cache_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_ai_cache_main_conf_t  *cmcf;

    cmcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_cache_main_conf_t));
    if (cmcf == NULL) {
        return NULL;
    }

    if (ngx_http_ai_cache_zones_create(cf, &cmcf->zones) != NGX_OK
        || ngx_array_init(&cmcf->locations, cf->pool, 4,
                          sizeof(ngx_http_ai_cache_loc_conf_t *))
           != NGX_OK)
    {
        return NULL;
    }

    return cmcf;
}


static void *
ngx_http_ai_cache_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_ai_cache_loc_conf_t  *clcf;

    clcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_cache_loc_conf_t));
    if (clcf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     clcf->own = NULL;
     *     clcf->uses = NULL;
     *     clcf->use_stale = 0;
     */

    clcf->bypass = NGX_CONF_UNSET_PTR;
    clcf->no_cache = NGX_CONF_UNSET_PTR;
    clcf->any = NGX_CONF_UNSET;
    clcf->lock = NGX_CONF_UNSET;
    clcf->background = NGX_CONF_UNSET;
    clcf->lock_timeout = NGX_CONF_UNSET_MSEC;

    return clcf;
}


static char *
ngx_http_ai_cache_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_ai_cache_loc_conf_t *prev = parent;
    ngx_http_ai_cache_loc_conf_t *conf = child;

    ngx_http_ai_cache_loc_conf_t   *p;
    ngx_http_ai_cache_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_cache_module);

    /* that of http{} is never merged itself */

    if (prev->own) {
        prev->uses = prev->own;
    }

    if (conf->own) {
        conf->uses = conf->own;

    } else if (!conf->off) {
        conf->uses = prev->uses;
    }

    ngx_conf_merge_ptr_value(conf->bypass, prev->bypass, NULL);
    ngx_conf_merge_ptr_value(conf->no_cache, prev->no_cache, NULL);
    ngx_conf_merge_value(conf->any, prev->any, 0);
    ngx_conf_merge_value(conf->lock, prev->lock, 1);
    ngx_conf_merge_value(conf->background, prev->background, 0);
    ngx_conf_merge_msec_value(conf->lock_timeout, prev->lock_timeout, 60000);

    ngx_conf_merge_bitmask_value(conf->use_stale, prev->use_stale,
                                 (NGX_CONF_BITMASK_SET
                                  |NGX_HTTP_AI_STALE_OFF));

    if ((conf->use_stale & NGX_HTTP_AI_STALE_OFF)
        && (conf->use_stale & ~(NGX_CONF_BITMASK_SET|NGX_HTTP_AI_STALE_OFF)))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"off\" of \"ai_cache_use_stale\" stands alone");
        return NGX_CONF_ERROR;
    }

    conf->parent = prev;

    if (cmcf->api->serves(cf)) {

        for (p = conf; p && !p->served; p = p->parent) {
            p->served = 1;
        }

        if (conf->uses) {
            cmcf->used = 1;

            /* a key is made of all of a request */

            cmcf->api->parse_whole(cf);
        }
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_ai_cache_init_process(ngx_cycle_t *cycle)
{
    ngx_http_ai_cache_main_conf_t  *cmcf;

    cmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_ai_cache_module);

    if (cmcf == NULL) {
        return NGX_OK;
    }

    return ngx_http_ai_cache_zones_start(cycle, &cmcf->zones);
}


static void
ngx_http_ai_cache_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_ai_cache_main_conf_t  *cmcf;

    cmcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_ai_cache_module);

    if (cmcf) {
        ngx_http_ai_cache_zones_stop(cycle, &cmcf->zones);
    }

    ngx_http_ai_cache_key_exit();
    ngx_http_ai_cache_recent_exit();
}


static ngx_int_t
ngx_http_ai_cache_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t                      *s;
    ngx_http_ai_ctx_t              *ctx;
    ngx_http_ai_cache_main_conf_t  *cmcf;

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_ai_cache_module);

    ctx = cmcf->api->get_ctx(r);

    if (ctx == NULL || ctx->cached == NGX_HTTP_AI_CACHE_NONE) {
        v->not_found = 1;
        return NGX_OK;
    }

    s = ngx_http_ai_cached_word(ctx->cached);

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->data = s->data;
    v->len = s->len;

    return NGX_OK;
}
