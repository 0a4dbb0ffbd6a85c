
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
    NGX_HTTP_AI_AUTH_UNAVAILABLE,     /* keys or key set not at hand: 503 */
    NGX_HTTP_AI_AUTH_CONFLICT         /* two different credentials */
} ngx_http_ai_auth_reason_e;


typedef struct {
    const ngx_http_ai_api_t    *api;
    ngx_http_ai_data_t         *keys;         /* NULL: not used */
    ngx_http_ai_data_t         *revoked;      /* NULL: no revoked.json */
    ngx_str_t                   pepper;       /* ai_key_secret; empty: plain
                                                 SHA-256 */
    ngx_array_t                 issuers;      /* ngx_http_ai_auth_issuer_t * */
    ngx_array_t                 claims;       /* of variables that "claim"
                                                 makes; the issuers' own */
    ngx_array_t                 locations;    /* ngx_http_ai_auth_loc_conf_t *
                                                 of "ai_auth" directives */
    ngx_array_t                 requires;     /* ngx_http_ai_auth_require_t *
                                                 of "ai_require" directives */
    ngx_int_t                   jwt_cache;    /* ai_jwt_cache, tokens */
    ngx_uint_t                  log_rate;     /* lines per second, of a worker;
                                                 0: off */
    ngx_uint_t                  used;         /* a directive needs handlers */
    ngx_uint_t                  used_keys;    /* an ai_auth needs keys.json */
    ngx_atomic_t               *refusals;     /* by reason, of all workers */
} ngx_http_ai_auth_main_conf_t;


/* kinds of identity, for ngx_http_ai_auth_loc_conf_t and $ai_auth */

#define NGX_HTTP_AI_AUTH_OFF       0x0001
#define NGX_HTTP_AI_AUTH_KEY       0x0002
#define NGX_HTTP_AI_AUTH_JWT       0x0004
#define NGX_HTTP_AI_AUTH_VARIABLE  0x0008


typedef struct {
    ngx_str_t                   name;
    ngx_http_ai_auth_issuer_t  *issuer;       /* of postconfiguration */
} ngx_http_ai_auth_issuer_ref_t;


typedef struct {
    ngx_array_t                 scopes;       /* ngx_str_t */
    u_char                     *file;
    ngx_uint_t                  line;
    ngx_uint_t                  used;         /* an ai_auth is in force where
                                                 this is */
} ngx_http_ai_auth_require_t;


typedef struct {
    ngx_http_complex_value_t    value;
    ngx_uint_t                  status;
} ngx_http_ai_auth_deny_t;


typedef struct {
    ngx_uint_t                  kinds;        /* 0: not set */
    ngx_array_t                *issuers;      /* .._issuer_ref_t */
    ngx_array_t                *variables;    /* ngx_http_complex_value_t */
    ngx_str_t                   challenge;    /* "Bearer realm=..." */
    ngx_array_t                *require;      /* .._require_t * */
    ngx_array_t                *deny;         /* .._deny_t */
    u_char                     *file;         /* of "ai_auth" */
    ngx_uint_t                  line;
    unsigned                    remote_user:1;    /* a variable mentions it */
} ngx_http_ai_auth_loc_conf_t;


/* what is known of a request's caller; survives internal redirects */

typedef struct {
    ngx_http_ai_auth_loc_conf_t  *conf;       /* that it was decided by */
    ngx_uint_t                    kind;       /* of principal, one bit; 0 */
    ngx_http_ai_auth_reason_e     reason;     /* of a refusal */
    ngx_str_t                     rule;       /* ... by what, for the log */
    ngx_http_ai_principal_t       principal;
    ngx_http_ai_auth_issuer_t    *issuer;     /* of a token */
    ngx_str_t                     claims;     /* JSON of a verified token */
    ngx_str_t                     key;        /* "?key=" as it came */
    ngx_str_t                     credential; /* for its fingerprint */
    ngx_str_t                     text;       /* scope, endpoint or ai_deny */
    ngx_table_elt_t              *challenge;  /* WWW-Authenticate */
    const char                   *detail;     /* static, for the log */
    unsigned                      known:1;    /* principal is the caller's */
    unsigned                      anonymous:1;    /* "satisfy any" and nothing
                                                     was sent */
    unsigned                      refused:1;
    unsigned                      denied:1;   /* reason and rule are those
                                                 of the last permit refused */
    unsigned                      conflict:1; /* two different "?key=" */
    unsigned                      logged:1;
    unsigned                      model_scopes:1;
    unsigned                      provider_scopes:1;
    unsigned                      endpoint_scopes:1;
} ngx_http_ai_auth_ctx_t;


/* of the main request; NULL: nothing was asked yet */
ngx_http_ai_auth_ctx_t *ngx_http_ai_auth_get_ctx(ngx_http_request_t *r);

/* the same, made when there is none; NULL: no memory */
ngx_http_ai_auth_ctx_t *ngx_http_ai_auth_create_ctx(ngx_http_request_t *r);


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

ngx_http_ai_auth_issuer_t *ngx_http_ai_auth_issuer_find(
    ngx_http_ai_auth_main_conf_t *aamcf, ngx_str_t *name);

/* names of all of them, for messages; NULL: no memory */
ngx_str_t *ngx_http_ai_auth_issuer_names(ngx_pool_t *pool,
    ngx_http_ai_auth_main_conf_t *aamcf, ngx_uint_t *n);

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

/* takes "?key=" out of what nginx logs and passes on */
ngx_int_t ngx_http_ai_auth_rewrite_handler(ngx_http_request_t *r);

/* decides what had to wait for other modules, and is the second lock for
 * requests that they have let in */
ngx_int_t ngx_http_ai_auth_precontent_handler(ngx_http_request_t *r);

/* an answer for a phase handler to return; logs it */
ngx_int_t ngx_http_ai_auth_refuse(ngx_http_request_t *r,
    ngx_http_ai_auth_ctx_t *actx);

/* the same without the log and the status: what the client is told */
ngx_int_t ngx_http_ai_auth_error(ngx_http_request_t *r,
    ngx_http_ai_auth_ctx_t *actx, ngx_http_ai_error_t *err);


/*
 * ngx_http_ai_auth_permit.c: what a principal may call
 */

/* permit of models and providers (ngx_http_ai_permit_pt) */
ngx_int_t ngx_http_ai_auth_permit(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_route_t *route,
    ngx_http_ai_error_t *err);

/* ai_require, and in a location of the gateway the endpoint: all that is
 * known before the body.  NGX_OK; NGX_DECLINED: actx says what is wrong */
ngx_int_t ngx_http_ai_auth_check(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_auth_loc_conf_t *aalcf,
    ngx_http_ai_auth_ctx_t *actx);

/* ai_deny; as above, with the status, or NGX_ERROR */
ngx_int_t ngx_http_ai_auth_deny(ngx_http_request_t *r,
    ngx_http_ai_auth_loc_conf_t *aalcf, ngx_http_ai_auth_ctx_t **actx,
    ngx_uint_t *status);

/* hook of AUTHORIZE: ai_deny, and the third lock: with ai_auth in force
 * nobody passes without an identity */
ngx_int_t ngx_http_ai_auth_authorize(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);

/* did the router refuse the request by our permit? */
ngx_uint_t ngx_http_ai_auth_denied(ngx_http_request_t *r,
    ngx_http_ai_auth_ctx_t *actx);

/* "*" is any run of characters */
ngx_uint_t ngx_http_ai_auth_match(ngx_str_t *pattern, ngx_str_t *text,
    ngx_uint_t nocase);

/* is the word in a list with spaces? */
ngx_uint_t ngx_http_ai_auth_has_scope(ngx_str_t *scopes, ngx_str_t *scope);


/*
 * ngx_http_ai_auth_variables.c
 */

ngx_int_t ngx_http_ai_auth_add_variables(ngx_conf_t *cf);


/*
 * ngx_http_ai_auth_log.c: the log of refusals, limited in rate
 */

void ngx_http_ai_auth_log_refusal(ngx_http_request_t *r,
    ngx_http_ai_auth_ctx_t *actx);

/* log phase: of what was refused by others, the router or nginx */
ngx_int_t ngx_http_ai_auth_log_handler(ngx_http_request_t *r);

/* "unknown" */
ngx_str_t *ngx_http_ai_auth_reason_name(ngx_http_ai_auth_reason_e reason);


/* ngx_http_ai_auth_samples.c */

ngx_int_t ngx_http_ai_auth_samples_init(ngx_conf_t *cf,
    ngx_http_ai_auth_main_conf_t *aamcf);


extern ngx_module_t  ngx_http_ai_auth_module;


#endif /* _NGX_HTTP_AI_AUTH_H_INCLUDED_ */
