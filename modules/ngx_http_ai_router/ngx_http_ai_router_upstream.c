
/*
 * Copyright (C) nginx AI gateway authors
 */


/* one attempt over the stock upstream machinery */


#include "ngx_http_ai_router_exec.h"


/* read buffers: events come in small pieces, bodies in one */
#define NGX_HTTP_AI_EVENTS_BUFFER  2560
#define NGX_HTTP_AI_CHAT_BUFFER    (8 * 1024)
#define NGX_HTTP_AI_BODY_BUFFER    (32 * 1024)


static ngx_int_t ngx_http_ai_create_request(ngx_http_request_t *r);
static ngx_int_t ngx_http_ai_reinit_request(ngx_http_request_t *r);
static ngx_int_t ngx_http_ai_process_header(ngx_http_request_t *r);
static ngx_int_t ngx_http_ai_process_header_line(ngx_http_ai_attempt_t *a,
    ngx_http_request_t *r);
static ngx_int_t ngx_http_ai_pass_header(ngx_http_ai_attempt_t *a,
    ngx_str_t *name, ngx_str_t *value);
static void ngx_http_ai_abort_request(ngx_http_request_t *r);
static void ngx_http_ai_finalize_request(ngx_http_request_t *r, ngx_int_t rc);
static ngx_int_t ngx_http_ai_input_filter_init(void *data);
static ngx_int_t ngx_http_ai_input_filter(void *data, ssize_t bytes);
static ngx_int_t ngx_http_ai_input_run(ngx_http_ai_attempt_t *a,
    ngx_http_upstream_t *u, u_char *p);
static ngx_int_t ngx_http_ai_input_data(ngx_http_ai_attempt_t *a,
    ngx_http_upstream_t *u, u_char *p, u_char *last);


ngx_int_t
ngx_http_ai_upstream_start(ngx_http_ai_attempt_t *a)
{
    size_t                size;
    ngx_http_request_t   *r;
    ngx_http_upstream_t  *u;

    r = a->sr;

    if (r == NULL || a->canceled) {
        return NGX_OK;
    }

    if (ngx_http_upstream_create(r) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    u = r->upstream;

    u->conf = &a->provider->upstream;

#if (NGX_HTTP_SSL)
    u->ssl = a->provider->ssl;
#endif

    u->output.tag = (ngx_buf_tag_t) &ngx_http_ai_router_module;

    u->create_request = ngx_http_ai_create_request;
    u->reinit_request = ngx_http_ai_reinit_request;
    u->process_header = ngx_http_ai_process_header;
    u->abort_request = ngx_http_ai_abort_request;
    u->finalize_request = ngx_http_ai_finalize_request;
    u->input_filter_init = ngx_http_ai_input_filter_init;
    u->input_filter = ngx_http_ai_input_filter;
    u->input_filter_ctx = a;

    u->schema = a->provider->ssl ? (ngx_str_t) ngx_string("https://")
                                 : (ngx_str_t) ngx_string("http://");

    u->buffering = 0;

    /*
     * The buffer that ngx_http_upstream_process_header() would make, in the
     * size that the expected answer needs; max_header may demand more.
     */

    if (a->exec->ctx->op == NGX_HTTP_AI_OP_CHAT) {
        size = a->exec->ctx->stream ? NGX_HTTP_AI_EVENTS_BUFFER
                                    : NGX_HTTP_AI_CHAT_BUFFER;

    } else {
        size = (a->exec->ctx->stream
                && a->exec->ctx->op != NGX_HTTP_AI_OP_PASS)
               ? NGX_HTTP_AI_EVENTS_BUFFER : NGX_HTTP_AI_BODY_BUFFER;
    }

    /* outside of the pool's blocks, which would be left half empty */

    u->buffer.start = ngx_pmemalign(r->pool, size, 16);
    if (u->buffer.start == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    u->buffer.pos = u->buffer.start;
    u->buffer.last = u->buffer.start;
    u->buffer.end = u->buffer.start + size;
    u->buffer.temporary = 1;
    u->buffer.tag = u->output.tag;

    if (ngx_list_init(&u->headers_in.headers, r->pool, 1,
                      sizeof(ngx_table_elt_t))
        != NGX_OK
        || ngx_list_init(&u->headers_in.trailers, r->pool, 1,
                         sizeof(ngx_table_elt_t))
           != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->main->count++;

    ngx_http_upstream_init(r);

    return NGX_DONE;
}


static ngx_int_t
ngx_http_ai_create_request(ngx_http_request_t *r)
{
    off_t                   length;
    ngx_buf_t              *b;
    ngx_int_t               rc;
    ngx_chain_t            *body, *cl;
    ngx_http_ai_attempt_t  *a;

    a = ngx_http_get_module_ctx(r, ngx_http_ai_router_module);

    b = NULL;
    body = NULL;
    length = 0;

    rc = ngx_http_ai_build_body(a, &body, &length);

    if (rc == NGX_OK) {
        rc = ngx_http_ai_build_header(a, length, &b);
    }

    if (rc != NGX_OK) {

        if (rc == NGX_DECLINED) {
            a->local_error = 1;
        }

        return NGX_ERROR;
    }

    cl = ngx_alloc_chain_link(r->pool);
    if (cl == NULL) {
        return NGX_ERROR;
    }

    cl->buf = b;
    cl->next = body;

    r->upstream->request_bufs = cl;

    /* TLS keeps the last record back without it */

    while (cl->next) {
        cl = cl->next;
    }

    cl->buf->flush = 1;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_reinit_request(ngx_http_request_t *r)
{
    ngx_http_ai_attempt_t  *a;

    a = ngx_http_get_module_ctx(r, ngx_http_ai_router_module);

    ngx_memzero(&a->status, sizeof(ngx_http_status_t));
    ngx_memzero(&a->chunk, sizeof(ngx_http_chunked_t));

    a->header_size = 0;
    a->length = -1;
    a->status_done = 0;
    a->chunked = 0;
    a->close = 0;
    a->gzip = 0;
    a->headers.nelts = 0;

    r->state = 0;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_process_header(ngx_http_request_t *r)
{
    u_char                 *p;
    ngx_int_t               rc;
    ngx_http_upstream_t    *u;
    ngx_http_ai_attempt_t  *a;

    a = ngx_http_get_module_ctx(r, ngx_http_ai_router_module);
    u = r->upstream;

    p = u->buffer.pos;

    for ( ;; ) {

        if (!a->status_done) {
            rc = ngx_http_parse_status_line(r, &u->buffer, &a->status);

            if (rc == NGX_AGAIN) {
                break;
            }

            if (rc == NGX_ERROR || a->status.code < 100
                || a->status.code > 599 || a->status.code == 101)
            {
                ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_INVALID_ANSWER,
                             "the provider did not answer with HTTP/1.x");
                return NGX_HTTP_UPSTREAM_INVALID_HEADER;
            }

            a->status_done = 1;

            if (a->status.http_version < NGX_HTTP_VERSION_11) {
                a->close = 1;
            }
        }

        rc = ngx_http_parse_header_line(r, &u->buffer, 1);

        if (rc == NGX_OK) {

            if (ngx_http_ai_process_header_line(a, r) != NGX_OK) {
                return NGX_ERROR;
            }

            continue;
        }

        if (rc == NGX_AGAIN) {
            break;
        }

        if (rc != NGX_HTTP_PARSE_HEADER_DONE) {
            ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_INVALID_ANSWER,
                             "the provider sent an invalid HTTP header");
            return NGX_HTTP_UPSTREAM_INVALID_HEADER;
        }

        if (a->status.code < 200) {
            /* 100 Continue, 103 Early Hints: the answer follows */
            (void) ngx_http_ai_reinit_request(r);
            continue;
        }

        if (a->header_size + (u->buffer.pos - p)
            > a->exec->ctx->limits->max_header)
        {
            goto too_large;
        }

        a->header_done = 1;
        ngx_http_ai_limits_learn(a);

        if (u->state) {
            u->state->status = a->status.code;
        }

        /* what the client gets is decided later, not by the stock code */

        u->headers_in.status_n = NGX_HTTP_OK;
        u->headers_in.content_length_n = a->length;

        return NGX_OK;
    }

    a->header_size += u->buffer.pos - p;

    if (a->header_size > a->exec->ctx->limits->max_header) {
        goto too_large;
    }

    if (u->buffer.last == u->buffer.end) {

        /* more room; the parsers hold offsets into what they have not left */

        size_t   size, used;
        u_char  *start;

        size = 2 * (u->buffer.end - u->buffer.start);
        used = u->buffer.last - u->buffer.start;

        start = ngx_palloc(r->pool, size);
        if (start == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(start, u->buffer.start, used);

#define ngx_http_ai_move(p)                                                   \
        if (p) {                                                              \
            p = start + (p - u->buffer.start);                                \
        }

        ngx_http_ai_move(r->header_name_start);
        ngx_http_ai_move(r->header_name_end);
        ngx_http_ai_move(r->header_start);
        ngx_http_ai_move(r->header_end);
        ngx_http_ai_move(a->status.start);
        ngx_http_ai_move(a->status.end);

        u->buffer.pos = start + (u->buffer.pos - u->buffer.start);
        u->buffer.last = start + used;
        u->buffer.start = start;
        u->buffer.end = start + size;
    }

    return NGX_AGAIN;

too_large:

    ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_INVALID_ANSWER,
                             "the provider's HTTP header is too large "
                             "(ai_max_header)");

    return NGX_HTTP_UPSTREAM_INVALID_HEADER;
}


static ngx_int_t
ngx_http_ai_process_header_line(ngx_http_ai_attempt_t *a,
    ngx_http_request_t *r)
{
    ngx_str_t    name, value, *dst;
    ngx_pool_t  *pool;

    name.data = r->header_name_start;
    name.len = r->header_name_end - r->header_name_start;
    value.data = r->header_start;
    value.len = r->header_end - r->header_start;

    pool = r->pool;
    dst = NULL;

    /* the parser's own lower-case copy is long enough for all of these */

#define ngx_http_ai_name_is(literal)                                          \
    (name.len == sizeof(literal) - 1                                          \
     && ngx_memcmp(r->lowcase_header, literal, sizeof(literal) - 1) == 0)

    if (name.len >= 24 && ngx_http_ai_limits_header(a, &name, &value)) {
        return NGX_OK;
    }

    switch (name.len) {

    case 10:

        if (ngx_http_ai_name_is("connection")) {
            if (ngx_strlcasestrn(value.data, value.data + value.len,
                                 (u_char *) "close", 5 - 1)
                != NULL)
            {
                a->close = 1;
            }

            return NGX_OK;
        }

        if (ngx_http_ai_name_is("request-id")) {
            dst = &a->upstream_id;
        }

        break;

    case 11:

        if (ngx_http_ai_name_is("retry-after")) {
            dst = &a->retry_after;
        }

        break;

    case 12:

        if (ngx_http_ai_name_is("content-type")) {
            dst = &a->content_type;

        } else if (ngx_http_ai_name_is("x-request-id")) {
            dst = &a->upstream_id;
        }

        break;

    case 14:

        if (ngx_http_ai_name_is("content-length")) {
            a->length = ngx_atoof(value.data, value.len);

            if (a->length == NGX_ERROR) {
                ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_INVALID_ANSWER,
                         "the provider sent an invalid Content-Length");
                return NGX_ERROR;
            }

            return NGX_OK;
        }

        if (ngx_http_ai_name_is("retry-after-ms")) {
            dst = &a->retry_after_ms;
        }

        break;

    case 16:

        if (ngx_http_ai_name_is("content-encoding")) {
            if (a->exec->ctx->op != NGX_HTTP_AI_OP_PASS
                && !(value.len == 8
                     && ngx_strncasecmp(value.data, (u_char *) "identity", 8)
                        == 0))
            {
                a->gzip = 1;
                return NGX_OK;
            }
        }

        break;

    case 17:

        if (ngx_http_ai_name_is("transfer-encoding")) {
            if (ngx_strlcasestrn(value.data, value.data + value.len,
                                 (u_char *) "chunked", 7 - 1)
                != NULL)
            {
                a->chunked = 1;
            }

            return NGX_OK;
        }

        break;
    }

    if (dst) {
        dst->len = value.len;
        dst->data = ngx_pstrdup(pool, &value);

        if (dst->data == NULL) {
            return NGX_ERROR;
        }

        if (dst == &a->content_type
            || (a->exec->ctx->op != NGX_HTTP_AI_OP_PASS
                && (dst == &a->retry_after || dst == &a->retry_after_ms)))
        {
            return NGX_OK;
        }
    }

    return ngx_http_ai_pass_header(a, &name, &value);
}


/*
 * What the client may see of the provider's header: its request id and
 * processing notes of the same dialect; with any other path of a provider all
 * but hop-by-hop fields, cookies and what tells of the operator's account.
 */

static ngx_int_t
ngx_http_ai_pass_header(ngx_http_ai_attempt_t *a, ngx_str_t *name,
    ngx_str_t *value)
{
    size_t             i;
    ngx_str_t         *s;
    ngx_table_elt_t   *h;
    ngx_pool_t        *pool;

    static ngx_str_t   hidden[] = {
        ngx_string("connection"),
        ngx_string("keep-alive"),
        ngx_string("proxy-"),
        ngx_string("te"),
        ngx_string("trailer"),
        ngx_string("upgrade"),
        ngx_string("date"),
        ngx_string("server"),
        ngx_string("set-cookie"),
        ngx_string("x-request-id"),
        ngx_string("x-ratelimit-"),
        ngx_string("anthropic-ratelimit-"),
        ngx_string("anthropic-organization-id"),
        ngx_string("anthropic-workspace-id"),
        ngx_string("openai-organization"),
        ngx_string("openai-project"),
        ngx_string("x-accel-"),
        ngx_string("x-ai-"),
        ngx_null_string
    };

    static ngx_str_t   shown[] = {
        ngx_string("request-id"),
        ngx_string("openai-processing-ms"),
        ngx_string("openai-version"),
        ngx_null_string
    };

    pool = a->exec->request->pool;

    if (a->exec->ctx->op == NGX_HTTP_AI_OP_PASS) {

        for (s = hidden; s->len; s++) {
            if (name->len >= s->len
                && (name->len == s->len || s->data[s->len - 1] == '-')
                && ngx_strncasecmp(name->data, s->data, s->len) == 0)
            {
                return NGX_OK;
            }
        }

    } else {

        if (!a->same) {
            return NGX_OK;
        }

        for (s = shown; s->len; s++) {
            if (name->len == s->len
                && ngx_memcmp(a->sr->lowcase_header, s->data, s->len) == 0)
            {
                break;
            }
        }

        if (s->len == 0) {
            return NGX_OK;
        }
    }

    if (a->headers.elts == NULL
        && ngx_array_init(&a->headers, pool, 2, sizeof(ngx_table_elt_t))
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    h = ngx_array_push(&a->headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(h, sizeof(ngx_table_elt_t));

    h->hash = 1;
    h->key.len = name->len;
    h->key.data = ngx_pnalloc(pool, 2 * name->len + value->len);
    if (h->key.data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(h->key.data, name->data, name->len);

    h->lowcase_key = h->key.data + name->len;

    for (i = 0; i < name->len; i++) {
        h->lowcase_key[i] = ngx_tolower(name->data[i]);
    }

    h->value.len = value->len;
    h->value.data = h->lowcase_key + name->len;
    ngx_memcpy(h->value.data, value->data, value->len);

    return NGX_OK;
}


static void
ngx_http_ai_abort_request(ngx_http_request_t *r)
{
    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "ai router: abort upstream request");
}


/* runs on every end of an upstream: success, failure, cancel, shutdown */

static void
ngx_http_ai_finalize_request(ngx_http_request_t *r, ngx_int_t rc)
{
    ngx_uint_t                  i;
    ngx_http_request_t         *main;
    ngx_http_upstream_t        *u;
    ngx_http_ai_attempt_t      *a;
    ngx_http_upstream_state_t  *state, *s;

    a = ngx_http_get_module_ctx(r, ngx_http_ai_router_module);
    u = r->upstream;
    main = r->main;

    a->sent = u->request_sent || a->header_done;

    if (!a->body_ended && !a->canceled && a->header_done && !a->exec->done
        && (rc == NGX_OK
            || (rc != NGX_DONE && ngx_http_ai_answer_whole(a))))
    {
        /* the end of the connection was the end of the body */

        a->body_ended = 1;

        if (ngx_http_ai_answer_end(a) == NGX_ERROR) {
            ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_INTERNAL,
                                     "the gateway failed to read the answer");
        }
    }

    a->finished = 1;

    if (!a->complete && !a->canceled) {

        switch (rc) {

        case NGX_DONE:
            /* the request was terminated */
            a->canceled = 1;
            break;

        case NGX_HTTP_GATEWAY_TIME_OUT:
            ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_TIMEOUT,
                         a->sent ? "the provider did not answer in time"
                                 : "could not connect to the provider in time "
                                   "(timeout connect)");
            break;

        case NGX_HTTP_BAD_GATEWAY:

            if (a->header_done) {
                ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_INCOMPLETE,
                         "the provider closed the connection before the end "
                         "of its answer");

            } else if (a->sent) {
                ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_CONNECT,
                         "the provider closed the connection without an "
                         "answer");

            } else {
                ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_CONNECT,
                                         "could not connect to the provider");
            }

            break;

        default:
            ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_INTERNAL,
                                     "the request to the provider failed");
        }
    }

    /* nothing of the stock code's closing may go to the client */

    r->header_only = 1;

    if (r->upstream_states == NULL) {
        return;
    }

    /* without this $upstream_* of the main request would be empty */

    if (main->upstream_states == NULL) {
        main->upstream_states = ngx_array_create(main->pool, 2,
                                          sizeof(ngx_http_upstream_state_t));
        if (main->upstream_states == NULL) {
            return;
        }
    }

    state = r->upstream_states->elts;

    for (i = 0; i < r->upstream_states->nelts; i++) {
        s = ngx_array_push(main->upstream_states);
        if (s == NULL) {
            return;
        }

        *s = state[i];
    }
}


static ngx_int_t
ngx_http_ai_input_filter_init(void *data)
{
    ngx_http_ai_attempt_t *a = data;

    ngx_http_upstream_t  *u;

    u = a->sr->upstream;

    if (a->chunked) {
        u->length = 1;

    } else if (a->status.code == 204 || a->status.code == 304
               || (a->exec->request->method == NGX_HTTP_HEAD))
    {
        u->length = 0;

    } else {
        u->length = a->length;
    }

    if (ngx_http_ai_answer_init(a) != NGX_OK) {
        return NGX_ERROR;
    }

    if (u->length == 0) {
        u->keepalive = !a->close;
        a->body_ended = 1;

        return ngx_http_ai_answer_end(a);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_input_filter(void *data, ssize_t bytes)
{
    ngx_http_ai_attempt_t *a = data;

    u_char               *p;
    ngx_http_upstream_t  *u;

    u = a->sr->upstream;

    /* "last" must move: with it left behind the buffer never fills up and
     * a slow client does not slow its provider */

    p = u->buffer.last;
    u->buffer.last += bytes;

    return a->held ? NGX_OK : ngx_http_ai_input_run(a, u, p);
}


static ngx_int_t
ngx_http_ai_input_run(ngx_http_ai_attempt_t *a, ngx_http_upstream_t *u,
    u_char *p)
{
    ngx_int_t     rc;
    ngx_chain_t  *cl, **ll;

    rc = ngx_http_ai_input_data(a, u, p, u->buffer.last);

    /* what came before a failure counts as delivered */

    if ((rc == NGX_OK || rc == NGX_AGAIN || a->committed)
        && ngx_http_ai_answer_flush(a) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (rc != NGX_AGAIN) {
        return (rc == NGX_OK) ? NGX_OK : NGX_ERROR;
    }

    /* as long as a buffer is busy the stock code reads only what there is
     * room for, and does not end the request */

    cl = ngx_http_ai_answer_buf(a, 0);
    if (cl == NULL) {
        return NGX_ERROR;
    }

    a->stop = cl->buf;
    a->stop->pos = (u_char *) " ";
    a->stop->last = a->stop->pos + 1;
    a->stop->temporary = 1;

    for (ll = &u->busy_bufs; *ll; ll = &(*ll)->next) { /* void */ }

    *ll = cl;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_upstream_proceed(ngx_http_ai_attempt_t *a)
{
    u_char  *p;

    p = a->held;
    a->held = NULL;
    a->stop->pos = a->stop->last;

    return ngx_http_ai_input_run(a, a->sr->upstream, p);
}


static ngx_int_t
ngx_http_ai_input_data(ngx_http_ai_attempt_t *a, ngx_http_upstream_t *u,
    u_char *p, u_char *last)
{
    size_t     n;
    ngx_int_t  rc;
    ngx_buf_t  b;

    if (a->body_ended) {

        /* bytes behind the end: the connection cannot be trusted */

        u->keepalive = 0;
        return NGX_OK;
    }

    if (!a->chunked) {
        n = last - p;

        if (u->length >= 0 && (off_t) n > u->length) {
            n = (size_t) u->length;
            a->close = 1;
        }

        rc = ngx_http_ai_answer_data(a, p, n);

        if (rc == NGX_AGAIN && u->length > 0) {
            u->length -= a->held - p;
        }

        if (rc != NGX_OK) {
            return rc;
        }

        if (u->length == -1) {
            return NGX_OK;
        }

        u->length -= n;

        if (u->length > 0) {
            return NGX_OK;
        }

        goto done;
    }

    ngx_memzero(&b, sizeof(ngx_buf_t));
    b.pos = p;
    b.last = last;

    for ( ;; ) {

        rc = ngx_http_ai_parse_chunked(a->sr, &b, &a->chunk);

        if (rc == NGX_OK) {
            n = ngx_http_ai_min((off_t) (b.last - b.pos), a->chunk.size);

            rc = ngx_http_ai_answer_data(a, b.pos, n);

            if (rc == NGX_AGAIN) {
                a->chunk.size -= a->held - b.pos;
            }

            if (rc != NGX_OK) {
                return rc;
            }

            b.pos += n;
            a->chunk.size -= n;

            continue;
        }

        if (rc == NGX_AGAIN) {
            return NGX_OK;
        }

        if (rc == NGX_DONE) {

            if (b.pos != b.last) {
                a->close = 1;
            }

            goto done;
        }

        /* NGX_ERROR */

        ngx_http_ai_attempt_fail(a, a->committed
                                    ? NGX_HTTP_AI_ERR_INCOMPLETE
                                    : NGX_HTTP_AI_ERR_INVALID_ANSWER,
                                 "the provider sent an invalid chunked body");
        return NGX_ERROR;
    }

done:

    u->length = 0;
    u->keepalive = !a->close;
    a->body_ended = 1;

    return ngx_http_ai_answer_end(a);
}
