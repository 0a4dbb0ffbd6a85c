
/*
 * Copyright (C) nginx AI gateway authors
 */


/* a stored answer to a client */


#include "ngx_http_ai_cache.h"


/* a longer one is written at once */
#define NGX_HTTP_AI_CACHE_LATER  16384


static ngx_int_t ngx_http_ai_cache_output(ngx_http_ai_cached_t *c,
    ngx_chain_t *out, size_t size);


ngx_uint_t
ngx_http_ai_cache_same(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_meta_t *meta)
{
    if (c->ctx->cost_usage) {
        /* it tells what the first one has cost */
        return 0;
    }

    /* the client's own is what it would be stored as */

    return meta->dialect == c->meta.dialect && meta->op == c->meta.op
           && meta->stream == c->meta.stream
           && (!meta->stream || meta->include_usage == c->meta.include_usage);
}


ngx_int_t
ngx_http_ai_cache_replay(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_found_t *found, ngx_http_ai_cache_e cached)
{
    ngx_int_t                  rc;
    ngx_str_t                  data;
    ngx_buf_t                 *b;
    ngx_chain_t                cl;
    ngx_http_ai_ctx_t         *ctx;
    ngx_http_request_t        *r;
    ngx_http_ai_cache_e        before;

    r = c->request;
    ctx = c->ctx;

    data = found->data;

    if (ngx_http_ai_cache_same(c, &found->meta)) {

        ngx_http_ai_cache_renew(c, &data);

    } else {

        if (found->meta.exact) {
            return NGX_DECLINED;
        }

        rc = ngx_http_ai_cache_recode(c, found, &data);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (data.len == 0) {
        return NGX_DECLINED;
    }

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_ERROR;
    }

    before = ctx->cached;
    ctx->cached = cached;

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "ai cache: %V, before: %V",
                   ngx_http_ai_cached_word(cached),
                   ngx_http_ai_cached_word(before));

    c->step = NGX_HTTP_AI_CACHED_PASSED;

    ngx_http_ai_cache_known(c, &found->meta);

    rc = ngx_http_ai_cache_send_header(c, ctx->stream ? -1
                                                      : (off_t) data.len);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        ctx->rc = rc;
        return NGX_DONE;
    }

    if (ctx->stream && c->use->pace && cached == NGX_HTTP_AI_CACHE_HIT) {
        c->rest = data;
        return ngx_http_ai_cache_pace(c);
    }

    b->start = data.data;
    b->pos = data.data;
    b->last = data.data + data.len;
    b->end = b->last;
    b->memory = 1;
    b->last_buf = 1;
    b->last_in_chain = 1;

    cl.buf = b;
    cl.next = NULL;

    ctx->rc = (cached == NGX_HTTP_AI_CACHE_HIT)
              ? ngx_http_ai_cache_output(c, &cl, data.len)
              : ngx_http_output_filter(r, &cl);

    return NGX_DONE;
}


/*
 * Answers that are written one after another cost less than those between
 * which other requests are read and looked for.  The write event is posted,
 * and is then handled as that of a slow client.
 */

static ngx_int_t
ngx_http_ai_cache_output(ngx_http_ai_cached_t *c, ngx_chain_t *out,
    size_t size)
{
    ngx_int_t            rc;
    ngx_event_t         *wev;
    ngx_connection_t    *conn;
    ngx_http_request_t  *r;

    r = c->request;
    conn = r->connection;
    wev = conn->write;

    if (size > NGX_HTTP_AI_CACHE_LATER
        || conn->error || conn->buffered || wev->delayed || !wev->ready
        || r->http_version >= NGX_HTTP_VERSION_20)
    {
        return ngx_http_output_filter(r, out);
    }

    /* the write filter keeps what it is given */

    wev->delayed = 1;

    rc = ngx_http_output_filter(r, out);

    wev->delayed = 0;

    if (conn->buffered) {
        ngx_post_event(wev, &ngx_posted_events);
    }

    return rc;
}


void
ngx_http_ai_cache_known(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_meta_t *meta)
{
    ngx_http_ai_ctx_t  *ctx;

    ctx = c->ctx;

    ctx->answered = 1;

    if (ctx->ttft < 0) {
        ctx->ttft = ngx_current_msec - ctx->start;
    }

    if (c->background) {
        /* what the refresh uses counts */
        return;
    }

    ngx_http_ai_cache_get_usage(meta, &ctx->usage);
    ctx->usage_state = meta->usage_state;
    ctx->finish = meta->finish;
    ctx->cost = 0;
    ctx->free = !c->use->count;
    ctx->complete = 1;
}


ngx_int_t
ngx_http_ai_cache_send_header(ngx_http_ai_cached_t *c, off_t length)
{
    ngx_str_t            value;
    ngx_list_t          *headers;
    ngx_http_request_t  *r;

    r = c->request;
    headers = &r->headers_out.headers;

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = length;

    if (length >= 0) {
        ngx_str_set(&r->headers_out.content_type, "application/json");

    } else {
        ngx_str_set(&r->headers_out.content_type, "text/event-stream");
        ngx_str_set(&value, "no-cache");

        if (ngx_http_ai_header_add(headers, "Cache-Control", &value) == NULL) {
            return NGX_ERROR;
        }

        ngx_str_set(&value, "no");

        if (ngx_http_ai_header_add(headers, "X-Accel-Buffering", &value)
            == NULL)
        {
            return NGX_ERROR;
        }
    }

    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;

    if (c->api->add_headers(r, c->ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_send_header(r);
}
