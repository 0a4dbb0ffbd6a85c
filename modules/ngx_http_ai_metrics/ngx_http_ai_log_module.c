
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_log.h"


#define NGX_HTTP_AI_LOG_FLUSH        1000
#define NGX_HTTP_AI_LOG_MAX_BUFFER   (64 * 1024 * 1024)
#define NGX_HTTP_AI_LOG_MIN_BUFFER   (4 * 1024)
#define NGX_HTTP_AI_LOG_TEXT         (64 * 1024)
#define NGX_HTTP_AI_LOG_MAX_TEXT     (1024 * 1024)
#define NGX_HTTP_AI_LOG_MIN_TEXT     256


static ngx_int_t ngx_http_ai_log_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_ai_log_postconfiguration(ngx_conf_t *cf);
static void *ngx_http_ai_log_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_ai_log_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_ai_log_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static char *ngx_http_ai_log_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_ai_log_parameter(ngx_conf_t *cf, ngx_str_t *arg,
    ngx_http_ai_log_t *log, size_t *size, ngx_msec_t *flush,
    ngx_uint_t *seen);
static ngx_int_t ngx_http_ai_log_size_value(ngx_conf_t *cf, ngx_str_t *arg,
    ngx_str_t *value, size_t min, size_t max, size_t *size);
static ngx_int_t ngx_http_ai_log_init_shared(ngx_slab_pool_t *shpool,
    void **data, void *conf, ngx_log_t *log);
static void ngx_http_ai_log_collector(void *data, ngx_http_ai_samples_t *s);
static void ngx_http_ai_log_exit_process(ngx_cycle_t *cycle);


static ngx_command_t  ngx_http_ai_log_commands[] = {

    { ngx_string("ai_log"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_ai_log_directive,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_health"),
      NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_ai_probe_directive,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_ai_log_module_ctx = {
    ngx_http_ai_log_preconfiguration,      /* preconfiguration */
    ngx_http_ai_log_postconfiguration,     /* postconfiguration */

    ngx_http_ai_log_create_main_conf,      /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_ai_log_create_loc_conf,       /* create location configuration */
    ngx_http_ai_log_merge_loc_conf         /* merge location configuration */
};


ngx_module_t  ngx_http_ai_log_module = {
    NGX_MODULE_V1,
    &ngx_http_ai_log_module_ctx,           /* module context */
    ngx_http_ai_log_commands,              /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_ai_log_exit_process,          /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_str_t  ngx_http_ai_log_variables[] = {
    ngx_string("ai_limit"),
    ngx_string("ai_quota"),
    ngx_string("ai_guard")
};


static ngx_str_t  ngx_http_ai_log_parameters[] = {
    ngx_string("buffer="),
    ngx_string("flush="),
    ngx_string("if="),
    ngx_string("content="),
    ngx_string("max="),
    ngx_string("format="),
    ngx_string("json")
};


static ngx_int_t
ngx_http_ai_log_preconfiguration(ngx_conf_t *cf)
{
    ngx_http_ai_log_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_log_module);

    mcf->api = ngx_http_ai_core_api(cf, "ngx_http_ai_log_module");

    return mcf->api ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_http_ai_log_postconfiguration(ngx_conf_t *cf)
{
    ngx_uint_t                    i, n;
    ngx_hash_key_t               *key;
    ngx_http_handler_pt          *h;
    ngx_http_core_main_conf_t    *cmcf;
    ngx_http_ai_log_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_log_module);

    if (ngx_http_ai_probe_init(cf, mcf) != NGX_OK) {
        return NGX_ERROR;
    }

    if (mcf->content) {
        /* of logs, or of spans */
        ngx_http_ai_log_content_init();
    }

    if (mcf->sinks.nelts == 0) {
        return NGX_OK;
    }

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    /* of modules that may not be loaded */

    key = cmcf->variables_keys->keys.elts;

    for (n = 0; n < NGX_HTTP_AI_LOG_VARIABLES; n++) {
        mcf->index[n] = NGX_ERROR;

        for (i = 0; i < cmcf->variables_keys->keys.nelts; i++) {

            if (key[i].key.len != ngx_http_ai_log_variables[n].len
                || ngx_memcmp(key[i].key.data,
                              ngx_http_ai_log_variables[n].data,
                              key[i].key.len)
                   != 0)
            {
                continue;
            }

            mcf->index[n] = ngx_http_get_variable_index(cf,
                                               &ngx_http_ai_log_variables[n]);
            if (mcf->index[n] == NGX_ERROR) {
                return NGX_ERROR;
            }

            break;
        }
    }

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_LOG_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_ai_log_handler;

    if (mcf->api->add_shared(cf, "log-1", ngx_http_ai_log_init_shared, mcf)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return mcf->api->add_collector(cf, ngx_http_ai_log_collector, mcf);
}


static void *
ngx_http_ai_log_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_ai_log_main_conf_t  *mcf;

    mcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_log_main_conf_t));
    if (mcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&mcf->sinks, cf->pool, 2,
                       sizeof(ngx_http_ai_log_sink_t *))
        != NGX_OK)
    {
        return NULL;
    }

    return mcf;
}


static void *
ngx_http_ai_log_create_loc_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_log_loc_conf_t));
}


static char *
ngx_http_ai_log_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_ai_log_loc_conf_t *prev = parent;
    ngx_http_ai_log_loc_conf_t *conf = child;

    if (conf->logs == NULL && !conf->off) {
        conf->logs = prev->logs;
        conf->content = prev->content;
        conf->max = prev->max;
        conf->off = prev->off;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_log_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_log_loc_conf_t *llcf = conf;

    size_t                        size;
    ngx_str_t                    *value;
    ngx_msec_t                    flush;
    ngx_uint_t                    i, seen;
    ngx_http_ai_log_t            *log;
    ngx_http_ai_log_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_log_module);

    value = cf->args->elts;

    if (ngx_http_ai_str_is(&value[1], "off")) {

        if (cf->args->nelts > 2) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"ai_log off\" has no parameter \"%V\"",
                               &value[2]);
            return NGX_CONF_ERROR;
        }

        if (llcf->logs) {
            return "off excludes other \"ai_log\" at the same place";
        }

        llcf->off = 1;

        return NGX_CONF_OK;
    }

    if (llcf->off) {
        return "is off at the same place";
    }

    if (llcf->logs == NULL) {
        llcf->logs = ngx_array_create(cf->pool, 1, sizeof(ngx_http_ai_log_t));
        if (llcf->logs == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    log = ngx_array_push(llcf->logs);
    if (log == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(log, sizeof(ngx_http_ai_log_t));

    size = 0;
    flush = 0;
    seen = 0;

    for (i = 2; i < cf->args->nelts; i++) {
        if (ngx_http_ai_log_parameter(cf, &value[i], log, &size, &flush, &seen)
            != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    if (flush && size == 0) {
        return "has \"flush=\" and no \"buffer=\"";
    }

    if (log->max && log->content != NGX_HTTP_AI_LOG_FULL) {
        return "has \"max=\" and no \"content=full\"";
    }

    if (size && flush == 0) {
        flush = NGX_HTTP_AI_LOG_FLUSH;
    }

    if (log->max == 0) {
        log->max = NGX_HTTP_AI_LOG_TEXT;
    }

    log->sink = ngx_http_ai_log_sink(cf, mcf, size, flush);
    if (log->sink == NULL) {
        return NGX_CONF_ERROR;
    }

    if (log->content == NGX_HTTP_AI_LOG_FULL
        && log->sink->pipe != NGX_INVALID_FILE)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "ai_log \"%V\" is a pipe, which takes lines of "
                           "%uz bytes: use a file for \"content=full\"",
                           &log->sink->name, log->sink->max);
        return NGX_CONF_ERROR;
    }

    mcf->content |= log->content;
    llcf->content |= log->content;
    llcf->max = ngx_max(llcf->max, log->max);

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_ai_log_parameter(ngx_conf_t *cf, ngx_str_t *arg,
    ngx_http_ai_log_t *log, size_t *size, ngx_msec_t *flush, ngx_uint_t *seen)
{
    u_char      *equal;
    ngx_str_t    value, near;
    ngx_uint_t   bit;

    if (ngx_http_ai_conf_arg(arg, "buffer", &value)) {
        bit = 1;

        if (ngx_http_ai_log_size_value(cf, arg, &value,
                                       NGX_HTTP_AI_LOG_MIN_BUFFER,
                                       NGX_HTTP_AI_LOG_MAX_BUFFER, size)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

    } else if (ngx_http_ai_conf_arg(arg, "flush", &value)) {
        bit = 2;

        *flush = ngx_parse_time(&value, 0);

        if (*flush == (ngx_msec_t) NGX_ERROR || *flush == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid time \"%V\" of \"ai_log\", it is as "
                               "\"flush=1s\"", arg);
            return NGX_ERROR;
        }

    } else if (ngx_http_ai_conf_arg(arg, "if", &value)) {
        bit = 4;

        if (ngx_http_ai_conf_complex(cf, &value, &log->filter) != NGX_CONF_OK)
        {
            return NGX_ERROR;
        }

    } else if (ngx_http_ai_conf_arg(arg, "content", &value)) {
        bit = 8;

        if (ngx_http_ai_str_is(&value, "full")) {
            log->content = NGX_HTTP_AI_LOG_FULL;

        } else if (ngx_http_ai_str_is(&value, "hash")) {
            log->content = NGX_HTTP_AI_LOG_HASH;

        } else if (!ngx_http_ai_str_is(&value, "off")) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid \"%V\" of \"ai_log\", content is "
                               "\"off\", \"hash\" or \"full\"", arg);
            return NGX_ERROR;
        }

    } else if (ngx_http_ai_conf_arg(arg, "max", &value)) {
        bit = 16;

        if (ngx_http_ai_log_size_value(cf, arg, &value,
                                       NGX_HTTP_AI_LOG_MIN_TEXT,
                                       NGX_HTTP_AI_LOG_MAX_TEXT, &log->max)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

    } else if (ngx_http_ai_conf_arg(arg, "format", &value)
               || ngx_http_ai_str_is(arg, "json"))
    {
        bit = 32;

        if (!ngx_http_ai_str_is(arg, "json")
            && !ngx_http_ai_str_is(&value, "json"))
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "unknown format \"%V\" of \"ai_log\", it has "
                               "\"json\"; other formats are those of "
                               "access_log", &value);
            return NGX_ERROR;
        }

    } else {
        value = *arg;
        equal = ngx_strlchr(arg->data, arg->data + arg->len, '=');

        if (equal) {
            value.len = equal + 1 - arg->data;
        }

        near = ngx_http_ai_near_text(cf->pool, &value,
                                     ngx_http_ai_log_parameters,
                                     sizeof(ngx_http_ai_log_parameters)
                                     / sizeof(ngx_str_t));

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "unknown parameter \"%V\" of \"ai_log\"%V", arg,
                           &near);
        return NGX_ERROR;
    }

    if (*seen & bit) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"ai_log\" has \"%V\" after another one", arg);
        return NGX_ERROR;
    }

    *seen |= bit;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_log_size_value(ngx_conf_t *cf, ngx_str_t *arg, ngx_str_t *value,
    size_t min, size_t max, size_t *size)
{
    ssize_t  n;

    n = ngx_parse_size(value);

    if (n == NGX_ERROR || (size_t) n < min || (size_t) n > max) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid size \"%V\" of \"ai_log\", it is from %uz "
                           "to %uz bytes", arg, min, max);
        return NGX_ERROR;
    }

    *size = n;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_log_init_shared(ngx_slab_pool_t *shpool, void **data, void *conf,
    ngx_log_t *log)
{
    ngx_http_ai_log_main_conf_t *mcf = conf;

    if (*data == NULL) {
        *data = ngx_slab_calloc(shpool, sizeof(ngx_http_ai_log_sh_t));
        if (*data == NULL) {
            ngx_log_error(NGX_LOG_EMERG, log, 0,
                          "ai log: no memory in ai_zone");
            return NGX_ERROR;
        }
    }

    mcf->sh = *data;

    return NGX_OK;
}


static void
ngx_http_ai_log_collector(void *data, ngx_http_ai_samples_t *s)
{
    ngx_http_ai_log_main_conf_t *mcf = data;

    s->family(s, NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_log_lines",
              "Lines of the usage log, lost ones included.");
    s->sample(s, NULL, 0, mcf->sh->lines, 0);

    s->family(s, NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_log_lost",
              "Lines of the usage log that could not be written.");
    s->sample(s, NULL, 0, mcf->sh->lost, 0);
}


static void
ngx_http_ai_log_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_ai_log_main_conf_t  *mcf;

    mcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_ai_log_module);

    if (mcf) {
        ngx_http_ai_log_sinks_exit(cycle, mcf);
    }
}
