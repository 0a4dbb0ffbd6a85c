
/*
 * Copyright (C) nginx AI gateway authors
 */


/* tools, sampling, format and the other options of a request */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_dialect.h"
#include "ngx_http_ai_dialect_openai.h"
#include "ngx_http_ai_dialect_openai_request.h"


static void ngx_http_ai_openai_wr_number(ngx_http_ai_openai_wr_t *w,
    const char *name, ngx_str_t *value);


void
ngx_http_ai_openai_wr_tools(ngx_http_ai_openai_wr_t *w)
{
    ngx_uint_t              n;
    ngx_http_ai_out_t      *out;
    ngx_http_ai_tool_t     *tool;
    ngx_http_ai_request_t  *req;

    out = w->out;
    req = w->req;

    if (req->tools == NULL) {
        return;
    }

    ngx_http_ai_out_lit(out, ",\"tools\":[");

    n = 0;

    for (tool = req->tools; tool; tool = tool->next) {

        if ((w->flags & NGX_HTTP_AI_OPENAI_ONE_TOOL)
            && req->choice == NGX_HTTP_AI_CHOICE_NAMED
            && (tool->name.len != req->choice_name.len
                || ngx_memcmp(tool->name.data, req->choice_name.data,
                              tool->name.len)
                   != 0))
        {
            continue;
        }

        if (n++) {
            ngx_http_ai_out_lit(out, ",");
        }

        ngx_http_ai_out_lit(out, "{\"type\":\"function\",\"function\":"
                                 "{\"name\":\"");
        ngx_http_ai_out_str(out, &tool->name);
        ngx_http_ai_out_lit(out, "\"");

        if (tool->description.data) {
            ngx_http_ai_out_lit(out, ",\"description\":\"");
            ngx_http_ai_out_str(out, &tool->description);
            ngx_http_ai_out_lit(out, "\"");
        }

        if (tool->schema.len) {
            ngx_http_ai_out_lit(out, ",\"parameters\":");
            ngx_http_ai_out_str(out, &tool->schema);

        } else if (w->flags & NGX_HTTP_AI_OPENAI_MISTRAL) {
            ngx_http_ai_out_lit(out, ",\"parameters\":{\"type\":\"object\","
                                     "\"properties\":{}}");
        }

        if (tool->strict == 1) {
            ngx_http_ai_out_lit(out, ",\"strict\":false");

        } else if (tool->strict == 2) {
            ngx_http_ai_out_lit(out, ",\"strict\":true");
        }

        ngx_http_ai_out_lit(out, "}");
        ngx_http_ai_openai_wr_mark(w, tool->cached, &tool->cache);
        ngx_http_ai_out_lit(out, "}");
    }

    ngx_http_ai_out_lit(out, "]");

    ngx_http_ai_openai_wr_choice(w);

    if (req->parallel == 1) {
        ngx_http_ai_out_lit(out, ",\"parallel_tool_calls\":false");

    } else if (req->parallel == 2) {
        ngx_http_ai_out_lit(out, ",\"parallel_tool_calls\":true");
    }
}


void
ngx_http_ai_openai_wr_choice(ngx_http_ai_openai_wr_t *w)
{
    ngx_http_ai_out_t  *out;

    out = w->out;

    switch (w->req->choice) {

    case NGX_HTTP_AI_CHOICE_AUTO:
        ngx_http_ai_out_lit(out, ",\"tool_choice\":\"auto\"");
        break;

    case NGX_HTTP_AI_CHOICE_NONE:
        ngx_http_ai_out_lit(out, ",\"tool_choice\":\"none\"");
        break;

    case NGX_HTTP_AI_CHOICE_REQUIRED:
        ngx_http_ai_out_lit(out, ",\"tool_choice\":\"required\"");
        break;

    case NGX_HTTP_AI_CHOICE_NAMED:

        if (w->flags & NGX_HTTP_AI_OPENAI_ONE_TOOL) {

            /* the object would be taken for "auto" */

            ngx_http_ai_out_lit(out, ",\"tool_choice\":\"required\"");
            break;
        }

        ngx_http_ai_out_lit(out, ",\"tool_choice\":{\"type\":\"function\","
                                 "\"function\":{\"name\":\"");
        ngx_http_ai_out_str(out, &w->req->choice_name);
        ngx_http_ai_out_lit(out, "\"}}");
        break;

    default:
        break;
    }
}


void
ngx_http_ai_openai_wr_sampling(ngx_http_ai_openai_wr_t *w)
{
    ngx_uint_t              i;
    ngx_http_ai_out_t      *out;
    ngx_http_ai_request_t  *req;

    out = w->out;
    req = w->req;

    ngx_http_ai_openai_wr_number(w,
                                 (w->flags & NGX_HTTP_AI_OPENAI_COMPLETION)
                                 ? "max_completion_tokens" : "max_tokens",
                                 &req->max_output);

    ngx_http_ai_openai_wr_number(w, "temperature", &req->temperature);
    ngx_http_ai_openai_wr_number(w, "top_p", &req->top_p);

    if (w->flags & NGX_HTTP_AI_OPENAI_TOP_K) {
        ngx_http_ai_openai_wr_number(w, "top_k", &req->top_k);
    }

    ngx_http_ai_openai_wr_number(w,
                                 (w->flags & NGX_HTTP_AI_OPENAI_MISTRAL)
                                 ? "random_seed" : "seed",
                                 &req->seed);

    ngx_http_ai_openai_wr_number(w, "frequency_penalty",
                                 &req->frequency_penalty);
    ngx_http_ai_openai_wr_number(w, "presence_penalty",
                                 &req->presence_penalty);

    if (req->nstop == 0) {
        return;
    }

    ngx_http_ai_out_lit(out, ",\"stop\":[");

    for (i = 0; i < ngx_http_ai_min(req->nstop, 4); i++) {
        if (i) {
            ngx_http_ai_out_lit(out, ",");
        }

        ngx_http_ai_out_lit(out, "\"");
        ngx_http_ai_out_str(out, &req->stop[i]);
        ngx_http_ai_out_lit(out, "\"");
    }

    ngx_http_ai_out_lit(out, "]");
}


static void
ngx_http_ai_openai_wr_number(ngx_http_ai_openai_wr_t *w, const char *name,
    ngx_str_t *value)
{
    if (value->len == 0) {
        return;
    }

    ngx_http_ai_out_lit(w->out, ",\"");
    ngx_http_ai_out_mem(w->out, name, ngx_strlen(name));
    ngx_http_ai_out_lit(w->out, "\":");
    ngx_http_ai_out_str(w->out, value);
}


void
ngx_http_ai_openai_wr_format(ngx_http_ai_openai_wr_t *w)
{
    ngx_http_ai_out_t      *out;
    ngx_http_ai_request_t  *req;

    out = w->out;
    req = w->req;

    if (req->format == NGX_HTTP_AI_FORMAT_JSON) {
        ngx_http_ai_out_lit(out,
                            ",\"response_format\":{\"type\":\"json_object\"}");
        return;
    }

    if (req->format != NGX_HTTP_AI_FORMAT_SCHEMA) {
        return;
    }

    ngx_http_ai_out_lit(out, ",\"response_format\":{\"type\":\"json_schema\","
                             "\"json_schema\":{\"name\":\"");

    if (req->schema_name.len) {
        ngx_http_ai_out_str(out, &req->schema_name);

    } else {
        ngx_http_ai_out_lit(out, "response");
    }

    ngx_http_ai_out_lit(out, "\"");

    if (req->schema_description.len) {
        ngx_http_ai_out_lit(out, ",\"description\":\"");
        ngx_http_ai_out_str(out, &req->schema_description);
        ngx_http_ai_out_lit(out, "\"");
    }

    ngx_http_ai_out_lit(out, ",\"schema\":");
    ngx_http_ai_out_str(out, &req->schema);

    if (req->schema_strict == 1) {
        ngx_http_ai_out_lit(out, ",\"strict\":false");

    } else if (req->schema_strict == 2) {
        ngx_http_ai_out_lit(out, ",\"strict\":true");
    }

    ngx_http_ai_out_lit(out, "}}");
}


void
ngx_http_ai_openai_wr_effort(ngx_http_ai_openai_wr_t *w, const char **efforts)
{
    int64_t                 budget;
    const char             *name;
    ngx_http_ai_effort_e    effort;
    ngx_http_ai_request_t  *req;

    req = w->req;
    effort = req->effort;

    if ((req->thinking == 1 || effort == NGX_HTTP_AI_EFFORT_NONE)
        && (w->flags & NGX_HTTP_AI_OPENAI_THINKING))
    {
        ngx_http_ai_out_lit(w->out, ",\"thinking\":{\"type\":\"disabled\"}");
        return;
    }

    if (req->thinking == 1 && effort != NGX_HTTP_AI_EFFORT_NONE) {
        return;
    }

    if (effort == NGX_HTTP_AI_EFFORT_ABSENT) {

        if (req->thinking != 2) {

            /* adaptive: what models of this dialect do by themselves */

            return;
        }

        effort = NGX_HTTP_AI_EFFORT_MEDIUM;

        if (req->thinking_budget.len
            && ngx_http_ai_json_fixed(&req->thinking_budget, 0, &budget)
               == NGX_OK)
        {
            effort = (budget <= 2048) ? NGX_HTTP_AI_EFFORT_LOW
                     : (budget <= 8192) ? NGX_HTTP_AI_EFFORT_MEDIUM
                                        : NGX_HTTP_AI_EFFORT_HIGH;
        }
    }

    name = efforts[effort - NGX_HTTP_AI_EFFORT_NONE];

    if (name) {
        ngx_http_ai_out_lit(w->out, ",\"reasoning_effort\":\"");
        ngx_http_ai_out_mem(w->out, name, ngx_strlen(name));
        ngx_http_ai_out_lit(w->out, "\"");
    }
}


void
ngx_http_ai_openai_wr_user_id(ngx_http_ai_openai_wr_t *w)
{
    size_t      max;
    uint64_t    hash;
    ngx_str_t  *user;

    user = &w->req->user;

    if (user->len == 0) {
        return;
    }

    if (w->flags & NGX_HTTP_AI_OPENAI_SAFETY) {
        ngx_http_ai_out_lit(w->out, ",\"safety_identifier\":\"");
        max = 128;

    } else if (w->flags & NGX_HTTP_AI_OPENAI_USER) {
        ngx_http_ai_out_lit(w->out, ",\"user\":\"");
        max = 64;

    } else {
        return;
    }

    if (user->len <= max) {
        ngx_http_ai_out_str(w->out, user);

    } else {
        hash = ngx_http_ai_openai_hash(user->data, user->len,
                                       NGX_HTTP_AI_OPENAI_HASH);
        ngx_http_ai_openai_out_hex(w->out, hash);
        hash = ngx_http_ai_openai_hash(user->data, user->len, hash);
        ngx_http_ai_openai_out_hex(w->out, hash);
    }

    ngx_http_ai_out_lit(w->out, "\"");
}


void
ngx_http_ai_openai_wr_tier(ngx_http_ai_openai_wr_t *w)
{
    ngx_str_t  *tier;

    tier = &w->req->service_tier;

    if (!(w->flags & NGX_HTTP_AI_OPENAI_TIER)) {
        return;
    }

    if (ngx_http_ai_str_is(tier, "standard_only")) {
        ngx_http_ai_out_lit(w->out, ",\"service_tier\":\"default\"");
        return;
    }

    if (ngx_http_ai_str_is(tier, "auto")
        || ngx_http_ai_str_is(tier, "default")
        || ngx_http_ai_str_is(tier, "flex")
        || ngx_http_ai_str_is(tier, "scale")
        || ngx_http_ai_str_is(tier, "priority")
        || ngx_http_ai_str_is(tier, "fast")
        || ngx_http_ai_str_is(tier, "on_demand")
        || ngx_http_ai_str_is(tier, "performance"))
    {
        ngx_http_ai_out_lit(w->out, ",\"service_tier\":\"");
        ngx_http_ai_out_str(w->out, tier);
        ngx_http_ai_out_lit(w->out, "\"");
    }
}
