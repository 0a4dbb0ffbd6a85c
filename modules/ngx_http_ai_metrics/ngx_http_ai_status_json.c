
/*
 * Copyright (C) nginx AI gateway authors
 */


/* the JSON behind the page: see docs/status.md, which promises its form */


#include "ngx_http_ai_status.h"


typedef struct {
    ngx_http_ai_out_t         *out;
    ngx_uint_t                 families;
    ngx_uint_t                 samples;       /* of this family */
} ngx_http_ai_status_figures_t;


static void ngx_http_ai_status_gateway(ngx_http_ai_out_t *out,
    ngx_http_ai_status_main_conf_t *mcf);
static ngx_int_t ngx_http_ai_status_data(ngx_http_ai_out_t *out,
    ngx_http_ai_status_main_conf_t *mcf, ngx_pool_t *pool);
static void ngx_http_ai_status_figures(ngx_http_ai_out_t *out,
    ngx_http_ai_status_main_conf_t *mcf);
static void ngx_http_ai_status_family(ngx_http_ai_samples_t *s,
    ngx_http_ai_samples_e type, const char *name, const char *help);
static void ngx_http_ai_status_sample(ngx_http_ai_samples_t *s,
    ngx_http_ai_label_t *labels, ngx_uint_t nlabels, int64_t value,
    ngx_uint_t scale);
static ngx_int_t ngx_http_ai_status_lists(ngx_http_ai_out_t *out,
    ngx_http_ai_status_main_conf_t *mcf, ngx_msec_t slow, ngx_pool_t *pool);
static void ngx_http_ai_status_request(ngx_http_ai_out_t *out,
    ngx_http_ai_status_recent_t *e);


ngx_int_t
ngx_http_ai_status_json(ngx_http_ai_status_sums_t *sums,
    ngx_http_ai_out_t *out)
{
    ngx_time_t                      *tp;
    ngx_http_request_t              *r;
    ngx_http_ai_status_loc_conf_t   *slcf;
    ngx_http_ai_status_main_conf_t  *mcf;

    r = sums->request;

    slcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_status_module);
    mcf = ngx_http_get_module_main_conf(r, ngx_http_ai_status_module);

    tp = ngx_timeofday();

    ngx_http_ai_out_lit(out, "{");
    ngx_http_ai_status_int(out, "version", NGX_HTTP_AI_STATUS_VERSION);
    ngx_http_ai_status_int(out, "time", (int64_t) tp->sec * 1000 + tp->msec);

    ngx_http_ai_status_gateway(out, mcf);

    if (ngx_http_ai_status_series(sums, out) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_ai_status_data(out, mcf, r->pool) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_ai_status_figures(out, mcf);

    if (ngx_http_ai_status_lists(out, mcf, slcf->slow, r->pool) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_ai_out_lit(out, "}\n");

    return out->failed ? NGX_ERROR : NGX_OK;
}


static void
ngx_http_ai_status_gateway(ngx_http_ai_out_t *out,
    ngx_http_ai_status_main_conf_t *mcf)
{
    time_t            now;
    ngx_core_conf_t  *ccf;

    now = ngx_time();
    ccf = (ngx_core_conf_t *) ngx_get_conf(ngx_cycle->conf_ctx,
                                           ngx_core_module);

    ngx_http_ai_status_name(out, "gateway");
    ngx_http_ai_out_lit(out, "{\"version\":\"" NGX_HTTP_AI_VERSION "\","
                             "\"nginx\":\"" NGINX_VERSION "\"");
    ngx_http_ai_status_int(out, "workers", ccf->worker_processes);
    ngx_http_ai_status_int(out, "uptime",
                           ngx_max(now - mcf->shared->started, 0));
    ngx_http_ai_status_int(out, "configured",
                           ngx_max(now - mcf->shared->loaded, 0));
    ngx_http_ai_status_int(out, "reloads", mcf->shared->loads - 1);
    ngx_http_ai_out_lit(out, "}");
}


static ngx_int_t
ngx_http_ai_status_data(ngx_http_ai_out_t *out,
    ngx_http_ai_status_main_conf_t *mcf, ngx_pool_t *pool)
{
    time_t                     now;
    ngx_int_t                  rc;
    ngx_uint_t                 n;
    const char                *state;
    ngx_http_ai_data_status_t  st;

    static const char  *states[] = { "none", "ok", "stale" };

    now = ngx_time();

    ngx_http_ai_status_name(out, "data");
    ngx_http_ai_out_lit(out, "[");

    for (n = 0; /* void */ ; n++) {

        rc = mcf->api->data_status(n, pool, &st);

        if (rc == NGX_DECLINED) {
            break;
        }

        if (rc != NGX_OK) {
            return NGX_ERROR;
        }

        state = states[st.state];

        ngx_http_ai_out_mem(out, ",", n ? 1 : 0);
        ngx_http_ai_out_lit(out, "{");
        ngx_http_ai_status_text(out, "name", st.name.data, st.name.len);
        ngx_http_ai_status_text(out, "state", (u_char *) state,
                                ngx_strlen(state));
        ngx_http_ai_status_int(out, "generation", st.generation);
        ngx_http_ai_status_int(out, "records", st.records);
        ngx_http_ai_status_int(out, "failures", st.failures);
        ngx_http_ai_status_int(out, "age", st.loaded
                                           ? ngx_max(now - st.loaded, 0) : 0);
        ngx_http_ai_status_int(out, "used", st.used);
        ngx_http_ai_status_int(out, "size", st.size);
        ngx_http_ai_status_text(out, "error", st.error.data, st.error.len);
        ngx_http_ai_out_lit(out, "}");
    }

    ngx_http_ai_out_lit(out, "]");

    return NGX_OK;
}


/* what the modules show, as they show it */

static void
ngx_http_ai_status_figures(ngx_http_ai_out_t *out,
    ngx_http_ai_status_main_conf_t *mcf)
{
    ngx_http_ai_samples_t         s;
    ngx_http_ai_status_figures_t  ctx;

    ngx_memzero(&ctx, sizeof(ngx_http_ai_status_figures_t));
    ctx.out = out;

    s.data = &ctx;
    s.family = ngx_http_ai_status_family;
    s.sample = ngx_http_ai_status_sample;

    ngx_http_ai_status_name(out, "figures");
    ngx_http_ai_out_lit(out, "{");

    mcf->api->collect(&s);

    ngx_http_ai_out_mem(out, "]}", ctx.families ? 2 : 0);
    ngx_http_ai_out_lit(out, "}");
}


static void
ngx_http_ai_status_family(ngx_http_ai_samples_t *s,
    ngx_http_ai_samples_e type, const char *name, const char *help)
{
    ngx_http_ai_status_figures_t *ctx = s->data;

    if (ctx->families++) {
        ngx_http_ai_out_lit(ctx->out, "]}");
    }

    ctx->samples = 0;

    ngx_http_ai_status_name(ctx->out, name);
    ngx_http_ai_out_lit(ctx->out, "{");
    ngx_http_ai_status_text(ctx->out, "help", (u_char *) help,
                            ngx_strlen(help));
    ngx_http_ai_status_name(ctx->out, "type");

    if (type == NGX_HTTP_AI_SAMPLES_COUNTER) {
        ngx_http_ai_out_lit(ctx->out, "\"counter\"");

    } else {
        ngx_http_ai_out_lit(ctx->out, "\"gauge\"");
    }

    ngx_http_ai_status_name(ctx->out, "samples");
    ngx_http_ai_out_lit(ctx->out, "[");
}


static void
ngx_http_ai_status_sample(ngx_http_ai_samples_t *s,
    ngx_http_ai_label_t *labels, ngx_uint_t nlabels, int64_t value,
    ngx_uint_t scale)
{
    ngx_http_ai_status_figures_t *ctx = s->data;

    ngx_uint_t  i;

    ngx_http_ai_out_mem(ctx->out, ",", ctx->samples++ ? 1 : 0);
    ngx_http_ai_out_lit(ctx->out, "{\"labels\":{");

    for (i = 0; i < nlabels; i++) {
        ngx_http_ai_status_text(ctx->out, labels[i].name,
                                labels[i].value.data, labels[i].value.len);
    }

    ngx_http_ai_out_lit(ctx->out, "},\"value\":");
    ngx_http_ai_status_scaled(ctx->out, value, scale);
    ngx_http_ai_out_lit(ctx->out, "}");
}


static ngx_int_t
ngx_http_ai_status_lists(ngx_http_ai_out_t *out,
    ngx_http_ai_status_main_conf_t *mcf, ngx_msec_t slow, ngx_pool_t *pool)
{
    ngx_uint_t                    i, n, list, shown;
    ngx_http_ai_status_recent_t  *entries;

    static const char  *names[] = { "failed", "refused", "slow" };

    entries = ngx_palloc(pool, NGX_HTTP_AI_STATUS_RING
                               * sizeof(ngx_http_ai_status_recent_t));
    if (entries == NULL) {
        return NGX_ERROR;
    }

    ngx_http_ai_status_name(out, "recent");
    ngx_http_ai_out_lit(out, "{");

    for (list = 0; list < NGX_HTTP_AI_STATUS_RECENT_MAX; list++) {

        n = ngx_http_ai_status_recent(mcf, list, entries,
                                      NGX_HTTP_AI_STATUS_RING);

        ngx_http_ai_status_name(out, names[list]);
        ngx_http_ai_out_lit(out, "[");

        shown = 0;

        for (i = 0; i < n; i++) {

            /* another location may be content with less */

            if (list == NGX_HTTP_AI_STATUS_SLOW
                && (ngx_msec_t) entries[i].ttft < slow)
            {
                continue;
            }

            ngx_http_ai_out_mem(out, ",", shown++ ? 1 : 0);
            ngx_http_ai_status_request(out, &entries[i]);
        }

        ngx_http_ai_out_lit(out, "]");
    }

    ngx_http_ai_out_lit(out, "}");

    return NGX_OK;
}


static void
ngx_http_ai_status_request(ngx_http_ai_out_t *out,
    ngx_http_ai_status_recent_t *e)
{
    ngx_str_t  *class;

    class = ngx_http_ai_err_name(e->error);

    ngx_http_ai_out_lit(out, "{");
    ngx_http_ai_status_int(out, "time", e->time);
    ngx_http_ai_status_text(out, "request_id", e->id, e->id_len);
    ngx_http_ai_status_text(out, "model", e->model, e->model_len);
    ngx_http_ai_status_text(out, "provider", e->provider, e->provider_len);
    ngx_http_ai_status_int(out, "status", e->status);
    ngx_http_ai_status_text(out, "error", class->data, class->len);
    ngx_http_ai_status_int(out, "attempts", e->attempts);
    ngx_http_ai_status_name(out, "duration");
    ngx_http_ai_status_scaled(out, e->duration, 3);
    ngx_http_ai_status_name(out, "ttft");

    if (e->ttft < 0) {
        ngx_http_ai_out_lit(out, "null");

    } else {
        ngx_http_ai_status_scaled(out, e->ttft, 3);
    }

    ngx_http_ai_out_lit(out, "}");
}


void
ngx_http_ai_status_text(ngx_http_ai_out_t *out, const char *name,
    u_char *data, size_t len)
{
    ngx_http_ai_status_name(out, name);
    ngx_http_ai_out_lit(out, "\"");
    ngx_http_ai_out_escaped(out, data, len);
    ngx_http_ai_out_lit(out, "\"");
}


void
ngx_http_ai_status_int(ngx_http_ai_out_t *out, const char *name, int64_t n)
{
    ngx_http_ai_status_name(out, name);
    ngx_http_ai_out_int(out, n);
}


void
ngx_http_ai_status_name(ngx_http_ai_out_t *out, const char *name)
{
    if (out->last > out->start && out->last[-1] != '{') {
        ngx_http_ai_out_lit(out, ",");
    }

    ngx_http_ai_out_lit(out, "\"");
    ngx_http_ai_out_mem(out, name, ngx_strlen(name));
    ngx_http_ai_out_lit(out, "\":");
}


void
ngx_http_ai_status_scaled(ngx_http_ai_out_t *out, int64_t n, ngx_uint_t scale)
{
    u_char    *p;
    uint64_t   u, unit, rest;
    u_char     buf[2 * NGX_INT64_LEN + 2];

    u = (n < 0) ? 0 - (uint64_t) n : (uint64_t) n;
    unit = 1;

    while (scale--) {
        unit *= 10;
    }

    p = buf;

    if (n < 0) {
        *p++ = '-';
    }

    p = ngx_sprintf(p, "%uL", u / unit);
    rest = u % unit;

    if (rest) {
        *p++ = '.';

        while (rest) {
            unit /= 10;
            *p++ = (u_char) ('0' + rest / unit);
            rest %= unit;
        }
    }

    ngx_http_ai_out_mem(out, buf, p - buf);
}
