
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_metrics.h"


#define NGX_HTTP_AI_METRICS_ZONE  (4 * 1024 * 1024)


static ngx_int_t ngx_http_ai_metrics_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_ai_metrics_postconfiguration(ngx_conf_t *cf);
static void *ngx_http_ai_metrics_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_ai_metrics_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_ai_metrics_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_ai_metrics_init_process(ngx_cycle_t *cycle);
static void ngx_http_ai_metrics_exit_process(ngx_cycle_t *cycle);
static char *ngx_http_ai_metrics_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_ai_metrics_zone_directive(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
static char *ngx_http_ai_metrics_labels(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_ai_metrics_otel(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static void ngx_http_ai_metrics_said(ngx_conf_t *cf,
    ngx_http_ai_metrics_said_t *said);
static ngx_int_t ngx_http_ai_metrics_idle(ngx_conf_t *cf,
    ngx_http_ai_metrics_said_t *said, const char *name);


static ngx_command_t  ngx_http_ai_metrics_commands[] = {

    { ngx_string("ai_metrics"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_ai_metrics_directive,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_metrics_otel"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_http_ai_metrics_otel,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_ai_metrics_loc_conf_t, otel),
      NULL },

    { ngx_string("ai_metrics_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_ai_metrics_zone_directive,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_metrics_labels"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE12,
      ngx_http_ai_metrics_labels,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_ai_metrics_module_ctx = {
    ngx_http_ai_metrics_preconfiguration,  /* preconfiguration */
    ngx_http_ai_metrics_postconfiguration, /* postconfiguration */

    ngx_http_ai_metrics_create_main_conf,  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_ai_metrics_create_loc_conf,   /* create location configuration */
    ngx_http_ai_metrics_merge_loc_conf     /* merge location configuration */
};


ngx_module_t  ngx_http_ai_metrics_module = {
    NGX_MODULE_V1,
    &ngx_http_ai_metrics_module_ctx,
    ngx_http_ai_metrics_commands,
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_ai_metrics_init_process,      /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_ai_metrics_exit_process,      /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_http_ai_metrics_preconfiguration(ngx_conf_t *cf)
{
    ngx_http_ai_metrics_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_metrics_module);

    mcf->api = ngx_http_ai_core_api(cf, "ngx_http_ai_metrics_module");

    return mcf->api ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_http_ai_metrics_postconfiguration(ngx_conf_t *cf)
{
    ngx_http_ai_metrics_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_metrics_module);

    if (mcf->otel_said.file && !mcf->sizes) {
        return ngx_http_ai_metrics_idle(cf, &mcf->otel_said,
                                        "ai_metrics_otel");
    }

    if (!mcf->enabled) {

        if (mcf->zone_said.file) {
            return ngx_http_ai_metrics_idle(cf, &mcf->zone_said,
                                            "ai_metrics_zone");
        }

        if (mcf->labels_said.file) {
            return ngx_http_ai_metrics_idle(cf, &mcf->labels_said,
                                            "ai_metrics_labels");
        }

        return NGX_OK;
    }

    if (ngx_http_ai_metrics_zone(cf, mcf) != NGX_OK
        || mcf->api->add_hook(cf, NGX_HTTP_AI_STAGE_AUTHORIZE,
                              ngx_http_ai_metrics_begin)
           != NGX_OK
        || mcf->api->add_hook(cf, NGX_HTTP_AI_STAGE_SETTLE,
                              ngx_http_ai_metrics_settle)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return mcf->api->add_collector(cf, ngx_http_ai_metrics_collect, mcf);
}


static void *
ngx_http_ai_metrics_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_ai_metrics_main_conf_t  *mcf;

    mcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_metrics_main_conf_t));
    if (mcf == NULL) {
        return NULL;
    }

    mcf->zone_size = NGX_HTTP_AI_METRICS_ZONE;

    return mcf;
}


static void *
ngx_http_ai_metrics_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_ai_metrics_loc_conf_t  *mlcf;

    mlcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_metrics_loc_conf_t));
    if (mlcf == NULL) {
        return NULL;
    }

    mlcf->otel = NGX_CONF_UNSET;

    return mlcf;
}


static char *
ngx_http_ai_metrics_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_ai_metrics_loc_conf_t *prev = parent;
    ngx_http_ai_metrics_loc_conf_t *conf = child;

    ngx_http_ai_metrics_main_conf_t  *mcf;

    ngx_conf_merge_value(conf->otel, prev->otel, 0);

    if (conf->otel && conf->metrics) {
        mcf = ngx_http_conf_get_module_main_conf(cf,
                                                 ngx_http_ai_metrics_module);
        mcf->sizes = 1;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_ai_metrics_init_process(ngx_cycle_t *cycle)
{
    ngx_http_ai_metrics_main_conf_t  *mcf;

    if (ngx_process != NGX_PROCESS_WORKER
        && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    mcf = ngx_http_cycle_get_module_main_conf(cycle,
                                              ngx_http_ai_metrics_module);

    if (mcf && mcf->store) {
        ngx_http_ai_metrics_start(mcf);
    }

    return NGX_OK;
}


static void
ngx_http_ai_metrics_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_ai_metrics_main_conf_t  *mcf;

    mcf = ngx_http_cycle_get_module_main_conf(cycle,
                                              ngx_http_ai_metrics_module);

    if (mcf) {
        ngx_http_ai_metrics_stop(mcf);
    }
}


void
ngx_http_ai_metrics_enable(ngx_conf_t *cf)
{
    ngx_http_ai_metrics_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_metrics_module);
    mcf->enabled = 1;
}


static char *
ngx_http_ai_metrics_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_metrics_loc_conf_t *mlcf = conf;

    ngx_http_core_loc_conf_t  *clcf;

    if (mlcf->metrics) {
        return "is duplicate";
    }

    mlcf->metrics = 1;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = ngx_http_ai_metrics_handler;

    ngx_http_ai_metrics_enable(cf);

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_metrics_otel(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char                             *rv;
    ngx_http_ai_metrics_loc_conf_t   *mlcf;
    ngx_http_ai_metrics_main_conf_t  *mcf;

    rv = ngx_conf_set_flag_slot(cf, cmd, conf);
    mlcf = conf;

    if (rv == NGX_CONF_OK && mlcf->otel) {
        mcf = ngx_http_conf_get_module_main_conf(cf,
                                                 ngx_http_ai_metrics_module);
        ngx_http_ai_metrics_said(cf, &mcf->otel_said);
    }

    return rv;
}


static char *
ngx_http_ai_metrics_zone_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_ai_metrics_main_conf_t *mcf = conf;

    ssize_t     size;
    ngx_str_t  *value;

    value = cf->args->elts;

    if (mcf->zone_said.file) {
        return "is duplicate";
    }

    size = ngx_parse_size(&value[1]);

    if (size == NGX_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid size \"%V\" of \"ai_metrics_zone\", it is "
                           "written as 4m or 512k", &value[1]);
        return NGX_CONF_ERROR;
    }

    if (size < (ssize_t) (64 * ngx_pagesize)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"ai_metrics_zone\" is too small, it needs at "
                           "least %uzk", 64 * ngx_pagesize / 1024);
        return NGX_CONF_ERROR;
    }

    mcf->zone_size = size;
    ngx_http_ai_metrics_said(cf, &mcf->zone_said);

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_metrics_labels(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_metrics_main_conf_t *mcf = conf;

    u_char      *p;
    ngx_int_t    n;
    ngx_str_t   *value, s, name, text, names[2];
    ngx_uint_t   i, *cap;

    if (mcf->labels_said.file) {
        return "is duplicate";
    }

    ngx_http_ai_metrics_said(cf, &mcf->labels_said);

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_http_ai_conf_arg(&value[i], "tenant", &s)) {
            cap = &mcf->tenants;

        } else if (ngx_http_ai_conf_arg(&value[i], "key", &s)) {
            cap = &mcf->keys;

        } else {
            p = ngx_strlchr(value[i].data, value[i].data + value[i].len, '=');

            name = value[i];

            if (p) {
                name.len = p - name.data;
            }

            ngx_str_set(&names[0], "tenant");
            ngx_str_set(&names[1], "key");

            text = ngx_http_ai_near_text(cf->temp_pool, &name, names, 2);

            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "unknown parameter \"%V\" of "
                               "\"ai_metrics_labels\", it has \"tenant=N\" "
                               "and \"key=N\"%V", &value[i], &text);
            return NGX_CONF_ERROR;
        }

        if (*cap) {
            return "has a parameter twice";
        }

        n = ngx_http_ai_conf_count(&s);

        if (n == NGX_ERROR || n < 1 || n > NGX_HTTP_AI_METRICS_CALLERS) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid \"%V\" of \"ai_metrics_labels\", it "
                               "is a number from 1 to %d", &value[i],
                               NGX_HTTP_AI_METRICS_CALLERS);
            return NGX_CONF_ERROR;
        }

        *cap = n;
    }

    return NGX_CONF_OK;
}


static void
ngx_http_ai_metrics_said(ngx_conf_t *cf, ngx_http_ai_metrics_said_t *said)
{
    said->file = cf->conf_file->file.name.data;
    said->line = cf->conf_file->line;
}


static ngx_int_t
ngx_http_ai_metrics_idle(ngx_conf_t *cf, ngx_http_ai_metrics_said_t *said,
    const char *name)
{
    (void) ngx_http_ai_conf_error(cf, said->file, said->line,
                                  "\"%s\" has no effect, there is no "
                                  "location with \"ai_metrics\"", name);
    return NGX_ERROR;
}
