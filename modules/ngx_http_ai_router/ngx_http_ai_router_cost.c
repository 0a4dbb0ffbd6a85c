
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * "ai_headers usage_cost": what an answer has cost, as a member of the usage
 * that the client gets.  Where bytes are relayed as they come it is put in
 * between them.
 */


#include "ngx_http_ai_router_exec.h"


typedef struct {
    u_char                    *at;            /* the bytes up to it stay, */
    u_char                    *behind;        /* ... and those from it */
    ngx_http_ai_out_t          out;
    u_char                     text[64];
} ngx_http_ai_cost_t;


static ngx_int_t ngx_http_ai_cost_find(ngx_http_ai_attempt_t *a,
    u_char *data, size_t len, ngx_http_ai_cost_t *c);
static ngx_int_t ngx_http_ai_cost_joined(ngx_http_ai_attempt_t *a,
    ngx_http_ai_sse_event_t *ev, ngx_http_ai_cost_t *c);


int64_t
ngx_http_ai_router_cost(ngx_http_ai_attempt_t *a)
{
    int64_t                 cost;
    ngx_uint_t              i;
    ngx_http_ai_exec_t     *x;
    ngx_http_ai_usage_t     u;
    ngx_http_ai_attempt_t  *b;

    x = a->exec;
    cost = 0;

    for (i = 0; i < x->nattempts; i++) {
        b = x->attempts[i];

        if (b != a && !ngx_http_ai_usage_counts(b)) {
            continue;
        }

        if (b->candidate->price == NULL) {
            return -1;
        }

        u = b->usage;

        if (u.out < 0 || b->cut || (b != a && !b->complete)) {
            u.out = ngx_max(u.out, ngx_http_ai_tokens_round(b->counted));
        }

        if (u.in_fresh < 0) {
            u.in_fresh = x->api->input_estimate(x->ctx);
        }

        cost = ngx_http_ai_price_add(cost, ngx_http_ai_usage_price(b, &u));
    }

    return ngx_http_ai_price_nano(cost);
}


/* the members of a document and of its usage; all else is passed over */

static ngx_int_t
ngx_http_ai_cost_find(ngx_http_ai_attempt_t *a, u_char *data, size_t len,
    ngx_http_ai_cost_t *c)
{
    int64_t                   cost;
    ngx_str_t                 text;
    ngx_uint_t                n;
    ngx_http_ai_json_t        j;
    ngx_http_ai_json_node_t   nodes[64];

    ngx_memzero(&j, sizeof(ngx_http_ai_json_t));
    j.pool = a->exec->request->pool;
    j.nodes = nodes;
    j.nalloc = 64;
    j.shallow = 1;

    if (ngx_http_ai_json_parse(&j, data, len) != NGX_OK) {
        return NGX_DECLINED;
    }

    n = ngx_http_ai_json_member(&j, 0, "usage");

    if (ngx_http_ai_json_type(&j, n) != NGX_HTTP_AI_JSON_OBJECT) {
        return NGX_DECLINED;
    }

    text = ngx_http_ai_json_value(&j, n);

    if (ngx_http_ai_json_parse(&j, text.data, text.len) != NGX_OK) {
        return NGX_DECLINED;
    }

    cost = ngx_http_ai_router_cost(a);

    if (cost < 0) {
        return NGX_DECLINED;
    }

    c->out.start = c->text;
    c->out.last = c->text;
    c->out.end = c->text + sizeof(c->text);
    c->out.pool = j.pool;
    c->out.failed = 0;

    n = ngx_http_ai_json_member(&j, 0, "cost");

    if (n != NGX_HTTP_AI_JSON_NONE) {
        /* the provider's own figure is what the gateway pays */
        text = ngx_http_ai_json_value(&j, n);

        c->at = text.data;
        c->behind = text.data + text.len;

    } else {
        c->at = text.data + text.len - 1;
        c->behind = c->at;

        if (j.nodes[0].count) {
            ngx_http_ai_out_lit(&c->out, ",");
        }

        ngx_http_ai_out_lit(&c->out, "\"cost\":");
    }

    ngx_http_ai_out_dollars(&c->out, cost);

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_cost_event(ngx_http_ai_attempt_t *a, ngx_http_ai_sse_event_t *ev)
{
    u_char              *end;
    ngx_str_t            pieces[3];
    ngx_http_ai_cost_t   c;

    if (ngx_http_ai_cost_find(a, ev->data.data, ev->data.len, &c) != NGX_OK) {
        return ngx_http_ai_answer_pass(a, &ev->raw, ev->in_place);
    }

    end = ev->raw.data + ev->raw.len;

    if (c.at < ev->raw.data || c.at >= end) {
        return ngx_http_ai_cost_joined(a, ev, &c);
    }

    pieces[0].data = ev->raw.data;
    pieces[0].len = c.at - ev->raw.data;
    pieces[1].data = c.out.start;
    pieces[1].len = c.out.last - c.out.start;
    pieces[2].data = c.behind;
    pieces[2].len = end - c.behind;

    if (ngx_http_ai_answer_pass(a, &pieces[0], ev->in_place) != NGX_OK
        || ngx_http_ai_answer_pass(a, &pieces[1], 0) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_ai_answer_pass(a, &pieces[2], ev->in_place);
}


/* data of several lines becomes one: their ends are white space of the JSON */

static ngx_int_t
ngx_http_ai_cost_joined(ngx_http_ai_attempt_t *a, ngx_http_ai_sse_event_t *ev,
    ngx_http_ai_cost_t *c)
{
    u_char             *p, *end;
    ngx_str_t           text;
    ngx_http_ai_out_t  *out;

    end = ev->data.data + ev->data.len;

    for (p = ev->data.data; p < end; p++) {
        if (*p == '\n') {
            *p = ' ';
        }
    }

    out = &a->scratch;
    out->pool = a->exec->request->pool;
    out->last = out->start;

    if (ev->name.len) {
        ngx_http_ai_out_lit(out, "event: ");
        ngx_http_ai_out_str(out, &ev->name);
        ngx_http_ai_out_lit(out, "\n");
    }

    ngx_http_ai_out_lit(out, "data: ");
    ngx_http_ai_out_mem(out, ev->data.data, c->at - ev->data.data);
    ngx_http_ai_out_mem(out, c->out.start, c->out.last - c->out.start);
    ngx_http_ai_out_mem(out, c->behind, end - c->behind);
    ngx_http_ai_out_lit(out, "\n\n");

    if (out->failed) {
        return NGX_ERROR;
    }

    text.data = out->start;
    text.len = out->last - out->start;

    return ngx_http_ai_answer_pass(a, &text, 0);
}


/* of a whole answer */

ngx_int_t
ngx_http_ai_cost_body(ngx_http_ai_attempt_t *a, u_char **data, size_t *len)
{
    u_char              *p;
    size_t               n;
    ngx_http_ai_cost_t   c;

    if (ngx_http_ai_cost_find(a, *data, *len, &c) != NGX_OK) {
        return NGX_OK;
    }

    p = ngx_pnalloc(a->exec->request->pool,
                    *len + (c.out.last - c.out.start));
    if (p == NULL) {
        return NGX_ERROR;
    }

    n = *data + *len - c.behind;

    c.at = ngx_cpymem(p, *data, c.at - *data);
    c.at = ngx_cpymem(c.at, c.out.start, c.out.last - c.out.start);
    c.at = ngx_cpymem(c.at, c.behind, n);

    *data = p;
    *len = c.at - p;

    return NGX_OK;
}
