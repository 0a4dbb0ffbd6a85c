
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_dialect.h"
#include "ngx_http_ai_dialect_openai.h"


static int64_t ngx_http_ai_openai_figure(ngx_http_ai_json_t *j, ngx_uint_t n);


ngx_int_t
ngx_http_ai_openai_usage(ngx_http_ai_decoder_t *dec, ngx_http_ai_json_t *j,
    ngx_uint_t n, ngx_str_t *tier)
{
    int64_t                    v, in, out, total, audio;
    ngx_uint_t                 i, d;
    ngx_http_ai_event_t        ev;
    ngx_http_ai_usage_t       *u;
    ngx_http_ai_openai_dec_t  *ctx;

    ctx = dec->ctx;
    u = &ctx->usage;

    ngx_http_ai_usage_init(u);

    in = -1;
    out = -1;
    total = -1;

    for (i = ngx_http_ai_json_first(j, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, n, i))
    {
        if (ngx_http_ai_json_key_is(j, i, "prompt_tokens")) {
            in = ngx_http_ai_openai_figure(j, i + 1);

        } else if (ngx_http_ai_json_key_is(j, i, "completion_tokens")) {
            out = ngx_http_ai_openai_figure(j, i + 1);

        } else if (ngx_http_ai_json_key_is(j, i, "total_tokens")) {
            total = ngx_http_ai_openai_figure(j, i + 1);

        } else if (ngx_http_ai_json_key_is(j, i, "prompt_tokens_details")) {
            d = i + 1;

            v = ngx_http_ai_openai_figure(j,
                              ngx_http_ai_json_member(j, d, "cached_tokens"));
            if (v >= 0) {
                u->cache_read = v;
            }

            u->cache_write = ngx_http_ai_openai_figure(j,
                         ngx_http_ai_json_member(j, d, "cache_write_tokens"));

            u->audio_in = ngx_http_ai_openai_figure(j,
                               ngx_http_ai_json_member(j, d, "audio_tokens"));

        } else if (ngx_http_ai_json_key_is(j, i, "completion_tokens_details"))
        {
            d = i + 1;

            u->reasoning = ngx_http_ai_openai_figure(j,
                           ngx_http_ai_json_member(j, d, "reasoning_tokens"));

            u->audio_out = ngx_http_ai_openai_figure(j,
                               ngx_http_ai_json_member(j, d, "audio_tokens"));

        } else if (ngx_http_ai_json_key_is(j, i, "prompt_cache_hit_tokens")
                   || ngx_http_ai_json_key_is(j, i, "cached_tokens")
                   || ngx_http_ai_json_key_is(j, i, "num_cached_tokens"))
        {
            /* DeepSeek, Together, Mistral */

            v = ngx_http_ai_openai_figure(j, i + 1);

            if (v >= 0 && u->cache_read < 0) {
                u->cache_read = v;
            }

        } else if (ngx_http_ai_json_key_is(j, i, "service_tier")
                   && j->nodes[i + 1].type == NGX_HTTP_AI_JSON_STRING)
        {
            u->service_tier = ngx_http_ai_json_raw(j, i + 1);
        }
    }

    if (in < 0 && out < 0 && total < 0) {
        return NGX_OK;
    }

    if (in < 0 && out < 0) {
        in = total;
    }

    audio = ngx_http_ai_max(u->audio_in, 0);

    if (in >= 0 && out >= 0 && total > in && total - in > out) {

        if (audio && total - in - out == audio) {

            /* Mistral leaves audio out of the prompt */

            in += audio;

        } else {

            /* Gemini and xAI leave thoughts out of the completion */

            if (u->reasoning < 0) {
                u->reasoning = total - in - out;
            }

            out = total - in;
        }
    }

    if (in >= 0) {
        v = in;

        if (u->cache_read > 0) {
            v -= ngx_http_ai_min(u->cache_read, v);
        }

        if (u->cache_write > 0) {
            v -= ngx_http_ai_min(u->cache_write, v);
        }

        u->in_fresh = v;
    }

    u->out = out;

    if (dec->op == NGX_HTTP_AI_OP_EMBEDDINGS) {
        u->out = 0;
    }

    if (tier->len) {
        u->service_tier = *tier;
    }

    ctx->metered = 1;

    ngx_memzero(&ev, sizeof(ngx_http_ai_event_t));

    ev.type = NGX_HTTP_AI_EV_USAGE;
    ev.usage = u;

    return dec->sink.handler(dec->sink.data, &ev);
}


/* llama.cpp's, for want of better */

ngx_int_t
ngx_http_ai_openai_timings(ngx_http_ai_decoder_t *dec, ngx_uint_t n)
{
    ngx_http_ai_json_t        *j;
    ngx_http_ai_event_t        ev;
    ngx_http_ai_usage_t       *u;
    ngx_http_ai_openai_dec_t  *ctx;

    ctx = dec->ctx;
    j = &dec->json;
    u = &ctx->usage;

    ngx_http_ai_usage_init(u);

    u->in_fresh = ngx_http_ai_openai_figure(j,
                                   ngx_http_ai_json_member(j, n, "prompt_n"));
    u->cache_read = ngx_http_ai_openai_figure(j,
                                    ngx_http_ai_json_member(j, n, "cache_n"));
    u->out = ngx_http_ai_openai_figure(j,
                                ngx_http_ai_json_member(j, n, "predicted_n"));

    if (u->in_fresh < 0 && u->out < 0) {
        return NGX_OK;
    }

    ngx_memzero(&ev, sizeof(ngx_http_ai_event_t));

    ev.type = NGX_HTTP_AI_EV_USAGE;
    ev.usage = u;

    return dec->sink.handler(dec->sink.data, &ev);
}


static int64_t
ngx_http_ai_openai_figure(ngx_http_ai_json_t *j, ngx_uint_t n)
{
    int64_t  v;

    if (n == NGX_HTTP_AI_JSON_NONE
        || ngx_http_ai_json_int(j, n, &v) != NGX_OK
        || v < 0)
    {
        return -1;
    }

    /* sums of figures must not overflow */

    return ngx_http_ai_min(v, 1000000000000000);
}


ngx_int_t
ngx_http_ai_openai_embeddings(ngx_http_ai_decoder_t *dec)
{
    ngx_int_t            rc;
    ngx_str_t            usage, tier;
    ngx_http_ai_json_t  *j;

    j = &dec->json;

    usage = ngx_http_ai_json_raw(j, ngx_http_ai_json_member(j, 0, "usage"));
    ngx_str_null(&tier);

    j->shallow = 0;
    j->max_nodes = NGX_HTTP_AI_OPENAI_MAX_NODES;

    rc = ngx_http_ai_json_parse(j, usage.data, usage.len);
    if (rc != NGX_OK) {
        return rc;
    }

    return ngx_http_ai_openai_usage(dec, j, 0, &tier);
}
