
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


void
ngx_http_ai_siphash128(u_char *secret, u_char *data, size_t len, uint64_t *tag)
{
    u_char      tail[8];
    size_t      i;
    uint64_t    m, k[2], v[4];
    ngx_uint_t  n;

    ngx_memcpy(k, secret, sizeof(k));

    v[0] = k[0] ^ 0x736f6d6570736575;
    v[1] = k[1] ^ 0x646f72616e646f6d ^ 0xee;
    v[2] = k[0] ^ 0x6c7967656e657261;
    v[3] = k[1] ^ 0x7465646279746573;

    for (i = 0; len - i >= 8; i += 8) {
        ngx_memcpy(&m, data + i, 8);

        v[3] ^= m;
        ngx_http_ai_sip_round(v);
        ngx_http_ai_sip_round(v);
        v[0] ^= m;
    }

    ngx_memzero(tail, sizeof(tail));
    ngx_memcpy(tail, data + i, len - i);
    tail[7] = (u_char) len;
    ngx_memcpy(&m, tail, 8);

    v[3] ^= m;
    ngx_http_ai_sip_round(v);
    ngx_http_ai_sip_round(v);
    v[0] ^= m;

    v[2] ^= 0xee;

    for (n = 0; n < 2; n++) {
        ngx_http_ai_sip_round(v);
        ngx_http_ai_sip_round(v);
        ngx_http_ai_sip_round(v);
        ngx_http_ai_sip_round(v);

        tag[n] = v[0] ^ v[1] ^ v[2] ^ v[3];
        v[1] ^= 0xdd;
    }
}
