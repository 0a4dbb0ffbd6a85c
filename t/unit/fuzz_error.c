
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The first byte is a status, the others are what a provider says with it:
 * whatever that is, there is a class and a short clean message.
 */


#include "test.h"
#include "ngx_http_ai_pivot.h"


#define check(x)                                                              \
    do {                                                                      \
        if (!(x)) {                                                           \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);           \
            abort();                                                          \
        }                                                                     \
    } while (0)


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
clean(ngx_str_t *s, size_t max)
{
    size_t  i;

    check(s->len <= max);

    for (i = 0; i < s->len; i++) {
        check(s->data[i] >= 0x20 && s->data[i] != 0x7f);
    }

    /* a key at the start of a word is never shown */

    for (i = 0; i + 8 <= s->len; i++) {
        check((i != 0 && s->data[i - 1] != ' ')
              || memcmp(s->data + i, "sk-", 3) != 0
              || !isalnum(s->data[i + 3]) || !isalnum(s->data[i + 4])
              || !isalnum(s->data[i + 5]) || !isalnum(s->data[i + 6])
              || !isalnum(s->data[i + 7]));
    }
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    u_char               *text;
    int64_t               wait;
    ngx_str_t             value, none;
    ngx_uint_t            status;
    ngx_pool_t           *pool;
    ngx_http_ai_error_t   err;

    if (size == 0) {
        return 0;
    }

    status = (data[0] < 56) ? 200 : 400 + (data[0] - 56) % 130;

    data++;
    size--;

    pool = ngx_create_pool(4096, NULL);
    text = test_copy(data, size);

    check(ngx_http_ai_error_read(pool, status, text, size, &err) == NGX_OK);

    /* nothing points into the body */

    memset(text, 'x', size);
    free(text);

    check(err.class > NGX_HTTP_AI_ERR_NONE
          && err.class < NGX_HTTP_AI_ERR_MAX);
    check(err.status >= 400 && err.status <= 599);
    check(err.message.len > 0);

    clean(&err.message, 1024);
    clean(&err.type, 256);
    clean(&err.code, 256);
    clean(&err.param, 256);

    text = test_copy(data, size);
    value.data = text;
    value.len = size;
    ngx_str_null(&none);

    wait = ngx_http_ai_retry_after(&value, &none, 1790000000);
    check(wait >= -1);

    wait = ngx_http_ai_retry_after(&none, &value, 1790000000);
    check(wait >= -1);

    wait = ngx_http_ai_retry_after(&value, &value, 0);
    check(wait >= -1);

    free(text);
    ngx_destroy_pool(pool);
    check(stub_alive == 0);

    return 0;
}
