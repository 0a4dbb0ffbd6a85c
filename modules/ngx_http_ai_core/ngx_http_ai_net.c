
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_core_module.h"


#define NGX_HTTP_AI_NET_SERVERS  3
#define NGX_HTTP_AI_NET_FILE     1048576
#define NGX_HTTP_AI_NET_RESOLV   "/etc/resolv.conf"
#define NGX_HTTP_AI_NET_HOSTS    "/etc/hosts"


static ngx_int_t ngx_http_ai_net_addr(ngx_pool_t *pool, ngx_str_t *text,
    ngx_array_t *addrs);
static ngx_int_t ngx_http_ai_net_read(ngx_pool_t *pool, ngx_log_t *log,
    const char *path, ngx_str_t *text);
static ngx_int_t ngx_http_ai_net_line(ngx_str_t *text, ngx_str_t *line);
static ngx_int_t ngx_http_ai_net_word(ngx_str_t *line, ngx_str_t *word);
#if (NGX_HTTP_SSL)
static ngx_int_t ngx_http_ai_tls_trust(ngx_conf_t *cf, ngx_ssl_t *ssl,
    ngx_str_t *ca);
static ngx_int_t ngx_http_ai_net_default_ca(ngx_conf_t *cf, SSL_CTX *ssl_ctx);
#endif


ngx_int_t
ngx_http_ai_hosts(ngx_pool_t *pool, ngx_log_t *log, ngx_str_t *name,
    ngx_array_t *addrs)
{
    ngx_int_t   rc;
    ngx_str_t   text, line, addr, word;
    ngx_uint_t  local, found;

    static ngx_str_t  loopback = ngx_string("127.0.0.1");

    local = ((name->len == 9
              || (name->len > 9 && name->data[name->len - 10] == '.'))
             && ngx_strncasecmp(name->data + name->len - 9,
                                (u_char *) "localhost", 9)
                == 0);

    if (local && addrs == NULL) {
        return NGX_OK;
    }

    rc = ngx_http_ai_net_read(pool, log, NGX_HTTP_AI_NET_HOSTS, &text);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    found = 0;

    while (rc == NGX_OK && ngx_http_ai_net_line(&text, &line) == NGX_OK) {

        if (ngx_http_ai_net_word(&line, &addr) != NGX_OK) {
            continue;
        }

        while (ngx_http_ai_net_word(&line, &word) == NGX_OK) {

            if (word.len != name->len
                || ngx_strncasecmp(word.data, name->data, word.len) != 0)
            {
                continue;
            }

            if (addrs == NULL) {
                return NGX_OK;
            }

            switch (ngx_http_ai_net_addr(pool, &addr, addrs)) {

            case NGX_OK:
                found = 1;
                break;

            case NGX_ERROR:
                return NGX_ERROR;
            }

            break;
        }
    }

    if (!found && local) {
        return ngx_http_ai_net_addr(pool, &loopback, addrs);
    }

    return found ? NGX_OK : NGX_DECLINED;
}


static ngx_int_t
ngx_http_ai_net_addr(ngx_pool_t *pool, ngx_str_t *text, ngx_array_t *addrs)
{
    ngx_int_t    rc;
    ngx_addr_t   addr, *a;

    ngx_memzero(&addr, sizeof(ngx_addr_t));

    rc = ngx_parse_addr(pool, &addr, text->data, text->len);

    if (rc != NGX_OK) {
        return rc;
    }

    a = ngx_array_push(addrs);
    if (a == NULL) {
        return NGX_ERROR;
    }

    *a = addr;

    return NGX_OK;
}


ngx_resolver_t *
ngx_http_ai_resolver(ngx_conf_t *cf, ngx_msec_t *timeout)
{
    ngx_int_t                      rc;
    ngx_str_t                      text, line, word;
    ngx_str_t                      names[NGX_HTTP_AI_NET_SERVERS];
    ngx_uint_t                     n;
    ngx_http_core_loc_conf_t      *clcf;
    ngx_http_ai_core_main_conf_t  *amcf;
#if (NGX_HAVE_INET6)
    u_char                         addr6[16], *p;
#endif

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_core_module);

    if (amcf->resolved) {
        *timeout = amcf->resolver_timeout;
        return amcf->resolver;
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    amcf->resolved = 1;
    amcf->resolver_timeout = 30000;

    if (clcf->resolver_timeout != NGX_CONF_UNSET_MSEC) {
        amcf->resolver_timeout = clcf->resolver_timeout;
    }

    *timeout = amcf->resolver_timeout;

    /* without "resolver" the merge has put an empty one in */

    if (clcf->resolver && clcf->resolver->connections.nelts) {
        amcf->resolver = clcf->resolver;
        return amcf->resolver;
    }

    rc = ngx_http_ai_net_read(cf->pool, cf->log, NGX_HTTP_AI_NET_RESOLV,
                              &text);

    if (rc == NGX_ERROR) {
        return NULL;
    }

    n = 0;

    while (rc == NGX_OK && n < NGX_HTTP_AI_NET_SERVERS
           && ngx_http_ai_net_line(&text, &line) == NGX_OK)
    {
        if (ngx_http_ai_net_word(&line, &word) != NGX_OK
            || !ngx_http_ai_str_is(&word, "nameserver")
            || ngx_http_ai_net_word(&line, &word) != NGX_OK)
        {
            continue;
        }

        if (ngx_inet_addr(word.data, word.len) != INADDR_NONE) {
            names[n++] = word;
            continue;
        }

#if (NGX_HAVE_INET6)
        /* one with "%interface" is not usable */

        if (ngx_inet6_addr(word.data, word.len, addr6) == NGX_OK) {

            p = ngx_pnalloc(cf->pool, word.len + 2);
            if (p == NULL) {
                return NULL;
            }

            names[n].len = ngx_sprintf(p, "[%V]", &word) - p;
            names[n++].data = p;
        }
#endif
    }

    if (n) {
        amcf->resolver = ngx_resolver_create(cf, names, n);
    }

    return amcf->resolver;
}


/* NGX_DECLINED: there is no such file */

static ngx_int_t
ngx_http_ai_net_read(ngx_pool_t *pool, ngx_log_t *log, const char *path,
    ngx_str_t *text)
{
    off_t            size;
    ssize_t          n;
    ngx_fd_t         fd;
    ngx_int_t        rc;
    ngx_file_info_t  fi;

    fd = ngx_open_file(path, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE) {
        return NGX_DECLINED;
    }

    rc = NGX_DECLINED;

    if (ngx_fd_info(fd, &fi) == NGX_FILE_ERROR || !ngx_is_file(&fi)) {
        goto done;
    }

    size = ngx_min(ngx_file_size(&fi), NGX_HTTP_AI_NET_FILE);

    /* names are pointers into the text, the resolver keeps them */

    text->data = ngx_pnalloc(pool, size + 1);
    if (text->data == NULL) {
        rc = NGX_ERROR;
        goto done;
    }

    n = ngx_read_fd(fd, text->data, size);

    if (n >= 0) {
        text->len = n;
        rc = NGX_OK;
    }

done:

    if (ngx_close_file(fd) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_ALERT, log, ngx_errno,
                      ngx_close_file_n " \"%s\" failed", path);
    }

    return rc;
}


static ngx_int_t
ngx_http_ai_net_line(ngx_str_t *text, ngx_str_t *line)
{
    u_char  *p, *last;

    if (text->len == 0) {
        return NGX_DECLINED;
    }

    last = text->data + text->len;

    p = ngx_strlchr(text->data, last, LF);
    if (p == NULL) {
        p = last;
    }

    line->data = text->data;
    line->len = p - text->data;

    text->data = (p < last) ? p + 1 : last;
    text->len = last - text->data;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_net_word(ngx_str_t *line, ngx_str_t *word)
{
    u_char  *p, *last;

    p = line->data;
    last = p + line->len;

    while (p < last && (*p == ' ' || *p == '\t' || *p == CR)) {
        p++;
    }

    word->data = p;

    while (p < last && *p != ' ' && *p != '\t' && *p != CR
           && *p != '#' && *p != ';')
    {
        p++;
    }

    word->len = p - word->data;

    if (p < last && (*p == '#' || *p == ';')) {
        last = p;
    }

    line->data = p;
    line->len = last - p;

    return word->len ? NGX_OK : NGX_DECLINED;
}


ngx_err_t
ngx_http_ai_connect_error(ngx_connection_t *c)
{
    int        err;
    socklen_t  len;

    err = 0;
    len = sizeof(int);

    /* BSDs and Linux return 0 and set a pending error in err, Solaris
     * returns -1 and sets errno */

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, (void *) &err, &len) == -1) {
        err = ngx_socket_errno;
    }

    return err;
}


#if (NGX_HTTP_SSL)

ngx_int_t
ngx_http_ai_tls_client(ngx_conf_t *cf, ngx_uint_t verify, ngx_str_t *ca,
    ngx_ssl_t **client)
{
    ngx_int_t            rc;
    ngx_ssl_t           *ssl;
    ngx_pool_cleanup_t  *cln;

    ssl = ngx_pcalloc(cf->pool, sizeof(ngx_ssl_t));
    if (ssl == NULL) {
        return NGX_ERROR;
    }

    ssl->log = cf->log;

    if (ngx_ssl_create(ssl, NGX_SSL_TLSv1_2|NGX_SSL_TLSv1_3, NULL) != NGX_OK) {
        return NGX_ERROR;
    }

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        ngx_ssl_cleanup_ctx(ssl);
        return NGX_ERROR;
    }

    cln->handler = ngx_ssl_cleanup_ctx;
    cln->data = ssl;

    if (verify) {
        rc = ngx_http_ai_tls_trust(cf, ssl, ca);

        if (rc != NGX_OK) {
            return (rc == NGX_ERROR) ? NGX_ABORT : rc;
        }
    }

    *client = ssl;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_tls_trust(ngx_conf_t *cf, ngx_ssl_t *ssl, ngx_str_t *ca)
{
    ngx_str_t  name;

    ngx_str_null(&name);

    if (ca->len) {
        name = *ca;
    }

    /* with an empty name it sets the depth and the callback */

    if (ngx_ssl_trusted_certificate(cf, ssl, &name, 3) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ca->len) {
        return NGX_OK;
    }

    return ngx_http_ai_net_default_ca(cf, ssl->ctx);
}


/*
 * The system's bundle is about 140 certificates and 1 MB: read once, shared
 * by all of the cycle.
 */

static ngx_int_t
ngx_http_ai_net_default_ca(ngx_conf_t *cf, SSL_CTX *ssl_ctx)
{
    char                          *name;
    ngx_uint_t                     i, found;
    ngx_file_info_t                fi;
    ngx_http_ai_core_main_conf_t  *amcf;

    static const char  *bundles[] = {
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
        NULL
    };

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_core_module);

#if (OPENSSL_VERSION_NUMBER >= 0x10101000L                                    \
     && !defined(LIBRESSL_VERSION_NUMBER))

    if (amcf->store) {
        SSL_CTX_set1_cert_store(ssl_ctx, amcf->store);
        return NGX_OK;
    }

#endif

    if (SSL_CTX_set_default_verify_paths(ssl_ctx) != 1) {
        ngx_ssl_error(NGX_LOG_EMERG, cf->log, 0,
                      "SSL_CTX_set_default_verify_paths() failed");
        return NGX_ERROR;
    }

    name = getenv(X509_get_default_cert_file_env());
    if (name == NULL) {
        name = (char *) X509_get_default_cert_file();
    }

    found = (ngx_file_info(name, &fi) != NGX_FILE_ERROR);

    for (i = 0; !found && bundles[i]; i++) {

        if (ngx_file_info(bundles[i], &fi) == NGX_FILE_ERROR) {
            continue;
        }

        if (SSL_CTX_load_verify_locations(ssl_ctx, bundles[i], NULL) != 1) {
            ngx_ssl_error(NGX_LOG_EMERG, cf->log, 0,
                          "SSL_CTX_load_verify_locations(\"%s\") failed",
                          bundles[i]);
            return NGX_ERROR;
        }

        found = 1;
    }

    ERR_clear_error();

    if (!found
        && ngx_file_info(X509_get_default_cert_dir(), &fi) == NGX_FILE_ERROR)
    {
        return NGX_DECLINED;
    }

    amcf->store = SSL_CTX_get_cert_store(ssl_ctx);

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_tls_start(ngx_ssl_t *ssl, ngx_connection_t *c, ngx_pool_t *pool,
    ngx_str_t *name, ngx_uint_t verify, ngx_http_ai_tls_peer_t *peer)
{
    char    *text;
#if (NGX_HAVE_INET6)
    u_char   addr[16];
#endif

    if (ngx_ssl_create_connection(ssl, c, NGX_SSL_BUFFER|NGX_SSL_CLIENT)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* OpenSSL takes a string with NUL */

    text = ngx_pcalloc(pool, name->len + 1);
    if (text == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(text, name->data, name->len);

    peer->name.data = (u_char *) text;
    peer->name.len = name->len;
    peer->verify = verify;
    peer->address = (ngx_inet_addr(name->data, name->len) != INADDR_NONE);

#if (NGX_HAVE_INET6)
    if (ngx_inet6_addr(name->data, name->len, addr) == NGX_OK) {
        peer->address = 1;
    }
#endif

    if (!peer->address) {

        if (SSL_set_tlsext_host_name(c->ssl->connection, text) == 0) {
            ngx_ssl_error(NGX_LOG_ERR, c->log, 0,
                          "SSL_set_tlsext_host_name(\"%s\") failed", text);
            return NGX_ERROR;
        }

        return NGX_OK;
    }

    /* the stock check compares host names only, an address is the library's */

    if (verify
        && X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(c->ssl->connection),
                                         text)
           != 1)
    {
        ngx_ssl_error(NGX_LOG_ERR, c->log, 0,
                      "X509_VERIFY_PARAM_set1_ip_asc(\"%s\") failed", text);
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_tls_check(ngx_connection_t *c, ngx_http_ai_tls_peer_t *peer,
    long *reason)
{
    if (!peer->verify) {
        return NGX_OK;
    }

    *reason = SSL_get_verify_result(c->ssl->connection);

    if (*reason != X509_V_OK) {
        return NGX_DECLINED;
    }

    if (!peer->address && ngx_ssl_check_host(c, &peer->name) != NGX_OK) {
        return NGX_ABORT;
    }

    return NGX_OK;
}

#endif
