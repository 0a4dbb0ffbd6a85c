
/*
 * Copyright (C) nginx AI gateway authors
 */


/* windows of the calendar in a time zone: minute, hour, day, week, month */


#ifndef _NGX_HTTP_AI_LIMIT_WINDOW_H_INCLUDED_
#define _NGX_HTTP_AI_LIMIT_WINDOW_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


typedef enum {
    NGX_HTTP_AI_WINDOW_SECOND = 0,
    NGX_HTTP_AI_WINDOW_MINUTE,
    NGX_HTTP_AI_WINDOW_HOUR,
    NGX_HTTP_AI_WINDOW_DAY,
    NGX_HTTP_AI_WINDOW_WEEK,
    NGX_HTTP_AI_WINDOW_MONTH
} ngx_http_ai_window_e;


typedef struct ngx_http_ai_tz_s  ngx_http_ai_tz_t;


/*
 * A zone of the system's database by name ("Europe/Berlin"), as a table of
 * UTC offsets from a year ago to 20 years ahead; at configuration time.
 * "UTC" needs no database.  NULL: *error says why.
 */
ngx_http_ai_tz_t *ngx_http_ai_tz_create(ngx_pool_t *pool, ngx_str_t *name,
    const char **error);

/*
 * The window that "now" (ms of Unix time) is in: [*start, *end), ms.
 * first: for weeks the first day, 1 Monday to 7 Sunday; for months the first
 * day, 1 to 28.  A constant-time look-up of the last result makes repeated
 * calls cheap.
 */
void ngx_http_ai_window(ngx_http_ai_tz_t *tz, ngx_http_ai_window_e unit,
    ngx_uint_t first, int64_t now, int64_t *start, int64_t *end);


#endif /* _NGX_HTTP_AI_LIMIT_WINDOW_H_INCLUDED_ */
