
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * A zone's memory: answers, answers that are being made ("flights"), and what
 * has been purged.  Plain C on one block of memory.  All calls but count()
 * are made under the zone's lock: enter() behind the locking, leave() before
 * the unlocking.  While links are changed a mark is set; who enters and finds
 * it set, because a process has died there, empties the zone: what it holds
 * may be lost, never wrong.  Purges are kept even then.
 *
 * Times are milliseconds of the wall clock.
 */


#ifndef _NGX_HTTP_AI_CACHE_STORE_H_INCLUDED_
#define _NGX_HTTP_AI_CACHE_STORE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_pivot.h"


#define NGX_HTTP_AI_CACHE_ID       32

/* processes that have flights in a zone at the same time */
#define NGX_HTTP_AI_CACHE_WORKERS  256

/* ms that the bytes of a flight that has ended are kept for followers */
#define NGX_HTTP_AI_CACHE_LINGER   15000

#define NGX_HTTP_AI_CACHE_RULES    256


typedef struct ngx_http_ai_cache_store_s  ngx_http_ai_cache_store_t;


/* written to disk and to Redis as it is: no padding */

typedef struct {
    u_char                     id[NGX_HTTP_AI_CACHE_ID];
    uint64_t                   scope;         /* ngx_http_ai_cache_hash() */
    uint64_t                   model;
    uint64_t                   tag;           /* 0: none */
    int64_t                    created;       /* when it was asked for */
    int64_t                    fresh;         /* until */
    int64_t                    stale;         /* until, and gone then; not
                                                 before "fresh" */
    int64_t                    usage[8];      /* in ngx_http_ai_usage_t's
                                                 order, see below */
    uint64_t                   sum;           /* of the bytes; set here */
    uint32_t                   size;          /* the same */
    uint8_t                    dialect;       /* ngx_http_ai_dialects[] */
    uint8_t                    op;
    uint8_t                    finish;
    uint8_t                    stream;        /* bytes are SSE */
    uint8_t                    exact;         /* same dialect and mode only */
    uint8_t                    include_usage; /* the client had asked for it */
    uint8_t                    usage_state;
    uint8_t                    reserved[5];
} ngx_http_ai_cache_meta_t;


typedef enum {
    NGX_HTTP_AI_CACHE_RULE_ALL = 0,
    NGX_HTTP_AI_CACHE_RULE_SCOPE,
    NGX_HTTP_AI_CACHE_RULE_MODEL,
    NGX_HTTP_AI_CACHE_RULE_TAG,
    NGX_HTTP_AI_CACHE_RULE_ID,
    NGX_HTTP_AI_CACHE_RULE_MAX
} ngx_http_ai_cache_rule_e;


/* what was created until then is gone */

typedef struct {
    uint64_t                   kind;
    uint64_t                   hash;          /* of the id: first 8 bytes */
    int64_t                    time;
} ngx_http_ai_cache_rule_t;


typedef enum {
    NGX_HTTP_AI_CACHE_FLIGHT_GONE = 0,        /* not known any more */
    NGX_HTTP_AI_CACHE_FLIGHT_RUNNING,
    NGX_HTTP_AI_CACHE_FLIGHT_WHOLE,
    NGX_HTTP_AI_CACHE_FLIGHT_FAILED
} ngx_http_ai_cache_flight_e;


/* where a follower is; zeroed and "flight" set by begin() */

typedef struct {
    uint64_t                   flight;        /* never 0 */
    ngx_http_ai_cache_flight_e state;
    ngx_uint_t                 round;         /* grows with each takeover; the
                                                 bytes are others then */
    size_t                     size;          /* bytes so far */
    size_t                     offset;        /* bytes read in this round; set
                                                 to 0 with a new one */
    ngx_uint_t                 error;         /* of fail(); 0 */
    ngx_http_ai_cache_meta_t   meta;          /* valid when "open"; whole when
                                                 WHOLE */
    uint32_t                   piece;
    unsigned                   open:1;        /* dialect, op, stream, exact and
                                                 include_usage are known */
} ngx_http_ai_cache_reader_t;


typedef struct {
    uint64_t                   entries;
    uint64_t                   bytes;         /* of answers */
    uint64_t                   used;          /* of memory, flights too */
    uint64_t                   size;          /* of memory */
    uint64_t                   hits;          /* of get() */
    uint64_t                   misses;
    uint64_t                   stored;
    uint64_t                   evicted;       /* for others, not yet stale */
    uint64_t                   rejected;      /* asked for too seldom */
    uint64_t                   expired;
    uint64_t                   purged;
    uint64_t                   corrupt;
    uint64_t                   resets;        /* a process died inside */
    uint64_t                   flights;       /* running */
    uint64_t                   followers;
} ngx_http_ai_cache_figures_t;


/* the block must be zeroed, unless NGX_DEBUG_MALLOC; NULL: it is too small */
ngx_http_ai_cache_store_t *ngx_http_ai_cache_store_init(void *block,
    size_t size);

/* 1: a process has died in it, the zone is empty now */
ngx_uint_t ngx_http_ai_cache_enter(ngx_http_ai_cache_store_t *st);
void ngx_http_ai_cache_leave(ngx_http_ai_cache_store_t *st);


/* of scopes, models and tags; never 0, the same on every node */
uint64_t ngx_http_ai_cache_hash(u_char *data, size_t len);

void ngx_http_ai_cache_set_usage(ngx_http_ai_cache_meta_t *meta,
    ngx_http_ai_usage_t *u);
void ngx_http_ai_cache_get_usage(ngx_http_ai_cache_meta_t *meta,
    ngx_http_ai_usage_t *u);


/*
 * get() looks for an entry that is not gone, and counts that it was asked for.
 * copy() then gives its meta->size bytes; the lock may be left between the
 * two.  NGX_OK or NGX_DECLINED.
 */
ngx_int_t ngx_http_ai_cache_get(ngx_http_ai_cache_store_t *st, u_char *id,
    int64_t now, ngx_http_ai_cache_meta_t *meta);
ngx_int_t ngx_http_ai_cache_copy(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_meta_t *meta, u_char *buf);

/* 1: get() would find one that was asked for after "created"; not counted */
ngx_uint_t ngx_http_ai_cache_younger(ngx_http_ai_cache_store_t *st,
    u_char *id, int64_t created, int64_t now);

/*
 * Replaces what is there.  meta->size and meta->sum are set.  NGX_OK;
 * NGX_DECLINED: too large, purged, gone already, or the zone is full and what
 * is in it was asked for more often.
 */
ngx_int_t ngx_http_ai_cache_put(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_meta_t *meta, u_char *data, size_t size, int64_t now);

void ngx_http_ai_cache_remove(ngx_http_ai_cache_store_t *st, u_char *id);


/* a place for a process that has flights; NGX_ERROR: there is none left */
ngx_int_t ngx_http_ai_cache_enroll(ngx_http_ai_cache_store_t *st,
    ngx_pid_t pid, int64_t now);
void ngx_http_ai_cache_dismiss(ngx_http_ai_cache_store_t *st,
    ngx_int_t worker, int64_t now);

/*
 * A worker gives a sign of life; flights of dead ones fail, what has ended is
 * forgotten, what is stale or purged is removed.  Each of them does it a few
 * times a second, what is common to all is done by the first of them.
 * Returns its place, which is another one when it was thought to be dead.
 */
ngx_int_t ngx_http_ai_cache_tick(ngx_http_ai_cache_store_t *st,
    ngx_int_t worker, ngx_pid_t pid, int64_t now);


/*
 * worker: of enroll(), NGX_ERROR as well; of meta: id, scope, model and tag.
 * NGX_OK: the caller leads, and must call end() or fail(); NGX_AGAIN: it
 * follows and must call depart(); NGX_DECLINED: there is no room, it goes
 * alone.  A flight that has failed is led on by the next who asks.
 */
ngx_int_t ngx_http_ai_cache_begin(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_meta_t *meta, ngx_int_t worker, int64_t now,
    uint64_t *flight);

/*
 * The leader: open() says dialect, op, stream, exact and include_usage of what
 * append() then brings.  NGX_DECLINED: the flight is gone or has another
 * leader, it is too large, or there is no memory: the leader calls fail() and
 * goes on without it.
 */
ngx_int_t ngx_http_ai_cache_open(ngx_http_ai_cache_store_t *st,
    uint64_t flight, ngx_int_t worker, ngx_http_ai_cache_meta_t *meta);
ngx_int_t ngx_http_ai_cache_append(ngx_http_ai_cache_store_t *st,
    uint64_t flight, ngx_int_t worker, u_char *data, size_t size,
    int64_t now);

/*
 * The answer is whole.  Of meta are set: id, scope, model, tag, created, size
 * and sum.  It becomes an entry, NGX_OK, unless meta->stale is over (0: not to
 * be stored), or for the reasons of put(): NGX_DECLINED, followers get it all
 * the same.
 */
ngx_int_t ngx_http_ai_cache_end(ngx_http_ai_cache_store_t *st,
    uint64_t flight, ngx_int_t worker, ngx_http_ai_cache_meta_t *meta,
    int64_t now);

/* the leader has failed; error, not 0, is what followers are told; final:
 * nobody shall take over */
void ngx_http_ai_cache_fail(ngx_http_ai_cache_store_t *st, uint64_t flight,
    ngx_int_t worker, ngx_uint_t error, ngx_uint_t final, int64_t now);

/* others that wait for the flight, of living workers */
ngx_uint_t ngx_http_ai_cache_followers(ngx_http_ai_cache_store_t *st,
    uint64_t flight);

/*
 * A follower: bytes from rd->offset, which grows by what is returned.  Fills
 * the rest of rd in; a state that is not RUNNING holds once all of rd->size
 * has been read.  buf may be NULL: to look only.
 */
size_t ngx_http_ai_cache_read(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_reader_t *rd, u_char *buf, size_t size);

/* NGX_OK: it leads now and follows no more; NGX_DECLINED: another one does,
 * or the failure was final, or it is gone */
ngx_int_t ngx_http_ai_cache_takeover(ngx_http_ai_cache_store_t *st,
    uint64_t flight, ngx_int_t worker, int64_t now);

/* the follower waits no longer */
void ngx_http_ai_cache_depart(ngx_http_ai_cache_store_t *st, uint64_t flight,
    ngx_int_t worker);


/* NGX_OK: something changed; NGX_DECLINED: it was in force already */
ngx_int_t ngx_http_ai_cache_purge_add(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_rule_t *rule);
/* room for NGX_HTTP_AI_CACHE_RULES + 1; returns how many there are */
ngx_uint_t ngx_http_ai_cache_purge_list(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_rule_t *rules);

/* changes with each change of the rules */
uint64_t ngx_http_ai_cache_purge_version(ngx_http_ai_cache_store_t *st);

/* 1: gone */
ngx_uint_t ngx_http_ai_cache_purged(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_meta_t *meta);


void ngx_http_ai_cache_figures(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_figures_t *figures);

/* for tests: NULL, or what is wrong */
const char *ngx_http_ai_cache_store_check(ngx_http_ai_cache_store_t *st);


#endif /* _NGX_HTTP_AI_CACHE_STORE_H_INCLUDED_ */
