
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * OTLP's request of spans, as protobuf or as JSON.  What a span consists of is
 * told once, in calls of a writer, whichever it is, so that the two cannot
 * differ but in their bytes.  Plain C.
 *
 * opentelemetry-proto 1.x: collector/trace/v1, trace/v1, resource/v1 and
 * common/v1; JSON by the mapping of the OTLP specification: ids in hex, 64-bit
 * numbers as strings, enums as numbers.
 */


#ifndef _NGX_HTTP_AI_OTLP_H_INCLUDED_
#define _NGX_HTTP_AI_OTLP_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_json.h"


#define NGX_HTTP_AI_OTLP_SERVER  2
#define NGX_HTTP_AI_OTLP_CLIENT  3


/*
 * The name of an attribute as protobuf has it, KeyValue.key, in a room of one
 * size for all: it is copied whole, whatever its length.
 */

#define NGX_HTTP_AI_OTLP_KEY     46

typedef struct {
    u_char                     tag;
    u_char                     len;
    u_char                     text[NGX_HTTP_AI_OTLP_KEY];
} ngx_http_ai_otlp_key_t;

#define ngx_http_ai_otlp_key(name)  { 0x0a, sizeof(name) - 1, name }


typedef struct {
    uint64_t                   high;          /* of the trace's id */
    uint64_t                   low;
    uint64_t                   id;
    uint64_t                   parent;        /* 0: none */
    ngx_uint_t                 remote;        /* the parent is another's */
    ngx_uint_t                 kind;
    ngx_str_t                  operation;     /* the name is both of these */
    ngx_str_t                  model;
    ngx_str_t                  state;         /* tracestate */
    int64_t                    start;         /* ms of the clock */
    int64_t                    end;
} ngx_http_ai_otlp_span_t;


typedef struct ngx_http_ai_otlp_s  ngx_http_ai_otlp_t;


/*
 * In this order: open, attributes of the resource, scope; for each span: span,
 * its attributes, events with theirs, each between event and event_end, end;
 * close.  Errors are those of "out", which is tested at the end.
 */

typedef struct {
    ngx_str_t   name;
    ngx_str_t   type;                         /* of media */

    void      (*open)(ngx_http_ai_otlp_t *w);
    void      (*scope)(ngx_http_ai_otlp_t *w, ngx_str_t *name,
                       ngx_str_t *version);
    void      (*close)(ngx_http_ai_otlp_t *w);

    void      (*span)(ngx_http_ai_otlp_t *w, ngx_http_ai_otlp_span_t *span);
    void      (*end)(ngx_http_ai_otlp_t *w, ngx_uint_t failed);

    void      (*event)(ngx_http_ai_otlp_t *w, int64_t ms, ngx_str_t *name);
    void      (*event_end)(ngx_http_ai_otlp_t *w);

    /* attributes: any bytes; a word of ours, with nothing to escape; a list of
     * one; a number; a billionth; true */
    void      (*text)(ngx_http_ai_otlp_t *w, const ngx_http_ai_otlp_key_t *key,
                      u_char *data, size_t len);
    void      (*word)(ngx_http_ai_otlp_t *w, const ngx_http_ai_otlp_key_t *key,
                      ngx_str_t *value);
    void      (*single)(ngx_http_ai_otlp_t *w,
                        const ngx_http_ai_otlp_key_t *key, ngx_str_t *value);
    void      (*number)(ngx_http_ai_otlp_t *w,
                        const ngx_http_ai_otlp_key_t *key, int64_t value);
    void      (*nano)(ngx_http_ai_otlp_t *w,
                      const ngx_http_ai_otlp_key_t *key, int64_t value);
    void      (*flag)(ngx_http_ai_otlp_t *w,
                      const ngx_http_ai_otlp_key_t *key);

    /* those with a name from the configuration: a text; a list, its items and
     * its end */
    void      (*named)(ngx_http_ai_otlp_t *w, const u_char *name, size_t n,
                       u_char *data, size_t len);
    void      (*list)(ngx_http_ai_otlp_t *w, ngx_str_t *name);
    void      (*item)(ngx_http_ai_otlp_t *w, u_char *data, size_t len);
    void      (*list_end)(ngx_http_ai_otlp_t *w);
} ngx_http_ai_otlp_encoding_t;


struct ngx_http_ai_otlp_s {
    const ngx_http_ai_otlp_encoding_t   *encoding;
    ngx_http_ai_out_t                   *out;

    /* JSON: what stands before the next one */
    ngx_uint_t                           spans;
    ngx_uint_t                           attributes;
    ngx_uint_t                           events;
    ngx_uint_t                           items;

    /* protobuf: where messages that are open begin */
    size_t                               resource_spans;
    size_t                               scope_spans;
    size_t                               message;
    size_t                               event_message;
    size_t                               pair;
    size_t                               value;
    size_t                               array;
    u_char                               tag;     /* of attributes here */
};


extern const ngx_http_ai_otlp_encoding_t  ngx_http_ai_otlp_protobuf;
extern const ngx_http_ai_otlp_encoding_t  ngx_http_ai_otlp_json;


#endif /* _NGX_HTTP_AI_OTLP_H_INCLUDED_ */
