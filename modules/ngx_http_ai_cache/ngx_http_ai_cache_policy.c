
/*
 * Copyright (C) nginx AI gateway authors
 */


/* what is looked for and stored, and what is not */


#include "ngx_http_ai_cache.h"
#include "ngx_http_ai_cache_recent.h"


#define NGX_HTTP_AI_CACHE_TTL_MAX  (10 * 365 * 24 * 3600)


static ngx_int_t ngx_http_ai_cache_use(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_cache_loc_conf_t *clcf,
    ngx_http_ai_cache_use_t **use);
static ngx_int_t ngx_http_ai_cache_times(ngx_http_ai_cached_t *c);
static ngx_int_t ngx_http_ai_cache_shared_by(ngx_http_ai_cached_t *c,
    ngx_str_t *scope);
static void ngx_http_ai_cache_control(ngx_http_ai_cached_t *c);
static void ngx_http_ai_cache_control_word(ngx_http_ai_cached_t *c, u_char *p,
    u_char *last);
static ngx_int_t ngx_http_ai_cache_make_key(ngx_http_ai_cached_t *c,
    ngx_str_t *scope);
static ngx_int_t ngx_http_ai_cache_vary(ngx_http_ai_cached_t *c,
    ngx_str_t *vary);
static ngx_int_t ngx_http_ai_cache_fill(ngx_http_ai_cached_t *c);
static ngx_int_t ngx_http_ai_cache_pass(ngx_http_ai_cached_t *c);
static ngx_uint_t ngx_http_ai_cache_capped(ngx_http_ai_cached_t *c);


ngx_int_t
ngx_http_ai_cache_prepare(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_cached_t **state)
{
    ngx_int_t                       rc;
    ngx_str_t                       scope;
    ngx_http_ai_cached_t           *c;
    ngx_http_ai_cache_use_t        *use;
    ngx_http_ai_cache_loc_conf_t   *clcf;
    ngx_http_ai_cache_main_conf_t  *cmcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_cache_module);

    if (clcf->uses == NULL) {
        return NGX_DECLINED;
    }

    rc = ngx_http_ai_cache_use(r, ctx, clcf, &use);

    if (rc != NGX_OK) {
        return rc;
    }

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_ai_cache_module);

    c = ngx_pcalloc(r->pool, sizeof(ngx_http_ai_cached_t));
    if (c == NULL) {
        return NGX_ERROR;
    }

    c->request = r;
    c->ctx = ctx;
    c->api = cmcf->api;
    c->conf = clcf;
    c->use = use;
    c->max_age = -1;

    ngx_http_ai_cache_control(c);

    if (use == NULL || c->no_store) {
        return ngx_http_ai_cache_pass(c);
    }

    c->zone = use->zone;

    rc = ngx_http_ai_cache_times(c);

    if (rc == NGX_OK) {
        rc = ngx_http_ai_cache_shared_by(c, &scope);
    }

    if (rc == NGX_OK) {
        rc = ngx_http_ai_cache_make_key(c, &scope);
    }

    if (rc == NGX_OK) {
        rc = ngx_http_ai_cache_fill(c);
    }

    if (rc == NGX_DECLINED) {
        return ngx_http_ai_cache_pass(c);
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_http_test_predicates(r, clcf->bypass);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (rc == NGX_DECLINED) {
        c->no_lookup = 1;
    }

    if (c->no_lookup && c->only) {
        return ngx_http_ai_cache_pass(c);
    }

    ctx->cache = c;
    *state = c;

    return NGX_OK;
}


/* the first that the request is for; NGX_DECLINED: none has its operation;
 * *use == NULL: their "if" says no */

static ngx_int_t
ngx_http_ai_cache_use(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_cache_loc_conf_t *clcf, ngx_http_ai_cache_use_t **use)
{
    ngx_int_t                 rc;
    ngx_str_t                 s;
    ngx_uint_t                i;
    ngx_http_ai_cache_use_t  *u;

    u = clcf->uses->elts;

    *use = NULL;
    rc = NGX_DECLINED;

    for (i = 0; i < clcf->uses->nelts; i++) {

        if (!(u[i].ops & ((ngx_uint_t) 1 << ctx->op))) {
            continue;
        }

        rc = NGX_OK;

        if (u[i].filter) {

            if (ngx_http_complex_value(r, u[i].filter, &s) != NGX_OK) {
                return NGX_ERROR;
            }

            if (s.len == 0 || ngx_http_ai_str_is(&s, "0")) {
                continue;
            }
        }

        *use = &u[i];
        break;
    }

    return rc;
}


static ngx_int_t
ngx_http_ai_cache_times(ngx_http_ai_cached_t *c)
{
    time_t     ttl;
    ngx_str_t  s;

    if (ngx_http_complex_value(c->request, c->use->ttl, &s) != NGX_OK) {
        return NGX_ERROR;
    }

    if (s.len == 0) {
        return NGX_DECLINED;
    }

    ttl = ngx_parse_time(&s, 1);

    if (ttl == (time_t) NGX_ERROR) {
        ngx_log_error(NGX_LOG_WARN, c->request->connection->log, 0,
                      "ai cache: \"ttl\" of \"%V\" is \"%V\", which is no "
                      "time", &c->zone->name, &s);
        return NGX_DECLINED;
    }

    if (ttl == 0) {
        return NGX_DECLINED;
    }

    c->ttl = (int64_t) ngx_min(ttl, NGX_HTTP_AI_CACHE_TTL_MAX) * 1000;

    return NGX_OK;
}


/* without a value nobody may share it: a variable that should tell tenants
 * apart does not */

static ngx_int_t
ngx_http_ai_cache_shared_by(ngx_http_ai_cached_t *c, ngx_str_t *scope)
{
    ngx_uint_t  level;

    ngx_str_null(scope);

    if (c->use->scope == NULL) {
        return NGX_OK;
    }

    if (ngx_http_complex_value(c->request, c->use->scope, scope) != NGX_OK) {
        return NGX_ERROR;
    }

    if (scope->len > c->use->literal) {
        return NGX_OK;
    }

    level = c->use->warned ? NGX_LOG_DEBUG : NGX_LOG_INFO;
    c->use->warned = 1;

    ngx_log_error(level, c->request->connection->log, 0,
                  "ai cache: \"scope\" of \"%V\" is empty, the request is not "
                  "cached, nor are others like it", &c->zone->name);

    return NGX_DECLINED;
}


static void
ngx_http_ai_cache_control(ngx_http_ai_cached_t *c)
{
    u_char           *p, *last, *comma;
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    for (part = &c->request->headers_in.headers.part; part; part = part->next)
    {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (h[i].key.len != sizeof("cache-control") - 1
                || ngx_strncasecmp(h[i].key.data, (u_char *) "cache-control",
                                   sizeof("cache-control") - 1)
                   != 0)
            {
                continue;
            }

            p = h[i].value.data;
            last = p + h[i].value.len;

            while (p < last) {
                comma = ngx_strlchr(p, last, ',');

                if (comma == NULL) {
                    comma = last;
                }

                ngx_http_ai_cache_control_word(c, p, comma);

                p = comma + 1;
            }
        }
    }
}


static void
ngx_http_ai_cache_control_word(ngx_http_ai_cached_t *c, u_char *p,
    u_char *last)
{
    size_t  len;
    time_t  n;

    while (p < last && (*p == ' ' || *p == '\t')) {
        p++;
    }

    while (last > p && (last[-1] == ' ' || last[-1] == '\t')) {
        last--;
    }

    len = last - p;

#define ngx_http_ai_cache_word(literal)                                       \
    (len == sizeof(literal) - 1                                               \
     && ngx_strncasecmp(p, (u_char *) literal, sizeof(literal) - 1) == 0)

    if (ngx_http_ai_cache_word("no-cache")) {
        c->no_lookup = 1;
        return;
    }

    if (ngx_http_ai_cache_word("no-store")) {
        c->no_store = 1;
        return;
    }

    if (ngx_http_ai_cache_word("only-if-cached")) {
        c->only = 1;
        return;
    }

    if (len > sizeof("max-age=") - 1
        && ngx_strncasecmp(p, (u_char *) "max-age=", sizeof("max-age=") - 1)
           == 0)
    {
        p += sizeof("max-age=") - 1;
        n = ngx_atotm(p, last - p);

        if (n != NGX_ERROR) {
            c->max_age = (int64_t) ngx_min(n, NGX_HTTP_AI_CACHE_TTL_MAX)
                         * 1000;
        }
    }
}


static ngx_int_t
ngx_http_ai_cache_make_key(ngx_http_ai_cached_t *c, ngx_str_t *scope)
{
    uint64_t                 tag[2];
    ngx_int_t                rc, recent;
    ngx_http_ai_ctx_t       *ctx;
    ngx_http_ai_error_t      err;
    ngx_http_ai_cache_ask_t  ask;

    static ngx_str_t         global = ngx_string("global");

    ctx = c->ctx;

    ask.dialect = ctx->dialect;
    ask.op = ctx->op;
    ask.json = &ctx->json;
    ask.model = ctx->model.len ? ctx->model : ctx->request_model;
    ask.plan = ctx->plan ? ctx->plan(ctx) : 0;
    ask.scope = *scope;
    ask.nh = ngx_http_ai_cache_nh(c->zone);

    if (ngx_http_ai_cache_vary(c, &ask.vary) != NGX_OK) {
        return NGX_ERROR;
    }

    recent = ngx_http_ai_cache_recent_find(c->request->pool, &ask, &ctx->body,
                                           tag, &c->key);

    if (recent == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (recent == NGX_OK) {
        return (c->key.deterministic || c->conf->any) ? NGX_OK : NGX_DECLINED;
    }

    ngx_memzero(&err, sizeof(ngx_http_ai_error_t));

    rc = c->api->parse_body(ctx, &err);

    if (rc != NGX_OK) {
        /* a limit is for those to tell who need the whole tree */
        return rc;
    }

    rc = ngx_http_ai_cache_key(c->request->pool, &ask, &c->key);

    if (rc == NGX_DECLINED) {
        ngx_log_debug1(NGX_LOG_DEBUG_HTTP, c->request->connection->log, 0,
                       "ai cache: no key: %s", c->key.why);
    }

    if (rc != NGX_OK) {
        return rc;
    }

    if (c->use->scope == NULL) {
        scope = &global;
    }

    c->key.scope = ngx_http_ai_cache_hash(scope->data, scope->len);
    c->key.model = ngx_http_ai_cache_hash(ask.model.data, ask.model.len);

    if (ctx->op == NGX_HTTP_AI_OP_EMBEDDINGS) {
        rc = ngx_http_ai_cache_inputs(c, &ask);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (recent == NGX_DECLINED && c->inputs == NULL) {
        ngx_http_ai_cache_recent_keep(tag, &c->key);
    }

    return (c->key.deterministic || c->conf->any) ? NGX_OK : NGX_DECLINED;
}


/* headers that go on to providers and change what they answer */

static ngx_int_t
ngx_http_ai_cache_vary(ngx_http_ai_cached_t *c, ngx_str_t *vary)
{
    size_t               len;
    ngx_str_t            value;
    ngx_uint_t           i;
    const char          *prefix;
    ngx_list_part_t     *part;
    ngx_table_elt_t     *h;
    ngx_http_request_t  *r;
    ngx_http_ai_out_t    out;

    r = c->request;

    if (ngx_http_ai_str_is(&c->ctx->dialect->name, "anthropic")) {
        prefix = "anthropic-";

    } else {
        prefix = "openai-";
    }

    len = ngx_strlen(prefix);

    if (ngx_http_ai_out_init(&out, r->pool, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (h[i].key.len <= len
                || ngx_strncasecmp(h[i].key.data, (u_char *) prefix, len) != 0)
            {
                continue;
            }

            if (h[i].key.len == sizeof("anthropic-version") - 1
                && ngx_strncasecmp(h[i].key.data,
                                   (u_char *) "anthropic-version",
                                   sizeof("anthropic-version") - 1)
                   == 0
                && ngx_http_ai_str_is(&h[i].value, "2023-06-01"))
            {
                /* what is sent without it too */
                continue;
            }

            ngx_http_ai_out_mem(&out, h[i].lowcase_key, h[i].key.len);
            ngx_http_ai_out_lit(&out, ":");
            ngx_http_ai_out_str(&out, &h[i].value);
            ngx_http_ai_out_lit(&out, "\n");
        }
    }

    if (r->args.len && len == sizeof("anthropic-") - 1
        && ngx_strnstr(r->args.data, "beta=true", r->args.len))
    {
        ngx_http_ai_out_lit(&out, "beta=true\n");
    }

    if (c->ctx->cost_usage) {
        ngx_http_ai_out_lit(&out, "cost\n");
    }

    if (c->use->vary) {

        if (ngx_http_complex_value(r, c->use->vary, &value) != NGX_OK) {
            return NGX_ERROR;
        }

        if (value.len) {
            /* no header has such a name */
            ngx_http_ai_out_lit(&out, ":");
            ngx_http_ai_out_str(&out, &value);
        }
    }

    if (out.failed) {
        return NGX_ERROR;
    }

    vary->data = out.start;
    vary->len = out.last - out.start;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_cache_fill(ngx_http_ai_cached_t *c)
{
    ngx_str_t                  tag;
    ngx_uint_t                 i;
    ngx_http_ai_ctx_t         *ctx;
    ngx_http_ai_cache_meta_t  *meta;

    ctx = c->ctx;
    meta = &c->meta;

    ngx_memcpy(meta->id, c->key.id, NGX_HTTP_AI_CACHE_ID);

    meta->scope = c->key.scope;
    meta->model = c->key.model;
    meta->created = ngx_http_ai_cache_now();
    meta->op = ctx->op;
    meta->stream = ctx->stream;
    meta->exact = c->key.exact;
    meta->include_usage = ctx->include_usage;

    for (i = 0; c->api->dialects[i]; i++) {
        if (c->api->dialects[i] == ctx->dialect) {
            meta->dialect = i;
        }
    }

    if (c->use->tag) {

        if (ngx_http_complex_value(c->request, c->use->tag, &tag) != NGX_OK) {
            return NGX_ERROR;
        }

        if (tag.len) {
            meta->tag = ngx_http_ai_cache_hash(tag.data, tag.len);
        }
    }

    return NGX_OK;
}


/* nobody is asked for it but a provider, which the client may not want */

static ngx_int_t
ngx_http_ai_cache_pass(ngx_http_ai_cached_t *c)
{
    c->ctx->cached = NGX_HTTP_AI_CACHE_BYPASS;

    if (!c->only) {
        return NGX_DECLINED;
    }

    return ngx_http_ai_cache_only(c);
}


ngx_int_t
ngx_http_ai_cache_only(ngx_http_ai_cached_t *c)
{
    ngx_str_t             value;
    ngx_http_ai_error_t   err;

    ngx_memzero(&err, sizeof(ngx_http_ai_error_t));

    err.class = NGX_HTTP_AI_ERR_TIMEOUT;
    err.status = NGX_HTTP_GATEWAY_TIME_OUT;
    ngx_str_set(&err.message, "The answer is not in the cache, and nothing "
                              "else was wanted (only-if-cached).");

    /* it would be the same */

    ngx_str_set(&value, "false");

    if (ngx_http_ai_header_add(&c->request->headers_out.headers,
                               "x-should-retry", &value)
        == NULL)
    {
        return NGX_ERROR;
    }

    c->ctx->free = 1;
    c->ctx->rc = c->api->send_error(c->request, c->ctx, &err, -1, 0);

    return NGX_DONE;
}


ngx_uint_t
ngx_http_ai_cache_storable(ngx_http_ai_cached_t *c)
{
    ngx_http_ai_ctx_t  *ctx;

    ctx = c->ctx;

    if (!ctx->complete || ctx->cut || ctx->recovered || c->no_store) {
        return 0;
    }

    if (ctx->output_cap >= 0
        && ngx_http_ai_json_member(&ctx->json, 0, "thinking")
           != NGX_HTTP_AI_JSON_NONE)
    {
        /* limits may have left less of it, or none */
        return 0;
    }

    switch (ctx->finish) {

    case NGX_HTTP_AI_FINISH_STOP:
    case NGX_HTTP_AI_FINISH_STOP_SEQUENCE:
    case NGX_HTTP_AI_FINISH_TOOL:
        break;

    case NGX_HTTP_AI_FINISH_LENGTH:

        if (!ngx_http_ai_cache_capped(c)) {
            return 0;
        }

        break;

    case NGX_HTTP_AI_FINISH_NONE:

        if (ctx->op != NGX_HTTP_AI_OP_EMBEDDINGS) {
            return 0;
        }

        break;

    default:
        return 0;
    }

    return ngx_http_test_predicates(c->request, c->conf->no_cache) == NGX_OK;
}


/* has the client said how long the answer may be, and nobody else?  It is the
 * same each time then */

static ngx_uint_t
ngx_http_ai_cache_capped(ngx_http_ai_cached_t *c)
{
    ngx_uint_t           n;
    ngx_http_ai_json_t  *j;

    if (c->ctx->output_cap >= 0) {
        /* what limits have left is another amount the next time */
        return 0;
    }

    j = &c->ctx->json;

    n = ngx_http_ai_json_member(j, 0, "max_tokens");

    if (ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_NUMBER) {
        return 1;
    }

    n = ngx_http_ai_json_member(j, 0, "max_completion_tokens");

    return ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_NUMBER;
}


ngx_uint_t
ngx_http_ai_cache_use_stale(ngx_http_ai_cached_t *c, ngx_http_ai_err_e class)
{
    ngx_uint_t  mask;

    if (!c->stale) {
        return 0;
    }

    switch (class) {

    case NGX_HTTP_AI_ERR_TIMEOUT:
        mask = NGX_HTTP_AI_STALE_TIMEOUT;
        break;

    case NGX_HTTP_AI_ERR_RATE_LIMIT:
    case NGX_HTTP_AI_ERR_QUOTA:
        mask = NGX_HTTP_AI_STALE_429;
        break;

    case NGX_HTTP_AI_ERR_SERVER:
    case NGX_HTTP_AI_ERR_OVERLOADED:
    case NGX_HTTP_AI_ERR_INTERNAL:
        mask = NGX_HTTP_AI_STALE_5XX;
        break;

    case NGX_HTTP_AI_ERR_SATURATED:
        /* a breaker is open, whatever has opened it */
        mask = NGX_HTTP_AI_STALE_ERROR|NGX_HTTP_AI_STALE_TIMEOUT
               |NGX_HTTP_AI_STALE_5XX;
        break;

    case NGX_HTTP_AI_ERR_CONNECT:
    case NGX_HTTP_AI_ERR_INCOMPLETE:
    case NGX_HTTP_AI_ERR_INVALID_ANSWER:
    case NGX_HTTP_AI_ERR_AUTH:
    case NGX_HTTP_AI_ERR_BILLING:
        mask = NGX_HTTP_AI_STALE_ERROR;
        break;

    default:
        /* the request is at fault */
        return 0;
    }

    return (c->conf->use_stale & mask) != 0;
}
