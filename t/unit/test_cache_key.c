
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The key of the cache: what must change it and what must not.  The first
 * part changes each value of the documents below, one at a time; what has to
 * come of it is told by the table of members, all of which must occur.
 */


#include "test.h"
#include "ngx_http_ai_cache_key.h"
#include "ngx_http_ai_cache_member.h"


#define MAX_IDS    4096
#define MAX_DEPTH  32
#define PAIRS      10000


typedef struct {
    const char             *name;
    ngx_http_ai_dialect_t  *dialect;
    ngx_http_ai_op_e        op;
    const char             *text;
} doc_t;


typedef struct {
    ngx_str_t                text;
    ngx_http_ai_cache_key_t  key;
} seen_t;


/* of all keys; NULL: SHA-256 */

static ngx_http_ai_nh_t  *nh;


static doc_t  docs[] = {

    { "openai chat", &ngx_http_ai_dialect_openai, NGX_HTTP_AI_OP_CHAT,
      "{\"model\":\"m\",\"messages\":["
      "{\"role\":\"system\",\"content\":\"Be brief.\",\"name\":\"boss\"},"
      "{\"role\":\"developer\",\"content\":[{\"type\":\"text\",\"text\":"
      "\"No jokes\",\"cache_control\":{\"type\":\"ephemeral\"}}]},"
      "{\"role\":\"user\",\"cache_control\":{\"type\":\"ephemeral\"},"
      "\"prompt_cache_breakpoint\":{\"ttl\":\"12h\"},"
      "\"name\":\"ann\",\"content\":["
      "{\"type\":\"text\",\"text\":\"What is this\","
      "\"prompt_cache_breakpoint\":{\"ttl\":\"12h\"}},"
      "{\"type\":\"image_url\",\"image_url\":{\"url\":"
      "\"data:image/png;base64,AAAA\",\"detail\":\"low\"}},"
      "{\"type\":\"image_url\",\"image_url\":\"https://a.example/b.png\"},"
      "{\"type\":\"input_audio\",\"input_audio\":{\"data\":\"QUJD\","
      "\"format\":\"wav\"}},"
      "{\"type\":\"file\",\"file\":{\"filename\":\"a.pdf\",\"file_data\":"
      "\"data:application/pdf;base64,QUJD\"}},"
      "{\"type\":\"file\",\"file\":{\"file_id\":\"file-1\"}}]},"
      "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":"
      "\"a\"},{\"type\":\"refusal\",\"refusal\":\"b\"}],\"refusal\":\"c\","
      "\"reasoning_content\":\"hm\",\"reasoning_signature\":\"sig\","
      "\"reasoning_redacted\":[\"xx\",\"yy\"],\"annotations\":[],"
      "\"audio\":null,\"function_call\":null,\"reasoning\":null,"
      "\"tool_calls\":[{\"id\":\"call_1\",\"type\":\"function\",\"function\":"
      "{\"name\":\"find\",\"arguments\":\"{\\\"q\\\":\\\"x\\\",\\\"n\\\":1}\"}"
      "},{\"id\":\"call_2\",\"type\":\"custom\",\"custom\":{\"name\":\"run\","
      "\"input\":\"ls\"}},{\"id\":\"call_3\",\"function\":{\"name\":\"find\","
      "\"arguments\":{\"q\":\"y\"}}}]},"
      "{\"role\":\"tool\",\"tool_call_id\":\"call_1\",\"content\":\"found\","
      "\"name\":\"find\"},"
      "{\"role\":\"tool\",\"tool_call_id\":\"call_2\",\"content\":[{\"type\":"
      "\"text\",\"text\":\"ok\"}]}],"
      "\"tools\":[{\"type\":\"function\",\"cache_control\":{\"type\":\"e\"},"
      "\"prompt_cache_breakpoint\":{},"
      "\"function\":{\"name\":\"find\",\"description\":\"finds\","
      "\"cache_control\":{\"type\":\"e\"},\"prompt_cache_breakpoint\":{},"
      "\"parameters\":{\"type\":\"object\",\"properties\":{\"q\":{\"type\":"
      "\"string\"},\"n\":{\"type\":\"integer\",\"minimum\":1}},\"required\":"
      "[\"q\"]},\"strict\":true}},{\"type\":\"function\",\"function\":"
      "{\"name\":\"run\"}}],"
      "\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"find\"}"
      "},\"parallel_tool_calls\":false,\"max_completion_tokens\":256,"
      "\"stop\":[\"END\",\"\\n\\n\"],\"temperature\":0.5,\"top_p\":0.25,"
      "\"top_k\":40,\"seed\":7,\"frequency_penalty\":0.125,"
      "\"presence_penalty\":-0.5,\"response_format\":{\"type\":"
      "\"json_schema\",\"json_schema\":{\"name\":\"out\",\"description\":"
      "\"it\",\"schema\":{\"type\":\"object\",\"properties\":{\"a\":{\"enum\":"
      "[1,2.5,null,true,\"x\"]}}},\"strict\":true}},"
      "\"reasoning_effort\":\"low\",\"stream\":true,\"stream_options\":"
      "{\"include_usage\":true},\"user\":\"u1\",\"safety_identifier\":\"s1\","
      "\"metadata\":{\"a\":\"b\"},\"store\":true,\"service_tier\":\"auto\","
      "\"prompt_cache_key\":\"k\",\"prompt_cache_options\":{\"mode\":\"auto\"}"
      ",\"prompt_cache_retention\":\"24h\",\"n\":1,\"logprobs\":false,"
      "\"top_logprobs\":0,\"logit_bias\":{},\"modalities\":[\"text\"],"
      "\"audio\":null,\"prediction\":null,\"web_search_options\":null,"
      "\"verbosity\":null,\"functions\":null,\"function_call\":null}" },

    { "openai chat, other spellings", &ngx_http_ai_dialect_openai,
      NGX_HTTP_AI_OP_CHAT,
      "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},"
      "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":[{\"id\":\"c\","
      "\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":"
      "\"no json\"}}]},{\"role\":\"tool\",\"tool_call_id\":\"c\",\"content\":"
      "\"r\"}],\"tools\":[{\"type\":\"function\",\"function\":{\"name\":\"f\"}"
      "}],\"tool_choice\":\"required\",\"max_tokens\":10,\"stop\":\"END\","
      "\"temperature\":0,\"response_format\":{\"type\":\"json_object\"}}" },

    { "openai chat with extras", &ngx_http_ai_dialect_openai,
      NGX_HTTP_AI_OP_CHAT,
      "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\","
      "\"weight\":1}],\"verbosity\":\"low\",\"chat_template_kwargs\":"
      "{\"enable_thinking\":false},\"user\":\"u\"}" },

    { "openai chat that is refused", &ngx_http_ai_dialect_openai,
      NGX_HTTP_AI_OP_CHAT,
      "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}],"
      "\"logprobs\":true,\"top_logprobs\":5,\"n\":2,\"logit_bias\":{\"50256\":"
      "-100},\"modalities\":[\"text\",\"audio\"],\"audio\":{\"voice\":\"a\"},"
      "\"prediction\":{\"type\":\"content\",\"content\":\"x\"},"
      "\"web_search_options\":{},\"functions\":[{\"name\":\"f\"}],"
      "\"function_call\":\"auto\",\"user\":\"u\",\"metadata\":{\"a\":\"b\"}}"
    },

    { "anthropic chat", &ngx_http_ai_dialect_anthropic, NGX_HTTP_AI_OP_CHAT,
      "{\"model\":\"m\",\"max_tokens\":256,\"system\":[{\"type\":\"text\","
      "\"text\":\"Be brief.\",\"cache_control\":{\"type\":\"ephemeral\"}}],"
      "\"messages\":[{\"role\":\"user\",\"content\":["
      "{\"type\":\"text\",\"text\":\"What is this\",\"citations\":null},"
      "{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":"
      "\"image/png\",\"data\":\"AAAA\"}},"
      "{\"type\":\"image\",\"source\":{\"type\":\"url\",\"url\":"
      "\"https://a.example/b.png\"}},"
      "{\"type\":\"image\",\"source\":{\"type\":\"file\",\"file_id\":\"f1\"}},"
      "{\"type\":\"document\",\"title\":\"t\",\"context\":null,\"source\":"
      "{\"type\":\"text\",\"media_type\":\"text/plain\",\"data\":\"long\"}},"
      "{\"type\":\"document\",\"source\":{\"type\":\"base64\",\"media_type\":"
      "\"application/pdf\",\"data\":\"QUJD\"}}]},"
      "{\"role\":\"assistant\",\"content\":["
      "{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":\"sig\"},"
      "{\"type\":\"redacted_thinking\",\"data\":\"zz\"},"
      "{\"type\":\"text\",\"text\":\"a\"},"
      "{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"find\",\"input\":"
      "{\"q\":\"x\",\"n\":1}}]},"
      "{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\","
      "\"tool_use_id\":\"t1\",\"is_error\":true,\"content\":[{\"type\":"
      "\"text\",\"text\":\"found\"},{\"type\":\"image\",\"source\":{\"type\":"
      "\"url\",\"url\":\"https://a.example/c.png\"}}],\"cache_control\":"
      "{\"type\":\"e\"}},{\"type\":\"text\",\"text\":\"go on\"}]},"
      "{\"role\":\"system\",\"content\":\"And now\"},"
      "{\"role\":\"user\",\"content\":\"last\"}],"
      "\"stop_sequences\":[\"END\",\"STOP\"],\"temperature\":0.5,"
      "\"top_p\":0.25,\"top_k\":40,\"tools\":[{\"type\":\"custom\",\"name\":"
      "\"find\",\"description\":\"finds\",\"input_schema\":{\"type\":"
      "\"object\",\"properties\":{\"q\":{\"type\":\"string\"}}},\"strict\":"
      "true,\"cache_control\":{\"type\":\"e\"}},{\"name\":\"run\","
      "\"input_schema\":{\"type\":\"object\"}}],\"tool_choice\":{\"type\":"
      "\"tool\",\"name\":\"find\",\"disable_parallel_tool_use\":true},"
      "\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":2048},"
      "\"output_config\":{\"effort\":\"low\",\"format\":{\"type\":"
      "\"json_schema\",\"schema\":{\"type\":\"object\",\"properties\":{\"a\":"
      "{\"type\":\"string\"}}}}},\"stream\":true,\"metadata\":{\"user_id\":"
      "\"u\"},\"service_tier\":\"auto\",\"cache_control\":{\"type\":"
      "\"ephemeral\"},\"mcp_servers\":[],\"container\":null,"
      "\"context_management\":null,\"output_format\":null}" },

    { "anthropic chat with extras", &ngx_http_ai_dialect_anthropic,
      NGX_HTTP_AI_OP_CHAT,
      "{\"model\":\"m\",\"max_tokens\":25,\"messages\":[{\"role\":\"user\","
      "\"content\":[{\"type\":\"document\",\"citations\":{\"enabled\":true},"
      "\"context\":\"c\",\"source\":{\"type\":\"content\",\"content\":["
      "{\"type\":\"text\",\"text\":\"x\"}]}}]}],\"thinking\":{\"type\":"
      "\"between_tools\",\"display\":\"omitted\"},\"container\":\"c1\","
      "\"context_management\":{\"edits\":[]},\"output_format\":{\"type\":"
      "\"json_schema\",\"schema\":{\"type\":\"object\"}},\"speed\":\"fast\"}"
    },

    { "anthropic chat that is refused", &ngx_http_ai_dialect_anthropic,
      NGX_HTTP_AI_OP_CHAT,
      "{\"model\":\"m\",\"max_tokens\":25,\"messages\":[{\"role\":\"user\","
      "\"content\":\"x\"}],\"mcp_servers\":[{\"type\":\"url\",\"url\":\"u\"}],"
      "\"tools\":[{\"type\":\"web_search_20250305\",\"name\":\"web_search\","
      "\"max_uses\":5}],\"metadata\":{\"user_id\":\"u\"}}" },

    { "completions", &ngx_http_ai_dialect_openai, NGX_HTTP_AI_OP_COMPLETIONS,
      "{\"model\":\"m\",\"prompt\":[\"one\",\"two\"],\"max_tokens\":5,"
      "\"stop\":\"END\",\"temperature\":0.5,\"top_p\":0.25,\"seed\":7,"
      "\"frequency_penalty\":0.5,\"presence_penalty\":0.25,\"stream\":false,"
      "\"stream_options\":null,\"user\":\"u\",\"n\":1,\"best_of\":1,\"echo\":"
      "false,\"logprobs\":null,\"logit_bias\":{},\"suffix\":null}" },

    { "completions with extras", &ngx_http_ai_dialect_openai,
      NGX_HTTP_AI_OP_COMPLETIONS,
      "{\"model\":\"m\",\"prompt\":\"one\",\"n\":2,\"best_of\":3,\"echo\":true"
      ",\"logprobs\":2,\"logit_bias\":{\"5\":1},\"suffix\":\"s\",\"min_p\":"
      "0.5}" },

    { "embeddings", &ngx_http_ai_dialect_openai, NGX_HTTP_AI_OP_EMBEDDINGS,
      "{\"model\":\"m\",\"input\":[\"one\",\"two\"],\"encoding_format\":"
      "\"base64\",\"dimensions\":256,\"user\":\"u\"}" },

    { "embeddings of tokens", &ngx_http_ai_dialect_openai,
      NGX_HTTP_AI_OP_EMBEDDINGS,
      "{\"model\":\"m\",\"input\":[[1,2,3],[4,5]],\"input_type\":\"query\"}" },

    { "count of tokens", &ngx_http_ai_dialect_anthropic,
      NGX_HTTP_AI_OP_COUNT_TOKENS,
      "{\"model\":\"m\",\"system\":\"s\",\"messages\":[{\"role\":\"user\","
      "\"content\":\"x\"}]}" }
};


#define NDOCS  (sizeof(docs) / sizeof(docs[0]))


/* the same question twice */

static const char  *twins[][2] = {

    { "{\"model\":\"m\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\","
      "\"content\":\"Hi\"}]}",
      "{\"model\":\"m\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\","
      "\"content\":\"Hi\"}]}" },

    { "{\"messages\":[{\"content\":\"Be brief.\",\"role\":\"system\"},"
      "{\"role\":\"user\",\"content\":[{\"text\":\"caf\\u00e9\",\"type\":"
      "\"text\"},{\"type\":\"image_url\",\"image_url\":{\"url\":"
      "\"data:image/png;base64,AAAA\"}}]}],\"temperature\":0.0,"
      "\"max_completion_tokens\":1e2,\"top_p\":0.50,\"top_k\":5,\"stop\":"
      "\"END\",\"stream\":true,\"user\":\"u\"}",
      "{\"model\":\"m\",\"system\":\"Be brief.\",\"max_tokens\":100,"
      "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
      "\"text\",\"text\":\"caf\xc3\xa9\","
      "\"cache_control\":{\"type\":\"ephemeral\"}},{\"type\":\"image\","
      "\"source\":{\"type\":\"base64\",\"media_type\":\"image\\/png\","
      "\"data\":\"AAAA\"}}]}],\"temperature\":0,\"top_p\":5e-1,\"top_k\":5.0,"
      "\"stop_sequences\":[\"END\"],\"metadata\":{\"user_id\":\"v\"}}" },

    { "{\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},"
      "{\"role\":\"assistant\",\"content\":\"look\",\"tool_calls\":[{\"id\":"
      "\"t1\",\"type\":\"function\",\"function\":{\"name\":\"find\","
      "\"arguments\":\"{ \\\"n\\\": 1.0, \\\"q\\\": \\\"x\\\" }\"}}]},"
      "{\"role\":\"tool\",\"tool_call_id\":\"t1\",\"content\":\"found\"},"
      "{\"role\":\"user\",\"content\":\"thanks\"}],\"tools\":[{\"type\":"
      "\"function\",\"function\":{\"name\":\"find\",\"description\":\"d\","
      "\"parameters\":{\"properties\":{\"q\":{\"type\":\"string\"}},\"type\":"
      "\"object\"}}}],\"tool_choice\":\"required\",\"parallel_tool_calls\":"
      "false}",
      "{\"model\":\"m\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\","
      "\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":[{\"type\":"
      "\"text\",\"text\":\"look\"},{\"type\":\"tool_use\",\"id\":\"t1\","
      "\"name\":\"find\",\"input\":{\"q\":\"x\",\"n\":1}}]},{\"role\":"
      "\"user\",\"content\":[{\"type\":\"tool_result\",\"tool_use_id\":\"t1\","
      "\"content\":\"found\"},{\"type\":\"text\",\"text\":\"thanks\"}]}],"
      "\"tools\":[{\"name\":\"find\",\"description\":\"d\",\"input_schema\":"
      "{\"type\":\"object\",\"properties\":{\"q\":{\"type\":\"string\"}}}}],"
      "\"tool_choice\":{\"type\":\"any\",\"disable_parallel_tool_use\":true}}"
    },

    { "{\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"},"
      "{\"role\":\"assistant\",\"reasoning_content\":\"hm\","
      "\"reasoning_signature\":\"s\",\"content\":\"a\"},{\"role\":\"user\","
      "\"content\":\"b\"}],\"reasoning_effort\":\"high\"}",
      "{\"model\":\"m\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\","
      "\"content\":\"Hi\"},{\"role\":\"assistant\",\"content\":[{\"type\":"
      "\"thinking\",\"thinking\":\"hm\",\"signature\":\"s\"},{\"type\":"
      "\"text\",\"text\":\"a\"}]},{\"role\":\"user\",\"content\":\"b\"}],"
      "\"output_config\":{\"effort\":\"high\"}}" }
};


/* pairs of one dialect with different answers that a careless key mixes up */

static const char  *strangers[][2] = {

    { "{\"messages\":[{\"role\":\"user\",\"content\":\"ab\"},{\"role\":"
      "\"user\",\"content\":\"c\"}]}",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":"
      "\"user\",\"content\":\"bc\"}]}" },

    { "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\","
      "\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]}]}",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":"
      "\"user\",\"content\":\"b\"}]}" },

    { "{\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"\\ud801\"}]}" },

    { "{\"messages\":[{\"role\":\"user\",\"content\":\"\\ud800\"}]}",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"\xef\xbf\xbd\"}]}" },

    { "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"\\ud800\":1}",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"\\ud801\":1}" },

    { "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"seed\":"
      "12345678901234567890}",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"seed\":"
      "12345678901234567891}" },

    { "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"seed\":"
      "1e99999999999}",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"seed\":"
      "1e99999999998}" },

    { "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"temperature\":"
      "0.1,\"temperature\":1}",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"temperature\":"
      "1}" },

    { "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"temperature\":"
      "0.1,\"temperature\":1}",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"temperature\":"
      "0.2,\"temperature\":1}" },

    { "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"max_tokens\":1,"
      "\"max_completion_tokens\":5}",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"max_tokens\":2,"
      "\"max_completion_tokens\":5}" },

    /* what the pivot makes one of, and providers may not */

    { "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"reasoning\":"
      "{\"effort\":\"low\"}}",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],"
      "\"reasoning_effort\":\"low\"}" },

    { "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"functions\":"
      "[{\"name\":\"f\"}]}",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tools\":"
      "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]}" },

    { "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tools\":"
      "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}},{\"type\":"
      "\"function\",\"function\":{\"name\":\"g\"}}],\"tool_choice\":{\"type\":"
      "\"allowed_tools\",\"allowed_tools\":{\"mode\":\"auto\",\"tools\":"
      "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}]}}}",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"tools\":"
      "[{\"type\":\"function\",\"function\":{\"name\":\"f\"}}],"
      "\"tool_choice\":\"auto\"}" },

    { "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\","
      "\"image_url\":{\"url\":\"data:image/svg;charset=a;base64,AA\"}}]}]}",
      "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\","
      "\"image_url\":{\"url\":\"data:image/svg;charset=b;base64,AA\"}}]}]}" },

    { "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\","
      "\"image_url\":{\"url\":\"d\\u0061ta:image/svg;charset=a;base64,AA\"}}]}"
      "]}",
      "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\","
      "\"image_url\":{\"url\":\"data:image/svg\\u003bcharset=b;base64,AA\"}}]}"
      "]}" },

    { "{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"tool_calls\":[]}]"
      ",\"stop\":[\"\",\"a\"]}",
      "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"stop\":[\"a\"]}"
    },

    { "{\"messages\":[{\"role\":\"assistant\",\"content\":[{\"type\":"
      "\"thinking\"},{\"type\":\"text\",\"text\":\"a\"}]}]}",
      "{\"messages\":[{\"role\":\"assistant\",\"content\":[{\"type\":\"text\","
      "\"text\":\"a\"}]}]}" },

    { "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c\","
      "\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":\\\"\\ud800\\\""
      "}\"}}]}]}",
      "{\"messages\":[{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"c\","
      "\"function\":{\"name\":\"f\",\"arguments\":\"{\\\"a\\\":\\\"\\ud801\\\""
      "}\"}}]}]}" }
};


static ngx_pool_t  *pool;
static uint32_t     seed = 20261121;
static u_char       found[512];

static seen_t       seen[MAX_IDS];
static ngx_uint_t   nseen;


static uint32_t
rnd(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;

    return n ? seed % n : 0;
}


static void
parse(ngx_http_ai_json_t *j, const char *text, size_t len)
{
    ngx_memzero(j, sizeof(ngx_http_ai_json_t));
    j->pool = pool;

    if (ngx_http_ai_json_parse(j, (u_char *) text, len) != NGX_OK) {
        diag("not JSON: %.*s", (int) len, text);
        fflush(stdout);
        abort();
    }
}


static void
ask_init(ngx_http_ai_cache_ask_t *ask, doc_t *d, ngx_http_ai_json_t *j)
{
    ngx_memzero(ask, sizeof(ngx_http_ai_cache_ask_t));

    ask->dialect = d->dialect;
    ask->op = d->op;
    ask->json = j;
    ask->plan = 1;
    ngx_str_set(&ask->model, "m");
    ngx_str_set(&ask->scope, "acme");
    ngx_str_set(&ask->vary, "");
    ask->nh = nh;
}


static ngx_int_t
key_of(doc_t *d, const char *text, size_t len, ngx_http_ai_cache_key_t *key)
{
    u_char                   *copy;
    ngx_int_t                 rc;
    ngx_http_ai_json_t        j;
    ngx_http_ai_cache_ask_t   ask;

    /* of its own size, so that reading behind it is seen */

    copy = ngx_pnalloc(pool, len);
    ngx_memcpy(copy, text, len);

    parse(&j, (char *) copy, len);
    ask_init(&ask, d, &j);

    rc = ngx_http_ai_cache_key(pool, &ask, key);

    if (rc != NGX_OK) {
        ngx_memzero(key->id, NGX_HTTP_AI_CACHE_ID_LEN);
    }

    return rc;
}


static ngx_int_t
key_str(doc_t *d, const char *text, ngx_http_ai_cache_key_t *key)
{
    return key_of(d, text, strlen(text), key);
}


static int
same(ngx_http_ai_cache_key_t *a, ngx_http_ai_cache_key_t *b)
{
    return memcmp(a->id, b->id, NGX_HTTP_AI_CACHE_ID_LEN) == 0;
}


/* the text of d with bytes from..to replaced */

static ngx_str_t
replaced(const char *text, size_t from, size_t to, const char *with)
{
    u_char     *p;
    size_t      len;
    ngx_str_t   s;

    len = strlen(text);

    s.data = ngx_pnalloc(pool, len + strlen(with) + 1);

    p = ngx_cpymem(s.data, text, from);
    p = ngx_cpymem(p, with, strlen(with));
    p = ngx_cpymem(p, text + to, len - to);

    *p = '\0';
    s.len = p - s.data;

    return s;
}


/* each change alone; those that change the key differ from one another too */

static void
expect(doc_t *d, ngx_http_ai_cache_key_t *base, ngx_str_t text, int changes,
    const char *what)
{
    ngx_uint_t                i;
    ngx_http_ai_cache_key_t   key;

    if (key_of(d, (char *) text.data, text.len, &key) != NGX_OK) {
        ok(0, "%s: no key: %s", d->name, what);
        return;
    }

    if (same(base, &key) == changes) {
        ok(0, "%s: %s %s the key", d->name, what,
           changes ? "does not change" : "changes");
        diag("%.*s", (int) text.len, text.data);
        return;
    }

    /* what is left out may be the same as its default */

    if (!changes || strstr(what, "without")) {
        return;
    }

    for (i = 0; i < nseen; i++) {
        if (same(&seen[i].key, &key)
            && (seen[i].text.len != text.len
                || memcmp(seen[i].text.data, text.data, text.len) != 0))
        {
            ok(0, "%s: %s: has the key of another change", d->name, what);
            diag("%.*s", (int) text.len, text.data);
            diag("%.*s", (int) seen[i].text.len, seen[i].text.data);
        }
    }

    if (nseen < MAX_IDS) {
        seen[nseen].text = text;
        seen[nseen++].key = key;
    }
}


static void
changed(ngx_http_ai_json_t *j, ngx_uint_t n, const char *text, size_t *from,
    size_t *to, char *with)
{
    ngx_http_ai_json_node_t  *node;

    node = &j->nodes[n];

    *from = node->start - (u_char *) text;
    *to = *from + node->len;

    switch (node->type) {

    case NGX_HTTP_AI_JSON_NULL:
        strcpy(with, "\"other\"");
        break;

    case NGX_HTTP_AI_JSON_FALSE:
        strcpy(with, "true");
        break;

    case NGX_HTTP_AI_JSON_TRUE:
        strcpy(with, "false");
        break;

    case NGX_HTTP_AI_JSON_NUMBER:
        if (node->len > 1 || node->start[0] != '0') {
            *from = *to;
        }

        strcpy(with, memchr(node->start, '.', node->len) ? "3" : "1");
        break;

    case NGX_HTTP_AI_JSON_STRING:
        *from = *to;
        strcpy(with, "x");
        break;

    case NGX_HTTP_AI_JSON_ARRAY:
        *from = *to - 1;
        strcpy(with, node->count ? ",\"x\"" : "\"x\"");
        *to = *from;
        break;

    default:
        *from = *to - 1;
        strcpy(with, node->count ? ",\"zz\":1" : "\"zz\":1");
        *to = *from;
        break;
    }
}


/* what is at n, in an object of the place; counts: it changes the answer */

static void
mutate(doc_t *d, ngx_http_ai_json_t *j, ngx_uint_t n, ngx_uint_t place,
    int counts, ngx_http_ai_cache_key_t *base)
{
    int                                c, gone;
    char                               with[64], what[128];
    size_t                             from, to;
    ngx_str_t                          s;
    ngx_uint_t                         i, v, bit, inner, last;
    ngx_http_ai_json_node_t           *node, *key;
    const ngx_http_ai_cache_place_t   *p;
    const ngx_http_ai_cache_member_t  *m;

    node = &j->nodes[n];

    if (node->type == NGX_HTTP_AI_JSON_OBJECT) {

        from = node->start + node->len - 1 - (u_char *) d->text;
        s = replaced(d->text, from, from,
                   node->count ? ",\"zzz\":0" : "\"zzz\":0");
        expect(d, base, s, counts, "an unknown member");

        last = NGX_HTTP_AI_JSON_NONE;

        for (i = ngx_http_ai_json_first(j, n);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, n, i))
        {
            v = i + 1;
            key = &j->nodes[i];
            m = ngx_http_ai_cache_member(j, i, place, &bit);
            c = counts;
            gone = counts;
            inner = NGX_HTTP_AI_CACHE_NOWHERE;

            if (m) {
                found[m - ngx_http_ai_cache_members] = 1;
                inner = m->inner;

                if (m->use == NGX_HTTP_AI_CACHE_SKIP
                    || (m->use == NGX_HTTP_AI_CACHE_MODE && !base->exact))
                {
                    c = 0;
                    gone = 0;
                }

                if (m->use == NGX_HTTP_AI_CACHE_NEUTRAL && !base->exact) {
                    gone = 0;
                }

                /* the kind that is meant without it */

                p = &ngx_http_ai_cache_places[place];

                if (p->absent && m->name.len == p->member.len
                    && strcmp((char *) m->name.data, (char *) p->member.data)
                       == 0
                    && strncmp((char *) j->nodes[v].start, p->kinds[0],
                               j->nodes[v].len) == 0)
                {
                    gone = 0;
                }

                /* no provider takes it without these */

                if ((m->form & NGX_HTTP_AI_CACHE_PLAIN)
                    || strcmp((char *) m->name.data, "model") == 0)
                {
                    gone = -1;
                }
            }

            if (j->nodes[v].type == NGX_HTTP_AI_JSON_NULL && m) {
                gone = 0;
            }

            if (j->nodes[v].type == NGX_HTTP_AI_JSON_NULL
                && m && (m->use == NGX_HTTP_AI_CACHE_MODE))
            {
                c = 0;
            }

            snprintf(what, sizeof(what), "\"%.*s\" without its value",
                     (int) key->len, key->start);

            if (gone >= 0) {
                from = key->start - 1 - (u_char *) d->text;
                to = j->nodes[v].start + j->nodes[v].len
                     + (j->nodes[v].type == NGX_HTTP_AI_JSON_STRING)
                     - (u_char *) d->text;

                if (d->text[to] == ',') {
                    to++;

                } else if (last != NGX_HTTP_AI_JSON_NONE) {
                    from--;
                }

                s = replaced(d->text, from, to, "");
                expect(d, base, s, gone, what);
            }

            last = i;

            if (m && m->use == NGX_HTTP_AI_CACHE_MAP
                && (j->nodes[v].type >= NGX_HTTP_AI_JSON_ARRAY))
            {
                mutate(d, j, v, inner, c, base);
                continue;
            }

            if (j->nodes[v].type >= NGX_HTTP_AI_JSON_ARRAY) {
                mutate(d, j, v, NGX_HTTP_AI_CACHE_NOWHERE, c, base);

                if (j->nodes[v].count == 0) {
                    continue;
                }
            }

            snprintf(what, sizeof(what), "another \"%.*s\"",
                     (int) key->len, key->start);

            changed(j, v, d->text, &from, &to, with);
            expect(d, base, replaced(d->text, from, to, with), c, what);
        }

        return;
    }

    if (node->type == NGX_HTTP_AI_JSON_ARRAY) {

        changed(j, n, d->text, &from, &to, with);
        expect(d, base, replaced(d->text, from, to, with), counts,
               "one element more");

        for (i = ngx_http_ai_json_first(j, n);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, n, i))
        {
            mutate(d, j, i, place, counts, base);
        }

        return;
    }

    changed(j, n, d->text, &from, &to, with);
    expect(d, base, replaced(d->text, from, to, with), counts,
           "another element");
}


static void
test_changes(void)
{
    ngx_uint_t                i, missing;
    ngx_http_ai_json_t        j;
    ngx_http_ai_cache_key_t   base;

    for (i = 0; i < NDOCS; i++) {
        pool = ngx_create_pool(4096, NULL);
        nseen = 0;

        ok(key_str(&docs[i], docs[i].text, &base) == NGX_OK,
           "%s: has a key", docs[i].name);

        ok(base.exact == (strstr(docs[i].name, "with extras") != NULL
                          || strstr(docs[i].name, "refused") != NULL
                          || strstr(docs[i].name, "of tokens") != NULL),
           "%s: is exact or not", docs[i].name);

        parse(&j, docs[i].text, strlen(docs[i].text));

        mutate(&docs[i], &j, 0,
               ngx_http_ai_cache_body_place(docs[i].dialect, docs[i].op), 1,
               &base);

        ok(nseen > 1, "%s: %u changes of the key", docs[i].name,
           (unsigned) nseen);

        ngx_destroy_pool(pool);
    }

    missing = 0;

    for (i = 0; ngx_http_ai_cache_members[i].name.len; i++) {
        if (!found[i]) {
            diag("\"%s\" in place %u",
                 (char *) ngx_http_ai_cache_members[i].name.data,
                 ngx_http_ai_cache_members[i].place);
            missing++;
        }
    }

    ok(missing == 0, "all %u members of the table were changed", (unsigned) i);
    ok(i < 250, "the table fits in its hash");
}


/* another spelling of the same document */

typedef struct {
    ngx_http_ai_json_t  *json;
    ngx_http_ai_out_t    out;
} style_t;


static void
space(style_t *s)
{
    while (rnd(4) == 0) {
        ngx_http_ai_out_mem(&s->out, &" \n\t\r"[rnd(4)], 1);
    }
}


static void
spell_string(style_t *s, ngx_uint_t n, int escape)
{
    u_char     *p, *last, buf[8];
    ngx_str_t   raw;

    raw = ngx_http_ai_json_raw(s->json, n);

    ngx_http_ai_out_lit(&s->out, "\"");

    p = raw.data;
    last = p + raw.len;

    while (p < last) {

        if (*p == '\\') {
            ngx_http_ai_out_mem(&s->out, p, (p[1] == 'u') ? 6 : 2);
            p += (p[1] == 'u') ? 6 : 2;
            continue;
        }

        if (escape && *p < 0x80 && rnd(8) == 0) {
            sprintf((char *) buf, rnd(2) ? "\\u%04x" : "\\u%04X", *p);
            ngx_http_ai_out_mem(&s->out, buf, 6);

        } else if (escape && *p == '/' && rnd(2)) {
            ngx_http_ai_out_lit(&s->out, "\\/");

        } else {
            ngx_http_ai_out_mem(&s->out, p, 1);
        }

        p++;
    }

    ngx_http_ai_out_lit(&s->out, "\"");
}


static void
spell_number(style_t *s, ngx_uint_t n)
{
    char        buf[128];
    ngx_str_t   raw;
    ngx_uint_t  integer;

    raw = ngx_http_ai_json_raw(s->json, n);
    integer = memchr(raw.data, '.', raw.len) == NULL;

    switch (ngx_strlchr(raw.data, raw.data + raw.len, 'e')
            || ngx_strlchr(raw.data, raw.data + raw.len, 'E') ? 4 : rnd(5))
    {

    case 0:
        sprintf(buf, "%.*s%s", (int) raw.len, raw.data,
                integer ? ".0" : "000");
        break;

    case 1:
        sprintf(buf, "%.*se%s0", (int) raw.len, raw.data,
                rnd(2) ? "+" : "-");
        break;

    case 2:
        if (integer) {
            sprintf(buf, (raw.data[0] == '0') ? "%.*sE-2" : "%.*s00E-2",
                    (int) raw.len, raw.data);
            break;
        }

        sprintf(buf, "%.*s0E00", (int) raw.len, raw.data);
        break;

    default:
        sprintf(buf, "%.*s", (int) raw.len, raw.data);
        break;
    }

    ngx_http_ai_out_mem(&s->out, buf, strlen(buf));
}


static void
spell(style_t *s, ngx_uint_t n, int escape)
{
    ngx_str_t            v;
    ngx_uint_t           i, k, t, count, order[64];
    ngx_http_ai_json_t  *j;

    static const char  *words[] = {
        /* the codec of OpenAI's dialect takes these as they are */
        "role", "type", "tool_choice", "reasoning_effort", "name",
        "modalities", NULL
    };

    j = s->json;

    space(s);

    switch (j->nodes[n].type) {

    case NGX_HTTP_AI_JSON_STRING:
        spell_string(s, n, escape);
        break;

    case NGX_HTTP_AI_JSON_NUMBER:
        spell_number(s, n);
        break;

    case NGX_HTTP_AI_JSON_ARRAY:
        ngx_http_ai_out_lit(&s->out, "[");

        for (i = ngx_http_ai_json_first(j, n);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, n, i))
        {
            if (i != n + 1) {
                ngx_http_ai_out_lit(&s->out, ",");
            }

            spell(s, i, escape);
        }

        space(s);
        ngx_http_ai_out_lit(&s->out, "]");
        break;

    case NGX_HTTP_AI_JSON_OBJECT:
        ngx_http_ai_out_lit(&s->out, "{");

        count = 0;

        for (i = ngx_http_ai_json_first(j, n);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, n, i))
        {
            order[count++] = i;
        }

        for (i = count; i > 1; i--) {
            k = rnd(i);
            t = order[k];
            order[k] = order[i - 1];
            order[i - 1] = t;
        }

        for (i = 0; i < count; i++) {
            if (i) {
                ngx_http_ai_out_lit(&s->out, ",");
            }

            space(s);
            spell_string(s, order[i], 1);
            space(s);
            ngx_http_ai_out_lit(&s->out, ":");

            t = 1;

            for (k = 0; words[k]; k++) {
                if (ngx_http_ai_json_key_eq(j, order[i], words[k],
                                            strlen(words[k])))
                {
                    t = 0;
                }
            }

            spell(s, order[i] + 1, t);
        }

        space(s);
        ngx_http_ai_out_lit(&s->out, "}");
        break;

    default:
        v = ngx_http_ai_json_raw(j, n);
        ngx_http_ai_out_str(&s->out, &v);
        break;
    }

    space(s);
}


static ngx_str_t
respell(const char *text, size_t len)
{
    style_t             s;
    ngx_str_t           r;
    ngx_http_ai_json_t  j;

    parse(&j, text, len);

    s.json = &j;
    ngx_http_ai_out_init(&s.out, pool, 4 * len);

    spell(&s, 0, 1);

    r.data = s.out.start;
    r.len = s.out.last - s.out.start;

    return r;
}


/* any value of the document; which: it is one that counts */

static ngx_uint_t
pick(ngx_http_ai_json_t *j, ngx_uint_t n, ngx_uint_t place,
    ngx_uint_t *nodes, ngx_uint_t max, ngx_uint_t count)
{
    ngx_uint_t                         i, bit;
    const ngx_http_ai_cache_member_t  *m;

    if (j->nodes[n].type == NGX_HTTP_AI_JSON_OBJECT) {

        for (i = ngx_http_ai_json_first(j, n);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, n, i))
        {
            m = ngx_http_ai_cache_member(j, i, place, &bit);

            if (m && (m->use == NGX_HTTP_AI_CACHE_SKIP
                      || m->use == NGX_HTTP_AI_CACHE_MODE))
            {
                continue;
            }

            count = pick(j, i + 1, m ? m->inner : 0, nodes, max, count);
        }

        return count;
    }

    if (j->nodes[n].type == NGX_HTTP_AI_JSON_ARRAY) {

        for (i = ngx_http_ai_json_first(j, n);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, n, i))
        {
            count = pick(j, i, place, nodes, max, count);
        }

        return count;
    }

    if (j->nodes[n].type != NGX_HTTP_AI_JSON_NULL && count < max) {
        nodes[count++] = n;
    }

    return count;
}


static void
test_pairs(void)
{
    char                      with[64];
    size_t                    from, to;
    doc_t                    *d;
    ngx_str_t                 one, two, other;
    ngx_uint_t                i, n, count, bad, nodes[512];
    ngx_http_ai_json_t        j;
    ngx_http_ai_cache_key_t   a, b, c;

    bad = 0;

    for (i = 0; i < PAIRS && bad < 5; i++) {
        pool = ngx_create_pool(4096, NULL);

        d = &docs[rnd(NDOCS)];

        one = respell(d->text, strlen(d->text));
        two = respell((char *) one.data, one.len);

        parse(&j, d->text, strlen(d->text));

        count = pick(&j, 0, ngx_http_ai_cache_body_place(d->dialect, d->op),
                     nodes, 512, 0);
        n = nodes[rnd((uint32_t) count)];

        changed(&j, n, d->text, &from, &to, with);
        other = replaced(d->text, from, to, with);
        other = respell((char *) other.data, other.len);

        if (key_of(d, (char *) one.data, one.len, &a) != NGX_OK
            || key_of(d, (char *) two.data, two.len, &b) != NGX_OK
            || key_of(d, (char *) other.data, other.len, &c) != NGX_OK)
        {
            bad++;
            diag("%s: no key", d->name);

        } else if (!same(&a, &b)) {
            bad++;
            diag("%s: two spellings", d->name);
            diag("%.*s", (int) one.len, one.data);
            diag("%.*s", (int) two.len, two.data);

        } else if (same(&a, &c)) {
            bad++;
            diag("%s: two questions", d->name);
            diag("%.*s", (int) one.len, one.data);
            diag("%.*s", (int) other.len, other.data);
        }

        ngx_destroy_pool(pool);
    }

    ok(bad == 0, "%u pairs of spellings and of questions", (unsigned) i);
}


static void
test_twins(void)
{
    doc_t                     one, two;
    ngx_uint_t                i;
    ngx_http_ai_cache_key_t   a, b;

    one = docs[0];
    two = docs[4];

    for (i = 0; i < sizeof(twins) / sizeof(twins[0]); i++) {
        pool = ngx_create_pool(4096, NULL);

        ok(key_str(&one, twins[i][0], &a) == NGX_OK
           && key_str(&two, twins[i][1], &b) == NGX_OK
           && same(&a, &b), "the same question in two dialects, %u",
           (unsigned) i);

        ok(!a.exact && !b.exact, "... can be told in both");

        ok(a.deterministic == b.deterministic
           && a.deterministic == (strstr(twins[i][0], "temperature") != NULL),
           "... and is deterministic in both or in none");

        ngx_destroy_pool(pool);
    }

    for (i = 0; i < sizeof(strangers) / sizeof(strangers[0]); i++) {
        pool = ngx_create_pool(4096, NULL);

        ok(key_str(&one, strangers[i][0], &a) == NGX_OK
           && key_str(&one, strangers[i][1], &b) == NGX_OK
           && !same(&a, &b), "two questions, %u", (unsigned) i);

        ngx_destroy_pool(pool);
    }
}


/* what comes from outside of the body */

static void
test_ask(void)
{
    ngx_uint_t                i;
    ngx_http_ai_json_t        j;
    ngx_http_ai_cache_ask_t   ask;
    ngx_http_ai_cache_key_t   key[8];

    pool = ngx_create_pool(4096, NULL);

    parse(&j, docs[1].text, strlen(docs[1].text));

    for (i = 0; i < 7; i++) {
        ask_init(&ask, &docs[1], &j);

        switch (i) {

        case 1:
            ngx_str_set(&ask.model, "n");
            break;

        case 2:
            ask.plan = 2;
            break;

        case 3:
            ngx_str_set(&ask.scope, "acm");
            ngx_str_set(&ask.model, "em");
            break;

        case 4:
            ngx_str_set(&ask.vary, "v");
            break;

        case 5:
            ask.op = NGX_HTTP_AI_OP_COMPLETIONS;
            break;

        case 6:
            ngx_str_set(&ask.scope, "globex");
            break;
        }

        ok(ngx_http_ai_cache_key(pool, &ask, &key[i]) == NGX_OK,
           "request %u", (unsigned) i);

        if (i) {
            ok(!same(&key[0], &key[i]) && !same(&key[i - 1], &key[i]),
               "... has another key");
        }
    }

    ok(key[0].deterministic, "temperature 0 is deterministic");

    ask_init(&ask, &docs[1], &j);
    ask.op = NGX_HTTP_AI_OP_MODELS;

    ok(ngx_http_ai_cache_key(pool, &ask, &key[0]) == NGX_DECLINED
       && key[0].why, "a list of models has no key");

    parse(&j, "[]", 2);
    ask_init(&ask, &docs[1], &j);

    ok(ngx_http_ai_cache_key(pool, &ask, &key[0]) == NGX_DECLINED
       && key[0].why, "a body that is no object has no key");

    ngx_destroy_pool(pool);
}


static void
test_deterministic(void)
{
    char                      text[256];
    ngx_uint_t                i;
    ngx_http_ai_cache_key_t   key;

    static struct {
        const char  *value;
        ngx_uint_t   zero;
    } heats[] = {
        { "0", 1 }, { "0.0", 1 }, { "0e5", 1 }, { "-0", 1 }, { "0.000", 1 },
        { "1", 0 }, { "0.001", 0 }, { "1e-9", 0 }, { "null", 0 },
        { "\"0\"", 0 }, { "0,\"temperature\":0", 0 }
    };

    pool = ngx_create_pool(4096, NULL);

    for (i = 0; i < sizeof(heats) / sizeof(heats[0]); i++) {
        sprintf(text, "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],"
                "\"temperature\":%s}", heats[i].value);

        ok(key_str(&docs[0], text, &key) == NGX_OK
           && key.deterministic == heats[i].zero,
           "temperature %s", heats[i].value);
    }

    ok(key_str(&docs[9], docs[9].text, &key) == NGX_OK && key.deterministic,
       "embeddings are deterministic");

    ngx_destroy_pool(pool);
}


static void
test_bounds(void)
{
    char                      *text, *p;
    size_t                     size;
    ngx_uint_t                 i;
    ngx_http_ai_json_t         j;
    ngx_http_ai_cache_ask_t    ask;
    ngx_http_ai_cache_key_t    a, b;

    pool = ngx_create_pool(4096, NULL);

    size = NGX_HTTP_AI_CACHE_KEY_MAX + 1024;
    text = malloc(size);

    /* depth */

    p = text + sprintf(text, "{\"messages\":[{\"role\":\"user\",\"content\":"
                             "\"a\"}],\"deep\":");
    memset(p, '[', 1000);
    memset(p + 1000, ']', 1000);
    strcpy(p + 2000, "}");

    ngx_memzero(&j, sizeof(j));
    j.pool = pool;
    j.max_depth = 1024;

    ok(ngx_http_ai_json_parse(&j, (u_char *) text, strlen(text)) == NGX_OK,
       "a deep body");

    ask_init(&ask, &docs[0], &j);

    ok(ngx_http_ai_cache_key(pool, &ask, &a) == NGX_OK, "... has a key");

    /* members */

    p = text + sprintf(text, "{\"messages\":[{\"role\":\"user\",\"content\":"
                             "\"a\"}],\"x\":{\"a\":0");

    for (i = 0; i < 5000; i++) {
        p += sprintf(p, ",\"m%u\":%u", (unsigned) (i * 7919 % 5000),
                     (unsigned) i);
    }

    strcpy(p, "}}");

    ok(key_str(&docs[0], text, &a) == NGX_OK, "an object of 5000 members");

    p = text + sprintf(text, "{\"messages\":[{\"role\":\"user\",\"content\":"
                             "\"a\"}],\"x\":{");

    for (i = 5000; i; i--) {
        p += sprintf(p, "\"m%u\":%u,", (unsigned) ((i - 1) * 7919 % 5000),
                     (unsigned) (i - 1));
    }

    strcpy(p, "\"a\":0}}");

    ok(key_str(&docs[0], text, &b) == NGX_OK && same(&a, &b),
       "... in another order");

    p = text + sprintf(text, "{\"messages\":[{\"role\":\"user\",\"content\":"
                             "\"a\"}]");

    for (i = 0; i < 1025; i++) {
        p += sprintf(p, ",\"m%u\":1", (unsigned) i);
    }

    strcpy(p, "}");

    ok(key_str(&docs[0], text, &a) == NGX_DECLINED && a.why,
       "too many unknown members: no key");

    /* size */

    p = text + sprintf(text, "{\"messages\":[{\"role\":\"user\",\"content\":"
                             "\"");
    memset(p, 'x', NGX_HTTP_AI_CACHE_KEY_MAX);
    strcpy(p + NGX_HTTP_AI_CACHE_KEY_MAX, "\"}]}");

    ok(key_str(&docs[0], text, &a) == NGX_DECLINED && a.why,
       "too large: no key");

    p[NGX_HTTP_AI_CACHE_KEY_MAX - 1024] = '\0';
    strcat(p, "\"}]}");

    ok(key_str(&docs[0], text, &a) == NGX_OK, "the largest has one");

    free(text);
    ngx_destroy_pool(pool);
}


static void
test_inputs(void)
{
    ngx_uint_t                 i, n;
    ngx_http_ai_json_t         j;
    ngx_http_ai_cache_ask_t    ask;
    ngx_http_ai_cache_key_t    keys[8], alone;

    static const char  *text =
        "{\"model\":\"m\",\"input\":[\"a\",[1,2],\"b\",\"\\u0061\",7],"
        "\"dimensions\":8}";

    static const char  *one[] = {
        "{\"input\":\"a\",\"dimensions\":8}",
        "{\"input\":[[1.0,2]],\"dimensions\":8}",
        "{\"input\":[\"b\"],\"dimensions\":8}",
        "{\"dimensions\":8e0,\"input\":[\"a\"]}",
        "{\"input\":7,\"dimensions\":8}"
    };

    pool = ngx_create_pool(4096, NULL);

    parse(&j, text, strlen(text));
    ask_init(&ask, &docs[9], &j);

    n = ngx_http_ai_json_member(&j, 0, "input");

    ok(ngx_http_ai_cache_key_inputs(pool, &ask, n, keys) == NGX_OK,
       "keys of inputs");

    for (i = 0; i < 5; i++) {
        ok(key_str(&docs[9], one[i], &alone) == NGX_OK
           && same(&alone, &keys[i]) && keys[i].deterministic,
           "... that of input %u is that of a request for it",
           (unsigned) i);
    }

    ok(same(&keys[0], &keys[3]), "... equal inputs have one key");
    ok(!same(&keys[0], &keys[1]) && !same(&keys[0], &keys[2])
       && !same(&keys[1], &keys[4]), "... others have others");

    ok(key_str(&docs[9], "{\"input\":[7],\"dimensions\":8}", &alone) == NGX_OK
       && !same(&alone, &keys[4]), "... a list of one token is no token");

    ngx_destroy_pool(pool);
}


/* the two forms of a key */

static void
test_secret(void)
{
    u_char                   secret[16];
    ngx_uint_t               i;
    ngx_http_ai_nh_t         one, two;
    ngx_http_ai_cache_key_t  a, b, plain;

    static u_char            zeros[NGX_HTTP_AI_CACHE_ID_LEN - 16];

    pool = ngx_create_pool(4096, NULL);

    memset(secret, 'k', sizeof(secret));
    ngx_http_ai_nh_init(&one, secret);

    ok(key_str(&docs[0], docs[0].text, &plain) == NGX_OK, "without a secret");

    nh = &one;

    ok(key_str(&docs[0], docs[0].text, &a) == NGX_OK, "with a secret");

    ok(memcmp(a.id + 16, zeros, sizeof(zeros)) == 0
       && memcmp(plain.id + 16, zeros, sizeof(zeros)) != 0,
       "half of the key is empty then");

    ok(memcmp(a.id, plain.id, 16) != 0, "... and the other half another one");

    nh = &two;

    for (i = 0; i < sizeof(secret); i++) {
        secret[i] ^= 1;
        ngx_http_ai_nh_init(&two, secret);
        secret[i] ^= 1;

        ok(key_str(&docs[0], docs[0].text, &b) == NGX_OK && !same(&a, &b),
           "another secret, another key");
    }

    ngx_http_ai_nh_init(&two, secret);

    ok(key_str(&docs[0], docs[0].text, &b) == NGX_OK && same(&a, &b),
       "the same secret in another place");

    nh = NULL;

    ngx_destroy_pool(pool);
}


int
main(void)
{
    ngx_uint_t        i;
    ngx_http_ai_nh_t  bytes;

    ngx_http_ai_nh_init(&bytes, (u_char *) "0123456789abcdef");

    for (i = 0; i < 2; i++) {
        nh = i ? &bytes : NULL;

        test_changes();
        test_pairs();
        test_twins();
        test_ask();
        test_deterministic();
        test_bounds();
        test_inputs();
    }

    nh = NULL;

    test_secret();

    return done_testing();
}
