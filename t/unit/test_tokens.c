
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include "ngx_http_ai_json.h"
#include "ngx_http_ai_tokens.h"


static ngx_pool_t  *pool;


static uint64_t
raw(const char *text)
{
    u_char    *p;
    uint64_t   n;

    p = test_copy(text, strlen(text));
    n = ngx_http_ai_tokens_raw(p, strlen(text));
    free(p);

    return n;
}


static void
same(const char *plain, const char *escaped)
{
    uint64_t  a, b;

    a = raw(plain);
    b = raw(escaped);

    if (!ok(a == b, "%s as it stands for", escaped)) {
        diag("%u and %u", (unsigned) a, (unsigned) b);
    }
}


static void
vectors(void)
{
    u_char              *p;
    size_t               len;
    int64_t              n;
    double               ratio;
    uint64_t             got;
    ngx_str_t            text, name;
    ngx_uint_t           i, k, prose;
    ngx_http_ai_json_t   j;

    static const char *const  close[] = {
        "hello", "contractions", "url", "c-code", "markdown", "german-long",
        "json-long", "log-lines", "russian", "japanese", "hindi",
        "vietnamese", "greek", NULL
    };

    p = test_read("tokenizer/vectors.json", &len);

    if (p == NULL) {
        skip("no recordings: set AI_FIXTURES");
        return;
    }

    ngx_memzero(&j, sizeof(j));
    j.pool = pool;

    if (!ok(ngx_http_ai_json_parse(&j, p, len) == NGX_OK, "vectors")) {
        free(p);
        return;
    }

    for (i = ngx_http_ai_json_first(&j, 0);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(&j, 0, i))
    {
        name = ngx_http_ai_json_raw(&j, ngx_http_ai_json_member(&j, i,
                                                                "name"));
        text = ngx_http_ai_json_raw(&j, ngx_http_ai_json_member(&j, i,
                                                                "text"));

        k = ngx_http_ai_json_member(&j, i, "o200k_base");
        k = ngx_http_ai_json_member(&j, k, "n");

        if (ngx_http_ai_json_int(&j, k, &n) != NGX_OK || n == 0) {
            ok(0, "count of %.*s", (int) name.len, name.data);
            continue;
        }

        got = ngx_http_ai_tokens_raw(text.data, text.len);
        ratio = got / 100.0 / n;

        prose = 0;

        for (k = 0; close[k]; k++) {
            prose |= (name.len == strlen(close[k])
                      && memcmp(name.data, close[k], name.len) == 0);
        }

        ok(prose ? ratio >= 0.85 && ratio <= 1.155
                 : ratio >= 0.6 && ratio <= 1.5,
           "%.*s: %.2f of %d, %+.0f%%", (int) name.len, name.data,
           got / 100.0, (int) n, (ratio - 1) * 100);
    }

    free(p);
}


static void
prefixes(void)
{
    u_char    *p;
    size_t     n;
    ngx_uint_t  bad;

    static const char  text[] =
        "A\\n\\u00e9\\ud83d\\ude00\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80 "
        "don't 12345 {\\\"a\\\":1}\\\\ \xd0\x9f\xd1\x80  \\q \\u12 \xff";

    bad = 0;

    /* any cut is read within its bounds, and gives something */

    for (n = 0; n < sizeof(text); n++) {
        p = test_copy(text, n);
        bad += (n > 0) != (ngx_http_ai_tokens_raw(p, n) > 0);
        free(p);

        p = test_copy(text + n, sizeof(text) - 1 - n);
        (void) ngx_http_ai_tokens_raw(p, sizeof(text) - 1 - n);
        free(p);
    }

    ok(bad == 0, "cut anywhere");
}


/*
 * Blocks of plain text are counted at once: as word by word, the sums are
 * those of the code without blocks.
 */

static void
blocks(void)
{
    char        *p;
    size_t       i, k, len, n;
    uint32_t     seed;
    uint64_t     sum;

    static const struct {
        const char  *of;
        uint64_t     sum;
    } texts[] = {
        { "etaoin shrdlu", 10997457197655095586U },
        { "ab cd", 5947969736302111946U },
        { "The end, or: so - far. ", 456811515716373533U },
        { "aB c D", 14547230862169154092U },
        { "aeiou\\n\\\" ,;'s't 0123", 9805169241930387798U },
        { "a", 9085882850314116756U },
        { "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa ",
          11594736342079179601U },
        { "bc d\xc3\xa9", 14027962604777474162U }
    };

    seed = 1;

    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        n = strlen(texts[i].of);
        sum = 0;

        for (len = 1; len < 300; len++) {
            p = malloc(len);

            for (k = 0; k < len; k++) {
                seed = seed * 1103515245 + 12345;
                p[k] = texts[i].of[(seed >> 16) % n];
            }

            sum = sum * 31 + ngx_http_ai_tokens_raw((u_char *) p, len);
            free(p);
        }

        if (!ok(sum == texts[i].sum, "blocks of \"%s\"", texts[i].of)) {
            diag("%llu", (unsigned long long) sum);
        }
    }
}


/* limits take the bytes of a request for a bound */

static void
bound(void)
{
    char         text[64];
    size_t       len;
    ngx_uint_t   i, k, n, bad;

    static char  *pieces[] = {
        "a", "B", " ", "1", ".", "'s", "\\n", "\\\"", "\\u0041",
        "\xc3\xa9", "\xd0\xbf", "\xc9\x90", "\xe4\xb8\x96",
        "\xe1\x84\x80", "\xee\x80\x80", "\xf0\x9f\x99\x82",
        "\xf4\x8f\xbf\xbf", "abcdefgh"
    };

    enum { npieces = sizeof(pieces) / sizeof(pieces[0]), most = 4 };

    bad = 0;

    for (n = 0; n < npieces * npieces * npieces * npieces; n++) {
        len = 0;

        for (i = 0, k = n; i < most; i++, k /= npieces) {
            memcpy(text + len, pieces[k % npieces],
                   strlen(pieces[k % npieces]));
            len += strlen(pieces[k % npieces]);

            bad += (ngx_http_ai_tokens_raw((u_char *) text, len)
                    > 100 * len);
        }
    }

    is_int(bad, 0, "no more tokens than bytes");
}


int
main(void)
{
    char      *p;
    uint64_t   a, b;
    ngx_int_t  n;

    pool = ngx_create_pool(4096, NULL);

    is_int(ngx_http_ai_tokens_raw(NULL, 0), 0, "nothing");
    is_int(raw("hello world"), 200, "two words");
    is_int(raw("12345"), 200, "digits by three");
    is_int(ngx_http_ai_tokens_round((uint64_t) 0), 0, "round 0");
    is_int(ngx_http_ai_tokens_round((uint64_t) 1), 1, "round up");
    is_int(ngx_http_ai_tokens_round((uint64_t) 200), 2, "round even");

    same("a\nb c\n\n  d", "a\\nb c\\n\\n  d");
    same("say \"yes\" a/b", "say \\\"yes\\\" a\\/b");
    same("l'\xc3\xa9t\xc3\xa9 fut", "l'\\u00e9t\\u00e9 fut");
    same("word", "\\u0077ord");
    same("\xf0\x9f\x98\x80 ok", "\\ud83d\\ude00 ok");
    same("\xe4\xb8\x96\xe7\x95\x8c", "\\u4e16\\u754c");
    same("\xd0\x9f\xd1\x80\xd0\xb8\xd0\xb2\xd0\xb5\xd1\x82",
         "\\u041f\\u0440\\u0438\\u0432\\u0435\\u0442");

    prefixes();
    blocks();
    bound();
    vectors();

    /* linear: twice the text is twice the count */

    p = malloc(200001);

    for (n = 0; n < 200000; n += 10) {
        memcpy(p + n, "word, 12\\n ", 10);
    }

    a = ngx_http_ai_tokens_raw((u_char *) p, 100000);
    b = ngx_http_ai_tokens_raw((u_char *) p, 200000);

    ok(b >= a * 2 - 200 && b <= a * 2 + 200, "proportional");

    free(p);

    ngx_destroy_pool(pool);

    is_int(stub_alive, 0, "nothing is left");

    return done_testing();
}
