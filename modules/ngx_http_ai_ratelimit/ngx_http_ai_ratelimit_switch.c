
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Switches: requests that are refused, sent elsewhere or ended because of a
 * record of switches.json.
 */


#include "ngx_http_ai_ratelimit_switch.h"


/* how often a worker looks whether running requests are concerned, ms */
#define NGX_HTTP_AI_SWITCH_TICK  100


static ngx_http_ai_switch_t *ngx_http_ai_switch_find(
    ngx_http_ai_ratelimit_main_conf_t *rmcf, ngx_http_ai_switches_t *switches,
    ngx_http_ai_ctx_t *ctx, ngx_uint_t scopes, ngx_uint_t actions,
    ngx_str_t *name);
static ngx_uint_t ngx_http_ai_switch_feature(
    ngx_http_ai_ratelimit_main_conf_t *rmcf, ngx_http_ai_ctx_t *ctx,
    ngx_uint_t feature);
static ngx_uint_t ngx_http_ai_switch_member(ngx_http_ai_ctx_t *ctx,
    const char *name, size_t len);
static ngx_int_t ngx_http_ai_switch_note(ngx_pool_t *pool,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_switch_t *sw);
static ngx_int_t ngx_http_ai_switch_say(ngx_pool_t *pool,
    ngx_http_ai_switch_t *sw, ngx_http_ai_error_t *err);
static ngx_int_t ngx_http_ai_switch_refuse(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_switch_t *sw);
static ngx_int_t ngx_http_ai_switch_reroute(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_switch_t *sw);
static void ngx_http_ai_switch_timer(ngx_event_t *ev);
static ngx_uint_t ngx_http_ai_switch_cut(
    ngx_http_ai_ratelimit_main_conf_t *rmcf, ngx_http_ai_switches_t *switches,
    ngx_http_ai_ctx_t *ctx);


#define ngx_http_ai_scope_bit(s)   ((ngx_uint_t) 1 << NGX_HTTP_AI_SCOPE_##s)
#define ngx_http_ai_action_bit(a)  ((ngx_uint_t) 1 << NGX_HTTP_AI_ACTION_##a)

#define NGX_HTTP_AI_ACTIONS_REFUSE                                            \
    (ngx_http_ai_action_bit(DENY)|ngx_http_ai_action_bit(DRAIN)               \
     |ngx_http_ai_action_bit(CUT))

/* those of the caller */
#define NGX_HTTP_AI_SCOPES_WHO                                                \
    (ngx_http_ai_scope_bit(ALL)|ngx_http_ai_scope_bit(TENANT)                 \
     |ngx_http_ai_scope_bit(KEY))


static ngx_queue_t  ngx_http_ai_switch_running;
static ngx_event_t  ngx_http_ai_switch_event;
static uint64_t     ngx_http_ai_switch_walked;

static struct {
    void          *data;
    void          *reserved[2];
    ngx_socket_t   fd;
} ngx_http_ai_switch_data;


ngx_int_t
ngx_http_ai_switch_start(ngx_cycle_t *cycle,
    ngx_http_ai_ratelimit_main_conf_t *rmcf)
{
    ngx_queue_init(&ngx_http_ai_switch_running);

    ngx_http_ai_switch_data.data = rmcf;
    ngx_http_ai_switch_data.fd = (ngx_socket_t) -1;

    ngx_http_ai_switch_event.data = &ngx_http_ai_switch_data;
    ngx_http_ai_switch_event.handler = ngx_http_ai_switch_timer;
    ngx_http_ai_switch_event.log = cycle->log;
    ngx_http_ai_switch_event.cancelable = 1;

    ngx_add_timer(&ngx_http_ai_switch_event, NGX_HTTP_AI_SWITCH_TICK);

    return NGX_OK;
}


/* before the router's: who calls, and what for */

ngx_int_t
ngx_http_ai_switch_resolve(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    ngx_http_ai_switch_t               *sw;
    ngx_http_ai_switches_t             *switches;
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    rmcf = ngx_http_get_module_main_conf(r, ngx_http_ai_ratelimit_module);

    switches = ngx_http_ai_switches_current(rmcf);
    if (switches == NULL) {
        return NGX_ERROR;
    }

    if (!ctx->listed) {
        ctx->listed = 1;
        ngx_queue_insert_tail(&ngx_http_ai_switch_running, &ctx->running);
    }

    if (switches->scopes == 0) {
        return NGX_DECLINED;
    }

    sw = ngx_http_ai_switch_find(rmcf, switches, ctx, NGX_HTTP_AI_SCOPES_WHO,
                                 NGX_HTTP_AI_ACTIONS_REFUSE, NULL);
    if (sw) {
        return ngx_http_ai_switch_refuse(r, ctx, sw);
    }

    if (ctx->op == NGX_HTTP_AI_OP_PASS || ctx->op == NGX_HTTP_AI_OP_MODELS
        || ctx->op == NGX_HTTP_AI_OP_MODEL)
    {
        /* it has no model that could be another one */
        return NGX_DECLINED;
    }

    sw = ngx_http_ai_switch_find(rmcf, switches, ctx,
                                 NGX_HTTP_AI_SCOPES_WHO
                                 |ngx_http_ai_scope_bit(FEATURE),
                                 ngx_http_ai_action_bit(REROUTE), NULL);

    if (sw && ngx_http_ai_switch_reroute(r, ctx, sw) != NGX_OK) {
        return NGX_ERROR;
    }

    return NGX_DECLINED;
}


/* after it: what is asked for */

ngx_int_t
ngx_http_ai_switch_authorize(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    ngx_http_ai_switch_t               *sw;
    ngx_http_ai_switches_t             *switches;
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    rmcf = ngx_http_get_module_main_conf(r, ngx_http_ai_ratelimit_module);

    switches = ngx_http_ai_switches_current(rmcf);
    if (switches == NULL) {
        return NGX_ERROR;
    }

    if (switches->scopes == 0) {
        return NGX_DECLINED;
    }

    sw = ngx_http_ai_switch_find(rmcf, switches, ctx,
                                 ngx_http_ai_scope_bit(FEATURE),
                                 NGX_HTTP_AI_ACTIONS_REFUSE, NULL);

    return sw ? ngx_http_ai_switch_refuse(r, ctx, sw) : NGX_DECLINED;
}


/* models and providers */

ngx_int_t
ngx_http_ai_switch_permit(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_route_t *route, ngx_http_ai_error_t *err)
{
    ngx_str_t                          *name;
    ngx_uint_t                          scope, asked;
    ngx_http_ai_switch_t               *sw;
    ngx_http_ai_switches_t             *switches;
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    rmcf = ngx_http_get_module_main_conf(r, ngx_http_ai_ratelimit_module);

    switches = ngx_http_ai_switches_current(rmcf);
    if (switches == NULL) {
        return NGX_ERROR;
    }

    if (route->provider.len) {
        scope = ngx_http_ai_scope_bit(PROVIDER);
        name = &route->provider;

    } else {
        scope = ngx_http_ai_scope_bit(MODEL);
        name = &route->model;
    }

    if (!(switches->scopes & scope)) {
        return NGX_OK;
    }

    /* or it is just to be shown in a list */

    asked = (ctx->model.len == route->model.len
             && ngx_strncmp(ctx->model.data, route->model.data,
                            route->model.len)
                == 0
             && ctx->op != NGX_HTTP_AI_OP_MODELS
             && ctx->op != NGX_HTTP_AI_OP_MODEL);

    sw = ngx_http_ai_switch_find(rmcf, switches, ctx, scope,
                                 NGX_HTTP_AI_ACTIONS_REFUSE, name);

    if (sw == NULL) {

        if (!asked || ctx->reroute.len || ctx->op == NGX_HTTP_AI_OP_PASS) {
            return NGX_OK;
        }

        sw = ngx_http_ai_switch_find(rmcf, switches, ctx, scope,
                                     ngx_http_ai_action_bit(REROUTE), name);
        if (sw == NULL) {
            return NGX_OK;
        }

        if (ngx_http_ai_switch_reroute(r, ctx, sw) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (asked && ngx_http_ai_switch_note(r->pool, ctx, sw) != NGX_OK) {
        return NGX_ERROR;
    }

    if (err && ngx_http_ai_switch_say(r->pool, sw, err) != NGX_OK) {
        return NGX_ERROR;
    }

    return NGX_DECLINED;
}


ngx_int_t
ngx_http_ai_switch_settle(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    if (ctx->listed) {
        ctx->listed = 0;
        ngx_queue_remove(&ctx->running);
    }

    return NGX_DECLINED;
}


/*
 * The first one that concerns the request.  Scopes of a model or provider are
 * looked at with its name only.
 */

static ngx_http_ai_switch_t *
ngx_http_ai_switch_find(ngx_http_ai_ratelimit_main_conf_t *rmcf,
    ngx_http_ai_switches_t *switches, ngx_http_ai_ctx_t *ctx,
    ngx_uint_t scopes, ngx_uint_t actions, ngx_str_t *name)
{
    time_t                    now;
    ngx_str_t                *value;
    ngx_uint_t                i;
    ngx_http_ai_switch_t     *sw;
    ngx_http_ai_principal_t  *principal;

    if (!(switches->scopes & scopes)) {
        return NULL;
    }

    now = ngx_time();
    principal = ctx->principal;
    sw = switches->list.elts;

    for (i = 0; i < switches->list.nelts; i++) {

        if (!(scopes & ((ngx_uint_t) 1 << sw[i].scope))
            || !(actions & ((ngx_uint_t) 1 << sw[i].action))
            || (sw[i].until && sw[i].until <= (int64_t) now))
        {
            continue;
        }

        switch (sw[i].scope) {

        case NGX_HTTP_AI_SCOPE_ALL:
            return &sw[i];

        case NGX_HTTP_AI_SCOPE_TENANT:
            value = principal ? &principal->tenant : NULL;
            break;

        case NGX_HTTP_AI_SCOPE_KEY:
            value = principal ? &principal->key_id : NULL;
            break;

        case NGX_HTTP_AI_SCOPE_FEATURE:

            if (ngx_http_ai_switch_feature(rmcf, ctx, sw[i].feature)) {
                return &sw[i];
            }

            value = NULL;
            break;

        default:
            value = name;
        }

        if (value && value->len
            && ngx_http_ai_price_match(&sw[i].name, value))
        {
            return &sw[i];
        }
    }

    return NULL;
}


static ngx_uint_t
ngx_http_ai_switch_feature(ngx_http_ai_ratelimit_main_conf_t *rmcf,
    ngx_http_ai_ctx_t *ctx, ngx_uint_t feature)
{
    static ngx_http_ai_op_e  ops[] = {
        NGX_HTTP_AI_OP_CHAT, NGX_HTTP_AI_OP_COMPLETIONS,
        NGX_HTTP_AI_OP_EMBEDDINGS, NGX_HTTP_AI_OP_COUNT_TOKENS,
        NGX_HTTP_AI_OP_MODELS, NGX_HTTP_AI_OP_PASS
    };

    switch (feature) {

    case NGX_HTTP_AI_FEATURE_STREAM:
        return ctx->stream;

    case NGX_HTTP_AI_FEATURE_TOOLS:
        return ngx_http_ai_switch_member(ctx, "tools", 5)
               || ngx_http_ai_switch_member(ctx, "functions", 9);

    case NGX_HTTP_AI_FEATURE_IMAGES:
        return rmcf->api->images(ctx) > 0;

    case NGX_HTTP_AI_FEATURE_AUDIO:
        return ngx_http_ai_switch_member(ctx, "audio", 5);

    case NGX_HTTP_AI_FEATURE_MODELS:
        return ctx->op == NGX_HTTP_AI_OP_MODELS
               || ctx->op == NGX_HTTP_AI_OP_MODEL;

    default:
        return ctx->op == ops[feature - NGX_HTTP_AI_FEATURE_CHAT];
    }
}


/* a member of the request that is not empty */

static ngx_uint_t
ngx_http_ai_switch_member(ngx_http_ai_ctx_t *ctx, const char *name, size_t len)
{
    ngx_str_t   raw;
    ngx_uint_t  n;

    if (!ctx->parsed) {
        return 0;
    }

    n = ngx_http_ai_json_get(&ctx->json, 0, name, len);

    if (ngx_http_ai_json_type(&ctx->json, n) < NGX_HTTP_AI_JSON_ARRAY) {
        return 0;
    }

    raw = ngx_http_ai_json_raw(&ctx->json, n);

    return ngx_http_ai_json_skip_space(raw.data + 1, raw.data + raw.len)
           < raw.data + raw.len - 1;
}


/* $ai_switch: "tenant:acme/deny" */

static ngx_int_t
ngx_http_ai_switch_note(ngx_pool_t *pool, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_switch_t *sw)
{
    u_char     *p;
    ngx_str_t  *scope, *action;

    scope = &ngx_http_ai_scope_names[sw->scope];
    action = &ngx_http_ai_action_names[sw->action];

    p = ngx_pnalloc(pool, scope->len + 1 + sw->name.len + 1 + action->len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ctx->switched.data = p;

    p = ngx_cpymem(p, scope->data, scope->len);

    if (sw->name.len) {
        *p++ = ':';
        p = ngx_cpymem(p, sw->name.data, sw->name.len);
    }

    *p++ = '/';
    p = ngx_cpymem(p, action->data, action->len);

    ctx->switched.len = p - ctx->switched.data;

    return NGX_OK;
}


/* what the client is told; with a null character at its end */

static ngx_int_t
ngx_http_ai_switch_say(ngx_pool_t *pool, ngx_http_ai_switch_t *sw,
    ngx_http_ai_error_t *err)
{
    u_char      *p;
    ngx_str_t    text;
    ngx_uint_t   status;

    ngx_memzero(err, sizeof(ngx_http_ai_error_t));

    status = sw->status;

    if (status == 0) {
        status = (sw->action == NGX_HTTP_AI_ACTION_DENY)
                 ? NGX_HTTP_FORBIDDEN : NGX_HTTP_SERVICE_UNAVAILABLE;
    }

    text = sw->text;

    if (text.len == 0) {

        if (sw->action == NGX_HTTP_AI_ACTION_DENY) {
            ngx_str_set(&text, "This is switched off by the operator of the "
                               "gateway.");
        } else {
            ngx_str_set(&text, "This is switched off for now by the operator "
                               "of the gateway, try again later.");
        }
    }

    p = ngx_pnalloc(pool, text.len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    *ngx_cpymem(p, text.data, text.len) = '\0';

    err->status = status;
    err->message.data = p;
    err->message.len = text.len;

    switch (status) {

    case NGX_HTTP_BAD_REQUEST:
        err->class = NGX_HTTP_AI_ERR_INVALID_REQUEST;
        break;

    case 402:
        err->class = NGX_HTTP_AI_ERR_BILLING;
        break;

    case NGX_HTTP_NOT_FOUND:
        err->class = NGX_HTTP_AI_ERR_NOT_FOUND;
        break;

    case NGX_HTTP_TOO_MANY_REQUESTS:
        err->class = NGX_HTTP_AI_ERR_RATE_LIMIT;
        break;

    default:
        err->class = (status < 500) ? NGX_HTTP_AI_ERR_PERMISSION
                                    : NGX_HTTP_AI_ERR_OVERLOADED;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_switch_refuse(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_switch_t *sw)
{
    int64_t                             wait;
    ngx_http_ai_error_t                 err;
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    rmcf = ngx_http_get_module_main_conf(r, ngx_http_ai_ratelimit_module);

    if (ngx_http_ai_switch_note(r->pool, ctx, sw) != NGX_OK
        || ngx_http_ai_switch_say(r->pool, sw, &err) != NGX_OK)
    {
        return NGX_ERROR;
    }

    wait = -1;

    if (sw->until && (err.status >= 500
                      || err.status == NGX_HTTP_TOO_MANY_REQUESTS))
    {
        wait = ngx_max((sw->until - (int64_t) ngx_time()) * 1000, 1000);
    }

    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                  "ai ratelimit: refused by the switch \"%V\"",
                  &ctx->switched);

    ctx->rc = rmcf->api->send_error(r, ctx, &err, wait, 0);

    return NGX_DONE;
}


static ngx_int_t
ngx_http_ai_switch_reroute(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_switch_t *sw)
{
    if (ngx_http_ai_switch_note(r->pool, ctx, sw) != NGX_OK) {
        return NGX_ERROR;
    }

    ctx->reroute.data = ngx_pstrdup(r->pool, &sw->model);
    if (ctx->reroute.data == NULL) {
        return NGX_ERROR;
    }

    ctx->reroute.len = sw->model.len;

    return NGX_OK;
}


/*
 * Once for a generation.  A request that waits for something else than its
 * provider is looked at again.
 */

static void
ngx_http_ai_switch_timer(ngx_event_t *ev)
{
    uint64_t                            generation;
    ngx_uint_t                          again;
    ngx_queue_t                         left, *q;
    ngx_http_ai_ctx_t                  *ctx;
    ngx_http_ai_switches_t             *switches;
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    rmcf = ngx_http_ai_switch_data.data;

    ngx_add_timer(ev, NGX_HTTP_AI_SWITCH_TICK);

    generation = rmcf->api->data_generation(rmcf->switch_data);

    if (generation == ngx_http_ai_switch_walked) {
        return;
    }

    switches = ngx_http_ai_switches_current(rmcf);
    if (switches == NULL) {
        return;
    }

    again = 0;

    if (switches->scopes && !ngx_queue_empty(&ngx_http_ai_switch_running)) {

        /* the end of one may be that of others, so each is taken by itself */

        left = ngx_http_ai_switch_running;
        left.next->prev = &left;
        left.prev->next = &left;

        ngx_queue_init(&ngx_http_ai_switch_running);

        while (!ngx_queue_empty(&left)) {
            q = ngx_queue_head(&left);

            ngx_queue_remove(q);
            ngx_queue_insert_tail(&ngx_http_ai_switch_running, q);

            ctx = ngx_queue_data(q, ngx_http_ai_ctx_t, running);

            again |= ngx_http_ai_switch_cut(rmcf, switches, ctx);
        }
    }

    if (!again) {
        ngx_http_ai_switch_walked = switches->generation;
    }
}


/* 1: it is not yet at a place where it can be ended */

static ngx_uint_t
ngx_http_ai_switch_cut(ngx_http_ai_ratelimit_main_conf_t *rmcf,
    ngx_http_ai_switches_t *switches, ngx_http_ai_ctx_t *ctx)
{
    time_t                 now;
    ngx_uint_t             i, cut;
    ngx_connection_t      *c;
    ngx_http_request_t    *r;
    ngx_http_ai_error_t    err;
    ngx_http_ai_switch_t  *sw;

    cut = ngx_http_ai_action_bit(CUT);
    r = ctx->request;
    c = r->connection;

    sw = ngx_http_ai_switch_find(rmcf, switches, ctx,
                                 NGX_HTTP_AI_SCOPES_WHO
                                 |ngx_http_ai_scope_bit(FEATURE), cut, NULL);

    if (sw == NULL && ctx->model.len) {
        sw = ngx_http_ai_switch_find(rmcf, switches, ctx,
                                     ngx_http_ai_scope_bit(MODEL), cut,
                                     &ctx->model);
    }

    if (sw == NULL && !(switches->scopes & ngx_http_ai_scope_bit(PROVIDER))) {
        return 0;
    }

    if (ctx->end == NULL) {
        return 1;
    }

    ngx_http_set_log_request(c->log, r);

    if (sw) {
        if (ngx_http_ai_switch_note(r->pool, ctx, sw) != NGX_OK
            || ngx_http_ai_switch_say(r->pool, sw, &err) != NGX_OK)
        {
            return 1;
        }

        ctx->end(r, ctx, NULL, &err);

        ngx_http_run_posted_requests(c);

        return 0;
    }

    now = ngx_time();
    sw = switches->list.elts;

    for (i = 0; i < switches->list.nelts; i++) {

        if (sw[i].scope != NGX_HTTP_AI_SCOPE_PROVIDER
            || sw[i].action != NGX_HTTP_AI_ACTION_CUT
            || (sw[i].until && sw[i].until <= (int64_t) now))
        {
            continue;
        }

        if (ngx_http_ai_switch_say(r->pool, &sw[i], &err) != NGX_OK) {
            return 1;
        }

        if (ctx->end(r, ctx, &sw[i].name, &err) == NGX_DONE) {

            /* the request may be gone */

            ngx_http_run_posted_requests(c);

            return 0;
        }
    }

    ngx_http_run_posted_requests(c);

    return 0;
}


ngx_int_t
ngx_http_ai_switch_raises(ngx_http_ai_ratelimit_main_conf_t *rmcf,
    ngx_pool_t *pool, ngx_http_ai_ticket_t *t)
{
    ngx_uint_t               i, k;
    ngx_http_ai_limit_t     *limit;
    ngx_http_ai_switch_t    *sw;
    ngx_http_ai_quantity_t  *raise;
    ngx_http_ai_switches_t  *switches;

    switches = ngx_http_ai_switches_current(rmcf);

    if (switches == NULL
        || !(switches->scopes & ngx_http_ai_scope_bit(ZONE)))
    {
        return NGX_OK;
    }

    sw = switches->list.elts;

    for (i = 0; i < switches->list.nelts; i++) {

        if (sw[i].scope != NGX_HTTP_AI_SCOPE_ZONE
            || (sw[i].until && sw[i].until <= (int64_t) ngx_time())
            || sw[i].name.len != t->zone->name.len
            || ngx_strncmp(sw[i].name.data, t->zone->name.data,
                           sw[i].name.len)
               != 0
            || !ngx_http_ai_price_match(&sw[i].key, &t->key))
        {
            continue;
        }

        if (ngx_http_ai_ticket_own(pool, t) != NGX_OK) {
            return NGX_ERROR;
        }

        for (k = 0; k < NGX_HTTP_AI_METER_MAX; k++) {
            raise = &sw[i].raise[k];
            limit = &t->limits[k];

            if (raise->n < 0 || limit->limit < 0 || raise->n <= limit->limit)
            {
                continue;
            }

            if (raise->unit != NGX_ERROR
                && (ngx_uint_t) raise->unit != t->units[k])
            {
                /* of a variable, with another unit */
                continue;
            }

            if (limit->burst) {
                limit->burst = raise->n - limit->limit + limit->burst;
            }

            limit->limit = raise->n;
        }
    }

    return NGX_OK;
}
