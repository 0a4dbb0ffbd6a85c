
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * How long an answer may become: what the client allows, and no more than 95
 * of 100 answers were before, of this model to this caller.  Learned in a
 * table that all workers share, without a lock: figures that two of them
 * change at once are a little off, and nothing but estimates.
 */


#include "ngx_http_ai_ratelimit.h"


#define NGX_HTTP_AI_LEARNED_BUCKETS  64
#define NGX_HTTP_AI_LEARNED_MAX      4096
#define NGX_HTTP_AI_LEARNED_MIN      16
#define NGX_HTTP_AI_LEARNED_WAYS     4

/* answers that make a figure; as many as are remembered in full */
#define NGX_HTTP_AI_LEARNED_FEW      10
#define NGX_HTTP_AI_LEARNED_MANY     200

/* tokens: of a model that nobody knows, and at least */
#define NGX_HTTP_AI_OUTPUT_DEFAULT   256
#define NGX_HTTP_AI_OUTPUT_FLOOR     64


typedef struct {
    uint32_t                   tag;       /* 0: free */
    uint32_t                   used;      /* seconds, of the last answer */
    uint32_t                   sum;
    int32_t                    p95;       /* -1: too few */
    uint16_t                   n[NGX_HTTP_AI_LEARNED_BUCKETS];
} ngx_http_ai_learned_t;


typedef struct {
    ngx_uint_t                 size;      /* of entries, a power of two */
    ngx_http_ai_learned_t     *entries;
} ngx_http_ai_learned_table_t;


static ngx_http_ai_learned_t *ngx_http_ai_learned_get(
    ngx_http_ai_learned_table_t *table, ngx_http_ai_ctx_t *ctx,
    ngx_uint_t caller, ngx_uint_t create);
static void ngx_http_ai_learned_add(ngx_http_ai_learned_t *e, int64_t n);
static ngx_uint_t ngx_http_ai_learned_bucket(int64_t n);
static int64_t ngx_http_ai_learned_value(ngx_uint_t bucket);


ngx_int_t
ngx_http_ai_learned_init(ngx_slab_pool_t *shpool, void **data, void *conf,
    ngx_log_t *log)
{
    ngx_http_ai_ratelimit_main_conf_t *rmcf = conf;

    ngx_uint_t                    size, log_nomem;
    ngx_http_ai_learned_table_t  *table;

    table = *data;

    if (table == NULL) {
        table = ngx_slab_calloc(shpool, sizeof(ngx_http_ai_learned_table_t));
        if (table == NULL) {
            return NGX_ERROR;
        }

        log_nomem = shpool->log_nomem;
        shpool->log_nomem = 0;

        /* at most an eighth of the zone: it is there for others, too */

        for (size = NGX_HTTP_AI_LEARNED_MAX;
             size >= NGX_HTTP_AI_LEARNED_MIN;
             size /= 2)
        {
            if (size * sizeof(ngx_http_ai_learned_t)
                > (size_t) (shpool->end - (u_char *) shpool) / 8)
            {
                continue;
            }

            table->entries = ngx_slab_calloc(shpool,
                                     size * sizeof(ngx_http_ai_learned_t));
            if (table->entries) {
                table->size = size;
                break;
            }
        }

        shpool->log_nomem = log_nomem;

        *data = table;
    }

    /* without one there is nothing but the default */
    rmcf->learned = table->entries ? table : NULL;

    return NGX_OK;
}


int64_t
ngx_http_ai_output_estimate(ngx_http_ai_ratelimit_main_conf_t *rmcf,
    ngx_http_ai_ctx_t *ctx)
{
    int64_t                 cap, p95, times;
    ngx_http_ai_learned_t  *e;

    if (ctx->op != NGX_HTTP_AI_OP_CHAT
        && ctx->op != NGX_HTTP_AI_OP_COMPLETIONS)
    {
        return 0;
    }

    p95 = -1;

    if (rmcf->learned) {
        e = ngx_http_ai_learned_get(rmcf->learned, ctx, 1, 0);

        if (e == NULL || e->p95 < 0) {
            e = ngx_http_ai_learned_get(rmcf->learned, ctx, 0, 0);
        }

        if (e) {
            p95 = e->p95;
        }
    }

    if (p95 < 0) {
        p95 = NGX_HTTP_AI_OUTPUT_DEFAULT;
    }

    p95 = ngx_max(p95, NGX_HTTP_AI_OUTPUT_FLOOR);
    cap = ngx_http_ai_output_asked(ctx, &times);

    return (cap >= 0) ? ngx_min(cap, p95) : p95;
}


int64_t
ngx_http_ai_output_asked(ngx_http_ai_ctx_t *ctx, int64_t *times)
{
    int64_t                   cap, n, *to;
    ngx_uint_t                i;
    ngx_http_ai_json_t       *j;
    ngx_http_ai_json_node_t  *node;

    cap = -1;
    *times = 1;
    j = &ctx->json;

    if (ctx->parsed) {

        for (i = ngx_http_ai_json_first(j, 0);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, 0, i))
        {
            node = &j->nodes[i];

            /* each of the choices may be so long */

            if ((node->len == 10
                 && ngx_memcmp(node->start, "max_tokens", 10) == 0)
                || (node->len == 21
                    && ngx_memcmp(node->start, "max_completion_tokens", 21)
                       == 0))
            {
                to = &cap;

            } else if ((node->len == 1 && node->start[0] == 'n')
                       || (node->len == 7
                           && ngx_memcmp(node->start, "best_of", 7) == 0))
            {
                to = times;

            } else if (node->escaped
                       && (ngx_http_ai_json_key_is(j, i, "max_tokens")
                           || ngx_http_ai_json_key_is(j, i,
                                                  "max_completion_tokens")))
            {
                to = &cap;

            } else {
                continue;
            }

            if (ngx_http_ai_json_int(j, i + 1, &n) == NGX_OK && n > *to) {
                *to = ngx_min(n, 100000000);
            }
        }
    }

    *times = ngx_min(*times, 128);

    if (cap < 0) {
        return ctx->max_output ? (int64_t) ctx->max_output : -1;
    }

    return cap * *times;
}


void
ngx_http_ai_output_learn(ngx_http_ai_ratelimit_main_conf_t *rmcf,
    ngx_http_ai_ctx_t *ctx)
{
    ngx_http_ai_learned_t  *e;

    if (rmcf->learned == NULL || ctx->usage.out <= 0 || ctx->cut
        || ctx->error != NGX_HTTP_AI_ERR_NONE
        || ctx->finish == NGX_HTTP_AI_FINISH_NONE
        || (ctx->op != NGX_HTTP_AI_OP_CHAT
            && ctx->op != NGX_HTTP_AI_OP_COMPLETIONS))
    {
        return;
    }

    e = ngx_http_ai_learned_get(rmcf->learned, ctx, 0, 1);
    ngx_http_ai_learned_add(e, ctx->usage.out);

    e = ngx_http_ai_learned_get(rmcf->learned, ctx, 1, 1);

    if (e) {
        ngx_http_ai_learned_add(e, ctx->usage.out);
    }
}


/* of a model, or of a model and its caller; NULL: there is none */

static ngx_http_ai_learned_t *
ngx_http_ai_learned_get(ngx_http_ai_learned_table_t *table,
    ngx_http_ai_ctx_t *ctx, ngx_uint_t caller, ngx_uint_t create)
{
    uint32_t                hash;
    ngx_uint_t              i;
    ngx_http_ai_learned_t  *e, *old;

    if (caller && ctx->principal == NULL) {
        return NULL;
    }

    hash = ngx_murmur_hash2(ctx->model.data, ctx->model.len);

    if (caller) {
        hash = ngx_hash(hash, ngx_murmur_hash2(ctx->principal->key_id.data,
                                               ctx->principal->key_id.len));
    }

    if (hash == 0) {
        hash = 1;
    }

    i = hash & (table->size - 1) & ~(NGX_HTTP_AI_LEARNED_WAYS - 1);
    e = &table->entries[i];
    old = e;

    for (i = 0; i < NGX_HTTP_AI_LEARNED_WAYS; i++) {

        if (e[i].tag == hash) {
            return &e[i];
        }

        if (e[i].used < old->used) {
            old = &e[i];
        }
    }

    if (!create) {
        return NULL;
    }

    ngx_memzero(old, sizeof(ngx_http_ai_learned_t));
    old->tag = hash;
    old->p95 = -1;

    return old;
}


static void
ngx_http_ai_learned_add(ngx_http_ai_learned_t *e, int64_t n)
{
    ngx_uint_t  i, above;

    e->used = (uint32_t) ngx_time();
    e->n[ngx_http_ai_learned_bucket(n)]++;
    e->sum++;

    if (e->sum > NGX_HTTP_AI_LEARNED_MANY) {

        /* older ones fade */

        for (e->sum = 0, i = 0; i < NGX_HTTP_AI_LEARNED_BUCKETS; i++) {
            e->n[i] -= (e->n[i] + 1) / 2;
            e->sum += e->n[i];
        }

    } else if (e->sum < NGX_HTTP_AI_LEARNED_FEW
               || (e->sum > 2 * NGX_HTTP_AI_LEARNED_FEW && e->sum % 8))
    {
        return;
    }

    above = 0;

    for (i = NGX_HTTP_AI_LEARNED_BUCKETS - 1; i > 0; i--) {
        above += e->n[i];

        if (above * 20 > e->sum) {
            break;
        }
    }

    e->p95 = (int32_t) ngx_http_ai_learned_value(i);
}


/* four to a power of two */

static ngx_uint_t
ngx_http_ai_learned_bucket(int64_t n)
{
    ngx_uint_t  power, i;

    if (n < 4) {
        return ngx_max(n, 0);
    }

    for (power = 2; power < 40 && (n >> (power + 1)); power++) { /* void */ }

    i = 4 * (power - 1) + ((n >> (power - 2)) & 3);

    return ngx_min(i, NGX_HTTP_AI_LEARNED_BUCKETS - 1);
}


/* the largest number of a bucket */

static int64_t
ngx_http_ai_learned_value(ngx_uint_t bucket)
{
    ngx_uint_t  power;

    if (bucket < 4) {
        return bucket;
    }

    power = bucket / 4 + 1;

    return ((int64_t) (4 + bucket % 4 + 1) << (power - 2)) - 1;
}
