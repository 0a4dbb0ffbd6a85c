
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Zones: a store in shared memory, and behind it a directory and Redis, if
 * the configuration says so.  Answers are looked for in this order, and what
 * is found further behind is put in front.
 */


#ifndef _NGX_HTTP_AI_CACHE_TIERS_H_INCLUDED_
#define _NGX_HTTP_AI_CACHE_TIERS_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_ai_core.h"
#include "ngx_http_ai_cache_store.h"
#include "ngx_http_ai_nh.h"


typedef enum {
    NGX_HTTP_AI_CACHE_MEMORY = 0,
    NGX_HTTP_AI_CACHE_DISK,
    NGX_HTTP_AI_CACHE_REDIS,
    NGX_HTTP_AI_CACHE_TIERS
} ngx_http_ai_cache_tier_e;


typedef struct ngx_http_ai_cache_zone_s    ngx_http_ai_cache_zone_t;
typedef struct ngx_http_ai_cache_zones_s   ngx_http_ai_cache_zones_t;
typedef struct ngx_http_ai_cache_disk_s    ngx_http_ai_cache_disk_t;
typedef struct ngx_http_ai_cache_remote_s  ngx_http_ai_cache_remote_t;


/* in the zone, beside the store; changed atomically */

typedef struct {
    ngx_http_ai_cache_store_t *store;
    u_char                     secret[NGX_HTTP_AI_SIPHASH_SECRET];
    ngx_atomic_t               lookups[8];    /* ngx_http_ai_cache_e */
    ngx_atomic_t               hits[NGX_HTTP_AI_CACHE_TIERS];
    ngx_atomic_t               misses[NGX_HTTP_AI_CACHE_TIERS];
    ngx_atomic_t               stored[NGX_HTTP_AI_CACHE_TIERS];
    ngx_atomic_t               evicted[NGX_HTTP_AI_CACHE_TIERS];
    ngx_atomic_t               dropped[NGX_HTTP_AI_CACHE_TIERS];
    ngx_atomic_t               corrupt[NGX_HTTP_AI_CACHE_TIERS];
    ngx_atomic_t               disk_bytes;
    ngx_atomic_t               disk_files;
    ngx_atomic_t               disk_loaded;
    ngx_atomic_t               disk_version;  /* of the rules in its file */
    ngx_atomic_t               disk_saving;   /* pid of who writes it */
    ngx_atomic_t               remote_version;    /* of those in Redis */
    ngx_atomic_t               remote_asked;  /* ngx_current_msec */
    ngx_atomic_t               remote_told;   /* the same; 0: never */
} ngx_http_ai_cache_sh_t;


/* zeroed and filled in by the directive, from "name" to "line" */

struct ngx_http_ai_cache_zone_s {
    ngx_str_t                    name;
    size_t                       size;
    ngx_str_t                    disk;        /* a path, or empty */
    off_t                        disk_size;
    ngx_str_t                    redis_name;  /* or empty */
    size_t                       max_size;    /* of one answer */
    time_t                       inactive;    /* of a file; 0: no limit */
    ngx_str_t                    pool;        /* of threads; empty: default */
    ngx_uint_t                   no_threads;
    u_char                      *file;
    ngx_uint_t                   line;

    const ngx_http_ai_api_t     *api;
    ngx_shm_zone_t              *shm_zone;
    ngx_slab_pool_t             *shpool;
    ngx_http_ai_cache_sh_t      *sh;
    ngx_http_ai_cache_disk_t    *on_disk;
    ngx_http_ai_cache_remote_t  *remote;
#if (NGX_THREADS)
    ngx_thread_pool_t           *threads;     /* NULL: without */
#endif
    ngx_int_t                    worker;      /* of this process, for flights;
                                                 NGX_ERROR: none */
    uint64_t                     generation;  /* of live data, applied */
    ngx_http_ai_nh_t             nh;          /* of the zone's secret */
};


/* one in the main configuration of the module */

struct ngx_http_ai_cache_zones_s {
    const ngx_http_ai_api_t     *api;
    ngx_array_t                  zones;       /* ngx_http_ai_cache_zone_t * */
    ngx_array_t                  purges;      /* of "ai_cache_purge" */
    ngx_http_ai_data_t          *data;
};


/* in create_main_conf; api may still be unknown */
ngx_int_t ngx_http_ai_cache_zones_create(ngx_conf_t *cf,
    ngx_http_ai_cache_zones_t *zones);

/* from the directive's handler; returns NGX_CONF_OK or an error's text */
char *ngx_http_ai_cache_zone_add(ngx_conf_t *cf,
    ngx_http_ai_cache_zones_t *zones, ngx_http_ai_cache_zone_t *zone);

/* NULL, with *near set to ", did you mean ..." */
ngx_http_ai_cache_zone_t *ngx_http_ai_cache_zone_find(ngx_conf_t *cf,
    ngx_http_ai_cache_zones_t *zones, ngx_str_t *name, ngx_str_t *near);

/* in postconfiguration; zones->api is set */
ngx_int_t ngx_http_ai_cache_zones_init(ngx_conf_t *cf,
    ngx_http_ai_cache_zones_t *zones);

/* in init_process and exit_process; both do nothing but in workers */
ngx_int_t ngx_http_ai_cache_zones_start(ngx_cycle_t *cycle,
    ngx_http_ai_cache_zones_t *zones);
void ngx_http_ai_cache_zones_stop(ngx_cycle_t *cycle,
    ngx_http_ai_cache_zones_t *zones);

/* the handler of "ai_cache_purge zone;", NGX_HTTP_LOC_CONF */
char *ngx_http_ai_cache_purge(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);


/* the store, locked; hold it for microseconds */
ngx_http_ai_cache_store_t *ngx_http_ai_cache_lock(
    ngx_http_ai_cache_zone_t *zone);
void ngx_http_ai_cache_unlock(ngx_http_ai_cache_zone_t *zone);

/* of keys that do not leave the zone; NULL: they do */
ngx_http_ai_nh_t *ngx_http_ai_cache_nh(ngx_http_ai_cache_zone_t *zone);

int64_t ngx_http_ai_cache_now(void);


/* an answer that was found, in the pool */

typedef struct {
    ngx_http_ai_cache_meta_t     meta;
    ngx_str_t                    data;
    ngx_http_ai_cache_tier_e     tier;
} ngx_http_ai_cache_found_t;


/* NGX_OK, NGX_DECLINED (nothing) or NGX_ERROR (no memory); called once and
 * never from inside lookup(); not called when the pool is destroyed before */
typedef void (*ngx_http_ai_cache_found_pt)(void *data, ngx_int_t rc,
    ngx_http_ai_cache_found_t *found);

/*
 * Fresh or stale, found->meta tells; never what was purged.  NGX_OK;
 * NGX_DECLINED: there is none; NGX_AGAIN: the handler will be called, with the
 * same "found", which lives until then; NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_ai_cache_lookup(ngx_http_ai_cache_zone_t *zone,
    u_char *id, ngx_pool_t *pool, ngx_http_ai_cache_found_t *found,
    ngx_http_ai_cache_found_pt handler, void *data);

/*
 * Into all tiers; never waits.  meta is that of a whole answer, with its id
 * and times: created is when it was asked for.  in_memory: not into memory,
 * as the flight's end() has done it.  The bytes are copied.
 */
void ngx_http_ai_cache_store(ngx_http_ai_cache_zone_t *zone,
    ngx_http_ai_cache_meta_t *meta, u_char *data, size_t size,
    ngx_uint_t in_memory);

/* the result of a request, for metrics */
void ngx_http_ai_cache_count(ngx_http_ai_cache_zone_t *zone,
    ngx_http_ai_cache_e result);


#endif /* _NGX_HTTP_AI_CACHE_TIERS_H_INCLUDED_ */
