
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * What the plain C parts take from nginx, without nginx: each allocation of a
 * pool is one of malloc(), so that sanitizers see its bounds.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "stub.h"


static u_char *stub_sprintf_num(u_char *buf, u_char *last, uint64_t n,
    u_char zero, ngx_uint_t hex, ngx_uint_t width);
static ngx_int_t stub_decode_base64(ngx_str_t *dst, ngx_str_t *src,
    ngx_uint_t url);


ngx_uint_t  stub_fail;
ngx_uint_t  stub_alive;

volatile ngx_cycle_t  *ngx_cycle;
ngx_uint_t             ngx_pagesize = 4096;


static void *
stub_malloc(size_t size)
{
    if (stub_fail && --stub_fail == 0) {
        return NULL;
    }

    return malloc(size ? size : 1);
}


void *
ngx_alloc(size_t size, ngx_log_t *log)
{
    return stub_malloc(size);
}


void *
ngx_calloc(size_t size, ngx_log_t *log)
{
    void  *p;

    p = stub_malloc(size);
    if (p) {
        ngx_memzero(p, size);
    }

    return p;
}


ngx_pool_t *
ngx_create_pool(size_t size, ngx_log_t *log)
{
    ngx_pool_t  *pool;

    pool = malloc(sizeof(ngx_pool_t));
    if (pool) {
        ngx_memzero(pool, sizeof(ngx_pool_t));
        pool->log = log;
        pool->max = size;
    }

    return pool;
}


void
ngx_destroy_pool(ngx_pool_t *pool)
{
    ngx_pool_cleanup_t  *c;

    for (c = pool->cleanup; c; c = c->next) {
        if (c->handler) {
            c->handler(c->data);
        }
    }

    ngx_reset_pool(pool);
    free(pool);
}


void
ngx_reset_pool(ngx_pool_t *pool)
{
    ngx_pool_large_t  *l, *next;

    for (l = pool->large; l; l = next) {
        next = l->next;

        if (l->alloc) {
            stub_alive--;
        }

        free(l->alloc);
        free(l);
    }

    pool->large = NULL;
}


void *
ngx_palloc(ngx_pool_t *pool, size_t size)
{
    void              *p;
    ngx_pool_large_t  *l;

    p = stub_malloc(size);
    if (p == NULL) {
        return NULL;
    }

    l = malloc(sizeof(ngx_pool_large_t));
    if (l == NULL) {
        free(p);
        return NULL;
    }

    l->alloc = p;
    l->next = pool->large;
    pool->large = l;

    stub_alive++;

    return p;
}


void *
ngx_pnalloc(ngx_pool_t *pool, size_t size)
{
    return ngx_palloc(pool, size);
}


void *
ngx_pcalloc(ngx_pool_t *pool, size_t size)
{
    void  *p;

    p = ngx_palloc(pool, size);
    if (p) {
        ngx_memzero(p, size);
    }

    return p;
}


void *
ngx_pmemalign(ngx_pool_t *pool, size_t size, size_t alignment)
{
    return ngx_palloc(pool, size);
}


ngx_int_t
ngx_pfree(ngx_pool_t *pool, void *p)
{
    ngx_pool_large_t  *l, **ll;

    for (ll = &pool->large; *ll; ll = &(*ll)->next) {
        l = *ll;

        if (l->alloc == p) {
            *ll = l->next;
            free(p);
            free(l);
            stub_alive--;
            return NGX_OK;
        }
    }

    return NGX_DECLINED;
}


ngx_pool_cleanup_t *
ngx_pool_cleanup_add(ngx_pool_t *p, size_t size)
{
    ngx_pool_cleanup_t  *c;

    c = ngx_palloc(p, sizeof(ngx_pool_cleanup_t));
    if (c == NULL) {
        return NULL;
    }

    c->data = NULL;

    if (size) {
        c->data = ngx_palloc(p, size);
        if (c->data == NULL) {
            return NULL;
        }
    }

    c->handler = NULL;
    c->next = p->cleanup;
    p->cleanup = c;

    return c;
}


ngx_array_t *
ngx_array_create(ngx_pool_t *p, ngx_uint_t n, size_t size)
{
    ngx_array_t  *a;

    a = ngx_palloc(p, sizeof(ngx_array_t));
    if (a == NULL || ngx_array_init(a, p, n, size) != NGX_OK) {
        return NULL;
    }

    return a;
}


void *
ngx_array_push(ngx_array_t *a)
{
    return ngx_array_push_n(a, 1);
}


void *
ngx_array_push_n(ngx_array_t *a, ngx_uint_t n)
{
    void        *p;
    ngx_uint_t   nalloc;

    if (a->nelts + n > a->nalloc) {
        nalloc = 2 * (n >= a->nalloc ? n : a->nalloc);

        p = ngx_palloc(a->pool, nalloc * a->size);
        if (p == NULL) {
            return NULL;
        }

        ngx_memcpy(p, a->elts, a->nelts * a->size);

        a->elts = p;
        a->nalloc = nalloc;
    }

    p = (u_char *) a->elts + a->size * a->nelts;
    a->nelts += n;

    return p;
}


u_char *
ngx_cpystrn(u_char *dst, u_char *src, size_t n)
{
    if (n == 0) {
        return dst;
    }

    while (--n) {
        *dst = *src;

        if (*dst == '\0') {
            return dst;
        }

        dst++;
        src++;
    }

    *dst = '\0';

    return dst;
}


u_char *
ngx_pstrdup(ngx_pool_t *pool, ngx_str_t *src)
{
    u_char  *dst;

    dst = ngx_pnalloc(pool, src->len);
    if (dst && src->len) {
        ngx_memcpy(dst, src->data, src->len);
    }

    return dst;
}


void
ngx_strlow(u_char *dst, u_char *src, size_t n)
{
    while (n--) {
        *dst++ = ngx_tolower(*src);
        src++;
    }
}


ngx_int_t
ngx_strcasecmp(u_char *s1, u_char *s2)
{
    return strcasecmp((char *) s1, (char *) s2);
}


ngx_int_t
ngx_strncasecmp(u_char *s1, u_char *s2, size_t n)
{
    return strncasecmp((char *) s1, (char *) s2, n);
}


u_char *
ngx_strnstr(u_char *s1, char *s2, size_t len)
{
    size_t  n;

    n = strlen(s2);

    for ( /* void */ ; len >= n && *s1; s1++, len--) {
        if (strncmp((char *) s1, s2, n) == 0) {
            return s1;
        }
    }

    return NULL;
}


u_char *
ngx_strstrn(u_char *s1, char *s2, size_t n)
{
    for ( /* void */ ; *s1; s1++) {
        if (strncmp((char *) s1, s2, n + 1) == 0) {
            return s1;
        }
    }

    return NULL;
}


u_char *
ngx_strcasestrn(u_char *s1, char *s2, size_t n)
{
    for ( /* void */ ; *s1; s1++) {
        if (strncasecmp((char *) s1, s2, n + 1) == 0) {
            return s1;
        }
    }

    return NULL;
}


u_char *
ngx_strlcasestrn(u_char *s1, u_char *last, u_char *s2, size_t n)
{
    for ( /* void */ ; s1 + n < last; s1++) {
        if (strncasecmp((char *) s1, (char *) s2, n + 1) == 0) {
            return s1;
        }
    }

    return NULL;
}


ngx_int_t
ngx_memn2cmp(u_char *s1, u_char *s2, size_t n1, size_t n2)
{
    ngx_int_t  m;

    m = memcmp(s1, s2, n1 < n2 ? n1 : n2);

    return m ? m : (ngx_int_t) n1 - (ngx_int_t) n2;
}


ngx_int_t
ngx_atoi(u_char *line, size_t n)
{
    ngx_int_t  value;

    if (n == 0) {
        return NGX_ERROR;
    }

    for (value = 0; n--; line++) {
        if (*line < '0' || *line > '9'
            || value > (NGX_MAX_INT_T_VALUE - (*line - '0')) / 10)
        {
            return NGX_ERROR;
        }

        value = value * 10 + (*line - '0');
    }

    return value;
}


off_t
ngx_atoof(u_char *line, size_t n)
{
    return (off_t) ngx_atoi(line, n);
}


time_t
ngx_atotm(u_char *line, size_t n)
{
    return (time_t) ngx_atoi(line, n);
}


ssize_t
ngx_atosz(u_char *line, size_t n)
{
    return (ssize_t) ngx_atoi(line, n);
}


ngx_int_t
ngx_atofp(u_char *line, size_t n, size_t point)
{
    ngx_int_t   value;
    ngx_uint_t  dot;

    if (n == 0) {
        return NGX_ERROR;
    }

    dot = 0;

    for (value = 0; n--; line++) {

        if (point == 0) {
            return NGX_ERROR;
        }

        if (*line == '.') {
            if (dot) {
                return NGX_ERROR;
            }

            dot = 1;
            continue;
        }

        if (*line < '0' || *line > '9') {
            return NGX_ERROR;
        }

        value = value * 10 + (*line - '0');
        point -= dot;
    }

    while (point--) {
        value = value * 10;
    }

    return value;
}


ngx_int_t
ngx_hextoi(u_char *line, size_t n)
{
    u_char     ch;
    ngx_int_t  value;

    if (n == 0 || n > 15) {
        return NGX_ERROR;
    }

    for (value = 0; n--; line++) {
        ch = *line;

        if (ch >= '0' && ch <= '9') {
            value = value * 16 + (ch - '0');

        } else if ((ch | 0x20) >= 'a' && (ch | 0x20) <= 'f') {
            value = value * 16 + ((ch | 0x20) - 'a' + 10);

        } else {
            return NGX_ERROR;
        }
    }

    return value;
}


u_char *
ngx_hex_dump(u_char *dst, u_char *src, size_t len)
{
    static u_char  hex[] = "0123456789abcdef";

    while (len--) {
        *dst++ = hex[*src >> 4];
        *dst++ = hex[*src++ & 0xf];
    }

    return dst;
}


static void
stub_encode_base64(ngx_str_t *dst, ngx_str_t *src, const char *basis,
    ngx_uint_t padding)
{
    u_char    *d, *s;
    size_t     len;
    uint32_t   v;

    len = src->len;
    s = src->data;
    d = dst->data;

    while (len > 2) {
        v = ((uint32_t) s[0] << 16) | ((uint32_t) s[1] << 8) | s[2];

        *d++ = basis[v >> 18];
        *d++ = basis[(v >> 12) & 0x3f];
        *d++ = basis[(v >> 6) & 0x3f];
        *d++ = basis[v & 0x3f];

        s += 3;
        len -= 3;
    }

    if (len) {
        v = ((uint32_t) s[0] << 16) | (len == 2 ? (uint32_t) s[1] << 8 : 0);

        *d++ = basis[v >> 18];
        *d++ = basis[(v >> 12) & 0x3f];

        if (len == 2) {
            *d++ = basis[(v >> 6) & 0x3f];

        } else if (padding) {
            *d++ = '=';
        }

        if (padding) {
            *d++ = '=';
        }
    }

    dst->len = d - dst->data;
}


void
ngx_encode_base64(ngx_str_t *dst, ngx_str_t *src)
{
    stub_encode_base64(dst, src, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                       "abcdefghijklmnopqrstuvwxyz0123456789+/", 1);
}


void
ngx_encode_base64url(ngx_str_t *dst, ngx_str_t *src)
{
    stub_encode_base64(dst, src, "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                       "abcdefghijklmnopqrstuvwxyz0123456789-_", 0);
}


static ngx_int_t
stub_decode_base64(ngx_str_t *dst, ngx_str_t *src, ngx_uint_t url)
{
    u_char      *d, ch;
    size_t       i, n;
    uint32_t     v;
    ngx_uint_t   bits, six;

    d = dst->data;
    v = 0;
    bits = 0;
    n = 0;

    for (i = 0; i < src->len; i++) {
        ch = src->data[i];

        if (ch == '=') {
            break;
        }

        if (ch >= 'A' && ch <= 'Z') {
            six = ch - 'A';

        } else if (ch >= 'a' && ch <= 'z') {
            six = ch - 'a' + 26;

        } else if (ch >= '0' && ch <= '9') {
            six = ch - '0' + 52;

        } else if (ch == (url ? '-' : '+')) {
            six = 62;

        } else if (ch == (url ? '_' : '/')) {
            six = 63;

        } else {
            return NGX_ERROR;
        }

        v = (v << 6) | (uint32_t) six;
        bits += 6;
        n++;

        if (bits >= 8) {
            bits -= 8;
            *d++ = (u_char) (v >> bits);
        }
    }

    if (n % 4 == 1) {
        return NGX_ERROR;
    }

    dst->len = d - dst->data;

    return NGX_OK;
}


ngx_int_t
ngx_decode_base64(ngx_str_t *dst, ngx_str_t *src)
{
    return stub_decode_base64(dst, src, 0);
}


ngx_int_t
ngx_decode_base64url(ngx_str_t *dst, ngx_str_t *src)
{
    return stub_decode_base64(dst, src, 1);
}


void
ngx_gmtime(time_t t, ngx_tm_t *tp)
{
    (void) gmtime_r(&t, tp);

    tp->ngx_tm_mon++;
    tp->ngx_tm_year += 1900;
}


/* IMF-fixdate, RFC 850 and asctime() */

time_t
ngx_parse_http_time(u_char *value, size_t len)
{
    int                 day, year, hour, min, sec, i;
    char                buf[64], month[4], extra[12];
    int64_t             days;
    static const char  *months = "JanFebMarAprMayJunJulAugSepOctNovDec";
    static const int    before[] = { 0, 31, 59, 90, 120, 151, 181, 212, 243,
                                     273, 304, 334 };

    if (len >= sizeof(buf)) {
        return NGX_ERROR;
    }

    ngx_memcpy(buf, value, len);
    buf[len] = '\0';

    if (sscanf(buf, "%*[A-Za-z], %2d %3s %4d %2d:%2d:%2d",
               &day, month, &year, &hour, &min, &sec)
        != 6
        && sscanf(buf, "%*[A-Za-z], %2d-%3[A-Za-z]-%2d %2d:%2d:%2d",
                  &day, month, &year, &hour, &min, &sec)
           != 6
        && sscanf(buf, "%3[A-Za-z] %3s %2d %2d:%2d:%2d %4d",
                  extra, month, &day, &hour, &min, &sec, &year)
           != 7)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < 12; i++) {
        if (strncmp(months + i * 3, month, 3) == 0) {
            break;
        }
    }

    if (i == 12 || day < 1 || day > 31 || hour > 23 || min > 59 || sec > 59) {
        return NGX_ERROR;
    }

    if (year < 100) {
        year += (year < 70) ? 2000 : 1900;
    }

    days = (int64_t) (year - 1970) * 365
           + (year - 1 - 1968) / 4 - (year - 1 - 1900) / 100
           + (year - 1 - 1600) / 400
           + before[i] + day - 1;

    if (i > 1 && year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)) {
        days++;
    }

    return (time_t) (days * 86400 + hour * 3600 + min * 60 + sec);
}


u_char * ngx_cdecl
ngx_sprintf(u_char *buf, const char *fmt, ...)
{
    u_char   *p;
    va_list   args;

    va_start(args, fmt);
    p = ngx_vslprintf(buf, (u_char *) -1, fmt, args);
    va_end(args);

    return p;
}


u_char * ngx_cdecl
ngx_snprintf(u_char *buf, size_t max, const char *fmt, ...)
{
    u_char   *p;
    va_list   args;

    va_start(args, fmt);
    p = ngx_vslprintf(buf, buf + max, fmt, args);
    va_end(args);

    return p;
}


u_char * ngx_cdecl
ngx_slprintf(u_char *buf, u_char *last, const char *fmt, ...)
{
    u_char   *p;
    va_list   args;

    va_start(args, fmt);
    p = ngx_vslprintf(buf, last, fmt, args);
    va_end(args);

    return p;
}


static u_char *
stub_sprintf_str(u_char *buf, u_char *last, u_char *src, size_t len)
{
    if (len > (size_t) (last - buf)) {
        len = last - buf;
    }

    if (len) {
        ngx_memcpy(buf, src, len);
    }

    return buf + len;
}


u_char *
ngx_vslprintf(u_char *buf, u_char *last, const char *fmt, va_list args)
{
    u_char                     zero, *p, ch;
    size_t                     len;
    int64_t                    i;
    uint64_t                   u;
    ngx_str_t                 *v;
    ngx_uint_t                 width, sign, hex;
    ngx_variable_value_t      *vv;

    while (*fmt && buf < last) {

        if (*fmt != '%') {
            *buf++ = *fmt++;
            continue;
        }

        i = 0;
        u = 0;
        hex = 0;
        sign = 1;
        width = 0;
        len = (size_t) -1;
        zero = (u_char) ((*++fmt == '0') ? '0' : ' ');

        while (*fmt >= '0' && *fmt <= '9') {
            width = width * 10 + (*fmt++ - '0');
        }

        for ( ;; ) {

            switch (*fmt) {

            case 'u':
                sign = 0;
                fmt++;
                continue;

            case 'X':
                hex = 2;
                sign = 0;
                fmt++;
                continue;

            case 'x':
                hex = 1;
                sign = 0;
                fmt++;
                continue;

            case '*':
                len = va_arg(args, size_t);
                fmt++;
                continue;

            default:
                break;
            }

            break;
        }

        switch (*fmt) {

        case 'V':
            v = va_arg(args, ngx_str_t *);
            buf = stub_sprintf_str(buf, last, v->data, v->len);
            fmt++;
            continue;

        case 'v':
            vv = va_arg(args, ngx_variable_value_t *);
            buf = stub_sprintf_str(buf, last, vv->data, vv->len);
            fmt++;
            continue;

        case 's':
            p = va_arg(args, u_char *);

            if (len == (size_t) -1) {
                len = strlen((char *) p);
            }

            buf = stub_sprintf_str(buf, last, p, len);
            fmt++;
            continue;

        case 'O':
            i = (int64_t) va_arg(args, off_t);
            sign = 1;
            break;

        case 'T':
            i = (int64_t) va_arg(args, time_t);
            sign = 1;
            break;

        case 'M':
            u = (uint64_t) va_arg(args, ngx_msec_t);
            sign = 0;
            break;

        case 'z':
        case 'i':
        case 'l':
            u = va_arg(args, uint64_t);
            i = (int64_t) u;
            break;

        case 'd':
            if (sign) {
                i = (int64_t) va_arg(args, int);
            } else {
                u = (uint64_t) va_arg(args, unsigned);
            }

            break;

        case 'D':
            if (sign) {
                i = (int64_t) va_arg(args, int32_t);
            } else {
                u = (uint64_t) va_arg(args, uint32_t);
            }

            break;

        case 'L':
        case 'A':
            u = va_arg(args, uint64_t);
            i = (int64_t) u;
            break;

        case 'p':
            u = (uintptr_t) va_arg(args, void *);
            hex = 2;
            sign = 0;
            width = sizeof(void *) * 2;
            zero = '0';
            break;

        case 'c':
            ch = (u_char) (va_arg(args, int) & 0xff);
            *buf++ = ch;
            fmt++;
            continue;

        case 'Z':
            *buf++ = '\0';
            fmt++;
            continue;

        case 'N':
            *buf++ = LF;
            fmt++;
            continue;

        case '%':
            *buf++ = '%';
            fmt++;
            continue;

        default:
            fprintf(stderr, "unsupported format \"%%%s\"\n", fmt);
            abort();
        }

        if (sign) {

            if (i < 0) {
                *buf++ = '-';
                u = 0 - (uint64_t) i;

            } else {
                u = (uint64_t) i;
            }
        }

        buf = stub_sprintf_num(buf, last, u, zero, hex, width);
        fmt++;
    }

    return buf;
}


static u_char *
stub_sprintf_num(u_char *buf, u_char *last, uint64_t n, u_char zero,
    ngx_uint_t hex, ngx_uint_t width)
{
    u_char       *p, tmp[32];
    size_t        len;
    const char   *digits;
    ngx_uint_t    base;

    p = tmp + sizeof(tmp);
    base = hex ? 16 : 10;
    digits = (hex == 2) ? "0123456789ABCDEF" : "0123456789abcdef";

    do {
        *--p = digits[n % base];
        n /= base;
    } while (n);

    len = tmp + sizeof(tmp) - p;

    while (len++ < width && buf < last) {
        *buf++ = zero;
    }

    return stub_sprintf_str(buf, last, p, tmp + sizeof(tmp) - p);
}
