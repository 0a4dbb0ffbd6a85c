
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_cache_batch.h"


#define NGX_HTTP_AI_CACHE_BUCKETS  (2 * NGX_HTTP_AI_CACHE_BATCH_MAX)

/* levels of an answer that are read: its members, "data", members of these;
 * vectors are left as they are */

#define NGX_HTTP_AI_CACHE_LEVELS   3


/* figures of "usage" that are of the inputs */

typedef struct {
    int64_t                    prompt;    /* -1: not told */
    int64_t                    total;
} ngx_http_ai_cache_figures_t;


static ngx_uint_t ngx_http_ai_cache_batch_input(ngx_http_ai_json_t *j,
    ngx_uint_t n);
static void ngx_http_ai_cache_batch_same(ngx_http_ai_cache_batch_t *batch);
static ngx_uint_t ngx_http_ai_cache_batch_misses(
    ngx_http_ai_cache_batch_t *batch, ngx_uint_t i);
static ngx_int_t ngx_http_ai_cache_batch_read(ngx_http_ai_json_t *j,
    ngx_str_t *answer, ngx_uint_t *data);
static ngx_int_t ngx_http_ai_cache_batch_order(ngx_http_ai_json_t *j,
    ngx_uint_t data, ngx_uint_t *items, ngx_uint_t n);
static ngx_uint_t ngx_http_ai_cache_batch_item(ngx_http_ai_json_t *j,
    ngx_uint_t n);
static void ngx_http_ai_cache_batch_figures(ngx_http_ai_json_t *j,
    ngx_uint_t usage, ngx_http_ai_cache_figures_t *f);
static int64_t ngx_http_ai_cache_batch_share(int64_t figure, uint64_t from,
    uint64_t to, uint64_t all);
static void ngx_http_ai_cache_batch_answer(ngx_http_ai_out_t *out,
    ngx_http_ai_json_t *j, ngx_str_t *data, ngx_str_t *usage,
    ngx_http_ai_cache_figures_t *f);
static void ngx_http_ai_cache_batch_usage(ngx_http_ai_out_t *out,
    ngx_http_ai_json_t *j, ngx_uint_t usage, ngx_http_ai_cache_figures_t *f);
static void ngx_http_ai_cache_batch_vector(ngx_http_ai_out_t *out,
    ngx_http_ai_json_t *j, ngx_uint_t item, ngx_uint_t index);
static void ngx_http_ai_cache_batch_member(ngx_http_ai_out_t *out,
    ngx_http_ai_json_t *j, ngx_uint_t obj, ngx_uint_t i, ngx_uint_t value);


ngx_int_t
ngx_http_ai_cache_batch(ngx_pool_t *pool, ngx_http_ai_cache_ask_t *ask,
    ngx_http_ai_cache_batch_t *batch)
{
    ngx_int_t                 rc;
    ngx_uint_t                i, k, n, array;
    ngx_http_ai_json_t       *j;
    ngx_http_ai_cache_key_t  *keys;

    j = ask->json;

    ngx_memzero(batch, sizeof(ngx_http_ai_cache_batch_t));

    batch->pool = pool;

    if (ask->op != NGX_HTTP_AI_OP_EMBEDDINGS) {
        return NGX_DECLINED;
    }

    array = ngx_http_ai_json_member(j, 0, "input");

    if (ngx_http_ai_json_type(j, array) != NGX_HTTP_AI_JSON_ARRAY
        || j->nodes[array].count < 2
        || j->nodes[array].count > NGX_HTTP_AI_CACHE_BATCH_MAX
        || ngx_http_ai_json_duplicate(j, 0, "input", sizeof("input") - 1))
    {
        return NGX_DECLINED;
    }

    for (i = ngx_http_ai_json_first(j, array);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, array, i))
    {
        if (j->nodes[i].type != j->nodes[array + 1].type
            || !ngx_http_ai_cache_batch_input(j, i))
        {
            return NGX_DECLINED;
        }
    }

    n = j->nodes[array].count;

    keys = ngx_palloc(pool, n * sizeof(ngx_http_ai_cache_key_t));
    if (keys == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_http_ai_cache_key_inputs(pool, ask, array, keys);
    if (rc != NGX_OK) {
        return rc;
    }

    batch->inputs = ngx_pcalloc(pool, n * sizeof(ngx_http_ai_cache_input_t));
    if (batch->inputs == NULL) {
        return NGX_ERROR;
    }

    k = 0;

    for (i = ngx_http_ai_json_first(j, array);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, array, i))
    {
        batch->inputs[k].key = keys[k];
        batch->inputs[k].input = ngx_http_ai_json_value(j, i);
        k++;
    }

    batch->ninputs = n;
    batch->text = ngx_http_ai_json_raw(j, 0);
    batch->array = ngx_http_ai_json_raw(j, array);

    ngx_http_ai_cache_batch_same(batch);

    return NGX_OK;
}


/* a text, or a list of tokens */

static ngx_uint_t
ngx_http_ai_cache_batch_input(ngx_http_ai_json_t *j, ngx_uint_t n)
{
    ngx_uint_t  i;

    if (j->nodes[n].type == NGX_HTTP_AI_JSON_STRING) {
        return 1;
    }

    if (j->nodes[n].type != NGX_HTTP_AI_JSON_ARRAY) {
        return 0;
    }

    for (i = n + 1; i < j->nodes[n].next; i++) {
        if (j->nodes[i].type != NGX_HTTP_AI_JSON_NUMBER) {
            return 0;
        }
    }

    return 1;
}


static void
ngx_http_ai_cache_batch_same(ngx_http_ai_cache_batch_t *batch)
{
    uint16_t    buckets[NGX_HTTP_AI_CACHE_BUCKETS];
    uint32_t    hash;
    ngx_uint_t  i, h, k;

    /* an id is as good as any hash of it */

    ngx_memzero(buckets, sizeof(buckets));

    for (i = 0; i < batch->ninputs; i++) {

        batch->inputs[i].same = i;

        ngx_memcpy(&hash, batch->inputs[i].key.id, sizeof(uint32_t));

        for (h = hash % NGX_HTTP_AI_CACHE_BUCKETS;
             buckets[h];
             h = (h + 1) % NGX_HTTP_AI_CACHE_BUCKETS)
        {
            k = buckets[h] - 1;

            if (ngx_memcmp(batch->inputs[k].key.id, batch->inputs[i].key.id,
                           NGX_HTTP_AI_CACHE_ID_LEN)
                == 0)
            {
                batch->inputs[i].same = k;
                break;
            }
        }

        if (batch->inputs[i].same == i) {
            buckets[h] = (uint16_t) (i + 1);
        }
    }
}


static ngx_uint_t
ngx_http_ai_cache_batch_misses(ngx_http_ai_cache_batch_t *batch, ngx_uint_t i)
{
    return batch->inputs[i].same == i && batch->inputs[i].stored.data == NULL;
}


ngx_uint_t
ngx_http_ai_cache_batch_missing(ngx_http_ai_cache_batch_t *batch)
{
    ngx_uint_t  i, n;

    n = 0;

    for (i = 0; i < batch->ninputs; i++) {
        n += ngx_http_ai_cache_batch_misses(batch, i);
    }

    return n;
}


ngx_int_t
ngx_http_ai_cache_batch_body(ngx_http_ai_cache_batch_t *batch,
    ngx_str_t *body)
{
    u_char             *end;
    ngx_uint_t          i, n;
    ngx_http_ai_out_t   out;

    if (ngx_http_ai_out_init(&out, batch->pool, batch->text.len) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_ai_out_mem(&out, batch->text.data,
                        batch->array.data - batch->text.data);
    ngx_http_ai_out_lit(&out, "[");

    n = 0;

    for (i = 0; i < batch->ninputs; i++) {

        if (!ngx_http_ai_cache_batch_misses(batch, i)) {
            continue;
        }

        if (n++) {
            ngx_http_ai_out_lit(&out, ",");
        }

        ngx_http_ai_out_str(&out, &batch->inputs[i].input);
    }

    ngx_http_ai_out_lit(&out, "]");

    end = batch->array.data + batch->array.len;

    ngx_http_ai_out_mem(&out, end,
                        batch->text.data + batch->text.len - end);

    body->data = out.start;
    body->len = out.last - out.start;

    return out.failed ? NGX_ERROR : NGX_OK;
}


ngx_int_t
ngx_http_ai_cache_batch_split(ngx_http_ai_cache_batch_t *batch,
    ngx_str_t *answer)
{
    uint64_t                      all, before, length;
    ngx_int_t                     rc;
    ngx_str_t                     data;
    ngx_uint_t                    i, k, n, list, usage, *items;
    ngx_http_ai_out_t             out, vector;
    ngx_http_ai_json_t            j;
    ngx_http_ai_cache_input_t    *input;
    ngx_http_ai_cache_figures_t   all_figures, figures;

    n = ngx_http_ai_cache_batch_missing(batch);

    ngx_memzero(&j, sizeof(ngx_http_ai_json_t));
    j.pool = batch->pool;

    rc = ngx_http_ai_cache_batch_read(&j, answer, &list);
    if (rc != NGX_OK) {
        return rc;
    }

    if (n == 0 || j.nodes[list].count != n) {
        return NGX_DECLINED;
    }

    items = ngx_pcalloc(batch->pool, n * sizeof(ngx_uint_t));
    if (items == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_http_ai_cache_batch_order(&j, list, items, n);
    if (rc != NGX_OK) {
        return rc;
    }

    usage = ngx_http_ai_json_member(&j, 0, "usage");

    batch->asked = 1;
    batch->usage = ngx_http_ai_json_raw(&j, usage);

    ngx_http_ai_cache_batch_figures(&j, usage, &all_figures);

    all = 0;

    for (i = 0; i < batch->ninputs; i++) {
        if (ngx_http_ai_cache_batch_misses(batch, i)) {
            all += batch->inputs[i].input.len;
        }
    }

    before = 0;
    k = 0;

    for (i = 0; i < batch->ninputs; i++) {

        if (!ngx_http_ai_cache_batch_misses(batch, i)) {
            continue;
        }

        input = &batch->inputs[i];
        length = input->input.len;

        /* the provider tells the sum only: by length, so that it stays one */

        figures.prompt = ngx_http_ai_cache_batch_share(all_figures.prompt,
                                                       before, before + length,
                                                       all);
        figures.total = ngx_http_ai_cache_batch_share(all_figures.total,
                                                      before, before + length,
                                                      all);
        before += length;

        if (ngx_http_ai_out_init(&vector, batch->pool,
                                 j.nodes[items[k]].len + NGX_INT64_LEN)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        ngx_http_ai_out_lit(&vector, "[");
        ngx_http_ai_cache_batch_vector(&vector, &j, items[k], 0);
        ngx_http_ai_out_lit(&vector, "]");

        data.data = vector.start;
        data.len = vector.last - vector.start;

        if (ngx_http_ai_out_init(&out, batch->pool, data.len + 256)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        ngx_http_ai_cache_batch_answer(&out, &j, &data, NULL, &figures);

        if (out.failed || vector.failed) {
            return NGX_ERROR;
        }

        (void) ngx_pfree(batch->pool, vector.start);

        input->stored.data = out.start;
        input->stored.len = out.last - out.start;
        input->fresh = 1;

        k++;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_cache_batch_merge(ngx_http_ai_cache_batch_t *batch,
    ngx_str_t *answer)
{
    size_t                        size;
    ngx_int_t                     rc;
    ngx_str_t                     data, *stored;
    ngx_uint_t                    i, base, list;
    ngx_http_ai_out_t             out, vectors;
    ngx_http_ai_json_t            j;
    ngx_http_ai_cache_figures_t   sum, figures;

    /* members besides the vectors are those of the newest answer */

    base = 0;
    size = 0;

    for (i = 0; i < batch->ninputs; i++) {
        stored = &batch->inputs[batch->inputs[i].same].stored;

        if (stored->data == NULL) {
            return NGX_DECLINED;
        }

        if (batch->inputs[i].fresh && !batch->inputs[base].fresh) {
            base = i;
        }

        size += stored->len;
    }

    if (ngx_http_ai_out_init(&vectors, batch->pool, size) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_ai_out_lit(&vectors, "[");

    ngx_memzero(&j, sizeof(ngx_http_ai_json_t));
    j.pool = batch->pool;

    ngx_memzero(&sum, sizeof(ngx_http_ai_cache_figures_t));

    for (i = 0; i < batch->ninputs; i++) {

        stored = &batch->inputs[batch->inputs[i].same].stored;

        rc = ngx_http_ai_cache_batch_read(&j, stored, &list);
        if (rc != NGX_OK) {
            return rc;
        }

        if (j.nodes[list].count != 1
            || !ngx_http_ai_cache_batch_item(&j, list + 1))
        {
            return NGX_DECLINED;
        }

        if (i) {
            ngx_http_ai_out_lit(&vectors, ",");
        }

        ngx_http_ai_cache_batch_vector(&vectors, &j, list + 1, i);

        ngx_http_ai_cache_batch_figures(&j,
                               ngx_http_ai_json_member(&j, 0, "usage"),
                               &figures);

        sum.prompt += ngx_http_ai_max(figures.prompt, 0);
        sum.total += ngx_http_ai_max(figures.total, 0);
    }

    ngx_http_ai_out_lit(&vectors, "]");

    stored = &batch->inputs[batch->inputs[base].same].stored;

    rc = ngx_http_ai_cache_batch_read(&j, stored, &list);
    if (rc != NGX_OK) {
        return rc;
    }

    data.data = vectors.start;
    data.len = vectors.last - vectors.start;

    if (ngx_http_ai_out_init(&out, batch->pool, data.len + 512) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_ai_cache_batch_answer(&out, &j, &data,
                                   batch->asked ? &batch->usage : NULL, &sum);

    if (out.failed || vectors.failed) {
        return NGX_ERROR;
    }

    (void) ngx_pfree(batch->pool, vectors.start);

    answer->data = out.start;
    answer->len = out.last - out.start;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_cache_batch_read(ngx_http_ai_json_t *j, ngx_str_t *answer,
    ngx_uint_t *data)
{
    ngx_int_t   rc;
    ngx_uint_t  n;

    j->shallow = NGX_HTTP_AI_CACHE_LEVELS;

    rc = ngx_http_ai_json_parse(j, answer->data, answer->len);
    if (rc != NGX_OK) {
        return rc;
    }

    n = ngx_http_ai_json_member(j, 0, "data");

    if (ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_ARRAY
        || ngx_http_ai_json_duplicate(j, 0, "data", sizeof("data") - 1))
    {
        return NGX_DECLINED;
    }

    *data = n;

    return NGX_OK;
}


/* items[] by their "index", or as they came */

static ngx_int_t
ngx_http_ai_cache_batch_order(ngx_http_ai_json_t *j, ngx_uint_t data,
    ngx_uint_t *items, ngx_uint_t n)
{
    int64_t     v;
    ngx_uint_t  i, k, index;

    k = 0;

    for (i = ngx_http_ai_json_first(j, data);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, data, i))
    {
        if (!ngx_http_ai_cache_batch_item(j, i)) {
            return NGX_DECLINED;
        }

        v = k++;
        index = ngx_http_ai_json_member(j, i, "index");

        if (index != NGX_HTTP_AI_JSON_NONE
            && ngx_http_ai_json_int(j, index, &v) != NGX_OK)
        {
            return NGX_DECLINED;
        }

        if (v < 0 || v >= (int64_t) n || items[v]) {
            return NGX_DECLINED;
        }

        items[v] = i;
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_http_ai_cache_batch_item(ngx_http_ai_json_t *j, ngx_uint_t n)
{
    ngx_uint_t  type;

    type = ngx_http_ai_json_type(j, ngx_http_ai_json_member(j, n,
                                                            "embedding"));

    return type == NGX_HTTP_AI_JSON_ARRAY || type == NGX_HTTP_AI_JSON_STRING;
}


static void
ngx_http_ai_cache_batch_figures(ngx_http_ai_json_t *j, ngx_uint_t usage,
    ngx_http_ai_cache_figures_t *f)
{
    f->prompt = -1;
    f->total = -1;

    (void) ngx_http_ai_json_int(j,
                           ngx_http_ai_json_member(j, usage, "prompt_tokens"),
                           &f->prompt);
    (void) ngx_http_ai_json_int(j,
                           ngx_http_ai_json_member(j, usage, "total_tokens"),
                           &f->total);
}


static int64_t
ngx_http_ai_cache_batch_share(int64_t figure, uint64_t from, uint64_t to,
    uint64_t all)
{
    /* no input is so long that its tokens do not fit */

    if (figure < 0 || figure > NGX_MAX_INT32_VALUE) {
        return -1;
    }

    return (int64_t) ((uint64_t) figure * to / all
                      - (uint64_t) figure * from / all);
}


/* the members of j with other data; and with usage, or figures in it */

static void
ngx_http_ai_cache_batch_answer(ngx_http_ai_out_t *out, ngx_http_ai_json_t *j,
    ngx_str_t *data, ngx_str_t *usage, ngx_http_ai_cache_figures_t *f)
{
    ngx_uint_t  i, value;

    ngx_http_ai_out_lit(out, "{");

    for (i = ngx_http_ai_json_first(j, 0);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, 0, i))
    {
        value = i + 1;

        if (ngx_http_ai_json_key_is(j, i, "data")) {
            ngx_http_ai_cache_batch_member(out, j, 0, i,
                                           NGX_HTTP_AI_JSON_NONE);
            ngx_http_ai_out_str(out, data);
            continue;
        }

        if (!ngx_http_ai_json_key_is(j, i, "usage")
            || j->nodes[value].type != NGX_HTTP_AI_JSON_OBJECT)
        {
            ngx_http_ai_cache_batch_member(out, j, 0, i, value);
            continue;
        }

        ngx_http_ai_cache_batch_member(out, j, 0, i, NGX_HTTP_AI_JSON_NONE);

        if (usage && usage->len) {
            ngx_http_ai_out_str(out, usage);

        } else {
            ngx_http_ai_cache_batch_usage(out, j, value, f);
        }
    }

    ngx_http_ai_out_lit(out, "}");
}


static void
ngx_http_ai_cache_batch_usage(ngx_http_ai_out_t *out, ngx_http_ai_json_t *j,
    ngx_uint_t usage, ngx_http_ai_cache_figures_t *f)
{
    int64_t     figure;
    ngx_uint_t  i;

    ngx_http_ai_out_lit(out, "{");

    for (i = ngx_http_ai_json_first(j, usage);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, usage, i))
    {
        figure = -1;

        if (ngx_http_ai_json_key_is(j, i, "prompt_tokens")) {
            figure = f->prompt;

        } else if (ngx_http_ai_json_key_is(j, i, "total_tokens")) {
            figure = f->total;
        }

        if (figure < 0) {
            ngx_http_ai_cache_batch_member(out, j, usage, i, i + 1);
            continue;
        }

        ngx_http_ai_cache_batch_member(out, j, usage, i,
                                       NGX_HTTP_AI_JSON_NONE);
        ngx_http_ai_out_int(out, figure);
    }

    ngx_http_ai_out_lit(out, "}");
}


static void
ngx_http_ai_cache_batch_vector(ngx_http_ai_out_t *out, ngx_http_ai_json_t *j,
    ngx_uint_t item, ngx_uint_t index)
{
    ngx_uint_t  i;

    ngx_http_ai_out_lit(out, "{");

    for (i = ngx_http_ai_json_first(j, item);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, item, i))
    {
        if (!ngx_http_ai_json_key_is(j, i, "index")) {
            ngx_http_ai_cache_batch_member(out, j, item, i, i + 1);
            continue;
        }

        ngx_http_ai_cache_batch_member(out, j, item, i,
                                       NGX_HTTP_AI_JSON_NONE);
        ngx_http_ai_out_int(out, (int64_t) index);
    }

    ngx_http_ai_out_lit(out, "}");
}


/* member i of obj; NONE: the value is written by the caller */

static void
ngx_http_ai_cache_batch_member(ngx_http_ai_out_t *out, ngx_http_ai_json_t *j,
    ngx_uint_t obj, ngx_uint_t i, ngx_uint_t value)
{
    ngx_str_t  s;

    if (i != obj + 1) {
        ngx_http_ai_out_lit(out, ",");
    }

    s = ngx_http_ai_json_value(j, i);
    ngx_http_ai_out_str(out, &s);
    ngx_http_ai_out_lit(out, ":");

    if (value != NGX_HTTP_AI_JSON_NONE) {
        s = ngx_http_ai_json_value(j, value);
        ngx_http_ai_out_str(out, &s);
    }
}
