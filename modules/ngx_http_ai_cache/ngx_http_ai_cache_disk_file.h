
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * A file of the disk tier, read and written as a whole.  Plain system calls:
 * they may wait for the disk, keep no state, log nothing, and can run in a
 * thread.
 */


#ifndef _NGX_HTTP_AI_CACHE_DISK_FILE_H_INCLUDED_
#define _NGX_HTTP_AI_CACHE_DISK_FILE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


typedef struct {
    u_char                    *name;
    u_char                    *temp;        /* to write: another one beside
                                               it, which it replaces */
    u_char                    *data;
    size_t                     size;
    const char                *failed;      /* the call that did, or NULL; */
    ngx_err_t                  err;         /* ... with this */
} ngx_http_ai_cache_file_t;


/*
 * A regular file of min to max bytes, whose time of access is set.  NGX_OK:
 * data is of malloc(), and the caller's; NGX_DECLINED: there is none, or a
 * call failed; NGX_ABORT: it has another size, or could not be read to its
 * end.
 */
ngx_int_t ngx_http_ai_cache_file_read(ngx_http_ai_cache_file_t *file,
    size_t min, size_t max);

/* all of it or nothing; *had is the size of the one it replaced, or -1 */
ngx_int_t ngx_http_ai_cache_file_write(ngx_http_ai_cache_file_t *file,
    off_t *had);


#endif /* _NGX_HTTP_AI_CACHE_DISK_FILE_H_INCLUDED_ */
