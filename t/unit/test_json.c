
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include "ngx_http_ai_json.h"
#include "ngx_http_ai_scan.h"
#include <dirent.h>


static ngx_pool_t  *pool;


typedef struct {
    const char  *text;
    size_t       len;
} test_text_t;


#define T(s)  { s, sizeof(s) - 1 }


/* what RFC 8259 accepts */

static test_text_t  yes[] = {
    T("null"), T("true"), T("false"), T("0"), T("-0"), T("1"), T("-1"),
    T("0.0"), T("-0.0"), T("1.5"), T("1e1"), T("1E1"), T("1e+1"), T("1e-1"),
    T("0e0"), T("0E+0"), T("123456789012345678901234567890"), T("1.0e400"),
    T("-1.7976931348623157e308"), T("20e1"), T("123.456e78"),
    T("\"\""), T("\"a\""), T("\"\\\"\""), T("\"\\\\\""), T("\"\\/\""),
    T("\"\\b\\f\\n\\r\\t\""), T("\"\\u0000\""), T("\"\\u00e9\""),
    T("\"\\uD834\\uDD1e\""), T("\"\\uD834\""), T("\"\\uDd1e\\ud834\""),
    T("\"\\uABCD\""), T("\"\\uabcd\""), T("\"\\\\u0041\""),
    T("\"\x7f\""), T("\"\xc3\xa9\""), T("\"\xe2\x80\xa8\""),
    T("\"\xf0\x9d\x84\x9e\""), T("\"\xff\""),
    T("[]"), T("[ ]"), T("[1]"), T("[1,2]"), T("[[]]"), T("[[],[[]]]"),
    T("[null,true,false]"), T("[\"a\"]"), T("[1 , 2 ]"), T("[-1]"),
    T("{}"), T("{ }"), T("{\"a\":1}"), T("{\"a\":1,\"b\":2}"),
    T("{\"a\":1,\"a\":1}"), T("{\"\":0}"), T("{\"a\":{}}"),
    T("{\"a\":[]}"), T("{ \"a\" : 1 , \"b\" : [ ] }"),
    T("{\"\\u0061\":1}"), T("{\"a\\u0000b\":1}"),
    T(" \t\r\n1 \t\r\n"), T("\n[\n]\n"), T("\xef\xbb\xbf{}"),
    T("\xef\xbb\xbf 1"), T("[\"\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\\n\"]"),
    T("[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]"),
    T("{\"a\":{\"b\":{\"c\":[{\"d\":[]}]}},\"e\":null}"),
    T("[0.1,0.12,0.123,-0.1e-5]"),
    T("\"0123456789abcdef0123456789abcdef0123456789abcdef\""),
    T("\"0123456789abcde\\u00e90123456789abcde\\n\\\"\\\\0123456789abcdef\"")
};


/* what it does not */

static test_text_t  no[] = {
    T(""), T(" "), T("\xef\xbb\xbf"), T("\xef\xbb"), T("nul"), T("nulll"),
    T("Null"), T("tru"), T("True"), T("fals"), T("falsee"), T("NaN"),
    T("Infinity"), T("-Infinity"), T("-"), T("+1"), T("01"), T("-01"),
    T("00"), T("1."), T(".1"), T("-.1"), T("1.e1"), T("1e"), T("1e+"),
    T("1e-"), T("1E"), T("0x10"), T("1_000"), T("1 2"), T("1,"), T("--1"),
    T("- 1"), T("1.2.3"), T("1e1.5"), T("0e"), T("-a"), T("1a"),
    T("\xef\xbc\x91"), T("\""), T("\"a"), T("'a'"), T("\"\\\""),
    T("\"\\"), T("\"\\a\""), T("\"\\x41\""), T("\"\\U0041\""),
    T("\"\\u\""), T("\"\\u0\""), T("\"\\u00\""), T("\"\\u004\""),
    T("\"\\u004"), T("\"\\u004g\""), T("\"\\uG041\""), T("\"\\0\""),
    T("\"\\\n\""), T("\"\n\""), T("\"\t\""), T("\"\0\""), T("\"\x1f\""),
    T("\"a\"b"), T("\"a\"\"b\""), T("a"), T("["), T("]"), T("[1"),
    T("[1,"), T("[1,]"), T("[,1]"), T("[,]"), T("[1,,2]"), T("[1 2]"),
    T("[1}"), T("[1]]"), T("[\"a\":1]"), T("[[]"), T("[\"]"), T("[1;2]"),
    T("{"), T("}"), T("{1}"), T("{1:1}"), T("{a:1}"), T("{'a':1}"),
    T("{\"a\""), T("{\"a\":"), T("{\"a\":1"), T("{\"a\":1,"),
    T("{\"a\":1,}"), T("{,\"a\":1}"), T("{\"a\" 1}"), T("{\"a\":}"),
    T("{\"a\",1}"), T("{\"a\":1 \"b\":2}"), T("{\"a\":1]"),
    T("{\"a\":1}}"), T("{\"a\":1},"), T("{\"a\"::1}"), T("{null:1}"),
    T("{\"a\":1,,\"b\":2}"), T("{[]:1}"), T("{}{}"), T("[][]"),
    T("{}#"), T("/**/1"), T("1//"), T("[1/**/]"), T("\v1"), T("\f1"),
    T("1\0"), T("\0"), T("[\0]"), T("\xc2\xa0" "1"), T("\xe2\x80\xa8" "1"),
    T("{\"\\x\":1}"), T("{\"a\n\":1}"), T("tru\0"), T("[tru"), T("[truf]"),
    T("\xef\xbb\xbf\xef\xbb\xbf{}"), T("{\xef\xbb\xbf}"),
    T("[\"0123456789abcdef0123456789abcdef\\q\"]"),
    T("[\"0123456789abcdef0123456789abcdef\x01\"]"),
    T("[\"0123456789abcdef0123456789abcdef")
};


static ngx_int_t
parse(ngx_http_ai_json_t *j, const void *text, size_t len)
{
    return ngx_http_ai_json_parse(j, (u_char *) text, len);
}


static void
test_verdicts(void)
{
    u_char              *p;
    ngx_int_t            rc;
    ngx_uint_t           i, s, bad;
    ngx_http_ai_json_t   j;

    for (i = 0; i < sizeof(yes) / sizeof(yes[0]); i++) {
        p = test_copy(yes[i].text, yes[i].len);
        bad = 0;

        for (s = 0; s < 4; s++) {
            ngx_memzero(&j, sizeof(j));
            j.pool = pool;
            j.shallow = s;
            bad += (parse(&j, p, yes[i].len) != NGX_OK || j.nnodes == 0
                    || j.nodes[0].next != j.nnodes);
        }

        ok(bad == 0, "accept %s", yes[i].len < 60 && *yes[i].text > ' '
                                  ? yes[i].text : "white space or long");
        free(p);
    }

    for (i = 0; i < sizeof(no) / sizeof(no[0]); i++) {
        p = test_copy(no[i].text, no[i].len);
        bad = 0;

        for (s = 0; s < 4; s++) {
            ngx_memzero(&j, sizeof(j));
            j.pool = pool;
            j.shallow = s;
            rc = parse(&j, p, no[i].len);
            bad += (rc != NGX_DECLINED || j.error == NULL || j.limit
                    || j.error_offset > no[i].len);
        }

        ok(bad == 0, "refuse %u (%s at %u)", (unsigned) i, j.error,
           (unsigned) j.error_offset);
        free(p);
    }
}


static void
test_limits(void)
{
    char                     text[4096];
    size_t                   n;
    ngx_uint_t               i, bad;
    ngx_http_ai_json_t       j;
    ngx_http_ai_json_node_t  nodes[4];

    bad = 0;

    for (n = 1; n <= 1026; n++) {
        memset(text, '[', n);
        memset(text + n, ']', n);

        ngx_memzero(&j, sizeof(j));
        j.pool = pool;
        j.max_depth = 5000;

        if (n <= 1024) {
            bad += (parse(&j, text, n * 2) != NGX_OK || j.nnodes != n);

        } else {
            bad += (parse(&j, text, n * 2) != NGX_DECLINED || !j.limit);
        }
    }

    ok(bad == 0, "depth is limited to 1024 whatever is asked for");

    memset(text, '[', 129);
    memset(text + 129, ']', 129);

    ngx_memzero(&j, sizeof(j));
    j.pool = pool;
    ok(parse(&j, text, 258) == NGX_DECLINED && j.limit
       && j.error_offset == 128,
       "default depth");
    ok(parse(&j, text + 1, 256) == NGX_OK, "default depth, exactly");

    j.shallow = 1;
    ok(parse(&j, text, 258) == NGX_DECLINED && j.limit,
       "depth counts below shallow");

    ngx_memzero(&j, sizeof(j));
    j.pool = pool;
    j.max_nodes = 5;
    j.nodes = nodes;
    j.nalloc = 4;

    ok(parse(&j, "[1,2,3,4]", 9) == NGX_OK && j.nnodes == 5
       && j.nodes != nodes,
       "nodes, exactly the limit, grown");
    ok(parse(&j, "[1,2,3,4,5]", 11) == NGX_DECLINED && j.limit,
       "one node more than the limit");

    j.shallow = 1;
    ok(parse(&j, "[[1,2,3,4,5],[6,7,8]]", 21) == NGX_OK && j.nnodes == 3,
       "unwanted nodes do not count");

    ngx_memzero(&j, sizeof(j));
    j.pool = pool;
    j.max_nodes = 2;
    j.nodes = nodes;
    j.nalloc = 4;
    ok(parse(&j, "[1,2]", 5) == NGX_DECLINED && j.limit,
       "the limit holds within the caller's table");

    ok(parse(&j, "[1]", (size_t) 0xffffffff) == NGX_DECLINED && j.limit,
       "4 GiB are refused unseen");

    bad = 0;

    for (i = 1; i < 4; i++) {
        ngx_memzero(&j, sizeof(j));
        j.pool = pool;
        memset(text, '1', sizeof(text));
        text[0] = '[';

        for (n = 2; n < sizeof(text); n += 2) {
            text[n] = ',';
        }

        text[4094] = ']';
        stub_fail = i;
        bad += (parse(&j, text, 4095) != NGX_ERROR);
        stub_fail = 0;
    }

    ok(bad == 0, "no memory");
}


static void
test_tree(void)
{
    ngx_str_t            s;
    ngx_uint_t           n, i, k;
    ngx_http_ai_json_t   j;

    static const char  text[] =
        " {\"a\":1,\"b\":[true,{\"c\":\"x\\ny\"},[]],\"d\\u0065\":null,"
        "\"a\":\"two\",\"\\\"\":{},\"\\ud83d\\ude00\":3,\"\\ud83d\":4} ";

    ngx_memzero(&j, sizeof(j));
    j.pool = pool;

    ok(parse(&j, text, sizeof(text) - 1) == NGX_OK, "document");
    is_int(j.nodes[0].count, 7, "members");
    is_int(j.nodes[0].len, sizeof(text) - 3, "both brackets");

    n = ngx_http_ai_json_member(&j, 0, "a");
    s = ngx_http_ai_json_raw(&j, n);
    is_str(&s, "two", "the last of duplicates");
    s = ngx_http_ai_json_value(&j, n);
    is_str(&s, "\"two\"", "with its quotes");

    ok(ngx_http_ai_json_duplicate(&j, 0, "a", 1) == 1, "duplicate");
    ok(ngx_http_ai_json_duplicate(&j, 0, "b", 1) == 0, "no duplicate");
    ok(ngx_http_ai_json_duplicate(&j, 0, "x", 1) == 0, "absent");

    n = ngx_http_ai_json_member(&j, 0, "de");
    ok(n != NGX_HTTP_AI_JSON_NONE
       && ngx_http_ai_json_type(&j, n) == NGX_HTTP_AI_JSON_NULL,
       "escaped key");
    ok(ngx_http_ai_json_member(&j, 0, "d\\u0065") == NGX_HTTP_AI_JSON_NONE,
       "escaped key as it came is another");
    ok(ngx_http_ai_json_member(&j, 0, "d") == NGX_HTTP_AI_JSON_NONE,
       "beginning of an escaped key");
    ok(ngx_http_ai_json_member(&j, 0, "dee") == NGX_HTTP_AI_JSON_NONE,
       "more than an escaped key");
    ok(ngx_http_ai_json_member(&j, 0, "\"") != NGX_HTTP_AI_JSON_NONE,
       "key of a quote");
    ok(ngx_http_ai_json_member(&j, 0, "\xf0\x9f\x98\x80")
       != NGX_HTTP_AI_JSON_NONE, "key of a surrogate pair");
    ok(ngx_http_ai_json_member(&j, 0, "\xef\xbf\xbd")
       != NGX_HTTP_AI_JSON_NONE, "key of a lone surrogate");
    ok(ngx_http_ai_json_member(&j, NGX_HTTP_AI_JSON_NONE, "a")
       == NGX_HTTP_AI_JSON_NONE, "member of nothing");

    n = ngx_http_ai_json_member(&j, 0, "b");
    is_int(j.nodes[n].count, 3, "elements");

    for (k = 0, i = ngx_http_ai_json_first(&j, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(&j, n, i))
    {
        k++;
    }

    is_int(k, 3, "iteration over an array");

    for (k = 0, i = ngx_http_ai_json_first(&j, 0);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(&j, 0, i))
    {
        k += j.nodes[i].key;
    }

    is_int(k, 7, "iteration over an object");

    i = ngx_http_ai_json_first(&j, n);
    i = ngx_http_ai_json_next(&j, n, i);
    i = ngx_http_ai_json_member(&j, i, "c");
    s = ngx_http_ai_json_raw(&j, i);
    is_str(&s, "x\\ny", "raw text");
    ok(j.nodes[i].escaped == 1, "marked as escaped");
    ok(ngx_http_ai_json_unescape_str(pool, &s, &s) == NGX_OK, "unescape");
    is_str(&s, "x\ny", "unescaped");

    j.shallow = 1;
    ok(parse(&j, text, sizeof(text) - 1) == NGX_OK && j.nnodes == 15,
       "shallow");
    n = ngx_http_ai_json_member(&j, 0, "b");
    s = ngx_http_ai_json_raw(&j, n);
    is_str(&s, "[true,{\"c\":\"x\\ny\"},[]]", "value below shallow");
    ok(j.nodes[n].count == 0
       && ngx_http_ai_json_first(&j, n) == NGX_HTTP_AI_JSON_NONE,
       "nothing in it");
}


static void
test_numbers(void)
{
    size_t              i;
    int64_t             value;
    ngx_int_t           rc;
    ngx_str_t           s;
    ngx_http_ai_json_t  j;

    static const struct {
        const char     *text;
        ngx_int_t       rc;
        int64_t         value;
    }  ints[] = {
        { "0", NGX_OK, 0 }, { "-0", NGX_OK, 0 }, { "42", NGX_OK, 42 },
        { "-42", NGX_OK, -42 }, { "1e3", NGX_OK, 1000 },
        { "2.0", NGX_OK, 2 }, { "2.9", NGX_OK, 2 }, { "-2.9", NGX_OK, -2 },
        { "0.0009e4", NGX_OK, 9 }, { "12345e-2", NGX_OK, 123 },
        { "1e-400", NGX_OK, 0 }, { "0e999999999999999999", NGX_OK, 0 },
        { "1e-99999999999999999999", NGX_OK, 0 },
        { "9223372036854775807", NGX_OK, INT64_MAX },
        { "-9223372036854775808", NGX_OK, INT64_MIN },
        { "9223372036854775808", NGX_DECLINED, 0 },
        { "-9223372036854775809", NGX_DECLINED, 0 },
        { "1e19", NGX_DECLINED, 0 }, { "1e99999999999", NGX_DECLINED, 0 },
        { "9.223372036854775807e18", NGX_OK, INT64_MAX },
        { "true", NGX_DECLINED, 0 }, { "\"1\"", NGX_DECLINED, 0 },
        { "0.00000000000000000000000000000001e33", NGX_OK, 10 }
    };

    static const struct {
        const char     *text;
        ngx_uint_t      scale;
        ngx_int_t       rc;
        int64_t         value;
    }  fixed[] = {
        { "0.125", 6, NGX_OK, 125000 }, { "3", 6, NGX_OK, 3000000 },
        { "0.0000005", 6, NGX_OK, 1 }, { "0.00000049", 6, NGX_OK, 0 },
        { "1.5e-7", 9, NGX_OK, 150 }, { "2.5", 0, NGX_OK, 3 },
        { "2.4999", 0, NGX_OK, 2 }, { "1e-6", 6, NGX_OK, 1 },
        { "0", 6, NGX_OK, 0 }, { "9223372036854.775807", 6, NGX_OK,
                                 INT64_MAX },
        { "9223372036854.775808", 6, NGX_ERROR, 0 },
        { "1e30", 6, NGX_ERROR, 0 }, { "-1", 6, NGX_ERROR, 0 },
        { "", 6, NGX_ERROR, 0 }, { ".5", 6, NGX_ERROR, 0 },
        { "1.", 6, NGX_ERROR, 0 }, { "1x", 6, NGX_ERROR, 0 },
        { "01", 6, NGX_ERROR, 0 }, { "0.95", 1, NGX_OK, 10 }
    };

    for (i = 0; i < sizeof(ints) / sizeof(ints[0]); i++) {
        ngx_memzero(&j, sizeof(j));
        j.pool = pool;
        value = 0;

        rc = parse(&j, ints[i].text, strlen(ints[i].text));

        if (rc == NGX_OK) {
            rc = ngx_http_ai_json_int(&j, 0, &value);
        }

        ok(rc == ints[i].rc && value == ints[i].value, "integer %s",
           ints[i].text);
    }

    ok(ngx_http_ai_json_int(&j, NGX_HTTP_AI_JSON_NONE, &value)
       == NGX_DECLINED, "integer of nothing");

    for (i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
        s.data = (u_char *) fixed[i].text;
        s.len = strlen(fixed[i].text);
        value = 0;

        rc = ngx_http_ai_json_fixed(&s, fixed[i].scale, &value);

        ok(rc == fixed[i].rc && value == fixed[i].value, "fixed \"%s\"",
           fixed[i].text);
    }
}


static void
test_escapes(void)
{
    size_t              i;
    u_char             *p, *dst;
    ngx_str_t           raw, s;
    ngx_http_ai_out_t   out;

    static const struct {
        const char     *raw;
        const char     *plain;
        size_t          len;
    }  list[] = {
#define E(r, p)  { r, p, sizeof(p) - 1 }
        E("", ""), E("abc", "abc"), E("a\\nb", "a\nb"),
        E("\\\"\\\\\\/\\b\\f\\n\\r\\t", "\"\\/\b\f\n\r\t"),
        E("\\u0041", "A"), E("\\u00e9", "\xc3\xa9"),
        E("\\u20AC", "\xe2\x82\xac"), E("\\u0000x", "\0x"),
        E("\\ud83d\\ude00", "\xf0\x9f\x98\x80"),
        E("\\uDBFF\\uDFFF", "\xf4\x8f\xbf\xbf"),
        E("\\ud83d", "\xef\xbf\xbd"), E("\\ude00", "\xef\xbf\xbd"),
        E("\\ud83dx", "\xef\xbf\xbdx"),
        E("\\ud83d\\n", "\xef\xbf\xbd\n"),
        E("\\ud83d\\u0041", "\xef\xbf\xbd" "A"),
        E("\\ud83d\\ud83d\\ude00", "\xef\xbf\xbd\xf0\x9f\x98\x80"),
        E("\\\\u0041", "\\u0041"),
        E("\\", "\\"), E("a\\", "a\\"), E("\\u12", "\\u12"),
        E("\\q", "\\q"), E("\\ud83d\\ude0", "\xef\xbf\xbd\\ude0")
#undef E
    };

    static const struct {
        const char     *plain;
        size_t          len;
        const char     *escaped;
    }  bytes[] = {
#define E(p, e)  { p, sizeof(p) - 1, e }
        E("", ""), E("abc", "abc"), E("\"\\", "\\\"\\\\"),
        E("\n\r\t\b\f", "\\n\\r\\t\\b\\f"),
        E("\0\x01\x1f\x7f", "\\u0000\\u0001\\u001f\x7f"),
        E("\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80",
          "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80"),
        E("a\xff" "b", "a\xef\xbf\xbd" "b"),
        E("\xc0\xaf", "\xef\xbf\xbd\xef\xbf\xbd"),
        E("\xed\xa0\x80", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"),
        E("\xe2\x82", "\xef\xbf\xbd"), E("\xf0\x9f\x98", "\xef\xbf\xbd"),
        E("\xf4\x90\x80\x80",
          "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"),
        E("\xe2\x82\"", "\xef\xbf\xbd\\\""),
        E("0123456789abcdef0123456789abcdef\n0123456789abcdef\xc3",
          "0123456789abcdef0123456789abcdef\\n0123456789abcdef\xef\xbf\xbd")
#undef E
    };

    for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        raw.len = strlen(list[i].raw);
        raw.data = test_copy(list[i].raw, raw.len);
        dst = malloc(raw.len ? raw.len : 1);

        p = ngx_http_ai_json_unescape(dst, &raw);
        is_mem(dst, p - dst, list[i].plain, list[i].len, "unescape");

        ok(ngx_http_ai_json_unescape_str(pool, &raw, &s) == NGX_OK
           && s.len == list[i].len, "unescape to a pool");

        p = ngx_http_ai_json_unescape(raw.data, &raw);
        is_mem(raw.data, p - raw.data, list[i].plain, list[i].len,
               "unescape in place");

        free(raw.data);
        free(dst);
    }

    for (i = 0; i < sizeof(bytes) / sizeof(bytes[0]); i++) {
        (void) ngx_http_ai_out_init(&out, pool, i % 3);
        p = test_copy(bytes[i].plain, bytes[i].len);

        ngx_http_ai_out_escaped(&out, p, bytes[i].len);
        is_mem(out.start, out.last - out.start, bytes[i].escaped,
               strlen(bytes[i].escaped), "escape");

        free(p);
    }

    (void) ngx_http_ai_out_init(&out, pool, 0);
    ngx_http_ai_out_int(&out, 0);
    ngx_http_ai_out_lit(&out, " ");
    ngx_http_ai_out_int(&out, INT64_MIN);
    ngx_http_ai_out_lit(&out, " ");
    ngx_http_ai_out_int(&out, INT64_MAX);
    is_mem(out.start, out.last - out.start,
           "0 -9223372036854775808 9223372036854775807", 42, "integers");

    ngx_str_set(&raw, "{\\\"a\\\":\\\"x\\\\ny\\\"}");
    (void) ngx_http_ai_out_init(&out, pool, 0);
    ngx_http_ai_out_unescaped(&out, &raw);
    s.data = out.start;
    s.len = out.last - out.start;
    is_str(&s, "{\"a\":\"x\\ny\"}", "string with JSON to JSON");

    (void) ngx_http_ai_out_init(&out, pool, 0);
    ngx_http_ai_out_reescaped(&out, &s);
    is_mem(out.start, out.last - out.start, (char *) raw.data, raw.len,
           "and back");

    (void) ngx_http_ai_out_init(&out, pool, 0);
    stub_fail = 1;
    ngx_http_ai_out_lit(&out, "x");
    stub_fail = 0;
    ngx_http_ai_out_lit(&out, "x");
    ok(out.failed && out.last == out.start, "failure of a writer stays");
}


/* strings with anything anywhere, by all variants of the scanner */

static void
test_scan(void)
{
    u_char       *p, *end, *want;
    size_t        len, at, k;
    ngx_uint_t    v, escaped, bad;
    const char   *name;

    static const char *const  specials[] = {
        "\"", "\\n\"", "\\u00e9\"", "\\", "\\x", "\\u00", "\x1f", "\n",
        "\\\\\\\"\"", "\\u00e9\\u00e9\\n\\n\"", ""
    };

    for (v = 0; v < 3; v++) {
        name = ngx_http_ai_scan_select(v);
        bad = 0;

        for (len = 0; len < 150; len++) {
            for (k = 0; k < sizeof(specials) / sizeof(specials[0]); k++) {
                for (at = len; at < len + 3; at++) {
                    p = malloc(at + strlen(specials[k]) + 1);

                    memset(p, 0x80 + (int) at % 0x7f, at);
                    memcpy(p + at, specials[k], strlen(specials[k]));

                    /* exact size again */

                    want = test_copy(p, at + strlen(specials[k]));
                    free(p);
                    p = want;

                    want = p + at + strlen(specials[k]);

                    switch (k) {
                    case 3:
                    case 4:
                    case 5:
                    case 6:
                    case 7:
                        want = p + at;
                        break;
                    case 10:
                        break;
                    default:
                        want--;
                        break;
                    }

                    escaped = 0;
                    end = ngx_http_ai_scan_string(p,
                                               p + at + strlen(specials[k]),
                                               &escaped);
                    bad += (end != want);
                    bad += (escaped != (k == 1 || k == 2 || k == 8
                                        || k == 9));

                    end = ngx_http_ai_scan_plain(p,
                                              p + at + strlen(specials[k]));
                    bad += (end != p + at);

                    free(p);
                }
            }
        }

        ok(bad == 0, "scanner %s", name);
    }

    (void) ngx_http_ai_scan_select(0);
}


/* every recorded JSON document */

static void
test_recorded(const char *dir, const char *sub, ngx_uint_t level,
    ngx_uint_t *good, ngx_uint_t *bad)
{
    DIR                 *d;
    char                 path[4096];
    size_t               len, n;
    u_char              *p;
    ngx_pool_t          *tmp;
    struct stat          st;
    struct dirent       *e;
    ngx_http_ai_json_t   j;

    snprintf(path, sizeof(path), "%s/%s", dir, sub);

    d = opendir(path);

    if (d == NULL) {
        return;
    }

    while ((e = readdir(d)) != NULL) {

        if (e->d_name[0] == '.') {
            continue;
        }

        n = snprintf(path, sizeof(path), "%s/%s/%s", dir, sub, e->d_name);

        if (n >= sizeof(path) || stat(path, &st) != 0) {
            continue;
        }

        if (S_ISDIR(st.st_mode) && level < 5) {

            if ((size_t) snprintf(path, sizeof(path), "%s/%s", sub,
                                  e->d_name)
                < sizeof(path))
            {
                test_recorded(dir, path, level + 1, good, bad);
            }

            continue;
        }

        if (strcmp(e->d_name, "request.json") != 0
            && strcmp(e->d_name, "response.json") != 0
            && strcmp(e->d_name, "vectors.json") != 0)
        {
            continue;
        }

        n = snprintf(path, sizeof(path), "%s/%s", sub, e->d_name);

        if (n >= sizeof(path)) {
            continue;
        }

        p = test_read(path, &len);

        if (p == NULL) {
            continue;
        }

        if (len) {
            tmp = ngx_create_pool(4096, NULL);
            ngx_memzero(&j, sizeof(j));
            j.pool = tmp;

            if (parse(&j, p, len) == NGX_OK) {
                (*good)++;

            } else {
                diag("%s: %s at %u", path, j.error,
                     (unsigned) j.error_offset);
                (*bad)++;
            }

            ngx_destroy_pool(tmp);
        }

        free(p);
    }

    closedir(d);
}


int
main(void)
{
    const char  *dir;
    ngx_uint_t   good, bad;

    pool = ngx_create_pool(4096, NULL);

    test_scan();
    test_verdicts();
    test_limits();
    test_tree();
    test_numbers();
    test_escapes();

    dir = test_fixtures();

    if (dir) {
        good = 0;
        bad = 0;
        test_recorded(dir, ".", 0, &good, &bad);
        ok(good > 100 && bad == 0, "%u recorded documents", (unsigned) good);

    } else {
        skip("no recordings: set AI_FIXTURES");
    }

    ngx_destroy_pool(pool);

    is_int(stub_alive, 0, "nothing is left");

    return done_testing();
}
