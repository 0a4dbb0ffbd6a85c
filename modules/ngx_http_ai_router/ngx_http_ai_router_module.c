
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_router_exec.h"


/* of requests: that of nginx, and of a server that has none of its own */
#define NGX_HTTP_AI_POOL_DEFAULT  4096
#define NGX_HTTP_AI_POOL_SIZE     8192


static ngx_int_t ngx_http_ai_router_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_ai_router_postconfiguration(ngx_conf_t *cf);
static void ngx_http_ai_router_pool_size(ngx_conf_t *cf);
static void *ngx_http_ai_router_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_ai_router_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_ai_router_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_ai_router_init_process(ngx_cycle_t *cycle);
static ngx_int_t ngx_http_ai_router_header_filter(ngx_http_request_t *r);
static ngx_int_t ngx_http_ai_router_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_next_body_filter;


static ngx_command_t  ngx_http_ai_router_commands[] = {

    { ngx_string("ai_provider"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE1,
      ngx_http_ai_provider_block,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_model"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE1,
      ngx_http_ai_model_block,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_alias"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE2,
      ngx_http_ai_alias,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_fallback"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_ai_fallback,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_pass"),
      NGX_HTTP_LOC_CONF|NGX_HTTP_LIF_CONF|NGX_HTTP_LMT_CONF|NGX_CONF_TAKE12,
      ngx_http_ai_pass,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_ai_router_module_ctx = {
    ngx_http_ai_router_preconfiguration,   /* preconfiguration */
    ngx_http_ai_router_postconfiguration,  /* postconfiguration */

    ngx_http_ai_router_create_main_conf,   /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_ai_router_create_loc_conf,    /* create location configuration */
    ngx_http_ai_router_merge_loc_conf      /* merge location configuration */
};


ngx_module_t  ngx_http_ai_router_module = {
    NGX_MODULE_V1,
    &ngx_http_ai_router_module_ctx,        /* module context */
    ngx_http_ai_router_commands,           /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_ai_router_init_process,       /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_http_ai_router_preconfiguration(ngx_conf_t *cf)
{
    ngx_http_ai_router_main_conf_t  *amcf;

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_router_module);

    amcf->api = ngx_http_ai_core_api(cf, "ngx_http_ai_router_module");

    return amcf->api ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_http_ai_router_postconfiguration(ngx_conf_t *cf)
{
    ngx_http_ai_router_main_conf_t  *amcf;

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_router_module);

    if (ngx_http_ai_peers_resolver(cf, amcf) != NGX_OK
        || ngx_http_ai_provider_init(cf, amcf) != NGX_OK
        || ngx_http_ai_model_init(cf, amcf) != NGX_OK
        || ngx_http_ai_health_init(cf, amcf) != NGX_OK
        || ngx_http_ai_prices_init(cf, amcf) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (amcf->api->add_hook(cf, NGX_HTTP_AI_STAGE_RESOLVE,
                            ngx_http_ai_router_resolve)
        != NGX_OK
        || amcf->api->add_hook(cf, NGX_HTTP_AI_STAGE_METER,
                               ngx_http_ai_router_meter)
           != NGX_OK
        || amcf->api->add_collector(cf, ngx_http_ai_router_samples, amcf)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (amcf->locations.nelts) {
        ngx_http_ai_router_pool_size(cf);
    }

    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_ai_router_header_filter;

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_ai_router_body_filter;

    return NGX_OK;
}


/*
 * A request that is passed on needs more than one block of nginx's default
 * size; the pool is that of the address's default server, whatever comes.
 */

static void
ngx_http_ai_router_pool_size(ngx_conf_t *cf)
{
    ngx_uint_t                  i;
    ngx_http_core_srv_conf_t   *cscf, **servers;
    ngx_http_core_main_conf_t  *cmcf;

    cscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_core_module);

    if (cscf->request_pool_size != NGX_CONF_UNSET_SIZE) {
        return;
    }

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    servers = cmcf->servers.elts;

    for (i = 0; i < cmcf->servers.nelts; i++) {
        if (servers[i]->request_pool_size == NGX_HTTP_AI_POOL_DEFAULT) {
            servers[i]->request_pool_size = NGX_HTTP_AI_POOL_SIZE;
        }
    }
}


static void *
ngx_http_ai_router_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_ai_router_main_conf_t  *amcf;

    amcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_router_main_conf_t));
    if (amcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&amcf->providers, cf->pool, 4,
                       sizeof(ngx_http_ai_provider_t *))
        != NGX_OK
        || ngx_array_init(&amcf->models, cf->pool, 4,
                          sizeof(ngx_http_ai_model_t *))
           != NGX_OK
        || ngx_array_init(&amcf->aliases, cf->pool, 4,
                          sizeof(ngx_http_ai_alias_t))
           != NGX_OK
        || ngx_array_init(&amcf->locations, cf->pool, 4,
                          sizeof(ngx_http_ai_router_loc_conf_t *))
           != NGX_OK)
    {
        return NULL;
    }

    amcf->started = ngx_time();

    return amcf;
}


static void *
ngx_http_ai_router_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_ai_router_loc_conf_t  *arlcf;

    arlcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_router_loc_conf_t));
    if (arlcf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     arlcf->pass = NGX_HTTP_AI_PASS_NONE;
     *     arlcf->provider = NULL;
     *     arlcf->variable = NULL;
     */

    arlcf->direct = NGX_CONF_UNSET;
    arlcf->fallbacks = NGX_CONF_UNSET_PTR;

    return arlcf;
}


static char *
ngx_http_ai_router_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_ai_router_loc_conf_t *prev = parent;
    ngx_http_ai_router_loc_conf_t *conf = child;

    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    ngx_conf_merge_ptr_value(conf->fallbacks, prev->fallbacks, NULL);

    if (clcf->noname && clcf->handler == NULL
        && prev->pass != NGX_HTTP_AI_PASS_NONE)
    {
        conf->pass = prev->pass;
        conf->pass_name = prev->pass_name;
        conf->provider = prev->provider;
        conf->variable = prev->variable;
        conf->direct = prev->direct;
        conf->file = prev->file;
        conf->line = prev->line;

        clcf->handler = ngx_http_ai_router_handler;

        if (conf->pass == NGX_HTTP_AI_PASS_PROVIDER) {
            ngx_http_ai_router_loc_conf_t   **loc;
            ngx_http_ai_router_main_conf_t   *amcf;

            /* the name is resolved after the merge */

            amcf = ngx_http_conf_get_module_main_conf(cf,
                                                  ngx_http_ai_router_module);
            loc = ngx_array_push(&amcf->locations);
            if (loc == NULL) {
                return NGX_CONF_ERROR;
            }

            *loc = conf;
        }
    }

    if (conf->direct == NGX_CONF_UNSET) {
        conf->direct = 0;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_ai_router_init_process(ngx_cycle_t *cycle)
{
    ngx_http_ai_router_main_conf_t  *amcf;

    if (ngx_process != NGX_PROCESS_WORKER
        && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    amcf = ngx_http_cycle_get_module_main_conf(cycle,
                                               ngx_http_ai_router_module);
    if (amcf == NULL) {
        return NGX_OK;
    }

    return ngx_http_ai_peers_start(cycle, amcf);
}


/* an attempt's subrequest has no output of its own */

static ngx_int_t
ngx_http_ai_router_header_filter(ngx_http_request_t *r)
{
    if (r != r->main && ngx_http_get_module_ctx(r, ngx_http_ai_router_module))
    {
        return NGX_OK;
    }

    return ngx_http_next_header_filter(r);
}


static ngx_int_t
ngx_http_ai_router_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    if (r != r->main && ngx_http_get_module_ctx(r, ngx_http_ai_router_module))
    {
        return NGX_OK;
    }

    return ngx_http_next_body_filter(r, in);
}
