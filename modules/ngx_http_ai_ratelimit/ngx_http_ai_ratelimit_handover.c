
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * After a binary upgrade requests of the old processes end when the new ones
 * have read the snapshot.  What they use is written beside it as the
 * difference to what was there, and the new processes add it to theirs.
 */


#include "ngx_http_ai_ratelimit.h"
#include "ngx_http_ai_ratelimit_snapshot.h"


/* clocks of windows and of "now" differ by the time of a call, ms */
#define NGX_HTTP_AI_HANDOVER_SLACK  2000


typedef struct {
    void                       *block;
    ngx_http_ai_limit_store_t  *store;
} ngx_http_ai_scratch_t;


static ngx_int_t ngx_http_ai_scratch_init(ngx_http_ai_scratch_t *s,
    ngx_http_ai_limit_zone_t *zone, ngx_str_t *data, ngx_log_t *log);
static ngx_uint_t ngx_http_ai_handover_diff(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_scratch_t *now, ngx_http_ai_scratch_t *base,
    ngx_http_ai_scratch_t *diff);
static void ngx_http_ai_handover_add(ngx_http_ai_limit_store_t *st,
    ngx_str_t *key, int64_t now, ngx_http_ai_limit_t *limits,
    ngx_http_ai_amounts_t *used);
static void ngx_http_ai_handover_limits(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_limit_state_t *states, int64_t now,
    ngx_http_ai_limit_t *limits);
static ngx_int_t ngx_http_ai_handover_append(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_scratch_t *diff, ngx_log_t *log);
static void ngx_http_ai_handover_merge(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_scratch_t *diff);


static ngx_int_t
ngx_http_ai_scratch_init(ngx_http_ai_scratch_t *s,
    ngx_http_ai_limit_zone_t *zone, ngx_str_t *data, ngx_log_t *log)
{
    s->block = ngx_calloc(zone->sh->size, log);
    if (s->block == NULL) {
        return NGX_ERROR;
    }

    s->store = ngx_http_ai_limit_store_init(s->block, zone->sh->size,
                                            NGX_HTTP_AI_LIMIT_KEY_MAX);
    if (s->store == NULL) {
        return NGX_ERROR;
    }

    (void) ngx_http_ai_limit_enter(s->store);

    if (data == NULL) {
        return NGX_OK;
    }

    return ngx_http_ai_limit_restore(s->store, data->data, data->len);
}


void
ngx_http_ai_handover_missed(ngx_http_ai_limit_zone_t *zone, ngx_log_t *log)
{
    ngx_str_t                       data;
    ngx_uint_t                      i;
    ngx_http_ai_scratch_t           now, base, diff, *all[3];
    ngx_http_ai_snapshot_header_t   h;

    if (ngx_http_ai_snapshot_read(zone, "", &h, &data, log) != NGX_OK) {
        return;
    }

    ngx_memzero(&now, sizeof(ngx_http_ai_scratch_t));
    ngx_memzero(&base, sizeof(ngx_http_ai_scratch_t));
    ngx_memzero(&diff, sizeof(ngx_http_ai_scratch_t));

    if (data.len == zone->loaded.len
        && ngx_memcmp(data.data, zone->loaded.data, data.len) == 0)
    {
        goto done;
    }

    if (ngx_http_ai_scratch_init(&now, zone, &data, log) == NGX_OK
        && ngx_http_ai_scratch_init(&base, zone,
                                    zone->loaded.len ? &zone->loaded : NULL,
                                    log)
           == NGX_OK
        && ngx_http_ai_scratch_init(&diff, zone, NULL, log) == NGX_OK
        && ngx_http_ai_handover_diff(zone, &now, &base, &diff))
    {
        ngx_http_ai_handover_merge(zone, &diff);
    }

done:

    all[0] = &now;
    all[1] = &base;
    all[2] = &diff;

    for (i = 0; i < 3; i++) {
        if (all[i]->block) {
            ngx_free(all[i]->block);
        }
    }

    ngx_free(data.data);
}


ngx_int_t
ngx_http_ai_handover_give(ngx_http_ai_limit_zone_t *zone, ngx_log_t *log)
{
    ngx_int_t                       rc;
    ngx_str_t                       own, prev;
    ngx_uint_t                      i;
    ngx_atomic_uint_t               changes;
    ngx_http_ai_scratch_t           now, base, diff, *all[3];
    ngx_http_ai_snapshot_header_t   h;

    if (zone->sh->changes == zone->sh->saved) {
        return NGX_OK;
    }

    rc = ngx_http_ai_snapshot_read(zone, NGX_HTTP_AI_SNAPSHOT_PREV, &h, &prev,
                                   log);

    if (rc == NGX_OK && h.epoch != zone->sh->epoch) {
        ngx_free(prev.data);
        rc = NGX_DECLINED;
    }

    if (rc != NGX_OK) {
        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "ai ratelimit: zone \"%V\": the snapshot was taken over "
                      "twice, what was used here is not handed on",
                      &zone->name);

        zone->sh->saved = zone->sh->changes;

        return rc;
    }

    own.data = NULL;

    ngx_memzero(&now, sizeof(ngx_http_ai_scratch_t));
    ngx_memzero(&base, sizeof(ngx_http_ai_scratch_t));
    ngx_memzero(&diff, sizeof(ngx_http_ai_scratch_t));

    rc = NGX_ERROR;

    if (ngx_http_ai_snapshot_copy(zone, &own, &changes, log) != NGX_OK
        || ngx_http_ai_scratch_init(&now, zone, &own, log) != NGX_OK
        || ngx_http_ai_scratch_init(&base, zone, &prev, log) != NGX_OK
        || ngx_http_ai_scratch_init(&diff, zone, NULL, log) != NGX_OK)
    {
        goto done;
    }

    if (ngx_http_ai_handover_diff(zone, &now, &base, &diff)
        && ngx_http_ai_handover_append(zone, &diff, log) != NGX_OK)
    {
        goto done;
    }

    rc = ngx_http_ai_snapshot_write(zone, NGX_HTTP_AI_SNAPSHOT_PREV,
                                    zone->sh->epoch, &own, log);

    if (rc == NGX_OK) {
        zone->sh->saved = changes;
    }

done:

    all[0] = &now;
    all[1] = &base;
    all[2] = &diff;

    for (i = 0; i < 3; i++) {
        if (all[i]->block) {
            ngx_free(all[i]->block);
        }
    }

    if (own.data) {
        ngx_free(own.data);
    }

    ngx_free(prev.data);

    return rc;
}


/* how many keys have used something */

static ngx_uint_t
ngx_http_ai_handover_diff(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_scratch_t *now, ngx_http_ai_scratch_t *base,
    ngx_http_ai_scratch_t *diff)
{
    int64_t                     time;
    ngx_str_t                   key;
    ngx_uint_t                  i, n, pos, holds, some;
    ngx_http_ai_limit_t         limits[NGX_HTTP_AI_METER_MAX];
    ngx_http_ai_amounts_t       used;
    ngx_http_ai_limit_state_t   states[NGX_HTTP_AI_METER_MAX];
    ngx_http_ai_limit_state_t   before[NGX_HTTP_AI_METER_MAX];

    time = ngx_http_ai_zone_now();
    pos = 0;
    n = 0;

    while (ngx_http_ai_limit_next(now->store, &pos, &key, time, states,
                                  &holds))
    {
        ngx_http_ai_handover_limits(zone, states, time, limits);
        ngx_http_ai_limit_peek(base->store, &key, time, limits, before);

        ngx_memzero(&used, sizeof(ngx_http_ai_amounts_t));
        some = 0;

        for (i = NGX_HTTP_AI_METER_Q_REQUESTS; i < NGX_HTTP_AI_METER_MAX; i++)
        {
            if (limits[i].limit >= 0 && states[i].used > before[i].used) {
                used.v[i] = states[i].used - before[i].used;
                some = 1;
            }
        }

        if (some) {
            ngx_http_ai_handover_add(diff->store, &key, time, limits, &used);
            n++;
        }
    }

    return n;
}


/* windows that end as those of the states do */

static void
ngx_http_ai_handover_limits(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_limit_state_t *states, int64_t now,
    ngx_http_ai_limit_t *limits)
{
    int64_t                start, end, off;
    ngx_uint_t             i, unit, first;
    ngx_http_ai_amount_t  *amount;

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {

        ngx_memzero(&limits[i], sizeof(ngx_http_ai_limit_t));
        limits[i].limit = -1;

        if (i < NGX_HTTP_AI_METER_Q_REQUESTS || states[i].used <= 0) {
            continue;
        }

        amount = &zone->amounts[i];

        for (unit = NGX_HTTP_AI_WINDOW_MINUTE;
             unit <= NGX_HTTP_AI_WINDOW_MONTH;
             unit++)
        {
            first = (unit == NGX_HTTP_AI_WINDOW_WEEK) ? zone->week
                                                      : zone->month;

            ngx_http_ai_window(zone->tz, unit, first ? first : 1, now,
                               &start, &end);

            off = now + states[i].reset - end;

            if (amount->set && amount->value == NULL) {

                /* the state of one in debt tells another time */

                if (amount->rate.unit != (ngx_int_t) unit) {
                    continue;
                }

            } else if (off < -NGX_HTTP_AI_HANDOVER_SLACK
                       || off > NGX_HTTP_AI_HANDOVER_SLACK)
            {
                continue;
            }

            limits[i].limit = NGX_HTTP_AI_LIMIT_MOST;
            limits[i].start = start;
            limits[i].end = end;

            break;
        }
    }
}


static void
ngx_http_ai_handover_add(ngx_http_ai_limit_store_t *st, ngx_str_t *key,
    int64_t now, ngx_http_ai_limit_t *limits, ngx_http_ai_amounts_t *used)
{
    u_char                        id[16];
    ngx_http_ai_hold_t            hold;
    ngx_http_ai_amounts_t         none;
    ngx_http_ai_limit_refusal_t   refusal;

    ngx_http_ai_zone_id(id);
    ngx_memzero(&none, sizeof(ngx_http_ai_amounts_t));
    hold.key = 0;

    if (ngx_http_ai_limit_reserve(st, key, id, ngx_http_ai_zone_owner(), now,
                                  now + 60000, limits, &none, &hold, &refusal)
        == NGX_HTTP_AI_LIMIT_OK)
    {
        (void) ngx_http_ai_limit_settle(st, &hold, id, now, used);
    }
}


static ngx_int_t
ngx_http_ai_handover_append(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_scratch_t *diff, ngx_log_t *log)
{
    u_char                          name[NGX_MAX_PATH], *buf;
    size_t                          size, len;
    ngx_fd_t                        fd;
    ngx_int_t                       rc;
    ngx_http_ai_snapshot_header_t   h;

    size = ngx_http_ai_limit_snapshot_size(diff->store);

    buf = ngx_alloc(sizeof(h) + size, log);
    if (buf == NULL) {
        return NGX_ERROR;
    }

    len = ngx_http_ai_limit_snapshot(diff->store, buf + sizeof(h), size);

    ngx_memzero(&h, sizeof(ngx_http_ai_snapshot_header_t));
    ngx_memcpy(h.magic, NGX_HTTP_AI_SNAPSHOT_MAGIC, 8);
    h.epoch = zone->sh->epoch;
    h.len = len;
    h.crc = ngx_crc32_long(buf + sizeof(h), len);
    ngx_memcpy(buf, &h, sizeof(h));

    (void) ngx_snprintf(name, sizeof(name), "%V%s%Z", &zone->snapshot,
                        NGX_HTTP_AI_SNAPSHOT_HANDOVER);

    fd = ngx_open_file(name, NGX_FILE_APPEND, NGX_FILE_CREATE_OR_OPEN, 0600);

    rc = NGX_ERROR;

    if (fd != NGX_INVALID_FILE) {

        if (ngx_write_fd(fd, buf, sizeof(h) + len)
            == (ssize_t) (sizeof(h) + len))
        {
            rc = NGX_OK;
        }

        (void) ngx_close_file(fd);
    }

    if (rc != NGX_OK) {
        ngx_log_error(NGX_LOG_ERR, log, ngx_errno,
                      "ai ratelimit: \"%s\" cannot be written", name);
    }

    ngx_free(buf);

    return rc;
}


void
ngx_http_ai_handover_take(ngx_http_ai_limit_zone_t *zone, ngx_log_t *log)
{
    u_char                          name[NGX_MAX_PATH];
    ssize_t                         n;
    ngx_fd_t                        fd;
    ngx_str_t                       data;
    ngx_http_ai_scratch_t           diff;
    ngx_http_ai_snapshot_header_t   h;

    (void) ngx_snprintf(name, sizeof(name), "%V%s%Z", &zone->snapshot,
                        NGX_HTTP_AI_SNAPSHOT_HANDOVER);

    fd = ngx_open_file(name, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE) {
        return;
    }

    for ( ;; ) {
        n = ngx_read_fd(fd, (u_char *) &h, sizeof(h));

        if (n != (ssize_t) sizeof(h)
            || ngx_memcmp(h.magic, NGX_HTTP_AI_SNAPSHOT_MAGIC, 8) != 0
            || h.len > 2 * (uint64_t) zone->shm_zone->shm.size)
        {
            break;
        }

        data.len = h.len;
        data.data = ngx_alloc(ngx_max(data.len, 1), log);
        if (data.data == NULL) {
            break;
        }

        n = ngx_read_fd(fd, data.data, data.len);

        if (n != (ssize_t) data.len
            || ngx_crc32_long(data.data, data.len) != h.crc)
        {
            ngx_free(data.data);
            break;
        }

        ngx_memzero(&diff, sizeof(ngx_http_ai_scratch_t));

        if (h.epoch != zone->sh->epoch
            && ngx_http_ai_scratch_init(&diff, zone, &data, log) == NGX_OK)
        {
            ngx_http_ai_handover_merge(zone, &diff);
        }

        if (diff.block) {
            ngx_free(diff.block);
        }

        ngx_free(data.data);
    }

    (void) ngx_close_file(fd);

    if (ngx_delete_file(name) == NGX_FILE_ERROR) {
        ngx_log_error(NGX_LOG_ERR, log, ngx_errno,
                      ngx_delete_file_n " \"%s\" failed", name);
    }
}


static void
ngx_http_ai_handover_merge(ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_scratch_t *diff)
{
    int64_t                     now;
    ngx_str_t                   key;
    ngx_uint_t                  i, pos, holds;
    ngx_http_ai_limit_t         limits[NGX_HTTP_AI_METER_MAX];
    ngx_http_ai_amounts_t       used;
    ngx_http_ai_limit_state_t   states[NGX_HTTP_AI_METER_MAX];

    now = ngx_http_ai_zone_now();
    pos = 0;

    while (ngx_http_ai_limit_next(diff->store, &pos, &key, now, states,
                                  &holds))
    {
        ngx_http_ai_handover_limits(zone, states, now, limits);

        for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
            used.v[i] = (limits[i].limit >= 0) ? states[i].used : 0;
        }

        ngx_http_ai_zone_lock(zone);

        ngx_http_ai_handover_add(zone->store, &key, now, limits, &used);
        zone->sh->changes++;

        ngx_http_ai_zone_unlock(zone);
    }
}
