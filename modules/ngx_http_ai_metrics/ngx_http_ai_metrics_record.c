
/*
 * Copyright (C) nginx AI gateway authors
 */


/* what a request adds to the counters: at its end, once */


#include "ngx_http_ai_metrics.h"
#include "ngx_http_ai_trace.h"


/* an exemplar is replaced by one that is so much younger, ms */
#define NGX_HTTP_AI_METRICS_EXEMPLAR  1000


static void ngx_http_ai_metrics_attempt(ngx_http_ai_metrics_main_conf_t *mcf,
    ngx_http_ai_ctx_t *ctx, ngx_str_t *model, ngx_http_ai_try_t *t,
    ngx_msec_t duration);
static ngx_http_ai_outcome_e ngx_http_ai_metrics_outcome(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);
static void ngx_http_ai_metrics_add(uint64_t *cell, int64_t n,
    ngx_uint_t own);
static ngx_http_ai_exemplars_t *ngx_http_ai_metrics_exemplars(
    ngx_http_ai_metrics_main_conf_t *mcf, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_series_t *s);
static void ngx_http_ai_metrics_exemplar(ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_exemplar_t *e, uint64_t value);
static void ngx_http_ai_metrics_callers_add(
    ngx_http_ai_metrics_main_conf_t *mcf, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_outcome_e outcome, int64_t *tokens);
static void ngx_http_ai_metrics_caller_add(
    ngx_http_ai_metrics_main_conf_t *mcf, ngx_http_ai_metrics_kind_e kind,
    ngx_str_t *name, ngx_http_ai_ctx_t *ctx, ngx_http_ai_outcome_e outcome,
    int64_t *tokens);
static ngx_http_ai_metrics_found_t *ngx_http_ai_metrics_miss(
    ngx_http_ai_metrics_main_conf_t *mcf, ngx_http_ai_metrics_found_t *cache,
    ngx_http_ai_metrics_kind_e kind, ngx_str_t *model, ngx_str_t *provider,
    ngx_uint_t op, ngx_str_t *target);
static ngx_http_ai_series_t *ngx_http_ai_metrics_series(
    ngx_http_ai_metrics_main_conf_t *mcf, ngx_http_ai_metrics_kind_e kind,
    ngx_str_t *names);
static ngx_str_t *ngx_http_ai_metrics_model(ngx_http_ai_ctx_t *ctx);


static ngx_str_t  ngx_http_ai_metrics_none = ngx_string("none");
static ngx_str_t  ngx_http_ai_metrics_empty = ngx_string("");


#define ngx_http_ai_metrics_slot(model, provider, op)                         \
    ((((uint64_t) (uintptr_t) (model)->data                                   \
       ^ ((uint64_t) (uintptr_t) (provider)->data << 7)                       \
       ^ ((uint64_t) (op) << 15))                                             \
      * 0x9e3779b97f4a7c15ULL >> 32) % NGX_HTTP_AI_METRICS_CACHE)


/*
 * Names of the configuration are at one address as long as it lives, and so
 * are the few others that are used here.  op: of attempts, that of the
 * target's name.
 */

static ngx_inline ngx_http_ai_metrics_found_t *
ngx_http_ai_metrics_lookup(ngx_http_ai_metrics_main_conf_t *mcf,
    ngx_http_ai_metrics_found_t *cache, ngx_http_ai_metrics_kind_e kind,
    ngx_str_t *model, ngx_str_t *provider, ngx_uint_t op, ngx_str_t *target)
{
    ngx_http_ai_metrics_found_t  *f;

    f = &cache[ngx_http_ai_metrics_slot(model, provider, op)];

    if (f->names[0] == model->data && f->names[1] == provider->data
        && f->op == op)
    {
        return f;
    }

    return ngx_http_ai_metrics_miss(mcf, cache, kind, model, provider, op,
                                    target);
}


ngx_int_t
ngx_http_ai_metrics_begin(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    ngx_http_ai_metrics_found_t      *f;
    ngx_http_ai_metrics_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(r, ngx_http_ai_metrics_module);

    if (mcf->requests == NULL) {
        /* without a master, a reload starts no worker */
        ngx_http_ai_metrics_start(mcf);
    }

    if (mcf->process == NULL || ctx->active) {
        return NGX_DECLINED;
    }

    f = ngx_http_ai_metrics_lookup(mcf, mcf->models, NGX_HTTP_AI_METRICS_MODEL,
                                   ngx_http_ai_metrics_model(ctx),
                                   &ngx_http_ai_metrics_empty, 0, NULL);

    ctx->active = f->series->index + 1;
    mcf->process->running[f->series->index]++;

    if (ctx->stream) {
        mcf->process->streams[f->series->index]++;
    }

    return NGX_DECLINED;
}


ngx_int_t
ngx_http_ai_metrics_settle(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    int64_t                           tokens[NGX_HTTP_AI_TOKEN_MAX];
    uint64_t                          value;
    ngx_str_t                        *model, *provider;
    ngx_msec_t                        now, end, until, busy, duration;
    ngx_uint_t                        i, n, own;
    ngx_http_ai_try_t                 t;
    ngx_http_ai_outcome_e             outcome;
    ngx_http_ai_exemplars_t          *ex;
    ngx_http_ai_metrics_found_t      *f;
    ngx_http_ai_request_cells_t      *cells;
    ngx_http_ai_metrics_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(r, ngx_http_ai_metrics_module);

    if (mcf->requests == NULL) {
        ngx_http_ai_metrics_start(mcf);

        if (mcf->requests == NULL) {
            return NGX_DECLINED;
        }
    }

    if (mcf->shard == 0 && mcf->looked != ngx_time()) {
        ngx_http_ai_metrics_shard(mcf);
    }

    own = (mcf->shard != 0);
    now = ngx_current_msec;
    model = ngx_http_ai_metrics_model(ctx);

    if (ctx->active && mcf->process) {
        mcf->process->running[ctx->active - 1]--;

        if (ctx->stream) {
            mcf->process->streams[ctx->active - 1]--;
        }

        ctx->active = 0;
    }

    provider = &ctx->provider;
    until = ctx->start;
    busy = 0;
    n = 0;

    if (ctx->attempt) {

        for ( /* void */ ; ctx->attempt(ctx, n, &t) == NGX_OK; n++) {
            duration = (t.duration < 0) ? now - t.start
                                        : (ngx_msec_t) t.duration;
            end = t.start + duration;

            /* two at once, of a hedge, are counted once */

            if ((ngx_msec_int_t) (end - until) > 0) {
                busy += end - (((ngx_msec_int_t) (t.start - until) > 0)
                               ? t.start : until);
                until = end;
            }

            ngx_http_ai_metrics_attempt(mcf, ctx, model, &t, duration);
        }

        if (provider->len == 0 && n) {
            provider = &t.provider;
        }
    }

    if (provider->len == 0) {
        provider = &ngx_http_ai_metrics_none;
    }

    f = ngx_http_ai_metrics_lookup(mcf, mcf->requests,
                                   NGX_HTTP_AI_METRICS_REQUEST, model,
                                   provider, ctx->op, NULL);
    cells = &f->cells->request;

    outcome = ngx_http_ai_metrics_outcome(r, ctx);

    ngx_http_ai_cell_add(&cells->outcomes[outcome], 1, own);
    ngx_http_ai_cell_add(&cells->finishes[ctx->finish], 1, own);

    if (ctx->error != NGX_HTTP_AI_ERR_NONE) {
        ngx_http_ai_cell_add(&cells->errors[ctx->error], 1, own);
    }

    if (ctx->cached != NGX_HTTP_AI_CACHE_NONE) {
        ngx_http_ai_cell_add(&cells->cached[ctx->cached], 1, own);
    }

    ngx_http_ai_metrics_add(&cells->streams, ctx->stream, own);
    ngx_http_ai_metrics_add(&cells->fallbacks, ctx->fallback, own);
    ngx_http_ai_metrics_add(&cells->recovered, ctx->recovered, own);

    ngx_memzero(tokens, sizeof(tokens));

    /* no provider has made what the cache has repeated */

    if (ctx->cached < NGX_HTTP_AI_CACHE_HIT
        && ctx->usage_state != NGX_HTTP_AI_USAGE_NONE)
    {
        tokens[NGX_HTTP_AI_TOKEN_INPUT] = ngx_http_ai_usage_input(&ctx->usage);
        tokens[NGX_HTTP_AI_TOKEN_OUTPUT] = ctx->usage.out;
        tokens[NGX_HTTP_AI_TOKEN_CACHE_READ] = ctx->usage.cache_read;
        tokens[NGX_HTTP_AI_TOKEN_CACHE_WRITE] = ctx->usage.cache_write;
        tokens[NGX_HTTP_AI_TOKEN_REASONING] = ctx->usage.reasoning;

        for (i = 0; i < NGX_HTTP_AI_TOKEN_MAX; i++) {
            ngx_http_ai_metrics_add(&cells->tokens[i], tokens[i], own);
        }

        ngx_http_ai_cell_add(&cells->usage[ctx->usage_state], 1, own);

        ngx_http_ai_metrics_add(&cells->cost, ctx->cost, own);
        ngx_http_ai_metrics_add(&cells->unpriced, ctx->cost < 0, own);

        if (f->sizes) {
            (void) ngx_http_ai_metrics_observe(f->sizes->size.input,
                                     &ngx_http_ai_bounds_size,
                                     ngx_max(tokens[NGX_HTTP_AI_TOKEN_INPUT],
                                             0),
                                     own);
            (void) ngx_http_ai_metrics_observe(f->sizes->size.output,
                                     &ngx_http_ai_bounds_size,
                                     ngx_max(tokens[NGX_HTTP_AI_TOKEN_OUTPUT],
                                             0),
                                     own);
        }

    } else if (n) {
        ngx_http_ai_cell_add(&cells->usage[NGX_HTTP_AI_USAGE_NONE], 1, own);
    }

    if (n) {
        ex = ngx_http_ai_metrics_exemplars(mcf, ctx, f->series);
        duration = now - ctx->start;
        value = (uint64_t) duration * 1000;

        i = ngx_http_ai_metrics_observe(cells->duration,
                                        &ngx_http_ai_bounds_duration, value,
                                        own);
        if (ex) {
            ngx_http_ai_metrics_exemplar(ctx, &ex->duration[i], value);
        }

        (void) ngx_http_ai_metrics_observe(cells->overhead,
                                     &ngx_http_ai_bounds_overhead,
                                     (uint64_t) (duration
                                                 - ngx_min(busy, duration))
                                     * 1000,
                                     own);

        if (ctx->stream && ctx->ttft >= 0
            && outcome == NGX_HTTP_AI_OUTCOME_SUCCESS)
        {
            value = (uint64_t) ctx->ttft * 1000;

            i = ngx_http_ai_metrics_observe(cells->first,
                                            &ngx_http_ai_bounds_first, value,
                                            own);
            if (ex) {
                ngx_http_ai_metrics_exemplar(ctx, &ex->first[i], value);
            }

            if (ctx->usage.out > 1) {
                value = (uint64_t) (duration
                                    - ngx_min((ngx_msec_t) ctx->ttft,
                                              duration))
                        * 1000 / (uint64_t) (ctx->usage.out - 1);

                (void) ngx_http_ai_metrics_observe(cells->per_token,
                                            &ngx_http_ai_bounds_token, value,
                                            own);
            }
        }
    }

    if (mcf->tenants || mcf->keys) {
        ngx_http_ai_metrics_callers_add(mcf, ctx, outcome, tokens);
    }

    return NGX_DECLINED;
}


static void
ngx_http_ai_metrics_attempt(ngx_http_ai_metrics_main_conf_t *mcf,
    ngx_http_ai_ctx_t *ctx, ngx_str_t *model, ngx_http_ai_try_t *t,
    ngx_msec_t duration)
{
    ngx_str_t                    *name;
    ngx_uint_t                    result, own;
    ngx_http_ai_metrics_found_t  *f;
    ngx_http_ai_attempt_cells_t  *cells;

    /* a target that the request has made up has no name */

    name = t->name.len ? &t->name : &ngx_http_ai_metrics_other;

    f = ngx_http_ai_metrics_lookup(mcf, mcf->attempts,
                                   NGX_HTTP_AI_METRICS_ATTEMPT, model,
                                   &t->provider, (ngx_uint_t) name->data,
                                   name);
    cells = &f->cells->attempt;
    own = (mcf->shard != 0);

    result = t->error;

    if (result == NGX_HTTP_AI_ERR_NONE && !(t->won && ctx->complete)
        && (t->canceled || t->duration < 0))
    {
        result = NGX_HTTP_AI_ATTEMPT_CANCELED;
    }

    ngx_http_ai_cell_add(&cells->results[result], 1, own);

    (void) ngx_http_ai_metrics_observe(cells->duration,
                                       &ngx_http_ai_bounds_duration,
                                       (uint64_t) duration * 1000, own);

    if (t->first >= 0) {
        (void) ngx_http_ai_metrics_observe(cells->first,
                                           &ngx_http_ai_bounds_first,
                                           (uint64_t) t->first * 1000, own);
    }
}


static ngx_http_ai_outcome_e
ngx_http_ai_metrics_outcome(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    ngx_connection_t  *c;

    c = r->connection;

    switch (ctx->error) {

    case NGX_HTTP_AI_ERR_NONE:

        if (ctx->complete) {
            return NGX_HTTP_AI_OUTCOME_SUCCESS;
        }

        if (c->error || c->timedout) {
            return NGX_HTTP_AI_OUTCOME_CANCELED;
        }

        if (r->headers_out.status >= NGX_HTTP_INTERNAL_SERVER_ERROR) {
            return NGX_HTTP_AI_OUTCOME_ERROR;
        }

        return (r->headers_out.status >= NGX_HTTP_BAD_REQUEST)
               ? NGX_HTTP_AI_OUTCOME_INVALID : NGX_HTTP_AI_OUTCOME_SUCCESS;

    case NGX_HTTP_AI_ERR_INVALID_REQUEST:
    case NGX_HTTP_AI_ERR_CONTEXT_LENGTH:
    case NGX_HTTP_AI_ERR_TOO_LARGE:
    case NGX_HTTP_AI_ERR_CONTENT_FILTER:
    case NGX_HTTP_AI_ERR_NOT_FOUND:
    case NGX_HTTP_AI_ERR_METHOD:
    case NGX_HTTP_AI_ERR_MEDIA_TYPE:
        return NGX_HTTP_AI_OUTCOME_INVALID;

    case NGX_HTTP_AI_ERR_AUTH:
    case NGX_HTTP_AI_ERR_PERMISSION:
        return ctx->routed ? NGX_HTTP_AI_OUTCOME_ERROR
                           : NGX_HTTP_AI_OUTCOME_DENIED;

    case NGX_HTTP_AI_ERR_BILLING:
    case NGX_HTTP_AI_ERR_QUOTA:
    case NGX_HTTP_AI_ERR_RATE_LIMIT:
    case NGX_HTTP_AI_ERR_SATURATED:
        return ctx->routed ? NGX_HTTP_AI_OUTCOME_ERROR
                           : NGX_HTTP_AI_OUTCOME_LIMITED;

    default:
        return NGX_HTTP_AI_OUTCOME_ERROR;
    }
}


static void
ngx_http_ai_metrics_add(uint64_t *cell, int64_t n, ngx_uint_t own)
{
    if (n > 0) {
        ngx_http_ai_cell_add(cell, (uint64_t) n, own);
    }
}


/* of a request that leaves a trace; NULL: it does not */

static ngx_http_ai_exemplars_t *
ngx_http_ai_metrics_exemplars(ngx_http_ai_metrics_main_conf_t *mcf,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_series_t *s)
{
    ngx_http_ai_trace_t  *t;

    t = ctx->trace;

    if (t == NULL || !t->sampled) {
        return NULL;
    }

    if (s->exemplars == NULL) {
        ngx_shmtx_lock(&mcf->shpool->mutex);

        ngx_http_ai_metrics_exemplify(mcf->store, s);

        ngx_shmtx_unlock(&mcf->shpool->mutex);
    }

    return s->exemplars;
}


static void
ngx_http_ai_metrics_exemplar(ngx_http_ai_ctx_t *ctx, ngx_http_ai_exemplar_t *e,
    uint64_t value)
{
    uint64_t              now;
    ngx_time_t           *tp;
    ngx_http_ai_trace_t  *t;

    tp = ngx_timeofday();
    now = (uint64_t) tp->sec * 1000 + tp->msec;

    if (now - e->time >= NGX_HTTP_AI_METRICS_EXEMPLAR) {
        t = ctx->trace;
        ngx_http_ai_exemplar_set(e, t->trace, value, now);
    }
}


static void
ngx_http_ai_metrics_callers_add(ngx_http_ai_metrics_main_conf_t *mcf,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_outcome_e outcome, int64_t *tokens)
{
    ngx_http_ai_principal_t  *pr;

    pr = ctx->principal;

    ngx_shmtx_lock(&mcf->shpool->mutex);

    if (mcf->tenants) {
        ngx_http_ai_metrics_caller_add(mcf, NGX_HTTP_AI_METRICS_TENANT,
                                       pr ? &pr->tenant : NULL, ctx, outcome,
                                       tokens);
    }

    if (mcf->keys) {
        ngx_http_ai_metrics_caller_add(mcf, NGX_HTTP_AI_METRICS_KEY,
                                       pr ? &pr->key_id : NULL, ctx, outcome,
                                       tokens);
    }

    ngx_shmtx_unlock(&mcf->shpool->mutex);
}


static void
ngx_http_ai_metrics_caller_add(ngx_http_ai_metrics_main_conf_t *mcf,
    ngx_http_ai_metrics_kind_e kind, ngx_str_t *name, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_outcome_e outcome, int64_t *tokens)
{
    ngx_uint_t                   i;
    ngx_http_ai_caller_cells_t  *cells;

    if (name == NULL || name->len == 0) {
        name = &ngx_http_ai_metrics_none;
    }

    cells = ngx_http_ai_metrics_caller(mcf->store, kind, name,
                                mcf->hints[kind - NGX_HTTP_AI_METRICS_TENANT]);

    cells->outcomes[outcome]++;

    for (i = 0; i < NGX_HTTP_AI_TOKEN_MAX; i++) {
        if (tokens[i] > 0) {
            cells->tokens[i] += tokens[i];
        }
    }

    if (ctx->cost > 0) {
        cells->cost += ctx->cost;
    }
}


static ngx_http_ai_metrics_found_t *
ngx_http_ai_metrics_miss(ngx_http_ai_metrics_main_conf_t *mcf,
    ngx_http_ai_metrics_found_t *cache, ngx_http_ai_metrics_kind_e kind,
    ngx_str_t *model, ngx_str_t *provider, ngx_uint_t op, ngx_str_t *target)
{
    ngx_str_t                     names[NGX_HTTP_AI_METRICS_NAMES];
    ngx_uint_t                    i, n;
    ngx_http_ai_series_t         *s;
    ngx_http_ai_metrics_found_t  *f, *found;

    n = ngx_http_ai_metrics_slot(model, provider, op);
    found = &cache[n];

    for (i = 0; i < 4; i++) {
        f = &cache[(n + i) % NGX_HTTP_AI_METRICS_CACHE];

        if (f->names[0] == model->data && f->names[1] == provider->data
            && f->op == op)
        {
            return f;
        }

        if (f->series == NULL) {
            found = f;
            break;
        }
    }

    names[0] = *model;
    names[1] = *provider;

    names[2] = target ? *target : *ngx_http_ai_op_name(op);

    s = ngx_http_ai_metrics_series(mcf, kind, names);

    found->names[0] = model->data;
    found->names[1] = provider->data;
    found->op = op;
    found->series = s;
    found->cells = ngx_http_ai_metrics_cells(mcf->store, s, mcf->shard);
    found->sizes = NULL;

    if (kind == NGX_HTTP_AI_METRICS_REQUEST && mcf->sizes) {
        s = ngx_http_ai_metrics_series(mcf, NGX_HTTP_AI_METRICS_SIZE, names);
        found->sizes = ngx_http_ai_metrics_cells(mcf->store, s, mcf->shard);
    }

    return found;
}


static ngx_http_ai_series_t *
ngx_http_ai_metrics_series(ngx_http_ai_metrics_main_conf_t *mcf,
    ngx_http_ai_metrics_kind_e kind, ngx_str_t *names)
{
    ngx_uint_t             full;
    ngx_http_ai_series_t  *s;

    s = ngx_http_ai_metrics_find(mcf->store, kind, names);

    if (s) {
        return s;
    }

    ngx_shmtx_lock(&mcf->shpool->mutex);

    s = ngx_http_ai_metrics_make(mcf->store, kind, names, &full);

    ngx_shmtx_unlock(&mcf->shpool->mutex);

    if (full && mcf->complained != ngx_time()) {
        mcf->complained = ngx_time();

        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "ai metrics: no memory for another series, it is "
                      "counted as \"other\": increase the size in "
                      "\"ai_metrics_zone\"");
    }

    return s;
}


static ngx_str_t *
ngx_http_ai_metrics_model(ngx_http_ai_ctx_t *ctx)
{
    if (ctx->named) {
        return &ctx->model;
    }

    return ctx->request_model.len ? &ngx_http_ai_metrics_other
                                  : &ngx_http_ai_metrics_none;
}
