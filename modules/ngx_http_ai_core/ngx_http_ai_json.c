
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_json.h"
#include "ngx_http_ai_scan.h"


#define NGX_HTTP_AI_JSON_DEPTH      128
#define NGX_HTTP_AI_JSON_MAX_DEPTH  1024
#define NGX_HTTP_AI_JSON_NODES      1000000
#define NGX_HTTP_AI_JSON_NO_NODE    ((uint32_t) -1)


typedef struct {
    uint32_t                   node;
    uint32_t                   count;
    uint32_t                   object;
} ngx_http_ai_json_frame_t;


/* a decimal number: the value is 0.DIGITS * 10^point */

typedef struct {
    u_char                    *start;     /* digits with a dot among them */
    u_char                    *end;
    int64_t                    point;
    ngx_uint_t                 negative;
} ngx_http_ai_json_decimal_t;


static ngx_int_t ngx_http_ai_json_more(ngx_http_ai_json_t *j, ngx_uint_t n,
    ngx_uint_t *cap, ngx_http_ai_json_node_t **own);
static u_char *ngx_http_ai_json_number(u_char *p, u_char *last,
    ngx_uint_t *bad);
static ngx_int_t ngx_http_ai_json_decimal(u_char *data, size_t len,
    ngx_http_ai_json_decimal_t *d);
static ngx_int_t ngx_http_ai_json_scaled(ngx_http_ai_json_decimal_t *d,
    int64_t scale, ngx_uint_t round, int64_t *value);
static u_char *ngx_http_ai_json_unescape_one(u_char *dst, u_char **src,
    u_char *last);


ngx_int_t
ngx_http_ai_json_parse(ngx_http_ai_json_t *j, u_char *data, size_t len)
{
    u_char                    *p, *last, ch;
    ngx_int_t                  rc;
    const char                *error;
    ngx_uint_t                 n, cap, max, depth, shallow, emit, escaped, bad;
    ngx_http_ai_json_node_t   *nodes, *node, *own, scratch;
    ngx_http_ai_json_frame_t  *frame,
                               stack[NGX_HTTP_AI_JSON_MAX_DEPTH + 1];

    j->nnodes = 0;
    j->error = NULL;
    j->error_offset = 0;
    j->limit = 0;

    if (len == 0) {
        j->error = "unexpected end of data";
        return NGX_DECLINED;
    }

    if (len >= NGX_MAX_UINT32_VALUE) {
        j->error = "document is too large";
        j->limit = 1;
        return NGX_DECLINED;
    }

    max = j->max_depth ? j->max_depth : NGX_HTTP_AI_JSON_DEPTH;
    max = ngx_http_ai_min(max, NGX_HTTP_AI_JSON_MAX_DEPTH);

    shallow = j->shallow ? j->shallow : NGX_HTTP_AI_JSON_MAX_DEPTH;

    p = data;
    last = data + len;

    if (len >= 3 && p[0] == 0xef && p[1] == 0xbb && p[2] == 0xbf) {
        p += 3;
    }

    n = 0;
    cap = j->nalloc;
    own = NULL;

    if (j->nodes == NULL) {
        cap = 0;

    } else if (j->max_nodes && cap > j->max_nodes) {
        cap = j->max_nodes;
    }

    nodes = j->nodes;

    depth = 0;
    emit = 1;

    frame = &stack[0];

value:

    if (p == last) {
        goto eof;
    }

    ch = *p;

    if (ch <= ' ') {
        p = ngx_http_ai_json_skip_space(p, last);

        if (p == last) {
            goto eof;
        }

        ch = *p;
    }

    if (emit) {

        if (n >= cap) {
            rc = ngx_http_ai_json_more(j, n, &cap, &own);

            if (rc == NGX_ERROR) {
                return NGX_ERROR;
            }

            if (rc == NGX_DECLINED) {
                error = "too many values";
                goto limit;
            }

            nodes = j->nodes;
        }

        node = &nodes[n++];

    } else {
        node = &scratch;
    }

    node->start = p;
    node->next = (uint32_t) n;
    node->count = 0;
    node->escaped = 0;
    node->key = 0;
    node->reserved = 0;

    switch (ch) {

    case '"':

        p++;
        node->start = p;
        escaped = 0;

        p = ngx_http_ai_scan_string(p, last, &escaped);

        if (p == last || *p != '"') {
            goto string;
        }

        node->len = (uint32_t) (p - node->start);
        node->type = NGX_HTTP_AI_JSON_STRING;
        node->escaped = (uint8_t) escaped;

        p++;
        break;

    case '{':
    case '[':

        if (depth == max) {
            error = "nesting is too deep";
            goto limit;
        }

        node->len = 0;
        node->type = (ch == '{') ? NGX_HTTP_AI_JSON_OBJECT
                                 : NGX_HTTP_AI_JSON_ARRAY;
        depth++;
        frame = &stack[depth];
        frame->node = emit ? (uint32_t) (n - 1) : NGX_HTTP_AI_JSON_NO_NODE;
        frame->count = 0;
        frame->object = (ch == '{');

        emit = (depth <= shallow);

        p++;

        if (p == last) {
            goto eof;
        }

        if (*p <= ' ') {
            p = ngx_http_ai_json_skip_space(p, last);

            if (p == last) {
                goto eof;
            }
        }

        if (*p == (frame->object ? '}' : ']')) {
            goto close;
        }

        if (frame->object) {
            goto key;
        }

        goto value;

    case 't':

        if (last - p < 4 || ngx_memcmp(p, "true", 4) != 0) {
            goto literal;
        }

        node->len = 4;
        node->type = NGX_HTTP_AI_JSON_TRUE;

        p += 4;
        break;

    case 'f':

        if (last - p < 5 || ngx_memcmp(p, "false", 5) != 0) {
            goto literal;
        }

        node->len = 5;
        node->type = NGX_HTTP_AI_JSON_FALSE;

        p += 5;
        break;

    case 'n':

        if (last - p < 4 || ngx_memcmp(p, "null", 4) != 0) {
            goto literal;
        }

        node->len = 4;
        node->type = NGX_HTTP_AI_JSON_NULL;

        p += 4;
        break;

    case '-':
    case '0':
    case '1':
    case '2':
    case '3':
    case '4':
    case '5':
    case '6':
    case '7':
    case '8':
    case '9':

        bad = 0;

        p = ngx_http_ai_json_number(p, last, &bad);

        if (bad) {
            error = "invalid number";
            goto failed;
        }

        node->len = (uint32_t) (p - node->start);
        node->type = NGX_HTTP_AI_JSON_NUMBER;

        break;

    default:
        error = "invalid value";
        goto failed;
    }

next:

    if (depth == 0) {
        goto done;
    }

    frame->count++;

    if (p == last) {
        goto eof;
    }

    ch = *p;

    if (ch <= ' ') {
        p = ngx_http_ai_json_skip_space(p, last);

        if (p == last) {
            goto eof;
        }

        ch = *p;
    }

    if (ch == ',') {
        p++;

        if (frame->object) {
            goto key;
        }

        goto value;
    }

    if (ch != (frame->object ? '}' : ']')) {
        error = frame->object ? "expected \",\" or \"}\""
                              : "expected \",\" or \"]\"";
        goto failed;
    }

close:

    p++;

    if (frame->node != NGX_HTTP_AI_JSON_NO_NODE) {
        node = &nodes[frame->node];
        node->len = (uint32_t) (p - node->start);
        node->next = (uint32_t) n;
        node->count = emit ? frame->count : 0;
    }

    depth--;
    frame = &stack[depth];
    emit = (depth <= shallow);

    goto next;

key:

    if (p == last) {
        goto eof;
    }

    if (*p <= ' ') {
        p = ngx_http_ai_json_skip_space(p, last);

        if (p == last) {
            goto eof;
        }
    }

    if (*p != '"') {
        error = "expected a member name";
        goto failed;
    }

    if (emit) {

        if (n >= cap) {
            rc = ngx_http_ai_json_more(j, n, &cap, &own);

            if (rc == NGX_ERROR) {
                return NGX_ERROR;
            }

            if (rc == NGX_DECLINED) {
                error = "too many values";
                goto limit;
            }

            nodes = j->nodes;
        }

        node = &nodes[n++];

    } else {
        node = &scratch;
    }

    p++;

    node->start = p;
    node->next = (uint32_t) n;
    node->count = 0;
    node->type = NGX_HTTP_AI_JSON_STRING;
    node->key = 1;
    node->reserved = 0;

    escaped = 0;

    p = ngx_http_ai_scan_string(p, last, &escaped);

    if (p == last || *p != '"') {
        goto string;
    }

    node->len = (uint32_t) (p - node->start);
    node->escaped = (uint8_t) escaped;

    p++;

    if (p == last) {
        goto eof;
    }

    if (*p <= ' ') {
        p = ngx_http_ai_json_skip_space(p, last);

        if (p == last) {
            goto eof;
        }
    }

    if (*p != ':') {
        error = "expected \":\"";
        goto failed;
    }

    p++;

    goto value;

done:

    p = ngx_http_ai_json_skip_space(p, last);

    if (p != last) {
        error = "unexpected data after the document";
        goto failed;
    }

    j->nnodes = n;

    return NGX_OK;

string:

    if (p == last) {
        error = "unterminated string";

    } else if (*p == '\\') {
        error = "invalid escape in a string";

    } else {
        error = "control character in a string";
    }

    goto failed;

literal:

    error = "invalid literal";
    goto failed;

eof:

    error = "unexpected end of data";
    goto failed;

limit:

    j->limit = 1;

failed:

    j->error = error;
    j->error_offset = p - data;

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_ai_json_more(ngx_http_ai_json_t *j, ngx_uint_t n, ngx_uint_t *cap,
    ngx_http_ai_json_node_t **own)
{
    ngx_uint_t                max, nalloc;
    ngx_http_ai_json_node_t  *nodes;

    max = j->max_nodes ? j->max_nodes : NGX_HTTP_AI_JSON_NODES;
    max = ngx_http_ai_min(max, NGX_MAX_INT32_VALUE);

    if (n >= max) {
        return NGX_DECLINED;
    }

    nalloc = ngx_http_ai_max(n * 2, 64);
    nalloc = ngx_http_ai_min(nalloc, max);

    nodes = ngx_palloc(j->pool, nalloc * sizeof(ngx_http_ai_json_node_t));
    if (nodes == NULL) {
        j->error = "no memory";
        return NGX_ERROR;
    }

    if (n) {
        ngx_memcpy(nodes, j->nodes, n * sizeof(ngx_http_ai_json_node_t));
    }

    /* only what this call has allocated: the first table is the caller's */

    if (*own) {
        (void) ngx_pfree(j->pool, *own);
    }

    *own = nodes;
    *cap = nalloc;

    j->nodes = nodes;
    j->nalloc = nalloc;

    return NGX_OK;
}


/* RFC 8259: [ "-" ] int [ frac ] [ exp ] */

static u_char *
ngx_http_ai_json_number(u_char *p, u_char *last, ngx_uint_t *bad)
{
    u_char  *start;

    if (p < last && *p == '-') {
        p++;
    }

    if (p == last) {
        goto invalid;
    }

    if (*p == '0') {
        p++;

    } else if (*p >= '1' && *p <= '9') {

        do {
            p++;
        } while (p < last && (u_char) (*p - '0') <= 9);

    } else {
        goto invalid;
    }

    if (p < last && *p == '.') {
        start = ++p;

        while (p < last && (u_char) (*p - '0') <= 9) {
            p++;
        }

        if (p == start) {
            goto invalid;
        }
    }

    if (p < last && (*p | 0x20) == 'e') {
        p++;

        if (p < last && (*p == '+' || *p == '-')) {
            p++;
        }

        start = p;

        while (p < last && (u_char) (*p - '0') <= 9) {
            p++;
        }

        if (p == start) {
            goto invalid;
        }
    }

    return p;

invalid:

    *bad = 1;

    return p;
}


ngx_uint_t
ngx_http_ai_json_key_unescaped(ngx_http_ai_json_node_t *node,
    const char *name, size_t len)
{
    size_t   n;
    u_char  *p, *last, *end, buf[4];

    p = node->start;
    last = p + node->len;

    while (p < last) {

        if (*p == '\\') {
            end = ngx_http_ai_json_unescape_one(buf, &p, last);

        } else {
            buf[0] = *p++;
            end = buf + 1;
        }

        n = end - buf;

        if (n > len || ngx_memcmp(buf, name, n) != 0) {
            return 0;
        }

        name += n;
        len -= n;
    }

    return len == 0;
}


ngx_uint_t
ngx_http_ai_json_get(ngx_http_ai_json_t *j, ngx_uint_t obj, const char *name,
    size_t len)
{
    ngx_uint_t                found;
    ngx_http_ai_json_node_t  *key, *last;

    found = NGX_HTTP_AI_JSON_NONE;

    if (ngx_http_ai_json_type(j, obj) != NGX_HTTP_AI_JSON_OBJECT) {
        return found;
    }

    last = &j->nodes[j->nodes[obj].next];

    for (key = &j->nodes[obj + 1]; key < last; key = &j->nodes[key[1].next]) {

        if (key->escaped) {

            if (!ngx_http_ai_json_key_unescaped(key, name, len)) {
                continue;
            }

        } else if (key->len != len || ngx_memcmp(key->start, name, len) != 0) {
            continue;
        }

        found = key + 1 - j->nodes;
    }

    return found;
}


ngx_uint_t
ngx_http_ai_json_duplicate(ngx_http_ai_json_t *j, ngx_uint_t obj,
    const char *name, size_t len)
{
    ngx_uint_t  i, n;

    n = 0;

    if (ngx_http_ai_json_type(j, obj) != NGX_HTTP_AI_JSON_OBJECT) {
        return 0;
    }

    for (i = ngx_http_ai_json_first(j, obj);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, obj, i))
    {
        n += ngx_http_ai_json_key_eq(j, i, name, len);
    }

    return n > 1;
}


ngx_str_t
ngx_http_ai_json_value(ngx_http_ai_json_t *j, ngx_uint_t n)
{
    ngx_str_t  s;

    s = ngx_http_ai_json_raw(j, n);

    if (ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_STRING) {
        s.data--;
        s.len += 2;
    }

    return s;
}


static ngx_int_t
ngx_http_ai_json_decimal(u_char *data, size_t len,
    ngx_http_ai_json_decimal_t *d)
{
    u_char      *p, *last;
    int64_t      exp;
    ngx_uint_t   bad, negative;

    last = data + len;
    bad = 0;

    p = ngx_http_ai_json_number(data, last, &bad);

    if (bad || p != last) {
        return NGX_ERROR;
    }

    p = data;

    d->negative = (*p == '-');
    p += d->negative;

    d->start = p;

    while (p < last && *p >= '0' && *p <= '9') {
        p++;
    }

    d->point = p - d->start;

    while (p < last && (*p | 0x20) != 'e') {
        p++;
    }

    d->end = p;

    if (p == last) {
        return NGX_OK;
    }

    p++;

    negative = (*p == '-');

    if (*p == '-' || *p == '+') {
        p++;
    }

    /* bounded: no text is long enough to make up for such an exponent */

    for (exp = 0; p < last && exp < 1000000000000LL; p++) {
        exp = exp * 10 + (*p - '0');
    }

    d->point += negative ? -exp : exp;

    return NGX_OK;
}


/* value * 10^scale without its sign, truncated or rounded half up */

static ngx_int_t
ngx_http_ai_json_scaled(ngx_http_ai_json_decimal_t *d, int64_t scale,
    ngx_uint_t round, int64_t *value)
{
    u_char    *p, digit;
    int64_t    n;
    uint64_t   v;

    v = 0;
    p = d->start;

    for (n = d->point + scale; n >= 0; n--) {

        if (p < d->end && *p == '.') {
            p++;
        }

        digit = (p < d->end) ? (u_char) (*p++ - '0') : 0;

        if (n == 0) {
            v += (round && digit >= 5);
            break;
        }

        if (p == d->end && digit == 0 && v == 0) {
            break;
        }

        if (v > (uint64_t) INT64_MAX / 10) {
            return NGX_ERROR;
        }

        v = v * 10 + digit;
    }

    /* one more than the maximum is the minimum without its sign */

    if (v > (uint64_t) INT64_MAX + (d->negative ? 1 : 0)) {
        return NGX_ERROR;
    }

    *value = d->negative ? (int64_t) (0 - v) : (int64_t) v;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_json_int(ngx_http_ai_json_t *j, ngx_uint_t n, int64_t *value)
{
    size_t                      i;
    int64_t                     v;
    ngx_str_t                   s;
    ngx_http_ai_json_decimal_t  d;

    if (n == NGX_HTTP_AI_JSON_NONE
        || j->nodes[n].type != NGX_HTTP_AI_JSON_NUMBER)
    {
        return NGX_DECLINED;
    }

    s = ngx_http_ai_json_raw(j, n);

    /* digits that cannot overflow, as in nearly all cases */

    v = 0;

    for (i = 0; i < s.len && i < 18; i++) {

        if ((u_char) (s.data[i] - '0') > 9) {
            break;
        }

        v = v * 10 + (s.data[i] - '0');
    }

    if (i == s.len) {
        *value = v;
        return NGX_OK;
    }

    if (ngx_http_ai_json_decimal(s.data, s.len, &d) != NGX_OK
        || ngx_http_ai_json_scaled(&d, 0, 0, value) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_json_fixed(ngx_str_t *text, ngx_uint_t scale, int64_t *value)
{
    ngx_http_ai_json_decimal_t  d;

    if (text->len == 0
        || ngx_http_ai_json_decimal(text->data, text->len, &d) != NGX_OK
        || d.negative)
    {
        return NGX_ERROR;
    }

    return ngx_http_ai_json_scaled(&d, (int64_t) scale, 1, value);
}


static ngx_inline ngx_uint_t
ngx_http_ai_json_hex4(u_char *p)
{
    u_char      ch;
    ngx_uint_t  i, n;

    n = 0;

    for (i = 0; i < 4; i++) {
        ch = (u_char) (p[i] | 0x20);
        n = n * 16 + ((ch <= '9') ? ch - '0' : ch - 'a' + 10);
    }

    return n;
}


/*
 * One escape at *src, at most 4 bytes of result and never more than were
 * taken.  What is not an escape is copied: raw text may come from outside
 * of the parser.
 */

static u_char *
ngx_http_ai_json_unescape_one(u_char *dst, u_char **src, u_char *last)
{
    u_char      *p;
    size_t       n;
    ngx_uint_t   u, low;

    p = *src;

    n = ngx_http_ai_scan_escape(p, last);

    if (n == 0) {
        *dst++ = *p;
        *src = p + 1;
        return dst;
    }

    *src = p + n;

    if (n == 2) {

        switch (p[1]) {

        case 'n':
            *dst++ = '\n';
            break;

        case 't':
            *dst++ = '\t';
            break;

        case 'r':
            *dst++ = '\r';
            break;

        case 'b':
            *dst++ = '\b';
            break;

        case 'f':
            *dst++ = '\f';
            break;

        default:
            *dst++ = p[1];
            break;
        }

        return dst;
    }

    u = ngx_http_ai_json_hex4(p + 2);

    if (u >= 0xd800 && u <= 0xdfff) {

        p += 6;

        if (u <= 0xdbff
            && last - p >= 6 && p[0] == '\\' && p[1] == 'u'
            && ngx_http_ai_scan_escape(p, last) == 6)
        {
            low = ngx_http_ai_json_hex4(p + 2);

            if (low >= 0xdc00 && low <= 0xdfff) {
                u = 0x10000 + ((u - 0xd800) << 10) + (low - 0xdc00);

                *dst++ = (u_char) (0xf0 | (u >> 18));
                *dst++ = (u_char) (0x80 | ((u >> 12) & 0x3f));
                *dst++ = (u_char) (0x80 | ((u >> 6) & 0x3f));
                *dst++ = (u_char) (0x80 | (u & 0x3f));

                *src = p + 6;
                return dst;
            }
        }

        u = 0xfffd;
    }

    if (u < 0x80) {
        *dst++ = (u_char) u;

    } else if (u < 0x800) {
        *dst++ = (u_char) (0xc0 | (u >> 6));
        *dst++ = (u_char) (0x80 | (u & 0x3f));

    } else {
        *dst++ = (u_char) (0xe0 | (u >> 12));
        *dst++ = (u_char) (0x80 | ((u >> 6) & 0x3f));
        *dst++ = (u_char) (0x80 | (u & 0x3f));
    }

    return dst;
}


u_char *
ngx_http_ai_json_unescape(u_char *dst, ngx_str_t *raw)
{
    u_char  *p, *last, *end;

    if (raw->len == 0) {
        return dst;
    }

    p = raw->data;
    last = p + raw->len;

    while (p < last) {

        end = memchr(p, '\\', last - p);

        if (end == NULL) {
            end = last;
        }

        if (end != p) {
            dst = ngx_movemem(dst, p, end - p);
            p = end;
        }

        /* escapes come in groups */

        while (p < last && *p == '\\') {
            dst = ngx_http_ai_json_unescape_one(dst, &p, last);
        }
    }

    return dst;
}


ngx_int_t
ngx_http_ai_json_unescape_str(ngx_pool_t *pool, ngx_str_t *raw,
    ngx_str_t *out)
{
    u_char  *p;

    if (raw->len == 0 || memchr(raw->data, '\\', raw->len) == NULL) {
        *out = *raw;
        return NGX_OK;
    }

    p = ngx_pnalloc(pool, raw->len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    out->len = ngx_http_ai_json_unescape(p, raw) - p;
    out->data = p;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_out_init(ngx_http_ai_out_t *out, ngx_pool_t *pool, size_t size)
{
    ngx_memzero(out, sizeof(ngx_http_ai_out_t));

    out->pool = pool;

    if (size == 0) {
        return NGX_OK;
    }

    out->start = ngx_pnalloc(pool, size);
    if (out->start == NULL) {
        out->failed = 1;
        return NGX_ERROR;
    }

    out->last = out->start;
    out->end = out->start + size;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_out_grow(ngx_http_ai_out_t *out, size_t n)
{
    size_t   size, used;
    u_char  *p;

    if (out->failed) {
        return NGX_ERROR;
    }

    if ((size_t) (out->end - out->last) >= n) {
        return NGX_OK;
    }

    used = out->last - out->start;
    size = (out->end - out->start) * 2;

    if (size < used + n) {
        size = used + n;
    }

    if (size < 256) {
        size = 256;
    }

    p = ngx_pnalloc(out->pool, size);
    if (p == NULL) {
        out->failed = 1;
        return NGX_ERROR;
    }

    if (used) {
        ngx_memcpy(p, out->start, used);
    }

    if (out->start) {
        (void) ngx_pfree(out->pool, out->start);
    }

    out->start = p;
    out->last = p + used;
    out->end = p + size;

    return NGX_OK;
}


void
ngx_http_ai_out_int(ngx_http_ai_out_t *out, int64_t n)
{
    u_char    buf[NGX_INT64_LEN], *p;
    uint64_t  u;

    u = (n < 0) ? 0 - (uint64_t) n : (uint64_t) n;
    p = ngx_http_ai_digits(buf + NGX_INT64_LEN, u);

    if (n < 0) {
        *--p = '-';
    }

    ngx_http_ai_out_mem(out, p, buf + NGX_INT64_LEN - p);
}


u_char *
ngx_http_ai_digits(u_char *last, uint64_t n)
{
    uint32_t  w, x;
    uint64_t  k;

    static const char  pairs[] =
        "00010203040506070809101112131415161718192021222324"
        "25262728293031323334353637383940414243444546474849"
        "50515253545556575859606162636465666768697071727374"
        "75767778798081828384858687888990919293949596979899";

    while (n > 0xffffffff) {
        k = n / 100;
        last -= 2;
        ngx_memcpy(last, &pairs[2 * (n - k * 100)], 2);
        n = k;
    }

    /* cheaper in 32 bits */

    w = (uint32_t) n;

    while (w >= 10) {
        x = w / 100;
        last -= 2;
        ngx_memcpy(last, &pairs[2 * (w - x * 100)], 2);

        if (x == 0) {
            return last;
        }

        w = x;
    }

    *--last = (u_char) ('0' + w);

    return last;
}


void
ngx_http_ai_out_dollars(ngx_http_ai_out_t *out, int64_t nano)
{
    u_char  buf[NGX_HTTP_AI_DOLLARS_LEN];

    ngx_http_ai_out_mem(out, buf, ngx_http_ai_dollars(buf, nano) - buf);
}


u_char *
ngx_http_ai_dollars(u_char *p, int64_t nano)
{
    return ngx_sprintf(p, "%L.%09L", nano / 1000000000, nano % 1000000000);
}


size_t
ngx_http_ai_json_utf8(u_char *p, u_char *last, ngx_uint_t *valid)
{
    u_char  ch, low, high;
    size_t  i, n;

    ch = *p;
    low = 0x80;
    high = 0xbf;

    *valid = 0;

    if (ch < 0x80) {
        *valid = 1;
        return 1;
    }

    if (ch >= 0xc2 && ch <= 0xdf) {
        n = 2;

    } else if (ch >= 0xe0 && ch <= 0xef) {
        n = 3;

        if (ch == 0xe0) {
            low = 0xa0;

        } else if (ch == 0xed) {
            high = 0x9f;
        }

    } else if (ch >= 0xf0 && ch <= 0xf4) {
        n = 4;

        if (ch == 0xf0) {
            low = 0x90;

        } else if (ch == 0xf4) {
            high = 0x8f;
        }

    } else {
        return 1;
    }

    for (i = 1; i < n; i++) {

        if (p + i == last || p[i] < low || p[i] > high) {
            return i;
        }

        low = 0x80;
        high = 0xbf;
    }

    *valid = 1;

    return n;
}


void
ngx_http_ai_out_utf8(ngx_http_ai_out_t *out, u_char *p, u_char *last)
{
    u_char      *start;
    size_t       n;
    uint64_t     word;
    ngx_uint_t   valid;

    start = p;

    while (p < last) {

        if (*p < 0x80) {

            if (last - p >= 8) {
                ngx_memcpy(&word, p, 8);

                if ((word & 0x8080808080808080ULL) == 0) {
                    p += 8;
                    continue;
                }
            }

            p++;
            continue;
        }

        n = ngx_http_ai_json_utf8(p, last, &valid);

        if (!valid) {
            ngx_http_ai_out_mem(out, start, p - start);
            ngx_http_ai_out_lit(out, "\xef\xbf\xbd");
            start = p + n;
        }

        p += n;
    }

    ngx_http_ai_out_mem(out, start, p - start);
}


static void
ngx_http_ai_out_special(ngx_http_ai_out_t *out, u_char ch)
{
    u_char         buf[6];
    static u_char  hex[] = "0123456789abcdef";

    buf[0] = '\\';

    switch (ch) {

    case '"':
    case '\\':
        buf[1] = ch;
        break;

    case '\n':
        buf[1] = 'n';
        break;

    case '\r':
        buf[1] = 'r';
        break;

    case '\t':
        buf[1] = 't';
        break;

    case '\b':
        buf[1] = 'b';
        break;

    case '\f':
        buf[1] = 'f';
        break;

    default:
        buf[1] = 'u';
        buf[2] = '0';
        buf[3] = '0';
        buf[4] = hex[ch >> 4];
        buf[5] = hex[ch & 0xf];

        ngx_http_ai_out_mem(out, buf, 6);
        return;
    }

    ngx_http_ai_out_mem(out, buf, 2);
}


void
ngx_http_ai_out_escaped(ngx_http_ai_out_t *out, u_char *data, size_t len)
{
    u_char  *p, *last;

    if (len == 0) {
        return;
    }

    last = data + len;

    while (data < last) {
        p = ngx_http_ai_scan_plain(data, last);

        ngx_http_ai_out_utf8(out, data, p);

        while (p < last && (*p < 0x20 || *p == '"' || *p == '\\')) {
            ngx_http_ai_out_special(out, *p++);
        }

        data = p;
    }
}


void
ngx_http_ai_out_unescaped(ngx_http_ai_out_t *out, ngx_str_t *raw)
{
    if (raw->len == 0
        || ((size_t) (out->end - out->last) < raw->len
            && ngx_http_ai_out_grow(out, raw->len) != NGX_OK))
    {
        return;
    }

    out->last = ngx_http_ai_json_unescape(out->last, raw);
}


void
ngx_http_ai_out_reescaped(ngx_http_ai_out_t *out, ngx_str_t *json)
{
    u_char  *p, *data, *last;

    if (json->len == 0) {
        return;
    }

    data = json->data;
    last = data + json->len;

    while (data < last) {
        p = ngx_http_ai_scan_plain(data, last);

        ngx_http_ai_out_mem(out, data, p - data);

        while (p < last && (*p < 0x20 || *p == '"' || *p == '\\')) {
            ngx_http_ai_out_special(out, *p++);
        }

        data = p;
    }
}
