
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include "ngx_http_ai_price.h"


static ngx_pool_t           *pool;
static ngx_http_ai_price_t   price;
static ngx_http_ai_usage_t   usage;


static const char *
parse(const char *text)
{
    ngx_http_ai_json_t  j;

    ngx_memzero(&j, sizeof(ngx_http_ai_json_t));
    j.pool = pool;

    if (ngx_http_ai_json_parse(&j, (u_char *) text, strlen(text)) != NGX_OK) {
        return "no JSON";
    }

    return ngx_http_ai_price_parse(&j, pool, &price);
}


static void
bad(const char *text, const char *expected)
{
    const char  *error;

    error = parse(text);

    if (!ok(error && strcmp(error, expected) == 0, "%s", expected)) {
        diag("got \"%s\"", error ? error : "");
    }
}


static void
good(const char *text)
{
    const char  *error;

    error = parse(text);

    ok(error == NULL, "%s", text);

    if (error) {
        diag("%s", error);
    }

    ngx_http_ai_usage_init(&usage);
}


static int64_t
cost(int64_t images)
{
    return ngx_http_ai_price_cost(&price, &usage, images);
}


static void
match(const char *pattern, const char *name, ngx_uint_t expected)
{
    ngx_str_t  p, n;

    p.data = (u_char *) pattern;
    p.len = strlen(pattern);
    n.data = (u_char *) name;
    n.len = strlen(name);

    is_int(ngx_http_ai_price_match(&p, &n), expected, pattern);
}


static void
test_parse(void)
{
    bad("{}", "no \"input\"");
    bad("{\"input\":1}", "no \"output\"");
    bad("{\"input\":1,\"output\":1,\"inptu\":1}",
        "unknown member \"inptu\", did you mean \"input\"?");
    bad("{\"input\":1,\"input\":2,\"output\":1}",
        "duplicate member \"input\"");
    bad("{\"input\":\"1\",\"output\":1}",
        "\"input\" must be a number of dollars, 0 or more");
    bad("{\"input\":-1,\"output\":1}",
        "\"input\" must be a number of dollars, 0 or more");
    bad("{\"input\":null,\"output\":1}",
        "\"input\" must be a number of dollars, 0 or more");
    bad("{\"input\":1000001,\"output\":1}", "\"input\" is too much");
    bad("{\"input\":1,\"output\":1,\"request\":1001}",
        "\"request\" is too much");
    bad("{\"input\":1,\"output\":1,\"currency\":\"EUR\"}",
        "\"currency\" must be \"USD\"");
    bad("{\"input\":1,\"output\":1,\"version\":7}",
        "\"version\" must be a string");
    bad("{\"input\":1,\"output\":1,\"batch\":1}",
        "\"batch\" must be an object");
    bad("{\"input\":1,\"output\":1,\"batch\":{\"request\":1}}",
        "unknown member \"request\"");
    bad("{\"input\":1,\"output\":1,\"above\":[]}",
        "\"above\" must be an object");
    bad("{\"input\":1,\"output\":1,\"above\":{\"200k\":{}}}",
        "\"above\": \"200k\" is no number of tokens");
    bad("{\"input\":1,\"output\":1,\"above\":{\"0\":{}}}",
        "\"above\": \"0\" is no number of tokens");
    bad("{\"input\":1,\"output\":1,\"above\":{\"5\":1}}",
        "\"above\": \"5\" must be an object");
    bad("{\"input\":1,\"output\":1,\"above\":{\"5\":{},\"05\":{}}}",
        "\"above\": duplicate member \"05\"");
    bad("{\"input\":1,\"output\":1,\"above\":{\"1\":{},\"2\":{},\"3\":{},"
        "\"4\":{},\"5\":{}}}", "\"above\" has more than 4 members");

    good("{\"model\":\"m\",\"input\":1.25,\"output\":10,\"comment\":\"x\","
         "\"version\":\"2026-11-01\",\"currency\":\"USD\"}");

    is_int(price.base.v[NGX_HTTP_AI_RATE_INPUT], 1250000, "input");
    is_int(price.base.v[NGX_HTTP_AI_RATE_CACHED], 1250000, "cached");
    is_int(price.base.v[NGX_HTTP_AI_RATE_CACHE_WRITE], 1250000, "write");
    is_int(price.base.v[NGX_HTTP_AI_RATE_CACHE_WRITE_1H], 1250000, "1 h");
    is_int(price.base.v[NGX_HTTP_AI_RATE_AUDIO_INPUT], 1250000, "audio in");
    is_int(price.base.v[NGX_HTTP_AI_RATE_OUTPUT], 10000000, "output");
    is_int(price.base.v[NGX_HTTP_AI_RATE_REASONING], 10000000, "reasoning");
    is_int(price.base.v[NGX_HTTP_AI_RATE_AUDIO_OUTPUT], 10000000, "audio out");
    is_str(&price.version, "2026-11-01", "version");

    good("{\"input\":1,\"output\":1,\"cache_write\":1.25}");
    is_int(price.base.v[NGX_HTTP_AI_RATE_CACHE_WRITE_1H], 1250000,
           "1 h follows 5 m");

    good("{\"input\":1e-1,\"output\":0.000001}");
    is_int(price.base.v[NGX_HTTP_AI_RATE_INPUT], 100000, "exponent");
    is_int(price.base.v[NGX_HTTP_AI_RATE_OUTPUT], 1, "a pico-dollar");
}


static void
test_cost(void)
{
    good("{\"input\":3,\"output\":15,\"cached\":0.3,\"cache_write\":3.75,"
         "\"cache_write_1h\":6,\"reasoning\":20,\"audio_input\":40,"
         "\"audio_output\":80,\"request\":0.001,\"image\":0.02}");

    is_int(cost(0), 1000000000, "the request alone");

    usage.in_fresh = 1000;
    is_int(cost(0), 4000000000, "input");

    usage.audio_in = 100;
    is_int(cost(0), 1000000000 + 900 * 3000000LL + 100 * 40000000LL,
           "audio is a part of it");

    usage.audio_in = 5000;
    is_int(cost(0), 1000000000 + 1000 * 40000000LL, "... not more than it");

    usage.audio_in = -1;
    usage.cache_read = 10000;
    is_int(cost(0), 4000000000 + 3000000000LL, "cached");

    usage.cache_write = 1000;
    usage.cache_write_1h = 400;
    is_int(cost(0), 7000000000LL + 600 * 3750000LL + 400 * 6000000LL,
           "writes");

    ngx_http_ai_usage_init(&usage);
    usage.out = 1000;
    is_int(cost(0), 1000000000 + 15000000000LL, "output");

    usage.reasoning = 600;
    usage.audio_out = 100;
    is_int(cost(0), 1000000000 + 300 * 15000000LL + 600 * 20000000LL
                    + 100 * 80000000LL, "parts of output");

    usage.audio_out = 10000;
    is_int(cost(0), 1000000000 + 600 * 20000000LL + 400 * 80000000LL,
           "... not more than it");

    ngx_http_ai_usage_init(&usage);
    is_int(cost(3), 1000000000 + 60000000000LL, "images");

    good("{\"input\":1.25,\"output\":10,\"cached\":0.125,"
         "\"above\":{\"400000\":{\"input\":4},"
         "\"200000\":{\"input\":2.5,\"output\":15}},"
         "\"batch\":{\"input\":0.5}}");

    is_int(price.tiers[0].above, 200000, "tiers rise");

    usage.in_fresh = 200000;
    is_int(cost(0), 200000 * 1250000LL, "at the border");

    usage.cache_read = 1;
    usage.out = 1;
    is_int(cost(0), 200000 * 2500000LL + 125000 + 15000000, "above");

    usage.in_fresh = 400000;
    is_int(cost(0), 400000 * 4000000LL + 125000 + 10000000, "... far above");

    ngx_str_set(&usage.service_tier, "batch");
    is_int(cost(0), 400000 * 500000LL + 125000 + 10000000, "batch");

    ngx_str_set(&usage.service_tier, "flex");
    is_int(cost(0), 400000 * 4000000LL + 125000 + 10000000, "not batch");
}


static void
test_numbers(void)
{
    int64_t  most;

    most = 0x7fffffffffffffff;

    good("{\"input\":1000000,\"output\":1000000}");

    usage.in_fresh = (int64_t) 1 << 53;
    usage.out = (int64_t) 1 << 53;

    is_int(cost(most), most, "the largest sum stays");
    is_int(ngx_http_ai_price_nano(most), most / 1000 + 1, "... in nano");

    is_int(ngx_http_ai_price_estimate(&price, most, most, most),
           most / 1000 + 1, "... estimate");
    is_int(ngx_http_ai_price_output(&price, most, most), most / 1000 + 1,
           "... output");

    is_int(ngx_http_ai_price_nano(0), 0, "0");
    is_int(ngx_http_ai_price_nano(499), 0, "rounded down");
    is_int(ngx_http_ai_price_nano(500), 1, "rounded up");

    good("{\"input\":0.0001,\"output\":0.0002,\"reasoning\":0.0003}");

    /* 100 pico-dollars each: rounded once, not for each figure */

    usage.in_fresh = 4;
    usage.out = 3;
    is_int(ngx_http_ai_price_nano(cost(0)), 1, "rounded once");

    is_int(ngx_http_ai_price_estimate(&price, 1, 0, -1), 1,
           "an estimate is rounded up");
    is_int(ngx_http_ai_price_estimate(&price, 0, 10, 0), 3,
           "... output is the dearer kind");
    is_int(ngx_http_ai_price_output(&price, -1, 10), 3, "... more of it");
}


int
main(void)
{
    pool = ngx_create_pool(4096, NULL);

    test_parse();
    test_cost();
    test_numbers();

    match("*", "", 1);
    match("*", "a/b", 1);
    match("openai/*", "openai/gpt-5", 1);
    match("openai/*", "azure/gpt-5", 0);
    match("*-mini", "gpt-5-mini", 1);
    match("*-mini", "gpt-5-mini-2", 0);
    match("a*b*c", "aXbYbZc", 1);
    match("a*b*c", "aXbYbZ", 0);
    match("ab", "ab", 1);
    match("ab", "abc", 0);
    match("", "", 1);

    ngx_destroy_pool(pool);

    return done_testing();
}
