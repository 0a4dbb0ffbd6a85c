
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * ai_alert_webhook: alerts of quotas are posted to a URL in the background,
 * signed, and again when that fails.
 */


#include "ngx_http_ai_ratelimit.h"
#include "ngx_http_ai_conf.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>


/* more than so many at once are only logged; per worker */
#define NGX_HTTP_AI_WEBHOOK_PENDING  64
#define NGX_HTTP_AI_WEBHOOK_TRIES    4
#define NGX_HTTP_AI_WEBHOOK_WAIT     1000      /* before the second one, ms */


struct ngx_http_ai_webhook_s {
    const ngx_http_ai_api_t       *api;
    ngx_http_ai_fetcher_t         *fetcher;
    ngx_str_t                      url;
    ngx_str_t                      secret;
    ngx_uint_t                     pending;   /* per worker */
};


typedef struct {
    void                          *data;
    void                          *reserved[2];
    ngx_socket_t                   fd;

    ngx_http_ai_webhook_t         *hook;
    ngx_pool_t                    *pool;
    ngx_str_t                      body;
    ngx_event_t                    event;
    ngx_uint_t                     tries;
} ngx_http_ai_alert_t;


static ngx_int_t ngx_http_ai_alert_send(ngx_http_ai_alert_t *alert);
static ngx_int_t ngx_http_ai_alert_sign(ngx_http_ai_alert_t *alert,
    ngx_pool_t *pool, ngx_str_t *headers);
static void ngx_http_ai_alert_answer(ngx_http_ai_fetch_t *f);
static void ngx_http_ai_alert_again(ngx_http_ai_alert_t *alert,
    ngx_uint_t status, const char *error);
static void ngx_http_ai_alert_timer(ngx_event_t *ev);
static void ngx_http_ai_alert_done(ngx_http_ai_alert_t *alert);


char *
ngx_http_ai_alert_webhook(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_ratelimit_main_conf_t *rmcf = conf;

    ngx_int_t                   n, rc;
    ngx_str_t                  *value, s, who;
    ngx_uint_t                  i;
    ngx_http_ai_webhook_t      *hook;
    ngx_http_ai_fetch_conf_t    fetch;

    if (rmcf->webhook) {
        return "is duplicate";
    }

    hook = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_webhook_t));
    if (hook == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(&fetch, sizeof(ngx_http_ai_fetch_conf_t));

    value = cf->args->elts;

    hook->api = rmcf->api;
    hook->url = value[1];

    fetch.url = value[1];
    fetch.tls_verify = 1;
    fetch.timeout = 5000;
    fetch.max_size = 65536;

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_http_ai_conf_arg(&value[i], "secret", &s)) {
            ngx_str_set(&who, "ai_alert_webhook");

            rc = ngx_http_ai_conf_secret(cf, &who, "secret", &s,
                                         &hook->secret);
            if (rc == NGX_OK) {
                continue;
            }

            if (rc == NGX_DECLINED) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "\"secret=\" of \"ai_alert_webhook\" must "
                                   "be file:PATH or env:NAME");
            }

            return NGX_CONF_ERROR;
        }

        if (ngx_http_ai_conf_arg(&value[i], "timeout", &s)) {
            n = ngx_parse_time(&s, 0);

            if (n == NGX_ERROR || n == 0) {
                goto invalid;
            }

            fetch.timeout = (ngx_msec_t) n;
            continue;
        }

        if (ngx_http_ai_conf_arg(&value[i], "tls_ca", &s)) {
            fetch.tls_ca = s;
            continue;
        }

        if (ngx_http_ai_conf_arg(&value[i], "tls_verify", &s)) {

            if (ngx_http_ai_str_is(&s, "off")) {
                fetch.tls_verify = 0;

            } else if (!ngx_http_ai_str_is(&s, "on")) {
                goto invalid;
            }

            continue;
        }

        goto invalid;
    }

    hook->fetcher = rmcf->api->fetcher_create(cf, &fetch);
    if (hook->fetcher == NULL) {
        return NGX_CONF_ERROR;
    }

    rmcf->webhook = hook;

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\" of \"ai_alert_webhook\", "
                       "known are secret=, timeout=, tls_ca= and tls_verify=",
                       &value[i]);

    return NGX_CONF_ERROR;
}


void
ngx_http_ai_alert_post(ngx_http_ai_webhook_t *hook,
    ngx_http_ai_limit_zone_t *zone, ngx_str_t *key, ngx_uint_t meter,
    ngx_uint_t percent, ngx_http_ai_limit_state_t *state)
{
    ngx_str_t             time;
    ngx_pool_t           *pool;
    ngx_http_ai_out_t     out;
    ngx_http_ai_alert_t  *alert;

    if (hook->pending == NGX_HTTP_AI_WEBHOOK_PENDING) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "ai ratelimit: an alert is not posted to %V, %ui are "
                      "waiting", &hook->url, hook->pending);
        return;
    }

    pool = ngx_create_pool(1024, ngx_cycle->log);
    if (pool == NULL) {
        return;
    }

    alert = ngx_pcalloc(pool, sizeof(ngx_http_ai_alert_t));

    if (alert == NULL || ngx_http_ai_out_init(&out, pool, 512) != NGX_OK) {
        ngx_destroy_pool(pool);
        return;
    }

    time.data = ngx_cached_http_log_iso8601.data;
    time.len = ngx_cached_http_log_iso8601.len;

    ngx_http_ai_out_lit(&out, "{\"type\":\"quota\",\"zone\":\"");
    ngx_http_ai_out_escaped(&out, zone->name.data, zone->name.len);
    ngx_http_ai_out_lit(&out, "\",\"key\":\"");
    ngx_http_ai_out_escaped(&out, key->data, key->len);
    ngx_http_ai_out_lit(&out, "\",\"meter\":\"");
    ngx_http_ai_out_str(&out, ngx_http_ai_meter_name(meter));
    ngx_http_ai_out_lit(&out, "\",\"percent\":");
    ngx_http_ai_out_int(&out, (int64_t) percent);
    ngx_http_ai_out_lit(&out, ",\"used\":");
    ngx_http_ai_out_int(&out, state->used);
    ngx_http_ai_out_lit(&out, ",\"limit\":");
    ngx_http_ai_out_int(&out, state->limit);

    if (meter == NGX_HTTP_AI_METER_Q_MONEY) {
        ngx_http_ai_out_lit(&out, ",\"unit\":\"nano-USD\"");
    }

    ngx_http_ai_out_lit(&out, ",\"reset\":");
    ngx_http_ai_out_int(&out, (ngx_http_ai_zone_now()
                               + ngx_http_ai_limit_reset_time(state) + 500)
                              / 1000);
    ngx_http_ai_out_lit(&out, ",\"time\":\"");
    ngx_http_ai_out_str(&out, &time);
    ngx_http_ai_out_lit(&out, "\"}");

    if (out.failed) {
        ngx_destroy_pool(pool);
        return;
    }

    alert->fd = (ngx_socket_t) -1;
    alert->hook = hook;
    alert->pool = pool;
    alert->body.data = out.start;
    alert->body.len = out.last - out.start;

    alert->event.data = alert;
    alert->event.handler = ngx_http_ai_alert_timer;
    alert->event.log = ngx_cycle->log;
    alert->event.cancelable = 1;

    hook->pending++;

    if (ngx_http_ai_alert_send(alert) != NGX_OK) {
        ngx_http_ai_alert_again(alert, 0, "it could not be started");
    }
}


static ngx_int_t
ngx_http_ai_alert_send(ngx_http_ai_alert_t *alert)
{
    ngx_int_t             rc;
    ngx_pool_t           *pool;
    ngx_http_ai_fetch_t   f;

    alert->tries++;

    ngx_memzero(&f, sizeof(ngx_http_ai_fetch_t));

    pool = ngx_create_pool(512, ngx_cycle->log);
    if (pool == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_http_ai_alert_sign(alert, pool, &f.headers);

    if (rc == NGX_OK) {
        ngx_str_set(&f.method, "POST");
        f.body = alert->body;
        f.quiet = 1;
        f.handler = ngx_http_ai_alert_answer;
        f.data = alert;

        /* its texts are copied */
        rc = alert->hook->api->fetch(alert->hook->fetcher, NULL, &f);
    }

    ngx_destroy_pool(pool);

    return rc;
}


/* of the time and the body, so that an old one cannot be sent again */

static ngx_int_t
ngx_http_ai_alert_sign(ngx_http_ai_alert_t *alert, ngx_pool_t *pool,
    ngx_str_t *headers)
{
    u_char        *p, *text, digest[EVP_MAX_MD_SIZE];
    size_t         n;
    unsigned int   len;

    p = ngx_pnalloc(pool, sizeof("Content-Type: application/json" CRLF
                                 "X-AI-Timestamp: " CRLF
                                 "X-AI-Signature: sha256=" CRLF)
                          + NGX_TIME_T_LEN + 2 * EVP_MAX_MD_SIZE);
    if (p == NULL) {
        return NGX_ERROR;
    }

    headers->data = p;

    p = ngx_sprintf(p, "Content-Type: application/json" CRLF
                       "X-AI-Timestamp: %T" CRLF, ngx_time());

    if (alert->hook->secret.len) {

        text = ngx_pnalloc(pool, NGX_TIME_T_LEN + 1 + alert->body.len);
        if (text == NULL) {
            return NGX_ERROR;
        }

        n = ngx_sprintf(text, "%T.%V", ngx_time(), &alert->body) - text;

        if (HMAC(EVP_sha256(), alert->hook->secret.data,
                 (int) alert->hook->secret.len, text, n, digest, &len)
            == NULL)
        {
            return NGX_ERROR;
        }

        p = ngx_cpymem(p, "X-AI-Signature: sha256=",
                       sizeof("X-AI-Signature: sha256=") - 1);
        p = ngx_hex_dump(p, digest, len);
        *p++ = CR;
        *p++ = LF;
    }

    headers->len = p - headers->data;

    return NGX_OK;
}


static void
ngx_http_ai_alert_answer(ngx_http_ai_fetch_t *f)
{
    ngx_http_ai_alert_t  *alert;

    alert = f->data;

    if (f->status >= 200 && f->status < 300) {
        ngx_http_ai_alert_done(alert);
        return;
    }

    ngx_http_ai_alert_again(alert, f->status, f->error);
}


static void
ngx_http_ai_alert_again(ngx_http_ai_alert_t *alert, ngx_uint_t status,
    const char *error)
{
    ngx_uint_t  last, level;

    last = (alert->tries >= NGX_HTTP_AI_WEBHOOK_TRIES || ngx_exiting
            || ngx_terminate);

    level = last ? NGX_LOG_ERR : NGX_LOG_WARN;

    ngx_log_error(level, ngx_cycle->log, 0,
                  "ai ratelimit: an alert could not be posted to %V%s: "
                  "status %ui%s%s", &alert->hook->url,
                  last ? ", given up" : "", status, error ? ", " : "",
                  error ? error : "");

    if (last) {
        ngx_http_ai_alert_done(alert);
        return;
    }

    ngx_add_timer(&alert->event,
                  (ngx_msec_t) NGX_HTTP_AI_WEBHOOK_WAIT
                  << (2 * (alert->tries - 1)));
}


static void
ngx_http_ai_alert_timer(ngx_event_t *ev)
{
    ngx_http_ai_alert_t  *alert;

    alert = ev->data;

    if (ngx_http_ai_alert_send(alert) != NGX_OK) {
        ngx_http_ai_alert_again(alert, 0, "it could not be started");
    }
}


static void
ngx_http_ai_alert_done(ngx_http_ai_alert_t *alert)
{
    alert->hook->pending--;

    ngx_destroy_pool(alert->pool);
}
