
/*
 * Copyright (C) nginx AI gateway authors
 */


/* W3C Trace Context (https://www.w3.org/TR/trace-context/); plain C */


#ifndef _NGX_HTTP_AI_TRACEPARENT_H_INCLUDED_
#define _NGX_HTTP_AI_TRACEPARENT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


#define NGX_HTTP_AI_TRACE_ID     32           /* hex digits */
#define NGX_HTTP_AI_SPAN_ID      16
#define NGX_HTTP_AI_TRACEPARENT  55           /* bytes of version 00 */

/* longest "tracestate" that is passed on; section 3.3.1.5 */
#define NGX_HTTP_AI_TRACESTATE   512


typedef struct {
    uint64_t                   high;          /* of the trace's id */
    uint64_t                   low;
    uint64_t                   parent;
    unsigned                   sampled:1;
} ngx_http_ai_traceparent_t;


/* NGX_OK; NGX_DECLINED: it is not valid, a new trace begins */
ngx_int_t ngx_http_ai_traceparent_parse(ngx_str_t *text,
    ngx_http_ai_traceparent_t *tp);

/* writes version 00 of a trace's id in hex; returns the end */
u_char *ngx_http_ai_traceparent_write(u_char *p, u_char *trace, uint64_t span,
    ngx_uint_t sampled);

/* half of a trace's id, or that of a span, as 16 hex digits or 8 bytes;
 * returns the end */
u_char *ngx_http_ai_trace_hex(u_char *p, uint64_t id);

static ngx_inline u_char *
ngx_http_ai_trace_bytes(u_char *p, uint64_t id)
{
    p[0] = (u_char) (id >> 56);
    p[1] = (u_char) (id >> 48);
    p[2] = (u_char) (id >> 40);
    p[3] = (u_char) (id >> 32);
    p[4] = (u_char) (id >> 24);
    p[5] = (u_char) (id >> 16);
    p[6] = (u_char) (id >> 8);
    p[7] = (u_char) id;

    return p + 8;
}

/*
 * Is the trace one of "ratio" in 2^56?  By the last 56 bits of its id, so that
 * everyone on its way who has the same ratio decides the same.
 */
ngx_uint_t ngx_http_ai_trace_sampled(uint64_t low, uint64_t ratio);

#define NGX_HTTP_AI_TRACE_ALL  ((uint64_t) 1 << 56)

/* "0.25", "25%", "1": to a ratio in 2^56; NGX_ERROR */
ngx_int_t ngx_http_ai_trace_ratio(ngx_str_t *text, uint64_t *ratio);


#endif /* _NGX_HTTP_AI_TRACEPARENT_H_INCLUDED_ */
