
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_metrics_text.h"


static ngx_int_t ngx_http_ai_text_q(ngx_str_t *text);
static void ngx_http_ai_text_bucket(ngx_http_ai_text_t *t, ngx_str_t *labels,
    ngx_uint_t i, const ngx_http_ai_bounds_t *b, ngx_uint_t scale);


ngx_uint_t
ngx_http_ai_text_accept(ngx_str_t *accept)
{
    u_char      *p, *last, *end, *semi;
    ngx_int_t    q, open, text;
    ngx_str_t    item, param, value;
    ngx_uint_t   is_open, is_text;

    open = 0;
    text = 0;

    p = accept->data;
    last = p + accept->len;

#define ngx_http_ai_text_trim(s)                                              \
    while ((s).len && ((s).data[0] == ' ' || (s).data[0] == '"')) {           \
        (s).data++;                                                           \
        (s).len--;                                                            \
    }                                                                         \
                                                                              \
    while ((s).len && ((s).data[(s).len - 1] == ' '                           \
                       || (s).data[(s).len - 1] == '"'))                      \
    {                                                                         \
        (s).len--;                                                            \
    }

#define ngx_http_ai_text_is(s, literal)                                       \
    ((s).len == sizeof(literal) - 1                                           \
     && ngx_strncasecmp((s).data, (u_char *) literal, (s).len) == 0)

    while (p < last) {
        end = ngx_strlchr(p, last, ',');
        end = end ? end : last;

        semi = ngx_strlchr(p, end, ';');
        semi = semi ? semi : end;

        item.data = p;
        item.len = semi - p;
        ngx_http_ai_text_trim(item);

        is_open = ngx_http_ai_text_is(item, "application/openmetrics-text");
        is_text = ngx_http_ai_text_is(item, "text/plain")
                  || ngx_http_ai_text_is(item, "text/*")
                  || ngx_http_ai_text_is(item, "*/*");
        q = 1000;

        while (semi < end) {
            p = semi + 1;
            semi = ngx_strlchr(p, end, ';');
            semi = semi ? semi : end;

            param.data = p;
            param.len = semi - p;

            p = ngx_strlchr(p, semi, '=');
            if (p == NULL) {
                continue;
            }

            value.data = p + 1;
            value.len = semi - value.data;
            param.len = p - param.data;

            ngx_http_ai_text_trim(param);
            ngx_http_ai_text_trim(value);

            if (ngx_http_ai_text_is(param, "q")) {
                q = ngx_http_ai_text_q(&value);

            } else if (is_open && ngx_http_ai_text_is(param, "version")
                       && !ngx_http_ai_text_is(value, "1.0.0")
                       && !ngx_http_ai_text_is(value, "0.0.1"))
            {
                is_open = 0;
            }
        }

        if (is_open) {
            open = ngx_max(open, q);
        }

        if (is_text) {
            text = ngx_max(text, q);
        }

        p = end + 1;
    }

    return open > 0 && open >= text;
}


/* "0.5" in thousandths */

static ngx_int_t
ngx_http_ai_text_q(ngx_str_t *text)
{
    ngx_int_t  q;

    q = ngx_atofp(text->data, ngx_min(text->len, 5), 3);

    return (q == NGX_ERROR) ? 0 : q;
}


void
ngx_http_ai_text_family(ngx_http_ai_text_t *t, ngx_http_ai_text_type_e type,
    const char *name, const char *help)
{
    const char         *p;
    ngx_http_ai_out_t  *out;

    static ngx_str_t    types[] = {
        ngx_string("counter"),
        ngx_string("gauge"),
        ngx_string("info"),
        ngx_string("histogram")
    };

    out = &t->out;

    t->name = name;
    t->len = ngx_strlen(name);
    t->type = type;

    if (type == NGX_HTTP_AI_TEXT_INFO && t->len > sizeof("_info") - 1
        && ngx_strcmp(name + t->len - (sizeof("_info") - 1), "_info") == 0)
    {
        t->len -= sizeof("_info") - 1;
    }

#define ngx_http_ai_text_name(out, t)                                         \
    ngx_http_ai_out_mem(out, (t)->name, (t)->len);                            \
                                                                              \
    if (!(t)->openmetrics) {                                                  \
        if ((t)->type == NGX_HTTP_AI_TEXT_COUNTER) {                          \
            ngx_http_ai_out_lit(out, "_total");                               \
                                                                              \
        } else if ((t)->type == NGX_HTTP_AI_TEXT_INFO) {                      \
            ngx_http_ai_out_lit(out, "_info");                                \
        }                                                                     \
    }

    ngx_http_ai_out_lit(out, "# HELP ");
    ngx_http_ai_text_name(out, t);
    ngx_http_ai_out_lit(out, " ");

    for (p = help; *p; p++) {

        if (*p == '\\' || (*p == '"' && t->openmetrics)) {
            ngx_http_ai_out_lit(out, "\\");
        }

        ngx_http_ai_out_mem(out, p, 1);
    }

    ngx_http_ai_out_lit(out, "\n# TYPE ");
    ngx_http_ai_text_name(out, t);
    ngx_http_ai_out_lit(out, " ");

    if (type == NGX_HTTP_AI_TEXT_INFO && !t->openmetrics) {
        type = NGX_HTTP_AI_TEXT_GAUGE;
    }

    ngx_http_ai_out_str(out, &types[type]);
    ngx_http_ai_out_lit(out, "\n");
}


void
ngx_http_ai_text_label(ngx_http_ai_out_t *labels, const char *name,
    ngx_str_t *value)
{
    u_char      *p, *last, *start;
    size_t       n;
    ngx_uint_t   valid;

    if (labels->last != labels->start) {
        ngx_http_ai_out_lit(labels, ",");
    }

    ngx_http_ai_out_mem(labels, name, ngx_strlen(name));
    ngx_http_ai_out_lit(labels, "=\"");

    p = value->data;
    last = p + value->len;
    start = p;

    while (p < last) {

        if (*p >= 0x80) {
            n = ngx_http_ai_json_utf8(p, last, &valid);

            if (!valid) {
                ngx_http_ai_out_mem(labels, start, p - start);
                ngx_http_ai_out_lit(labels, "\xef\xbf\xbd");
                start = p + n;
            }

            p += n;
            continue;
        }

        if (*p == '\\' || *p == '"' || *p == '\n') {
            ngx_http_ai_out_mem(labels, start, p - start);
            ngx_http_ai_out_lit(labels, "\\");

            start = p;

            if (*p == '\n') {
                ngx_http_ai_out_lit(labels, "n");
                start++;
            }
        }

        p++;
    }

    ngx_http_ai_out_mem(labels, start, p - start);
    ngx_http_ai_out_lit(labels, "\"");
}


void
ngx_http_ai_text_sample(ngx_http_ai_text_t *t, ngx_str_t *labels,
    const char *name, ngx_str_t *text, int64_t value, ngx_uint_t scale)
{
    ngx_http_ai_out_t  *out;

    out = &t->out;

    ngx_http_ai_out_mem(out, t->name, t->len);

    if (t->type == NGX_HTTP_AI_TEXT_COUNTER) {
        ngx_http_ai_out_lit(out, "_total");

    } else if (t->type == NGX_HTTP_AI_TEXT_INFO) {
        ngx_http_ai_out_lit(out, "_info");
    }

    if (labels->len || name) {
        ngx_http_ai_out_lit(out, "{");
        ngx_http_ai_out_str(out, labels);

        if (name) {
            if (labels->len) {
                ngx_http_ai_out_lit(out, ",");
            }

            ngx_http_ai_out_mem(out, name, ngx_strlen(name));
            ngx_http_ai_out_lit(out, "=\"");
            ngx_http_ai_out_str(out, text);
            ngx_http_ai_out_lit(out, "\"");
        }

        ngx_http_ai_out_lit(out, "}");
    }

    ngx_http_ai_out_lit(out, " ");
    ngx_http_ai_text_number(out, value, scale);
    ngx_http_ai_out_lit(out, "\n");
}


void
ngx_http_ai_text_histogram(ngx_http_ai_text_t *t, ngx_str_t *labels,
    const uint64_t *cells, const ngx_http_ai_bounds_t *b, ngx_uint_t scale,
    ngx_http_ai_exemplar_t *exemplars)
{
    uint64_t                 count;
    ngx_uint_t               i;
    ngx_http_ai_out_t       *out;
    ngx_http_ai_exemplar_t   e;

    out = &t->out;
    count = 0;

    for (i = 0; i <= b->n; i++) {
        count += cells[i];

        ngx_http_ai_text_bucket(t, labels, i, b, scale);
        ngx_http_ai_out_int(out, count);

        if (t->openmetrics && exemplars
            && ngx_http_ai_exemplar_get(&exemplars[i], &e) == NGX_OK)
        {
            ngx_http_ai_out_lit(out, " # {trace_id=\"");
            ngx_http_ai_out_mem(out, e.trace_id, sizeof(e.trace_id));
            ngx_http_ai_out_lit(out, "\"} ");
            ngx_http_ai_text_number(out, e.value, scale);
            ngx_http_ai_out_lit(out, " ");
            ngx_http_ai_text_number(out, e.time, 3);
        }

        ngx_http_ai_out_lit(out, "\n");
    }

    ngx_http_ai_out_mem(out, t->name, t->len);
    ngx_http_ai_out_lit(out, "_sum{");
    ngx_http_ai_out_str(out, labels);
    ngx_http_ai_out_lit(out, "} ");
    ngx_http_ai_text_number(out, cells[b->n + 1], scale);

    ngx_http_ai_out_lit(out, "\n");
    ngx_http_ai_out_mem(out, t->name, t->len);
    ngx_http_ai_out_lit(out, "_count{");
    ngx_http_ai_out_str(out, labels);
    ngx_http_ai_out_lit(out, "} ");
    ngx_http_ai_out_int(out, count);
    ngx_http_ai_out_lit(out, "\n");
}


static void
ngx_http_ai_text_bucket(ngx_http_ai_text_t *t, ngx_str_t *labels,
    ngx_uint_t i, const ngx_http_ai_bounds_t *b, ngx_uint_t scale)
{
    u_char             *p;
    size_t              pos;
    ngx_http_ai_out_t  *out;

    out = &t->out;

    ngx_http_ai_out_mem(out, t->name, t->len);
    ngx_http_ai_out_lit(out, "_bucket{");
    ngx_http_ai_out_str(out, labels);

    if (labels->len) {
        ngx_http_ai_out_lit(out, ",");
    }

    ngx_http_ai_out_lit(out, "le=\"");

    if (i == b->n) {
        ngx_http_ai_out_lit(out, "+Inf");

    } else {
        pos = out->last - out->start;
        ngx_http_ai_text_number(out, b->bounds[i], scale);

        /* OpenMetrics' form; the same in both, as it names the series */

        for (p = out->start + pos; p < out->last && *p != '.'; p++) {
            /* void */
        }

        if (p == out->last) {
            ngx_http_ai_out_lit(out, ".0");
        }
    }

    ngx_http_ai_out_lit(out, "\"} ");
}


void
ngx_http_ai_text_end(ngx_http_ai_text_t *t)
{
    if (t->openmetrics) {
        ngx_http_ai_out_lit(&t->out, "# EOF\n");
    }
}


void
ngx_http_ai_text_number(ngx_http_ai_out_t *out, int64_t value,
    ngx_uint_t scale)
{
    u_char      buf[NGX_INT64_LEN + 1], *p;
    uint64_t    n;
    ngx_uint_t  digits;

    n = (value < 0) ? 0 - (uint64_t) value : (uint64_t) value;

    /* from its end, without the zeroes behind the point */

    for ( /* void */ ; scale && n % 10 == 0; scale--) {
        n /= 10;
    }

    p = buf + sizeof(buf);

    for (digits = 0; n || digits <= scale; digits++) {

        if (scale && digits == scale) {
            *--p = '.';
        }

        *--p = (u_char) ('0' + n % 10);
        n /= 10;
    }

    if (value < 0) {
        *--p = '-';
    }

    ngx_http_ai_out_mem(out, p, buf + sizeof(buf) - p);
}
