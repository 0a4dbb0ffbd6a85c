
/*
 * Copyright (C) nginx AI gateway authors
 */


/* what tokens cost; plain C, integers only */


#ifndef _NGX_HTTP_AI_PRICE_H_INCLUDED_
#define _NGX_HTTP_AI_PRICE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_json.h"
#include "ngx_http_ai_pivot.h"


#define NGX_HTTP_AI_PRICE_TIERS  4

/* version of a price that is part of the configuration */
#define NGX_HTTP_AI_PRICE_CONF  "configuration"

/* the most that may be asked for a token, and for a request or an image */
#define NGX_HTTP_AI_PRICE_TOKEN_MAX  ((int64_t) 1000000 * 1000000)
#define NGX_HTTP_AI_PRICE_EACH_MAX   ((int64_t) 1000000 * 1000000 * 1000)


typedef enum {
    NGX_HTTP_AI_RATE_INPUT = 0,
    NGX_HTTP_AI_RATE_OUTPUT,
    NGX_HTTP_AI_RATE_CACHED,
    NGX_HTTP_AI_RATE_CACHE_WRITE,     /* for 5 minutes */
    NGX_HTTP_AI_RATE_CACHE_WRITE_1H,
    NGX_HTTP_AI_RATE_REASONING,
    NGX_HTTP_AI_RATE_AUDIO_INPUT,
    NGX_HTTP_AI_RATE_AUDIO_OUTPUT,
    NGX_HTTP_AI_RATE_MAX
} ngx_http_ai_rate_e;


typedef struct {
    int64_t                    above;         /* input tokens; 0: any */
    int64_t                    v[NGX_HTTP_AI_RATE_MAX];
                                              /* pico-dollars per token; -1:
                                                 not given */
} ngx_http_ai_rates_t;


typedef struct {
    ngx_http_ai_rates_t        base;
    ngx_http_ai_rates_t        batch;         /* no input: not given */
    ngx_http_ai_rates_t        tiers[NGX_HTTP_AI_PRICE_TIERS];
    ngx_uint_t                 ntiers;        /* rising */
    int64_t                    request;       /* pico-dollars each */
    int64_t                    image;
    ngx_str_t                  version;       /* may be empty */
} ngx_http_ai_price_t;


/* names of the rates in a record, and of its other members with a figure */
extern ngx_str_t  ngx_http_ai_rate_names[];


/* with nothing given */
void ngx_http_ai_price_init(ngx_http_ai_price_t *price);

/*
 * After all that is given is in: what was not follows from what was.  Cached
 * input and cache writes cost what input does, those of an hour what those of
 * 5 minutes do, reasoning and audio what text does.  A tier and batch take
 * what they lack from the base.  NULL, or what is wrong.
 */
const char *ngx_http_ai_price_complete(ngx_http_ai_price_t *price);

/*
 * A record of prices.json, without its "model".  NULL, or what is wrong, in
 * the pool or static.
 */
const char *ngx_http_ai_price_parse(ngx_http_ai_json_t *j, ngx_pool_t *pool,
    ngx_http_ai_price_t *price);

/* those for an input of so many tokens */
const ngx_http_ai_rates_t *ngx_http_ai_price_rates(
    const ngx_http_ai_price_t *price, int64_t input);

/*
 * Pico-dollars of a request.  Never wraps, stays at the largest number.  Sums
 * of these are rounded once, by the function after it.
 */
int64_t ngx_http_ai_price_cost(const ngx_http_ai_price_t *price,
    ngx_http_ai_usage_t *usage, int64_t images);
int64_t ngx_http_ai_price_add(int64_t a, int64_t b);
int64_t ngx_http_ai_price_nano(int64_t pico);

/*
 * Nano-dollars to hold for tokens that are not known yet: all input is fresh,
 * output is of the dearer kind, rounded up.
 */
int64_t ngx_http_ai_price_estimate(const ngx_http_ai_price_t *price,
    int64_t input, int64_t output, int64_t images);

/* ... for more output of such a request, and pico-dollars of one token */
int64_t ngx_http_ai_price_rate(const ngx_http_ai_price_t *price,
    int64_t input);
int64_t ngx_http_ai_price_output(const ngx_http_ai_price_t *price,
    int64_t input, int64_t output);

/* pattern with "*" */
ngx_uint_t ngx_http_ai_price_match(ngx_str_t *pattern, ngx_str_t *name);


#endif /* _NGX_HTTP_AI_PRICE_H_INCLUDED_ */
