
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Where the lines of the usage log go: a file, a pipe, syslog.  A write has
 * whole lines only.  Pipes and syslog are never waited for: what they do not
 * take is lost, counted and told once a minute.
 */


#include "ngx_http_ai_log.h"
#include <limits.h>


/* before each line or buffer, for a LF when the line before was torn */
#define NGX_HTTP_AI_LOG_GAP     1

/* a datagram: less than what UDP and UNIX sockets take */
#define NGX_HTTP_AI_LOG_SYSLOG  (60 * 1024)

/* of syslog's header: priority, time, host and tag */
#define NGX_HTTP_AI_LOG_HEAD    (sizeof("<255>Jan 01 00:00:00 ") - 1          \
                                 + NGX_MAXHOSTNAMELEN + 1 + 32 + 2)


static ngx_int_t ngx_http_ai_log_sink_open(ngx_conf_t *cf,
    ngx_http_ai_log_sink_t *sink, ngx_str_t *value);
static void ngx_http_ai_log_sink_close(void *data);
static void ngx_http_ai_log_sink_reopen(ngx_open_file_t *file, ngx_log_t *log);
static void ngx_http_ai_log_sink_timer(ngx_event_t *ev);
static void ngx_http_ai_log_sink_flush(ngx_http_ai_log_sink_t *sink,
    ngx_log_t *log);
static void ngx_http_ai_log_sink_file(ngx_http_ai_log_sink_t *sink,
    u_char *data, size_t len, ngx_log_t *log);
static size_t ngx_http_ai_log_sink_pipe(ngx_http_ai_log_sink_t *sink,
    u_char *data, size_t len, ngx_log_t *log);
static void ngx_http_ai_log_sink_lost(ngx_http_ai_log_sink_t *sink,
    ngx_uint_t n, ngx_log_t *log, ngx_err_t err);
static ngx_uint_t ngx_http_ai_log_sink_lines(u_char *data, size_t len);


ngx_http_ai_log_sink_t *
ngx_http_ai_log_sink(ngx_conf_t *cf, ngx_http_ai_log_main_conf_t *mcf,
    size_t size, ngx_msec_t flush)
{
    ngx_str_t                *value, name;
    ngx_uint_t                i;
    ngx_http_ai_log_sink_t   *sink, **sinks;

    value = cf->args->elts;
    name = value[1];

    sinks = mcf->sinks.elts;

    for (i = 0; i < mcf->sinks.nelts; i++) {

        if (sinks[i]->name.len != name.len
            || ngx_memcmp(sinks[i]->name.data, name.data, name.len) != 0)
        {
            continue;
        }

        if (sinks[i]->size != size || sinks[i]->flush != flush) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "ai_log \"%V\" was given another buffer "
                               "before, it can have one only", &name);
            return NULL;
        }

        return sinks[i];
    }

    sink = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_log_sink_t));
    if (sink == NULL) {
        return NULL;
    }

    sinks = ngx_array_push(&mcf->sinks);
    if (sinks == NULL) {
        return NULL;
    }

    *sinks = sink;

    /* ngx_syslog_process_conf() writes into the argument */

    sink->name.len = name.len;
    sink->name.data = ngx_pstrdup(cf->pool, &name);
    if (sink->name.data == NULL) {
        return NULL;
    }

    sink->sh = &mcf->sh;
    sink->pipe = NGX_INVALID_FILE;
    sink->size = size;
    sink->flush = flush;
    sink->gzip = -1;

    if (ngx_http_ai_log_sink_open(cf, sink, &value[1]) != NGX_OK) {
        return NULL;
    }

    if (size == 0) {
        return sink;
    }

    sink->start = ngx_pnalloc(cf->pool, NGX_HTTP_AI_LOG_GAP + size);
    if (sink->start == NULL) {
        return NULL;
    }

    sink->start += NGX_HTTP_AI_LOG_GAP;
    sink->pos = sink->start;
    sink->last = sink->start + size;

    sink->event = &sink->timer;
    sink->timer.handler = ngx_http_ai_log_sink_timer;
    sink->timer.data = sink;
    sink->timer.log = &cf->cycle->new_log;
    sink->timer.cancelable = 1;

    if (sink->file) {
        sink->file->flush = ngx_http_ai_log_sink_reopen;
        sink->file->data = sink;
    }

    return sink;
}


static ngx_int_t
ngx_http_ai_log_sink_open(ngx_conf_t *cf, ngx_http_ai_log_sink_t *sink,
    ngx_str_t *value)
{
    ngx_str_t            path;
    ngx_file_info_t      fi;
    ngx_pool_cleanup_t  *cln;

    if (ngx_strncmp(value->data, "syslog:", 7) == 0) {

        if (sink->size) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "ai_log to syslog cannot have a buffer");
            return NGX_ERROR;
        }

        sink->syslog = ngx_pcalloc(cf->pool, sizeof(ngx_syslog_peer_t));
        if (sink->syslog == NULL) {
            return NGX_ERROR;
        }

        if (ngx_syslog_process_conf(cf, sink->syslog) != NGX_CONF_OK) {
            return NGX_ERROR;
        }

        sink->max = NGX_HTTP_AI_LOG_SYSLOG;

        return NGX_OK;
    }

    path = *value;

    if (ngx_conf_full_name(cf->cycle, &path, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_file_info(path.data, &fi) == NGX_FILE_ERROR
        || !S_ISFIFO(fi.st_mode))
    {
        sink->file = ngx_conf_open_file(cf->cycle, value);
        if (sink->file == NULL) {
            return NGX_ERROR;
        }

        if (sink->size && sink->file->data) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "ai_log \"%V\" is an access_log with a buffer, "
                               "it needs a file of its own", value);
            return NGX_ERROR;
        }

        return NGX_OK;
    }

    /* for reading too: neither this nor a write depends on a reader, who may
     * come and go */

    sink->pipe = ngx_open_file(path.data, NGX_FILE_RDWR|NGX_FILE_NONBLOCK,
                               NGX_FILE_OPEN, 0);

    if (sink->pipe == NGX_INVALID_FILE) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_open_file_n " pipe \"%V\" failed", &path);
        return NGX_ERROR;
    }

    (void) fcntl(sink->pipe, F_SETFD, FD_CLOEXEC);

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        (void) ngx_close_file(sink->pipe);
        return NGX_ERROR;
    }

    cln->handler = ngx_http_ai_log_sink_close;
    cln->data = sink;

    sink->max = PIPE_BUF - 1;

    return NGX_OK;
}


static void
ngx_http_ai_log_sink_close(void *data)
{
    ngx_http_ai_log_sink_t *sink = data;

    (void) ngx_close_file(sink->pipe);
}


static void
ngx_http_ai_log_sink_reopen(ngx_open_file_t *file, ngx_log_t *log)
{
    ngx_http_ai_log_sink_flush(file->data, log);
}


static void
ngx_http_ai_log_sink_timer(ngx_event_t *ev)
{
    ngx_http_ai_log_sink_t  *sink;

    sink = ev->data;

    ngx_http_ai_log_sink_flush(sink, ev->log);

    if (sink->pos != sink->start) {
        /* a pipe is full */
        ngx_add_timer(&sink->timer, sink->flush);
    }
}


void
ngx_http_ai_log_sinks_exit(ngx_cycle_t *cycle,
    ngx_http_ai_log_main_conf_t *mcf)
{
    ngx_uint_t                i;
    ngx_http_ai_log_sink_t  **sinks;

    sinks = mcf->sinks.elts;

    for (i = 0; i < mcf->sinks.nelts; i++) {

        if (sinks[i]->size == 0) {
            continue;
        }

        ngx_http_ai_log_sink_flush(sinks[i], cycle->log);

        if (sinks[i]->pos != sinks[i]->start) {
            ngx_http_ai_log_sink_lost(sinks[i],
                      ngx_http_ai_log_sink_lines(sinks[i]->start,
                                          sinks[i]->pos - sinks[i]->start),
                      cycle->log, NGX_EAGAIN);
        }
    }
}


u_char *
ngx_http_ai_log_sink_begin(ngx_http_ai_log_sink_t *sink,
    ngx_http_request_t *r, size_t n)
{
    u_char  *p;

    if (sink->size) {

        if ((size_t) (sink->last - sink->pos) <= n) {
            ngx_http_ai_log_sink_flush(sink, r->connection->log);
        }

        if ((size_t) (sink->last - sink->pos) > n) {
            return sink->pos;
        }

        /* longer than the buffer, or a pipe is full: a line of usual length
         * may have room yet */
    }

    if (sink->syslog) {
        p = ngx_pnalloc(r->pool, NGX_HTTP_AI_LOG_HEAD + n + 1);

        return p ? p + NGX_HTTP_AI_LOG_HEAD : NULL;
    }

    p = ngx_pnalloc(r->pool, NGX_HTTP_AI_LOG_GAP + n + 1);

    return p ? p + NGX_HTTP_AI_LOG_GAP : NULL;
}


void
ngx_http_ai_log_sink_end(ngx_http_ai_log_sink_t *sink, ngx_http_request_t *r,
    u_char *line, u_char *last)
{
    u_char   *p, head[NGX_HTTP_AI_LOG_HEAD + 1];
    size_t    len;
    ssize_t   n;

    len = last - line;

    if (sink->syslog) {
        (void) ngx_atomic_fetch_add(&(*sink->sh)->lines, 1);

        p = ngx_syslog_add_header(sink->syslog, head);

        line -= p - head;
        ngx_memcpy(line, head, p - head);

        n = ngx_syslog_send(sink->syslog, line, last - line);

        if (n != last - line) {
            ngx_http_ai_log_sink_lost(sink, 1, r->connection->log,
                                      (n == NGX_AGAIN) ? NGX_EAGAIN : 0);
        }

        return;
    }

    *last++ = LF;
    len++;

    if (sink->size && (sink->max == 0 || len <= sink->max + 1)
        && len <= (size_t) (sink->last - sink->pos))
    {
        if (line != sink->pos) {
            ngx_memcpy(sink->pos, line, len);
        }

        /* counted when they are written: together */

        sink->pos += len;
        sink->lines++;

        if (!sink->timer.timer_set) {
            ngx_add_timer(&sink->timer, sink->flush);
        }

        return;
    }

    (void) ngx_atomic_fetch_add(&(*sink->sh)->lines, 1);

    if (sink->max && len > sink->max + 1) {
        ngx_http_ai_log_sink_lost(sink, 1, r->connection->log, 0);
        return;
    }

    if (sink->pipe == NGX_INVALID_FILE) {
        ngx_http_ai_log_sink_file(sink, line, len, r->connection->log);
        return;
    }

    if (ngx_http_ai_log_sink_pipe(sink, line, len, r->connection->log) != len)
    {
        ngx_http_ai_log_sink_lost(sink, 1, r->connection->log, NGX_EAGAIN);
    }
}


static void
ngx_http_ai_log_sink_flush(ngx_http_ai_log_sink_t *sink, ngx_log_t *log)
{
    size_t  len, n;

    len = sink->pos - sink->start;

    if (len == 0) {
        return;
    }

    (void) ngx_atomic_fetch_add(&(*sink->sh)->lines, sink->lines);
    sink->lines = 0;

    if (sink->timer.timer_set) {
        ngx_del_timer(&sink->timer);
    }

    if (sink->pipe == NGX_INVALID_FILE) {
        ngx_http_ai_log_sink_file(sink, sink->start, len, log);
        sink->pos = sink->start;
        return;
    }

    n = ngx_http_ai_log_sink_pipe(sink, sink->start, len, log);

    if (n) {
        ngx_memmove(sink->start, sink->start + n, len - n);
        sink->pos -= n;
    }
}


static void
ngx_http_ai_log_sink_file(ngx_http_ai_log_sink_t *sink, u_char *data,
    size_t len, ngx_log_t *log)
{
    ssize_t     n;
    ngx_err_t   err;
    ngx_uint_t  gap;

    if (sink->full == ngx_time()) {

        /* a full file system may take long to say so, see
         * ngx_http_log_handler() */

        ngx_http_ai_log_sink_lost(sink, ngx_http_ai_log_sink_lines(data, len),
                                  log, NGX_ENOSPC);
        return;
    }

    gap = 0;

    if (sink->torn) {
        gap = NGX_HTTP_AI_LOG_GAP;
        data[-NGX_HTTP_AI_LOG_GAP] = LF;
    }

    n = ngx_write_fd(sink->file->fd, data - gap, len + gap);

    if (n == (ssize_t) (len + gap)) {
        sink->torn = 0;
        return;
    }

    err = (n == -1) ? ngx_errno : 0;

    if (err == NGX_ENOSPC) {
        sink->full = ngx_time();
    }

    if (n > 0) {
        n -= gap;
        sink->torn = (n && data[n - 1] != LF);
        data += n;
        len -= n;
    }

    ngx_http_ai_log_sink_lost(sink, ngx_http_ai_log_sink_lines(data, len), log,
                              err);
}


/* lines are written together up to what a pipe takes as a whole or not at
 * all; the number of bytes that it has taken */

static size_t
ngx_http_ai_log_sink_pipe(ngx_http_ai_log_sink_t *sink, u_char *data,
    size_t len, ngx_log_t *log)
{
    size_t    done, n;
    ssize_t   rc;

    for (done = 0; done < len; done += n) {
        n = len - done;

        if (n > PIPE_BUF) {

            for (n = PIPE_BUF; n && data[done + n - 1] != LF; n--) {
                /* void */
            }
        }

        rc = ngx_write_fd(sink->pipe, data + done, n);

        if (rc != (ssize_t) n) {

            if (rc != -1 || ngx_errno != NGX_EAGAIN) {
                ngx_log_error(NGX_LOG_ERR, log, (rc == -1) ? ngx_errno : 0,
                              "ai log: " ngx_write_fd_n " to \"%V\" failed",
                              &sink->name);
            }

            break;
        }
    }

    return done;
}


static void
ngx_http_ai_log_sink_lost(ngx_http_ai_log_sink_t *sink, ngx_uint_t n,
    ngx_log_t *log, ngx_err_t err)
{
    (void) ngx_atomic_fetch_add(&(*sink->sh)->lost, n);

    sink->lost += n;

    if (ngx_time() - sink->told < 60) {
        return;
    }

    ngx_log_error(NGX_LOG_ERR, log, err,
                  "ai log: %ui lines for \"%V\" were lost", sink->lost,
                  &sink->name);

    sink->told = ngx_time();
    sink->lost = 0;
}


static ngx_uint_t
ngx_http_ai_log_sink_lines(u_char *data, size_t len)
{
    u_char      *p, *last;
    ngx_uint_t   n;

    n = 0;
    last = data + len;

    for (p = data; p < last; p++) {

        p = ngx_strlchr(p, last, LF);

        if (p == NULL) {
            break;
        }

        n++;
    }

    return n;
}
