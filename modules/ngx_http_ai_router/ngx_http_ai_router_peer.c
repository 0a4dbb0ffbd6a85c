
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The stock balancer resolves names once before nginx 1.27.3, and its
 * keepalive cache knows addresses only.  Here a provider has both to itself:
 * a connection is never used for another TLS name.
 *
 * All of it is of one worker; what an attempt holds is copied to its request,
 * so addresses may change under it.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_ai_router.h"


#define NGX_HTTP_AI_PEERS_TRIES       3
#define NGX_HTTP_AI_PEERS_ADDRS       64
#define NGX_HTTP_AI_PEERS_IDLE        1024
#define NGX_HTTP_AI_PEERS_TIMEOUT     60000
#define NGX_HTTP_AI_PEERS_AGE         3600000
#define NGX_HTTP_AI_PEERS_FRESH       1000

/* longer requests are sent while they are in the processor's cache */
#define NGX_HTTP_AI_PEERS_SMALL       (16 * 1024)

/* an address that has failed is tried last for this long */
#define NGX_HTTP_AI_PEERS_FAILED      5000

#define NGX_HTTP_AI_PEERS_RETRY       5000
#define NGX_HTTP_AI_PEERS_RETRY_MAX   30000
#define NGX_HTTP_AI_PEERS_VALID       300


typedef struct {
    ngx_sockaddr_t                 sockaddr;
    socklen_t                      socklen;
    ngx_msec_t                     failed;    /* when; 0: it has not */
    size_t                         len;
    u_char                         text[NGX_SOCKADDR_STRLEN];
} ngx_http_ai_peer_addr_t;


typedef struct {
    ngx_queue_t                    queue;
    ngx_http_ai_peers_t           *peers;
    ngx_connection_t              *connection;
    ngx_msec_t                     since;
    socklen_t                      socklen;
    ngx_sockaddr_t                 sockaddr;
} ngx_http_ai_peer_idle_t;


struct ngx_http_ai_peers_s {
    ngx_event_t                   *event;
    void                          *dummy;
    ngx_log_t                     *log;

    /* event ident must be after 3 pointers as in ngx_connection_t */
    ngx_int_t                      ident;

    ngx_http_ai_provider_t        *provider;
    ngx_str_t                      name;

    ngx_http_ai_peer_addr_t       *addrs;
    ngx_uint_t                     naddrs;
    ngx_uint_t                     next;

    ngx_queue_t                    idle;      /* the newest first */
    ngx_queue_t                    free;
    ngx_uint_t                     nidle;
    ngx_event_t                    sweep;     /* closes the oldest */

#if (NGX_HTTP_SSL)
    ngx_ssl_session_t             *session;
#endif

    ngx_resolver_t                *resolver;
    ngx_resolver_ctx_t            *ctx;
    ngx_msec_t                     timeout;
    ngx_msec_t                     retry;

    unsigned                       resolve:1;
    unsigned                       failing:1;
    unsigned                       allocated:1;
};


typedef struct {
    ngx_http_ai_peers_t           *peers;
    ngx_http_upstream_t           *upstream;
    ngx_pool_t                    *pool;

    ngx_sockaddr_t                 sockaddr;
    socklen_t                      socklen;

    ngx_sockaddr_t                *tried;     /* made by the first failure */
    socklen_t                      tried_len[NGX_HTTP_AI_PEERS_TRIES];
    ngx_uint_t                     ntried;

    unsigned                       fresh:1;   /* no idle connections */
} ngx_http_ai_peer_data_t;


static ngx_int_t ngx_http_ai_peers_initial(ngx_conf_t *cf,
    ngx_http_ai_router_main_conf_t *amcf, ngx_http_ai_peers_t *peers);
static ngx_int_t ngx_http_ai_peers_set(ngx_conf_t *cf,
    ngx_http_ai_peers_t *peers, ngx_addr_t *addrs, ngx_uint_t n);

static ngx_int_t ngx_http_ai_peers_init(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t ngx_http_ai_peers_get(ngx_peer_connection_t *pc, void *data);
static ngx_connection_t *ngx_http_ai_peers_cached(ngx_http_ai_peer_data_t *pd,
    ngx_http_ai_peer_addr_t **addr);
static ngx_http_ai_peer_addr_t *ngx_http_ai_peers_next(
    ngx_http_ai_peer_data_t *pd);
static void ngx_http_ai_peers_free(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state);
static ngx_int_t ngx_http_ai_peers_keep(ngx_peer_connection_t *pc,
    ngx_http_ai_peer_data_t *pd);
static ngx_http_ai_peer_addr_t *ngx_http_ai_peers_find(
    ngx_http_ai_peers_t *peers, ngx_sockaddr_t *sockaddr, socklen_t socklen);
static ngx_uint_t ngx_http_ai_peers_tried(ngx_http_ai_peer_data_t *pd,
    ngx_http_ai_peer_addr_t *addr);

static void ngx_http_ai_peers_dummy_handler(ngx_event_t *ev);
static void ngx_http_ai_peers_close_handler(ngx_event_t *ev);
static void ngx_http_ai_peers_sweep_handler(ngx_event_t *ev);
static void ngx_http_ai_peers_drop(ngx_http_ai_peer_idle_t *item);
static void ngx_http_ai_peers_close(ngx_connection_t *c);

#if (NGX_HTTP_SSL)
static ngx_int_t ngx_http_ai_peers_set_session(ngx_peer_connection_t *pc,
    void *data);
static void ngx_http_ai_peers_save_session(ngx_peer_connection_t *pc,
    void *data);
#endif

static void ngx_http_ai_peers_timer_handler(ngx_event_t *ev);
static void ngx_http_ai_peers_resolve_handler(ngx_resolver_ctx_t *ctx);
static ngx_msec_t ngx_http_ai_peers_failing(ngx_http_ai_peers_t *peers,
    const char *reason);
static ngx_int_t ngx_http_ai_peers_update(ngx_http_ai_peers_t *peers,
    ngx_resolver_ctx_t *ctx);
static ngx_uint_t ngx_http_ai_peers_fill(ngx_http_ai_peers_t *peers,
    ngx_resolver_ctx_t *ctx, ngx_http_ai_peer_addr_t *addrs,
    ngx_uint_t check);
static ngx_uint_t ngx_http_ai_peers_reachable(struct sockaddr *sockaddr,
    socklen_t socklen);
static void ngx_http_ai_peers_cleanup(void *data);


ngx_int_t
ngx_http_ai_peers_create(ngx_conf_t *cf, ngx_http_ai_router_main_conf_t *amcf,
    ngx_http_ai_provider_t *provider)
{
    u_char                        *p;
    ngx_http_ai_peers_t           *peers;
    ngx_http_upstream_srv_conf_t  *us;

    peers = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_peers_t));
    if (peers == NULL) {
        return NGX_ERROR;
    }

    peers->ident = -1;
    peers->provider = provider;
    peers->name = provider->hostname;

    ngx_queue_init(&peers->idle);
    ngx_queue_init(&peers->free);

    peers->sweep.handler = ngx_http_ai_peers_sweep_handler;
    peers->sweep.data = peers;
    peers->sweep.cancelable = 1;

    if (ngx_http_ai_peers_initial(cf, amcf, peers) != NGX_OK) {
        return NGX_ERROR;
    }

    us = ngx_pcalloc(cf->pool, sizeof(ngx_http_upstream_srv_conf_t));
    if (us == NULL) {
        return NGX_ERROR;
    }

    us->peer.init = ngx_http_ai_peers_init;
    us->peer.data = peers;
    us->port = provider->port;
    us->file_name = provider->file;
    us->line = provider->line;

    /* becomes u->ssl_name, where IPv6 addresses are known by the bracket */

    us->host = provider->tls_name.len ? provider->tls_name : peers->name;

    if (ngx_strlchr(us->host.data, us->host.data + us->host.len, ':')
        && us->host.data[0] != '[')
    {
        p = ngx_pnalloc(cf->pool, us->host.len + 2);
        if (p == NULL) {
            return NGX_ERROR;
        }

        us->host.len = ngx_sprintf(p, "[%V]", &us->host) - p;
        us->host.data = p;
    }

    provider->peers = peers;
    provider->upstream.upstream = us;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_peers_initial(ngx_conf_t *cf,
    ngx_http_ai_router_main_conf_t *amcf, ngx_http_ai_peers_t *peers)
{
    ngx_int_t                rc;
    ngx_url_t                u;
    ngx_addr_t               addr;
    ngx_http_ai_provider_t  *provider;

    provider = peers->provider;

    ngx_memzero(&addr, sizeof(ngx_addr_t));

    rc = ngx_parse_addr(cf->pool, &addr, peers->name.data, peers->name.len);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (rc == NGX_OK) {
        ngx_inet_set_port(addr.sockaddr, provider->port);
        return ngx_http_ai_peers_set(cf, peers, &addr, 1);
    }

    rc = amcf->api->hosts(cf->temp_pool, cf->log, &peers->name, NULL);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    peers->resolve = (rc != NGX_OK);

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.host = peers->name;
    u.port = provider->port;

    if (ngx_inet_resolve_host(cf->pool, &u) != NGX_OK) {

        if (u.err == NULL) {
            return NGX_ERROR;
        }

        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "%s in endpoint \"%V\" of provider \"%V\" in %s:%ui",
                      u.err, &provider->endpoint, &provider->name,
                      provider->file, provider->line);

        return NGX_OK;
    }

    return ngx_http_ai_peers_set(cf, peers, u.addrs, u.naddrs);
}


static ngx_int_t
ngx_http_ai_peers_set(ngx_conf_t *cf, ngx_http_ai_peers_t *peers,
    ngx_addr_t *addrs, ngx_uint_t n)
{
    ngx_uint_t                i;
    ngx_http_ai_peer_addr_t  *addr;

    n = ngx_min(n, NGX_HTTP_AI_PEERS_ADDRS);

    addr = ngx_pcalloc(cf->pool, n * sizeof(ngx_http_ai_peer_addr_t));
    if (addr == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; i < n; i++) {
        addr[i].socklen = addrs[i].socklen;
        ngx_memcpy(&addr[i].sockaddr, addrs[i].sockaddr, addrs[i].socklen);
        addr[i].len = ngx_sock_ntop(addrs[i].sockaddr, addrs[i].socklen,
                                    addr[i].text, NGX_SOCKADDR_STRLEN, 1);
    }

    peers->addrs = addr;
    peers->naddrs = n;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_peers_resolver(ngx_conf_t *cf,
    ngx_http_ai_router_main_conf_t *amcf)
{
    if (amcf->providers.nelts == 0) {
        return NGX_OK;
    }

    amcf->resolver = amcf->api->resolver(cf, &amcf->resolver_timeout);

    if (amcf->resolver == NULL) {
        ngx_log_error(NGX_LOG_NOTICE, cf->log, 0,
                      "no \"resolver\" and no usable name server in "
                      "/etc/resolv.conf, addresses of providers stay as "
                      "resolved at start");
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_peers_init(ngx_http_request_t *r, ngx_http_upstream_srv_conf_t *us)
{
    ngx_http_upstream_t      *u;
    ngx_http_ai_peers_t      *peers;
    ngx_http_ai_peer_data_t  *pd;

    peers = us->peer.data;
    u = r->upstream;

    pd = ngx_pcalloc(r->pool, sizeof(ngx_http_ai_peer_data_t));
    if (pd == NULL) {
        return NGX_ERROR;
    }

    pd->peers = peers;
    pd->upstream = u;
    pd->pool = r->pool;

    u->peer.data = pd;
    u->peer.get = ngx_http_ai_peers_get;
    u->peer.free = ngx_http_ai_peers_free;
    u->peer.tries = ngx_min(peers->naddrs, NGX_HTTP_AI_PEERS_TRIES);

    if (u->peer.tries == 0) {
        u->peer.tries = 1;
    }

#if (NGX_HTTP_SSL)
    u->peer.set_session = ngx_http_ai_peers_set_session;
    u->peer.save_session = ngx_http_ai_peers_save_session;
#endif

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_peers_get(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_ai_peer_data_t  *pd = data;

    off_t                     size;
    ngx_str_t                *name;
    ngx_chain_t              *cl;
    ngx_connection_t         *c;
    ngx_http_ai_peers_t      *peers;
    ngx_http_ai_peer_addr_t  *addr;

    peers = pd->peers;

    pc->cached = 0;
    pc->connection = NULL;

    c = NULL;
    addr = NULL;

    if (!pd->fresh) {
        c = ngx_http_ai_peers_cached(pd, &addr);
    }

    if (c == NULL) {
        addr = ngx_http_ai_peers_next(pd);
    }

    if (addr == NULL) {
        ngx_log_error(NGX_LOG_ERR, pc->log, 0,
                      "provider \"%V\": no address for \"%V\"",
                      &peers->provider->name, &peers->name);

        pc->name = &peers->name;

        return NGX_BUSY;
    }

    /* u->state keeps the name until the request is logged */

    name = ngx_palloc(pd->pool, sizeof(ngx_str_t) + addr->len);
    if (name == NULL) {

        if (c) {
            ngx_http_ai_peers_close(c);
        }

        return NGX_ERROR;
    }

    name->len = addr->len;
    name->data = (u_char *) name + sizeof(ngx_str_t);
    ngx_memcpy(name->data, addr->text, addr->len);

    pd->sockaddr = addr->sockaddr;
    pd->socklen = addr->socklen;

    pc->sockaddr = &pd->sockaddr.sockaddr;
    pc->socklen = pd->socklen;
    pc->name = name;

    if (c == NULL) {
        return NGX_OK;
    }

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                   "ai peers: using connection %p", c);

    c->idle = 0;
    c->sent = 0;
    c->data = NULL;
    c->log = pc->log;
    c->read->log = pc->log;
    c->write->log = pc->log;
    c->pool->log = pc->log;

    pc->connection = c;
    pc->cached = 1;

    size = 0;

    for (cl = pd->upstream->request_bufs; cl; cl = cl->next) {
        size += ngx_buf_size(cl->buf);
    }

    if (size > NGX_HTTP_AI_PEERS_SMALL) {
        return NGX_DONE;
    }

    /*
     * As if it was being connected: short requests of this turn of the event
     * loop go out one after another at its end, when whoever reads them is
     * often awake already; waking it costs more than all else here.
     */

    ngx_post_event(c->write, &ngx_posted_events);

    return NGX_AGAIN;
}


static ngx_connection_t *
ngx_http_ai_peers_cached(ngx_http_ai_peer_data_t *pd,
    ngx_http_ai_peer_addr_t **addr)
{
    int                       n;
    char                      buf[1];
    ngx_queue_t              *q;
    ngx_connection_t         *c;
    ngx_http_ai_peers_t      *peers;
    ngx_http_ai_peer_idle_t  *item;

    peers = pd->peers;

    for (q = ngx_queue_head(&peers->idle);
         q != ngx_queue_sentinel(&peers->idle);
         /* void */)
    {
        item = ngx_queue_data(q, ngx_http_ai_peer_idle_t, queue);
        c = item->connection;

        q = ngx_queue_next(q);

        *addr = ngx_http_ai_peers_find(peers, &item->sockaddr, item->socklen);

        if (*addr && ngx_http_ai_peers_tried(pd, *addr)) {
            continue;
        }

        if (*addr && ngx_current_msec - c->start_time <= NGX_HTTP_AI_PEERS_AGE)
        {
            /*
             * its end may be an event of this very turn of the loop, and a
             * request that was sent cannot be repeated; nobody closes what
             * was used a moment ago, so that a busy one is not looked at
             */

            if (ngx_current_msec - item->since > NGX_HTTP_AI_PEERS_FRESH) {
                n = recv(c->fd, buf, 1, MSG_PEEK);

            } else {
                n = -1;
                ngx_set_socket_errno(NGX_EAGAIN);
            }

            if (n == -1 && ngx_socket_errno == NGX_EAGAIN) {
                ngx_queue_remove(&item->queue);
                ngx_queue_insert_head(&peers->free, &item->queue);
                peers->nidle--;

                return c;
            }
        }

        ngx_http_ai_peers_drop(item);
    }

    *addr = NULL;

    return NULL;
}


static ngx_http_ai_peer_addr_t *
ngx_http_ai_peers_next(ngx_http_ai_peer_data_t *pd)
{
    ngx_uint_t                i, n;
    ngx_http_ai_peers_t      *peers;
    ngx_http_ai_peer_addr_t  *addr, *failed;

    peers = pd->peers;
    failed = NULL;

    for (i = 0; i < peers->naddrs; i++) {

        n = (peers->next + i) % peers->naddrs;
        addr = &peers->addrs[n];

        if (ngx_http_ai_peers_tried(pd, addr)) {
            continue;
        }

        if (addr->failed
            && ngx_current_msec - addr->failed < NGX_HTTP_AI_PEERS_FAILED)
        {
            if (failed == NULL) {
                failed = addr;
            }

            continue;
        }

        peers->next = n + 1;

        return addr;
    }

    if (failed) {
        peers->next = failed - peers->addrs + 1;
    }

    return failed;
}


static void
ngx_http_ai_peers_free(ngx_peer_connection_t *pc, void *data, ngx_uint_t state)
{
    ngx_http_ai_peer_data_t  *pd = data;

    ngx_http_ai_peer_addr_t  *addr;

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                   "ai peers: free, state %ui, cached %d",
                   state, (int) pc->cached);

    if (state & NGX_PEER_FAILED) {

        if (pc->cached) {

            /* says nothing about the address, but others may be as old */

            pd->fresh = 1;

        } else {

            if (pd->tried == NULL) {
                pd->tried = ngx_palloc(pd->pool, NGX_HTTP_AI_PEERS_TRIES
                                                 * sizeof(ngx_sockaddr_t));
            }

            if (pd->tried && pd->ntried < NGX_HTTP_AI_PEERS_TRIES) {
                pd->tried[pd->ntried] = pd->sockaddr;
                pd->tried_len[pd->ntried++] = pd->socklen;
            }

            addr = ngx_http_ai_peers_find(pd->peers, &pd->sockaddr,
                                          pd->socklen);
            if (addr) {
                addr->failed = ngx_current_msec ? ngx_current_msec : 1;
            }

            if (pd->upstream->request_sent) {
                /* it may have been taken: what to do is the engine's part */
                pc->tries = 0;
            }
        }

    } else if (ngx_http_ai_peers_keep(pc, pd) == NGX_OK) {
        pc->connection = NULL;
    }

    if (pc->tries) {
        pc->tries--;
    }
}


static ngx_int_t
ngx_http_ai_peers_keep(ngx_peer_connection_t *pc, ngx_http_ai_peer_data_t *pd)
{
    ngx_queue_t              *q;
    ngx_connection_t         *c;
    ngx_http_upstream_t      *u;
    ngx_http_ai_peers_t      *peers;
    ngx_http_ai_peer_idle_t  *item;

    u = pd->upstream;
    c = pc->connection;
    peers = pd->peers;

    if (c == NULL
        || c->pool == NULL
        || c->read->eof
        || c->read->error
        || c->read->timedout
        || c->write->error
        || c->write->timedout)
    {
        return NGX_DECLINED;
    }

    if (!u->keepalive || !u->request_body_sent) {
        return NGX_DECLINED;
    }

    if (ngx_terminate || ngx_exiting) {
        return NGX_DECLINED;
    }

    if (ngx_current_msec - c->start_time > NGX_HTTP_AI_PEERS_AGE) {
        return NGX_DECLINED;
    }

    if (ngx_http_ai_peers_find(peers, &pd->sockaddr, pd->socklen) == NULL) {
        return NGX_DECLINED;
    }

    if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (peers->nidle >= NGX_HTTP_AI_PEERS_IDLE) {
        q = ngx_queue_last(&peers->idle);
        ngx_http_ai_peers_drop(ngx_queue_data(q, ngx_http_ai_peer_idle_t,
                                              queue));
    }

    if (!ngx_queue_empty(&peers->free)) {
        q = ngx_queue_head(&peers->free);
        ngx_queue_remove(q);
        item = ngx_queue_data(q, ngx_http_ai_peer_idle_t, queue);

    } else {
        item = ngx_alloc(sizeof(ngx_http_ai_peer_idle_t), ngx_cycle->log);
        if (item == NULL) {
            return NGX_DECLINED;
        }
    }

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                   "ai peers: saving connection %p", c);

    item->peers = peers;
    item->connection = c;
    item->since = ngx_current_msec;
    item->sockaddr = pd->sockaddr;
    item->socklen = pd->socklen;

    ngx_queue_insert_head(&peers->idle, &item->queue);
    peers->nidle++;

    c->read->delayed = 0;

    if (c->write->timer_set) {
        ngx_del_timer(c->write);
    }

    /* its own read timer stays, a day away: the next request would set it */

    if (!peers->sweep.timer_set) {
        peers->sweep.log = ngx_cycle->log;
        ngx_add_timer(&peers->sweep, NGX_HTTP_AI_PEERS_TIMEOUT);
    }

    c->write->handler = ngx_http_ai_peers_dummy_handler;
    c->read->handler = ngx_http_ai_peers_close_handler;

    c->data = item;
    c->idle = 1;
    c->log = ngx_cycle->log;
    c->read->log = ngx_cycle->log;
    c->write->log = ngx_cycle->log;
    c->pool->log = ngx_cycle->log;

    if (c->read->ready) {
        ngx_http_ai_peers_close_handler(c->read);
    }

    return NGX_OK;
}


static ngx_http_ai_peer_addr_t *
ngx_http_ai_peers_find(ngx_http_ai_peers_t *peers, ngx_sockaddr_t *sockaddr,
    socklen_t socklen)
{
    ngx_uint_t                i;
    ngx_http_ai_peer_addr_t  *addr;

    addr = peers->addrs;

    for (i = 0; i < peers->naddrs; i++) {
        if (ngx_cmp_sockaddr(&addr[i].sockaddr.sockaddr, addr[i].socklen,
                             &sockaddr->sockaddr, socklen, 1)
            == NGX_OK)
        {
            return &addr[i];
        }
    }

    return NULL;
}


static ngx_uint_t
ngx_http_ai_peers_tried(ngx_http_ai_peer_data_t *pd,
    ngx_http_ai_peer_addr_t *addr)
{
    ngx_uint_t  i;

    for (i = 0; i < pd->ntried; i++) {
        if (ngx_cmp_sockaddr(&pd->tried[i].sockaddr, pd->tried_len[i],
                             &addr->sockaddr.sockaddr, addr->socklen, 1)
            == NGX_OK)
        {
            return 1;
        }
    }

    return 0;
}


static void
ngx_http_ai_peers_dummy_handler(ngx_event_t *ev)
{
    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, ev->log, 0,
                   "ai peers: dummy handler");
}


static void
ngx_http_ai_peers_close_handler(ngx_event_t *ev)
{
    int                n;
    char               buf[1];
    ngx_connection_t  *c;

    c = ev->data;

    if (c->close || c->read->timedout) {
        goto close;
    }

    n = recv(c->fd, buf, 1, MSG_PEEK);

    if (n == -1 && ngx_socket_errno == NGX_EAGAIN) {
        ev->ready = 0;

        if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
            goto close;
        }

        return;
    }

close:

    ngx_http_ai_peers_drop(c->data);
}


static void
ngx_http_ai_peers_sweep_handler(ngx_event_t *ev)
{
    ngx_msec_t                age;
    ngx_http_ai_peers_t      *peers;
    ngx_http_ai_peer_idle_t  *item;

    peers = ev->data;

    while (!ngx_queue_empty(&peers->idle)) {
        item = ngx_queue_data(ngx_queue_last(&peers->idle),
                              ngx_http_ai_peer_idle_t, queue);
        age = ngx_current_msec - item->since;

        if (age < NGX_HTTP_AI_PEERS_TIMEOUT) {
            ngx_add_timer(ev, NGX_HTTP_AI_PEERS_TIMEOUT - age);
            return;
        }

        ngx_http_ai_peers_drop(item);
    }
}


static void
ngx_http_ai_peers_drop(ngx_http_ai_peer_idle_t *item)
{
    ngx_http_ai_peers_t  *peers;

    peers = item->peers;

    ngx_http_ai_peers_close(item->connection);

    ngx_queue_remove(&item->queue);
    ngx_queue_insert_head(&peers->free, &item->queue);
    peers->nidle--;
}


static void
ngx_http_ai_peers_close(ngx_connection_t *c)
{

#if (NGX_HTTP_SSL)

    if (c->ssl) {
        c->ssl->no_wait_shutdown = 1;
        c->ssl->no_send_shutdown = 1;

        if (ngx_ssl_shutdown(c) == NGX_AGAIN) {
            c->ssl->handler = ngx_http_ai_peers_close;
            return;
        }
    }

#endif

    ngx_destroy_pool(c->pool);
    ngx_close_connection(c);
}


#if (NGX_HTTP_SSL)

static ngx_int_t
ngx_http_ai_peers_set_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_ai_peer_data_t  *pd = data;

    return ngx_ssl_set_session(pc->connection, pd->peers->session);
}


static void
ngx_http_ai_peers_save_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_ai_peer_data_t  *pd = data;

    ngx_ssl_session_t    *session, *old;
    ngx_http_ai_peers_t  *peers;

    peers = pd->peers;

    session = ngx_ssl_get_session(pc->connection);
    if (session == NULL) {
        return;
    }

    old = peers->session;
    peers->session = session;

    if (old) {
        ngx_ssl_free_session(old);
    }
}

#endif


ngx_int_t
ngx_http_ai_peers_start(ngx_cycle_t *cycle,
    ngx_http_ai_router_main_conf_t *amcf)
{
    ngx_uint_t                i;
    ngx_event_t              *ev;
    ngx_pool_cleanup_t       *cln;
    ngx_http_ai_peers_t      *peers;
    ngx_http_ai_provider_t  **providers;

    if (ngx_process != NGX_PROCESS_WORKER
        && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    providers = amcf->providers.elts;

    for (i = 0; i < amcf->providers.nelts; i++) {

        peers = providers[i]->peers;

        if (peers == NULL) {
            continue;
        }

        cln = ngx_pool_cleanup_add(cycle->pool, 0);
        if (cln == NULL) {
            return NGX_ERROR;
        }

        cln->handler = ngx_http_ai_peers_cleanup;
        cln->data = peers;

        if (!peers->resolve || amcf->resolver == NULL) {
            continue;
        }

        ev = ngx_pcalloc(cycle->pool, sizeof(ngx_event_t));
        if (ev == NULL) {
            return NGX_ERROR;
        }

        ev->handler = ngx_http_ai_peers_timer_handler;
        ev->data = peers;
        ev->log = cycle->log;
        ev->cancelable = 1;

        peers->event = ev;
        peers->log = cycle->log;
        peers->resolver = amcf->resolver;
        peers->timeout = amcf->resolver_timeout;

        /* addresses of the start are as good as new: spread the queries */

        ngx_add_timer(ev, peers->naddrs ? 100 + (ngx_msec_t) ngx_random() % 900
                                        : 1);
    }

    return NGX_OK;
}


static void
ngx_http_ai_peers_timer_handler(ngx_event_t *ev)
{
    ngx_resolver_ctx_t   *ctx;
    ngx_http_ai_peers_t  *peers;

    peers = ev->data;

    if (ngx_terminate || ngx_exiting || peers->ctx) {
        return;
    }

    ctx = ngx_resolve_start(peers->resolver, NULL);

    if (ctx == NULL || ctx == NGX_NO_RESOLVER) {
        ngx_add_timer(ev, ngx_http_ai_peers_failing(peers, "no resolver"));
        return;
    }

    ctx->name = peers->name;
    ctx->handler = ngx_http_ai_peers_resolve_handler;
    ctx->data = peers;
    ctx->timeout = peers->timeout;
    ctx->cancelable = 1;

    /* the handler may be called at once, and has freed ctx then */

    peers->ctx = ctx;

    if (ngx_resolve_name(ctx) != NGX_OK) {
        peers->ctx = NULL;
        ngx_add_timer(ev, ngx_http_ai_peers_failing(peers, "no query sent"));
    }
}


static void
ngx_http_ai_peers_resolve_handler(ngx_resolver_ctx_t *ctx)
{
    time_t                valid;
    ngx_msec_t            delay;
    ngx_http_ai_peers_t  *peers;

    peers = ctx->data;
    peers->ctx = NULL;

    if (ctx->state || ctx->naddrs == 0) {
        delay = ngx_http_ai_peers_failing(peers, ctx->state
                                           ? ngx_resolver_strerror(ctx->state)
                                           : "no address");

    } else if (ngx_http_ai_peers_update(peers, ctx) != NGX_OK) {
        delay = ngx_http_ai_peers_failing(peers, "no memory");

    } else {

        if (peers->failing) {
            ngx_log_error(NGX_LOG_NOTICE, peers->log, 0,
                          "provider \"%V\": \"%V\" is resolved again",
                          &peers->provider->name, &peers->name);
        }

        peers->failing = 0;
        peers->retry = 0;

        valid = ctx->valid - ngx_time();

        if (valid < 1) {
            valid = 1;
        }

        if (valid > NGX_HTTP_AI_PEERS_VALID) {
            valid = NGX_HTTP_AI_PEERS_VALID;
        }

        /* some more, or the resolver answers from what it is about to drop */

        delay = (ngx_msec_t) valid * 1000 + (ngx_msec_t) ngx_random() % 200;
    }

    ngx_resolve_name_done(ctx);

    if (ngx_terminate || ngx_exiting) {
        return;
    }

    ngx_add_timer(peers->event, delay);
}


static ngx_msec_t
ngx_http_ai_peers_failing(ngx_http_ai_peers_t *peers, const char *reason)
{
    if (!peers->failing) {
        peers->failing = 1;

        ngx_log_error(NGX_LOG_WARN, peers->log, 0,
                      "provider \"%V\": \"%V\" could not be resolved (%s), "
                      "%ui known addresses are used",
                      &peers->provider->name, &peers->name, reason,
                      peers->naddrs);
    }

    /* each query to a dead server is a line of the resolver in the log */

    if (peers->retry == 0 || peers->naddrs == 0) {
        peers->retry = NGX_HTTP_AI_PEERS_RETRY;

    } else {
        peers->retry = ngx_min(peers->retry * 2, NGX_HTTP_AI_PEERS_RETRY_MAX);
    }

    return peers->retry;
}


static ngx_int_t
ngx_http_ai_peers_update(ngx_http_ai_peers_t *peers, ngx_resolver_ctx_t *ctx)
{
    ngx_uint_t                i, n;
    ngx_http_ai_peer_addr_t  *addrs;

    addrs = ngx_calloc(ngx_min(ctx->naddrs, NGX_HTTP_AI_PEERS_ADDRS)
                       * sizeof(ngx_http_ai_peer_addr_t), peers->log);
    if (addrs == NULL) {
        return NGX_ERROR;
    }

    n = ngx_http_ai_peers_fill(peers, ctx, addrs, 1);

    if (n == 0) {
        n = ngx_http_ai_peers_fill(peers, ctx, addrs, 0);
    }

    if (n == 0) {
        ngx_free(addrs);
        return NGX_ERROR;
    }

    /* the resolver rotates its answers, which is no change */

    if (n == peers->naddrs) {

        for (i = 0; i < n; i++) {
            if (ngx_http_ai_peers_find(peers, &addrs[i].sockaddr,
                                       addrs[i].socklen)
                == NULL)
            {
                break;
            }
        }

        if (i == n) {
            ngx_free(addrs);
            return NGX_OK;
        }
    }

    ngx_log_error(NGX_LOG_INFO, peers->log, 0,
                  "provider \"%V\": \"%V\" has %ui addresses now, had %ui",
                  &peers->provider->name, &peers->name, n, peers->naddrs);

    if (peers->allocated) {
        ngx_free(peers->addrs);
    }

    peers->addrs = addrs;
    peers->naddrs = n;
    peers->allocated = 1;

    return NGX_OK;
}


static ngx_uint_t
ngx_http_ai_peers_fill(ngx_http_ai_peers_t *peers, ngx_resolver_ctx_t *ctx,
    ngx_http_ai_peer_addr_t *addrs, ngx_uint_t check)
{
    ngx_uint_t                i, n;
    ngx_resolver_addr_t      *from;
    ngx_http_ai_peer_addr_t  *addr, *old;

    n = 0;

    for (i = 0; i < ctx->naddrs && n < NGX_HTTP_AI_PEERS_ADDRS; i++) {

        from = &ctx->addrs[i];
        addr = &addrs[n];

        if (from->socklen > (socklen_t) sizeof(ngx_sockaddr_t)) {
            continue;
        }

        ngx_memzero(addr, sizeof(ngx_http_ai_peer_addr_t));
        ngx_memcpy(&addr->sockaddr, from->sockaddr, from->socklen);
        addr->socklen = from->socklen;

        ngx_inet_set_port(&addr->sockaddr.sockaddr, peers->provider->port);

        if (check
            && !ngx_http_ai_peers_reachable(&addr->sockaddr.sockaddr,
                                            addr->socklen))
        {
            continue;
        }

        addr->len = ngx_sock_ntop(&addr->sockaddr.sockaddr, addr->socklen,
                                  addr->text, NGX_SOCKADDR_STRLEN, 1);

        old = ngx_http_ai_peers_find(peers, &addr->sockaddr, addr->socklen);
        if (old) {
            addr->failed = old->failed;
        }

        n++;
    }

    return n;
}


/*
 * getaddrinfo() leaves out IPv6 addresses where there is no route to them, the
 * resolver does not.  Connecting a datagram socket sends nothing.
 */

static ngx_uint_t
ngx_http_ai_peers_reachable(struct sockaddr *sockaddr, socklen_t socklen)
{
    int           rc;
    ngx_err_t     err;
    ngx_socket_t  s;

    if (sockaddr->sa_family == AF_INET) {
        return 1;
    }

    s = ngx_socket(sockaddr->sa_family, SOCK_DGRAM, 0);
    if (s == (ngx_socket_t) -1) {
        return 0;
    }

    rc = connect(s, sockaddr, socklen);
    err = ngx_socket_errno;

    if (ngx_close_socket(s) == -1) {
        ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, ngx_socket_errno,
                      ngx_close_socket_n " failed");
    }

    return rc == 0 || (err != NGX_ENETUNREACH && err != NGX_EHOSTUNREACH
                       && err != EADDRNOTAVAIL);
}


static void
ngx_http_ai_peers_cleanup(void *data)
{
    ngx_http_ai_peers_t *peers = data;

    ngx_queue_t  *q;

    if (peers->event && peers->event->timer_set) {
        ngx_del_timer(peers->event);
    }

    if (peers->sweep.timer_set) {
        ngx_del_timer(&peers->sweep);
    }

    if (peers->ctx) {
        ngx_resolve_name_done(peers->ctx);
        peers->ctx = NULL;
    }

#if (NGX_HTTP_SSL)
    if (peers->session) {
        ngx_ssl_free_session(peers->session);
        peers->session = NULL;
    }
#endif

    /* idle connections are the event loop's to close, and it has ended */

    while (!ngx_queue_empty(&peers->free)) {
        q = ngx_queue_head(&peers->free);
        ngx_queue_remove(q);
        ngx_free(ngx_queue_data(q, ngx_http_ai_peer_idle_t, queue));
    }

    if (peers->allocated) {
        ngx_free(peers->addrs);
        peers->addrs = NULL;
        peers->naddrs = 0;
        peers->allocated = 0;
    }
}
