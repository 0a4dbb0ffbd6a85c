
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * What the stock upstream engine is given for each provider: settings, the
 * upstream, and a TLS context.
 */


#include "ngx_http_ai_router.h"


static ngx_int_t ngx_http_ai_provider_upstream(ngx_conf_t *cf,
    ngx_http_ai_router_main_conf_t *amcf, ngx_http_ai_provider_t *provider,
    ngx_hash_t *hide);
#if (NGX_HTTP_SSL)
static ngx_int_t ngx_http_ai_provider_ssl(ngx_conf_t *cf,
    ngx_http_ai_router_main_conf_t *amcf, ngx_http_ai_provider_t *provider,
    ngx_uint_t named);
#endif


static ngx_str_t  ngx_http_ai_hide_headers[] = {
    ngx_string("Date"),
    ngx_string("Server"),
    ngx_string("Alt-Svc"),
    ngx_string("Set-Cookie"),
    ngx_string("Strict-Transport-Security"),
    ngx_string("X-Pad"),
    ngx_string("X-Accel-Expires"),
    ngx_string("X-Accel-Redirect"),
    ngx_string("X-Accel-Limit-Rate"),
    ngx_string("X-Accel-Buffering"),
    ngx_string("X-Accel-Charset"),
    ngx_null_string
};


const char *
ngx_http_ai_provider_url(ngx_pool_t *pool, ngx_http_ai_provider_t *provider)
{
    u_char             *p, *last;
    const char         *error;
    ngx_http_ai_url_t   url;

    last = provider->endpoint.data + provider->endpoint.len;
    p = ngx_strlchr(provider->endpoint.data, last, ':');

    for ( /* void */ ; p && p < last; p++) {

        if (*p == '$') {
            return "variables are not supported, use several providers";
        }

        if (*p == '?' || *p == '#') {
            return "a query is not supported";
        }
    }

    error = ngx_http_ai_url_parse(pool, &provider->endpoint, &url);

    if (error) {
        return error;
    }

    provider->ssl = url.ssl;
    provider->host = url.host;
    provider->hostname = url.hostname;
    provider->port = url.port;
    provider->no_port = url.no_port;
    provider->path = url.path;

    while (provider->path.len
           && provider->path.data[provider->path.len - 1] == '/')
    {
        provider->path.len--;
    }

    return NULL;
}


ngx_int_t
ngx_http_ai_provider_init(ngx_conf_t *cf, ngx_http_ai_router_main_conf_t *amcf)
{
    ngx_uint_t                 i, n;
    ngx_hash_t                 hide;
    ngx_hash_key_t             keys[16];
    ngx_hash_init_t            hash;
    ngx_http_ai_provider_t   **p;

    for (n = 0; ngx_http_ai_hide_headers[n].len; n++) {
        keys[n].key = ngx_http_ai_hide_headers[n];
        keys[n].key_hash = ngx_hash_key_lc(keys[n].key.data, keys[n].key.len);
        keys[n].value = (void *) 1;
    }

    hash.hash = &hide;
    hash.key = ngx_hash_key_lc;
    hash.max_size = 512;
    hash.bucket_size = ngx_align(128, ngx_cacheline_size);
    hash.name = "ai_hide_headers_hash";
    hash.pool = cf->pool;
    hash.temp_pool = NULL;

    if (ngx_hash_init(&hash, keys, n) != NGX_OK) {
        return NGX_ERROR;
    }

    p = amcf->providers.elts;

    for (i = 0; i < amcf->providers.nelts; i++) {

        if (p[i]->is_static) {
            continue;
        }

        if (ngx_http_ai_provider_upstream(cf, amcf, p[i], &hide) != NGX_OK) {
            return NGX_ERROR;
        }

#if (NGX_HTTP_SSL)
        if (p[i]->ssl
            && ngx_http_ai_provider_ssl(cf, amcf, p[i], p[i]->peers == NULL)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
#endif
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_provider_upstream(ngx_conf_t *cf,
    ngx_http_ai_router_main_conf_t *amcf, ngx_http_ai_provider_t *provider,
    ngx_hash_t *hide)
{
    ngx_uint_t                       i;
    ngx_http_upstream_conf_t        *conf;
    ngx_http_upstream_srv_conf_t   **uscfp;
    ngx_http_upstream_main_conf_t   *umcf;

    conf = &provider->upstream;

    /*
     * set by ngx_pcalloc():
     *
     *     conf->next_upstream_timeout = 0;
     *     conf->next_upstream_tries = 0;
     *     conf->send_lowat = 0;
     *     conf->limit_rate = 0;
     *     conf->buffering = 0;
     *     conf->request_buffering = 0;
     *     conf->pass_request_headers = 0;
     *     conf->pass_request_body = 0;
     *     conf->intercept_errors = 0;
     *     conf->change_buffering = 0;
     *     conf->preserve_output = 0;
     *     conf->force_ranges = 0;
     *     conf->local = NULL;
     *     conf->cache = 0;
     *     conf->store = 0;
     *     conf->temp_path = NULL;
     *     conf->ssl = NULL;
     */

    conf->connect_timeout = provider->connect;
    conf->send_timeout = 60000;

    /* an attempt has its own timers, which know what is being waited for */

    conf->read_timeout = 24 * 60 * 60 * 1000;

    conf->buffer_size = 16384;
    conf->bufs.num = 8;
    conf->bufs.size = 16384;
    conf->busy_buffers_size = 32768;

    conf->ignore_client_abort = 1;
    conf->socket_keepalive = 1;

    /* X-Accel-Redirect from a provider must not choose a location here */

    conf->ignore_headers = NGX_CONF_BITMASK_SET
                           |NGX_HTTP_UPSTREAM_IGN_XA_REDIRECT
                           |NGX_HTTP_UPSTREAM_IGN_XA_EXPIRES
                           |NGX_HTTP_UPSTREAM_IGN_EXPIRES
                           |NGX_HTTP_UPSTREAM_IGN_CACHE_CONTROL
                           |NGX_HTTP_UPSTREAM_IGN_SET_COOKIE
                           |NGX_HTTP_UPSTREAM_IGN_XA_LIMIT_RATE
                           |NGX_HTTP_UPSTREAM_IGN_XA_BUFFERING
                           |NGX_HTTP_UPSTREAM_IGN_XA_CHARSET
                           |NGX_HTTP_UPSTREAM_IGN_VARY;

    /*
     * Another address of the same provider after a connect or send error;
     * without NON_IDEMPOTENT a POST on a cached connection that the provider
     * has just closed would fail.
     */

    conf->next_upstream = NGX_CONF_BITMASK_SET
                          |NGX_HTTP_UPSTREAM_FT_ERROR
                          |NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT;

    conf->hide_headers = NGX_CONF_UNSET_PTR;
    conf->pass_headers = NGX_CONF_UNSET_PTR;
    conf->hide_headers_hash = *hide;

    ngx_str_set(&conf->module, "ai");

    if (provider->no_port) {

        umcf = ngx_http_conf_get_module_main_conf(cf,
                                                  ngx_http_upstream_module);
        uscfp = umcf->upstreams.elts;

        for (i = 0; i < umcf->upstreams.nelts; i++) {

            if ((uscfp[i]->flags & NGX_HTTP_UPSTREAM_CREATE)
                && uscfp[i]->host.len == provider->hostname.len
                && ngx_strncasecmp(uscfp[i]->host.data,
                                   provider->hostname.data,
                                   provider->hostname.len)
                   == 0)
            {
                conf->upstream = uscfp[i];

                if (provider->tls_name.len) {
                    provider->host = provider->tls_name;
                }

                return NGX_OK;
            }
        }
    }

    return ngx_http_ai_peers_create(cf, amcf, provider);
}


#if (NGX_HTTP_SSL)

static ngx_int_t
ngx_http_ai_provider_ssl(ngx_conf_t *cf, ngx_http_ai_router_main_conf_t *amcf,
    ngx_http_ai_provider_t *provider, ngx_uint_t named)
{
    u_char                    *p, *last;
    ngx_int_t                  rc;
    ngx_str_t                  name;
    ngx_ssl_t                 *ssl;
    ngx_uint_t                 address;
    ngx_http_upstream_conf_t  *conf;
#if (NGX_HAVE_INET6)
    u_char                     addr[16];
#endif

    conf = &provider->upstream;
    name = provider->tls_name.len ? provider->tls_name : provider->hostname;
    address = 0;

    if (provider->tls_name.len == 0) {

        p = name.data;
        last = name.data + name.len;

        if (named && ngx_strlchr(p, last, '.') == NULL) {

            if (provider->tls_verify) {
                (void) ngx_http_ai_conf_error(cf, provider->file,
                                              provider->line,
                                              "provider \"%V\": add "
                                              "\"tls_name\", upstream \"%V\" "
                                              "is no name of a certificate",
                                              &provider->name, &name);
                return NGX_ERROR;
            }

            ngx_str_null(&name);

        } else if (ngx_inet_addr(p, name.len) != INADDR_NONE) {
            address = 1;
        }

#if (NGX_HAVE_INET6)
        else if (ngx_inet6_addr(p, name.len, addr) == NGX_OK) {
            address = 1;
        }
#endif
    }

    rc = amcf->api->tls_client(cf, provider->tls_verify, &provider->tls_ca,
                               &ssl);

    if (rc == NGX_ABORT) {
        (void) ngx_http_ai_conf_error(cf, provider->file, provider->line,
                                      "provider \"%V\": cannot use "
                                      "\"tls_ca %V\"", &provider->name,
                                      &provider->tls_ca);
        return NGX_ERROR;
    }

    if (rc == NGX_DECLINED) {
        (void) ngx_http_ai_conf_error(cf, provider->file, provider->line,
                                      "provider \"%V\": "
                                      NGX_HTTP_AI_NO_CA, &provider->name);
        return NGX_ERROR;
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    conf->ssl_verify = provider->tls_verify;

    if (address) {

        /*
         * The stock check compares host names only: the library checks an
         * address, within the handshake.
         */

        if (provider->tls_verify) {
            if (X509_VERIFY_PARAM_set1_ip_asc(SSL_CTX_get0_param(ssl->ctx),
                                              (char *) name.data)
                != 1)
            {
                ngx_ssl_error(NGX_LOG_EMERG, cf->log, 0,
                              "X509_VERIFY_PARAM_set1_ip_asc(\"%V\") failed",
                              &name);
                return NGX_ERROR;
            }

            SSL_CTX_set_verify(ssl->ctx, SSL_VERIFY_PEER, NULL);

            conf->ssl_verify = 0;
        }

        ngx_str_null(&name);
    }

    if (ngx_ssl_client_session_cache(cf, ssl, 1) != NGX_OK) {
        return NGX_ERROR;
    }

    conf->ssl = ssl;
    conf->ssl_session_reuse = 1;
    conf->ssl_server_name = (name.len != 0);

    conf->ssl_name = ngx_http_ai_conf_literal(cf, &name);
    if (conf->ssl_name == NULL) {
        return NGX_ERROR;
    }

    return NGX_OK;
}

#endif
