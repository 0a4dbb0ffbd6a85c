
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Amounts of limits as people write them: "60r/m", "100k/m", "5m/day", "20".
 * Plain C on bytes, used by modules and by the command-line tool alike.
 */


#ifndef _NGX_HTTP_AI_QUANTITY_H_INCLUDED_
#define _NGX_HTTP_AI_QUANTITY_H_INCLUDED_


#include <stddef.h>
#include <stdint.h>


/* the largest amount: beyond it JSON readers lose digits */
#define NGX_HTTP_AI_QUANTITY_MOST  ((int64_t) 1 << 53)


typedef enum {
    NGX_HTTP_AI_QUANTITY_REQUESTS = 0,        /* of a rate */
    NGX_HTTP_AI_QUANTITY_TOKENS,
    NGX_HTTP_AI_QUANTITY_SLOTS,               /* without a unit of time */
    NGX_HTTP_AI_QUANTITY_Q_REQUESTS,          /* of a quota */
    NGX_HTTP_AI_QUANTITY_Q_TOKENS,
    NGX_HTTP_AI_QUANTITY_Q_MONEY              /* in nano-dollars */
} ngx_http_ai_quantity_e;


/* units of time; none was written */

#define NGX_HTTP_AI_QUANTITY_SECOND  0
#define NGX_HTTP_AI_QUANTITY_MINUTE  1
#define NGX_HTTP_AI_QUANTITY_HOUR    2
#define NGX_HTTP_AI_QUANTITY_DAY     3
#define NGX_HTTP_AI_QUANTITY_WEEK    4
#define NGX_HTTP_AI_QUANTITY_MONTH   5

#define NGX_HTTP_AI_QUANTITY_NONE    -1


typedef struct {
    const char                *name;
    ngx_http_ai_quantity_e     kind;
} ngx_http_ai_quantity_name_t;


/* what a key may say of a zone of limits, and of quotas; NULL at the end */
extern const ngx_http_ai_quantity_name_t  ngx_http_ai_quantity_limits[];
extern const ngx_http_ai_quantity_name_t  ngx_http_ai_quantity_quotas[];


/*
 * NULL, or what is wrong.  *n: -1 for an empty text, also "/m".  *unit: stays
 * as it is when none is written.
 */
const char *ngx_http_ai_quantity_read(const unsigned char *text, size_t len,
    ngx_http_ai_quantity_e kind, int64_t *n, int *unit);

const char *ngx_http_ai_quantity_unit(int unit);


#endif /* _NGX_HTTP_AI_QUANTITY_H_INCLUDED_ */
