
/*
 * Copyright (C) nginx AI gateway authors
 */


/* the last requests that failed, were refused or were slow, of all workers */


#include "ngx_http_ai_status.h"


static ngx_int_t ngx_http_ai_status_init_shared(ngx_slab_pool_t *shpool,
    void **data, void *conf, ngx_log_t *log);
static ngx_int_t ngx_http_ai_status_log_handler(ngx_http_request_t *r);
static void ngx_http_ai_status_push(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_status_main_conf_t *mcf,
    ngx_http_ai_status_recent_e list);
static void ngx_http_ai_status_asked(ngx_http_ai_ctx_t *ctx,
    ngx_str_t *provider);
static size_t ngx_http_ai_status_copy(u_char *dst, ngx_str_t *src,
    size_t max);


ngx_int_t
ngx_http_ai_status_recent_init(ngx_conf_t *cf,
    ngx_http_ai_status_main_conf_t *mcf)
{
    ngx_http_handler_pt        *h;
    ngx_http_core_main_conf_t  *cmcf;

    if (mcf->api->add_shared(cf, "status-1", ngx_http_ai_status_init_shared,
                             mcf)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_LOG_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_ai_status_log_handler;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_status_init_shared(ngx_slab_pool_t *shpool, void **data,
    void *conf, ngx_log_t *log)
{
    ngx_http_ai_status_main_conf_t *mcf = conf;

    ngx_http_ai_status_shared_t  *shared;

    shared = *data;

    if (shared == NULL) {
        shared = ngx_slab_calloc(shpool, sizeof(ngx_http_ai_status_shared_t));

        if (shared == NULL) {
            ngx_log_error(NGX_LOG_EMERG, log, 0,
                          "ai status: no memory for recent requests, "
                          "increase the size of \"ai_zone\" by %uz bytes",
                          sizeof(ngx_http_ai_status_shared_t));
            return NGX_ERROR;
        }

        shared->started = ngx_time();
        *data = shared;
    }

    mcf->shpool = shpool;
    mcf->shared = shared;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_status_log_handler(ngx_http_request_t *r)
{
    ngx_uint_t                       status;
    ngx_http_ai_ctx_t               *ctx;
    ngx_http_ai_status_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(r, ngx_http_ai_status_module);

    ctx = mcf->api->get_ctx(r);

    if (ctx == NULL) {
        return NGX_OK;
    }

    status = r->err_status ? r->err_status : r->headers_out.status;

    if (ctx->error != NGX_HTTP_AI_ERR_NONE || status >= 500) {

        /* a stream that broke has status 200 */

        ngx_http_ai_status_push(r, ctx, mcf,
                                (status >= 400 && status < 500)
                                ? NGX_HTTP_AI_STATUS_REFUSED
                                : NGX_HTTP_AI_STATUS_FAILED);

    } else if (status >= 400 && status != NGX_HTTP_CLIENT_CLOSED_REQUEST) {
        ngx_http_ai_status_push(r, ctx, mcf, NGX_HTTP_AI_STATUS_REFUSED);

    } else if (ctx->ttft >= 0 && (ngx_msec_t) ctx->ttft >= mcf->slow) {
        ngx_http_ai_status_push(r, ctx, mcf, NGX_HTTP_AI_STATUS_SLOW);
    }

    return NGX_OK;
}


static void
ngx_http_ai_status_push(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_status_main_conf_t *mcf, ngx_http_ai_status_recent_e list)
{
    ngx_time_t                   *tp;
    ngx_str_t                    *model, provider;
    ngx_http_ai_status_ring_t    *ring;
    ngx_http_ai_status_recent_t   e;

    tp = ngx_timeofday();
    model = ctx->model.len ? &ctx->model : &ctx->request_model;
    provider = ctx->provider;

    if (provider.len == 0) {
        ngx_http_ai_status_asked(ctx, &provider);
    }

    e.time = (int64_t) tp->sec * 1000 + tp->msec;
    e.duration = (ngx_msec_int_t) (ngx_current_msec - ctx->start);
    e.ttft = ctx->ttft;
    e.error = ctx->error;
    e.status = (uint16_t) (r->err_status ? r->err_status
                                         : r->headers_out.status);
    e.attempts = (uint16_t) ngx_min(ctx->attempts, 65535);

    e.model_len = (uint8_t) ngx_http_ai_status_copy(e.model, model,
                                                    sizeof(e.model));
    e.provider_len = (uint8_t) ngx_http_ai_status_copy(e.provider,
                                                       &provider,
                                                       sizeof(e.provider));
    e.id_len = (uint8_t) ngx_http_ai_status_copy(e.id, &ctx->request_id,
                                                 sizeof(e.id));

    ring = &mcf->shared->rings[list];

    ngx_shmtx_lock(&mcf->shpool->mutex);

    ring->entries[ring->n++ % NGX_HTTP_AI_STATUS_RING] = e;

    ngx_shmtx_unlock(&mcf->shpool->mutex);
}


/* nobody has answered: who was asked last */

static void
ngx_http_ai_status_asked(ngx_http_ai_ctx_t *ctx, ngx_str_t *provider)
{
    ngx_uint_t         n;
    ngx_http_ai_try_t  t;

    if (ctx->attempt == NULL) {
        return;
    }

    for (n = 0; ctx->attempt(ctx, n, &t) == NGX_OK; n++) {
        *provider = t.provider;
    }
}


/* what does not fit is cut, not inside of a character */

static size_t
ngx_http_ai_status_copy(u_char *dst, ngx_str_t *src, size_t max)
{
    size_t  len;

    len = src->len;

    if (len > max) {
        len = max;

        while (len && (src->data[len] & 0xc0) == 0x80) {
            len--;
        }
    }

    ngx_memcpy(dst, src->data, len);

    return len;
}


ngx_uint_t
ngx_http_ai_status_recent(ngx_http_ai_status_main_conf_t *mcf,
    ngx_http_ai_status_recent_e list, ngx_http_ai_status_recent_t *entries,
    ngx_uint_t n)
{
    ngx_uint_t                  i;
    ngx_http_ai_status_ring_t  *ring;

    ring = &mcf->shared->rings[list];

    ngx_shmtx_lock(&mcf->shpool->mutex);

    n = ngx_min(n, ngx_min(ring->n, NGX_HTTP_AI_STATUS_RING));

    for (i = 0; i < n; i++) {
        entries[i] = ring->entries[(ring->n - 1 - i)
                                   % NGX_HTTP_AI_STATUS_RING];
    }

    ngx_shmtx_unlock(&mcf->shpool->mutex);

    return n;
}
