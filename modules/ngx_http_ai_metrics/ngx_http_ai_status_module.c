
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_status.h"
#include "ngx_http_ai_send.h"


#define NGX_HTTP_AI_STATUS_SLOW_DEFAULT  10000


static ngx_int_t ngx_http_ai_status_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_ai_status_postconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_ai_status_init_module(ngx_cycle_t *cycle);
static void *ngx_http_ai_status_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_ai_status_create_loc_conf(ngx_conf_t *cf);

static char *ngx_http_ai_status(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_ai_status_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_ai_status_figures(ngx_http_request_t *r);
static void ngx_http_ai_status_event(ngx_event_t *ev);
static void ngx_http_ai_status_cleanup(void *data);
static ngx_int_t ngx_http_ai_status_answer(ngx_http_ai_status_sums_t *sums);
static ngx_uint_t ngx_http_ai_status_here(ngx_http_request_t *r);
static ngx_int_t ngx_http_ai_status_send(ngx_http_request_t *r,
    ngx_str_t *type, u_char *start, u_char *last);
static ngx_int_t ngx_http_ai_status_headers(ngx_http_request_t *r);


static ngx_command_t  ngx_http_ai_status_commands[] = {

    { ngx_string("ai_status"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE1,
      ngx_http_ai_status,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_ai_status_module_ctx = {
    ngx_http_ai_status_preconfiguration,
    ngx_http_ai_status_postconfiguration,

    ngx_http_ai_status_create_main_conf,
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_ai_status_create_loc_conf,
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_ai_status_module = {
    NGX_MODULE_V1,
    &ngx_http_ai_status_module_ctx,
    ngx_http_ai_status_commands,
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    ngx_http_ai_status_init_module,        /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_http_ai_status_preconfiguration(ngx_conf_t *cf)
{
    ngx_http_ai_status_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_status_module);

    mcf->api = ngx_http_ai_core_api(cf, "ngx_http_ai_status_module");

    return mcf->api ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_http_ai_status_postconfiguration(ngx_conf_t *cf)
{
    ngx_http_ai_status_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_status_module);

    if (!mcf->used) {
        return NGX_OK;
    }

    return ngx_http_ai_status_recent_init(cf, mcf);
}


/* in the master, once the configuration is in force */

static ngx_int_t
ngx_http_ai_status_init_module(ngx_cycle_t *cycle)
{
    ngx_http_ai_status_main_conf_t  *mcf;

    mcf = ngx_http_cycle_get_module_main_conf(cycle,
                                              ngx_http_ai_status_module);

    if (mcf && mcf->shared) {
        mcf->shared->loaded = ngx_time();
        mcf->shared->loads++;
    }

    return NGX_OK;
}


static void *
ngx_http_ai_status_create_main_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_status_main_conf_t));
}


static void *
ngx_http_ai_status_create_loc_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_status_loc_conf_t));
}


static char *
ngx_http_ai_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_status_loc_conf_t *slcf = conf;

    ngx_str_t                       *value, slow;
    ngx_http_core_loc_conf_t        *clcf;
    ngx_http_ai_status_main_conf_t  *mcf;

    if (slcf->enable) {
        return "is duplicate";
    }

    slcf->enable = 1;
    slcf->slow = NGX_HTTP_AI_STATUS_SLOW_DEFAULT;

    if (cf->args->nelts == 2) {
        value = cf->args->elts;

        if (!ngx_http_ai_conf_arg(&value[1], "slow", &slow)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "unknown parameter \"%V\" of \"ai_status\", it "
                               "has \"slow=\"", &value[1]);
            return NGX_CONF_ERROR;
        }

        slcf->slow = ngx_parse_time(&slow, 0);

        if (slcf->slow == (ngx_msec_t) NGX_ERROR || slcf->slow == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"slow=%V\" of \"ai_status\" must be a time "
                               "above 0, such as \"10s\" or \"500ms\"", &slow);
            return NGX_CONF_ERROR;
        }
    }

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_status_module);

    mcf->slow = mcf->used ? ngx_min(mcf->slow, slcf->slow) : slcf->slow;
    mcf->used = 1;

    ngx_http_ai_metrics_enable(cf);

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = ngx_http_ai_status_handler;

    if (clcf->name.len && clcf->name.data[clcf->name.len - 1] == '/') {
        clcf->auto_redirect = 1;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_ai_status_handler(ngx_http_request_t *r)
{
    ngx_int_t  rc;
    ngx_str_t  format;

    static ngx_str_t  html = ngx_string("text/html; charset=utf-8");

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);
    if (rc != NGX_OK) {
        return rc;
    }

    if (!ngx_http_ai_status_here(r)) {
        return NGX_HTTP_NOT_FOUND;
    }

    if (ngx_http_arg(r, (u_char *) "format", 6, &format) != NGX_OK) {
        return ngx_http_ai_status_send(r, &html, ngx_http_ai_status_page.data,
                                       ngx_http_ai_status_page.data
                                       + ngx_http_ai_status_page.len);
    }

    if (!ngx_http_ai_str_is(&format, "json")) {
        return NGX_HTTP_NOT_FOUND;
    }

    return ngx_http_ai_status_figures(r);
}


static ngx_int_t
ngx_http_ai_status_figures(ngx_http_request_t *r)
{
    ngx_int_t                   rc;
    ngx_http_cleanup_t         *cln;
    ngx_http_ai_status_sums_t  *sums;

    sums = ngx_pcalloc(r->pool, sizeof(ngx_http_ai_status_sums_t));
    if (sums == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    sums->request = r;
    sums->pool = r->pool;
    sums->mcf = ngx_http_get_module_main_conf(r, ngx_http_ai_metrics_module);

    rc = ngx_http_ai_status_sum(sums);

    if (rc == NGX_OK) {
        return ngx_http_ai_status_answer(sums);
    }

    if (rc == NGX_ERROR) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    cln = ngx_http_cleanup_add(r, 0);
    if (cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    cln->handler = ngx_http_ai_status_cleanup;
    cln->data = sums;

    sums->event.handler = ngx_http_ai_status_event;
    sums->event.data = sums;
    sums->event.log = r->connection->log;

    ngx_post_event(&sums->event, &ngx_posted_next_events);

    r->main->count++;

    return NGX_DONE;
}


static void
ngx_http_ai_status_event(ngx_event_t *ev)
{
    ngx_int_t                   rc;
    ngx_connection_t           *c;
    ngx_http_request_t         *r;
    ngx_http_ai_status_sums_t  *sums;

    sums = ev->data;
    r = sums->request;
    c = r->connection;

    rc = ngx_http_ai_status_sum(sums);

    if (rc == NGX_AGAIN) {
        ngx_post_event(ev, &ngx_posted_next_events);
        return;
    }

    ngx_http_set_log_request(c->log, r);

    ngx_http_finalize_request(r, rc == NGX_OK
                                 ? ngx_http_ai_status_answer(sums)
                                 : NGX_HTTP_INTERNAL_SERVER_ERROR);

    ngx_http_run_posted_requests(c);
}


static void
ngx_http_ai_status_cleanup(void *data)
{
    ngx_http_ai_status_sums_t *sums = data;

    if (sums->event.posted) {
        ngx_delete_posted_event(&sums->event);
    }
}


static ngx_int_t
ngx_http_ai_status_answer(ngx_http_ai_status_sums_t *sums)
{
    ngx_http_ai_out_t  out;

    static ngx_str_t   json = ngx_string("application/json");

    if (ngx_http_ai_out_init(&out, sums->pool, 16384) != NGX_OK
        || ngx_http_ai_status_json(sums, &out) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_ai_status_send(sums->request, &json, out.start, out.last);
}


/* there is nothing below the page: of a prefix only the prefix itself */

static ngx_uint_t
ngx_http_ai_status_here(ngx_http_request_t *r)
{
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (clcf->noname || clcf->named) {
        return 1;
    }

#if (NGX_PCRE)
    if (clcf->regex) {
        return 1;
    }
#endif

    return r->uri.len == clcf->name.len;
}


static ngx_int_t
ngx_http_ai_status_send(ngx_http_request_t *r, ngx_str_t *type, u_char *start,
    u_char *last)
{
    if (ngx_http_ai_status_headers(r) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_ai_send(r, NGX_HTTP_OK, type, start, last);
}


static ngx_int_t
ngx_http_ai_status_headers(ngx_http_request_t *r)
{
    ngx_str_t    policy;
    ngx_list_t  *headers;

    static ngx_str_t  deny = ngx_string("DENY");
    static ngx_str_t  nosniff = ngx_string("nosniff");
    static ngx_str_t  no_store = ngx_string("no-store");
    static ngx_str_t  no_referrer = ngx_string("no-referrer");

    headers = &r->headers_out.headers;
    policy = ngx_http_ai_status_policy;

    if (ngx_http_ai_header_add(headers, "Cache-Control", &no_store) == NULL
        || ngx_http_ai_header_add(headers, "Content-Security-Policy", &policy)
           == NULL
        || ngx_http_ai_header_add(headers, "X-Content-Type-Options", &nosniff)
           == NULL
        || ngx_http_ai_header_add(headers, "X-Frame-Options", &deny) == NULL
        || ngx_http_ai_header_add(headers, "Referrer-Policy", &no_referrer)
           == NULL)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}
