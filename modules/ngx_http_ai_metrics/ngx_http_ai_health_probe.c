
/*
 * Copyright (C) nginx AI gateway authors
 */


/* ai_health: locations for those who watch whether it lives and is ready */


#include "ngx_http_ai_log.h"
#include "ngx_http_ai_send.h"


#define NGX_HTTP_AI_HEALTH_LIVE   1
#define NGX_HTTP_AI_HEALTH_READY  2
#define NGX_HTTP_AI_HEALTH_REDIS  4
#define NGX_HTTP_AI_HEALTH_DATA   8


static ngx_int_t ngx_http_ai_probe_require(ngx_conf_t *cf, ngx_str_t *value,
    ngx_uint_t *bits);
static ngx_int_t ngx_http_ai_probe_handler(ngx_http_request_t *r);
static ngx_uint_t ngx_http_ai_probe_draining(
    ngx_http_ai_log_loc_conf_t *llcf);
static ngx_int_t ngx_http_ai_probe_redis(const ngx_http_ai_api_t *api,
    ngx_http_ai_out_t *out, ngx_uint_t *n);
static ngx_int_t ngx_http_ai_probe_data(const ngx_http_ai_api_t *api,
    ngx_http_ai_out_t *out, ngx_uint_t *n);
static void ngx_http_ai_probe_reason(ngx_http_ai_out_t *out, ngx_uint_t *n,
    const char *what, ngx_str_t *name, const char *why);


static ngx_str_t  ngx_http_ai_probe_words[] = {
    ngx_string("live"),
    ngx_string("ready"),
    ngx_string("redis"),
    ngx_string("data"),
    ngx_string("require="),
    ngx_string("drain=")
};


char *
ngx_http_ai_probe_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_log_loc_conf_t *llcf = conf;

    u_char                       *equal;
    ngx_str_t                    *value, text, near;
    ngx_uint_t                    i;
    ngx_http_core_loc_conf_t     *clcf;
    ngx_http_ai_log_main_conf_t  *mcf;

    if (llcf->health) {
        return "is duplicate";
    }

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_log_module);

    value = cf->args->elts;

    if (ngx_http_ai_str_is(&value[1], "live")) {
        llcf->health = NGX_HTTP_AI_HEALTH_LIVE;

    } else if (ngx_http_ai_str_is(&value[1], "ready")) {
        llcf->health = NGX_HTTP_AI_HEALTH_READY;

    } else {
        near = ngx_http_ai_near_text(cf->pool, &value[1],
                                     ngx_http_ai_probe_words, 2);

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "unknown \"%V\" of \"ai_health\", it is \"live\" "
                           "or \"ready\"%V", &value[1], &near);
        return NGX_CONF_ERROR;
    }

    for (i = 2; i < cf->args->nelts; i++) {

        if (llcf->health == NGX_HTTP_AI_HEALTH_LIVE) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"ai_health live\" has no parameter \"%V\", "
                               "\"ai_health ready\" may have it", &value[i]);
            return NGX_CONF_ERROR;
        }

        if (ngx_http_ai_conf_arg(&value[i], "require", &text)) {

            if (ngx_http_ai_probe_require(cf, &text, &llcf->health)
                != NGX_OK)
            {
                return NGX_CONF_ERROR;
            }

        } else if (ngx_http_ai_conf_arg(&value[i], "drain", &text)
                   && text.len)
        {
            if (llcf->drain.len) {
                return "has \"drain=\" twice";
            }

            llcf->drain = text;

            if (ngx_conf_full_name(cf->cycle, &llcf->drain, 0) != NGX_OK) {
                return NGX_CONF_ERROR;
            }

        } else {
            text = value[i];
            equal = ngx_strlchr(text.data, text.data + text.len, '=');

            if (equal) {
                text.len = equal + 1 - text.data;
            }

            near = ngx_http_ai_near_text(cf->pool, &text,
                                         &ngx_http_ai_probe_words[4], 2);

            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "unknown parameter \"%V\" of \"ai_health\"%V",
                               &value[i], &near);
            return NGX_CONF_ERROR;
        }
    }

    mcf->health |= llcf->health;

    if (llcf->health & (NGX_HTTP_AI_HEALTH_REDIS|NGX_HTTP_AI_HEALTH_DATA)) {
        mcf->file = cf->conf_file->file.name.data;
        mcf->line = cf->conf_file->line;
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = ngx_http_ai_probe_handler;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_ai_probe_require(ngx_conf_t *cf, ngx_str_t *value, ngx_uint_t *bits)
{
    u_char      *p, *last, *end;
    ngx_str_t    name, near;
    ngx_uint_t   bit;

    last = value->data + value->len;

    for (p = value->data; p <= last; p = end + 1) {
        end = ngx_strlchr(p, last, ',');

        if (end == NULL) {
            end = last;
        }

        name.data = p;
        name.len = end - p;

        if (ngx_http_ai_str_is(&name, "redis")) {
            bit = NGX_HTTP_AI_HEALTH_REDIS;

        } else if (ngx_http_ai_str_is(&name, "data")) {
            bit = NGX_HTTP_AI_HEALTH_DATA;

        } else {
            near = ngx_http_ai_near_text(cf->pool, &name,
                                         &ngx_http_ai_probe_words[2], 2);

            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "unknown \"%V\" of \"require=\", it has "
                               "\"redis\" and \"data\"%V", &name, &near);
            return NGX_ERROR;
        }

        if (*bits & bit) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"ai_health\" requires \"%V\" twice", &name);
            return NGX_ERROR;
        }

        *bits |= bit;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_probe_init(ngx_conf_t *cf, ngx_http_ai_log_main_conf_t *mcf)
{
    ngx_str_t  name;

    if ((mcf->health & NGX_HTTP_AI_HEALTH_REDIS)
        && mcf->api->redis_at(cf->cycle, 0, &name) == NULL)
    {
        (void) ngx_http_ai_conf_error(cf, mcf->file, mcf->line,
                                      "\"ai_health ready require=redis\" "
                                      "needs an \"ai_redis\", there is none");
        return NGX_ERROR;
    }

    if ((mcf->health & NGX_HTTP_AI_HEALTH_DATA)
        && !mcf->api->data_enabled(cf))
    {
        (void) ngx_http_ai_conf_error(cf, mcf->file, mcf->line,
                                      "\"ai_health ready require=data\" "
                                      "needs an \"ai_data\", there is none");
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_probe_handler(ngx_http_request_t *r)
{
    ngx_int_t                     rc;
    ngx_uint_t                    n;
    ngx_http_ai_out_t             out, reasons;
    ngx_http_ai_log_loc_conf_t   *llcf;
    ngx_http_ai_log_main_conf_t  *mcf;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_log_module);
    mcf = ngx_http_get_module_main_conf(r, ngx_http_ai_log_module);

    if (ngx_http_ai_out_init(&out, r->pool, 256) != NGX_OK
        || ngx_http_ai_out_init(&reasons, r->pool, 256) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    n = 0;

    if (llcf->health & NGX_HTTP_AI_HEALTH_READY) {

        if (ngx_http_ai_probe_draining(llcf)) {
            ngx_http_ai_out_lit(&out, "{\"status\":\"draining\"}\n");

            return ngx_http_ai_send_state(r, NGX_HTTP_SERVICE_UNAVAILABLE,
                                          &out);
        }

        if ((llcf->health & NGX_HTTP_AI_HEALTH_REDIS)
            && ngx_http_ai_probe_redis(mcf->api, &reasons, &n) != NGX_OK)
        {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        if ((llcf->health & NGX_HTTP_AI_HEALTH_DATA)
            && ngx_http_ai_probe_data(mcf->api, &reasons, &n) != NGX_OK)
        {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    if (n == 0) {
        ngx_http_ai_out_lit(&out, "{\"status\":\"ok\"}\n");

        return ngx_http_ai_send_state(r, NGX_HTTP_OK, &out);
    }

    ngx_http_ai_out_lit(&out, "{\"status\":\"unavailable\",\"reasons\":[");
    ngx_http_ai_out_mem(&out, reasons.start, reasons.last - reasons.start);
    ngx_http_ai_out_lit(&out, "]}\n");

    return ngx_http_ai_send_state(r, NGX_HTTP_SERVICE_UNAVAILABLE, &out);
}


static ngx_uint_t
ngx_http_ai_probe_draining(ngx_http_ai_log_loc_conf_t *llcf)
{
    ngx_file_info_t  fi;

    if (ngx_exiting || ngx_quit || ngx_terminate) {
        return 1;
    }

    return llcf->drain.len
           && ngx_file_info(llcf->drain.data, &fi) != NGX_FILE_ERROR;
}


static ngx_int_t
ngx_http_ai_probe_redis(const ngx_http_ai_api_t *api, ngx_http_ai_out_t *out,
    ngx_uint_t *n)
{
    ngx_str_t                    name;
    ngx_uint_t                   i;
    ngx_http_ai_redis_t         *redis;
    ngx_http_ai_redis_status_t   status;

    for (i = 0; /* void */ ; i++) {
        redis = api->redis_at((ngx_cycle_t *) ngx_cycle, i, &name);

        if (redis == NULL) {
            break;
        }

        api->redis_status(redis, &status);

        if (!status.up) {
            ngx_http_ai_probe_reason(out, n, "redis", &name,
                                      "has no connection");

        } else if (status.open) {
            ngx_http_ai_probe_reason(out, n, "redis", &name, "fails");
        }
    }

    return out->failed ? NGX_ERROR : NGX_OK;
}


/* nginx does not start without what it needs, but files may be bad later */

static ngx_int_t
ngx_http_ai_probe_data(const ngx_http_ai_api_t *api, ngx_http_ai_out_t *out,
    ngx_uint_t *n)
{
    ngx_int_t                   rc;
    ngx_uint_t                  i;
    ngx_http_ai_data_status_t   status;

    for (i = 0; /* void */ ; i++) {
        rc = api->data_status(i, out->pool, &status);

        if (rc == NGX_DECLINED) {
            break;
        }

        if (rc != NGX_OK) {
            return NGX_ERROR;
        }

        if (status.state == NGX_HTTP_AI_DATA_STALE
            || (status.required && status.state == NGX_HTTP_AI_DATA_NONE))
        {
            ngx_http_ai_probe_reason(out, n, "data", &status.name,
                                     "is not what its file is");
        }
    }

    return out->failed ? NGX_ERROR : NGX_OK;
}


static void
ngx_http_ai_probe_reason(ngx_http_ai_out_t *out, ngx_uint_t *n,
    const char *what, ngx_str_t *name, const char *why)
{
    if ((*n)++) {
        ngx_http_ai_out_lit(out, ",");
    }

    ngx_http_ai_out_lit(out, "\"");
    ngx_http_ai_out_mem(out, what, ngx_strlen(what));
    ngx_http_ai_out_lit(out, " ");
    ngx_http_ai_out_escaped(out, name->data, name->len);
    ngx_http_ai_out_lit(out, " ");
    ngx_http_ai_out_mem(out, why, ngx_strlen(why));
    ngx_http_ai_out_lit(out, "\"");
}
