
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Prompts and answers for the usage log and for spans.  The prompt is read
 * from the request when it is logged; the answer is collected by a filter from
 * what the client is sent, whoever has made it, with the decoder of the
 * client's dialect.
 */


#include "ngx_http_ai_log.h"
#include "ngx_http_ai_trace.h"

#include <openssl/evp.h>


#define NGX_HTTP_AI_LOG_ROLE    64
#define NGX_HTTP_AI_LOG_SHA256  32


/* one text as it comes: what is kept of it, and its hash */

typedef struct {
    ngx_http_ai_out_t          out;
    size_t                     max;
    EVP_MD_CTX                *md;
    ngx_pool_t                *pool;
    unsigned                   keep:1;
    unsigned                   truncated:1;
    unsigned                   failed:1;
} ngx_http_ai_log_collect_t;


/* the answer of a request */

typedef struct {
    ngx_http_ai_log_collect_t  text;
    ngx_http_ai_ctx_t         *ctx;
    ngx_http_ai_decoder_t      dec;
    ngx_http_ai_sse_t          sse;
    ngx_http_ai_out_t          body;          /* of an unstreamed answer */
    size_t                     max_body;
    unsigned                   events:1;
    unsigned                   over:1;        /* no more is wanted */
    unsigned                   some:1;
    unsigned                   masked:1;
} ngx_http_ai_log_answer_t;


/* the prompt while it is written */

typedef struct {
    ngx_http_ai_log_collect_t  text;          /* with "hash" */
    ngx_http_ai_out_t         *out;           /* with "full" */
    size_t                     left;          /* bytes of texts */
    ngx_uint_t                 messages;
    ngx_str_t                  middle;        /* between role and text */
    ngx_str_t                  end;           /* behind the text */
    unsigned                   open:1;        /* a text was begun */
    unsigned                   some:1;        /* ... and has something */
    unsigned                   truncated:1;
} ngx_http_ai_log_prompt_t;


static ngx_int_t ngx_http_ai_log_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_uint_t ngx_http_ai_log_want(ngx_http_request_t *r, size_t *max);
static ngx_http_ai_log_answer_t *ngx_http_ai_log_answer(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_uint_t content, size_t max);
static void ngx_http_ai_log_answer_data(ngx_http_ai_log_answer_t *a,
    u_char *data, size_t len);
static void ngx_http_ai_log_answer_end(ngx_http_ai_log_answer_t *a);
static ngx_int_t ngx_http_ai_log_answer_sink(void *data,
    ngx_http_ai_event_t *ev);

static ngx_int_t ngx_http_ai_log_collect_init(ngx_http_ai_log_collect_t *c,
    ngx_pool_t *pool, ngx_uint_t content, size_t max);
static void ngx_http_ai_log_collect_free(void *data);
static void ngx_http_ai_log_collect_raw(ngx_http_ai_log_collect_t *c,
    ngx_str_t *raw);
static void ngx_http_ai_log_collect_add(ngx_http_ai_log_collect_t *c,
    u_char *data, size_t len);

static ngx_uint_t ngx_http_ai_log_prompt_write(ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_log_prompt_t *prompt, ngx_http_ai_out_t *out, size_t max);
static ngx_uint_t ngx_http_ai_log_answer_write(ngx_http_ai_log_answer_t *a,
    ngx_http_ai_out_t *out, size_t max);
static void ngx_http_ai_log_prompt_full(void *data, ngx_str_t *role,
    ngx_str_t *raw, ngx_uint_t json);
static void ngx_http_ai_log_prompt_hash(void *data, ngx_str_t *role,
    ngx_str_t *raw, ngx_uint_t json);
static ngx_uint_t ngx_http_ai_log_prompt_parse(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);
static void ngx_http_ai_log_member(ngx_http_ai_out_t *out, u_char *data,
    size_t len);
static void ngx_http_ai_log_digest(ngx_http_ai_out_t *out, const char *name,
    ngx_http_ai_log_collect_t *c);


static ngx_http_output_body_filter_pt  ngx_http_next_body_filter;


void
ngx_http_ai_log_content_init(void)
{
    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_ai_log_body_filter;
}


static ngx_int_t
ngx_http_ai_log_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    size_t                        max;
    ngx_chain_t                  *cl;
    ngx_uint_t                    content;
    ngx_http_ai_ctx_t            *ctx;
    ngx_http_ai_log_answer_t     *a;
    ngx_http_ai_log_main_conf_t  *mcf;

    if (in == NULL || r != r->main) {
        return ngx_http_next_body_filter(r, in);
    }

    content = ngx_http_ai_log_want(r, &max);

    if (content == 0) {
        return ngx_http_next_body_filter(r, in);
    }

    mcf = ngx_http_get_module_main_conf(r, ngx_http_ai_log_module);

    ctx = mcf->api->get_ctx(r);

    if (ctx == NULL
        || (ctx->op != NGX_HTTP_AI_OP_CHAT
            && ctx->op != NGX_HTTP_AI_OP_COMPLETIONS)
        || r->headers_out.status != NGX_HTTP_OK)
    {
        return ngx_http_next_body_filter(r, in);
    }

    a = ctx->log;

    if (a == NULL) {
        a = ngx_http_ai_log_answer(r, ctx, content, max);
        if (a == NULL) {
            return NGX_ERROR;
        }

        ctx->log = a;
    }

    for (cl = in; cl && !a->over; cl = cl->next) {
        if (ngx_buf_in_memory(cl->buf)) {
            ngx_http_ai_log_answer_data(a, cl->buf->pos,
                                        cl->buf->last - cl->buf->pos);
        }
    }

    return ngx_http_next_body_filter(r, in);
}


/* what logs and spans want of contents, and how much of them */

static ngx_uint_t
ngx_http_ai_log_want(ngx_http_request_t *r, size_t *max)
{
    ngx_uint_t                     content;
    ngx_http_ai_log_loc_conf_t    *llcf;
    ngx_http_ai_trace_loc_conf_t  *tlcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_log_module);
    tlcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_trace_module);

    content = llcf->content;
    *max = llcf->max;

    if (tlcf->exporter && tlcf->content) {
        content |= NGX_HTTP_AI_LOG_FULL;
        *max = ngx_max(*max, tlcf->content);
    }

    return content;
}


static ngx_http_ai_log_answer_t *
ngx_http_ai_log_answer(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_uint_t content, size_t max)
{
    ngx_str_t                 *type;
    ngx_http_ai_log_answer_t  *a;

    a = ngx_pcalloc(r->pool, sizeof(ngx_http_ai_log_answer_t));
    if (a == NULL) {
        return NULL;
    }

    if (ngx_http_ai_log_collect_init(&a->text, r->pool, content, max)
        != NGX_OK)
    {
        return NULL;
    }

    a->ctx = ctx;
    a->max_body = ctx->limits->max_answer;
    a->body.pool = r->pool;

    a->sse.pool = r->pool;
    a->sse.max = ctx->limits->max_event;

    a->dec.pool = r->pool;
    a->dec.op = ctx->op;
    a->dec.json.pool = r->pool;
    a->dec.json.max_depth = ctx->limits->max_depth;
    a->dec.json.max_nodes = ctx->limits->max_nodes;
    a->dec.sink.handler = ngx_http_ai_log_answer_sink;
    a->dec.sink.data = a;

    if (ctx->dialect->decode_init(&a->dec) != NGX_OK) {
        return NULL;
    }

    type = &r->headers_out.content_type;

    a->events = (type->len >= sizeof("text/event-stream") - 1
                 && ngx_strncasecmp(type->data, (u_char *) "text/event-stream",
                                    sizeof("text/event-stream") - 1)
                    == 0);

    return a;
}


static void
ngx_http_ai_log_answer_data(ngx_http_ai_log_answer_t *a, u_char *data,
    size_t len)
{
    u_char                   *pos, *last;
    ngx_int_t                 rc;
    ngx_http_ai_sse_event_t   ev;

    if (!a->events) {

        if ((size_t) (a->body.last - a->body.start) + len > a->max_body) {
            a->text.truncated = 1;
            a->over = 1;
            return;
        }

        ngx_http_ai_out_mem(&a->body, data, len);
        return;
    }

    pos = data;
    last = data + len;

    for ( ;; ) {
        rc = ngx_http_ai_sse_read(&a->sse, &pos, last, &ev);

        if (rc == NGX_AGAIN) {
            return;
        }

        if (rc != NGX_OK) {
            a->text.truncated = 1;
            a->over = 1;
            return;
        }

        if (!ev.has_data) {
            continue;
        }

        rc = a->ctx->dialect->decode_event(&a->dec, &ev.name, &ev.data);

        if (rc == NGX_ERROR) {
            a->text.failed = 1;
            a->over = 1;
            return;
        }

        if (a->dec.done || (a->text.truncated && a->text.md == NULL)) {
            a->over = 1;
            return;
        }
    }
}


static void
ngx_http_ai_log_answer_end(ngx_http_ai_log_answer_t *a)
{
    if (a->events || a->body.last == a->body.start) {
        return;
    }

    (void) a->ctx->dialect->decode_body(&a->dec, a->body.start,
                                        a->body.last - a->body.start);

    a->body.last = a->body.start;
}


static ngx_int_t
ngx_http_ai_log_answer_sink(void *data, ngx_http_ai_event_t *ev)
{
    ngx_http_ai_log_answer_t *a = data;

    if (ev->choice) {
        return NGX_OK;
    }

    switch (ev->type) {

    case NGX_HTTP_AI_EV_TEXT:
    case NGX_HTTP_AI_EV_REFUSAL:
    case NGX_HTTP_AI_EV_TOOL_ARGS:
        ngx_http_ai_log_collect_raw(&a->text, &ev->text);
        a->some = 1;
        break;

    case NGX_HTTP_AI_EV_TOOL_START:

        if (a->some) {
            ngx_http_ai_log_collect_add(&a->text, (u_char *) "\n", 1);
        }

        ngx_http_ai_log_collect_raw(&a->text, &ev->name);
        ngx_http_ai_log_collect_add(&a->text, (u_char *) "(", 1);
        a->some = 1;
        break;

    case NGX_HTTP_AI_EV_TOOL_END:
        ngx_http_ai_log_collect_add(&a->text, (u_char *) ")", 1);
        break;

    default:
        break;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_log_collect_init(ngx_http_ai_log_collect_t *c, ngx_pool_t *pool,
    ngx_uint_t content, size_t max)
{
    ngx_pool_cleanup_t  *cln;

    ngx_memzero(c, sizeof(ngx_http_ai_log_collect_t));

    c->pool = pool;
    c->max = max;
    c->keep = (content & NGX_HTTP_AI_LOG_FULL) ? 1 : 0;
    c->out.pool = pool;

    if (!(content & NGX_HTTP_AI_LOG_HASH)) {
        return NGX_OK;
    }

    cln = ngx_pool_cleanup_add(pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    c->md = EVP_MD_CTX_new();
    if (c->md == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_ai_log_collect_free;
    cln->data = c->md;

    return (EVP_DigestInit_ex(c->md, EVP_sha256(), NULL) == 1) ? NGX_OK
                                                               : NGX_ERROR;
}


static void
ngx_http_ai_log_collect_free(void *data)
{
    EVP_MD_CTX_free(data);
}


static void
ngx_http_ai_log_collect_raw(ngx_http_ai_log_collect_t *c, ngx_str_t *raw)
{
    u_char  *p, *last, buf[512];

    if (raw->len == 0) {
        return;
    }

    if (ngx_strlchr(raw->data, raw->data + raw->len, '\\') == NULL) {
        ngx_http_ai_log_collect_add(c, raw->data, raw->len);
        return;
    }

    p = buf;

    if (raw->len > sizeof(buf)) {
        p = ngx_pnalloc(c->pool, raw->len);
        if (p == NULL) {
            c->failed = 1;
            return;
        }
    }

    last = ngx_http_ai_json_unescape(p, raw);

    ngx_http_ai_log_collect_add(c, p, last - p);

    if (p != buf) {
        (void) ngx_pfree(c->pool, p);
    }
}


static void
ngx_http_ai_log_collect_add(ngx_http_ai_log_collect_t *c, u_char *data,
    size_t len)
{
    size_t  left;

    if (c->md && EVP_DigestUpdate(c->md, data, len) != 1) {
        c->failed = 1;
    }

    if (!c->keep) {
        return;
    }

    left = c->max - (c->out.last - c->out.start);

    if (len > left) {

        /* nothing behind it, or a shorter piece would follow a gap */

        len = c->truncated ? 0 : ngx_http_ai_log_cut(data, len, left, 0);
        c->truncated = 1;
    }

    if (c->out.start == NULL
        && ngx_http_ai_out_init(&c->out, c->pool, 1024) != NGX_OK)
    {
        c->failed = 1;
        return;
    }

    ngx_http_ai_out_mem(&c->out, data, len);

    if (c->out.failed) {
        c->failed = 1;
    }
}


void
ngx_http_ai_log_contents(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_log_t *log, ngx_str_t *members)
{
    ngx_uint_t                 truncated;
    ngx_http_ai_out_t          out;
    ngx_http_ai_log_prompt_t   prompt;
    ngx_http_ai_log_answer_t  *a;

    members->len = 0;

    a = ctx->log;

    if (a) {
        ngx_http_ai_log_answer_end(a);
    }

    if (ngx_http_ai_out_init(&out, r->pool, 512) != NGX_OK) {
        return;
    }

    ngx_memzero(&prompt, sizeof(ngx_http_ai_log_prompt_t));
    truncated = 0;

    if (log->content == NGX_HTTP_AI_LOG_HASH) {

        if (ngx_http_ai_log_prompt_parse(r, ctx)
            && ngx_http_ai_log_collect_init(&prompt.text, r->pool,
                                            NGX_HTTP_AI_LOG_HASH, 0)
               == NGX_OK)
        {
            ngx_http_ai_log_prompt(&ctx->json, ngx_http_ai_log_prompt_hash,
                                   &prompt);

            if (prompt.messages) {
                ngx_http_ai_log_collect_add(&prompt.text, (u_char *) "\n", 1);
                ngx_http_ai_log_digest(&out, "prompt_sha256", &prompt.text);
            }
        }

        if (a && a->some) {
            ngx_http_ai_log_digest(&out, "answer_sha256", &a->text);
        }

    } else {

        if (ngx_http_ai_log_prompt_parse(r, ctx)) {
            ngx_str_set(&prompt.middle, "\",\"text\":\"");
            ngx_str_set(&prompt.end, "\"}");

            ngx_http_ai_out_lit(&out, ",\"prompt\":");
            truncated |= ngx_http_ai_log_prompt_write(ctx, &prompt, &out,
                                                      log->max);
        }

        if (a && a->some && !a->text.failed) {
            ngx_http_ai_out_lit(&out, ",\"answer\":\"");
            truncated |= ngx_http_ai_log_answer_write(a, &out, log->max);
            ngx_http_ai_out_lit(&out, "\"");
        }

        if (truncated) {
            ngx_http_ai_out_lit(&out, ",\"content_truncated\":true");
        }
    }

    if (out.failed) {
        return;
    }

    members->data = out.start;
    members->len = out.last - out.start;
}


void
ngx_http_ai_log_messages(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    size_t max, ngx_http_ai_out_t *input, ngx_http_ai_out_t *output)
{
    ngx_http_ai_log_prompt_t   prompt;
    ngx_http_ai_log_answer_t  *a;

    ngx_memzero(input, sizeof(ngx_http_ai_out_t));
    ngx_memzero(output, sizeof(ngx_http_ai_out_t));

    input->pool = r->pool;
    output->pool = r->pool;

    if (ngx_http_ai_log_prompt_parse(r, ctx)) {
        ngx_memzero(&prompt, sizeof(ngx_http_ai_log_prompt_t));

        ngx_str_set(&prompt.middle, "\",\"parts\":[{\"type\":\"text\","
                                    "\"content\":\"");
        ngx_str_set(&prompt.end, "\"}]}");

        (void) ngx_http_ai_log_prompt_write(ctx, &prompt, input, max);
    }

    a = ctx->log;

    if (a == NULL) {
        return;
    }

    ngx_http_ai_log_answer_end(a);

    if (!a->some || a->text.failed) {
        return;
    }

    ngx_http_ai_out_lit(output, "[{\"role\":\"assistant\",\"parts\":"
                                "[{\"type\":\"text\",\"content\":\"");
    (void) ngx_http_ai_log_answer_write(a, output, max);
    ngx_http_ai_out_lit(output, "\"}],\"finish_reason\":\"");
    ngx_http_ai_out_str(output, ngx_http_ai_finish_name(ctx->finish));
    ngx_http_ai_out_lit(output, "\"}]");
}


/* the list of messages; 1: it was cut */

static ngx_uint_t
ngx_http_ai_log_prompt_write(ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_log_prompt_t *prompt, ngx_http_ai_out_t *out, size_t max)
{
    prompt->out = out;
    prompt->left = max;

    ngx_http_ai_out_lit(out, "[");
    ngx_http_ai_log_prompt(&ctx->json, ngx_http_ai_log_prompt_full, prompt);

    if (prompt->open) {
        ngx_http_ai_out_str(out, &prompt->end);
    }

    ngx_http_ai_out_lit(out, "]");

    return prompt->truncated;
}


static ngx_uint_t
ngx_http_ai_log_answer_write(ngx_http_ai_log_answer_t *a,
    ngx_http_ai_out_t *out, size_t max)
{
    ngx_str_t   text;
    ngx_uint_t  truncated;

    truncated = a->text.truncated;

    text.data = a->text.out.start;
    text.len = a->text.out.last - a->text.out.start;

    /* once: another log may want it too */

    if (!a->masked) {
        ngx_http_ai_mask(&text);
        a->text.out.last = a->text.out.start + text.len;
        a->masked = 1;
    }

    if (text.len > max) {
        text.len = ngx_http_ai_log_cut(text.data, text.len, max, 0);
        truncated = 1;
    }

    ngx_http_ai_log_member(out, text.data, text.len);

    return truncated;
}


/* is there a prompt?  Then ctx->json has all of it */

static ngx_uint_t
ngx_http_ai_log_prompt_parse(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    ngx_http_ai_error_t           err;
    ngx_http_ai_log_main_conf_t  *mcf;

    if (!ctx->parsed) {
        return 0;
    }

    mcf = ngx_http_get_module_main_conf(r, ngx_http_ai_log_module);

    ngx_memzero(&err, sizeof(ngx_http_ai_error_t));

    return mcf->api->parse_body(ctx, &err) == NGX_OK;
}


static void
ngx_http_ai_log_prompt_hash(void *data, ngx_str_t *role, ngx_str_t *raw,
    ngx_uint_t json)
{
    ngx_http_ai_log_prompt_t *prompt = data;

    if (role) {

        if (prompt->messages++) {
            ngx_http_ai_log_collect_add(&prompt->text, (u_char *) "\n", 1);
        }

        ngx_http_ai_log_collect_raw(&prompt->text, role);
    }

    ngx_http_ai_log_collect_add(&prompt->text, (u_char *) "\n", 1);

    if (json) {
        ngx_http_ai_log_collect_add(&prompt->text, raw->data, raw->len);

    } else {
        ngx_http_ai_log_collect_raw(&prompt->text, raw);
    }
}


static void
ngx_http_ai_log_prompt_full(void *data, ngx_str_t *role, ngx_str_t *raw,
    ngx_uint_t json)
{
    ngx_http_ai_log_prompt_t *prompt = data;

    size_t              len;
    u_char             *p;
    ngx_str_t           text;
    ngx_http_ai_out_t  *out;

    out = prompt->out;

    if (prompt->truncated) {
        return;
    }

    if (prompt->left == 0 && (role || raw->len)) {
        prompt->truncated = 1;
        return;
    }

    if (role) {

        if (prompt->open) {
            ngx_http_ai_out_str(out, &prompt->end);
            ngx_http_ai_out_lit(out, ",");
        }

        prompt->open = 1;
        prompt->some = 0;

        len = ngx_http_ai_log_cut(role->data, role->len, NGX_HTTP_AI_LOG_ROLE,
                                  1);

        /* a message takes some room as well */
        prompt->left -= ngx_min(prompt->left, 16);

        ngx_http_ai_out_lit(out, "{\"role\":\"");
        ngx_http_ai_log_member(out, role->data, len);
        ngx_http_ai_out_str(out, &prompt->middle);
    }

    if (raw->len == 0) {
        return;
    }

    len = ngx_http_ai_log_cut(raw->data, raw->len, prompt->left, !json);

    if (len < raw->len) {
        prompt->truncated = 1;
    }

    prompt->left -= len;

    p = ngx_pnalloc(out->pool, len + 1);
    if (p == NULL) {
        out->failed = 1;
        return;
    }

    text.data = raw->data;
    text.len = len;

    if (json) {
        ngx_memcpy(p, raw->data, len);

    } else {
        text.len = ngx_http_ai_json_unescape(p, &text) - p;
    }

    text.data = p;

    ngx_http_ai_mask(&text);

    if (prompt->some) {
        ngx_http_ai_out_lit(out, "\\n");
    }

    prompt->some = 1;

    ngx_http_ai_log_member(out, text.data, text.len);

    (void) ngx_pfree(out->pool, p);
}


/* plain bytes as the inside of a string of the line */

static void
ngx_http_ai_log_member(ngx_http_ai_out_t *out, u_char *data, size_t len)
{
    if ((size_t) (out->end - out->last) < ngx_http_ai_log_room(len)
        && ngx_http_ai_out_grow(out, ngx_http_ai_log_room(len)) != NGX_OK)
    {
        return;
    }

    out->last = ngx_http_ai_log_text(out->last, data, len);
}


static void
ngx_http_ai_log_digest(ngx_http_ai_out_t *out, const char *name,
    ngx_http_ai_log_collect_t *c)
{
    u_char       *p, hash[NGX_HTTP_AI_LOG_SHA256];
    EVP_MD_CTX   *md;
    ngx_uint_t    rc;

    if (c->failed || c->md == NULL) {
        return;
    }

    /* a second log may want it too */

    md = EVP_MD_CTX_new();
    if (md == NULL) {
        return;
    }

    rc = (EVP_MD_CTX_copy_ex(md, c->md) == 1
          && EVP_DigestFinal_ex(md, hash, NULL) == 1);

    EVP_MD_CTX_free(md);

    if (!rc) {
        return;
    }

    ngx_http_ai_out_lit(out, ",\"");
    ngx_http_ai_out_mem(out, name, ngx_strlen(name));
    ngx_http_ai_out_lit(out, "\":\"");

    if (ngx_http_ai_out_grow(out, 2 * NGX_HTTP_AI_LOG_SHA256) != NGX_OK) {
        return;
    }

    p = out->last;
    out->last = ngx_hex_dump(p, hash, NGX_HTTP_AI_LOG_SHA256);

    ngx_http_ai_out_lit(out, "\"");
}
