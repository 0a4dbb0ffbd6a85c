
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_otlp.h"
#include "ngx_http_ai_traceparent.h"


static void ngx_http_ai_otlp_json_comma(ngx_http_ai_otlp_t *w, ngx_uint_t *n);
static void ngx_http_ai_otlp_json_pair(ngx_http_ai_otlp_t *w,
    const u_char *name, size_t len);
static void ngx_http_ai_otlp_json_key(ngx_http_ai_otlp_t *w,
    const ngx_http_ai_otlp_key_t *key);
static void ngx_http_ai_otlp_json_string(ngx_http_ai_otlp_t *w, u_char *data,
    size_t len);
static void ngx_http_ai_otlp_json_id(ngx_http_ai_otlp_t *w, uint64_t id);


static void
ngx_http_ai_otlp_json_comma(ngx_http_ai_otlp_t *w, ngx_uint_t *n)
{
    if ((*n)++) {
        ngx_http_ai_out_lit(w->out, ",");
    }
}


/* an attribute up to its value */

static void
ngx_http_ai_otlp_json_pair(ngx_http_ai_otlp_t *w, const u_char *name,
    size_t len)
{
    ngx_http_ai_otlp_json_comma(w, &w->attributes);

    ngx_http_ai_out_lit(w->out, "{\"key\":\"");
    ngx_http_ai_out_mem(w->out, name, len);
    ngx_http_ai_out_lit(w->out, "\",\"value\":");
}


static void
ngx_http_ai_otlp_json_key(ngx_http_ai_otlp_t *w,
    const ngx_http_ai_otlp_key_t *key)
{
    ngx_http_ai_otlp_json_pair(w, key->text, key->len);
}


static void
ngx_http_ai_otlp_json_string(ngx_http_ai_otlp_t *w, u_char *data, size_t len)
{
    ngx_http_ai_out_lit(w->out, "{\"stringValue\":\"");
    ngx_http_ai_out_escaped(w->out, data, len);
    ngx_http_ai_out_lit(w->out, "\"}");
}


static void
ngx_http_ai_otlp_json_id(ngx_http_ai_otlp_t *w, uint64_t id)
{
    u_char  hex[NGX_HTTP_AI_SPAN_ID];

    (void) ngx_http_ai_trace_hex(hex, id);

    ngx_http_ai_out_mem(w->out, hex, NGX_HTTP_AI_SPAN_ID);
}


static void
ngx_http_ai_otlp_json_open(ngx_http_ai_otlp_t *w)
{
    ngx_http_ai_out_lit(w->out, "{\"resourceSpans\":[{\"resource\":"
                                "{\"attributes\":[");
    w->attributes = 0;
}


static void
ngx_http_ai_otlp_json_scope(ngx_http_ai_otlp_t *w, ngx_str_t *name,
    ngx_str_t *version)
{
    ngx_http_ai_out_lit(w->out, "]},\"scopeSpans\":[{\"scope\":{\"name\":\"");
    ngx_http_ai_out_escaped(w->out, name->data, name->len);
    ngx_http_ai_out_lit(w->out, "\",\"version\":\"");
    ngx_http_ai_out_escaped(w->out, version->data, version->len);
    ngx_http_ai_out_lit(w->out, "\"},\"spans\":[");
    w->spans = 0;
}


static void
ngx_http_ai_otlp_json_close(ngx_http_ai_otlp_t *w)
{
    ngx_http_ai_out_lit(w->out, "]}]}]}");
}


static void
ngx_http_ai_otlp_json_span(ngx_http_ai_otlp_t *w,
    ngx_http_ai_otlp_span_t *span)
{
    ngx_http_ai_out_t  *out;

    out = w->out;

    ngx_http_ai_otlp_json_comma(w, &w->spans);

    ngx_http_ai_out_lit(out, "{\"traceId\":\"");
    ngx_http_ai_otlp_json_id(w, span->high);
    ngx_http_ai_otlp_json_id(w, span->low);
    ngx_http_ai_out_lit(out, "\",\"spanId\":\"");
    ngx_http_ai_otlp_json_id(w, span->id);

    if (span->parent) {
        ngx_http_ai_out_lit(out, "\",\"parentSpanId\":\"");
        ngx_http_ai_otlp_json_id(w, span->parent);
    }

    /* those of the context, and that "remote" is known */

    if (span->remote) {
        ngx_http_ai_out_lit(out, "\",\"flags\":769");

    } else {
        ngx_http_ai_out_lit(out, "\",\"flags\":257");
    }

    if (span->state.len) {
        ngx_http_ai_out_lit(out, ",\"traceState\":\"");
        ngx_http_ai_out_escaped(out, span->state.data, span->state.len);
        ngx_http_ai_out_lit(out, "\"");
    }

    ngx_http_ai_out_lit(out, ",\"name\":\"");
    ngx_http_ai_out_str(out, &span->operation);

    if (span->model.len) {
        ngx_http_ai_out_lit(out, " ");
        ngx_http_ai_out_escaped(out, span->model.data, span->model.len);
    }

    ngx_http_ai_out_lit(out, "\",\"kind\":");
    ngx_http_ai_out_int(out, (int64_t) span->kind);
    ngx_http_ai_out_lit(out, ",\"startTimeUnixNano\":\"");
    ngx_http_ai_out_int(out, span->start);
    ngx_http_ai_out_lit(out, "000000\",\"endTimeUnixNano\":\"");
    ngx_http_ai_out_int(out, span->end);
    ngx_http_ai_out_lit(out, "000000\",\"attributes\":[");

    w->attributes = 0;
    w->events = 0;
}


static void
ngx_http_ai_otlp_json_end(ngx_http_ai_otlp_t *w, ngx_uint_t failed)
{
    if (failed) {
        ngx_http_ai_out_lit(w->out, "],\"status\":{\"code\":2}}");

    } else {
        ngx_http_ai_out_lit(w->out, "]}");
    }
}


/* the first one ends the span's attributes */

static void
ngx_http_ai_otlp_json_event(ngx_http_ai_otlp_t *w, int64_t ms, ngx_str_t *name)
{
    if (w->events++) {
        ngx_http_ai_out_lit(w->out, ",{\"timeUnixNano\":\"");

    } else {
        ngx_http_ai_out_lit(w->out, "],\"events\":[{\"timeUnixNano\":\"");
    }

    ngx_http_ai_out_int(w->out, ms);
    ngx_http_ai_out_lit(w->out, "000000\",\"name\":\"");
    ngx_http_ai_out_str(w->out, name);
    ngx_http_ai_out_lit(w->out, "\",\"attributes\":[");

    w->attributes = 0;
}


static void
ngx_http_ai_otlp_json_event_end(ngx_http_ai_otlp_t *w)
{
    ngx_http_ai_out_lit(w->out, "]}");
}


static void
ngx_http_ai_otlp_json_text(ngx_http_ai_otlp_t *w,
    const ngx_http_ai_otlp_key_t *key, u_char *data, size_t len)
{
    ngx_http_ai_otlp_json_key(w, key);
    ngx_http_ai_otlp_json_string(w, data, len);
    ngx_http_ai_out_lit(w->out, "}");
}


static void
ngx_http_ai_otlp_json_word(ngx_http_ai_otlp_t *w,
    const ngx_http_ai_otlp_key_t *key, ngx_str_t *value)
{
    ngx_http_ai_otlp_json_key(w, key);

    ngx_http_ai_out_lit(w->out, "{\"stringValue\":\"");
    ngx_http_ai_out_str(w->out, value);
    ngx_http_ai_out_lit(w->out, "\"}}");
}


static void
ngx_http_ai_otlp_json_single(ngx_http_ai_otlp_t *w,
    const ngx_http_ai_otlp_key_t *key, ngx_str_t *value)
{
    ngx_http_ai_otlp_json_key(w, key);

    ngx_http_ai_out_lit(w->out, "{\"arrayValue\":{\"values\":"
                                "[{\"stringValue\":\"");
    ngx_http_ai_out_str(w->out, value);
    ngx_http_ai_out_lit(w->out, "\"}]}}}");
}


static void
ngx_http_ai_otlp_json_number(ngx_http_ai_otlp_t *w,
    const ngx_http_ai_otlp_key_t *key, int64_t value)
{
    ngx_http_ai_otlp_json_key(w, key);

    ngx_http_ai_out_lit(w->out, "{\"intValue\":\"");
    ngx_http_ai_out_int(w->out, value);
    ngx_http_ai_out_lit(w->out, "\"}}");
}


static void
ngx_http_ai_otlp_json_nano(ngx_http_ai_otlp_t *w,
    const ngx_http_ai_otlp_key_t *key, int64_t value)
{
    ngx_http_ai_otlp_json_key(w, key);

    ngx_http_ai_out_lit(w->out, "{\"doubleValue\":");
    ngx_http_ai_out_dollars(w->out, value);
    ngx_http_ai_out_lit(w->out, "}}");
}


static void
ngx_http_ai_otlp_json_flag(ngx_http_ai_otlp_t *w,
    const ngx_http_ai_otlp_key_t *key)
{
    ngx_http_ai_otlp_json_key(w, key);

    ngx_http_ai_out_lit(w->out, "{\"boolValue\":true}}");
}


static void
ngx_http_ai_otlp_json_named(ngx_http_ai_otlp_t *w, const u_char *name,
    size_t n, u_char *data, size_t len)
{
    ngx_http_ai_otlp_json_pair(w, name, n);
    ngx_http_ai_otlp_json_string(w, data, len);
    ngx_http_ai_out_lit(w->out, "}");
}


static void
ngx_http_ai_otlp_json_list(ngx_http_ai_otlp_t *w, ngx_str_t *name)
{
    ngx_http_ai_otlp_json_pair(w, name->data, name->len);
    ngx_http_ai_out_lit(w->out, "{\"arrayValue\":{\"values\":[");
    w->items = 0;
}


static void
ngx_http_ai_otlp_json_item(ngx_http_ai_otlp_t *w, u_char *data, size_t len)
{
    ngx_http_ai_otlp_json_comma(w, &w->items);
    ngx_http_ai_otlp_json_string(w, data, len);
}


static void
ngx_http_ai_otlp_json_list_end(ngx_http_ai_otlp_t *w)
{
    ngx_http_ai_out_lit(w->out, "]}}}");
}


const ngx_http_ai_otlp_encoding_t  ngx_http_ai_otlp_json = {
    ngx_string("json"),
    ngx_string("application/json"),
    ngx_http_ai_otlp_json_open,
    ngx_http_ai_otlp_json_scope,
    ngx_http_ai_otlp_json_close,
    ngx_http_ai_otlp_json_span,
    ngx_http_ai_otlp_json_end,
    ngx_http_ai_otlp_json_event,
    ngx_http_ai_otlp_json_event_end,
    ngx_http_ai_otlp_json_text,
    ngx_http_ai_otlp_json_word,
    ngx_http_ai_otlp_json_single,
    ngx_http_ai_otlp_json_number,
    ngx_http_ai_otlp_json_nano,
    ngx_http_ai_otlp_json_flag,
    ngx_http_ai_otlp_json_named,
    ngx_http_ai_otlp_json_list,
    ngx_http_ai_otlp_json_item,
    ngx_http_ai_otlp_json_list_end
};
