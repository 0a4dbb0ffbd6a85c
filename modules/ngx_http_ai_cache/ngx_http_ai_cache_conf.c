
/*
 * Copyright (C) nginx AI gateway authors
 */


/* ai_cache_zone and ai_cache: what is written */


#include "ngx_http_ai_cache.h"


#define NGX_HTTP_AI_CACHE_ZONE_MIN   (256 * 1024)
#define NGX_HTTP_AI_CACHE_NAME_MAX   64
#define NGX_HTTP_AI_CACHE_MAX_SIZE   (1024 * 1024)
#define NGX_HTTP_AI_CACHE_ENTRY_MIN  1024
#define NGX_HTTP_AI_CACHE_DISK_MIN   (1024 * 1024)
#define NGX_HTTP_AI_CACHE_PACE_MAX   10000


static char *ngx_http_ai_cache_zone_param(ngx_conf_t *cf,
    ngx_http_ai_cache_zone_t *zone, ngx_str_t *arg);
static char *ngx_http_ai_cache_zone_disk(ngx_conf_t *cf,
    ngx_http_ai_cache_zone_t *zone, ngx_str_t *s);
static char *ngx_http_ai_cache_zone_threads(ngx_conf_t *cf,
    ngx_http_ai_cache_zone_t *zone, ngx_str_t *s);
static char *ngx_http_ai_cache_param(ngx_conf_t *cf,
    ngx_http_ai_cache_use_t *use, ngx_str_t *arg);
static char *ngx_http_ai_cache_scope(ngx_conf_t *cf,
    ngx_http_ai_cache_use_t *use, ngx_str_t *s);
static size_t ngx_http_ai_cache_literal(ngx_str_t *s);
static char *ngx_http_ai_cache_ttl(ngx_conf_t *cf,
    ngx_http_ai_cache_use_t *use, ngx_str_t *s);
static char *ngx_http_ai_cache_value(ngx_conf_t *cf, const char *name,
    ngx_str_t *s, ngx_http_complex_value_t **value);
static char *ngx_http_ai_cache_size(ngx_conf_t *cf, const char *name,
    ngx_str_t *s, size_t *size);
static ngx_int_t ngx_http_ai_cache_resolve_use(ngx_conf_t *cf,
    ngx_http_ai_cache_main_conf_t *cmcf, ngx_http_ai_cache_use_t *use);


static ngx_str_t  ngx_http_ai_cache_zone_params[] = {
    ngx_string("disk"), ngx_string("redis"), ngx_string("max_size"),
    ngx_string("inactive"), ngx_string("threads")
};


static ngx_str_t  ngx_http_ai_cache_params[] = {
    ngx_string("ttl"), ngx_string("scope"), ngx_string("if"),
    ngx_string("tag"), ngx_string("vary"), ngx_string("stale"),
    ngx_string("max_size"), ngx_string("pace"), ngx_string("count"),
    ngx_string("chat"), ngx_string("completions"), ngx_string("embeddings")
};


static ngx_http_ai_op_e  ngx_http_ai_cache_ops[] = {
    NGX_HTTP_AI_OP_CHAT,
    NGX_HTTP_AI_OP_COMPLETIONS,
    NGX_HTTP_AI_OP_EMBEDDINGS,
    NGX_HTTP_AI_OP_NONE
};


char *
ngx_http_ai_cache_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_cache_main_conf_t *cmcf = conf;

    char                      *rv;
    ssize_t                    size;
    ngx_str_t                 *value;
    ngx_uint_t                 i;
    ngx_http_ai_cache_zone_t  *zone;

    value = cf->args->elts;

    if (!ngx_http_ai_conf_name(&value[1], NGX_HTTP_AI_CACHE_NAME_MAX)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid name \"%V\" of a cache zone, it has up to "
                           "%d letters, digits, \"-\", \"_\" and \".\"",
                           &value[1], NGX_HTTP_AI_CACHE_NAME_MAX);
        return NGX_CONF_ERROR;
    }

    size = ngx_parse_size(&value[2]);

    if (size == NGX_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid size \"%V\" of cache zone \"%V\"",
                           &value[2], &value[1]);
        return NGX_CONF_ERROR;
    }

    if (size < NGX_HTTP_AI_CACHE_ZONE_MIN) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "cache zone \"%V\" is too small, it needs at least "
                           "%dk", &value[1],
                           NGX_HTTP_AI_CACHE_ZONE_MIN / 1024);
        return NGX_CONF_ERROR;
    }

    zone = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_cache_zone_t));
    if (zone == NULL) {
        return NGX_CONF_ERROR;
    }

    zone->name = value[1];
    zone->size = size;
    zone->file = cf->conf_file->file.name.data;
    zone->line = cf->conf_file->line;

    for (i = 3; i < cf->args->nelts; i++) {
        rv = ngx_http_ai_cache_zone_param(cf, zone, &value[i]);

        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    if (zone->inactive && zone->disk.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "cache zone \"%V\": \"inactive\" needs \"disk\"",
                           &zone->name);
        return NGX_CONF_ERROR;
    }

    if ((zone->pool.len || zone->no_threads) && zone->disk.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "cache zone \"%V\": \"threads\" needs \"disk\"",
                           &zone->name);
        return NGX_CONF_ERROR;
    }

    if (zone->max_size == 0) {
        zone->max_size = NGX_HTTP_AI_CACHE_MAX_SIZE;
    }

    return ngx_http_ai_cache_zone_add(cf, &cmcf->zones, zone);
}


static char *
ngx_http_ai_cache_zone_param(ngx_conf_t *cf, ngx_http_ai_cache_zone_t *zone,
    ngx_str_t *arg)
{
    u_char     *p;
    ngx_str_t   s, name, near;

    if (ngx_http_ai_conf_arg(arg, "disk", &s)) {
        return ngx_http_ai_cache_zone_disk(cf, zone, &s);
    }

    if (ngx_http_ai_conf_arg(arg, "redis", &s)) {

        if (s.len == 0 || zone->redis_name.len) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "cache zone \"%V\": invalid \"redis=%V\", it "
                               "is the name of an \"ai_redis\", given once",
                               &zone->name, &s);
            return NGX_CONF_ERROR;
        }

        zone->redis_name = s;

        return NGX_CONF_OK;
    }

    if (ngx_http_ai_conf_arg(arg, "max_size", &s)) {
        return ngx_http_ai_cache_size(cf, "max_size", &s, &zone->max_size);
    }

    if (ngx_http_ai_conf_arg(arg, "inactive", &s)) {
        zone->inactive = ngx_parse_time(&s, 1);

        if (zone->inactive == NGX_ERROR || zone->inactive == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "cache zone \"%V\": invalid \"inactive=%V\", "
                               "it is a time such as 7d", &zone->name, &s);
            return NGX_CONF_ERROR;
        }

        return NGX_CONF_OK;
    }

    if (ngx_http_ai_conf_arg(arg, "threads", &s)) {
        return ngx_http_ai_cache_zone_threads(cf, zone, &s);
    }

    name = *arg;
    p = ngx_strlchr(arg->data, arg->data + arg->len, '=');

    if (p) {
        name.len = p - arg->data;
    }

    near = ngx_http_ai_near_text(cf->temp_pool, &name,
                                 ngx_http_ai_cache_zone_params,
                                 sizeof(ngx_http_ai_cache_zone_params)
                                 / sizeof(ngx_str_t));

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "cache zone \"%V\": unknown parameter \"%V\"%V",
                       &zone->name, &name, &near);

    return NGX_CONF_ERROR;
}


static char *
ngx_http_ai_cache_zone_disk(ngx_conf_t *cf, ngx_http_ai_cache_zone_t *zone,
    ngx_str_t *s)
{
    u_char                         *p, *last;
    ngx_str_t                       size;
    ngx_uint_t                      i;
    ngx_http_ai_cache_zone_t      **other;
    ngx_http_ai_cache_main_conf_t  *cmcf;

    last = s->data + s->len;

    for (p = last; p > s->data && p[-1] != ':'; p--) { /* void */ }

    if (p <= s->data + 1 || p == last || zone->disk.len) {
        goto invalid;
    }

    size.data = p;
    size.len = last - p;

    zone->disk_size = ngx_parse_offset(&size);

    if (zone->disk_size == NGX_ERROR) {
        goto invalid;
    }

    if (zone->disk_size < NGX_HTTP_AI_CACHE_DISK_MIN) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "cache zone \"%V\": the size of \"disk=%V\" is "
                           "less than 1m", &zone->name, s);
        return NGX_CONF_ERROR;
    }

    zone->disk.data = s->data;
    zone->disk.len = p - 1 - s->data;

    if (zone->disk.data[zone->disk.len - 1] == '/' && zone->disk.len > 1) {
        zone->disk.len--;
    }

    if (ngx_conf_full_name(cf->cycle, &zone->disk, 0) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_cache_module);
    other = cmcf->zones.zones.elts;

    for (i = 0; i < cmcf->zones.zones.nelts; i++) {
        if (other[i]->disk.len == zone->disk.len
            && ngx_strncmp(other[i]->disk.data, zone->disk.data,
                           zone->disk.len)
               == 0)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "cache zone \"%V\": \"%V\" is the directory of "
                               "cache zone \"%V\"", &zone->name, &zone->disk,
                               &other[i]->name);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;

invalid:

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "cache zone \"%V\": invalid \"disk=%V\", it is a "
                       "directory and a size such as /var/cache/ai:10g, given "
                       "once", &zone->name, s);

    return NGX_CONF_ERROR;
}


static char *
ngx_http_ai_cache_zone_threads(ngx_conf_t *cf, ngx_http_ai_cache_zone_t *zone,
    ngx_str_t *s)
{
    if (s->len == 0 || zone->pool.len || zone->no_threads) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "cache zone \"%V\": invalid \"threads=%V\", it is "
                           "the name of a \"thread_pool\", or \"off\", given "
                           "once", &zone->name, s);
        return NGX_CONF_ERROR;
    }

    if (ngx_http_ai_str_is(s, "off")) {
        zone->no_threads = 1;
        return NGX_CONF_OK;
    }

#if (NGX_THREADS)

    zone->pool = *s;

    return NGX_CONF_OK;

#else

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "cache zone \"%V\": \"threads=%V\" needs nginx built "
                       "with \"--with-threads\"", &zone->name, s);

    return NGX_CONF_ERROR;

#endif
}


char *
ngx_http_ai_cache(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_cache_loc_conf_t *clcf = conf;

    char                            *rv;
    ngx_str_t                       *value;
    ngx_uint_t                       i;
    ngx_http_ai_cache_use_t         *use;
    ngx_http_ai_cache_loc_conf_t   **loc;
    ngx_http_ai_cache_main_conf_t   *cmcf;

    value = cf->args->elts;

    if (clcf->file == NULL) {
        cmcf = ngx_http_conf_get_module_main_conf(cf,
                                                  ngx_http_ai_cache_module);
        loc = ngx_array_push(&cmcf->locations);
        if (loc == NULL) {
            return NGX_CONF_ERROR;
        }

        *loc = clcf;

        clcf->file = cf->conf_file->file.name.data;
        clcf->line = cf->conf_file->line;
        clcf->location = ((cf->cmd_type & NGX_HTTP_LOC_CONF) != 0);
    }

    if (ngx_http_ai_str_is(&value[1], "off")) {

        if (cf->args->nelts > 2 || clcf->own || clcf->off) {
            return "off stands alone";
        }

        clcf->off = 1;

        return NGX_CONF_OK;
    }

    if (clcf->off) {
        return "off stands alone";
    }

    if (clcf->own == NULL) {
        clcf->own = ngx_array_create(cf->pool, 2,
                                     sizeof(ngx_http_ai_cache_use_t));
        if (clcf->own == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    use = ngx_array_push(clcf->own);
    if (use == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(use, sizeof(ngx_http_ai_cache_use_t));

    use->name = value[1];
    use->literal = (size_t) -1;
    use->stale = -1;
    use->file = cf->conf_file->file.name.data;
    use->line = cf->conf_file->line;

    for (i = 2; i < cf->args->nelts; i++) {
        rv = ngx_http_ai_cache_param(cf, use, &value[i]);

        if (rv != NGX_CONF_OK) {
            return rv;
        }
    }

    if (use->ttl == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"ai_cache %V\" has no \"ttl=\", how long may an "
                           "answer be used? Such as \"ttl=10m\"", &use->name);
        return NGX_CONF_ERROR;
    }

    if (use->literal == (size_t) -1) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"ai_cache %V\" has no \"scope=\", who may share "
                           "an answer? Such as \"scope=$ai_tenant\", or "
                           "\"scope=global\" for everybody", &use->name);
        return NGX_CONF_ERROR;
    }

    if (use->ops == 0) {
        for (i = 0; ngx_http_ai_cache_ops[i]; i++) {
            use->ops |= (ngx_uint_t) 1 << ngx_http_ai_cache_ops[i];
        }
    }

    if (use->stale == -1) {
        use->stale = 0;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_cache_param(ngx_conf_t *cf, ngx_http_ai_cache_use_t *use,
    ngx_str_t *arg)
{
    u_char      *p;
    ngx_str_t   *op, s, name, near;
    ngx_uint_t   i;

    for (i = 0; ngx_http_ai_cache_ops[i]; i++) {
        op = &ngx_http_ai_cache_params[9 + i];

        if (op->len == arg->len
            && ngx_strncmp(op->data, arg->data, op->len) == 0)
        {
            use->ops |= (ngx_uint_t) 1 << ngx_http_ai_cache_ops[i];
            return NGX_CONF_OK;
        }
    }

    if (ngx_http_ai_conf_arg(arg, "ttl", &s)) {
        return ngx_http_ai_cache_ttl(cf, use, &s);
    }

    if (ngx_http_ai_conf_arg(arg, "scope", &s)) {
        return ngx_http_ai_cache_scope(cf, use, &s);
    }

    if (ngx_http_ai_conf_arg(arg, "if", &s)) {
        return ngx_http_ai_cache_value(cf, "if", &s, &use->filter);
    }

    if (ngx_http_ai_conf_arg(arg, "tag", &s)) {
        return ngx_http_ai_cache_value(cf, "tag", &s, &use->tag);
    }

    if (ngx_http_ai_conf_arg(arg, "vary", &s)) {
        return ngx_http_ai_cache_value(cf, "vary", &s, &use->vary);
    }

    if (ngx_http_ai_conf_arg(arg, "stale", &s)) {

        if (use->stale != -1) {
            return "has \"stale\" twice";
        }

        use->stale = ngx_parse_time(&s, 1);

        if (use->stale == NGX_ERROR) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid \"stale=%V\", it is a time such as "
                               "1d", &s);
            return NGX_CONF_ERROR;
        }

        return NGX_CONF_OK;
    }

    if (ngx_http_ai_conf_arg(arg, "max_size", &s)) {
        return ngx_http_ai_cache_size(cf, "max_size", &s, &use->max_size);
    }

    if (ngx_http_ai_conf_arg(arg, "pace", &s)) {

        if (ngx_http_ai_str_is(&s, "off")) {
            use->pace = 0;
            return NGX_CONF_OK;
        }

        use->pace = ngx_parse_time(&s, 0);

        if (use->pace == (ngx_msec_t) NGX_ERROR || use->pace == 0
            || use->pace > NGX_HTTP_AI_CACHE_PACE_MAX)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid \"pace=%V\", it is a time between "
                               "events up to 10s, such as 20ms, or \"off\"",
                               &s);
            return NGX_CONF_ERROR;
        }

        return NGX_CONF_OK;
    }

    if (ngx_http_ai_conf_arg(arg, "count", &s)) {

        if (ngx_http_ai_str_is(&s, "on")) {
            use->count = 1;
            return NGX_CONF_OK;
        }

        if (ngx_http_ai_str_is(&s, "off")) {
            use->count = 0;
            return NGX_CONF_OK;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid \"count=%V\", it is \"on\" or \"off\"",
                           &s);
        return NGX_CONF_ERROR;
    }

    name = *arg;
    p = ngx_strlchr(arg->data, arg->data + arg->len, '=');

    if (p) {
        name.len = p - arg->data;
    }

    near = ngx_http_ai_near_text(cf->temp_pool, &name,
                                 ngx_http_ai_cache_params,
                                 sizeof(ngx_http_ai_cache_params)
                                 / sizeof(ngx_str_t));

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "unknown parameter \"%V\" of \"ai_cache\"%V",
                       &name, &near);

    return NGX_CONF_ERROR;
}


/*
 * "global" is the only one that is written out: a scope without a variable
 * would be shared by all as well, and does not say so.
 */

static char *
ngx_http_ai_cache_scope(ngx_conf_t *cf, ngx_http_ai_cache_use_t *use,
    ngx_str_t *s)
{
    if (use->literal != (size_t) -1) {
        return "has \"scope\" twice";
    }

    if (ngx_http_ai_str_is(s, "global")) {
        use->literal = 0;
        return NGX_CONF_OK;
    }

    if (ngx_http_script_variables_count(s) == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid \"scope=%V\": it has no variable, who may "
                           "share an answer? Such as \"scope=$ai_tenant\", or "
                           "\"scope=global\" for everybody", s);
        return NGX_CONF_ERROR;
    }

    use->literal = ngx_http_ai_cache_literal(s);

    return ngx_http_ai_cache_value(cf, "scope", s, &use->scope);
}


/* how long the value is when all of its variables are empty */

static size_t
ngx_http_ai_cache_literal(ngx_str_t *s)
{
    size_t       i, n;
    ngx_uint_t   braces;

    n = 0;

    for (i = 0; i < s->len; /* void */ ) {

        if (s->data[i] != '$') {
            i++;
            n++;
            continue;
        }

        i++;

        braces = (i < s->len && s->data[i] == '{');
        i += braces;

        while (i < s->len
               && ((s->data[i] >= 'a' && s->data[i] <= 'z')
                   || (s->data[i] >= 'A' && s->data[i] <= 'Z')
                   || (s->data[i] >= '0' && s->data[i] <= '9')
                   || s->data[i] == '_'))
        {
            i++;
        }

        i += braces;
    }

    return n;
}


static char *
ngx_http_ai_cache_ttl(ngx_conf_t *cf, ngx_http_ai_cache_use_t *use,
    ngx_str_t *s)
{
    time_t  ttl;

    if (ngx_http_script_variables_count(s) == 0) {
        ttl = ngx_parse_time(s, 1);

        if (ttl == NGX_ERROR || ttl == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid \"ttl=%V\", it is a time such as 10m",
                               s);
            return NGX_CONF_ERROR;
        }
    }

    return ngx_http_ai_cache_value(cf, "ttl", s, &use->ttl);
}


static char *
ngx_http_ai_cache_value(ngx_conf_t *cf, const char *name, ngx_str_t *s,
    ngx_http_complex_value_t **value)
{
    if (*value) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"ai_cache\" has \"%s\" twice", name);
        return NGX_CONF_ERROR;
    }

    if (s->len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%s=\" of \"ai_cache\" has no value", name);
        return NGX_CONF_ERROR;
    }

    return ngx_http_ai_conf_complex(cf, s, value);
}


static char *
ngx_http_ai_cache_size(ngx_conf_t *cf, const char *name, ngx_str_t *s,
    size_t *size)
{
    ssize_t  n;

    n = ngx_parse_size(s);

    if (n == NGX_ERROR || n < NGX_HTTP_AI_CACHE_ENTRY_MIN || *size) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid \"%s=%V\", it is a size of at least 1k, "
                           "given once", name, s);
        return NGX_CONF_ERROR;
    }

    *size = n;

    return NGX_CONF_OK;
}


ngx_int_t
ngx_http_ai_cache_resolve(ngx_conf_t *cf, ngx_http_ai_cache_main_conf_t *cmcf)
{
    ngx_uint_t                      i, k;
    ngx_http_ai_cache_use_t        *use;
    ngx_http_ai_cache_loc_conf_t  **loc;

    loc = cmcf->locations.elts;

    for (i = 0; i < cmcf->locations.nelts; i++) {

        if (loc[i]->own) {
            use = loc[i]->own->elts;

            for (k = 0; k < loc[i]->own->nelts; k++) {
                if (ngx_http_ai_cache_resolve_use(cf, cmcf, &use[k])
                    != NGX_OK)
                {
                    return NGX_ERROR;
                }
            }
        }

        if (loc[i]->location && !loc[i]->served) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"ai_cache\" in a location without \"ai_pass\" has "
                          "no effect in %s:%ui", loc[i]->file, loc[i]->line);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_cache_resolve_use(ngx_conf_t *cf,
    ngx_http_ai_cache_main_conf_t *cmcf, ngx_http_ai_cache_use_t *use)
{
    ngx_str_t  near;

    use->zone = ngx_http_ai_cache_zone_find(cf, &cmcf->zones, &use->name,
                                            &near);

    if (use->zone == NULL) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "ai_cache \"%V\": no such ai_cache_zone%V in %s:%ui",
                      &use->name, &near, use->file, use->line);
        return NGX_ERROR;
    }

    if (use->max_size > use->zone->max_size) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "ai_cache \"%V\": \"max_size\" is above the %uz bytes "
                      "of its zone in %s:%ui",
                      &use->name, use->zone->max_size, use->file, use->line);
        return NGX_ERROR;
    }

    if (use->max_size == 0) {
        use->max_size = use->zone->max_size;
    }

    return NGX_OK;
}
