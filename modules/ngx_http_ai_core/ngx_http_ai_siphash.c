
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


static void ngx_http_ai_sip(u_char *secret, u_char *data, size_t len,
    uint64_t *tag, ngx_uint_t fast);


void
ngx_http_ai_siphash128(u_char *secret, u_char *data, size_t len, uint64_t *tag)
{
    ngx_http_ai_sip(secret, data, len, tag, 0);
}


void
ngx_http_ai_siphash128_fast(u_char *secret, u_char *data, size_t len,
    uint64_t *tag)
{
    ngx_http_ai_sip(secret, data, len, tag, 1);
}


static void
ngx_http_ai_sip(u_char *secret, u_char *data, size_t len, uint64_t *tag,
    ngx_uint_t fast)
{
    u_char      tail[8], *last;
    uint64_t    m, k[2], v[4];
    ngx_uint_t  n;

    ngx_memcpy(k, secret, sizeof(k));

    v[0] = k[0] ^ 0x736f6d6570736575;
    v[1] = k[1] ^ 0x646f72616e646f6d ^ 0xee;
    v[2] = k[0] ^ 0x6c7967656e657261;
    v[3] = k[1] ^ 0x7465646279746573;

    last = data + (len & ~(size_t) 7);

    if (fast) {
        for ( /* void */ ; data < last; data += 8) {
            ngx_memcpy(&m, data, 8);

            v[3] ^= m;
            ngx_http_ai_sip_round(v);
            v[0] ^= m;
        }

    } else {
        for ( /* void */ ; data < last; data += 8) {
            ngx_memcpy(&m, data, 8);

            v[3] ^= m;
            ngx_http_ai_sip_round(v);
            ngx_http_ai_sip_round(v);
            v[0] ^= m;
        }
    }

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
