
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_cache_disk_file.h"


static void ngx_http_ai_cache_file_failed(ngx_http_ai_cache_file_t *file,
    const char *call);
static int ngx_http_ai_cache_file_create(ngx_http_ai_cache_file_t *file);


ngx_int_t
ngx_http_ai_cache_file_read(ngx_http_ai_cache_file_t *file, size_t min,
    size_t max)
{
    int              fd;
    off_t            size;
    u_char          *buf;
    ssize_t          n;
    ngx_int_t        rc;
    ngx_file_info_t  fi;
    struct timespec  times[2];

    fd = open((char *) file->name, O_RDONLY|O_NONBLOCK|O_CLOEXEC|O_NOFOLLOW);

    if (fd == -1) {

        if (ngx_errno != NGX_ENOENT) {
            ngx_http_ai_cache_file_failed(file, ngx_open_file_n);
        }

        return NGX_DECLINED;
    }

    rc = NGX_DECLINED;

    if (ngx_fd_info(fd, &fi) == NGX_FILE_ERROR) {
        ngx_http_ai_cache_file_failed(file, ngx_fd_info_n);
        goto done;
    }

    if (!ngx_is_file(&fi)) {
        goto done;
    }

    size = ngx_file_size(&fi);
    file->size = (size_t) size;

    if (size < (off_t) min || size > (off_t) max) {
        rc = NGX_ABORT;
        goto done;
    }

    buf = malloc(size);

    if (buf == NULL) {
        ngx_http_ai_cache_file_failed(file, "malloc()");
        goto done;
    }

    /* regular files of a local file system are read at once */

    n = read(fd, buf, size);

    if (n != (ssize_t) size) {

        if (n == -1) {
            ngx_http_ai_cache_file_failed(file, "read()");
        }

        free(buf);

        rc = NGX_ABORT;
        goto done;
    }

    /* mount options may keep the system from it */

    times[0].tv_sec = 0;
    times[0].tv_nsec = UTIME_NOW;
    times[1].tv_sec = 0;
    times[1].tv_nsec = UTIME_OMIT;

    if (futimens(fd, times) == -1) {
        ngx_http_ai_cache_file_failed(file, "futimens()");
    }

    file->data = buf;
    rc = NGX_OK;

done:

    (void) ngx_close_file(fd);

    return rc;
}


ngx_int_t
ngx_http_ai_cache_file_write(ngx_http_ai_cache_file_t *file, off_t *had)
{
    int              fd;
    ssize_t          n;
    ngx_file_info_t  fi;

    *had = (ngx_file_info(file->name, &fi) == NGX_FILE_ERROR)
           ? -1 : ngx_file_size(&fi);

    fd = ngx_http_ai_cache_file_create(file);

    if (fd == -1) {
        ngx_http_ai_cache_file_failed(file, ngx_open_file_n);
        return NGX_ERROR;
    }

    n = write(fd, file->data, file->size);

    if (n != (ssize_t) file->size) {

        if (n >= 0) {
            ngx_set_errno(ENOSPC);
        }

        ngx_http_ai_cache_file_failed(file, "write()");

        (void) ngx_close_file(fd);
        goto remove;
    }

    if (ngx_close_file(fd) == NGX_FILE_ERROR) {
        ngx_http_ai_cache_file_failed(file, ngx_close_file_n);
        goto remove;
    }

    if (ngx_rename_file(file->temp, file->name) == NGX_FILE_ERROR) {
        ngx_http_ai_cache_file_failed(file, ngx_rename_file_n);
        goto remove;
    }

    return NGX_OK;

remove:

    (void) ngx_delete_file(file->temp);

    return NGX_ERROR;
}


static int
ngx_http_ai_cache_file_create(ngx_http_ai_cache_file_t *file)
{
    int      fd;
    u_char  *p;

    fd = open((char *) file->temp, O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0600);

    if (fd != -1 || ngx_errno != NGX_ENOENT) {
        return fd;
    }

    /* its directory is not there yet */

    for (p = file->temp + ngx_strlen(file->temp); *p != '/'; p--) {
        /* void */
    }

    *p = '\0';
    (void) ngx_create_dir(file->temp, 0700);
    *p = '/';

    return open((char *) file->temp, O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0600);
}


static void
ngx_http_ai_cache_file_failed(ngx_http_ai_cache_file_t *file, const char *call)
{
    file->err = ngx_errno;
    file->failed = call;
}
