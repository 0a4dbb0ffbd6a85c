
/*
 * Copyright (C) nginx AI gateway authors
 */


/* counters by series, and their text */


#include "test.h"
#include "ngx_http_ai_metrics_store.h"
#include "ngx_http_ai_metrics_text.h"


static ngx_http_ai_metrics_store_t *make(size_t size, ngx_uint_t nshards);
static ngx_http_ai_series_t *series(ngx_http_ai_metrics_store_t *st,
    const char *a, const char *b, const char *c);
static void test_store(void);
static void test_full(void);
static void test_callers(void);
static void test_processes(void);
static void test_exemplars(void);
static void test_accept(void);
static void test_text(ngx_pool_t *pool);
static ngx_uint_t nobody(ngx_pid_t pid);
static ngx_uint_t everybody(ngx_pid_t pid);


static void  *block;


static ngx_http_ai_metrics_store_t *
make(size_t size, ngx_uint_t nshards)
{
    free(block);

    block = aligned_alloc(64, size);
    memset(block, 0, size);

    return ngx_http_ai_metrics_store_init(block, size, nshards);
}


static ngx_http_ai_series_t *
series(ngx_http_ai_metrics_store_t *st, const char *a, const char *b,
    const char *c)
{
    ngx_str_t   names[3];
    ngx_uint_t  full;

    names[0].data = (u_char *) a;
    names[0].len = strlen(a);
    names[1].data = (u_char *) b;
    names[1].len = strlen(b);
    names[2].data = (u_char *) c;
    names[2].len = strlen(c);

    return ngx_http_ai_metrics_make(st, NGX_HTTP_AI_METRICS_REQUEST, names,
                                    &full);
}


int
main(void)
{
    ngx_pool_t  *pool;

    pool = ngx_create_pool(4096, NULL);

    test_store();
    test_full();
    test_callers();
    test_processes();
    test_exemplars();
    test_accept();
    test_text(pool);

    ngx_destroy_pool(pool);
    free(block);

    return done_testing();
}


static void
test_store(void)
{
    uint64_t                     *h;
    ngx_uint_t                    i, n;
    ngx_http_ai_cells_t           cells;
    ngx_http_ai_series_t         *a, *b, *s;
    ngx_http_ai_metrics_store_t  *st;

    ok(make(512, 1) == NULL, "too small a block");

    st = make(1024 * 1024, 3);
    ok(st != NULL, "a store");

    a = series(st, "m", "p", "chat");
    b = series(st, "mp", "", "chat");

    ok(a != b, "names do not run together");
    ok(series(st, "m", "p", "chat") == a, "found again");
    ok(series(st, "\xff", "p", "chat") == series(st, "other", "p", "chat"),
       "invalid UTF-8 is \"other\"");
    ok(series(st, "\xed\xa0\x80", "p", "chat")
       == series(st, "other", "p", "chat")
       && series(st, "\xf8\x90\x80\x80", "p", "chat")
          == series(st, "other", "p", "chat"), "... also of other kinds");
    ok(series(st, "a\nb", "p", "chat") == series(st, "other", "p", "chat"),
       "a control character is \"other\"");
    ok(series(st, "\xc3\xa4\"\\", "p", "chat")
       != series(st, "other", "p", "chat"), "UTF-8 is good");

    for (i = 0; i < 30; i++) {
        ngx_http_ai_cell_add(&ngx_http_ai_metrics_cells(st, a, i % 3)
                             ->request.outcomes[0], i, i % 3 != 0);
    }

    ngx_http_ai_metrics_sum(st, a, &cells);
    ok(cells.request.outcomes[0] == 435, "sum of all shards");

    ngx_http_ai_metrics_sum(st, b, &cells);
    ok(cells.request.outcomes[0] == 0, "... another series has none");

    ok(((uintptr_t) ngx_http_ai_metrics_cells(st, a, 1) & 63) == 0
       && (u_char *) ngx_http_ai_metrics_cells(st, a, 1)
          >= (u_char *) ngx_http_ai_metrics_cells(st, a, 0)
             + sizeof(ngx_http_ai_request_cells_t),
       "shards are on lines of their own");

    for (i = 0, n = 0, s = ngx_http_ai_metrics_first(st,
                                               NGX_HTTP_AI_METRICS_REQUEST);
         s;
         s = s->next)
    {
        n++;
        i += (s == a || s == b);
    }

    ok(n == 5 && i == 2, "all are listed once: %u", (unsigned) n);

    h = cells.request.duration;

    ok(ngx_http_ai_metrics_observe(h, &ngx_http_ai_bounds_duration, 10000, 0)
       == 0, "the first bucket");
    ok(ngx_http_ai_metrics_observe(h, &ngx_http_ai_bounds_duration, 10001, 1)
       == 1, "the second one");
    ok(ngx_http_ai_metrics_observe(h, &ngx_http_ai_bounds_duration, 81920001,
                                   0)
       == 14, "the last one");
    ok(cells.request.duration[0] == 1 && cells.request.duration[1] == 1
       && cells.request.duration[14] == 1
       && cells.request.duration[15] == 10000 + 10001 + 81920001,
       "... and their sum");
}


static void
test_full(void)
{
    char                          name[16];
    ngx_str_t                     names[3];
    ngx_uint_t                    i, full, n;
    ngx_http_ai_series_t         *s, *first;
    ngx_http_ai_metrics_stats_t   stats;
    ngx_http_ai_metrics_store_t  *st;

    st = make(64 * 1024, 2);
    first = ngx_http_ai_metrics_first(st, NGX_HTTP_AI_METRICS_REQUEST);
    n = 0;

    ngx_str_set(&names[1], "p");
    ngx_str_set(&names[2], "chat");
    names[0].data = (u_char *) name;

    for (i = 0; i < 1000; i++) {
        names[0].len = sprintf(name, "m%u", (unsigned) i);
        s = ngx_http_ai_metrics_make(st, NGX_HTTP_AI_METRICS_REQUEST, names,
                                     &full);

        if (full) {
            n++;

            if (s != first) {
                break;
            }
        }
    }

    ngx_http_ai_metrics_stats(st, &stats);

    ok(i == 1000 && n > 900, "without room: \"other\", %u times",
       (unsigned) n);
    ok(stats.overflows == n, "... is counted");
    ok(stats.used <= stats.size && stats.used > 50 * 1024, "... of memory");

    /* running requests of so many models are counted apart */

    st = make(1024 * 1024, 1);

    for (i = 0, n = 0; i < 300; i++) {
        names[0].len = sprintf(name, "m%u", (unsigned) i);
        s = ngx_http_ai_metrics_make(st, NGX_HTTP_AI_METRICS_MODEL, names,
                                     &full);
        n += full;

        if (s->index >= NGX_HTTP_AI_METRICS_MODELS) {
            break;
        }
    }

    ok(i == 300 && n == 300 - (NGX_HTTP_AI_METRICS_MODELS - 1),
       "a place for each of 255 models");
}


static void
test_callers(void)
{
    char                          text[32];
    ngx_str_t                     name;
    u_char                        buf[NGX_HTTP_AI_METRICS_CALLER];
    uint64_t                      sum, other, before;
    ngx_uint_t                    i, k, n, dup;
    ngx_http_ai_metrics_hint_t    hints[NGX_HTTP_AI_METRICS_HINTS];
    ngx_http_ai_caller_cells_t    cells;
    ngx_http_ai_metrics_stats_t   stats;
    ngx_http_ai_metrics_store_t  *st;
    static char                   seen[128][32];

    st = make(1024 * 1024, 1);
    memset(hints, 0, sizeof(hints));

    ok(ngx_http_ai_metrics_store_caps(st, 10, 0) == NGX_OK, "caps");
    ok(ngx_http_ai_metrics_callers(st, NGX_HTTP_AI_METRICS_TENANT) == 1
       && ngx_http_ai_metrics_callers(st, NGX_HTTP_AI_METRICS_KEY) == 0,
       "only \"other\"");

    name.data = (u_char *) text;

    /* t0 is used all the time, the others once in a while */

    for (i = 0; i < 5000; i++) {
        name.len = sprintf(text, "t%u", (unsigned) (i % 2 ? i % 50 : 0));

        ngx_http_ai_metrics_caller(st, NGX_HTTP_AI_METRICS_TENANT, &name,
                                   hints)->outcomes[0]++;
    }

#define walk()                                                                \
    sum = 0;                                                                  \
    other = 0;                                                                \
    dup = 0;                                                                  \
    n = ngx_http_ai_metrics_callers(st, NGX_HTTP_AI_METRICS_TENANT);          \
                                                                              \
    for (i = 0; i < n; i++) {                                                 \
        name.data = buf;                                                      \
        ngx_http_ai_metrics_caller_get(st, NGX_HTTP_AI_METRICS_TENANT, i,     \
                                       &name, &cells);                        \
        sum += cells.outcomes[0];                                             \
        memcpy(seen[i], buf, name.len);                                       \
        seen[i][name.len] = '\0';                                             \
                                                                              \
        if (i == 0) {                                                         \
            other = cells.outcomes[0];                                        \
        }                                                                     \
                                                                              \
        for (k = 0; k < i; k++) {                                             \
            dup += (strcmp(seen[k], seen[i]) == 0);                           \
        }                                                                     \
    }                                                                         \
                                                                              \
    name.data = (u_char *) text

    walk();

    ok(n == 11, "no more than the cap and \"other\": %u", (unsigned) n);
    ok(sum == 5000, "nothing is lost: %u", (unsigned) sum);
    ok(dup == 0, "no name twice");
    ok(strcmp(seen[0], "other") == 0 && other > 1000, "\"other\" is first");

    name.len = sprintf(text, "t0");
    ok(ngx_http_ai_metrics_caller(st, NGX_HTTP_AI_METRICS_TENANT, &name,
                                  hints)->outcomes[0] >= 2500,
       "one that is used stays");

    ngx_http_ai_metrics_stats(st, &stats);
    ok(stats.evictions[0] > 100, "evictions are counted");

    name.len = sprintf(text, "bad\xff");
    ngx_http_ai_metrics_caller(st, NGX_HTTP_AI_METRICS_TENANT, &name,
                               hints)->outcomes[0]++;
    name.len = sprintf(text, "other");
    ngx_http_ai_metrics_caller(st, NGX_HTTP_AI_METRICS_TENANT, &name,
                               hints)->outcomes[0]++;
    before = other;
    walk();
    ok(n == 11 && other == before + 2, "what cannot be a label is \"other\"");

    ok(ngx_http_ai_metrics_store_caps(st, 3, 0) == NGX_OK, "a smaller cap");
    walk();
    ok(n == 4 && sum == 5002 && dup == 0, "... nothing is lost: %u, %u",
       (unsigned) n, (unsigned) sum);

    ok(ngx_http_ai_metrics_store_caps(st, 100, 5) == NGX_OK, "larger caps");

    for (i = 0; i < 60; i++) {
        name.len = sprintf(text, "n%u", (unsigned) i);
        ngx_http_ai_metrics_caller(st, NGX_HTTP_AI_METRICS_TENANT, &name,
                                   hints)->outcomes[0]++;
    }

    walk();
    ok(n == 64 && sum == 5062 && dup == 0, "... are used: %u", (unsigned) n);
}


static ngx_uint_t
nobody(ngx_pid_t pid)
{
    return 0;
}


static ngx_uint_t
everybody(ngx_pid_t pid)
{
    return 1;
}


static void
test_processes(void)
{
    ngx_str_t                       name;
    ngx_uint_t                      full;
    ngx_http_ai_cells_t             cells;
    ngx_http_ai_series_t           *s;
    ngx_http_ai_metrics_store_t    *st;
    ngx_http_ai_metrics_process_t  *a, *b;

    st = make(1024 * 1024, 1);

    ngx_str_set(&name, "m");
    s = ngx_http_ai_metrics_make(st, NGX_HTTP_AI_METRICS_MODEL, &name, &full);

    ok(ngx_http_ai_metrics_generation(st, 1) == 1, "a generation");

    a = ngx_http_ai_metrics_enroll(st, 100, everybody);
    b = ngx_http_ai_metrics_enroll(st, 101, everybody);
    ok(a && b && a != b, "two processes");

    a->running[s->index] += 2;
    b->running[s->index]++;
    b->streams[s->index]++;

    ngx_http_ai_metrics_sum(st, s, &cells);
    ok(cells.model.running == 3 && cells.model.streams == 1, "both counted");

    ngx_http_ai_metrics_generation(st, 1);
    b = ngx_http_ai_metrics_enroll(st, 102, nobody);
    ngx_http_ai_metrics_sum(st, s, &cells);
    ok(b && b->generation == 2 && cells.model.running < 3,
       "the place of a dead one, empty");

    st = make(1024 * 1024, 3);

    ok(ngx_http_ai_metrics_claim(st, 100, everybody) == 1
       && ngx_http_ai_metrics_claim(st, 101, everybody) == 2,
       "a shard for each of two");
    ok(ngx_http_ai_metrics_claim(st, 102, everybody) == 0,
       "none for a third one");
    ok(ngx_http_ai_metrics_claim(st, 101, everybody) == 2, "the same again");

    ngx_http_ai_metrics_release(st, 2);
    ok(ngx_http_ai_metrics_claim(st, 102, everybody) == 2,
       "that of one that has ended");
    ok(ngx_http_ai_metrics_claim(st, 103, nobody) == 1, "... or is dead");
}


static void
test_exemplars(void)
{
    ngx_http_ai_exemplar_t  e, copy;

    memset(&e, 0, sizeof(e));
    ok(ngx_http_ai_exemplar_get(&e, &copy) == NGX_DECLINED, "no exemplar");

    ngx_http_ai_exemplar_set(&e, (u_char *) "0af7651916cd43dd8448eb211c80319c",
                             1234, 1700000000123);
    ok(ngx_http_ai_exemplar_get(&e, &copy) == NGX_OK && copy.value == 1234,
       "an exemplar");

    e.trace_id[31] = 'd';
    ok(ngx_http_ai_exemplar_get(&e, &copy) == NGX_DECLINED,
       "half of another one");
}


static void
test_accept(void)
{
    ngx_str_t   accept;
    ngx_uint_t  i;

    static struct {
        const char  *text;
        ngx_uint_t   open;
    } cases[] = {
        { "", 0 },
        { "*/*", 0 },
        { "text/plain", 0 },
        { "application/openmetrics-text", 1 },
        { "Application/OpenMetrics-Text; version=1.0.0; charset=utf-8", 1 },
        { "application/openmetrics-text;version=1.0.0,"
          "application/openmetrics-text;version=0.0.1;q=0.75,"
          "text/plain;version=0.0.4;q=0.5,*/*;q=0.1", 1 },
        { "application/vnd.google.protobuf;proto=io.prometheus.client."
          "MetricFamily;encoding=delimited;q=0.5,application/"
          "openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.4,"
          "text/plain;version=1.0.0;q=0.3,*/*;q=0.2", 1 },
        { "text/plain;q=0.9,application/openmetrics-text;q=0.5", 0 },
        { "application/openmetrics-text;q=0", 0 },
        { "application/openmetrics-text;version=2.0.0", 0 },
        { "application/openmetrics-text;version=\"1.0.0\"", 1 },
        { "application/openmetrics-text;q=", 0 },
        { ";;;,,,=;q=1;version", 0 },
        { "application/openmetrics-text;;q", 1 }
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        accept.data = (u_char *) cases[i].text;
        accept.len = strlen(cases[i].text);

        ok(ngx_http_ai_text_accept(&accept) == cases[i].open,
           "accept \"%s\"", cases[i].text);
    }
}


static void
test_text(ngx_pool_t *pool)
{
    uint64_t                 sizes[NGX_HTTP_AI_BOUNDS_OVERHEAD + 2];
    ngx_str_t                labels, value, none;
    ngx_uint_t               i;
    ngx_http_ai_out_t        out;
    ngx_http_ai_text_t       t;
    ngx_http_ai_exemplar_t   e[NGX_HTTP_AI_BOUNDS_OVERHEAD + 1];

    static struct {
        int64_t      value;
        ngx_uint_t   scale;
        const char  *text;
    } numbers[] = {
        { 0, 0, "0" }, { 0, 9, "0" }, { 1, 9, "0.000000001" },
        { 11611000, 9, "0.011611" }, { 1500000, 6, "1.5" },
        { 100, 2, "1" }, { -25, 1, "-2.5" }, { 1200, 0, "1200" },
        { INT64_MAX, 0, "9223372036854775807" },
        { INT64_MAX, 9, "9223372036.854775807" }
    };

#define is(expected, name)                                                    \
    ok(t.out.last - t.out.start == (ssize_t) strlen(expected)                 \
       && memcmp(t.out.start, expected, strlen(expected)) == 0,               \
       "%s: %.*s", name, (int) (t.out.last - t.out.start), t.out.start);      \
    t.out.last = t.out.start

    memset(&t, 0, sizeof(t));
    ngx_http_ai_out_init(&t.out, pool, 256);
    ngx_http_ai_out_init(&out, pool, 16);
    ngx_str_null(&none);

    for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        char  line[64];

        t.name = "n";
        t.len = 1;
        t.type = NGX_HTTP_AI_TEXT_GAUGE;
        sprintf(line, "n %s\n", numbers[i].text);

        ngx_http_ai_text_sample(&t, &none, NULL, NULL, numbers[i].value,
                                numbers[i].scale);
        is(line, "number");
    }

    ngx_str_set(&value, "a\"b\\c\nd\xff\xc3\xa4\xe2\x80\xa8");
    ngx_http_ai_text_label(&out, "x", &value);
    ngx_str_set(&value, "");
    ngx_http_ai_text_label(&out, "y", &value);

    labels.data = out.start;
    labels.len = out.last - out.start;

    ngx_http_ai_text_family(&t, NGX_HTTP_AI_TEXT_COUNTER, "c", "is \"c\\\"");
    ngx_str_set(&value, "v");
    ngx_http_ai_text_sample(&t, &labels, "z", &value, 3, 0);
    is("# HELP c_total is \"c\\\\\"\n# TYPE c_total counter\n"
       "c_total{x=\"a\\\"b\\\\c\\nd\xef\xbf\xbd\xc3\xa4\xe2\x80\xa8\",y=\"\","
       "z=\"v\"} 3\n", "counter");

    ngx_http_ai_text_family(&t, NGX_HTTP_AI_TEXT_INFO, "b_info", "b");
    ngx_http_ai_text_sample(&t, &none, NULL, NULL, 1, 0);
    is("# HELP b_info b\n# TYPE b_info gauge\nb_info 1\n", "info");

    t.openmetrics = 1;

    ngx_http_ai_text_family(&t, NGX_HTTP_AI_TEXT_INFO, "b_info", "\"b\"");
    ngx_http_ai_text_sample(&t, &none, NULL, NULL, 1, 0);
    is("# HELP b \\\"b\\\"\n# TYPE b info\nb_info 1\n", "OpenMetrics: info");

    ngx_http_ai_text_family(&t, NGX_HTTP_AI_TEXT_COUNTER, "c", "c");
    ngx_http_ai_text_sample(&t, &none, "z", &value, 3, 0);
    is("# HELP c c\n# TYPE c counter\nc_total{z=\"v\"} 3\n",
       "OpenMetrics: counter");

    memset(sizes, 0, sizeof(sizes));
    memset(e, 0, sizeof(e));
    sizes[0] = 1;
    sizes[10] = 2;
    sizes[11] = 4;
    sizes[12] = 7000001;
    ngx_http_ai_exemplar_set(&e[10], (u_char *)
                             "0af7651916cd43dd8448eb211c80319c", 600000,
                             1700000000120);

    ngx_str_set(&labels, "m=\"x\"");
    ngx_http_ai_text_family(&t, NGX_HTTP_AI_TEXT_HISTOGRAM, "h", "h");
    t.out.last = t.out.start;
    ngx_http_ai_text_histogram(&t, &labels, sizes,
                               &ngx_http_ai_bounds_overhead, 6, e);
    is("h_bucket{m=\"x\",le=\"0.001\"} 1\n"
       "h_bucket{m=\"x\",le=\"0.002\"} 1\n"
       "h_bucket{m=\"x\",le=\"0.004\"} 1\n"
       "h_bucket{m=\"x\",le=\"0.008\"} 1\n"
       "h_bucket{m=\"x\",le=\"0.016\"} 1\n"
       "h_bucket{m=\"x\",le=\"0.032\"} 1\n"
       "h_bucket{m=\"x\",le=\"0.064\"} 1\n"
       "h_bucket{m=\"x\",le=\"0.128\"} 1\n"
       "h_bucket{m=\"x\",le=\"0.256\"} 1\n"
       "h_bucket{m=\"x\",le=\"0.512\"} 1\n"
       "h_bucket{m=\"x\",le=\"1.024\"} 3 # "
       "{trace_id=\"0af7651916cd43dd8448eb211c80319c\"} 0.6 "
       "1700000000.12\n"
       "h_bucket{m=\"x\",le=\"+Inf\"} 7\n"
       "h_sum{m=\"x\"} 7.000001\n"
       "h_count{m=\"x\"} 7\n", "histogram");

    ngx_http_ai_text_end(&t);
    is("# EOF\n", "the end");
}
