
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Spans on their way to a collector: gathered in batches, posted one after
 * another in the background, bounded.  Nothing of a request waits for it.
 */


#include "ngx_http_ai_trace.h"


#define NGX_HTTP_AI_TRACE_TRIES    5
#define NGX_HTTP_AI_TRACE_WAIT     1000       /* before the second one, ms */
#define NGX_HTTP_AI_TRACE_LONGEST  30000

/* how long the connection is kept without a post, ms */
#define NGX_HTTP_AI_TRACE_IDLE     30000

/* how soon a worker that ends is noticed, ms */
#define NGX_HTTP_AI_TRACE_TICK     500

/* what the first batch begins with; how large one gets before it is posted;
 * the largest memory that is kept for the next one */
#define NGX_HTTP_AI_TRACE_SIZE     16384
#define NGX_HTTP_AI_TRACE_FULL     (1024 * 1024)
#define NGX_HTTP_AI_TRACE_SPARE    (2 * NGX_HTTP_AI_TRACE_FULL)


typedef struct {
    ngx_queue_t                queue;
    ngx_pool_t                *pool;
    ngx_http_ai_out_t          out;
    ngx_http_ai_otlp_t         writer;
    size_t                     size;          /* of what was added */
    ngx_uint_t                 n;             /* spans */
    ngx_uint_t                 tries;
    ngx_msec_t                 start;
} ngx_http_ai_trace_batch_t;


struct ngx_http_ai_exporter_s {
    /* as much of ngx_connection_t as the debug log reads of a timer's data */
    void                      *data;
    void                      *reserved[2];
    ngx_socket_t               fd;

    ngx_http_ai_exporter_conf_t      conf;
    ngx_http_ai_trace_main_conf_t   *tmcf;
    ngx_http_ai_fetcher_t           *fetcher;

    /* of a worker */
    ngx_queue_t                      batches; /* full ones, oldest first */
    ngx_http_ai_trace_batch_t       *current;
    ngx_http_ai_trace_batch_t       *spare;   /* an old one, for its memory */
    size_t                           used;    /* bytes of all batches */
    size_t                           usual;   /* those of the last one */
    ngx_event_t                      event;
    unsigned                         ready:1;
    unsigned                         busy:1;  /* the oldest is being sent, or
                                                 waits for its next try */
    unsigned                         waiting:1;
    unsigned                         down:1;
    unsigned                         full:1;
};


static ngx_http_ai_trace_batch_t *ngx_http_ai_trace_batch(
    ngx_http_ai_exporter_t *e);
static void ngx_http_ai_exporter_close(ngx_http_ai_exporter_t *e);
static void ngx_http_ai_exporter_send(ngx_http_ai_exporter_t *e);
static void ngx_http_ai_exporter_answer(ngx_http_ai_fetch_t *f);
static void ngx_http_ai_exporter_failed(ngx_http_ai_exporter_t *e,
    ngx_uint_t status, const char *error, time_t wait);
static void ngx_http_ai_exporter_done(ngx_http_ai_exporter_t *e,
    ngx_atomic_t *counter);
static void ngx_http_ai_exporter_arm(ngx_http_ai_exporter_t *e);
static void ngx_http_ai_exporter_timer(ngx_event_t *ev);


ngx_http_ai_exporter_t *
ngx_http_ai_exporter_create(ngx_conf_t *cf,
    ngx_http_ai_trace_main_conf_t *tmcf, ngx_http_ai_exporter_conf_t *conf)
{
    ngx_http_ai_exporter_t    *e, **p;
    ngx_http_ai_fetch_conf_t   fetch;

    e = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_exporter_t));
    if (e == NULL) {
        return NULL;
    }

    e->fd = (ngx_socket_t) -1;
    e->conf = *conf;
    e->tmcf = tmcf;

    ngx_memzero(&fetch, sizeof(ngx_http_ai_fetch_conf_t));

    fetch.url = conf->url;
    fetch.tls_ca = conf->tls_ca;
    fetch.tls_verify = conf->tls_verify;
    fetch.timeout = conf->timeout;
    fetch.idle = NGX_HTTP_AI_TRACE_IDLE;
    fetch.max_size = 65536;

    e->fetcher = tmcf->api->fetcher_create(cf, &fetch);
    if (e->fetcher == NULL) {
        return NULL;
    }

    p = ngx_array_push(&tmcf->exporters);
    if (p == NULL) {
        return NULL;
    }

    *p = e;

    return e;
}


ngx_http_ai_otlp_t *
ngx_http_ai_exporter_begin(ngx_http_ai_exporter_t *e, ngx_uint_t n)
{
    ngx_http_ai_trace_batch_t  *b;

    if (!e->ready) {
        ngx_queue_init(&e->batches);
        e->event.data = e;
        e->event.handler = ngx_http_ai_exporter_timer;
        e->event.log = ngx_cycle->log;
        e->ready = 1;
    }

    if (e->used >= e->conf.queue) {

        if (!e->full) {
            e->full = 1;
            ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                          "ai trace: spans for %V are dropped, its queue is "
                          "full", &e->conf.url);
        }

        goto dropped;
    }

    b = e->current;

    if (b == NULL) {
        b = ngx_http_ai_trace_batch(e);

        if (b == NULL) {
            goto dropped;
        }

        e->current = b;
    }

    return &b->writer;

dropped:

    (void) ngx_atomic_fetch_add(&e->tmcf->sh->dropped, n);

    return NULL;
}


static ngx_http_ai_trace_batch_t *
ngx_http_ai_trace_batch(ngx_http_ai_exporter_t *e)
{
    ngx_pool_t                 *pool;
    ngx_http_ai_trace_batch_t  *b;

    b = e->spare;

    if (b) {
        e->spare = NULL;

        b->out.last = b->out.start;
        b->size = 0;
        b->n = 0;
        b->tries = 0;

    } else {
        pool = ngx_create_pool(512, ngx_cycle->log);
        if (pool == NULL) {
            return NULL;
        }

        b = ngx_pcalloc(pool, sizeof(ngx_http_ai_trace_batch_t));

        if (b == NULL
            || ngx_http_ai_out_init(&b->out, pool,
                                    ngx_max(e->usual, NGX_HTTP_AI_TRACE_SIZE))
               != NGX_OK)
        {
            ngx_destroy_pool(pool);
            return NULL;
        }

        b->pool = pool;
        b->writer.encoding = e->conf.encoding;
        b->writer.out = &b->out;
    }

    b->start = ngx_current_msec;

    ngx_http_ai_trace_resource(&b->writer, &e->conf.service);

    return b;
}


void
ngx_http_ai_exporter_add(ngx_http_ai_exporter_t *e, ngx_uint_t n)
{
    size_t                      size;
    ngx_http_ai_trace_batch_t  *b;

    b = e->current;

    if (b->out.failed) {
        /* what it holds ends in the middle */
        (void) ngx_atomic_fetch_add(&e->tmcf->sh->dropped, b->n + n);

        e->used -= b->size;
        e->current = NULL;
        ngx_destroy_pool(b->pool);

        return;
    }

    b->n += n;

    size = b->out.last - b->out.start;
    e->used += size - b->size;
    b->size = size;

    /* while a post is under way, the next batch may as well grow */

    if ((b->n >= e->conf.batch && !e->busy)
        || size >= NGX_HTTP_AI_TRACE_FULL || ngx_exiting)
    {
        ngx_http_ai_exporter_close(e);
        ngx_http_ai_exporter_send(e);
    }

    ngx_http_ai_exporter_arm(e);
}


static void
ngx_http_ai_exporter_close(ngx_http_ai_exporter_t *e)
{
    if (e->current) {
        e->usual = e->current->out.end - e->current->out.start;

        ngx_queue_insert_tail(&e->batches, &e->current->queue);
        e->current = NULL;
    }
}


/*
 * The timer is not cancelable but while a failed batch waits: a worker that
 * ends waits for what is gathered to be sent, which is done at the next tick
 * and takes "timeout" at most, as nothing is tried again then.
 */

static void
ngx_http_ai_exporter_arm(ngx_http_ai_exporter_t *e)
{
    if (!e->event.timer_set && (e->current || e->busy)) {
        ngx_add_timer(&e->event,
                      ngx_min(e->conf.flush, NGX_HTTP_AI_TRACE_TICK));
    }
}


static void
ngx_http_ai_exporter_timer(ngx_event_t *ev)
{
    ngx_http_ai_exporter_t  *e;

    e = ev->data;

    if (e->waiting) {
        e->waiting = 0;
        e->busy = 0;
        e->event.cancelable = 0;
    }

    if (ngx_exiting
        || (e->current
            && ngx_current_msec - e->current->start >= e->conf.flush))
    {
        ngx_http_ai_exporter_close(e);
    }

    ngx_http_ai_exporter_send(e);
    ngx_http_ai_exporter_arm(e);
}


static void
ngx_http_ai_exporter_send(ngx_http_ai_exporter_t *e)
{
    ngx_http_ai_fetch_t         f;
    ngx_http_ai_trace_batch_t  *b;

    while (!e->busy && !ngx_queue_empty(&e->batches)) {

        b = ngx_queue_data(ngx_queue_head(&e->batches),
                           ngx_http_ai_trace_batch_t, queue);

        if (b->tries == 0) {
            b->writer.encoding->close(&b->writer);
        }

        if (b->out.failed) {
            ngx_http_ai_exporter_done(e, &e->tmcf->sh->dropped);
            continue;
        }

        ngx_memzero(&f, sizeof(ngx_http_ai_fetch_t));

        ngx_str_set(&f.method, "POST");
        f.headers = e->conf.headers;
        f.body.data = b->out.start;
        f.body.len = b->out.last - b->out.start;
        f.keep = 1;
        f.quiet = 1;
        f.handler = ngx_http_ai_exporter_answer;
        f.data = e;

        e->busy = 1;
        b->tries++;

        if (e->tmcf->api->fetch(e->fetcher, NULL, &f) != NGX_OK) {
            ngx_http_ai_exporter_failed(e, 0, "it could not be started", 0);
        }
    }
}


static void
ngx_http_ai_exporter_answer(ngx_http_ai_fetch_t *f)
{
    ngx_http_ai_exporter_t  *e;

    e = f->data;

    if (f->status < 200 || f->status > 299) {
        ngx_http_ai_exporter_failed(e, f->status, f->error, f->retry_after);
        return;
    }

    if (e->down) {
        e->down = 0;
        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                      "ai trace: %V takes spans again", &e->conf.url);
    }

    ngx_http_ai_exporter_done(e, &e->tmcf->sh->sent);

    if (e->current && e->current->n >= e->conf.batch
        && ngx_queue_empty(&e->batches))
    {
        ngx_http_ai_exporter_close(e);
    }

    ngx_http_ai_exporter_send(e);
    ngx_http_ai_exporter_arm(e);
}


/* OTLP: of these only is a request to be sent again */

static void
ngx_http_ai_exporter_failed(ngx_http_ai_exporter_t *e, ngx_uint_t status,
    const char *error, time_t wait)
{
    ngx_msec_t                  ms;
    ngx_uint_t                  again;
    ngx_http_ai_trace_batch_t  *b;

    b = ngx_queue_data(ngx_queue_head(&e->batches), ngx_http_ai_trace_batch_t,
                       queue);

    again = (status == 0 || status == 429
             || (status >= 502 && status <= 504))
            && b->tries < NGX_HTTP_AI_TRACE_TRIES
            && !ngx_exiting && !ngx_terminate;

    if (!e->down) {
        e->down = 1;
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "ai trace: spans could not be posted to %V: "
                      "status %ui%s%s", &e->conf.url, status,
                      error ? ", " : "", error ? error : "");
    }

    if (!again) {
        ngx_http_ai_exporter_done(e, &e->tmcf->sh->failed);
        ngx_http_ai_exporter_arm(e);
        return;
    }

    ms = (ngx_msec_t) NGX_HTTP_AI_TRACE_WAIT << (b->tries - 1);

    if (wait > 0) {
        ms = ngx_max(ms, (ngx_msec_t) ngx_min(wait, 3600) * 1000);
    }

    ms = ngx_min(ms, NGX_HTTP_AI_TRACE_LONGEST);

    /* half of it at random: workers do not come back together */
    ms = ms / 2 + ngx_random() % (ms / 2 + 1);

    e->waiting = 1;
    e->event.cancelable = 1;
    ngx_add_timer(&e->event, ms);
}


static void
ngx_http_ai_exporter_done(ngx_http_ai_exporter_t *e, ngx_atomic_t *counter)
{
    ngx_http_ai_trace_batch_t  *b;

    b = ngx_queue_data(ngx_queue_head(&e->batches), ngx_http_ai_trace_batch_t,
                       queue);

    (void) ngx_atomic_fetch_add(counter, b->n);

    ngx_queue_remove(&b->queue);
    e->used -= b->size;
    e->busy = 0;
    e->full = 0;

    if (e->spare == NULL && !b->out.failed
        && b->out.end - b->out.start <= NGX_HTTP_AI_TRACE_SPARE)
    {
        e->spare = b;
        return;
    }

    ngx_destroy_pool(b->pool);
}
