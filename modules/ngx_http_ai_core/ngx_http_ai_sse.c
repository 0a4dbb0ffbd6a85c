
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_sse.h"
#include "ngx_http_ai_scan.h"


#define NGX_HTTP_AI_SSE_MAX   (1024 * 1024)
#define NGX_HTTP_AI_SSE_SIZE  1024


static u_char *ngx_http_ai_sse_end(ngx_http_ai_sse_t *sse, u_char *p,
    u_char *last, ngx_uint_t bol, ngx_uint_t cr);
static ngx_int_t ngx_http_ai_sse_keep(ngx_http_ai_sse_t *sse, u_char *p,
    u_char *last);
static ngx_int_t ngx_http_ai_sse_event(ngx_http_ai_sse_t *sse, u_char *p,
    size_t len, ngx_http_ai_sse_event_t *ev);
static ngx_int_t ngx_http_ai_sse_join(ngx_http_ai_sse_t *sse,
    ngx_http_ai_sse_event_t *ev, u_char *p, size_t len);


ngx_int_t
ngx_http_ai_sse_read(ngx_http_ai_sse_t *sse, u_char **pos, u_char *last,
    ngx_http_ai_sse_event_t *ev)
{
    size_t       max;
    u_char      *p, *end, ch;
    ngx_int_t    rc;
    ngx_uint_t   bol, cr;

    static const u_char  bom[] = { 0xef, 0xbb, 0xbf };

    if (sse->deliver) {
        sse->deliver = 0;
        sse->len = 0;
    }

    if (*pos == last) {
        return NGX_AGAIN;
    }

    if (sse->skip_lf) {
        sse->skip_lf = 0;

        if (**pos == LF) {
            ngx_memzero(ev, sizeof(ngx_http_ai_sse_event_t));

            ev->raw.data = (*pos)++;
            ev->raw.len = 1;
            ev->in_place = 1;
            ev->tail = 1;

            return NGX_OK;
        }
    }

    max = sse->max ? sse->max : NGX_HTTP_AI_SSE_MAX;

    p = *pos;
    bol = 1;
    cr = 0;

    if (!sse->started) {

        /* a BOM may be cut as well */

        while (p < last && sse->bom < 3 && *p == bom[sse->bom]) {
            sse->bom++;
            p++;
        }

        if (p == last && sse->bom < 3) {

            if (ngx_http_ai_sse_keep(sse, *pos, last) != NGX_OK) {
                return NGX_ERROR;
            }

            *pos = last;

            return NGX_AGAIN;
        }

        sse->started = 1;

        if (sse->bom < 3) {
            bol = (sse->bom == 0);
            sse->bom = 0;
        }

    } else if (sse->len > (sse->bom ? 3 : 0)) {
        ch = sse->buf[sse->len - 1];

        cr = (ch == CR);
        bol = (cr || ch == LF);
    }

    end = ngx_http_ai_sse_end(sse, p, last, bol, cr);

    p = *pos;

    if (end == NULL) {

        if ((last - p) + sse->len > max) {
            return NGX_DECLINED;
        }

        if (ngx_http_ai_sse_keep(sse, p, last) != NGX_OK) {
            return NGX_ERROR;
        }

        *pos = last;

        return NGX_AGAIN;
    }

    if ((end - p) + sse->len > max) {
        return NGX_DECLINED;
    }

    if (sse->len == 0) {
        rc = ngx_http_ai_sse_event(sse, p, end - p, ev);
        ev->in_place = 1;

    } else {

        if (ngx_http_ai_sse_keep(sse, p, end) != NGX_OK) {
            return NGX_ERROR;
        }

        rc = ngx_http_ai_sse_event(sse, sse->buf, sse->len, ev);
        sse->deliver = 1;
    }

    sse->bom = 0;
    *pos = end;

    return rc;
}


ngx_int_t
ngx_http_ai_sse_finish(ngx_http_ai_sse_t *sse, ngx_http_ai_sse_event_t *ev)
{
    ngx_int_t  rc;

    if (sse->deliver) {
        sse->deliver = 0;
        sse->len = 0;
    }

    if (sse->len == 0) {
        return NGX_AGAIN;
    }

    rc = ngx_http_ai_sse_event(sse, sse->buf, sse->len, ev);

    sse->deliver = 1;
    sse->started = 1;
    sse->bom = 0;

    return rc;
}


/*
 * The end of the block, after its blank line, or NULL.  bol: a line begins
 * at p; cr: a CR is before p, of which an LF may be the second half.
 */

static u_char *
ngx_http_ai_sse_end(ngx_http_ai_sse_t *sse, u_char *p, u_char *last,
    ngx_uint_t bol, ngx_uint_t cr)
{
    u_char  ch;

    while (p < last) {

        ch = *p;

        if (cr && ch == LF) {
            cr = 0;
            p++;
            continue;
        }

        if (bol && (ch == LF || ch == CR)) {
            p++;

            if (ch == CR) {

                if (p == last) {
                    sse->skip_lf = 1;

                } else if (*p == LF) {
                    p++;
                }
            }

            return p;
        }

        p = ngx_http_ai_scan_eol(p, last);

        if (p == last) {
            break;
        }

        cr = (*p++ == CR);
        bol = 1;
    }

    return NULL;
}


static ngx_int_t
ngx_http_ai_sse_keep(ngx_http_ai_sse_t *sse, u_char *p, u_char *last)
{
    size_t   len, size;
    u_char  *buf;

    len = last - p;

    if (sse->size - sse->len < len) {
        size = ngx_http_ai_max(sse->size * 2, NGX_HTTP_AI_SSE_SIZE);
        size = ngx_http_ai_max(size, sse->len + len);

        buf = ngx_palloc(sse->pool, size);
        if (buf == NULL) {
            return NGX_ERROR;
        }

        if (sse->len) {
            ngx_memcpy(buf, sse->buf, sse->len);
        }

        if (sse->buf) {
            (void) ngx_pfree(sse->pool, sse->buf);
        }

        sse->buf = buf;
        sse->size = size;
    }

    ngx_memcpy(sse->buf + sse->len, p, len);
    sse->len += len;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_sse_event(ngx_http_ai_sse_t *sse, u_char *p, size_t len,
    ngx_http_ai_sse_event_t *ev)
{
    size_t   n;
    u_char  *last, *end, *value;

    ngx_memzero(ev, sizeof(ngx_http_ai_sse_event_t));

    ev->raw.data = p;
    ev->raw.len = len;

    last = p + len;

    if (sse->bom == 3) {
        p += 3;
    }

    while (p < last) {

        end = ngx_http_ai_scan_eol(p, last);

        /* the fields that matter have names of 4 and 5 bytes */

        if (end - p >= 4 && ngx_memcmp(p, "data", 4) == 0
            && (end - p == 4 || p[4] == ':'))
        {
            n = 4;

        } else if (end - p >= 5 && ngx_memcmp(p, "event", 5) == 0
                   && (end - p == 5 || p[5] == ':'))
        {
            n = 5;

        } else {
            n = 0;
        }

        if (n != 0) {
            value = p + n;

            if (value < end) {
                value++;
            }

            if (value < end && *value == ' ') {
                value++;
            }

            if (n == 5) {
                ev->name.data = value;
                ev->name.len = end - value;

            } else if (!ev->has_data) {
                ev->has_data = 1;
                ev->data.data = value;
                ev->data.len = end - value;

            } else if (ngx_http_ai_sse_join(sse, ev, value, end - value)
                       != NGX_OK)
            {
                return NGX_ERROR;
            }
        }

        p = end;

        if (p < last && *p == CR) {
            p++;

            if (p < last && *p == LF) {
                p++;
            }

        } else if (p < last) {
            p++;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_sse_join(ngx_http_ai_sse_t *sse, ngx_http_ai_sse_event_t *ev,
    u_char *p, size_t len)
{
    u_char  *buf;

    if (ev->data.data != sse->join) {

        /* no joined data is longer than its block */

        if (sse->join_size < ev->raw.len) {
            buf = ngx_palloc(sse->pool, ev->raw.len);
            if (buf == NULL) {
                return NGX_ERROR;
            }

            if (sse->join) {
                (void) ngx_pfree(sse->pool, sse->join);
            }

            sse->join = buf;
            sse->join_size = ev->raw.len;
        }

        ngx_memcpy(sse->join, ev->data.data, ev->data.len);
        ev->data.data = sse->join;
    }

    buf = sse->join + ev->data.len;

    *buf++ = LF;

    if (len) {
        ngx_memcpy(buf, p, len);
    }

    ev->data.len += 1 + len;

    return NGX_OK;
}
