
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_trace.h"

#include <openssl/rand.h>


/* the header that providers get, with its CRLF */
#define NGX_HTTP_AI_TRACEPARENT_LINE                                          \
    (sizeof("traceparent: " CRLF) - 1 + NGX_HTTP_AI_TRACEPARENT)


static ngx_int_t ngx_http_ai_trace_join(ngx_http_request_t *r,
    ngx_http_ai_trace_t *t);
static uint64_t ngx_http_ai_trace_id(void);
static ngx_int_t ngx_http_ai_trace_attempt(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_uint_t n, ngx_http_ai_out_t *headers);
static ngx_int_t ngx_http_ai_trace_log_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_ai_trace_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static void ngx_http_ai_trace_collect(void *data, ngx_http_ai_samples_t *s);
static ngx_int_t ngx_http_ai_trace_init_shared(ngx_slab_pool_t *shpool,
    void **data, void *conf, ngx_log_t *log);
static ngx_int_t ngx_http_ai_trace_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_ai_trace_postconfiguration(ngx_conf_t *cf);
static void *ngx_http_ai_trace_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_ai_trace_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_ai_trace_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_ai_trace_init_process(ngx_cycle_t *cycle);


typedef enum {
    NGX_HTTP_AI_TRACE_VAR_TRACE = 0,
    NGX_HTTP_AI_TRACE_VAR_SPAN,
    NGX_HTTP_AI_TRACE_VAR_PARENT
} ngx_http_ai_trace_var_e;


static ngx_command_t  ngx_http_ai_trace_commands[] = {

    { ngx_string("ai_trace"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_ai_trace_directive,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_trace_attribute"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE23,
      ngx_http_ai_trace_attribute,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_trace_propagate"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_ai_trace_loc_conf_t, propagate),
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_ai_trace_module_ctx = {
    ngx_http_ai_trace_preconfiguration,    /* preconfiguration */
    ngx_http_ai_trace_postconfiguration,   /* postconfiguration */

    ngx_http_ai_trace_create_main_conf,    /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_ai_trace_create_loc_conf,     /* create location configuration */
    ngx_http_ai_trace_merge_loc_conf       /* merge location configuration */
};


ngx_module_t  ngx_http_ai_trace_module = {
    NGX_MODULE_V1,
    &ngx_http_ai_trace_module_ctx,         /* module context */
    ngx_http_ai_trace_commands,            /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_ai_trace_init_process,        /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_http_variable_t  ngx_http_ai_trace_vars[] = {

    { ngx_string("ai_trace_id"), NULL, ngx_http_ai_trace_variable,
      NGX_HTTP_AI_TRACE_VAR_TRACE, 0, 0 },

    { ngx_string("ai_span_id"), NULL, ngx_http_ai_trace_variable,
      NGX_HTTP_AI_TRACE_VAR_SPAN, 0, 0 },

    { ngx_string("ai_traceparent"), NULL, ngx_http_ai_trace_variable,
      NGX_HTTP_AI_TRACE_VAR_PARENT, 0, 0 },

      ngx_http_null_variable
};


/* of a worker; xoroshiro128+ of D. Blackman and S. Vigna */

static uint64_t  ngx_http_ai_trace_state[2];


ngx_http_ai_trace_t *
ngx_http_ai_trace_get(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    ngx_http_ai_trace_t           *t;
    ngx_http_ai_trace_loc_conf_t  *tlcf;

    if (ctx->trace) {
        return ctx->trace;
    }

    t = ngx_pcalloc(r->pool, sizeof(ngx_http_ai_trace_t));
    if (t == NULL) {
        return NULL;
    }

    tlcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_trace_module);

    if (ngx_http_ai_trace_join(r, t) == NGX_ERROR) {
        return NULL;
    }

    if (t->parent == 0) {
        t->high = ngx_http_ai_trace_id();
        t->low = ngx_http_ai_trace_id();
    }

    if (t->parent == 0 || !tlcf->parent) {
        t->sampled = (tlcf->exporter
                      && ngx_http_ai_trace_sampled(t->low, tlcf->sample));
    }

    t->span = ngx_http_ai_trace_id();

    (void) ngx_http_ai_trace_hex(ngx_http_ai_trace_hex(t->trace, t->high),
                                 t->low);

    ctx->trace = t;

    return t;
}


ngx_uint_t
ngx_http_ai_trace_exported(ngx_http_request_t *r)
{
    ngx_http_ai_trace_loc_conf_t  *tlcf;

    tlcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_trace_module);

    return tlcf->exporter != NULL;
}


/* the context that the client has sent, or none */

static ngx_int_t
ngx_http_ai_trace_join(ngx_http_request_t *r, ngx_http_ai_trace_t *t)
{
    ngx_uint_t                  i;
    ngx_list_part_t            *part;
    ngx_table_elt_t            *h, *parent;
    ngx_http_ai_out_t           state;
    ngx_http_ai_traceparent_t   tp;

    parent = ngx_http_ai_header_in(r, "traceparent");

    if (parent == NULL
        || ngx_http_ai_traceparent_parse(&parent->value, &tp) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    t->high = tp.high;
    t->low = tp.low;
    t->parent = tp.parent;
    t->sampled = tp.sampled;

    ngx_memzero(&state, sizeof(ngx_http_ai_out_t));
    state.pool = r->pool;

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (h[i].key.len != sizeof("tracestate") - 1
                || ngx_strncasecmp(h[i].key.data, (u_char *) "tracestate",
                                   sizeof("tracestate") - 1)
                   != 0)
            {
                continue;
            }

            if (state.start) {
                ngx_http_ai_out_lit(&state, ",");
            }

            ngx_http_ai_out_str(&state, &h[i].value);
        }
    }

    if (state.failed) {
        return NGX_ERROR;
    }

    if (state.last - state.start <= NGX_HTTP_AI_TRACESTATE) {
        t->state.data = state.start;
        t->state.len = state.last - state.start;
    }

    return NGX_OK;
}


/* never 0 */

static uint64_t
ngx_http_ai_trace_id(void)
{
    uint64_t  a, b, v;

    do {
        a = ngx_http_ai_trace_state[0];
        b = ngx_http_ai_trace_state[1];

        v = a + b;

        b ^= a;
        a = ((a << 24) | (a >> 40)) ^ b ^ (b << 16);
        b = (b << 37) | (b >> 27);

        ngx_http_ai_trace_state[0] = a;
        ngx_http_ai_trace_state[1] = b;

    } while (v == 0);

    return v;
}


static ngx_int_t
ngx_http_ai_trace_attempt(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_uint_t n, ngx_http_ai_out_t *headers)
{
    u_char                        *p;
    u_char                         text[NGX_HTTP_AI_TRACEPARENT_LINE];
    ngx_http_ai_trace_t           *t;
    ngx_http_ai_trace_loc_conf_t  *tlcf;

    tlcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_trace_module);

    /* nobody would be told of it */

    if (!tlcf->propagate && tlcf->exporter == NULL
        && ngx_http_ai_header_in(r, "traceparent") == NULL)
    {
        return NGX_OK;
    }

    t = ngx_http_ai_trace_get(r, ctx);

    if (t == NULL) {
        return NGX_ERROR;
    }

    if (n >= NGX_HTTP_AI_TRACE_ATTEMPTS) {
        return NGX_OK;
    }

    t->attempts[n] = ngx_http_ai_trace_id();

    if (!tlcf->propagate) {
        return NGX_OK;
    }

    p = ngx_cpymem(text, "traceparent: ", sizeof("traceparent: ") - 1);
    p = ngx_http_ai_traceparent_write(p, t->trace, t->attempts[n], t->sampled);
    *p++ = CR;
    *p = LF;

    ngx_http_ai_out_mem(headers, text, NGX_HTTP_AI_TRACEPARENT_LINE);

    if (t->state.len) {
        ngx_http_ai_out_lit(headers, "tracestate: ");
        ngx_http_ai_out_str(headers, &t->state);
        ngx_http_ai_out_lit(headers, CRLF);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_trace_log_handler(ngx_http_request_t *r)
{
    ngx_uint_t                      i, n;
    ngx_http_ai_ctx_t              *ctx;
    ngx_http_ai_otlp_t             *w;
    ngx_http_ai_trace_t            *t;
    ngx_http_ai_trace_loc_conf_t   *tlcf;
    ngx_http_ai_trace_main_conf_t  *tmcf;

    tlcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_trace_module);

    if (tlcf->exporter == NULL) {
        return NGX_OK;
    }

    tmcf = ngx_http_get_module_main_conf(r, ngx_http_ai_trace_module);

    ctx = tmcf->api->get_ctx(r);

    if (ctx == NULL) {
        return NGX_OK;
    }

    t = ngx_http_ai_trace_get(r, ctx);

    if (t == NULL || !t->sampled) {
        return NGX_OK;
    }

    w = ngx_http_ai_exporter_begin(tlcf->exporter, 1 + ctx->attempts);

    if (w == NULL) {
        return NGX_OK;
    }

    /* attempts that were never sent have no id yet */

    for (i = 0; i < ngx_min(ctx->attempts, NGX_HTTP_AI_TRACE_ATTEMPTS); i++) {
        if (t->attempts[i] == 0) {
            t->attempts[i] = ngx_http_ai_trace_id();
        }
    }

    n = ngx_http_ai_trace_spans(r, ctx, t, tlcf, w);

    ngx_http_ai_exporter_add(tlcf->exporter, n);

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_trace_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t data)
{
    u_char                         *p;
    ngx_http_ai_ctx_t              *ctx;
    ngx_http_ai_trace_t            *t;
    ngx_http_ai_trace_main_conf_t  *tmcf;

    tmcf = ngx_http_get_module_main_conf(r, ngx_http_ai_trace_module);

    ctx = tmcf->api->get_ctx(r);

    if (ctx == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    t = ngx_http_ai_trace_get(r, ctx);

    if (t == NULL) {
        return NGX_ERROR;
    }

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    switch (data) {

    case NGX_HTTP_AI_TRACE_VAR_TRACE:
        v->data = t->trace;
        v->len = NGX_HTTP_AI_TRACE_ID;
        break;

    case NGX_HTTP_AI_TRACE_VAR_SPAN:
        p = ngx_pnalloc(r->pool, NGX_HTTP_AI_SPAN_ID);
        if (p == NULL) {
            return NGX_ERROR;
        }

        (void) ngx_http_ai_trace_hex(p, t->span);

        v->data = p;
        v->len = NGX_HTTP_AI_SPAN_ID;
        break;

    default: /* NGX_HTTP_AI_TRACE_VAR_PARENT */
        p = ngx_pnalloc(r->pool, NGX_HTTP_AI_TRACEPARENT);
        if (p == NULL) {
            return NGX_ERROR;
        }

        (void) ngx_http_ai_traceparent_write(p, t->trace, t->span, t->sampled);

        v->data = p;
        v->len = NGX_HTTP_AI_TRACEPARENT;
    }

    return NGX_OK;
}


static void
ngx_http_ai_trace_collect(void *data, ngx_http_ai_samples_t *s)
{
    ngx_http_ai_trace_main_conf_t *tmcf = data;

    ngx_http_ai_label_t  label;

    s->family(s, NGX_HTTP_AI_SAMPLES_COUNTER, "nginx_ai_trace_spans",
              "Spans by what became of them.");

    label.name = "result";

    ngx_str_set(&label.value, "sent");
    s->sample(s, &label, 1, (int64_t) tmcf->sh->sent, 0);

    ngx_str_set(&label.value, "dropped");
    s->sample(s, &label, 1, (int64_t) tmcf->sh->dropped, 0);

    ngx_str_set(&label.value, "failed");
    s->sample(s, &label, 1, (int64_t) tmcf->sh->failed, 0);
}


static ngx_int_t
ngx_http_ai_trace_init_shared(ngx_slab_pool_t *shpool, void **data, void *conf,
    ngx_log_t *log)
{
    ngx_http_ai_trace_main_conf_t *tmcf = conf;

    if (*data == NULL) {
        *data = ngx_slab_calloc(shpool, sizeof(ngx_http_ai_trace_sh_t));

        if (*data == NULL) {
            ngx_log_error(NGX_LOG_EMERG, log, 0,
                          "ai trace: no memory in the zone of \"ai_zone\"");
            return NGX_ERROR;
        }
    }

    tmcf->sh = *data;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_trace_preconfiguration(ngx_conf_t *cf)
{
    ngx_http_ai_trace_main_conf_t  *tmcf;

    tmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_trace_module);

    tmcf->api = ngx_http_ai_core_api(cf, "ngx_http_ai_trace_module");

    if (tmcf->api == NULL) {
        return NGX_ERROR;
    }

    return ngx_http_ai_conf_variables(cf, ngx_http_ai_trace_vars);
}


static ngx_int_t
ngx_http_ai_trace_postconfiguration(ngx_conf_t *cf)
{
    ngx_http_handler_pt            *h;
    ngx_http_core_main_conf_t      *cmcf;
    ngx_http_ai_trace_main_conf_t  *tmcf;

    tmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_trace_module);

    if (tmcf->api->add_attempt_hook(cf, ngx_http_ai_trace_attempt) != NGX_OK) {
        return NGX_ERROR;
    }

    if (tmcf->exporters.nelts == 0) {
        return NGX_OK;
    }

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_LOG_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_ai_trace_log_handler;

    if (tmcf->api->add_shared(cf, "trace-1", ngx_http_ai_trace_init_shared,
                              tmcf)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return tmcf->api->add_collector(cf, ngx_http_ai_trace_collect, tmcf);
}


static void *
ngx_http_ai_trace_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_ai_trace_main_conf_t  *tmcf;

    tmcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_trace_main_conf_t));
    if (tmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&tmcf->exporters, cf->pool, 1,
                       sizeof(ngx_http_ai_exporter_t *))
        != NGX_OK)
    {
        return NULL;
    }

    return tmcf;
}


static void *
ngx_http_ai_trace_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_ai_trace_loc_conf_t  *tlcf;

    tlcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_trace_loc_conf_t));
    if (tlcf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     tlcf->exporter = NULL;
     *     tlcf->attributes = NULL;
     */

    tlcf->parent = 1;
    tlcf->propagate = NGX_CONF_UNSET;

    return tlcf;
}


static char *
ngx_http_ai_trace_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_ai_trace_loc_conf_t *prev = parent;
    ngx_http_ai_trace_loc_conf_t *conf = child;

    if (!conf->set) {
        conf->exporter = prev->exporter;
        conf->sample = prev->sample;
        conf->content = prev->content;
        conf->parent = prev->parent;
        conf->set = prev->set;
    }

    if (conf->attributes == NULL) {
        conf->attributes = prev->attributes;
    }

    ngx_conf_merge_value(conf->propagate, prev->propagate, 1);

    return NGX_CONF_OK;
}


/* after the fork: workers must not make the same ids */

static ngx_int_t
ngx_http_ai_trace_init_process(ngx_cycle_t *cycle)
{
    if (RAND_bytes((u_char *) ngx_http_ai_trace_state,
                   sizeof(ngx_http_ai_trace_state))
        != 1)
    {
        ngx_log_error(NGX_LOG_ERR, cycle->log, 0,
                      "ai trace: RAND_bytes() failed");
        return NGX_ERROR;
    }

    return NGX_OK;
}
