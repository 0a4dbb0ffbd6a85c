
/*
 * Copyright (C) nginx AI gateway authors
 */


/* private to the switches of switches.json */


#ifndef _NGX_HTTP_AI_RATELIMIT_SWITCH_H_INCLUDED_
#define _NGX_HTTP_AI_RATELIMIT_SWITCH_H_INCLUDED_


#include "ngx_http_ai_ratelimit.h"


/* in the order in which they are looked at */

typedef enum {
    NGX_HTTP_AI_SCOPE_ALL = 0,
    NGX_HTTP_AI_SCOPE_TENANT,
    NGX_HTTP_AI_SCOPE_KEY,
    NGX_HTTP_AI_SCOPE_PROVIDER,
    NGX_HTTP_AI_SCOPE_MODEL,
    NGX_HTTP_AI_SCOPE_FEATURE,
    NGX_HTTP_AI_SCOPE_ZONE,
    NGX_HTTP_AI_SCOPE_MAX
} ngx_http_ai_scope_e;


typedef enum {
    NGX_HTTP_AI_ACTION_DENY = 0,
    NGX_HTTP_AI_ACTION_DRAIN,
    NGX_HTTP_AI_ACTION_CUT,
    NGX_HTTP_AI_ACTION_REROUTE,
    NGX_HTTP_AI_ACTION_MAX
} ngx_http_ai_action_e;


typedef enum {
    NGX_HTTP_AI_FEATURE_STREAM = 0,
    NGX_HTTP_AI_FEATURE_TOOLS,
    NGX_HTTP_AI_FEATURE_IMAGES,
    NGX_HTTP_AI_FEATURE_AUDIO,
    NGX_HTTP_AI_FEATURE_CHAT,
    NGX_HTTP_AI_FEATURE_COMPLETIONS,
    NGX_HTTP_AI_FEATURE_EMBEDDINGS,
    NGX_HTTP_AI_FEATURE_COUNT_TOKENS,
    NGX_HTTP_AI_FEATURE_MODELS,
    NGX_HTTP_AI_FEATURE_PASSTHROUGH,
    NGX_HTTP_AI_FEATURE_MAX
} ngx_http_ai_feature_e;


/* fixed part of a record; in the data its texts follow it */

typedef struct {
    ngx_uint_t                     scope;
    ngx_uint_t                     action;
    ngx_uint_t                     feature;
    ngx_uint_t                     status;    /* 0: that of the action */
    int64_t                        until;     /* seconds; 0: for ever */
    ngx_http_ai_quantity_t         raise[NGX_HTTP_AI_METER_MAX];
    ngx_str_t                      name;      /* may have "*" */
    ngx_str_t                      key;       /* of a zone */
    ngx_str_t                      text;
    ngx_str_t                      model;     /* of reroute */
} ngx_http_ai_switch_t;


/* what a worker has of a generation */

struct ngx_http_ai_switches_s {
    uint64_t                       generation;
    ngx_pool_t                    *pool;
    ngx_array_t                    list;      /* ngx_http_ai_switch_t; of
                                                 rising scopes */
    ngx_uint_t                     scopes;    /* bits of those in it */
};


extern ngx_str_t  ngx_http_ai_scope_names[];
extern ngx_str_t  ngx_http_ai_action_names[];


/* ngx_http_ai_ratelimit_switches.c */

/* those in force; NULL: no memory */
ngx_http_ai_switches_t *ngx_http_ai_switches_current(
    ngx_http_ai_ratelimit_main_conf_t *rmcf);


#endif /* _NGX_HTTP_AI_RATELIMIT_SWITCH_H_INCLUDED_ */
