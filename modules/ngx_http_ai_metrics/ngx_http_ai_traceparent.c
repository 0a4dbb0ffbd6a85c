
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_traceparent.h"

#if (defined __x86_64__ && defined __SSE2__)
#include <emmintrin.h>
#endif


#define NGX_HTTP_AI_TRACE_DIGITS  9           /* of a ratio */


static ngx_int_t ngx_http_ai_trace_number(u_char *p, size_t n,
    uint64_t *value);


ngx_int_t
ngx_http_ai_traceparent_parse(ngx_str_t *text, ngx_http_ai_traceparent_t *tp)
{
    u_char    *p;
    uint64_t   version, flags;

    p = text->data;

    if (text->len < NGX_HTTP_AI_TRACEPARENT
        || p[2] != '-' || p[35] != '-' || p[52] != '-'
        || ngx_http_ai_trace_number(p, 2, &version) != NGX_OK
        || ngx_http_ai_trace_number(p + 3, 16, &tp->high) != NGX_OK
        || ngx_http_ai_trace_number(p + 19, 16, &tp->low) != NGX_OK
        || ngx_http_ai_trace_number(p + 36, 16, &tp->parent) != NGX_OK
        || ngx_http_ai_trace_number(p + 53, 2, &flags) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    if (version == 0xff || (tp->high | tp->low) == 0 || tp->parent == 0) {
        return NGX_DECLINED;
    }

    /* a later version may add fields */

    if (text->len > NGX_HTTP_AI_TRACEPARENT
        && (version == 0 || p[NGX_HTTP_AI_TRACEPARENT] != '-'))
    {
        return NGX_DECLINED;
    }

    tp->sampled = (flags & 1);

    return NGX_OK;
}


/* lower case only, as section 3.2 has it */

static ngx_int_t
ngx_http_ai_trace_number(u_char *p, size_t n, uint64_t *value)
{
    u_char  c;

    *value = 0;

    for (/* void */; n; n--) {
        c = *p++;

        if (c >= '0' && c <= '9') {
            c -= '0';

        } else if (c >= 'a' && c <= 'f') {
            c = c - 'a' + 10;

        } else {
            return NGX_ERROR;
        }

        *value = (*value << 4) | c;
    }

    return NGX_OK;
}


u_char *
ngx_http_ai_traceparent_write(u_char *p, u_char *trace, uint64_t span,
    ngx_uint_t sampled)
{
    p = ngx_cpymem(p, "00-", 3);
    p = ngx_cpymem(p, trace, NGX_HTTP_AI_TRACE_ID);
    *p++ = '-';
    p = ngx_http_ai_trace_hex(p, span);
    *p++ = '-';
    *p++ = '0';
    *p++ = sampled ? '1' : '0';

    return p;
}


#if (defined __x86_64__ && defined __SSE2__)

u_char *
ngx_http_ai_trace_hex(u_char *p, uint64_t id)
{
    u_char   bytes[8];
    __m128i  v, low, digits;

    (void) ngx_http_ai_trace_bytes(bytes, id);

    v = _mm_loadl_epi64((__m128i *) bytes);
    low = _mm_set1_epi8(0x0f);

    v = _mm_unpacklo_epi8(_mm_and_si128(_mm_srli_epi16(v, 4), low),
                          _mm_and_si128(v, low));

    digits = _mm_and_si128(_mm_cmpgt_epi8(v, _mm_set1_epi8(9)),
                           _mm_set1_epi8('a' - '9' - 1));
    digits = _mm_add_epi8(digits, _mm_add_epi8(v, _mm_set1_epi8('0')));

    _mm_storeu_si128((__m128i *) p, digits);

    return p + 16;
}

#else

/* eight digits at once, a byte for each, the first one in the highest */

u_char *
ngx_http_ai_trace_hex(u_char *p, uint64_t id)
{
    uint64_t    n;
    ngx_uint_t  i;

    for (i = 0; i < 2; i++) {

        n = id >> 32;
        id <<= 32;

        n = (n | n << 16) & 0x0000ffff0000ffffULL;
        n = (n | n << 8) & 0x00ff00ff00ff00ffULL;
        n = (n | n << 4) & 0x0f0f0f0f0f0f0f0fULL;

        /* 6 more than 9 is a bit: what "a" is behind "9" */

        n += 0x3030303030303030ULL
             + (((n + 0x0606060606060606ULL) >> 4) & 0x0101010101010101ULL)
               * ('a' - '9' - 1);

        p = ngx_http_ai_trace_bytes(p, n);
    }

    return p;
}

#endif


ngx_uint_t
ngx_http_ai_trace_sampled(uint64_t low, uint64_t ratio)
{
    if (ratio >= NGX_HTTP_AI_TRACE_ALL) {
        return 1;
    }

    return (low & (NGX_HTTP_AI_TRACE_ALL - 1))
           >= NGX_HTTP_AI_TRACE_ALL - ratio;
}


ngx_int_t
ngx_http_ai_trace_ratio(ngx_str_t *text, uint64_t *ratio)
{
    u_char      *p, *last;
    uint64_t     value, unit;
    ngx_uint_t   point, digits;

    p = text->data;
    last = p + text->len;

    unit = 1;
    value = 0;
    point = 0;
    digits = 0;

    if (last > p && last[-1] == '%') {
        unit = 100;
        last--;
    }

    for (/* void */; p < last; p++) {

        if (*p == '.' && !point) {
            point = 1;
            continue;
        }

        if (*p < '0' || *p > '9' || ++digits > NGX_HTTP_AI_TRACE_DIGITS) {
            return NGX_ERROR;
        }

        value = value * 10 + (*p - '0');

        if (point) {
            unit *= 10;
        }
    }

    if (digits == 0 || value > unit) {
        return NGX_ERROR;
    }

    *ratio = (uint64_t) ((double) value / (double) unit
                         * (double) NGX_HTTP_AI_TRACE_ALL);

    return NGX_OK;
}
