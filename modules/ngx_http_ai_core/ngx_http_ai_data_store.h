
/*
 * Copyright (C) nginx AI gateway authors
 */


/* private to the core: what the files of live data share */


#ifndef _NGX_HTTP_AI_DATA_STORE_H_INCLUDED_
#define _NGX_HTTP_AI_DATA_STORE_H_INCLUDED_


#include "ngx_http_ai_core_module.h"


#define NGX_HTTP_AI_DATA_ERROR   512          /* bytes of a message */
#define NGX_HTTP_AI_DATA_RECORD  (256 * 1024)
#define NGX_HTTP_AI_DATA_READ    (64 * 1024)
#define NGX_HTTP_AI_DATA_NODES   512
#define NGX_HTTP_AI_DATA_SLICE   1000         /* us of work in one turn of the
                                                 event loop */


typedef struct ngx_http_ai_data_loading_s  ngx_http_ai_data_loading_t;


/* what a file looks like from outside; one that was not changed looks alike */

typedef struct {
    dev_t                      dev;
    ino_t                      ino;
    off_t                      size;
    time_t                     mtime;
    time_t                     ctime;
    long                       mtime_nsec;
    long                       ctime_nsec;
    ngx_err_t                  err;           /* of stat() */
    unsigned                   lines:1;       /* .jsonl */
    unsigned                   both:1;        /* .json and .jsonl are there */
} ngx_http_ai_data_sign_t;


/*
 * Generation g is in half g & 1.  Its stamp is g, and 0 while it is written.
 * A half has buckets, and then records, each with its keys behind it; they are
 * referred to by their offset divided by 8.
 */

typedef struct {
    ngx_atomic_t               stamp;
    u_char                    *base;
    uint64_t                   flags;
    uint64_t                   records;
    size_t                     used;
    time_t                     loaded;
    uint32_t                   mask;          /* number of buckets - 1 */
} ngx_http_ai_data_half_t;


typedef struct {
    ngx_atomic_t               generation;    /* in force */

    /*
     * Only the process that has its pid here, doubled, may write what
     * follows; plus 1 while it does.  The pid of a process that is gone, or
     * that has not been heard of for long, is replaced by another one's.
     */
    ngx_atomic_t               holder;
    ngx_atomic_t               heartbeat;     /* ms */

    size_t                     size;          /* of a half */
    ngx_http_ai_data_half_t    half[2];

    ngx_http_ai_data_state_e   state;
    uint64_t                   failures;
    ngx_http_ai_data_sign_t    loaded;        /* of the file in force */
    ngx_http_ai_data_sign_t    failed;        /* of the one refused last */
    ngx_uint_t                 has_failed;
    size_t                     error_len;
    u_char                     error[NGX_HTTP_AI_DATA_ERROR];
} ngx_http_ai_data_sh_t;


struct ngx_http_ai_data_s {
    ngx_http_ai_data_sh_t     *sh;
    ngx_http_ai_data_def_t     def;
    ngx_shm_zone_t            *zone;
    ngx_str_t                  dir;
    u_char                    *json;          /* names of the two files */
    u_char                    *jsonl;

    /* of this process */
    ngx_http_ai_data_loading_t  *loading;
    ngx_http_ai_data_sign_t    look;          /* seen once, not yet sure */
    ngx_uint_t                 looks;         /* since a change was seen */
    uint64_t                   retry;         /* ms; not before */
    ngx_event_t                slice;
    unsigned                   seen:1;
    unsigned                   probed:1;
    unsigned                   complained:1;  /* of what may go by itself */
};


typedef enum {
    NGX_HTTP_AI_DATA_FORM_UNKNOWN = 0,
    NGX_HTTP_AI_DATA_FORM_SEQUENCE,           /* of objects */
    NGX_HTTP_AI_DATA_FORM_ARRAY,
    NGX_HTTP_AI_DATA_FORM_WRAPPED             /* array in an object */
} ngx_http_ai_data_form_e;


typedef enum {
    NGX_HTTP_AI_DATA_CLEAR = 0,               /* the buckets */
    NGX_HTTP_AI_DATA_BETWEEN,                 /* records */
    NGX_HTTP_AI_DATA_INSIDE,
    NGX_HTTP_AI_DATA_STRING,
    NGX_HTTP_AI_DATA_DONE
} ngx_http_ai_data_step_e;


/* a load under way */

struct ngx_http_ai_data_loading_s {
    ngx_http_ai_data_load_t    load;          /* must stay first */

    ngx_http_ai_data_half_t   *half;          /* the spare one */
    size_t                     size;
    size_t                     used;
    uint64_t                   records;
    uint32_t                   mask;
    uint32_t                   cleared;       /* buckets */

    ngx_http_ai_data_sign_t    sign;
    ngx_fd_t                   fd;
    u_char                    *path;
    off_t                      nread;

    u_char                    *buf;
    u_char                    *end;
    u_char                    *last;          /* of what was read */
    u_char                    *pos;
    u_char                    *start;         /* of the record */
    ngx_uint_t                 line;          /* at pos */
    ngx_uint_t                 start_line;
    ngx_uint_t                 depth;
    ngx_http_ai_data_form_e    form;
    ngx_http_ai_data_step_e    step;

    ngx_pool_t                *pool;          /* reset after each record */
    ngx_http_ai_json_t         json;
    ngx_http_ai_json_node_t   *nodes;

    uint64_t                   work;          /* us of CPU time */
    uint64_t                   most;          /* ... of a slice */
    uint64_t                   longest;       /* us on the clock */
    size_t                     error_len;
    u_char                     error[NGX_HTTP_AI_DATA_ERROR];

    unsigned                   eof:1;
    unsigned                   comma:1;       /* a record must follow */
    unsigned                   closed:1;      /* the array */
    unsigned                   full:1;        /* the zone */
};


/* ngx_http_ai_data_store.c */

/* the zone's memory; NGX_ERROR: it is too small */
ngx_int_t ngx_http_ai_data_store_init(ngx_slab_pool_t *shpool,
    ngx_http_ai_data_sh_t **shp);

/* takes the spare half for a load of so many bytes of text */
void ngx_http_ai_data_store_begin(ngx_http_ai_data_loading_t *ld, off_t size);

/* clears some buckets; NGX_AGAIN: not all are */
ngx_int_t ngx_http_ai_data_store_clear(ngx_http_ai_data_loading_t *ld);

/* the new generation is in force */
void ngx_http_ai_data_store_commit(ngx_http_ai_data_loading_t *ld);


/* ngx_http_ai_data_load.c */

/* NULL: no memory */
ngx_http_ai_data_loading_t *ngx_http_ai_data_load_create(
    ngx_http_ai_data_t *data, ngx_http_ai_data_sign_t *sign, ngx_log_t *log);

/*
 * Works for so many us, 0: until the end.  NGX_AGAIN; NGX_OK: all of the file
 * is in force; NGX_DECLINED: it is bad, ld->error says why; NGX_ERROR:
 * something failed that may not fail the next time; NGX_BUSY: the file was
 * changed meanwhile.
 */
ngx_int_t ngx_http_ai_data_load_work(ngx_http_ai_data_loading_t *ld,
    ngx_uint_t slice);

void ngx_http_ai_data_load_free(ngx_http_ai_data_loading_t *ld);

/* the file is as if it had no record */
ngx_int_t ngx_http_ai_data_load_none(ngx_http_ai_data_t *data,
    ngx_http_ai_data_sign_t *sign, ngx_log_t *log);

void ngx_http_ai_data_look(ngx_http_ai_data_t *data,
    ngx_http_ai_data_sign_t *sign);
ngx_uint_t ngx_http_ai_data_alike(ngx_http_ai_data_sign_t *a,
    ngx_http_ai_data_sign_t *b);

/* microseconds of a clock that never goes back, the same in all processes */
uint64_t ngx_http_ai_data_clock(void);


#endif /* _NGX_HTTP_AI_DATA_STORE_H_INCLUDED_ */
