
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include "ngx_http_ai_traceparent.h"


#define ID    "0af7651916cd43dd8448eb211c80319c"
#define SPAN  "b7ad6b7169203331"


/* the rules of section 3.2, and cases of the W3C's own test suite */

static struct {
    const char  *text;
    int          good;
    int          sampled;
} cases[] = {
    { "00-" ID "-" SPAN "-01", 1, 1 },
    { "00-" ID "-" SPAN "-00", 1, 0 },
    { "00-" ID "-" SPAN "-ff", 1, 1 },
    { "00-" ID "-" SPAN "-02", 1, 0 },
    { "cc-" ID "-" SPAN "-01", 1, 1 },
    { "cc-" ID "-" SPAN "-01-", 1, 1 },
    { "cc-" ID "-" SPAN "-01-what-the-future-will-be-like", 1, 1 },
    { "cc-" ID "-" SPAN "-01.what-the-future", 0, 0 },
    { "00-" ID "-" SPAN "-01-", 0, 0 },
    { "00-" ID "-" SPAN "-01-more", 0, 0 },
    { "ff-" ID "-" SPAN "-01", 0, 0 },
    { ".0-" ID "-" SPAN "-01", 0, 0 },
    { "0.-" ID "-" SPAN "-01", 0, 0 },
    { "00-" ID "-" SPAN "-.1", 0, 0 },
    { "00-" ID "-" SPAN "-1.", 0, 0 },
    { "00-" ID "-" SPAN "-1", 0, 0 },
    { "00-" ID "-" SPAN "-0A", 0, 0 },
    { "00-0AF7651916CD43DD8448EB211C80319C-" SPAN "-01", 0, 0 },
    { "00-" ID "-B7AD6B7169203331-01", 0, 0 },
    { "00-00000000000000000000000000000000-" SPAN "-01", 0, 0 },
    { "00-" ID "-0000000000000000-01", 0, 0 },
    { "00-.af7651916cd43dd8448eb211c80319c-" SPAN "-01", 0, 0 },
    { "00-" ID "-.7ad6b7169203331-01", 0, 0 },
    { "00_" ID "-" SPAN "-01", 0, 0 },
    { "00-" ID "_" SPAN "-01", 0, 0 },
    { "00-" ID "-" SPAN "_01", 0, 0 },
    { "", 0, 0 },
    { "00-", 0, 0 }
};


static struct {
    const char  *text;
    uint64_t     ratio;
    int          good;
} ratios[] = {
    { "1", NGX_HTTP_AI_TRACE_ALL, 1 },
    { "1.0", NGX_HTTP_AI_TRACE_ALL, 1 },
    { "100%", NGX_HTTP_AI_TRACE_ALL, 1 },
    { "0", 0, 1 },
    { "0%", 0, 1 },
    { "50%", NGX_HTTP_AI_TRACE_ALL / 2, 1 },
    { "0.5", NGX_HTTP_AI_TRACE_ALL / 2, 1 },
    { ".5", NGX_HTTP_AI_TRACE_ALL / 2, 1 },
    { "0.25", NGX_HTTP_AI_TRACE_ALL / 4, 1 },
    { "12.5%", NGX_HTTP_AI_TRACE_ALL / 8, 1 },
    { "", 0, 0 },
    { ".", 0, 0 },
    { "%", 0, 0 },
    { "1.1", 0, 0 },
    { "101%", 0, 0 },
    { "2", 0, 0 },
    { "-1", 0, 0 },
    { "0.1.1", 0, 0 },
    { "0.12345678901", 0, 0 },
    { "50%%", 0, 0 }
};


static void
parsed(const char *text, int good, int sampled)
{
    u_char                     out[NGX_HTTP_AI_TRACEPARENT];
    u_char                     trace[NGX_HTTP_AI_TRACE_ID];
    ngx_int_t                  rc;
    ngx_str_t                  s;
    ngx_http_ai_traceparent_t  tp;

    s.len = strlen(text);
    s.data = test_copy(text, s.len);

    rc = ngx_http_ai_traceparent_parse(&s, &tp);

    ok(rc == (good ? NGX_OK : NGX_DECLINED), "\"%s\" is %s", text,
       good ? "valid" : "not valid");

    if (good && rc == NGX_OK) {
        (void) ngx_http_ai_trace_hex(ngx_http_ai_trace_hex(trace, tp.high),
                                     tp.low);
        is_mem(trace, sizeof(trace), ID, 32, "trace");
        ok(tp.parent == 0xb7ad6b7169203331ULL, "parent");
        ok(tp.sampled == (unsigned) sampled, "sampled");

        ok(ngx_http_ai_traceparent_write(out, trace, tp.parent, 1)
           == out + sizeof(out), "length");
        is_mem(out, sizeof(out), "00-" ID "-" SPAN "-01", sizeof(out),
               "written");
    }

    free(s.data);
}


int
main(void)
{
    u_char      hex[NGX_HTTP_AI_SPAN_ID], want[NGX_HTTP_AI_SPAN_ID + 1];
    uint64_t    ratio, n;
    ngx_str_t   s;
    ngx_uint_t  i, half, tenth, wrong;

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        parsed(cases[i].text, cases[i].good, cases[i].sampled);
    }

    for (i = 0; i < sizeof(ratios) / sizeof(ratios[0]); i++) {
        s.len = strlen(ratios[i].text);
        s.data = test_copy(ratios[i].text, s.len);

        if (!ratios[i].good) {
            ok(ngx_http_ai_trace_ratio(&s, &ratio) == NGX_ERROR,
               "ratio \"%s\" is not valid", ratios[i].text);

        } else {
            ok(ngx_http_ai_trace_ratio(&s, &ratio) == NGX_OK
               && ratio == ratios[i].ratio, "ratio \"%s\"", ratios[i].text);
        }

        free(s.data);
    }

    /* who takes a tenth takes none that one with a half has left out */

    n = 1;
    half = 0;
    tenth = 0;
    wrong = 0;

    for (i = 0; i < 20000; i++) {
        n = n * 6364136223846793005ULL + 1442695040888963407ULL;

        if (ngx_http_ai_trace_sampled(n, NGX_HTTP_AI_TRACE_ALL / 10)) {
            tenth++;

            if (!ngx_http_ai_trace_sampled(n, NGX_HTTP_AI_TRACE_ALL / 2)) {
                wrong++;
            }
        }

        half += ngx_http_ai_trace_sampled(n, NGX_HTTP_AI_TRACE_ALL / 2);
        wrong += ngx_http_ai_trace_sampled(n, 0);
        wrong += !ngx_http_ai_trace_sampled(n, NGX_HTTP_AI_TRACE_ALL);
    }

    for (i = 0; i < 16; i++) {
        n = 0x0123456789abcdefULL << (4 * i);
        n |= 0x0123456789abcdefULL >> (4 * i);

        (void) snprintf((char *) want, sizeof(want), "%016llx",
                        (unsigned long long) n);

        ok(ngx_http_ai_trace_hex(hex, n) == hex + sizeof(hex), "id: length");
        is_mem(hex, sizeof(hex), (char *) want, sizeof(hex), "... digits");
    }

    ok(half > 9700 && half < 10300, "half: %u", (unsigned) half);
    ok(tenth > 1850 && tenth < 2150, "tenth: %u", (unsigned) tenth);
    ok(wrong == 0, "consistent");

    return done_testing();
}
