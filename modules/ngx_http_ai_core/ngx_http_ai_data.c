
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_data_store.h"


#define NGX_HTTP_AI_DATA_CONFIRM  200    /* ms between two looks at a file that
                                            has changed */
#define NGX_HTTP_AI_DATA_LOOKS    10     /* then it is read all the same */
#define NGX_HTTP_AI_DATA_RETRY    2000   /* ms, after what is no fault of the
                                            file */
#define NGX_HTTP_AI_DATA_LOST     2000   /* ms without a sign of life */
#define NGX_HTTP_AI_DATA_STUCK    10000  /* ... in the middle of its work */
#define NGX_HTTP_AI_DATA_WAIT     500    /* ms, of the master for a worker */
#define NGX_HTTP_AI_DATA_AGAIN    20     /* tries of the master */
#define NGX_HTTP_AI_DATA_MIN      (64 * 1024)


static ngx_int_t ngx_http_ai_data_init_zone(ngx_shm_zone_t *shm_zone,
    void *old);
static ngx_int_t ngx_http_ai_data_first(ngx_http_ai_data_t *data,
    ngx_log_t *log);
static ngx_int_t ngx_http_ai_data_refused(ngx_http_ai_data_t *data,
    ngx_http_ai_data_sign_t *sign, u_char *text, size_t len, ngx_log_t *log);
static void ngx_http_ai_data_timer(ngx_event_t *ev);
static ngx_msec_t ngx_http_ai_data_watch(ngx_http_ai_data_t *data,
    ngx_log_t *log);
static void ngx_http_ai_data_probe(ngx_http_ai_data_t *data, ngx_log_t *log);
static void ngx_http_ai_data_slice(ngx_event_t *ev);
static void ngx_http_ai_data_loaded(ngx_http_ai_data_t *data,
    ngx_http_ai_data_sign_t *sign, ngx_http_ai_data_loading_t *ld,
    ngx_log_t *log);
static void ngx_http_ai_data_failed(ngx_http_ai_data_t *data,
    ngx_http_ai_data_sign_t *sign, u_char *text, size_t len, ngx_log_t *log);
static void ngx_http_ai_data_complain(ngx_http_ai_data_t *data, u_char *text,
    size_t len, ngx_log_t *log);
static size_t ngx_http_ai_data_describe(ngx_http_ai_data_t *data,
    ngx_http_ai_data_sign_t *sign, u_char *text);
static void ngx_http_ai_data_drop(ngx_http_ai_data_t *data);
static ngx_uint_t ngx_http_ai_data_take(ngx_http_ai_data_t *data);
static void ngx_http_ai_data_put(ngx_http_ai_data_t *data);
static void ngx_http_ai_data_release(ngx_http_ai_data_t *data);
static void ngx_http_ai_data_figures(ngx_http_ai_data_t *data,
    ngx_http_ai_data_status_t *status);
static ngx_int_t ngx_http_ai_data_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t name);


static ngx_event_t       ngx_http_ai_data_event;
static ngx_connection_t  ngx_http_ai_data_connection;

static ngx_str_t  ngx_http_ai_data_prefix = ngx_string("ai_data_");

static ngx_str_t  ngx_http_ai_data_states[] = {
    ngx_string("none"),
    ngx_string("ok"),
    ngx_string("stale")
};


char *
ngx_http_ai_data_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_core_main_conf_t *amcf = conf;

    ssize_t           size;
    ngx_str_t        *value, s;
    ngx_uint_t        i, interval;
    ngx_file_info_t   fi;

    if (amcf->data_dir.len) {
        return "is duplicate";
    }

    value = cf->args->elts;

    amcf->data_interval = 250;
    amcf->data_size = 64 * 1024 * 1024;

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "interval=", 9) == 0) {

            s.data = value[i].data + 9;
            s.len = value[i].len - 9;

            interval = ngx_parse_time(&s, 0);

            if (interval == (ngx_uint_t) NGX_ERROR
                || interval < 20 || interval > 3600 * 1000)
            {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "invalid interval \"%V\" of ai_data, "
                                   "it must be from 20ms to 1h", &s);
                return NGX_CONF_ERROR;
            }

            amcf->data_interval = interval;
            continue;
        }

        if (ngx_strncmp(value[i].data, "size=", 5) == 0) {

            s.data = value[i].data + 5;
            s.len = value[i].len - 5;

            size = ngx_parse_size(&s);

            if (size == NGX_ERROR) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "invalid size \"%V\" of ai_data", &s);
                return NGX_CONF_ERROR;
            }

            if (size < NGX_HTTP_AI_DATA_MIN) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "size \"%V\" of ai_data is too small, "
                                   "it needs at least %dk", &s,
                                   NGX_HTTP_AI_DATA_MIN / 1024);
                return NGX_CONF_ERROR;
            }

            amcf->data_size = size;
            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\" of ai_data, "
                           "it has \"interval=\" and \"size=\"", &value[i]);
        return NGX_CONF_ERROR;
    }

    s = value[1];

    if (s.len == 0) {
        return "needs a directory";
    }

    if (ngx_conf_full_name(cf->cycle, &s, 1) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    while (s.len > 1 && s.data[s.len - 1] == '/') {
        s.data[--s.len] = '\0';
    }

    if (ngx_file_info(s.data, &fi) == NGX_FILE_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           "ai_data: " ngx_file_info_n " \"%V\" failed", &s);
        return NGX_CONF_ERROR;
    }

    if (!ngx_is_dir(&fi)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "ai_data: \"%V\" is not a directory", &s);
        return NGX_CONF_ERROR;
    }

    amcf->data_dir = s;

    return NGX_CONF_OK;
}


ngx_uint_t
ngx_http_ai_data_enabled(ngx_conf_t *cf)
{
    ngx_http_ai_core_main_conf_t  *amcf;

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_core_module);

    return amcf->data_dir.len != 0;
}


ngx_http_ai_data_t *
ngx_http_ai_data_register(ngx_conf_t *cf, ngx_http_ai_data_def_t *def)
{
    size_t                          size;
    ngx_str_t                       name;
    ngx_uint_t                      i;
    ngx_http_ai_data_t             *data, **datap;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_core_module);

    if (amcf->data_dir.len == 0) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"%V\" needs live data: add "
                      "\"ai_data DIRECTORY;\" with the directory of %V.json",
                      &def->name, &def->name);
        return NULL;
    }

    datap = amcf->data.elts;

    for (i = 0; i < amcf->data.nelts; i++) {
        if (datap[i]->def.name.len == def->name.len
            && ngx_strncmp(datap[i]->def.name.data, def->name.data,
                           def->name.len)
               == 0)
        {
            return datap[i];
        }
    }

    data = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_data_t));
    if (data == NULL) {
        return NULL;
    }

    data->def = *def;
    data->dir = amcf->data_dir;

    data->slice.handler = ngx_http_ai_data_slice;
    data->slice.data = data;

    size = amcf->data_dir.len + def->name.len + sizeof("/.jsonl");

    data->json = ngx_pnalloc(cf->pool, size);
    data->jsonl = ngx_pnalloc(cf->pool, size);

    /*
     * With the directory in its name, so that another one begins with a new
     * zone: what was read here is not the last good state of what is there.
     */

    name.data = ngx_pnalloc(cf->pool, size + sizeof("ai_data::"));

    if (data->json == NULL || data->jsonl == NULL || name.data == NULL) {
        return NULL;
    }

    (void) ngx_sprintf(data->json, "%V/%V.json%Z", &data->dir, &def->name);
    (void) ngx_sprintf(data->jsonl, "%V/%V.jsonl%Z", &data->dir, &def->name);

    name.len = ngx_sprintf(name.data, "ai_data:%V:%V", &def->name, &data->dir)
               - name.data;

    size = def->size ? ngx_max(def->size, NGX_HTTP_AI_DATA_MIN)
                     : amcf->data_size;

    data->zone = ngx_shared_memory_add(cf, &name, size,
                                       &ngx_http_ai_core_module);
    if (data->zone == NULL) {
        return NULL;
    }

    data->zone->init = ngx_http_ai_data_init_zone;
    data->zone->data = data;

    datap = ngx_array_push(&amcf->data);
    if (datap == NULL) {
        return NULL;
    }

    *datap = data;

    return data;
}


static ngx_int_t
ngx_http_ai_data_init_zone(ngx_shm_zone_t *shm_zone, void *old)
{
    ngx_msec_t           waited;
    ngx_http_ai_data_t  *data, *odata;
    ngx_slab_pool_t     *shpool;

    data = shm_zone->data;
    odata = old;
    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (odata) {
        data->sh = odata->sh;

    } else if (shm_zone->shm.exists) {
        data->sh = shpool->data;

    } else if (ngx_http_ai_data_store_init(shpool, &data->sh) != NGX_OK) {
        ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                      "ai data: zone \"%V\" is too small",
                      &shm_zone->shm.name);
        return NGX_ERROR;
    }

    /* a worker of the running configuration may be at work for some ms */

    for (waited = 0; !ngx_http_ai_data_take(data); waited++) {

        if (waited == NGX_HTTP_AI_DATA_WAIT) {
            return NGX_OK;
        }

        ngx_msleep(1);
    }

    if (ngx_http_ai_data_first(data, shm_zone->shm.log) != NGX_OK) {
        ngx_http_ai_data_release(data);
        return NGX_ERROR;
    }

    ngx_http_ai_data_release(data);

    return NGX_OK;
}


/* when the configuration is read: all at once */

static ngx_int_t
ngx_http_ai_data_first(ngx_http_ai_data_t *data, ngx_log_t *log)
{
    size_t                       len;
    u_char                       text[NGX_HTTP_AI_DATA_ERROR];
    ngx_int_t                    rc;
    ngx_uint_t                   tries;
    ngx_http_ai_data_sh_t       *sh;
    ngx_http_ai_data_sign_t      sign;
    ngx_http_ai_data_loading_t  *ld;

    sh = data->sh;

    for (tries = 0; tries < NGX_HTTP_AI_DATA_AGAIN; tries++) {

        if (tries) {
            ngx_msleep(50);
        }

        ngx_http_ai_data_look(data, &sign);

        if (sh->generation && ngx_http_ai_data_alike(&sign, &sh->loaded)) {
            ngx_http_ai_data_loaded(data, &sign, NULL, log);
            return NGX_OK;
        }

        if (sign.err == NGX_ENOENT && sh->generation == 0
            && !data->def.required)
        {
            if (ngx_http_ai_data_load_none(data, &sign, log) != NGX_OK) {
                return NGX_ERROR;
            }

            ngx_http_ai_data_loaded(data, &sign, NULL, log);
            return NGX_OK;
        }

        if (sign.err || sign.both) {
            len = ngx_http_ai_data_describe(data, &sign, text);
            return ngx_http_ai_data_refused(data, &sign, text, len, log);
        }

        ld = ngx_http_ai_data_load_create(data, &sign, log);
        if (ld == NULL) {
            return NGX_ERROR;
        }

        rc = ngx_http_ai_data_load_work(ld, 0);

        if (rc == NGX_OK) {
            ngx_http_ai_data_loaded(data, &sign, ld, log);
        }

        if (rc == NGX_DECLINED || rc == NGX_ERROR) {
            rc = ngx_http_ai_data_refused(data, &sign, ld->error,
                                          ld->error_len, log);
        }

        ngx_http_ai_data_load_free(ld);

        if (rc != NGX_BUSY) {
            return rc;
        }
    }

    len = ngx_snprintf(text, NGX_HTTP_AI_DATA_ERROR, "%s: is being written",
                       sign.lines ? data->jsonl : data->json)
          - text;

    return ngx_http_ai_data_refused(data, &sign, text, len, log);
}


static ngx_int_t
ngx_http_ai_data_refused(ngx_http_ai_data_t *data,
    ngx_http_ai_data_sign_t *sign, u_char *text, size_t len, ngx_log_t *log)
{
    if (data->sh->generation == 0) {
        ngx_log_error(NGX_LOG_EMERG, log, 0, "ai data: %*s", len, text);
        return NGX_ERROR;
    }

    ngx_http_ai_data_failed(data, sign, text, len, log);

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_data_init_process(ngx_cycle_t *cycle)
{
    ngx_event_t                   *ev;
    ngx_http_ai_core_main_conf_t  *amcf;

    if (ngx_process != NGX_PROCESS_WORKER
        && ngx_process != NGX_PROCESS_SINGLE)
    {
        return NGX_OK;
    }

    amcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_ai_core_module);

    if (amcf == NULL || amcf->data.nelts == 0) {
        return NGX_OK;
    }

    ev = &ngx_http_ai_data_event;

    if (ev->timer_set) {
        ngx_del_timer(ev);
    }

    ngx_memzero(ev, sizeof(ngx_event_t));

    ngx_http_ai_data_connection.fd = (ngx_socket_t) -1;

    ev->handler = ngx_http_ai_data_timer;
    ev->data = &ngx_http_ai_data_connection;
    ev->log = cycle->log;
    ev->cancelable = 1;

    ngx_add_timer(ev, amcf->data_interval);

    return NGX_OK;
}


void
ngx_http_ai_data_exit_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                      i;
    ngx_http_ai_data_t            **data;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_ai_core_module);

    if (amcf == NULL) {
        return;
    }

    data = amcf->data.elts;

    for (i = 0; i < amcf->data.nelts; i++) {
        ngx_http_ai_data_drop(data[i]);
        ngx_http_ai_data_release(data[i]);
    }
}


static void
ngx_http_ai_data_timer(ngx_event_t *ev)
{
    ngx_uint_t                      i;
    ngx_msec_t                      next, n;
    ngx_http_ai_data_t            **data;
    ngx_http_ai_core_main_conf_t   *amcf;

    /* without a master process the configuration may be another one now */

    amcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                               ngx_http_ai_core_module);

    if (amcf == NULL || amcf->data.nelts == 0) {
        return;
    }

    data = amcf->data.elts;
    next = amcf->data_interval;

    for (i = 0; i < amcf->data.nelts; i++) {

        if (ngx_exiting || ngx_quit || ngx_terminate) {

            /* the workers of the new configuration go on */

            ngx_http_ai_data_drop(data[i]);
            ngx_http_ai_data_release(data[i]);
            continue;
        }

        if (!ngx_http_ai_data_take(data[i])) {
            ngx_http_ai_data_drop(data[i]);
            continue;
        }

        n = ngx_http_ai_data_watch(data[i], ev->log);
        ngx_http_ai_data_put(data[i]);

        if (n) {
            next = ngx_min(next, n);
        }
    }

    if (!ngx_exiting) {
        ngx_add_timer(ev, next);
    }
}


/* when to look again, at the latest; 0: at any time */

static ngx_msec_t
ngx_http_ai_data_watch(ngx_http_ai_data_t *data, ngx_log_t *log)
{
    size_t                    len;
    u_char                    text[NGX_HTTP_AI_DATA_ERROR];
    ngx_uint_t                replaced;
    ngx_http_ai_data_sh_t    *sh;
    ngx_http_ai_data_sign_t   sign;

    sh = data->sh;

    if (data->loading) {
        return 0;
    }

    if (!data->probed) {
        data->probed = 1;
        ngx_http_ai_data_probe(data, log);
    }

    ngx_http_ai_data_look(data, &sign);

    if (ngx_http_ai_data_alike(&sign, &sh->loaded)) {

        if (sh->state == NGX_HTTP_AI_DATA_STALE) {
            ngx_http_ai_data_loaded(data, &sign, NULL, log);
        }

        data->seen = 0;
        return 0;
    }

    if (sh->has_failed && ngx_http_ai_data_alike(&sign, &sh->failed)) {
        data->seen = 0;
        return 0;
    }

    if (data->retry > ngx_http_ai_data_clock() / 1000) {
        return 0;
    }

    /* one that is written in place is not read before it rests */

    if (!data->seen || !ngx_http_ai_data_alike(&sign, &data->look)) {

        replaced = data->seen && (sign.ino != data->look.ino
                                  || sign.dev != data->look.dev);
        data->looks = data->seen ? data->looks + 1 : 1;
        data->look = sign;
        data->seen = 1;

        if (data->looks < (replaced ? 2 : NGX_HTTP_AI_DATA_LOOKS)) {
            return NGX_HTTP_AI_DATA_CONFIRM;
        }
    }

    data->seen = 0;

    if (sign.err || sign.both) {
        len = ngx_http_ai_data_describe(data, &sign, text);
        ngx_http_ai_data_failed(data, &sign, text, len, log);
        return 0;
    }

    data->loading = ngx_http_ai_data_load_create(data, &sign, log);

    if (data->loading == NULL) {
        len = ngx_snprintf(text, NGX_HTTP_AI_DATA_ERROR, "%s: no memory",
                           sign.lines ? data->jsonl : data->json)
              - text;
        ngx_http_ai_data_complain(data, text, len, log);
        return 0;
    }

    data->slice.log = log;
    ngx_post_event(&data->slice, &ngx_posted_next_events);

    return 0;
}


/*
 * The master has read the file, perhaps as root.  Better to hear of it now
 * than when the next change is not seen.
 */

static void
ngx_http_ai_data_probe(ngx_http_ai_data_t *data, ngx_log_t *log)
{
    u_char    *path;
    ngx_fd_t   fd;

    if (data->sh->loaded.err) {
        return;
    }

    path = data->sh->loaded.lines ? data->jsonl : data->json;

    fd = ngx_open_file(path, NGX_FILE_RDONLY|NGX_FILE_NONBLOCK,
                       NGX_FILE_OPEN, 0);

    if (fd != NGX_INVALID_FILE) {
        (void) ngx_close_file(fd);
        return;
    }

    if (ngx_errno == NGX_EACCES) {
        ngx_log_error(NGX_LOG_ERR, log, ngx_errno,
                      "ai data: a worker process may not read \"%s\": "
                      "changes of it will not be in force before a reload, "
                      "let the user of worker processes read it", path);
    }
}


static void
ngx_http_ai_data_slice(ngx_event_t *ev)
{
    ngx_int_t                    rc;
    ngx_http_ai_data_t          *data;
    ngx_http_ai_data_sign_t      sign;
    ngx_http_ai_data_loading_t  *ld;

    data = ev->data;

    if (data->loading == NULL) {
        return;
    }

    /* another one has taken over, and writes where we did */

    if (data->sh->holder >> 1 != (ngx_atomic_uint_t) ngx_pid
        || !ngx_http_ai_data_take(data))
    {
        ngx_http_ai_data_drop(data);
        return;
    }

    ld = data->loading;
    rc = ngx_http_ai_data_load_work(ld, NGX_HTTP_AI_DATA_SLICE);

    if (rc == NGX_AGAIN) {
        ngx_http_ai_data_put(data);
        ngx_post_event(ev, &ngx_posted_next_events);
        return;
    }

    data->loading = NULL;
    sign = ld->sign;

    switch (rc) {

    case NGX_OK:
        ngx_http_ai_data_loaded(data, &sign, ld, ev->log);
        break;

    case NGX_DECLINED:
        ngx_http_ai_data_failed(data, &sign, ld->error, ld->error_len,
                                ev->log);
        break;

    case NGX_ERROR:
        ngx_http_ai_data_complain(data, ld->error, ld->error_len, ev->log);
        break;

    default: /* NGX_BUSY */
        break;
    }

    ngx_http_ai_data_put(data);
    ngx_http_ai_data_load_free(ld);
}


static void
ngx_http_ai_data_loaded(ngx_http_ai_data_t *data,
    ngx_http_ai_data_sign_t *sign, ngx_http_ai_data_loading_t *ld,
    ngx_log_t *log)
{
    u_char                  *path;
    ngx_uint_t               level;
    ngx_http_ai_data_sh_t   *sh;

    sh = data->sh;
    level = ngx_test_config ? NGX_LOG_INFO : NGX_LOG_NOTICE;
    path = sign->lines ? data->jsonl : data->json;

    if (ld) {
        ngx_log_error(level, log, 0,
                      "ai data: %s: generation %uA with %uL records is in "
                      "force, %uz KB, %uL ms of work, at most %uL us of it "
                      "and %uL us on the clock at a time",
                      path, sh->generation, ld->records, ld->used / 1024,
                      ld->work / 1000, ld->most, ld->longest);

    } else if (sh->state == NGX_HTTP_AI_DATA_STALE) {
        ngx_log_error(NGX_LOG_NOTICE, log, 0,
                      "ai data: %s: what is in force is in the file again",
                      path);
    }

    sh->loaded = *sign;
    sh->has_failed = 0;
    sh->error_len = 0;
    sh->state = sign->err ? NGX_HTTP_AI_DATA_NONE : NGX_HTTP_AI_DATA_OK;

    data->complained = 0;
}


static void
ngx_http_ai_data_failed(ngx_http_ai_data_t *data,
    ngx_http_ai_data_sign_t *sign, u_char *text, size_t len, ngx_log_t *log)
{
    ngx_http_ai_data_sh_t  *sh;

    sh = data->sh;

    sh->error_len = 0;
    ngx_memory_barrier();
    ngx_memcpy(sh->error, text, len);
    ngx_memory_barrier();
    sh->error_len = len;

    sh->failures++;
    sh->failed = *sign;
    sh->has_failed = 1;

    data->complained = 0;

    ngx_http_ai_data_complain(data, text, len, log);

    data->complained = 0;
    data->retry = 0;
}


/* what may go by itself is tried again, and said once */

static void
ngx_http_ai_data_complain(ngx_http_ai_data_t *data, u_char *text, size_t len,
    ngx_log_t *log)
{
    time_t                    loaded;
    ngx_tm_t                  tm;
    ngx_http_ai_data_sh_t    *sh;

    sh = data->sh;

    sh->state = NGX_HTTP_AI_DATA_STALE;
    data->retry = ngx_http_ai_data_clock() / 1000 + NGX_HTTP_AI_DATA_RETRY;

    if (data->complained) {
        return;
    }

    data->complained = 1;

    loaded = sh->half[sh->generation & 1].loaded;
    ngx_localtime(loaded, &tm);

    ngx_log_error(NGX_LOG_ERR, log, 0,
                  "ai data: %*s; the last good generation, %uA of "
                  "%4d/%02d/%02d %02d:%02d:%02d, stays in force",
                  len, text, sh->generation,
                  tm.ngx_tm_year, tm.ngx_tm_mon, tm.ngx_tm_mday,
                  tm.ngx_tm_hour, tm.ngx_tm_min, tm.ngx_tm_sec);
}


/* why a file cannot be read that was only looked at */

static size_t
ngx_http_ai_data_describe(ngx_http_ai_data_t *data,
    ngx_http_ai_data_sign_t *sign, u_char *text)
{
    u_char  *p, *last, *path;

    last = text + NGX_HTTP_AI_DATA_ERROR;
    path = sign->lines ? data->jsonl : data->json;

    if (sign->both) {
        p = ngx_slprintf(text, last,
                         "both \"%s\" and \"%s\" are there, remove one",
                         data->json, data->jsonl);

    } else if (sign->err == NGX_ENOENT) {
        p = ngx_slprintf(text, last, "there is no \"%s\" and no \"%V.jsonl\"",
                         data->json, &data->def.name);

        if (data->def.create.len && data->sh->generation == 0) {
            p = ngx_slprintf(p, last, ", create one with \"%V %V\"",
                             &data->def.create, &data->dir);
        }

    } else {
        p = ngx_slprintf(text, last, "%s: stat() failed (%d: %s)", path,
                         sign->err, strerror(sign->err));
    }

    return p - text;
}


static void
ngx_http_ai_data_drop(ngx_http_ai_data_t *data)
{
    if (data->loading) {
        ngx_http_ai_data_load_free(data->loading);
        data->loading = NULL;
    }

    if (data->slice.posted) {
        ngx_delete_posted_event(&data->slice);
    }

    data->seen = 0;
}


/*
 * The right to write to the zone: kept from one time to the next, marked while
 * it is used.  1: we have it.
 */

static ngx_uint_t
ngx_http_ai_data_take(ngx_http_ai_data_t *data)
{
    uint64_t                now, age;
    ngx_pid_t               pid;
    ngx_atomic_uint_t       holder, mine;
    ngx_http_ai_data_sh_t  *sh;

    sh = data->sh;
    holder = sh->holder;
    mine = (ngx_atomic_uint_t) ngx_pid << 1;
    now = ngx_http_ai_data_clock() / 1000;
    pid = (ngx_pid_t) (holder >> 1);

    if (holder != 0 && pid != ngx_pid) {

        age = now - sh->heartbeat;

        if ((int64_t) age < 0) {
            age = 0;
        }

        /*
         * A process that ended has left its number to nobody, to a process
         * of someone else, or to one that knows nothing of this; one that is
         * stopped in the middle of its work may go on with it.
         */

        if (age < ((holder & 1) ? NGX_HTTP_AI_DATA_STUCK
                                : NGX_HTTP_AI_DATA_LOST)
            && (kill(pid, 0) != -1 || ngx_errno != NGX_ESRCH))
        {
            if (ngx_process != NGX_PROCESS_MASTER || (holder & 1)) {
                return 0;
            }
        }
    }

    if (!ngx_atomic_cmp_set(&sh->holder, holder, mine | 1)) {
        return 0;
    }

    sh->heartbeat = now;

    return 1;
}


static void
ngx_http_ai_data_put(ngx_http_ai_data_t *data)
{
    ngx_atomic_uint_t  mine;

    mine = (ngx_atomic_uint_t) ngx_pid << 1;

    data->sh->heartbeat = ngx_http_ai_data_clock() / 1000;
    (void) ngx_atomic_cmp_set(&data->sh->holder, mine | 1, mine);
}


static void
ngx_http_ai_data_release(ngx_http_ai_data_t *data)
{
    ngx_atomic_uint_t  mine;

    if (data->sh == NULL) {
        return;
    }

    mine = (ngx_atomic_uint_t) ngx_pid << 1;

    if (!ngx_atomic_cmp_set(&data->sh->holder, mine, 0)) {
        (void) ngx_atomic_cmp_set(&data->sh->holder, mine | 1, 0);
    }
}


static void
ngx_http_ai_data_figures(ngx_http_ai_data_t *data,
    ngx_http_ai_data_status_t *status)
{
    ngx_http_ai_data_sh_t    *sh;
    ngx_http_ai_data_half_t  *half;

    sh = data->sh;

    /* figures of two moments do no harm */

    status->name = data->def.name;
    status->state = sh->state;
    status->required = data->def.required;
    status->generation = sh->generation;
    status->failures = sh->failures;
    status->changed = sh->loaded.mtime;
    status->size = sh->size;

    half = &sh->half[status->generation & 1];

    status->records = half->records;
    status->loaded = half->loaded;
    status->used = half->used;

    ngx_str_null(&status->error);
}


ngx_int_t
ngx_http_ai_data_status(ngx_uint_t n, ngx_pool_t *pool,
    ngx_http_ai_data_status_t *status)
{
    size_t                          len;
    ngx_http_ai_data_t            **data;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                               ngx_http_ai_core_module);

    if (amcf == NULL || n >= amcf->data.nelts) {
        return NGX_DECLINED;
    }

    data = amcf->data.elts;
    ngx_http_ai_data_figures(data[n], status);

    len = ngx_min(data[n]->sh->error_len, NGX_HTTP_AI_DATA_ERROR);

    if (len && status->state == NGX_HTTP_AI_DATA_STALE) {
        status->error.data = ngx_pnalloc(pool, len);
        if (status->error.data == NULL) {
            return NGX_ERROR;
        }

        ngx_memcpy(status->error.data, data[n]->sh->error, len);
        status->error.len = len;
    }

    return NGX_OK;
}


/* $ai_data_<name>, and the same with _generation, _records, _failures */

static ngx_int_t
ngx_http_ai_data_variable(ngx_http_request_t *r, ngx_http_variable_value_t *v,
    uintptr_t name)
{
    uint64_t                        n;
    ngx_str_t                      *var, *state, rest, set;
    ngx_uint_t                      i;
    ngx_http_ai_data_t            **data;
    ngx_http_ai_data_status_t       status;
    ngx_http_ai_core_main_conf_t   *amcf;

    var = (ngx_str_t *) name;
    amcf = ngx_http_get_module_main_conf(r, ngx_http_ai_core_module);

    rest.data = var->data + ngx_http_ai_data_prefix.len;
    rest.len = var->len - ngx_http_ai_data_prefix.len;

    data = amcf->data.elts;

    for (i = 0; i < amcf->data.nelts; i++) {

        set = data[i]->def.name;

        if (rest.len < set.len
            || ngx_strncmp(rest.data, set.data, set.len) != 0)
        {
            continue;
        }

        set.data = rest.data + set.len;
        set.len = rest.len - set.len;

        ngx_http_ai_data_figures(data[i], &status);

        if (set.len == 0) {
            state = &ngx_http_ai_data_states[status.state];

            v->valid = 1;
            v->no_cacheable = 0;
            v->not_found = 0;
            v->len = state->len;
            v->data = state->data;

            return NGX_OK;
        }

        if (ngx_http_ai_str_is(&set, "_generation")) {
            n = status.generation;

        } else if (ngx_http_ai_str_is(&set, "_records")) {
            n = status.records;

        } else if (ngx_http_ai_str_is(&set, "_failures")) {
            n = status.failures;

        } else {
            continue;
        }

        v->data = ngx_pnalloc(r->pool, NGX_INT64_LEN);
        if (v->data == NULL) {
            return NGX_ERROR;
        }

        v->valid = 1;
        v->no_cacheable = 0;
        v->not_found = 0;
        v->len = ngx_sprintf(v->data, "%uL", n) - v->data;

        return NGX_OK;
    }

    v->not_found = 1;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_data_add_variables(ngx_conf_t *cf)
{
    ngx_http_variable_t  *var;

    var = ngx_http_add_variable(cf, &ngx_http_ai_data_prefix,
                                NGX_HTTP_VAR_NOCACHEABLE
                                |NGX_HTTP_VAR_PREFIX);
    if (var == NULL) {
        return NGX_ERROR;
    }

    var->get_handler = ngx_http_ai_data_variable;

    return NGX_OK;
}
