
/*
 * Copyright (C) nginx AI gateway authors
 */


#ifndef _NGX_HTTP_AI_CACHE_H_INCLUDED_
#define _NGX_HTTP_AI_CACHE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_ai_core.h"
#include "ngx_http_ai_conf.h"
#include "ngx_http_ai_cache_key.h"
#include "ngx_http_ai_cache_tiers.h"
#include "ngx_http_ai_cache_purge.h"


/* ai_cache_use_stale */

#define NGX_HTTP_AI_STALE_OFF       0x0001
#define NGX_HTTP_AI_STALE_ERROR     0x0002
#define NGX_HTTP_AI_STALE_TIMEOUT   0x0004
#define NGX_HTTP_AI_STALE_429       0x0008
#define NGX_HTTP_AI_STALE_5XX       0x0010
#define NGX_HTTP_AI_STALE_UPDATING  0x0020


/* one "ai_cache" */

typedef struct {
    ngx_str_t                  name;
    ngx_http_ai_cache_zone_t  *zone;

    ngx_http_complex_value_t  *ttl;
    ngx_http_complex_value_t  *scope;         /* NULL: global */
    ngx_http_complex_value_t  *filter;        /* if=; NULL: all */
    ngx_http_complex_value_t  *tag;
    ngx_http_complex_value_t  *vary;

    size_t                     literal;       /* bytes of scope that are not of
                                                 variables */
    ngx_uint_t                 ops;           /* bits of ngx_http_ai_op_e */
    time_t                     stale;
    size_t                     max_size;      /* 0: the zone's */
    ngx_msec_t                 pace;          /* 0: off */
    unsigned                   count:1;
    unsigned                   warned:1;      /* of an empty scope */

    u_char                    *file;
    ngx_uint_t                 line;
} ngx_http_ai_cache_use_t;


typedef struct ngx_http_ai_cache_loc_conf_s  ngx_http_ai_cache_loc_conf_t;

struct ngx_http_ai_cache_loc_conf_s {
    ngx_array_t               *own;           /* of ngx_http_ai_cache_use_t */
    ngx_array_t               *uses;          /* ... or those inherited */
    ngx_array_t               *bypass;
    ngx_array_t               *no_cache;

    ngx_flag_t                 any;
    ngx_flag_t                 lock;
    ngx_flag_t                 background;
    ngx_msec_t                 lock_timeout;
    ngx_uint_t                 use_stale;

    ngx_http_ai_cache_loc_conf_t
                              *parent;
    ngx_http_ai_cache_purge_conf_t
                              *purge;         /* not inherited */
    u_char                    *file;
    ngx_uint_t                 line;
    unsigned                   off:1;
    unsigned                   location:1;
    unsigned                   served:1;
};


typedef struct {
    const ngx_http_ai_api_t   *api;
    ngx_http_ai_cache_zones_t  zones;
    ngx_array_t                locations; /* ngx_http_ai_cache_loc_conf_t * */
    ngx_uint_t                 used;
} ngx_http_ai_cache_main_conf_t;


typedef enum {
    NGX_HTTP_AI_CACHED_LOOK = 0,      /* nothing was done yet */
    NGX_HTTP_AI_CACHED_LOOKING,       /* the tiers are being asked */
    NGX_HTTP_AI_CACHED_WAITING,       /* for a flight */
    NGX_HTTP_AI_CACHED_LIVE,          /* gets an answer as it is made */
    NGX_HTTP_AI_CACHED_PASSED         /* goes to a provider, or is answered */
} ngx_http_ai_cached_e;


/* as much of ngx_connection_t as the debug log reads of an event's data */

typedef struct {
    void                      *data;
    void                      *reserved[2];
    ngx_socket_t               fd;
} ngx_http_ai_cache_event_t;


typedef struct ngx_http_ai_cache_group_s   ngx_http_ai_cache_group_t;
typedef struct ngx_http_ai_cache_inputs_s  ngx_http_ai_cache_inputs_t;


/* a request's; ctx->cache */

typedef struct {
    ngx_http_request_t        *request;
    ngx_http_ai_ctx_t         *ctx;
    const ngx_http_ai_api_t   *api;
    ngx_http_ai_cache_loc_conf_t
                              *conf;
    ngx_http_ai_cache_use_t   *use;
    ngx_http_ai_cache_zone_t  *zone;
    ngx_http_ai_cached_e       step;

    ngx_http_ai_cache_key_t    key;
    int64_t                    ttl;           /* ms */
    int64_t                    max_age;       /* the client's, ms; -1 */
    ngx_http_ai_cache_meta_t   meta;          /* of what is to be stored */
    ngx_http_ai_cache_inputs_t *inputs;       /* of embeddings, if each of them
                                                 is an answer of its own */

    ngx_http_ai_cache_found_t  found;
    ngx_int_t                  found_rc;

    /* the answer of a provider */
    uint64_t                   flight;        /* that it leads; 0: none */
    size_t                     size;          /* so far */
    ngx_http_ai_out_t          body;          /* kept here, if it is */
    ngx_http_ai_err_e          error;         /* that a stale one has hidden */

    /* somebody else's */
    ngx_http_ai_cache_reader_t reader;
    ngx_http_ai_cache_group_t *group;
    ngx_queue_t                queue;         /* of the group */
    ngx_uint_t                 round;
    ngx_event_t                event;         /* posted: there is more */
    ngx_event_t                timer;         /* of waiting, of pacing */
    ngx_http_ai_cache_event_t  event_data;
    ngx_str_t                  rest;          /* what is paced */
    ngx_buf_t                 *buf;           /* what was sent of it last */

    unsigned                   no_lookup:1;
    unsigned                   no_store:1;
    unsigned                   only:1;        /* only-if-cached */
    unsigned                   stale:1;       /* found is, and may be sent */
    unsigned                   keep:1;        /* the answer is kept here */
    unsigned                   several:1;     /* answers in one: "finish" is
                                                 that of the first */
    unsigned                   opened:1;      /* its first bytes have come */
    unsigned                   lost:1;        /* not to be stored: too large,
                                                 or not all of it is here */
    unsigned                   background:1;  /* its client is served */
    unsigned                   again:1;       /* a flight that it followed is
                                                 gone */
    unsigned                   timedout:1;
    unsigned                   cut:1;         /* what was sent ends within a
                                                 line */
} ngx_http_ai_cached_t;


/* ngx_http_ai_cache_conf.c */

char *ngx_http_ai_cache_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);
char *ngx_http_ai_cache(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/* after all of http{} was read */
ngx_int_t ngx_http_ai_cache_resolve(ngx_conf_t *cf,
    ngx_http_ai_cache_main_conf_t *cmcf);


/* ngx_http_ai_cache_policy.c */

/*
 * Which "ai_cache" it is for, if any, and what the client wants.  NGX_OK: *c
 * is the request's state; NGX_DECLINED: it is not for the cache; NGX_DONE: it
 * was answered, finalize with ctx->rc; NGX_ERROR.
 */
ngx_int_t ngx_http_ai_cache_prepare(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_cached_t **c);

/* nothing else was wanted: as a hook */
ngx_int_t ngx_http_ai_cache_only(ngx_http_ai_cached_t *c);

/* may the answer that has ended be stored? */
ngx_uint_t ngx_http_ai_cache_storable(ngx_http_ai_cached_t *c);

/* may the stale answer be sent instead of this error? */
ngx_uint_t ngx_http_ai_cache_use_stale(ngx_http_ai_cached_t *c,
    ngx_http_ai_err_e class);


/* ngx_http_ai_cache_hook.c */

ngx_int_t ngx_http_ai_cache_hook(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);
ngx_int_t ngx_http_ai_cache_settle(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);
ngx_int_t ngx_http_ai_cache_header_hook(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);

/* nothing fresh was found: as a hook */
ngx_int_t ngx_http_ai_cache_join(ngx_http_ai_cached_t *c);

/* what is too old, whole or of each input; as ngx_http_ai_cache_replay() */
ngx_int_t ngx_http_ai_cache_send_stale(ngx_http_ai_cached_t *c);


/* ngx_http_ai_cache_tap.c: the leader's side */

/* the request goes to a provider, its answer may be stored */
void ngx_http_ai_cache_tap(ngx_http_ai_cached_t *c);

/* parts of a tap: some bytes for those who follow, how many they are, that
 * there is an error, and that the answer, which meta is of, is whole */
void ngx_http_ai_cache_share(ngx_http_ai_cached_t *c, ngx_chain_t *in);
ngx_uint_t ngx_http_ai_cache_tap_wanted(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx);
ngx_int_t ngx_http_ai_cache_tap_failed(ngx_http_request_t *r,
    ngx_http_ai_ctx_t *ctx, ngx_http_ai_error_t *err, ngx_int_t *rc);
void ngx_http_ai_cache_landed(ngx_http_ai_cached_t *c);

/* the request ends: so does what it leads */
void ngx_http_ai_cache_abandon(ngx_http_ai_cached_t *c);


/* ngx_http_ai_cache_inputs.c */

/* sets c->inputs if the request has several; NGX_OK or NGX_ERROR */
ngx_int_t ngx_http_ai_cache_inputs(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_ask_t *ask);

/* with c->inputs: looks for them, and has looked; as hooks */
ngx_int_t ngx_http_ai_cache_inputs_look(ngx_http_ai_cached_t *c);
ngx_int_t ngx_http_ai_cache_inputs_looked(ngx_http_ai_cached_t *c);

/* a provider is asked for those that are missing: as a hook */
ngx_int_t ngx_http_ai_cache_inputs_ask(ngx_http_ai_cached_t *c);

/* stale ones instead of those that are missing; as ngx_http_ai_cache_replay(),
 * NGX_DECLINED: they are no answer */
ngx_int_t ngx_http_ai_cache_inputs_stale(ngx_http_ai_cached_t *c);


/* ngx_http_ai_cache_replay.c */

/* do the bytes serve the client as they are? */
ngx_uint_t ngx_http_ai_cache_same(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_meta_t *meta);

/* sends what was found as the whole answer, with ctx->rc to finalize with:
 * NGX_DONE; NGX_DECLINED: it is no answer, and nothing was sent; NGX_ERROR */
ngx_int_t ngx_http_ai_cache_replay(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_found_t *found, ngx_http_ai_cache_e cached);

/* the header of an answer; length -1: a stream.  As ngx_http_send_header() */
ngx_int_t ngx_http_ai_cache_send_header(ngx_http_ai_cached_t *c,
    off_t length);

/* what is known of the answer, for limits and logs */
void ngx_http_ai_cache_known(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_meta_t *meta);


/* ngx_http_ai_cache_renew.c */

/* of an answer in the client's dialect and mode, in place */
void ngx_http_ai_cache_renew(ngx_http_ai_cached_t *c, ngx_str_t *data);


/* ngx_http_ai_cache_recode.c */

/* what was found as the client wants it; NGX_DECLINED: it is no whole answer,
 * whatever its meta says */
ngx_int_t ngx_http_ai_cache_recode(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_found_t *found, ngx_str_t *data);

/* have all choices ended as an answer does that may be stored? */
ngx_int_t ngx_http_ai_cache_finishes(ngx_http_ai_cached_t *c,
    ngx_http_ai_cache_meta_t *meta, u_char *data, size_t len);


/* ngx_http_ai_cache_follow.c: others' side */

/* waits for the flight of c->reader */
ngx_int_t ngx_http_ai_cache_follow(ngx_http_ai_cached_t *c);

/* waits no longer */
void ngx_http_ai_cache_unfollow(ngx_http_ai_cached_t *c);

/* is there something new for one that waits? */
ngx_uint_t ngx_http_ai_cache_ready(ngx_http_ai_cached_t *c);

/* the flight's bytes go to the client as they come; as a hook */
ngx_int_t ngx_http_ai_cache_live(ngx_http_ai_cached_t *c);

/* c->rest is sent an event at a time; as a hook */
ngx_int_t ngx_http_ai_cache_pace(ngx_http_ai_cached_t *c);

/* there is more of the flight, or it has ended */
void ngx_http_ai_cache_wake(ngx_http_ai_cache_zone_t *zone, uint64_t flight);


extern ngx_module_t  ngx_http_ai_cache_module;


#endif /* _NGX_HTTP_AI_CACHE_H_INCLUDED_ */
