
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The way of a request up to its content handler, in one place: find out the
 * operation, read the body, parse its top level, run the hooks in the order of
 * ngx_http_ai_stage_e.
 */


#include "ngx_http_ai_core_module.h"


#define NGX_HTTP_AI_MAX_MODEL       256
#define NGX_HTTP_AI_MAX_REQUEST_ID  128
#define NGX_HTTP_AI_REQUEST_NODES   32


typedef struct {
    ngx_str_t                  suffix;
    ngx_http_ai_op_e           op;
    ngx_http_ai_dialect_t     *dialect;
} ngx_http_ai_path_t;


static void ngx_http_ai_ctx_pool_cleanup(void *data);
static void ngx_http_ai_ctx_settle(void *data);
static void ngx_http_ai_detect(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx);
static ngx_int_t ngx_http_ai_request_id(ngx_http_request_t *r,
    ngx_str_t *id);
static ngx_int_t ngx_http_ai_check_request(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);
static ngx_int_t ngx_http_ai_read_body(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);
static void ngx_http_ai_body_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_ai_gather_body(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);
static ngx_int_t ngx_http_ai_parse(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_error_t *err);
static ngx_int_t ngx_http_ai_run_stages(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);
static ngx_int_t ngx_http_ai_fault(ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_error_t *err, const char *param, const char *fmt, ...);


/* the longer of two that end alike comes first */

static ngx_http_ai_path_t  ngx_http_ai_paths[] = {
    { ngx_string("/chat/completions"), NGX_HTTP_AI_OP_CHAT,
      &ngx_http_ai_dialect_openai },
    { ngx_string("/completions"), NGX_HTTP_AI_OP_COMPLETIONS,
      &ngx_http_ai_dialect_openai },
    { ngx_string("/embeddings"), NGX_HTTP_AI_OP_EMBEDDINGS,
      &ngx_http_ai_dialect_openai },
    { ngx_string("/messages/count_tokens"), NGX_HTTP_AI_OP_COUNT_TOKENS,
      &ngx_http_ai_dialect_anthropic },
    { ngx_string("/messages"), NGX_HTTP_AI_OP_CHAT,
      &ngx_http_ai_dialect_anthropic },
    { ngx_string("/models"), NGX_HTTP_AI_OP_MODELS, NULL },
    { ngx_null_string, NGX_HTTP_AI_OP_NONE, NULL }
};


static uint64_t  ngx_http_ai_random_state[2];


ngx_http_ai_ctx_t *
ngx_http_ai_get_ctx(ngx_http_request_t *r)
{
    ngx_http_ai_ctx_t   *ctx;
    ngx_pool_cleanup_t  *cln;

    r = r->main;

    ctx = ngx_http_get_module_ctx(r, ngx_http_ai_core_module);

    if (ctx || !(r->internal || r->filter_finalize)) {
        return ctx;
    }

    /* r->ctx[] was zeroed by an internal redirect, the pool was not */

    for (cln = r->pool->cleanup; cln; cln = cln->next) {

        if (cln->handler == ngx_http_ai_ctx_pool_cleanup) {
            ctx = cln->data;
            ngx_http_set_ctx(r, ctx, ngx_http_ai_core_module);
            return ctx;
        }
    }

    return NULL;
}


ngx_http_ai_ctx_t *
ngx_http_ai_create_ctx(ngx_http_request_t *r)
{
    ngx_http_ai_ctx_t            *ctx;
    ngx_http_cleanup_t           *hcln;
    ngx_pool_cleanup_t           *cln;
    ngx_http_ai_core_loc_conf_t  *alcf;

    ctx = ngx_pcalloc(r->pool, sizeof(ngx_http_ai_ctx_t));
    if (ctx == NULL) {
        return NULL;
    }

    alcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_core_module);

    ctx->request = r;
    ctx->limits = &alcf->limits;
    ctx->start = ngx_current_msec;
    ctx->ttft = -1;
    ctx->cost = -1;
    ctx->images = -1;
    ctx->input_estimate = -1;
    ctx->output_cap = -1;
    ctx->watch = NGX_HTTP_AI_WATCH_NEVER;
    ngx_http_ai_usage_init(&ctx->usage);

    /* of a usual request's top level */

    ctx->json.nodes = ngx_palloc(r->pool, NGX_HTTP_AI_REQUEST_NODES
                                          * sizeof(ngx_http_ai_json_node_t));
    if (ctx->json.nodes == NULL) {
        return NULL;
    }

    ctx->json.nalloc = NGX_HTTP_AI_REQUEST_NODES;
    ctx->json.pool = r->pool;
    ctx->json.max_depth = alcf->limits.max_depth;
    ctx->json.max_nodes = alcf->limits.max_nodes;

    if (ngx_http_ai_request_id(r, &ctx->request_id) != NGX_OK) {
        return NULL;
    }

    ngx_http_ai_detect(r, ctx);

    cln = ngx_pool_cleanup_add(r->pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    cln->handler = ngx_http_ai_ctx_pool_cleanup;
    cln->data = ctx;

    /* runs before the log phase whatever way the request ends */

    hcln = ngx_http_cleanup_add(r, 0);
    if (hcln == NULL) {
        return NULL;
    }

    hcln->handler = ngx_http_ai_ctx_settle;
    hcln->data = ctx;

    ngx_http_set_ctx(r, ctx, ngx_http_ai_core_module);

    return ctx;
}


static void
ngx_http_ai_ctx_pool_cleanup(void *data)
{
    /* only a mark that ngx_http_ai_get_ctx() looks for */
}


static void
ngx_http_ai_ctx_settle(void *data)
{
    ngx_http_ai_ctx_t *ctx = data;

    ngx_uint_t                      i, stage;
    ngx_http_request_t             *r;
    ngx_http_variable_t            *v;
    ngx_http_ai_hook_pt            *hook;
    ngx_http_core_main_conf_t      *cmcf;
    ngx_http_ai_core_main_conf_t   *amcf;

    if (ctx->settled) {
        return;
    }

    ctx->settled = 1;

    r = ctx->request;
    amcf = ngx_http_get_module_main_conf(r, ngx_http_ai_core_module);

    for (stage = NGX_HTTP_AI_STAGE_METER;
         stage < NGX_HTTP_AI_STAGE_MAX;
         stage++)
    {
        hook = amcf->hooks[stage].elts;

        for (i = 0; i < amcf->hooks[stage].nelts; i++) {
            (void) hook[i](r, ctx);
        }
    }

    /* the log takes cached values, which may be of an earlier phase */

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_core_module);
    v = cmcf->variables.elts;

    for (i = 0; i < cmcf->variables.nelts; i++) {
        if (v[i].get_handler && v[i].name.len > 3
            && ngx_strncmp(v[i].name.data, "ai_", 3) == 0)
        {
            r->variables[i].valid = 0;
            r->variables[i].not_found = 0;
        }
    }
}


static void
ngx_http_ai_detect(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    u_char              *p, *last;
    ngx_http_ai_path_t  *path;

    static ngx_str_t     models = ngx_string("/models/");

    for (path = ngx_http_ai_paths; path->suffix.len; path++) {

        if (r->uri.len >= path->suffix.len
            && ngx_memcmp(r->uri.data + r->uri.len - path->suffix.len,
                          path->suffix.data, path->suffix.len)
               == 0)
        {
            ctx->op = path->op;
            ctx->dialect = path->dialect;
            break;
        }
    }

    if (ctx->op == NGX_HTTP_AI_OP_NONE) {
        ctx->op = NGX_HTTP_AI_OP_PASS;

        /* a model's name may contain slashes */

        last = r->uri.data + r->uri.len;

        for (p = r->uri.data; p + models.len < last; p++) {
            if (*p == '/' && ngx_memcmp(p, models.data, models.len) == 0) {
                ctx->op = NGX_HTTP_AI_OP_MODEL;
                ctx->op_model.data = p + models.len;
                ctx->op_model.len = last - p - models.len;
                break;
            }
        }
    }

    if (ctx->dialect) {
        return;
    }

    /* paths that both dialects have: only Anthropic's clients send this */

    ctx->dialect = ngx_http_ai_header_in(r, "anthropic-version")
                   ? &ngx_http_ai_dialect_anthropic
                   : &ngx_http_ai_dialect_openai;
}


void
ngx_http_ai_random_seed(void)
{
    ngx_time_t  *tp;

    tp = ngx_timeofday();

    ngx_http_ai_random_state[0] = ((uint64_t) ngx_random() << 33)
                                  ^ ((uint64_t) ngx_random() << 2)
                                  ^ ((uint64_t) ngx_pid << 16);
    ngx_http_ai_random_state[1] = ((uint64_t) tp->sec << 20) ^ tp->msec
                                  ^ ((uint64_t) ngx_random() << 31);
}


/* xorshift128+ */

uint64_t
ngx_http_ai_random(void)
{
    uint64_t  a, b;

    a = ngx_http_ai_random_state[0];
    b = ngx_http_ai_random_state[1];

    ngx_http_ai_random_state[0] = b;
    a ^= a << 23;
    a ^= a >> 17;
    a ^= b ^ (b >> 26);
    ngx_http_ai_random_state[1] = a;

    return a + b;
}


static ngx_int_t
ngx_http_ai_request_id(ngx_http_request_t *r, ngx_str_t *id)
{
    u_char            c, *p;
    uint64_t          v[2];
    ngx_uint_t        n;
    ngx_table_elt_t  *h;

    h = ngx_http_ai_header_in(r, "x-request-id");

    if (h && h->value.len && h->value.len <= NGX_HTTP_AI_MAX_REQUEST_ID) {

        for (n = 0; n < h->value.len; n++) {
            c = h->value.data[n];

            if (!((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z')
                  || (c >= 'a' && c <= 'z') || c == '-' || c == '_'
                  || c == '.' || c == ':'))
            {
                break;
            }
        }

        if (n == h->value.len) {
            *id = h->value;
            return NGX_OK;
        }
    }

    p = ngx_pnalloc(r->pool, sizeof("req_") - 1 + 32);
    if (p == NULL) {
        return NGX_ERROR;
    }

    v[0] = ngx_http_ai_random();
    v[1] = ngx_http_ai_random();

    id->data = p;
    p = ngx_cpymem(p, "req_", sizeof("req_") - 1);
    p = ngx_hex_dump(p, (u_char *) v, sizeof(v));
    id->len = p - id->data;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_precontent_handler(ngx_http_request_t *r)
{
    ngx_int_t                     rc;
    ngx_http_ai_ctx_t            *ctx;
    ngx_http_ai_core_loc_conf_t  *alcf;

    alcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_core_module);

    if (!alcf->enable || r != r->main) {
        return NGX_DECLINED;
    }

    ctx = ngx_http_ai_get_ctx(r);

    if (ctx == NULL) {
        ctx = ngx_http_ai_create_ctx(r);
        if (ctx == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    if (ctx->ready) {
        return NGX_DECLINED;
    }

    if (ctx->reading || ctx->waiting) {
        return NGX_DONE;
    }

    rc = ngx_http_ai_check_request(r, ctx);

    if (rc != NGX_DECLINED) {
        ngx_http_finalize_request(r, rc);
        return NGX_DONE;
    }

    if (!(r->method & (NGX_HTTP_POST|NGX_HTTP_PUT|NGX_HTTP_PATCH))) {

        rc = ngx_http_discard_request_body(r);
        if (rc != NGX_OK) {
            return rc;
        }

        rc = ngx_http_ai_run_stages(r, ctx);

        if (rc == NGX_AGAIN) {
            return NGX_AGAIN;
        }

        if (rc == NGX_DONE) {
            ngx_http_finalize_request(r, ctx->rc);
            return NGX_DONE;
        }

        return NGX_DECLINED;
    }

    ctx->reading = 1;

    rc = ngx_http_ai_read_body(r, ctx);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    ngx_http_finalize_request(r, NGX_DONE);

    return NGX_DONE;
}


/* NGX_DECLINED: nothing is wrong; else what to finalize the request with */

static ngx_int_t
ngx_http_ai_check_request(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    ngx_str_t             allow;
    ngx_table_elt_t      *h;
    ngx_http_ai_error_t   err;

    if (ctx->op == NGX_HTTP_AI_OP_PASS) {
        return NGX_DECLINED;
    }

    if (ctx->op == NGX_HTTP_AI_OP_MODELS || ctx->op == NGX_HTTP_AI_OP_MODEL) {

        if (r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD)) {
            return NGX_DECLINED;
        }

        ngx_str_set(&allow, "GET");

    } else {

        if (r->method == NGX_HTTP_POST) {
            goto post;
        }

        ngx_str_set(&allow, "POST");
    }

    ngx_memzero(&err, sizeof(ngx_http_ai_error_t));

    if (ngx_http_ai_header_add(&r->headers_out.headers, "Allow", &allow)
        == NULL
        || ngx_http_ai_fault(ctx, &err, NULL, "method %V is not allowed "
                              "here, use %V", &r->method_name, &allow)
           != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    err.class = NGX_HTTP_AI_ERR_METHOD;

    return ngx_http_ai_send_error(r, ctx, &err, -1, 0);

post:

    if (r->headers_in.content_length_n > (off_t) ctx->limits->max_body) {
        ngx_memzero(&err, sizeof(ngx_http_ai_error_t));

        if (ngx_http_ai_fault(ctx, &err, NULL, "the request body is larger "
                               "than %uz bytes (ai_max_body)",
                               ctx->limits->max_body)
            != NGX_OK)
        {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        err.class = NGX_HTTP_AI_ERR_TOO_LARGE;

        return ngx_http_ai_send_error(r, ctx, &err, -1, 0);
    }

    h = ngx_http_ai_header_in(r, "content-encoding");

    if (h == NULL
        || (h->value.len == sizeof("identity") - 1
            && ngx_strncasecmp(h->value.data, (u_char *) "identity",
                               sizeof("identity") - 1)
               == 0))
    {
        return NGX_DECLINED;
    }

    ngx_memzero(&err, sizeof(ngx_http_ai_error_t));

    if (ngx_http_ai_fault(ctx, &err, NULL,
                           "content-encoding of the request body is not "
                           "supported, send it uncompressed")
        != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    err.class = NGX_HTTP_AI_ERR_MEDIA_TYPE;

    return ngx_http_ai_send_error(r, ctx, &err, -1, 0);
}


/*
 * The part of a body that came with the header stays where it is, while the
 * rest is read elsewhere, unless there is room behind it.  A buffer for all of
 * it in the place of the header's saves moving a long body into one piece.
 */

static ngx_int_t
ngx_http_ai_read_body(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    off_t                      length;
    size_t                     preread;
    ngx_buf_t                 *b, *header_in;
    ngx_int_t                  rc;
    ngx_http_core_loc_conf_t  *clcf;

    header_in = r->header_in;

    if (ctx->op == NGX_HTTP_AI_OP_PASS || r->headers_in.chunked
        || r->http_version >= NGX_HTTP_VERSION_20
        || r->request_body || r->discard_body)
    {
        return ngx_http_read_client_request_body(r, ngx_http_ai_body_handler);
    }

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    preread = header_in->last - header_in->pos;
    length = r->headers_in.content_length_n;

    if (preread == 0 || length <= (off_t) preread
        || length - (off_t) preread <= header_in->end - header_in->last
        || length > (off_t) clcf->client_body_buffer_size
        || clcf->client_body_in_file_only)
    {
        return ngx_http_read_client_request_body(r, ngx_http_ai_body_handler);
    }

    b = ngx_create_temp_buf(r->pool, (size_t) length);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b->last = ngx_cpymem(b->last, header_in->pos, preread);
    header_in->pos = header_in->last;

    r->header_in = b;

    rc = ngx_http_read_client_request_body(r, ngx_http_ai_body_handler);

    /* the request is there yet: reading has added a reference */

    r->header_in = header_in;

    return rc;
}


static void
ngx_http_ai_body_handler(ngx_http_request_t *r)
{
    ngx_int_t             rc;
    ngx_http_ai_ctx_t    *ctx;
    ngx_http_ai_error_t   err;

    ctx = ngx_http_ai_get_ctx(r);

    ctx->reading = 0;
    r->preserve_body = 1;

    if (ctx->op != NGX_HTTP_AI_OP_PASS) {
        ngx_memzero(&err, sizeof(ngx_http_ai_error_t));

        rc = ngx_http_ai_gather_body(r, ctx);

        if (rc == NGX_OK) {
            rc = ngx_http_ai_parse(r, ctx, &err);

        } else if (rc == NGX_DECLINED) {
            rc = ngx_http_ai_fault(ctx, &err, NULL, "the request body is "
                                    "larger than %uz bytes (ai_max_body)",
                                    ctx->limits->max_body);
            err.class = NGX_HTTP_AI_ERR_TOO_LARGE;
            rc = (rc == NGX_OK) ? NGX_DECLINED : NGX_ERROR;
        }

        if (rc == NGX_DECLINED) {
            ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                          "ai request: refused: %V", &err.message);

            ngx_http_finalize_request(r,
                               ngx_http_ai_send_error(r, ctx, &err, -1, 0));
            return;
        }

        if (rc != NGX_OK) {
            ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
            return;
        }
    }

    rc = ngx_http_ai_run_stages(r, ctx);

    if (rc == NGX_AGAIN) {
        r->write_event_handler = ngx_http_request_empty_handler;
        return;
    }

    if (rc == NGX_DONE) {
        ngx_http_finalize_request(r, ctx->rc);
        return;
    }

    r->write_event_handler = ngx_http_core_run_phases;
    ngx_http_core_run_phases(r);
}


/* the body as one block of memory; NGX_DECLINED when it is over the limit */

static ngx_int_t
ngx_http_ai_gather_body(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    off_t         size;
    u_char       *p;
    size_t        len;
    ssize_t       n;
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    if (r->request_body == NULL || r->request_body->bufs == NULL) {
        ctx->body.data = (u_char *) "";
        ctx->body.len = 0;
        return NGX_OK;
    }

    size = 0;

    for (cl = r->request_body->bufs; cl; cl = cl->next) {
        size += ngx_buf_size(cl->buf);
    }

    if (size > (off_t) ctx->limits->max_body) {
        return NGX_DECLINED;
    }

    /* pieces that were read one behind another are whole as they are */

    p = NULL;

    for (cl = r->request_body->bufs; cl; cl = cl->next) {
        b = cl->buf;

        if (ngx_buf_size(b) == 0) {
            continue;
        }

        if (!ngx_buf_in_memory(b) || (p && b->pos != p)) {
            break;
        }

        if (p == NULL) {
            ctx->body.data = b->pos;
        }

        p = b->last;
    }

    if (cl == NULL && p) {
        ctx->body.len = p - ctx->body.data;
        return NGX_OK;
    }

    p = ngx_palloc(r->pool, size ? (size_t) size : 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ctx->body.data = p;

    for (cl = r->request_body->bufs; cl; cl = cl->next) {
        b = cl->buf;

        if (ngx_buf_in_memory(b)) {
            p = ngx_cpymem(p, b->pos, b->last - b->pos);
            continue;
        }

        if (!b->in_file) {
            /* only marks the end of a chunked or empty body */
            continue;
        }

        len = (size_t) (b->file_last - b->file_pos);

        n = ngx_read_file(b->file, p, len, b->file_pos);

        if (n == NGX_ERROR || (size_t) n != len) {
            return NGX_ERROR;
        }

        p += n;
    }

    ctx->body.len = p - ctx->body.data;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_parse(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_error_t *err)
{
    size_t                        i;
    ngx_int_t                     rc;
    ngx_str_t                     raw;
    ngx_uint_t                    n, type;
    ngx_http_ai_json_t           *j, options;
    ngx_http_ai_json_node_t       nodes[8];
    ngx_http_ai_core_loc_conf_t  *alcf;

    alcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_core_module);

    j = &ctx->json;
    j->shallow = alcf->whole ? 0 : 1;

    rc = ngx_http_ai_json_parse(j, ctx->body.data, ctx->body.len);

    if (rc == NGX_OK) {
        ctx->whole = !j->shallow;

    } else if (rc == NGX_DECLINED && j->limit && !j->shallow) {

        /* there may be too many values only below the top level */

        j->shallow = 1;
        rc = ngx_http_ai_json_parse(j, ctx->body.data, ctx->body.len);
    }

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (rc == NGX_DECLINED) {

        rc = ngx_http_ai_fault(ctx, err, NULL,
                     j->limit ? "the request body exceeds a limit: %s at byte "
                                "%uz (ai_max_depth, ai_max_nodes)"
                              : "could not parse the request body as JSON: %s "
                                "at byte %uz",
                     j->error, j->error_offset);

        return (rc == NGX_OK) ? NGX_DECLINED : NGX_ERROR;
    }

    if (ngx_http_ai_json_type(j, 0) != NGX_HTTP_AI_JSON_OBJECT) {
        rc = ngx_http_ai_fault(ctx, err, NULL,
                                "the request body must be a JSON object");
        return (rc == NGX_OK) ? NGX_DECLINED : NGX_ERROR;
    }

    n = ngx_http_ai_json_member(j, 0, "model");

    if (n != NGX_HTTP_AI_JSON_NONE
        && ngx_http_ai_json_duplicate(j, 0, "model", sizeof("model") - 1))
    {
        rc = ngx_http_ai_fault(ctx, err, "model",
                                "\"model\" is given more than once");
        return (rc == NGX_OK) ? NGX_DECLINED : NGX_ERROR;
    }

    if (ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_STRING
        || j->nodes[n].len == 0)
    {
        rc = ngx_http_ai_fault(ctx, err, "model",
                                "you must provide a \"model\" as a string");
        return (rc == NGX_OK) ? NGX_DECLINED : NGX_ERROR;
    }

    raw = ngx_http_ai_json_raw(j, n);

    if (raw.len > NGX_HTTP_AI_MAX_MODEL) {
        rc = ngx_http_ai_fault(ctx, err, "model", "\"model\" is longer than "
                                "%d bytes", NGX_HTTP_AI_MAX_MODEL);
        return (rc == NGX_OK) ? NGX_DECLINED : NGX_ERROR;
    }

    if (ngx_http_ai_json_unescape_str(r->pool, &raw, &ctx->request_model)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < ctx->request_model.len; i++) {
        if (ctx->request_model.data[i] < 0x20
            || ctx->request_model.data[i] == 0x7f)
        {
            /* a variable of it may be part of a header */
            ngx_str_null(&ctx->request_model);

            rc = ngx_http_ai_fault(ctx, err, "model", "\"model\" contains a "
                                    "control character");
            return (rc == NGX_OK) ? NGX_DECLINED : NGX_ERROR;
        }
    }

    ctx->model_node = n;

    if (ctx->op != NGX_HTTP_AI_OP_CHAT
        && ctx->op != NGX_HTTP_AI_OP_COMPLETIONS)
    {
        ctx->parsed = 1;
        return NGX_OK;
    }

    n = ngx_http_ai_json_member(j, 0, "stream");
    type = ngx_http_ai_json_type(j, n);

    if (type != NGX_HTTP_AI_JSON_TRUE && type != NGX_HTTP_AI_JSON_FALSE
        && type != NGX_HTTP_AI_JSON_NULL)
    {
        rc = ngx_http_ai_fault(ctx, err, "stream",
                                "\"stream\" must be true or false");
        return (rc == NGX_OK) ? NGX_DECLINED : NGX_ERROR;
    }

    ctx->stream = (type == NGX_HTTP_AI_JSON_TRUE);

    n = ngx_http_ai_json_member(j, 0, "stream_options");

    if (ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_OBJECT) {
        raw = ngx_http_ai_json_raw(j, n);

        ngx_memzero(&options, sizeof(ngx_http_ai_json_t));
        options.pool = r->pool;
        options.nodes = nodes;
        options.nalloc = 8;
        options.shallow = 1;

        if (ngx_http_ai_json_parse(&options, raw.data, raw.len) != NGX_OK) {
            return NGX_ERROR;
        }

        n = ngx_http_ai_json_member(&options, 0, "include_usage");
        ctx->include_usage = (ngx_http_ai_json_type(&options, n)
                              == NGX_HTTP_AI_JSON_TRUE);
    }

    ctx->parsed = 1;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_parse_body(ngx_http_ai_ctx_t *ctx, ngx_http_ai_error_t *err)
{
    ngx_int_t            rc;
    ngx_http_ai_json_t  *j;

    if (ctx->whole) {
        return NGX_OK;
    }

    j = &ctx->json;
    j->shallow = 0;

    rc = ngx_http_ai_json_parse(j, ctx->body.data, ctx->body.len);

    if (rc == NGX_DECLINED) {
        rc = ngx_http_ai_fault(ctx, err, NULL, "the request body exceeds a "
                                "limit: %s at byte %uz (ai_max_nodes)",
                                j->error, j->error_offset);

        /* the top level, for those who go on without the rest */

        j->shallow = 1;

        if (rc != NGX_OK
            || ngx_http_ai_json_parse(j, ctx->body.data, ctx->body.len)
               != NGX_OK)
        {
            return NGX_ERROR;
        }

        ctx->model_node = ngx_http_ai_json_member(j, 0, "model");

        return NGX_DECLINED;
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    ctx->whole = 1;
    ctx->model_node = ngx_http_ai_json_member(j, 0, "model");

    return NGX_OK;
}


/* NGX_OK: all have agreed; NGX_AGAIN; NGX_DONE: ctx->rc is the end */

static ngx_int_t
ngx_http_ai_run_stages(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx)
{
    ngx_int_t                       rc;
    ngx_array_t                    *hooks;
    ngx_http_ai_hook_pt            *hook;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = ngx_http_get_module_main_conf(r, ngx_http_ai_core_module);

    for ( /* void */ ; ctx->stage < NGX_HTTP_AI_STAGE_METER; ctx->stage++) {
        hooks = &amcf->hooks[ctx->stage];
        hook = hooks->elts;

        for ( /* void */ ; ctx->hook < hooks->nelts; ctx->hook++) {
            rc = hook[ctx->hook](r, ctx);

            if (rc == NGX_AGAIN) {
                ctx->waiting = 1;
                return NGX_AGAIN;
            }

            if (rc == NGX_ERROR) {
                ctx->rc = NGX_HTTP_INTERNAL_SERVER_ERROR;
                return NGX_DONE;
            }

            if (rc == NGX_DONE) {
                return NGX_DONE;
            }
        }

        ctx->hook = 0;
    }

    ctx->ready = 1;

    return NGX_OK;
}


void
ngx_http_ai_resume(ngx_http_request_t *r)
{
    ngx_int_t           rc;
    ngx_connection_t   *c;
    ngx_http_ai_ctx_t  *ctx;

    c = r->connection;
    ctx = ngx_http_ai_get_ctx(r);

    ngx_http_set_log_request(c->log, r);

    ctx->waiting = 0;

    rc = ngx_http_ai_run_stages(r, ctx);

    if (rc == NGX_AGAIN) {
        return;
    }

    if (rc == NGX_DONE) {
        ngx_http_finalize_request(r, ctx->rc);

    } else {
        r->write_event_handler = ngx_http_core_run_phases;
        ngx_http_core_run_phases(r);
    }

    ngx_http_run_posted_requests(c);
}


ngx_uint_t
ngx_http_ai_client_closed(ngx_http_request_t *r)
{
    int                n;
    char               buf[1];
    ngx_event_t       *rev;
    ngx_connection_t  *c;

    c = r->connection;
    rev = c->read;

    if (c->error) {
        return 1;
    }

#if (NGX_HTTP_V2)

    if (r->stream) {
        return 0;
    }

#endif

#if (NGX_HTTP_V3)

    if (c->quic) {
        return 0;
    }

#endif

#if (NGX_HAVE_EPOLLRDHUP)

    if ((ngx_event_flags & NGX_USE_EPOLL_EVENT) && ngx_use_epoll_rdhup) {

        if (!rev->pending_eof) {
            return 0;
        }

        rev->eof = 1;
        goto closed;
    }

#endif

    n = recv(c->fd, buf, 1, MSG_PEEK);

    if (n > 0 || (n == -1 && ngx_socket_errno == NGX_EAGAIN)) {

        if ((ngx_event_flags & NGX_USE_LEVEL_EVENT) && rev->active) {
            (void) ngx_del_event(rev, NGX_READ_EVENT, 0);
        }

        return 0;
    }

    rev->eof = 1;

#if (NGX_HAVE_EPOLLRDHUP)
closed:
#endif

#if (NGX_HTTP_SSL)
    if (c->ssl) {
        c->ssl->no_send_shutdown = 1;
    }
#endif

    return 1;
}


ngx_int_t
ngx_http_ai_permit(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_route_t *route, ngx_http_ai_error_t *err)
{
    ngx_int_t                       rc;
    ngx_uint_t                      i;
    ngx_http_ai_permit_pt          *permit;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = ngx_http_get_module_main_conf(r, ngx_http_ai_core_module);
    permit = amcf->permits.elts;

    for (i = 0; i < amcf->permits.nelts; i++) {
        rc = permit[i](r, ctx, route, err);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_observe(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    uint64_t counted)
{
    ngx_int_t                       rc;
    ngx_uint_t                      i;
    ngx_http_ai_observer_pt        *observer;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = ngx_http_get_module_main_conf(r, ngx_http_ai_core_module);
    observer = amcf->observers.elts;

    for (i = 0; i < amcf->observers.nelts; i++) {
        rc = observer[i](r, ctx, counted);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_fault(ngx_http_ai_ctx_t *ctx, ngx_http_ai_error_t *err,
    const char *param, const char *fmt, ...)
{
    u_char   buf[NGX_MAX_ERROR_STR], *p;
    va_list  args;

    va_start(args, fmt);
    p = ngx_vslprintf(buf, buf + NGX_MAX_ERROR_STR, fmt, args);
    va_end(args);

    err->message.len = p - buf;
    err->message.data = ngx_pnalloc(ctx->request->pool, err->message.len);
    if (err->message.data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(err->message.data, buf, err->message.len);

    err->class = NGX_HTTP_AI_ERR_INVALID_REQUEST;

    if (param) {
        err->param.data = (u_char *) param;
        err->param.len = ngx_strlen(param);
    }

    return NGX_OK;
}
