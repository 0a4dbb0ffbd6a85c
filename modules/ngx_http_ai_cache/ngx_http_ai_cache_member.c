
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_cache_member.h"


#define NGX_HTTP_AI_CACHE_BUCKETS   512
#define NGX_HTTP_AI_CACHE_MAX_NAME  32


static void ngx_http_ai_cache_members_init(void);
static ngx_uint_t ngx_http_ai_cache_member_hash(u_char *name, size_t len,
    ngx_uint_t place);
static const ngx_http_ai_cache_member_t *ngx_http_ai_cache_member_escaped(
    ngx_str_t *raw, ngx_uint_t place, ngx_uint_t *bit);
static const ngx_http_ai_cache_member_t *ngx_http_ai_cache_member_named(
    ngx_str_t *name, ngx_uint_t place, ngx_uint_t *bit);


#define ngx_http_ai_cache_map(where, literal, form)                           \
    { ngx_string(literal), NGX_HTTP_AI_CACHE_##where, NGX_HTTP_AI_CACHE_MAP,  \
      0, 0, form, NULL }

/* only in objects of these kinds */

#define ngx_http_ai_cache_of(where, literal, kinds, form)                     \
    { ngx_string(literal), NGX_HTTP_AI_CACHE_##where, NGX_HTTP_AI_CACHE_MAP,  \
      kinds, 0, form, NULL }

#define ngx_http_ai_cache_in(where, literal, kinds, form, inner)              \
    { ngx_string(literal), NGX_HTTP_AI_CACHE_##where, NGX_HTTP_AI_CACHE_MAP,  \
      kinds, NGX_HTTP_AI_CACHE_##inner, form, NULL }

#define ngx_http_ai_cache_skip(where, literal)                                \
    { ngx_string(literal), NGX_HTTP_AI_CACHE_##where, NGX_HTTP_AI_CACHE_SKIP, \
      0, 0, 0, NULL }

#define ngx_http_ai_cache_mode(where, literal)                                \
    { ngx_string(literal), NGX_HTTP_AI_CACHE_##where, NGX_HTTP_AI_CACHE_MODE, \
      0, 0, 0, NULL }

#define ngx_http_ai_cache_neutral(where, literal, kinds, value)               \
    { ngx_string(literal), NGX_HTTP_AI_CACHE_##where,                         \
      NGX_HTTP_AI_CACHE_NEUTRAL, kinds, 0, 0, value }

#define FLAG    NGX_HTTP_AI_CACHE_FLAG
#define NUMBER  NGX_HTTP_AI_CACHE_NUMBER
#define STRING  NGX_HTTP_AI_CACHE_STRING
#define ARRAY   NGX_HTTP_AI_CACHE_ARRAY
#define OBJECT  NGX_HTTP_AI_CACHE_OBJECT
#define TEXTS   NGX_HTTP_AI_CACHE_TEXTS
#define FILLED  NGX_HTTP_AI_CACHE_FILLED
#define URL     NGX_HTTP_AI_CACHE_URL
#define PLAIN   NGX_HTTP_AI_CACHE_PLAIN
#define HEAT    NGX_HTTP_AI_CACHE_HEAT
#define INPUT   NGX_HTTP_AI_CACHE_INPUT
#define ANY     (FLAG|NUMBER|STRING|ARRAY|OBJECT)

#define K(n)    (1 << (n))


const ngx_http_ai_cache_place_t
                  ngx_http_ai_cache_places[NGX_HTTP_AI_CACHE_PLACES] = {

    [NGX_HTTP_AI_CACHE_O_MESSAGE] = { ngx_string("role"), 0,
        { "system", "developer", "user", "assistant", "tool", NULL } },

    [NGX_HTTP_AI_CACHE_O_PART] = { ngx_string("type"), 0,
        { "text", "image_url", "input_audio", "file", "refusal", NULL } },

    [NGX_HTTP_AI_CACHE_O_CALL] = { ngx_string("type"), 1,
        { "function", "custom", NULL } },

    [NGX_HTTP_AI_CACHE_O_TOOL] = { ngx_string("type"), 1,
        { "function", NULL } },

    [NGX_HTTP_AI_CACHE_O_CHOICE] = { ngx_string("type"), 0,
        { "function", NULL } },

    [NGX_HTTP_AI_CACHE_O_FORMAT] = { ngx_string("type"), 0,
        { "text", "json_object", "json_schema", NULL } },

    [NGX_HTTP_AI_CACHE_A_MESSAGE] = { ngx_string("role"), 0,
        { "user", "assistant", "system", NULL } },

    [NGX_HTTP_AI_CACHE_A_BLOCK] = { ngx_string("type"), 0,
        { "text", "image", "document", "tool_result", "tool_use", "thinking",
          "redacted_thinking", NULL } },

    [NGX_HTTP_AI_CACHE_A_SOURCE] = { ngx_string("type"), 0,
        { "base64", "url", "file", "text", NULL } },

    [NGX_HTTP_AI_CACHE_A_TOOL] = { ngx_string("type"), 1,
        { "custom", NULL } },

    [NGX_HTTP_AI_CACHE_A_CHOICE] = { ngx_string("type"), 0,
        { "auto", "any", "tool", "none", NULL } },

    [NGX_HTTP_AI_CACHE_A_THINKING] = { ngx_string("type"), 0,
        { "enabled", "disabled", "adaptive", NULL } },

    [NGX_HTTP_AI_CACHE_A_FORMAT] = { ngx_string("type"), 0,
        { "json_schema", NULL } }
};


/*
 * Of several spellings that the pivot makes one of (tools and functions,
 * reasoning_effort and reasoning), only that one is here which providers of
 * the dialect take: between clients and providers of one dialect the others
 * are passed on as they are, and may not be heard.
 */

const ngx_http_ai_cache_member_t  ngx_http_ai_cache_members[] = {

    /* OpenAI's chat */

    ngx_http_ai_cache_skip(O_CHAT, "model"),
    ngx_http_ai_cache_in(O_CHAT, "messages", 0, ARRAY, O_MESSAGE),
    ngx_http_ai_cache_in(O_CHAT, "tools", 0, ARRAY, O_TOOL),
    ngx_http_ai_cache_in(O_CHAT, "tool_choice", 0, STRING|OBJECT, O_CHOICE),
    ngx_http_ai_cache_map(O_CHAT, "parallel_tool_calls", FLAG),
    ngx_http_ai_cache_map(O_CHAT, "max_completion_tokens", NUMBER),
    ngx_http_ai_cache_map(O_CHAT, "max_tokens", NUMBER),
    ngx_http_ai_cache_map(O_CHAT, "stop", STRING|ARRAY|TEXTS|FILLED),
    ngx_http_ai_cache_map(O_CHAT, "temperature", NUMBER|HEAT),
    ngx_http_ai_cache_map(O_CHAT, "top_p", NUMBER),
    ngx_http_ai_cache_map(O_CHAT, "top_k", NUMBER),
    ngx_http_ai_cache_map(O_CHAT, "seed", NUMBER),
    ngx_http_ai_cache_map(O_CHAT, "frequency_penalty", NUMBER),
    ngx_http_ai_cache_map(O_CHAT, "presence_penalty", NUMBER),
    ngx_http_ai_cache_in(O_CHAT, "response_format", 0, OBJECT, O_FORMAT),
    ngx_http_ai_cache_map(O_CHAT, "reasoning_effort", STRING),

    ngx_http_ai_cache_mode(O_CHAT, "stream"),
    ngx_http_ai_cache_mode(O_CHAT, "stream_options"),
    ngx_http_ai_cache_skip(O_CHAT, "user"),
    ngx_http_ai_cache_skip(O_CHAT, "safety_identifier"),
    ngx_http_ai_cache_skip(O_CHAT, "metadata"),
    ngx_http_ai_cache_skip(O_CHAT, "store"),
    ngx_http_ai_cache_skip(O_CHAT, "service_tier"),
    ngx_http_ai_cache_skip(O_CHAT, "prompt_cache_key"),
    ngx_http_ai_cache_skip(O_CHAT, "prompt_cache_options"),
    ngx_http_ai_cache_skip(O_CHAT, "prompt_cache_retention"),

    ngx_http_ai_cache_neutral(O_CHAT, "n", 0, "1"),
    ngx_http_ai_cache_neutral(O_CHAT, "logprobs", 0, "false"),
    ngx_http_ai_cache_neutral(O_CHAT, "top_logprobs", 0, "0"),
    ngx_http_ai_cache_neutral(O_CHAT, "logit_bias", 0, "{}"),
    ngx_http_ai_cache_neutral(O_CHAT, "modalities", 0, "[\"text\"]"),
    ngx_http_ai_cache_neutral(O_CHAT, "audio", 0, "null"),
    ngx_http_ai_cache_neutral(O_CHAT, "prediction", 0, "null"),
    ngx_http_ai_cache_neutral(O_CHAT, "web_search_options", 0, "null"),
    ngx_http_ai_cache_neutral(O_CHAT, "verbosity", 0, "null"),
    ngx_http_ai_cache_neutral(O_CHAT, "functions", 0, "null"),
    ngx_http_ai_cache_neutral(O_CHAT, "function_call", 0, "null"),

    ngx_http_ai_cache_map(O_MESSAGE, "role", STRING),
    ngx_http_ai_cache_in(O_MESSAGE, "content", 0, STRING|ARRAY|TEXTS, O_PART),
    ngx_http_ai_cache_map(O_MESSAGE, "name", STRING),
    ngx_http_ai_cache_of(O_MESSAGE, "refusal", K(3), STRING),
    ngx_http_ai_cache_of(O_MESSAGE, "reasoning_content", K(3), STRING),
    ngx_http_ai_cache_of(O_MESSAGE, "reasoning_signature", K(3), STRING),
    ngx_http_ai_cache_of(O_MESSAGE, "reasoning_redacted", K(3), ARRAY|TEXTS),
    ngx_http_ai_cache_in(O_MESSAGE, "tool_calls", K(3), ARRAY, O_CALL),
    ngx_http_ai_cache_of(O_MESSAGE, "tool_call_id", K(4), STRING),
    ngx_http_ai_cache_skip(O_MESSAGE, "cache_control"),
    ngx_http_ai_cache_skip(O_MESSAGE, "prompt_cache_breakpoint"),

    /* clients send messages back as they got them */

    ngx_http_ai_cache_neutral(O_MESSAGE, "annotations", K(3), "[]"),
    ngx_http_ai_cache_neutral(O_MESSAGE, "audio", K(3), "null"),
    ngx_http_ai_cache_neutral(O_MESSAGE, "function_call", K(3), "null"),
    ngx_http_ai_cache_neutral(O_MESSAGE, "reasoning", K(3), "null"),

    ngx_http_ai_cache_map(O_PART, "type", STRING),
    ngx_http_ai_cache_of(O_PART, "text", K(0), STRING),
    ngx_http_ai_cache_in(O_PART, "image_url", K(1), STRING|OBJECT|URL,
                         O_IMAGE),
    ngx_http_ai_cache_in(O_PART, "input_audio", K(2), OBJECT, O_AUDIO),
    ngx_http_ai_cache_in(O_PART, "file", K(3), OBJECT, O_FILE),
    ngx_http_ai_cache_of(O_PART, "refusal", K(4), STRING),
    ngx_http_ai_cache_skip(O_PART, "cache_control"),
    ngx_http_ai_cache_skip(O_PART, "prompt_cache_breakpoint"),

    ngx_http_ai_cache_map(O_IMAGE, "url", STRING|URL),
    ngx_http_ai_cache_map(O_IMAGE, "detail", STRING),

    ngx_http_ai_cache_map(O_AUDIO, "data", STRING),
    ngx_http_ai_cache_map(O_AUDIO, "format", STRING),

    ngx_http_ai_cache_map(O_FILE, "filename", STRING),
    ngx_http_ai_cache_map(O_FILE, "file_id", STRING),
    ngx_http_ai_cache_map(O_FILE, "file_data", STRING|URL),

    ngx_http_ai_cache_map(O_CALL, "type", STRING),
    ngx_http_ai_cache_map(O_CALL, "id", STRING),
    ngx_http_ai_cache_in(O_CALL, "function", K(0), OBJECT, O_CALL_FUNCTION),
    ngx_http_ai_cache_in(O_CALL, "custom", K(1), OBJECT, O_CALL_CUSTOM),

    ngx_http_ai_cache_map(O_CALL_FUNCTION, "name", STRING),
    ngx_http_ai_cache_map(O_CALL_FUNCTION, "arguments", STRING|OBJECT),

    ngx_http_ai_cache_map(O_CALL_CUSTOM, "name", STRING),
    ngx_http_ai_cache_map(O_CALL_CUSTOM, "input", STRING),

    ngx_http_ai_cache_map(O_TOOL, "type", STRING),
    ngx_http_ai_cache_in(O_TOOL, "function", 0, OBJECT, O_FUNCTION),
    ngx_http_ai_cache_skip(O_TOOL, "cache_control"),
    ngx_http_ai_cache_skip(O_TOOL, "prompt_cache_breakpoint"),

    ngx_http_ai_cache_map(O_FUNCTION, "name", STRING),
    ngx_http_ai_cache_map(O_FUNCTION, "description", STRING),
    ngx_http_ai_cache_map(O_FUNCTION, "parameters", OBJECT),
    ngx_http_ai_cache_map(O_FUNCTION, "strict", FLAG),
    ngx_http_ai_cache_skip(O_FUNCTION, "cache_control"),
    ngx_http_ai_cache_skip(O_FUNCTION, "prompt_cache_breakpoint"),

    ngx_http_ai_cache_map(O_CHOICE, "type", STRING),
    ngx_http_ai_cache_in(O_CHOICE, "function", 0, OBJECT, O_CHOICE_FUNCTION),

    ngx_http_ai_cache_map(O_CHOICE_FUNCTION, "name", STRING),

    ngx_http_ai_cache_map(O_FORMAT, "type", STRING),
    ngx_http_ai_cache_in(O_FORMAT, "json_schema", K(2), OBJECT, O_SCHEMA),

    ngx_http_ai_cache_map(O_SCHEMA, "name", STRING),
    ngx_http_ai_cache_map(O_SCHEMA, "description", STRING),
    ngx_http_ai_cache_map(O_SCHEMA, "schema", OBJECT),
    ngx_http_ai_cache_map(O_SCHEMA, "strict", FLAG),

    /* completions and embeddings, which are not in the pivot */

    ngx_http_ai_cache_skip(O_COMPLETION, "model"),
    ngx_http_ai_cache_map(O_COMPLETION, "prompt", ANY),
    ngx_http_ai_cache_map(O_COMPLETION, "max_tokens", ANY),
    ngx_http_ai_cache_map(O_COMPLETION, "stop", ANY),
    ngx_http_ai_cache_map(O_COMPLETION, "temperature", ANY|HEAT),
    ngx_http_ai_cache_map(O_COMPLETION, "top_p", ANY),
    ngx_http_ai_cache_map(O_COMPLETION, "seed", ANY),
    ngx_http_ai_cache_map(O_COMPLETION, "frequency_penalty", ANY),
    ngx_http_ai_cache_map(O_COMPLETION, "presence_penalty", ANY),
    ngx_http_ai_cache_mode(O_COMPLETION, "stream"),
    ngx_http_ai_cache_mode(O_COMPLETION, "stream_options"),
    ngx_http_ai_cache_skip(O_COMPLETION, "user"),
    ngx_http_ai_cache_neutral(O_COMPLETION, "n", 0, "1"),
    ngx_http_ai_cache_neutral(O_COMPLETION, "best_of", 0, "1"),
    ngx_http_ai_cache_neutral(O_COMPLETION, "echo", 0, "false"),
    ngx_http_ai_cache_neutral(O_COMPLETION, "logprobs", 0, "null"),
    ngx_http_ai_cache_neutral(O_COMPLETION, "logit_bias", 0, "{}"),
    ngx_http_ai_cache_neutral(O_COMPLETION, "suffix", 0, "null"),

    ngx_http_ai_cache_skip(O_EMBEDDING, "model"),
    ngx_http_ai_cache_map(O_EMBEDDING, "input", ANY|INPUT),
    ngx_http_ai_cache_map(O_EMBEDDING, "encoding_format", ANY),
    ngx_http_ai_cache_map(O_EMBEDDING, "dimensions", ANY),
    ngx_http_ai_cache_skip(O_EMBEDDING, "user"),

    /* Anthropic's chat */

    ngx_http_ai_cache_skip(A_CHAT, "model"),
    ngx_http_ai_cache_in(A_CHAT, "messages", 0, ARRAY, A_MESSAGE),
    ngx_http_ai_cache_in(A_CHAT, "system", 0, STRING|ARRAY, A_BLOCK),
    ngx_http_ai_cache_map(A_CHAT, "max_tokens", NUMBER),
    ngx_http_ai_cache_map(A_CHAT, "stop_sequences", ARRAY|TEXTS|FILLED),
    ngx_http_ai_cache_map(A_CHAT, "temperature", NUMBER|HEAT),
    ngx_http_ai_cache_map(A_CHAT, "top_p", NUMBER),
    ngx_http_ai_cache_map(A_CHAT, "top_k", NUMBER),
    ngx_http_ai_cache_in(A_CHAT, "tools", 0, ARRAY, A_TOOL),
    ngx_http_ai_cache_in(A_CHAT, "tool_choice", 0, OBJECT, A_CHOICE),
    ngx_http_ai_cache_in(A_CHAT, "thinking", 0, OBJECT, A_THINKING),
    ngx_http_ai_cache_in(A_CHAT, "output_config", 0, OBJECT, A_OUTPUT),

    ngx_http_ai_cache_mode(A_CHAT, "stream"),
    ngx_http_ai_cache_skip(A_CHAT, "metadata"),
    ngx_http_ai_cache_skip(A_CHAT, "service_tier"),
    ngx_http_ai_cache_skip(A_CHAT, "cache_control"),

    ngx_http_ai_cache_neutral(A_CHAT, "mcp_servers", 0, "[]"),
    ngx_http_ai_cache_neutral(A_CHAT, "container", 0, "null"),
    ngx_http_ai_cache_neutral(A_CHAT, "context_management", 0, "null"),
    ngx_http_ai_cache_neutral(A_CHAT, "output_format", 0, "null"),

    ngx_http_ai_cache_map(A_MESSAGE, "role", STRING),
    ngx_http_ai_cache_in(A_MESSAGE, "content", 0, STRING|ARRAY|FILLED,
                         A_BLOCK),

    ngx_http_ai_cache_map(A_BLOCK, "type", STRING),
    ngx_http_ai_cache_of(A_BLOCK, "text", K(0), STRING),
    ngx_http_ai_cache_in(A_BLOCK, "source", K(1)|K(2), OBJECT, A_SOURCE),
    ngx_http_ai_cache_of(A_BLOCK, "title", K(2), STRING),
    ngx_http_ai_cache_neutral(A_BLOCK, "context", K(2), "null"),
    ngx_http_ai_cache_neutral(A_BLOCK, "citations", K(0)|K(2), "null"),
    ngx_http_ai_cache_of(A_BLOCK, "tool_use_id", K(3), STRING),
    ngx_http_ai_cache_of(A_BLOCK, "is_error", K(3), FLAG),
    ngx_http_ai_cache_in(A_BLOCK, "content", K(3), STRING|ARRAY, A_BLOCK),
    ngx_http_ai_cache_of(A_BLOCK, "id", K(4), STRING),
    ngx_http_ai_cache_of(A_BLOCK, "name", K(4), STRING),
    ngx_http_ai_cache_of(A_BLOCK, "input", K(4), OBJECT),
    ngx_http_ai_cache_of(A_BLOCK, "thinking", K(5), STRING),
    ngx_http_ai_cache_of(A_BLOCK, "signature", K(5), STRING),
    ngx_http_ai_cache_of(A_BLOCK, "data", K(6), STRING),
    ngx_http_ai_cache_skip(A_BLOCK, "cache_control"),

    ngx_http_ai_cache_map(A_SOURCE, "type", STRING),
    ngx_http_ai_cache_of(A_SOURCE, "media_type", K(0)|K(3), STRING|PLAIN),
    ngx_http_ai_cache_of(A_SOURCE, "data", K(0)|K(3), STRING),
    ngx_http_ai_cache_of(A_SOURCE, "url", K(1), STRING),
    ngx_http_ai_cache_of(A_SOURCE, "file_id", K(2), STRING),

    ngx_http_ai_cache_map(A_TOOL, "type", STRING),
    ngx_http_ai_cache_map(A_TOOL, "name", STRING),
    ngx_http_ai_cache_map(A_TOOL, "description", STRING),
    ngx_http_ai_cache_map(A_TOOL, "input_schema", OBJECT),
    ngx_http_ai_cache_map(A_TOOL, "strict", FLAG),
    ngx_http_ai_cache_skip(A_TOOL, "cache_control"),

    ngx_http_ai_cache_map(A_CHOICE, "type", STRING),
    ngx_http_ai_cache_of(A_CHOICE, "name", K(2), STRING),
    ngx_http_ai_cache_map(A_CHOICE, "disable_parallel_tool_use", FLAG),

    ngx_http_ai_cache_map(A_THINKING, "type", STRING),
    ngx_http_ai_cache_of(A_THINKING, "budget_tokens", K(0), NUMBER),

    ngx_http_ai_cache_map(A_OUTPUT, "effort", STRING),
    ngx_http_ai_cache_in(A_OUTPUT, "format", 0, OBJECT, A_FORMAT),

    ngx_http_ai_cache_map(A_FORMAT, "type", STRING),
    ngx_http_ai_cache_map(A_FORMAT, "schema", OBJECT),

    { ngx_null_string, 0, 0, 0, 0, 0, NULL }
};


/* index in the table plus one, by ngx_http_ai_cache_member_hash(); bits are
 * numbers in a place */

static uint8_t     ngx_http_ai_cache_buckets[NGX_HTTP_AI_CACHE_BUCKETS];
static uint8_t     ngx_http_ai_cache_bits[256];
static ngx_uint_t  ngx_http_ai_cache_members_ready;


static void
ngx_http_ai_cache_members_init(void)
{
    ngx_uint_t                         i, h, n[NGX_HTTP_AI_CACHE_PLACES];
    const ngx_http_ai_cache_member_t  *m;

    ngx_memzero(n, sizeof(n));

    for (i = 0; ngx_http_ai_cache_members[i].name.len; i++) {
        m = &ngx_http_ai_cache_members[i];

        h = ngx_http_ai_cache_member_hash(m->name.data, m->name.len,
                                          m->place);

        while (ngx_http_ai_cache_buckets[h]) {
            h = (h + 1) % NGX_HTTP_AI_CACHE_BUCKETS;
        }

        ngx_http_ai_cache_buckets[h] = (uint8_t) (i + 1);
        ngx_http_ai_cache_bits[i] = (uint8_t) n[m->place]++;
    }

    ngx_http_ai_cache_members_ready = 1;
}


static ngx_uint_t
ngx_http_ai_cache_member_hash(u_char *name, size_t len, ngx_uint_t place)
{
    return (len * 5 + name[0] * 31 + name[len / 2] * 7 + name[len - 1] * 3
            + place * 73)
           % NGX_HTTP_AI_CACHE_BUCKETS;
}


const ngx_http_ai_cache_member_t *
ngx_http_ai_cache_member(ngx_http_ai_json_t *j, ngx_uint_t key,
    ngx_uint_t place, ngx_uint_t *bit)
{
    ngx_str_t  name;

    name = ngx_http_ai_json_raw(j, key);

    return j->nodes[key].escaped
           ? ngx_http_ai_cache_member_escaped(&name, place, bit)
           : ngx_http_ai_cache_member_named(&name, place, bit);
}


static const ngx_http_ai_cache_member_t *
ngx_http_ai_cache_member_escaped(ngx_str_t *raw, ngx_uint_t place,
    ngx_uint_t *bit)
{
    u_char     buf[6 * NGX_HTTP_AI_CACHE_MAX_NAME];
    ngx_str_t  name;

    if (raw->len > sizeof(buf)) {
        return NULL;
    }

    name.data = buf;
    name.len = ngx_http_ai_json_unescape(buf, raw) - buf;

    return ngx_http_ai_cache_member_named(&name, place, bit);
}


static const ngx_http_ai_cache_member_t *
ngx_http_ai_cache_member_named(ngx_str_t *name, ngx_uint_t place,
    ngx_uint_t *bit)
{
    ngx_uint_t                         h, i;
    const ngx_http_ai_cache_member_t  *m;

    if (!ngx_http_ai_cache_members_ready) {
        ngx_http_ai_cache_members_init();
    }

    if (name->len == 0 || name->len > NGX_HTTP_AI_CACHE_MAX_NAME) {
        return NULL;
    }

    h = ngx_http_ai_cache_member_hash(name->data, name->len, place);

    for ( /* void */ ;
         ngx_http_ai_cache_buckets[h];
         h = (h + 1) % NGX_HTTP_AI_CACHE_BUCKETS)
    {
        i = ngx_http_ai_cache_buckets[h] - 1;
        m = &ngx_http_ai_cache_members[i];

        if (m->name.len == name->len && m->place == place
            && ngx_memcmp(m->name.data, name->data, name->len) == 0)
        {
            *bit = ngx_http_ai_cache_bits[i];
            return m;
        }
    }

    return NULL;
}


ngx_http_ai_cache_place_e
ngx_http_ai_cache_body_place(ngx_http_ai_dialect_t *dialect,
    ngx_http_ai_op_e op)
{
    if (ngx_http_ai_str_is(&dialect->name, "openai")) {

        switch (op) {

        case NGX_HTTP_AI_OP_CHAT:
            return NGX_HTTP_AI_CACHE_O_CHAT;

        case NGX_HTTP_AI_OP_COMPLETIONS:
            return NGX_HTTP_AI_CACHE_O_COMPLETION;

        case NGX_HTTP_AI_OP_EMBEDDINGS:
            return NGX_HTTP_AI_CACHE_O_EMBEDDING;

        default:
            return NGX_HTTP_AI_CACHE_NOWHERE;
        }
    }

    if (ngx_http_ai_str_is(&dialect->name, "anthropic")
        && op == NGX_HTTP_AI_OP_CHAT)
    {
        return NGX_HTTP_AI_CACHE_A_CHAT;
    }

    return NGX_HTTP_AI_CACHE_NOWHERE;
}
