
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_dialect.h"
#include "ngx_http_ai_dialect_openai.h"
#include "ngx_http_ai_dialect_openai_request.h"


typedef struct {
    ngx_str_t                  name;
    ngx_uint_t                 flags;
    const char               **efforts;
} ngx_http_ai_openai_vendor_t;


static ngx_int_t ngx_http_ai_openai_wr_turns(ngx_http_ai_openai_wr_t *w);
static ngx_int_t ngx_http_ai_openai_wr_system(ngx_http_ai_openai_wr_t *w,
    ngx_http_ai_turn_t *turn);
static ngx_int_t ngx_http_ai_openai_wr_assistant(ngx_http_ai_openai_wr_t *w,
    ngx_http_ai_turn_t *turn);
static ngx_int_t ngx_http_ai_openai_wr_call(ngx_http_ai_openai_wr_t *w,
    ngx_http_ai_part_t *part);
static void ngx_http_ai_openai_wr_thoughts(ngx_http_ai_openai_wr_t *w,
    ngx_http_ai_turn_t *turn);
static ngx_int_t ngx_http_ai_openai_wr_user(ngx_http_ai_openai_wr_t *w,
    ngx_http_ai_turn_t *turn, ngx_http_ai_turn_t *end);
static void ngx_http_ai_openai_wr_result(ngx_http_ai_openai_wr_t *w,
    ngx_http_ai_part_t *part);
static void ngx_http_ai_openai_wr_message(ngx_http_ai_openai_wr_t *w,
    const char *role, ngx_str_t *name);
static ngx_uint_t ngx_http_ai_openai_is_text(ngx_http_ai_part_t *part);
static ngx_int_t ngx_http_ai_openai_wr_part(ngx_http_ai_openai_wr_t *w,
    ngx_http_ai_part_t *part, ngx_uint_t *n);
static void ngx_http_ai_openai_wr_file(ngx_http_ai_openai_wr_t *w,
    ngx_http_ai_part_t *part);
static void ngx_http_ai_openai_wr_call_id(ngx_http_ai_openai_wr_t *w,
    ngx_str_t *id);


/* by ngx_http_ai_effort_e, from EFFORT_NONE */

static const char  *ngx_http_ai_openai_efforts[] = {
    "none", "minimal", "low", "medium", "high", "xhigh", "max"
};

static const char  *ngx_http_ai_openai_efforts_deepseek[] = {
    NULL, "low", "low", "high", "high", "high", "max"
};

static const char  *ngx_http_ai_openai_efforts_mistral[] = {
    "none", "minimal", "low", "medium", "high", "xhigh", "xhigh"
};

static const char  *ngx_http_ai_openai_efforts_plain[] = {
    "none", "low", "low", "medium", "high", "high", "high"
};


static ngx_http_ai_openai_vendor_t  ngx_http_ai_openai_vendors[] = {

    { ngx_string("openai"),
      NGX_HTTP_AI_OPENAI_COMPLETION
      |NGX_HTTP_AI_OPENAI_DEVELOPER
      |NGX_HTTP_AI_OPENAI_ARRAYS
      |NGX_HTTP_AI_OPENAI_NAMES
      |NGX_HTTP_AI_OPENAI_CUSTOM
      |NGX_HTTP_AI_OPENAI_REFUSALS
      |NGX_HTTP_AI_OPENAI_SAFETY
      |NGX_HTTP_AI_OPENAI_TIER
      |NGX_HTTP_AI_OPENAI_USAGE,
      ngx_http_ai_openai_efforts },

    { ngx_string("azure"),
      NGX_HTTP_AI_OPENAI_COMPLETION
      |NGX_HTTP_AI_OPENAI_DEVELOPER
      |NGX_HTTP_AI_OPENAI_ARRAYS
      |NGX_HTTP_AI_OPENAI_NAMES
      |NGX_HTTP_AI_OPENAI_CUSTOM
      |NGX_HTTP_AI_OPENAI_REFUSALS
      |NGX_HTTP_AI_OPENAI_USER
      |NGX_HTTP_AI_OPENAI_TIER
      |NGX_HTTP_AI_OPENAI_USAGE,
      ngx_http_ai_openai_efforts },

    { ngx_string("openrouter"),
      NGX_HTTP_AI_OPENAI_DEVELOPER
      |NGX_HTTP_AI_OPENAI_ARRAYS
      |NGX_HTTP_AI_OPENAI_NAMES
      |NGX_HTTP_AI_OPENAI_USER
      |NGX_HTTP_AI_OPENAI_TIER
      |NGX_HTTP_AI_OPENAI_USAGE
      |NGX_HTTP_AI_OPENAI_TOP_K
      |NGX_HTTP_AI_OPENAI_DETAILS
      |NGX_HTTP_AI_OPENAI_CACHE
      |NGX_HTTP_AI_OPENAI_FILE_URL,
      ngx_http_ai_openai_efforts },

    { ngx_string("deepseek"),
      NGX_HTTP_AI_OPENAI_NAMES
      |NGX_HTTP_AI_OPENAI_USAGE
      |NGX_HTTP_AI_OPENAI_THOUGHTS
      |NGX_HTTP_AI_OPENAI_THINKING,
      ngx_http_ai_openai_efforts_deepseek },

    { ngx_string("mistral"),
      NGX_HTTP_AI_OPENAI_ARRAYS
      |NGX_HTTP_AI_OPENAI_MISTRAL
      |NGX_HTTP_AI_OPENAI_FILE_URL,
      ngx_http_ai_openai_efforts_mistral },

    { ngx_string("groq"),
      NGX_HTTP_AI_OPENAI_USER
      |NGX_HTTP_AI_OPENAI_TIER
      |NGX_HTTP_AI_OPENAI_USAGE,
      ngx_http_ai_openai_efforts_plain },

    { ngx_string("together"),
      NGX_HTTP_AI_OPENAI_NAMES
      |NGX_HTTP_AI_OPENAI_USER
      |NGX_HTTP_AI_OPENAI_USAGE
      |NGX_HTTP_AI_OPENAI_TOP_K,
      ngx_http_ai_openai_efforts_plain },

    { ngx_string("vllm"),
      NGX_HTTP_AI_OPENAI_NAMES
      |NGX_HTTP_AI_OPENAI_USER
      |NGX_HTTP_AI_OPENAI_USAGE
      |NGX_HTTP_AI_OPENAI_TOP_K
      |NGX_HTTP_AI_OPENAI_THOUGHTS,
      ngx_http_ai_openai_efforts_plain },

    { ngx_string("llamacpp"),
      NGX_HTTP_AI_OPENAI_NAMES
      |NGX_HTTP_AI_OPENAI_USER
      |NGX_HTTP_AI_OPENAI_USAGE
      |NGX_HTTP_AI_OPENAI_ONE_TOOL,
      ngx_http_ai_openai_efforts_plain },

    /* all others */

    { ngx_null_string,
      NGX_HTTP_AI_OPENAI_NAMES
      |NGX_HTTP_AI_OPENAI_USER
      |NGX_HTTP_AI_OPENAI_USAGE,
      ngx_http_ai_openai_efforts_plain }
};


ngx_int_t
ngx_http_ai_openai_encode_request(ngx_http_ai_codec_t *codec,
    ngx_http_ai_request_t *req, ngx_http_ai_target_info_t *target,
    ngx_http_ai_out_t *out)
{
    ngx_int_t                     rc;
    ngx_http_ai_openai_wr_t       w;
    ngx_http_ai_openai_vendor_t  *v;

    for (v = ngx_http_ai_openai_vendors; v->name.len; v++) {
        if (v->name.len == target->vendor.len
            && ngx_strncmp(v->name.data, target->vendor.data, v->name.len)
               == 0)
        {
            break;
        }
    }

    ngx_memzero(&w, sizeof(ngx_http_ai_openai_wr_t));

    w.codec = codec;
    w.req = req;
    w.out = out;
    w.flags = v->flags;

    ngx_http_ai_out_lit(out, "{\"model\":\"");
    ngx_http_ai_out_escaped(out, target->model.data, target->model.len);
    ngx_http_ai_out_lit(out, "\"");

    /* before the messages, as prompt caches like it */

    ngx_http_ai_openai_wr_tools(&w);

    rc = ngx_http_ai_openai_wr_turns(&w);
    if (rc != NGX_OK) {
        return rc;
    }

    ngx_http_ai_openai_wr_sampling(&w);
    ngx_http_ai_openai_wr_format(&w);
    ngx_http_ai_openai_wr_effort(&w, v->efforts);
    ngx_http_ai_openai_wr_user_id(&w);
    ngx_http_ai_openai_wr_tier(&w);

    if (req->stream) {
        ngx_http_ai_out_lit(out, ",\"stream\":true");

        if (w.flags & NGX_HTTP_AI_OPENAI_USAGE) {
            ngx_http_ai_out_lit(out,
                               ",\"stream_options\":{\"include_usage\":true}");
        }
    }

    ngx_http_ai_out_lit(out, "}");

    return out->failed ? NGX_ERROR : NGX_OK;
}


static ngx_int_t
ngx_http_ai_openai_wr_turns(ngx_http_ai_openai_wr_t *w)
{
    ngx_int_t            rc;
    ngx_http_ai_part_t  *part;
    ngx_http_ai_turn_t  *turn, *end;

    ngx_http_ai_out_lit(w->out, ",\"messages\":[");

    for (turn = w->req->turns; turn; turn = end) {

        end = turn->next;

        switch (turn->role) {

        case NGX_HTTP_AI_ROLE_SYSTEM:
        case NGX_HTTP_AI_ROLE_DEVELOPER:
            rc = ngx_http_ai_openai_wr_system(w, turn);
            break;

        case NGX_HTTP_AI_ROLE_ASSISTANT:
            rc = ngx_http_ai_openai_wr_assistant(w, turn);
            break;

        default:

            /*
             * results must follow the call without anything in between: those
             * of turns in a row go first, the other parts of them after that
             */

            while (end && (end->role == NGX_HTTP_AI_ROLE_TOOL
                           || end->role == NGX_HTTP_AI_ROLE_USER))
            {
                for (part = end->parts; part; part = part->next) {
                    if (part->type == NGX_HTTP_AI_PART_TOOL_RESULT) {
                        break;
                    }
                }

                if (part == NULL) {
                    break;
                }

                end = end->next;
            }

            rc = ngx_http_ai_openai_wr_user(w, turn, end);
        }

        if (rc != NGX_OK) {
            return rc;
        }
    }

    ngx_http_ai_out_lit(w->out, "]");

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_openai_wr_system(ngx_http_ai_openai_wr_t *w,
    ngx_http_ai_turn_t *turn)
{
    ngx_int_t            rc;
    ngx_uint_t           n, array;
    ngx_http_ai_out_t   *out;
    ngx_http_ai_part_t  *part;

    out = w->out;
    array = 0;

    for (part = turn->parts; part; part = part->next) {

        if (!ngx_http_ai_openai_is_text(part)) {
            return ngx_http_ai_codec_refuse(w->codec, "messages",
                       "messages: the provider that serves this model takes "
                       "only text in a system message");
        }

        if ((part->cached && (w->flags & NGX_HTTP_AI_OPENAI_CACHE))
            || (part->next && (w->flags & NGX_HTTP_AI_OPENAI_ARRAYS)))
        {
            array = 1;
        }
    }

    ngx_http_ai_openai_wr_message(w,
                         (turn->role == NGX_HTTP_AI_ROLE_DEVELOPER
                          && (w->flags & NGX_HTTP_AI_OPENAI_DEVELOPER))
                         ? "developer" : "system",
                         &turn->name);

    if (array) {
        ngx_http_ai_out_lit(out, ",\"content\":[");

        n = 0;

        for (part = turn->parts; part; part = part->next) {
            rc = ngx_http_ai_openai_wr_part(w, part, &n);
            if (rc != NGX_OK) {
                return rc;
            }
        }

        ngx_http_ai_out_lit(out, "]}");

        return NGX_OK;
    }

    ngx_http_ai_out_lit(out, ",\"content\":\"");

    for (part = turn->parts; part; part = part->next) {

        if (part != turn->parts) {
            ngx_http_ai_out_lit(out, "\\n\\n");
        }

        ngx_http_ai_out_str(out, &part->text);
    }

    ngx_http_ai_out_lit(out, "\"}");

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_openai_wr_assistant(ngx_http_ai_openai_wr_t *w,
    ngx_http_ai_turn_t *turn)
{
    ngx_int_t            rc;
    ngx_uint_t           n, text, marks, calls, refusals;
    ngx_http_ai_out_t   *out;
    ngx_http_ai_part_t  *part;

    out = w->out;

    text = 0;
    marks = 0;
    calls = 0;
    refusals = 0;

    for (part = turn->parts; part; part = part->next) {

        switch (part->type) {

        case NGX_HTTP_AI_PART_TEXT:
            text++;
            marks += part->cached;
            break;

        case NGX_HTTP_AI_PART_REFUSAL:

            if (w->flags & NGX_HTTP_AI_OPENAI_REFUSALS) {
                refusals++;

            } else {
                text++;
            }

            break;

        case NGX_HTTP_AI_PART_TOOL_CALL:
            calls++;
            break;

        case NGX_HTTP_AI_PART_REASONING:
        case NGX_HTTP_AI_PART_REDACTED:
            break;

        default:
            return ngx_http_ai_codec_refuse(w->codec, "messages",
                       "messages: the provider that serves this model takes "
                       "only text and tool calls in an assistant message");
        }
    }

    w->assistant = turn;

    ngx_http_ai_openai_wr_message(w, "assistant", &turn->name);

    if (text == 0) {
        if (calls || refusals) {
            ngx_http_ai_out_lit(out, ",\"content\":null");

        } else {
            ngx_http_ai_out_lit(out, ",\"content\":\"\"");
        }

    } else if ((text > 1 && (w->flags & NGX_HTTP_AI_OPENAI_ARRAYS))
               || (marks && (w->flags & NGX_HTTP_AI_OPENAI_CACHE)))
    {
        ngx_http_ai_out_lit(out, ",\"content\":[");

        n = 0;

        for (part = turn->parts; part; part = part->next) {

            if (part->type == NGX_HTTP_AI_PART_TEXT
                || (part->type == NGX_HTTP_AI_PART_REFUSAL && !refusals))
            {
                rc = ngx_http_ai_openai_wr_part(w, part, &n);
                if (rc != NGX_OK) {
                    return rc;
                }
            }
        }

        ngx_http_ai_out_lit(out, "]");

    } else {
        ngx_http_ai_out_lit(out, ",\"content\":\"");

        n = 0;

        for (part = turn->parts; part; part = part->next) {

            if (part->type == NGX_HTTP_AI_PART_TEXT
                || (part->type == NGX_HTTP_AI_PART_REFUSAL && !refusals))
            {
                if (n++) {
                    ngx_http_ai_out_lit(out, "\\n\\n");
                }

                ngx_http_ai_out_str(out, &part->text);
            }
        }

        ngx_http_ai_out_lit(out, "\"");
    }

    if (refusals) {
        ngx_http_ai_out_lit(out, ",\"refusal\":\"");

        for (part = turn->parts; part; part = part->next) {
            if (part->type == NGX_HTTP_AI_PART_REFUSAL) {
                ngx_http_ai_out_str(out, &part->text);
            }
        }

        ngx_http_ai_out_lit(out, "\"");
    }

    ngx_http_ai_openai_wr_thoughts(w, turn);

    if (calls) {
        ngx_http_ai_out_lit(out, ",\"tool_calls\":[");

        n = 0;

        for (part = turn->parts; part; part = part->next) {

            if (part->type != NGX_HTTP_AI_PART_TOOL_CALL) {
                continue;
            }

            if (n++) {
                ngx_http_ai_out_lit(out, ",");
            }

            rc = ngx_http_ai_openai_wr_call(w, part);
            if (rc != NGX_OK) {
                return rc;
            }
        }

        ngx_http_ai_out_lit(out, "]");
    }

    ngx_http_ai_out_lit(out, "}");

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_openai_wr_call(ngx_http_ai_openai_wr_t *w,
    ngx_http_ai_part_t *part)
{
    ngx_http_ai_out_t  *out;

    out = w->out;

    ngx_http_ai_out_lit(out, "{\"id\":\"");
    ngx_http_ai_openai_wr_call_id(w, &part->id);

    if (part->custom) {

        if (!(w->flags & NGX_HTTP_AI_OPENAI_CUSTOM)) {
            return ngx_http_ai_codec_refuse(w->codec, "messages",
                       "messages: the provider that serves this model has no "
                       "custom tool calls");
        }

        ngx_http_ai_out_lit(out, "\",\"type\":\"custom\",\"custom\":"
                                 "{\"name\":\"");
        ngx_http_ai_out_str(out, &part->name);
        ngx_http_ai_out_lit(out, "\",\"input\":\"");
        ngx_http_ai_out_str(out, &part->args_text);
        ngx_http_ai_out_lit(out, "\"}}");

        return NGX_OK;
    }

    ngx_http_ai_out_lit(out, "\",\"type\":\"function\",\"function\":"
                             "{\"name\":\"");
    ngx_http_ai_out_str(out, &part->name);
    ngx_http_ai_out_lit(out, "\",\"arguments\":\"");

    if (part->args.len) {
        ngx_http_ai_out_reescaped(out, &part->args);

    } else if (part->args_text.len) {
        ngx_http_ai_out_str(out, &part->args_text);

    } else {
        ngx_http_ai_out_lit(out, "{}");
    }

    ngx_http_ai_out_lit(out, "\"}}");

    return NGX_OK;
}


static void
ngx_http_ai_openai_wr_thoughts(ngx_http_ai_openai_wr_t *w,
    ngx_http_ai_turn_t *turn)
{
    ngx_uint_t           n;
    ngx_http_ai_out_t   *out;
    ngx_http_ai_part_t  *part;

    out = w->out;
    n = 0;

    if (w->flags & NGX_HTTP_AI_OPENAI_THOUGHTS) {

        for (part = turn->parts; part; part = part->next) {

            if (part->type != NGX_HTTP_AI_PART_REASONING) {
                continue;
            }

            if (n++ == 0) {
                ngx_http_ai_out_lit(out, ",\"reasoning_content\":\"");

            } else {
                ngx_http_ai_out_lit(out, "\\n\\n");
            }

            ngx_http_ai_out_str(out, &part->text);
        }

        if (n) {
            ngx_http_ai_out_lit(out, "\"");
        }

        return;
    }

    if (!(w->flags & NGX_HTTP_AI_OPENAI_DETAILS)) {
        return;
    }

    /* only what a model of Anthropic behind it can verify */

    for (part = turn->parts; part; part = part->next) {

        if (part->type != NGX_HTTP_AI_PART_REDACTED
            && (part->type != NGX_HTTP_AI_PART_REASONING
                || part->signature.len == 0))
        {
            continue;
        }

        if (n == 0) {
            ngx_http_ai_out_lit(out, ",\"reasoning_details\":[");

        } else {
            ngx_http_ai_out_lit(out, ",");
        }

        if (part->type == NGX_HTTP_AI_PART_REDACTED) {
            ngx_http_ai_out_lit(out, "{\"type\":\"reasoning.encrypted\","
                                     "\"data\":\"");
            ngx_http_ai_out_str(out, &part->data);

        } else {
            ngx_http_ai_out_lit(out, "{\"type\":\"reasoning.text\","
                                     "\"text\":\"");
            ngx_http_ai_out_str(out, &part->text);
            ngx_http_ai_out_lit(out, "\",\"signature\":\"");
            ngx_http_ai_out_str(out, &part->signature);
        }

        ngx_http_ai_out_lit(out, "\",\"format\":\"anthropic-claude-v1\","
                                 "\"index\":");
        ngx_http_ai_out_int(out, n++);
        ngx_http_ai_out_lit(out, "}");
    }

    if (n) {
        ngx_http_ai_out_lit(out, "]");
    }
}


/* turns of the user and of tools, up to "end" */

static ngx_int_t
ngx_http_ai_openai_wr_user(ngx_http_ai_openai_wr_t *w,
    ngx_http_ai_turn_t *turn, ngx_http_ai_turn_t *end)
{
    ngx_int_t            rc;
    ngx_str_t           *name;
    ngx_uint_t           n, parts, results, array;
    ngx_http_ai_out_t   *out;
    ngx_http_ai_part_t  *part, *sub;
    ngx_http_ai_turn_t  *t;

    out = w->out;

    parts = 0;
    results = 0;
    array = 0;
    name = &turn->name;

    for (t = turn; t != end; t = t->next) {

        for (part = t->parts; part; part = part->next) {

            if (part->type == NGX_HTTP_AI_PART_TOOL_RESULT) {
                ngx_http_ai_openai_wr_result(w, part);
                results++;

                /* what a result cannot hold goes to the user's message */

                for (sub = part->parts; sub; sub = sub->next) {
                    if (!ngx_http_ai_openai_is_text(sub)) {
                        parts++;
                        array = 1;
                    }
                }

                continue;
            }

            parts++;

            if (t->role == NGX_HTTP_AI_ROLE_USER) {
                name = &t->name;
            }

            if (!ngx_http_ai_openai_is_text(part)
                || (part->cached && (w->flags & NGX_HTTP_AI_OPENAI_CACHE))
                || (parts > 1 && (w->flags & NGX_HTTP_AI_OPENAI_ARRAYS)))
            {
                array = 1;
            }
        }
    }

    if (parts == 0 && results) {
        return NGX_OK;
    }

    ngx_http_ai_openai_wr_message(w, "user", name);

    if (!array) {
        ngx_http_ai_out_lit(out, ",\"content\":\"");

        n = 0;

        for (t = turn; t != end; t = t->next) {
            for (part = t->parts; part; part = part->next) {

                if (part->type == NGX_HTTP_AI_PART_TOOL_RESULT) {
                    continue;
                }

                if (n++) {
                    ngx_http_ai_out_lit(out, "\\n\\n");
                }

                ngx_http_ai_out_str(out, &part->text);
            }
        }

        ngx_http_ai_out_lit(out, "\"}");

        return NGX_OK;
    }

    ngx_http_ai_out_lit(out, ",\"content\":[");

    n = 0;

    for (t = turn; t != end; t = t->next) {
        for (part = t->parts; part; part = part->next) {

            if (part->type != NGX_HTTP_AI_PART_TOOL_RESULT) {
                continue;
            }

            for (sub = part->parts; sub; sub = sub->next) {

                if (ngx_http_ai_openai_is_text(sub)) {
                    continue;
                }

                rc = ngx_http_ai_openai_wr_part(w, sub, &n);
                if (rc != NGX_OK) {
                    return rc;
                }
            }
        }
    }

    for (t = turn; t != end; t = t->next) {
        for (part = t->parts; part; part = part->next) {

            if (part->type == NGX_HTTP_AI_PART_TOOL_RESULT) {
                continue;
            }

            rc = ngx_http_ai_openai_wr_part(w, part, &n);
            if (rc != NGX_OK) {
                return rc;
            }
        }
    }

    ngx_http_ai_out_lit(out, "]}");

    return NGX_OK;
}


static void
ngx_http_ai_openai_wr_result(ngx_http_ai_openai_wr_t *w,
    ngx_http_ai_part_t *part)
{
    ngx_str_t           *name;
    ngx_uint_t           n;
    ngx_http_ai_out_t   *out;
    ngx_http_ai_part_t  *p, *sub;

    out = w->out;

    ngx_http_ai_openai_wr_message(w, "tool", NULL);

    ngx_http_ai_out_lit(out, ",\"tool_call_id\":\"");
    ngx_http_ai_openai_wr_call_id(w, &part->id);
    ngx_http_ai_out_lit(out, "\"");

    if (w->flags & NGX_HTTP_AI_OPENAI_MISTRAL) {

        /* the function's name is wanted too */

        name = &part->name;

        for (p = (name->len || w->assistant == NULL) ? NULL
                                                     : w->assistant->parts;
             p;
             p = p->next)
        {
            if (p->type == NGX_HTTP_AI_PART_TOOL_CALL
                && p->id.len == part->id.len
                && ngx_memcmp(p->id.data, part->id.data, p->id.len) == 0)
            {
                name = &p->name;
                break;
            }
        }

        if (name->len) {
            ngx_http_ai_out_lit(out, ",\"name\":\"");
            ngx_http_ai_out_str(out, name);
            ngx_http_ai_out_lit(out, "\"");
        }
    }

    ngx_http_ai_out_lit(out, ",\"content\":\"");

    if (part->is_error) {
        ngx_http_ai_out_lit(out, "Error: ");
    }

    n = 0;

    for (sub = part->parts; sub; sub = sub->next) {

        if (n++) {
            ngx_http_ai_out_lit(out, "\\n");
        }

        if (ngx_http_ai_openai_is_text(sub)) {
            ngx_http_ai_out_str(out, &sub->text);

        } else if (sub->type == NGX_HTTP_AI_PART_IMAGE) {
            ngx_http_ai_out_lit(out, "[image: see the next user message]");

        } else {
            ngx_http_ai_out_lit(out, "[file: see the next user message]");
        }
    }

    ngx_http_ai_out_lit(out, "\"}");
}


static void
ngx_http_ai_openai_wr_message(ngx_http_ai_openai_wr_t *w, const char *role,
    ngx_str_t *name)
{
    if (w->messages++) {
        ngx_http_ai_out_lit(w->out, ",");
    }

    ngx_http_ai_out_lit(w->out, "{\"role\":\"");
    ngx_http_ai_out_mem(w->out, role, ngx_strlen(role));
    ngx_http_ai_out_lit(w->out, "\"");

    if (name && name->len && (w->flags & NGX_HTTP_AI_OPENAI_NAMES)) {
        ngx_http_ai_out_lit(w->out, ",\"name\":\"");
        ngx_http_ai_out_str(w->out, name);
        ngx_http_ai_out_lit(w->out, "\"");
    }
}


static ngx_uint_t
ngx_http_ai_openai_is_text(ngx_http_ai_part_t *part)
{
    switch (part->type) {

    case NGX_HTTP_AI_PART_TEXT:
    case NGX_HTTP_AI_PART_REFUSAL:
        return 1;

    case NGX_HTTP_AI_PART_FILE:
        return part->text.data != NULL;

    default:
        return 0;
    }
}


static ngx_int_t
ngx_http_ai_openai_wr_part(ngx_http_ai_openai_wr_t *w,
    ngx_http_ai_part_t *part, ngx_uint_t *n)
{
    ngx_http_ai_out_t  *out;

    out = w->out;

    if ((*n)++) {
        ngx_http_ai_out_lit(out, ",");
    }

    if (ngx_http_ai_openai_is_text(part)) {
        ngx_http_ai_out_lit(out, "{\"type\":\"text\",\"text\":\"");
        ngx_http_ai_out_str(out, &part->text);
        ngx_http_ai_out_lit(out, "\"");

        goto mark;
    }

    switch (part->type) {

    case NGX_HTTP_AI_PART_IMAGE:

        if (part->data.len == 0 && part->url.len == 0) {
            return ngx_http_ai_codec_refuse(w->codec, "messages",
                       "messages: the provider that serves this model cannot "
                       "read images by file id");
        }

        ngx_http_ai_out_lit(out, "{\"type\":\"image_url\",\"image_url\":"
                                 "{\"url\":\"");

        if (part->data.len) {
            ngx_http_ai_out_lit(out, "data:");
            ngx_http_ai_out_str(out, &part->mime);
            ngx_http_ai_out_lit(out, ";base64,");
            ngx_http_ai_out_str(out, &part->data);

        } else {
            ngx_http_ai_out_str(out, &part->url);
        }

        if (part->detail.len) {
            ngx_http_ai_out_lit(out, "\",\"detail\":\"");
            ngx_http_ai_out_str(out, &part->detail);
        }

        ngx_http_ai_out_lit(out, "\"}");

        break;

    case NGX_HTTP_AI_PART_AUDIO:

        if (w->flags & NGX_HTTP_AI_OPENAI_MISTRAL) {
            ngx_http_ai_out_lit(out, "{\"type\":\"input_audio\","
                                     "\"input_audio\":\"");
            ngx_http_ai_out_str(out, &part->data);
            ngx_http_ai_out_lit(out, "\"");
            break;
        }

        ngx_http_ai_out_lit(out, "{\"type\":\"input_audio\",\"input_audio\":"
                                 "{\"data\":\"");
        ngx_http_ai_out_str(out, &part->data);
        ngx_http_ai_out_lit(out, "\",\"format\":\"");
        ngx_http_ai_out_str(out, &part->mime);
        ngx_http_ai_out_lit(out, "\"}");

        break;

    case NGX_HTTP_AI_PART_FILE:

        if (part->data.len == 0 && part->file_id.len == 0
            && (part->url.len == 0
                || !(w->flags & NGX_HTTP_AI_OPENAI_FILE_URL)))
        {
            return ngx_http_ai_codec_refuse(w->codec, "messages",
                       "messages: the provider that serves this model cannot "
                       "read files by URL");
        }

        ngx_http_ai_openai_wr_file(w, part);
        break;

    default:
        return ngx_http_ai_codec_refuse(w->codec, "messages",
                   "messages: the provider that serves this model cannot take "
                   "this content in a user message");
    }

mark:

    ngx_http_ai_openai_wr_mark(w, part->cached, &part->cache);
    ngx_http_ai_out_lit(out, "}");

    return NGX_OK;
}


static void
ngx_http_ai_openai_wr_file(ngx_http_ai_openai_wr_t *w,
    ngx_http_ai_part_t *part)
{
    ngx_http_ai_out_t  *out;

    out = w->out;

    if (part->data.len == 0 && part->url.len
        && (w->flags & NGX_HTTP_AI_OPENAI_MISTRAL))
    {
        ngx_http_ai_out_lit(out, "{\"type\":\"document_url\","
                                 "\"document_url\":\"");
        ngx_http_ai_out_str(out, &part->url);
        ngx_http_ai_out_lit(out, "\"");
        return;
    }

    ngx_http_ai_out_lit(out, "{\"type\":\"file\",\"file\":{\"");

    if (part->data.len == 0 && part->url.len == 0) {
        ngx_http_ai_out_lit(out, "file_id\":\"");
        ngx_http_ai_out_str(out, &part->file_id);
        ngx_http_ai_out_lit(out, "\"}");
        return;
    }

    ngx_http_ai_out_lit(out, "filename\":\"");

    if (part->name.len) {
        ngx_http_ai_out_str(out, &part->name);

    } else if (part->mime.len == 0
               || ngx_http_ai_str_is(&part->mime, "application/pdf"))
    {
        ngx_http_ai_out_lit(out, "file.pdf");

    } else {
        ngx_http_ai_out_lit(out, "file");
    }

    ngx_http_ai_out_lit(out, "\",\"file_data\":\"");

    if (part->data.len) {
        ngx_http_ai_out_lit(out, "data:");

        if (part->mime.len) {
            ngx_http_ai_out_str(out, &part->mime);

        } else {
            ngx_http_ai_out_lit(out, "application/pdf");
        }

        ngx_http_ai_out_lit(out, ";base64,");
        ngx_http_ai_out_str(out, &part->data);

    } else {
        ngx_http_ai_out_str(out, &part->url);
    }

    ngx_http_ai_out_lit(out, "\"}");
}


void
ngx_http_ai_openai_wr_mark(ngx_http_ai_openai_wr_t *w, unsigned cached,
    ngx_str_t *cache)
{
    if (!cached || !(w->flags & NGX_HTTP_AI_OPENAI_CACHE)) {
        return;
    }

    ngx_http_ai_out_lit(w->out, ",\"cache_control\":{\"type\":\"ephemeral\"");

    if (cache->len) {
        ngx_http_ai_out_lit(w->out, ",\"ttl\":");
        ngx_http_ai_out_str(w->out, cache);
    }

    ngx_http_ai_out_lit(w->out, "}");
}


/*
 * The same id gives the same text in the call and in its result.  Mistral
 * takes nine letters and digits, others up to 64 characters.
 */

static void
ngx_http_ai_openai_wr_call_id(ngx_http_ai_openai_wr_t *w, ngx_str_t *id)
{
    u_char      buf[9], ch;
    uint64_t    hash;
    ngx_uint_t  i;

    if (!(w->flags & NGX_HTTP_AI_OPENAI_MISTRAL)) {

        if (id->len <= 64) {
            ngx_http_ai_out_str(w->out, id);
            return;
        }

        hash = ngx_http_ai_openai_hash(id->data, id->len,
                                       NGX_HTTP_AI_OPENAI_HASH);

        ngx_http_ai_out_lit(w->out, "call_");
        ngx_http_ai_openai_out_hex(w->out, hash);
        hash = ngx_http_ai_openai_hash(id->data, id->len, hash);
        ngx_http_ai_openai_out_hex(w->out, hash);

        return;
    }

    for (i = 0; i < id->len; i++) {
        ch = (u_char) (id->data[i] | 0x20);

        if ((ch < 'a' || ch > 'z')
            && (id->data[i] < '0' || id->data[i] > '9'))
        {
            break;
        }
    }

    if (i == 9 && id->len == 9) {
        ngx_http_ai_out_str(w->out, id);
        return;
    }

    hash = ngx_http_ai_openai_hash(id->data, id->len, NGX_HTTP_AI_OPENAI_HASH);

    /* the low bits of short inputs alone would be poor */

    hash ^= hash >> 29;

    for (i = 0; i < 9; i++) {
        buf[i] = (u_char) "0123456789abcdefghijklmnopqrstuvwxyz"
                          "ABCDEFGHIJKLMNOPQRSTUVWXYZ"[hash % 62];
        hash /= 62;
    }

    ngx_http_ai_out_mem(w->out, buf, 9);
}
