
/*
 * Copyright (C) nginx AI gateway authors
 */


#ifndef _ORDER_H_INCLUDED_
#define _ORDER_H_INCLUDED_


#include "test.h"
#include "ngx_http_ai_dialect.h"


/*
 * The order of events that clients of a dialect rely on.  Both return NULL, or
 * what is wrong; "complete" asks for the end as well.
 */


static ngx_str_t
order_get(ngx_http_ai_json_t *j, ngx_uint_t obj, const char *name)
{
    return ngx_http_ai_json_raw(j, ngx_http_ai_json_get(j, obj, name,
                                                        strlen(name)));
}


static int
order_is(ngx_str_t *s, const char *text)
{
    return s->len == strlen(text)
           && (s->len == 0 || memcmp(s->data, text, s->len) == 0);
}


static int
order_same(ngx_str_t *a, ngx_str_t *b)
{
    return a->len == b->len
           && (a->len == 0 || memcmp(a->data, b->data, a->len) == 0);
}


test_unused
static const char *
order_anthropic(ngx_pool_t *pool, u_char *data, size_t len,
    ngx_uint_t complete)
{
    u_char                   *pos;
    int64_t                   index, v;
    ngx_int_t                 rc;
    ngx_str_t                 type, s;
    ngx_uint_t                n, started, open, ended, stopped, failed;
    const char               *kind;
    ngx_http_ai_sse_t         sse;
    ngx_http_ai_json_t        j;
    ngx_http_ai_sse_event_t   ev;

    ngx_memzero(&sse, sizeof(sse));
    ngx_memzero(&j, sizeof(j));

    sse.pool = pool;
    sse.max = 64 * 1024 * 1024;
    j.pool = pool;
    j.max_depth = 1024;

    if (len == 0) {
        return complete ? "no end" : NULL;
    }

    pos = data;
    index = 0;
    kind = "";
    started = 0;
    open = 0;
    ended = 0;
    stopped = 0;
    failed = 0;

    while ((rc = ngx_http_ai_sse_read(&sse, &pos, data + len, &ev))
           == NGX_OK)
    {
        if (stopped || failed) {
            return "an event after the end";
        }

        if (ngx_http_ai_json_parse(&j, ev.data.data, ev.data.len) != NGX_OK) {
            return "data that is not JSON";
        }

        type = order_get(&j, 0, "type");

        if (type.len == 0 || !order_same(&type, &ev.name)) {
            return "an event without its name";
        }

        if (order_is(&type, "ping")) {
            continue;
        }

        if (order_is(&type, "error")) {
            failed = 1;
            continue;
        }

        if (order_is(&type, "message_start")) {

            if (started) {
                return "a second start";
            }

            n = ngx_http_ai_json_member(&j, 0, "message");
            s = order_get(&j, n, "id");

            if (s.len < 5 || memcmp(s.data, "msg_", 4) != 0) {
                return "a bad id";
            }

            n = ngx_http_ai_json_member(&j, n, "usage");

            if (ngx_http_ai_json_int(&j, ngx_http_ai_json_member(&j, n,
                                                "input_tokens"), &v)
                != NGX_OK)
            {
                return "a start without usage";
            }

            started = 1;
            continue;
        }

        if (!started) {
            return "an event before the start";
        }

        if (order_is(&type, "message_stop")) {

            if (!ended) {
                return "a stop without message_delta";
            }

            stopped = 1;
            continue;
        }

        if (ended) {
            return "an event after message_delta";
        }

        if (order_is(&type, "message_delta")) {

            if (open) {
                return "message_delta in a block";
            }

            n = ngx_http_ai_json_member(&j, 0, "delta");

            if (ngx_http_ai_json_type(&j, ngx_http_ai_json_member(&j, n,
                                                               "stop_reason"))
                != NGX_HTTP_AI_JSON_STRING)
            {
                return "no stop_reason";
            }

            ended = 1;
            continue;
        }

        if (ngx_http_ai_json_int(&j, ngx_http_ai_json_member(&j, 0, "index"),
                                 &v)
            != NGX_OK || v != index)
        {
            return "a bad index";
        }

        if (order_is(&type, "content_block_start")) {

            if (open) {
                return "two open blocks";
            }

            open = 1;
            n = ngx_http_ai_json_member(&j, 0, "content_block");
            s = order_get(&j, n, "type");

            if (order_is(&s, "text")) {
                kind = "text_delta";

            } else if (order_is(&s, "thinking")) {
                kind = "thinking_delta";

            } else if (order_is(&s, "tool_use")) {
                kind = "input_json_delta";

                s = order_get(&j, n, "id");
                if (s.len == 0) {
                    return "a call without an id";
                }

            } else {
                kind = "";
            }

            continue;
        }

        if (!open) {
            return "no open block";
        }

        if (order_is(&type, "content_block_stop")) {
            open = 0;
            index++;
            continue;
        }

        if (!order_is(&type, "content_block_delta")) {
            return "an unknown event";
        }

        n = ngx_http_ai_json_member(&j, 0, "delta");
        s = order_get(&j, n, "type");

        if (order_is(&s, "signature_delta")) {
            if (strcmp(kind, "thinking_delta") != 0) {
                return "a signature of nothing";
            }

            kind = "signature_delta";

        } else if (!order_is(&s, kind)) {
            return "a delta of another kind";
        }

        if (ngx_http_ai_json_first(&j, n) == NGX_HTTP_AI_JSON_NONE
            || ngx_http_ai_json_raw(&j, n + 4).len == 0)
        {
            return "an empty delta";
        }
    }

    if (rc != NGX_AGAIN || sse.len) {
        return "a partial event";
    }

    if (complete && !stopped && !failed) {
        return "no end";
    }

    return NULL;
}


test_unused
static const char *
order_openai(ngx_pool_t *pool, u_char *data, size_t len, ngx_uint_t complete)
{
    u_char                   *pos;
    int64_t                   v;
    ngx_int_t                 rc;
    ngx_str_t                 s, id, model, created;
    ngx_uint_t                i, n, c, t, f, done, failed, finished, usage,
                              first;
    ngx_http_ai_sse_t         sse;
    ngx_http_ai_json_t        j;
    ngx_http_ai_sse_event_t   ev;

    static u_char  calls[2048];

    ngx_memzero(&sse, sizeof(sse));
    ngx_memzero(&j, sizeof(j));
    ngx_memzero(calls, sizeof(calls));

    sse.pool = pool;
    sse.max = 64 * 1024 * 1024;
    j.pool = pool;
    j.max_depth = 1024;

    if (len == 0) {
        return complete ? "no end" : NULL;
    }

    pos = data;
    done = 0;
    failed = 0;
    finished = 0;
    usage = 0;
    first = 1;

    ngx_str_null(&id);
    ngx_str_null(&model);
    ngx_str_null(&created);

    while ((rc = ngx_http_ai_sse_read(&sse, &pos, data + len, &ev))
           == NGX_OK)
    {
        if (done || failed) {
            return "an event after the end";
        }

        if (ev.name.len) {
            return "an event with a name";
        }

        if (order_is(&ev.data, "[DONE]")) {
            done = 1;
            continue;
        }

        if (usage) {
            return "a chunk after the usage";
        }

        if (ngx_http_ai_json_parse(&j, ev.data.data, ev.data.len) != NGX_OK) {
            return "data that is not JSON";
        }

        if (ngx_http_ai_json_member(&j, 0, "error")
            != NGX_HTTP_AI_JSON_NONE)
        {
            failed = 1;
            continue;
        }

        s = order_get(&j, 0, "object");

        if (!order_is(&s, "chat.completion.chunk")) {
            return "a bad object";
        }

        if (first) {

            /* the text stays where it is */

            id = order_get(&j, 0, "id");
            model = order_get(&j, 0, "model");
            created = order_get(&j, 0, "created");

        } else {
            s = order_get(&j, 0, "id");

            if (!order_same(&s, &id)) {
                return "another id";
            }

            s = order_get(&j, 0, "model");

            if (!order_same(&s, &model)) {
                return "another model";
            }

            s = order_get(&j, 0, "created");

            if (!order_same(&s, &created)) {
                return "another time";
            }
        }

        n = ngx_http_ai_json_member(&j, 0, "choices");

        if (ngx_http_ai_json_type(&j, n) != NGX_HTTP_AI_JSON_ARRAY) {
            return "no choices";
        }

        c = ngx_http_ai_json_first(&j, n);

        if (c == NGX_HTTP_AI_JSON_NONE) {

            if (ngx_http_ai_json_type(&j, ngx_http_ai_json_member(&j, 0,
                                                                  "usage"))
                != NGX_HTTP_AI_JSON_OBJECT)
            {
                return "a chunk of nothing";
            }

            usage = 1;
            continue;
        }

        if (finished) {
            return "a choice after its finish";
        }

        n = ngx_http_ai_json_member(&j, c, "delta");
        s = order_get(&j, n, "role");

        if (first != (s.len != 0)) {
            return "a role in another place";
        }

        first = 0;

        f = ngx_http_ai_json_member(&j, c, "finish_reason");

        if (ngx_http_ai_json_type(&j, f) == NGX_HTTP_AI_JSON_STRING) {

            if (ngx_http_ai_json_first(&j, n) != NGX_HTTP_AI_JSON_NONE) {
                return "a finish with a delta";
            }

            finished = 1;
            continue;
        }

        t = ngx_http_ai_json_member(&j, n, "tool_calls");

        for (i = ngx_http_ai_json_first(&j, t);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(&j, t, i))
        {
            if (ngx_http_ai_json_int(&j, ngx_http_ai_json_member(&j, i,
                                                               "index"), &v)
                != NGX_OK || v < 0 || v >= (int64_t) sizeof(calls))
            {
                return "a call without an index";
            }

            f = ngx_http_ai_json_member(&j, i, "function");
            s = order_get(&j, i, "id");

            if (s.len == 0 && !calls[v]) {
                return "a call without an id";
            }

            if (s.len && calls[v]) {
                return "a second id";
            }

            calls[v] = 1;

            if (ngx_http_ai_json_type(&j, ngx_http_ai_json_member(&j, f,
                                                               "arguments"))
                != NGX_HTTP_AI_JSON_STRING)
            {
                return "arguments that are no string";
            }
        }
    }

    if (rc != NGX_AGAIN || sse.len) {
        return "a partial event";
    }

    if (complete && !failed && (!done || !finished)) {
        return "no end";
    }

    return NULL;
}


#endif /* _ORDER_H_INCLUDED_ */
