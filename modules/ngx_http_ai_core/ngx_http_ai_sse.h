
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Server-sent events reader (WHATWG HTML, "Server-sent events", 9.2.6), made
 * for relaying: an event that lies whole in the input is returned without a
 * copy, together with its raw bytes.
 */


#ifndef _NGX_HTTP_AI_SSE_H_INCLUDED_
#define _NGX_HTTP_AI_SSE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_compat.h"


typedef struct {
    ngx_str_t                  name;      /* "event:" value, empty if none */
    ngx_str_t                  data;      /* "data:" lines joined with LF */
    ngx_str_t                  raw;       /* all bytes of the block, with its
                                             comments and the blank line */
    unsigned                   has_data:1;    /* false: comments or fields
                                                 without data; not an event */
    unsigned                   in_place:1;    /* raw points into the input
                                                 given to this call; else into
                                                 the reader's own buffer */
    unsigned                   tail:1;        /* only the LF of a CRLF whose CR
                                                 has ended the block before */
} ngx_http_ai_sse_event_t;


typedef struct {
    ngx_pool_t                *pool;
    size_t                     max;       /* bytes of one block; 0: 1 MiB */

    /* private; zeroed by the caller */
    u_char                    *buf;       /* a block cut between inputs */
    size_t                     len;
    size_t                     size;
    u_char                    *join;      /* joined data lines */
    size_t                     join_size;
    unsigned                   bom:2;
    unsigned                   started:1;
    unsigned                   skip_lf:1;
    unsigned                   deliver:1;
} ngx_http_ai_sse_t;


/*
 * Takes bytes from *pos up to last.
 *
 * NGX_OK        one block was read, *pos is behind it; call again
 * NGX_AGAIN     all input was taken, a partial block is kept
 * NGX_DECLINED  the block is larger than "max"
 * NGX_ERROR     no memory
 *
 * A returned block is valid until the next call.  Line ends are LF, CRLF and
 * CR (a CR that ends the input is taken as a line end at once; a following LF
 * is a block without data of its own), a BOM at the very start is dropped from
 * the event but kept in raw.  The kept buffer is bounded by "max" and reused
 * for the life of the reader.  Of "event" the last counts; "id" and "retry"
 * are ignored.
 */
ngx_int_t ngx_http_ai_sse_read(ngx_http_ai_sse_t *sse, u_char **pos,
    u_char *last, ngx_http_ai_sse_event_t *ev);

/*
 * End of input: returns a final block that lacks its blank line (NGX_OK), or
 * NGX_AGAIN when nothing is left.
 */
ngx_int_t ngx_http_ai_sse_finish(ngx_http_ai_sse_t *sse,
    ngx_http_ai_sse_event_t *ev);

/* bytes of an unfinished block that are being kept */
#define ngx_http_ai_sse_pending(sse)  ((sse)->len)


#endif /* _NGX_HTTP_AI_SSE_H_INCLUDED_ */
