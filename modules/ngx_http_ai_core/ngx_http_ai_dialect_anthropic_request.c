
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_dialect.h"
#include "ngx_http_ai_dialect_anthropic.h"


#define NGX_HTTP_AI_ANTHROPIC_MIN_BUDGET 1024

/* default of "max_tokens" where an answer comes in one piece: clients and
 * proxies in between do not wait for more than this takes */

#define NGX_HTTP_AI_ANTHROPIC_MAX_WHOLE  16384


static void ngx_http_ai_anthropic_model_read(ngx_str_t *name,
    ngx_http_ai_anthropic_model_t *model);
static ngx_int_t ngx_http_ai_anthropic_version(u_char *p, u_char *last);
static void ngx_http_ai_anthropic_plan(ngx_http_ai_anthropic_write_t *w);
static void ngx_http_ai_anthropic_plan_thinking(
    ngx_http_ai_anthropic_write_t *w);
static ngx_uint_t ngx_http_ai_anthropic_unsigned(
    ngx_http_ai_anthropic_write_t *w);
static void ngx_http_ai_anthropic_plan_turns(
    ngx_http_ai_anthropic_write_t *w);
static void ngx_http_ai_anthropic_out_sampling(
    ngx_http_ai_anthropic_write_t *w);
static ngx_int_t ngx_http_ai_anthropic_out_options(
    ngx_http_ai_anthropic_write_t *w);
static void ngx_http_ai_anthropic_out_system(
    ngx_http_ai_anthropic_write_t *w);
static ngx_int_t ngx_http_ai_anthropic_out_tools(
    ngx_http_ai_anthropic_write_t *w);
static ngx_int_t ngx_http_ai_anthropic_out_schema(
    ngx_http_ai_anthropic_write_t *w, ngx_str_t *schema, ngx_uint_t i);
static void ngx_http_ai_anthropic_out_choice(
    ngx_http_ai_anthropic_write_t *w);


ngx_int_t
ngx_http_ai_anthropic_encode_request(ngx_http_ai_codec_t *codec,
    ngx_http_ai_request_t *req, ngx_http_ai_target_info_t *target,
    ngx_http_ai_out_t *out)
{
    ngx_int_t                      rc;
    ngx_http_ai_anthropic_write_t  w;

    ngx_memzero(&w, sizeof(ngx_http_ai_anthropic_write_t));

    w.codec = codec;
    w.req = req;
    w.target = target;
    w.out = out;
    w.json.pool = codec->pool;
    w.json.shallow = 1;

    ngx_http_ai_anthropic_model_read(&target->model, &w.model);
    ngx_http_ai_anthropic_plan_turns(&w);
    ngx_http_ai_anthropic_plan(&w);

    if (req->format == NGX_HTTP_AI_FORMAT_SCHEMA && w.model.structured) {

        rc = ngx_http_ai_anthropic_schema_closed(&w, &req->schema);
        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        w.native = (rc == NGX_OK);
    }

    ngx_http_ai_out_lit(out, "{\"model\":\"");
    ngx_http_ai_out_escaped(out, target->model.data, target->model.len);
    ngx_http_ai_out_lit(out, "\",\"max_tokens\":");
    ngx_http_ai_out_int(out, w.max_tokens);

    ngx_http_ai_anthropic_out_sampling(&w);

    rc = ngx_http_ai_anthropic_out_options(&w);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_ai_anthropic_out_tools(&w);
    if (rc != NGX_OK) {
        return rc;
    }

    ngx_http_ai_anthropic_out_choice(&w);
    ngx_http_ai_anthropic_out_system(&w);

    rc = ngx_http_ai_anthropic_out_messages(&w);
    if (rc != NGX_OK) {
        return rc;
    }

    ngx_http_ai_out_lit(out, "}");

    return out->failed ? NGX_ERROR : NGX_OK;
}


/*
 * Names are "claude-opus-4-7-20260301", "claude-3-7-sonnet-latest" and the
 * same in the longer names of other hosts, with dots too.
 */

static void
ngx_http_ai_anthropic_model_read(ngx_str_t *name,
    ngx_http_ai_anthropic_model_t *model)
{
    u_char      *p, *last;
    size_t       len;
    ngx_int_t    v;
    ngx_uint_t   i, opus, haiku;

    static char  *families[] = { "opus", "sonnet", "haiku", "fable", "mythos",
                                 NULL };

    ngx_memzero(model, sizeof(ngx_http_ai_anthropic_model_t));

    /* what is not known must take what the dialect is made of, no more */

    model->max_output = 8192;
    model->structured = 1;

    if (name->len == 0) {
        return;
    }

    last = name->data + name->len;
    p = NULL;
    len = 0;

    for (i = 0; families[i]; i++) {
        len = ngx_strlen(families[i]);
        p = ngx_strlcasestrn(name->data, last, (u_char *) families[i],
                             len - 1);
        if (p) {
            break;
        }
    }

    v = -1;

    if (p) {
        v = ngx_http_ai_anthropic_version(p + len, last);
    }

    if (v < 0) {
        p = ngx_strlcasestrn(name->data, last, (u_char *) "claude",
                             sizeof("claude") - 2);
        if (p == NULL) {
            return;
        }

        v = ngx_http_ai_anthropic_version(p + sizeof("claude") - 1, last);

        if (v < 0) {
            return;
        }
    }

    opus = (i == 0);
    haiku = (i == 2);

    model->known = 1;

    model->thinking = opus ? (v >= 400)
                           : haiku ? (v >= 405) : (v >= 307);
    model->adaptive = haiku ? (v >= 500) : (v >= 406);
    model->fixed = opus ? (v >= 407) : (v >= 500);
    model->one = opus ? (v >= 401) : (v >= 405);
    model->structured = model->one;
    model->forced = (v >= 500);

    if (v >= 406 && !haiku) {
        model->max_output = 128000;

    } else if (v >= 405 || (!opus && v >= 307)) {
        model->max_output = 64000;

    } else if (v >= 400) {
        model->max_output = 32000;

    } else if (v >= 305) {
        model->max_output = 8192;

    } else {
        model->max_output = 4096;
    }
}


/* "-4-5", "-4.5", "-4" and a date is 405, 405, 400; -1 without a version */

static ngx_int_t
ngx_http_ai_anthropic_version(u_char *p, u_char *last)
{
    ngx_int_t   v, n;
    ngx_uint_t  i, digits;

    v = 0;

    for (i = 0; i < 2; i++) {

        if (p == last || (*p != '-' && *p != '.' && *p != '_')) {
            break;
        }

        n = 0;
        digits = 0;

        for (p++; p < last && *p >= '0' && *p <= '9'; p++) {
            if (++digits <= 2) {
                n = n * 10 + (*p - '0');
            }
        }

        if (digits == 0 || digits > 2) {
            break;
        }

        v += i ? n : n * 100;
    }

    return (i == 0) ? -1 : v;
}


static void
ngx_http_ai_anthropic_plan(ngx_http_ai_anthropic_write_t *w)
{
    int64_t                         limit, budget;
    ngx_http_ai_request_t          *req;
    ngx_http_ai_anthropic_model_t  *model;

    req = w->req;
    model = &w->model;

    limit = 0;

    if (model->known) {
        limit = ngx_http_ai_max(model->max_output,
                                (int64_t) w->target->max_output);
    }

    if (req->max_output.len
        && ngx_http_ai_json_fixed(&req->max_output, 0, &w->max_tokens)
           == NGX_OK)
    {
        if (limit && w->max_tokens > limit) {
            w->max_tokens = limit;
        }

    } else if (w->target->max_output) {
        w->max_tokens = w->target->max_output;

    } else {
        w->max_tokens = model->max_output;

        if (!req->stream) {
            w->max_tokens = ngx_http_ai_min(w->max_tokens,
                                            NGX_HTTP_AI_ANTHROPIC_MAX_WHOLE);
        }
    }

    ngx_http_ai_anthropic_plan_thinking(w);

    if (w->budget == 0) {
        return;
    }

    /* the answer needs room besides what is thought */

    budget = ngx_http_ai_max(w->budget, NGX_HTTP_AI_ANTHROPIC_MIN_BUDGET);

    if (w->max_tokens <= budget && w->max_tokens > 0) {
        w->budget = w->max_tokens;

        if (budget > INT64_MAX - w->max_tokens) {
            budget = INT64_MAX - w->max_tokens;
        }

        w->max_tokens += budget;

        if (limit && w->max_tokens > limit) {
            budget = limit - ngx_http_ai_min(w->budget, limit / 2);
            w->max_tokens = limit;
        }
    }

    w->budget = budget;

    if (w->max_tokens == 0) {
        w->budget = 0;
        w->thinking = NULL;
    }
}


static void
ngx_http_ai_anthropic_plan_thinking(ngx_http_ai_anthropic_write_t *w)
{
    int64_t                         budget;
    ngx_uint_t                      thinking;
    ngx_http_ai_effort_e            effort;
    ngx_http_ai_request_t          *req;
    ngx_http_ai_anthropic_model_t  *model;

    static int64_t  budgets[] = { 4096, 0, 1024, 1024, 4096, 16384, 32000,
                                  32000 };
    static char    *efforts[] = { NULL, NULL, "low", "low", "medium", "high",
                                  "max", "max" };

    req = w->req;
    model = &w->model;

    thinking = req->thinking;
    effort = req->effort;

    budget = 0;

    if (req->thinking_budget.len
        && ngx_http_ai_json_fixed(&req->thinking_budget, 0, &budget)
           != NGX_OK)
    {
        budget = 0;
    }

    if (!model->thinking) {

        /* other makers' models take what is said in so many words */

        if (model->known) {
            return;
        }

        if (thinking == 1 || effort == NGX_HTTP_AI_EFFORT_NONE) {
            w->thinking = "disabled";

        } else if (thinking == 3) {
            w->thinking = "adaptive";

        } else if (thinking == 2) {
            w->thinking = "enabled";
            w->budget = budget ? budget : budgets[effort];
        }

        return;
    }

    if (thinking == 0 && effort == NGX_HTTP_AI_EFFORT_ABSENT) {
        return;
    }

    if (model->adaptive) {
        w->effort = efforts[effort];

        if (effort == NGX_HTTP_AI_EFFORT_XHIGH && model->fixed) {
            w->effort = "xhigh";
        }
    }

    if (thinking == 1 || effort == NGX_HTTP_AI_EFFORT_NONE) {
        w->thinking = "disabled";

        if (effort > NGX_HTTP_AI_EFFORT_HIGH && model->forced) {
            w->effort = "high";
        }

        return;
    }

    if (model->adaptive && (model->fixed || thinking != 2 || budget == 0)) {
        w->thinking = "adaptive";

        if (w->effort == NULL && budget) {
            w->effort = (budget <= 2048) ? "low"
                        : (budget <= 8192) ? "medium" : "high";
        }

        return;
    }

    if (ngx_http_ai_anthropic_unsigned(w)) {
        return;
    }

    if (budget == 0) {
        budget = budgets[effort];

        if (thinking == 3 && effort == NGX_HTTP_AI_EFFORT_ABSENT) {
            budget = budgets[NGX_HTTP_AI_EFFORT_HIGH];
        }
    }

    w->thinking = "enabled";
    w->budget = budget;
}


/*
 * With a budget, calls whose results are being sent must come with what was
 * thought before them.  Clients of other dialects do not keep it, and it
 * cannot be made up.
 */

static ngx_uint_t
ngx_http_ai_anthropic_unsigned(ngx_http_ai_anthropic_write_t *w)
{
    ngx_uint_t           bad, results;
    ngx_http_ai_part_t  *part;
    ngx_http_ai_turn_t  *turn;

    bad = 0;
    results = 0;

    for (turn = w->first; turn; turn = turn->next) {

        switch (turn->role) {

        case NGX_HTTP_AI_ROLE_TOOL:
            results = 1;
            continue;

        case NGX_HTTP_AI_ROLE_USER:
            if (!results) {
                bad = 0;
            }

            continue;

        case NGX_HTTP_AI_ROLE_ASSISTANT:
            results = 0;
            break;

        default:
            continue;
        }

        for (part = turn->parts; part; part = part->next) {

            if ((part->type == NGX_HTTP_AI_PART_REASONING
                 && part->signature.len)
                || part->type == NGX_HTTP_AI_PART_REDACTED)
            {
                bad = 0;
                break;
            }

            if (part->type == NGX_HTTP_AI_PART_TOOL_CALL) {
                bad = 1;
                break;
            }
        }
    }

    return bad;
}


static void
ngx_http_ai_anthropic_plan_turns(ngx_http_ai_anthropic_write_t *w)
{
    ngx_http_ai_part_t  *part;
    ngx_http_ai_turn_t  *turn, *last;

    for (turn = w->req->turns;
         turn && turn->role <= NGX_HTTP_AI_ROLE_DEVELOPER;
         turn = turn->next)
    {
        /* void */
    }

    w->first = turn;

    last = NULL;

    for ( /* void */ ; turn; turn = turn->next) {
        if (turn->role > NGX_HTTP_AI_ROLE_DEVELOPER) {
            last = turn;
        }
    }

    if (last == NULL || last->role != NGX_HTTP_AI_ROLE_ASSISTANT) {
        return;
    }

    for (part = last->parts; part; part = part->next) {

        switch (part->type) {

        case NGX_HTTP_AI_PART_TEXT:
        case NGX_HTTP_AI_PART_REFUSAL:
            if (!ngx_http_ai_anthropic_blank(&part->text)) {
                w->trim = part;
            }

            break;

        case NGX_HTTP_AI_PART_TOOL_CALL:
            w->trim = NULL;
            break;

        default:
            break;
        }
    }
}


static void
ngx_http_ai_anthropic_out_sampling(ngx_http_ai_anthropic_write_t *w)
{
    int64_t                 v;
    ngx_uint_t              on;
    ngx_http_ai_out_t      *out;
    ngx_http_ai_request_t  *req;

    out = w->out;
    req = w->req;

    if (w->model.fixed) {
        return;
    }

    on = (w->thinking && w->thinking[0] != 'd');

    if (req->temperature.len && !on) {
        ngx_http_ai_out_lit(out, ",\"temperature\":");

        if (ngx_http_ai_json_fixed(&req->temperature, 6, &v) == NGX_OK
            && v > 1000000)
        {
            ngx_http_ai_out_lit(out, "1");

        } else {
            ngx_http_ai_out_str(out, &req->temperature);
        }
    }

    if (req->top_p.len && !(req->temperature.len && !on && w->model.one)) {

        /* with thinking only the upper end is allowed */

        if (!on || (ngx_http_ai_json_fixed(&req->top_p, 6, &v) == NGX_OK
                    && v >= 950000 && v <= 1000000))
        {
            ngx_http_ai_out_lit(out, ",\"top_p\":");
            ngx_http_ai_out_str(out, &req->top_p);
        }
    }

    if (req->top_k.len && !on) {
        ngx_http_ai_out_lit(out, ",\"top_k\":");
        ngx_http_ai_out_str(out, &req->top_k);
    }
}


static ngx_int_t
ngx_http_ai_anthropic_out_options(ngx_http_ai_anthropic_write_t *w)
{
    ngx_int_t               rc;
    ngx_uint_t              i, n;
    ngx_http_ai_out_t      *out;
    ngx_http_ai_request_t  *req;

    out = w->out;
    req = w->req;

    if (req->stream) {
        ngx_http_ai_out_lit(out, ",\"stream\":true");
    }

    n = 0;

    for (i = 0; i < req->nstop; i++) {

        if (ngx_http_ai_anthropic_blank(&req->stop[i])) {
            continue;
        }

        if (n++ == 0) {
            ngx_http_ai_out_lit(out, ",\"stop_sequences\":[\"");

        } else {
            ngx_http_ai_out_lit(out, ",\"");
        }

        ngx_http_ai_out_str(out, &req->stop[i]);
        ngx_http_ai_out_lit(out, "\"");
    }

    if (n) {
        ngx_http_ai_out_lit(out, "]");
    }

    if (w->thinking) {
        ngx_http_ai_out_lit(out, ",\"thinking\":{\"type\":\"");
        ngx_http_ai_out_mem(out, w->thinking, ngx_strlen(w->thinking));
        ngx_http_ai_out_lit(out, "\"");

        if (w->budget) {
            ngx_http_ai_out_lit(out, ",\"budget_tokens\":");
            ngx_http_ai_out_int(out, w->budget);
        }

        ngx_http_ai_out_lit(out, "}");
    }

    if (w->effort || w->native) {
        ngx_http_ai_out_lit(out, ",\"output_config\":{");

        if (w->effort) {
            ngx_http_ai_out_lit(out, "\"effort\":\"");
            ngx_http_ai_out_mem(out, w->effort, ngx_strlen(w->effort));
            ngx_http_ai_out_lit(out, "\"");
        }

        if (w->effort && w->native) {
            ngx_http_ai_out_lit(out, ",");
        }

        if (w->native) {
            ngx_http_ai_out_lit(out, "\"format\":{\"type\":\"json_schema\","
                                     "\"schema\":");

            rc = ngx_http_ai_anthropic_out_closed(w, &req->schema);
            if (rc != NGX_OK) {
                return rc;
            }

            ngx_http_ai_out_lit(out, "}");
        }

        ngx_http_ai_out_lit(out, "}");
    }

    if (req->user.len) {
        ngx_http_ai_out_lit(out, ",\"metadata\":{\"user_id\":\"");
        ngx_http_ai_out_str(out, &req->user);
        ngx_http_ai_out_lit(out, "\"}");
    }

    if (ngx_http_ai_str_is(&req->service_tier, "auto")) {
        ngx_http_ai_out_lit(out, ",\"service_tier\":\"auto\"");

    } else if (ngx_http_ai_str_is(&req->service_tier, "default")
               || ngx_http_ai_str_is(&req->service_tier, "standard_only"))
    {
        ngx_http_ai_out_lit(out, ",\"service_tier\":\"standard_only\"");
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_out_tools(ngx_http_ai_anthropic_write_t *w)
{
    ngx_int_t            rc;
    ngx_uint_t           i;
    ngx_http_ai_out_t   *out;
    ngx_http_ai_tool_t  *tool;

    out = w->out;
    i = 0;

    for (tool = w->req->tools; tool; tool = tool->next) {

        if (i == 0) {
            ngx_http_ai_out_lit(out, ",\"tools\":[{\"name\":\"");

        } else {
            ngx_http_ai_out_lit(out, ",{\"name\":\"");
        }

        ngx_http_ai_out_str(out, &tool->name);

        if (tool->description.len) {
            ngx_http_ai_out_lit(out, "\",\"description\":\"");
            ngx_http_ai_out_str(out, &tool->description);
        }

        ngx_http_ai_out_lit(out, "\",\"input_schema\":");

        rc = NGX_DECLINED;

        if (tool->strict == 2 && w->model.structured) {
            rc = ngx_http_ai_anthropic_schema_closed(w, &tool->schema);
        }

        if (rc == NGX_OK) {
            rc = ngx_http_ai_anthropic_out_closed(w, &tool->schema);
            ngx_http_ai_out_lit(out, ",\"strict\":true");

        } else if (rc == NGX_DECLINED) {
            rc = ngx_http_ai_anthropic_out_schema(w, &tool->schema, i);
        }

        if (rc != NGX_OK) {
            return rc;
        }

        ngx_http_ai_anthropic_out_mark(w, tool->cached, &tool->cache);

        ngx_http_ai_out_lit(out, "}");

        i++;
    }

    if (i) {
        ngx_http_ai_out_lit(out, "]");
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_out_schema(ngx_http_ai_anthropic_write_t *w,
    ngx_str_t *schema, ngx_uint_t i)
{
    u_char               param[sizeof("tools[].function.parameters")
                               + NGX_INT_T_LEN];
    ngx_int_t            rc;
    ngx_str_t            s;
    ngx_uint_t           n;
    ngx_http_ai_out_t   *out;
    ngx_http_ai_json_t  *j;

    out = w->out;
    j = &w->json;

    if (schema->len == 0) {
        ngx_http_ai_out_lit(out, "{\"type\":\"object\",\"properties\":{}}");
        return NGX_OK;
    }

    rc = ngx_http_ai_anthropic_parse(w, schema);
    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (rc == NGX_OK
        && ngx_http_ai_json_type(j, 0) == NGX_HTTP_AI_JSON_OBJECT)
    {
        n = ngx_http_ai_json_member(j, 0, "type");
        s = ngx_http_ai_json_raw(j, 0);

        if (n == NGX_HTTP_AI_JSON_NONE) {

            if (j->nodes[0].count == 0) {
                ngx_http_ai_out_lit(out, "{\"type\":\"object\","
                                         "\"properties\":{}}");
                return NGX_OK;
            }

            ngx_http_ai_out_lit(out, "{\"type\":\"object\",");
            ngx_http_ai_out_mem(out, s.data + 1, s.len - 1);

            return NGX_OK;
        }

        if (ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_STRING
            && j->nodes[n].len == sizeof("object") - 1
            && ngx_memcmp(j->nodes[n].start, "object", sizeof("object") - 1)
               == 0)
        {
            ngx_http_ai_out_str(out, &s);
            return NGX_OK;
        }
    }

    *ngx_sprintf(param, "tools[%ui].function.parameters", i) = '\0';

    return ngx_http_ai_codec_refuse(w->codec, (char *) param,
                                    "%s: must be a schema of type \"object\"",
                                    param);
}


static void
ngx_http_ai_anthropic_out_choice(ngx_http_ai_anthropic_write_t *w)
{
    ngx_http_ai_out_t      *out;
    ngx_http_ai_choice_e    choice;
    ngx_http_ai_request_t  *req;

    out = w->out;
    req = w->req;
    choice = req->choice;

    if (req->tools == NULL) {
        return;
    }

    /* a call cannot be forced on a model that is to think first */

    if ((choice == NGX_HTTP_AI_CHOICE_REQUIRED
         || choice == NGX_HTTP_AI_CHOICE_NAMED)
        && w->thinking && w->thinking[0] != 'd')
    {
        choice = NGX_HTTP_AI_CHOICE_AUTO;
    }

    switch (choice) {

    case NGX_HTTP_AI_CHOICE_NONE:
        ngx_http_ai_out_lit(out, ",\"tool_choice\":{\"type\":\"none\"}");
        return;

    case NGX_HTTP_AI_CHOICE_REQUIRED:
        ngx_http_ai_out_lit(out, ",\"tool_choice\":{\"type\":\"any\"");
        break;

    case NGX_HTTP_AI_CHOICE_NAMED:
        ngx_http_ai_out_lit(out, ",\"tool_choice\":{\"type\":\"tool\","
                                 "\"name\":\"");
        ngx_http_ai_out_str(out, &req->choice_name);
        ngx_http_ai_out_lit(out, "\"");
        break;

    default:
        if (choice == NGX_HTTP_AI_CHOICE_ABSENT && req->parallel != 1) {
            return;
        }

        ngx_http_ai_out_lit(out, ",\"tool_choice\":{\"type\":\"auto\"");
        break;
    }

    if (req->parallel == 1) {
        ngx_http_ai_out_lit(out, ",\"disable_parallel_tool_use\":true");
    }

    ngx_http_ai_out_lit(out, "}");
}


static void
ngx_http_ai_anthropic_out_system(ngx_http_ai_anthropic_write_t *w)
{
    ngx_uint_t              n, blocks, extra;
    ngx_http_ai_out_t      *out;
    ngx_http_ai_part_t     *part;
    ngx_http_ai_turn_t     *turn;
    ngx_http_ai_request_t  *req;

    out = w->out;
    req = w->req;

    extra = (req->format == NGX_HTTP_AI_FORMAT_JSON
             || (req->format == NGX_HTTP_AI_FORMAT_SCHEMA && !w->native));
    blocks = extra;

    for (n = 0; n < 2; n++) {

        /* first counted, then written */

        for (turn = req->turns; turn; turn = turn->next) {

            if (w->first == NULL
                || (w->model.fixed && turn == w->first))
            {
                break;
            }

            if (turn->role > NGX_HTTP_AI_ROLE_DEVELOPER) {
                continue;
            }

            for (part = turn->parts; part; part = part->next) {

                if (part->type != NGX_HTTP_AI_PART_TEXT
                    || ngx_http_ai_anthropic_blank(&part->text))
                {
                    continue;
                }

                if (n == 0) {
                    blocks += part->cached ? 2 : 1;
                    continue;
                }

                if (blocks == 1) {
                    ngx_http_ai_out_lit(out, ",\"system\":\"");
                    ngx_http_ai_out_str(out, &part->text);
                    ngx_http_ai_out_lit(out, "\"");
                    return;
                }

                ngx_http_ai_anthropic_out_open(w, "system");
                ngx_http_ai_anthropic_out_text(w, &part->text, part);
            }
        }

        if (blocks == 0) {
            return;
        }

        if (n == 0 && (blocks > 1 || extra)) {
            ngx_http_ai_out_lit(out, ",\"system\":[");
            blocks = ngx_http_ai_max(blocks, 2);

            /* blocks are written as those of a message */

            w->role = "system";
            w->messages = 0;
        }
    }

    if (extra) {
        ngx_http_ai_anthropic_out_open(w, "system");

        if (req->format == NGX_HTTP_AI_FORMAT_JSON) {
            ngx_http_ai_out_lit(out, "{\"type\":\"text\",\"text\":\"Respond "
                                "with a single JSON object and nothing else."
                                "\"}");

        } else {
            ngx_http_ai_out_lit(out, "{\"type\":\"text\",\"text\":\"Respond "
                                "with a single JSON object that conforms to "
                                "this JSON schema, and nothing else:\\n");
            ngx_http_ai_out_reescaped(out, &req->schema);
            ngx_http_ai_out_lit(out, "\"}");
        }
    }

    ngx_http_ai_out_lit(out, "]");

    w->role = NULL;
    w->messages = 0;
}
