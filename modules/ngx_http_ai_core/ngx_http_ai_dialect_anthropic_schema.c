
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Schemas that a provider has to keep to.  It takes closed objects only, and
 * few of the keywords: the others are told in the description, as the
 * provider's own client libraries do.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_dialect.h"
#include "ngx_http_ai_dialect_anthropic.h"


typedef enum {
    NGX_HTTP_AI_ANTHROPIC_KEY_TOLD = 0,
    NGX_HTTP_AI_ANTHROPIC_KEY_DROP,
    NGX_HTTP_AI_ANTHROPIC_KEY_VALUE,
    NGX_HTTP_AI_ANTHROPIC_KEY_SCHEMA,
    NGX_HTTP_AI_ANTHROPIC_KEY_LIST,
    NGX_HTTP_AI_ANTHROPIC_KEY_MAP
} ngx_http_ai_anthropic_key_e;


typedef struct {
    ngx_str_t                     name;
    ngx_http_ai_anthropic_key_e   kind;
} ngx_http_ai_anthropic_keyword_t;


static ngx_int_t ngx_http_ai_anthropic_schema_parse(
    ngx_http_ai_anthropic_write_t *w, ngx_str_t *schema);
static ngx_uint_t ngx_http_ai_anthropic_schema_object(ngx_http_ai_json_t *j,
    ngx_uint_t n);
static void ngx_http_ai_anthropic_schema_node(
    ngx_http_ai_anthropic_write_t *w, ngx_uint_t n);
static void ngx_http_ai_anthropic_schema_value(
    ngx_http_ai_anthropic_write_t *w, ngx_uint_t n);
static void ngx_http_ai_anthropic_schema_nodes(
    ngx_http_ai_anthropic_write_t *w, ngx_uint_t n);
static void ngx_http_ai_anthropic_schema_told(
    ngx_http_ai_anthropic_write_t *w, ngx_uint_t n, ngx_uint_t comma);
static ngx_http_ai_anthropic_key_e ngx_http_ai_anthropic_schema_key(
    ngx_http_ai_json_t *j, ngx_uint_t key, ngx_uint_t ref);


static ngx_http_ai_anthropic_keyword_t  ngx_http_ai_anthropic_keywords[] = {
    { ngx_string("type"), NGX_HTTP_AI_ANTHROPIC_KEY_VALUE },
    { ngx_string("enum"), NGX_HTTP_AI_ANTHROPIC_KEY_VALUE },
    { ngx_string("const"), NGX_HTTP_AI_ANTHROPIC_KEY_VALUE },
    { ngx_string("title"), NGX_HTTP_AI_ANTHROPIC_KEY_VALUE },
    { ngx_string("required"), NGX_HTTP_AI_ANTHROPIC_KEY_VALUE },
    { ngx_string("format"), NGX_HTTP_AI_ANTHROPIC_KEY_VALUE },
    { ngx_string("minItems"), NGX_HTTP_AI_ANTHROPIC_KEY_VALUE },
    { ngx_string("items"), NGX_HTTP_AI_ANTHROPIC_KEY_SCHEMA },
    { ngx_string("anyOf"), NGX_HTTP_AI_ANTHROPIC_KEY_LIST },
    { ngx_string("oneOf"), NGX_HTTP_AI_ANTHROPIC_KEY_LIST },
    { ngx_string("allOf"), NGX_HTTP_AI_ANTHROPIC_KEY_LIST },
    { ngx_string("properties"), NGX_HTTP_AI_ANTHROPIC_KEY_MAP },
    { ngx_string("additionalProperties"), NGX_HTTP_AI_ANTHROPIC_KEY_DROP },
    { ngx_string("description"), NGX_HTTP_AI_ANTHROPIC_KEY_DROP },
    { ngx_string("$schema"), NGX_HTTP_AI_ANTHROPIC_KEY_DROP },
    { ngx_string("$id"), NGX_HTTP_AI_ANTHROPIC_KEY_DROP },
    { ngx_string("$comment"), NGX_HTTP_AI_ANTHROPIC_KEY_DROP },
    { ngx_null_string, NGX_HTTP_AI_ANTHROPIC_KEY_TOLD }
};


static ngx_str_t  ngx_http_ai_anthropic_formats[] = {
    ngx_string("date-time"),
    ngx_string("time"),
    ngx_string("date"),
    ngx_string("duration"),
    ngx_string("email"),
    ngx_string("hostname"),
    ngx_string("uri"),
    ngx_string("ipv4"),
    ngx_string("ipv6"),
    ngx_string("uuid"),
    ngx_null_string
};


/*
 * NGX_OK when closing its objects leaves what the schema is about;
 * NGX_DECLINED for objects of any members, which would be empty then, for a
 * schema within itself, and for what is no object.
 */

ngx_int_t
ngx_http_ai_anthropic_schema_closed(ngx_http_ai_anthropic_write_t *w,
    ngx_str_t *schema)
{
    ngx_int_t            rc;
    ngx_str_t            s;
    ngx_uint_t           n, v, more;
    ngx_http_ai_json_t  *j;

    rc = ngx_http_ai_anthropic_schema_parse(w, schema);
    if (rc != NGX_OK) {
        return rc;
    }

    j = &w->json;

    if (!ngx_http_ai_anthropic_schema_object(j, 0)) {
        return NGX_DECLINED;
    }

    for (n = 0; n < j->nnodes; n++) {

        if (j->nodes[n].key || j->nodes[n].type != NGX_HTTP_AI_JSON_OBJECT) {
            continue;
        }

        v = ngx_http_ai_json_member(j, n, "$ref");

        if (ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_STRING) {
            s = ngx_http_ai_json_raw(j, v);

            if (s.len == 1 && s.data[0] == '#') {
                return NGX_DECLINED;
            }
        }

        if (!ngx_http_ai_anthropic_schema_object(j, n)) {
            continue;
        }

        v = ngx_http_ai_json_member(j, n, "properties");
        more = ngx_http_ai_json_member(j, n, "additionalProperties");

        if ((ngx_http_ai_json_type(j, v) != NGX_HTTP_AI_JSON_OBJECT
             || j->nodes[v].count == 0)
            && ngx_http_ai_json_type(j, more) != NGX_HTTP_AI_JSON_FALSE)
        {
            return NGX_DECLINED;
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_anthropic_out_closed(ngx_http_ai_anthropic_write_t *w,
    ngx_str_t *schema)
{
    ngx_int_t  rc;

    rc = ngx_http_ai_anthropic_schema_parse(w, schema);
    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_ai_anthropic_schema_node(w, 0);

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_schema_parse(ngx_http_ai_anthropic_write_t *w,
    ngx_str_t *schema)
{
    ngx_int_t   rc;
    ngx_uint_t  shallow;

    if (schema->len == 0) {
        return NGX_DECLINED;
    }

    shallow = w->json.shallow;
    w->json.shallow = 0;

    rc = ngx_http_ai_anthropic_parse(w, schema);

    w->json.shallow = shallow;

    if (rc != NGX_OK) {
        return rc;
    }

    return (w->json.nodes[0].type == NGX_HTTP_AI_JSON_OBJECT) ? NGX_OK
                                                              : NGX_DECLINED;
}


static ngx_uint_t
ngx_http_ai_anthropic_schema_object(ngx_http_ai_json_t *j, ngx_uint_t n)
{
    ngx_str_t   s;
    ngx_uint_t  v;

    v = ngx_http_ai_json_member(j, n, "type");

    if (ngx_http_ai_json_type(j, v) != NGX_HTTP_AI_JSON_STRING) {
        return 0;
    }

    s = ngx_http_ai_json_raw(j, v);

    return s.len == sizeof("object") - 1
           && ngx_memcmp(s.data, "object", sizeof("object") - 1) == 0;
}


static void
ngx_http_ai_anthropic_schema_node(ngx_http_ai_anthropic_write_t *w,
    ngx_uint_t n)
{
    ngx_uint_t                    i, ref, comma;
    ngx_http_ai_out_t            *out;
    ngx_http_ai_json_t           *j;
    ngx_http_ai_anthropic_key_e   kind;

    out = w->out;
    j = &w->json;

    if (j->nodes[n].type != NGX_HTTP_AI_JSON_OBJECT) {
        ngx_http_ai_anthropic_schema_value(w, n);
        return;
    }

    ref = (ngx_http_ai_json_member(j, n, "$ref") != NGX_HTTP_AI_JSON_NONE);
    comma = 0;

    ngx_http_ai_out_lit(out, "{");

    for (i = ngx_http_ai_json_first(j, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, n, i))
    {
        kind = ngx_http_ai_anthropic_schema_key(j, i, ref);

        if (kind < NGX_HTTP_AI_ANTHROPIC_KEY_VALUE) {
            continue;
        }

        if (comma++) {
            ngx_http_ai_out_lit(out, ",");
        }

        if (ngx_http_ai_json_key_is(j, i, "oneOf")) {
            ngx_http_ai_out_lit(out, "\"anyOf\"");

        } else {
            ngx_http_ai_anthropic_schema_value(w, i);
        }

        ngx_http_ai_out_lit(out, ":");

        switch (kind) {

        case NGX_HTTP_AI_ANTHROPIC_KEY_SCHEMA:
            ngx_http_ai_anthropic_schema_node(w, i + 1);
            break;

        case NGX_HTTP_AI_ANTHROPIC_KEY_LIST:
        case NGX_HTTP_AI_ANTHROPIC_KEY_MAP:
            ngx_http_ai_anthropic_schema_nodes(w, i + 1);
            break;

        default:
            ngx_http_ai_anthropic_schema_value(w, i + 1);
            break;
        }
    }

    if (!ref) {

        /* "type" at least is before it */

        if (ngx_http_ai_anthropic_schema_object(j, n)) {
            ngx_http_ai_out_lit(out, ",\"additionalProperties\":false");
        }

        ngx_http_ai_anthropic_schema_told(w, n, comma);
    }

    ngx_http_ai_out_lit(out, "}");
}


static void
ngx_http_ai_anthropic_schema_value(ngx_http_ai_anthropic_write_t *w,
    ngx_uint_t n)
{
    ngx_str_t  s;

    s = ngx_http_ai_json_value(&w->json, n);
    ngx_http_ai_out_str(w->out, &s);
}


/* elements of an array or values of an object, which are schemas */

static void
ngx_http_ai_anthropic_schema_nodes(ngx_http_ai_anthropic_write_t *w,
    ngx_uint_t n)
{
    ngx_uint_t           i, comma, object;
    ngx_http_ai_out_t   *out;
    ngx_http_ai_json_t  *j;

    out = w->out;
    j = &w->json;

    if (j->nodes[n].type < NGX_HTTP_AI_JSON_ARRAY) {
        ngx_http_ai_anthropic_schema_value(w, n);
        return;
    }

    object = (j->nodes[n].type == NGX_HTTP_AI_JSON_OBJECT);
    comma = 0;

    ngx_http_ai_out_mem(out, object ? "{" : "[", 1);

    for (i = ngx_http_ai_json_first(j, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, n, i))
    {
        if (comma++) {
            ngx_http_ai_out_lit(out, ",");
        }

        if (object) {
            ngx_http_ai_anthropic_schema_value(w, i);
            ngx_http_ai_out_lit(out, ":");
        }

        ngx_http_ai_anthropic_schema_node(w, object ? i + 1 : i);
    }

    ngx_http_ai_out_mem(out, object ? "}" : "]", 1);
}


/* the description, with what cannot be said in another way */

static void
ngx_http_ai_anthropic_schema_told(ngx_http_ai_anthropic_write_t *w,
    ngx_uint_t n, ngx_uint_t comma)
{
    ngx_str_t            s;
    ngx_uint_t           i, v, told;
    ngx_http_ai_out_t   *out;
    ngx_http_ai_json_t  *j;

    out = w->out;
    j = &w->json;

    ngx_str_null(&s);
    told = 0;

    v = ngx_http_ai_json_member(j, n, "description");

    if (ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_STRING) {
        s = ngx_http_ai_json_raw(j, v);
    }

    for (i = ngx_http_ai_json_first(j, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, n, i))
    {
        if (ngx_http_ai_anthropic_schema_key(j, i, 0)
            == NGX_HTTP_AI_ANTHROPIC_KEY_TOLD)
        {
            told++;
        }
    }

    if (s.len == 0 && told == 0) {
        return;
    }

    if (comma) {
        ngx_http_ai_out_lit(out, ",");
    }

    ngx_http_ai_out_lit(out, "\"description\":\"");
    ngx_http_ai_out_str(out, &s);

    if (told) {

        if (s.len) {
            ngx_http_ai_out_lit(out, "\\n\\n");
        }

        ngx_http_ai_out_lit(out, "{");

        for (i = ngx_http_ai_json_first(j, n);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, n, i))
        {
            if (ngx_http_ai_anthropic_schema_key(j, i, 0)
                != NGX_HTTP_AI_ANTHROPIC_KEY_TOLD)
            {
                continue;
            }

            s = ngx_http_ai_json_raw(j, i);
            ngx_http_ai_out_str(out, &s);
            ngx_http_ai_out_lit(out, ": ");

            s = ngx_http_ai_json_value(j, i + 1);
            ngx_http_ai_out_reescaped(out, &s);

            if (--told) {
                ngx_http_ai_out_lit(out, ", ");
            }
        }

        ngx_http_ai_out_lit(out, "}");
    }

    ngx_http_ai_out_lit(out, "\"");
}


/* beside a reference only definitions count */

static ngx_http_ai_anthropic_key_e
ngx_http_ai_anthropic_schema_key(ngx_http_ai_json_t *j, ngx_uint_t key,
    ngx_uint_t ref)
{
    int64_t                           n;
    ngx_str_t                         s, *format;
    ngx_uint_t                        type;
    ngx_http_ai_anthropic_keyword_t  *k;

    if (ngx_http_ai_json_key_is(j, key, "$defs")
        || ngx_http_ai_json_key_is(j, key, "definitions"))
    {
        return NGX_HTTP_AI_ANTHROPIC_KEY_MAP;
    }

    if (ngx_http_ai_json_key_is(j, key, "$ref")) {
        return NGX_HTTP_AI_ANTHROPIC_KEY_VALUE;
    }

    if (ref) {
        return NGX_HTTP_AI_ANTHROPIC_KEY_DROP;
    }

    for (k = ngx_http_ai_anthropic_keywords; k->name.len; k++) {
        if (ngx_http_ai_json_key_eq(j, key, (char *) k->name.data,
                                    k->name.len))
        {
            break;
        }
    }

    type = ngx_http_ai_json_type(j, key + 1);

    if (k->kind == NGX_HTTP_AI_ANTHROPIC_KEY_SCHEMA
        && type == NGX_HTTP_AI_JSON_ARRAY)
    {
        /* a tuple */
        return NGX_HTTP_AI_ANTHROPIC_KEY_TOLD;
    }

    if (ngx_http_ai_json_key_is(j, key, "minItems")) {

        if (ngx_http_ai_json_int(j, key + 1, &n) == NGX_OK && n <= 1) {
            return NGX_HTTP_AI_ANTHROPIC_KEY_VALUE;
        }

        return NGX_HTTP_AI_ANTHROPIC_KEY_TOLD;
    }

    if (ngx_http_ai_json_key_is(j, key, "format")) {

        s = ngx_http_ai_json_raw(j, key + 1);

        for (format = ngx_http_ai_anthropic_formats; format->len; format++) {
            if (type == NGX_HTTP_AI_JSON_STRING && s.len == format->len
                && ngx_memcmp(s.data, format->data, s.len) == 0)
            {
                return NGX_HTTP_AI_ANTHROPIC_KEY_VALUE;
            }
        }

        return NGX_HTTP_AI_ANTHROPIC_KEY_TOLD;
    }

    return k->kind;
}
