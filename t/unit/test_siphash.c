
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include "ngx_http_ai_siphash.h"


/* vectors of the reference code: the key is 00 01 ... 0f, the text the first
 * bytes of 00 01 02 ... */

static struct {
    size_t       len;
    const char  *hex;
} vectors[] = {
    { 0, "a3817f04ba25a8e66df67214c7550293" },
    { 1, "da87c1d86b99af44347659119b22fc45" },
    { 2, "8177228da4a45dc7fca38bdef60affe4" },
    { 7, "a1f1ebbed8dbc153c0b84aa61ff08239" },
    { 8, "3b62a9ba6258f5610f83e264f31497b4" },
    { 15, "5493e99933b0a8117e08ec0f97cfc3d9" }
};


int
main(void)
{
    u_char     *copy, hex[32], key[16], text[64];
    size_t      i;
    uint64_t    tag[2], other[2];

    for (i = 0; i < sizeof(text); i++) {
        text[i] = (u_char) i;
    }

    memcpy(key, text, sizeof(key));

    for (i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        copy = test_copy(text, vectors[i].len);

        ngx_http_ai_siphash128(key, copy, vectors[i].len, tag);
        free(copy);

        (void) ngx_hex_dump(hex, (u_char *) tag, sizeof(tag));

        is_mem(hex, sizeof(hex), vectors[i].hex, 32, "vector");
    }

    /* each byte of the text and of the key counts */

    ngx_http_ai_siphash128(key, text, sizeof(text), tag);

    for (i = 0; i < sizeof(text); i++) {
        text[i] ^= 1;
        ngx_http_ai_siphash128(key, text, sizeof(text), other);
        text[i] ^= 1;

        ok(memcmp(tag, other, sizeof(tag)) != 0, "another text");
    }

    for (i = 0; i < sizeof(key); i++) {
        key[i] ^= 1;
        ngx_http_ai_siphash128(key, text, sizeof(text), other);
        key[i] ^= 1;

        ok(memcmp(tag, other, sizeof(tag)) != 0, "another secret");
    }

    return done_testing();
}
