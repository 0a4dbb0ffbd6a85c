
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <string.h>
#include "ngx_http_ai_auth_key.h"


static int ngx_http_ai_key_digit(unsigned char ch);
static void ngx_http_ai_key_crc(unsigned char *dst, const unsigned char *key,
    size_t len);


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
    size_t         i, env;
    unsigned char  crc[NGX_HTTP_AI_KEY_CRC];

    const size_t  prefix = sizeof(NGX_HTTP_AI_KEY_PREFIX) - 1;
    const size_t  rest = NGX_HTTP_AI_KEY_ID + NGX_HTTP_AI_KEY_SECRET
                         + NGX_HTTP_AI_KEY_CRC;

    if (!ngx_http_ai_key_is_ours(key, len)
        || len < prefix + 1 + 1 + rest || len > NGX_HTTP_AI_KEY_MAX)
    {
        return 0;
    }

    env = len - rest - 1;

    for (i = prefix; i < env; i++) {
        if (!((key[i] >= 'a' && key[i] <= 'z')
              || (key[i] >= '0' && key[i] <= '9')))
        {
            return 0;
        }
    }

    if (key[env] != '_') {
        return 0;
    }

    for (i = env + 1; i < len; i++) {
        if (!ngx_http_ai_key_digit(key[i])) {
            return 0;
        }
    }

    ngx_http_ai_key_crc(crc, key, len - NGX_HTTP_AI_KEY_CRC);

    if (memcmp(crc, key + len - NGX_HTTP_AI_KEY_CRC, NGX_HTTP_AI_KEY_CRC)
        != 0)
    {
        return 0;
    }

    *id = key + env + 1;

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
        if (!((env[i] >= 'a' && env[i] <= 'z')
              || (env[i] >= '0' && env[i] <= '9')))
        {
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

    ngx_http_ai_key_crc(p, dst, (size_t) (p - dst));
    p += NGX_HTTP_AI_KEY_CRC;

    return (size_t) (p - dst);
}


static int
ngx_http_ai_key_digit(unsigned char ch)
{
    return (ch >= '0' && ch <= '9') || (ch >= 'A' && ch <= 'Z')
           || (ch >= 'a' && ch <= 'z');
}


/* CRC-32 (IEEE) by the bit: a key is short */

static void
ngx_http_ai_key_crc(unsigned char *dst, const unsigned char *key, size_t len)
{
    size_t         i;
    unsigned int   bit;
    unsigned long  crc;

    static const char  digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "abcdefghijklmnopqrstuvwxyz";

    crc = 0xffffffff;

    for (i = 0; i < len; i++) {
        crc ^= key[i];

        for (bit = 0; bit < 8; bit++) {
            crc = (crc & 1) ? (crc >> 1) ^ 0xedb88320 : crc >> 1;
        }
    }

    crc = (crc ^ 0xffffffff) & 0xffffffff;

    for (i = NGX_HTTP_AI_KEY_CRC; i > 0; i--) {
        dst[i - 1] = (unsigned char) digits[crc % 62];
        crc /= 62;
    }
}
