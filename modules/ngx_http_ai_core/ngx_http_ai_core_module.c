
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_core_module.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif


#define NGX_HTTP_AI_SHARED_MAX  16


typedef struct {
    u_char                     name[32];
    void                      *data;
} ngx_http_ai_shared_entry_t;


typedef struct {
    ngx_uint_t                   n;
    ngx_http_ai_shared_entry_t   entries[NGX_HTTP_AI_SHARED_MAX];
} ngx_http_ai_shared_root_t;


static ngx_int_t ngx_http_ai_core_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_ai_core_postconfiguration(ngx_conf_t *cf);
static void *ngx_http_ai_core_create_main_conf(ngx_conf_t *cf);
static char *ngx_http_ai_core_init_main_conf(ngx_conf_t *cf, void *conf);
static void *ngx_http_ai_core_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_ai_core_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_ai_core_init_process(ngx_cycle_t *cycle);
static void ngx_http_ai_core_exit_process(ngx_cycle_t *cycle);
static char *ngx_http_ai_core_zone(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_ai_core_memory_retain(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
static char *ngx_http_ai_core_limit(ngx_conf_t *cf, void *post, void *data);
static ngx_int_t ngx_http_ai_core_init_zone(ngx_shm_zone_t *shm_zone,
    void *old);
static void ngx_http_ai_core_enable(ngx_conf_t *cf);
static ngx_uint_t ngx_http_ai_core_serves(ngx_conf_t *cf);
static void ngx_http_ai_core_parse_whole(ngx_conf_t *cf);
static ngx_uint_t ngx_http_ai_core_enabled(ngx_http_request_t *r);
static ngx_int_t ngx_http_ai_core_add_hook(ngx_conf_t *cf,
    ngx_http_ai_stage_e stage, ngx_http_ai_hook_pt hook);
static ngx_int_t ngx_http_ai_core_add_permit(ngx_conf_t *cf,
    ngx_http_ai_permit_pt permit);
static ngx_int_t ngx_http_ai_core_add_observer(ngx_conf_t *cf,
    ngx_http_ai_observer_pt pt);
static ngx_int_t ngx_http_ai_core_add_attempt_hook(ngx_conf_t *cf,
    ngx_http_ai_attempt_pt pt);
static ngx_int_t ngx_http_ai_core_attempt_headers(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_uint_t n, ngx_http_ai_out_t *headers);
static ngx_int_t ngx_http_ai_core_add_collector(ngx_conf_t *cf,
    ngx_http_ai_collect_pt pt, void *data);
static void ngx_http_ai_core_collect(ngx_http_ai_samples_t *s);
static ngx_int_t ngx_http_ai_core_add_header_hook(ngx_conf_t *cf,
    ngx_http_ai_hook_pt hook);


static ngx_conf_num_bounds_t  ngx_http_ai_core_depth_bounds = {
    ngx_conf_check_num_bounds, 1, 1024
};

static ngx_conf_num_bounds_t  ngx_http_ai_core_nodes_bounds = {
    ngx_conf_check_num_bounds, 16, 100000000
};

static ngx_conf_post_t  ngx_http_ai_core_limit_post = {
    ngx_http_ai_core_limit
};


static ngx_command_t  ngx_http_ai_core_commands[] = {

    { ngx_string("ai_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE2,
      ngx_http_ai_core_zone,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_memory_retain"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE1,
      ngx_http_ai_core_memory_retain,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_data"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_TAKE123,
      ngx_http_ai_data_directive,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_redis"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE1,
      ngx_http_ai_redis_block,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("ai_max_depth"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_ai_core_loc_conf_t, limits.max_depth),
      &ngx_http_ai_core_depth_bounds },

    { ngx_string("ai_max_nodes"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_ai_core_loc_conf_t, limits.max_nodes),
      &ngx_http_ai_core_nodes_bounds },

    { ngx_string("ai_max_body"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_size_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_ai_core_loc_conf_t, limits.max_body),
      &ngx_http_ai_core_limit_post },

    { ngx_string("ai_max_answer"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_size_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_ai_core_loc_conf_t, limits.max_answer),
      &ngx_http_ai_core_limit_post },

    { ngx_string("ai_max_event"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_size_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_ai_core_loc_conf_t, limits.max_event),
      &ngx_http_ai_core_limit_post },

    { ngx_string("ai_max_header"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_size_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_ai_core_loc_conf_t, limits.max_header),
      &ngx_http_ai_core_limit_post },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_ai_core_module_ctx = {
    ngx_http_ai_core_preconfiguration,     /* preconfiguration */
    ngx_http_ai_core_postconfiguration,    /* postconfiguration */

    ngx_http_ai_core_create_main_conf,     /* create main configuration */
    ngx_http_ai_core_init_main_conf,       /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_ai_core_create_loc_conf,      /* create location configuration */
    ngx_http_ai_core_merge_loc_conf        /* merge location configuration */
};


ngx_module_t  ngx_http_ai_core_module = {
    NGX_MODULE_V1,
    &ngx_http_ai_core_module_ctx,          /* module context */
    ngx_http_ai_core_commands,             /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_ai_core_init_process,         /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_ai_core_exit_process,         /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static const ngx_http_ai_api_t  ngx_http_ai_core_api_table = {
    ngx_http_ai_core_enable,
    ngx_http_ai_core_serves,
    ngx_http_ai_core_parse_whole,
    ngx_http_ai_random,
    ngx_http_ai_core_enabled,
    ngx_http_ai_core_add_hook,
    ngx_http_ai_core_add_permit,
    ngx_http_ai_add_shared,
    ngx_http_ai_core_add_observer,
    ngx_http_ai_core_add_attempt_hook,
    ngx_http_ai_core_attempt_headers,
    ngx_http_ai_core_add_collector,
    ngx_http_ai_core_collect,
    ngx_http_ai_core_add_header_hook,
    ngx_http_ai_dialect_find,
    ngx_http_ai_dialects,
    ngx_http_ai_get_ctx,
    ngx_http_ai_create_ctx,
    ngx_http_ai_resume,
    ngx_http_ai_client_closed,
    ngx_http_ai_permit,
    ngx_http_ai_parse_body,
    ngx_http_ai_input_estimate,
    ngx_http_ai_images,
    ngx_http_ai_observe,
    ngx_http_ai_send_error,
    ngx_http_ai_refuse,
    ngx_http_ai_add_headers,

    ngx_http_ai_data_register,
    ngx_http_ai_data_add,
    ngx_http_ai_data_find,
    ngx_http_ai_data_generation,
    ngx_http_ai_data_flags,
    ngx_http_ai_data_walk,
    ngx_http_ai_data_enabled,
    ngx_http_ai_data_status,

    ngx_http_ai_fetcher_create,
    ngx_http_ai_fetch,
    ngx_http_ai_resolver,
    ngx_http_ai_hosts,
#if (NGX_HTTP_SSL)
    ngx_http_ai_tls_client,
#else
    NULL,
#endif

    ngx_http_ai_redis_find,
    ngx_http_ai_redis_durable,
    ngx_http_ai_redis_at_exit,
    ngx_http_ai_redis_on_error,
    ngx_http_ai_redis_timeout,
    ngx_http_ai_redis_nodes,
    ngx_http_ai_redis_send,
    ngx_http_ai_redis_cancel,
    ngx_http_ai_redis_status,
    ngx_http_ai_redis_at
};


static ngx_int_t
ngx_http_ai_core_preconfiguration(ngx_conf_t *cf)
{
    if (ngx_http_ai_add_variables(cf) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_ai_data_add_variables(cf);
}


static ngx_int_t
ngx_http_ai_core_postconfiguration(ngx_conf_t *cf)
{
    ngx_http_handler_pt            *h;
    ngx_http_core_main_conf_t      *cmcf;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_core_module);
    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    amcf->configured = 1;

    if (amcf->fetchers) {
        (void) ngx_http_ai_resolver(cf, &amcf->resolver_timeout);
    }

    if (ngx_http_ai_redis_postconfiguration(cf) != NGX_OK) {
        return NGX_ERROR;
    }

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_PRECONTENT_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_ai_precontent_handler;

    if (amcf->zone == NULL) {
        amcf->zone = ngx_shared_memory_add(cf, &amcf->zone_name,
                                           amcf->zone_size,
                                           &ngx_http_ai_core_module);
        if (amcf->zone == NULL) {
            return NGX_ERROR;
        }
    }

    amcf->zone->init = ngx_http_ai_core_init_zone;
    amcf->zone->data = amcf;

    if (ngx_http_ai_core_add_collector(cf, ngx_http_ai_core_samples, amcf)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_ai_error_filter_init(cf);
}


static void *
ngx_http_ai_core_create_main_conf(ngx_conf_t *cf)
{
    ngx_uint_t                      i;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_core_main_conf_t));
    if (amcf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     amcf->zone_name = { 0, NULL };
     *     amcf->zone = NULL;
     *     amcf->data_dir = { 0, NULL };
     */

    amcf->head.abi = NGX_HTTP_AI_ABI;
    amcf->head.api = &ngx_http_ai_core_api_table;
    amcf->memory_retain = NGX_CONF_UNSET_SIZE;

    for (i = 0; i < NGX_HTTP_AI_STAGE_MAX; i++) {
        if (ngx_array_init(&amcf->hooks[i], cf->pool, 2,
                           sizeof(ngx_http_ai_hook_pt))
            != NGX_OK)
        {
            return NULL;
        }
    }

    if (ngx_array_init(&amcf->permits, cf->pool, 2,
                       sizeof(ngx_http_ai_permit_pt))
        != NGX_OK
        || ngx_array_init(&amcf->shared, cf->pool, 4,
                          sizeof(ngx_http_ai_shared_t))
           != NGX_OK
        || ngx_array_init(&amcf->observers, cf->pool, 2,
                          sizeof(ngx_http_ai_observer_pt))
           != NGX_OK
        || ngx_array_init(&amcf->header_hooks, cf->pool, 2,
                          sizeof(ngx_http_ai_hook_pt))
           != NGX_OK
        || ngx_array_init(&amcf->attempt_hooks, cf->pool, 1,
                          sizeof(ngx_http_ai_attempt_pt))
           != NGX_OK
        || ngx_array_init(&amcf->collectors, cf->pool, 4,
                          sizeof(ngx_http_ai_collector_t))
           != NGX_OK
        || ngx_array_init(&amcf->redises, cf->pool, 2,
                          sizeof(ngx_http_ai_redis_t *))
           != NGX_OK
        || ngx_array_init(&amcf->data, cf->pool, 4,
                          sizeof(ngx_http_ai_data_t *))
           != NGX_OK)
    {
        return NULL;
    }

    return amcf;
}


static char *
ngx_http_ai_core_init_main_conf(ngx_conf_t *cf, void *conf)
{
    ngx_http_ai_core_main_conf_t  *amcf = conf;

    if (amcf->zone_name.data == NULL) {
        ngx_str_set(&amcf->zone_name, "ai");
        amcf->zone_size = 1024 * 1024;
    }

    ngx_conf_init_size_value(amcf->memory_retain, 64 * 1024 * 1024);

    return NGX_CONF_OK;
}


static void *
ngx_http_ai_core_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_ai_core_loc_conf_t  *alcf;

    alcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_ai_core_loc_conf_t));
    if (alcf == NULL) {
        return NULL;
    }

    alcf->enable = NGX_CONF_UNSET;
    alcf->limits.max_depth = NGX_CONF_UNSET_UINT;
    alcf->limits.max_nodes = NGX_CONF_UNSET_UINT;
    alcf->limits.max_body = NGX_CONF_UNSET_SIZE;
    alcf->limits.max_answer = NGX_CONF_UNSET_SIZE;
    alcf->limits.max_event = NGX_CONF_UNSET_SIZE;
    alcf->limits.max_header = NGX_CONF_UNSET_SIZE;

    return alcf;
}


static char *
ngx_http_ai_core_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_ai_core_loc_conf_t *prev = parent;
    ngx_http_ai_core_loc_conf_t *conf = child;

    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    /* like a content handler, inherited only by "if" and "limit_except" */

    if (clcf->noname) {
        ngx_conf_merge_value(conf->enable, prev->enable, 0);

    } else {
        ngx_conf_init_value(conf->enable, 0);
    }

    ngx_conf_merge_uint_value(conf->limits.max_depth, prev->limits.max_depth,
                              128);
    ngx_conf_merge_uint_value(conf->limits.max_nodes, prev->limits.max_nodes,
                              1000000);
    ngx_conf_merge_size_value(conf->limits.max_body, prev->limits.max_body,
                              32 * 1024 * 1024);
    ngx_conf_merge_size_value(conf->limits.max_answer,
                              prev->limits.max_answer, 32 * 1024 * 1024);
    ngx_conf_merge_size_value(conf->limits.max_event, prev->limits.max_event,
                              1024 * 1024);
    ngx_conf_merge_size_value(conf->limits.max_header,
                              prev->limits.max_header, 16 * 1024);

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_ai_core_init_process(ngx_cycle_t *cycle)
{
    ngx_http_ai_core_main_conf_t  *amcf;

    amcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_ai_core_module);

    if (amcf) {
        ngx_http_ai_fetch_init(amcf);

        if (ngx_process == NGX_PROCESS_WORKER
            || ngx_process == NGX_PROCESS_SINGLE)
        {
            ngx_http_ai_redis_start(cycle, amcf);
        }
    }

#if defined(__GLIBC__)
    if (amcf && amcf->memory_retain) {

        /*
         * A body over 128 KB would cost an mmap, its page faults and a
         * munmap per request, a third of the CPU time of proxying it.
         */

        (void) mallopt(M_MMAP_THRESHOLD, 32 * 1024 * 1024);
        (void) mallopt(M_TRIM_THRESHOLD,
                       (int) ngx_min(amcf->memory_retain, 1 << 30));
        (void) mallopt(M_TOP_PAD, 1024 * 1024);
    }
#endif

    ngx_http_ai_random_seed();

    return ngx_http_ai_data_init_process(cycle);
}


static void
ngx_http_ai_core_exit_process(ngx_cycle_t *cycle)
{
    ngx_http_ai_core_main_conf_t  *amcf;

    amcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_ai_core_module);

    if (amcf) {
        ngx_http_ai_redis_stop(cycle, amcf);
        ngx_http_ai_fetch_exit(amcf);
    }

    ngx_http_ai_data_exit_process(cycle);
}


static char *
ngx_http_ai_core_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_ai_core_main_conf_t *amcf = conf;

    ssize_t     size;
    ngx_str_t  *value;

    value = cf->args->elts;

    if (amcf->zone) {
        return "is duplicate";
    }

    size = ngx_parse_size(&value[2]);

    if (size == NGX_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid size \"%V\" of ai_zone \"%V\"",
                           &value[2], &value[1]);
        return NGX_CONF_ERROR;
    }

    if (size < (ssize_t) (8 * ngx_pagesize)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "ai_zone \"%V\" is too small, "
                           "it needs at least %uzk",
                           &value[1], 8 * ngx_pagesize / 1024);
        return NGX_CONF_ERROR;
    }

    amcf->zone_name = value[1];
    amcf->zone_size = size;

    amcf->zone = ngx_shared_memory_add(cf, &amcf->zone_name, size,
                                       &ngx_http_ai_core_module);
    if (amcf->zone == NULL) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_core_memory_retain(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_ai_core_main_conf_t *amcf = conf;

    ssize_t     size;
    ngx_str_t  *value;

    if (amcf->memory_retain != NGX_CONF_UNSET_SIZE) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        amcf->memory_retain = 0;
        return NGX_CONF_OK;
    }

    size = ngx_parse_size(&value[1]);

    if (size == NGX_ERROR || size == 0) {
        return "expects a size or \"off\"";
    }

#if !defined(__GLIBC__)
    ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                       "\"ai_memory_retain\" has no effect with this C "
                       "library, it tunes the allocator of glibc");
#endif

    amcf->memory_retain = size;

    return NGX_CONF_OK;
}


static char *
ngx_http_ai_core_limit(ngx_conf_t *cf, void *post, void *data)
{
    size_t  *sp = data;

    if (*sp < 1024) {
        return "must be at least 1k";
    }

    if (*sp > 1024 * 1024 * 1024) {
        return "must be at most 1024m";
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_ai_core_init_zone(ngx_shm_zone_t *shm_zone, void *old)
{
    void                           *data;
    ngx_uint_t                      i, n;
    ngx_slab_pool_t                *shpool;
    ngx_http_ai_shared_t           *shared;
    ngx_http_ai_shared_root_t      *root;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = shm_zone->data;
    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    root = shpool->data;

    if (root == NULL) {
        root = ngx_slab_calloc(shpool, sizeof(ngx_http_ai_shared_root_t));
        if (root == NULL) {
            return NGX_ERROR;
        }

        shpool->data = root;
        shpool->log_nomem = 0;
    }

    shared = amcf->shared.elts;

    for (i = 0; i < amcf->shared.nelts; i++) {

        for (n = 0; n < root->n; n++) {
            if (ngx_strncmp(root->entries[n].name, shared[i].name,
                            sizeof(root->entries[n].name) - 1)
                == 0)
            {
                break;
            }
        }

        if (n == NGX_HTTP_AI_SHARED_MAX) {
            return NGX_ERROR;
        }

        data = (n < root->n) ? root->entries[n].data : NULL;

        if (shared[i].init(shpool, &data, shared[i].conf, shm_zone->shm.log)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        root->entries[n].data = data;

        if (n == root->n) {
            (void) ngx_cpystrn(root->entries[n].name,
                               (u_char *) shared[i].name,
                               sizeof(root->entries[n].name));
            root->n++;
        }
    }

    return NGX_OK;
}


static void
ngx_http_ai_core_enable(ngx_conf_t *cf)
{
    ngx_http_ai_core_loc_conf_t  *alcf;

    alcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_ai_core_module);
    alcf->enable = 1;
}


static ngx_uint_t
ngx_http_ai_core_serves(ngx_conf_t *cf)
{
    ngx_http_ai_core_loc_conf_t  *alcf;

    alcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_ai_core_module);

    return alcf->enable == 1;
}


static void
ngx_http_ai_core_parse_whole(ngx_conf_t *cf)
{
    ngx_http_ai_core_loc_conf_t  *alcf;

    alcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_ai_core_module);

    alcf->whole = 1;
}


static ngx_uint_t
ngx_http_ai_core_enabled(ngx_http_request_t *r)
{
    ngx_http_ai_core_loc_conf_t  *alcf;

    alcf = ngx_http_get_module_loc_conf(r, ngx_http_ai_core_module);

    return alcf->enable;
}


static ngx_int_t
ngx_http_ai_core_add_hook(ngx_conf_t *cf, ngx_http_ai_stage_e stage,
    ngx_http_ai_hook_pt hook)
{
    ngx_http_ai_hook_pt            *h;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_core_module);

    h = ngx_array_push(&amcf->hooks[stage]);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = hook;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_core_add_permit(ngx_conf_t *cf, ngx_http_ai_permit_pt permit)
{
    ngx_http_ai_permit_pt          *p;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_core_module);

    p = ngx_array_push(&amcf->permits);
    if (p == NULL) {
        return NGX_ERROR;
    }

    *p = permit;

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_add_shared(ngx_conf_t *cf, const char *name,
    ngx_http_ai_shared_pt init, void *conf)
{
    ngx_http_ai_shared_t           *s;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_core_module);

    s = ngx_array_push(&amcf->shared);
    if (s == NULL) {
        return NGX_ERROR;
    }

    s->name = name;
    s->init = init;
    s->conf = conf;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_core_add_observer(ngx_conf_t *cf, ngx_http_ai_observer_pt pt)
{
    ngx_http_ai_observer_pt        *o;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_core_module);

    o = ngx_array_push(&amcf->observers);
    if (o == NULL) {
        return NGX_ERROR;
    }

    *o = pt;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_core_add_attempt_hook(ngx_conf_t *cf, ngx_http_ai_attempt_pt pt)
{
    ngx_http_ai_attempt_pt         *h;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_core_module);

    h = ngx_array_push(&amcf->attempt_hooks);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = pt;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_core_attempt_headers(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_uint_t n, ngx_http_ai_out_t *headers)
{
    ngx_uint_t                      i;
    ngx_http_ai_attempt_pt         *h;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = ngx_http_get_module_main_conf(r, ngx_http_ai_core_module);

    h = amcf->attempt_hooks.elts;

    for (i = 0; i < amcf->attempt_hooks.nelts; i++) {
        if (h[i](r, ctx, n, headers) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return headers->failed ? NGX_ERROR : NGX_OK;
}


static ngx_int_t
ngx_http_ai_core_add_collector(ngx_conf_t *cf, ngx_http_ai_collect_pt pt,
    void *data)
{
    ngx_http_ai_collector_t        *c;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_core_module);

    c = ngx_array_push(&amcf->collectors);
    if (c == NULL) {
        return NGX_ERROR;
    }

    c->handler = pt;
    c->data = data;

    return NGX_OK;
}


static void
ngx_http_ai_core_collect(ngx_http_ai_samples_t *s)
{
    ngx_uint_t                      i;
    ngx_http_ai_collector_t        *c;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = ngx_http_cycle_get_module_main_conf(ngx_cycle,
                                               ngx_http_ai_core_module);
    c = amcf->collectors.elts;

    for (i = 0; i < amcf->collectors.nelts; i++) {
        c[i].handler(c[i].data, s);
    }
}


static ngx_int_t
ngx_http_ai_core_add_header_hook(ngx_conf_t *cf, ngx_http_ai_hook_pt hook)
{
    ngx_http_ai_hook_pt            *h;
    ngx_http_ai_core_main_conf_t   *amcf;

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_ai_core_module);

    h = ngx_array_push(&amcf->header_hooks);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = hook;

    return NGX_OK;
}
