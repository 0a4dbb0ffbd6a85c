
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The first two bytes say where the others are cut.  Cut or not, the events
 * are the same, and the raw bytes are but for an LF after a lone CR.
 */


#include "test.h"
#include "ngx_http_ai_sse.h"


#define check(x)                                                              \
    do {                                                                      \
        if (!(x)) {                                                           \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x);           \
            abort();                                                          \
        }                                                                     \
    } while (0)


typedef struct {
    u_char   *events;
    size_t    len;
    size_t    raw;
    size_t    tail;
} result_t;


int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);


static void
put(result_t *r, ngx_http_ai_sse_event_t *ev)
{
    r->raw += ev->raw.len;

    check(ev->raw.len > 0);

    if (!ev->has_data) {
        return;
    }

    check(ev->data.len <= ev->raw.len && ev->name.len <= ev->raw.len);

    if (ev->name.len) {
        memcpy(r->events + r->len, ev->name.data, ev->name.len);
        r->len += ev->name.len;
    }

    r->events[r->len++] = CR;

    if (ev->data.len) {
        memcpy(r->events + r->len, ev->data.data, ev->data.len);
        r->len += ev->data.len;
    }

    r->events[r->len++] = CR;
}


static void
run(const uint8_t *data, size_t size, size_t step, result_t *r)
{
    u_char                   *p, *pos;
    size_t                    n;
    ngx_int_t                 rc;
    ngx_pool_t               *pool;
    ngx_http_ai_sse_t         sse;
    ngx_http_ai_sse_event_t   ev;

    pool = ngx_create_pool(4096, NULL);

    ngx_memzero(&sse, sizeof(sse));
    sse.pool = pool;

    r->events = malloc(size * 3 + 16);
    r->len = 0;
    r->raw = 0;

    while (size) {
        n = (step && step < size) ? step : size;
        p = test_copy(data, n);
        pos = p;

        while ((rc = ngx_http_ai_sse_read(&sse, &pos, p + n, &ev))
               == NGX_OK)
        {
            check(pos <= p + n);
            check(!ev.in_place || (ev.raw.data >= p
                                   && ev.raw.data + ev.raw.len == pos));
            put(r, &ev);
        }

        check(rc == NGX_AGAIN && pos == p + n);

        free(p);
        data += n;
        size -= n;
    }

    r->tail = r->len;

    if (ngx_http_ai_sse_finish(&sse, &ev) == NGX_OK) {
        put(r, &ev);
    }

    check(ngx_http_ai_sse_finish(&sse, &ev) == NGX_AGAIN);

    ngx_destroy_pool(pool);
    check(stub_alive == 0);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t    i, steps[4];
    result_t  whole, cut;

    if (size < 2) {
        return 0;
    }

    steps[0] = 1;
    steps[1] = 2 + data[0] % 7;
    steps[2] = 1 + data[1];
    steps[3] = 1 + data[0] + data[1];

    data += 2;
    size -= 2;

    run(data, size, 0, &whole);
    check(whole.raw == size);

    for (i = 0; i < 4; i++) {
        run(data, size, steps[i], &cut);

        check(cut.len == whole.len && cut.tail == whole.tail);
        check(memcmp(cut.events, whole.events, cut.len) == 0);
        check(cut.raw == size);

        free(cut.events);
    }

    free(whole.events);

    return 0;
}
