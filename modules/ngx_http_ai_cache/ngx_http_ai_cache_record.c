
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_cache_record.h"


#define NGX_HTTP_AI_CACHE_PRIME  0x9e3779b97f4a7c15ull


static void ngx_http_ai_cache_sum_stripes(uint64_t *lanes, u_char *p,
    u_char *last);
static uint64_t ngx_http_ai_cache_sum_last(uint64_t *lanes, u_char *rest,
    uint64_t size);


/* the last byte is the version of what follows */

static u_char  ngx_http_ai_cache_magic[8] = {
    'N', 'A', 'I', 'C', 0,
#if (NGX_HAVE_LITTLE_ENDIAN)
    'l',
#else
    'b',
#endif
    0, 1
};


static uint64_t  ngx_http_ai_cache_lanes[4] = {
    NGX_HTTP_AI_CACHE_PRIME,
    NGX_HTTP_AI_CACHE_PRIME * 2,
    NGX_HTTP_AI_CACHE_PRIME * 3,
    NGX_HTTP_AI_CACHE_PRIME * 4
};


void
ngx_http_ai_cache_sum_init(ngx_http_ai_cache_sum_t *sum)
{
    ngx_memcpy(sum->lanes, ngx_http_ai_cache_lanes, sizeof(sum->lanes));
    sum->size = 0;
}


/* four lanes, as a multiplication waits for the one before */

static void
ngx_http_ai_cache_sum_stripes(uint64_t *lanes, u_char *p, u_char *last)
{
    uint64_t  a, b, c, d, w;

    a = lanes[0];
    b = lanes[1];
    c = lanes[2];
    d = lanes[3];

    while (p < last) {
        ngx_memcpy(&w, p, 8);
        a = (a ^ w) * NGX_HTTP_AI_CACHE_PRIME;
        a ^= a >> 32;

        ngx_memcpy(&w, p + 8, 8);
        b = (b ^ w) * NGX_HTTP_AI_CACHE_PRIME;
        b ^= b >> 32;

        ngx_memcpy(&w, p + 16, 8);
        c = (c ^ w) * NGX_HTTP_AI_CACHE_PRIME;
        c ^= c >> 32;

        ngx_memcpy(&w, p + 24, 8);
        d = (d ^ w) * NGX_HTTP_AI_CACHE_PRIME;
        d ^= d >> 32;

        p += 32;
    }

    lanes[0] = a;
    lanes[1] = b;
    lanes[2] = c;
    lanes[3] = d;
}


void
ngx_http_ai_cache_sum_add(ngx_http_ai_cache_sum_t *sum, u_char *data,
    size_t size)
{
    size_t  have, n;

    if (size == 0) {
        return;
    }

    have = sum->size & 31;
    sum->size += size;

    if (have) {
        n = ngx_min(32 - have, size);

        ngx_memcpy(sum->rest + have, data, n);

        if (have + n < 32) {
            return;
        }

        ngx_http_ai_cache_sum_stripes(sum->lanes, sum->rest, sum->rest + 32);

        data += n;
        size -= n;
    }

    n = size & ~(size_t) 31;

    ngx_http_ai_cache_sum_stripes(sum->lanes, data, data + n);

    if (size > n) {
        ngx_memcpy(sum->rest, data + n, size - n);
    }
}


uint64_t
ngx_http_ai_cache_sum_end(ngx_http_ai_cache_sum_t *sum)
{
    return ngx_http_ai_cache_sum_last(sum->lanes, sum->rest, sum->size);
}


uint64_t
ngx_http_ai_cache_sum(u_char *data, size_t size)
{
    size_t    n;
    uint64_t  lanes[4];

    ngx_memcpy(lanes, ngx_http_ai_cache_lanes, sizeof(lanes));

    n = size & ~(size_t) 31;

    if (n) {
        ngx_http_ai_cache_sum_stripes(lanes, data, data + n);
        data += n;
    }

    return ngx_http_ai_cache_sum_last(lanes, data, size);
}


static uint64_t
ngx_http_ai_cache_sum_last(uint64_t *lanes, u_char *rest, uint64_t size)
{
    size_t      have;
    u_char      stripe[32];
    uint64_t    h;
    ngx_uint_t  i;

    have = size & 31;

    if (have) {
        ngx_memzero(stripe, sizeof(stripe));
        ngx_memcpy(stripe, rest, have);

        ngx_http_ai_cache_sum_stripes(lanes, stripe, stripe + 32);
    }

    h = size;

    for (i = 0; i < 4; i++) {
        h = (h ^ lanes[i]) * NGX_HTTP_AI_CACHE_PRIME;
        h ^= h >> 29;
    }

    return h;
}


uint64_t
ngx_http_ai_cache_hash(u_char *data, size_t len)
{
    uint64_t  h;

    h = ngx_http_ai_cache_sum(data, len);

    return h ? h : 1;
}


void
ngx_http_ai_cache_head_write(ngx_http_ai_cache_head_t *head,
    ngx_http_ai_cache_meta_t *meta)
{
    ngx_memcpy(head->magic, ngx_http_ai_cache_magic, 8);

    head->meta = *meta;
    head->sum = ngx_http_ai_cache_sum((u_char *) meta,
                                      sizeof(ngx_http_ai_cache_meta_t));
}


ngx_int_t
ngx_http_ai_cache_record_read(u_char *p, size_t len, u_char *id,
    ngx_http_ai_cache_meta_t *meta, ngx_str_t *data)
{
    ngx_http_ai_cache_head_t  head;

    if (len < sizeof(ngx_http_ai_cache_head_t)) {
        return NGX_DECLINED;
    }

    ngx_memcpy(&head, p, sizeof(ngx_http_ai_cache_head_t));

    data->data = p + sizeof(ngx_http_ai_cache_head_t);
    data->len = len - sizeof(ngx_http_ai_cache_head_t);

    if (ngx_memcmp(head.magic, ngx_http_ai_cache_magic, 8) != 0
        || head.sum != ngx_http_ai_cache_sum((u_char *) &head.meta,
                                             sizeof(ngx_http_ai_cache_meta_t))
        || ngx_memcmp(head.meta.id, id, NGX_HTTP_AI_CACHE_ID) != 0
        || head.meta.size != data->len
        || head.meta.sum != ngx_http_ai_cache_sum(data->data, data->len))
    {
        return NGX_DECLINED;
    }

    *meta = head.meta;

    return NGX_OK;
}


void
ngx_http_ai_cache_set_usage(ngx_http_ai_cache_meta_t *meta,
    ngx_http_ai_usage_t *u)
{
    meta->usage[0] = u->in_fresh;
    meta->usage[1] = u->cache_read;
    meta->usage[2] = u->cache_write;
    meta->usage[3] = u->cache_write_1h;
    meta->usage[4] = u->out;
    meta->usage[5] = u->reasoning;
    meta->usage[6] = u->audio_in;
    meta->usage[7] = u->audio_out;
}


void
ngx_http_ai_cache_get_usage(ngx_http_ai_cache_meta_t *meta,
    ngx_http_ai_usage_t *u)
{
    ngx_memzero(u, sizeof(ngx_http_ai_usage_t));

    u->cost = -1;
    u->in_fresh = meta->usage[0];
    u->cache_read = meta->usage[1];
    u->cache_write = meta->usage[2];
    u->cache_write_1h = meta->usage[3];
    u->out = meta->usage[4];
    u->reasoning = meta->usage[5];
    u->audio_in = meta->usage[6];
    u->audio_out = meta->usage[7];
}
