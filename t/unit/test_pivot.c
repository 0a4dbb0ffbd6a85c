
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include "ngx_http_ai_pivot.h"
#include "ngx_http_ai_sse.h"


static ngx_pool_t  *pool;


static ngx_http_ai_error_t *
read_error(ngx_uint_t status, const char *body)
{
    u_char                     *p;
    ngx_int_t                   rc;
    static ngx_http_ai_error_t  err;

    p = test_copy(body, strlen(body));

    rc = ngx_http_ai_error_read(pool, status, p, strlen(body), &err);

    free(p);

    if (rc != NGX_OK) {
        ngx_memzero(&err, sizeof(err));
    }

    return &err;
}


static void
test_error(ngx_uint_t status, const char *body, ngx_http_ai_err_e class,
    const char *message)
{
    ngx_str_t            *got, *want;
    ngx_http_ai_error_t  *err;

    err = read_error(status, body);

    got = ngx_http_ai_err_name(err->class);
    want = ngx_http_ai_err_name(class);

    if (!ok(err->class == class, "%u %.*s: %.60s", (unsigned) status,
            (int) want->len, want->data, body))
    {
        diag("got %.*s", (int) got->len, got->data);
    }

    if (message) {
        is_str(&err->message, message, "its message");
    }
}


/* the data of the last event, or the last line */

static ngx_str_t
last_event(u_char *p, size_t len)
{
    u_char                   *last;
    ngx_str_t                 data;
    ngx_http_ai_sse_t         sse;
    ngx_http_ai_sse_event_t   ev;

    ngx_memzero(&sse, sizeof(sse));
    sse.pool = pool;

    ngx_str_null(&data);

    last = p + len;

    if (len && *p == '{') {

        while (last > p && last[-1] == '\n') {
            last--;
        }

        data.data = last;

        while (data.data > p && data.data[-1] != '\n') {
            data.data--;
        }

        data.len = last - data.data;

        return data;
    }

    while (ngx_http_ai_sse_read(&sse, &p, last, &ev) == NGX_OK) {
        if (ev.has_data) {
            data = ev.data;
        }
    }

    return data;
}


static void
constructed(void)
{
    u_char              *p, *line, *end, *last;
    size_t               len;
    int64_t              status, want_wait, wait;
    ngx_str_t            body, provider, want, *name, ra, ra_ms;
    ngx_uint_t           n, expect, headers, i;
    ngx_http_ai_json_t   j;
    ngx_http_ai_error_t  err;

    p = test_read("constructed/errors.jsonl", &len);

    if (p == NULL) {
        skip("no recordings: set AI_FIXTURES");
        return;
    }

    last = p + len;
    i = 0;

    for (line = p; line < last; line = end + 1) {
        end = memchr(line, '\n', last - line);

        if (end == NULL) {
            end = last;
        }

        i++;

        ngx_memzero(&j, sizeof(j));
        j.pool = pool;

        if (ngx_http_ai_json_parse(&j, line, end - line) != NGX_OK) {
            ok(0, "line %u", (unsigned) i);
            continue;
        }

        provider = ngx_http_ai_json_raw(&j,
                                 ngx_http_ai_json_member(&j, 0, "provider"));

        body = ngx_http_ai_json_raw(&j,
                                    ngx_http_ai_json_member(&j, 0, "body"));
        (void) ngx_http_ai_json_unescape_str(pool, &body, &body);

        status = 0;
        (void) ngx_http_ai_json_int(&j,
                           ngx_http_ai_json_member(&j, 0, "status"), &status);

        n = ngx_http_ai_json_member(&j, 0, "stream");

        if (ngx_http_ai_json_type(&j, n) == NGX_HTTP_AI_JSON_TRUE) {
            body = last_event(body.data, body.len);
        }

        expect = ngx_http_ai_json_member(&j, 0, "expect");
        want = ngx_http_ai_json_raw(&j,
                        ngx_http_ai_json_member(&j, expect, "error_class"));

        if (ngx_http_ai_error_read(pool, status, body.data, body.len, &err)
            != NGX_OK)
        {
            ok(0, "reading line %u", (unsigned) i);
            continue;
        }

        name = ngx_http_ai_err_name(err.class);

        if (!ok(name->len == want.len
                && memcmp(name->data, want.data, want.len) == 0
                && err.message.len && err.status >= 400,
                "%.*s %d %.*s", (int) provider.len, provider.data,
                (int) status, (int) want.len, want.data))
        {
            diag("got %.*s, status %u: %.*s", (int) name->len, name->data,
                 (unsigned) err.status, (int) err.message.len,
                 err.message.data);
        }

        n = ngx_http_ai_json_member(&j, expect, "retry_after_s");
        want_wait = -1;

        if (ngx_http_ai_json_int(&j, n, &want_wait) == NGX_OK) {
            want_wait *= 1000;
        }

        headers = ngx_http_ai_json_member(&j, 0, "headers");
        ra = ngx_http_ai_json_raw(&j,
                       ngx_http_ai_json_member(&j, headers, "retry-after"));
        ra_ms = ngx_http_ai_json_raw(&j,
                    ngx_http_ai_json_member(&j, headers, "retry-after-ms"));

        wait = ngx_http_ai_retry_after(&ra, &ra_ms, 1790000000);

        if (wait != want_wait) {
            is_int(wait, want_wait, "its wait");
        }
    }

    free(p);
}


/* the statuses of all recorded refusals, with the class each must have */

static void
recorded(void)
{
    u_char              *p, *line, *end, *last, *body;
    char                 path[1024];
    size_t               len, blen, k;
    int64_t              status;
    ngx_str_t            dir, file, *name;
    ngx_uint_t           n, response, seen;
    ngx_http_ai_err_e    want;
    ngx_http_ai_json_t   j;
    ngx_http_ai_error_t  err;

    static const struct {
        const char          *dir;
        ngx_http_ai_err_e    class;
    }  special[] = {
        { "anthropic/messages-400-043", NGX_HTTP_AI_ERR_CONTEXT_LENGTH },
        { "bedrock/converse-400-020", NGX_HTTP_AI_ERR_NOT_FOUND },
        { "bedrock/converse-stream-400-029", NGX_HTTP_AI_ERR_NOT_FOUND },
        { "bedrock/count-tokens-400-032", NGX_HTTP_AI_ERR_NOT_FOUND },
        { "deepseek/chat-400-013", NGX_HTTP_AI_ERR_CONTEXT_LENGTH },
        { "gemini/generate-400-025", NGX_HTTP_AI_ERR_AUTH },
        { "openai/responses-400-082", NGX_HTTP_AI_ERR_CONTEXT_LENGTH },
        { "openai/responses-400-083", NGX_HTTP_AI_ERR_NOT_FOUND },
        { "other-perplexity/chat-400-004", NGX_HTTP_AI_ERR_CONTEXT_LENGTH },
        { "other-xai/responses-400-008", NGX_HTTP_AI_ERR_AUTH },
        { "vertex/generate-400-018", NGX_HTTP_AI_ERR_CONTEXT_LENGTH }
    };

    p = test_read("INDEX.jsonl", &len);

    if (p == NULL) {
        skip("no recordings: set AI_FIXTURES");
        return;
    }

    last = p + len;
    seen = 0;

    for (line = p; line < last; line = end + 1) {
        end = memchr(line, '\n', last - line);

        if (end == NULL) {
            end = last;
        }

        ngx_memzero(&j, sizeof(j));
        j.pool = pool;

        if (ngx_http_ai_json_parse(&j, line, end - line) != NGX_OK) {
            ok(0, "index");
            continue;
        }

        dir = ngx_http_ai_json_raw(&j, ngx_http_ai_json_member(&j, 0,
                                                               "dir"));
        response = ngx_http_ai_json_member(&j, 0, "response");
        n = ngx_http_ai_json_member(&j, response, "status");

        if (ngx_http_ai_json_int(&j, n, &status) != NGX_OK
            || status < 400)
        {
            continue;
        }

        file = ngx_http_ai_json_raw(&j,
                        ngx_http_ai_json_member(&j, response, "body_file"));

        snprintf(path, sizeof(path), "%.*s/%.*s", (int) dir.len, dir.data,
                 (int) file.len, file.data);

        body = test_read(path, &blen);

        if (body == NULL) {
            continue;
        }

        want = (status == 401) ? NGX_HTTP_AI_ERR_AUTH
               : (status == 404) ? NGX_HTTP_AI_ERR_NOT_FOUND
               : (status == 429) ? NGX_HTTP_AI_ERR_RATE_LIMIT
               : NGX_HTTP_AI_ERR_INVALID_REQUEST;

        for (k = 0; k < sizeof(special) / sizeof(special[0]); k++) {
            if (dir.len >= strlen(special[k].dir)
                && memcmp(dir.data, special[k].dir, strlen(special[k].dir))
                   == 0)
            {
                want = special[k].class;
            }
        }

        (void) ngx_http_ai_error_read(pool, status, body, blen, &err);

        name = ngx_http_ai_err_name(err.class);

        ok(err.class == want && err.message.len, "%.*s: %.*s: %.*s",
           (int) dir.len, dir.data, (int) name->len, name->data,
           (int) ngx_http_ai_min(err.message.len, 60), err.message.data);

        seen++;

        free(body);
    }

    ok(seen > 20, "recorded refusals");

    free(p);
}


static void
shapes(void)
{
    char                 text[6000];
    ngx_http_ai_error_t  *err;

    test_error(400, "{\"error\":{\"message\":\"a\\u00e9\"}}",
               NGX_HTTP_AI_ERR_INVALID_REQUEST, "a\xc3\xa9");
    test_error(400, "{\"error\":\"text\"}",
               NGX_HTTP_AI_ERR_INVALID_REQUEST, "text");
    test_error(400, "{\"message\":\"text\"}",
               NGX_HTTP_AI_ERR_INVALID_REQUEST, "text");
    test_error(400, "{\"Message\":\"text\"}",
               NGX_HTTP_AI_ERR_INVALID_REQUEST, "text");
    test_error(422, "{\"detail\":\"text\"}",
               NGX_HTTP_AI_ERR_INVALID_REQUEST, "text");
    test_error(422, "{\"detail\":[{\"loc\":[1],\"msg\":\"text\"}]}",
               NGX_HTTP_AI_ERR_INVALID_REQUEST, "text");
    test_error(422, "{\"message\":{\"detail\":[{\"msg\":\"text\"}]}}",
               NGX_HTTP_AI_ERR_INVALID_REQUEST, "text");
    test_error(400, "{\"errors\":[{\"message\":\"text\"}]}",
               NGX_HTTP_AI_ERR_INVALID_REQUEST, "text");
    test_error(400, "{\"error\":{\"error\":{\"message\":\"text\"}}}",
               NGX_HTTP_AI_ERR_INVALID_REQUEST, "text");
    test_error(400, "[{\"error\":{\"code\":400,\"message\":\"text\"}}]",
               NGX_HTTP_AI_ERR_INVALID_REQUEST, "text");
    test_error(400, "\"text\"", NGX_HTTP_AI_ERR_INVALID_REQUEST, "text");
    test_error(503, "\xef\xbb\xbf \n{\"error\":\"text\"}",
               NGX_HTTP_AI_ERR_OVERLOADED, "text");
    test_error(500, "event: error\ndata: {\"error\":\"text\"}\n\n",
               NGX_HTTP_AI_ERR_SERVER, "text");
    test_error(502, "bad\r\ngateway\n", NGX_HTTP_AI_ERR_SERVER,
               "bad  gateway");
    test_error(502, "<html>bad</html>", NGX_HTTP_AI_ERR_SERVER,
               "upstream returned HTTP 502");
    test_error(504, "", NGX_HTTP_AI_ERR_TIMEOUT,
               "upstream returned HTTP 504");
    test_error(200, "", NGX_HTTP_AI_ERR_SERVER,
               "upstream returned an invalid answer");
    test_error(500, "{}", NGX_HTTP_AI_ERR_SERVER,
               "upstream returned HTTP 500");
    test_error(500, "{\"error\":null}", NGX_HTTP_AI_ERR_SERVER,
               "upstream returned HTTP 500");
    test_error(500, "[]", NGX_HTTP_AI_ERR_SERVER,
               "upstream returned HTTP 500");
    test_error(500, "[[[[[[[[[[1]]]]]]]]]]", NGX_HTTP_AI_ERR_SERVER,
               "upstream returned HTTP 500");
    test_error(403, "{\"error\":{\"message\":", NGX_HTTP_AI_ERR_PERMISSION,
               "{\"error\":{\"message\":");
    test_error(400, "{\"__type\":\"com.amazon.coral#ThrottlingException:"
               "http://x\",\"message\":\"slow\"}",
               NGX_HTTP_AI_ERR_RATE_LIMIT, "slow");

    test_error(400, "{\"error\":{\"type\":\"invalid_request_error\","
               "\"message\":\"You have reached your specified API usage "
               "limits. You will regain access on 2026-12-01.\"}}",
               NGX_HTTP_AI_ERR_QUOTA, NULL);
    test_error(400, "{\"error\":{\"type\":\"invalid_request_error\","
               "\"message\":\"Your credit balance is too low to access the "
               "Anthropic API.\"}}", NGX_HTTP_AI_ERR_BILLING, NULL);
    test_error(402, "{\"error\":{\"message\":\"Insufficient Balance\","
               "\"type\":\"unknown_error\"}}", NGX_HTTP_AI_ERR_BILLING,
               NULL);
    test_error(429, "{\"error\":{\"message\":\"You exceeded your current "
               "quota, please check your plan. Please retry in 34s.\","
               "\"code\":429,\"status\":\"RESOURCE_EXHAUSTED\",\"details\":["
               "{\"violations\":[{\"quotaId\":\"GenerateRequestsPerMinutePer"
               "Project\"}]},{\"retryDelay\":\"34.07s\"}]}}",
               NGX_HTTP_AI_ERR_RATE_LIMIT, NULL);

    err = read_error(429, "{\"error\":{\"message\":\"m\",\"status\":"
               "\"RESOURCE_EXHAUSTED\",\"details\":[{\"violations\":["
               "{\"quotaId\":\"GenerateRequestsPerDayPerProject\"}]},"
               "{\"retryDelay\":\"34.07s\"}]}}");
    is_int(err->class, NGX_HTTP_AI_ERR_QUOTA, "quota of a day");
    is_int(err->retry_after, 34070, "wait from the body");
    is_str(&err->type, "RESOURCE_EXHAUSTED", "type");

    test_error(400, "{\"error\":{\"code\":\"content_filter\",\"message\":"
               "\"The response was filtered\"}}",
               NGX_HTTP_AI_ERR_CONTENT_FILTER, NULL);
    test_error(429, "{\"error\":{\"message\":\"too long for this tier: "
               "prompt is too long\"}}", NGX_HTTP_AI_ERR_RATE_LIMIT, NULL);
    test_error(403, "{\"error\":{\"message\":\"Input is too long: maximum "
               "context length is 10\"}}", NGX_HTTP_AI_ERR_CONTEXT_LENGTH,
               NULL);

    err = read_error(200, "{\"type\":\"error\",\"error\":{\"type\":"
                     "\"overloaded_error\",\"message\":\"Overloaded\"}}");
    is_int(err->class, NGX_HTTP_AI_ERR_OVERLOADED, "an error in a stream");
    is_int(err->status, 503, "its status");
    is_str(&err->type, "overloaded_error", "its type");

    err = read_error(200, "{\"error\":{\"message\":\"m\",\"code\":429}}");
    is_int(err->class, NGX_HTTP_AI_ERR_RATE_LIMIT, "a status for a code");
    is_int(err->status, 429, "status of a code");
    is_str(&err->code, "429", "code of a number");

    err = read_error(200, "{\"type\":\"error\",\"code\":\"server_error\","
                     "\"message\":\"m\",\"param\":\"p\"}");
    is_int(err->class, NGX_HTTP_AI_ERR_SERVER, "an error event");
    is_str(&err->code, "server_error", "its code");
    is_str(&err->param, "p", "its param");
    ok(err->type.data == NULL, "not its type");

    memset(text, 'x', sizeof(text));
    memcpy(text + 1022, "\xe2\x82\xac", 3);
    text[5000] = '\0';
    err = read_error(500, text);
    is_int(err->message.len, 1022, "cut between characters");
}


static void
masks(void)
{
    size_t      i;
    char        body[1024];

    ngx_http_ai_error_t  *err;

    static const struct {
        const char  *text;
        const char  *shown;
    }  list[] = {
        { "Incorrect API key provided: sk-abcdefgh1234.",
          "Incorrect API key provided: sk-***." },
        { "Incorrect API key provided: sk-proj-****************abcd. You",
          "Incorrect API key provided: sk-***. You" },
        { "Incorrect API key provided: test-con****-key. You can find",
          "Incorrect API key provided: ***. You can find" },
        { "Authorization: Bearer abcDEF123456 is bad",
          "Authorization: Bearer *** is bad" },
        { "key=0123456789abcdef0123456789abcdef&x=1",
          "key=***&x=1" },
        { "Rate limit reached in organization org-AbCdEf123 on tokens",
          "Rate limit reached in organization org-*** on tokens" },
        { "User: arn:aws:iam::123456789012:user/x is not authorized",
          "User: arn:*** is not authorized" },
        { "The model `gpt-4o-mini-2024-07-18` does not exist",
          "The model `gpt-4o-mini-2024-07-18` does not exist" },
        { "API key not valid. Please pass a valid API key.",
          "API key not valid. Please pass a valid API key." },
        { "maximum context length is 128000 tokens, see "
          "https://platform.openai.com/docs/errors",
          "maximum context length is 128000 tokens, see "
          "https://platform.openai.com/docs/errors" },
        { "Invalid token AIzaSyA1234567890abcdefghijklmnopqrstuv",
          "Invalid token AIza***" },
        { "jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc",
          "jwt eyJ***" },
        { "secret: c2VjcmV0U2VjcmV0U2VjcmV0MTIz",
          "secret: ***" },
        { "GET https://x/v1?a=1&key=sk-abcdef and :gsk_12345",
          "GET https://x/v1?a=1&key=sk-*** and :gsk_***" },
        { "the task-force of risk-takers", "the task-force of risk-takers" },
        { "id 550e8400-e29b-41d4-a716-446655440000",
          "id 550e8400-e29b-41d4-a716-446655440000" }
    };

    for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        snprintf(body, sizeof(body), "{\"error\":{\"message\":\"%s\"}}",
                 list[i].text);
        err = read_error(401, body);
        is_str(&err->message, list[i].shown, "mask");

        err = read_error(401, list[i].text);
        is_str(&err->message, list[i].shown, "mask in a text");
    }
}


static void
waits(void)
{
    size_t      i;
    u_char     *p, *q;
    int64_t     wait;
    ngx_str_t   value, ms;

    static const struct {
        const char  *value;
        const char  *ms;
        int64_t      wait;
    }  list[] = {
        { "", "", -1 }, { "26", "26000", 26000 }, { "26", "", 26000 },
        { "", "1500", 1500 }, { "1", "1500", 1500 }, { "2", "1500", 2000 },
        { "0", "", 0 }, { "0.25", "", 250 }, { "0.0001", "", 1 },
        { "6ms", "", 6 }, { "1.2s", "", 1200 },
        { "1m51.595s", "", 111595 }, { "6h0m0s", "", 21600000 },
        { "2m59.56s", "", 179560 }, { "17.399999999s", "", 17400 },
        { "130ms", "", 130 }, { "500us", "", 1 }, { "999ns", "", 1 },
        { "20\xc2\xb5s", "", 1 }, { " 5 ", "", 5000 },
        { "34.074824224s", "", 34075 },
        { "-1", "", -1 }, { "NaN", "", -1 }, { "inf", "", -1 },
        { "1e3", "", -1 }, { "5x", "", -1 }, { "5m3", "", -1 },
        { "s", "", -1 }, { ".5", "", -1 }, { "soon", "", -1 },
        { "", "x", -1 }, { "", "-5", -1 }, { "3", "x", 3000 },
        { "99999999999999999999", "", -1 }, { "9999999999999h", "", -1 },
        { "1790000010", "", 10000 }, { "1790000010500", "", 10500 },
        { "1780000000", "", 0 }, { "1780000000000", "", 0 },
        { "2026-09-21T14:13:30Z", "", 10000 },
        { "2026-09-21T14:13:30.250Z", "", 10250 },
        { "2026-09-21T16:13:30+02:00", "", 10000 },
        { "2026-09-21T12:43:30-01:30", "", 10000 },
        { "2020-01-01T00:00:00Z", "", 0 },
        { "2026-13-21T14:13:30Z", "", -1 },
        { "2026-09-21T14:13:30", "", -1 },
        { "Mon, 21 Sep 2026 14:13:30 GMT", "", 10000 },
        { "Mon, 21 Sep 2020 14:13:30 GMT", "", 0 }
    };

    for (i = 0; i < sizeof(list) / sizeof(list[0]); i++) {
        value.len = strlen(list[i].value);
        value.data = p = test_copy(list[i].value, value.len);
        ms.len = strlen(list[i].ms);
        ms.data = q = test_copy(list[i].ms, ms.len);

        wait = ngx_http_ai_retry_after(&value, &ms, 1790000000);

        if (!ok(wait == list[i].wait, "wait \"%s\" \"%s\"", list[i].value,
                list[i].ms))
        {
            diag("got %lld, expected %lld", (long long) wait,
                 (long long) list[i].wait);
        }

        free(p);
        free(q);
    }
}


static void
usage(void)
{
    ngx_http_ai_usage_t  a, b;

    ngx_http_ai_usage_init(&a);
    is_int(ngx_http_ai_usage_input(&a), -1, "nothing is known");

    ngx_http_ai_usage_init(&b);
    b.in_fresh = 10;
    b.cache_read = 5;
    ngx_http_ai_usage_merge(&a, &b);
    is_int(ngx_http_ai_usage_input(&a), 15, "input");

    ngx_http_ai_usage_init(&b);
    b.in_fresh = 0;
    b.out = 7;
    ngx_str_set(&b.service_tier, "default");
    ngx_http_ai_usage_merge(&a, &b);
    is_int(ngx_http_ai_usage_input(&a), 5, "the last wins, zero as well");
    is_int(a.out, 7, "output");
    is_int(a.cache_read, 5, "kept");
    is_int(a.reasoning, -1, "not reported");
    is_str(&a.service_tier, "default", "tier");
}


static void
names(void)
{
    ngx_str_t          s;
    ngx_uint_t         i, bad;

    is_str(ngx_http_ai_op_name(NGX_HTTP_AI_OP_CHAT), "chat", "chat");
    is_int(ngx_http_ai_op_name(NGX_HTTP_AI_OP_NONE)->len, 0, "no operation");
    is_str(ngx_http_ai_finish_name(NGX_HTTP_AI_FINISH_TOOL), "tool_calls",
           "tool calls");
    is_str(ngx_http_ai_finish_name(NGX_HTTP_AI_FINISH_STOP_SEQUENCE), "stop",
           "stop sequence");
    is_str(ngx_http_ai_err_name(NGX_HTTP_AI_ERR_INTERNAL), "internal",
           "the last class");

    bad = 0;

    for (i = 1; i < NGX_HTTP_AI_OP_MAX; i++) {
        bad += (ngx_http_ai_op_name(i)->len == 0);
    }

    for (i = 1; i <= NGX_HTTP_AI_FINISH_UNKNOWN; i++) {
        bad += (ngx_http_ai_finish_name(i)->len == 0);
    }

    for (i = 1; i < NGX_HTTP_AI_ERR_MAX; i++) {
        s = *ngx_http_ai_err_name(i);
        bad += (s.len == 0);
        bad += (ngx_http_ai_err_status(i) < 400
                || ngx_http_ai_err_status(i) > 599);
    }

    is_int(bad, 0, "all have names and statuses");
}


static void
no_memory(void)
{
    ngx_uint_t           i, n;
    ngx_http_ai_error_t  err;

    static u_char  body[] = "{\"error\":{\"type\":\"t\",\"code\":\"c\","
                            "\"param\":\"p\",\"message\":\"\\u00e9\"}}";

    n = 0;

    for (i = 1; i < 20; i++) {
        stub_fail = i;

        if (ngx_http_ai_error_read(pool, 400, body, sizeof(body) - 1, &err)
            == NGX_OK)
        {
            break;
        }

        n++;
    }

    stub_fail = 0;

    ok(n >= 5 && n < 19, "no memory in each of %u places", (unsigned) n);
}


int
main(void)
{
    pool = ngx_create_pool(4096, NULL);

    names();
    usage();
    shapes();
    masks();
    waits();
    no_memory();
    constructed();
    recorded();

    ngx_destroy_pool(pool);

    is_int(stub_alive, 0, "nothing is left");

    return done_testing();
}
