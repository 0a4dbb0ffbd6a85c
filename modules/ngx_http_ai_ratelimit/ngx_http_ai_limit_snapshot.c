
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The use of windows as bytes, in the order of this machine:
 *
 *     magic, version (4 bytes each), number of keys, length of all (8 each)
 *     for each key, the newest first:
 *         length of the key, mask of windows (4 each)
 *         for each window of the mask: 7 values (8 each)
 *         the key, filled up to 8 bytes
 *     hash of all before (8)
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_limit_block.h"


#define NGX_HTTP_AI_SNAPSHOT_MAGIC    0x536e6941
#define NGX_HTTP_AI_SNAPSHOT_VERSION  1

#define NGX_HTTP_AI_SNAPSHOT_HEAD     24
#define NGX_HTTP_AI_SNAPSHOT_WINDOW   56


typedef struct {
    uint32_t                   magic;
    uint32_t                   version;
    uint64_t                   nkeys;
    uint64_t                   len;
} ngx_http_ai_snapshot_head_t;


typedef struct {
    uint32_t                   len;
    uint32_t                   mask;
} ngx_http_ai_snapshot_key_t;


static size_t ngx_http_ai_snapshot_entry(ngx_http_ai_limit_key_t *k,
    uint32_t *mask);
static ngx_int_t ngx_http_ai_snapshot_valid(ngx_http_ai_limit_store_t *st,
    u_char *p, u_char *last, uint64_t nkeys);
static void ngx_http_ai_snapshot_window(ngx_http_ai_calendar_t *w,
    int64_t *v);
static void ngx_http_ai_snapshot_put(ngx_http_ai_limit_store_t *st,
    ngx_str_t *key, uint32_t mask, u_char *p);


/* the hash is a checksum here, and the same for all */

static uint64_t  ngx_http_ai_snapshot_seed[2] = { 0x41694c69, 0x6d697473 };


size_t
ngx_http_ai_limit_snapshot_size(ngx_http_ai_limit_store_t *st)
{
    size_t                    size;
    uint32_t                  i, mask;
    ngx_http_ai_limit_key_t  *k;

    size = NGX_HTTP_AI_SNAPSHOT_HEAD + sizeof(uint64_t);

    for (i = st->head.newest; i; i = k->link.older) {
        k = ngx_http_ai_limit_key(st, i);
        size += ngx_http_ai_snapshot_entry(k, &mask);
    }

    return size;
}


size_t
ngx_http_ai_limit_snapshot(ngx_http_ai_limit_store_t *st, u_char *buf,
    size_t size)
{
    size_t                        n;
    u_char                       *p;
    int64_t                       v[7];
    uint32_t                      i, j, mask;
    uint64_t                      sum;
    ngx_http_ai_calendar_t       *w;
    ngx_http_ai_limit_key_t      *k;
    ngx_http_ai_snapshot_key_t    key;
    ngx_http_ai_snapshot_head_t   head;

    if (size < NGX_HTTP_AI_SNAPSHOT_HEAD + sizeof(uint64_t)) {
        return 0;
    }

    head.magic = NGX_HTTP_AI_SNAPSHOT_MAGIC;
    head.version = NGX_HTTP_AI_SNAPSHOT_VERSION;
    head.nkeys = 0;

    size -= sizeof(uint64_t);
    p = buf + NGX_HTTP_AI_SNAPSHOT_HEAD;

    for (i = st->head.newest; i; i = k->link.older) {
        k = ngx_http_ai_limit_key(st, i);

        n = ngx_http_ai_snapshot_entry(k, &mask);

        if (n == 0) {
            continue;
        }

        if (n > size - (p - buf)) {
            return 0;
        }

        key.len = k->link.len;
        key.mask = mask;

        p = ngx_cpymem(p, &key, sizeof(key));

        for (j = 0; j < NGX_HTTP_AI_LIMIT_WINDOWS; j++) {
            if (mask & 1 << j) {
                w = &k->meters.windows[j];

                v[0] = w->limit;
                v[1] = w->most;
                v[2] = w->start;
                v[3] = w->end;
                v[4] = w->used;
                v[5] = w->next;
                v[6] = w->at;

                p = ngx_cpymem(p, v, sizeof(v));
            }
        }

        p = ngx_cpymem(p, k->data, key.len);

        n = ngx_align(key.len, 8) - key.len;
        ngx_memzero(p, n);
        p += n;

        head.nkeys++;
    }

    head.len = p - buf + sizeof(uint64_t);
    ngx_memcpy(buf, &head, sizeof(head));

    sum = ngx_http_ai_limit_hash(ngx_http_ai_snapshot_seed, buf, p - buf);
    ngx_memcpy(p, &sum, sizeof(uint64_t));

    return head.len;
}


/* a key's size, or 0 when it has used nothing */

static size_t
ngx_http_ai_snapshot_entry(ngx_http_ai_limit_key_t *k, uint32_t *mask)
{
    size_t                   size;
    ngx_uint_t               i;
    ngx_http_ai_calendar_t  *w;

    size = 0;
    *mask = 0;

    for (i = 0; i < NGX_HTTP_AI_LIMIT_WINDOWS; i++) {
        w = &k->meters.windows[i];

        if (w->limit >= 0 && (w->used || w->next)) {
            *mask |= 1 << i;
            size += NGX_HTTP_AI_SNAPSHOT_WINDOW;
        }
    }

    return size ? sizeof(ngx_http_ai_snapshot_key_t) + size
                  + ngx_align(k->link.len, 8)
                : 0;
}


ngx_int_t
ngx_http_ai_limit_restore(ngx_http_ai_limit_store_t *st, u_char *buf,
    size_t len)
{
    u_char                       *p, *last;
    uint64_t                      sum, n;
    ngx_str_t                     key;
    ngx_uint_t                    i;
    ngx_http_ai_snapshot_key_t    entry;
    ngx_http_ai_snapshot_head_t   head;

    if (len < NGX_HTTP_AI_SNAPSHOT_HEAD + sizeof(uint64_t)) {
        return NGX_DECLINED;
    }

    ngx_memcpy(&head, buf, sizeof(head));

    if (head.magic != NGX_HTTP_AI_SNAPSHOT_MAGIC
        || head.version != NGX_HTTP_AI_SNAPSHOT_VERSION
        || head.len != len)
    {
        return NGX_DECLINED;
    }

    last = buf + len - sizeof(uint64_t);
    ngx_memcpy(&sum, last, sizeof(uint64_t));

    if (sum != ngx_http_ai_limit_hash(ngx_http_ai_snapshot_seed, buf,
                                      last - buf))
    {
        return NGX_DECLINED;
    }

    p = buf + NGX_HTTP_AI_SNAPSHOT_HEAD;

    /* all or nothing */

    if (ngx_http_ai_snapshot_valid(st, p, last, head.nkeys) != NGX_OK) {
        return NGX_DECLINED;
    }

    for (n = 0; n < head.nkeys; n++) {
        ngx_memcpy(&entry, p, sizeof(entry));
        p += sizeof(entry);

        key.len = entry.len;
        key.data = p;

        for (i = 0; i < NGX_HTTP_AI_LIMIT_WINDOWS; i++) {
            if (entry.mask & 1 << i) {
                key.data += NGX_HTTP_AI_SNAPSHOT_WINDOW;
            }
        }

        if (key.len <= st->key_max) {
            ngx_http_ai_snapshot_put(st, &key, entry.mask, p);
        }

        p = key.data + ngx_align(key.len, 8);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_snapshot_valid(ngx_http_ai_limit_store_t *st, u_char *p,
    u_char *last, uint64_t nkeys)
{
    int64_t                      v[7];
    uint64_t                     n;
    ngx_uint_t                   i;
    ngx_http_ai_calendar_t       w;
    ngx_http_ai_snapshot_key_t   entry;

    for (n = 0; n < nkeys; n++) {

        if ((size_t) (last - p) < sizeof(entry)) {
            return NGX_ERROR;
        }

        ngx_memcpy(&entry, p, sizeof(entry));
        p += sizeof(entry);

        if (entry.mask == 0
            || entry.mask >= 1 << NGX_HTTP_AI_LIMIT_WINDOWS
            || entry.len > 4096)
        {
            return NGX_ERROR;
        }

        for (i = 0; i < NGX_HTTP_AI_LIMIT_WINDOWS; i++) {

            if (!(entry.mask & 1 << i)) {
                continue;
            }

            if (last - p < NGX_HTTP_AI_SNAPSHOT_WINDOW) {
                return NGX_ERROR;
            }

            ngx_memcpy(v, p, sizeof(v));
            p += sizeof(v);

            ngx_http_ai_snapshot_window(&w, v);

            if (w.limit < 0 || w.limit > NGX_HTTP_AI_LIMIT_MAX
                || w.most < 0 || w.most > NGX_HTTP_AI_LIMIT_MAX
                || w.start < -NGX_HTTP_AI_LIMIT_MAX || w.end <= w.start
                || w.end > NGX_HTTP_AI_LIMIT_MAX
                || w.used < 0 || w.used > NGX_HTTP_AI_LIMIT_SUM
                || w.next < 0 || w.next > NGX_HTTP_AI_LIMIT_SUM
                || w.at < 0 || w.at > NGX_HTTP_AI_LIMIT_MAX)
            {
                return NGX_ERROR;
            }
        }

        if ((size_t) (last - p) < ngx_align(entry.len, 8)) {
            return NGX_ERROR;
        }

        p += ngx_align(entry.len, 8);
    }

    return (p == last) ? NGX_OK : NGX_ERROR;
}


static void
ngx_http_ai_snapshot_window(ngx_http_ai_calendar_t *w, int64_t *v)
{
    w->limit = v[0];
    w->most = v[1];
    w->start = v[2];
    w->end = v[3];
    w->used = v[4];
    w->held = 0;
    w->next = v[5];
    w->at = v[6];
}


static void
ngx_http_ai_snapshot_put(ngx_http_ai_limit_store_t *st, ngx_str_t *key,
    uint32_t mask, u_char *p)
{
    int64_t                   v[7];
    uint32_t                  i, hash;
    ngx_uint_t                j;
    ngx_http_ai_meters_t      meters;
    ngx_http_ai_calendar_t    from, *w;
    ngx_http_ai_limit_key_t  *k;

    hash = ngx_http_ai_limit_hash(st->seed, key->data, key->len);
    i = ngx_http_ai_limit_find(st, key, hash);

    if (i == 0) {

        /* nobody's use is given up for that of another */

        if (st->head.kfree == 0 && st->head.ktop == st->nkeys) {
            ngx_http_ai_limit_keep(st, &st->head.stats.full, sizeof(uint64_t));
            st->head.stats.full++;
            ngx_http_ai_limit_commit(st);

            return;
        }

        ngx_http_ai_meters_init(&meters);

        ngx_http_ai_limit_keep(st, &st->head, sizeof(st->head));
        i = ngx_http_ai_limit_add(st, key, hash, &meters, 0);
    }

    k = ngx_http_ai_limit_key(st, i);

    for (j = 0; j < NGX_HTTP_AI_LIMIT_WINDOWS; j++) {

        if (!(mask & 1 << j)) {
            continue;
        }

        ngx_memcpy(v, p, sizeof(v));
        p += sizeof(v);

        ngx_http_ai_snapshot_window(&from, v);

        w = &k->meters.windows[j];
        ngx_http_ai_limit_keep(st, w, sizeof(ngx_http_ai_calendar_t));

        if (w->limit < 0 || w->start < from.start) {
            from.held = w->held;
            *w = from;

        } else if (w->start == from.start) {
            w->used = ngx_min(w->used + from.used, NGX_HTTP_AI_LIMIT_SUM);
            w->next = ngx_min(w->next + from.next, NGX_HTTP_AI_LIMIT_SUM);
            w->at = ngx_max(w->at, from.at);
            w->most = ngx_max(w->most, from.most);
        }
    }

    ngx_http_ai_limit_commit(st);
}
