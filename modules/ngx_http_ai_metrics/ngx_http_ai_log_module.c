
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_log.h"


static ngx_int_t ngx_http_ai_log_preconfiguration(ngx_conf_t *cf);
static void *ngx_http_ai_log_create_main_conf(ngx_conf_t *cf);


static ngx_command_t  ngx_http_ai_log_commands[] = {

      ngx_null_command
};


static ngx_http_module_t  ngx_http_ai_log_module_ctx = {
    ngx_http_ai_log_preconfiguration,
    NULL,                                  /* postconfiguration */

    ngx_http_ai_log_create_main_conf,
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    NULL,                                  /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_ai_log_module = {
    NGX_MODULE_V1,
    &ngx_http_ai_log_module_ctx,
    ngx_http_ai_log_commands,
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_http_ai_log_preconfiguration(ngx_conf_t *cf)
{
    ngx_http_ai_log_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_log_module);

    mcf->api = ngx_http_ai_core_api(cf, "ngx_http_ai_log_module");

    return mcf->api ? NGX_OK : NGX_ERROR;
}


static void *
ngx_http_ai_log_create_main_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_log_main_conf_t));
}
