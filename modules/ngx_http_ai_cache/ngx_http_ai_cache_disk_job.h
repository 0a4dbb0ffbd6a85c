
/*
 * Copyright (C) nginx AI gateway authors
 */


/* work that may wait for the disk, done by a thread if there is one */


#ifndef _NGX_HTTP_AI_CACHE_DISK_JOB_H_INCLUDED_
#define _NGX_HTTP_AI_CACHE_DISK_JOB_H_INCLUDED_


#include "ngx_http_ai_cache_tiers.h"


typedef struct ngx_http_ai_cache_job_s  ngx_http_ai_cache_job_t;

typedef void (*ngx_http_ai_cache_job_pt)(ngx_http_ai_cache_job_t *job);


/* in zeroed memory of ngx_alloc(), that lives until it is done */

struct ngx_http_ai_cache_job_s {
#if (NGX_THREADS)
    ngx_thread_task_t           task;
#endif
    ngx_http_ai_cache_job_pt    work;         /* in a thread */
    ngx_http_ai_cache_job_pt    done;         /* in the event loop, after it */
};


/*
 * NGX_AGAIN: a thread has it, done() will be called, but not when the process
 * exits before; NGX_OK: there was no thread, it was done here, and done() is
 * not called.
 */
ngx_int_t ngx_http_ai_cache_job_run(ngx_http_ai_cache_zone_t *zone,
    ngx_http_ai_cache_job_t *job);


#endif /* _NGX_HTTP_AI_CACHE_DISK_JOB_H_INCLUDED_ */
