
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * A stored answer as this client wants it: its own bytes with a new id, where
 * dialect and mode are the same; else decoded and encoded anew.
 */


#include "ngx_http_ai_cache.h"


/* an id that is shorter may be some other text as well */
#define NGX_HTTP_AI_CACHE_ID_MIN  8


typedef struct {
    ngx_http_ai_encoder_t     *enc;           /* NULL: only looks */
    ngx_http_ai_dialect_t     *dialect;
    ngx_http_ai_usage_t       *usage;         /* NULL: as it is told */
    ngx_uint_t                 bad;
    ngx_uint_t                 ended;
} ngx_http_ai_cache_recode_t;


static ngx_int_t ngx_http_ai_cache_encode(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_found_t *found, ngx_str_t *out);
static ngx_int_t ngx_http_ai_cache_decode(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_meta_t *meta, u_char *data, size_t len,
    ngx_http_ai_cache_recode_t *rec);
static ngx_int_t ngx_http_ai_cache_decode_events(ngx_http_ai_cached_t *c,
    ngx_http_ai_dialect_t *dialect, ngx_http_ai_decoder_t *dec, u_char *data,
    size_t len);
static ngx_int_t ngx_http_ai_cache_sink(void *data, ngx_http_ai_event_t *ev);
static void ngx_http_ai_cache_renew(ngx_http_ai_cached_t *c, ngx_str_t *data);
static ngx_int_t ngx_http_ai_cache_first(ngx_str_t *data, ngx_str_t *text);
static void ngx_http_ai_cache_new_id(ngx_str_t *id, u_char *last);
static void ngx_http_ai_cache_new_time(ngx_str_t *text, u_char *created,
    u_char *last);
static u_char *ngx_http_ai_cache_member(u_char *p, u_char *last,
    const char *name, size_t len);
static u_char *ngx_http_ai_cache_mem(u_char *p, u_char *last,
    const u_char *text, size_t len);


ngx_uint_t
ngx_http_ai_cache_same(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_meta_t *meta)
{
    /* the client's own is what it would be stored as */

    return meta->dialect == c->meta.dialect && meta->op == c->meta.op
           && meta->stream == c->meta.stream
           && (!meta->stream || meta->include_usage == c->meta.include_usage);
}


ngx_int_t
ngx_http_ai_cache_replay(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_found_t *found, ngx_http_ai_cache_e cached)
{
    ngx_int_t                  rc;
    ngx_str_t                  data;
    ngx_buf_t                 *b;
    ngx_chain_t                cl;
    ngx_http_ai_ctx_t         *ctx;
    ngx_http_request_t        *r;
    ngx_http_ai_cache_e        before;

    r = c->request;
    ctx = c->ctx;

    data = found->data;

    if (ngx_http_ai_cache_same(c, &found->meta)) {

        ngx_http_ai_cache_renew(c, &data);

    } else {

        if (found->meta.exact) {
            return NGX_DECLINED;
        }

        rc = ngx_http_ai_cache_encode(c, found, &data);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (data.len == 0) {
        return NGX_DECLINED;
    }

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_ERROR;
    }

    before = ctx->cached;
    ctx->cached = cached;

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "ai cache: %V, before: %V",
                   ngx_http_ai_cache_state(cached),
                   ngx_http_ai_cache_state(before));

    c->step = NGX_HTTP_AI_CACHED_PASSED;

    ngx_http_ai_cache_known(c, &found->meta);

    rc = ngx_http_ai_cache_send_header(c, ctx->stream ? -1
                                                      : (off_t) data.len);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        ctx->rc = rc;
        return NGX_DONE;
    }

    if (ctx->stream && c->use->pace && cached == NGX_HTTP_AI_CACHE_HIT) {
        c->rest = data;
        return ngx_http_ai_cache_pace(c);
    }

    b->start = data.data;
    b->pos = data.data;
    b->last = data.data + data.len;
    b->end = b->last;
    b->memory = 1;
    b->last_buf = 1;
    b->last_in_chain = 1;

    cl.buf = b;
    cl.next = NULL;

    ctx->rc = ngx_http_output_filter(r, &cl);

    return NGX_DONE;
}


void
ngx_http_ai_cache_known(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_meta_t *meta)
{
    ngx_http_ai_ctx_t  *ctx;

    ctx = c->ctx;

    ctx->answered = 1;

    if (ctx->ttft < 0) {
        ctx->ttft = ngx_current_msec - ctx->start;
    }

    if (c->background) {
        /* what the refresh uses counts */
        return;
    }

    ngx_http_ai_cache_get_usage(meta, &ctx->usage);
    ctx->usage_state = meta->usage_state;
    ctx->finish = meta->finish;
    ctx->cost = 0;
    ctx->free = !c->use->count;
    ctx->complete = 1;
}


ngx_int_t
ngx_http_ai_cache_send_header(ngx_http_ai_cached_t *c, off_t length)
{
    ngx_str_t            value;
    ngx_list_t          *headers;
    ngx_http_request_t  *r;

    r = c->request;
    headers = &r->headers_out.headers;

    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = length;

    if (length >= 0) {
        ngx_str_set(&r->headers_out.content_type, "application/json");

    } else {
        ngx_str_set(&r->headers_out.content_type, "text/event-stream");
        ngx_str_set(&value, "no-cache");

        if (ngx_http_ai_header_add(headers, "Cache-Control", &value) == NULL) {
            return NGX_ERROR;
        }

        ngx_str_set(&value, "no");

        if (ngx_http_ai_header_add(headers, "X-Accel-Buffering", &value)
            == NULL)
        {
            return NGX_ERROR;
        }
    }

    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;

    if (c->api->add_headers(r, c->ctx) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_send_header(r);
}


static ngx_int_t
ngx_http_ai_cache_encode(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_found_t *found, ngx_str_t *data)
{
    ngx_int_t                    rc;
    ngx_http_ai_ctx_t           *ctx;
    ngx_http_ai_out_t            out;
    ngx_http_ai_usage_t          usage;
    ngx_http_ai_encoder_t        enc;
    ngx_http_ai_cache_recode_t   rec;

    ctx = c->ctx;

    ngx_http_ai_cache_get_usage(&found->meta, &usage);

    if (ngx_http_ai_out_init(&out, c->request->pool, found->data.len + 1024)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_memzero(&enc, sizeof(ngx_http_ai_encoder_t));

    enc.pool = c->request->pool;
    enc.op = ctx->op;
    enc.out = &out;
    enc.model = ctx->request_model;
    enc.id = ctx->request_id;
    enc.now = ngx_time();
    enc.stream = ctx->stream;
    enc.include_usage = ctx->include_usage;
    enc.input_estimate = ngx_max(usage.in_fresh, 0);

    if (enc.id.len > 4 && ngx_strncmp(enc.id.data, "req_", 4) == 0) {
        enc.id.data += 4;
        enc.id.len -= 4;
    }

    if (ctx->dialect->encode_init(&enc) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_memzero(&rec, sizeof(ngx_http_ai_cache_recode_t));

    rec.enc = &enc;
    rec.dialect = ctx->dialect;

    if (found->meta.usage_state == NGX_HTTP_AI_USAGE_PROVIDER) {
        rec.usage = &usage;
    }

    rc = ngx_http_ai_cache_decode(c, &found->meta, found->data.data,
                                  found->data.len, &rec);

    if (rc != NGX_OK) {
        return rc;
    }

    if (out.failed) {
        return NGX_ERROR;
    }

    data->data = out.start;
    data->len = out.last - out.start;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_cache_finishes(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_meta_t *meta, u_char *data, size_t len)
{
    ngx_int_t                   rc;
    ngx_http_ai_cache_recode_t  rec;

    ngx_memzero(&rec, sizeof(ngx_http_ai_cache_recode_t));

    rc = ngx_http_ai_cache_decode(c, meta, data, len, &rec);

    return (rc == NGX_OK && rec.bad) ? NGX_DECLINED : rc;
}


/* NGX_DECLINED: it is no whole answer, whatever the meta says */

static ngx_int_t
ngx_http_ai_cache_decode(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_meta_t *meta, u_char *data, size_t len,
    ngx_http_ai_cache_recode_t *rec)
{
    ngx_int_t               rc;
    ngx_uint_t              i;
    ngx_http_ai_decoder_t   dec;
    ngx_http_ai_dialect_t  *dialect;

    for (i = 0; c->api->dialects[i] && i < meta->dialect; i++) { /* void */ }

    dialect = c->api->dialects[i];

    if (dialect == NULL || meta->op != c->ctx->op) {
        return NGX_DECLINED;
    }

    ngx_memzero(&dec, sizeof(ngx_http_ai_decoder_t));

    dec.pool = c->request->pool;
    dec.op = meta->op;
    dec.json.pool = dec.pool;
    dec.json.max_depth = c->ctx->limits->max_depth;
    dec.json.max_nodes = c->ctx->limits->max_nodes;
    dec.sink.handler = ngx_http_ai_cache_sink;
    dec.sink.data = rec;

    if (dialect->decode_init(&dec) != NGX_OK) {
        return NGX_ERROR;
    }

    if (meta->stream) {
        rc = ngx_http_ai_cache_decode_events(c, dialect, &dec, data, len);

    } else {
        rc = dialect->decode_body(&dec, data, len);
    }

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    return (rc == NGX_OK && rec->ended) ? NGX_OK : NGX_DECLINED;
}


static ngx_int_t
ngx_http_ai_cache_decode_events(ngx_http_ai_cached_t *c,
    ngx_http_ai_dialect_t *dialect, ngx_http_ai_decoder_t *dec, u_char *data,
    size_t len)
{
    u_char                   *last;
    ngx_int_t                 rc;
    ngx_http_ai_sse_t         sse;
    ngx_http_ai_sse_event_t   ev;

    ngx_memzero(&sse, sizeof(ngx_http_ai_sse_t));

    sse.pool = dec->pool;
    sse.max = len + 1;

    last = data + len;

    while (!dec->done) {
        rc = ngx_http_ai_sse_read(&sse, &data, last, &ev);

        if (rc == NGX_AGAIN) {
            return dialect->decode_finish(dec);
        }

        if (rc != NGX_OK) {
            return rc;
        }

        if (!ev.has_data) {
            continue;
        }

        rc = dialect->decode_event(dec, &ev.name, &ev.data);

        if (rc != NGX_OK && rc != NGX_DECLINED) {
            return rc;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_cache_sink(void *data, ngx_http_ai_event_t *ev)
{
    ngx_http_ai_cache_recode_t *rec = data;

    ngx_http_ai_event_t  e;

    e = *ev;

    switch (ev->type) {

    case NGX_HTTP_AI_EV_START:
        /* the encoder has a new id, and the time */
        ngx_str_null(&e.id);
        e.created = 0;
        break;

    case NGX_HTTP_AI_EV_FINISH:

        if (ev->finish != NGX_HTTP_AI_FINISH_STOP
            && ev->finish != NGX_HTTP_AI_FINISH_STOP_SEQUENCE
            && ev->finish != NGX_HTTP_AI_FINISH_LENGTH
            && ev->finish != NGX_HTTP_AI_FINISH_TOOL)
        {
            rec->bad = 1;
        }

        break;

    case NGX_HTTP_AI_EV_USAGE:

        if (rec->usage) {
            /* comes at the end, as a stream may not tell it */
            return NGX_OK;
        }

        break;

    case NGX_HTTP_AI_EV_ERROR:
        return NGX_DECLINED;

    case NGX_HTTP_AI_EV_END:

        if (rec->ended) {
            return NGX_OK;
        }

        rec->ended = 1;

        if (rec->enc && rec->usage) {
            ngx_memzero(&e, sizeof(ngx_http_ai_event_t));

            e.type = NGX_HTTP_AI_EV_USAGE;
            e.usage = rec->usage;

            if (rec->dialect->encode_event(rec->enc, &e) != NGX_OK) {
                return NGX_ERROR;
            }

            e = *ev;
        }

        break;

    default:
        break;
    }

    return rec->enc ? rec->dialect->encode_event(rec->enc, &e) : NGX_OK;
}


/*
 * Ids and times keep their length, so that they are renewed in place.  In a
 * stream they are in each chunk.  The texts of an answer are JSON strings, in
 * which the quotes around a member would be escaped: what is found between
 * bare ones is no text.
 */

static void
ngx_http_ai_cache_renew(ngx_http_ai_cached_t *c, ngx_str_t *data)
{
    size_t                    n;
    u_char                   *last, created[NGX_TIME_T_LEN];
    ngx_str_t                 text, id;
    ngx_uint_t                i, obj;
    ngx_http_ai_json_t        j;
    ngx_http_ai_json_node_t   nodes[64];

    if (c->ctx->op == NGX_HTTP_AI_OP_EMBEDDINGS) {
        /* has neither */
        return;
    }

    last = data->data + data->len;
    text = *data;

    if (c->ctx->stream && ngx_http_ai_cache_first(data, &text) != NGX_OK) {
        return;
    }

    ngx_memzero(&j, sizeof(ngx_http_ai_json_t));

    j.pool = c->request->pool;
    j.nodes = nodes;
    j.nalloc = 64;
    j.shallow = c->ctx->stream ? 2 : 1;

    if (ngx_http_ai_json_parse(&j, text.data, text.len) != NGX_OK) {
        return;
    }

    /* Anthropic's "message_start" has it inside */

    obj = ngx_http_ai_json_member(&j, 0, "message");

    if (obj == NGX_HTTP_AI_JSON_NONE) {
        obj = 0;
    }

    i = ngx_http_ai_json_member(&j, obj, "id");

    if (ngx_http_ai_json_type(&j, i) == NGX_HTTP_AI_JSON_STRING) {
        id = ngx_http_ai_json_raw(&j, i);
        ngx_http_ai_cache_new_id(&id, c->ctx->stream ? last : NULL);
    }

    i = ngx_http_ai_json_member(&j, 0, "created");

    if (ngx_http_ai_json_type(&j, i) != NGX_HTTP_AI_JSON_NUMBER) {
        return;
    }

    text = ngx_http_ai_json_raw(&j, i);
    n = ngx_sprintf(created, "%T", ngx_time()) - created;

    if (text.len != n) {
        return;
    }

    if (c->ctx->stream) {
        ngx_http_ai_cache_new_time(&text, created, last);

    } else {
        ngx_memcpy(text.data, created, n);
    }
}


/* the data of the first event that has some */

static ngx_int_t
ngx_http_ai_cache_first(ngx_str_t *data, ngx_str_t *text)
{
    u_char  *p, *last;

    last = data->data + data->len;

    for (p = data->data; p < last; p++) {

        if (last - p > 5 && ngx_strncmp(p, "data:", 5) == 0) {
            text->data = p + 5;
            p = ngx_strlchr(p, last, LF);
            text->len = (p ? p : last) - text->data;

            return NGX_OK;
        }

        p = ngx_strlchr(p, last, LF);

        if (p == NULL) {
            break;
        }
    }

    return NGX_DECLINED;
}


/* what is behind its prefix ("chatcmpl-", "msg_") is drawn anew, the same up
 * to "last" */

static void
ngx_http_ai_cache_new_id(ngx_str_t *id, u_char *last)
{
    u_char      *p, *end, old[128];
    uint32_t     n;
    ngx_uint_t   left;

    static u_char  hex[] = "0123456789abcdef";

    if (id->len < NGX_HTTP_AI_CACHE_ID_MIN || id->len > sizeof(old)) {
        return;
    }

    ngx_memcpy(old, id->data, id->len);

    end = id->data + id->len;

    for (p = id->data; p < end && *p != '-' && *p != '_'; p++) { /* void */ }

    p = (p < end) ? p + 1 : id->data;

    n = 0;

    for (left = 0; p < end; p++, left--) {

        if (left == 0) {
            n = ngx_random();
            left = 7;
        }

        if ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z')
            || (*p >= '0' && *p <= '9'))
        {
            *p = hex[n & 15];
            n >>= 4;
        }
    }

    if (last == NULL) {
        return;
    }

    for (p = end; /* void */ ; p += id->len) {
        p = ngx_http_ai_cache_mem(p, last, old, id->len);

        if (p == NULL || p + id->len == last) {
            return;
        }

        if (p[-1] == '"' && p[id->len] == '"') {
            ngx_memcpy(p, id->data, id->len);
        }
    }
}


static void
ngx_http_ai_cache_new_time(ngx_str_t *text, u_char *created, u_char *last)
{
    u_char  *p, old[NGX_TIME_T_LEN];
    size_t   len;

    len = text->len;
    ngx_memcpy(old, text->data, len);

    p = text->data;

    do {
        if ((size_t) (last - p) > len && ngx_memcmp(p, old, len) == 0) {
            ngx_memcpy(p, created, len);
        }

        p = ngx_http_ai_cache_member(p, last, "\"created\"",
                                     sizeof("\"created\"") - 1);
    } while (p);
}


/* the value of the next member with that name */

static u_char *
ngx_http_ai_cache_member(u_char *p, u_char *last, const char *name,
    size_t len)
{
    for ( ;; ) {
        p = ngx_http_ai_cache_mem(p, last, (u_char *) name, len);

        if (p == NULL) {
            return NULL;
        }

        p = ngx_http_ai_json_skip_space(p + len, last);

        if (p < last && *p == ':') {
            return ngx_http_ai_json_skip_space(p + 1, last);
        }
    }
}


static u_char *
ngx_http_ai_cache_mem(u_char *p, u_char *last, const u_char *text, size_t len)
{
    while ((size_t) (last - p) >= len) {

        p = memchr(p, text[0], last - p - len + 1);

        if (p == NULL) {
            return NULL;
        }

        if (ngx_memcmp(p, text, len) == 0) {
            return p;
        }

        p++;
    }

    return NULL;
}
