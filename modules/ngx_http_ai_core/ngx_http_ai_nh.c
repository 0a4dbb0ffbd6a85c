
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_nh.h"


/* so many words are hashed together, at least; there is room for those of one
 * more text */

#define NGX_HTTP_AI_NH_WORDS  32


typedef struct {
    ngx_http_ai_sip_t          sip;
    ngx_uint_t                 n;
    uint64_t                   words[NGX_HTTP_AI_NH_WORDS
                                     + NGX_HTTP_AI_NH_MIN / 8];
} ngx_http_ai_nh_out_t;


static void ngx_http_ai_nh_text(ngx_http_ai_nh_t *nh,
    ngx_http_ai_nh_out_t *out, u_char *p, size_t len);
static void ngx_http_ai_nh_block(uint64_t *k, u_char *p, size_t len,
    uint64_t *sum);


static ngx_inline void
ngx_http_ai_nh_room(ngx_http_ai_nh_out_t *out)
{
    if (out->n >= NGX_HTTP_AI_NH_WORDS) {
        ngx_http_ai_sip_words(&out->sip, out->words, out->n);
        out->n = 0;
    }
}


/* sum += a * b, 128 bits */

static ngx_inline void
ngx_http_ai_nh_add(uint64_t *sum, uint64_t a, uint64_t b)
{
    uint64_t  low, high;

#if defined __SIZEOF_INT128__

    unsigned __int128  product;

    product = (unsigned __int128) a * b;
    low = (uint64_t) product;
    high = (uint64_t) (product >> 64);

#else

    uint64_t  middle, c, d;

    c = (a >> 32) * (uint32_t) b;
    d = (uint32_t) a * (b >> 32);

    low = (uint64_t) (uint32_t) a * (uint32_t) b;
    middle = (low >> 32) + (uint32_t) c + (uint32_t) d;

    low = (middle << 32) | (uint32_t) low;
    high = (a >> 32) * (b >> 32) + (c >> 32) + (d >> 32) + (middle >> 32);

#endif

    sum[0] += low;
    sum[1] += high + (sum[0] < low);
}


void
ngx_http_ai_nh_init(ngx_http_ai_nh_t *nh, u_char *secret)
{
    uint32_t    n;
    uint64_t    tag[2];
    ngx_uint_t  i;

    n = 0;

    ngx_http_ai_siphash128(secret, (u_char *) &n, sizeof(n), tag);
    ngx_memcpy(nh->secret, tag, sizeof(tag));

    for (i = 0; i < NGX_HTTP_AI_NH_BLOCK / 8 + 2; i += 2) {
        n++;

        ngx_http_ai_siphash128(secret, (u_char *) &n, sizeof(n), tag);

        nh->key[i] = tag[0];
        nh->key[i + 1] = tag[1];
    }
}


void
ngx_http_ai_nh_tag(ngx_http_ai_nh_t *nh, ngx_str_t *texts, ngx_uint_t n,
    uint64_t *tag)
{
    ngx_uint_t            i;
    ngx_http_ai_nh_out_t  out;

    ngx_http_ai_sip_init(&out.sip, nh->secret);
    out.n = 0;

    for (i = 0; i < n; i++) {
        ngx_http_ai_nh_text(nh, &out, texts[i].data, texts[i].len);

        /* behind its text, so that from the end each tells where the next
         * one is */

        ngx_http_ai_nh_room(&out);
        out.words[out.n++] = texts[i].len;
    }

    ngx_http_ai_sip_words(&out.sip, out.words, out.n);
    ngx_http_ai_sip_end(&out.sip, NULL, 0, tag);
}


static void
ngx_http_ai_nh_text(ngx_http_ai_nh_t *nh, ngx_http_ai_nh_out_t *out, u_char *p,
    size_t len)
{
    size_t      n, size;
    ngx_uint_t  compress;

    compress = (len >= NGX_HTTP_AI_NH_MIN);
    size = compress ? NGX_HTTP_AI_NH_BLOCK : NGX_HTTP_AI_NH_MIN;

    for ( /* void */ ; len; p += n, len -= n) {
        n = ngx_min(len, size);

        ngx_http_ai_nh_room(out);

        if (compress) {
            ngx_http_ai_nh_block(nh->key, p, n, &out->words[out->n]);
            out->n += 4;

        } else {
            /* zeros behind the last byte */
            out->words[out->n + (n - 1) / 8] = 0;
            ngx_memcpy(&out->words[out->n], p, n);
            out->n += (n + 7) / 8;
        }
    }
}


static void
ngx_http_ai_nh_block(uint64_t *k, u_char *p, size_t len, uint64_t *sum)
{
    u_char    *last, rest[16];
    uint64_t   a, b, one[2], two[2];

    one[0] = one[1] = 0;
    two[0] = two[1] = 0;

    last = p + (len & ~(size_t) 15);

    for ( /* void */ ; p < last; p += 16) {
        ngx_memcpy(&a, p, 8);
        ngx_memcpy(&b, p + 8, 8);

        ngx_http_ai_nh_add(one, a + k[0], b + k[1]);
        ngx_http_ai_nh_add(two, a + k[2], b + k[3]);

        k += 2;
    }

    if (len & 15) {
        ngx_memzero(rest, sizeof(rest));
        ngx_memcpy(rest, p, len & 15);

        ngx_memcpy(&a, rest, 8);
        ngx_memcpy(&b, rest + 8, 8);

        ngx_http_ai_nh_add(one, a + k[0], b + k[1]);
        ngx_http_ai_nh_add(two, a + k[2], b + k[3]);
    }

    sum[0] = one[0];
    sum[1] = one[1];
    sum[2] = two[0];
    sum[3] = two[1];
}
