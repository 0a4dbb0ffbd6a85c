
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * One line for each request, in the log phase: all stages are over, and bytes
 * and status are final.  Room for the longest line that this request can have
 * is asked for once, then it is only written.  What would say
 * nothing new is left out: a line is half as long then.
 */


#include "ngx_http_ai_log.h"
#include "ngx_http_ai_trace.h"


/* all members with their names and figures, without texts */
#define NGX_HTTP_AI_LOG_FIXED     1536
#define NGX_HTTP_AI_LOG_ATTEMPT   384

#define NGX_HTTP_AI_LOG_ATTEMPTS  16
#define NGX_HTTP_AI_LOG_VALUE     256


typedef struct {
    ngx_http_ai_ctx_t         *ctx;
    ngx_msec_int_t             duration;
    ngx_msec_t                 start;         /* ngx_current_msec */
    ngx_msec_int_t             upstream;
    ngx_str_t                  trace_id;
    ngx_str_t                  path;
    ngx_str_t                  key_id;
    ngx_str_t                  tenant;
    ngx_str_t                  user;
    ngx_str_t                  team;
    ngx_str_t                  values[NGX_HTTP_AI_LOG_VARIABLES];
    ngx_uint_t                 ntries;
    ngx_http_ai_try_t          tries[NGX_HTTP_AI_LOG_ATTEMPTS];
} ngx_http_ai_log_record_t;


static void ngx_http_ai_log_record(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_log_record_t *rec);
static void ngx_http_ai_log_tries(ngx_http_ai_log_record_t *rec);
static void ngx_http_ai_log_value(ngx_str_t *value, ngx_str_t *from);
static void ngx_http_ai_log_variable(ngx_http_request_t *r,
    ngx_http_ai_log_main_conf_t *mcf, ngx_http_ai_log_variable_e n,
    ngx_str_t *value);
static size_t ngx_http_ai_log_size(ngx_http_request_t *r,
    ngx_http_ai_log_record_t *rec);
static u_char *ngx_http_ai_log_line(u_char *p, ngx_http_request_t *r,
    ngx_http_ai_log_record_t *rec);
static u_char *ngx_http_ai_log_attempts(u_char *p,
    ngx_http_ai_log_record_t *rec);
static u_char *ngx_http_ai_log_tokens(u_char *p, ngx_http_ai_usage_t *u);
static u_char *ngx_http_ai_log_times(u_char *p,
    ngx_http_ai_log_record_t *rec);


#define ngx_http_ai_log_lit(p, literal)                                       \
    ngx_cpymem(p, literal, sizeof(literal) - 1)

/* a member, its name as it is to be written */

#define ngx_http_ai_log_str(p, name, s)                                       \
    if ((s)->len) {                                                           \
        p = ngx_http_ai_log_lit(p, ",\"" name "\":\"");                       \
        p = ngx_http_ai_log_text(p, (s)->data, (s)->len);                     \
        *p++ = '"';                                                           \
    }

/* ... a word of ours, with nothing to escape */

#define ngx_http_ai_log_word(p, name, s)                                      \
    if ((s)->len) {                                                           \
        p = ngx_http_ai_log_lit(p, ",\"" name "\":\"");                       \
        p = ngx_cpymem(p, (s)->data, (s)->len);                               \
        *p++ = '"';                                                           \
    }

#define ngx_http_ai_log_num(p, name, n)                                       \
    if ((n) >= 0) {                                                           \
        p = ngx_http_ai_log_lit(p, ",\"" name "\":");                         \
        p = ngx_http_ai_log_uint(p, n);                                       \
    }

/* ... that is usually 0 */

#define ngx_http_ai_log_some(p, name, n)                                      \
    if ((n) > 0) {                                                            \
        p = ngx_http_ai_log_lit(p, ",\"" name "\":");                         \
        p = ngx_http_ai_log_uint(p, n);                                       \
    }

#define ngx_http_ai_log_flag(p, name, flag)                                   \
    if (flag) {                                                               \
        p = ngx_http_ai_log_lit(p, ",\"" name "\":true");                     \
    }


ngx_int_t
ngx_http_ai_log_handler(ngx_http_request_t *r)
{
    u_char                       *p, *line;
    size_t                        size;
    ngx_str_t                     value, members;
    ngx_uint_t                    i, known;
    ngx_http_ai_ctx_t            *ctx;
    ngx_http_ai_log_t            *log;
    ngx_http_ai_log_record_t      rec;
    ngx_http_ai_log_loc_conf_t   *llcf;
    ngx_http_ai_log_main_conf_t  *mcf;

    llcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_log_module);

    if (llcf->logs == NULL || r != r->main) {
        return NGX_OK;
    }

    mcf = ngx_http_get_module_main_conf(r, ngx_http_ai_log_module);

    ctx = mcf->api->get_ctx(r);

    if (ctx == NULL) {

        if (!mcf->api->enabled(r)) {
            return NGX_OK;
        }

        /* it has ended before anybody needed one */

        ctx = mcf->api->create_ctx(r);
        if (ctx == NULL) {
            return NGX_ERROR;
        }
    }

    log = llcf->logs->elts;
    known = 0;
    size = 0;

    for (i = 0; i < llcf->logs->nelts; i++) {

        if (log[i].filter) {
            if (ngx_http_complex_value(r, log[i].filter, &value) != NGX_OK) {
                return NGX_ERROR;
            }

            if (value.len == 0 || (value.len == 1 && value.data[0] == '0')) {
                continue;
            }
        }

        if (!known) {
            known = 1;
            ngx_http_ai_log_record(r, ctx, &rec);
            size = ngx_http_ai_log_size(r, &rec);
        }

        members.len = 0;

        if (log[i].content) {
            ngx_http_ai_log_contents(r, ctx, &log[i], &members);

            if (log[i].sink->max && members.len + size > log[i].sink->max) {
                ngx_str_set(&members, ",\"content_truncated\":true");
            }
        }

        line = ngx_http_ai_log_sink_begin(log[i].sink, r, size + members.len);

        if (line == NULL) {
            return NGX_ERROR;
        }

        p = ngx_http_ai_log_line(line, r, &rec);

        if (members.len) {
            p = ngx_cpymem(p, members.data, members.len);
        }

        *p++ = '}';

        ngx_http_ai_log_sink_end(log[i].sink, r, line, p);
    }

    return NGX_OK;
}


static void
ngx_http_ai_log_record(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_log_record_t *rec)
{
    u_char                       *query;
    ngx_str_t                     path;
    ngx_time_t                   *tp;
    ngx_http_ai_trace_t          *t;
    ngx_http_ai_principal_t      *pr;
    ngx_http_ai_log_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(r, ngx_http_ai_log_module);

    ngx_memzero(rec, offsetof(ngx_http_ai_log_record_t, tries));

    rec->ctx = ctx;

    tp = ngx_timeofday();
    rec->duration = (ngx_msec_int_t) ((tp->sec - r->start_sec) * 1000
                                      + ((ngx_msec_int_t) tp->msec
                                         - (ngx_msec_int_t) r->start_msec));

    /* the clock may be set, and has another beginning of milliseconds */

    rec->duration = ngx_max(rec->duration,
                            (ngx_msec_int_t) (ngx_current_msec - ctx->start));
    rec->start = ngx_current_msec - rec->duration;

    if (ctx->op == NGX_HTTP_AI_OP_PASS) {

        /* what follows "?" may hold a key */

        path = r->unparsed_uri;
        query = ngx_strlchr(path.data, path.data + path.len, '?');

        if (query) {
            path.len = query - path.data;
        }

        ngx_http_ai_log_value(&rec->path, &path);
    }

    pr = ctx->principal;

    if (pr) {
        ngx_http_ai_log_value(&rec->key_id, &pr->key_id);
        ngx_http_ai_log_value(&rec->tenant, &pr->tenant);
        ngx_http_ai_log_value(&rec->user, &pr->user);
        ngx_http_ai_log_value(&rec->team, &pr->team);
    }

    /* one is begun only where the client has told of its own */

    t = ctx->trace;

    if (t == NULL
        && (ngx_http_ai_trace_exported(r)
            || ngx_http_ai_header_in(r, "traceparent")))
    {
        t = ngx_http_ai_trace_get(r, ctx);
    }

    if (t) {
        rec->trace_id.data = t->trace;
        rec->trace_id.len = NGX_HTTP_AI_TRACE_ID;
    }

    ngx_http_ai_log_variable(r, mcf, NGX_HTTP_AI_LOG_GUARD,
                             &rec->values[NGX_HTTP_AI_LOG_GUARD]);

    if (ctx->ratelimit) {
        ngx_http_ai_log_variable(r, mcf, NGX_HTTP_AI_LOG_LIMIT,
                                 &rec->values[NGX_HTTP_AI_LOG_LIMIT]);
        ngx_http_ai_log_variable(r, mcf, NGX_HTTP_AI_LOG_QUOTA,
                                 &rec->values[NGX_HTTP_AI_LOG_QUOTA]);
    }

    if (ctx->attempt) {
        ngx_http_ai_log_tries(rec);
    }
}


static void
ngx_http_ai_log_tries(ngx_http_ai_log_record_t *rec)
{
    ngx_msec_t          from, end, till;
    ngx_uint_t          i;
    ngx_http_ai_ctx_t  *ctx;
    ngx_http_ai_try_t  *t;

    ctx = rec->ctx;
    till = 0;

    for (i = 0; i < NGX_HTTP_AI_LOG_ATTEMPTS; i++) {
        t = &rec->tries[i];

        if (ctx->attempt(ctx, i, t) != NGX_OK) {
            break;
        }

        ngx_http_ai_log_value(&t->upstream_id, &t->upstream_id);

        if (t->duration < 0) {
            t->duration = (ngx_msec_int_t) (ngx_current_msec - t->start);
        }

        /* hedged ones overlap: they begin in this order */

        from = t->start;
        end = t->start + t->duration;

        if (i && (ngx_msec_int_t) (till - from) > 0) {
            from = till;
        }

        if ((ngx_msec_int_t) (end - from) > 0) {
            rec->upstream += end - from;
        }

        if (i == 0 || (ngx_msec_int_t) (end - till) > 0) {
            till = end;
        }
    }

    rec->ntries = i;
}


/* bounded: what others have made up may be of any length */

static void
ngx_http_ai_log_value(ngx_str_t *value, ngx_str_t *from)
{
    *value = *from;

    if (value->len > NGX_HTTP_AI_LOG_VALUE) {
        value->len = ngx_http_ai_log_cut(value->data, value->len,
                                         NGX_HTTP_AI_LOG_VALUE, 0);
    }
}


static void
ngx_http_ai_log_variable(ngx_http_request_t *r,
    ngx_http_ai_log_main_conf_t *mcf, ngx_http_ai_log_variable_e n,
    ngx_str_t *value)
{
    ngx_str_t                   text;
    ngx_http_variable_value_t  *v;

    if (mcf->index[n] == NGX_ERROR) {
        return;
    }

    v = ngx_http_get_flushed_variable(r, mcf->index[n]);

    if (v == NULL || v->not_found) {
        return;
    }

    text.data = v->data;
    text.len = v->len;

    ngx_http_ai_log_value(value, &text);
}


static size_t
ngx_http_ai_log_size(ngx_http_request_t *r, ngx_http_ai_log_record_t *rec)
{
    size_t              texts;
    ngx_uint_t          i;
    ngx_http_ai_ctx_t  *ctx;
    ngx_http_ai_try_t  *t;

    ctx = rec->ctx;

    texts = ctx->request_id.len + rec->trace_id.len
            + r->connection->addr_text.len
            + rec->path.len + ctx->request_model.len + ctx->model.len
            + ctx->provider.len + ctx->region.len + ctx->target.len
            + ctx->price_version.len + ctx->switched.len
            + rec->key_id.len + rec->tenant.len + rec->user.len
            + rec->team.len;

    for (i = 0; i < NGX_HTTP_AI_LOG_VARIABLES; i++) {
        texts += rec->values[i].len;
    }

    for (i = 0; i < rec->ntries; i++) {
        t = &rec->tries[i];
        texts += t->target.len + t->region.len + t->upstream_id.len;
    }

    return NGX_HTTP_AI_LOG_FIXED + rec->ntries * NGX_HTTP_AI_LOG_ATTEMPT
           + ngx_http_ai_log_room(texts);
}


static u_char *
ngx_http_ai_log_line(u_char *p, ngx_http_request_t *r,
    ngx_http_ai_log_record_t *rec)
{
    off_t                 sent;
    ngx_str_t            *s;
    ngx_uint_t            status;
    ngx_http_ai_ctx_t    *ctx;
    ngx_http_ai_try_t    *t;
    ngx_http_ai_usage_t  *u;

    ctx = rec->ctx;

    p = ngx_http_ai_log_lit(p, "{\"v\":1,\"time\":\"");
    p = ngx_http_ai_log_time(p, r->start_sec, r->start_msec);
    p = ngx_http_ai_log_lit(p, "\",\"request_id\":\"");
    p = ngx_cpymem(p, ctx->request_id.data, ctx->request_id.len);
    *p++ = '"';

    ngx_http_ai_log_word(p, "trace_id", &rec->trace_id);

    p = ngx_http_ai_log_lit(p, ",\"client\":\"");
    p = ngx_cpymem(p, r->connection->addr_text.data,
                   r->connection->addr_text.len);

    /* as $status has it */

    status = r->err_status ? r->err_status : r->headers_out.status;

    p = ngx_http_ai_log_lit(p, "\",\"status\":");
    p = ngx_http_ai_log_uint(p, status);
    p = ngx_http_ai_log_lit(p, ",\"bytes_in\":");
    p = ngx_http_ai_log_uint(p, ngx_max(r->request_length, 0));

    sent = r->connection->sent;

    p = ngx_http_ai_log_lit(p, ",\"bytes_out\":");
    p = ngx_http_ai_log_uint(p, ngx_max(sent, 0));

    s = ngx_http_ai_op_name(ctx->op);

    p = ngx_http_ai_log_lit(p, ",\"operation\":\"");
    p = ngx_cpymem(p, s->data, s->len);

    if (ctx->stream) {
        p = ngx_http_ai_log_lit(p, "\",\"stream\":true");

    } else {
        p = ngx_http_ai_log_lit(p, "\",\"stream\":false");
    }

    ngx_http_ai_log_str(p, "path", &rec->path);

    ngx_http_ai_log_str(p, "key_id", &rec->key_id);
    ngx_http_ai_log_str(p, "tenant", &rec->tenant);
    ngx_http_ai_log_str(p, "user", &rec->user);
    ngx_http_ai_log_str(p, "team", &rec->team);
    ngx_http_ai_log_str(p, "request_model", &ctx->request_model);
    ngx_http_ai_log_str(p, "model", &ctx->model);
    ngx_http_ai_log_str(p, "provider", &ctx->provider);
    ngx_http_ai_log_str(p, "region", &ctx->region);
    ngx_http_ai_log_str(p, "target", &ctx->target);

    /* one that has answered is told of by what is around */

    t = &rec->tries[0];

    if (rec->ntries == 1 && t->won && t->error == NGX_HTTP_AI_ERR_NONE
        && !t->canceled)
    {
        ngx_http_ai_log_str(p, "upstream_id", &t->upstream_id);

    } else if (rec->ntries) {
        p = ngx_http_ai_log_attempts(p, rec);
    }

    ngx_http_ai_log_flag(p, "fallback", ctx->fallback);
    ngx_http_ai_log_flag(p, "recovered", ctx->recovered);
    ngx_http_ai_log_flag(p, "cut", ctx->cut);

    s = ngx_http_ai_usage_name(ctx->usage_state);

    p = ngx_http_ai_log_lit(p, ",\"usage_state\":\"");
    p = ngx_cpymem(p, s->data, s->len);
    *p++ = '"';

    u = &ctx->usage;

    p = ngx_http_ai_log_tokens(p, u);

    ngx_http_ai_log_some(p, "cached_tokens", u->cache_read);
    ngx_http_ai_log_some(p, "cache_write_tokens", u->cache_write);
    ngx_http_ai_log_some(p, "reasoning_tokens", u->reasoning);
    ngx_http_ai_log_some(p, "audio_input_tokens", u->audio_in);
    ngx_http_ai_log_some(p, "audio_output_tokens", u->audio_out);

    if (ctx->cost >= 0) {
        p = ngx_http_ai_log_lit(p, ",\"cost\":");
        p = ngx_http_ai_log_nano(p, ctx->cost);

        ngx_http_ai_log_str(p, "price_version", &ctx->price_version);
    }

    p = ngx_http_ai_log_times(p, rec);

    ngx_http_ai_log_str(p, "limit", &rec->values[NGX_HTTP_AI_LOG_LIMIT]);
    ngx_http_ai_log_str(p, "quota", &rec->values[NGX_HTTP_AI_LOG_QUOTA]);
    ngx_http_ai_log_word(p, "cache", ngx_http_ai_cached_name(ctx->cached));
    ngx_http_ai_log_str(p, "guard", &rec->values[NGX_HTTP_AI_LOG_GUARD]);
    ngx_http_ai_log_str(p, "switch", &ctx->switched);

    if (ctx->finish != NGX_HTTP_AI_FINISH_NONE) {
        s = ngx_http_ai_finish_name(ctx->finish);
        ngx_http_ai_log_word(p, "finish_reason", s);
    }

    if (ctx->error != NGX_HTTP_AI_ERR_NONE) {
        s = ngx_http_ai_err_name(ctx->error);
        ngx_http_ai_log_word(p, "error", s);
    }

    return p;
}


static u_char *
ngx_http_ai_log_attempts(u_char *p, ngx_http_ai_log_record_t *rec)
{
    ngx_str_t          *s;
    ngx_uint_t          i;
    ngx_msec_int_t      start;
    ngx_http_ai_try_t  *t;

    p = ngx_http_ai_log_lit(p, ",\"attempts\":[");

    for (i = 0; i < rec->ntries; i++) {
        t = &rec->tries[i];

        if (i) {
            *p++ = ',';
        }

        p = ngx_http_ai_log_lit(p, "{\"target\":\"");
        p = ngx_http_ai_log_text(p, t->target.data, t->target.len);
        *p++ = '"';

        ngx_http_ai_log_str(p, "region", &t->region);

        if (t->status) {
            p = ngx_http_ai_log_lit(p, ",\"status\":");
            p = ngx_http_ai_log_uint(p, t->status);
        }

        if (t->error != NGX_HTTP_AI_ERR_NONE) {
            s = ngx_http_ai_err_name(t->error);
            ngx_http_ai_log_word(p, "error", s);
        }

        start = ngx_max((ngx_msec_int_t) (t->start - rec->start), 0);

        p = ngx_http_ai_log_lit(p, ",\"start_ms\":");
        p = ngx_http_ai_log_uint(p, start);

        ngx_http_ai_log_num(p, "first_ms", t->first);
        ngx_http_ai_log_num(p, "duration_ms", t->duration);

        p = ngx_http_ai_log_tokens(p, t->usage);

        ngx_http_ai_log_str(p, "upstream_id", &t->upstream_id);
        ngx_http_ai_log_flag(p, "won", t->won);
        ngx_http_ai_log_flag(p, "canceled", t->canceled);

        *p++ = '}';
    }

    *p++ = ']';

    return p;
}


static u_char *
ngx_http_ai_log_tokens(u_char *p, ngx_http_ai_usage_t *u)
{
    int64_t  input;

    input = ngx_http_ai_usage_input(u);

    ngx_http_ai_log_num(p, "input_tokens", input);
    ngx_http_ai_log_num(p, "output_tokens", u->out);

    return p;
}


static u_char *
ngx_http_ai_log_times(u_char *p, ngx_http_ai_log_record_t *rec)
{
    uint64_t            each;
    ngx_uint_t          i;
    ngx_http_ai_try_t  *t;

    p = ngx_http_ai_log_lit(p, ",\"duration_ms\":");
    p = ngx_http_ai_log_uint(p, rec->duration);

    if (rec->ctx->stream) {
        ngx_http_ai_log_num(p, "ttft_ms", rec->ctx->ttft);
    }

    if (rec->ntries == 0) {
        return p;
    }

    for (i = 0; i < rec->ntries && rec->ctx->stream; i++) {
        t = &rec->tries[i];

        if (t->won && t->first >= 0 && t->usage->out > 1
            && t->duration >= t->first)
        {
            each = (uint64_t) (t->duration - t->first) * 1000
                   / (t->usage->out - 1);

            p = ngx_http_ai_log_lit(p, ",\"token_ms\":");
            p = ngx_http_ai_log_milli(p, each);
        }
    }

    p = ngx_http_ai_log_lit(p, ",\"upstream_ms\":");
    p = ngx_http_ai_log_uint(p, rec->upstream);
    p = ngx_http_ai_log_lit(p, ",\"overhead_ms\":");
    p = ngx_http_ai_log_uint(p, ngx_max(rec->duration - rec->upstream, 0));

    return p;
}
