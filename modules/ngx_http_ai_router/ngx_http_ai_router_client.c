
/*
 * Copyright (C) nginx AI gateway authors
 */


/* the client's side of a request: writing to it, and its leaving */


#include "ngx_http_ai_router_exec.h"


/* of a copy for a client that may be slow */
#define NGX_HTTP_AI_COPY_SIZE  4096


static ngx_uint_t ngx_http_ai_exec_wanted(ngx_http_ai_exec_t *x);
static ngx_int_t ngx_http_ai_exec_spool(ngx_http_ai_exec_t *x,
    ngx_chain_t *out);
static ngx_chain_t *ngx_http_ai_exec_copies(ngx_http_ai_exec_t *x,
    ngx_chain_t *in);
static ngx_buf_t *ngx_http_ai_exec_room(ngx_http_ai_exec_t *x, size_t size);
static void ngx_http_ai_exec_drain(ngx_http_ai_exec_t *x);


ngx_int_t
ngx_http_ai_exec_output(ngx_http_ai_exec_t *x, ngx_chain_t *out)
{
    off_t                      size;
    ngx_int_t                  rc;
    ngx_chain_t               *cl, *copies;
    ngx_connection_t          *c;
    ngx_http_request_t        *r;
    ngx_http_core_loc_conf_t  *clcf;

    r = x->request;
    c = r->connection;

    if (out && x->ctx->tap && x->ctx->tap->data) {
        x->ctx->tap->data(r, x->ctx, out);
    }

    if (x->gone) {
        size = 0;

        for (cl = out; cl; cl = cl->next) {
            size += cl->buf->last - cl->buf->pos;
            cl->buf->pos = cl->buf->last;
        }

        if (x->kept) {
            return ngx_http_ai_exec_wanted(x) ? NGX_OK : NGX_ERROR;
        }

        x->drain_left -= size;

        return (x->drain_left > 0) ? NGX_OK : NGX_ERROR;
    }

    copies = NULL;

    if (x->ctx->spool && out && x->ctx->stream
        && r->http_version >= NGX_HTTP_VERSION_20)
    {
        copies = ngx_http_ai_exec_copies(x, out);

        if (copies == NULL) {
            return NGX_ERROR;
        }
    }

    rc = ngx_http_output_filter(r, copies ? copies : out);

    while (copies) {
        cl = copies;
        copies = cl->next;
        ngx_free_chain(r->pool, cl);
    }

    if (rc == NGX_ERROR) {

        if (x->winner
            && (x->winner->provider->drain_time || ngx_http_ai_exec_wanted(x)))
        {
            ngx_http_ai_exec_drain(x);
            return NGX_OK;
        }

        return NGX_ERROR;
    }

    if (c->buffered) {
        clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

        /* the links are those of the write filter; streams of HTTP/2 and 3
         * have none here, and were given copies */

        if (x->ctx->spool && ngx_http_ai_exec_spool(x, r->out) != NGX_OK) {
            return NGX_ERROR;
        }

        if (ngx_handle_write_event(c->write, clcf->send_lowat) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/*
 * A slow client slows its provider, which must not slow others that wait for
 * the same answer: what it has not taken is copied, so that the attempt has
 * its buffers back.
 */

static ngx_int_t
ngx_http_ai_exec_spool(ngx_http_ai_exec_t *x, ngx_chain_t *out)
{
    size_t        size;
    ngx_buf_t    *b, *copy;
    ngx_chain_t  *cl;

    if (x->winner == NULL || x->winner->finished) {
        return NGX_OK;
    }

    for (cl = out; cl; cl = cl->next) {
        b = cl->buf;
        size = b->last - b->pos;

        if (b->tag != x->winner->sr->upstream->output.tag || b->last_buf
            || size == 0 || size > x->ctx->spool)
        {
            continue;
        }

        copy = ngx_create_temp_buf(x->request->pool, size);
        if (copy == NULL) {
            return NGX_ERROR;
        }

        x->ctx->spool -= size;

        copy->last = ngx_cpymem(copy->last, b->pos, size);
        copy->flush = b->flush;

        b->pos = b->last;
        cl->buf = copy;
    }

    return NGX_OK;
}


/*
 * The same where frames keep the buffers: before it is known how slow the
 * client is.  Copies are used again as they are sent, in their order.
 */

static ngx_chain_t *
ngx_http_ai_exec_copies(ngx_http_ai_exec_t *x, ngx_chain_t *in)
{
    size_t        size;
    ngx_buf_t    *b, *copy;
    ngx_chain_t  *cl, *out, **ll;

    ll = &out;

    for ( /* void */ ; in; in = in->next) {
        b = in->buf;
        size = b->last - b->pos;

        cl = ngx_alloc_chain_link(x->request->pool);
        if (cl == NULL) {
            return NULL;
        }

        cl->buf = b;
        *ll = cl;
        ll = &cl->next;

        if (b->last_buf || size == 0) {
            continue;
        }

        copy = ngx_http_ai_exec_room(x, size);

        if (copy) {
            copy->last = ngx_cpymem(copy->last, b->pos, size);
            copy->flush = b->flush;

            b->pos = b->last;
            cl->buf = copy;
        }
    }

    *ll = NULL;

    return out;
}


/* NULL: it has as much as may be */

static ngx_buf_t *
ngx_http_ai_exec_room(ngx_http_ai_exec_t *x, size_t size)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    cl = x->copies;
    b = cl ? cl->buf : NULL;

    if (b && b->pos == b->last && (size_t) (b->end - b->start) >= size) {
        b->pos = b->start;
        b->last = b->start;

        x->copies = cl->next;

    } else {
        size = ngx_max(size, NGX_HTTP_AI_COPY_SIZE);

        if (size > x->ctx->spool) {
            return NULL;
        }

        cl = ngx_alloc_chain_link(x->request->pool);
        b = ngx_create_temp_buf(x->request->pool, size);

        if (cl == NULL || b == NULL) {
            return NULL;
        }

        x->ctx->spool -= size;
        cl->buf = b;
    }

    cl->next = NULL;

    if (x->copies == NULL) {
        x->copies = cl;

    } else {
        x->last_copy->next = cl;
    }

    x->last_copy = cl;

    return b;
}


/*
 * Answers that are written one after another cost less than those between
 * which other requests are read and parsed: see ngx_http_ai_peers_get().  The
 * write event is posted, and is then handled as that of a slow client.
 */

ngx_int_t
ngx_http_ai_exec_output_later(ngx_http_ai_exec_t *x, ngx_chain_t *out)
{
    ngx_int_t            rc;
    ngx_event_t         *wev;
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = x->request;
    c = r->connection;
    wev = c->write;

    if (x->gone || c->error || c->buffered || wev->delayed || !wev->ready
        || r->http_version >= NGX_HTTP_VERSION_20)
    {
        return ngx_http_ai_exec_output(x, out);
    }

    /* the write filter keeps what it is given */

    wev->delayed = 1;

    rc = ngx_http_ai_exec_output(x, out);

    wev->delayed = 0;

    if (c->buffered) {
        ngx_post_event(wev, &ngx_posted_events);
    }

    return rc;
}


/* the client sends nothing by now, so what can be read is its leaving */

void
ngx_http_ai_exec_read(ngx_http_request_t *r)
{
    ngx_http_ai_exec_t  *x;

    x = ngx_http_get_module_ctx(r, ngx_http_ai_router_module);

    if (x->gone || !x->api->client_closed(r)) {
        return;
    }

    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                  "ai router: client closed the connection");

    if (x->winner && x->winner->complete) {
        /* it has all that it wants */
        ngx_http_ai_exec_finish(x, NGX_OK);
        return;
    }

    if (ngx_http_ai_exec_wanted(x)
        || (x->winner && !x->winner->finished
            && x->winner->provider->drain_time))
    {
        ngx_http_ai_exec_drain(x);
        return;
    }

    r->connection->error = 1;
    x->done = 1;
    ngx_http_finalize_request(r, NGX_HTTP_CLIENT_CLOSED_REQUEST);
}


static ngx_uint_t
ngx_http_ai_exec_wanted(ngx_http_ai_exec_t *x)
{
    const ngx_http_ai_tap_t  *tap;

    tap = x->ctx->tap;

    return tap && tap->wanted && tap->wanted(x->request, x->ctx);
}


void
ngx_http_ai_exec_over(ngx_http_ai_exec_t *x)
{
    ngx_http_ai_ctx_t  *ctx;

    ctx = x->ctx;

    if (x->told) {
        return;
    }

    x->told = 1;

    ctx->complete = (x->winner && x->winner->complete && !x->winner->cut
                     && ctx->error == NGX_HTTP_AI_ERR_NONE);

    if (ctx->tap == NULL) {
        return;
    }

    (void) ngx_http_ai_router_meter(x->request, ctx);

    ctx->tap->end(x->request, ctx);
}


/* the client has left: goes on reading for those who wait for the answer, or
 * for the usage, within limits */

static void
ngx_http_ai_exec_drain(ngx_http_ai_exec_t *x)
{
    ngx_chain_t            *cl;
    ngx_connection_t       *c;
    ngx_http_request_t     *r;
    ngx_http_upstream_t    *u;
    ngx_http_ai_attempt_t  *a;

    a = x->winner;
    r = x->request;
    c = r->connection;

    x->gone = 1;
    x->kept = ngx_http_ai_exec_wanted(x);

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, c->log, 0,
                   "ai router: the client is gone, kept: %d", x->kept);

    for (cl = r->out; cl; cl = cl->next) {
        cl->buf->pos = cl->buf->last;
    }

    r->out = NULL;
    r->buffered = 0;
    c->buffered = 0;
    c->error = 0;

    if (c->write->timer_set) {
        ngx_del_timer(c->write);
    }

    if (!x->kept) {
        x->drain_left = a->provider->drain_bytes;
        ngx_add_timer(&x->timer, a->provider->drain_time);
    }

    if (a == NULL || a->finished) {
        return;
    }

    /* nobody gets what is held */
    a->waits = 0;

    u = a->sr->upstream;

    for (cl = u->busy_bufs; cl; cl = cl->next) {
        cl->buf->pos = cl->buf->last;
    }

    /* a read event would not empty a buffer that is full: as if written */

    if (ngx_http_post_request(r, NULL) != NGX_OK) {
        x->drain_left = 0;
    }
}
