
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The members of request bodies that are known, by the objects that they are
 * in.  All that is not here is an extra: it goes into the key by its path,
 * and the answer is for the same dialect and mode only.  Plain C, private to
 * the key and its tests.
 */


#ifndef _NGX_HTTP_AI_CACHE_MEMBER_H_INCLUDED_
#define _NGX_HTTP_AI_CACHE_MEMBER_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_json.h"
#include "ngx_http_ai_pivot.h"
#include "ngx_http_ai_dialect.h"
#include "ngx_http_ai_cache_canon.h"


typedef enum {
    NGX_HTTP_AI_CACHE_NOWHERE = 0,

    NGX_HTTP_AI_CACHE_O_CHAT,         /* OpenAI's */
    NGX_HTTP_AI_CACHE_O_MESSAGE,
    NGX_HTTP_AI_CACHE_O_PART,
    NGX_HTTP_AI_CACHE_O_IMAGE,
    NGX_HTTP_AI_CACHE_O_AUDIO,
    NGX_HTTP_AI_CACHE_O_FILE,
    NGX_HTTP_AI_CACHE_O_CALL,
    NGX_HTTP_AI_CACHE_O_CALL_FUNCTION,
    NGX_HTTP_AI_CACHE_O_CALL_CUSTOM,
    NGX_HTTP_AI_CACHE_O_TOOL,
    NGX_HTTP_AI_CACHE_O_FUNCTION,
    NGX_HTTP_AI_CACHE_O_CHOICE,
    NGX_HTTP_AI_CACHE_O_CHOICE_FUNCTION,
    NGX_HTTP_AI_CACHE_O_FORMAT,
    NGX_HTTP_AI_CACHE_O_SCHEMA,
    NGX_HTTP_AI_CACHE_O_COMPLETION,
    NGX_HTTP_AI_CACHE_O_EMBEDDING,

    NGX_HTTP_AI_CACHE_A_CHAT,         /* Anthropic's */
    NGX_HTTP_AI_CACHE_A_MESSAGE,
    NGX_HTTP_AI_CACHE_A_BLOCK,
    NGX_HTTP_AI_CACHE_A_SOURCE,
    NGX_HTTP_AI_CACHE_A_TOOL,
    NGX_HTTP_AI_CACHE_A_CHOICE,
    NGX_HTTP_AI_CACHE_A_THINKING,
    NGX_HTTP_AI_CACHE_A_OUTPUT,
    NGX_HTTP_AI_CACHE_A_FORMAT,

    NGX_HTTP_AI_CACHE_PLACES
} ngx_http_ai_cache_place_e;


typedef enum {
    NGX_HTTP_AI_CACHE_MAP = 0,    /* is in the pivot */
    NGX_HTTP_AI_CACHE_SKIP,       /* does not change the answer */
    NGX_HTTP_AI_CACHE_MODE,       /* ... but the form in which it is sent */
    NGX_HTTP_AI_CACHE_NEUTRAL     /* asks for nothing when it is "neutral" */
} ngx_http_ai_cache_use_e;


/* types that the pivot has it of; of others it is an extra */

#define NGX_HTTP_AI_CACHE_FLAG     (1 << NGX_HTTP_AI_JSON_FALSE               \
                                    | 1 << NGX_HTTP_AI_JSON_TRUE)
#define NGX_HTTP_AI_CACHE_NUMBER   (1 << NGX_HTTP_AI_JSON_NUMBER)
#define NGX_HTTP_AI_CACHE_STRING   (1 << NGX_HTTP_AI_JSON_STRING)
#define NGX_HTTP_AI_CACHE_ARRAY    (1 << NGX_HTTP_AI_JSON_ARRAY)
#define NGX_HTTP_AI_CACHE_OBJECT   (1 << NGX_HTTP_AI_JSON_OBJECT)

/* what else must hold for it */

#define NGX_HTTP_AI_CACHE_TEXTS    0x0100    /* elements may be strings */
#define NGX_HTTP_AI_CACHE_FILLED   0x0200    /* empty: not in the pivot */
#define NGX_HTTP_AI_CACHE_URL      0x0400    /* no parameters of data URLs */
#define NGX_HTTP_AI_CACHE_PLAIN    0x0800    /* "text/plain" where the source
                                                is a text */
#define NGX_HTTP_AI_CACHE_HEAT     0x1000    /* the temperature */
#define NGX_HTTP_AI_CACHE_INPUT    0x2000    /* of embeddings */


/* values of the member that tells the kind of an object */

#define NGX_HTTP_AI_CACHE_KINDS    8

typedef struct {
    ngx_str_t                  member;    /* empty: there is one kind only */
    ngx_uint_t                 absent;    /* the first kind is meant then */
    const char                *kinds[NGX_HTTP_AI_CACHE_KINDS];
} ngx_http_ai_cache_place_t;


typedef struct {
    ngx_str_t                  name;
    uint8_t                    place;     /* the object it is in */
    uint8_t                    use;
    uint8_t                    kinds;     /* of that object, a bit for each;
                                             0: all */
    uint8_t                    inner;     /* place of the object, or of those
                                             in the array, that it is */
    uint16_t                   form;      /* types and what must hold */
    const char                *neutral;   /* json; null is it always */
} ngx_http_ai_cache_member_t;


typedef struct {
    ngx_pool_t                *pool;
    ngx_http_ai_json_t        *json;

    /* all members of the body that are not skipped, not only the extras */
    unsigned                   all:1;

    /* results */
    ngx_http_ai_cache_entries_t
                               entries;   /* by their paths, in no order */
    ngx_uint_t                 mode[2];   /* nodes of "stream" and of
                                             "stream_options", or NONE */
    ngx_uint_t                 input;     /* node of embeddings' "input" */
    ngx_uint_t                 kind;      /* of the object read last */
    unsigned                   extra:1;   /* there are extras */
    unsigned                   zero:1;    /* temperature is 0 */
} ngx_http_ai_cache_walk_t;


/* place of the body of a request; NOWHERE: all is unknown */
ngx_http_ai_cache_place_e ngx_http_ai_cache_body_place(
    ngx_http_ai_dialect_t *dialect, ngx_http_ai_op_e op);

/* by its key node; NULL: unknown */
const ngx_http_ai_cache_member_t *ngx_http_ai_cache_member(
    ngx_http_ai_json_t *j, ngx_uint_t key, ngx_uint_t place, ngx_uint_t *bit);

/* goes through the body; NGX_OK, NGX_DECLINED: too many extras, NGX_ERROR */
ngx_int_t ngx_http_ai_cache_walk(ngx_http_ai_cache_walk_t *w,
    ngx_uint_t place);


/* of the text of a JSON number */
ngx_uint_t ngx_http_ai_cache_is_zero(ngx_str_t *number);


/* the last one has no name */
extern const ngx_http_ai_cache_member_t  ngx_http_ai_cache_members[];
extern const ngx_http_ai_cache_place_t   ngx_http_ai_cache_places[];


#endif /* _NGX_HTTP_AI_CACHE_MEMBER_H_INCLUDED_ */
