
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Names: what targets, aliases and "ai_pass" refer to, once all of http{} was
 * read, and models by name at run time.
 */


#include "ngx_http_ai_router.h"


#define NGX_HTTP_AI_NEAR_NAMES      3
#define NGX_HTTP_AI_NEAR_LOOKED_AT  1000


static ngx_int_t ngx_http_ai_targets_resolve(ngx_conf_t *cf,
    ngx_http_ai_router_main_conf_t *amcf, ngx_array_t *targets,
    ngx_str_t *who);
static ngx_int_t ngx_http_ai_aliases_resolve(ngx_conf_t *cf,
    ngx_http_ai_router_main_conf_t *amcf);
static ngx_int_t ngx_http_ai_locations_resolve(ngx_conf_t *cf,
    ngx_http_ai_router_main_conf_t *amcf);
static ngx_int_t ngx_http_ai_model_hash(ngx_conf_t *cf,
    ngx_http_ai_router_main_conf_t *amcf);
static void ngx_http_ai_model_hash_exact(ngx_hash_t *hash,
    ngx_hash_key_t *key);
static ngx_str_t *ngx_http_ai_provider_names(ngx_pool_t *pool,
    ngx_http_ai_router_main_conf_t *amcf);


ngx_int_t
ngx_http_ai_model_init(ngx_conf_t *cf, ngx_http_ai_router_main_conf_t *amcf)
{
    ngx_str_t              who;
    ngx_uint_t             i;
    ngx_http_ai_model_t  **m;

    m = amcf->models.elts;

    for (i = 0; i < amcf->models.nelts; i++) {

        who = ngx_http_ai_model_who(cf->temp_pool, m[i]);

        if (ngx_http_ai_targets_resolve(cf, amcf, &m[i]->targets, &who)
            != NGX_OK
            || ngx_http_ai_targets_resolve(cf, amcf, &m[i]->fallbacks, &who)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (ngx_http_ai_aliases_resolve(cf, amcf) != NGX_OK
        || ngx_http_ai_locations_resolve(cf, amcf) != NGX_OK)
    {
        return NGX_ERROR;
    }

    amcf->defaults = ngx_http_ai_model_create(cf);
    if (amcf->defaults == NULL) {
        return NGX_ERROR;
    }

    return ngx_http_ai_model_hash(cf, amcf);
}


static ngx_int_t
ngx_http_ai_targets_resolve(ngx_conf_t *cf,
    ngx_http_ai_router_main_conf_t *amcf, ngx_array_t *targets,
    ngx_str_t *who)
{
    u_char                *p;
    ngx_str_t              name, text, *names;
    ngx_uint_t             i;
    ngx_http_ai_target_t  *target;

    target = targets->elts;

    for (i = 0; i < targets->nelts; i++) {

        name = target[i].name;

        p = (u_char *) ngx_strchr(name.data, '/');
        if (p) {
            name.len = p - name.data;
        }

        target[i].provider = ngx_http_ai_provider_find(amcf, &name);

        if (target[i].provider) {
            continue;
        }

        if (p == NULL && ngx_http_ai_model_by_name(amcf, &name)) {
            ngx_str_set(&text, " but a model of this name, a target is "
                               "written PROVIDER/MODEL");

        } else {
            names = ngx_http_ai_provider_names(cf->temp_pool, amcf);
            if (names == NULL) {
                return NGX_ERROR;
            }

            text = ngx_http_ai_near_text(cf->temp_pool, &name, names,
                                         amcf->providers.nelts);
        }

        (void) ngx_http_ai_conf_error(cf, target[i].file, target[i].line,
                                      "%V: %s \"%V\": no provider \"%V\"%V",
                                      who, target[i].fallback ? "fallback"
                                                              : "target",
                                      &target[i].name, &name, &text);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_aliases_resolve(ngx_conf_t *cf,
    ngx_http_ai_router_main_conf_t *amcf)
{
    ngx_str_t             text, *names;
    ngx_uint_t            i, n;
    ngx_http_ai_alias_t  *alias;
    ngx_http_ai_model_t  **m;

    alias = amcf->aliases.elts;

    for (i = 0; i < amcf->aliases.nelts; i++) {

        alias[i].model = ngx_http_ai_model_by_name(amcf, &alias[i].model_name);

        if (alias[i].model) {
            continue;
        }

        if (ngx_http_ai_alias_by_name(amcf, &alias[i].model_name)) {
            ngx_str_set(&text, " but an alias of this name, name the model");

        } else {
            names = ngx_palloc(cf->temp_pool,
                               (amcf->models.nelts + 1) * sizeof(ngx_str_t));
            if (names == NULL) {
                return NGX_ERROR;
            }

            m = amcf->models.elts;

            for (n = 0; n < amcf->models.nelts; n++) {
                names[n] = m[n]->name;
            }

            text = ngx_http_ai_near_text(cf->temp_pool, &alias[i].model_name,
                                         names, n);
        }

        (void) ngx_http_ai_conf_error(cf, alias[i].file, alias[i].line,
                                      "alias \"%V\": no model \"%V\"%V",
                                      &alias[i].name, &alias[i].model_name,
                                      &text);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_locations_resolve(ngx_conf_t *cf,
    ngx_http_ai_router_main_conf_t *amcf)
{
    ngx_str_t                        who, text, *names, *name;
    ngx_uint_t                       i, n;
    ngx_http_ai_router_loc_conf_t  **loc, *l;

    ngx_str_set(&who, "\"ai_fallback\"");

    loc = amcf->locations.elts;

    for (i = 0; i < amcf->locations.nelts; i++) {
        l = loc[i];

        if (l->fallbacks != NULL && l->fallbacks != NGX_CONF_UNSET_PTR
            && ngx_http_ai_targets_resolve(cf, amcf, l->fallbacks, &who)
               != NGX_OK)
        {
            return NGX_ERROR;
        }

        /* "proxy_pass" and the like replace a handler silently */

        if (l->clcf && l->clcf->handler != ngx_http_ai_router_handler) {
            (void) ngx_http_ai_conf_error(cf, l->file, l->line,
                                          "\"ai_pass\" is not possible, the "
                                          "location \"%V\" has another "
                                          "content handler", &l->clcf->name);
            return NGX_ERROR;
        }

        if (l->pass != NGX_HTTP_AI_PASS_PROVIDER) {
            continue;
        }

        name = &l->pass_name;
        l->provider = ngx_http_ai_provider_find(amcf, name);

        if (l->provider) {
            continue;
        }

        if (ngx_http_ai_model_by_name(amcf, name)
            || ngx_http_ai_alias_by_name(amcf, name))
        {
            ngx_str_set(&text, " but a model of this name, models are served "
                               "by \"ai_pass model\"");

        } else {
            names = ngx_http_ai_provider_names(cf->temp_pool, amcf);
            if (names == NULL) {
                return NGX_ERROR;
            }

            n = amcf->providers.nelts;
            ngx_str_set(&names[n], "model");

            text = ngx_http_ai_near_text(cf->temp_pool, name, names, n + 1);
        }

        (void) ngx_http_ai_conf_error(cf, l->file, l->line,
                                      "\"ai_pass\": no provider \"%V\"%V",
                                      name, &text);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_model_hash(ngx_conf_t *cf, ngx_http_ai_router_main_conf_t *amcf)
{
    size_t                 len, size;
    ngx_uint_t             i, n;
    ngx_hash_key_t        *keys;
    ngx_hash_init_t        hash;
    ngx_http_ai_model_t  **m;
    ngx_http_ai_alias_t   *alias;

    n = amcf->models.nelts + amcf->aliases.nelts;

    keys = ngx_palloc(cf->temp_pool, (n + 1) * sizeof(ngx_hash_key_t));
    if (keys == NULL) {
        return NGX_ERROR;
    }

    m = amcf->models.elts;
    alias = amcf->aliases.elts;
    n = 0;
    len = 0;

    for (i = 0; i < amcf->models.nelts; i++, n++) {
        keys[n].key = m[i]->name;
        keys[n].value = m[i];
    }

    for (i = 0; i < amcf->aliases.nelts; i++, n++) {
        keys[n].key = alias[i].name;
        keys[n].value = alias[i].model;
    }

    for (i = 0; i < n; i++) {
        keys[i].key_hash = ngx_hash_key(keys[i].key.data, keys[i].key.len);
        len = ngx_max(len, keys[i].key.len);
    }

    /* room for four of the longest */

    size = 4 * (sizeof(void *) + ngx_align(len + 2, sizeof(void *)))
           + sizeof(void *);

    hash.hash = &amcf->model_hash;
    hash.key = ngx_hash_key;
    hash.max_size = 1024 + 4 * n;
    hash.bucket_size = ngx_align(size, ngx_cacheline_size);
    hash.name = "ai_model_hash";
    hash.pool = cf->pool;
    hash.temp_pool = NULL;

    if (ngx_hash_init(&hash, keys, n) != NGX_OK) {
        return NGX_ERROR;
    }

    for (i = 0; i < n; i++) {
        ngx_http_ai_model_hash_exact(&amcf->model_hash, &keys[i]);
    }

    return NGX_OK;
}


/* ngx_hash_init() stores names in lower case, those of models are exact */

static void
ngx_http_ai_model_hash_exact(ngx_hash_t *hash, ngx_hash_key_t *key)
{
    size_t           i;
    ngx_hash_elt_t  *elt;

    elt = hash->buckets[key->key_hash % hash->size];

    while (elt->value) {

        if (elt->len == key->key.len && elt->value == key->value) {

            for (i = 0; i < elt->len; i++) {
                if (elt->name[i] != ngx_tolower(key->key.data[i])) {
                    break;
                }
            }

            if (i == elt->len) {
                ngx_memcpy(elt->name, key->key.data, elt->len);
                return;
            }
        }

        elt = (ngx_hash_elt_t *) ngx_align_ptr(&elt->name[0] + elt->len,
                                               sizeof(void *));
    }
}


ngx_http_ai_model_t *
ngx_http_ai_model_find(ngx_http_ai_router_main_conf_t *amcf, ngx_str_t *name)
{
    if (name->len == 0 || name->len > NGX_HTTP_AI_MODEL_NAME_MAX) {
        return NULL;
    }

    return ngx_hash_find(&amcf->model_hash,
                         ngx_hash_key(name->data, name->len),
                         name->data, name->len);
}


ngx_int_t
ngx_http_ai_model_near(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_router_main_conf_t *amcf, ngx_str_t *name, ngx_str_t *text)
{
    u_char                *p;
    size_t                 len;
    ngx_str_t             *other, *found[NGX_HTTP_AI_NEAR_NAMES];
    ngx_uint_t             i, k, n, nfound, score,
                           scores[NGX_HTTP_AI_NEAR_NAMES];
    ngx_http_ai_model_t   *model, **m;
    ngx_http_ai_alias_t   *alias;

    ngx_str_null(text);

    m = amcf->models.elts;
    alias = amcf->aliases.elts;

    n = amcf->models.nelts + amcf->aliases.nelts;
    n = ngx_min(n, NGX_HTTP_AI_NEAR_LOOKED_AT);

    nfound = 0;

    for (i = 0; i < n; i++) {

        if (i < amcf->models.nelts) {
            model = m[i];
            other = &model->name;

        } else {
            model = alias[i - amcf->models.nelts].model;
            other = &alias[i - amcf->models.nelts].name;
        }

        score = ngx_http_ai_near_score(name, other);

        if (score == NGX_MAX_UINT32_VALUE
            || !ngx_http_ai_model_permitted(r, ctx, amcf, model))
        {
            continue;
        }

        for (k = nfound; k > 0 && scores[k - 1] > score; k--) {
            if (k < NGX_HTTP_AI_NEAR_NAMES) {
                scores[k] = scores[k - 1];
                found[k] = found[k - 1];
            }
        }

        if (k < NGX_HTTP_AI_NEAR_NAMES) {
            scores[k] = score;
            found[k] = other;
            nfound = ngx_min(nfound + 1, NGX_HTTP_AI_NEAR_NAMES);
        }
    }

    if (nfound == 0) {
        return NGX_OK;
    }

    len = sizeof(", did you mean ?") - 1;

    for (k = 0; k < nfound; k++) {
        len += sizeof(" or \"\"") - 1 + found[k]->len;
    }

    p = ngx_pnalloc(r->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    text->data = p;

    p = ngx_cpymem(p, ", did you mean ", sizeof(", did you mean ") - 1);

    for (k = 0; k < nfound; k++) {
        p = ngx_sprintf(p, "%s\"%V\"",
                        k == 0 ? "" : k == nfound - 1 ? " or " : ", ",
                        found[k]);
    }

    *p++ = '?';

    text->len = p - text->data;

    return NGX_OK;
}


ngx_uint_t
ngx_http_ai_model_permitted(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_router_main_conf_t *amcf, ngx_http_ai_model_t *model)
{
    ngx_uint_t             i, k;
    ngx_array_t           *targets[2];
    ngx_http_ai_route_t    route;
    ngx_http_ai_target_t  *target;

    route.model = model->name;
    ngx_str_null(&route.provider);
    ngx_str_null(&route.upstream);

    if (amcf->api->permit(r, ctx, &route, NULL) != NGX_OK) {
        return 0;
    }

    targets[0] = &model->targets;
    targets[1] = &model->fallbacks;

    for (k = 0; k < 2; k++) {
        target = targets[k]->elts;

        for (i = 0; i < targets[k]->nelts; i++) {
            route.provider = target[i].provider->name;
            route.upstream = target[i].model.len ? target[i].model
                                                 : model->name;

            if (amcf->api->permit(r, ctx, &route, NULL) == NGX_OK) {
                return 1;
            }
        }
    }

    return 0;
}


ngx_http_ai_model_t *
ngx_http_ai_model_by_name(ngx_http_ai_router_main_conf_t *amcf,
    ngx_str_t *name)
{
    ngx_uint_t             i;
    ngx_http_ai_model_t  **m;

    m = amcf->models.elts;

    for (i = 0; i < amcf->models.nelts; i++) {
        if (m[i]->name.len == name->len
            && ngx_strncmp(m[i]->name.data, name->data, name->len) == 0)
        {
            return m[i];
        }
    }

    return NULL;
}


ngx_http_ai_alias_t *
ngx_http_ai_alias_by_name(ngx_http_ai_router_main_conf_t *amcf,
    ngx_str_t *name)
{
    ngx_uint_t            i;
    ngx_http_ai_alias_t  *alias;

    alias = amcf->aliases.elts;

    for (i = 0; i < amcf->aliases.nelts; i++) {
        if (alias[i].name.len == name->len
            && ngx_strncmp(alias[i].name.data, name->data, name->len) == 0)
        {
            return &alias[i];
        }
    }

    return NULL;
}


/* all of them, with room for one more */

static ngx_str_t *
ngx_http_ai_provider_names(ngx_pool_t *pool,
    ngx_http_ai_router_main_conf_t *amcf)
{
    ngx_str_t                *names;
    ngx_uint_t                i;
    ngx_http_ai_provider_t  **p;

    names = ngx_palloc(pool, (amcf->providers.nelts + 1) * sizeof(ngx_str_t));
    if (names == NULL) {
        return NULL;
    }

    p = amcf->providers.elts;

    for (i = 0; i < amcf->providers.nelts; i++) {
        names[i] = p[i]->name;
    }

    return names;
}
