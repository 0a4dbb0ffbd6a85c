
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_log_text.h"


/* whatever the text: the inside of a JSON string, one line, within its room;
 * a text that is not changed by it stays as it is */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
prompt(void *data, ngx_str_t *role, ngx_str_t *raw, ngx_uint_t json)
{
    size_t  *left = data, len;

    /* reads every byte that it is given */

    len = ngx_http_ai_log_cut(raw->data, raw->len, *left, !json);

    while (len--) {
        *left ^= raw->data[len] & 0xff;
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t               i, left, n;
    u_char              *copy, *room, *last;
    ngx_pool_t          *pool;
    ngx_http_ai_json_t   j;

    copy = malloc(size ? size : 1);
    room = malloc(ngx_http_ai_log_room(size) + 2);

    memcpy(copy, data, size);

    room[0] = '"';
    last = ngx_http_ai_log_text(room + 1, copy, size);

    if ((size_t) (last - room - 1) > ngx_http_ai_log_room(size)) {
        abort();
    }

    *last++ = '"';

    for (i = 0; i < (size_t) (last - room); i++) {
        if (room[i] < 0x20) {
            abort();
        }
    }

    pool = ngx_create_pool(4096, NULL);

    memset(&j, 0, sizeof(ngx_http_ai_json_t));
    j.pool = pool;

    if (ngx_http_ai_json_parse(&j, room, last - room) != NGX_OK) {
        abort();
    }

    for (n = 0; n < size && n < 40; n++) {
        if (ngx_http_ai_log_cut(copy, size, n, 0) > n) {
            abort();
        }
    }

    memset(&j, 0, sizeof(ngx_http_ai_json_t));
    j.pool = pool;

    if (ngx_http_ai_json_parse(&j, copy, size) == NGX_OK) {
        left = 64;
        ngx_http_ai_log_prompt(&j, prompt, &left);
    }

    ngx_destroy_pool(pool);
    free(copy);
    free(room);

    return 0;
}
