
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_dialect.h"
#include "ngx_http_ai_dialect_openai.h"


#define NGX_HTTP_AI_OPENAI_MAX_TOOLS     1024


static ngx_int_t ngx_http_ai_openai_function(ngx_http_ai_openai_req_t *r,
    ngx_uint_t n, const char *name, ngx_http_ai_tool_t **tool);
static ngx_int_t ngx_http_ai_openai_choice_word(ngx_http_ai_openai_req_t *r,
    ngx_uint_t n, const char *name);
static ngx_int_t ngx_http_ai_openai_allowed_tools(ngx_http_ai_openai_req_t *r,
    ngx_uint_t n);


ngx_int_t
ngx_http_ai_openai_tools(ngx_http_ai_openai_req_t *r)
{
    unsigned             cached;
    ngx_int_t            rc;
    ngx_str_t            type;
    ngx_uint_t           i, n;
    ngx_http_ai_tool_t  *tool;
    ngx_http_ai_json_t  *j;

    j = r->json;
    n = r->tools;

    r->list = "tools";

    if (n == NGX_HTTP_AI_JSON_NONE && r->functions != NGX_HTTP_AI_JSON_NONE) {
        n = r->functions;
        r->list = "functions";
    }

    if (n == NGX_HTTP_AI_JSON_NONE) {
        r->list = NULL;
        return NGX_OK;
    }

    if (j->nodes[n].type != NGX_HTTP_AI_JSON_ARRAY) {
        r->list = NULL;
        return ngx_http_ai_openai_bad(r, (n == r->tools) ? "tools"
                                                         : "functions",
                                      "must be an array", NULL);
    }

    r->index = 0;

    for (i = ngx_http_ai_json_first(j, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, n, i))
    {
        if (r->index == NGX_HTTP_AI_OPENAI_MAX_TOOLS) {
            return ngx_http_ai_openai_bad(r, "", "too many tools", NULL);
        }

        if (j->nodes[i].type != NGX_HTTP_AI_JSON_OBJECT) {
            return ngx_http_ai_openai_bad(r, "", "must be an object", NULL);
        }

        if (n != r->tools) {
            rc = ngx_http_ai_openai_function(r, i, "", &tool);
            if (rc != NGX_OK) {
                return rc;
            }

            r->index++;
            continue;
        }

        ngx_str_set(&type, "function");

        rc = ngx_http_ai_openai_string(r,
                                       ngx_http_ai_json_member(j, i, "type"),
                                       "type", &type);
        if (rc != NGX_OK) {
            return rc;
        }

        if (!ngx_http_ai_str_is(&type, "function")) {
            return ngx_http_ai_openai_bad(r, "type",
                "the provider that serves this model has no tools of type",
                &type);
        }

        rc = ngx_http_ai_openai_function(r,
                                  ngx_http_ai_json_member(j, i, "function"),
                                  "function", &tool);
        if (rc != NGX_OK) {
            return rc;
        }

        if (!tool->cached) {
            ngx_http_ai_openai_mark(r, i, &cached, &tool->cache);
            tool->cached = cached;
        }

        r->index++;
    }

    r->list = NULL;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_openai_function(ngx_http_ai_openai_req_t *r, ngx_uint_t n,
    const char *name, ngx_http_ai_tool_t **tp)
{
    unsigned             cached;
    ngx_int_t            rc;
    ngx_uint_t           v, flag;
    ngx_http_ai_tool_t  *tool;
    ngx_http_ai_json_t  *j;

    j = r->json;

    if (ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_openai_bad(r, name, "must be an object", NULL);
    }

    tool = ngx_pcalloc(r->codec->pool, sizeof(ngx_http_ai_tool_t));
    if (tool == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_http_ai_openai_string(r, ngx_http_ai_json_member(j, n, "name"),
                                   *name ? "function.name" : "name",
                                   &tool->name);
    if (rc != NGX_OK) {
        return rc;
    }

    if (tool->name.len == 0) {
        return ngx_http_ai_openai_bad(r, *name ? "function.name" : "name",
                                      "is required", NULL);
    }

    rc = ngx_http_ai_openai_string(r,
                                ngx_http_ai_json_member(j, n, "description"),
                                *name ? "function.description" : "description",
                                &tool->description);
    if (rc != NGX_OK) {
        return rc;
    }

    v = ngx_http_ai_json_member(j, n, "parameters");

    switch (ngx_http_ai_json_type(j, v)) {

    case NGX_HTTP_AI_JSON_NULL:
        break;

    case NGX_HTTP_AI_JSON_OBJECT:
        tool->schema = ngx_http_ai_json_raw(j, v);
        break;

    default:
        return ngx_http_ai_openai_bad(r, *name ? "function.parameters"
                                               : "parameters",
                                      "must be an object", NULL);
    }

    v = ngx_http_ai_json_member(j, n, "strict");
    flag = ngx_http_ai_json_flag(j, v);

    if (flag == 3) {
        return ngx_http_ai_openai_bad(r, *name ? "function.strict" : "strict",
                                      "must be true or false", NULL);
    }

    tool->strict = flag;

    ngx_http_ai_openai_mark(r, n, &cached, &tool->cache);
    tool->cached = cached;

    *r->tool = tool;
    r->tool = &tool->next;

    *tp = tool;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_openai_tool_choice(ngx_http_ai_openai_req_t *r)
{
    ngx_int_t               rc;
    ngx_str_t               type, *name;
    ngx_uint_t              n;
    const char             *member;
    ngx_http_ai_tool_t     *tool;
    ngx_http_ai_json_t     *j;
    ngx_http_ai_request_t  *req;

    j = r->json;
    req = r->req;
    n = r->tool_choice;
    member = "tool_choice";

    if (n == NGX_HTTP_AI_JSON_NONE) {
        n = r->function_call;
        member = "function_call";
    }

    if (n == NGX_HTTP_AI_JSON_NONE) {
        return NGX_OK;
    }

    if (j->nodes[n].type == NGX_HTTP_AI_JSON_STRING) {
        rc = ngx_http_ai_openai_choice_word(r, n, member);
        if (rc != NGX_OK) {
            return rc;
        }

    } else if (j->nodes[n].type == NGX_HTTP_AI_JSON_OBJECT) {

        if (n == r->function_call) {
            ngx_str_set(&type, "function");

        } else {
            ngx_str_null(&type);

            rc = ngx_http_ai_openai_string(r,
                                        ngx_http_ai_json_member(j, n, "type"),
                                        "tool_choice.type", &type);
            if (rc != NGX_OK) {
                return rc;
            }
        }

        if (ngx_http_ai_str_is(&type, "allowed_tools")) {
            rc = ngx_http_ai_openai_allowed_tools(r, n);
            if (rc != NGX_OK) {
                return rc;
            }

        } else if (ngx_http_ai_str_is(&type, "function")) {

            if (n != r->function_call) {
                n = ngx_http_ai_json_member(j, n, "function");
                member = "tool_choice.function.name";

            } else {
                member = "function_call.name";
            }

            name = &req->choice_name;
            n = ngx_http_ai_json_member(j, n, "name");

            rc = ngx_http_ai_openai_string(r, n, member, name);
            if (rc != NGX_OK) {
                return rc;
            }

            if (name->len == 0) {
                return ngx_http_ai_openai_bad(r, member, "is required", NULL);
            }

            req->choice = NGX_HTTP_AI_CHOICE_NAMED;

            for (tool = req->tools; tool; tool = tool->next) {
                if (tool->name.len == name->len
                    && ngx_memcmp(tool->name.data, name->data, name->len)
                       == 0)
                {
                    break;
                }
            }

            if (tool == NULL) {
                return ngx_http_ai_openai_bad(r, member,
                                              "is not the name of a tool",
                                              name);
            }

        } else if (type.data == NULL) {
            return ngx_http_ai_openai_bad(r, "tool_choice.type", "is required",
                                          NULL);

        } else {
            return ngx_http_ai_openai_bad(r, "tool_choice.type",
                                          "unsupported type", &type);
        }

    } else {
        return ngx_http_ai_openai_bad(r, member,
                                      "must be a string or an object", NULL);
    }

    if (req->tools == NULL) {

        if (req->choice == NGX_HTTP_AI_CHOICE_REQUIRED) {
            return ngx_http_ai_openai_bad(r, member,
                            "is only allowed when there are tools", NULL);
        }

        req->choice = NGX_HTTP_AI_CHOICE_ABSENT;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_openai_choice_word(ngx_http_ai_openai_req_t *r, ngx_uint_t n,
    const char *name)
{
    ngx_str_t  s;

    if (ngx_http_ai_json_type(r->json, n) != NGX_HTTP_AI_JSON_STRING) {
        return ngx_http_ai_openai_bad(r, name, "must be a string", NULL);
    }

    s = ngx_http_ai_json_raw(r->json, n);

    if (ngx_http_ai_str_is(&s, "auto")) {
        r->req->choice = NGX_HTTP_AI_CHOICE_AUTO;

    } else if (ngx_http_ai_str_is(&s, "none")) {
        r->req->choice = NGX_HTTP_AI_CHOICE_NONE;

    } else if (ngx_http_ai_str_is(&s, "required")
               || ngx_http_ai_str_is(&s, "any"))
    {
        r->req->choice = NGX_HTTP_AI_CHOICE_REQUIRED;

    } else {
        return ngx_http_ai_openai_bad(r, name, "unknown value", &s);
    }

    return NGX_OK;
}


/* the other tools are left out, which is what the model is to see */

static ngx_int_t
ngx_http_ai_openai_allowed_tools(ngx_http_ai_openai_req_t *r, ngx_uint_t n)
{
    ngx_int_t             rc;
    ngx_str_t             name;
    ngx_uint_t            a, i, list;
    ngx_http_ai_tool_t   *tool, **last;
    ngx_http_ai_json_t   *j;

    j = r->json;

    a = ngx_http_ai_json_member(j, n, "allowed_tools");

    rc = ngx_http_ai_openai_choice_word(r,
                                    ngx_http_ai_json_member(j, a, "mode"),
                                    "tool_choice.allowed_tools.mode");
    if (rc != NGX_OK) {
        return rc;
    }

    list = ngx_http_ai_json_member(j, a, "tools");

    if (ngx_http_ai_json_type(j, list) != NGX_HTTP_AI_JSON_ARRAY
        || j->nodes[list].count > NGX_HTTP_AI_OPENAI_MAX_TOOLS)
    {
        return ngx_http_ai_openai_bad(r, "tool_choice.allowed_tools.tools",
                                      "must be an array of tools", NULL);
    }

    last = &r->req->tools;

    for (tool = r->req->tools; tool; tool = tool->next) {

        for (i = ngx_http_ai_json_first(j, list);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, list, i))
        {
            n = ngx_http_ai_json_member(j, i, "function");

            if (n == NGX_HTTP_AI_JSON_NONE) {
                n = i;
            }

            name = ngx_http_ai_json_raw(j,
                                        ngx_http_ai_json_member(j, n, "name"));

            if (name.len == tool->name.len
                && ngx_memcmp(name.data, tool->name.data, name.len) == 0)
            {
                *last = tool;
                last = &tool->next;
                break;
            }
        }
    }

    *last = NULL;

    if (r->req->tools == NULL) {
        return ngx_http_ai_openai_bad(r, "tool_choice.allowed_tools.tools",
                                      "names none of the tools", NULL);
    }

    return NGX_OK;
}
