
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include "ngx_http_ai_router_breaker.h"


static ngx_http_ai_breaker_t       b;
static ngx_http_ai_breaker_conf_t  conf;
static ngx_uint_t                  nfailed, total;
static ngx_msec_t                  left;


static void
reset(void)
{
    memset(&b, 0, sizeof(b));

    conf.rate = 50;
    conf.min = 4;
    conf.window = 10000;
    conf.open = 1000;
}


static ngx_uint_t
result(ngx_msec_t now, ngx_uint_t failed)
{
    return ngx_http_ai_breaker_result(&b, &conf, now, failed, 0, &nfailed,
                                      &total);
}


static ngx_uint_t
probe(ngx_msec_t now, ngx_uint_t failed)
{
    return ngx_http_ai_breaker_result(&b, &conf, now, failed, 1, &nfailed,
                                      &total);
}


static ngx_uint_t
check(ngx_msec_t now, ngx_pid_t pid)
{
    return ngx_http_ai_breaker_check(&b, &conf, now, pid, &left);
}


static ngx_uint_t
peek(ngx_msec_t now)
{
    return ngx_http_ai_breaker_peek(&b, &conf, now, &left);
}


static void
open_at(ngx_msec_t now)
{
    ngx_uint_t  i;

    for (i = 0; i < conf.min; i++) {
        (void) result(now, 1);
    }
}


static void
test_open(void)
{
    reset();

    is_int(check(1000, 1), NGX_HTTP_AI_BREAKER_PASS, "new: passes");
    is_int(result(1000, 1), NGX_HTTP_AI_BREAKER_SAME, "1 of 1");
    is_int(result(1000, 1), NGX_HTTP_AI_BREAKER_SAME, "2 of 2");
    is_int(result(1000, 1), NGX_HTTP_AI_BREAKER_SAME, "3 of 3: below min");
    is_int(b.state, NGX_HTTP_AI_BREAKER_CLOSED, "closed");
    is_int(result(1000, 1), NGX_HTTP_AI_BREAKER_OPENED, "4 of 4 opens");
    is_int(nfailed, 4, "failures are told");
    is_int(total, 4, "results are told");

    is_int(peek(1000), NGX_HTTP_AI_BREAKER_REFUSE, "open");
    is_int(left, 1000, "for all of its time");
    is_int(check(1999, 1), NGX_HTTP_AI_BREAKER_REFUSE, "open to the last");
    is_int(left, 1, "millisecond");

    is_int(result(1500, 1), NGX_HTTP_AI_BREAKER_SAME,
           "a late result changes nothing");
    is_int(peek(2000), NGX_HTTP_AI_BREAKER_TRY, "then somebody may probe");

    reset();

    (void) result(1000, 1);
    (void) result(1000, 1);
    (void) result(1000, 1);
    is_int(result(1000, 0), NGX_HTTP_AI_BREAKER_OPENED,
           "a success can complete the minimum");
    is_int(nfailed, 3, "failures are told");
    is_int(total, 4, "results are told");

    reset();
    conf.min = 0;

    is_int(result(1000, 0), NGX_HTTP_AI_BREAKER_SAME, "no minimum: success");
    is_int(result(1000, 1), NGX_HTTP_AI_BREAKER_OPENED, "no minimum: failure");
}


static void
test_rate(void)
{
    ngx_uint_t  i, n;

    reset();
    conf.min = 20;

    n = 0;

    for (i = 0; i < 100; i++) {
        n += (result(1000, i % 5 < 2) == NGX_HTTP_AI_BREAKER_OPENED);
    }

    is_int(n, 0, "40% of 100 is less than 50%");

    reset();
    conf.min = 20;

    for (i = 0; i < 19; i++) {
        (void) result(1000, i % 2);
    }

    is_int(b.state, NGX_HTTP_AI_BREAKER_CLOSED, "19 of min=20");
    is_int(result(1000, 1), NGX_HTTP_AI_BREAKER_OPENED, "exactly 50%");
    is_int(nfailed, 10, "10");
    is_int(total, 20, "of 20");

    reset();
    conf.rate = 0;

    n = 0;

    for (i = 0; i < 100; i++) {
        n += (result(1000, 1) != NGX_HTTP_AI_BREAKER_SAME);
        n += (check(1000, 1) != NGX_HTTP_AI_BREAKER_PASS);
    }

    is_int(n, 0, "never opens when off");

    reset();
    open_at(1000);
    conf.rate = 0;
    is_int(check(1001, 1), NGX_HTTP_AI_BREAKER_PASS,
           "switched off while open");

    reset();
    conf.rate = 100;

    (void) result(1000, 0);
    for (i = 0; i < 100; i++) {
        (void) result(1000, 1);
    }

    is_int(b.state, NGX_HTTP_AI_BREAKER_CLOSED, "100% means all of them");
}


static void
test_window(void)
{
    ngx_uint_t  i;

    reset();

    (void) result(1000, 1);
    (void) result(1000, 1);
    (void) result(1000, 1);
    is_int(result(11000, 1), NGX_HTTP_AI_BREAKER_SAME,
           "what is older than the window is forgotten");

    reset();

    (void) result(1999, 1);
    (void) result(4000, 1);
    (void) result(8000, 1);
    is_int(result(10999, 1), NGX_HTTP_AI_BREAKER_OPENED,
           "what is in the window is not");

    reset();

    /* one failure in each bucket, leaving one by one */

    conf.min = 11;
    for (i = 0; i < 100; i++) {
        (void) result(1000 * i, 1);
    }

    is_int(b.state, NGX_HTTP_AI_BREAKER_CLOSED, "ten buckets, never eleven");

    conf.min = 10;
    is_int(result(99000, 0), NGX_HTTP_AI_BREAKER_OPENED, "but always ten");
    is_int(total, 11, "and what is new");

    reset();

    (void) result(5000, 1);
    (void) result(5000, 1);
    (void) result(4000, 1);
    is_int(result(3500, 1), NGX_HTTP_AI_BREAKER_OPENED,
           "a clock that is a little behind");

    reset();

    (void) result(5000000, 1);
    (void) result(5000000, 1);
    (void) result(5000000, 1);
    is_int(result(1000, 1), NGX_HTTP_AI_BREAKER_SAME,
           "a clock that is far behind starts anew");
    (void) result(1000, 1);
    (void) result(1000, 1);
    is_int(result(1000, 1), NGX_HTTP_AI_BREAKER_OPENED, "and goes on");

    reset();

    (void) result(1000, 1);
    (void) result(1000, 1);
    (void) result(1000, 1);
    conf.window = 20000;
    is_int(result(1000, 1), NGX_HTTP_AI_BREAKER_SAME,
           "another window starts anew");

    reset();
    conf.window = 3;

    open_at(1000);
    is_int(b.state, NGX_HTTP_AI_BREAKER_OPEN, "a window of few milliseconds");

    reset();

    (void) result((ngx_msec_t) -500, 1);
    (void) result((ngx_msec_t) -1, 1);
    is_int(b.state, NGX_HTTP_AI_BREAKER_CLOSED, "milliseconds wrap");
    (void) result(5, 1);
    open_at(5);
    is_int(b.state, NGX_HTTP_AI_BREAKER_OPEN, "and it still works");
}


static void
test_probe(void)
{
    reset();
    open_at(1000);

    is_int(peek(2000), NGX_HTTP_AI_BREAKER_TRY, "a look");
    is_int(b.state, NGX_HTTP_AI_BREAKER_OPEN, "changes nothing");
    is_int(check(2000, 11), NGX_HTTP_AI_BREAKER_TRY, "the first probes");
    is_int(b.state, NGX_HTTP_AI_BREAKER_HALF_OPEN, "half-open");
    is_int(check(2000, 12), NGX_HTTP_AI_BREAKER_REFUSE, "the second waits");
    is_int(left, NGX_HTTP_AI_BREAKER_WAIT, "not for long");
    is_int(check(2000, 11), NGX_HTTP_AI_BREAKER_REFUSE, "anybody does");
    is_int(peek(2000), NGX_HTTP_AI_BREAKER_REFUSE, "looking too");

    is_int(result(2100, 1), NGX_HTTP_AI_BREAKER_SAME,
           "an old failure is not the probe's");
    is_int(result(2100, 0), NGX_HTTP_AI_BREAKER_SAME,
           "nor is an old success");
    is_int(b.state, NGX_HTTP_AI_BREAKER_HALF_OPEN, "half-open");

    is_int(probe(2200, 1), NGX_HTTP_AI_BREAKER_REOPENED, "it fails");
    is_int(check(3199, 12), NGX_HTTP_AI_BREAKER_REFUSE, "open again");
    is_int(check(3200, 12), NGX_HTTP_AI_BREAKER_TRY, "until the next probe");

    is_int(probe(3300, 0), NGX_HTTP_AI_BREAKER_RECOVERED, "it succeeds");
    is_int(check(3300, 1), NGX_HTTP_AI_BREAKER_PASS, "closed");

    (void) result(3300, 1);
    (void) result(3300, 1);
    is_int(result(3300, 1), NGX_HTTP_AI_BREAKER_SAME,
           "failures from before are forgotten");
    is_int(result(3300, 1), NGX_HTTP_AI_BREAKER_OPENED, "new ones count");
}


static void
test_lost_probe(void)
{
    reset();
    open_at(1000);

    (void) check(2000, 11);
    ngx_http_ai_breaker_release(&b, 12);
    is_int(check(2001, 13), NGX_HTTP_AI_BREAKER_REFUSE,
           "nobody else ends a probe");
    ngx_http_ai_breaker_release(&b, 11);
    is_int(check(2002, 13), NGX_HTTP_AI_BREAKER_TRY, "its owner does");

    is_int(check(2002 + NGX_HTTP_AI_BREAKER_PROBE - 1, 14),
           NGX_HTTP_AI_BREAKER_REFUSE, "a probe may take its time");
    is_int(left, 1, "which ends");
    is_int(check(2002 + NGX_HTTP_AI_BREAKER_PROBE, 14),
           NGX_HTTP_AI_BREAKER_TRY, "then another one is sent");

    is_int(probe(70000, 0), NGX_HTTP_AI_BREAKER_RECOVERED,
           "the answer of either counts");
    is_int(probe(70000, 1), NGX_HTTP_AI_BREAKER_SAME,
           "the other's is an ordinary result");
    is_int(b.state, NGX_HTTP_AI_BREAKER_CLOSED, "closed");

    ngx_http_ai_breaker_release(&b, 14);
    is_int(b.state, NGX_HTTP_AI_BREAKER_CLOSED, "no probe to release");

    reset();
    open_at(1000);

    (void) check(2000, 11);
    (void) check(2000 + NGX_HTTP_AI_BREAKER_PROBE, 12);
    (void) probe(62100, 1);
    is_int(probe(62200, 0), NGX_HTTP_AI_BREAKER_SAME,
           "a success does not close what was opened again");
    is_int(b.state, NGX_HTTP_AI_BREAKER_OPEN, "open");
}


static void
test_left(void)
{
    reset();
    open_at(1000);

    conf.open = 100;
    is_int(check(1001, 1), NGX_HTTP_AI_BREAKER_TRY,
           "a shorter time of a new configuration counts");

    is_int(ngx_http_ai_breaker_left(1500, 1000, 1000), 500, "500 left");
    is_int(ngx_http_ai_breaker_left(1000, 1000, 1000), 0, "over now");
    is_int(ngx_http_ai_breaker_left(999, 1000, 1000), 0, "over");
    is_int(ngx_http_ai_breaker_left(2001, 1000, 1000), 0, "too far");
    is_int(ngx_http_ai_breaker_left(9, (ngx_msec_t) -1, 1000), 10, "wraps");
}


int
main(void)
{
    test_open();
    test_rate();
    test_window();
    test_probe();
    test_lost_probe();
    test_left();

    return done_testing();
}
