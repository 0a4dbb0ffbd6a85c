
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_cache_pivot.h"


static void ngx_http_ai_cache_pivot_part(ngx_http_ai_cache_pivot_t *p,
    ngx_http_ai_part_t *part);
static void ngx_http_ai_cache_pivot_tool(ngx_http_ai_cache_pivot_t *p,
    ngx_http_ai_tool_t *tool);
static void ngx_http_ai_cache_pivot_text(ngx_http_ai_cache_pivot_t *p,
    u_char tag, ngx_str_t *raw);
static void ngx_http_ai_cache_pivot_number(ngx_http_ai_cache_pivot_t *p,
    u_char tag, ngx_str_t *text);
static void ngx_http_ai_cache_pivot_json(ngx_http_ai_cache_pivot_t *p,
    u_char tag, ngx_str_t *json);
static ngx_uint_t ngx_http_ai_cache_pivot_node(ngx_http_ai_json_t *j,
    ngx_str_t *json);
static void ngx_http_ai_cache_pivot_args(ngx_http_ai_cache_pivot_t *p,
    ngx_str_t *raw);
static ngx_int_t ngx_http_ai_cache_pivot_parse(ngx_http_ai_cache_pivot_t *p,
    ngx_str_t *json);


/*
 * Each field has a tag of its own where it is, and is left out when it is
 * absent; 0 ends what has fields.
 */

void
ngx_http_ai_cache_pivot(ngx_http_ai_cache_canon_t *c, ngx_http_ai_json_t *j,
    ngx_http_ai_request_t *req)
{
    ngx_http_ai_turn_t         *turn;
    ngx_http_ai_cache_pivot_t   p;

    ngx_http_ai_cache_pivot_init(&p, c, j);

    for (turn = req->turns; turn; turn = turn->next) {
        ngx_http_ai_cache_pivot_turn(&p, turn);
    }

    ngx_http_ai_cache_pivot_rest(&p, req);
}


void
ngx_http_ai_cache_pivot_init(ngx_http_ai_cache_pivot_t *p,
    ngx_http_ai_cache_canon_t *c, ngx_http_ai_json_t *j)
{
    p->canon = c;
    p->json = j;

    ngx_memzero(&p->text, sizeof(ngx_http_ai_json_t));
    p->text.pool = c->out.pool;
}


void
ngx_http_ai_cache_pivot_rest(ngx_http_ai_cache_pivot_t *p,
    ngx_http_ai_request_t *req)
{
    ngx_uint_t                  i;
    ngx_http_ai_tool_t         *tool;
    ngx_http_ai_cache_canon_t  *c;

    c = p->canon;

    for (tool = req->tools; tool; tool = tool->next) {
        ngx_http_ai_cache_pivot_tool(p, tool);
    }

    ngx_http_ai_cache_canon_tag(c, 'o');
    ngx_http_ai_cache_canon_tag(c, (u_char) req->choice);
    ngx_http_ai_cache_canon_tag(c, (u_char) req->parallel);
    ngx_http_ai_cache_canon_tag(c, (u_char) req->format);
    ngx_http_ai_cache_canon_tag(c, (u_char) req->schema_strict);
    ngx_http_ai_cache_canon_tag(c, (u_char) req->effort);
    ngx_http_ai_cache_canon_tag(c, (u_char) req->thinking);

    ngx_http_ai_cache_pivot_text(p, 'c', &req->choice_name);

    ngx_http_ai_cache_pivot_number(p, 'm', &req->max_output);
    ngx_http_ai_cache_pivot_number(p, 't', &req->temperature);
    ngx_http_ai_cache_pivot_number(p, 'p', &req->top_p);
    ngx_http_ai_cache_pivot_number(p, 'k', &req->top_k);
    ngx_http_ai_cache_pivot_number(p, 's', &req->seed);
    ngx_http_ai_cache_pivot_number(p, 'f', &req->frequency_penalty);
    ngx_http_ai_cache_pivot_number(p, 'q', &req->presence_penalty);
    ngx_http_ai_cache_pivot_number(p, 'b', &req->thinking_budget);

    for (i = 0; i < req->nstop; i++) {
        ngx_http_ai_cache_pivot_text(p, 'e', &req->stop[i]);
    }

    ngx_http_ai_cache_pivot_json(p, 'j', &req->schema);
    ngx_http_ai_cache_pivot_text(p, 'n', &req->schema_name);
    ngx_http_ai_cache_pivot_text(p, 'd', &req->schema_description);

    ngx_http_ai_cache_canon_tag(c, 0);
}


void
ngx_http_ai_cache_pivot_turn(ngx_http_ai_cache_pivot_t *p,
    ngx_http_ai_turn_t *turn)
{
    ngx_http_ai_part_t  *part;

    ngx_http_ai_cache_canon_tag(p->canon, 'u');
    ngx_http_ai_cache_canon_tag(p->canon, (u_char) turn->role);

    ngx_http_ai_cache_pivot_text(p, 'n', &turn->name);

    for (part = turn->parts; part; part = part->next) {
        ngx_http_ai_cache_pivot_part(p, part);
    }

    ngx_http_ai_cache_canon_tag(p->canon, 0);
}


static void
ngx_http_ai_cache_pivot_part(ngx_http_ai_cache_pivot_t *p,
    ngx_http_ai_part_t *part)
{
    ngx_http_ai_part_t  *sub;

    ngx_http_ai_cache_canon_tag(p->canon, 'p');
    ngx_http_ai_cache_canon_tag(p->canon, (u_char) part->type);

    ngx_http_ai_cache_pivot_text(p, 't', &part->text);

    if (part->type != NGX_HTTP_AI_PART_TEXT) {

        ngx_http_ai_cache_pivot_text(p, 'u', &part->url);
        ngx_http_ai_cache_pivot_text(p, 'b', &part->data);
        ngx_http_ai_cache_pivot_text(p, 'm', &part->mime);
        ngx_http_ai_cache_pivot_text(p, 'd', &part->detail);
        ngx_http_ai_cache_pivot_text(p, 'f', &part->file_id);
        ngx_http_ai_cache_pivot_text(p, 'i', &part->id);
        ngx_http_ai_cache_pivot_text(p, 'n', &part->name);
        ngx_http_ai_cache_pivot_text(p, 's', &part->signature);
        ngx_http_ai_cache_pivot_json(p, 'j', &part->args);

        if (part->custom) {
            ngx_http_ai_cache_pivot_text(p, 'c', &part->args_text);

        } else if (part->args_text.data) {
            ngx_http_ai_cache_pivot_args(p, &part->args_text);
        }

        if (part->is_error) {
            ngx_http_ai_cache_canon_tag(p->canon, 'e');
        }

        for (sub = part->parts; sub; sub = sub->next) {
            ngx_http_ai_cache_pivot_part(p, sub);
        }
    }

    ngx_http_ai_cache_canon_tag(p->canon, 0);
}


static void
ngx_http_ai_cache_pivot_tool(ngx_http_ai_cache_pivot_t *p,
    ngx_http_ai_tool_t *tool)
{
    ngx_http_ai_cache_canon_tag(p->canon, 'f');
    ngx_http_ai_cache_canon_tag(p->canon, (u_char) tool->strict);

    ngx_http_ai_cache_pivot_text(p, 'n', &tool->name);
    ngx_http_ai_cache_pivot_text(p, 'd', &tool->description);
    ngx_http_ai_cache_pivot_json(p, 'j', &tool->schema);

    ngx_http_ai_cache_canon_tag(p->canon, 0);
}


static void
ngx_http_ai_cache_pivot_text(ngx_http_ai_cache_pivot_t *p, u_char tag,
    ngx_str_t *raw)
{
    if (raw->data) {
        ngx_http_ai_cache_canon_tag(p->canon, tag);
        ngx_http_ai_cache_canon_text(p->canon, raw);
    }
}


static void
ngx_http_ai_cache_pivot_number(ngx_http_ai_cache_pivot_t *p, u_char tag,
    ngx_str_t *text)
{
    if (text->data) {
        ngx_http_ai_cache_canon_tag(p->canon, tag);
        ngx_http_ai_cache_canon_number(p->canon, text);
    }
}


static void
ngx_http_ai_cache_pivot_json(ngx_http_ai_cache_pivot_t *p, u_char tag,
    ngx_str_t *json)
{
    ngx_uint_t  n;

    if (json->data == NULL) {
        return;
    }

    ngx_http_ai_cache_canon_tag(p->canon, tag);

    n = ngx_http_ai_cache_pivot_node(p->json, json);

    if (n != NGX_HTTP_AI_JSON_NONE) {
        ngx_http_ai_cache_canon_json(p->canon, p->json, n);
        return;
    }

    /* what a decoder has put in */

    if (ngx_http_ai_cache_pivot_parse(p, json) == NGX_OK) {
        ngx_http_ai_cache_canon_json(p->canon, &p->text, 0);

    } else {
        ngx_http_ai_cache_canon_bytes(p->canon, json);
    }
}


/* values of the body are slices of it; nodes are in the order of the text */

static ngx_uint_t
ngx_http_ai_cache_pivot_node(ngx_http_ai_json_t *j, ngx_str_t *json)
{
    ngx_uint_t  low, high, n;

    low = 0;
    high = j->nnodes;

    while (low < high) {
        n = (low + high) / 2;

        if (j->nodes[n].start < json->data) {
            low = n + 1;

        } else {
            high = n;
        }
    }

    if (low == j->nnodes
        || j->nodes[low].start != json->data
        || j->nodes[low].len != json->len
        || j->nodes[low].type == NGX_HTTP_AI_JSON_STRING)
    {
        return NGX_HTTP_AI_JSON_NONE;
    }

    return low;
}


/* arguments are told as JSON by one dialect, as the text of it by another */

static void
ngx_http_ai_cache_pivot_args(ngx_http_ai_cache_pivot_t *p, ngx_str_t *raw)
{
    ngx_str_t   text;
    ngx_uint_t  lossy;

    text.data = ngx_pnalloc(p->canon->out.pool, raw->len);
    if (text.data == NULL) {
        p->canon->out.failed = 1;
        return;
    }

    text.len = ngx_http_ai_cache_unescape(text.data, raw, &lossy) - text.data;

    if (!lossy
        && ngx_http_ai_cache_pivot_parse(p, &text) == NGX_OK
        && p->text.nodes[0].type == NGX_HTTP_AI_JSON_OBJECT)
    {
        ngx_http_ai_cache_canon_tag(p->canon, 'j');
        ngx_http_ai_cache_canon_json(p->canon, &p->text, 0);
        return;
    }

    ngx_http_ai_cache_pivot_text(p, 'x', raw);
}


static ngx_int_t
ngx_http_ai_cache_pivot_parse(ngx_http_ai_cache_pivot_t *p, ngx_str_t *json)
{
    ngx_int_t  rc;

    rc = ngx_http_ai_json_parse(&p->text, json->data, json->len);

    if (rc == NGX_ERROR) {
        p->canon->out.failed = 1;
    }

    return rc;
}
