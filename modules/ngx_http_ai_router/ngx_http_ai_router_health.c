
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Entries live in the shared zone for good and are found again by name on
 * reload, so that old and new workers use the same ones.  ngx_current_msec is
 * CLOCK_MONOTONIC (ngx_monotonic_time()), the same in all processes.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include <ngx_sha1.h>
#include "ngx_http_ai_router.h"
#include "ngx_http_ai_router_breaker.h"


#define NGX_HTTP_AI_HEALTH_HASH  256
#define NGX_HTTP_AI_HEALTH_RUN   256
#define NGX_HTTP_AI_HEALTH_NAME  191
#define NGX_HTTP_AI_HEALTH_ID    20

/* the longest cooldown, and how often dead workers are looked for */
#define NGX_HTTP_AI_HEALTH_COOL  86400000
#define NGX_HTTP_AI_HEALTH_REAP  250


typedef struct ngx_http_ai_health_root_s  ngx_http_ai_health_root_t;


typedef struct {
    ngx_pid_t                   pid;          /* 0: free */
    uint32_t                    count;
} ngx_http_ai_health_run_t;


struct ngx_http_ai_health_s {
    ngx_http_ai_health_t       *next;
    ngx_http_ai_health_root_t  *root;

    ngx_http_ai_breaker_t       breaker;

    ngx_msec_t                  cooldown;     /* until; 0: none */
    ngx_msec_t                  reaped;
    ngx_uint_t                  opens;

    ngx_uint_t                  nrun;         /* slots that were ever used */
    ngx_http_ai_health_run_t   *run;          /* of providers */

    u_char                      id[NGX_HTTP_AI_HEALTH_ID];
    u_short                     len;
    u_char                      name[1];      /* for logs */
};


struct ngx_http_ai_health_root_s {
    ngx_slab_pool_t            *shpool;
    ngx_http_ai_health_t       *hash[NGX_HTTP_AI_HEALTH_HASH];
};


typedef struct {
    ngx_slab_pool_t            *shpool;
    ngx_http_ai_health_root_t  *root;
    ngx_log_t                  *log;
} ngx_http_ai_health_init_t;


static ngx_int_t ngx_http_ai_health_init_shared(ngx_slab_pool_t *shpool,
    void **data, void *conf, ngx_log_t *log);
static ngx_int_t ngx_http_ai_health_provider(ngx_http_ai_health_init_t *ctx,
    ngx_http_ai_provider_t *provider);
static ngx_int_t ngx_http_ai_health_targets(ngx_http_ai_health_init_t *ctx,
    ngx_array_t *targets, ngx_str_t *model);
static ngx_http_ai_health_t *ngx_http_ai_health_get(
    ngx_http_ai_health_init_t *ctx, const char *kind, ngx_str_t *owner,
    ngx_str_t *id, ngx_uint_t run, const char *fmt, ...);
static ngx_http_ai_health_e ngx_http_ai_health_look(ngx_http_ai_health_t *h,
    ngx_http_ai_model_t *model, ngx_msec_t *wait, ngx_uint_t take);
static void ngx_http_ai_health_conf(ngx_http_ai_model_t *model,
    ngx_http_ai_breaker_conf_t *conf);
static ngx_uint_t ngx_http_ai_health_running(ngx_http_ai_health_t *h);
static void ngx_http_ai_health_reap(ngx_http_ai_health_t *h);


ngx_int_t
ngx_http_ai_health_init(ngx_conf_t *cf, ngx_http_ai_router_main_conf_t *amcf)
{
    if (amcf->providers.nelts == 0) {
        return NGX_OK;
    }

    return amcf->api->add_shared(cf, "router-1",
                                 ngx_http_ai_health_init_shared, amcf);
}


static ngx_int_t
ngx_http_ai_health_init_shared(ngx_slab_pool_t *shpool, void **data,
    void *conf, ngx_log_t *log)
{
    ngx_http_ai_router_main_conf_t *amcf = conf;

    ngx_uint_t                       i;
    ngx_str_t                        none;
    ngx_http_ai_model_t            **models;
    ngx_http_ai_provider_t         **providers;
    ngx_http_ai_health_init_t        ctx;
    ngx_http_ai_router_loc_conf_t  **locations;

    ctx.shpool = shpool;
    ctx.log = log;

    if (*data == NULL) {
        ctx.root = ngx_slab_calloc(shpool, sizeof(ngx_http_ai_health_root_t));
        if (ctx.root == NULL) {
            goto nomem;
        }

        ctx.root->shpool = shpool;
        *data = ctx.root;
    }

    ctx.root = *data;

    providers = amcf->providers.elts;

    for (i = 0; i < amcf->providers.nelts; i++) {
        if (ngx_http_ai_health_provider(&ctx, providers[i]) != NGX_OK) {
            goto nomem;
        }
    }

    models = amcf->models.elts;

    for (i = 0; i < amcf->models.nelts; i++) {

        if (ngx_http_ai_health_targets(&ctx, &models[i]->targets,
                                       &models[i]->name)
            != NGX_OK
            || ngx_http_ai_health_targets(&ctx, &models[i]->fallbacks,
                                          &models[i]->name)
               != NGX_OK)
        {
            goto nomem;
        }
    }

    ngx_str_null(&none);

    locations = amcf->locations.elts;

    for (i = 0; i < amcf->locations.nelts; i++) {

        if (locations[i]->fallbacks == NULL
            || locations[i]->fallbacks == NGX_CONF_UNSET_PTR)
        {
            continue;
        }

        if (ngx_http_ai_health_targets(&ctx, locations[i]->fallbacks, &none)
            != NGX_OK)
        {
            goto nomem;
        }
    }

    return NGX_OK;

nomem:

    ngx_log_error(NGX_LOG_EMERG, log, 0,
                  "ai router: no memory for the state of providers and "
                  "targets, increase the size of \"ai_zone\"");

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_ai_health_provider(ngx_http_ai_health_init_t *ctx,
    ngx_http_ai_provider_t *provider)
{
    u_char             *p;
    ngx_str_t           id, *text;
    ngx_uint_t          i;
    ngx_sha1_t          sha1;
    ngx_http_ai_key_t  *keys;
    u_char              buf[NGX_INT_T_LEN + 1 + NGX_HTTP_AI_HEALTH_ID];

    ngx_str_null(&id);

    provider->health = ngx_http_ai_health_get(ctx, "provider",
                                              &provider->name, &id, 1,
                                              "provider \"%V\"",
                                              &provider->name);
    if (provider->health == NULL) {
        return NGX_ERROR;
    }

    keys = provider->keys.elts;

    for (i = 0; i < provider->keys.nelts; i++) {

        /* another text is another credential, with a cooldown of its own */

        p = ngx_sprintf(buf, "%ui:", i);

        ngx_sha1_init(&sha1);

        if (keys[i].value) {
            text = &keys[i].value->value;
            ngx_sha1_update(&sha1, text->data, text->len);
        }

        ngx_sha1_final(p, &sha1);

        id.data = buf;
        id.len = (p - buf) + NGX_HTTP_AI_HEALTH_ID;

        keys[i].health = ngx_http_ai_health_get(ctx, "key", &provider->name,
                                                &id, 0,
                                                "key %ui of provider \"%V\"",
                                                i + 1, &provider->name);
        if (keys[i].health == NULL) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_health_targets(ngx_http_ai_health_init_t *ctx,
    ngx_array_t *targets, ngx_str_t *model)
{
    ngx_uint_t             i;
    ngx_http_ai_health_t  *h;
    ngx_http_ai_target_t  *target;

    target = targets->elts;

    for (i = 0; i < targets->nelts; i++) {

        if (model->len) {
            h = ngx_http_ai_health_get(ctx, "target", model, &target[i].name,
                                       0, "target \"%V\" of model \"%V\"",
                                       &target[i].name, model);

        } else {
            h = ngx_http_ai_health_get(ctx, "target", model, &target[i].name,
                                       0, "target \"%V\"", &target[i].name);
        }

        if (h == NULL) {
            return NGX_ERROR;
        }

        target[i].health = h;
    }

    return NGX_OK;
}


static ngx_http_ai_health_t *
ngx_http_ai_health_get(ngx_http_ai_health_init_t *ctx, const char *kind,
    ngx_str_t *owner, ngx_str_t *id, ngx_uint_t run, const char *fmt, ...)
{
    size_t                  len;
    va_list                 args;
    ngx_sha1_t              sha1;
    ngx_http_ai_health_t   *h, **head;
    u_char                  hash[NGX_HTTP_AI_HEALTH_ID];
    u_char                  name[NGX_HTTP_AI_HEALTH_NAME];

    /* with the terminating zeroes, so that no two names run together */

    ngx_sha1_init(&sha1);
    ngx_sha1_update(&sha1, kind, ngx_strlen(kind) + 1);
    ngx_sha1_update(&sha1, owner->data, owner->len);
    ngx_sha1_update(&sha1, "", 1);
    ngx_sha1_update(&sha1, id->data, id->len);
    ngx_sha1_final(hash, &sha1);

    head = &ctx->root->hash[hash[0] % NGX_HTTP_AI_HEALTH_HASH];

    /* only the master adds entries, and none is ever removed */

    for (h = *head; h; h = h->next) {
        if (ngx_memcmp(h->id, hash, NGX_HTTP_AI_HEALTH_ID) == 0) {
            return h;
        }
    }

    va_start(args, fmt);
    len = ngx_vslprintf(name, name + NGX_HTTP_AI_HEALTH_NAME, fmt, args)
          - name;
    va_end(args);

    h = ngx_slab_calloc(ctx->shpool,
                        offsetof(ngx_http_ai_health_t, name) + len);
    if (h == NULL) {
        return NULL;
    }

    if (run) {
        h->run = ngx_slab_calloc(ctx->shpool,
                                 NGX_HTTP_AI_HEALTH_RUN
                                 * sizeof(ngx_http_ai_health_run_t));
        if (h->run == NULL) {
            ngx_slab_free(ctx->shpool, h);
            return NULL;
        }
    }

    h->root = ctx->root;
    h->len = (u_short) len;
    ngx_memcpy(h->id, hash, NGX_HTTP_AI_HEALTH_ID);
    ngx_memcpy(h->name, name, len);

    h->next = *head;
    *head = h;

    return h;
}


ngx_http_ai_health_e
ngx_http_ai_health_check(ngx_http_ai_health_t *h, ngx_http_ai_model_t *model,
    ngx_msec_t *wait)
{
    return ngx_http_ai_health_look(h, model, wait, 1);
}


ngx_http_ai_health_e
ngx_http_ai_health_peek(ngx_http_ai_health_t *h, ngx_http_ai_model_t *model,
    ngx_msec_t *wait)
{
    return ngx_http_ai_health_look(h, model, wait, 0);
}


static ngx_http_ai_health_e
ngx_http_ai_health_look(ngx_http_ai_health_t *h, ngx_http_ai_model_t *model,
    ngx_msec_t *wait, ngx_uint_t take)
{
    ngx_msec_t                     cool, left;
    ngx_shmtx_t                   *mutex;
    ngx_http_ai_breaker_conf_t     conf;
    ngx_http_ai_breaker_answer_e   rc;

    if (wait) {
        *wait = 0;
    }

    if (h == NULL) {
        return NGX_HTTP_AI_HEALTH_OK;
    }

    /* single words, nearly always so: not worth the lock */

    if (*(volatile ngx_msec_t *) &h->cooldown == 0
        && *(volatile ngx_uint_t *) &h->breaker.state
           == NGX_HTTP_AI_BREAKER_CLOSED)
    {
        return NGX_HTTP_AI_HEALTH_OK;
    }

    ngx_http_ai_health_conf(model, &conf);

    mutex = &h->root->shpool->mutex;

    ngx_shmtx_lock(mutex);

    cool = 0;

    if (h->cooldown) {
        cool = ngx_http_ai_breaker_left(h->cooldown, ngx_current_msec,
                                        NGX_HTTP_AI_HEALTH_COOL);

        if (cool == 0 && take) {
            h->cooldown = 0;
        }
    }

    if (take && cool == 0) {
        rc = ngx_http_ai_breaker_check(&h->breaker, &conf, ngx_current_msec,
                                       ngx_pid, &left);

    } else {
        rc = ngx_http_ai_breaker_peek(&h->breaker, &conf, ngx_current_msec,
                                      &left);
    }

    ngx_shmtx_unlock(mutex);

    if (wait) {
        *wait = ngx_max(cool, left);
    }

    if (rc == NGX_HTTP_AI_BREAKER_REFUSE) {
        return NGX_HTTP_AI_HEALTH_OPEN;
    }

    if (cool) {
        return NGX_HTTP_AI_HEALTH_COOLING;
    }

    return (rc == NGX_HTTP_AI_BREAKER_TRY) ? NGX_HTTP_AI_HEALTH_PROBE
                                           : NGX_HTTP_AI_HEALTH_OK;
}


void
ngx_http_ai_health_result(ngx_http_ai_health_t *h, ngx_http_ai_model_t *model,
    ngx_uint_t failed, ngx_uint_t probe)
{
    ngx_str_t                      name;
    ngx_uint_t                     nfailed, total;
    ngx_shmtx_t                   *mutex;
    ngx_http_ai_breaker_conf_t     conf;
    ngx_http_ai_breaker_change_e   change;

    if (h == NULL) {
        return;
    }

    ngx_http_ai_health_conf(model, &conf);

    mutex = &h->root->shpool->mutex;

    ngx_shmtx_lock(mutex);

    change = ngx_http_ai_breaker_result(&h->breaker, &conf, ngx_current_msec,
                                        failed, probe, &nfailed, &total);

    if (change == NGX_HTTP_AI_BREAKER_OPENED
        || change == NGX_HTTP_AI_BREAKER_REOPENED)
    {
        h->opens++;
    }

    ngx_shmtx_unlock(mutex);

    if (change == NGX_HTTP_AI_BREAKER_SAME) {
        return;
    }

    name.data = h->name;
    name.len = h->len;

    switch (change) {

    case NGX_HTTP_AI_BREAKER_OPENED:
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "ai breaker: %V opened for %Mms: %ui of %ui failed",
                      &name, conf.open, nfailed, total);
        break;

    case NGX_HTTP_AI_BREAKER_REOPENED:
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "ai breaker: %V opened again for %Mms: the probe failed",
                      &name, conf.open);
        break;

    default: /* NGX_HTTP_AI_BREAKER_RECOVERED */
        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                      "ai breaker: %V closed", &name);
    }
}


void
ngx_http_ai_health_release(ngx_http_ai_health_t *h)
{
    ngx_shmtx_t  *mutex;

    if (h == NULL) {
        return;
    }

    mutex = &h->root->shpool->mutex;

    ngx_shmtx_lock(mutex);

    ngx_http_ai_breaker_release(&h->breaker, ngx_pid);

    ngx_shmtx_unlock(mutex);
}


void
ngx_http_ai_health_cooldown(ngx_http_ai_health_t *h, ngx_msec_t wait)
{
    ngx_str_t     name;
    ngx_msec_t    left;
    ngx_shmtx_t  *mutex;

    if (h == NULL || wait == 0) {
        return;
    }

    if (wait > NGX_HTTP_AI_HEALTH_COOL) {
        wait = NGX_HTTP_AI_HEALTH_COOL;
    }

    mutex = &h->root->shpool->mutex;

    ngx_shmtx_lock(mutex);

    left = 0;

    if (h->cooldown) {
        left = ngx_http_ai_breaker_left(h->cooldown, ngx_current_msec,
                                        NGX_HTTP_AI_HEALTH_COOL);
    }

    if (wait > left) {
        h->cooldown = ngx_current_msec + wait;

        if (h->cooldown == 0) {
            h->cooldown = 1;
        }
    }

    ngx_shmtx_unlock(mutex);

    if (left) {
        return;
    }

    name.data = h->name;
    name.len = h->len;

    ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                  "ai cooldown: %V is not asked for %Mms", &name, wait);
}


ngx_int_t
ngx_http_ai_health_enter(ngx_http_ai_health_t *h, ngx_uint_t max)
{
    ngx_int_t                  rc;
    ngx_uint_t                 i;
    ngx_shmtx_t               *mutex;
    ngx_http_ai_health_run_t  *run;

    if (h == NULL || h->run == NULL) {
        return NGX_OK;
    }

    rc = NGX_OK;
    run = NULL;
    mutex = &h->root->shpool->mutex;

    ngx_shmtx_lock(mutex);

    if (max && ngx_http_ai_health_running(h) >= max) {
        ngx_http_ai_health_reap(h);

        if (ngx_http_ai_health_running(h) >= max) {
            rc = NGX_BUSY;
            goto done;
        }
    }

    for (i = 0; i < h->nrun; i++) {

        if (h->run[i].pid == ngx_pid) {
            run = &h->run[i];
            break;
        }

        if (h->run[i].pid == 0 && run == NULL) {
            run = &h->run[i];
        }
    }

    if (run == NULL && h->nrun < NGX_HTTP_AI_HEALTH_RUN) {
        run = &h->run[h->nrun++];
    }

    /* more processes than slots: what this one runs is not counted */

    if (run == NULL) {
        goto done;
    }

    if (run->pid == 0) {
        run->count = 0;
        run->pid = ngx_pid;
    }

    run->count++;

done:

    ngx_shmtx_unlock(mutex);

    return rc;
}


void
ngx_http_ai_health_leave(ngx_http_ai_health_t *h)
{
    ngx_uint_t                 i;
    ngx_shmtx_t               *mutex;
    ngx_http_ai_health_run_t  *run;

    if (h == NULL || h->run == NULL) {
        return;
    }

    mutex = &h->root->shpool->mutex;

    ngx_shmtx_lock(mutex);

    for (i = 0; i < h->nrun; i++) {
        run = &h->run[i];

        if (run->pid != ngx_pid) {
            continue;
        }

        if (run->count) {
            run->count--;
        }

        if (run->count == 0) {
            run->pid = 0;
        }

        break;
    }

    ngx_shmtx_unlock(mutex);
}


void
ngx_http_ai_health_status(ngx_http_ai_health_t *h,
    ngx_http_ai_health_status_t *status)
{
    ngx_shmtx_t            *mutex;
    ngx_http_ai_breaker_t  *b;

    b = &h->breaker;
    mutex = &h->root->shpool->mutex;

    ngx_memzero(status, sizeof(ngx_http_ai_health_status_t));

    ngx_shmtx_lock(mutex);

    if (b->state == NGX_HTTP_AI_BREAKER_HALF_OPEN) {
        status->state = 1;

    } else if (b->state == NGX_HTTP_AI_BREAKER_OPEN) {

        /* once its time is over the next request is the probe */

        status->state = ngx_http_ai_breaker_left(b->until, ngx_current_msec,
                                                 NGX_HTTP_AI_HEALTH_COOL)
                        ? 2 : 1;
    }

    status->opens = h->opens;

    if (h->cooldown) {
        status->cooldown = ngx_http_ai_breaker_left(h->cooldown,
                                                    ngx_current_msec,
                                                    NGX_HTTP_AI_HEALTH_COOL);
    }

    if (h->run) {
        ngx_http_ai_health_reap(h);
        status->running = ngx_http_ai_health_running(h);
    }

    ngx_shmtx_unlock(mutex);
}


static ngx_uint_t
ngx_http_ai_health_running(ngx_http_ai_health_t *h)
{
    ngx_uint_t  i, n;

    n = 0;

    for (i = 0; i < h->nrun; i++) {
        if (h->run[i].pid) {
            n += h->run[i].count;
        }
    }

    return n;
}


static void
ngx_http_ai_health_reap(ngx_http_ai_health_t *h)
{
    ngx_uint_t                 i;
    ngx_http_ai_health_run_t  *run;

    /* a system call for each worker, and a full provider is asked often */

    if (h->reaped
        && ngx_current_msec - h->reaped < NGX_HTTP_AI_HEALTH_REAP)
    {
        return;
    }

    h->reaped = ngx_current_msec;

    for (i = 0; i < h->nrun; i++) {
        run = &h->run[i];

        if (run->pid && run->pid != ngx_pid
            && kill(run->pid, 0) == -1 && ngx_errno == NGX_ESRCH)
        {
            run->pid = 0;
        }
    }
}


static void
ngx_http_ai_health_conf(ngx_http_ai_model_t *model,
    ngx_http_ai_breaker_conf_t *conf)
{
    if (model == NULL) {
        ngx_memzero(conf, sizeof(ngx_http_ai_breaker_conf_t));
        return;
    }

    conf->rate = model->breaker;
    conf->min = model->breaker_min;
    conf->window = model->breaker_window;
    conf->open = model->breaker_open;
}
