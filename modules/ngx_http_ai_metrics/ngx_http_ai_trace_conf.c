
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_trace.h"
#include "ngx_http_ai_log.h"


/* of content=full without max= */
#define NGX_HTTP_AI_TRACE_CONTENT  65536


static ngx_int_t ngx_http_ai_trace_auth(ngx_conf_t *cf, ngx_str_t *text,
    ngx_http_ai_out_t *headers);
static ngx_int_t ngx_http_ai_trace_header(ngx_conf_t *cf, ngx_str_t *text,
    ngx_http_ai_out_t *headers);
static ngx_int_t ngx_http_ai_trace_line(ngx_conf_t *cf, ngx_str_t *value);


static ngx_str_t  ngx_http_ai_trace_who = ngx_string("ai_trace");


/* ai_trace url [parameters] | off */

char *
ngx_http_ai_trace_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_trace_loc_conf_t *tlcf = conf;

    ssize_t                         size, max;
    ngx_int_t                       n;
    ngx_str_t                      *value, s;
    ngx_uint_t                      i;
    ngx_http_ai_out_t               headers;
    ngx_http_ai_exporter_conf_t     e;
    ngx_http_ai_log_main_conf_t    *lmcf;
    ngx_http_ai_trace_main_conf_t  *tmcf;

    if (tlcf->set) {
        return "is duplicate";
    }

    tlcf->set = 1;

    value = cf->args->elts;

    if (ngx_http_ai_str_is(&value[1], "off")) {

        if (cf->args->nelts > 2) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"ai_trace off\" has no parameters");
            return NGX_CONF_ERROR;
        }

        return NGX_CONF_OK;
    }

    tmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_trace_module);

    ngx_memzero(&e, sizeof(ngx_http_ai_exporter_conf_t));

    e.url = value[1];
    ngx_str_set(&e.service, "nginx");
    e.encoding = &ngx_http_ai_otlp_protobuf;
    e.batch = 64;
    e.queue = 4 * 1024 * 1024;
    e.flush = 1000;
    e.timeout = 5000;
    e.tls_verify = 1;

    tlcf->sample = NGX_HTTP_AI_TRACE_ALL;
    max = 0;

    if (ngx_http_ai_out_init(&headers, cf->pool, 256) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_http_ai_conf_arg(&value[i], "auth", &s)) {
            if (ngx_http_ai_trace_auth(cf, &s, &headers) != NGX_OK) {
                return NGX_CONF_ERROR;
            }

            continue;
        }

        if (ngx_http_ai_conf_arg(&value[i], "header", &s)) {
            if (ngx_http_ai_trace_header(cf, &s, &headers) != NGX_OK) {
                return NGX_CONF_ERROR;
            }

            continue;
        }

        if (ngx_http_ai_conf_arg(&value[i], "service", &s)) {
            if (s.len == 0) {
                goto invalid;
            }

            e.service = s;
            continue;
        }

        if (ngx_http_ai_conf_arg(&value[i], "encoding", &s)) {

            if (ngx_http_ai_str_is(&s, "json")) {
                e.encoding = &ngx_http_ai_otlp_json;

            } else if (!ngx_http_ai_str_is(&s, "protobuf")) {
                goto invalid;
            }

            continue;
        }

        if (ngx_http_ai_conf_arg(&value[i], "sample", &s)) {
            if (ngx_http_ai_trace_ratio(&s, &tlcf->sample) != NGX_OK) {
                goto invalid;
            }

            continue;
        }

        if (ngx_http_ai_conf_arg(&value[i], "parent", &s)) {

            if (ngx_http_ai_str_is(&s, "on")) {
                tlcf->parent = 1;

            } else if (ngx_http_ai_str_is(&s, "off")) {
                tlcf->parent = 0;

            } else {
                goto invalid;
            }

            continue;
        }

        if (ngx_http_ai_conf_arg(&value[i], "content", &s)) {

            if (ngx_http_ai_str_is(&s, "full")) {
                tlcf->content = NGX_HTTP_AI_TRACE_CONTENT;

            } else if (!ngx_http_ai_str_is(&s, "off")) {
                goto invalid;
            }

            continue;
        }

        if (ngx_http_ai_conf_arg(&value[i], "max", &s)) {
            max = ngx_parse_size(&s);

            if (max == NGX_ERROR || max == 0) {
                goto invalid;
            }

            continue;
        }

        if (ngx_http_ai_conf_arg(&value[i], "batch", &s)) {
            n = ngx_http_ai_conf_count(&s);

            if (n == NGX_ERROR || n == 0 || n > 10000) {
                goto invalid;
            }

            e.batch = (ngx_uint_t) n;
            continue;
        }

        if (ngx_http_ai_conf_arg(&value[i], "queue", &s)) {
            size = ngx_parse_size(&s);

            if (size == NGX_ERROR || size < 65536) {
                goto invalid;
            }

            e.queue = (size_t) size;
            continue;
        }

        if (ngx_http_ai_conf_arg(&value[i], "flush", &s)) {
            n = ngx_parse_time(&s, 0);

            if (n == NGX_ERROR || n == 0) {
                goto invalid;
            }

            e.flush = (ngx_msec_t) n;
            continue;
        }

        if (ngx_http_ai_conf_arg(&value[i], "timeout", &s)) {
            n = ngx_parse_time(&s, 0);

            if (n == NGX_ERROR || n == 0) {
                goto invalid;
            }

            e.timeout = (ngx_msec_t) n;
            continue;
        }

        if (ngx_http_ai_conf_arg(&value[i], "tls_ca", &s)) {
            e.tls_ca = s;
            continue;
        }

        if (ngx_http_ai_conf_arg(&value[i], "tls_verify", &s)) {

            if (ngx_http_ai_str_is(&s, "off")) {
                e.tls_verify = 0;

            } else if (!ngx_http_ai_str_is(&s, "on")) {
                goto invalid;
            }

            continue;
        }

        goto invalid;
    }

    ngx_http_ai_out_lit(&headers, "Content-Type: ");
    ngx_http_ai_out_str(&headers, &e.encoding->type);
    ngx_http_ai_out_lit(&headers, CRLF);

    if (headers.failed) {
        return NGX_CONF_ERROR;
    }

    if (max && tlcf->content == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"max=\" of \"ai_trace\" needs "
                           "\"content=full\"");
        return NGX_CONF_ERROR;
    }

    if (tlcf->content) {

        if (max) {
            tlcf->content = max;
        }

        lmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_log_module);
        lmcf->content |= NGX_HTTP_AI_LOG_FULL;
    }

    e.headers.data = headers.start;
    e.headers.len = headers.last - headers.start;

    tlcf->exporter = ngx_http_ai_exporter_create(cf, tmcf, &e);

    return tlcf->exporter ? NGX_CONF_OK : NGX_CONF_ERROR;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\" of \"ai_trace\", known are "
                       "auth=, header=, service=, encoding=, sample=, "
                       "parent=, content=, max=, batch=, queue=, flush=, "
                       "timeout=, tls_ca= and tls_verify=",
                       &value[i]);

    return NGX_CONF_ERROR;
}


/*
 * The secret is "user:password" (Basic), a whole value with its scheme, or a
 * token (Bearer).
 */

static ngx_int_t
ngx_http_ai_trace_auth(ngx_conf_t *cf, ngx_str_t *text,
    ngx_http_ai_out_t *headers)
{
    ngx_int_t   rc;
    ngx_str_t   secret, basic;

    rc = ngx_http_ai_conf_secret(cf, &ngx_http_ai_trace_who, "auth", text,
                                 &secret);

    if (rc == NGX_DECLINED) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"auth=\" of \"ai_trace\" must be file:PATH or "
                           "env:NAME");
        return NGX_ERROR;
    }

    if (rc != NGX_OK || ngx_http_ai_trace_line(cf, &secret) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_ai_out_lit(headers, "Authorization: ");

    if (ngx_strlchr(secret.data, secret.data + secret.len, ' ')) {
        ngx_http_ai_out_str(headers, &secret);

    } else if (ngx_strlchr(secret.data, secret.data + secret.len, ':')) {

        basic.data = ngx_pnalloc(cf->pool,
                                 ngx_base64_encoded_length(secret.len));
        if (basic.data == NULL) {
            return NGX_ERROR;
        }

        ngx_encode_base64(&basic, &secret);

        ngx_http_ai_out_lit(headers, "Basic ");
        ngx_http_ai_out_str(headers, &basic);

    } else {
        ngx_http_ai_out_lit(headers, "Bearer ");
        ngx_http_ai_out_str(headers, &secret);
    }

    ngx_http_ai_out_lit(headers, CRLF);

    return NGX_OK;
}


/* name:value, where the value may be a secret */

static ngx_int_t
ngx_http_ai_trace_header(ngx_conf_t *cf, ngx_str_t *text,
    ngx_http_ai_out_t *headers)
{
    u_char     *colon;
    ngx_int_t   rc;
    ngx_str_t   name, value, secret;

    colon = ngx_strlchr(text->data, text->data + text->len, ':');

    if (colon == NULL) {
        goto invalid;
    }

    name.data = text->data;
    name.len = colon - text->data;

    value.data = colon + 1;
    value.len = text->data + text->len - value.data;

    while (value.len && value.data[0] == ' ') {
        value.data++;
        value.len--;
    }

    if (!ngx_http_ai_conf_name(&name, 64) || value.len == 0) {
        goto invalid;
    }

    rc = ngx_http_ai_conf_secret(cf, &ngx_http_ai_trace_who, "header", &value,
                                 &secret);

    if (rc == NGX_OK) {
        value = secret;

    } else if (rc != NGX_DECLINED) {
        return NGX_ERROR;
    }

    if (ngx_http_ai_trace_line(cf, &value) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_ai_out_str(headers, &name);
    ngx_http_ai_out_lit(headers, ": ");
    ngx_http_ai_out_str(headers, &value);
    ngx_http_ai_out_lit(headers, CRLF);

    return NGX_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid \"header=%V\" of \"ai_trace\", it must be "
                       "name:value, name:file:PATH or name:env:NAME", text);

    return NGX_ERROR;
}


/* the value itself is not shown, it may be a secret */

static ngx_int_t
ngx_http_ai_trace_line(ngx_conf_t *cf, ngx_str_t *value)
{
    size_t  i;

    for (i = 0; i < value->len; i++) {
        if (value->data[i] < 0x20 || value->data[i] == 0x7f) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "a header of \"ai_trace\" contains a control "
                               "character");
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* ai_trace_attribute name value [list] */

char *
ngx_http_ai_trace_attribute(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_trace_loc_conf_t *tlcf = conf;

    ngx_str_t                      *value;
    ngx_uint_t                      i;
    ngx_http_ai_trace_attribute_t  *a;

    value = cf->args->elts;

    if (!ngx_http_ai_conf_name(&value[1], 255)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid name \"%V\" of an attribute, it consists "
                           "of letters, digits, \"-\", \"_\" and \".\"",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    if (cf->args->nelts == 4 && !ngx_http_ai_str_is(&value[3], "list")) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\" of "
                           "\"ai_trace_attribute\", known is list",
                           &value[3]);
        return NGX_CONF_ERROR;
    }

    if (tlcf->attributes == NULL) {
        tlcf->attributes = ngx_array_create(cf->pool, 4,
                                       sizeof(ngx_http_ai_trace_attribute_t));
        if (tlcf->attributes == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    a = tlcf->attributes->elts;

    for (i = 0; i < tlcf->attributes->nelts; i++) {
        if (a[i].name.len == value[1].len
            && ngx_strncmp(a[i].name.data, value[1].data, value[1].len) == 0)
        {
            return "is duplicate";
        }
    }

    a = ngx_array_push(tlcf->attributes);
    if (a == NULL) {
        return NGX_CONF_ERROR;
    }

    a->name = value[1];
    a->list = (cf->args->nelts == 4);

    return ngx_http_ai_conf_complex(cf, &value[2], &a->value);
}
