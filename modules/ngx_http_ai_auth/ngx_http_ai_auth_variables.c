
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_auth.h"
#include "ngx_http_ai_conf.h"


#define NGX_HTTP_AI_AUTH_META_PREFIX  (sizeof("ai_key_meta_") - 1)
#define NGX_HTTP_AI_AUTH_META_NODES   32


static ngx_int_t ngx_http_ai_auth_str_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_ai_auth_meta_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_uint_t ngx_http_ai_auth_meta_is(ngx_str_t *member, u_char *name,
    size_t len);
static ngx_int_t ngx_http_ai_auth_kind_name(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_ai_auth_reason_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_ai_auth_safe_value(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_str_t *text);


static ngx_http_variable_t  ngx_http_ai_auth_vars[] = {

    { ngx_string("ai_key_id"), NULL, ngx_http_ai_auth_str_variable,
      offsetof(ngx_http_ai_principal_t, key_id), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_tenant"), NULL, ngx_http_ai_auth_str_variable,
      offsetof(ngx_http_ai_principal_t, tenant), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_user"), NULL, ngx_http_ai_auth_str_variable,
      offsetof(ngx_http_ai_principal_t, user), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_team"), NULL, ngx_http_ai_auth_str_variable,
      offsetof(ngx_http_ai_principal_t, team), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_plan"), NULL, ngx_http_ai_auth_str_variable,
      offsetof(ngx_http_ai_principal_t, plan), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_key_plan"), NULL, ngx_http_ai_auth_str_variable,
      offsetof(ngx_http_ai_principal_t, plan), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_scopes"), NULL, ngx_http_ai_auth_str_variable,
      offsetof(ngx_http_ai_principal_t, scopes), NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_key_meta_"), NULL, ngx_http_ai_auth_meta_variable,
      0, NGX_HTTP_VAR_NOCACHEABLE|NGX_HTTP_VAR_PREFIX, 0 },

    { ngx_string("ai_auth"), NULL, ngx_http_ai_auth_kind_name,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("ai_deny_reason"), NULL, ngx_http_ai_auth_reason_variable,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


static ngx_int_t
ngx_http_ai_auth_str_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t               *s;
    ngx_http_ai_auth_ctx_t  *actx;

    actx = ngx_http_ai_auth_get_ctx(r);

    if (actx == NULL || !actx->known) {
        v->not_found = 1;
        return NGX_OK;
    }

    s = (ngx_str_t *) ((char *) &actx->principal + data);

    if (s->len == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->data = s->data;
    v->len = s->len;

    return NGX_OK;
}


/* $ai_key_meta_cost_center is the member "cost_center", "Cost-Center", ... */

static ngx_int_t
ngx_http_ai_auth_meta_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t *var = (ngx_str_t *) data;

    u_char                   *name;
    size_t                    len;
    ngx_str_t                 raw, text;
    ngx_uint_t                i, found;
    ngx_http_ai_json_t        j;
    ngx_http_ai_auth_ctx_t   *actx;
    ngx_http_ai_json_node_t   nodes[NGX_HTTP_AI_AUTH_META_NODES];

    v->not_found = 1;

    actx = ngx_http_ai_auth_get_ctx(r);

    if (actx == NULL || !actx->known || actx->principal.metadata.len == 0) {
        return NGX_OK;
    }

    name = var->data + NGX_HTTP_AI_AUTH_META_PREFIX;
    len = var->len - NGX_HTTP_AI_AUTH_META_PREFIX;

    ngx_memzero(&j, sizeof(ngx_http_ai_json_t));
    j.pool = r->pool;
    j.nodes = nodes;
    j.nalloc = NGX_HTTP_AI_AUTH_META_NODES;
    j.shallow = 1;

    if (ngx_http_ai_json_parse(&j, actx->principal.metadata.data,
                               actx->principal.metadata.len)
        != NGX_OK)
    {
        return NGX_OK;
    }

    found = NGX_HTTP_AI_JSON_NONE;

    for (i = ngx_http_ai_json_first(&j, 0);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(&j, 0, i))
    {
        raw = ngx_http_ai_json_raw(&j, i);

        if (ngx_http_ai_json_unescape_str(r->pool, &raw, &text) != NGX_OK) {
            return NGX_ERROR;
        }

        if (ngx_http_ai_auth_meta_is(&text, name, len)) {
            found = i + 1;
            break;
        }
    }

    if (ngx_http_ai_json_type(&j, found) == NGX_HTTP_AI_JSON_NULL) {
        return NGX_OK;
    }

    raw = ngx_http_ai_json_raw(&j, found);
    text = raw;

    if (ngx_http_ai_json_type(&j, found) == NGX_HTTP_AI_JSON_STRING
        && ngx_http_ai_json_unescape_str(r->pool, &raw, &text) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_ai_auth_safe_value(r, v, &text);
}


static ngx_uint_t
ngx_http_ai_auth_meta_is(ngx_str_t *member, u_char *name, size_t len)
{
    u_char  ch;
    size_t  i;

    if (member->len != len) {
        return 0;
    }

    for (i = 0; i < len; i++) {
        ch = ngx_tolower(member->data[i]);

        if ((ch < 'a' || ch > 'z') && (ch < '0' || ch > '9')) {
            ch = '_';
        }

        if (ch != name[i]) {
            return 0;
        }
    }

    return 1;
}


static ngx_int_t
ngx_http_ai_auth_kind_name(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    char                         *name;
    ngx_http_ai_auth_ctx_t       *actx;
    ngx_http_ai_auth_loc_conf_t  *aalcf;

    r = r->main;

    actx = ngx_http_ai_auth_get_ctx(r);
    aalcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_auth_module);

    if (actx && actx->known) {

        switch (actx->kind) {

        case NGX_HTTP_AI_AUTH_KEY:
            name = "key";
            break;

        case NGX_HTTP_AI_AUTH_JWT:
            name = "jwt";
            break;

        default: /* NGX_HTTP_AI_AUTH_VARIABLE */
            name = "variable";
        }

    } else if (aalcf->kinds == 0 || aalcf->kinds == NGX_HTTP_AI_AUTH_OFF) {
        name = "off";

    } else {
        name = "none";
    }

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->data = (u_char *) name;
    v->len = ngx_strlen(name);

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_auth_reason_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t               *name;
    ngx_http_ai_auth_ctx_t  *actx;

    actx = ngx_http_ai_auth_get_ctx(r);

    if (actx == NULL || actx->anonymous
        || actx->reason == NGX_HTTP_AI_AUTH_OK
        || (actx->denied && !actx->refused
            && !ngx_http_ai_auth_denied(r, actx)))
    {
        v->not_found = 1;
        return NGX_OK;
    }

    if (actx->reason == NGX_HTTP_AI_AUTH_POLICY) {
        return ngx_http_ai_auth_safe_value(r, v, &actx->text);
    }

    name = ngx_http_ai_auth_reason_name(actx->reason);

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->data = name->data;
    v->len = name->len;

    return NGX_OK;
}


/* it may become part of a header */

static ngx_int_t
ngx_http_ai_auth_safe_value(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_str_t *text)
{
    u_char  *p;
    size_t   i;

    p = ngx_pnalloc(r->pool, text->len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->data = p;

    for (i = 0; i < text->len; i++) {
        if (text->data[i] >= 0x20 && text->data[i] != 0x7f) {
            *p++ = text->data[i];
        }
    }

    v->len = p - v->data;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_auth_add_variables(ngx_conf_t *cf)
{
    return ngx_http_ai_conf_variables(cf, ngx_http_ai_auth_vars);
}
