
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include "ngx_http_ai_quantity.h"


#define RATE   NGX_HTTP_AI_QUANTITY_REQUESTS
#define TOKENS NGX_HTTP_AI_QUANTITY_TOKENS
#define SLOTS  NGX_HTTP_AI_QUANTITY_SLOTS
#define QUOTA  NGX_HTTP_AI_QUANTITY_Q_TOKENS
#define MONEY  NGX_HTTP_AI_QUANTITY_Q_MONEY

#define NONE   NGX_HTTP_AI_QUANTITY_NONE


static void
good(const char *text, ngx_http_ai_quantity_e kind, int64_t n, int unit)
{
    int          u;
    int64_t      got;
    const char  *error;

    u = NONE;
    error = ngx_http_ai_quantity_read((const u_char *) text, strlen(text),
                                      kind, &got, &u);

    if (!ok(error == NULL && got == n && u == unit, "\"%s\"", text)) {
        diag("%s, %lld, %d", error ? error : "good", (long long) got, u);
    }
}


static void
bad(const char *text, ngx_http_ai_quantity_e kind, const char *expected)
{
    int          u;
    int64_t      got;
    const char  *error;

    u = NONE;
    error = ngx_http_ai_quantity_read((const u_char *) text, strlen(text),
                                      kind, &got, &u);

    if (!ok(error && strncmp(error, expected, strlen(expected)) == 0,
            "\"%s\": %s", text, expected))
    {
        diag("%s", error ? error : "good");
    }
}


int
main(void)
{
    int      unit;
    int64_t  n;

    good("60r/m", RATE, 60, NGX_HTTP_AI_QUANTITY_MINUTE);
    good("60/min", RATE, 60, NGX_HTTP_AI_QUANTITY_MINUTE);
    good("1k/s", RATE, 1000, NGX_HTTP_AI_QUANTITY_SECOND);
    good("2.5kr/hour", RATE, 2500, NGX_HTTP_AI_QUANTITY_HOUR);
    good("1.5M/day", TOKENS, 1500000, NGX_HTTP_AI_QUANTITY_DAY);
    good("0/week", TOKENS, 0, NGX_HTTP_AI_QUANTITY_WEEK);
    good("1g/month", QUOTA, 1000000000, NGX_HTTP_AI_QUANTITY_MONTH);
    good("20", SLOTS, 20, NGX_HTTP_AI_QUANTITY_SECOND);
    good("0.005/month", MONEY, 5000000, NGX_HTTP_AI_QUANTITY_MONTH);
    good("0.0000000005/month", MONEY, 1, NGX_HTTP_AI_QUANTITY_MONTH);
    good("1k/month", MONEY, 1000000000000LL, NGX_HTTP_AI_QUANTITY_MONTH);
    good("1.50e2/day", QUOTA, 150, NGX_HTTP_AI_QUANTITY_DAY);
    good("1500E-1/day", QUOTA, 150, NGX_HTTP_AI_QUANTITY_DAY);
    good("9007199254740992/day", QUOTA, NGX_HTTP_AI_QUANTITY_MOST,
         NGX_HTTP_AI_QUANTITY_DAY);
    good("", QUOTA, -1, NONE);
    good("/day", QUOTA, -1, NONE);

    bad("60", RATE, "it has no unit of time");
    bad("60/fortnight", RATE, "units of time are");
    bad("60/", RATE, "units of time are");
    bad("60/month", TOKENS, "a rate is per");
    bad("60/s", QUOTA, "a quota is per");
    bad("5/m", SLOTS, "it is a number such as 20");
    bad("x/m", RATE, "it is not a number");
    bad("k/m", RATE, "it is not a number");
    bad("r/m", RATE, "it is not a number");
    bad("60r/day", QUOTA, "it is not a number");
    bad("-1/m", RATE, "it is not a number");
    bad("1./m", RATE, "it is not a number");
    bad(".5/m", RATE, "it is not a number");
    bad("1e/m", RATE, "it is not a number");
    bad("1e+/m", RATE, "it is not a number");
    bad("1 /m", RATE, "it is not a number");
    bad("1.5/m", RATE, "it is not a whole number");
    bad("9007199254740993/day", QUOTA, "it is too large");
    bad("9007200/day", MONEY, "it is too large");
    bad("1e300/day", QUOTA, "it is too large");
    bad("99999999999999999999999999999999/day", QUOTA, "it is too large");
    bad("1e18g/day", QUOTA, "it is too large");

    unit = NGX_HTTP_AI_QUANTITY_WEEK;
    ok(ngx_http_ai_quantity_read((const u_char *) "7", 1, QUOTA, &n, &unit)
       == NULL && n == 7 && unit == NGX_HTTP_AI_QUANTITY_WEEK,
       "the unit that there is");

    return done_testing();
}
