
/*
 * Copyright (C) nginx AI gateway authors
 */


/* zones of limits and quotas, and where they apply: what is written */


#include "ngx_http_ai_ratelimit.h"
#include "ngx_http_ai_near.h"


#define NGX_HTTP_AI_ZONE_SIZE      (10 * 1024 * 1024)
#define NGX_HTTP_AI_ZONE_MIN       (128 * 1024)
#define NGX_HTTP_AI_ZONE_NAME_MAX  64


static char *ngx_http_ai_zone_param(ngx_conf_t *cf,
    ngx_http_ai_limit_zone_t *zone, ngx_str_t *name, ngx_str_t *s);
static char *ngx_http_ai_zone_shm(ngx_conf_t *cf,
    ngx_http_ai_ratelimit_main_conf_t *rmcf, ngx_http_ai_limit_zone_t *zone,
    ngx_str_t *s);
static char *ngx_http_ai_zone_amount(ngx_conf_t *cf,
    ngx_http_ai_limit_zone_t *zone, ngx_http_ai_meter_name_t *meter,
    ngx_str_t *s);
static char *ngx_http_ai_zone_alerts(ngx_conf_t *cf,
    ngx_http_ai_limit_zone_t *zone, ngx_str_t *s);
static char *ngx_http_ai_zone_first(ngx_conf_t *cf,
    ngx_http_ai_limit_zone_t *zone, ngx_str_t *s);
static char *ngx_http_ai_zone_alone(ngx_conf_t *cf,
    ngx_http_ai_limit_zone_t *zone);
static char *ngx_http_ai_zone_unknown(ngx_conf_t *cf,
    ngx_http_ai_limit_zone_t *zone, ngx_str_t *param);
static ngx_int_t ngx_http_ai_limit_resolve_use(ngx_conf_t *cf,
    ngx_http_ai_ratelimit_main_conf_t *rmcf, ngx_http_ai_limit_use_t *use);


static ngx_http_ai_meter_name_t  ngx_http_ai_limit_meters[] = {
    { ngx_string("requests"), NGX_HTTP_AI_METER_REQUESTS, 0 },
    { ngx_string("tokens"), NGX_HTTP_AI_METER_TOKENS, 0 },
    { ngx_string("input_tokens"), NGX_HTTP_AI_METER_INPUT, 0 },
    { ngx_string("output_tokens"), NGX_HTTP_AI_METER_OUTPUT, 0 },
    { ngx_string("concurrent"), NGX_HTTP_AI_METER_CONCURRENT, 0 },
    { ngx_null_string, 0, 0 }
};


static ngx_http_ai_meter_name_t  ngx_http_ai_quota_meters[] = {
    { ngx_string("requests"), NGX_HTTP_AI_METER_Q_REQUESTS, 0 },
    { ngx_string("tokens"), NGX_HTTP_AI_METER_Q_TOKENS, 0 },
    { ngx_string("usd"), NGX_HTTP_AI_METER_Q_MONEY, 1 },
    { ngx_null_string, 0, 0 }
};


static ngx_str_t  ngx_http_ai_weekdays[] = {
    ngx_string("mon"), ngx_string("tue"), ngx_string("wed"),
    ngx_string("thu"), ngx_string("fri"), ngx_string("sat"),
    ngx_string("sun"), ngx_null_string
};


ngx_http_ai_meter_name_t *
ngx_http_ai_meter_names(ngx_http_ai_zone_kind_e kind)
{
    return (kind == NGX_HTTP_AI_ZONE_LIMIT) ? ngx_http_ai_limit_meters
                                            : ngx_http_ai_quota_meters;
}


ngx_str_t *
ngx_http_ai_meter_name(ngx_uint_t meter)
{
    ngx_http_ai_meter_name_t  *m;

    m = (meter < NGX_HTTP_AI_METER_Q_REQUESTS) ? ngx_http_ai_limit_meters
                                               : ngx_http_ai_quota_meters;

    while (m->name.len && m->meter != meter) {
        m++;
    }

    return &m->name;
}


const char *
ngx_http_ai_unit_name(ngx_http_ai_window_e unit)
{
    return ngx_http_ai_quantity_unit(unit);
}


/*
 * rate->unit is the one that counts when none is written; NGX_ERROR as such
 * demands one
 */

const char *
ngx_http_ai_quantity_parse(ngx_str_t *text, ngx_http_ai_meter_e meter,
    ngx_http_ai_quantity_t *rate)
{
    int          unit;
    const char  *error;

    static ngx_http_ai_quantity_e  kinds[] = {
        NGX_HTTP_AI_QUANTITY_REQUESTS,
        NGX_HTTP_AI_QUANTITY_TOKENS,
        NGX_HTTP_AI_QUANTITY_TOKENS,
        NGX_HTTP_AI_QUANTITY_TOKENS,
        NGX_HTTP_AI_QUANTITY_SLOTS,
        NGX_HTTP_AI_QUANTITY_Q_REQUESTS,
        NGX_HTTP_AI_QUANTITY_Q_TOKENS,
        NGX_HTTP_AI_QUANTITY_Q_MONEY
    };

    unit = (rate->unit == NGX_ERROR) ? NGX_HTTP_AI_QUANTITY_NONE
                                     : (int) rate->unit;

    error = ngx_http_ai_quantity_read(text->data, text->len, kinds[meter],
                                      &rate->n, &unit);

    rate->unit = (unit == NGX_HTTP_AI_QUANTITY_NONE) ? NGX_ERROR : unit;

    return error;
}


char *
ngx_http_ai_limit_zone_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_ai_ratelimit_main_conf_t *rmcf = conf;

    char                               *rv;
    u_char                             *p;
    ngx_str_t                          *value, name, s;
    ngx_uint_t                          i;
    ngx_http_ai_limit_zone_t           *zone, **z;
    ngx_http_compile_complex_value_t    ccv;

    value = cf->args->elts;

    zone = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_limit_zone_t));
    if (zone == NULL) {
        return NGX_CONF_ERROR;
    }

    zone->kind = (ngx_strcmp(cmd->name.data, "ai_limit_zone") == 0)
                 ? NGX_HTTP_AI_ZONE_LIMIT : NGX_HTTP_AI_ZONE_QUOTA;
    zone->key_text = value[1];
    zone->file = cf->conf_file->file.name.data;
    zone->line = cf->conf_file->line;

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = &value[1];
    ccv.complex_value = &zone->key;

    if (ngx_http_compile_complex_value(&ccv) != NGX_OK
        || ngx_http_ai_zone_key(cf, zone) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    /* the name first: messages about the others have it */

    for (i = 2; i < cf->args->nelts; i++) {
        if (value[i].len > 5 && ngx_strncmp(value[i].data, "zone=", 5) == 0) {
            s.data = value[i].data + 5;
            s.len = value[i].len - 5;

            if (zone->shm_zone) {
                return "has \"zone\" twice";
            }

            rv = ngx_http_ai_zone_shm(cf, rmcf, zone, &s);

            if (rv != NGX_CONF_OK) {
                return rv;
            }
        }
    }

    if (zone->shm_zone == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" has no \"zone=\" parameter", &cmd->name);
        return NGX_CONF_ERROR;
    }

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_strncmp(value[i].data, "zone=", 5) == 0) {
            continue;
        }

        p = ngx_strlchr(value[i].data, value[i].data + value[i].len, '=');

        if (p == NULL || p == value[i].data) {
            return ngx_http_ai_zone_unknown(cf, zone, &value[i]);
        }

        name.data = value[i].data;
        name.len = p - name.data;
        s.data = p + 1;
        s.len = value[i].data + value[i].len - s.data;

        rv = ngx_http_ai_zone_param(cf, zone, &name, &s);

        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    if (zone->meters == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "zone \"%V\" limits nothing, it needs %s",
                           &zone->name,
                           (zone->kind == NGX_HTTP_AI_ZONE_LIMIT)
                           ? "\"requests=\", \"tokens=\", \"input_tokens=\", "
                             "\"output_tokens=\" or \"concurrent=\""
                           : "\"tokens=\", \"usd=\" or \"requests=\"");
        return NGX_CONF_ERROR;
    }

    if (zone->burst && !zone->amounts[NGX_HTTP_AI_METER_REQUESTS].set) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "zone \"%V\": \"burst\" needs \"requests\"",
                           &zone->name);
        return NGX_CONF_ERROR;
    }

    if (zone->kind == NGX_HTTP_AI_ZONE_QUOTA && zone->tz == NULL) {
        const char  *error;

        ngx_str_set(&s, "UTC");

        zone->tz = ngx_http_ai_tz_create(cf->pool, &s, &error);
        if (zone->tz == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    ngx_http_ai_zone_limits(zone);

    z = ngx_array_push(&rmcf->zones);
    if (z == NULL) {
        return NGX_CONF_ERROR;
    }

    *z = zone;

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_zone_param(ngx_conf_t *cf, ngx_http_ai_limit_zone_t *zone,
    ngx_str_t *name, ngx_str_t *s)
{
    ngx_int_t                  n;
    const char                *error;
    ngx_http_ai_meter_name_t  *m;

    for (m = ngx_http_ai_meter_names(zone->kind); m->name.len; m++) {
        if (m->name.len == name->len
            && ngx_strncmp(m->name.data, name->data, name->len) == 0)
        {
            return ngx_http_ai_zone_amount(cf, zone, m, s);
        }
    }

    if (ngx_http_ai_str_is(name, "redis")) {

        if (s->len == 0 || zone->redis_name.len) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "zone \"%V\": invalid \"redis=%V\", it is the "
                               "name of an \"ai_redis\", given once",
                               &zone->name, s);
            return NGX_CONF_ERROR;
        }

        zone->redis_name = *s;

        return NGX_CONF_OK;
    }

    if (zone->kind == NGX_HTTP_AI_ZONE_LIMIT) {

        if (ngx_http_ai_str_is(name, "burst")) {
            n = ngx_atoi(s->data, s->len);

            if (n == NGX_ERROR || n == 0 || zone->burst) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "zone \"%V\": invalid \"burst=%V\", it is "
                                   "a number from 1 on, given once",
                                   &zone->name, s);
                return NGX_CONF_ERROR;
            }

            zone->burst = n;

            return NGX_CONF_OK;
        }

        return ngx_http_ai_zone_unknown(cf, zone, name);
    }

    if (ngx_http_ai_str_is(name, "alert")) {
        return ngx_http_ai_zone_alerts(cf, zone, s);
    }

    if (ngx_http_ai_str_is(name, "start")) {
        return ngx_http_ai_zone_first(cf, zone, s);
    }

    if (ngx_http_ai_str_is(name, "tz")) {
        zone->tz = ngx_http_ai_tz_create(cf->pool, s, &error);

        if (zone->tz == NULL) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "zone \"%V\": invalid \"tz=%V\": %s",
                               &zone->name, s, error);
            return NGX_CONF_ERROR;
        }

        return NGX_CONF_OK;
    }

    if (ngx_http_ai_str_is(name, "snapshot")) {

        if (s->len == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "zone \"%V\": \"snapshot=\" has no path",
                               &zone->name);
            return NGX_CONF_ERROR;
        }

        zone->snapshot = *s;

        if (ngx_conf_full_name(cf->cycle, &zone->snapshot, 0) != NGX_OK) {
            return NGX_CONF_ERROR;
        }

        return ngx_http_ai_zone_alone(cf, zone);
    }

    if (ngx_http_ai_str_is(name, "unknown_price")) {

        if (ngx_http_ai_str_is(s, "allow")) {
            zone->unknown_price = 1;
            return NGX_CONF_OK;
        }

        if (ngx_http_ai_str_is(s, "deny")) {
            return NGX_CONF_OK;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "zone \"%V\": invalid \"unknown_price=%V\", it is "
                           "\"deny\" or \"allow\"", &zone->name, s);
        return NGX_CONF_ERROR;
    }

    return ngx_http_ai_zone_unknown(cf, zone, name);
}


/* two zones in one file would take it from each other */

static char *
ngx_http_ai_zone_alone(ngx_conf_t *cf, ngx_http_ai_limit_zone_t *zone)
{
    ngx_uint_t                           i;
    ngx_http_ai_limit_zone_t           **other;
    ngx_http_ai_ratelimit_main_conf_t   *rmcf;

    rmcf = ngx_http_conf_get_module_main_conf(cf,
                                              ngx_http_ai_ratelimit_module);
    other = rmcf->zones.elts;

    for (i = 0; i < rmcf->zones.nelts; i++) {
        if (other[i]->snapshot.len == zone->snapshot.len
            && ngx_strncmp(other[i]->snapshot.data, zone->snapshot.data,
                           zone->snapshot.len)
               == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "zone \"%V\": snapshot \"%V\" is that of "
                               "zone \"%V\"", &zone->name, &zone->snapshot,
                               &other[i]->name);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_zone_unknown(ngx_conf_t *cf, ngx_http_ai_limit_zone_t *zone,
    ngx_str_t *param)
{
    ngx_str_t                  names[16], near;
    ngx_uint_t                 n;
    ngx_http_ai_meter_name_t  *m;

    n = 0;

    for (m = ngx_http_ai_meter_names(zone->kind); m->name.len; m++) {
        names[n++] = m->name;
    }

    ngx_str_set(&names[n], "zone");
    n++;
    ngx_str_set(&names[n], "redis");
    n++;

    if (zone->kind == NGX_HTTP_AI_ZONE_LIMIT) {
        ngx_str_set(&names[n], "burst");
        n++;

    } else {
        ngx_str_set(&names[n], "alert");
        n++;
        ngx_str_set(&names[n], "tz");
        n++;
        ngx_str_set(&names[n], "start");
        n++;
        ngx_str_set(&names[n], "snapshot");
        n++;
        ngx_str_set(&names[n], "unknown_price");
        n++;
    }

    near = ngx_http_ai_near_text(cf->temp_pool, param, names, n);

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "zone \"%V\": unknown parameter \"%V\"%V",
                       &zone->name, param, &near);

    return NGX_CONF_ERROR;
}


static char *
ngx_http_ai_zone_shm(ngx_conf_t *cf, ngx_http_ai_ratelimit_main_conf_t *rmcf,
    ngx_http_ai_limit_zone_t *zone, ngx_str_t *s)
{
    u_char                    *p, ch;
    size_t                     i;
    ssize_t                    size;
    ngx_str_t                  text, name;
    ngx_http_ai_limit_zone_t  *other;

    zone->name = *s;
    size = NGX_HTTP_AI_ZONE_SIZE;

    p = ngx_strlchr(s->data, s->data + s->len, ':');

    if (p) {
        zone->name.len = p - s->data;

        text.data = p + 1;
        text.len = s->data + s->len - text.data;

        size = ngx_parse_size(&text);

        if (size == NGX_ERROR) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid size \"%V\" of zone \"%V\"",
                               &text, &zone->name);
            return NGX_CONF_ERROR;
        }

        if (size < NGX_HTTP_AI_ZONE_MIN) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "zone \"%V\" is too small, it needs at least "
                               "%dk", &zone->name,
                               NGX_HTTP_AI_ZONE_MIN / 1024);
            return NGX_CONF_ERROR;
        }
    }

    for (i = 0; i < zone->name.len; i++) {
        ch = zone->name.data[i];

        if ((ch < 'a' || ch > 'z') && (ch < 'A' || ch > 'Z')
            && (ch < '0' || ch > '9') && ch != '-' && ch != '_')
        {
            break;
        }
    }

    if (i < zone->name.len || i == 0 || i > NGX_HTTP_AI_ZONE_NAME_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid name \"%V\" of a zone, it has up to %d "
                           "letters, digits, \"-\" and \"_\"",
                           &zone->name, NGX_HTTP_AI_ZONE_NAME_MAX);
        return NGX_CONF_ERROR;
    }

    other = ngx_http_ai_limit_zone_find(rmcf, &zone->name);

    if (other) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate zone \"%V\", it is defined in %s:%ui",
                           &zone->name, other->file, other->line);
        return NGX_CONF_ERROR;
    }

    name.len = sizeof("ai_limit:") - 1 + zone->name.len;
    name.data = ngx_pnalloc(cf->pool, name.len);
    if (name.data == NULL) {
        return NGX_CONF_ERROR;
    }

    (void) ngx_sprintf(name.data, "ai_limit:%V", &zone->name);

    zone->shm_zone = ngx_shared_memory_add(cf, &name, size,
                                           &ngx_http_ai_ratelimit_module);
    if (zone->shm_zone == NULL) {
        return NGX_CONF_ERROR;
    }

    zone->shm_zone->init = ngx_http_ai_zone_init;
    zone->shm_zone->data = zone;

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_zone_amount(ngx_conf_t *cf, ngx_http_ai_limit_zone_t *zone,
    ngx_http_ai_meter_name_t *meter, ngx_str_t *s)
{
    const char                        *error;
    ngx_http_ai_amount_t              *amount;
    ngx_http_compile_complex_value_t   ccv;

    amount = &zone->amounts[meter->meter];

    if (amount->set) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "zone \"%V\" has \"%V\" twice",
                           &zone->name, &meter->name);
        return NGX_CONF_ERROR;
    }

    amount->set = 1;
    amount->text = *s;
    zone->meters |= (ngx_uint_t) 1 << meter->meter;

    if (ngx_http_script_variables_count(s)) {

        amount->value = ngx_palloc(cf->pool,
                                   sizeof(ngx_http_complex_value_t));
        if (amount->value == NULL) {
            return NGX_CONF_ERROR;
        }

        ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

        ccv.cf = cf;
        ccv.value = s;
        ccv.complex_value = amount->value;

        if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
            return NGX_CONF_ERROR;
        }

        return NGX_CONF_OK;
    }

    amount->rate.unit = NGX_ERROR;

    error = ngx_http_ai_quantity_parse(s, meter->meter, &amount->rate);

    if (error == NULL && amount->rate.n < 0) {
        error = "it has no amount";
    }

    if (error) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "zone \"%V\": invalid \"%V=%V\": %s",
                           &zone->name, &meter->name, s, error);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_zone_alerts(ngx_conf_t *cf, ngx_http_ai_limit_zone_t *zone,
    ngx_str_t *s)
{
    u_char     *p, *last, *end;
    ngx_int_t   n;

    if (zone->nalerts) {
        goto invalid;
    }

    p = s->data;
    last = p + s->len;

    for ( ;; ) {
        end = ngx_strlchr(p, last, ',');

        if (end == NULL) {
            end = last;
        }

        if (end - p < 2 || end[-1] != '%'
            || zone->nalerts == NGX_HTTP_AI_LIMIT_ALERTS)
        {
            goto invalid;
        }

        n = ngx_atoi(p, end - 1 - p);

        if (n == NGX_ERROR || n < 1 || n > 1000
            || (zone->nalerts
                && n <= (ngx_int_t) zone->alerts[zone->nalerts - 1]))
        {
            goto invalid;
        }

        zone->alerts[zone->nalerts++] = n;

        if (end == last) {
            return NGX_CONF_OK;
        }

        p = end + 1;
    }

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "zone \"%V\": invalid \"alert=%V\", it is up to %d "
                       "rising percentages such as 80%%,95%%",
                       &zone->name, s, NGX_HTTP_AI_LIMIT_ALERTS);

    return NGX_CONF_ERROR;
}


static char *
ngx_http_ai_zone_first(ngx_conf_t *cf, ngx_http_ai_limit_zone_t *zone,
    ngx_str_t *s)
{
    ngx_int_t   n;
    ngx_uint_t  i;

    for (i = 0; ngx_http_ai_weekdays[i].len; i++) {
        if (s->len == 3
            && ngx_strncmp(s->data, ngx_http_ai_weekdays[i].data, 3) == 0)
        {
            zone->week = i + 1;
            return NGX_CONF_OK;
        }
    }

    n = ngx_atoi(s->data, s->len);

    if (n == NGX_ERROR || n < 1 || n > 28) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "zone \"%V\": invalid \"start=%V\", it is a day of "
                           "the week such as mon, or of the month from 1 to "
                           "28", &zone->name, s);
        return NGX_CONF_ERROR;
    }

    zone->month = n;

    return NGX_CONF_OK;
}


char *
ngx_http_ai_limit_directive(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_ratelimit_loc_conf_t *rlcf = conf;

    ngx_str_t                           *value, s;
    ngx_uint_t                           i, k, n, quota, first;
    ngx_array_t                        **uses;
    ngx_http_ai_limit_use_t             *use;
    ngx_http_ai_overrun_e                overrun;
    ngx_http_ai_ratelimit_loc_conf_t   **loc;
    ngx_http_ai_ratelimit_main_conf_t   *rmcf;

    value = cf->args->elts;

    quota = (ngx_strcmp(cmd->name.data, "ai_quota") == 0);
    uses = quota ? &rlcf->quotas : &rlcf->limits;

    if (rlcf->directive.len == 0) {
        rmcf = ngx_http_conf_get_module_main_conf(cf,
                                               ngx_http_ai_ratelimit_module);
        loc = ngx_array_push(&rmcf->locations);
        if (loc == NULL) {
            return NGX_CONF_ERROR;
        }

        *loc = rlcf;

        rlcf->directive = cmd->name;
        rlcf->file = cf->conf_file->file.name.data;
        rlcf->line = cf->conf_file->line;
        rlcf->location = ((cf->cmd_type & NGX_HTTP_LOC_CONF) != 0);
    }

    if (cf->args->nelts == 2 && ngx_http_ai_str_is(&value[1], "off")) {

        if (quota) {
            rlcf->quotas_off = 1;
        } else {
            rlcf->limits_off = 1;
        }

        return NGX_CONF_OK;
    }

    overrun = NGX_HTTP_AI_OVERRUN_FINISH;

    if (*uses == NULL) {
        *uses = ngx_array_create(cf->pool, 4, sizeof(ngx_http_ai_limit_use_t));
        if (*uses == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    first = (*uses)->nelts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (quota && value[i].len > 8
            && ngx_strncmp(value[i].data, "overrun=", 8) == 0)
        {
            s.data = value[i].data + 8;
            s.len = value[i].len - 8;

            if (ngx_http_ai_str_is(&s, "cut")) {
                overrun = NGX_HTTP_AI_OVERRUN_CUT;

            } else if (!ngx_http_ai_str_is(&s, "finish")) {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "invalid \"overrun=%V\", it is \"finish\" "
                                   "or \"cut\"", &s);
                return NGX_CONF_ERROR;
            }

            continue;
        }

        if (ngx_strlchr(value[i].data, value[i].data + value[i].len, '=')) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "unknown parameter \"%V\" of \"%V\"%s",
                               &value[i], &cmd->name,
                               quota ? ", it has \"overrun=\"" : "");
            return NGX_CONF_ERROR;
        }

        if (ngx_http_ai_str_is(&value[i], "off")) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"off\" of \"%V\" stands alone", &cmd->name);
            return NGX_CONF_ERROR;
        }

        use = (*uses)->elts;
        n = (*uses)->nelts;

        for (k = 0; k < n; k++) {
            if (use[k].name.len == value[i].len
                && ngx_strncmp(use[k].name.data, value[i].data, value[i].len)
                   == 0)
            {
                ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                                   "\"%V %V\" is duplicate",
                                   &cmd->name, &value[i]);
                return NGX_CONF_ERROR;
            }
        }

        use = ngx_array_push(*uses);
        if (use == NULL) {
            return NGX_CONF_ERROR;
        }

        use->name = value[i];
        use->zone = NULL;
        use->kind = quota ? NGX_HTTP_AI_ZONE_QUOTA : NGX_HTTP_AI_ZONE_LIMIT;
        use->file = cf->conf_file->file.name.data;
        use->line = cf->conf_file->line;
    }

    if ((*uses)->nelts == first) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" names no zone", &cmd->name);
        return NGX_CONF_ERROR;
    }

    use = (*uses)->elts;

    for (i = first; i < (*uses)->nelts; i++) {
        use[i].overrun = overrun;
    }

    return NGX_CONF_OK;
}


/* ai_dry_run and ai_headers: lists of words, or "off" */

char *
ngx_http_ai_limit_flags(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    char  *p = conf;

    ngx_str_t        *value, names[5], near;
    ngx_uint_t       *field, i, k, n;

    static ngx_str_t  dry[] = {
        ngx_string("off"), ngx_string("limit"), ngx_string("quota"),
        ngx_null_string
    };

    static ngx_str_t  headers[] = {
        ngx_string("off"), ngx_string("ratelimit"), ngx_string("ietf"),
        ngx_string("cost"), ngx_string("usage_cost"), ngx_null_string
    };

    ngx_str_t  *words;

    field = (ngx_uint_t *) (p + cmd->offset);

    if (*field) {
        return "is duplicate";
    }

    words = (ngx_strcmp(cmd->name.data, "ai_dry_run") == 0) ? dry : headers;
    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        for (k = 0; words[k].len; k++) {
            if (words[k].len == value[i].len
                && ngx_strncmp(words[k].data, value[i].data, value[i].len)
                   == 0)
            {
                break;
            }
        }

        if (words[k].len == 0) {

            for (n = 0; words[n].len; n++) {
                names[n] = words[n];
            }

            near = ngx_http_ai_near_text(cf->temp_pool, &value[i], names, n);

            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "unknown \"%V\" in \"%V\"%V",
                               &value[i], &cmd->name, &near);
            return NGX_CONF_ERROR;
        }

        *field |= (ngx_uint_t) 1 << k;
    }

    if ((*field & 1) && *field != 1) {
        return "has \"off\" beside others";
    }

    return NGX_CONF_OK;
}


ngx_http_ai_limit_zone_t *
ngx_http_ai_limit_zone_find(ngx_http_ai_ratelimit_main_conf_t *rmcf,
    ngx_str_t *name)
{
    ngx_uint_t                  i;
    ngx_http_ai_limit_zone_t  **zone;

    zone = rmcf->zones.elts;

    for (i = 0; i < rmcf->zones.nelts; i++) {
        if (zone[i]->name.len == name->len
            && ngx_strncmp(zone[i]->name.data, name->data, name->len) == 0)
        {
            return zone[i];
        }
    }

    return NULL;
}


/* zones may be defined after they are used */

ngx_int_t
ngx_http_ai_limit_resolve(ngx_conf_t *cf,
    ngx_http_ai_ratelimit_main_conf_t *rmcf)
{
    ngx_uint_t                           i, k, n;
    ngx_array_t                         *arrays[3];
    ngx_http_ai_limit_use_t             *use;
    ngx_http_ai_ratelimit_loc_conf_t   **loc, *rlcf;

    loc = rmcf->locations.elts;

    for (i = 0; i < rmcf->locations.nelts; i++) {
        rlcf = loc[i];

        arrays[0] = rlcf->limits;
        arrays[1] = rlcf->quotas;
        arrays[2] = NULL;

        for (n = 0; n < 2; n++) {

            if (arrays[n] == NULL) {
                continue;
            }

            use = arrays[n]->elts;

            for (k = 0; k < arrays[n]->nelts; k++) {
                if (ngx_http_ai_limit_resolve_use(cf, rmcf, &use[k])
                    != NGX_OK)
                {
                    return NGX_ERROR;
                }
            }
        }

        if (rlcf->location && !rlcf->served) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"%V\" in a location without \"ai_pass\" has no "
                          "effect in %s:%ui",
                          &rlcf->directive, rlcf->file, rlcf->line);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_limit_resolve_use(ngx_conf_t *cf,
    ngx_http_ai_ratelimit_main_conf_t *rmcf, ngx_http_ai_limit_use_t *use)
{
    ngx_str_t                  *names, near;
    ngx_uint_t                  i, n;
    const char                 *directive;
    ngx_http_ai_limit_zone_t  **zone;

    directive = (use->kind == NGX_HTTP_AI_ZONE_LIMIT) ? "ai_limit"
                                                      : "ai_quota";

    use->zone = ngx_http_ai_limit_zone_find(rmcf, &use->name);

    if (use->zone && use->zone->kind != use->kind) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "%s \"%V\": the zone is of \"%s\", use \"%s\" "
                      "in %s:%ui", directive, &use->name,
                      (use->kind == NGX_HTTP_AI_ZONE_LIMIT)
                      ? "ai_quota_zone" : "ai_limit_zone",
                      (use->kind == NGX_HTTP_AI_ZONE_LIMIT)
                      ? "ai_quota" : "ai_limit",
                      use->file, use->line);
        return NGX_ERROR;
    }

    if (use->zone) {
        return NGX_OK;
    }

    names = ngx_palloc(cf->temp_pool,
                       (rmcf->zones.nelts + 1) * sizeof(ngx_str_t));
    if (names == NULL) {
        return NGX_ERROR;
    }

    zone = rmcf->zones.elts;
    n = 0;

    for (i = 0; i < rmcf->zones.nelts; i++) {
        if (zone[i]->kind == use->kind) {
            names[n++] = zone[i]->name;
        }
    }

    near = ngx_http_ai_near_text(cf->temp_pool, &use->name, names, n);

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                  "%s \"%V\": no such %s_zone%V in %s:%ui",
                  directive, &use->name, directive, &near,
                  use->file, use->line);

    return NGX_ERROR;
}
