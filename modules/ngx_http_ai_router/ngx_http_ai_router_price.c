
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Prices of targets: those of the model's block, else of the live data set
 * "prices".  A worker keeps what it has looked up until the data change; a
 * request keeps what it has seen at its admission until its end.
 */


#include "ngx_http_ai_router_exec.h"


#define NGX_HTTP_AI_PRICE_PATTERNS  0x01       /* flag of a generation */


struct ngx_http_ai_prices_s {
    uint64_t                   generation;
    ngx_pool_t                *pool;
    ngx_uint_t                 refs;          /* requests, and the worker */
    ngx_array_t                patterns;      /* of ngx_http_ai_priced_t;
                                                 longest first */
};


typedef struct {
    ngx_str_t                  name;
    ngx_http_ai_price_t       *price;
} ngx_http_ai_priced_t;


/* what a blob begins with; name and version follow */

typedef struct {
    ngx_http_ai_price_t        price;
    size_t                     name_len;
} ngx_http_ai_price_blob_t;


static ngx_int_t ngx_http_ai_price_record(ngx_http_ai_data_load_t *load,
    ngx_http_ai_json_t *j, ngx_str_t *name, ngx_str_t *error);
static ngx_int_t ngx_http_ai_price_blob(ngx_pool_t *pool, ngx_str_t *blob,
    ngx_http_ai_priced_t *priced);
static ngx_int_t ngx_http_ai_price_pattern(void *ctx, ngx_str_t *blob);
static int ngx_libc_cdecl ngx_http_ai_price_longest(const void *one,
    const void *two);
static ngx_http_ai_prices_t *ngx_http_ai_prices_current(
    ngx_http_ai_router_main_conf_t *amcf);
static void ngx_http_ai_prices_release(void *data);
static ngx_int_t ngx_http_ai_price_lookup(
    ngx_http_ai_router_main_conf_t *amcf, ngx_http_ai_prices_t *prices,
    ngx_http_ai_provider_t *provider, ngx_str_t *model, ngx_pool_t *pool,
    const ngx_http_ai_price_t **price);


/* an answer made here costs nothing */

static ngx_http_ai_price_t  ngx_http_ai_price_free;


ngx_int_t
ngx_http_ai_prices_init(ngx_conf_t *cf, ngx_http_ai_router_main_conf_t *amcf)
{
    ngx_http_ai_data_def_t  def;

    if (!amcf->api->data_enabled(cf)) {
        return NGX_OK;
    }

    ngx_memzero(&def, sizeof(ngx_http_ai_data_def_t));

    ngx_str_set(&def.name, "prices");
    ngx_str_set(&def.create, "aigw prices import litellm");
    def.conf = amcf;
    def.record = ngx_http_ai_price_record;

    amcf->prices = amcf->api->data_register(cf, &def);

    return amcf->prices ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_http_ai_price_record(ngx_http_ai_data_load_t *load, ngx_http_ai_json_t *j,
    ngx_str_t *name, ngx_str_t *error)
{
    u_char                          *p;
    ngx_int_t                        rc;
    ngx_str_t                        raw, blob;
    ngx_uint_t                       n, dup;
    const char                      *text;
    ngx_http_ai_price_blob_t         head;
    ngx_http_ai_router_main_conf_t  *amcf;

    amcf = load->conf;

    n = ngx_http_ai_json_member(j, 0, "model");
    raw = ngx_http_ai_json_raw(j, n);

    if (ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_STRING
        || raw.len == 0)
    {
        ngx_str_set(error, "no \"model\"");
        return NGX_DECLINED;
    }

    if (ngx_http_ai_json_unescape_str(j->pool, &raw, name) != NGX_OK) {
        return NGX_ERROR;
    }

    if (name->len > NGX_HTTP_AI_MODEL_NAME_MAX) {
        ngx_str_set(error, "\"model\" is too long");
        return NGX_DECLINED;
    }

    ngx_memzero(&head, sizeof(ngx_http_ai_price_blob_t));

    text = ngx_http_ai_price_parse(j, j->pool, &head.price);

    if (text) {
        error->data = (u_char *) text;
        error->len = ngx_strlen(text);
        return NGX_DECLINED;
    }

    head.name_len = name->len;

    blob.len = sizeof(ngx_http_ai_price_blob_t) + name->len
               + head.price.version.len;
    blob.data = ngx_pnalloc(j->pool, blob.len);
    if (blob.data == NULL) {
        return NGX_ERROR;
    }

    p = blob.data + sizeof(ngx_http_ai_price_blob_t);
    p = ngx_cpymem(p, name->data, name->len);

    if (head.price.version.len) {
        ngx_memcpy(p, head.price.version.data, head.price.version.len);
    }

    head.price.version.data = NULL;
    ngx_memcpy(blob.data, &head, sizeof(ngx_http_ai_price_blob_t));

    if (ngx_strlchr(name->data, name->data + name->len, '*')) {
        load->flags |= NGX_HTTP_AI_PRICE_PATTERNS;
    }

    rc = amcf->api->data_add(load, &blob, name, 1, &dup);

    if (rc == NGX_DECLINED) {
        ngx_str_set(error, "the \"model\" is there twice");
    }

    return rc;
}


static ngx_int_t
ngx_http_ai_price_blob(ngx_pool_t *pool, ngx_str_t *blob,
    ngx_http_ai_priced_t *priced)
{
    u_char                    *p;
    ngx_http_ai_price_blob_t   head;

    if (blob->len < sizeof(ngx_http_ai_price_blob_t)) {
        return NGX_ERROR;
    }

    ngx_memcpy(&head, blob->data, sizeof(ngx_http_ai_price_blob_t));

    if (blob->len - sizeof(ngx_http_ai_price_blob_t) < head.name_len
        || blob->len - sizeof(ngx_http_ai_price_blob_t) - head.name_len
           != head.price.version.len)
    {
        return NGX_ERROR;
    }

    priced->price = ngx_palloc(pool, sizeof(ngx_http_ai_price_t));
    p = ngx_pnalloc(pool, head.name_len + head.price.version.len + 1);

    if (priced->price == NULL || p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, blob->data + sizeof(ngx_http_ai_price_blob_t),
               head.name_len + head.price.version.len);

    priced->name.data = p;
    priced->name.len = head.name_len;

    *priced->price = head.price;
    priced->price->version.data = p + head.name_len;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_price_pattern(void *ctx, ngx_str_t *blob)
{
    ngx_http_ai_prices_t *prices = ctx;

    size_t                 len;
    u_char                *p;
    ngx_http_ai_priced_t  *priced;

    if (blob->len < sizeof(ngx_http_ai_price_blob_t)) {
        return NGX_ERROR;
    }

    p = blob->data + sizeof(ngx_http_ai_price_blob_t);
    ngx_memcpy(&len, blob->data + offsetof(ngx_http_ai_price_blob_t, name_len),
               sizeof(size_t));

    if (len > blob->len - sizeof(ngx_http_ai_price_blob_t)
        || ngx_strlchr(p, p + len, '*') == NULL)
    {
        return NGX_OK;
    }

    priced = ngx_array_push(&prices->patterns);
    if (priced == NULL) {
        return NGX_ERROR;
    }

    return ngx_http_ai_price_blob(prices->pool, blob, priced);
}


static int ngx_libc_cdecl
ngx_http_ai_price_longest(const void *one, const void *two)
{
    ngx_int_t                    rc;
    const ngx_http_ai_priced_t  *first, *second;

    first = one;
    second = two;

    if (first->name.len != second->name.len) {
        return (first->name.len < second->name.len) ? 1 : -1;
    }

    rc = ngx_memcmp(first->name.data, second->name.data, first->name.len);

    return (rc > 0) - (rc < 0);
}


/* NULL: no memory, or the data changed too often while they were read */

static ngx_http_ai_prices_t *
ngx_http_ai_prices_current(ngx_http_ai_router_main_conf_t *amcf)
{
    uint64_t               generation;
    ngx_int_t              rc;
    ngx_pool_t            *pool, *temp;
    ngx_http_ai_prices_t  *prices;

    generation = amcf->api->data_generation(amcf->prices);
    prices = amcf->prices_now;

    if (prices && prices->generation == generation) {
        return prices;
    }

    pool = ngx_create_pool(4096, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    prices = ngx_pcalloc(pool, sizeof(ngx_http_ai_prices_t));

    if (prices == NULL
        || ngx_array_init(&prices->patterns, pool, 8,
                          sizeof(ngx_http_ai_priced_t))
           != NGX_OK)
    {
        ngx_destroy_pool(pool);
        return NULL;
    }

    prices->generation = generation;
    prices->pool = pool;
    prices->refs = 1;

    if (amcf->api->data_flags(amcf->prices) & NGX_HTTP_AI_PRICE_PATTERNS) {

        temp = ngx_create_pool(16384, ngx_cycle->log);
        if (temp == NULL) {
            ngx_destroy_pool(pool);
            return NULL;
        }

        rc = amcf->api->data_walk(amcf->prices, temp,
                                  ngx_http_ai_price_pattern, prices);
        ngx_destroy_pool(temp);

        if (rc != NGX_OK) {
            ngx_destroy_pool(pool);
            return NULL;
        }

        ngx_qsort(prices->patterns.elts, prices->patterns.nelts,
                  sizeof(ngx_http_ai_priced_t), ngx_http_ai_price_longest);
    }

    if (amcf->prices_now) {
        ngx_http_ai_prices_release(amcf->prices_now);
    }

    amcf->prices_now = prices;

    return prices;
}


static void
ngx_http_ai_prices_release(void *data)
{
    ngx_http_ai_prices_t *prices = data;

    if (--prices->refs == 0) {
        ngx_destroy_pool(prices->pool);
    }
}


ngx_int_t
ngx_http_ai_prices_set(ngx_http_ai_exec_t *x)
{
    ngx_str_t                       *model;
    ngx_uint_t                       i;
    ngx_pool_cleanup_t              *cln;
    ngx_http_ai_target_t            *target;
    ngx_http_ai_prices_t            *prices;
    ngx_http_ai_candidate_t         *c;
    ngx_http_ai_router_main_conf_t  *amcf;

    amcf = ngx_http_get_module_main_conf(x->request,
                                         ngx_http_ai_router_module);
    prices = NULL;

    for (i = 0; i < x->ncandidates; i++) {
        c = &x->candidates[i];
        target = c->target;

        if (target->provider->is_static) {
            c->price = &ngx_http_ai_price_free;
            continue;
        }

        if (x->model->price) {
            c->price = x->model->price;
            continue;
        }

        if (amcf->prices == NULL) {
            continue;
        }

        if (prices == NULL) {
            prices = ngx_http_ai_prices_current(amcf);

            if (prices == NULL) {
                return NGX_ERROR;
            }

            cln = ngx_pool_cleanup_add(x->request->pool, 0);
            if (cln == NULL) {
                return NGX_ERROR;
            }

            prices->refs++;

            cln->handler = ngx_http_ai_prices_release;
            cln->data = prices;
        }

        if (target->model.len && target->file) {

            if (target->priced != prices->generation) {

                if (ngx_http_ai_price_lookup(amcf, prices, target->provider,
                                             &target->model, prices->pool,
                                             &target->price)
                    != NGX_OK)
                {
                    return NGX_ERROR;
                }

                target->priced = prices->generation;
            }

            c->price = target->price;
            continue;
        }

        /* the client's words */

        model = target->model.len ? &target->model : &x->ctx->request_model;

        if (model->len == 0 || model->len > NGX_HTTP_AI_MODEL_NAME_MAX) {
            continue;
        }

        if (ngx_http_ai_price_lookup(amcf, prices, target->provider, model,
                                     x->request->pool, &c->price)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* the provider's own price, then that of its vendor, then that of the model;
 * a pattern only when there is none of these */

static ngx_int_t
ngx_http_ai_price_lookup(ngx_http_ai_router_main_conf_t *amcf,
    ngx_http_ai_prices_t *prices, ngx_http_ai_provider_t *provider,
    ngx_str_t *model, ngx_pool_t *pool, const ngx_http_ai_price_t **price)
{
    u_char                *p;
    ngx_int_t              rc;
    ngx_str_t              names[3], blob, *owner;
    ngx_uint_t             i, k, n;
    ngx_pool_t            *temp;
    ngx_http_ai_priced_t   priced, *pattern;

    *price = NULL;

    if (prices->generation == 0) {
        return NGX_OK;
    }

    temp = ngx_create_pool(2048, ngx_cycle->log);
    if (temp == NULL) {
        return NGX_ERROR;
    }

    n = 0;

    for (i = 0; i < 2; i++) {
        owner = (i == 0) ? &provider->name : &provider->vendor;

        if (owner->len == 0) {
            continue;
        }

        p = ngx_pnalloc(temp, owner->len + 1 + model->len);
        if (p == NULL) {
            goto failed;
        }

        names[n].data = p;
        names[n++].len = ngx_sprintf(p, "%V/%V", owner, model) - p;
    }

    names[n++] = *model;

    for (i = 0; i < n; i++) {

        if (ngx_strlchr(names[i].data, names[i].data + names[i].len, '*')) {
            /* not a pattern by its own name */
            continue;
        }

        rc = amcf->api->data_find(amcf->prices, &names[i], temp, &blob);

        if (rc == NGX_DECLINED) {
            continue;
        }

        if (rc != NGX_OK
            || ngx_http_ai_price_blob(pool, &blob, &priced) != NGX_OK)
        {
            goto failed;
        }

        *price = priced.price;
        goto done;
    }

    pattern = prices->patterns.elts;

    for (k = 0; k < prices->patterns.nelts; k++) {
        for (i = 0; i < n; i++) {
            if (ngx_http_ai_price_match(&pattern[k].name, &names[i])) {
                *price = pattern[k].price;
                goto done;
            }
        }
    }

done:

    ngx_destroy_pool(temp);

    return NGX_OK;

failed:

    ngx_destroy_pool(temp);

    return NGX_ERROR;
}
