
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include "ngx_http_ai_cache_batch.h"


#define ROUNDS  2000


static ngx_pool_t  *pool;
static uint32_t     seed = 20261121;


static uint32_t
rnd(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;

    return seed % n;
}


static ngx_str_t
str(const char *text)
{
    ngx_str_t  s;

    s.data = (u_char *) text;
    s.len = strlen(text);

    return s;
}


static int
is(ngx_str_t *s, const char *text)
{
    if (s->len == strlen(text) && memcmp(s->data, text, s->len) == 0) {
        return 1;
    }

    diag("is:     %.*s", (int) s->len, s->data);
    diag("wanted: %s", text);

    return 0;
}


static ngx_int_t
batch_of(ngx_http_ai_cache_batch_t *batch, const char *body)
{
    ngx_http_ai_cache_ask_t  *ask;
    ngx_http_ai_json_t       *j;

    ask = ngx_pcalloc(pool, sizeof(ngx_http_ai_cache_ask_t));
    j = ngx_pcalloc(pool, sizeof(ngx_http_ai_json_t));

    j->pool = pool;

    if (ngx_http_ai_json_parse(j, (u_char *) body, strlen(body)) != NGX_OK) {
        abort();
    }

    ask->dialect = &ngx_http_ai_dialect_openai;
    ask->op = NGX_HTTP_AI_OP_EMBEDDINGS;
    ask->json = j;
    ngx_str_set(&ask->model, "e");
    ngx_str_set(&ask->scope, "s");

    return ngx_http_ai_cache_batch(pool, ask, batch);
}


static void
test_partial(void)
{
    ngx_str_t                  answer, body, out, s;
    ngx_http_ai_cache_batch_t  b;

    pool = ngx_create_pool(4096, NULL);

    ok(batch_of(&b, " {\"model\": \"e\",  \"input\": [\"one\", \"two\" ,"
                    "\"one\",\"thr\\u0065e\"] ,\"user\" :\"u\"} ")
       == NGX_OK, "a batch");

    ok(b.ninputs == 4 && b.inputs[0].same == 0 && b.inputs[1].same == 1
       && b.inputs[2].same == 0 && b.inputs[3].same == 3,
       "an input that is there twice");

    s = str("{\"object\":\"list\",\"data\":[{\"object\":"
        "\"embedding\",\"index\":0,\"embedding\":[0.25, -1e-3]}],\"model\":"
        "\"old\",\"usage\":{\"prompt_tokens\":1,\"total_tokens\":1}}");

    ok(ngx_http_ai_cache_batch_add(&b, 1, &s) == NGX_OK, "one is stored");

    ok(ngx_http_ai_cache_batch_missing(&b) == 2, "two are missing");

    ok(ngx_http_ai_cache_batch_body(&b, &body) == NGX_OK
       && is(&body, "{\"model\": \"e\",  \"input\": [\"one\","
                    "\"thr\\u0065e\"] ,\"user\" :\"u\"}"),
       "they are asked for, all else as it was");

    answer = str("{\"object\":\"list\",\"id\":\"x\",\"data\":[{\"object\":"
        "\"embedding\",\"index\":1,\"embedding\":[3,3.50]},{\"object\":"
        "\"embedding\",\"index\":0,\"embedding\":[1.0,1]}],\"model\":\"e-1\","
        "\"usage\":{\"prompt_tokens\":7,\"total_tokens\":7,\"x\":{\"y\":1}}}");

    ok(ngx_http_ai_cache_batch_split(&b, &answer) == NGX_OK,
       "the answer is split");

    ok(b.inputs[0].fresh && b.inputs[3].fresh && !b.inputs[1].fresh
       && !b.inputs[2].fresh, "... the missing ones are to be stored");

    ok(is(&b.inputs[0].stored,
          "{\"object\":\"list\",\"id\":\"x\",\"data\":[{\"object\":"
          "\"embedding\",\"index\":0,\"embedding\":[1.0,1]}],\"model\":"
          "\"e-1\",\"usage\":{\"prompt_tokens\":2,\"total_tokens\":2,\"x\":"
          "{\"y\":1}}}"), "... as an answer of its own");

    ok(is(&b.inputs[3].stored,
          "{\"object\":\"list\",\"id\":\"x\",\"data\":[{\"object\":"
          "\"embedding\",\"index\":0,\"embedding\":[3,3.50]}],\"model\":"
          "\"e-1\",\"usage\":{\"prompt_tokens\":5,\"total_tokens\":5,\"x\":"
          "{\"y\":1}}}"), "... with its part of the usage");

    ok(ngx_http_ai_cache_batch_missing(&b) == 0, "nothing is missing");

    ok(ngx_http_ai_cache_batch_merge(&b, &out) == NGX_OK
       && is(&out,
             "{\"object\":\"list\",\"id\":\"x\",\"data\":[{\"object\":"
             "\"embedding\",\"index\":0,\"embedding\":[1.0,1]},{\"object\":"
             "\"embedding\",\"index\":1,\"embedding\":[0.25, -1e-3]},"
             "{\"object\":\"embedding\",\"index\":2,\"embedding\":[1.0,1]},"
             "{\"object\":\"embedding\",\"index\":3,\"embedding\":[3,3.50]}],"
             "\"model\":\"e-1\",\"usage\":{\"prompt_tokens\":7,"
             "\"total_tokens\":7,\"x\":{\"y\":1}}}"),
       "the whole answer, with the usage of what was asked for");

    ngx_destroy_pool(pool);
}


static void
test_all_stored(void)
{
    ngx_str_t                   out, s;
    ngx_uint_t                  i;
    ngx_http_ai_cache_batch_t   b;

    static const char  *broken[] = {
        "",
        "{\"data\":[{\"index\":0,\"emb",
        "{\"data\":[]}",
        "{\"data\":[{\"index\":0}]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":1,"
            "\"embedding\":[1]}]}",
        "[]"
    };

    pool = ngx_create_pool(4096, NULL);

    ok(batch_of(&b, "{\"input\":[[1,2],[3],[1,2.0]],\"encoding_format\":"
                    "\"base64\"}")
       == NGX_OK && b.inputs[2].same == 0, "a batch of lists of tokens");

    s = str("{\"data\":[{\"embedding\":\"AAA=\",\"index\":0}]"
        ",\"model\":\"a\",\"usage\":{\"prompt_tokens\":2,\"total_tokens\":3}}"
    );
    ok(ngx_http_ai_cache_batch_add(&b, 0, &s) == NGX_OK, "one is stored");

    s = str("{\"usage\":{\"prompt_tokens\":1,\"total_tokens\""
        ":1},\"data\":[{\"index\":0,\"embedding\":\"BBB=\"}],\"model\":\"b\"}"
    );

    ok(ngx_http_ai_cache_batch_add(&b, 1, &s) == NGX_OK, "... another too");
    ok(ngx_http_ai_cache_batch_missing(&b) == 0, "... all is there");

    ok(ngx_http_ai_cache_batch_merge(&b, &out) == NGX_OK
       && is(&out,
             "{\"data\":[{\"embedding\":\"AAA=\",\"index\":0},{\"index\":1,"
             "\"embedding\":\"BBB=\"},{\"embedding\":\"AAA=\",\"index\":2}],"
             "\"model\":\"a\",\"usage\":{\"prompt_tokens\":5,"
             "\"total_tokens\":7}}"),
       "... in base64, with the sum of the usage");

    ngx_str_null(&b.inputs[1].stored);

    ok(ngx_http_ai_cache_batch_merge(&b, &out) == NGX_ERROR,
       "... not when one is missing");

    for (i = 0; i < sizeof(broken) / sizeof(broken[0]); i++) {
        s = str(broken[i]);

        ok(ngx_http_ai_cache_batch_add(&b, 1, &s) == NGX_DECLINED
           && b.inputs[1].stored.data == NULL, "no answer: %s", broken[i]);
    }

    ngx_destroy_pool(pool);
}


static void
test_declined(void)
{
    u_char                     *p, *body;
    ngx_str_t                   answer;
    ngx_uint_t                  i;
    ngx_http_ai_cache_batch_t   b;

    static const char  *bodies[] = {
        "{\"input\":\"one\"}",
        "{\"input\":[\"one\"]}",
        "{\"input\":[1,2,3]}",
        "{\"input\":[[1,2,3]]}",
        "{\"input\":[\"one\",[1]]}",
        "{\"input\":[[1],[\"a\"]]}",
        "{\"input\":[\"one\",7]}",
        "{\"input\":[{\"text\":\"a\"},{\"text\":\"b\"}]}",
        "{\"input\":[\"one\",\"two\"],\"input\":[\"three\",\"four\"]}",
        "{\"input\":[]}",
        "{\"inputs\":[\"one\",\"two\"]}"
    };

    static const char  *answers[] = {
        "",
        "[]",
        "{}",
        "{\"error\":{\"message\":\"no\"}}",
        "{\"data\":{}}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]}]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":0,"
            "\"embedding\":[1]}]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":2,"
            "\"embedding\":[1]}]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":-1,"
            "\"embedding\":[1]}]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":\"1\","
            "\"embedding\":[1]}]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":1}]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":1,"
            "\"embedding\":null}]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]},7]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":1,"
            "\"embedding\":[1]},{\"index\":2,\"embedding\":[1]}]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":1,"
            "\"embedding\":[1]}],\"data\":[]}",
        "{\"data\":[{\"index\":0,\"embedding\":[1]},{\"index\":1,"
            "\"embedding\":[1"
    };

    pool = ngx_create_pool(4096, NULL);

    for (i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        ok(batch_of(&b, bodies[i]) == NGX_DECLINED, "no batch: %s",
           bodies[i]);
    }

    body = ngx_palloc(pool, 3 * NGX_HTTP_AI_CACHE_BATCH_MAX * 4);

    p = ngx_cpymem(body, "{\"input\":[", 10);

    for (i = 0; i < NGX_HTTP_AI_CACHE_BATCH_MAX; i++) {
        p = ngx_cpymem(p, "\"\",", 3);
    }

    ngx_memcpy(p - 1, "]}", 3);

    ok(batch_of(&b, (char *) body) == NGX_OK
       && ngx_http_ai_cache_batch_missing(&b) == 1,
       "the largest batch, all the same");

    ngx_memcpy(p - 1, ",\"\"]}", 6);

    ok(batch_of(&b, (char *) body) == NGX_DECLINED, "one more is too many");

    for (i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
        batch_of(&b, "{\"input\":[\"one\",\"two\"]}");

        answer = str(answers[i]);

        ok(ngx_http_ai_cache_batch_split(&b, &answer) == NGX_DECLINED
           && ngx_http_ai_cache_batch_missing(&b) == 2,
           "no answer: %s", answers[i]);
    }

    answer = str("{\"data\":[{\"embedding\":[1]},{\"embedding\":[2]}]}");

    ok(ngx_http_ai_cache_batch_split(&b, &answer) == NGX_OK
       && is(&b.inputs[1].stored, "{\"data\":[{\"embedding\":[2]}]}"),
       "vectors without an index are in order");

    ok(ngx_http_ai_cache_batch_merge(&b, &answer) == NGX_OK
       && is(&answer, "{\"data\":[{\"embedding\":[1]},{\"embedding\":[2]}]}"),
       "... and no usage is made up");

    ngx_destroy_pool(pool);
}


/* an answer for a body as a provider gives it; tokens: a letter each */

static ngx_str_t
provider(ngx_str_t *body, ngx_uint_t shuffle)
{
    int64_t             tokens;
    ngx_str_t           s;
    ngx_uint_t          i, k, t, n, order[64], nodes[64];
    ngx_http_ai_out_t   out;
    ngx_http_ai_json_t  j;

    ngx_memzero(&j, sizeof(j));
    j.pool = pool;

    if (ngx_http_ai_json_parse(&j, body->data, body->len) != NGX_OK) {
        abort();
    }

    k = ngx_http_ai_json_member(&j, 0, "input");
    n = 0;
    tokens = 0;

    for (i = ngx_http_ai_json_first(&j, k);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(&j, k, i))
    {
        order[n] = n;
        nodes[n++] = i;
        tokens += j.nodes[i].len;
    }

    for (i = n; shuffle && i > 1; i--) {
        k = rnd(i);
        t = order[k];
        order[k] = order[i - 1];
        order[i - 1] = t;
    }

    ngx_http_ai_out_init(&out, pool, 1024);
    ngx_http_ai_out_lit(&out, "{\"object\":\"list\",\"data\":[");

    for (i = 0; i < n; i++) {
        if (i) {
            ngx_http_ai_out_lit(&out, ",");
        }

        ngx_http_ai_out_lit(&out, "{\"index\":");
        ngx_http_ai_out_int(&out, order[i]);
        ngx_http_ai_out_lit(&out, ",\"embedding\":[");
        s = ngx_http_ai_json_value(&j, nodes[order[i]]);
        ngx_http_ai_out_str(&out, &s);
        ngx_http_ai_out_lit(&out, "]}");
    }

    ngx_http_ai_out_lit(&out, "],\"model\":\"e\",\"usage\":"
                              "{\"prompt_tokens\":");
    ngx_http_ai_out_int(&out, tokens);
    ngx_http_ai_out_lit(&out, ",\"total_tokens\":");
    ngx_http_ai_out_int(&out, tokens);
    ngx_http_ai_out_mem(&out, "}}", 3);

    s.data = out.start;
    s.len = out.last - out.start - 1;

    return s;
}


static void
test_random(void)
{
    char                       text[2048], *p;
    size_t                     len;
    ngx_str_t                  whole, body, answer, out, s;
    ngx_uint_t                 i, k, n, bad, used;
    ngx_http_ai_cache_batch_t  b;

    bad = 0;

    for (i = 0; i < ROUNDS && bad < 3; i++) {
        pool = ngx_create_pool(4096, NULL);

        p = text + sprintf(text, "{\"model\":\"e\",\"input\":[");
        n = 2 + rnd(20);

        for (k = 0; k < n; k++) {
            p += sprintf(p, "%s\"%.*s%u\"", k ? "," : "", (int) rnd(9),
                         "xxxxxxxxx", (unsigned) rnd(8));
        }

        strcpy(p, "],\"dimensions\":1}");

        whole = str(text);
        answer = provider(&whole, 0);

        if (batch_of(&b, text) != NGX_OK) {
            bad++;
            break;
        }

        for (k = 0; k < b.ninputs; k++) {

            if (b.inputs[k].same != k || rnd(2)) {
                continue;
            }

            s.data = ngx_pnalloc(pool, 64);
            s.len = sprintf((char *) s.data, "{\"input\":[%.*s]}",
                            (int) b.inputs[k].input.len,
                            b.inputs[k].input.data);

            s = provider(&s, 0);

            bad += (ngx_http_ai_cache_batch_add(&b, k, &s) != NGX_OK);
        }

        used = ngx_http_ai_cache_batch_missing(&b);

        if (used) {
            if (ngx_http_ai_cache_batch_body(&b, &body) != NGX_OK) {
                bad++;
                break;
            }

            s = provider(&body, 1);

            if (ngx_http_ai_cache_batch_split(&b, &s) != NGX_OK) {
                bad++;
                break;
            }
        }

        if (ngx_http_ai_cache_batch_merge(&b, &out) != NGX_OK) {
            bad++;
            break;
        }

        /* all but the usage; that too when nothing was asked for */

        p = strstr((char *) answer.data, "],\"model\"");
        len = used ? (size_t) (p - (char *) answer.data) : answer.len;

        if (out.len < len || memcmp(out.data, answer.data, len) != 0) {
            bad++;
            diag("%s", text);
            diag("is:     %.*s", (int) out.len, out.data);
            diag("wanted: %.*s", (int) answer.len, answer.data);
        }

        ngx_destroy_pool(pool);
    }

    ok(bad == 0, "%u batches, some of which was stored", (unsigned) i);
}


int
main(void)
{
    test_partial();
    test_all_stored();
    test_declined();
    test_random();

    return done_testing();
}
