
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The cache manager's part: it walks through the directory now and then to
 * learn what is there, and when there is too much it removes what was read
 * least lately.  It may wait for the disk: nothing else runs in its process.
 */


#include "ngx_http_ai_cache_record.h"
#include "ngx_http_ai_cache_disk_ctx.h"


#define NGX_HTTP_AI_CACHE_DIRS     256

/* ms between looks, of a slice of work, and between slices */
#define NGX_HTTP_AI_CACHE_LOOK     500
#define NGX_HTTP_AI_CACHE_SLICE    50
#define NGX_HTTP_AI_CACHE_PAUSE    20

/* ms between walks that nobody needs, to correct what was counted */
#define NGX_HTTP_AI_CACHE_REWALK   600000

/* ms until the next try when nothing could be removed */
#define NGX_HTTP_AI_CACHE_FUTILE   10000

/* seconds after which a temporary file was left by a process that died */
#define NGX_HTTP_AI_CACHE_LEFT     3600


static void ngx_http_ai_cache_walk_dir(ngx_http_ai_cache_disk_t *disk);
static int64_t ngx_http_ai_cache_file_ms(struct timespec *ts);
static void ngx_http_ai_cache_walk_file(ngx_http_ai_cache_disk_t *disk,
    u_char *name, u_char *file, size_t len);
static void ngx_http_ai_cache_walk_end(ngx_http_ai_cache_disk_t *disk);
static void ngx_http_ai_cache_old_add(ngx_http_ai_cache_walk_t *walk,
    ngx_http_ai_cache_old_t *old);
static void ngx_http_ai_cache_old_pop(ngx_http_ai_cache_walk_t *walk);
static ngx_uint_t ngx_http_ai_cache_old_remove(ngx_http_ai_cache_disk_t *disk);
static int ngx_libc_cdecl ngx_http_ai_cache_old_order(const void *one,
    const void *two);


ngx_msec_t
ngx_http_ai_cache_disk_manager(void *data)
{
    ngx_http_ai_cache_disk_t *disk = data;

    off_t                      used, max;
    ngx_msec_t                 start;
    ngx_http_ai_cache_walk_t  *walk;

    walk = &disk->walk;
    max = disk->zone->disk_size;
    used = ngx_http_ai_cache_disk_used(disk);

    ngx_time_update();
    start = ngx_current_msec;

    if (!walk->walking && !walk->removing) {

        if (walk->walked
            && start - walk->ended
               < (ngx_msec_t) (walk->futile ? NGX_HTTP_AI_CACHE_FUTILE
                                            : NGX_HTTP_AI_CACHE_REWALK)
            && (walk->futile || used <= max / 16 * 15))
        {
            return NGX_HTTP_AI_CACHE_LOOK;
        }

        if (walk->old == NULL) {
            walk->old = ngx_alloc(NGX_HTTP_AI_CACHE_OLD
                                  * sizeof(ngx_http_ai_cache_old_t),
                                  ngx_cycle->log);
            if (walk->old == NULL) {
                return NGX_HTTP_AI_CACHE_LOOK;
            }
        }

        walk->walking = 1;
        walk->dir = 0;
        walk->bytes = 0;
        walk->files = 0;
        walk->nold = 0;
        walk->before = used;
    }

    do {
        if (walk->walking) {

            if (walk->dir < NGX_HTTP_AI_CACHE_DIRS) {
                ngx_http_ai_cache_walk_dir(disk);

            } else {
                ngx_http_ai_cache_walk_end(disk);
            }

        } else if (ngx_http_ai_cache_old_remove(disk)) {
            return NGX_HTTP_AI_CACHE_PAUSE;
        }

        ngx_time_update();

    } while (ngx_current_msec - start < NGX_HTTP_AI_CACHE_SLICE
             && !ngx_quit && !ngx_terminate);

    return NGX_HTTP_AI_CACHE_PAUSE;
}


static void
ngx_http_ai_cache_walk_dir(ngx_http_ai_cache_disk_t *disk)
{
    u_char     *p;
    ngx_str_t   path;
    ngx_dir_t   dir;
    u_char      name[NGX_MAX_PATH];

    p = ngx_sprintf(name, "%V/%02xi", &disk->zone->disk, disk->walk.dir++);
    *p = '\0';

    path.data = name;
    path.len = p - name;

    if (ngx_open_dir(&path, &dir) == NGX_ERROR) {

        if (ngx_errno != NGX_ENOENT) {
            ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, ngx_errno,
                          "ai cache: " ngx_open_dir_n " \"%s\" failed", name);
        }

        return;
    }

    *p++ = '/';

    for ( ;; ) {
        ngx_set_errno(0);

        if (ngx_read_dir(&dir) == NGX_ERROR) {
            break;
        }

        if (ngx_de_namelen(&dir) < NGX_HTTP_AI_CACHE_ID * 2
            || ngx_de_namelen(&dir) > NGX_HTTP_AI_CACHE_ID * 2 + 40)
        {
            continue;
        }

        (void) ngx_cpystrn(p, ngx_de_name(&dir), ngx_de_namelen(&dir) + 1);

        ngx_http_ai_cache_walk_file(disk, name, p, ngx_de_namelen(&dir));
    }

    (void) ngx_close_dir(&dir);
}


static int64_t
ngx_http_ai_cache_file_ms(struct timespec *ts)
{
    return (int64_t) ts->tv_sec * 1000 + ts->tv_nsec / 1000000;
}


/* what is not ours is left alone */

static void
ngx_http_ai_cache_walk_file(ngx_http_ai_cache_disk_t *disk, u_char *name,
    u_char *file, size_t len)
{
    time_t                     now;
    ngx_uint_t                 i;
    ngx_int_t                  n;
    ngx_file_info_t            fi;
    ngx_http_ai_cache_old_t    old;
    ngx_http_ai_cache_walk_t  *walk;

    for (i = 0; i < NGX_HTTP_AI_CACHE_ID; i++) {
        n = ngx_hextoi(file + i * 2, 2);

        if (n == NGX_ERROR) {
            return;
        }

        old.id[i] = (u_char) n;
    }

    if (ngx_link_info(name, &fi) == NGX_FILE_ERROR || !ngx_is_file(&fi)) {
        return;
    }

    walk = &disk->walk;
    now = ngx_time();

    if (len > NGX_HTTP_AI_CACHE_ID * 2) {

        if (file[NGX_HTTP_AI_CACHE_ID * 2] == '.'
            && now - ngx_file_mtime(&fi) > NGX_HTTP_AI_CACHE_LEFT)
        {
            (void) ngx_delete_file(name);
        }

        return;
    }

    old.used = ngx_max(ngx_http_ai_cache_file_ms(&fi.st_atim),
                       ngx_http_ai_cache_file_ms(&fi.st_mtim));
    old.size = ngx_file_size(&fi);

    if (disk->zone->inactive
        && now - (time_t) (old.used / 1000) > disk->zone->inactive)
    {
        (void) ngx_http_ai_cache_disk_remove(disk, name, old.size);
        return;
    }

    walk->bytes += old.size;
    walk->files++;

    if (walk->nold == NGX_HTTP_AI_CACHE_OLD) {

        if (old.used >= walk->old[0].used) {
            return;
        }

        ngx_http_ai_cache_old_pop(walk);
    }

    ngx_http_ai_cache_old_add(walk, &old);
}


static void
ngx_http_ai_cache_walk_end(ngx_http_ai_cache_disk_t *disk)
{
    off_t                      used, more;
    ngx_http_ai_cache_sh_t    *sh;
    ngx_http_ai_cache_walk_t  *walk;

    walk = &disk->walk;
    sh = disk->zone->sh;

    /* what was written meanwhile may have been seen or not */

    used = ngx_http_ai_cache_disk_used(disk);
    more = ngx_max(used - walk->before, 0);

    (void) ngx_atomic_fetch_add(&sh->disk_bytes,
                                (ngx_atomic_int_t) (walk->bytes + more
                                                    - used));

    sh->disk_files = walk->files;
    sh->disk_loaded = 1;

    walk->walking = 0;
    walk->walked = 1;
    walk->ended = ngx_current_msec;

    if (walk->bytes + more > disk->zone->disk_size / 16 * 15) {
        ngx_qsort(walk->old, walk->nold, sizeof(ngx_http_ai_cache_old_t),
                  ngx_http_ai_cache_old_order);

        walk->removing = 1;
    }

    walk->futile = walk->removing;
}


/* 1: it is done */

static ngx_uint_t
ngx_http_ai_cache_old_remove(ngx_http_ai_cache_disk_t *disk)
{
    ngx_http_ai_cache_old_t   *old;
    ngx_http_ai_cache_walk_t  *walk;
    u_char                     name[NGX_MAX_PATH];

    walk = &disk->walk;

    if (!walk->removing
        || walk->nold == 0
        || ngx_http_ai_cache_disk_used(disk) <= disk->zone->disk_size / 8 * 7)
    {
        walk->removing = 0;
        return 1;
    }

    old = &walk->old[--walk->nold];

    (void) ngx_http_ai_cache_disk_name(disk, old->id, name);

    if (ngx_http_ai_cache_disk_remove(disk, name, old->size) == NGX_OK) {
        walk->futile = 0;

        (void) ngx_atomic_fetch_add(
                         &disk->zone->sh->evicted[NGX_HTTP_AI_CACHE_DISK], 1);
    }

    return 0;
}


static void
ngx_http_ai_cache_old_add(ngx_http_ai_cache_walk_t *walk,
    ngx_http_ai_cache_old_t *old)
{
    ngx_uint_t  i, up;

    for (i = walk->nold++; i; i = up) {
        up = (i - 1) / 2;

        if (walk->old[up].used >= old->used) {
            break;
        }

        walk->old[i] = walk->old[up];
    }

    walk->old[i] = *old;
}


static void
ngx_http_ai_cache_old_pop(ngx_http_ai_cache_walk_t *walk)
{
    ngx_uint_t                i, down;
    ngx_http_ai_cache_old_t  *last;

    last = &walk->old[--walk->nold];

    for (i = 0; (down = i * 2 + 1) < walk->nold; i = down) {

        if (down + 1 < walk->nold
            && walk->old[down + 1].used > walk->old[down].used)
        {
            down++;
        }

        if (last->used >= walk->old[down].used) {
            break;
        }

        walk->old[i] = walk->old[down];
    }

    walk->old[i] = *last;
}


/* the oldest at the end */

static int ngx_libc_cdecl
ngx_http_ai_cache_old_order(const void *one, const void *two)
{
    const ngx_http_ai_cache_old_t  *a, *b;

    a = one;
    b = two;

    return (a->used < b->used) - (a->used > b->used);
}
