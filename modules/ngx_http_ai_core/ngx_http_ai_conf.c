
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_compat.h"
#include "ngx_http_ai_conf.h"


static char *ngx_http_ai_conf_sub(ngx_conf_t *cf, ngx_command_t *dummy,
    void *conf);
static ngx_int_t ngx_http_ai_conf_env(ngx_conf_t *cf, ngx_str_t *who,
    const char *what, ngx_str_t *name, ngx_str_t *secret);
static ngx_int_t ngx_http_ai_conf_file(ngx_conf_t *cf, ngx_str_t *who,
    const char *what, ngx_str_t *name, ngx_str_t *secret);
static void ngx_http_ai_conf_trim(ngx_str_t *text);


char *
ngx_http_ai_conf_block(ngx_conf_t *cf, ngx_http_ai_block_t *block)
{
    char        *rv;
    ngx_conf_t   save;

    save = *cf;

    cf->handler = ngx_http_ai_conf_sub;
    cf->handler_conf = (char *) block;

    rv = ngx_conf_parse(cf, NULL);

    *cf = save;

    return rv;
}


static char *
ngx_http_ai_conf_sub(ngx_conf_t *cf, ngx_command_t *dummy, void *conf)
{
    ngx_http_ai_block_t *block = conf;

    ngx_str_t          *value, *names, text;
    ngx_uint_t          i, n;
    ngx_http_ai_sub_t  *sub;

    value = cf->args->elts;

    if (ngx_strcmp(value[0].data, "include") == 0) {

        if (cf->args->nelts != 2) {
            return "\"include\" expects one file";
        }

        return ngx_conf_include(cf, dummy, conf);
    }

    for (i = 0; block->subs[i].name.len; i++) {
        if (value[0].len == block->subs[i].name.len
            && ngx_strcmp(value[0].data, block->subs[i].name.data) == 0)
        {
            break;
        }
    }

    sub = &block->subs[i];

    if (sub->name.len == 0) {
        names = ngx_palloc(cf->temp_pool, (i + 1) * sizeof(ngx_str_t));
        if (names == NULL) {
            return NGX_CONF_ERROR;
        }

        for (n = 0; n < i; n++) {
            names[n] = block->subs[n].name;
        }

        text = ngx_http_ai_near_text(cf->temp_pool, &value[0], names, n);

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "unknown directive \"%V\" in %s \"%V\"%V",
                           &value[0], block->block, block->name, &text);
        return NGX_CONF_ERROR;
    }

    if (!sub->multi && (block->seen & ((ngx_uint_t) 1 << i))) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate \"%V\" in %s \"%V\"",
                           &value[0], block->block, block->name);
        return NGX_CONF_ERROR;
    }

    block->seen |= (ngx_uint_t) 1 << i;

    n = cf->args->nelts - 1;

    if (n < sub->min || n > sub->max) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid number of arguments in \"%V\" of "
                           "%s \"%V\"",
                           &value[0], block->block, block->name);
        return NGX_CONF_ERROR;
    }

    return sub->handler(cf, block->ctx);
}


char *
ngx_http_ai_conf_error(ngx_conf_t *cf, u_char *file, ngx_uint_t line,
    const char *fmt, ...)
{
    u_char    errstr[NGX_MAX_CONF_ERRSTR], *p;
    va_list   args;

    va_start(args, fmt);
    p = ngx_vslprintf(errstr, errstr + NGX_MAX_CONF_ERRSTR, fmt, args);
    va_end(args);

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "%*s in %s:%ui",
                  (size_t) (p - errstr), errstr, file, line);

    return NGX_CONF_ERROR;
}


ngx_uint_t
ngx_http_ai_conf_arg(ngx_str_t *arg, const char *name, ngx_str_t *value)
{
    size_t  len;

    len = ngx_strlen(name);

    if (arg->len <= len
        || ngx_strncmp(arg->data, name, len) != 0
        || arg->data[len] != '=')
    {
        return 0;
    }

    value->data = arg->data + len + 1;
    value->len = arg->len - len - 1;

    return 1;
}


char *
ngx_http_ai_conf_complex(ngx_conf_t *cf, ngx_str_t *text,
    ngx_http_complex_value_t **value)
{
    ngx_http_compile_complex_value_t  ccv;

    *value = ngx_palloc(cf->pool, sizeof(ngx_http_complex_value_t));
    if (*value == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = text;
    ccv.complex_value = *value;

    if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


/* what the compiler makes of a text without variables */

ngx_http_complex_value_t *
ngx_http_ai_conf_literal(ngx_conf_t *cf, ngx_str_t *text)
{
    ngx_http_complex_value_t  *value;

    value = ngx_pcalloc(cf->pool, sizeof(ngx_http_complex_value_t));
    if (value == NULL) {
        return NULL;
    }

    value->value = *text;

    return value;
}


ngx_int_t
ngx_http_ai_conf_secret(ngx_conf_t *cf, ngx_str_t *who, const char *name,
    ngx_str_t *text, ngx_str_t *secret)
{
    ngx_str_t  rest;

    rest = *text;

    if (rest.len >= 4 && ngx_strncmp(rest.data, "env:", 4) == 0) {
        rest.data += 4;
        rest.len -= 4;

        return ngx_http_ai_conf_env(cf, who, name, &rest, secret);
    }

    if (rest.len >= 5 && ngx_strncmp(rest.data, "file:", 5) == 0) {
        rest.data += 5;
        rest.len -= 5;

        return ngx_http_ai_conf_file(cf, who, name, &rest, secret);
    }

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_ai_conf_env(ngx_conf_t *cf, ngx_str_t *who, const char *what,
    ngx_str_t *name, ngx_str_t *secret)
{
    u_char           *text;
    ngx_str_t        *env;
    ngx_uint_t        i;
    ngx_core_conf_t  *ccf;

    if (name->len == 0 || ngx_strlchr(name->data, name->data + name->len, '=')
                          != NULL)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: \"%s env:\" expects the name of an "
                           "environment variable", who, what);
        return NGX_ERROR;
    }

    text = (u_char *) getenv((char *) name->data);

    if (text == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: environment variable \"%V\" is not set, "
                           "set it for nginx or use \"%s file:...\"",
                           who, name, what);
        return NGX_ERROR;
    }

    secret->data = text;
    secret->len = ngx_strlen(text);

    ngx_http_ai_conf_trim(secret);

    if (secret->len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: environment variable \"%V\" is empty, "
                           "set it for nginx or use \"%s file:...\"",
                           who, name, what);
        return NGX_ERROR;
    }

    secret->data = ngx_pstrdup(cf->pool, secret);
    if (secret->data == NULL) {
        return NGX_ERROR;
    }

    /* a binary upgrade passes on only what "env" directives name */

    ccf = (ngx_core_conf_t *) ngx_get_conf(cf->cycle->conf_ctx,
                                           ngx_core_module);
    env = ccf->env.elts;

    for (i = 0; i < ccf->env.nelts; i++) {
        if (env[i].len >= name->len
            && ngx_strncmp(env[i].data, name->data, name->len) == 0
            && (env[i].len == name->len || env[i].data[name->len] == '='))
        {
            return NGX_OK;
        }
    }

    env = ngx_array_push(&ccf->env);
    if (env == NULL) {
        return NGX_ERROR;
    }

    *env = *name;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_conf_file(ngx_conf_t *cf, ngx_str_t *who, const char *what,
    ngx_str_t *name, ngx_str_t *secret)
{
    ssize_t      n;
    ngx_fd_t     fd;
    ngx_err_t    err;
    const char  *failed;

    if (name->len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: \"%s file:\" expects a file", who, what);
        return NGX_ERROR;
    }

    if (ngx_conf_full_name(cf->cycle, name, 1) != NGX_OK) {
        return NGX_ERROR;
    }

    fd = ngx_open_file(name->data, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           "%V: cannot open %s file \"%V\"",
                           who, what, name);
        return NGX_ERROR;
    }

    failed = NULL;
    err = 0;
    n = 0;

    secret->data = ngx_pnalloc(cf->pool, NGX_HTTP_AI_SECRET_MAX + 1);
    if (secret->data == NULL) {
        failed = "cannot be read";

    } else {
        n = ngx_read_fd(fd, secret->data, NGX_HTTP_AI_SECRET_MAX + 1);

        if (n == -1) {
            err = ngx_errno;
            failed = "cannot be read";

        } else if (n > NGX_HTTP_AI_SECRET_MAX) {
            failed = "is too large";

        } else {
            secret->len = n;
            ngx_http_ai_conf_trim(secret);

            if (secret->len == 0) {
                failed = "is empty";
            }
        }
    }

    if (ngx_close_file(fd) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_ALERT, cf->log, ngx_errno,
                      ngx_close_file_n " \"%V\" failed", name);
    }

    if (failed) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, err,
                           "%V: %s file \"%V\" %s",
                           who, what, name, failed);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_http_ai_conf_trim(ngx_str_t *text)
{
    while (text->len && text->data[0] <= ' ') {
        text->data++;
        text->len--;
    }

    while (text->len && text->data[text->len - 1] <= ' ') {
        text->len--;
    }
}


ngx_int_t
ngx_http_ai_conf_variables(ngx_conf_t *cf, ngx_http_variable_t *vars)
{
    ngx_http_variable_t  *var, *v;

    for (v = vars; v->name.len; v++) {
        var = ngx_http_add_variable(cf, &v->name, v->flags);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;
    }

    return NGX_OK;
}


ngx_uint_t
ngx_http_ai_conf_name(ngx_str_t *text, size_t max)
{
    u_char  ch;
    size_t  i;

    for (i = 0; i < text->len; i++) {
        ch = text->data[i];

        if ((ch < 'a' || ch > 'z') && (ch < 'A' || ch > 'Z')
            && (ch < '0' || ch > '9') && ch != '-' && ch != '_' && ch != '.')
        {
            return 0;
        }
    }

    return text->len && text->len <= max;
}


ngx_int_t
ngx_http_ai_conf_count(ngx_str_t *text)
{
    size_t     len;
    ngx_int_t  n, scale;

    len = text->len;
    scale = 1;

    if (len) {
        switch (text->data[len - 1]) {

        case 'k':
        case 'K':
            scale = 1000;
            len--;
            break;

        case 'm':
        case 'M':
            scale = 1000000;
            len--;
            break;
        }
    }

    n = ngx_atoi(text->data, len);

    if (n == NGX_ERROR || n > NGX_MAX_INT32_VALUE / scale) {
        return NGX_ERROR;
    }

    return n * scale;
}


const char *
ngx_http_ai_url_parse(ngx_pool_t *pool, ngx_str_t *text,
    ngx_http_ai_url_t *url)
{
    u_char     *p, *last, *host, *host_end, *start;
    ngx_int_t   port;
    in_port_t   standard;
#if (NGX_HAVE_INET6)
    u_char      addr[16];
#endif

    p = text->data;
    last = p + text->len;

    if (last - p > 8 && ngx_strncasecmp(p, (u_char *) "https://", 8) == 0) {
        url->ssl = 1;
        standard = 443;
        p += 8;

    } else if (last - p > 7
               && ngx_strncasecmp(p, (u_char *) "http://", 7) == 0)
    {
        url->ssl = 0;
        standard = 80;
        p += 7;

    } else {
        return "it must be \"https://host...\" or \"http://host...\"";
    }

    for (host = p; p < last; p++) {
        if (*p <= ' ' || *p >= 0x7f || *p == '"' || *p == '\\') {
            return "unexpected character";
        }

        if (*p == '#') {
            return "a fragment is not supported";
        }
    }

    start = host;

    if (*host == '[') {
        host++;
        host_end = ngx_strlchr(host, last, ']');

        if (host_end == NULL) {
            return "missing \"]\"";
        }

#if (NGX_HAVE_INET6)
        if (ngx_inet6_addr(host, host_end - host, addr) != NGX_OK) {
            return "invalid IPv6 address";
        }
#else
        return "this nginx has no IPv6";
#endif

        p = host_end + 1;

    } else {

        for (p = host; p < last && *p != ':' && *p != '/' && *p != '?'; p++) {
            if ((*p < 'a' || *p > 'z') && (*p < 'A' || *p > 'Z')
                && (*p < '0' || *p > '9')
                && *p != '-' && *p != '.' && *p != '_')
            {
                return "invalid host";
            }
        }

        host_end = p;
    }

    if (host == host_end) {
        return "no host";
    }

    if (host_end - host > 253) {
        return "too long host";
    }

    url->hostname.len = host_end - host;
    url->hostname.data = ngx_pnalloc(pool, url->hostname.len + 1);
    if (url->hostname.data == NULL) {
        return "no memory";
    }

    ngx_strlow(url->hostname.data, host, url->hostname.len);
    url->hostname.data[url->hostname.len] = '\0';

    url->port = standard;
    url->no_port = 1;
    host_end = p;

    if (p < last && *p == ':') {
        host = ++p;

        while (p < last && *p != '/' && *p != '?') {
            p++;
        }

        port = ngx_atoi(host, p - host);

        if (port == NGX_ERROR || port < 1 || port > 65535) {
            return "invalid port";
        }

        url->port = (in_port_t) port;
        url->no_port = 0;

        if (url->port != standard) {
            host_end = p;
        }
    }

    if (p < last && *p != '/' && *p != '?') {
        return "unexpected text after the host";
    }

    url->host.len = host_end - start;
    url->host.data = ngx_pnalloc(pool, url->host.len);
    if (url->host.data == NULL) {
        return "no memory";
    }

    ngx_strlow(url->host.data, start, url->host.len);

    url->path.data = p;
    url->path.len = last - p;

    return NULL;
}
