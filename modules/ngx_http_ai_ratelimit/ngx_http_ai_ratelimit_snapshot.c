
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Quotas on disk: one worker writes what was used in the current windows to a
 * file every few seconds, when there is something new, and each of them at its
 * end.  The file says whose it is: memory that was filled from it claims it,
 * and the processes of a binary upgrade that are still there hand on what they
 * have used since then (ngx_http_ai_ratelimit_handover.c).
 */


#include "ngx_http_ai_ratelimit.h"
#include "ngx_http_ai_ratelimit_snapshot.h"

#include <sys/file.h>


/* ms between two writes */
#define NGX_HTTP_AI_SNAPSHOT_EACH   5000

/* of a broken file system one line a minute is enough, ms */
#define NGX_HTTP_AI_SNAPSHOT_QUIET  60000


static ngx_fd_t ngx_http_ai_snapshot_lock(ngx_http_ai_limit_zone_t *zone,
    ngx_log_t *log, ngx_uint_t wait);
static ngx_uint_t ngx_http_ai_snapshot_exists(ngx_http_ai_limit_zone_t *zone,
    const char *suffix);
static ngx_int_t ngx_http_ai_snapshot_directory(
    ngx_http_ai_limit_zone_t *zone, ngx_log_t *log);
static ngx_int_t ngx_http_ai_snapshot_save(ngx_http_ai_limit_zone_t *zone,
    ngx_log_t *log);
static void ngx_http_ai_snapshot_complain(ngx_http_ai_limit_zone_t *zone,
    ngx_log_t *log, ngx_err_t err, const char *what, u_char *name);


ngx_int_t
ngx_http_ai_snapshot_load(ngx_http_ai_limit_zone_t *zone, ngx_log_t *log)
{
    ngx_int_t                       rc;
    ngx_str_t                       data;
    ngx_http_ai_snapshot_header_t   h;

    rc = ngx_http_ai_snapshot_read(zone, "", &h, &data, log);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (rc == NGX_DECLINED) {
        return ngx_http_ai_snapshot_directory(zone, log);
    }

    if (rc == NGX_OK) {
        ngx_http_ai_zone_lock(zone);

        rc = ngx_http_ai_limit_restore(zone->store, data.data, data.len);

        ngx_http_ai_zone_unlock(zone);

        if (rc == NGX_OK) {
            zone->loaded = data;

        } else {
            ngx_free(data.data);
        }
    }

    if (rc != NGX_OK) {

        /* an old quota that is forgotten is better than no gateway */

        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "ai ratelimit: snapshot \"%V\" of zone \"%V\" is "
                      "damaged, the zone starts empty",
                      &zone->snapshot, &zone->name);
    }

    return NGX_OK;
}


/* better said now than by workers every minute */

static ngx_int_t
ngx_http_ai_snapshot_directory(ngx_http_ai_limit_zone_t *zone,
    ngx_log_t *log)
{
    u_char           name[NGX_MAX_PATH], *p;
    ngx_file_info_t  fi;

    p = ngx_snprintf(name, sizeof(name) - 1, "%V", &zone->snapshot);

    while (p > name + 1 && p[-1] != '/') {
        p--;
    }

    *p = '\0';

    if (ngx_file_info(name, &fi) == NGX_FILE_ERROR || !ngx_is_dir(&fi)) {
        ngx_log_error(NGX_LOG_EMERG, log, ngx_errno,
                      "zone \"%V\": no directory for snapshot \"%V\" "
                      "in %s:%ui", &zone->name, &zone->snapshot,
                      zone->file, zone->line);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_http_ai_snapshot_exists(ngx_http_ai_limit_zone_t *zone,
    const char *suffix)
{
    u_char           name[NGX_MAX_PATH];
    ngx_file_info_t  fi;

    (void) ngx_snprintf(name, sizeof(name), "%V%s%Z", &zone->snapshot,
                        suffix);

    return ngx_file_info(name, &fi) != NGX_FILE_ERROR;
}


void
ngx_http_ai_snapshot_tick(ngx_http_ai_limit_zone_t *zone, ngx_log_t *log,
    ngx_uint_t last)
{
    ngx_fd_t                fd;
    ngx_http_ai_zone_sh_t  *sh;

    sh = zone->sh;

    if (sh->claimed && zone->loaded.data) {
        ngx_free(zone->loaded.data);
        ngx_str_null(&zone->loaded);
    }

    if (!last && sh->claimed
        && ngx_current_msec - sh->written < NGX_HTTP_AI_SNAPSHOT_EACH)
    {
        return;
    }

    if (sh->claimed && sh->changes == sh->saved
        && !ngx_http_ai_snapshot_exists(zone, NGX_HTTP_AI_SNAPSHOT_HANDOVER))
    {
        sh->written = ngx_current_msec;
        return;
    }

    fd = ngx_http_ai_snapshot_lock(zone, log, last);

    if (fd == NGX_INVALID_FILE) {
        return;
    }

    sh->written = ngx_current_msec;

    (void) ngx_http_ai_snapshot_save(zone, log);

    /* also releases the lock */
    (void) ngx_close_file(fd);
}


/* a lock that ends with its process */

static ngx_fd_t
ngx_http_ai_snapshot_lock(ngx_http_ai_limit_zone_t *zone, ngx_log_t *log,
    ngx_uint_t wait)
{
    u_char      name[NGX_MAX_PATH];
    ngx_fd_t    fd;
    ngx_err_t   err;
    ngx_uint_t  i;

    (void) ngx_snprintf(name, sizeof(name), "%V.lock%Z", &zone->snapshot);

    fd = ngx_open_file(name, NGX_FILE_RDWR, NGX_FILE_CREATE_OR_OPEN, 0644);

    if (fd == NGX_INVALID_FILE) {
        ngx_http_ai_snapshot_complain(zone, log, ngx_errno,
                                      ngx_open_file_n, name);
        return fd;
    }

    /* at the end of a worker others may end, too: at most half a second */

    for (i = 0; i < (wait ? 50 : 1); i++) {

        if (i) {
            ngx_msleep(10);
        }

        if (flock(fd, LOCK_EX|LOCK_NB) == 0) {
            return fd;
        }

        err = ngx_errno;

        if (err != NGX_EAGAIN && err != NGX_EINTR) {
            ngx_http_ai_snapshot_complain(zone, log, err, "flock()", name);
            break;
        }
    }

    (void) ngx_close_file(fd);

    return NGX_INVALID_FILE;
}


static ngx_int_t
ngx_http_ai_snapshot_save(ngx_http_ai_limit_zone_t *zone, ngx_log_t *log)
{
    ngx_int_t                       rc;
    ngx_str_t                       data;
    ngx_atomic_uint_t               changes;
    ngx_http_ai_zone_sh_t          *sh;
    ngx_http_ai_snapshot_header_t   h;

    sh = zone->sh;

    rc = ngx_http_ai_snapshot_read(zone, "", &h, NULL, log);

    if (rc == NGX_OK && h.epoch != sh->epoch) {

        if (sh->claimed) {
            /* another instance goes on with it */
            return ngx_http_ai_handover_give(zone, log);
        }

        /* what was written between our start and now, */

        ngx_http_ai_handover_missed(zone, log);

        /* ... and the base of what the one before may still hand on */

        if (ngx_http_ai_snapshot_rename(zone, "",
                                        NGX_HTTP_AI_SNAPSHOT_PREV, log)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (sh->claimed) {
        ngx_http_ai_handover_take(zone, log);
    }

    if (ngx_http_ai_snapshot_copy(zone, &data, &changes, log) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_http_ai_snapshot_write(zone, "", sh->epoch, &data, log);

    ngx_free(data.data);

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    sh->claimed = 1;
    sh->saved = changes;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_snapshot_copy(ngx_http_ai_limit_zone_t *zone, ngx_str_t *data,
    ngx_atomic_uint_t *changes, ngx_log_t *log)
{
    size_t  size;

    data->data = NULL;
    size = 0;

    for ( ;; ) {
        ngx_http_ai_zone_lock(zone);

        data->len = ngx_http_ai_limit_snapshot_size(zone->store);
        *changes = zone->sh->changes;

        if (data->data && data->len <= size) {
            data->len = ngx_http_ai_limit_snapshot(zone->store, data->data,
                                                   size);
            ngx_http_ai_zone_unlock(zone);
            break;
        }

        ngx_http_ai_zone_unlock(zone);

        /* it may grow while we are not in the lock */

        if (data->data) {
            ngx_free(data->data);
        }

        size = data->len + data->len / 8 + 4096;

        data->data = ngx_alloc(size, log);
        if (data->data == NULL) {
            return NGX_ERROR;
        }
    }

    if (data->len == 0) {
        ngx_free(data->data);
        data->data = NULL;
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_snapshot_read(ngx_http_ai_limit_zone_t *zone, const char *suffix,
    ngx_http_ai_snapshot_header_t *h, ngx_str_t *data, ngx_log_t *log)
{
    u_char           name[NGX_MAX_PATH];
    ssize_t          n;
    ngx_fd_t         fd;
    ngx_int_t        rc;
    ngx_file_info_t  fi;

    (void) ngx_snprintf(name, sizeof(name), "%V%s%Z", &zone->snapshot,
                        suffix);

    fd = ngx_open_file(name, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE) {

        if (ngx_errno == NGX_ENOENT) {
            return NGX_DECLINED;
        }

        ngx_http_ai_snapshot_complain(zone, log, ngx_errno,
                                      ngx_open_file_n, name);
        return NGX_ERROR;
    }

    rc = NGX_ABORT;

    n = read(fd, h, sizeof(ngx_http_ai_snapshot_header_t));

    if (n != sizeof(ngx_http_ai_snapshot_header_t)
        || ngx_memcmp(h->magic, NGX_HTTP_AI_SNAPSHOT_MAGIC, 8) != 0)
    {
        goto done;
    }

    if (data == NULL) {
        rc = NGX_OK;
        goto done;
    }

    if (ngx_fd_info(fd, &fi) == NGX_FILE_ERROR
        || (uint64_t) ngx_file_size(&fi)
           != sizeof(ngx_http_ai_snapshot_header_t) + h->len)
    {
        goto done;
    }

    data->len = h->len;
    data->data = ngx_alloc(ngx_max(data->len, 1), log);
    if (data->data == NULL) {
        rc = NGX_ERROR;
        goto done;
    }

    n = read(fd, data->data, data->len);

    if (n != (ssize_t) data->len
        || ngx_crc32_long(data->data, data->len) != h->crc)
    {
        ngx_free(data->data);
        goto done;
    }

    rc = NGX_OK;

done:

    (void) ngx_close_file(fd);

    return rc;
}


ngx_int_t
ngx_http_ai_snapshot_write(ngx_http_ai_limit_zone_t *zone,
    const char *suffix, uint64_t epoch, ngx_str_t *data, ngx_log_t *log)
{
    u_char                          name[NGX_MAX_PATH], tmp[NGX_MAX_PATH];
    ngx_fd_t                        fd;
    ngx_int_t                       rc;
    ngx_http_ai_snapshot_header_t   h;

    (void) ngx_snprintf(name, sizeof(name), "%V%s%Z", &zone->snapshot,
                        suffix);
    (void) ngx_snprintf(tmp, sizeof(tmp), "%V%s.tmp%Z", &zone->snapshot,
                        suffix);

    ngx_memzero(&h, sizeof(ngx_http_ai_snapshot_header_t));
    ngx_memcpy(h.magic, NGX_HTTP_AI_SNAPSHOT_MAGIC, 8);
    h.epoch = epoch;
    h.len = data->len;
    h.crc = ngx_crc32_long(data->data, data->len);

    fd = ngx_open_file(tmp, NGX_FILE_WRONLY, NGX_FILE_TRUNCATE, 0600);

    if (fd == NGX_INVALID_FILE) {
        ngx_http_ai_snapshot_complain(zone, log, ngx_errno,
                                      ngx_open_file_n, tmp);
        return NGX_ERROR;
    }

    rc = NGX_OK;

    if (ngx_write_fd(fd, &h, sizeof(ngx_http_ai_snapshot_header_t))
        != (ssize_t) sizeof(ngx_http_ai_snapshot_header_t)
        || ngx_write_fd(fd, data->data, data->len) != (ssize_t) data->len)
    {
        ngx_http_ai_snapshot_complain(zone, log, ngx_errno, "write()", tmp);
        rc = NGX_ERROR;
    }

    if (ngx_close_file(fd) == NGX_FILE_ERROR) {
        rc = NGX_ERROR;
    }

    if (rc == NGX_OK && ngx_rename_file(tmp, name) == NGX_FILE_ERROR) {
        ngx_http_ai_snapshot_complain(zone, log, ngx_errno,
                                      ngx_rename_file_n, name);
        rc = NGX_ERROR;
    }

    if (rc != NGX_OK) {
        (void) ngx_delete_file(tmp);
    }

    return rc;
}


ngx_int_t
ngx_http_ai_snapshot_rename(ngx_http_ai_limit_zone_t *zone, const char *from,
    const char *to, ngx_log_t *log)
{
    u_char  old[NGX_MAX_PATH], name[NGX_MAX_PATH];

    (void) ngx_snprintf(old, sizeof(old), "%V%s%Z", &zone->snapshot, from);
    (void) ngx_snprintf(name, sizeof(name), "%V%s%Z", &zone->snapshot, to);

    if (ngx_rename_file(old, name) == NGX_FILE_ERROR) {
        ngx_http_ai_snapshot_complain(zone, log, ngx_errno,
                                      ngx_rename_file_n, name);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_http_ai_snapshot_complain(ngx_http_ai_limit_zone_t *zone, ngx_log_t *log,
    ngx_err_t err, const char *what, u_char *name)
{
    if (zone->complained
        && ngx_current_msec - zone->complained < NGX_HTTP_AI_SNAPSHOT_QUIET)
    {
        return;
    }

    zone->complained = ngx_current_msec;

    ngx_log_error(NGX_LOG_ERR, log, err,
                  "ai ratelimit: snapshot of zone \"%V\": %s \"%s\" failed",
                  &zone->name, what, name);
}
