
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_router.h"


#define NGX_HTTP_AI_NAME_MAX  64


typedef struct {
    ngx_str_t                        name;
    ngx_str_t                        dialect;
    ngx_str_t                        endpoint;  /* without the path */
    ngx_str_t                        path;
    ngx_http_ai_auth_e               auth;
    unsigned                         keyless:1;
} ngx_http_ai_vendor_t;


typedef struct {
    ngx_http_ai_router_main_conf_t  *amcf;
    ngx_http_ai_provider_t          *provider;
    ngx_http_ai_vendor_t            *word;      /* argument of "dialect" */
    unsigned                         abort:1;
    unsigned                         header:1;
    unsigned                         tls:1;
} ngx_http_ai_provider_ctx_t;


static char *ngx_http_ai_provider_finish(ngx_conf_t *cf,
    ngx_http_ai_provider_ctx_t *ctx);
static char *ngx_http_ai_provider_static(ngx_conf_t *cf,
    ngx_http_ai_provider_ctx_t *ctx);
static char *ngx_http_ai_provider_endpoint_finish(ngx_conf_t *cf,
    ngx_http_ai_provider_ctx_t *ctx, ngx_http_ai_vendor_t *vendor,
    ngx_str_t *dialect);
static char *ngx_http_ai_provider_dialect(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_provider_endpoint(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_provider_key(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_provider_client_key(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_provider_header(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_provider_timeout(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_provider_max_concurrent(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_provider_max_output(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_provider_tls_ca(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_provider_tls_verify(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_provider_tls_name(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_provider_region(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_provider_abort(ngx_conf_t *cf, void *conf);
static char *ngx_http_ai_provider_text(ngx_conf_t *cf, void *conf);
static ngx_uint_t ngx_http_ai_provider_is_value(ngx_str_t *text);
static ngx_http_ai_vendor_t *ngx_http_ai_vendor_find(ngx_str_t *name);
static ngx_str_t ngx_http_ai_vendor_near(ngx_pool_t *pool, ngx_str_t *name);
static ngx_uint_t ngx_http_ai_vendor_own(ngx_http_ai_vendor_t *vendor,
    ngx_str_t *host, ngx_uint_t sub);


static ngx_http_ai_vendor_t  ngx_http_ai_vendors[] = {

    { ngx_string("openai"), ngx_string("openai"),
      ngx_string("https://api.openai.com"), ngx_string("/v1"),
      NGX_HTTP_AI_AUTH_BEARER, 0 },

    { ngx_string("anthropic"), ngx_string("anthropic"),
      ngx_string("https://api.anthropic.com"), ngx_string(""),
      NGX_HTTP_AI_AUTH_X_API_KEY, 0 },

    { ngx_string("static"), ngx_string("static"),
      ngx_string(""), ngx_string(""),
      NGX_HTTP_AI_AUTH_BEARER, 1 },

    { ngx_string("azure"), ngx_string("openai"),
      ngx_string(""), ngx_string("/openai/v1"),
      NGX_HTTP_AI_AUTH_API_KEY, 0 },

    { ngx_string("deepseek"), ngx_string("openai"),
      ngx_string("https://api.deepseek.com"), ngx_string("/v1"),
      NGX_HTTP_AI_AUTH_BEARER, 0 },

    { ngx_string("groq"), ngx_string("openai"),
      ngx_string("https://api.groq.com"), ngx_string("/openai/v1"),
      NGX_HTTP_AI_AUTH_BEARER, 0 },

    { ngx_string("mistral"), ngx_string("openai"),
      ngx_string("https://api.mistral.ai"), ngx_string("/v1"),
      NGX_HTTP_AI_AUTH_BEARER, 0 },

    { ngx_string("together"), ngx_string("openai"),
      ngx_string("https://api.together.xyz"), ngx_string("/v1"),
      NGX_HTTP_AI_AUTH_BEARER, 0 },

    { ngx_string("openrouter"), ngx_string("openai"),
      ngx_string("https://openrouter.ai"), ngx_string("/api/v1"),
      NGX_HTTP_AI_AUTH_BEARER, 0 },

    { ngx_string("xai"), ngx_string("openai"),
      ngx_string("https://api.x.ai"), ngx_string("/v1"),
      NGX_HTTP_AI_AUTH_BEARER, 0 },

    { ngx_string("fireworks"), ngx_string("openai"),
      ngx_string("https://api.fireworks.ai"), ngx_string("/inference/v1"),
      NGX_HTTP_AI_AUTH_BEARER, 0 },

    { ngx_string("cerebras"), ngx_string("openai"),
      ngx_string("https://api.cerebras.ai"), ngx_string("/v1"),
      NGX_HTTP_AI_AUTH_BEARER, 0 },

    { ngx_string("perplexity"), ngx_string("openai"),
      ngx_string("https://api.perplexity.ai"), ngx_string(""),
      NGX_HTTP_AI_AUTH_BEARER, 0 },

    { ngx_string("ollama"), ngx_string("openai"),
      ngx_string("http://127.0.0.1:11434"), ngx_string("/v1"),
      NGX_HTTP_AI_AUTH_BEARER, 1 },

    { ngx_string("lmstudio"), ngx_string("openai"),
      ngx_string("http://127.0.0.1:1234"), ngx_string("/v1"),
      NGX_HTTP_AI_AUTH_BEARER, 1 },

    { ngx_string("vllm"), ngx_string("openai"),
      ngx_string(""), ngx_string("/v1"),
      NGX_HTTP_AI_AUTH_BEARER, 1 },

    { ngx_string("llamacpp"), ngx_string("openai"),
      ngx_string(""), ngx_string("/v1"),
      NGX_HTTP_AI_AUTH_BEARER, 1 }
};

#define NGX_HTTP_AI_VENDORS                                                   \
    (sizeof(ngx_http_ai_vendors) / sizeof(ngx_http_ai_vendor_t))


static ngx_str_t  ngx_http_ai_openai_regions[] = {
    ngx_string("us"),
    ngx_string("eu"),
    ngx_string("ae"),
    ngx_string("au"),
    ngx_string("in"),
    ngx_string("jp"),
    ngx_null_string
};


/* of the connection, or made by the gateway for each request */

static ngx_str_t  ngx_http_ai_refused_headers[] = {
    ngx_string("connection"),
    ngx_string("content-length"),
    ngx_string("expect"),
    ngx_string("host"),
    ngx_string("keep-alive"),
    ngx_string("proxy-authenticate"),
    ngx_string("proxy-authorization"),
    ngx_string("proxy-connection"),
    ngx_string("te"),
    ngx_string("trailer"),
    ngx_string("transfer-encoding"),
    ngx_string("upgrade"),
    ngx_null_string
};


static ngx_http_ai_sub_t  ngx_http_ai_provider_subs[] = {
    { ngx_string("dialect"), ngx_http_ai_provider_dialect, 1, 1, 0 },
    { ngx_string("endpoint"), ngx_http_ai_provider_endpoint, 1, 1, 0 },
    { ngx_string("key"), ngx_http_ai_provider_key, 1, 64, 1 },
    { ngx_string("client_key"), ngx_http_ai_provider_client_key, 1, 1, 0 },
    { ngx_string("header"), ngx_http_ai_provider_header, 2, 2, 1 },
    { ngx_string("timeout"), ngx_http_ai_provider_timeout, 1, 4, 0 },
    { ngx_string("max_concurrent"),
      ngx_http_ai_provider_max_concurrent, 1, 1, 0 },
    { ngx_string("max_output"), ngx_http_ai_provider_max_output, 1, 1, 0 },
    { ngx_string("tls_ca"), ngx_http_ai_provider_tls_ca, 1, 1, 0 },
    { ngx_string("tls_verify"), ngx_http_ai_provider_tls_verify, 1, 1, 0 },
    { ngx_string("tls_name"), ngx_http_ai_provider_tls_name, 1, 1, 0 },
    { ngx_string("region"), ngx_http_ai_provider_region, 1, 1, 0 },
    { ngx_string("abort"), ngx_http_ai_provider_abort, 1, 3, 0 },
    { ngx_string("text"), ngx_http_ai_provider_text, 1, 1, 0 },
    { ngx_null_string, NULL, 0, 0, 0 }
};


char *
ngx_http_ai_provider_block(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_router_main_conf_t *amcf = conf;

    char                         *rv;
    ngx_str_t                    *value, *name;
    ngx_http_ai_block_t           block;
    ngx_http_ai_provider_t       *provider, **p;
    ngx_http_ai_provider_ctx_t    ctx;

    value = cf->args->elts;
    name = &value[1];

    if (!ngx_http_ai_conf_name(name, NGX_HTTP_AI_NAME_MAX)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid provider name \"%V\", it may have up to "
                           "64 letters, digits, \"-\", \"_\" and \".\"",
                           name);
        return NGX_CONF_ERROR;
    }

    if (ngx_strcasecmp(name->data, (u_char *) "model") == 0
        || ngx_strcasecmp(name->data, (u_char *) "off") == 0)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "provider name \"%V\" is reserved", name);
        return NGX_CONF_ERROR;
    }

    provider = ngx_http_ai_provider_find(amcf, name);

    if (provider) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate provider \"%V\", the first is in %s:%ui",
                           name, provider->file, provider->line);
        return NGX_CONF_ERROR;
    }

    provider = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_provider_t));
    if (provider == NULL) {
        return NGX_CONF_ERROR;
    }

    provider->name = *name;
    provider->file = cf->conf_file->file.name.data;
    provider->line = cf->conf_file->line;

    provider->connect = 5000;
    provider->first = 120000;
    provider->idle = 60000;
    provider->total = 600000;
    provider->tls_verify = 1;

    if (ngx_array_init(&provider->keys, cf->pool, 1,
                       sizeof(ngx_http_ai_key_t))
        != NGX_OK
        || ngx_array_init(&provider->headers, cf->pool, 1,
                          sizeof(ngx_http_ai_header_t))
           != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&ctx, sizeof(ngx_http_ai_provider_ctx_t));

    ctx.amcf = amcf;
    ctx.provider = provider;

    block.block = "provider";
    block.name = &provider->name;
    block.subs = ngx_http_ai_provider_subs;
    block.seen = 0;
    block.ctx = &ctx;

    rv = ngx_http_ai_conf_block(cf, &block);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    rv = ngx_http_ai_provider_finish(cf, &ctx);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    p = ngx_array_push(&amcf->providers);
    if (p == NULL) {
        return NGX_CONF_ERROR;
    }

    *p = provider;

    return NGX_CONF_OK;
}


ngx_http_ai_provider_t *
ngx_http_ai_provider_find(ngx_http_ai_router_main_conf_t *amcf,
    ngx_str_t *name)
{
    ngx_uint_t                i;
    ngx_http_ai_provider_t  **p;

    p = amcf->providers.elts;

    for (i = 0; i < amcf->providers.nelts; i++) {
        if (p[i]->name.len == name->len
            && ngx_strncasecmp(p[i]->name.data, name->data, name->len) == 0)
        {
            return p[i];
        }
    }

    return NULL;
}


/* sub-directives come in any order, so what depends on several waits here */

static char *
ngx_http_ai_provider_finish(ngx_conf_t *cf, ngx_http_ai_provider_ctx_t *ctx)
{
    char                    *rv;
    ngx_str_t                text, *dialect;
    ngx_http_ai_vendor_t    *vendor, *word, *named;
    ngx_http_ai_provider_t  *provider;

    provider = ctx->provider;
    word = ctx->word;
    named = ngx_http_ai_vendor_find(&provider->name);

    if (word == NULL && named == NULL) {
        text = ngx_http_ai_vendor_near(cf->temp_pool, &provider->name);

        return ngx_http_ai_conf_error(cf, provider->file, provider->line,
                                      "provider \"%V\" has no dialect, add "
                                      "\"dialect openai\" or another one%V",
                                      &provider->name, &text);
    }

    vendor = word ? word : named;
    dialect = &vendor->dialect;

    if (ngx_http_ai_str_is(dialect, "static")) {
        return ngx_http_ai_provider_static(cf, ctx);
    }

    if (provider->text) {
        return ngx_http_ai_conf_error(cf, provider->file, provider->line,
                                      "provider \"%V\": \"text\" needs "
                                      "\"dialect static\"", &provider->name);
    }

    /* "dialect openai" says nothing about who speaks it, the name may */

    if (word
        && word->name.len == dialect->len
        && ngx_strncmp(word->name.data, dialect->data, dialect->len) == 0)
    {
        if (named && (named->dialect.len != dialect->len
                      || ngx_strncmp(named->dialect.data, dialect->data,
                                     dialect->len)
                         != 0))
        {
            if (provider->endpoint.len == 0) {
                return ngx_http_ai_conf_error(cf, provider->file,
                                              provider->line,
                                              "provider \"%V\" with dialect "
                                              "\"%V\" needs an endpoint",
                                              &provider->name, dialect);
            }

            named = NULL;
        }

        if (named) {
            vendor = named;

        } else if (provider->endpoint.len
                   && !ngx_http_ai_vendor_own(vendor, &provider->hostname, 1))
        {
            vendor = NULL;
        }
    }

    provider->dialect = ctx->amcf->api->dialect(dialect);

    if (provider->dialect == NULL) {
        return ngx_http_ai_conf_error(cf, provider->file, provider->line,
                                      "provider \"%V\": this build has no "
                                      "dialect \"%V\"",
                                      &provider->name, dialect);
    }

    if (vendor) {
        provider->vendor = vendor->name;
        provider->auth = vendor->auth;

    } else if (ngx_http_ai_str_is(dialect, "anthropic")) {
        provider->auth = NGX_HTTP_AI_AUTH_X_API_KEY;
    }

    rv = ngx_http_ai_provider_endpoint_finish(cf, ctx, vendor, dialect);
    if (rv != NGX_CONF_OK) {
        return rv;
    }

    if (ctx->tls && !provider->ssl) {
        return ngx_http_ai_conf_error(cf, provider->file, provider->line,
                                      "provider \"%V\": \"tls_...\" needs an "
                                      "endpoint with \"https://\"",
                                      &provider->name);
    }

    if (provider->keys.nelts == 0 && !provider->key_pass) {

        if (!provider->key_none && (vendor == NULL || !vendor->keyless)) {
            return ngx_http_ai_conf_error(cf, provider->file, provider->line,
                                          "provider \"%V\" has no key, add "
                                          "\"key env:...\", \"key none\" or "
                                          "\"client_key pass\"",
                                          &provider->name);
        }

        provider->key_none = 1;
    }

    if (provider->key_pass
        && (provider->keys.nelts || provider->key_none))
    {
        return ngx_http_ai_conf_error(cf, provider->file, provider->line,
                                      "provider \"%V\": \"client_key pass\" "
                                      "excludes \"key\"", &provider->name);
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_provider_static(ngx_conf_t *cf, ngx_http_ai_provider_ctx_t *ctx)
{
    const char              *name;
    ngx_http_ai_provider_t  *provider;

    provider = ctx->provider;

    name = provider->endpoint.len ? "endpoint"
           : provider->keys.nelts ? "key"
           : provider->key_pass ? "client_key"
           : ctx->header ? "header"
           : ctx->tls ? "tls_..."
           : ctx->abort ? "abort"
           : NULL;

    if (name) {
        return ngx_http_ai_conf_error(cf, provider->file, provider->line,
                                      "provider \"%V\": \"%s\" has no effect "
                                      "with \"dialect static\"",
                                      &provider->name, name);
    }

    provider->is_static = 1;
    provider->key_none = 1;
    ngx_str_set(&provider->vendor, "static");

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_provider_endpoint_finish(ngx_conf_t *cf,
    ngx_http_ai_provider_ctx_t *ctx, ngx_http_ai_vendor_t *vendor,
    ngx_str_t *dialect)
{
    u_char                  *p;
    size_t                   len;
    ngx_str_t                text, *region;
    ngx_uint_t               n;
    const char              *err;
    ngx_http_ai_provider_t  *provider;

    provider = ctx->provider;
    region = &provider->region;

    if (provider->endpoint.len == 0) {

        if (vendor == NULL || vendor->endpoint.len == 0) {
            return ngx_http_ai_conf_error(cf, provider->file, provider->line,
                                          "provider \"%V\" needs an endpoint, "
                                          "add \"endpoint https://...\"",
                                          &provider->name);
        }

        provider->endpoint = vendor->endpoint;

        if (region->len && ngx_http_ai_str_is(&vendor->name, "openai")) {

            for (n = 0; ngx_http_ai_openai_regions[n].len; n++) {
                if (ngx_http_ai_openai_regions[n].len == region->len
                    && ngx_strncmp(ngx_http_ai_openai_regions[n].data,
                                   region->data, region->len)
                       == 0)
                {
                    break;
                }
            }

            if (ngx_http_ai_openai_regions[n].len == 0) {
                return ngx_http_ai_conf_error(cf, provider->file,
                                          provider->line,
                                          "provider \"%V\": unknown region "
                                          "\"%V\", known are us, eu, ae, au, "
                                          "in, jp; others need an endpoint",
                                          &provider->name, region);
            }

            len = sizeof("https://.api.openai.com") - 1 + region->len;

            p = ngx_pnalloc(cf->pool, len);
            if (p == NULL) {
                return NGX_CONF_ERROR;
            }

            provider->endpoint.data = p;
            provider->endpoint.len = ngx_sprintf(p,
                                                 "https://%V.api.openai.com",
                                                 region)
                                     - p;

        } else if (region->len) {
            return ngx_http_ai_conf_error(cf, provider->file, provider->line,
                                          "provider \"%V\": \"region\" needs "
                                          "an endpoint, \"%V\" has none of "
                                          "its own for regions",
                                          &provider->name, &vendor->name);
        }

        err = ngx_http_ai_provider_url(cf->pool, provider);
        if (err) {
            return ngx_http_ai_conf_error(cf, provider->file, provider->line,
                                          "provider \"%V\": invalid endpoint "
                                          "\"%V\": %s", &provider->name,
                                          &provider->endpoint, err);
        }
    }

    if (ngx_http_ai_str_is(dialect, "anthropic")) {

        /* the dialect's paths begin with it */

        text = provider->path;

        if (text.len >= 3
            && ngx_strncmp(text.data + text.len - 3, "/v1", 3) == 0)
        {
            provider->path.len -= 3;
        }

    } else if (provider->path.len == 0) {

        if (vendor
            && (ngx_http_ai_str_is(&vendor->name, "azure")
                || ngx_http_ai_vendor_own(vendor, &provider->hostname, 0)))
        {
            provider->path = vendor->path;

        } else {
            ngx_str_set(&provider->path, "/v1");
        }
    }

#if !(NGX_HTTP_SSL)

    if (provider->ssl) {
        return ngx_http_ai_conf_error(cf, provider->file, provider->line,
                                      "provider \"%V\": this nginx has no "
                                      "TLS, it was built without "
                                      "--with-http_ssl_module",
                                      &provider->name);
    }

#endif

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_provider_dialect(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_provider_ctx_t *ctx = conf;

    ngx_str_t  *value, text;

    value = cf->args->elts;

    ctx->word = ngx_http_ai_vendor_find(&value[1]);

    if (ctx->word == NULL) {
        text = ngx_http_ai_vendor_near(cf->temp_pool, &value[1]);

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "provider \"%V\": unknown dialect \"%V\"%V",
                           &ctx->provider->name, &value[1], &text);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_provider_endpoint(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_provider_ctx_t *ctx = conf;

    ngx_str_t   *value;
    const char  *err;

    value = cf->args->elts;

    ctx->provider->endpoint = value[1];

    err = ngx_http_ai_provider_url(cf->pool, ctx->provider);

    if (err) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "provider \"%V\": invalid endpoint \"%V\": %s",
                           &ctx->provider->name, &value[1], err);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_provider_key(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_provider_ctx_t *ctx = conf;

    char                    *rv;
    ngx_int_t                rc;
    ngx_str_t               *value, text, who;
    ngx_uint_t               i, literal;
    ngx_http_ai_key_t       *key;
    ngx_http_ai_provider_t  *provider;

    provider = ctx->provider;
    value = cf->args->elts;

    who.data = ngx_pnalloc(cf->temp_pool,
                           sizeof("provider \"\"") - 1 + provider->name.len);
    if (who.data == NULL) {
        return NGX_CONF_ERROR;
    }

    who.len = ngx_sprintf(who.data, "provider \"%V\"", &provider->name)
              - who.data;

    for (i = 1; i < cf->args->nelts; i++) {

        if (provider->key_none
            || (ngx_http_ai_str_is(&value[i], "none") && provider->keys.nelts))
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "provider \"%V\": \"key none\" excludes other "
                               "keys", &provider->name);
            return NGX_CONF_ERROR;
        }

        if (ngx_http_ai_str_is(&value[i], "none")) {
            provider->key_none = 1;
            continue;
        }

        rc = ngx_http_ai_conf_secret(cf, &who, "key", &value[i], &text);

        if (rc == NGX_ERROR) {
            return NGX_CONF_ERROR;
        }

        literal = (rc == NGX_OK);

        if (!literal) {
            text = value[i];

            if (text.len == 0) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "provider \"%V\": empty key",
                                   &provider->name);
                return NGX_CONF_ERROR;
            }
        }

        if (!ngx_http_ai_provider_is_value(&text)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "provider \"%V\": the key has line breaks or "
                               "other control characters", &provider->name);
            return NGX_CONF_ERROR;
        }

        key = ngx_array_push(&provider->keys);
        if (key == NULL) {
            return NGX_CONF_ERROR;
        }

        key->health = NULL;

        if (literal) {
            key->value = ngx_http_ai_conf_literal(cf, &text);
            if (key->value == NULL) {
                return NGX_CONF_ERROR;
            }

        } else {
            rv = ngx_http_ai_conf_complex(cf, &text, &key->value);
            if (rv != NGX_CONF_OK) {
                return rv;
            }
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_provider_client_key(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_provider_ctx_t *ctx = conf;

    ngx_str_t  *value;

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "pass") == 0) {
        ctx->provider->key_pass = 1;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "off") == 0) {
        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "provider \"%V\": invalid \"client_key %V\", it is "
                       "\"pass\" or \"off\"", &ctx->provider->name, &value[1]);

    return NGX_CONF_ERROR;
}


static char *
ngx_http_ai_provider_header(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_provider_ctx_t *ctx = conf;

    u_char                   ch;
    ngx_str_t               *value, *refused;
    ngx_uint_t               i;
    ngx_http_ai_header_t    *header;
    ngx_http_ai_provider_t  *provider;

    provider = ctx->provider;
    value = cf->args->elts;
    ctx->header = 1;

    for (i = 0; i < value[1].len; i++) {
        ch = value[1].data[i];

        if (ch <= ' ' || ch >= 0x7f
            || ngx_strchr("\"(),/:;<=>?@[\\]{}", ch) != NULL)
        {
            break;
        }
    }

    if (i == 0 || i != value[1].len) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "provider \"%V\": invalid header name \"%V\"",
                           &provider->name, &value[1]);
        return NGX_CONF_ERROR;
    }

    for (refused = ngx_http_ai_refused_headers; refused->len; refused++) {
        if (value[1].len == refused->len
            && ngx_strncasecmp(value[1].data, refused->data, refused->len)
               == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "provider \"%V\": header \"%V\" cannot be set, "
                               "it belongs to the connection",
                               &provider->name, &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    if (!ngx_http_ai_provider_is_value(&value[2])) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "provider \"%V\": the value of header \"%V\" has "
                           "line breaks or other control characters",
                           &provider->name, &value[1]);
        return NGX_CONF_ERROR;
    }

    header = ngx_array_push(&provider->headers);
    if (header == NULL) {
        return NGX_CONF_ERROR;
    }

    header->name.len = value[1].len;
    header->name.data = ngx_pnalloc(cf->pool, value[1].len);
    if (header->name.data == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_strlow(header->name.data, value[1].data, value[1].len);

    return ngx_http_ai_conf_complex(cf, &value[2], &header->value);
}


static char *
ngx_http_ai_provider_timeout(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_provider_ctx_t *ctx = conf;

    ngx_int_t                t;
    ngx_str_t               *value, s, names[4], text;
    ngx_msec_t              *slots[4];
    ngx_uint_t               i, n, seen;
    ngx_http_ai_provider_t  *provider;

    static const char  *keys[] = { "connect", "first", "idle", "total" };

    provider = ctx->provider;
    value = cf->args->elts;

    slots[0] = &provider->connect;
    slots[1] = &provider->first;
    slots[2] = &provider->idle;
    slots[3] = &provider->total;

    seen = 0;

    for (i = 1; i < cf->args->nelts; i++) {

        for (n = 0; n < 4; n++) {
            if (ngx_http_ai_conf_arg(&value[i], keys[n], &s)) {
                break;
            }
        }

        if (n == 4) {
            for (n = 0; n < 4; n++) {
                names[n].data = (u_char *) keys[n];
                names[n].len = ngx_strlen(keys[n]);
            }

            s = value[i];

            for (n = 0; n < s.len; n++) {
                if (s.data[n] == '=') {
                    s.len = n;
                }
            }

            text = ngx_http_ai_near_text(cf->temp_pool, &s, names, 4);

            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "provider \"%V\": unknown parameter \"%V\" of "
                               "\"timeout\"%V",
                               &provider->name, &value[i], &text);
            return NGX_CONF_ERROR;
        }

        if (seen & ((ngx_uint_t) 1 << n)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "provider \"%V\": duplicate \"%s=\" in "
                               "\"timeout\"", &provider->name, keys[n]);
            return NGX_CONF_ERROR;
        }

        seen |= (ngx_uint_t) 1 << n;

        t = ngx_parse_time(&s, 0);

        if (t == NGX_ERROR || t == 0 || t > 86400 * 1000) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "provider \"%V\": invalid time \"%V\" in "
                               "\"timeout\", it is from 1ms to 1d",
                               &provider->name, &value[i]);
            return NGX_CONF_ERROR;
        }

        *slots[n] = (ngx_msec_t) t;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_provider_max_concurrent(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_provider_ctx_t *ctx = conf;

    ngx_int_t   n;
    ngx_str_t  *value;

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        return NGX_CONF_OK;
    }

    n = ngx_http_ai_conf_count(&value[1]);

    if (n == NGX_ERROR || n == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "provider \"%V\": invalid \"max_concurrent %V\", "
                           "it is a number from 1 or \"off\"",
                           &ctx->provider->name, &value[1]);
        return NGX_CONF_ERROR;
    }

    ctx->provider->max_concurrent = n;

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_provider_max_output(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_provider_ctx_t *ctx = conf;

    ngx_int_t   n;
    ngx_str_t  *value;

    value = cf->args->elts;

    n = ngx_http_ai_conf_count(&value[1]);

    if (n == NGX_ERROR || n == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "provider \"%V\": invalid \"max_output %V\", it is "
                           "a number of tokens such as 32k",
                           &ctx->provider->name, &value[1]);
        return NGX_CONF_ERROR;
    }

    ctx->provider->max_output = n;

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_provider_tls_ca(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_provider_ctx_t *ctx = conf;

    ngx_str_t        *value;
    ngx_file_info_t   fi;

    value = cf->args->elts;
    ctx->tls = 1;

    if (value[1].len == 0) {
        return "\"tls_ca\" expects a file";
    }

    ctx->provider->tls_ca = value[1];

    if (ngx_conf_full_name(cf->cycle, &ctx->provider->tls_ca, 1) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (ngx_file_info(ctx->provider->tls_ca.data, &fi) == NGX_FILE_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           "provider \"%V\": cannot open tls_ca \"%V\"",
                           &ctx->provider->name, &ctx->provider->tls_ca);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_provider_tls_verify(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_provider_ctx_t *ctx = conf;

    ngx_str_t  *value;

    value = cf->args->elts;
    ctx->tls = 1;

    if (ngx_strcasecmp(value[1].data, (u_char *) "on") == 0) {
        return NGX_CONF_OK;
    }

    if (ngx_strcasecmp(value[1].data, (u_char *) "off") == 0) {
        ctx->provider->tls_verify = 0;
        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "provider \"%V\": invalid \"tls_verify %V\", it is "
                       "\"on\" or \"off\"", &ctx->provider->name, &value[1]);

    return NGX_CONF_ERROR;
}


static char *
ngx_http_ai_provider_tls_name(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_provider_ctx_t *ctx = conf;

    ngx_str_t  *value;

    value = cf->args->elts;
    ctx->tls = 1;

    if (!ngx_http_ai_conf_name(&value[1], 253)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "provider \"%V\": invalid \"tls_name %V\", it is "
                           "a host name", &ctx->provider->name, &value[1]);
        return NGX_CONF_ERROR;
    }

    ctx->provider->tls_name = value[1];

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_provider_region(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_provider_ctx_t *ctx = conf;

    ngx_str_t  *value;

    value = cf->args->elts;

    if (!ngx_http_ai_conf_name(&value[1], NGX_HTTP_AI_NAME_MAX)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "provider \"%V\": invalid region \"%V\"",
                           &ctx->provider->name, &value[1]);
        return NGX_CONF_ERROR;
    }

    ctx->provider->region = value[1];

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_provider_abort(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_provider_ctx_t *ctx = conf;

    off_t                    size;
    ngx_int_t                t;
    ngx_str_t               *value, s;
    ngx_uint_t               i, max, time;
    ngx_http_ai_provider_t  *provider;

    provider = ctx->provider;
    value = cf->args->elts;
    ctx->abort = 1;
    i = 1;

    if (ngx_strcmp(value[1].data, "cancel") == 0) {
        if (cf->args->nelts == 2) {
            return NGX_CONF_OK;
        }

        i = 2;
        goto invalid;
    }

    if (ngx_strcmp(value[1].data, "drain") != 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "provider \"%V\": invalid \"abort %V\", it is "
                           "\"cancel\" or \"drain\"",
                           &provider->name, &value[1]);
        return NGX_CONF_ERROR;
    }

    provider->drain_bytes = 1024 * 1024;
    provider->drain_time = 30000;

    max = 0;
    time = 0;

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_http_ai_conf_arg(&value[i], "max", &s) && !max) {
            size = ngx_parse_offset(&s);

            if (size == (off_t) NGX_ERROR || size == 0) {
                goto invalid;
            }

            provider->drain_bytes = size;
            max = 1;
            continue;
        }

        if (ngx_http_ai_conf_arg(&value[i], "time", &s) && !time) {
            t = ngx_parse_time(&s, 0);

            if (t == NGX_ERROR || t == 0 || t > 86400 * 1000) {
                goto invalid;
            }

            provider->drain_time = (ngx_msec_t) t;
            time = 1;
            continue;
        }

        goto invalid;
    }

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "provider \"%V\": invalid parameter \"%V\" of "
                       "\"abort %V\"%s", &provider->name, &value[i], &value[1],
                       value[1].data[0] == 'd' ? ", it takes max=SIZE and "
                                                 "time=TIME, each once"
                                               : "");

    return NGX_CONF_ERROR;
}


static char *
ngx_http_ai_provider_text(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_provider_ctx_t *ctx = conf;

    ngx_str_t  *value;

    value = cf->args->elts;

    return ngx_http_ai_conf_complex(cf, &value[1], &ctx->provider->text);
}


static ngx_uint_t
ngx_http_ai_provider_is_value(ngx_str_t *text)
{
    size_t  i;

    for (i = 0; i < text->len; i++) {
        if ((text->data[i] < ' ' && text->data[i] != '\t')
            || text->data[i] == 0x7f)
        {
            return 0;
        }
    }

    return 1;
}


static ngx_http_ai_vendor_t *
ngx_http_ai_vendor_find(ngx_str_t *name)
{
    ngx_uint_t  i;

    for (i = 0; i < NGX_HTTP_AI_VENDORS; i++) {
        if (ngx_http_ai_vendors[i].name.len == name->len
            && ngx_strncmp(ngx_http_ai_vendors[i].name.data, name->data,
                           name->len)
               == 0)
        {
            return &ngx_http_ai_vendors[i];
        }
    }

    return NULL;
}


static ngx_str_t
ngx_http_ai_vendor_near(ngx_pool_t *pool, ngx_str_t *name)
{
    ngx_str_t   names[NGX_HTTP_AI_VENDORS];
    ngx_uint_t  i;

    for (i = 0; i < NGX_HTTP_AI_VENDORS; i++) {
        names[i] = ngx_http_ai_vendors[i].name;
    }

    return ngx_http_ai_near_text(pool, name, names, NGX_HTTP_AI_VENDORS);
}


/* is it the vendor's own host, or one below it (of a region)? */

static ngx_uint_t
ngx_http_ai_vendor_own(ngx_http_ai_vendor_t *vendor, ngx_str_t *host,
    ngx_uint_t sub)
{
    u_char     *p, *last;
    ngx_str_t   own;

    if (vendor->endpoint.len == 0) {
        return 0;
    }

    p = (u_char *) ngx_strstr(vendor->endpoint.data, "://") + 3;
    last = vendor->endpoint.data + vendor->endpoint.len;

    own.data = p;

    p = ngx_strlchr(p, last, ':');
    own.len = (p ? p : last) - own.data;

    if (host->len < own.len
        || ngx_strncmp(host->data + host->len - own.len, own.data, own.len)
           != 0)
    {
        return 0;
    }

    return host->len == own.len
           || (sub && host->data[host->len - own.len - 1] == '.');
}
