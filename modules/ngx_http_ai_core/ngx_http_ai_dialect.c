
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_dialect.h"


#define NGX_HTTP_AI_CODEC_MESSAGE  512


ngx_http_ai_dialect_t  *ngx_http_ai_dialects[] = {
    &ngx_http_ai_dialect_openai,
    &ngx_http_ai_dialect_anthropic,
    NULL
};


ngx_http_ai_dialect_t *
ngx_http_ai_dialect_find(ngx_str_t *name)
{
    ngx_uint_t              i;
    ngx_http_ai_dialect_t  *d;

    for (i = 0; ngx_http_ai_dialects[i]; i++) {
        d = ngx_http_ai_dialects[i];

        if (d->name.len == name->len
            && ngx_strncmp(d->name.data, name->data, name->len) == 0)
        {
            return d;
        }
    }

    return NULL;
}


ngx_int_t
ngx_http_ai_codec_refuse(ngx_http_ai_codec_t *codec, const char *param,
    const char *fmt, ...)
{
    u_char               *p, *last;
    size_t                len;
    va_list               args;
    ngx_http_ai_error_t  *err;

    err = &codec->error;

    ngx_memzero(err, sizeof(ngx_http_ai_error_t));

    err->class = NGX_HTTP_AI_ERR_INVALID_REQUEST;
    err->status = ngx_http_ai_err_status(err->class);

    len = param ? ngx_strlen(param) : 0;

    p = ngx_pnalloc(codec->pool, NGX_HTTP_AI_CODEC_MESSAGE + len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    va_start(args, fmt);
    last = ngx_vslprintf(p, p + NGX_HTTP_AI_CODEC_MESSAGE, fmt, args);
    va_end(args);

    err->message.data = p;
    err->message.len = last - p;

    if (param) {
        err->param.data = ngx_cpymem(last, param, len) - len;
        err->param.len = len;
    }

    return NGX_DECLINED;
}


ngx_int_t
ngx_http_ai_codec_refuse_at(ngx_http_ai_codec_t *codec, const char *path,
    const char *what, ngx_str_t *value)
{
    ngx_str_t  s;

    if (*path == '\0') {
        return ngx_http_ai_codec_refuse(codec, NULL, "%s", what);
    }

    if (value == NULL) {
        return ngx_http_ai_codec_refuse(codec, path, "%s: %s", path, what);
    }

    s = *value;
    s.len = ngx_http_ai_min(s.len, 64);

    return ngx_http_ai_codec_refuse(codec, path, "%s: %s \"%V\"", path, what,
                                    &s);
}
