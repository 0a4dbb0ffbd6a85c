
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Counters by series, in a block of memory that processes share.  Plain C: no
 * request, no allocator, no clock.
 *
 * A series is made once, under the caller's lock, and stays; its counters are
 * in as many copies ("shards") as there are groups of workers, each on cache
 * lines of its own, are added to by atomic operations without the lock, and
 * are summed by those who read.  A process that dies leaves nothing half done:
 * a series becomes visible by the store of one pointer.
 *
 * Series of callers (tenants, keys) are the exception: their names come from
 * outside, so that there is a cap, and the one not used for longest gives its
 * place away; what it has counted goes to the series "other".  All use of
 * them is under the lock.
 */


#ifndef _NGX_HTTP_AI_METRICS_STORE_H_INCLUDED_
#define _NGX_HTTP_AI_METRICS_STORE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_pivot.h"


#define NGX_HTTP_AI_METRICS_NAMES    3        /* of a series */
#define NGX_HTTP_AI_METRICS_NAME     520      /* bytes of each */
#define NGX_HTTP_AI_METRICS_CALLER   128      /* ... of a tenant or a key */
#define NGX_HTTP_AI_METRICS_CALLERS  1000     /* the highest cap */
#define NGX_HTTP_AI_METRICS_HINTS    256
#define NGX_HTTP_AI_METRICS_SHARDS   9
#define NGX_HTTP_AI_METRICS_MODELS   256      /* whose running requests are
                                                 counted apart */


/* kinds of series, and their names */

typedef enum {
    NGX_HTTP_AI_METRICS_REQUEST = 0,  /* model, provider, operation */
    NGX_HTTP_AI_METRICS_ATTEMPT,      /* model, provider, target */
    NGX_HTTP_AI_METRICS_SIZE,         /* as REQUEST; sizes in tokens */
    NGX_HTTP_AI_METRICS_MODEL,        /* model; what runs */
    NGX_HTTP_AI_METRICS_TENANT,       /* tenant */
    NGX_HTTP_AI_METRICS_KEY,          /* key */
    NGX_HTTP_AI_METRICS_KINDS
} ngx_http_ai_metrics_kind_e;


/* how a request has ended */

typedef enum {
    NGX_HTTP_AI_OUTCOME_SUCCESS = 0,
    NGX_HTTP_AI_OUTCOME_ERROR,        /* the provider's or the gateway's */
    NGX_HTTP_AI_OUTCOME_INVALID,      /* the client's */
    NGX_HTTP_AI_OUTCOME_DENIED,       /* no credential, or no permission */
    NGX_HTTP_AI_OUTCOME_LIMITED,      /* by a limit of the gateway */
    NGX_HTTP_AI_OUTCOME_CANCELED,     /* the client has left */
    NGX_HTTP_AI_OUTCOME_MAX
} ngx_http_ai_outcome_e;


typedef enum {
    NGX_HTTP_AI_TOKEN_INPUT = 0,      /* all input */
    NGX_HTTP_AI_TOKEN_OUTPUT,         /* all output */
    NGX_HTTP_AI_TOKEN_CACHE_READ,     /* part of the input */
    NGX_HTTP_AI_TOKEN_CACHE_WRITE,
    NGX_HTTP_AI_TOKEN_REASONING,      /* part of the output */
    NGX_HTTP_AI_TOKEN_MAX
} ngx_http_ai_token_e;


/*
 * A histogram is an array of n counters for values up to each of n boundaries
 * and above the one before, one for values above all, and the sum of values.
 * Times are in microseconds.
 */

typedef struct {
    ngx_uint_t                 n;
    const uint64_t            *bounds;
} ngx_http_ai_bounds_t;

#define NGX_HTTP_AI_BOUNDS_DURATION  14
#define NGX_HTTP_AI_BOUNDS_FIRST     16
#define NGX_HTTP_AI_BOUNDS_TOKEN     13
#define NGX_HTTP_AI_BOUNDS_OVERHEAD  11
#define NGX_HTTP_AI_BOUNDS_SIZE      14

extern const ngx_http_ai_bounds_t  ngx_http_ai_bounds_duration;
extern const ngx_http_ai_bounds_t  ngx_http_ai_bounds_first;
extern const ngx_http_ai_bounds_t  ngx_http_ai_bounds_token;
extern const ngx_http_ai_bounds_t  ngx_http_ai_bounds_overhead;
extern const ngx_http_ai_bounds_t  ngx_http_ai_bounds_size;

#define ngx_http_ai_histogram(name, KIND)                                     \
    uint64_t  name[NGX_HTTP_AI_BOUNDS_##KIND + 2]


typedef struct {
    uint64_t  outcomes[NGX_HTTP_AI_OUTCOME_MAX];
    uint64_t  tokens[NGX_HTTP_AI_TOKEN_MAX];
    uint64_t  cost;                           /* nano-dollars */
    uint64_t  usage[4];                       /* ngx_http_ai_usage_state_e */
    uint64_t  finishes[NGX_HTTP_AI_FINISH_UNKNOWN + 1];

    /* of requests that a provider was asked for */
    ngx_http_ai_histogram(overhead, OVERHEAD);
    ngx_http_ai_histogram(duration, DURATION);

    /* a plain request adds to what is above, in as few lines of memory */

    uint64_t  unpriced;                       /* answers without a price */
    uint64_t  fallbacks;
    uint64_t  recovered;
    uint64_t  streams;
    uint64_t  cached[7];                      /* ngx_http_ai_cache_e */
    uint64_t  errors[NGX_HTTP_AI_ERR_MAX];

    /* of whole streams */
    ngx_http_ai_histogram(first, FIRST);      /* to the first token */
    ngx_http_ai_histogram(per_token, TOKEN);
} ngx_http_ai_request_cells_t;


#define NGX_HTTP_AI_ATTEMPT_CANCELED  NGX_HTTP_AI_ERR_MAX

typedef struct {
    /* by ngx_http_ai_err_e; none is success; and one more, canceled */
    uint64_t  results[NGX_HTTP_AI_ERR_MAX + 1];
    ngx_http_ai_histogram(duration, DURATION);
    ngx_http_ai_histogram(first, FIRST);      /* to the first event */
} ngx_http_ai_attempt_cells_t;


typedef struct {
    ngx_http_ai_histogram(input, SIZE);
    ngx_http_ai_histogram(output, SIZE);
} ngx_http_ai_size_cells_t;


/* summed over processes, see ngx_http_ai_metrics_process_t */

typedef struct {
    uint64_t  running;
    uint64_t  streams;
} ngx_http_ai_model_cells_t;


typedef struct {
    uint64_t  outcomes[NGX_HTTP_AI_OUTCOME_MAX];
    uint64_t  tokens[NGX_HTTP_AI_TOKEN_MAX];
    uint64_t  cost;
} ngx_http_ai_caller_cells_t;


typedef union {
    ngx_http_ai_request_cells_t   request;
    ngx_http_ai_attempt_cells_t   attempt;
    ngx_http_ai_size_cells_t      size;
    ngx_http_ai_model_cells_t     model;
    ngx_http_ai_caller_cells_t    caller;
    uint64_t                      cell[sizeof(ngx_http_ai_request_cells_t)
                                       / sizeof(uint64_t)];
} ngx_http_ai_cells_t;


/* one request that is known by its trace; which it is, "check" tells whole */

typedef struct {
    u_char                         trace_id[32];
    uint64_t                       value;     /* microseconds */
    uint64_t                       time;      /* ms, wall clock */
    uint64_t                       check;
} ngx_http_ai_exemplar_t;

typedef struct {
    ngx_http_ai_exemplar_t   duration[NGX_HTTP_AI_BOUNDS_DURATION + 1];
    ngx_http_ai_exemplar_t   first[NGX_HTTP_AI_BOUNDS_FIRST + 1];
} ngx_http_ai_exemplars_t;


/* where a process has found a tenant or a key */
typedef u_short  ngx_http_ai_metrics_hint_t;


typedef struct ngx_http_ai_series_s         ngx_http_ai_series_t;
typedef struct ngx_http_ai_metrics_store_s  ngx_http_ai_metrics_store_t;

struct ngx_http_ai_series_s {
    ngx_http_ai_series_t          *next;      /* of its kind */
    uint64_t                       hash;
    ngx_http_ai_metrics_kind_e     kind;
    ngx_uint_t                     index;     /* among those of its kind */
    ngx_str_t                      names[NGX_HTTP_AI_METRICS_NAMES];
    ngx_http_ai_exemplars_t       *exemplars; /* NULL: none was kept yet */
    uint64_t                      *cells;     /* of the first shard */
};


/* what a worker runs; written by itself only */

typedef struct ngx_http_ai_metrics_process_s  ngx_http_ai_metrics_process_t;

struct ngx_http_ai_metrics_process_s {
    ngx_http_ai_metrics_process_t *next;
    volatile ngx_pid_t             pid;       /* 0: free */
    volatile ngx_uint_t            generation;    /* of the configuration */
    volatile uint32_t              running[NGX_HTTP_AI_METRICS_MODELS];
    volatile uint32_t              streams[NGX_HTTP_AI_METRICS_MODELS];
};


typedef struct {
    size_t                         size;
    size_t                         used;
    uint64_t                       overflows;     /* found no room */
    uint64_t                       evictions[2];  /* of tenants, keys */
    ngx_uint_t                     series[NGX_HTTP_AI_METRICS_KINDS];
} ngx_http_ai_metrics_stats_t;


/* own: nobody else writes there, which saves a lock of the bus */

static ngx_inline void
ngx_http_ai_cell_add(uint64_t *cell, uint64_t n, ngx_uint_t own)
{
    if (own) {
        n += __atomic_load_n(cell, __ATOMIC_RELAXED);
        __atomic_store_n(cell, n, __ATOMIC_RELAXED);
        return;
    }

    (void) __atomic_fetch_add(cell, n, __ATOMIC_RELAXED);
}


/* lays out a zeroed block; NULL: it is too small.  nshards: one for each
 * worker, and the first one */
ngx_http_ai_metrics_store_t *ngx_http_ai_metrics_store_init(void *block,
    size_t size, ngx_uint_t nshards);

/* how many tenants and keys may have series; 0: none.  NGX_ERROR: no room.
 * Under the lock */
ngx_int_t ngx_http_ai_metrics_store_caps(ngx_http_ai_metrics_store_t *st,
    ngx_uint_t tenants, ngx_uint_t keys);

/*
 * The series of these names, NULL when there is none yet.  Names that cannot
 * be labels (invalid UTF-8, control characters, too long) are "other".
 */
ngx_http_ai_series_t *ngx_http_ai_metrics_find(
    ngx_http_ai_metrics_store_t *st, ngx_http_ai_metrics_kind_e kind,
    ngx_str_t *names);

/* the same, and made when there is none, under the lock.  Without room for it
 * the series whose names are all "other", and *full is 1 */
ngx_http_ai_series_t *ngx_http_ai_metrics_make(
    ngx_http_ai_metrics_store_t *st, ngx_http_ai_metrics_kind_e kind,
    ngx_str_t *names, ngx_uint_t *full);

/* room for its exemplars, under the lock; they stay NULL when there is none */
void ngx_http_ai_metrics_exemplify(ngx_http_ai_metrics_store_t *st,
    ngx_http_ai_series_t *s);

/* the cells of a shard */
ngx_http_ai_cells_t *ngx_http_ai_metrics_cells(
    ngx_http_ai_metrics_store_t *st, ngx_http_ai_series_t *s,
    ngx_uint_t shard);

/* the series of a tenant or a key; under the lock, as the use of its cells.
 * hints: NGX_HTTP_AI_METRICS_HINTS of them, zeroed, the caller's own */
ngx_http_ai_caller_cells_t *ngx_http_ai_metrics_caller(
    ngx_http_ai_metrics_store_t *st, ngx_http_ai_metrics_kind_e kind,
    ngx_str_t *name, ngx_http_ai_metrics_hint_t *hints);

/* the first series of a kind; then s->next.  Not of callers */
ngx_http_ai_series_t *ngx_http_ai_metrics_first(
    ngx_http_ai_metrics_store_t *st, ngx_http_ai_metrics_kind_e kind);

/* how many cells the series of a kind have */
ngx_uint_t ngx_http_ai_metrics_ncells(ngx_http_ai_metrics_kind_e kind);

/* sums of all shards */
void ngx_http_ai_metrics_sum(ngx_http_ai_metrics_store_t *st,
    ngx_http_ai_series_t *s, ngx_http_ai_cells_t *cells);

/* how many tenants or keys there are, and number i of them, copied; name has
 * room for NGX_HTTP_AI_METRICS_CALLER bytes.  Under the lock */
ngx_uint_t ngx_http_ai_metrics_callers(ngx_http_ai_metrics_store_t *st,
    ngx_http_ai_metrics_kind_e kind);
void ngx_http_ai_metrics_caller_get(ngx_http_ai_metrics_store_t *st,
    ngx_http_ai_metrics_kind_e kind, ngx_uint_t i, ngx_str_t *name,
    ngx_http_ai_caller_cells_t *cells);

/*
 * A shard that only this process adds to, while it lives; 0: the first one,
 * which is of all that have none.  Under the lock.
 */
ngx_uint_t ngx_http_ai_metrics_claim(ngx_http_ai_metrics_store_t *st,
    ngx_pid_t pid, ngx_uint_t (*alive)(ngx_pid_t pid));
void ngx_http_ai_metrics_release(ngx_http_ai_metrics_store_t *st,
    ngx_uint_t shard);

/* a place for a process, under the lock; NULL: no room */
ngx_http_ai_metrics_process_t *ngx_http_ai_metrics_enroll(
    ngx_http_ai_metrics_store_t *st, ngx_pid_t pid,
    ngx_uint_t (*alive)(ngx_pid_t pid));
ngx_http_ai_metrics_process_t *ngx_http_ai_metrics_processes(
    ngx_http_ai_metrics_store_t *st);

/* each load of the configuration; its number */
ngx_uint_t ngx_http_ai_metrics_generation(ngx_http_ai_metrics_store_t *st,
    ngx_uint_t next);

void ngx_http_ai_metrics_stats(ngx_http_ai_metrics_store_t *st,
    ngx_http_ai_metrics_stats_t *stats);

/* adds a value to a histogram; returns its bucket */
ngx_uint_t ngx_http_ai_metrics_observe(uint64_t *histogram,
    const ngx_http_ai_bounds_t *b, uint64_t value, ngx_uint_t own);

void ngx_http_ai_exemplar_set(ngx_http_ai_exemplar_t *e, u_char *trace_id,
    uint64_t value, uint64_t time);

/* a copy; NGX_DECLINED: there is none, or it is being written */
ngx_int_t ngx_http_ai_exemplar_get(ngx_http_ai_exemplar_t *e,
    ngx_http_ai_exemplar_t *copy);

/* may it be the value of a label? */
ngx_uint_t ngx_http_ai_metrics_is_label(ngx_str_t *s, size_t max);


extern ngx_str_t  ngx_http_ai_metrics_other;


#endif /* _NGX_HTTP_AI_METRICS_STORE_H_INCLUDED_ */
