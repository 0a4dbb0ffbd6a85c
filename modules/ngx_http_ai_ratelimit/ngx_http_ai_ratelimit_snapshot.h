
/*
 * Copyright (C) nginx AI gateway authors
 */


/* files of quotas */


#ifndef _NGX_HTTP_AI_RATELIMIT_SNAPSHOT_H_INCLUDED_
#define _NGX_HTTP_AI_RATELIMIT_SNAPSHOT_H_INCLUDED_


#include "ngx_http_ai_ratelimit.h"


#define NGX_HTTP_AI_SNAPSHOT_MAGIC     "NGXAIQ1\n"

/* suffixes: what was claimed last, and what was used elsewhere since then */
#define NGX_HTTP_AI_SNAPSHOT_PREV      ".prev"
#define NGX_HTTP_AI_SNAPSHOT_HANDOVER  ".handover"


/* before what ngx_http_ai_limit_snapshot() has made; of this machine's kind */

typedef struct {
    u_char                     magic[8];
    uint64_t                   epoch;     /* of the memory it is from */
    uint64_t                   len;
    uint32_t                   crc;
    uint32_t                   reserved;
} ngx_http_ai_snapshot_header_t;


/*
 * NGX_OK; NGX_DECLINED: there is none; NGX_ABORT: it is damaged; NGX_ERROR.
 * The file is that of the zone with a suffix.  data: to be freed; NULL: the
 * header alone is wanted.
 */
ngx_int_t ngx_http_ai_snapshot_read(ngx_http_ai_limit_zone_t *zone,
    const char *suffix, ngx_http_ai_snapshot_header_t *h, ngx_str_t *data,
    ngx_log_t *log);
ngx_int_t ngx_http_ai_snapshot_write(ngx_http_ai_limit_zone_t *zone,
    const char *suffix, uint64_t epoch, ngx_str_t *data, ngx_log_t *log);
ngx_int_t ngx_http_ai_snapshot_rename(ngx_http_ai_limit_zone_t *zone,
    const char *from, const char *to, ngx_log_t *log);

/* what the zone holds now, to be freed, and up to which change */
ngx_int_t ngx_http_ai_snapshot_copy(ngx_http_ai_limit_zone_t *zone,
    ngx_str_t *data, ngx_atomic_uint_t *changes, ngx_log_t *log);

/* ngx_http_ai_ratelimit_handover.c, under the file's lock */

/* what is in the file now and was not when it was loaded */
void ngx_http_ai_handover_missed(ngx_http_ai_limit_zone_t *zone,
    ngx_log_t *log);

/* the file is another instance's: what was used here since then, for it */
ngx_int_t ngx_http_ai_handover_give(ngx_http_ai_limit_zone_t *zone,
    ngx_log_t *log);

/* what another one has handed on */
void ngx_http_ai_handover_take(ngx_http_ai_limit_zone_t *zone,
    ngx_log_t *log);


#endif /* _NGX_HTTP_AI_RATELIMIT_SNAPSHOT_H_INCLUDED_ */
