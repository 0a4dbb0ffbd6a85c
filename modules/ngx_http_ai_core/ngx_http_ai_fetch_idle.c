
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The connection that a fetcher keeps between two exchanges.  Nobody's
 * meanwhile, it ends when its peer says anything or leaves, and with the
 * worker.
 */


#include "ngx_http_ai_fetch_ctx.h"


/* the name is resolved again after a while, ms */
#define NGX_HTTP_AI_FETCH_LIFETIME  300000


static ngx_uint_t ngx_http_ai_fetch_usable(ngx_http_ai_fetch_ctx_t *x,
    ngx_connection_t *c);
static ngx_connection_t *ngx_http_ai_fetch_detach(
    ngx_http_ai_fetcher_t *fetcher);
static void ngx_http_ai_fetch_set_log(ngx_connection_t *c, ngx_log_t *log);
static void ngx_http_ai_fetch_idle_handler(ngx_event_t *ev);


ngx_int_t
ngx_http_ai_fetch_take(ngx_http_ai_fetch_ctx_t *x)
{
    ngx_connection_t       *c;
    ngx_http_ai_fetcher_t  *fetcher;

    fetcher = x->fetcher;

    if (fetcher->idle == NULL || x->other) {
        return NGX_DECLINED;
    }

    if (ngx_current_msec - fetcher->idle->start_time
        >= NGX_HTTP_AI_FETCH_LIFETIME)
    {
        ngx_http_ai_fetch_drop(fetcher);
        return NGX_DECLINED;
    }

    c = ngx_http_ai_fetch_detach(fetcher);

    ngx_http_ai_fetch_set_log(c, x->log);

    c->log->connection = c->number;
    c->data = x;

    x->peer.connection = c;
    x->kept = 1;

    return NGX_OK;
}


void
ngx_http_ai_fetch_keep(ngx_http_ai_fetch_ctx_t *x)
{
    ngx_connection_t       *c;
    ngx_http_ai_fetcher_t  *fetcher;

    c = x->peer.connection;
    fetcher = x->fetcher;

    if (!ngx_http_ai_fetch_usable(x, c)) {
        return;
    }

    x->peer.connection = NULL;

    ngx_http_ai_fetch_set_log(c, ngx_cycle->log);

    c->data = fetcher;
    c->idle = 1;

    c->read->handler = ngx_http_ai_fetch_idle_handler;
    c->write->handler = ngx_http_ai_fetch_dummy_handler;

    fetcher->idle = c;
    ngx_queue_insert_tail(&fetcher->amcf->kept, &fetcher->queue);

    ngx_add_timer(c->read, fetcher->conf.idle);

    if (c->read->ready) {
        ngx_http_ai_fetch_idle_handler(c->read);
    }
}


static ngx_uint_t
ngx_http_ai_fetch_usable(ngx_http_ai_fetch_ctx_t *x, ngx_connection_t *c)
{
    if (x->fetcher->conf.idle == 0 || x->fetcher->idle || x->other
        || ngx_exiting || ngx_terminate)
    {
        return 0;
    }

    /* the request and its answer have come to their ends */

    if (!x->persistent || x->framing == NGX_HTTP_AI_FETCH_EOF
        || x->unsent || c->buffered || x->in->pos != x->in->last
        || c->read->eof || c->read->error || c->error)
    {
        return 0;
    }

#if (NGX_HTTP_SSL)

    if (c->ssl && SSL_pending(c->ssl->connection)) {
        return 0;
    }

#endif

    return ngx_handle_read_event(c->read, 0) == NGX_OK;
}


void
ngx_http_ai_fetch_drop(ngx_http_ai_fetcher_t *fetcher)
{
    ngx_http_ai_fetch_close_connection(ngx_http_ai_fetch_detach(fetcher));
}


static ngx_connection_t *
ngx_http_ai_fetch_detach(ngx_http_ai_fetcher_t *fetcher)
{
    ngx_connection_t  *c;

    c = fetcher->idle;

    fetcher->idle = NULL;
    ngx_queue_remove(&fetcher->queue);

    if (c->read->timer_set) {
        ngx_del_timer(c->read);
    }

    c->idle = 0;

    return c;
}


static void
ngx_http_ai_fetch_set_log(ngx_connection_t *c, ngx_log_t *log)
{
    c->log = log;
    c->read->log = log;
    c->write->log = log;
    c->pool->log = log;
}


/* its time is over, the worker ends, or its peer wants to be rid of it */

static void
ngx_http_ai_fetch_idle_handler(ngx_event_t *ev)
{
    ssize_t            n;
    u_char             byte;
    ngx_connection_t  *c;

    c = ev->data;

    if (!c->close && !ev->timedout) {

        n = recv(c->fd, (char *) &byte, 1, MSG_PEEK);

        if (n == -1 && ngx_socket_errno == NGX_EAGAIN) {
            ev->ready = 0;

            if (ngx_handle_read_event(ev, 0) == NGX_OK) {
                return;
            }
        }
    }

    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, ev->log, 0,
                   "ai fetch: kept connection ends");

    ngx_http_ai_fetch_drop(c->data);
}
