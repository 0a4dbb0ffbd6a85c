
/*
 * Copyright (C) nginx AI gateway authors
 */


/* the request as a provider gets it */


#include "ngx_http_ai_router_exec.h"


static ngx_int_t ngx_http_ai_build_pass(ngx_http_ai_attempt_t *a,
    ngx_chain_t **body, off_t *length);
static ngx_int_t ngx_http_ai_build_patched(ngx_http_ai_attempt_t *a,
    ngx_chain_t **body, off_t *length);
static ngx_int_t ngx_http_ai_build_translated(ngx_http_ai_attempt_t *a,
    ngx_chain_t **body, off_t *length);
static ngx_int_t ngx_http_ai_build_params(ngx_http_ai_attempt_t *a,
    ngx_http_ai_patch_op_t *ops, ngx_uint_t *n);
static ngx_int_t ngx_http_ai_build_resume(ngx_http_ai_attempt_t *a);
static ngx_uint_t ngx_http_ai_build_takes_prefill(ngx_http_ai_attempt_t *a);
static ngx_int_t ngx_http_ai_build_prefill(ngx_http_ai_attempt_t *a,
    ngx_array_t *slices, size_t *len);
static ngx_int_t ngx_http_ai_build_chain(ngx_http_ai_attempt_t *a,
    ngx_array_t *slices, ngx_chain_t **body);
static void ngx_http_ai_build_path(ngx_http_ai_attempt_t *a,
    ngx_http_ai_out_t *out);
static ngx_int_t ngx_http_ai_build_auth(ngx_http_ai_attempt_t *a,
    ngx_http_ai_out_t *out);
static ngx_uint_t ngx_http_ai_build_forward(ngx_http_ai_attempt_t *a,
    ngx_table_elt_t *h);
static ngx_uint_t ngx_http_ai_build_custom(ngx_http_ai_attempt_t *a,
    u_char *name, size_t len);
static ngx_int_t ngx_http_ai_build_hooked(ngx_http_ai_attempt_t *a,
    ngx_http_ai_out_t *out);
static ngx_uint_t ngx_http_ai_build_has(u_char *lines, size_t len,
    ngx_table_elt_t *h);
static ngx_uint_t ngx_http_ai_build_trace(ngx_table_elt_t *h);
static ngx_uint_t ngx_http_ai_build_known(ngx_http_ai_attempt_t *a,
    ngx_table_elt_t *h);
static ngx_uint_t ngx_http_ai_build_credential(ngx_table_elt_t *h);
static ngx_uint_t ngx_http_ai_build_safe(ngx_str_t *value);


/* model, stream_options and the configured parameters */
#define NGX_HTTP_AI_MAX_PATCH  64


ngx_int_t
ngx_http_ai_build_body(ngx_http_ai_attempt_t *a, ngx_chain_t **body,
    off_t *length)
{
    if (a->exec->ctx->op == NGX_HTTP_AI_OP_PASS) {
        return ngx_http_ai_build_pass(a, body, length);
    }

    if (a->resume && ngx_http_ai_build_resume(a) != NGX_OK) {
        return NGX_ERROR;
    }

    if (a->same) {
        return ngx_http_ai_build_patched(a, body, length);
    }

    return ngx_http_ai_build_translated(a, body, length);
}


static ngx_int_t
ngx_http_ai_build_pass(ngx_http_ai_attempt_t *a, ngx_chain_t **body,
    off_t *length)
{
    ngx_buf_t           *b;
    ngx_chain_t         *in, *cl, **ll;
    ngx_http_request_t  *r;

    r = a->exec->request;
    ll = body;

    if (r->request_body == NULL) {
        return NGX_OK;
    }

    for (in = r->request_body->bufs; in; in = in->next) {

        /* an earlier attempt has consumed its copies, not these */

        b = ngx_alloc_buf(r->pool);
        cl = ngx_alloc_chain_link(r->pool);

        if (b == NULL || cl == NULL) {
            return NGX_ERROR;
        }

        *b = *in->buf;
        b->start = b->pos;
        b->last_buf = 0;
        b->last_in_chain = 0;

        *length += ngx_buf_size(b);

        cl->buf = b;
        *ll = cl;
        ll = &cl->next;
    }

    *ll = NULL;

    return NGX_OK;
}


/* same dialect: what must change is changed in place, all else is the
 * client's, byte for byte */

static ngx_int_t
ngx_http_ai_build_patched(ngx_http_ai_attempt_t *a, ngx_chain_t **body,
    off_t *length)
{
    size_t                   len;
    ngx_int_t                rc;
    ngx_uint_t               n;
    ngx_array_t              slices;
    ngx_http_ai_ctx_t       *ctx;
    ngx_http_ai_out_t        out;
    ngx_http_request_t      *r;
    ngx_http_ai_patch_op_t   ops[NGX_HTTP_AI_MAX_PATCH
                                 + NGX_HTTP_AI_CAP_PATCH];

    r = a->exec->request;
    ctx = a->exec->ctx;
    n = 0;

    if (a->model.len != ctx->request_model.len
        || ngx_memcmp(a->model.data, ctx->request_model.data, a->model.len)
           != 0)
    {
        if (ngx_http_ai_out_init(&out, r->pool, a->model.len + 8) != NGX_OK) {
            return NGX_ERROR;
        }

        ngx_http_ai_out_lit(&out, "\"");
        ngx_http_ai_out_escaped(&out, a->model.data, a->model.len);
        ngx_http_ai_out_lit(&out, "\"");

        if (out.failed) {
            return NGX_ERROR;
        }

        ngx_str_set(&ops[n].name, "model");
        ops[n].value.data = out.start;
        ops[n].value.len = out.last - out.start;
        ops[n].mode = NGX_HTTP_AI_PATCH_SET;
        n++;
    }

    if (ctx->stream && !ctx->include_usage
        && (ctx->op == NGX_HTTP_AI_OP_CHAT
            || ctx->op == NGX_HTTP_AI_OP_COMPLETIONS)
        && ngx_http_ai_str_is(&a->provider->dialect->name, "openai")
        && !ngx_http_ai_str_is(&a->provider->vendor, "mistral"))
    {
        rc = ngx_http_ai_patch_stream_options(r->pool, &ctx->json, &ops[n]);

        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (rc == NGX_OK) {
            a->hide_usage = 1;
            n++;
        }
    }

    if (ngx_http_ai_build_params(a, ops, &n) != NGX_OK
        || ngx_http_ai_build_cap(a, &ctx->json, ops, &n) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_array_init(&slices, r->pool, 2 * n + 2, sizeof(ngx_str_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    len = 0;

    if (ngx_http_ai_patch(r->pool, &ctx->json, &ctx->body, ops, n, &slices,
                          &len)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (a->prefill
        && ngx_http_ai_build_prefill(a, &slices, &len) != NGX_OK)
    {
        return NGX_ERROR;
    }

    *length = len;

    return ngx_http_ai_build_chain(a, &slices, body);
}


static ngx_int_t
ngx_http_ai_build_translated(ngx_http_ai_attempt_t *a, ngx_chain_t **body,
    off_t *length)
{
    size_t                      len;
    ngx_int_t                   rc;
    ngx_str_t                   text;
    ngx_uint_t                  n;
    ngx_array_t                 slices;
    ngx_http_ai_ctx_t          *ctx;
    ngx_http_ai_out_t           out;
    ngx_http_ai_json_t          j;
    ngx_http_request_t         *r;
    ngx_http_ai_codec_t         codec;
    ngx_http_ai_request_t      *req;
    ngx_http_ai_patch_op_t      ops[NGX_HTTP_AI_MAX_PATCH
                                    + NGX_HTTP_AI_CAP_PATCH];
    ngx_http_ai_target_info_t   info;

    r = a->exec->request;
    ctx = a->exec->ctx;

    ngx_memzero(&codec, sizeof(ngx_http_ai_codec_t));
    codec.pool = r->pool;

    req = a->exec->pivot;

    if (req == NULL) {

        rc = a->exec->api->parse_body(ctx, &a->error);
        if (rc != NGX_OK) {
            return rc;
        }

        req = ngx_pcalloc(r->pool, sizeof(ngx_http_ai_request_t));
        if (req == NULL) {
            return NGX_ERROR;
        }

        rc = ctx->dialect->decode_request(&codec, &ctx->json, req);

        if (rc == NGX_DECLINED) {
            a->error = codec.error;
            return NGX_DECLINED;
        }

        if (rc != NGX_OK) {
            return NGX_ERROR;
        }

        a->exec->pivot = req;
    }

    ngx_memzero(&info, sizeof(ngx_http_ai_target_info_t));
    info.model = a->model;
    info.vendor = a->provider->vendor;
    info.max_output = a->provider->max_output;

    if (ngx_http_ai_out_init(&out, r->pool, ctx->body.len + 512) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = a->provider->dialect->encode_request(&codec, req, &info, &out);

    if (rc == NGX_DECLINED) {
        a->error = codec.error;
        return NGX_DECLINED;
    }

    if (rc != NGX_OK || out.failed) {
        return NGX_ERROR;
    }

    text.data = out.start;
    text.len = out.last - out.start;

    n = 0;

    ngx_memzero(&j, sizeof(ngx_http_ai_json_t));
    j.pool = r->pool;
    j.shallow = 1;
    len = text.len;

    if (ngx_http_ai_build_params(a, ops, &n) != NGX_OK) {
        return NGX_ERROR;
    }

    if ((n || ctx->output_cap >= 0)
        && (ngx_http_ai_json_parse(&j, text.data, text.len) != NGX_OK
            || ngx_http_ai_build_cap(a, &j, ops, &n) != NGX_OK))
    {
        return NGX_ERROR;
    }

    if (ngx_array_init(&slices, r->pool, 2 * n + 2, sizeof(ngx_str_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (n) {
        if (ngx_http_ai_patch(r->pool, &j, &text, ops, n, &slices, &len)
               != NGX_OK)
        {
            return NGX_ERROR;
        }

    } else {
        *(ngx_str_t *) ngx_array_push(&slices) = text;
    }

    if (a->prefill
        && ngx_http_ai_build_prefill(a, &slices, &len) != NGX_OK)
    {
        return NGX_ERROR;
    }

    *length = len;

    return ngx_http_ai_build_chain(a, &slices, body);
}


static ngx_int_t
ngx_http_ai_build_params(ngx_http_ai_attempt_t *a,
    ngx_http_ai_patch_op_t *ops, ngx_uint_t *n)
{
    ngx_uint_t            i;
    ngx_http_ai_param_t  *param;

    if (a->exec->ctx->op != NGX_HTTP_AI_OP_CHAT
        && a->exec->ctx->op != NGX_HTTP_AI_OP_COMPLETIONS
        && a->exec->ctx->op != NGX_HTTP_AI_OP_EMBEDDINGS)
    {
        return NGX_OK;
    }

    param = a->exec->model->params.elts;

    for (i = 0; i < a->exec->model->params.nelts; i++) {

        if (*n == NGX_HTTP_AI_MAX_PATCH) {
            ngx_log_error(NGX_LOG_ALERT, a->exec->request->connection->log, 0,
                          "ai router: more than %d params",
                          NGX_HTTP_AI_MAX_PATCH - 2);
            return NGX_ERROR;
        }

        ops[*n].name = param[i].name;
        ops[*n].value = param[i].value;
        ops[*n].mode = param[i].force ? NGX_HTTP_AI_PATCH_SET
                                      : NGX_HTTP_AI_PATCH_DEFAULT;
        (*n)++;
    }

    return NGX_OK;
}


/* decides how an answer that has begun is continued by this target */

static ngx_int_t
ngx_http_ai_build_resume(ngx_http_ai_attempt_t *a)
{
    ngx_http_ai_exec_t  *x;

    x = a->exec;

    if (x->delivered && x->delivered->last != x->delivered->start
        && x->model->recover == NGX_HTTP_AI_RECOVER_CONTINUE
        && !a->candidate->no_prefill
        && ngx_http_ai_build_takes_prefill(a))
    {
        a->prefill = 1;
        a->restart = 0;

    } else {
        a->prefill = 0;
        a->restart = 1;
    }

    return NGX_OK;
}


/*
 * Whether an assistant turn at the end is continued.  OpenAI's own models
 * begin a new message; Claude before 4.6 continues, later models refuse it
 * with a 400.
 */

static ngx_uint_t
ngx_http_ai_build_takes_prefill(ngx_http_ai_attempt_t *a)
{
    ngx_uint_t      i;

    static char    *old[] = {
        "claude-2", "claude-3", "claude-instant", "-4-0", "-4-1", "-4-5",
        "-4-2025", "-4@2025", NULL
    };

    if (a->target->prefill) {
        return a->target->prefill == 2;
    }

    if (!ngx_http_ai_str_is(&a->provider->dialect->name, "anthropic")) {
        return 0;
    }

    for (i = 0; old[i]; i++) {
        if (ngx_strnstr(a->model.data, old[i], a->model.len)) {
            return 1;
        }
    }

    return 0;
}


/* {"role":"assistant","content":"..."} as the last element of "messages",
 * which both dialects understand alike; all else stays as it is */

static ngx_int_t
ngx_http_ai_build_prefill(ngx_http_ai_attempt_t *a, ngx_array_t *slices,
    size_t *len)
{
    u_char              *p;
    ngx_str_t            text, *s;
    ngx_uint_t           i, n;
    ngx_pool_t          *pool;
    ngx_http_ai_out_t    out;
    ngx_http_ai_json_t   j;
    ngx_http_ai_exec_t  *x;

    x = a->exec;
    pool = x->request->pool;

    text.len = *len;
    text.data = ngx_pnalloc(pool, *len);
    if (text.data == NULL) {
        return NGX_ERROR;
    }

    p = text.data;
    s = slices->elts;

    for (i = 0; i < slices->nelts; i++) {
        p = ngx_cpymem(p, s[i].data, s[i].len);
    }

    ngx_memzero(&j, sizeof(ngx_http_ai_json_t));
    j.pool = pool;
    j.shallow = 1;

    if (ngx_http_ai_json_parse(&j, text.data, text.len) != NGX_OK) {
        return NGX_ERROR;
    }

    n = ngx_http_ai_json_member(&j, 0, "messages");

    if (ngx_http_ai_json_type(&j, n) != NGX_HTTP_AI_JSON_ARRAY) {
        return NGX_ERROR;
    }

    /* trailing white space of an assistant turn is refused by some */

    p = x->delivered->start;
    i = x->delivered->last - p;

    while (i && (p[i - 1] == ' ' || p[i - 1] == '\n' || p[i - 1] == '\t')) {
        i--;
    }

    a->matched = i;

    if (ngx_http_ai_out_init(&out, pool, i + 128) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_ai_out_lit(&out, ",{\"role\":\"assistant\",\"content\":\"");
    ngx_http_ai_out_escaped(&out, p, i);
    ngx_http_ai_out_lit(&out, "\"}");

    if (out.failed) {
        return NGX_ERROR;
    }

    slices->nelts = 0;

    p = j.nodes[n].start + j.nodes[n].len - 1;

    s = ngx_array_push_n(slices, 3);
    if (s == NULL) {
        return NGX_ERROR;
    }

    s[0].data = text.data;
    s[0].len = p - text.data;
    s[1].data = out.start;
    s[1].len = out.last - out.start;
    s[2].data = p;
    s[2].len = text.data + text.len - p;

    *len = text.len + s[1].len;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_build_chain(ngx_http_ai_attempt_t *a, ngx_array_t *slices,
    ngx_chain_t **body)
{
    ngx_str_t    *s;
    ngx_buf_t    *b;
    ngx_uint_t    i;
    ngx_pool_t   *pool;
    ngx_chain_t  *cl, **ll;

    pool = a->exec->request->pool;
    s = slices->elts;
    ll = body;

    for (i = 0; i < slices->nelts; i++) {

        if (s[i].len == 0) {
            continue;
        }

        b = ngx_calloc_buf(pool);
        cl = ngx_alloc_chain_link(pool);

        if (b == NULL || cl == NULL) {
            return NGX_ERROR;
        }

        /* start == pos: a second try of the same attempt rewinds to it */

        b->start = s[i].data;
        b->pos = s[i].data;
        b->last = s[i].data + s[i].len;
        b->end = b->last;
        b->memory = 1;

        cl->buf = b;
        *ll = cl;
        ll = &cl->next;
    }

    *ll = NULL;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_build_header(ngx_http_ai_attempt_t *a, off_t length,
    ngx_buf_t **header)
{
    size_t                   hooked, hooked_len;
    ngx_buf_t               *b;
    ngx_int_t                rc;
    ngx_str_t                value;
    ngx_uint_t               i, version;
    ngx_list_part_t         *part;
    ngx_table_elt_t         *h;
    ngx_http_ai_ctx_t       *ctx;
    ngx_http_ai_out_t        out;
    ngx_http_request_t      *r;
    ngx_http_ai_header_t    *custom;
    ngx_http_ai_provider_t  *provider;

    r = a->exec->request;
    ctx = a->exec->ctx;
    provider = a->provider;

    if (ngx_http_ai_out_init(&out, r->pool, 384) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ctx->op == NGX_HTTP_AI_OP_PASS) {
        ngx_http_ai_out_str(&out, &r->method_name);
        ngx_http_ai_out_lit(&out, " ");

    } else {
        ngx_http_ai_out_lit(&out, "POST ");
    }

    ngx_http_ai_build_path(a, &out);

    ngx_http_ai_out_lit(&out, " HTTP/1.1" CRLF "Host: ");
    ngx_http_ai_out_str(&out, &provider->host);
    ngx_http_ai_out_lit(&out, CRLF);

    if (ctx->op != NGX_HTTP_AI_OP_PASS) {
        ngx_http_ai_out_lit(&out, "Content-Type: application/json" CRLF
                                  "Accept-Encoding: identity" CRLF);

        if (ctx->stream) {
            ngx_http_ai_out_lit(&out, "Accept: text/event-stream" CRLF);

        } else {
            ngx_http_ai_out_lit(&out, "Accept: application/json" CRLF);
        }

        ngx_http_ai_out_lit(&out, "Content-Length: ");
        ngx_http_ai_out_int(&out, length);
        ngx_http_ai_out_lit(&out, CRLF);

    } else if (r->headers_in.content_length_n > 0 || r->headers_in.chunked
               || length)
    {
        ngx_http_ai_out_lit(&out, "Content-Length: ");
        ngx_http_ai_out_int(&out, length);
        ngx_http_ai_out_lit(&out, CRLF);
    }

    if (!ngx_http_ai_build_custom(a, (u_char *) "x-request-id",
                                  sizeof("x-request-id") - 1))
    {
        ngx_http_ai_out_lit(&out, "x-request-id: ");
        ngx_http_ai_out_str(&out, &ctx->request_id);
        ngx_http_ai_out_lit(&out, CRLF);
    }

    hooked = out.last - out.start;

    if (ngx_http_ai_build_hooked(a, &out) != NGX_OK) {
        return NGX_ERROR;
    }

    hooked_len = out.last - out.start - hooked;

    rc = ngx_http_ai_build_auth(a, &out);
    if (rc != NGX_OK) {
        return rc;
    }

    custom = provider->headers.elts;

    for (i = 0; i < provider->headers.nelts; i++) {

        if (ngx_http_complex_value(r, custom[i].value, &value) != NGX_OK) {
            return NGX_ERROR;
        }

        if (value.len == 0) {
            continue;
        }

        if (!ngx_http_ai_build_safe(&value)) {
            ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_INVALID_REQUEST,
                                     "a header for the provider would contain "
                                     "a control character");
            return NGX_DECLINED;
        }

        ngx_http_ai_out_str(&out, &custom[i].name);
        ngx_http_ai_out_lit(&out, ": ");
        ngx_http_ai_out_str(&out, &value);
        ngx_http_ai_out_lit(&out, CRLF);
    }

    version = 0;

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (!ngx_http_ai_build_forward(a, &h[i])
                || ngx_http_ai_build_has(out.start + hooked, hooked_len,
                                         &h[i]))
            {
                continue;
            }

            if (h[i].key.len == sizeof("anthropic-version") - 1
                && ngx_memcmp(h[i].lowcase_key, "anthropic-version",
                              sizeof("anthropic-version") - 1)
                   == 0)
            {
                version = 1;
            }

            ngx_http_ai_out_str(&out, &h[i].key);
            ngx_http_ai_out_lit(&out, ": ");
            ngx_http_ai_out_str(&out, &h[i].value);
            ngx_http_ai_out_lit(&out, CRLF);
        }
    }

    if (!version
        && ngx_http_ai_str_is(&provider->dialect->name, "anthropic"))
    {
        /* the version that takes sampling parameters */
        ngx_http_ai_out_lit(&out, "anthropic-version: 2023-06-01" CRLF);
    }

    ngx_http_ai_out_lit(&out, CRLF);

    if (out.failed) {
        return NGX_ERROR;
    }

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_ERROR;
    }

    b->start = out.start;
    b->pos = out.start;
    b->last = out.last;
    b->end = out.end;
    b->memory = 1;

    *header = b;

    return NGX_OK;
}


static void
ngx_http_ai_build_path(ngx_http_ai_attempt_t *a, ngx_http_ai_out_t *out)
{
    u_char                    *p, *last, *arg;
    ngx_str_t                  rest, *path;
    ngx_http_request_t        *r;
    ngx_http_core_loc_conf_t  *clcf;

    r = a->exec->request;

    ngx_http_ai_out_str(out, &a->provider->path);

    if (a->exec->ctx->op != NGX_HTTP_AI_OP_PASS) {

        ngx_http_ai_out_str(out,
                      &a->provider->dialect->paths[a->exec->ctx->op]);

        /* "?beta=true" of Anthropic's clients */

        if (a->same && r->args.len
            && ngx_http_ai_str_is(&a->provider->dialect->name, "anthropic")
            && ngx_strnstr(r->args.data, "beta=true", r->args.len))
        {
            ngx_http_ai_out_lit(out, "?beta=true");
        }

        return;
    }

    /* the location's prefix is replaced by the endpoint's path; the rest goes
     * on as the client spelled it */

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);
    rest = r->unparsed_uri;

    if (
#if (NGX_PCRE)
        clcf->regex == NULL &&
#endif
        !clcf->named && rest.len >= clcf->name.len
        && ngx_strncmp(rest.data, clcf->name.data, clcf->name.len) == 0)
    {
        rest.data += clcf->name.len;
        rest.len -= clcf->name.len;
    }

    while (rest.len && rest.data[0] == '/') {
        rest.data++;
        rest.len--;
    }

    path = &a->provider->path;

    if (rest.len >= 3 && ngx_strncmp(rest.data, "v1/", 3) == 0) {

        if (path->len >= 3
            && ngx_strncmp(path->data + path->len - 3, "/v1", 3) == 0)
        {
            rest.data += 3;
            rest.len -= 3;
        }

    } else if (a->provider->dialect->paths[NGX_HTTP_AI_OP_CHAT].len > 4
               && ngx_strncmp(
                      a->provider->dialect->paths[NGX_HTTP_AI_OP_CHAT].data,
                      "/v1/", 4)
                  == 0)
    {
        ngx_http_ai_out_lit(out, "/v1");
    }

    ngx_http_ai_out_lit(out, "/");

    p = ngx_strlchr(rest.data, rest.data + rest.len, '?');

    if (p == NULL) {
        ngx_http_ai_out_str(out, &rest);
        return;
    }

    ngx_http_ai_out_mem(out, rest.data, p - rest.data);

    /* without the client's key */

    last = rest.data + rest.len;
    rest.len = 0;

    for (p++; p < last; p = arg + 1) {
        arg = ngx_strlchr(p, last, '&');
        if (arg == NULL) {
            arg = last;
        }

        if (arg - p >= 4 && ngx_strncmp(p, "key=", 4) == 0) {
            continue;
        }

        if (rest.len++) {
            ngx_http_ai_out_lit(out, "&");

        } else {
            ngx_http_ai_out_lit(out, "?");
        }

        ngx_http_ai_out_mem(out, p, arg - p);
    }
}


static ngx_int_t
ngx_http_ai_build_auth(ngx_http_ai_attempt_t *a, ngx_http_ai_out_t *out)
{
    ngx_str_t                value;
    ngx_uint_t               i;
    ngx_list_part_t         *part;
    ngx_table_elt_t         *h;
    ngx_http_request_t      *r;
    ngx_http_ai_provider_t  *provider;

    r = a->exec->request;
    provider = a->provider;

    if (provider->key_pass) {

        for (part = &r->headers_in.headers.part; part; part = part->next) {
            h = part->elts;

            for (i = 0; i < part->nelts; i++) {

                if (!ngx_http_ai_build_credential(&h[i])) {
                    continue;
                }

                /* in the form that this provider reads */

                value = h[i].value;

                if (h[i].key.len == sizeof("authorization") - 1
                    && value.len > 7
                    && ngx_strncasecmp(value.data, (u_char *) "Bearer ", 7)
                       == 0)
                {
                    value.data += 7;
                    value.len -= 7;
                }

                goto found;
            }
        }

        return NGX_OK;
    }

    if (a->key == NULL) {
        return NGX_OK;
    }

    if (ngx_http_complex_value(r, a->key->value, &value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (value.len == 0 || !ngx_http_ai_build_safe(&value)) {
        ngx_http_ai_attempt_fail(a, NGX_HTTP_AI_ERR_AUTH,
                                 "the gateway's key for the provider is empty "
                                 "or has a control character");
        return NGX_DECLINED;
    }

found:

    switch (provider->auth) {

    case NGX_HTTP_AI_AUTH_X_API_KEY:
        ngx_http_ai_out_lit(out, "x-api-key: ");
        break;

    case NGX_HTTP_AI_AUTH_API_KEY:
        ngx_http_ai_out_lit(out, "api-key: ");
        break;

    default: /* NGX_HTTP_AI_AUTH_BEARER */
        ngx_http_ai_out_lit(out, "Authorization: Bearer ");
    }

    ngx_http_ai_out_str(out, &value);
    ngx_http_ai_out_lit(out, CRLF);

    return NGX_OK;
}


static ngx_uint_t
ngx_http_ai_build_credential(ngx_table_elt_t *h)
{
    ngx_str_t         *s;

    static ngx_str_t   names[] = {
        ngx_string("authorization"),
        ngx_string("x-api-key"),
        ngx_string("api-key"),
        ngx_string("x-goog-api-key"),
        ngx_null_string
    };

    for (s = names; s->len; s++) {
        if (h->key.len == s->len
            && ngx_memcmp(h->lowcase_key, s->data, s->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


/*
 * Which of the client's headers go on: by name for the AI endpoints; with any
 * other path all but the hop's, the client's credentials and its address.
 */

static ngx_uint_t
ngx_http_ai_build_forward(ngx_http_ai_attempt_t *a, ngx_table_elt_t *h)
{
    /* by name first: few headers pass, and most values are longer */

    if (!ngx_http_ai_build_known(a, h) || ngx_http_ai_build_credential(h)) {
        return 0;
    }

    if (a->exec->ctx->trace && ngx_http_ai_build_trace(h)) {
        /* there is one of the attempt, or it is not to be told */
        return 0;
    }

    if (ngx_http_ai_build_custom(a, h->lowcase_key, h->key.len)) {
        /* the operator's word counts */
        return 0;
    }

    return ngx_http_ai_build_safe(&h->value);
}


/* does the provider have a "header" of this name? */

static ngx_uint_t
ngx_http_ai_build_custom(ngx_http_ai_attempt_t *a, u_char *name, size_t len)
{
    ngx_uint_t             i;
    ngx_http_ai_header_t  *custom;

    custom = a->provider->headers.elts;

    for (i = 0; i < a->provider->headers.nelts; i++) {
        if (custom[i].name.len == len
            && ngx_memcmp(custom[i].name.data, name, len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


/* lines of other modules */

static ngx_int_t
ngx_http_ai_build_hooked(ngx_http_ai_attempt_t *a, ngx_http_ai_out_t *out)
{
    ngx_uint_t           n;
    ngx_http_ai_exec_t  *x;

    x = a->exec;

    for (n = 0; n < x->nattempts; n++) {
        if (x->attempts[n] == a) {
            return x->api->attempt_headers(x->request, x->ctx, n, out);
        }
    }

    return NGX_OK;
}


/* is there a line of this name among the lines? */

static ngx_uint_t
ngx_http_ai_build_has(u_char *lines, size_t len, ngx_table_elt_t *h)
{
    u_char  *p, *last;

    last = lines + len;

    for (p = lines; p < last; p++) {

        if ((size_t) (last - p) > h->key.len && p[h->key.len] == ':'
            && ngx_strncasecmp(p, h->lowcase_key, h->key.len) == 0)
        {
            return 1;
        }

        p = ngx_strlchr(p, last, LF);

        if (p == NULL) {
            break;
        }
    }

    return 0;
}


static ngx_uint_t
ngx_http_ai_build_trace(ngx_table_elt_t *h)
{
    return (h->key.len == sizeof("traceparent") - 1
            && ngx_memcmp(h->lowcase_key, "traceparent",
                          sizeof("traceparent") - 1)
               == 0)
           || (h->key.len == sizeof("tracestate") - 1
               && ngx_memcmp(h->lowcase_key, "tracestate",
                             sizeof("tracestate") - 1)
                  == 0);
}


static ngx_uint_t
ngx_http_ai_build_known(ngx_http_ai_attempt_t *a, ngx_table_elt_t *h)
{
    ngx_str_t         *s;

    static ngx_str_t   always[] = {
        ngx_string("traceparent"),
        ngx_string("tracestate"),
        ngx_string("idempotency-key"),
        ngx_null_string
    };

    static ngx_str_t   never[] = {
        ngx_string("host"),
        ngx_string("connection"),
        ngx_string("keep-alive"),
        ngx_string("proxy-"),
        ngx_string("te"),
        ngx_string("trailer"),
        ngx_string("transfer-encoding"),
        ngx_string("upgrade"),
        ngx_string("expect"),
        ngx_string("content-length"),
        ngx_string("cookie"),
        ngx_string("x-request-id"),
        ngx_string("x-forwarded-"),
        ngx_string("x-real-ip"),
        ngx_string("forwarded"),
        ngx_null_string
    };

    if (a->exec->ctx->op == NGX_HTTP_AI_OP_PASS) {

        for (s = never; s->len; s++) {
            if (h->key.len >= s->len
                && (h->key.len == s->len || s->data[s->len - 1] == '-')
                && ngx_memcmp(h->lowcase_key, s->data, s->len) == 0)
            {
                return 0;
            }
        }

        return 1;
    }

    for (s = always; s->len; s++) {
        if (h->key.len == s->len
            && ngx_memcmp(h->lowcase_key, s->data, s->len) == 0)
        {
            return 1;
        }
    }

    if (!a->same) {
        return 0;
    }

    if (ngx_http_ai_str_is(&a->provider->dialect->name, "anthropic")) {
        return h->key.len > 10
               && ngx_memcmp(h->lowcase_key, "anthropic-", 10) == 0;
    }

    if (h->key.len > 7 && ngx_memcmp(h->lowcase_key, "openai-", 7) == 0) {

        /* organization and project are of the client's account */

        return a->provider->key_pass
               || ngx_memcmp(h->lowcase_key, "openai-beta",
                             ngx_min(h->key.len, 11))
                  == 0;
    }

    return 0;
}


static ngx_uint_t
ngx_http_ai_build_safe(ngx_str_t *value)
{
    size_t  i;

    for (i = 0; i < value->len; i++) {
        if ((value->data[i] < 0x20 && value->data[i] != '\t')
            || value->data[i] == 0x7f)
        {
            return 0;
        }
    }

    return 1;
}
