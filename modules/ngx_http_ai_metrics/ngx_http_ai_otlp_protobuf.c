
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Protobuf is written in one pass: a message whose length is not known before
 * it is there has room for one of five bytes, which is filled in when it ends.
 * A varint may be longer than it needs to be.
 */


#include "ngx_http_ai_otlp.h"
#include "ngx_http_ai_traceparent.h"


#define NGX_HTTP_AI_PB_VARINT    0
#define NGX_HTTP_AI_PB_FIXED64   1
#define NGX_HTTP_AI_PB_LEN       2
#define NGX_HTTP_AI_PB_FIXED32   5

/* of fields below 16 */
#define ngx_http_ai_pb_tag(field, type)  (u_char) ((field) << 3 | (type))

#define ngx_http_ai_pb_message(field)                                         \
    ngx_http_ai_pb_tag(field, NGX_HTTP_AI_PB_LEN)

/* bytes of a length that is filled in later */
#define NGX_HTTP_AI_PB_ROOM      5

/* longest message with a length of one byte */
#define NGX_HTTP_AI_PB_SHORT     127

/* tag and length of an attribute, the room of its name, and the rest */
#define NGX_HTTP_AI_PB_PAIR      (2 + sizeof(ngx_http_ai_otlp_key_t)          \
                                  + NGX_HTTP_AI_PB_SHORT)

/* a span without its texts, and with them */
#define NGX_HTTP_AI_PB_SPAN      128

/* ExportTraceServiceRequest, ResourceSpans, ScopeSpans */
#define NGX_HTTP_AI_PB_RESOURCE_SPANS  ngx_http_ai_pb_message(1)
#define NGX_HTTP_AI_PB_RESOURCE        ngx_http_ai_pb_message(1)
#define NGX_HTTP_AI_PB_SCOPE_SPANS     ngx_http_ai_pb_message(2)
#define NGX_HTTP_AI_PB_SCOPE           ngx_http_ai_pb_message(1)
#define NGX_HTTP_AI_PB_SPANS           ngx_http_ai_pb_message(2)

/* where attributes are: Resource, Span, Event */
#define NGX_HTTP_AI_PB_OF_RESOURCE     ngx_http_ai_pb_message(1)
#define NGX_HTTP_AI_PB_OF_SPAN         ngx_http_ai_pb_message(9)
#define NGX_HTTP_AI_PB_OF_EVENT        ngx_http_ai_pb_message(3)

/* KeyValue; AnyValue */
#define NGX_HTTP_AI_PB_KEY             ngx_http_ai_pb_message(1)
#define NGX_HTTP_AI_PB_VALUE           ngx_http_ai_pb_message(2)
#define NGX_HTTP_AI_PB_STRING          ngx_http_ai_pb_message(1)
#define NGX_HTTP_AI_PB_BOOL                                                   \
    ngx_http_ai_pb_tag(2, NGX_HTTP_AI_PB_VARINT)
#define NGX_HTTP_AI_PB_INT                                                    \
    ngx_http_ai_pb_tag(3, NGX_HTTP_AI_PB_VARINT)
#define NGX_HTTP_AI_PB_DOUBLE                                                 \
    ngx_http_ai_pb_tag(4, NGX_HTTP_AI_PB_FIXED64)
#define NGX_HTTP_AI_PB_ARRAY           ngx_http_ai_pb_message(5)
#define NGX_HTTP_AI_PB_ITEM            ngx_http_ai_pb_message(1)


static ngx_inline u_char *ngx_http_ai_pb_reserve(ngx_http_ai_otlp_t *w,
    size_t n);
static ngx_inline u_char *ngx_http_ai_pb_pair(ngx_http_ai_otlp_t *w, u_char *p,
    const ngx_http_ai_otlp_key_t *key, size_t len);
static ngx_inline u_char *ngx_http_ai_pb_varint(u_char *p, uint64_t n);
static ngx_inline u_char *ngx_http_ai_pb_fixed64(u_char *p, uint64_t n);
static ngx_inline ngx_uint_t ngx_http_ai_pb_copy(u_char *p, u_char *data,
    size_t len);
static size_t ngx_http_ai_pb_begin(ngx_http_ai_otlp_t *w, u_char tag);
static void ngx_http_ai_pb_end(ngx_http_ai_otlp_t *w, size_t start);
static void ngx_http_ai_pb_string(ngx_http_ai_otlp_t *w, u_char tag,
    u_char *data, size_t len);


/* where n bytes may be written; NULL: no memory */

static ngx_inline u_char *
ngx_http_ai_pb_reserve(ngx_http_ai_otlp_t *w, size_t n)
{
    ngx_http_ai_out_t  *out;

    out = w->out;

    if ((size_t) (out->end - out->last) < n
        && ngx_http_ai_out_grow(out, n) != NGX_OK)
    {
        return NULL;
    }

    return out->last;
}


/* a short attribute up to its value of len bytes */

static ngx_inline u_char *
ngx_http_ai_pb_pair(ngx_http_ai_otlp_t *w, u_char *p,
    const ngx_http_ai_otlp_key_t *key, size_t len)
{
    *p++ = w->tag;
    *p++ = (u_char) (key->len + len + 4);

    ngx_memcpy(p, key, sizeof(ngx_http_ai_otlp_key_t));
    p += key->len + 2;

    *p++ = NGX_HTTP_AI_PB_VALUE;
    *p++ = (u_char) len;

    return p;
}


static ngx_inline u_char *
ngx_http_ai_pb_varint(u_char *p, uint64_t n)
{
    while (n > 0x7f) {
        *p++ = (u_char) (n | 0x80);
        n >>= 7;
    }

    *p++ = (u_char) n;

    return p;
}


static ngx_inline u_char *
ngx_http_ai_pb_fixed64(u_char *p, uint64_t n)
{
    p[0] = (u_char) n;
    p[1] = (u_char) (n >> 8);
    p[2] = (u_char) (n >> 16);
    p[3] = (u_char) (n >> 24);
    p[4] = (u_char) (n >> 32);
    p[5] = (u_char) (n >> 40);
    p[6] = (u_char) (n >> 48);
    p[7] = (u_char) (n >> 56);

    return p + 8;
}


/* copies a short text; 0: it is not ASCII */

static ngx_inline ngx_uint_t
ngx_http_ai_pb_copy(u_char *p, u_char *data, size_t len)
{
    u_char    *last;
    uint32_t   half, rest;
    uint64_t   bits, word;

    bits = 0;
    last = data + len;

    if (len < 4) {

        while (data < last) {
            bits |= *data;
            *p++ = *data++;
        }

        return (bits & 0x80) == 0;
    }

    if (len < 8) {
        ngx_memcpy(&half, data, 4);
        ngx_memcpy(&rest, last - 4, 4);
        ngx_memcpy(p, &half, 4);
        ngx_memcpy(p + len - 4, &rest, 4);

        return ((half | rest) & 0x80808080) == 0;
    }

    while (last - data > 8) {
        ngx_memcpy(&word, data, 8);
        ngx_memcpy(p, &word, 8);
        bits |= word;
        data += 8;
        p += 8;
    }

    /* the last eight, some of which may be there already */

    p -= 8 - (last - data);

    ngx_memcpy(&word, last - 8, 8);
    ngx_memcpy(p, &word, 8);
    bits |= word;

    return (bits & 0x8080808080808080ULL) == 0;
}


/* a message of a length that is told by ngx_http_ai_pb_end() */

static size_t
ngx_http_ai_pb_begin(ngx_http_ai_otlp_t *w, u_char tag)
{
    u_char  *p;

    p = ngx_http_ai_pb_reserve(w, 1 + NGX_HTTP_AI_PB_ROOM);

    if (p == NULL) {
        return 0;
    }

    *p = tag;

    w->out->last = p + 1 + NGX_HTTP_AI_PB_ROOM;

    return w->out->last - w->out->start;
}


static void
ngx_http_ai_pb_end(ngx_http_ai_otlp_t *w, size_t start)
{
    u_char    *p;
    uint64_t   len;

    if (w->out->failed) {
        return;
    }

    p = w->out->start + start;
    len = w->out->last - p;
    p -= NGX_HTTP_AI_PB_ROOM;

    p[0] = (u_char) (len | 0x80);
    p[1] = (u_char) ((len >> 7) | 0x80);
    p[2] = (u_char) ((len >> 14) | 0x80);
    p[3] = (u_char) ((len >> 21) | 0x80);
    p[4] = (u_char) ((len >> 28) & 0x7f);
}


/* strings are UTF-8: of others readers refuse all of the request */

static void
ngx_http_ai_pb_string(ngx_http_ai_otlp_t *w, u_char tag, u_char *data,
    size_t len)
{
    u_char  *p;
    size_t   start;

    if (len <= NGX_HTTP_AI_PB_SHORT) {

        p = ngx_http_ai_pb_reserve(w, 2 + len);

        if (p == NULL) {
            return;
        }

        *p++ = tag;
        *p++ = (u_char) len;

        if (ngx_http_ai_pb_copy(p, data, len)) {
            w->out->last = p + len;
            return;
        }
    }

    start = ngx_http_ai_pb_begin(w, tag);

    ngx_http_ai_out_utf8(w->out, data, data + len);

    ngx_http_ai_pb_end(w, start);
}


/* an attribute of any length, whatever its text */

static void
ngx_http_ai_otlp_protobuf_named(ngx_http_ai_otlp_t *w, const u_char *name,
    size_t n, u_char *data, size_t len)
{
    size_t  pair, value;

    pair = ngx_http_ai_pb_begin(w, w->tag);

    ngx_http_ai_pb_string(w, NGX_HTTP_AI_PB_KEY, (u_char *) name, n);

    value = ngx_http_ai_pb_begin(w, NGX_HTTP_AI_PB_VALUE);

    ngx_http_ai_pb_string(w, NGX_HTTP_AI_PB_STRING, data, len);

    ngx_http_ai_pb_end(w, value);
    ngx_http_ai_pb_end(w, pair);
}


static void
ngx_http_ai_otlp_protobuf_open(ngx_http_ai_otlp_t *w)
{
    w->resource_spans = ngx_http_ai_pb_begin(w, NGX_HTTP_AI_PB_RESOURCE_SPANS);
    w->message = ngx_http_ai_pb_begin(w, NGX_HTTP_AI_PB_RESOURCE);
    w->tag = NGX_HTTP_AI_PB_OF_RESOURCE;
}


static void
ngx_http_ai_otlp_protobuf_scope(ngx_http_ai_otlp_t *w, ngx_str_t *name,
    ngx_str_t *version)
{
    ngx_http_ai_pb_end(w, w->message);

    w->scope_spans = ngx_http_ai_pb_begin(w, NGX_HTTP_AI_PB_SCOPE_SPANS);
    w->message = ngx_http_ai_pb_begin(w, NGX_HTTP_AI_PB_SCOPE);

    ngx_http_ai_pb_string(w, ngx_http_ai_pb_message(1), name->data, name->len);
    ngx_http_ai_pb_string(w, ngx_http_ai_pb_message(2), version->data,
                          version->len);

    ngx_http_ai_pb_end(w, w->message);
}


static void
ngx_http_ai_otlp_protobuf_close(ngx_http_ai_otlp_t *w)
{
    ngx_http_ai_pb_end(w, w->scope_spans);
    ngx_http_ai_pb_end(w, w->resource_spans);
}


static void
ngx_http_ai_otlp_protobuf_span(ngx_http_ai_otlp_t *w,
    ngx_http_ai_otlp_span_t *span)
{
    u_char  *p;
    size_t   name;

    w->message = ngx_http_ai_pb_begin(w, NGX_HTTP_AI_PB_SPANS);
    w->tag = NGX_HTTP_AI_PB_OF_SPAN;

    p = ngx_http_ai_pb_reserve(w, NGX_HTTP_AI_PB_SPAN);

    if (p == NULL) {
        return;
    }

    /* trace_id, span_id, parent_span_id */

    *p++ = ngx_http_ai_pb_message(1);
    *p++ = 16;
    p = ngx_http_ai_trace_bytes(p, span->high);
    p = ngx_http_ai_trace_bytes(p, span->low);

    *p++ = ngx_http_ai_pb_message(2);
    *p++ = 8;
    p = ngx_http_ai_trace_bytes(p, span->id);

    if (span->parent) {
        *p++ = ngx_http_ai_pb_message(4);
        *p++ = 8;
        p = ngx_http_ai_trace_bytes(p, span->parent);
    }

    /* kind, start_time_unix_nano, end_time_unix_nano */

    *p++ = ngx_http_ai_pb_tag(6, NGX_HTTP_AI_PB_VARINT);
    *p++ = (u_char) span->kind;

    *p++ = ngx_http_ai_pb_tag(7, NGX_HTTP_AI_PB_FIXED64);
    p = ngx_http_ai_pb_fixed64(p, (uint64_t) span->start * 1000000);

    *p++ = ngx_http_ai_pb_tag(8, NGX_HTTP_AI_PB_FIXED64);
    p = ngx_http_ai_pb_fixed64(p, (uint64_t) span->end * 1000000);

    /* flags, field 16: those of the context, and that "remote" is known */

    *p++ = 0x80 | NGX_HTTP_AI_PB_FIXED32;
    *p++ = 1;
    *p++ = 1;
    *p++ = span->remote ? 3 : 1;
    *p++ = 0;
    *p++ = 0;

    w->out->last = p;

    if (span->state.len) {
        ngx_http_ai_pb_string(w, ngx_http_ai_pb_message(3), span->state.data,
                              span->state.len);
    }

    /* name */

    name = span->operation.len + 1 + span->model.len;

    if (span->model.len == 0) {
        ngx_http_ai_pb_string(w, ngx_http_ai_pb_message(5),
                              span->operation.data, span->operation.len);
        return;
    }

    if (name <= NGX_HTTP_AI_PB_SHORT) {

        p = ngx_http_ai_pb_reserve(w, 2 + name);

        if (p == NULL) {
            return;
        }

        *p++ = ngx_http_ai_pb_message(5);
        *p++ = (u_char) name;
        p = ngx_cpymem(p, span->operation.data, span->operation.len);
        *p++ = ' ';

        if (ngx_http_ai_pb_copy(p, span->model.data, span->model.len)) {
            w->out->last = p + span->model.len;
            return;
        }
    }

    name = ngx_http_ai_pb_begin(w, ngx_http_ai_pb_message(5));

    ngx_http_ai_out_str(w->out, &span->operation);
    ngx_http_ai_out_lit(w->out, " ");
    ngx_http_ai_out_utf8(w->out, span->model.data,
                         span->model.data + span->model.len);

    ngx_http_ai_pb_end(w, name);
}


static void
ngx_http_ai_otlp_protobuf_end(ngx_http_ai_otlp_t *w, ngx_uint_t failed)
{
    if (failed) {
        /* status: code 2 */
        ngx_http_ai_out_lit(w->out, "\x7a\x02\x18\x02");
    }

    ngx_http_ai_pb_end(w, w->message);
}


static void
ngx_http_ai_otlp_protobuf_event(ngx_http_ai_otlp_t *w, int64_t ms,
    ngx_str_t *name)
{
    u_char  *p;

    w->event_message = ngx_http_ai_pb_begin(w, ngx_http_ai_pb_message(11));
    w->tag = NGX_HTTP_AI_PB_OF_EVENT;

    p = ngx_http_ai_pb_reserve(w, 9);

    if (p == NULL) {
        return;
    }

    *p++ = ngx_http_ai_pb_tag(1, NGX_HTTP_AI_PB_FIXED64);
    w->out->last = ngx_http_ai_pb_fixed64(p, (uint64_t) ms * 1000000);

    ngx_http_ai_pb_string(w, ngx_http_ai_pb_message(2), name->data, name->len);
}


static void
ngx_http_ai_otlp_protobuf_event_end(ngx_http_ai_otlp_t *w)
{
    w->tag = NGX_HTTP_AI_PB_OF_SPAN;

    ngx_http_ai_pb_end(w, w->event_message);
}


static void
ngx_http_ai_otlp_protobuf_text(ngx_http_ai_otlp_t *w,
    const ngx_http_ai_otlp_key_t *key, u_char *data, size_t len)
{
    u_char             *p;
    ngx_http_ai_out_t  *out;

    out = w->out;
    p = out->last;

    if (len <= (size_t) NGX_HTTP_AI_PB_SHORT - 6 - key->len
        && (size_t) (out->end - p) >= NGX_HTTP_AI_PB_PAIR)
    {
        p = ngx_http_ai_pb_pair(w, p, key, len + 2);
        *p++ = NGX_HTTP_AI_PB_STRING;
        *p++ = (u_char) len;

        if (ngx_http_ai_pb_copy(p, data, len)) {
            out->last = p + len;
            return;
        }
    }

    ngx_http_ai_otlp_protobuf_named(w, key->text, key->len, data, len);
}


static void
ngx_http_ai_otlp_protobuf_word(ngx_http_ai_otlp_t *w,
    const ngx_http_ai_otlp_key_t *key, ngx_str_t *value)
{
    ngx_http_ai_otlp_protobuf_text(w, key, value->data, value->len);
}


static void
ngx_http_ai_otlp_protobuf_single(ngx_http_ai_otlp_t *w,
    const ngx_http_ai_otlp_key_t *key, ngx_str_t *value)
{
    u_char     *p;
    ngx_str_t   name;

    if (value->len > (size_t) NGX_HTTP_AI_PB_SHORT - 10 - key->len) {
        name.data = (u_char *) key->text;
        name.len = key->len;

        w->encoding->list(w, &name);
        w->encoding->item(w, value->data, value->len);
        w->encoding->list_end(w);
        return;
    }

    p = ngx_http_ai_pb_reserve(w, NGX_HTTP_AI_PB_PAIR);

    if (p) {
        p = ngx_http_ai_pb_pair(w, p, key, value->len + 6);
        *p++ = NGX_HTTP_AI_PB_ARRAY;
        *p++ = (u_char) (value->len + 4);
        *p++ = NGX_HTTP_AI_PB_ITEM;
        *p++ = (u_char) (value->len + 2);
        *p++ = NGX_HTTP_AI_PB_STRING;
        *p++ = (u_char) value->len;

        (void) ngx_http_ai_pb_copy(p, value->data, value->len);

        w->out->last = p + value->len;
    }
}


static void
ngx_http_ai_otlp_protobuf_number(ngx_http_ai_otlp_t *w,
    const ngx_http_ai_otlp_key_t *key, int64_t value)
{
    u_char    *p;
    size_t     len;
    uint64_t   n;

    p = ngx_http_ai_pb_reserve(w, NGX_HTTP_AI_PB_PAIR);

    if (p == NULL) {
        return;
    }

    len = 2;

    for (n = (uint64_t) value; n > 0x7f; n >>= 7) {
        len++;
    }

    p = ngx_http_ai_pb_pair(w, p, key, len);
    *p++ = NGX_HTTP_AI_PB_INT;
    w->out->last = ngx_http_ai_pb_varint(p, (uint64_t) value);
}


static void
ngx_http_ai_otlp_protobuf_nano(ngx_http_ai_otlp_t *w,
    const ngx_http_ai_otlp_key_t *key, int64_t value)
{
    double     real;
    u_char    *p;
    uint64_t   bits;

    p = ngx_http_ai_pb_reserve(w, NGX_HTTP_AI_PB_PAIR);

    if (p == NULL) {
        return;
    }

    real = (double) value / 1e9;
    ngx_memcpy(&bits, &real, sizeof(uint64_t));

    p = ngx_http_ai_pb_pair(w, p, key, 9);
    *p++ = NGX_HTTP_AI_PB_DOUBLE;
    w->out->last = ngx_http_ai_pb_fixed64(p, bits);
}


static void
ngx_http_ai_otlp_protobuf_flag(ngx_http_ai_otlp_t *w,
    const ngx_http_ai_otlp_key_t *key)
{
    u_char  *p;

    p = ngx_http_ai_pb_reserve(w, NGX_HTTP_AI_PB_PAIR);

    if (p) {
        p = ngx_http_ai_pb_pair(w, p, key, 2);
        *p++ = NGX_HTTP_AI_PB_BOOL;
        *p++ = 1;
        w->out->last = p;
    }
}


static void
ngx_http_ai_otlp_protobuf_list(ngx_http_ai_otlp_t *w, ngx_str_t *name)
{
    w->pair = ngx_http_ai_pb_begin(w, w->tag);

    ngx_http_ai_pb_string(w, NGX_HTTP_AI_PB_KEY, name->data, name->len);

    w->value = ngx_http_ai_pb_begin(w, NGX_HTTP_AI_PB_VALUE);
    w->array = ngx_http_ai_pb_begin(w, NGX_HTTP_AI_PB_ARRAY);
}


static void
ngx_http_ai_otlp_protobuf_item(ngx_http_ai_otlp_t *w, u_char *data, size_t len)
{
    size_t  item;

    item = ngx_http_ai_pb_begin(w, NGX_HTTP_AI_PB_ITEM);

    ngx_http_ai_pb_string(w, NGX_HTTP_AI_PB_STRING, data, len);

    ngx_http_ai_pb_end(w, item);
}


static void
ngx_http_ai_otlp_protobuf_list_end(ngx_http_ai_otlp_t *w)
{
    ngx_http_ai_pb_end(w, w->array);
    ngx_http_ai_pb_end(w, w->value);
    ngx_http_ai_pb_end(w, w->pair);
}


const ngx_http_ai_otlp_encoding_t  ngx_http_ai_otlp_protobuf = {
    ngx_string("protobuf"),
    ngx_string("application/x-protobuf"),
    ngx_http_ai_otlp_protobuf_open,
    ngx_http_ai_otlp_protobuf_scope,
    ngx_http_ai_otlp_protobuf_close,
    ngx_http_ai_otlp_protobuf_span,
    ngx_http_ai_otlp_protobuf_end,
    ngx_http_ai_otlp_protobuf_event,
    ngx_http_ai_otlp_protobuf_event_end,
    ngx_http_ai_otlp_protobuf_text,
    ngx_http_ai_otlp_protobuf_word,
    ngx_http_ai_otlp_protobuf_single,
    ngx_http_ai_otlp_protobuf_number,
    ngx_http_ai_otlp_protobuf_nano,
    ngx_http_ai_otlp_protobuf_flag,
    ngx_http_ai_otlp_protobuf_named,
    ngx_http_ai_otlp_protobuf_list,
    ngx_http_ai_otlp_protobuf_item,
    ngx_http_ai_otlp_protobuf_list_end
};
