
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_dialect.h"
#include "ngx_http_ai_dialect_anthropic.h"


#define NGX_HTTP_AI_ANTHROPIC_MAX_TOOLS  1024


/* members of the request; a member's last occurrence counts */

typedef struct {
    ngx_uint_t                 model;
    ngx_uint_t                 messages;
    ngx_uint_t                 system;
    ngx_uint_t                 tools;
    ngx_uint_t                 tool_choice;
    ngx_uint_t                 max_tokens;
    ngx_uint_t                 stop_sequences;
    ngx_uint_t                 temperature;
    ngx_uint_t                 top_p;
    ngx_uint_t                 top_k;
    ngx_uint_t                 thinking;
    ngx_uint_t                 output_config;
    ngx_uint_t                 output_format;
    ngx_uint_t                 metadata;
    ngx_uint_t                 service_tier;
    ngx_uint_t                 stream;
    ngx_uint_t                 mcp_servers;
    ngx_uint_t                 thread;
    ngx_uint_t                 cache_control;
} ngx_http_ai_anthropic_members_t;


typedef struct {
    ngx_str_t                  name;
    size_t                     offset;
} ngx_http_ai_anthropic_member_t;


static ngx_int_t ngx_http_ai_anthropic_decode_request(
    ngx_http_ai_codec_t *codec, ngx_http_ai_json_t *j,
    ngx_http_ai_request_t *req);
static ngx_int_t ngx_http_ai_anthropic_number(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n, const char *name, ngx_str_t *value);
static ngx_int_t ngx_http_ai_anthropic_integer(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n, const char *name, ngx_str_t *value);
static ngx_int_t ngx_http_ai_anthropic_flag(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n, const char *name, ngx_uint_t *value);
static ngx_int_t ngx_http_ai_anthropic_limits(ngx_http_ai_anthropic_req_t *r,
    ngx_http_ai_anthropic_members_t *m);
static ngx_int_t ngx_http_ai_anthropic_stop(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n);
static ngx_int_t ngx_http_ai_anthropic_tools(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n);
static ngx_int_t ngx_http_ai_anthropic_tool(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n, ngx_http_ai_tool_t *tool);
static ngx_int_t ngx_http_ai_anthropic_choice(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n);
static ngx_int_t ngx_http_ai_anthropic_thinking(
    ngx_http_ai_anthropic_req_t *r, ngx_uint_t n);
static ngx_int_t ngx_http_ai_anthropic_output(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n);
static ngx_int_t ngx_http_ai_anthropic_format(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n, const char *name);
static void ngx_http_ai_anthropic_auto_mark(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n);

static void ngx_http_ai_anthropic_encode_models(ngx_http_ai_out_t *out,
    ngx_str_t *names, ngx_uint_t n, time_t created, ngx_uint_t one);
static void ngx_http_ai_anthropic_model(ngx_http_ai_out_t *out,
    ngx_str_t *name, time_t created);
static void ngx_http_ai_anthropic_time(ngx_http_ai_out_t *out, time_t t);


ngx_http_ai_dialect_t  ngx_http_ai_dialect_anthropic = {
    .name = ngx_string("anthropic"),

    .decode_request = ngx_http_ai_anthropic_decode_request,
    .encode_init = ngx_http_ai_anthropic_encode_init,
    .encode_event = ngx_http_ai_anthropic_encode_event,
    .encode_error = ngx_http_ai_anthropic_encode_error,
    .encode_stream_error = ngx_http_ai_anthropic_encode_stream_error,
    .encode_models = ngx_http_ai_anthropic_encode_models,

    .encode_request = ngx_http_ai_anthropic_encode_request,
    .decode_init = ngx_http_ai_anthropic_decode_init,
    .decode_body = ngx_http_ai_anthropic_decode_body,
    .decode_event = ngx_http_ai_anthropic_decode_event,
    .decode_finish = ngx_http_ai_anthropic_decode_finish,

    .terminal = ngx_string("event: message_stop\n"
                           "data: {\"type\":\"message_stop\"}\n\n"),

    .paths = {
        [NGX_HTTP_AI_OP_CHAT] = ngx_string("/v1/messages"),
        [NGX_HTTP_AI_OP_COUNT_TOKENS] =
                                    ngx_string("/v1/messages/count_tokens"),
        [NGX_HTTP_AI_OP_MODELS] = ngx_string("/v1/models"),
        [NGX_HTTP_AI_OP_MODEL] = ngx_string("/v1/models/")
    }
};


#define ngx_http_ai_anthropic_at(name)                                        \
    { ngx_string(#name), offsetof(ngx_http_ai_anthropic_members_t, name) }

/* members not in the table are dropped: docs/dialects/anthropic.md */

static ngx_http_ai_anthropic_member_t  ngx_http_ai_anthropic_members[] = {
    ngx_http_ai_anthropic_at(model),
    ngx_http_ai_anthropic_at(messages),
    ngx_http_ai_anthropic_at(system),
    ngx_http_ai_anthropic_at(tools),
    ngx_http_ai_anthropic_at(tool_choice),
    ngx_http_ai_anthropic_at(max_tokens),
    ngx_http_ai_anthropic_at(stop_sequences),
    ngx_http_ai_anthropic_at(temperature),
    ngx_http_ai_anthropic_at(top_p),
    ngx_http_ai_anthropic_at(top_k),
    ngx_http_ai_anthropic_at(thinking),
    ngx_http_ai_anthropic_at(output_config),
    ngx_http_ai_anthropic_at(output_format),
    ngx_http_ai_anthropic_at(metadata),
    ngx_http_ai_anthropic_at(service_tier),
    ngx_http_ai_anthropic_at(stream),
    ngx_http_ai_anthropic_at(mcp_servers),
    ngx_http_ai_anthropic_at(thread),
    ngx_http_ai_anthropic_at(cache_control),
    { ngx_null_string, 0 }
};


/* by class */

static char  *ngx_http_ai_anthropic_errors[] = {
    "api_error",
    "invalid_request_error",    /* invalid_request */
    "invalid_request_error",    /* context_length */
    "request_too_large",        /* too_large */
    "invalid_request_error",    /* content_filter */
    "authentication_error",     /* auth */
    "permission_error",         /* permission */
    "billing_error",            /* billing */
    "rate_limit_error",         /* quota */
    "not_found_error",          /* not_found */
    "rate_limit_error",         /* rate_limit */
    "overloaded_error",         /* overloaded */
    "timeout_error",            /* timeout */
    "api_error",                /* server */
    "api_error",                /* incomplete */
    "api_error",                /* connect */
    "api_error",                /* invalid_answer */
    "overloaded_error",         /* saturated */
    "invalid_request_error",    /* method */
    "invalid_request_error",    /* media_type */
    "api_error"                 /* internal */
};


static ngx_int_t
ngx_http_ai_anthropic_decode_request(ngx_http_ai_codec_t *codec,
    ngx_http_ai_json_t *j, ngx_http_ai_request_t *req)
{
    ngx_int_t                         rc;
    ngx_uint_t                        i, *node;
    ngx_http_ai_anthropic_req_t       r;
    ngx_http_ai_anthropic_member_t   *member;
    ngx_http_ai_anthropic_members_t   m;

    ngx_memzero(req, sizeof(ngx_http_ai_request_t));
    ngx_memzero(&r, sizeof(ngx_http_ai_anthropic_req_t));
    ngx_memset(&m, 0xff, sizeof(ngx_http_ai_anthropic_members_t));

    r.codec = codec;
    r.json = j;
    r.req = req;
    r.turn = &req->turns;

    if (ngx_http_ai_json_type(j, 0) != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_anthropic_bad(&r, "",
                                         "the body must be a JSON object",
                                         NULL);
    }

    for (i = ngx_http_ai_json_first(j, 0);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, 0, i))
    {
        for (member = ngx_http_ai_anthropic_members;
             member->name.len;
             member++)
        {
            if (ngx_http_ai_json_key_eq(j, i, (char *) member->name.data,
                                        member->name.len))
            {
                node = (ngx_uint_t *) ((char *) &m + member->offset);
                *node = (j->nodes[i + 1].type == NGX_HTTP_AI_JSON_NULL)
                        ? NGX_HTTP_AI_JSON_NONE : i + 1;
                break;
            }
        }
    }

    rc = ngx_http_ai_anthropic_string(&r, m.model, "model", 1, &req->model);
    if (rc != NGX_OK) {
        return rc;
    }

    if (m.thread != NGX_HTTP_AI_JSON_NONE) {

        /*
         * What was said before is kept by the provider alone; told this way,
         * client libraries send all of it.
         */

        rc = ngx_http_ai_anthropic_bad(&r, "thread", "is not supported",
                                       NULL);
        ngx_str_set(&codec->error.code, "thread_unsupported_request");

        return rc;
    }

    rc = ngx_http_ai_anthropic_limits(&r, &m);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_anthropic_system(&r, m.system);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_anthropic_messages(&r, m.messages);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_anthropic_tools(&r, m.tools);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_anthropic_choice(&r, m.tool_choice);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_anthropic_thinking(&r, m.thinking);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_anthropic_output(&r, m.output_config);
    if (rc != NGX_OK) {
        return rc;
    }

    /* the name that "output_config.format" had in its beta */

    if (ngx_http_ai_json_type(j, m.output_format) == NGX_HTTP_AI_JSON_OBJECT)
    {
        rc = ngx_http_ai_anthropic_format(&r, m.output_format,
                                          "output_format");
        if (rc != NGX_OK) {
            return rc;
        }
    }

    ngx_http_ai_anthropic_auto_mark(&r, m.cache_control);

    return NGX_OK;
}


/* "name" is the path below the place that is being read */

ngx_int_t
ngx_http_ai_anthropic_bad(ngx_http_ai_anthropic_req_t *r, const char *name,
    const char *what, ngx_str_t *value)
{
    size_t   len;
    u_char  *p, *param;

    len = ngx_strlen(name) + 3 * NGX_INT_T_LEN + 64;

    param = ngx_pnalloc(r->codec->pool, len);
    if (param == NULL) {
        return NGX_ERROR;
    }

    p = param;

    if (r->list) {
        p = ngx_sprintf(p, "%s.%ui", r->list, r->index);

        if (r->in_block) {
            p = ngx_sprintf(p, ".content.%ui", r->block);
        }

        if (r->in_inner) {
            p = ngx_sprintf(p, ".content.%ui", r->inner);
        }

        if (*name) {
            *p++ = '.';
        }
    }

    p = ngx_cpymem(p, name, ngx_strlen(name));
    *p = '\0';

    return ngx_http_ai_codec_refuse_at(r->codec, (char *) param, what, value);
}


/* raw text of a string; null is the same as absent, "value" is left alone */

ngx_int_t
ngx_http_ai_anthropic_string(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n,
    const char *name, ngx_uint_t required, ngx_str_t *value)
{
    switch (ngx_http_ai_json_type(r->json, n)) {

    case NGX_HTTP_AI_JSON_NULL:

        if (required) {
            return ngx_http_ai_anthropic_bad(r, name, "Field required", NULL);
        }

        return NGX_OK;

    case NGX_HTTP_AI_JSON_STRING:
        *value = ngx_http_ai_json_raw(r->json, n);

        if (required > 1 && value->len == 0) {
            return ngx_http_ai_anthropic_bad(r, name, "must not be empty",
                                             NULL);
        }

        return NGX_OK;

    default:
        return ngx_http_ai_anthropic_bad(r, name,
                                         "Input should be a valid string",
                                         NULL);
    }
}


/* a string to be compared: required, and unescaped */

ngx_int_t
ngx_http_ai_anthropic_word(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n,
    const char *name, ngx_str_t *value)
{
    ngx_int_t  rc;
    ngx_str_t  raw;

    rc = ngx_http_ai_anthropic_string(r, n, name, 1, value);

    if (rc != NGX_OK || !r->json->nodes[n].escaped) {
        return rc;
    }

    raw = *value;

    return ngx_http_ai_json_unescape_str(r->codec->pool, &raw, value);
}


static ngx_int_t
ngx_http_ai_anthropic_number(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n,
    const char *name, ngx_str_t *value)
{
    switch (ngx_http_ai_json_type(r->json, n)) {

    case NGX_HTTP_AI_JSON_NULL:
        return NGX_OK;

    case NGX_HTTP_AI_JSON_NUMBER:
        *value = ngx_http_ai_json_raw(r->json, n);
        return NGX_OK;

    default:
        return ngx_http_ai_anthropic_bad(r, name,
                                         "Input should be a valid number",
                                         NULL);
    }
}


static ngx_int_t
ngx_http_ai_anthropic_integer(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n,
    const char *name, ngx_str_t *value)
{
    int64_t  v;

    if (ngx_http_ai_json_type(r->json, n) == NGX_HTTP_AI_JSON_NULL) {
        return NGX_OK;
    }

    if (ngx_http_ai_json_int(r->json, n, &v) != NGX_OK || v < 0) {
        return ngx_http_ai_anthropic_bad(r, name,
                                    "Input should be a non-negative integer",
                                    NULL);
    }

    *value = ngx_http_ai_json_raw(r->json, n);

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_flag(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n,
    const char *name, ngx_uint_t *value)
{
    *value = 0;

    switch (ngx_http_ai_json_type(r->json, n)) {

    case NGX_HTTP_AI_JSON_TRUE:
        *value = 1;
        return NGX_OK;

    case NGX_HTTP_AI_JSON_FALSE:
    case NGX_HTTP_AI_JSON_NULL:
        return NGX_OK;

    default:
        return ngx_http_ai_anthropic_bad(r, name,
                                         "Input should be a valid boolean",
                                         NULL);
    }
}


static ngx_int_t
ngx_http_ai_anthropic_limits(ngx_http_ai_anthropic_req_t *r,
    ngx_http_ai_anthropic_members_t *m)
{
    ngx_int_t               rc;
    ngx_uint_t              flag, n;
    ngx_http_ai_json_t     *j;
    ngx_http_ai_request_t  *req;

    j = r->json;
    req = r->req;

    if (m->max_tokens == NGX_HTTP_AI_JSON_NONE) {
        return ngx_http_ai_anthropic_bad(r, "max_tokens", "Field required",
                                         NULL);
    }

    rc = ngx_http_ai_anthropic_integer(r, m->max_tokens, "max_tokens",
                                       &req->max_output);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_anthropic_number(r, m->temperature, "temperature",
                                      &req->temperature);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_anthropic_number(r, m->top_p, "top_p", &req->top_p);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_anthropic_integer(r, m->top_k, "top_k", &req->top_k);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_anthropic_string(r, m->service_tier, "service_tier", 0,
                                      &req->service_tier);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_anthropic_flag(r, m->stream, "stream", &flag);
    if (rc != NGX_OK) {
        return rc;
    }

    /* the dialect's streams always tell the usage */

    req->stream = flag;
    req->include_usage = flag;

    if (m->metadata != NGX_HTTP_AI_JSON_NONE) {

        if (j->nodes[m->metadata].type != NGX_HTTP_AI_JSON_OBJECT) {
            return ngx_http_ai_anthropic_bad(r, "metadata",
                                             "Input should be an object",
                                             NULL);
        }

        n = ngx_http_ai_json_member(j, m->metadata, "user_id");

        rc = ngx_http_ai_anthropic_string(r, n, "metadata.user_id", 0,
                                          &req->user);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (m->mcp_servers != NGX_HTTP_AI_JSON_NONE
        && ngx_http_ai_json_first(j, m->mcp_servers) != NGX_HTTP_AI_JSON_NONE)
    {
        return ngx_http_ai_anthropic_bad(r, "mcp_servers",
            "is not supported by the provider that serves this model", NULL);
    }

    return ngx_http_ai_anthropic_stop(r, m->stop_sequences);
}


static ngx_int_t
ngx_http_ai_anthropic_stop(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n)
{
    ngx_str_t               s;
    ngx_uint_t              i;
    ngx_http_ai_json_t     *j;
    ngx_http_ai_request_t  *req;

    j = r->json;
    req = r->req;

    if (n == NGX_HTTP_AI_JSON_NONE) {
        return NGX_OK;
    }

    if (j->nodes[n].type != NGX_HTTP_AI_JSON_ARRAY) {
        return ngx_http_ai_anthropic_bad(r, "stop_sequences",
                                         "Input should be a valid list",
                                         NULL);
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
            return ngx_http_ai_anthropic_bad(r, "stop_sequences",
                                        "Input should be a list of strings",
                                        NULL);
        }

        s = ngx_http_ai_json_raw(j, i);

        if (s.len) {
            req->stop[req->nstop++] = s;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_tools(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n)
{
    ngx_int_t             rc;
    ngx_uint_t            i;
    ngx_http_ai_tool_t   *tool, **last;
    ngx_http_ai_json_t   *j;

    j = r->json;

    if (n == NGX_HTTP_AI_JSON_NONE) {
        return NGX_OK;
    }

    if (j->nodes[n].type != NGX_HTTP_AI_JSON_ARRAY) {
        return ngx_http_ai_anthropic_bad(r, "tools",
                                         "Input should be a valid list",
                                         NULL);
    }

    last = &r->req->tools;

    r->list = "tools";
    r->index = 0;

    for (i = ngx_http_ai_json_first(j, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, n, i))
    {
        if (r->index == NGX_HTTP_AI_ANTHROPIC_MAX_TOOLS) {
            return ngx_http_ai_anthropic_bad(r, "", "too many tools", NULL);
        }

        tool = ngx_pcalloc(r->codec->pool, sizeof(ngx_http_ai_tool_t));
        if (tool == NULL) {
            return NGX_ERROR;
        }

        rc = ngx_http_ai_anthropic_tool(r, i, tool);
        if (rc != NGX_OK) {
            return rc;
        }

        *last = tool;
        last = &tool->next;

        r->index++;
    }

    r->list = NULL;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_tool(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n,
    ngx_http_ai_tool_t *tool)
{
    unsigned             cached;
    ngx_int_t            rc;
    ngx_str_t            type;
    ngx_uint_t           v, flag;
    ngx_http_ai_json_t  *j;

    j = r->json;

    if (j->nodes[n].type != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_anthropic_bad(r, "", "Input should be an object",
                                         NULL);
    }

    v = ngx_http_ai_json_member(j, n, "type");

    if (ngx_http_ai_json_type(j, v) != NGX_HTTP_AI_JSON_NULL) {
        rc = ngx_http_ai_anthropic_word(r, v, "type", &type);
        if (rc != NGX_OK) {
            return rc;
        }

        if (!ngx_http_ai_str_is(&type, "custom")) {
            return ngx_http_ai_anthropic_bad(r, "type",
                "the provider that serves this model has no tools of type",
                &type);
        }
    }

    rc = ngx_http_ai_anthropic_string(r, ngx_http_ai_json_member(j, n, "name"),
                                      "name", 2, &tool->name);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_anthropic_string(r,
                                ngx_http_ai_json_member(j, n, "description"),
                                "description", 0, &tool->description);
    if (rc != NGX_OK) {
        return rc;
    }

    v = ngx_http_ai_json_member(j, n, "input_schema");

    switch (ngx_http_ai_json_type(j, v)) {

    case NGX_HTTP_AI_JSON_NULL:
        break;

    case NGX_HTTP_AI_JSON_OBJECT:
        tool->schema = ngx_http_ai_json_raw(j, v);
        break;

    default:
        return ngx_http_ai_anthropic_bad(r, "input_schema",
                                         "Input should be an object", NULL);
    }

    v = ngx_http_ai_json_member(j, n, "strict");
    flag = ngx_http_ai_json_flag(j, v);

    if (flag == 3) {
        return ngx_http_ai_anthropic_bad(r, "strict",
                                         "Input should be a valid boolean",
                                         NULL);
    }

    tool->strict = flag;

    ngx_http_ai_anthropic_mark(j, n, &cached, &tool->cache);
    tool->cached = cached;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_choice(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n)
{
    ngx_int_t               rc;
    ngx_str_t               type, *name;
    ngx_uint_t              disable;
    ngx_http_ai_tool_t     *tool;
    ngx_http_ai_json_t     *j;
    ngx_http_ai_request_t  *req;

    j = r->json;
    req = r->req;

    if (n == NGX_HTTP_AI_JSON_NONE) {
        return NGX_OK;
    }

    if (j->nodes[n].type != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_anthropic_bad(r, "tool_choice",
                                         "Input should be an object", NULL);
    }

    rc = ngx_http_ai_anthropic_word(r, ngx_http_ai_json_member(j, n, "type"),
                                    "tool_choice.type", &type);
    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_http_ai_str_is(&type, "auto")) {
        req->choice = NGX_HTTP_AI_CHOICE_AUTO;

    } else if (ngx_http_ai_str_is(&type, "none")) {
        req->choice = NGX_HTTP_AI_CHOICE_NONE;

    } else if (ngx_http_ai_str_is(&type, "any")) {
        req->choice = NGX_HTTP_AI_CHOICE_REQUIRED;

    } else if (ngx_http_ai_str_is(&type, "tool")) {
        req->choice = NGX_HTTP_AI_CHOICE_NAMED;
        name = &req->choice_name;

        rc = ngx_http_ai_anthropic_string(r,
                                       ngx_http_ai_json_member(j, n, "name"),
                                       "tool_choice.name", 2, name);
        if (rc != NGX_OK) {
            return rc;
        }

        for (tool = req->tools; tool; tool = tool->next) {
            if (tool->name.len == name->len
                && ngx_memcmp(tool->name.data, name->data, name->len) == 0)
            {
                break;
            }
        }

        if (tool == NULL) {
            return ngx_http_ai_anthropic_bad(r, "tool_choice.name",
                                             "no tool has the name", name);
        }

    } else {
        return ngx_http_ai_anthropic_bad(r, "tool_choice.type",
                                         "unsupported type", &type);
    }

    rc = ngx_http_ai_anthropic_flag(r,
                  ngx_http_ai_json_member(j, n, "disable_parallel_tool_use"),
                  "tool_choice.disable_parallel_tool_use", &disable);
    if (rc != NGX_OK) {
        return rc;
    }

    if (req->tools == NULL) {

        if (req->choice == NGX_HTTP_AI_CHOICE_REQUIRED) {
            return ngx_http_ai_anthropic_bad(r, "tool_choice",
                                "may only be specified while providing tools",
                                NULL);
        }

        req->choice = NGX_HTTP_AI_CHOICE_ABSENT;

        return NGX_OK;
    }

    if (disable) {
        req->parallel = 1;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_thinking(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n)
{
    ngx_int_t               rc;
    ngx_str_t               type;
    ngx_uint_t              v;
    ngx_http_ai_json_t     *j;
    ngx_http_ai_request_t  *req;

    j = r->json;
    req = r->req;

    if (n == NGX_HTTP_AI_JSON_NONE) {
        return NGX_OK;
    }

    if (j->nodes[n].type != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_anthropic_bad(r, "thinking",
                                         "Input should be an object", NULL);
    }

    rc = ngx_http_ai_anthropic_word(r, ngx_http_ai_json_member(j, n, "type"),
                                    "thinking.type", &type);
    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_http_ai_str_is(&type, "disabled")) {
        req->thinking = 1;
        return NGX_OK;
    }

    if (ngx_http_ai_str_is(&type, "adaptive")
        || ngx_http_ai_str_is(&type, "between_tools"))
    {
        req->thinking = 3;
        return NGX_OK;
    }

    if (!ngx_http_ai_str_is(&type, "enabled")) {
        return ngx_http_ai_anthropic_bad(r, "thinking.type",
                                         "unsupported type", &type);
    }

    req->thinking = 2;

    v = ngx_http_ai_json_member(j, n, "budget_tokens");

    if (ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_NULL) {
        return ngx_http_ai_anthropic_bad(r, "thinking.budget_tokens",
                                         "Field required", NULL);
    }

    return ngx_http_ai_anthropic_integer(r, v, "thinking.budget_tokens",
                                         &req->thinking_budget);
}


static ngx_int_t
ngx_http_ai_anthropic_output(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n)
{
    ngx_int_t               rc;
    ngx_str_t               s;
    ngx_uint_t              v;
    ngx_http_ai_json_t     *j;
    ngx_http_ai_request_t  *req;

    j = r->json;
    req = r->req;

    if (n == NGX_HTTP_AI_JSON_NONE) {
        return NGX_OK;
    }

    if (j->nodes[n].type != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_anthropic_bad(r, "output_config",
                                         "Input should be an object", NULL);
    }

    v = ngx_http_ai_json_member(j, n, "effort");

    if (ngx_http_ai_json_type(j, v) != NGX_HTTP_AI_JSON_NULL) {
        rc = ngx_http_ai_anthropic_word(r, v, "output_config.effort", &s);
        if (rc != NGX_OK) {
            return rc;
        }

        if (ngx_http_ai_str_is(&s, "low")) {
            req->effort = NGX_HTTP_AI_EFFORT_LOW;

        } else if (ngx_http_ai_str_is(&s, "medium")) {
            req->effort = NGX_HTTP_AI_EFFORT_MEDIUM;

        } else if (ngx_http_ai_str_is(&s, "high")) {
            req->effort = NGX_HTTP_AI_EFFORT_HIGH;

        } else if (ngx_http_ai_str_is(&s, "xhigh")) {
            req->effort = NGX_HTTP_AI_EFFORT_XHIGH;

        } else if (ngx_http_ai_str_is(&s, "max")) {
            req->effort = NGX_HTTP_AI_EFFORT_MAX;

        } else {
            return ngx_http_ai_anthropic_bad(r, "output_config.effort",
                                             "unknown value", &s);
        }
    }

    v = ngx_http_ai_json_member(j, n, "format");

    if (ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_NULL) {
        return NGX_OK;
    }

    return ngx_http_ai_anthropic_format(r, v, "output_config.format");
}


static ngx_int_t
ngx_http_ai_anthropic_format(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n,
    const char *name)
{
    ngx_int_t            rc;
    ngx_str_t            type;
    ngx_uint_t           v;
    ngx_http_ai_json_t  *j;

    j = r->json;

    if (j->nodes[n].type != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_anthropic_bad(r, name, "Input should be an object",
                                         NULL);
    }

    rc = ngx_http_ai_anthropic_word(r, ngx_http_ai_json_member(j, n, "type"),
                                    name, &type);
    if (rc != NGX_OK) {
        return rc;
    }

    if (!ngx_http_ai_str_is(&type, "json_schema")) {
        return ngx_http_ai_anthropic_bad(r, name, "unsupported type", &type);
    }

    v = ngx_http_ai_json_member(j, n, "schema");

    if (ngx_http_ai_json_type(j, v) != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_anthropic_bad(r, name,
                                         "must have a schema object", NULL);
    }

    r->req->format = NGX_HTTP_AI_FORMAT_SCHEMA;
    r->req->schema = ngx_http_ai_json_raw(j, v);

    /* the dialect's schemas are always enforced */

    r->req->schema_strict = 2;

    return NGX_OK;
}


void
ngx_http_ai_anthropic_mark(ngx_http_ai_json_t *j, ngx_uint_t n,
    unsigned *cached, ngx_str_t *cache)
{
    ngx_uint_t  v;

    *cached = 0;
    ngx_str_null(cache);

    v = ngx_http_ai_json_member(j, n, "cache_control");

    if (ngx_http_ai_json_type(j, v) != NGX_HTTP_AI_JSON_OBJECT) {
        return;
    }

    *cached = 1;
    ngx_str_set(cache, "");

    v = ngx_http_ai_json_member(j, v, "ttl");

    if (ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_STRING) {
        *cache = ngx_http_ai_json_value(j, v);
    }
}


/* a mark on the request is one on its last block */

static void
ngx_http_ai_anthropic_auto_mark(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n)
{
    ngx_str_t            cache;
    ngx_uint_t           v;
    ngx_http_ai_part_t  *part;
    ngx_http_ai_turn_t  *turn;

    if (ngx_http_ai_json_type(r->json, n) != NGX_HTTP_AI_JSON_OBJECT) {
        return;
    }

    ngx_str_set(&cache, "");

    v = ngx_http_ai_json_member(r->json, n, "ttl");

    if (ngx_http_ai_json_type(r->json, v) == NGX_HTTP_AI_JSON_STRING) {
        cache = ngx_http_ai_json_value(r->json, v);
    }

    for (turn = r->req->turns; turn && turn->next; turn = turn->next) {
        /* void */
    }

    if (turn == NULL || turn->parts == NULL) {
        return;
    }

    for (part = turn->parts; part->next; part = part->next) { /* void */ }

    if (!part->cached) {
        part->cached = 1;
        part->cache = cache;
    }
}


void
ngx_http_ai_anthropic_encode_error(ngx_http_ai_out_t *out,
    ngx_http_ai_error_t *err, ngx_uint_t same)
{
    char       *type;
    ngx_str_t  *name;

    type = "api_error";

    if ((ngx_uint_t) err->class < NGX_HTTP_AI_ERR_MAX) {
        type = ngx_http_ai_anthropic_errors[err->class];
    }

    if (!same && err->class == NGX_HTTP_AI_ERR_OVERLOADED
        && err->status == 503)
    {
        /* the status of this type, which client libraries look at */
        err->status = 529;
    }

    /* a key that a provider refuses is the gateway's, not the client's */

    if (err->class == NGX_HTTP_AI_ERR_AUTH && err->status >= 500) {
        type = "api_error";
    }

    ngx_http_ai_out_lit(out, "{\"type\":\"error\",\"error\":{\"type\":\"");

    if (same && err->status < 500 && err->type.len) {
        ngx_http_ai_out_escaped(out, err->type.data, err->type.len);

    } else {
        ngx_http_ai_out_mem(out, type, ngx_strlen(type));
    }

    ngx_http_ai_out_lit(out, "\",\"message\":\"");

    /* clients look for these words to make their history shorter */

    if (err->class == NGX_HTTP_AI_ERR_CONTEXT_LENGTH
        && (err->message.len == 0
            || ngx_strlcasestrn(err->message.data,
                                err->message.data + err->message.len,
                                (u_char *) "prompt is too long",
                                sizeof("prompt is too long") - 2)
               == NULL))
    {
        ngx_http_ai_out_lit(out, "prompt is too long: ");
    }

    if (err->message.len) {
        ngx_http_ai_out_escaped(out, err->message.data, err->message.len);

    } else {
        name = ngx_http_ai_err_name(err->class);
        ngx_http_ai_out_str(out, name);
    }

    if (err->code.len
        && ((same && err->status < 500)
            || ngx_http_ai_str_is(&err->code, "thread_unsupported_request")))
    {
        ngx_http_ai_out_lit(out, "\",\"details\":{\"error_code\":\"");
        ngx_http_ai_out_escaped(out, err->code.data, err->code.len);
        ngx_http_ai_out_lit(out, "\"}},\"request_id\":");

    } else {
        ngx_http_ai_out_lit(out, "\"},\"request_id\":");
    }

    if (err->request_id.len) {
        ngx_http_ai_out_lit(out, "\"");
        ngx_http_ai_out_escaped(out, err->request_id.data,
                                err->request_id.len);
        ngx_http_ai_out_lit(out, "\"}");

    } else {
        ngx_http_ai_out_lit(out, "null}");
    }
}


void
ngx_http_ai_anthropic_encode_stream_error(ngx_http_ai_out_t *out,
    ngx_http_ai_error_t *err)
{
    ngx_http_ai_out_lit(out, "event: error\ndata: ");
    ngx_http_ai_anthropic_encode_error(out, err, 0);
    ngx_http_ai_out_lit(out, "\n\n");
}


static void
ngx_http_ai_anthropic_encode_models(ngx_http_ai_out_t *out, ngx_str_t *names,
    ngx_uint_t n, time_t created, ngx_uint_t one)
{
    ngx_uint_t  i;

    if (one) {
        ngx_http_ai_anthropic_model(out, &names[0], created);
        return;
    }

    ngx_http_ai_out_lit(out, "{\"data\":[");

    for (i = 0; i < n; i++) {
        if (i) {
            ngx_http_ai_out_lit(out, ",");
        }

        ngx_http_ai_anthropic_model(out, &names[i], created);
    }

    if (n == 0) {
        ngx_http_ai_out_lit(out, "],\"has_more\":false,\"first_id\":null,"
                                 "\"last_id\":null}");
        return;
    }

    ngx_http_ai_out_lit(out, "],\"has_more\":false,\"first_id\":\"");
    ngx_http_ai_out_escaped(out, names[0].data, names[0].len);
    ngx_http_ai_out_lit(out, "\",\"last_id\":\"");
    ngx_http_ai_out_escaped(out, names[n - 1].data, names[n - 1].len);
    ngx_http_ai_out_lit(out, "\"}");
}


static void
ngx_http_ai_anthropic_model(ngx_http_ai_out_t *out, ngx_str_t *name,
    time_t created)
{
    ngx_http_ai_out_lit(out, "{\"type\":\"model\",\"id\":\"");
    ngx_http_ai_out_escaped(out, name->data, name->len);
    ngx_http_ai_out_lit(out, "\",\"display_name\":\"");
    ngx_http_ai_out_escaped(out, name->data, name->len);
    ngx_http_ai_out_lit(out, "\",\"created_at\":\"");
    ngx_http_ai_anthropic_time(out, created);
    ngx_http_ai_out_lit(out, "\"}");
}


/* RFC 3339; the date as in ngx_gmtime(), which needs nginx's clock */

static void
ngx_http_ai_anthropic_time(ngx_http_ai_out_t *out, time_t t)
{
    u_char     *p, buf[64];
    ngx_int_t   days, sec, era, doe, yoe, doy, mp, year, mon, day;

    if (t < 0) {
        t = 0;
    }

    days = (ngx_int_t) (t / 86400) + 719468;
    sec = (ngx_int_t) (t % 86400);

    era = days / 146097;
    doe = days % 146097;
    yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    mp = (5 * doy + 2) / 153;

    day = doy - (153 * mp + 2) / 5 + 1;
    mon = (mp < 10) ? mp + 3 : mp - 9;
    year = yoe + era * 400 + (mon <= 2 ? 1 : 0);

    p = ngx_snprintf(buf, sizeof(buf), "%04i-%02i-%02iT%02i:%02i:%02iZ",
                     year, mon, day, sec / 3600, (sec / 60) % 60, sec % 60);

    ngx_http_ai_out_mem(out, buf, p - buf);
}
