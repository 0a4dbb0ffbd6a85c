
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * What connections of the gateway's own have in common: who resolves names,
 * how the end of a connect is seen, whose certificates are trusted.
 */


#ifndef _NGX_HTTP_AI_NET_H_INCLUDED_
#define _NGX_HTTP_AI_NET_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


/*
 * The resolver for background work: that of http {}, or one made of
 * /etc/resolv.conf; NULL: none.  Call it after all of http {} was read.
 */
ngx_resolver_t *ngx_http_ai_resolver(ngx_conf_t *cf, ngx_msec_t *timeout);

/*
 * NGX_OK: the name is the machine's own (localhost, or in /etc/hosts), DNS has
 * no say in it; its addresses (ngx_addr_t without port) are added to addrs,
 * unless that is NULL.  NGX_DECLINED: it is not.
 */
ngx_int_t ngx_http_ai_hosts(ngx_pool_t *pool, ngx_log_t *log, ngx_str_t *name,
    ngx_array_t *addrs);

/* of a connection that has become writable: 0, or why connect() has failed */
ngx_err_t ngx_http_ai_connect_error(ngx_connection_t *c);


#if (NGX_HTTP_SSL)

/*
 * A client's context, freed with cf->pool.  verify: by the certificates of the
 * file ca or, when it is empty, those of the system, read once for all
 * contexts of the cycle.  NGX_DECLINED: the system has none; NGX_ABORT: ca
 * cannot be used; NGX_ERROR: anything else, logged.
 */
ngx_int_t ngx_http_ai_tls_client(ngx_conf_t *cf, ngx_uint_t verify,
    ngx_str_t *ca, ngx_ssl_t **ssl);


/* who the other side has to be */

typedef struct {
    ngx_str_t                  name;          /* with a NUL behind it */
    unsigned                   verify:1;
    unsigned                   address:1;
} ngx_http_ai_tls_peer_t;

/* TLS on a connection, before its handshake; name is copied to the pool */
ngx_int_t ngx_http_ai_tls_start(ngx_ssl_t *ssl, ngx_connection_t *c,
    ngx_pool_t *pool, ngx_str_t *name, ngx_uint_t verify,
    ngx_http_ai_tls_peer_t *peer);

/* after the handshake.  NGX_DECLINED: the certificate is not trusted, *reason
 * is of X509_verify_cert_error_string(); NGX_ABORT: it is somebody else's */
ngx_int_t ngx_http_ai_tls_check(ngx_connection_t *c,
    ngx_http_ai_tls_peer_t *peer, long *reason);

#endif

#define NGX_HTTP_AI_NO_CA                                                     \
    "this system has no CA certificates, install package ca-certificates or " \
    "add \"tls_ca\""


#endif /* _NGX_HTTP_AI_NET_H_INCLUDED_ */
