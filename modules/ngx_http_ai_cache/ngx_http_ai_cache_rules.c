
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Purges.  They hold for what lies on disk and in Redis as well, so they are
 * not forgotten when the zone is emptied: whenever a process dies here, the
 * rules that are left purge at least what they purged before.
 */


#include "ngx_http_ai_cache_block.h"


static void ngx_http_ai_cache_fold(ngx_http_ai_cache_store_t *st);
static void ngx_http_ai_cache_drop_old(ngx_http_ai_cache_store_t *st);


ngx_int_t
ngx_http_ai_cache_purge_add(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_rule_t *rule)
{
    ngx_uint_t                 i;
    ngx_http_ai_cache_rule_t  *rules;

    if (rule->time <= st->all) {
        return NGX_DECLINED;
    }

    st->version++;

    if (rule->kind == NGX_HTTP_AI_CACHE_RULE_ALL) {
        st->all = rule->time;
        ngx_http_ai_cache_drop_old(st);

        return NGX_OK;
    }

    rules = st->rules;

    for (i = 0; i < st->nrules; i++) {

        if (rules[i].kind != rule->kind || rules[i].hash != rule->hash) {
            continue;
        }

        if (rule->time <= rules[i].time) {
            st->version--;
            return NGX_DECLINED;
        }

        rules[i].time = rule->time;

        return NGX_OK;
    }

    if (st->nrules == NGX_HTTP_AI_CACHE_RULES) {
        ngx_http_ai_cache_fold(st);

        if (rule->time <= st->all) {
            return NGX_OK;
        }
    }

    rules[st->nrules] = *rule;

    ngx_http_ai_cache_barrier();
    st->nrules++;

    return NGX_OK;
}


/* the oldest become one that purges everything */

static void
ngx_http_ai_cache_fold(ngx_http_ai_cache_store_t *st)
{
    int64_t     oldest;
    ngx_uint_t  i;

    oldest = st->rules[0].time;

    for (i = 1; i < st->nrules; i++) {
        oldest = ngx_min(oldest, st->rules[i].time);
    }

    st->all = oldest;
    ngx_http_ai_cache_drop_old(st);
}


static void
ngx_http_ai_cache_drop_old(ngx_http_ai_cache_store_t *st)
{
    ngx_uint_t  i;

    ngx_http_ai_cache_barrier();

    i = 0;

    while (i < st->nrules) {

        if (st->rules[i].time > st->all) {
            i++;
            continue;
        }

        /* time last: an older hash with a newer time would be a purge that
         * is lost */

        st->rules[i].kind = st->rules[st->nrules - 1].kind;
        st->rules[i].hash = st->rules[st->nrules - 1].hash;
        ngx_http_ai_cache_barrier();
        st->rules[i].time = st->rules[st->nrules - 1].time;
        ngx_http_ai_cache_barrier();

        st->nrules--;
    }
}


ngx_uint_t
ngx_http_ai_cache_purge_list(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_rule_t *rules)
{
    ngx_uint_t  n;

    n = 0;

    if (st->all) {
        rules[n].kind = NGX_HTTP_AI_CACHE_RULE_ALL;
        rules[n].hash = 0;
        rules[n++].time = st->all;
    }

    ngx_memcpy(&rules[n], st->rules,
               st->nrules * sizeof(ngx_http_ai_cache_rule_t));

    return n + st->nrules;
}


uint64_t
ngx_http_ai_cache_purge_version(ngx_http_ai_cache_store_t *st)
{
    return st->version;
}


ngx_uint_t
ngx_http_ai_cache_purged(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_meta_t *meta)
{
    uint64_t                   hash[NGX_HTTP_AI_CACHE_RULE_MAX];
    ngx_uint_t                 i;
    ngx_http_ai_cache_rule_t  *rule;

    if (meta->created <= st->all) {
        return 1;
    }

    if (st->nrules == 0) {
        return 0;
    }

    hash[NGX_HTTP_AI_CACHE_RULE_ALL] = 0;
    hash[NGX_HTTP_AI_CACHE_RULE_SCOPE] = meta->scope;
    hash[NGX_HTTP_AI_CACHE_RULE_MODEL] = meta->model;
    hash[NGX_HTTP_AI_CACHE_RULE_TAG] = meta->tag;
    hash[NGX_HTTP_AI_CACHE_RULE_ID] = ngx_http_ai_cache_word(meta->id, 0);

    rule = st->rules;

    for (i = 0; i < st->nrules; i++) {
        if (meta->created <= rule[i].time
            && rule[i].kind < NGX_HTTP_AI_CACHE_RULE_MAX
            && rule[i].hash == hash[rule[i].kind])
        {
            return 1;
        }
    }

    return 0;
}
