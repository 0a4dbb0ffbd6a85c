
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_auth_key.h"


/* what is accepted is what would have been written */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char           env[NGX_HTTP_AI_KEY_ENV_MAX + 1];
    size_t         len;
    u_char         key[NGX_HTTP_AI_KEY_MAX], id[NGX_HTTP_AI_KEY_ID],
                   secret[NGX_HTTP_AI_KEY_SECRET];
    const u_char  *p;

    if (ngx_http_ai_key_check(data, size, &p)) {
        len = p - 1 - (data + sizeof(NGX_HTTP_AI_KEY_PREFIX) - 1);
        memcpy(env, data + sizeof(NGX_HTTP_AI_KEY_PREFIX) - 1, len);
        env[len] = '\0';

        len = ngx_http_ai_key_write(key, env, p, p + NGX_HTTP_AI_KEY_ID);

        if (len != size || memcmp(key, data, len) != 0) {
            abort();
        }
    }

    /* a checksum is hard to guess, so keys are made as well */

    if (size < NGX_HTTP_AI_KEY_ID + NGX_HTTP_AI_KEY_SECRET) {
        return 0;
    }

    memcpy(id, data, NGX_HTTP_AI_KEY_ID);
    memcpy(secret, data + NGX_HTTP_AI_KEY_ID, NGX_HTTP_AI_KEY_SECRET);

    data += NGX_HTTP_AI_KEY_ID + NGX_HTTP_AI_KEY_SECRET;
    size -= NGX_HTTP_AI_KEY_ID + NGX_HTTP_AI_KEY_SECRET;

    len = ngx_min(size, NGX_HTTP_AI_KEY_ENV_MAX);
    memcpy(env, data, len);
    env[len] = '\0';

    len = ngx_http_ai_key_write(key, env, id, secret);

    if (len && ngx_http_ai_key_check(key, len, &p)
        && memcmp(p, id, NGX_HTTP_AI_KEY_ID) != 0)
    {
        abort();
    }

    return 0;
}
