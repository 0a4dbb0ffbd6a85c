
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include "ngx_http_ai_siphash.h"
#include "siphash.h"


typedef void (*hash_pt)(u_char *secret, u_char *data, size_t len,
    uint64_t *tag);

typedef struct {
    size_t       len;
    const char  *hex;
} vector_t;


/* the key is 00 01 ... 0f, the text the first bytes of 00 01 02 ...; of the
 * reference code */

static vector_t  vectors[] = {
    { 0, "a3817f04ba25a8e66df67214c7550293" },
    { 1, "da87c1d86b99af44347659119b22fc45" },
    { 2, "8177228da4a45dc7fca38bdef60affe4" },
    { 7, "a1f1ebbed8dbc153c0b84aa61ff08239" },
    { 8, "3b62a9ba6258f5610f83e264f31497b4" },
    { 15, "5493e99933b0a8117e08ec0f97cfc3d9" },
    { 0, NULL }
};

/* of a program that makes those above too, with 1 and 3 rounds */

static vector_t  vectors_fast[] = {
    { 0, "e77ebcb22788a5befd62db6add303001" },
    { 1, "fc6f370460d3eda85e0573cc2b2ff063" },
    { 2, "75787f090569839b855bc9548c6aea95" },
    { 7, "1084b923f2aae0c3a62f2ec80848ab77" },
    { 8, "aa12fee1d5e3dab4724f16ab35f9c799" },
    { 15, "c17e5505b2bd526c2921cdec1e7e0109" },
    { 16, "d0a8d95715518eebb513b0f83d9e1793" },
    { 63, "4c5800e34efe426f079f6b0aa75260ad" },
    { 0, NULL }
};


static void
test_hash(hash_pt hash, vector_t *v)
{
    u_char    *copy, hex[32], key[16], text[64];
    size_t     i;
    uint64_t   tag[2], other[2];

    for (i = 0; i < sizeof(text); i++) {
        text[i] = (u_char) i;
    }

    memcpy(key, text, sizeof(key));

    for ( /* void */ ; v->hex; v++) {
        copy = test_copy(text, v->len);

        hash(key, copy, v->len, tag);
        free(copy);

        (void) ngx_hex_dump(hex, (u_char *) tag, sizeof(tag));

        is_mem(hex, sizeof(hex), v->hex, 32, "vector");
    }

    /* each byte of the text and of the key counts */

    hash(key, text, sizeof(text), tag);

    for (i = 0; i < sizeof(text); i++) {
        text[i] ^= 1;
        hash(key, text, sizeof(text), other);
        text[i] ^= 1;

        ok(memcmp(tag, other, sizeof(tag)) != 0, "another text");
    }

    for (i = 0; i < sizeof(key); i++) {
        key[i] ^= 1;
        hash(key, text, sizeof(text), other);
        key[i] ^= 1;

        ok(memcmp(tag, other, sizeof(tag)) != 0, "another secret");
    }
}


int
main(void)
{
    test_hash(ngx_http_ai_siphash128, vectors);
    test_hash(siphash_fast, vectors_fast);

    return done_testing();
}
