
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_cache.h"
#include "ngx_http_ai_cache_record.h"
#include "ngx_http_ai_cache_disk_ctx.h"
#include "ngx_http_ai_cache_disk_file.h"
#include "ngx_http_ai_cache_disk_job.h"


typedef struct {
    ngx_http_ai_cache_job_t      job;
    ngx_http_ai_cache_file_t     file;
    ngx_int_t                    rc;
    ngx_str_t                    answer;      /* in the file's bytes */
    ngx_http_ai_cache_meta_t     meta;
    ngx_http_ai_cache_zone_t    *zone;
    ngx_http_ai_cache_found_t   *found;
    ngx_http_ai_cache_found_pt   handler;
    void                        *data;
    unsigned                     running:1;
    unsigned                     left:1;      /* its pool is gone */
    u_char                       id[NGX_HTTP_AI_CACHE_ID];
} ngx_http_ai_cache_disk_get_t;


static void ngx_http_ai_cache_disk_get(ngx_http_ai_cache_job_t *job);
static void ngx_http_ai_cache_disk_done(ngx_http_ai_cache_job_t *job);
static ngx_int_t ngx_http_ai_cache_disk_got(ngx_http_ai_cache_disk_get_t *get);
static void ngx_http_ai_cache_disk_cleanup(void *data);
static void ngx_http_ai_cache_disk_free(ngx_http_ai_cache_disk_get_t *get);


ngx_int_t
ngx_http_ai_cache_disk_read(ngx_http_ai_cache_zone_t *zone, u_char *id,
    ngx_pool_t *pool, ngx_http_ai_cache_found_t *found,
    ngx_http_ai_cache_found_pt handler, void *data)
{
    ngx_pool_cleanup_t            *cln;
    ngx_http_ai_cache_disk_get_t  *get;

    cln = ngx_pool_cleanup_add(pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    get = ngx_calloc(sizeof(ngx_http_ai_cache_disk_get_t) + zone->disk.len
                     + NGX_HTTP_AI_CACHE_NAME, ngx_cycle->log);
    if (get == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_ai_cache_disk_cleanup;
    cln->data = get;

    get->job.work = ngx_http_ai_cache_disk_get;
    get->job.done = ngx_http_ai_cache_disk_done;

    get->zone = zone;
    get->found = found;
    get->handler = handler;
    get->data = data;
    ngx_memcpy(get->id, id, NGX_HTTP_AI_CACHE_ID);

    get->file.name = (u_char *) (get + 1);
    (void) ngx_http_ai_cache_disk_name(zone->on_disk, id, get->file.name);

    if (ngx_http_ai_cache_job_run(zone, &get->job) == NGX_AGAIN) {
        get->running = 1;
        return NGX_AGAIN;
    }

    return ngx_http_ai_cache_disk_got(get);
}


/* in a thread */

static void
ngx_http_ai_cache_disk_get(ngx_http_ai_cache_job_t *job)
{
    ngx_http_ai_cache_disk_get_t *get = (ngx_http_ai_cache_disk_get_t *) job;

    size_t  head;

    head = sizeof(ngx_http_ai_cache_head_t);

    get->rc = ngx_http_ai_cache_file_read(&get->file, head,
                                          head + get->zone->max_size);

    if (get->rc == NGX_OK
        && ngx_http_ai_cache_record_read(get->file.data, get->file.size,
                                         get->id, &get->meta, &get->answer)
           != NGX_OK)
    {
        get->rc = NGX_ABORT;
    }
}


static void
ngx_http_ai_cache_disk_done(ngx_http_ai_cache_job_t *job)
{
    ngx_http_ai_cache_disk_get_t *get = (ngx_http_ai_cache_disk_get_t *) job;

    ngx_int_t  rc;

    get->running = 0;

    if (get->left) {
        ngx_http_ai_cache_disk_free(get);
        return;
    }

    rc = ngx_http_ai_cache_disk_got(get);

    get->handler(get->data, rc, get->found);
}


static ngx_int_t
ngx_http_ai_cache_disk_got(ngx_http_ai_cache_disk_get_t *get)
{
    u_char                     *name;
    ngx_uint_t                  purged;
    ngx_http_ai_cache_sh_t     *sh;
    ngx_http_ai_cache_zone_t   *zone;
    ngx_http_ai_cache_store_t  *st;

    zone = get->zone;
    sh = zone->sh;
    name = get->file.name;

    ngx_http_ai_cache_disk_error(zone->on_disk, get->file.failed,
                                 get->file.err, name);

    if (get->rc == NGX_ABORT) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "ai cache: \"%s\" is cut, damaged or too large, it is "
                      "removed", name);

        (void) ngx_http_ai_cache_disk_remove(zone->on_disk, name,
                                             get->file.size);
        (void) ngx_atomic_fetch_add(&sh->corrupt[NGX_HTTP_AI_CACHE_DISK], 1);
    }

    if (get->rc != NGX_OK) {
        goto miss;
    }

    st = ngx_http_ai_cache_lock(zone);
    purged = ngx_http_ai_cache_purged(st, &get->meta);
    ngx_http_ai_cache_unlock(zone);

    if (purged || get->meta.stale <= ngx_http_ai_cache_now()) {
        (void) ngx_http_ai_cache_disk_remove(zone->on_disk, name,
                                             get->file.size);
        goto miss;
    }

    get->found->meta = get->meta;
    get->found->data = get->answer;
    get->found->tier = NGX_HTTP_AI_CACHE_DISK;

    (void) ngx_atomic_fetch_add(&sh->hits[NGX_HTTP_AI_CACHE_DISK], 1);

    return NGX_OK;

miss:

    (void) ngx_atomic_fetch_add(&sh->misses[NGX_HTTP_AI_CACHE_DISK], 1);

    return NGX_DECLINED;
}


static void
ngx_http_ai_cache_disk_cleanup(void *data)
{
    ngx_http_ai_cache_disk_get_t *get = data;

    if (get->running) {
        get->left = 1;
        return;
    }

    ngx_http_ai_cache_disk_free(get);
}


static void
ngx_http_ai_cache_disk_free(ngx_http_ai_cache_disk_get_t *get)
{
    if (get->file.data) {
        ngx_free(get->file.data);
    }

    ngx_free(get);
}
