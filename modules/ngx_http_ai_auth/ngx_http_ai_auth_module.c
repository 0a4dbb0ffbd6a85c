
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_auth.h"
#include "ngx_http_ai_auth_record.h"
#include "ngx_http_ai_conf.h"


#define NGX_HTTP_AI_AUTH_REALM       "AI gateway"
#define NGX_HTTP_AI_AUTH_SECRET_MIN  16
#define NGX_HTTP_AI_AUTH_LOG_RATE    20


static ngx_int_t ngx_http_ai_auth_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_ai_auth_postconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_ai_auth_resolve(ngx_conf_t *cf,
    ngx_http_ai_auth_main_conf_t *aamcf);
static ngx_int_t ngx_http_ai_auth_add_handler(ngx_conf_t *cf,
    ngx_http_phases phase, ngx_http_handler_pt handler);
static void *ngx_http_ai_auth_create_main_conf(ngx_conf_t *cf);
static char *ngx_http_ai_auth_init_main_conf(ngx_conf_t *cf, void *conf);
static void *ngx_http_ai_auth_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_ai_auth_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_ai_auth_join(ngx_conf_t *cf, ngx_array_t *prev,
    ngx_array_t **conf);
static ngx_int_t ngx_http_ai_auth_init_process(ngx_cycle_t *cycle);
static char *ngx_http_ai_auth_auth(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_ai_auth_kind_jwt(ngx_conf_t *cf,
    ngx_http_ai_auth_loc_conf_t *aalcf, ngx_str_t *name);
static char *ngx_http_ai_auth_kind_variable(ngx_conf_t *cf,
    ngx_http_ai_auth_loc_conf_t *aalcf, ngx_str_t *text);
static char *ngx_http_ai_auth_realm(ngx_conf_t *cf,
    ngx_http_ai_auth_loc_conf_t *aalcf, ngx_str_t *realm);
static char *ngx_http_ai_auth_key_secret(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_ai_auth_log_directive(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
static char *ngx_http_ai_auth_require(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_ai_auth_deny_directive(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);


static ngx_conf_num_bounds_t  ngx_http_ai_auth_cache_bounds = {
    ngx_conf_check_num_bounds, 0, 1000000
};


static ngx_command_t  ngx_http_ai_auth_commands[] = {

    { ngx_string("ai_auth"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_ai_auth_auth,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_require"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_ai_auth_require,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_deny"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE12,
      ngx_http_ai_auth_deny_directive,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_key_secret"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_ai_auth_key_secret,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_auth_log"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_ai_auth_log_directive,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_jwt_issuer"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE1,
      ngx_http_ai_auth_issuer_block,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_jwt_cache"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_HTTP_MAIN_CONF_OFFSET,
      offsetof(ngx_http_ai_auth_main_conf_t, jwt_cache),
      &ngx_http_ai_auth_cache_bounds },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_ai_auth_module_ctx = {
    ngx_http_ai_auth_preconfiguration,     /* preconfiguration */
    ngx_http_ai_auth_postconfiguration,    /* postconfiguration */

    ngx_http_ai_auth_create_main_conf,     /* create main configuration */
    ngx_http_ai_auth_init_main_conf,       /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_ai_auth_create_loc_conf,      /* create location configuration */
    ngx_http_ai_auth_merge_loc_conf        /* merge location configuration */
};


ngx_module_t  ngx_http_ai_auth_module = {
    NGX_MODULE_V1,
    &ngx_http_ai_auth_module_ctx,          /* module context */
    ngx_http_ai_auth_commands,             /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_ai_auth_init_process,         /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_http_ai_auth_preconfiguration(ngx_conf_t *cf)
{
    ngx_http_ai_auth_main_conf_t  *aamcf;

    aamcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_auth_module);

    aamcf->api = ngx_http_ai_core_api(cf, "ngx_http_ai_auth_module");
    if (aamcf->api == NULL) {
        return NGX_ERROR;
    }

    return ngx_http_ai_auth_add_variables(cf);
}


static ngx_int_t
ngx_http_ai_auth_postconfiguration(ngx_conf_t *cf)
{
    const ngx_http_ai_api_t       *api;
    ngx_http_ai_auth_main_conf_t  *aamcf;

    aamcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_auth_module);
    api = aamcf->api;

    if (ngx_http_ai_auth_resolve(cf, aamcf) != NGX_OK) {
        return NGX_ERROR;
    }

    if (aamcf->pepper.len && !aamcf->used_keys) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "\"ai_key_secret\" has no effect without \"ai_auth "
                      "key\"");
    }

    if (ngx_http_ai_auth_keys_init(cf, aamcf) != NGX_OK
        || ngx_http_ai_auth_issuers_init(cf, aamcf) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (!aamcf->used) {
        return NGX_OK;
    }

    /*
     * Of each phase the handlers run in the reverse of the order in which
     * modules were added: in the precontent phase this one is called before
     * the core's, which reads the body.
     */

    if (ngx_http_ai_auth_add_handler(cf, NGX_HTTP_REWRITE_PHASE,
                                     ngx_http_ai_auth_rewrite_handler)
        != NGX_OK
        || ngx_http_ai_auth_add_handler(cf, NGX_HTTP_ACCESS_PHASE,
                                        ngx_http_ai_auth_handler)
           != NGX_OK
        || ngx_http_ai_auth_add_handler(cf, NGX_HTTP_PRECONTENT_PHASE,
                                        ngx_http_ai_auth_precontent_handler)
           != NGX_OK
        || ngx_http_ai_auth_add_handler(cf, NGX_HTTP_LOG_PHASE,
                                        ngx_http_ai_auth_log_handler)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_http_ai_auth_samples_init(cf, aamcf) != NGX_OK
        || api->add_permit(cf, ngx_http_ai_auth_permit) != NGX_OK
        || api->add_hook(cf, NGX_HTTP_AI_STAGE_AUTHORIZE,
                         ngx_http_ai_auth_authorize)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* what directives refer to, once all of http{} was read */

static ngx_int_t
ngx_http_ai_auth_resolve(ngx_conf_t *cf, ngx_http_ai_auth_main_conf_t *aamcf)
{
    ngx_str_t                       text, *names;
    ngx_uint_t                      i, k, n;
    ngx_http_ai_auth_require_t    **require;
    ngx_http_ai_auth_loc_conf_t   **aalcf;
    ngx_http_ai_auth_issuer_ref_t  *ref;

    aalcf = aamcf->locations.elts;

    for (i = 0; i < aamcf->locations.nelts; i++) {

        if ((aalcf[i]->kinds
             & (NGX_HTTP_AI_AUTH_KEY|NGX_HTTP_AI_AUTH_VARIABLE))
            && !aamcf->api->data_enabled(cf))
        {
            (void) ngx_http_ai_conf_error(cf, aalcf[i]->file, aalcf[i]->line,
                                          "\"ai_auth\" with \"key\" or "
                                          "\"variable=\" needs \"ai_data "
                                          "DIRECTORY;\", the directory of "
                                          "keys.json");
            return NGX_ERROR;
        }

        if (aalcf[i]->issuers == NULL) {
            continue;
        }

        ref = aalcf[i]->issuers->elts;

        for (k = 0; k < aalcf[i]->issuers->nelts; k++) {

            ref[k].issuer = ngx_http_ai_auth_issuer_find(aamcf, &ref[k].name);

            if (ref[k].issuer) {
                continue;
            }

            names = ngx_http_ai_auth_issuer_names(cf->temp_pool, aamcf, &n);
            if (names == NULL) {
                return NGX_ERROR;
            }

            text = ngx_http_ai_near_text(cf->temp_pool, &ref[k].name, names,
                                         n);

            (void) ngx_http_ai_conf_error(cf, aalcf[i]->file, aalcf[i]->line,
                                          "\"ai_auth jwt=%V\": no "
                                          "\"ai_jwt_issuer %V\"%V",
                                          &ref[k].name, &ref[k].name, &text);
            return NGX_ERROR;
        }
    }

    require = aamcf->requires.elts;

    for (i = 0; i < aamcf->requires.nelts; i++) {

        if (require[i]->used) {
            continue;
        }

        (void) ngx_http_ai_conf_error(cf, require[i]->file, require[i]->line,
                                      "\"ai_require\" has no effect: there is "
                                      "no \"ai_auth\" where it applies");
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_auth_add_handler(ngx_conf_t *cf, ngx_http_phases phase,
    ngx_http_handler_pt handler)
{
    ngx_http_handler_pt        *h;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[phase].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = handler;

    return NGX_OK;
}


static void *
ngx_http_ai_auth_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_ai_auth_main_conf_t  *aamcf;

    aamcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_auth_main_conf_t));
    if (aamcf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     aamcf->keys = NULL;
     *     aamcf->revoked = NULL;
     *     aamcf->pepper = { 0, NULL };
     *     aamcf->claims = { NULL };
     *     aamcf->used = 0;
     *     aamcf->used_keys = 0;
     */

    aamcf->jwt_cache = NGX_CONF_UNSET;
    aamcf->log_rate = NGX_CONF_UNSET_UINT;

    if (ngx_array_init(&aamcf->issuers, cf->pool, 2,
                       sizeof(ngx_http_ai_auth_issuer_t *))
        != NGX_OK
        || ngx_array_init(&aamcf->locations, cf->pool, 4,
                          sizeof(ngx_http_ai_auth_loc_conf_t *))
           != NGX_OK
        || ngx_array_init(&aamcf->requires, cf->pool, 2,
                          sizeof(ngx_http_ai_auth_require_t *))
           != NGX_OK)
    {
        return NULL;
    }

    return aamcf;
}


static char *
ngx_http_ai_auth_init_main_conf(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_auth_main_conf_t *aamcf = conf;

    ngx_conf_init_value(aamcf->jwt_cache, 4096);
    ngx_conf_init_uint_value(aamcf->log_rate, NGX_HTTP_AI_AUTH_LOG_RATE);

    return NGX_CONF_OK;
}


static void *
ngx_http_ai_auth_create_loc_conf(ngx_conf_t *cf)
{
    /*
     * set by ngx_pcalloc():
     *
     *     aalcf->kinds = 0;
     *     aalcf->issuers = NULL;
     *     aalcf->variables = NULL;
     *     aalcf->challenge = { 0, NULL };
     *     aalcf->require = NULL;
     *     aalcf->deny = NULL;
     */

    return ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_auth_loc_conf_t));
}


static char *
ngx_http_ai_auth_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_ai_auth_loc_conf_t *prev = parent;
    ngx_http_ai_auth_loc_conf_t *conf = child;

    ngx_uint_t                    i;
    ngx_http_core_loc_conf_t     *clcf;
    ngx_http_ai_auth_require_t  **require;

    if (conf->kinds == 0) {
        conf->kinds = prev->kinds;
        conf->issuers = prev->issuers;
        conf->variables = prev->variables;
        conf->challenge = prev->challenge;
        conf->remote_user = prev->remote_user;
        conf->file = prev->file;
        conf->line = prev->line;
    }

    if (ngx_http_ai_auth_join(cf, prev->require, &conf->require) != NGX_OK
        || ngx_http_ai_auth_join(cf, prev->deny, &conf->deny) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (conf->remote_user && clcf->satisfy == NGX_HTTP_SATISFY_ANY) {
        return ngx_http_ai_conf_error(cf, conf->file, conf->line,
                                      "\"ai_auth variable=\" with "
                                      "$remote_user does not work with "
                                      "\"satisfy any\": whom another module "
                                      "lets in has not shown a password");
    }

    if (conf->require == NULL) {
        return NGX_CONF_OK;
    }

    require = conf->require->elts;

    if (conf->kinds == 0 && (clcf->name.len || clcf->noname)) {

        /* server{} may leave it to its locations */

        i = conf->require->nelts - 1;

        return ngx_http_ai_conf_error(cf, require[i]->file, require[i]->line,
                                      "\"ai_require\" applies to location "
                                      "\"%V\", which has no \"ai_auth\", add "
                                      "one or \"ai_auth off\"", &clcf->name);
    }

    if (conf->kinds && conf->kinds != NGX_HTTP_AI_AUTH_OFF) {
        for (i = 0; i < conf->require->nelts; i++) {
            require[i]->used = 1;
        }
    }

    return NGX_CONF_OK;
}


/* the outer level's first: rules accumulate downwards */

static ngx_int_t
ngx_http_ai_auth_join(ngx_conf_t *cf, ngx_array_t *prev, ngx_array_t **conf)
{
    u_char       *p;
    ngx_array_t  *a;

    if (prev == NULL) {
        return NGX_OK;
    }

    if (*conf == NULL) {
        *conf = prev;
        return NGX_OK;
    }

    a = ngx_array_create(cf->pool, prev->nelts + (*conf)->nelts, prev->size);
    if (a == NULL) {
        return NGX_ERROR;
    }

    p = ngx_array_push_n(a, prev->nelts + (*conf)->nelts);
    if (p == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(p, prev->elts, prev->nelts * prev->size);
    ngx_memcpy(p, (*conf)->elts, (*conf)->nelts * prev->size);

    *conf = a;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_auth_init_process(ngx_cycle_t *cycle)
{
    ngx_http_ai_auth_main_conf_t  *aamcf;

    if (ngx_process != NGX_PROCESS_WORKER
        && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    aamcf = ngx_http_cycle_get_module_main_conf(cycle,
                                                ngx_http_ai_auth_module);
    if (aamcf == NULL) {
        return NGX_OK;
    }

    ngx_http_ai_auth_recent_reset();

    return ngx_http_ai_auth_issuers_start(cycle, aamcf);
}


static char *
ngx_http_ai_auth_auth(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_auth_loc_conf_t *aalcf = conf;

    char                           *rv;
    ngx_str_t                      *value, arg, text;
    ngx_uint_t                      i;
    ngx_http_ai_auth_loc_conf_t   **loc;
    ngx_http_ai_auth_main_conf_t   *aamcf;

    static ngx_str_t  names[] = {
        ngx_string("off"),
        ngx_string("key"),
        ngx_string("jwt="),
        ngx_string("variable="),
        ngx_string("realm=")
    };

    if (aalcf->kinds) {
        return "is duplicate";
    }

    aamcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_auth_module);

    aalcf->file = cf->conf_file->file.name.data;
    aalcf->line = cf->conf_file->line;

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strcmp(value[i].data, "off") == 0) {

            if (cf->args->nelts != 2) {
                return "has \"off\" and something else";
            }

            aalcf->kinds = NGX_HTTP_AI_AUTH_OFF;
            return NGX_CONF_OK;
        }

        if (ngx_strcmp(value[i].data, "key") == 0) {

            if (aalcf->kinds & NGX_HTTP_AI_AUTH_KEY) {
                return "has \"key\" twice";
            }

            aalcf->kinds |= NGX_HTTP_AI_AUTH_KEY;
            continue;
        }

        if (ngx_http_ai_conf_arg(&value[i], "jwt", &arg)) {
            rv = ngx_http_ai_auth_kind_jwt(cf, aalcf, &arg);

        } else if (ngx_http_ai_conf_arg(&value[i], "variable", &arg)) {
            rv = ngx_http_ai_auth_kind_variable(cf, aalcf, &arg);

        } else if (ngx_http_ai_conf_arg(&value[i], "realm", &arg)) {
            rv = ngx_http_ai_auth_realm(cf, aalcf, &arg);

        } else {
            text = ngx_http_ai_near_text(cf->temp_pool, &value[i], names,
                                         sizeof(names) / sizeof(ngx_str_t));

            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\" of \"ai_auth\"%V",
                               &value[i], &text);
            return NGX_CONF_ERROR;
        }

        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    if (aalcf->kinds == 0) {
        return "needs \"key\", \"jwt=\", \"variable=\" or \"off\"";
    }

    if (aalcf->challenge.data == NULL) {
        ngx_str_set(&text, NGX_HTTP_AI_AUTH_REALM);

        rv = ngx_http_ai_auth_realm(cf, aalcf, &text);
        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    loc = ngx_array_push(&aamcf->locations);
    if (loc == NULL) {
        return NGX_CONF_ERROR;
    }

    *loc = aalcf;

    aamcf->used = 1;

    if (aalcf->kinds & (NGX_HTTP_AI_AUTH_KEY|NGX_HTTP_AI_AUTH_VARIABLE)) {
        aamcf->used_keys = 1;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_auth_kind_jwt(ngx_conf_t *cf, ngx_http_ai_auth_loc_conf_t *aalcf,
    ngx_str_t *name)
{
    ngx_uint_t                      i;
    ngx_http_ai_auth_issuer_ref_t  *ref;

    if (name->len == 0) {
        return "expects the name of an \"ai_jwt_issuer\" after \"jwt=\"";
    }

    if (aalcf->issuers == NULL) {
        aalcf->issuers = ngx_array_create(cf->pool, 2,
                                       sizeof(ngx_http_ai_auth_issuer_ref_t));
        if (aalcf->issuers == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    ref = aalcf->issuers->elts;

    for (i = 0; i < aalcf->issuers->nelts; i++) {
        if (ref[i].name.len == name->len
            && ngx_strncmp(ref[i].name.data, name->data, name->len) == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"ai_auth\" has \"jwt=%V\" twice", name);
            return NGX_CONF_ERROR;
        }
    }

    ref = ngx_array_push(aalcf->issuers);
    if (ref == NULL) {
        return NGX_CONF_ERROR;
    }

    ref->name = *name;
    ref->issuer = NULL;

    aalcf->kinds |= NGX_HTTP_AI_AUTH_JWT;

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_auth_kind_variable(ngx_conf_t *cf,
    ngx_http_ai_auth_loc_conf_t *aalcf, ngx_str_t *text)
{
    ngx_http_complex_value_t          *cv;
    ngx_http_compile_complex_value_t   ccv;

    if (ngx_http_script_variables_count(text) == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"ai_auth variable=%V\" would be the same caller "
                           "for every request, it needs a variable", text);
        return NGX_CONF_ERROR;
    }

    if (aalcf->variables == NULL) {
        aalcf->variables = ngx_array_create(cf->pool, 2,
                                            sizeof(ngx_http_complex_value_t));
        if (aalcf->variables == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    cv = ngx_array_push(aalcf->variables);
    if (cv == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = text;
    ccv.complex_value = cv;

    if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (ngx_strstr(text->data, "remote_user") != NULL) {
        aalcf->remote_user = 1;
    }

    aalcf->kinds |= NGX_HTTP_AI_AUTH_VARIABLE;

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_auth_realm(ngx_conf_t *cf, ngx_http_ai_auth_loc_conf_t *aalcf,
    ngx_str_t *realm)
{
    size_t   i;
    u_char  *p;

    if (aalcf->challenge.data) {
        return "has \"realm=\" twice";
    }

    for (i = 0; i < realm->len; i++) {
        if (realm->data[i] < 0x20 || realm->data[i] == 0x7f
            || realm->data[i] == '"' || realm->data[i] == '\\')
        {
            return "has a \"realm=\" with quotes, backslashes or control "
                   "characters";
        }
    }

    p = ngx_pnalloc(cf->pool, sizeof("Bearer realm=\"\"") - 1 + realm->len);
    if (p == NULL) {
        return NGX_CONF_ERROR;
    }

    aalcf->challenge.data = p;
    aalcf->challenge.len = ngx_sprintf(p, "Bearer realm=\"%V\"", realm) - p;

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_auth_key_secret(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_auth_main_conf_t *aamcf = conf;

    ngx_int_t   rc;
    ngx_str_t  *value, secret;

    if (aamcf->pepper.data) {
        return "is duplicate";
    }

    value = cf->args->elts;

    rc = ngx_http_ai_conf_secret(cf, &value[0], "ai_key_secret", &value[1],
                                 &secret);

    if (rc == NGX_ERROR) {
        return NGX_CONF_ERROR;
    }

    if (rc == NGX_DECLINED) {
        return "expects \"file:PATH\" or \"env:NAME\", a secret does not "
               "belong in the configuration";
    }

    if (secret.len < NGX_HTTP_AI_AUTH_SECRET_MIN) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the secret of \"ai_key_secret\" has less than %d "
                           "bytes", NGX_HTTP_AI_AUTH_SECRET_MIN);
        return NGX_CONF_ERROR;
    }

    aamcf->pepper = secret;

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_auth_log_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_auth_main_conf_t *aamcf = conf;

    ngx_int_t   rate;
    ngx_str_t  *value, arg;

    if (aamcf->log_rate != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        aamcf->log_rate = 0;
        return NGX_CONF_OK;
    }

    rate = NGX_ERROR;

    if (ngx_http_ai_conf_arg(&value[1], "rate", &arg)
        && arg.len > 3
        && ngx_strncmp(arg.data + arg.len - 3, "r/s", 3) == 0)
    {
        rate = ngx_atoi(arg.data, arg.len - 3);
    }

    if (rate == NGX_ERROR || rate == 0 || rate > 100000) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\" of \"ai_auth_log\", it "
                           "is \"rate=NUMBERr/s\" or \"off\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    aamcf->log_rate = rate;

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_auth_require(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_auth_loc_conf_t *aalcf = conf;

    u_char                         ch;
    size_t                         k;
    ngx_str_t                     *value, *scope, arg;
    ngx_uint_t                     i;
    ngx_http_ai_auth_require_t    *require, **p;
    ngx_http_ai_auth_main_conf_t  *aamcf;

    aamcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_auth_module);

    require = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_auth_require_t));
    if (require == NULL
        || ngx_array_init(&require->scopes, cf->pool, 2, sizeof(ngx_str_t))
           != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    require->file = cf->conf_file->file.name.data;
    require->line = cf->conf_file->line;

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (!ngx_http_ai_conf_arg(&value[i], "scope", &arg) || arg.len == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\" of \"ai_require\", "
                               "it is \"scope=NAME\"", &value[i]);
            return NGX_CONF_ERROR;
        }

        for (k = 0; k < arg.len; k++) {
            ch = arg.data[k];

            /* RFC 6749, and what would break WWW-Authenticate */

            if (ch <= 0x20 || ch == '"' || ch == '\\' || ch >= 0x7f) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "scope \"%V\" has a character that no "
                                   "scope may have", &arg);
                return NGX_CONF_ERROR;
            }
        }

        scope = ngx_array_push(&require->scopes);
        if (scope == NULL) {
            return NGX_CONF_ERROR;
        }

        *scope = arg;
    }

    if (aalcf->require == NULL) {
        aalcf->require = ngx_array_create(cf->pool, 2,
                                       sizeof(ngx_http_ai_auth_require_t *));
        if (aalcf->require == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    p = ngx_array_push(aalcf->require);
    if (p == NULL) {
        return NGX_CONF_ERROR;
    }

    *p = require;

    p = ngx_array_push(&aamcf->requires);
    if (p == NULL) {
        return NGX_CONF_ERROR;
    }

    *p = require;

    aamcf->used = 1;

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_auth_deny_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_ai_auth_loc_conf_t *aalcf = conf;

    ngx_str_t                         *value, arg;
    ngx_int_t                          status;
    ngx_http_ai_auth_deny_t           *deny;
    ngx_http_ai_auth_main_conf_t      *aamcf;
    ngx_http_compile_complex_value_t   ccv;

    aamcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_auth_module);

    value = cf->args->elts;
    status = NGX_HTTP_FORBIDDEN;

    if (cf->args->nelts == 3) {

        if (!ngx_http_ai_conf_arg(&value[2], "status", &arg)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\" of \"ai_deny\", it "
                               "is \"status=NUMBER\"", &value[2]);
            return NGX_CONF_ERROR;
        }

        status = ngx_atoi(arg.data, arg.len);

        /* 408 and 444 are nginx's own ways to close a connection */

        if (status == NGX_ERROR
            || ((status < 400 || status > 451
                 || status == NGX_HTTP_REQUEST_TIME_OUT
                 || status == NGX_HTTP_CLOSE)
                && status != NGX_HTTP_SERVICE_UNAVAILABLE))
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid status \"%V\" of \"ai_deny\", it is "
                               "400 to 451, or 503", &arg);
            return NGX_CONF_ERROR;
        }
    }

    if (ngx_http_script_variables_count(&value[1]) == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"ai_deny %V\" would refuse every request, it "
                           "needs a variable", &value[1]);
        return NGX_CONF_ERROR;
    }

    if (aalcf->deny == NULL) {
        aalcf->deny = ngx_array_create(cf->pool, 2,
                                       sizeof(ngx_http_ai_auth_deny_t));
        if (aalcf->deny == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    deny = ngx_array_push(aalcf->deny);
    if (deny == NULL) {
        return NGX_CONF_ERROR;
    }

    deny->status = status;

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = &value[1];
    ccv.complex_value = &deny->value;

    if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    aamcf->used = 1;

    return NGX_CONF_OK;
}
