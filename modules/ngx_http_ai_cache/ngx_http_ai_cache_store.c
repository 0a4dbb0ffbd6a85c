
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Entries: a hash table, a list in the order of use, and a sketch that tells
 * how often something was asked for lately, so that a full zone keeps what is
 * asked for more often: G. Einziger, R. Friedman, B. Manes, "TinyLFU: A Highly
 * Efficient Cache Admission Policy", 2017.
 */


#include "ngx_http_ai_cache_block.h"


/* a word of the sketch is halved each time so many things were asked for */
#define NGX_HTTP_AI_CACHE_AGE  10


static size_t ngx_http_ai_cache_layout(ngx_http_ai_cache_store_t *st,
    size_t npieces);
static void ngx_http_ai_cache_reset(ngx_http_ai_cache_store_t *st);
static void ngx_http_ai_cache_ask(ngx_http_ai_cache_store_t *st, u_char *id);
static uint32_t ngx_http_ai_cache_alloc(ngx_http_ai_cache_store_t *st,
    uint32_t kind);
static void ngx_http_ai_cache_use(ngx_http_ai_cache_store_t *st, uint32_t i);
static void ngx_http_ai_cache_unuse(ngx_http_ai_cache_store_t *st,
    uint32_t i);


ngx_http_ai_cache_store_t *
ngx_http_ai_cache_store_init(void *block, size_t size)
{
    size_t                      n, total;
    ngx_http_ai_cache_store_t  *st;

    st = block;

    if (size < sizeof(ngx_http_ai_cache_store_t)) {
        return NULL;
    }

    ngx_memzero(st, sizeof(ngx_http_ai_cache_store_t));

    n = ngx_min(size / NGX_HTTP_AI_CACHE_PIECE, 0x7fffffff);

    for ( ;; ) {

        if (n < NGX_HTTP_AI_CACHE_MIN) {
            return NULL;
        }

        total = ngx_http_ai_cache_layout(st, n);

        if (total <= size) {
            break;
        }

        n -= (total - size) / (NGX_HTTP_AI_CACHE_PIECE * 2) + 1;
    }

    st->size = total;
    st->serial = 1;

    st->figures.size = n * NGX_HTTP_AI_CACHE_PIECE;

    return st;
}


static size_t
ngx_http_ai_cache_layout(ngx_http_ai_cache_store_t *st, size_t npieces)
{
    size_t  at, n;

    st->npieces = npieces;
    st->nflights = ngx_min(npieces / 64 + 16, NGX_HTTP_AI_CACHE_FLIGHTS);

    at = ngx_align(sizeof(ngx_http_ai_cache_store_t), 64);

    for (n = 16; n * 2 <= npieces; n *= 2) { /* void */ }

    st->mask = n - 1;
    st->chains = at;
    at += n * sizeof(uint32_t);

    for (n = 16; n < npieces / 8; n *= 2) { /* void */ }

    st->smask = n - 1;
    st->sketch = at;
    at += n * sizeof(uint64_t);

    for (n = 16; n < st->nflights; n *= 2) { /* void */ }

    st->fmask = n - 1;
    st->fchains = at;
    at += n * sizeof(uint32_t);

    st->flights = at;
    at += st->nflights * sizeof(ngx_http_ai_cache_flight_t);

    st->links = at;
    at += (npieces + 1) * sizeof(ngx_http_ai_cache_link_t);

    st->pieces = ngx_align(at, 64);

    return st->pieces + npieces * NGX_HTTP_AI_CACHE_PIECE;
}


ngx_uint_t
ngx_http_ai_cache_enter(ngx_http_ai_cache_store_t *st)
{
    if (!st->dirty) {
        return 0;
    }

    ngx_http_ai_cache_reset(st);
    ngx_http_ai_cache_unmark(st);

    return 1;
}


void
ngx_http_ai_cache_leave(ngx_http_ai_cache_store_t *st)
{
    ngx_http_ai_cache_unmark(st);
}


static void
ngx_http_ai_cache_reset(ngx_http_ai_cache_store_t *st)
{
    st->top = 0;
    st->free = 0;
    st->nfree = 0;
    st->newest = 0;
    st->oldest = 0;
    st->swept = 0;

    st->figures.entries = 0;
    st->figures.bytes = 0;
    st->figures.resets++;

    ngx_memzero((u_char *) st + st->chains,
                ((size_t) st->mask + 1) * sizeof(uint32_t));
    ngx_memzero((u_char *) st + st->links,
                ((size_t) st->npieces + 1) * sizeof(ngx_http_ai_cache_link_t));

    ngx_http_ai_cache_flights_reset(st);
}


static void
ngx_http_ai_cache_ask(ngx_http_ai_cache_store_t *st, u_char *id)
{
    uint64_t    word, *w, *sketch;
    ngx_uint_t  i, shift;

    sketch = (uint64_t *) ((u_char *) st + st->sketch);

    for (i = 0; i < 4; i++) {
        word = ngx_http_ai_cache_word(id, i);
        shift = 16 * i + (word >> 62) * 4;
        w = &sketch[(word >> 24) & st->smask];

        if (((*w >> shift) & 15) < 15) {
            *w += (uint64_t) 1 << shift;
        }
    }

    st->asked++;

    if (st->asked % NGX_HTTP_AI_CACHE_AGE == 0) {
        w = &sketch[(st->asked / NGX_HTTP_AI_CACHE_AGE) & st->smask];
        *w = (*w >> 1) & 0x7777777777777777ull;
    }
}


ngx_uint_t
ngx_http_ai_cache_often(ngx_http_ai_cache_store_t *st, u_char *id)
{
    uint64_t    word, *sketch;
    ngx_uint_t  i, n, shift, often;

    sketch = (uint64_t *) ((u_char *) st + st->sketch);
    often = 15;

    for (i = 0; i < 4; i++) {
        word = ngx_http_ai_cache_word(id, i);
        shift = 16 * i + (word >> 62) * 4;
        n = (sketch[(word >> 24) & st->smask] >> shift) & 15;

        often = ngx_min(often, n);
    }

    return often;
}


ngx_int_t
ngx_http_ai_cache_get(ngx_http_ai_cache_store_t *st, u_char *id, int64_t now,
    ngx_http_ai_cache_meta_t *meta)
{
    uint32_t                    i;
    ngx_http_ai_cache_entry_t  *e;

    ngx_http_ai_cache_ask(st, id);

    i = ngx_http_ai_cache_find(st, id);

    if (i == 0) {
        st->figures.misses++;
        return NGX_DECLINED;
    }

    e = ngx_http_ai_cache_entry(st, i);

    if (e->meta.stale <= now || ngx_http_ai_cache_purged(st, &e->meta)) {

        if (e->meta.stale <= now) {
            st->figures.expired++;
        } else {
            st->figures.purged++;
        }

        st->figures.misses++;

        ngx_http_ai_cache_mark(st);
        ngx_http_ai_cache_unlist(st, i);
        ngx_http_ai_cache_unmark(st);

        return NGX_DECLINED;
    }

    if (st->newest != i) {
        ngx_http_ai_cache_mark(st);
        ngx_http_ai_cache_unuse(st, i);
        ngx_http_ai_cache_use(st, i);
        ngx_http_ai_cache_unmark(st);
    }

    *meta = e->meta;
    st->figures.hits++;

    return NGX_OK;
}


ngx_uint_t
ngx_http_ai_cache_younger(ngx_http_ai_cache_store_t *st, u_char *id,
    int64_t created, int64_t now)
{
    uint32_t                   i;
    ngx_http_ai_cache_meta_t  *meta;

    i = ngx_http_ai_cache_find(st, id);

    if (i == 0) {
        return 0;
    }

    meta = &ngx_http_ai_cache_entry(st, i)->meta;

    return meta->created > created && meta->stale > now
           && !ngx_http_ai_cache_purged(st, meta);
}


ngx_int_t
ngx_http_ai_cache_copy(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_meta_t *meta, u_char *buf)
{
    u_char                     *p;
    size_t                      n, left;
    uint32_t                    i, piece;
    ngx_http_ai_cache_entry_t  *e;

    i = ngx_http_ai_cache_find(st, meta->id);

    if (i == 0) {
        return NGX_DECLINED;
    }

    e = ngx_http_ai_cache_entry(st, i);

    if (ngx_memcmp(&e->meta, meta, sizeof(ngx_http_ai_cache_meta_t)) != 0) {
        return NGX_DECLINED;
    }

    left = meta->size;
    n = ngx_min(left, NGX_HTTP_AI_CACHE_INLINE);
    p = ngx_cpymem(buf, e->data, n);
    left -= n;

    piece = i;

    while (left > 0) {
        piece = ngx_http_ai_cache_link(st, piece)->next;

        if (piece == 0 || piece > st->top) {
            break;
        }

        n = ngx_min(left, NGX_HTTP_AI_CACHE_PIECE);
        p = ngx_cpymem(p, ngx_http_ai_cache_piece(st, piece), n);
        left -= n;
    }

    if (left || ngx_http_ai_cache_sum(buf, meta->size) != meta->sum) {
        st->figures.corrupt++;
        st->figures.hits--;
        st->figures.misses++;

        ngx_http_ai_cache_mark(st);
        ngx_http_ai_cache_unlist(st, i);
        ngx_http_ai_cache_unmark(st);

        return NGX_DECLINED;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_cache_put(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_meta_t *meta, u_char *data, size_t size, int64_t now)
{
    uint32_t                    i, old, need;
    ngx_uint_t                  often;
    ngx_http_ai_cache_entry_t  *e;

    meta->size = size;
    meta->sum = ngx_http_ai_cache_sum(data, size);

    need = ngx_http_ai_cache_need(st, 0, size);

    if (need > st->npieces / 4
        || meta->stale <= now
        || ngx_http_ai_cache_purged(st, meta))
    {
        return NGX_DECLINED;
    }

    ngx_http_ai_cache_mark(st);

    often = ngx_http_ai_cache_often(st, meta->id);
    old = ngx_http_ai_cache_find(st, meta->id);

    if (old) {
        ngx_http_ai_cache_unlist(st, old);
        often = NGX_HTTP_AI_CACHE_ALWAYS;
    }

    if (ngx_http_ai_cache_room(st, need, often, now) != NGX_OK) {
        st->figures.rejected++;
        ngx_http_ai_cache_unmark(st);
        return NGX_DECLINED;
    }

    i = 0;
    ngx_http_ai_cache_add(st, &i, data, size);

    e = ngx_http_ai_cache_entry(st, i);
    e->meta = *meta;

    ngx_http_ai_cache_list(st, i);

    ngx_http_ai_cache_unmark(st);

    return NGX_OK;
}


void
ngx_http_ai_cache_remove(ngx_http_ai_cache_store_t *st, u_char *id)
{
    uint32_t  i;

    i = ngx_http_ai_cache_find(st, id);

    if (i) {
        ngx_http_ai_cache_mark(st);
        ngx_http_ai_cache_unlist(st, i);
        ngx_http_ai_cache_unmark(st);
    }
}


uint32_t
ngx_http_ai_cache_find(ngx_http_ai_cache_store_t *st, u_char *id)
{
    uint32_t                    i, print;
    ngx_http_ai_cache_link_t   *link;
    ngx_http_ai_cache_entry_t  *e;

    print = ngx_http_ai_cache_print(id);

    for (i = *ngx_http_ai_cache_chain(st, id); i; i = link->chain) {
        link = ngx_http_ai_cache_link(st, i);

        if (link->print != print) {
            continue;
        }

        e = ngx_http_ai_cache_entry(st, i);

        if (ngx_memcmp(e->meta.id, id, NGX_HTTP_AI_CACHE_ID) == 0) {
            break;
        }
    }

    return i;
}


ngx_int_t
ngx_http_ai_cache_room(ngx_http_ai_cache_store_t *st, uint32_t npieces,
    ngx_uint_t often, int64_t now)
{
    uint32_t                    i, newer, have;
    ngx_uint_t                  n;
    ngx_http_ai_cache_entry_t  *e;

    have = ngx_http_ai_cache_spare(st);
    n = 0;

    for (i = st->oldest; i && have < npieces; i = e->newer) {
        e = ngx_http_ai_cache_entry(st, i);

        if (++n > NGX_HTTP_AI_CACHE_VICTIMS) {
            return NGX_DECLINED;
        }

        if (often < NGX_HTTP_AI_CACHE_ALWAYS
            && e->meta.stale > now
            && ngx_http_ai_cache_often(st, e->meta.id) >= often
            && !ngx_http_ai_cache_purged(st, &e->meta))
        {
            return NGX_DECLINED;
        }

        if (!e->flight) {
            have += e->npieces;
        }
    }

    if (have < npieces) {
        return NGX_DECLINED;
    }

    for (i = st->oldest; ngx_http_ai_cache_spare(st) < npieces; i = newer) {
        e = ngx_http_ai_cache_entry(st, i);
        newer = e->newer;

        if (e->flight) {
            /* its pieces are still being read */
            continue;
        }

        if (e->meta.stale <= now) {
            st->figures.expired++;

        } else {
            st->figures.evicted++;
        }

        ngx_http_ai_cache_unlist(st, i);
    }

    return NGX_OK;
}


uint32_t
ngx_http_ai_cache_need(ngx_http_ai_cache_store_t *st, uint32_t i, size_t size)
{
    size_t                      had, left;
    ngx_http_ai_cache_entry_t  *e;

    if (i == 0) {
        had = 0;
        left = NGX_HTTP_AI_CACHE_INLINE;

    } else {
        e = ngx_http_ai_cache_entry(st, i);
        had = 1;
        left = NGX_HTTP_AI_CACHE_INLINE
               + (size_t) (e->npieces - 1) * NGX_HTTP_AI_CACHE_PIECE
               - e->size;
    }

    if (size <= left) {
        return 1 - had;
    }

    return 1 - had + (size - left + NGX_HTTP_AI_CACHE_PIECE - 1)
                     / NGX_HTTP_AI_CACHE_PIECE;
}


static uint32_t
ngx_http_ai_cache_alloc(ngx_http_ai_cache_store_t *st, uint32_t kind)
{
    uint32_t                   i;
    ngx_http_ai_cache_link_t  *link;

    if (st->free) {
        i = st->free;
        st->free = ngx_http_ai_cache_link(st, i)->next;
        st->nfree--;

    } else {
        i = ++st->top;
    }

    link = ngx_http_ai_cache_link(st, i);
    link->next = 0;
    link->kind = kind;

    return i;
}


void
ngx_http_ai_cache_add(ngx_http_ai_cache_store_t *st, uint32_t *i, u_char *data,
    size_t size)
{
    u_char                     *p;
    size_t                      n, left;
    uint32_t                    piece;
    ngx_http_ai_cache_entry_t  *e;

    if (*i == 0) {
        *i = ngx_http_ai_cache_alloc(st, NGX_HTTP_AI_CACHE_HEAD);

        e = ngx_http_ai_cache_entry(st, *i);
        ngx_memzero(e, sizeof(ngx_http_ai_cache_entry_t));
        e->last = *i;
        e->npieces = 1;
    }

    e = ngx_http_ai_cache_entry(st, *i);

    while (size > 0) {
        left = NGX_HTTP_AI_CACHE_INLINE
               + (size_t) (e->npieces - 1) * NGX_HTTP_AI_CACHE_PIECE
               - e->size;

        if (left == 0) {
            piece = ngx_http_ai_cache_alloc(st, NGX_HTTP_AI_CACHE_DATA);

            ngx_http_ai_cache_link(st, e->last)->next = piece;
            e->last = piece;
            e->npieces++;

            left = NGX_HTTP_AI_CACHE_PIECE;
        }

        p = ngx_http_ai_cache_piece(st, e->last) + NGX_HTTP_AI_CACHE_PIECE
            - left;
        n = ngx_min(left, size);

        ngx_memcpy(p, data, n);

        data += n;
        size -= n;
        e->size += n;
    }
}


void
ngx_http_ai_cache_list(ngx_http_ai_cache_store_t *st, uint32_t i)
{
    uint32_t                   *chain;
    ngx_http_ai_cache_link_t   *link;
    ngx_http_ai_cache_entry_t  *e;

    e = ngx_http_ai_cache_entry(st, i);
    link = ngx_http_ai_cache_link(st, i);
    chain = ngx_http_ai_cache_chain(st, e->meta.id);

    link->chain = *chain;
    link->print = ngx_http_ai_cache_print(e->meta.id);
    e->listed = 1;
    *chain = i;

    ngx_http_ai_cache_use(st, i);

    st->figures.entries++;
    st->figures.bytes += e->size;
    st->figures.stored++;
}


void
ngx_http_ai_cache_unlist(ngx_http_ai_cache_store_t *st, uint32_t i)
{
    uint32_t                   *p;
    ngx_http_ai_cache_entry_t  *e;

    e = ngx_http_ai_cache_entry(st, i);

    p = ngx_http_ai_cache_chain(st, e->meta.id);

    while (*p != i) {
        p = &ngx_http_ai_cache_link(st, *p)->chain;
    }

    *p = ngx_http_ai_cache_link(st, i)->chain;
    e->listed = 0;

    ngx_http_ai_cache_unuse(st, i);

    st->figures.entries--;
    st->figures.bytes -= e->size;

    ngx_http_ai_cache_free(st, i);
}


void
ngx_http_ai_cache_free(ngx_http_ai_cache_store_t *st, uint32_t i)
{
    uint32_t                    piece;
    ngx_http_ai_cache_link_t   *link;
    ngx_http_ai_cache_entry_t  *e;

    e = ngx_http_ai_cache_entry(st, i);

    if (e->listed || e->flight) {
        return;
    }

    st->nfree += e->npieces;

    for (piece = i; /* void */; piece = link->next) {
        link = ngx_http_ai_cache_link(st, piece);
        link->kind = NGX_HTTP_AI_CACHE_FREE;

        if (link->next == 0) {
            break;
        }
    }

    link->next = st->free;
    st->free = i;
}


static void
ngx_http_ai_cache_use(ngx_http_ai_cache_store_t *st, uint32_t i)
{
    ngx_http_ai_cache_entry_t  *e;

    e = ngx_http_ai_cache_entry(st, i);

    e->newer = 0;
    e->older = st->newest;

    if (st->newest) {
        ngx_http_ai_cache_entry(st, st->newest)->newer = i;

    } else {
        st->oldest = i;
    }

    st->newest = i;
}


static void
ngx_http_ai_cache_unuse(ngx_http_ai_cache_store_t *st, uint32_t i)
{
    ngx_http_ai_cache_entry_t  *e;

    e = ngx_http_ai_cache_entry(st, i);

    if (e->newer) {
        ngx_http_ai_cache_entry(st, e->newer)->older = e->older;

    } else {
        st->newest = e->older;
    }

    if (e->older) {
        ngx_http_ai_cache_entry(st, e->older)->newer = e->newer;

    } else {
        st->oldest = e->newer;
    }
}


void
ngx_http_ai_cache_sweep(ngx_http_ai_cache_store_t *st, int64_t now)
{
    ngx_uint_t                  n;
    ngx_http_ai_cache_entry_t  *e;

    for (n = 0; n < NGX_HTTP_AI_CACHE_SWEEP && n < st->top; n++) {

        if (++st->swept > st->top) {
            st->swept = 1;
        }

        if (ngx_http_ai_cache_link(st, st->swept)->kind
            != NGX_HTTP_AI_CACHE_HEAD)
        {
            continue;
        }

        e = ngx_http_ai_cache_entry(st, st->swept);

        if (!e->listed) {
            continue;
        }

        if (e->meta.stale <= now) {
            st->figures.expired++;
            ngx_http_ai_cache_unlist(st, st->swept);

        } else if (ngx_http_ai_cache_purged(st, &e->meta)) {
            st->figures.purged++;
            ngx_http_ai_cache_unlist(st, st->swept);
        }
    }
}
