
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_log_text.h"

#if (defined __x86_64__ && defined __SSE2__)
#include <emmintrin.h>
#endif


#define NGX_HTTP_AI_LOG_ONES  0x0101010101010101ULL
#define NGX_HTTP_AI_LOG_TOPS  0x8080808080808080ULL


static u_char *ngx_http_ai_log_rare(u_char *p, u_char *data, size_t len);
static void ngx_http_ai_log_message(ngx_http_ai_json_t *j, ngx_uint_t n,
    const char *role, ngx_http_ai_log_prompt_pt handler, void *data);
static void ngx_http_ai_log_pieces(ngx_http_ai_json_t *j, ngx_uint_t n,
    ngx_str_t *role, ngx_http_ai_log_prompt_pt handler, void *data);


const u_char  ngx_http_ai_log_digits[] =
    "00010203040506070809101112131415161718192021222324252627282930313233"
    "34353637383940414243444546474849505152535455565758596061626364656667"
    "6869707172737475767778798081828384858687888990919293949596979899";


/* is there a byte in the word that is not copied as it is? */

static ngx_inline ngx_uint_t
ngx_http_ai_log_special(uint64_t w)
{
    uint64_t  quote, slash;

    quote = w ^ (NGX_HTTP_AI_LOG_ONES * '"');
    slash = w ^ (NGX_HTTP_AI_LOG_ONES * '\\');

    /* a borrow comes from a byte that was found */

    return ((w
             | (w - NGX_HTTP_AI_LOG_ONES * 0x20)
             | (quote - NGX_HTTP_AI_LOG_ONES)
             | (slash - NGX_HTTP_AI_LOG_ONES))
            & NGX_HTTP_AI_LOG_TOPS) != 0;
}


#if (defined __x86_64__ && defined __SSE2__)

#define NGX_HTTP_AI_LOG_STEP  16

static ngx_inline ngx_uint_t
ngx_http_ai_log_step(u_char *p, u_char *data)
{
    __m128i  v, ok;

    v = _mm_loadu_si128((__m128i *) data);

    /* as signed numbers, bytes from 0x80 are less than 0x20 too */

    ok = _mm_andnot_si128(
             _mm_or_si128(_mm_cmpeq_epi8(v, _mm_set1_epi8('"')),
                          _mm_cmpeq_epi8(v, _mm_set1_epi8('\\'))),
             _mm_cmpgt_epi8(v, _mm_set1_epi8(0x1f)));

    _mm_storeu_si128((__m128i *) p, v);

    return _mm_movemask_epi8(ok) == 0xffff;
}

#else

#define NGX_HTTP_AI_LOG_STEP  8

static ngx_inline ngx_uint_t
ngx_http_ai_log_step(u_char *p, u_char *data)
{
    uint64_t  w;

    ngx_memcpy(&w, data, 8);
    ngx_memcpy(p, &w, 8);

    return !ngx_http_ai_log_special(w);
}

#endif


u_char *
ngx_http_ai_log_text(u_char *p, u_char *data, size_t len)
{
    size_t    n;
    uint32_t  low, high;
    uint64_t  w, v;

    if (len >= NGX_HTTP_AI_LOG_STEP) {

        for (n = 0; len - n >= NGX_HTTP_AI_LOG_STEP;
             n += NGX_HTTP_AI_LOG_STEP)
        {
            if (!ngx_http_ai_log_step(p + n, data + n)) {
                return ngx_http_ai_log_rare(p + n, data + n, len - n);
            }
        }

        if (n == len) {
            return p + len;
        }

        /* the last ones, of which some were seen */

        n = len - NGX_HTTP_AI_LOG_STEP;

        if (!ngx_http_ai_log_step(p + n, data + n)) {
            return ngx_http_ai_log_rare(p, data, len);
        }

        return p + len;
    }

    /* short texts as one or two words, of pieces that overlap */

    if (len >= 8) {
        ngx_memcpy(&w, data, 8);
        ngx_memcpy(&v, data + len - 8, 8);

        if (ngx_http_ai_log_special(w) || ngx_http_ai_log_special(v)) {
            return ngx_http_ai_log_rare(p, data, len);
        }

        ngx_memcpy(p, &w, 8);
        ngx_memcpy(p + len - 8, &v, 8);

        return p + len;
    }

    if (len >= 4) {
        ngx_memcpy(&low, data, 4);
        ngx_memcpy(&high, data + len - 4, 4);

        if (ngx_http_ai_log_special((uint64_t) high << 32 | low)) {
            return ngx_http_ai_log_rare(p, data, len);
        }

        ngx_memcpy(p, &low, 4);
        ngx_memcpy(p + len - 4, &high, 4);

        return p + len;
    }

    for (n = 0; n < len; n++) {

        if (data[n] < 0x20 || data[n] >= 0x80 || data[n] == '"'
            || data[n] == '\\')
        {
            return ngx_http_ai_log_rare(p + n, data + n, len - n);
        }

        p[n] = data[n];
    }

    return p + len;
}


static u_char *
ngx_http_ai_log_rare(u_char *p, u_char *data, size_t len)
{
    u_char             *s, *last;
    size_t              n;
    const char         *text;
    ngx_http_ai_out_t   out;

    out.start = p;
    out.last = p;
    out.end = p + ngx_http_ai_log_room(len);
    out.pool = NULL;
    out.failed = 0;

    last = data + len;

    for (s = data; s < last; s++) {

        if (*s < 0xc2) {
            continue;
        }

        n = 0;
        text = NULL;

        if (*s == 0xc2 && last - s >= 2 && s[1] == 0x85) {
            text = "\\u0085";
            n = 2;

        } else if (*s == 0xe2 && last - s >= 3 && s[1] == 0x80
                   && (s[2] == 0xa8 || s[2] == 0xa9))
        {
            text = (s[2] == 0xa8) ? "\\u2028" : "\\u2029";
            n = 3;
        }

        if (text == NULL) {
            continue;
        }

        ngx_http_ai_out_escaped(&out, data, s - data);
        ngx_http_ai_out_mem(&out, text, 6);

        data = s + n;
        s = data - 1;
    }

    ngx_http_ai_out_escaped(&out, data, last - data);

    return out.last;
}


u_char *
ngx_http_ai_log_large(u_char *p, uint64_t n)
{
    u_char    *d, buf[NGX_INT64_LEN + 1];
    uint64_t   q;

    d = buf + sizeof(buf);

    while (n >= 100) {
        q = n / 100;
        d -= 2;
        (void) ngx_http_ai_log_pair(d, (ngx_uint_t) (n - q * 100));
        n = q;
    }

    if (n >= 10) {
        d -= 2;
        (void) ngx_http_ai_log_pair(d, (ngx_uint_t) n);

    } else {
        *--d = (u_char) ('0' + n);
    }

    while (d < buf + sizeof(buf)) {
        *p++ = *d++;
    }

    return p;
}


u_char *
ngx_http_ai_log_nano(u_char *p, uint64_t n)
{
    uint32_t  part, low;
    uint64_t  whole;

    whole = n / 1000000000;
    part = (uint32_t) (n - whole * 1000000000);

    p = ngx_http_ai_log_uint(p, whole);

    *p++ = '.';

    low = part % 10000;
    part /= 10000;

    /* five and four digits */

    *p++ = (u_char) ('0' + part / 10000);
    part %= 10000;

    p = ngx_http_ai_log_pair(p, part / 100);
    p = ngx_http_ai_log_pair(p, part % 100);
    p = ngx_http_ai_log_pair(p, low / 100);

    return ngx_http_ai_log_pair(p, low % 100);
}


u_char *
ngx_http_ai_log_milli(u_char *p, uint64_t n)
{
    uint32_t  part;

    part = (uint32_t) (n % 1000);

    p = ngx_http_ai_log_uint(p, n / 1000);

    *p++ = '.';
    *p++ = (u_char) ('0' + part / 100);

    return ngx_http_ai_log_pair(p, part % 100);
}


u_char *
ngx_http_ai_log_time(u_char *p, time_t sec, ngx_uint_t msec)
{
    ngx_tm_t       tm;

    static time_t  cached;
    static u_char  text[NGX_HTTP_AI_LOG_TIME_LEN + 1];

    if (sec != cached || text[0] == '\0') {
        ngx_gmtime(sec, &tm);

        (void) ngx_sprintf(text, "%4d-%02d-%02dT%02d:%02d:%02d.000Z",
                           tm.ngx_tm_year, tm.ngx_tm_mon, tm.ngx_tm_mday,
                           tm.ngx_tm_hour, tm.ngx_tm_min, tm.ngx_tm_sec);
        cached = sec;
    }

    ngx_memcpy(p, text, NGX_HTTP_AI_LOG_TIME_LEN);

    p[20] = (u_char) ('0' + msec / 100 % 10);
    p[21] = (u_char) ('0' + msec / 10 % 10);
    p[22] = (u_char) ('0' + msec % 10);

    return p + NGX_HTTP_AI_LOG_TIME_LEN;
}


size_t
ngx_http_ai_log_cut(u_char *data, size_t len, size_t max, ngx_uint_t raw)
{
    size_t  i, n;

    if (len <= max) {
        return len;
    }

    n = max;

    /* not between the bytes of a character */

    while (n && max - n < 3 && (data[n] & 0xc0) == 0x80) {
        n--;
    }

    if (!raw) {
        return n;
    }

    for (i = 0; i < n; /* void */ ) {

        if (data[i] != '\\') {
            i++;
            continue;
        }

        if (i + ((data[i + 1] == 'u') ? 6 : 2) > n) {
            return i;
        }

        i += (data[i + 1] == 'u') ? 6 : 2;
    }

    return n;
}


void
ngx_http_ai_log_prompt(ngx_http_ai_json_t *j,
    ngx_http_ai_log_prompt_pt handler, void *data)
{
    ngx_uint_t  i, m, n;

    for (i = ngx_http_ai_json_first(j, 0);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, 0, i))
    {
        n = i + 1;

        if (ngx_http_ai_json_key_is(j, i, "system")
            || ngx_http_ai_json_key_is(j, i, "instructions"))
        {
            ngx_http_ai_log_message(j, n, "system", handler, data);
            continue;
        }

        if (!ngx_http_ai_json_key_is(j, i, "messages")
            && !ngx_http_ai_json_key_is(j, i, "prompt")
            && !ngx_http_ai_json_key_is(j, i, "input"))
        {
            continue;
        }

        if (ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_ARRAY) {
            ngx_http_ai_log_message(j, n, "user", handler, data);
            continue;
        }

        for (m = ngx_http_ai_json_first(j, n);
             m != NGX_HTTP_AI_JSON_NONE;
             m = ngx_http_ai_json_next(j, n, m))
        {
            ngx_http_ai_log_message(j, m, "user", handler, data);
        }
    }
}


static void
ngx_http_ai_log_message(ngx_http_ai_json_t *j, ngx_uint_t n, const char *role,
    ngx_http_ai_log_prompt_pt handler, void *data)
{
    ngx_str_t   name;
    ngx_uint_t  m;

    name.data = (u_char *) role;
    name.len = ngx_strlen(role);

    m = ngx_http_ai_json_member(j, n, "role");

    if (ngx_http_ai_json_type(j, m) == NGX_HTTP_AI_JSON_STRING) {
        name = ngx_http_ai_json_raw(j, m);
    }

    ngx_http_ai_log_pieces(j, n, &name, handler, data);
}


static void
ngx_http_ai_log_pieces(ngx_http_ai_json_t *j, ngx_uint_t n, ngx_str_t *role,
    ngx_http_ai_log_prompt_pt handler, void *data)
{
    ngx_str_t   raw;
    ngx_uint_t  i, v, type, json;

    /* the nodes of a value lie one behind another */

    for (i = n; i < j->nodes[n].next; /* void */ ) {

        v = i;
        json = 0;

        if (j->nodes[i].key) {
            v = i + 1;
            type = ngx_http_ai_json_type(j, v);

            if (type == NGX_HTTP_AI_JSON_STRING) {

                if (!ngx_http_ai_json_key_is(j, i, "content")
                    && !ngx_http_ai_json_key_is(j, i, "text")
                    && !ngx_http_ai_json_key_is(j, i, "thinking")
                    && !ngx_http_ai_json_key_is(j, i, "refusal")
                    && !ngx_http_ai_json_key_is(j, i, "arguments")
                    && !ngx_http_ai_json_key_is(j, i, "input")
                    && !ngx_http_ai_json_key_is(j, i, "output"))
                {
                    i = j->nodes[v].next;
                    continue;
                }

            } else if (type == NGX_HTTP_AI_JSON_OBJECT
                       && ngx_http_ai_json_key_is(j, i, "input"))
            {
                /* arguments of Anthropic's tools */
                json = 1;

            } else if (type >= NGX_HTTP_AI_JSON_ARRAY
                       && (ngx_http_ai_json_key_is(j, i, "content")
                           || ngx_http_ai_json_key_is(j, i, "output")
                           || ngx_http_ai_json_key_is(j, i, "tool_calls")
                           || ngx_http_ai_json_key_is(j, i, "function")
                           || ngx_http_ai_json_key_is(j, i, "function_call")
                           || ngx_http_ai_json_key_is(j, i, "custom")))
            {
                /* its members or elements are next */
                i = v + 1;
                continue;

            } else {
                i = j->nodes[v].next;
                continue;
            }

        } else if (j->nodes[i].type != NGX_HTTP_AI_JSON_STRING) {
            i++;
            continue;
        }

        raw = ngx_http_ai_json_raw(j, v);

        handler(data, role, &raw, json);

        role = NULL;
        i = j->nodes[v].next;
    }

    if (role) {
        /* a message without a text is one */

        ngx_str_null(&raw);

        handler(data, role, &raw, 0);
    }
}
