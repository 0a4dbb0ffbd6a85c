
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_router_exec.h"


/* age at which an attempt gets a timer of its own, ms */
#define NGX_HTTP_AI_YOUNG  200


static ngx_int_t ngx_http_ai_exec_start(ngx_http_ai_exec_t *x,
    ngx_http_ai_candidate_t *c, ngx_http_ai_attempt_t **attempt);
static ngx_int_t ngx_http_ai_exec_key(ngx_http_ai_attempt_t *a);
static void ngx_http_ai_exec_advance(ngx_http_ai_exec_t *x,
    ngx_http_ai_attempt_t *a);
static void ngx_http_ai_exec_fail(ngx_http_ai_exec_t *x);
static void ngx_http_ai_exec_handle(ngx_http_ai_exec_t *x,
    ngx_http_ai_attempt_t *a);
static void ngx_http_ai_exec_learn(ngx_http_ai_exec_t *x,
    ngx_http_ai_attempt_t *a);
static void ngx_http_ai_exec_wake(ngx_http_request_t *r);
static void ngx_http_ai_exec_timer(ngx_event_t *ev);
static void ngx_http_ai_exec_cleanup(void *data);
static ngx_int_t ngx_http_ai_attempt_done(ngx_http_request_t *sr, void *data,
    ngx_int_t rc);
static void ngx_http_ai_attempt_timer(ngx_event_t *ev);
static void ngx_http_ai_attempt_expire(ngx_http_ai_attempt_t *a,
    const char *why);
static void ngx_http_ai_attempt_young(ngx_http_ai_attempt_t *a);
static void ngx_http_ai_attempt_young_handler(ngx_event_t *ev);
static void ngx_http_ai_attempt_del_timer(ngx_http_ai_attempt_t *a);


/*
 * Most attempts end long before any of their time limits.  A timer of its own
 * is set for one that has lived for a while only; until then it stands in this
 * queue, which costs less than the tree of timers.  Per worker.
 */

static ngx_queue_t               ngx_http_ai_young;
static ngx_event_t               ngx_http_ai_young_timer;
static ngx_http_ai_timer_data_t  ngx_http_ai_young_data;


/* who may be asked for it; in a location without ai_pass nothing is */

ngx_int_t
ngx_http_ai_router_resolve(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    ngx_int_t                        rc;
    ngx_http_ai_exec_t              *x;
    ngx_http_ai_router_loc_conf_t   *arlcf;
    ngx_http_ai_router_main_conf_t  *amcf;

    arlcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_router_module);

    if (arlcf->pass == NGX_HTTP_AI_PASS_NONE) {
        return NGX_DECLINED;
    }

    if (ctx->op == NGX_HTTP_AI_OP_MODELS || ctx->op == NGX_HTTP_AI_OP_MODEL) {

        if (arlcf->pass != NGX_HTTP_AI_PASS_PROVIDER
            || arlcf->provider->is_static)
        {
            /* answered from the configuration */
            return NGX_OK;
        }

        ctx->op = NGX_HTTP_AI_OP_PASS;
    }

    amcf = ngx_http_get_module_main_conf(r, ngx_http_ai_router_module);

    x = ngx_pcalloc(r->pool, sizeof(ngx_http_ai_exec_t));
    if (x == NULL) {
        return NGX_ERROR;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     x->nattempts = 0;
     *     x->winner = NULL;
     *     x->error.class = NGX_HTTP_AI_ERR_NONE;
     */

    x->request = r;
    x->ctx = ctx;
    x->api = amcf->api;
    x->retry_after = -1;

    x->timer.handler = ngx_http_ai_exec_timer;
    x->timer.data = &x->timer_data;
    x->timer.log = r->connection->log;
    x->timer_data.data = x;
    x->timer_data.fd = (ngx_socket_t) -1;

    ctx->router = x;
    ctx->attempt = ngx_http_ai_router_attempt;
    ctx->plan = ngx_http_ai_router_plan_hash;

    rc = ngx_http_ai_plan(x, arlcf);

    if (rc == NGX_DECLINED) {
        ctx->rc = x->api->send_error(r, ctx, &x->error, -1, x->error_same);
        return NGX_DONE;
    }

    if (rc == NGX_OK) {
        rc = ngx_http_ai_router_foretell(x);
    }

    return rc;
}


ngx_int_t
ngx_http_ai_router_handler(ngx_http_request_t *r)
{
    ngx_http_ai_ctx_t               *ctx;
    ngx_http_cleanup_t              *cln;
    ngx_http_ai_exec_t              *x;
    ngx_http_ai_attempt_t           *a;
    ngx_http_ai_router_main_conf_t  *amcf;

    if (r != r->main) {
        a = ngx_http_get_module_ctx(r, ngx_http_ai_router_module);

        if (a == NULL) {
            ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                          "ai router: a location of the gateway does not "
                          "serve subrequests");
            return NGX_HTTP_FORBIDDEN;
        }

        return ngx_http_ai_upstream_start(a);
    }

    amcf = ngx_http_get_module_main_conf(r, ngx_http_ai_router_module);

    ctx = amcf->api->get_ctx(r);

    if (ctx == NULL || !ctx->ready || ctx->routed) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "ai router: the request was not prepared");
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ctx->routed = 1;

    if (ctx->op == NGX_HTTP_AI_OP_MODELS || ctx->op == NGX_HTTP_AI_OP_MODEL) {
        return ngx_http_ai_models_answer(r, ctx, amcf);
    }

    x = ctx->router;

    if (x == NULL || x->request != r) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_set_ctx(r, x, ngx_http_ai_router_module);

    if (ctx->op == NGX_HTTP_AI_OP_COUNT_TOKENS
        && (x->candidates[0].target->provider->is_static
            || x->candidates[0].target->provider->dialect != ctx->dialect))
    {
        return ngx_http_ai_count_tokens_answer(r, ctx);
    }

    ctx->end = ngx_http_ai_router_end;
    ctx->proceed = ngx_http_ai_router_proceed;

    x->recording = (ctx->stream && ctx->op == NGX_HTTP_AI_OP_CHAT
                    && x->model->recover != NGX_HTTP_AI_RECOVER_OFF);

    cln = ngx_http_cleanup_add(r, 0);
    if (cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    cln->handler = ngx_http_ai_exec_cleanup;
    cln->data = x;

    r->main->count++;

    r->write_event_handler = ngx_http_ai_exec_wake;

    if (ctx->background) {
        /* what its client sends now is another request */

        x->gone = 1;
        x->kept = 1;
        x->recording = 0;

        r->read_event_handler = ngx_http_block_reading;

        ngx_http_ai_exec_advance(x, NULL);

        return NGX_DONE;
    }

    r->read_event_handler = ngx_http_ai_exec_read;

    if (r->connection->read->ready) {
        ngx_post_event(r->connection->read, &ngx_posted_events);

    } else if (ngx_handle_read_event(r->connection->read, 0) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        return NGX_DONE;
    }

    ngx_http_ai_exec_advance(x, NULL);

    return NGX_DONE;
}


/* starts, waits, or gives up; may finalize the request: the last thing that
 * its callers do */

static void
ngx_http_ai_exec_advance(ngx_http_ai_exec_t *x, ngx_http_ai_attempt_t *a)
{
    ngx_int_t                 rc;
    ngx_msec_t                wait;
    ngx_http_ai_candidate_t  *c;

    for ( ;; ) {
        wait = 0;

        switch (ngx_http_ai_plan_next(x, a, &c, &wait)) {

        case NGX_HTTP_AI_NEXT_WAIT:

            ngx_log_debug2(NGX_LOG_DEBUG_HTTP, x->request->connection->log, 0,
                           "ai router: \"%V\" again in %M ms",
                           &c->target->name, wait);

            x->current = c - x->candidates;
            x->backoff = 1;
            ngx_add_timer(&x->timer, ngx_http_ai_max(wait, 1));

            return;

        case NGX_HTTP_AI_NEXT_NONE:
            ngx_http_ai_exec_fail(x);
            return;

        default: /* NGX_HTTP_AI_NEXT_START */
            break;
        }

        x->current = c - x->candidates;

        if (c->target->provider->is_static) {
            c->tries++;
            x->ctx->attempts++;
            rc = x->gone ? NGX_OK : ngx_http_ai_static_answer(x, c->target);
            ngx_http_ai_exec_finish(x, rc);
            return;
        }

        rc = ngx_http_ai_exec_start(x, c, &a);

        if (rc == NGX_OK) {
            return;
        }

        if (rc == NGX_ERROR) {
            ngx_http_ai_exec_finish(x, NGX_HTTP_INTERNAL_SERVER_ERROR);
            return;
        }

        /* NGX_DECLINED: "a" has failed without having been sent */

        x->error = a->error;
        x->error_same = 0;
    }
}


static ngx_int_t
ngx_http_ai_exec_start(ngx_http_ai_exec_t *x, ngx_http_ai_candidate_t *c,
    ngx_http_ai_attempt_t **attempt)
{
    ngx_msec_t                   wait;
    ngx_http_request_t          *r, *sr;
    ngx_http_ai_attempt_t       *a;
    ngx_http_ai_provider_t      *provider;
    ngx_http_post_subrequest_t  *ps;

    if (x->nattempts == NGX_HTTP_AI_MAX_ATTEMPTS) {
        return NGX_ERROR;
    }

    r = x->request;

    a = ngx_pcalloc(r->pool, sizeof(ngx_http_ai_attempt_t));
    if (a == NULL) {
        return NGX_ERROR;
    }

    provider = c->target->provider;

    a->exec = x;
    a->candidate = c;
    a->target = c->target;
    a->provider = provider;
    a->model = c->target->model.len ? c->target->model
                                    : x->ctx->request_model;
    a->start = ngx_current_msec;
    a->progress = a->start;
    a->length = -1;
    a->wait = -1;
    a->last_relay = &a->relay;
    a->same = (provider->dialect == x->ctx->dialect);
    ngx_http_ai_usage_init(&a->usage);

    a->timer.handler = ngx_http_ai_attempt_timer;
    a->timer.data = &a->timer_data;
    a->timer.log = r->connection->log;
    a->timer_data.data = a;
    a->timer_data.fd = (ngx_socket_t) -1;

    if (x->committed) {
        a->resume = 1;
        a->restart = 1;
    }

    *attempt = a;

    x->attempts[x->nattempts++] = a;
    x->ctx->attempts++;
    c->tries++;

    wait = 0;

    switch (ngx_http_ai_health_check(c->target->health, x->model, &wait)) {

    case NGX_HTTP_AI_HEALTH_PROBE:
        a->probe = 1;
        break;

    case NGX_HTTP_AI_HEALTH_OPEN:
    case NGX_HTTP_AI_HEALTH_COOLING:
        /* another worker was faster */
        a->wait = wait;
        ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_SATURATED,
                                 "the provider is not available");
        goto declined;

    default: /* NGX_HTTP_AI_HEALTH_OK */
        break;
    }

    if (provider->max_concurrent) {

        if (ngx_http_ai_health_enter(provider->health,
                                     provider->max_concurrent)
            != NGX_OK)
        {
            ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_SATURATED,
                                     "the provider has reached its limit of "
                                     "concurrent requests (max_concurrent)");
            a->wait = 1000;
            goto declined;
        }

        a->entered = 1;
    }

    if (ngx_http_ai_exec_key(a) != NGX_OK) {
        ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_AUTH,
                                 "the gateway has no usable key for the "
                                 "provider");
        goto declined;
    }

    ps = ngx_palloc(r->pool, sizeof(ngx_http_post_subrequest_t));
    if (ps == NULL) {
        return NGX_ERROR;
    }

    ps->handler = ngx_http_ai_attempt_done;
    ps->data = a;

    if (ngx_http_subrequest(r, &r->uri, &r->args, &sr, ps,
                            NGX_HTTP_SUBREQUEST_CLONE
                            |NGX_HTTP_SUBREQUEST_BACKGROUND)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    a->sr = sr;
    ngx_http_set_ctx(sr, a, ngx_http_ai_router_module);

    x->running++;

    ngx_http_ai_attempt_young(a);

    if (x->model->hedge && !x->hedged && !x->committed) {
        x->hedging = 1;
        ngx_add_timer(&x->timer, x->model->hedge);
    }

    return NGX_OK;

declined:

    a->finished = 1;
    a->handled = 1;
    a->end = ngx_current_msec;

    if (a->entered) {
        a->entered = 0;
        ngx_http_ai_health_leave(provider->health);
    }

    if (a->probe) {
        ngx_http_ai_health_release(c->target->health);
    }

    if (a->error.class == NGX_HTTP_AI_ERR_SATURATED) {
        x->retry_after = a->wait;
    }

    ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                  "ai router: \"%V\" was not asked: %V", &a->target->name,
                  &a->error.message);

    return NGX_DECLINED;
}


/* keys take turns; those that others found refused or limited come last */

static ngx_int_t
ngx_http_ai_exec_key(ngx_http_ai_attempt_t *a)
{
    ngx_msec_t               wait;
    ngx_uint_t               i, n, k, cooling;
    ngx_http_ai_key_t       *keys;
    ngx_http_ai_provider_t  *provider;

    provider = a->provider;
    n = provider->keys.nelts;

    if (n == 0) {
        return NGX_OK;
    }

    keys = provider->keys.elts;
    provider->next_key++;

    for (cooling = 0; cooling < 2; cooling++) {

        for (i = 0; i < n; i++) {
            k = (provider->next_key + i) % n;

            if (k < 8 * sizeof(ngx_uint_t)
                && (a->candidate->keys & ((ngx_uint_t) 1 << k)))
            {
                continue;
            }

            if (!cooling
                && n > 1
                && ngx_http_ai_health_peek(keys[k].health, a->exec->model,
                                           &wait)
                   == NGX_HTTP_AI_HEALTH_COOLING)
            {
                continue;
            }

            a->key = &keys[k];
            a->key_index = k;

            return NGX_OK;
        }
    }

    return NGX_ERROR;
}


void
ngx_http_ai_attempt_fail(ngx_http_ai_attempt_t *a, ngx_http_ai_err_e class,
    const char *message)
{
    if (a->error.class == NGX_HTTP_AI_ERR_NONE
        && a->mode == NGX_HTTP_AI_MODE_ERROR && !a->body_ended)
    {
        /* its status says more than what became of the rest of its body */

        a->body_ended = 1;
        (void) ngx_http_ai_answer_end(a);
    }

    if (a->error.class != NGX_HTTP_AI_ERR_NONE) {
        return;
    }

    a->error.class = class;
    a->error.status = 0;
    a->error.message.data = (u_char *) message;
    a->error.message.len = ngx_strlen(message);
}


void
ngx_http_ai_attempt_cancel(ngx_http_ai_attempt_t *a, ngx_http_ai_err_e class,
    const char *why)
{
    ngx_http_request_t   *sr;
    ngx_http_upstream_t  *u;

    if (a->finished) {
        return;
    }

    sr = a->sr;
    u = sr->upstream;

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, sr->connection->log, 0,
                   "ai router: cancel \"%V\": %s", &a->target->name, why);

    a->canceled = 1;

    if (class != NGX_HTTP_AI_ERR_NONE) {
        ngx_http_ai_attempt_fail(a, class, why);
    }

    if (u && u->cleanup) {

        /*
         * ngx_http_upstream_cleanup() ends in
         * ngx_http_finalize_request(sr, NGX_DONE), which drops a reference
         */

        sr->main->count++;
        (*u->cleanup)(sr);

    } else {
        /* only posted by now */
        sr->write_event_handler = ngx_http_request_empty_handler;
        a->finished = 1;
        a->end = ngx_current_msec;
    }

    ngx_http_finalize_request(sr, NGX_OK);
}


/* the end of an attempt's subrequest; it may be called twice */

static ngx_int_t
ngx_http_ai_attempt_done(ngx_http_request_t *sr, void *data, ngx_int_t rc)
{
    ngx_http_ai_attempt_t *a = data;

    ngx_http_ai_exec_t  *x;

    x = a->exec;

    if (a->sr == NULL) {
        return NGX_OK;
    }

    a->sr = NULL;
    a->finished = 1;
    a->end = ngx_current_msec;
    x->running--;

    ngx_http_ai_attempt_del_timer(a);

    if (a->entered) {
        a->entered = 0;
        ngx_http_ai_health_leave(a->provider->health);
    }

    if (!a->complete && !a->canceled) {
        ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_INTERNAL,
                                 "the gateway failed to ask the provider");
    }

    if (!x->done && ngx_http_post_request(sr->main, NULL) != NGX_OK) {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_http_ai_attempt_young(ngx_http_ai_attempt_t *a)
{
    ngx_msec_t  limit;

    limit = ngx_min(a->provider->first, a->provider->total);

    if (limit <= 2 * NGX_HTTP_AI_YOUNG) {
        ngx_add_timer(&a->timer, limit);
        return;
    }

    if (ngx_http_ai_young_timer.handler == NULL) {
        ngx_queue_init(&ngx_http_ai_young);

        ngx_http_ai_young_data.fd = (ngx_socket_t) -1;
        ngx_http_ai_young_timer.data = &ngx_http_ai_young_data;
        ngx_http_ai_young_timer.handler = ngx_http_ai_attempt_young_handler;
        ngx_http_ai_young_timer.log = ngx_cycle->log;
    }

    ngx_queue_insert_tail(&ngx_http_ai_young, &a->young);
    a->queued = 1;

    if (!ngx_http_ai_young_timer.timer_set) {
        ngx_add_timer(&ngx_http_ai_young_timer, NGX_HTTP_AI_YOUNG);
    }
}


static void
ngx_http_ai_attempt_young_handler(ngx_event_t *ev)
{
    ngx_msec_t              age;
    ngx_queue_t            *q;
    ngx_http_ai_attempt_t  *a;

    while (!ngx_queue_empty(&ngx_http_ai_young)) {
        q = ngx_queue_head(&ngx_http_ai_young);
        a = ngx_queue_data(q, ngx_http_ai_attempt_t, young);
        age = ngx_current_msec - a->start;

        if (age < NGX_HTTP_AI_YOUNG) {
            ngx_add_timer(ev, NGX_HTTP_AI_YOUNG - age);
            return;
        }

        ngx_queue_remove(q);
        a->queued = 0;

        /* its handler finds out when it is due */
        ngx_add_timer(&a->timer, 1);
    }
}


void
ngx_http_ai_attempt_set_timer(ngx_http_ai_attempt_t *a, ngx_msec_t wait)
{
    if (a->queued) {
        ngx_queue_remove(&a->young);
        a->queued = 0;
    }

    ngx_add_timer(&a->timer, wait);
}


static void
ngx_http_ai_attempt_del_timer(ngx_http_ai_attempt_t *a)
{
    if (a->queued) {
        ngx_queue_remove(&a->young);
        a->queued = 0;
    }

    if (a->timer.timer_set) {
        ngx_del_timer(&a->timer);
    }
}


static void
ngx_http_ai_attempt_timer(ngx_event_t *ev)
{
    ngx_msec_t                 now, passed, quiet, left;
    ngx_connection_t          *c;
    ngx_http_request_t        *r;
    ngx_http_ai_exec_t        *x;
    ngx_http_ai_attempt_t     *a;
    ngx_http_ai_timer_data_t  *data;

    data = ev->data;
    a = data->data;
    x = a->exec;
    r = x->request;
    c = r->connection;
    now = ngx_current_msec;

    ngx_http_set_log_request(c->log, r);

    passed = now - a->start;
    quiet = now - a->progress;

    if (a->linger) {
        /* complete but for the end of the HTTP message */
        ngx_http_ai_attempt_expire(a, "linger");
        goto run;
    }

    if (passed >= a->provider->total) {
        ngx_http_ai_attempt_expire(a,
                               "the provider did not finish its answer in "
                               "time (timeout total)");
        goto run;
    }

    if (!a->first) {

        if (passed >= a->provider->first) {
            ngx_http_ai_attempt_cancel(a, NGX_HTTP_AI_ERR_TIMEOUT,
                                   "the provider did not begin to answer in "
                                   "time (timeout first)");
            goto run;
        }

        left = a->provider->first - passed;

    } else if (c->buffered && !x->gone) {

        /* the client is slow, not the provider */

        left = a->provider->idle;

    } else {

        if (quiet >= a->provider->idle) {
            ngx_http_ai_attempt_expire(a,
                                   "the provider fell silent in the middle of "
                                   "its answer (timeout idle)");
            goto run;
        }

        left = a->provider->idle - quiet;
    }

    ngx_add_timer(&a->timer, ngx_min(left, a->provider->total - passed));

    return;

run:

    ngx_http_run_posted_requests(c);
}


static void
ngx_http_ai_attempt_expire(ngx_http_ai_attempt_t *a, const char *why)
{
    if (!a->body_ended && ngx_http_ai_answer_whole(a)) {
        a->body_ended = 1;

        if (ngx_http_ai_answer_end(a) == NGX_ERROR) {
            ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_INTERNAL,
                                     "the gateway failed to read the answer");
        }
    }

    ngx_http_ai_attempt_cancel(a, a->complete ? NGX_HTTP_AI_ERR_NONE
                                              : NGX_HTTP_AI_ERR_TIMEOUT,
                               why);
}


/* client's side: writable, or an attempt has ended */

static void
ngx_http_ai_exec_wake(ngx_http_request_t *r)
{
    ngx_int_t               rc;
    ngx_uint_t              i;
    ngx_event_t            *wev;
    ngx_connection_t       *c;
    ngx_http_ai_exec_t     *x;
    ngx_http_ai_attempt_t  *a;

    x = ngx_http_get_module_ctx(r, ngx_http_ai_router_module);

    c = r->connection;
    wev = c->write;

    if (wev->timedout) {
        ngx_log_error(NGX_LOG_INFO, c->log, NGX_ETIMEDOUT,
                      "client timed out");
        c->timedout = 1;
        ngx_http_ai_exec_finish(x, NGX_HTTP_REQUEST_TIME_OUT);
        return;
    }

    if (c->buffered && x->ctx->background) {

        if (ngx_http_output_filter(r, NULL) == NGX_ERROR) {
            ngx_http_ai_exec_finish(x, NGX_ERROR);
            return;
        }

        if (c->buffered && ngx_handle_write_event(wev, 0) != NGX_OK) {
            ngx_http_ai_exec_finish(x, NGX_ERROR);
            return;
        }

    } else if (c->buffered && !x->gone) {
        rc = ngx_http_ai_exec_output(x, NULL);

        if (rc == NGX_ERROR) {
            ngx_http_ai_exec_finish(x, c->error
                                       ? NGX_HTTP_CLIENT_CLOSED_REQUEST
                                       : NGX_ERROR);
            return;
        }
    }

    a = x->winner;

    if (a && !a->finished && a->held && !a->waits
        && ngx_http_ai_upstream_proceed(a) != NGX_OK)
    {
        ngx_http_ai_attempt_cancel(a, (a->complete || a->error.class)
                                      ? NGX_HTTP_AI_ERR_NONE
                                      : NGX_HTTP_AI_ERR_INTERNAL,
                                   "the gateway failed to read the answer");
    }

    if (a && !a->finished && a->sr->upstream->header_sent) {

        /* goes on reading what it had to leave */

        a->sr->write_event_handler(a->sr);
    }

    for (i = 0; i < x->nattempts; i++) {
        a = x->attempts[i];

        if (!a->finished || a->handled) {
            continue;
        }

        a->handled = 1;

        if (a != x->winner && a->canceled
            && a->error.class == NGX_HTTP_AI_ERR_NONE)
        {
            /*
             * lost the race of a hedge; the winner may have ended in the same
             * read: a request that is posted twice is woken once
             */
            ngx_http_ai_exec_learn(x, a);
            continue;
        }

        ngx_http_ai_exec_handle(x, a);
        return;
    }
}


static void
ngx_http_ai_exec_handle(ngx_http_ai_exec_t *x, ngx_http_ai_attempt_t *a)
{
    ngx_int_t   rc;
    ngx_uint_t  level;

    ngx_http_ai_exec_learn(x, a);

    if (a == x->winner && a->complete) {

        if (x->gone) {
            ngx_http_ai_exec_finish(x, NGX_HTTP_CLIENT_CLOSED_REQUEST);
            return;
        }

        ngx_http_ai_exec_finish(x, NGX_OK);
        return;
    }

    if (x->gone && !x->kept) {
        ngx_http_ai_exec_finish(x, NGX_HTTP_CLIENT_CLOSED_REQUEST);
        return;
    }

    if (a->canceled && a->error.class == NGX_HTTP_AI_ERR_NONE) {
        /* lost the race of a hedge */
        return;
    }

    if (x->request->connection->error) {
        ngx_http_ai_exec_finish(x, NGX_ERROR);
        return;
    }

    level = a->local_error ? NGX_LOG_INFO : NGX_LOG_ERR;

    ngx_log_error(level, x->request->connection->log, 0,
                  "ai router: attempt %ui, \"%V\" failed after %M ms: %V, "
                  "status %ui: %V", x->ctx->attempts, &a->target->name,
                  ngx_current_msec - a->start,
                  ngx_http_ai_err_name(a->error.class),
                  a->status.code, &a->error.message);

    if (!(a->prefill && a->error.class == NGX_HTTP_AI_ERR_INVALID_REQUEST)) {
        x->error = a->error;
        x->error_same = (a->same && !a->local_error);
        x->retry_after = a->wait;
        x->last_class = a->error.class;
    }

    if (x->running) {
        /* the other one of a hedge goes on */
        return;
    }

    if (x->timer.timer_set) {
        ngx_del_timer(&x->timer);
        x->hedging = 0;
    }

    if (!x->committed) {
        ngx_http_ai_exec_advance(x, a);
        return;
    }

    if (x->winner == a || a->resume) {

        if (x->recording && !x->started_tool) {
            ngx_http_ai_exec_advance(x, a);
            return;
        }

        rc = ngx_http_ai_answer_error(x, &x->error);
        ngx_http_ai_exec_finish(x, rc);
    }
}


/* what an attempt's end says about its target */

static void
ngx_http_ai_exec_learn(ngx_http_ai_exec_t *x, ngx_http_ai_attempt_t *a)
{
    ngx_uint_t  failed;

    switch (a->error.class) {

    case NGX_HTTP_AI_ERR_NONE:

        if (!a->complete) {
            if (a->probe) {
                ngx_http_ai_health_release(a->target->health);
            }

            return;
        }

        failed = 0;
        break;

    case NGX_HTTP_AI_ERR_CONNECT:
    case NGX_HTTP_AI_ERR_TIMEOUT:
    case NGX_HTTP_AI_ERR_SERVER:
    case NGX_HTTP_AI_ERR_OVERLOADED:
    case NGX_HTTP_AI_ERR_INCOMPLETE:
    case NGX_HTTP_AI_ERR_INVALID_ANSWER:
        failed = 1;
        break;

    case NGX_HTTP_AI_ERR_RATE_LIMIT:
    case NGX_HTTP_AI_ERR_SATURATED:
    case NGX_HTTP_AI_ERR_INTERNAL:

        if (a->probe) {
            ngx_http_ai_health_release(a->target->health);
        }

        return;

    default:
        /* it answers: the request or the key is at fault */
        failed = 0;
        break;
    }

    ngx_http_ai_health_result(a->target->health, x->model, failed, a->probe);
}


static void
ngx_http_ai_exec_fail(ngx_http_ai_exec_t *x)
{
    ngx_int_t             rc;
    ngx_http_ai_error_t  *err;

    err = &x->error;

    if (x->gone) {
        x->ctx->error = err->class;
        ngx_http_ai_exec_finish(x, NGX_HTTP_CLIENT_CLOSED_REQUEST);
        return;
    }

    if (x->committed) {
        rc = ngx_http_ai_answer_error(x, err);
        ngx_http_ai_exec_finish(x, rc);
        return;
    }

    if (err->class == NGX_HTTP_AI_ERR_NONE) {
        err->class = NGX_HTTP_AI_ERR_SERVER;
        ngx_str_set(&err->message, "no provider could be asked");
    }

    if (err->class == NGX_HTTP_AI_ERR_AUTH && x->nattempts
        && x->attempts[x->nattempts - 1]->provider->key_pass)
    {
        /* the client's own key was refused: its error */

    } else if (err->class == NGX_HTTP_AI_ERR_AUTH) {

        /* the client cannot mend the gateway's keys */

        err->status = NGX_HTTP_BAD_GATEWAY;
        ngx_str_set(&err->message, "the provider refused the gateway's "
                                   "credentials (upstream_auth)");
        ngx_str_null(&err->type);
        ngx_str_null(&err->param);
        ngx_str_null(&err->code);
        x->error_same = 0;

    } else if (err->status < 400) {
        err->status = ngx_http_ai_err_status(err->class);
    }

    if (x->ctx->tap && x->ctx->tap->failed
        && x->ctx->tap->failed(x->request, x->ctx, err, &rc) != NGX_DECLINED)
    {
        ngx_http_ai_exec_finish(x, rc);
        return;
    }

    x->ctx->error = err->class;

    rc = x->api->send_error(x->request, x->ctx, err, x->retry_after,
                            x->error_same);

    ngx_http_ai_exec_finish(x, rc);
}


void
ngx_http_ai_exec_finish(ngx_http_ai_exec_t *x, ngx_int_t rc)
{
    ngx_uint_t           i;
    ngx_http_request_t  *r;

    r = x->request;

    x->done = 1;

    if (x->timer.timer_set) {
        ngx_del_timer(&x->timer);
    }

    for (i = 0; i < x->nattempts; i++) {
        if (!x->attempts[i]->finished) {
            ngx_http_ai_attempt_cancel(x->attempts[i], NGX_HTTP_AI_ERR_NONE,
                                       "request is done");
        }
    }

    ngx_http_ai_exec_over(x);

    r->read_event_handler = ngx_http_block_reading;

    if (rc == NGX_OK && x->committed && !x->gone && !x->winner->last_sent) {
        rc = ngx_http_ai_router_trailer(x);

        if (rc == NGX_OK) {
            rc = ngx_http_send_special(r, NGX_HTTP_LAST);
        }
    }

    if (x->ctx->background && rc == NGX_HTTP_CLIENT_CLOSED_REQUEST) {
        rc = NGX_OK;
    }

    if (rc == NGX_HTTP_CLIENT_CLOSED_REQUEST) {
        r->connection->error = 1;
    }

    ngx_http_finalize_request(r, rc);
}


ngx_int_t
ngx_http_ai_commit(ngx_http_ai_attempt_t *a, off_t length)
{
    ngx_str_t            value;
    ngx_uint_t           i;
    ngx_table_elt_t     *h, *headers;
    ngx_http_ai_ctx_t   *ctx;
    ngx_http_request_t  *r;
    ngx_http_ai_exec_t  *x;

    x = a->exec;
    r = x->request;
    ctx = x->ctx;

    a->committed = 1;
    x->winner = a;

    if (x->timer.timer_set) {
        ngx_del_timer(&x->timer);
        x->hedging = 0;
    }

    for (i = 0; i < x->nattempts; i++) {
        if (x->attempts[i] != a && !x->attempts[i]->finished) {
            ngx_http_ai_attempt_cancel(x->attempts[i], NGX_HTTP_AI_ERR_NONE,
                                       "another attempt was faster");
        }
    }

    ctx->provider = a->provider->name;
    ctx->region = a->provider->region;
    ngx_http_ai_plan_name(x, a->target, &ctx->target);

    if (a->target != x->candidates[0].target) {
        ctx->fallback = 1;
    }

    x->enc = a->enc;

    if (x->recording && !a->resume) {
        x->delivered = &a->recorded;
    }

    if (x->committed) {
        /* goes on with an answer whose beginning was sent */
        ctx->recovered = 1;
        return NGX_OK;
    }

    x->committed = 1;
    ctx->answered = 1;

    if (ctx->ttft < 0) {
        ctx->ttft = ngx_current_msec - ctx->start;
    }

    if (x->gone) {
        /* nobody reads it but those who wait for it */
        return NGX_OK;
    }

    r->headers_out.status = (ctx->op == NGX_HTTP_AI_OP_PASS)
                            ? a->status.code : NGX_HTTP_OK;
    r->headers_out.content_length_n = length;

    if (a->mode == NGX_HTTP_AI_MODE_RAW) {
        r->headers_out.content_type = a->content_type;

    } else if (length >= 0) {
        ngx_str_set(&r->headers_out.content_type, "application/json");

    } else if (a->relaying) {
        r->headers_out.content_type = a->content_type;

    } else {
        ngx_str_set(&r->headers_out.content_type, "text/event-stream");
    }

    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;

    if (length < 0 && a->mode == NGX_HTTP_AI_MODE_EVENTS) {
        ngx_str_set(&value, "no-cache");

        if (ngx_http_ai_header_add(&r->headers_out.headers, "Cache-Control",
                                   &value)
            == NULL)
        {
            return NGX_ERROR;
        }

        ngx_str_set(&value, "no");

        if (ngx_http_ai_header_add(&r->headers_out.headers,
                                   "X-Accel-Buffering", &value)
            == NULL)
        {
            return NGX_ERROR;
        }
    }

    if (a->upstream_id.len
        && ngx_http_ai_header_add(&r->headers_out.headers,
                                  "x-upstream-request-id", &a->upstream_id)
           == NULL)
    {
        return NGX_ERROR;
    }

    headers = a->headers.elts;

    for (i = 0; i < a->headers.nelts; i++) {
        h = ngx_list_push(&r->headers_out.headers);
        if (h == NULL) {
            return NGX_ERROR;
        }

        *h = headers[i];

        if (h->key.len == sizeof("content-encoding") - 1
            && ngx_strncmp(h->lowcase_key, "content-encoding",
                           sizeof("content-encoding") - 1)
               == 0)
        {
            r->headers_out.content_encoding = h;
        }
    }

    if (a->complete && length >= 0
        && ngx_http_ai_router_meter(r, ctx) != NGX_OK)
    {
        /* a header may tell what it has cost */
        return NGX_ERROR;
    }

    if (x->api->add_headers(r, ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_send_header(r) == NGX_ERROR) {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_http_ai_exec_timer(ngx_event_t *ev)
{
    ngx_msec_t                 wait;
    ngx_connection_t          *c;
    ngx_http_ai_exec_t        *x;
    ngx_http_ai_attempt_t     *a;
    ngx_http_ai_candidate_t   *cand;
    ngx_http_ai_timer_data_t  *data;

    data = ev->data;
    x = data->data;
    c = x->request->connection;

    ngx_http_set_log_request(c->log, x->request);

    if (x->gone && !x->kept) {
        ngx_http_ai_exec_finish(x, NGX_HTTP_CLIENT_CLOSED_REQUEST);

    } else if (x->hedging) {
        x->hedging = 0;
        x->hedged = 1;

        if (x->running == 1 && !x->committed) {
            wait = 0;

            if (ngx_http_ai_plan_next(x, NULL, &cand, &wait)
                == NGX_HTTP_AI_NEXT_START
                && !cand->target->provider->is_static
                && ngx_http_ai_exec_start(x, cand, &a) == NGX_ERROR)
            {
                ngx_http_ai_exec_finish(x, NGX_HTTP_INTERNAL_SERVER_ERROR);
            }
        }

    } else if (x->backoff) {
        x->backoff = 0;
        cand = &x->candidates[x->current];

        if (cand->skip) {
            /* its provider was switched off meanwhile */
            ngx_http_ai_exec_advance(x, NULL);
            ngx_http_run_posted_requests(c);
            return;
        }

        switch (ngx_http_ai_exec_start(x, cand, &a)) {

        case NGX_OK:
            break;

        case NGX_DECLINED:
            x->error = a->error;
            x->error_same = 0;
            ngx_http_ai_exec_advance(x, a);
            break;

        default: /* NGX_ERROR */
            ngx_http_ai_exec_finish(x, NGX_HTTP_INTERNAL_SERVER_ERROR);
        }
    }

    ngx_http_run_posted_requests(c);
}


static void
ngx_http_ai_exec_cleanup(void *data)
{
    ngx_http_ai_exec_t *x = data;

    ngx_uint_t              i;
    ngx_http_ai_attempt_t  *a;

    x->done = 1;
    ngx_http_ai_exec_over(x);

    if (x->timer.timer_set) {
        ngx_del_timer(&x->timer);
    }

    for (i = 0; i < x->nattempts; i++) {
        a = x->attempts[i];

        ngx_http_ai_attempt_del_timer(a);

        if (a->entered) {
            a->entered = 0;
            ngx_http_ai_health_leave(a->provider->health);
        }

        if (!a->handled) {
            a->handled = 1;
            ngx_http_ai_exec_learn(x, a);
        }
    }
}
