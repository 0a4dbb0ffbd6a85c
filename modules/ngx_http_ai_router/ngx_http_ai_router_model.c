
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_router.h"


#define NGX_HTTP_AI_TARGETS_MAX     64


typedef struct {
    ngx_http_ai_model_t  *model;
    ngx_str_t             who;        /* for messages: model "name" */
} ngx_http_ai_model_ctx_t;


typedef struct {
    ngx_str_t             name;
    ngx_uint_t            mask;
} ngx_http_ai_on_t;


static char *ngx_http_ai_model_name(ngx_conf_t *cf,
    ngx_http_ai_router_main_conf_t *amcf, ngx_str_t *name, const char *what);
static ngx_uint_t ngx_http_ai_model_is_name(ngx_str_t *name);
static char *ngx_http_ai_model_target(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_model_fallback(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_targets(ngx_conf_t *cf, ngx_array_t *targets,
    ngx_str_t *who, ngx_uint_t fallback);
static char *ngx_http_ai_target_param(ngx_conf_t *cf,
    ngx_http_ai_target_t *target, ngx_str_t *who, ngx_str_t *arg);
static char *ngx_http_ai_target_on(ngx_conf_t *cf,
    ngx_http_ai_target_t *target, ngx_str_t *who, ngx_str_t *text);
static char *ngx_http_ai_model_retry(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_model_breaker(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_model_recover(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_model_hedge(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_model_price(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_model_params(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_model_invalid(ngx_conf_t *cf,
    ngx_http_ai_model_ctx_t *ctx, ngx_uint_t arg, const char *hint);
static ngx_http_ai_router_loc_conf_t *ngx_http_ai_location_add(
    ngx_http_ai_router_main_conf_t *amcf, ngx_http_ai_router_loc_conf_t *conf);


static ngx_http_ai_on_t  ngx_http_ai_on[] = {
    { ngx_string("error"), NGX_HTTP_AI_ON_ERROR },
    { ngx_string("timeout"), NGX_HTTP_AI_ON_TIMEOUT },
    { ngx_string("429"), NGX_HTTP_AI_ON_429 },
    { ngx_string("5xx"), NGX_HTTP_AI_ON_5XX },
    { ngx_string("auth"), NGX_HTTP_AI_ON_AUTH },
    { ngx_string("context"), NGX_HTTP_AI_ON_CONTEXT },
    { ngx_string("filter"), NGX_HTTP_AI_ON_FILTER },
    { ngx_string("invalid"), NGX_HTTP_AI_ON_INVALID },
    { ngx_string("saturated"), NGX_HTTP_AI_ON_SATURATED }
};

#define NGX_HTTP_AI_ONS  (sizeof(ngx_http_ai_on) / sizeof(ngx_http_ai_on_t))


static ngx_http_ai_sub_t  ngx_http_ai_model_subs[] = {
    { ngx_string("target"), ngx_http_ai_model_target, 1, 5, 1 },
    { ngx_string("fallback"), ngx_http_ai_model_fallback, 1, 64, 1 },
    { ngx_string("retry"), ngx_http_ai_model_retry, 1, 3, 0 },
    { ngx_string("breaker"), ngx_http_ai_model_breaker, 1, 3, 0 },
    { ngx_string("recover"), ngx_http_ai_model_recover, 1, 2, 0 },
    { ngx_string("hedge"), ngx_http_ai_model_hedge, 1, 1, 0 },
    { ngx_string("price"), ngx_http_ai_model_price, 2, 10, 0 },
    { ngx_string("params"), ngx_http_ai_model_params, 1, 64, 1 },
    { ngx_null_string, NULL, 0, 0, 0 }
};


char *
ngx_http_ai_model_block(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_router_main_conf_t *amcf = conf;

    char                      *rv;
    ngx_str_t                 *value;
    ngx_http_ai_block_t        block;
    ngx_http_ai_model_t       *model, **m;
    ngx_http_ai_model_ctx_t    ctx;

    value = cf->args->elts;

    rv = ngx_http_ai_model_name(cf, amcf, &value[1], "model");
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    model = ngx_http_ai_model_create(cf);
    if (model == NULL) {
        return NGX_CONF_ERROR;
    }

    model->name = value[1];

    ctx.model = model;
    ctx.who = ngx_http_ai_model_who(cf->temp_pool, model);

    block.block = "model";
    block.name = &model->name;
    block.subs = ngx_http_ai_model_subs;
    block.seen = 0;
    block.ctx = &ctx;

    rv = ngx_http_ai_conf_block(cf, &block);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (model->targets.nelts == 0) {
        return ngx_http_ai_conf_error(cf, model->file, model->line,
                                      "%V has no target, add \"target "
                                      "PROVIDER/MODEL\"", &ctx.who);
    }

    m = ngx_array_push(&amcf->models);
    if (m == NULL) {
        return NGX_CONF_ERROR;
    }

    *m = model;

    return NGX_CONF_OK;
}


ngx_http_ai_model_t *
ngx_http_ai_model_create(ngx_conf_t *cf)
{
    ngx_http_ai_model_t  *model;

    model = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_model_t));
    if (model == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     model->breaker = 0;
     *     model->recover = NGX_HTTP_AI_RECOVER_OFF;
     *     model->hedge = 0;
     */

    if (ngx_array_init(&model->targets, cf->pool, 2,
                       sizeof(ngx_http_ai_target_t))
        != NGX_OK
        || ngx_array_init(&model->fallbacks, cf->pool, 2,
                          sizeof(ngx_http_ai_target_t))
           != NGX_OK
        || ngx_array_init(&model->params, cf->pool, 2,
                          sizeof(ngx_http_ai_param_t))
           != NGX_OK)
    {
        return NULL;
    }

    model->retries = 1;
    model->backoff_min = 250;
    model->backoff_max = 2000;
    model->wait = 10000;

    model->breaker_window = 10000;
    model->breaker_min = 20;
    model->breaker_open = 15000;

    model->recover_max = 256 * 1024;


    model->file = cf->conf_file->file.name.data;
    model->line = cf->conf_file->line;

    return model;
}


/* may the name be given to a new model or alias? */

static char *
ngx_http_ai_model_name(ngx_conf_t *cf, ngx_http_ai_router_main_conf_t *amcf,
    ngx_str_t *name, const char *what)
{
    ngx_http_ai_model_t  *model;
    ngx_http_ai_alias_t  *alias;

    if (!ngx_http_ai_model_is_name(name)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid name of %s \"%V\", it may have up to 256 "
                           "characters without spaces, quotes and "
                           "backslashes", what, name);
        return NGX_CONF_ERROR;
    }

    if (ngx_http_ai_str_is(name, "model")) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "name \"model\" is reserved, \"ai_pass model\" "
                           "means the model of the request");
        return NGX_CONF_ERROR;
    }

    model = ngx_http_ai_model_by_name(amcf, name);

    if (model) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate name of %s \"%V\", a model has it in "
                           "%s:%ui", what, name, model->file, model->line);
        return NGX_CONF_ERROR;
    }

    alias = ngx_http_ai_alias_by_name(amcf, name);

    if (alias) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate name of %s \"%V\", an alias has it in "
                           "%s:%ui", what, name, alias->file, alias->line);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* names come back in JSON messages, without escapes */

static ngx_uint_t
ngx_http_ai_model_is_name(ngx_str_t *name)
{
    u_char  ch;
    size_t  i;

    for (i = 0; i < name->len; i++) {
        ch = name->data[i];

        if (ch <= ' ' || ch == 0x7f || ch == '"' || ch == '\'' || ch == '\\') {
            return 0;
        }
    }

    return name->len && name->len <= NGX_HTTP_AI_MODEL_NAME_MAX;
}


static char *
ngx_http_ai_model_target(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_model_ctx_t *ctx = conf;

    return ngx_http_ai_targets(cf, &ctx->model->targets, &ctx->who, 0);
}


static char *
ngx_http_ai_model_fallback(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_model_ctx_t *ctx = conf;

    return ngx_http_ai_targets(cf, &ctx->model->fallbacks, &ctx->who, 1);
}


/*
 * target PROVIDER/MODEL [weight=] [if=] [context=] [prefill=]
 * fallback PROVIDER/MODEL ... [on=] [if=] [context=] [prefill=]
 */

static char *
ngx_http_ai_targets(ngx_conf_t *cf, ngx_array_t *targets, ngx_str_t *who,
    ngx_uint_t fallback)
{
    char                  *rv;
    u_char                *p;
    ngx_str_t             *value, name;
    ngx_uint_t             i, n;
    const char            *kind;
    ngx_http_ai_target_t  *target, params;

    value = cf->args->elts;
    kind = fallback ? "fallback" : "target";

    ngx_memzero(&params, sizeof(ngx_http_ai_target_t));

    params.file = cf->conf_file->file.name.data;
    params.line = cf->conf_file->line;
    params.fallback = fallback;

    for (i = 1; i < cf->args->nelts; i++) {
        if (ngx_strchr(value[i].data, '=')) {
            rv = ngx_http_ai_target_param(cf, &params, who, &value[i]);
            if (rv != NGX_CONF_OK) {
                return rv;
            }
        }
    }

    if (params.weight == 0) {
        params.weight = 1;
    }

    if (params.on == 0) {
        params.on = NGX_HTTP_AI_ON_DEFAULT;
    }

    n = 0;

    for (i = 1; i < cf->args->nelts; i++) {

        name = value[i];

        if (ngx_strchr(name.data, '=')) {
            continue;
        }

        if (n && !fallback) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "%V: unexpected \"%V\", write one \"target\" "
                               "for each target", who, &name);
            return NGX_CONF_ERROR;
        }

        if (targets->nelts == NGX_HTTP_AI_TARGETS_MAX) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "%V: more than %d %ss",
                               who, NGX_HTTP_AI_TARGETS_MAX, kind);
            return NGX_CONF_ERROR;
        }

        target = ngx_array_push(targets);
        if (target == NULL) {
            return NGX_CONF_ERROR;
        }

        *target = params;
        target->name = name;

        p = (u_char *) ngx_strchr(name.data, '/');

        if (p) {
            target->model.data = p + 1;
            target->model.len = name.data + name.len - target->model.data;
            name.len = p - name.data;
        }

        if (!ngx_http_ai_conf_name(&name, NGX_HTTP_AI_MODEL_NAME_MAX)
            || (p && !ngx_http_ai_model_is_name(&target->model)))
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "%V: invalid %s \"%V\", it is written "
                               "PROVIDER/MODEL", who, kind, &target->name);
            return NGX_CONF_ERROR;
        }

        n++;
    }

    if (n == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: \"%s\" names no PROVIDER/MODEL", who, kind);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_target_param(ngx_conf_t *cf, ngx_http_ai_target_t *target,
    ngx_str_t *who, ngx_str_t *arg)
{
    ngx_int_t   n;
    ngx_str_t   s, name, text, names[4];
    ngx_uint_t  twice;

    twice = 0;

    if (!target->fallback && ngx_http_ai_conf_arg(arg, "weight", &s)) {

        twice = (target->weight != 0);
        n = ngx_atoi(s.data, s.len);

        if (n == NGX_ERROR || n < 1 || n > 1000000) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "%V: invalid \"%V\", a weight is a number from "
                               "1 to 1000000", who, arg);
            return NGX_CONF_ERROR;
        }

        target->weight = n;

    } else if (target->fallback && ngx_http_ai_conf_arg(arg, "on", &s)) {

        if (target->on == 0) {
            return ngx_http_ai_target_on(cf, target, who, &s);
        }

        twice = 1;

    } else if (ngx_http_ai_conf_arg(arg, "context", &s)) {

        twice = (target->context != 0);
        n = ngx_http_ai_conf_count(&s);

        if (n == NGX_ERROR || n == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "%V: invalid \"%V\", it is a number of tokens "
                               "such as 128k", who, arg);
            return NGX_CONF_ERROR;
        }

        target->context = n;

    } else if (ngx_http_ai_conf_arg(arg, "if", &s)) {

        if (s.len == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "%V: empty \"if=\"", who);
            return NGX_CONF_ERROR;
        }

        if (target->cond == NULL) {
            return ngx_http_ai_conf_complex(cf, &s, &target->cond);
        }

        twice = 1;

    } else if (ngx_http_ai_conf_arg(arg, "prefill", &s)) {

        twice = (target->prefill != 0);

        if (ngx_http_ai_str_is(&s, "on")) {
            target->prefill = 2;

        } else if (ngx_http_ai_str_is(&s, "off")) {
            target->prefill = 1;

        } else {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "%V: invalid \"%V\", it is \"on\" or \"off\"",
                               who, arg);
            return NGX_CONF_ERROR;
        }

    } else {

        name.data = arg->data;
        name.len = (u_char *) ngx_strchr(arg->data, '=') - arg->data;

        if (target->fallback) {
            ngx_str_set(&names[0], "on");

        } else {
            ngx_str_set(&names[0], "weight");
        }

        ngx_str_set(&names[1], "context");
        ngx_str_set(&names[2], "if");
        ngx_str_set(&names[3], "prefill");

        text = ngx_http_ai_near_text(cf->temp_pool, &name, names, 4);

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: unknown parameter \"%V\" of \"%s\"%V",
                           who, &name, target->fallback ? "fallback"
                                                        : "target", &text);
        return NGX_CONF_ERROR;
    }

    if (twice) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: duplicate parameter \"%V\"", who, arg);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_target_on(ngx_conf_t *cf, ngx_http_ai_target_t *target,
    ngx_str_t *who, ngx_str_t *text)
{
    u_char      *p, *last;
    ngx_str_t    name, near, names[NGX_HTTP_AI_ONS];
    ngx_uint_t   i;

    p = text->data;
    last = p + text->len;

    for ( ;; ) {
        name.data = p;

        while (p < last && *p != ',') {
            p++;
        }

        name.len = p - name.data;

        for (i = 0; i < NGX_HTTP_AI_ONS; i++) {
            names[i] = ngx_http_ai_on[i].name;

            if (names[i].len == name.len
                && ngx_strncmp(names[i].data, name.data, name.len) == 0)
            {
                break;
            }
        }

        if (i == NGX_HTTP_AI_ONS) {
            near = ngx_http_ai_near_text(cf->temp_pool, &name, names, i);

            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "%V: unknown failure class \"%V\" in "
                               "\"on=%V\"%V", who, &name, text, &near);
            return NGX_CONF_ERROR;
        }

        target->on |= ngx_http_ai_on[i].mask;

        if (p == last) {
            return NGX_CONF_OK;
        }

        p++;
    }
}


static char *
ngx_http_ai_model_retry(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_model_ctx_t *ctx = conf;

    u_char               *p;
    ngx_int_t             n, min, max;
    ngx_str_t            *value, s, to;
    ngx_uint_t            i, backoff, wait;
    ngx_http_ai_model_t  *model;

    model = ctx->model;
    value = cf->args->elts;

    if (ngx_http_ai_str_is(&value[1], "off")) {
        model->retries = 0;

        if (cf->args->nelts > 2) {
            return ngx_http_ai_model_invalid(cf, ctx, 2,
                                             "\"retry off\" takes none");
        }

        return NGX_CONF_OK;
    }

    n = ngx_atoi(value[1].data, value[1].len);

    if (n == NGX_ERROR || n > 10) {
        return ngx_http_ai_model_invalid(cf, ctx, 1,
                                         "it is a number up to 10 or "
                                         "\"off\"");
    }

    model->retries = n;
    backoff = 0;
    wait = 0;

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_http_ai_conf_arg(&value[i], "backoff", &s) && !backoff) {

            to = s;

            for (p = s.data; p + 1 < s.data + s.len; p++) {
                if (p[0] == '.' && p[1] == '.') {
                    to.data = p + 2;
                    to.len = s.data + s.len - to.data;
                    s.len = p - s.data;
                    break;
                }
            }

            min = ngx_parse_time(&s, 0);
            max = ngx_parse_time(&to, 0);

            if (s.len == 0 || to.len == 0
                || min == NGX_ERROR || max == NGX_ERROR
                || min < 1 || max < min || max > 3600 * 1000)
            {
                return ngx_http_ai_model_invalid(cf, ctx, i,
                                                 "it is a range of times "
                                                 "such as 100ms..2s");
            }

            model->backoff_min = (ngx_msec_t) min;
            model->backoff_max = (ngx_msec_t) max;
            backoff = 1;
            continue;
        }

        if (ngx_http_ai_conf_arg(&value[i], "wait", &s) && !wait) {

            n = ngx_parse_time(&s, 0);

            if (s.len == 0 || n == NGX_ERROR || n > 3600 * 1000) {
                return ngx_http_ai_model_invalid(cf, ctx, i,
                                                 "it is a time such as 10s");
            }

            model->wait = (ngx_msec_t) n;
            wait = 1;
            continue;
        }

        return ngx_http_ai_model_invalid(cf, ctx, i,
                                         "known are backoff= and wait=, each "
                                         "once");
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_model_breaker(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_model_ctx_t *ctx = conf;

    u_char               *p, *last;
    ngx_int_t             n, window;
    ngx_str_t            *value, s;
    ngx_uint_t            i, min, open;
    ngx_http_ai_model_t  *model;

    model = ctx->model;
    value = cf->args->elts;

    if (ngx_http_ai_str_is(&value[1], "off")) {

        if (cf->args->nelts > 2) {
            return ngx_http_ai_model_invalid(cf, ctx, 2,
                                             "\"breaker off\" takes none");
        }

        return NGX_CONF_OK;
    }

    p = value[1].data;
    last = p + value[1].len;
    n = NGX_ERROR;
    window = NGX_ERROR;

    s.data = p;
    p = ngx_strlchr(p, last, '%');

    if (p && p + 2 < last && p[1] == '/') {
        n = ngx_atoi(s.data, p - s.data);

        s.data = p + 2;
        s.len = last - s.data;
        window = ngx_parse_time(&s, 0);
    }

    if (n == NGX_ERROR || n < 1 || n > 100
        || window == NGX_ERROR || window < 1000 || window > 3600 * 1000)
    {
        return ngx_http_ai_model_invalid(cf, ctx, 1,
                                         "it is a failure rate within a time "
                                         "from 1s to 1h such as 50%/10s, or "
                                         "\"off\"");
    }

    model->breaker = n;
    model->breaker_window = (ngx_msec_t) window;

    min = 0;
    open = 0;

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_http_ai_conf_arg(&value[i], "min", &s) && !min) {
            n = ngx_http_ai_conf_count(&s);

            if (n == NGX_ERROR || n == 0) {
                return ngx_http_ai_model_invalid(cf, ctx, i,
                                                 "it is a number of requests "
                                                 "from 1");
            }

            model->breaker_min = n;
            min = 1;
            continue;
        }

        if (ngx_http_ai_conf_arg(&value[i], "open", &s) && !open) {
            n = ngx_parse_time(&s, 0);

            if (s.len == 0 || n == NGX_ERROR || n < 1 || n > 86400 * 1000) {
                return ngx_http_ai_model_invalid(cf, ctx, i,
                                                 "it is a time such as 15s");
            }

            model->breaker_open = (ngx_msec_t) n;
            open = 1;
            continue;
        }

        return ngx_http_ai_model_invalid(cf, ctx, i,
                                         "known are min= and open=, each "
                                         "once");
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_model_recover(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_model_ctx_t *ctx = conf;

    ssize_t               size;
    ngx_str_t            *value, s;
    ngx_http_ai_model_t  *model;

    model = ctx->model;
    value = cf->args->elts;

    if (ngx_http_ai_str_is(&value[1], "off")) {

        if (cf->args->nelts > 2) {
            return ngx_http_ai_model_invalid(cf, ctx, 2,
                                             "\"recover off\" takes none");
        }

        return NGX_CONF_OK;
    }

    if (ngx_http_ai_str_is(&value[1], "continue")) {
        model->recover = NGX_HTTP_AI_RECOVER_CONTINUE;

    } else if (ngx_http_ai_str_is(&value[1], "restart")) {
        model->recover = NGX_HTTP_AI_RECOVER_RESTART;

    } else {
        return ngx_http_ai_model_invalid(cf, ctx, 1,
                                         "it is \"off\", \"continue\" or "
                                         "\"restart\"");
    }

    if (cf->args->nelts > 2) {

        if (!ngx_http_ai_conf_arg(&value[2], "max", &s)) {
            return ngx_http_ai_model_invalid(cf, ctx, 2, "known is max=");
        }

        size = ngx_parse_size(&s);

        if (size == NGX_ERROR || size < 1024 || size > 64 * 1024 * 1024) {
            return ngx_http_ai_model_invalid(cf, ctx, 2,
                                             "it is a size from 1k to 64m");
        }

        model->recover_max = size;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_model_hedge(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_model_ctx_t *ctx = conf;

    ngx_int_t   t;
    ngx_str_t  *value;

    value = cf->args->elts;

    if (ngx_http_ai_str_is(&value[1], "off")) {
        return NGX_CONF_OK;
    }

    t = ngx_parse_time(&value[1], 0);

    if (value[1].len == 0 || t == NGX_ERROR || t < 1 || t > 3600 * 1000) {
        return ngx_http_ai_model_invalid(cf, ctx, 1,
                                         "it is a time such as 3s or \"off\"");
    }

    ctx->model->hedge = (ngx_msec_t) t;

    return NGX_CONF_OK;
}


/* USD per million tokens is 1,000,000 pico-dollars per token */

static char *
ngx_http_ai_model_price(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_model_ctx_t *ctx = conf;

    int64_t               *slot, n, max;
    ngx_str_t             *value, s;
    ngx_uint_t             i, k;
    ngx_http_ai_price_t   *price;

    static const char  *keys[] = {
        "in", "out", "cached", "cache_write", "cache_write_1h", "reasoning",
        "audio_in", "audio_out", "request", "image"
    };

    price = ngx_palloc(cf->pool, sizeof(ngx_http_ai_price_t));
    if (price == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_http_ai_price_init(price);
    price->request = -1;
    price->image = -1;

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        for (k = 0; k < 10; k++) {
            if (ngx_http_ai_conf_arg(&value[i], keys[k], &s)) {
                break;
            }
        }

        slot = (k < 8) ? &price->base.v[k]
                       : (k == 8) ? &price->request : &price->image;

        if (k == 10 || *slot != -1) {
            return ngx_http_ai_model_invalid(cf, ctx, i,
                                             "known are in=, out=, cached=, "
                                             "cache_write=, cache_write_1h=, "
                                             "reasoning=, audio_in=, "
                                             "audio_out=, request= and "
                                             "image=, each once");
        }

        max = (k < 8) ? NGX_HTTP_AI_PRICE_TOKEN_MAX
                      : NGX_HTTP_AI_PRICE_EACH_MAX;

        if (ngx_http_ai_json_fixed(&s, (k < 8) ? 6 : 12, &n) != NGX_OK
            || n > max)
        {
            return ngx_http_ai_model_invalid(cf, ctx, i,
                                             "a price is USD per million "
                                             "tokens such as 1.25");
        }

        *slot = n;
    }

    price->request = ngx_max(price->request, 0);
    price->image = ngx_max(price->image, 0);

    if (ngx_http_ai_price_complete(price) != NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: \"price\" needs both in= and out=", &ctx->who);
        return NGX_CONF_ERROR;
    }

    ngx_str_set(&price->version, NGX_HTTP_AI_PRICE_CONF);
    ctx->model->price = price;

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_model_params(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_model_ctx_t *ctx = conf;

    u_char               *p;
    ngx_int_t             rc;
    ngx_str_t            *value, name, s;
    ngx_uint_t            i, n, force;
    ngx_http_ai_out_t     out;
    ngx_http_ai_json_t    json;
    ngx_http_ai_model_t  *model;
    ngx_http_ai_param_t  *param;

    model = ctx->model;
    value = cf->args->elts;
    force = ngx_http_ai_str_is(&value[1], "force");

    if (force && cf->args->nelts == 2) {
        return ngx_http_ai_model_invalid(cf, ctx, 1, "it needs NAME=VALUE");
    }

    for (i = force ? 2 : 1; i < cf->args->nelts; i++) {

        p = (u_char *) ngx_strchr(value[i].data, '=');

        if (p == NULL) {
            return ngx_http_ai_model_invalid(cf, ctx, i,
                                             "it is written NAME=VALUE");
        }

        name.data = value[i].data;
        name.len = p - name.data;
        s.data = p + 1;
        s.len = value[i].data + value[i].len - s.data;

        if (!ngx_http_ai_conf_name(&name, NGX_HTTP_AI_MODEL_NAME_MAX)) {
            return ngx_http_ai_model_invalid(cf, ctx, i,
                                             "a name has letters, digits, "
                                             "\"_\", \"-\" and \".\"");
        }

        if (ngx_http_ai_str_is(&name, "model")
            || ngx_http_ai_str_is(&name, "messages")
            || ngx_http_ai_str_is(&name, "stream"))
        {
            return ngx_http_ai_model_invalid(cf, ctx, i,
                                             "the gateway itself sets this "
                                             "member");
        }

        param = model->params.elts;

        for (n = 0; n < model->params.nelts; n++) {
            if (param[n].name.len == name.len
                && ngx_strncmp(param[n].name.data, name.data, name.len) == 0)
            {
                return ngx_http_ai_model_invalid(cf, ctx, i,
                                                 "it was given before");
            }
        }

        ngx_memzero(&json, sizeof(ngx_http_ai_json_t));
        json.pool = cf->temp_pool;

        rc = ngx_http_ai_json_parse(&json, s.data, s.len);

        if (rc == NGX_ERROR) {
            return NGX_CONF_ERROR;
        }

        if (rc == NGX_OK) {
            s = ngx_http_ai_json_value(&json, 0);

        } else {

            if (ngx_http_ai_out_init(&out, cf->pool, s.len + 2) != NGX_OK) {
                return NGX_CONF_ERROR;
            }

            ngx_http_ai_out_lit(&out, "\"");
            ngx_http_ai_out_escaped(&out, s.data, s.len);
            ngx_http_ai_out_lit(&out, "\"");

            if (out.failed) {
                return NGX_CONF_ERROR;
            }

            s.data = out.start;
            s.len = out.last - out.start;
        }

        param = ngx_array_push(&model->params);
        if (param == NULL) {
            return NGX_CONF_ERROR;
        }

        param->name = name;
        param->value = s;
        param->force = force;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_model_invalid(ngx_conf_t *cf, ngx_http_ai_model_ctx_t *ctx,
    ngx_uint_t arg, const char *hint)
{
    ngx_str_t  *value;

    value = cf->args->elts;

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "%V: invalid parameter \"%V\" of \"%V\", %s",
                       &ctx->who, &value[arg], &value[0], hint);

    return NGX_CONF_ERROR;
}


char *
ngx_http_ai_alias(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_router_main_conf_t *amcf = conf;

    char                 *rv;
    ngx_str_t            *value;
    ngx_http_ai_alias_t  *alias;

    value = cf->args->elts;

    rv = ngx_http_ai_model_name(cf, amcf, &value[1], "alias");
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    alias = ngx_array_push(&amcf->aliases);
    if (alias == NULL) {
        return NGX_CONF_ERROR;
    }

    alias->name = value[1];
    alias->model_name = value[2];
    alias->model = NULL;
    alias->file = cf->conf_file->file.name.data;
    alias->line = cf->conf_file->line;

    return NGX_CONF_OK;
}


char *
ngx_http_ai_fallback(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_router_loc_conf_t *arlcf = conf;

    ngx_str_t                       *value, who;
    ngx_uint_t                       off;
    ngx_http_ai_router_main_conf_t  *amcf;

    value = cf->args->elts;
    off = (cf->args->nelts == 2 && ngx_http_ai_str_is(&value[1], "off"));

    if (arlcf->fallbacks == NULL || arlcf->fallbacks == NGX_CONF_UNSET_PTR) {

        arlcf->fallbacks = ngx_array_create(cf->pool, 2,
                                            sizeof(ngx_http_ai_target_t));
        if (arlcf->fallbacks == NULL) {
            return NGX_CONF_ERROR;
        }

    } else if (off || arlcf->fallbacks->nelts == 0) {
        return "\"off\" excludes other \"ai_fallback\" on the same level";
    }

    if (off) {
        return NGX_CONF_OK;
    }

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_router_module);

    if (ngx_http_ai_location_add(amcf, arlcf) == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_str_set(&who, "\"ai_fallback\"");

    return ngx_http_ai_targets(cf, arlcf->fallbacks, &who, 1);
}


char *
ngx_http_ai_pass(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_router_loc_conf_t *arlcf = conf;

    char                            *rv;
    ngx_str_t                       *value, s;
    ngx_http_core_loc_conf_t        *clcf;
    ngx_http_ai_router_main_conf_t  *amcf;

    if (arlcf->pass != NGX_HTTP_AI_PASS_NONE) {
        return "is duplicate";
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler) {
        return "is not possible, the location has another content handler";
    }

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_router_module);

    value = cf->args->elts;

    arlcf->pass_name = value[1];
    arlcf->file = cf->conf_file->file.name.data;
    arlcf->line = cf->conf_file->line;
    arlcf->clcf = clcf;
    arlcf->direct = 0;

    if (ngx_http_ai_str_is(&value[1], "model")) {
        arlcf->pass = NGX_HTTP_AI_PASS_MODEL;

    } else if (ngx_http_script_variables_count(&value[1])) {
        arlcf->pass = NGX_HTTP_AI_PASS_VARIABLE;

        rv = ngx_http_ai_conf_complex(cf, &value[1], &arlcf->variable);
        if (rv != NGX_CONF_OK) {
            return rv;
        }

    } else {
        arlcf->pass = NGX_HTTP_AI_PASS_PROVIDER;
    }

    if (cf->args->nelts == 3) {

        if (!ngx_http_ai_conf_arg(&value[2], "direct", &s)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "unknown parameter \"%V\" of \"ai_pass\", "
                               "known is direct=", &value[2]);
            return NGX_CONF_ERROR;
        }

        if (ngx_http_ai_str_is(&s, "on")) {
            arlcf->direct = 1;

        } else if (!ngx_http_ai_str_is(&s, "off")) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid \"%V\" of \"ai_pass\", it is \"on\" "
                               "or \"off\"", &value[2]);
            return NGX_CONF_ERROR;
        }

        if (arlcf->pass == NGX_HTTP_AI_PASS_PROVIDER) {
            return "with a provider takes no \"direct=\", what clients ask "
                   "for is the provider's model";
        }
    }

    if (ngx_http_ai_location_add(amcf, arlcf) == NULL) {
        return NGX_CONF_ERROR;
    }

    clcf->handler = ngx_http_ai_router_handler;

    amcf->api->enable(cf);

    return NGX_CONF_OK;
}


static ngx_http_ai_router_loc_conf_t *
ngx_http_ai_location_add(ngx_http_ai_router_main_conf_t *amcf,
    ngx_http_ai_router_loc_conf_t *conf)
{
    ngx_uint_t                       i;
    ngx_http_ai_router_loc_conf_t  **loc;

    loc = amcf->locations.elts;

    for (i = 0; i < amcf->locations.nelts; i++) {
        if (loc[i] == conf) {
            return conf;
        }
    }

    loc = ngx_array_push(&amcf->locations);
    if (loc == NULL) {
        return NULL;
    }

    *loc = conf;

    return conf;
}


ngx_str_t
ngx_http_ai_model_who(ngx_pool_t *pool, ngx_http_ai_model_t *model)
{
    ngx_str_t  who;

    ngx_str_set(&who, "model");

    who.data = ngx_pnalloc(pool, sizeof("model \"\"") + model->name.len);

    if (who.data == NULL) {
        ngx_str_set(&who, "model");
        return who;
    }

    who.len = ngx_sprintf(who.data, "model \"%V\"", &model->name) - who.data;

    return who;
}
