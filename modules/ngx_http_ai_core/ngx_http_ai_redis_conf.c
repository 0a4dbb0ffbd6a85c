
/*
 * Copyright (C) nginx AI gateway authors
 */


/* "ai_redis name { ... }" */


#include "ngx_http_ai_redis_ctx.h"
#include "ngx_http_ai_conf.h"


static char *ngx_http_ai_redis_server(ngx_conf_t *cf, void *ctx);
static char *ngx_http_ai_redis_user(ngx_conf_t *cf, void *ctx);
static char *ngx_http_ai_redis_password(ngx_conf_t *cf, void *ctx);
static char *ngx_http_ai_redis_database(ngx_conf_t *cf, void *ctx);
static char *ngx_http_ai_redis_tls(ngx_conf_t *cf, void *ctx);
static char *ngx_http_ai_redis_tls_ca(ngx_conf_t *cf, void *ctx);
static char *ngx_http_ai_redis_tls_name(ngx_conf_t *cf, void *ctx);
static char *ngx_http_ai_redis_msec(ngx_conf_t *cf, void *ctx);
static char *ngx_http_ai_redis_policy(ngx_conf_t *cf, void *ctx);
static char *ngx_http_ai_redis_breaker(ngx_conf_t *cf, void *ctx);
static char *ngx_http_ai_redis_number(ngx_conf_t *cf, void *ctx);
static char *ngx_http_ai_redis_invalid(ngx_conf_t *cf,
    ngx_http_ai_redis_t *redis, const char *expected);
#if (NGX_HTTP_SSL)
static ngx_int_t ngx_http_ai_redis_ssl(ngx_conf_t *cf,
    ngx_http_ai_redis_t *redis);
#endif
static ngx_int_t ngx_http_ai_redis_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


static ngx_http_ai_sub_t  ngx_http_ai_redis_subs[] = {
    { ngx_string("server"), ngx_http_ai_redis_server, 1, 1, 0 },
    { ngx_string("user"), ngx_http_ai_redis_user, 1, 1, 0 },
    { ngx_string("password"), ngx_http_ai_redis_password, 1, 1, 0 },
    { ngx_string("database"), ngx_http_ai_redis_database, 1, 1, 0 },
    { ngx_string("tls"), ngx_http_ai_redis_tls, 1, 1, 0 },
    { ngx_string("tls_ca"), ngx_http_ai_redis_tls_ca, 1, 1, 0 },
    { ngx_string("tls_verify"), ngx_http_ai_redis_tls, 1, 1, 0 },
    { ngx_string("tls_name"), ngx_http_ai_redis_tls_name, 1, 1, 0 },
    { ngx_string("timeout"), ngx_http_ai_redis_msec, 1, 1, 0 },
    { ngx_string("connect_timeout"), ngx_http_ai_redis_msec, 1, 1, 0 },
    { ngx_string("on_error"), ngx_http_ai_redis_policy, 1, 1, 0 },
    { ngx_string("breaker"), ngx_http_ai_redis_breaker, 1, 2, 0 },
    { ngx_string("pool"), ngx_http_ai_redis_number, 1, 1, 0 },
    { ngx_string("nodes"), ngx_http_ai_redis_number, 1, 1, 0 },
    { ngx_null_string, NULL, 0, 0, 0 }
};


char *
ngx_http_ai_redis_block(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_core_main_conf_t *amcf = conf;

    char                  *rv;
    ngx_str_t             *value, name;
    ngx_uint_t             i;
    ngx_http_variable_t   *var;
    ngx_http_ai_block_t    block;
    ngx_http_ai_redis_t   *redis, **r;

    value = cf->args->elts;

    if (!ngx_http_ai_conf_name(&value[1], NGX_HTTP_AI_REDIS_NAME)
        || ngx_strlchr(value[1].data, value[1].data + value[1].len, '.'))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid name \"%V\" of \"ai_redis\", it has up "
                           "to %d letters, digits, \"-\" and \"_\"",
                           &value[1], NGX_HTTP_AI_REDIS_NAME);
        return NGX_CONF_ERROR;
    }

    r = amcf->redises.elts;

    for (i = 0; i < amcf->redises.nelts; i++) {
        if (r[i]->name.len == value[1].len
            && ngx_strncmp(r[i]->name.data, value[1].data, value[1].len) == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "duplicate redis \"%V\", it is defined in "
                               "%s:%ui", &value[1], r[i]->file, r[i]->line);
            return NGX_CONF_ERROR;
        }
    }

    if (amcf->redises.nelts == NGX_HTTP_AI_REDIS_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "more than %d \"ai_redis\"",
                           NGX_HTTP_AI_REDIS_MAX);
        return NGX_CONF_ERROR;
    }

    redis = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_redis_t));
    if (redis == NULL) {
        return NGX_CONF_ERROR;
    }

    redis->name = value[1];
    redis->amcf = amcf;
    redis->file = cf->conf_file->file.name.data;
    redis->line = cf->conf_file->line;
    redis->tls = NGX_CONF_UNSET;
    redis->tls_verify = NGX_CONF_UNSET;
    redis->timeout = 20;
    redis->connect_timeout = 1000;
    redis->max_failures = 5;
    redis->within = 10000;
    redis->open = 2000;
    redis->nconns = 1;
    redis->nodes = 1;
    redis->status.appendonly = -1;

    if (ngx_array_init(&redis->at_exit, cf->pool, 1, sizeof(void *))
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    block.block = "redis";
    block.name = &redis->name;
    block.subs = ngx_http_ai_redis_subs;
    block.seen = 0;
    block.ctx = redis;

    rv = ngx_http_ai_conf_block(cf, &block);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (redis->server.len == 0) {
        return ngx_http_ai_conf_error(cf, redis->file, redis->line,
                                      "redis \"%V\" has no \"server\"",
                                      &redis->name);
    }

    if (redis->user.len && redis->password.len == 0) {
        return ngx_http_ai_conf_error(cf, redis->file, redis->line,
                                      "redis \"%V\" has \"user\" without "
                                      "\"password\"", &redis->name);
    }

    if (redis->tls != 1
        && (redis->tls_ca.len || redis->tls_name.len
            || redis->tls_verify != NGX_CONF_UNSET))
    {
        return ngx_http_ai_conf_error(cf, redis->file, redis->line,
                                      "redis \"%V\": parameters of TLS need "
                                      "\"tls on\"", &redis->name);
    }

    ngx_conf_init_value(redis->tls, 0);
    ngx_conf_init_value(redis->tls_verify, 1);

    if (redis->tls) {
#if (NGX_HTTP_SSL)
        if (ngx_http_ai_redis_ssl(cf, redis) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
#else
        return ngx_http_ai_conf_error(cf, redis->file, redis->line,
                                      "redis \"%V\": this nginx was built "
                                      "without TLS", &redis->name);
#endif
    }

    r = ngx_array_push(&amcf->redises);
    if (r == NULL) {
        return NGX_CONF_ERROR;
    }

    *r = redis;

    name.len = sizeof("ai_redis_") - 1 + redis->name.len;
    name.data = ngx_pnalloc(cf->pool, name.len);
    if (name.data == NULL) {
        return NGX_CONF_ERROR;
    }

    (void) ngx_sprintf(name.data, "ai_redis_%V", &redis->name);

    for (i = 0; i < name.len; i++) {
        name.data[i] = (name.data[i] == '-') ? '_'
                                             : ngx_tolower(name.data[i]);
    }

    var = ngx_http_add_variable(cf, &name, NGX_HTTP_VAR_NOCACHEABLE);
    if (var == NULL) {
        return NGX_CONF_ERROR;
    }

    var->get_handler = ngx_http_ai_redis_variable;
    var->data = (uintptr_t) redis;

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_redis_invalid(ngx_conf_t *cf, ngx_http_ai_redis_t *redis,
    const char *expected)
{
    ngx_str_t  *value;

    value = cf->args->elts;

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "redis \"%V\": invalid \"%V %V\", %s",
                       &redis->name, &value[0], &value[cf->args->nelts - 1],
                       expected);

    return NGX_CONF_ERROR;
}


static char *
ngx_http_ai_redis_server(ngx_conf_t *cf, void *ctx)
{
    ngx_http_ai_redis_t *redis = ctx;

    ngx_str_t  *value;
    ngx_url_t  *u;

    value = cf->args->elts;
    redis->server = value[1];

    u = &redis->url;

    u->url = value[1];
    u->default_port = 6379;
    u->no_resolve = 1;

    if (ngx_parse_url(cf->pool, u) != NGX_OK || u->uri.len) {
        return ngx_http_ai_redis_invalid(cf, redis, u->err ? u->err :
                                         "it is \"host:port\" or "
                                         "\"unix:/path\"");
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_redis_user(ngx_conf_t *cf, void *ctx)
{
    ngx_http_ai_redis_t *redis = ctx;

    ngx_str_t  *value;

    value = cf->args->elts;
    redis->user = value[1];

    if (redis->user.len == 0) {
        return ngx_http_ai_redis_invalid(cf, redis, "it is a name");
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_redis_password(ngx_conf_t *cf, void *ctx)
{
    ngx_http_ai_redis_t *redis = ctx;

    u_char     *p;
    ngx_str_t  *value, who;

    value = cf->args->elts;

    p = ngx_pnalloc(cf->pool, sizeof("redis \"\"") + redis->name.len);
    if (p == NULL) {
        return NGX_CONF_ERROR;
    }

    who.data = p;
    who.len = ngx_sprintf(p, "redis \"%V\"", &redis->name) - p;

    switch (ngx_http_ai_conf_secret(cf, &who, "password", &value[1],
                                    &redis->password))
    {
    case NGX_OK:
        return NGX_CONF_OK;

    case NGX_DECLINED:

        /* not repeated in the message: it is in a log then */

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: a password is not written here, it is "
                           "\"password file:PATH\" or \"password env:NAME\"",
                           &who);
        return NGX_CONF_ERROR;

    default:
        return NGX_CONF_ERROR;
    }
}


static char *
ngx_http_ai_redis_database(ngx_conf_t *cf, void *ctx)
{
    ngx_http_ai_redis_t *redis = ctx;

    ngx_str_t  *value;

    value = cf->args->elts;

    redis->database = ngx_atoi(value[1].data, value[1].len);

    if (redis->database == NGX_ERROR || redis->database > 65535) {
        return ngx_http_ai_redis_invalid(cf, redis, "it is a number");
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_redis_tls(ngx_conf_t *cf, void *ctx)
{
    ngx_http_ai_redis_t *redis = ctx;

    ngx_str_t   *value;
    ngx_flag_t   on;

    value = cf->args->elts;

    if (ngx_http_ai_str_is(&value[1], "on")) {
        on = 1;

    } else if (ngx_http_ai_str_is(&value[1], "off")) {
        on = 0;

    } else {
        return ngx_http_ai_redis_invalid(cf, redis,
                                         "it is \"on\" or \"off\"");
    }

    if (ngx_http_ai_str_is(&value[0], "tls")) {
        redis->tls = on;

    } else {
        redis->tls_verify = on;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_redis_tls_ca(ngx_conf_t *cf, void *ctx)
{
    ngx_http_ai_redis_t *redis = ctx;

    ngx_str_t  *value;

    value = cf->args->elts;
    redis->tls_ca = value[1];

    if (redis->tls_ca.len == 0) {
        return ngx_http_ai_redis_invalid(cf, redis, "it is a file");
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_redis_tls_name(ngx_conf_t *cf, void *ctx)
{
    ngx_http_ai_redis_t *redis = ctx;

    ngx_str_t  *value;

    value = cf->args->elts;
    redis->tls_name = value[1];

    if (redis->tls_name.len == 0) {
        return ngx_http_ai_redis_invalid(cf, redis, "it is a host name");
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_redis_msec(ngx_conf_t *cf, void *ctx)
{
    ngx_http_ai_redis_t *redis = ctx;

    ngx_int_t   n;
    ngx_str_t  *value;

    value = cf->args->elts;

    n = ngx_parse_time(&value[1], 0);

    if (n == NGX_ERROR || n < 1 || n > 60000) {
        return ngx_http_ai_redis_invalid(cf, redis,
                                         "it is a time from 1ms to 60s");
    }

    if (ngx_http_ai_str_is(&value[0], "timeout")) {
        redis->timeout = n;

    } else {
        redis->connect_timeout = n;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_redis_policy(ngx_conf_t *cf, void *ctx)
{
    ngx_http_ai_redis_t *redis = ctx;

    ngx_str_t  *value;

    value = cf->args->elts;

    if (ngx_http_ai_str_is(&value[1], "deny")) {
        redis->on_error = NGX_HTTP_AI_REDIS_DENY;

    } else if (ngx_http_ai_str_is(&value[1], "local")) {
        redis->on_error = NGX_HTTP_AI_REDIS_LOCAL;

    } else if (ngx_http_ai_str_is(&value[1], "allow")) {
        redis->on_error = NGX_HTTP_AI_REDIS_ALLOW;

    } else {
        return ngx_http_ai_redis_invalid(cf, redis, "it is \"deny\", "
                                         "\"local\" or \"allow\"");
    }

    return NGX_CONF_OK;
}


/* "breaker 5/10s open=2s" or "breaker off" */

static char *
ngx_http_ai_redis_breaker(ngx_conf_t *cf, void *ctx)
{
    ngx_http_ai_redis_t *redis = ctx;

    u_char     *p;
    ngx_int_t   n, within, open;
    ngx_str_t  *value, s;

    value = cf->args->elts;

    if (ngx_http_ai_str_is(&value[1], "off") && cf->args->nelts == 2) {
        redis->max_failures = 0;
        return NGX_CONF_OK;
    }

    p = ngx_strlchr(value[1].data, value[1].data + value[1].len, '/');

    if (p == NULL) {
        goto invalid;
    }

    n = ngx_atoi(value[1].data, p - value[1].data);

    s.data = p + 1;
    s.len = value[1].data + value[1].len - s.data;
    within = ngx_parse_time(&s, 0);

    if (n == NGX_ERROR || n == 0 || within == NGX_ERROR || within == 0) {
        goto invalid;
    }

    redis->max_failures = n;
    redis->within = within;

    if (cf->args->nelts == 3) {

        if (!ngx_http_ai_conf_arg(&value[2], "open", &s)) {
            goto invalid;
        }

        open = ngx_parse_time(&s, 0);

        if (open == NGX_ERROR || open == 0) {
            goto invalid;
        }

        redis->open = open;
    }

    return NGX_CONF_OK;

invalid:

    return ngx_http_ai_redis_invalid(cf, redis, "it is \"off\" or a number "
                                     "of failures within a time such as "
                                     "\"5/10s open=2s\"");
}


static char *
ngx_http_ai_redis_number(ngx_conf_t *cf, void *ctx)
{
    ngx_http_ai_redis_t *redis = ctx;

    ngx_int_t   n;
    ngx_str_t  *value;

    value = cf->args->elts;

    n = ngx_atoi(value[1].data, value[1].len);

    if (ngx_http_ai_str_is(&value[0], "nodes")) {

        if (n == NGX_ERROR || n < 1 || n > 10000) {
            return ngx_http_ai_redis_invalid(cf, redis,
                                             "it is a number from 1 on");
        }

        redis->nodes = n;

        return NGX_CONF_OK;
    }

    if (n == NGX_ERROR || n < 1 || n > NGX_HTTP_AI_REDIS_POOL) {
        return ngx_http_ai_redis_invalid(cf, redis,
                                         "it is a number from 1 to 16");
    }

    redis->nconns = n;

    return NGX_CONF_OK;
}


#if (NGX_HTTP_SSL)

static ngx_int_t
ngx_http_ai_redis_ssl(ngx_conf_t *cf, ngx_http_ai_redis_t *redis)
{
    switch (ngx_http_ai_tls_client(cf, redis->tls_verify, &redis->tls_ca,
                                   &redis->ssl))
    {

    case NGX_OK:
        return NGX_OK;

    case NGX_DECLINED:
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, NGX_HTTP_AI_NO_CA);
        return NGX_ERROR;

    case NGX_ABORT:
        (void) ngx_http_ai_conf_error(cf, redis->file, redis->line,
                                      "redis \"%V\": cannot use \"tls_ca %V\"",
                                      &redis->name, &redis->tls_ca);
        return NGX_ERROR;

    default:
        return NGX_ERROR;
    }
}

#endif


ngx_int_t
ngx_http_ai_redis_postconfiguration(ngx_conf_t *cf)
{
    ngx_uint_t                      i;
    ngx_http_ai_redis_t           **r, *redis;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_core_module);

    if (amcf->redises.nelts == 0) {
        return NGX_OK;
    }

    r = amcf->redises.elts;

    for (i = 0; i < amcf->redises.nelts; i++) {
        redis = r[i];

        if (redis->url.naddrs
            || ngx_http_ai_hosts(cf->temp_pool, cf->log, &redis->url.host,
                                 NULL)
               == NGX_OK)
        {
            continue;
        }

        if (ngx_http_ai_resolver(cf, &amcf->resolver_timeout) == NULL) {
            (void) ngx_http_ai_conf_error(cf, redis->file, redis->line,
                                          "redis \"%V\": no resolver for "
                                          "\"%V\", add the directive "
                                          "\"resolver\"", &redis->name,
                                          &redis->url.host);
            return NGX_ERROR;
        }
    }

    return ngx_http_ai_redis_shared(cf);
}


ngx_http_ai_redis_t *
ngx_http_ai_redis_find(ngx_conf_t *cf, ngx_str_t *name, ngx_str_t *near)
{
    ngx_str_t                       names[NGX_HTTP_AI_REDIS_MAX];
    ngx_uint_t                      i;
    ngx_http_ai_redis_t           **r;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_core_module);

    r = amcf->redises.elts;

    for (i = 0; i < amcf->redises.nelts; i++) {
        if (r[i]->name.len == name->len
            && ngx_strncmp(r[i]->name.data, name->data, name->len) == 0)
        {
            return r[i];
        }

        names[i] = r[i]->name;
    }

    *near = ngx_http_ai_near_text(cf->temp_pool, name, names, i);

    return NULL;
}


static ngx_int_t
ngx_http_ai_redis_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t                   s;
    ngx_http_ai_redis_status_t  status;

    ngx_http_ai_redis_status((ngx_http_ai_redis_t *) data, &status);

    if (status.open) {
        ngx_str_set(&s, "open");

    } else if (status.up) {
        ngx_str_set(&s, "up");

    } else {
        ngx_str_set(&s, "down");
    }

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->data = s.data;
    v->len = s.len;

    return NGX_OK;
}
