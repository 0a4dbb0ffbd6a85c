
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include "ngx_http_ai_log_text.h"


static struct {
    const char  *name;
    const char  *from;
    const char  *to;
} texts[] = {
    { "nothing", "", "" },
    { "a letter", "a", "a" },
    { "three", "abc", "abc" },
    { "seven", "abcdefg", "abcdefg" },
    { "eight", "abcdefgh", "abcdefgh" },
    { "fifteen", "abcdefghijklmno", "abcdefghijklmno" },
    { "sixteen", "abcdefghijklmnop", "abcdefghijklmnop" },
    { "seventeen", "abcdefghijklmnopq", "abcdefghijklmnopq" },
    { "DEL", "\x7f", "\x7f" },
    { "a line", "a\r\nb", "a\\r\\nb" },
    { "a quote", "a\"b\\", "a\\\"b\\\\" },
    { "controls", "\x01\x1f\t", "\\u0001\\u001f\\t" },
    { "UTF-8", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80",
      "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80" },
    { "not UTF-8", "a\xff" "b\xc3", "a\xef\xbf\xbd" "b\xef\xbf\xbd" },
    { "surrogate", "\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd" },
    { "line separators", "a\xe2\x80\xa8" "b\xe2\x80\xa9\xc2\x85",
      "a\\u2028b\\u2029\\u0085" },
    { "cut line separator", "\xe2\x80", "\xef\xbf\xbd" },
    { "in another one", "\xf0\x9f\xe2\x80\xa8", "\xef\xbf\xbd\\u2028" },
    { "in a long text", "0123456789abcdef0123456789\xe2\x80\xa8" "b",
      "0123456789abcdef0123456789\\u2028b" },
    { "at the end", "0123456789abcdef\n", "0123456789abcdef\\n" }
};


static struct {
    const char  *name;
    const char  *json;
    const char  *seen;
} prompts[] = {
    { "nothing", "{\"model\":\"m\"}", "" },
    { "a message", "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}",
      "user:Hi;" },
    { "a system text and messages",
      "{\"system\":\"Be\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}"
      ",{\"role\":\"assistant\",\"content\":\"Ho\"}]}",
      "system:Be;user:Hi;assistant:Ho;" },
    { "pieces",
      "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\","
      "\"text\":\"a\"},{\"type\":\"image_url\",\"image_url\":{\"url\":"
      "\"data:x\"}},{\"type\":\"text\",\"text\":\"b\"}]}]}", "user:a|b;" },
    { "an image only",
      "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\","
      "\"source\":{\"type\":\"base64\",\"data\":\"AA\",\"text\":\"no\"}}]}]}",
      "user:;" },
    { "calls of tools",
      "{\"messages\":[{\"content\":null,\"role\":\"assistant\",\"tool_calls\":"
      "[{\"id\":\"i\",\"type\":\"function\",\"function\":{\"name\":\"f\","
      "\"arguments\":\"{}\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"i\","
      "\"content\":\"42\"}]}", "assistant:{};tool:42;" },
    { "Anthropic's tools",
      "{\"messages\":[{\"role\":\"assistant\",\"content\":[{\"type\":"
      "\"tool_use\",\"id\":\"i\",\"name\":\"f\",\"input\":{\"text\":\"t\"}}]},"
      "{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\","
      "\"tool_use_id\":\"i\",\"content\":[{\"type\":\"text\",\"text\":"
      "\"42\"}]}]}]}", "assistant:={\"text\":\"t\"};user:42;" },
    { "a prompt", "{\"prompt\":\"Once\"}", "user:Once;" },
    { "inputs", "{\"input\":[\"a\",\"b\"]}", "user:a;user:b;" },
    { "tokens", "{\"input\":[[1,2],[3]]}", "user:;user:;" },
    { "of another type", "{\"messages\":7,\"system\":null,\"input\":{}}",
      "user:;system:;user:;" }
};


static struct {
    const char  *from;
    size_t       max;
    ngx_uint_t   raw;
    size_t       len;
} cuts[] = {
    { "abc", 5, 0, 3 },
    { "abc", 2, 0, 2 },
    { "a\xc3\xa4", 2, 0, 1 },
    { "a\xf0\x9f\x98\x80", 4, 0, 1 },
    { "\x80\x80\x80\x80\x80\x80", 5, 0, 2 },
    { "ab\\nc", 3, 1, 2 },
    { "ab\\nc", 4, 1, 4 },
    { "a\\u00e4b", 6, 1, 1 },
    { "a\\u00e4b", 7, 1, 7 },
    { "a\\\\\\\\b", 4, 1, 3 },
    { "abc", 0, 1, 0 }
};


static void
prompt(void *data, ngx_str_t *role, ngx_str_t *raw, ngx_uint_t json)
{
    ngx_http_ai_out_t *out = data;

    if (role) {
        if (out->last != out->start) {
            ngx_http_ai_out_lit(out, ";");
        }

        ngx_http_ai_out_str(out, role);
        ngx_http_ai_out_lit(out, ":");

    } else {
        ngx_http_ai_out_lit(out, "|");
    }

    if (json) {
        ngx_http_ai_out_lit(out, "=");
    }

    ngx_http_ai_out_str(out, raw);
}


static void
text(const char *name, const char *from, const char *to)
{
    size_t   len;
    u_char  *copy, *room, *last;

    len = strlen(from);

    /* of the very sizes: a checker sees what is read or written beyond */

    copy = test_copy((u_char *) from, len);
    room = malloc(ngx_http_ai_log_room(len) + 1);

    last = ngx_http_ai_log_text(room, copy, len);

    is_mem(room, last - room, to, strlen(to), name);

    free(copy);
    free(room);
}


int
main(void)
{
    u_char              *p, buf[64];
    size_t               i, n;
    char                 expected[64];
    ngx_pool_t          *pool;
    ngx_http_ai_out_t    out;
    ngx_http_ai_json_t   j;

    static uint64_t  numbers[] = {
        0, 1, 9, 10, 11, 99, 100, 101, 999, 1000, 1234, 9999, 10000, 10001,
        99999, 100000, 999999999, 1000000000, 1000000001, 1999999999,
        4294967295ULL, 4294967296ULL, 9223372036854775807ULL,
        18446744073709551615ULL
    };

    for (i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        text(texts[i].name, texts[i].from, texts[i].to);
    }

    /* a special one at each place of texts of all lengths */

    for (n = 1; n < 40; n++) {
        for (i = 0; i < n; i++) {
            memset(buf, 'x', sizeof(buf));
            buf[n] = '\0';
            buf[i] = '"';

            memset(expected, 'x', sizeof(expected));
            expected[i] = '\\';
            expected[i + 1] = '"';
            expected[n + 1] = '\0';

            text("a quote in a text", (char *) buf, expected);
        }
    }

    for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        p = ngx_http_ai_log_uint(buf, numbers[i]);
        sprintf(expected, "%llu", (unsigned long long) numbers[i]);
        is_mem(buf, p - buf, expected, strlen(expected), "a number");

        p = ngx_http_ai_log_nano(buf, numbers[i]);
        sprintf(expected, "%llu.%09llu",
                (unsigned long long) (numbers[i] / 1000000000),
                (unsigned long long) (numbers[i] % 1000000000));
        is_mem(buf, p - buf, expected, strlen(expected), "... with nine");

        p = ngx_http_ai_log_milli(buf, numbers[i]);
        sprintf(expected, "%llu.%03llu",
                (unsigned long long) (numbers[i] / 1000),
                (unsigned long long) (numbers[i] % 1000));
        is_mem(buf, p - buf, expected, strlen(expected), "... with three");
    }

    p = ngx_http_ai_log_time(buf, 0, 7);
    is_mem(buf, p - buf, "1970-01-01T00:00:00.007Z", 24, "the first time");

    p = ngx_http_ai_log_time(buf, 1709210096, 250);
    is_mem(buf, p - buf, "2024-02-29T12:34:56.250Z", 24, "a leap day");

    p = ngx_http_ai_log_time(buf, 1709210096, 999);
    is_mem(buf, p - buf, "2024-02-29T12:34:56.999Z", 24, "the same second");

    for (i = 0; i < sizeof(cuts) / sizeof(cuts[0]); i++) {
        n = strlen(cuts[i].from);
        p = test_copy((u_char *) cuts[i].from, n);

        ok(ngx_http_ai_log_cut(p, n, cuts[i].max, cuts[i].raw) == cuts[i].len,
           "cut %u", (unsigned) i);

        free(p);
    }

    for (i = 0; i < sizeof(prompts) / sizeof(prompts[0]); i++) {
        pool = ngx_create_pool(4096, NULL);

        memset(&j, 0, sizeof(ngx_http_ai_json_t));
        j.pool = pool;

        (void) ngx_http_ai_out_init(&out, pool, 64);

        ok(ngx_http_ai_json_parse(&j, (u_char *) prompts[i].json,
                                  strlen(prompts[i].json))
           == NGX_OK, "%s", prompts[i].name);

        ngx_http_ai_log_prompt(&j, prompt, &out);

        if (out.last != out.start) {
            ngx_http_ai_out_lit(&out, ";");
        }

        is_mem(out.start, out.last - out.start, prompts[i].seen,
               strlen(prompts[i].seen), "... its texts");

        ngx_destroy_pool(pool);
    }

    return done_testing();
}
