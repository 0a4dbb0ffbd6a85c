
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * One exchange is one pool, one connection at a time and two timers.  Whatever
 * happens ends in ngx_http_ai_fetch_finish(), which calls the handler and
 * frees all of it.
 */


#include "ngx_http_ai_fetch_ctx.h"


#define NGX_HTTP_AI_FETCH_ADDRS    4
#define NGX_HTTP_AI_FETCH_BUFFER   16384
#define NGX_HTTP_AI_FETCH_RUNNING  1024


static ngx_int_t ngx_http_ai_fetch_request(ngx_http_ai_fetch_ctx_t *x);
static ngx_uint_t ngx_http_ai_fetch_clean(ngx_str_t *text, ngx_uint_t lines);
static void ngx_http_ai_fetch_rewind(ngx_http_ai_fetch_ctx_t *x);
static void ngx_http_ai_fetch_start(ngx_event_t *ev);
static void ngx_http_ai_fetch_resolve(ngx_http_ai_fetch_ctx_t *x);
static void ngx_http_ai_fetch_resolved(ngx_resolver_ctx_t *ctx);
static ngx_int_t ngx_http_ai_fetch_add(ngx_http_ai_fetch_ctx_t *x,
    struct sockaddr *sockaddr, socklen_t socklen);
static void ngx_http_ai_fetch_connect(ngx_http_ai_fetch_ctx_t *x);
static void ngx_http_ai_fetch_next(ngx_http_ai_fetch_ctx_t *x);
static void ngx_http_ai_fetch_connect_handler(ngx_event_t *ev);
static void ngx_http_ai_fetch_connected(ngx_http_ai_fetch_ctx_t *x);
#if (NGX_HTTP_SSL)
static ngx_int_t ngx_http_ai_fetch_ssl(ngx_conf_t *cf,
    ngx_http_ai_fetcher_t *fetcher);
static void ngx_http_ai_fetch_handshake(ngx_connection_t *c);
#endif
static void ngx_http_ai_fetch_write_handler(ngx_event_t *ev);
static void ngx_http_ai_fetch_read_handler(ngx_event_t *ev);
static ngx_int_t ngx_http_ai_fetch_again(ngx_http_ai_fetch_ctx_t *x);
static void ngx_http_ai_fetch_timer_handler(ngx_event_t *ev);
static void ngx_http_ai_fetch_wait_handler(ngx_event_t *ev);
static void ngx_http_ai_fetch_close(ngx_http_ai_fetch_ctx_t *x);
static void ngx_http_ai_fetch_finish(ngx_http_ai_fetch_ctx_t *x);
static u_char *ngx_http_ai_fetch_log_error(ngx_log_t *log, u_char *buf,
    size_t len);


ngx_http_ai_fetcher_t *
ngx_http_ai_fetcher_create(ngx_conf_t *cf, ngx_http_ai_fetch_conf_t *conf)
{
    const char             *error;
    ngx_http_ai_fetcher_t  *fetcher;

    fetcher = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_fetcher_t));
    if (fetcher == NULL) {
        return NULL;
    }

    fetcher->conf = *conf;
    fetcher->amcf = ngx_http_conf_get_module_main_conf(cf,
                                                      ngx_http_ai_core_module);

    error = ngx_http_ai_url_parse(cf->pool, &conf->url, &fetcher->url);

    if (error) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid URL \"%V\": %s",
                           &conf->url, error);
        return NULL;
    }

    fetcher->amcf->fetchers++;

    /* a name is resolved at run time; the resolver is known later */

    if (fetcher->amcf->configured) {
        (void) ngx_http_ai_resolver(cf, &fetcher->amcf->resolver_timeout);
    }

    if (!fetcher->url.ssl) {
        return fetcher;
    }

#if (NGX_HTTP_SSL)

    if (ngx_http_ai_fetch_ssl(cf, fetcher) != NGX_OK) {
        return NULL;
    }

    return fetcher;

#else

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "\"%V\" needs an nginx with TLS, this one was built "
                       "without http_ssl_module", &conf->url);
    return NULL;

#endif
}


#if (NGX_HTTP_SSL)

static ngx_int_t
ngx_http_ai_fetch_ssl(ngx_conf_t *cf, ngx_http_ai_fetcher_t *fetcher)
{
    ngx_str_t  ca;

    ca = fetcher->conf.tls_ca;

    switch (ngx_http_ai_tls_client(cf, fetcher->conf.tls_verify, &ca,
                                   &fetcher->ssl))
    {

    case NGX_OK:
        return NGX_OK;

    case NGX_DECLINED:
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, NGX_HTTP_AI_NO_CA);
        return NGX_ERROR;

    case NGX_ABORT:
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "cannot use \"tls_ca %V\"",
                           &fetcher->conf.tls_ca);
        return NGX_ERROR;

    default:
        return NGX_ERROR;
    }
}

#endif


ngx_int_t
ngx_http_ai_fetch(ngx_http_ai_fetcher_t *fetcher, ngx_str_t *url,
    ngx_http_ai_fetch_t *f)
{
    u_char                   *p;
    ngx_log_t                *log;
    ngx_pool_t               *pool;
    const char               *error;
    ngx_http_ai_fetch_ctx_t  *x;

    /* not one of the master's: its queue is initialized in workers */

    if (fetcher->amcf->nfetches >= NGX_HTTP_AI_FETCH_RUNNING
        || fetcher->amcf->fetches.next == NULL)
    {
        return NGX_ERROR;
    }

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        return NGX_ERROR;
    }

    x = ngx_pcalloc(pool, sizeof(ngx_http_ai_fetch_ctx_t));
    if (x == NULL) {
        goto failed;
    }

    log = ngx_palloc(pool, sizeof(ngx_log_t));
    if (log == NULL) {
        goto failed;
    }

    *log = *ngx_cycle->log;
    log->handler = ngx_http_ai_fetch_log_error;
    log->data = x;
    log->action = NULL;

    if (f->quiet && log->log_level < NGX_LOG_DEBUG) {
        log->log_level = ngx_min(log->log_level, NGX_LOG_ALERT);
    }

    pool->log = log;

    x->fetch = *f;
    x->fetch.status = 0;
    x->fetch.error = NULL;
    ngx_str_null(&x->fetch.answer);
    x->fetch.max_age = -1;
    x->fetch.retry_after = 0;

    x->pool = pool;
    x->log = log;
    x->fetcher = fetcher;
    x->url = fetcher->url;
    x->text = fetcher->conf.url;

    if (url) {
        x->other = 1;

        x->text.data = ngx_pstrdup(pool, url);
        if (x->text.data == NULL) {
            goto failed;
        }

        x->text.len = url->len;

        error = ngx_http_ai_url_parse(pool, &x->text, &x->url);

        if (error || (fetcher->url.ssl && !x->url.ssl)) {
            goto failed;
        }
    }

#if (NGX_HTTP_SSL)
    if (x->url.ssl && fetcher->ssl == NULL) {
        goto failed;
    }
#endif

    /* neither a header nor a second request may come in by a URL or a name */

    if (!ngx_http_ai_fetch_clean(&x->fetch.method, 0)
        || !ngx_http_ai_fetch_clean(&x->fetch.path, 0)
        || !ngx_http_ai_fetch_clean(&x->fetch.headers, 1))
    {
        goto failed;
    }

    if (x->fetch.path.len == 0) {
        x->fetch.path = x->url.path;
    }

    if (x->fetch.path.len == 0 || x->fetch.path.data[0] != '/') {

        p = ngx_pnalloc(pool, x->fetch.path.len + 1);
        if (p == NULL) {
            goto failed;
        }

        *p = '/';
        ngx_memcpy(p + 1, x->fetch.path.data, x->fetch.path.len);

        x->fetch.path.data = p;
        x->fetch.path.len++;
    }

    if (ngx_http_ai_fetch_request(x) != NGX_OK) {
        goto failed;
    }

    if (ngx_array_init(&x->addrs, pool, NGX_HTTP_AI_FETCH_ADDRS,
                       sizeof(ngx_addr_t))
        != NGX_OK)
    {
        goto failed;
    }

    x->start.handler = ngx_http_ai_fetch_start;
    x->start.data = x;
    x->start.log = log;

    x->timer.handler = ngx_http_ai_fetch_timer_handler;
    x->timer.data = x;
    x->timer.log = log;
    x->timer.cancelable = 1;

    x->wait.handler = ngx_http_ai_fetch_wait_handler;
    x->wait.data = x;
    x->wait.log = log;
    x->wait.cancelable = 1;

    ngx_queue_insert_tail(&fetcher->amcf->fetches, &x->queue);
    fetcher->amcf->nfetches++;

    ngx_add_timer(&x->timer, fetcher->conf.timeout);
    ngx_post_event(&x->start, &ngx_posted_next_events);

    return NGX_OK;

failed:

    pool->log = ngx_cycle->log;
    ngx_destroy_pool(pool);

    return NGX_ERROR;
}


static ngx_uint_t
ngx_http_ai_fetch_clean(ngx_str_t *text, ngx_uint_t lines)
{
    size_t  i;

    for (i = 0; i < text->len; i++) {

        if (lines ? text->data[i] == '\0' : text->data[i] <= ' ') {
            return 0;
        }
    }

    return 1;
}


static ngx_int_t
ngx_http_ai_fetch_request(ngx_http_ai_fetch_ctx_t *x)
{
    size_t                len;
    ngx_buf_t            *b;
    ngx_http_ai_fetch_t  *f;

    static ngx_str_t  get = ngx_string("GET");
    static ngx_str_t  close = ngx_string("Connection: close" CRLF);
    static ngx_str_t  none = ngx_null_string;

    f = &x->fetch;

    if (f->method.len == 0) {
        f->method = get;
    }

    len = f->method.len + f->path.len + x->url.host.len + f->headers.len
          + (f->keep ? 0 : f->body.len) + close.len + NGX_SIZE_T_LEN
          + sizeof("  HTTP/1.1" CRLF
                   "Host: " CRLF
                   "User-Agent: nginx-ai-gateway/" NGX_HTTP_AI_VERSION CRLF
                   "Accept: */*" CRLF
                   "Accept-Encoding: identity" CRLF
                   "Content-Length: " CRLF CRLF);

    b = ngx_create_temp_buf(x->pool, len);
    if (b == NULL) {
        return NGX_ERROR;
    }

    b->last = ngx_sprintf(b->last, "%V %V HTTP/1.1" CRLF
                          "Host: %V" CRLF
                          "User-Agent: nginx-ai-gateway/"
                          NGX_HTTP_AI_VERSION CRLF
                          "Accept: */*" CRLF
                          "Accept-Encoding: identity" CRLF
                          "%V%V",
                          &f->method, &f->path, &x->url.host,
                          x->fetcher->conf.idle ? &none : &close,
                          &f->headers);

    if (f->body.len || !ngx_http_ai_str_is(&f->method, "GET")) {
        b->last = ngx_sprintf(b->last, "Content-Length: %uz" CRLF,
                              f->body.len);
    }

    b->last = ngx_cpymem(b->last, CRLF, sizeof(CRLF) - 1);

    if (!f->keep) {
        b->last = ngx_cpymem(b->last, f->body.data, f->body.len);

    } else if (f->body.len) {
        x->body.start = f->body.data;
        x->body.end = f->body.data + f->body.len;
        x->body.memory = 1;

        x->chain[0].next = &x->chain[1];
        x->chain[1].buf = &x->body;
    }

    b->end = b->last;
    x->chain[0].buf = b;

    x->request = b;

    /* the caller's memory need not outlive the call */

    ngx_str_null(&f->method);
    ngx_str_null(&f->path);
    ngx_str_null(&f->headers);
    ngx_str_null(&f->body);

    return NGX_OK;
}


/* all of the request is to be sent */

static void
ngx_http_ai_fetch_rewind(ngx_http_ai_fetch_ctx_t *x)
{
    x->request->pos = x->request->start;
    x->request->last = x->request->end;

    x->body.pos = x->body.start;
    x->body.last = x->body.end;

    /* of TLS it would wait for more */

    if (x->chain[0].next) {
        x->body.flush = 1;

    } else {
        x->request->flush = 1;
    }

    x->unsent = x->chain;
}


static void
ngx_http_ai_fetch_start(ngx_event_t *ev)
{
    ngx_http_ai_fetch_ctx_t  *x;

    x = ev->data;

    ngx_http_ai_fetch_rewind(x);

    if (ngx_http_ai_fetch_take(x) == NGX_OK) {
        ngx_http_ai_fetch_connected(x);
        return;
    }

    ngx_http_ai_fetch_resolve(x);
}


static void
ngx_http_ai_fetch_resolve(ngx_http_ai_fetch_ctx_t *x)
{
    ngx_int_t                      rc;
    ngx_addr_t                     addr;
    ngx_str_t                     *name;
    ngx_resolver_ctx_t            *ctx;
    ngx_http_ai_core_main_conf_t  *amcf;

    name = &x->url.hostname;
    amcf = x->fetcher->amcf;

    ngx_memzero(&addr, sizeof(ngx_addr_t));

    rc = ngx_parse_addr(x->pool, &addr, name->data, name->len);

    if (rc == NGX_OK) {
        rc = ngx_http_ai_fetch_add(x, addr.sockaddr, addr.socklen);

    } else if (rc == NGX_DECLINED) {
        rc = ngx_http_ai_hosts(x->pool, x->log, name, &x->addrs);
    }

    if (rc == NGX_OK) {
        ngx_http_ai_fetch_connect(x);
        return;
    }

    if (rc == NGX_ERROR) {
        ngx_http_ai_fetch_fail(x, 0, "no memory");
        return;
    }

    if (amcf->resolver == NULL) {
        ngx_http_ai_fetch_fail(x, 0, "no resolver for \"%V\", add the "
                               "directive \"resolver\"", name);
        return;
    }

    ctx = ngx_resolve_start(amcf->resolver, NULL);

    if (ctx == NULL || ctx == NGX_NO_RESOLVER) {
        ngx_http_ai_fetch_fail(x, 0, "no resolver for \"%V\"", name);
        return;
    }

    ctx->name = *name;
    ctx->handler = ngx_http_ai_fetch_resolved;
    ctx->data = x;
    ctx->timeout = x->fetcher->conf.timeout;
    ctx->cancelable = 1;

    /* the handler may be called at once, and has freed ctx then */

    x->resolving = ctx;

    if (ngx_resolve_name(ctx) != NGX_OK) {
        x->resolving = NULL;
        ngx_http_ai_fetch_fail(x, 0, "\"%V\" could not be resolved", name);
    }
}


static void
ngx_http_ai_fetch_resolved(ngx_resolver_ctx_t *ctx)
{
    ngx_uint_t                i;
    ngx_http_ai_fetch_ctx_t  *x;

    x = ctx->data;
    x->resolving = NULL;

    if (ctx->state || ctx->naddrs == 0) {
        ngx_http_ai_fetch_fail(x, 0, "\"%V\" could not be resolved (%s)",
                               &x->url.hostname,
                               ctx->state ? ngx_resolver_strerror(ctx->state)
                                          : "no address");
        goto done;
    }

    for (i = 0; i < ctx->naddrs && i < NGX_HTTP_AI_FETCH_ADDRS; i++) {

        if (ngx_http_ai_fetch_add(x, ctx->addrs[i].sockaddr,
                                  ctx->addrs[i].socklen)
            != NGX_OK)
        {
            ngx_http_ai_fetch_fail(x, 0, "no memory");
            goto done;
        }
    }

    ngx_http_ai_fetch_connect(x);

done:

    ngx_resolve_name_done(ctx);
}


static ngx_int_t
ngx_http_ai_fetch_add(ngx_http_ai_fetch_ctx_t *x, struct sockaddr *sockaddr,
    socklen_t socklen)
{
    ngx_addr_t  *addr;

    addr = ngx_array_push(&x->addrs);
    if (addr == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(addr, sizeof(ngx_addr_t));

    addr->sockaddr = ngx_palloc(x->pool, socklen);
    if (addr->sockaddr == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(addr->sockaddr, sockaddr, socklen);
    addr->socklen = socklen;

    return NGX_OK;
}


static void
ngx_http_ai_fetch_connect(ngx_http_ai_fetch_ctx_t *x)
{
    ngx_int_t          rc;
    ngx_addr_t        *addr;
    ngx_connection_t  *c;

    if (x->next >= x->addrs.nelts) {
        ngx_http_ai_fetch_fail(x, 0, "no address for \"%V\"",
                               &x->url.hostname);
        return;
    }

    addr = x->addrs.elts;
    addr += x->next++;

    ngx_inet_set_port(addr->sockaddr, x->url.port);

    addr->name.data = ngx_pnalloc(x->pool, NGX_SOCKADDR_STRLEN);
    if (addr->name.data == NULL) {
        ngx_http_ai_fetch_fail(x, 0, "no memory");
        return;
    }

    addr->name.len = ngx_sock_ntop(addr->sockaddr, addr->socklen,
                                   addr->name.data, NGX_SOCKADDR_STRLEN, 1);

    ngx_memzero(&x->peer, sizeof(ngx_peer_connection_t));

    x->peer.sockaddr = addr->sockaddr;
    x->peer.socklen = addr->socklen;
    x->peer.name = &addr->name;
    x->peer.get = ngx_event_get_peer;
    x->peer.log = x->log;
    x->peer.log_error = NGX_ERROR_ERR;

    x->log->action = "connecting";

    rc = ngx_event_connect_peer(&x->peer);

    if (rc == NGX_ERROR || rc == NGX_BUSY || rc == NGX_DECLINED) {
        ngx_http_ai_fetch_next(x);
        return;
    }

    c = x->peer.connection;

    c->data = x;
    c->log->connection = c->number;

    c->read->handler = ngx_http_ai_fetch_connect_handler;
    c->write->handler = ngx_http_ai_fetch_connect_handler;

    c->pool = ngx_create_pool(256, x->log);
    if (c->pool == NULL) {
        ngx_http_ai_fetch_fail(x, 0, "no memory");
        return;
    }

    /* one silent address of several must not use up the time of all */

    if (x->next < x->addrs.nelts) {
        ngx_add_timer(&x->wait, x->fetcher->conf.timeout
                                / (x->addrs.nelts - x->next + 1));
    }

    if (rc == NGX_OK) {
        ngx_http_ai_fetch_connected(x);
    }
}


static void
ngx_http_ai_fetch_next(ngx_http_ai_fetch_ctx_t *x)
{
    ngx_addr_t  *addr;

    ngx_http_ai_fetch_close(x);

    if (x->next < x->addrs.nelts) {
        ngx_http_ai_fetch_connect(x);
        return;
    }

    addr = x->addrs.elts;

    ngx_http_ai_fetch_fail(x, 0, "could not connect to %V",
                           &addr[x->next - 1].name);
}


static void
ngx_http_ai_fetch_wait_handler(ngx_event_t *ev)
{
    ngx_http_ai_fetch_ctx_t  *x;

    x = ev->data;

    if (!x->connected) {
        ngx_http_ai_fetch_next(x);
    }
}


static void
ngx_http_ai_fetch_connect_handler(ngx_event_t *ev)
{
    ngx_err_t                 err;
    ngx_connection_t         *c;
    ngx_http_ai_fetch_ctx_t  *x;

    c = ev->data;
    x = c->data;

    err = ngx_http_ai_connect_error(c);

    if (err) {
        (void) ngx_connection_error(c, err, "connect() failed");

        if (x->next < x->addrs.nelts) {
            ngx_http_ai_fetch_next(x);

        } else {
            ngx_http_ai_fetch_fail(x, err, "could not connect to %V",
                                   x->peer.name);
        }

        return;
    }

    ngx_http_ai_fetch_connected(x);
}


static void
ngx_http_ai_fetch_connected(ngx_http_ai_fetch_ctx_t *x)
{
    ngx_connection_t  *c;
#if (NGX_HTTP_SSL)
    ngx_int_t          rc;
#endif

    c = x->peer.connection;
    x->connected = 1;

    if (x->wait.timer_set) {
        ngx_del_timer(&x->wait);
    }

#if (NGX_HTTP_SSL)

    if (x->url.ssl && c->ssl == NULL) {

        x->log->action = "handshaking";

        if (ngx_http_ai_tls_start(x->fetcher->ssl, c, x->pool,
                                  x->fetcher->conf.tls_name.len
                                  ? &x->fetcher->conf.tls_name
                                  : &x->url.hostname,
                                  x->fetcher->conf.tls_verify, &x->tls)
            != NGX_OK)
        {
            ngx_http_ai_fetch_fail(x, 0, "TLS could not be started");
            return;
        }

        rc = ngx_ssl_handshake(c);

        if (rc == NGX_AGAIN) {
            c->ssl->handler = ngx_http_ai_fetch_handshake;
            return;
        }

        ngx_http_ai_fetch_handshake(c);
        return;
    }

#endif

    x->log->action = "sending a request";

    /* on a kept connection the last segment would wait for the one before */

    if (x->fetcher->conf.idle && ngx_tcp_nodelay(c) != NGX_OK) {
        ngx_http_ai_fetch_fail(x, 0, "TCP_NODELAY could not be set");
        return;
    }

    c->write->handler = ngx_http_ai_fetch_write_handler;
    c->read->handler = ngx_http_ai_fetch_read_handler;

    ngx_http_ai_fetch_write_handler(c->write);
}


#if (NGX_HTTP_SSL)

static void
ngx_http_ai_fetch_handshake(ngx_connection_t *c)
{
    long                      rc;
    ngx_http_ai_fetch_ctx_t  *x;

    x = c->data;

    if (!c->ssl->handshaked) {
        ngx_http_ai_fetch_fail(x, 0, "TLS handshake with %V failed",
                               x->peer.name);
        return;
    }

    switch (ngx_http_ai_tls_check(c, &x->tls, &rc)) {

    case NGX_OK:
        break;

    case NGX_DECLINED:
        ngx_http_ai_fetch_fail(x, 0, "certificate of \"%V\" is not "
                               "trusted (%l: %s)", &x->tls.name, rc,
                               X509_verify_cert_error_string(rc));
        return;

    default: /* NGX_ABORT */
        ngx_http_ai_fetch_fail(x, 0, "certificate is not one of \"%V\"",
                               &x->tls.name);
        return;
    }

    ngx_http_ai_fetch_connected(x);
}

#endif


static void
ngx_http_ai_fetch_write_handler(ngx_event_t *ev)
{
    ngx_chain_t              *cl;
    ngx_connection_t         *c;
    ngx_http_ai_fetch_ctx_t  *x;

    c = ev->data;
    x = c->data;

    while (x->unsent || c->buffered) {

        cl = c->send_chain(c, x->unsent, 0);

        if (cl == NGX_CHAIN_ERROR) {

            if (ngx_http_ai_fetch_again(x) != NGX_OK) {
                ngx_http_ai_fetch_fail(x, 0, "the request could not be sent");
            }

            return;
        }

        x->unsent = cl;

        if ((cl || c->buffered) && !ev->ready) {

            if (ngx_handle_write_event(ev, 0) != NGX_OK) {
                ngx_http_ai_fetch_fail(x, 0, "no event");
            }

            return;
        }
    }

    x->log->action = "reading an answer";

    ev->handler = ngx_http_ai_fetch_dummy_handler;

    if (ngx_handle_write_event(ev, 0) != NGX_OK) {
        ngx_http_ai_fetch_fail(x, 0, "no event");
        return;
    }

    /* an answer may be here already, and its event be gone */

    if (c->read->ready) {
        ngx_http_ai_fetch_read_handler(c->read);
    }
}


void
ngx_http_ai_fetch_dummy_handler(ngx_event_t *ev)
{
    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, ev->log, 0, "ai fetch dummy handler");
}


static void
ngx_http_ai_fetch_read_handler(ngx_event_t *ev)
{
    ssize_t                   n;
    ngx_int_t                 rc;
    ngx_buf_t                *b;
    ngx_connection_t         *c;
    ngx_http_ai_fetch_ctx_t  *x;

    c = ev->data;
    x = c->data;

    if (x->in == NULL) {
        x->in = ngx_create_temp_buf(x->pool, NGX_HTTP_AI_FETCH_BUFFER);
        if (x->in == NULL) {
            ngx_http_ai_fetch_fail(x, 0, "no memory");
            return;
        }
    }

    b = x->in;

    for ( ;; ) {

        if (b->pos == b->last) {
            b->pos = b->start;
            b->last = b->start;
        }

        if (b->last == b->end) {
            ngx_http_ai_fetch_fail(x, 0, "too large header of the answer");
            return;
        }

        n = c->recv(c, b->last, b->end - b->last);

        if (n == NGX_AGAIN) {

            if (ngx_handle_read_event(ev, 0) != NGX_OK) {
                ngx_http_ai_fetch_fail(x, 0, "no event");
            }

            return;
        }

        if (n <= 0 && ngx_http_ai_fetch_again(x) == NGX_OK) {
            return;
        }

        if (n == NGX_ERROR) {
            ngx_http_ai_fetch_fail(x, x->url.ssl ? 0 : ngx_socket_errno,
                                   "the answer could not be read");
            return;
        }

        if (n == 0) {

            if (x->header && x->framing == NGX_HTTP_AI_FETCH_EOF) {
                ngx_http_ai_fetch_finish(x);
                return;
            }

            ngx_http_ai_fetch_fail(x, 0, "connection closed before the end "
                                   "of the answer");
            return;
        }

        b->last += n;
        x->kept = 0;

        rc = ngx_http_ai_fetch_input(x);

        if (rc == NGX_DONE) {
            ngx_http_ai_fetch_finish(x);
            return;
        }

        if (rc == NGX_ERROR) {
            return;
        }
    }
}


/*
 * A kept connection has ended before an answer: its peer may have closed it
 * while the request was on its way.
 */

static ngx_int_t
ngx_http_ai_fetch_again(ngx_http_ai_fetch_ctx_t *x)
{
    if (!x->kept) {
        return NGX_DECLINED;
    }

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, x->log, 0,
                   "ai fetch \"%V\": kept connection was closed", &x->text);

    ngx_http_ai_fetch_close(x);

    x->kept = 0;
    x->connected = 0;

    ngx_http_ai_fetch_rewind(x);
    ngx_http_ai_fetch_resolve(x);

    return NGX_OK;
}


static void
ngx_http_ai_fetch_timer_handler(ngx_event_t *ev)
{
    ngx_http_ai_fetch_ctx_t  *x;

    x = ev->data;

    ngx_http_ai_fetch_fail(x, 0, "timed out%s%s",
                           x->log->action ? " while " : "",
                           x->log->action ? x->log->action : "");
}


static void
ngx_http_ai_fetch_close(ngx_http_ai_fetch_ctx_t *x)
{
    ngx_connection_t  *c;

    if (x->wait.timer_set) {
        ngx_del_timer(&x->wait);
    }

    c = x->peer.connection;
    x->peer.connection = NULL;

    if (c) {
        ngx_http_ai_fetch_close_connection(c);
    }
}


void
ngx_http_ai_fetch_close_connection(ngx_connection_t *c)
{
    ngx_pool_t  *pool;

#if (NGX_HTTP_SSL)

    if (c->ssl) {

        /* never waits, the log and the pool are gone soon */

        c->ssl->no_wait_shutdown = 1;
        c->ssl->no_send_shutdown = 1;

        (void) ngx_ssl_shutdown(c);
    }

#endif

    pool = c->pool;

    ngx_close_connection(c);

    if (pool) {
        ngx_destroy_pool(pool);
    }
}


void
ngx_http_ai_fetch_fail(ngx_http_ai_fetch_ctx_t *x, ngx_err_t err,
    const char *fmt, ...)
{
    u_char   *p, *last;
    va_list   args;

    last = x->error + NGX_HTTP_AI_FETCH_ERROR - 1;

    va_start(args, fmt);
    p = ngx_vslprintf(x->error, last, fmt, args);
    va_end(args);

    if (err) {
        p = ngx_slprintf(p, last, " (%d: ", err);
        p = ngx_strerror(err, p, last - p);

        if (p < last) {
            *p++ = ')';
        }
    }

    *p = '\0';

    x->fetch.status = 0;
    x->fetch.error = (char *) x->error;

    ngx_http_ai_fetch_finish(x);
}


static void
ngx_http_ai_fetch_finish(ngx_http_ai_fetch_ctx_t *x)
{
    ngx_pool_t                    *pool;
    ngx_http_ai_core_main_conf_t  *amcf;

    if (x->finished) {
        return;
    }

    x->finished = 1;
    amcf = x->fetcher->amcf;

    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, x->log, 0,
                   "ai fetch \"%V\": %ui %s", &x->text, x->fetch.status,
                   x->fetch.error ? x->fetch.error : "");

    if (x->fetch.error == NULL) {
        ngx_http_ai_fetch_keep(x);
    }

    ngx_http_ai_fetch_close(x);

    if (x->resolving) {
        ngx_resolve_name_done(x->resolving);
        x->resolving = NULL;
    }

    if (x->start.posted) {
        ngx_delete_posted_event(&x->start);
    }

    if (x->timer.timer_set) {
        ngx_del_timer(&x->timer);
    }

    ngx_queue_remove(&x->queue);
    amcf->nfetches--;

    if (x->fetch.error == NULL) {
        x->fetch.answer.data = x->out.start;
        x->fetch.answer.len = x->out.last - x->out.start;
    }

    x->log->handler = NULL;

    x->fetch.handler(&x->fetch);

    pool = x->pool;
    pool->log = ngx_cycle->log;
    ngx_destroy_pool(pool);
}


void
ngx_http_ai_fetch_init(ngx_http_ai_core_main_conf_t *amcf)
{
    ngx_queue_init(&amcf->fetches);
    ngx_queue_init(&amcf->kept);
}


/* a worker ends: connections must not stay open */

void
ngx_http_ai_fetch_exit(ngx_http_ai_core_main_conf_t *amcf)
{
    ngx_queue_t              *q;
    ngx_http_ai_fetch_ctx_t  *x;

    while (amcf->fetches.next && !ngx_queue_empty(&amcf->fetches)) {
        q = ngx_queue_head(&amcf->fetches);
        x = ngx_queue_data(q, ngx_http_ai_fetch_ctx_t, queue);

        ngx_http_ai_fetch_fail(x, 0, "the worker process ends");
    }

    while (amcf->kept.next && !ngx_queue_empty(&amcf->kept)) {
        q = ngx_queue_head(&amcf->kept);

        ngx_http_ai_fetch_drop(ngx_queue_data(q, ngx_http_ai_fetcher_t,
                                              queue));
    }
}


static u_char *
ngx_http_ai_fetch_log_error(ngx_log_t *log, u_char *buf, size_t len)
{
    u_char                   *p;
    ngx_http_ai_fetch_ctx_t  *x;

    if (log->action) {
        p = ngx_snprintf(buf, len, " while %s", log->action);
        len -= p - buf;
        buf = p;
    }

    x = log->data;

    return ngx_snprintf(buf, len, ", request of the gateway: \"%V\"",
                        &x->text);
}
