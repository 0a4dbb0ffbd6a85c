
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Requests that wait for the answer of another one.  Those of one flight are
 * a group; a worker looks at each of its groups every 10 ms, and at once when
 * the leader is its own.  A follower reads from the flight as fast as its
 * client does: a slow one is behind, and when the flight has ended it takes
 * the rest of it along.
 */


#include "ngx_http_ai_cache.h"


#define NGX_HTTP_AI_CACHE_POLL   10
#define NGX_HTTP_AI_CACHE_PIECE  (16 * 1024)

/* pieces in one wake-up */
#define NGX_HTTP_AI_CACHE_TURN   8


struct ngx_http_ai_cache_group_s {
    ngx_rbtree_node_t           node;         /* key: of the flight */
    ngx_queue_t                 queue;        /* of all groups */
    ngx_queue_t                 followers;
    ngx_http_ai_cache_zone_t   *zone;
    ngx_http_ai_cache_reader_t  seen;         /* when they were last woken */
};


static ngx_http_ai_cache_group_t *ngx_http_ai_cache_group(
    ngx_http_ai_cache_zone_t *zone, uint64_t flight);
static void ngx_http_ai_cache_poll(ngx_event_t *ev);
static void ngx_http_ai_cache_follow_handler(ngx_event_t *ev);
static void ngx_http_ai_cache_timeout_handler(ngx_event_t *ev);
static void ngx_http_ai_cache_follow_read(ngx_http_request_t *r);
static void ngx_http_ai_cache_live_write(ngx_http_request_t *r);
static void ngx_http_ai_cache_live_go(ngx_http_ai_cached_t *c);
static void ngx_http_ai_cache_live_rest(ngx_http_ai_cached_t *c);
static void ngx_http_ai_cache_live_failed(ngx_http_ai_cached_t *c,
    ngx_http_ai_err_e class);
static ngx_int_t ngx_http_ai_cache_out(ngx_http_ai_cached_t *c, ngx_buf_t *b);
static void ngx_http_ai_cache_end_request(ngx_http_ai_cached_t *c,
    ngx_int_t rc);
static void ngx_http_ai_cache_pace_handler(ngx_event_t *ev);


/* of this worker */

static ngx_rbtree_t               ngx_http_ai_cache_groups;
static ngx_rbtree_node_t          ngx_http_ai_cache_groups_sentinel;
static ngx_queue_t                ngx_http_ai_cache_groups_queue;
static ngx_event_t                ngx_http_ai_cache_poll_timer;
static ngx_http_ai_cache_event_t  ngx_http_ai_cache_poll_data;


ngx_int_t
ngx_http_ai_cache_follow(ngx_http_ai_cached_t *c)
{
    ngx_connection_t           *conn;
    ngx_http_request_t         *r;
    ngx_http_ai_cache_group_t  *group;

    r = c->request;
    conn = r->connection;

    if (ngx_http_ai_cache_poll_timer.handler == NULL) {
        ngx_rbtree_init(&ngx_http_ai_cache_groups,
                        &ngx_http_ai_cache_groups_sentinel,
                        ngx_rbtree_insert_value);
        ngx_queue_init(&ngx_http_ai_cache_groups_queue);

        ngx_http_ai_cache_poll_data.fd = (ngx_socket_t) -1;
        ngx_http_ai_cache_poll_timer.handler = ngx_http_ai_cache_poll;
        ngx_http_ai_cache_poll_timer.data = &ngx_http_ai_cache_poll_data;
        ngx_http_ai_cache_poll_timer.log = ngx_cycle->log;
    }

    group = ngx_http_ai_cache_group(c->zone, c->reader.flight);

    if (group == NULL) {
        group = ngx_calloc(sizeof(ngx_http_ai_cache_group_t), conn->log);
        if (group == NULL) {
            return NGX_ERROR;
        }

        group->zone = c->zone;
        group->seen = c->reader;
        group->node.key = (ngx_rbtree_key_t) c->reader.flight;

        ngx_queue_init(&group->followers);
        ngx_queue_insert_tail(&ngx_http_ai_cache_groups_queue, &group->queue);
        ngx_rbtree_insert(&ngx_http_ai_cache_groups, &group->node);
    }

    ngx_queue_insert_tail(&group->followers, &c->queue);
    c->group = group;

    if (!ngx_http_ai_cache_poll_timer.timer_set) {
        ngx_add_timer(&ngx_http_ai_cache_poll_timer, NGX_HTTP_AI_CACHE_POLL);
    }

    c->event_data.data = c;
    c->event_data.fd = (ngx_socket_t) -1;

    c->event.handler = ngx_http_ai_cache_follow_handler;
    c->event.data = &c->event_data;
    c->event.log = conn->log;

    c->timer.handler = ngx_http_ai_cache_timeout_handler;
    c->timer.data = &c->event_data;
    c->timer.log = conn->log;

    ngx_add_timer(&c->timer, c->conf->lock_timeout);

    /* it may have begun, or ended, before */
    ngx_post_event(&c->event, &ngx_posted_events);

    r->read_event_handler = ngx_http_ai_cache_follow_read;

    if (conn->read->ready) {
        ngx_post_event(conn->read, &ngx_posted_events);

    } else if (ngx_handle_read_event(conn->read, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    return NGX_AGAIN;
}


void
ngx_http_ai_cache_unfollow(ngx_http_ai_cached_t *c)
{
    ngx_http_ai_cache_group_t  *group;
    ngx_http_ai_cache_store_t  *st;

    if (c->timer.timer_set) {
        ngx_del_timer(&c->timer);
    }

    if (c->event.posted) {
        ngx_delete_posted_event(&c->event);
    }

    group = c->group;

    if (group == NULL) {
        return;
    }

    c->group = NULL;
    ngx_queue_remove(&c->queue);

    if (ngx_queue_empty(&group->followers)) {
        ngx_queue_remove(&group->queue);
        ngx_rbtree_delete(&ngx_http_ai_cache_groups, &group->node);
        ngx_free(group);
    }

    if (c->reader.flight) {
        st = ngx_http_ai_cache_lock(c->zone);
        ngx_http_ai_cache_depart(st, c->reader.flight, c->zone->worker);
        ngx_http_ai_cache_unlock(c->zone);
    }

    c->request->read_event_handler = ngx_http_block_reading;
}


static ngx_http_ai_cache_group_t *
ngx_http_ai_cache_group(ngx_http_ai_cache_zone_t *zone, uint64_t flight)
{
    ngx_rbtree_key_t            key;
    ngx_rbtree_node_t          *node;
    ngx_http_ai_cache_group_t  *group;

    key = (ngx_rbtree_key_t) flight;
    node = ngx_http_ai_cache_groups.root;

    if (node == NULL) {
        return NULL;
    }

    while (node != &ngx_http_ai_cache_groups_sentinel) {

        if (key != node->key) {
            node = (key < node->key) ? node->left : node->right;
            continue;
        }

        group = (ngx_http_ai_cache_group_t *) node;

        if (group->zone == zone && group->seen.flight == flight) {
            return group;
        }

        /* another zone's; ngx_rbtree_insert_value() has put equals there */

        node = node->right;
    }

    return NULL;
}


void
ngx_http_ai_cache_wake(ngx_http_ai_cache_zone_t *zone, uint64_t flight)
{
    ngx_queue_t                *q;
    ngx_http_ai_cached_t       *c;
    ngx_http_ai_cache_group_t  *group;

    group = ngx_http_ai_cache_group(zone, flight);

    if (group == NULL) {
        return;
    }

    for (q = ngx_queue_head(&group->followers);
         q != ngx_queue_sentinel(&group->followers);
         q = ngx_queue_next(q))
    {
        c = ngx_queue_data(q, ngx_http_ai_cached_t, queue);

        if (!c->event.posted) {
            ngx_post_event(&c->event, &ngx_posted_events);
        }
    }
}


static void
ngx_http_ai_cache_poll(ngx_event_t *ev)
{
    ngx_queue_t                 *q;
    ngx_http_ai_cache_store_t   *st;
    ngx_http_ai_cache_group_t   *group;
    ngx_http_ai_cache_reader_t   rd;

    for (q = ngx_queue_head(&ngx_http_ai_cache_groups_queue);
         q != ngx_queue_sentinel(&ngx_http_ai_cache_groups_queue);
         q = ngx_queue_next(q))
    {
        group = ngx_queue_data(q, ngx_http_ai_cache_group_t, queue);
        rd = group->seen;

        st = ngx_http_ai_cache_lock(group->zone);
        (void) ngx_http_ai_cache_read(st, &rd, NULL, 0);
        ngx_http_ai_cache_unlock(group->zone);

        if (rd.state != group->seen.state || rd.round != group->seen.round
            || rd.size != group->seen.size || rd.open != group->seen.open)
        {
            group->seen = rd;
            ngx_http_ai_cache_wake(group->zone, rd.flight);
        }
    }

    if (!ngx_queue_empty(&ngx_http_ai_cache_groups_queue)) {
        ngx_add_timer(ev, NGX_HTTP_AI_CACHE_POLL);
    }
}


ngx_uint_t
ngx_http_ai_cache_ready(ngx_http_ai_cached_t *c)
{
    ngx_http_ai_cache_reader_t  *rd;

    rd = &c->reader;

    if (rd->state != NGX_HTTP_AI_CACHE_FLIGHT_RUNNING) {
        return 1;
    }

    return rd->open && rd->size && c->ctx->stream
           && ngx_http_ai_cache_same(c, &rd->meta);
}


static void
ngx_http_ai_cache_follow_handler(ngx_event_t *ev)
{
    ngx_connection_t           *conn;
    ngx_http_request_t         *r;
    ngx_http_ai_cached_t       *c;
    ngx_http_ai_cache_event_t  *data;
    ngx_http_ai_cache_store_t  *st;

    data = ev->data;
    c = data->data;
    r = c->request;
    conn = r->connection;

    ngx_http_set_log_request(conn->log, r);

    if (c->step == NGX_HTTP_AI_CACHED_LIVE) {
        ngx_http_ai_cache_live_go(c);
        ngx_http_run_posted_requests(conn);
        return;
    }

    st = ngx_http_ai_cache_lock(c->zone);
    (void) ngx_http_ai_cache_read(st, &c->reader, NULL, 0);
    ngx_http_ai_cache_unlock(c->zone);

    if (ngx_http_ai_cache_ready(c)) {
        c->api->resume(r);
    }
}


static void
ngx_http_ai_cache_timeout_handler(ngx_event_t *ev)
{
    ngx_http_ai_cached_t       *c;
    ngx_http_ai_cache_event_t  *data;

    data = ev->data;
    c = data->data;

    ngx_log_error(NGX_LOG_INFO, c->request->connection->log, 0,
                  "ai cache: has waited too long for another request "
                  "(ai_cache_lock_timeout)");

    c->timedout = 1;
    c->api->resume(c->request);
}


/* the client sends nothing by now, so what can be read is its leaving */

static void
ngx_http_ai_cache_follow_read(ngx_http_request_t *r)
{
    ngx_http_ai_ctx_t              *ctx;
    ngx_http_ai_cached_t           *c;
    ngx_http_ai_cache_main_conf_t  *cmcf;

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_ai_cache_module);

    ctx = cmcf->api->get_ctx(r);
    c = ctx->cache;

    if (!c->api->client_closed(r)) {
        return;
    }

    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                  "ai cache: client closed the connection");

    ctx->complete = 0;
    r->connection->error = 1;

    ngx_http_ai_cache_end_request(c, NGX_HTTP_CLIENT_CLOSED_REQUEST);
}


ngx_int_t
ngx_http_ai_cache_live(ngx_http_ai_cached_t *c)
{
    ngx_int_t            rc;
    ngx_http_ai_ctx_t   *ctx;
    ngx_http_request_t  *r;

    r = c->request;
    ctx = c->ctx;

    if (c->timer.timer_set) {
        ngx_del_timer(&c->timer);
    }

    c->step = NGX_HTTP_AI_CACHED_LIVE;
    c->round = c->reader.round;

    ctx->cached = NGX_HTTP_AI_CACHE_COALESCED;

    ngx_http_ai_cache_known(c, &c->reader.meta);

    /* not before it has ended */
    ctx->complete = 0;
    ngx_http_ai_usage_init(&ctx->usage);
    ctx->usage_state = NGX_HTTP_AI_USAGE_NONE;

    c->buf = ngx_create_temp_buf(r->pool, NGX_HTTP_AI_CACHE_PIECE);
    if (c->buf == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_http_ai_cache_send_header(c, -1);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        ngx_http_ai_cache_unfollow(c);
        ctx->rc = rc;
        return NGX_DONE;
    }

    r->main->count++;

    r->write_event_handler = ngx_http_ai_cache_live_write;

    if (!c->event.posted) {
        ngx_post_event(&c->event, &ngx_posted_events);
    }

    ctx->rc = NGX_DONE;

    return NGX_DONE;
}


static void
ngx_http_ai_cache_live_write(ngx_http_request_t *r)
{
    ngx_event_t                    *wev;
    ngx_connection_t               *conn;
    ngx_http_ai_ctx_t              *ctx;
    ngx_http_ai_cached_t           *c;
    ngx_http_ai_cache_main_conf_t  *cmcf;

    conn = r->connection;
    wev = conn->write;

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_ai_cache_module);

    ctx = cmcf->api->get_ctx(r);
    c = ctx->cache;

    if (wev->timedout) {
        ngx_log_error(NGX_LOG_INFO, conn->log, NGX_ETIMEDOUT,
                      "client timed out");
        conn->timedout = 1;
        ngx_http_ai_cache_end_request(c, NGX_HTTP_REQUEST_TIME_OUT);
        return;
    }

    if (ngx_http_ai_cache_out(c, NULL) == NGX_ERROR) {
        ngx_http_ai_cache_end_request(c, NGX_ERROR);
        return;
    }

    if (c->group) {
        ngx_http_ai_cache_live_go(c);
    }
}


static void
ngx_http_ai_cache_live_go(ngx_http_ai_cached_t *c)
{
    size_t                       n;
    ngx_uint_t                   i, busy;
    ngx_buf_t                   *b;
    ngx_http_ai_cache_store_t   *st;
    ngx_http_ai_cache_reader_t  *rd;

    rd = &c->reader;
    b = c->buf;

    for (i = 0; i < NGX_HTTP_AI_CACHE_TURN; i++) {

        /* of a slow client only the end of the flight is of interest */

        busy = (b->pos != b->last);

        st = ngx_http_ai_cache_lock(c->zone);

        n = ngx_http_ai_cache_read(st, rd, busy ? NULL : b->start,
                                   busy ? 0 : NGX_HTTP_AI_CACHE_PIECE);

        ngx_http_ai_cache_unlock(c->zone);

        if (rd->round != c->round
            || rd->state == NGX_HTTP_AI_CACHE_FLIGHT_GONE)
        {
            ngx_http_ai_cache_live_failed(c, NGX_HTTP_AI_ERR_INCOMPLETE);
            return;
        }

        if (n) {
            b->pos = b->start;
            b->last = b->start + n;
            b->flush = 1;

            c->cut = (b->last[-1] != LF);

            if (ngx_http_ai_cache_out(c, b) == NGX_ERROR) {
                ngx_http_ai_cache_end_request(c, NGX_ERROR);
                return;
            }

            continue;
        }

        if (rd->state != NGX_HTTP_AI_CACHE_FLIGHT_RUNNING) {
            ngx_http_ai_cache_live_rest(c);
        }

        return;
    }

    /* others first */

    if (!c->event.posted) {
        ngx_post_event(&c->event, &ngx_posted_next_events);
    }
}


/* the flight has ended: what is left of it is taken along */

static void
ngx_http_ai_cache_live_rest(ngx_http_ai_cached_t *c)
{
    size_t                       left;
    ngx_buf_t                   *b;
    ngx_int_t                    rc;
    ngx_http_ai_cache_store_t   *st;
    ngx_http_ai_cache_reader_t  *rd;

    rd = &c->reader;

    left = rd->size - rd->offset;

    b = ngx_create_temp_buf(c->request->pool, left + 1);
    if (b == NULL) {
        ngx_http_ai_cache_end_request(c, NGX_ERROR);
        return;
    }

    if (left) {
        st = ngx_http_ai_cache_lock(c->zone);
        b->last += ngx_http_ai_cache_read(st, rd, b->last, left);
        ngx_http_ai_cache_unlock(c->zone);

        if (rd->round != c->round || rd->offset != rd->size) {
            ngx_http_ai_cache_live_failed(c, NGX_HTTP_AI_ERR_INCOMPLETE);
            return;
        }

        c->cut = (b->last[-1] != LF);
    }

    if (rd->state == NGX_HTTP_AI_CACHE_FLIGHT_WHOLE) {
        ngx_http_ai_cache_known(c, &rd->meta);

        b->last_buf = 1;
        b->last_in_chain = 1;
        b->temporary = (b->pos != b->last);
        b->sync = !b->temporary;

        rc = ngx_http_ai_cache_out(c, b);

        ngx_http_ai_cache_end_request(c, rc);
        return;
    }

    if (left && ngx_http_ai_cache_out(c, b) == NGX_ERROR) {
        ngx_http_ai_cache_end_request(c, NGX_ERROR);
        return;
    }

    ngx_http_ai_cache_live_failed(c, (rd->error < NGX_HTTP_AI_ERR_MAX
                                      && rd->error)
                                     ? rd->error : NGX_HTTP_AI_ERR_INCOMPLETE);
}


static void
ngx_http_ai_cache_live_failed(ngx_http_ai_cached_t *c,
    ngx_http_ai_err_e class)
{
    ngx_buf_t            *b;
    ngx_int_t             rc;
    ngx_http_ai_out_t     out;
    ngx_http_ai_error_t   err;

    c->ctx->error = class;

    ngx_log_error(NGX_LOG_ERR, c->request->connection->log, 0,
                  "ai cache: the request that was followed has failed: %V",
                  ngx_http_ai_err_name(class));

    rc = NGX_ERROR;

    if (c->cut) {
        /* in the middle of an event: only a broken connection can tell */
        goto done;
    }

    ngx_memzero(&err, sizeof(ngx_http_ai_error_t));

    err.class = class;
    err.status = ngx_http_ai_err_status(class);
    err.request_id = c->ctx->request_id;
    ngx_str_set(&err.message, "The answer has ended before it was whole.");

    b = ngx_calloc_buf(c->request->pool);

    if (b == NULL
        || ngx_http_ai_out_init(&out, c->request->pool, 512) != NGX_OK)
    {
        goto done;
    }

    c->ctx->dialect->encode_stream_error(&out, &err);

    if (out.failed) {
        goto done;
    }

    b->start = out.start;
    b->pos = out.start;
    b->last = out.last;
    b->end = out.end;
    b->memory = 1;
    b->last_buf = 1;
    b->last_in_chain = 1;

    rc = ngx_http_ai_cache_out(c, b);

done:

    ngx_http_ai_cache_end_request(c, rc);
}


/* a buffer, or what the client could not take before */

static ngx_int_t
ngx_http_ai_cache_out(ngx_http_ai_cached_t *c, ngx_buf_t *b)
{
    ngx_int_t                  rc;
    ngx_event_t               *wev;
    ngx_chain_t                cl;
    ngx_connection_t          *conn;
    ngx_http_request_t        *r;
    ngx_http_core_loc_conf_t  *clcf;

    r = c->request;
    conn = r->connection;
    wev = conn->write;

    cl.buf = b;
    cl.next = NULL;

    rc = ngx_http_output_filter(r, b ? &cl : NULL);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (!conn->buffered) {

        if (wev->timer_set) {
            ngx_del_timer(wev);
        }

        return NGX_OK;
    }

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (!wev->delayed) {
        ngx_add_timer(wev, clcf->send_timeout);
    }

    if (ngx_handle_write_event(wev, clcf->send_lowat) != NGX_OK) {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_http_ai_cache_end_request(ngx_http_ai_cached_t *c, ngx_int_t rc)
{
    ngx_http_ai_cache_unfollow(c);

    c->step = NGX_HTTP_AI_CACHED_PASSED;

    ngx_http_finalize_request(c->request, rc);
}


ngx_int_t
ngx_http_ai_cache_pace(ngx_http_ai_cached_t *c)
{
    ngx_http_request_t  *r;

    r = c->request;

    c->buf = ngx_calloc_buf(r->pool);
    if (c->buf == NULL) {
        return NGX_ERROR;
    }

    c->buf->memory = 1;

    c->event_data.data = c;
    c->event_data.fd = (ngx_socket_t) -1;

    c->timer.handler = ngx_http_ai_cache_pace_handler;
    c->timer.data = &c->event_data;
    c->timer.log = r->connection->log;

    c->step = NGX_HTTP_AI_CACHED_LIVE;
    c->ctx->rc = NGX_DONE;

    r->main->count++;

    r->read_event_handler = ngx_http_ai_cache_follow_read;
    r->write_event_handler = ngx_http_ai_cache_live_write;

    ngx_add_timer(&c->timer, 1);

    return NGX_DONE;
}


static void
ngx_http_ai_cache_pace_handler(ngx_event_t *ev)
{
    u_char                     *p, *last;
    ngx_buf_t                  *b;
    ngx_int_t                   rc;
    ngx_connection_t           *conn;
    ngx_http_ai_cached_t       *c;
    ngx_http_ai_cache_event_t  *data;

    data = ev->data;
    c = data->data;
    conn = c->request->connection;
    b = c->buf;

    ngx_http_set_log_request(conn->log, c->request);

    if (b->pos != b->last) {
        /* a slow client paces by itself */
        ngx_add_timer(ev, c->use->pace);
        return;
    }

    p = c->rest.data;
    last = p + c->rest.len;

    b->pos = p;

    /* an event ends with an empty line */

    for (p++; p < last; p++) {
        if (p[-1] == LF && (*p == LF || (*p == CR && p + 1 < last))) {
            p += (*p == CR) ? 2 : 1;
            break;
        }
    }

    b->last = p;
    b->flush = 1;

    c->rest.data = p;
    c->rest.len = last - p;

    if (c->rest.len == 0) {
        b->last_buf = 1;
        b->last_in_chain = 1;
    }

    rc = ngx_http_ai_cache_out(c, b);

    if (rc == NGX_ERROR || c->rest.len == 0) {
        ngx_http_ai_cache_end_request(c, rc);

    } else {
        ngx_add_timer(ev, c->use->pace);
    }

    ngx_http_run_posted_requests(conn);
}
