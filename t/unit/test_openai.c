
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test_openai.h"


/* --- answers, by hand --- */

static void
stream_is(const char *text, const char *expected, const char *name)
{
    ngx_int_t               rc;
    ngx_http_ai_decoder_t   dec;

    decoder_init(&dec, NGX_HTTP_AI_OP_CHAT);
    ngx_http_ai_out_init(&dump, pool, 256);
    fold_to = NULL;
    encode_to = NULL;

    rc = feed(&dec, (u_char *) text, strlen(text), 1);

    if (rc != NGX_OK) {
        ngx_http_ai_out_lit(&dump, "!");
        ngx_http_ai_out_str(&dump, &dec.error.message);
    }

    is_mem(dump.start, dump.last - dump.start, expected, strlen(expected),
           name);

    dump.pool = NULL;
}


static void
body_is(ngx_http_ai_op_e op, const char *text, const char *expected,
    const char *name)
{
    u_char                 *p;
    ngx_int_t               rc;
    ngx_http_ai_decoder_t   dec;

    decoder_init(&dec, op);
    ngx_http_ai_out_init(&dump, pool, 256);
    fold_to = NULL;
    encode_to = NULL;

    p = test_copy(text, strlen(text));

    rc = dialect->decode_body(&dec, p, strlen(text));

    if (rc != NGX_OK) {
        ngx_http_ai_out_lit(&dump, "!");
        ngx_http_ai_out_str(&dump, &dec.error.message);
    }

    is_mem(dump.start, dump.last - dump.start, expected, strlen(expected),
           name);

    free(p);

    dump.pool = NULL;
}


#define C1  "{\"id\":\"i\",\"created\":5,\"model\":\"m\",\"choices\":"        \
            "[{\"index\":0,\"delta\":"
#define C2  ",\"finish_reason\":null}]}\n"
#define S   "start i m 5|"
#define F(r)  "{\"choices\":[{\"index\":0,\"delta\":{},"                      \
              "\"finish_reason\":\"" r "\"}]}\n"
#define TC(s)  C1 "{\"tool_calls\":[" s "]}" C2


static void
test_streams(void)
{
    ngx_str_t               data, name;
    ngx_http_ai_decoder_t   dec;

    stream_is(C1 "{\"role\":\"assistant\",\"content\":\"\"}" C2
              C1 "{\"content\":\"a\\n\"}" C2 F("stop")
              "{\"choices\":[],\"usage\":{\"prompt_tokens\":9,"
              "\"completion_tokens\":4,\"total_tokens\":13,"
              "\"prompt_tokens_details\":{\"cached_tokens\":3}}}\n"
              " [DONE] \nignored",
              S "text a\\n|finish 1|usage 9/3/-1 4/-1|end", "plain stream");

    stream_is("{\"choices\":[],\"id\":\"\",\"created\":0,\"model\":\"\"}\n"
              C1 "{\"content\":\"a\"}" C2, S "text a",
              "Azure's first chunk is skipped");

    stream_is("{\"id\":\"i\",\"created\":1753879075170.5,\"choices\":[{}]}",
              "start i  1753879075", "created in milliseconds");

    stream_is(TC("{\"index\":0,\"id\":\"c\",\"function\":{\"name\":\"f\"}}")
              TC("{\"index\":0,\"function\":{\"arguments\":\"{\\\"a\"}}")
              TC("{\"index\":0,\"function\":{\"arguments\":\"\\\":1}\"}}")
              F("tool_calls") "[DONE]",
              S "tool 0 c f|args 0 {\\\"a|args 0 \\\":1}|/tool 0|finish 4|end",
              "no arguments in the first delta");

    stream_is(TC("{\"index\":0,\"id\":\"c\"}")
              TC("{\"index\":0,\"function\":{\"arguments\":\"{\"}}")
              TC("{\"index\":0,\"function\":{\"name\":\"f\","
                 "\"arguments\":\"}\"}}") F("stop"),
              S "tool 0 c f|args 0 {|args 0 }|/tool 0|finish 4",
              "name comes late, the reason is stop");

    stream_is(TC("{\"index\":0,\"function\":{\"name\":\"f\"}}")
              TC("{\"index\":0,\"id\":\"c\"}") F("tool_calls"),
              S "tool 0 c f|args 0 {}|/tool 0|finish 4",
              "id comes late, no arguments");

    stream_is(TC("{\"index\":1,\"id\":\"a\",\"function\":{\"name\":\"f\"}}")
              TC("{\"index\":3,\"id\":\"b\",\"function\":{\"name\":\"g\"}}")
              TC("{\"index\":1,\"function\":{\"arguments\":\"1\"}},"
                 "{\"index\":3,\"function\":{\"arguments\":\"2\"}}")
              TC("{\"index\":1,\"function\":{\"arguments\":\"3\"}}")
              F("tool_calls"),
              S "tool 0 a f|tool 1 b g|args 0 1|args 1 2|args 0 3|/tool 0"
              "|/tool 1|finish 4", "interleaved calls are counted from 0");

    stream_is(TC("{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"f\","
                 "\"arguments\":\"{\\\"x\\\":\\\"}\\\\\\\"\\\"}\"}}")
              TC("{\"index\":0,\"id\":\"b\",\"function\":{\"name\":\"f\","
                 "\"arguments\":\"{}\"}}") F("tool_calls"),
              S "tool 0 a f|args 0 {\\\"x\\\":\\\"}\\\\\\\"\\\"}|/tool 0"
              "|tool 1 b f|args 1 {}|/tool 1|finish 4",
              "another id at the same index, a complete call ends");

    stream_is(TC("{\"id\":\"a\",\"function\":{\"name\":\"f\","
                 "\"arguments\":\"{\"}}")
              TC("{\"function\":{\"arguments\":\"}\"}}") F("tool_calls"),
              S "tool 0 a f|args 0 {|args 0 }|/tool 0|finish 4",
              "no index");

    stream_is(TC("{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"f\"}}")
              TC("{\"index\":0,\"id\":\"z\",\"function\":"
                 "{\"arguments\":\"{}\"}}") F("tool_calls"),
              S "tool 0 a f|args 0 {}|/tool 0|finish 4",
              "another id with each piece");

    stream_is(TC("{\"index\":0,\"id\":\"a\",\"function\":{\"name\":\"f\","
                 "\"arguments\":{\"x\":\"y\"}}}") F("tool_calls"),
              S "tool 0 a f|args 0 {\\\"x\\\":\\\"y\\\"}|/tool 0|finish 4",
              "arguments as an object");

    stream_is(TC("") C1 "{\"content\":\"a\",\"tool_calls\":[{\"index\":0,"
              "\"id\":\"a\",\"function\":{\"name\":\"f\",\"arguments\":"
              "\"{}\"}}]}" C2,
              S "text a|tool 0 a f|args 0 {}",
              "empty tool_calls, and text with a call");

    stream_is(C1 "{\"function_call\":{\"name\":\"f\"}}" C2
              C1 "{\"function_call\":{\"arguments\":\"{}\"}}" C2
              F("function_call"),
              S "tool 0 call_08acdf07b5535ffe f|args 0 {}|/tool 0|finish 4",
              "function_call");

    stream_is(C1 "{\"reasoning_content\":\"a\",\"content\":null}" C2
              C1 "{\"reasoning\":\"b\",\"reasoning_details\":[{\"type\":"
              "\"reasoning.text\",\"text\":\"b\"}]}" C2
              C1 "{\"reasoning\":null,\"reasoning_details\":[{\"type\":"
              "\"reasoning.text\",\"signature\":\"s\","
              "\"format\":\"anthropic-claude-v1\"},"
              "{\"type\":\"reasoning.encrypted\",\"data\":\"d\","
              "\"format\":\"openai-responses-v1\"}]}" C2
              C1 "{\"content\":[{\"type\":\"thinking\",\"thinking\":"
              "[{\"type\":\"text\",\"text\":\"c\"}]},"
              "{\"type\":\"text\",\"text\":\"t\"}]}" C2
              C1 "{\"reasoning_redacted\":[\"e\"]}" C2,
              S "reasoning a|reasoning b|signature s|reasoning c|text t"
              "|redacted e", "thoughts under all their names");

    stream_is(C1 "{\"refusal\":\"no\"}" C2
              C1 "{\"annotations\":[{\"type\":\"url_citation\"}]}" C2
              F("content_filter"),
              S "refusal no|cite {\"type\":\"url_citation\"}|finish 5",
              "refusal, annotations");

    stream_is(C1 "{\"content\":\"a\"},\"finish_reason\":\"stop\","
              "\"stop_reason\":\"END\"}]}\n"
              F("stop"), S "text a|finish 2 END",
              "stop sequence, reason repeated");

    stream_is(C1 "{\"content\":\"a\"}" C2 "[DONE]",
              S "text a|finish 10|end", "no reason before the end");

    stream_is(F("length"), "start   0|finish 3", "length");
    stream_is(F("model_length"), "start   0|finish 3", "model_length");
    stream_is(F("eos"), "start   0|finish 1", "eos");
    stream_is(F("insufficient_system_resource"), "start   0|finish 9",
              "insufficient_system_resource");
    stream_is(F("odd"), "start   0|finish 10", "unknown reason");

    stream_is(C1 "{}" C2 "{\"error\":{\"message\":\"m\",\"code\":429}}\n"
              "[DONE]", S "error rate_limit m", "error in a stream");

    stream_is("{\"error\":\"overloaded\"}", "error overloaded overloaded",
              "error as a string");

    stream_is("{\"foo\":1}\n{}\n{\"error\":null}\n{\"choices\":null}", "",
              "objects of another kind");

    stream_is("{\"a\":", "!an event is not valid JSON", "invalid JSON");
    stream_is("[1]", "!an event is not a JSON object", "not an object");

    stream_is("{\"choices\":[{\"index\":0,\"delta\":{}}],"
              "\"x_groq\":{\"usage\":{\"prompt_tokens\":1,"
              "\"completion_tokens\":2}}}",
              "start   0|usage 1/-1/-1 2/-1", "x_groq.usage");

    stream_is("{\"choices\":[{\"index\":0,\"delta\":{}}],"
              "\"timings\":{\"cache_n\":3,\"prompt_n\":4,"
              "\"predicted_n\":2}}",
              "start   0|usage 7/3/-1 2/-1", "timings");

    stream_is("{\"choices\":[{\"index\":1,\"delta\":{\"content\":\"b\"}},"
              "{\"index\":0,\"delta\":{\"content\":\"a\"},"
              "\"finish_reason\":\"stop\"}]}\n[DONE]",
              "start   0|text#1 b|text a|finish 1|finish#1 10|end",
              "two choices");

    /* usage_only, decode_finish, a named error event */

    decoder_init(&dec, NGX_HTTP_AI_OP_CHAT);
    ngx_str_null(&name);

    ngx_str_set(&data, "{\"choices\":[],\"usage\":{\"prompt_tokens\":1,"
                       "\"completion_tokens\":2}}");
    dialect->decode_event(&dec, &name, &data);
    ok(dec.usage_only, "usage_only");

    ngx_str_set(&data, "{\"choices\":[{\"delta\":{\"content\":\"\"}}],"
                       "\"usage\":{\"prompt_tokens\":1}}");
    dialect->decode_event(&dec, &name, &data);
    ok(!dec.usage_only, "not usage_only with a choice");

    ok(dialect->decode_finish(&dec) == NGX_DECLINED, "incomplete");

    ngx_str_set(&data, "{\"choices\":[{\"delta\":{},"
                       "\"finish_reason\":\"stop\"}]}");
    dialect->decode_event(&dec, &name, &data);
    ok(dialect->decode_finish(&dec) == NGX_OK && dec.done,
       "complete without its end");

    decoder_init(&dec, NGX_HTTP_AI_OP_CHAT);
    ngx_http_ai_out_init(&dump, pool, 256);
    ngx_str_set(&name, "error");
    ngx_str_set(&data, "{\"error\":{\"message\":\"m\",\"status_code\":503}}");
    dialect->decode_event(&dec, &name, &data);
    is_mem(dump.start, dump.last - dump.start, "error overloaded m",
           sizeof("error overloaded m") - 1, "event: error");
    dump.pool = NULL;
}


static void
test_bodies(void)
{
    u_char                 *p;
    size_t                  len;
    ngx_uint_t              i, n;
    ngx_http_ai_out_t       out;
    ngx_http_ai_decoder_t   dec;

    body_is(NGX_HTTP_AI_OP_CHAT, "\n\n {\"id\":\"i\",\"choices\":[{\"message\""
            ":{\"content\":\"a\",\"tool_calls\":[{\"id\":\"c\",\"function\":"
            "{\"name\":\"f\",\"arguments\":\"\"}},{\"function\":{\"name\":"
            "\"g\",\"arguments\":\"{}\"}}]},\"finish_reason\":\"stop\"}]}",
            "start i  0|text a|tool 0 c f|args 0 {}|/tool 0"
            "|tool 1 call_08b71407b55c0e92 g|args 1 {}|/tool 1|finish 4|end",
            "body with calls");

    body_is(NGX_HTTP_AI_OP_CHAT, "{\"error\":{\"message\":\"m\"}}",
            "error server_error m", "error in a good reply");
    body_is(NGX_HTTP_AI_OP_CHAT, "{\"object\":\"error\",\"message\":\"m\","
            "\"code\":429}", "error rate_limit m", "object is error");
    body_is(NGX_HTTP_AI_OP_CHAT, "{\"a\":1}",
            "!the answer is not one of an OpenAI endpoint", "other object");
    body_is(NGX_HTTP_AI_OP_CHAT, "null", "!the answer is not a JSON object",
            "null");
    body_is(NGX_HTTP_AI_OP_CHAT, "<html>", "!the answer is not valid JSON",
            "HTML");
    body_is(NGX_HTTP_AI_OP_CHAT, "{\"object\":\"x\",\"choices\":[]}",
            "start   0|finish 10|end", "no choices");

    body_is(NGX_HTTP_AI_OP_COMPLETIONS, "{\"id\":\"i\",\"choices\":["
            "{\"text\":\"a\",\"index\":0,\"finish_reason\":\"length\"}],"
            "\"usage\":{\"prompt_tokens\":5,\"total_tokens\":7,"
            "\"completion_tokens\":2}}",
            "start i  0|text a|finish 3|usage 5/-1/-1 2/-1|end",
            "completions");

    body_is(NGX_HTTP_AI_OP_EMBEDDINGS, "{\"object\":\"list\",\"data\":["
            "{\"embedding\":[1,2]}],\"model\":\"m\",\"usage\":"
            "{\"prompt_tokens\":5,\"total_tokens\":5}}",
            "start  m 0|usage 5/-1/-1 0/-1|end", "embeddings");
    body_is(NGX_HTTP_AI_OP_EMBEDDINGS, "{\"error\":{\"message\":\"m\"}}",
            "error server_error m", "error of embeddings");

    /* totals that tell more than the parts */

    body_is(NGX_HTTP_AI_OP_CHAT, "{\"choices\":[],\"usage\":{"
            "\"prompt_tokens\":9,\"completion_tokens\":201,"
            "\"total_tokens\":585,\"prompt_tokens_details\":{"
            "\"audio_tokens\":375}}}",
            "start   0|usage 384/-1/-1 201/-1|finish 10|end",
            "audio beside the prompt");
    body_is(NGX_HTTP_AI_OP_CHAT, "{\"choices\":[],\"usage\":{"
            "\"prompt_tokens\":35,\"completion_tokens\":12,"
            "\"total_tokens\":109}}",
            "start   0|usage 35/-1/-1 74/62|finish 10|end",
            "thoughts beside the completion");
    body_is(NGX_HTTP_AI_OP_CHAT, "{\"choices\":[],\"usage\":{"
            "\"prompt_tokens\":10,\"completion_tokens\":1,"
            "\"prompt_cache_hit_tokens\":4,\"prompt_tokens_details\":{"
            "\"cached_tokens\":4,\"cache_write_tokens\":2}}}",
            "start   0|usage 10/4/2 1/-1|finish 10|end", "cache counters");
    body_is(NGX_HTTP_AI_OP_CHAT, "{\"choices\":[],\"usage\":{"
            "\"prompt_tokens\":1,\"completion_tokens\":1,"
            "\"prompt_tokens_details\":{\"cached_tokens\":4}}}",
            "start   0|usage 4/4/-1 1/-1|finish 10|end",
            "more cached than there is");

    /* a large answer of vectors makes no tree */

    ngx_http_ai_out_init(&out, pool, 1 << 20);
    ngx_http_ai_out_lit(&out, "{\"data\":[{\"embedding\":[0.1");

    for (i = 0; i < 100000; i++) {
        ngx_http_ai_out_lit(&out, ",-0.012345");
    }

    ngx_http_ai_out_lit(&out, "]}],\"usage\":{\"prompt_tokens\":8}}");

    len = out.last - out.start;
    p = test_copy(out.start, len);

    decoder_init(&dec, NGX_HTTP_AI_OP_EMBEDDINGS);
    n = dec.json.nalloc;
    ok(dialect->decode_body(&dec, p, len) == NGX_OK && dec.json.nalloc == n,
       "a megabyte of vectors");

    free(p);
}


/* --- errors, models --- */

static void
error_is(ngx_http_ai_err_e class, ngx_uint_t status, const char *type,
    const char *code, ngx_uint_t same, const char *expected)
{
    ngx_http_ai_out_t    out;
    ngx_http_ai_error_t  err;

    ngx_memzero(&err, sizeof(ngx_http_ai_error_t));

    err.class = class;
    err.status = status;
    ngx_str_set(&err.message, "a \"b\"\n\xff");
    err.type.data = (u_char *) type;
    err.type.len = strlen(type);
    err.code.data = (u_char *) code;
    err.code.len = strlen(code);

    ngx_http_ai_out_init(&out, pool, 0);
    dialect->encode_error(&out, &err, same);

    is_mem(out.start, out.last - out.start, expected, strlen(expected),
           "error body");
}


static void
test_errors(void)
{
    ngx_str_t            names[2] = { ngx_string("a\"b"), ngx_string("c") };
    ngx_http_ai_out_t    out;
    ngx_http_ai_error_t  err;

#define M  "{\"error\":{\"message\":\"a \\\"b\\\"\\n\xef\xbf\xbd\","

    error_is(NGX_HTTP_AI_ERR_CONTEXT_LENGTH, 400, "x", "y", 0,
             M "\"type\":\"invalid_request_error\",\"param\":null,"
             "\"code\":\"context_length_exceeded\"}}");
    error_is(NGX_HTTP_AI_ERR_INVALID_REQUEST, 400, "x", "y", 1,
             M "\"type\":\"x\",\"param\":null,\"code\":\"y\"}}");
    error_is(NGX_HTTP_AI_ERR_SERVER, 500, "x", "y", 1,
             M "\"type\":\"server_error\",\"param\":null,\"code\":null}}");
    error_is(NGX_HTTP_AI_ERR_AUTH, 401, "", "", 0,
             M "\"type\":\"invalid_request_error\",\"param\":null,"
             "\"code\":\"invalid_api_key\"}}");
    error_is(NGX_HTTP_AI_ERR_AUTH, 502, "", "", 0,
             M "\"type\":\"server_error\",\"param\":null,"
             "\"code\":\"upstream_auth\"}}");
    error_is(NGX_HTTP_AI_ERR_RATE_LIMIT, 429, "", "", 0,
             M "\"type\":\"requests\",\"param\":null,"
             "\"code\":\"rate_limit_exceeded\"}}");

    ngx_memzero(&err, sizeof(ngx_http_ai_error_t));
    err.class = NGX_HTTP_AI_ERR_INCOMPLETE;

    ngx_http_ai_out_init(&out, pool, 0);
    dialect->encode_stream_error(&out, &err);
    ok(ngx_strncmp(out.start, "data: {\"error\":{", 16) == 0
       && ngx_strncmp(out.last - 2, "\n\n", 2) == 0, "stream error");

    ngx_http_ai_out_init(&out, pool, 0);
    dialect->encode_models(&out, names, 2, 7, 0);
    is_mem(out.start, out.last - out.start,
#define MODEL(n)  "{\"id\":\"" n "\",\"object\":\"model\",\"created\":7,"     \
                  "\"owned_by\":\"nginx\"}"
           "{\"object\":\"list\",\"data\":[" MODEL("a\\\"b") "," MODEL("c")
           "]}",
           sizeof("{\"object\":\"list\",\"data\":[" MODEL("a\\\"b") ","
                  MODEL("c") "]}") - 1, "models");

    ngx_http_ai_out_init(&out, pool, 0);
    dialect->encode_models(&out, &names[1], 1, 7, 1);
    is_mem(out.start, out.last - out.start, MODEL("c"),
           sizeof(MODEL("c")) - 1, "model");
}


/* --- requests --- */

static void
request_is(const char *vendor, const char *text, const char *expected)
{
    ngx_int_t               rc;
    ngx_http_ai_out_t       out;
    ngx_http_ai_codec_t     codec;
    ngx_http_ai_request_t   req;

    rc = request(text, strlen(text), vendor, &codec, &req, &out);

    if (!ok(rc == NGX_OK, "%s: %.100s", vendor, text)) {
        diag("%.*s", (int) codec.error.message.len, codec.error.message.data);
        return;
    }

    is_mem(out.start, out.last - out.start, expected, strlen(expected),
           "its request");
}


static void
refused(const char *text, const char *param)
{
    ngx_int_t               rc;
    ngx_http_ai_out_t       out;
    ngx_http_ai_codec_t     codec;
    ngx_http_ai_request_t   req;

    rc = request(text, strlen(text), "mistral", &codec, &req, &out);

    if (!ok(rc == NGX_DECLINED
            && codec.error.class == NGX_HTTP_AI_ERR_INVALID_REQUEST
            && codec.error.message.len
            && codec.error.param.len == strlen(param)
            && (codec.error.param.len == 0
                || memcmp(codec.error.param.data, param, strlen(param))
                   == 0),
            "refused for %s: %.100s", param, text))
    {
        diag("%ld: %.*s", (long) rc, (int) codec.error.param.len,
             codec.error.param.data);
    }
}


#define HI   "\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]"
#define RQ(s)  "{\"model\":\"x\"," HI "," s "}"
#define MS(s)  "{\"messages\":[" s "]}"
#define MQ   "{\"model\":\"M\",\"messages\":["
#define MH   "{\"model\":\"M\"," HI
#define FN   "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":"      \
             "\"f\",\"description\":\"d\",\"parameters\":{\"a\":1E5},"        \
             "\"strict\":true}}]"
#define TQ   "{\"model\":\"M\"," FN


static void
test_requests(void)
{
    char                   *big, *q;
    ngx_http_ai_codec_t     codec;
    ngx_http_ai_request_t   req;

    request_is("openai", RQ("\"stream\":true,\"temperature\":0.5,"
               "\"top_p\":1,\"seed\":9007199254740993,\"max_tokens\":5,"
               "\"max_completion_tokens\":6,\"stop\":[\"a\\n\",\"\"],"
               "\"frequency_penalty\":1,\"presence_penalty\":-1,"
               "\"user\":\"u\",\"service_tier\":\"flex\",\"top_k\":4,"
               "\"reasoning_effort\":\"xhigh\",\"n\":1,\"logprobs\":false,"
               "\"top_logprobs\":0,\"logit_bias\":{},\"metadata\":{},"
               "\"store\":true,\"verbosity\":\"low\",\"modalities\":"
               "[\"text\"],\"prediction\":null,\"foo\":1,"
               "\"response_format\":{\"type\":\"json_object\"}"),
               MH ",\"max_completion_tokens\":6,\"temperature\":0.5,"
               "\"top_p\":1,\"seed\":9007199254740993,"
               "\"frequency_penalty\":1,\"presence_penalty\":-1,"
               "\"stop\":[\"a\\n\"],\"response_format\":{\"type\":"
               "\"json_object\"},\"reasoning_effort\":\"xhigh\","
               "\"safety_identifier\":\"u\",\"service_tier\":\"flex\","
               "\"stream\":true,\"stream_options\":{\"include_usage\":true}}");

    request_is("mistral", RQ("\"stream\":true,\"max_completion_tokens\":6,"
               "\"seed\":1,\"user\":\"u\",\"reasoning_effort\":\"max\","
               "\"tools\":[],\"tool_choice\":\"auto\","
               "\"parallel_tool_calls\":true,\"service_tier\":\"auto\""),
               MH ",\"max_tokens\":6,\"random_seed\":1,"
               "\"reasoning_effort\":\"xhigh\",\"stream\":true}");

    request_is("vllm", RQ("\"top_k\":4,\"stop\":\"s\",\"stream\":null"),
               MH ",\"top_k\":4,\"stop\":[\"s\"]}");

    request_is("deepseek", RQ("\"reasoning_effort\":\"none\",\"stop\":\"\""),
               MH ",\"thinking\":{\"type\":\"disabled\"}}");

    request_is("openai", RQ("\"thinking\":{\"type\":\"enabled\","
               "\"budget_tokens\":4096}"),
               MH ",\"reasoning_effort\":\"medium\"}");
    request_is("groq", RQ("\"reasoning\":{\"effort\":\"minimal\"}"),
               MH ",\"reasoning_effort\":\"low\"}");
    request_is("openai", RQ("\"thinking\":{\"type\":\"disabled\"}"), MH "}");

    request_is("openai", RQ(FN ",\"tool_choice\":{\"type\":\"function\","
               "\"function\":{\"name\":\"f\"}},\"parallel_tool_calls\":false"),
               TQ ",\"tool_choice\":{\"type\":\"function\",\"function\":"
               "{\"name\":\"f\"}},\"parallel_tool_calls\":false," HI "}");
    request_is("llamacpp", RQ(FN ",\"tool_choice\":{\"type\":\"function\","
               "\"function\":{\"name\":\"f\"}}"),
               TQ ",\"tool_choice\":\"required\"," HI "}");
    request_is("openai", RQ("\"functions\":[{\"name\":\"f\",\"description\":"
               "\"d\",\"parameters\":{\"a\":1E5},\"strict\":true}],"
               "\"function_call\":{\"name\":\"f\"}"),
               TQ ",\"tool_choice\":{\"type\":\"function\",\"function\":"
               "{\"name\":\"f\"}}," HI "}");
    request_is("openai", RQ("\"tools\":[{\"type\":\"function\",\"function\":"
               "{\"name\":\"g\"}},{\"type\":\"function\",\"function\":"
               "{\"name\":\"f\",\"description\":\"d\",\"parameters\":"
               "{\"a\":1E5},\"strict\":true}}],\"tool_choice\":{\"type\":"
               "\"allowed_tools\",\"allowed_tools\":{\"mode\":\"required\","
               "\"tools\":[{\"type\":\"function\",\"function\":{\"name\":"
               "\"f\"}}]}}"),
               TQ ",\"tool_choice\":\"required\"," HI "}");

    request_is("openai", RQ("\"response_format\":{\"type\":\"json_schema\","
               "\"json_schema\":{\"schema\":{\"x\": 1},\"strict\":false}}"),
               MH ",\"response_format\":{\"type\":\"json_schema\","
               "\"json_schema\":{\"name\":\"response\",\"schema\":{\"x\": 1},"
               "\"strict\":false}}}");

    /* messages */

    request_is("openai", MS("{\"role\":\"developer\",\"content\":\"d\"},"
               "{\"role\":\"system\",\"name\":\"n\",\"content\":[{\"type\":"
               "\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]},"
               "{\"role\":\"user\",\"content\":[{\"type\":\"image_url\","
               "\"image_url\":{\"url\":\"DATA:image\\/PNG;charset=utf-8;BASE64"
               ",QUI\\/\",\"detail\":\"low\"}},{\"type\":\"image_url\","
               "\"image_url\":\"https://a/b\"},{\"type\":\"input_audio\","
               "\"input_audio\":{\"data\":\"QQ==\",\"format\":\"wav\"}},"
               "{\"type\":\"file\",\"file\":{\"file_id\":\"f\"}},"
               "{\"type\":\"file\",\"file\":{\"filename\":\"a.pdf\","
               "\"file_data\":\"data:application/pdf;base64,QQ==\"}}]}"),
               MQ "{\"role\":\"developer\",\"content\":\"d\"},"
               "{\"role\":\"system\",\"name\":\"n\",\"content\":[{\"type\":"
               "\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\"}]},"
               "{\"role\":\"user\",\"content\":[{\"type\":\"image_url\","
               "\"image_url\":{\"url\":\"data:image/png;base64,QUI/\","
               "\"detail\":\"low\"}},{\"type\":\"image_url\",\"image_url\":"
               "{\"url\":\"https://a/b\"}},{\"type\":\"input_audio\","
               "\"input_audio\":{\"data\":\"QQ==\",\"format\":\"wav\"}},"
               "{\"type\":\"file\",\"file\":{\"file_id\":\"f\"}},"
               "{\"type\":\"file\",\"file\":{\"filename\":\"a.pdf\","
               "\"file_data\":\"data:application/pdf;base64,QQ==\"}}]}]}");

    request_is("deepseek", MS("{\"role\":\"developer\",\"content\":[{\"type\":"
               "\"text\",\"text\":\"a\"},{\"type\":\"text\",\"text\":\"b\","
               "\"cache_control\":{\"type\":\"ephemeral\"}}]},"
               "{\"role\":\"assistant\",\"content\":null,\"refusal\":\"r\","
               "\"reasoning_content\":\"t\"}"),
               MQ "{\"role\":\"system\",\"content\":\"a\\n\\nb\"},"
               "{\"role\":\"assistant\",\"content\":\"r\","
               "\"reasoning_content\":\"t\"}]}");

    request_is("vllm", MS("{\"role\":\"assistant\",\"content\":[{\"type\":"
               "\"thinking\",\"thinking\":[{\"type\":\"text\",\"text\":"
               "\"t\"}]},{\"type\":\"text\",\"text\":\"a\"}]}"),
               MQ "{\"role\":\"assistant\",\"content\":\"a\","
               "\"reasoning_content\":\"t\"}]}");

    request_is("openrouter", MS("{\"role\":\"user\",\"content\":\"a\","
               "\"cache_control\":{\"type\":\"ephemeral\",\"ttl\":\"1h\"}},"
               "{\"role\":\"assistant\",\"content\":\"b\",\"reasoning\":\"t\","
               "\"reasoning_signature\":\"s\",\"reasoning_redacted\":"
               "[\"d\"]}"),
               MQ "{\"role\":\"user\",\"content\":[{\"type\":\"text\","
               "\"text\":\"a\",\"cache_control\":{\"type\":\"ephemeral\","
               "\"ttl\":\"1h\"}}]},{\"role\":\"assistant\",\"content\":\"b\","
               "\"reasoning_details\":[{\"type\":\"reasoning.text\",\"text\":"
               "\"t\",\"signature\":\"s\",\"format\":\"anthropic-claude-v1\","
               "\"index\":0},{\"type\":\"reasoning.encrypted\",\"data\":\"d\","
               "\"format\":\"anthropic-claude-v1\",\"index\":1}]}]}");

#define CALL(id, args)  "{\"id\":\"" id "\",\"type\":\"function\","           \
                        "\"function\":{\"name\":\"f\",\"arguments\":" args "}}"

    request_is("openai", MS("{\"role\":\"assistant\",\"tool_calls\":["
               CALL("c1", "\"{\\\"a\\\": 1}\"") ","
               CALL("c2", "null") "," CALL("c3", "{\"b\":\"\\n\"}") "]},"
               "{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"r\"},"
               "{\"role\":\"tool\",\"tool_call_id\":\"c2\",\"content\":["
               "{\"type\":\"text\",\"text\":\"s\"},{\"type\":\"image_url\","
               "\"image_url\":{\"url\":\"http://i\"}}]},"
               "{\"role\":\"tool\",\"tool_call_id\":\"c3\",\"content\":null},"
               "{\"role\":\"user\",\"content\":\"go\"}"),
               MQ "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":["
               CALL("c1", "\"{\\\"a\\\": 1}\"") "," CALL("c2", "\"{}\"") ","
               CALL("c3", "\"{\\\"b\\\":\\\"\\\\n\\\"}\"") "]},"
               "{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"r\"},"
               "{\"role\":\"tool\",\"tool_call_id\":\"c2\",\"content\":"
               "\"s\\n[image: see the next user message]\"},"
               "{\"role\":\"tool\",\"tool_call_id\":\"c3\",\"content\":\"\"},"
               "{\"role\":\"user\",\"content\":[{\"type\":\"image_url\","
               "\"image_url\":{\"url\":\"http://i\"}}]},"
               "{\"role\":\"user\",\"content\":\"go\"}]}");

    request_is("mistral", MS("{\"role\":\"assistant\",\"tool_calls\":["
               CALL("abcdef123", "\"{}\"") "," CALL("call_1", "\"{}\"") "]},"
               "{\"role\":\"tool\",\"tool_call_id\":\"abcdef123\","
               "\"content\":\"r\"},{\"role\":\"tool\",\"tool_call_id\":"
               "\"call_1\",\"content\":\"s\"}"),
               MQ "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":["
               CALL("abcdef123", "\"{}\"") "," CALL("bWtTr3NCT", "\"{}\"")
               "]},{\"role\":\"tool\",\"tool_call_id\":\"abcdef123\","
               "\"name\":\"f\",\"content\":\"r\"},{\"role\":\"tool\","
               "\"tool_call_id\":\"bWtTr3NCT\",\"name\":\"f\","
               "\"content\":\"s\"}]}");

    request_is("openai", MS("{\"role\":\"assistant\",\"function_call\":"
               "{\"name\":\"f\",\"arguments\":\"{}\"}},"
               "{\"role\":\"function\",\"name\":\"f\",\"content\":\"r\"}"),
               MQ "{\"role\":\"assistant\",\"content\":null,\"tool_calls\":["
               CALL("call_function_0", "\"{}\"") "]},{\"role\":\"tool\","
               "\"tool_call_id\":\"call_function_0\",\"content\":\"r\"}]}");

    request_is("openai", MS("{\"role\":\"assistant\",\"content\":[{\"type\":"
               "\"refusal\",\"refusal\":\"r\"}],\"tool_calls\":[{\"type\":"
               "\"custom\",\"id\":\"c\",\"custom\":{\"name\":\"n\",\"input\":"
               "\"i\"}}]}"),
               MQ "{\"role\":\"assistant\",\"content\":null,\"refusal\":\"r\","
               "\"tool_calls\":[{\"id\":\"c\",\"type\":\"custom\",\"custom\":"
               "{\"name\":\"n\",\"input\":\"i\"}}]}]}");

    /* a user's id that is too long */

    big = malloc(400);
    q = big + sprintf(big, "{\"user\":\"");
    memset(q, 'u', 200);
    sprintf(q + 200, "\"," HI "}");
    request_is("openai", big, MH ",\"safety_identifier\":"
               "\"6869ceb47b68a0ed95e25bc140a98b55\"}");
    free(big);

    /* include_usage is read with stream only */

    request(RQ("\"stream\":true,\"stream_options\":{\"include_usage\":true}"),
            strlen(RQ("\"stream\":true,\"stream_options\":"
                      "{\"include_usage\":true}")),
            "openai", &codec, &req, NULL);
    ok(req.stream && req.include_usage, "include_usage");

    /* refused */

    refused("[]", "");
    refused("{}", "messages");
    refused("{\"messages\":{}}", "messages");
    refused("{\"messages\":[]}", "messages");
    refused("{\"messages\":[1]}", "messages[0]");
    refused(MS("{}"), "messages[0].role");
    refused(MS("{\"role\":\"x\",\"content\":\"\"}"), "messages[0].role");
    refused(MS("{\"role\":\"user\"}"), "messages[0].content");
    refused(MS("{\"role\":\"user\",\"content\":[]}"), "messages[0].content");
    refused(MS("{\"role\":\"user\",\"content\":1}"), "messages[0].content");
    refused(MS("{\"role\":\"user\",\"content\":[{\"type\":\"video_url\"}]}"),
            "messages[0].content[0].type");
    refused(MS("{\"role\":\"user\",\"content\":[{\"type\":\"text\"}]}"),
            "messages[0].content[0].text");
    refused(MS("{\"role\":\"user\",\"content\":[{\"type\":\"image_url\","
               "\"image_url\":{\"url\":\"data:image/png,abc\"}}]}"),
            "messages[0].content[0].image_url.url");
    refused(MS("{\"role\":\"system\",\"content\":[{\"type\":\"image_url\","
               "\"image_url\":{\"url\":\"http://a\"}}]}"),
            "messages[0].content[0].type");
    refused(MS("{\"role\":\"tool\",\"content\":\"a\"}"),
            "messages[0].tool_call_id");
    refused(MS("{\"role\":\"function\",\"content\":\"a\"}"),
            "messages[0].role");
    refused(MS("{\"role\":\"assistant\",\"tool_calls\":[{\"id\":\"a\"}]}"),
            "messages[0].tool_calls[0].function.name");
    refused(MS("{\"role\":\"assistant\",\"tool_calls\":[{\"function\":"
               "{\"name\":\"f\"}}]}"), "messages[0].tool_calls[0].id");
    refused(MS("{\"role\":\"assistant\",\"audio\":{\"id\":\"a\"}}"),
            "messages[0].audio");
    refused(MS("{\"role\":\"assistant\",\"tool_calls\":[{\"type\":"
               "\"custom\",\"id\":\"c\",\"custom\":{\"name\":\"n\",\"input\":"
               "\"i\"}}]}"), "messages");
    refused(RQ("\"n\":2"), "n");
    refused(RQ("\"logprobs\":true"), "logprobs");
    refused(RQ("\"top_logprobs\":2"), "top_logprobs");
    refused(RQ("\"logit_bias\":{\"1\":2}"), "logit_bias");
    refused(RQ("\"prediction\":{\"type\":\"content\"}"), "prediction");
    refused(RQ("\"modalities\":[\"text\",\"audio\"]"), "modalities");
    refused(RQ("\"audio\":{\"voice\":\"x\"}"), "audio");
    refused(RQ("\"web_search_options\":{}"), "web_search_options");
    refused(RQ("\"moderation\":{\"model\":\"m\"}"), "moderation");
    refused(RQ("\"temperature\":\"1\""), "temperature");
    refused(RQ("\"max_tokens\":-1"), "max_tokens");
    refused(RQ("\"max_completion_tokens\":\"1\""), "max_completion_tokens");
    refused(RQ("\"stop\":[1]"), "stop");
    refused(RQ("\"stream\":1"), "stream");
    refused(RQ("\"stream_options\":1"), "stream_options");
    refused(RQ("\"reasoning_effort\":\"huge\""), "reasoning_effort");
    refused(RQ("\"response_format\":{\"type\":\"xml\"}"),
            "response_format.type");
    refused(RQ("\"response_format\":{\"type\":\"json_schema\"}"),
            "response_format.json_schema.schema");
    refused(RQ("\"tools\":[{\"type\":\"custom\"}]"), "tools[0].type");
    refused(RQ("\"tools\":[{\"type\":\"function\"}]"), "tools[0].function");
    refused(RQ("\"tools\":[{\"type\":\"function\",\"function\":{}}]"),
            "tools[0].function.name");
    refused(RQ("\"tools\":[{\"function\":{\"name\":\"f\",\"parameters\":1}}]"),
            "tools[0].function.parameters");
    refused(RQ("\"functions\":[{\"name\":1}]"), "functions[0].name");
    refused(RQ("\"tool_choice\":\"required\""), "tool_choice");
    refused(RQ("\"tool_choice\":\"x\""), "tool_choice");
    refused(RQ(FN ",\"tool_choice\":{\"type\":\"custom\"}"),
            "tool_choice.type");
    refused(RQ(FN ",\"tool_choice\":{\"type\":\"function\",\"function\":"
               "{\"name\":\"g\"}}"), "tool_choice.function.name");
    refused(RQ("\"model\":1"), "model");
}


/* what other dialects put into the pivot */

static void
test_pivot(void)
{
    ngx_http_ai_out_t           out;
    ngx_http_ai_part_t          part[5];
    ngx_http_ai_turn_t          turn;
    ngx_http_ai_codec_t         codec;
    ngx_http_ai_request_t       req;
    ngx_http_ai_target_info_t   target;

    ngx_memzero(part, sizeof(part));
    ngx_memzero(&turn, sizeof(turn));
    ngx_memzero(&codec, sizeof(codec));
    ngx_memzero(&req, sizeof(req));
    ngx_memzero(&target, sizeof(target));

    codec.pool = pool;
    ngx_str_set(&target.model, "M");
    ngx_str_set(&target.vendor, "openai");

    req.turns = &turn;
    turn.role = NGX_HTTP_AI_ROLE_USER;
    turn.parts = &part[0];

    part[0].type = NGX_HTTP_AI_PART_TEXT;
    ngx_str_set(&part[0].text, "before");
    part[0].next = &part[1];

    part[1].type = NGX_HTTP_AI_PART_TOOL_RESULT;
    ngx_str_set(&part[1].id, "toolu_1");
    part[1].is_error = 1;
    part[1].parts = &part[2];
    part[1].next = &part[4];

    part[2].type = NGX_HTTP_AI_PART_TEXT;
    ngx_str_set(&part[2].text, "bad");
    part[2].next = &part[3];

    part[3].type = NGX_HTTP_AI_PART_IMAGE;
    ngx_str_set(&part[3].mime, "image/png");
    ngx_str_set(&part[3].data, "QQ==");

    part[4].type = NGX_HTTP_AI_PART_FILE;
    ngx_str_set(&part[4].text, "notes");

    ngx_http_ai_out_init(&out, pool, 0);

    if (ok(dialect->encode_request(&codec, &req, &target, &out) == NGX_OK,
           "text beside a result"))
    {
#define EXP  MQ "{\"role\":\"tool\",\"tool_call_id\":\"toolu_1\","            \
             "\"content\":\"Error: bad\\n[image: see the next user "          \
             "message]\"},{\"role\":\"user\",\"content\":[{\"type\":"         \
             "\"image_url\",\"image_url\":{\"url\":\"data:image/png;base64,"  \
             "QQ==\"}},{\"type\":\"text\",\"text\":\"before\"},{\"type\":"    \
             "\"text\",\"text\":\"notes\"}]}]}"
        is_mem(out.start, out.last - out.start, EXP, sizeof(EXP) - 1,
               "its request");
    }

    ngx_str_null(&part[4].text);
    ngx_str_set(&part[4].url, "https://f");

    ngx_http_ai_out_init(&out, pool, 0);
    ok(dialect->encode_request(&codec, &req, &target, &out) == NGX_DECLINED,
       "file by URL is refused");
}


/* --- answers to clients --- */

static void
event(ngx_http_ai_encoder_t *enc, ngx_http_ai_event_e type,
    ngx_uint_t choice, const char *text)
{
    ngx_http_ai_event_t  ev;

    ngx_memzero(&ev, sizeof(ngx_http_ai_event_t));

    ev.type = type;
    ev.choice = choice;
    ev.text.data = (u_char *) text;
    ev.text.len = strlen(text);
    ev.finish = NGX_HTTP_AI_FINISH_STOP_SEQUENCE;
    ngx_str_set(&ev.id, "id");
    ngx_str_set(&ev.name, "f");

    if (dialect->encode_event(enc, &ev) != NGX_OK) {
        ok(0, "encode_event");
    }
}


static void
test_replies(void)
{
    ngx_uint_t              stream;
    ngx_http_ai_out_t       out;
    ngx_http_ai_encoder_t   enc;

#define H  "data: {\"id\":\"chatcmpl-ID\",\"object\":\"chat.completion.chunk" \
           "\",\"created\":1700000000,\"model\":\"m\",\"choices\":["
#define D(d)  H "{\"index\":0,\"delta\":{" d "},\"logprobs\":null,"           \
              "\"finish_reason\":null}],\"usage\":null}\n\n"

    static const char  *expected[] = {
        "{\"id\":\"chatcmpl-ID\",\"object\":\"chat.completion\",\"created\":"
        "1700000000,\"model\":\"m\",\"choices\":[{\"index\":0,\"message\":"
        "{\"role\":\"assistant\",\"content\":\"a\",\"refusal\":null,"
        "\"reasoning_content\":\"r\",\"reasoning_signature\":\"s\","
        "\"reasoning_redacted\":[\"x\",\"y\"],\"annotations\":[{}],"
        "\"tool_calls\":[{\"id\":\"id\",\"type\":\"function\",\"function\":"
        "{\"name\":\"f\",\"arguments\":\"{}\"}}]},\"logprobs\":null,"
        "\"finish_reason\":\"stop\",\"stop_reason\":\"END\"}]}",

        D("\"role\":\"assistant\",\"content\":\"\"")
        D("\"reasoning_content\":\"r\"") D("\"reasoning_signature\":\"s\"")
        D("\"reasoning_redacted\":[\"x\"]")
        D("\"reasoning_redacted\":[\"y\"]")
        D("\"content\":\"a\"") D("\"annotations\":[{}]")
        D("\"tool_calls\":[{\"index\":0,\"id\":\"id\",\"type\":\"function\","
          "\"function\":{\"name\":\"f\",\"arguments\":\"\"}}]")
        D("\"tool_calls\":[{\"index\":0,\"function\":{\"arguments\":"
          "\"{}\"}}]")
        H "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":"
        "\"stop\",\"stop_reason\":\"END\"}],\"usage\":null}\n\n"
        "data: [DONE]\n\n"
    };

    for (stream = 0; stream < 2; stream++) {
        encoder_init(&enc, &out, stream);

        event(&enc, NGX_HTTP_AI_EV_REASONING, 0, "r");
        event(&enc, NGX_HTTP_AI_EV_SIGNATURE, 0, "s");
        event(&enc, NGX_HTTP_AI_EV_REDACTED, 0, "x");
        event(&enc, NGX_HTTP_AI_EV_REDACTED, 0, "y");
        event(&enc, NGX_HTTP_AI_EV_TEXT, 0, "a");
        event(&enc, NGX_HTTP_AI_EV_CITATION, 0, "{}");
        event(&enc, NGX_HTTP_AI_EV_TOOL_START, 0, "");
        event(&enc, NGX_HTTP_AI_EV_TOOL_ARGS, 0, "{}");
        event(&enc, NGX_HTTP_AI_EV_TOOL_END, 0, "");
        event(&enc, NGX_HTTP_AI_EV_FINISH, 0, "END");

        if (!stream) {
            is_int(out.last - out.start, 0, "nothing before the end");
        }

        event(&enc, NGX_HTTP_AI_EV_END, 0, "");

        is_mem(out.start, out.last - out.start, expected[stream],
               strlen(expected[stream]), stream ? "stream" : "body");
    }

    encoder_init(&enc, &out, 0);
    event(&enc, NGX_HTTP_AI_EV_START, 0, "");
    event(&enc, NGX_HTTP_AI_EV_END, 0, "");
    ngx_http_ai_out_mem(&out, "", 1);
    ok(strstr((char *) out.start, "\"content\":null") != NULL,
       "no content is null");
}


/* each allocation fails once */

static void
test_memory(void)
{
    ngx_int_t               rc;
    ngx_uint_t              i, k, bad, stream;
    ngx_str_t               name, data;
    ngx_http_ai_out_t       out;
    ngx_http_ai_codec_t     codec;
    ngx_http_ai_decoder_t   dec;
    ngx_http_ai_encoder_t   enc;
    ngx_http_ai_request_t   req;

    static const char  *text = RQ(FN ",\"stop\":[\"a\"],\"thinking\":"
        "{\"type\":\"enabled\"},\"messages\":[{\"role\":\"user\","
        "\"content\":[{\"type\":\"image_url\",\"image_url\":"
        "\"data:image\\/png;base64,QQ\"}]},{\"role\":\"assistant\","
        "\"reasoning\":\"r\",\"reasoning_redacted\":[\"x\"],\"refusal\":"
        "\"n\",\"function_call\":{\"name\":\"f\"}},"
        "{\"role\":\"function\",\"content\":\"x\"}]");

    static ngx_str_t  events[] = {
        ngx_string(TC("{\"index\":0,\"id\":\"c\"}")),
        ngx_string(TC("{\"index\":0,\"function\":{\"arguments\":{}}}")),
        ngx_string(TC("{\"index\":1,\"id\":\"d\",\"function\":"
                      "{\"name\":\"f\"}}")),
        ngx_string(C1 "{\"content\":\"a\",\"reasoning\":\"b\"}" C2),
        ngx_string("{\"choices\":[],\"service_tier\":\"flex\",\"usage\":"
                   "{\"prompt_tokens\":1}}"),
        ngx_string("[DONE]")
    };

    bad = 0;

    for (k = 1; k < 200; k++) {
        stub_fail = k;
        rc = request(text, strlen(text), "openai", &codec, &req, &out);

        if (stub_fail ? rc != NGX_OK : rc != NGX_ERROR) {
            bad++;
        }

        if (stub_fail) {
            stub_fail = 0;
            break;
        }
    }

    ok(!bad && k > 10 && k < 200, "a request without memory");

    bad = 0;
    fold_to = NULL;

    for (k = 1; k < 400; k++) {
        for (stream = 0; stream < 2; stream++) {

            ngx_memzero(&dec, sizeof(dec));
            ngx_memzero(&enc, sizeof(enc));

            dec.pool = pool;
            dec.sink.handler = sink;
            dec.op = NGX_HTTP_AI_OP_CHAT;
            enc.pool = pool;
            enc.op = NGX_HTTP_AI_OP_CHAT;
            enc.out = &out;
            enc.stream = stream;
            ngx_str_set(&enc.id, "x");
            encode_to = &enc;
            ngx_str_null(&name);

            stub_fail = k;

            (void) ngx_http_ai_out_init(&out, pool, 1);

            rc = dialect->encode_init(&enc);

            if (rc == NGX_OK) {
                rc = dialect->decode_init(&dec);
            }

            for (i = 0; i < 6 && rc == NGX_OK; i++) {
                data = events[i];
                rc = dialect->decode_event(&dec, &name, &data);
            }

            if (stub_fail ? rc != NGX_OK : rc != NGX_ERROR) {
                bad++;
            }
        }

        if (stub_fail) {
            break;
        }
    }

    stub_fail = 0;
    encode_to = NULL;

    ok(!bad && k > 10 && k < 400, "an answer without memory");
}


int
main(void)
{
    pool = ngx_create_pool(4096, NULL);

    test_streams();
    test_bodies();
    test_errors();
    test_requests();
    test_pivot();
    test_replies();
    test_memory();

    ngx_destroy_pool(pool);

    return done_testing();
}
