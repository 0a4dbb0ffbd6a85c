
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_cache_plain.h"
#include "ngx_http_ai_cache_member.h"
#include "ngx_http_ai_cache_pivot.h"


typedef struct {
    ngx_str_t                  name;
    ngx_uint_t                 types;
    size_t                     offset;        /* of a number in the request */
} ngx_http_ai_cache_plain_t;


static ngx_int_t ngx_http_ai_cache_plain_member(ngx_http_ai_json_t *j,
    ngx_uint_t n, ngx_http_ai_request_t *req, ngx_uint_t *seen);
static ngx_int_t ngx_http_ai_cache_plain_message(ngx_http_ai_json_t *j,
    ngx_uint_t n, ngx_http_ai_turn_t *turn);


#define ngx_http_ai_cache_plain_is(literal, types)                            \
    { ngx_string(literal), types, 0 }

#define ngx_http_ai_cache_plain_number(literal, field)                        \
    { ngx_string(literal), NGX_HTTP_AI_CACHE_NUMBER,                          \
      offsetof(ngx_http_ai_request_t, field) }


/* the first ones are those of most requests; a bit of "seen" is for each */

static ngx_http_ai_cache_plain_t  ngx_http_ai_cache_plain_members[] = {

    ngx_http_ai_cache_plain_is("messages", NGX_HTTP_AI_CACHE_ARRAY),
    ngx_http_ai_cache_plain_is("model", NGX_HTTP_AI_CACHE_STRING),
    ngx_http_ai_cache_plain_number("temperature", temperature),
    ngx_http_ai_cache_plain_number("max_tokens", max_output),
    ngx_http_ai_cache_plain_is("stream", NGX_HTTP_AI_CACHE_FLAG),
    ngx_http_ai_cache_plain_is("stream_options", NGX_HTTP_AI_CACHE_OBJECT),
    ngx_http_ai_cache_plain_number("max_completion_tokens", max_output),
    ngx_http_ai_cache_plain_number("top_p", top_p),
    ngx_http_ai_cache_plain_is("user", NGX_HTTP_AI_CACHE_STRING),
    ngx_http_ai_cache_plain_number("seed", seed),
    ngx_http_ai_cache_plain_number("frequency_penalty", frequency_penalty),
    ngx_http_ai_cache_plain_number("presence_penalty", presence_penalty),

    { ngx_null_string, 0, 0 }
};


ngx_int_t
ngx_http_ai_cache_plain(ngx_http_ai_cache_canon_t *c, ngx_http_ai_json_t *j,
    ngx_uint_t *zero)
{
    size_t                      len;
    ngx_uint_t                  i, n, seen;
    ngx_http_ai_part_t          part;
    ngx_http_ai_turn_t          turn;
    ngx_http_ai_request_t       req;
    ngx_http_ai_cache_pivot_t   p;

    if (j->nodes[0].type != NGX_HTTP_AI_JSON_OBJECT) {
        return NGX_DECLINED;
    }

    ngx_memzero(&req, sizeof(ngx_http_ai_request_t));

    n = NGX_HTTP_AI_JSON_NONE;
    seen = 0;

    for (i = ngx_http_ai_json_first(j, 0);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, 0, i))
    {
        if (ngx_http_ai_cache_plain_member(j, i, &req, &seen) != NGX_OK) {
            return NGX_DECLINED;
        }

        if (j->nodes[i + 1].type == NGX_HTTP_AI_JSON_ARRAY) {
            n = i + 1;
        }
    }

    i = ngx_http_ai_json_first(j, n);

    if (i == NGX_HTTP_AI_JSON_NONE) {
        return NGX_DECLINED;
    }

    ngx_memzero(&part, sizeof(ngx_http_ai_part_t));

    part.type = NGX_HTTP_AI_PART_TEXT;

    ngx_memzero(&turn, sizeof(ngx_http_ai_turn_t));

    turn.parts = &part;

    ngx_http_ai_cache_pivot_init(&p, c, j);

    len = c->out.last - c->out.start;

    for ( /* void */ ;
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, n, i))
    {
        if (ngx_http_ai_cache_plain_message(j, i, &turn) != NGX_OK) {
            c->out.last = c->out.start + len;
            return NGX_DECLINED;
        }

        ngx_http_ai_cache_pivot_turn(&p, &turn);
    }

    ngx_http_ai_cache_pivot_rest(&p, &req);

    *zero = req.temperature.data
            && ngx_http_ai_cache_is_zero(&req.temperature);

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_cache_plain_member(ngx_http_ai_json_t *j, ngx_uint_t n,
    ngx_http_ai_request_t *req, ngx_uint_t *seen)
{
    int64_t                     v;
    ngx_str_t                  *number;
    ngx_uint_t                  bit;
    ngx_http_ai_json_node_t    *node;
    ngx_http_ai_cache_plain_t  *m;

    node = &j->nodes[n];

    /* one with an escape is none of these */

    for (m = ngx_http_ai_cache_plain_members; m->name.len; m++) {
        if (m->name.len == node->len
            && ngx_memcmp(m->name.data, node->start, node->len) == 0)
        {
            break;
        }
    }

    bit = 1 << (m - ngx_http_ai_cache_plain_members);

    if ((*seen & bit) || !(m->types & (1 << node[1].type))) {
        return NGX_DECLINED;
    }

    *seen |= bit;

    if (node[1].type != NGX_HTTP_AI_JSON_NUMBER) {
        return NGX_OK;
    }

    number = (ngx_str_t *) ((char *) req + m->offset);

    if (number->data) {
        /* of two limits one is in the pivot */
        return NGX_DECLINED;
    }

    *number = ngx_http_ai_json_raw(j, n + 1);

    if (number == &req->max_output
        && (ngx_http_ai_json_int(j, n + 1, &v) != NGX_OK || v < 0))
    {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


/* {"role":"...","content":"..."}, in either order */

static ngx_int_t
ngx_http_ai_cache_plain_message(ngx_http_ai_json_t *j, ngx_uint_t n,
    ngx_http_ai_turn_t *turn)
{
    ngx_str_t                 role;
    ngx_http_ai_json_node_t  *node;

    node = &j->nodes[n];

    if (node->type != NGX_HTTP_AI_JSON_OBJECT || node->count != 2
        || node[2].type != NGX_HTTP_AI_JSON_STRING
        || node[4].type != NGX_HTTP_AI_JSON_STRING)
    {
        return NGX_DECLINED;
    }

    if (ngx_http_ai_json_key_is(j, n + 1, "role")
        && ngx_http_ai_json_key_is(j, n + 3, "content"))
    {
        role = ngx_http_ai_json_raw(j, n + 2);
        turn->parts->text = ngx_http_ai_json_raw(j, n + 4);

    } else if (ngx_http_ai_json_key_is(j, n + 1, "content")
               && ngx_http_ai_json_key_is(j, n + 3, "role"))
    {
        role = ngx_http_ai_json_raw(j, n + 4);
        turn->parts->text = ngx_http_ai_json_raw(j, n + 2);

    } else {
        return NGX_DECLINED;
    }

    if (ngx_http_ai_str_is(&role, "user")) {
        turn->role = NGX_HTTP_AI_ROLE_USER;

    } else if (ngx_http_ai_str_is(&role, "assistant")) {
        turn->role = NGX_HTTP_AI_ROLE_ASSISTANT;

    } else if (ngx_http_ai_str_is(&role, "system")) {
        turn->role = NGX_HTTP_AI_ROLE_SYSTEM;

    } else if (ngx_http_ai_str_is(&role, "developer")) {
        turn->role = NGX_HTTP_AI_ROLE_DEVELOPER;

    } else {
        return NGX_DECLINED;
    }

    return NGX_OK;
}
