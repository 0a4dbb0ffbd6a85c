
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Who calls, and what they may call.  One function decides the identity
 * (ngx_http_ai_auth_handler() in the access phase) and its answer is "no"
 * unless a key, a token or a variable has proved otherwise.
 */


#ifndef _NGX_HTTP_AI_AUTH_H_INCLUDED_
#define _NGX_HTTP_AI_AUTH_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_ai_core.h"
#include "ngx_http_ai_auth_jwt.h"


typedef struct ngx_http_ai_auth_issuer_s  ngx_http_ai_auth_issuer_t;


/* why a credential was refused: for the log, and for the caller's message */

typedef enum {
    NGX_HTTP_AI_AUTH_OK = 0,
    NGX_HTTP_AI_AUTH_NONE,            /* no credential was sent */
    NGX_HTTP_AI_AUTH_MALFORMED,       /* not a key: form or checksum */
    NGX_HTTP_AI_AUTH_UNKNOWN,         /* no such key or identity */
    NGX_HTTP_AI_AUTH_DISABLED,
    NGX_HTTP_AI_AUTH_REVOKED,
    NGX_HTTP_AI_AUTH_EXPIRED,
    NGX_HTTP_AI_AUTH_NOT_YET,
    NGX_HTTP_AI_AUTH_SIGNATURE,
    NGX_HTTP_AI_AUTH_CLAIMS,          /* iss, aud, typ, azp, ... */
    NGX_HTTP_AI_AUTH_SCOPE,
    NGX_HTTP_AI_AUTH_MODEL,
    NGX_HTTP_AI_AUTH_PROVIDER,
    NGX_HTTP_AI_AUTH_ENDPOINT,
    NGX_HTTP_AI_AUTH_POLICY,          /* ai_deny */
    NGX_HTTP_AI_AUTH_UNAVAILABLE      /* keys or key set not at hand: 503 */
} ngx_http_ai_auth_reason_e;


typedef struct {
    const ngx_http_ai_api_t    *api;
    ngx_http_ai_data_t         *keys;         /* NULL: not used */
    ngx_http_ai_data_t         *revoked;      /* NULL: no revoked.json */
    ngx_str_t                   pepper;       /* ai_key_secret; empty: plain
                                                 SHA-256 */
    ngx_array_t                 issuers;      /* ngx_http_ai_auth_issuer_t * */
    ngx_array_t                 claims;       /* variables of "claim":
                                              ngx_http_ai_auth_claim_var_t */
    ngx_uint_t                  jwt_cache;    /* tokens; 0: off */
    ngx_uint_t                  jwt_cache_set;
    ngx_uint_t                  used_keys;    /* an ai_auth needs keys.json */
} ngx_http_ai_auth_main_conf_t;


/*
 * ngx_http_ai_auth_keys.c: records of keys.json
 */

/* registers the dataset "keys" (and "revoked"); in postconfiguration */
ngx_int_t ngx_http_ai_auth_keys_init(ngx_conf_t *cf,
    ngx_http_ai_auth_main_conf_t *aamcf);

/*
 * The principal of a key (the secret text as it came).  Fills *p with memory
 * of the pool.  OK or a reason; of a refused one that is known, p->key_id and
 * the other fields are set as well (for the log).  UNAVAILABLE also when out
 * of memory.
 */
ngx_http_ai_auth_reason_e ngx_http_ai_auth_key_find(
    ngx_http_ai_auth_main_conf_t *aamcf, ngx_str_t *key, ngx_pool_t *pool,
    ngx_http_ai_principal_t *p);

/* the same by the record's id or one of its "identities": of a name that
 * nginx has verified */
ngx_http_ai_auth_reason_e ngx_http_ai_auth_key_by_id(
    ngx_http_ai_auth_main_conf_t *aamcf, ngx_str_t *id, ngx_pool_t *pool,
    ngx_http_ai_principal_t *p);

/* is the token's jti, or its issuer's sub, on the list of revoked.json?
 * 1 or 0; also 1 when the list cannot be read */
ngx_uint_t ngx_http_ai_auth_revoked(ngx_http_ai_auth_main_conf_t *aamcf,
    ngx_str_t *issuer, ngx_str_t *jti, ngx_str_t *sub);


/*
 * ngx_http_ai_auth_issuer.c, _jwks.c, _token.c: ai_jwt_issuer, key sets, cache
 * of verified tokens
 */

char *ngx_http_ai_auth_issuer_block(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* ai_jwt_cache, in http {} */
char *ngx_http_ai_auth_jwt_cache(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

ngx_http_ai_auth_issuer_t *ngx_http_ai_auth_issuer_find(
    ngx_http_ai_auth_main_conf_t *aamcf, ngx_str_t *name);

/* in postconfiguration: shared part, fetchers */
ngx_int_t ngx_http_ai_auth_issuers_init(ngx_conf_t *cf,
    ngx_http_ai_auth_main_conf_t *aamcf);

/* in init_process of a worker: timers */
ngx_int_t ngx_http_ai_auth_issuers_start(ngx_cycle_t *cycle,
    ngx_http_ai_auth_main_conf_t *aamcf);

/*
 * Verifies a token.  *reason and *p as of ngx_http_ai_auth_key_find(); *claims
 * is the JSON text of the verified claims, in the request's pool; *detail a
 * static text for the log.  NGX_OK: decided; NGX_AGAIN: the key set is being
 * fetched, r's phases are run again when it has come or the wait is over
 * (bounded), call it again then; NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_ai_auth_token_check(ngx_http_request_t *r,
    ngx_http_ai_auth_issuer_t *issuer, ngx_str_t *token,
    ngx_http_ai_principal_t *p, ngx_str_t *claims,
    ngx_http_ai_auth_reason_e *reason, const char **detail);

/* the "iss" of a token that was not verified, to choose among issuers; empty
 * when it is not a token */
ngx_str_t ngx_http_ai_auth_token_issuer(ngx_pool_t *pool, ngx_str_t *token);

/* is "iss" the issuer's own? */
ngx_uint_t ngx_http_ai_auth_issuer_is(ngx_http_ai_auth_issuer_t *issuer,
    ngx_str_t *iss);


/*
 * ngx_http_ai_auth_access.c: the handler of the access phase
 */

ngx_int_t ngx_http_ai_auth_handler(ngx_http_request_t *r);


/*
 * ngx_http_ai_auth_permit.c: what a principal may call
 */

/* permit of models, providers and endpoints (ngx_http_ai_permit_pt) */
ngx_int_t ngx_http_ai_auth_permit(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_route_t *route,
    ngx_http_ai_error_t *err);

/* hook of AUTHORIZE: ai_deny, ai_require, endpoints; and the second lock: an
 * enabled location with ai_auth and no principal is refused */
ngx_int_t ngx_http_ai_auth_authorize(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);


/*
 * ngx_http_ai_auth_log.c: the log of refusals, limited in rate
 */

void ngx_http_ai_auth_log_refusal(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_principal_t *p,
    ngx_http_ai_auth_reason_e reason, const char *detail);


extern ngx_module_t  ngx_http_ai_auth_module;


#endif /* _NGX_HTTP_AI_AUTH_H_INCLUDED_ */
