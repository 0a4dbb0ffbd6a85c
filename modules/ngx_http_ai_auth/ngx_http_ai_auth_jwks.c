
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Key sets.  The text of a set is in shared memory with a generation number,
 * so that all workers, and those after a reload, have it; each worker makes
 * its own key objects of it.  Whoever finds that it is time to fetch takes the
 * "busy" mark, which ends by itself, so that nothing depends on one process.
 * Requests that need a set wait for the end of a fetch, not for a result.
 */


#include "ngx_http_ai_auth_issuer.h"


#define NGX_HTTP_AI_JWKS_ZONE      (1024 * 1024)
#define NGX_HTTP_AI_JWKS_FILE_MS   250
#define NGX_HTTP_AI_JWKS_TICK      1000
#define NGX_HTTP_AI_JWKS_POLL      40
#define NGX_HTTP_AI_JWKS_SOON      1000
#define NGX_HTTP_AI_JWKS_BACKOFF   1000
#define NGX_HTTP_AI_JWKS_BACKOFFS  30000
#define NGX_HTTP_AI_JWKS_MIN_TTL   60000
#define NGX_HTTP_AI_JWKS_WAITING   1024      /* requests of a worker */
#define NGX_HTTP_AI_JWKS_RESUMED   128       /* at a time */
#define NGX_HTTP_AI_JWKS_RECENT    2


typedef struct {
    ngx_event_t                     tick;
    ngx_event_t                     poll;
    ngx_http_ai_auth_main_conf_t   *aamcf;
} ngx_http_ai_auth_jwks_worker_t;


typedef struct {
    ngx_queue_t                     queue;
    ngx_event_t                     timer;
    ngx_http_request_t             *request;
    ngx_http_ai_auth_issuer_t      *issuer;
    ngx_atomic_uint_t               completed;
    unsigned                        waiting:1;
} ngx_http_ai_auth_wait_t;


static ngx_int_t ngx_http_ai_auth_jwks_init_zone(ngx_shm_zone_t *shm_zone,
    void *data);
static char *ngx_http_ai_auth_jwks_zone(ngx_conf_t *cf,
    ngx_http_ai_auth_issuer_t *issuer);
static void ngx_http_ai_auth_jwks_cleanup(void *data);
static ngx_http_ai_jwks_t *ngx_http_ai_auth_jwks_build(
    ngx_http_ai_auth_issuer_t *issuer, ngx_uint_t generation);
static ngx_int_t ngx_http_ai_auth_jwks_text(ngx_http_ai_auth_issuer_t *issuer,
    ngx_pool_t *pool, ngx_str_t *text, ngx_uint_t *generation);
static ngx_uint_t ngx_http_ai_auth_jwks_algs(
    ngx_http_ai_auth_issuer_t *issuer);
static const char *ngx_http_ai_auth_jwks_check(
    ngx_http_ai_auth_issuer_t *issuer, ngx_str_t *text, ngx_pool_t *pool);
static ngx_int_t ngx_http_ai_auth_jwks_store(ngx_slab_pool_t *shpool,
    ngx_str_t *text);
static void ngx_http_ai_auth_jwks_tick(ngx_event_t *ev);
static void ngx_http_ai_auth_jwks_poll(ngx_event_t *ev);
static void ngx_http_ai_auth_jwks_poll_in(ngx_http_ai_auth_issuer_t *issuer,
    ngx_msec_t msec);
static ngx_uint_t ngx_http_ai_auth_jwks_running(
    ngx_http_ai_auth_jwks_shared_t *sh);
static ngx_int_t ngx_http_ai_auth_jwks_fetch(ngx_http_ai_auth_issuer_t *issuer,
    ngx_uint_t forced);
static void ngx_http_ai_auth_jwks_discovered(ngx_http_ai_fetch_t *f);
static void ngx_http_ai_auth_jwks_fetched(ngx_http_ai_fetch_t *f);
static const char *ngx_http_ai_auth_jwks_document(
    ngx_http_ai_auth_issuer_t *issuer, ngx_pool_t *pool, ngx_str_t *text,
    ngx_str_t *url);
static void ngx_http_ai_auth_jwks_end(ngx_http_ai_auth_issuer_t *issuer,
    ngx_http_ai_fetch_t *f, const char *error);
static ngx_msec_t ngx_http_ai_auth_jwks_ttl(ngx_http_ai_auth_issuer_t *issuer,
    time_t max_age);
static ngx_msec_t ngx_http_ai_auth_jwks_bound(
    ngx_http_ai_auth_issuer_t *issuer);
static void ngx_http_ai_auth_jwks_file(ngx_http_ai_auth_issuer_t *issuer);
static const char *ngx_http_ai_auth_jwks_read(ngx_pool_t *pool,
    ngx_log_t *log, ngx_str_t *name, ngx_str_t *text, ngx_file_info_t *fi,
    ngx_err_t *err);
static void ngx_http_ai_auth_jwks_file_end(ngx_http_ai_auth_issuer_t *issuer,
    const char *error, ngx_err_t err);
static void ngx_http_ai_auth_wait_handler(ngx_http_request_t *r);
static void ngx_http_ai_auth_wait_timer(ngx_event_t *ev);
static void ngx_http_ai_auth_wait_cleanup(void *data);
static void ngx_http_ai_auth_wait_stop(ngx_http_ai_auth_wait_t *w);
static void ngx_http_ai_auth_wait_resume(ngx_http_ai_auth_wait_t *w);


#define ngx_http_ai_auth_jwks_shpool(issuer)                                  \
    ((ngx_slab_pool_t *) (issuer)->zone->shm.addr)

#define ngx_http_ai_auth_jwks_shared(issuer)                                  \
    ((ngx_http_ai_auth_jwks_shared_t *)                                       \
     ngx_http_ai_auth_jwks_shpool(issuer)->data)

#define ngx_http_ai_auth_jwks_is_url(issuer)                                  \
    ((issuer)->source == NGX_HTTP_AI_JWKS_URL                                 \
     || (issuer)->source == NGX_HTTP_AI_JWKS_DISCOVERY)


char *
ngx_http_ai_auth_jwks_init(ngx_conf_t *cf, ngx_http_ai_auth_issuer_t *issuer)
{
    ngx_err_t                  err;
    const char                *error;
    ngx_file_info_t            fi;
    ngx_http_ai_fetch_conf_t   fetch;

    switch (issuer->source) {

    case NGX_HTTP_AI_JWKS_NONE:
        return NGX_CONF_OK;

    case NGX_HTTP_AI_JWKS_FILE:

        err = 0;

        error = ngx_http_ai_auth_jwks_read(cf->pool, cf->log, &issuer->jwks,
                                           &issuer->file_text, &fi, &err);
        if (error == NULL) {
            error = ngx_http_ai_auth_jwks_check(issuer, &issuer->file_text,
                                                cf->temp_pool);
        }

        if (error) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, err,
                               "issuer \"%V\": jwks file \"%V\" %s",
                               &issuer->name, &issuer->jwks, error);
            return NGX_CONF_ERROR;
        }

        break;

    default: /* NGX_HTTP_AI_JWKS_URL, NGX_HTTP_AI_JWKS_DISCOVERY */

        ngx_memzero(&fetch, sizeof(ngx_http_ai_fetch_conf_t));

        fetch.url = issuer->jwks;
        fetch.tls_ca = issuer->tls_ca;
        fetch.tls_verify = issuer->tls_verify;
        fetch.timeout = issuer->timeout;
        fetch.max_size = NGX_HTTP_AI_ISSUER_TEXT;

        issuer->fetcher = issuer->api->fetcher_create(cf, &fetch);
        if (issuer->fetcher == NULL) {
            return NGX_CONF_ERROR;
        }

        break;
    }

    return ngx_http_ai_auth_jwks_zone(cf, issuer);
}


/*
 * The zone's name holds a sum of what its keys depend on: with other settings
 * a reload gets another zone, and old workers keep theirs.
 */

static char *
ngx_http_ai_auth_jwks_zone(ngx_conf_t *cf, ngx_http_ai_auth_issuer_t *issuer)
{
    uint32_t   crc;
    ngx_str_t  name;

    ngx_crc32_init(crc);
    ngx_crc32_update(&crc, issuer->rules.issuer.data,
                     issuer->rules.issuer.len);
    ngx_crc32_update(&crc, (u_char *) "|", 1);
    ngx_crc32_update(&crc, issuer->jwks.data, issuer->jwks.len);
    ngx_crc32_update(&crc, (u_char *) "|", 1);
    ngx_crc32_update(&crc, issuer->tls_ca.data, issuer->tls_ca.len);
    ngx_crc32_update(&crc, (u_char *) (issuer->tls_verify ? "1" : "0"), 1);
    ngx_crc32_final(crc);

    name.data = ngx_pnalloc(cf->pool, sizeof("ai_jwks__ffffffff")
                                      + issuer->name.len);
    if (name.data == NULL) {
        return NGX_CONF_ERROR;
    }

    name.len = ngx_sprintf(name.data, "ai_jwks_%V_%08xD%Z", &issuer->name, crc)
               - name.data - 1;

    issuer->zone = ngx_shared_memory_add(cf, &name, NGX_HTTP_AI_JWKS_ZONE,
                                         &ngx_http_ai_auth_module);
    if (issuer->zone == NULL) {
        return NGX_CONF_ERROR;
    }

    issuer->zone->init = ngx_http_ai_auth_jwks_init_zone;
    issuer->zone->data = issuer;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_ai_auth_jwks_init_zone(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_msec_t                       now;
    ngx_slab_pool_t                 *shpool;
    ngx_http_ai_auth_issuer_t       *issuer;
    ngx_http_ai_auth_jwks_shared_t  *sh;

    issuer = shm_zone->data;
    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    sh = shpool->data;
    now = ngx_current_msec;

    if (sh == NULL) {
        sh = ngx_slab_calloc(shpool, sizeof(ngx_http_ai_auth_jwks_shared_t));
        if (sh == NULL) {
            return NGX_ERROR;
        }

        sh->next = now;

        shpool->data = sh;
        shpool->log_nomem = 0;
    }

    if ((ngx_msec_int_t) (sh->next - (now + issuer->cache)) > 0) {
        sh->next = now + issuer->cache;
    }

    if (issuer->source == NGX_HTTP_AI_JWKS_FILE) {
        return ngx_http_ai_auth_jwks_store(shpool, &issuer->file_text);
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_auth_jwks_start(ngx_cycle_t *cycle,
    ngx_http_ai_auth_main_conf_t *aamcf)
{
    ngx_uint_t                        i;
    ngx_pool_cleanup_t               *cln;
    ngx_http_ai_auth_issuer_t       **issuer;
    ngx_http_ai_auth_jwks_worker_t   *worker;

    worker = ngx_pcalloc(cycle->pool, sizeof(ngx_http_ai_auth_jwks_worker_t));
    if (worker == NULL) {
        return NGX_ERROR;
    }

    worker->aamcf = aamcf;

    worker->tick.handler = ngx_http_ai_auth_jwks_tick;
    worker->tick.data = worker;
    worker->tick.log = cycle->log;
    worker->tick.cancelable = 1;

    worker->poll.handler = ngx_http_ai_auth_jwks_poll;
    worker->poll.data = worker;
    worker->poll.log = cycle->log;
    worker->poll.cancelable = 1;

    issuer = aamcf->issuers.elts;

    for (i = 0; i < aamcf->issuers.nelts; i++) {
        issuer[i]->poll = &worker->poll;
        issuer[i]->keys = NULL;
        issuer[i]->pool = NULL;
        issuer[i]->generation = 0;
    }

    cln = ngx_pool_cleanup_add(cycle->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_ai_auth_jwks_cleanup;
    cln->data = worker;

    ngx_add_timer(&worker->tick, 1);

    return NGX_OK;
}


static void
ngx_http_ai_auth_jwks_cleanup(void *data)
{
    ngx_http_ai_auth_jwks_worker_t *worker = data;

    ngx_uint_t                   i;
    ngx_http_ai_auth_issuer_t  **issuer;

    if (worker->tick.timer_set) {
        ngx_del_timer(&worker->tick);
    }

    if (worker->poll.timer_set) {
        ngx_del_timer(&worker->poll);
    }

    issuer = worker->aamcf->issuers.elts;

    for (i = 0; i < worker->aamcf->issuers.nelts; i++) {

        if (issuer[i]->pool) {
            ngx_destroy_pool(issuer[i]->pool);
            issuer[i]->pool = NULL;
            issuer[i]->keys = NULL;
        }
    }
}


ngx_uint_t
ngx_http_ai_auth_jwks_ready(ngx_http_ai_auth_issuer_t *issuer)
{
    return issuer->zone == NULL
           || ngx_http_ai_auth_jwks_shared(issuer)->generation != 0;
}


ngx_http_ai_jwks_t *
ngx_http_ai_auth_jwks_get(ngx_http_ai_auth_issuer_t *issuer)
{
    ngx_uint_t  generation;

    generation = 0;

    if (issuer->zone) {
        generation = ngx_http_ai_auth_jwks_shared(issuer)->generation;
    }

    if (generation == issuer->generation && issuer->keys) {
        return issuer->keys;
    }

    if (generation == 0 && issuer->secrets.nelts == 0) {
        return NULL;
    }

    return ngx_http_ai_auth_jwks_build(issuer, generation);
}


static ngx_http_ai_jwks_t *
ngx_http_ai_auth_jwks_build(ngx_http_ai_auth_issuer_t *issuer,
    ngx_uint_t generation)
{
    ngx_int_t            rc;
    ngx_str_t            text, *secret;
    ngx_uint_t           i;
    ngx_pool_t          *pool;
    const char          *error;
    ngx_http_ai_jwks_t  *jwks;

    pool = ngx_create_pool(4096, ngx_cycle->log);
    if (pool == NULL) {
        return issuer->keys;
    }

    error = NULL;

    if (generation) {

        if (ngx_http_ai_auth_jwks_text(issuer, pool, &text, &generation)
            != NGX_OK)
        {
            goto failed;
        }

        rc = ngx_http_ai_jwks_parse(pool, &text,
                                    ngx_http_ai_auth_jwks_algs(issuer),
                                    NGX_HTTP_AI_ISSUER_KEYS, &jwks, &error);
        if (rc != NGX_OK) {
            goto failed;
        }

    } else {
        jwks = ngx_http_ai_jwks_create(pool);
        if (jwks == NULL) {
            goto failed;
        }
    }

    secret = issuer->secrets.elts;

    for (i = 0; i < issuer->secrets.nelts; i++) {

        if (ngx_http_ai_jwks_add_secret(jwks, &secret[i], issuer->rules.algs,
                                        &error)
            != NGX_OK)
        {
            goto failed;
        }
    }

    if (issuer->pool) {
        ngx_destroy_pool(issuer->pool);
    }

    issuer->pool = pool;
    issuer->keys = jwks;
    issuer->generation = generation;

    return jwks;

failed:

    ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                  "issuer \"%V\": key set cannot be used: %s", &issuer->name,
                  error ? error : "no memory");

    ngx_destroy_pool(pool);

    return issuer->keys;
}


/* a copy of the text and its generation, which may have changed meanwhile */

static ngx_int_t
ngx_http_ai_auth_jwks_text(ngx_http_ai_auth_issuer_t *issuer, ngx_pool_t *pool,
    ngx_str_t *text, ngx_uint_t *generation)
{
    size_t                           size;
    ngx_slab_pool_t                 *shpool;
    ngx_http_ai_auth_jwks_shared_t  *sh;

    shpool = ngx_http_ai_auth_jwks_shpool(issuer);
    sh = shpool->data;

    for ( ;; ) {
        size = sh->len;

        text->data = ngx_pnalloc(pool, size + 1);
        if (text->data == NULL) {
            return NGX_ERROR;
        }

        ngx_shmtx_lock(&shpool->mutex);

        if (sh->len <= size && sh->text) {
            ngx_memcpy(text->data, sh->text, sh->len);
            text->len = sh->len;
            *generation = sh->generation;

            ngx_shmtx_unlock(&shpool->mutex);

            return NGX_OK;
        }

        ngx_shmtx_unlock(&shpool->mutex);

        if (sh->text == NULL) {
            return NGX_ERROR;
        }
    }
}


/* what everybody can fetch is no secret, whatever "secret" adds */

static ngx_uint_t
ngx_http_ai_auth_jwks_algs(ngx_http_ai_auth_issuer_t *issuer)
{
    if (issuer->source == NGX_HTTP_AI_JWKS_FILE) {
        return issuer->rules.algs;
    }

    return issuer->rules.algs & ~NGX_HTTP_AI_JWA_HMAC;
}


/* NULL: the text is a set with at least one key to be used */

static const char *
ngx_http_ai_auth_jwks_check(ngx_http_ai_auth_issuer_t *issuer, ngx_str_t *text,
    ngx_pool_t *pool)
{
    ngx_int_t            rc;
    ngx_uint_t           ignored;
    const char          *error;
    ngx_http_ai_jwks_t  *jwks;

    error = NULL;

    rc = ngx_http_ai_jwks_parse(pool, text, ngx_http_ai_auth_jwks_algs(issuer),
                                NGX_HTTP_AI_ISSUER_KEYS, &jwks, &error);

    if (rc == NGX_ERROR) {
        return "no memory";
    }

    if (rc == NGX_DECLINED) {
        return error ? error : "is no key set";
    }

    if (ngx_http_ai_jwks_count(jwks, &ignored) == 0) {
        error = ngx_http_ai_jwks_why(jwks);
        return error ? error : "has no key for the allowed algorithms";
    }

    return NULL;
}


static ngx_int_t
ngx_http_ai_auth_jwks_store(ngx_slab_pool_t *shpool, ngx_str_t *text)
{
    u_char                          *p, *old;
    ngx_http_ai_auth_jwks_shared_t  *sh;

    sh = shpool->data;

    ngx_shmtx_lock(&shpool->mutex);

    if (sh->text && sh->len == text->len
        && ngx_memcmp(sh->text, text->data, text->len) == 0)
    {
        ngx_shmtx_unlock(&shpool->mutex);
        return NGX_OK;
    }

    p = ngx_slab_alloc_locked(shpool, text->len);
    if (p == NULL) {
        ngx_shmtx_unlock(&shpool->mutex);
        return NGX_ERROR;
    }

    ngx_memcpy(p, text->data, text->len);

    old = sh->text;

    sh->text = p;
    sh->len = text->len;

    ngx_memory_barrier();

    sh->generation++;

    if (old) {
        ngx_slab_free_locked(shpool, old);
    }

    ngx_shmtx_unlock(&shpool->mutex);

    return NGX_OK;
}


static void
ngx_http_ai_auth_jwks_tick(ngx_event_t *ev)
{
    ngx_uint_t                        i;
    ngx_msec_t                        delay;
    ngx_http_ai_auth_issuer_t       **issuer;
    ngx_http_ai_auth_jwks_worker_t   *worker;
    ngx_http_ai_auth_jwks_shared_t   *sh;

    worker = ev->data;

    /* a worker that ends leaves it to those that stay */

    if (ngx_terminate || ngx_exiting) {
        return;
    }

    delay = NGX_HTTP_AI_JWKS_TICK;
    issuer = worker->aamcf->issuers.elts;

    for (i = 0; i < worker->aamcf->issuers.nelts; i++) {

        if (issuer[i]->source == NGX_HTTP_AI_JWKS_NONE) {
            continue;
        }

        if (issuer[i]->source == NGX_HTTP_AI_JWKS_FILE) {
            delay = NGX_HTTP_AI_JWKS_FILE_MS;
            ngx_http_ai_auth_jwks_file(issuer[i]);
            continue;
        }

        sh = ngx_http_ai_auth_jwks_shared(issuer[i]);

        if ((ngx_msec_int_t) (sh->next - ngx_current_msec) <= 0) {
            (void) ngx_http_ai_auth_jwks_fetch(issuer[i], 0);
        }
    }

    ngx_add_timer(ev, delay);
}


static void
ngx_http_ai_auth_jwks_poll(ngx_event_t *ev)
{
    ngx_uint_t                        i, n;
    ngx_msec_t                        delay;
    ngx_queue_t                      *q;
    ngx_http_ai_auth_wait_t          *w;
    ngx_http_ai_auth_issuer_t       **issuer;
    ngx_http_ai_auth_jwks_worker_t   *worker;
    ngx_http_ai_auth_jwks_shared_t   *sh;

    worker = ev->data;

    n = 0;
    delay = 0;
    issuer = worker->aamcf->issuers.elts;

    for (i = 0; i < worker->aamcf->issuers.nelts; i++) {

        if (issuer[i]->zone == NULL) {
            continue;
        }

        sh = ngx_http_ai_auth_jwks_shared(issuer[i]);

        /* in the order of their coming; any of them may remove others */

        while (!ngx_queue_empty(&issuer[i]->waiting)) {

            q = ngx_queue_head(&issuer[i]->waiting);
            w = ngx_queue_data(q, ngx_http_ai_auth_wait_t, queue);

            if (w->completed == sh->completed) {

                if (delay == 0) {
                    delay = NGX_HTTP_AI_JWKS_POLL;
                }

                break;
            }

            if (n++ == NGX_HTTP_AI_JWKS_RESUMED) {
                delay = 1;
                break;
            }

            ngx_http_ai_auth_wait_resume(w);
        }
    }

    if (delay && !ev->timer_set) {
        ngx_add_timer(ev, delay);
    }
}


static void
ngx_http_ai_auth_jwks_poll_in(ngx_http_ai_auth_issuer_t *issuer,
    ngx_msec_t msec)
{
    ngx_event_t  *ev;

    ev = issuer->poll;

    if (ev == NULL) {
        return;
    }

    /* a timer that is set already would not be moved by so little */

    if (ev->timer_set) {

        if ((ngx_msec_int_t) (ev->timer.key - ngx_current_msec)
            <= (ngx_msec_int_t) msec)
        {
            return;
        }

        ngx_del_timer(ev);
    }

    ngx_add_timer(ev, msec);
}


static ngx_uint_t
ngx_http_ai_auth_jwks_running(ngx_http_ai_auth_jwks_shared_t *sh)
{
    ngx_msec_t  busy;

    busy = sh->busy;

    return busy && (ngx_msec_int_t) (busy - ngx_current_msec) > 0;
}


/* how long a whole fetch may take */

static ngx_msec_t
ngx_http_ai_auth_jwks_bound(ngx_http_ai_auth_issuer_t *issuer)
{
    return (issuer->source == NGX_HTTP_AI_JWKS_DISCOVERY)
           ? 2 * issuer->timeout : issuer->timeout;
}


/* NGX_OK: it was started; NGX_DECLINED: it is not the time */

static ngx_int_t
ngx_http_ai_auth_jwks_fetch(ngx_http_ai_auth_issuer_t *issuer,
    ngx_uint_t forced)
{
    ngx_msec_t                       now;
    ngx_uint_t                       take;
    ngx_slab_pool_t                 *shpool;
    ngx_http_ai_fetch_t              f;
    ngx_http_ai_auth_jwks_shared_t  *sh;

    now = ngx_current_msec;
    shpool = ngx_http_ai_auth_jwks_shpool(issuer);
    sh = shpool->data;

    ngx_shmtx_lock(&shpool->mutex);

    if (ngx_http_ai_auth_jwks_running(sh)) {
        take = 0;

    } else if (forced) {
        take = (sh->forced == 0
                || (ngx_msec_t) (now - sh->forced) >= issuer->cooldown);

    } else {
        take = ((ngx_msec_int_t) (sh->next - now) <= 0);
    }

    if (take) {
        sh->busy = now + ngx_http_ai_auth_jwks_bound(issuer) + 1000;

        if (forced) {
            sh->forced = now ? now : 1;
        }
    }

    ngx_shmtx_unlock(&shpool->mutex);

    if (!take) {
        return NGX_DECLINED;
    }

    ngx_memzero(&f, sizeof(ngx_http_ai_fetch_t));

    f.data = issuer;
    f.quiet = (sh->failures != 0);
    f.handler = (issuer->source == NGX_HTTP_AI_JWKS_DISCOVERY)
                ? ngx_http_ai_auth_jwks_discovered
                : ngx_http_ai_auth_jwks_fetched;

    if (issuer->api->fetch(issuer->fetcher, NULL, &f) != NGX_OK) {
        ngx_http_ai_auth_jwks_end(issuer, &f, "no memory");
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static void
ngx_http_ai_auth_jwks_discovered(ngx_http_ai_fetch_t *f)
{
    ngx_str_t                   url;
    ngx_pool_t                 *pool;
    const char                 *error;
    ngx_http_ai_fetch_t         next;
    ngx_http_ai_auth_issuer_t  *issuer;

    issuer = f->data;

    if (f->status != 200) {
        ngx_http_ai_auth_jwks_end(issuer, f, f->error);
        return;
    }

    pool = ngx_create_pool(4096, ngx_cycle->log);
    if (pool == NULL) {
        ngx_http_ai_auth_jwks_end(issuer, f, "no memory");
        return;
    }

    error = ngx_http_ai_auth_jwks_document(issuer, pool, &f->answer, &url);

    if (error == NULL) {

        ngx_memzero(&next, sizeof(ngx_http_ai_fetch_t));

        next.data = issuer;
        next.quiet = f->quiet;
        next.handler = ngx_http_ai_auth_jwks_fetched;

        if (issuer->api->fetch(issuer->fetcher, &url, &next) != NGX_OK) {
            error = "\"jwks_uri\" cannot be fetched";
        }
    }

    ngx_destroy_pool(pool);

    if (error) {
        ngx_http_ai_auth_jwks_end(issuer, f, error);
    }
}


static const char *
ngx_http_ai_auth_jwks_document(ngx_http_ai_auth_issuer_t *issuer,
    ngx_pool_t *pool, ngx_str_t *text, ngx_str_t *url)
{
    ngx_int_t            rc;
    ngx_str_t            raw, iss;
    ngx_uint_t           node;
    ngx_http_ai_url_t    u;
    ngx_http_ai_json_t   j;

    ngx_memzero(&j, sizeof(ngx_http_ai_json_t));

    j.pool = pool;
    j.max_depth = 16;
    j.max_nodes = 10000;
    j.shallow = 1;

    rc = ngx_http_ai_json_parse(&j, text->data, text->len);

    if (rc == NGX_ERROR) {
        return "no memory";
    }

    if (rc != NGX_OK || j.nodes[0].type != NGX_HTTP_AI_JSON_OBJECT) {
        return "the discovery document is no JSON object";
    }

    node = ngx_http_ai_json_member(&j, 0, "issuer");
    raw = ngx_http_ai_json_raw(&j, node);

    if (ngx_http_ai_json_type(&j, node) != NGX_HTTP_AI_JSON_STRING) {
        return "the discovery document has no \"issuer\"";
    }

    if (ngx_http_ai_json_unescape_str(pool, &raw, &iss) != NGX_OK) {
        return "no memory";
    }

    if (!ngx_http_ai_auth_issuer_is(issuer, &iss)) {
        return "the discovery document is of another \"issuer\"";
    }

    node = ngx_http_ai_json_member(&j, 0, "jwks_uri");
    raw = ngx_http_ai_json_raw(&j, node);

    if (ngx_http_ai_json_type(&j, node) != NGX_HTTP_AI_JSON_STRING) {
        return "the discovery document has no \"jwks_uri\"";
    }

    if (ngx_http_ai_json_unescape_str(pool, &raw, url) != NGX_OK) {
        return "no memory";
    }

    if (ngx_http_ai_url_parse(pool, url, &u) != NULL) {
        return "invalid \"jwks_uri\" in the discovery document";
    }

    if (!u.ssl
        && (ngx_strncasecmp(issuer->jwks.data, (u_char *) "https", 5) == 0
            || (!issuer->insecure && !ngx_http_ai_auth_jwks_local(&u))))
    {
        return "\"jwks_uri\" in the discovery document is not https://";
    }

    return NULL;
}


static void
ngx_http_ai_auth_jwks_fetched(ngx_http_ai_fetch_t *f)
{
    ngx_pool_t                 *pool;
    const char                 *error;
    ngx_http_ai_auth_issuer_t  *issuer;

    issuer = f->data;

    if (f->status != 200) {
        ngx_http_ai_auth_jwks_end(issuer, f, f->error);
        return;
    }

    pool = ngx_create_pool(4096, ngx_cycle->log);
    if (pool == NULL) {
        ngx_http_ai_auth_jwks_end(issuer, f, "no memory");
        return;
    }

    error = ngx_http_ai_auth_jwks_check(issuer, &f->answer, pool);

    ngx_destroy_pool(pool);

    if (error == NULL
        && ngx_http_ai_auth_jwks_store(ngx_http_ai_auth_jwks_shpool(issuer),
                                       &f->answer)
           != NGX_OK)
    {
        error = "does not fit into shared memory";
    }

    ngx_http_ai_auth_jwks_end(issuer, f, error);
}


/* of a fetch, whatever came of it; error NULL and status 200: all is well */

static void
ngx_http_ai_auth_jwks_end(ngx_http_ai_auth_issuer_t *issuer,
    ngx_http_ai_fetch_t *f, const char *error)
{
    u_char                           status[NGX_INT_T_LEN + 16];
    ngx_msec_t                       delay;
    ngx_uint_t                       failures, had, ok;
    ngx_slab_pool_t                 *shpool;
    ngx_http_ai_auth_jwks_shared_t  *sh;

    shpool = ngx_http_ai_auth_jwks_shpool(issuer);
    sh = shpool->data;

    ok = (error == NULL && f->status == 200);

    if (error == NULL && !ok) {
        *ngx_snprintf(status, sizeof(status) - 1, "status %ui", f->status)
            = '\0';
        error = (char *) status;
    }

    ngx_shmtx_lock(&shpool->mutex);

    if (!ok && (ngx_terminate || ngx_exiting)) {

        /* says nothing of the issuer; another worker goes on */

        sh->busy = 0;
        sh->next = ngx_current_msec;

        ngx_shmtx_unlock(&shpool->mutex);
        return;
    }

    failures = sh->failures;
    had = (sh->generation != 0);

    if (ok) {
        delay = ngx_http_ai_auth_jwks_ttl(issuer, f->max_age);
        sh->failures = 0;
        sh->fetched = ngx_time();

    } else {
        delay = NGX_HTTP_AI_JWKS_BACKOFF << ngx_min(failures, 5);
        delay = ngx_min(delay, NGX_HTTP_AI_JWKS_BACKOFFS);
        sh->failures++;
    }

    /* several machines that start together do not stay together */

    delay += (ngx_msec_t) ngx_random() % (delay / 16 + 1);

    sh->next = ngx_current_msec + delay;
    sh->busy = 0;
    sh->completed++;

    ngx_shmtx_unlock(&shpool->mutex);

    if (!ok && failures == 0) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "issuer \"%V\": key set \"%V\" could not be fetched: "
                      "%s; %s", &issuer->name, &issuer->jwks, error,
                      had ? "the keys of before stay in use"
                          : "tokens are answered with 503 until it can");
    }

    if (ok && failures) {
        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                      "issuer \"%V\": key set was fetched after %ui failures",
                      &issuer->name, failures);
    }

    if (!ngx_queue_empty(&issuer->waiting)) {
        ngx_http_ai_auth_jwks_poll_in(issuer, 1);
    }
}


static ngx_msec_t
ngx_http_ai_auth_jwks_ttl(ngx_http_ai_auth_issuer_t *issuer, time_t max_age)
{
    ngx_msec_t  ttl;

    if (max_age < 0 || (ngx_msec_t) max_age >= issuer->cache / 1000) {
        return issuer->cache;
    }

    ttl = (ngx_msec_t) max_age * 1000;
    ttl = ngx_max(ttl, NGX_HTTP_AI_JWKS_MIN_TTL);

    return ngx_min(ttl, issuer->cache);
}


static void
ngx_http_ai_auth_jwks_file(ngx_http_ai_auth_issuer_t *issuer)
{
    ngx_err_t                        err;
    ngx_str_t                        text;
    ngx_msec_t                       now;
    ngx_pool_t                      *pool;
    ngx_uint_t                       due;
    const char                      *error;
    ngx_file_info_t                  fi;
    ngx_slab_pool_t                 *shpool;
    ngx_http_ai_auth_jwks_shared_t  *sh;

    now = ngx_current_msec;
    shpool = ngx_http_ai_auth_jwks_shpool(issuer);
    sh = shpool->data;

    if ((ngx_msec_int_t) (sh->next - now) > 0) {
        return;
    }

    /* one of the workers looks */

    ngx_shmtx_lock(&shpool->mutex);

    due = ((ngx_msec_int_t) (sh->next - now) <= 0);

    if (due) {
        sh->next = now + NGX_HTTP_AI_JWKS_FILE_MS;
    }

    ngx_shmtx_unlock(&shpool->mutex);

    if (!due) {
        return;
    }

    if (ngx_file_info(issuer->jwks.data, &fi) == NGX_FILE_ERROR) {
        ngx_http_ai_auth_jwks_file_end(issuer, "cannot be opened", ngx_errno);
        return;
    }

    /* what was written a moment ago may still be written to */

    if (ngx_file_uniq(&fi) == sh->file_uniq
        && ngx_file_mtime(&fi) == sh->file_mtime
        && ngx_file_size(&fi) == sh->file_size
        && ngx_time() - ngx_file_mtime(&fi) > NGX_HTTP_AI_JWKS_RECENT)
    {
        return;
    }

    pool = ngx_create_pool(4096, ngx_cycle->log);
    if (pool == NULL) {
        return;
    }

    err = 0;

    error = ngx_http_ai_auth_jwks_read(pool, ngx_cycle->log, &issuer->jwks,
                                       &text, &fi, &err);

    if (error == NULL) {
        sh->file_uniq = ngx_file_uniq(&fi);
        sh->file_mtime = ngx_file_mtime(&fi);
        sh->file_size = ngx_file_size(&fi);

        error = ngx_http_ai_auth_jwks_check(issuer, &text, pool);
    }

    if (error == NULL
        && ngx_http_ai_auth_jwks_store(shpool, &text) != NGX_OK)
    {
        error = "does not fit into shared memory";
    }

    ngx_http_ai_auth_jwks_file_end(issuer, error, err);

    ngx_destroy_pool(pool);
}


static const char *
ngx_http_ai_auth_jwks_read(ngx_pool_t *pool, ngx_log_t *log, ngx_str_t *name,
    ngx_str_t *text, ngx_file_info_t *fi, ngx_err_t *err)
{
    ssize_t      n;
    ngx_fd_t     fd;
    const char  *error;

    fd = ngx_open_file(name->data, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE) {
        *err = ngx_errno;
        return "cannot be opened";
    }

    error = NULL;

    if (ngx_fd_info(fd, fi) == NGX_FILE_ERROR) {
        *err = ngx_errno;
        error = "cannot be read";
        goto done;
    }

    if (!ngx_is_file(fi)) {
        error = "is not a file";
        goto done;
    }

    if (ngx_file_size(fi) > NGX_HTTP_AI_ISSUER_TEXT) {
        error = "is too large, it may have 256k";
        goto done;
    }

    text->data = ngx_pnalloc(pool, NGX_HTTP_AI_ISSUER_TEXT + 1);
    if (text->data == NULL) {
        error = "cannot be read: no memory";
        goto done;
    }

    n = ngx_read_fd(fd, text->data, NGX_HTTP_AI_ISSUER_TEXT + 1);

    if (n == -1) {
        *err = ngx_errno;
        error = "cannot be read";
        goto done;
    }

    if (n > NGX_HTTP_AI_ISSUER_TEXT) {
        error = "is too large, it may have 256k";
        goto done;
    }

    text->len = n;

done:

    if (ngx_close_file(fd) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_ALERT, log, ngx_errno,
                      ngx_close_file_n " \"%V\" failed", name);
    }

    return error;
}


static void
ngx_http_ai_auth_jwks_file_end(ngx_http_ai_auth_issuer_t *issuer,
    const char *error, ngx_err_t err)
{
    ngx_uint_t                       failures;
    ngx_http_ai_auth_jwks_shared_t  *sh;

    sh = ngx_http_ai_auth_jwks_shared(issuer);
    failures = sh->failures;

    if (error) {
        sh->failures = failures + 1;

        if (failures == 0) {
            ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, err,
                          "issuer \"%V\": jwks file \"%V\" %s; the keys of "
                          "before stay in use", &issuer->name, &issuer->jwks,
                          error);
        }

        return;
    }

    sh->failures = 0;

    if (failures) {
        ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                      "issuer \"%V\": jwks file \"%V\" was read again",
                      &issuer->name, &issuer->jwks);
    }
}


ngx_uint_t
ngx_http_ai_auth_jwks_local(ngx_http_ai_url_t *url)
{
    size_t  len;
    u_char  *p;

    p = url->hostname.data;
    len = url->hostname.len;

    if (len >= 9
        && ngx_strncmp(p + len - 9, "localhost", 9) == 0
        && (len == 9 || p[len - 10] == '.'))
    {
        return 1;
    }

    if (len == 3 && ngx_strncmp(p, "::1", 3) == 0) {
        return 1;
    }

    return ngx_strncmp(p, "127.", 4) == 0
           && ngx_inet_addr(p, len) != INADDR_NONE;
}


ngx_int_t
ngx_http_ai_auth_jwks_wait(ngx_http_request_t *r,
    ngx_http_ai_auth_issuer_t *issuer)
{
    ngx_msec_int_t                   left;
    ngx_http_cleanup_t              *cln;
    ngx_atomic_uint_t                completed;
    ngx_http_ai_auth_wait_t         *w;
    ngx_http_ai_auth_jwks_shared_t  *sh;

    if (!ngx_http_ai_auth_jwks_is_url(issuer)) {
        return NGX_DECLINED;
    }

    for (cln = r->main->cleanup; cln; cln = cln->next) {

        if (cln->handler != ngx_http_ai_auth_wait_cleanup) {
            continue;
        }

        w = cln->data;

        if (w->issuer == issuer) {
            return w->waiting ? NGX_AGAIN : NGX_DECLINED;
        }
    }

    if (r != r->main || issuer->poll == NULL
        || issuer->nwaiting >= NGX_HTTP_AI_JWKS_WAITING)
    {
        return NGX_DECLINED;
    }

    sh = ngx_http_ai_auth_jwks_shared(issuer);
    completed = sh->completed;

    if (!ngx_http_ai_auth_jwks_running(sh)) {

        if (sh->generation) {

            if (ngx_http_ai_auth_jwks_fetch(issuer, 1) != NGX_OK
                && !ngx_http_ai_auth_jwks_running(sh))
            {
                return NGX_DECLINED;
            }

        } else {

            left = (ngx_msec_int_t) (sh->next - ngx_current_msec);

            if (left > NGX_HTTP_AI_JWKS_SOON) {
                return NGX_DECLINED;
            }

            if (left <= 0
                && ngx_http_ai_auth_jwks_fetch(issuer, 0) != NGX_OK
                && !ngx_http_ai_auth_jwks_running(sh))
            {
                return NGX_DECLINED;
            }
        }
    }

    cln = ngx_http_cleanup_add(r, sizeof(ngx_http_ai_auth_wait_t));
    if (cln == NULL) {
        return NGX_ERROR;
    }

    w = cln->data;
    ngx_memzero(w, sizeof(ngx_http_ai_auth_wait_t));

    cln->handler = ngx_http_ai_auth_wait_cleanup;

    w->request = r;
    w->issuer = issuer;
    w->completed = completed;

    if (r->connection->read->ready) {
        ngx_post_event(r->connection->read, &ngx_posted_events);

    } else {
        if (ngx_handle_read_event(r->connection->read, 0) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_ai_auth_wait_handler;

    /* not cancelable: a worker that ends waits for the request */

    w->timer.handler = ngx_http_ai_auth_wait_timer;
    w->timer.data = w;
    w->timer.log = r->connection->log;

    ngx_add_timer(&w->timer, ngx_http_ai_auth_jwks_bound(issuer));

    w->waiting = 1;
    ngx_queue_insert_tail(&issuer->waiting, &w->queue);
    issuer->nwaiting++;

    ngx_http_ai_auth_jwks_poll_in(issuer, NGX_HTTP_AI_JWKS_POLL);

    return NGX_AGAIN;
}


static void
ngx_http_ai_auth_wait_handler(ngx_http_request_t *r)
{
    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "ai auth: waits for keys");

    if (ngx_handle_write_event(r->connection->write, 0) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
    }
}


static void
ngx_http_ai_auth_wait_timer(ngx_event_t *ev)
{
    ngx_http_ai_auth_wait_resume(ev->data);
}


static void
ngx_http_ai_auth_wait_cleanup(void *data)
{
    ngx_http_ai_auth_wait_stop(data);
}


static void
ngx_http_ai_auth_wait_stop(ngx_http_ai_auth_wait_t *w)
{
    if (!w->waiting) {
        return;
    }

    w->waiting = 0;

    if (w->timer.timer_set) {
        ngx_del_timer(&w->timer);
    }

    ngx_queue_remove(&w->queue);
    w->issuer->nwaiting--;
}


static void
ngx_http_ai_auth_wait_resume(ngx_http_ai_auth_wait_t *w)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    ngx_http_ai_auth_wait_stop(w);

    r = w->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_core_run_phases;

    if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);

    } else {
        ngx_http_core_run_phases(r);
    }

    ngx_http_run_posted_requests(c);
}
