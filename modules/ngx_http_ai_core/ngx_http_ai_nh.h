
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Tags of 128 bits by which texts are told apart, under a secret.  Plain C.
 *
 * Each block of a text is compressed by NH with words of 64 bits, twice, the
 * second time with the key two words further: J. Black, S. Halevi,
 * H. Krawczyk, T. Krovetz, P. Rogaway, "UMAC: Fast and Secure Message
 * Authentication", CRYPTO '99, NH and its Toeplitz extension; RFC 4418, 5.2.
 * Of two blocks of one length that differ, the chance of the same result is
 * 2^-128 for whoever does not know the key.  All results and the lengths are
 * hashed by SipHash-1-3, which hides them, so that tags tell nothing of the
 * key.  Texts that differ have one tag by such a chance, or that of SipHash.
 *
 * It takes an instruction for a byte, SipHash-1-3 almost three.  Short texts
 * are not compressed.
 */


#ifndef _NGX_HTTP_AI_NH_H_INCLUDED_
#define _NGX_HTTP_AI_NH_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_siphash.h"


#define NGX_HTTP_AI_NH_BLOCK  1024

/* a shorter text is not compressed */

#define NGX_HTTP_AI_NH_MIN    128


typedef struct {
    u_char                     secret[NGX_HTTP_AI_SIPHASH_SECRET];
    uint64_t                   key[NGX_HTTP_AI_NH_BLOCK / 8 + 2];
} ngx_http_ai_nh_t;


/* keys for all of it, from a secret of NGX_HTTP_AI_SIPHASH_SECRET bytes */
void ngx_http_ai_nh_init(ngx_http_ai_nh_t *nh, u_char *secret);

/* one tag of n texts, not only of their bytes but of where each ends; n is the
 * same for all that are told apart */
void ngx_http_ai_nh_tag(ngx_http_ai_nh_t *nh, ngx_str_t *texts, ngx_uint_t n,
    uint64_t *tag);


#endif /* _NGX_HTTP_AI_NH_H_INCLUDED_ */
