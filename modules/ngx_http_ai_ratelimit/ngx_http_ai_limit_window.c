
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_limit_window.h"


#define NGX_HTTP_AI_TZ_SIZE    65536
#define NGX_HTTP_AI_TZ_HEAD    44
#define NGX_HTTP_AI_TZ_YEARS   20

/* seconds; zones are not farther from UTC */
#define NGX_HTTP_AI_TZ_MAX     (26 * 3600)

#define NGX_HTTP_AI_TZ_EVER    ((int64_t) 1 << 48)


typedef struct {
    ngx_uint_t                 first;
    int64_t                    start;
    int64_t                    end;
} ngx_http_ai_tz_last_t;


/* from at[i] on, until at[i + 1], local time is that of UTC plus offset[i] */

struct ngx_http_ai_tz_s {
    ngx_uint_t                 n;
    int64_t                   *at;
    int32_t                   *offset;
    ngx_http_ai_tz_last_t      last[NGX_HTTP_AI_WINDOW_MONTH + 1];
};


/* when summer time begins or ends */

typedef struct {
    u_char                     type;      /* 'M', 'J', or '0' */
    ngx_int_t                  month;
    ngx_int_t                  week;
    ngx_int_t                  day;
    int64_t                    time;
} ngx_http_ai_tz_rule_t;


typedef struct {
    int64_t                    standard;
    int64_t                    summer;
    ngx_uint_t                 has_summer;
    ngx_http_ai_tz_rule_t      rules[2];
} ngx_http_ai_tz_footer_t;


static ngx_int_t ngx_http_ai_tz_read(ngx_pool_t *pool, ngx_str_t *name,
    ngx_str_t *data);
static ngx_http_ai_tz_t *ngx_http_ai_tz_parse(ngx_pool_t *pool,
    ngx_str_t *data, int64_t now);
static ngx_http_ai_tz_t *ngx_http_ai_tz_alloc(ngx_pool_t *pool,
    ngx_uint_t n);
static ngx_int_t ngx_http_ai_tz_footer(u_char *p, u_char *last,
    ngx_http_ai_tz_footer_t *f);
static u_char *ngx_http_ai_tz_name(u_char *p, u_char *last);
static u_char *ngx_http_ai_tz_time(u_char *p, u_char *last, int64_t *time);
static u_char *ngx_http_ai_tz_number(u_char *p, u_char *last, ngx_int_t *n);
static u_char *ngx_http_ai_tz_rule(u_char *p, u_char *last,
    ngx_http_ai_tz_rule_t *rule);
static int64_t ngx_http_ai_tz_rule_at(ngx_http_ai_tz_rule_t *rule,
    int64_t year);
static uint64_t ngx_http_ai_tz_int(u_char *p, size_t n);
static void ngx_http_ai_tz_add(ngx_http_ai_tz_t *tz, int64_t at,
    int64_t offset);
static ngx_uint_t ngx_http_ai_tz_find(ngx_http_ai_tz_t *tz, int64_t t);
static int64_t ngx_http_ai_tz_utc(ngx_http_ai_tz_t *tz, int64_t local);
static int64_t ngx_http_ai_tz_days(int64_t year, int64_t month, int64_t day);
static void ngx_http_ai_tz_date(int64_t days, int64_t *year, int64_t *month,
    int64_t *day);
static int64_t ngx_http_ai_tz_floor(int64_t n, int64_t by);
static int64_t ngx_http_ai_window_index(ngx_http_ai_window_e unit,
    ngx_uint_t first, int64_t day);
static int64_t ngx_http_ai_window_day(ngx_http_ai_window_e unit,
    ngx_uint_t first, int64_t index);


static int64_t  ngx_http_ai_tz_utc_at[] = { -NGX_HTTP_AI_TZ_EVER };
static int32_t  ngx_http_ai_tz_utc_offset[] = { 0 };

static ngx_http_ai_tz_t  ngx_http_ai_tz_none = {
    1, ngx_http_ai_tz_utc_at, ngx_http_ai_tz_utc_offset, { { 0, 0, 0 } }
};


ngx_http_ai_tz_t *
ngx_http_ai_tz_create(ngx_pool_t *pool, ngx_str_t *name, const char **error)
{
    ngx_int_t          rc;
    ngx_str_t          data;
    ngx_http_ai_tz_t  *tz;

    *error = "no memory";

    if (name->len == 3 && ngx_strncmp(name->data, "UTC", 3) == 0) {
        tz = ngx_http_ai_tz_alloc(pool, 0);

        if (tz) {
            ngx_http_ai_tz_add(tz, -NGX_HTTP_AI_TZ_EVER, 0);
        }

        return tz;
    }

    rc = ngx_http_ai_tz_read(pool, name, &data);

    if (rc == NGX_DECLINED) {
        *error = "no such time zone in /usr/share/zoneinfo, "
                 "is the package tzdata installed?";
        return NULL;
    }

    if (rc != NGX_OK) {
        return NULL;
    }

    *error = "the file of the time zone is damaged";

    return ngx_http_ai_tz_parse(pool, &data, (int64_t) time(NULL));
}


static ngx_int_t
ngx_http_ai_tz_read(ngx_pool_t *pool, ngx_str_t *name, ngx_str_t *data)
{
    u_char               c, path[256];
    ssize_t              n;
    ngx_fd_t             fd;
    ngx_uint_t           i;
    static const char   *dirs[] = { "/usr/share/zoneinfo",
                                    "/usr/lib/zoneinfo",
                                    "/usr/share/lib/zoneinfo",
                                    "/etc/zoneinfo", NULL };

    if (name->len == 0 || name->len > 128 || name->data[0] == '/') {
        return NGX_DECLINED;
    }

    for (i = 0; i < name->len; i++) {
        c = name->data[i];

        /* no dots, so no other directories */

        if (!((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')
              || (c >= '0' && c <= '9') || c == '/' || c == '_' || c == '-'
              || c == '+'))
        {
            return NGX_DECLINED;
        }
    }

    fd = -1;

    for (i = 0; dirs[i] && fd == -1; i++) {
        n = strlen(dirs[i]);

        ngx_memcpy(path, dirs[i], n);
        path[n] = '/';
        ngx_memcpy(path + n + 1, name->data, name->len);
        path[n + 1 + name->len] = '\0';

        fd = open((char *) path, O_RDONLY|O_NONBLOCK);
    }

    if (fd == -1) {
        return NGX_DECLINED;
    }

    data->len = 0;
    data->data = ngx_pnalloc(pool, NGX_HTTP_AI_TZ_SIZE);

    if (data->data == NULL) {
        (void) close(fd);
        return NGX_ERROR;
    }

    while (data->len < NGX_HTTP_AI_TZ_SIZE) {
        n = read(fd, data->data + data->len, NGX_HTTP_AI_TZ_SIZE - data->len);

        if (n <= 0) {
            break;
        }

        data->len += n;
    }

    (void) close(fd);

    /* a directory, as "Europe", is no zone, too */

    return (data->len > 4 && ngx_strncmp(data->data, "TZif", 4) == 0)
           ? NGX_OK : NGX_DECLINED;
}


/* RFC 9636 */

static ngx_http_ai_tz_t *
ngx_http_ai_tz_parse(ngx_pool_t *pool, ngx_str_t *data, int64_t now)
{
    u_char                   *p, *last, *times, *indices, *types;
    size_t                    size, need;
    int64_t                   at, year, to, ats[2], offset;
    uint64_t                  c[6];
    ngx_uint_t                i, k, type;
    ngx_http_ai_tz_t         *tz;
    ngx_http_ai_tz_footer_t   f;

    p = data->data;
    last = data->data + data->len;
    size = 4;

    for ( ;; ) {

        if ((size_t) (last - p) < NGX_HTTP_AI_TZ_HEAD
            || ngx_strncmp(p, "TZif", 4) != 0)
        {
            return NULL;
        }

        /* is UT, is standard, leap seconds, times, types, characters */

        for (i = 0; i < 6; i++) {
            c[i] = ngx_http_ai_tz_int(p + 20 + 4 * i, 4);

            if (c[i] > NGX_HTTP_AI_TZ_SIZE) {
                return NULL;
            }
        }

        need = c[3] * (size + 1) + c[4] * 6 + c[5] + c[2] * (size + 4)
               + c[1] + c[0];

        k = (p[4] >= '2' && size == 4);
        p += NGX_HTTP_AI_TZ_HEAD;

        if ((size_t) (last - p) < need) {
            return NULL;
        }

        if (!k) {
            break;
        }

        /* the same in 64 bits follows */

        p += need;
        size = 8;
    }

    if (c[4] == 0 || c[2] != 0) {
        return NULL;
    }

    times = p;
    indices = times + c[3] * size;
    types = indices + c[3];

    ngx_memzero(&f, sizeof(ngx_http_ai_tz_footer_t));

    if (size == 8
        && ngx_http_ai_tz_footer(p + need, last, &f) != NGX_OK)
    {
        return NULL;
    }

    ngx_http_ai_tz_date(ngx_http_ai_tz_floor(now, 86400), &to, &at, &offset);

    to += NGX_HTTP_AI_TZ_YEARS;
    year = 1970;

    tz = ngx_http_ai_tz_alloc(pool, c[3] + 2 * (to - year + 1));
    if (tz == NULL) {
        return NULL;
    }

    for (i = 0; i <= c[3]; i++) {
        at = -NGX_HTTP_AI_TZ_EVER;
        type = 0;

        if (i) {
            type = indices[i - 1];
            at = (size == 8)
                 ? (int64_t) ngx_http_ai_tz_int(times + 8 * (i - 1), 8)
                 : (int32_t) ngx_http_ai_tz_int(times + 4 * (i - 1), 4);
        }

        if (type >= c[4]) {
            return NULL;
        }

        offset = (int32_t) ngx_http_ai_tz_int(types + 6 * type, 4);

        if (offset > NGX_HTTP_AI_TZ_MAX || offset < -NGX_HTTP_AI_TZ_MAX) {
            return NULL;
        }

        ngx_http_ai_tz_add(tz, at, offset);
    }

    if (!f.has_summer) {
        return tz;
    }

    for ( /* void */ ; year <= to; year++) {

        ats[0] = ngx_http_ai_tz_rule_at(&f.rules[0], year) - f.standard;
        ats[1] = ngx_http_ai_tz_rule_at(&f.rules[1], year) - f.summer;

        /* the southern summer ends first */

        k = (ats[0] > ats[1]);

        for (i = 0; i < 2; i++, k = !k) {

            /* the file is right for as long as it lasts */

            if (c[3] == 0 || ats[k] > tz->at[c[3]]) {
                ngx_http_ai_tz_add(tz, ats[k], k ? f.standard : f.summer);
            }
        }
    }

    return tz;
}


static ngx_http_ai_tz_t *
ngx_http_ai_tz_alloc(ngx_pool_t *pool, ngx_uint_t n)
{
    ngx_http_ai_tz_t  *tz;

    tz = ngx_pcalloc(pool, sizeof(ngx_http_ai_tz_t));
    if (tz == NULL) {
        return NULL;
    }

    tz->at = ngx_palloc(pool, (n + 1) * sizeof(int64_t));
    tz->offset = ngx_palloc(pool, (n + 1) * sizeof(int32_t));

    return (tz->at && tz->offset) ? tz : NULL;
}


/* "\nCET-1CEST,M3.5.0,M10.5.0/3\n": for times after those of the file */

static ngx_int_t
ngx_http_ai_tz_footer(u_char *p, u_char *last, ngx_http_ai_tz_footer_t *f)
{
    int64_t     offset;
    ngx_uint_t  i;

    if (p == last || *p++ != LF) {
        return NGX_ERROR;
    }

    last = ngx_strlchr(p, last, LF);
    if (last == NULL) {
        return NGX_ERROR;
    }

    if (p == last) {
        return NGX_OK;
    }

    /* for clang, which does not see that it is set when it is used */
    offset = 0;

    p = ngx_http_ai_tz_name(p, last);
    p = p ? ngx_http_ai_tz_time(p, last, &offset) : NULL;

    if (p == NULL) {
        return NGX_ERROR;
    }

    /* it is what is added to local time */

    f->standard = -offset;

    if (p == last) {
        return NGX_OK;
    }

    p = ngx_http_ai_tz_name(p, last);
    if (p == NULL) {
        return NGX_ERROR;
    }

    f->summer = f->standard + 3600;

    if (p < last && *p != ',') {
        p = ngx_http_ai_tz_time(p, last, &offset);
        if (p == NULL) {
            return NGX_ERROR;
        }

        f->summer = -offset;
    }

    for (i = 0; i < 2; i++) {

        if (p == last || *p++ != ',') {
            return NGX_ERROR;
        }

        p = ngx_http_ai_tz_rule(p, last, &f->rules[i]);
        if (p == NULL) {
            return NGX_ERROR;
        }
    }

    f->has_summer = 1;

    if (ngx_abs(f->standard) > NGX_HTTP_AI_TZ_MAX
        || ngx_abs(f->summer) > NGX_HTTP_AI_TZ_MAX)
    {
        return NGX_ERROR;
    }

    return (p == last) ? NGX_OK : NGX_ERROR;
}


static u_char *
ngx_http_ai_tz_name(u_char *p, u_char *last)
{
    u_char  *start;

    start = p;

    if (p < last && *p == '<') {
        p = ngx_strlchr(p, last, '>');

        return p ? p + 1 : NULL;
    }

    while (p < last
           && ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z')))
    {
        p++;
    }

    return (p > start) ? p : NULL;
}


/* [+-]hh[:mm[:ss]] */

static u_char *
ngx_http_ai_tz_time(u_char *p, u_char *last, int64_t *time)
{
    int64_t     sign, unit;
    ngx_int_t   n;

    sign = 1;
    *time = 0;

    if (p < last && (*p == '-' || *p == '+')) {
        sign = (*p++ == '-') ? -1 : 1;
    }

    for (unit = 3600; unit; unit /= 60) {
        p = ngx_http_ai_tz_number(p, last, &n);
        if (p == NULL) {
            return NULL;
        }

        *time += sign * n * unit;

        if (p == last || *p != ':' || unit == 1) {
            break;
        }

        p++;
    }

    return p;
}


static u_char *
ngx_http_ai_tz_number(u_char *p, u_char *last, ngx_int_t *n)
{
    u_char  *start;

    start = p;
    *n = 0;

    while (p < last && *p >= '0' && *p <= '9') {
        *n = *n * 10 + (*p++ - '0');

        if (*n > 999) {
            return NULL;
        }
    }

    return (p > start) ? p : NULL;
}


/* Mm.w.d, Jn or n, and /time */

static u_char *
ngx_http_ai_tz_rule(u_char *p, u_char *last, ngx_http_ai_tz_rule_t *rule)
{
    rule->type = '0';
    rule->time = 2 * 3600;

    if (p < last && (*p == 'M' || *p == 'J')) {
        rule->type = *p++;
    }

    if (rule->type == 'M') {
        p = ngx_http_ai_tz_number(p, last, &rule->month);

        if (p == NULL || p == last || *p++ != '.'
            || rule->month < 1 || rule->month > 12)
        {
            return NULL;
        }

        p = ngx_http_ai_tz_number(p, last, &rule->week);

        if (p == NULL || p == last || *p++ != '.'
            || rule->week < 1 || rule->week > 5)
        {
            return NULL;
        }
    }

    p = ngx_http_ai_tz_number(p, last, &rule->day);

    if (p == NULL || rule->day > (rule->type == 'M' ? 6 : 365)) {
        return NULL;
    }

    if (p < last && *p == '/') {
        p = ngx_http_ai_tz_time(p + 1, last, &rule->time);
    }

    return p;
}


/* local seconds */

static int64_t
ngx_http_ai_tz_rule_at(ngx_http_ai_tz_rule_t *rule, int64_t year)
{
    int64_t  day, next;

    if (rule->type == 'M') {

        /* the week'th such day of the week in the month, or the last */

        day = ngx_http_ai_tz_days(year, rule->month, 1);
        next = ngx_http_ai_tz_days(year + rule->month / 12,
                                   rule->month % 12 + 1, 1);

        /* day 0 was a Thursday */

        day += (rule->day - (day + 4) % 7 + 7) % 7 + 7 * (rule->week - 1);

        if (day >= next) {
            day -= 7;
        }

        return day * 86400 + rule->time;
    }

    day = ngx_http_ai_tz_days(year, 1, 1) + rule->day;

    if (rule->type == 'J') {

        /* 1 to 365, without February 29 */

        day--;

        if (rule->day >= 60 && year % 4 == 0
            && (year % 100 != 0 || year % 400 == 0))
        {
            day++;
        }
    }

    return day * 86400 + rule->time;
}


static uint64_t
ngx_http_ai_tz_int(u_char *p, size_t n)
{
    uint64_t  v;

    v = 0;

    while (n--) {
        v = v << 8 | *p++;
    }

    return v;
}


/* ascending; what is not is of no use */

static void
ngx_http_ai_tz_add(ngx_http_ai_tz_t *tz, int64_t at, int64_t offset)
{
    at = ngx_max(at, -NGX_HTTP_AI_TZ_EVER);
    at = ngx_min(at, NGX_HTTP_AI_TZ_EVER);

    if (tz->n && at < tz->at[tz->n - 1]) {
        at = tz->at[tz->n - 1];
    }

    tz->at[tz->n] = at;
    tz->offset[tz->n] = offset;
    tz->n++;
}


void
ngx_http_ai_window(ngx_http_ai_tz_t *tz, ngx_http_ai_window_e unit,
    ngx_uint_t first, int64_t now, int64_t *start, int64_t *end)
{
    int64_t                 t, length, offset, index;
    ngx_uint_t              i;
    ngx_http_ai_tz_last_t  *last;

    if (tz == NULL) {
        tz = &ngx_http_ai_tz_none;
    }

    last = &tz->last[unit];

    if (now >= last->start && now < last->end && last->first == first) {
        *start = last->start;
        *end = last->end;
        return;
    }

    t = ngx_http_ai_tz_floor(now, 1000);

    i = ngx_http_ai_tz_find(tz, t);
    offset = tz->offset[i];

    if (unit <= NGX_HTTP_AI_WINDOW_HOUR) {
        length = (unit == NGX_HTTP_AI_WINDOW_HOUR) ? 3600
                 : (unit == NGX_HTTP_AI_WINDOW_MINUTE) ? 60 : 1;

        *start = ngx_http_ai_tz_floor(t + offset, length) * length - offset;
        *end = *start + length;

        /* one that the clock is set in is two */

        *start = ngx_max(*start, tz->at[i]);

        if (i + 1 < tz->n) {
            *end = ngx_min(*end, tz->at[i + 1]);
        }

    } else {

        /*
         * Where the clock is set at midnight, a day may begin later than at
         * 00:00, or this time come twice: it begins when it first comes.
         */

        index = ngx_http_ai_window_index(unit, first,
                                    ngx_http_ai_tz_floor(t + offset, 86400));

        for ( ;; ) {
            *start = ngx_http_ai_tz_utc(tz,
                    ngx_http_ai_window_day(unit, first, index) * 86400);

            if (t >= *start) {
                break;
            }

            index--;
        }

        for ( ;; ) {
            *end = ngx_http_ai_tz_utc(tz,
                    ngx_http_ai_window_day(unit, first, ++index) * 86400);

            if (t < *end) {
                break;
            }

            *start = *end;
        }
    }

    *start *= 1000;
    *end *= 1000;

    last->first = first;
    last->start = *start;
    last->end = *end;
}


static ngx_uint_t
ngx_http_ai_tz_find(ngx_http_ai_tz_t *tz, int64_t t)
{
    ngx_uint_t  low, high, i;

    low = 0;
    high = tz->n;

    while (high - low > 1) {
        i = (low + high) / 2;

        if (tz->at[i] <= t) {
            low = i;

        } else {
            high = i;
        }
    }

    return low;
}


/* the first time at which clocks show that or more */

static int64_t
ngx_http_ai_tz_utc(ngx_http_ai_tz_t *tz, int64_t local)
{
    int64_t     t;
    ngx_uint_t  i;

    i = ngx_http_ai_tz_find(tz, local - NGX_HTTP_AI_TZ_MAX);

    for ( ;; ) {
        t = ngx_max(local - tz->offset[i], tz->at[i]);

        if (++i == tz->n || t < tz->at[i]) {
            return t;
        }
    }
}


/* a count of windows, that the local day is in, and the day one begins with */

static int64_t
ngx_http_ai_window_index(ngx_http_ai_window_e unit, ngx_uint_t first,
    int64_t day)
{
    int64_t  y, m, d;

    switch (unit) {

    case NGX_HTTP_AI_WINDOW_WEEK:

        /* day 4 was a Monday */

        return ngx_http_ai_tz_floor(day - 3 - (int64_t) first, 7);

    case NGX_HTTP_AI_WINDOW_MONTH:
        ngx_http_ai_tz_date(day, &y, &m, &d);

        return y * 12 + m - 1 - (d < (int64_t) first);

    default:
        return day;
    }
}


static int64_t
ngx_http_ai_window_day(ngx_http_ai_window_e unit, ngx_uint_t first,
    int64_t index)
{
    int64_t  y;

    switch (unit) {

    case NGX_HTTP_AI_WINDOW_WEEK:
        return index * 7 + 3 + (int64_t) first;

    case NGX_HTTP_AI_WINDOW_MONTH:
        y = ngx_http_ai_tz_floor(index, 12);

        return ngx_http_ai_tz_days(y, index - y * 12 + 1,
                                   ngx_max((int64_t) first, 1));

    default:
        return index;
    }
}


/* days since 1970-01-01 of the Gregorian calendar, years beginning in March */

static int64_t
ngx_http_ai_tz_days(int64_t year, int64_t month, int64_t day)
{
    int64_t  era, y, d;

    year -= (month <= 2);
    era = ngx_http_ai_tz_floor(year, 400);
    y = year - era * 400;
    d = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

    return era * 146097 + y * 365 + y / 4 - y / 100 + d - 719468;
}


static void
ngx_http_ai_tz_date(int64_t days, int64_t *year, int64_t *month,
    int64_t *day)
{
    int64_t  era, d, y, m;

    days += 719468;
    era = ngx_http_ai_tz_floor(days, 146097);
    d = days - era * 146097;
    y = (d - d / 1460 + d / 36524 - d / 146096) / 365;
    d -= 365 * y + y / 4 - y / 100;
    m = (5 * d + 2) / 153;

    *day = d - (153 * m + 2) / 5 + 1;
    *month = (m < 10) ? m + 3 : m - 9;
    *year = y + era * 400 + (*month <= 2);
}


static int64_t
ngx_http_ai_tz_floor(int64_t n, int64_t by)
{
    return n / by - (n % by < 0);
}
