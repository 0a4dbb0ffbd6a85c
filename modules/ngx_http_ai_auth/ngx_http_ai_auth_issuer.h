
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Issuers of tokens: what their files share.  A configured issuer does not
 * change at run time but for the part that is marked so, which is a worker's
 * own.
 */


#ifndef _NGX_HTTP_AI_AUTH_ISSUER_H_INCLUDED_
#define _NGX_HTTP_AI_AUTH_ISSUER_H_INCLUDED_


#include "ngx_http_ai_auth.h"
#include "ngx_http_ai_conf.h"


#define NGX_HTTP_AI_ISSUER_TEXT  (256 * 1024)  /* bytes of a key set */
#define NGX_HTTP_AI_ISSUER_KEYS  256


typedef enum {
    NGX_HTTP_AI_JWKS_NONE = 0,        /* secrets only */
    NGX_HTTP_AI_JWKS_URL,
    NGX_HTTP_AI_JWKS_DISCOVERY,
    NGX_HTTP_AI_JWKS_FILE
} ngx_http_ai_jwks_source_e;


/* where a claim goes to */

typedef enum {
    NGX_HTTP_AI_CLAIM_TENANT = 0,
    NGX_HTTP_AI_CLAIM_USER,
    NGX_HTTP_AI_CLAIM_TEAM,
    NGX_HTTP_AI_CLAIM_PLAN,
    NGX_HTTP_AI_CLAIM_SCOPES,
    NGX_HTTP_AI_CLAIM_MODELS,         /* from here on lists */
    NGX_HTTP_AI_CLAIM_PROVIDERS,
    NGX_HTTP_AI_CLAIM_ENDPOINTS,
    NGX_HTTP_AI_CLAIM_VARIABLE        /* of the user's own */
} ngx_http_ai_claim_e;


typedef struct {
    ngx_str_t                      name;
    ngx_int_t                      index;     /* of the variable */
} ngx_http_ai_auth_claim_var_t;


typedef struct {
    ngx_str_t                      path;
    ngx_http_ai_claim_e            target;
    ngx_uint_t                     variable;  /* of aamcf->claims */
    ngx_str_t                      value;     /* default=; data NULL: none */
} ngx_http_ai_auth_claim_t;


typedef struct {
    ngx_str_t                      path;
    ngx_str_t                     *values;
    ngx_uint_t                     nvalues;   /* 0: it must be there */
} ngx_http_ai_auth_rule_t;


/* in shared memory, one zone for each issuer; changed under the zone's lock */

typedef struct {
    ngx_atomic_t                   generation;    /* of the text; 0: none */
    ngx_atomic_t                   completed;     /* fetches that have ended */
    ngx_atomic_t                   next;      /* when to look again, ms */
    ngx_atomic_t                   busy;      /* somebody fetches, at most
                                                 until then, ms; 0: nobody */
    ngx_atomic_t                   forced;    /* last one by an unknown kid */
    ngx_uint_t                     failures;  /* in a row */
    time_t                         fetched;

    u_char                        *text;
    size_t                         len;

    ngx_file_uniq_t                file_uniq;
    time_t                         file_mtime;
    off_t                          file_size;
} ngx_http_ai_auth_jwks_shared_t;


struct ngx_http_ai_auth_issuer_s {
    ngx_str_t                      name;
    ngx_http_ai_jwt_rules_t        rules;
    ngx_array_t                    secrets;   /* of ngx_str_t */
    ngx_array_t                    claims;    /* of ngx_http_ai_auth_claim_t */
    ngx_array_t                    requires;  /* ..._auth_rule_t */

    ngx_http_ai_jwks_source_e      source;
    ngx_str_t                      jwks;      /* URL or path */
    ngx_msec_t                     cache;
    ngx_msec_t                     timeout;
    ngx_msec_t                     cooldown;
    ngx_str_t                      tls_ca;
    ngx_uint_t                     tls_verify;
    ngx_uint_t                     insecure;  /* http is wanted */

    const ngx_http_ai_api_t       *api;
    ngx_http_ai_fetcher_t         *fetcher;
    ngx_str_t                      file_text; /* as read by the master */
    ngx_shm_zone_t                *zone;

    u_char                        *conf_file;
    ngx_uint_t                     line;

    unsigned                       mapped:9;  /* bits of ngx_http_ai_claim_e */

    /* of a worker */

    ngx_event_t                   *poll;      /* NULL: not started */
    ngx_http_ai_jwks_t            *keys;      /* NULL: none yet */
    ngx_pool_t                    *pool;      /* of keys */
    ngx_uint_t                     generation;
    ngx_queue_t                    waiting;   /* ngx_http_ai_auth_wait_t */
    ngx_uint_t                     nwaiting;
};


/* ngx_http_ai_auth_jwks.c: key sets of issuers */

/* at the end of the block: reads a file, makes zone and fetcher */
char *ngx_http_ai_auth_jwks_init(ngx_conf_t *cf,
    ngx_http_ai_auth_issuer_t *issuer);

/* in a worker */
ngx_int_t ngx_http_ai_auth_jwks_start(ngx_cycle_t *cycle,
    ngx_http_ai_auth_main_conf_t *aamcf);

/* the keys in force, or NULL */
ngx_http_ai_jwks_t *ngx_http_ai_auth_jwks_get(
    ngx_http_ai_auth_issuer_t *issuer);

/*
 * The token's key is not there, or no key at all: may a fetch help?
 * NGX_AGAIN: the request waits for it, see ngx_http_ai_auth_token_check();
 * NGX_DECLINED: it has waited already, or there is nothing to wait for.
 */
ngx_int_t ngx_http_ai_auth_jwks_wait(ngx_http_request_t *r,
    ngx_http_ai_auth_issuer_t *issuer);

/* was a set ever there? */
ngx_uint_t ngx_http_ai_auth_jwks_ready(ngx_http_ai_auth_issuer_t *issuer);

/* is the host of an http URL this machine? */
ngx_uint_t ngx_http_ai_auth_jwks_local(ngx_http_ai_url_t *url);


/* ngx_http_ai_auth_token.c: tokens to principals, cache of verified tokens */

ngx_int_t ngx_http_ai_auth_token_start(ngx_cycle_t *cycle,
    ngx_http_ai_auth_main_conf_t *aamcf);

/* of variables that "claim" makes; data is an index of aamcf->claims */
ngx_int_t ngx_http_ai_auth_claim_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


#endif /* _NGX_HTTP_AI_AUTH_ISSUER_H_INCLUDED_ */
