
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_dialect.h"
#include "ngx_http_ai_dialect_anthropic.h"


/* blocks that a message may have */

#define NGX_HTTP_AI_ANTHROPIC_TEXT       0x01
#define NGX_HTTP_AI_ANTHROPIC_MEDIA      0x02
#define NGX_HTTP_AI_ANTHROPIC_RESULT     0x04
#define NGX_HTTP_AI_ANTHROPIC_ASSISTANT  0x08


static ngx_int_t ngx_http_ai_anthropic_message(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n);
static ngx_int_t ngx_http_ai_anthropic_user(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t content);
static ngx_http_ai_turn_t *ngx_http_ai_anthropic_turn(
    ngx_http_ai_anthropic_req_t *r, ngx_http_ai_role_e role);
static ngx_int_t ngx_http_ai_anthropic_content(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n, ngx_uint_t allowed, ngx_http_ai_part_t ***last);
static ngx_int_t ngx_http_ai_anthropic_block(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n, ngx_uint_t allowed, ngx_http_ai_part_t ***last);
static ngx_int_t ngx_http_ai_anthropic_type(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n, ngx_str_t *type);
static ngx_http_ai_part_t *ngx_http_ai_anthropic_part(
    ngx_http_ai_anthropic_req_t *r, ngx_http_ai_part_e type,
    ngx_http_ai_part_t ***last);
static ngx_int_t ngx_http_ai_anthropic_source(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n, ngx_http_ai_part_t *part);
static ngx_int_t ngx_http_ai_anthropic_document(
    ngx_http_ai_anthropic_req_t *r, ngx_uint_t n, ngx_http_ai_part_t ***last,
    ngx_http_ai_part_t **file);
static ngx_int_t ngx_http_ai_anthropic_joined(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n, ngx_str_t *text);
static ngx_int_t ngx_http_ai_anthropic_tool_use(
    ngx_http_ai_anthropic_req_t *r, ngx_uint_t n, ngx_http_ai_part_t *part);
static ngx_int_t ngx_http_ai_anthropic_tool_result(
    ngx_http_ai_anthropic_req_t *r, ngx_uint_t n, ngx_http_ai_part_t *part);


ngx_int_t
ngx_http_ai_anthropic_system(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n)
{
    ngx_int_t             rc;
    ngx_uint_t            i;
    ngx_http_ai_part_t  **last;
    ngx_http_ai_turn_t   *turn;
    ngx_http_ai_json_t   *j;

    j = r->json;

    if (n == NGX_HTTP_AI_JSON_NONE) {
        return NGX_OK;
    }

    if (j->nodes[n].type == NGX_HTTP_AI_JSON_STRING) {

        if (j->nodes[n].len == 0) {
            return NGX_OK;
        }

        turn = ngx_http_ai_anthropic_turn(r, NGX_HTTP_AI_ROLE_SYSTEM);
        if (turn == NULL) {
            return NGX_ERROR;
        }

        last = &turn->parts;

        return ngx_http_ai_anthropic_content(r, n, NGX_HTTP_AI_ANTHROPIC_TEXT,
                                             &last);
    }

    if (j->nodes[n].type != NGX_HTTP_AI_JSON_ARRAY) {
        return ngx_http_ai_anthropic_bad(r, "system",
                           "Input should be a string or a list of text blocks",
                            NULL);
    }

    i = ngx_http_ai_json_first(j, n);

    if (i == NGX_HTTP_AI_JSON_NONE) {
        return NGX_OK;
    }

    turn = ngx_http_ai_anthropic_turn(r, NGX_HTTP_AI_ROLE_SYSTEM);
    if (turn == NULL) {
        return NGX_ERROR;
    }

    last = &turn->parts;

    r->list = "system";
    r->index = 0;

    for ( /* void */ ;
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, n, i))
    {
        rc = ngx_http_ai_anthropic_block(r, i, NGX_HTTP_AI_ANTHROPIC_TEXT,
                                         &last);
        if (rc != NGX_OK) {
            return rc;
        }

        r->index++;
    }

    r->list = NULL;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_anthropic_messages(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n)
{
    ngx_int_t   rc;
    ngx_uint_t  i;

    if (n == NGX_HTTP_AI_JSON_NONE) {
        return ngx_http_ai_anthropic_bad(r, "messages", "Field required",
                                         NULL);
    }

    if (r->json->nodes[n].type != NGX_HTTP_AI_JSON_ARRAY) {
        return ngx_http_ai_anthropic_bad(r, "messages",
                                         "Input should be a valid list",
                                         NULL);
    }

    i = ngx_http_ai_json_first(r->json, n);

    if (i == NGX_HTTP_AI_JSON_NONE) {
        return ngx_http_ai_anthropic_bad(r, "messages",
                                         "at least one message is required",
                                         NULL);
    }

    r->list = "messages";
    r->index = 0;

    for ( /* void */ ;
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(r->json, n, i))
    {
        rc = ngx_http_ai_anthropic_message(r, i);
        if (rc != NGX_OK) {
            return rc;
        }

        r->index++;
    }

    r->list = NULL;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_message(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n)
{
    ngx_int_t             rc;
    ngx_str_t             role;
    ngx_uint_t            allowed, content;
    ngx_http_ai_role_e    kind;
    ngx_http_ai_part_t  **last;
    ngx_http_ai_turn_t   *turn;
    ngx_http_ai_json_t   *j;

    j = r->json;

    if (j->nodes[n].type != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_anthropic_bad(r, "", "Input should be an object",
                                         NULL);
    }

    rc = ngx_http_ai_anthropic_word(r, ngx_http_ai_json_member(j, n, "role"),
                                    "role", &role);
    if (rc != NGX_OK) {
        return rc;
    }

    content = ngx_http_ai_json_member(j, n, "content");

    switch (ngx_http_ai_json_type(j, content)) {

    case NGX_HTTP_AI_JSON_STRING:
    case NGX_HTTP_AI_JSON_ARRAY:
        break;

    case NGX_HTTP_AI_JSON_NULL:
        return ngx_http_ai_anthropic_bad(r, "content", "Field required", NULL);

    default:
        return ngx_http_ai_anthropic_bad(r, "content",
                                "Input should be a string or a list of blocks",
                                 NULL);
    }

    if (ngx_http_ai_str_is(&role, "user")) {
        return ngx_http_ai_anthropic_user(r, content);
    }

    if (ngx_http_ai_str_is(&role, "assistant")) {
        kind = NGX_HTTP_AI_ROLE_ASSISTANT;
        allowed = NGX_HTTP_AI_ANTHROPIC_TEXT|NGX_HTTP_AI_ANTHROPIC_ASSISTANT;

    } else if (ngx_http_ai_str_is(&role, "system")) {
        kind = NGX_HTTP_AI_ROLE_SYSTEM;
        allowed = NGX_HTTP_AI_ANTHROPIC_TEXT;

    } else {
        return ngx_http_ai_anthropic_bad(r, "role", "unknown role", &role);
    }

    turn = ngx_http_ai_anthropic_turn(r, kind);
    if (turn == NULL) {
        return NGX_ERROR;
    }

    last = &turn->parts;

    return ngx_http_ai_anthropic_content(r, content, allowed, &last);
}


/* the results of tools are turns of their own, right after the calls */

static ngx_int_t
ngx_http_ai_anthropic_user(ngx_http_ai_anthropic_req_t *r, ngx_uint_t content)
{
    ngx_int_t             rc;
    ngx_http_ai_part_t   *part, *next, *parts, **last;
    ngx_http_ai_turn_t   *turn;

    parts = NULL;
    last = &parts;

    rc = ngx_http_ai_anthropic_content(r, content,
                                       NGX_HTTP_AI_ANTHROPIC_TEXT
                                       |NGX_HTTP_AI_ANTHROPIC_MEDIA
                                       |NGX_HTTP_AI_ANTHROPIC_RESULT,
                                       &last);
    if (rc != NGX_OK) {
        return rc;
    }

    last = &parts;

    for (part = parts; part; part = next) {
        next = part->next;

        if (part->type != NGX_HTTP_AI_PART_TOOL_RESULT) {
            *last = part;
            last = &part->next;
            continue;
        }

        turn = ngx_http_ai_anthropic_turn(r, NGX_HTTP_AI_ROLE_TOOL);
        if (turn == NULL) {
            return NGX_ERROR;
        }

        turn->parts = part;
        part->next = NULL;
    }

    *last = NULL;

    if (parts) {
        turn = ngx_http_ai_anthropic_turn(r, NGX_HTTP_AI_ROLE_USER);
        if (turn == NULL) {
            return NGX_ERROR;
        }

        turn->parts = parts;
    }

    return NGX_OK;
}


static ngx_http_ai_turn_t *
ngx_http_ai_anthropic_turn(ngx_http_ai_anthropic_req_t *r,
    ngx_http_ai_role_e role)
{
    ngx_http_ai_turn_t  *turn;

    turn = ngx_pcalloc(r->codec->pool, sizeof(ngx_http_ai_turn_t));
    if (turn == NULL) {
        return NULL;
    }

    turn->role = role;

    *r->turn = turn;
    r->turn = &turn->next;

    return turn;
}


static ngx_int_t
ngx_http_ai_anthropic_content(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n,
    ngx_uint_t allowed, ngx_http_ai_part_t ***last)
{
    ngx_int_t            rc;
    ngx_uint_t           i;
    ngx_http_ai_part_t  *part;

    if (r->json->nodes[n].type == NGX_HTTP_AI_JSON_STRING) {
        part = ngx_http_ai_anthropic_part(r, NGX_HTTP_AI_PART_TEXT, last);
        if (part == NULL) {
            return NGX_ERROR;
        }

        part->text = ngx_http_ai_json_raw(r->json, n);

        return NGX_OK;
    }

    r->in_block = 1;
    r->block = 0;

    for (i = ngx_http_ai_json_first(r->json, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(r->json, n, i))
    {
        rc = ngx_http_ai_anthropic_block(r, i, allowed, last);
        if (rc != NGX_OK) {
            return rc;
        }

        r->block++;
    }

    r->in_block = 0;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_block(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n,
    ngx_uint_t allowed, ngx_http_ai_part_t ***last)
{
    unsigned             cached;
    ngx_int_t            rc;
    ngx_str_t            type, cache;
    ngx_http_ai_part_t  *part;
    ngx_http_ai_json_t  *j;

    j = r->json;
    part = NULL;

    rc = ngx_http_ai_anthropic_type(r, n, &type);
    if (rc != NGX_OK) {
        return rc;
    }

    ngx_http_ai_anthropic_mark(j, n, &cached, &cache);

    if (ngx_http_ai_str_is(&type, "text")) {
        part = ngx_http_ai_anthropic_part(r, NGX_HTTP_AI_PART_TEXT, last);
        if (part == NULL) {
            return NGX_ERROR;
        }

        rc = ngx_http_ai_anthropic_string(r,
                                       ngx_http_ai_json_member(j, n, "text"),
                                       "text", 1, &part->text);

    } else if (ngx_http_ai_str_is(&type, "image")
               && (allowed & NGX_HTTP_AI_ANTHROPIC_MEDIA))
    {
        part = ngx_http_ai_anthropic_part(r, NGX_HTTP_AI_PART_IMAGE, last);
        if (part == NULL) {
            return NGX_ERROR;
        }

        rc = ngx_http_ai_anthropic_source(r, n, part);

    } else if (ngx_http_ai_str_is(&type, "document")
               && (allowed & NGX_HTTP_AI_ANTHROPIC_MEDIA))
    {
        rc = ngx_http_ai_anthropic_document(r, n, last, &part);

    } else if (ngx_http_ai_str_is(&type, "tool_result")
               && (allowed & NGX_HTTP_AI_ANTHROPIC_RESULT))
    {
        part = ngx_http_ai_anthropic_part(r, NGX_HTTP_AI_PART_TOOL_RESULT,
                                          last);
        if (part == NULL) {
            return NGX_ERROR;
        }

        rc = ngx_http_ai_anthropic_tool_result(r, n, part);

    } else if (ngx_http_ai_str_is(&type, "tool_use")
               && (allowed & NGX_HTTP_AI_ANTHROPIC_ASSISTANT))
    {
        part = ngx_http_ai_anthropic_part(r, NGX_HTTP_AI_PART_TOOL_CALL, last);
        if (part == NULL) {
            return NGX_ERROR;
        }

        rc = ngx_http_ai_anthropic_tool_use(r, n, part);

    } else if (ngx_http_ai_str_is(&type, "thinking")
               && (allowed & NGX_HTTP_AI_ANTHROPIC_ASSISTANT))
    {
        part = ngx_http_ai_anthropic_part(r, NGX_HTTP_AI_PART_REASONING, last);
        if (part == NULL) {
            return NGX_ERROR;
        }

        rc = ngx_http_ai_anthropic_string(r,
                                   ngx_http_ai_json_member(j, n, "thinking"),
                                   "thinking", 1, &part->text);
        if (rc != NGX_OK) {
            return rc;
        }

        rc = ngx_http_ai_anthropic_string(r,
                                  ngx_http_ai_json_member(j, n, "signature"),
                                  "signature", 0, &part->signature);

    } else if (ngx_http_ai_str_is(&type, "redacted_thinking")
               && (allowed & NGX_HTTP_AI_ANTHROPIC_ASSISTANT))
    {
        part = ngx_http_ai_anthropic_part(r, NGX_HTTP_AI_PART_REDACTED, last);
        if (part == NULL) {
            return NGX_ERROR;
        }

        rc = ngx_http_ai_anthropic_string(r,
                                       ngx_http_ai_json_member(j, n, "data"),
                                       "data", 1, &part->data);

    } else {
        return ngx_http_ai_anthropic_bad(r, "type",
                   "the provider that serves this model takes here no block of"
                   " type", &type);
    }

    if (rc != NGX_OK) {
        return rc;
    }

    part->cached = cached;
    part->cache = cache;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_type(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n,
    ngx_str_t *type)
{
    if (r->json->nodes[n].type != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_anthropic_bad(r, "", "Input should be an object",
                                         NULL);
    }

    return ngx_http_ai_anthropic_word(r,
                                   ngx_http_ai_json_member(r->json, n, "type"),
                                   "type", type);
}


static ngx_http_ai_part_t *
ngx_http_ai_anthropic_part(ngx_http_ai_anthropic_req_t *r,
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


/* what is the same in the sources of images and documents */

static ngx_int_t
ngx_http_ai_anthropic_source(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n,
    ngx_http_ai_part_t *part)
{
    u_char              *p, *last;
    ngx_int_t            rc;
    ngx_str_t            type;
    ngx_uint_t           s;
    ngx_http_ai_json_t  *j;

    j = r->json;

    s = ngx_http_ai_json_member(j, n, "source");

    if (ngx_http_ai_json_type(j, s) != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_anthropic_bad(r, "source",
                                         "Input should be an object", NULL);
    }

    rc = ngx_http_ai_anthropic_word(r, ngx_http_ai_json_member(j, s, "type"),
                                    "source.type", &type);
    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_http_ai_str_is(&type, "url")) {
        return ngx_http_ai_anthropic_string(r,
                                        ngx_http_ai_json_member(j, s, "url"),
                                        "source.url", 2, &part->url);
    }

    if (ngx_http_ai_str_is(&type, "file")) {
        return ngx_http_ai_anthropic_string(r,
                                    ngx_http_ai_json_member(j, s, "file_id"),
                                    "source.file_id", 2, &part->file_id);
    }

    if (ngx_http_ai_str_is(&type, "base64")) {

        /* "\/" is one way to write the slash; what has no escape after that
         * is raw text as well */

        rc = ngx_http_ai_anthropic_word(r,
                                 ngx_http_ai_json_member(j, s, "media_type"),
                                 "source.media_type", &part->mime);
        if (rc != NGX_OK) {
            return rc;
        }

        last = part->mime.data + part->mime.len;

        for (p = part->mime.data; p < last; p++) {
            if (*p < 0x20 || *p == '"' || *p == '\\') {
                break;
            }
        }

        if (p < last || part->mime.len == 0) {
            return ngx_http_ai_anthropic_bad(r, "source.media_type",
                                             "is not a media type", NULL);
        }

        return ngx_http_ai_anthropic_string(r,
                                       ngx_http_ai_json_member(j, s, "data"),
                                       "source.data", 2, &part->data);
    }

    if (part->type == NGX_HTTP_AI_PART_FILE) {

        ngx_str_set(&part->mime, "text/plain");

        if (ngx_http_ai_str_is(&type, "text")) {
            return ngx_http_ai_anthropic_string(r,
                                       ngx_http_ai_json_member(j, s, "data"),
                                       "source.data", 1, &part->text);
        }

        if (ngx_http_ai_str_is(&type, "content")) {
            return ngx_http_ai_anthropic_joined(r,
                                    ngx_http_ai_json_member(j, s, "content"),
                                    &part->text);
        }
    }

    return ngx_http_ai_anthropic_bad(r, "source.type", "unsupported type",
                                     &type);
}


static ngx_int_t
ngx_http_ai_anthropic_document(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n,
    ngx_http_ai_part_t ***last, ngx_http_ai_part_t **file)
{
    ngx_int_t            rc;
    ngx_str_t            context;
    ngx_http_ai_part_t  *part;
    ngx_http_ai_json_t  *j;

    j = r->json;

    /* said about the document to the model; no part of it */

    ngx_str_null(&context);

    rc = ngx_http_ai_anthropic_string(r,
                                    ngx_http_ai_json_member(j, n, "context"),
                                    "context", 0, &context);
    if (rc != NGX_OK) {
        return rc;
    }

    if (context.len) {
        part = ngx_http_ai_anthropic_part(r, NGX_HTTP_AI_PART_TEXT, last);
        if (part == NULL) {
            return NGX_ERROR;
        }

        part->text = context;
    }

    part = ngx_http_ai_anthropic_part(r, NGX_HTTP_AI_PART_FILE, last);
    if (part == NULL) {
        return NGX_ERROR;
    }

    *file = part;

    rc = ngx_http_ai_anthropic_string(r,
                                      ngx_http_ai_json_member(j, n, "title"),
                                      "title", 0, &part->name);
    if (rc != NGX_OK) {
        return rc;
    }

    return ngx_http_ai_anthropic_source(r, n, part);
}


/* text of a document that comes as a string or as text blocks */

static ngx_int_t
ngx_http_ai_anthropic_joined(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n,
    ngx_str_t *text)
{
    ngx_int_t            rc;
    ngx_str_t            type, s;
    ngx_uint_t           i;
    ngx_http_ai_out_t    out;
    ngx_http_ai_json_t  *j;

    j = r->json;

    if (ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_STRING) {
        *text = ngx_http_ai_json_raw(j, n);
        return NGX_OK;
    }

    if (ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_ARRAY) {
        return ngx_http_ai_anthropic_bad(r, "source.content",
                                "Input should be a string or a list of blocks",
                                 NULL);
    }

    /* less than the text with its brackets and names */

    if (ngx_http_ai_out_init(&out, r->codec->pool, j->nodes[n].len)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (i = ngx_http_ai_json_first(j, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, n, i))
    {
        rc = ngx_http_ai_anthropic_type(r, i, &type);
        if (rc != NGX_OK) {
            return rc;
        }

        if (!ngx_http_ai_str_is(&type, "text")) {
            return ngx_http_ai_anthropic_bad(r, "source.content",
                   "the provider that serves this model takes here no block of"
                   " type", &type);
        }

        rc = ngx_http_ai_anthropic_string(r,
                                       ngx_http_ai_json_member(j, i, "text"),
                                       "source.content", 1, &s);
        if (rc != NGX_OK) {
            return rc;
        }

        if (out.last != out.start) {
            ngx_http_ai_out_lit(&out, "\\n\\n");
        }

        ngx_http_ai_out_str(&out, &s);
    }

    if (out.failed) {
        return NGX_ERROR;
    }

    text->data = out.start;
    text->len = out.last - out.start;

    if (text->data == NULL) {
        ngx_str_set(text, "");
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_tool_use(ngx_http_ai_anthropic_req_t *r, ngx_uint_t n,
    ngx_http_ai_part_t *part)
{
    ngx_int_t            rc;
    ngx_uint_t           v;
    ngx_http_ai_json_t  *j;

    j = r->json;

    rc = ngx_http_ai_anthropic_string(r, ngx_http_ai_json_member(j, n, "id"),
                                      "id", 2, &part->id);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_anthropic_string(r, ngx_http_ai_json_member(j, n, "name"),
                                      "name", 2, &part->name);
    if (rc != NGX_OK) {
        return rc;
    }

    v = ngx_http_ai_json_member(j, n, "input");

    switch (ngx_http_ai_json_type(j, v)) {

    case NGX_HTTP_AI_JSON_NULL:
        ngx_str_set(&part->args, "{}");
        return NGX_OK;

    case NGX_HTTP_AI_JSON_OBJECT:
        part->args = ngx_http_ai_json_raw(j, v);
        return NGX_OK;

    default:
        return ngx_http_ai_anthropic_bad(r, "input",
                                         "Input should be an object", NULL);
    }
}


static ngx_int_t
ngx_http_ai_anthropic_tool_result(ngx_http_ai_anthropic_req_t *r,
    ngx_uint_t n, ngx_http_ai_part_t *part)
{
    ngx_int_t             rc;
    ngx_uint_t            i, v;
    ngx_http_ai_part_t  **last;
    ngx_http_ai_json_t   *j;

    j = r->json;

    rc = ngx_http_ai_anthropic_string(r,
                                ngx_http_ai_json_member(j, n, "tool_use_id"),
                                "tool_use_id", 2, &part->id);
    if (rc != NGX_OK) {
        return rc;
    }

    v = ngx_http_ai_json_member(j, n, "is_error");

    switch (ngx_http_ai_json_type(j, v)) {

    case NGX_HTTP_AI_JSON_TRUE:
        part->is_error = 1;
        break;

    case NGX_HTTP_AI_JSON_FALSE:
    case NGX_HTTP_AI_JSON_NULL:
        break;

    default:
        return ngx_http_ai_anthropic_bad(r, "is_error",
                                         "Input should be a valid boolean",
                                         NULL);
    }

    v = ngx_http_ai_json_member(j, n, "content");
    last = &part->parts;

    switch (ngx_http_ai_json_type(j, v)) {

    case NGX_HTTP_AI_JSON_NULL:
        return NGX_OK;

    case NGX_HTTP_AI_JSON_STRING:

        part = ngx_http_ai_anthropic_part(r, NGX_HTTP_AI_PART_TEXT, &last);
        if (part == NULL) {
            return NGX_ERROR;
        }

        part->text = ngx_http_ai_json_raw(j, v);

        return NGX_OK;

    case NGX_HTTP_AI_JSON_ARRAY:
        break;

    default:
        return ngx_http_ai_anthropic_bad(r, "content",
                                "Input should be a string or a list of blocks",
                                 NULL);
    }

    r->in_inner = 1;
    r->inner = 0;

    for (i = ngx_http_ai_json_first(j, v);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, v, i))
    {
        rc = ngx_http_ai_anthropic_block(r, i,
                                         NGX_HTTP_AI_ANTHROPIC_TEXT
                                         |NGX_HTTP_AI_ANTHROPIC_MEDIA,
                                         &last);
        if (rc != NGX_OK) {
            return rc;
        }

        r->inner++;
    }

    r->in_inner = 0;

    return NGX_OK;
}
