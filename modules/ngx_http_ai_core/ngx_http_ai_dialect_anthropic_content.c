
/*
 * Copyright (C) nginx AI gateway authors
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_dialect.h"
#include "ngx_http_ai_dialect_anthropic.h"


#define NGX_HTTP_AI_ANTHROPIC_NODES      64
#define NGX_HTTP_AI_ANTHROPIC_MAX_MARKS  4


static ngx_int_t ngx_http_ai_anthropic_out_turn(
    ngx_http_ai_anthropic_write_t *w, ngx_http_ai_turn_t *turn,
    const char *role);
static ngx_int_t ngx_http_ai_anthropic_out_part(
    ngx_http_ai_anthropic_write_t *w, ngx_http_ai_part_t *part,
    ngx_uint_t i, ngx_uint_t call);
static ngx_int_t ngx_http_ai_anthropic_out_image(
    ngx_http_ai_anthropic_write_t *w, ngx_http_ai_part_t *part, ngx_uint_t i);
static ngx_int_t ngx_http_ai_anthropic_out_file(
    ngx_http_ai_anthropic_write_t *w, ngx_http_ai_part_t *part, ngx_uint_t i);
static ngx_int_t ngx_http_ai_anthropic_out_base64(
    ngx_http_ai_anthropic_write_t *w, ngx_http_ai_part_t *part, ngx_uint_t i);
static ngx_int_t ngx_http_ai_anthropic_out_call(
    ngx_http_ai_anthropic_write_t *w, ngx_http_ai_part_t *part,
    ngx_uint_t call);
static ngx_int_t ngx_http_ai_anthropic_out_result(
    ngx_http_ai_anthropic_write_t *w, ngx_http_ai_part_t *part);
static ngx_int_t ngx_http_ai_anthropic_out_id(
    ngx_http_ai_anthropic_write_t *w, ngx_str_t *id);
static void ngx_http_ai_anthropic_out_close(ngx_http_ai_anthropic_write_t *w);
static ngx_int_t ngx_http_ai_anthropic_refuse_part(
    ngx_http_ai_anthropic_write_t *w, ngx_uint_t i, const char *what,
    ngx_str_t *value);
static void ngx_http_ai_anthropic_trim(ngx_str_t *raw);
static ngx_uint_t ngx_http_ai_anthropic_mime(ngx_str_t *mime,
    const char *type);


ngx_int_t
ngx_http_ai_anthropic_out_messages(ngx_http_ai_anthropic_write_t *w)
{
    ngx_int_t            rc;
    ngx_uint_t           i, start, pass;
    const char          *role;
    ngx_http_ai_turn_t  *turn, *group;

    ngx_http_ai_out_lit(w->out, ",\"messages\":[");

    i = 0;

    if (w->first == NULL) {

        /* nothing but instructions, which the API refuses: they are asked */

        for (turn = w->req->turns; turn; turn = turn->next) {
            w->turn = i++;

            rc = ngx_http_ai_anthropic_out_turn(w, turn, "user");
            if (rc != NGX_OK) {
                return rc;
            }
        }
    }

    for (turn = w->req->turns; turn != w->first; turn = turn->next) {
        i++;
    }

    if (w->first == NULL) {
        turn = NULL;
    }

    while (turn) {

        if (turn->role == NGX_HTTP_AI_ROLE_ASSISTANT) {
            w->turn = i++;

            rc = ngx_http_ai_anthropic_out_turn(w, turn, "assistant");
            if (rc != NGX_OK) {
                return rc;
            }

            turn = turn->next;
            continue;
        }

        /* between two turns of the assistant: results of its calls first */

        group = turn;
        start = i;

        for (pass = 0; pass < 2; pass++) {
            i = start;

            for (turn = group;
                 turn && turn->role != NGX_HTTP_AI_ROLE_ASSISTANT;
                 turn = turn->next)
            {
                w->turn = i++;

                if ((turn->role == NGX_HTTP_AI_ROLE_TOOL) == (pass == 1)) {
                    continue;
                }

                role = "user";

                if (turn->role <= NGX_HTTP_AI_ROLE_DEVELOPER) {
                    if (!w->model.fixed) {
                        continue;
                    }

                    role = "system";
                }

                rc = ngx_http_ai_anthropic_out_turn(w, turn, role);
                if (rc != NGX_OK) {
                    return rc;
                }
            }
        }
    }

    if (w->messages == 0) {
        return ngx_http_ai_codec_refuse(w->codec, "messages",
                              "messages: at least one message with content "
                              "is required");
    }

    ngx_http_ai_anthropic_out_close(w);
    ngx_http_ai_out_lit(w->out, "]");

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_out_turn(ngx_http_ai_anthropic_write_t *w,
    ngx_http_ai_turn_t *turn, const char *role)
{
    ngx_int_t            rc;
    ngx_str_t            text;
    ngx_uint_t           i, call;
    ngx_http_ai_part_t  *part;

    i = 0;
    call = 0;

    for (part = turn->parts; part; part = part->next) {

        switch (part->type) {

        case NGX_HTTP_AI_PART_TEXT:
        case NGX_HTTP_AI_PART_REFUSAL:

            if (ngx_http_ai_anthropic_blank(&part->text)) {
                break;
            }

            text = part->text;

            if (part == w->trim) {
                ngx_http_ai_anthropic_trim(&text);
            }

            ngx_http_ai_anthropic_out_open(w, role);
            ngx_http_ai_anthropic_out_text(w, &text, part);

            break;

        case NGX_HTTP_AI_PART_REASONING:

            if (part->signature.len == 0) {
                break;
            }

            ngx_http_ai_anthropic_out_open(w, role);
            ngx_http_ai_out_lit(w->out, "{\"type\":\"thinking\","
                                        "\"thinking\":\"");
            ngx_http_ai_out_str(w->out, &part->text);
            ngx_http_ai_out_lit(w->out, "\",\"signature\":\"");
            ngx_http_ai_out_str(w->out, &part->signature);
            ngx_http_ai_out_lit(w->out, "\"}");

            break;

        case NGX_HTTP_AI_PART_REDACTED:

            if (part->data.len == 0) {
                break;
            }

            ngx_http_ai_anthropic_out_open(w, role);
            ngx_http_ai_out_lit(w->out, "{\"type\":\"redacted_thinking\","
                                        "\"data\":\"");
            ngx_http_ai_out_str(w->out, &part->data);
            ngx_http_ai_out_lit(w->out, "\"}");

            break;

        default:

            ngx_http_ai_anthropic_out_open(w, role);

            rc = ngx_http_ai_anthropic_out_part(w, part, i, call);
            if (rc != NGX_OK) {
                return rc;
            }

            if (part->type == NGX_HTTP_AI_PART_TOOL_CALL) {
                call++;
            }

            break;
        }

        i++;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_out_part(ngx_http_ai_anthropic_write_t *w,
    ngx_http_ai_part_t *part, ngx_uint_t i, ngx_uint_t call)
{
    switch (part->type) {

    case NGX_HTTP_AI_PART_IMAGE:
        return ngx_http_ai_anthropic_out_image(w, part, i);

    case NGX_HTTP_AI_PART_FILE:
        return ngx_http_ai_anthropic_out_file(w, part, i);

    case NGX_HTTP_AI_PART_TOOL_CALL:
        return ngx_http_ai_anthropic_out_call(w, part, call);

    case NGX_HTTP_AI_PART_TOOL_RESULT:
        return ngx_http_ai_anthropic_out_result(w, part);

    case NGX_HTTP_AI_PART_AUDIO:
        return ngx_http_ai_anthropic_refuse_part(w, i,
                "audio is not supported by the provider that serves this "
                "model", NULL);

    default:
        return ngx_http_ai_anthropic_refuse_part(w, i,
                "is not supported by the provider that serves this model",
                NULL);
    }
}


void
ngx_http_ai_anthropic_out_text(ngx_http_ai_anthropic_write_t *w,
    ngx_str_t *text, ngx_http_ai_part_t *part)
{
    ngx_http_ai_out_lit(w->out, "{\"type\":\"text\",\"text\":\"");
    ngx_http_ai_out_str(w->out, text);
    ngx_http_ai_out_lit(w->out, "\"");
    ngx_http_ai_anthropic_out_mark(w, part->cached, &part->cache);
    ngx_http_ai_out_lit(w->out, "}");
}


static ngx_int_t
ngx_http_ai_anthropic_out_image(ngx_http_ai_anthropic_write_t *w,
    ngx_http_ai_part_t *part, ngx_uint_t i)
{
    ngx_uint_t          n;
    ngx_http_ai_out_t  *out;

    static char  *types[] = { "image/jpeg", "image/png", "image/gif",
                              "image/webp", "image/jpg", NULL };

    out = w->out;

    ngx_http_ai_out_lit(out, "{\"type\":\"image\",\"source\":{\"type\":\"");

    if (part->data.len) {

        for (n = 0; types[n]; n++) {
            if (ngx_http_ai_anthropic_mime(&part->mime, types[n])) {
                break;
            }
        }

        if (types[n] == NULL) {
            return ngx_http_ai_anthropic_refuse_part(w, i,
                "images must be jpeg, png, gif or webp for the provider that "
                "serves this model, not", &part->mime);
        }

        if (n == 4) {
            n = 0;
        }

        ngx_http_ai_out_lit(out, "base64\",\"media_type\":\"");
        ngx_http_ai_out_mem(out, types[n], ngx_strlen(types[n]));
        ngx_http_ai_out_lit(out, "\",\"data\":\"");
        ngx_http_ai_out_str(out, &part->data);

    } else if (part->url.len) {
        ngx_http_ai_out_lit(out, "url\",\"url\":\"");
        ngx_http_ai_out_str(out, &part->url);

    } else {
        ngx_http_ai_out_lit(out, "file\",\"file_id\":\"");
        ngx_http_ai_out_str(out, &part->file_id);
    }

    ngx_http_ai_out_lit(out, "\"}");
    ngx_http_ai_anthropic_out_mark(w, part->cached, &part->cache);
    ngx_http_ai_out_lit(out, "}");

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_out_file(ngx_http_ai_anthropic_write_t *w,
    ngx_http_ai_part_t *part, ngx_uint_t i)
{
    ngx_int_t           rc;
    ngx_http_ai_out_t  *out;

    out = w->out;

    if (part->data.len && part->mime.len > 6
        && ngx_strncasecmp(part->mime.data, (u_char *) "image/", 6) == 0)
    {
        return ngx_http_ai_anthropic_out_image(w, part, i);
    }

    ngx_http_ai_out_lit(out, "{\"type\":\"document\",\"source\":{\"type\":\"");

    if (part->text.data) {
        ngx_http_ai_out_lit(out, "text\",\"media_type\":\"text/plain\","
                                 "\"data\":\"");
        ngx_http_ai_out_str(out, &part->text);

    } else if (part->data.len) {

        if (ngx_http_ai_anthropic_mime(&part->mime, "application/pdf")) {
            ngx_http_ai_out_lit(out, "base64\",\"media_type\":"
                                     "\"application/pdf\",\"data\":\"");
            ngx_http_ai_out_str(out, &part->data);

        } else {
            rc = ngx_http_ai_anthropic_out_base64(w, part, i);
            if (rc != NGX_OK) {
                return rc;
            }
        }

    } else if (part->url.len) {
        ngx_http_ai_out_lit(out, "url\",\"url\":\"");
        ngx_http_ai_out_str(out, &part->url);

    } else {
        ngx_http_ai_out_lit(out, "file\",\"file_id\":\"");
        ngx_http_ai_out_str(out, &part->file_id);
    }

    ngx_http_ai_out_lit(out, "\"}");

    if (part->name.len) {
        ngx_http_ai_out_lit(out, ",\"title\":\"");
        ngx_http_ai_out_str(out, &part->name);
        ngx_http_ai_out_lit(out, "\"");
    }

    ngx_http_ai_anthropic_out_mark(w, part->cached, &part->cache);
    ngx_http_ai_out_lit(out, "}");

    return NGX_OK;
}


/* files of text are sent as text */

static ngx_int_t
ngx_http_ai_anthropic_out_base64(ngx_http_ai_anthropic_write_t *w,
    ngx_http_ai_part_t *part, ngx_uint_t i)
{
    ngx_str_t   base64, text;
    ngx_uint_t  n;

    static char  *types[] = { "application/json", "application/xml",
                              "application/yaml", "application/x-yaml",
                              "application/javascript", "application/x-sh",
                              "application/sql", "application/toml", NULL };

    if (part->mime.len <= 5
        || ngx_strncasecmp(part->mime.data, (u_char *) "text/", 5) != 0)
    {
        for (n = 0; types[n]; n++) {
            if (ngx_http_ai_anthropic_mime(&part->mime, types[n])) {
                break;
            }
        }

        if (types[n] == NULL) {
            return ngx_http_ai_anthropic_refuse_part(w, i,
                "files must be PDF or text for the provider that serves this "
                "model, not", &part->mime);
        }
    }

    if (ngx_http_ai_json_unescape_str(w->codec->pool, &part->data, &base64)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    text.data = ngx_pnalloc(w->codec->pool, ngx_base64_decoded_length(
                                                               base64.len));
    if (text.data == NULL) {
        return NGX_ERROR;
    }

    if (ngx_decode_base64(&text, &base64) != NGX_OK) {
        return ngx_http_ai_anthropic_refuse_part(w, i,
                                                 "the data is not base64",
                                                 NULL);
    }

    ngx_http_ai_out_lit(w->out, "text\",\"media_type\":\"text/plain\","
                                "\"data\":\"");
    ngx_http_ai_out_escaped(w->out, text.data, text.len);

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_out_call(ngx_http_ai_anthropic_write_t *w,
    ngx_http_ai_part_t *part, ngx_uint_t call)
{
    u_char               param[sizeof("messages[].tool_calls[].function"
                                      ".arguments") + 2 * NGX_INT_T_LEN];
    ngx_int_t            rc;
    ngx_str_t            text;
    ngx_uint_t           type;
    ngx_http_ai_out_t   *out;

    out = w->out;

    ngx_http_ai_out_lit(out, "{\"type\":\"tool_use\",\"id\":\"");

    rc = ngx_http_ai_anthropic_out_id(w, &part->id);
    if (rc != NGX_OK) {
        return rc;
    }

    ngx_http_ai_out_lit(out, "\",\"name\":\"");
    ngx_http_ai_out_str(out, &part->name);
    ngx_http_ai_out_lit(out, "\",\"input\":");

    if (part->args.len) {
        ngx_http_ai_out_str(out, &part->args);

    } else if (part->custom) {
        ngx_http_ai_out_lit(out, "{\"input\":\"");
        ngx_http_ai_out_str(out, &part->args_text);
        ngx_http_ai_out_lit(out, "\"}");

    } else if (ngx_http_ai_anthropic_blank(&part->args_text)) {
        ngx_http_ai_out_lit(out, "{}");

    } else {
        if (ngx_http_ai_json_unescape_str(w->codec->pool, &part->args_text,
                                          &text)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        rc = ngx_http_ai_anthropic_parse(w, &text);
        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        type = (rc == NGX_OK) ? w->json.nodes[0].type
                              : NGX_HTTP_AI_JSON_STRING;

        if (type == NGX_HTTP_AI_JSON_OBJECT) {
            ngx_http_ai_out_mem(out, w->json.nodes[0].start,
                                w->json.nodes[0].len);

        } else if (type == NGX_HTTP_AI_JSON_NULL) {
            ngx_http_ai_out_lit(out, "{}");

        } else {
            *ngx_sprintf(param, "messages[%ui].tool_calls[%ui].function"
                         ".arguments", w->turn, call) = '\0';

            return ngx_http_ai_codec_refuse(w->codec, (char *) param,
                                   "%s: must be the text of a JSON object",
                                   param);
        }
    }

    ngx_http_ai_anthropic_out_mark(w, part->cached, &part->cache);
    ngx_http_ai_out_lit(out, "}");

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_anthropic_out_result(ngx_http_ai_anthropic_write_t *w,
    ngx_http_ai_part_t *part)
{
    ngx_int_t            rc;
    ngx_uint_t           i, n;
    ngx_http_ai_out_t   *out;
    ngx_http_ai_part_t  *p;

    out = w->out;

    ngx_http_ai_out_lit(out, "{\"type\":\"tool_result\",\"tool_use_id\":\"");

    rc = ngx_http_ai_anthropic_out_id(w, &part->id);
    if (rc != NGX_OK) {
        return rc;
    }

    ngx_http_ai_out_lit(out, "\"");

    p = part->parts;

    if (p && p->next == NULL && p->type == NGX_HTTP_AI_PART_TEXT
        && !p->cached)
    {
        ngx_http_ai_out_lit(out, ",\"content\":\"");
        ngx_http_ai_out_str(out, &p->text);
        ngx_http_ai_out_lit(out, "\"");

    } else {
        i = 0;
        n = 0;

        for ( /* void */ ; p; p = p->next) {

            if (p->type == NGX_HTTP_AI_PART_TEXT
                && ngx_http_ai_anthropic_blank(&p->text))
            {
                i++;
                continue;
            }

            if (n++ == 0) {
                ngx_http_ai_out_lit(out, ",\"content\":[");

            } else {
                ngx_http_ai_out_lit(out, ",");
            }

            if (p->type == NGX_HTTP_AI_PART_TEXT) {
                ngx_http_ai_anthropic_out_text(w, &p->text, p);

            } else if (p->type == NGX_HTTP_AI_PART_IMAGE
                       || p->type == NGX_HTTP_AI_PART_FILE
                       || p->type == NGX_HTTP_AI_PART_AUDIO)
            {
                rc = ngx_http_ai_anthropic_out_part(w, p, i, 0);
                if (rc != NGX_OK) {
                    return rc;
                }

            } else {
                return ngx_http_ai_anthropic_refuse_part(w, i,
                            "results of tools have text and media only", NULL);
            }

            i++;
        }

        if (n) {
            ngx_http_ai_out_lit(out, "]");
        }
    }

    if (part->is_error) {
        ngx_http_ai_out_lit(out, ",\"is_error\":true");
    }

    ngx_http_ai_anthropic_out_mark(w, part->cached, &part->cache);
    ngx_http_ai_out_lit(out, "}");

    return NGX_OK;
}


/* the same each time, so that calls and results still belong together */

static ngx_int_t
ngx_http_ai_anthropic_out_id(ngx_http_ai_anthropic_write_t *w, ngx_str_t *id)
{
    u_char     *p, *last, ch;
    ngx_str_t   plain;

    if (ngx_http_ai_json_unescape_str(w->codec->pool, id, &plain) != NGX_OK) {
        return NGX_ERROR;
    }

    if (plain.len == 0) {
        ngx_http_ai_out_lit(w->out, "_");
        return NGX_OK;
    }

    if ((size_t) (w->out->end - w->out->last) < plain.len
        && ngx_http_ai_out_grow(w->out, plain.len) != NGX_OK)
    {
        return NGX_ERROR;
    }

    last = plain.data + plain.len;

    for (p = plain.data; p < last; p++) {
        ch = *p;

        if (!((ch >= 'a' && ch <= 'z') || (ch >= 'A' && ch <= 'Z')
              || (ch >= '0' && ch <= '9') || ch == '_' || ch == '-'))
        {
            ch = '_';
        }

        *w->out->last++ = ch;
    }

    return NGX_OK;
}


void
ngx_http_ai_anthropic_out_mark(ngx_http_ai_anthropic_write_t *w,
    ngx_uint_t cached, ngx_str_t *cache)
{
    if (!cached || w->marks == NGX_HTTP_AI_ANTHROPIC_MAX_MARKS) {
        return;
    }

    w->marks++;

    ngx_http_ai_out_lit(w->out, ",\"cache_control\":{\"type\":\"ephemeral\"");

    if (ngx_http_ai_str_is(cache, "\"5m\"")
        || ngx_http_ai_str_is(cache, "\"1h\""))
    {
        ngx_http_ai_out_lit(w->out, ",\"ttl\":");
        ngx_http_ai_out_str(w->out, cache);
    }

    ngx_http_ai_out_lit(w->out, "}");
}


/* what is before a block; turns of one role become one message */

void
ngx_http_ai_anthropic_out_open(ngx_http_ai_anthropic_write_t *w,
    const char *role)
{
    if (w->role == role
        || (w->role && ngx_strcmp(w->role, role) == 0))
    {
        if (w->messages) {
            ngx_http_ai_out_lit(w->out, ",");
        }

        w->messages++;
        return;
    }

    if (w->role) {
        ngx_http_ai_anthropic_out_close(w);
        ngx_http_ai_out_lit(w->out, ",");
    }

    w->role = role;
    w->messages++;

    ngx_http_ai_out_lit(w->out, "{\"role\":\"");
    ngx_http_ai_out_mem(w->out, role, ngx_strlen(role));
    ngx_http_ai_out_lit(w->out, "\",\"content\":[");
}


static void
ngx_http_ai_anthropic_out_close(ngx_http_ai_anthropic_write_t *w)
{
    ngx_http_ai_out_lit(w->out, "]}");
}


static ngx_int_t
ngx_http_ai_anthropic_refuse_part(ngx_http_ai_anthropic_write_t *w,
    ngx_uint_t i, const char *what, ngx_str_t *value)
{
    u_char     param[sizeof("messages[].content[]") + 2 * NGX_INT_T_LEN];
    ngx_str_t  s;

    *ngx_sprintf(param, "messages[%ui].content[%ui]", w->turn, i) = '\0';

    if (value == NULL) {
        return ngx_http_ai_codec_refuse(w->codec, (char *) param, "%s: %s",
                                        param, what);
    }

    s = *value;
    s.len = ngx_http_ai_min(s.len, 64);

    return ngx_http_ai_codec_refuse(w->codec, (char *) param,
                                    "%s: %s \"%V\"", param, what, &s);
}


/* nothing but white space; the API refuses such text */

ngx_uint_t
ngx_http_ai_anthropic_blank(ngx_str_t *raw)
{
    u_char  *p, *last;

    if (raw->len == 0) {
        return 1;
    }

    p = raw->data;
    last = p + raw->len;

    while (p < last) {

        if (*p == ' ') {
            p++;
            continue;
        }

        if (*p != '\\' || last - p < 2
            || (p[1] != 'n' && p[1] != 't' && p[1] != 'r'))
        {
            return 0;
        }

        p += 2;
    }

    return 1;
}


static void
ngx_http_ai_anthropic_trim(ngx_str_t *raw)
{
    u_char  *p, *q, *start;

    start = raw->data;
    p = start + raw->len;

    for ( ;; ) {

        if (p > start && p[-1] == ' ') {
            p--;
            continue;
        }

        if (p - start < 2 || p[-2] != '\\'
            || (p[-1] != 'n' && p[-1] != 't' && p[-1] != 'r'))
        {
            break;
        }

        /* of an odd number of backslashes the last one escapes */

        for (q = p - 2; q > start && q[-1] == '\\'; q--) { /* void */ }

        if ((p - 1 - q) % 2 == 0) {
            break;
        }

        p -= 2;
    }

    raw->len = p - start;
}


/* without the parameters of the type */

static ngx_uint_t
ngx_http_ai_anthropic_mime(ngx_str_t *mime, const char *type)
{
    size_t  len;

    len = ngx_strlen(type);

    return mime->len >= len
           && ngx_strncasecmp(mime->data, (u_char *) type, len) == 0
           && (mime->len == len || mime->data[len] == ';'
               || mime->data[len] == ' ');
}


ngx_int_t
ngx_http_ai_anthropic_parse(ngx_http_ai_anthropic_write_t *w, ngx_str_t *text)
{
    if (w->json.nodes == NULL) {
        w->json.nodes = ngx_palloc(w->codec->pool, NGX_HTTP_AI_ANTHROPIC_NODES
                                           * sizeof(ngx_http_ai_json_node_t));
        if (w->json.nodes == NULL) {
            return NGX_ERROR;
        }

        w->json.nalloc = NGX_HTTP_AI_ANTHROPIC_NODES;
    }

    return ngx_http_ai_json_parse(&w->json, text->data, text->len);
}
