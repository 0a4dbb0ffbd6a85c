
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * From a provider's body to the client: decoded to pivot events always, so
 * that usage, failures and the end are seen in one way; relayed byte for byte
 * where both sides speak the same dialect, else encoded anew.
 */


#include "ngx_http_ai_router_exec.h"


/* bytes of an error body that are read; the rest is dropped */
#define NGX_HTTP_AI_ERROR_BODY  (64 * 1024)

/* how long a complete answer waits for the end of its HTTP message, ms */
#define NGX_HTTP_AI_LINGER     500

#define NGX_HTTP_AI_ANSWER_NODES  512

/* embeddings longer than this are not walked through number by number */
#define NGX_HTTP_AI_FAST_BODY   4096

/* answers up to this size are written at the end of the turn */
#define NGX_HTTP_AI_SMALL_BODY  (16 * 1024)


static ngx_int_t ngx_http_ai_answer_event(ngx_http_ai_attempt_t *a,
    ngx_http_ai_sse_event_t *ev);
static ngx_int_t ngx_http_ai_answer_error_body(ngx_http_ai_attempt_t *a);
static ngx_int_t ngx_http_ai_answer_body(ngx_http_ai_attempt_t *a);
static ngx_int_t ngx_http_ai_answer_embeddings(ngx_http_ai_attempt_t *a,
    u_char *data, size_t len);
static ngx_int_t ngx_http_ai_answer_events_end(ngx_http_ai_attempt_t *a);
static ngx_int_t ngx_http_ai_answer_add(ngx_http_ai_attempt_t *a,
    ngx_str_t *text);
static ngx_int_t ngx_http_ai_answer_unary(ngx_http_ai_attempt_t *a,
    u_char *data, size_t len);
static ngx_int_t ngx_http_ai_answer_sink(void *data, ngx_http_ai_event_t *ev);
static ngx_int_t ngx_http_ai_answer_match(ngx_http_ai_attempt_t *a,
    ngx_http_ai_event_t *ev);
static ngx_int_t ngx_http_ai_answer_count_sink(void *data,
    ngx_http_ai_event_t *ev);
static void ngx_http_ai_answer_count(ngx_http_ai_attempt_t *a,
    ngx_str_t *text);
static ngx_int_t ngx_http_ai_answer_failed(ngx_http_ai_attempt_t *a,
    ngx_http_ai_error_t *err);
static ngx_int_t ngx_http_ai_answer_keep(ngx_http_ai_attempt_t *a,
    u_char *data, size_t len, size_t max);
static ngx_int_t ngx_http_ai_answer_relay(ngx_http_ai_attempt_t *a,
    u_char *data, size_t len, ngx_uint_t in_place);
static ngx_int_t ngx_http_ai_answer_send(ngx_http_ai_attempt_t *a,
    ngx_chain_t *out, ngx_uint_t later);


static ngx_str_t  ngx_http_ai_answer_blank = ngx_string("\n\n");


/* decoding is not interrupted, so that one table serves all streams */

static ngx_http_ai_json_node_t
    ngx_http_ai_answer_nodes[NGX_HTTP_AI_ANSWER_NODES];


ngx_int_t
ngx_http_ai_answer_init(ngx_http_ai_attempt_t *a)
{
    ngx_http_ai_ctx_t   *ctx;
    ngx_http_request_t  *r;
    ngx_http_ai_exec_t  *x;

    x = a->exec;
    ctx = x->ctx;
    r = x->request;

    if (ctx->op == NGX_HTTP_AI_OP_PASS) {
        a->mode = NGX_HTTP_AI_MODE_RAW;
        a->content = 1;
        a->first = 1;
        a->progress = ngx_current_msec;
        a->first_at = a->progress;

        return ngx_http_ai_commit(a, a->chunked ? -1 : a->length);
    }

    if (a->status.code >= 300) {
        /* redirections too: they are not followed with credentials */
        a->mode = NGX_HTTP_AI_MODE_ERROR;
        return NGX_OK;
    }

    if (a->gzip) {
        ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_INVALID_ANSWER,
                                 "the provider sent a compressed answer, "
                                 "which was not asked for");
        return NGX_ERROR;
    }

    a->dec.pool = r->pool;
    a->dec.op = ctx->op;
    a->dec.json.pool = r->pool;
    a->dec.json.nodes = ngx_http_ai_answer_nodes;
    a->dec.json.nalloc = NGX_HTTP_AI_ANSWER_NODES;
    a->dec.json.max_depth = ctx->limits->max_depth;
    a->dec.json.max_nodes = ctx->limits->max_nodes;
    a->dec.sink.handler = ngx_http_ai_answer_sink;
    a->dec.sink.data = a;

    if (a->provider->dialect->decode_init(&a->dec) != NGX_OK) {
        return NGX_ERROR;
    }

    if (a->content_type.len >= sizeof("text/event-stream") - 1
        && ngx_strncasecmp(a->content_type.data,
                           (u_char *) "text/event-stream",
                           sizeof("text/event-stream") - 1)
           == 0)
    {
        a->mode = NGX_HTTP_AI_MODE_EVENTS;
        a->counting = 1;
        a->sse.pool = r->pool;
        a->sse.max = ctx->limits->max_event;

    } else {
        a->mode = NGX_HTTP_AI_MODE_BODY;

        /* its first byte is as good as a first token */
        a->first = 1;
        a->progress = ngx_current_msec;
        a->first_at = a->progress;
    }

    a->relaying = (a->same && !a->resume
                   && (a->mode == NGX_HTTP_AI_MODE_EVENTS) == ctx->stream);

    a->out.pool = r->pool;

    if (a->resume) {
        a->enc = x->enc;
        a->enc->out = &a->out;
        ngx_http_ai_answer_counted(a);

    } else if (!a->relaying || x->recording || ctx->may_cut) {

        a->enc = ngx_http_ai_answer_encoder(x, &a->out, &a->model);
        if (a->enc == NULL) {
            return NGX_ERROR;
        }
    }

    if (x->recording && !a->resume
        && ngx_http_ai_out_init(&a->recorded, r->pool, 512) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_http_ai_encoder_t *
ngx_http_ai_answer_encoder(ngx_http_ai_exec_t *x, ngx_http_ai_out_t *out,
    ngx_str_t *model)
{
    ngx_http_ai_ctx_t      *ctx;
    ngx_http_ai_encoder_t  *enc;

    ctx = x->ctx;

    enc = ngx_pcalloc(x->request->pool, sizeof(ngx_http_ai_encoder_t));
    if (enc == NULL) {
        return NULL;
    }

    enc->pool = x->request->pool;
    enc->op = ctx->op;
    enc->out = out;
    enc->model = *model;
    enc->id = ctx->request_id;
    enc->now = ngx_time();
    enc->stream = ctx->stream;
    enc->include_usage = ctx->include_usage;

    if (enc->id.len > 4 && ngx_strncmp(enc->id.data, "req_", 4) == 0) {
        enc->id.data += 4;
        enc->id.len -= 4;
    }

    if (ctx->stream && ctx->whole) {
        enc->input_estimate = x->api->input_estimate(ctx);
    }

    if (ctx->dialect->encode_init(enc) != NGX_OK) {
        return NULL;
    }

    return enc;
}


ngx_int_t
ngx_http_ai_answer_data(ngx_http_ai_attempt_t *a, u_char *data, size_t len)
{
    u_char                   *last;
    ngx_int_t                 rc;
    ngx_http_ai_sse_event_t   ev;

    if (len == 0) {
        return NGX_OK;
    }

    switch (a->mode) {

    case NGX_HTTP_AI_MODE_RAW:
        a->progress = ngx_current_msec;
        return ngx_http_ai_answer_relay(a, data, len, 1);

    case NGX_HTTP_AI_MODE_ERROR:

        if (a->hold.start
            && a->hold.last - a->hold.start > NGX_HTTP_AI_ERROR_BODY)
        {
            return NGX_OK;
        }

        return ngx_http_ai_answer_keep(a, data, len, (size_t) -1);

    case NGX_HTTP_AI_MODE_BODY:

        a->progress = ngx_current_msec;

        if (a->hold.start == NULL && !a->chunked
            && a->length == (off_t) len)
        {
            /* the whole of it in the read buffer */
            a->hold.start = data;
            a->hold.last = data + len;
            a->hold.end = a->hold.last;
            return NGX_OK;
        }

        return ngx_http_ai_answer_keep(a, data, len,
                                       a->exec->ctx->limits->max_answer);

    default: /* NGX_HTTP_AI_MODE_EVENTS */
        break;
    }

    last = data + len;

    for ( ;; ) {
        rc = ngx_http_ai_sse_read(&a->sse, &data, last, &ev);

        if (rc == NGX_AGAIN) {
            return NGX_OK;
        }

        if (rc == NGX_DECLINED) {
            ngx_http_ai_attempt_fail(a, a->committed
                                        ? NGX_HTTP_AI_ERR_INCOMPLETE
                                        : NGX_HTTP_AI_ERR_INVALID_ANSWER,
                                     "the provider sent an event that is too "
                                     "large (ai_max_event)");
            return NGX_ERROR;
        }

        if (rc != NGX_OK) {
            return NGX_ERROR;
        }

        rc = ngx_http_ai_answer_event(a, &ev);

        if (rc != NGX_OK) {
            return rc;
        }

        if (a->waits && !a->complete) {
            a->held = data;
            return NGX_AGAIN;
        }
    }
}


static ngx_int_t
ngx_http_ai_answer_event(ngx_http_ai_attempt_t *a,
    ngx_http_ai_sse_event_t *ev)
{
    ngx_int_t  rc;

    if (ev->has_data) {

        if (a->complete) {
            /* nothing counts after the terminal event */
            return NGX_OK;
        }

        a->told = 0;
        a->dec.usage_only = 0;
        a->counted_last = a->counted;

        rc = a->provider->dialect->decode_event(&a->dec, &ev->name,
                                                &ev->data);

        if (a->cut) {
            return ngx_http_ai_answer_cut(a);
        }

        if (rc == NGX_DECLINED) {
            ngx_log_error(NGX_LOG_WARN, a->exec->request->connection->log, 0,
                          "ai router: \"%V\" sent an event that is not in its "
                          "dialect, dropped", &a->target->name);
            return NGX_OK;
        }

        if (rc != NGX_OK) {
            return NGX_ERROR;
        }

        a->progress = ngx_current_msec;

        if (a->content && !a->first) {
            a->first = 1;
            a->first_at = a->progress;

            if (!a->queued) {
                ngx_http_ai_attempt_set_timer(a,
                                              ngx_min(a->provider->idle,
                                                      a->provider->total));
            }
        }
    }

    if (a->relaying
        && !(a->hide_usage && a->dec.usage_only
             && (ev->has_data || ev->tail)))
    {

        rc = a->told ? ngx_http_ai_cost_event(a, ev)
                     : ngx_http_ai_answer_pass(a, &ev->raw, ev->in_place);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (a->content && !a->committed && a->exec->ctx->stream
        && ngx_http_ai_answer_commit_stream(a) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (a->dec.done) {

        if (!a->content) {
            a->complete = 0;
            ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_INVALID_ANSWER,
                                     "the provider's stream holds no answer");
            return NGX_ERROR;
        }

        a->complete = 1;
    }

    return NGX_OK;
}


/* what was held before the first token goes first */

ngx_int_t
ngx_http_ai_answer_commit_stream(ngx_http_ai_attempt_t *a)
{
    if (ngx_http_ai_commit(a, -1) != NGX_OK) {
        return NGX_ERROR;
    }

    if (!a->relaying || a->hold.last == a->hold.start) {
        return NGX_OK;
    }

    return ngx_http_ai_answer_relay(a, a->hold.start,
                                    a->hold.last - a->hold.start, 1);
}


ngx_int_t
ngx_http_ai_answer_flush(ngx_http_ai_attempt_t *a)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl, *out;

    if (a->complete && !a->linger && !a->body_ended
        && a->mode == NGX_HTTP_AI_MODE_EVENTS)
    {
        /* a connection that ends properly can be used again */
        a->linger = 1;
        ngx_http_ai_attempt_set_timer(a, NGX_HTTP_AI_LINGER);
    }

    if (!a->committed) {
        return NGX_OK;
    }

    if (a->relay) {
        out = a->relay;
        a->relay = NULL;
        a->last_relay = &a->relay;

        for (cl = out; cl->next; cl = cl->next) { /* void */ }

        cl->buf->flush = 1;

        if (ngx_http_ai_answer_send(a, out, 0) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (a->relaying || a->out.last == a->out.start || a->last_sent) {
        return NGX_OK;
    }

    if (a->out.failed) {
        return NGX_ERROR;
    }

    /* the encoder's memory goes out, it gets another piece */

    cl = ngx_http_ai_answer_buf(a, 0);
    if (cl == NULL) {
        return NGX_ERROR;
    }

    b = cl->buf;
    b->start = a->out.start;
    b->pos = a->out.start;
    b->last = a->out.last;
    b->end = a->out.end;
    b->temporary = 1;
    b->flush = 1;

    a->out.start = NULL;
    a->out.last = NULL;
    a->out.end = NULL;

    return ngx_http_ai_answer_send(a, cl, 0);
}


ngx_int_t
ngx_http_ai_answer_end(ngx_http_ai_attempt_t *a)
{
    switch (a->mode) {

    case NGX_HTTP_AI_MODE_RAW:
        a->complete = 1;
        return NGX_OK;

    case NGX_HTTP_AI_MODE_ERROR:
        return ngx_http_ai_answer_error_body(a);

    case NGX_HTTP_AI_MODE_BODY:
        return ngx_http_ai_answer_body(a);

    default: /* NGX_HTTP_AI_MODE_EVENTS */
        return ngx_http_ai_answer_events_end(a);
    }
}


static ngx_int_t
ngx_http_ai_answer_error_body(ngx_http_ai_attempt_t *a)
{
    ngx_http_ai_error_t  err;

    ngx_memzero(&err, sizeof(ngx_http_ai_error_t));

    if (ngx_http_ai_error_read(a->exec->request->pool, a->status.code,
                               a->hold.start, a->hold.last - a->hold.start,
                               &err)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (a->error.class == NGX_HTTP_AI_ERR_NONE) {
        a->error = err;
    }

    a->wait = ngx_http_ai_retry_after(&a->retry_after, &a->retry_after_ms,
                                      ngx_time());

    if (err.retry_after && a->wait < (int64_t) err.retry_after) {
        /* told in the body */
        a->wait = err.retry_after;
    }

    if (a->wait < 0 && err.class == NGX_HTTP_AI_ERR_RATE_LIMIT) {
        a->wait = ngx_http_ai_limits_wait(a);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_answer_body(ngx_http_ai_attempt_t *a)
{
    u_char     *data;
    size_t      len;
    ngx_int_t   rc;

    data = a->hold.start;
    len = a->hold.last - a->hold.start;

    rc = NGX_DECLINED;

    if (a->exec->ctx->op == NGX_HTTP_AI_OP_EMBEDDINGS && a->relaying
        && len > NGX_HTTP_AI_FAST_BODY)
    {
        rc = ngx_http_ai_answer_embeddings(a, data, len);
    }

    if (rc == NGX_DECLINED) {
        rc = a->provider->dialect->decode_body(&a->dec, data, len);
    }

    if (rc == NGX_DECLINED) {
        ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_INVALID_ANSWER,
                                 "the provider's answer is not in its "
                                 "dialect");
        return NGX_OK;
    }

    if (a->error.class != NGX_HTTP_AI_ERR_NONE) {
        /* an error inside of a 200 */
        return NGX_OK;
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    a->complete = 1;
    a->content = 1;

    if (a->usage.out < 0 && a->exec->ctx->op != NGX_HTTP_AI_OP_EMBEDDINGS) {
        a->counting = 1;
        a->dec.sink.handler = ngx_http_ai_answer_count_sink;

        if (a->provider->dialect->decode_init(&a->dec) != NGX_OK
            || a->provider->dialect->decode_body(&a->dec, data, len)
               == NGX_ERROR)
        {
            return NGX_ERROR;
        }
    }

    if (a->relaying) {

        if (a->exec->ctx->cost_usage
            && ngx_http_ai_cost_body(a, &data, &len) != NGX_OK)
        {
            return NGX_ERROR;
        }

        return ngx_http_ai_answer_unary(a, data, len);
    }

    if (a->out.failed) {
        return NGX_ERROR;
    }

    if (!a->exec->ctx->stream) {
        return ngx_http_ai_answer_unary(a, a->out.start,
                                        a->out.last - a->out.start);
    }

    if (ngx_http_ai_answer_commit_stream(a) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_ai_answer_flush(a);
}


/*
 * The vectors of embeddings are most of such an answer and nobody reads them
 * here: the usage at the end is enough, and that the document is closed.
 */

static ngx_int_t
ngx_http_ai_answer_embeddings(ngx_http_ai_attempt_t *a, u_char *data,
    size_t len)
{
    u_char                   *p, *last, *end;
    int64_t                   n;
    ngx_uint_t                i;
    ngx_http_ai_json_t        j;
    ngx_http_ai_json_node_t   nodes[32];

    end = data + len;
    data = ngx_http_ai_json_skip_space(data, end);

    while (end > data && (end[-1] == ' ' || end[-1] == '\n'
                          || end[-1] == '\r' || end[-1] == '\t'))
    {
        end--;
    }

    if (data == end || *data != '{' || end[-1] != '}') {
        return NGX_DECLINED;
    }

    /* backwards: it is within the last hundred bytes */

    last = end - ngx_min(1024, end - data);

    for (p = end - 7; p > last; p--) {
        if (*p == '"' && ngx_strncmp(p, "\"usage\"", 7) == 0) {
            break;
        }
    }

    if (p <= last) {
        return NGX_DECLINED;
    }

    p = ngx_http_ai_json_skip_space(p + 7, end);

    if (p == end || *p != ':') {
        return NGX_DECLINED;
    }

    p = ngx_http_ai_json_skip_space(p + 1, end);
    last = ngx_strlchr(p, end, '}');

    if (last == NULL) {
        return NGX_DECLINED;
    }

    ngx_memzero(&j, sizeof(ngx_http_ai_json_t));
    j.pool = a->exec->request->pool;
    j.nodes = nodes;
    j.nalloc = 32;

    if (ngx_http_ai_json_parse(&j, p, last + 1 - p) != NGX_OK) {
        return NGX_DECLINED;
    }

    i = ngx_http_ai_json_member(&j, 0, "prompt_tokens");

    if (i == NGX_HTTP_AI_JSON_NONE
        || ngx_http_ai_json_int(&j, i, &n) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    a->usage.in_fresh = n;
    a->usage.out = 0;
    a->has_usage = 1;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_answer_events_end(ngx_http_ai_attempt_t *a)
{
    ngx_int_t                 rc;
    ngx_uint_t                open;
    ngx_http_ai_sse_event_t   ev;

    rc = ngx_http_ai_sse_finish(&a->sse, &ev);

    /* an event that only the end of the body has ended */

    open = (rc == NGX_OK);

    if (rc == NGX_OK) {
        rc = ngx_http_ai_answer_event(a, &ev);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (!a->complete) {
        rc = a->provider->dialect->decode_finish(&a->dec);

        if (a->error.class != NGX_HTTP_AI_ERR_NONE) {
            return NGX_OK;
        }

        if (rc != NGX_OK) {
            ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_INCOMPLETE,
                                     "the provider's stream ended without its "
                                     "terminal event");
            return (rc == NGX_ERROR) ? NGX_ERROR : NGX_OK;
        }

        a->complete = 1;

        if (a->relaying && a->provider->dialect->terminal.len) {

            /* clients wait for it */

            if ((open && ngx_http_ai_answer_add(a, &ngx_http_ai_answer_blank)
                         != NGX_OK)
                || ngx_http_ai_answer_add(a, &a->provider->dialect->terminal)
                   != NGX_OK)
            {
                return NGX_ERROR;
            }
        }

    } else if (open && a->relaying
               && ngx_http_ai_answer_add(a, &ngx_http_ai_answer_blank)
                  != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (!a->exec->ctx->stream) {

        if (a->out.failed) {
            return NGX_ERROR;
        }

        return ngx_http_ai_answer_unary(a, a->out.start,
                                        a->out.last - a->out.start);
    }

    if (!a->committed && ngx_http_ai_answer_commit_stream(a) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_ai_answer_flush(a);
}


ngx_int_t
ngx_http_ai_answer_pass(ngx_http_ai_attempt_t *a, ngx_str_t *text,
    ngx_uint_t in_place)
{
    if (a->committed) {
        return ngx_http_ai_answer_relay(a, text->data, text->len, in_place);
    }

    return ngx_http_ai_answer_keep(a, text->data, text->len,
                                   a->exec->ctx->limits->max_answer);
}


/* adds to what is relayed, or will be */

static ngx_int_t
ngx_http_ai_answer_add(ngx_http_ai_attempt_t *a, ngx_str_t *text)
{
    if (a->committed) {
        return ngx_http_ai_answer_relay(a, text->data, text->len, 1);
    }

    return ngx_http_ai_answer_keep(a, text->data, text->len, (size_t) -1);
}


ngx_uint_t
ngx_http_ai_answer_whole(ngx_http_ai_attempt_t *a)
{
    return a->mode == NGX_HTTP_AI_MODE_EVENTS
           && a->error.class == NGX_HTTP_AI_ERR_NONE
           && (a->complete || a->finish != NGX_HTTP_AI_FINISH_NONE);
}


static ngx_int_t
ngx_http_ai_answer_unary(ngx_http_ai_attempt_t *a, u_char *data, size_t len)
{
    ngx_str_t           body;
    ngx_buf_t          *b;
    ngx_chain_t        *cl;
    ngx_http_ai_ctx_t  *ctx;

    ctx = a->exec->ctx;

    if (ctx->tap && ctx->tap->body) {
        body.data = data;
        body.len = len;

        if (ctx->tap->body(a->exec->request, ctx, &body) != NGX_OK) {
            return NGX_ERROR;
        }

        data = body.data;
        len = body.len;
    }

    if (ngx_http_ai_commit(a, len) != NGX_OK) {
        return NGX_ERROR;
    }

    cl = ngx_http_ai_answer_buf(a, 0);
    if (cl == NULL) {
        return NGX_ERROR;
    }

    b = cl->buf;
    b->start = NULL;
    b->pos = data;
    b->last = data + len;
    b->temporary = (len != 0);
    b->sync = (len == 0);
    b->last_buf = 1;
    b->last_in_chain = 1;

    a->last_sent = 1;

    /* a long request is better off its memory at once */

    return ngx_http_ai_answer_send(a, cl,
                                  len <= NGX_HTTP_AI_SMALL_BODY
                                  && ctx->body.len <= NGX_HTTP_AI_SMALL_BODY);
}


static ngx_int_t
ngx_http_ai_answer_sink(void *data, ngx_http_ai_event_t *ev)
{
    ngx_http_ai_attempt_t *a = data;

    ngx_int_t            rc;
    ngx_http_ai_exec_t  *x;

    x = a->exec;

    switch (ev->type) {

    case NGX_HTTP_AI_EV_START:

        if (a->resume) {
            /* the client has seen one */
            return NGX_OK;
        }

        break;

    case NGX_HTTP_AI_EV_TEXT:

        a->content = 1;
        ngx_http_ai_answer_count(a, &ev->text);

        if (a->resume) {
            rc = ngx_http_ai_answer_match(a, ev);

            if (rc != NGX_OK) {
                return (rc == NGX_DONE) ? NGX_OK : rc;
            }
        }

        if (x->recording && ev->choice == 0) {
            ngx_http_ai_out_t  *rec;

            rec = a->resume ? x->delivered : &a->recorded;

            ngx_http_ai_out_unescaped(rec, &ev->text);

            if (rec->failed) {
                return NGX_ERROR;
            }

            if (a->resume) {
                /* its own text is not to be compared with itself */
                a->matched = rec->last - rec->start;
            }

            if ((size_t) (rec->last - rec->start) > x->model->recover_max) {
                x->recording = 0;
            }
        }

        break;

    case NGX_HTTP_AI_EV_REASONING:

        a->content = 1;
        ngx_http_ai_answer_count(a, &ev->text);

        if (a->resume) {
            return NGX_OK;
        }

        break;

    case NGX_HTTP_AI_EV_SIGNATURE:
    case NGX_HTTP_AI_EV_REDACTED:

        if (a->resume) {
            return NGX_OK;
        }

        break;

    case NGX_HTTP_AI_EV_REFUSAL:
    case NGX_HTTP_AI_EV_TOOL_START:

        a->content = 1;
        x->started_tool = 1;
        ngx_http_ai_answer_count(a, &ev->text);
        ngx_http_ai_answer_count(a, &ev->name);
        break;

    case NGX_HTTP_AI_EV_TOOL_ARGS:

        a->content = 1;
        ngx_http_ai_answer_count(a, &ev->text);
        break;

    case NGX_HTTP_AI_EV_FINISH:

        if (a->restart && x->delivered
            && a->matched < (size_t) (x->delivered->last
                                      - x->delivered->start))
        {
            ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_INVALID_ANSWER,
                                     "the second answer is shorter than what "
                                     "was delivered of the first");
            return NGX_ABORT;
        }

        a->content = 1;

        if (ev->choice == 0) {
            a->finish = ev->finish;
        }

        break;

    case NGX_HTTP_AI_EV_USAGE:

        if (ev->usage) {
            ngx_http_ai_usage_merge(&a->usage, ev->usage);
            a->has_usage = 1;

            if (x->ctx->cost_usage) {
                a->told = a->relaying;
                ev->usage->cost = ngx_http_ai_router_cost(a);
            }
        }

        break;

    case NGX_HTTP_AI_EV_ERROR:
        return ngx_http_ai_answer_failed(a, ev->error);

    case NGX_HTTP_AI_EV_END:
        a->complete = 1;
        break;

    default:
        break;
    }

    if (x->ctx->watch != NGX_HTTP_AI_WATCH_NEVER) {
        rc = ngx_http_ai_answer_watch(a, ev);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (a->enc == NULL) {
        return NGX_OK;
    }

    rc = x->ctx->dialect->encode_event(a->enc, ev);

    if (a->relaying) {
        /* the encoder only keeps pace, for a recovery to go on with it */
        a->out.last = a->out.start;
    }

    return rc;
}


/*
 * A continuation repeats what was delivered (restart) or begins behind it
 * (prefill).  What was delivered is skipped; a restart that differs from it
 * cannot be joined.  NGX_DONE: nothing of the event is new.
 */

static ngx_int_t
ngx_http_ai_answer_match(ngx_http_ai_attempt_t *a, ngx_http_ai_event_t *ev)
{
    size_t               left, len, n;
    ngx_str_t            rest;
    ngx_http_ai_exec_t  *x;
    ngx_http_ai_out_t   *out, *done;

    x = a->exec;
    done = x->delivered;

    if (done == NULL || ev->choice != 0) {
        return NGX_OK;
    }

    left = (size_t) (done->last - done->start) - a->matched;

    if (left == 0) {
        return NGX_OK;
    }

    out = &a->scratch;
    out->pool = x->request->pool;
    out->last = out->start;

    ngx_http_ai_out_unescaped(out, &ev->text);

    if (out->failed) {
        return NGX_ERROR;
    }

    len = out->last - out->start;
    n = ngx_http_ai_min(len, left);

    if (n && ngx_memcmp(done->start + a->matched, out->start, n) != 0) {

        if (a->prefill) {
            /* white space that was not sent along, and does not come */
            a->matched += left;
            return NGX_OK;
        }

        ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_INVALID_ANSWER,
                                 "the second answer differs from what was "
                                 "delivered of the first");
        return NGX_ABORT;
    }

    a->matched += n;

    if (n == len) {
        return NGX_DONE;
    }

    /* escape the rest behind the unescaped text; the buffer may move */

    ngx_http_ai_out_grow(out, 6 * (len - n) + 16);

    if (out->failed) {
        return NGX_ERROR;
    }

    rest.data = out->start + n;
    rest.len = len - n;
    ev->text.data = out->last;

    ngx_http_ai_out_escaped(out, rest.data, rest.len);

    ev->text.len = out->last - ev->text.data;

    return NGX_OK;
}


/* a second pass over a whole body whose provider has told no usage */

static ngx_int_t
ngx_http_ai_answer_count_sink(void *data, ngx_http_ai_event_t *ev)
{
    ngx_http_ai_answer_count(data, &ev->text);
    ngx_http_ai_answer_count(data, &ev->name);

    return NGX_OK;
}


static void
ngx_http_ai_answer_count(ngx_http_ai_attempt_t *a, ngx_str_t *text)
{
    if (a->counting && text->len) {
        a->counted += ngx_http_ai_tokens_raw(text->data, text->len);
    }
}


/* the decoder's slices live as long as the event */

static ngx_int_t
ngx_http_ai_answer_failed(ngx_http_ai_attempt_t *a, ngx_http_ai_error_t *err)
{
    ngx_uint_t    i;
    ngx_str_t    *s[4];
    ngx_pool_t   *pool;

    if (a->error.class != NGX_HTTP_AI_ERR_NONE) {
        return NGX_ABORT;
    }

    pool = a->exec->request->pool;

    a->error = *err;

    s[0] = &a->error.message;
    s[1] = &a->error.type;
    s[2] = &a->error.code;
    s[3] = &a->error.param;

    for (i = 0; i < 4; i++) {
        if (s[i]->len) {
            s[i]->data = ngx_pstrdup(pool, s[i]);
            if (s[i]->data == NULL) {
                return NGX_ERROR;
            }
        }
    }

    if (a->error.class == NGX_HTTP_AI_ERR_NONE) {
        a->error.class = NGX_HTTP_AI_ERR_SERVER;
    }

    return NGX_ABORT;
}


static ngx_int_t
ngx_http_ai_answer_keep(ngx_http_ai_attempt_t *a, u_char *data, size_t len,
    size_t max)
{
    size_t  size;

    if (a->hold.start == NULL) {

        size = (a->length > 0) ? (size_t) ngx_http_ai_min(a->length, 65536)
                               : 256;

        if (ngx_http_ai_out_init(&a->hold, a->exec->request->pool,
                                 ngx_http_ai_max(size, len))
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if ((size_t) (a->hold.last - a->hold.start) + len > max) {
        ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_INVALID_ANSWER,
                                 "the provider's answer is too large "
                                 "(ai_max_answer)");
        return NGX_ERROR;
    }

    ngx_http_ai_out_mem(&a->hold, data, len);

    return a->hold.failed ? NGX_ERROR : NGX_OK;
}


/* adds bytes to the batch; neighbours in memory share a buffer */

static ngx_int_t
ngx_http_ai_answer_relay(ngx_http_ai_attempt_t *a, u_char *data, size_t len,
    ngx_uint_t in_place)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    if (in_place && a->relay) {

        for (cl = a->relay; cl->next; cl = cl->next) { /* void */ }

        if (cl->buf->start == NULL && cl->buf->last == data) {
            cl->buf->last = data + len;
            return NGX_OK;
        }
    }

    cl = ngx_http_ai_answer_buf(a, in_place ? 0 : len);
    if (cl == NULL) {
        return NGX_ERROR;
    }

    b = cl->buf;

    if (in_place) {
        b->pos = data;
        b->last = data + len;

    } else {
        b->last = ngx_cpymem(b->pos, data, len);
    }

    b->temporary = 1;

    *a->last_relay = cl;
    a->last_relay = &cl->next;

    return NGX_OK;
}


ngx_chain_t *
ngx_http_ai_answer_buf(ngx_http_ai_attempt_t *a, size_t size)
{
    ngx_buf_t            *b;
    ngx_pool_t           *pool;
    ngx_chain_t          *cl, **ll;
    ngx_http_upstream_t  *u;

    pool = a->exec->request->pool;
    u = a->sr->upstream;

    for (ll = &u->free_bufs; *ll; ll = &(*ll)->next) {
        b = (*ll)->buf;

        if (size ? (b->start && (size_t) (b->end - b->start) >= size)
                 : (b->start == NULL))
        {
            cl = *ll;
            *ll = cl->next;
            cl->next = NULL;

            b->pos = b->start;
            b->last = b->start;
            b->flush = 0;

            return cl;
        }
    }

    cl = ngx_alloc_chain_link(pool);
    if (cl == NULL) {
        return NULL;
    }

    b = ngx_calloc_buf(pool);
    if (b == NULL) {
        return NULL;
    }

    if (size) {
        size = ngx_http_ai_max(size, 1024);

        b->start = ngx_palloc(pool, size);
        if (b->start == NULL) {
            return NULL;
        }

        b->end = b->start + size;
    }

    b->pos = b->start;
    b->last = b->start;
    b->tag = u->output.tag;

    cl->buf = b;
    cl->next = NULL;

    return cl;
}


static ngx_int_t
ngx_http_ai_answer_send(ngx_http_ai_attempt_t *a, ngx_chain_t *out,
    ngx_uint_t later)
{
    ngx_buf_t            *b;
    ngx_int_t             rc;
    ngx_chain_t          *cl, **ll;
    ngx_http_upstream_t  *u;

    u = a->sr->upstream;

    rc = later ? ngx_http_ai_exec_output_later(a->exec, out)
               : ngx_http_ai_exec_output(a->exec, out);

    /* the stock code waits for busy buffers before it reads on */

    ngx_chain_update_chains(a->exec->request->pool, &u->free_bufs,
                            &u->busy_bufs, &out, u->output.tag);

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    /* an encoder without memory takes the largest piece that came back */

    if (!a->relaying && a->enc && a->out.start == NULL && u->busy_bufs == NULL)
    {
        for (ll = &u->free_bufs; *ll; ll = &(*ll)->next) {
            b = (*ll)->buf;

            if (b->start) {
                cl = *ll;
                *ll = cl->next;

                a->out.start = b->start;
                a->out.last = b->start;
                a->out.end = b->end;

                b->start = NULL;
                b->end = NULL;
                b->pos = NULL;
                b->last = NULL;
                b->flush = 0;

                cl->next = u->free_bufs;
                u->free_bufs = cl;

                break;
            }
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_answer_error(ngx_http_ai_exec_t *x, ngx_http_ai_error_t *err)
{
    ngx_buf_t           *b;
    ngx_chain_t          cl;
    ngx_http_ai_out_t    out;

    /* before the tap sees what is sent */
    x->ctx->error = err->class;

    if (x->winner == NULL || x->winner->mode != NGX_HTTP_AI_MODE_EVENTS
        || x->gone)
    {
        /* there is no way to say it but a broken connection */
        return NGX_ERROR;
    }

    if (err->status < 400) {
        err->status = ngx_http_ai_err_status(err->class);
    }

    if (err->request_id.len == 0) {
        err->request_id = x->ctx->request_id;
    }

    if (ngx_http_ai_out_init(&out, x->request->pool, 512) != NGX_OK) {
        return NGX_ERROR;
    }

    x->ctx->dialect->encode_stream_error(&out, err);

    if (out.failed) {
        return NGX_ERROR;
    }

    b = ngx_calloc_buf(x->request->pool);
    if (b == NULL) {
        return NGX_ERROR;
    }

    b->start = out.start;
    b->pos = out.start;
    b->last = out.last;
    b->end = out.end;
    b->memory = 1;
    b->flush = 1;

    cl.buf = b;
    cl.next = NULL;

    return ngx_http_ai_exec_output(x, &cl);
}
