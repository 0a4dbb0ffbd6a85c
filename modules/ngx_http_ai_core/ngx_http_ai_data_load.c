
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_data_store.h"
#include "ngx_http_ai_scan.h"


#define NGX_HTTP_AI_DATA_OFTEN  16    /* records between looks at the clock */


static ngx_int_t ngx_http_ai_data_load_open(ngx_http_ai_data_loading_t *ld);
static ngx_int_t ngx_http_ai_data_load_read(ngx_http_ai_data_loading_t *ld);
static ngx_int_t ngx_http_ai_data_load_between(
    ngx_http_ai_data_loading_t *ld);
static ngx_int_t ngx_http_ai_data_load_wrapped(
    ngx_http_ai_data_loading_t *ld);
static ngx_int_t ngx_http_ai_data_load_inside(ngx_http_ai_data_loading_t *ld);
static ngx_int_t ngx_http_ai_data_load_record(ngx_http_ai_data_loading_t *ld);
static ngx_int_t ngx_http_ai_data_load_end(ngx_http_ai_data_loading_t *ld);
static ngx_int_t ngx_http_ai_data_load_partial(
    ngx_http_ai_data_loading_t *ld, const char *what);
static ngx_int_t ngx_http_ai_data_load_full(ngx_http_ai_data_loading_t *ld);
static ngx_uint_t ngx_http_ai_data_load_changed(
    ngx_http_ai_data_loading_t *ld);
static void ngx_http_ai_data_load_error(ngx_http_ai_data_loading_t *ld,
    ngx_uint_t line, const char *fmt, ...);
static uint64_t ngx_http_ai_data_cpu(void);
static void ngx_http_ai_data_sign(ngx_http_ai_data_sign_t *sign,
    struct stat *st, ngx_uint_t lines);


ngx_http_ai_data_loading_t *
ngx_http_ai_data_load_create(ngx_http_ai_data_t *data,
    ngx_http_ai_data_sign_t *sign, ngx_log_t *log)
{
    ngx_pool_t                  *pool;
    ngx_http_ai_data_loading_t  *ld;

    pool = ngx_create_pool(NGX_DEFAULT_POOL_SIZE, log);
    if (pool == NULL) {
        return NULL;
    }

    ld = ngx_pcalloc(pool, sizeof(ngx_http_ai_data_loading_t));
    if (ld == NULL) {
        goto failed;
    }

    ld->load.data = data;
    ld->load.conf = data->def.conf;
    ld->load.pool = pool;
    ld->sign = *sign;
    ld->path = sign->lines ? data->jsonl : data->json;
    ld->fd = NGX_INVALID_FILE;
    ld->line = 1;

    ld->nodes = ngx_palloc(pool, NGX_HTTP_AI_DATA_NODES
                                 * sizeof(ngx_http_ai_json_node_t));
    ld->buf = ngx_palloc(pool,
                         NGX_HTTP_AI_DATA_RECORD + NGX_HTTP_AI_DATA_READ);

    if (ld->nodes == NULL || ld->buf == NULL) {
        goto failed;
    }

    ld->end = ld->buf + NGX_HTTP_AI_DATA_RECORD + NGX_HTTP_AI_DATA_READ;
    ld->last = ld->buf;
    ld->pos = ld->buf;

    ld->pool = ngx_create_pool(NGX_DEFAULT_POOL_SIZE, log);
    if (ld->pool == NULL) {
        goto failed;
    }

    ngx_http_ai_data_store_begin(ld, sign->err ? 0 : sign->size);

    return ld;

failed:

    ngx_destroy_pool(pool);

    return NULL;
}


void
ngx_http_ai_data_load_free(ngx_http_ai_data_loading_t *ld)
{
    if (ld->fd != NGX_INVALID_FILE
        && ngx_close_file(ld->fd) == NGX_FILE_ERROR)
    {
        ngx_log_error(NGX_LOG_ALERT, ld->load.pool->log, ngx_errno,
                      ngx_close_file_n " \"%s\" failed", ld->path);
    }

    ngx_destroy_pool(ld->pool);
    ngx_destroy_pool(ld->load.pool);
}


ngx_int_t
ngx_http_ai_data_load_none(ngx_http_ai_data_t *data,
    ngx_http_ai_data_sign_t *sign, ngx_log_t *log)
{
    ngx_str_t                    error;
    ngx_http_ai_data_loading_t  *ld;

    ld = ngx_http_ai_data_load_create(data, sign, log);
    if (ld == NULL) {
        return NGX_ERROR;
    }

    while (ngx_http_ai_data_store_clear(ld) == NGX_AGAIN) { /* void */ }

    ngx_str_null(&error);

    if (data->def.done && data->def.done(&ld->load, &error) != NGX_OK) {
        ngx_http_ai_data_load_free(ld);
        return NGX_ERROR;
    }

    ngx_http_ai_data_store_commit(ld);
    ngx_http_ai_data_load_free(ld);

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_data_load_work(ngx_http_ai_data_loading_t *ld, ngx_uint_t slice)
{
    uint64_t    start, now, cpu;
    ngx_int_t   rc;
    ngx_uint_t  n;

    start = ngx_http_ai_data_clock();
    cpu = ngx_http_ai_data_cpu();
    rc = NGX_OK;

    if (ld->fd == NGX_INVALID_FILE) {
        rc = ngx_http_ai_data_load_open(ld);
    }

    for (n = 1; rc == NGX_OK; n++) {

        switch (ld->step) {

        case NGX_HTTP_AI_DATA_CLEAR:

            if (ngx_http_ai_data_store_clear(ld) == NGX_OK) {
                ld->step = NGX_HTTP_AI_DATA_BETWEEN;
            }

            n = 0;
            break;

        case NGX_HTTP_AI_DATA_BETWEEN:
            rc = ngx_http_ai_data_load_between(ld);
            break;

        case NGX_HTTP_AI_DATA_INSIDE:
        case NGX_HTTP_AI_DATA_STRING:
            rc = ngx_http_ai_data_load_inside(ld);

            if (rc == NGX_DONE) {
                rc = ngx_http_ai_data_load_record(ld);
            }

            break;

        default: /* NGX_HTTP_AI_DATA_DONE */
            rc = ngx_http_ai_data_load_end(ld);

            if (rc == NGX_OK) {
                rc = NGX_DONE;
            }

            continue;
        }

        if (rc == NGX_AGAIN) {
            rc = ngx_http_ai_data_load_read(ld);
            n = 0;
        }

        if (n % NGX_HTTP_AI_DATA_OFTEN == 0) {

            now = ngx_http_ai_data_clock();
            ld->load.data->sh->heartbeat = now / 1000;

            if (slice && rc == NGX_OK && now - start >= slice) {
                rc = NGX_AGAIN;
            }
        }
    }

    if (rc == NGX_DECLINED && ngx_http_ai_data_load_changed(ld)) {

        /* half of it was written when it was read */

        rc = NGX_BUSY;
    }

    now = ngx_http_ai_data_clock() - start;
    ld->longest = ngx_max(ld->longest, now);

    cpu = ngx_http_ai_data_cpu() - cpu;
    ld->work += cpu;
    ld->most = ngx_max(ld->most, cpu);

    ngx_log_debug3(NGX_LOG_DEBUG_HTTP, ld->load.pool->log, 0,
                   "ai data: slice of \"%s\": %uL us, rc:%i", ld->path, now,
                   rc);

    return (rc == NGX_DONE) ? NGX_OK : rc;
}


static ngx_int_t
ngx_http_ai_data_load_open(ngx_http_ai_data_loading_t *ld)
{
    struct stat              st;
    ngx_http_ai_data_sign_t  sign;

    /* a FIFO would wait for its writer */

    ld->fd = ngx_open_file(ld->path, NGX_FILE_RDONLY|NGX_FILE_NONBLOCK,
                           NGX_FILE_OPEN, 0);

    if (ld->fd == NGX_INVALID_FILE) {
        ngx_http_ai_data_load_error(ld, 0, ngx_open_file_n " failed (%d: %s)",
                                    ngx_errno, strerror(ngx_errno));
        return NGX_ERROR;
    }

    (void) fcntl(ld->fd, F_SETFD, FD_CLOEXEC);

    if (fstat(ld->fd, &st) == -1) {
        ngx_http_ai_data_load_error(ld, 0, "fstat() failed (%d: %s)",
                                    ngx_errno, strerror(ngx_errno));
        return NGX_ERROR;
    }

    if (!S_ISREG(st.st_mode)) {
        ngx_http_ai_data_load_error(ld, 0, "is not a regular file");
        return NGX_DECLINED;
    }

    ngx_http_ai_data_sign(&sign, &st, ld->sign.lines);

    if (!ngx_http_ai_data_alike(&sign, &ld->sign)) {
        return NGX_BUSY;
    }

#if (NGX_HAVE_POSIX_FADVISE)

    /* the reads below should find it in memory */

    (void) posix_fadvise(ld->fd, 0, 0, POSIX_FADV_WILLNEED);

#endif

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_data_load_read(ngx_http_ai_data_loading_t *ld)
{
    u_char   *from;
    size_t    size;
    ssize_t   n;

    /* what is not needed any more */

    from = (ld->step == NGX_HTTP_AI_DATA_BETWEEN) ? ld->pos : ld->start;

    if (from != ld->buf) {
        size = ld->last - from;
        ngx_memmove(ld->buf, from, size);

        ld->pos -= from - ld->buf;
        ld->start = ld->buf;
        ld->last = ld->buf + size;
    }

    size = ngx_min(ld->end - ld->last, NGX_HTTP_AI_DATA_READ);

    do {
        n = read(ld->fd, ld->last, size);
    } while (n == -1 && ngx_errno == NGX_EINTR);

    if (n == -1) {
        ngx_http_ai_data_load_error(ld, 0, "read() failed (%d: %s)",
                                    ngx_errno, strerror(ngx_errno));
        return NGX_ERROR;
    }

    if (n == 0) {
        ld->eof = 1;
        return NGX_OK;
    }

    if (ld->nread == 0 && n >= 3
        && ld->last[0] == 0xef && ld->last[1] == 0xbb && ld->last[2] == 0xbf)
    {
        ld->pos += 3;
    }

    ld->nread += n;
    ld->last += n;

    return NGX_OK;
}


/* NGX_OK: the step is over, or another; NGX_AGAIN: more text is needed */

static ngx_int_t
ngx_http_ai_data_load_between(ngx_http_ai_data_loading_t *ld)
{
    u_char      *p;
    ngx_int_t    rc;
    const char  *what;

    for (p = ld->pos; p < ld->last; p++) {

        switch (*p) {

        case '\n':
            ld->line++;
            continue;

        case ' ':
        case '\t':
        case '\r':
            continue;

        case ',':

            if (ld->closed || ld->comma || ld->records == 0
                || ld->form <= NGX_HTTP_AI_DATA_FORM_SEQUENCE)
            {
                break;
            }

            ld->comma = 1;
            continue;

        case '[':

            if (ld->form != NGX_HTTP_AI_DATA_FORM_UNKNOWN) {
                break;
            }

            ld->form = NGX_HTTP_AI_DATA_FORM_ARRAY;
            continue;

        case ']':

            if (ld->closed || ld->comma
                || ld->form <= NGX_HTTP_AI_DATA_FORM_SEQUENCE)
            {
                break;
            }

            ld->closed = 1;
            continue;

        case '}':

            if (!ld->closed || ld->form != NGX_HTTP_AI_DATA_FORM_WRAPPED) {
                break;
            }

            ld->form = NGX_HTTP_AI_DATA_FORM_ARRAY;
            continue;

        case '{':
            ld->pos = p;

            if (ld->form == NGX_HTTP_AI_DATA_FORM_UNKNOWN) {
                rc = ngx_http_ai_data_load_wrapped(ld);

                if (rc == NGX_AGAIN) {
                    return rc;
                }

                if (rc == NGX_OK) {
                    ld->form = NGX_HTTP_AI_DATA_FORM_WRAPPED;
                    p = ld->pos;
                    continue;
                }

                ld->form = NGX_HTTP_AI_DATA_FORM_SEQUENCE;
            }

            if (ld->closed
                || (ld->form != NGX_HTTP_AI_DATA_FORM_SEQUENCE
                    && ld->records && !ld->comma))
            {
                break;
            }

            ld->start = p;
            ld->start_line = ld->line;
            ld->pos = p;
            ld->depth = 0;
            ld->comma = 0;
            ld->step = NGX_HTTP_AI_DATA_INSIDE;

            return NGX_OK;
        }

        if (ld->form == NGX_HTTP_AI_DATA_FORM_WRAPPED && ld->closed) {
            what = "\"}\", as there is no other member";

        } else if (ld->closed) {
            what = "the end of the file";

        } else if (ld->form == NGX_HTTP_AI_DATA_FORM_SEQUENCE) {

            if (*p == ',') {
                ngx_http_ai_data_load_error(ld, ld->line,
                    "\",\" between records, which only an array has: begin "
                    "the file with \"[\", or write one record to a line");
                return NGX_DECLINED;
            }

            what = "a record";

        } else if (ld->form == NGX_HTTP_AI_DATA_FORM_UNKNOWN) {
            what = "a record or an array of records";

        } else if (ld->records && !ld->comma) {
            what = "\",\" or \"]\"";

        } else {
            what = "a record";
        }

        if (*p > ' ' && *p < 0x7f) {
            ngx_http_ai_data_load_error(ld, ld->line,
                                        "expected %s, found \"%c\"", what, *p);
        } else {
            ngx_http_ai_data_load_error(ld, ld->line,
                                        "expected %s, found byte 0x%02xd",
                                        what, (int) *p);
        }

        return NGX_DECLINED;
    }

    ld->pos = p;

    if (!ld->eof) {
        return NGX_AGAIN;
    }

    /* one line of nothing is a list of nothing, but no JSON text is empty */

    if (ld->form == NGX_HTTP_AI_DATA_FORM_UNKNOWN && !ld->sign.lines) {
        ngx_http_ai_data_load_error(ld, 0,
                                    "is empty, \"[]\" means no records");
        return NGX_DECLINED;
    }

    if (ld->form == NGX_HTTP_AI_DATA_FORM_WRAPPED
        || (ld->form == NGX_HTTP_AI_DATA_FORM_ARRAY && !ld->closed))
    {
        ngx_http_ai_data_load_error(ld, ld->line,
            "unexpected end of the file, expected \"%s\"",
            ld->closed ? "}" : "]");
        return NGX_DECLINED;
    }

    ld->step = NGX_HTTP_AI_DATA_DONE;

    return NGX_OK;
}


/* { "keys": [ , where any other object is a record */

static ngx_int_t
ngx_http_ai_data_load_wrapped(ngx_http_ai_data_loading_t *ld)
{
    u_char      *p, *last;
    ngx_str_t   *name;
    ngx_uint_t   i;
    const char  *expect;

    last = ld->last;
    name = &ld->load.data->def.name;

    p = ngx_http_ai_json_skip_space(ld->pos + 1, last);
    expect = "\"";

    for (i = 0; i < 4; i++) {

        if (p < last && *p != (u_char) expect[0]) {
            return NGX_DECLINED;
        }

        if (p == last || (i == 0 && (size_t) (last - p) < name->len + 2)) {

            /* the text may go on, unless it is all white space */

            return (ld->eof || last - ld->pos >= NGX_HTTP_AI_DATA_READ)
                   ? NGX_DECLINED : NGX_AGAIN;
        }

        p++;

        switch (i) {

        case 0:
            if (ngx_strncmp(p, name->data, name->len) != 0) {
                return NGX_DECLINED;
            }

            p += name->len;
            expect = "\"";
            continue;

        case 1:
            expect = ":";
            break;

        case 2:
            expect = "[";
            break;
        }

        if (i < 3) {
            p = ngx_http_ai_json_skip_space(p, last);
        }
    }

    for (last = ld->pos; last < p; last++) {
        if (*last == '\n') {
            ld->line++;
        }
    }

    ld->pos = p - 1;

    return NGX_OK;
}


/* NGX_DONE: the record ends at ld->pos */

static ngx_int_t
ngx_http_ai_data_load_inside(ngx_http_ai_data_loading_t *ld)
{
    u_char  *p, *last;

    p = ld->pos;

    /* a record that is too long takes no more time than others */

    last = ngx_min(ld->last, ld->start + NGX_HTTP_AI_DATA_RECORD);

    if (ld->step == NGX_HTTP_AI_DATA_STRING) {
        goto string;
    }

    while (p < last) {

        switch (*p++) {

        case '{':
        case '[':
            ld->depth++;
            break;

        case '}':
        case ']':
            if (--ld->depth == 0) {
                ld->pos = p;
                return NGX_DONE;
            }

            break;

        case '\n':
            ld->line++;
            break;

        case '"':
            ld->step = NGX_HTTP_AI_DATA_STRING;

        string:

            for ( ;; ) {
                p = ngx_http_ai_scan_plain(p, last);

                if (p >= last) {
                    p = last;
                    goto more;
                }

                if (*p == '"') {
                    p++;
                    break;
                }

                if (*p != '\\') {
                    ld->pos = p + 1;
                    return ngx_http_ai_data_load_partial(ld,
                                          "control character in a string");
                }

                if (p + 1 == last) {
                    goto more;
                }

                p += 2;
            }

            ld->step = NGX_HTTP_AI_DATA_INSIDE;
            break;
        }
    }

more:

    ld->pos = p;

    if (last != ld->last || last == ld->start + NGX_HTTP_AI_DATA_RECORD) {
        return ngx_http_ai_data_load_partial(ld,
                                           "record is longer than 256 KB");
    }

    if (ld->eof) {
        return ngx_http_ai_data_load_partial(ld,
                                   "unexpected end of the file in a record");
    }

    return NGX_AGAIN;
}


/* the parser knows best what is wrong, unless only the end is missing */

static ngx_int_t
ngx_http_ai_data_load_partial(ngx_http_ai_data_loading_t *ld,
    const char *what)
{
    u_char               *p;
    ngx_uint_t            line;
    ngx_http_ai_json_t   *j;

    j = &ld->json;

    ngx_memzero(j, sizeof(ngx_http_ai_json_t));
    j->pool = ld->pool;
    j->nodes = ld->nodes;
    j->nalloc = NGX_HTTP_AI_DATA_NODES;
    j->shallow = 1;

    line = ld->start_line;

    if (ngx_http_ai_json_parse(j, ld->start, ld->pos - ld->start)
        == NGX_DECLINED
        && j->error_offset < (size_t) (ld->pos - ld->start))
    {
        what = j->error;

        for (p = ld->start; p < ld->start + j->error_offset; p++) {
            if (*p == '\n') {
                line++;
            }
        }
    }

    ngx_http_ai_data_load_error(ld, line, "%s", what);

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_ai_data_load_record(ngx_http_ai_data_loading_t *ld)
{
    ngx_int_t            rc;
    ngx_str_t            name, error;
    ngx_http_ai_json_t  *j;

    j = &ld->json;

    ngx_memzero(j, sizeof(ngx_http_ai_json_t));
    j->pool = ld->pool;
    j->nodes = ld->nodes;
    j->nalloc = NGX_HTTP_AI_DATA_NODES;

    ngx_str_null(&name);
    ngx_str_null(&error);

    rc = ngx_http_ai_json_parse(j, ld->start, ld->pos - ld->start);

    if (rc == NGX_DECLINED) {
        return ngx_http_ai_data_load_partial(ld, j->error);
    }

    if (rc == NGX_OK) {
        rc = ld->load.data->def.record(&ld->load, j, &name, &error);
    }

    if (ld->full) {
        return ngx_http_ai_data_load_full(ld);
    }

    switch (rc) {

    case NGX_OK:
        break;

    case NGX_DECLINED:

        if (name.len) {
            ngx_http_ai_data_load_error(ld, ld->start_line,
                                        "record \"%V\": %V", &name, &error);
        } else {
            ngx_http_ai_data_load_error(ld, ld->start_line, "%V", &error);
        }

        return NGX_DECLINED;

    default:
        ngx_http_ai_data_load_error(ld, ld->start_line, "no memory");
        return NGX_ERROR;
    }

    ngx_reset_pool(ld->pool);

    ld->records++;
    ld->step = NGX_HTTP_AI_DATA_BETWEEN;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_data_load_full(ngx_http_ai_data_loading_t *ld)
{
    size_t  done, need;

    /* two halves; what is left of the file will need as much as the rest */

    done = ld->nread - (ld->last - ld->pos);
    need = (size_t) ((double) ld->size * 2 * ld->sign.size / ngx_max(done, 1));
    need = need / (1024 * 1024) + need / (10 * 1024 * 1024) + 1;

    ngx_http_ai_data_load_error(ld, ld->start_line,
        "the zone is full after %uL records: make \"size\" of \"ai_data\" "
        "at least %uzm", ld->records, need);

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_ai_data_load_end(ngx_http_ai_data_loading_t *ld)
{
    ngx_int_t            rc;
    ngx_str_t            error;
    ngx_http_ai_data_t  *data;

    data = ld->load.data;

    if (ld->nread != ld->sign.size || ngx_http_ai_data_load_changed(ld)) {
        return NGX_BUSY;
    }

    if (data->def.done) {
        ngx_str_null(&error);
        rc = data->def.done(&ld->load, &error);

        if (ld->full) {
            return ngx_http_ai_data_load_full(ld);
        }

        if (rc != NGX_OK) {
            ngx_http_ai_data_load_error(ld, 0, "%V", &error);
            return rc;
        }
    }

    ngx_http_ai_data_store_commit(ld);

    return NGX_OK;
}


/* was the file written to since it was looked at? */

static ngx_uint_t
ngx_http_ai_data_load_changed(ngx_http_ai_data_loading_t *ld)
{
    struct stat              st;
    ngx_http_ai_data_sign_t  sign;

    if (fstat(ld->fd, &st) == -1) {
        return 1;
    }

    ngx_http_ai_data_sign(&sign, &st, ld->sign.lines);

    if (st.st_nlink == 0) {

        /*
         * Its name is that of another file now, which is a change of its
         * inode, not of its contents.  One that is replaced all the time
         * would never be loaded else.
         */

        sign.ctime = ld->sign.ctime;
        sign.ctime_nsec = ld->sign.ctime_nsec;
    }

    return !ngx_http_ai_data_alike(&sign, &ld->sign);
}


static void
ngx_http_ai_data_load_error(ngx_http_ai_data_loading_t *ld, ngx_uint_t line,
    const char *fmt, ...)
{
    u_char   *p, *last;
    va_list   args;

    last = ld->error + NGX_HTTP_AI_DATA_ERROR;

    if (line) {
        p = ngx_slprintf(ld->error, last, "%s:%ui: ", ld->path, line);
    } else {
        p = ngx_slprintf(ld->error, last, "%s: ", ld->path);
    }

    va_start(args, fmt);
    p = ngx_vslprintf(p, last, fmt, args);
    va_end(args);

    ld->error_len = p - ld->error;
}


static void
ngx_http_ai_data_sign(ngx_http_ai_data_sign_t *sign, struct stat *st,
    ngx_uint_t lines)
{
    ngx_memzero(sign, sizeof(ngx_http_ai_data_sign_t));

    sign->dev = st->st_dev;
    sign->ino = st->st_ino;
    sign->size = st->st_size;
    sign->mtime = st->st_mtime;
    sign->ctime = st->st_ctime;
    sign->lines = lines;

#if (NGX_DARWIN)
    sign->mtime_nsec = st->st_mtimespec.tv_nsec;
    sign->ctime_nsec = st->st_ctimespec.tv_nsec;
#else
    sign->mtime_nsec = st->st_mtim.tv_nsec;
    sign->ctime_nsec = st->st_ctim.tv_nsec;
#endif
}


void
ngx_http_ai_data_look(ngx_http_ai_data_t *data, ngx_http_ai_data_sign_t *sign)
{
    ngx_err_t    err, errl;
    struct stat  st, stl;

    err = (stat((char *) data->json, &st) == -1) ? ngx_errno : 0;
    errl = (stat((char *) data->jsonl, &stl) == -1) ? ngx_errno : 0;

    if (err == 0) {
        ngx_http_ai_data_sign(sign, &st, 0);
        sign->both = (errl == 0);
        return;
    }

    if (errl == 0) {
        ngx_http_ai_data_sign(sign, &stl, 1);
        return;
    }

    ngx_memzero(sign, sizeof(ngx_http_ai_data_sign_t));

    if (err == NGX_ENOENT || err == NGX_ENOTDIR) {
        sign->err = errl;
        sign->lines = (errl != NGX_ENOENT && errl != NGX_ENOTDIR);

    } else {
        sign->err = err;
    }

    if (sign->err == NGX_ENOTDIR) {
        sign->err = NGX_ENOENT;
    }
}


ngx_uint_t
ngx_http_ai_data_alike(ngx_http_ai_data_sign_t *a, ngx_http_ai_data_sign_t *b)
{
    return a->dev == b->dev
           && a->ino == b->ino
           && a->size == b->size
           && a->mtime == b->mtime
           && a->ctime == b->ctime
           && a->mtime_nsec == b->mtime_nsec
           && a->ctime_nsec == b->ctime_nsec
           && a->err == b->err
           && a->lines == b->lines
           && a->both == b->both;
}


/* us of work of this process, or just of time */

static uint64_t
ngx_http_ai_data_cpu(void)
{
#if defined(CLOCK_PROCESS_CPUTIME_ID)
    struct timespec  ts;

    if (clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts) == 0) {
        return (uint64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
    }
#endif

    return ngx_http_ai_data_clock();
}


uint64_t
ngx_http_ai_data_clock(void)
{
#if (NGX_HAVE_CLOCK_MONOTONIC)
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
#else
    struct timeval  tv;

    ngx_gettimeofday(&tv);

    return (uint64_t) tv.tv_sec * 1000000 + tv.tv_usec;
#endif
}
