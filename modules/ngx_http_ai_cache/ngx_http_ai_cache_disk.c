
/*
 * Copyright (C) nginx AI gateway authors
 */


/* the directory of a zone, and its file of purges */


#include "ngx_http_ai_cache.h"
#include "ngx_http_ai_cache_record.h"
#include "ngx_http_ai_cache_disk_ctx.h"


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

    /* "purges" and its temporary name have to fit as well */

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

#if (NGX_THREADS)

    if (!zone->no_threads) {
        zone->threads = ngx_thread_pool_add(cf, zone->pool.len ? &zone->pool
                                                               : NULL);
        if (zone->threads == NULL) {
            return NGX_ERROR;
        }
    }

#endif

    path->manager = ngx_http_ai_cache_disk_manager;
    path->data = disk;
    path->conf_file = cf->conf_file->file.name.data;
    path->line = cf->conf_file->line;

    return ngx_add_path(cf, &path);
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


void
ngx_http_ai_cache_disk_temp(ngx_http_ai_cache_disk_t *disk,
    ngx_http_ai_cache_file_t *file)
{
    (void) ngx_sprintf(file->temp, "%s.%P.%ui%Z", file->name, ngx_pid,
                       ++disk->serial);
}


void
ngx_http_ai_cache_disk_error(ngx_http_ai_cache_disk_t *disk, const char *call,
    ngx_err_t err, u_char *name)
{
    if (call == NULL || disk->told == ngx_time()) {
        return;
    }

    disk->told = ngx_time();

    ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, err,
                  "ai cache: %s \"%s\" failed", call, name);
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
            ngx_http_ai_cache_disk_error(disk, ngx_delete_file_n, ngx_errno,
                                         name);
        }

        return NGX_DECLINED;
    }

    sh = disk->zone->sh;

    (void) ngx_atomic_fetch_add(&sh->disk_bytes, - (ngx_atomic_int_t) size);
    (void) ngx_atomic_fetch_add(&sh->disk_files, -1);

    return NGX_OK;
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
    off_t                       had;
    uint64_t                    version;
    ngx_atomic_uint_t           pid;
    ngx_http_ai_cache_sh_t     *sh;
    ngx_http_ai_cache_file_t    file;
    ngx_http_ai_cache_rules_t   rules;
    ngx_http_ai_cache_store_t  *st;
    u_char                      name[NGX_MAX_PATH];
    u_char                      temp[NGX_MAX_PATH];

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

    ngx_memzero(&file, sizeof(ngx_http_ai_cache_file_t));

    file.name = name;
    file.temp = temp;
    file.data = (u_char *) &rules;
    file.size = sizeof(ngx_http_ai_cache_rules_t);

    ngx_http_ai_cache_disk_temp(zone->on_disk, &file);

    if (ngx_http_ai_cache_file_write(&file, &had) == NGX_OK) {
        sh->disk_version = version;
        ngx_log_error(NGX_LOG_INFO, log, 0,
                      "ai cache: purges of zone \"%V\" saved", &zone->name);

    } else {
        ngx_http_ai_cache_disk_error(zone->on_disk, file.failed, file.err,
                                     temp);
    }

    sh->disk_saving = 0;
}
