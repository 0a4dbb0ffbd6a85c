
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include "plain.h"
#include "ngx_http_ai_cache_batch.h"


/*
 * The first byte chooses the dialect and the operation, the rest is a body.
 * With all objects the other way round and white space everywhere it must
 * have the same key; an input of embeddings the same as in a body of its own;
 * the plain form of a chat is that of the decoder.
 * Behind a line feed are answers to a batch of embeddings: what is made of
 * them must be JSON.
 */


#define MAX_INPUTS  64


typedef struct {
    ngx_http_ai_dialect_t  *dialect;
    ngx_http_ai_op_e        op;
} kind_t;


static kind_t  kinds[] = {
    { &ngx_http_ai_dialect_openai, NGX_HTTP_AI_OP_CHAT },
    { &ngx_http_ai_dialect_anthropic, NGX_HTTP_AI_OP_CHAT },
    { &ngx_http_ai_dialect_openai, NGX_HTTP_AI_OP_COMPLETIONS },
    { &ngx_http_ai_dialect_openai, NGX_HTTP_AI_OP_EMBEDDINGS },
    { &ngx_http_ai_dialect_anthropic, NGX_HTTP_AI_OP_COUNT_TOKENS }
};


static ngx_pool_t  *pool;


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
must(int good)
{
    if (!good) {
        abort();
    }
}


static ngx_int_t
key_of(kind_t *kind, ngx_http_ai_json_t *j, ngx_http_ai_cache_key_t *key)
{
    ngx_int_t                rc;
    ngx_http_ai_cache_ask_t  ask;

    ngx_memzero(&ask, sizeof(ask));

    ask.dialect = kind->dialect;
    ask.op = kind->op;
    ask.json = j;
    ngx_str_set(&ask.model, "m");
    ngx_str_set(&ask.scope, "s");

    rc = ngx_http_ai_cache_key(pool, &ask, key);

    must(rc == NGX_OK || (rc == NGX_DECLINED && key->why));

    return rc;
}


/* 0: there are duplicates, whose order counts */

static int
turn_round(ngx_http_ai_json_t *j, ngx_uint_t n, ngx_http_ai_out_t *out)
{
    ngx_str_t   s, one, two;
    ngx_uint_t  i, k, *order, count;

    switch (j->nodes[n].type) {

    case NGX_HTTP_AI_JSON_ARRAY:
        ngx_http_ai_out_lit(out, "[ ");

        for (i = ngx_http_ai_json_first(j, n);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, n, i))
        {
            if (i != n + 1) {
                ngx_http_ai_out_lit(out, "\t,");
            }

            if (!turn_round(j, i, out)) {
                return 0;
            }
        }

        ngx_http_ai_out_lit(out, "\n]");
        return 1;

    case NGX_HTTP_AI_JSON_OBJECT:

        order = ngx_palloc(pool, (j->nodes[n].count + 1) * sizeof(ngx_uint_t));
        count = 0;

        for (i = ngx_http_ai_json_first(j, n);
             i != NGX_HTTP_AI_JSON_NONE;
             i = ngx_http_ai_json_next(j, n, i))
        {
            s = ngx_http_ai_json_raw(j, i);
            must(ngx_http_ai_json_unescape_str(pool, &s, &one) == NGX_OK);

            for (k = 0; k < count; k++) {
                s = ngx_http_ai_json_raw(j, order[k]);
                must(ngx_http_ai_json_unescape_str(pool, &s, &two) == NGX_OK);

                if (one.len == two.len
                    && ngx_memcmp(one.data, two.data, one.len) == 0)
                {
                    return 0;
                }
            }

            order[count++] = i;
        }

        ngx_http_ai_out_lit(out, " {");

        for (k = count; k; k--) {
            if (k != count) {
                ngx_http_ai_out_lit(out, ",\r");
            }

            s = ngx_http_ai_json_value(j, order[k - 1]);
            ngx_http_ai_out_str(out, &s);
            ngx_http_ai_out_lit(out, " : ");

            if (!turn_round(j, order[k - 1] + 1, out)) {
                return 0;
            }
        }

        ngx_http_ai_out_lit(out, " } ");
        return 1;

    default:
        s = ngx_http_ai_json_value(j, n);
        ngx_http_ai_out_str(out, &s);
        return 1;
    }
}


static void
inputs(kind_t *kind, ngx_http_ai_json_t *j)
{
    ngx_str_t                 s;
    ngx_uint_t                i, k, n;
    ngx_http_ai_out_t         out;
    ngx_http_ai_json_t        one;
    ngx_http_ai_cache_ask_t   ask;
    ngx_http_ai_cache_key_t   alone, keys[MAX_INPUTS];

    n = ngx_http_ai_json_member(j, 0, "input");

    if (j->nodes[0].count != 1
        || ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_ARRAY
        || j->nodes[n].count > MAX_INPUTS)
    {
        return;
    }

    ngx_memzero(&ask, sizeof(ask));

    ask.dialect = kind->dialect;
    ask.op = kind->op;
    ask.json = j;
    ngx_str_set(&ask.model, "m");
    ngx_str_set(&ask.scope, "s");

    must(ngx_http_ai_cache_key_inputs(pool, &ask, n, keys) == NGX_OK);

    k = 0;

    for (i = ngx_http_ai_json_first(j, n);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, n, i))
    {
        if (j->nodes[i].type != NGX_HTTP_AI_JSON_STRING) {
            k++;
            continue;
        }

        ngx_http_ai_out_init(&out, pool, 64);
        ngx_http_ai_out_lit(&out, "{\"input\":");
        s = ngx_http_ai_json_value(j, i);
        ngx_http_ai_out_str(&out, &s);
        ngx_http_ai_out_lit(&out, "}");

        ngx_memzero(&one, sizeof(one));
        one.pool = pool;
        must(ngx_http_ai_json_parse(&one, out.start, out.last - out.start)
             == NGX_OK);
        must(key_of(kind, &one, &alone) == NGX_OK);
        must(ngx_memcmp(alone.id, keys[k].id, NGX_HTTP_AI_CACHE_ID_LEN) == 0);

        k++;
    }
}


static void
batch(kind_t *kind, u_char *p, u_char *last)
{
    u_char                     *lf;
    ngx_str_t                   s;
    ngx_uint_t                  i;
    ngx_http_ai_json_t          j, check;
    ngx_http_ai_cache_ask_t     ask;
    ngx_http_ai_cache_batch_t   b;

    lf = ngx_strlchr(p, last, '\n');

    ngx_memzero(&j, sizeof(j));
    j.pool = pool;

    if (lf == NULL || ngx_http_ai_json_parse(&j, p, lf - p) != NGX_OK) {
        return;
    }

    ngx_memzero(&ask, sizeof(ask));

    ask.dialect = kind->dialect;
    ask.op = kind->op;
    ask.json = &j;
    ngx_str_set(&ask.model, "m");
    ngx_str_set(&ask.scope, "s");

    if (ngx_http_ai_cache_batch(pool, &ask, &b) != NGX_OK) {
        return;
    }

    /* one that is stored, then those that are missing */

    for (i = 0; lf && ngx_http_ai_cache_batch_missing(&b); i++) {
        s.data = lf + 1;
        lf = ngx_strlchr(s.data, last, '\n');
        s.len = (lf ? lf : last) - s.data;

        if (i == 0) {
            (void) ngx_http_ai_cache_batch_add(&b, 0, &s);

        } else {
            (void) ngx_http_ai_cache_batch_split(&b, &s);
        }

        if (ngx_http_ai_cache_batch_missing(&b) == 0) {
            break;
        }

        must(ngx_http_ai_cache_batch_body(&b, &s) == NGX_OK);

        ngx_memzero(&check, sizeof(check));
        check.pool = pool;
        must(ngx_http_ai_json_parse(&check, s.data, s.len) == NGX_OK);
    }

    if (ngx_http_ai_cache_batch_missing(&b)) {
        return;
    }

    must(ngx_http_ai_cache_batch_merge(&b, &s) == NGX_OK);

    ngx_memzero(&check, sizeof(check));
    check.pool = pool;
    must(ngx_http_ai_json_parse(&check, s.data, s.len) == NGX_OK);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    kind_t                    *kind;
    ngx_int_t                  rc;
    ngx_http_ai_out_t          out;
    ngx_http_ai_json_t         j, other;
    ngx_http_ai_cache_key_t    a, b;

    if (size < 2) {
        return 0;
    }

    kind = &kinds[data[0] % (sizeof(kinds) / sizeof(kinds[0]))];

    pool = ngx_create_pool(4096, NULL);

    if (kind->op == NGX_HTTP_AI_OP_EMBEDDINGS) {
        batch(kind, (u_char *) data + 1, (u_char *) data + size);
    }

    ngx_memzero(&j, sizeof(j));
    j.pool = pool;

    if (ngx_http_ai_json_parse(&j, (u_char *) data + 1, size - 1) == NGX_OK) {

        if (kind == kinds) {
            must(plain_check(pool, &j) >= 0);
        }

        rc = key_of(kind, &j, &a);

        ngx_http_ai_out_init(&out, pool, 2 * size);

        if (rc == NGX_OK && turn_round(&j, 0, &out)) {
            ngx_memzero(&other, sizeof(other));
            other.pool = pool;

            must(ngx_http_ai_json_parse(&other, out.start,
                                        out.last - out.start)
                 == NGX_OK);
            must(key_of(kind, &other, &b) == NGX_OK);
            must(a.exact == b.exact && a.deterministic == b.deterministic);
            must(ngx_memcmp(a.id, b.id, NGX_HTTP_AI_CACHE_ID_LEN) == 0);

            if (kind->op == NGX_HTTP_AI_OP_EMBEDDINGS) {
                inputs(kind, &j);
            }
        }
    }

    ngx_destroy_pool(pool);

    return 0;
}
