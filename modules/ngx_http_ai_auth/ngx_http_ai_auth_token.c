
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Tokens to principals.  A verified token is kept, under the SHA-256 of all of
 * it, until it expires or the issuer's keys change; who is revoked is asked
 * for every request.
 */


#include "ngx_http_ai_auth_issuer.h"
#include <openssl/evp.h>


#define NGX_HTTP_AI_TOKEN_DIGEST   32
#define NGX_HTTP_AI_TOKEN_NAME     512        /* bytes of "sub" */
#define NGX_HTTP_AI_TOKEN_BYTES    4096       /* of the cache, per token */
#define NGX_HTTP_AI_TOKEN_LARGE    32768
#define NGX_HTTP_AI_TOKEN_NO_EXP   300


typedef struct {
    ngx_http_ai_principal_t         principal;
    ngx_str_t                       claims;
    ngx_str_t                       jti;
    ngx_str_t                       sub;
} ngx_http_ai_auth_token_t;


typedef struct {
    ngx_queue_t                     queue;    /* the oldest last */
    ngx_queue_t                     bucket;
    u_char                          digest[NGX_HTTP_AI_TOKEN_DIGEST];
    ngx_http_ai_auth_issuer_t      *issuer;
    ngx_uint_t                      generation;
    time_t                          expires;
    size_t                          size;     /* of texts */
    ngx_http_ai_auth_token_t        token;
    u_char                          texts[];
} ngx_http_ai_auth_cached_t;


/* of a worker */

typedef struct {
    ngx_queue_t                    *buckets;
    ngx_uint_t                      mask;
    ngx_queue_t                     queue;
    ngx_uint_t                      n;
    ngx_uint_t                      max;
    size_t                          bytes;
    size_t                          max_bytes;
    EVP_MD_CTX                     *md_ctx;
    const EVP_MD                   *md;
#if (OPENSSL_VERSION_NUMBER >= 0x30000000L)
    EVP_MD                         *fetched;
#endif
} ngx_http_ai_auth_tokens_t;


/* the claims of a request's token taken apart, for variables */

typedef struct {
    ngx_str_t                       text;
    ngx_http_ai_json_t              json;
} ngx_http_ai_auth_claims_t;


static void ngx_http_ai_auth_token_cleanup(void *data);
static ngx_int_t ngx_http_ai_auth_token_digest(ngx_str_t *token,
    u_char *digest);
static ngx_int_t ngx_http_ai_auth_token_cached(ngx_http_request_t *r,
    ngx_http_ai_auth_issuer_t *issuer, u_char *digest,
    ngx_http_ai_auth_token_t *token);
static void ngx_http_ai_auth_token_keep(ngx_http_ai_auth_issuer_t *issuer,
    u_char *digest, ngx_http_ai_auth_token_t *token, time_t expires);
static void ngx_http_ai_auth_token_drop(ngx_http_ai_auth_cached_t *c);
static ngx_http_ai_auth_reason_e ngx_http_ai_auth_token_reason(
    ngx_http_ai_jwt_e rc);
static ngx_int_t ngx_http_ai_auth_token_verify(ngx_http_request_t *r,
    ngx_http_ai_auth_issuer_t *issuer, ngx_str_t *text,
    ngx_http_ai_auth_token_t *token, time_t *expires,
    ngx_http_ai_auth_reason_e *reason, const char **detail);
static ngx_int_t ngx_http_ai_auth_token_map(ngx_pool_t *pool,
    ngx_http_ai_auth_issuer_t *issuer, ngx_http_ai_jwt_t *jwt,
    ngx_http_ai_auth_token_t *token, const char **error);
static ngx_int_t ngx_http_ai_auth_token_who(ngx_pool_t *pool,
    ngx_http_ai_auth_issuer_t *issuer, ngx_http_ai_jwt_t *jwt,
    ngx_http_ai_auth_token_t *token, const char **error);
static ngx_int_t ngx_http_ai_auth_token_mapped(ngx_pool_t *pool,
    ngx_http_ai_json_t *claims, ngx_str_t *path, ngx_str_t *value,
    const char **error);
static ngx_int_t ngx_http_ai_auth_token_claim(ngx_pool_t *pool,
    ngx_http_ai_json_t *claims, ngx_str_t *path, ngx_str_t *value);
static ngx_int_t ngx_http_ai_auth_token_list(ngx_pool_t *pool,
    ngx_str_t *value);
static ngx_int_t ngx_http_ai_auth_token_require(ngx_pool_t *pool,
    ngx_http_ai_json_t *claims, ngx_http_ai_auth_rule_t *require);
static ngx_uint_t ngx_http_ai_auth_token_is_in(ngx_str_t *text, u_char sep,
    ngx_http_ai_auth_rule_t *require);
static ngx_int_t ngx_http_ai_auth_token_clean(ngx_pool_t *pool,
    ngx_str_t *value);
static ngx_uint_t ngx_http_ai_auth_token_revoked(
    ngx_http_ai_auth_main_conf_t *aamcf, ngx_http_ai_auth_issuer_t *issuer,
    ngx_http_ai_auth_token_t *token);
static void ngx_http_ai_auth_claims_flush(ngx_http_request_t *r,
    ngx_http_ai_auth_main_conf_t *aamcf);
static ngx_http_ai_auth_claims_t *ngx_http_ai_auth_claims_get(
    ngx_http_request_t *r, ngx_str_t *text);
static void ngx_http_ai_auth_claims_mark(void *data);


/* all texts of a token */

static size_t  ngx_http_ai_auth_token_texts[] = {
    offsetof(ngx_http_ai_auth_token_t, principal.key_id),
    offsetof(ngx_http_ai_auth_token_t, principal.tenant),
    offsetof(ngx_http_ai_auth_token_t, principal.user),
    offsetof(ngx_http_ai_auth_token_t, principal.team),
    offsetof(ngx_http_ai_auth_token_t, principal.plan),
    offsetof(ngx_http_ai_auth_token_t, principal.scopes),
    offsetof(ngx_http_ai_auth_token_t, principal.models),
    offsetof(ngx_http_ai_auth_token_t, principal.deny),
    offsetof(ngx_http_ai_auth_token_t, principal.providers),
    offsetof(ngx_http_ai_auth_token_t, principal.endpoints),
    offsetof(ngx_http_ai_auth_token_t, principal.limits),
    offsetof(ngx_http_ai_auth_token_t, principal.quotas),
    offsetof(ngx_http_ai_auth_token_t, principal.metadata),
    offsetof(ngx_http_ai_auth_token_t, claims),
    offsetof(ngx_http_ai_auth_token_t, jti),
    offsetof(ngx_http_ai_auth_token_t, sub)
};

#define NGX_HTTP_AI_TOKEN_TEXTS                                               \
    (sizeof(ngx_http_ai_auth_token_texts) / sizeof(size_t))

#define ngx_http_ai_auth_token_text(token, i)                                 \
    ((ngx_str_t *) ((u_char *) (token) + ngx_http_ai_auth_token_texts[i]))


/* in the order of ngx_http_ai_claim_e */

static size_t  ngx_http_ai_auth_token_fields[] = {
    offsetof(ngx_http_ai_principal_t, tenant),
    offsetof(ngx_http_ai_principal_t, user),
    offsetof(ngx_http_ai_principal_t, team),
    offsetof(ngx_http_ai_principal_t, plan),
    offsetof(ngx_http_ai_principal_t, scopes),
    offsetof(ngx_http_ai_principal_t, models),
    offsetof(ngx_http_ai_principal_t, providers),
    offsetof(ngx_http_ai_principal_t, endpoints)
};

#define ngx_http_ai_auth_token_field(principal, target)                       \
    ((ngx_str_t *) ((u_char *) (principal)                                    \
                    + ngx_http_ai_auth_token_fields[target]))


static ngx_http_ai_auth_tokens_t  ngx_http_ai_auth_tokens;


ngx_int_t
ngx_http_ai_auth_token_start(ngx_cycle_t *cycle,
    ngx_http_ai_auth_main_conf_t *aamcf)
{
    ngx_uint_t                  i, n, max;
    ngx_pool_cleanup_t         *cln;
    ngx_http_ai_auth_tokens_t  *t;

    t = &ngx_http_ai_auth_tokens;

    ngx_memzero(t, sizeof(ngx_http_ai_auth_tokens_t));
    ngx_queue_init(&t->queue);

    cln = ngx_pool_cleanup_add(cycle->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_ai_auth_token_cleanup;
    cln->data = t;

    if (aamcf->jwt_cache <= 0) {
        return NGX_OK;
    }

    t->md_ctx = EVP_MD_CTX_new();
    if (t->md_ctx == NULL) {
        return NGX_ERROR;
    }

#if (OPENSSL_VERSION_NUMBER >= 0x30000000L)

    /* a lookup by each digest would cost more than the digest */

    t->fetched = EVP_MD_fetch(NULL, "SHA256", NULL);
    t->md = t->fetched;

    if (t->md == NULL) {
        return NGX_ERROR;
    }

#else
    t->md = EVP_sha256();
#endif

    max = aamcf->jwt_cache;

    for (n = 16; n < max && n < 1024 * 1024; n *= 2) { /* void */ }

    t->buckets = ngx_pcalloc(cycle->pool, n * sizeof(ngx_queue_t));
    if (t->buckets == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < n; i++) {
        ngx_queue_init(&t->buckets[i]);
    }

    t->mask = n - 1;
    t->max = max;
    t->max_bytes = t->max * NGX_HTTP_AI_TOKEN_BYTES;

    return NGX_OK;
}


static void
ngx_http_ai_auth_token_cleanup(void *data)
{
    ngx_http_ai_auth_tokens_t *t = data;

    ngx_queue_t                *q;
    ngx_http_ai_auth_cached_t  *c;

    while (!ngx_queue_empty(&t->queue)) {
        q = ngx_queue_head(&t->queue);
        c = ngx_queue_data(q, ngx_http_ai_auth_cached_t, queue);

        ngx_http_ai_auth_token_drop(c);
    }

    EVP_MD_CTX_free(t->md_ctx);
    t->md_ctx = NULL;

#if (OPENSSL_VERSION_NUMBER >= 0x30000000L)
    EVP_MD_free(t->fetched);
    t->fetched = NULL;
#endif

    t->max = 0;
}


ngx_str_t
ngx_http_ai_auth_token_issuer(ngx_pool_t *pool, ngx_str_t *token)
{
    ngx_str_t          iss;
    ngx_http_ai_jwt_t  jwt;

    static ngx_str_t   name = ngx_string("iss");

    ngx_str_null(&iss);

    if (ngx_http_ai_jwt_parse(pool, token, &jwt) != NGX_HTTP_AI_JWT_OK
        || ngx_http_ai_jwt_claim(&jwt.claims, pool, &name, '\0', &iss)
           != NGX_OK)
    {
        ngx_str_null(&iss);
    }

    return iss;
}


ngx_int_t
ngx_http_ai_auth_token_check(ngx_http_request_t *r,
    ngx_http_ai_auth_issuer_t *issuer, ngx_str_t *token,
    ngx_http_ai_principal_t *p, ngx_str_t *claims,
    ngx_http_ai_auth_reason_e *reason, const char **detail)
{
    time_t                         expires;
    u_char                         digest[NGX_HTTP_AI_TOKEN_DIGEST];
    ngx_int_t                      rc;
    ngx_uint_t                     cache;
    ngx_http_ai_auth_token_t       t;
    ngx_http_ai_auth_main_conf_t  *aamcf;

    ngx_memzero(p, sizeof(ngx_http_ai_principal_t));
    ngx_str_null(claims);
    *reason = NGX_HTTP_AI_AUTH_MALFORMED;
    *detail = NULL;

    if (token->len == 0 || token->len > NGX_HTTP_AI_JWT_MAX) {
        *detail = ngx_http_ai_jwt_error(NGX_HTTP_AI_JWT_MALFORMED);
        return NGX_OK;
    }

    aamcf = ngx_http_get_module_main_conf(r, ngx_http_ai_auth_module);

    /* the keys first, their generation decides about what is kept */

    (void) ngx_http_ai_auth_jwks_get(issuer);

    rc = NGX_DECLINED;

    cache = ngx_http_ai_auth_tokens.max
            && ngx_http_ai_auth_token_digest(token, digest) == NGX_OK;

    if (cache) {
        rc = ngx_http_ai_auth_token_cached(r, issuer, digest, &t);
    }

    if (rc == NGX_DECLINED) {

        ngx_memzero(&t, sizeof(ngx_http_ai_auth_token_t));

        expires = 0;

        rc = ngx_http_ai_auth_token_verify(r, issuer, token, &t, &expires,
                                           reason, detail);

        if (rc == NGX_OK && *reason != NGX_HTTP_AI_AUTH_OK) {

            /* a refused one may be known by its name */

            *p = t.principal;
            return NGX_OK;
        }

        if (rc == NGX_OK && cache) {
            ngx_http_ai_auth_token_keep(issuer, digest, &t, expires);
        }
    }

    if (rc != NGX_OK) {
        return rc;
    }

    *p = t.principal;

    if (ngx_http_ai_auth_token_revoked(aamcf, issuer, &t)) {
        *reason = NGX_HTTP_AI_AUTH_REVOKED;
        *detail = "the token or its subject is revoked";
        return NGX_OK;
    }

    ngx_http_ai_auth_claims_flush(r, aamcf);

    *claims = t.claims;
    *reason = NGX_HTTP_AI_AUTH_OK;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_auth_token_digest(ngx_str_t *token, u_char *digest)
{
    unsigned int                n;
    ngx_http_ai_auth_tokens_t  *t;

    t = &ngx_http_ai_auth_tokens;

    if (EVP_DigestInit_ex(t->md_ctx, t->md, NULL) != 1
        || EVP_DigestUpdate(t->md_ctx, token->data, token->len) != 1
        || EVP_DigestFinal_ex(t->md_ctx, digest, &n) != 1)
    {
        return NGX_ERROR;
    }

    return (n == NGX_HTTP_AI_TOKEN_DIGEST) ? NGX_OK : NGX_ERROR;
}


static ngx_queue_t *
ngx_http_ai_auth_token_bucket(u_char *digest)
{
    uint32_t  hash;

    ngx_memcpy(&hash, digest, sizeof(uint32_t));

    return &ngx_http_ai_auth_tokens.buckets[hash
                                            & ngx_http_ai_auth_tokens.mask];
}


/* NGX_OK: *token is a copy in the request's pool */

static ngx_int_t
ngx_http_ai_auth_token_cached(ngx_http_request_t *r,
    ngx_http_ai_auth_issuer_t *issuer, u_char *digest,
    ngx_http_ai_auth_token_t *token)
{
    u_char                     *p;
    ngx_str_t                  *text;
    ngx_uint_t                  i;
    ngx_queue_t                *q, *bucket;
    ngx_http_ai_auth_cached_t  *c;

    bucket = ngx_http_ai_auth_token_bucket(digest);

    for (q = ngx_queue_head(bucket);
         q != ngx_queue_sentinel(bucket);
         q = ngx_queue_next(q))
    {
        c = ngx_queue_data(q, ngx_http_ai_auth_cached_t, bucket);

        if (c->issuer != issuer
            || ngx_memcmp(c->digest, digest, NGX_HTTP_AI_TOKEN_DIGEST) != 0)
        {
            continue;
        }

        if (c->generation != issuer->generation || c->expires <= ngx_time()) {
            ngx_http_ai_auth_token_drop(c);
            return NGX_DECLINED;
        }

        p = ngx_pnalloc(r->pool, c->size);
        if (p == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(p, c->texts, c->size);

        *token = c->token;

        for (i = 0; i < NGX_HTTP_AI_TOKEN_TEXTS; i++) {
            text = ngx_http_ai_auth_token_text(token, i);

            if (text->data) {
                text->data = p + (text->data - c->texts);
            }
        }

        ngx_queue_remove(&c->queue);
        ngx_queue_insert_head(&ngx_http_ai_auth_tokens.queue, &c->queue);

        return NGX_OK;
    }

    return NGX_DECLINED;
}


static void
ngx_http_ai_auth_token_keep(ngx_http_ai_auth_issuer_t *issuer, u_char *digest,
    ngx_http_ai_auth_token_t *token, time_t expires)
{
    size_t                      size;
    u_char                     *p;
    ngx_str_t                  *from, *to;
    ngx_uint_t                  i;
    ngx_queue_t                *q;
    ngx_http_ai_auth_cached_t  *c;
    ngx_http_ai_auth_tokens_t  *t;

    if (expires <= ngx_time()) {
        return;
    }

    t = &ngx_http_ai_auth_tokens;
    size = 1;

    for (i = 0; i < NGX_HTTP_AI_TOKEN_TEXTS; i++) {
        size += ngx_http_ai_auth_token_text(token, i)->len;
    }

    if (size > NGX_HTTP_AI_TOKEN_LARGE || size > t->max_bytes) {
        return;
    }

    while (t->n && (t->n >= t->max || t->bytes + size > t->max_bytes)) {
        q = ngx_queue_last(&t->queue);
        c = ngx_queue_data(q, ngx_http_ai_auth_cached_t, queue);

        ngx_http_ai_auth_token_drop(c);
    }

    c = ngx_alloc(sizeof(ngx_http_ai_auth_cached_t) + size, ngx_cycle->log);
    if (c == NULL) {
        return;
    }

    ngx_memcpy(c->digest, digest, NGX_HTTP_AI_TOKEN_DIGEST);
    c->issuer = issuer;
    c->generation = issuer->generation;
    c->expires = expires;
    c->size = size;
    c->token = *token;

    p = c->texts;

    for (i = 0; i < NGX_HTTP_AI_TOKEN_TEXTS; i++) {
        from = ngx_http_ai_auth_token_text(token, i);
        to = ngx_http_ai_auth_token_text(&c->token, i);

        if (from->data) {
            to->data = p;
            p = ngx_cpymem(p, from->data, from->len);
        }
    }

    ngx_queue_insert_head(&t->queue, &c->queue);
    ngx_queue_insert_head(ngx_http_ai_auth_token_bucket(digest), &c->bucket);

    t->n++;
    t->bytes += size;
}


static void
ngx_http_ai_auth_token_drop(ngx_http_ai_auth_cached_t *c)
{
    ngx_queue_remove(&c->queue);
    ngx_queue_remove(&c->bucket);

    ngx_http_ai_auth_tokens.n--;
    ngx_http_ai_auth_tokens.bytes -= c->size;

    ngx_free(c);
}


static ngx_int_t
ngx_http_ai_auth_token_verify(ngx_http_request_t *r,
    ngx_http_ai_auth_issuer_t *issuer, ngx_str_t *text,
    ngx_http_ai_auth_token_t *token, time_t *expires,
    ngx_http_ai_auth_reason_e *reason, const char **detail)
{
    int64_t                      iat;
    ngx_int_t                    rc;
    ngx_str_t                    iss;
    ngx_uint_t                   i, node;
    ngx_http_ai_jwt_e            error;
    ngx_http_ai_jwt_t            jwt;
    ngx_http_ai_jwks_t          *keys;
    ngx_http_ai_auth_rule_t     *require;

    static ngx_str_t             name = ngx_string("iss");

    error = ngx_http_ai_jwt_parse(r->pool, text, &jwt);

    if (error != NGX_HTTP_AI_JWT_OK) {
        goto refused;
    }

    /*
     * A token of another issuer says nothing about the keys of this one.  The
     * claim counts only after the signature, of course.
     */

    rc = ngx_http_ai_jwt_claim(&jwt.claims, r->pool, &name, '\0', &iss);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (rc == NGX_DECLINED || !ngx_http_ai_auth_issuer_is(issuer, &iss)) {
        error = NGX_HTTP_AI_JWT_ISSUER;
        goto refused;
    }

    keys = ngx_http_ai_auth_jwks_get(issuer);

    error = keys ? ngx_http_ai_jwt_verify(&jwt, keys, &issuer->rules)
                 : NGX_HTTP_AI_JWT_NO_KEY;

    if (error == NGX_HTTP_AI_JWT_NO_KEY
        || (error == NGX_HTTP_AI_JWT_SIGNATURE && jwt.kid.len == 0))
    {
        rc = ngx_http_ai_auth_jwks_wait(r, issuer);

        if (rc != NGX_DECLINED) {
            return rc;
        }

        if (!ngx_http_ai_auth_jwks_ready(issuer)) {
            *reason = NGX_HTTP_AI_AUTH_UNAVAILABLE;
            *detail = "the issuer's keys could not be fetched yet";
            return NGX_OK;
        }
    }

    if (error != NGX_HTTP_AI_JWT_OK) {
        goto refused;
    }

    /* from here on the token is the issuer's */

    rc = ngx_http_ai_auth_token_map(r->pool, issuer, &jwt, token, detail);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    error = ngx_http_ai_jwt_check(&jwt, &issuer->rules, ngx_time(), expires);

    if (error != NGX_HTTP_AI_JWT_OK) {
        goto refused;
    }

    if (rc == NGX_DECLINED) {
        *reason = NGX_HTTP_AI_AUTH_CLAIMS;
        return NGX_OK;
    }

    token->principal.expires = *expires;

    require = issuer->requires.elts;

    for (i = 0; i < issuer->requires.nelts; i++) {

        rc = ngx_http_ai_auth_token_require(r->pool, &jwt.claims, &require[i]);

        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (rc == NGX_DECLINED) {
            *reason = NGX_HTTP_AI_AUTH_CLAIMS;
            *detail = "a required claim is missing or has another value";
            return NGX_OK;
        }
    }

    if (*expires == 0) {
        *expires = ngx_time() + NGX_HTTP_AI_TOKEN_NO_EXP;
    }

    if (issuer->rules.max_age) {
        node = ngx_http_ai_json_member(&jwt.claims, 0, "iat");

        if (ngx_http_ai_json_int(&jwt.claims, node, &iat) != NGX_OK) {
            *expires = 0;

        } else if (iat < *expires - issuer->rules.max_age) {
            *expires = (time_t) iat + issuer->rules.max_age;
        }
    }

    *reason = NGX_HTTP_AI_AUTH_OK;
    *detail = NULL;

    return NGX_OK;

refused:

    if (error == NGX_HTTP_AI_JWT_NO_MEMORY) {
        return NGX_ERROR;
    }

    *reason = ngx_http_ai_auth_token_reason(error);
    *detail = ngx_http_ai_jwt_error(error);

    return NGX_OK;
}


static ngx_http_ai_auth_reason_e
ngx_http_ai_auth_token_reason(ngx_http_ai_jwt_e rc)
{
    switch (rc) {

    case NGX_HTTP_AI_JWT_ALG:
    case NGX_HTTP_AI_JWT_NO_KEY:
    case NGX_HTTP_AI_JWT_SIGNATURE:
        return NGX_HTTP_AI_AUTH_SIGNATURE;

    case NGX_HTTP_AI_JWT_TYPE:
    case NGX_HTTP_AI_JWT_CLAIMS:
    case NGX_HTTP_AI_JWT_ISSUER:
    case NGX_HTTP_AI_JWT_AUDIENCE:
    case NGX_HTTP_AI_JWT_AZP:
        return NGX_HTTP_AI_AUTH_CLAIMS;

    case NGX_HTTP_AI_JWT_EXPIRED:
        return NGX_HTTP_AI_AUTH_EXPIRED;

    case NGX_HTTP_AI_JWT_NOT_YET:
        return NGX_HTTP_AI_AUTH_NOT_YET;

    default: /* NGX_HTTP_AI_JWT_MALFORMED, NGX_HTTP_AI_JWT_CRIT */
        return NGX_HTTP_AI_AUTH_MALFORMED;
    }
}


/* NGX_DECLINED: there is nobody in it, *error says so */

static ngx_int_t
ngx_http_ai_auth_token_map(ngx_pool_t *pool, ngx_http_ai_auth_issuer_t *issuer,
    ngx_http_ai_jwt_t *jwt, ngx_http_ai_auth_token_t *token,
    const char **error)
{
    ngx_int_t                  rc;
    ngx_str_t                 *field, value;
    ngx_uint_t                 i;
    ngx_http_ai_json_t        *j;
    ngx_http_ai_principal_t   *p;
    ngx_http_ai_auth_claim_t  *claim;

    static ngx_str_t           scopes[] = {
        ngx_string("scope"), ngx_string("scp"), ngx_string("scopes")
    };

    j = &jwt->claims;
    p = &token->principal;

    token->claims = jwt->payload;

    rc = ngx_http_ai_auth_token_who(pool, issuer, jwt, token, error);

    if (rc != NGX_OK) {
        return rc;
    }

    if (!(issuer->mapped & (1 << NGX_HTTP_AI_CLAIM_USER))) {
        p->user = token->sub;
    }

    if (!(issuer->mapped & (1 << NGX_HTTP_AI_CLAIM_SCOPES))) {

        for (i = 0; i < sizeof(scopes) / sizeof(ngx_str_t); i++) {

            rc = ngx_http_ai_auth_token_mapped(pool, j, &scopes[i], &value,
                                               error);

            if (rc == NGX_ERROR || rc == NGX_ABORT) {
                return (rc == NGX_ERROR) ? NGX_ERROR : NGX_DECLINED;
            }

            if (rc == NGX_OK) {
                p->scopes = value;
                break;
            }
        }
    }

    /* of several claims for one thing the first that is there */

    claim = issuer->claims.elts;

    for (i = 0; i < issuer->claims.nelts; i++) {

        if (claim[i].target == NGX_HTTP_AI_CLAIM_VARIABLE) {
            continue;
        }

        field = ngx_http_ai_auth_token_field(p, claim[i].target);

        if (field->data) {
            continue;
        }

        rc = ngx_http_ai_auth_token_mapped(pool, j, &claim[i].path, &value,
                                           error);

        if (rc == NGX_ERROR || rc == NGX_ABORT) {
            return (rc == NGX_ERROR) ? NGX_ERROR : NGX_DECLINED;
        }

        if (rc == NGX_DECLINED) {

            if (claim[i].value.data == NULL) {
                continue;
            }

            value = claim[i].value;
        }

        if (claim[i].target >= NGX_HTTP_AI_CLAIM_MODELS
            && ngx_http_ai_auth_token_list(pool, &value) != NGX_OK)
        {
            return NGX_ERROR;
        }

        *field = value;
    }

    /*
     * A list that a claim was to give, and did not, allows nothing: no list at
     * all would allow everything.
     */

    for (i = NGX_HTTP_AI_CLAIM_MODELS; i <= NGX_HTTP_AI_CLAIM_ENDPOINTS; i++) {

        field = ngx_http_ai_auth_token_field(p, i);

        if ((issuer->mapped & (1 << i)) && field->data == NULL) {
            ngx_str_set(field, "");
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_auth_token_who(ngx_pool_t *pool, ngx_http_ai_auth_issuer_t *issuer,
    ngx_http_ai_jwt_t *jwt, ngx_http_ai_auth_token_t *token,
    const char **error)
{
    u_char      *p;
    ngx_int_t    rc;
    ngx_str_t    value, *who, *kind, *key_id;
    ngx_uint_t   i, n;

    static ngx_str_t  names[] = {
        ngx_string("sub"), ngx_string("jti"), ngx_string("azp"),
        ngx_string("client_id")
    };

    who = NULL;
    kind = NULL;

    for (i = 0; i < sizeof(names) / sizeof(ngx_str_t); i++) {

        rc = ngx_http_ai_jwt_claim(&jwt->claims, pool, &names[i], '\0',
                                   &value);

        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (rc == NGX_DECLINED || value.len == 0) {
            continue;
        }

        /* two names must not look alike in a log */

        for (n = 0; n < value.len; n++) {
            if (value.data[n] < ' ' || value.data[n] == 0x7f) {
                break;
            }
        }

        if (n < value.len || value.len > NGX_HTTP_AI_TOKEN_NAME) {
            *error = "\"sub\" or another name is too long or has control "
                     "characters";
            return NGX_DECLINED;
        }

        if (i == 0) {
            token->sub = value;

        } else if (i == 1) {
            token->jti = value;
        }

        if (who == NULL) {
            who = ngx_palloc(pool, sizeof(ngx_str_t));
            if (who == NULL) {
                return NGX_ERROR;
            }

            *who = value;
            kind = &names[i];
        }
    }

    if (who == NULL) {
        *error = "no \"sub\", \"jti\", \"azp\" or \"client_id\"";
        return NGX_DECLINED;
    }

    key_id = &token->principal.key_id;

    p = ngx_pnalloc(pool, issuer->name.len + 1 + kind->len + 1 + who->len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    /* a client must not pass for the user of the same name */

    key_id->data = p;
    key_id->len = ((kind == &names[0])
                   ? ngx_sprintf(p, "%V:%V", &issuer->name, who)
                   : ngx_sprintf(p, "%V/%V:%V", &issuer->name, kind, who))
                  - p;

    return NGX_OK;
}


/*
 * What becomes a part of the principal; two of them must not look alike, so
 * that one with control characters is refused (NGX_ABORT), not cleaned.
 */

static ngx_int_t
ngx_http_ai_auth_token_mapped(ngx_pool_t *pool, ngx_http_ai_json_t *claims,
    ngx_str_t *path, ngx_str_t *value, const char **error)
{
    size_t     len;
    ngx_int_t  rc;

    rc = ngx_http_ai_jwt_claim(claims, pool, path, ' ', value);

    if (rc != NGX_OK) {
        return rc;
    }

    if (value->len == 0) {
        ngx_str_set(value, "");
        return NGX_OK;
    }

    len = value->len;

    if (ngx_http_ai_auth_token_clean(pool, value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (value->len != len) {
        *error = "a claim has control characters";
        return NGX_ABORT;
    }

    return NGX_OK;
}


/* items of an array with spaces between them */

static ngx_int_t
ngx_http_ai_auth_token_claim(ngx_pool_t *pool, ngx_http_ai_json_t *claims,
    ngx_str_t *path, ngx_str_t *value)
{
    ngx_int_t  rc;

    rc = ngx_http_ai_jwt_claim(claims, pool, path, ' ', value);

    if (rc != NGX_OK) {
        return rc;
    }

    if (value->len == 0) {
        ngx_str_set(value, "");
        return NGX_OK;
    }

    return ngx_http_ai_auth_token_clean(pool, value);
}


/* a value may become part of a header or of a line in a log */

static ngx_int_t
ngx_http_ai_auth_token_clean(ngx_pool_t *pool, ngx_str_t *value)
{
    u_char  *p;
    size_t   i;

    for (i = 0; i < value->len; i++) {
        if (value->data[i] < ' ' || value->data[i] == 0x7f) {
            break;
        }
    }

    if (i == value->len) {
        return NGX_OK;
    }

    p = ngx_pnalloc(pool, value->len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, value->data, i);

    value->data += i;
    value->len -= i;

    while (value->len) {

        if (*value->data >= ' ' && *value->data != 0x7f) {
            p[i++] = *value->data;
        }

        value->data++;
        value->len--;
    }

    value->data = p;
    value->len = i;

    return NGX_OK;
}


/* words to items with a NUL at their end */

static ngx_int_t
ngx_http_ai_auth_token_list(ngx_pool_t *pool, ngx_str_t *value)
{
    u_char  *p, *start;
    size_t   i;

    start = ngx_pnalloc(pool, value->len + 1);
    if (start == NULL) {
        return NGX_ERROR;
    }

    p = start;

    for (i = 0; i < value->len; i++) {

        if (value->data[i] != ' ') {
            *p++ = value->data[i];

        } else if (p > start && p[-1] != '\0') {
            *p++ = '\0';
        }
    }

    if (p > start && p[-1] != '\0') {
        *p++ = '\0';
    }

    value->data = start;
    value->len = p - start;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_auth_token_require(ngx_pool_t *pool, ngx_http_ai_json_t *claims,
    ngx_http_ai_auth_rule_t *require)
{
    u_char      sep;
    ngx_int_t   rc;
    ngx_str_t   value, other;

    rc = ngx_http_ai_jwt_claim(claims, pool, &require->path, '\0', &value);

    if (rc != NGX_OK || require->nvalues == 0) {
        return rc;
    }

    rc = ngx_http_ai_jwt_claim(claims, pool, &require->path, '\x01', &other);

    if (rc != NGX_OK) {
        return rc;
    }

    /*
     * Only an array of several items depends on what is put between them: a
     * NUL within a string does not make two of it.
     */

    sep = '\0';

    if (value.len == other.len
        && ngx_memcmp(value.data, other.data, value.len) == 0)
    {
        if (ngx_http_ai_auth_token_is_in(&value, 0xff, require)) {
            return NGX_OK;
        }

        /* RFC 8693, RFC 9068: a string of words */

        if (!ngx_http_ai_str_is(&require->path, "scope")
            && !ngx_http_ai_str_is(&require->path, "scp"))
        {
            return NGX_DECLINED;
        }

        sep = ' ';
    }

    return ngx_http_ai_auth_token_is_in(&value, sep, require) ? NGX_OK
                                                              : NGX_DECLINED;
}


/* UTF-8 has no 0xff: with it as separator the text is one item */

static ngx_uint_t
ngx_http_ai_auth_token_is_in(ngx_str_t *text, u_char sep,
    ngx_http_ai_auth_rule_t *require)
{
    size_t       len;
    u_char      *p, *last, *end;
    ngx_uint_t   i;

    p = text->data;
    last = p + text->len;

    for ( ;; ) {
        end = ngx_strlchr(p, last, sep);
        len = (end ? end : last) - p;

        for (i = 0; i < require->nvalues; i++) {
            if (require->values[i].len == len
                && ngx_memcmp(require->values[i].data, p, len) == 0)
            {
                return 1;
            }
        }

        if (end == NULL) {
            return 0;
        }

        p = end + 1;
    }
}


/* records name an issuer as it is called here, or by its "iss" */

static ngx_uint_t
ngx_http_ai_auth_token_revoked(ngx_http_ai_auth_main_conf_t *aamcf,
    ngx_http_ai_auth_issuer_t *issuer, ngx_http_ai_auth_token_t *token)
{
    if (aamcf->revoked == NULL) {
        return 0;
    }

    return ngx_http_ai_auth_revoked(aamcf, &issuer->name, &token->jti,
                                    &token->sub)
           || ngx_http_ai_auth_revoked(aamcf, &issuer->rules.issuer,
                                       &token->jti, &token->sub);
}


/* a phase before this one may have looked at the variables */

static void
ngx_http_ai_auth_claims_flush(ngx_http_request_t *r,
    ngx_http_ai_auth_main_conf_t *aamcf)
{
    ngx_uint_t                     i;
    ngx_http_ai_auth_claim_var_t  *var;

    var = aamcf->claims.elts;

    for (i = 0; i < aamcf->claims.nelts; i++) {
        r->variables[var[i].index].valid = 0;
        r->variables[var[i].index].not_found = 0;
    }
}


static ngx_http_ai_auth_claims_t *
ngx_http_ai_auth_claims_get(ngx_http_request_t *r, ngx_str_t *text)
{
    ngx_pool_cleanup_t         *cln;
    ngx_http_ai_auth_claims_t  *cl;

    for (cln = r->pool->cleanup; cln; cln = cln->next) {

        if (cln->handler != ngx_http_ai_auth_claims_mark) {
            continue;
        }

        cl = cln->data;

        if (cl->text.data == text->data) {
            return cl;
        }
    }

    cl = ngx_pcalloc(r->pool, sizeof(ngx_http_ai_auth_claims_t));
    if (cl == NULL) {
        return NULL;
    }

    cl->text = *text;
    cl->json.pool = r->pool;

    /* the text was parsed once, so only memory can be missing */

    if (ngx_http_ai_json_parse(&cl->json, text->data, text->len) != NGX_OK) {
        return NULL;
    }

    cln = ngx_pool_cleanup_add(r->pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    cln->handler = ngx_http_ai_auth_claims_mark;
    cln->data = cl;

    return cl;
}


static void
ngx_http_ai_auth_claims_mark(void *data)
{
    /* only a mark that ngx_http_ai_auth_claims_get() looks for */
}


ngx_int_t
ngx_http_ai_auth_claim_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_int_t                   rc;
    ngx_str_t                   value;
    ngx_uint_t                  i;
    ngx_http_ai_auth_ctx_t     *actx;
    ngx_http_ai_auth_claim_t   *claim;
    ngx_http_ai_auth_claims_t  *cl;

    v->not_found = 1;

    actx = ngx_http_ai_auth_get_ctx(r);

    if (actx == NULL || !actx->known || actx->issuer == NULL
        || actx->claims.len == 0)
    {
        return NGX_OK;
    }

    cl = ngx_http_ai_auth_claims_get(r, &actx->claims);
    if (cl == NULL) {
        return NGX_ERROR;
    }

    claim = actx->issuer->claims.elts;

    for (i = 0; i < actx->issuer->claims.nelts; i++) {

        if (claim[i].target != NGX_HTTP_AI_CLAIM_VARIABLE
            || claim[i].variable != data)
        {
            continue;
        }

        rc = ngx_http_ai_auth_token_claim(r->pool, &cl->json, &claim[i].path,
                                          &value);

        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (rc == NGX_DECLINED) {

            if (claim[i].value.data == NULL) {
                continue;
            }

            value = claim[i].value;
        }

        v->not_found = 0;
        v->valid = 1;
        v->no_cacheable = 0;
        v->data = value.data;
        v->len = value.len;

        return NGX_OK;
    }

    return NGX_OK;
}
