
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_scan.h"
#include "ngx_http_ai_tokens.h"


/*
 * The text is split about as o200k_base splits it (words with the space
 * before them, camel case, three digits, runs of punctuation with line ends
 * after them, runs of white space), then each piece has a price by its class
 * and length.  All prices are in hundredths of a token.
 */

#define NGX_HTTP_AI_TOKEN             100

/* letters of a word that one token holds, and each one more */
#define NGX_HTTP_AI_TOKENS_WORD       7
#define NGX_HTTP_AI_TOKENS_LETTER     20
/* beyond it a run of letters is no word */
#define NGX_HTTP_AI_TOKENS_LONG       28
#define NGX_HTTP_AI_TOKENS_MORE       13
/* the same for words all in capitals, letters with accents */
#define NGX_HTTP_AI_TOKENS_CAPS       5
#define NGX_HTTP_AI_TOKENS_CAP        25
#define NGX_HTTP_AI_TOKENS_ACCENT     30

/* one sign before a word is often in one token with it */
#define NGX_HTTP_AI_TOKENS_PREFIX     55
#define NGX_HTTP_AI_TOKENS_PUNCT      55
#define NGX_HTTP_AI_TOKENS_REPEAT     8

#define NGX_HTTP_AI_TOKENS_CYRILLIC   4
#define NGX_HTTP_AI_TOKENS_EMOJI      150

/* bytes of plain text that are looked at together, and worth it */
#define NGX_HTTP_AI_TOKENS_BLOCK      64
#define NGX_HTTP_AI_TOKENS_LEAST      24

/* not a code point */
#define NGX_HTTP_AI_TOKENS_INVALID    0xffffffff


enum {
    sw_other = 0,       /* punctuation */
    sw_lower,
    sw_upper,
    sw_digit,
    sw_space,
    sw_eol,
    sw_escape,
    sw_high
};


/* rates of scripts and symbols by code point, per character */

typedef struct {
    uint32_t   last;
    uint16_t   rate;
    uint16_t   letter;      /* part of a word whose letters are priced so */
} ngx_http_ai_tokens_range_t;


static uint32_t ngx_http_ai_tokens_char(u_char *p, u_char *last, size_t *len);
#if (NGX_HTTP_AI_SCAN_SSE2)
static uint64_t ngx_http_ai_tokens_plain(u_char **pos, u_char *last);
#endif
static uint64_t ngx_http_ai_tokens_word(u_char **pos, u_char *last);
static uint64_t ngx_http_ai_tokens_sign(uint32_t ch);
static ngx_uint_t ngx_http_ai_tokens_contraction(u_char *p, u_char *last);


static ngx_http_ai_tokens_range_t  ngx_http_ai_tokens_ranges[] = {
    { 0x00bf, 90, 0 },              /* Latin-1 signs */
    { 0x024f, 0, 1 },               /* Latin: words */
    { 0x02ff, 150, 0 },
    { 0x036f, 120, 0 },             /* combining marks */
    { 0x03ff, 46, 0 },              /* Greek */
    { 0x052f, 0, 2 },               /* Cyrillic: words */
    { 0x058f, 70, 0 },              /* Armenian */
    { 0x05ff, 50, 0 },              /* Hebrew */
    { 0x077f, 42, 0 },              /* Arabic */
    { 0x08ff, 90, 0 },
    { 0x0dff, 48, 0 },              /* Indic */
    { 0x0eff, 48, 0 },              /* Thai, Lao */
    { 0x10ff, 75, 0 },              /* Tibetan, Burmese, Georgian */
    { 0x11ff, 300, 0 },             /* Hangul parts */
    { 0x1dff, 110, 0 },
    { 0x1eff, 0, 1 },               /* Latin of Vietnamese */
    { 0x1fff, 120, 0 },
    { 0x206f, 80, 0 },              /* dashes, quotes */
    { 0x20cf, 110, 0 },             /* superscripts, currencies */
    { 0x2bff, 150, 0 },             /* arrows, mathematics, boxes */
    { 0x2fff, 200, 0 },
    { 0x303f, 80, 0 },              /* CJK punctuation */
    { 0x30ff, 62, 0 },              /* kana */
    { 0x33ff, 150, 0 },
    { 0x4dbf, 200, 0 },
    { 0x9fff, 72, 0 },              /* CJK */
    { 0xabff, 200, 0 },
    { 0xd7a3, 65, 0 },              /* Hangul */
    { 0xf8ff, 300, 0 },
    { 0xfaff, 200, 0 },
    { 0xfe0e, 200, 0 },
    { 0xfe0f, 50, 0 },              /* emoji variation */
    { 0xfeff, 200, 0 },
    { 0xffef, 80, 0 },              /* wide forms */
    { 0xffff, 100, 0 },
    { 0x1efff, 350, 0 },
    { 0x1faff, NGX_HTTP_AI_TOKENS_EMOJI, 0 },
    { 0xffffffff, 330, 0 }
};


/* classes of bytes: letters and so on; filled by rows of 16 */

#define O  sw_other
#define L  sw_lower
#define U  sw_upper
#define D  sw_digit
#define S  sw_space
#define N  sw_eol
#define B  sw_escape
#define H  sw_high

static const uint8_t  ngx_http_ai_tokens_classes[256] = {
    O, O, O, O, O, O, O, O, O, S, N, O, O, N, O, O,
    O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O,
    S, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O,
    D, D, D, D, D, D, D, D, D, D, O, O, O, O, O, O,
    O, U, U, U, U, U, U, U, U, U, U, U, U, U, U, U,
    U, U, U, U, U, U, U, U, U, U, U, O, B, O, O, O,
    O, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L,
    L, L, L, L, L, L, L, L, L, L, L, O, O, O, O, O,
    H, H, H, H, H, H, H, H, H, H, H, H, H, H, H, H,
    H, H, H, H, H, H, H, H, H, H, H, H, H, H, H, H,
    H, H, H, H, H, H, H, H, H, H, H, H, H, H, H, H,
    H, H, H, H, H, H, H, H, H, H, H, H, H, H, H, H,
    H, H, H, H, H, H, H, H, H, H, H, H, H, H, H, H,
    H, H, H, H, H, H, H, H, H, H, H, H, H, H, H, H,
    H, H, H, H, H, H, H, H, H, H, H, H, H, H, H, H,
    H, H, H, H, H, H, H, H, H, H, H, H, H, H, H, H
};

#undef O
#undef L
#undef U
#undef D
#undef S
#undef N
#undef B
#undef H


#define ngx_http_ai_tokens_class(ch)  ngx_http_ai_tokens_classes[ch]


/* one character: plain, UTF-8 or escaped; the class of what it stands for */

static ngx_uint_t
ngx_http_ai_tokens_next(u_char *p, u_char *last, size_t *len, uint32_t *ch)
{
    ngx_uint_t  class;

    class = ngx_http_ai_tokens_class(*p);

    if (class < sw_escape) {
        *ch = *p;
        *len = 1;
        return class;
    }

    *ch = ngx_http_ai_tokens_char(p, last, len);

    return (*ch < 0x80) ? ngx_http_ai_tokens_class(*ch) % sw_escape : sw_high;
}


uint64_t
ngx_http_ai_tokens_raw(u_char *data, size_t len)
{
    u_char      *p, *last;
    size_t       n, k, spaces;
    uint32_t     ch, first;
    uint64_t     sum;
    ngx_uint_t   class, eols, same, word;

    p = data;
    last = data + len;
    sum = 0;
    spaces = 0;

    if (len == 0) {
        return 0;
    }

    while (p < last) {

        class = ngx_http_ai_tokens_class(*p);

        /* most of all text: a word, and a space before it */

        word = (class == sw_lower || class == sw_upper);
        k = 0;

        if (*p == ' ' && last - p > 1
            && (uint8_t) (ngx_http_ai_tokens_class(p[1]) - sw_lower)
               <= sw_upper - sw_lower)
        {
            word = 1;
            k = 1;
        }

        if (word) {

#if (NGX_HTTP_AI_SCAN_SSE2)
            if (last - p >= NGX_HTTP_AI_TOKENS_LEAST) {
                n = ngx_http_ai_tokens_plain(&p, last);

                if (n) {
                    sum += n;
                    spaces = 0;
                    continue;
                }
            }
#endif

            p += k;
            sum += ngx_http_ai_tokens_word(&p, last);
            spaces = 0;
            continue;
        }

        class = ngx_http_ai_tokens_next(p, last, &n, &ch);

        switch (class) {

        case sw_space:
        case sw_eol:

            /* white space up to its last line end is one token */

            eols = 0;
            spaces = 0;

            do {
                if (class == sw_eol) {
                    eols = 1;
                    spaces = 0;

                } else {
                    spaces++;
                }

                p += n;

                if (p == last) {
                    break;
                }

                class = ngx_http_ai_tokens_next(p, last, &n, &ch);

            } while (class == sw_space || class == sw_eol);

            if (eols) {
                sum += NGX_HTTP_AI_TOKEN;
            }

            if (spaces > 1 || (spaces == 1 && (p == last
                                               || class == sw_digit)))
            {
                sum += NGX_HTTP_AI_TOKEN + spaces / 80 * NGX_HTTP_AI_TOKEN;
            }

            continue;

        case sw_digit:

            k = 0;

            while (p < last && ngx_http_ai_tokens_class(*p) == sw_digit) {
                p++;
                k++;
            }

            if (k == 0) {
                p += n;
                k = 1;
            }

            sum += (k + 2) / 3 * NGX_HTTP_AI_TOKEN;
            spaces = 0;

            continue;

        case sw_lower:
        case sw_upper:

            sum += ngx_http_ai_tokens_word(&p, last);
            spaces = 0;

            continue;

        case sw_high:

            if (ngx_http_ai_tokens_sign(ch) == 0) {
                sum += ngx_http_ai_tokens_word(&p, last);

            } else {
                sum += ngx_http_ai_tokens_sign(ch);
                p += n;
            }

            spaces = 0;

            continue;

        default: /* sw_other */

            k = 0;
            same = 0;
            first = ch;

            do {
                same += (ch == first);
                k++;
                p += n;

                if (p == last) {
                    break;
                }

                class = ngx_http_ai_tokens_next(p, last, &n, &ch);

            } while (class == sw_other);

            if (k == 1 && spaces == 0 && p < last
                && (class == sw_lower || class == sw_upper))
            {
                sum += NGX_HTTP_AI_TOKENS_PREFIX;

            } else if (k <= 2) {
                sum += NGX_HTTP_AI_TOKEN;

            } else if (same == k) {
                sum += NGX_HTTP_AI_TOKEN + k * NGX_HTTP_AI_TOKENS_REPEAT;

            } else {
                sum += k * NGX_HTTP_AI_TOKENS_PUNCT;
            }

            /* line ends belong to the punctuation before them */

            while (p < last && class == sw_eol) {
                p += n;

                if (p < last) {
                    class = ngx_http_ai_tokens_next(p, last, &n, &ch);
                }
            }

            spaces = 0;

            continue;
        }
    }

    return sum;
}


#if (NGX_HTTP_AI_SCAN_SSE2)

#define ngx_http_ai_tokens_mask(mask, x)                                      \
    mask |= (uint64_t) _mm_movemask_epi8(x) << i

#define ngx_http_ai_tokens_range(x, first, n)                                 \
    _mm_cmpeq_epi8(_mm_min_epu8(_mm_sub_epi8(x, _mm_set1_epi8(first)),        \
                                _mm_set1_epi8(n)),                            \
                   _mm_sub_epi8(x, _mm_set1_epi8(first)))


/*
 * The same for plain text, a bit for each byte of a block, as many words as
 * are whole there: between two of them is a space, a sign of punctuation and
 * a space, a line end, or a quote and a space.  Begins with a letter, or with
 * a space and a letter; 0: there is something else.
 */

static uint64_t
ngx_http_ai_tokens_plain(u_char **pos, u_char *last)
{
    u_char      *p, buf[NGX_HTTP_AI_TOKENS_BLOCK];
    size_t       len;
    __m128i      x;
    uint64_t     upper, letters, spaces, marks, escapes, eols, quotes, after,
                 bits, end, sum;
    ngx_uint_t   i, n, class;

    p = *pos;
    len = last - p;

    if (len < NGX_HTTP_AI_TOKENS_BLOCK) {
        ngx_memzero(buf, NGX_HTTP_AI_TOKENS_BLOCK);
        ngx_memcpy(buf, p, len);
        p = buf;
    }

    upper = 0;
    letters = 0;
    spaces = 0;
    marks = 0;
    escapes = 0;

    for (i = 0; i < NGX_HTTP_AI_TOKENS_BLOCK; i += 16) {
        x = _mm_loadu_si128((__m128i *) (p + i));

        ngx_http_ai_tokens_mask(spaces, _mm_cmpeq_epi8(x,
                                                       _mm_set1_epi8(' ')));
        ngx_http_ai_tokens_mask(escapes, _mm_cmpeq_epi8(x,
                                                       _mm_set1_epi8('\\')));

        /* ",", "-", "." */
        ngx_http_ai_tokens_mask(marks, ngx_http_ai_tokens_range(x, ',', 2));
        ngx_http_ai_tokens_mask(upper, ngx_http_ai_tokens_range(x, 'A', 25));

        x = _mm_or_si128(x, _mm_set1_epi8(0x20));

        ngx_http_ai_tokens_mask(letters, ngx_http_ai_tokens_range(x, 'a', 25));
    }

    eols = 0;
    quotes = 0;

    for (bits = escapes << 1 >> 1; bits; bits &= bits - 1) {
        n = __builtin_ctzll(bits);

        if (p[n + 1] == 'n') {
            eols |= (uint64_t) 1 << n;

        } else if (p[n + 1] == '"') {
            quotes |= (uint64_t) 1 << n;

        } else {
            break;
        }
    }

    escapes = eols | quotes;
    letters &= ~(escapes << 1);
    after = letters << 1;
    eols &= (after | marks << 1) & letters >> 2;

    escapes = eols | quotes;

    bits = ~(letters | spaces | marks | escapes | escapes << 1)
           | (spaces & spaces << 1)
           | (upper & after)
           | (marks & ~(after & (spaces | eols) >> 1))
           | (quotes & ~((after & spaces >> 2)
                         | (spaces << 1 & letters >> 2)));

    n = bits ? (ngx_uint_t) __builtin_ctzll(bits) : NGX_HTTP_AI_TOKENS_BLOCK;

    if (n == 0) {
        return 0;
    }

    end = (uint64_t) -1 >> (64 - n);

    if (n < len) {

        /* does the last word end here? */

        class = (n < NGX_HTTP_AI_TOKENS_BLOCK)
                ? ngx_http_ai_tokens_class(p[n]) : sw_lower;

        if (class >= sw_escape || class == sw_lower || class == sw_upper
            || p[n] == '\'')
        {
            bits = ~letters & end;

            if (bits == 0) {
                return 0;
            }

            n = 64 - __builtin_clzll(bits);
        }
    }

    /* a space belongs to what follows */

    if (p[n - 1] == ' ') {
        n--;

        if (n == 0) {
            return 0;
        }
    }

    end = (uint64_t) -1 >> (64 - n);
    letters &= end;

    /* the eighth letter of a word, and those behind it */

    bits = letters & letters << 1;
    bits &= bits << 2;
    bits &= bits << 4;

    sum = 0;

    if (bits) {
        after = bits & bits << 8;

        if (after & after << (NGX_HTTP_AI_TOKENS_LONG - 15)) {
            return 0;
        }

        sum = __builtin_popcountll(bits) * NGX_HTTP_AI_TOKENS_LETTER;
    }

    /* line ends after punctuation belong to it */

    bits = (letters & ~(letters << 1))
           | ((marks | quotes | (eols & ~(marks << 1))) & end);

    *pos += n;

    return sum + __builtin_popcountll(bits) * NGX_HTTP_AI_TOKEN;
}

#endif


static uint64_t
ngx_http_ai_tokens_word(u_char **pos, u_char *last)
{
    u_char      *p;
    size_t       n, k, upper, accents, cyrillic;
    uint32_t     ch;
    uint64_t     sum;
    ngx_uint_t   class, lower;

    p = *pos;

    if (ngx_http_ai_tokens_class(*p) == sw_upper) {
        p++;
    }

    while (p < last && ngx_http_ai_tokens_class(*p) == sw_lower) {
        p++;
    }

    k = p - *pos;

    if (k >= 2 && k <= NGX_HTTP_AI_TOKENS_WORD
        && (p == last || (ngx_http_ai_tokens_class(*p) < sw_escape
                          && *p != '\'')))
    {
        *pos = p;
        return NGX_HTTP_AI_TOKEN;
    }

    p = *pos;

    k = 0;
    upper = 0;
    lower = 0;
    accents = 0;
    cyrillic = 0;

    while (p < last) {

        class = ngx_http_ai_tokens_class(*p);

        if (class == sw_lower) {
            lower = 1;
            p++;
            k++;
            continue;
        }

        if (class == sw_upper) {

            if (lower) {
                break;
            }

            upper++;
            p++;
            k++;
            continue;
        }

        if (class < sw_escape) {
            break;
        }

        class = ngx_http_ai_tokens_next(p, last, &n, &ch);

        if (class == sw_high) {

            if (ngx_http_ai_tokens_sign(ch) != 0) {
                break;
            }

            if (ch >= 0x400 && ch <= 0x52f) {
                cyrillic++;

            } else {
                accents++;
            }

        } else if (class == sw_upper) {

            if (lower) {
                break;
            }

            upper++;

        } else if (class == sw_lower) {
            lower = 1;

        } else {
            break;
        }

        p += n;
        k++;
    }

    sum = NGX_HTTP_AI_TOKEN + accents * NGX_HTTP_AI_TOKENS_ACCENT;

    if (cyrillic) {
        if (k > NGX_HTTP_AI_TOKENS_CYRILLIC) {
            sum += (k - NGX_HTTP_AI_TOKENS_CYRILLIC) * 28;
        }

    } else if (upper > 1 && upper == k) {

        if (k > NGX_HTTP_AI_TOKENS_CAPS) {
            sum += (k - NGX_HTTP_AI_TOKENS_CAPS) * NGX_HTTP_AI_TOKENS_CAP;
        }

    } else if (k > NGX_HTTP_AI_TOKENS_LONG) {
        sum += (NGX_HTTP_AI_TOKENS_LONG - NGX_HTTP_AI_TOKENS_WORD)
               * NGX_HTTP_AI_TOKENS_LETTER
               + (k - NGX_HTTP_AI_TOKENS_LONG) * NGX_HTTP_AI_TOKENS_MORE;

    } else if (k > NGX_HTTP_AI_TOKENS_WORD) {
        sum += (k - NGX_HTTP_AI_TOKENS_WORD) * NGX_HTTP_AI_TOKENS_LETTER;
    }

    p += ngx_http_ai_tokens_contraction(p, last);

    *pos = p;

    return sum;
}


/* 's 't 'm 'd 're 've 'll go with the word */

static ngx_uint_t
ngx_http_ai_tokens_contraction(u_char *p, u_char *last)
{
    u_char      a, b;
    ngx_uint_t  n;

    if (last - p < 2 || *p != '\'') {
        return 0;
    }

    a = (u_char) (p[1] | 0x20);
    b = (u_char) ((last - p > 2) ? p[2] | 0x20 : 0);

    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e')
        || (a == 'l' && b == 'l'))
    {
        n = 3;

    } else if (a == 's' || a == 't' || a == 'm' || a == 'd') {
        n = 2;

    } else {
        return 0;
    }

    if ((size_t) (last - p) > n
        && (ngx_http_ai_tokens_class(p[n]) == sw_lower
            || ngx_http_ai_tokens_class(p[n]) == sw_upper))
    {
        return 0;
    }

    return n;
}


/* the price of a character; 0 for letters of words */

static uint64_t
ngx_http_ai_tokens_sign(uint32_t ch)
{
    ngx_uint_t                   low, high, i;
    ngx_http_ai_tokens_range_t  *r;

    r = ngx_http_ai_tokens_ranges;

    low = 0;
    high = sizeof(ngx_http_ai_tokens_ranges)
           / sizeof(ngx_http_ai_tokens_range_t) - 1;

    while (low < high) {
        i = (low + high) / 2;

        if (ch <= r[i].last) {
            high = i;

        } else {
            low = i + 1;
        }
    }

    return r[low].rate;
}


static uint32_t
ngx_http_ai_tokens_hex(u_char *p, u_char *last)
{
    u_char      ch;
    uint32_t    n;
    ngx_uint_t  i;

    if (last - p < 6 || p[0] != '\\' || p[1] != 'u') {
        return NGX_HTTP_AI_TOKENS_INVALID;
    }

    n = 0;

    for (i = 2; i < 6; i++) {
        ch = p[i];

        if (ch >= '0' && ch <= '9') {
            n = n * 16 + (ch - '0');
            continue;
        }

        ch |= 0x20;

        if (ch < 'a' || ch > 'f') {
            return NGX_HTTP_AI_TOKENS_INVALID;
        }

        n = n * 16 + (ch - 'a' + 10);
    }

    return n;
}


/* an escape or a UTF-8 sequence; what is neither is a byte of its own */

static uint32_t
ngx_http_ai_tokens_char(u_char *p, u_char *last, size_t *len)
{
    size_t      i, n;
    uint32_t    ch, low;

    if (*p == '\\') {
        *len = 2;

        if (last - p < 2) {
            *len = 1;
            return '\\';
        }

        switch (p[1]) {

        case 'n':
            return '\n';

        case 'r':
            return '\r';

        case 't':
            return '\t';

        case 'b':
        case 'f':
            return ' ';

        case '"':
        case '\\':
        case '/':
            return p[1];

        case 'u':

            ch = ngx_http_ai_tokens_hex(p, last);

            if (ch == NGX_HTTP_AI_TOKENS_INVALID) {
                break;
            }

            *len = 6;

            if (ch >= 0xd800 && ch <= 0xdbff) {
                low = ngx_http_ai_tokens_hex(p + 6, last);

                if (low >= 0xdc00 && low <= 0xdfff) {
                    *len = 12;
                    ch = 0x10000 + ((ch - 0xd800) << 10) + (low - 0xdc00);
                }
            }

            return ch;

        default:
            break;
        }

        *len = 1;

        return '\\';
    }

    ch = *p;

    if (ch >= 0xf0 && ch <= 0xf4) {
        n = 4;
        ch &= 0x07;

    } else if (ch >= 0xe0 && ch < 0xf0) {
        n = 3;
        ch &= 0x0f;

    } else if (ch >= 0xc2 && ch < 0xe0) {
        n = 2;
        ch &= 0x1f;

    } else {
        *len = 1;
        return 0xffff;
    }

    if ((size_t) (last - p) < n) {
        *len = 1;
        return 0xffff;
    }

    for (i = 1; i < n; i++) {

        if ((p[i] & 0xc0) != 0x80) {
            *len = 1;
            return 0xffff;
        }

        ch = (ch << 6) | (p[i] & 0x3f);
    }

    *len = n;

    /* an overlong form of something else */

    return (ch < 0x80) ? 0xffff : ch;
}
