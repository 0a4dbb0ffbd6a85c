
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include "ngx_http_ai_json.h"
#include "ngx_http_ai_sse.h"


static ngx_pool_t  *pool;


/* what was read: "name\0data\0" of each event, and all raw bytes */

typedef struct {
    u_char       events[131072];
    size_t       len;
    u_char       raw[131072];
    size_t       rlen;
    ngx_uint_t   n;
    ngx_uint_t   tail;
    ngx_int_t    rc;
} result_t;


static void
take(result_t *r, ngx_http_ai_sse_event_t *ev)
{
    memcpy(r->raw + r->rlen, ev->raw.data, ev->raw.len);
    r->rlen += ev->raw.len;

    if (!ev->has_data) {
        return;
    }

    r->n++;

    if (ev->name.len) {
        memcpy(r->events + r->len, ev->name.data, ev->name.len);
        r->len += ev->name.len;
    }

    r->events[r->len++] = '\0';

    if (ev->data.len) {
        memcpy(r->events + r->len, ev->data.data, ev->data.len);
        r->len += ev->data.len;
    }

    r->events[r->len++] = '\0';
}


static ngx_int_t
feed(ngx_http_ai_sse_t *sse, result_t *r, u_char *data, size_t len)
{
    u_char                   *p, *pos;
    ngx_int_t                 rc;
    ngx_http_ai_sse_event_t   ev;

    /* bytes are gone after the call: what is kept must be a copy */

    p = test_copy(data, len);
    pos = p;

    while ((rc = ngx_http_ai_sse_read(sse, &pos, p + len, &ev)) == NGX_OK) {
        take(r, &ev);
    }

    if (rc == NGX_AGAIN && pos != p + len) {
        rc = NGX_ABORT;
    }

    memset(p, 'x', len);
    free(p);

    return rc;
}


static ngx_int_t
finish(ngx_http_ai_sse_t *sse, result_t *r)
{
    ngx_int_t                rc;
    ngx_http_ai_sse_event_t  ev;

    rc = ngx_http_ai_sse_finish(sse, &ev);

    if (rc == NGX_OK) {
        r->tail = ev.has_data;

        memcpy(r->raw + r->rlen, ev.raw.data, ev.raw.len);
        r->rlen += ev.raw.len;

        rc = ngx_http_ai_sse_finish(sse, &ev);
    }

    return rc;
}


/* cut: 0 whole, n before the nth byte, -1 byte by byte */

static void
run(result_t *r, u_char *data, size_t len, ssize_t cut)
{
    size_t              i;
    ngx_http_ai_sse_t   sse;

    ngx_memzero(&sse, sizeof(sse));
    sse.pool = pool;

    r->len = 0;
    r->rlen = 0;
    r->n = 0;
    r->tail = 0;
    r->rc = NGX_AGAIN;

    if (cut < 0) {
        for (i = 0; i < len && r->rc == NGX_AGAIN; i++) {
            r->rc = feed(&sse, r, data + i, 1);
        }

    } else {
        if (cut) {
            r->rc = feed(&sse, r, data, cut);
        }

        if (r->rc == NGX_AGAIN) {
            r->rc = feed(&sse, r, data + cut, len - cut);
        }
    }

    if (r->rc == NGX_AGAIN) {
        r->rc = finish(&sse, r);
    }
}


static void
vectors(void)
{
    size_t               len;
    ssize_t              cut, step;
    u_char              *p;
    ngx_str_t            b64, bin, s, name;
    ngx_uint_t           i, k, n, bad, tail, type;
    ngx_http_ai_json_t   j;

    static result_t  want, got;

    p = test_read("sse/vectors.json", &len);

    if (p == NULL) {
        skip("no recordings: set AI_FIXTURES");
        return;
    }

    ngx_memzero(&j, sizeof(j));
    j.pool = pool;

    if (!ok(ngx_http_ai_json_parse(&j, p, len) == NGX_OK, "vectors")) {
        free(p);
        return;
    }

    for (i = ngx_http_ai_json_first(&j, 0);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(&j, 0, i))
    {
        name = ngx_http_ai_json_raw(&j, ngx_http_ai_json_member(&j, i,
                                                                "name"));
        b64 = ngx_http_ai_json_raw(&j, ngx_http_ai_json_member(&j, i,
                                                               "b64"));
        (void) ngx_http_ai_json_unescape_str(pool, &b64, &b64);

        bin.data = malloc(b64.len + 4);

        if (ngx_decode_base64(&bin, &b64) != NGX_OK) {
            ok(0, "base64 of %.*s", (int) name.len, name.data);
            continue;
        }

        want.len = 0;
        want.n = 0;

        n = ngx_http_ai_json_member(&j, i, "events");

        for (k = ngx_http_ai_json_first(&j, n);
             k != NGX_HTTP_AI_JSON_NONE;
             k = ngx_http_ai_json_next(&j, n, k))
        {
            s = ngx_http_ai_json_raw(&j, ngx_http_ai_json_member(&j, k,
                                                                 "event"));

            if (s.len != 7 || memcmp(s.data, "message", 7) != 0) {
                want.len = ngx_http_ai_json_unescape(want.events + want.len,
                                                     &s)
                           - want.events;
            }

            want.events[want.len++] = '\0';

            s = ngx_http_ai_json_raw(&j, ngx_http_ai_json_member(&j, k,
                                                                 "data"));
            want.len = ngx_http_ai_json_unescape(want.events + want.len, &s)
                       - want.events;
            want.events[want.len++] = '\0';
            want.n++;
        }

        type = ngx_http_ai_json_type(&j,
                   ngx_http_ai_json_member(&j, i, "unterminated_tail"));
        tail = (type == NGX_HTTP_AI_JSON_TRUE);

        bad = 0;

        /* a long one is cut here and there only */

        step = (bin.len > 4096) ? (ssize_t) bin.len / 61 : 1;

        for (cut = -1;
             cut <= (ssize_t) bin.len;
             cut = (cut < 0) ? 0 : cut + step)
        {
            run(&got, bin.data, bin.len, cut);

            /* a default name that is written out is a name too */

            if (got.rc != NGX_AGAIN || got.n != want.n
                || got.len != want.len
                || memcmp(got.events, want.events, want.len) != 0
                || got.tail != tail)
            {
                if (bad++ == 0) {
                    diag("cut %d: rc %d, %u events of %u, tail %u of %u",
                         (int) cut, (int) got.rc, (unsigned) got.n,
                         (unsigned) want.n, (unsigned) got.tail,
                         (unsigned) tail);
                }
            }

            if (got.rlen != bin.len
                || memcmp(got.raw, bin.data, bin.len) != 0)
            {
                diag("raw bytes differ");
                bad++;
            }
        }

        ok(bad == 0, "%.*s", (int) name.len, name.data);

        free(bin.data);
    }

    free(p);
}


static void
details(void)
{
    size_t                    i;
    u_char                   *p, *pos, *last;
    ngx_str_t                 s;
    ngx_http_ai_sse_t         sse;
    ngx_http_ai_sse_event_t   ev;

    static u_char  text[] = "data: one\n\n: note\n\nevent: e\ndata: a\n"
                            "data: b\n\ndata: rest";
    static result_t  r;

    ngx_memzero(&sse, sizeof(sse));
    sse.pool = pool;

    pos = text;
    last = text + sizeof(text) - 1;

    ok(ngx_http_ai_sse_read(&sse, &pos, last, &ev) == NGX_OK
       && ev.in_place && ev.raw.data == text && ev.raw.len == 11
       && pos == text + 11 && ev.data.data == text + 6,
       "an event in place");
    is_str(&ev.data, "one", "its data");
    is_int(ev.name.len, 0, "no name");

    ok(ngx_http_ai_sse_read(&sse, &pos, last, &ev) == NGX_OK
       && !ev.has_data && ev.in_place, "a comment");
    is_str(&ev.raw, ": note\n\n", "its bytes");

    ok(ngx_http_ai_sse_read(&sse, &pos, last, &ev) == NGX_OK
       && ev.has_data && ev.in_place, "two lines");
    is_str(&ev.data, "a\nb", "joined");
    is_str(&ev.name, "e", "name");

    ok(ngx_http_ai_sse_read(&sse, &pos, last, &ev) == NGX_AGAIN
       && pos == last, "a part");
    is_int(ngx_http_ai_sse_pending(&sse), 10, "pending");

    p = (u_char *) " of it\r\n\r";
    pos = p;
    ok(ngx_http_ai_sse_read(&sse, &pos, p + 9, &ev) == NGX_OK
       && !ev.in_place && pos == p + 9, "the other part");
    is_str(&ev.data, "rest of it", "data of both");
    is_str(&ev.raw, "data: rest of it\r\n\r", "bytes of both");

    pos = (u_char *) "\n";
    last = pos + 1;
    ok(ngx_http_ai_sse_read(&sse, &pos, last, &ev) == NGX_OK
       && ev.tail && !ev.has_data && ev.raw.len == 1 && pos == last,
       "the rest of a line end is bytes without data");
    ok(ngx_http_ai_sse_read(&sse, &pos, last, &ev) == NGX_AGAIN
       && ngx_http_ai_sse_pending(&sse) == 0, "and nothing else");
    ok(ngx_http_ai_sse_finish(&sse, &ev) == NGX_AGAIN, "end");

    /* limit */

    for (i = 0; i < 2; i++) {
        ngx_memzero(&sse, sizeof(sse));
        sse.pool = pool;
        sse.max = 16;

        p = (u_char *) "data: 12345678\n\ndata: 123456789\n\n";
        pos = p;

        ok(ngx_http_ai_sse_read(&sse, &pos, p + 16, &ev) == NGX_OK,
           "block of the largest size");

        if (i == 0) {
            ok(ngx_http_ai_sse_read(&sse, &pos, p + 33, &ev)
               == NGX_DECLINED, "larger, whole");

        } else {
            ok(ngx_http_ai_sse_read(&sse, &pos, p + 30, &ev) == NGX_AGAIN
               && ngx_http_ai_sse_read(&sse, &pos, p + 33, &ev)
                  == NGX_DECLINED, "larger, in parts");
        }
    }

    ngx_memzero(&sse, sizeof(sse));
    sse.pool = pool;
    sse.max = 16;
    p = (u_char *) "data: 1234567890123456";
    pos = p;
    ok(ngx_http_ai_sse_read(&sse, &pos, p + 22, &ev) == NGX_DECLINED,
       "larger without an end");

    /* a BOM in any number of parts, with any thing after it */

    run(&r, (u_char *) "\xef\xbb\xbf\n\ndata: x\n\n", 14, 0);
    ok(r.n == 1 && r.rlen == 14, "BOM and a blank line");
    run(&r, (u_char *) "\xef\xbb\xbf\n\ndata: x\n\n", 14, -1);
    ok(r.n == 1 && r.rlen == 14, "the same byte by byte");
    run(&r, (u_char *) "\xef\xbb\xbf", 3, -1);
    ok(r.n == 0 && r.rlen == 3 && r.rc == NGX_AGAIN, "BOM alone");
    run(&r, (u_char *) "\xef\xbb\n\ndata: x\n\n", 13, -1);
    ok(r.n == 1 && r.rlen == 13, "part of a BOM");
    run(&r, (u_char *) "\xef\xef\xbb\xbf" "data: x\n\n", 13, -1);
    ok(r.n == 0 && r.rlen == 13, "not at the start");

    /* no memory */

    ngx_memzero(&sse, sizeof(sse));
    sse.pool = pool;
    ngx_str_set(&s, "data: x");
    pos = s.data;
    stub_fail = 1;
    ok(ngx_http_ai_sse_read(&sse, &pos, s.data + s.len, &ev) == NGX_ERROR,
       "no memory to keep");

    ngx_memzero(&sse, sizeof(sse));
    sse.pool = pool;
    ngx_str_set(&s, "data: x\ndata: y\n\n");
    pos = s.data;
    stub_fail = 1;
    ok(ngx_http_ai_sse_read(&sse, &pos, s.data + s.len, &ev) == NGX_ERROR,
       "no memory to join");
    stub_fail = 0;
}


int
main(void)
{
    pool = ngx_create_pool(4096, NULL);

    details();
    vectors();

    ngx_destroy_pool(pool);

    is_int(stub_alive, 0, "nothing is left");

    return done_testing();
}
