
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Flights: answers that are being made by one request and that others, in any
 * worker, wait for or read along.
 */


#include "ngx_http_ai_cache_block.h"
#include <signal.h>


/* ms between what is done in common */
#define NGX_HTTP_AI_CACHE_TICK    100

/* ms without a sign of life after which a worker is taken for dead */
#define NGX_HTTP_AI_CACHE_SILENT  60000

/* ms without a tick of anybody: the machine has slept, or the clock jumped */
#define NGX_HTTP_AI_CACHE_GAP     2000

/* ms that a leader may be silent */
#define NGX_HTTP_AI_CACHE_LEASE   3600000


static ngx_http_ai_cache_flight_t *ngx_http_ai_cache_led(
    ngx_http_ai_cache_store_t *st, uint64_t number, ngx_int_t worker);
static ngx_http_ai_cache_flight_t *ngx_http_ai_cache_known(
    ngx_http_ai_cache_store_t *st, uint64_t number);
static uint32_t ngx_http_ai_cache_flight_new(ngx_http_ai_cache_store_t *st);
static void ngx_http_ai_cache_lead(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_flight_t *f, ngx_int_t worker, int64_t now);
static void ngx_http_ai_cache_failed(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_flight_t *f, ngx_uint_t error, int64_t now);
static ngx_int_t ngx_http_ai_cache_keep(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_flight_t *f, int64_t now);
static void ngx_http_ai_cache_drop(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_flight_t *f);
static void ngx_http_ai_cache_unlink(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_flight_t *f);
static void ngx_http_ai_cache_release(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_flight_t *f);
static void ngx_http_ai_cache_bury(ngx_http_ai_cache_store_t *st,
    ngx_uint_t worker, int64_t now);
static ngx_uint_t ngx_http_ai_cache_alive(ngx_pid_t pid);


ngx_int_t
ngx_http_ai_cache_enroll(ngx_http_ai_cache_store_t *st, ngx_pid_t pid,
    int64_t now)
{
    ngx_uint_t                   i, n;
    ngx_http_ai_cache_worker_t  *w;

    w = st->workers;
    n = NGX_HTTP_AI_CACHE_WORKERS;

    for (i = 0; i < NGX_HTTP_AI_CACHE_WORKERS; i++) {

        if (w[i].pid == pid) {
            /* of a dead one, whose number we got */
            n = i;
            break;
        }

        if (n == NGX_HTTP_AI_CACHE_WORKERS
            && (w[i].pid == 0 || !ngx_http_ai_cache_alive(w[i].pid)))
        {
            n = i;
        }
    }

    if (n == NGX_HTTP_AI_CACHE_WORKERS) {
        return NGX_ERROR;
    }

    if (w[n].pid) {
        ngx_http_ai_cache_mark(st);
        ngx_http_ai_cache_bury(st, n, now);
        ngx_http_ai_cache_unmark(st);
    }

    w[n].beat = now;
    w[n].pid = pid;

    return n;
}


void
ngx_http_ai_cache_dismiss(ngx_http_ai_cache_store_t *st, ngx_int_t worker,
    int64_t now)
{
    if (worker == NGX_ERROR) {
        return;
    }

    ngx_http_ai_cache_mark(st);
    ngx_http_ai_cache_bury(st, worker, now);
    ngx_http_ai_cache_unmark(st);
}


ngx_int_t
ngx_http_ai_cache_tick(ngx_http_ai_cache_store_t *st, ngx_int_t worker,
    ngx_pid_t pid, int64_t now)
{
    int64_t                      gap;
    uint32_t                     i, next;
    ngx_uint_t                   n;
    ngx_http_ai_cache_flight_t  *f;
    ngx_http_ai_cache_worker_t  *w;

    w = st->workers;

    if (worker == NGX_ERROR || w[worker].pid != pid) {
        worker = ngx_http_ai_cache_enroll(st, pid, now);

    } else {
        w[worker].beat = now;
    }

    gap = now - st->ticked;

    if (gap >= 0 && gap < NGX_HTTP_AI_CACHE_TICK) {
        return worker;
    }

    st->ticked = now;

    ngx_http_ai_cache_mark(st);

    for (n = 0; n < NGX_HTTP_AI_CACHE_WORKERS; n++) {

        if (w[n].pid == 0) {
            continue;
        }

        if (gap < 0 || gap > NGX_HTTP_AI_CACHE_GAP) {
            w[n].beat = now;
        }

        if (now - w[n].beat > NGX_HTTP_AI_CACHE_SILENT
            || !ngx_http_ai_cache_alive(w[n].pid))
        {
            ngx_http_ai_cache_bury(st, n, now);
        }
    }

    for (i = st->fused; i; i = next) {
        f = ngx_http_ai_cache_flight(st, i);
        next = f->next_used;

        if (gap < 0) {
            /* as it may be ahead of the clock now */
            f->touched = ngx_min(f->touched, now);
            f->ended = ngx_min(f->ended, now);
        }

        if (f->state == NGX_HTTP_AI_CACHE_FLIGHT_RUNNING) {

            if (now - f->touched > NGX_HTTP_AI_CACHE_LEASE) {
                ngx_http_ai_cache_failed(st, f, 0, now);
            }

        } else if (f->njoins == 0
                   || now - f->ended > NGX_HTTP_AI_CACHE_LINGER)
        {
            ngx_http_ai_cache_release(st, f);
        }
    }

    ngx_http_ai_cache_sweep(st, now);

    ngx_http_ai_cache_unmark(st);

    return worker;
}


ngx_int_t
ngx_http_ai_cache_begin(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_meta_t *meta, ngx_int_t worker, int64_t now,
    uint64_t *flight)
{
    uint32_t                     i, *chain;
    ngx_int_t                    rc;
    ngx_http_ai_cache_flight_t  *f;

    if (worker == NGX_ERROR) {
        return NGX_DECLINED;
    }

    chain = ngx_http_ai_cache_fchain(st, meta->id);

    for (i = *chain; i; i = f->next) {
        f = ngx_http_ai_cache_flight(st, i);

        if (ngx_memcmp(f->meta.id, meta->id, NGX_HTTP_AI_CACHE_ID) == 0) {
            break;
        }
    }

    ngx_http_ai_cache_mark(st);

    if (i && ngx_http_ai_cache_purged(st, &f->meta)) {
        /* those who have joined before are served */
        ngx_http_ai_cache_unlink(st, f);
        i = 0;
    }

    if (i && f->state == NGX_HTTP_AI_CACHE_FLIGHT_RUNNING) {
        rc = NGX_DECLINED;

        if (f->joins[worker] < 65535) {
            f->joins[worker]++;
            f->njoins++;

            *flight = f->number;
            rc = NGX_AGAIN;
        }

        ngx_http_ai_cache_unmark(st);

        return rc;
    }

    if (i == 0) {
        i = ngx_http_ai_cache_flight_new(st);

        if (i == 0) {
            ngx_http_ai_cache_unmark(st);
            return NGX_DECLINED;
        }

        f = ngx_http_ai_cache_flight(st, i);

        ngx_memcpy(f->meta.id, meta->id, NGX_HTTP_AI_CACHE_ID);
        f->meta.scope = meta->scope;
        f->meta.model = meta->model;
        f->meta.tag = meta->tag;

        f->next = *chain;
        f->linked = 1;
        *chain = i;
    }

    ngx_http_ai_cache_lead(st, f, worker, now);

    *flight = f->number;

    ngx_http_ai_cache_unmark(st);

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_cache_open(ngx_http_ai_cache_store_t *st, uint64_t flight,
    ngx_int_t worker, ngx_http_ai_cache_meta_t *meta)
{
    ngx_http_ai_cache_flight_t  *f;

    f = ngx_http_ai_cache_led(st, flight, worker);

    if (f == NULL) {
        return NGX_DECLINED;
    }

    f->meta.dialect = meta->dialect;
    f->meta.op = meta->op;
    f->meta.stream = meta->stream;
    f->meta.exact = meta->exact;
    f->meta.include_usage = meta->include_usage;

    ngx_http_ai_cache_barrier();
    f->open = 1;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_cache_append(ngx_http_ai_cache_store_t *st, uint64_t flight,
    ngx_int_t worker, u_char *data, size_t size, int64_t now)
{
    uint32_t                     had, need;
    ngx_http_ai_cache_entry_t   *e;
    ngx_http_ai_cache_flight_t  *f;

    f = ngx_http_ai_cache_led(st, flight, worker);

    if (f == NULL) {
        return NGX_DECLINED;
    }

    f->touched = now;

    if (size == 0) {
        return NGX_OK;
    }

    if (size > (size_t) st->npieces * NGX_HTTP_AI_CACHE_PIECE / 4) {
        return NGX_DECLINED;
    }

    had = f->entry ? ngx_http_ai_cache_entry(st, f->entry)->npieces : 0;
    need = ngx_http_ai_cache_need(st, f->entry, size);

    if (had + need > st->npieces / 4) {
        return NGX_DECLINED;
    }

    ngx_http_ai_cache_mark(st);

    if (ngx_http_ai_cache_room(st, need, NGX_HTTP_AI_CACHE_ALWAYS, now)
        != NGX_OK)
    {
        ngx_http_ai_cache_unmark(st);
        return NGX_DECLINED;
    }

    ngx_http_ai_cache_add(st, &f->entry, data, size);
    ngx_http_ai_cache_sum_add(&f->sum, data, size);

    e = ngx_http_ai_cache_entry(st, f->entry);
    e->flight = f->number & NGX_HTTP_AI_CACHE_FLIGHTS;

    ngx_http_ai_cache_unmark(st);

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_cache_end(ngx_http_ai_cache_store_t *st, uint64_t flight,
    ngx_int_t worker, ngx_http_ai_cache_meta_t *meta, int64_t now)
{
    ngx_int_t                    rc;
    ngx_http_ai_cache_flight_t  *f;

    f = ngx_http_ai_cache_led(st, flight, worker);

    if (f == NULL) {
        return NGX_DECLINED;
    }

    ngx_memcpy(meta->id, f->meta.id, NGX_HTTP_AI_CACHE_ID);
    meta->scope = f->meta.scope;
    meta->model = f->meta.model;
    meta->tag = f->meta.tag;
    meta->created = f->meta.created;
    meta->size = f->sum.size;
    meta->sum = ngx_http_ai_cache_sum_end(&f->sum);

    ngx_http_ai_cache_mark(st);

    f->meta = *meta;
    f->open = 1;
    f->state = NGX_HTTP_AI_CACHE_FLIGHT_WHOLE;
    f->ended = now;

    rc = ngx_http_ai_cache_keep(st, f, now);

    ngx_http_ai_cache_unlink(st, f);

    if (f->njoins == 0) {
        ngx_http_ai_cache_release(st, f);
    }

    ngx_http_ai_cache_unmark(st);

    return rc;
}


/*
 * What flights need while they run is taken from what was used least lately,
 * so a flight stays only if it leaves as much room as it has taken, or if it
 * was asked for more often than what goes for it.
 */

static ngx_int_t
ngx_http_ai_cache_keep(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_flight_t *f, int64_t now)
{
    uint32_t                    old;
    ngx_uint_t                  often;
    ngx_http_ai_cache_entry_t  *e;

    if (f->entry == 0
        || f->meta.stale <= now
        || ngx_http_ai_cache_purged(st, &f->meta))
    {
        return NGX_DECLINED;
    }

    e = ngx_http_ai_cache_entry(st, f->entry);
    old = ngx_http_ai_cache_find(st, f->meta.id);

    if (old) {
        ngx_http_ai_cache_unlist(st, old);

    } else {
        often = ngx_http_ai_cache_often(st, f->meta.id);

        if (ngx_http_ai_cache_room(st, e->npieces, often, now) != NGX_OK) {
            st->figures.rejected++;
            return NGX_DECLINED;
        }
    }

    e->meta = f->meta;

    ngx_http_ai_cache_list(st, f->entry);

    return NGX_OK;
}


void
ngx_http_ai_cache_fail(ngx_http_ai_cache_store_t *st, uint64_t flight,
    ngx_int_t worker, ngx_uint_t error, ngx_uint_t final, int64_t now)
{
    ngx_http_ai_cache_flight_t  *f;

    f = ngx_http_ai_cache_led(st, flight, worker);

    if (f == NULL) {
        return;
    }

    ngx_http_ai_cache_mark(st);

    ngx_http_ai_cache_failed(st, f, error, now);

    if (final) {
        f->final = 1;
        ngx_http_ai_cache_unlink(st, f);
    }

    if (f->njoins == 0) {
        ngx_http_ai_cache_release(st, f);
    }

    ngx_http_ai_cache_unmark(st);
}


ngx_uint_t
ngx_http_ai_cache_followers(ngx_http_ai_cache_store_t *st, uint64_t flight)
{
    ngx_http_ai_cache_flight_t  *f;

    f = ngx_http_ai_cache_known(st, flight);

    return f ? f->njoins : 0;
}


size_t
ngx_http_ai_cache_read(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_reader_t *rd, u_char *buf, size_t size)
{
    size_t                       n, at, sum;
    ngx_http_ai_cache_entry_t   *e;
    ngx_http_ai_cache_flight_t  *f;

    f = ngx_http_ai_cache_known(st, rd->flight);

    if (f == NULL) {
        rd->state = NGX_HTTP_AI_CACHE_FLIGHT_GONE;
        return 0;
    }

    rd->state = f->state;
    rd->error = f->error;
    rd->open = f->open;
    rd->size = f->sum.size;
    rd->meta = f->meta;

    if (rd->round != f->round) {
        rd->round = f->round;
        rd->offset = 0;
        rd->piece = 0;
    }

    if (buf == NULL || f->entry == 0) {
        return 0;
    }

    e = ngx_http_ai_cache_entry(st, f->entry);
    sum = 0;

    while (size > 0 && rd->offset < e->size) {
        at = (rd->offset + sizeof(ngx_http_ai_cache_entry_t))
             % NGX_HTTP_AI_CACHE_PIECE;

        if (rd->piece == 0) {
            rd->piece = f->entry;

        } else if (at == 0) {
            rd->piece = ngx_http_ai_cache_link(st, rd->piece)->next;
        }

        n = ngx_min(NGX_HTTP_AI_CACHE_PIECE - at, e->size - rd->offset);
        n = ngx_min(n, size);

        ngx_memcpy(buf, ngx_http_ai_cache_piece(st, rd->piece) + at, n);

        buf += n;
        size -= n;
        sum += n;
        rd->offset += n;
    }

    return sum;
}


ngx_int_t
ngx_http_ai_cache_takeover(ngx_http_ai_cache_store_t *st, uint64_t flight,
    ngx_int_t worker, int64_t now)
{
    ngx_http_ai_cache_flight_t  *f;

    f = ngx_http_ai_cache_known(st, flight);

    if (worker == NGX_ERROR
        || f == NULL
        || f->state != NGX_HTTP_AI_CACHE_FLIGHT_FAILED
        || f->final
        || f->joins[worker] == 0)
    {
        return NGX_DECLINED;
    }

    ngx_http_ai_cache_mark(st);

    f->joins[worker]--;
    f->njoins--;

    ngx_http_ai_cache_lead(st, f, worker, now);

    ngx_http_ai_cache_unmark(st);

    return NGX_OK;
}


void
ngx_http_ai_cache_depart(ngx_http_ai_cache_store_t *st, uint64_t flight,
    ngx_int_t worker)
{
    ngx_http_ai_cache_flight_t  *f;

    f = ngx_http_ai_cache_known(st, flight);

    if (worker == NGX_ERROR || f == NULL || f->joins[worker] == 0) {
        return;
    }

    ngx_http_ai_cache_mark(st);

    f->joins[worker]--;
    f->njoins--;

    if (f->njoins == 0 && f->state != NGX_HTTP_AI_CACHE_FLIGHT_RUNNING) {
        ngx_http_ai_cache_release(st, f);
    }

    ngx_http_ai_cache_unmark(st);
}


static ngx_http_ai_cache_flight_t *
ngx_http_ai_cache_known(ngx_http_ai_cache_store_t *st, uint64_t number)
{
    uint32_t                     i;
    ngx_http_ai_cache_flight_t  *f;

    i = number & NGX_HTTP_AI_CACHE_FLIGHTS;

    if (i == 0 || i > st->ftop) {
        return NULL;
    }

    f = ngx_http_ai_cache_flight(st, i);

    return (f->number == number) ? f : NULL;
}


static ngx_http_ai_cache_flight_t *
ngx_http_ai_cache_led(ngx_http_ai_cache_store_t *st, uint64_t number,
    ngx_int_t worker)
{
    ngx_http_ai_cache_flight_t  *f;

    f = ngx_http_ai_cache_known(st, number);

    if (f == NULL
        || worker == NGX_ERROR
        || f->state != NGX_HTTP_AI_CACHE_FLIGHT_RUNNING
        || f->leader != worker)
    {
        return NULL;
    }

    return f;
}


static uint32_t
ngx_http_ai_cache_flight_new(ngx_http_ai_cache_store_t *st)
{
    uint32_t                     i;
    ngx_http_ai_cache_flight_t  *f;

    if (st->ffree) {
        i = st->ffree;
        st->ffree = ngx_http_ai_cache_flight(st, i)->next;

    } else if (st->ftop < st->nflights) {
        i = ++st->ftop;

    } else {
        return 0;
    }

    f = ngx_http_ai_cache_flight(st, i);

    ngx_memzero(f, sizeof(ngx_http_ai_cache_flight_t));

    f->number = (st->serial++ << NGX_HTTP_AI_CACHE_SLOT) | i;
    f->next_used = st->fused;

    if (st->fused) {
        ngx_http_ai_cache_flight(st, st->fused)->prev_used = i;
    }

    st->fused = i;

    return i;
}


static void
ngx_http_ai_cache_lead(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_flight_t *f, ngx_int_t worker, int64_t now)
{
    ngx_http_ai_cache_drop(st, f);
    ngx_http_ai_cache_sum_init(&f->sum);

    f->state = NGX_HTTP_AI_CACHE_FLIGHT_RUNNING;
    f->leader = worker;
    f->round++;
    f->error = 0;
    f->open = 0;
    f->touched = now;
    f->meta.created = now;
}


static void
ngx_http_ai_cache_failed(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_flight_t *f, ngx_uint_t error, int64_t now)
{
    f->state = NGX_HTTP_AI_CACHE_FLIGHT_FAILED;
    f->error = error;
    f->ended = now;
}


/* its bytes, unless they are an entry's as well */

static void
ngx_http_ai_cache_drop(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_flight_t *f)
{
    if (f->entry) {
        ngx_http_ai_cache_entry(st, f->entry)->flight = 0;
        ngx_http_ai_cache_free(st, f->entry);
        f->entry = 0;
    }
}


static void
ngx_http_ai_cache_unlink(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_flight_t *f)
{
    uint32_t  i, *p;

    if (!f->linked) {
        return;
    }

    i = f->number & NGX_HTTP_AI_CACHE_FLIGHTS;
    p = ngx_http_ai_cache_fchain(st, f->meta.id);

    while (*p != i) {
        p = &ngx_http_ai_cache_flight(st, *p)->next;
    }

    *p = f->next;
    f->linked = 0;
}


static void
ngx_http_ai_cache_release(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_flight_t *f)
{
    uint32_t  i;

    i = f->number & NGX_HTTP_AI_CACHE_FLIGHTS;

    ngx_http_ai_cache_unlink(st, f);
    ngx_http_ai_cache_drop(st, f);

    if (f->prev_used) {
        ngx_http_ai_cache_flight(st, f->prev_used)->next_used = f->next_used;

    } else {
        st->fused = f->next_used;
    }

    if (f->next_used) {
        ngx_http_ai_cache_flight(st, f->next_used)->prev_used = f->prev_used;
    }

    f->number = 0;
    f->next = st->ffree;
    st->ffree = i;
}


/* the flights that it led fail, and it follows none any more */

static void
ngx_http_ai_cache_bury(ngx_http_ai_cache_store_t *st, ngx_uint_t worker,
    int64_t now)
{
    uint32_t                     i;
    ngx_http_ai_cache_flight_t  *f;

    for (i = st->fused; i; i = f->next_used) {
        f = ngx_http_ai_cache_flight(st, i);

        f->njoins -= f->joins[worker];
        f->joins[worker] = 0;

        if (f->leader == worker
            && f->state == NGX_HTTP_AI_CACHE_FLIGHT_RUNNING)
        {
            ngx_http_ai_cache_failed(st, f, 0, now);
        }
    }

    st->workers[worker].pid = 0;
}


static ngx_uint_t
ngx_http_ai_cache_alive(ngx_pid_t pid)
{
    return kill(pid, 0) == 0 || ngx_errno == NGX_EPERM;
}


void
ngx_http_ai_cache_flights_reset(ngx_http_ai_cache_store_t *st)
{
    st->ftop = 0;
    st->ffree = 0;
    st->fused = 0;

    ngx_memzero((u_char *) st + st->fchains,
                ((size_t) st->fmask + 1) * sizeof(uint32_t));
    ngx_memzero((u_char *) st + st->flights,
                st->nflights * sizeof(ngx_http_ai_cache_flight_t));
}


void
ngx_http_ai_cache_figures(ngx_http_ai_cache_store_t *st,
    ngx_http_ai_cache_figures_t *figures)
{
    uint32_t                     i;
    ngx_http_ai_cache_flight_t  *f;

    *figures = st->figures;

    figures->used = (uint64_t) (st->top - st->nfree)
                    * NGX_HTTP_AI_CACHE_PIECE;

    for (i = st->fused; i; i = f->next_used) {
        f = ngx_http_ai_cache_flight(st, i);

        if (f->state == NGX_HTTP_AI_CACHE_FLIGHT_RUNNING) {
            figures->flights++;
        }

        figures->followers += f->njoins;
    }
}
