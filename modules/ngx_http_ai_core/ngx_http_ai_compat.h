
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * What differs between nginx 1.22 and the newest, in one place.
 */


#ifndef _NGX_HTTP_AI_COMPAT_H_INCLUDED_
#define _NGX_HTTP_AI_COMPAT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#define ngx_http_ai_min(a, b)  ((a) < (b) ? (a) : (b))
#define ngx_http_ai_max(a, b)  ((a) > (b) ? (a) : (b))

#define ngx_http_ai_str_is(s, literal)                                        \
    ((s)->len == sizeof(literal) - 1                                          \
     && ngx_strncmp((s)->data, literal, sizeof(literal) - 1) == 0)


#if (nginx_version >= 1027002)
#define ngx_http_ai_parse_chunked(r, b, ctx)                                  \
    ngx_http_parse_chunked(r, b, ctx, 0)
#else
#define ngx_http_ai_parse_chunked(r, b, ctx)                                  \
    ngx_http_parse_chunked(r, b, ctx)
#endif


#endif /* _NGX_HTTP_AI_COMPAT_H_INCLUDED_ */
