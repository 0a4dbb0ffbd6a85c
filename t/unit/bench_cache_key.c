
/*
 * Copyright (C) nginx AI gateway authors
 */


/* Time of the key of a request of 1 KB; not a test. */


#include "test.h"
#include "ngx_http_ai_cache_key.h"


#define ROUNDS  200000


static double
now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return ts.tv_sec * 1e9 + ts.tv_nsec;
}


static void
run(const char *title, ngx_http_ai_dialect_t *dialect, ngx_http_ai_op_e op,
    const char *text, ngx_uint_t rounds)
{
    double                     start;
    ngx_pool_t                *pool, *scratch;
    ngx_uint_t                 i;
    ngx_http_ai_json_t         j;
    ngx_http_ai_cache_ask_t    ask;
    ngx_http_ai_cache_key_t    key;

    pool = ngx_create_pool(4096, NULL);

    ngx_memzero(&j, sizeof(j));
    j.pool = pool;

    if (ngx_http_ai_json_parse(&j, (u_char *) text, strlen(text)) != NGX_OK) {
        abort();
    }

    ngx_memzero(&ask, sizeof(ask));
    ask.dialect = dialect;
    ask.op = op;
    ask.json = &j;
    ngx_str_set(&ask.model, "gpt-4o-mini");
    ngx_str_set(&ask.scope, "acme");

    scratch = ngx_create_pool(4096, NULL);

    start = now();

    for (i = 0; i < rounds; i++) {

        if (ngx_http_ai_cache_key(scratch, &ask, &key) != NGX_OK) {
            abort();
        }

        ngx_reset_pool(scratch);
    }

    printf("%-24s %5u bytes  %7.0f ns\n", title, (unsigned) strlen(text),
           (now() - start) / rounds);

    ngx_destroy_pool(scratch);
    ngx_destroy_pool(pool);
}


int
main(int argc, char **argv)
{
    ngx_uint_t  rounds;

    static const char  *words =
        "The quick brown fox jumps over the lazy dog, and nobody asks why it "
        "does so; it is what foxes do when they are asked to show all letters "
        "of the alphabet, which dogs are too lazy for. ";

    char  chat[2048], messages[2048], embeddings[2048];

    rounds = (argc > 1) ? (ngx_uint_t) atoi(argv[1]) : ROUNDS;

    sprintf(chat, "{\"model\":\"gpt-4o-mini\",\"messages\":[{\"role\":"
            "\"system\",\"content\":\"%s\"},{\"role\":\"user\",\"content\":"
            "\"%s%s%s\"}],\"temperature\":0,\"max_tokens\":256,\"top_p\":1,"
            "\"stream\":true,\"stream_options\":{\"include_usage\":true},"
            "\"user\":\"u-1\",\"seed\":7}", words, words, words, words);

    sprintf(messages, "{\"model\":\"claude\",\"max_tokens\":256,\"system\":"
            "[{\"type\":\"text\",\"text\":\"%s\"}],\"messages\":[{\"role\":"
            "\"user\",\"content\":[{\"type\":\"text\",\"text\":\"%s%s%s\"}]}],"
            "\"temperature\":0}", words, words, words, words);

    sprintf(embeddings, "{\"model\":\"e\",\"input\":\"%s%s%s%s\"}", words,
            words, words, words);

    run("chat, openai", &ngx_http_ai_dialect_openai, NGX_HTTP_AI_OP_CHAT,
        chat, rounds);
    run("chat, anthropic", &ngx_http_ai_dialect_anthropic,
        NGX_HTTP_AI_OP_CHAT, messages, rounds);
    run("embeddings", &ngx_http_ai_dialect_openai,
        NGX_HTTP_AI_OP_EMBEDDINGS, embeddings, rounds);

    return 0;
}
