
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Commands, their answers and the breaker.  A command lives on its own, not
 * in a request's pool: who has sent it may go, its answer still comes.
 */


#include <ngx_sha1.h>
#include "ngx_http_ai_redis_ctx.h"


#define NGX_HTTP_AI_REDIS_ARGS  64

/* ms between looks at a breaker that is open */
#define NGX_HTTP_AI_REDIS_LOOK  100


static ngx_int_t ngx_http_ai_redis_init_shared(ngx_slab_pool_t *shpool,
    void **data, void *conf, ngx_log_t *log);
static ngx_http_ai_redis_conn_t *ngx_http_ai_redis_pick(
    ngx_http_ai_redis_t *redis, ngx_uint_t *coming);
static ngx_http_ai_redis_op_t *ngx_http_ai_redis_alloc(
    ngx_http_ai_redis_t *redis, ngx_str_t *argv, ngx_uint_t argc);
static ngx_int_t ngx_http_ai_redis_write(ngx_http_ai_redis_conn_t *rc,
    ngx_http_ai_redis_op_t *op);
static ngx_int_t ngx_http_ai_redis_append(ngx_http_ai_redis_conn_t *rc,
    const char *data, size_t len);
static ngx_int_t ngx_http_ai_redis_first(ngx_http_ai_redis_conn_t *rc,
    ngx_http_ai_redis_kind_e kind, const char *words[], ngx_str_t *arg,
    ngx_uint_t narg);
static ngx_int_t ngx_http_ai_redis_greeted(ngx_http_ai_redis_conn_t *rc,
    ngx_http_ai_redis_op_t *op, redisReply *reply);
static void ngx_http_ai_redis_info(ngx_http_ai_redis_conn_t *rc,
    ngx_str_t *text);
static void ngx_http_ai_redis_ready(ngx_http_ai_redis_conn_t *rc);
static void ngx_http_ai_redis_warn(ngx_http_ai_redis_t *redis);
static ngx_uint_t ngx_http_ai_redis_elsewhere(ngx_str_t *text);
static void ngx_http_ai_redis_deliver(ngx_http_ai_redis_op_t *op,
    ngx_http_ai_redis_reply_t *reply);
static void ngx_http_ai_redis_untime(ngx_http_ai_redis_op_t *op);
static void ngx_http_ai_redis_free(ngx_http_ai_redis_op_t *op);
static void ngx_http_ai_redis_timeout_handler(ngx_event_t *ev);
static void ngx_http_ai_redis_arm(ngx_http_ai_redis_t *redis);
static void ngx_http_ai_redis_failure(ngx_http_ai_redis_t *redis);
static void ngx_http_ai_redis_look(ngx_http_ai_redis_t *redis);
static void ngx_http_ai_redis_probe_handler(ngx_event_t *ev);
static void ngx_http_ai_redis_probed(void *data,
    ngx_http_ai_redis_reply_t *reply);
static ngx_int_t ngx_http_ai_redis_submit(ngx_http_ai_redis_t *redis,
    ngx_http_ai_redis_op_t *op, ngx_uint_t probe);


ngx_int_t
ngx_http_ai_redis_shared(ngx_conf_t *cf)
{
    ngx_http_ai_core_main_conf_t  *amcf;

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_core_module);

    return ngx_http_ai_add_shared(cf, "redis-1", ngx_http_ai_redis_init_shared,
                                  amcf);
}


/* places are kept by name over reloads; those of removed names are free */

static ngx_int_t
ngx_http_ai_redis_init_shared(ngx_slab_pool_t *shpool, void **data,
    void *conf, ngx_log_t *log)
{
    ngx_http_ai_core_main_conf_t  *amcf = conf;

    ngx_uint_t                i, k, n;
    ngx_http_ai_redis_t     **r;
    ngx_http_ai_redis_sh_t   *sh;

    n = 4 * NGX_HTTP_AI_REDIS_MAX;

    if (*data == NULL) {
        *data = ngx_slab_calloc(shpool, n * sizeof(ngx_http_ai_redis_sh_t));
        if (*data == NULL) {
            return NGX_ERROR;
        }
    }

    r = amcf->redises.elts;

    for (i = 0; i < amcf->redises.nelts; i++) {
        sh = *data;

        for (k = 0; k < n; k++) {
            if (sh[k].name[0] == '\0') {
                ngx_memcpy(sh[k].name, r[i]->name.data, r[i]->name.len);
                break;
            }

            if (ngx_strlen(sh[k].name) == r[i]->name.len
                && ngx_strncmp(sh[k].name, r[i]->name.data, r[i]->name.len)
                   == 0)
            {
                break;
            }
        }

        /* all are taken: after so many names the last is shared */

        r[i]->sh = &sh[ngx_min(k, n - 1)];
    }

    return NGX_OK;
}


void
ngx_http_ai_redis_start(ngx_cycle_t *cycle, ngx_http_ai_core_main_conf_t *amcf)
{
    ngx_uint_t             i, k;
    ngx_http_ai_redis_t   *redis, **r;

    r = amcf->redises.elts;

    for (i = 0; i < amcf->redises.nelts; i++) {
        redis = r[i];

        redis->conns = ngx_pcalloc(cycle->pool, redis->nconns
                                   * sizeof(ngx_http_ai_redis_conn_t));
        if (redis->conns == NULL) {
            continue;
        }

        ngx_queue_init(&redis->queued);
        ngx_queue_init(&redis->timed);

        redis->dummy.fd = (ngx_socket_t) -1;
        redis->dummy.data = redis;

        redis->timer.handler = ngx_http_ai_redis_timeout_handler;
        redis->timer.data = &redis->dummy;
        redis->timer.log = cycle->log;

        redis->probe.handler = ngx_http_ai_redis_probe_handler;
        redis->probe.data = &redis->dummy;
        redis->probe.log = cycle->log;
        redis->probe.cancelable = 1;

        redis->started = 1;

        for (k = 0; k < redis->nconns; k++) {
            ngx_http_ai_redis_conn_init(&redis->conns[k], redis);
            ngx_http_ai_redis_connect(&redis->conns[k]);
        }
    }
}


void
ngx_http_ai_redis_stop(ngx_cycle_t *cycle, ngx_http_ai_core_main_conf_t *amcf)
{
    void                  **handler;
    ngx_uint_t              i, k;
    ngx_http_ai_redis_t    *redis, **r;

    r = amcf->redises.elts;

    for (i = 0; i < amcf->redises.nelts; i++) {
        redis = r[i];

        if (!redis->started) {
            continue;
        }

        handler = redis->at_exit.elts;

        for (k = 0; k < redis->at_exit.nelts; k++) {
            ((void (*)(ngx_cycle_t *)) (uintptr_t) handler[k])(cycle);
        }
    }

    for (i = 0; i < amcf->redises.nelts; i++) {
        redis = r[i];

        if (!redis->started) {
            continue;
        }

        for (k = 0; k < redis->nconns; k++) {
            ngx_http_ai_redis_drain(&redis->conns[k],
                                    ngx_max(redis->timeout, 100));
            ngx_http_ai_redis_close(&redis->conns[k]);
        }

        redis->started = 0;
    }
}


ngx_int_t
ngx_http_ai_redis_send(ngx_http_ai_redis_t *redis,
    ngx_http_ai_redis_script_t *script, ngx_str_t *argv, ngx_uint_t argc,
    ngx_http_ai_redis_pt handler, void *data, ngx_http_ai_redis_op_t **ret)
{
    u_char                   digest[20];
    ngx_int_t                rc;
    ngx_sha1_t               sha1;
    ngx_http_ai_redis_op_t  *op;

    if (!redis->started || argc + 2 > NGX_HTTP_AI_REDIS_ARGS) {
        return NGX_DECLINED;
    }

    if (redis->sh->open) {
        ngx_http_ai_redis_look(redis);
        return NGX_DECLINED;
    }

    if (script && !script->ready) {
        ngx_sha1_init(&sha1);
        ngx_sha1_update(&sha1, script->text.data, script->text.len);
        ngx_sha1_final(digest, &sha1);
        (void) ngx_hex_dump(script->sha1, digest, sizeof(digest));

        script->ready = 1;
    }

    op = ngx_http_ai_redis_alloc(redis, argv, argc);
    if (op == NULL) {
        return NGX_ERROR;
    }

    op->script = script;
    op->handler = handler;
    op->data = data;

    rc = ngx_http_ai_redis_submit(redis, op, 0);

    if (rc != NGX_OK) {
        ngx_free(op);
        return rc;
    }

    if (ret) {
        *ret = op;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_redis_submit(ngx_http_ai_redis_t *redis,
    ngx_http_ai_redis_op_t *op, ngx_uint_t probe)
{
    ngx_int_t                  n;
    ngx_uint_t                 coming;
    ngx_http_ai_redis_conn_t  *rc;

    rc = ngx_http_ai_redis_pick(redis, &coming);

    if (rc == NULL && (!coming || probe)) {
        return NGX_DECLINED;
    }

    op->sent = ngx_current_msec;
    op->deadline = ngx_current_msec + redis->timeout;

    if (rc) {
        n = ngx_http_ai_redis_write(rc, op);

        if (n != NGX_OK) {
            return n;
        }

    } else {
        ngx_queue_insert_tail(&redis->queued, &op->queue);
    }

    /* one time for all: the list is in the order of deadlines */

    ngx_queue_insert_tail(&redis->timed, &op->timed);
    redis->status.pending++;
    ngx_http_ai_redis_count(redis, commands);

    ngx_http_ai_redis_arm(redis);

    return NGX_OK;
}


/* of those that are up the one with the least to do */

static ngx_http_ai_redis_conn_t *
ngx_http_ai_redis_pick(ngx_http_ai_redis_t *redis, ngx_uint_t *coming)
{
    ngx_uint_t                 i;
    ngx_http_ai_redis_conn_t  *rc, *best;

    best = NULL;
    *coming = 0;

    for (i = 0; i < redis->nconns; i++) {
        rc = &redis->conns[i];

        if (rc->state != NGX_HTTP_AI_REDIS_UP) {

            /* in a first try, or one that follows a loss: worth to wait */

            if (rc->failed <= 1 && rc->state != NGX_HTTP_AI_REDIS_DOWN) {
                *coming = 1;
            }

            continue;
        }

        if (best == NULL || rc->nwaiting < best->nwaiting) {
            best = rc;
        }
    }

    return best;
}


static ngx_http_ai_redis_op_t *
ngx_http_ai_redis_alloc(ngx_http_ai_redis_t *redis, ngx_str_t *argv,
    ngx_uint_t argc)
{
    u_char                  *p;
    size_t                   len;
    ngx_uint_t               i;
    ngx_http_ai_redis_op_t  *op;

    len = sizeof(ngx_http_ai_redis_op_t) + argc * sizeof(ngx_str_t);

    for (i = 0; i < argc; i++) {
        len += argv[i].len;
    }

    op = ngx_alloc(len, ngx_cycle->log);
    if (op == NULL) {
        return NULL;
    }

    ngx_memzero(op, sizeof(ngx_http_ai_redis_op_t));

    op->redis = redis;
    op->argc = argc;
    op->argv = (ngx_str_t *) (op + 1);

    p = (u_char *) (op->argv + argc);

    for (i = 0; i < argc; i++) {
        op->argv[i].data = p;
        op->argv[i].len = argv[i].len;
        p = ngx_cpymem(p, argv[i].data, argv[i].len);
    }

    return op;
}


static ngx_int_t
ngx_http_ai_redis_write(ngx_http_ai_redis_conn_t *rc,
    ngx_http_ai_redis_op_t *op)
{
    int          len;
    char        *text;
    size_t       lens[NGX_HTTP_AI_REDIS_ARGS];
    ngx_int_t    n;
    ngx_uint_t   i, k;
    const char  *argv[NGX_HTTP_AI_REDIS_ARGS];

    k = 0;

    if (op->script) {

        if (op->whole) {
            argv[0] = "EVAL";
            argv[1] = (char *) op->script->text.data;
            lens[1] = op->script->text.len;

        } else {
            argv[0] = "EVALSHA";
            argv[1] = (char *) op->script->sha1;
            lens[1] = sizeof(op->script->sha1);
        }

        lens[0] = ngx_strlen(argv[0]);
        k = 2;
    }

    for (i = 0; i < op->argc; i++, k++) {
        argv[k] = (char *) op->argv[i].data;
        lens[k] = op->argv[i].len;
    }

    len = redisFormatCommandArgv(&text, (int) k, argv, lens);

    if (len < 0) {
        return NGX_ERROR;
    }

    n = ngx_http_ai_redis_append(rc, text, len);

    redisFreeCommand(text);

    if (n != NGX_OK) {
        return n;
    }

    op->conn = rc;
    ngx_queue_insert_tail(&rc->waiting, &op->queue);
    rc->nwaiting++;

    ngx_http_ai_redis_flush(rc);

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_redis_append(ngx_http_ai_redis_conn_t *rc, const char *data,
    size_t len)
{
    size_t   size;
    u_char  *out;

    if (rc->last + len > rc->size) {

        if (rc->last - rc->pos + len > NGX_HTTP_AI_REDIS_BUFFER) {
            return NGX_DECLINED;
        }

        size = ngx_max(rc->size, 4096);

        while (size < rc->last - rc->pos + len) {
            size *= 2;
        }

        out = ngx_alloc(size, &rc->log);
        if (out == NULL) {
            return NGX_ERROR;
        }

        if (rc->out) {
            ngx_memcpy(out, rc->out + rc->pos, rc->last - rc->pos);
            ngx_free(rc->out);
        }

        rc->out = out;
        rc->size = size;
        rc->last -= rc->pos;
        rc->pos = 0;
    }

    ngx_memcpy(rc->out + rc->last, data, len);
    rc->last += len;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_redis_hello(ngx_http_ai_redis_conn_t *rc)
{
    u_char                buf[NGX_INT_T_LEN], name[128];
    ngx_str_t             arg[2];
    ngx_uint_t            n;
    ngx_http_ai_redis_t  *redis;

    static const char    *auth[] = { "AUTH", NULL };
    static const char    *select[] = { "SELECT", NULL };
    static const char    *setname[] = { "CLIENT", "SETNAME", NULL };
    static const char    *config[] = { "CONFIG", "GET", "appendonly", NULL };
    static const char    *info[] = { "INFO", "replication", NULL };

    redis = rc->redis;

    if (redis->password.len) {
        n = 0;

        if (redis->user.len) {
            arg[n++] = redis->user;
        }

        arg[n++] = redis->password;

        if (ngx_http_ai_redis_first(rc, NGX_HTTP_AI_REDIS_AUTH, auth, arg, n)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (redis->database) {
        arg[0].data = buf;
        arg[0].len = ngx_sprintf(buf, "%i", redis->database) - buf;

        if (ngx_http_ai_redis_first(rc, NGX_HTTP_AI_REDIS_SELECT, select, arg,
                                    1)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    arg[0].data = name;
    arg[0].len = ngx_snprintf(name, sizeof(name), "nginx-ai:%V:%P",
                              &ngx_cycle->hostname, ngx_pid)
                 - name;

    if (ngx_http_ai_redis_first(rc, NGX_HTTP_AI_REDIS_SETNAME, setname, arg,
                                1)
        != NGX_OK
        || ngx_http_ai_redis_first(rc, NGX_HTTP_AI_REDIS_CONFIG, config, NULL,
                                   0)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* the last one: when it is answered, all are */

    return ngx_http_ai_redis_first(rc, NGX_HTTP_AI_REDIS_INFO, info, NULL, 0);
}


static ngx_int_t
ngx_http_ai_redis_first(ngx_http_ai_redis_conn_t *rc,
    ngx_http_ai_redis_kind_e kind, const char *words[], ngx_str_t *arg,
    ngx_uint_t narg)
{
    ngx_str_t                argv[8];
    ngx_uint_t               i, n;
    ngx_http_ai_redis_op_t  *op;

    for (n = 0; words[n]; n++) {
        argv[n].data = (u_char *) words[n];
        argv[n].len = ngx_strlen(words[n]);
    }

    for (i = 0; i < narg; i++) {
        argv[n++] = arg[i];
    }

    op = ngx_http_ai_redis_alloc(rc->redis, argv, n);
    if (op == NULL) {
        return NGX_ERROR;
    }

    op->kind = kind;

    if (ngx_http_ai_redis_write(rc, op) != NGX_OK) {
        ngx_free(op);
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_redis_answer(ngx_http_ai_redis_conn_t *rc, redisReply *reply)
{
    ngx_int_t                   n;
    ngx_queue_t                *q;
    ngx_http_ai_redis_t        *redis;
    ngx_http_ai_redis_op_t     *op;
    ngx_http_ai_redis_reply_t   r;

    redis = rc->redis;

    if (ngx_queue_empty(&rc->waiting)) {
        ngx_http_ai_redis_down(rc, "an answer without a question");
        return NGX_ERROR;
    }

    q = ngx_queue_head(&rc->waiting);
    op = ngx_queue_data(q, ngx_http_ai_redis_op_t, queue);

    ngx_queue_remove(q);
    rc->nwaiting--;

    if (op->kind != NGX_HTTP_AI_REDIS_USER) {
        n = ngx_http_ai_redis_greeted(rc, op, reply);
        ngx_free(op);

        if (n == NGX_OK) {
            redis->sh->answered = ngx_current_msec;
        }

        return n;
    }

    ngx_memzero(&r, sizeof(ngx_http_ai_redis_reply_t));

    r.integer = reply->integer;

    switch (reply->type) {

    case REDIS_REPLY_ERROR:
        r.rc = NGX_HTTP_AI_REDIS_REFUSED;

        /* fall through */

    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
        r.text.data = (u_char *) reply->str;
        r.text.len = reply->len;
        break;

    case REDIS_REPLY_NIL:
        r.nil = 1;
        break;
    }

    if (r.rc == NGX_HTTP_AI_REDIS_REFUSED) {

        if (op->handler && op->script && !op->whole
            && r.text.len >= 8
            && ngx_strncmp(r.text.data, "NOSCRIPT", 8) == 0)
        {
            op->whole = 1;

            if (ngx_http_ai_redis_write(rc, op) == NGX_OK) {
                return NGX_OK;
            }
        }

        if (ngx_http_ai_redis_elsewhere(&r.text)) {

            /* another one has the data now, or this one has it soon */

            if (op->handler && !op->again) {
                op->again = 1;
                op->conn = NULL;
                ngx_queue_insert_tail(&redis->queued, &op->queue);

            } else {
                ngx_http_ai_redis_deliver(op, &r);
                ngx_free(op);
            }

            ngx_http_ai_redis_down(rc, "it answers \"%*s\"",
                                   (size_t) ngx_min(reply->len, 64),
                                   reply->str);
            return NGX_ERROR;
        }

        ngx_http_ai_redis_count(redis, errors);
    }

    redis->status.latency = ngx_current_msec - op->sent;
    redis->sh->latency = redis->status.latency;
    redis->sh->answered = ngx_current_msec;

    ngx_http_ai_redis_deliver(op, &r);
    ngx_free(op);

    return NGX_OK;
}


static ngx_uint_t
ngx_http_ai_redis_elsewhere(ngx_str_t *text)
{
    ngx_uint_t  i;

    static ngx_str_t  words[] = {
        ngx_string("READONLY"), ngx_string("LOADING"),
        ngx_string("MASTERDOWN"), ngx_string("MOVED"),
        ngx_string("CLUSTERDOWN"), ngx_string("TRYAGAIN"),
        ngx_null_string
    };

    for (i = 0; words[i].len; i++) {
        if (text->len >= words[i].len
            && ngx_strncmp(text->data, words[i].data, words[i].len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


/* an answer to one of the first commands */

static ngx_int_t
ngx_http_ai_redis_greeted(ngx_http_ai_redis_conn_t *rc,
    ngx_http_ai_redis_op_t *op, redisReply *reply)
{
    ngx_str_t    text;
    ngx_uint_t   error;
    redisReply  *value;

    error = (reply->type == REDIS_REPLY_ERROR);

    text.data = (u_char *) reply->str;
    text.len = reply->str ? reply->len : 0;

    switch (op->kind) {

    case NGX_HTTP_AI_REDIS_AUTH:
    case NGX_HTTP_AI_REDIS_SELECT:

        if (error) {
            ngx_http_ai_redis_down(rc, "it refuses %s: \"%*s\"",
                                   (op->kind == NGX_HTTP_AI_REDIS_AUTH)
                                   ? "the password" : "the database",
                                   (size_t) ngx_min(text.len, 128),
                                   text.data);
            return NGX_ERROR;
        }

        return NGX_OK;

    case NGX_HTTP_AI_REDIS_CONFIG:

        if (reply->type == REDIS_REPLY_ARRAY && reply->elements == 2) {
            value = reply->element[1];

            if (value->type == REDIS_REPLY_STRING) {
                rc->redis->status.appendonly = (value->len == 3);
            }
        }

        return NGX_OK;

    case NGX_HTTP_AI_REDIS_INFO:

        if (error
            && (ngx_http_ai_redis_elsewhere(&text)
                || (text.len >= 6
                    && ngx_strncmp(text.data, "NOAUTH", 6) == 0)))
        {
            ngx_http_ai_redis_down(rc, "it answers \"%*s\"",
                                   (size_t) ngx_min(text.len, 128),
                                   text.data);
            return NGX_ERROR;
        }

        if (!error) {
            ngx_http_ai_redis_info(rc, &text);
        }

        ngx_http_ai_redis_ready(rc);

        return NGX_OK;

    default:

        /* that of a connection's name: it need not have one */

        return NGX_OK;
    }
}


static void
ngx_http_ai_redis_info(ngx_http_ai_redis_conn_t *rc, ngx_str_t *text)
{
    u_char               *p;
    ngx_http_ai_redis_t  *redis;

    redis = rc->redis;

    p = ngx_strlcasestrn(text->data, text->data + text->len,
                         (u_char *) "master_replid:", 14 - 1);

    if (p == NULL || text->data + text->len - p < 14 + 40) {
        return;
    }

    p += 14;

    if (redis->replid.len
        && ngx_memcmp(redis->replid_data, p, sizeof(redis->replid_data)) != 0)
    {
        redis->status.histories++;

        ngx_log_error(NGX_LOG_NOTICE, &rc->log, 0,
                      "ai redis: redis \"%V\" (%V) has another history than "
                      "before: it was restarted or replaced",
                      &redis->name, &redis->server);
    }

    ngx_memcpy(redis->replid_data, p, sizeof(redis->replid_data));
    redis->replid.data = redis->replid_data;
    redis->replid.len = sizeof(redis->replid_data);
}


static void
ngx_http_ai_redis_ready(ngx_http_ai_redis_conn_t *rc)
{
    ngx_uint_t               level;
    ngx_queue_t             *q;
    ngx_http_ai_redis_t     *redis;
    ngx_http_ai_redis_op_t  *op;

    redis = rc->redis;

    if (rc->timer.timer_set) {
        ngx_del_timer(&rc->timer);
    }

    level = rc->said ? NGX_LOG_NOTICE : NGX_LOG_INFO;

    ngx_log_error(level, &rc->log, 0,
                  "ai redis: redis \"%V\" (%V) is connected",
                  &redis->name, &redis->server);

    rc->state = NGX_HTTP_AI_REDIS_UP;
    rc->failed = 0;
    rc->since = ngx_current_msec;
    rc->said = 0;

    ngx_http_ai_redis_warn(redis);

    while (!ngx_queue_empty(&redis->queued)) {
        q = ngx_queue_head(&redis->queued);
        op = ngx_queue_data(q, ngx_http_ai_redis_op_t, queue);

        ngx_queue_remove(q);

        if (ngx_http_ai_redis_write(rc, op) != NGX_OK) {

            /* its time is over soon */

            ngx_queue_insert_head(&redis->queued, q);
            break;
        }
    }
}


static void
ngx_http_ai_redis_warn(ngx_http_ai_redis_t *redis)
{
    if (redis->durable && redis->status.appendonly == 0
        && ngx_atomic_cmp_set(&redis->sh->warned, 0, 1))
    {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "ai redis: redis \"%V\" (%V) has no append-only file: "
                      "a restart of it forgets quotas, set \"appendonly "
                      "yes\"", &redis->name, &redis->server);
    }
}


static void
ngx_http_ai_redis_deliver(ngx_http_ai_redis_op_t *op,
    ngx_http_ai_redis_reply_t *reply)
{
    ngx_http_ai_redis_pt  handler;

    handler = op->handler;

    if (handler == NULL) {
        return;
    }

    op->handler = NULL;
    ngx_http_ai_redis_untime(op);

    handler(op->data, reply);
}


void
ngx_http_ai_redis_cancel(ngx_http_ai_redis_op_t *op)
{
    op->handler = NULL;
    ngx_http_ai_redis_untime(op);

    ngx_http_ai_redis_free(op);
}


/* a worker that ends has nothing to wait for when the last one is answered */

static void
ngx_http_ai_redis_untime(ngx_http_ai_redis_op_t *op)
{
    ngx_http_ai_redis_t  *redis;

    redis = op->redis;

    ngx_queue_remove(&op->timed);
    redis->status.pending--;

    redis->timer.cancelable = ngx_queue_empty(&redis->timed);
}


/* one that was sent stays in its place until it is answered */

static void
ngx_http_ai_redis_free(ngx_http_ai_redis_op_t *op)
{
    if (op->conn == NULL) {
        ngx_queue_remove(&op->queue);
        ngx_free(op);
    }
}


void
ngx_http_ai_redis_lost(ngx_http_ai_redis_t *redis, ngx_queue_t *list)
{
    ngx_queue_t                *q;
    ngx_uint_t                  n;
    ngx_http_ai_redis_op_t     *op;
    ngx_http_ai_redis_reply_t   r;

    n = 0;

    while (!ngx_queue_empty(list)) {
        q = ngx_queue_head(list);
        op = ngx_queue_data(q, ngx_http_ai_redis_op_t, queue);

        ngx_queue_remove(q);

        ngx_memzero(&r, sizeof(ngx_http_ai_redis_reply_t));
        r.rc = NGX_HTTP_AI_REDIS_LOST;

        n += (op->handler != NULL);

        ngx_http_ai_redis_deliver(op, &r);
        ngx_free(op);
    }

    /* one failure, however many there were */

    if (n) {
        ngx_http_ai_redis_failure(redis);
    }
}


static void
ngx_http_ai_redis_arm(ngx_http_ai_redis_t *redis)
{
    ngx_queue_t             *q;
    ngx_msec_int_t           ms;
    ngx_http_ai_redis_op_t  *op;

    if (ngx_queue_empty(&redis->timed)) {
        return;
    }

    redis->timer.cancelable = 0;

    if (redis->timer.timer_set) {
        return;
    }

    q = ngx_queue_head(&redis->timed);
    op = ngx_queue_data(q, ngx_http_ai_redis_op_t, timed);

    ms = (ngx_msec_int_t) (op->deadline - ngx_current_msec);

    ngx_add_timer(&redis->timer, (ngx_msec_t) ngx_max(ms, 1));
}


static void
ngx_http_ai_redis_timeout_handler(ngx_event_t *ev)
{
    ngx_queue_t                *q, *prev;
    ngx_connection_t           *c;
    ngx_http_ai_redis_t        *redis;
    ngx_http_ai_redis_op_t     *op;
    ngx_http_ai_redis_reply_t   r;

    c = ev->data;
    redis = c->data;

    /* handlers may send and cancel: one at a time */

    for ( ;; ) {

        if (ngx_queue_empty(&redis->timed)) {
            break;
        }

        q = ngx_queue_head(&redis->timed);
        op = ngx_queue_data(q, ngx_http_ai_redis_op_t, timed);

        if ((ngx_msec_int_t) (op->deadline - ngx_current_msec) > 0) {
            break;
        }

        ngx_http_ai_redis_count(redis, timeouts);

        ngx_http_ai_redis_failure(redis);

        ngx_memzero(&r, sizeof(ngx_http_ai_redis_reply_t));
        r.rc = NGX_HTTP_AI_REDIS_TIMEOUT;

        prev = (op->conn == NULL) ? &op->queue : NULL;

        if (prev) {
            ngx_queue_remove(prev);
        }

        ngx_http_ai_redis_deliver(op, &r);

        if (prev) {
            ngx_free(op);
        }
    }

    ngx_http_ai_redis_arm(redis);
}


static void
ngx_http_ai_redis_failure(ngx_http_ai_redis_t *redis)
{
    ngx_http_ai_redis_sh_t  *sh;

    sh = redis->sh;

    if (redis->max_failures == 0 || sh->open) {
        return;
    }

    if (sh->failures == 0
        || (ngx_msec_int_t) (ngx_current_msec - (ngx_msec_t) sh->since)
           > (ngx_msec_int_t) redis->within)
    {
        sh->since = ngx_current_msec;
        sh->failures = 0;
    }

    if ((ngx_uint_t) ngx_atomic_fetch_add(&sh->failures, 1) + 1
        < redis->max_failures)
    {
        return;
    }

    if (ngx_atomic_cmp_set(&sh->open, 0,
                           (ngx_current_msec + redis->open) | 1))
    {
        sh->failures = 0;

        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "ai redis: redis \"%V\" (%V) does not answer in time, "
                      "it is not asked for %M ms",
                      &redis->name, &redis->server, redis->open);
    }

    ngx_http_ai_redis_look(redis);
}


/* a request never pays for finding out: a worker that sees it open probes */

static void
ngx_http_ai_redis_look(ngx_http_ai_redis_t *redis)
{
    if (!redis->probe.timer_set) {
        ngx_add_timer(&redis->probe, NGX_HTTP_AI_REDIS_LOOK);
    }
}


static void
ngx_http_ai_redis_probe_handler(ngx_event_t *ev)
{
    ngx_str_t                argv[1];
    ngx_connection_t        *c;
    ngx_http_ai_redis_t     *redis;
    ngx_atomic_uint_t        open;
    ngx_http_ai_redis_op_t  *op;

    c = ev->data;
    redis = c->data;

    open = redis->sh->open;

    if (open == 0) {
        return;
    }

    ngx_http_ai_redis_look(redis);

    if (redis->probing
        || (ngx_msec_int_t) ((ngx_msec_t) open - ngx_current_msec) > 0)
    {
        return;
    }

    ngx_str_set(&argv[0], "PING");

    op = ngx_http_ai_redis_alloc(redis, argv, 1);
    if (op == NULL) {
        return;
    }

    op->handler = ngx_http_ai_redis_probed;
    op->data = redis;

    /* one of all workers; should it die, others come after the same time */

    if (!ngx_atomic_cmp_set(&redis->sh->open, open,
                            (ngx_current_msec + redis->open) | 1)
        || ngx_http_ai_redis_submit(redis, op, 1) != NGX_OK)
    {
        ngx_free(op);
        return;
    }

    redis->probing = 1;
}


static void
ngx_http_ai_redis_probed(void *data, ngx_http_ai_redis_reply_t *reply)
{
    ngx_http_ai_redis_t *redis = data;

    redis->probing = 0;

    if (reply->rc != NGX_HTTP_AI_REDIS_OK) {
        return;
    }

    redis->sh->failures = 0;
    redis->sh->open = 0;

    ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                  "ai redis: redis \"%V\" (%V) answers again",
                  &redis->name, &redis->server);
}


void
ngx_http_ai_redis_durable(ngx_http_ai_redis_t *redis)
{
    redis->durable = 1;
}


ngx_int_t
ngx_http_ai_redis_at_exit(ngx_http_ai_redis_t *redis,
    void (*handler)(ngx_cycle_t *cycle))
{
    void  **h;

    h = ngx_array_push(&redis->at_exit);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = (void *) (uintptr_t) handler;

    return NGX_OK;
}


ngx_http_ai_redis_on_error_e
ngx_http_ai_redis_on_error(ngx_http_ai_redis_t *redis)
{
    return redis->on_error;
}


ngx_msec_t
ngx_http_ai_redis_timeout(ngx_http_ai_redis_t *redis)
{
    return redis->timeout;
}


ngx_uint_t
ngx_http_ai_redis_nodes(ngx_http_ai_redis_t *redis)
{
    return redis->nodes;
}


void
ngx_http_ai_redis_status(ngx_http_ai_redis_t *redis,
    ngx_http_ai_redis_status_t *status)
{
    ngx_uint_t  i;

    *status = redis->status;

    status->up = 0;
    status->open = (redis->sh && redis->sh->open != 0);

    if (!redis->started) {
        return;
    }

    if (status->open) {
        ngx_http_ai_redis_look(redis);
    }

    for (i = 0; i < redis->nconns; i++) {
        if (redis->conns[i].state == NGX_HTTP_AI_REDIS_UP) {
            status->up = 1;
        }
    }
}


ngx_http_ai_redis_t *
ngx_http_ai_redis_at(ngx_cycle_t *cycle, ngx_uint_t n, ngx_str_t *name)
{
    ngx_http_ai_redis_t           **redis;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_ai_core_module);

    if (amcf == NULL || n >= amcf->redises.nelts) {
        return NULL;
    }

    redis = amcf->redises.elts;
    *name = redis[n]->name;

    return redis[n];
}
