
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * One line in the error log for each refusal: who, from where, what, why; and
 * never what was sent as a credential, but eight digits of its hash.  Whoever
 * guesses keys must not fill the disk, so the lines of a second are counted.
 */


#include "ngx_http_ai_auth.h"
#include <openssl/evp.h>


#define NGX_HTTP_AI_AUTH_LOG_FIELD  256       /* bytes of a field */


static ngx_uint_t ngx_http_ai_auth_log_pass(ngx_uint_t rate);
static void ngx_http_ai_auth_log_timer(ngx_event_t *ev);
static u_char *ngx_http_ai_auth_log_field(u_char *p, u_char *last,
    const char *name, ngx_str_t *value);
static u_char *ngx_http_ai_auth_log_fingerprint(u_char *p, u_char *last,
    ngx_str_t *credential);


static ngx_str_t  ngx_http_ai_auth_reasons[] = {
    ngx_string("ok"),
    ngx_string("none"),
    ngx_string("malformed"),
    ngx_string("unknown"),
    ngx_string("disabled"),
    ngx_string("revoked"),
    ngx_string("expired"),
    ngx_string("not_yet"),
    ngx_string("signature"),
    ngx_string("claims"),
    ngx_string("scope"),
    ngx_string("model"),
    ngx_string("provider"),
    ngx_string("endpoint"),
    ngx_string("policy"),
    ngx_string("unavailable"),
    ngx_string("conflict")
};


static time_t            ngx_http_ai_auth_log_second;
static ngx_uint_t        ngx_http_ai_auth_log_lines;
static ngx_uint_t        ngx_http_ai_auth_log_more;
static ngx_event_t       ngx_http_ai_auth_log_event;
static ngx_connection_t  ngx_http_ai_auth_log_dummy;


ngx_str_t *
ngx_http_ai_auth_reason_name(ngx_http_ai_auth_reason_e reason)
{
    return &ngx_http_ai_auth_reasons[reason];
}


void
ngx_http_ai_auth_log_refusal(ngx_http_request_t *r,
    ngx_http_ai_auth_ctx_t *actx)
{
    u_char                        *p, *last, *query, buf[NGX_MAX_ERROR_STR];
    ngx_str_t                      uri, detail;
    ngx_http_ai_ctx_t             *ctx;
    ngx_http_ai_principal_t       *pr;
    ngx_http_ai_auth_main_conf_t  *aamcf;

    if (actx->logged) {
        return;
    }

    actx->logged = 1;

    aamcf = ngx_http_get_module_main_conf(r, ngx_http_ai_auth_module);

    (void) ngx_atomic_fetch_add(&aamcf->refusals[actx->reason], 1);

    if (aamcf->log_rate == 0 || !ngx_http_ai_auth_log_pass(aamcf->log_rate)) {
        return;
    }

    pr = &actx->principal;

    p = buf;
    last = buf + NGX_MAX_ERROR_STR - 1;

    p = ngx_slprintf(p, last, "ai auth: refused: reason=%V",
                     ngx_http_ai_auth_reason_name(actx->reason));

    p = ngx_http_ai_auth_log_field(p, last, "key", &pr->key_id);
    p = ngx_http_ai_auth_log_field(p, last, "tenant", &pr->tenant);
    p = ngx_http_ai_auth_log_field(p, last, "user", &pr->user);
    p = ngx_http_ai_auth_log_fingerprint(p, last, &actx->credential);
    p = ngx_http_ai_auth_log_field(p, last, "addr",
                                   &r->connection->addr_text);
    p = ngx_http_ai_auth_log_field(p, last, "method", &r->method_name);

    /* what follows "?" may hold anything */

    uri = r->unparsed_uri;
    query = ngx_strlchr(uri.data, uri.data + uri.len, '?');

    if (query) {
        uri.len = query - uri.data;
    }

    p = ngx_http_ai_auth_log_field(p, last, "uri", &uri);

    ctx = aamcf->api->get_ctx(r);

    if (ctx && ctx->request_model.len) {
        p = ngx_http_ai_auth_log_field(p, last, "model", &ctx->request_model);
    }

    if (actx->rule.len) {
        p = ngx_http_ai_auth_log_field(p, last, "rule", &actx->rule);
    }

    if (actx->reason == NGX_HTTP_AI_AUTH_POLICY
        || actx->reason == NGX_HTTP_AI_AUTH_ENDPOINT)
    {
        p = ngx_http_ai_auth_log_field(p, last, "detail", &actx->text);

    } else if (actx->detail) {
        detail.data = (u_char *) actx->detail;
        detail.len = ngx_strlen(actx->detail);
        p = ngx_http_ai_auth_log_field(p, last, "detail", &detail);
    }

    ngx_log_error(NGX_LOG_NOTICE, r->connection->log, 0, "%*s",
                  (size_t) (p - buf), buf);
}


ngx_int_t
ngx_http_ai_auth_log_handler(ngx_http_request_t *r)
{
    ngx_http_ai_auth_ctx_t  *actx;

    actx = ngx_http_ai_auth_get_ctx(r);

    if (actx == NULL || actx->logged || actx->anonymous) {
        return NGX_OK;
    }

    /* by the router, or with "satisfy any" by all modules */

    if ((!actx->known && actx->reason == NGX_HTTP_AI_AUTH_NONE)
        || ngx_http_ai_auth_denied(r, actx))
    {
        ngx_http_ai_auth_log_refusal(r, actx);
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_http_ai_auth_log_pass(ngx_uint_t rate)
{
    ngx_event_t  *ev;

    if (ngx_http_ai_auth_log_second != ngx_time()) {
        ngx_http_ai_auth_log_second = ngx_time();
        ngx_http_ai_auth_log_lines = 0;
    }

    if (ngx_http_ai_auth_log_lines < rate) {
        ngx_http_ai_auth_log_lines++;
        return 1;
    }

    ngx_http_ai_auth_log_more++;

    ev = &ngx_http_ai_auth_log_event;

    if (!ev->timer_set) {
        ngx_http_ai_auth_log_dummy.fd = (ngx_socket_t) -1;

        ev->handler = ngx_http_ai_auth_log_timer;
        ev->data = &ngx_http_ai_auth_log_dummy;
        ev->log = ngx_cycle->log;
        ev->cancelable = 1;

        ngx_add_timer(ev, 1000);
    }

    return 0;
}


static void
ngx_http_ai_auth_log_timer(ngx_event_t *ev)
{
    ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                  "ai auth: refused: %ui more were not logged",
                  ngx_http_ai_auth_log_more);

    ngx_http_ai_auth_log_more = 0;
}


/* name=value, quoted when it is more than a word; "-" when empty */

static u_char *
ngx_http_ai_auth_log_field(u_char *p, u_char *last, const char *name,
    ngx_str_t *value)
{
    u_char      ch;
    size_t      i, len;
    ngx_uint_t  quote;

    p = ngx_slprintf(p, last, " %s=", name);

    if (value->len == 0) {
        return ngx_slprintf(p, last, "-");
    }

    len = ngx_min(value->len, NGX_HTTP_AI_AUTH_LOG_FIELD);
    quote = 0;

    for (i = 0; i < len; i++) {
        ch = value->data[i];

        if (ch <= 0x20 || ch >= 0x7f || ch == '"' || ch == '\\' || ch == '=') {
            quote = 1;
            break;
        }
    }

    if (quote) {
        p = ngx_slprintf(p, last, "\"");
    }

    for (i = 0; i < len && last - p > 8; i++) {
        ch = value->data[i];

        if (ch < 0x20 || ch >= 0x7f || ch == '"' || ch == '\\') {
            p = ngx_slprintf(p, last, "\\x%02xd", (int) ch);
            continue;
        }

        *p++ = ch;
    }

    if (i < value->len) {
        p = ngx_slprintf(p, last, "...");
    }

    return quote ? ngx_slprintf(p, last, "\"") : p;
}


static u_char *
ngx_http_ai_auth_log_fingerprint(u_char *p, u_char *last,
    ngx_str_t *credential)
{
    u_char        digest[EVP_MAX_MD_SIZE], hex[8];
    unsigned int  len;

    if (credential->len == 0
        || EVP_Digest(credential->data, credential->len, digest, &len,
                      EVP_sha256(), NULL)
           != 1)
    {
        return ngx_slprintf(p, last, " credential=-");
    }

    (void) ngx_hex_dump(hex, digest, 4);

    return ngx_slprintf(p, last, " credential=%*s", (size_t) 8, hex);
}
