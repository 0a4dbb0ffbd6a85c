
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * ai_jwt_issuer { ... }: what a token of an issuer must be like, where its
 * keys are, and what its claims mean.
 */


#include "ngx_http_ai_auth_issuer.h"


#define NGX_HTTP_AI_ISSUER_NAME_MAX    64
#define NGX_HTTP_AI_ISSUER_LEEWAY      60
#define NGX_HTTP_AI_ISSUER_LEEWAY_MAX  300

/* of a key pair only: who verifies must not be able to issue */

#define NGX_HTTP_AI_ISSUER_ALGS                                               \
    (NGX_HTTP_AI_JWA_RS256|NGX_HTTP_AI_JWA_PS256|NGX_HTTP_AI_JWA_ES256        \
     |NGX_HTTP_AI_JWA_ES384|NGX_HTTP_AI_JWA_ES512|NGX_HTTP_AI_JWA_EDDSA       \
     |NGX_HTTP_AI_JWA_ED25519)


typedef struct {
    ngx_http_ai_auth_main_conf_t   *aamcf;
    ngx_http_ai_auth_issuer_t      *issuer;
    ngx_str_t                       who;      /* for messages */
    unsigned                        audience:1;
    unsigned                        tls:1;
    unsigned                        timing:1;
} ngx_http_ai_auth_issuer_ctx_t;


static char *ngx_http_ai_auth_issuer_check(ngx_conf_t *cf,
    ngx_http_ai_auth_issuer_ctx_t *ctx);
static char *ngx_http_ai_auth_issuer_source(ngx_conf_t *cf,
    ngx_http_ai_auth_issuer_ctx_t *ctx);
static char *ngx_http_ai_auth_issuer_secrets(ngx_conf_t *cf,
    ngx_http_ai_auth_issuer_ctx_t *ctx);
static char *ngx_http_ai_auth_issuer_iss(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_auth_issuer_jwks(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_auth_issuer_secret(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_auth_issuer_audience(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_auth_issuer_alg(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_auth_issuer_type(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_auth_issuer_azp(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_auth_issuer_leeway(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_auth_issuer_max_age(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_auth_issuer_exp(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_auth_issuer_claim(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_auth_issuer_variable(ngx_conf_t *cf,
    ngx_http_ai_auth_issuer_ctx_t *ctx, ngx_str_t *name, ngx_uint_t *n);
static char *ngx_http_ai_auth_issuer_require(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_auth_issuer_tls_ca(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_auth_issuer_tls_verify(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_auth_issuer_timeout(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_auth_issuer_cooldown(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_auth_issuer_msec(ngx_conf_t *cf,
    ngx_http_ai_auth_issuer_ctx_t *ctx, ngx_str_t *text, const char *name,
    ngx_msec_t min, ngx_msec_t max, ngx_msec_t *value);
static ngx_array_t *ngx_http_ai_auth_issuer_words(ngx_conf_t *cf,
    ngx_http_ai_auth_issuer_ctx_t *ctx);
static ngx_uint_t ngx_http_ai_auth_issuer_plain(ngx_str_t *text);


static ngx_http_ai_sub_t  ngx_http_ai_auth_issuer_subs[] = {
    { ngx_string("issuer"), ngx_http_ai_auth_issuer_iss, 1, 1, 0 },
    { ngx_string("jwks"), ngx_http_ai_auth_issuer_jwks, 1, 3, 0 },
    { ngx_string("secret"), ngx_http_ai_auth_issuer_secret, 1, 1, 1 },
    { ngx_string("audience"), ngx_http_ai_auth_issuer_audience, 1, 64, 0 },
    { ngx_string("alg"), ngx_http_ai_auth_issuer_alg, 1, 15, 0 },
    { ngx_string("type"), ngx_http_ai_auth_issuer_type, 1, 1, 0 },
    { ngx_string("azp"), ngx_http_ai_auth_issuer_azp, 1, 64, 0 },
    { ngx_string("leeway"), ngx_http_ai_auth_issuer_leeway, 1, 1, 0 },
    { ngx_string("max_age"), ngx_http_ai_auth_issuer_max_age, 1, 1, 0 },
    { ngx_string("exp"), ngx_http_ai_auth_issuer_exp, 1, 1, 0 },
    { ngx_string("claim"), ngx_http_ai_auth_issuer_claim, 2, 3, 1 },
    { ngx_string("require"), ngx_http_ai_auth_issuer_require, 1, 64, 1 },
    { ngx_string("tls_ca"), ngx_http_ai_auth_issuer_tls_ca, 1, 1, 0 },
    { ngx_string("tls_verify"), ngx_http_ai_auth_issuer_tls_verify, 1, 1, 0 },
    { ngx_string("timeout"), ngx_http_ai_auth_issuer_timeout, 1, 1, 0 },
    { ngx_string("cooldown"), ngx_http_ai_auth_issuer_cooldown, 1, 1, 0 },
    { ngx_null_string, NULL, 0, 0, 0 }
};


/* in the order of ngx_http_ai_claim_e */

static ngx_str_t  ngx_http_ai_auth_issuer_targets[] = {
    ngx_string("ai_tenant"),
    ngx_string("ai_user"),
    ngx_string("ai_team"),
    ngx_string("ai_plan"),
    ngx_string("ai_scopes"),
    ngx_string("ai_models"),
    ngx_string("ai_providers"),
    ngx_string("ai_endpoints")
};


static ngx_str_t  ngx_http_ai_auth_issuer_algs[] = {
    ngx_string("RS256"), ngx_string("RS384"), ngx_string("RS512"),
    ngx_string("PS256"), ngx_string("PS384"), ngx_string("PS512"),
    ngx_string("ES256"), ngx_string("ES384"), ngx_string("ES512"),
    ngx_string("EdDSA"), ngx_string("Ed25519"), ngx_string("Ed448"),
    ngx_string("HS256"), ngx_string("HS384"), ngx_string("HS512")
};


char *
ngx_http_ai_auth_issuer_block(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_auth_main_conf_t *aamcf = conf;

    char                            *rv;
    ngx_str_t                       *value;
    ngx_http_ai_block_t              block;
    ngx_http_ai_auth_issuer_t       *issuer, **elt;
    ngx_http_ai_auth_issuer_ctx_t    ctx;

    value = cf->args->elts;

    if (!ngx_http_ai_conf_name(&value[1], NGX_HTTP_AI_ISSUER_NAME_MAX)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid issuer name \"%V\", it may have up to %d "
                           "letters, digits, \"-\", \"_\" and \".\"",
                           &value[1], NGX_HTTP_AI_ISSUER_NAME_MAX);
        return NGX_CONF_ERROR;
    }

    if (ngx_http_ai_auth_issuer_find(aamcf, &value[1])) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "duplicate issuer \"%V\"",
                           &value[1]);
        return NGX_CONF_ERROR;
    }

    issuer = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_auth_issuer_t));
    if (issuer == NULL) {
        return NGX_CONF_ERROR;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     issuer->source = NGX_HTTP_AI_JWKS_NONE;
     *     issuer->rules.algs = 0;
     *     issuer->rules.audiences = NULL;
     *     issuer->rules.azp = NULL;
     *     issuer->rules.max_age = 0;
     *     issuer->rules.no_exp = 0;
     */

    issuer->name = value[1];
    issuer->api = aamcf->api;
    issuer->rules.leeway = NGX_HTTP_AI_ISSUER_LEEWAY;
    issuer->cache = 600000;
    issuer->timeout = 5000;
    issuer->cooldown = 30000;
    issuer->tls_verify = 1;
    ngx_queue_init(&issuer->waiting);
    issuer->conf_file = cf->conf_file->file.name.data;
    issuer->line = cf->conf_file->line;

    if (ngx_array_init(&issuer->secrets, cf->pool, 1, sizeof(ngx_str_t))
        != NGX_OK
        || ngx_array_init(&issuer->claims, cf->pool, 4,
                          sizeof(ngx_http_ai_auth_claim_t))
           != NGX_OK
        || ngx_array_init(&issuer->requires, cf->pool, 2,
                          sizeof(ngx_http_ai_auth_rule_t))
           != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    if ((aamcf->issuers.elts == NULL
         && ngx_array_init(&aamcf->issuers, cf->pool, 2,
                           sizeof(ngx_http_ai_auth_issuer_t *))
            != NGX_OK)
        || (aamcf->claims.elts == NULL
            && ngx_array_init(&aamcf->claims, cf->pool, 4,
                              sizeof(ngx_http_ai_auth_claim_var_t))
               != NGX_OK))
    {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&ctx, sizeof(ngx_http_ai_auth_issuer_ctx_t));

    ctx.aamcf = aamcf;
    ctx.issuer = issuer;

    ctx.who.data = ngx_pnalloc(cf->pool,
                               sizeof("issuer \"\"") - 1 + issuer->name.len);
    if (ctx.who.data == NULL) {
        return NGX_CONF_ERROR;
    }

    ctx.who.len = ngx_sprintf(ctx.who.data, "issuer \"%V\"", &issuer->name)
                  - ctx.who.data;

    ngx_memzero(&block, sizeof(ngx_http_ai_block_t));

    block.block = "issuer";
    block.name = &issuer->name;
    block.subs = ngx_http_ai_auth_issuer_subs;
    block.ctx = &ctx;

    rv = ngx_http_ai_conf_block(cf, &block);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    rv = ngx_http_ai_auth_issuer_check(cf, &ctx);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    elt = ngx_array_push(&aamcf->issuers);
    if (elt == NULL) {
        return NGX_CONF_ERROR;
    }

    *elt = issuer;

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_auth_issuer_check(ngx_conf_t *cf,
    ngx_http_ai_auth_issuer_ctx_t *ctx)
{
    char                       *rv;
    ngx_http_ai_auth_issuer_t  *issuer;

    issuer = ctx->issuer;

    if (issuer->rules.issuer.len == 0) {
        return ngx_http_ai_conf_error(cf, issuer->conf_file, issuer->line,
                                      "%V: add \"issuer URL\", the \"iss\" of "
                                      "its tokens to the letter", &ctx->who);
    }

    if (!ctx->audience) {
        return ngx_http_ai_conf_error(cf, issuer->conf_file, issuer->line,
                                      "%V: add \"audience NAME\", the \"aud\" "
                                      "of tokens that are meant for this "
                                      "gateway, or \"audience off\"",
                                      &ctx->who);
    }

    if (issuer->source == NGX_HTTP_AI_JWKS_NONE && issuer->secrets.nelts == 0)
    {
        return ngx_http_ai_conf_error(cf, issuer->conf_file, issuer->line,
                                      "%V has no keys, add \"jwks https://..."
                                      "\", \"jwks file:...\", \"jwks discovery"
                                      "\" or \"secret file:...\"", &ctx->who);
    }

    if (issuer->rules.algs == 0) {

        if (issuer->source != NGX_HTTP_AI_JWKS_NONE) {
            issuer->rules.algs = NGX_HTTP_AI_ISSUER_ALGS;
        }

        if (issuer->secrets.nelts) {
            issuer->rules.algs |= NGX_HTTP_AI_JWA_HS256;
        }
    }

    rv = ngx_http_ai_auth_issuer_source(cf, ctx);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    rv = ngx_http_ai_auth_issuer_secrets(cf, ctx);

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    return ngx_http_ai_auth_jwks_init(cf, issuer);
}


static char *
ngx_http_ai_auth_issuer_source(ngx_conf_t *cf,
    ngx_http_ai_auth_issuer_ctx_t *ctx)
{
    size_t                      len;
    u_char                     *p;
    const char                 *error;
    ngx_str_t                  *iss;
    ngx_uint_t                  url;
    ngx_http_ai_url_t           u;
    ngx_http_ai_auth_issuer_t  *issuer;

    issuer = ctx->issuer;

    url = (issuer->source == NGX_HTTP_AI_JWKS_URL
           || issuer->source == NGX_HTTP_AI_JWKS_DISCOVERY);

    if (issuer->source == NGX_HTTP_AI_JWKS_DISCOVERY) {

        iss = &issuer->rules.issuer;
        len = iss->len;

        while (len && iss->data[len - 1] == '/') {
            len--;
        }

        p = ngx_pnalloc(cf->pool,
                        len + sizeof("/.well-known/openid-configuration"));
        if (p == NULL) {
            return NGX_CONF_ERROR;
        }

        issuer->jwks.data = p;

        p = ngx_cpymem(p, iss->data, len);
        p = ngx_cpymem(p, "/.well-known/openid-configuration",
                       sizeof("/.well-known/openid-configuration"));

        issuer->jwks.len = p - 1 - issuer->jwks.data;
    }

    if (!url) {

        if (ctx->tls || ctx->timing) {
            return ngx_http_ai_conf_error(cf, issuer->conf_file, issuer->line,
                                          "%V: \"%s\" has no effect, nothing "
                                          "is fetched", &ctx->who,
                                          ctx->tls ? "tls_..."
                                                   : "timeout\" or \""
                                                     "cooldown");
        }

        return NGX_CONF_OK;
    }

    error = ngx_http_ai_url_parse(cf->temp_pool, &issuer->jwks, &u);

    if (error) {
        return ngx_http_ai_conf_error(cf, issuer->conf_file, issuer->line,
                                      "%V: invalid URL \"%V\" of the key set: "
                                      "%s", &ctx->who, &issuer->jwks, error);
    }

    if (ctx->tls && !u.ssl) {
        return ngx_http_ai_conf_error(cf, issuer->conf_file, issuer->line,
                                      "%V: \"tls_...\" has no effect, \"%V\" "
                                      "is fetched without TLS", &ctx->who,
                                      &issuer->jwks);
    }

    if (issuer->insecure && u.ssl) {
        return ngx_http_ai_conf_error(cf, issuer->conf_file, issuer->line,
                                      "%V: \"insecure\" has no effect, \"%V\" "
                                      "is fetched with TLS", &ctx->who,
                                      &issuer->jwks);
    }

    if (!u.ssl && !issuer->insecure && !ngx_http_ai_auth_jwks_local(&u)) {
        return ngx_http_ai_conf_error(cf, issuer->conf_file, issuer->line,
                                      "%V: who answers \"%V\" in the network "
                                      "could make tokens, use https:// or add "
                                      "\"insecure\" to \"jwks\"", &ctx->who,
                                      &issuer->jwks);
    }

    if (ctx->issuer->tls_ca.len && !issuer->tls_verify) {
        return ngx_http_ai_conf_error(cf, issuer->conf_file, issuer->line,
                                      "%V: \"tls_ca\" has no effect with "
                                      "\"tls_verify off\"", &ctx->who);
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_auth_issuer_secrets(ngx_conf_t *cf,
    ngx_http_ai_auth_issuer_ctx_t *ctx)
{
    ngx_str_t                  *secret;
    ngx_uint_t                  i, hmac;
    const char                 *error;
    ngx_http_ai_jwks_t         *jwks;
    ngx_http_ai_auth_issuer_t  *issuer;

    issuer = ctx->issuer;
    hmac = issuer->rules.algs & NGX_HTTP_AI_JWA_HMAC;

    if (hmac && issuer->secrets.nelts == 0
        && issuer->source != NGX_HTTP_AI_JWKS_FILE)
    {
        return ngx_http_ai_conf_error(cf, issuer->conf_file, issuer->line,
                                      "%V: \"alg HS...\" needs \"secret file:"
                                      "...\" or \"jwks file:...\", what can "
                                      "be fetched is no secret", &ctx->who);
    }

    if (!hmac && issuer->secrets.nelts) {
        return ngx_http_ai_conf_error(cf, issuer->conf_file, issuer->line,
                                      "%V: \"secret\" has no effect, add "
                                      "\"HS256\" to \"alg\"", &ctx->who);
    }

    if (issuer->source == NGX_HTTP_AI_JWKS_NONE
        && issuer->rules.algs != hmac)
    {
        return ngx_http_ai_conf_error(cf, issuer->conf_file, issuer->line,
                                      "%V: \"alg\" needs \"jwks\", a secret "
                                      "has HS256, HS384 and HS512", &ctx->who);
    }

    if ((issuer->source == NGX_HTTP_AI_JWKS_URL
         || issuer->source == NGX_HTTP_AI_JWKS_DISCOVERY)
        && issuer->rules.algs == hmac)
    {
        return ngx_http_ai_conf_error(cf, issuer->conf_file, issuer->line,
                                      "%V: \"jwks\" has no effect, all of "
                                      "\"alg\" is of a secret", &ctx->who);
    }

    if (issuer->secrets.nelts == 0) {
        return NGX_CONF_OK;
    }

    jwks = ngx_http_ai_jwks_create(cf->temp_pool);
    if (jwks == NULL) {
        return NGX_CONF_ERROR;
    }

    secret = issuer->secrets.elts;

    for (i = 0; i < issuer->secrets.nelts; i++) {
        error = NULL;

        if (ngx_http_ai_jwks_add_secret(jwks, &secret[i], hmac, &error)
            != NGX_OK)
        {
            return ngx_http_ai_conf_error(cf, issuer->conf_file, issuer->line,
                                          "%V: %s", &ctx->who,
                                          error ? error : "unusable secret");
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_auth_issuer_iss(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_auth_issuer_ctx_t *ctx = conf;

    ngx_str_t  *value;

    value = cf->args->elts;

    if (!ngx_http_ai_auth_issuer_plain(&value[1])) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: invalid \"issuer %V\"", &ctx->who, &value[1]);
        return NGX_CONF_ERROR;
    }

    ctx->issuer->rules.issuer = value[1];

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_auth_issuer_jwks(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_auth_issuer_ctx_t *ctx = conf;

    ngx_str_t                  *value, text;
    ngx_uint_t                  i;
    ngx_http_ai_auth_issuer_t  *issuer;

    value = cf->args->elts;
    issuer = ctx->issuer;

    if (ngx_http_ai_str_is(&value[1], "discovery")) {
        issuer->source = NGX_HTTP_AI_JWKS_DISCOVERY;

    } else if (value[1].len > 5
               && ngx_strncmp(value[1].data, "file:", 5) == 0)
    {
        issuer->source = NGX_HTTP_AI_JWKS_FILE;
        issuer->jwks.data = value[1].data + 5;
        issuer->jwks.len = value[1].len - 5;

        if (ngx_conf_full_name(cf->cycle, &issuer->jwks, 1) != NGX_OK) {
            return NGX_CONF_ERROR;
        }

    } else if (value[1].len > 4
               && ngx_strncasecmp(value[1].data, (u_char *) "http", 4) == 0)
    {
        issuer->source = NGX_HTTP_AI_JWKS_URL;
        issuer->jwks = value[1];

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: invalid \"jwks %V\", it is \"https://...\", "
                           "\"file:...\" or \"discovery\"",
                           &ctx->who, &value[1]);
        return NGX_CONF_ERROR;
    }

    for (i = 2; i < cf->args->nelts; i++) {

        if (issuer->source == NGX_HTTP_AI_JWKS_FILE) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "%V: \"%V\" has no effect, a file is looked at "
                               "all the time", &ctx->who, &value[i]);
            return NGX_CONF_ERROR;
        }

        if (ngx_http_ai_conf_arg(&value[i], "cache", &text)) {

            if (ngx_http_ai_auth_issuer_msec(cf, ctx, &text, "jwks cache",
                                             1000, 7 * 24 * 3600 * 1000,
                                             &issuer->cache)
                != NGX_CONF_OK)
            {
                return NGX_CONF_ERROR;
            }

            continue;
        }

        if (ngx_http_ai_str_is(&value[i], "insecure")) {
            issuer->insecure = 1;
            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: invalid parameter \"%V\" of \"jwks\", there "
                           "are \"cache=TIME\" and \"insecure\"",
                           &ctx->who, &value[i]);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_auth_issuer_secret(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_auth_issuer_ctx_t *ctx = conf;

    ngx_int_t   rc;
    ngx_str_t  *value, *secret;

    value = cf->args->elts;

    secret = ngx_array_push(&ctx->issuer->secrets);
    if (secret == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_str_null(secret);

    rc = ngx_http_ai_conf_secret(cf, &ctx->who, "secret", &value[1], secret);

    if (rc == NGX_OK) {
        return NGX_CONF_OK;
    }

    if (rc == NGX_DECLINED) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: a secret is not written here, use \"secret "
                           "file:PATH\" or \"secret env:NAME\"", &ctx->who);
    }

    return NGX_CONF_ERROR;
}


static char *
ngx_http_ai_auth_issuer_audience(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_auth_issuer_ctx_t *ctx = conf;

    ngx_str_t  *value;

    value = cf->args->elts;
    ctx->audience = 1;

    if (cf->args->nelts == 2 && ngx_http_ai_str_is(&value[1], "off")) {
        return NGX_CONF_OK;
    }

    ctx->issuer->rules.audiences = ngx_http_ai_auth_issuer_words(cf, ctx);

    return ctx->issuer->rules.audiences ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_http_ai_auth_issuer_alg(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_auth_issuer_ctx_t *ctx = conf;

    ngx_str_t   *value, text;
    ngx_uint_t   i, alg;

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {
        alg = ngx_http_ai_jwa_find(&value[i]);

        if (alg == 0) {
            text = ngx_http_ai_near_text(cf->temp_pool, &value[i],
                                         ngx_http_ai_auth_issuer_algs,
                                         sizeof(ngx_http_ai_auth_issuer_algs)
                                         / sizeof(ngx_str_t));

            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "%V: unknown algorithm \"%V\"%V",
                               &ctx->who, &value[i], &text);
            return NGX_CONF_ERROR;
        }

        ctx->issuer->rules.algs |= alg;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_auth_issuer_type(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_auth_issuer_ctx_t *ctx = conf;

    ngx_str_t  *value, *type;

    value = cf->args->elts;
    type = &ctx->issuer->rules.type;

    *type = value[1];
    ngx_strlow(type->data, type->data, type->len);

    if (type->len > 12
        && ngx_strncmp(type->data, "application/", 12) == 0)
    {
        type->data += 12;
        type->len -= 12;
    }

    if (!ngx_http_ai_auth_issuer_plain(type)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: invalid \"type %V\", it is the \"typ\" of "
                           "tokens like \"at+jwt\"", &ctx->who, &value[1]);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_auth_issuer_azp(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_auth_issuer_ctx_t *ctx = conf;

    ctx->issuer->rules.azp = ngx_http_ai_auth_issuer_words(cf, ctx);

    return ctx->issuer->rules.azp ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_http_ai_auth_issuer_leeway(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_auth_issuer_ctx_t *ctx = conf;

    ngx_int_t   sec;
    ngx_str_t  *value;

    value = cf->args->elts;
    sec = ngx_parse_time(&value[1], 1);

    if (sec == NGX_ERROR || sec > NGX_HTTP_AI_ISSUER_LEEWAY_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: invalid \"leeway %V\", it is at most 5m",
                           &ctx->who, &value[1]);
        return NGX_CONF_ERROR;
    }

    ctx->issuer->rules.leeway = sec;

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_auth_issuer_max_age(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_auth_issuer_ctx_t *ctx = conf;

    ngx_int_t   sec;
    ngx_str_t  *value;

    value = cf->args->elts;
    sec = ngx_parse_time(&value[1], 1);

    if (sec == NGX_ERROR || sec == 0 || sec > NGX_MAX_INT32_VALUE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: invalid \"max_age %V\", it is a time like "
                           "\"1h\"", &ctx->who, &value[1]);
        return NGX_CONF_ERROR;
    }

    ctx->issuer->rules.max_age = sec;

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_auth_issuer_exp(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_auth_issuer_ctx_t *ctx = conf;

    ngx_str_t  *value;

    value = cf->args->elts;

    if (ngx_http_ai_str_is(&value[1], "optional")) {
        ctx->issuer->rules.no_exp = 1;
        return NGX_CONF_OK;
    }

    if (ngx_http_ai_str_is(&value[1], "required")) {
        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "%V: invalid \"exp %V\", it is \"required\" or "
                       "\"optional\"", &ctx->who, &value[1]);

    return NGX_CONF_ERROR;
}


static char *
ngx_http_ai_auth_issuer_claim(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_auth_issuer_ctx_t *ctx = conf;

    char                      *rv;
    ngx_str_t                 *value, name, text, *targets;
    ngx_uint_t                 i, n;
    ngx_http_ai_auth_claim_t  *claim;

    value = cf->args->elts;
    targets = ngx_http_ai_auth_issuer_targets;
    n = sizeof(ngx_http_ai_auth_issuer_targets) / sizeof(ngx_str_t);

    if (!ngx_http_ai_auth_issuer_plain(&value[1])) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: invalid path \"%V\" of \"claim\"",
                           &ctx->who, &value[1]);
        return NGX_CONF_ERROR;
    }

    if (value[2].len < 2 || value[2].data[0] != '$') {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: invalid \"claim %V %V\", the second is a "
                           "variable like \"$ai_tenant\"",
                           &ctx->who, &value[1], &value[2]);
        return NGX_CONF_ERROR;
    }

    claim = ngx_array_push(&ctx->issuer->claims);
    if (claim == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(claim, sizeof(ngx_http_ai_auth_claim_t));

    claim->path = value[1];

    if (cf->args->nelts == 4
        && !ngx_http_ai_conf_arg(&value[3], "default", &claim->value))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: invalid parameter \"%V\" of \"claim\", there "
                           "is \"default=VALUE\"", &ctx->who, &value[3]);
        return NGX_CONF_ERROR;
    }

    name.data = value[2].data + 1;
    name.len = value[2].len - 1;

    ngx_strlow(name.data, name.data, name.len);

    if (name.len > 3 && ngx_strncmp(name.data, "ai_", 3) == 0) {

        for (i = 0; i < n; i++) {
            if (name.len == targets[i].len
                && ngx_strncmp(name.data, targets[i].data, name.len) == 0)
            {
                claim->target = i;
                ctx->issuer->mapped |= 1 << i;

                return NGX_CONF_OK;
            }
        }

        text = ngx_http_ai_near_text(cf->temp_pool, &name, targets, n);

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: \"$%V\" is not set by a claim%V",
                           &ctx->who, &name, &text);
        return NGX_CONF_ERROR;
    }

    claim->target = NGX_HTTP_AI_CLAIM_VARIABLE;

    rv = ngx_http_ai_auth_issuer_variable(cf, ctx, &name, &claim->variable);

    return rv;
}


static char *
ngx_http_ai_auth_issuer_variable(ngx_conf_t *cf,
    ngx_http_ai_auth_issuer_ctx_t *ctx, ngx_str_t *name, ngx_uint_t *n)
{
    u_char                        *p;
    ngx_uint_t                     i;
    ngx_http_variable_t           *v;
    ngx_http_ai_auth_claim_var_t  *var;

    for (p = name->data; p < name->data + name->len; p++) {

        if ((*p < 'a' || *p > 'z') && (*p < '0' || *p > '9') && *p != '_') {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "%V: invalid variable \"$%V\"",
                               &ctx->who, name);
            return NGX_CONF_ERROR;
        }
    }

    /* issuers may share a variable, it is of the one whose token came */

    var = ctx->aamcf->claims.elts;

    for (i = 0; i < ctx->aamcf->claims.nelts; i++) {
        if (var[i].name.len == name->len
            && ngx_strncmp(var[i].name.data, name->data, name->len) == 0)
        {
            *n = i;
            return NGX_CONF_OK;
        }
    }

    v = ngx_http_add_variable(cf, name, NGX_HTTP_VAR_NOCACHEABLE);
    if (v == NULL) {
        return NGX_CONF_ERROR;
    }

    if (v->get_handler || v->set_handler) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: variable \"$%V\" exists already",
                           &ctx->who, name);
        return NGX_CONF_ERROR;
    }

    *n = ctx->aamcf->claims.nelts;

    v->get_handler = ngx_http_ai_auth_claim_variable;
    v->data = *n;

    var = ngx_array_push(&ctx->aamcf->claims);
    if (var == NULL) {
        return NGX_CONF_ERROR;
    }

    var->name = *name;

    var->index = ngx_http_get_variable_index(cf, name);
    if (var->index == NGX_ERROR) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_auth_issuer_require(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_auth_issuer_ctx_t *ctx = conf;

    ngx_str_t                   *value;
    ngx_uint_t                   i;
    ngx_http_ai_auth_rule_t  *require;

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {
        if (!ngx_http_ai_auth_issuer_plain(&value[i])) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "%V: invalid \"require\"", &ctx->who);
            return NGX_CONF_ERROR;
        }
    }

    require = ngx_array_push(&ctx->issuer->requires);
    if (require == NULL) {
        return NGX_CONF_ERROR;
    }

    require->path = value[1];
    require->nvalues = cf->args->nelts - 2;
    require->values = NULL;

    if (require->nvalues) {

        require->values = ngx_palloc(cf->pool,
                                     require->nvalues * sizeof(ngx_str_t));
        if (require->values == NULL) {
            return NGX_CONF_ERROR;
        }

        ngx_memcpy(require->values, &value[2],
                   require->nvalues * sizeof(ngx_str_t));
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_auth_issuer_tls_ca(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_auth_issuer_ctx_t *ctx = conf;

    ngx_str_t        *value;
    ngx_file_info_t   fi;

    value = cf->args->elts;
    ctx->tls = 1;

    if (value[1].len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: \"tls_ca\" expects a file", &ctx->who);
        return NGX_CONF_ERROR;
    }

    if (ngx_conf_full_name(cf->cycle, &value[1], 1) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (ngx_file_info(value[1].data, &fi) == NGX_FILE_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           "%V: cannot open tls_ca \"%V\"",
                           &ctx->who, &value[1]);
        return NGX_CONF_ERROR;
    }

    ctx->issuer->tls_ca = value[1];

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_auth_issuer_tls_verify(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_auth_issuer_ctx_t *ctx = conf;

    ngx_str_t  *value;

    value = cf->args->elts;
    ctx->tls = 1;

    if (ngx_strcasecmp(value[1].data, (u_char *) "on") == 0) {
        return NGX_CONF_OK;
    }

    if (ngx_strcasecmp(value[1].data, (u_char *) "off") == 0) {
        ctx->issuer->tls_verify = 0;
        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "%V: invalid \"tls_verify %V\", it is \"on\" or "
                       "\"off\"", &ctx->who, &value[1]);

    return NGX_CONF_ERROR;
}


static char *
ngx_http_ai_auth_issuer_timeout(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_auth_issuer_ctx_t *ctx = conf;

    ngx_str_t  *value;

    value = cf->args->elts;
    ctx->timing = 1;

    return ngx_http_ai_auth_issuer_msec(cf, ctx, &value[1], "timeout", 100,
                                        60000, &ctx->issuer->timeout);
}


static char *
ngx_http_ai_auth_issuer_cooldown(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_auth_issuer_ctx_t *ctx = conf;

    ngx_str_t  *value;

    value = cf->args->elts;
    ctx->timing = 1;

    return ngx_http_ai_auth_issuer_msec(cf, ctx, &value[1], "cooldown", 1000,
                                        3600000, &ctx->issuer->cooldown);
}


static char *
ngx_http_ai_auth_issuer_msec(ngx_conf_t *cf,
    ngx_http_ai_auth_issuer_ctx_t *ctx, ngx_str_t *text, const char *name,
    ngx_msec_t min, ngx_msec_t max, ngx_msec_t *value)
{
    ngx_int_t  msec;

    msec = ngx_parse_time(text, 0);

    if (msec == NGX_ERROR
        || (ngx_msec_t) msec < min || (ngx_msec_t) msec > max)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%V: invalid \"%s\" of \"%V\", it is a time from "
                           "%Mms to %Ms", &ctx->who, name, text, min,
                           max / 1000);
        return NGX_CONF_ERROR;
    }

    *value = msec;

    return NGX_CONF_OK;
}


static ngx_array_t *
ngx_http_ai_auth_issuer_words(ngx_conf_t *cf,
    ngx_http_ai_auth_issuer_ctx_t *ctx)
{
    ngx_str_t    *value, *word;
    ngx_uint_t    i;
    ngx_array_t  *words;

    value = cf->args->elts;

    words = ngx_array_create(cf->pool, cf->args->nelts - 1,
                             sizeof(ngx_str_t));
    if (words == NULL) {
        return NULL;
    }

    for (i = 1; i < cf->args->nelts; i++) {

        if (!ngx_http_ai_auth_issuer_plain(&value[i])) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "%V: invalid value \"%V\" of \"%V\"",
                               &ctx->who, &value[i], &value[0]);
            return NULL;
        }

        word = ngx_array_push(words);
        if (word == NULL) {
            return NULL;
        }

        *word = value[i];
    }

    return words;
}


/* nothing that a token would never have */

static ngx_uint_t
ngx_http_ai_auth_issuer_plain(ngx_str_t *text)
{
    size_t  i;

    for (i = 0; i < text->len; i++) {
        if (text->data[i] < ' ' || text->data[i] == 0x7f) {
            return 0;
        }
    }

    return text->len != 0;
}


ngx_http_ai_auth_issuer_t *
ngx_http_ai_auth_issuer_find(ngx_http_ai_auth_main_conf_t *aamcf,
    ngx_str_t *name)
{
    ngx_uint_t                   i;
    ngx_http_ai_auth_issuer_t  **issuer;

    issuer = aamcf->issuers.elts;

    for (i = 0; i < aamcf->issuers.nelts; i++) {
        if (issuer[i]->name.len == name->len
            && ngx_strncmp(issuer[i]->name.data, name->data, name->len) == 0)
        {
            return issuer[i];
        }
    }

    return NULL;
}


ngx_str_t *
ngx_http_ai_auth_issuer_names(ngx_pool_t *pool,
    ngx_http_ai_auth_main_conf_t *aamcf, ngx_uint_t *n)
{
    ngx_str_t                   *names;
    ngx_uint_t                   i;
    ngx_http_ai_auth_issuer_t  **issuer;

    names = ngx_palloc(pool, (aamcf->issuers.nelts + 1) * sizeof(ngx_str_t));
    if (names == NULL) {
        return NULL;
    }

    issuer = aamcf->issuers.elts;

    for (i = 0; i < aamcf->issuers.nelts; i++) {
        names[i] = issuer[i]->name;
    }

    *n = i;

    return names;
}


ngx_uint_t
ngx_http_ai_auth_issuer_is(ngx_http_ai_auth_issuer_t *issuer, ngx_str_t *iss)
{
    return issuer->rules.issuer.len == iss->len
           && ngx_memcmp(issuer->rules.issuer.data, iss->data, iss->len) == 0;
}


ngx_int_t
ngx_http_ai_auth_issuers_init(ngx_conf_t *cf,
    ngx_http_ai_auth_main_conf_t *aamcf)
{
    /* zones and fetchers were made when the blocks were read */

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_auth_issuers_start(ngx_cycle_t *cycle,
    ngx_http_ai_auth_main_conf_t *aamcf)
{
    if ((ngx_process != NGX_PROCESS_WORKER
         && ngx_process != NGX_PROCESS_SINGLE)
        || aamcf->issuers.nelts == 0)
    {
        return NGX_OK;
    }

    if (ngx_http_ai_auth_token_start(cycle, aamcf) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_ai_auth_jwks_start(cycle, aamcf);
}
