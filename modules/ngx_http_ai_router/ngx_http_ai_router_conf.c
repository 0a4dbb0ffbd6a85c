
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_router.h"


static char *ngx_http_ai_conf_sub(ngx_conf_t *cf, ngx_command_t *dummy,
    void *conf);


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
