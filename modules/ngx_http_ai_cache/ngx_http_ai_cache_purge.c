
/*
 * Copyright (C) nginx AI gateway authors
 */


/* the operator's location: POST purges, GET shows figures */


#include "ngx_http_ai_cache.h"
#include "ngx_http_ai_cache_purge.h"
#include "ngx_http_ai_send.h"


/* bytes of a request */
#define NGX_HTTP_AI_CACHE_PURGE_BODY  8192

/* ms by which the clocks of nodes may differ */
#define NGX_HTTP_AI_CACHE_SKEW        1000


static ngx_int_t ngx_http_ai_cache_purge_handler(ngx_http_request_t *r);
static void ngx_http_ai_cache_purge_body(ngx_http_request_t *r);
static ngx_int_t ngx_http_ai_cache_purge_post(ngx_http_request_t *r,
    ngx_http_ai_cache_purge_conf_t *pcf);
static ngx_int_t ngx_http_ai_cache_purge_text(ngx_http_request_t *r,
    ngx_str_t *text);
static ngx_int_t ngx_http_ai_cache_purge_refuse(ngx_http_request_t *r,
    ngx_uint_t status, ngx_str_t *error);
static ngx_int_t ngx_http_ai_cache_purge_show(ngx_http_request_t *r,
    ngx_http_ai_cache_purge_conf_t *pcf);
static void ngx_http_ai_cache_purge_figure(ngx_http_ai_out_t *out,
    const char *name, int64_t n);


char *
ngx_http_ai_cache_purge(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_cache_loc_conf_t *clcf = conf;

    ngx_str_t                        *value;
    ngx_http_core_loc_conf_t         *core;
    ngx_http_ai_cache_main_conf_t    *cmcf;
    ngx_http_ai_cache_purge_conf_t  **slot, *purge;

    if (clcf->purge) {
        return "is duplicate";
    }

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_cache_module);

    purge = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_cache_purge_conf_t));
    slot = ngx_array_push(&cmcf->zones.purges);

    if (purge == NULL || slot == NULL) {
        return NGX_CONF_ERROR;
    }

    value = cf->args->elts;

    purge->name = value[1];
    purge->zones = &cmcf->zones;
    purge->file = cf->conf_file->file.name.data;
    purge->line = cf->conf_file->line;

    *slot = purge;
    clcf->purge = purge;

    core = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    core->handler = ngx_http_ai_cache_purge_handler;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_ai_cache_purge_handler(ngx_http_request_t *r)
{
    ngx_int_t                      rc;
    ngx_http_ai_cache_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_cache_module);

    if (r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD)) {

        rc = ngx_http_discard_request_body(r);
        if (rc != NGX_OK) {
            return rc;
        }

        return ngx_http_ai_cache_purge_show(r, clcf->purge);
    }

    if (r->method != NGX_HTTP_POST) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_read_client_request_body(r, ngx_http_ai_cache_purge_body);

    return (rc >= NGX_HTTP_SPECIAL_RESPONSE) ? rc : NGX_DONE;
}


static void
ngx_http_ai_cache_purge_body(ngx_http_request_t *r)
{
    ngx_http_ai_cache_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_cache_module);

    ngx_http_finalize_request(r, ngx_http_ai_cache_purge_post(r,
                                                              clcf->purge));
}


static ngx_int_t
ngx_http_ai_cache_purge_post(ngx_http_request_t *r,
    ngx_http_ai_cache_purge_conf_t *pcf)
{
    ngx_int_t                   rc;
    ngx_str_t                   text, error, *kind;
    ngx_http_ai_out_t           out;
    ngx_http_ai_json_t          j;
    ngx_http_ai_cache_zone_t   *zone;
    ngx_http_ai_cache_purge_t   purge;
    ngx_http_ai_cache_store_t  *st;

    rc = ngx_http_ai_cache_purge_text(r, &text);

    if (rc == NGX_DECLINED) {
        ngx_str_set(&error, "the request is too large");
        rc = NGX_HTTP_REQUEST_ENTITY_TOO_LARGE;
        return ngx_http_ai_cache_purge_refuse(r, rc, &error);
    }

    if (rc != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_memzero(&j, sizeof(ngx_http_ai_json_t));
    j.pool = r->pool;

    rc = ngx_http_ai_json_parse(&j, text.data, text.len);

    if (rc == NGX_DECLINED) {
        error.data = (u_char *) j.error;
        error.len = ngx_strlen(j.error);

    } else if (rc == NGX_OK) {
        rc = ngx_http_ai_cache_purge_read(&j, 0, &purge, &error);
    }

    if (rc == NGX_DECLINED) {
        return ngx_http_ai_cache_purge_refuse(r, NGX_HTTP_BAD_REQUEST, &error);
    }

    if (rc != NGX_OK || ngx_http_ai_out_init(&out, r->pool, 256) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    zone = pcf->zone;

    /* other workers may have read the clock later than this one */

    ngx_time_update();
    purge.rule.time = ngx_http_ai_cache_now();

    if (zone->remote) {
        purge.rule.time += NGX_HTTP_AI_CACHE_SKEW;
    }

    st = ngx_http_ai_cache_lock(zone);
    (void) ngx_http_ai_cache_purge_add(st, &purge.rule);
    ngx_http_ai_cache_unlock(zone);

    ngx_http_ai_cache_purges_tick(pcf->zones, zone);

    ngx_log_error(NGX_LOG_NOTICE, r->connection->log, 0,
                  "ai cache: zone \"%V\" purged by %V", &zone->name,
                  &ngx_http_ai_cache_rule_names[purge.rule.kind]);

    kind = &ngx_http_ai_cache_rule_names[purge.rule.kind];

    ngx_http_ai_out_lit(&out, "{\"zone\":\"");
    ngx_http_ai_out_str(&out, &zone->name);
    ngx_http_ai_out_lit(&out, "\",\"purged\":{\"");
    ngx_http_ai_out_str(&out, kind);
    ngx_http_ai_out_lit(&out, "\":");

    if (purge.rule.kind == NGX_HTTP_AI_CACHE_RULE_ALL) {
        ngx_http_ai_out_lit(&out, "true");

    } else {
        ngx_http_ai_out_lit(&out, "\"");
        ngx_http_ai_out_escaped(&out, purge.value.data, purge.value.len);
        ngx_http_ai_out_lit(&out, "\"");
    }

    ngx_http_ai_out_lit(&out, "},\"before_ms\":");
    ngx_http_ai_out_int(&out, purge.rule.time);
    ngx_http_ai_out_lit(&out, "}\n");

    return ngx_http_ai_send_state(r, NGX_HTTP_OK, &out);
}


/* NGX_DECLINED: it is too large */

static ngx_int_t
ngx_http_ai_cache_purge_text(ngx_http_request_t *r, ngx_str_t *text)
{
    u_char       *p;
    size_t        len;
    ngx_chain_t  *cl;

    ngx_str_set(text, "");

    if (r->request_body == NULL || r->request_body->bufs == NULL) {
        return NGX_OK;
    }

    len = 0;

    for (cl = r->request_body->bufs; cl; cl = cl->next) {

        if (cl->buf->in_file) {
            return NGX_DECLINED;
        }

        len += cl->buf->last - cl->buf->pos;
    }

    if (len > NGX_HTTP_AI_CACHE_PURGE_BODY) {
        return NGX_DECLINED;
    }

    p = ngx_pnalloc(r->pool, len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    text->data = p;
    text->len = len;

    for (cl = r->request_body->bufs; cl; cl = cl->next) {
        p = ngx_cpymem(p, cl->buf->pos, cl->buf->last - cl->buf->pos);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_cache_purge_refuse(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *error)
{
    ngx_http_ai_out_t  out;

    if (ngx_http_ai_out_init(&out, r->pool, 256) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_ai_out_lit(&out, "{\"error\":\"");
    ngx_http_ai_out_escaped(&out, error->data, error->len);
    ngx_http_ai_out_lit(&out, "\"}\n");

    return ngx_http_ai_send_state(r, status, &out);
}


static ngx_int_t
ngx_http_ai_cache_purge_show(ngx_http_request_t *r,
    ngx_http_ai_cache_purge_conf_t *pcf)
{
    ngx_uint_t                    n;
    ngx_http_ai_out_t             out;
    ngx_http_ai_cache_sh_t       *sh;
    ngx_http_ai_cache_rule_t      rules[NGX_HTTP_AI_CACHE_RULES + 1];
    ngx_http_ai_cache_zone_t     *zone;
    ngx_http_ai_cache_store_t    *st;
    ngx_http_ai_cache_figures_t   f;

    if (ngx_http_ai_out_init(&out, r->pool, 1024) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    zone = pcf->zone;
    sh = zone->sh;

    st = ngx_http_ai_cache_lock(zone);
    ngx_http_ai_cache_figures(st, &f);
    n = ngx_http_ai_cache_purge_list(st, rules);
    ngx_http_ai_cache_unlock(zone);

    ngx_http_ai_out_lit(&out, "{\"zone\":\"");
    ngx_http_ai_out_str(&out, &zone->name);
    ngx_http_ai_out_lit(&out, "\",\"memory\":{\"entries\":");
    ngx_http_ai_out_int(&out, f.entries);
    ngx_http_ai_cache_purge_figure(&out, "bytes", f.bytes);
    ngx_http_ai_cache_purge_figure(&out, "used", f.used);
    ngx_http_ai_cache_purge_figure(&out, "size", f.size);
    ngx_http_ai_cache_purge_figure(&out, "hits", f.hits);
    ngx_http_ai_cache_purge_figure(&out, "misses", f.misses);
    ngx_http_ai_cache_purge_figure(&out, "stored", f.stored);
    ngx_http_ai_cache_purge_figure(&out, "evicted", f.evicted);
    ngx_http_ai_cache_purge_figure(&out, "rejected", f.rejected);
    ngx_http_ai_cache_purge_figure(&out, "expired", f.expired);
    ngx_http_ai_cache_purge_figure(&out, "purged", f.purged);
    ngx_http_ai_cache_purge_figure(&out, "corrupt", f.corrupt);
    ngx_http_ai_cache_purge_figure(&out, "resets", f.resets);
    ngx_http_ai_out_lit(&out, "},\"flights\":{\"running\":");
    ngx_http_ai_out_int(&out, f.flights);
    ngx_http_ai_cache_purge_figure(&out, "followers", f.followers);
    ngx_http_ai_out_lit(&out, "}");

    if (zone->on_disk) {
        ngx_http_ai_out_lit(&out, ",\"disk\":{\"entries\":");
        ngx_http_ai_out_int(&out, sh->disk_files);
        ngx_http_ai_cache_purge_figure(&out, "used", sh->disk_bytes);
        ngx_http_ai_cache_purge_figure(&out, "size", zone->disk_size);
        ngx_http_ai_cache_purge_figure(&out, "hits",
                                       sh->hits[NGX_HTTP_AI_CACHE_DISK]);
        ngx_http_ai_cache_purge_figure(&out, "misses",
                                       sh->misses[NGX_HTTP_AI_CACHE_DISK]);
        ngx_http_ai_cache_purge_figure(&out, "stored",
                                       sh->stored[NGX_HTTP_AI_CACHE_DISK]);
        ngx_http_ai_cache_purge_figure(&out, "evicted",
                                       sh->evicted[NGX_HTTP_AI_CACHE_DISK]);
        ngx_http_ai_cache_purge_figure(&out, "rejected",
                                       sh->dropped[NGX_HTTP_AI_CACHE_DISK]);
        ngx_http_ai_cache_purge_figure(&out, "corrupt",
                                       sh->corrupt[NGX_HTTP_AI_CACHE_DISK]);
        ngx_http_ai_out_lit(&out, "}");
    }

    if (zone->remote) {
        ngx_http_ai_out_lit(&out, ",\"redis\":{\"hits\":");
        ngx_http_ai_out_int(&out, sh->hits[NGX_HTTP_AI_CACHE_REDIS]);
        ngx_http_ai_cache_purge_figure(&out, "misses",
                                       sh->misses[NGX_HTTP_AI_CACHE_REDIS]);
        ngx_http_ai_cache_purge_figure(&out, "stored",
                                       sh->stored[NGX_HTTP_AI_CACHE_REDIS]);
        ngx_http_ai_cache_purge_figure(&out, "rejected",
                                       sh->dropped[NGX_HTTP_AI_CACHE_REDIS]);
        ngx_http_ai_cache_purge_figure(&out, "corrupt",
                                       sh->corrupt[NGX_HTTP_AI_CACHE_REDIS]);
        ngx_http_ai_out_lit(&out, "}");
    }

    ngx_http_ai_cache_purge_figure(&out, "purges", n);
    ngx_http_ai_out_lit(&out, "}\n");

    return ngx_http_ai_send_state(r, NGX_HTTP_OK, &out);
}


static void
ngx_http_ai_cache_purge_figure(ngx_http_ai_out_t *out, const char *name,
    int64_t n)
{
    ngx_http_ai_out_lit(out, ",\"");
    ngx_http_ai_out_mem(out, name, ngx_strlen(name));
    ngx_http_ai_out_lit(out, "\":");
    ngx_http_ai_out_int(out, n);
}
