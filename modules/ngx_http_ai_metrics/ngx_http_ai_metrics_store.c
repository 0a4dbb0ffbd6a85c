
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_json.h"
#include "ngx_http_ai_metrics_store.h"


#define NGX_HTTP_AI_METRICS_LINE   64         /* bytes of a cache line */

#define ngx_http_ai_metrics_lines(n)                                          \
    ngx_align(n, NGX_HTTP_AI_METRICS_LINE)


/* tenants or keys: a compact table to look through, and their series */

typedef struct {
    uint64_t                       hash;
    uint64_t                       used;      /* number of its last use */
} ngx_http_ai_caller_t;

typedef struct {
    u_short                        len;
    u_char                         name[NGX_HTTP_AI_METRICS_CALLER];
    ngx_http_ai_caller_cells_t     cells;
} ngx_http_ai_caller_series_t;

typedef struct {
    ngx_uint_t                     cap;
    ngx_uint_t                     size;      /* of the tables, with "other",
                                                 which is the first */
    ngx_uint_t                     n;
    uint64_t                       uses;
    uint64_t                       evictions;
    ngx_http_ai_caller_t          *table;
    ngx_http_ai_caller_series_t   *series;
} ngx_http_ai_callers_t;


struct ngx_http_ai_metrics_store_s {
    size_t                         size;
    u_char                        *pos;
    u_char                        *end;
    ngx_uint_t                     nshards;
    ngx_uint_t                     generation;
    uint64_t                       overflows;
    volatile ngx_pid_t             owners[NGX_HTTP_AI_METRICS_SHARDS];
    ngx_http_ai_metrics_process_t *processes;
    ngx_http_ai_series_t          *first[NGX_HTTP_AI_METRICS_KINDS];
    ngx_uint_t                     n[NGX_HTTP_AI_METRICS_KINDS];
    ngx_http_ai_callers_t          callers[2];
};


static void *ngx_http_ai_metrics_alloc(ngx_http_ai_metrics_store_t *st,
    size_t size, size_t align);
static ngx_http_ai_series_t *ngx_http_ai_metrics_new(
    ngx_http_ai_metrics_store_t *st, ngx_http_ai_metrics_kind_e kind,
    ngx_str_t *names, uint64_t hash);
static void ngx_http_ai_metrics_clean(ngx_str_t *names, ngx_str_t *clean,
    ngx_uint_t n);
static uint64_t ngx_http_ai_metrics_hash(ngx_str_t *names, ngx_uint_t n);
static ngx_uint_t ngx_http_ai_callers_evict(ngx_http_ai_callers_t *c);
static ngx_http_ai_callers_t *ngx_http_ai_metrics_table(
    ngx_http_ai_metrics_store_t *st, ngx_http_ai_metrics_kind_e kind);


#define ngx_http_ai_bounds(name, NAME)                                        \
    const ngx_http_ai_bounds_t  ngx_http_ai_bounds_##name = {                 \
        NGX_HTTP_AI_BOUNDS_##NAME, ngx_http_ai_##name##_values                \
    }


/* those of OpenTelemetry's conventions for generative AI */

static const uint64_t
    ngx_http_ai_duration_values[NGX_HTTP_AI_BOUNDS_DURATION] =
{
    10000, 20000, 40000, 80000, 160000, 320000, 640000, 1280000, 2560000,
    5120000, 10240000, 20480000, 40960000, 81920000
};

static const uint64_t
    ngx_http_ai_first_values[NGX_HTTP_AI_BOUNDS_FIRST] =
{
    1000, 5000, 10000, 20000, 40000, 60000, 80000, 100000, 250000, 500000,
    750000, 1000000, 2500000, 5000000, 7500000, 10000000
};

static const uint64_t
    ngx_http_ai_token_values[NGX_HTTP_AI_BOUNDS_TOKEN] =
{
    10000, 25000, 50000, 75000, 100000, 150000, 200000, 300000, 400000,
    500000, 750000, 1000000, 2500000
};

static const uint64_t
    ngx_http_ai_size_values[NGX_HTTP_AI_BOUNDS_SIZE] =
{
    1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304,
    16777216, 67108864
};

/* of our own */

static const uint64_t
    ngx_http_ai_overhead_values[NGX_HTTP_AI_BOUNDS_OVERHEAD] =
{
    1000, 2000, 4000, 8000, 16000, 32000, 64000, 128000, 256000, 512000,
    1024000
};

ngx_http_ai_bounds(duration, DURATION);
ngx_http_ai_bounds(first, FIRST);
ngx_http_ai_bounds(token, TOKEN);
ngx_http_ai_bounds(size, SIZE);
ngx_http_ai_bounds(overhead, OVERHEAD);


ngx_str_t  ngx_http_ai_metrics_other = ngx_string("other");


static const struct {
    ngx_uint_t                     names;
    size_t                         cells;     /* bytes */

} ngx_http_ai_metrics_kinds[NGX_HTTP_AI_METRICS_KINDS] = {
    { 3, sizeof(ngx_http_ai_request_cells_t) },
    { 3, sizeof(ngx_http_ai_attempt_cells_t) },
    { 3, sizeof(ngx_http_ai_size_cells_t) },
    { 1, 0 },
    { 1, 0 },
    { 1, 0 }
};


ngx_http_ai_metrics_store_t *
ngx_http_ai_metrics_store_init(void *block, size_t size, ngx_uint_t nshards)
{
    ngx_str_t                     names[NGX_HTTP_AI_METRICS_NAMES];
    ngx_uint_t                    i;
    ngx_http_ai_metrics_store_t  *st;

    if (size < sizeof(ngx_http_ai_metrics_store_t)) {
        return NULL;
    }

    st = block;
    st->size = size;
    st->pos = (u_char *) block + sizeof(ngx_http_ai_metrics_store_t);
    st->end = (u_char *) block + size;
    st->nshards = ngx_http_ai_max(1, ngx_http_ai_min(nshards,
                                              NGX_HTTP_AI_METRICS_SHARDS));

    for (i = 0; i < NGX_HTTP_AI_METRICS_NAMES; i++) {
        names[i] = ngx_http_ai_metrics_other;
    }

    /* what has no other place when the block is full */

    for (i = NGX_HTTP_AI_METRICS_REQUEST; i <= NGX_HTTP_AI_METRICS_MODEL; i++)
    {
        if (ngx_http_ai_metrics_new(st, i, names,
                ngx_http_ai_metrics_hash(names,
                                         ngx_http_ai_metrics_kinds[i].names))
            == NULL)
        {
            return NULL;
        }
    }

    return st;
}


ngx_int_t
ngx_http_ai_metrics_store_caps(ngx_http_ai_metrics_store_t *st,
    ngx_uint_t tenants, ngx_uint_t keys)
{
    ngx_uint_t                    i, k, n, cap;
    ngx_http_ai_caller_t         *table;
    ngx_http_ai_callers_t        *c;
    ngx_http_ai_caller_series_t  *series;

    for (k = 0; k < 2; k++) {
        c = &st->callers[k];
        cap = k ? keys : tenants;

        if (cap == 0) {
            /* workers of the configuration before may still use them */
            continue;
        }

        /* with "other" */
        cap++;

        if (cap > c->size) {
            table = ngx_http_ai_metrics_alloc(st,
                                           cap * sizeof(ngx_http_ai_caller_t),
                                           NGX_HTTP_AI_METRICS_LINE);
            series = ngx_http_ai_metrics_alloc(st,
                                    cap * sizeof(ngx_http_ai_caller_series_t),
                                    NGX_HTTP_AI_METRICS_LINE);

            if (table == NULL || series == NULL) {
                return NGX_ERROR;
            }

            if (c->n) {
                ngx_memcpy(table, c->table,
                           c->n * sizeof(ngx_http_ai_caller_t));
                ngx_memcpy(series, c->series,
                           c->n * sizeof(ngx_http_ai_caller_series_t));
            }

            c->table = table;
            c->series = series;
            c->size = cap;
        }

        if (c->n == 0) {
            series = c->series;
            series->len = ngx_http_ai_metrics_other.len;
            ngx_memcpy(series->name, ngx_http_ai_metrics_other.data,
                       series->len);
            c->table[0].hash =
                         ngx_http_ai_metrics_hash(&ngx_http_ai_metrics_other,
                                                  1);
            c->n = 1;
        }

        c->cap = cap;

        while (c->n > cap) {
            i = ngx_http_ai_callers_evict(c);
            n = --c->n;

            c->table[i] = c->table[n];
            c->series[i] = c->series[n];
        }
    }

    return NGX_OK;
}


ngx_http_ai_series_t *
ngx_http_ai_metrics_find(ngx_http_ai_metrics_store_t *st,
    ngx_http_ai_metrics_kind_e kind, ngx_str_t *names)
{
    uint64_t               hash;
    ngx_str_t              clean[NGX_HTTP_AI_METRICS_NAMES];
    ngx_uint_t             i, n;
    ngx_http_ai_series_t  *s;

    n = ngx_http_ai_metrics_kinds[kind].names;

    ngx_http_ai_metrics_clean(names, clean, n);

    hash = ngx_http_ai_metrics_hash(clean, n);

    for (s = ngx_http_ai_metrics_first(st, kind); s; s = s->next) {

        if (s->hash != hash) {
            continue;
        }

        for (i = 0; i < n; i++) {
            if (s->names[i].len != clean[i].len
                || ngx_memcmp(s->names[i].data, clean[i].data, clean[i].len)
                   != 0)
            {
                break;
            }
        }

        if (i == n) {
            return s;
        }
    }

    return NULL;
}


ngx_http_ai_series_t *
ngx_http_ai_metrics_make(ngx_http_ai_metrics_store_t *st,
    ngx_http_ai_metrics_kind_e kind, ngx_str_t *names, ngx_uint_t *full)
{
    ngx_str_t              clean[NGX_HTTP_AI_METRICS_NAMES];
    ngx_uint_t             n;
    ngx_http_ai_series_t  *s;

    *full = 0;

    s = ngx_http_ai_metrics_find(st, kind, names);

    if (s) {
        return s;
    }

    n = ngx_http_ai_metrics_kinds[kind].names;

    ngx_http_ai_metrics_clean(names, clean, n);

    if (kind != NGX_HTTP_AI_METRICS_MODEL
        || st->n[kind] < NGX_HTTP_AI_METRICS_MODELS)
    {
        s = ngx_http_ai_metrics_new(st, kind, clean,
                                    ngx_http_ai_metrics_hash(clean, n));
        if (s) {
            return s;
        }
    }

    *full = 1;
    st->overflows++;

    return st->first[kind];
}


static ngx_http_ai_series_t *
ngx_http_ai_metrics_new(ngx_http_ai_metrics_store_t *st,
    ngx_http_ai_metrics_kind_e kind, ngx_str_t *names, uint64_t hash)
{
    size_t                  size, len;
    u_char                 *p;
    ngx_uint_t              i, n;
    ngx_http_ai_series_t   *s, **last;

    n = ngx_http_ai_metrics_kinds[kind].names;
    size = st->nshards
           * ngx_http_ai_metrics_lines(ngx_http_ai_metrics_kinds[kind].cells);

    len = 0;

    for (i = 0; i < n; i++) {
        len += names[i].len;
    }

    p = ngx_http_ai_metrics_alloc(st,
                       size + sizeof(ngx_http_ai_series_t) + len,
                       NGX_HTTP_AI_METRICS_LINE);
    if (p == NULL) {
        return NULL;
    }

    s = (ngx_http_ai_series_t *) (p + size);

    s->kind = kind;
    s->hash = hash;
    s->cells = (uint64_t *) p;
    s->index = st->n[kind];

    p = (u_char *) s + sizeof(ngx_http_ai_series_t);

    for (i = 0; i < n; i++) {
        s->names[i].data = p;
        s->names[i].len = names[i].len;
        p = ngx_cpymem(p, names[i].data, names[i].len);
    }

    for (last = &st->first[kind]; *last; last = &(*last)->next) {
        /* a process may have died before it has counted one */
        s->index = (*last)->index + 1;
    }

    __atomic_store_n(last, s, __ATOMIC_RELEASE);

    st->n[kind] = s->index + 1;

    return s;
}


void
ngx_http_ai_metrics_exemplify(ngx_http_ai_metrics_store_t *st,
    ngx_http_ai_series_t *s)
{
    ngx_http_ai_exemplars_t  *e;

    if (s->exemplars == NULL) {
        e = ngx_http_ai_metrics_alloc(st, sizeof(ngx_http_ai_exemplars_t),
                                      sizeof(uint64_t));

        __atomic_store_n(&s->exemplars, e, __ATOMIC_RELEASE);
    }
}


ngx_http_ai_cells_t *
ngx_http_ai_metrics_cells(ngx_http_ai_metrics_store_t *st,
    ngx_http_ai_series_t *s, ngx_uint_t shard)
{
    size_t  size;

    size = ngx_http_ai_metrics_lines(ngx_http_ai_metrics_kinds[s->kind].cells);

    return (ngx_http_ai_cells_t *) ((u_char *) s->cells
                                    + shard * size);
}


ngx_http_ai_series_t *
ngx_http_ai_metrics_first(ngx_http_ai_metrics_store_t *st,
    ngx_http_ai_metrics_kind_e kind)
{
    return __atomic_load_n(&st->first[kind], __ATOMIC_ACQUIRE);
}


ngx_uint_t
ngx_http_ai_metrics_ncells(ngx_http_ai_metrics_kind_e kind)
{
    return ngx_http_ai_metrics_kinds[kind].cells / sizeof(uint64_t);
}


void
ngx_http_ai_metrics_sum(ngx_http_ai_metrics_store_t *st,
    ngx_http_ai_series_t *s, ngx_http_ai_cells_t *cells)
{
    uint64_t                       *sum, *cell;
    ngx_uint_t                      i, n, shard;
    ngx_http_ai_metrics_process_t  *p;

    if (s->kind == NGX_HTTP_AI_METRICS_MODEL) {
        ngx_memzero(cells, sizeof(ngx_http_ai_model_cells_t));

        for (p = ngx_http_ai_metrics_processes(st); p; p = p->next) {
            if (p->pid) {
                cells->model.running += p->running[s->index];
                cells->model.streams += p->streams[s->index];
            }
        }

        return;
    }

    sum = (uint64_t *) cells;
    n = ngx_http_ai_metrics_ncells(s->kind);

    ngx_memzero(cells, n * sizeof(uint64_t));

    for (shard = 0; shard < st->nshards; shard++) {
        cell = (uint64_t *) ngx_http_ai_metrics_cells(st, s, shard);

        for (i = 0; i < n; i++) {
            sum[i] += __atomic_load_n(&cell[i], __ATOMIC_RELAXED);
        }
    }
}


static ngx_http_ai_callers_t *
ngx_http_ai_metrics_table(ngx_http_ai_metrics_store_t *st,
    ngx_http_ai_metrics_kind_e kind)
{
    return &st->callers[kind - NGX_HTTP_AI_METRICS_TENANT];
}


ngx_http_ai_caller_cells_t *
ngx_http_ai_metrics_caller(ngx_http_ai_metrics_store_t *st,
    ngx_http_ai_metrics_kind_e kind, ngx_str_t *name,
    ngx_http_ai_metrics_hint_t *hints)
{
    uint64_t                      hash;
    ngx_uint_t                    i;
    ngx_http_ai_callers_t        *c;
    ngx_http_ai_metrics_hint_t   *hint;
    ngx_http_ai_caller_series_t  *s;

    c = ngx_http_ai_metrics_table(st, kind);
    hash = ngx_http_ai_metrics_hash(name, 1);

    hint = &hints[(hash >> 8) % NGX_HTTP_AI_METRICS_HINTS];

    i = *hint;

    if (i >= c->n || c->table[i].hash != hash) {
        for (i = 0; i < c->n && c->table[i].hash != hash; i++) {
            /* void */
        }
    }

    if (i < c->n) {
        s = &c->series[i];

        if (s->len != name->len
            || ngx_memcmp(s->name, name->data, name->len) != 0)
        {
            /* another one with the same hash has the place */
            return &c->series[0].cells;
        }

    } else if (!ngx_http_ai_metrics_is_label(name, NGX_HTTP_AI_METRICS_CALLER))
    {
        return &c->series[0].cells;

    } else {

        if (c->n < c->cap) {
            s = &c->series[i];
            ngx_memzero(s, sizeof(ngx_http_ai_caller_series_t));

        } else {
            i = ngx_http_ai_callers_evict(c);
            s = &c->series[i];
        }

        s->len = (u_short) name->len;
        ngx_memcpy(s->name, name->data, name->len);

        c->table[i].hash = hash;

        if (i == c->n) {
            c->n++;
        }
    }

    c->table[i].used = ++c->uses;
    *hint = (ngx_http_ai_metrics_hint_t) i;

    return &s->cells;
}


/* the one not used for longest, as an empty one without a name */

static ngx_uint_t
ngx_http_ai_callers_evict(ngx_http_ai_callers_t *c)
{
    uint64_t                     *cell, *sum, v;
    ngx_uint_t                    i, oldest;
    ngx_http_ai_caller_series_t  *s;

    oldest = 1;

    for (i = 2; i < c->n; i++) {
        if (c->table[i].used < c->table[oldest].used) {
            oldest = i;
        }
    }

    s = &c->series[oldest];

    c->table[oldest].hash = 0;
    s->len = 0;

    cell = (uint64_t *) &s->cells;
    sum = (uint64_t *) &c->series[0].cells;

    for (i = 0; i < sizeof(ngx_http_ai_caller_cells_t) / sizeof(uint64_t); i++)
    {
        v = cell[i];
        cell[i] = 0;
        sum[i] += v;
    }

    c->evictions++;

    return oldest;
}


ngx_uint_t
ngx_http_ai_metrics_callers(ngx_http_ai_metrics_store_t *st,
    ngx_http_ai_metrics_kind_e kind)
{
    return ngx_http_ai_metrics_table(st, kind)->n;
}


void
ngx_http_ai_metrics_caller_get(ngx_http_ai_metrics_store_t *st,
    ngx_http_ai_metrics_kind_e kind, ngx_uint_t i, ngx_str_t *name,
    ngx_http_ai_caller_cells_t *cells)
{
    ngx_http_ai_caller_series_t  *s;

    s = &ngx_http_ai_metrics_table(st, kind)->series[i];

    name->len = s->len;
    ngx_memcpy(name->data, s->name, s->len);

    *cells = s->cells;
}


ngx_uint_t
ngx_http_ai_metrics_claim(ngx_http_ai_metrics_store_t *st, ngx_pid_t pid,
    ngx_uint_t (*alive)(ngx_pid_t pid))
{
    ngx_uint_t  i;

    for (i = 1; i < st->nshards; i++) {
        if (st->owners[i] == 0 || st->owners[i] == pid
            || !alive(st->owners[i]))
        {
            st->owners[i] = pid;
            return i;
        }
    }

    return 0;
}


void
ngx_http_ai_metrics_release(ngx_http_ai_metrics_store_t *st, ngx_uint_t shard)
{
    st->owners[shard] = 0;
}


ngx_http_ai_metrics_process_t *
ngx_http_ai_metrics_enroll(ngx_http_ai_metrics_store_t *st, ngx_pid_t pid,
    ngx_uint_t (*alive)(ngx_pid_t pid))
{
    ngx_http_ai_metrics_process_t  *p;

    for (p = st->processes; p; p = p->next) {
        if (p->pid == 0 || p->pid == pid || !alive(p->pid)) {
            break;
        }
    }

    if (p) {
        p->pid = 0;

        ngx_memzero((void *) p->running, sizeof(p->running));
        ngx_memzero((void *) p->streams, sizeof(p->streams));

    } else {
        p = ngx_http_ai_metrics_alloc(st,
                                      sizeof(ngx_http_ai_metrics_process_t),
                                      NGX_HTTP_AI_METRICS_LINE);
        if (p == NULL) {
            return NULL;
        }

        p->next = st->processes;
        __atomic_store_n(&st->processes, p, __ATOMIC_RELEASE);
    }

    p->generation = st->generation;
    p->pid = pid;

    return p;
}


ngx_http_ai_metrics_process_t *
ngx_http_ai_metrics_processes(ngx_http_ai_metrics_store_t *st)
{
    return __atomic_load_n(&st->processes, __ATOMIC_ACQUIRE);
}


ngx_uint_t
ngx_http_ai_metrics_generation(ngx_http_ai_metrics_store_t *st,
    ngx_uint_t next)
{
    st->generation += next;

    return st->generation;
}


void
ngx_http_ai_metrics_stats(ngx_http_ai_metrics_store_t *st,
    ngx_http_ai_metrics_stats_t *stats)
{
    stats->size = st->size;
    stats->used = st->size - (st->end - st->pos);
    stats->overflows = st->overflows;
    stats->evictions[0] = st->callers[0].evictions;
    stats->evictions[1] = st->callers[1].evictions;

    ngx_memcpy(stats->series, st->n, sizeof(stats->series));

    stats->series[NGX_HTTP_AI_METRICS_TENANT] = st->callers[0].n;
    stats->series[NGX_HTTP_AI_METRICS_KEY] = st->callers[1].n;
}


ngx_uint_t
ngx_http_ai_metrics_observe(uint64_t *histogram,
    const ngx_http_ai_bounds_t *b, uint64_t value, ngx_uint_t own)
{
    ngx_uint_t  i;

    for (i = 0; i < b->n; i++) {
        if (value <= b->bounds[i]) {
            break;
        }
    }

    ngx_http_ai_cell_add(&histogram[i], 1, own);
    ngx_http_ai_cell_add(&histogram[b->n + 1], value, own);

    return i;
}


void
ngx_http_ai_exemplar_set(ngx_http_ai_exemplar_t *e, u_char *trace_id,
    uint64_t value, uint64_t time)
{
    uint64_t                v[4];
    ngx_http_ai_exemplar_t  copy;

    ngx_memcpy(copy.trace_id, trace_id, sizeof(copy.trace_id));
    ngx_memcpy(v, trace_id, sizeof(copy.trace_id));

    copy.value = value;
    copy.time = time;
    copy.check = v[0] ^ (v[1] << 1) ^ (v[2] << 2) ^ (v[3] << 3)
                 ^ (value << 8) ^ time;

    *e = copy;
}


ngx_int_t
ngx_http_ai_exemplar_get(ngx_http_ai_exemplar_t *e,
    ngx_http_ai_exemplar_t *copy)
{
    uint64_t  v[4];

    *copy = *e;

    ngx_memcpy(v, copy->trace_id, sizeof(copy->trace_id));

    if (copy->time == 0
        || copy->check != (v[0] ^ (v[1] << 1) ^ (v[2] << 2) ^ (v[3] << 3)
                           ^ (copy->value << 8) ^ copy->time))
    {
        return NGX_DECLINED;
    }

    return NGX_OK;
}


ngx_uint_t
ngx_http_ai_metrics_is_label(ngx_str_t *s, size_t max)
{
    u_char      *p, *last;
    ngx_uint_t   valid;

    if (s->len > max) {
        return 0;
    }

    p = s->data;
    last = p + s->len;

    while (p < last) {

        if (*p < 0x20 || *p == 0x7f) {
            return 0;
        }

        p += ngx_http_ai_json_utf8(p, last, &valid);

        if (!valid) {
            return 0;
        }
    }

    return 1;
}


static void
ngx_http_ai_metrics_clean(ngx_str_t *names, ngx_str_t *clean, ngx_uint_t n)
{
    ngx_uint_t  i;

    for (i = 0; i < n; i++) {
        clean[i] = ngx_http_ai_metrics_is_label(&names[i],
                                                NGX_HTTP_AI_METRICS_NAME)
                   ? names[i] : ngx_http_ai_metrics_other;
    }
}


/* FNV-1a, with an end of each name; never 0 */

static uint64_t
ngx_http_ai_metrics_hash(ngx_str_t *names, ngx_uint_t n)
{
    size_t      i;
    uint64_t    hash;
    ngx_uint_t  k;

    hash = 0xcbf29ce484222325ULL;

    for (k = 0; k < n; k++) {
        for (i = 0; i < names[k].len; i++) {
            hash = (hash ^ names[k].data[i]) * 0x100000001b3ULL;
        }

        hash = (hash ^ 0xff) * 0x100000001b3ULL;
    }

    return hash | 1;
}


/* of zeroed memory */

static void *
ngx_http_ai_metrics_alloc(ngx_http_ai_metrics_store_t *st, size_t size,
    size_t align)
{
    u_char  *p;

    p = ngx_align_ptr(st->pos, align);

    if (p > st->end || (size_t) (st->end - p) < size) {
        return NULL;
    }

    st->pos = p + size;

    return p;
}
