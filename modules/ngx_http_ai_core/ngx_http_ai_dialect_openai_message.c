
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_dialect.h"
#include "ngx_http_ai_dialect_openai.h"


/* parts that the content of a message may have */

#define NGX_HTTP_AI_OPENAI_TEXT          0x01
#define NGX_HTTP_AI_OPENAI_MEDIA         0x02
#define NGX_HTTP_AI_OPENAI_REFUSAL       0x04


static ngx_int_t ngx_http_ai_openai_message(ngx_http_ai_openai_req_t *r,
    ngx_uint_t n);
static ngx_int_t ngx_http_ai_openai_said(ngx_http_ai_openai_req_t *r,
    ngx_uint_t n, ngx_http_ai_part_t ***last);
static ngx_int_t ngx_http_ai_openai_assistant(ngx_http_ai_openai_req_t *r,
    ngx_uint_t n, ngx_http_ai_part_t ***last);
static ngx_int_t ngx_http_ai_openai_tool_call(ngx_http_ai_openai_req_t *r,
    ngx_uint_t n, ngx_http_ai_part_t ***last);
static ngx_int_t ngx_http_ai_openai_arguments(ngx_http_ai_openai_req_t *r,
    ngx_uint_t n, const char *name, ngx_http_ai_part_t *part);
static ngx_int_t ngx_http_ai_openai_content(ngx_http_ai_openai_req_t *r,
    ngx_uint_t n, ngx_uint_t allowed, ngx_http_ai_part_t ***last);
static ngx_int_t ngx_http_ai_openai_part(ngx_http_ai_openai_req_t *r,
    ngx_uint_t n, ngx_uint_t allowed, ngx_http_ai_part_t ***last);
static ngx_int_t ngx_http_ai_openai_thinking(ngx_http_ai_openai_req_t *r,
    ngx_uint_t n, ngx_http_ai_part_t ***last);
static ngx_http_ai_part_t *ngx_http_ai_openai_new_part(
    ngx_http_ai_openai_req_t *r, ngx_http_ai_part_e type,
    ngx_http_ai_part_t ***last);
static ngx_int_t ngx_http_ai_openai_image(ngx_http_ai_openai_req_t *r,
    ngx_uint_t n, ngx_http_ai_part_t *part);
static ngx_int_t ngx_http_ai_openai_audio(ngx_http_ai_openai_req_t *r,
    ngx_uint_t n, ngx_http_ai_part_t *part);
static ngx_int_t ngx_http_ai_openai_file(ngx_http_ai_openai_req_t *r,
    ngx_uint_t n, ngx_http_ai_part_t *part);
static ngx_int_t ngx_http_ai_openai_url(ngx_http_ai_openai_req_t *r,
    ngx_uint_t n, const char *name, ngx_http_ai_part_t *part);


ngx_int_t
ngx_http_ai_openai_messages(ngx_http_ai_openai_req_t *r)
{
    ngx_int_t   rc;
    ngx_uint_t  i;

    if (ngx_http_ai_json_type(r->json, r->messages)
        != NGX_HTTP_AI_JSON_ARRAY)
    {
        return ngx_http_ai_openai_bad(r, "messages",
                           (r->messages == NGX_HTTP_AI_JSON_NONE)
                           ? "is required" : "must be an array", NULL);
    }

    i = ngx_http_ai_json_first(r->json, r->messages);

    if (i == NGX_HTTP_AI_JSON_NONE) {
        return ngx_http_ai_openai_bad(r, "messages", "must not be empty",
                                      NULL);
    }

    r->list = "messages";
    r->index = 0;

    for ( /* void */ ;
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(r->json, r->messages, i))
    {
        r->sublist = NULL;

        rc = ngx_http_ai_openai_message(r, i);
        if (rc != NGX_OK) {
            return rc;
        }

        r->index++;
    }

    r->list = NULL;
    r->sublist = NULL;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_openai_message(ngx_http_ai_openai_req_t *r, ngx_uint_t n)
{
    unsigned              cached;
    ngx_int_t             rc;
    ngx_str_t             role, cache, id, name;
    ngx_uint_t            v, content, allowed, type, plain;
    ngx_http_ai_part_t   *part, **last;
    ngx_http_ai_turn_t   *turn;
    ngx_http_ai_json_t   *j;

    j = r->json;

    if (j->nodes[n].type != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_openai_bad(r, "", "must be an object", NULL);
    }

    ngx_str_null(&role);
    ngx_str_null(&name);

    v = ngx_http_ai_json_member(j, n, "role");

    rc = ngx_http_ai_openai_string(r, v, "role", &role);
    if (rc != NGX_OK) {
        return rc;
    }

    if (role.data == NULL) {
        return ngx_http_ai_openai_bad(r, "role", "is required", NULL);
    }

    content = ngx_http_ai_json_member(j, n, "content");

    /* most have nothing else, which need not be looked for then */

    plain = (content != NGX_HTTP_AI_JSON_NONE && j->nodes[n].count == 2);

    if (!plain) {
        v = ngx_http_ai_json_member(j, n, "name");

        rc = ngx_http_ai_openai_string(r, v, "name", &name);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    turn = ngx_pcalloc(r->codec->pool, sizeof(ngx_http_ai_turn_t));
    if (turn == NULL) {
        return NGX_ERROR;
    }

    *r->turn = turn;
    r->turn = &turn->next;

    turn->name = name;
    last = &turn->parts;

    type = ngx_http_ai_json_type(j, content);
    allowed = NGX_HTTP_AI_OPENAI_TEXT;

    if (ngx_http_ai_str_is(&role, "user")) {
        turn->role = NGX_HTTP_AI_ROLE_USER;
        allowed |= NGX_HTTP_AI_OPENAI_MEDIA;

    } else if (ngx_http_ai_str_is(&role, "assistant")) {
        turn->role = NGX_HTTP_AI_ROLE_ASSISTANT;

        if (plain) {
            return ngx_http_ai_openai_said(r, content, &last);
        }

        rc = ngx_http_ai_openai_assistant(r, n, &last);
        if (rc != NGX_OK) {
            return rc;
        }

        goto mark;

    } else if (ngx_http_ai_str_is(&role, "system")) {
        turn->role = NGX_HTTP_AI_ROLE_SYSTEM;

    } else if (ngx_http_ai_str_is(&role, "developer")) {
        turn->role = NGX_HTTP_AI_ROLE_DEVELOPER;

    } else if (ngx_http_ai_str_is(&role, "tool")
               || ngx_http_ai_str_is(&role, "function"))
    {
        turn->role = NGX_HTTP_AI_ROLE_TOOL;
        ngx_str_null(&turn->name);

        part = ngx_http_ai_openai_new_part(r, NGX_HTTP_AI_PART_TOOL_RESULT,
                                           &last);
        if (part == NULL) {
            return NGX_ERROR;
        }

        part->name = name;

        if (role.len == sizeof("tool") - 1) {
            ngx_str_null(&id);

            rc = ngx_http_ai_openai_string(r,
                              ngx_http_ai_json_member(j, n, "tool_call_id"),
                              "tool_call_id", &id);
            if (rc != NGX_OK) {
                return rc;
            }

            if (id.len == 0) {
                return ngx_http_ai_openai_bad(r, "tool_call_id",
                                              "is required", NULL);
            }

            part->id = id;

        } else {
            if (r->function_id.len == 0) {
                return ngx_http_ai_openai_bad(r, "role",
                    "\"function\" must follow a message with function_call",
                    NULL);
            }

            part->id = r->function_id;
            ngx_str_null(&r->function_id);
        }

        ngx_http_ai_openai_mark(r, n, &cached, &cache);
        part->cached = cached;
        part->cache = cache;

        last = &part->parts;

        if (type == NGX_HTTP_AI_JSON_NULL) {
            return NGX_OK;
        }

        return ngx_http_ai_openai_content(r, content,
                      NGX_HTTP_AI_OPENAI_TEXT|NGX_HTTP_AI_OPENAI_MEDIA, &last);

    } else {
        return ngx_http_ai_openai_bad(r, "role", "unknown role", &role);
    }

    if (type == NGX_HTTP_AI_JSON_NULL) {
        return ngx_http_ai_openai_bad(r, "content", "is required", NULL);
    }

    rc = ngx_http_ai_openai_content(r, content, allowed, &last);
    if (rc != NGX_OK) {
        return rc;
    }

    if (turn->parts == NULL) {
        r->sublist = NULL;
        return ngx_http_ai_openai_bad(r, "content", "must not be empty", NULL);
    }

    if (plain) {
        return NGX_OK;
    }

mark:

    /* a mark on the message is one on its last part */

    ngx_http_ai_openai_mark(r, n, &cached, &cache);

    if (cached) {
        for (part = turn->parts; part; part = part->next) {
            if (part->next == NULL) {
                part->cached = 1;
                part->cache = cache;
            }
        }
    }

    return NGX_OK;
}


/* the content of an answer, which may have none */

static ngx_int_t
ngx_http_ai_openai_said(ngx_http_ai_openai_req_t *r, ngx_uint_t n,
    ngx_http_ai_part_t ***last)
{
    if (ngx_http_ai_json_type(r->json, n) == NGX_HTTP_AI_JSON_NULL) {
        return NGX_OK;
    }

    return ngx_http_ai_openai_content(r, n, NGX_HTTP_AI_OPENAI_TEXT
                                            |NGX_HTTP_AI_OPENAI_REFUSAL,
                                      last);
}


static ngx_int_t
ngx_http_ai_openai_assistant(ngx_http_ai_openai_req_t *r, ngx_uint_t n,
    ngx_http_ai_part_t ***last)
{
    ngx_int_t            rc;
    ngx_str_t            s, signature;
    ngx_uint_t           i, v;
    ngx_http_ai_part_t  *part;
    ngx_http_ai_json_t  *j;

    j = r->json;

    if (ngx_http_ai_json_type(j, ngx_http_ai_json_member(j, n, "audio"))
        != NGX_HTTP_AI_JSON_NULL)
    {
        return ngx_http_ai_openai_bad(r, "audio",
                "is not supported by the provider that serves this model",
                NULL);
    }

    /* what the model thought, which clients may send back */

    ngx_str_null(&s);
    ngx_str_null(&signature);

    v = ngx_http_ai_json_member(j, n, "reasoning_content");

    if (ngx_http_ai_json_type(j, v) != NGX_HTTP_AI_JSON_STRING) {
        v = ngx_http_ai_json_member(j, n, "reasoning");
    }

    if (ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_STRING) {
        s = ngx_http_ai_json_raw(j, v);
    }

    v = ngx_http_ai_json_member(j, n, "reasoning_signature");

    if (ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_STRING) {
        signature = ngx_http_ai_json_raw(j, v);
    }

    if (s.len || signature.len) {
        part = ngx_http_ai_openai_new_part(r, NGX_HTTP_AI_PART_REASONING,
                                           last);
        if (part == NULL) {
            return NGX_ERROR;
        }

        if (s.data == NULL) {
            ngx_str_set(&s, "");
        }

        part->text = s;
        part->signature = signature;
    }

    v = ngx_http_ai_json_member(j, n, "reasoning_redacted");

    if (ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_ARRAY) {

        for (i = ngx_http_ai_json_first(j, v);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, v, i))
        {
            if (j->nodes[i].type != NGX_HTTP_AI_JSON_STRING) {
                continue;
            }

            part = ngx_http_ai_openai_new_part(r, NGX_HTTP_AI_PART_REDACTED,
                                               last);
            if (part == NULL) {
                return NGX_ERROR;
            }

            part->data = ngx_http_ai_json_raw(j, i);
        }
    }

    v = ngx_http_ai_json_member(j, n, "content");

    rc = ngx_http_ai_openai_said(r, v, last);
    if (rc != NGX_OK) {
        return rc;
    }

    r->sublist = NULL;
    ngx_str_null(&s);

    rc = ngx_http_ai_openai_string(r, ngx_http_ai_json_member(j, n, "refusal"),
                                   "refusal", &s);
    if (rc != NGX_OK) {
        return rc;
    }

    if (s.len) {
        part = ngx_http_ai_openai_new_part(r, NGX_HTTP_AI_PART_REFUSAL, last);
        if (part == NULL) {
            return NGX_ERROR;
        }

        part->text = s;
    }

    v = ngx_http_ai_json_member(j, n, "tool_calls");

    switch (ngx_http_ai_json_type(j, v)) {

    case NGX_HTTP_AI_JSON_NULL:
        break;

    case NGX_HTTP_AI_JSON_ARRAY:

        r->sublist = "tool_calls";
        r->subindex = 0;

        for (i = ngx_http_ai_json_first(j, v);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, v, i))
        {
            rc = ngx_http_ai_openai_tool_call(r, i, last);
            if (rc != NGX_OK) {
                return rc;
            }

            r->subindex++;
        }

        r->sublist = NULL;

        break;

    default:
        return ngx_http_ai_openai_bad(r, "tool_calls", "must be an array",
                                      NULL);
    }

    v = ngx_http_ai_json_member(j, n, "function_call");

    if (ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_NULL) {
        return NGX_OK;
    }

    if (j->nodes[v].type != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_openai_bad(r, "function_call", "must be an object",
                                      NULL);
    }

    part = ngx_http_ai_openai_new_part(r, NGX_HTTP_AI_PART_TOOL_CALL, last);
    if (part == NULL) {
        return NGX_ERROR;
    }

    part->id.data = ngx_pnalloc(r->codec->pool,
                                sizeof("call_function_") - 1 + NGX_INT_T_LEN);
    if (part->id.data == NULL) {
        return NGX_ERROR;
    }

    part->id.len = ngx_sprintf(part->id.data, "call_function_%ui", r->index)
                   - part->id.data;

    r->function_id = part->id;

    rc = ngx_http_ai_openai_string(r, ngx_http_ai_json_member(j, v, "name"),
                                   "function_call.name", &part->name);
    if (rc != NGX_OK) {
        return rc;
    }

    if (part->name.len == 0) {
        return ngx_http_ai_openai_bad(r, "function_call.name", "is required",
                                      NULL);
    }

    return ngx_http_ai_openai_arguments(r,
                                 ngx_http_ai_json_member(j, v, "arguments"),
                                 "function_call.arguments", part);
}


static ngx_int_t
ngx_http_ai_openai_tool_call(ngx_http_ai_openai_req_t *r, ngx_uint_t n,
    ngx_http_ai_part_t ***last)
{
    ngx_int_t            rc;
    ngx_str_t            type;
    ngx_uint_t           f;
    ngx_http_ai_part_t  *part;
    ngx_http_ai_json_t  *j;

    j = r->json;

    if (j->nodes[n].type != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_openai_bad(r, "", "must be an object", NULL);
    }

    part = ngx_http_ai_openai_new_part(r, NGX_HTTP_AI_PART_TOOL_CALL, last);
    if (part == NULL) {
        return NGX_ERROR;
    }

    ngx_str_set(&type, "function");

    rc = ngx_http_ai_openai_string(r, ngx_http_ai_json_member(j, n, "type"),
                                   "type", &type);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_openai_string(r, ngx_http_ai_json_member(j, n, "id"),
                                   "id", &part->id);
    if (rc != NGX_OK) {
        return rc;
    }

    if (part->id.len == 0) {
        return ngx_http_ai_openai_bad(r, "id", "is required", NULL);
    }

    if (ngx_http_ai_str_is(&type, "custom")) {
        f = ngx_http_ai_json_member(j, n, "custom");
        part->custom = 1;

        rc = ngx_http_ai_openai_string(r,
                                       ngx_http_ai_json_member(j, f, "name"),
                                       "custom.name", &part->name);
        if (rc != NGX_OK) {
            return rc;
        }

        if (part->name.len == 0) {
            return ngx_http_ai_openai_bad(r, "custom.name", "is required",
                                          NULL);
        }

        ngx_str_set(&part->args_text, "");

        return ngx_http_ai_openai_string(r,
                                      ngx_http_ai_json_member(j, f, "input"),
                                      "custom.input", &part->args_text);
    }

    if (!ngx_http_ai_str_is(&type, "function")) {
        return ngx_http_ai_openai_bad(r, "type", "unsupported type", &type);
    }

    f = ngx_http_ai_json_member(j, n, "function");

    rc = ngx_http_ai_openai_string(r, ngx_http_ai_json_member(j, f, "name"),
                                   "function.name", &part->name);
    if (rc != NGX_OK) {
        return rc;
    }

    if (part->name.len == 0) {
        return ngx_http_ai_openai_bad(r, "function.name", "is required", NULL);
    }

    return ngx_http_ai_openai_arguments(r,
                                 ngx_http_ai_json_member(j, f, "arguments"),
                                 "function.arguments", part);
}


static ngx_int_t
ngx_http_ai_openai_arguments(ngx_http_ai_openai_req_t *r, ngx_uint_t n,
    const char *name, ngx_http_ai_part_t *part)
{
    switch (ngx_http_ai_json_type(r->json, n)) {

    case NGX_HTTP_AI_JSON_NULL:
        ngx_str_set(&part->args_text, "");
        return NGX_OK;

    case NGX_HTTP_AI_JSON_STRING:
        part->args_text = ngx_http_ai_json_raw(r->json, n);
        return NGX_OK;

    case NGX_HTTP_AI_JSON_OBJECT:
        part->args = ngx_http_ai_json_raw(r->json, n);
        return NGX_OK;

    default:
        return ngx_http_ai_openai_bad(r, name, "must be a string", NULL);
    }
}


static ngx_int_t
ngx_http_ai_openai_content(ngx_http_ai_openai_req_t *r, ngx_uint_t n,
    ngx_uint_t allowed, ngx_http_ai_part_t ***last)
{
    ngx_int_t            rc;
    ngx_uint_t           i;
    ngx_http_ai_part_t  *part;
    ngx_http_ai_json_t  *j;

    j = r->json;

    switch (j->nodes[n].type) {

    case NGX_HTTP_AI_JSON_STRING:

        part = ngx_http_ai_openai_new_part(r, NGX_HTTP_AI_PART_TEXT, last);
        if (part == NULL) {
            return NGX_ERROR;
        }

        part->text = ngx_http_ai_json_raw(j, n);

        return NGX_OK;

    case NGX_HTTP_AI_JSON_ARRAY:
        break;

    default:
        return ngx_http_ai_openai_bad(r, "content",
                                      "must be a string or an array of parts",
                                      NULL);
    }

    r->sublist = "content";
    r->subindex = 0;

    for (i = ngx_http_ai_json_first(j, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, n, i))
    {
        rc = ngx_http_ai_openai_part(r, i, allowed, last);
        if (rc != NGX_OK) {
            return rc;
        }

        r->subindex++;
    }

    r->sublist = NULL;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_openai_part(ngx_http_ai_openai_req_t *r, ngx_uint_t n,
    ngx_uint_t allowed, ngx_http_ai_part_t ***last)
{
    unsigned             cached;
    ngx_int_t            rc;
    ngx_str_t            type, cache;
    const char          *name;
    ngx_uint_t           media;
    ngx_http_ai_part_t  *part;
    ngx_http_ai_json_t  *j;

    j = r->json;

    if (j->nodes[n].type == NGX_HTTP_AI_JSON_STRING) {
        part = ngx_http_ai_openai_new_part(r, NGX_HTTP_AI_PART_TEXT, last);
        if (part == NULL) {
            return NGX_ERROR;
        }

        part->text = ngx_http_ai_json_raw(j, n);

        return NGX_OK;
    }

    if (j->nodes[n].type != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_openai_bad(r, "", "must be an object", NULL);
    }

    ngx_str_null(&type);

    rc = ngx_http_ai_openai_string(r, ngx_http_ai_json_member(j, n, "type"),
                                   "type", &type);
    if (rc != NGX_OK) {
        return rc;
    }

    if (type.data == NULL) {
        return ngx_http_ai_openai_bad(r, "type", "is required", NULL);
    }

    if (ngx_http_ai_str_is(&type, "thinking")
        && (allowed & NGX_HTTP_AI_OPENAI_REFUSAL))
    {
        return ngx_http_ai_openai_thinking(r,
                                   ngx_http_ai_json_member(j, n, "thinking"),
                                   last);
    }

    part = ngx_http_ai_openai_new_part(r, NGX_HTTP_AI_PART_TEXT, last);
    if (part == NULL) {
        return NGX_ERROR;
    }

    ngx_http_ai_openai_mark(r, n, &cached, &cache);
    part->cached = cached;
    part->cache = cache;

    media = 0;

    if (ngx_http_ai_str_is(&type, "text")) {
        name = "text";

    } else if (ngx_http_ai_str_is(&type, "refusal")
               && (allowed & NGX_HTTP_AI_OPENAI_REFUSAL))
    {
        part->type = NGX_HTTP_AI_PART_REFUSAL;
        name = "refusal";

    } else if (ngx_http_ai_str_is(&type, "image_url")) {
        part->type = NGX_HTTP_AI_PART_IMAGE;
        name = "image_url";
        media = 1;

    } else if (ngx_http_ai_str_is(&type, "input_audio")) {
        part->type = NGX_HTTP_AI_PART_AUDIO;
        name = "input_audio";
        media = 1;

    } else if (ngx_http_ai_str_is(&type, "file")) {
        part->type = NGX_HTTP_AI_PART_FILE;
        name = "file";
        media = 1;

    } else {
        return ngx_http_ai_openai_bad(r, "type",
                                      "unsupported type of content", &type);
    }

    if (media && !(allowed & NGX_HTTP_AI_OPENAI_MEDIA)) {
        return ngx_http_ai_openai_bad(r, "type",
                                 "a message of this role cannot have", &type);
    }

    n = ngx_http_ai_json_get(j, n, name, ngx_strlen(name));

    switch (part->type) {

    case NGX_HTTP_AI_PART_IMAGE:
        return ngx_http_ai_openai_image(r, n, part);

    case NGX_HTTP_AI_PART_AUDIO:
        return ngx_http_ai_openai_audio(r, n, part);

    case NGX_HTTP_AI_PART_FILE:
        return ngx_http_ai_openai_file(r, n, part);

    default:
        break;
    }

    rc = ngx_http_ai_openai_string(r, n, name, &part->text);
    if (rc != NGX_OK) {
        return rc;
    }

    if (part->text.data == NULL) {
        return ngx_http_ai_openai_bad(r, name, "is required", NULL);
    }

    return NGX_OK;
}


/* Mistral's: thoughts among the assistant's content */

static ngx_int_t
ngx_http_ai_openai_thinking(ngx_http_ai_openai_req_t *r, ngx_uint_t n,
    ngx_http_ai_part_t ***last)
{
    ngx_uint_t           i, v;
    ngx_http_ai_part_t  *part;
    ngx_http_ai_json_t  *j;

    j = r->json;

    if (ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_STRING) {
        part = ngx_http_ai_openai_new_part(r, NGX_HTTP_AI_PART_REASONING,
                                           last);
        if (part == NULL) {
            return NGX_ERROR;
        }

        part->text = ngx_http_ai_json_raw(j, n);

        return NGX_OK;
    }

    for (i = ngx_http_ai_json_first(j, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, n, i))
    {
        v = ngx_http_ai_json_member(j, i, "text");

        if (ngx_http_ai_json_type(j, v) != NGX_HTTP_AI_JSON_STRING) {
            continue;
        }

        part = ngx_http_ai_openai_new_part(r, NGX_HTTP_AI_PART_REASONING,
                                           last);
        if (part == NULL) {
            return NGX_ERROR;
        }

        part->text = ngx_http_ai_json_raw(j, v);
    }

    return NGX_OK;
}


static ngx_http_ai_part_t *
ngx_http_ai_openai_new_part(ngx_http_ai_openai_req_t *r,
    ngx_http_ai_part_e type, ngx_http_ai_part_t ***last)
{
    ngx_http_ai_part_t  *part;

    part = ngx_pcalloc(r->codec->pool, sizeof(ngx_http_ai_part_t));
    if (part == NULL) {
        return NULL;
    }

    part->type = type;

    **last = part;
    *last = &part->next;

    return part;
}


static ngx_int_t
ngx_http_ai_openai_image(ngx_http_ai_openai_req_t *r, ngx_uint_t n,
    ngx_http_ai_part_t *part)
{
    ngx_int_t            rc;
    ngx_http_ai_json_t  *j;

    j = r->json;

    switch (ngx_http_ai_json_type(j, n)) {

    case NGX_HTTP_AI_JSON_STRING:
        rc = ngx_http_ai_openai_url(r, n, "image_url", part);
        break;

    case NGX_HTTP_AI_JSON_OBJECT:

        rc = ngx_http_ai_openai_string(r,
                                      ngx_http_ai_json_member(j, n, "detail"),
                                      "image_url.detail", &part->detail);
        if (rc != NGX_OK) {
            return rc;
        }

        n = ngx_http_ai_json_member(j, n, "url");

        if (ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_STRING) {
            return ngx_http_ai_openai_bad(r, "image_url.url",
                                          "must be a string", NULL);
        }

        rc = ngx_http_ai_openai_url(r, n, "image_url.url", part);
        break;

    default:
        return ngx_http_ai_openai_bad(r, "image_url", "must be an object",
                                      NULL);
    }

    if (rc != NGX_OK) {
        return rc;
    }

    if (part->url.len == 0 && part->data.len == 0) {
        return ngx_http_ai_openai_bad(r, "image_url.url", "must not be empty",
                                      NULL);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_openai_audio(ngx_http_ai_openai_req_t *r, ngx_uint_t n,
    ngx_http_ai_part_t *part)
{
    ngx_int_t  rc;

    rc = ngx_http_ai_openai_string(r,
                                ngx_http_ai_json_member(r->json, n, "data"),
                                "input_audio.data", &part->data);
    if (rc != NGX_OK) {
        return rc;
    }

    if (part->data.len == 0) {
        return ngx_http_ai_openai_bad(r, "input_audio.data", "is required",
                                      NULL);
    }

    rc = ngx_http_ai_openai_string(r,
                               ngx_http_ai_json_member(r->json, n, "format"),
                               "input_audio.format", &part->mime);
    if (rc != NGX_OK) {
        return rc;
    }

    if (part->mime.len == 0) {
        return ngx_http_ai_openai_bad(r, "input_audio.format", "is required",
                                      NULL);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_openai_file(ngx_http_ai_openai_req_t *r, ngx_uint_t n,
    ngx_http_ai_part_t *part)
{
    ngx_int_t            rc;
    ngx_uint_t           data;
    ngx_http_ai_json_t  *j;

    j = r->json;

    rc = ngx_http_ai_openai_string(r,
                                   ngx_http_ai_json_member(j, n, "filename"),
                                   "file.filename", &part->name);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_openai_string(r,
                                   ngx_http_ai_json_member(j, n, "file_id"),
                                   "file.file_id", &part->file_id);
    if (rc != NGX_OK) {
        return rc;
    }

    data = ngx_http_ai_json_member(j, n, "file_data");

    if (ngx_http_ai_json_type(j, data) == NGX_HTTP_AI_JSON_NULL) {

        if (part->file_id.len == 0) {
            return ngx_http_ai_openai_bad(r, "file",
                                     "must have file_data or file_id", NULL);
        }

        return NGX_OK;
    }

    if (j->nodes[data].type != NGX_HTTP_AI_JSON_STRING) {
        return ngx_http_ai_openai_bad(r, "file.file_data", "must be a string",
                                      NULL);
    }

    rc = ngx_http_ai_openai_url(r, data, "file.file_data", part);
    if (rc != NGX_OK || part->data.data) {
        return rc;
    }

    if (part->url.len == 0) {
        return ngx_http_ai_openai_bad(r, "file.file_data", "must not be empty",
                                      NULL);
    }

    if (part->url.len >= 7
        && (ngx_strncasecmp(part->url.data, (u_char *) "http://", 7) == 0
            || ngx_strncasecmp(part->url.data, (u_char *) "https:/", 7) == 0))
    {
        return NGX_OK;
    }

    /* base64 as such, which the API takes too */

    part->data = part->url;
    ngx_str_null(&part->url);

    if (part->name.len > 4
        && ngx_strncasecmp(part->name.data + part->name.len - 4,
                           (u_char *) ".txt", 4)
           == 0)
    {
        ngx_str_set(&part->mime, "text/plain");

    } else {
        ngx_str_set(&part->mime, "application/pdf");
    }

    return NGX_OK;
}


/*
 * A data URL is split into its type and its base64 text.  The scheme and the
 * type are compared without case, and parameters are dropped.
 */

static ngx_int_t
ngx_http_ai_openai_url(ngx_http_ai_openai_req_t *r, ngx_uint_t n,
    const char *name, ngx_http_ai_part_t *part)
{
    u_char     *p, *last, *end, *semi, *base64;
    ngx_str_t   url, plain;

    url = ngx_http_ai_json_raw(r->json, n);

    if (r->json->nodes[n].escaped) {

        /* "\/" and the like: the plain text is used where it is raw text
         * too, which holds for all that are URLs */

        if (ngx_http_ai_json_unescape_str(r->codec->pool, &url, &plain)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        for (p = plain.data; p < plain.data + plain.len; p++) {
            if (*p < 0x20 || *p == '"' || *p == '\\') {
                return ngx_http_ai_openai_bad(r, name, "is not a URL", NULL);
            }
        }

        url = plain;
    }

    if (url.len < sizeof("data:") - 1
        || ngx_strncasecmp(url.data, (u_char *) "data:", 5) != 0)
    {
        part->url = url;
        return NGX_OK;
    }

    p = url.data + 5;
    last = url.data + url.len;

    end = ngx_strlchr(p, last, ',');

    if (end == NULL) {
        return ngx_http_ai_openai_bad(r, name, "is not a data URL", NULL);
    }

    semi = ngx_strlchr(p, end, ';');
    base64 = end - (sizeof(";base64") - 1);

    if (semi == NULL || base64 < semi
        || ngx_strncasecmp(base64, (u_char *) ";base64", 7) != 0)
    {
        return ngx_http_ai_openai_bad(r, name,
                                      "must be a data URL in base64", NULL);
    }

    if (semi == p) {
        return ngx_http_ai_openai_bad(r, name,
                                      "must be a data URL with a media type",
                                      NULL);
    }

    part->mime.len = semi - p;
    part->mime.data = ngx_pnalloc(r->codec->pool, part->mime.len);
    if (part->mime.data == NULL) {
        return NGX_ERROR;
    }

    ngx_strlow(part->mime.data, p, part->mime.len);

    part->data.data = end + 1;
    part->data.len = last - (end + 1);

    if (part->data.len == 0) {
        return ngx_http_ai_openai_bad(r, name, "must not be empty", NULL);
    }

    return NGX_OK;
}


/* "cache_control", which many clients send in this dialect, and OpenAI's own
 * "prompt_cache_breakpoint", whose times are not those of others */

void
ngx_http_ai_openai_mark(ngx_http_ai_openai_req_t *r, ngx_uint_t n,
    unsigned *cached, ngx_str_t *cache)
{
    ngx_str_t   ttl;
    ngx_uint_t  v;

    *cached = 0;
    ngx_str_null(cache);

    v = ngx_http_ai_json_member(r->json, n, "cache_control");

    if (ngx_http_ai_json_type(r->json, v) == NGX_HTTP_AI_JSON_OBJECT) {
        *cached = 1;
        ngx_str_set(cache, "");

        v = ngx_http_ai_json_member(r->json, v, "ttl");

        if (ngx_http_ai_json_type(r->json, v) == NGX_HTTP_AI_JSON_STRING) {
            *cache = ngx_http_ai_json_value(r->json, v);
        }

        return;
    }

    v = ngx_http_ai_json_member(r->json, n, "prompt_cache_breakpoint");

    if (ngx_http_ai_json_type(r->json, v) == NGX_HTTP_AI_JSON_OBJECT) {
        *cached = 1;
        ngx_str_set(cache, "");

        ttl = ngx_http_ai_json_raw(r->json,
                                   ngx_http_ai_json_member(r->json, v, "ttl"));

        if (ngx_http_ai_str_is(&ttl, "12h")) {
            ngx_str_set(cache, "\"1h\"");
        }
    }
}
