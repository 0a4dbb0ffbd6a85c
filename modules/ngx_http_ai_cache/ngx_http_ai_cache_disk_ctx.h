
/*
 * Copyright (C) nginx AI gateway authors
 */


/* what the files of the disk tier have in common */


#ifndef _NGX_HTTP_AI_CACHE_DISK_CTX_H_INCLUDED_
#define _NGX_HTTP_AI_CACHE_DISK_CTX_H_INCLUDED_


#include "ngx_http_ai_cache.h"
#include "ngx_http_ai_cache_disk.h"
#include "ngx_http_ai_cache_disk_file.h"


/* files that one walk can remove */
#define NGX_HTTP_AI_CACHE_OLD   4096

/* bytes of a file's name behind the directory's, with those of a temporary */
#define NGX_HTTP_AI_CACHE_NAME  128


typedef struct {
    int64_t                      used;        /* ms */
    off_t                        size;
    u_char                       id[NGX_HTTP_AI_CACHE_ID];
} ngx_http_ai_cache_old_t;


/* the cache manager's walk through the directory */

typedef struct {
    ngx_uint_t                   dir;         /* the next one */
    off_t                        bytes;
    off_t                        before;      /* used when it began */
    ngx_uint_t                   files;
    ngx_msec_t                   ended;
    ngx_http_ai_cache_old_t     *old;         /* a heap, the youngest first */
    ngx_uint_t                   nold;
    unsigned                     walking:1;
    unsigned                     removing:1;
    unsigned                     futile:1;    /* nothing was removed */
    unsigned                     walked:1;
} ngx_http_ai_cache_walk_t;


typedef struct ngx_http_ai_cache_write_s  ngx_http_ai_cache_write_t;

struct ngx_http_ai_cache_disk_s {
    ngx_http_ai_cache_zone_t    *zone;

    ngx_queue_t                  queue;       /* to be written */
    ngx_http_ai_cache_write_t   *writing;     /* not in it any more */
    ngx_uint_t                   nqueued;     /* with that one */
    size_t                       queued;      /* bytes */
    ngx_event_t                  event;
    ngx_http_ai_cache_event_t    event_data;
    ngx_uint_t                   serial;
    time_t                       told;

    ngx_http_ai_cache_walk_t     walk;
};


/* the file of rules; all of it is always written */

typedef struct {
    uint64_t                     sum;         /* of what follows */
    uint64_t                     n;
    ngx_http_ai_cache_rule_t     rules[NGX_HTTP_AI_CACHE_RULES + 1];
} ngx_http_ai_cache_rules_t;


u_char *ngx_http_ai_cache_disk_name(ngx_http_ai_cache_disk_t *disk, u_char *id,
    u_char *name);

/* sets the other name that it is written under */
void ngx_http_ai_cache_disk_temp(ngx_http_ai_cache_disk_t *disk,
    ngx_http_ai_cache_file_t *file);

/* a full or broken disk is told once in a second; call: NULL is no error */
void ngx_http_ai_cache_disk_error(ngx_http_ai_cache_disk_t *disk,
    const char *call, ngx_err_t err, u_char *name);

off_t ngx_http_ai_cache_disk_used(ngx_http_ai_cache_disk_t *disk);

/* NGX_OK; NGX_DECLINED: it was not there, or could not be removed */
ngx_int_t ngx_http_ai_cache_disk_remove(ngx_http_ai_cache_disk_t *disk,
    u_char *name, off_t size);

/* ms until it wants to be called again */
ngx_msec_t ngx_http_ai_cache_disk_manager(void *data);


#endif /* _NGX_HTTP_AI_CACHE_DISK_CTX_H_INCLUDED_ */
