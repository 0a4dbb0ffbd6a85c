
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_scan.h"

#if (NGX_HTTP_AI_SCAN_SSE2 && (defined __GNUC__ || defined __clang__))
#include <immintrin.h>
#define NGX_HTTP_AI_SCAN_AVX2  1
#endif

#if (defined __aarch64__ && defined __ARM_NEON)
#include <arm_neon.h>
#define NGX_HTTP_AI_SCAN_NEON  1
#endif


typedef u_char *(*ngx_http_ai_scan_long_pt)(u_char *p, u_char *last,
    ngx_uint_t *escaped);
typedef u_char *(*ngx_http_ai_scan_plain_pt)(u_char *p, u_char *last);


static u_char *ngx_http_ai_scan_long_init(u_char *p, u_char *last,
    ngx_uint_t *escaped);
static u_char *ngx_http_ai_scan_plain_init(u_char *p, u_char *last);
static u_char *ngx_http_ai_scan_long_c(u_char *p, u_char *last,
    ngx_uint_t *escaped);
static u_char *ngx_http_ai_scan_plain_c(u_char *p, u_char *last);


/* chosen at the first call */

static ngx_http_ai_scan_long_pt   ngx_http_ai_scan_long_handler =
                                                    ngx_http_ai_scan_long_init;
static ngx_http_ai_scan_plain_pt  ngx_http_ai_scan_plain_handler =
                                                   ngx_http_ai_scan_plain_init;


/* bytes that may stand in a string as they are */

#define ngx_http_ai_scan_is_plain(ch)                                         \
    ((ch) >= 0x20 && (ch) != '"' && (ch) != '\\')


#define ngx_http_ai_scan_is_hex(ch)                                           \
    (((ch) >= '0' && (ch) <= '9')                                             \
     || (((ch) | 0x20) >= 'a' && ((ch) | 0x20) <= 'f'))


/* lengths of escapes by what follows the backslash */

static const uint8_t  ngx_http_ai_scan_escapes[256] = {
    ['"'] = 2, ['\\'] = 2, ['/'] = 2, ['b'] = 2, ['f'] = 2, ['n'] = 2,
    ['r'] = 2, ['t'] = 2, ['u'] = 6
};


u_char *
ngx_http_ai_scan_long(u_char *p, u_char *last, ngx_uint_t *escaped)
{
    return ngx_http_ai_scan_long_handler(p, last, escaped);
}


u_char *
ngx_http_ai_scan_plain(u_char *p, u_char *last)
{
    return ngx_http_ai_scan_plain_handler(p, last);
}


static ngx_inline size_t
ngx_http_ai_scan_escape_inline(u_char *p, u_char *last)
{
    size_t  n;

    if (last - p < 2) {
        return 0;
    }

    n = ngx_http_ai_scan_escapes[p[1]];

    if (n <= 2) {
        return n;
    }

    if (last - p >= 6
        && ngx_http_ai_scan_is_hex(p[2])
        && ngx_http_ai_scan_is_hex(p[3])
        && ngx_http_ai_scan_is_hex(p[4])
        && ngx_http_ai_scan_is_hex(p[5]))
    {
        return 6;
    }

    return 0;
}


size_t
ngx_http_ai_scan_escape(u_char *p, u_char *last)
{
    return ngx_http_ai_scan_escape_inline(p, last);
}


/* eight bytes at once: zero when all are plain */

static ngx_inline uint64_t
ngx_http_ai_scan_word(u_char *p)
{
    uint64_t  x, q, b;

    ngx_memcpy(&x, p, 8);

    q = x ^ 0x2222222222222222ULL;
    b = x ^ 0x5c5c5c5c5c5c5c5cULL;

    /*
     * carries between bytes can only flag a byte above a flagged one,
     * the verdict on the whole word stands
     */

    return (((x - 0x2020202020202020ULL) & ~x)
            | ((q - 0x0101010101010101ULL) & ~q)
            | ((b - 0x0101010101010101ULL) & ~b))
           & 0x8080808080808080ULL;
}


static u_char *
ngx_http_ai_scan_plain_c(u_char *p, u_char *last)
{
    while (last - p >= 8 && ngx_http_ai_scan_word(p) == 0) {
        p += 8;
    }

    while (p < last && ngx_http_ai_scan_is_plain(*p)) {
        p++;
    }

    return p;
}


static u_char *
ngx_http_ai_scan_long_c(u_char *p, u_char *last, ngx_uint_t *escaped)
{
    size_t  n;

    for ( ;; ) {
        p = ngx_http_ai_scan_plain_c(p, last);

        if (p == last || *p != '\\') {
            return p;
        }

        n = ngx_http_ai_scan_escape_inline(p, last);
        if (n == 0) {
            return p;
        }

        *escaped = 1;
        p += n;
    }
}


#if (NGX_HTTP_AI_SCAN_SSE2)

static ngx_inline unsigned
ngx_http_ai_scan_mask_sse2(u_char *p)
{
    __m128i  x, bad;

    x = _mm_loadu_si128((const __m128i *) p);

    bad = _mm_cmpeq_epi8(_mm_min_epu8(x, _mm_set1_epi8(0x1f)), x);
    bad = _mm_or_si128(bad, _mm_cmpeq_epi8(x, _mm_set1_epi8('"')));
    bad = _mm_or_si128(bad, _mm_cmpeq_epi8(x, _mm_set1_epi8('\\')));

    return (unsigned) _mm_movemask_epi8(bad);
}


static u_char *
ngx_http_ai_scan_plain_sse2(u_char *p, u_char *last)
{
    unsigned  mask;

    while (last - p >= 16) {
        mask = ngx_http_ai_scan_mask_sse2(p);

        if (mask != 0) {
            return p + __builtin_ctz(mask);
        }

        p += 16;
    }

    return ngx_http_ai_scan_plain_c(p, last);
}


static u_char *
ngx_http_ai_scan_long_sse2(u_char *p, u_char *last, ngx_uint_t *escaped)
{
    size_t    n;
    u_char   *s;
    unsigned  mask;

    while (last - p >= 16) {
        mask = ngx_http_ai_scan_mask_sse2(p);
        n = 16;

        while (mask != 0) {
            n = __builtin_ctz(mask);
            s = p + n;

            if (*s != '\\') {
                return s;
            }

            n = ngx_http_ai_scan_escape_inline(s, last);
            if (n == 0) {
                return s;
            }

            *escaped = 1;

            n += s - p;
            if (n >= 16) {
                break;
            }

            mask &= ~0U << n;
            n = 16;
        }

        p += n;
    }

    return ngx_http_ai_scan_long_c(p, last, escaped);
}

#endif


#if (NGX_HTTP_AI_SCAN_AVX2)

__attribute__((target("avx2")))
static ngx_inline __m256i
ngx_http_ai_scan_bad_avx2(u_char *p)
{
    __m256i  x, bad;

    x = _mm256_loadu_si256((const __m256i *) p);

    bad = _mm256_cmpeq_epi8(_mm256_min_epu8(x, _mm256_set1_epi8(0x1f)), x);
    bad = _mm256_or_si256(bad, _mm256_cmpeq_epi8(x, _mm256_set1_epi8('"')));

    return _mm256_or_si256(bad,
                           _mm256_cmpeq_epi8(x, _mm256_set1_epi8('\\')));
}


/*
 * 128 bytes a step while there is nothing but plain bytes.  The table gives
 * for the low half of a byte the only one of the quote and the backslash that
 * has it, or a byte with another half; control characters show in the least of
 * all bytes.
 */

__attribute__((target("avx2")))
static ngx_inline u_char *
ngx_http_ai_scan_run_avx2(u_char *p, u_char *last)
{
    __m256i  a, b, c, d, least, bad, table;

    table = _mm256_setr_epi8(1, 0, '"', 0, 0, 0, 0, 0,
                             0, 0, 0, 0, '\\', 0, 0, 0,
                             1, 0, '"', 0, 0, 0, 0, 0,
                             0, 0, 0, 0, '\\', 0, 0, 0);

    while (last - p >= 128) {
        a = _mm256_loadu_si256((const __m256i *) p);
        b = _mm256_loadu_si256((const __m256i *) (p + 32));
        c = _mm256_loadu_si256((const __m256i *) (p + 64));
        d = _mm256_loadu_si256((const __m256i *) (p + 96));

        least = _mm256_min_epu8(_mm256_min_epu8(a, b), _mm256_min_epu8(c, d));

        a = _mm256_cmpeq_epi8(a, _mm256_shuffle_epi8(table, a));
        b = _mm256_cmpeq_epi8(b, _mm256_shuffle_epi8(table, b));
        c = _mm256_cmpeq_epi8(c, _mm256_shuffle_epi8(table, c));
        d = _mm256_cmpeq_epi8(d, _mm256_shuffle_epi8(table, d));

        bad = _mm256_cmpeq_epi8(_mm256_min_epu8(least, _mm256_set1_epi8(0x1f)),
                                least);

        bad = _mm256_or_si256(bad, _mm256_or_si256(_mm256_or_si256(a, b),
                                                   _mm256_or_si256(c, d)));

        if (_mm256_movemask_epi8(bad) != 0) {
            break;
        }

        p += 128;
    }

    return p;
}


__attribute__((target("avx2")))
static u_char *
ngx_http_ai_scan_plain_avx2(u_char *p, u_char *last)
{
    unsigned  mask;

    p = ngx_http_ai_scan_run_avx2(p, last);

    while (last - p >= 32) {
        mask = (unsigned) _mm256_movemask_epi8(ngx_http_ai_scan_bad_avx2(p));

        if (mask != 0) {
            return p + __builtin_ctz(mask);
        }

        p += 32;
    }

    return ngx_http_ai_scan_plain_sse2(p, last);
}


__attribute__((target("avx2")))
static u_char *
ngx_http_ai_scan_long_avx2(u_char *p, u_char *last, ngx_uint_t *escaped)
{
    size_t      n;
    u_char     *s;
    unsigned    mask;
    ngx_uint_t  plain;

    plain = 0;

    while (last - p >= 32) {
        mask = (unsigned) _mm256_movemask_epi8(ngx_http_ai_scan_bad_avx2(p));

        if (mask == 0) {
            p += 32;

            /* long steps pay only where escapes are rare */

            if (++plain == 4) {
                p = ngx_http_ai_scan_run_avx2(p, last);
                plain = 0;
            }

            continue;
        }

        plain = 0;
        n = 32;

        do {
            n = __builtin_ctz(mask);
            s = p + n;

            if (*s != '\\') {
                return s;
            }

            n = ngx_http_ai_scan_escape_inline(s, last);
            if (n == 0) {
                return s;
            }

            *escaped = 1;

            n += s - p;
            if (n >= 32) {
                break;
            }

            mask &= ~0U << n;
            n = 32;

        } while (mask != 0);

        p += n;
    }

    return ngx_http_ai_scan_long_sse2(p, last, escaped);
}

#endif


#if (NGX_HTTP_AI_SCAN_NEON)

/* four bits a byte */

static ngx_inline uint64_t
ngx_http_ai_scan_mask_neon(u_char *p)
{
    uint8x16_t  x, bad;

    x = vld1q_u8(p);

    bad = vcltq_u8(x, vdupq_n_u8(0x20));
    bad = vorrq_u8(bad, vceqq_u8(x, vdupq_n_u8('"')));
    bad = vorrq_u8(bad, vceqq_u8(x, vdupq_n_u8('\\')));

    return vget_lane_u64(vreinterpret_u64_u8(
                             vshrn_n_u16(vreinterpretq_u16_u8(bad), 4)), 0);
}


static u_char *
ngx_http_ai_scan_plain_neon(u_char *p, u_char *last)
{
    uint64_t  mask;

    while (last - p >= 16) {
        mask = ngx_http_ai_scan_mask_neon(p);

        if (mask != 0) {
            return p + (__builtin_ctzll(mask) >> 2);
        }

        p += 16;
    }

    return ngx_http_ai_scan_plain_c(p, last);
}


static u_char *
ngx_http_ai_scan_long_neon(u_char *p, u_char *last, ngx_uint_t *escaped)
{
    size_t    n;
    u_char   *s;
    uint64_t  mask;

    while (last - p >= 16) {
        mask = ngx_http_ai_scan_mask_neon(p);
        n = 16;

        while (mask != 0) {
            n = __builtin_ctzll(mask) >> 2;
            s = p + n;

            if (*s != '\\') {
                return s;
            }

            n = ngx_http_ai_scan_escape_inline(s, last);
            if (n == 0) {
                return s;
            }

            *escaped = 1;

            n += s - p;
            if (n >= 16) {
                break;
            }

            mask &= ~(uint64_t) 0 << (n * 4);
            n = 16;
        }

        p += n;
    }

    return ngx_http_ai_scan_long_c(p, last, escaped);
}

#endif


const char *
ngx_http_ai_scan_select(ngx_uint_t variant)
{
#if (NGX_HTTP_AI_SCAN_AVX2)

    if (variant == 0) {
        __builtin_cpu_init();

        if (__builtin_cpu_supports("avx2")) {
            ngx_http_ai_scan_long_handler = ngx_http_ai_scan_long_avx2;
            ngx_http_ai_scan_plain_handler = ngx_http_ai_scan_plain_avx2;

            return "avx2";
        }
    }

#endif

#if (NGX_HTTP_AI_SCAN_SSE2)

    if (variant <= 1) {
        ngx_http_ai_scan_long_handler = ngx_http_ai_scan_long_sse2;
        ngx_http_ai_scan_plain_handler = ngx_http_ai_scan_plain_sse2;

        return "sse2";
    }

#elif (NGX_HTTP_AI_SCAN_NEON)

    if (variant <= 1) {
        ngx_http_ai_scan_long_handler = ngx_http_ai_scan_long_neon;
        ngx_http_ai_scan_plain_handler = ngx_http_ai_scan_plain_neon;

        return "neon";
    }

#endif

    ngx_http_ai_scan_long_handler = ngx_http_ai_scan_long_c;
    ngx_http_ai_scan_plain_handler = ngx_http_ai_scan_plain_c;

    return "c";
}


static u_char *
ngx_http_ai_scan_long_init(u_char *p, u_char *last, ngx_uint_t *escaped)
{
    (void) ngx_http_ai_scan_select(0);

    return ngx_http_ai_scan_long_handler(p, last, escaped);
}


static u_char *
ngx_http_ai_scan_plain_init(u_char *p, u_char *last)
{
    (void) ngx_http_ai_scan_select(0);

    return ngx_http_ai_scan_plain_handler(p, last);
}
