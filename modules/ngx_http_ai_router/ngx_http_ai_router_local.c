
/*
 * Copyright (C) nginx AI gateway authors
 */


/* what is answered without a provider: static text, models, token counts */


#include "ngx_http_ai_router_exec.h"


#define NGX_HTTP_AI_STATIC_DIMENSIONS      8
#define NGX_HTTP_AI_STATIC_MAX_DIMENSIONS  4096


static ngx_int_t ngx_http_ai_static_chat(ngx_http_ai_exec_t *x,
    ngx_http_ai_target_t *target, ngx_str_t *text);
static ngx_int_t ngx_http_ai_static_completion(ngx_http_ai_exec_t *x,
    ngx_http_ai_target_t *target, ngx_str_t *text);
static ngx_int_t ngx_http_ai_static_embeddings(ngx_http_ai_exec_t *x,
    ngx_http_ai_target_t *target);
static ngx_int_t ngx_http_ai_static_echo(ngx_http_ai_exec_t *x,
    ngx_str_t *text);
static ngx_int_t ngx_http_ai_local_send(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_out_t *out, ngx_uint_t stream);


ngx_int_t
ngx_http_ai_static_answer(ngx_http_ai_exec_t *x, ngx_http_ai_target_t *target)
{
    ngx_int_t           rc;
    ngx_str_t           text, plain;
    ngx_http_ai_ctx_t  *ctx;
    ngx_http_ai_out_t   out;

    ctx = x->ctx;

    ctx->provider = target->provider->name;
    ctx->region = target->provider->region;
    ngx_http_ai_plan_name(x, target, &ctx->target);
    ctx->fallback = (target != x->candidates[0].target);
    ctx->cost = 0;

    if (ctx->cost_usage) {
        ctx->usage.cost = 0;
    }

    if (ctx->op == NGX_HTTP_AI_OP_EMBEDDINGS) {
        return ngx_http_ai_static_embeddings(x, target);
    }

    if (target->provider->text) {

        if (ngx_http_complex_value(x->request, target->provider->text, &plain)
            != NGX_OK
            || ngx_http_ai_out_init(&out, x->request->pool, plain.len + 16)
               != NGX_OK)
        {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        ngx_http_ai_out_escaped(&out, plain.data, plain.len);

        if (out.failed) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        text.data = out.start;
        text.len = out.last - out.start;

    } else {
        rc = ngx_http_ai_static_echo(x, &text);

        if (rc == NGX_DECLINED) {
            return x->api->send_error(x->request, ctx, &x->error, -1, 0);
        }

        if (rc != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    ctx->usage.in_fresh = x->api->input_estimate(ctx);
    ctx->usage.out = ngx_http_ai_tokens_round(
                                ngx_http_ai_tokens_raw(text.data, text.len));
    ctx->usage_state = NGX_HTTP_AI_USAGE_COUNTED;
    ctx->finish = NGX_HTTP_AI_FINISH_STOP;
    ctx->ttft = ngx_current_msec - ctx->start;

    if (ctx->op == NGX_HTTP_AI_OP_COMPLETIONS) {
        return ngx_http_ai_static_completion(x, target, &text);
    }

    return ngx_http_ai_static_chat(x, target, &text);
}


static ngx_int_t
ngx_http_ai_static_chat(ngx_http_ai_exec_t *x, ngx_http_ai_target_t *target,
    ngx_str_t *text)
{
    u_char                 *p, *last, *word;
    ngx_str_t               model;
    ngx_http_ai_ctx_t      *ctx;
    ngx_http_ai_out_t       out;
    ngx_http_ai_event_t     ev;
    ngx_http_ai_encoder_t  *enc;

    ctx = x->ctx;

    if (ngx_http_ai_out_init(&out, x->request->pool, text->len + 1024)
        != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    model = ctx->request_model;

    enc = ngx_http_ai_answer_encoder(x, &out, &model);
    if (enc == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

#define ngx_http_ai_static_event(t)                                           \
    ev.type = t;                                                              \
    if (ctx->dialect->encode_event(enc, &ev) != NGX_OK) {                     \
        return NGX_HTTP_INTERNAL_SERVER_ERROR;                                \
    }

    ngx_memzero(&ev, sizeof(ngx_http_ai_event_t));

    ngx_http_ai_static_event(NGX_HTTP_AI_EV_START);

    p = text->data;
    last = p + text->len;

    /* a piece a word, as models stream */

    while (p < last) {
        word = p;

        while (p < last && *p == ' ') {
            p++;
        }

        while (p < last && *p != ' ') {
            p++;
        }

        ev.text.data = word;
        ev.text.len = p - word;

        ngx_http_ai_static_event(NGX_HTTP_AI_EV_TEXT);
    }

    ngx_str_null(&ev.text);
    ev.finish = NGX_HTTP_AI_FINISH_STOP;
    ngx_http_ai_static_event(NGX_HTTP_AI_EV_FINISH);

    ev.usage = &ctx->usage;
    ngx_http_ai_static_event(NGX_HTTP_AI_EV_USAGE);
    ngx_http_ai_static_event(NGX_HTTP_AI_EV_END);

    return ngx_http_ai_local_send(x->request, ctx, &out, ctx->stream);
}


/* the legacy endpoint exists in one dialect only */

static ngx_int_t
ngx_http_ai_static_completion(ngx_http_ai_exec_t *x,
    ngx_http_ai_target_t *target, ngx_str_t *text)
{
    int64_t             input;
    ngx_http_ai_ctx_t  *ctx;
    ngx_http_ai_out_t   out;

    ctx = x->ctx;
    input = ctx->usage.in_fresh;

    if (ngx_http_ai_out_init(&out, x->request->pool, text->len + 1024)
        != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ctx->stream) {
        ngx_http_ai_out_lit(&out, "data: ");
    }

    ngx_http_ai_out_lit(&out, "{\"id\":\"cmpl-");
    ngx_http_ai_out_str(&out, &ctx->request_id);
    ngx_http_ai_out_lit(&out, "\",\"object\":\"text_completion\","
                              "\"created\":");
    ngx_http_ai_out_int(&out, ngx_time());
    ngx_http_ai_out_lit(&out, ",\"model\":\"");
    ngx_http_ai_out_escaped(&out, ctx->request_model.data,
                            ctx->request_model.len);
    ngx_http_ai_out_lit(&out, "\",\"choices\":[{\"text\":\"");
    ngx_http_ai_out_str(&out, text);
    ngx_http_ai_out_lit(&out, "\",\"index\":0,\"logprobs\":null,"
                              "\"finish_reason\":\"stop\"}]");

    if (!ctx->stream || ctx->include_usage) {
        ngx_http_ai_out_lit(&out, ",\"usage\":{\"prompt_tokens\":");
        ngx_http_ai_out_int(&out, input);
        ngx_http_ai_out_lit(&out, ",\"completion_tokens\":");
        ngx_http_ai_out_int(&out, ctx->usage.out);
        ngx_http_ai_out_lit(&out, ",\"total_tokens\":");
        ngx_http_ai_out_int(&out, input + ctx->usage.out);

        if (ctx->cost_usage) {
            ngx_http_ai_out_lit(&out, ",\"cost\":0");
        }

        ngx_http_ai_out_lit(&out, "}");
    }

    ngx_http_ai_out_lit(&out, "}");

    if (ctx->stream) {
        ngx_http_ai_out_lit(&out, "\n\ndata: [DONE]\n\n");
    }

    return ngx_http_ai_local_send(x->request, ctx, &out, ctx->stream);
}


/* vectors drawn from a hash of the input: equal inputs have equal vectors */

static ngx_int_t
ngx_http_ai_static_embeddings(ngx_http_ai_exec_t *x,
    ngx_http_ai_target_t *target)
{
    float                 f;
    u_char               *p;
    int64_t               dims;
    uint32_t              hash;
    ngx_int_t             rc;
    ngx_str_t             raw, src, dst;
    ngx_uint_t            i, k, n, input, base64, single;
    ngx_http_ai_ctx_t    *ctx;
    ngx_http_ai_out_t     out;
    ngx_http_ai_json_t   *j;

    ctx = x->ctx;
    j = &ctx->json;

    rc = x->api->parse_body(ctx, &x->error);

    if (rc == NGX_DECLINED) {
        return x->api->send_error(x->request, ctx, &x->error, -1, 0);
    }

    if (rc != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    input = ngx_http_ai_json_member(j, 0, "input");

    if (input == NGX_HTTP_AI_JSON_NONE) {
        x->error.class = NGX_HTTP_AI_ERR_INVALID_REQUEST;
        ngx_str_set(&x->error.message, "you must provide an \"input\"");
        ngx_str_set(&x->error.param, "input");

        return x->api->send_error(x->request, ctx, &x->error, -1, 0);
    }

    dims = NGX_HTTP_AI_STATIC_DIMENSIONS;
    n = ngx_http_ai_json_member(j, 0, "dimensions");

    if (n != NGX_HTTP_AI_JSON_NONE
        && (ngx_http_ai_json_int(j, n, &dims) != NGX_OK || dims < 1
            || dims > NGX_HTTP_AI_STATIC_MAX_DIMENSIONS))
    {
        x->error.class = NGX_HTTP_AI_ERR_INVALID_REQUEST;
        ngx_str_set(&x->error.message, "\"dimensions\" is not supported");
        ngx_str_set(&x->error.param, "dimensions");

        return x->api->send_error(x->request, ctx, &x->error, -1, 0);
    }

    raw = ngx_http_ai_json_raw(j, ngx_http_ai_json_member(j, 0,
                                                          "encoding_format"));
    base64 = ngx_http_ai_str_is(&raw, "base64");

    src.len = dims * 4;
    src.data = ngx_pnalloc(x->request->pool, src.len);
    dst.data = ngx_pnalloc(x->request->pool,
                           ngx_base64_encoded_length(src.len));

    if (src.data == NULL || dst.data == NULL
        || ngx_http_ai_out_init(&out, x->request->pool, 1024) != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_ai_out_lit(&out, "{\"object\":\"list\",\"data\":[");

    /* one input unless it is an array of strings or of arrays */

    n = ngx_http_ai_json_first(j, input);
    single = (ngx_http_ai_json_type(j, input) != NGX_HTTP_AI_JSON_ARRAY
              || ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_NUMBER);

    if (single) {
        n = input;
    }

    for (i = 0; n != NGX_HTTP_AI_JSON_NONE; i++) {
        raw = ngx_http_ai_json_raw(j, n);
        hash = ngx_crc32_long(raw.data, raw.len);

        ngx_http_ai_out_mem(&out, ",", i ? 1 : 0);
        ngx_http_ai_out_lit(&out, "{\"object\":\"embedding\",\"index\":");
        ngx_http_ai_out_int(&out, i);
        ngx_http_ai_out_lit(&out, ",\"embedding\":");

        if (!base64) {
            ngx_http_ai_out_lit(&out, "[");
        }

        for (k = 0; k < (ngx_uint_t) dims; k++) {
            hash = hash * 1664525 + 1013904223;

            if (base64) {
                f = ((float) (hash >> 8) / 16777216) - 0.5f;
                ngx_memcpy(src.data + 4 * k, &f, 4);
                continue;
            }

            ngx_http_ai_out_mem(&out, ",", k ? 1 : 0);

            if (hash < 0x80000000) {
                ngx_http_ai_out_lit(&out, "-");
            }

            p = ngx_pnalloc(x->request->pool, 16);
            if (p == NULL) {
                return NGX_HTTP_INTERNAL_SERVER_ERROR;
            }

            ngx_http_ai_out_mem(&out, p,
                                ngx_sprintf(p, "0.%06uD",
                                            (hash >> 8) % 500000)
                                - p);
        }

        if (base64) {
            ngx_encode_base64(&dst, &src);
            ngx_http_ai_out_lit(&out, "\"");
            ngx_http_ai_out_str(&out, &dst);
            ngx_http_ai_out_lit(&out, "\"}");

        } else {
            ngx_http_ai_out_lit(&out, "]}");
        }

        n = single ? NGX_HTTP_AI_JSON_NONE
                   : ngx_http_ai_json_next(j, input, n);
    }

    ctx->usage.in_fresh = x->api->input_estimate(ctx);
    ctx->usage_state = NGX_HTTP_AI_USAGE_COUNTED;

    ngx_http_ai_out_lit(&out, "],\"model\":\"");
    ngx_http_ai_out_escaped(&out, ctx->request_model.data,
                            ctx->request_model.len);
    ngx_http_ai_out_lit(&out, "\",\"usage\":{\"prompt_tokens\":");
    ngx_http_ai_out_int(&out, ctx->usage.in_fresh);
    ngx_http_ai_out_lit(&out, ",\"total_tokens\":");
    ngx_http_ai_out_int(&out, ctx->usage.in_fresh);

    if (ctx->cost_usage) {
        ngx_http_ai_out_lit(&out, ",\"cost\":0");
    }

    ngx_http_ai_out_lit(&out, "}}");

    return ngx_http_ai_local_send(x->request, ctx, &out, 0);
}


/* the text of the last turn that has one, as raw text */

static ngx_int_t
ngx_http_ai_static_echo(ngx_http_ai_exec_t *x, ngx_str_t *text)
{
    ngx_int_t                rc;
    ngx_str_t                role, raw;
    ngx_uint_t               n, m, i, content;
    ngx_http_ai_ctx_t       *ctx;
    ngx_http_ai_out_t        out;
    ngx_http_ai_json_t      *j;
    ngx_http_ai_codec_t      codec;
    ngx_http_ai_request_t    req;

    ctx = x->ctx;
    j = &ctx->json;

    rc = x->api->parse_body(ctx, &x->error);
    if (rc != NGX_OK) {
        return rc;
    }

    ngx_str_set(text, "");

    if (ctx->op == NGX_HTTP_AI_OP_COMPLETIONS) {
        n = ngx_http_ai_json_member(j, 0, "prompt");

        if (ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_STRING) {
            *text = ngx_http_ai_json_raw(j, n);
        }

        return NGX_OK;
    }

    /* what a real provider would refuse is refused here too */

    ngx_memzero(&codec, sizeof(ngx_http_ai_codec_t));
    ngx_memzero(&req, sizeof(ngx_http_ai_request_t));
    codec.pool = x->request->pool;

    rc = ctx->dialect->decode_request(&codec, j, &req);

    if (rc == NGX_DECLINED) {
        x->error = codec.error;
    }

    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_http_ai_out_init(&out, x->request->pool, 256) != NGX_OK) {
        return NGX_ERROR;
    }

    m = ngx_http_ai_json_member(j, 0, "messages");

    for (n = ngx_http_ai_json_first(j, m);
         n != NGX_HTTP_AI_JSON_NONE;
         n = ngx_http_ai_json_next(j, m, n))
    {
        role = ngx_http_ai_json_raw(j, ngx_http_ai_json_member(j, n, "role"));

        if (!ngx_http_ai_str_is(&role, "user")) {
            continue;
        }

        content = ngx_http_ai_json_member(j, n, "content");

        if (ngx_http_ai_json_type(j, content) == NGX_HTTP_AI_JSON_STRING) {
            *text = ngx_http_ai_json_raw(j, content);
            continue;
        }

        out.last = out.start;

        for (i = ngx_http_ai_json_first(j, content);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, content, i))
        {
            raw = ngx_http_ai_json_raw(j,
                                       ngx_http_ai_json_member(j, i, "text"));
            ngx_http_ai_out_str(&out, &raw);
        }

        if (out.failed) {
            return NGX_ERROR;
        }

        if (out.last != out.start) {
            text->data = out.start;
            text->len = out.last - out.start;
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_models_answer(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_router_main_conf_t *amcf)
{
    u_char                *p;
    ngx_str_t             *names, near;
    ngx_uint_t             i, n;
    ngx_http_ai_out_t      out;
    ngx_http_ai_error_t    err;
    ngx_http_ai_alias_t   *alias;
    ngx_http_ai_model_t   *known, **model;

    if (ngx_http_ai_out_init(&out, r->pool, 1024) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ctx->op == NGX_HTTP_AI_OP_MODEL) {

        /* a variable of it may be part of a header */

        for (i = 0; i < ctx->op_model.len; i++) {
            if (ctx->op_model.data[i] < 0x20 || ctx->op_model.data[i] == 0x7f)
            {
                break;
            }
        }

        if (i == ctx->op_model.len) {
            ctx->request_model = ctx->op_model;
        }

        known = ngx_http_ai_model_find(amcf, &ctx->op_model);

        if (known == NULL
            || !ngx_http_ai_model_permitted(r, ctx, amcf, known))
        {
            /* what the caller may not use does not exist for it */

            ngx_memzero(&err, sizeof(ngx_http_ai_error_t));

            if (ngx_http_ai_model_near(r, ctx, amcf, &ctx->op_model, &near)
                != NGX_OK)
            {
                return NGX_HTTP_INTERNAL_SERVER_ERROR;
            }

            p = ngx_pnalloc(r->pool, ctx->op_model.len + near.len + 64);
            if (p == NULL) {
                return NGX_HTTP_INTERNAL_SERVER_ERROR;
            }

            err.class = NGX_HTTP_AI_ERR_NOT_FOUND;
            err.message.data = p;
            err.message.len = ngx_sprintf(p, "the model \"%V\" does not "
                                          "exist%V", &ctx->op_model, &near)
                              - p;
            ngx_str_set(&err.param, "model");

            return amcf->api->send_error(r, ctx, &err, -1, 0);
        }

        ctx->dialect->encode_models(&out, &ctx->op_model, 1, amcf->started, 1);

        return ngx_http_ai_local_send(r, ctx, &out, 0);
    }

    names = ngx_palloc(r->pool, (amcf->models.nelts + amcf->aliases.nelts + 1)
                                * sizeof(ngx_str_t));
    if (names == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    n = 0;
    model = amcf->models.elts;

    for (i = 0; i < amcf->models.nelts; i++) {
        if (ngx_http_ai_model_permitted(r, ctx, amcf, model[i])) {
            names[n++] = model[i]->name;
        }
    }

    alias = amcf->aliases.elts;

    for (i = 0; i < amcf->aliases.nelts; i++) {
        if (ngx_http_ai_model_permitted(r, ctx, amcf, alias[i].model)) {
            names[n++] = alias[i].name;
        }
    }

    ctx->dialect->encode_models(&out, names, n, amcf->started, 0);

    return ngx_http_ai_local_send(r, ctx, &out, 0);
}


ngx_int_t
ngx_http_ai_count_tokens_answer(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    ngx_http_ai_out_t    out;
    ngx_http_ai_exec_t  *x;

    x = ctx->router;

    if (ngx_http_ai_out_init(&out, r->pool, 64) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_http_ai_out_lit(&out, "{\"input_tokens\":");
    ngx_http_ai_out_int(&out, x->api->input_estimate(ctx));
    ngx_http_ai_out_lit(&out, "}");

    return ngx_http_ai_local_send(r, ctx, &out, 0);
}


static ngx_int_t
ngx_http_ai_local_send(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_out_t *out, ngx_uint_t stream)
{
    ngx_int_t                        rc;
    ngx_str_t                        value;
    ngx_buf_t                       *b;
    ngx_chain_t                      cl;
    ngx_http_ai_router_main_conf_t  *amcf;

    if (out->failed) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b->start = out->start;
    b->pos = out->start;
    b->last = out->last;
    b->end = out->end;
    b->memory = 1;
    b->last_buf = 1;
    b->last_in_chain = 1;

    ctx->answered = 1;

    r->headers_out.status = NGX_HTTP_OK;

    if (stream) {
        ngx_str_set(&r->headers_out.content_type, "text/event-stream");
        ngx_str_set(&value, "no-cache");

        if (ngx_http_ai_header_add(&r->headers_out.headers, "Cache-Control",
                                   &value)
            == NULL)
        {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

    } else {
        ngx_str_set(&r->headers_out.content_type, "application/json");
        r->headers_out.content_length_n = out->last - out->start;
    }

    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;

    amcf = ngx_http_get_module_main_conf(r, ngx_http_ai_router_module);

    if (amcf->api->add_headers(r, ctx) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    cl.buf = b;
    cl.next = NULL;

    return ngx_http_output_filter(r, &cl);
}
