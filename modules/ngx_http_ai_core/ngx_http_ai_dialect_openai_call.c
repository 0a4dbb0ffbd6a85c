
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_dialect.h"
#include "ngx_http_ai_dialect_openai.h"


#define NGX_HTTP_AI_OPENAI_MAX_CALLS     1024    /* of an answer */
#define NGX_HTTP_AI_OPENAI_MAX_HELD      65536   /* arguments before a name */

#define NGX_HTTP_AI_OPENAI_NO_INDEX      -1
#define NGX_HTTP_AI_OPENAI_LEGACY        -2      /* function_call */


static ngx_int_t ngx_http_ai_openai_call_add(ngx_http_ai_decoder_t *dec,
    ngx_uint_t choice, ngx_int_t wire, ngx_http_ai_openai_call_t **call);
static ngx_int_t ngx_http_ai_openai_call_start(ngx_http_ai_decoder_t *dec,
    ngx_http_ai_openai_call_t *call, ngx_str_t *id, ngx_str_t *name);
static ngx_int_t ngx_http_ai_openai_call_args(ngx_http_ai_decoder_t *dec,
    ngx_http_ai_openai_call_t *call, ngx_str_t *text);
static void ngx_http_ai_openai_scan(ngx_http_ai_openai_call_t *call,
    ngx_str_t *text);


/*
 * A piece of a tool call.  Its id and name may come late, its index may be
 * missing or, with old Ollama builds, be 0 for all calls; vLLM leaves out the
 * first arguments and has sent another id with each piece.
 */

ngx_int_t
ngx_http_ai_openai_call(ngx_http_ai_decoder_t *dec, ngx_uint_t n,
    ngx_uint_t choice, ngx_int_t legacy, ngx_uint_t whole)
{
    int64_t                     v;
    uint64_t                    hash;
    ngx_int_t                   rc, wire;
    ngx_str_t                   id, name, args;
    ngx_uint_t                  i, f, a;
    ngx_http_ai_json_t         *j;
    ngx_http_ai_openai_dec_t   *ctx;
    ngx_http_ai_openai_call_t  *call;

    ctx = dec->ctx;
    j = &dec->json;

    if (j->nodes[n].type != NGX_HTTP_AI_JSON_OBJECT) {
        return NGX_OK;
    }

    ngx_str_null(&id);
    ngx_str_null(&name);
    ngx_str_null(&args);

    wire = NGX_HTTP_AI_OPENAI_NO_INDEX;
    f = n;

    if (legacy) {
        wire = NGX_HTTP_AI_OPENAI_LEGACY;

    } else {
        i = ngx_http_ai_json_member(j, n, "index");

        if (i != NGX_HTTP_AI_JSON_NONE
            && ngx_http_ai_json_int(j, i, &v) == NGX_OK
            && v >= 0 && v < NGX_MAX_INT32_VALUE)
        {
            wire = v;
        }

        i = ngx_http_ai_json_member(j, n, "id");

        if (ngx_http_ai_json_type(j, i) == NGX_HTTP_AI_JSON_STRING) {
            id = ngx_http_ai_json_raw(j, i);
        }

        f = ngx_http_ai_json_member(j, n, "function");

        if (f == NGX_HTTP_AI_JSON_NONE) {
            f = ngx_http_ai_json_member(j, n, "custom");
        }
    }

    i = ngx_http_ai_json_member(j, f, "name");

    if (ngx_http_ai_json_type(j, i) == NGX_HTTP_AI_JSON_STRING) {
        name = ngx_http_ai_json_raw(j, i);
    }

    a = ngx_http_ai_json_member(j, f, "arguments");

    switch (ngx_http_ai_json_type(j, a)) {

    case NGX_HTTP_AI_JSON_STRING:
        args = ngx_http_ai_json_raw(j, a);
        break;

    case NGX_HTTP_AI_JSON_OBJECT:

        /* the object itself: its text as that of a string */

        args = ngx_http_ai_json_raw(j, a);
        ctx->scratch.last = ctx->scratch.start;
        ngx_http_ai_out_reescaped(&ctx->scratch, &args);

        if (ctx->scratch.failed) {
            return NGX_ERROR;
        }

        args.data = ctx->scratch.start;
        args.len = ctx->scratch.last - ctx->scratch.start;

        break;
    }

    hash = id.len ? ngx_http_ai_openai_hash(id.data, id.len,
                                            NGX_HTTP_AI_OPENAI_HASH)
                  : 0;

    call = NULL;

    for (i = ctx->ncalls; i && !whole; i--) {
        if (ctx->calls[i - 1].choice == choice
            && (wire == NGX_HTTP_AI_OPENAI_NO_INDEX
                || ctx->calls[i - 1].wire == wire))
        {
            call = &ctx->calls[i - 1];
            break;
        }
    }

    if (call && name.len
        && ((hash && call->hash && hash != call->hash)
            || (wire == NGX_HTTP_AI_OPENAI_NO_INDEX && !hash && call->named)))
    {
        call = NULL;
    }

    if (call == NULL) {

        if (name.len == 0 && id.len == 0 && args.len == 0) {
            return NGX_OK;
        }

        rc = ngx_http_ai_openai_calls_end(dec, choice, 1);
        if (rc != NGX_OK) {
            return rc;
        }

        rc = ngx_http_ai_openai_call_add(dec, choice, wire, &call);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (call->ended) {
        return NGX_OK;
    }

    if (hash && call->hash == 0) {
        call->hash = hash;
    }

    if (name.len) {
        call->named = 1;
    }

    if (!call->started) {

        if (id.len == 0) {
            id = call->id;
        }

        if (name.len == 0) {
            name = call->name;
        }

        if ((id.len && name.len) || (name.len && legacy) || whole) {
            rc = ngx_http_ai_openai_call_start(dec, call, &id, &name);
            if (rc != NGX_OK) {
                return rc;
            }

        } else {

            if (id.data != call->id.data) {
                call->id.data = ngx_pstrdup(dec->pool, &id);
                if (call->id.data == NULL) {
                    return NGX_ERROR;
                }

                call->id.len = id.len;
            }

            if (name.data != call->name.data) {
                call->name.data = ngx_pstrdup(dec->pool, &name);
                if (call->name.data == NULL) {
                    return NGX_ERROR;
                }

                call->name.len = name.len;
            }

            if (call->held.pool == NULL
                && ngx_http_ai_out_init(&call->held, dec->pool, 256) != NGX_OK)
            {
                return NGX_ERROR;
            }

            ngx_http_ai_out_str(&call->held, &args);

            if (call->held.failed) {
                return NGX_ERROR;
            }

            if (call->held.last - call->held.start
                < NGX_HTTP_AI_OPENAI_MAX_HELD)
            {
                return NGX_OK;
            }

            ngx_str_null(&args);

            rc = ngx_http_ai_openai_call_start(dec, call, &call->id,
                                               &call->name);
            if (rc != NGX_OK) {
                return rc;
            }
        }
    }

    if (args.len) {
        rc = ngx_http_ai_openai_call_args(dec, call, &args);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (whole) {
        return ngx_http_ai_openai_call_end(dec, call);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_openai_call_add(ngx_http_ai_decoder_t *dec, ngx_uint_t choice,
    ngx_int_t wire, ngx_http_ai_openai_call_t **call)
{
    ngx_uint_t                  n;
    ngx_http_ai_openai_dec_t   *ctx;
    ngx_http_ai_openai_call_t  *calls;

    ctx = dec->ctx;

    if (ctx->ncalls == ctx->ncalls_alloc) {

        if (ctx->ncalls >= NGX_HTTP_AI_OPENAI_MAX_CALLS) {
            return ngx_http_ai_openai_declined(dec,
                                      "the answer has too many tool calls");
        }

        n = ctx->ncalls ? ctx->ncalls * 2 : 4;

        calls = ngx_pcalloc(dec->pool, n * sizeof(ngx_http_ai_openai_call_t));
        if (calls == NULL) {
            return NGX_ERROR;
        }

        if (ctx->ncalls) {
            ngx_memcpy(calls, ctx->calls,
                       ctx->ncalls * sizeof(ngx_http_ai_openai_call_t));
            (void) ngx_pfree(dec->pool, ctx->calls);
        }

        ctx->calls = calls;
        ctx->ncalls_alloc = n;
    }

    *call = &ctx->calls[ctx->ncalls++];

    (*call)->choice = choice;
    (*call)->wire = wire;

    ctx->called |= ngx_http_ai_openai_bit(choice);

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_openai_call_start(ngx_http_ai_decoder_t *dec,
    ngx_http_ai_openai_call_t *call, ngx_str_t *id, ngx_str_t *name)
{
    u_char                     buf[sizeof("call_") - 1 + 16];
    uint64_t                   hash;
    ngx_int_t                  rc;
    ngx_str_t                  text;
    ngx_uint_t                 i;
    ngx_http_ai_out_t          out;
    ngx_http_ai_event_t        ev;
    ngx_http_ai_openai_dec_t  *ctx;

    ctx = dec->ctx;

    /* counted in order of their starts, which a late name may change */

    for (i = 0; i < ctx->ncalls; i++) {
        if (ctx->calls[i].choice == call->choice && ctx->calls[i].started) {
            call->index++;
        }
    }

    call->started = 1;

    ngx_memzero(&ev, sizeof(ngx_http_ai_event_t));

    ev.type = NGX_HTTP_AI_EV_TOOL_START;
    ev.choice = call->choice;
    ev.index = call->index;
    ev.id = *id;
    ev.name = *name;

    if (id->len == 0) {

        /* clients need one to answer the call */

        hash = (ctx->id_hash ^ (call->choice * 4096 + call->index + 1))
               * 0x100000001b3ull;

        out.start = buf;
        out.last = buf;
        out.end = buf + sizeof(buf);
        out.pool = dec->pool;
        out.failed = 0;

        ngx_http_ai_out_lit(&out, "call_");
        ngx_http_ai_openai_out_hex(&out, hash);

        ev.id.data = buf;
        ev.id.len = sizeof(buf);
    }

    if (ev.name.data == NULL) {
        ngx_str_set(&ev.name, "");
    }

    rc = dec->sink.handler(dec->sink.data, &ev);

    if (rc != NGX_OK || call->held.last == call->held.start) {
        return rc;
    }

    text.data = call->held.start;
    text.len = call->held.last - call->held.start;

    call->held.last = call->held.start;

    return ngx_http_ai_openai_call_args(dec, call, &text);
}


static ngx_int_t
ngx_http_ai_openai_call_args(ngx_http_ai_decoder_t *dec,
    ngx_http_ai_openai_call_t *call, ngx_str_t *text)
{
    ngx_http_ai_event_t  ev;

    ngx_memzero(&ev, sizeof(ngx_http_ai_event_t));

    ev.type = NGX_HTTP_AI_EV_TOOL_ARGS;
    ev.choice = call->choice;
    ev.index = call->index;
    ev.text = *text;

    call->text = 1;

    if (!call->complete) {
        ngx_http_ai_openai_scan(call, text);
    }

    return dec->sink.handler(dec->sink.data, &ev);
}


ngx_int_t
ngx_http_ai_openai_call_end(ngx_http_ai_decoder_t *dec,
    ngx_http_ai_openai_call_t *call)
{
    ngx_int_t            rc;
    ngx_str_t            text;
    ngx_http_ai_event_t  ev;

    if (!call->started) {
        rc = ngx_http_ai_openai_call_start(dec, call, &call->id, &call->name);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (!call->text) {
        ngx_str_set(&text, "{}");

        rc = ngx_http_ai_openai_call_args(dec, call, &text);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    call->ended = 1;

    ngx_memzero(&ev, sizeof(ngx_http_ai_event_t));

    ev.type = NGX_HTTP_AI_EV_TOOL_END;
    ev.choice = call->choice;
    ev.index = call->index;

    return dec->sink.handler(dec->sink.data, &ev);
}


/* all calls of a choice, or those whose arguments are complete: the dialect
 * does not say when a call ends, and calls may be interleaved */

ngx_int_t
ngx_http_ai_openai_calls_end(ngx_http_ai_decoder_t *dec, ngx_uint_t choice,
    ngx_uint_t complete)
{
    ngx_int_t                   rc;
    ngx_uint_t                  i;
    ngx_http_ai_openai_dec_t   *ctx;
    ngx_http_ai_openai_call_t  *call;

    ctx = dec->ctx;

    for (i = 0; i < ctx->ncalls; i++) {
        call = &ctx->calls[i];

        if (call->choice != choice || call->ended
            || (complete && !call->complete))
        {
            continue;
        }

        rc = ngx_http_ai_openai_call_end(dec, call);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    return NGX_OK;
}


/* follows the brackets of the JSON in a string's raw text; an escape is never
 * cut, since each piece is a whole string */

static void
ngx_http_ai_openai_scan(ngx_http_ai_openai_call_t *call, ngx_str_t *text)
{
    u_char  *p, *last, ch;

    p = text->data;
    last = p + text->len;

    while (p < last) {
        ch = *p++;

        if (ch == '\\' && p < last) {
            ch = *p++;

            if (ch == 'u' && last - p >= 4) {
                ch = (ngx_memcmp(p, "0022", 4) == 0) ? '"'
                     : (ngx_strncasecmp(p, (u_char *) "005c", 4) == 0) ? '\\'
                                                                       : 'u';
                p += 4;

            } else if (ch != '"' && ch != '\\') {
                ch = ' ';
            }
        }

        if (call->quoted) {

            if (call->escape) {
                call->escape = 0;

            } else if (ch == '\\') {
                call->escape = 1;

            } else if (ch == '"') {
                call->quoted = 0;
            }

            continue;
        }

        switch (ch) {

        case '"':
            call->quoted = 1;
            break;

        case '{':
        case '[':
            call->depth++;
            break;

        case '}':
        case ']':
            if (call->depth && --call->depth == 0) {
                call->complete = 1;
                return;
            }

            break;
        }
    }
}
