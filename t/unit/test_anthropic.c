
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include <dirent.h>
#include "ngx_http_ai_dialect.h"


#define MAX_TOOLS  64


/* an answer put together again */

typedef struct {
    ngx_http_ai_out_t      text;
    ngx_http_ai_out_t      reasoning;
    ngx_http_ai_out_t      signature;
    ngx_http_ai_out_t      redacted;
    ngx_str_t              id[MAX_TOOLS];
    ngx_str_t              name[MAX_TOOLS];
    ngx_http_ai_out_t      args[MAX_TOOLS];
    ngx_uint_t             ntools;
    ngx_http_ai_finish_e   finish;
    ngx_str_t              stop;
    ngx_http_ai_usage_t    usage;
    ngx_str_t              answer;
    ngx_str_t              model;
    ngx_uint_t             ended;
    ngx_uint_t             error;
} fold_t;


static ngx_pool_t             *pool;
static ngx_http_ai_dialect_t  *dialect = &ngx_http_ai_dialect_anthropic;

static fold_t                 *fold_to;
static ngx_http_ai_encoder_t  *encode_to;
static ngx_http_ai_out_t       dump;


static u_char *
bytes(const char *s, size_t *len)
{
    *len = strlen(s);

    return test_copy(s, *len);
}


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
    size_t  len;

    len = a->last - a->start;

    return len == (size_t) (b->last - b->start)
           && (len == 0 || memcmp(a->start, b->start, len) == 0);
}


static void
fold_init(fold_t *f)
{
    ngx_uint_t  i;

    ngx_memzero(f, sizeof(fold_t));

    ngx_http_ai_out_init(&f->text, pool, 64);
    ngx_http_ai_out_init(&f->reasoning, pool, 64);
    ngx_http_ai_out_init(&f->signature, pool, 64);
    ngx_http_ai_out_init(&f->redacted, pool, 64);
    ngx_http_ai_usage_init(&f->usage);

    for (i = 0; i < MAX_TOOLS; i++) {
        ngx_http_ai_out_init(&f->args[i], pool, 16);
    }
}


static void
dump_word(const char *word, ngx_str_t *s)
{
    ngx_http_ai_out_mem(&dump, word, strlen(word));

    if (s) {
        ngx_http_ai_out_str(&dump, s);
    }
}


static void
dump_int(const char *word, int64_t n)
{
    ngx_http_ai_out_mem(&dump, word, strlen(word));
    ngx_http_ai_out_int(&dump, n);
}


static void
dump_event(ngx_http_ai_event_t *ev)
{
    static const char  *names[] = {
        "start", "text", "reasoning", "signature", "redacted", "refusal",
        "tool", "args", "/tool", "cite", "finish", "usage", "error", "end"
    };

    if (dump.last != dump.start) {
        ngx_http_ai_out_lit(&dump, "|");
    }

    dump_word(names[ev->type], NULL);

    switch (ev->type) {

    case NGX_HTTP_AI_EV_START:
        dump_word(" ", &ev->id);
        dump_word(" ", &ev->model);
        break;

    case NGX_HTTP_AI_EV_TOOL_START:
        dump_int(" ", ev->index);
        dump_word(" ", &ev->id);
        dump_word(" ", &ev->name);
        break;

    case NGX_HTTP_AI_EV_TOOL_ARGS:
        dump_int(" ", ev->index);
        dump_word(" ", &ev->text);
        break;

    case NGX_HTTP_AI_EV_TOOL_END:
        dump_int(" ", ev->index);
        break;

    case NGX_HTTP_AI_EV_FINISH:
        dump_int(" ", ev->finish);
        dump_word(ev->text.len ? " " : "", &ev->text);
        break;

    case NGX_HTTP_AI_EV_USAGE:
        dump_int(" ", ev->usage->in_fresh);
        dump_int(" ", ev->usage->cache_read);
        dump_int(" ", ev->usage->cache_write);
        dump_int(" ", ev->usage->cache_write_1h);
        dump_int(" ", ev->usage->out);
        dump_int(" ", ev->usage->reasoning);
        dump_word(ev->usage->service_tier.len ? " " : "",
                  &ev->usage->service_tier);
        break;

    case NGX_HTTP_AI_EV_ERROR:
        dump_word(" ", ngx_http_ai_err_name(ev->error->class));
        dump_word(" ", &ev->error->message);
        break;

    case NGX_HTTP_AI_EV_END:
        break;

    default:
        dump_word(" ", &ev->text);
        break;
    }
}


static ngx_int_t
sink(void *data, ngx_http_ai_event_t *ev)
{
    fold_t               *f;
    ngx_str_t             text;
    ngx_http_ai_event_t   copy;

    f = fold_to;

    if (f) {

        switch (ev->type) {

        case NGX_HTTP_AI_EV_START:
            f->answer = keep(&ev->id);
            f->model = keep(&ev->model);
            break;

        case NGX_HTTP_AI_EV_TEXT:
            ngx_http_ai_out_unescaped(&f->text, &ev->text);
            break;

        case NGX_HTTP_AI_EV_REASONING:
            ngx_http_ai_out_unescaped(&f->reasoning, &ev->text);
            break;

        case NGX_HTTP_AI_EV_SIGNATURE:
            ngx_http_ai_out_str(&f->signature, &ev->text);
            break;

        case NGX_HTTP_AI_EV_REDACTED:
            ngx_http_ai_out_str(&f->redacted, &ev->text);
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
            f->stop = keep(&ev->text);
            break;

        case NGX_HTTP_AI_EV_USAGE:
            ngx_http_ai_usage_merge(&f->usage, ev->usage);
            ngx_str_null(&f->usage.service_tier);
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

    } else if (encode_to == NULL) {
        dump_event(ev);
    }

    if (encode_to) {

        /* what it keeps it must have copied */

        copy = *ev;

        if (ev->text.len) {
            text = ev->text;
            copy.text.data = test_copy(text.data, text.len);

            if (dialect->encode_event(encode_to, &copy) != NGX_OK) {
                return NGX_ABORT;
            }

            memset(copy.text.data, 'x', text.len);
            free(copy.text.data);

            return NGX_OK;
        }

        return dialect->encode_event(encode_to, &copy);
    }

    return NGX_OK;
}


static void
decoder(ngx_http_ai_decoder_t *dec, ngx_http_ai_op_e op)
{
    ngx_memzero(dec, sizeof(ngx_http_ai_decoder_t));

    dec->pool = pool;
    dec->op = op;
    dec->sink.handler = sink;

    if (dialect->decode_init(dec) != NGX_OK) {
        abort();
    }
}


static void
encoder(ngx_http_ai_encoder_t *enc, ngx_http_ai_out_t *out, ngx_uint_t stream)
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
    enc->input_estimate = 7;

    if (dialect->encode_init(enc) != NGX_OK) {
        abort();
    }
}


/* a stream in pieces of "step" bytes, 0 for all at once */

static ngx_int_t
decode_stream(ngx_http_ai_decoder_t *dec, u_char *data, size_t len,
    size_t step)
{
    u_char                   *p, *pos;
    size_t                    n;
    ngx_int_t                 rc, result;
    ngx_http_ai_sse_t         sse;
    ngx_http_ai_sse_event_t   ev;

    ngx_memzero(&sse, sizeof(sse));
    sse.pool = pool;

    result = NGX_OK;

    while (len) {
        n = (step == 0 || step > len) ? len : step;
        p = test_copy(data, n);
        pos = p;

        while (ngx_http_ai_sse_read(&sse, &pos, p + n, &ev) == NGX_OK) {
            if (ev.has_data) {
                rc = dialect->decode_event(dec, &ev.name, &ev.data);
                if (rc != NGX_OK) {
                    result = rc;
                }
            }
        }

        memset(p, 'x', n);
        free(p);

        data += n;
        len -= n;
    }

    if (ngx_http_ai_sse_finish(&sse, &ev) == NGX_OK && ev.has_data) {
        rc = dialect->decode_event(dec, &ev.name, &ev.data);
        if (rc != NGX_OK) {
            result = rc;
        }
    }

    return result;
}


/* events given as lines of JSON */

static ngx_int_t
decode_lines(ngx_http_ai_decoder_t *dec, u_char *data, size_t len)
{
    u_char     *p, *last, *line;
    ngx_int_t   rc, result;
    ngx_str_t   name, s;

    last = data + len;
    result = NGX_OK;

    ngx_str_null(&name);

    for (p = data; p < last; p++) {
        line = p;

        while (p < last && *p != '\n') {
            p++;
        }

        if (p == line) {
            continue;
        }

        s.len = p - line;
        s.data = test_copy(line, s.len);

        rc = dialect->decode_event(dec, &name, &s);

        free(s.data);

        if (rc != NGX_OK) {
            result = rc;
        }
    }

    return result;
}


/* a request of the dialect through the pivot for a model */

static ngx_int_t
convert(u_char *data, size_t len, const char *model, ngx_str_t *result,
    ngx_http_ai_codec_t *codec)
{
    ngx_int_t                  rc;
    ngx_http_ai_out_t          out;
    ngx_http_ai_json_t         j;
    ngx_http_ai_request_t      req;
    ngx_http_ai_target_info_t  target;

    ngx_memzero(&j, sizeof(j));
    ngx_memzero(codec, sizeof(ngx_http_ai_codec_t));
    ngx_memzero(&target, sizeof(target));

    j.pool = pool;
    codec->pool = pool;

    target.model.data = (u_char *) model;
    target.model.len = strlen(model);
    ngx_str_set(&target.vendor, "anthropic");

    if (ngx_http_ai_json_parse(&j, data, len) != NGX_OK) {
        return NGX_ABORT;
    }

    rc = dialect->decode_request(codec, &j, &req);
    if (rc != NGX_OK) {
        return rc;
    }

    ngx_http_ai_out_init(&out, pool, 0);

    rc = dialect->encode_request(codec, &req, &target, &out);

    *result = written(&out);

    return rc;
}


#define OPUS46    "claude-opus-4-6"
#define OPUS47    "claude-opus-4-7"
#define SONNET45  "claude-sonnet-4-5-20250929"
#define HAIKU3    "claude-3-haiku-20240307"

#define HEAD      "{\"model\":\"m\",\"max_tokens\":100,"
#define HI        "\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]"
#define HI_OUT    "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"  \
                  "\"text\",\"text\":\"Hi\"}]}]}"
#define ALPHA     "\"tools\":[{\"name\":\"alpha\",\"input_schema\":{}}]"
#define ALPHA_OUT "\"tools\":[{\"name\":\"alpha\",\"input_schema\":"       \
                  "{\"type\":\"object\",\"properties\":{}}}]"


static struct {
    const char  *name;
    const char  *model;
    const char  *in;
    const char  *out;
} requests[] = {

    { "plain", OPUS46,
      HEAD HI "}",
      "{\"model\":\"claude-opus-4-6\",\"max_tokens\":100," HI_OUT },

    { "sampling", OPUS46,
      HEAD "\"temperature\":0.5,\"top_k\":3,\"stop_sequences\":[\"a\",\" \\n\""
      "],\"stream\":true,\"metadata\":{\"user_id\":\"u\"},"
      "\"service_tier\":\"auto\"," HI "}",
      "{\"model\":\"claude-opus-4-6\",\"max_tokens\":100,\"temperature\":0.5,"
      "\"top_k\":3,\"stream\":true,\"stop_sequences\":[\"a\"],"
      "\"metadata\":{\"user_id\":\"u\"},\"service_tier\":\"auto\"," HI_OUT },

    { "temperature above one", OPUS46,
      HEAD "\"temperature\":1.7," HI "}",
      "{\"model\":\"claude-opus-4-6\",\"max_tokens\":100,\"temperature\":1,"
      HI_OUT },

    { "both sampling parameters", OPUS46,
      HEAD "\"temperature\":0.5,\"top_p\":0.9," HI "}",
      "{\"model\":\"claude-opus-4-6\",\"max_tokens\":100,\"temperature\":0.5,"
      HI_OUT },

    { "both for an old model", HAIKU3,
      HEAD "\"temperature\":0.5,\"top_p\":0.9," HI "}",
      "{\"model\":\"claude-3-haiku-20240307\",\"max_tokens\":100,"
      "\"temperature\":0.5,\"top_p\":0.9," HI_OUT },

    { "no sampling for a new model", OPUS47,
      HEAD "\"temperature\":0.5,\"top_p\":0.9,\"top_k\":1," HI "}",
      "{\"model\":\"claude-opus-4-7\",\"max_tokens\":100," HI_OUT },

    { "limit of the model", HAIKU3,
      "{\"model\":\"m\",\"max_tokens\":5e3," HI "}",
      "{\"model\":\"claude-3-haiku-20240307\",\"max_tokens\":4096," HI_OUT },

    { "system string", OPUS46,
      HEAD "\"system\":\"Be \\\"brief\\\"\"," HI "}",
      "{\"model\":\"claude-opus-4-6\",\"max_tokens\":100,"
      "\"system\":\"Be \\\"brief\\\"\"," HI_OUT },

    { "system blocks", OPUS46,
      HEAD "\"system\":[{\"type\":\"text\",\"text\":\"A\"},"
      "{\"type\":\"text\",\"text\":\"\"},{\"type\":\"text\",\"text\":\"B\","
      "\"cache_control\":{\"type\":\"ephemeral\",\"ttl\":\"1h\"}}]," HI "}",
      "{\"model\":\"claude-opus-4-6\",\"max_tokens\":100,"
      "\"system\":[{\"type\":\"text\",\"text\":\"A\"},{\"type\":\"text\","
      "\"text\":\"B\",\"cache_control\":{\"type\":\"ephemeral\","
      "\"ttl\":\"1h\"}}]," HI_OUT },

    { "system in the middle, new model", OPUS47,
      HEAD "\"system\":\"A\",\"messages\":["
      "{\"role\":\"user\",\"content\":\"x\"},"
      "{\"role\":\"system\",\"content\":\"B\"}]}",
      "{\"model\":\"claude-opus-4-7\",\"max_tokens\":100,\"system\":\"A\","
      "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\","
      "\"text\":\"x\"}]},{\"role\":\"system\",\"content\":[{\"type\":\"text\""
      ",\"text\":\"B\"}]}]}" },

    { "system in the middle, older model", OPUS46,
      HEAD "\"system\":\"A\",\"messages\":["
      "{\"role\":\"user\",\"content\":\"x\"},"
      "{\"role\":\"system\",\"content\":\"B\"},"
      "{\"role\":\"user\",\"content\":\"y\"}]}",
      "{\"model\":\"claude-opus-4-6\",\"max_tokens\":100,"
      "\"system\":[{\"type\":\"text\",\"text\":\"A\"},{\"type\":\"text\","
      "\"text\":\"B\"}],\"messages\":[{\"role\":\"user\",\"content\":"
      "[{\"type\":\"text\",\"text\":\"x\"},{\"type\":\"text\",\"text\":\"y\""
      "}]}]}" },

    { "results first, then text", OPUS46,
      HEAD ALPHA ",\"messages\":[{\"role\":\"user\",\"content\":\"go\"},"
      "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"\"},"
      "{\"type\":\"tool_use\",\"id\":\"call.1\",\"name\":\"alpha\","
      "\"input\":{\"a\":1E5}},{\"type\":\"tool_use\",\"id\":\"call-2\","
      "\"name\":\"alpha\"}]},{\"role\":\"user\",\"content\":["
      "{\"type\":\"text\",\"text\":\"more\"},"
      "{\"type\":\"tool_result\",\"tool_use_id\":\"call.1\",\"is_error\":true,"
      "\"content\":\"bad\"},{\"type\":\"tool_result\",\"tool_use_id\":"
      "\"call-2\",\"content\":[{\"type\":\"text\",\"text\":\"r\"},{\"type\":"
      "\"image\",\"source\":{\"type\":\"url\",\"url\":\"http://x/\"}}]}]}]}",
      "{\"model\":\"claude-opus-4-6\",\"max_tokens\":100," ALPHA_OUT ","
      "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\","
      "\"text\":\"go\"}]},{\"role\":\"assistant\",\"content\":["
      "{\"type\":\"tool_use\",\"id\":\"call_1\",\"name\":\"alpha\","
      "\"input\":{\"a\":1E5}},{\"type\":\"tool_use\",\"id\":\"call-2\","
      "\"name\":\"alpha\",\"input\":{}}]},{\"role\":\"user\",\"content\":["
      "{\"type\":\"tool_result\",\"tool_use_id\":\"call_1\",\"content\":"
      "\"bad\",\"is_error\":true},{\"type\":\"tool_result\",\"tool_use_id\":"
      "\"call-2\",\"content\":[{\"type\":\"text\",\"text\":\"r\"},{\"type\":"
      "\"image\",\"source\":{\"type\":\"url\",\"url\":\"http://x/\"}}]},"
      "{\"type\":\"text\",\"text\":\"more\"}]}]}" },

    { "prefill without the space at its end", OPUS46,
      HEAD "\"messages\":[{\"role\":\"user\",\"content\":\"x\"},"
      "{\"role\":\"assistant\",\"content\":\"a \\\\n \\n\\t \"}]}",
      "{\"model\":\"claude-opus-4-6\",\"max_tokens\":100,\"messages\":["
      "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]},"
      "{\"role\":\"assistant\",\"content\":[{\"type\":\"text\",\"text\":"
      "\"a \\\\n\"}]}]}" },

    { "thoughts with and without signature", OPUS46,
      HEAD "\"messages\":[{\"role\":\"user\",\"content\":\"x\"},"
      "{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\","
      "\"thinking\":\"t\",\"signature\":\"s\"},{\"type\":\"thinking\","
      "\"thinking\":\"u\",\"signature\":\"\"},{\"type\":"
      "\"redacted_thinking\",\"data\":\"d\"},{\"type\":\"text\",\"text\":"
      "\"y\"}]},{\"role\":\"user\",\"content\":\"z\"}]}",
      "{\"model\":\"claude-opus-4-6\",\"max_tokens\":100,\"messages\":["
      "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"x\"}]},"
      "{\"role\":\"assistant\",\"content\":[{\"type\":\"thinking\","
      "\"thinking\":\"t\",\"signature\":\"s\"},{\"type\":"
      "\"redacted_thinking\",\"data\":\"d\"},{\"type\":\"text\",\"text\":"
      "\"y\"}]},{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":"
      "\"z\"}]}]}" },

    { "documents", OPUS46,
      HEAD "\"messages\":[{\"role\":\"user\",\"content\":["
      "{\"type\":\"document\",\"title\":\"T\",\"context\":\"C\",\"citations\":"
      "{\"enabled\":true},\"source\":{\"type\":\"text\",\"media_type\":"
      "\"text/plain\",\"data\":\"abc\"}},{\"type\":\"document\",\"source\":"
      "{\"type\":\"base64\",\"media_type\":\"application\\/pdf\",\"data\":"
      "\"AAAA\"},\"cache_control\":{\"type\":\"ephemeral\"}},"
      "{\"type\":\"document\",\"source\":{\"type\":\"content\",\"content\":["
      "{\"type\":\"text\",\"text\":\"p\"},{\"type\":\"text\",\"text\":\"q\"}]}"
      "},{\"type\":\"document\",\"source\":{\"type\":\"file\",\"file_id\":"
      "\"f\"}},{\"type\":\"image\",\"source\":{\"type\":\"base64\","
      "\"media_type\":\"image/png\",\"data\":\"BBBB\"}}]}]}",
      "{\"model\":\"claude-opus-4-6\",\"max_tokens\":100,\"messages\":["
      "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"C\"},"
      "{\"type\":\"document\",\"source\":{\"type\":\"text\",\"media_type\":"
      "\"text/plain\",\"data\":\"abc\"},\"title\":\"T\"},{\"type\":"
      "\"document\",\"source\":{\"type\":\"base64\",\"media_type\":"
      "\"application/pdf\",\"data\":\"AAAA\"},\"cache_control\":{\"type\":"
      "\"ephemeral\"}},{\"type\":\"document\",\"source\":{\"type\":\"text\","
      "\"media_type\":\"text/plain\",\"data\":\"p\\n\\nq\"}},{\"type\":"
      "\"document\",\"source\":{\"type\":\"file\",\"file_id\":\"f\"}},"
      "{\"type\":\"image\",\"source\":{\"type\":\"base64\",\"media_type\":"
      "\"image/png\",\"data\":\"BBBB\"}}]}]}" },

    { "tools", SONNET45,
      HEAD "\"tools\":[{\"type\":\"custom\",\"name\":\"a\",\"description\":"
      "\"d\",\"input_schema\":{\"properties\":{\"x\":{\"type\":\"number\","
      "\"minimum\":0}},\"type\":\"object\"},\"strict\":true,"
      "\"defer_loading\":true,\"cache_control\":{\"type\":\"ephemeral\","
      "\"ttl\":\"7m\"}}],\"tool_choice\":{\"type\":\"tool\",\"name\":\"a\","
      "\"disable_parallel_tool_use\":true}," HI "}",
      "{\"model\":\"claude-sonnet-4-5-20250929\",\"max_tokens\":100,"
      "\"tools\":[{\"name\":\"a\",\"description\":\"d\",\"input_schema\":"
      "{\"properties\":{\"x\":{\"type\":\"number\",\"description\":"
      "\"{minimum: 0}\"}},\"type\":\"object\",\"additionalProperties\":"
      "false},\"strict\":true,"
      "\"cache_control\":{\"type\":\"ephemeral\"}}],\"tool_choice\":{\"type\":"
      "\"tool\",\"name\":\"a\",\"disable_parallel_tool_use\":true}," HI_OUT },

    { "a forced call is not for a model that thinks", SONNET45,
      "{\"model\":\"m\",\"max_tokens\":9000,\"thinking\":{\"type\":"
      "\"enabled\",\"budget_tokens\":2000},\"top_p\":0.97,\"temperature\":1,"
      ALPHA ",\"tool_choice\":{\"type\":\"any\"}," HI "}",
      "{\"model\":\"claude-sonnet-4-5-20250929\",\"max_tokens\":9000,"
      "\"top_p\":0.97,\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":"
      "2000}," ALPHA_OUT ",\"tool_choice\":{\"type\":\"auto\"}," HI_OUT },

    { "no tools called", SONNET45,
      HEAD ALPHA ",\"tool_choice\":{\"type\":\"none\"}," HI "}",
      "{\"model\":\"claude-sonnet-4-5-20250929\",\"max_tokens\":100,"
      ALPHA_OUT ",\"tool_choice\":{\"type\":\"none\"}," HI_OUT },

    { "effort of a model that decides", OPUS47,
      HEAD "\"output_config\":{\"effort\":\"xhigh\"}," HI "}",
      "{\"model\":\"claude-opus-4-7\",\"max_tokens\":100,\"thinking\":"
      "{\"type\":\"adaptive\"},\"output_config\":{\"effort\":\"xhigh\"},"
      HI_OUT },

    { "effort that is not known yet", OPUS46,
      HEAD "\"output_config\":{\"effort\":\"xhigh\"}," HI "}",
      "{\"model\":\"claude-opus-4-6\",\"max_tokens\":100,\"thinking\":"
      "{\"type\":\"adaptive\"},\"output_config\":{\"effort\":\"max\"}," HI_OUT
    },

    { "effort of a model with a budget", SONNET45,
      HEAD "\"output_config\":{\"effort\":\"medium\"}," HI "}",
      "{\"model\":\"claude-sonnet-4-5-20250929\",\"max_tokens\":4196,"
      "\"thinking\":{\"type\":\"enabled\",\"budget_tokens\":4096}," HI_OUT },

    { "budget becomes effort", OPUS47,
      "{\"model\":\"m\",\"max_tokens\":9000,\"thinking\":{\"type\":"
      "\"enabled\",\"budget_tokens\":5000}," HI "}",
      "{\"model\":\"claude-opus-4-7\",\"max_tokens\":9000,\"thinking\":"
      "{\"type\":\"adaptive\"},\"output_config\":{\"effort\":\"medium\"},"
      HI_OUT },

    { "no thinking", "claude-opus-5",
      HEAD "\"thinking\":{\"type\":\"disabled\"},\"output_config\":"
      "{\"effort\":\"max\"}," HI "}",
      "{\"model\":\"claude-opus-5\",\"max_tokens\":100,\"thinking\":{\"type\":"
      "\"disabled\"},\"output_config\":{\"effort\":\"high\"}," HI_OUT },

    { "no thinking in an old model", HAIKU3,
      HEAD "\"thinking\":{\"type\":\"adaptive\"},\"output_config\":"
      "{\"effort\":\"max\"}," HI "}",
      "{\"model\":\"claude-3-haiku-20240307\",\"max_tokens\":100," HI_OUT },

    { "calls without thoughts", SONNET45,
      "{\"model\":\"m\",\"max_tokens\":9000,\"thinking\":{\"type\":"
      "\"enabled\",\"budget_tokens\":2000}," ALPHA ",\"messages\":["
      "{\"role\":\"user\",\"content\":\"go\"},{\"role\":\"assistant\","
      "\"content\":[{\"type\":\"tool_use\",\"id\":\"c\",\"name\":\"alpha\","
      "\"input\":{}}]},{\"role\":\"user\",\"content\":[{\"type\":"
      "\"tool_result\",\"tool_use_id\":\"c\"}]}]}",
      "{\"model\":\"claude-sonnet-4-5-20250929\",\"max_tokens\":9000,"
      ALPHA_OUT ",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
      "\"text\",\"text\":\"go\"}]},{\"role\":\"assistant\",\"content\":["
      "{\"type\":\"tool_use\",\"id\":\"c\",\"name\":\"alpha\",\"input\":{}}]},"
      "{\"role\":\"user\",\"content\":[{\"type\":\"tool_result\","
      "\"tool_use_id\":\"c\"}]}]}" },

    { "schema of a strict tool that allows anything", SONNET45,
      HEAD "\"tools\":[{\"name\":\"a\",\"input_schema\":{\"properties\":{}},"
      "\"strict\":true}]," HI "}",
      "{\"model\":\"claude-sonnet-4-5-20250929\",\"max_tokens\":100,"
      "\"tools\":[{\"name\":\"a\",\"input_schema\":{\"type\":\"object\","
      "\"properties\":{}}}]," HI_OUT },

    { "schema", SONNET45,
      HEAD "\"output_config\":{\"format\":{\"type\":\"json_schema\","
      "\"schema\":{\"type\":\"object\",\"additionalProperties\":false}}},"
      HI "}",
      "{\"model\":\"claude-sonnet-4-5-20250929\",\"max_tokens\":100,"
      "\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":"
      "{\"type\":\"object\",\"additionalProperties\":false}}}," HI_OUT },

    { "schema with what is not supported", SONNET45,
      HEAD "\"output_config\":{\"format\":{\"type\":\"json_schema\","
      "\"schema\":{\"$schema\":\"x\",\"type\":\"object\",\"properties\":{"
      "\"type\":{\"type\":\"string\",\"format\":\"date\",\"maxLength\":5,"
      "\"description\":\"a \\\"b\\\"\"},\"b\":{\"type\":\"array\",\"items\":"
      "{\"$ref\":\"#/$defs/c\",\"title\":\"t\"},\"minItems\":2},\"d\":{"
      "\"oneOf\":[{\"type\":\"null\"},{\"type\":\"string\",\"format\":\"f\""
      "}]},\"e\":true,\"f\":{\"default\":\"z\"}},\"required\":[\"b\"],"
      "\"$defs\":{\"c\":{\"type\":\"object\",\"properties\":{\"x\":{\"const\":"
      "1}},\"additionalProperties\":true}}}}}," HI "}",
      "{\"model\":\"claude-sonnet-4-5-20250929\",\"max_tokens\":100,"
      "\"output_config\":{\"format\":{\"type\":\"json_schema\",\"schema\":"
      "{\"type\":\"object\",\"properties\":{\"type\":{\"type\":\"string\","
      "\"format\":\"date\",\"description\":\"a \\\"b\\\"\\n\\n{maxLength: 5}\""
      "},\"b\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/c\"},"
      "\"description\":\"{minItems: 2}\"},\"d\":{\"anyOf\":[{\"type"
      "\":\"null\"},"
      "{\"type\":\"string\",\"description\":\"{format: \\\"f\\\"}\"}]},\"e\":"
      "true,\"f\":{\"description\":\"{default: \\\"z\\\"}\"}},\"required\":["
      "\"b\"],\"$defs\":{\"c\":{\"type\":\"object\",\"properties\":{\"x\":"
      "{\"const\":1}},\"additionalProperties\":false}},"
      "\"additionalProperties\":false}}}," HI_OUT },

    { "schema that allows anything", SONNET45,
      HEAD "\"output_config\":{\"format\":{\"type\":\"json_schema\","
      "\"schema\":{\"type\":\"object\"}}}," HI "}",
      "{\"model\":\"claude-sonnet-4-5-20250929\",\"max_tokens\":100"
      ",\"system\":["
      "{\"type\":\"text\",\"text\":\"Respond with a single JSON object that "
      "conforms to this JSON schema, and nothing else:\\n{\\\"type\\\":"
      "\\\"object\\\"}\"}]," HI_OUT },

    { "schema for an old model", HAIKU3,
      HEAD "\"system\":\"S\",\"output_format\":{\"type\":\"json_schema\","
      "\"schema\":{\"type\":\"object\"}}," HI "}",
      "{\"model\":\"claude-3-haiku-20240307\",\"max_tokens\":100,\"system\":["
      "{\"type\":\"text\",\"text\":\"S\"},{\"type\":\"text\",\"text\":"
      "\"Respond with a single JSON object that conforms to this JSON schema, "
      "and nothing else:\\n{\\\"type\\\":\\\"object\\\"}\"}]," HI_OUT },

    { "mark on the request", OPUS46,
      HEAD "\"cache_control\":{\"type\":\"ephemeral\",\"ttl\":\"5m\"}," HI "}",
      "{\"model\":\"claude-opus-4-6\",\"max_tokens\":100,\"messages\":["
      "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"Hi\","
      "\"cache_control\":{\"type\":\"ephemeral\",\"ttl\":\"5m\"}}]}]}" },

    { "what is dropped", OPUS46,
      HEAD "\"context_management\":{\"edits\":[]},\"container\":\"c\","
      "\"mcp_servers\":[],\"betas\":[\"b\"],\"speed\":\"fast\","
      "\"inference_geo\":\"us\",\"unknown\":{}," HI "}",
      "{\"model\":\"claude-opus-4-6\",\"max_tokens\":100," HI_OUT },

    { "another maker's model", "glm-5",
      "{\"model\":\"m\",\"max_tokens\":200000,\"temperature\":0.5,\"top_p\":"
      "0.9,\"output_config\":{\"effort\":\"high\"}," HI "}",
      "{\"model\":\"glm-5\",\"max_tokens\":200000,\"temperature\":0.5,"
      "\"top_p\":0.9," HI_OUT },

    { NULL, NULL, NULL, NULL }
};


static struct {
    const char  *in;
    const char  *param;
    const char  *message;
} refusals[] = {

    { "[]", NULL, "the body must be a JSON object" },
    { "{\"max_tokens\":1," HI "}", "model", "model: Field required" },
    { "{\"model\":\"m\"," HI "}", "max_tokens", "max_tokens: Field required" },
    { HEAD "\"x\":1}", "messages", "messages: Field required" },
    { HEAD "\"messages\":[]}", "messages",
      "messages: at least one message is required" },
    { HEAD "\"messages\":[{\"role\":\"user\",\"content\":\" \"}]}",
      "messages",
      "messages: at least one message with content is required" },
    { HEAD "\"messages\":[{\"role\":\"tool\",\"content\":\"\"}]}",
      "messages.0.role", "messages.0.role: unknown role \"tool\"" },
    { HEAD "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
      "\"search_result\"}]}]}", "messages.0.content.0.type",
      "messages.0.content.0.type: the provider that serves this model takes "
      "here no block of type \"search_result\"" },
    { HEAD "\"messages\":[{\"role\":\"user\",\"content\":\"x\"},{\"role\":"
      "\"assistant\",\"content\":[{\"type\":\"text\",\"text\":\"\"},"
      "{\"type\":\"server_tool_use\"}]}]}", "messages.1.content.1.type",
      "messages.1.content.1.type: the provider that serves this model takes "
      "here no block of type \"server_tool_use\"" },
    { HEAD "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
      "\"tool_result\",\"tool_use_id\":\"a\",\"content\":[{\"type\":"
      "\"tool_reference\"}]}]}]}", "messages.0.content.0.content.0.type",
      "messages.0.content.0.content.0.type: the provider that serves this "
      "model takes here no block of type \"tool_reference\"" },
    { HEAD "\"tools\":[{\"type\":\"web_search_20250305\",\"name\":"
      "\"web_search\"}]," HI "}", "tools.0.type",
      "tools.0.type: the provider that serves this model has no tools of type "
      "\"web_search_20250305\"" },
    { HEAD "\"thread\":{\"type\":\"create\"}," HI "}", "thread",
      "thread: is not supported" },
    { HEAD "\"mcp_servers\":[{}]," HI "}", "mcp_servers",
      "mcp_servers: is not supported by the provider that serves this model" },
    { HEAD "\"system\":[{\"type\":\"image\"}]," HI "}", "system.0.type",
      "system.0.type: the provider that serves this model takes here no block "
      "of type \"image\"" },
    { HEAD "\"tool_choice\":{\"type\":\"any\"}," HI "}", "tool_choice",
      "tool_choice: may only be specified while providing tools" },
    { HEAD ALPHA ",\"tool_choice\":{\"type\":\"tool\",\"name\":\"b\"}," HI
      "}", "tool_choice.name", "tool_choice.name: no tool has the name \"b\""
    },
    { HEAD "\"thinking\":{\"type\":\"enabled\"}," HI "}",
      "thinking.budget_tokens", "thinking.budget_tokens: Field required" },
    { HEAD "\"output_config\":{\"effort\":\"huge\"}," HI "}",
      "output_config.effort",
      "output_config.effort: unknown value \"huge\"" },
    { HEAD "\"tools\":[{\"name\":\"a\",\"input_schema\":{\"type\":"
      "\"string\"}}]," HI "}", "tools[0].function.parameters",
      "tools[0].function.parameters: must be a schema of type \"object\"" },
    { HEAD "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\","
      "\"source\":{\"type\":\"base64\",\"media_type\":\"image/bmp\",\"data\":"
      "\"AA\"}}]}]}", "messages[0].content[0]",
      "messages[0].content[0]: images must be jpeg, png, gif or webp for the "
      "provider that serves this model, not \"image/bmp\"" },
    { HEAD "\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\","
      "\"source\":{\"type\":\"base64\",\"media_type\":\"a\\\"b\",\"data\":"
      "\"AA\"}}]}]}", "messages.0.content.0.source.media_type",
      "messages.0.content.0.source.media_type: is not a media type" },
    { NULL, NULL, NULL }
};


static void
test_requests(void)
{
    u_char               *p;
    size_t                len;
    ngx_int_t             rc;
    ngx_str_t             s;
    ngx_uint_t            i;
    ngx_http_ai_codec_t   codec;

    for (i = 0; requests[i].name; i++) {
        p = bytes(requests[i].in, &len);

        rc = convert(p, len, requests[i].model, &s, &codec);

        if (rc != NGX_OK) {
            ok(0, "request: %s", requests[i].name);
            diag("%.*s", (int) codec.error.message.len,
                 codec.error.message.data);

        } else {
            is_str(&s, requests[i].out, requests[i].name);
        }

        free(p);
        ngx_reset_pool(pool);
    }

    for (i = 0; refusals[i].in; i++) {
        p = bytes(refusals[i].in, &len);

        rc = convert(p, len, OPUS46, &s, &codec);

        ok(rc == NGX_DECLINED, "refused: %s", refusals[i].message);

        if (rc == NGX_DECLINED) {
            is_str(&codec.error.message, refusals[i].message, "message");
            is_str(&codec.error.param,
                   refusals[i].param ? refusals[i].param : "", "param");
        }

        free(p);
        ngx_reset_pool(pool);
    }
}


/* default of max_tokens, which only other dialects leave out */

static void
test_limits(void)
{
    ngx_uint_t                 i;
    ngx_http_ai_out_t          out;
    ngx_http_ai_part_t         part;
    ngx_http_ai_turn_t         turn;
    ngx_http_ai_codec_t        codec;
    ngx_http_ai_request_t      req;
    ngx_http_ai_target_info_t  target;

    static struct {
        const char  *model;
        ngx_uint_t   stream;
        ngx_uint_t   max;
        const char  *expected;
    } cases[] = {
        { "claude-opus-5", 1, 0, "128000," },
        { "claude-opus-5-20260901", 0, 0, "16384," },
        { "claude-opus-4-7", 1, 0, "128000," },
        { "anthropic/claude-opus-4.6", 1, 0, "128000," },
        { "claude-sonnet-4-6", 1, 0, "128000," },
        { "claude-fable-5", 1, 0, "128000," },
        { "us.anthropic.claude-opus-4-5-20251101-v1:0", 1, 0, "64000," },
        { "claude-sonnet-4-20250514", 1, 0, "64000," },
        { "claude-haiku-4-5@20251001", 1, 0, "64000," },
        { "claude-opus-4-1-20250805", 1, 0, "32000," },
        { "claude-opus-4-20250514", 1, 0, "32000," },
        { "claude-3-7-sonnet-latest", 1, 0, "64000," },
        { "claude-3-5-haiku-20241022", 1, 0, "8192," },
        { "claude-3-haiku-20240307", 1, 0, "4096," },
        { "claude-2.1", 0, 0, "4096," },
        { "claude-opus-5", 0, 50000, "50000," },
        { "", 0, 0, "8192," },
        { "minimax-m3", 0, 0, "8192," },
        { NULL, 0, 0, NULL }
    };

    for (i = 0; cases[i].model; i++) {
        ngx_memzero(&req, sizeof(req));
        ngx_memzero(&turn, sizeof(turn));
        ngx_memzero(&part, sizeof(part));
        ngx_memzero(&codec, sizeof(codec));
        ngx_memzero(&target, sizeof(target));

        codec.pool = pool;
        turn.role = NGX_HTTP_AI_ROLE_USER;
        turn.parts = &part;
        ngx_str_set(&part.text, "x");
        req.turns = &turn;
        req.stream = cases[i].stream;
        target.model.data = (u_char *) cases[i].model;
        target.model.len = strlen(cases[i].model);
        target.max_output = cases[i].max;

        ngx_http_ai_out_init(&out, pool, 0);

        if (dialect->encode_request(&codec, &req, &target, &out) != NGX_OK) {
            ok(0, "%s", cases[i].model);
            continue;
        }

        *out.last = '\0';

        is_mem(strstr((char *) out.start, "\"max_tokens\":") + 13,
               strlen(cases[i].expected), cases[i].expected,
               strlen(cases[i].expected), cases[i].model);

        ngx_reset_pool(pool);
    }
}


/* what only other dialects have */

static void
test_parts(void)
{
    ngx_int_t                  rc;
    ngx_str_t                  s;
    ngx_uint_t                 i;
    ngx_http_ai_out_t          out;
    ngx_http_ai_part_t         part;
    ngx_http_ai_turn_t         turn;
    ngx_http_ai_codec_t        codec;
    ngx_http_ai_request_t      req;
    ngx_http_ai_target_info_t  target;

    static struct {
        const char             *name;
        ngx_http_ai_part_e      type;
        const char             *mime;
        const char             *data;
        const char             *args;
        ngx_uint_t              custom;
        const char             *expected;     /* of a block or a message */
    } cases[] = {
        { "file of text", NGX_HTTP_AI_PART_FILE, "text/csv", "YSwiYiIK", NULL,
          0, "{\"type\":\"document\",\"source\":{\"type\":\"text\","
             "\"media_type\":\"text/plain\",\"data\":\"a,\\\"b\\\"\\n\"}}" },
        { "file of JSON, escaped", NGX_HTTP_AI_PART_FILE, "application/json",
          "Pz8\\/", NULL, 0,
          "{\"type\":\"document\",\"source\":{\"type\":\"text\","
          "\"media_type\":\"text/plain\",\"data\":\"\?\?\?\"}}" },
        { "file that is an image", NGX_HTTP_AI_PART_FILE, "image/jpg", "AAAA",
          NULL, 0, "{\"type\":\"image\",\"source\":{\"type\":\"base64\","
                   "\"media_type\":\"image/jpeg\",\"data\":\"AAAA\"}}" },
        { "file of another kind", NGX_HTTP_AI_PART_FILE, "application/zip",
          "AAAA", NULL, 0,
          "!messages[0].content[0]: files must be PDF or text for the "
          "provider that serves this model, not \"application/zip\"" },
        { "file that is not base64", NGX_HTTP_AI_PART_FILE, "text/plain",
          "AA?A", NULL, 0,
          "!messages[0].content[0]: the data is not base64" },
        { "audio", NGX_HTTP_AI_PART_AUDIO, "wav", "AAAA", NULL, 0,
          "!messages[0].content[0]: audio is not supported by the provider "
          "that serves this model" },
        { "refusal", NGX_HTTP_AI_PART_REFUSAL, NULL, NULL, "no", 0,
          "{\"type\":\"text\",\"text\":\"no\"}" },
        { "arguments", NGX_HTTP_AI_PART_TOOL_CALL, NULL, NULL,
          " {\\\"a\\\": \\\"\\\\u00e4\\\"} ", 0,
          "{\"type\":\"tool_use\",\"id\":\"i_d\",\"name\":\"f\",\"input\":"
          "{\"a\": \"\\u00e4\"}}" },
        { "no arguments", NGX_HTTP_AI_PART_TOOL_CALL, NULL, NULL, "", 0,
          "{\"type\":\"tool_use\",\"id\":\"i_d\",\"name\":\"f\",\"input\":{}}"
        },
        { "null arguments", NGX_HTTP_AI_PART_TOOL_CALL, NULL, NULL, "null", 0,
          "{\"type\":\"tool_use\",\"id\":\"i_d\",\"name\":\"f\",\"input\":{}}"
        },
        { "free text", NGX_HTTP_AI_PART_TOOL_CALL, NULL, NULL, "a\\nb", 1,
          "{\"type\":\"tool_use\",\"id\":\"i_d\",\"name\":\"f\",\"input\":"
          "{\"input\":\"a\\nb\"}}" },
        { "cut arguments", NGX_HTTP_AI_PART_TOOL_CALL, NULL, NULL,
          "{\\\"a\\\":", 0,
          "!messages[0].tool_calls[0].function.arguments: must be the text of "
          "a JSON object" },
        { "arguments of another type", NGX_HTTP_AI_PART_TOOL_CALL, NULL, NULL,
          "[1]", 0,
          "!messages[0].tool_calls[0].function.arguments: must be the text of "
          "a JSON object" },
        { NULL, NGX_HTTP_AI_PART_TEXT, NULL, NULL, NULL, 0, NULL }
    };

    for (i = 0; cases[i].name; i++) {
        ngx_memzero(&req, sizeof(req));
        ngx_memzero(&turn, sizeof(turn));
        ngx_memzero(&part, sizeof(part));
        ngx_memzero(&codec, sizeof(codec));
        ngx_memzero(&target, sizeof(target));

        codec.pool = pool;
        turn.role = NGX_HTTP_AI_ROLE_USER;
        turn.parts = &part;
        req.turns = &turn;
        ngx_str_set(&target.model, "m");

        part.type = cases[i].type;
        part.custom = cases[i].custom;
        ngx_str_set(&part.id, "i.d");

        if (cases[i].mime) {
            part.mime.data = (u_char *) cases[i].mime;
            part.mime.len = strlen(cases[i].mime);
            part.data.data = (u_char *) cases[i].data;
            part.data.len = strlen(cases[i].data);

        } else if (part.type == NGX_HTTP_AI_PART_REFUSAL) {
            part.text.data = (u_char *) cases[i].args;
            part.text.len = strlen(cases[i].args);

        } else {
            ngx_str_set(&part.name, "f");
            part.args_text.data = (u_char *) cases[i].args;
            part.args_text.len = strlen(cases[i].args);
        }

        ngx_http_ai_out_init(&out, pool, 0);

        rc = dialect->encode_request(&codec, &req, &target, &out);

        if (cases[i].expected[0] == '!') {
            ok(rc == NGX_DECLINED, "%s", cases[i].name);
            is_str(&codec.error.message, cases[i].expected + 1, "message");

        } else if (rc != NGX_OK) {
            ok(0, "%s", cases[i].name);

        } else {
            s.data = (u_char *) strstr((char *) out.start, "\"content\":[")
                     + 11;
            s.len = out.last - s.data - 4;

            is_str(&s, cases[i].expected, cases[i].name);
        }

        ngx_reset_pool(pool);
    }

    /* instructions alone, and the one for JSON */

    ngx_memzero(&req, sizeof(req));
    ngx_memzero(&turn, sizeof(turn));
    ngx_memzero(&part, sizeof(part));

    turn.role = NGX_HTTP_AI_ROLE_DEVELOPER;
    turn.parts = &part;
    ngx_str_set(&part.text, "do");
    req.turns = &turn;
    req.format = NGX_HTTP_AI_FORMAT_JSON;

    ngx_http_ai_out_init(&out, pool, 0);

    is_int(dialect->encode_request(&codec, &req, &target, &out), NGX_OK,
           "only instructions");

    s = written(&out);

    is_str(&s, "{\"model\":\"m\",\"max_tokens\":8192,\"system\":[{\"type\":"
           "\"text\",\"text\":\"Respond with a single JSON object and nothing "
           "else.\"}],\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":"
           "\"text\",\"text\":\"do\"}]}]}", "are asked");

    ngx_reset_pool(pool);
}


#define START  "{\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\","   \
               "\"model\":\"c\",\"usage\":{\"input_tokens\":3,"               \
               "\"output_tokens\":1}}}\n"
#define BEGUN  "start msg_1 c|usage 3 -1 -1 -1 1 -1"
#define STOP   "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"      \
               "\"end_turn\",\"stop_sequence\":null},\"usage\":"              \
               "{\"output_tokens\":9}}\n{\"type\":\"message_stop\"}\n"
#define ENDED  "|finish 1|usage 3 -1 -1 -1 9 -1|end"


static struct {
    const char  *name;
    const char  *in;
    const char  *out;
} streams[] = {

    { "text",
      START "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":"
      "{\"type\":\"text\",\"text\":\"\"}}\n{\"type\": \"ping\"}\n"
      "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
      "\"text_delta\",\"text\":\"a\\n\"}}\n"
      "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"text\":"
      "\"b\",\"type\":\"text_delta\"}}\n"
      "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
      "\"text_delta\",\"text\":\"\"}}\n"
      "{\"type\":\"content_block_stop\",\"index\":0}\n" STOP,
      BEGUN "|text a\\n|text b" ENDED },

    { "text in the start",
      START "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":"
      "{\"type\":\"text\",\"text\":\"hi\"}}\n" STOP,
      BEGUN "|text hi" ENDED },

    { "second start",
      START START "{\"type\":\"content_block_start\",\"index\":0,"
      "\"content_block\":{\"type\":\"text\",\"text\":\"hi\"}}\n" START
      "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
      "\"text_delta\",\"text\":\"a\"}}\n" STOP,
      BEGUN "|text hi|text a" ENDED },

    { "calls",
      START "{\"type\":\"content_block_start\",\"index\":1,\"content_block\":"
      "{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"f\",\"input\":{}}}\n"
      "{\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":"
      "\"input_json_delta\",\"partial_json\":\"\"}}\n"
      "{\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":"
      "\"input_json_delta\",\"partial_json\":\"{\\\"a\\\"\"}}\n"
      "{\"type\":\"content_block_delta\",\"index\":1,\"delta\":{\"type\":"
      "\"input_json_delta\",\"partial_json\":\":1}\"}}\n"
      "{\"type\":\"content_block_stop\",\"index\":1}\n"
      "{\"type\":\"content_block_start\",\"index\":12,\"content_block\":"
      "{\"type\":\"tool_use\",\"id\":\"t2\",\"name\":\"g\",\"input\":{}}}\n"
      "{\"type\":\"content_block_stop\",\"index\":12}\n" STOP,
      BEGUN "|tool 0 t1 f|args 0 {\\\"a\\\"|args 0 :1}|/tool 0|tool 1 t2 g"
      "|args 1 {}|/tool 1" ENDED },

    { "input in the start",
      START "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":"
      "{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"f\",\"input\":"
      "{\"a\":\"b\\n\"}}}\n{\"type\":\"content_block_stop\",\"index\":0}\n"
      "{\"type\":\"content_block_start\",\"index\":1,\"content_block\":"
      "{\"type\":\"tool_use\",\"id\":\"t2\",\"name\":\"f\",\"input\":"
      "{\"x\":1}}}\n{\"type\":\"content_block_delta\",\"index\":1,\"delta\":"
      "{\"type\":\"input_json_delta\",\"partial_json\":\"{}\"}}\n" STOP,
      BEGUN "|tool 0 t1 f|args 0 {\\\"a\\\":\\\"b\\\\n\\\"}|/tool 0"
      "|tool 1 t2 f|args 1 {}|/tool 1" ENDED },

    { "thoughts",
      START "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":"
      "{\"type\":\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}\n"
      "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
      "\"thinking_delta\",\"thinking\":\"hm\"}}\n"
      "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
      "\"signature_delta\",\"signature\":\"sig\"}}\n"
      "{\"type\":\"content_block_stop\",\"index\":0}\n"
      "{\"type\":\"content_block_start\",\"index\":1,\"content_block\":"
      "{\"type\":\"redacted_thinking\",\"data\":\"enc\"}}\n" STOP,
      BEGUN "|reasoning hm|signature sig|redacted enc" ENDED },

    { "the provider's own tools",
      START "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":"
      "{\"type\":\"server_tool_use\",\"id\":\"s\",\"name\":\"web_search\","
      "\"input\":{}}}\n{\"type\":\"content_block_delta\",\"index\":0,"
      "\"delta\":{\"type\":\"input_json_delta\",\"partial_json\":\"{}\"}}\n"
      "{\"type\":\"content_block_stop\",\"index\":0}\n"
      "{\"type\":\"content_block_start\",\"index\":1,\"content_block\":"
      "{\"type\":\"web_search_tool_result\",\"content\":[]}}\n"
      "{\"type\":\"content_block_stop\",\"index\":1}\n"
      "{\"type\":\"content_block_start\",\"index\":2,\"content_block\":"
      "{\"type\":\"text\",\"text\":\"\\u00e4b\"}}\n"
      "{\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"type\":"
      "\"citations_delta\",\"citation\":{\"type\":"
      "\"web_search_result_location\",\"url\":\"http://a/\",\"title\":\"A\"}}"
      "}\n{\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"type\":"
      "\"citations_delta\",\"citation\":{\"type\":\"char_location\"}}}\n"
      "{\"type\":\"content_block_delta\",\"index\":2,\"delta\":{\"type\":"
      "\"new_delta\",\"text\":\"x\"}}\n{\"type\":\"new_event\"}\n" STOP,
      BEGUN "|text \\u00e4b|cite {\"type\":\"url_citation\",\"url_citation\":"
      "{\"url\":\"http://a/\",\"title\":\"A\",\"start_index\":2,"
      "\"end_index\":2}}" ENDED },

    { "corrected usage",
      START "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":null},"
      "\"usage\":{\"output_tokens\":4}}\n"
      "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"
      "\"stop_sequence\",\"stop_sequence\":\"END\"},\"usage\":"
      "{\"input_tokens\":61,\"cache_read_input_tokens\":5,"
      "\"cache_creation_input_tokens\":6,\"cache_creation\":"
      "{\"ephemeral_1h_input_tokens\":2},\"output_tokens\":7,"
      "\"output_tokens_details\":{\"thinking_tokens\":3},\"service_tier\":"
      "\"standard\"}}\n{\"type\":\"message_stop\"}\n",
      BEGUN "|usage 3 -1 -1 -1 4 -1|finish 2 END|usage 61 5 6 2 7 3 standard"
      "|end" },

    { "iterations",
      START "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":"
      "\"max_tokens\"},\"usage\":{\"input_tokens\":1,\"output_tokens\":2,"
      "\"iterations\":[{\"input_tokens\":10,\"output_tokens\":20},"
      "{\"input_tokens\":1,\"output_tokens\":2}]}}\n"
      "{\"type\":\"message_stop\"}\n",
      BEGUN "|finish 3|usage 11 -1 -1 -1 22 -1|end" },

    { "error",
      START "{\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\","
      "\"message\":\"Overloaded\"}}\n" STOP,
      BEGUN "|error overloaded Overloaded" },

    { "no start",
      "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
      "\"text_delta\",\"text\":\"a\"}}\n" STOP,
      "start  |text a|finish 1|usage -1 -1 -1 -1 9 -1|end" },

    { "unknown reason, and cut",
      "{\"type\":\"message_start\",\"message\":{}}\n"
      "{\"type\":\"content_block_start\",\"index\":0,\"content_block\":"
      "{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"f\",\"input\":{}}}\n"
      "{\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"new\"}}\n",
      "start  |tool 0 t1 f|args 0 {}|/tool 0|finish 10|end" },

    { NULL, NULL, NULL }
};


static void
test_streams(void)
{
    u_char                 *p;
    size_t                  len;
    ngx_int_t               rc;
    ngx_str_t               s, name;
    ngx_uint_t              i;
    ngx_http_ai_decoder_t   dec;

    static const char  *bad[] = {
        "", "{", "[]", "1", "{}", "{\"type\":1}", "{\"type\":\"ping\"", NULL
    };

    fold_to = NULL;
    encode_to = NULL;

    for (i = 0; streams[i].name; i++) {
        ngx_http_ai_out_init(&dump, pool, 64);
        decoder(&dec, NGX_HTTP_AI_OP_CHAT);

        p = bytes(streams[i].in, &len);

        rc = decode_lines(&dec, p, len);
        is_int(rc, NGX_OK, streams[i].name);

        free(p);

        (void) dialect->decode_finish(&dec);

        s = written(&dump);
        is_str(&s, streams[i].out, "events");

        ngx_reset_pool(pool);
    }

    ngx_str_null(&name);

    for (i = 0; bad[i]; i++) {
        ngx_http_ai_out_init(&dump, pool, 64);
        decoder(&dec, NGX_HTTP_AI_OP_CHAT);

        s.data = bytes(bad[i], &s.len);

        is_int(dialect->decode_event(&dec, &name, &s), NGX_DECLINED,
               "bad event");
        ok(dec.error.class == NGX_HTTP_AI_ERR_INVALID_ANSWER
           && dec.error.message.len != 0, "has a reason");
        is_int(dialect->decode_finish(&dec), NGX_DECLINED, "is not complete");

        free(s.data);
        ngx_reset_pool(pool);
    }
}


static struct {
    const char        *name;
    ngx_http_ai_op_e   op;
    const char        *in;
    const char        *out;
} bodies[] = {

    { "message", NGX_HTTP_AI_OP_CHAT,
      "{\"id\":\"msg_1\",\"type\":\"message\",\"model\":\"c\",\"content\":["
      "{\"type\":\"thinking\",\"thinking\":\"hm\",\"signature\":\"s\"},"
      "{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"tool_use\",\"id\":\"t\","
      "\"name\":\"f\",\"input\":{\"x\":[1]}},{\"type\":\"tool_use\",\"id\":"
      "\"u\",\"name\":\"g\",\"input\":{}}],\"stop_reason\":\"tool_use\","
      "\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}",
      "start msg_1 c|reasoning hm|signature s|text a|tool 0 t f"
      "|args 0 {\\\"x\\\":[1]}|/tool 0|tool 1 u g|args 1 {}|/tool 1"
      "|finish 4|usage 1 -1 -1 -1 2 -1|end" },

    { "citations", NGX_HTTP_AI_OP_CHAT,
      "{\"content\":[{\"type\":\"web_search_tool_result\"},{\"type\":\"text\","
      "\"text\":\"abc\"},{\"type\":\"text\",\"text\":\"de\",\"citations\":["
      "{\"type\":\"web_search_result_location\",\"url\":\"u\",\"title\":null}]"
      "}],\"stop_reason\":\"pause_turn\"}",
      "start  |text abc|text de|cite {\"type\":\"url_citation\","
      "\"url_citation\":{\"url\":\"u\",\"title\":\"\",\"start_index\":3,"
      "\"end_index\":5}}|finish 8|end" },

    { "count", NGX_HTTP_AI_OP_COUNT_TOKENS, "{\"input_tokens\":42}",
      "start  |usage 42 -1 -1 -1 -1 -1|end" },

    { "error", NGX_HTTP_AI_OP_CHAT,
      "{\"type\":\"error\",\"error\":{\"type\":\"rate_limit_error\","
      "\"message\":\"slow\"}}",
      "error rate_limit slow" },

    { "not one", NGX_HTTP_AI_OP_CHAT, "{\"choices\":[]}", NULL },
    { "not an object", NGX_HTTP_AI_OP_CHAT, "[]", NULL },
    { "not JSON", NGX_HTTP_AI_OP_CHAT, "<html>", NULL },
    { "nothing", NGX_HTTP_AI_OP_CHAT, "", NULL },
    { "no count", NGX_HTTP_AI_OP_COUNT_TOKENS, "{\"content\":[]}", NULL },
    { NULL, NGX_HTTP_AI_OP_NONE, NULL, NULL }
};


static void
test_bodies(void)
{
    u_char                 *p;
    size_t                  len;
    ngx_int_t               rc;
    ngx_str_t               s;
    ngx_uint_t              i;
    ngx_http_ai_decoder_t   dec;

    for (i = 0; bodies[i].name; i++) {
        ngx_http_ai_out_init(&dump, pool, 64);
        decoder(&dec, bodies[i].op);

        p = bytes(bodies[i].in, &len);

        rc = dialect->decode_body(&dec, p, len);

        free(p);

        if (bodies[i].out == NULL) {
            is_int(rc, NGX_DECLINED, bodies[i].name);
            continue;
        }

        is_int(rc, NGX_OK, bodies[i].name);

        s = written(&dump);
        is_str(&s, bodies[i].out, "events");

        ngx_reset_pool(pool);
    }
}


/* events written as above, one a word */

static ngx_int_t
play(ngx_http_ai_encoder_t *enc, const char *script)
{
    char                 *line, *arg, *copy, *next;
    ngx_int_t             rc;
    ngx_http_ai_event_t   ev;
    ngx_http_ai_error_t   err;
    ngx_http_ai_usage_t   usage;

    copy = strdup(script);
    rc = NGX_OK;

    for (line = copy; line && *line && rc == NGX_OK; line = next) {
        next = strchr(line, '|');

        if (next) {
            *next++ = '\0';
        }

        ngx_memzero(&ev, sizeof(ev));

        arg = line + 2;

        if (line[0] && line[1] >= '0' && line[1] <= '9') {
            ev.index = line[1] - '0';
            arg = line + 3;
        }

        ev.text.data = (u_char *) arg;
        ev.text.len = (strlen(line) > (size_t) (arg - line)) ? strlen(arg)
                                                             : 0;

        switch (line[0]) {

        case 's':
            ev.type = NGX_HTTP_AI_EV_START;
            ev.id = ev.text;
            ngx_str_set(&ev.model, "c");
            break;

        case 't':
            ev.type = NGX_HTTP_AI_EV_TEXT;
            break;

        case 'r':
            ev.type = NGX_HTTP_AI_EV_REASONING;
            break;

        case 'g':
            ev.type = NGX_HTTP_AI_EV_SIGNATURE;
            break;

        case 'd':
            ev.type = NGX_HTTP_AI_EV_REDACTED;
            break;

        case 'n':
            ev.type = NGX_HTTP_AI_EV_REFUSAL;
            break;

        case 'c':
            ev.type = NGX_HTTP_AI_EV_TOOL_START;
            ev.id = ev.text;
            ngx_str_set(&ev.name, "f");
            break;

        case 'a':
            ev.type = NGX_HTTP_AI_EV_TOOL_ARGS;
            break;

        case 'e':
            ev.type = NGX_HTTP_AI_EV_TOOL_END;
            break;

        case 'f':
            ev.type = NGX_HTTP_AI_EV_FINISH;
            ev.finish = ev.index;
            break;

        case 'u':
            ngx_http_ai_usage_init(&usage);
            usage.in_fresh = 5;
            usage.cache_read = 2;
            usage.cache_write = 3;
            usage.out = 9;
            ev.type = NGX_HTTP_AI_EV_USAGE;
            ev.usage = &usage;
            break;

        case 'x':
            ngx_memzero(&err, sizeof(err));
            err.class = NGX_HTTP_AI_ERR_OVERLOADED;
            err.message = ev.text;
            ev.type = NGX_HTTP_AI_EV_ERROR;
            ev.error = &err;
            break;

        case 'z':
            ev.type = NGX_HTTP_AI_EV_END;
            break;

        case 'o':
            ev.type = NGX_HTTP_AI_EV_TEXT;
            ev.choice = 1;
            ngx_str_set(&ev.text, "other");
            break;
        }

        rc = dialect->encode_event(enc, &ev);

        memset(line, 'x', strlen(line));
    }

    free(copy);

    return rc;
}


/* "NAME: JSON" for each event, with what is always the same left out */

static void
short_form(ngx_str_t *in, ngx_http_ai_out_t *out)
{
    u_char                   *pos, *p;
    ngx_str_t                 s;
    ngx_http_ai_sse_t         sse;
    ngx_http_ai_sse_event_t   ev;

    ngx_memzero(&sse, sizeof(sse));
    sse.pool = pool;

    pos = in->data;

    while (ngx_http_ai_sse_read(&sse, &pos, in->data + in->len, &ev)
           == NGX_OK)
    {
        s = ev.data;

        p = ngx_http_ai_json_skip_space(s.data, s.data + s.len);

        if (out->last != out->start) {
            ngx_http_ai_out_lit(out, "\n");
        }

        ngx_http_ai_out_str(out, &ev.name);

        /* the type must be that of the event's name */

        if (s.len < ev.name.len + 10
            || memcmp(p, "{\"type\":\"", 9) != 0
            || memcmp(p + 9, ev.name.data, ev.name.len) != 0)
        {
            ngx_http_ai_out_lit(out, " BAD");
            continue;
        }

        ngx_http_ai_out_lit(out, " ");
        ngx_http_ai_out_mem(out, p + 10 + ev.name.len,
                            s.len - 10 - ev.name.len);
    }
}


#define OUT_START                                                             \
    "message_start ,\"message\":{\"id\":\"msg_1\",\"type\":\"message\","      \
    "\"role\":\"assistant\",\"model\":\"c\",\"content\":[],"                  \
    "\"stop_reason\":null,\"stop_sequence\":null,\"usage\":"                  \
    "{\"input_tokens\":7,\"cache_creation_input_tokens\":0,"                  \
    "\"cache_read_input_tokens\":0,\"output_tokens\":0}}}\n"

#define OUT_TEXT(i)                                                           \
    "content_block_start ,\"index\":" i ",\"content_block\":{\"type\":"       \
    "\"text\",\"text\":\"\"}}\n"

#define OUT_TOOL(i, id)                                                       \
    "content_block_start ,\"index\":" i ",\"content_block\":{\"type\":"       \
    "\"tool_use\",\"id\":\"" id "\",\"name\":\"f\",\"input\":{}}}\n"

#define OUT_DELTA(i, type, member, text)                                      \
    "content_block_delta ,\"index\":" i ",\"delta\":{\"type\":\"" type        \
    "\",\"" member "\":\"" text "\"}}\n"

#define OUT_ARGS(i, text)                                                     \
    OUT_DELTA(i, "input_json_delta", "partial_json", text)

#define OUT_STOP(i)  "content_block_stop ,\"index\":" i "}\n"

#define OUT_END(reason, sequence, usage)                                      \
    "message_delta ,\"delta\":{\"stop_reason\":\"" reason                     \
    "\",\"stop_sequence\":" sequence "},\"usage\":{" usage "}}\n"             \
    "message_stop }"

#define OUT_USAGE                                                             \
    "\"input_tokens\":5,\"cache_creation_input_tokens\":3,"                   \
    "\"cache_read_input_tokens\":2,\"output_tokens\":9"

#define OUT_NO_USAGE                                                          \
    "\"input_tokens\":7,\"cache_creation_input_tokens\":0,"                   \
    "\"cache_read_input_tokens\":0,\"output_tokens\":0"


static struct {
    const char  *name;
    const char  *script;
    const char  *events;
    const char  *content;
    const char  *stop;
} replies[] = {

    { "text",
      "s msg_1|t |t a|o|t b\\n|f1|u|z|t late",
      OUT_START OUT_TEXT("0") OUT_DELTA("0", "text_delta", "text", "a")
      OUT_DELTA("0", "text_delta", "text", "b\\n") OUT_STOP("0")
      OUT_END("end_turn", "null", OUT_USAGE),
      "{\"type\":\"text\",\"text\":\"ab\\n\"}", "end_turn" },

    { "nothing",
      "s msg_1|z",
      OUT_START OUT_END("end_turn", "null", OUT_NO_USAGE), "", "end_turn" },

    { "thoughts, text and a call",
      "s msg_1|r x|r y|g sig|r z|d enc|t a|c0 t0|a0 {}|e0|f1|u|z",
      OUT_START
      "content_block_start ,\"index\":0,\"content_block\":{\"type\":"
      "\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}\n"
      OUT_DELTA("0", "thinking_delta", "thinking", "x")
      OUT_DELTA("0", "thinking_delta", "thinking", "y")
      OUT_DELTA("0", "signature_delta", "signature", "sig") OUT_STOP("0")
      "content_block_start ,\"index\":1,\"content_block\":{\"type\":"
      "\"thinking\",\"thinking\":\"\",\"signature\":\"\"}}\n"
      OUT_DELTA("1", "thinking_delta", "thinking", "z") OUT_STOP("1")
      "content_block_start ,\"index\":2,\"content_block\":{\"type\":"
      "\"redacted_thinking\",\"data\":\"enc\"}}\n" OUT_STOP("2")
      OUT_TEXT("3") OUT_DELTA("3", "text_delta", "text", "a") OUT_STOP("3")
      OUT_TOOL("4", "t0") OUT_ARGS("4", "{}") OUT_STOP("4")
      OUT_END("tool_use", "null", OUT_USAGE),
      "{\"type\":\"thinking\",\"thinking\":\"xy\",\"signature\":\"sig\"},"
      "{\"type\":\"thinking\",\"thinking\":\"z\",\"signature\":\"\"},"
      "{\"type\":\"redacted_thinking\",\"data\":\"enc\"},"
      "{\"type\":\"text\",\"text\":\"a\"},"
      "{\"type\":\"tool_use\",\"id\":\"t0\",\"name\":\"f\",\"input\":{}}",
      "tool_use" },

    { "calls at the same time",
      "s msg_1|c0 t0|c1 t1|a0 {|a1 {\\\"a\\\"|c2 t2|a0 }|a1 :1|a2 {}|e2|e0"
      "|a1 }|e1|f4|z",
      OUT_START OUT_TOOL("0", "t0") OUT_ARGS("0", "{") OUT_ARGS("0", "}")
      OUT_STOP("0") OUT_TOOL("1", "t1") OUT_ARGS("1", "{\\\"a\\\":1")
      OUT_ARGS("1", "}") OUT_STOP("1") OUT_TOOL("2", "t2")
      OUT_ARGS("2", "{}") OUT_STOP("2")
      OUT_END("tool_use", "null", OUT_NO_USAGE),
      "{\"type\":\"tool_use\",\"id\":\"t0\",\"name\":\"f\",\"input\":{}},"
      "{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"f\",\"input\":"
      "{\"a\":1}},"
      "{\"type\":\"tool_use\",\"id\":\"t2\",\"name\":\"f\",\"input\":{}}",
      "tool_use" },

    { "calls that never end",
      "s msg_1|c0 t0|c1 t1|a1 {}|f1|z",
      OUT_START OUT_TOOL("0", "t0") OUT_STOP("0") OUT_TOOL("1", "t1")
      OUT_ARGS("1", "{}") OUT_STOP("1")
      OUT_END("tool_use", "null", OUT_NO_USAGE),
      "{\"type\":\"tool_use\",\"id\":\"t0\",\"name\":\"f\",\"input\":{}},"
      "{\"type\":\"tool_use\",\"id\":\"t1\",\"name\":\"f\",\"input\":{}}",
      "tool_use" },

    { "a call without an id, arguments that are no object",
      "s msg_1|c0|a0 [1]|e0|t x|f4|z",
      OUT_START OUT_TOOL("0", "toolu_0123_0") OUT_ARGS("0", "[1]")
      OUT_STOP("0") OUT_TEXT("1") OUT_DELTA("1", "text_delta", "text", "x")
      OUT_STOP("1") OUT_END("tool_use", "null", OUT_NO_USAGE),
      "{\"type\":\"tool_use\",\"id\":\"toolu_0123_0\",\"name\":\"f\","
      "\"input\":{\"_raw\":\"[1]\"}},{\"type\":\"text\",\"text\":\"x\"}",
      "tool_use" },

    { "a call that was only said",
      "s msg_1|t x|f4|z",
      OUT_START OUT_TEXT("0") OUT_DELTA("0", "text_delta", "text", "x")
      OUT_STOP("0") OUT_END("end_turn", "null", OUT_NO_USAGE),
      "{\"type\":\"text\",\"text\":\"x\"}", "end_turn" },

    { "refusal",
      "s msg_1|n no|f1|z",
      OUT_START OUT_TEXT("0") OUT_DELTA("0", "text_delta", "text", "no")
      OUT_STOP("0") OUT_END("refusal", "null", OUT_NO_USAGE),
      "{\"type\":\"text\",\"text\":\"no\"}", "refusal" },

    { "stop sequence",
      "s msg_1|f2 END\\n|f3|z",
      OUT_START OUT_END("stop_sequence", "\"END\\n\"", OUT_NO_USAGE),
      "", "stop_sequence" },

    { "length",
      "s msg_1|f3|z",
      OUT_START OUT_END("max_tokens", "null", OUT_NO_USAGE),
      "", "max_tokens" },

    { "context",
      "s msg_1|f7|z",
      OUT_START OUT_END("model_context_window_exceeded", "null",
                        OUT_NO_USAGE),
      "", "model_context_window_exceeded" },

    { "error",
      "s msg_1|t x|x down|z",
      OUT_START OUT_TEXT("0") OUT_DELTA("0", "text_delta", "text", "x")
      "error ,\"error\":{\"type\":\"overloaded_error\",\"message\":\"down\"}"
      ",\"request_id\":null}", NULL, NULL },

    { "finished by an error",
      "s msg_1|f9|z",
      OUT_START "error ,\"error\":{\"type\":\"api_error\",\"message\":\"the "
      "provider ended the answer with an error\"},\"request_id\":null}",
      NULL, NULL },

    { NULL, NULL, NULL, NULL, NULL }
};


static void
test_replies(void)
{
    ngx_int_t              rc;
    ngx_str_t              s;
    ngx_uint_t             i, n;
    ngx_http_ai_out_t      out, brief;
    ngx_http_ai_json_t     j;
    ngx_http_ai_encoder_t  enc;

    for (i = 0; replies[i].name; i++) {
        encoder(&enc, &out, 1);
        ngx_http_ai_out_init(&brief, pool, 0);

        rc = play(&enc, replies[i].script);
        is_int(rc, NGX_OK, replies[i].name);

        s = written(&out);
        short_form(&s, &brief);

        s = written(&brief);
        is_str(&s, replies[i].events, "events");

        ngx_reset_pool(pool);

        if (replies[i].content == NULL) {
            continue;
        }

        encoder(&enc, &out, 0);

        rc = play(&enc, replies[i].script);
        is_int(rc, NGX_OK, "gathered");

        ngx_memzero(&j, sizeof(j));
        j.pool = pool;

        s = written(&out);

        if (!ok(ngx_http_ai_json_parse(&j, s.data, s.len) == NGX_OK,
                "is JSON"))
        {
            continue;
        }

        n = ngx_http_ai_json_member(&j, 0, "content");
        s = ngx_http_ai_json_raw(&j, n);
        s.data++;
        s.len -= 2;

        is_str(&s, replies[i].content, "content");

        s = ngx_http_ai_json_raw(&j, ngx_http_ai_json_member(&j, 0,
                                                             "stop_reason"));
        is_str(&s, replies[i].stop, "stop_reason");

        ngx_reset_pool(pool);
    }

    /* an id of another kind is replaced; no start at all */

    encoder(&enc, &out, 0);
    play(&enc, "s chatcmpl-1|t x|f1|u|z");
    s = written(&out);
    is_str(&s, "{\"id\":\"msg_0123\",\"type\":\"message\",\"role\":"
           "\"assistant\",\"model\":\"c\",\"content\":[{\"type\":\"text\","
           "\"text\":\"x\"}],\"stop_reason\":\"end_turn\",\"stop_sequence\":"
           "null,\"usage\":{" OUT_USAGE "}}", "foreign id");

    encoder(&enc, &out, 0);
    play(&enc, "t x|z");
    s = written(&out);
    is_str(&s, "{\"id\":\"msg_0123\",\"type\":\"message\",\"role\":"
           "\"assistant\",\"model\":\"asked\",\"content\":[{\"type\":\"text\","
           "\"text\":\"x\"}],\"stop_reason\":\"end_turn\",\"stop_sequence\":"
           "null,\"usage\":{" OUT_NO_USAGE "}}", "no start");

    encoder(&enc, &out, 0);
    enc.op = NGX_HTTP_AI_OP_COUNT_TOKENS;
    play(&enc, "u|z");
    s = written(&out);
    is_str(&s, "{\"input_tokens\":10}", "count of tokens");

    ngx_reset_pool(pool);
}


static void
test_errors(void)
{
    ngx_str_t            s, names[2];
    ngx_http_ai_out_t    out;
    ngx_http_ai_error_t  err;

    ngx_memzero(&err, sizeof(err));

    err.class = NGX_HTTP_AI_ERR_CONTEXT_LENGTH;
    err.status = 400;
    ngx_str_set(&err.message, "maximum context length is 1");
    ngx_str_set(&err.request_id, "req_1");

    ngx_http_ai_out_init(&out, pool, 0);
    dialect->encode_error(&out, &err, 0);
    s = written(&out);
    is_str(&s, "{\"type\":\"error\",\"error\":{\"type\":"
           "\"invalid_request_error\",\"message\":\"prompt is too long: "
           "maximum context length is 1\"},\"request_id\":\"req_1\"}",
           "context length");

    ngx_str_set(&err.message, "Prompt is too long: 2 > 1");
    err.class = NGX_HTTP_AI_ERR_CONTEXT_LENGTH;

    ngx_http_ai_out_init(&out, pool, 0);
    dialect->encode_stream_error(&out, &err);
    s = written(&out);
    is_str(&s, "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":"
           "\"invalid_request_error\",\"message\":\"Prompt is too long: 2 > 1"
           "\"},\"request_id\":\"req_1\"}\n\n", "in a stream");

    err.class = NGX_HTTP_AI_ERR_RATE_LIMIT;
    err.status = 409;
    ngx_str_set(&err.type, "conflict_error");
    ngx_str_null(&err.message);

    ngx_http_ai_out_init(&out, pool, 0);
    dialect->encode_error(&out, &err, 1);
    s = written(&out);
    is_str(&s, "{\"type\":\"error\",\"error\":{\"type\":\"conflict_error\","
           "\"message\":\"rate_limit\"},\"request_id\":\"req_1\"}",
           "the provider's own type");

    err.class = NGX_HTTP_AI_ERR_AUTH;
    err.status = 502;
    ngx_str_set(&err.message, "a\"b\n");

    ngx_http_ai_out_init(&out, pool, 0);
    dialect->encode_error(&out, &err, 1);
    s = written(&out);
    is_str(&s, "{\"type\":\"error\",\"error\":{\"type\":\"api_error\","
           "\"message\":\"a\\\"b\\n\"},\"request_id\":\"req_1\"}",
           "the gateway's key");

    ngx_str_set(&names[0], "a\"");
    ngx_str_set(&names[1], "b");

    ngx_http_ai_out_init(&out, pool, 0);
    dialect->encode_models(&out, names, 2, 1709210096, 0);
    s = written(&out);
    is_str(&s, "{\"data\":[{\"type\":\"model\",\"id\":\"a\\\"\","
           "\"display_name\":\"a\\\"\",\"created_at\":"
           "\"2024-02-29T12:34:56Z\"},{\"type\":\"model\",\"id\":\"b\","
           "\"display_name\":\"b\",\"created_at\":\"2024-02-29T12:34:56Z\"}],"
           "\"has_more\":false,\"first_id\":\"a\\\"\",\"last_id\":\"b\"}",
           "models");

    ngx_http_ai_out_init(&out, pool, 0);
    dialect->encode_models(&out, names + 1, 1, 0, 1);
    s = written(&out);
    is_str(&s, "{\"type\":\"model\",\"id\":\"b\",\"display_name\":\"b\","
           "\"created_at\":\"1970-01-01T00:00:00Z\"}", "model");

    ngx_http_ai_out_init(&out, pool, 0);
    dialect->encode_models(&out, NULL, 0, 0, 0);
    s = written(&out);
    is_str(&s, "{\"data\":[],\"has_more\":false,\"first_id\":null,"
           "\"last_id\":null}", "no models");

    ngx_reset_pool(pool);
}


/* the same from the JSON alone */

static int64_t
number(ngx_http_ai_json_t *j, ngx_uint_t obj, const char *name)
{
    int64_t  v;

    if (ngx_http_ai_json_int(j, ngx_http_ai_json_get(j, obj, name,
                                                     strlen(name)), &v)
        != NGX_OK)
    {
        return -1;
    }

    return v;
}


static void
expect_string(ngx_http_ai_json_t *j, ngx_uint_t obj, const char *name,
    ngx_http_ai_out_t *out, ngx_uint_t unescape)
{
    ngx_str_t   s;
    ngx_uint_t  n;

    n = ngx_http_ai_json_get(j, obj, name, strlen(name));

    if (ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_STRING) {
        return;
    }

    s = ngx_http_ai_json_raw(j, n);

    if (unescape) {
        ngx_http_ai_out_unescaped(out, &s);

    } else {
        ngx_http_ai_out_str(out, &s);
    }
}


static void
expect_usage(ngx_http_ai_json_t *j, ngx_uint_t n, fold_t *f)
{
    int64_t     in, out, v;
    ngx_uint_t  i, it;

    if (ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_OBJECT) {
        return;
    }

    in = number(j, n, "input_tokens");
    out = number(j, n, "output_tokens");

    it = ngx_http_ai_json_member(j, n, "iterations");

    if (ngx_http_ai_json_type(j, it) == NGX_HTTP_AI_JSON_ARRAY
        && j->nodes[it].count)
    {
        in = 0;
        out = 0;

        for (i = ngx_http_ai_json_first(j, it);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, it, i))
        {
            in += number(j, i, "input_tokens");
            out += number(j, i, "output_tokens");
        }
    }

    f->usage.in_fresh = (in >= 0) ? in : f->usage.in_fresh;
    f->usage.out = (out >= 0) ? out : f->usage.out;

    v = number(j, n, "cache_read_input_tokens");
    f->usage.cache_read = (v >= 0) ? v : f->usage.cache_read;

    v = number(j, n, "cache_creation_input_tokens");
    f->usage.cache_write = (v >= 0) ? v : f->usage.cache_write;
}


static void
expect_block(ngx_http_ai_json_t *j, ngx_uint_t n, fold_t *f)
{
    ngx_str_t   type, s;
    ngx_uint_t  v;

    type = ngx_http_ai_json_raw(j, ngx_http_ai_json_member(j, n, "type"));

    if (ngx_http_ai_str_is(&type, "text")) {
        expect_string(j, n, "text", &f->text, 1);

    } else if (ngx_http_ai_str_is(&type, "thinking")) {
        expect_string(j, n, "thinking", &f->reasoning, 1);
        expect_string(j, n, "signature", &f->signature, 0);

    } else if (ngx_http_ai_str_is(&type, "redacted_thinking")) {
        expect_string(j, n, "data", &f->redacted, 0);

    } else if (ngx_http_ai_str_is(&type, "tool_use")
               && f->ntools < MAX_TOOLS)
    {
        s = ngx_http_ai_json_raw(j, ngx_http_ai_json_member(j, n, "id"));
        f->id[f->ntools] = keep(&s);
        s = ngx_http_ai_json_raw(j, ngx_http_ai_json_member(j, n, "name"));
        f->name[f->ntools] = keep(&s);

        v = ngx_http_ai_json_member(j, n, "input");

        if (ngx_http_ai_json_type(j, v) == NGX_HTTP_AI_JSON_OBJECT
            && j->nodes[v].count)
        {
            s = ngx_http_ai_json_raw(j, v);
            ngx_http_ai_out_str(&f->args[f->ntools], &s);
        }

        f->ntools++;
    }
}


static void
expect_stop(ngx_http_ai_json_t *j, ngx_uint_t n, fold_t *f)
{
    ngx_str_t   s;
    ngx_uint_t  i;

    static struct {
        const char            *reason;
        ngx_http_ai_finish_e   finish;
    } reasons[] = {
        { "end_turn", NGX_HTTP_AI_FINISH_STOP },
        { "tool_use", NGX_HTTP_AI_FINISH_TOOL },
        { "max_tokens", NGX_HTTP_AI_FINISH_LENGTH },
        { "refusal", NGX_HTTP_AI_FINISH_REFUSAL },
        { "pause_turn", NGX_HTTP_AI_FINISH_PAUSE },
        { "stop_sequence", NGX_HTTP_AI_FINISH_STOP_SEQUENCE },
        { NULL, NGX_HTTP_AI_FINISH_NONE }
    };

    s = ngx_http_ai_json_raw(j, ngx_http_ai_json_member(j, n, "stop_reason"));

    for (i = 0; reasons[i].reason; i++) {
        if (s.len == strlen(reasons[i].reason)
            && memcmp(s.data, reasons[i].reason, s.len) == 0)
        {
            f->finish = reasons[i].finish;
        }
    }
}


static void
expect_line(u_char *data, size_t len, fold_t *f, ngx_int_t *kind)
{
    int64_t             index;
    ngx_str_t           type, s;
    ngx_uint_t          n;
    ngx_http_ai_json_t  j;

    ngx_memzero(&j, sizeof(j));
    j.pool = pool;

    if (ngx_http_ai_json_parse(&j, data, len) != NGX_OK) {
        return;
    }

    type = ngx_http_ai_json_raw(&j, ngx_http_ai_json_member(&j, 0, "type"));
    index = number(&j, 0, "index");

    if (ngx_http_ai_str_is(&type, "message_start")) {
        n = ngx_http_ai_json_member(&j, 0, "message");

        if (f->answer.data == NULL) {
            s = ngx_http_ai_json_raw(&j, ngx_http_ai_json_member(&j, n, "id"));
            f->answer = keep(&s);
            s = ngx_http_ai_json_raw(&j,
                                     ngx_http_ai_json_member(&j, n, "model"));
            f->model = keep(&s);
            expect_usage(&j, ngx_http_ai_json_member(&j, n, "usage"), f);
        }

    } else if (ngx_http_ai_str_is(&type, "content_block_start")) {
        n = f->ntools;
        expect_block(&j, ngx_http_ai_json_member(&j, 0, "content_block"), f);
        kind[index] = (f->ntools > n) ? (ngx_int_t) n : -1;

    } else if (ngx_http_ai_str_is(&type, "content_block_delta")) {
        n = ngx_http_ai_json_member(&j, 0, "delta");
        expect_string(&j, n, "text", &f->text, 1);
        expect_string(&j, n, "thinking", &f->reasoning, 1);
        expect_string(&j, n, "signature", &f->signature, 0);

        if (kind[index] >= 0) {
            expect_string(&j, n, "partial_json", &f->args[kind[index]], 1);
        }

    } else if (ngx_http_ai_str_is(&type, "message_delta")) {
        expect_stop(&j, ngx_http_ai_json_member(&j, 0, "delta"), f);
        expect_usage(&j, ngx_http_ai_json_member(&j, 0, "usage"), f);

    } else if (ngx_http_ai_str_is(&type, "message_stop")) {
        f->ended++;
    }
}


static void
expect(u_char *data, size_t len, ngx_uint_t lines, fold_t *f)
{
    u_char              *p, *last, *line;
    ngx_str_t            s;
    ngx_int_t            kind[256];
    ngx_uint_t           i, n;
    ngx_http_ai_json_t   j;

    fold_init(f);

    if (lines) {
        ngx_memset(kind, 0xff, sizeof(kind));

        last = data + len;

        for (p = data; p < last; p++) {
            line = p;

            while (p < last && *p != '\n') {
                p++;
            }

            if (p - line > 6 && memcmp(line, "data: ", 6) == 0) {
                line += 6;
            }

            /* what follows the end is another answer */

            if (p > line && *line == '{' && !f->ended) {
                expect_line(line, p - line, f, kind);
            }
        }

        return;
    }

    ngx_memzero(&j, sizeof(j));
    j.pool = pool;

    if (ngx_http_ai_json_parse(&j, data, len) != NGX_OK) {
        return;
    }

    s = ngx_http_ai_json_raw(&j, ngx_http_ai_json_member(&j, 0, "id"));
    f->answer = keep(&s);
    s = ngx_http_ai_json_raw(&j, ngx_http_ai_json_member(&j, 0, "model"));
    f->model = keep(&s);

    n = ngx_http_ai_json_member(&j, 0, "content");

    for (i = ngx_http_ai_json_first(&j, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(&j, n, i))
    {
        expect_block(&j, i, f);
    }

    expect_stop(&j, 0, f);
    expect_usage(&j, ngx_http_ai_json_member(&j, 0, "usage"), f);

    f->ended = 1;
}


static const char *
differ(fold_t *a, fold_t *b)
{
    ngx_str_t    s;
    ngx_uint_t   i;

    if (!same(&a->text, &b->text)) {
        return "text";
    }

    if (!same(&a->reasoning, &b->reasoning)) {
        return "reasoning";
    }

    if (!same(&a->signature, &b->signature)) {
        return "signature";
    }

    if (!same(&a->redacted, &b->redacted)) {
        return "redacted";
    }

    if (a->finish != b->finish) {
        return "finish";
    }

    if (a->ended != b->ended) {
        return "end";
    }

    if (a->answer.len != b->answer.len
        || ngx_memcmp(a->answer.data, b->answer.data, a->answer.len) != 0)
    {
        return "id";
    }

    if (a->model.len != b->model.len
        || ngx_memcmp(a->model.data, b->model.data, a->model.len) != 0)
    {
        return "model";
    }

    if (ngx_http_ai_max(a->usage.in_fresh, 0)
        != ngx_http_ai_max(b->usage.in_fresh, 0)
        || ngx_http_ai_max(a->usage.cache_read, 0)
           != ngx_http_ai_max(b->usage.cache_read, 0)
        || ngx_http_ai_max(a->usage.cache_write, 0)
           != ngx_http_ai_max(b->usage.cache_write, 0)
        || a->usage.out != b->usage.out)
    {
        return "usage";
    }

    if (a->ntools != b->ntools) {
        return "tools";
    }

    for (i = 0; i < a->ntools; i++) {

        if (a->id[i].len != b->id[i].len
            || ngx_memcmp(a->id[i].data, b->id[i].data, a->id[i].len) != 0
            || a->name[i].len != b->name[i].len
            || ngx_memcmp(a->name[i].data, b->name[i].data, a->name[i].len)
               != 0)
        {
            return "tool";
        }

        /* no arguments are an empty object */

        s = written(&a->args[i]);

        if (s.len == 0 || ngx_http_ai_str_is(&s, "{}")) {
            s = written(&b->args[i]);

            if (s.len && !ngx_http_ai_str_is(&s, "{}")) {
                return "arguments";
            }

        } else if (!same(&a->args[i], &b->args[i])) {
            return "arguments";
        }
    }

    return NULL;
}


/* 0: body, 1: server-sent events, 2: lines of JSON */

static void
recording(const char *name, ngx_uint_t kind)
{
    u_char                 *p;
    size_t                  len;
    ngx_int_t               rc;
    ngx_str_t               s;
    ngx_uint_t              stream;
    const char             *what;
    fold_t                  wanted, got, again;
    ngx_http_ai_out_t       out;
    ngx_http_ai_decoder_t   dec;
    ngx_http_ai_encoder_t   enc;

    p = test_read(name, &len);

    if (p == NULL) {
        ok(0, "%s", name);
        return;
    }

    expect(p, len, kind, &wanted);

    for (stream = 0; stream < 2; stream++) {
        fold_init(&got);
        decoder(&dec, NGX_HTTP_AI_OP_CHAT);
        encoder(&enc, &out, stream);

        fold_to = &got;
        encode_to = &enc;

        if (kind == 0) {
            rc = dialect->decode_body(&dec, p, len);

        } else if (kind == 1) {
            rc = decode_stream(&dec, p, len, stream ? 7 : 0);

        } else {
            rc = decode_lines(&dec, p, len);
        }

        encode_to = NULL;

        what = (rc != NGX_OK) ? "rc" : differ(&wanted, &got);

        if (!ok(what == NULL, "%s", name)) {
            diag("differs in %s", what);
        }

        /* written in the dialect and read again */

        fold_init(&again);
        decoder(&dec, NGX_HTTP_AI_OP_CHAT);

        fold_to = &again;
        s = written(&out);

        rc = stream ? decode_stream(&dec, s.data, s.len, 0)
                    : dialect->decode_body(&dec, s.data, s.len);

        fold_to = NULL;

        what = (rc != NGX_OK) ? "rc" : differ(&got, &again);

        if (!ok(what == NULL, "%s written as %s", name,
                stream ? "a stream" : "a body"))
        {
            diag("differs in %s", what);
        }
    }

    free(p);
    ngx_reset_pool(pool);
}


/* "kind of block, id, name, arguments" of all messages, in order */

static void
outline(ngx_http_ai_json_t *j, ngx_http_ai_out_t *out)
{
    ngx_str_t   s, role, type;
    ngx_uint_t  i, m, b, n;

    m = ngx_http_ai_json_member(j, 0, "messages");

    for (i = ngx_http_ai_json_first(j, m);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, m, i))
    {
        role = ngx_http_ai_json_raw(j, ngx_http_ai_json_member(j, i, "role"));
        n = ngx_http_ai_json_member(j, i, "content");

        if (ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_STRING) {
            ngx_http_ai_out_str(out, &role);
            ngx_http_ai_out_lit(out, " text ");
            s = ngx_http_ai_json_raw(j, n);
            ngx_http_ai_out_str(out, &s);
            ngx_http_ai_out_lit(out, "       \n");
            continue;
        }

        for (b = ngx_http_ai_json_first(j, n);
             b != NGX_HTTP_AI_JSON_NONE;
             b = ngx_http_ai_json_next(j, n, b))
        {
            type = ngx_http_ai_json_raw(j,
                                        ngx_http_ai_json_member(j, b, "type"));
            ngx_http_ai_out_str(out, &role);
            ngx_http_ai_out_lit(out, " ");
            ngx_http_ai_out_str(out, &type);

#define outline_member(name)                                                  \
            s = ngx_http_ai_json_raw(j, ngx_http_ai_json_member(j, b, name)); \
            ngx_http_ai_out_lit(out, " ");                                    \
            ngx_http_ai_out_str(out, &s)

            outline_member("text");
            outline_member("id");
            outline_member("name");
            outline_member("input");
            outline_member("tool_use_id");
            outline_member("thinking");
            outline_member("signature");
            outline_member("data");

            ngx_http_ai_out_lit(out, "\n");
        }
    }
}


static void
request_recording(const char *name)
{
    u_char               *p;
    size_t                len;
    ngx_int_t             rc;
    ngx_str_t             s;
    ngx_uint_t            n;
    ngx_http_ai_out_t     a, b;
    ngx_http_ai_json_t    j, k;
    ngx_http_ai_codec_t   codec;

    p = test_read(name, &len);

    if (p == NULL) {
        return;
    }

    ngx_memzero(&j, sizeof(j));
    j.pool = pool;

    if (ngx_http_ai_json_parse(&j, p, len) != NGX_OK) {
        ok(0, "%s", name);
        goto done;
    }

    /* one that takes all that there is */

    rc = convert(p, len, "claude-opus-5", &s, &codec);

    if (rc == NGX_DECLINED) {

        /* what the provider alone can do */

        ok(codec.error.class == NGX_HTTP_AI_ERR_INVALID_REQUEST
           && codec.error.param.len, "%s: %.*s", name,
           (int) codec.error.message.len, codec.error.message.data);
        goto done;
    }

    ngx_memzero(&k, sizeof(k));
    k.pool = pool;

    if (rc != NGX_OK || ngx_http_ai_json_parse(&k, s.data, s.len) != NGX_OK) {
        ok(0, "%s", name);
        goto done;
    }

    ngx_http_ai_out_init(&a, pool, 0);
    ngx_http_ai_out_init(&b, pool, 0);

    outline(&j, &a);
    outline(&k, &b);

    if (!ok(same(&a, &b), "%s", name)) {
        s = written(&a);
        diag("was %.*s", (int) s.len, s.data);
        s = written(&b);
        diag("is %.*s", (int) s.len, s.data);
    }

    n = ngx_http_ai_json_member(&j, 0, "tools");
    rc = (n == NGX_HTTP_AI_JSON_NONE) ? 0 : j.nodes[n].count;
    n = ngx_http_ai_json_member(&k, 0, "tools");

    is_int((n == NGX_HTTP_AI_JSON_NONE) ? 0 : k.nodes[n].count, rc,
           "number of tools");

done:

    free(p);
    ngx_reset_pool(pool);
}


static int
ends(const char *name, const char *end)
{
    size_t  len, n;

    len = strlen(name);
    n = strlen(end);

    return len >= n && strcmp(name + len - n, end) == 0;
}


static void
test_recordings(void)
{
    DIR            *d;
    char            path[512], name[512];
    ngx_uint_t      i;
    const char     *root;
    struct dirent  *de;

    static const char  *dirs[] = {
        "anthropic", "vercel-ai/anthropic", "agentgateway/requests/messages",
        "agentgateway/response/anthropic", NULL
    };

    root = test_fixtures();

    if (root == NULL) {
        skip("no recordings: set AI_FIXTURES to their directory");
        return;
    }

    for (i = 0; dirs[i]; i++) {
        snprintf(path, sizeof(path), "%s/%s", root, dirs[i]);

        d = opendir(path);

        if (d == NULL) {
            skip("no %s", path);
            continue;
        }

        while ((de = readdir(d)) != NULL) {

            if (de->d_name[0] == '.') {
                continue;
            }

            if (i == 0) {
                snprintf(name, sizeof(name), "%s/%.200s/request.json",
                         dirs[i], de->d_name);

                if (strncmp(de->d_name, "messages", 8) != 0) {
                    continue;
                }

                request_recording(name);

                if (strstr(de->d_name, "-200-") == NULL) {
                    continue;
                }

                if (strncmp(de->d_name, "messages-stream", 15) == 0) {
                    snprintf(name, sizeof(name), "%s/%.200s/response.sse",
                             dirs[i], de->d_name);
                    recording(name, 1);

                } else {
                    snprintf(name, sizeof(name), "%s/%.200s/response.json",
                             dirs[i], de->d_name);
                    recording(name, 0);
                }

                continue;
            }

            snprintf(name, sizeof(name), "%s/%.200s", dirs[i], de->d_name);

            if (i == 2) {
                request_recording(name);

            } else if (ends(name, ".chunks.txt")) {
                recording(name, 2);

            } else if (strncmp(de->d_name, "stream", 6) == 0) {
                recording(name, 1);

            } else if (ends(name, ".json")
                       && strncmp(de->d_name, "count_tokens", 12) != 0)
            {
                recording(name, 0);
            }
        }

        closedir(d);
    }
}


/* each allocation that can fail does */

static void
test_memory(void)
{
    u_char                 *p;
    size_t                  len;
    ngx_int_t               rc;
    ngx_str_t               s;
    ngx_uint_t              i, n, bad;
    ngx_http_ai_out_t       out;
    ngx_http_ai_codec_t     codec;
    ngx_http_ai_encoder_t   enc;

    bad = 0;

    for (i = 0; requests[i].name; i++) {
        p = bytes(requests[i].in, &len);

        for (n = 1; n < 200; n++) {
            stub_fail = n;
            rc = convert(p, len, requests[i].model, &s, &codec);

            if (stub_fail) {
                break;
            }

            if (rc != NGX_ERROR && rc != NGX_ABORT) {
                bad++;
            }

            ngx_reset_pool(pool);
        }

        stub_fail = 0;
        free(p);
        ngx_reset_pool(pool);
    }

    is_int(bad, 0, "requests without memory");

    bad = 0;

    for (i = 0; replies[i].name; i++) {

        for (n = 1; n < 200; n++) {

            /* setting up must work */

            encoder(&enc, &out, n & 1);

            stub_fail = (n + 1) / 2;
            rc = play(&enc, replies[i].script);

            if (stub_fail) {
                stub_fail = 0;
                break;
            }

            if (rc != NGX_ERROR) {
                bad++;
            }

            ngx_reset_pool(pool);
        }

        ngx_reset_pool(pool);
    }

    is_int(bad, 0, "replies without memory");
}


int
main(void)
{
    ngx_log_t  log;

    ngx_memzero(&log, sizeof(log));

    pool = ngx_create_pool(4096, &log);

    test_requests();
    test_limits();
    test_parts();
    test_streams();
    test_bodies();
    test_replies();
    test_errors();
    test_recordings();
    test_memory();

    ngx_destroy_pool(pool);

    return done_testing();
}
