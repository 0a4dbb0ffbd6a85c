
/*
 * Copyright (C) nginx AI gateway authors
 */


/* times as records have them; plain C */


#ifndef _NGX_HTTP_AI_TIME_H_INCLUDED_
#define _NGX_HTTP_AI_TIME_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/* "2027-01-31T00:00:00Z" to seconds since 1970, never 0; or NGX_ERROR */
ngx_int_t ngx_http_ai_rfc3339(ngx_str_t *text, int64_t *value);


#endif /* _NGX_HTTP_AI_TIME_H_INCLUDED_ */
