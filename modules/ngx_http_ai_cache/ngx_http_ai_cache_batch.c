
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

/* of an answer with one vector, more of them need memory */

#define NGX_HTTP_AI_CACHE_NODES    48

/* for the members of an answer besides its vectors */

#define NGX_HTTP_AI_CACHE_ROOM     512


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
    int64_t *tokens, int64_t *total);
static int64_t ngx_http_ai_cache_batch_share(int64_t figure, uint64_t from,
    uint64_t to, uint64_t all);
static void ngx_http_ai_cache_batch_vector(ngx_http_ai_json_t *j,
    ngx_uint_t item, ngx_str_t *vector);
static void ngx_http_ai_cache_batch_answer(ngx_http_ai_out_t *out,
    ngx_http_ai_json_t *j, ngx_str_t *usage,
    ngx_http_ai_cache_input_t **inputs, ngx_uint_t n, int64_t tokens,
    int64_t total);
static void ngx_http_ai_cache_batch_usage(ngx_http_ai_out_t *out,
    ngx_http_ai_json_t *j, ngx_uint_t usage, int64_t tokens, int64_t total);
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


ngx_int_t
ngx_http_ai_cache_batch_add(ngx_http_ai_cache_batch_t *batch, ngx_uint_t i,
    ngx_str_t *stored)
{
    ngx_int_t                   rc;
    ngx_uint_t                  list;
    ngx_http_ai_json_t          j;
    ngx_http_ai_json_node_t     nodes[NGX_HTTP_AI_CACHE_NODES];
    ngx_http_ai_cache_input_t  *input;

    ngx_memzero(&j, sizeof(ngx_http_ai_json_t));

    j.pool = batch->pool;
    j.nodes = nodes;
    j.nalloc = NGX_HTTP_AI_CACHE_NODES;

    rc = ngx_http_ai_cache_batch_read(&j, stored, &list);
    if (rc != NGX_OK) {
        return rc;
    }

    if (j.nodes[list].count != 1
        || !ngx_http_ai_cache_batch_item(&j, list + 1))
    {
        return NGX_DECLINED;
    }

    input = &batch->inputs[i];

    input->stored = *stored;

    ngx_http_ai_cache_batch_vector(&j, list + 1, input->vector);
    ngx_http_ai_cache_batch_figures(&j, &input->tokens, &input->total);

    return NGX_OK;
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
    int64_t                     tokens, total;
    uint64_t                    all, before, length;
    ngx_int_t                   rc;
    ngx_uint_t                  i, k, n, list, *items;
    ngx_http_ai_out_t           out;
    ngx_http_ai_json_t          j;
    ngx_http_ai_cache_input_t  *input;

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

    batch->asked = 1;
    batch->usage = ngx_http_ai_json_raw(&j,
                                        ngx_http_ai_json_member(&j, 0,
                                                                "usage"));

    ngx_http_ai_cache_batch_figures(&j, &tokens, &total);

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

        input->tokens = ngx_http_ai_cache_batch_share(tokens, before,
                                                      before + length, all);
        input->total = ngx_http_ai_cache_batch_share(total, before,
                                                     before + length, all);
        before += length;

        ngx_http_ai_cache_batch_vector(&j, items[k], input->vector);

        if (ngx_http_ai_out_init(&out, batch->pool, j.nodes[items[k]].len
                                                    + NGX_HTTP_AI_CACHE_ROOM)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        ngx_http_ai_cache_batch_answer(&out, &j, NULL, &input, 1,
                                       input->tokens, input->total);

        if (out.failed) {
            return NGX_ERROR;
        }

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
    size_t                       size;
    int64_t                      tokens, total;
    ngx_int_t                    rc;
    ngx_uint_t                   i, list;
    ngx_http_ai_out_t            out;
    ngx_http_ai_json_t           j;
    ngx_http_ai_cache_input_t   *input, *base, **inputs;

    inputs = ngx_palloc(batch->pool,
                        batch->ninputs * sizeof(ngx_http_ai_cache_input_t *));
    if (inputs == NULL) {
        return NGX_ERROR;
    }

    /* members besides the vectors are those of the newest answer */

    base = &batch->inputs[0];
    size = NGX_HTTP_AI_CACHE_ROOM;
    tokens = 0;
    total = 0;

    for (i = 0; i < batch->ninputs; i++) {
        input = &batch->inputs[batch->inputs[i].same];

        if (input->stored.data == NULL) {
            return NGX_ERROR;
        }

        if (input->fresh && !base->fresh) {
            base = input;
        }

        tokens += ngx_max(input->tokens, 0);
        total += ngx_max(input->total, 0);
        size += input->stored.len;

        inputs[i] = input;
    }

    ngx_memzero(&j, sizeof(ngx_http_ai_json_t));
    j.pool = batch->pool;

    rc = ngx_http_ai_cache_batch_read(&j, &base->stored, &list);
    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_ai_out_init(&out, batch->pool, size) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_ai_cache_batch_answer(&out, &j,
                                   batch->asked ? &batch->usage : NULL,
                                   inputs, batch->ninputs, tokens, total);

    answer->data = out.start;
    answer->len = out.last - out.start;

    return out.failed ? NGX_ERROR : NGX_OK;
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
ngx_http_ai_cache_batch_figures(ngx_http_ai_json_t *j, int64_t *tokens,
    int64_t *total)
{
    ngx_uint_t  usage;

    *tokens = -1;
    *total = -1;

    usage = ngx_http_ai_json_member(j, 0, "usage");

    (void) ngx_http_ai_json_int(j,
                           ngx_http_ai_json_member(j, usage, "prompt_tokens"),
                           tokens);
    (void) ngx_http_ai_json_int(j,
                           ngx_http_ai_json_member(j, usage, "total_tokens"),
                           total);
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


/* the text of an item but for its number */

static void
ngx_http_ai_cache_batch_vector(ngx_http_ai_json_t *j, ngx_uint_t item,
    ngx_str_t *vector)
{
    u_char      *end;
    ngx_str_t    index;
    ngx_uint_t   n;

    vector[0] = ngx_http_ai_json_raw(j, item);
    ngx_str_null(&vector[1]);

    n = ngx_http_ai_json_member(j, item, "index");

    if (n == NGX_HTTP_AI_JSON_NONE) {
        return;
    }

    index = ngx_http_ai_json_value(j, n);
    end = vector[0].data + vector[0].len;

    vector[0].len = index.data - vector[0].data;
    vector[1].data = index.data + index.len;
    vector[1].len = end - vector[1].data;
}


/* members of j with other vectors; and with usage, or figures in it */

static void
ngx_http_ai_cache_batch_answer(ngx_http_ai_out_t *out, ngx_http_ai_json_t *j,
    ngx_str_t *usage, ngx_http_ai_cache_input_t **inputs, ngx_uint_t n,
    int64_t tokens, int64_t total)
{
    ngx_uint_t  i, k, value;

    ngx_http_ai_out_lit(out, "{");

    for (i = ngx_http_ai_json_first(j, 0);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, 0, i))
    {
        value = i + 1;

        if (ngx_http_ai_json_key_is(j, i, "data")) {
            ngx_http_ai_cache_batch_member(out, j, 0, i,
                                           NGX_HTTP_AI_JSON_NONE);

            for (k = 0; k < n; k++) {
                ngx_http_ai_out_mem(out, k ? "," : "[", 1);
                ngx_http_ai_out_str(out, &inputs[k]->vector[0]);

                if (inputs[k]->vector[1].data) {
                    ngx_http_ai_out_int(out, (int64_t) k);
                    ngx_http_ai_out_str(out, &inputs[k]->vector[1]);
                }
            }

            ngx_http_ai_out_lit(out, "]");

        } else if (!ngx_http_ai_json_key_is(j, i, "usage")
                   || j->nodes[value].type != NGX_HTTP_AI_JSON_OBJECT)
        {
            ngx_http_ai_cache_batch_member(out, j, 0, i, value);

        } else if (usage) {
            ngx_http_ai_cache_batch_member(out, j, 0, i,
                                           NGX_HTTP_AI_JSON_NONE);
            ngx_http_ai_out_str(out, usage);

        } else {
            ngx_http_ai_cache_batch_member(out, j, 0, i,
                                           NGX_HTTP_AI_JSON_NONE);
            ngx_http_ai_cache_batch_usage(out, j, value, tokens, total);
        }
    }

    ngx_http_ai_out_lit(out, "}");
}


static void
ngx_http_ai_cache_batch_usage(ngx_http_ai_out_t *out, ngx_http_ai_json_t *j,
    ngx_uint_t usage, int64_t tokens, int64_t total)
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
            figure = tokens;

        } else if (ngx_http_ai_json_key_is(j, i, "total_tokens")) {
            figure = total;
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
