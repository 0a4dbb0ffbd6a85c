
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include "order.h"
#include <dirent.h>
#include "ngx_http_ai_dialect.h"


/*
 * From one dialect to the other: requests there and back, and the recorded
 * answers.  AI_TEST_ALL=1 cuts the streams at every byte.
 */


#define MAX_TOOLS   64
#define MAX_WORK    (24 * 1024 * 1024)    /* bytes decoded for one stream */


typedef struct {
    ngx_http_ai_out_t      text;
    ngx_http_ai_out_t      reasoning;
    ngx_str_t              id[MAX_TOOLS];
    ngx_str_t              name[MAX_TOOLS];
    ngx_http_ai_out_t      args[MAX_TOOLS];
    ngx_uint_t             ntools;
    ngx_http_ai_finish_e   finish;
    ngx_http_ai_usage_t    usage;
    ngx_uint_t             ended;
    ngx_uint_t             error;
} fold_t;


static ngx_pool_t             *pool;
static ngx_http_ai_dialect_t  *anthropic = &ngx_http_ai_dialect_anthropic;
static ngx_http_ai_dialect_t  *openai = &ngx_http_ai_dialect_openai;

static fold_t                 *fold_to;
static ngx_http_ai_encoder_t  *encode_to;
static ngx_http_ai_dialect_t  *encode_as;


static ngx_str_t
keep(ngx_str_t *s)
{
    ngx_str_t  copy;

    copy.data = ngx_pnalloc(pool, s->len + 1);
    copy.len = s->len;

    if (s->len) {
        memcpy(copy.data, s->data, s->len);
    }

    return copy;
}


static ngx_str_t
written(ngx_http_ai_out_t *out)
{
    ngx_str_t  s;

    s.data = out->start;
    s.len = out->last - out->start;

    return s;
}


static int
same(ngx_http_ai_out_t *a, ngx_http_ai_out_t *b)
{
    ngx_str_t  s, t;

    s = written(a);
    t = written(b);

    return order_same(&s, &t);
}


/* media in results and files of text take other places on the way */

static ngx_uint_t
has_media(ngx_http_ai_request_t *req)
{
    ngx_http_ai_part_t  *part, *p;
    ngx_http_ai_turn_t  *turn;

    for (turn = req->turns; turn; turn = turn->next) {
        for (part = turn->parts; part; part = part->next) {

            if (part->type == NGX_HTTP_AI_PART_FILE && part->text.data) {
                return 1;
            }

            for (p = part->parts; p; p = p->next) {
                if (p->type != NGX_HTTP_AI_PART_TEXT) {
                    return 1;
                }
            }
        }
    }

    return 0;
}


/* what is called, answered and said, whoever wrote it down */

static void
outline(ngx_http_ai_request_t *req, ngx_uint_t media,
    ngx_http_ai_out_t *system, ngx_http_ai_out_t *calls,
    ngx_http_ai_out_t *text)
{
    ngx_str_t            s;
    ngx_http_ai_out_t   *out;
    ngx_http_ai_part_t  *part, *p;
    ngx_http_ai_turn_t  *turn;

    for (turn = req->turns; turn; turn = turn->next) {

        for (part = turn->parts; part; part = part->next) {

            switch (part->type) {

            case NGX_HTTP_AI_PART_TEXT:
            case NGX_HTTP_AI_PART_REFUSAL:

                out = (turn->role <= NGX_HTTP_AI_ROLE_DEVELOPER) ? system
                                                                 : text;
                ngx_http_ai_out_unescaped(out, &part->text);
                break;

            case NGX_HTTP_AI_PART_IMAGE:
            case NGX_HTTP_AI_PART_FILE:

                ngx_http_ai_out_str(text, &part->url);
                ngx_http_ai_out_str(text, &part->data);
                ngx_http_ai_out_str(text, &part->file_id);
                break;

            case NGX_HTTP_AI_PART_TOOL_CALL:

                ngx_http_ai_out_lit(calls, "\ncall ");
                ngx_http_ai_out_str(calls, &part->id);
                ngx_http_ai_out_lit(calls, " ");
                ngx_http_ai_out_str(calls, &part->name);
                ngx_http_ai_out_lit(calls, " ");

                if (part->args.len) {
                    ngx_http_ai_out_str(calls, &part->args);

                } else {
                    s = part->args_text;

                    if (s.len == 0) {
                        ngx_str_set(&s, "{}");
                    }

                    ngx_http_ai_out_unescaped(calls, &s);
                }

                break;

            case NGX_HTTP_AI_PART_TOOL_RESULT:

                ngx_http_ai_out_lit(calls, "\nresult ");
                ngx_http_ai_out_str(calls, &part->id);
                ngx_http_ai_out_lit(calls, " ");

                for (p = part->parts; p && !media; p = p->next) {
                    if (p->type == NGX_HTTP_AI_PART_TEXT) {
                        ngx_http_ai_out_unescaped(calls, &p->text);
                    }
                }

                break;

            default:
                break;
            }
        }
    }
}


/* NGX_DECLINED: refused, which is said */

static ngx_int_t
step(ngx_http_ai_dialect_t *from, ngx_str_t *in, ngx_http_ai_request_t *req,
    ngx_http_ai_dialect_t *to, ngx_str_t *out, ngx_http_ai_codec_t *codec)
{
    ngx_int_t                   rc;
    ngx_http_ai_out_t           buf;
    ngx_http_ai_json_t          j;
    ngx_http_ai_target_info_t   target;

    ngx_memzero(&j, sizeof(j));
    ngx_memzero(codec, sizeof(ngx_http_ai_codec_t));
    ngx_memzero(&target, sizeof(target));

    j.pool = pool;
    codec->pool = pool;

    if (ngx_http_ai_json_parse(&j, in->data, in->len) != NGX_OK) {
        return NGX_ABORT;
    }

    rc = from->decode_request(codec, &j, req);

    if (rc != NGX_OK || to == NULL) {
        return rc;
    }

    if (to == anthropic) {
        ngx_str_set(&target.model, "claude-opus-5");
        ngx_str_set(&target.vendor, "anthropic");

    } else {
        ngx_str_set(&target.model, "gpt-5");
        ngx_str_set(&target.vendor, "openai");
    }

    ngx_http_ai_out_init(&buf, pool, 0);

    rc = to->encode_request(codec, req, &target, &buf);

    *out = written(&buf);

    return rc;
}


static void
request(ngx_http_ai_dialect_t *from, ngx_http_ai_dialect_t *to,
    const char *name)
{
    ngx_int_t               rc;
    ngx_str_t               in, out, back;
    ngx_uint_t              i, media;
    ngx_http_ai_tool_t     *t, *u;
    ngx_http_ai_out_t       a[3], b[3];
    ngx_http_ai_codec_t     codec;
    ngx_http_ai_request_t   first, second, third;

    static const char  *parts[] = { "system", "calls", "content" };

    in.data = test_read(name, &in.len);

    if (in.data == NULL) {
        return;
    }

    rc = step(from, &in, &first, to, &out, &codec);

    if (rc == NGX_OK) {
        rc = step(to, &out, &second, from, &back, &codec);
    }

    if (rc == NGX_DECLINED) {
        ok(codec.error.message.len != 0, "%s: refused, %.*s", name,
           (int) codec.error.message.len, codec.error.message.data);
        goto done;
    }

    if (rc == NGX_OK) {
        rc = step(from, &back, &third, NULL, NULL, &codec);
    }

    if (!ok(rc == NGX_OK, "%s: there and back", name)) {
        diag("%.*s", (int) codec.error.message.len, codec.error.message.data);
        goto done;
    }

    for (i = 0; i < 3; i++) {
        ngx_http_ai_out_init(&a[i], pool, 0);
        ngx_http_ai_out_init(&b[i], pool, 0);
    }

    media = has_media(&first);

    outline(&first, media, &a[0], &a[1], &a[2]);
    outline(&third, media, &b[0], &b[1], &b[2]);

    if (first.format == NGX_HTTP_AI_FORMAT_JSON) {

        /* an instruction was added */

        if (b[0].last - b[0].start > a[0].last - a[0].start) {
            b[0].last = b[0].start + (a[0].last - a[0].start);
        }
    }

    for (i = 0; i < (media ? 2 : 3); i++) {
        if (!ok(same(&a[i], &b[i]), "%s: %s", name, parts[i])) {
            in.len = a[i].last - a[i].start;
            diag("was %.*s", (int) in.len, a[i].start);
            in.len = b[i].last - b[i].start;
            diag("is %.*s", (int) in.len, b[i].start);
        }
    }

    for (t = first.tools, u = third.tools;
         t && u && order_same(&t->name, &u->name)
         && order_same(&t->description, &u->description);
         t = t->next, u = u->next)
    {
        /* void */
    }

    ok(t == NULL && u == NULL, "%s: tools", name);

done:

    free(in.data);
    ngx_reset_pool(pool);
}


static void
fold_init(fold_t *f)
{
    ngx_uint_t  i;

    ngx_memzero(f, sizeof(fold_t));

    ngx_http_ai_out_init(&f->text, pool, 64);
    ngx_http_ai_out_init(&f->reasoning, pool, 64);
    ngx_http_ai_usage_init(&f->usage);

    for (i = 0; i < MAX_TOOLS; i++) {
        ngx_http_ai_out_init(&f->args[i], pool, 16);
    }
}


static ngx_int_t
sink(void *data, ngx_http_ai_event_t *ev)
{
    fold_t  *f;

    f = fold_to;

    if (f && ev->choice == 0) {

        switch (ev->type) {

        case NGX_HTTP_AI_EV_TEXT:
        case NGX_HTTP_AI_EV_REFUSAL:
            ngx_http_ai_out_unescaped(&f->text, &ev->text);
            break;

        case NGX_HTTP_AI_EV_REASONING:
            ngx_http_ai_out_unescaped(&f->reasoning, &ev->text);
            break;

        case NGX_HTTP_AI_EV_TOOL_START:
            if (ev->index != f->ntools || f->ntools == MAX_TOOLS) {
                return NGX_ABORT;
            }

            f->id[f->ntools] = keep(&ev->id);
            f->name[f->ntools++] = keep(&ev->name);
            break;

        case NGX_HTTP_AI_EV_TOOL_ARGS:
            ngx_http_ai_out_unescaped(&f->args[ev->index], &ev->text);
            break;

        case NGX_HTTP_AI_EV_FINISH:
            f->finish = ev->finish;
            break;

        case NGX_HTTP_AI_EV_USAGE:
            ngx_http_ai_usage_merge(&f->usage, ev->usage);
            break;

        case NGX_HTTP_AI_EV_ERROR:
            f->error++;
            break;

        case NGX_HTTP_AI_EV_END:
            f->ended++;
            break;

        default:
            break;
        }
    }

    if (encode_to) {
        return encode_as->encode_event(encode_to, ev);
    }

    return NGX_OK;
}


static void
decoder(ngx_http_ai_dialect_t *d, ngx_http_ai_decoder_t *dec)
{
    ngx_memzero(dec, sizeof(ngx_http_ai_decoder_t));

    dec->pool = pool;
    dec->op = NGX_HTTP_AI_OP_CHAT;
    dec->sink.handler = sink;

    if (d->decode_init(dec) != NGX_OK) {
        abort();
    }
}


static void
encoder(ngx_http_ai_dialect_t *d, ngx_http_ai_encoder_t *enc,
    ngx_http_ai_out_t *out, ngx_uint_t stream)
{
    ngx_memzero(enc, sizeof(ngx_http_ai_encoder_t));

    ngx_http_ai_out_init(out, pool, 0);

    enc->pool = pool;
    enc->op = NGX_HTTP_AI_OP_CHAT;
    enc->out = out;
    ngx_str_set(&enc->model, "asked");
    ngx_str_set(&enc->id, "0123");
    enc->now = 1700000000;
    enc->stream = stream;
    enc->include_usage = stream;

    if (d->encode_init(enc) != NGX_OK) {
        abort();
    }

    encode_to = enc;
    encode_as = d;
}


static void
take(ngx_http_ai_dialect_t *d, ngx_http_ai_decoder_t *dec,
    ngx_http_ai_sse_event_t *ev)
{
    if (ev->has_data) {
        (void) d->decode_event(dec, &ev->name, &ev->data);
    }
}


/* a stream in two pieces, or of single bytes when "cut" is (size_t) -1 */

static void
decode_stream(ngx_http_ai_dialect_t *d, ngx_http_ai_decoder_t *dec,
    u_char *data, size_t len, size_t cut)
{
    u_char                   *pos, *end, *last;
    ngx_http_ai_sse_t         sse;
    ngx_http_ai_sse_event_t   ev;

    ngx_memzero(&sse, sizeof(sse));
    sse.pool = pool;

    pos = data;
    end = data;
    last = data + len;

    while (end < last) {

        if (cut == (size_t) -1) {
            end++;

        } else {
            end = (end < data + cut) ? data + cut : last;
        }

        while (ngx_http_ai_sse_read(&sse, &pos, end, &ev) == NGX_OK) {
            take(d, dec, &ev);
        }
    }

    if (ngx_http_ai_sse_finish(&sse, &ev) == NGX_OK) {
        take(d, dec, &ev);
    }

    if (!dec->done) {
        (void) d->decode_finish(dec);
    }
}


static ngx_http_ai_finish_e
reason(fold_t *f)
{
    if (f->ntools
        && (f->finish <= NGX_HTTP_AI_FINISH_STOP_SEQUENCE
            || f->finish == NGX_HTTP_AI_FINISH_UNKNOWN))
    {
        return NGX_HTTP_AI_FINISH_TOOL;
    }

    switch (f->finish) {

    case NGX_HTTP_AI_FINISH_STOP_SEQUENCE:
    case NGX_HTTP_AI_FINISH_UNKNOWN:
    case NGX_HTTP_AI_FINISH_PAUSE:
        return NGX_HTTP_AI_FINISH_STOP;

    case NGX_HTTP_AI_FINISH_REFUSAL:
        return NGX_HTTP_AI_FINISH_FILTER;

    case NGX_HTTP_AI_FINISH_CONTEXT:
        return NGX_HTTP_AI_FINISH_LENGTH;

    case NGX_HTTP_AI_FINISH_TOOL:
        return f->ntools ? NGX_HTTP_AI_FINISH_TOOL : NGX_HTTP_AI_FINISH_STOP;

    default:
        return f->finish;
    }
}


static const char *
differ(fold_t *a, fold_t *b, ngx_uint_t metered)
{
    ngx_str_t   s, t;
    ngx_uint_t  i;

    if (a->error != b->error) {
        return "error";
    }

    if (a->ended != b->ended) {
        return "end";
    }

    if (!same(&a->text, &b->text)) {
        return "text";
    }

    if (!same(&a->reasoning, &b->reasoning)) {
        return "reasoning";
    }

    if (a->ended && reason(a) != reason(b)) {
        return "finish";
    }

    if (metered
        && (ngx_http_ai_usage_input(&a->usage)
            != ngx_http_ai_usage_input(&b->usage)
            || a->usage.out != b->usage.out
            || ngx_http_ai_max(a->usage.cache_read, 0)
               != ngx_http_ai_max(b->usage.cache_read, 0)))
    {
        return "usage";
    }

    if (a->ntools != b->ntools) {
        return "number of calls";
    }

    for (i = 0; i < a->ntools; i++) {

        if ((a->id[i].len && !order_same(&a->id[i], &b->id[i]))
            || !order_same(&a->name[i], &b->name[i]))
        {
            return "call";
        }

        s = written(&a->args[i]);
        t = written(&b->args[i]);

        /* no arguments may have become an empty object */

        if (!order_same(&s, &t) && !(s.len == 0 && order_is(&t, "{}"))) {
            return "arguments";
        }
    }

    return NULL;
}


static void
cuts(ngx_http_ai_dialect_t *from, ngx_http_ai_dialect_t *to, const char *name,
    ngx_str_t *in, ngx_str_t *whole, ngx_str_t *pieces)
{
    size_t                  cut, jump;
    ngx_str_t               s;
    ngx_pool_t             *saved;
    ngx_uint_t              n, bad;
    ngx_http_ai_out_t       out;
    ngx_http_ai_decoder_t   dec;
    ngx_http_ai_encoder_t   enc;

    jump = 1;

    if (getenv("AI_TEST_ALL") == NULL) {
        jump = in->len / (MAX_WORK / in->len + 1) + 1;
    }

    n = 0;
    bad = 0;

    saved = pool;
    pool = ngx_create_pool(4096, NULL);

    for (cut = 1; cut < in->len; cut += jump) {
        decoder(from, &dec);
        encoder(to, &enc, &out, 1);

        decode_stream(from, &dec, in->data, in->len, cut);

        s = written(&out);

        if (!order_same(&s, whole)) {
            bad++;
        }

        n++;

        ngx_reset_pool(pool);
    }

    ngx_destroy_pool(pool);
    pool = saved;

    ok(bad == 0 && order_same(whole, pieces), "%s: cut at %u places", name,
       (unsigned) n);
}


static void
answer(ngx_http_ai_dialect_t *from, ngx_http_ai_dialect_t *to,
    const char *name, ngx_uint_t sse)
{
    fold_t                  got, again;
    ngx_str_t               in, s, whole;
    ngx_uint_t              stream, metered;
    const char             *what;
    ngx_http_ai_out_t       out;
    ngx_http_ai_decoder_t   dec;
    ngx_http_ai_encoder_t   enc;

    in.data = test_read(name, &in.len);

    if (in.data == NULL || in.len == 0) {
        free(in.data);
        return;
    }

    ngx_str_null(&whole);

    for (stream = 0; stream < 2; stream++) {
        fold_init(&got);
        decoder(from, &dec);
        encoder(to, &enc, &out, stream);
        fold_to = &got;

        if (sse) {
            decode_stream(from, &dec, in.data, in.len, 0);

        } else {
            (void) from->decode_body(&dec, in.data, in.len);
        }

        encode_to = NULL;

        s = written(&out);

        if (stream) {
            whole = s;

            what = (to == anthropic)
                   ? order_anthropic(pool, s.data, s.len, got.ended)
                   : order_openai(pool, s.data, s.len, got.ended);

            if (!ok(what == NULL, "%s: order", name)) {
                diag("%s", what);
            }
        }

        if (!stream && (!got.ended || got.error)) {
            continue;
        }

        fold_init(&again);
        decoder(to, &dec);
        fold_to = &again;

        if (stream) {
            decode_stream(to, &dec, s.data, s.len, 0);

        } else {
            (void) to->decode_body(&dec, s.data, s.len);
        }

        fold_to = NULL;

        metered = (got.ended && got.usage.out >= 0);

        what = differ(&got, &again, metered);

        if (!ok(what == NULL, "%s: as %s", name,
                stream ? "a stream" : "a body"))
        {
            diag("differs in %s", what);
        }
    }

    if (sse) {
        decoder(from, &dec);
        encoder(to, &enc, &out, 1);
        decode_stream(from, &dec, in.data, in.len, (size_t) -1);

        s = written(&out);
        cuts(from, to, name, &in, &whole, &s);
        encode_to = NULL;
    }

    free(in.data);
    ngx_reset_pool(pool);
}


static void
walk(const char *root, const char *dir, const char *prefix,
    ngx_http_ai_dialect_t *from, ngx_http_ai_dialect_t *to)
{
    DIR            *d;
    char            path[512], name[512];
    struct stat     st;
    struct dirent  *de;

    snprintf(path, sizeof(path), "%s/%s", root, dir);

    d = opendir(path);

    if (d == NULL) {
        skip("no %s", path);
        return;
    }

    while ((de = readdir(d)) != NULL) {

        if (de->d_name[0] == '.'
            || strncmp(de->d_name, prefix, strlen(prefix)) != 0)
        {
            continue;
        }

        snprintf(name, sizeof(name), "%s/%.200s", dir, de->d_name);
        snprintf(path, sizeof(path), "%s/%.255s", root, name);

        if (stat(path, &st) != 0) {
            continue;
        }

        if (!S_ISDIR(st.st_mode)) {
            request(from, to, name);
            continue;
        }

        snprintf(name, sizeof(name), "%s/%.200s/request.json", dir,
                 de->d_name);
        request(from, to, name);

        if (strstr(de->d_name, "-200") == NULL) {
            continue;
        }

        snprintf(name, sizeof(name), "%s/%.200s/response.json", dir,
                 de->d_name);
        answer(from, to, name, 0);

        snprintf(name, sizeof(name), "%s/%.200s/response.sse", dir,
                 de->d_name);
        answer(from, to, name, 1);
    }

    closedir(d);
}


int
main(void)
{
    ngx_log_t    log;
    ngx_uint_t   i;
    const char  *root;

    static const char  *dirs[] = {
        "openai", "azure", "deepseek", "groq", "llama-box", "mistral",
        "ollama", "openrouter", "other-cerebras", "other-perplexity",
        "together", "vllm", "gemini-openai", "bedrock-mantle", NULL
    };

    ngx_memzero(&log, sizeof(log));

    pool = ngx_create_pool(4096, &log);

    root = test_fixtures();

    if (root == NULL) {
        skip("no recordings: set AI_FIXTURES to their directory");
        return done_testing();
    }

    walk(root, "anthropic", "messages", anthropic, openai);
    walk(root, "agentgateway/requests/messages", "", anthropic, openai);
    walk(root, "agentgateway/requests/completions", "", openai, anthropic);

    for (i = 0; dirs[i]; i++) {
        walk(root, dirs[i], "chat", openai, anthropic);
    }

    ngx_destroy_pool(pool);

    return done_testing();
}
