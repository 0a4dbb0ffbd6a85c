
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * What a line of the usage log is made of: plain C on memory that is large
 * enough, so that nothing is tested twice.
 */


#ifndef _NGX_HTTP_AI_LOG_TEXT_H_INCLUDED_
#define _NGX_HTTP_AI_LOG_TEXT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_json.h"


/* what a text of n bytes may become at most */
#define ngx_http_ai_log_room(n)  ((n) * 6)

#define NGX_HTTP_AI_LOG_TIME_LEN  (sizeof("2027-01-31T12:00:00.123Z") - 1)


/*
 * Plain bytes as the inside of a JSON string that no reader of lines can
 * stumble over: as ngx_http_ai_out_escaped(), and U+0085, U+2028 and U+2029
 * are escaped too.
 */
u_char *ngx_http_ai_log_text(u_char *p, u_char *data, size_t len);

/* two digits of each number below 100 */
extern const u_char  ngx_http_ai_log_digits[];

/* from 10000 */
u_char *ngx_http_ai_log_large(u_char *p, uint64_t n);

static ngx_inline u_char *
ngx_http_ai_log_pair(u_char *p, ngx_uint_t n)
{
    return ngx_cpymem(p, &ngx_http_ai_log_digits[2 * n], 2);
}


static ngx_inline u_char *
ngx_http_ai_log_uint(u_char *p, uint64_t n)
{
    ngx_uint_t  high;

    if (n < 10) {
        *p++ = (u_char) ('0' + n);
        return p;
    }

    if (n < 100) {
        return ngx_http_ai_log_pair(p, (ngx_uint_t) n);
    }

    if (n >= 10000) {
        return ngx_http_ai_log_large(p, n);
    }

    high = (uint32_t) n / 100;

    if (high < 10) {
        *p++ = (u_char) ('0' + high);

    } else {
        p = ngx_http_ai_log_pair(p, high);
    }

    return ngx_http_ai_log_pair(p, (ngx_uint_t) n - high * 100);
}


/* n / 10^9 with nine decimals, n / 10^3 with three */
u_char *ngx_http_ai_log_nano(u_char *p, uint64_t n);
u_char *ngx_http_ai_log_milli(u_char *p, uint64_t n);

/* RFC 3339, UTC */
u_char *ngx_http_ai_log_time(u_char *p, time_t sec, ngx_uint_t msec);

/* the length of data up to max bytes that ends between two characters, and
 * not within an escape of raw text */
size_t ngx_http_ai_log_cut(u_char *data, size_t len, size_t max,
    ngx_uint_t raw);


/*
 * The texts of a prompt, whatever its dialect: of "messages", "system",
 * "input", ...  The handler is called with the role (raw text) where a message
 * begins, NULL within it; raw: a piece, raw text or with "json" not 0 a JSON
 * value.
 */
typedef void (*ngx_http_ai_log_prompt_pt)(void *data, ngx_str_t *role,
    ngx_str_t *raw, ngx_uint_t json);

void ngx_http_ai_log_prompt(ngx_http_ai_json_t *j,
    ngx_http_ai_log_prompt_pt handler, void *data);


#endif /* _NGX_HTTP_AI_LOG_TEXT_H_INCLUDED_ */
