
/*
 * Copyright (C) nginx AI gateway authors
 */


/* records of switches.json, and a worker's list of them */


#include "ngx_http_ai_ratelimit_switch.h"
#include "ngx_http_ai_near.h"
#include "ngx_http_ai_time.h"


/* each request looks at all of them */
#define NGX_HTTP_AI_SWITCHES_MAX      1024
#define NGX_HTTP_AI_SWITCH_TEXT_MAX   1024
#define NGX_HTTP_AI_SWITCH_TEXTS      4
#define NGX_HTTP_AI_SWITCH_TIME_MAX   100000000000


typedef struct {
    ngx_http_ai_json_t                 *j;
    ngx_pool_t                         *pool;
    ngx_http_ai_ratelimit_main_conf_t  *rmcf;
    ngx_http_ai_switch_t                sw;
    ngx_uint_t                          seen;
    ngx_uint_t                          raise;    /* its node */
    ngx_str_t                          *error;
} ngx_http_ai_switch_record_t;


enum {
    NGX_HTTP_AI_SWITCH_SCOPE = 0,
    NGX_HTTP_AI_SWITCH_NAME,
    NGX_HTTP_AI_SWITCH_ACTION,
    NGX_HTTP_AI_SWITCH_TEXT,
    NGX_HTTP_AI_SWITCH_MODEL,
    NGX_HTTP_AI_SWITCH_UNTIL,
    NGX_HTTP_AI_SWITCH_STATUS,
    NGX_HTTP_AI_SWITCH_KEY,
    NGX_HTTP_AI_SWITCH_RAISE,
    NGX_HTTP_AI_SWITCH_COMMENT,
    NGX_HTTP_AI_SWITCH_MEMBERS
};


static ngx_int_t ngx_http_ai_switch_record(ngx_http_ai_data_load_t *load,
    ngx_http_ai_json_t *j, ngx_str_t *name, ngx_str_t *error);
static ngx_int_t ngx_http_ai_switch_member(ngx_http_ai_switch_record_t *rec,
    ngx_uint_t k, ngx_uint_t node);
static ngx_int_t ngx_http_ai_switch_check(ngx_http_ai_switch_record_t *rec);
static ngx_int_t ngx_http_ai_switch_raise(ngx_http_ai_switch_record_t *rec);
static ngx_int_t ngx_http_ai_switch_word(ngx_http_ai_switch_record_t *rec,
    ngx_str_t *word, ngx_str_t *names, ngx_uint_t n, const char *what,
    ngx_uint_t *value);
static ngx_int_t ngx_http_ai_switch_error(ngx_http_ai_switch_record_t *rec,
    const char *fmt, ...);
static ngx_int_t ngx_http_ai_switch_read(void *ctx, ngx_str_t *blob);
static int ngx_libc_cdecl ngx_http_ai_switch_order(const void *one,
    const void *two);


ngx_str_t  ngx_http_ai_scope_names[] = {
    ngx_string("all"),
    ngx_string("tenant"),
    ngx_string("key"),
    ngx_string("provider"),
    ngx_string("model"),
    ngx_string("feature"),
    ngx_string("zone")
};


ngx_str_t  ngx_http_ai_action_names[] = {
    ngx_string("deny"),
    ngx_string("drain"),
    ngx_string("cut"),
    ngx_string("reroute")
};


static ngx_str_t  ngx_http_ai_feature_names[] = {
    ngx_string("stream"),
    ngx_string("tools"),
    ngx_string("images"),
    ngx_string("audio"),
    ngx_string("chat"),
    ngx_string("completions"),
    ngx_string("embeddings"),
    ngx_string("count_tokens"),
    ngx_string("models"),
    ngx_string("passthrough")
};


static ngx_str_t  ngx_http_ai_switch_members[] = {
    ngx_string("scope"),
    ngx_string("name"),
    ngx_string("action"),
    ngx_string("text"),
    ngx_string("model"),
    ngx_string("until"),
    ngx_string("status"),
    ngx_string("key"),
    ngx_string("raise"),
    ngx_string("comment")
};


ngx_int_t
ngx_http_ai_switches_init(ngx_conf_t *cf,
    ngx_http_ai_ratelimit_main_conf_t *rmcf)
{
    ngx_http_ai_data_def_t  def;

    if (!rmcf->api->data_enabled(cf)) {
        return NGX_OK;
    }

    ngx_memzero(&def, sizeof(ngx_http_ai_data_def_t));

    ngx_str_set(&def.name, "switches");
    ngx_str_set(&def.create, "aigw switch on");
    def.size = 4 * 1024 * 1024;
    def.conf = rmcf;
    def.record = ngx_http_ai_switch_record;

    rmcf->switch_data = rmcf->api->data_register(cf, &def);

    return rmcf->switch_data ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_http_ai_switch_record(ngx_http_ai_data_load_t *load, ngx_http_ai_json_t *j,
    ngx_str_t *name, ngx_str_t *error)
{
    u_char                       *p;
    ngx_int_t                     rc;
    ngx_str_t                     blob, key, member, near;
    ngx_uint_t                    i, k, dup, *count;
    ngx_http_ai_switch_t         *sw;
    ngx_http_ai_switch_record_t   rec;

    ngx_memzero(&rec, sizeof(ngx_http_ai_switch_record_t));

    rec.j = j;
    rec.pool = j->pool;
    rec.rmcf = load->conf;
    rec.error = error;

    sw = &rec.sw;

    for (i = 0; i < NGX_HTTP_AI_METER_MAX; i++) {
        sw->raise[i].n = -1;
    }

    for (i = ngx_http_ai_json_first(j, 0);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, 0, i))
    {
        for (k = 0; k < NGX_HTTP_AI_SWITCH_MEMBERS; k++) {
            if (ngx_http_ai_json_key_eq(j, i,
                              (char *) ngx_http_ai_switch_members[k].data,
                              ngx_http_ai_switch_members[k].len))
            {
                break;
            }
        }

        if (k == NGX_HTTP_AI_SWITCH_MEMBERS) {
            member = ngx_http_ai_json_raw(j, i);
            near = ngx_http_ai_near_text(rec.pool, &member,
                                         ngx_http_ai_switch_members,
                                         NGX_HTTP_AI_SWITCH_MEMBERS);

            return ngx_http_ai_switch_error(&rec, "unknown member \"%V\"%V",
                                            &member, &near);
        }

        if (rec.seen & ((ngx_uint_t) 1 << k)) {
            return ngx_http_ai_switch_error(&rec, "duplicate member \"%V\"",
                                            &ngx_http_ai_switch_members[k]);
        }

        rec.seen |= (ngx_uint_t) 1 << k;

        rc = ngx_http_ai_switch_member(&rec, k, i + 1);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    *name = sw->name;

    rc = ngx_http_ai_switch_check(&rec);

    if (rc != NGX_OK) {
        return rc;
    }

    if (load->state == NULL) {
        load->state = ngx_pcalloc(load->pool, sizeof(ngx_uint_t));
        if (load->state == NULL) {
            return NGX_ERROR;
        }
    }

    count = load->state;

    if (++(*count) > NGX_HTTP_AI_SWITCHES_MAX) {
        return ngx_http_ai_switch_error(&rec, "there are more than %d "
                                        "switches", NGX_HTTP_AI_SWITCHES_MAX);
    }

    key.len = 2 + sw->name.len + sw->key.len;
    blob.len = sizeof(ngx_http_ai_switch_t) + sw->name.len + sw->key.len
               + sw->text.len + sw->model.len;

    key.data = ngx_pnalloc(rec.pool, key.len);
    blob.data = ngx_pnalloc(rec.pool, blob.len);

    if (key.data == NULL || blob.data == NULL) {
        return NGX_ERROR;
    }

    p = key.data;
    *p++ = (u_char) ('a' + sw->scope);
    p = ngx_cpymem(p, sw->name.data, sw->name.len);
    *p++ = '\0';
    ngx_memcpy(p, sw->key.data, sw->key.len);

    p = ngx_cpymem(blob.data, sw, sizeof(ngx_http_ai_switch_t));
    p = ngx_cpymem(p, sw->name.data, sw->name.len);
    p = ngx_cpymem(p, sw->key.data, sw->key.len);
    p = ngx_cpymem(p, sw->text.data, sw->text.len);
    ngx_memcpy(p, sw->model.data, sw->model.len);

    rc = rec.rmcf->api->data_add(load, &blob, &key, 1, &dup);

    if (rc == NGX_DECLINED) {
        return ngx_http_ai_switch_error(&rec, "this \"scope\" and \"name\" "
                                        "are there twice");
    }

    return rc;
}


static ngx_int_t
ngx_http_ai_switch_member(ngx_http_ai_switch_record_t *rec, ngx_uint_t k,
    ngx_uint_t node)
{
    int64_t                n;
    ngx_str_t              raw, *member, *text, word;
    ngx_uint_t             type;
    ngx_http_ai_switch_t  *sw;

    sw = &rec->sw;
    member = &ngx_http_ai_switch_members[k];
    type = ngx_http_ai_json_type(rec->j, node);
    raw = ngx_http_ai_json_raw(rec->j, node);

    switch (k) {

    case NGX_HTTP_AI_SWITCH_COMMENT:
        return NGX_OK;

    case NGX_HTTP_AI_SWITCH_RAISE:

        if (type != NGX_HTTP_AI_JSON_OBJECT) {
            return ngx_http_ai_switch_error(rec, "\"raise\" must be an "
                                            "object");
        }

        rec->raise = node;
        return NGX_OK;

    case NGX_HTTP_AI_SWITCH_STATUS:

        if (type != NGX_HTTP_AI_JSON_NUMBER
            || ngx_http_ai_json_int(rec->j, node, &n) != NGX_OK
            || n < 400 || n > 599)
        {
            return ngx_http_ai_switch_error(rec, "\"status\" must be a number "
                                            "from 400 to 599");
        }

        sw->status = (ngx_uint_t) n;
        return NGX_OK;

    case NGX_HTTP_AI_SWITCH_UNTIL:

        if (type == NGX_HTTP_AI_JSON_STRING
            && ngx_http_ai_rfc3339(&raw, &sw->until) == NGX_OK)
        {
            return NGX_OK;
        }

        if (type == NGX_HTTP_AI_JSON_NUMBER
            && ngx_http_ai_json_int(rec->j, node, &sw->until) == NGX_OK
            && sw->until > 0 && sw->until < NGX_HTTP_AI_SWITCH_TIME_MAX)
        {
            return NGX_OK;
        }

        return ngx_http_ai_switch_error(rec, "\"until\" must be a time like "
                                        "\"2027-01-31T00:00:00Z\", or a "
                                        "number of seconds since 1970");
    }

    if (type != NGX_HTTP_AI_JSON_STRING) {
        return ngx_http_ai_switch_error(rec, "\"%V\" must be a string",
                                        member);
    }

    if (ngx_http_ai_json_unescape_str(rec->pool, &raw, &word) != NGX_OK) {
        return NGX_ERROR;
    }

    if (word.len > NGX_HTTP_AI_SWITCH_TEXT_MAX) {
        return ngx_http_ai_switch_error(rec, "\"%V\" is longer than %d bytes",
                                        member, NGX_HTTP_AI_SWITCH_TEXT_MAX);
    }

    switch (k) {

    case NGX_HTTP_AI_SWITCH_SCOPE:
        return ngx_http_ai_switch_word(rec, &word, ngx_http_ai_scope_names,
                                       NGX_HTTP_AI_SCOPE_MAX, "scope",
                                       &sw->scope);

    case NGX_HTTP_AI_SWITCH_ACTION:
        return ngx_http_ai_switch_word(rec, &word, ngx_http_ai_action_names,
                                       NGX_HTTP_AI_ACTION_MAX, "action",
                                       &sw->action);

    case NGX_HTTP_AI_SWITCH_NAME:
        text = &sw->name;
        break;

    case NGX_HTTP_AI_SWITCH_KEY:
        text = &sw->key;
        break;

    case NGX_HTTP_AI_SWITCH_TEXT:
        text = &sw->text;
        break;

    default: /* NGX_HTTP_AI_SWITCH_MODEL */
        text = &sw->model;
    }

    if (word.len == 0) {
        return ngx_http_ai_switch_error(rec, "\"%V\" is empty", member);
    }

    *text = word;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_switch_check(ngx_http_ai_switch_record_t *rec)
{
    ngx_uint_t             i, not;
    ngx_http_ai_switch_t  *sw;

#define ngx_http_ai_switch_bit(m)                                             \
    ((ngx_uint_t) 1 << NGX_HTTP_AI_SWITCH_##m)

    sw = &rec->sw;

    if (!(rec->seen & ngx_http_ai_switch_bit(SCOPE))) {
        return ngx_http_ai_switch_error(rec, "no \"scope\"");
    }

    if (sw->scope == NGX_HTTP_AI_SCOPE_ALL) {
        not = ngx_http_ai_switch_bit(NAME);

    } else {
        not = 0;

        if (sw->name.len == 0) {
            return ngx_http_ai_switch_error(rec, "no \"name\"");
        }
    }

    if (sw->scope == NGX_HTTP_AI_SCOPE_ZONE) {

        if (!(rec->seen & ngx_http_ai_switch_bit(RAISE))) {
            return ngx_http_ai_switch_error(rec, "no \"raise\"");
        }

        if (sw->key.len == 0) {
            return ngx_http_ai_switch_error(rec, "no \"key\"");
        }

        not |= ngx_http_ai_switch_bit(ACTION)|ngx_http_ai_switch_bit(TEXT)
               |ngx_http_ai_switch_bit(MODEL)|ngx_http_ai_switch_bit(STATUS);

    } else {

        if (!(rec->seen & ngx_http_ai_switch_bit(ACTION))) {
            return ngx_http_ai_switch_error(rec, "no \"action\"");
        }

        not |= ngx_http_ai_switch_bit(KEY)|ngx_http_ai_switch_bit(RAISE);

        if (sw->action == NGX_HTTP_AI_ACTION_REROUTE) {

            if (sw->model.len == 0) {
                return ngx_http_ai_switch_error(rec, "no \"model\" to reroute "
                                                "to");
            }

            if (sw->scope == NGX_HTTP_AI_SCOPE_PROVIDER) {
                return ngx_http_ai_switch_error(rec, "a provider is not "
                            "rerouted: fallbacks serve where it is denied");
            }

            not |= ngx_http_ai_switch_bit(TEXT)|ngx_http_ai_switch_bit(STATUS);

        } else {
            not |= ngx_http_ai_switch_bit(MODEL);
        }
    }

    for (i = 0; i < NGX_HTTP_AI_SWITCH_MEMBERS; i++) {
        if (rec->seen & not & ((ngx_uint_t) 1 << i)) {
            return ngx_http_ai_switch_error(rec, "\"%V\" is of no use here",
                                            &ngx_http_ai_switch_members[i]);
        }
    }

    if (sw->scope == NGX_HTTP_AI_SCOPE_FEATURE) {
        return ngx_http_ai_switch_word(rec, &sw->name,
                                       ngx_http_ai_feature_names,
                                       NGX_HTTP_AI_FEATURE_MAX, "feature",
                                       &sw->feature);
    }

    if (sw->scope == NGX_HTTP_AI_SCOPE_ZONE) {
        return ngx_http_ai_switch_raise(rec);
    }

    return NGX_OK;
}


/* {"usd":"1000/month"}: limits instead of the zone's, where they are larger */

static ngx_int_t
ngx_http_ai_switch_raise(ngx_http_ai_switch_record_t *rec)
{
    ngx_str_t                  names[NGX_HTTP_AI_METER_MAX], value, member,
                               near;
    ngx_uint_t                 i, n, type;
    const char                *error;
    ngx_http_ai_json_t        *j;
    ngx_http_ai_amount_t      *amount;
    ngx_http_ai_quantity_t    *raise;
    ngx_http_ai_limit_zone_t  *zone, **zones;
    ngx_http_ai_meter_name_t  *m;

    j = rec->j;
    zone = ngx_http_ai_limit_zone_find(rec->rmcf, &rec->sw.name);

    if (zone == NULL) {
        zones = rec->rmcf->zones.elts;

        for (i = 0, n = 0;
             i < rec->rmcf->zones.nelts && n < NGX_HTTP_AI_METER_MAX;
             i++)
        {
            names[n++] = zones[i]->name;
        }

        near = ngx_http_ai_near_text(rec->pool, &rec->sw.name, names, n);

        return ngx_http_ai_switch_error(rec, "unknown zone \"%V\"%V",
                                        &rec->sw.name, &near);
    }

    for (i = ngx_http_ai_json_first(j, rec->raise);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, rec->raise, i))
    {
        n = 0;

        for (m = ngx_http_ai_meter_names(zone->kind); m->name.len; m++) {
            names[n++] = m->name;

            if (ngx_http_ai_json_key_eq(j, i, (char *) m->name.data,
                                        m->name.len))
            {
                break;
            }
        }

        if (m->name.len == 0) {
            member = ngx_http_ai_json_raw(j, i);
            near = ngx_http_ai_near_text(rec->pool, &member, names, n);

            return ngx_http_ai_switch_error(rec, "unknown limit \"%V\" in "
                                            "\"raise\"%V", &member, &near);
        }

        amount = &zone->amounts[m->meter];
        raise = &rec->sw.raise[m->meter];

        if (!amount->set) {
            return ngx_http_ai_switch_error(rec, "zone \"%V\" does not limit "
                                            "\"%V\"", &zone->name, &m->name);
        }

        type = ngx_http_ai_json_type(j, i + 1);
        value = ngx_http_ai_json_raw(j, i + 1);

        if (type != NGX_HTTP_AI_JSON_STRING && type != NGX_HTTP_AI_JSON_NUMBER)
        {
            return ngx_http_ai_switch_error(rec, "\"%V\" must be a string "
                                            "such as \"60r/m\"", &m->name);
        }

        raise->unit = amount->value ? NGX_ERROR : amount->rate.unit;

        error = ngx_http_ai_quantity_parse(&value, m->meter, raise);

        if (error == NULL && raise->n < 0) {
            error = "it is empty";
        }

        if (error == NULL && amount->value == NULL
            && m->meter != NGX_HTTP_AI_METER_CONCURRENT
            && raise->unit != amount->rate.unit)
        {
            error = "its unit of time is not that of the zone";
        }

        if (error) {
            return ngx_http_ai_switch_error(rec, "\"%V\" is \"%V\": %s",
                                            &m->name, &value, error);
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_switch_word(ngx_http_ai_switch_record_t *rec, ngx_str_t *word,
    ngx_str_t *names, ngx_uint_t n, const char *what, ngx_uint_t *value)
{
    ngx_str_t   near;
    ngx_uint_t  i;

    for (i = 0; i < n; i++) {
        if (names[i].len == word->len
            && ngx_strncmp(names[i].data, word->data, word->len) == 0)
        {
            *value = i;
            return NGX_OK;
        }
    }

    near = ngx_http_ai_near_text(rec->pool, word, names, n);

    return ngx_http_ai_switch_error(rec, "unknown %s \"%V\"%V", what, word,
                                    &near);
}


static ngx_int_t
ngx_http_ai_switch_error(ngx_http_ai_switch_record_t *rec, const char *fmt,
    ...)
{
    u_char   buf[512], *p;
    va_list  args;

    va_start(args, fmt);
    p = ngx_vslprintf(buf, buf + sizeof(buf), fmt, args);
    va_end(args);

    rec->error->data = ngx_pnalloc(rec->pool, p - buf);
    if (rec->error->data == NULL) {
        return NGX_ERROR;
    }

    rec->error->len = p - buf;
    ngx_memcpy(rec->error->data, buf, p - buf);

    return NGX_DECLINED;
}


ngx_http_ai_switches_t *
ngx_http_ai_switches_current(ngx_http_ai_ratelimit_main_conf_t *rmcf)
{
    uint64_t                 generation;
    ngx_int_t                rc;
    ngx_uint_t               i;
    ngx_pool_t              *pool, *temp;
    ngx_http_ai_switch_t    *sw;
    ngx_http_ai_switches_t  *switches;

    generation = rmcf->api->data_generation(rmcf->switch_data);
    switches = rmcf->switches;

    if (switches && switches->generation == generation) {
        return switches;
    }

    pool = ngx_create_pool(4096, ngx_cycle->log);
    if (pool == NULL) {
        return NULL;
    }

    temp = NULL;
    switches = ngx_pcalloc(pool, sizeof(ngx_http_ai_switches_t));

    if (switches == NULL
        || ngx_array_init(&switches->list, pool, 4,
                          sizeof(ngx_http_ai_switch_t))
           != NGX_OK)
    {
        goto failed;
    }

    switches->generation = generation;
    switches->pool = pool;

    temp = ngx_create_pool(4096, ngx_cycle->log);
    if (temp == NULL) {
        goto failed;
    }

    rc = rmcf->api->data_walk(rmcf->switch_data, temp,
                              ngx_http_ai_switch_read, switches);
    if (rc != NGX_OK) {
        goto failed;
    }

    ngx_destroy_pool(temp);

    sw = switches->list.elts;

    ngx_qsort(sw, switches->list.nelts, sizeof(ngx_http_ai_switch_t),
              ngx_http_ai_switch_order);

    for (i = 0; i < switches->list.nelts; i++) {
        switches->scopes |= (ngx_uint_t) 1 << sw[i].scope;
    }

    if (rmcf->switches) {
        ngx_destroy_pool(rmcf->switches->pool);
    }

    rmcf->switches = switches;

    return switches;

failed:

    if (temp) {
        ngx_destroy_pool(temp);
    }

    ngx_destroy_pool(pool);

    return NULL;
}


static ngx_int_t
ngx_http_ai_switch_read(void *ctx, ngx_str_t *blob)
{
    ngx_http_ai_switches_t *switches = ctx;

    u_char                *p;
    size_t                 left;
    ngx_str_t             *texts[NGX_HTTP_AI_SWITCH_TEXTS];
    ngx_uint_t             i;
    ngx_http_ai_switch_t  *sw;

    if (blob->len < sizeof(ngx_http_ai_switch_t)) {
        return NGX_ERROR;
    }

    sw = ngx_array_push(&switches->list);
    if (sw == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(sw, blob->data, sizeof(ngx_http_ai_switch_t));

    left = blob->len - sizeof(ngx_http_ai_switch_t);

    p = ngx_pnalloc(switches->pool, left + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(p, blob->data + sizeof(ngx_http_ai_switch_t), left);

    texts[0] = &sw->name;
    texts[1] = &sw->key;
    texts[2] = &sw->text;
    texts[3] = &sw->model;

    for (i = 0; i < NGX_HTTP_AI_SWITCH_TEXTS; i++) {

        if (texts[i]->len > left) {
            return NGX_ERROR;
        }

        texts[i]->data = p;
        p += texts[i]->len;
        left -= texts[i]->len;
    }

    return NGX_OK;
}


static int ngx_libc_cdecl
ngx_http_ai_switch_order(const void *one, const void *two)
{
    const ngx_http_ai_switch_t  *first, *second;

    first = one;
    second = two;

    return (first->scope > second->scope) - (first->scope < second->scope);
}
