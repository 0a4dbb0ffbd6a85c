
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * A stored answer in another dialect or mode: decoded and encoded anew.  A
 * stream for a client that only differs in wanting its usage, or not, stays as
 * it is but for this event.
 */


#include "ngx_http_ai_cache.h"


typedef struct {
    ngx_http_ai_encoder_t     *enc;           /* NULL: only looks */
    ngx_http_ai_dialect_t     *dialect;       /* the client's */
    ngx_http_ai_usage_t       *usage;         /* NULL: as it is told */
    ngx_http_ai_out_t         *relay;         /* events go here as they are */
    unsigned                   bad:1;
    unsigned                   told:1;        /* the answer tells its usage */
    unsigned                   ended:1;
} ngx_http_ai_cache_recode_t;


static ngx_int_t ngx_http_ai_cache_encoder(ngx_http_ai_cached_t *c,
    ngx_http_ai_encoder_t *enc, ngx_http_ai_usage_t *usage);
static ngx_int_t ngx_http_ai_cache_decode(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_meta_t *meta, u_char *data, size_t len,
    ngx_http_ai_cache_recode_t *rec);
static ngx_int_t ngx_http_ai_cache_decode_events(
    ngx_http_ai_dialect_t *dialect, ngx_http_ai_decoder_t *dec, u_char *data,
    size_t len, ngx_http_ai_cache_recode_t *rec);
static void ngx_http_ai_cache_relay(ngx_http_ai_decoder_t *dec,
    ngx_http_ai_sse_event_t *ev, ngx_http_ai_cache_recode_t *rec);
static ngx_int_t ngx_http_ai_cache_sink(void *data, ngx_http_ai_event_t *ev);


ngx_int_t
ngx_http_ai_cache_recode(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_found_t *found, ngx_str_t *data)
{
    size_t                       size;
    ngx_int_t                    rc;
    ngx_http_ai_out_t            out, relay;
    ngx_http_ai_usage_t          usage;
    ngx_http_ai_encoder_t        enc;
    ngx_http_ai_cache_meta_t    *meta;
    ngx_http_ai_cache_recode_t   rec;

    meta = &found->meta;

    ngx_memzero(&rec, sizeof(ngx_http_ai_cache_recode_t));

    rec.enc = &enc;
    rec.dialect = c->ctx->dialect;

    if (meta->usage_state == NGX_HTTP_AI_USAGE_PROVIDER) {
        ngx_http_ai_cache_get_usage(meta, &usage);
        usage.cost = c->ctx->cost_usage ? 0 : -1;
        rec.usage = &usage;
    }

    size = found->data.len + 1024;

    if (meta->stream && c->meta.stream && meta->dialect == c->meta.dialect
        && !c->ctx->cost_usage)
    {

        ngx_http_ai_cache_renew(c, &found->data);

        if (ngx_http_ai_out_init(&relay, c->request->pool, size) != NGX_OK) {
            return NGX_ERROR;
        }

        rec.relay = &relay;
        size = 1024;
    }

    if (ngx_http_ai_out_init(&out, c->request->pool, size) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_memzero(&enc, sizeof(ngx_http_ai_encoder_t));
    enc.out = &out;

    if (ngx_http_ai_cache_encoder(c, &enc, rec.usage) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_http_ai_cache_decode(c, meta, found->data.data, found->data.len,
                                  &rec);

    if (rc != NGX_OK) {
        return rc;
    }

    if (rec.relay) {
        out = relay;
    }

    if (out.failed) {
        return NGX_ERROR;
    }

    data->data = out.start;
    data->len = out.last - out.start;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_cache_encoder(ngx_http_ai_cached_t *c, ngx_http_ai_encoder_t *enc,
    ngx_http_ai_usage_t *usage)
{
    ngx_http_ai_ctx_t  *ctx;

    ctx = c->ctx;

    enc->pool = c->request->pool;
    enc->op = ctx->op;
    enc->model = ctx->request_model;
    enc->id = ctx->request_id;
    enc->now = ngx_time();
    enc->stream = ctx->stream;
    enc->include_usage = ctx->include_usage;

    if (ctx->stream) {
        enc->input_estimate = usage ? ngx_max(usage->in_fresh, 0)
                                    : c->api->input_estimate(ctx);
    }

    if (enc->id.len > 4 && ngx_strncmp(enc->id.data, "req_", 4) == 0) {
        enc->id.data += 4;
        enc->id.len -= 4;
    }

    return ctx->dialect->encode_init(enc);
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
        rc = ngx_http_ai_cache_decode_events(dialect, &dec, data, len, rec);

    } else {
        rc = dialect->decode_body(&dec, data, len);
    }

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    return (rc == NGX_OK && rec->ended) ? NGX_OK : NGX_DECLINED;
}


static ngx_int_t
ngx_http_ai_cache_decode_events(ngx_http_ai_dialect_t *dialect,
    ngx_http_ai_decoder_t *dec, u_char *data, size_t len,
    ngx_http_ai_cache_recode_t *rec)
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

        dec->usage_only = 0;

        if (ev.has_data) {
            rc = dialect->decode_event(dec, &ev.name, &ev.data);

            if (rc != NGX_OK && rc != NGX_DECLINED) {
                return rc;
            }
        }

        if (rec->relay) {
            ngx_http_ai_cache_relay(dec, &ev, rec);
        }
    }

    return NGX_OK;
}


static void
ngx_http_ai_cache_relay(ngx_http_ai_decoder_t *dec,
    ngx_http_ai_sse_event_t *ev, ngx_http_ai_cache_recode_t *rec)
{
    ngx_http_ai_out_t  *out;

    out = rec->enc->out;

    if (dec->done && rec->usage && rec->enc->include_usage && !rec->told) {
        /* the encoder's end has the usage before it */
        ngx_http_ai_out_mem(rec->relay, out->start, out->last - out->start);
        return;
    }

    /* it only keeps pace */
    out->last = out->start;

    if (!dec->usage_only || rec->enc->include_usage) {
        ngx_http_ai_out_str(rec->relay, &ev->raw);
    }
}


static ngx_int_t
ngx_http_ai_cache_sink(void *data, ngx_http_ai_event_t *ev)
{
    ngx_http_ai_cache_recode_t *rec = data;

    ngx_http_ai_event_t  e;

    e = *ev;

    switch (ev->type) {

    case NGX_HTTP_AI_EV_START:

        if (rec->relay == NULL) {
            /* the encoder has a new id, and the time */
            ngx_str_null(&e.id);
            e.created = 0;
        }

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

        rec->told = 1;

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
