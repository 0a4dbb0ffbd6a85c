
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Connections to Redis.  Of hiredis only the formatter and the reader are
 * used: connecting, TLS, names, timers and the log are nginx's, so nothing
 * blocks.
 */


#include "ngx_http_ai_redis_ctx.h"
#include <poll.h>


#define NGX_HTTP_AI_REDIS_RECV  16384


static void ngx_http_ai_redis_resolved(ngx_resolver_ctx_t *ctx);
static ngx_int_t ngx_http_ai_redis_add(ngx_http_ai_redis_conn_t *rc,
    struct sockaddr *sockaddr, socklen_t socklen, ngx_uint_t port);
static void ngx_http_ai_redis_connect_next(ngx_http_ai_redis_conn_t *rc);
static void ngx_http_ai_redis_connect_handler(ngx_event_t *ev);
static void ngx_http_ai_redis_connected(ngx_http_ai_redis_conn_t *rc);
#if (NGX_HTTP_SSL)
static void ngx_http_ai_redis_handshake(ngx_connection_t *c);
#endif
static void ngx_http_ai_redis_write_handler(ngx_event_t *ev);
static void ngx_http_ai_redis_read_handler(ngx_event_t *ev);
static ngx_int_t ngx_http_ai_redis_input(ngx_http_ai_redis_conn_t *rc);
static ngx_int_t ngx_http_ai_redis_output(ngx_http_ai_redis_conn_t *rc);
static void ngx_http_ai_redis_timer_handler(ngx_event_t *ev);
static void ngx_http_ai_redis_stall_handler(ngx_event_t *ev);


void
ngx_http_ai_redis_conn_init(ngx_http_ai_redis_conn_t *rc,
    ngx_http_ai_redis_t *redis)
{
    rc->redis = redis;
    rc->log = *ngx_cycle->log;
    rc->backoff = NGX_HTTP_AI_REDIS_BACKOFF_MIN / 2;

    ngx_queue_init(&rc->waiting);

    rc->timer.handler = ngx_http_ai_redis_timer_handler;
    rc->timer.data = rc;
    rc->timer.log = &rc->log;
    rc->timer.cancelable = 1;

    rc->stall.handler = ngx_http_ai_redis_stall_handler;
    rc->stall.data = rc;
    rc->stall.log = &rc->log;
    rc->stall.cancelable = 1;
}


/* names are resolved each time: after a failover they lead elsewhere */

void
ngx_http_ai_redis_connect(ngx_http_ai_redis_conn_t *rc)
{
    ngx_int_t             n;
    ngx_uint_t            i;
    ngx_addr_t           *addr;
    ngx_array_t           addrs;
    ngx_resolver_ctx_t   *ctx;
    ngx_http_ai_redis_t  *redis;

    redis = rc->redis;
    rc->naddrs = 0;
    rc->next = 0;

    rc->pool = ngx_create_pool(1024, &rc->log);
    if (rc->pool == NULL) {
        ngx_http_ai_redis_down(rc, "no memory");
        return;
    }

    /* of all addresses together */

    ngx_add_timer(&rc->timer, redis->connect_timeout);

    if (redis->url.naddrs) {

        for (i = 0; i < redis->url.naddrs; i++) {
            if (ngx_http_ai_redis_add(rc, redis->url.addrs[i].sockaddr,
                                      redis->url.addrs[i].socklen, 0)
                != NGX_OK)
            {
                ngx_http_ai_redis_down(rc, "no memory");
                return;
            }
        }

        ngx_http_ai_redis_connect_next(rc);
        return;
    }

    if (ngx_array_init(&addrs, rc->pool, 4, sizeof(ngx_addr_t)) != NGX_OK) {
        ngx_http_ai_redis_down(rc, "no memory");
        return;
    }

    n = ngx_http_ai_hosts(rc->pool, &rc->log, &redis->url.host, &addrs);

    if (n == NGX_OK) {
        addr = addrs.elts;

        for (i = 0; i < addrs.nelts; i++) {
            if (ngx_http_ai_redis_add(rc, addr[i].sockaddr, addr[i].socklen,
                                      redis->url.port)
                != NGX_OK)
            {
                ngx_http_ai_redis_down(rc, "no memory");
                return;
            }
        }

        ngx_http_ai_redis_connect_next(rc);
        return;
    }

    rc->state = NGX_HTTP_AI_REDIS_RESOLVING;

    ctx = redis->amcf->resolver
          ? ngx_resolve_start(redis->amcf->resolver, NULL) : NULL;

    if (ctx == NULL || ctx == NGX_NO_RESOLVER) {
        ngx_http_ai_redis_down(rc, "no resolver for \"%V\"",
                               &redis->url.host);
        return;
    }

    ctx->name = redis->url.host;
    ctx->handler = ngx_http_ai_redis_resolved;
    ctx->data = rc;
    ctx->timeout = redis->connect_timeout;
    ctx->cancelable = 1;

    /* the handler may be called at once, and has freed ctx then */

    rc->resolving = ctx;

    if (ngx_resolve_name(ctx) != NGX_OK) {
        rc->resolving = NULL;
        ngx_http_ai_redis_down(rc, "\"%V\" could not be resolved",
                               &redis->url.host);
    }
}


static void
ngx_http_ai_redis_resolved(ngx_resolver_ctx_t *ctx)
{
    ngx_uint_t                 i;
    ngx_http_ai_redis_conn_t  *rc;

    rc = ctx->data;
    rc->resolving = NULL;

    if (ctx->state || ctx->naddrs == 0) {
        ngx_http_ai_redis_down(rc, "\"%V\" could not be resolved (%s)",
                               &rc->redis->url.host,
                               ctx->state ? ngx_resolver_strerror(ctx->state)
                                          : "no address");
        ngx_resolve_name_done(ctx);
        return;
    }

    for (i = 0; i < ctx->naddrs; i++) {
        if (ngx_http_ai_redis_add(rc, ctx->addrs[i].sockaddr,
                                  ctx->addrs[i].socklen, rc->redis->url.port)
            != NGX_OK)
        {
            break;
        }
    }

    ngx_resolve_name_done(ctx);

    ngx_http_ai_redis_connect_next(rc);
}


static ngx_int_t
ngx_http_ai_redis_add(ngx_http_ai_redis_conn_t *rc,
    struct sockaddr *sockaddr, socklen_t socklen, ngx_uint_t port)
{
    ngx_addr_t  *addr;

    if (rc->naddrs == NGX_HTTP_AI_REDIS_ADDRS) {
        return NGX_OK;
    }

    addr = &rc->addrs[rc->naddrs];

    addr->sockaddr = ngx_palloc(rc->pool, socklen);
    if (addr->sockaddr == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(addr->sockaddr, sockaddr, socklen);
    addr->socklen = socklen;

    if (port) {
        ngx_inet_set_port(addr->sockaddr, port);
    }

    rc->naddrs++;

    return NGX_OK;
}


static void
ngx_http_ai_redis_connect_next(ngx_http_ai_redis_conn_t *rc)
{
    ngx_int_t          n;
    ngx_addr_t        *addr;
    ngx_connection_t  *c;

    while (rc->next < rc->naddrs) {
        addr = &rc->addrs[rc->next++];

        rc->state = NGX_HTTP_AI_REDIS_CONNECTING;

        ngx_memzero(&rc->peer, sizeof(ngx_peer_connection_t));

        rc->peer.sockaddr = addr->sockaddr;
        rc->peer.socklen = addr->socklen;
        rc->peer.name = &rc->redis->server;
        rc->peer.get = ngx_event_get_peer;
        rc->peer.log = &rc->log;
        rc->peer.log_error = NGX_ERROR_INFO;

        n = ngx_event_connect_peer(&rc->peer);

        if (n != NGX_OK && n != NGX_AGAIN) {

            if (rc->peer.connection) {
                ngx_close_connection(rc->peer.connection);
                rc->peer.connection = NULL;
            }

            continue;
        }

        c = rc->peer.connection;

        c->data = rc;
        c->pool = rc->pool;
        c->read->handler = ngx_http_ai_redis_connect_handler;
        c->write->handler = ngx_http_ai_redis_connect_handler;

        if (n == NGX_OK) {
            ngx_http_ai_redis_connected(rc);
        }

        return;
    }

    ngx_http_ai_redis_down(rc, "could not connect");
}


static void
ngx_http_ai_redis_connect_handler(ngx_event_t *ev)
{
    ngx_err_t                  err;
    ngx_connection_t          *c;
    ngx_http_ai_redis_conn_t  *rc;

    c = ev->data;
    rc = c->data;

    err = ngx_http_ai_connect_error(c);

    if (err) {
        ngx_log_error(NGX_LOG_INFO, &rc->log, err,
                      "ai redis: connect() to redis \"%V\" (%V) failed",
                      &rc->redis->name, &rc->redis->server);

        ngx_close_connection(c);
        rc->peer.connection = NULL;

        ngx_http_ai_redis_connect_next(rc);
        return;
    }

    ngx_http_ai_redis_connected(rc);
}


static void
ngx_http_ai_redis_connected(ngx_http_ai_redis_conn_t *rc)
{
    int                tcp_nodelay;
    ngx_connection_t  *c;
#if (NGX_HTTP_SSL)
    ngx_int_t          n;
#endif

    c = rc->peer.connection;

#if (NGX_HTTP_SSL)

    if (rc->redis->tls && c->ssl == NULL) {

        if (ngx_http_ai_tls_start(rc->redis->ssl, c, rc->pool,
                                  rc->redis->tls_name.len
                                  ? &rc->redis->tls_name
                                  : &rc->redis->url.host,
                                  rc->redis->tls_verify, &rc->tls)
            != NGX_OK)
        {
            ngx_http_ai_redis_down(rc, "TLS could not be started");
            return;
        }

        n = ngx_ssl_handshake(c);

        if (n == NGX_AGAIN) {
            c->ssl->handler = ngx_http_ai_redis_handshake;
            return;
        }

        ngx_http_ai_redis_handshake(c);
        return;
    }

#endif

    if (rc->peer.sockaddr->sa_family != AF_UNIX) {
        tcp_nodelay = 1;

        (void) setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY,
                          (const void *) &tcp_nodelay, sizeof(int));
    }

    c->read->handler = ngx_http_ai_redis_read_handler;
    c->write->handler = ngx_http_ai_redis_write_handler;

    rc->state = NGX_HTTP_AI_REDIS_HELLO;
    rc->reader = redisReaderCreate();

    if (rc->reader == NULL || ngx_http_ai_redis_hello(rc) != NGX_OK) {
        ngx_http_ai_redis_down(rc, "no memory");
        return;
    }

    if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        ngx_http_ai_redis_down(rc, "no event");
    }
}


#if (NGX_HTTP_SSL)

static void
ngx_http_ai_redis_handshake(ngx_connection_t *c)
{
    long                       n;
    ngx_http_ai_redis_conn_t  *rc;

    rc = c->data;

    if (!c->ssl->handshaked) {
        ngx_http_ai_redis_down(rc, "TLS handshake failed");
        return;
    }

    switch (ngx_http_ai_tls_check(c, &rc->tls, &n)) {

    case NGX_OK:
        break;

    case NGX_DECLINED:
        ngx_http_ai_redis_down(rc, "its certificate is not trusted "
                               "(%l: %s)", n,
                               X509_verify_cert_error_string(n));
        return;

    default: /* NGX_ABORT */
        ngx_http_ai_redis_down(rc, "its certificate is not one of \"%V\"",
                               &rc->tls.name);
        return;
    }

    ngx_http_ai_redis_connected(rc);
}

#endif


/* all commands of one turn of the event loop go out together */

void
ngx_http_ai_redis_flush(ngx_http_ai_redis_conn_t *rc)
{
    ngx_event_t  *wev;

    wev = rc->peer.connection->write;

    if (wev->ready && !wev->posted) {
        ngx_post_event(wev, &ngx_posted_events);
    }

    if (!rc->stall.timer_set) {
        ngx_add_timer(&rc->stall, ngx_max(rc->redis->timeout * 4,
                                          NGX_HTTP_AI_REDIS_STALL));
    }
}


static void
ngx_http_ai_redis_write_handler(ngx_event_t *ev)
{
    ngx_connection_t          *c;
    ngx_http_ai_redis_conn_t  *rc;

    c = ev->data;
    rc = c->data;

    if (ngx_http_ai_redis_output(rc) == NGX_ERROR) {
        ngx_http_ai_redis_down(rc, "connection lost");
        return;
    }

    if (ngx_handle_write_event(ev, 0) != NGX_OK) {
        ngx_http_ai_redis_down(rc, "no event");
    }
}


static ngx_int_t
ngx_http_ai_redis_output(ngx_http_ai_redis_conn_t *rc)
{
    ssize_t            n;
    ngx_connection_t  *c;

    c = rc->peer.connection;

    while (rc->pos < rc->last) {

        n = c->send(c, rc->out + rc->pos, rc->last - rc->pos);

        if (n == NGX_AGAIN) {
            return NGX_AGAIN;
        }

        if (n <= 0) {
            return NGX_ERROR;
        }

        rc->pos += n;
    }

    rc->pos = 0;
    rc->last = 0;

    return NGX_OK;
}


static void
ngx_http_ai_redis_read_handler(ngx_event_t *ev)
{
    ngx_connection_t          *c;
    ngx_http_ai_redis_conn_t  *rc;

    c = ev->data;
    rc = c->data;

    if (ngx_http_ai_redis_input(rc) != NGX_OK) {
        return;
    }

    if (ngx_handle_read_event(ev, 0) != NGX_OK) {
        ngx_http_ai_redis_down(rc, "no event");
    }
}


/* NGX_ERROR: it is closed */

static ngx_int_t
ngx_http_ai_redis_input(ngx_http_ai_redis_conn_t *rc)
{
    void              *reply;
    ssize_t            n;
    ngx_int_t          answered;
    ngx_connection_t  *c;
    u_char             buf[NGX_HTTP_AI_REDIS_RECV];

    c = rc->peer.connection;

    for ( ;; ) {
        n = c->recv(c, buf, NGX_HTTP_AI_REDIS_RECV);

        if (n == NGX_AGAIN) {
            return NGX_OK;
        }

        if (n <= 0) {
            ngx_http_ai_redis_down(rc, "connection lost");
            return NGX_ERROR;
        }

        if (rc->reader->len > NGX_HTTP_AI_REDIS_BUFFER
            || redisReaderFeed(rc->reader, (char *) buf, n) != REDIS_OK)
        {
            ngx_http_ai_redis_down(rc, "too long answer");
            return NGX_ERROR;
        }

        for ( ;; ) {
            reply = NULL;

            if (redisReaderGetReply(rc->reader, &reply) != REDIS_OK) {
                ngx_http_ai_redis_down(rc, "it does not speak RESP: %s",
                                       rc->reader->errstr);
                return NGX_ERROR;
            }

            if (reply == NULL) {
                break;
            }

            answered = ngx_http_ai_redis_answer(rc, reply);

            freeReplyObject(reply);

            if (answered != NGX_OK) {
                return NGX_ERROR;
            }
        }

        /* who answers is alive */

        if (rc->stall.timer_set) {
            ngx_del_timer(&rc->stall);
        }

        if (rc->nwaiting) {
            ngx_add_timer(&rc->stall, ngx_max(rc->redis->timeout * 4,
                                              NGX_HTTP_AI_REDIS_STALL));
        }
    }
}


static void
ngx_http_ai_redis_timer_handler(ngx_event_t *ev)
{
    ngx_http_ai_redis_conn_t  *rc;

    rc = ev->data;

    if (rc->state == NGX_HTTP_AI_REDIS_DOWN) {
        ngx_http_ai_redis_connect(rc);
        return;
    }

    ngx_http_ai_redis_down(rc, "timed out while %s",
                           (rc->state == NGX_HTTP_AI_REDIS_HELLO)
                           ? "waiting for its first answer" : "connecting");
}


static void
ngx_http_ai_redis_stall_handler(ngx_event_t *ev)
{
    ngx_http_ai_redis_conn_t  *rc;

    rc = ev->data;

    ngx_http_ai_redis_down(rc, "no answer for %M ms",
                           ngx_max(rc->redis->timeout * 4,
                                   NGX_HTTP_AI_REDIS_STALL));
}


void
ngx_http_ai_redis_down(ngx_http_ai_redis_conn_t *rc, const char *fmt, ...)
{
    u_char                text[256], *p;
    va_list               args;
    ngx_msec_t            delay;
    ngx_uint_t            level;
    ngx_queue_t           lost;
    ngx_http_ai_redis_t  *redis;

    redis = rc->redis;

    va_start(args, fmt);
    p = ngx_vslprintf(text, text + sizeof(text), fmt, args);
    va_end(args);

    /* once until it is up again */

    level = (rc->said || ngx_terminate || ngx_exiting) ? NGX_LOG_INFO
                                                       : NGX_LOG_ERR;
    rc->said = 1;

    ngx_log_error(level, &rc->log, 0, "ai redis: redis \"%V\" (%V): %*s",
                  &redis->name, &redis->server, (size_t) (p - text), text);

    ngx_http_ai_redis_count(redis, errors);
    redis->sh->lost = ngx_current_msec;

    ngx_queue_init(&lost);

    if (!ngx_queue_empty(&rc->waiting)) {
        ngx_queue_add(&lost, &rc->waiting);
        ngx_queue_init(&rc->waiting);
    }

    rc->nwaiting = 0;

    if (rc->state == NGX_HTTP_AI_REDIS_UP
        && ngx_current_msec - rc->since > NGX_HTTP_AI_REDIS_STALL)
    {
        /* at once: what was refused by a replica is tried elsewhere */

        rc->backoff = NGX_HTTP_AI_REDIS_BACKOFF_MIN / 2;
        delay = 1;

    } else {
        rc->backoff = ngx_min(rc->backoff * 2,
                              NGX_HTTP_AI_REDIS_BACKOFF_MAX);

        /* not all workers in the same millisecond */

        delay = rc->backoff + ngx_random() % (rc->backoff / 4);
    }

    rc->failed++;

    ngx_http_ai_redis_close(rc);

    ngx_add_timer(&rc->timer, delay);

    ngx_http_ai_redis_lost(redis, &lost);
}


void
ngx_http_ai_redis_close(ngx_http_ai_redis_conn_t *rc)
{
    ngx_connection_t  *c;

    if (rc->timer.timer_set) {
        ngx_del_timer(&rc->timer);
    }

    if (rc->stall.timer_set) {
        ngx_del_timer(&rc->stall);
    }

    if (rc->resolving) {
        ngx_resolve_name_done(rc->resolving);
        rc->resolving = NULL;
    }

    c = rc->peer.connection;
    rc->peer.connection = NULL;

    if (c) {

#if (NGX_HTTP_SSL)

        if (c->ssl) {
            c->ssl->no_wait_shutdown = 1;
            c->ssl->no_send_shutdown = 1;

            (void) ngx_ssl_shutdown(c);
        }

#endif

        ngx_close_connection(c);
    }

    if (rc->reader) {
        redisReaderFree(rc->reader);
        rc->reader = NULL;
    }

    if (rc->pool) {
        ngx_destroy_pool(rc->pool);
        rc->pool = NULL;
    }

    if (rc->size > 65536) {
        ngx_free(rc->out);
        rc->out = NULL;
        rc->size = 0;
    }

    rc->pos = 0;
    rc->last = 0;
    rc->state = NGX_HTTP_AI_REDIS_DOWN;
}


void
ngx_http_ai_redis_drain(ngx_http_ai_redis_conn_t *rc, ngx_msec_t ms)
{
    ngx_msec_t         end;
    ngx_connection_t  *c;
    struct pollfd      pfd;

    end = ngx_current_msec + ms;

    while (rc->state == NGX_HTTP_AI_REDIS_UP && rc->nwaiting) {

        if ((ngx_msec_int_t) (end - ngx_current_msec) <= 0) {
            return;
        }

        c = rc->peer.connection;
        c->write->ready = 1;

        if (ngx_http_ai_redis_output(rc) == NGX_ERROR) {
            return;
        }

        pfd.fd = c->fd;
        pfd.events = POLLIN | ((rc->pos < rc->last) ? POLLOUT : 0);
        pfd.revents = 0;

        (void) poll(&pfd, 1, (int) (end - ngx_current_msec));

        ngx_time_update();

        /* there are no events any more which would set these */

        c->read->ready = 1;
        c->read->available = -1;

        if (ngx_http_ai_redis_input(rc) != NGX_OK) {
            return;
        }
    }
}
