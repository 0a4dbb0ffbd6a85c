
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test_openai.h"
#include <dirent.h>


static ngx_uint_t
find(ngx_http_ai_json_t *j, ngx_uint_t n, const char *path)
{
    const char  *dot;

    while (*path) {
        dot = strchr(path, '.');

        if (dot == NULL) {
            dot = path + strlen(path);
        }

        n = ngx_http_ai_json_get(j, n, path, dot - path);
        path = *dot ? dot + 1 : dot;
    }

    return n;
}


static ngx_str_t
str(ngx_http_ai_json_t *j, ngx_uint_t n)
{
    ngx_str_t  s;

    ngx_str_null(&s);

    if (ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_STRING) {
        s = ngx_http_ai_json_raw(j, n);
    }

    return s;
}


static int64_t
num(ngx_http_ai_json_t *j, ngx_uint_t n)
{
    int64_t  v;

    if (n == NGX_HTTP_AI_JSON_NONE
        || ngx_http_ai_json_int(j, n, &v) != NGX_OK)
    {
        return -1;
    }

    return v;
}


static void
add(ngx_http_ai_out_t *out, ngx_str_t s)
{
    ngx_http_ai_out_str(out, &s);
}


/* one JSON of a stream or a whole body, the plain way */

static void
fold_json(fold_t *f, ngx_http_ai_json_t *j)
{
    int64_t     in, out, total, audio, index, v;
    ngx_str_t   s;
    ngx_uint_t  i, k, m, n, c, d;

    n = find(j, 0, "error");

    if (ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_NULL) {
        f->error++;
        return;
    }

    n = find(j, 0, "choices");

    for (c = ngx_http_ai_json_first(j, n);
         c != NGX_HTTP_AI_JSON_NONE;
         c = ngx_http_ai_json_next(j, n, c))
    {
        if (num(j, find(j, c, "index")) > 0) {
            continue;
        }

        d = find(j, c, "message");

        if (d == NGX_HTTP_AI_JSON_NONE) {
            d = find(j, c, "delta");
        }

        if (d == NGX_HTTP_AI_JSON_NONE) {
            add(&f->text, str(j, find(j, c, "text")));
        }

        k = find(j, d, "content");
        add(&f->text, str(j, k));

        if (ngx_http_ai_json_type(j, k) == NGX_HTTP_AI_JSON_ARRAY) {
            for (i = ngx_http_ai_json_first(j, k);
                 i != NGX_HTTP_AI_JSON_NONE;
                 i = ngx_http_ai_json_next(j, k, i))
            {
                add(&f->text, str(j, find(j, i, "text")));

                m = find(j, i, "thinking");
                m = ngx_http_ai_json_first(j, m);

                if (m != NGX_HTTP_AI_JSON_NONE) {
                    add(&f->reasoning, str(j, find(j, m, "text")));
                }
            }
        }

        s = str(j, find(j, d, "reasoning"));

        if (s.len == 0) {
            s = str(j, find(j, d, "reasoning_content"));
        }

        add(&f->reasoning, s);
        add(&f->refusal, str(j, find(j, d, "refusal")));

        k = find(j, d, "tool_calls");
        v = 0;

        for (i = ngx_http_ai_json_first(j, k);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, k, i))
        {
            index = num(j, find(j, i, "index"));

            if (index < 0 || find(j, c, "message") != NGX_HTTP_AI_JSON_NONE) {
                index = v;
            }

            v++;

            if (index >= MAX_TOOLS) {
                continue;
            }

            f->ntools = ngx_max(f->ntools, (ngx_uint_t) index + 1);

            s = str(j, find(j, i, "id"));

            if (s.len) {
                f->id[index] = keep(&s);
            }

            s = str(j, find(j, i, "function.name"));

            if (s.len) {
                f->name[index] = keep(&s);
            }

            add(&f->args[index], str(j, find(j, i, "function.arguments")));
        }

        k = find(j, d, "function_call");

        if (ngx_http_ai_json_type(j, k) == NGX_HTTP_AI_JSON_OBJECT) {
            f->ntools = 1;
            s = str(j, find(j, k, "name"));

            if (s.len) {
                f->name[0] = keep(&s);
            }

            add(&f->args[0], str(j, find(j, k, "arguments")));
        }

        s = str(j, find(j, c, "finish_reason"));

        if (s.len && !f->finished) {
            f->finished = 1;

            f->finish = ngx_http_ai_str_is(&s, "length")
                        ? NGX_HTTP_AI_FINISH_LENGTH
                        : ngx_http_ai_str_is(&s, "content_filter")
                        ? NGX_HTTP_AI_FINISH_FILTER
                        : f->ntools ? NGX_HTTP_AI_FINISH_TOOL
                                    : NGX_HTTP_AI_FINISH_STOP;
        }
    }

    n = find(j, 0, "usage");

    if (ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_OBJECT) {
        n = find(j, 0, "x_groq.usage");
    }

    if (ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_OBJECT) {
        return;
    }

    in = num(j, find(j, n, "prompt_tokens"));
    out = num(j, find(j, n, "completion_tokens"));
    total = num(j, find(j, n, "total_tokens"));
    audio = num(j, find(j, n, "prompt_tokens_details.audio_tokens"));

    if (audio > 0 && total == in + out + audio) {
        in += audio;
    }

    f->metered = 1;
    f->usage.out = (total > in && out >= 0) ? total - in : out;

    v = num(j, find(j, n, "prompt_tokens_details.cached_tokens"));

    if (v < 0) {
        v = num(j, find(j, n, "cached_tokens"));
    }

    if (v < 0) {
        v = num(j, find(j, n, "num_cached_tokens"));
    }

    f->usage.cache_read = v;
    f->usage.in_fresh = in - ngx_max(v, 0);
}


static void
parse(ngx_http_ai_json_t *j, u_char *p, size_t len)
{
    ngx_memzero(j, sizeof(ngx_http_ai_json_t));
    j->pool = pool;

    if (ngx_http_ai_json_parse(j, p, len) != NGX_OK) {
        ok(0, "parse: %.*s", (int) ngx_min(len, 100), p);
    }
}


static void
fold_stream(fold_t *f, u_char *p, size_t len, ngx_uint_t bare)
{
    u_char              *last, *eol;
    ngx_http_ai_json_t   j;

    last = p + len;

    while (p < last) {
        for (eol = p; eol < last && *eol != '\n'; eol++) { /* void */ }

        if (!bare && eol - p > 6 && memcmp(p, "data: {", 7) == 0) {
            parse(&j, p + 6, eol - p - 6);
            fold_json(f, &j);

        } else if (bare && eol > p) {
            parse(&j, p, eol - p);
            fold_json(f, &j);
        }

        p = eol + 1;
    }
}


static int
same(ngx_http_ai_out_t *a, ngx_http_ai_out_t *b)
{
    return a->last - a->start == b->last - b->start
           && memcmp(a->start, b->start, a->last - a->start) == 0;
}


static int
same_str(ngx_str_t *a, ngx_str_t *b)
{
    return a->len == b->len && memcmp(a->data, b->data, a->len) == 0;
}


/* "a" is what is expected */

static int
compare(fold_t *a, fold_t *b, const char *name, const char *what)
{
    ngx_uint_t   i;
    const char  *bad;

    bad = NULL;

    if (b->disorder) {
        bad = "order";
        diag("disorder %u", (unsigned) b->disorder);

    } else if (!same(&a->text, &b->text)) {
        bad = "text";

    } else if (!same(&a->reasoning, &b->reasoning)) {
        bad = "reasoning";

    } else if (!same(&a->refusal, &b->refusal)) {
        bad = "refusal";

    } else if (a->ntools != b->ntools) {
        bad = "number of tools";

    } else if (!a->error != !b->error) {
        bad = "error";

    } else if (a->finished && a->finish != b->finish) {
        bad = "finish";

    } else if (a->metered != b->metered
               || ngx_http_ai_usage_input(&a->usage)
                  != ngx_http_ai_usage_input(&b->usage)
               || a->usage.out != b->usage.out
               || ngx_max(a->usage.cache_read, 0)
                  != ngx_max(b->usage.cache_read, 0))
    {
        bad = "usage";
        diag("%lld %lld, %lld %lld",
             (long long) ngx_http_ai_usage_input(&a->usage),
             (long long) a->usage.out,
             (long long) ngx_http_ai_usage_input(&b->usage),
             (long long) b->usage.out);
    }

    for (i = 0; bad == NULL && i < a->ntools; i++) {

        if ((a->id[i].len && !same_str(&a->id[i], &b->id[i]))
            || b->id[i].len == 0)
        {
            bad = "tool id";

        } else if (!same_str(&a->name[i], &b->name[i])) {
            bad = "tool name";

        } else if (!same(&a->args[i], &b->args[i])
                   && !(a->args[i].last == a->args[i].start
                        && b->args[i].last - b->args[i].start == 2))
        {
            bad = "tool arguments";
        }
    }

    return ok(bad == NULL, "%s: %s%s%s", name, what, bad ? ": " : "",
              bad ? bad : "");
}


/* what clients rely on in a stream, wire.md 3.3 */

static void
check_stream(u_char *p, size_t len, const char *name)
{
    u_char              *last, *eol;
    ngx_str_t            s, id;
    ngx_uint_t           c, finish, done, role, bad, n;
    ngx_http_ai_json_t   j;

    last = p + len;
    finish = 0;
    done = 0;
    role = 0;
    bad = 0;
    ngx_str_null(&id);

    for ( ; p < last; p = eol + 2) {

        for (eol = p; eol < last && *eol != '\n'; eol++) { /* void */ }

        if (done || eol + 1 >= last || eol[1] != '\n'
            || memcmp(p, "data: ", 6) != 0)
        {
            bad = 1;
            break;
        }

        if (eol - p == 12 && memcmp(p, "data: [DONE]", 12) == 0) {
            done = 1;
            continue;
        }

        parse(&j, p + 6, eol - p - 6);

        s = str(&j, find(&j, 0, "id"));

        if (id.len && !same_str(&s, &id)) {
            bad = 2;
        }

        id = s;
        n = find(&j, 0, "choices");
        c = ngx_http_ai_json_first(&j, n);

        if (c == NGX_HTTP_AI_JSON_NONE) {
            if (ngx_http_ai_json_type(&j, find(&j, 0, "usage"))
                != NGX_HTTP_AI_JSON_OBJECT || !finish)
            {
                bad = 3;
            }

            continue;
        }

        if (num(&j, find(&j, c, "index")) > 0) {
            continue;
        }

        if (ngx_http_ai_json_type(&j, find(&j, 0, "usage"))
            != NGX_HTTP_AI_JSON_NULL)
        {
            bad = 4;
        }

        s = str(&j, find(&j, c, "delta.role"));

        if (s.len ? role++ : !role) {
            bad = 5;
        }

        if (str(&j, find(&j, c, "finish_reason")).len) {
            finish++;

            if (ngx_http_ai_json_first(&j, find(&j, c, "delta"))
                != NGX_HTTP_AI_JSON_NONE)
            {
                bad = 6;
            }
        }
    }

    ok(!bad && done && finish == 1, "%s: order of the stream (%u %u %u)",
       name, (unsigned) bad, (unsigned) done, (unsigned) finish);
}


static void
recording(const char *name, ngx_uint_t stream, ngx_uint_t bare,
    ngx_http_ai_op_e op)
{
    u_char                 *p, *copy;
    size_t                  len;
    ngx_int_t               rc;
    ngx_uint_t              i;
    fold_t                 *want, *got, *again;
    ngx_http_ai_out_t       out;
    ngx_http_ai_json_t      j;
    ngx_http_ai_decoder_t   dec;
    ngx_http_ai_encoder_t   enc;

    p = test_read(name, &len);

    if (p == NULL) {
        return;
    }

    pool = ngx_create_pool(4096, NULL);

    want = ngx_palloc(pool, sizeof(fold_t));
    got = ngx_palloc(pool, sizeof(fold_t));
    again = ngx_palloc(pool, sizeof(fold_t));

    fold_init(want);

    if (stream) {
        fold_stream(want, p, len, bare);

    } else {
        parse(&j, p, len);
        fold_json(want, &j);
    }

    for (i = 0; i < 2; i++) {

        /* decoded, and encoded once more in both forms */

        fold_init(got);
        decoder_init(&dec, op);
        encoder_init(&enc, &out, i);
        fold_to = got;
        encode_to = &enc;

        copy = test_copy(p, len);

        if (stream) {
            rc = feed(&dec, copy, len, bare);

            if (rc == NGX_OK && !dec.done && !got->error) {
                rc = dialect->decode_finish(&dec);
            }

        } else {
            rc = dialect->decode_body(&dec, copy, len);
        }

        free(copy);

        encode_to = NULL;

        if (rc == NGX_DECLINED && strstr(name, "-401-")) {
            ok(1, "%s: no answer", name);
            break;
        }

        if (rc != NGX_OK) {
            ok(0, "%s: %.*s", name, (int) dec.error.message.len,
               dec.error.message.data);
            break;
        }

        if (!compare(want, got, name, "decoded")) {
            break;
        }

        if (got->error) {
            break;
        }

        if (i) {
            check_stream(out.start, out.last - out.start, name);
        }

        fold_init(again);
        decoder_init(&dec, NGX_HTTP_AI_OP_CHAT);
        fold_to = again;

        rc = i ? feed(&dec, out.start, out.last - out.start, 0)
               : dialect->decode_body(&dec, out.start, out.last - out.start);

        if (rc != NGX_OK || !again->ended) {
            ok(0, "%s: encoded again: %.*s", name,
               (int) dec.error.message.len, dec.error.message.data);
            continue;
        }

        ok((got->answer.len == 0 || same_str(&got->answer, &again->answer))
           && same(&got->annotations, &again->annotations)
           && same(&got->signature, &again->signature),
           "%s: id, annotations, signature", name);

        compare(got, again, name, i ? "as a stream" : "as a body");
    }

    fold_to = NULL;
    free(p);

    ngx_destroy_pool(pool);
}


/* a recorded request goes round twice without a change */

static void
recorded_request(const char *name)
{
    u_char                 *p;
    size_t                  len;
    ngx_int_t               rc;
    ngx_uint_t              turns, messages, i;
    ngx_http_ai_out_t       out, out2;
    ngx_http_ai_json_t      j;
    ngx_http_ai_turn_t     *t;
    ngx_http_ai_codec_t     codec;
    ngx_http_ai_request_t   req;

    p = test_read(name, &len);

    if (p == NULL) {
        return;
    }

    pool = ngx_create_pool(4096, NULL);

    rc = request((char *) p, len, "openai", &codec, &req, &out);

    if (rc == NGX_DECLINED) {
        ok(codec.error.param.len != 0, "%s: refused for %.*s", name,
           (int) codec.error.param.len, codec.error.param.data);
        goto done;
    }

    if (rc != NGX_OK) {
        ok(0, "%s: request", name);
        goto done;
    }

    parse(&j, p, len);

    messages = 0;
    i = find(&j, 0, "messages");

    if (i != NGX_HTTP_AI_JSON_NONE) {
        messages = j.nodes[i].count;
    }

    for (turns = 0, t = req.turns; t; t = t->next) {
        turns++;
    }

    ok(turns == messages, "%s: a turn for each message", name);

    rc = request((char *) out.start, out.last - out.start, "openai", &codec,
                 &req, &out2);

    ok(rc == NGX_OK && same(&out, &out2), "%s: the same again", name);

done:

    free(p);
    ngx_destroy_pool(pool);
}


static void
recordings(const char *dir)
{
    char            path[1024];
    const char     *root, *n;
    struct dirent  *e;
    DIR            *d;

    root = test_fixtures();
    snprintf(path, sizeof(path), "%s/%s", root, dir);

    d = opendir(path);

    if (d == NULL) {
        ok(0, "recordings %s", dir);
        return;
    }

    while ((e = readdir(d)) != NULL) {
        n = e->d_name;

        if (n[0] == '.') {
            continue;
        }

        if (strncmp(dir, "agentgateway/requests", 21) == 0) {
            snprintf(path, sizeof(path), "%s/%s", dir, n);
            recorded_request(path);
            continue;
        }

        if (strncmp(dir, "vercel-ai", 9) == 0
            || strncmp(dir, "agentgateway", 12) == 0)
        {
            snprintf(path, sizeof(path), "%s/%s", dir, n);

            recording(path, strstr(n, ".json") == NULL
                            || strncmp(n, "stream", 6) == 0,
                      strstr(n, ".chunks.txt") != NULL, NGX_HTTP_AI_OP_CHAT);
            continue;
        }

        if (strncmp(n, "chat-", 5) == 0) {
            snprintf(path, sizeof(path), "%s/%s/request.json", dir, n);
            recorded_request(path);
            snprintf(path, sizeof(path), "%s/%s/response.json", dir, n);
            recording(path, 0, 0, NGX_HTTP_AI_OP_CHAT);
            snprintf(path, sizeof(path), "%s/%s/response.sse", dir, n);
            recording(path, 1, 0, NGX_HTTP_AI_OP_CHAT);

        } else if (strncmp(n, "completions-", 12) == 0) {
            snprintf(path, sizeof(path), "%s/%s/response.json", dir, n);
            recording(path, 0, 0, NGX_HTTP_AI_OP_COMPLETIONS);
            snprintf(path, sizeof(path), "%s/%s/response.sse", dir, n);
            recording(path, 1, 0, NGX_HTTP_AI_OP_COMPLETIONS);
        }
    }

    closedir(d);
}


int
main(void)
{
    ngx_uint_t          i;
    static const char  *dirs[] = {
        "openai", "azure", "deepseek", "groq", "mistral", "ollama",
        "openrouter", "together", "vllm", "llama-box", "gemini-openai",
        "other-cerebras", "other-hf", "other-perplexity",
        "vercel-ai/openai-chat", "vercel-ai/openai-compatible",
        "vercel-ai/deepseek", "vercel-ai/groq", "vercel-ai/mistral",
        "agentgateway/requests/completions",
        "agentgateway/response/completions", NULL
    };

    if (test_fixtures() == NULL) {
        skip("no recordings: set AI_FIXTURES to their directory");
        return done_testing();
    }

    for (i = 0; dirs[i]; i++) {
        recordings(dirs[i]);
    }

    return done_testing();
}
