
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_auth_jwt.h"


#define NGX_HTTP_AI_JWT_HEADER_MAX    4096
#define NGX_HTTP_AI_JWT_DEPTH         16
#define NGX_HTTP_AI_JWT_HEADER_NODES  256
#define NGX_HTTP_AI_JWT_NODES         2048

/* 9999-12-31T23:59:59Z: what is later is no time, seconds or not */
#define NGX_HTTP_AI_JWT_TIME_MAX      253402300799LL


typedef struct {
    ngx_str_t                  name;
    ngx_uint_t                 alg;
} ngx_http_ai_jwa_t;


typedef struct {
    uint32_t                   hash;
    uint32_t                   node;      /* 0: free, as a name never is */
} ngx_http_ai_jwt_slot_t;


static ngx_http_ai_jwt_e ngx_http_ai_jwt_header(ngx_pool_t *pool,
    ngx_str_t *text, ngx_http_ai_jwt_t *jwt);
static ngx_int_t ngx_http_ai_jwt_type(ngx_pool_t *pool, ngx_str_t *type);
static ngx_http_ai_jwt_e ngx_http_ai_jwt_json(ngx_pool_t *pool,
    ngx_str_t *text, ngx_uint_t nodes, ngx_http_ai_json_t *j);
static ngx_uint_t ngx_http_ai_jwt_is_utf8(u_char *p, u_char *last);
static ngx_uint_t ngx_http_ai_jwt_is_paired(u_char *p, u_char *last);
static ngx_int_t ngx_http_ai_jwt_string(ngx_http_ai_json_t *j,
    ngx_pool_t *pool, ngx_uint_t node, ngx_str_t *value);
static ngx_int_t ngx_http_ai_jwt_in(ngx_array_t *values, ngx_str_t *value);
static ngx_http_ai_jwt_e ngx_http_ai_jwt_times(ngx_http_ai_jwt_t *jwt,
    ngx_http_ai_jwt_rules_t *rules, time_t now, time_t *expires);
static ngx_int_t ngx_http_ai_jwt_time(ngx_http_ai_json_t *j, const char *name,
    int64_t *value);
static ngx_http_ai_jwt_e ngx_http_ai_jwt_audience(ngx_http_ai_jwt_t *jwt,
    ngx_array_t *audiences);
static ngx_http_ai_jwt_e ngx_http_ai_jwt_party(ngx_http_ai_jwt_t *jwt,
    ngx_array_t *azp);
static ngx_uint_t ngx_http_ai_jwt_find(ngx_http_ai_json_t *j, ngx_uint_t obj,
    u_char *name, size_t len);
static ngx_uint_t ngx_http_ai_jwt_pointer(ngx_http_ai_json_t *j,
    ngx_str_t *path);
static ngx_uint_t ngx_http_ai_jwt_item(ngx_http_ai_json_t *j, ngx_uint_t array,
    ngx_str_t *name);
static void ngx_http_ai_jwt_text(ngx_http_ai_json_t *j, ngx_uint_t node,
    ngx_http_ai_out_t *out);


static ngx_http_ai_jwa_t  ngx_http_ai_jwa[] = {
    { ngx_string("HS256"), NGX_HTTP_AI_JWA_HS256 },
    { ngx_string("HS384"), NGX_HTTP_AI_JWA_HS384 },
    { ngx_string("HS512"), NGX_HTTP_AI_JWA_HS512 },
    { ngx_string("RS256"), NGX_HTTP_AI_JWA_RS256 },
    { ngx_string("RS384"), NGX_HTTP_AI_JWA_RS384 },
    { ngx_string("RS512"), NGX_HTTP_AI_JWA_RS512 },
    { ngx_string("PS256"), NGX_HTTP_AI_JWA_PS256 },
    { ngx_string("PS384"), NGX_HTTP_AI_JWA_PS384 },
    { ngx_string("PS512"), NGX_HTTP_AI_JWA_PS512 },
    { ngx_string("ES256"), NGX_HTTP_AI_JWA_ES256 },
    { ngx_string("ES384"), NGX_HTTP_AI_JWA_ES384 },
    { ngx_string("ES512"), NGX_HTTP_AI_JWA_ES512 },
    { ngx_string("EdDSA"), NGX_HTTP_AI_JWA_EDDSA },
    { ngx_string("Ed25519"), NGX_HTTP_AI_JWA_ED25519 },
    { ngx_string("Ed448"), NGX_HTTP_AI_JWA_ED448 },
    { ngx_null_string, 0 }
};


/* in the order of ngx_http_ai_jwt_e */

static const char  *ngx_http_ai_jwt_errors[] = {
    "ok",
    "not a JSON Web Token in compact form",
    "algorithm is not allowed",
    "header asks for an extension (\"crit\", \"b64\", \"zip\")",
    "type is not allowed (\"typ\")",
    "no key of this \"kid\" and algorithm",
    "signature does not match",
    "claims are malformed or missing",
    "issued by another (\"iss\")",
    "meant for another (\"aud\")",
    "issued to another (\"azp\")",
    "expired",
    "not valid yet",
    "no memory"
};


static signed char  ngx_http_ai_jwt_digits[256] = {
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 62, -1, -1,
    52, 53, 54, 55, 56, 57, 58, 59, 60, 61, -1, -1, -1, -1, -1, -1,
    -1,  0,  1,  2,  3,  4,  5,  6,  7,  8,  9, 10, 11, 12, 13, 14,
    15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, -1, -1, -1, -1, 63,
    -1, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40,
    41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, -1, -1, -1, -1, -1,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
    -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1
};


const char *
ngx_http_ai_jwt_error(ngx_http_ai_jwt_e rc)
{
    return ((ngx_uint_t) rc < sizeof(ngx_http_ai_jwt_errors)
                              / sizeof(ngx_http_ai_jwt_errors[0]))
           ? ngx_http_ai_jwt_errors[rc] : "unknown error";
}


ngx_uint_t
ngx_http_ai_jwa_find(ngx_str_t *name)
{
    ngx_http_ai_jwa_t  *jwa;

    for (jwa = ngx_http_ai_jwa; jwa->alg; jwa++) {

        if (jwa->name.len == name->len
            && ngx_memcmp(jwa->name.data, name->data, name->len) == 0)
        {
            return jwa->alg;
        }
    }

    return 0;
}


/*
 * ngx_decode_base64url() takes padding, stops at what it does not know, and
 * does not look at the bits that are left over: several texts would stand for
 * one token.
 */

ngx_int_t
ngx_http_ai_jwt_base64url(ngx_pool_t *pool, ngx_str_t *src, ngx_str_t *dst)
{
    int        digit;
    u_char    *p, *s, *last;
    uint32_t   bits;
    ngx_int_t  n;

    if (src->len % 4 == 1) {
        return NGX_DECLINED;
    }

    dst->len = 0;
    dst->data = ngx_pnalloc(pool, src->len / 4 * 3 + 3);
    if (dst->data == NULL) {
        return NGX_ERROR;
    }

    p = dst->data;
    s = src->data;
    last = s + src->len;

    bits = 0;
    n = 0;

    while (s < last) {
        digit = ngx_http_ai_jwt_digits[*s++];

        if (digit < 0) {
            return NGX_DECLINED;
        }

        bits = (bits << 6 | (uint32_t) digit) & 0x3fff;
        n += 6;

        if (n >= 8) {
            n -= 8;
            *p++ = (u_char) (bits >> n);
        }
    }

    if (bits & ((1u << n) - 1)) {
        return NGX_DECLINED;
    }

    dst->len = p - dst->data;

    return NGX_OK;
}


ngx_http_ai_jwt_e
ngx_http_ai_jwt_parse(ngx_pool_t *pool, ngx_str_t *token,
    ngx_http_ai_jwt_t *jwt)
{
    ngx_http_ai_jwt_e  rc;

    rc = ngx_http_ai_jws_parse(pool, token, jwt);

    if (rc != NGX_HTTP_AI_JWT_OK) {
        return rc;
    }

    return ngx_http_ai_jwt_json(pool, &jwt->payload, NGX_HTTP_AI_JWT_NODES,
                                &jwt->claims);
}


ngx_http_ai_jwt_e
ngx_http_ai_jws_parse(ngx_pool_t *pool, ngx_str_t *token,
    ngx_http_ai_jwt_t *jwt)
{
    u_char             *p, *dot, *last;
    ngx_int_t           rc;
    ngx_str_t           part, header;
    ngx_http_ai_jwt_e   error;

    ngx_memzero(jwt, sizeof(ngx_http_ai_jwt_t));

    if (token->len == 0 || token->len > NGX_HTTP_AI_JWT_MAX) {
        return NGX_HTTP_AI_JWT_MALFORMED;
    }

    p = token->data;
    last = p + token->len;

    dot = ngx_strlchr(p, last, '.');

    if (dot == NULL
        || dot == p
        || dot - p > (NGX_HTTP_AI_JWT_HEADER_MAX + 2) / 3 * 4)
    {
        return NGX_HTTP_AI_JWT_MALFORMED;
    }

    part.data = p;
    part.len = dot - p;

    rc = ngx_http_ai_jwt_base64url(pool, &part, &header);

    if (rc != NGX_OK) {
        goto failed;
    }

    p = dot + 1;
    dot = ngx_strlchr(p, last, '.');

    if (dot == NULL) {
        return NGX_HTTP_AI_JWT_MALFORMED;
    }

    part.data = p;
    part.len = dot - p;

    rc = ngx_http_ai_jwt_base64url(pool, &part, &jwt->payload);

    if (rc != NGX_OK) {
        goto failed;
    }

    jwt->signing_input.data = token->data;
    jwt->signing_input.len = dot - token->data;

    /* another dot is no digit */

    part.data = dot + 1;
    part.len = last - part.data;

    rc = ngx_http_ai_jwt_base64url(pool, &part, &jwt->signature);

    if (rc != NGX_OK) {
        goto failed;
    }

    if (header.len > NGX_HTTP_AI_JWT_HEADER_MAX) {
        return NGX_HTTP_AI_JWT_MALFORMED;
    }

    error = ngx_http_ai_jwt_header(pool, &header, jwt);

    if (error != NGX_HTTP_AI_JWT_OK) {
        jwt->alg = 0;
    }

    return error;

failed:

    return (rc == NGX_ERROR) ? NGX_HTTP_AI_JWT_NO_MEMORY
                             : NGX_HTTP_AI_JWT_MALFORMED;
}


static ngx_http_ai_jwt_e
ngx_http_ai_jwt_header(ngx_pool_t *pool, ngx_str_t *text,
    ngx_http_ai_jwt_t *jwt)
{
    ngx_int_t            rc;
    ngx_str_t            alg;
    ngx_uint_t           n, extension;
    ngx_http_ai_jwt_e    error;
    ngx_http_ai_json_t   j;

    error = ngx_http_ai_jwt_json(pool, text, NGX_HTTP_AI_JWT_HEADER_NODES, &j);

    if (error != NGX_HTTP_AI_JWT_OK) {
        return error;
    }

    /*
     * What "jku", "x5u", "jwk", "x5c" say of the key is not the sender's to
     * say: they are not looked at.
     */

    ngx_str_null(&alg);
    extension = 0;

    for (n = ngx_http_ai_json_first(&j, 0);
         n != NGX_HTTP_AI_JSON_NONE;
         n = ngx_http_ai_json_next(&j, 0, n))
    {
        if (ngx_http_ai_json_key_is(&j, n, "crit")
            || ngx_http_ai_json_key_is(&j, n, "b64")
            || ngx_http_ai_json_key_is(&j, n, "zip"))
        {
            extension = 1;
            continue;
        }

        if (ngx_http_ai_json_key_is(&j, n, "alg")) {
            rc = ngx_http_ai_jwt_string(&j, pool, n + 1, &alg);

        } else if (ngx_http_ai_json_key_is(&j, n, "kid")) {
            rc = ngx_http_ai_jwt_string(&j, pool, n + 1, &jwt->kid);

        } else if (ngx_http_ai_json_key_is(&j, n, "typ")) {
            rc = ngx_http_ai_jwt_string(&j, pool, n + 1, &jwt->type);

            if (rc == NGX_OK) {
                rc = ngx_http_ai_jwt_type(pool, &jwt->type);
            }

        } else if (ngx_http_ai_json_key_is(&j, n, "enc")) {

            /* that of an encrypted token */

            rc = NGX_DECLINED;

        } else {
            continue;
        }

        if (rc != NGX_OK) {
            return (rc == NGX_ERROR) ? NGX_HTTP_AI_JWT_NO_MEMORY
                                     : NGX_HTTP_AI_JWT_MALFORMED;
        }
    }

    if (extension) {
        return NGX_HTTP_AI_JWT_CRIT;
    }

    if (alg.len == 0) {
        return NGX_HTTP_AI_JWT_MALFORMED;
    }

    jwt->alg = ngx_http_ai_jwa_find(&alg);

    return NGX_HTTP_AI_JWT_OK;
}


/* RFC 7515, 4.1.9: "application/" is not written when no other slash follows,
 * and letters of either case are the same */

static ngx_int_t
ngx_http_ai_jwt_type(ngx_pool_t *pool, ngx_str_t *type)
{
    u_char  *p;
    size_t   len;

    if (type->len == 0) {
        return NGX_OK;
    }

    p = ngx_pnalloc(pool, type->len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_strlow(p, type->data, type->len);
    type->data = p;

    len = sizeof("application/") - 1;

    if (type->len > len
        && ngx_memcmp(p, "application/", len) == 0
        && ngx_strlchr(p + len, p + type->len, '/') == NULL)
    {
        type->data += len;
        type->len -= len;
    }

    return NGX_OK;
}


/* an object in UTF-8 whose names are unique */

static ngx_http_ai_jwt_e
ngx_http_ai_jwt_json(ngx_pool_t *pool, ngx_str_t *text, ngx_uint_t nodes,
    ngx_http_ai_json_t *j)
{
    ngx_int_t                 rc;
    ngx_uint_t                i;
    ngx_http_ai_json_node_t  *node;

    ngx_memzero(j, sizeof(ngx_http_ai_json_t));

    j->pool = pool;
    j->max_depth = NGX_HTTP_AI_JWT_DEPTH;
    j->max_nodes = nodes;

    /* a byte order mark is no JSON, though the parser would skip it */

    if (text->len == 0
        || text->data[0] == 0xef
        || !ngx_http_ai_jwt_is_utf8(text->data, text->data + text->len))
    {
        return NGX_HTTP_AI_JWT_MALFORMED;
    }

    rc = ngx_http_ai_json_parse(j, text->data, text->len);

    if (rc == NGX_OK && j->nodes[0].type != NGX_HTTP_AI_JSON_OBJECT) {
        rc = NGX_DECLINED;
    }

    /* half a surrogate pair is no character: many would become one */

    for (i = 1; rc == NGX_OK && i < j->nnodes; i++) {
        node = &j->nodes[i];

        if (node->type == NGX_HTTP_AI_JSON_STRING
            && node->escaped
            && !ngx_http_ai_jwt_is_paired(node->start,
                                          node->start + node->len))
        {
            rc = NGX_DECLINED;
        }
    }

    if (rc == NGX_OK) {
        rc = ngx_http_ai_jwt_unique(pool, j);
    }

    if (rc == NGX_OK) {
        return NGX_HTTP_AI_JWT_OK;
    }

    j->nnodes = 0;

    return (rc == NGX_ERROR) ? NGX_HTTP_AI_JWT_NO_MEMORY
                             : NGX_HTTP_AI_JWT_MALFORMED;
}


static ngx_uint_t
ngx_http_ai_jwt_is_utf8(u_char *p, u_char *last)
{
    u_char      ch, low, high;
    ngx_uint_t  n;

    while (p < last) {
        ch = *p++;

        if (ch < 0x80) {
            continue;
        }

        low = 0x80;
        high = 0xbf;

        if (ch >= 0xc2 && ch <= 0xdf) {
            n = 1;

        } else if (ch >= 0xe0 && ch <= 0xef) {
            n = 2;

            if (ch == 0xe0) {
                low = 0xa0;

            } else if (ch == 0xed) {
                high = 0x9f;
            }

        } else if (ch >= 0xf0 && ch <= 0xf4) {
            n = 3;

            if (ch == 0xf0) {
                low = 0x90;

            } else if (ch == 0xf4) {
                high = 0x8f;
            }

        } else {
            return 0;
        }

        while (n--) {

            if (p == last || *p < low || *p > high) {
                return 0;
            }

            p++;
            low = 0x80;
            high = 0xbf;
        }
    }

    return 1;
}


/* p: the inside of a JSON string that was parsed */

static ngx_uint_t
ngx_http_ai_jwt_is_paired(u_char *p, u_char *last)
{
    u_char      ch;
    ngx_uint_t  high;

    high = 0;

    while (p < last) {

        if (*p != '\\') {

            if (high) {
                return 0;
            }

            p++;
            continue;
        }

        ch = 0;

        if (p[1] == 'u' && (p[2] | 0x20) == 'd') {
            ch = p[3] | 0x20;
        }

        if (ch >= 'c' && ch <= 'f') {

            if (!high) {
                return 0;
            }

            high = 0;

        } else if (high) {
            return 0;

        } else if (ch == '8' || ch == '9' || ch == 'a' || ch == 'b') {
            high = 1;
        }

        p += (p[1] == 'u') ? 6 : 2;
    }

    return !high;
}


ngx_int_t
ngx_http_ai_jwt_unique(ngx_pool_t *pool, ngx_http_ai_json_t *j)
{
    size_t                   k;
    uint32_t                 hash;
    ngx_str_t                raw, name;
    ngx_uint_t               i, n, size, mask, alloc;
    ngx_http_ai_jwt_slot_t  *slot, *table, small[64];

    table = small;
    alloc = 64;

    for (n = 0; n < j->nnodes; n++) {

        if (j->nodes[n].type != NGX_HTTP_AI_JSON_OBJECT
            || j->nodes[n].count < 2)
        {
            continue;
        }

        for (size = 4; size < j->nodes[n].count * 2; size *= 2) { /* void */ }

        if (size > alloc) {
            table = ngx_palloc(pool, size * sizeof(ngx_http_ai_jwt_slot_t));
            if (table == NULL) {
                return NGX_ERROR;
            }

            alloc = size;
        }

        ngx_memzero(table, size * sizeof(ngx_http_ai_jwt_slot_t));
        mask = size - 1;

        for (i = ngx_http_ai_json_first(j, n);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, n, i))
        {
            raw = ngx_http_ai_json_raw(j, i);

            if (ngx_http_ai_json_unescape_str(pool, &raw, &name) != NGX_OK) {
                return NGX_ERROR;
            }

            /* FNV-1a */

            hash = 2166136261u;

            for (k = 0; k < name.len; k++) {
                hash = (hash ^ name.data[k]) * 16777619u;
            }

            for (slot = &table[hash & mask];
                 slot->node;
                 slot = &table[(slot - table + 1) & mask])
            {
                if (slot->hash == hash
                    && ngx_http_ai_json_key_eq(j, slot->node,
                                               (char *) name.data, name.len))
                {
                    return NGX_DECLINED;
                }
            }

            slot->hash = hash;
            slot->node = (uint32_t) i;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_jwt_string(ngx_http_ai_json_t *j, ngx_pool_t *pool,
    ngx_uint_t node, ngx_str_t *value)
{
    ngx_str_t  raw;

    if (ngx_http_ai_json_type(j, node) != NGX_HTTP_AI_JSON_STRING) {
        return NGX_DECLINED;
    }

    raw = ngx_http_ai_json_raw(j, node);

    return ngx_http_ai_json_unescape_str(pool, &raw, value);
}


static ngx_int_t
ngx_http_ai_jwt_in(ngx_array_t *values, ngx_str_t *value)
{
    ngx_str_t   *s;
    ngx_uint_t   i;

    s = values->elts;

    for (i = 0; i < values->nelts; i++) {

        if (s[i].len == value->len
            && ngx_memcmp(s[i].data, value->data, value->len) == 0)
        {
            return NGX_OK;
        }
    }

    return NGX_DECLINED;
}


ngx_http_ai_jwt_e
ngx_http_ai_jwt_check(ngx_http_ai_jwt_t *jwt, ngx_http_ai_jwt_rules_t *rules,
    time_t now, time_t *expires)
{
    ngx_int_t            rc;
    ngx_str_t            value;
    ngx_uint_t           i, node;
    ngx_http_ai_jwt_e    error;
    ngx_http_ai_json_t  *j;

    static ngx_str_t  names[] = {
        ngx_string("sub"), ngx_string("jti"), ngx_string("azp"),
        ngx_string("client_id")
    };

    *expires = 0;

    if (!jwt->verified) {
        return NGX_HTTP_AI_JWT_SIGNATURE;
    }

    j = &jwt->claims;

    if (j->nnodes == 0) {
        return NGX_HTTP_AI_JWT_CLAIMS;
    }

    node = ngx_http_ai_json_member(j, 0, "iss");

    if (node == NGX_HTTP_AI_JSON_NONE) {
        return NGX_HTTP_AI_JWT_ISSUER;
    }

    rc = ngx_http_ai_jwt_string(j, j->pool, node, &value);

    if (rc != NGX_OK) {
        return (rc == NGX_ERROR) ? NGX_HTTP_AI_JWT_NO_MEMORY
                                 : NGX_HTTP_AI_JWT_CLAIMS;
    }

    if (rules->issuer.len == 0
        || value.len != rules->issuer.len
        || ngx_memcmp(value.data, rules->issuer.data, value.len) != 0)
    {
        return NGX_HTTP_AI_JWT_ISSUER;
    }

    /* names of somebody: what is no text could be read as another's name */

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        node = ngx_http_ai_json_get(j, 0, (char *) names[i].data,
                                    names[i].len);

        if (node != NGX_HTTP_AI_JSON_NONE
            && j->nodes[node].type != NGX_HTTP_AI_JSON_STRING)
        {
            return NGX_HTTP_AI_JWT_CLAIMS;
        }
    }

    if (rules->audiences) {
        error = ngx_http_ai_jwt_audience(jwt, rules->audiences);

        if (error != NGX_HTTP_AI_JWT_OK) {
            return error;
        }
    }

    if (rules->azp) {
        error = ngx_http_ai_jwt_party(jwt, rules->azp);

        if (error != NGX_HTTP_AI_JWT_OK) {
            return error;
        }
    }

    return ngx_http_ai_jwt_times(jwt, rules, now, expires);
}


static ngx_http_ai_jwt_e
ngx_http_ai_jwt_audience(ngx_http_ai_jwt_t *jwt, ngx_array_t *audiences)
{
    ngx_int_t            rc;
    ngx_str_t            value;
    ngx_uint_t           i, aud, found;
    ngx_http_ai_json_t  *j;

    j = &jwt->claims;
    aud = ngx_http_ai_json_member(j, 0, "aud");

    if (aud == NGX_HTTP_AI_JSON_NONE) {
        return NGX_HTTP_AI_JWT_AUDIENCE;
    }

    if (j->nodes[aud].type == NGX_HTTP_AI_JSON_STRING) {
        rc = ngx_http_ai_jwt_string(j, j->pool, aud, &value);

        if (rc != NGX_OK) {
            return NGX_HTTP_AI_JWT_NO_MEMORY;
        }

        return (ngx_http_ai_jwt_in(audiences, &value) == NGX_OK)
               ? NGX_HTTP_AI_JWT_OK : NGX_HTTP_AI_JWT_AUDIENCE;
    }

    if (j->nodes[aud].type != NGX_HTTP_AI_JSON_ARRAY) {
        return NGX_HTTP_AI_JWT_CLAIMS;
    }

    found = 0;

    for (i = ngx_http_ai_json_first(j, aud);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, aud, i))
    {
        rc = ngx_http_ai_jwt_string(j, j->pool, i, &value);

        if (rc != NGX_OK) {
            return (rc == NGX_ERROR) ? NGX_HTTP_AI_JWT_NO_MEMORY
                                     : NGX_HTTP_AI_JWT_CLAIMS;
        }

        if (ngx_http_ai_jwt_in(audiences, &value) == NGX_OK) {
            found = 1;
        }
    }

    return found ? NGX_HTTP_AI_JWT_OK : NGX_HTTP_AI_JWT_AUDIENCE;
}


/* OpenID Connect has "azp", RFC 9068 "client_id" */

static ngx_http_ai_jwt_e
ngx_http_ai_jwt_party(ngx_http_ai_jwt_t *jwt, ngx_array_t *azp)
{
    ngx_int_t            rc;
    ngx_str_t            value;
    ngx_uint_t           node;
    ngx_http_ai_json_t  *j;

    j = &jwt->claims;
    node = ngx_http_ai_json_member(j, 0, "azp");

    if (node == NGX_HTTP_AI_JSON_NONE) {
        node = ngx_http_ai_json_member(j, 0, "client_id");
    }

    if (node == NGX_HTTP_AI_JSON_NONE) {
        return NGX_HTTP_AI_JWT_AZP;
    }

    rc = ngx_http_ai_jwt_string(j, j->pool, node, &value);

    if (rc != NGX_OK) {
        return (rc == NGX_ERROR) ? NGX_HTTP_AI_JWT_NO_MEMORY
                                 : NGX_HTTP_AI_JWT_CLAIMS;
    }

    return (ngx_http_ai_jwt_in(azp, &value) == NGX_OK)
           ? NGX_HTTP_AI_JWT_OK : NGX_HTTP_AI_JWT_AZP;
}


static ngx_http_ai_jwt_e
ngx_http_ai_jwt_times(ngx_http_ai_jwt_t *jwt, ngx_http_ai_jwt_rules_t *rules,
    time_t now, time_t *expires)
{
    int64_t              exp, nbf, iat, t, leeway;
    ngx_int_t            rc;
    ngx_http_ai_json_t  *j;

    j = &jwt->claims;

    /* bounded, so that sums of them are */

    t = now;
    leeway = ngx_http_ai_min(rules->leeway, NGX_MAX_INT32_VALUE);

    rc = ngx_http_ai_jwt_time(j, "exp", &exp);

    if (rc == NGX_ERROR || (rc == NGX_DECLINED && !rules->no_exp)) {
        return NGX_HTTP_AI_JWT_CLAIMS;
    }

    if (rc == NGX_OK) {

        if (t >= exp + leeway) {
            return NGX_HTTP_AI_JWT_EXPIRED;
        }

        /* 0 says that there is none, and time_t may have 32 bits */

        *expires = (sizeof(time_t) == 4 && exp > NGX_MAX_INT32_VALUE)
                   ? (time_t) NGX_MAX_INT32_VALUE
                   : (time_t) (exp ? exp : 1);
    }

    rc = ngx_http_ai_jwt_time(j, "nbf", &nbf);

    if (rc == NGX_ERROR) {
        return NGX_HTTP_AI_JWT_CLAIMS;
    }

    if (rc == NGX_OK && nbf > t + leeway) {
        return NGX_HTTP_AI_JWT_NOT_YET;
    }

    rc = ngx_http_ai_jwt_time(j, "iat", &iat);

    if (rc == NGX_ERROR || (rc == NGX_DECLINED && rules->max_age)) {
        return NGX_HTTP_AI_JWT_CLAIMS;
    }

    if (rc == NGX_OK) {

        if (iat > t + leeway) {
            return NGX_HTTP_AI_JWT_NOT_YET;
        }

        if (rules->max_age
            && t - leeway
               > iat + ngx_http_ai_min(rules->max_age, NGX_MAX_INT32_VALUE))
        {
            return NGX_HTTP_AI_JWT_EXPIRED;
        }
    }

    return NGX_HTTP_AI_JWT_OK;
}


/* NGX_DECLINED: there is none; NGX_ERROR: it is not a time */

static ngx_int_t
ngx_http_ai_jwt_time(ngx_http_ai_json_t *j, const char *name, int64_t *value)
{
    ngx_uint_t  node;

    node = ngx_http_ai_json_get(j, 0, name, ngx_strlen(name));

    if (node == NGX_HTTP_AI_JSON_NONE) {
        return NGX_DECLINED;
    }

    if (ngx_http_ai_json_int(j, node, value) != NGX_OK
        || *value > NGX_HTTP_AI_JWT_TIME_MAX
        || *value < -NGX_HTTP_AI_JWT_TIME_MAX)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_jwt_claim(ngx_http_ai_json_t *claims, ngx_pool_t *pool,
    ngx_str_t *path, u_char sep, ngx_str_t *value)
{
    u_char              *start;
    ngx_uint_t           i, node;
    ngx_http_ai_out_t    out;
    ngx_http_ai_json_t  *j;

    j = claims;

    if (j->nnodes == 0 || path->len == 0) {
        return NGX_DECLINED;
    }

    node = ngx_http_ai_jwt_find(j, 0, path->data, path->len);

    if (node == NGX_HTTP_AI_JSON_NONE && path->data[0] == '/') {
        node = ngx_http_ai_jwt_pointer(j, path);
    }

    switch (ngx_http_ai_json_type(j, node)) {

    case NGX_HTTP_AI_JSON_NULL:
        return NGX_DECLINED;

    case NGX_HTTP_AI_JSON_STRING:
        return ngx_http_ai_jwt_string(j, pool, node, value);

    case NGX_HTTP_AI_JSON_ARRAY:
    case NGX_HTTP_AI_JSON_OBJECT:
        break;

    default:
        *value = ngx_http_ai_json_raw(j, node);
        return NGX_OK;
    }

    /* never longer than what it comes from */

    if (ngx_http_ai_out_init(&out, pool, j->nodes[node].len) != NGX_OK) {
        return NGX_ERROR;
    }

    if (j->nodes[node].type == NGX_HTTP_AI_JSON_OBJECT) {
        ngx_http_ai_jwt_text(j, node, &out);

    } else {

        for (i = ngx_http_ai_json_first(j, node);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, node, i))
        {
            if (j->nodes[i].type == NGX_HTTP_AI_JSON_NULL) {
                continue;
            }

            if (out.last != out.start) {
                ngx_http_ai_out_mem(&out, &sep, 1);
            }

            start = out.last;
            ngx_http_ai_jwt_text(j, i, &out);

            if (start == out.last
                || ngx_strlchr(start, out.last, sep) != NULL)
            {
                out.last = (start == out.start) ? start : start - 1;
            }
        }
    }

    if (out.failed) {
        return NGX_ERROR;
    }

    value->data = out.start;
    value->len = out.last - out.start;

    return NGX_OK;
}


static ngx_uint_t
ngx_http_ai_jwt_find(ngx_http_ai_json_t *j, ngx_uint_t obj, u_char *name,
    size_t len)
{
    size_t      n;
    ngx_uint_t  node;

    node = ngx_http_ai_json_get(j, obj, (char *) name, len);

    if (node != NGX_HTTP_AI_JSON_NONE) {
        return node;
    }

    for (n = len; n-- > 0; /* void */ ) {

        if (name[n] != '.') {
            continue;
        }

        node = ngx_http_ai_json_get(j, obj, (char *) name, n);

        if (node == NGX_HTTP_AI_JSON_NONE) {
            continue;
        }

        node = ngx_http_ai_jwt_find(j, node, name + n + 1, len - n - 1);

        if (node != NGX_HTTP_AI_JSON_NONE) {
            return node;
        }
    }

    return NGX_HTTP_AI_JSON_NONE;
}


/* RFC 6901 */

static ngx_uint_t
ngx_http_ai_jwt_pointer(ngx_http_ai_json_t *j, ngx_str_t *path)
{
    u_char      *p, *last, *dst, buf[256];
    ngx_str_t    name;
    ngx_uint_t   node;

    node = 0;
    p = path->data;
    last = p + path->len;

    while (p < last) {

        /* p is at a slash */

        dst = buf;

        for (p++; p < last && *p != '/'; p++) {

            if (dst == buf + sizeof(buf)) {
                return NGX_HTTP_AI_JSON_NONE;
            }

            if (*p != '~') {
                *dst++ = *p;
                continue;
            }

            p++;

            if (p == last || (*p != '0' && *p != '1')) {
                return NGX_HTTP_AI_JSON_NONE;
            }

            *dst++ = (u_char) ((*p == '0') ? '~' : '/');
        }

        name.data = buf;
        name.len = dst - buf;

        node = (j->nodes[node].type == NGX_HTTP_AI_JSON_ARRAY)
               ? ngx_http_ai_jwt_item(j, node, &name)
               : ngx_http_ai_json_get(j, node, (char *) buf, name.len);

        if (node == NGX_HTTP_AI_JSON_NONE) {
            return node;
        }
    }

    return node;
}


static ngx_uint_t
ngx_http_ai_jwt_item(ngx_http_ai_json_t *j, ngx_uint_t array, ngx_str_t *name)
{
    ngx_int_t   n;
    ngx_uint_t  i;

    if (name->len > 1 && name->data[0] == '0') {
        return NGX_HTTP_AI_JSON_NONE;
    }

    n = ngx_atoi(name->data, name->len);

    if (n == NGX_ERROR) {
        return NGX_HTTP_AI_JSON_NONE;
    }

    for (i = ngx_http_ai_json_first(j, array);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, array, i))
    {
        if (n-- == 0) {
            return i;
        }
    }

    return NGX_HTTP_AI_JSON_NONE;
}


/* a value as text: what it holds has no line feeds outside of strings */

static void
ngx_http_ai_jwt_text(ngx_http_ai_json_t *j, ngx_uint_t node,
    ngx_http_ai_out_t *out)
{
    u_char      *p, *last;
    ngx_str_t    raw;
    ngx_uint_t   string;

    raw = ngx_http_ai_json_raw(j, node);

    if (j->nodes[node].type == NGX_HTTP_AI_JSON_STRING) {
        ngx_http_ai_out_unescaped(out, &raw);
        return;
    }

    string = 0;
    last = raw.data + raw.len;

    for (p = raw.data; p < last; p++) {

        if (string) {

            if (*p == '\\') {
                ngx_http_ai_out_mem(out, p, 1);
                p++;

            } else if (*p == '"') {
                string = 0;
            }

        } else if (*p == '"') {
            string = 1;

        } else if (*p == ' ' || *p == '\t' || *p == '\r' || *p == '\n') {
            continue;
        }

        ngx_http_ai_out_mem(out, p, 1);
    }
}
