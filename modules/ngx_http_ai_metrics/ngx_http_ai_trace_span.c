
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Spans as OTLP's JSON has them (opentelemetry-proto, trace.proto, by the JSON
 * mapping of the OTLP specification): ids in hex, 64-bit numbers as strings,
 * enums as numbers.  Names of attributes: OpenTelemetry's semantic conventions
 * for HTTP and for GenAI, Langfuse's, and nginx_ai.* for what has no name
 * there; docs/traces.md lists them.
 */


#include "ngx_http_ai_trace.h"
#include "ngx_http_ai_log.h"


#define NGX_HTTP_AI_SPAN_SERVER  "2"
#define NGX_HTTP_AI_SPAN_CLIENT  "3"

/* longest value of an attribute that a client can choose */
#define NGX_HTTP_AI_SPAN_VALUE   1024

#define NGX_HTTP_AI_SPAN_SIZE    8192


typedef struct {
    ngx_http_request_t              *request;
    ngx_http_ai_ctx_t               *ctx;
    ngx_http_ai_trace_t             *trace;
    ngx_http_ai_trace_loc_conf_t    *tlcf;
    ngx_http_ai_out_t               *out;
    int64_t                          wall;    /* ms of the clock at 0 of
                                                 ngx_current_msec */
} ngx_http_ai_span_t;


typedef struct {
    ngx_str_t                        vendor;
    ngx_str_t                        name;
} ngx_http_ai_span_vendor_t;


static void ngx_http_ai_span_server(ngx_http_ai_span_t *s, ngx_uint_t n);
static void ngx_http_ai_span_request(ngx_http_ai_span_t *s);
static void ngx_http_ai_span_principal(ngx_http_ai_span_t *s);
static void ngx_http_ai_span_custom(ngx_http_ai_span_t *s);
static void ngx_http_ai_span_list(ngx_http_ai_out_t *out, ngx_str_t *name,
    ngx_str_t *value);
static void ngx_http_ai_span_content(ngx_http_ai_span_t *s);
static void ngx_http_ai_span_cost(ngx_http_ai_span_t *s);
static void ngx_http_ai_span_events(ngx_http_ai_span_t *s, ngx_uint_t n);
static void ngx_http_ai_span_attempt(ngx_http_ai_span_t *s, ngx_uint_t n,
    ngx_http_ai_try_t *t);
static void ngx_http_ai_span_head(ngx_http_ai_span_t *s, u_char *id,
    u_char *parent, ngx_uint_t remote, const char *kind, ngx_str_t *model);
static void ngx_http_ai_span_times(ngx_http_ai_span_t *s, int64_t start,
    int64_t end);
static void ngx_http_ai_span_usage(ngx_http_ai_span_t *s,
    ngx_http_ai_usage_t *u, ngx_http_ai_finish_e finish);
static void ngx_http_ai_span_event(ngx_http_ai_span_t *s, ngx_uint_t *n,
    int64_t time, const char *name);
static void ngx_http_ai_span_value(ngx_http_ai_out_t *out, ngx_str_t *value);
static void ngx_http_ai_span_plain(ngx_http_ai_out_t *out, ngx_str_t *value);
static void ngx_http_ai_span_int(ngx_http_ai_out_t *out, int64_t value);
static void ngx_http_ai_span_vendor(ngx_http_ai_out_t *out, ngx_str_t *vendor);


/* values of gen_ai.provider.name that differ from the vendor's name here */

static ngx_http_ai_span_vendor_t  ngx_http_ai_span_vendors[] = {
    { ngx_string("azure"), ngx_string("azure.ai.openai") },
    { ngx_string("mistral"), ngx_string("mistral_ai") },
    { ngx_string("xai"), ngx_string("x_ai") },
    { ngx_null_string, ngx_null_string }
};


/* what is constant of an attribute is one literal: there are dozens of them */

#define ngx_http_ai_attr_head(out, key, type)                                 \
    ngx_http_ai_out_lit(out, ",{\"key\":\"" key "\",\"value\":{\"" type "\":")

#define ngx_http_ai_attr(out, key, value)                                     \
    ngx_http_ai_attr_head(out, key, "stringValue");                           \
    ngx_http_ai_span_value(out, value)

/* of names and words that need no escapes */

#define ngx_http_ai_attr_plain(out, key, value)                               \
    ngx_http_ai_attr_head(out, key, "stringValue");                           \
    ngx_http_ai_span_plain(out, value)

#define ngx_http_ai_attr_int(out, key, value)                                 \
    ngx_http_ai_attr_head(out, key, "intValue");                              \
    ngx_http_ai_span_int(out, value)


ngx_uint_t
ngx_http_ai_trace_spans(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_trace_t *t, ngx_http_ai_trace_loc_conf_t *tlcf,
    ngx_http_ai_out_t *out)
{
    ngx_uint_t           n;
    ngx_time_t          *tp;
    ngx_http_ai_try_t    attempt;
    ngx_http_ai_span_t   s;

    tp = ngx_timeofday();

    s.request = r;
    s.ctx = ctx;
    s.trace = t;
    s.tlcf = tlcf;
    s.out = out;
    s.wall = (int64_t) tp->sec * 1000 + tp->msec - (int64_t) ngx_current_msec;

    n = 0;

    /* of a usual request; it grows once, not with each piece */
    (void) ngx_http_ai_out_grow(out, NGX_HTTP_AI_SPAN_SIZE);

    if (ctx->attempt) {

        while (n < NGX_HTTP_AI_TRACE_ATTEMPTS
               && ctx->attempt(ctx, n, &attempt) == NGX_OK)
        {
            ngx_http_ai_span_attempt(&s, n, &attempt);
            ngx_http_ai_out_lit(out, ",");
            n++;
        }
    }

    ngx_http_ai_span_server(&s, n);

    return n + 1;
}


static void
ngx_http_ai_span_server(ngx_http_ai_span_t *s, ngx_uint_t n)
{
    int64_t              start, end;
    ngx_str_t            method;
    ngx_uint_t           status;
    ngx_http_ai_ctx_t   *ctx;
    ngx_http_ai_out_t   *out;
    ngx_http_request_t  *r;

    r = s->request;
    ctx = s->ctx;
    out = s->out;

    ngx_http_ai_span_head(s, s->trace->span,
                          s->trace->child ? s->trace->parent : NULL,
                          s->trace->child, NGX_HTTP_AI_SPAN_SERVER,
                          ctx->model.len ? &ctx->model : &ctx->request_model);

    end = s->wall + (int64_t) ngx_current_msec;

    /* of two clocks: what belongs to the request must not begin before it */

    start = (int64_t) r->start_sec * 1000 + (int64_t) r->start_msec;
    start = ngx_min(start, s->wall + (int64_t) ctx->start);

    ngx_http_ai_span_times(s, ngx_min(start, end), end);

    status = r->err_status ? r->err_status : r->headers_out.status;

    if (status == 0) {
        /* the client has left before there was an answer */
        status = NGX_HTTP_CLIENT_CLOSED_REQUEST;
    }

    method = r->method_name;

    ngx_http_ai_out_lit(out, ",\"attributes\":[{\"key\":"
                             "\"langfuse.observation.type\",\"value\":"
                             "{\"stringValue\":\"generation\"}}");

    ngx_http_ai_attr(out, "http.request.method", &method);
    ngx_http_ai_attr(out, "url.path", &r->uri);
    ngx_http_ai_attr_int(out, "http.response.status_code", (int64_t) status);
    ngx_http_ai_attr(out, "client.address", &r->connection->addr_text);

    ngx_http_ai_span_request(s);

    if (ctx->usage_state != NGX_HTTP_AI_USAGE_NONE) {
        ngx_http_ai_span_usage(s, &ctx->usage, ctx->finish);
        ngx_http_ai_span_cost(s);
    }

    ngx_http_ai_span_principal(s);
    ngx_http_ai_span_custom(s);

    if (s->tlcf->content) {
        ngx_http_ai_span_content(s);
    }

    if (ctx->error != NGX_HTTP_AI_ERR_NONE) {
        ngx_http_ai_attr_plain(out, "error.type",
                               ngx_http_ai_err_name(ctx->error));

    } else if (status >= 400) {
        ngx_http_ai_out_lit(out, ",{\"key\":\"error.type\",\"value\":"
                                 "{\"stringValue\":\"");
        ngx_http_ai_out_int(out, (int64_t) status);
        ngx_http_ai_out_lit(out, "\"}}");
    }

    ngx_http_ai_out_lit(out, "],\"events\":[");
    ngx_http_ai_span_events(s, n);

    if (status >= 500 || ctx->error != NGX_HTTP_AI_ERR_NONE) {
        ngx_http_ai_out_lit(out, "],\"status\":{\"code\":2}}");

    } else {
        ngx_http_ai_out_lit(out, "],\"status\":{}}");
    }
}


static void
ngx_http_ai_span_request(ngx_http_ai_span_t *s)
{
    ngx_http_ai_ctx_t  *ctx;
    ngx_http_ai_out_t  *out;
    ngx_http_ai_try_t   t;

    ctx = s->ctx;
    out = s->out;

    ngx_http_ai_attr_plain(out, "gen_ai.operation.name",
                           ngx_http_ai_op_name(ctx->op));
    ngx_http_ai_attr(out, "gen_ai.request.model", &ctx->request_model);
    ngx_http_ai_attr(out, "nginx_ai.request.id", &ctx->request_id);

    ngx_http_ai_out_lit(out, ",{\"key\":\"gen_ai.request.stream\",\"value\":"
                             "{\"boolValue\":");

    if (ctx->stream) {
        ngx_http_ai_out_lit(out, "true}}");

    } else {
        ngx_http_ai_out_lit(out, "false}}");
    }

    if (ctx->model.len) {
        ngx_http_ai_attr(out, "nginx_ai.model", &ctx->model);
    }

    if (ctx->provider.len) {
        ngx_http_ai_attr(out, "nginx_ai.provider", &ctx->provider);
    }

    if (ctx->target.len) {
        ngx_http_ai_attr(out, "nginx_ai.target", &ctx->target);
    }

    if (ctx->attempts) {
        ngx_http_ai_attr_int(out, "nginx_ai.attempts",
                             (int64_t) ctx->attempts);
    }

    if (ctx->cached != NGX_HTTP_AI_CACHE_NONE) {
        ngx_http_ai_attr_plain(out, "nginx_ai.cache",
                               ngx_http_ai_cached_word(ctx->cached));
    }

    if (ctx->ttft >= 0) {
        ngx_http_ai_out_lit(out, ",{\"key\":"
                                 "\"gen_ai.response.time_to_first_chunk\","
                                 "\"value\":{\"doubleValue\":");
        ngx_http_ai_out_int(out, ctx->ttft);
        ngx_http_ai_out_lit(out, "e-3}}");
    }

    if (ctx->usage_state != NGX_HTTP_AI_USAGE_NONE) {
        ngx_http_ai_attr_plain(out, "nginx_ai.usage.state",
                               ngx_http_ai_usage_name(ctx->usage_state));
    }

    if (ctx->attempts == 0 || ctx->attempt == NULL) {
        return;
    }

    /* the provider that has answered, or was asked last */

    if (ctx->attempt(ctx, ctx->attempts - 1, &t) == NGX_OK) {
        ngx_http_ai_span_vendor(out, &t.vendor);

        if (t.won) {
            ngx_http_ai_attr(out, "gen_ai.response.model", &t.model);
        }
    }
}


static void
ngx_http_ai_span_principal(ngx_http_ai_span_t *s)
{
    ngx_http_ai_out_t        *out;
    ngx_http_ai_principal_t  *p;

    p = s->ctx->principal;
    out = s->out;

    if (p == NULL) {
        return;
    }

    ngx_http_ai_attr(out, "nginx_ai.key.id", &p->key_id);

    if (p->tenant.len) {
        ngx_http_ai_attr(out, "nginx_ai.tenant", &p->tenant);
    }

    if (p->team.len) {
        ngx_http_ai_attr(out, "nginx_ai.team", &p->team);
    }

    if (p->user.len) {
        ngx_http_ai_attr(out, "user.id", &p->user);
        ngx_http_ai_attr(out, "langfuse.user.id", &p->user);
    }
}


static void
ngx_http_ai_span_custom(ngx_http_ai_span_t *s)
{
    ngx_str_t                       value;
    ngx_uint_t                      i;
    ngx_http_ai_out_t              *out;
    ngx_http_ai_trace_attribute_t  *a;

    if (s->tlcf->attributes == NULL) {
        return;
    }

    out = s->out;
    a = s->tlcf->attributes->elts;

    for (i = 0; i < s->tlcf->attributes->nelts; i++) {

        if (ngx_http_complex_value(s->request, a[i].value, &value) != NGX_OK
            || value.len == 0)
        {
            continue;
        }

        ngx_http_ai_out_lit(out, ",");

        if (a[i].list) {
            ngx_http_ai_span_list(out, &a[i].name, &value);
            continue;
        }

        ngx_http_ai_trace_text(out, (char *) a[i].name.data, a[i].name.len,
                               &value);
    }
}


/* texts with a comma between them, and white space around */

static void
ngx_http_ai_span_list(ngx_http_ai_out_t *out, ngx_str_t *name,
    ngx_str_t *value)
{
    u_char      *p, *last, *end, *start;
    ngx_uint_t   n;

    ngx_http_ai_out_lit(out, "{\"key\":\"");
    ngx_http_ai_out_str(out, name);
    ngx_http_ai_out_lit(out, "\",\"value\":{\"arrayValue\":"
                             "{\"values\":[");

    n = 0;
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

        if (start == end) {
            continue;
        }

        if (n++) {
            ngx_http_ai_out_lit(out, ",");
        }

        ngx_http_ai_out_lit(out, "{\"stringValue\":\"");
        ngx_http_ai_out_escaped(out, start, end - start);
        ngx_http_ai_out_lit(out, "\"}");
    }

    ngx_http_ai_out_lit(out, "]}}}");
}


/* JSON in a string: attributes are no objects */

static void
ngx_http_ai_span_content(ngx_http_ai_span_t *s)
{
    ngx_http_ai_out_t   input, output;
    ngx_http_ai_out_t  *out;

    out = s->out;

    ngx_http_ai_log_messages(s->request, s->ctx, s->tlcf->content, &input,
                             &output);

    if (input.start && !input.failed) {
        ngx_http_ai_attr_head(out, "gen_ai.input.messages", "stringValue");
        ngx_http_ai_out_lit(out, "\"");
        ngx_http_ai_out_escaped(out, input.start, input.last - input.start);
        ngx_http_ai_out_lit(out, "\"}}");
    }

    if (output.start && !output.failed) {
        ngx_http_ai_attr_head(out, "gen_ai.output.messages", "stringValue");
        ngx_http_ai_out_lit(out, "\"");
        ngx_http_ai_out_escaped(out, output.start, output.last - output.start);
        ngx_http_ai_out_lit(out, "\"}}");
    }
}


static void
ngx_http_ai_span_cost(ngx_http_ai_span_t *s)
{
    u_char              cost[NGX_HTTP_AI_DOLLARS_LEN];
    ngx_str_t           value;
    ngx_http_ai_out_t  *out;

    if (s->ctx->cost < 0) {
        return;
    }

    out = s->out;

    value.data = cost;
    value.len = ngx_http_ai_dollars(cost, s->ctx->cost) - cost;

    ngx_http_ai_out_lit(out, ",{\"key\":\"nginx_ai.cost\",\"value\":"
                             "{\"doubleValue\":");
    ngx_http_ai_out_str(out, &value);
    ngx_http_ai_out_lit(out, "}},{\"key\":\"gen_ai.usage.cost\",\"value\":"
                             "{\"doubleValue\":");
    ngx_http_ai_out_str(out, &value);
    ngx_http_ai_out_lit(out, "}},{\"key\":"
                             "\"langfuse.observation.cost_details\","
                             "\"value\":{\"stringValue\":\"{\\\"total\\\":");
    ngx_http_ai_out_str(out, &value);
    ngx_http_ai_out_lit(out, "}\"}}");

    if (s->ctx->price_version.len) {
        ngx_http_ai_attr(out, "nginx_ai.price.version",
                         &s->ctx->price_version);
    }
}


static void
ngx_http_ai_span_events(ngx_http_ai_span_t *s, ngx_uint_t n)
{
    ngx_str_t            target, reason;
    ngx_uint_t           i, count;
    ngx_http_ai_ctx_t   *ctx;
    ngx_http_ai_out_t   *out;
    ngx_http_ai_try_t    t;

    ctx = s->ctx;
    out = s->out;
    count = 0;

    ngx_str_null(&target);
    ngx_str_null(&reason);

    for (i = 0; i < n; i++) {

        if (ctx->attempt(ctx, i, &t) != NGX_OK) {
            break;
        }

        if (i) {
            if (t.target.len == target.len
                && ngx_strncmp(t.target.data, target.data, target.len) == 0)
            {
                ngx_http_ai_span_event(s, &count, s->wall + (int64_t) t.start,
                                       "retry");
            } else {
                ngx_http_ai_span_event(s, &count, s->wall + (int64_t) t.start,
                                       "fallback");
            }

            ngx_http_ai_trace_text(out, "nginx_ai.target",
                                   sizeof("nginx_ai.target") - 1, &t.target);

            if (reason.len) {
                ngx_http_ai_attr_plain(out, "nginx_ai.reason", &reason);
            }

            ngx_http_ai_out_lit(out, "]}");
        }

        target = t.target;
        reason = *ngx_http_ai_err_name(t.error);
    }

    if (ctx->cached == NGX_HTTP_AI_CACHE_HIT
        || ctx->cached == NGX_HTTP_AI_CACHE_STALE
        || ctx->cached == NGX_HTTP_AI_CACHE_COALESCED)
    {
        ngx_http_ai_span_event(s, &count, s->wall + (int64_t) ctx->start,
                               "cache");
        ngx_http_ai_trace_text(out, "nginx_ai.cache",
                               sizeof("nginx_ai.cache") - 1,
                               ngx_http_ai_cached_word(ctx->cached));
        ngx_http_ai_out_lit(out, "]}");
    }

    if (ctx->attempts == 0
        && (ctx->error == NGX_HTTP_AI_ERR_RATE_LIMIT
            || ctx->error == NGX_HTTP_AI_ERR_QUOTA
            || ctx->error == NGX_HTTP_AI_ERR_BILLING))
    {
        ngx_http_ai_span_event(s, &count,
                               s->wall + (int64_t) ngx_current_msec, "limit");
        ngx_http_ai_trace_text(out, "error.type", sizeof("error.type") - 1,
                               ngx_http_ai_err_name(ctx->error));
        ngx_http_ai_out_lit(out, "]}");
    }

    if (ctx->ttft >= 0) {
        ngx_http_ai_span_event(s, &count, s->wall + (int64_t) ctx->start
                                          + ctx->ttft,
                               "first_token");
        ngx_http_ai_out_lit(out, "]}");
    }
}


static void
ngx_http_ai_span_attempt(ngx_http_ai_span_t *s, ngx_uint_t n,
    ngx_http_ai_try_t *t)
{
    int64_t             start, end;
    ngx_uint_t          count;
    ngx_http_ai_out_t  *out;

    out = s->out;

    ngx_http_ai_span_head(s, s->trace->attempts[n], s->trace->span, 0,
                          NGX_HTTP_AI_SPAN_CLIENT, &t->model);

    start = s->wall + (int64_t) t->start;
    end = (t->duration < 0) ? s->wall + (int64_t) ngx_current_msec
                            : start + t->duration;

    ngx_http_ai_span_times(s, start, end);

    ngx_http_ai_out_lit(out, ",\"attributes\":[{\"key\":"
                             "\"langfuse.observation.type\",\"value\":"
                             "{\"stringValue\":\"span\"}}");

    ngx_http_ai_attr_plain(out, "gen_ai.operation.name",
                           ngx_http_ai_op_name(s->ctx->op));
    ngx_http_ai_span_vendor(out, &t->vendor);
    ngx_http_ai_attr(out, "gen_ai.request.model", &t->model);
    ngx_http_ai_attr(out, "nginx_ai.provider", &t->provider);
    ngx_http_ai_attr(out, "nginx_ai.target", &t->target);

    if (t->region.len) {
        ngx_http_ai_attr(out, "cloud.region", &t->region);
    }

    if (t->upstream_id.len) {
        ngx_http_ai_attr(out, "nginx_ai.upstream.request_id", &t->upstream_id);
    }

    if (t->status) {
        ngx_http_ai_attr_int(out, "http.response.status_code",
                             (int64_t) t->status);
    }

    ngx_http_ai_span_usage(s, t->usage, t->finish);

    if (t->error != NGX_HTTP_AI_ERR_NONE) {
        ngx_http_ai_attr_plain(out, "error.type",
                               ngx_http_ai_err_name(t->error));

    } else if (t->canceled && !t->won) {
        ngx_http_ai_out_lit(out, ",{\"key\":\"nginx_ai.canceled\",\"value\":"
                                 "{\"boolValue\":true}}");
    }

    ngx_http_ai_out_lit(out, "],\"events\":[");

    if (t->first >= 0) {
        count = 0;
        ngx_http_ai_span_event(s, &count, start + t->first, "first_token");
        ngx_http_ai_out_lit(out, "]}");
    }

    if (t->error != NGX_HTTP_AI_ERR_NONE) {
        ngx_http_ai_out_lit(out, "],\"status\":{\"code\":2}}");

    } else {
        ngx_http_ai_out_lit(out, "],\"status\":{}}");
    }
}


/* up to the times; flags: those of the context, bits 8 and 9 tell whether the
 * parent is remote */

static void
ngx_http_ai_span_head(ngx_http_ai_span_t *s, u_char *id, u_char *parent,
    ngx_uint_t remote, const char *kind, ngx_str_t *model)
{
    ngx_http_ai_out_t  *out;

    out = s->out;

    ngx_http_ai_out_lit(out, "{\"traceId\":\"");
    ngx_http_ai_out_mem(out, s->trace->trace, NGX_HTTP_AI_TRACE_ID);
    ngx_http_ai_out_lit(out, "\",\"spanId\":\"");
    ngx_http_ai_out_mem(out, id, NGX_HTTP_AI_SPAN_ID);

    if (parent) {
        ngx_http_ai_out_lit(out, "\",\"parentSpanId\":\"");
        ngx_http_ai_out_mem(out, parent, NGX_HTTP_AI_SPAN_ID);
    }

    if (remote) {
        ngx_http_ai_out_lit(out, "\",\"flags\":769");

    } else {
        ngx_http_ai_out_lit(out, "\",\"flags\":257");
    }

    ngx_http_ai_out_lit(out, ",\"name\":\"");

    if (s->ctx->op == NGX_HTTP_AI_OP_NONE) {
        ngx_http_ai_out_lit(out, "request");

    } else {
        ngx_http_ai_out_str(out, ngx_http_ai_op_name(s->ctx->op));
    }

    if (model->len) {
        ngx_http_ai_out_lit(out, " ");
        ngx_http_ai_out_escaped(out, model->data,
                                ngx_min(model->len, NGX_HTTP_AI_SPAN_VALUE));
    }

    ngx_http_ai_out_lit(out, "\",\"kind\":");
    ngx_http_ai_out_mem(out, kind, 1);

    if (s->trace->state.len) {
        ngx_http_ai_out_lit(out, ",\"traceState\":\"");
        ngx_http_ai_out_escaped(out, s->trace->state.data,
                                s->trace->state.len);
        ngx_http_ai_out_lit(out, "\"");
    }
}


static void
ngx_http_ai_span_times(ngx_http_ai_span_t *s, int64_t start, int64_t end)
{
    ngx_http_ai_out_lit(s->out, ",\"startTimeUnixNano\":\"");
    ngx_http_ai_out_int(s->out, start);
    ngx_http_ai_out_lit(s->out, "000000\",\"endTimeUnixNano\":\"");
    ngx_http_ai_out_int(s->out, end);
    ngx_http_ai_out_lit(s->out, "000000\"");
}


/* gen_ai.usage.input_tokens has all input, that of caches too */

static void
ngx_http_ai_span_usage(ngx_http_ai_span_t *s, ngx_http_ai_usage_t *u,
    ngx_http_ai_finish_e finish)
{
    ngx_http_ai_out_t  *out;

    out = s->out;

    if (u->in_fresh >= 0) {
        ngx_http_ai_attr_int(out, "gen_ai.usage.input_tokens",
                             ngx_http_ai_usage_input(u));
    }

    if (u->out >= 0) {
        ngx_http_ai_attr_int(out, "gen_ai.usage.output_tokens", u->out);
    }

    if (u->cache_read >= 0) {
        ngx_http_ai_attr_int(out, "gen_ai.usage.cache_read.input_tokens",
                             u->cache_read);
    }

    if (u->cache_write >= 0) {
        ngx_http_ai_attr_int(out, "gen_ai.usage.cache_creation.input_tokens",
                             u->cache_write);
    }

    if (u->reasoning >= 0) {
        ngx_http_ai_attr_int(out, "gen_ai.usage.reasoning.output_tokens",
                             u->reasoning);
    }

    if (finish != NGX_HTTP_AI_FINISH_NONE) {
        ngx_http_ai_out_lit(out, ",{\"key\":"
                                 "\"gen_ai.response.finish_reasons\","
                                 "\"value\":{\"arrayValue\":{\"values\":"
                                 "[{\"stringValue\":\"");
        ngx_http_ai_out_str(out, ngx_http_ai_finish_name(finish));
        ngx_http_ai_out_lit(out, "\"}]}}}");
    }
}


/* open: its attributes follow */

static void
ngx_http_ai_span_event(ngx_http_ai_span_t *s, ngx_uint_t *n, int64_t time,
    const char *name)
{
    ngx_http_ai_out_t  *out;

    out = s->out;

    if ((*n)++) {
        ngx_http_ai_out_lit(out, ",");
    }

    ngx_http_ai_out_lit(out, "{\"timeUnixNano\":\"");
    ngx_http_ai_out_int(out, time);
    ngx_http_ai_out_lit(out, "000000\",\"name\":\"");
    ngx_http_ai_out_mem(out, name, ngx_strlen(name));
    ngx_http_ai_out_lit(out, "\",\"attributes\":[");
}


void
ngx_http_ai_trace_text(ngx_http_ai_out_t *out, const char *key, size_t key_len,
    ngx_str_t *value)
{
    ngx_http_ai_out_lit(out, "{\"key\":\"");
    ngx_http_ai_out_mem(out, key, key_len);
    ngx_http_ai_out_lit(out, "\",\"value\":{\"stringValue\":");
    ngx_http_ai_span_value(out, value);
}


static void
ngx_http_ai_span_value(ngx_http_ai_out_t *out, ngx_str_t *value)
{
    ngx_http_ai_out_lit(out, "\"");
    ngx_http_ai_out_escaped(out, value->data,
                            ngx_min(value->len, NGX_HTTP_AI_SPAN_VALUE));
    ngx_http_ai_out_lit(out, "\"}}");
}


static void
ngx_http_ai_span_plain(ngx_http_ai_out_t *out, ngx_str_t *value)
{
    ngx_http_ai_out_lit(out, "\"");
    ngx_http_ai_out_str(out, value);
    ngx_http_ai_out_lit(out, "\"}}");
}


static void
ngx_http_ai_span_int(ngx_http_ai_out_t *out, int64_t value)
{
    ngx_http_ai_out_lit(out, "\"");
    ngx_http_ai_out_int(out, value);
    ngx_http_ai_out_lit(out, "\"}}");
}


static void
ngx_http_ai_span_vendor(ngx_http_ai_out_t *out, ngx_str_t *vendor)
{
    ngx_str_t                  *name;
    ngx_http_ai_span_vendor_t  *v;

    name = vendor;

    for (v = ngx_http_ai_span_vendors; v->vendor.len; v++) {
        if (v->vendor.len == vendor->len
            && ngx_strncmp(v->vendor.data, vendor->data, vendor->len) == 0)
        {
            name = &v->name;
            break;
        }
    }

    ngx_http_ai_attr_plain(out, "gen_ai.provider.name", name);
}
