
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * What the spans of a request consist of, in whichever encoding.  Names of
 * attributes: OpenTelemetry's semantic conventions for HTTP and for GenAI,
 * Langfuse's, and nginx_ai.* for what has no name there; docs/traces.md lists
 * them.  What is usual, empty, zero or told by another one is left out: with
 * every request recorded each byte counts.
 */


#include "ngx_http_ai_trace.h"
#include "ngx_http_ai_log.h"


/* longest value of an attribute that a client can choose */
#define NGX_HTTP_AI_SPAN_VALUE   1024


typedef struct {
    ngx_http_request_t              *request;
    ngx_http_ai_ctx_t               *ctx;
    ngx_http_ai_trace_t             *trace;
    ngx_http_ai_trace_loc_conf_t    *tlcf;
    ngx_http_ai_otlp_t              *writer;
    int64_t                          wall;    /* ms of the clock at 0 of
                                                 ngx_current_msec */
    ngx_uint_t                       ntries;
    ngx_http_ai_try_t                tries[NGX_HTTP_AI_TRACE_ATTEMPTS];
} ngx_http_ai_span_t;


typedef struct {
    ngx_str_t                        vendor;
    ngx_str_t                        name;
} ngx_http_ai_span_vendor_t;


static void ngx_http_ai_span_server(ngx_http_ai_span_t *s);
static void ngx_http_ai_span_request(ngx_http_ai_span_t *s);
static void ngx_http_ai_span_principal(ngx_http_ai_span_t *s);
static void ngx_http_ai_span_custom(ngx_http_ai_span_t *s);
static void ngx_http_ai_span_list(ngx_http_ai_otlp_t *w, ngx_str_t *name,
    ngx_str_t *value);
static void ngx_http_ai_span_content(ngx_http_ai_span_t *s);
static void ngx_http_ai_span_events(ngx_http_ai_span_t *s);
static void ngx_http_ai_span_attempt(ngx_http_ai_span_t *s, ngx_uint_t n);
static void ngx_http_ai_span_open(ngx_http_ai_span_t *s,
    ngx_http_ai_otlp_span_t *span, ngx_str_t *model);
static void ngx_http_ai_span_usage(ngx_http_ai_span_t *s,
    ngx_http_ai_usage_t *u, ngx_http_ai_finish_e finish);
static ngx_str_t *ngx_http_ai_span_vendor(ngx_str_t *vendor);


static ngx_str_t  ngx_http_ai_span_scope = ngx_string("nginx-ai-gateway");
static ngx_str_t  ngx_http_ai_span_language = ngx_string("c");
static ngx_str_t  ngx_http_ai_span_version = ngx_string(NGX_HTTP_AI_VERSION);

static ngx_str_t  ngx_http_ai_span_none = ngx_string("request");

static ngx_str_t  ngx_http_ai_span_child = ngx_string("span");

static ngx_str_t  ngx_http_ai_event_retry = ngx_string("retry");
static ngx_str_t  ngx_http_ai_event_fallback = ngx_string("fallback");
static ngx_str_t  ngx_http_ai_event_cache = ngx_string("cache");
static ngx_str_t  ngx_http_ai_event_limit = ngx_string("limit");
static ngx_str_t  ngx_http_ai_event_first = ngx_string("first_token");


/* values of gen_ai.provider.name that differ from the vendor's name here */

static ngx_http_ai_span_vendor_t  ngx_http_ai_span_vendors[] = {
    { ngx_string("azure"), ngx_string("azure.ai.openai") },
    { ngx_string("mistral"), ngx_string("mistral_ai") },
    { ngx_string("xai"), ngx_string("x_ai") },
    { ngx_null_string, ngx_null_string }
};


#define ngx_http_ai_attr(w, type, name, ...)                                  \
    do {                                                                      \
        static const ngx_http_ai_otlp_key_t  key = ngx_http_ai_otlp_key(name);\
        (w)->encoding->type(w, &key, __VA_ARGS__);                            \
    } while (0)

#define ngx_http_ai_attr_word(w, name, value)                                 \
    ngx_http_ai_attr(w, word, name, value)

#define ngx_http_ai_attr_int(w, name, value)                                  \
    ngx_http_ai_attr(w, number, name, value)

/* texts of others, which may be empty */

#define ngx_http_ai_attr_text(w, name, value)                                 \
    if ((value)->len) {                                                       \
        ngx_http_ai_attr(w, text, name, (value)->data,                        \
                         ngx_min((value)->len, NGX_HTTP_AI_SPAN_VALUE));      \
    }

#define ngx_http_ai_attr_true(w, name)                                        \
    do {                                                                      \
        static const ngx_http_ai_otlp_key_t  key = ngx_http_ai_otlp_key(name);\
        (w)->encoding->flag(w, &key);                                         \
    } while (0)


void
ngx_http_ai_trace_resource(ngx_http_ai_otlp_t *w, ngx_str_t *service)
{
    ngx_str_t  host;

    host = ngx_cycle->hostname;

    w->encoding->open(w);

    ngx_http_ai_attr_text(w, "service.name", service);
    ngx_http_ai_attr_text(w, "host.name", &host);
    ngx_http_ai_attr_word(w, "telemetry.sdk.name", &ngx_http_ai_span_scope);
    ngx_http_ai_attr_word(w, "telemetry.sdk.language",
                          &ngx_http_ai_span_language);
    ngx_http_ai_attr_word(w, "telemetry.sdk.version",
                          &ngx_http_ai_span_version);

    w->encoding->scope(w, &ngx_http_ai_span_scope, &ngx_http_ai_span_version);
}


ngx_uint_t
ngx_http_ai_trace_spans(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_trace_t *t, ngx_http_ai_trace_loc_conf_t *tlcf,
    ngx_http_ai_otlp_t *w)
{
    ngx_uint_t           n;
    ngx_time_t          *tp;
    ngx_http_ai_span_t   s;

    tp = ngx_timeofday();

    s.request = r;
    s.ctx = ctx;
    s.trace = t;
    s.tlcf = tlcf;
    s.writer = w;
    s.wall = (int64_t) tp->sec * 1000 + tp->msec - (int64_t) ngx_current_msec;
    s.ntries = 0;

    if (ctx->attempt) {

        while (s.ntries < NGX_HTTP_AI_TRACE_ATTEMPTS
               && ctx->attempt(ctx, s.ntries, &s.tries[s.ntries]) == NGX_OK)
        {
            s.ntries++;
        }
    }

    for (n = 0; n < s.ntries; n++) {
        ngx_http_ai_span_attempt(&s, n);
    }

    ngx_http_ai_span_server(&s);

    return s.ntries + 1;
}


static void
ngx_http_ai_span_server(ngx_http_ai_span_t *s)
{
    u_char                    text[NGX_INT_T_LEN];
    ngx_str_t                 value;
    ngx_uint_t                status;
    ngx_http_ai_ctx_t        *ctx;
    ngx_http_ai_otlp_t       *w;
    ngx_http_request_t       *r;
    ngx_http_ai_otlp_span_t   span;

    r = s->request;
    ctx = s->ctx;
    w = s->writer;

    span.id = s->trace->span;
    span.parent = s->trace->parent;
    span.remote = (span.parent != 0);
    span.kind = NGX_HTTP_AI_OTLP_SERVER;
    span.end = s->wall + (int64_t) ngx_current_msec;

    /* of two clocks: what belongs to the request must not begin before it */

    span.start = (int64_t) r->start_sec * 1000 + (int64_t) r->start_msec;
    span.start = ngx_min(span.start, s->wall + (int64_t) ctx->start);
    span.start = ngx_min(span.start, span.end);

    ngx_http_ai_span_open(s, &span, ctx->model.len ? &ctx->model
                                                   : &ctx->request_model);

    status = r->err_status ? r->err_status : r->headers_out.status;

    if (status == 0) {
        /* the client has left before there was an answer */
        status = NGX_HTTP_CLIENT_CLOSED_REQUEST;
    }

    ngx_http_ai_attr_text(w, "http.request.method", &r->method_name);
    ngx_http_ai_attr_text(w, "url.path", &r->uri);
    ngx_http_ai_attr_int(w, "http.response.status_code", (int64_t) status);
    ngx_http_ai_attr_text(w, "client.address", &r->connection->addr_text);

    ngx_http_ai_span_request(s);

    if (ctx->usage_state != NGX_HTTP_AI_USAGE_NONE) {
        ngx_http_ai_span_usage(s, &ctx->usage, ctx->finish);

        if (ctx->usage_state != NGX_HTTP_AI_USAGE_PROVIDER) {
            ngx_http_ai_attr_word(w, "nginx_ai.usage.state",
                                  ngx_http_ai_usage_name(ctx->usage_state));
        }

        if (ctx->cost >= 0) {
            ngx_http_ai_attr(w, nano, "gen_ai.usage.cost", ctx->cost);

            if (!ngx_http_ai_str_is(&ctx->price_version,
                                    NGX_HTTP_AI_PRICE_CONF))
            {
                ngx_http_ai_attr_text(w, "nginx_ai.price.version",
                                      &ctx->price_version);
            }
        }
    }

    ngx_http_ai_span_principal(s);
    ngx_http_ai_span_custom(s);

    if (s->tlcf->content) {
        ngx_http_ai_span_content(s);
    }

    if (ctx->error != NGX_HTTP_AI_ERR_NONE) {
        ngx_http_ai_attr_word(w, "error.type",
                              ngx_http_ai_err_name(ctx->error));

    } else if (status >= 400) {
        value.data = text;
        value.len = ngx_sprintf(text, "%ui", status) - text;

        ngx_http_ai_attr_word(w, "error.type", &value);
    }

    ngx_http_ai_span_events(s);

    w->encoding->end(w, status >= 500 || ctx->error != NGX_HTTP_AI_ERR_NONE);
}


static void
ngx_http_ai_span_request(ngx_http_ai_span_t *s)
{
    ngx_str_t           *op;
    ngx_uint_t           i;
    ngx_http_ai_ctx_t   *ctx;
    ngx_http_ai_try_t   *t;
    ngx_http_ai_otlp_t  *w;

    ctx = s->ctx;
    w = s->writer;

    op = ngx_http_ai_op_name(ctx->op);

    if (op->len) {
        ngx_http_ai_attr_word(w, "gen_ai.operation.name", op);
    }

    ngx_http_ai_attr_text(w, "gen_ai.request.model", &ctx->request_model);
    ngx_http_ai_attr_text(w, "nginx_ai.request.id", &ctx->request_id);

    if (ctx->stream) {
        ngx_http_ai_attr_true(w, "gen_ai.request.stream");

        if (ctx->ttft >= 0) {
            ngx_http_ai_attr(w, nano, "gen_ai.response.time_to_first_chunk",
                             (int64_t) ctx->ttft * 1000000);
        }
    }

    if (ctx->model.len != ctx->request_model.len
        || ngx_memcmp(ctx->model.data, ctx->request_model.data,
                      ctx->model.len)
           != 0)
    {
        ngx_http_ai_attr_text(w, "nginx_ai.model", &ctx->model);
    }

    ngx_http_ai_attr_text(w, "nginx_ai.provider", &ctx->provider);

    if (ctx->attempts > 1) {
        ngx_http_ai_attr_int(w, "nginx_ai.attempts", (int64_t) ctx->attempts);
    }

    if (ctx->cached != NGX_HTTP_AI_CACHE_NONE) {
        ngx_http_ai_attr_word(w, "nginx_ai.cache",
                              ngx_http_ai_cached_word(ctx->cached));
    }

    if (s->ntries == 0) {
        return;
    }

    /* the provider that has answered, or was asked last */

    for (i = 0; i < s->ntries - 1 && !s->tries[i].won; i++) { /* void */ }

    t = &s->tries[i];

    ngx_http_ai_attr_word(w, "gen_ai.provider.name",
                          ngx_http_ai_span_vendor(&t->vendor));

    if (t->won) {
        ngx_http_ai_attr_text(w, "gen_ai.response.model", &t->model);
    }
}


static void
ngx_http_ai_span_principal(ngx_http_ai_span_t *s)
{
    ngx_http_ai_otlp_t       *w;
    ngx_http_ai_principal_t  *p;

    p = s->ctx->principal;
    w = s->writer;

    if (p == NULL) {
        return;
    }

    ngx_http_ai_attr_text(w, "nginx_ai.key.id", &p->key_id);
    ngx_http_ai_attr_text(w, "nginx_ai.tenant", &p->tenant);
    ngx_http_ai_attr_text(w, "nginx_ai.team", &p->team);
    ngx_http_ai_attr_text(w, "user.id", &p->user);
    ngx_http_ai_attr_text(w, "langfuse.user.id", &p->user);
}


static void
ngx_http_ai_span_custom(ngx_http_ai_span_t *s)
{
    ngx_str_t                       value;
    ngx_uint_t                      i;
    ngx_http_ai_otlp_t             *w;
    ngx_http_ai_trace_attribute_t  *a;

    if (s->tlcf->attributes == NULL) {
        return;
    }

    w = s->writer;
    a = s->tlcf->attributes->elts;

    for (i = 0; i < s->tlcf->attributes->nelts; i++) {

        if (ngx_http_complex_value(s->request, a[i].value, &value) != NGX_OK
            || value.len == 0)
        {
            continue;
        }

        if (a[i].list) {
            ngx_http_ai_span_list(w, &a[i].name, &value);
            continue;
        }

        w->encoding->named(w, a[i].name.data, a[i].name.len, value.data,
                           ngx_min(value.len, NGX_HTTP_AI_SPAN_VALUE));
    }
}


/* texts with a comma between them, and white space around */

static void
ngx_http_ai_span_list(ngx_http_ai_otlp_t *w, ngx_str_t *name,
    ngx_str_t *value)
{
    u_char  *p, *last, *end, *start;

    w->encoding->list(w, name);

    p = value->data;
    last = p + ngx_min(value->len, NGX_HTTP_AI_SPAN_VALUE);

    while (p < last) {

        start = p;

        while (p < last && *p != ',') {
            p++;
        }

        end = p++;

        while (start < end && *start == ' ') {
            start++;
        }

        while (start < end && end[-1] == ' ') {
            end--;
        }

        if (start < end) {
            w->encoding->item(w, start, end - start);
        }
    }

    w->encoding->list_end(w);
}


/* JSON in a string: attributes are no objects */

static void
ngx_http_ai_span_content(ngx_http_ai_span_t *s)
{
    ngx_http_ai_out_t    input, output;
    ngx_http_ai_otlp_t  *w;

    w = s->writer;

    ngx_http_ai_log_messages(s->request, s->ctx, s->tlcf->content, &input,
                             &output);

    if (input.start && !input.failed) {
        ngx_http_ai_attr(w, text, "gen_ai.input.messages", input.start,
                         input.last - input.start);
    }

    if (output.start && !output.failed) {
        ngx_http_ai_attr(w, text, "gen_ai.output.messages", output.start,
                         output.last - output.start);
    }
}


static void
ngx_http_ai_span_events(ngx_http_ai_span_t *s)
{
    ngx_str_t           *event, *reason;
    ngx_uint_t           i;
    ngx_http_ai_ctx_t   *ctx;
    ngx_http_ai_try_t   *t;
    ngx_http_ai_otlp_t  *w;

    ctx = s->ctx;
    w = s->writer;

    for (i = 1; i < s->ntries; i++) {
        t = &s->tries[i];

        event = &ngx_http_ai_event_fallback;

        if (t->target.len == t[-1].target.len
            && ngx_strncmp(t->target.data, t[-1].target.data, t->target.len)
               == 0)
        {
            event = &ngx_http_ai_event_retry;
        }

        w->encoding->event(w, s->wall + (int64_t) t->start, event);

        ngx_http_ai_attr_text(w, "nginx_ai.target", &t->target);

        reason = ngx_http_ai_err_name(t[-1].error);

        if (reason->len) {
            ngx_http_ai_attr_word(w, "nginx_ai.reason", reason);
        }

        w->encoding->event_end(w);
    }

    if (ctx->cached == NGX_HTTP_AI_CACHE_HIT
        || ctx->cached == NGX_HTTP_AI_CACHE_STALE
        || ctx->cached == NGX_HTTP_AI_CACHE_COALESCED)
    {
        w->encoding->event(w, s->wall + (int64_t) ctx->start,
                           &ngx_http_ai_event_cache);
        ngx_http_ai_attr_word(w, "nginx_ai.cache",
                              ngx_http_ai_cached_word(ctx->cached));
        w->encoding->event_end(w);
    }

    if (ctx->attempts == 0
        && (ctx->error == NGX_HTTP_AI_ERR_RATE_LIMIT
            || ctx->error == NGX_HTTP_AI_ERR_QUOTA
            || ctx->error == NGX_HTTP_AI_ERR_BILLING))
    {
        w->encoding->event(w, s->wall + (int64_t) ngx_current_msec,
                           &ngx_http_ai_event_limit);
        ngx_http_ai_attr_word(w, "error.type",
                              ngx_http_ai_err_name(ctx->error));
        w->encoding->event_end(w);
    }

    if (ctx->stream && ctx->ttft >= 0) {
        w->encoding->event(w, s->wall + (int64_t) ctx->start + ctx->ttft,
                           &ngx_http_ai_event_first);
        w->encoding->event_end(w);
    }
}


static void
ngx_http_ai_span_attempt(ngx_http_ai_span_t *s, ngx_uint_t n)
{
    ngx_str_t                *op;
    ngx_http_ai_try_t        *t;
    ngx_http_ai_otlp_t       *w;
    ngx_http_ai_otlp_span_t   span;

    t = &s->tries[n];
    w = s->writer;

    span.id = s->trace->attempts[n];
    span.parent = s->trace->span;
    span.remote = 0;
    span.kind = NGX_HTTP_AI_OTLP_CLIENT;
    span.start = s->wall + (int64_t) t->start;
    span.end = (t->duration < 0) ? s->wall + (int64_t) ngx_current_msec
                                 : span.start + t->duration;

    ngx_http_ai_span_open(s, &span, &t->model);

    /* one observation of Langfuse counts the tokens, that of the request */

    ngx_http_ai_attr_word(w, "langfuse.observation.type",
                          &ngx_http_ai_span_child);

    op = ngx_http_ai_op_name(s->ctx->op);

    if (op->len) {
        ngx_http_ai_attr_word(w, "gen_ai.operation.name", op);
    }

    ngx_http_ai_attr_word(w, "gen_ai.provider.name",
                          ngx_http_ai_span_vendor(&t->vendor));
    ngx_http_ai_attr_text(w, "gen_ai.request.model", &t->model);
    ngx_http_ai_attr_text(w, "nginx_ai.provider", &t->provider);
    ngx_http_ai_attr_text(w, "cloud.region", &t->region);
    ngx_http_ai_attr_text(w, "nginx_ai.upstream.request_id", &t->upstream_id);

    if (t->status && t->status != NGX_HTTP_OK) {
        ngx_http_ai_attr_int(w, "http.response.status_code",
                             (int64_t) t->status);
    }

    ngx_http_ai_span_usage(s, t->usage, t->finish);

    if (t->error != NGX_HTTP_AI_ERR_NONE) {
        ngx_http_ai_attr_word(w, "error.type",
                              ngx_http_ai_err_name(t->error));

    } else if (t->canceled && !t->won) {
        ngx_http_ai_attr_true(w, "nginx_ai.canceled");
    }

    if (s->ctx->stream && t->first >= 0) {
        w->encoding->event(w, span.start + t->first, &ngx_http_ai_event_first);
        w->encoding->event_end(w);
    }

    w->encoding->end(w, t->error != NGX_HTTP_AI_ERR_NONE);
}


static void
ngx_http_ai_span_open(ngx_http_ai_span_t *s, ngx_http_ai_otlp_span_t *span,
    ngx_str_t *model)
{
    span->high = s->trace->high;
    span->low = s->trace->low;
    span->state = s->trace->state;

    span->operation = *ngx_http_ai_op_name(s->ctx->op);

    if (span->operation.len == 0) {
        span->operation = ngx_http_ai_span_none;
    }

    span->model = *model;
    span->model.len = ngx_min(model->len, NGX_HTTP_AI_SPAN_VALUE);

    s->writer->encoding->span(s->writer, span);
}


/* gen_ai.usage.input_tokens has all input, that of caches too */

static void
ngx_http_ai_span_usage(ngx_http_ai_span_t *s, ngx_http_ai_usage_t *u,
    ngx_http_ai_finish_e finish)
{
    ngx_http_ai_otlp_t  *w;

    w = s->writer;

    if (u->in_fresh >= 0) {
        ngx_http_ai_attr_int(w, "gen_ai.usage.input_tokens",
                             ngx_http_ai_usage_input(u));
    }

    if (u->out >= 0) {
        ngx_http_ai_attr_int(w, "gen_ai.usage.output_tokens", u->out);
    }

    if (u->cache_read > 0) {
        ngx_http_ai_attr_int(w, "gen_ai.usage.cache_read.input_tokens",
                             u->cache_read);
    }

    if (u->cache_write > 0) {
        ngx_http_ai_attr_int(w, "gen_ai.usage.cache_creation.input_tokens",
                             u->cache_write);
    }

    if (u->reasoning > 0) {
        ngx_http_ai_attr_int(w, "gen_ai.usage.reasoning.output_tokens",
                             u->reasoning);
    }

    if (finish != NGX_HTTP_AI_FINISH_NONE) {
        ngx_http_ai_attr(w, single, "gen_ai.response.finish_reasons",
                         ngx_http_ai_finish_name(finish));
    }
}


static ngx_str_t *
ngx_http_ai_span_vendor(ngx_str_t *vendor)
{
    ngx_http_ai_span_vendor_t  *v;

    for (v = ngx_http_ai_span_vendors; v->vendor.len; v++) {
        if (v->vendor.len == vendor->len
            && ngx_strncmp(v->vendor.data, vendor->data, vendor->len) == 0)
        {
            return &v->name;
        }
    }

    return vendor;
}
