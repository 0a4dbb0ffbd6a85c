
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_cache_disk_job.h"


#if (NGX_THREADS)

static void ngx_http_ai_cache_job_handler(void *data, ngx_log_t *log);
static void ngx_http_ai_cache_job_done(ngx_event_t *ev);

#endif


ngx_int_t
ngx_http_ai_cache_job_run(ngx_http_ai_cache_zone_t *zone,
    ngx_http_ai_cache_job_t *job)
{
#if (NGX_THREADS)

    if (zone->threads) {
        job->task.ctx = job;
        job->task.handler = ngx_http_ai_cache_job_handler;
        job->task.event.data = job;
        job->task.event.handler = ngx_http_ai_cache_job_done;
        job->task.event.log = ngx_cycle->log;

        if (ngx_thread_task_post(zone->threads, &job->task) == NGX_OK) {
            return NGX_AGAIN;
        }
    }

#endif

    job->work(job);

    return NGX_OK;
}


#if (NGX_THREADS)

static void
ngx_http_ai_cache_job_handler(void *data, ngx_log_t *log)
{
    ngx_http_ai_cache_job_t *job = data;

    job->work(job);
}


static void
ngx_http_ai_cache_job_done(ngx_event_t *ev)
{
    ngx_http_ai_cache_job_t *job = ev->data;

    job->done(job);
}

#endif
