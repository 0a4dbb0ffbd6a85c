
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_time.h"


static ngx_uint_t ngx_http_ai_rfc3339_number(u_char *p, ngx_uint_t digits);


/* date, time with seconds and perhaps a fraction, "Z" or an offset */

ngx_int_t
ngx_http_ai_rfc3339(ngx_str_t *text, int64_t *value)
{
    u_char       *p, *last;
    int64_t       days, offset;
    ngx_uint_t    i, year, month, day, hour, min, sec, leap, zhour, zmin;

    static ngx_uint_t  mdays[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31,
                                   30, 31 };
    static u_char      form[] = "dddd-dd-ddTdd:dd:dd";

    p = text->data;
    last = p + text->len;

    if (text->len < sizeof(form)) {
        return NGX_ERROR;
    }

    for (i = 0; i < sizeof(form) - 1; i++) {

        switch (form[i]) {

        case 'd':
            if (p[i] < '0' || p[i] > '9') {
                return NGX_ERROR;
            }

            break;

        case 'T':
            if (p[i] != 'T' && p[i] != 't' && p[i] != ' ') {
                return NGX_ERROR;
            }

            break;

        default:
            if (p[i] != form[i]) {
                return NGX_ERROR;
            }
        }
    }

    year = ngx_http_ai_rfc3339_number(p, 4);
    month = ngx_http_ai_rfc3339_number(p + 5, 2);
    day = ngx_http_ai_rfc3339_number(p + 8, 2);
    hour = ngx_http_ai_rfc3339_number(p + 11, 2);
    min = ngx_http_ai_rfc3339_number(p + 14, 2);
    sec = ngx_http_ai_rfc3339_number(p + 17, 2);

    p += sizeof(form) - 1;

    leap = (year % 4 == 0 && (year % 100 != 0 || year % 400 == 0));

    if (year < 1970 || month < 1 || month > 12 || day < 1
        || day > mdays[month - 1] + (month == 2 && leap)
        || hour > 23 || min > 59 || sec > 60)
    {
        return NGX_ERROR;
    }

    if (*p == '.') {
        for (p++, i = 0; p < last && *p >= '0' && *p <= '9'; p++, i++) {
            /* void */
        }

        if (i == 0 || p == last) {
            return NGX_ERROR;
        }
    }

    offset = 0;

    if (*p == '+' || *p == '-') {

        if (last - p != 6 || p[3] != ':'
            || p[1] < '0' || p[1] > '9' || p[2] < '0' || p[2] > '9'
            || p[4] < '0' || p[4] > '9' || p[5] < '0' || p[5] > '9')
        {
            return NGX_ERROR;
        }

        zhour = ngx_http_ai_rfc3339_number(p + 1, 2);
        zmin = ngx_http_ai_rfc3339_number(p + 4, 2);

        if (zhour > 23 || zmin > 59) {
            return NGX_ERROR;
        }

        offset = (int64_t) (zhour * 60 + zmin) * 60;

        if (*p == '-') {
            offset = -offset;
        }

    } else if ((*p != 'Z' && *p != 'z') || p + 1 != last) {
        return NGX_ERROR;
    }

    /* days since 1970 */

    days = (int64_t) (year - 1) * 365 + (year - 1) / 4 - (year - 1) / 100
           + (year - 1) / 400 - 719162;

    for (i = 0; i < month - 1; i++) {
        days += mdays[i] + (i == 1 && leap);
    }

    days += day - 1;

    *value = days * 86400 + (int64_t) (hour * 3600 + min * 60 + sec) - offset;

    /* 0 means that there is none */

    return (*value > 0) ? NGX_OK : NGX_ERROR;
}


static ngx_uint_t
ngx_http_ai_rfc3339_number(u_char *p, ngx_uint_t digits)
{
    ngx_uint_t  n;

    for (n = 0; digits--; p++) {
        n = n * 10 + (*p - '0');
    }

    return n;
}
