
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_quantity.h"

#include <string.h>


typedef struct {
    const char                *name;
    int                        unit;
} ngx_http_ai_quantity_unit_t;


static int ngx_http_ai_quantity_number(const unsigned char *p, size_t len,
    int scale, int64_t *n);


const ngx_http_ai_quantity_name_t  ngx_http_ai_quantity_limits[] = {
    { "requests", NGX_HTTP_AI_QUANTITY_REQUESTS },
    { "tokens", NGX_HTTP_AI_QUANTITY_TOKENS },
    { "input_tokens", NGX_HTTP_AI_QUANTITY_TOKENS },
    { "output_tokens", NGX_HTTP_AI_QUANTITY_TOKENS },
    { "concurrent", NGX_HTTP_AI_QUANTITY_SLOTS },
    { NULL, 0 }
};


const ngx_http_ai_quantity_name_t  ngx_http_ai_quantity_quotas[] = {
    { "requests", NGX_HTTP_AI_QUANTITY_Q_REQUESTS },
    { "tokens", NGX_HTTP_AI_QUANTITY_Q_TOKENS },
    { "usd", NGX_HTTP_AI_QUANTITY_Q_MONEY },
    { NULL, 0 }
};


/* the first of each unit is its name in messages */

static const ngx_http_ai_quantity_unit_t  ngx_http_ai_quantity_units[] = {
    { "second", NGX_HTTP_AI_QUANTITY_SECOND },
    { "minute", NGX_HTTP_AI_QUANTITY_MINUTE },
    { "hour", NGX_HTTP_AI_QUANTITY_HOUR },
    { "day", NGX_HTTP_AI_QUANTITY_DAY },
    { "week", NGX_HTTP_AI_QUANTITY_WEEK },
    { "month", NGX_HTTP_AI_QUANTITY_MONTH },
    { "s", NGX_HTTP_AI_QUANTITY_SECOND },
    { "m", NGX_HTTP_AI_QUANTITY_MINUTE },
    { "h", NGX_HTTP_AI_QUANTITY_HOUR },
    { "d", NGX_HTTP_AI_QUANTITY_DAY },
    { "w", NGX_HTTP_AI_QUANTITY_WEEK },
    { "sec", NGX_HTTP_AI_QUANTITY_SECOND },
    { "min", NGX_HTTP_AI_QUANTITY_MINUTE },
    { NULL, 0 }
};


const char *
ngx_http_ai_quantity_read(const unsigned char *text, size_t len,
    ngx_http_ai_quantity_e kind, int64_t *n, int *unit)
{
    size_t                              number, rest;
    int64_t                             value, scale;
    const unsigned char                *slash;
    const ngx_http_ai_quantity_unit_t  *u;

    *n = -1;

    number = len;
    slash = len ? memchr(text, '/', len) : NULL;

    if (slash) {
        number = slash - text;
    }

    if (number == 0) {
        /* a variable without a value */
        return NULL;
    }

    if (kind == NGX_HTTP_AI_QUANTITY_SLOTS) {

        if (slash) {
            return "it is a number such as 20";
        }

        *unit = NGX_HTTP_AI_QUANTITY_SECOND;

    } else if (slash) {

        slash++;
        rest = text + len - slash;

        for (u = ngx_http_ai_quantity_units; u->name; u++) {
            if (strlen(u->name) == rest && memcmp(u->name, slash, rest) == 0) {
                break;
            }
        }

        if (u->name == NULL) {
            return "units of time are s, m, hour, day, week and month";
        }

        *unit = u->unit;

        if (kind < NGX_HTTP_AI_QUANTITY_Q_REQUESTS
            && u->unit == NGX_HTTP_AI_QUANTITY_MONTH)
        {
            return "a rate is per s, m, hour, day or week, a month needs "
                   "\"ai_quota_zone\"";
        }

        if (kind >= NGX_HTTP_AI_QUANTITY_Q_REQUESTS
            && u->unit == NGX_HTTP_AI_QUANTITY_SECOND)
        {
            return "a quota is per m, hour, day, week or month, a second "
                   "needs \"ai_limit_zone\"";
        }

    } else if (*unit == NGX_HTTP_AI_QUANTITY_NONE) {
        return "it has no unit of time, such as \"/m\" or \"/day\"";
    }

    if (number > 1 && text[number - 1] == 'r'
        && (kind == NGX_HTTP_AI_QUANTITY_REQUESTS
            || kind == NGX_HTTP_AI_QUANTITY_Q_REQUESTS))
    {
        number--;
    }

    scale = 1;

    switch (text[number - 1]) {

    case 'k':
    case 'K':
        scale = 1000;
        break;

    case 'm':
    case 'M':
        scale = 1000000;
        break;

    case 'g':
    case 'G':
        scale = 1000000000;
        break;
    }

    if (scale > 1) {
        number--;
    }

    if (kind == NGX_HTTP_AI_QUANTITY_Q_MONEY) {

        if (ngx_http_ai_quantity_number(text, number, 9, &value) != 0) {
            return "it is not a number such as 60, 100k or 5m";
        }

        if (value > NGX_HTTP_AI_QUANTITY_MOST / scale) {
            return "it is too large";
        }

        *n = value * scale;

        return NULL;
    }

    if (ngx_http_ai_quantity_number(text, number, 3, &value) != 0) {
        return "it is not a number such as 60, 100k or 5m";
    }

    if (value > NGX_HTTP_AI_QUANTITY_MOST * 1000 / scale) {
        return "it is too large";
    }

    value *= scale;

    if (value % 1000) {
        return "it is not a whole number";
    }

    *n = value / 1000;

    return NULL;
}


/*
 * Digits with a fraction and an exponent as JSON has them, times 10^scale,
 * rounded half up; one that is too large becomes INT64_MAX.
 */

static int
ngx_http_ai_quantity_number(const unsigned char *p, size_t len, int scale,
    int64_t *n)
{
    int                   digits, shift, exponent, negative, half;
    int64_t               value;
    const unsigned char  *last;

    last = p + len;
    value = 0;
    digits = 0;
    shift = scale;
    half = 0;

    for ( /* void */ ; p < last && *p >= '0' && *p <= '9'; p++, digits++) {

        if (value < INT64_MAX / 100) {
            value = value * 10 + (*p - '0');

        } else if (shift < 1000) {
            shift++;
        }
    }

    if (digits == 0) {
        return -1;
    }

    if (p < last && *p == '.') {
        digits = 0;

        for (p++; p < last && *p >= '0' && *p <= '9'; p++, digits++) {

            if (value < INT64_MAX / 100) {
                value = value * 10 + (*p - '0');
                shift--;
            }
        }

        if (digits == 0) {
            return -1;
        }
    }

    if (p < last && (*p == 'e' || *p == 'E')) {
        exponent = 0;
        digits = 0;
        p++;

        negative = (p < last && *p == '-');

        if (p < last && (*p == '-' || *p == '+')) {
            p++;
        }

        for ( /* void */ ; p < last && *p >= '0' && *p <= '9'; p++, digits++) {
            if (exponent < 1000) {
                exponent = exponent * 10 + (*p - '0');
            }
        }

        if (digits == 0) {
            return -1;
        }

        shift += negative ? -exponent : exponent;
    }

    if (p != last) {
        return -1;
    }

    for ( /* void */ ; shift > 0 && value; shift--) {

        if (value > INT64_MAX / 10) {
            value = INT64_MAX;
            break;
        }

        value *= 10;
    }

    for ( /* void */ ; shift < 0 && (value || half); shift++) {
        half = (value % 10 >= 5);
        value /= 10;
    }

    *n = value + half;

    return 0;
}


const char *
ngx_http_ai_quantity_unit(int unit)
{
    return ngx_http_ai_quantity_units[unit].name;
}
