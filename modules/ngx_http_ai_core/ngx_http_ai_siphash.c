
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_siphash.h"


#define ngx_http_ai_rotl(x, b)  (((x) << (b)) | ((x) >> (64 - (b))))

#define ngx_http_ai_sip_round(v)                                              \
    v[0] += v[1]; v[1] = ngx_http_ai_rotl(v[1], 13); v[1] ^= v[0];            \
    v[0] = ngx_http_ai_rotl(v[0], 32);                                        \
    v[2] += v[3]; v[3] = ngx_http_ai_rotl(v[3], 16); v[3] ^= v[2];            \
    v[0] += v[3]; v[3] = ngx_http_ai_rotl(v[3], 21); v[3] ^= v[0];            \
    v[2] += v[1]; v[1] = ngx_http_ai_rotl(v[1], 17); v[1] ^= v[2];            \
    v[2] = ngx_http_ai_rotl(v[2], 32)


static void ngx_http_ai_sip_begin(uint64_t *v, u_char *secret);
static void ngx_http_ai_sip_last(uint64_t *v, u_char *data, size_t len,
    uint64_t *tag, ngx_uint_t fast);


void
ngx_http_ai_siphash128(u_char *secret, u_char *data, size_t len, uint64_t *tag)
{
    u_char    *last;
    uint64_t   m, v[4];

    ngx_http_ai_sip_begin(v, secret);

    last = data + (len & ~(size_t) 7);

    for ( /* void */ ; data < last; data += 8) {
        ngx_memcpy(&m, data, 8);

        v[3] ^= m;
        ngx_http_ai_sip_round(v);
        ngx_http_ai_sip_round(v);
        v[0] ^= m;
    }

    ngx_http_ai_sip_last(v, data, len, tag, 0);
}


static void
ngx_http_ai_sip_begin(uint64_t *v, u_char *secret)
{
    uint64_t  k[2];

    ngx_memcpy(k, secret, sizeof(k));

    v[0] = k[0] ^ 0x736f6d6570736575;
    v[1] = k[1] ^ 0x646f72616e646f6d ^ 0xee;
    v[2] = k[0] ^ 0x6c7967656e657261;
    v[3] = k[1] ^ 0x7465646279746573;
}


/* "data" is the rest of a text of "len" bytes, less than a word */

static void
ngx_http_ai_sip_last(uint64_t *v, u_char *data, size_t len, uint64_t *tag,
    ngx_uint_t fast)
{
    u_char      tail[8];
    uint64_t    m;
    ngx_uint_t  n;

    ngx_memzero(tail, sizeof(tail));

    if (len & 7) {
        ngx_memcpy(tail, data, len & 7);
    }

    tail[7] = (u_char) len;
    ngx_memcpy(&m, tail, 8);

    v[3] ^= m;
    ngx_http_ai_sip_round(v);

    if (!fast) {
        ngx_http_ai_sip_round(v);
    }

    v[0] ^= m;

    v[2] ^= 0xee;

    for (n = 0; n < 2; n++) {
        ngx_http_ai_sip_round(v);
        ngx_http_ai_sip_round(v);
        ngx_http_ai_sip_round(v);

        if (!fast) {
            ngx_http_ai_sip_round(v);
        }

        tag[n] = v[0] ^ v[1] ^ v[2] ^ v[3];
        v[1] ^= 0xdd;
    }
}


void
ngx_http_ai_sip_init(ngx_http_ai_sip_t *sip, u_char *secret)
{
    ngx_http_ai_sip_begin(sip->v, secret);
    sip->size = 0;
}


void
ngx_http_ai_sip_words(ngx_http_ai_sip_t *sip, uint64_t *words, ngx_uint_t n)
{
    uint64_t    v[4];
    ngx_uint_t  i;

    ngx_memcpy(v, sip->v, sizeof(v));

    for (i = 0; i < n; i++) {
        v[3] ^= words[i];
        ngx_http_ai_sip_round(v);
        v[0] ^= words[i];
    }

    ngx_memcpy(sip->v, v, sizeof(v));
    sip->size += n * sizeof(uint64_t);
}


void
ngx_http_ai_sip_end(ngx_http_ai_sip_t *sip, u_char *rest, size_t len,
    uint64_t *tag)
{
    ngx_http_ai_sip_last(sip->v, rest, (size_t) sip->size + len, tag, 1);
}
