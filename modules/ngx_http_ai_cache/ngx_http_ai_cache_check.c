
/*
 * Copyright (C) nginx AI gateway authors
 */


/* is a store consistent?  For tests, after everything that may go wrong */


#include "ngx_http_ai_cache_block.h"


static const char *ngx_http_ai_cache_check_pieces(
    ngx_http_ai_cache_store_t *st, uint32_t *listed, uint32_t *flown);
static const char *ngx_http_ai_cache_check_list(ngx_http_ai_cache_store_t *st,
    uint32_t listed);
static const char *ngx_http_ai_cache_check_flights(
    ngx_http_ai_cache_store_t *st, uint32_t flown);


const char *
ngx_http_ai_cache_store_check(ngx_http_ai_cache_store_t *st)
{
    uint32_t     listed, flown;
    const char  *error;

    if (st->dirty) {
        return "the mark is set";
    }

    error = ngx_http_ai_cache_check_pieces(st, &listed, &flown);
    if (error) {
        return error;
    }

    error = ngx_http_ai_cache_check_list(st, listed);
    if (error) {
        return error;
    }

    return ngx_http_ai_cache_check_flights(st, flown);
}


static const char *
ngx_http_ai_cache_check_pieces(ngx_http_ai_cache_store_t *st, uint32_t *listed,
    uint32_t *flown)
{
    uint32_t                     i, k, n, sum;
    uint64_t                     bytes;
    ngx_http_ai_cache_link_t    *link;
    ngx_http_ai_cache_entry_t   *e;
    ngx_http_ai_cache_flight_t  *f;

    if (st->top > st->npieces) {
        return "more pieces than there are";
    }

    n = 0;

    for (i = st->free; i; i = link->next) {
        link = ngx_http_ai_cache_link(st, i);

        if (link->kind != NGX_HTTP_AI_CACHE_FREE || i > st->top) {
            return "a piece is free and in use";
        }

        if (++n > st->top) {
            return "the free list has a loop";
        }
    }

    if (n != st->nfree) {
        return "another number of free pieces";
    }

    sum = n;
    bytes = 0;
    *listed = 0;
    *flown = 0;

    for (i = 1; i <= st->top; i++) {

        if (ngx_http_ai_cache_link(st, i)->kind != NGX_HTTP_AI_CACHE_HEAD) {
            continue;
        }

        e = ngx_http_ai_cache_entry(st, i);

        n = 1;
        k = i;

        for ( ;; ) {
            link = ngx_http_ai_cache_link(st, k);

            if (link->next == 0) {
                break;
            }

            k = link->next;

            if (k > st->top || ngx_http_ai_cache_link(st, k)->kind
                               != NGX_HTTP_AI_CACHE_DATA)
            {
                return "a piece of an entry is none";
            }

            if (++n > st->top) {
                return "an entry has a loop";
            }
        }

        if (n != e->npieces || k != e->last) {
            return "an entry has another number of pieces";
        }

        if (n != ngx_http_ai_cache_need(st, 0, e->size)) {
            return "an entry has another size";
        }

        if (!e->listed && !e->flight) {
            return "an entry is nobody's";
        }

        if (e->listed) {
            (*listed)++;
            bytes += e->size;

            if (ngx_http_ai_cache_find(st, e->meta.id) != i) {
                return "an entry is not found";
            }

            if (e->meta.size != e->size) {
                return "an entry's bytes are not all there";
            }
        }

        if (e->flight) {
            (*flown)++;
            f = ngx_http_ai_cache_flight(st, e->flight);

            if (e->flight > st->ftop || f->entry != i || f->number == 0) {
                return "an entry's flight is another one's";
            }
        }

        sum += n;
    }

    if (sum != st->top) {
        return "pieces are lost";
    }

    if (*listed != st->figures.entries || bytes != st->figures.bytes) {
        return "the figures are wrong";
    }

    return NULL;
}


static const char *
ngx_http_ai_cache_check_list(ngx_http_ai_cache_store_t *st, uint32_t listed)
{
    uint32_t                    i, n, older, *chain;
    ngx_uint_t                  k;
    ngx_http_ai_cache_entry_t  *e;

    n = 0;
    older = 0;

    for (i = st->oldest; i; i = e->newer) {
        e = ngx_http_ai_cache_entry(st, i);

        if (e->older != older || !e->listed) {
            return "the order of use is broken";
        }

        older = i;

        if (++n > listed) {
            return "the order of use has a loop";
        }
    }

    if (n != listed || st->newest != older) {
        return "the order of use lacks entries";
    }

    n = 0;
    chain = (uint32_t *) ((u_char *) st + st->chains);

    for (k = 0; k <= st->mask; k++) {
        for (i = chain[k]; i; i = ngx_http_ai_cache_link(st, i)->chain) {
            if (++n > listed) {
                return "a chain has a loop";
            }
        }
    }

    return (n == listed) ? NULL : "chains lack entries";
}


static const char *
ngx_http_ai_cache_check_flights(ngx_http_ai_cache_store_t *st, uint32_t flown)
{
    uint32_t                     i, n, k, prev, linked, joins, *chain;
    ngx_http_ai_cache_flight_t  *f;

    n = 0;
    prev = 0;
    linked = 0;

    for (i = st->fused; i; i = f->next_used) {
        f = ngx_http_ai_cache_flight(st, i);

        if (f->prev_used != prev
            || (f->number & NGX_HTTP_AI_CACHE_FLIGHTS) != i)
        {
            return "the list of flights is broken";
        }

        prev = i;

        if (++n > st->ftop) {
            return "the list of flights has a loop";
        }

        joins = 0;

        for (k = 0; k < NGX_HTTP_AI_CACHE_WORKERS; k++) {
            joins += f->joins[k];
        }

        if (joins != f->njoins) {
            return "a flight has another number of followers";
        }

        if (f->entry) {
            flown--;

            if (ngx_http_ai_cache_entry(st, f->entry)->flight != i) {
                return "a flight's bytes are another one's";
            }

            if (ngx_http_ai_cache_entry(st, f->entry)->size != f->sum.size) {
                return "a flight's bytes are not all there";
            }
        }

        linked += f->linked;
    }

    if (flown != 0) {
        return "bytes of a flight that is none";
    }

    for (i = st->ffree; i; i = ngx_http_ai_cache_flight(st, i)->next) {
        if (++n > st->ftop) {
            return "the list of free flights has a loop";
        }
    }

    if (n != st->ftop) {
        return "flights are lost";
    }

    chain = (uint32_t *) ((u_char *) st + st->fchains);

    for (k = 0; k <= st->fmask; k++) {
        for (i = chain[k]; i; i = ngx_http_ai_cache_flight(st, i)->next) {
            if (!ngx_http_ai_cache_flight(st, i)->linked || linked-- == 0) {
                return "a chain of flights is broken";
            }
        }
    }

    return linked ? "chains lack flights" : NULL;
}
