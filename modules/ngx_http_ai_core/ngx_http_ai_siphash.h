
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * SipHash with 128 bits of output: J.-P. Aumasson, D. J. Bernstein, "SipHash:
 * a fast short-input PRF", 2012, and its reference code.  Plain C.
 *
 * SipHash-2-4 is for what proves who somebody is.  SipHash-1-3, the variant of
 * hash tables, costs half of it: for texts that are only to be told apart, by
 * tags that are never shown.
 */


#ifndef _NGX_HTTP_AI_SIPHASH_H_INCLUDED_
#define _NGX_HTTP_AI_SIPHASH_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


#define NGX_HTTP_AI_SIPHASH_SECRET  16


/* SipHash-2-4.  On a big-endian machine the tag is another one than the
 * reference's, and as good */
void ngx_http_ai_siphash128(u_char *secret, u_char *data, size_t len,
    uint64_t *tag);


/* SipHash-1-3 of words, some at a time, and of a rest that is less than one */

typedef struct {
    uint64_t                   v[4];
    uint64_t                   size;          /* bytes */
} ngx_http_ai_sip_t;


void ngx_http_ai_sip_init(ngx_http_ai_sip_t *sip, u_char *secret);
void ngx_http_ai_sip_words(ngx_http_ai_sip_t *sip, uint64_t *words,
    ngx_uint_t n);
void ngx_http_ai_sip_end(ngx_http_ai_sip_t *sip, u_char *rest, size_t len,
    uint64_t *tag);


#endif /* _NGX_HTTP_AI_SIPHASH_H_INCLUDED_ */
