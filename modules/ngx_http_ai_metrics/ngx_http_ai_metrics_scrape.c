
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * "ai_metrics": the figures as text.  They are copied, then written, in
 * slices of a millisecond between which the worker does its other work, and
 * are sent when they are whole.
 */


#include "ngx_http_ai_metrics_families.h"


/* microseconds that a slice may take, about */
#define NGX_HTTP_AI_SCRAPE_SLICE   1000

#define NGX_HTTP_AI_SCRAPE_BUFFER  65536


typedef enum {
    NGX_HTTP_AI_SCRAPE_COPY = 0,
    NGX_HTTP_AI_SCRAPE_CALLERS,
    NGX_HTTP_AI_SCRAPE_WRITE,
    NGX_HTTP_AI_SCRAPE_COLLECT,
    NGX_HTTP_AI_SCRAPE_END
} ngx_http_ai_scrape_phase_e;


typedef struct {
    ngx_str_t                      labels;
    ngx_str_t                      otel;      /* labels with other names */
    void                          *cells;
    ngx_http_ai_exemplars_t       *exemplars;
} ngx_http_ai_scrape_item_t;


typedef struct {
    ngx_http_request_t            *request;
    ngx_http_ai_metrics_main_conf_t   *mcf;
    ngx_uint_t                     otel;
    ngx_http_ai_scrape_phase_e     phase;
    ngx_event_t                    event;

    ngx_http_ai_series_t          *series;    /* to be copied */
    ngx_uint_t                     kind;
    ngx_array_t                    items[NGX_HTTP_AI_METRICS_KINDS];
    ngx_uint_t                     item;
    const ngx_http_ai_family_t    *family;
    ngx_uint_t                     named;     /* its header is written */

    ngx_http_ai_text_t             text;
    ngx_chain_t                   *out;
    ngx_chain_t                  **last;
    off_t                          size;
} ngx_http_ai_scrape_t;


static ngx_int_t ngx_http_ai_scrape_header(ngx_http_request_t *r,
    ngx_uint_t openmetrics, off_t size);
static void ngx_http_ai_scrape_event(ngx_event_t *ev);
static void ngx_http_ai_scrape_cleanup(void *data);
static ngx_int_t ngx_http_ai_scrape_slice(ngx_http_ai_scrape_t *s);
static ngx_int_t ngx_http_ai_scrape_step(ngx_http_ai_scrape_t *s);
static ngx_int_t ngx_http_ai_scrape_copy(ngx_http_ai_scrape_t *s);
static ngx_int_t ngx_http_ai_scrape_callers(ngx_http_ai_scrape_t *s);
static ngx_int_t ngx_http_ai_scrape_item(ngx_http_ai_scrape_t *s,
    ngx_http_ai_metrics_kind_e kind, ngx_str_t *names, void *cells,
    ngx_http_ai_exemplars_t *exemplars);
static ngx_int_t ngx_http_ai_scrape_write(ngx_http_ai_scrape_t *s);
static void ngx_http_ai_scrape_collect(ngx_http_ai_scrape_t *s);
static void ngx_http_ai_scrape_family(ngx_http_ai_samples_t *samples,
    ngx_http_ai_samples_e type, const char *name, const char *help);
static void ngx_http_ai_scrape_sample(ngx_http_ai_samples_t *samples,
    ngx_http_ai_label_t *labels, ngx_uint_t nlabels, int64_t value,
    ngx_uint_t scale);
static ngx_int_t ngx_http_ai_scrape_flush(ngx_http_ai_scrape_t *s);
static ngx_int_t ngx_http_ai_scrape_send(ngx_http_ai_scrape_t *s);


ngx_int_t
ngx_http_ai_metrics_handler(ngx_http_request_t *r)
{
    ngx_int_t                        rc;
    ngx_uint_t                       openmetrics;
    ngx_table_elt_t                 *accept;
    ngx_http_cleanup_t              *cln;
    ngx_http_ai_scrape_t            *s;
    ngx_http_ai_metrics_loc_conf_t  *mlcf;

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_HTTP_NOT_ALLOWED;
    }

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    accept = ngx_http_ai_header_in(r, "accept");
    openmetrics = accept && ngx_http_ai_text_accept(&accept->value);

    if (r->method == NGX_HTTP_HEAD) {
        return ngx_http_ai_scrape_header(r, openmetrics, -1);
    }

    s = ngx_pcalloc(r->pool, sizeof(ngx_http_ai_scrape_t));
    if (s == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    mlcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_metrics_module);

    s->request = r;
    s->mcf = ngx_http_get_module_main_conf(r, ngx_http_ai_metrics_module);
    s->otel = mlcf->otel;
    s->text.openmetrics = openmetrics;
    s->family = ngx_http_ai_families;
    s->last = &s->out;
    s->series = ngx_http_ai_metrics_first(s->mcf->store, s->kind);

    s->event.handler = ngx_http_ai_scrape_event;
    s->event.data = s;
    s->event.log = r->connection->log;

    if (ngx_http_ai_out_init(&s->text.out, r->pool, NGX_HTTP_AI_SCRAPE_BUFFER)
        != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_ai_scrape_slice(s);

    if (rc == NGX_OK) {
        return ngx_http_ai_scrape_send(s);
    }

    if (rc != NGX_AGAIN) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    cln = ngx_http_cleanup_add(r, 0);
    if (cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    cln->handler = ngx_http_ai_scrape_cleanup;
    cln->data = s;

    r->main->count++;
    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    ngx_post_event(&s->event, &ngx_posted_next_events);

    return NGX_DONE;
}


static ngx_int_t
ngx_http_ai_scrape_header(ngx_http_request_t *r, ngx_uint_t openmetrics,
    off_t size)
{
    r->headers_out.status = NGX_HTTP_OK;
    r->headers_out.content_length_n = size;

    if (openmetrics) {
        ngx_str_set(&r->headers_out.content_type,
                    "application/openmetrics-text; version=1.0.0; "
                    "charset=utf-8");

    } else {
        ngx_str_set(&r->headers_out.content_type,
                    "text/plain; version=0.0.4; charset=utf-8");
    }

    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;

    return ngx_http_send_header(r);
}


static void
ngx_http_ai_scrape_event(ngx_event_t *ev)
{
    ngx_int_t              rc;
    ngx_connection_t      *c;
    ngx_http_request_t    *r;
    ngx_http_ai_scrape_t  *s;

    s = ev->data;
    r = s->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    rc = ngx_http_ai_scrape_slice(s);

    if (rc == NGX_AGAIN) {
        ngx_post_event(ev, &ngx_posted_next_events);
        return;
    }

    rc = (rc == NGX_OK) ? ngx_http_ai_scrape_send(s)
                        : NGX_HTTP_INTERNAL_SERVER_ERROR;

    ngx_http_finalize_request(r, rc);
    ngx_http_run_posted_requests(c);
}


static void
ngx_http_ai_scrape_cleanup(void *data)
{
    ngx_http_ai_scrape_t *s = data;

    if (s->event.posted) {
        ngx_delete_posted_event(&s->event);
    }
}


/* NGX_OK: all is written; NGX_AGAIN; NGX_ERROR */

static ngx_int_t
ngx_http_ai_scrape_slice(ngx_http_ai_scrape_t *s)
{
    ngx_int_t       rc, passed;
    struct timeval  start, now;

    ngx_gettimeofday(&start);

    do {
        rc = ngx_http_ai_scrape_step(s);

        if (rc != NGX_AGAIN) {
            return rc;
        }

        ngx_gettimeofday(&now);

        passed = (ngx_int_t) (now.tv_sec - start.tv_sec) * 1000000
                 + (ngx_int_t) (now.tv_usec - start.tv_usec);

        /* a clock that was set back is not waited for */

    } while (passed >= 0 && passed < NGX_HTTP_AI_SCRAPE_SLICE);

    return NGX_AGAIN;
}


static ngx_int_t
ngx_http_ai_scrape_step(ngx_http_ai_scrape_t *s)
{
    ngx_int_t  rc;

    rc = NGX_OK;

    switch (s->phase) {

    case NGX_HTTP_AI_SCRAPE_COPY:
        rc = ngx_http_ai_scrape_copy(s);
        break;

    case NGX_HTTP_AI_SCRAPE_CALLERS:
        rc = ngx_http_ai_scrape_callers(s);
        break;

    case NGX_HTTP_AI_SCRAPE_WRITE:
        rc = ngx_http_ai_scrape_write(s);
        break;

    case NGX_HTTP_AI_SCRAPE_COLLECT:
        ngx_http_ai_scrape_collect(s);
        break;

    default: /* NGX_HTTP_AI_SCRAPE_END */
        ngx_http_ai_text_end(&s->text);

        if (s->text.out.failed) {
            return NGX_ERROR;
        }

        return ngx_http_ai_scrape_flush(s);
    }

    if (rc == NGX_OK) {
        s->phase++;
        rc = NGX_AGAIN;
    }

    if (s->text.out.failed) {
        return NGX_ERROR;
    }

    if (rc == NGX_AGAIN
        && s->text.out.last - s->text.out.start
           > NGX_HTTP_AI_SCRAPE_BUFFER * 7 / 8)
    {
        if (ngx_http_ai_scrape_flush(s) != NGX_OK
            || ngx_http_ai_out_init(&s->text.out, s->request->pool,
                                    NGX_HTTP_AI_SCRAPE_BUFFER)
               != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return rc;
}


/* the next series that lasts */

static ngx_int_t
ngx_http_ai_scrape_copy(ngx_http_ai_scrape_t *s)
{
    ngx_uint_t             i;
    ngx_http_ai_cells_t   *cells;
    ngx_http_ai_series_t  *series;

    series = s->series;

    if (series == NULL) {
        s->kind++;

        if (s->kind == NGX_HTTP_AI_METRICS_MODEL) {
            return NGX_OK;
        }

        s->series = ngx_http_ai_metrics_first(s->mcf->store, s->kind);

        return NGX_AGAIN;
    }

    s->series = series->next;

    cells = ngx_palloc(s->request->pool, sizeof(ngx_http_ai_cells_t));
    if (cells == NULL) {
        return NGX_ERROR;
    }

    ngx_http_ai_metrics_sum(s->mcf->store, series, cells);

    /* of that which takes what finds no room, mostly */

    for (i = 0; cells->cell[i] == 0; i++) {
        if (i == ngx_http_ai_metrics_ncells(series->kind) - 1) {
            return NGX_AGAIN;
        }
    }

    return (ngx_http_ai_scrape_item(s, series->kind, series->names, cells,
                                    series->exemplars)
            == NGX_OK)
           ? NGX_AGAIN : NGX_ERROR;
}


static ngx_int_t
ngx_http_ai_scrape_callers(ngx_http_ai_scrape_t *s)
{
    ngx_uint_t                     i, kind;
    ngx_array_t                    callers;
    ngx_http_ai_metrics_caller_t  *c;

    for (kind = NGX_HTTP_AI_METRICS_TENANT;
         kind <= NGX_HTTP_AI_METRICS_KEY;
         kind++)
    {
        if (ngx_http_ai_metrics_callers_copy(s->mcf, kind, s->request->pool,
                                             &callers)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        c = callers.elts;

        for (i = 0; i < callers.nelts; i++) {
            if (ngx_http_ai_scrape_item(s, kind, &c[i].name, &c[i].cells,
                                        NULL)
                != NGX_OK)
            {
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_scrape_item(ngx_http_ai_scrape_t *s,
    ngx_http_ai_metrics_kind_e kind, ngx_str_t *names, void *cells,
    ngx_http_ai_exemplars_t *exemplars)
{
    ngx_pool_t                 *pool;
    ngx_http_ai_out_t           labels;
    ngx_http_ai_scrape_item_t  *item;

    pool = s->request->pool;

    if (s->items[kind].elts == NULL
        && ngx_array_init(&s->items[kind], pool, 16,
                          sizeof(ngx_http_ai_scrape_item_t))
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    item = ngx_array_push(&s->items[kind]);

    if (item == NULL || ngx_http_ai_out_init(&labels, pool, 128) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_ai_family_labels(&labels, kind, names, 0);

    item->cells = cells;
    item->exemplars = exemplars;
    item->labels.data = labels.start;
    item->labels.len = labels.last - labels.start;
    item->otel = item->labels;

    if (s->otel && kind <= NGX_HTTP_AI_METRICS_SIZE && !labels.failed) {

        if (ngx_http_ai_out_init(&labels, pool, 192) != NGX_OK) {
            return NGX_ERROR;
        }

        ngx_http_ai_family_labels(&labels, kind, names, 1);

        item->otel.data = labels.start;
        item->otel.len = labels.last - labels.start;
    }

    return labels.failed ? NGX_ERROR : NGX_OK;
}


/* the next series of the family, or the next family */

static ngx_int_t
ngx_http_ai_scrape_write(ngx_http_ai_scrape_t *s)
{
    ngx_uint_t                   otel;
    ngx_array_t                 *items;
    ngx_http_ai_scrape_item_t   *item;
    const ngx_http_ai_family_t  *f;

    f = s->family;

    if (f->name == NULL) {
        return NGX_OK;
    }

    items = &s->items[f->kind];
    otel = f->flags & NGX_HTTP_AI_FAMILY_OTEL;

    if (s->item == items->nelts || (otel && !s->otel)) {
        s->item = 0;
        s->named = 0;
        s->family++;

        return NGX_AGAIN;
    }

    if (!s->named) {
        s->named = 1;

        if (f->help) {
            ngx_http_ai_text_family(&s->text, f->bounds
                                              ? NGX_HTTP_AI_TEXT_HISTOGRAM
                                              : NGX_HTTP_AI_TEXT_COUNTER,
                                    f->name, f->help);
        }
    }

    item = (ngx_http_ai_scrape_item_t *) items->elts + s->item++;

    ngx_http_ai_family_samples(&s->text, f, otel ? &item->otel : &item->labels,
                               item->cells, item->exemplars);

    return NGX_AGAIN;
}


static void
ngx_http_ai_scrape_collect(ngx_http_ai_scrape_t *s)
{
    ngx_http_ai_samples_t  samples;

    samples.data = s;
    samples.family = ngx_http_ai_scrape_family;
    samples.sample = ngx_http_ai_scrape_sample;

    s->mcf->api->collect(&samples);
}


static void
ngx_http_ai_scrape_family(ngx_http_ai_samples_t *samples,
    ngx_http_ai_samples_e type, const char *name, const char *help)
{
    ngx_http_ai_scrape_t *s = samples->data;

    ngx_http_ai_text_type_e  t;

    switch (type) {

    case NGX_HTTP_AI_SAMPLES_COUNTER:
        t = NGX_HTTP_AI_TEXT_COUNTER;
        break;

    case NGX_HTTP_AI_SAMPLES_INFO:
        t = NGX_HTTP_AI_TEXT_INFO;
        break;

    default: /* NGX_HTTP_AI_SAMPLES_GAUGE */
        t = NGX_HTTP_AI_TEXT_GAUGE;
    }

    ngx_http_ai_text_family(&s->text, t, name, help);
}


static void
ngx_http_ai_scrape_sample(ngx_http_ai_samples_t *samples,
    ngx_http_ai_label_t *labels, ngx_uint_t nlabels, int64_t value,
    ngx_uint_t scale)
{
    ngx_http_ai_scrape_t *s = samples->data;

    ngx_str_t           text;
    ngx_uint_t          i;
    ngx_http_ai_out_t   out;

    if (ngx_http_ai_out_init(&out, s->request->pool, nlabels ? 96 : 0)
        != NGX_OK)
    {
        s->text.out.failed = 1;
        return;
    }

    for (i = 0; i < nlabels; i++) {
        ngx_http_ai_text_label(&out, labels[i].name, &labels[i].value);
    }

    if (out.failed) {
        s->text.out.failed = 1;
        return;
    }

    text.data = out.start;
    text.len = out.last - out.start;

    ngx_http_ai_text_sample(&s->text, &text, NULL, NULL, value, scale);
}


static ngx_int_t
ngx_http_ai_scrape_flush(ngx_http_ai_scrape_t *s)
{
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    if (s->text.out.last == s->text.out.start) {
        return NGX_OK;
    }

    cl = ngx_alloc_chain_link(s->request->pool);
    b = ngx_calloc_buf(s->request->pool);

    if (cl == NULL || b == NULL) {
        return NGX_ERROR;
    }

    b->pos = s->text.out.start;
    b->last = s->text.out.last;
    b->memory = 1;

    cl->buf = b;
    cl->next = NULL;

    *s->last = cl;
    s->last = &cl->next;
    s->size += b->last - b->pos;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_scrape_send(ngx_http_ai_scrape_t *s)
{
    ngx_int_t            rc;
    ngx_chain_t         *cl;
    ngx_http_request_t  *r;

    r = s->request;

    rc = ngx_http_ai_scrape_header(r, s->text.openmetrics, s->size);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    for (cl = s->out; cl->next; cl = cl->next) {
        /* void */
    }

    cl->buf->last_buf = (r == r->main);
    cl->buf->last_in_chain = 1;

    return ngx_http_output_filter(r, s->out);
}
