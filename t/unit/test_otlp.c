
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include "ngx_http_ai_otlp.h"
#include "ngx_http_ai_traceparent.h"


#define LONGEST_KEY  "gen_ai.usage.cache_creation.input_tokens"


/* a second reader, of nothing but the wire format */

typedef struct {
    ngx_uint_t   field;
    ngx_uint_t   wire;
    uint64_t     n;
    ngx_str_t    data;
} field_t;


static ngx_pool_t  *pool;


static int
varint(ngx_str_t *in, uint64_t *n)
{
    u_char      ch;
    ngx_uint_t  shift;

    *n = 0;

    for (shift = 0; shift < 70; shift += 7) {

        if (in->len == 0) {
            return 0;
        }

        ch = *in->data++;
        in->len--;

        *n |= (uint64_t) (ch & 0x7f) << shift;

        if (ch < 0x80) {
            return 1;
        }
    }

    return 0;
}


static int
next(ngx_str_t *in, field_t *f)
{
    size_t    n;
    uint64_t  tag;

    if (in->len == 0 || !varint(in, &tag)) {
        return 0;
    }

    f->field = tag >> 3;
    f->wire = tag & 7;
    f->n = 0;

    switch (f->wire) {

    case 0:
        return varint(in, &f->n);

    case 1:
        n = 8;
        break;

    case 2:
        if (!varint(in, &f->n)) {
            return 0;
        }

        n = f->n;
        break;

    case 5:
        n = 4;
        break;

    default:
        return 0;
    }

    if (n > in->len) {
        return 0;
    }

    f->data.data = in->data;
    f->data.len = n;

    if (f->wire != 2) {
        memcpy(&f->n, in->data, n);
    }

    in->data += n;
    in->len -= n;

    return 1;
}


/* the nth (from 0) of a field, which must be a message or a text */

static ngx_str_t
part(ngx_str_t in, ngx_uint_t field, ngx_uint_t nth)
{
    field_t    f;
    ngx_str_t  none = ngx_null_string;

    while (next(&in, &f)) {
        if (f.field == field && f.wire == 2 && nth-- == 0) {
            return f.data;
        }
    }

    return none;
}


static ngx_uint_t
count(ngx_str_t in, ngx_uint_t field)
{
    field_t     f;
    ngx_uint_t  n;

    n = 0;

    while (next(&in, &f)) {
        n += (f.field == field);
    }

    return (in.len == 0) ? n : (ngx_uint_t) -1;
}


static field_t
value(ngx_str_t in, ngx_uint_t field)
{
    field_t  f;

    while (next(&in, &f)) {
        if (f.field == field) {
            return f;
        }
    }

    memset(&f, 0, sizeof(field_t));

    return f;
}


static void
start(ngx_http_ai_otlp_t *w, ngx_http_ai_out_t *out,
    const ngx_http_ai_otlp_encoding_t *encoding, size_t size)
{
    memset(w, 0, sizeof(ngx_http_ai_otlp_t));

    (void) ngx_http_ai_out_init(out, pool, size);

    w->encoding = encoding;
    w->out = out;
}


/* one of each kind; long and strange texts */

static void
write_all(ngx_http_ai_otlp_t *w, u_char *text, size_t len)
{
    ngx_http_ai_otlp_span_t  span;

    static ngx_str_t  scope = ngx_string("scope");
    static ngx_str_t  version = ngx_string("1.2");
    static ngx_str_t  word = ngx_string("word");
    static ngx_str_t  name = ngx_string("own.name");
    static ngx_str_t  event = ngx_string("event");

    static const ngx_http_ai_otlp_key_t  k = ngx_http_ai_otlp_key("key");
    static const ngx_http_ai_otlp_key_t  longest =
                                             ngx_http_ai_otlp_key(LONGEST_KEY);

    w->encoding->open(w);
    w->encoding->text(w, &k, text, len);
    w->encoding->scope(w, &scope, &version);

    memset(&span, 0, sizeof(ngx_http_ai_otlp_span_t));

    span.high = 0x0102030405060708ULL;
    span.low = 0xf1f2f3f4f5f6f7f8ULL;
    span.id = 0x1112131415161718ULL;
    span.kind = NGX_HTTP_AI_OTLP_SERVER;
    ngx_str_set(&span.operation, "chat");
    span.model.data = text;
    span.model.len = len;
    span.start = 1750000000123;
    span.end = 1750000000999;

    w->encoding->span(w, &span);
    w->encoding->text(w, &k, text, len);
    w->encoding->word(w, &longest, &word);
    w->encoding->single(w, &longest, &word);
    w->encoding->number(w, &longest, 0);
    w->encoding->number(w, &longest, 127);
    w->encoding->number(w, &longest, 128);
    w->encoding->number(w, &longest, 9223372036854775807LL);
    w->encoding->number(w, &longest, -1);
    w->encoding->nano(w, &longest, 1140000);
    w->encoding->flag(w, &longest);
    w->encoding->named(w, name.data, name.len, text, len);
    w->encoding->list(w, &name);
    w->encoding->item(w, text, len);
    w->encoding->item(w, (u_char *) "b", 1);
    w->encoding->list_end(w);
    w->encoding->event(w, 1750000000500, &event);
    w->encoding->text(w, &k, text, len);
    w->encoding->event_end(w);
    w->encoding->event(w, 1750000000501, &event);
    w->encoding->event_end(w);
    w->encoding->end(w, 1);

    ngx_str_set(&span.state, "a=b");
    ngx_str_null(&span.model);
    span.parent = 0x2122232425262728ULL;
    span.remote = 1;
    span.kind = NGX_HTTP_AI_OTLP_CLIENT;

    w->encoding->span(w, &span);
    w->encoding->end(w, 0);
    w->encoding->close(w);
}


static void
protobuf(size_t size, u_char *text, size_t len, u_char *clean, size_t clen)
{
    double              real;
    u_char             *name;
    field_t             f;
    uint64_t            n;
    ngx_str_t           all, rs, ss, s, t;
    ngx_uint_t          i;
    ngx_http_ai_out_t   out;
    ngx_http_ai_otlp_t  w;

    static int64_t      numbers[] = { 0, 127, 128, 9223372036854775807LL, -1 };

    start(&w, &out, &ngx_http_ai_otlp_protobuf, size);
    write_all(&w, text, len);

    ok(!out.failed, "text of %u bytes, beginning with room of %u",
       (unsigned) len, (unsigned) size);

    all.data = out.start;
    all.len = out.last - out.start;

    is_int(count(all, 1), 1, "one ResourceSpans");
    rs = part(all, 1, 0);
    ok(rs.data + rs.len == all.data + all.len, "... it is all there is");

    is_int(count(rs, 1) == 1 && count(rs, 2) == 1, 1, "Resource, ScopeSpans");
    t = part(part(rs, 1, 0), 1, 0);
    is_mem(part(t, 1, 0).data, part(t, 1, 0).len, "key", 3, "resource: key");
    t = part(part(t, 2, 0), 1, 0);
    is_mem(t.data, t.len, (char *) clean, clen, "... text");

    ss = part(rs, 2, 0);
    t = part(ss, 1, 0);
    is_mem(part(t, 1, 0).data, part(t, 1, 0).len, "scope", 5, "scope: name");
    is_mem(part(t, 2, 0).data, part(t, 2, 0).len, "1.2", 3, "... version");
    is_int(count(ss, 2), 2, "two spans");

    s = part(ss, 2, 0);
    is_int(count(s, 9), 12, "twelve attributes");
    is_int(count(s, 11), 2, "two events");
    is_mem(part(s, 1, 0).data, part(s, 1, 0).len,
           "\x01\x02\x03\x04\x05\x06\x07\x08\xf1\xf2\xf3\xf4\xf5\xf6\xf7\xf8",
           16, "trace_id");
    is_mem(part(s, 2, 0).data, part(s, 2, 0).len,
           "\x11\x12\x13\x14\x15\x16\x17\x18", 8, "span_id");
    is_int(count(s, 4), 0, "no parent_span_id");
    is_int(value(s, 6).n, 2, "kind");
    is_int(value(s, 7).wire, 1, "start_time_unix_nano is fixed64");
    is_int(value(s, 7).n, 1750000000123000000LL, "... start");
    is_int(value(s, 8).n, 1750000000999000000LL, "end_time_unix_nano");
    is_int(value(s, 16).wire, 5, "flags are fixed32");
    is_int(value(s, 16).n, 0x101, "... flags");
    is_int(value(part(s, 15, 0), 3).n, 2, "status");

    t = part(s, 5, 0);
    name = malloc(5 + clen);
    memcpy(name, "chat ", 5);
    memcpy(name + 5, clean, clen);
    is_mem(t.data, t.len, len ? (char *) name : "chat", len ? 5 + clen : 4,
           "name");
    free(name);

    t = part(part(part(s, 9, 0), 2, 0), 1, 0);
    is_mem(t.data, t.len, (char *) clean, clen, "text");

    t = part(s, 9, 1);
    is_mem(part(t, 1, 0).data, part(t, 1, 0).len,
           LONGEST_KEY, sizeof(LONGEST_KEY) - 1, "longest key");
    t = part(part(t, 2, 0), 1, 0);
    is_mem(t.data, t.len, "word", 4, "word");

    t = part(part(part(part(part(s, 9, 2), 2, 0), 5, 0), 1, 0), 1, 0);
    is_mem(t.data, t.len, "word", 4, "single");

    for (i = 0; i < 5; i++) {
        f = value(part(part(s, 9, 3 + i), 2, 0), 3);
        ok(f.wire == 0 && (int64_t) f.n == numbers[i], "number %d", (int) i);
    }

    f = value(part(part(s, 9, 8), 2, 0), 4);
    n = f.n;
    memcpy(&real, &n, 8);
    ok(f.wire == 1 && real > 0.001139 && real < 0.001141, "nano");

    f = value(part(part(s, 9, 9), 2, 0), 2);
    ok(f.field == 2 && f.wire == 0 && f.n == 1, "flag");

    t = part(s, 9, 10);
    is_mem(part(t, 1, 0).data, part(t, 1, 0).len, "own.name", 8, "own name");
    t = part(part(t, 2, 0), 1, 0);
    is_mem(t.data, t.len, (char *) clean, clen, "... its text");

    t = part(part(part(s, 9, 11), 2, 0), 5, 0);
    is_int(count(t, 1), 2, "list of two");
    is_mem(part(part(t, 1, 0), 1, 0).data, part(part(t, 1, 0), 1, 0).len,
           (char *) clean, clen, "... first");
    is_mem(part(part(t, 1, 1), 1, 0).data, part(part(t, 1, 1), 1, 0).len,
           "b", 1, "... second");

    t = part(s, 11, 0);
    is_int(value(t, 1).n, 1750000000500000000LL, "event: time");
    is_mem(part(t, 2, 0).data, part(t, 2, 0).len, "event", 5, "... name");
    is_int(count(t, 3), 1, "... one attribute");
    t = part(part(part(t, 3, 0), 2, 0), 1, 0);
    is_mem(t.data, t.len, (char *) clean, clen, "... its text");

    s = part(ss, 2, 1);
    is_mem(part(s, 3, 0).data, part(s, 3, 0).len, "a=b", 3, "trace_state");
    is_mem(part(s, 4, 0).data, part(s, 4, 0).len,
           "\x21\x22\x23\x24\x25\x26\x27\x28", 8, "parent_span_id");
    is_mem(part(s, 5, 0).data, part(s, 5, 0).len, "chat", 4, "short name");
    is_int(value(s, 6).n, 3, "kind");
    is_int(value(s, 16).n, 0x301, "flags: remote");
    is_int(count(s, 15), 0, "no status");
    is_int(count(s, 9), 0, "no attributes");
}


static void
json(void)
{
    ngx_http_ai_out_t   out;
    ngx_http_ai_otlp_t  w;

    static char  text[] =
        "{\"resourceSpans\":[{\"resource\":{\"attributes\":["
        "{\"key\":\"key\",\"value\":{\"stringValue\":\"a\\\"b\"}}]},"
        "\"scopeSpans\":[{\"scope\":{\"name\":\"scope\",\"version\":\"1.2\"},"
        "\"spans\":["
        "{\"traceId\":\"0102030405060708f1f2f3f4f5f6f7f8\","
        "\"spanId\":\"1112131415161718\",\"flags\":257,"
        "\"name\":\"chat a\\\"b\",\"kind\":2,"
        "\"startTimeUnixNano\":\"1750000000123000000\","
        "\"endTimeUnixNano\":\"1750000000999000000\",\"attributes\":["
        "{\"key\":\"key\",\"value\":{\"stringValue\":\"a\\\"b\"}},"
#define K  "{\"key\":\"" LONGEST_KEY "\",\"value\":"
        K "{\"stringValue\":\"word\"}},"
        K "{\"arrayValue\":{\"values\":[{\"stringValue\":\"word\"}]}}},"
        K "{\"intValue\":\"0\"}},"
        K "{\"intValue\":\"127\"}},"
        K "{\"intValue\":\"128\"}},"
        K "{\"intValue\":\"9223372036854775807\"}},"
        K "{\"intValue\":\"-1\"}},"
        K "{\"doubleValue\":0.001140000}},"
        K "{\"boolValue\":true}},"
        "{\"key\":\"own.name\",\"value\":{\"stringValue\":\"a\\\"b\"}},"
        "{\"key\":\"own.name\",\"value\":{\"arrayValue\":{\"values\":"
        "[{\"stringValue\":\"a\\\"b\"},{\"stringValue\":\"b\"}]}}}],"
        "\"events\":[{\"timeUnixNano\":\"1750000000500000000\","
        "\"name\":\"event\",\"attributes\":["
        "{\"key\":\"key\",\"value\":{\"stringValue\":\"a\\\"b\"}}]},"
        "{\"timeUnixNano\":\"1750000000501000000\","
        "\"name\":\"event\",\"attributes\":[]}],\"status\":{\"code\":2}},"
        "{\"traceId\":\"0102030405060708f1f2f3f4f5f6f7f8\","
        "\"spanId\":\"1112131415161718\","
        "\"parentSpanId\":\"2122232425262728\",\"flags\":769,"
        "\"traceState\":\"a=b\",\"name\":\"chat\",\"kind\":3,"
        "\"startTimeUnixNano\":\"1750000000123000000\","
        "\"endTimeUnixNano\":\"1750000000999000000\",\"attributes\":[]}"
        "]}]}]}";

    start(&w, &out, &ngx_http_ai_otlp_json, 0);
    write_all(&w, (u_char *) "a\"b", 3);

    ok(!out.failed, "JSON");
    is_mem(out.start, out.last - out.start, text, sizeof(text) - 1,
           "... text");
}


int
main(void)
{
    u_char   *text, *p;
    size_t    i;

    static size_t  sizes[] = { 0, 1, 7, 8, 9, 15, 16, 17, 33, 70, 75, 76, 77,
                               78, 79, 110, 117, 118, 119, 121, 122, 123, 127,
                               128, 129, 1024, 16383, 16384, 70000 };

    pool = ngx_create_pool(4096, NULL);

    for (i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        text = malloc(sizes[i] + 1);

        for (p = text; p < text + sizes[i]; p++) {
            *p = 'a' + (p - text) % 26;
        }

        protobuf(i % 2 ? 0 : 4096, text, sizes[i], text, sizes[i]);

        free(text);
    }

    protobuf(0, (u_char *) "\xc3\xa4", 2, (u_char *) "\xc3\xa4", 2);
    protobuf(0, (u_char *) "01234567\xc3\xa4", 10,
             (u_char *) "01234567\xc3\xa4", 10);
    protobuf(0, (u_char *) "a\xff" "b", 3, (u_char *) "a\xef\xbf\xbd" "b", 5);
    protobuf(0, (u_char *) "0123456789\xc3", 11,
             (u_char *) "0123456789\xef\xbf\xbd", 13);

    json();

    ngx_destroy_pool(pool);

    return done_testing();
}
