
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Skipping over the plain bytes of JSON strings.  Everything the parser and
 * the writer do with long texts goes through here.  Nothing outside
 * [p, last) is ever read.
 */


#ifndef _NGX_HTTP_AI_SCAN_H_INCLUDED_
#define _NGX_HTTP_AI_SCAN_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#if (defined __x86_64__ && defined __SSE2__)
#include <emmintrin.h>
#define NGX_HTTP_AI_SCAN_SSE2  1
#endif


/*
 * Skips the rest of a JSON string, escapes included.  Returns the closing
 * quote; or what is wrong: "last" (no quote), a control character, or the
 * backslash of a bad escape.  Sets *escaped if there was an escape.
 */
u_char *ngx_http_ai_scan_long(u_char *p, u_char *last, ngx_uint_t *escaped);

/* the first quote, backslash or control character, or "last" */
u_char *ngx_http_ai_scan_plain(u_char *p, u_char *last);

/* length of the escape at the backslash p: 2 or 6, or 0 if it is bad */
size_t ngx_http_ai_scan_escape(u_char *p, u_char *last);

/* the name of the variant in use and a switch for tests: 0 for the best of
 * this CPU, 1 for the baseline of the architecture, 2 for plain C */
const char *ngx_http_ai_scan_select(ngx_uint_t variant);


/* the same as ngx_http_ai_scan_long(), short strings without a call */

static ngx_inline u_char *
ngx_http_ai_scan_string(u_char *p, u_char *last, ngx_uint_t *escaped)
{
#if (NGX_HTTP_AI_SCAN_SSE2)

    int      mask;
    __m128i  x, bad;

    if (last - p >= 16) {
        x = _mm_loadu_si128((const __m128i *) p);

        bad = _mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(0x1f)), x);
        bad = _mm_or_si128(bad, _mm_cmpeq_epi8(x, _mm_set1_epi8('"')));
        bad = _mm_or_si128(bad, _mm_cmpeq_epi8(x, _mm_set1_epi8('\\')));

        mask = _mm_movemask_epi8(bad);

        if (mask == 0) {
            p += 16;

        } else {
            p += __builtin_ctz(mask);

            if (*p == '"') {
                return p;
            }
        }
    }

#endif

    return ngx_http_ai_scan_long(p, last, escaped);
}


/* the first LF or CR, or "last" */

static ngx_inline u_char *
ngx_http_ai_scan_eol(u_char *p, u_char *last)
{
#if (NGX_HTTP_AI_SCAN_SSE2)

    int      mask;
    __m128i  x;

    while (last - p >= 16) {
        x = _mm_loadu_si128((const __m128i *) p);

        mask = _mm_movemask_epi8(
                   _mm_or_si128(_mm_cmpeq_epi8(x, _mm_set1_epi8(LF)),
                                _mm_cmpeq_epi8(x, _mm_set1_epi8(CR))));

        if (mask != 0) {
            return p + __builtin_ctz(mask);
        }

        p += 16;
    }

#endif

    while (p < last && *p != LF && *p != CR) {
        p++;
    }

    return p;
}


#endif /* _NGX_HTTP_AI_SCAN_H_INCLUDED_ */
