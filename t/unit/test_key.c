
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include "ngx_http_ai_auth_key.h"


/* the checksums were computed with zlib's crc32() */

static struct {
    const char  *env;
    const char  *id;
    const char  *secret;
    const char  *crc;
} vectors[] = {
    { "live", "7Hx2m9Qa",
      "0123456789ABCDEFGHIJKLMNOPQRSTU",
      "1FSfq6" },
    { "test", "00000000",
      "0000000000000000000000000000000",
      "3UydTv" },
    { "a", "zzzzzzzz",
      "zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
      "0YX5f8" },
    { "0123456789abcdef", "AbCdEfGh",
      "abcdefghijklmnopqrstuvwxyz01234",
      "3z1U9A" }
};


static int
check(const u_char *key, size_t len)
{
    int             good;
    u_char         *copy;
    const u_char   *id;

    /* on the heap without a byte more, so that an overrun is seen */

    copy = malloc(len ? len : 1);
    memcpy(copy, key, len);

    id = NULL;
    good = ngx_http_ai_key_check(copy, len, &id);

    if (good) {
        good = (id > copy && id + NGX_HTTP_AI_KEY_ID < copy + len);
    }

    free(copy);

    return good;
}


static void
test_vectors(void)
{
    char            expected[256];
    size_t          len;
    u_char          key[NGX_HTTP_AI_KEY_MAX];
    ngx_uint_t      i;
    const u_char   *id;

    for (i = 0; i < sizeof(vectors) / sizeof(vectors[0]); i++) {
        len = ngx_http_ai_key_write(key, vectors[i].env,
                                    (u_char *) vectors[i].id,
                                    (u_char *) vectors[i].secret);

        snprintf(expected, sizeof(expected), "aigw_%s_%s%s%s", vectors[i].env,
                 vectors[i].id, vectors[i].secret, vectors[i].crc);

        is_mem(key, len, expected, strlen(expected), "a key is written");
        ok(check(key, len), "... and accepted");
        ok(ngx_http_ai_key_is_ours(key, len), "... as one of ours");
        ok(ngx_http_ai_key_check(key, len, &id)
           && memcmp(id, vectors[i].id, NGX_HTTP_AI_KEY_ID) == 0, "... id");
    }

    is_int(len, NGX_HTTP_AI_KEY_MAX, "the longest key");
}


static void
test_env(void)
{
    u_char       key[NGX_HTTP_AI_KEY_MAX];
    ngx_uint_t   i;

    static const char  *bad[] = { "", "Live", "li-ve", "li_ve", " ", "\x80",
                                  "0123456789abcdefg" };

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        is_int(ngx_http_ai_key_write(key, bad[i],
                                     (u_char *) vectors[0].id,
                                     (u_char *) vectors[0].secret),
               0, "a bad environment");
    }
}


/* whatever one byte becomes, the key is not accepted */

static void
test_bytes(void)
{
    size_t      len, i;
    u_char      key[NGX_HTTP_AI_KEY_MAX], ch;
    ngx_uint_t  n, accepted;

    len = ngx_http_ai_key_write(key, "live", (u_char *) vectors[0].id,
                                (u_char *) vectors[0].secret);
    accepted = 0;

    for (i = 0; i < len; i++) {
        ch = key[i];

        for (n = 0; n < 256; n++) {
            if (n != ch) {
                key[i] = (u_char) n;
                accepted += check(key, len);
            }
        }

        key[i] = ch;
    }

    is_int(accepted, 0, "one byte changed");

    for (i = 0; i + 1 < len; i++) {
        ch = key[i];

        if (ch == key[i + 1]) {
            continue;
        }

        key[i] = key[i + 1];
        key[i + 1] = ch;
        accepted += check(key, len);
        key[i + 1] = key[i];
        key[i] = ch;
    }

    is_int(accepted, 0, "two bytes swapped");

    for (i = 0; i < len; i++) {
        accepted += check(key, i);
    }

    is_int(accepted, 0, "cut");

    for (i = 0; i < len; i++) {
        accepted += check(key + len - i, i);
    }

    is_int(accepted, 0, "without its beginning");

    ok(check(key, len), "as it was");
}


static void
test_ours(void)
{
    ok(!ngx_http_ai_key_is_ours((u_char *) "", 0), "nothing");
    ok(!ngx_http_ai_key_is_ours((u_char *) "aigw", 4), "too short");
    ok(ngx_http_ai_key_is_ours((u_char *) "aigw_", 5), "the prefix");
    ok(!ngx_http_ai_key_is_ours((u_char *) "AIGW_x", 6), "case");
    ok(!ngx_http_ai_key_is_ours((u_char *) "sk-live", 7), "another's");
}


int
main(void)
{
    test_vectors();
    test_env();
    test_bytes();
    test_ours();

    return done_testing();
}
