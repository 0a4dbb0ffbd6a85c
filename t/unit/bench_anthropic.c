
/*
 * Copyright (C) nginx AI gateway authors
 */


/* Times of decoding and encoding one event; not a test. */


#include "test.h"
#include "ngx_http_ai_dialect.h"


#define ROUNDS  2000000


static ngx_http_ai_encoder_t  *encode_to;
static ngx_http_ai_dialect_t  *encode_as;


static double
now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return ts.tv_sec * 1e9 + ts.tv_nsec;
}


static ngx_int_t
sink(void *data, ngx_http_ai_event_t *ev)
{
    return encode_to ? encode_as->encode_event(encode_to, ev) : NGX_OK;
}


static void
run(const char *title, ngx_http_ai_dialect_t *to)
{
    double                  start;
    ngx_str_t               name, data;
    ngx_pool_t             *pool;
    ngx_uint_t              i;
    ngx_http_ai_out_t       out;
    ngx_http_ai_decoder_t   dec;
    ngx_http_ai_encoder_t   enc;

    static u_char  event[] =
        "{\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":"
        "\"text_delta\",\"text\":\"the usual length of a delta is that of "
        "some words, as here, of a text\"}    }";

    pool = ngx_create_pool(4096, NULL);

    ngx_memzero(&dec, sizeof(dec));
    ngx_memzero(&enc, sizeof(enc));

    dec.pool = pool;
    dec.op = NGX_HTTP_AI_OP_CHAT;
    dec.sink.handler = sink;

    ngx_http_ai_dialect_anthropic.decode_init(&dec);

    encode_to = NULL;

    if (to) {
        ngx_http_ai_out_init(&out, pool, 65536);
        enc.pool = pool;
        enc.op = NGX_HTTP_AI_OP_CHAT;
        enc.out = &out;
        enc.stream = 1;
        ngx_str_set(&enc.model, "m");
        ngx_str_set(&enc.id, "i");
        to->encode_init(&enc);
        encode_to = &enc;
        encode_as = to;
    }

    ngx_str_null(&name);
    data.data = event;
    data.len = sizeof(event) - 1;

    start = now();

    for (i = 0; i < ROUNDS; i++) {
        ngx_http_ai_dialect_anthropic.decode_event(&dec, &name, &data);

        if (to) {
            out.last = out.start;
        }
    }

    printf("%-36s %4d bytes  %6.0f ns\n", title, (int) data.len,
           (now() - start) / ROUNDS);

    ngx_destroy_pool(pool);
}


int
main(void)
{
    run("anthropic event", NULL);
    run("anthropic event to anthropic", &ngx_http_ai_dialect_anthropic);
    run("anthropic event to openai", &ngx_http_ai_dialect_openai);

    return 0;
}
