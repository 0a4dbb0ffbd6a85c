
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Streams that observers watch.  One that is cut ends before the event that
 * was too much, as an answer that has reached its length; its provider is
 * left.
 */


#include "ngx_http_ai_router_exec.h"


static ngx_int_t ngx_http_ai_cut_end(ngx_http_ai_attempt_t *a);


ngx_int_t
ngx_http_ai_answer_watch(ngx_http_ai_attempt_t *a, ngx_http_ai_event_t *ev)
{
    uint64_t             bit, counted;
    ngx_int_t            rc;
    ngx_http_ai_exec_t  *x;

    x = a->exec;
    bit = (uint64_t) 1 << ngx_min(ev->choice, 63);

    if (ev->type == NGX_HTTP_AI_EV_FINISH) {
        a->choices &= ~bit;
        return NGX_OK;
    }

    counted = x->counted + a->counted;

    if (ev->type < NGX_HTTP_AI_EV_TEXT || ev->type > NGX_HTTP_AI_EV_TOOL_END)
    {
        return NGX_OK;
    }

    a->choices |= bit;

    if (counted <= x->ctx->watch) {
        goto delivered;
    }

    rc = x->api->observe(x->request, x->ctx, counted);

    if (rc == NGX_ABORT && x->ctx->may_cut && a->enc && x->ctx->stream) {
        a->cut = 1;
        return NGX_ABORT;
    }

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (rc == NGX_AGAIN && !x->gone && a->mode == NGX_HTTP_AI_MODE_EVENTS) {
        a->waits = 1;
    }

delivered:

    if (!a->relaying) {
        /* each event goes out by itself, not all of a provider's chunk */
        a->counted_last = a->counted;
    }

    return NGX_OK;
}


void
ngx_http_ai_router_proceed(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    ngx_uint_t           i;
    ngx_connection_t    *c;
    ngx_http_ai_exec_t  *x;

    x = ctx->router;
    c = r->connection;

    if (x->done) {
        return;
    }

    for (i = 0; i < x->nattempts; i++) {
        x->attempts[i]->waits = 0;
    }

    if (ngx_http_post_request(r, NULL) == NGX_OK) {
        ngx_http_run_posted_requests(c);
    }
}


void
ngx_http_ai_answer_counted(ngx_http_ai_attempt_t *a)
{
    ngx_uint_t           i;
    ngx_http_ai_exec_t  *x;

    x = a->exec;
    x->counted = 0;

    for (i = 0; i < x->nattempts; i++) {
        if (x->attempts[i] != a && x->attempts[i]->content) {
            x->counted += x->attempts[i]->counted;
        }
    }
}


/* NGX_ERROR in any case: the caller has nothing more to read */

ngx_int_t
ngx_http_ai_answer_cut(ngx_http_ai_attempt_t *a)
{
    ngx_http_ai_exec_t  *x;

    x = a->exec;

    ngx_log_error(NGX_LOG_INFO, x->request->connection->log, 0,
                  "ai router: the answer of \"%V\" is cut, its limit is "
                  "reached", &a->target->name);

    a->counted = a->counted_last;
    x->ctx->watch = NGX_HTTP_AI_WATCH_NEVER;
    x->ctx->cut = 1;

    if (ngx_http_ai_cut_end(a) != NGX_OK) {
        ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_INTERNAL,
                                 "the gateway failed to end the answer");
        return NGX_ERROR;
    }

    a->finish = NGX_HTTP_AI_FINISH_LENGTH;
    a->complete = 1;

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_ai_cut_end(ngx_http_ai_attempt_t *a)
{
    ngx_uint_t              i;
    ngx_http_ai_ctx_t      *ctx;
    ngx_http_ai_exec_t     *x;
    ngx_http_ai_event_t     ev;
    ngx_http_ai_usage_t     usage;
    ngx_http_ai_dialect_t  *dialect;

    x = a->exec;
    ctx = x->ctx;
    dialect = ctx->dialect;

    if (!a->committed && ngx_http_ai_answer_commit_stream(a) != NGX_OK) {
        return NGX_ERROR;
    }

    if (a->relaying) {
        /* what was relayed goes first, then what the encoder says */
        a->out.last = a->out.start;
        a->relaying = 0;
    }

    ngx_memzero(&ev, sizeof(ngx_http_ai_event_t));

    ev.type = NGX_HTTP_AI_EV_FINISH;
    ev.finish = NGX_HTTP_AI_FINISH_LENGTH;

    for (i = 0; i < 64; i++) {

        if (!(a->choices & ((uint64_t) 1 << i))) {
            continue;
        }

        ev.choice = i;

        if (dialect->encode_event(a->enc, &ev) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    usage = a->usage;

    if (usage.in_fresh < 0) {
        usage.in_fresh = x->api->input_estimate(ctx);
    }

    usage.out = ngx_http_ai_tokens_round(x->counted + a->counted);

    if (ctx->cost_usage) {
        usage.cost = ngx_http_ai_router_cost(a);
    }

    ngx_memzero(&ev, sizeof(ngx_http_ai_event_t));

    ev.type = NGX_HTTP_AI_EV_USAGE;
    ev.usage = &usage;

    if (dialect->encode_event(a->enc, &ev) != NGX_OK) {
        return NGX_ERROR;
    }

    ev.type = NGX_HTTP_AI_EV_END;

    if (dialect->encode_event(a->enc, &ev) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_ai_answer_flush(a);
}


ngx_int_t
ngx_http_ai_router_end(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_str_t *provider, ngx_http_ai_error_t *err)
{
    ngx_int_t               rc;
    ngx_uint_t              i;
    ngx_http_ai_exec_t     *x;
    ngx_http_ai_attempt_t  *a;

    x = ctx->router;

    if (x == NULL || x->done || (x->winner && x->winner->complete)) {
        return NGX_OK;
    }

    if (provider && !x->committed) {

        for (i = 0; i < x->ncandidates; i++) {
            if (ngx_http_ai_price_match(provider,
                               &x->candidates[i].target->provider->name))
            {
                x->candidates[i].skip = 1;
            }
        }

        for (i = 0; i < x->nattempts; i++) {
            a = x->attempts[i];

            if (!a->finished && a->candidate->skip
                && ngx_http_ai_price_match(provider, &a->provider->name))
            {
                ngx_http_ai_attempt_cancel(a, NGX_HTTP_AI_ERR_OVERLOADED,
                                           (char *) err->message.data);
            }
        }

        return NGX_OK;
    }

    if (provider
        && (x->winner == NULL
            || !ngx_http_ai_price_match(provider, &x->winner->provider->name)))
    {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                  "ai router: the request is ended: %V", &err->message);

    ctx->error = err->class;

    if (x->gone) {
        rc = NGX_HTTP_CLIENT_CLOSED_REQUEST;

    } else if (x->committed) {
        rc = ngx_http_ai_answer_error(x, err);

    } else {
        rc = x->api->send_error(r, ctx, err, -1, 0);
    }

    ngx_http_ai_exec_finish(x, rc);

    return NGX_DONE;
}
