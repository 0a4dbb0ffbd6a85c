
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * JSON on byte slices: a validating RFC 8259 scanner that yields a flat
 * table of nodes pointing into the text, and a writer.  Plain C: needs only
 * ngx_config.h, ngx_core.h and a pool.  Nothing is unescaped or copied unless
 * asked for, so that numbers, key order, escapes and unknown members of a
 * document can be passed on byte for byte.
 *
 * "Raw text" everywhere in the codecs means the bytes between the quotes of
 * a JSON string as they came, escapes included.
 */


#ifndef _NGX_HTTP_AI_JSON_H_INCLUDED_
#define _NGX_HTTP_AI_JSON_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_compat.h"


#define NGX_HTTP_AI_JSON_NULL     0
#define NGX_HTTP_AI_JSON_FALSE    1
#define NGX_HTTP_AI_JSON_TRUE     2
#define NGX_HTTP_AI_JSON_NUMBER   3
#define NGX_HTTP_AI_JSON_STRING   4
#define NGX_HTTP_AI_JSON_ARRAY    5
#define NGX_HTTP_AI_JSON_OBJECT   6

#define NGX_HTTP_AI_JSON_NONE     ((ngx_uint_t) -1)


typedef struct {
    u_char                    *start;     /* string: first byte inside the
                                             quotes; else of the value */
    uint32_t                   len;       /* bytes from start; containers
                                             include both brackets */
    uint32_t                   next;      /* index of the node that follows
                                             this value and its subtree */
    uint32_t                   count;     /* array: elements; object: members
                                             (0 when below "shallow") */
    uint8_t                    type;      /* NGX_HTTP_AI_JSON_* */
    uint8_t                    escaped;   /* string contains a backslash */
    uint8_t                    key;       /* is a member name; its value is
                                             the next node */
    uint8_t                    reserved;
} ngx_http_ai_json_node_t;


typedef struct {
    ngx_pool_t                *pool;
    ngx_http_ai_json_node_t   *nodes;     /* nodes[0] is the document */
    ngx_uint_t                 nnodes;
    ngx_uint_t                 nalloc;

    /* limits, set by the caller; 0 means the default */
    ngx_uint_t                 max_depth;     /* default 128, at most 1024 */
    ngx_uint_t                 max_nodes;     /* default 1,000,000 */
    ngx_uint_t                 shallow;       /* >0: containers deeper than
                                                 this many levels are checked
                                                 but give no nodes; 1 = only
                                                 members of the document */

    /* set on failure */
    const char                *error;         /* static text */
    size_t                     error_offset;  /* bytes from the start */
    unsigned                   limit:1;       /* a limit, not the syntax */
} ngx_http_ai_json_t;


/*
 * Parses exactly one document with optional surrounding white space (a UTF-8
 * BOM before it is skipped).  The whole text is validated whatever "shallow"
 * is: structure, literals, number syntax, escapes, no raw control characters
 * in strings.  (UTF-8 well-formedness is not checked.)  The first nodes may be
 * preallocated by the caller (nodes, nalloc); the table grows in the pool.
 * Strings are skipped with SIMD where the CPU has it.
 *
 * Returns NGX_OK, NGX_DECLINED for bad text or an exceeded limit (error,
 * error_offset, limit are set), NGX_ERROR when out of memory.
 */
ngx_int_t ngx_http_ai_json_parse(ngx_http_ai_json_t *j, u_char *data,
    size_t len);

/*
 * Member "name" of the object node "obj": the index of its value, or
 * NGX_HTTP_AI_JSON_NONE when absent or "obj" is not an object.  Keys are
 * compared unescaped.  Of duplicate members the last counts (as most JSON
 * readers do); ngx_http_ai_json_duplicate() tells whether there are several.
 */
ngx_uint_t ngx_http_ai_json_get(ngx_http_ai_json_t *j, ngx_uint_t obj,
    const char *name, size_t len);
ngx_uint_t ngx_http_ai_json_duplicate(ngx_http_ai_json_t *j, ngx_uint_t obj,
    const char *name, size_t len);

/* ngx_http_ai_json_key_eq() for a key with a backslash */
ngx_uint_t ngx_http_ai_json_key_unescaped(ngx_http_ai_json_node_t *node,
    const char *name, size_t len);

#define ngx_http_ai_json_member(j, obj, literal)                              \
    ngx_http_ai_json_get(j, obj, literal, sizeof(literal) - 1)

/* true when the key node equals the literal, escapes considered */
static ngx_inline ngx_uint_t
ngx_http_ai_json_key_eq(ngx_http_ai_json_t *j, ngx_uint_t key,
    const char *name, size_t len)
{
    ngx_http_ai_json_node_t  *node;

    node = &j->nodes[key];

    if (node->escaped) {
        return ngx_http_ai_json_key_unescaped(node, name, len);
    }

    return node->len == len && ngx_memcmp(node->start, name, len) == 0;
}

#define ngx_http_ai_json_key_is(j, key, literal)                              \
    ngx_http_ai_json_key_eq(j, key, literal, sizeof(literal) - 1)

/*
 * Iteration over the elements of an array or the members of an object:
 *
 *     for (i = ngx_http_ai_json_first(j, n);
 *          i != NGX_HTTP_AI_JSON_NONE;
 *          i = ngx_http_ai_json_next(j, n, i))
 *
 * For an object "i" is the key node and i + 1 its value.
 */
static ngx_inline ngx_uint_t
ngx_http_ai_json_first(ngx_http_ai_json_t *j, ngx_uint_t n)
{
    if (n == NGX_HTTP_AI_JSON_NONE
        || j->nodes[n].type < NGX_HTTP_AI_JSON_ARRAY
        || j->nodes[n].next == n + 1)
    {
        return NGX_HTTP_AI_JSON_NONE;
    }

    return n + 1;
}


static ngx_inline ngx_uint_t
ngx_http_ai_json_next(ngx_http_ai_json_t *j, ngx_uint_t n, ngx_uint_t i)
{
    i = j->nodes[j->nodes[i].key ? i + 1 : i].next;

    return (i < j->nodes[n].next) ? i : NGX_HTTP_AI_JSON_NONE;
}


/* type of a node; NGX_HTTP_AI_JSON_NULL for NGX_HTTP_AI_JSON_NONE */
static ngx_inline ngx_uint_t
ngx_http_ai_json_type(ngx_http_ai_json_t *j, ngx_uint_t n)
{
    return (n == NGX_HTTP_AI_JSON_NONE) ? NGX_HTTP_AI_JSON_NULL
                                        : j->nodes[n].type;
}


/* 0 absent or null, 1 false, 2 true, 3 something else */
static ngx_inline ngx_uint_t
ngx_http_ai_json_flag(ngx_http_ai_json_t *j, ngx_uint_t n)
{
    switch (ngx_http_ai_json_type(j, n)) {

    case NGX_HTTP_AI_JSON_NULL:
        return 0;

    case NGX_HTTP_AI_JSON_FALSE:
        return 1;

    case NGX_HTTP_AI_JSON_TRUE:
        return 2;

    default:
        return 3;
    }
}


/*
 * Bytes of a value as they came: for a string those inside the quotes ("raw
 * text"), otherwise the whole value.  An empty string for NONE.
 */
static ngx_inline ngx_str_t
ngx_http_ai_json_raw(ngx_http_ai_json_t *j, ngx_uint_t n)
{
    ngx_str_t  s;

    if (n == NGX_HTTP_AI_JSON_NONE) {
        ngx_str_null(&s);

    } else {
        s.data = j->nodes[n].start;
        s.len = j->nodes[n].len;
    }

    return s;
}


/* the value with its quotes, ready to be written as a value elsewhere */
ngx_str_t ngx_http_ai_json_value(ngx_http_ai_json_t *j, ngx_uint_t n);

/*
 * Integer value of a number node.  "1e3" and "2.0" are integers; fractions are
 * truncated towards zero.  NGX_DECLINED when not a number or out of range.
 */
ngx_int_t ngx_http_ai_json_int(ngx_http_ai_json_t *j, ngx_uint_t n,
    int64_t *value);

/*
 * Decimal text (a JSON number) to a fixed-point integer with "scale" decimal
 * digits, rounded half up: ("0.125", 6) is 125000.  NGX_ERROR when it is not a
 * non-negative number or overflows.
 */
ngx_int_t ngx_http_ai_json_fixed(ngx_str_t *text, ngx_uint_t scale,
    int64_t *value);

/*
 * Unescapes raw text into dst, which must have room for raw->len bytes (the
 * result is never longer); returns the end.  Lone surrogates become U+FFFD.
 */
u_char *ngx_http_ai_json_unescape(u_char *dst, ngx_str_t *raw);

/* the same into the pool; returns raw itself when it has no backslash */
ngx_int_t ngx_http_ai_json_unescape_str(ngx_pool_t *pool, ngx_str_t *raw,
    ngx_str_t *out);

/* length of the UTF-8 sequence at p; if it is not a valid one, of its longest
 * valid beginning, at least 1 */
size_t ngx_http_ai_json_utf8(u_char *p, u_char *last, ngx_uint_t *valid);

/* skips white space, returns the first other byte or "last" */
static ngx_inline u_char *
ngx_http_ai_json_skip_space(u_char *p, u_char *last)
{
    while (p < last
           && (*p == ' ' || *p == '\n' || *p == '\r' || *p == '\t'))
    {
        p++;
    }

    return p;
}


/*
 * The writer: a growing byte buffer.  Errors are sticky ("failed"), so that
 * encoders test once at the end.
 */

typedef struct {
    u_char                    *start;
    u_char                    *last;
    u_char                    *end;
    ngx_pool_t                *pool;
    unsigned                   failed:1;
} ngx_http_ai_out_t;


/* NGX_ERROR when out of memory.  size may be 0. */
ngx_int_t ngx_http_ai_out_init(ngx_http_ai_out_t *out, ngx_pool_t *pool,
    size_t size);

/* makes room for n more bytes; NGX_ERROR sets "failed" */
ngx_int_t ngx_http_ai_out_grow(ngx_http_ai_out_t *out, size_t n);

static ngx_inline void
ngx_http_ai_out_mem(ngx_http_ai_out_t *out, const void *data, size_t len)
{
    if ((size_t) (out->end - out->last) < len
        && ngx_http_ai_out_grow(out, len) != NGX_OK)
    {
        return;
    }

    if (len) {
        out->last = ngx_cpymem(out->last, data, len);
    }
}


#define ngx_http_ai_out_lit(out, literal)                                     \
    ngx_http_ai_out_mem(out, literal, sizeof(literal) - 1)

#define ngx_http_ai_out_str(out, s)                                           \
    ngx_http_ai_out_mem(out, (s)->data, (s)->len)

void ngx_http_ai_out_int(ngx_http_ai_out_t *out, int64_t n);

/* a number in decimal, before "last", which at most 20 bytes are for; returns
 * its beginning.  ngx_sprintf() takes several times as long */
u_char *ngx_http_ai_digits(u_char *last, uint64_t n);

/* nano-dollars, not negative, as dollars with nine decimals; the latter
 * writes them at p and returns the end */
void ngx_http_ai_out_dollars(ngx_http_ai_out_t *out, int64_t nano);
u_char *ngx_http_ai_dollars(u_char *p, int64_t nano);

#define NGX_HTTP_AI_DOLLARS_LEN  (NGX_INT64_LEN + 1)

/* plain bytes escaped as the inside of a JSON string: quotes, backslash,
 * control characters, DEL stays; invalid UTF-8 becomes U+FFFD */
void ngx_http_ai_out_escaped(ngx_http_ai_out_t *out, u_char *data, size_t len);

/* plain bytes as they are; invalid UTF-8 becomes U+FFFD */
void ngx_http_ai_out_utf8(ngx_http_ai_out_t *out, u_char *p, u_char *last);

/* raw text unescaped (a string that holds JSON, written as that JSON) */
void ngx_http_ai_out_unescaped(ngx_http_ai_out_t *out, ngx_str_t *raw);

/* JSON text escaped once more: the reverse of the above */
void ngx_http_ai_out_reescaped(ngx_http_ai_out_t *out, ngx_str_t *json);


#endif /* _NGX_HTTP_AI_JSON_H_INCLUDED_ */
