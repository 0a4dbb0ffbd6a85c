
/*
 * Copyright (C) nginx AI gateway authors
 */


/* files of answers, as workers read and write them */


#include "ngx_http_ai_cache.h"
#include "ngx_http_ai_cache_record.h"
#include "ngx_http_ai_cache_disk_ctx.h"


/* what may wait to be written */
#define NGX_HTTP_AI_CACHE_QUEUE        64
#define NGX_HTTP_AI_CACHE_QUEUE_BYTES  (16 * 1024 * 1024)

/* the part of the directory's size, 1/n, that may be written before it is
 * known how much is there */
#define NGX_HTTP_AI_CACHE_UNKNOWN      16


typedef struct {
    ngx_queue_t                queue;
    size_t                     size;          /* of the file */
    ngx_http_ai_cache_head_t   head;          /* ... which begins here */
} ngx_http_ai_cache_write_t;


static void ngx_http_ai_cache_disk_handler(ngx_event_t *ev);
static void ngx_http_ai_cache_disk_one(ngx_http_ai_cache_disk_t *disk);
static ngx_int_t ngx_http_ai_cache_disk_put(ngx_http_ai_cache_disk_t *disk,
    u_char *name, u_char *data, size_t size);
static void ngx_http_ai_cache_disk_error(ngx_http_ai_cache_disk_t *disk,
    const char *what, u_char *name);


ngx_int_t
ngx_http_ai_cache_disk_add(ngx_conf_t *cf, ngx_http_ai_cache_zone_t *zone)
{
    ngx_path_t                *path;
    ngx_http_ai_cache_disk_t  *disk;

    disk = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_cache_disk_t));
    path = ngx_pcalloc(cf->pool, sizeof(ngx_path_t));

    if (disk == NULL || path == NULL) {
        return NGX_ERROR;
    }

    if (zone->disk.len + NGX_HTTP_AI_CACHE_NAME > NGX_MAX_PATH) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "cache zone \"%V\": the path of \"disk\" is too "
                           "long", &zone->name);
        return NGX_ERROR;
    }

    path->name.len = zone->disk.len;
    path->name.data = ngx_pnalloc(cf->pool, zone->disk.len + 1);

    if (path->name.data == NULL) {
        return NGX_ERROR;
    }

    (void) ngx_cpystrn(path->name.data, zone->disk.data, zone->disk.len + 1);

    /* nginx makes the last one; what fails here fails there, with a message */
    (void) ngx_create_full_path(path->name.data, 0755);

    zone->disk = path->name;
    zone->on_disk = disk;

    disk->zone = zone;
    ngx_queue_init(&disk->queue);

    path->manager = ngx_http_ai_cache_disk_manager;
    path->data = disk;
    path->conf_file = cf->conf_file->file.name.data;
    path->line = cf->conf_file->line;

    return ngx_add_path(cf, &path);
}


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
    ngx_http_ai_cache_disk_t  *disk;

    disk = zone->on_disk;

    if (disk->event.posted) {
        ngx_delete_posted_event(&disk->event);
    }

    while (!ngx_queue_empty(&disk->queue)) {
        ngx_http_ai_cache_disk_one(disk);
    }
}


/* "<directory>/<xx>/<id>" and room for a suffix; returns where it ends */

u_char *
ngx_http_ai_cache_disk_name(ngx_http_ai_cache_disk_t *disk, u_char *id,
    u_char *name)
{
    u_char  *p;

    p = ngx_cpymem(name, disk->zone->disk.data, disk->zone->disk.len);
    *p++ = '/';
    p = ngx_hex_dump(p, id, 1);
    *p++ = '/';
    p = ngx_hex_dump(p, id, NGX_HTTP_AI_CACHE_ID);
    *p = '\0';

    return p;
}


off_t
ngx_http_ai_cache_disk_used(ngx_http_ai_cache_disk_t *disk)
{
    ngx_atomic_int_t  n;

    n = (ngx_atomic_int_t) disk->zone->sh->disk_bytes;

    return ngx_max(n, 0);
}


ngx_int_t
ngx_http_ai_cache_disk_remove(ngx_http_ai_cache_disk_t *disk, u_char *name,
    off_t size)
{
    ngx_http_ai_cache_sh_t  *sh;

    if (ngx_delete_file(name) == NGX_FILE_ERROR) {

        if (ngx_errno != NGX_ENOENT) {
            ngx_http_ai_cache_disk_error(disk, ngx_delete_file_n, name);
        }

        return NGX_DECLINED;
    }

    sh = disk->zone->sh;

    (void) ngx_atomic_fetch_add(&sh->disk_bytes, - (ngx_atomic_int_t) size);
    (void) ngx_atomic_fetch_add(&sh->disk_files, -1);

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_cache_disk_read(ngx_http_ai_cache_zone_t *zone, u_char *id,
    ngx_pool_t *pool, ngx_http_ai_cache_found_t *found)
{
    int                         fd;
    off_t                       size;
    u_char                     *buf;
    ssize_t                     n;
    ngx_int_t                   rc;
    ngx_file_info_t             fi;
    struct timespec             times[2];
    ngx_http_ai_cache_disk_t   *disk;
    ngx_http_ai_cache_store_t  *st;
    u_char                      name[NGX_MAX_PATH];

    disk = zone->on_disk;

    (void) ngx_http_ai_cache_disk_name(disk, id, name);

    fd = open((char *) name, O_RDONLY|O_NONBLOCK|O_CLOEXEC|O_NOFOLLOW);

    if (fd == -1) {

        if (ngx_errno != NGX_ENOENT) {
            ngx_http_ai_cache_disk_error(disk, ngx_open_file_n, name);
        }

        goto miss;
    }

    if (ngx_fd_info(fd, &fi) == NGX_FILE_ERROR || !ngx_is_file(&fi)) {
        (void) ngx_close_file(fd);
        goto miss;
    }

    size = ngx_file_size(&fi);

    if (size < (off_t) sizeof(ngx_http_ai_cache_head_t)
        || size > (off_t) (sizeof(ngx_http_ai_cache_head_t)
                           + zone->max_size))
    {
        (void) ngx_close_file(fd);
        goto corrupt;
    }

    buf = ngx_pnalloc(pool, size);

    if (buf == NULL) {
        (void) ngx_close_file(fd);
        return NGX_ERROR;
    }

    /* regular files of a local file system are read at once */

    n = read(fd, buf, size);

    rc = (n == size) ? ngx_http_ai_cache_record_read(buf, size, id,
                                                     &found->meta,
                                                     &found->data)
                     : NGX_DECLINED;

    if (rc != NGX_OK) {
        (void) ngx_close_file(fd);
        (void) ngx_pfree(pool, buf);
        goto corrupt;
    }

    st = ngx_http_ai_cache_lock(zone);
    rc = ngx_http_ai_cache_purged(st, &found->meta);
    ngx_http_ai_cache_unlock(zone);

    if (rc || found->meta.stale <= ngx_http_ai_cache_now()) {
        (void) ngx_close_file(fd);
        (void) ngx_pfree(pool, buf);
        (void) ngx_http_ai_cache_disk_remove(disk, name, size);
        goto miss;
    }

    /* mount options may keep the system from it */

    times[0].tv_sec = 0;
    times[0].tv_nsec = UTIME_NOW;
    times[1].tv_sec = 0;
    times[1].tv_nsec = UTIME_OMIT;

    if (futimens(fd, times) == -1) {
        ngx_http_ai_cache_disk_error(disk, "futimens()", name);
    }

    (void) ngx_close_file(fd);

    found->tier = NGX_HTTP_AI_CACHE_DISK;

    (void) ngx_atomic_fetch_add(&zone->sh->hits[NGX_HTTP_AI_CACHE_DISK], 1);

    return NGX_OK;

corrupt:

    ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                  "ai cache: \"%s\" is cut, damaged or too large, it is "
                  "removed", name);

    (void) ngx_http_ai_cache_disk_remove(disk, name, size);
    (void) ngx_atomic_fetch_add(&zone->sh->corrupt[NGX_HTTP_AI_CACHE_DISK], 1);

miss:

    (void) ngx_atomic_fetch_add(&zone->sh->misses[NGX_HTTP_AI_CACHE_DISK], 1);

    return NGX_DECLINED;
}


void
ngx_http_ai_cache_disk_write(ngx_http_ai_cache_zone_t *zone,
    ngx_http_ai_cache_meta_t *meta, u_char *data, size_t size)
{
    off_t                       max;
    size_t                      len;
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

    w = ngx_alloc(sizeof(ngx_http_ai_cache_write_t) + size, ngx_cycle->log);
    if (w == NULL) {
        goto dropped;
    }

    w->size = len;

    ngx_http_ai_cache_head_write(&w->head, meta);
    ngx_memcpy(w + 1, data, size);

    ngx_queue_insert_tail(&disk->queue, &w->queue);
    disk->nqueued++;
    disk->queued += len;

    if (!disk->event.posted) {
        ngx_post_event(&disk->event, &ngx_posted_next_events);
    }

    return;

dropped:

    (void) ngx_atomic_fetch_add(&zone->sh->dropped[NGX_HTTP_AI_CACHE_DISK], 1);
}


/* one file in a turn of the event loop */

static void
ngx_http_ai_cache_disk_handler(ngx_event_t *ev)
{
    ngx_http_ai_cache_disk_t   *disk;
    ngx_http_ai_cache_event_t  *data;

    data = ev->data;
    disk = data->data;

    if (!ngx_queue_empty(&disk->queue)) {
        ngx_http_ai_cache_disk_one(disk);
    }

    if (!ngx_queue_empty(&disk->queue)) {
        ngx_post_event(ev, &ngx_posted_next_events);
    }
}


static void
ngx_http_ai_cache_disk_one(ngx_http_ai_cache_disk_t *disk)
{
    off_t                       had;
    ngx_queue_t                *q;
    ngx_file_info_t             fi;
    ngx_http_ai_cache_sh_t     *sh;
    ngx_http_ai_cache_write_t  *w;
    u_char                      name[NGX_MAX_PATH];

    sh = disk->zone->sh;

    q = ngx_queue_head(&disk->queue);
    ngx_queue_remove(q);

    w = ngx_queue_data(q, ngx_http_ai_cache_write_t, queue);

    disk->nqueued--;
    disk->queued -= w->size;

    (void) ngx_http_ai_cache_disk_name(disk, w->head.meta.id, name);

    had = -1;

    if (ngx_file_info(name, &fi) != NGX_FILE_ERROR) {
        had = ngx_file_size(&fi);
    }

    if (ngx_http_ai_cache_disk_put(disk, name, (u_char *) &w->head, w->size)
        == NGX_OK)
    {
        (void) ngx_atomic_fetch_add(&sh->stored[NGX_HTTP_AI_CACHE_DISK], 1);
        (void) ngx_atomic_fetch_add(&sh->disk_bytes,
                                    (ngx_atomic_int_t) w->size
                                    - ngx_max(had, 0));

        if (had == -1) {
            (void) ngx_atomic_fetch_add(&sh->disk_files, 1);
        }

    } else {
        (void) ngx_atomic_fetch_add(&sh->dropped[NGX_HTTP_AI_CACHE_DISK], 1);
    }

    ngx_free(w);
}


/* all of a file or nothing */

static ngx_int_t
ngx_http_ai_cache_disk_put(ngx_http_ai_cache_disk_t *disk, u_char *name,
    u_char *data, size_t size)
{
    int          fd;
    u_char      *p;
    ssize_t      n;
    ngx_uint_t   tries;
    const char  *what;
    u_char       temp[NGX_MAX_PATH];

    p = ngx_sprintf(temp, "%s.%P.%ui%Z", name, ngx_pid, ++disk->serial);

    fd = -1;

    for (tries = 0; tries < 2; tries++) {
        fd = open((char *) temp, O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC, 0600);

        if (fd != -1 || ngx_errno != NGX_ENOENT) {
            break;
        }

        /* its directory is not there yet */

        for (p = temp + ngx_strlen(temp); *p != '/'; p--) { /* void */ }

        *p = '\0';
        (void) ngx_create_dir(temp, 0700);
        *p = '/';
    }

    if (fd == -1) {
        what = ngx_open_file_n;
        goto failed;
    }

    n = write(fd, data, size);

    if (n != (ssize_t) size) {
        what = "write()";

        if (n >= 0) {
            ngx_set_errno(ENOSPC);
        }

        (void) ngx_close_file(fd);
        goto remove;
    }

    if (ngx_close_file(fd) == NGX_FILE_ERROR) {
        what = ngx_close_file_n;
        goto remove;
    }

    if (ngx_rename_file(temp, name) == NGX_FILE_ERROR) {
        what = ngx_rename_file_n;
        goto remove;
    }

    return NGX_OK;

remove:

    ngx_http_ai_cache_disk_error(disk, what, temp);
    (void) ngx_delete_file(temp);

    return NGX_ERROR;

failed:

    ngx_http_ai_cache_disk_error(disk, what, temp);

    return NGX_ERROR;
}


/* a full or broken disk is told once in a second */

static void
ngx_http_ai_cache_disk_error(ngx_http_ai_cache_disk_t *disk, const char *what,
    u_char *name)
{
    ngx_err_t  err;

    err = ngx_errno;

    if (disk->told == ngx_time()) {
        return;
    }

    disk->told = ngx_time();

    ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, err,
                  "ai cache: %s \"%s\" failed", what, name);
}


/*
 * The file of rules.  One that cannot be read might have said anything, so
 * all that was made until now is purged then.
 */

void
ngx_http_ai_cache_disk_begin(ngx_http_ai_cache_zone_t *zone, ngx_log_t *log)
{
    int                         fd;
    ssize_t                     n;
    ngx_uint_t                  i, good;
    ngx_http_ai_cache_rule_t    rule;
    ngx_http_ai_cache_rules_t   rules;
    ngx_http_ai_cache_store_t  *st;
    u_char                      name[NGX_MAX_PATH];

    zone->sh->disk_bytes = 0;
    zone->sh->disk_files = 0;
    zone->sh->disk_loaded = 0;
    zone->sh->disk_version = 0;

    (void) ngx_sprintf(name, "%V/purges%Z", &zone->disk);

    fd = open((char *) name, O_RDONLY|O_NONBLOCK|O_CLOEXEC|O_NOFOLLOW);

    if (fd == -1 && ngx_errno == NGX_ENOENT) {
        return;
    }

    n = -1;

    if (fd != -1) {
        n = read(fd, &rules, sizeof(ngx_http_ai_cache_rules_t));
        (void) ngx_close_file(fd);
    }

    good = n == (ssize_t) sizeof(ngx_http_ai_cache_rules_t)
           && rules.n <= NGX_HTTP_AI_CACHE_RULES + 1
           && rules.sum == ngx_http_ai_cache_sum((u_char *) &rules.n,
                                       sizeof(ngx_http_ai_cache_rules_t)
                                       - sizeof(uint64_t));

    st = ngx_http_ai_cache_lock(zone);

    if (good) {
        for (i = 0; i < rules.n; i++) {
            (void) ngx_http_ai_cache_purge_add(st, &rules.rules[i]);
        }

    } else {
        rule.kind = NGX_HTTP_AI_CACHE_RULE_ALL;
        rule.hash = 0;
        rule.time = ngx_http_ai_cache_now();

        (void) ngx_http_ai_cache_purge_add(st, &rule);
    }

    ngx_http_ai_cache_unlock(zone);

    if (!good) {
        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "ai cache: \"%s\" cannot be read, all of zone \"%V\" is "
                      "purged", name, &zone->name);
    }
}


void
ngx_http_ai_cache_disk_save(ngx_http_ai_cache_zone_t *zone, ngx_log_t *log)
{
    uint64_t                    version;
    ngx_atomic_uint_t           pid;
    ngx_http_ai_cache_sh_t     *sh;
    ngx_http_ai_cache_rules_t   rules;
    ngx_http_ai_cache_store_t  *st;
    u_char                      name[NGX_MAX_PATH];

    sh = zone->sh;

    st = ngx_http_ai_cache_lock(zone);
    version = ngx_http_ai_cache_purge_version(st);
    ngx_http_ai_cache_unlock(zone);

    if (version == sh->disk_version) {
        return;
    }

    /* one at a time, so that an older list never comes behind a newer one */

    pid = sh->disk_saving;

    if (pid && (kill((ngx_pid_t) pid, 0) == 0 || ngx_errno == NGX_EPERM)) {
        return;
    }

    if (!ngx_atomic_cmp_set(&sh->disk_saving, pid,
                            (ngx_atomic_uint_t) ngx_pid))
    {
        return;
    }

    ngx_memzero(&rules, sizeof(ngx_http_ai_cache_rules_t));

    st = ngx_http_ai_cache_lock(zone);
    version = ngx_http_ai_cache_purge_version(st);
    rules.n = ngx_http_ai_cache_purge_list(st, rules.rules);
    ngx_http_ai_cache_unlock(zone);

    rules.sum = ngx_http_ai_cache_sum((u_char *) &rules.n,
                                      sizeof(ngx_http_ai_cache_rules_t)
                                      - sizeof(uint64_t));

    (void) ngx_sprintf(name, "%V/purges%Z", &zone->disk);

    if (ngx_http_ai_cache_disk_put(zone->on_disk, name, (u_char *) &rules,
                                   sizeof(ngx_http_ai_cache_rules_t))
        == NGX_OK)
    {
        sh->disk_version = version;
        ngx_log_error(NGX_LOG_INFO, log, 0,
                      "ai cache: purges of zone \"%V\" saved", &zone->name);
    }

    sh->disk_saving = 0;
}
