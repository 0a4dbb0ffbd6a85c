
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_cache.h"
#include "ngx_http_ai_cache_record.h"
#include "ngx_http_ai_cache_remote.h"


/* ms between questions for purges, and how old what is known of them may be
 * for answers to be taken from Redis */
#define NGX_HTTP_AI_CACHE_ASK     500
#define NGX_HTTP_AI_CACHE_KNOWN   1500

/* "4:0123456789abcdef 1234567890123 " */
#define NGX_HTTP_AI_CACHE_RULE_TEXT  (2 + 16 + 1 + NGX_INT64_LEN + 1)


struct ngx_http_ai_cache_remote_s {
    ngx_http_ai_redis_t           *redis;
    ngx_str_t                      prefix;    /* "nginx_ai:cache:<zone>:{" */
    ngx_str_t                      purges;    /* the key */
    uint64_t                       sent;      /* version of the rules */
    ngx_uint_t                     asking;
};


typedef struct {
    ngx_http_ai_cache_zone_t      *zone;
    ngx_http_ai_redis_op_t        *op;
    ngx_pool_t                    *pool;
    ngx_http_ai_cache_found_t     *found;
    ngx_http_ai_cache_found_pt     handler;
    void                          *data;
    u_char                         id[NGX_HTTP_AI_CACHE_ID];
} ngx_http_ai_cache_get_t;


static ngx_int_t ngx_http_ai_cache_remote_key(ngx_http_ai_cache_zone_t *zone,
    u_char *id, ngx_str_t *key, u_char *buf);
static void ngx_http_ai_cache_remote_got(void *data,
    ngx_http_ai_redis_reply_t *reply);
static ngx_int_t ngx_http_ai_cache_remote_value(ngx_http_ai_cache_get_t *get,
    ngx_str_t *text);
static void ngx_http_ai_cache_remote_cleanup(void *data);
static void ngx_http_ai_cache_remote_stored(void *data,
    ngx_http_ai_redis_reply_t *reply);
static void ngx_http_ai_cache_remote_told(void *data,
    ngx_http_ai_redis_reply_t *reply);
static u_char *ngx_http_ai_cache_remote_rule(u_char *p, u_char *last,
    ngx_http_ai_cache_rule_t *rule);


/*
 * Adds rules, folds the oldest of too many into one for all, and returns all
 * that there are.  It only ever raises times, so it may run twice.
 */

static ngx_http_ai_redis_script_t  ngx_http_ai_cache_purge_script = {
    ngx_string(
        "local k = KEYS[1] "
        "local function add(m, t) "
            "local s = redis.call('ZSCORE', k, m) "
            "if not s or tonumber(s) < tonumber(t) then "
                "redis.call('ZADD', k, t, m) "
            "end "
        "end "
        "for m, t in string.gmatch(ARGV[1], '(%S+) (%d+)') do "
            "add(m, t) "
        "end "
        "local all = '0:0000000000000000' "
        "local n = redis.call('ZCARD', k) "
        "if n > 257 then "
            "local r = redis.call('ZRANGE', k, n - 258, n - 258, "
                                 "'WITHSCORES') "
            "add(all, r[2]) "
        "end "
        "local s = redis.call('ZSCORE', k, all) "
        "if s then "
            "redis.call('ZREMRANGEBYSCORE', k, '-inf', s) "
            "redis.call('ZADD', k, s, all) "
        "end "
        "return table.concat(redis.call('ZREVRANGE', k, 0, 256, "
                                       "'WITHSCORES'), ' ')"),
    "", 0
};


ngx_int_t
ngx_http_ai_cache_remote_init(ngx_conf_t *cf, ngx_http_ai_cache_zone_t *zone)
{
    u_char                      *p;
    ngx_str_t                    near;
    ngx_http_ai_cache_remote_t  *remote;

    remote = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_cache_remote_t));
    if (remote == NULL) {
        return NGX_ERROR;
    }

    remote->redis = zone->api->redis_find(cf, &zone->redis_name, &near);

    if (remote->redis == NULL) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "cache zone \"%V\": no ai_redis \"%V\"%V in %s:%ui",
                      &zone->name, &zone->redis_name, &near, zone->file,
                      zone->line);
        return NGX_ERROR;
    }

    remote->purges.len = sizeof("nginx_ai:cache::{purges}") - 1
                         + zone->name.len;

    p = ngx_pnalloc(cf->pool, remote->purges.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    remote->purges.data = p;
    (void) ngx_sprintf(p, "nginx_ai:cache:%V:{purges}", &zone->name);

    remote->prefix.data = p;
    remote->prefix.len = remote->purges.len - (sizeof("purges}") - 1);

    zone->remote = remote;

    return NGX_OK;
}


/* buf: of NGX_HTTP_AI_CACHE_KEY bytes, for names of 64 bytes at most */

#define NGX_HTTP_AI_CACHE_KEY                                                 \
    (sizeof("nginx_ai:cache::{}") + 64 + NGX_HTTP_AI_CACHE_ID * 2)

static ngx_int_t
ngx_http_ai_cache_remote_key(ngx_http_ai_cache_zone_t *zone, u_char *id,
    ngx_str_t *key, u_char *buf)
{
    u_char      *p;
    ngx_str_t   *prefix;

    prefix = &zone->remote->prefix;

    if (prefix->len + NGX_HTTP_AI_CACHE_ID * 2 + 1 > NGX_HTTP_AI_CACHE_KEY) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(buf, prefix->data, prefix->len);
    p = ngx_hex_dump(p, id, NGX_HTTP_AI_CACHE_ID);
    *p++ = '}';

    key->data = buf;
    key->len = p - buf;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_cache_remote_get(ngx_http_ai_cache_zone_t *zone, u_char *id,
    ngx_pool_t *pool, ngx_http_ai_cache_found_t *found,
    ngx_http_ai_cache_found_pt handler, void *data)
{
    ngx_int_t                 rc;
    ngx_str_t                 argv[2];
    ngx_pool_cleanup_t       *cln;
    ngx_http_ai_cache_sh_t   *sh;
    ngx_http_ai_cache_get_t  *get;
    u_char                    buf[NGX_HTTP_AI_CACHE_KEY];

    sh = zone->sh;

    if (sh->remote_told == 0
        || (ngx_msec_int_t) (ngx_current_msec - sh->remote_told)
           > NGX_HTTP_AI_CACHE_KNOWN
        || ngx_http_ai_cache_remote_key(zone, id, &argv[1], buf) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    ngx_str_set(&argv[0], "GET");

    cln = ngx_pool_cleanup_add(pool, sizeof(ngx_http_ai_cache_get_t));
    if (cln == NULL) {
        return NGX_ERROR;
    }

    get = cln->data;
    ngx_memzero(get, sizeof(ngx_http_ai_cache_get_t));

    get->zone = zone;
    get->pool = pool;
    get->found = found;
    get->handler = handler;
    get->data = data;
    ngx_memcpy(get->id, id, NGX_HTTP_AI_CACHE_ID);

    rc = zone->api->redis_send(zone->remote->redis, NULL, argv, 2,
                               ngx_http_ai_cache_remote_got, get, &get->op);

    if (rc != NGX_OK) {
        return rc;
    }

    cln->handler = ngx_http_ai_cache_remote_cleanup;

    return NGX_AGAIN;
}


static void
ngx_http_ai_cache_remote_cleanup(void *data)
{
    ngx_http_ai_cache_get_t *get = data;

    if (get->op) {
        get->zone->api->redis_cancel(get->op);
    }
}


static void
ngx_http_ai_cache_remote_got(void *data, ngx_http_ai_redis_reply_t *reply)
{
    ngx_http_ai_cache_get_t *get = data;

    ngx_int_t                rc;
    ngx_http_ai_cache_sh_t  *sh;

    get->op = NULL;
    sh = get->zone->sh;

    rc = NGX_DECLINED;

    if (reply->rc == NGX_HTTP_AI_REDIS_OK && !reply->nil) {
        rc = ngx_http_ai_cache_remote_value(get, &reply->text);
    }

    (void) ngx_atomic_fetch_add(rc == NGX_OK
                                ? &sh->hits[NGX_HTTP_AI_CACHE_REDIS]
                                : &sh->misses[NGX_HTTP_AI_CACHE_REDIS], 1);

    get->handler(get->data, rc, get->found);
}


static ngx_int_t
ngx_http_ai_cache_remote_value(ngx_http_ai_cache_get_t *get, ngx_str_t *text)
{
    u_char                     *p;
    ngx_str_t                   data;
    ngx_int_t                   purged;
    ngx_http_ai_cache_meta_t    meta;
    ngx_http_ai_cache_zone_t   *zone;
    ngx_http_ai_cache_found_t  *found;
    ngx_http_ai_cache_store_t  *st;

    zone = get->zone;
    found = get->found;

    if (ngx_http_ai_cache_record_read(text->data, text->len, get->id, &meta,
                                      &data)
        != NGX_OK
        || data.len > zone->max_size)
    {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "ai cache: an answer in redis of zone \"%V\" is damaged "
                      "or too large", &zone->name);

        (void) ngx_atomic_fetch_add(&zone->sh->corrupt[
                                                 NGX_HTTP_AI_CACHE_REDIS], 1);
        return NGX_DECLINED;
    }

    st = ngx_http_ai_cache_lock(zone);
    purged = ngx_http_ai_cache_purged(st, &meta);
    ngx_http_ai_cache_unlock(zone);

    if (purged || meta.stale <= ngx_http_ai_cache_now()) {
        return NGX_DECLINED;
    }

    p = ngx_pnalloc(get->pool, data.len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, data.data, data.len);

    found->meta = meta;
    found->data.data = p;
    found->data.len = data.len;
    found->tier = NGX_HTTP_AI_CACHE_REDIS;

    return NGX_OK;
}


void
ngx_http_ai_cache_remote_put(ngx_http_ai_cache_zone_t *zone,
    ngx_http_ai_cache_meta_t *meta, u_char *data, size_t size)
{
    u_char                    *p;
    int64_t                    ttl;
    ngx_str_t                  argv[5];
    ngx_http_ai_cache_head_t   head;
    u_char                     buf[NGX_HTTP_AI_CACHE_KEY];
    u_char                     number[NGX_INT64_LEN];

    ttl = meta->stale - ngx_http_ai_cache_now();

    if (ttl <= 0
        || ngx_http_ai_cache_remote_key(zone, meta->id, &argv[1], buf)
           != NGX_OK)
    {
        return;
    }

    p = ngx_alloc(sizeof(ngx_http_ai_cache_head_t) + size, ngx_cycle->log);
    if (p == NULL) {
        return;
    }

    ngx_http_ai_cache_head_write(&head, meta);

    argv[2].data = p;
    argv[2].len = sizeof(ngx_http_ai_cache_head_t) + size;

    p = ngx_cpymem(p, &head, sizeof(ngx_http_ai_cache_head_t));
    ngx_memcpy(p, data, size);

    ngx_str_set(&argv[0], "SET");
    ngx_str_set(&argv[3], "PX");

    argv[4].data = number;
    argv[4].len = ngx_sprintf(number, "%L", ttl) - number;

    if (zone->api->redis_send(zone->remote->redis, NULL, argv, 5,
                              ngx_http_ai_cache_remote_stored, zone, NULL)
        != NGX_OK)
    {
        (void) ngx_atomic_fetch_add(&zone->sh->dropped[
                                                 NGX_HTTP_AI_CACHE_REDIS], 1);
    }

    ngx_free(argv[2].data);
}


static void
ngx_http_ai_cache_remote_stored(void *data, ngx_http_ai_redis_reply_t *reply)
{
    ngx_http_ai_cache_zone_t *zone = data;

    (void) ngx_atomic_fetch_add(reply->rc == NGX_HTTP_AI_REDIS_OK
                                ? &zone->sh->stored[NGX_HTTP_AI_CACHE_REDIS]
                                : &zone->sh->dropped[NGX_HTTP_AI_CACHE_REDIS],
                                1);
}


void
ngx_http_ai_cache_remote_sync(ngx_http_ai_cache_zone_t *zone)
{
    u_char                      *p, *text;
    uint64_t                     version;
    ngx_str_t                    argv[3];
    ngx_uint_t                   i, n;
    ngx_atomic_uint_t            asked;
    ngx_http_ai_cache_sh_t      *sh;
    ngx_http_ai_cache_rule_t     rules[NGX_HTTP_AI_CACHE_RULES + 1];
    ngx_http_ai_cache_store_t   *st;
    ngx_http_ai_cache_remote_t  *remote;

    sh = zone->sh;
    remote = zone->remote;
    asked = sh->remote_asked;

    st = ngx_http_ai_cache_lock(zone);

    version = ngx_http_ai_cache_purge_version(st);
    n = (version != sh->remote_version)
        ? ngx_http_ai_cache_purge_list(st, rules) : 0;

    ngx_http_ai_cache_unlock(zone);

    if (remote->asking
        || (n == 0 && ngx_current_msec - asked < NGX_HTTP_AI_CACHE_ASK)
        || !ngx_atomic_cmp_set(&sh->remote_asked, asked, ngx_current_msec))
    {
        return;
    }

    text = ngx_alloc(n * NGX_HTTP_AI_CACHE_RULE_TEXT + 1, ngx_cycle->log);
    if (text == NULL) {
        return;
    }

    p = text;

    for (i = 0; i < n; i++) {
        p = ngx_sprintf(p, "%uL:%016xL %L ", rules[i].kind, rules[i].hash,
                        rules[i].time);
    }

    ngx_str_set(&argv[0], "1");
    argv[1] = remote->purges;
    argv[2].data = text;
    argv[2].len = p - text;

    remote->sent = version;

    if (zone->api->redis_send(remote->redis, &ngx_http_ai_cache_purge_script,
                              argv, 3, ngx_http_ai_cache_remote_told, zone,
                              NULL)
        == NGX_OK)
    {
        remote->asking = 1;
    }

    ngx_free(text);
}


static void
ngx_http_ai_cache_remote_told(void *data, ngx_http_ai_redis_reply_t *reply)
{
    ngx_http_ai_cache_zone_t *zone = data;

    u_char                      *p, *last;
    ngx_uint_t                   n;
    ngx_http_ai_cache_rule_t     rule;
    ngx_http_ai_cache_store_t   *st;
    ngx_http_ai_cache_remote_t  *remote;

    remote = zone->remote;
    remote->asking = 0;
    n = 0;

    if (reply->rc != NGX_HTTP_AI_REDIS_OK) {
        return;
    }

    p = reply->text.data;
    last = p + reply->text.len;

    st = ngx_http_ai_cache_lock(zone);

    while (p < last) {
        p = ngx_http_ai_cache_remote_rule(p, last, &rule);

        if (p == NULL) {
            break;
        }

        (void) ngx_http_ai_cache_purge_add(st, &rule);
        n++;
    }

    ngx_http_ai_cache_unlock(zone);

    if (p == NULL) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "ai cache: what redis has of the purges of zone \"%V\" "
                      "is not understood, its answers are not used",
                      &zone->name);
        return;
    }

    /* one that has lost them is told again */

    zone->sh->remote_version = n ? remote->sent : 0;
    zone->sh->remote_told = ngx_current_msec ? ngx_current_msec : 1;
}


/* "<kind>:<hash> <time>" and a space; NULL: it is something else */

static u_char *
ngx_http_ai_cache_remote_rule(u_char *p, u_char *last,
    ngx_http_ai_cache_rule_t *rule)
{
    u_char    *space;
    ngx_int_t  high, low;

    if (last - p < 20 || p[1] != ':' || p[18] != ' '
        || p[0] < '0' || p[0] >= '0' + NGX_HTTP_AI_CACHE_RULE_MAX)
    {
        return NULL;
    }

    high = ngx_hextoi(p + 2, 8);
    low = ngx_hextoi(p + 10, 8);

    rule->kind = p[0] - '0';
    rule->hash = (uint64_t) high << 32 | (uint64_t) low;

    p += 19;

    space = ngx_strlchr(p, last, ' ');

    if (space == NULL) {
        space = last;
    }

    rule->time = ngx_atoof(p, space - p);

    if (high == NGX_ERROR || low == NGX_ERROR || rule->time == NGX_ERROR) {
        return NULL;
    }

    return (space < last) ? space + 1 : last;
}
