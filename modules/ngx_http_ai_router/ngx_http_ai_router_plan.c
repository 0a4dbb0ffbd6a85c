
/*
 * Copyright (C) nginx AI gateway authors
 */


/* who is asked, in what order, and who is next after a failure */


#include "ngx_http_ai_router_exec.h"


/* a key that was refused is not tried again by others for so long, ms */
#define NGX_HTTP_AI_KEY_COOLDOWN       60000

/* the longest cooldown taken from a provider's word, ms */
#define NGX_HTTP_AI_MAX_COOLDOWN       300000


static ngx_int_t ngx_http_ai_plan_refuse(ngx_http_ai_exec_t *x,
    ngx_http_ai_err_e class, const char *fmt, ...);
static ngx_int_t ngx_http_ai_plan_model(ngx_http_ai_exec_t *x,
    ngx_http_ai_router_main_conf_t *amcf, ngx_str_t *name, ngx_flag_t direct);
static ngx_int_t ngx_http_ai_plan_provider(ngx_http_ai_exec_t *x,
    ngx_http_ai_router_main_conf_t *amcf, ngx_http_ai_provider_t *provider,
    ngx_str_t *model);
static ngx_int_t ngx_http_ai_plan_add(ngx_http_ai_exec_t *x,
    ngx_array_t *targets, ngx_uint_t *unsupported);
static ngx_int_t ngx_http_ai_plan_permit(ngx_http_ai_exec_t *x,
    ngx_http_ai_target_t *target);
static void ngx_http_ai_plan_shuffle(ngx_http_ai_exec_t *x, ngx_uint_t from);
static ngx_uint_t ngx_http_ai_plan_mask(ngx_http_ai_err_e class);
static ngx_uint_t ngx_http_ai_plan_other_key(ngx_http_ai_attempt_t *a);
static ngx_msec_t ngx_http_ai_plan_backoff(ngx_http_ai_exec_t *x,
    ngx_uint_t tries);
static ngx_http_ai_next_e ngx_http_ai_plan_other(ngx_http_ai_exec_t *x,
    ngx_uint_t mask, ngx_http_ai_candidate_t **candidate, ngx_msec_t *wait);


ngx_int_t
ngx_http_ai_plan(ngx_http_ai_exec_t *x, ngx_http_ai_router_loc_conf_t *arlcf)
{
    ngx_int_t                        rc;
    ngx_str_t                        name;
    ngx_uint_t                       unsupported;
    ngx_http_ai_ctx_t               *ctx;
    ngx_http_request_t              *r;
    ngx_http_ai_provider_t          *provider;
    ngx_http_ai_router_main_conf_t  *amcf;

    r = x->request;
    ctx = x->ctx;
    amcf = ngx_http_get_module_main_conf(r, ngx_http_ai_router_module);

    if (ctx->reroute.len) {
        x->rerouted = 1;
        rc = ngx_http_ai_plan_model(x, amcf, &ctx->reroute, 0);
        goto planned;
    }

    switch (arlcf->pass) {

    case NGX_HTTP_AI_PASS_PROVIDER:
        rc = ngx_http_ai_plan_provider(x, amcf, arlcf->provider,
                                       &ctx->request_model);
        break;

    case NGX_HTTP_AI_PASS_VARIABLE:

        if (ngx_http_complex_value(r, arlcf->variable, &name) != NGX_OK) {
            return NGX_ERROR;
        }

        if (ngx_http_ai_str_is(&name, "model")) {
            rc = ngx_http_ai_plan_model(x, amcf, &ctx->request_model,
                                        arlcf->direct);
            break;
        }

        x->model = ngx_http_ai_model_find(amcf, &name);

        if (x->model) {
            rc = ngx_http_ai_plan_model(x, amcf, &name, 0);
            break;
        }

        provider = ngx_http_ai_provider_find(amcf, &name);

        if (provider) {
            rc = ngx_http_ai_plan_provider(x, amcf, provider,
                                           &ctx->request_model);
            break;
        }

        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "ai router: ai_pass evaluates to \"%V\", which is "
                      "neither a model nor a provider", &name);

        return ngx_http_ai_plan_refuse(x, NGX_HTTP_AI_ERR_NOT_FOUND,
                                       "this route has no model");

    default: /* NGX_HTTP_AI_PASS_MODEL */

        if (ctx->op == NGX_HTTP_AI_OP_PASS) {
            rc = ngx_http_ai_plan_refuse(x, NGX_HTTP_AI_ERR_NOT_FOUND,
                                         "no such endpoint: %V", &r->uri);
            ngx_str_set(&x->error.code, "unknown_url");
            x->error_same = 1;

            return rc;
        }

        rc = ngx_http_ai_plan_model(x, amcf, &ctx->request_model,
                                    arlcf->direct);
    }

planned:

    if (rc == NGX_DECLINED && ctx->reroute.len && !x->rerouted) {
        x->rerouted = 1;
        ngx_memzero(&x->error, sizeof(ngx_http_ai_error_t));
        rc = ngx_http_ai_plan_model(x, amcf, &ctx->reroute, 0);
    }

    if (rc != NGX_OK) {
        return rc;
    }

    if (arlcf->fallbacks) {
        unsupported = 0;

        if (ngx_http_ai_plan_add(x, arlcf->fallbacks, &unsupported)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (x->ncandidates) {
        return NGX_OK;
    }

    if (x->error.class != NGX_HTTP_AI_ERR_NONE) {
        /* those that there are are not for the caller */
        return NGX_DECLINED;
    }

    if (x->unsupported) {
        return ngx_http_ai_plan_refuse(x, NGX_HTTP_AI_ERR_INVALID_REQUEST,
                                       "\"%V\" does not support this endpoint "
                                       "(%V)", &ctx->model,
                                       ngx_http_ai_op_name(ctx->op));
    }

    return ngx_http_ai_plan_refuse(x, NGX_HTTP_AI_ERR_NOT_FOUND,
                                   "the model \"%V\" has no target for this "
                                   "request", &ctx->model);
}


static ngx_int_t
ngx_http_ai_plan_refuse(ngx_http_ai_exec_t *x, ngx_http_ai_err_e class,
    const char *fmt, ...)
{
    u_char   buf[NGX_MAX_ERROR_STR], *p;
    va_list  args;

    va_start(args, fmt);
    p = ngx_vslprintf(buf, buf + NGX_MAX_ERROR_STR, fmt, args);
    va_end(args);

    ngx_memzero(&x->error, sizeof(ngx_http_ai_error_t));

    x->error.class = class;
    x->error.message.len = p - buf;
    x->error.message.data = ngx_pnalloc(x->request->pool, p - buf);
    if (x->error.message.data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(x->error.message.data, buf, p - buf);

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_ai_plan_model(ngx_http_ai_exec_t *x,
    ngx_http_ai_router_main_conf_t *amcf, ngx_str_t *name, ngx_flag_t direct)
{
    u_char                  *p;
    ngx_int_t                rc;
    ngx_str_t                near, prefix, model;
    ngx_uint_t               unsupported;
    ngx_http_ai_provider_t  *provider;

    x->model = ngx_http_ai_model_find(amcf, name);

    if (x->model == NULL) {

        if (direct) {
            p = ngx_strlchr(name->data, name->data + name->len, '/');

            if (p && p + 1 < name->data + name->len) {
                prefix.data = name->data;
                prefix.len = p - name->data;
                model.data = p + 1;
                model.len = name->data + name->len - model.data;

                provider = ngx_http_ai_provider_find(amcf, &prefix);

                if (provider) {
                    return ngx_http_ai_plan_provider(x, amcf, provider,
                                                     &model);
                }
            }
        }

        if (ngx_http_ai_model_near(x->request, x->ctx, amcf, name, &near)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        rc = ngx_http_ai_plan_refuse(x, NGX_HTTP_AI_ERR_NOT_FOUND,
                                     "the model \"%V\" does not exist%V",
                                     name, &near);
        ngx_str_set(&x->error.param, "model");

        return rc;
    }

    x->ctx->model = x->model->name;
    x->ctx->named = 1;

    rc = ngx_http_ai_plan_permit(x, NULL);

    if (rc != NGX_OK) {
        return rc;
    }

    unsupported = 0;

    if (ngx_http_ai_plan_add(x, &x->model->targets, &unsupported) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_ai_plan_shuffle(x, 0);

    if (ngx_http_ai_plan_add(x, &x->model->fallbacks, &unsupported)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    x->unsupported = (unsupported != 0);

    return NGX_OK;
}


/* a provider without a model of the configuration */

static ngx_int_t
ngx_http_ai_plan_provider(ngx_http_ai_exec_t *x,
    ngx_http_ai_router_main_conf_t *amcf, ngx_http_ai_provider_t *provider,
    ngx_str_t *model)
{
    ngx_int_t              rc;
    ngx_array_t            targets;
    ngx_uint_t             unsupported;
    ngx_http_ai_target_t  *target;

    x->model = amcf->defaults;
    x->ctx->model = x->ctx->request_model;
    x->ctx->named = 0;

    rc = ngx_http_ai_plan_permit(x, NULL);

    if (rc != NGX_OK) {
        return rc;
    }

    target = ngx_pcalloc(x->request->pool, sizeof(ngx_http_ai_target_t));
    if (target == NULL) {
        return NGX_ERROR;
    }

    target->provider = provider;
    target->direct = 1;
    target->model = *model;
    target->weight = 1;
    target->on = NGX_HTTP_AI_ON_DEFAULT;
    target->health = provider->health;

    target->name.len = provider->name.len + 1 + model->len;
    target->name.data = ngx_pnalloc(x->request->pool, target->name.len);
    if (target->name.data == NULL) {
        return NGX_ERROR;
    }

    (void) ngx_sprintf(target->name.data, "%V/%V", &provider->name, model);

    ngx_memzero(&targets, sizeof(ngx_array_t));
    targets.elts = target;
    targets.nelts = 1;
    targets.size = sizeof(ngx_http_ai_target_t);

    unsupported = 0;

    if (ngx_http_ai_plan_add(x, &targets, &unsupported) != NGX_OK) {
        return NGX_ERROR;
    }

    x->unsupported = (unsupported != 0);

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_plan_add(ngx_http_ai_exec_t *x, ngx_array_t *targets,
    ngx_uint_t *unsupported)
{
    ngx_int_t                 rc;
    ngx_str_t                 value;
    ngx_uint_t                i;
    ngx_http_ai_op_e          op;
    ngx_http_ai_target_t     *target;
    ngx_http_ai_dialect_t    *dialect;
    ngx_http_ai_candidate_t  *c;

    op = x->ctx->op;
    target = targets->elts;

    /* grows for the fallbacks of the location */

    c = ngx_pcalloc(x->request->pool, (x->ncandidates + targets->nelts)
                                      * sizeof(ngx_http_ai_candidate_t));
    if (c == NULL) {
        return NGX_ERROR;
    }

    if (x->ncandidates) {
        ngx_memcpy(c, x->candidates,
                   x->ncandidates * sizeof(ngx_http_ai_candidate_t));
    }

    x->candidates = c;

    for (i = 0; i < targets->nelts; i++) {

        if (target[i].cond) {
            if (ngx_http_complex_value(x->request, target[i].cond, &value)
                != NGX_OK)
            {
                return NGX_ERROR;
            }

            if (value.len == 0 || (value.len == 1 && value.data[0] == '0')) {
                continue;
            }
        }

        dialect = target[i].provider->dialect;

        if (target[i].provider->is_static) {

            if (op == NGX_HTTP_AI_OP_PASS) {
                (*unsupported)++;
                continue;
            }

        } else if (op == NGX_HTTP_AI_OP_COUNT_TOKENS) {

            /* whom nobody can ask is counted here */

        } else if (op != NGX_HTTP_AI_OP_PASS
                   && (dialect->paths[op].len == 0
                       || (dialect != x->ctx->dialect
                           && op != NGX_HTTP_AI_OP_CHAT)))
        {
            (*unsupported)++;
            continue;
        }

        rc = ngx_http_ai_plan_permit(x, &target[i]);

        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (rc == NGX_OK) {
            x->candidates[x->ncandidates++].target = &target[i];
        }
    }

    if (x->ncandidates) {
        ngx_memzero(&x->error, sizeof(ngx_http_ai_error_t));
    }

    return NGX_OK;
}


/* the model as such, or one of its targets; NGX_DECLINED: x->error says why
 * not */

static ngx_int_t
ngx_http_ai_plan_permit(ngx_http_ai_exec_t *x, ngx_http_ai_target_t *target)
{
    ngx_http_ai_route_t  route;

    route.model = x->ctx->model;

    if (target) {
        route.provider = target->provider->name;
        route.upstream = target->model.len ? target->model
                                           : x->ctx->request_model;
    } else {
        ngx_str_null(&route.provider);
        ngx_str_null(&route.upstream);
    }

    return x->api->permit(x->request, x->ctx, &route, &x->error);
}


/* order drawn by weight: each place goes to one of the rest with a chance
 * proportional to its weight */

static void
ngx_http_ai_plan_shuffle(ngx_http_ai_exec_t *x, ngx_uint_t from)
{
    ngx_uint_t               i, n, total, point;
    ngx_http_ai_candidate_t  tmp, *c;

    c = x->candidates;

    for (n = from; n + 1 < x->ncandidates; n++) {
        total = 0;

        for (i = n; i < x->ncandidates; i++) {
            total += c[i].target->weight;
        }

        if (total == 0) {
            return;
        }

        point = ngx_random() % total;

        for (i = n; i < x->ncandidates; i++) {

            if (point < c[i].target->weight) {
                tmp = c[n];
                c[n] = c[i];
                c[i] = tmp;
                break;
            }

            point -= c[i].target->weight;
        }
    }
}


static ngx_uint_t
ngx_http_ai_plan_mask(ngx_http_ai_err_e class)
{
    switch (class) {

    case NGX_HTTP_AI_ERR_CONNECT:
    case NGX_HTTP_AI_ERR_INCOMPLETE:
    case NGX_HTTP_AI_ERR_INTERNAL:
        return NGX_HTTP_AI_ON_ERROR;

    case NGX_HTTP_AI_ERR_TIMEOUT:
        return NGX_HTTP_AI_ON_TIMEOUT;

    case NGX_HTTP_AI_ERR_RATE_LIMIT:
    case NGX_HTTP_AI_ERR_QUOTA:
        return NGX_HTTP_AI_ON_429;

    case NGX_HTTP_AI_ERR_SERVER:
    case NGX_HTTP_AI_ERR_OVERLOADED:
        return NGX_HTTP_AI_ON_5XX;

    case NGX_HTTP_AI_ERR_AUTH:
    case NGX_HTTP_AI_ERR_PERMISSION:
    case NGX_HTTP_AI_ERR_BILLING:
        return NGX_HTTP_AI_ON_AUTH;

    case NGX_HTTP_AI_ERR_CONTEXT_LENGTH:
        return NGX_HTTP_AI_ON_CONTEXT;

    case NGX_HTTP_AI_ERR_CONTENT_FILTER:
        return NGX_HTTP_AI_ON_FILTER;

    case NGX_HTTP_AI_ERR_INVALID_ANSWER:
    case NGX_HTTP_AI_ERR_NOT_FOUND:
        return NGX_HTTP_AI_ON_INVALID;

    case NGX_HTTP_AI_ERR_SATURATED:
        return NGX_HTTP_AI_ON_SATURATED;

    default:
        return 0;
    }
}


ngx_http_ai_next_e
ngx_http_ai_plan_next(ngx_http_ai_exec_t *x, ngx_http_ai_attempt_t *a,
    ngx_http_ai_candidate_t **candidate, ngx_msec_t *wait)
{
    ngx_uint_t                i, mask, again;
    ngx_http_ai_next_e        next;
    ngx_http_ai_err_e         class;
    ngx_http_ai_target_t     *target;
    ngx_http_ai_candidate_t  *c;

    if (a == NULL) {
        return ngx_http_ai_plan_other(x, (ngx_uint_t) -1, candidate, wait);
    }

    if (x->nattempts == NGX_HTTP_AI_MAX_ATTEMPTS) {
        return NGX_HTTP_AI_NEXT_NONE;
    }

    c = a->candidate;
    target = c->target;
    class = a->error.class;
    mask = ngx_http_ai_plan_mask(class);
    again = 0;

    if (a->status.code >= 500) {
        /* whatever its class */
        mask |= NGX_HTTP_AI_ON_5XX;
    }

    switch (class) {

    case NGX_HTTP_AI_ERR_AUTH:
    case NGX_HTTP_AI_ERR_PERMISSION:
    case NGX_HTTP_AI_ERR_BILLING:
    case NGX_HTTP_AI_ERR_QUOTA:

        if (a->key) {
            c->keys |= (ngx_uint_t) 1 << a->key_index;

            ngx_http_ai_health_cooldown(a->key->health,
                ngx_http_ai_max(a->wait, NGX_HTTP_AI_KEY_COOLDOWN));

            if (ngx_http_ai_plan_other_key(a)) {
                c->tries--;
                *candidate = c;
                return NGX_HTTP_AI_NEXT_START;
            }
        }

        break;

    case NGX_HTTP_AI_ERR_RATE_LIMIT:

        if (a->key && a->provider->keys.nelts > 1) {
            c->keys |= (ngx_uint_t) 1 << a->key_index;

            ngx_http_ai_health_cooldown(a->key->health,
                        ngx_http_ai_min(a->wait >= 0 ? a->wait : 1000,
                                        NGX_HTTP_AI_MAX_COOLDOWN));

            if (ngx_http_ai_plan_other_key(a)) {
                c->tries--;
                *candidate = c;
                return NGX_HTTP_AI_NEXT_START;
            }

            c->keys = 0;
        }

        if (a->wait > (int64_t) x->model->wait) {

            /* not worth waiting for: others leave it alone until then */

            ngx_http_ai_health_cooldown(target->health,
                        ngx_http_ai_min(a->wait, NGX_HTTP_AI_MAX_COOLDOWN));
            break;
        }

        again = 1;
        break;

    case NGX_HTTP_AI_ERR_SERVER:
    case NGX_HTTP_AI_ERR_OVERLOADED:
    case NGX_HTTP_AI_ERR_CONNECT:
    case NGX_HTTP_AI_ERR_INCOMPLETE:
    case NGX_HTTP_AI_ERR_INVALID_ANSWER:

        again = (a->wait <= (int64_t) x->model->wait);
        break;

    case NGX_HTTP_AI_ERR_TIMEOUT:

        /* a reply that tells of one; a silent target is not asked again */
        again = (a->status.code >= 400
                 && a->wait <= (int64_t) x->model->wait);
        break;

    case NGX_HTTP_AI_ERR_CONTEXT_LENGTH:

        for (i = 0; target->context && i < x->ncandidates; i++) {
            if (x->candidates[i].target->context
                && x->candidates[i].target->context <= target->context)
            {
                x->candidates[i].skip = 1;
            }
        }

        break;

    case NGX_HTTP_AI_ERR_INVALID_REQUEST:

        if (a->prefill) {
            /* it takes no prefill: the client must not see this 400 */
            c->no_prefill = 1;
            c->tries--;
            *candidate = c;
            return NGX_HTTP_AI_NEXT_START;
        }

        if (a->local_error) {
            /* one target's dialect cannot express it, another's may */
            mask = (ngx_uint_t) -1;
        }

        break;

    default:
        break;
    }

    if (again && x->committed) {

        /* the rest of an answer is first asked of somebody else */

        next = ngx_http_ai_plan_other(x, mask, candidate, wait);

        if (next != NGX_HTTP_AI_NEXT_NONE) {
            return next;
        }
    }

    if (again && !c->skip && c->tries <= x->model->retries) {
        *candidate = c;
        *wait = (a->wait >= 0) ? (ngx_msec_t) a->wait
                               : ngx_http_ai_plan_backoff(x, c->tries);
        return NGX_HTTP_AI_NEXT_WAIT;
    }

    return mask ? ngx_http_ai_plan_other(x, mask, candidate, wait)
                : NGX_HTTP_AI_NEXT_NONE;
}


void
ngx_http_ai_plan_name(ngx_http_ai_exec_t *x, ngx_http_ai_target_t *target,
    ngx_str_t *name)
{
    u_char     *p;
    ngx_str_t  *model;

    *name = target->name;
    model = &x->ctx->request_model;

    if (target->model.len || model->len == 0) {
        return;
    }

    p = ngx_pnalloc(x->request->pool, name->len + 1 + model->len);
    if (p == NULL) {
        return;
    }

    name->len = ngx_sprintf(p, "%V/%V", &target->name, model) - p;
    name->data = p;
}


static ngx_uint_t
ngx_http_ai_plan_other_key(ngx_http_ai_attempt_t *a)
{
    ngx_uint_t  i;

    for (i = 0; i < a->provider->keys.nelts && i < 8 * sizeof(ngx_uint_t);
         i++)
    {
        if (!(a->candidate->keys & ((ngx_uint_t) 1 << i))) {
            return 1;
        }
    }

    return 0;
}


/* exponential with "equal jitter": half of it fixed, half drawn */

static ngx_msec_t
ngx_http_ai_plan_backoff(ngx_http_ai_exec_t *x, ngx_uint_t tries)
{
    ngx_msec_t  t;

    t = x->model->backoff_min;

    while (--tries && t < x->model->backoff_max) {
        t *= 2;
    }

    t = ngx_min(t, x->model->backoff_max);

    return t / 2 + ngx_random() % (t / 2 + 1);
}


static ngx_http_ai_next_e
ngx_http_ai_plan_other(ngx_http_ai_exec_t *x, ngx_uint_t mask,
    ngx_http_ai_candidate_t **candidate, ngx_msec_t *wait)
{
    ngx_uint_t                i;
    ngx_msec_t                ms;
    ngx_http_ai_health_e      state, blocked;
    ngx_http_ai_target_t     *target;
    ngx_http_ai_candidate_t  *c, *soonest;

    soonest = NULL;
    blocked = NGX_HTTP_AI_HEALTH_OK;

    for (i = 0; i < x->ncandidates; i++) {
        c = &x->candidates[i];
        target = c->target;

        if (c->skip || c->tries) {
            continue;
        }

        if (c->price == NULL && x->ctx->need_price) {
            continue;
        }

        if (target->fallback ? !(target->on & mask)
                             : !(mask & NGX_HTTP_AI_ON_DEFAULT))
        {
            continue;
        }

        if (target->provider->is_static) {

            if (x->committed) {
                continue;
            }

            *candidate = c;
            return NGX_HTTP_AI_NEXT_START;
        }

        ms = 0;
        state = ngx_http_ai_health_peek(target->health, x->model, &ms);

        if (state == NGX_HTTP_AI_HEALTH_OK
            || state == NGX_HTTP_AI_HEALTH_PROBE)
        {
            *candidate = c;
            return NGX_HTTP_AI_NEXT_START;
        }

        if (soonest == NULL || ms < *wait) {
            soonest = c;
            blocked = state;
            *wait = ms;
        }
    }

    if (soonest == NULL) {
        return NGX_HTTP_AI_NEXT_NONE;
    }

    if (*wait <= x->model->wait && blocked == NGX_HTTP_AI_HEALTH_COOLING) {
        *candidate = soonest;
        return NGX_HTTP_AI_NEXT_WAIT;
    }

    if (x->error.class == NGX_HTTP_AI_ERR_NONE) {
        x->retry_after = *wait;

        (void) ngx_http_ai_plan_refuse(x,
                          (blocked == NGX_HTTP_AI_HEALTH_COOLING)
                          ? NGX_HTTP_AI_ERR_RATE_LIMIT
                          : NGX_HTTP_AI_ERR_OVERLOADED,
                          "the model \"%V\" is %s, try again later",
                          &x->ctx->model,
                          (blocked == NGX_HTTP_AI_HEALTH_COOLING)
                          ? "at its provider's rate limit"
                          : "not available: its providers have failed");
    }

    return NGX_HTTP_AI_NEXT_NONE;
}
