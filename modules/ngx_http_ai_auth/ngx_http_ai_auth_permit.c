
/*
 * Copyright (C) nginx AI gateway authors
 */


/* what a caller may use: scopes, endpoints, models, providers, policy */


#include "ngx_http_ai_auth.h"


static ngx_uint_t ngx_http_ai_auth_endpoint(ngx_http_ai_auth_ctx_t *actx,
    ngx_http_ai_op_e op, ngx_str_t *name);
static ngx_uint_t ngx_http_ai_auth_restricted(ngx_http_ai_auth_ctx_t *actx);
static ngx_int_t ngx_http_ai_auth_route(ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_auth_ctx_t *actx, ngx_http_ai_route_t *route);
static ngx_uint_t ngx_http_ai_auth_allowed(ngx_str_t *list, ngx_str_t *scopes,
    ngx_str_t *kind, ngx_str_t *names, ngx_uint_t n);
static ngx_uint_t ngx_http_ai_auth_list_match(ngx_str_t *list,
    ngx_str_t *name, ngx_uint_t nocase, ngx_str_t *rule);
static ngx_uint_t ngx_http_ai_auth_scope_match(ngx_str_t *scopes,
    ngx_str_t *kind, ngx_str_t *name);
static ngx_str_t ngx_http_ai_auth_trim(ngx_str_t *text);


#define NGX_HTTP_AI_AUTH_PAIR  512


/* names of keys.json; the second one is that of $ai_operation */

static ngx_str_t  ngx_http_ai_auth_endpoints[NGX_HTTP_AI_OP_MAX][2] = {
    [NGX_HTTP_AI_OP_CHAT] = { ngx_string("chat"), ngx_null_string },
    [NGX_HTTP_AI_OP_COMPLETIONS] = { ngx_string("completions"),
                                     ngx_string("text_completion") },
    [NGX_HTTP_AI_OP_EMBEDDINGS] = { ngx_string("embeddings"),
                                    ngx_null_string },
    [NGX_HTTP_AI_OP_COUNT_TOKENS] = { ngx_string("count_tokens"),
                                      ngx_null_string },
    [NGX_HTTP_AI_OP_MODELS] = { ngx_string("models"), ngx_null_string },
    [NGX_HTTP_AI_OP_MODEL] = { ngx_string("models"), ngx_string("model") },
    [NGX_HTTP_AI_OP_PASS] = { ngx_string("passthrough"), ngx_string("pass") }
};


static ngx_str_t  ngx_http_ai_auth_kind_model = ngx_string("model:");
static ngx_str_t  ngx_http_ai_auth_kind_provider = ngx_string("provider:");
static ngx_str_t  ngx_http_ai_auth_kind_endpoint = ngx_string("endpoint:");


ngx_int_t
ngx_http_ai_auth_check(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_auth_loc_conf_t *aalcf, ngx_http_ai_auth_ctx_t *actx)
{
    ngx_str_t                      *scope;
    ngx_uint_t                      i, k;
    ngx_http_ai_auth_require_t    **require;
    ngx_http_ai_auth_main_conf_t   *aamcf;

    if (aalcf->require) {
        require = aalcf->require->elts;

        for (i = 0; i < aalcf->require->nelts; i++) {
            scope = require[i]->scopes.elts;

            for (k = 0; k < require[i]->scopes.nelts; k++) {

                if (!ngx_http_ai_auth_has_scope(&actx->principal.scopes,
                                                &scope[k]))
                {
                    actx->reason = NGX_HTTP_AI_AUTH_SCOPE;
                    actx->text = scope[k];
                    actx->rule = scope[k];

                    return NGX_DECLINED;
                }
            }
        }
    }

    aamcf = ngx_http_get_module_main_conf(r, ngx_http_ai_auth_module);

    if (ctx == NULL || !aamcf->api->enabled(r)) {
        return NGX_OK;
    }

    if (ngx_http_ai_auth_endpoint(actx, ctx->op,
                                  &ngx_http_ai_auth_endpoints[ctx->op][0])
        || (ngx_http_ai_auth_endpoints[ctx->op][1].len
            && ngx_http_ai_auth_endpoint(actx, ctx->op,
                                    &ngx_http_ai_auth_endpoints[ctx->op][1])))
    {
        return NGX_OK;
    }

    actx->reason = NGX_HTTP_AI_AUTH_ENDPOINT;
    actx->text = ngx_http_ai_auth_endpoints[ctx->op][0];
    ngx_str_set(&actx->rule, "endpoints");

    return NGX_DECLINED;
}


static ngx_uint_t
ngx_http_ai_auth_endpoint(ngx_http_ai_auth_ctx_t *actx, ngx_http_ai_op_e op,
    ngx_str_t *name)
{
    ngx_http_ai_principal_t  *pr;

    pr = &actx->principal;

    if (pr->endpoints.data
        && !ngx_http_ai_auth_list_match(&pr->endpoints, name, 0, NULL))
    {
        return 0;
    }

    if (actx->endpoint_scopes
        && !ngx_http_ai_auth_scope_match(&pr->scopes,
                                         &ngx_http_ai_auth_kind_endpoint,
                                         name))
    {
        return 0;
    }

    if (op != NGX_HTTP_AI_OP_PASS || !ngx_http_ai_auth_restricted(actx)) {
        return 1;
    }

    /*
     * The model of another path's request is not looked at, so who is not
     * allowed every model needs to be allowed such paths.
     */

    return pr->endpoints.data != NULL || actx->endpoint_scopes;
}


static ngx_uint_t
ngx_http_ai_auth_restricted(ngx_http_ai_auth_ctx_t *actx)
{
    return actx->principal.models.data != NULL
           || actx->principal.deny.len
           || actx->model_scopes;
}


ngx_int_t
ngx_http_ai_auth_permit(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_route_t *route, ngx_http_ai_error_t *err)
{
    ngx_int_t                     rc;
    ngx_http_ai_auth_ctx_t       *actx;
    ngx_http_ai_auth_loc_conf_t  *aalcf;

    actx = ngx_http_ai_auth_get_ctx(r);
    aalcf = ngx_http_get_module_loc_conf(r->main, ngx_http_ai_auth_module);

    if (actx && actx->known) {
        rc = ngx_http_ai_auth_route(ctx, actx, route);

    } else if (aalcf->kinds == 0 || aalcf->kinds == NGX_HTTP_AI_AUTH_OFF
               || (actx && actx->anonymous))
    {
        return NGX_OK;

    } else {
        /* nobody may come here without an identity */
        return NGX_ERROR;
    }

    if (rc == NGX_OK || err == NULL) {
        return rc;
    }

    actx->denied = 1;

    return (ngx_http_ai_auth_error(r, actx, err) == NGX_OK) ? NGX_DECLINED
                                                            : NGX_ERROR;
}


static ngx_int_t
ngx_http_ai_auth_route(ngx_http_ai_ctx_t *ctx, ngx_http_ai_auth_ctx_t *actx,
    ngx_http_ai_route_t *route)
{
    u_char                   *p, pair[NGX_HTTP_AI_AUTH_PAIR];
    ngx_str_t                 name, names[3];
    ngx_uint_t                i, n, direct;
    ngx_http_ai_principal_t  *pr;

    pr = &actx->principal;

    if (ctx->op == NGX_HTTP_AI_OP_PASS && ngx_http_ai_auth_restricted(actx)) {

        /* a list of models that a provider answers comes here too */

        n = NGX_HTTP_AI_OP_PASS;

        if (!ngx_http_ai_auth_endpoint(actx, n,
                                       &ngx_http_ai_auth_endpoints[n][0])
            && !ngx_http_ai_auth_endpoint(actx, n,
                                          &ngx_http_ai_auth_endpoints[n][1]))
        {
            actx->reason = NGX_HTTP_AI_AUTH_ENDPOINT;
            actx->text = ngx_http_ai_auth_endpoints[n][0];
            ngx_str_set(&actx->rule, "endpoints");

            return NGX_DECLINED;
        }
    }

    if (route->provider.len
        && (pr->providers.data || actx->provider_scopes)
        && !ngx_http_ai_auth_allowed(&pr->providers,
                                     actx->provider_scopes ? &pr->scopes
                                                           : NULL,
                                     &ngx_http_ai_auth_kind_provider,
                                     &route->provider, 1))
    {
        actx->reason = NGX_HTTP_AI_AUTH_PROVIDER;
        ngx_str_set(&actx->rule, "providers");

        return NGX_DECLINED;
    }

    if (ctx->op == NGX_HTTP_AI_OP_PASS || !ngx_http_ai_auth_restricted(actx)) {
        return NGX_OK;
    }

    n = 0;
    names[n++] = route->model;

    if (route->provider.len) {
        names[n++] = route->upstream;

        if (route->provider.len + 1 + route->upstream.len > sizeof(pair)) {
            actx->reason = NGX_HTTP_AI_AUTH_MODEL;
            ngx_str_set(&actx->rule, "length");

            return NGX_DECLINED;
        }

        p = ngx_cpymem(pair, route->provider.data, route->provider.len);
        *p++ = '/';
        p = ngx_cpymem(p, route->upstream.data, route->upstream.len);

        names[n].data = pair;
        names[n++].len = p - pair;
    }

    for (i = 0; pr->deny.len && i < n; i++) {
        name = ngx_http_ai_auth_trim(&names[i]);

        if (ngx_http_ai_auth_list_match(&pr->deny, &name, 1, &actx->rule)) {
            actx->reason = NGX_HTTP_AI_AUTH_MODEL;
            return NGX_DECLINED;
        }
    }

    if (pr->models.data == NULL && !actx->model_scopes) {
        return NGX_OK;
    }

    /* a name that the client chose and no ai_model of the configuration */

    direct = (route->model.data == ctx->request_model.data);

    if (direct && route->provider.len == 0) {
        /* its provider decides */
        return NGX_OK;
    }

    if (direct) {
        names[1] = names[2];
    }

    if (ngx_http_ai_auth_allowed(&pr->models,
                                 actx->model_scopes ? &pr->scopes : NULL,
                                 &ngx_http_ai_auth_kind_model, names,
                                 direct ? 2 : 1))
    {
        return NGX_OK;
    }

    actx->reason = NGX_HTTP_AI_AUTH_MODEL;
    ngx_str_set(&actx->rule, "models");

    return NGX_DECLINED;
}


/* by the list and by the scopes, of which either may be absent */

static ngx_uint_t
ngx_http_ai_auth_allowed(ngx_str_t *list, ngx_str_t *scopes, ngx_str_t *kind,
    ngx_str_t *names, ngx_uint_t n)
{
    ngx_uint_t  i;

    for (i = 0; list->data && i < n; i++) {
        if (ngx_http_ai_auth_list_match(list, &names[i], 0, NULL)) {
            break;
        }
    }

    if (list->data && i == n) {
        return 0;
    }

    if (scopes == NULL) {
        return 1;
    }

    for (i = 0; i < n; i++) {
        if (ngx_http_ai_auth_scope_match(scopes, kind, &names[i])) {
            return 1;
        }
    }

    return 0;
}


/* items have a NUL at their end */

static ngx_uint_t
ngx_http_ai_auth_list_match(ngx_str_t *list, ngx_str_t *name,
    ngx_uint_t nocase, ngx_str_t *rule)
{
    u_char     *p, *last, *end;
    ngx_str_t   item;

    p = list->data;
    last = p + list->len;

    for ( /* void */ ; p < last; p = end + 1) {

        end = ngx_strlchr(p, last, '\0');
        if (end == NULL) {
            end = last;
        }

        item.data = p;
        item.len = end - p;

        if (item.len && ngx_http_ai_auth_match(&item, name, nocase)) {

            if (rule) {
                *rule = item;
            }

            return 1;
        }
    }

    return 0;
}


static ngx_uint_t
ngx_http_ai_auth_scope_match(ngx_str_t *scopes, ngx_str_t *kind,
    ngx_str_t *name)
{
    u_char     *p, *last, *end;
    ngx_str_t   item;

    p = scopes->data;
    last = p + scopes->len;

    for ( /* void */ ; p < last; p = end + 1) {

        end = ngx_strlchr(p, last, ' ');
        if (end == NULL) {
            end = last;
        }

        if ((size_t) (end - p) <= kind->len
            || ngx_strncmp(p, kind->data, kind->len) != 0)
        {
            continue;
        }

        item.data = p + kind->len;
        item.len = end - item.data;

        if (ngx_http_ai_auth_match(&item, name, 0)) {
            return 1;
        }
    }

    return 0;
}


ngx_uint_t
ngx_http_ai_auth_has_scope(ngx_str_t *scopes, ngx_str_t *scope)
{
    u_char  *p, *last, *end;

    p = scopes->data;
    last = p + scopes->len;

    for ( /* void */ ; p < last; p = end + 1) {

        end = ngx_strlchr(p, last, ' ');
        if (end == NULL) {
            end = last;
        }

        if ((size_t) (end - p) == scope->len
            && ngx_memcmp(p, scope->data, scope->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


/* after a mismatch only the last "*" takes one character more: no more than
 * the product of both lengths in steps */

ngx_uint_t
ngx_http_ai_auth_match(ngx_str_t *pattern, ngx_str_t *text, ngx_uint_t nocase)
{
    u_char  *p, *t, *plast, *tlast, *star, *mark;

    p = pattern->data;
    t = text->data;
    plast = p + pattern->len;
    tlast = t + text->len;
    star = NULL;
    mark = NULL;

    while (t < tlast) {

        if (p < plast && *p == '*') {
            star = ++p;
            mark = t;
            continue;
        }

        if (p < plast
            && (*p == *t || (nocase && ngx_tolower(*p) == ngx_tolower(*t))))
        {
            p++;
            t++;
            continue;
        }

        if (star == NULL) {
            return 0;
        }

        p = star;
        t = ++mark;
    }

    while (p < plast && *p == '*') {
        p++;
    }

    return p == plast;
}


static ngx_str_t
ngx_http_ai_auth_trim(ngx_str_t *text)
{
    ngx_str_t  s;

    s = *text;

    while (s.len && s.data[0] == ' ') {
        s.data++;
        s.len--;
    }

    while (s.len && s.data[s.len - 1] == ' ') {
        s.len--;
    }

    return s;
}


/* as in nginx, an empty string and "0" mean no */

ngx_int_t
ngx_http_ai_auth_deny(ngx_http_request_t *r,
    ngx_http_ai_auth_loc_conf_t *aalcf, ngx_http_ai_auth_ctx_t **actx,
    ngx_uint_t *status)
{
    ngx_str_t                 value;
    ngx_uint_t                i;
    ngx_http_ai_auth_deny_t  *deny;

    deny = aalcf->deny->elts;

    for (i = 0; i < aalcf->deny->nelts; i++) {

        if (ngx_http_complex_value(r, &deny[i].value, &value) != NGX_OK) {
            return NGX_ERROR;
        }

        if (value.len == 0 || (value.len == 1 && value.data[0] == '0')) {
            continue;
        }

        *actx = ngx_http_ai_auth_create_ctx(r);
        if (*actx == NULL) {
            return NGX_ERROR;
        }

        (*actx)->refused = 1;
        (*actx)->reason = NGX_HTTP_AI_AUTH_POLICY;
        (*actx)->text = value;
        ngx_str_set(&(*actx)->rule, "ai_deny");

        *status = deny[i].status;

        return NGX_DECLINED;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_auth_authorize(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    ngx_int_t                      rc;
    ngx_uint_t                     status;
    ngx_http_ai_error_t            err;
    ngx_http_ai_auth_ctx_t        *actx;
    ngx_http_ai_auth_loc_conf_t   *aalcf;
    ngx_http_ai_auth_main_conf_t  *aamcf;

    aalcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_auth_module);

    if (aalcf->kinds && aalcf->kinds != NGX_HTTP_AI_AUTH_OFF) {
        actx = ngx_http_ai_auth_get_ctx(r);

        if (actx == NULL || actx->conf != aalcf
            || (!actx->anonymous && (!actx->known || ctx->principal == NULL)))
        {
            ngx_log_error(NGX_LOG_ALERT, r->connection->log, 0,
                          "ai auth: a request without an identity");
            return NGX_ERROR;
        }
    }

    if (aalcf->deny == NULL) {
        return NGX_OK;
    }

    rc = ngx_http_ai_auth_deny(r, aalcf, &actx, &status);

    if (rc != NGX_DECLINED) {
        return rc;
    }

    ngx_http_ai_auth_log_refusal(r, actx);

    ngx_memzero(&err, sizeof(ngx_http_ai_error_t));

    err.status = status;
    err.message = actx->text;

    switch (status) {

    case NGX_HTTP_UNAUTHORIZED:
        err.class = NGX_HTTP_AI_ERR_AUTH;
        break;

    case 402:
        err.class = NGX_HTTP_AI_ERR_BILLING;
        break;

    case NGX_HTTP_FORBIDDEN:
        err.class = NGX_HTTP_AI_ERR_PERMISSION;
        break;

    case NGX_HTTP_NOT_FOUND:
        err.class = NGX_HTTP_AI_ERR_NOT_FOUND;
        break;

    case NGX_HTTP_REQUEST_ENTITY_TOO_LARGE:
        err.class = NGX_HTTP_AI_ERR_TOO_LARGE;
        break;

    case NGX_HTTP_TOO_MANY_REQUESTS:
        err.class = NGX_HTTP_AI_ERR_RATE_LIMIT;
        break;

    case NGX_HTTP_SERVICE_UNAVAILABLE:
        err.class = NGX_HTTP_AI_ERR_OVERLOADED;
        break;

    default:
        err.class = NGX_HTTP_AI_ERR_INVALID_REQUEST;
    }

    aamcf = ngx_http_get_module_main_conf(r, ngx_http_ai_auth_module);

    ctx->rc = aamcf->api->send_error(r, ctx, &err, -1, 0);

    return NGX_DONE;
}


ngx_uint_t
ngx_http_ai_auth_denied(ngx_http_request_t *r, ngx_http_ai_auth_ctx_t *actx)
{
    ngx_http_ai_ctx_t             *ctx;
    ngx_http_ai_auth_main_conf_t  *aamcf;

    if (!actx->denied) {
        return 0;
    }

    aamcf = ngx_http_get_module_main_conf(r, ngx_http_ai_auth_module);
    ctx = aamcf->api->get_ctx(r);

    /* a fallback that may not be used is no refusal of the request */

    return ctx && ctx->error == NGX_HTTP_AI_ERR_PERMISSION
           && ctx->attempts == 0;
}
