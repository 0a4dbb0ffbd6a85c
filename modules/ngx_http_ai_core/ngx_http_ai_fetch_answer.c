
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The answer of a background request: header, and a body with a length, in
 * chunks, or up to the end of the connection.
 */


#include "ngx_http_ai_fetch_ctx.h"


#define NGX_HTTP_AI_FETCH_HEADER  16384


static ngx_int_t ngx_http_ai_fetch_header(ngx_http_ai_fetch_ctx_t *x);
static const char *ngx_http_ai_fetch_line(ngx_http_ai_fetch_ctx_t *x,
    u_char *p, u_char *last, ngx_uint_t *seen);
static time_t ngx_http_ai_fetch_max_age(u_char *p, u_char *last);
static ngx_int_t ngx_http_ai_fetch_body(ngx_http_ai_fetch_ctx_t *x);
static ngx_int_t ngx_http_ai_fetch_chunked(ngx_http_ai_fetch_ctx_t *x);
static ngx_int_t ngx_http_ai_fetch_append(ngx_http_ai_fetch_ctx_t *x,
    u_char *p, size_t len);


ngx_int_t
ngx_http_ai_fetch_input(ngx_http_ai_fetch_ctx_t *x)
{
    ngx_int_t  rc;

    while (!x->header) {
        rc = ngx_http_ai_fetch_header(x);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    return ngx_http_ai_fetch_body(x);
}


static ngx_int_t
ngx_http_ai_fetch_header(ngx_http_ai_fetch_ctx_t *x)
{
    u_char      *p, *last, *line, *end;
    ngx_int_t    status;
    ngx_buf_t   *b;
    const char  *error;
    ngx_uint_t   seen;

    b = x->in;

    /* the end of the header: an empty line */

    end = NULL;

    for (p = b->pos; p < b->last; p++) {

        if (*p != LF) {
            continue;
        }

        if (b->last - p > 1 && p[1] == LF) {
            end = p + 2;
            break;
        }

        if (b->last - p > 2 && p[1] == CR && p[2] == LF) {
            end = p + 3;
            break;
        }
    }

    if (end == NULL) {
        return NGX_AGAIN;
    }

    p = b->pos;

    /* "HTTP/1.1 200" */

    if (end - p < 13
        || ngx_strncmp(p, "HTTP/1.", 7) != 0
        || (p[7] != '0' && p[7] != '1')
        || p[8] != ' '
        || (p[12] != ' ' && p[12] != CR && p[12] != LF))
    {
        ngx_http_ai_fetch_fail(x, 0, "no HTTP/1.1 answer");
        return NGX_ERROR;
    }

    status = ngx_atoi(p + 9, 3);

    if (status == NGX_ERROR || status < 100) {
        ngx_http_ai_fetch_fail(x, 0, "no HTTP/1.1 answer");
        return NGX_ERROR;
    }

    if (status == 101) {
        ngx_http_ai_fetch_fail(x, 0, "unexpected status 101");
        return NGX_ERROR;
    }

    x->framing = NGX_HTTP_AI_FETCH_EOF;
    x->rest = 0;
    x->persistent = (p[7] == '1');
    seen = 0;

    line = ngx_strlchr(p, end, LF) + 1;

    while (line < end) {
        p = line;

        line = ngx_strlchr(p, end, LF) + 1;
        last = line - 1;

        if (last > p && last[-1] == CR) {
            last--;
        }

        if (last == p) {
            break;
        }

        error = ngx_http_ai_fetch_line(x, p, last, &seen);

        if (error) {
            ngx_http_ai_fetch_fail(x, 0, "%s", error);
            return NGX_ERROR;
        }
    }

    b->pos = end;

    if (status < 200) {
        return NGX_OK;
    }

    if (status == 204 || status == 304) {
        x->framing = NGX_HTTP_AI_FETCH_LENGTH;
        x->rest = 0;
    }

    if (x->framing == NGX_HTTP_AI_FETCH_LENGTH
        && x->rest > (off_t) x->fetcher->conf.max_size)
    {
        ngx_http_ai_fetch_fail(x, 0, "too large answer, %O bytes", x->rest);
        return NGX_ERROR;
    }

    x->fetch.status = status;
    x->header = 1;

    return NGX_OK;
}


static const char *
ngx_http_ai_fetch_line(ngx_http_ai_fetch_ctx_t *x, u_char *p, u_char *last,
    ngx_uint_t *seen)
{
    off_t    len;
    size_t   size;
    time_t   max_age, wait;
    u_char  *value;

    value = ngx_strlchr(p, last, ':');

    if (value == NULL || value == p) {
        return "malformed header of the answer";
    }

    size = value++ - p;

    while (value < last && (*value == ' ' || *value == '\t')) {
        value++;
    }

    while (last > value && (last[-1] == ' ' || last[-1] == '\t')) {
        last--;
    }

    if (size == 14
        && ngx_strncasecmp(p, (u_char *) "Content-Length", 14) == 0)
    {
        len = ngx_atoof(value, last - value);

        if (len == NGX_ERROR || (*seen & 1)) {
            return "invalid Content-Length of the answer";
        }

        *seen |= 1;

        if (x->framing != NGX_HTTP_AI_FETCH_CHUNKED) {
            x->framing = NGX_HTTP_AI_FETCH_LENGTH;
            x->rest = len;
        }

        return NULL;
    }

    if (size == 17
        && ngx_strncasecmp(p, (u_char *) "Transfer-Encoding", 17) == 0)
    {
        if (last - value != 7
            || ngx_strncasecmp(value, (u_char *) "chunked", 7) != 0)
        {
            return "unknown Transfer-Encoding of the answer";
        }

        x->framing = NGX_HTTP_AI_FETCH_CHUNKED;
        x->rest = 0;

        return NULL;
    }

    if (size == 10
        && ngx_strncasecmp(p, (u_char *) "Connection", 10) == 0
        && ngx_strlcasestrn(value, last, (u_char *) "close", 5 - 1) != NULL)
    {
        x->persistent = 0;
        return NULL;
    }

    if (size == 16
        && ngx_strncasecmp(p, (u_char *) "Content-Encoding", 16) == 0
        && (last - value != 8
            || ngx_strncasecmp(value, (u_char *) "identity", 8) != 0))
    {
        return "the answer is compressed";
    }

    if (size == 13
        && ngx_strncasecmp(p, (u_char *) "Cache-Control", 13) == 0)
    {
        max_age = ngx_http_ai_fetch_max_age(value, last);

        if (max_age >= 0
            && (x->fetch.max_age < 0 || max_age < x->fetch.max_age))
        {
            x->fetch.max_age = max_age;
        }
    }

    if (size == 11
        && ngx_strncasecmp(p, (u_char *) "Retry-After", 11) == 0)
    {
        wait = ngx_atotm(value, last - value);

        if (wait == NGX_ERROR) {
            wait = ngx_parse_http_time(value, last - value);
            wait = (wait == NGX_ERROR) ? 0 : wait - ngx_time();
        }

        x->fetch.retry_after = ngx_max(wait, 0);
    }

    return NULL;
}


static time_t
ngx_http_ai_fetch_max_age(u_char *p, u_char *last)
{
    u_char  *start, *end;
    size_t   len;
    time_t   age, found;

    found = -1;

    while (p < last) {

        while (p < last && (*p == ' ' || *p == '\t' || *p == ',')) {
            p++;
        }

        start = p;

        while (p < last && *p != ',') {
            p++;
        }

        end = p;

        while (end > start && (end[-1] == ' ' || end[-1] == '\t')) {
            end--;
        }

        len = end - start;

        if ((len == 8 && ngx_strncasecmp(start, (u_char *) "no-store", 8) == 0)
            || (len == 8
                && ngx_strncasecmp(start, (u_char *) "no-cache", 8) == 0))
        {
            return 0;
        }

        if (len > 8
            && ngx_strncasecmp(start, (u_char *) "max-age=", 8) == 0)
        {
            age = ngx_atotm(start + 8, len - 8);

            if (age != NGX_ERROR) {
                found = age;
            }
        }
    }

    return found;
}


static ngx_int_t
ngx_http_ai_fetch_body(ngx_http_ai_fetch_ctx_t *x)
{
    size_t      n;
    ngx_buf_t  *b;

    b = x->in;

    switch (x->framing) {

    case NGX_HTTP_AI_FETCH_CHUNKED:
        return ngx_http_ai_fetch_chunked(x);

    case NGX_HTTP_AI_FETCH_LENGTH:
        n = (size_t) ngx_min((off_t) (b->last - b->pos), x->rest);

        if (ngx_http_ai_fetch_append(x, b->pos, n) != NGX_OK) {
            return NGX_ERROR;
        }

        b->pos += n;
        x->rest -= n;

        return x->rest ? NGX_AGAIN : NGX_DONE;

    default: /* NGX_HTTP_AI_FETCH_EOF */

        if (ngx_http_ai_fetch_append(x, b->pos, b->last - b->pos) != NGX_OK) {
            return NGX_ERROR;
        }

        b->pos = b->last;

        return NGX_AGAIN;
    }
}


static ngx_int_t
ngx_http_ai_fetch_chunked(ngx_http_ai_fetch_ctx_t *x)
{
    u_char      ch, c;
    size_t      n;
    ngx_buf_t  *b;

    b = x->in;

    while (b->pos < b->last) {

        ch = *b->pos;

        switch (x->chunk) {

        case NGX_HTTP_AI_CHUNK_SIZE:
            c = ch | 0x20;

            if (ch >= '0' && ch <= '9') {
                c = ch - '0';

            } else if (c >= 'a' && c <= 'f') {
                c = c - 'a' + 10;

            } else {

                if (!x->chunk_digits) {
                    goto invalid;
                }

                if (ch == CR) {
                    x->chunk = NGX_HTTP_AI_CHUNK_SIZE_LF;

                } else if (ch == ';' || ch == ' ' || ch == '\t') {
                    x->chunk = NGX_HTTP_AI_CHUNK_EXT;

                } else {
                    goto invalid;
                }

                break;
            }

            if (x->rest > (off_t) x->fetcher->conf.max_size) {
                ngx_http_ai_fetch_fail(x, 0, "too large answer");
                return NGX_ERROR;
            }

            x->rest = x->rest * 16 + c;
            x->chunk_digits = 1;
            break;

        case NGX_HTTP_AI_CHUNK_EXT:
            if (ch == CR) {
                x->chunk = NGX_HTTP_AI_CHUNK_SIZE_LF;
            }

            break;

        case NGX_HTTP_AI_CHUNK_SIZE_LF:
            if (ch != LF) {
                goto invalid;
            }

            x->chunk_digits = 0;
            x->chunk = x->rest ? NGX_HTTP_AI_CHUNK_DATA
                               : NGX_HTTP_AI_CHUNK_TRAILER;
            break;

        case NGX_HTTP_AI_CHUNK_DATA:
            n = (size_t) ngx_min((off_t) (b->last - b->pos), x->rest);

            if (ngx_http_ai_fetch_append(x, b->pos, n) != NGX_OK) {
                return NGX_ERROR;
            }

            b->pos += n;
            x->rest -= n;

            if (x->rest == 0) {
                x->chunk = NGX_HTTP_AI_CHUNK_DATA_CR;
            }

            continue;

        case NGX_HTTP_AI_CHUNK_DATA_CR:
            if (ch != CR) {
                goto invalid;
            }

            x->chunk = NGX_HTTP_AI_CHUNK_DATA_LF;
            break;

        case NGX_HTTP_AI_CHUNK_DATA_LF:
            if (ch != LF) {
                goto invalid;
            }

            x->chunk = NGX_HTTP_AI_CHUNK_SIZE;
            break;

        case NGX_HTTP_AI_CHUNK_TRAILER:
            x->chunk = (ch == CR) ? NGX_HTTP_AI_CHUNK_TRAILER_LF
                                  : NGX_HTTP_AI_CHUNK_TRAILER_TEXT;
            break;

        case NGX_HTTP_AI_CHUNK_TRAILER_TEXT:
            if (++x->trailers > NGX_HTTP_AI_FETCH_HEADER) {
                goto invalid;
            }

            if (ch == LF) {
                x->chunk = NGX_HTTP_AI_CHUNK_TRAILER;
            }

            break;

        case NGX_HTTP_AI_CHUNK_TRAILER_LF:
            if (ch != LF) {
                goto invalid;
            }

            b->pos++;

            return NGX_DONE;
        }

        b->pos++;
    }

    return NGX_AGAIN;

invalid:

    ngx_http_ai_fetch_fail(x, 0, "invalid chunked answer");

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_ai_fetch_append(ngx_http_ai_fetch_ctx_t *x, u_char *p, size_t len)
{
    size_t      size, used;
    u_char     *start;
    ngx_buf_t  *b;

    if (len == 0) {
        return NGX_OK;
    }

    b = &x->out;
    used = b->last - b->start;

    if (len > x->fetcher->conf.max_size - used) {
        ngx_http_ai_fetch_fail(x, 0, "too large answer");
        return NGX_ERROR;
    }

    if (len > (size_t) (b->end - b->last)) {

        size = ngx_max(used + len, 2 * (size_t) (b->end - b->start));

        if (x->framing == NGX_HTTP_AI_FETCH_LENGTH) {
            size = ngx_max(size, used + (size_t) x->rest);
        }

        size = ngx_min(ngx_max(size, 4096), x->fetcher->conf.max_size);

        start = ngx_pnalloc(x->pool, size);
        if (start == NULL) {
            ngx_http_ai_fetch_fail(x, 0, "no memory");
            return NGX_ERROR;
        }

        ngx_memcpy(start, b->start, used);

        if (b->start) {
            (void) ngx_pfree(x->pool, b->start);
        }

        b->start = start;
        b->last = start + used;
        b->end = start + size;
    }

    b->last = ngx_cpymem(b->last, p, len);

    return NGX_OK;
}
