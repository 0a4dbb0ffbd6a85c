
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Records of keys.json and revoked.json: from JSON to the bytes that are kept
 * in shared memory, and back.
 */


#ifndef _NGX_HTTP_AI_AUTH_RECORD_H_INCLUDED_
#define _NGX_HTTP_AI_AUTH_RECORD_H_INCLUDED_


#include "ngx_http_ai_auth.h"


#define NGX_HTTP_AI_AUTH_DIGEST     32

/* flags of a generation of keys.json */

#define NGX_HTTP_AI_AUTH_SHA        0x01     /* has hashes of this kind */
#define NGX_HTTP_AI_AUTH_HMAC       0x02
#define NGX_HTTP_AI_AUTH_FOREIGN    0x04     /* has keys of other forms */

/* of revoked.json */

#define NGX_HTTP_AI_AUTH_REVOKE_KEY  0x01    /* has entries of this kind */
#define NGX_HTTP_AI_AUTH_REVOKE_JTI  0x02
#define NGX_HTTP_AI_AUTH_REVOKE_SUB  0x04

/* first bytes of lookup keys */

#define NGX_HTTP_AI_AUTH_BY_SHA     'h'
#define NGX_HTTP_AI_AUTH_BY_HMAC    'm'
#define NGX_HTTP_AI_AUTH_BY_NAME    'i'      /* id or identity */

/* entries of revoked.json for the same thing, each with its "until" */

#define NGX_HTTP_AI_AUTH_REVOKE_MAX  64


#define NGX_HTTP_AI_RECORD_HASHES      16
#define NGX_HTTP_AI_RECORD_IDENTITIES  64
#define NGX_HTTP_AI_RECORD_KEYS                                               \
    (NGX_HTTP_AI_RECORD_HASHES + NGX_HTTP_AI_RECORD_IDENTITIES + 1)
#define NGX_HTTP_AI_RECORD_FIELDS      13


/* terms of one hash of several */

typedef struct {
    int64_t                    not_before;
    int64_t                    expires;
    uint32_t                   disabled;
    u_char                     digest[NGX_HTTP_AI_AUTH_DIGEST];
} ngx_http_ai_record_term_t;


/* a record while it is read */

typedef struct {
    ngx_http_ai_auth_main_conf_t  *aamcf;
    ngx_http_ai_data_load_t   *load;
    ngx_http_ai_json_t        *j;
    ngx_pool_t                *pool;
    ngx_str_t                 *error;

    int64_t                    times[2];      /* not_before, expires */
    ngx_uint_t                 flags;
    ngx_uint_t                 present;       /* fields, bits */
    ngx_str_t                  fields[NGX_HTTP_AI_RECORD_FIELDS];
    ngx_uint_t                 nterms;
    ngx_http_ai_record_term_t  terms[NGX_HTTP_AI_RECORD_HASHES];
    ngx_uint_t                 nkeys;
    ngx_str_t                  keys[NGX_HTTP_AI_RECORD_KEYS];
} ngx_http_ai_record_t;


/* handlers of the datasets, see ngx_http_ai_data_def_t; conf is the main
 * configuration of the module */

ngx_int_t ngx_http_ai_auth_keys_record(ngx_http_ai_data_load_t *load,
    ngx_http_ai_json_t *j, ngx_str_t *name, ngx_str_t *error);
ngx_int_t ngx_http_ai_auth_revoked_record(ngx_http_ai_data_load_t *load,
    ngx_http_ai_json_t *j, ngx_str_t *name, ngx_str_t *error);

/*
 * The principal of a record, as slices of it.  digest: of the key that was
 * shown, or NULL.  foreign: it has not the gateway's own form.  OK or why it
 * may not be used; *p is set in any case.
 */
ngx_http_ai_auth_reason_e ngx_http_ai_auth_record_read(ngx_str_t *blob,
    u_char *digest, ngx_uint_t foreign, time_t now,
    ngx_http_ai_principal_t *p);

/* the key under which revoked.json has an entry; n: which of them; NULL data:
 * no memory */
ngx_str_t ngx_http_ai_auth_revoked_key(ngx_pool_t *pool, ngx_uint_t kind,
    ngx_str_t *issuer, ngx_str_t *value, ngx_uint_t n);


/*
 * ngx_http_ai_auth_value.c: values of members.  NGX_OK; NGX_DECLINED: the
 * value is wrong, *rec->error says so; NGX_ERROR: no memory.
 */

/* what becomes a variable must not end a line of a log or header; null and ""
 * are as if it was not there: data is NULL then */
ngx_int_t ngx_http_ai_record_string(ngx_http_ai_record_t *rec,
    ngx_str_t *member, ngx_uint_t node, ngx_str_t *value);

/* RFC 3339, or seconds; null is 0 */
ngx_int_t ngx_http_ai_record_time(ngx_http_ai_record_t *rec,
    ngx_str_t *member, ngx_uint_t node, int64_t *value);

ngx_int_t ngx_http_ai_record_flag(ngx_http_ai_record_t *rec,
    ngx_str_t *member, ngx_uint_t node, ngx_uint_t *value);

/* the number of a member's name, which may be there only once */
ngx_int_t ngx_http_ai_record_find(ngx_http_ai_record_t *rec,
    ngx_uint_t key, ngx_str_t *names, ngx_uint_t n, uint64_t *seen,
    ngx_uint_t *found);

/* the message; returns NGX_DECLINED, or NGX_ERROR */
ngx_int_t ngx_http_ai_record_error(ngx_http_ai_record_t *rec,
    const char *fmt, ...);

/* what stands in the wrong place for a message: not much of it, nothing that
 * could end a line, and nothing of a key */
ngx_str_t ngx_http_ai_record_shown(ngx_pool_t *pool, ngx_str_t *text);


/*
 * ngx_http_ai_auth_recent.c: keys that the worker has found lately
 */

/*
 * The record of a key, copied to the pool, and the digest it was found by.
 * NGX_OK; NGX_DECLINED: search it, and keep it under the tag; NGX_ABORT:
 * search it; NGX_ERROR: no memory.  An entry counts for its generation only.
 */
ngx_int_t ngx_http_ai_auth_recent_find(ngx_str_t *key, uint64_t generation,
    ngx_pool_t *pool, uint64_t *tag, u_char *digest, ngx_str_t *blob);
void ngx_http_ai_auth_recent_keep(uint64_t *tag, uint64_t generation,
    u_char *digest, ngx_str_t *blob);

/* forgets all: in init_process, a single process keeps its memory over
 * reloads */
void ngx_http_ai_auth_recent_reset(void);


#endif /* _NGX_HTTP_AI_AUTH_RECORD_H_INCLUDED_ */
