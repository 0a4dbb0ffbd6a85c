
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * What is in the block of a store:
 *
 *     head | chains of entries | sketch | chains of flights | flights |
 *     links | pieces
 *
 * An answer is a chain of pieces, of which the first begins with its entry.
 * Whether a piece is one of those is told by its link, outside of the pieces,
 * so that no bytes of an answer can look like an entry.  The chains in which
 * entries are found are there as well: entries are far from each other, and
 * most of those that are passed are not looked at.  Numbers of pieces and
 * flights count from 1; 0 is none.  Pieces above "top" were never used, so
 * that memory is touched as needed.
 */


#ifndef _NGX_HTTP_AI_CACHE_BLOCK_H_INCLUDED_
#define _NGX_HTTP_AI_CACHE_BLOCK_H_INCLUDED_


#include "ngx_http_ai_cache_store.h"
#include "ngx_http_ai_cache_record.h"


#define NGX_HTTP_AI_CACHE_PIECE     1024
#define NGX_HTTP_AI_CACHE_MIN       16        /* pieces */
#define NGX_HTTP_AI_CACHE_FLIGHTS   4095      /* fits into the low bits of */
#define NGX_HTTP_AI_CACHE_SLOT      12        /* ... a flight's number */

/* entries that may make room for one */
#define NGX_HTTP_AI_CACHE_VICTIMS   1024

/* pieces that are looked at in one tick */
#define NGX_HTTP_AI_CACHE_SWEEP     512

#define NGX_HTTP_AI_CACHE_ALWAYS    16        /* above what a sketch counts */

#if defined __GNUC__ || defined __clang__
#define ngx_http_ai_cache_barrier()  __asm__ volatile ("" ::: "memory")
#else
#define ngx_http_ai_cache_barrier()  ngx_memory_barrier()
#endif


enum {
    NGX_HTTP_AI_CACHE_FREE = 0,
    NGX_HTTP_AI_CACHE_DATA,
    NGX_HTTP_AI_CACHE_HEAD
};


typedef struct {
    uint32_t                   next;
    uint32_t                   kind;
    uint32_t                   chain;         /* the next entry in its chain */
    uint32_t                   print;         /* some bits of its id */
} ngx_http_ai_cache_link_t;


typedef struct {
    ngx_http_ai_cache_meta_t   meta;
    uint32_t                   newer;
    uint32_t                   older;
    uint32_t                   last;          /* piece */
    uint32_t                   npieces;
    uint32_t                   size;          /* bytes in them */
    uint32_t                   flight;        /* whose it is as well */
    uint32_t                   listed;        /* can be found */
    uint32_t                   reserved;
    u_char                     data[];
} ngx_http_ai_cache_entry_t;


#define NGX_HTTP_AI_CACHE_INLINE                                              \
    (NGX_HTTP_AI_CACHE_PIECE - sizeof(ngx_http_ai_cache_entry_t))


typedef struct {
    uint64_t                   number;        /* 0: not in use */
    uint32_t                   next;          /* in its chain; free ones */
    uint32_t                   prev_used;
    uint32_t                   next_used;
    uint32_t                   entry;
    uint32_t                   round;
    uint32_t                   njoins;
    uint32_t                   error;
    uint16_t                   leader;
    uint8_t                    state;
    uint8_t                    linked;        /* can be joined */
    uint8_t                    final;
    uint8_t                    open;
    uint8_t                    reserved[6];
    int64_t                    touched;
    int64_t                    ended;
    ngx_http_ai_cache_sum_t    sum;
    ngx_http_ai_cache_meta_t   meta;
    uint16_t                   joins[NGX_HTTP_AI_CACHE_WORKERS];
} ngx_http_ai_cache_flight_t;


typedef struct {
    ngx_pid_t                  pid;           /* 0: free */
    int64_t                    beat;
} ngx_http_ai_cache_worker_t;


struct ngx_http_ai_cache_store_s {
    uint64_t                     dirty;
    uint64_t                     size;
    uint32_t                     npieces;
    uint32_t                     nflights;
    uint32_t                     mask;        /* of chains */
    uint32_t                     smask;       /* of the sketch */
    uint32_t                     fmask;
    uint32_t                     top;
    uint32_t                     free;
    uint32_t                     nfree;
    uint32_t                     newest;
    uint32_t                     oldest;
    uint32_t                     ftop;
    uint32_t                     ffree;
    uint32_t                     fused;
    uint32_t                     swept;
    uint64_t                     chains;      /* offsets */
    uint64_t                     sketch;
    uint64_t                     fchains;
    uint64_t                     flights;
    uint64_t                     links;
    uint64_t                     pieces;

    uint64_t                     asked;       /* drives the sketch's aging */
    uint64_t                     serial;
    int64_t                      ticked;

    ngx_http_ai_cache_figures_t  figures;

    uint64_t                     version;     /* of the rules */
    int64_t                      all;         /* time of that rule */
    uint64_t                     nrules;
    ngx_http_ai_cache_rule_t     rules[NGX_HTTP_AI_CACHE_RULES];

    ngx_http_ai_cache_worker_t   workers[NGX_HTTP_AI_CACHE_WORKERS];
};


static ngx_inline uint64_t
ngx_http_ai_cache_word(u_char *id, ngx_uint_t n)
{
    uint64_t  word;

    ngx_memcpy(&word, id + n * sizeof(uint64_t), sizeof(uint64_t));

    return word;
}


static ngx_inline uint32_t *
ngx_http_ai_cache_chain(ngx_http_ai_cache_store_t *st, u_char *id)
{
    return (uint32_t *) ((u_char *) st + st->chains)
           + (ngx_http_ai_cache_word(id, 0) & st->mask);
}


/* other bits than those of the chain */

static ngx_inline uint32_t
ngx_http_ai_cache_print(u_char *id)
{
    return (uint32_t) ngx_http_ai_cache_word(id, 1);
}


static ngx_inline uint32_t *
ngx_http_ai_cache_fchain(ngx_http_ai_cache_store_t *st, u_char *id)
{
    return (uint32_t *) ((u_char *) st + st->fchains)
           + (ngx_http_ai_cache_word(id, 0) & st->fmask);
}


static ngx_inline ngx_http_ai_cache_link_t *
ngx_http_ai_cache_link(ngx_http_ai_cache_store_t *st, uint32_t i)
{
    return (ngx_http_ai_cache_link_t *) ((u_char *) st + st->links) + i;
}


static ngx_inline u_char *
ngx_http_ai_cache_piece(ngx_http_ai_cache_store_t *st, uint32_t i)
{
    return (u_char *) st + st->pieces
           + (size_t) (i - 1) * NGX_HTTP_AI_CACHE_PIECE;
}


static ngx_inline ngx_http_ai_cache_entry_t *
ngx_http_ai_cache_entry(ngx_http_ai_cache_store_t *st, uint32_t i)
{
    return (ngx_http_ai_cache_entry_t *) ngx_http_ai_cache_piece(st, i);
}


static ngx_inline ngx_http_ai_cache_flight_t *
ngx_http_ai_cache_flight(ngx_http_ai_cache_store_t *st, uint32_t i)
{
    return (ngx_http_ai_cache_flight_t *) ((u_char *) st + st->flights)
           + (i - 1);
}


static ngx_inline uint32_t
ngx_http_ai_cache_spare(ngx_http_ai_cache_store_t *st)
{
    return st->nfree + st->npieces - st->top;
}


/* links are changed between the two */

static ngx_inline void
ngx_http_ai_cache_mark(ngx_http_ai_cache_store_t *st)
{
    st->dirty = 1;
    ngx_http_ai_cache_barrier();
}


static ngx_inline void
ngx_http_ai_cache_unmark(ngx_http_ai_cache_store_t *st)
{
    ngx_http_ai_cache_barrier();
    st->dirty = 0;
}


/* for those who have set the mark */

/* makes room for so many pieces at the cost of what was asked for less often
 * than "often" says; NGX_OK or NGX_DECLINED, and then nothing was removed */
ngx_int_t ngx_http_ai_cache_room(ngx_http_ai_cache_store_t *st,
    uint32_t npieces, ngx_uint_t often, int64_t now);

/* adds bytes to the entry *i, a new one if it is 0; there must be room */
void ngx_http_ai_cache_add(ngx_http_ai_cache_store_t *st, uint32_t *i,
    u_char *data, size_t size);

/* pieces that this will take */
uint32_t ngx_http_ai_cache_need(ngx_http_ai_cache_store_t *st, uint32_t i,
    size_t size);

uint32_t ngx_http_ai_cache_find(ngx_http_ai_cache_store_t *st, u_char *id);
void ngx_http_ai_cache_list(ngx_http_ai_cache_store_t *st, uint32_t i);
void ngx_http_ai_cache_unlist(ngx_http_ai_cache_store_t *st, uint32_t i);

/* its pieces, when nobody has the entry any more */
void ngx_http_ai_cache_free(ngx_http_ai_cache_store_t *st, uint32_t i);

ngx_uint_t ngx_http_ai_cache_often(ngx_http_ai_cache_store_t *st, u_char *id);

/* removes what is stale or purged, some pieces further each time */
void ngx_http_ai_cache_sweep(ngx_http_ai_cache_store_t *st, int64_t now);

/* forgets all flights */
void ngx_http_ai_cache_flights_reset(ngx_http_ai_cache_store_t *st);


#endif /* _NGX_HTTP_AI_CACHE_BLOCK_H_INCLUDED_ */
