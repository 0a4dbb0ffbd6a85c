
/*
 * Copyright (C) nginx AI gateway authors
 */


/* what the files of JOSE have in common; of no use to others */


#ifndef _NGX_HTTP_AI_AUTH_JWK_H_INCLUDED_
#define _NGX_HTTP_AI_AUTH_JWK_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <openssl/bn.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include "ngx_http_ai_auth_jwt.h"


#if (OPENSSL_VERSION_NUMBER >= 0x30000000L && !NGX_HTTP_AI_JWK_OLD)
#define NGX_HTTP_AI_JWK_PROVIDERS  1
#endif

/* bytes of the longest coordinate */
#define NGX_HTTP_AI_JWK_EC_MAX     66


typedef enum {
    NGX_HTTP_AI_JWK_OCT = 0,
    NGX_HTTP_AI_JWK_RSA,
    NGX_HTTP_AI_JWK_PSS,
    NGX_HTTP_AI_JWK_EC,
    NGX_HTTP_AI_JWK_OKP
} ngx_http_ai_jwk_type_e;


/* what an algorithm is made of */

typedef struct {
    ngx_uint_t                 alg;
    ngx_http_ai_jwk_type_e     type;
    size_t                     hash;      /* bytes */
    const EVP_MD            *(*md)(void);
    const char                *curve;     /* NULL: any of the type */
} ngx_http_ai_jwk_alg_t;


typedef struct {
    const char                *name;
    const char                *group;
    int                        nid;
    size_t                     size;      /* of a coordinate, of the order */
    const char                *order;
} ngx_http_ai_jwk_curve_t;


/* one key for one algorithm */

typedef struct {
    ngx_str_t                  kid;       /* empty: none */
    ngx_str_t                  secret;
    EVP_PKEY                  *pkey;
    size_t                     size;      /* of a signature */
    ngx_uint_t                 n;         /* of the JWK in its set */

    const ngx_http_ai_jwk_alg_t    *alg;
    const ngx_http_ai_jwk_curve_t  *curve;    /* of EC */
} ngx_http_ai_jwk_t;


/* a JWK of the document while it is read */

typedef struct {
    ngx_http_ai_jwks_t        *jwks;
    ngx_http_ai_json_t        *json;
    ngx_uint_t                 node;
    ngx_uint_t                 n;
    ngx_uint_t                 algs;      /* allowed, and of its "alg" */
    ngx_str_t                  kid;
    ngx_str_t                  crv;
    const char                *why;
} ngx_http_ai_jwk_ctx_t;


struct ngx_http_ai_jwks_s {
    ngx_pool_t                *pool;
    ngx_array_t                keys;      /* of ngx_http_ai_jwk_t */
    ngx_uint_t                 ignored;
    const char                *why;
};


ngx_int_t ngx_http_ai_jwk_rsa(ngx_http_ai_jwk_ctx_t *ctx);
ngx_int_t ngx_http_ai_jwk_ec(ngx_http_ai_jwk_ctx_t *ctx);
ngx_int_t ngx_http_ai_jwk_okp(ngx_http_ai_jwk_ctx_t *ctx);

ngx_int_t ngx_http_ai_jwk_bytes(ngx_http_ai_jwk_ctx_t *ctx, const char *name,
    ngx_str_t *value);
ngx_uint_t ngx_http_ai_jwk_is(ngx_str_t *value, const char *text);
ngx_int_t ngx_http_ai_jwk_add(ngx_http_ai_jwk_ctx_t *ctx,
    ngx_http_ai_jwk_type_e type, ngx_http_ai_jwk_t *proto);


extern const ngx_http_ai_jwk_alg_t  ngx_http_ai_jwk_algs[];


#endif /* _NGX_HTTP_AI_AUTH_JWK_H_INCLUDED_ */
