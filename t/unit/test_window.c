
/*
 * Copyright (C) nginx AI gateway authors
 */


/* windows of the calendar, and time zones against those of the C library */


#include "test.h"
#include <dirent.h>
#include "ngx_http_ai_limit_window.h"


#define S(unit)  NGX_HTTP_AI_WINDOW_ ## unit


static ngx_pool_t  *pool;
static uint64_t     rnd = 88172645463325252;


static int64_t
below(int64_t n)
{
    rnd ^= rnd << 13;
    rnd ^= rnd >> 7;
    rnd ^= rnd << 17;

    return (rnd >> 11) % n;
}


static ngx_http_ai_tz_t *
zone(const char *name)
{
    ngx_str_t    s;
    const char  *error;

    s.data = (u_char *) name;
    s.len = strlen(name);

    return ngx_http_ai_tz_create(pool, &s, &error);
}


/* "2024-03-31T01:00:00" in UTC */

static int64_t
utc(const char *text)
{
    struct tm  tm;

    memset(&tm, 0, sizeof(tm));

    if (sscanf(text, "%d-%d-%dT%d:%d:%d", &tm.tm_year, &tm.tm_mon,
               &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &tm.tm_sec) != 6)
    {
        abort();
    }

    tm.tm_year -= 1900;
    tm.tm_mon--;

    return (int64_t) timegm(&tm) * 1000;
}


static const char *
text(int64_t ms, char *buf)
{
    time_t     t;
    struct tm  tm;

    t = ms / 1000;
    gmtime_r(&t, &tm);
    strftime(buf, 32, "%Y-%m-%dT%H:%M:%S", &tm);

    return buf;
}


static void
is_window(ngx_http_ai_tz_t *tz, ngx_http_ai_window_e unit, ngx_uint_t first,
    const char *now, const char *start, const char *end, const char *name)
{
    char     a[32], b[32];
    int64_t  s, e;

    ngx_http_ai_window(tz, unit, first, utc(now), &s, &e);

    if (!ok(s == utc(start) && e == utc(end), "%s", name)) {
        diag("%s: %s to %s", now, text(s, a), text(e, b));
    }
}


static void
test_utc(void)
{
    int64_t            s, e;
    ngx_http_ai_tz_t  *tz;

    tz = zone("UTC");
    ok(tz != NULL, "UTC");

    is_window(tz, S(SECOND), 1, "2024-02-29T23:59:59", "2024-02-29T23:59:59",
              "2024-03-01T00:00:00", "second");
    is_window(tz, S(MINUTE), 1, "2024-02-29T23:59:59", "2024-02-29T23:59:00",
              "2024-03-01T00:00:00", "minute");
    is_window(tz, S(HOUR), 1, "2024-02-29T23:59:59", "2024-02-29T23:00:00",
              "2024-03-01T00:00:00", "hour");
    is_window(tz, S(DAY), 1, "2024-02-29T23:59:59", "2024-02-29T00:00:00",
              "2024-03-01T00:00:00", "day");
    is_window(tz, S(WEEK), 1, "2024-02-29T23:59:59", "2024-02-26T00:00:00",
              "2024-03-04T00:00:00", "week from Monday");
    is_window(tz, S(WEEK), 7, "2024-02-29T23:59:59", "2024-02-25T00:00:00",
              "2024-03-03T00:00:00", "week from Sunday");
    is_window(tz, S(WEEK), 4, "2024-02-29T00:00:00", "2024-02-29T00:00:00",
              "2024-03-07T00:00:00", "week from Thursday");
    is_window(tz, S(MONTH), 1, "2024-02-29T23:59:59", "2024-02-01T00:00:00",
              "2024-03-01T00:00:00", "month");
    is_window(tz, S(MONTH), 15, "2024-03-14T23:59:59", "2024-02-15T00:00:00",
              "2024-03-15T00:00:00", "month from the 15th");
    is_window(tz, S(MONTH), 28, "2024-01-01T00:00:00", "2023-12-28T00:00:00",
              "2024-01-28T00:00:00", "month from the 28th");
    is_window(tz, S(MONTH), 1, "1969-12-31T23:59:59", "1969-12-01T00:00:00",
              "1970-01-01T00:00:00", "before 1970");
    is_window(NULL, S(DAY), 1, "2024-02-29T23:59:59", "2024-02-29T00:00:00",
              "2024-03-01T00:00:00", "no zone is UTC");

    ngx_http_ai_window(tz, S(SECOND), 1, 1999, &s, &e);
    ok(s == 1000 && e == 2000, "milliseconds");
}


static void
test_zones(void)
{
    ngx_http_ai_tz_t  *tz;

    tz = zone("Europe/Berlin");

    if (tz == NULL) {
        skip("no time zones: /usr/share/zoneinfo");
        return;
    }

    is_window(tz, S(DAY), 1, "2024-03-31T12:00:00", "2024-03-30T23:00:00",
              "2024-03-31T22:00:00", "Berlin: a day of 23 hours");
    is_window(tz, S(DAY), 1, "2024-10-27T12:00:00", "2024-10-26T22:00:00",
              "2024-10-27T23:00:00", "Berlin: a day of 25 hours");
    is_window(tz, S(MONTH), 1, "2024-10-27T12:00:00", "2024-09-30T22:00:00",
              "2024-10-31T23:00:00", "Berlin: a month");
    is_window(tz, S(HOUR), 1, "2024-10-27T00:30:00", "2024-10-27T00:00:00",
              "2024-10-27T01:00:00", "Berlin: the hour that comes twice");
    is_window(tz, S(HOUR), 1, "2024-10-27T01:30:00", "2024-10-27T01:00:00",
              "2024-10-27T02:00:00", "Berlin: ... again");
    is_window(tz, S(DAY), 1, "2038-07-01T22:00:00", "2038-07-01T22:00:00",
              "2038-07-02T22:00:00", "Berlin: a summer to come");

    tz = zone("Asia/Kolkata");
    is_window(tz, S(HOUR), 1, "2024-01-01T00:00:00", "2023-12-31T23:30:00",
              "2024-01-01T00:30:00", "Kolkata: hours begin at half past");

    /* the clock goes from 24:00 to 01:00: the day begins an hour later */

    tz = zone("America/Sao_Paulo");
    is_window(tz, S(DAY), 1, "2018-11-04T12:00:00", "2018-11-04T03:00:00",
              "2018-11-05T02:00:00", "Sao Paulo: no midnight");

    /* from 24:00 to 23:00: the day before has that hour twice */

    is_window(tz, S(DAY), 1, "2018-02-18T02:30:00", "2018-02-17T02:00:00",
              "2018-02-18T03:00:00", "Sao Paulo: 23:30 again");

    tz = zone("Pacific/Apia");
    is_window(tz, S(DAY), 1, "2011-12-30T10:30:00", "2011-12-30T10:00:00",
              "2011-12-31T10:00:00", "Apia: the day after the missing one");

    tz = zone("Australia/Lord_Howe");
    is_window(tz, S(HOUR), 1, "2024-10-05T15:40:00", "2024-10-05T15:30:00",
              "2024-10-05T16:00:00", "Lord Howe: half an hour");

    tz = zone("Antarctica/Troll");
    ok(tz != NULL, "Troll: two hours");
}


static void
test_errors(void)
{
    ngx_uint_t          i;
    ngx_str_t           s;
    const char         *error;

    static const char  *names[] = {
        "", "/etc/passwd", "../../../etc/passwd", "Europe", "Europe/Berln",
        "Europe/Berlin/", "tzdata.zi", "zone.tab", "a b", "%2e"
    };

    for (i = 0; i < sizeof(names) / sizeof(char *); i++) {
        s.data = (u_char *) names[i];
        s.len = strlen(names[i]);
        error = NULL;

        ok(ngx_http_ai_tz_create(pool, &s, &error) == NULL && error,
           "no zone: \"%s\"", names[i]);
    }
}


/* days and hours of all zones begin when those of the C library do */

static ngx_uint_t
against(const char *name)
{
    int64_t            now, s, e, s2, e2, at;
    time_t             t;
    ngx_uint_t         i, bad, unit;
    struct tm          a, b;
    ngx_http_ai_tz_t  *tz;

    tz = zone(name);

    if (tz == NULL) {
        return 1;
    }

    setenv("TZ", name, 1);
    tzset();

    bad = 0;

    for (i = 0; i < 400; i++) {
        now = utc("1980-01-01T00:00:00")
              + below(utc("2044-01-01T00:00:00")
                      - utc("1980-01-01T00:00:00"));
        unit = S(MINUTE) + below(5);

        ngx_http_ai_window(tz, unit, 1, now, &s, &e);

        bad += !(s <= now && now < e);

        /* each time in it has the same window */

        at = s + below(e - s);
        ngx_http_ai_window(tz, S(SECOND), 1, at, &s2, &e2);
        ngx_http_ai_window(tz, unit, 1, e, &s2, &e2);
        bad += (s2 != e);
        ngx_http_ai_window(tz, unit, 1, at, &s2, &e2);
        bad += (s2 != s || e2 != e);

        /* it begins where the date changes */

        t = s / 1000;
        localtime_r(&t, &a);
        t--;
        localtime_r(&t, &b);

        switch (unit) {

        case S(MONTH):
            bad += (a.tm_mday != 1 && a.tm_mon == b.tm_mon);
            bad += (a.tm_mon == b.tm_mon);
            break;

        case S(WEEK):
            bad += (a.tm_wday != 1 && b.tm_wday != 0);
            bad += (a.tm_mday == b.tm_mday);
            break;

        case S(DAY):
            bad += (a.tm_mday == b.tm_mday);
            break;

        default:
            bad += (unit == S(HOUR) && a.tm_min != 0
                    && a.tm_gmtoff == b.tm_gmtoff);
            bad += (a.tm_sec != 0 && a.tm_gmtoff == b.tm_gmtoff);
        }

        /* and nowhere in it */

        if (unit == S(DAY)) {
            t = at / 1000;
            localtime_r(&t, &b);

            if (a.tm_mday != b.tm_mday) {

                /* but where 23:30 comes twice */

                t = (e - 1) / 1000;
                localtime_r(&t, &b);
                bad += (a.tm_gmtoff == b.tm_gmtoff);
            }
        }
    }

    if (bad) {
        diag("%s: %u", name, (unsigned) bad);
    }

    return bad;
}


static void
test_library(void)
{
    DIR            *dir;
    char            path[256], name[128];
    ngx_uint_t      i, n, bad;
    struct stat     st;
    struct dirent  *e;

    static const char  *places[] = { "Europe", "America", "Asia", "Africa",
                                     "Australia", "Pacific", "Atlantic",
                                     "Antarctica", "Indian", "Etc" };

    n = 0;
    bad = 0;

    for (i = 0; i < sizeof(places) / sizeof(char *); i++) {
        snprintf(path, sizeof(path), "/usr/share/zoneinfo/%s", places[i]);

        dir = opendir(path);

        if (dir == NULL) {
            continue;
        }

        while ((e = readdir(dir)) != NULL) {
            snprintf(name, sizeof(name), "%s/%.64s", places[i], e->d_name);
            snprintf(path, sizeof(path), "/usr/share/zoneinfo/%s", name);

            if (e->d_name[0] == '.' || stat(path, &st) != 0
                || !S_ISREG(st.st_mode))
            {
                continue;
            }

            bad += (against(name) != 0);
            n++;
        }

        closedir(dir);
    }

    if (n == 0) {
        skip("no time zones: /usr/share/zoneinfo");
        return;
    }

    ok(bad == 0, "as in the C library: %u zones", (unsigned) n);
}


int
main(void)
{
    pool = ngx_create_pool(4096, NULL);

    test_utc();
    test_zones();
    test_errors();
    test_library();

    ngx_destroy_pool(pool);

    return done_testing();
}
