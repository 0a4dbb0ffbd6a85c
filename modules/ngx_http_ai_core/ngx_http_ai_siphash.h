
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * SipHash-2-4 with 128 bits of output: J.-P. Aumasson, D. J. Bernstein,
 * "SipHash: a fast short-input PRF", 2012, and its reference code.  Plain C.
 */


#ifndef _NGX_HTTP_AI_SIPHASH_H_INCLUDED_
#define _NGX_HTTP_AI_SIPHASH_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/* secret: 16 bytes.  On a big-endian machine the tag is another one than the
 * reference's, and as good */
void ngx_http_ai_siphash128(u_char *secret, u_char *data, size_t len,
    uint64_t *tag);


#endif /* _NGX_HTTP_AI_SIPHASH_H_INCLUDED_ */
