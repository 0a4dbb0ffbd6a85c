
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * What an operator changes of a key that nodes share is changed in Redis: the
 * next operation of a node for this key tells it.
 */


#include "ngx_http_ai_ratelimit_lease.h"
#include "ngx_http_ai_ratelimit_script.h"


typedef struct {
    ngx_http_request_t            *request;
    ngx_http_ai_limit_zone_t      *zone;
    ngx_str_t                      key;
    const ngx_http_ai_api_t       *api;
    ngx_http_ai_redis_op_t        *op;        /* NULL: it was answered */
    ngx_http_ai_change_pt          handler;
} ngx_http_ai_change_t;


static void ngx_http_ai_change_answer(void *data,
    ngx_http_ai_redis_reply_t *reply);
static void ngx_http_ai_change_cleanup(void *data);


static ngx_http_ai_redis_script_t  ngx_http_ai_change_script = {
    ngx_string(NGX_HTTP_AI_RATELIMIT_CHANGE), "", 0
};


ngx_int_t
ngx_http_ai_change_send(ngx_http_request_t *r, ngx_http_ai_limit_zone_t *zone,
    ngx_str_t *key, ngx_uint_t meter, int64_t amount, int64_t ms,
    ngx_http_ai_change_pt handler)
{
    u_char                              name[NGX_HTTP_AI_LEASE_NAME];
    u_char                              text[3 * NGX_INT64_LEN + 8];
    ngx_int_t                           rc;
    ngx_str_t                           argv[3];
    ngx_pool_cleanup_t                 *cln;
    ngx_http_ai_change_t               *change;
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;

    if (key->len > NGX_HTTP_AI_LIMIT_KEY_MAX) {
        return NGX_DECLINED;
    }

    rmcf = ngx_http_get_module_main_conf(r, ngx_http_ai_ratelimit_module);

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_ai_change_t));
    if (cln == NULL) {
        return NGX_ERROR;
    }

    change = cln->data;

    change->request = r;
    change->zone = zone;
    change->key = *key;
    change->api = rmcf->api;
    change->op = NULL;
    change->handler = handler;

    cln->handler = ngx_http_ai_change_cleanup;

    ngx_str_set(&argv[0], "1");

    argv[1].data = name;
    argv[1].len = ngx_http_ai_lease_name(name, zone, key->data, key->len)
                  - name;

    argv[2].data = text;
    argv[2].len = (ms > 0) ? ngx_sprintf(text, "raise %ui %L %L", meter,
                                         amount, ms)
                             - text
                           : ngx_sprintf(text, "reset") - text;

    rc = rmcf->api->redis_send(zone->redis, &ngx_http_ai_change_script, argv,
                               3, ngx_http_ai_change_answer, change,
                               &change->op);

    if (rc != NGX_OK) {
        change->op = NULL;
    }

    return rc;
}


static void
ngx_http_ai_change_answer(void *data, ngx_http_ai_redis_reply_t *reply)
{
    ngx_http_ai_change_t *change = data;

    int64_t                era;
    ngx_uint_t             failed;
    ngx_connection_t      *c;
    ngx_http_ai_lease_t   *le;

    change->op = NULL;
    failed = (reply->rc != NGX_HTTP_AI_REDIS_OK);
    c = change->request->connection;

    if (reply->rc == NGX_HTTP_AI_REDIS_REFUSED) {
        ngx_log_error(NGX_LOG_ERR, c->log, 0,
                      "ai ratelimit: zone \"%V\": redis \"%V\" answers "
                      "\"%V\"", &change->zone->name, &change->zone->redis_name,
                      &reply->text);
    }

    if (!failed) {

        era = ngx_atoof(reply->text.data, reply->text.len);

        ngx_http_ai_zone_lock(change->zone);

        le = ngx_http_ai_lease_get(change->zone, &change->key, 0);

        if (le && era > 0 && (uint64_t) era > le->era) {
            ngx_http_ai_lease_forget(change->zone, le, era,
                                     ngx_http_ai_zone_now());
        }

        ngx_http_ai_zone_unlock(change->zone);
    }

    change->handler(change->request, failed);

    ngx_http_run_posted_requests(c);
}


static void
ngx_http_ai_change_cleanup(void *data)
{
    ngx_http_ai_change_t *change = data;

    if (change->op) {
        change->api->redis_cancel(change->op);
        change->op = NULL;
    }
}
