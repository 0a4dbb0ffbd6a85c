
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Who calls.  ngx_http_ai_auth_decide() is the only place where an identity is
 * made; it is asked in the access phase, and once more before the body is
 * read for what other modules verify or have let in.
 */


#include "ngx_http_ai_auth.h"
#include "ngx_http_ai_auth_key.h"


#define NGX_HTTP_AI_AUTH_RETRY_AFTER  "1"


typedef struct {
    ngx_str_t                  value;
    ngx_uint_t                 conflict;
} ngx_http_ai_auth_credential_t;


typedef struct {
    ngx_str_t                  name;
    ngx_uint_t                 bearer;        /* after this scheme */
} ngx_http_ai_auth_place_t;


static void ngx_http_ai_auth_ctx_cleanup(void *data);
static ngx_int_t ngx_http_ai_auth_decide(ngx_http_request_t *r,
    ngx_http_ai_auth_loc_conf_t *aalcf, ngx_http_ai_auth_ctx_t *actx,
    ngx_uint_t variables);
static ngx_int_t ngx_http_ai_auth_accept(ngx_http_request_t *r,
    ngx_http_ai_auth_loc_conf_t *aalcf, ngx_http_ai_auth_ctx_t *actx);
static ngx_int_t ngx_http_ai_auth_no(ngx_http_ai_auth_ctx_t *actx,
    ngx_http_ai_auth_reason_e reason, const char *detail);
static ngx_int_t ngx_http_ai_auth_by_token(ngx_http_request_t *r,
    ngx_http_ai_auth_loc_conf_t *aalcf, ngx_http_ai_auth_ctx_t *actx,
    ngx_str_t *token);
static ngx_int_t ngx_http_ai_auth_by_variable(ngx_http_request_t *r,
    ngx_http_ai_auth_loc_conf_t *aalcf, ngx_http_ai_auth_ctx_t *actx);
static void ngx_http_ai_auth_credential(ngx_http_request_t *r,
    ngx_http_ai_auth_ctx_t *actx, ngx_http_ai_auth_credential_t *cred);
static void ngx_http_ai_auth_credential_add(
    ngx_http_ai_auth_credential_t *cred, u_char *data, size_t len);
static ngx_uint_t ngx_http_ai_auth_is_token(ngx_str_t *text);
static ngx_str_t ngx_http_ai_auth_query(ngx_str_t *uri);
static u_char *ngx_http_ai_auth_arg(u_char *p, u_char *last, ngx_str_t *value,
    u_char **next);
static ngx_int_t ngx_http_ai_auth_hide(ngx_http_request_t *r,
    ngx_http_ai_auth_ctx_t *actx);
static ngx_int_t ngx_http_ai_auth_take(ngx_pool_t *pool,
    ngx_http_ai_auth_ctx_t *actx, ngx_str_t *args);
static void ngx_http_ai_auth_blank(ngx_str_t *query);
static ngx_int_t ngx_http_ai_auth_challenge(ngx_http_request_t *r,
    ngx_http_ai_auth_ctx_t *actx);
static ngx_int_t ngx_http_ai_auth_message(ngx_http_request_t *r,
    ngx_http_ai_error_t *err, const char *fmt, ngx_str_t *text);


/* where client libraries put their key */

static ngx_http_ai_auth_place_t  ngx_http_ai_auth_places[] = {
    { ngx_string("authorization"), 1 },
    { ngx_string("x-api-key"), 0 },
    { ngx_string("api-key"), 0 },
    { ngx_string("x-goog-api-key"), 0 },
    { ngx_null_string, 0 }
};


ngx_http_ai_auth_ctx_t *
ngx_http_ai_auth_get_ctx(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t      *cln;
    ngx_http_ai_auth_ctx_t  *actx;

    r = r->main;

    actx = ngx_http_get_module_ctx(r, ngx_http_ai_auth_module);

    if (actx || !(r->internal || r->filter_finalize)) {
        return actx;
    }

    /* r->ctx[] was zeroed by an internal redirect, the pool was not */

    for (cln = r->pool->cleanup; cln; cln = cln->next) {

        if (cln->handler == ngx_http_ai_auth_ctx_cleanup) {
            actx = cln->data;
            ngx_http_set_ctx(r, actx, ngx_http_ai_auth_module);
            return actx;
        }
    }

    return NULL;
}


ngx_http_ai_auth_ctx_t *
ngx_http_ai_auth_create_ctx(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t      *cln;
    ngx_http_ai_auth_ctx_t  *actx;

    actx = ngx_http_ai_auth_get_ctx(r);

    if (actx) {
        return actx;
    }

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_ai_auth_ctx_t));
    if (cln == NULL) {
        return NULL;
    }

    actx = cln->data;
    ngx_memzero(actx, sizeof(ngx_http_ai_auth_ctx_t));

    cln->handler = ngx_http_ai_auth_ctx_cleanup;

    ngx_http_set_ctx(r, actx, ngx_http_ai_auth_module);

    return actx;
}


static void
ngx_http_ai_auth_ctx_cleanup(void *data)
{
    /* only a mark that ngx_http_ai_auth_get_ctx() looks for */
}


/* before anything of the location is logged or passed on */

ngx_int_t
ngx_http_ai_auth_rewrite_handler(ngx_http_request_t *r)
{
    u_char                       *p, *next;
    ngx_str_t                     sent, value;
    ngx_http_ai_auth_ctx_t       *actx;
    ngx_http_ai_auth_loc_conf_t  *aalcf;

    if (r != r->main) {
        return NGX_DECLINED;
    }

    sent = ngx_http_ai_auth_query(&r->unparsed_uri);

    if (r->args.len == 0 && sent.len == 0) {
        return NGX_DECLINED;
    }

    aalcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_auth_module);

    if (!(aalcf->kinds & (NGX_HTTP_AI_AUTH_KEY|NGX_HTTP_AI_AUTH_JWT))) {
        return NGX_DECLINED;
    }

    /* "rewrite" may have changed the arguments, the log has both */

    p = r->args.data;

    if (ngx_http_ai_auth_arg(p, p + r->args.len, &value, &next) == NULL
        && ngx_http_ai_auth_arg(sent.data, sent.data + sent.len, &value,
                                &next)
           == NULL)
    {
        return NGX_DECLINED;
    }

    actx = ngx_http_ai_auth_create_ctx(r);
    if (actx == NULL || ngx_http_ai_auth_hide(r, actx) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return NGX_DECLINED;
}


ngx_int_t
ngx_http_ai_auth_handler(ngx_http_request_t *r)
{
    ngx_int_t                      rc;
    ngx_http_ai_auth_ctx_t        *actx;
    ngx_http_core_loc_conf_t      *clcf;
    ngx_http_ai_auth_loc_conf_t   *aalcf;

    aalcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_auth_module);

    if (aalcf->kinds == NGX_HTTP_AI_AUTH_OFF
        || (aalcf->kinds == 0 && aalcf->require == NULL))
    {
        return NGX_DECLINED;
    }

    actx = ngx_http_ai_auth_create_ctx(r);
    if (actx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    rc = ngx_http_ai_auth_decide(r, aalcf, actx,
                                 clcf->satisfy == NGX_HTTP_SATISFY_ANY);

    switch (rc) {

    case NGX_OK:
    case NGX_AGAIN:
        return rc;

    case NGX_ERROR:
        return NGX_HTTP_INTERNAL_SERVER_ERROR;

    case NGX_DECLINED:

        if (clcf->satisfy == NGX_HTTP_SATISFY_ANY) {

            /* counts when no other module lets the request in; it is not
             * logged before that is known */

            actx->reason = NGX_HTTP_AI_AUTH_NONE;
            break;
        }

        if (aalcf->kinds & NGX_HTTP_AI_AUTH_VARIABLE) {

            /* auth_request and auth_basic run later in this phase */

            return NGX_DECLINED;
        }

        (void) ngx_http_ai_auth_no(actx, NGX_HTTP_AI_AUTH_NONE, NULL);
        break;

    default: /* NGX_ABORT */

        if (clcf->satisfy == NGX_HTTP_SATISFY_ANY) {

            /* not for another module to let in */

            ngx_http_finalize_request(r, ngx_http_ai_auth_refuse(r, actx));
            return NGX_DONE;
        }
    }

    return ngx_http_ai_auth_refuse(r, actx);
}


ngx_int_t
ngx_http_ai_auth_precontent_handler(ngx_http_request_t *r)
{
    ngx_int_t                      rc;
    ngx_uint_t                     status;
    ngx_http_ai_ctx_t             *ctx;
    ngx_http_ai_auth_ctx_t        *actx;
    ngx_http_core_loc_conf_t      *clcf;
    ngx_http_ai_auth_loc_conf_t   *aalcf;
    ngx_http_ai_auth_main_conf_t  *aamcf;

    if (r != r->main) {
        return NGX_DECLINED;
    }

    aalcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_auth_module);

    if (aalcf->kinds == NGX_HTTP_AI_AUTH_OFF
        || (aalcf->kinds == 0 && aalcf->require == NULL))
    {
        goto deny;
    }

    actx = ngx_http_ai_auth_create_ctx(r);
    if (actx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_ai_auth_decide(r, aalcf, actx, 1);

    if (rc == NGX_AGAIN) {
        return NGX_AGAIN;
    }

    if (rc == NGX_ERROR) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (rc == NGX_DECLINED) {
        clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

        if (clcf->satisfy != NGX_HTTP_SATISFY_ANY || aalcf->require) {
            rc = ngx_http_ai_auth_no(actx, NGX_HTTP_AI_AUTH_NONE, NULL);

        } else {
            /* another module has let it in */
            actx->anonymous = 1;
            actx->reason = NGX_HTTP_AI_AUTH_OK;

            if (actx->challenge) {
                actx->challenge->hash = 0;
            }
        }
    }

    if (rc == NGX_ABORT) {
        return ngx_http_ai_auth_refuse(r, actx);
    }

deny:

    if (aalcf->deny == NULL) {
        return NGX_DECLINED;
    }

    aamcf = ngx_http_get_module_main_conf(r, ngx_http_ai_auth_module);

    if (aamcf->api->enabled(r)) {
        ctx = aamcf->api->get_ctx(r);

        if (ctx == NULL || !ctx->ready) {
            /* when the model is known */
            return NGX_DECLINED;
        }
    }

    rc = ngx_http_ai_auth_deny(r, aalcf, &actx, &status);

    if (rc == NGX_OK) {
        return NGX_DECLINED;
    }

    if (rc == NGX_ERROR) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_ai_auth_log_refusal(r, actx);

    return status;
}


/*
 * NGX_OK: actx->principal is the caller; NGX_DECLINED: nothing was sent;
 * NGX_ABORT: actx says why not; NGX_AGAIN; NGX_ERROR.
 */

static ngx_int_t
ngx_http_ai_auth_decide(ngx_http_request_t *r,
    ngx_http_ai_auth_loc_conf_t *aalcf, ngx_http_ai_auth_ctx_t *actx,
    ngx_uint_t variables)
{
    ngx_str_t                       empty;
    ngx_http_ai_ctx_t              *ctx;
    ngx_http_ai_auth_reason_e       reason;
    ngx_http_ai_auth_main_conf_t   *aamcf;
    ngx_http_ai_auth_credential_t   cred;

    aamcf = ngx_http_get_module_main_conf(r, ngx_http_ai_auth_module);

    if (actx->conf == aalcf) {

        if (actx->refused) {
            return NGX_ABORT;
        }

        if (actx->known) {
            return NGX_OK;
        }

    } else {

        /* what was good for another location means nothing here */

        actx->conf = aalcf;
        actx->kind = 0;
        actx->reason = NGX_HTTP_AI_AUTH_OK;
        actx->issuer = NULL;
        actx->detail = NULL;
        actx->known = 0;
        actx->anonymous = 0;
        actx->refused = 0;
        actx->denied = 0;

        ngx_str_null(&empty);
        actx->rule = empty;
        actx->claims = empty;
        actx->credential = empty;
        actx->text = empty;

        ngx_memzero(&actx->principal, sizeof(ngx_http_ai_principal_t));

        ctx = aamcf->api->get_ctx(r);
        if (ctx) {
            ctx->principal = NULL;
        }
    }

    if (aalcf->kinds == 0) {
        /* "ai_require" of a server without "ai_auth" */
        return ngx_http_ai_auth_no(actx, NGX_HTTP_AI_AUTH_NONE,
                                   "no ai_auth here");
    }

    if (aalcf->kinds & (NGX_HTTP_AI_AUTH_KEY|NGX_HTTP_AI_AUTH_JWT)) {

        ngx_memzero(&cred, sizeof(ngx_http_ai_auth_credential_t));

        ngx_http_ai_auth_credential(r, actx, &cred);

        if (cred.conflict || actx->conflict) {
            return ngx_http_ai_auth_no(actx, NGX_HTTP_AI_AUTH_CONFLICT, NULL);
        }

        if (cred.value.len) {
            actx->credential = cred.value;

            if ((aalcf->kinds & NGX_HTTP_AI_AUTH_JWT)
                && (ngx_http_ai_auth_is_token(&cred.value)
                    || !(aalcf->kinds & NGX_HTTP_AI_AUTH_KEY)))
            {
                return ngx_http_ai_auth_by_token(r, aalcf, actx, &cred.value);
            }

            actx->kind = NGX_HTTP_AI_AUTH_KEY;

            if (cred.value.len > NGX_HTTP_AI_KEY_TEXT_MAX) {
                return ngx_http_ai_auth_no(actx, NGX_HTTP_AI_AUTH_MALFORMED,
                                           "too long");
            }

            reason = ngx_http_ai_auth_key_find(aamcf, &cred.value, r->pool,
                                               &actx->principal);

            if (reason != NGX_HTTP_AI_AUTH_OK) {
                return ngx_http_ai_auth_no(actx, reason, NULL);
            }

            return ngx_http_ai_auth_accept(r, aalcf, actx);
        }
    }

    if ((aalcf->kinds & NGX_HTTP_AI_AUTH_VARIABLE) && variables) {
        return ngx_http_ai_auth_by_variable(r, aalcf, actx);
    }

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_ai_auth_accept(ngx_http_request_t *r,
    ngx_http_ai_auth_loc_conf_t *aalcf, ngx_http_ai_auth_ctx_t *actx)
{
    u_char                        *p, *last;
    ngx_http_ai_ctx_t             *ctx;
    ngx_http_ai_principal_t       *pr;
    ngx_http_ai_auth_main_conf_t  *aamcf;

    pr = &actx->principal;

    if (pr->key_id.len == 0) {
        ngx_log_error(NGX_LOG_ALERT, r->connection->log, 0,
                      "ai auth: an identity without a name");
        return NGX_ERROR;
    }

    actx->model_scopes = 0;
    actx->provider_scopes = 0;
    actx->endpoint_scopes = 0;

    last = pr->scopes.data + pr->scopes.len;

    for (p = pr->scopes.data; p < last; p++) {

        if (*p != ':') {
            continue;
        }

        /* the first colon of a word ends its kind */

        if (p - pr->scopes.data >= 5
            && ngx_strncmp(p - 5, "model", 5) == 0
            && (p - 5 == pr->scopes.data || *(p - 6) == ' '))
        {
            actx->model_scopes = 1;

        } else if (p - pr->scopes.data >= 8
                   && ngx_strncmp(p - 8, "provider", 8) == 0
                   && (p - 8 == pr->scopes.data || *(p - 9) == ' '))
        {
            actx->provider_scopes = 1;

        } else if (p - pr->scopes.data >= 8
                   && ngx_strncmp(p - 8, "endpoint", 8) == 0
                   && (p - 8 == pr->scopes.data || *(p - 9) == ' '))
        {
            actx->endpoint_scopes = 1;
        }
    }

    actx->known = 1;

    aamcf = ngx_http_get_module_main_conf(r, ngx_http_ai_auth_module);

    ctx = aamcf->api->get_ctx(r);

    if (ctx == NULL && aamcf->api->enabled(r)) {
        ctx = aamcf->api->create_ctx(r);
        if (ctx == NULL) {
            return NGX_ERROR;
        }
    }

    if (ctx) {
        ctx->principal = pr;
    }

    if (ngx_http_ai_auth_check(r, ctx, aalcf, actx) != NGX_OK) {
        actx->refused = 1;
        return NGX_ABORT;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_auth_no(ngx_http_ai_auth_ctx_t *actx,
    ngx_http_ai_auth_reason_e reason, const char *detail)
{
    actx->known = 0;
    actx->refused = 1;
    actx->reason = reason;

    if (detail) {
        actx->detail = detail;
    }

    return NGX_ABORT;
}


static ngx_int_t
ngx_http_ai_auth_by_token(ngx_http_request_t *r,
    ngx_http_ai_auth_loc_conf_t *aalcf, ngx_http_ai_auth_ctx_t *actx,
    ngx_str_t *token)
{
    ngx_int_t                       rc;
    ngx_str_t                       iss;
    ngx_uint_t                      i, n;
    const char                     *detail;
    ngx_http_ai_auth_issuer_t      *issuer;
    ngx_http_ai_auth_reason_e       reason;
    ngx_http_ai_auth_issuer_ref_t  *ref;

    actx->kind = NGX_HTTP_AI_AUTH_JWT;

    if (token->len > NGX_HTTP_AI_JWT_MAX || !ngx_http_ai_auth_is_token(token))
    {
        return ngx_http_ai_auth_no(actx, NGX_HTTP_AI_AUTH_MALFORMED,
                                   "not a signed token");
    }

    ref = aalcf->issuers->elts;
    n = aalcf->issuers->nelts;
    issuer = ref[0].issuer;

    if (n > 1) {

        /* chooses the rules; the rules check "iss" again */

        iss = ngx_http_ai_auth_token_issuer(r->pool, token);

        for (i = 0; i < n; i++) {
            if (iss.len && ngx_http_ai_auth_issuer_is(ref[i].issuer, &iss)) {
                break;
            }
        }

        if (i == n) {
            return ngx_http_ai_auth_no(actx, NGX_HTTP_AI_AUTH_CLAIMS,
                                       "no issuer of this name");
        }

        issuer = ref[i].issuer;
    }

    detail = NULL;
    reason = NGX_HTTP_AI_AUTH_UNAVAILABLE;

    rc = ngx_http_ai_auth_token_check(r, issuer, token, &actx->principal,
                                      &actx->claims, &reason, &detail);

    if (rc != NGX_OK) {
        return rc;
    }

    if (reason != NGX_HTTP_AI_AUTH_OK) {
        ngx_str_null(&actx->claims);
        return ngx_http_ai_auth_no(actx, reason, detail);
    }

    actx->issuer = issuer;

    return ngx_http_ai_auth_accept(r, aalcf, actx);
}


static ngx_int_t
ngx_http_ai_auth_by_variable(ngx_http_request_t *r,
    ngx_http_ai_auth_loc_conf_t *aalcf, ngx_http_ai_auth_ctx_t *actx)
{
    ngx_str_t                      name;
    ngx_uint_t                     i;
    ngx_http_complex_value_t      *cv;
    ngx_http_ai_auth_reason_e      reason;
    ngx_http_ai_auth_main_conf_t  *aamcf;

    aamcf = ngx_http_get_module_main_conf(r, ngx_http_ai_auth_module);

    cv = aalcf->variables->elts;

    for (i = 0; i < aalcf->variables->nelts; i++) {

        if (ngx_http_complex_value(r, &cv[i], &name) != NGX_OK) {
            return NGX_ERROR;
        }

        if (name.len == 0) {
            continue;
        }

        actx->kind = NGX_HTTP_AI_AUTH_VARIABLE;

        reason = ngx_http_ai_auth_key_by_id(aamcf, &name, r->pool,
                                            &actx->principal);

        if (reason != NGX_HTTP_AI_AUTH_OK) {
            return ngx_http_ai_auth_no(actx, reason, NULL);
        }

        return ngx_http_ai_auth_accept(r, aalcf, actx);
    }

    return NGX_DECLINED;
}


static void
ngx_http_ai_auth_credential(ngx_http_request_t *r,
    ngx_http_ai_auth_ctx_t *actx, ngx_http_ai_auth_credential_t *cred)
{
    size_t                     len;
    u_char                    *p;
    ngx_uint_t                 i;
    ngx_list_part_t           *part;
    ngx_table_elt_t           *h;
    ngx_http_ai_auth_place_t  *place;

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            for (place = ngx_http_ai_auth_places; place->name.len; place++) {
                if (h[i].key.len == place->name.len
                    && ngx_strncmp(h[i].lowcase_key, place->name.data,
                                   place->name.len)
                       == 0)
                {
                    break;
                }
            }

            if (place->name.len == 0) {
                continue;
            }

            p = h[i].value.data;
            len = h[i].value.len;

            if (place->bearer) {

                /* Basic and others are not for us */

                if (len < 6
                    || ngx_strncasecmp(p, (u_char *) "Bearer", 6) != 0
                    || (len > 6 && p[6] != ' ' && p[6] != '\t'))
                {
                    continue;
                }

                p += 6;
                len -= 6;
            }

            ngx_http_ai_auth_credential_add(cred, p, len);
        }
    }

    if (actx->key.len) {
        ngx_http_ai_auth_credential_add(cred, actx->key.data, actx->key.len);
    }
}


static void
ngx_http_ai_auth_credential_add(ngx_http_ai_auth_credential_t *cred,
    u_char *data, size_t len)
{
    while (len && (data[0] == ' ' || data[0] == '\t')) {
        data++;
        len--;
    }

    while (len && (data[len - 1] == ' ' || data[len - 1] == '\t')) {
        len--;
    }

    if (len == 0) {
        return;
    }

    if (cred->value.len == 0) {
        cred->value.data = data;
        cred->value.len = len;
        return;
    }

    if (cred->value.len != len
        || ngx_memcmp(cred->value.data, data, len) != 0)
    {
        cred->conflict = 1;
    }
}


/* three parts in base64url, the last one of which may not be empty either:
 * an unsigned token is no token */

static ngx_uint_t
ngx_http_ai_auth_is_token(ngx_str_t *text)
{
    u_char      ch;
    size_t      i, part;
    ngx_uint_t  dots;

    dots = 0;
    part = 0;

    for (i = 0; i < text->len; i++) {
        ch = text->data[i];

        if (ch == '.') {
            if (part == 0 || ++dots > 2) {
                return 0;
            }

            part = 0;
            continue;
        }

        if ((ch < 'a' || ch > 'z') && (ch < 'A' || ch > 'Z')
            && (ch < '0' || ch > '9') && ch != '-' && ch != '_')
        {
            return 0;
        }

        part++;
    }

    return dots == 2 && part;
}


/* what follows "?" */

static ngx_str_t
ngx_http_ai_auth_query(ngx_str_t *uri)
{
    u_char     *p, *last;
    ngx_str_t   query;

    ngx_str_null(&query);

    last = uri->data + uri->len;
    p = ngx_strlchr(uri->data, last, '?');

    if (p) {
        query.data = p + 1;
        query.len = last - query.data;
    }

    return query;
}


/* the next "key=" of a query; the name may be escaped.  *next is what follows
 * the argument */

static u_char *
ngx_http_ai_auth_arg(u_char *p, u_char *last, ngx_str_t *value, u_char **next)
{
    u_char  *arg, *eq, *src, *dst, name[16];

    for ( /* void */ ; p < last; p = arg + 1) {

        arg = ngx_strlchr(p, last, '&');
        if (arg == NULL) {
            arg = last;
        }

        eq = ngx_strlchr(p, arg, '=');

        /* "key", with each letter escaped at most */

        if (eq && eq - p >= 3 && eq - p <= 9) {
            src = p;
            dst = name;

            ngx_unescape_uri(&dst, &src, eq - p, 0);

            if (dst - name == 3 && ngx_strncmp(name, "key", 3) == 0) {
                value->data = eq + 1;
                value->len = arg - eq - 1;

                *next = arg;

                return p;
            }
        }

        if (arg == last) {
            break;
        }
    }

    return NULL;
}


/*
 * Keeps the key of the query and takes it out of $args and $request_uri; in
 * $request and in nginx's own messages it is made illegible.
 */

static ngx_int_t
ngx_http_ai_auth_hide(ngx_http_request_t *r, ngx_http_ai_auth_ctx_t *actx)
{
    u_char     *p;
    ngx_str_t   args, sent, query, uri;

    args = r->args;
    sent = ngx_http_ai_auth_query(&r->unparsed_uri);
    query = sent;
    uri = r->unparsed_uri;

    if (ngx_http_ai_auth_take(r->pool, actx, &args) != NGX_OK
        || ngx_http_ai_auth_take(r->pool, actx, &query) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (sent.data) {
        uri.len = sent.data - 1 - r->unparsed_uri.data;
        uri.data = ngx_pnalloc(r->pool, uri.len + 1 + query.len);
        if (uri.data == NULL) {
            return NGX_ERROR;
        }

        p = ngx_cpymem(uri.data, r->unparsed_uri.data, uri.len);

        if (query.len) {
            *p++ = '?';
            p = ngx_cpymem(p, query.data, query.len);
        }

        uri.len = p - uri.data;
    }

    /* these are slices of one buffer with HTTP/1, and copies with HTTP/2 */

    ngx_http_ai_auth_blank(&r->args);
    ngx_http_ai_auth_blank(&sent);

    query = ngx_http_ai_auth_query(&r->request_line);

    p = ngx_strlchr(query.data, query.data + query.len, ' ');
    if (p) {
        query.len = p - query.data;
    }

    ngx_http_ai_auth_blank(&query);

    r->args = args;
    r->unparsed_uri = uri;

    return NGX_OK;
}


/* actx->key, and the arguments without it */

static ngx_int_t
ngx_http_ai_auth_take(ngx_pool_t *pool, ngx_http_ai_auth_ctx_t *actx,
    ngx_str_t *args)
{
    u_char     *p, *src, *dst, *rest, *last, *start, *next;
    ngx_str_t   value, key;

    if (args->len == 0) {
        return NGX_OK;
    }

    start = ngx_pnalloc(pool, args->len);
    if (start == NULL) {
        return NGX_ERROR;
    }

    rest = start;
    p = args->data;
    last = p + args->len;

    for ( ;; ) {
        src = ngx_http_ai_auth_arg(p, last, &value, &next);

        if (src == NULL) {
            break;
        }

        rest = ngx_cpymem(rest, p, src - p);

        /* with the "&" after it */

        p = (next < last) ? next + 1 : last;

        if (value.len == 0) {
            continue;
        }

        key.data = ngx_pnalloc(pool, value.len);
        if (key.data == NULL) {
            return NGX_ERROR;
        }

        src = value.data;
        dst = key.data;
        ngx_unescape_uri(&dst, &src, value.len, 0);
        key.len = dst - key.data;

        if (actx->key.len
            && (actx->key.len != key.len
                || ngx_memcmp(actx->key.data, key.data, key.len) != 0))
        {
            actx->conflict = 1;
        }

        actx->key = key;
    }

    rest = ngx_cpymem(rest, p, last - p);

    if (rest > start && *(rest - 1) == '&' && *(last - 1) != '&') {
        rest--;
    }

    args->data = start;
    args->len = rest - start;

    return NGX_OK;
}


static void
ngx_http_ai_auth_blank(ngx_str_t *query)
{
    u_char     *p, *last, *next;
    ngx_str_t   value;

    p = query->data;
    last = p + query->len;

    while ((p = ngx_http_ai_auth_arg(p, last, &value, &next)) != NULL) {
        ngx_memset(value.data, '*', value.len);
        p = next;
    }
}


ngx_int_t
ngx_http_ai_auth_refuse(ngx_http_request_t *r, ngx_http_ai_auth_ctx_t *actx)
{
    ngx_str_t                      value;
    ngx_http_ai_ctx_t             *ctx;
    ngx_http_ai_error_t            err;
    ngx_http_ai_auth_main_conf_t  *aamcf;

    if (actx->refused) {
        ngx_http_ai_auth_log_refusal(r, actx);
    }

    if (ngx_http_ai_auth_error(r, actx, &err) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (err.status == NGX_HTTP_SERVICE_UNAVAILABLE) {
        ngx_str_set(&value, NGX_HTTP_AI_AUTH_RETRY_AFTER);

        if (ngx_http_ai_header_add(&r->headers_out.headers, "Retry-After",
                                   &value)
            == NULL)
        {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    aamcf = ngx_http_get_module_main_conf(r, ngx_http_ai_auth_module);

    if (!aamcf->api->enabled(r)) {
        return err.status;
    }

    ctx = aamcf->api->get_ctx(r);

    if (ctx == NULL) {
        ctx = aamcf->api->create_ctx(r);
        if (ctx == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    return aamcf->api->refuse(r, ctx, &err);
}


/*
 * Whether a key exists is not told: unknown, disabled and revoked look alike.
 */

ngx_int_t
ngx_http_ai_auth_error(ngx_http_request_t *r, ngx_http_ai_auth_ctx_t *actx,
    ngx_http_ai_error_t *err)
{
    ngx_int_t                      rc;
    ngx_uint_t                     kinds;
    ngx_http_ai_ctx_t             *ctx;
    ngx_http_ai_auth_main_conf_t  *aamcf;

    ngx_memzero(err, sizeof(ngx_http_ai_error_t));

    err->class = NGX_HTTP_AI_ERR_AUTH;
    err->status = NGX_HTTP_UNAUTHORIZED;

    kinds = actx->conf ? actx->conf->kinds : 0;
    rc = NGX_OK;

    switch (actx->reason) {

    case NGX_HTTP_AI_AUTH_NONE:

        if (kinds & NGX_HTTP_AI_AUTH_KEY) {
            ngx_str_set(&err->message, "you did not provide an API key, send "
                        "it as \"Authorization: Bearer KEY\" or "
                        "\"x-api-key: KEY\"");

        } else if (kinds & NGX_HTTP_AI_AUTH_JWT) {
            ngx_str_set(&err->message, "you did not provide an access token, "
                        "send it as \"Authorization: Bearer TOKEN\"");

        } else {
            ngx_str_set(&err->message, "you are not authenticated");
        }

        break;

    case NGX_HTTP_AI_AUTH_CONFLICT:
        ngx_str_set(&err->message, "the request has two different API keys "
                    "or access tokens, send one");
        break;

    case NGX_HTTP_AI_AUTH_EXPIRED:

        if (actx->kind == NGX_HTTP_AI_AUTH_JWT) {
            ngx_str_set(&err->message, "the access token has expired, get a "
                        "new one");
            break;
        }

        if (actx->kind == NGX_HTTP_AI_AUTH_KEY) {
            ngx_str_set(&err->message, "the API key has expired");
            break;
        }

        goto identity;

    case NGX_HTTP_AI_AUTH_NOT_YET:

        if (actx->kind == NGX_HTTP_AI_AUTH_JWT) {
            ngx_str_set(&err->message, "the access token is not valid yet");
            break;
        }

        if (actx->kind == NGX_HTTP_AI_AUTH_KEY) {
            ngx_str_set(&err->message, "the API key is not valid yet");
            break;
        }

        goto identity;

    case NGX_HTTP_AI_AUTH_SCOPE:
        err->class = NGX_HTTP_AI_ERR_PERMISSION;
        err->status = NGX_HTTP_FORBIDDEN;
        rc = ngx_http_ai_auth_message(r, err, "you need the scope \"%V\" for "
                                      "this", &actx->text);
        break;

    case NGX_HTTP_AI_AUTH_ENDPOINT:
        err->class = NGX_HTTP_AI_ERR_PERMISSION;
        err->status = NGX_HTTP_FORBIDDEN;
        rc = ngx_http_ai_auth_message(r, err, "you may not use this endpoint "
                                      "(%V)", &actx->text);
        break;

    case NGX_HTTP_AI_AUTH_MODEL:
    case NGX_HTTP_AI_AUTH_PROVIDER:
        err->class = NGX_HTTP_AI_ERR_PERMISSION;
        err->status = NGX_HTTP_FORBIDDEN;
        ngx_str_set(&err->param, "model");

        aamcf = ngx_http_get_module_main_conf(r, ngx_http_ai_auth_module);
        ctx = aamcf->api->get_ctx(r);

        if (ctx == NULL) {
            return NGX_ERROR;
        }

        rc = ngx_http_ai_auth_message(r, err, "you may not use the model "
                                      "\"%V\"", &ctx->request_model);
        break;

    case NGX_HTTP_AI_AUTH_POLICY:
        err->class = NGX_HTTP_AI_ERR_PERMISSION;
        err->status = NGX_HTTP_FORBIDDEN;
        err->message = actx->text;
        break;

    case NGX_HTTP_AI_AUTH_UNAVAILABLE:
        err->class = NGX_HTTP_AI_ERR_OVERLOADED;
        err->status = NGX_HTTP_SERVICE_UNAVAILABLE;
        ngx_str_set(&err->message, "authentication is not available at the "
                    "moment, try again later");
        break;

    default:

        if (actx->kind == NGX_HTTP_AI_AUTH_KEY) {
            ngx_str_set(&err->message, "incorrect API key provided");
            break;
        }

        if (actx->kind == NGX_HTTP_AI_AUTH_JWT) {
            ngx_str_set(&err->message, "invalid access token");
            break;
        }

    identity:

        /* who it is, is known */

        err->class = NGX_HTTP_AI_ERR_PERMISSION;
        err->status = NGX_HTTP_FORBIDDEN;
        ngx_str_set(&err->message, "you may not use this service");
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    if (err->status == NGX_HTTP_UNAUTHORIZED
        || actx->reason == NGX_HTTP_AI_AUTH_SCOPE)
    {
        return ngx_http_ai_auth_challenge(r, actx);
    }

    return NGX_OK;
}


/* RFC 6750 */

static ngx_int_t
ngx_http_ai_auth_challenge(ngx_http_request_t *r, ngx_http_ai_auth_ctx_t *actx)
{
    char             *error;
    u_char           *p;
    size_t            len;
    ngx_str_t         value;
    ngx_table_elt_t  *h;

    if (actx->conf == NULL
        || !(actx->conf->kinds & (NGX_HTTP_AI_AUTH_KEY|NGX_HTTP_AI_AUTH_JWT)))
    {
        return NGX_OK;
    }

    value = actx->conf->challenge;

    switch (actx->reason) {

    case NGX_HTTP_AI_AUTH_NONE:
        error = NULL;
        break;

    case NGX_HTTP_AI_AUTH_CONFLICT:
        error = "invalid_request";
        break;

    case NGX_HTTP_AI_AUTH_SCOPE:
        error = "insufficient_scope";
        break;

    default:
        error = "invalid_token";
    }

    if (error) {
        len = value.len + sizeof(", error=\"\", scope=\"\"") - 1
              + ngx_strlen(error) + actx->text.len;

        p = ngx_pnalloc(r->pool, len);
        if (p == NULL) {
            return NGX_ERROR;
        }

        value.data = p;
        p = ngx_sprintf(p, "%V, error=\"%s\"", &actx->conf->challenge, error);

        if (actx->reason == NGX_HTTP_AI_AUTH_SCOPE) {
            p = ngx_sprintf(p, ", scope=\"%V\"", &actx->text);
        }

        value.len = p - value.data;
    }

    h = actx->challenge;

    if (h) {
        /* of an earlier refusal that was redirected */
        h->hash = 1;
        h->value = value;
        return NGX_OK;
    }

    h = ngx_http_ai_header_add(&r->headers_out.headers, "WWW-Authenticate",
                               &value);
    if (h == NULL) {
        return NGX_ERROR;
    }

#if (nginx_version >= 1023000)
    h->next = r->headers_out.www_authenticate;
#endif

    r->headers_out.www_authenticate = h;
    actx->challenge = h;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_auth_message(ngx_http_request_t *r, ngx_http_ai_error_t *err,
    const char *fmt, ngx_str_t *text)
{
    u_char  *p;

    p = ngx_pnalloc(r->pool, ngx_strlen(fmt) + text->len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    err->message.data = p;
    err->message.len = ngx_sprintf(p, fmt, text) - p;

    return NGX_OK;
}
