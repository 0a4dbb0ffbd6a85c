
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_auth_record.h"
#include "ngx_http_ai_time.h"
#include "ngx_http_ai_conf.h"


#define NGX_HTTP_AI_RECORD_SHOWN     20       /* bytes of a wrong name */

/* 5138-11-16: what is later is in ms */
#define NGX_HTTP_AI_RECORD_TIME_MAX  100000000000


ngx_int_t
ngx_http_ai_record_string(ngx_http_ai_record_t *rec, ngx_str_t *member,
    ngx_uint_t node, ngx_str_t *value)
{
    ngx_str_t   raw;
    ngx_uint_t  i, type;

    type = ngx_http_ai_json_type(rec->j, node);
    ngx_str_null(value);

    if (type == NGX_HTTP_AI_JSON_NULL) {
        return NGX_OK;
    }

    if (type != NGX_HTTP_AI_JSON_STRING) {
        return ngx_http_ai_record_error(rec, "\"%V\" must be a string",
                                        member);
    }

    raw = ngx_http_ai_json_raw(rec->j, node);

    if (raw.len == 0) {
        return NGX_OK;
    }

    if (!rec->j->nodes[node].escaped) {
        *value = raw;

    } else if (ngx_http_ai_json_unescape_str(rec->pool, &raw, value)
               != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < value->len; i++) {
        if (value->data[i] < ' ' || value->data[i] == 0x7f) {
            return ngx_http_ai_record_error(rec, "control character in \"%V\"",
                                            member);
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_record_time(ngx_http_ai_record_t *rec, ngx_str_t *member,
    ngx_uint_t node, int64_t *value)
{
    ngx_str_t  text;

    switch (ngx_http_ai_json_type(rec->j, node)) {

    case NGX_HTTP_AI_JSON_NULL:
        *value = 0;
        return NGX_OK;

    case NGX_HTTP_AI_JSON_NUMBER:

        if (ngx_http_ai_json_int(rec->j, node, value) == NGX_OK
            && *value > 0 && *value < NGX_HTTP_AI_RECORD_TIME_MAX)
        {
            return NGX_OK;
        }

        break;

    case NGX_HTTP_AI_JSON_STRING:
        text = ngx_http_ai_json_raw(rec->j, node);

        if (ngx_http_ai_rfc3339(&text, value) == NGX_OK) {
            return NGX_OK;
        }

        break;
    }

    return ngx_http_ai_record_error(rec, "\"%V\" must be a time like "
                                    "\"2027-01-31T00:00:00Z\", or a number of "
                                    "seconds since 1970", member);
}


ngx_int_t
ngx_http_ai_record_flag(ngx_http_ai_record_t *rec, ngx_str_t *member,
    ngx_uint_t node, ngx_uint_t *value)
{
    switch (ngx_http_ai_json_type(rec->j, node)) {

    case NGX_HTTP_AI_JSON_TRUE:
        *value = 1;
        return NGX_OK;

    case NGX_HTTP_AI_JSON_FALSE:
        *value = 0;
        return NGX_OK;
    }

    return ngx_http_ai_record_error(rec, "\"%V\" must be true or false",
                                    member);
}


ngx_int_t
ngx_http_ai_record_find(ngx_http_ai_record_t *rec, ngx_uint_t key,
    ngx_str_t *names, ngx_uint_t n, uint64_t *seen, ngx_uint_t *found)
{
    ngx_str_t   text, near, shown;
    ngx_uint_t  i;

    text = ngx_http_ai_json_raw(rec->j, key);

    if (rec->j->nodes[key].escaped
        && ngx_http_ai_json_unescape_str(rec->pool, &text, &text) != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < n; i++) {

        if (text.len != names[i].len
            || ngx_memcmp(text.data, names[i].data, text.len) != 0)
        {
            continue;
        }

        if (*seen & (uint64_t) 1 << i) {
            return ngx_http_ai_record_error(rec, "\"%V\" is there twice",
                                            &names[i]);
        }

        *seen |= (uint64_t) 1 << i;
        *found = i;

        return NGX_OK;
    }

    near = ngx_http_ai_near_text(rec->pool, &text, names, n);
    shown = ngx_http_ai_record_shown(rec->pool, &text);

    return ngx_http_ai_record_error(rec, "unknown member \"%V\"%V", &shown,
                                    &near);
}


ngx_int_t
ngx_http_ai_record_error(ngx_http_ai_record_t *rec, const char *fmt, ...)
{
    va_list  args;

    rec->error->data = ngx_pnalloc(rec->pool, NGX_MAX_ERROR_STR);
    if (rec->error->data == NULL) {
        return NGX_ERROR;
    }

    va_start(args, fmt);
    rec->error->len = ngx_vslprintf(rec->error->data,
                                    rec->error->data + NGX_MAX_ERROR_STR,
                                    fmt, args)
                      - rec->error->data;
    va_end(args);

    return NGX_DECLINED;
}


ngx_str_t
ngx_http_ai_record_shown(ngx_pool_t *pool, ngx_str_t *text)
{
    ngx_str_t   shown;
    ngx_uint_t  i;

    if (text->len >= NGX_HTTP_AI_RECORD_SHOWN) {
        ngx_str_set(&shown, "(not shown, it is long)");
        return shown;
    }

    shown.len = text->len;
    shown.data = ngx_pnalloc(pool, text->len + 1);

    if (shown.data == NULL) {
        ngx_str_null(&shown);
        return shown;
    }

    for (i = 0; i < text->len; i++) {
        shown.data[i] = (text->data[i] < ' ' || text->data[i] == 0x7f)
                        ? '?' : text->data[i];
    }

    return shown;
}
