
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_dialect.h"
#include "ngx_http_ai_dialect_openai.h"


typedef struct ngx_http_ai_openai_member_s  ngx_http_ai_openai_member_t;


struct ngx_http_ai_openai_member_s {
    ngx_str_t                  name;
    ngx_int_t                (*handler)(ngx_http_ai_openai_req_t *r,
                                   ngx_http_ai_openai_member_t *m,
                                   ngx_uint_t n);
    size_t                     offset;
};


typedef struct {
    ngx_http_ai_err_e          class;
    char                      *type;
    char                      *code;
} ngx_http_ai_openai_error_t;


static ngx_int_t ngx_http_ai_openai_decode_request(ngx_http_ai_codec_t *codec,
    ngx_http_ai_json_t *j, ngx_http_ai_request_t *req);

static ngx_int_t ngx_http_ai_openai_member_string(ngx_http_ai_openai_req_t *r,
    ngx_http_ai_openai_member_t *m, ngx_uint_t n);
static ngx_int_t ngx_http_ai_openai_member_number(ngx_http_ai_openai_req_t *r,
    ngx_http_ai_openai_member_t *m, ngx_uint_t n);
static ngx_int_t ngx_http_ai_openai_member_node(ngx_http_ai_openai_req_t *r,
    ngx_http_ai_openai_member_t *m, ngx_uint_t n);
static ngx_int_t ngx_http_ai_openai_member_stream(ngx_http_ai_openai_req_t *r,
    ngx_http_ai_openai_member_t *m, ngx_uint_t n);
static ngx_int_t ngx_http_ai_openai_member_parallel(
    ngx_http_ai_openai_req_t *r, ngx_http_ai_openai_member_t *m, ngx_uint_t n);
static ngx_int_t ngx_http_ai_openai_member_effort(ngx_http_ai_openai_req_t *r,
    ngx_http_ai_openai_member_t *m, ngx_uint_t n);
static ngx_int_t ngx_http_ai_openai_member_thinking(
    ngx_http_ai_openai_req_t *r, ngx_http_ai_openai_member_t *m, ngx_uint_t n);
static ngx_int_t ngx_http_ai_openai_member_neutral(ngx_http_ai_openai_req_t *r,
    ngx_http_ai_openai_member_t *m, ngx_uint_t n);
static ngx_int_t ngx_http_ai_openai_member_modalities(
    ngx_http_ai_openai_req_t *r, ngx_http_ai_openai_member_t *m, ngx_uint_t n);

static ngx_int_t ngx_http_ai_openai_stop(ngx_http_ai_openai_req_t *r);
static ngx_int_t ngx_http_ai_openai_format(ngx_http_ai_openai_req_t *r);
static ngx_int_t ngx_http_ai_openai_limits(ngx_http_ai_openai_req_t *r);
static ngx_int_t ngx_http_ai_openai_effort(ngx_http_ai_openai_req_t *r,
    ngx_uint_t n, const char *name);
static ngx_int_t ngx_http_ai_openai_reasoning(ngx_http_ai_openai_req_t *r);

static void ngx_http_ai_openai_encode_models(ngx_http_ai_out_t *out,
    ngx_str_t *names, ngx_uint_t n, time_t created, ngx_uint_t one);
static void ngx_http_ai_openai_model(ngx_http_ai_out_t *out, ngx_str_t *name,
    time_t created);
static void ngx_http_ai_openai_error_member(ngx_http_ai_out_t *out,
    const char *name, u_char *data, size_t len);


ngx_http_ai_dialect_t  ngx_http_ai_dialect_openai = {
    .name = ngx_string("openai"),

    .decode_request = ngx_http_ai_openai_decode_request,
    .encode_init = ngx_http_ai_openai_encode_init,
    .encode_event = ngx_http_ai_openai_encode_event,
    .encode_error = ngx_http_ai_openai_encode_error,
    .encode_stream_error = ngx_http_ai_openai_encode_stream_error,
    .encode_models = ngx_http_ai_openai_encode_models,

    .encode_request = ngx_http_ai_openai_encode_request,
    .decode_init = ngx_http_ai_openai_decode_init,
    .decode_body = ngx_http_ai_openai_decode_body,
    .decode_event = ngx_http_ai_openai_decode_event,
    .decode_finish = ngx_http_ai_openai_decode_finish,

    .terminal = ngx_string("data: [DONE]\n\n"),

    .paths = {
        [NGX_HTTP_AI_OP_CHAT] = ngx_string("/chat/completions"),
        [NGX_HTTP_AI_OP_COMPLETIONS] = ngx_string("/completions"),
        [NGX_HTTP_AI_OP_EMBEDDINGS] = ngx_string("/embeddings"),
        [NGX_HTTP_AI_OP_MODELS] = ngx_string("/models"),
        [NGX_HTTP_AI_OP_MODEL] = ngx_string("/models/")
    }
};


#define ngx_http_ai_openai_to_req(name)                                       \
    offsetof(ngx_http_ai_request_t, name)

#define ngx_http_ai_openai_to_node(name)                                      \
    offsetof(ngx_http_ai_openai_req_t, name)

/* members not in the table are dropped: docs/dialects/openai.md names them */

static ngx_http_ai_openai_member_t  ngx_http_ai_openai_members[] = {

    { ngx_string("model"),
      ngx_http_ai_openai_member_string,
      ngx_http_ai_openai_to_req(model) },

    { ngx_string("messages"),
      ngx_http_ai_openai_member_node,
      ngx_http_ai_openai_to_node(messages) },

    { ngx_string("tools"),
      ngx_http_ai_openai_member_node,
      ngx_http_ai_openai_to_node(tools) },

    { ngx_string("tool_choice"),
      ngx_http_ai_openai_member_node,
      ngx_http_ai_openai_to_node(tool_choice) },

    { ngx_string("functions"),
      ngx_http_ai_openai_member_node,
      ngx_http_ai_openai_to_node(functions) },

    { ngx_string("function_call"),
      ngx_http_ai_openai_member_node,
      ngx_http_ai_openai_to_node(function_call) },

    { ngx_string("parallel_tool_calls"),
      ngx_http_ai_openai_member_parallel,
      0 },

    { ngx_string("max_tokens"),
      ngx_http_ai_openai_member_node,
      ngx_http_ai_openai_to_node(max_tokens) },

    { ngx_string("max_completion_tokens"),
      ngx_http_ai_openai_member_node,
      ngx_http_ai_openai_to_node(max_completion_tokens) },

    { ngx_string("stop"),
      ngx_http_ai_openai_member_node,
      ngx_http_ai_openai_to_node(stop) },

    { ngx_string("temperature"),
      ngx_http_ai_openai_member_number,
      ngx_http_ai_openai_to_req(temperature) },

    { ngx_string("top_p"),
      ngx_http_ai_openai_member_number,
      ngx_http_ai_openai_to_req(top_p) },

    { ngx_string("top_k"),
      ngx_http_ai_openai_member_number,
      ngx_http_ai_openai_to_req(top_k) },

    { ngx_string("seed"),
      ngx_http_ai_openai_member_number,
      ngx_http_ai_openai_to_req(seed) },

    { ngx_string("frequency_penalty"),
      ngx_http_ai_openai_member_number,
      ngx_http_ai_openai_to_req(frequency_penalty) },

    { ngx_string("presence_penalty"),
      ngx_http_ai_openai_member_number,
      ngx_http_ai_openai_to_req(presence_penalty) },

    { ngx_string("response_format"),
      ngx_http_ai_openai_member_node,
      ngx_http_ai_openai_to_node(response_format) },

    { ngx_string("reasoning_effort"),
      ngx_http_ai_openai_member_effort,
      0 },

    { ngx_string("reasoning"),
      ngx_http_ai_openai_member_node,
      ngx_http_ai_openai_to_node(reasoning) },

    { ngx_string("thinking"),
      ngx_http_ai_openai_member_thinking,
      0 },

    { ngx_string("user"),
      ngx_http_ai_openai_member_node,
      ngx_http_ai_openai_to_node(user) },

    { ngx_string("safety_identifier"),
      ngx_http_ai_openai_member_node,
      ngx_http_ai_openai_to_node(safety_identifier) },

    { ngx_string("service_tier"),
      ngx_http_ai_openai_member_string,
      ngx_http_ai_openai_to_req(service_tier) },

    { ngx_string("stream"),
      ngx_http_ai_openai_member_stream,
      0 },

    { ngx_string("stream_options"),
      ngx_http_ai_openai_member_node,
      ngx_http_ai_openai_to_node(stream_options) },

    /* change the answer and have no form in other dialects */

    { ngx_string("n"),
      ngx_http_ai_openai_member_neutral,
      1 },

    { ngx_string("logprobs"),
      ngx_http_ai_openai_member_neutral,
      0 },

    { ngx_string("top_logprobs"),
      ngx_http_ai_openai_member_neutral,
      0 },

    { ngx_string("logit_bias"),
      ngx_http_ai_openai_member_neutral,
      0 },

    { ngx_string("modalities"),
      ngx_http_ai_openai_member_modalities,
      0 },

    { ngx_string("audio"),
      ngx_http_ai_openai_member_neutral,
      0 },

    { ngx_string("prediction"),
      ngx_http_ai_openai_member_neutral,
      0 },

    { ngx_string("web_search_options"),
      ngx_http_ai_openai_member_neutral,
      0 },

    { ngx_string("moderation"),
      ngx_http_ai_openai_member_neutral,
      0 },

    { ngx_null_string, NULL, 0 }
};


/* wire.md calls this the error table: type and code for each class */

static ngx_http_ai_openai_error_t  ngx_http_ai_openai_errors[] = {
    { NGX_HTTP_AI_ERR_INVALID_REQUEST, "invalid_request_error", NULL },
    { NGX_HTTP_AI_ERR_CONTEXT_LENGTH, "invalid_request_error",
      "context_length_exceeded" },
    { NGX_HTTP_AI_ERR_TOO_LARGE, "invalid_request_error",
      "request_too_large" },
    { NGX_HTTP_AI_ERR_CONTENT_FILTER, "invalid_request_error",
      "content_filter" },
    { NGX_HTTP_AI_ERR_AUTH, "invalid_request_error", "invalid_api_key" },
    { NGX_HTTP_AI_ERR_PERMISSION, "invalid_request_error",
      "permission_denied" },
    { NGX_HTTP_AI_ERR_BILLING, "insufficient_quota", "insufficient_quota" },
    { NGX_HTTP_AI_ERR_QUOTA, "insufficient_quota", "insufficient_quota" },
    { NGX_HTTP_AI_ERR_NOT_FOUND, "invalid_request_error", "model_not_found" },
    { NGX_HTTP_AI_ERR_RATE_LIMIT, "requests", "rate_limit_exceeded" },
    { NGX_HTTP_AI_ERR_OVERLOADED, "server_error", "overloaded" },
    { NGX_HTTP_AI_ERR_TIMEOUT, "server_error", "timeout" },
    { NGX_HTTP_AI_ERR_SERVER, "server_error", NULL },
    { NGX_HTTP_AI_ERR_INCOMPLETE, "server_error", "incomplete_answer" },
    { NGX_HTTP_AI_ERR_CONNECT, "server_error", "upstream_unreachable" },
    { NGX_HTTP_AI_ERR_INVALID_ANSWER, "server_error", "invalid_answer" },
    { NGX_HTTP_AI_ERR_SATURATED, "server_error", "overloaded" },
    { NGX_HTTP_AI_ERR_METHOD, "invalid_request_error", "method_not_allowed" },
    { NGX_HTTP_AI_ERR_MEDIA_TYPE, "invalid_request_error",
      "unsupported_media_type" },
    { NGX_HTTP_AI_ERR_INTERNAL, "server_error", "internal_error" },
    { NGX_HTTP_AI_ERR_NONE, "server_error", NULL }
};


static ngx_int_t
ngx_http_ai_openai_decode_request(ngx_http_ai_codec_t *codec,
    ngx_http_ai_json_t *j, ngx_http_ai_request_t *req)
{
    ngx_int_t                     rc;
    ngx_uint_t                    i, n;
    ngx_http_ai_openai_req_t      r;
    ngx_http_ai_openai_member_t  *m;

    ngx_memzero(req, sizeof(ngx_http_ai_request_t));
    ngx_memzero(&r, sizeof(ngx_http_ai_openai_req_t));

    r.codec = codec;
    r.json = j;
    r.req = req;
    r.turn = &req->turns;
    r.tool = &req->tools;

    r.messages = NGX_HTTP_AI_JSON_NONE;
    r.tools = NGX_HTTP_AI_JSON_NONE;
    r.tool_choice = NGX_HTTP_AI_JSON_NONE;
    r.functions = NGX_HTTP_AI_JSON_NONE;
    r.function_call = NGX_HTTP_AI_JSON_NONE;
    r.stop = NGX_HTTP_AI_JSON_NONE;
    r.response_format = NGX_HTTP_AI_JSON_NONE;
    r.stream_options = NGX_HTTP_AI_JSON_NONE;
    r.max_tokens = NGX_HTTP_AI_JSON_NONE;
    r.max_completion_tokens = NGX_HTTP_AI_JSON_NONE;
    r.user = NGX_HTTP_AI_JSON_NONE;
    r.safety_identifier = NGX_HTTP_AI_JSON_NONE;
    r.reasoning = NGX_HTTP_AI_JSON_NONE;

    if (ngx_http_ai_json_type(j, 0) != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_openai_bad(&r, "", "the body must be a JSON object",
                                      NULL);
    }

    for (i = ngx_http_ai_json_first(j, 0);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, 0, i))
    {
        n = i + 1;

        if (j->nodes[n].type == NGX_HTTP_AI_JSON_NULL) {
            continue;
        }

        for (m = ngx_http_ai_openai_members; m->name.len; m++) {

            if (ngx_http_ai_json_key_eq(j, i, (char *) m->name.data,
                                        m->name.len))
            {
                rc = m->handler(&r, m, n);
                if (rc != NGX_OK) {
                    return rc;
                }

                break;
            }
        }
    }

    rc = ngx_http_ai_openai_messages(&r);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_openai_tools(&r);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_openai_tool_choice(&r);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_openai_stop(&r);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_openai_format(&r);
    if (rc != NGX_OK) {
        return rc;
    }

    return ngx_http_ai_openai_limits(&r);
}


/* "name" is the path below the place that is being read */

ngx_int_t
ngx_http_ai_openai_bad(ngx_http_ai_openai_req_t *r, const char *name,
    const char *what, ngx_str_t *value)
{
    size_t   len;
    u_char  *p, *param;

    len = ngx_strlen(name) + 2 * NGX_INT_T_LEN + 64;

    param = ngx_pnalloc(r->codec->pool, len);
    if (param == NULL) {
        return NGX_ERROR;
    }

    p = param;

    if (r->list) {
        p = ngx_sprintf(p, "%s[%ui]", r->list, r->index);

        if (r->sublist) {
            p = ngx_sprintf(p, ".%s[%ui]", r->sublist, r->subindex);
        }

        if (*name) {
            *p++ = '.';
        }
    }

    p = ngx_cpymem(p, name, ngx_strlen(name));
    *p = '\0';

    return ngx_http_ai_codec_refuse_at(r->codec, (char *) param, what, value);
}


/* null is the same as absent; "value" is left alone then */

ngx_int_t
ngx_http_ai_openai_string(ngx_http_ai_openai_req_t *r, ngx_uint_t n,
    const char *name, ngx_str_t *value)
{
    switch (ngx_http_ai_json_type(r->json, n)) {

    case NGX_HTTP_AI_JSON_NULL:
        return NGX_OK;

    case NGX_HTTP_AI_JSON_STRING:
        *value = ngx_http_ai_json_raw(r->json, n);
        return NGX_OK;

    default:
        return ngx_http_ai_openai_bad(r, name, "must be a string", NULL);
    }
}


static ngx_int_t
ngx_http_ai_openai_member_string(ngx_http_ai_openai_req_t *r,
    ngx_http_ai_openai_member_t *m, ngx_uint_t n)
{
    return ngx_http_ai_openai_string(r, n, (char *) m->name.data,
                           (ngx_str_t *) ((char *) r->req + m->offset));
}


static ngx_int_t
ngx_http_ai_openai_member_number(ngx_http_ai_openai_req_t *r,
    ngx_http_ai_openai_member_t *m, ngx_uint_t n)
{
    ngx_str_t  *value;

    if (r->json->nodes[n].type != NGX_HTTP_AI_JSON_NUMBER) {
        return ngx_http_ai_openai_bad(r, (char *) m->name.data,
                                      "must be a number", NULL);
    }

    value = (ngx_str_t *) ((char *) r->req + m->offset);
    *value = ngx_http_ai_json_raw(r->json, n);

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_openai_member_node(ngx_http_ai_openai_req_t *r,
    ngx_http_ai_openai_member_t *m, ngx_uint_t n)
{
    ngx_uint_t  *node;

    node = (ngx_uint_t *) ((char *) r + m->offset);
    *node = n;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_openai_member_stream(ngx_http_ai_openai_req_t *r,
    ngx_http_ai_openai_member_t *m, ngx_uint_t n)
{
    switch (r->json->nodes[n].type) {

    case NGX_HTTP_AI_JSON_TRUE:
        r->req->stream = 1;
        return NGX_OK;

    case NGX_HTTP_AI_JSON_FALSE:
        r->req->stream = 0;
        return NGX_OK;

    default:
        return ngx_http_ai_openai_bad(r, (char *) m->name.data,
                                      "must be true or false", NULL);
    }
}


static ngx_int_t
ngx_http_ai_openai_member_parallel(ngx_http_ai_openai_req_t *r,
    ngx_http_ai_openai_member_t *m, ngx_uint_t n)
{
    switch (r->json->nodes[n].type) {

    case NGX_HTTP_AI_JSON_TRUE:
        r->req->parallel = 2;
        return NGX_OK;

    case NGX_HTTP_AI_JSON_FALSE:
        r->req->parallel = 1;
        return NGX_OK;

    default:
        return ngx_http_ai_openai_bad(r, (char *) m->name.data,
                                      "must be true or false", NULL);
    }
}


static ngx_int_t
ngx_http_ai_openai_member_effort(ngx_http_ai_openai_req_t *r,
    ngx_http_ai_openai_member_t *m, ngx_uint_t n)
{
    return ngx_http_ai_openai_effort(r, n, (char *) m->name.data);
}


/* {"type":"enabled"|"disabled"|"adaptive","budget_tokens":N}, which DeepSeek
 * and several client libraries use in this dialect */

static ngx_int_t
ngx_http_ai_openai_member_thinking(ngx_http_ai_openai_req_t *r,
    ngx_http_ai_openai_member_t *m, ngx_uint_t n)
{
    int64_t     v;
    ngx_str_t   type;
    ngx_uint_t  budget;

    if (r->json->nodes[n].type != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_openai_bad(r, (char *) m->name.data,
                                      "must be an object", NULL);
    }

    type = ngx_http_ai_json_raw(r->json,
                                ngx_http_ai_json_member(r->json, n, "type"));

    if (ngx_http_ai_str_is(&type, "enabled")) {
        r->req->thinking = 2;

    } else if (ngx_http_ai_str_is(&type, "disabled")) {
        r->req->thinking = 1;

    } else if (ngx_http_ai_str_is(&type, "adaptive")) {
        r->req->thinking = 3;

    } else {
        return ngx_http_ai_openai_bad(r, "thinking.type",
                         "must be \"enabled\", \"disabled\" or \"adaptive\"",
                         NULL);
    }

    budget = ngx_http_ai_json_member(r->json, n, "budget_tokens");

    if (ngx_http_ai_json_type(r->json, budget) == NGX_HTTP_AI_JSON_NULL) {
        return NGX_OK;
    }

    if (ngx_http_ai_json_int(r->json, budget, &v) != NGX_OK || v < 0) {
        return ngx_http_ai_openai_bad(r, "thinking.budget_tokens",
                                      "must be a positive integer", NULL);
    }

    r->req->thinking_budget = ngx_http_ai_json_raw(r->json, budget);

    return NGX_OK;
}


/* members that pass only with the value that asks for nothing */

static ngx_int_t
ngx_http_ai_openai_member_neutral(ngx_http_ai_openai_req_t *r,
    ngx_http_ai_openai_member_t *m, ngx_uint_t n)
{
    int64_t                   v;
    ngx_http_ai_json_node_t  *node;

    node = &r->json->nodes[n];

    switch (node->type) {

    case NGX_HTTP_AI_JSON_FALSE:
        return NGX_OK;

    case NGX_HTTP_AI_JSON_NUMBER:
        if (ngx_http_ai_json_int(r->json, n, &v) == NGX_OK
            && v == (int64_t) m->offset)
        {
            return NGX_OK;
        }

        break;

    case NGX_HTTP_AI_JSON_ARRAY:
    case NGX_HTTP_AI_JSON_OBJECT:

        /* an empty web_search_options asks for the search */

        if (node->next == n + 1
            && !ngx_http_ai_str_is(&m->name, "web_search_options"))
        {
            return NGX_OK;
        }

        break;
    }

    return ngx_http_ai_openai_bad(r, (char *) m->name.data,
                "is not supported by the provider that serves this model",
                NULL);
}


static ngx_int_t
ngx_http_ai_openai_member_modalities(ngx_http_ai_openai_req_t *r,
    ngx_http_ai_openai_member_t *m, ngx_uint_t n)
{
    ngx_str_t   s;
    ngx_uint_t  i;

    if (r->json->nodes[n].type != NGX_HTTP_AI_JSON_ARRAY) {
        return ngx_http_ai_openai_bad(r, (char *) m->name.data,
                                      "must be an array of strings", NULL);
    }

    for (i = ngx_http_ai_json_first(r->json, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(r->json, n, i))
    {
        s = ngx_http_ai_json_raw(r->json, i);

        if (!ngx_http_ai_str_is(&s, "text")) {
            return ngx_http_ai_openai_bad(r, (char *) m->name.data,
                "the provider that serves this model cannot answer in", &s);
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_openai_stop(ngx_http_ai_openai_req_t *r)
{
    ngx_str_t               s;
    ngx_uint_t              i, n;
    ngx_http_ai_json_t     *j;
    ngx_http_ai_request_t  *req;

    j = r->json;
    n = r->stop;
    req = r->req;

    if (n == NGX_HTTP_AI_JSON_NONE) {
        return NGX_OK;
    }

    if (j->nodes[n].type == NGX_HTTP_AI_JSON_STRING) {
        s = ngx_http_ai_json_raw(j, n);

        if (s.len == 0) {
            return NGX_OK;
        }

        req->stop = ngx_palloc(r->codec->pool, sizeof(ngx_str_t));
        if (req->stop == NULL) {
            return NGX_ERROR;
        }

        req->stop[0] = s;
        req->nstop = 1;

        return NGX_OK;
    }

    if (j->nodes[n].type != NGX_HTTP_AI_JSON_ARRAY) {
        return ngx_http_ai_openai_bad(r, "stop",
                              "must be a string or an array of strings", NULL);
    }

    if (j->nodes[n].count == 0) {
        return NGX_OK;
    }

    req->stop = ngx_palloc(r->codec->pool,
                           j->nodes[n].count * sizeof(ngx_str_t));
    if (req->stop == NULL) {
        return NGX_ERROR;
    }

    for (i = ngx_http_ai_json_first(j, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, n, i))
    {
        if (j->nodes[i].type != NGX_HTTP_AI_JSON_STRING) {
            return ngx_http_ai_openai_bad(r, "stop",
                              "must be a string or an array of strings", NULL);
        }

        s = ngx_http_ai_json_raw(j, i);

        if (s.len) {
            req->stop[req->nstop++] = s;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_openai_format(ngx_http_ai_openai_req_t *r)
{
    ngx_int_t               rc;
    ngx_str_t               type;
    ngx_uint_t              n, s, v;
    ngx_http_ai_json_t     *j;
    ngx_http_ai_request_t  *req;

    j = r->json;
    n = r->response_format;
    req = r->req;

    if (n == NGX_HTTP_AI_JSON_NONE) {
        return NGX_OK;
    }

    if (j->nodes[n].type != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_openai_bad(r, "response_format",
                                      "must be an object", NULL);
    }

    ngx_str_null(&type);

    rc = ngx_http_ai_openai_string(r, ngx_http_ai_json_member(j, n, "type"),
                                   "response_format.type", &type);
    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_http_ai_str_is(&type, "text")) {
        return NGX_OK;
    }

    if (ngx_http_ai_str_is(&type, "json_object")) {
        req->format = NGX_HTTP_AI_FORMAT_JSON;
        return NGX_OK;
    }

    if (!ngx_http_ai_str_is(&type, "json_schema")) {
        return ngx_http_ai_openai_bad(r, "response_format.type",
                                      "unknown value", &type);
    }

    req->format = NGX_HTTP_AI_FORMAT_SCHEMA;

    n = ngx_http_ai_json_member(j, n, "json_schema");
    s = ngx_http_ai_json_member(j, n, "schema");

    if (ngx_http_ai_json_type(j, s) != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_openai_bad(r, "response_format.json_schema.schema",
                                      "must be an object", NULL);
    }

    req->schema = ngx_http_ai_json_raw(j, s);

    rc = ngx_http_ai_openai_string(r, ngx_http_ai_json_member(j, n, "name"),
                                   "response_format.json_schema.name",
                                   &req->schema_name);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_openai_string(r,
                                ngx_http_ai_json_member(j, n, "description"),
                                "response_format.json_schema.description",
                                &req->schema_description);
    if (rc != NGX_OK) {
        return rc;
    }

    v = ngx_http_ai_json_member(j, n, "strict");

    switch (ngx_http_ai_json_type(j, v)) {

    case NGX_HTTP_AI_JSON_NULL:
        break;

    case NGX_HTTP_AI_JSON_FALSE:
        req->schema_strict = 1;
        break;

    case NGX_HTTP_AI_JSON_TRUE:
        req->schema_strict = 2;
        break;

    default:
        return ngx_http_ai_openai_bad(r, "response_format.json_schema.strict",
                                      "must be true or false", NULL);
    }

    return NGX_OK;
}


/* limits, and what else is left */

static ngx_int_t
ngx_http_ai_openai_limits(ngx_http_ai_openai_req_t *r)
{
    int64_t                 v;
    ngx_int_t               rc;
    ngx_uint_t              n;
    const char             *name;
    ngx_http_ai_request_t  *req;

    req = r->req;

    n = r->max_completion_tokens;
    name = "max_completion_tokens";

    if (n == NGX_HTTP_AI_JSON_NONE) {
        n = r->max_tokens;
        name = "max_tokens";
    }

    if (n != NGX_HTTP_AI_JSON_NONE) {

        if (ngx_http_ai_json_int(r->json, n, &v) != NGX_OK || v < 0) {
            return ngx_http_ai_openai_bad(r, name,
                                          "must be a positive integer", NULL);
        }

        req->max_output = ngx_http_ai_json_raw(r->json, n);
    }

    rc = ngx_http_ai_openai_string(r, r->user, "user", &req->user);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_openai_string(r, r->safety_identifier,
                                   "safety_identifier", &req->user);
    if (rc != NGX_OK) {
        return rc;
    }

    n = r->stream_options;

    if (n != NGX_HTTP_AI_JSON_NONE) {

        if (r->json->nodes[n].type != NGX_HTTP_AI_JSON_OBJECT) {
            return ngx_http_ai_openai_bad(r, "stream_options",
                                          "must be an object", NULL);
        }

        n = ngx_http_ai_json_member(r->json, n, "include_usage");

        if (req->stream
            && ngx_http_ai_json_type(r->json, n) == NGX_HTTP_AI_JSON_TRUE)
        {
            req->include_usage = 1;
        }
    }

    return ngx_http_ai_openai_reasoning(r);
}


static ngx_int_t
ngx_http_ai_openai_effort(ngx_http_ai_openai_req_t *r, ngx_uint_t n,
    const char *name)
{
    ngx_str_t             s;
    ngx_http_ai_effort_e  effort;

    ngx_str_null(&s);

    if (ngx_http_ai_json_type(r->json, n) == NGX_HTTP_AI_JSON_STRING) {
        s = ngx_http_ai_json_raw(r->json, n);
    }

    if (ngx_http_ai_str_is(&s, "none")) {
        effort = NGX_HTTP_AI_EFFORT_NONE;

    } else if (ngx_http_ai_str_is(&s, "minimal")) {
        effort = NGX_HTTP_AI_EFFORT_MINIMAL;

    } else if (ngx_http_ai_str_is(&s, "low")) {
        effort = NGX_HTTP_AI_EFFORT_LOW;

    } else if (ngx_http_ai_str_is(&s, "medium")) {
        effort = NGX_HTTP_AI_EFFORT_MEDIUM;

    } else if (ngx_http_ai_str_is(&s, "high")) {
        effort = NGX_HTTP_AI_EFFORT_HIGH;

    } else if (ngx_http_ai_str_is(&s, "xhigh")) {
        effort = NGX_HTTP_AI_EFFORT_XHIGH;

    } else if (ngx_http_ai_str_is(&s, "max")) {
        effort = NGX_HTTP_AI_EFFORT_MAX;

    } else {
        return ngx_http_ai_openai_bad(r, name, "unknown value", &s);
    }

    r->req->effort = effort;

    return NGX_OK;
}


/* OpenRouter's {"effort","max_tokens","enabled"}; reasoning_effort wins */

static ngx_int_t
ngx_http_ai_openai_reasoning(ngx_http_ai_openai_req_t *r)
{
    int64_t                 v;
    ngx_int_t               rc;
    ngx_uint_t              n;
    ngx_http_ai_json_t     *j;
    ngx_http_ai_request_t  *req;

    j = r->json;
    req = r->req;

    if (ngx_http_ai_json_type(j, r->reasoning) != NGX_HTTP_AI_JSON_OBJECT) {
        return NGX_OK;
    }

    n = ngx_http_ai_json_member(j, r->reasoning, "effort");

    if (req->effort == NGX_HTTP_AI_EFFORT_ABSENT
        && ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_NULL)
    {
        rc = ngx_http_ai_openai_effort(r, n, "reasoning.effort");
        if (rc != NGX_OK) {
            return rc;
        }
    }

    n = ngx_http_ai_json_member(j, r->reasoning, "max_tokens");

    if (ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_NULL) {

        if (ngx_http_ai_json_int(j, n, &v) != NGX_OK || v < 0) {
            return ngx_http_ai_openai_bad(r, "reasoning.max_tokens",
                                          "must be a positive integer", NULL);
        }

        req->thinking_budget = ngx_http_ai_json_raw(j, n);
        req->thinking = 2;
    }

    n = ngx_http_ai_json_member(j, r->reasoning, "enabled");

    switch (ngx_http_ai_json_type(j, n)) {

    case NGX_HTTP_AI_JSON_TRUE:
        req->thinking = 2;
        break;

    case NGX_HTTP_AI_JSON_FALSE:
        req->thinking = 1;
        break;
    }

    return NGX_OK;
}


void
ngx_http_ai_openai_encode_error(ngx_http_ai_out_t *out,
    ngx_http_ai_error_t *err, ngx_uint_t same)
{
    char                        *type, *code;
    ngx_str_t                   *name;
    ngx_http_ai_openai_error_t  *e;

    for (e = ngx_http_ai_openai_errors;
         e->class != NGX_HTTP_AI_ERR_NONE && e->class != err->class;
         e++)
    {
        /* void */
    }

    type = e->type;
    code = e->code;

    /* a status of Anthropic's own */

    if (!same && err->status == 529) {
        err->status = 503;
    }

    /* a key that a provider refuses is the gateway's, not the client's */

    if (err->class == NGX_HTTP_AI_ERR_AUTH && err->status >= 500) {
        type = "server_error";
        code = "upstream_auth";
    }

    same = same && err->status < 500;

    ngx_http_ai_out_lit(out, "{\"error\":{\"message\":\"");

    if (err->message.len) {
        ngx_http_ai_out_escaped(out, err->message.data, err->message.len);

    } else {
        name = ngx_http_ai_err_name(err->class);
        ngx_http_ai_out_str(out, name);
    }

    ngx_http_ai_out_lit(out, "\"");

    if (same && err->type.len) {
        ngx_http_ai_openai_error_member(out, "type", err->type.data,
                                        err->type.len);

    } else {
        ngx_http_ai_openai_error_member(out, "type", (u_char *) type,
                                        ngx_strlen(type));
    }

    ngx_http_ai_openai_error_member(out, "param", err->param.data,
                                    err->param.len);

    /* a number is the status once more */

    if (same && err->code.len
        && (err->code.data[0] < '0' || err->code.data[0] > '9'))
    {
        ngx_http_ai_openai_error_member(out, "code", err->code.data,
                                        err->code.len);

    } else {
        ngx_http_ai_openai_error_member(out, "code", (u_char *) code,
                                        code ? ngx_strlen(code) : 0);
    }

    ngx_http_ai_out_lit(out, "}");

    if (err->request_id.len) {
        ngx_http_ai_openai_error_member(out, "request_id",
                                        err->request_id.data,
                                        err->request_id.len);
    }

    ngx_http_ai_out_lit(out, "}");
}


static void
ngx_http_ai_openai_error_member(ngx_http_ai_out_t *out, const char *name,
    u_char *data, size_t len)
{
    ngx_http_ai_out_lit(out, ",\"");
    ngx_http_ai_out_mem(out, name, ngx_strlen(name));

    if (len == 0) {
        ngx_http_ai_out_lit(out, "\":null");
        return;
    }

    ngx_http_ai_out_lit(out, "\":\"");
    ngx_http_ai_out_escaped(out, data, len);
    ngx_http_ai_out_lit(out, "\"");
}


/* nothing ends the stream: an end marker would make it look complete */

void
ngx_http_ai_openai_encode_stream_error(ngx_http_ai_out_t *out,
    ngx_http_ai_error_t *err)
{
    ngx_http_ai_out_lit(out, "data: ");
    ngx_http_ai_openai_encode_error(out, err, 0);
    ngx_http_ai_out_lit(out, "\n\n");
}


static void
ngx_http_ai_openai_encode_models(ngx_http_ai_out_t *out, ngx_str_t *names,
    ngx_uint_t n, time_t created, ngx_uint_t one)
{
    ngx_uint_t  i;

    if (one) {
        ngx_http_ai_openai_model(out, &names[0], created);
        return;
    }

    ngx_http_ai_out_lit(out, "{\"object\":\"list\",\"data\":[");

    for (i = 0; i < n; i++) {
        if (i) {
            ngx_http_ai_out_lit(out, ",");
        }

        ngx_http_ai_openai_model(out, &names[i], created);
    }

    ngx_http_ai_out_lit(out, "]}");
}


static void
ngx_http_ai_openai_model(ngx_http_ai_out_t *out, ngx_str_t *name,
    time_t created)
{
    ngx_http_ai_out_lit(out, "{\"id\":\"");
    ngx_http_ai_out_escaped(out, name->data, name->len);
    ngx_http_ai_out_lit(out, "\",\"object\":\"model\",\"created\":");
    ngx_http_ai_out_int(out, created);
    ngx_http_ai_out_lit(out, ",\"owned_by\":\"nginx\"}");
}


void
ngx_http_ai_openai_out_hex(ngx_http_ai_out_t *out, uint64_t n)
{
    u_char      buf[16];
    ngx_uint_t  i;

    for (i = 0; i < 16; i++) {
        buf[15 - i] = (u_char) "0123456789abcdef"[n & 0xf];
        n >>= 4;
    }

    ngx_http_ai_out_mem(out, buf, 16);
}
