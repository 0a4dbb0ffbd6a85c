
/*
 * Copyright (C) nginx AI gateway authors
 */


/* answers wait in a queue of the worker, and are written one by one */


#include "ngx_http_ai_cache.h"
#include "ngx_http_ai_cache_record.h"
#include "ngx_http_ai_cache_disk_ctx.h"
#include "ngx_http_ai_cache_disk_file.h"
#include "ngx_http_ai_cache_disk_job.h"


/* what may wait to be written: a batch of inputs comes at once */
#define NGX_HTTP_AI_CACHE_QUEUE        4096
#define NGX_HTTP_AI_CACHE_QUEUE_BYTES  (16 * 1024 * 1024)

/* the part of the directory's size, 1/n, that may be written before it is
 * known how much is there */
#define NGX_HTTP_AI_CACHE_UNKNOWN      16


struct ngx_http_ai_cache_write_s {
    ngx_http_ai_cache_job_t    job;
    ngx_queue_t                queue;
    ngx_http_ai_cache_disk_t  *disk;
    ngx_http_ai_cache_file_t   file;
    ngx_int_t                  rc;
    off_t                      had;
};


static void ngx_http_ai_cache_disk_handler(ngx_event_t *ev);
static ngx_http_ai_cache_write_t *ngx_http_ai_cache_disk_next(
    ngx_http_ai_cache_disk_t *disk);
static void ngx_http_ai_cache_disk_put(ngx_http_ai_cache_job_t *job);
static void ngx_http_ai_cache_disk_done(ngx_http_ai_cache_job_t *job);


void
ngx_http_ai_cache_disk_start(ngx_http_ai_cache_zone_t *zone)
{
    ngx_http_ai_cache_disk_t  *disk;

    disk = zone->on_disk;

    disk->event_data.data = disk;
    disk->event_data.fd = (ngx_socket_t) -1;

    disk->event.handler = ngx_http_ai_cache_disk_handler;
    disk->event.data = &disk->event_data;
    disk->event.log = ngx_cycle->log;
}


void
ngx_http_ai_cache_disk_stop(ngx_http_ai_cache_zone_t *zone)
{
    ngx_http_ai_cache_disk_t   *disk;
    ngx_http_ai_cache_write_t  *w;

    disk = zone->on_disk;

    if (disk->event.posted) {
        ngx_delete_posted_event(&disk->event);
    }

    /* nginx has ended the threads before, with all that they had to do */

    if (disk->writing) {
        ngx_http_ai_cache_disk_done((ngx_http_ai_cache_job_t *)
                                    disk->writing);
    }

    for ( ;; ) {
        w = ngx_http_ai_cache_disk_next(disk);

        if (w == NULL) {
            break;
        }

        ngx_http_ai_cache_disk_put(&w->job);
        ngx_http_ai_cache_disk_done(&w->job);
    }
}


void
ngx_http_ai_cache_disk_write(ngx_http_ai_cache_zone_t *zone,
    ngx_http_ai_cache_meta_t *meta, u_char *data, size_t size)
{
    off_t                       max;
    size_t                      len, name;
    u_char                     *p;
    ngx_http_ai_cache_head_t    head;
    ngx_http_ai_cache_disk_t   *disk;
    ngx_http_ai_cache_write_t  *w;

    disk = zone->on_disk;
    len = sizeof(ngx_http_ai_cache_head_t) + size;
    max = zone->disk_size;

    if (!zone->sh->disk_loaded) {
        max /= NGX_HTTP_AI_CACHE_UNKNOWN;
    }

    if (disk->nqueued == NGX_HTTP_AI_CACHE_QUEUE
        || disk->queued + len > NGX_HTTP_AI_CACHE_QUEUE_BYTES
        || ngx_http_ai_cache_disk_used(disk) + (off_t) (disk->queued + len)
           > max)
    {
        goto dropped;
    }

    name = zone->disk.len + NGX_HTTP_AI_CACHE_NAME;

    w = ngx_alloc(sizeof(ngx_http_ai_cache_write_t) + len + name * 2,
                  ngx_cycle->log);
    if (w == NULL) {
        goto dropped;
    }

    ngx_memzero(w, sizeof(ngx_http_ai_cache_write_t));

    w->job.work = ngx_http_ai_cache_disk_put;
    w->job.done = ngx_http_ai_cache_disk_done;
    w->disk = disk;

    p = (u_char *) (w + 1);

    w->file.data = p;
    w->file.size = len;

    ngx_http_ai_cache_head_write(&head, meta);
    p = ngx_cpymem(p, &head, sizeof(ngx_http_ai_cache_head_t));
    p = ngx_cpymem(p, data, size);

    w->file.name = p;
    w->file.temp = p + name;

    (void) ngx_http_ai_cache_disk_name(disk, meta->id, w->file.name);
    ngx_http_ai_cache_disk_temp(disk, &w->file);

    ngx_queue_insert_tail(&disk->queue, &w->queue);
    disk->nqueued++;
    disk->queued += len;

    if (disk->writing == NULL && !disk->event.posted) {
        ngx_post_event(&disk->event, &ngx_posted_next_events);
    }

    return;

dropped:

    (void) ngx_atomic_fetch_add(&zone->sh->dropped[NGX_HTTP_AI_CACHE_DISK], 1);
}


/* one file in a turn of the event loop, or in a thread */

static void
ngx_http_ai_cache_disk_handler(ngx_event_t *ev)
{
    ngx_http_ai_cache_disk_t   *disk;
    ngx_http_ai_cache_event_t  *data;
    ngx_http_ai_cache_write_t  *w;

    data = ev->data;
    disk = data->data;

    w = ngx_http_ai_cache_disk_next(disk);

    if (w == NULL) {
        return;
    }

    disk->writing = w;

    if (ngx_http_ai_cache_job_run(disk->zone, &w->job) == NGX_OK) {
        ngx_http_ai_cache_disk_done(&w->job);
    }
}


static ngx_http_ai_cache_write_t *
ngx_http_ai_cache_disk_next(ngx_http_ai_cache_disk_t *disk)
{
    ngx_queue_t  *q;

    if (ngx_queue_empty(&disk->queue)) {
        return NULL;
    }

    q = ngx_queue_head(&disk->queue);
    ngx_queue_remove(q);

    return ngx_queue_data(q, ngx_http_ai_cache_write_t, queue);
}


static void
ngx_http_ai_cache_disk_put(ngx_http_ai_cache_job_t *job)
{
    ngx_http_ai_cache_write_t *w = (ngx_http_ai_cache_write_t *) job;

    w->rc = ngx_http_ai_cache_file_write(&w->file, &w->had);
}


static void
ngx_http_ai_cache_disk_done(ngx_http_ai_cache_job_t *job)
{
    ngx_http_ai_cache_write_t *w = (ngx_http_ai_cache_write_t *) job;

    ngx_http_ai_cache_sh_t    *sh;
    ngx_http_ai_cache_disk_t  *disk;

    disk = w->disk;
    sh = disk->zone->sh;

    ngx_http_ai_cache_disk_error(disk, w->file.failed, w->file.err,
                                 w->file.temp);

    if (w->rc == NGX_OK) {
        (void) ngx_atomic_fetch_add(&sh->stored[NGX_HTTP_AI_CACHE_DISK], 1);
        (void) ngx_atomic_fetch_add(&sh->disk_bytes,
                                    (ngx_atomic_int_t) w->file.size
                                    - ngx_max(w->had, 0));

        if (w->had == -1) {
            (void) ngx_atomic_fetch_add(&sh->disk_files, 1);
        }

    } else {
        (void) ngx_atomic_fetch_add(&sh->dropped[NGX_HTTP_AI_CACHE_DISK], 1);
    }

    disk->nqueued--;
    disk->queued -= w->file.size;
    disk->writing = NULL;

    ngx_free(w);

    if (!ngx_queue_empty(&disk->queue) && !disk->event.posted) {
        ngx_post_event(&disk->event, &ngx_posted_next_events);
    }
}
