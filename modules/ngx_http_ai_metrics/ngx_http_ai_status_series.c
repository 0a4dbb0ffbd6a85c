
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * What the metrics have counted, by model, provider and tenant.  There may be
 * many series: they are added up some at a time.
 */


#include "ngx_http_ai_status.h"


/* series that are added up at once, about a millisecond */
#define NGX_HTTP_AI_STATUS_SLICE    500

/* rows that are shown, of which those with most requests */
#define NGX_HTTP_AI_STATUS_MODELS   256
#define NGX_HTTP_AI_STATUS_TENANTS  20

#define NGX_HTTP_AI_STATUS_HASH     256


struct ngx_http_ai_status_row_s {
    ngx_http_ai_status_row_t      *next;
    ngx_str_t                      name;
    uint64_t                       count;     /* requests, or attempts */
    ngx_http_ai_cells_t            cells;
    ngx_http_ai_model_cells_t      running;
};


static ngx_http_ai_status_row_t *ngx_http_ai_status_row(
    ngx_http_ai_status_sums_t *sums, ngx_http_ai_status_rows_t *rows,
    ngx_str_t *name);
static ngx_int_t ngx_http_ai_status_add(ngx_http_ai_status_sums_t *sums,
    ngx_http_ai_series_t *s);
static uint64_t ngx_http_ai_status_total(uint64_t *cells, ngx_uint_t n);
static ngx_http_ai_status_row_t **ngx_http_ai_status_sorted(
    ngx_http_ai_status_sums_t *sums, ngx_http_ai_status_rows_t *rows);
static int ngx_libc_cdecl ngx_http_ai_status_cmp_rows(const void *one,
    const void *two);
static int ngx_libc_cdecl ngx_http_ai_status_cmp_callers(const void *one,
    const void *two);
static ngx_int_t ngx_http_ai_status_tenants(ngx_http_ai_status_sums_t *sums,
    ngx_http_ai_out_t *out);
static void ngx_http_ai_status_model(ngx_http_ai_out_t *out,
    ngx_http_ai_status_row_t *row);
static void ngx_http_ai_status_provider(ngx_http_ai_out_t *out,
    ngx_http_ai_status_row_t *row);
static void ngx_http_ai_status_outcomes(ngx_http_ai_out_t *out,
    uint64_t *outcomes);
static void ngx_http_ai_status_tokens(ngx_http_ai_out_t *out,
    uint64_t *tokens);
static void ngx_http_ai_status_counts(ngx_http_ai_out_t *out,
    const char *name, uint64_t *cells, ngx_uint_t n);
static void ngx_http_ai_status_bounds(ngx_http_ai_out_t *out,
    const char *name, const ngx_http_ai_bounds_t *b);


/* kinds that are added up, in their order; the last of all ends it */

static ngx_http_ai_metrics_kind_e  ngx_http_ai_status_kinds[] = {
    NGX_HTTP_AI_METRICS_REQUEST,
    NGX_HTTP_AI_METRICS_ATTEMPT,
    NGX_HTTP_AI_METRICS_MODEL
};

#define NGX_HTTP_AI_STATUS_KINDS                                              \
    (sizeof(ngx_http_ai_status_kinds) / sizeof(ngx_http_ai_status_kinds[0]))


ngx_int_t
ngx_http_ai_status_sum(ngx_http_ai_status_sums_t *sums)
{
    ngx_uint_t  n;

    n = 0;

    while (sums->kind < NGX_HTTP_AI_STATUS_KINDS) {

        if (!sums->walking) {
            sums->series = ngx_http_ai_metrics_first(sums->mcf->store,
                                      ngx_http_ai_status_kinds[sums->kind]);
            sums->walking = 1;
        }

        for ( /* void */ ; sums->series; sums->series = sums->series->next) {

            if (n++ == NGX_HTTP_AI_STATUS_SLICE) {
                return NGX_AGAIN;
            }

            if (ngx_http_ai_status_add(sums, sums->series) != NGX_OK) {
                return NGX_ERROR;
            }
        }

        sums->kind++;
        sums->walking = 0;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_status_add(ngx_http_ai_status_sums_t *sums,
    ngx_http_ai_series_t *s)
{
    uint64_t                  *sum, *cell;
    ngx_uint_t                 i, n;
    ngx_http_ai_cells_t        cells;
    ngx_http_ai_status_row_t  *row;

    ngx_http_ai_metrics_sum(sums->mcf->store, s, &cells);

    if (s->kind == NGX_HTTP_AI_METRICS_ATTEMPT) {
        row = ngx_http_ai_status_row(sums, &sums->providers, &s->names[1]);

    } else {
        row = ngx_http_ai_status_row(sums, &sums->models, &s->names[0]);
    }

    if (row == NULL) {
        return NGX_ERROR;
    }

    switch (s->kind) {

    case NGX_HTTP_AI_METRICS_MODEL:
        row->running.running += cells.model.running;
        row->running.streams += cells.model.streams;
        return NGX_OK;

    case NGX_HTTP_AI_METRICS_ATTEMPT:
        n = sizeof(ngx_http_ai_attempt_cells_t) / sizeof(uint64_t);
        row->count += ngx_http_ai_status_total(cells.attempt.results,
                                               NGX_HTTP_AI_ERR_MAX + 1);
        break;

    default: /* NGX_HTTP_AI_METRICS_REQUEST */
        n = sizeof(ngx_http_ai_request_cells_t) / sizeof(uint64_t);
        row->count += ngx_http_ai_status_total(cells.request.outcomes,
                                               NGX_HTTP_AI_OUTCOME_MAX);
    }

    cell = (uint64_t *) &cells;
    sum = (uint64_t *) &row->cells;

    for (i = 0; i < n; i++) {
        sum[i] += cell[i];
    }

    return NGX_OK;
}


static ngx_http_ai_status_row_t *
ngx_http_ai_status_row(ngx_http_ai_status_sums_t *sums,
    ngx_http_ai_status_rows_t *rows, ngx_str_t *name)
{
    ngx_http_ai_status_row_t  *row, **head;

    if (rows->hash == NULL) {
        rows->hash = ngx_pcalloc(sums->pool, NGX_HTTP_AI_STATUS_HASH
                                         * sizeof(ngx_http_ai_status_row_t *));
        if (rows->hash == NULL) {
            return NULL;
        }
    }

    head = &rows->hash[ngx_hash_key(name->data, name->len)
                       % NGX_HTTP_AI_STATUS_HASH];

    for (row = *head; row; row = row->next) {
        if (row->name.len == name->len
            && ngx_memcmp(row->name.data, name->data, name->len) == 0)
        {
            return row;
        }
    }

    row = ngx_pcalloc(sums->pool, sizeof(ngx_http_ai_status_row_t));
    if (row == NULL) {
        return NULL;
    }

    row->name = *name;
    row->next = *head;
    *head = row;
    rows->n++;

    return row;
}


static uint64_t
ngx_http_ai_status_total(uint64_t *cells, ngx_uint_t n)
{
    uint64_t  total;

    for (total = 0; n; n--) {
        total += *cells++;
    }

    return total;
}


static ngx_http_ai_status_row_t **
ngx_http_ai_status_sorted(ngx_http_ai_status_sums_t *sums,
    ngx_http_ai_status_rows_t *rows)
{
    ngx_uint_t                  i, n;
    ngx_http_ai_status_row_t   *row, **sorted;

    sorted = ngx_palloc(sums->pool,
                        (rows->n + 1) * sizeof(ngx_http_ai_status_row_t *));
    if (sorted == NULL) {
        return NULL;
    }

    n = 0;

    for (i = 0; rows->hash && i < NGX_HTTP_AI_STATUS_HASH; i++) {
        for (row = rows->hash[i]; row; row = row->next) {
            sorted[n++] = row;
        }
    }

    ngx_qsort(sorted, n, sizeof(ngx_http_ai_status_row_t *),
              ngx_http_ai_status_cmp_rows);

    return sorted;
}


static int ngx_libc_cdecl
ngx_http_ai_status_cmp_rows(const void *one, const void *two)
{
    const ngx_http_ai_status_row_t *a = *(ngx_http_ai_status_row_t **) one;
    const ngx_http_ai_status_row_t *b = *(ngx_http_ai_status_row_t **) two;

    if (a->count != b->count) {
        return (a->count < b->count) ? 1 : -1;
    }

    return (int) ngx_memn2cmp(a->name.data, b->name.data, a->name.len,
                              b->name.len);
}


static int ngx_libc_cdecl
ngx_http_ai_status_cmp_callers(const void *one, const void *two)
{
    const ngx_http_ai_metrics_caller_t *a = one;
    const ngx_http_ai_metrics_caller_t *b = two;

    uint64_t  x, y;

    x = a->cells.tokens[NGX_HTTP_AI_TOKEN_INPUT]
        + a->cells.tokens[NGX_HTTP_AI_TOKEN_OUTPUT];
    y = b->cells.tokens[NGX_HTTP_AI_TOKEN_INPUT]
        + b->cells.tokens[NGX_HTTP_AI_TOKEN_OUTPUT];

    return (x < y) ? 1 : (x > y) ? -1 : 0;
}


ngx_int_t
ngx_http_ai_status_series(ngx_http_ai_status_sums_t *sums,
    ngx_http_ai_out_t *out)
{
    ngx_uint_t                  i, n;
    ngx_http_ai_status_row_t  **rows;

    ngx_http_ai_status_name(out, "buckets");
    ngx_http_ai_out_lit(out, "{");
    ngx_http_ai_status_bounds(out, "ttft", &ngx_http_ai_bounds_first);
    ngx_http_ai_status_bounds(out, "duration", &ngx_http_ai_bounds_duration);
    ngx_http_ai_out_lit(out, "}");

    rows = ngx_http_ai_status_sorted(sums, &sums->models);
    if (rows == NULL) {
        return NGX_ERROR;
    }

    n = ngx_min(sums->models.n, NGX_HTTP_AI_STATUS_MODELS);

    ngx_http_ai_status_name(out, "models");
    ngx_http_ai_out_lit(out, "[");

    for (i = 0; i < n; i++) {
        ngx_http_ai_out_mem(out, ",", i ? 1 : 0);
        ngx_http_ai_status_model(out, rows[i]);
    }

    ngx_http_ai_out_lit(out, "]");

    rows = ngx_http_ai_status_sorted(sums, &sums->providers);
    if (rows == NULL) {
        return NGX_ERROR;
    }

    n = ngx_min(sums->providers.n, NGX_HTTP_AI_STATUS_MODELS);

    ngx_http_ai_status_name(out, "providers");
    ngx_http_ai_out_lit(out, "[");

    for (i = 0; i < n; i++) {
        ngx_http_ai_out_mem(out, ",", i ? 1 : 0);
        ngx_http_ai_status_provider(out, rows[i]);
    }

    ngx_http_ai_out_lit(out, "]");

    return ngx_http_ai_status_tenants(sums, out);
}


static ngx_int_t
ngx_http_ai_status_tenants(ngx_http_ai_status_sums_t *sums,
    ngx_http_ai_out_t *out)
{
    ngx_uint_t                     i, n;
    ngx_array_t                    callers;
    ngx_http_ai_metrics_caller_t  *c;

    ngx_http_ai_status_name(out, "tenants");

    if (sums->mcf->tenants == 0) {
        ngx_http_ai_out_lit(out, "null");
        return NGX_OK;
    }

    if (ngx_http_ai_metrics_callers_copy(sums->mcf,
                                         NGX_HTTP_AI_METRICS_TENANT,
                                         sums->pool, &callers)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    c = callers.elts;

    ngx_qsort(c, callers.nelts, sizeof(ngx_http_ai_metrics_caller_t),
              ngx_http_ai_status_cmp_callers);

    n = ngx_min(callers.nelts, NGX_HTTP_AI_STATUS_TENANTS);

    ngx_http_ai_out_lit(out, "[");

    for (i = 0; i < n; i++) {
        ngx_http_ai_out_mem(out, ",", i ? 1 : 0);
        ngx_http_ai_out_lit(out, "{");
        ngx_http_ai_status_text(out, "name", c[i].name.data, c[i].name.len);
        ngx_http_ai_status_outcomes(out, c[i].cells.outcomes);
        ngx_http_ai_status_tokens(out, c[i].cells.tokens);
        ngx_http_ai_status_name(out, "cost");
        ngx_http_ai_text_number(out, (int64_t) c[i].cells.cost, 9);
        ngx_http_ai_out_lit(out, "}");
    }

    ngx_http_ai_out_lit(out, "]");

    return NGX_OK;
}


static void
ngx_http_ai_status_model(ngx_http_ai_out_t *out,
    ngx_http_ai_status_row_t *row)
{
    ngx_uint_t                    i;
    ngx_http_ai_request_cells_t  *cells;

    cells = &row->cells.request;

    ngx_http_ai_out_lit(out, "{");
    ngx_http_ai_status_text(out, "name", row->name.data, row->name.len);
    ngx_http_ai_status_outcomes(out, cells->outcomes);
    ngx_http_ai_status_int(out, "running", row->running.running);
    ngx_http_ai_status_int(out, "streams", row->running.streams);
    ngx_http_ai_status_int(out, "fallbacks", cells->fallbacks);
    ngx_http_ai_status_tokens(out, cells->tokens);
    ngx_http_ai_status_name(out, "cost");
    ngx_http_ai_text_number(out, (int64_t) cells->cost, 9);
    ngx_http_ai_status_int(out, "unpriced", cells->unpriced);

    ngx_http_ai_status_name(out, "cache");
    ngx_http_ai_out_lit(out, "{");

    for (i = NGX_HTTP_AI_CACHE_MISS; i <= NGX_HTTP_AI_CACHE_COALESCED; i++) {
        ngx_http_ai_status_int(out,
                               (char *) ngx_http_ai_cached_name(i)->data,
                               cells->cached[i]);
    }

    ngx_http_ai_out_lit(out, "}");

    ngx_http_ai_status_counts(out, "ttft", cells->first,
                              NGX_HTTP_AI_BOUNDS_FIRST + 1);
    ngx_http_ai_status_counts(out, "duration", cells->duration,
                              NGX_HTTP_AI_BOUNDS_DURATION + 1);
    ngx_http_ai_out_lit(out, "}");
}


static void
ngx_http_ai_status_provider(ngx_http_ai_out_t *out,
    ngx_http_ai_status_row_t *row)
{
    uint64_t     failed, *results;
    ngx_str_t   *name;
    ngx_uint_t   i;

    results = row->cells.attempt.results;

    failed = row->count - results[NGX_HTTP_AI_ERR_NONE]
             - results[NGX_HTTP_AI_ATTEMPT_CANCELED];

    ngx_http_ai_out_lit(out, "{");
    ngx_http_ai_status_text(out, "name", row->name.data, row->name.len);
    ngx_http_ai_status_int(out, "attempts", row->count);
    ngx_http_ai_status_int(out, "failed", failed);

    ngx_http_ai_status_name(out, "results");
    ngx_http_ai_out_lit(out, "{");

    for (i = 0; i <= NGX_HTTP_AI_ATTEMPT_CANCELED; i++) {
        if (results[i]) {
            name = ngx_http_ai_metrics_result_name(i);
            ngx_http_ai_status_int(out, (char *) name->data, results[i]);
        }
    }

    ngx_http_ai_out_lit(out, "}");

    ngx_http_ai_status_counts(out, "ttft", row->cells.attempt.first,
                              NGX_HTTP_AI_BOUNDS_FIRST + 1);
    ngx_http_ai_status_counts(out, "duration", row->cells.attempt.duration,
                              NGX_HTTP_AI_BOUNDS_DURATION + 1);
    ngx_http_ai_out_lit(out, "}");
}


static void
ngx_http_ai_status_outcomes(ngx_http_ai_out_t *out, uint64_t *outcomes)
{
    ngx_str_t   *name;
    ngx_uint_t   i;

    ngx_http_ai_status_name(out, "outcomes");
    ngx_http_ai_out_lit(out, "{");

    for (i = 0; i < NGX_HTTP_AI_OUTCOME_MAX; i++) {
        name = ngx_http_ai_metrics_outcome_name(i);
        ngx_http_ai_status_int(out, (char *) name->data, outcomes[i]);
    }

    ngx_http_ai_out_lit(out, "}");
}


static void
ngx_http_ai_status_tokens(ngx_http_ai_out_t *out, uint64_t *tokens)
{
    ngx_str_t   *name;
    ngx_uint_t   i;

    ngx_http_ai_status_name(out, "tokens");
    ngx_http_ai_out_lit(out, "{");

    for (i = 0; i < NGX_HTTP_AI_TOKEN_MAX; i++) {
        name = ngx_http_ai_metrics_token_name(i);
        ngx_http_ai_status_int(out, (char *) name->data, tokens[i]);
    }

    ngx_http_ai_out_lit(out, "}");
}


static void
ngx_http_ai_status_counts(ngx_http_ai_out_t *out, const char *name,
    uint64_t *cells, ngx_uint_t n)
{
    ngx_uint_t  i;

    ngx_http_ai_status_name(out, name);
    ngx_http_ai_out_lit(out, "[");

    for (i = 0; i < n; i++) {
        ngx_http_ai_out_mem(out, ",", i ? 1 : 0);
        ngx_http_ai_out_int(out, (int64_t) cells[i]);
    }

    ngx_http_ai_out_lit(out, "]");
}


static void
ngx_http_ai_status_bounds(ngx_http_ai_out_t *out, const char *name,
    const ngx_http_ai_bounds_t *b)
{
    ngx_uint_t  i;

    ngx_http_ai_status_name(out, name);
    ngx_http_ai_out_lit(out, "[");

    for (i = 0; i < b->n; i++) {
        ngx_http_ai_out_mem(out, ",", i ? 1 : 0);
        ngx_http_ai_text_number(out, (int64_t) b->bounds[i], 6);
    }

    ngx_http_ai_out_lit(out, "]");
}
