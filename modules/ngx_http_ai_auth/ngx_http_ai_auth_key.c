
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_auth_key.h"

#include <stdint.h>
#include <string.h>


#define NGX_HTTP_AI_KEY_BASE        62
#define NGX_HTTP_AI_KEY_POLYNOMIAL  0xedb88320


static uint32_t ngx_http_ai_key_crc(const unsigned char *p, size_t len);
static void ngx_http_ai_key_crc_init(void);
static void ngx_http_ai_key_crc_text(unsigned char *dst, uint32_t crc);


static const char  ngx_http_ai_key_digits[] =
    "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";


/* made once, 4 bytes are done at a time */

static uint32_t  ngx_http_ai_key_crc_table[4][256];


int
ngx_http_ai_key_is_ours(const unsigned char *key, size_t len)
{
    return len >= sizeof(NGX_HTTP_AI_KEY_PREFIX) - 1
           && memcmp(key, NGX_HTTP_AI_KEY_PREFIX,
                     sizeof(NGX_HTTP_AI_KEY_PREFIX) - 1)
              == 0;
}


int
ngx_http_ai_key_check(const unsigned char *key, size_t len,
    const unsigned char **id)
{
    size_t                i, env;
    unsigned char         ch, crc[NGX_HTTP_AI_KEY_CRC];
    const unsigned char  *p;

    if (!ngx_http_ai_key_is_ours(key, len) || len > NGX_HTTP_AI_KEY_MAX) {
        return 0;
    }

    p = key + sizeof(NGX_HTTP_AI_KEY_PREFIX) - 1;
    len -= sizeof(NGX_HTTP_AI_KEY_PREFIX) - 1;

    if (len < 2 + NGX_HTTP_AI_KEY_ID + NGX_HTTP_AI_KEY_SECRET
              + NGX_HTTP_AI_KEY_CRC)
    {
        return 0;
    }

    env = len - 1 - NGX_HTTP_AI_KEY_ID - NGX_HTTP_AI_KEY_SECRET
          - NGX_HTTP_AI_KEY_CRC;

    for (i = 0; i < env; i++) {
        ch = p[i];

        if ((ch < 'a' || ch > 'z') && (ch < '0' || ch > '9')) {
            return 0;
        }
    }

    if (p[env] != '_') {
        return 0;
    }

    for (i = env + 1; i < len; i++) {
        ch = p[i];

        if ((ch < '0' || ch > '9')
            && ((ch | 0x20) < 'a' || (ch | 0x20) > 'z'))
        {
            return 0;
        }
    }

    ngx_http_ai_key_crc_text(crc,
                             ngx_http_ai_key_crc(key,
                                                 p + len - key
                                                 - NGX_HTTP_AI_KEY_CRC));

    if (memcmp(p + len - NGX_HTTP_AI_KEY_CRC, crc, NGX_HTTP_AI_KEY_CRC)
        != 0)
    {
        return 0;
    }

    *id = p + env + 1;

    return 1;
}


size_t
ngx_http_ai_key_write(unsigned char *dst, const char *env,
    const unsigned char *id, const unsigned char *secret)
{
    size_t          i, len;
    unsigned char  *p;

    len = strlen(env);

    if (len == 0 || len > NGX_HTTP_AI_KEY_ENV_MAX) {
        return 0;
    }

    for (i = 0; i < len; i++) {
        if ((env[i] < 'a' || env[i] > 'z') && (env[i] < '0' || env[i] > '9')) {
            return 0;
        }
    }

    p = dst;

    memcpy(p, NGX_HTTP_AI_KEY_PREFIX, sizeof(NGX_HTTP_AI_KEY_PREFIX) - 1);
    p += sizeof(NGX_HTTP_AI_KEY_PREFIX) - 1;

    memcpy(p, env, len);
    p += len;

    *p++ = '_';

    memcpy(p, id, NGX_HTTP_AI_KEY_ID);
    p += NGX_HTTP_AI_KEY_ID;

    memcpy(p, secret, NGX_HTTP_AI_KEY_SECRET);
    p += NGX_HTTP_AI_KEY_SECRET;

    ngx_http_ai_key_crc_text(p, ngx_http_ai_key_crc(dst, p - dst));
    p += NGX_HTTP_AI_KEY_CRC;

    return p - dst;
}


static uint32_t
ngx_http_ai_key_crc(const unsigned char *p, size_t len)
{
    uint32_t  crc, (*t)[256];

    t = ngx_http_ai_key_crc_table;

    if (t[0][1] == 0) {
        ngx_http_ai_key_crc_init();
    }

    crc = 0xffffffff;

    while (len >= 4) {
        crc ^= (uint32_t) p[0] | (uint32_t) p[1] << 8
               | (uint32_t) p[2] << 16 | (uint32_t) p[3] << 24;

        crc = t[3][crc & 0xff] ^ t[2][(crc >> 8) & 0xff]
              ^ t[1][(crc >> 16) & 0xff] ^ t[0][crc >> 24];

        p += 4;
        len -= 4;
    }

    while (len--) {
        crc = t[0][(crc ^ *p++) & 0xff] ^ (crc >> 8);
    }

    return crc ^ 0xffffffff;
}


static void
ngx_http_ai_key_crc_init(void)
{
    int        i, n;
    uint32_t   crc, (*t)[256];

    t = ngx_http_ai_key_crc_table;

    for (i = 0; i < 256; i++) {
        crc = i;

        for (n = 0; n < 8; n++) {
            crc = (crc & 1) ? (crc >> 1) ^ NGX_HTTP_AI_KEY_POLYNOMIAL
                            : crc >> 1;
        }

        t[0][i] = crc;
    }

    for (n = 1; n < 4; n++) {
        for (i = 0; i < 256; i++) {
            crc = t[n - 1][i];
            t[n][i] = t[0][crc & 0xff] ^ (crc >> 8);
        }
    }
}


static void
ngx_http_ai_key_crc_text(unsigned char *dst, uint32_t crc)
{
    int  i;

    for (i = NGX_HTTP_AI_KEY_CRC - 1; i >= 0; i--) {
        dst[i] = ngx_http_ai_key_digits[crc % NGX_HTTP_AI_KEY_BASE];
        crc /= NGX_HTTP_AI_KEY_BASE;
    }
}
