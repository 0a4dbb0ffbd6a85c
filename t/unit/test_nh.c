
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Tags, and the same ones made another way: products bit by bit, and one
 * SipHash of all results.
 */


#include "test.h"
#include "ngx_http_ai_nh.h"
#include "siphash.h"


#define WORDS  (NGX_HTTP_AI_NH_BLOCK / 8 + 2)


static u_char            secret[17] = "sixteen bytes of";
static ngx_http_ai_nh_t  nh;


/* of the text and zeros behind it */

static uint64_t
word(u_char *p, size_t len, size_t at)
{
    u_char    buf[8];
    size_t    i;
    uint64_t  w;

    for (i = 0; i < 8; i++) {
        buf[i] = (at + i < len) ? p[at + i] : 0;
    }

    memcpy(&w, buf, 8);

    return w;
}


static void
add(uint64_t *sum, uint64_t low, uint64_t high)
{
    sum[0] += low;
    sum[1] += high + (sum[0] < low);
}


static void
add_product(uint64_t *sum, uint64_t a, uint64_t b)
{
    ngx_uint_t  i;

    for (i = 0; i < 64; i++) {
        if ((b >> i) & 1) {
            add(sum, a << i, i ? a >> (64 - i) : 0);
        }
    }
}


static u_char *
reference_text(u_char *dst, uint64_t *key, u_char *p, size_t len)
{
    size_t      n, at;
    uint64_t    sum[4], w;
    ngx_uint_t  i;

    if (len >= NGX_HTTP_AI_NH_MIN) {

        for ( /* void */ ; len; p += n, len -= n) {
            n = ngx_min(len, NGX_HTTP_AI_NH_BLOCK);

            memset(sum, 0, sizeof(sum));

            for (at = 0; at < n; at += 16) {
                for (i = 0; i < 2; i++) {
                    add_product(&sum[2 * i],
                                word(p, n, at) + key[at / 8 + 2 * i],
                                word(p, n, at + 8) + key[at / 8 + 2 * i + 1]);
                }
            }

            memcpy(dst, sum, sizeof(sum));
            dst += sizeof(sum);
        }

        return dst;
    }

    for (at = 0; at < len; at += 8) {
        w = word(p, len, at);
        memcpy(dst, &w, 8);
        dst += 8;
    }

    return dst;
}


static void
reference(ngx_str_t *texts, ngx_uint_t n, uint64_t *tag)
{
    u_char      *buf, *p, own[16];
    size_t       size;
    uint32_t     k;
    uint64_t     key[WORDS], len;
    ngx_uint_t   i;

    for (k = 0; k <= WORDS / 2; k++) {
        ngx_http_ai_siphash128(secret, (u_char *) &k, sizeof(k), tag);

        if (k == 0) {
            memcpy(own, tag, sizeof(own));

        } else {
            memcpy(&key[2 * (k - 1)], tag, 16);
        }
    }

    size = 0;

    for (i = 0; i < n; i++) {
        size += texts[i].len + 16;
    }

    buf = malloc(size);
    p = buf;

    for (i = 0; i < n; i++) {
        p = reference_text(p, key, texts[i].data, texts[i].len);

        len = texts[i].len;
        memcpy(p, &len, 8);
        p += 8;
    }

    siphash_fast(own, buf, p - buf, tag);

    free(buf);
}


static void
test_reference(void)
{
    u_char      *p;
    size_t       len, i;
    uint64_t     tag[2], other[2];
    ngx_str_t    texts[2];
    ngx_uint_t   wrong;

    wrong = 0;

    for (len = 0; len < 3 * NGX_HTTP_AI_NH_BLOCK + 40;
         len += (len < 300 || len % 1024 > 1000 || len % 1024 < 40) ? 1 : 13)
    {
        /* of its own size, so that reading behind it is seen */

        p = malloc(len ? len : 1);

        for (i = 0; i < len; i++) {
            /* carries of all lengths */
            p[i] = (len & 1) ? 0xff : (u_char) (i * 151 + len);
        }

        texts[0].data = p;
        texts[0].len = len;
        texts[1].data = p + len / 3;
        texts[1].len = len - len / 3;

        for (i = 0; i <= 2; i++) {
            ngx_http_ai_nh_tag(&nh, texts, i, tag);
            reference(texts, i, other);

            wrong += (memcmp(tag, other, sizeof(tag)) != 0);
        }

        free(p);
    }

    ok(wrong == 0, "the same as of the reference");
}


/* each bit of texts of these lengths, and each length, has its own tag */

static void
test_bits(void)
{
    u_char      text[2 * NGX_HTTP_AI_NH_BLOCK];
    size_t      i, len;
    uint64_t    tag[2], other[2];
    ngx_str_t   s;
    ngx_uint_t  n, k, same;

    static size_t  lens[] = { 1, 15, 127, 128, 129, 1023, 1024, 1025, 2048 };

    memset(text, 0, sizeof(text));
    s.data = text;
    same = 0;

    for (n = 0; n < sizeof(lens) / sizeof(lens[0]); n++) {
        s.len = lens[n];
        ngx_http_ai_nh_tag(&nh, &s, 1, tag);

        for (i = 0; i < 8 * s.len; i++) {
            text[i / 8] ^= 1 << (i % 8);
            ngx_http_ai_nh_tag(&nh, &s, 1, other);
            text[i / 8] ^= 1 << (i % 8);

            for (k = 0; k < 2; k++) {
                same += (tag[k] == other[k]);
            }
        }
    }

    ok(same == 0, "another bit, both words of the tag are others");

    for (len = 1; len <= sizeof(text); len++) {
        s.len = len - 1;
        ngx_http_ai_nh_tag(&nh, &s, 1, tag);
        s.len = len;
        ngx_http_ai_nh_tag(&nh, &s, 1, other);

        same += (memcmp(tag, other, sizeof(tag)) == 0);
    }

    ok(same == 0, "another number of zeros");
}


static void
test_texts(void)
{
    size_t            i;
    u_char            text[400];
    uint64_t          tag[2], other[2];
    ngx_str_t         s[2];
    ngx_uint_t        same;
    ngx_http_ai_nh_t  copy;

    memset(text, 'x', sizeof(text));

    s[0].data = text;
    s[0].len = 200;
    s[1].data = text + 200;
    s[1].len = 200;

    ngx_http_ai_nh_tag(&nh, s, 2, tag);

    same = 0;

    for (i = 0; i <= sizeof(text); i++) {
        s[0].len = i;
        s[1].data = text + i;
        s[1].len = sizeof(text) - i;

        ngx_http_ai_nh_tag(&nh, s, 2, other);

        same += (memcmp(tag, other, sizeof(tag)) == 0);
    }

    ok(same == 1, "the same bytes, cut elsewhere");

    for (i = 0; i < 16; i++) {
        secret[i] ^= 1;
        ngx_http_ai_nh_init(&copy, secret);
        secret[i] ^= 1;

        s[0].len = 200;
        s[1].data = text + 200;
        s[1].len = 200;

        ngx_http_ai_nh_tag(&copy, s, 2, other);

        ok(memcmp(tag, other, sizeof(tag)) != 0, "another secret");
    }

    /* no two words of the key are the same */

    same = 0;

    for (i = 1; i < WORDS; i++) {
        same += (nh.key[i] == nh.key[i - 1]);
    }

    ok(same == 0 && memcmp(nh.secret, nh.key, 16) != 0
       && memcmp(nh.secret, secret, 16) != 0,
       "all keys");

    /* each is used for a whole block */

    for (i = 0; i < WORDS; i++) {
        copy = nh;
        copy.key[i] ^= (uint64_t) 1 << 63;

        s[0].data = malloc(NGX_HTTP_AI_NH_BLOCK);
        s[0].len = NGX_HTTP_AI_NH_BLOCK;
        memset(s[0].data, 'y', s[0].len);

        ngx_http_ai_nh_tag(&nh, s, 1, tag);
        ngx_http_ai_nh_tag(&copy, s, 1, other);

        same += (memcmp(tag, other, sizeof(tag)) == 0);

        free(s[0].data);
    }

    ok(same == 0, "each word of the key counts");
}


int
main(void)
{
    ngx_http_ai_nh_init(&nh, secret);

    test_reference();
    test_bits();
    test_texts();

    return done_testing();
}
