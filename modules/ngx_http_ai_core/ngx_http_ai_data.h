
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Live data: files that are in force without a reload.
 *
 *     ai_data /etc/nginx/ai interval=250ms size=64m;
 *
 * A dataset ("keys") is read from <directory>/<name>.json or <name>.jsonl: a
 * sequence of JSON objects (JSON Lines), an array of them, or an object with
 * the only member "<name>" that is such an array.  One worker watches the
 * files (inode, size, times behind symbolic links), reads a changed one in
 * slices of at most 2 ms into the spare half of the dataset's shared zone, and
 * flips one atomic number when every record was good; a bad record leaves the
 * last good generation in force.  Another worker takes over when that one
 * dies.  The first generation is loaded by the master when it reads the
 * configuration, so that "nginx -t" checks the files.
 *
 * A record is a block of bytes that its module makes ("blob") and finds again
 * by one of its keys, each a byte string that is unique in the dataset.
 * Readers copy the blob, and repeat the copy when the half was reused
 * meanwhile, so they need no lock.
 */


#ifndef _NGX_HTTP_AI_DATA_H_INCLUDED_
#define _NGX_HTTP_AI_DATA_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_ai_json.h"


typedef struct ngx_http_ai_data_s        ngx_http_ai_data_t;
typedef struct ngx_http_ai_data_load_s   ngx_http_ai_data_load_t;


typedef struct {
    ngx_str_t                  name;          /* "keys" */
    size_t                     size;          /* of the zone; 0: that of
                                                 ai_data */
    ngx_uint_t                 required;      /* -t fails without the file;
                                                 else no file is no record */
    ngx_str_t                  create;        /* how to make the file, for the
                                                 message; may be empty */
    void                      *conf;          /* for the handlers */

    /*
     * One record: j is its whole tree.  It adds what it wants to find by
     * ngx_http_ai_data_add().  NGX_OK; NGX_DECLINED: the record is bad,
     * *error says why (in j->pool or static), name is what to call the record
     * by ("k_123") when it is known; NGX_ERROR: no memory.  That the zone is
     * full need not be said, any code does then.  j->pool lives until the
     * record is done.  Must not keep anything between calls but what the
     * load's "state" points to.
     */
    ngx_int_t                (*record)(ngx_http_ai_data_load_t *load,
                                       ngx_http_ai_json_t *j,
                                       ngx_str_t *name, ngx_str_t *error);

    /* all records were good and are about to be in force; may be NULL;
     * NGX_DECLINED with *error keeps the old generation */
    ngx_int_t                (*done)(ngx_http_ai_data_load_t *load,
                                     ngx_str_t *error);
} ngx_http_ai_data_def_t;


struct ngx_http_ai_data_load_s {
    ngx_http_ai_data_t        *data;
    void                      *conf;          /* def->conf */
    uint64_t                   flags;         /* or'ed by the handlers, kept
                                                 with the generation */
    void                      *state;         /* of the handlers */
    ngx_pool_t                *pool;          /* lives as long as the load */
};


/* the figures of a dataset, for variables and metrics */

typedef enum {
    NGX_HTTP_AI_DATA_NONE = 0,        /* there is no file */
    NGX_HTTP_AI_DATA_OK,              /* in force is what is in the file */
    NGX_HTTP_AI_DATA_STALE            /* the file is bad or gone, an older
                                         generation is in force */
} ngx_http_ai_data_state_e;


typedef struct {
    ngx_str_t                  name;
    ngx_http_ai_data_state_e   state;
    ngx_uint_t                 required;      /* as in the definition */
    uint64_t                   generation;
    uint64_t                   records;
    uint64_t                   failures;      /* contents that were refused */
    time_t                     loaded;        /* the generation in force */
    time_t                     changed;       /* mtime of its file; 0: none */
    size_t                     used;          /* bytes of a half */
    size_t                     size;
    ngx_str_t                  error;         /* of the last refused content;
                                                 empty unless stale */
} ngx_http_ai_data_status_t;


/*
 * Adds a blob under its keys, 256 at most.  NGX_OK; NGX_DECLINED: a key is
 * there already (*dup is its index), nothing was added; NGX_ABORT: the zone is
 * full; NGX_ERROR.
 */
ngx_int_t ngx_http_ai_data_add(ngx_http_ai_data_load_t *load, ngx_str_t *blob,
    ngx_str_t *keys, ngx_uint_t nkeys, ngx_uint_t *dup);


/*
 * A copy of the blob of a key in the pool.  Keys are compared in constant
 * time.  NGX_OK; NGX_DECLINED: there is none; NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_ai_data_find(ngx_http_ai_data_t *data, ngx_str_t *key,
    ngx_pool_t *pool, ngx_str_t *blob);

/* 0: nothing was loaded yet; grows with each generation.  A single load of
 * memory: callers keep what they have derived until it changes */
uint64_t ngx_http_ai_data_generation(ngx_http_ai_data_t *data);

/* the flags of the generation in force */
uint64_t ngx_http_ai_data_flags(ngx_http_ai_data_t *data);

/* calls back for each blob of the generation in force, copied into the pool;
 * for datasets of few records.  The handler returns NGX_OK to go on */
ngx_int_t ngx_http_ai_data_walk(ngx_http_ai_data_t *data, ngx_pool_t *pool,
    ngx_int_t (*handler)(void *ctx, ngx_str_t *blob), void *ctx);


/*
 * Registers a dataset, in postconfiguration at the latest; the same name twice
 * gives the same dataset.  NULL after an [emerg], also when there is no
 * ai_data directive.
 */
ngx_http_ai_data_t *ngx_http_ai_data_register(ngx_conf_t *cf,
    ngx_http_ai_data_def_t *def);

/* is there an ai_data directive?  For datasets that are not required */
ngx_uint_t ngx_http_ai_data_enabled(ngx_conf_t *cf);

/* figures of the dataset n of the running configuration, the error's text in
 * the pool.  NGX_OK; NGX_DECLINED: there are only n of them; NGX_ERROR */
ngx_int_t ngx_http_ai_data_status(ngx_uint_t n, ngx_pool_t *pool,
    ngx_http_ai_data_status_t *status);


#endif /* _NGX_HTTP_AI_DATA_H_INCLUDED_ */
