
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * JSON Web Tokens: compact JWS (RFC 7515, 7518, 8037) by keys of a JWK set
 * (RFC 7517), claims (RFC 7519) by the rules of RFC 8725.  Plain C: a pool,
 * ngx_str_t, the JSON scanner and OpenSSL; no request, no configuration.
 *
 * A key object has exactly one algorithm, fixed before a token is seen; the
 * token's "alg" must equal it.  "kid" only chooses among keys; "jku", "x5u",
 * "jwk" and "x5c" are never looked at; any "crit" and "b64" is refused.
 */


#ifndef _NGX_HTTP_AI_AUTH_JWT_H_INCLUDED_
#define _NGX_HTTP_AI_AUTH_JWT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_json.h"


/* bits, for sets of algorithms */

#define NGX_HTTP_AI_JWA_HS256  0x0001
#define NGX_HTTP_AI_JWA_HS384  0x0002
#define NGX_HTTP_AI_JWA_HS512  0x0004
#define NGX_HTTP_AI_JWA_RS256  0x0008
#define NGX_HTTP_AI_JWA_RS384  0x0010
#define NGX_HTTP_AI_JWA_RS512  0x0020
#define NGX_HTTP_AI_JWA_PS256  0x0040
#define NGX_HTTP_AI_JWA_PS384  0x0080
#define NGX_HTTP_AI_JWA_PS512  0x0100
#define NGX_HTTP_AI_JWA_ES256  0x0200
#define NGX_HTTP_AI_JWA_ES384  0x0400
#define NGX_HTTP_AI_JWA_ES512  0x0800
#define NGX_HTTP_AI_JWA_EDDSA  0x1000     /* Ed25519, Ed448 */
#define NGX_HTTP_AI_JWA_ED25519 0x2000    /* RFC 9864: one of the curves */
#define NGX_HTTP_AI_JWA_ED448  0x4000

#define NGX_HTTP_AI_JWA_HMAC   0x0007     /* the key is a shared secret */

#define NGX_HTTP_AI_JWT_MAX    16384      /* bytes of a token, at most */


typedef enum {
    NGX_HTTP_AI_JWT_OK = 0,
    NGX_HTTP_AI_JWT_MALFORMED,            /* not a compact JWS */
    NGX_HTTP_AI_JWT_ALG,                  /* not allowed, or "none" */
    NGX_HTTP_AI_JWT_CRIT,                 /* "crit", "b64", "zip" */
    NGX_HTTP_AI_JWT_TYPE,                 /* "typ" */
    NGX_HTTP_AI_JWT_NO_KEY,               /* no key of that kid and alg */
    NGX_HTTP_AI_JWT_SIGNATURE,
    NGX_HTTP_AI_JWT_CLAIMS,               /* malformed or missing claims */
    NGX_HTTP_AI_JWT_ISSUER,
    NGX_HTTP_AI_JWT_AUDIENCE,
    NGX_HTTP_AI_JWT_AZP,
    NGX_HTTP_AI_JWT_EXPIRED,
    NGX_HTTP_AI_JWT_NOT_YET,
    NGX_HTTP_AI_JWT_NO_MEMORY
} ngx_http_ai_jwt_e;


typedef struct ngx_http_ai_jwks_s  ngx_http_ai_jwks_t;


/* a token taken apart, nothing verified; memory of the pool */

typedef struct {
    ngx_str_t                  signing_input; /* slice of the token */
    ngx_str_t                  signature;     /* decoded */
    ngx_str_t                  kid;           /* empty: none */
    ngx_str_t                  type;          /* "typ", lower case, without a
                                                 leading "application/" */
    ngx_uint_t                 alg;           /* one bit; 0: unknown */
    ngx_http_ai_json_t         claims;        /* whole tree of an object */
    ngx_str_t                  payload;       /* its text */
    unsigned                   verified:1;    /* by ngx_http_ai_jwt_verify() */
} ngx_http_ai_jwt_t;


/* what a token must be like */

typedef struct {
    ngx_uint_t                 algs;          /* NGX_HTTP_AI_JWA_* */
    ngx_str_t                  issuer;        /* exact; never empty */
    ngx_array_t               *audiences;     /* of ngx_str_t, one must match;
                                                 NULL: not looked at */
    ngx_array_t               *azp;           /* of ngx_str_t: "azp", or
                                                 "client_id" when there is no
                                                 "azp"; NULL: any */
    ngx_str_t                  type;          /* lower case; empty: any but
                                                 those of other kinds, that
                                                 is "...+jwt", not "at+jwt" */
    time_t                     leeway;        /* s */
    time_t                     max_age;       /* s since "iat"; 0: any */
    ngx_uint_t                 no_exp;        /* "exp" may be missing */
} ngx_http_ai_jwt_rules_t;


/*
 * Keys of a JWK set, at most max of them; keys for encryption ("use" other
 * than "sig", key_ops without "verify"), of unknown kinds or unusable (RSA
 * below 2048 bits or with a small or even e, points off the curve, HMAC keys
 * shorter than the hash, private keys, secrets beside public keys, different
 * keys of one "kid" and algorithm) are left out and counted.  algs: only
 * these; a key without "alg" gets one key object for each that fits its type.
 * Freed with the pool (cleanup).  NGX_OK, also without a usable key;
 * NGX_DECLINED: not a key set, *error says why; NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_ai_jwks_parse(ngx_pool_t *pool, ngx_str_t *text,
    ngx_uint_t algs, ngx_uint_t max, ngx_http_ai_jwks_t **jwks,
    const char **error);

/* adds one HMAC key for each of the algs that is HS* and short enough */
ngx_int_t ngx_http_ai_jwks_add_secret(ngx_http_ai_jwks_t *jwks,
    ngx_str_t *secret, ngx_uint_t algs, const char **error);

/* an empty set; NULL: no memory */
ngx_http_ai_jwks_t *ngx_http_ai_jwks_create(ngx_pool_t *pool);

/* key objects in it, and JWKs left out */
ngx_uint_t ngx_http_ai_jwks_count(ngx_http_ai_jwks_t *jwks,
    ngx_uint_t *ignored);

/* why the first JWK was left out, a static text for the log, or NULL */
const char *ngx_http_ai_jwks_why(ngx_http_ai_jwks_t *jwks);


/* takes a token apart; size limit, base64url to the letter, no duplicate
 * members, header and claims are JSON objects in UTF-8.  OK, MALFORMED, CRIT
 * or NO_MEMORY */
ngx_http_ai_jwt_e ngx_http_ai_jwt_parse(ngx_pool_t *pool, ngx_str_t *token,
    ngx_http_ai_jwt_t *jwt);

/* the same of a JWS of any payload, which is decoded and not looked at */
ngx_http_ai_jwt_e ngx_http_ai_jws_parse(ngx_pool_t *pool, ngx_str_t *token,
    ngx_http_ai_jwt_t *jwt);

/*
 * Algorithm, type and signature: every matching key is tried (at most 8).  A
 * key without a "kid" matches any token, a token without one any key.  NO_KEY:
 * no key of that "kid" and algorithm, the set may be old.
 */
ngx_http_ai_jwt_e ngx_http_ai_jwt_verify(ngx_http_ai_jwt_t *jwt,
    ngx_http_ai_jwks_t *jwks, ngx_http_ai_jwt_rules_t *rules);

/* claims of a verified token (of another: SIGNATURE); "sub", "jti", "azp" and
 * "client_id" are strings where they are there; *expires: its "exp", or 0,
 * without leeway */
ngx_http_ai_jwt_e ngx_http_ai_jwt_check(ngx_http_ai_jwt_t *jwt,
    ngx_http_ai_jwt_rules_t *rules, time_t now, time_t *expires);

/*
 * The value of a claim as text: path is a member's name, names with dots
 * between them, or a JSON pointer ("/a/b").  A whole-name match wins over
 * dots, a longer name over a shorter one.  A string as it is (unescaped: it
 * may hold control characters), a number or literal as written, an array with
 * "sep" between the items, an object as its JSON text without white space.
 * Items that contain "sep" are left out, they must not become two.  NGX_OK,
 * NGX_DECLINED: there is none or null, NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_ai_jwt_claim(ngx_http_ai_json_t *claims, ngx_pool_t *pool,
    ngx_str_t *path, u_char sep, ngx_str_t *value);

/* base64url without padding, to the letter: NGX_OK, NGX_DECLINED, NGX_ERROR */
ngx_int_t ngx_http_ai_jwt_base64url(ngx_pool_t *pool, ngx_str_t *src,
    ngx_str_t *dst);

/* names of members are unique in every object: NGX_OK, NGX_DECLINED,
 * NGX_ERROR */
ngx_int_t ngx_http_ai_jwt_unique(ngx_pool_t *pool, ngx_http_ai_json_t *j);

/* "RS256" to its bit; 0: unknown */
ngx_uint_t ngx_http_ai_jwa_find(ngx_str_t *name);

const char *ngx_http_ai_jwt_error(ngx_http_ai_jwt_e rc);


#endif /* _NGX_HTTP_AI_AUTH_JWT_H_INCLUDED_ */
