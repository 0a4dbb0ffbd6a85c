
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Reading the errors of providers: what a reply says, what class it is of,
 * and what of it may be shown.
 */


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_pivot.h"


#define NGX_HTTP_AI_ERROR_TEXT   1024
#define NGX_HTTP_AI_ERROR_NAME   256
#define NGX_HTTP_AI_ERROR_NODES  16384
#define NGX_HTTP_AI_ERROR_LEVELS 6

/* kinds of reply a rule on the text of a message holds for */

#define NGX_HTTP_AI_ON_GOOD      0x01      /* an error inside a 2xx */
#define NGX_HTTP_AI_ON_CLIENT    0x02      /* 4xx but those below */
#define NGX_HTTP_AI_ON_AUTH      0x04      /* 401, 403 */
#define NGX_HTTP_AI_ON_LIMIT     0x08      /* 429 */
#define NGX_HTTP_AI_ON_BUSY      0x10      /* 424 */
#define NGX_HTTP_AI_ON_SERVER    0x20      /* 5xx */

#define NGX_HTTP_AI_ON_REQUEST   (NGX_HTTP_AI_ON_GOOD                         \
                                  |NGX_HTTP_AI_ON_CLIENT                      \
                                  |NGX_HTTP_AI_ON_AUTH)


typedef struct {
    ngx_str_t                  text;      /* lower case */
    ngx_http_ai_err_e          class;
    ngx_uint_t                 on;
} ngx_http_ai_err_rule_t;


static ngx_http_ai_err_e ngx_http_ai_err_by_name(
    ngx_http_ai_err_rule_t *rules, ngx_str_t *name);
static ngx_http_ai_err_e ngx_http_ai_err_by_text(ngx_uint_t status,
    ngx_str_t *message, ngx_uint_t no_quota);
static ngx_http_ai_err_e ngx_http_ai_err_by_status(ngx_uint_t status);
static ngx_uint_t ngx_http_ai_error_number(ngx_str_t *s);
static void ngx_http_ai_error_class(ngx_http_ai_error_t *err,
    ngx_uint_t status);
static ngx_int_t ngx_http_ai_error_json(ngx_http_ai_json_t *j,
    ngx_uint_t status, ngx_http_ai_error_t *err);
static ngx_uint_t ngx_http_ai_error_details(ngx_http_ai_json_t *j,
    ngx_uint_t obj, ngx_uint_t status, ngx_http_ai_error_t *err);
static ngx_uint_t ngx_http_ai_error_message(ngx_http_ai_json_t *j,
    ngx_uint_t n);
static ngx_int_t ngx_http_ai_error_copy(ngx_pool_t *pool, ngx_str_t *raw,
    size_t max, ngx_uint_t json, ngx_str_t *out);
static ngx_int_t ngx_http_ai_error_default(ngx_pool_t *pool,
    ngx_uint_t status, ngx_http_ai_error_t *err);
static ngx_uint_t ngx_http_ai_error_secret(u_char *p, size_t len,
    ngx_uint_t near);


/* types and codes that say more than the status does */

static ngx_http_ai_err_rule_t  ngx_http_ai_err_names[] = {

    { ngx_string("context_length_exceeded"),
      NGX_HTTP_AI_ERR_CONTEXT_LENGTH, 0 },
    { ngx_string("model_context_window_exceeded"),
      NGX_HTTP_AI_ERR_CONTEXT_LENGTH, 0 },
    { ngx_string("exceed_context_size_error"),
      NGX_HTTP_AI_ERR_CONTEXT_LENGTH, 0 },
    { ngx_string("exceed_context_size"),
      NGX_HTTP_AI_ERR_CONTEXT_LENGTH, 0 },
    { ngx_string("too_many_prompt_tokens"),
      NGX_HTTP_AI_ERR_CONTEXT_LENGTH, 0 },

    { ngx_string("insufficient_quota"), NGX_HTTP_AI_ERR_QUOTA, 0 },
    { ngx_string("quota_exceeded"), NGX_HTTP_AI_ERR_QUOTA, 0 },
    { ngx_string("quota_exhausted"), NGX_HTTP_AI_ERR_QUOTA, 0 },
    { ngx_string("billing_hard_limit_reached"), NGX_HTTP_AI_ERR_QUOTA, 0 },
    { ngx_string("enforced_spend_limit_reached"), NGX_HTTP_AI_ERR_QUOTA, 0 },
    { ngx_string("contract_spend_limit_reached"), NGX_HTTP_AI_ERR_QUOTA, 0 },
    { ngx_string("linked_organization_spend_limit_reached"),
      NGX_HTTP_AI_ERR_QUOTA, 0 },
    { ngx_string("servicequotaexceededexception"),
      NGX_HTTP_AI_ERR_QUOTA, 0 },

    { ngx_string("ramp_limit_exceeded"), NGX_HTTP_AI_ERR_RATE_LIMIT, 0 },
    { ngx_string("throttlingexception"), NGX_HTTP_AI_ERR_RATE_LIMIT, 0 },

    { ngx_string("billing_error"), NGX_HTTP_AI_ERR_BILLING, 0 },
    { ngx_string("insufficient_balance"), NGX_HTTP_AI_ERR_BILLING, 0 },
    { ngx_string("payment_required"), NGX_HTTP_AI_ERR_BILLING, 0 },

    { ngx_string("content_filter"), NGX_HTTP_AI_ERR_CONTENT_FILTER, 0 },
    { ngx_string("content_filtered"), NGX_HTTP_AI_ERR_CONTENT_FILTER, 0 },
    { ngx_string("content_policy_violation"),
      NGX_HTTP_AI_ERR_CONTENT_FILTER, 0 },
    { ngx_string("responsibleaipolicyviolation"),
      NGX_HTTP_AI_ERR_CONTENT_FILTER, 0 },
    { ngx_string("moderation_blocked"), NGX_HTTP_AI_ERR_CONTENT_FILTER, 0 },
    { ngx_string("bio_policy"), NGX_HTTP_AI_ERR_CONTENT_FILTER, 0 },
    { ngx_string("misalignment_policy_violation"),
      NGX_HTTP_AI_ERR_CONTENT_FILTER, 0 },

    { ngx_string("authentication_error"), NGX_HTTP_AI_ERR_AUTH, 0 },
    { ngx_string("invalid_api_key"), NGX_HTTP_AI_ERR_AUTH, 0 },
    { ngx_string("api_key_invalid"), NGX_HTTP_AI_ERR_AUTH, 0 },
    { ngx_string("access_token_expired"), NGX_HTTP_AI_ERR_AUTH, 0 },
    { ngx_string("unauthenticated"), NGX_HTTP_AI_ERR_AUTH, 0 },
    { ngx_string("unrecognizedclientexception"), NGX_HTTP_AI_ERR_AUTH, 0 },
    { ngx_string("expiredtokenexception"), NGX_HTTP_AI_ERR_AUTH, 0 },
    { ngx_string("invalidsignatureexception"), NGX_HTTP_AI_ERR_AUTH, 0 },
    { ngx_string("incompletesignature"), NGX_HTTP_AI_ERR_AUTH, 0 },
    { ngx_string("incompletesignatureexception"), NGX_HTTP_AI_ERR_AUTH, 0 },
    { ngx_string("missingauthenticationtoken"), NGX_HTTP_AI_ERR_AUTH, 0 },
    { ngx_string("missingauthenticationtokenexception"),
      NGX_HTTP_AI_ERR_AUTH, 0 },

    { ngx_string("permission_error"), NGX_HTTP_AI_ERR_PERMISSION, 0 },
    { ngx_string("permission_denied"), NGX_HTTP_AI_ERR_PERMISSION, 0 },
    { ngx_string("service_disabled"), NGX_HTTP_AI_ERR_PERMISSION, 0 },
    { ngx_string("accessdeniedexception"), NGX_HTTP_AI_ERR_PERMISSION, 0 },

    { ngx_string("model_not_found"), NGX_HTTP_AI_ERR_NOT_FOUND, 0 },
    { ngx_string("invalid_model"), NGX_HTTP_AI_ERR_NOT_FOUND, 0 },
    { ngx_string("not_found_error"), NGX_HTTP_AI_ERR_NOT_FOUND, 0 },
    { ngx_string("not_found"), NGX_HTTP_AI_ERR_NOT_FOUND, 0 },
    { ngx_string("notfounderror"), NGX_HTTP_AI_ERR_NOT_FOUND, 0 },
    { ngx_string("deploymentnotfound"), NGX_HTTP_AI_ERR_NOT_FOUND, 0 },
    { ngx_string("resourcenotfoundexception"),
      NGX_HTTP_AI_ERR_NOT_FOUND, 0 },

    { ngx_string("overloaded_error"), NGX_HTTP_AI_ERR_OVERLOADED, 0 },
    { ngx_string("overloaded"), NGX_HTTP_AI_ERR_OVERLOADED, 0 },
    { ngx_string("engine_overloaded"), NGX_HTTP_AI_ERR_OVERLOADED, 0 },
    { ngx_string("engine_overloaded_error"), NGX_HTTP_AI_ERR_OVERLOADED, 0 },
    { ngx_string("capacity_exceeded"), NGX_HTTP_AI_ERR_OVERLOADED, 0 },
    { ngx_string("unavailable"), NGX_HTTP_AI_ERR_OVERLOADED, 0 },
    { ngx_string("service_unavailable"), NGX_HTTP_AI_ERR_OVERLOADED, 0 },
    { ngx_string("serviceunavailableexception"),
      NGX_HTTP_AI_ERR_OVERLOADED, 0 },
    { ngx_string("modelnotreadyexception"), NGX_HTTP_AI_ERR_OVERLOADED, 0 },

    { ngx_string("request_too_large"), NGX_HTTP_AI_ERR_TOO_LARGE, 0 },

    { ngx_string("timeout_error"), NGX_HTTP_AI_ERR_TIMEOUT, 0 },
    { ngx_string("request_timeout"), NGX_HTTP_AI_ERR_TIMEOUT, 0 },
    { ngx_string("deadline_exceeded"), NGX_HTTP_AI_ERR_TIMEOUT, 0 },
    { ngx_string("modeltimeoutexception"), NGX_HTTP_AI_ERR_TIMEOUT, 0 },

    { ngx_null_string, NGX_HTTP_AI_ERR_NONE, 0 }
};


/* those that count only where there is no status of an error */

static ngx_http_ai_err_rule_t  ngx_http_ai_err_weak_names[] = {

    { ngx_string("rate_limit_error"), NGX_HTTP_AI_ERR_RATE_LIMIT, 0 },
    { ngx_string("rate_limit_exceeded"), NGX_HTTP_AI_ERR_RATE_LIMIT, 0 },
    { ngx_string("rate_limit_reached"), NGX_HTTP_AI_ERR_RATE_LIMIT, 0 },
    { ngx_string("ratelimitreached"), NGX_HTTP_AI_ERR_RATE_LIMIT, 0 },
    { ngx_string("resource_exhausted"), NGX_HTTP_AI_ERR_RATE_LIMIT, 0 },
    { ngx_string("too_many_requests"), NGX_HTTP_AI_ERR_RATE_LIMIT, 0 },
    { ngx_string("requests"), NGX_HTTP_AI_ERR_RATE_LIMIT, 0 },
    { ngx_string("tokens"), NGX_HTTP_AI_ERR_RATE_LIMIT, 0 },

    { ngx_string("invalid_request_error"),
      NGX_HTTP_AI_ERR_INVALID_REQUEST, 0 },
    { ngx_string("invalid_argument"), NGX_HTTP_AI_ERR_INVALID_REQUEST, 0 },
    { ngx_string("invalid-argument"), NGX_HTTP_AI_ERR_INVALID_REQUEST, 0 },
    { ngx_string("failed_precondition"),
      NGX_HTTP_AI_ERR_INVALID_REQUEST, 0 },
    { ngx_string("badrequesterror"), NGX_HTTP_AI_ERR_INVALID_REQUEST, 0 },
    { ngx_string("validationexception"),
      NGX_HTTP_AI_ERR_INVALID_REQUEST, 0 },
    { ngx_string("invalid_prompt"), NGX_HTTP_AI_ERR_INVALID_REQUEST, 0 },

    { ngx_string("vector_store_timeout"), NGX_HTTP_AI_ERR_TIMEOUT, 0 },

    { ngx_null_string, NGX_HTTP_AI_ERR_NONE, 0 }
};


/* the first that is found decides */

static ngx_http_ai_err_rule_t  ngx_http_ai_err_texts[] = {

#define NGX_HTTP_AI_CONTEXT_TEXT(text)                                        \
    { ngx_string(text), NGX_HTTP_AI_ERR_CONTEXT_LENGTH,                       \
      NGX_HTTP_AI_ON_REQUEST|NGX_HTTP_AI_ON_SERVER }

    NGX_HTTP_AI_CONTEXT_TEXT("maximum context length"),
    NGX_HTTP_AI_CONTEXT_TEXT("context_length_exceeded"),
    NGX_HTTP_AI_CONTEXT_TEXT("maximum prompt length"),
    NGX_HTTP_AI_CONTEXT_TEXT("maximum model length"),
    NGX_HTTP_AI_CONTEXT_TEXT("model's context length"),
    NGX_HTTP_AI_CONTEXT_TEXT("prompt is too long"),
    NGX_HTTP_AI_CONTEXT_TEXT("input is too long"),
    NGX_HTTP_AI_CONTEXT_TEXT("messages is too long"),
    NGX_HTTP_AI_CONTEXT_TEXT("exceeds the maximum number of tokens"),
    NGX_HTTP_AI_CONTEXT_TEXT("exceed context limit"),
    NGX_HTTP_AI_CONTEXT_TEXT("exceeds the context window"),
    NGX_HTTP_AI_CONTEXT_TEXT("exceed the context window"),
    NGX_HTTP_AI_CONTEXT_TEXT("model's context window"),
    NGX_HTTP_AI_CONTEXT_TEXT("available context size"),
    NGX_HTTP_AI_CONTEXT_TEXT("exceed_context_size"),
    NGX_HTTP_AI_CONTEXT_TEXT("too many total text bytes"),
    NGX_HTTP_AI_CONTEXT_TEXT("input token count"),
    NGX_HTTP_AI_CONTEXT_TEXT("reduce the length of the messages"),
    NGX_HTTP_AI_CONTEXT_TEXT("`inputs` tokens + `max_new_tokens`"),

#define NGX_HTTP_AI_ACCOUNT_TEXT(text, class)                                 \
    { ngx_string(text), class,                                                \
      NGX_HTTP_AI_ON_REQUEST|NGX_HTTP_AI_ON_LIMIT }

    NGX_HTTP_AI_ACCOUNT_TEXT("exceeded your current quota",
                             NGX_HTTP_AI_ERR_QUOTA),
    NGX_HTTP_AI_ACCOUNT_TEXT("specified api usage limit",
                             NGX_HTTP_AI_ERR_QUOTA),
    NGX_HTTP_AI_ACCOUNT_TEXT("spend limit", NGX_HTTP_AI_ERR_QUOTA),
    NGX_HTTP_AI_ACCOUNT_TEXT("spending limit", NGX_HTTP_AI_ERR_QUOTA),
    NGX_HTTP_AI_ACCOUNT_TEXT("billing hard limit", NGX_HTTP_AI_ERR_QUOTA),
    NGX_HTTP_AI_ACCOUNT_TEXT("monthly quota", NGX_HTTP_AI_ERR_QUOTA),
    NGX_HTTP_AI_ACCOUNT_TEXT("daily quota", NGX_HTTP_AI_ERR_QUOTA),

    NGX_HTTP_AI_ACCOUNT_TEXT("credit balance is too low",
                             NGX_HTTP_AI_ERR_BILLING),
    NGX_HTTP_AI_ACCOUNT_TEXT("insufficient balance",
                             NGX_HTTP_AI_ERR_BILLING),
    NGX_HTTP_AI_ACCOUNT_TEXT("insufficient credit",
                             NGX_HTTP_AI_ERR_BILLING),

#define NGX_HTTP_AI_REQUEST_TEXT(text, class)                                 \
    { ngx_string(text), class, NGX_HTTP_AI_ON_REQUEST }

    NGX_HTTP_AI_REQUEST_TEXT("flagged", NGX_HTTP_AI_ERR_CONTENT_FILTER),
    NGX_HTTP_AI_REQUEST_TEXT("content management policy",
                             NGX_HTTP_AI_ERR_CONTENT_FILTER),
    NGX_HTTP_AI_REQUEST_TEXT("content filtering policy",
                             NGX_HTTP_AI_ERR_CONTENT_FILTER),
    NGX_HTTP_AI_REQUEST_TEXT("requires moderation",
                             NGX_HTTP_AI_ERR_CONTENT_FILTER),
    NGX_HTTP_AI_REQUEST_TEXT("rejected as a result of our safety system",
                             NGX_HTTP_AI_ERR_CONTENT_FILTER),

    NGX_HTTP_AI_REQUEST_TEXT("api key not valid", NGX_HTTP_AI_ERR_AUTH),
    NGX_HTTP_AI_REQUEST_TEXT("incorrect api key", NGX_HTTP_AI_ERR_AUTH),
    NGX_HTTP_AI_REQUEST_TEXT("invalid api key", NGX_HTTP_AI_ERR_AUTH),
    NGX_HTTP_AI_REQUEST_TEXT("invalid x-api-key", NGX_HTTP_AI_ERR_AUTH),
    NGX_HTTP_AI_REQUEST_TEXT("security token included in the request",
                             NGX_HTTP_AI_ERR_AUTH),
    NGX_HTTP_AI_REQUEST_TEXT("request signature we calculated",
                             NGX_HTTP_AI_ERR_AUTH),

    NGX_HTTP_AI_REQUEST_TEXT("model identifier is invalid",
                             NGX_HTTP_AI_ERR_NOT_FOUND),

#define NGX_HTTP_AI_BUSY_TEXT(text)                                           \
    { ngx_string(text), NGX_HTTP_AI_ERR_OVERLOADED,                           \
      NGX_HTTP_AI_ON_GOOD|NGX_HTTP_AI_ON_LIMIT|NGX_HTTP_AI_ON_BUSY            \
      |NGX_HTTP_AI_ON_SERVER }

    NGX_HTTP_AI_BUSY_TEXT("overloaded"),
    NGX_HTTP_AI_BUSY_TEXT("not ready for inference"),
    NGX_HTTP_AI_BUSY_TEXT("model is busy"),
    NGX_HTTP_AI_BUSY_TEXT("over capacity"),
    NGX_HTTP_AI_BUSY_TEXT("at capacity"),

    { ngx_string("unauthorized"), NGX_HTTP_AI_ERR_AUTH,
      NGX_HTTP_AI_ON_GOOD },
    { ngx_string("rate limit"), NGX_HTTP_AI_ERR_RATE_LIMIT,
      NGX_HTTP_AI_ON_GOOD },
    { ngx_string("too many requests"), NGX_HTTP_AI_ERR_RATE_LIMIT,
      NGX_HTTP_AI_ON_GOOD },
    { ngx_string("timed out"), NGX_HTTP_AI_ERR_TIMEOUT,
      NGX_HTTP_AI_ON_GOOD },

    { ngx_null_string, NGX_HTTP_AI_ERR_NONE, 0 }
};


ngx_http_ai_err_e
ngx_http_ai_err_classify(ngx_uint_t status, ngx_str_t *type, ngx_str_t *code,
    ngx_str_t *message)
{
    ngx_uint_t         n, exhausted;
    ngx_http_ai_err_e  e;

    e = ngx_http_ai_err_by_name(ngx_http_ai_err_names, code);

    if (e == NGX_HTTP_AI_ERR_NONE) {
        e = ngx_http_ai_err_by_name(ngx_http_ai_err_names, type);
    }

    if (e == NGX_HTTP_AI_ERR_QUOTA && status == 402) {
        return NGX_HTTP_AI_ERR_BILLING;
    }

    if (e != NGX_HTTP_AI_ERR_NONE) {
        return e;
    }

    /* Google's "exceeded your current quota" is most often that of a minute */

    exhausted = (type->len == sizeof("RESOURCE_EXHAUSTED") - 1
                 && ngx_strncasecmp(type->data,
                                    (u_char *) "RESOURCE_EXHAUSTED",
                                    type->len)
                    == 0);

    e = ngx_http_ai_err_by_text(status, message, exhausted);

    if (e != NGX_HTTP_AI_ERR_NONE) {
        return e;
    }

    if (status >= 400) {
        return ngx_http_ai_err_by_status(status);
    }

    e = ngx_http_ai_err_by_name(ngx_http_ai_err_weak_names, code);

    if (e == NGX_HTTP_AI_ERR_NONE) {
        e = ngx_http_ai_err_by_name(ngx_http_ai_err_weak_names, type);
    }

    if (e != NGX_HTTP_AI_ERR_NONE) {
        return e;
    }

    n = ngx_http_ai_error_number(code);

    if (n != 0) {
        return ngx_http_ai_err_by_status(n);
    }

    return NGX_HTTP_AI_ERR_SERVER;
}


static ngx_http_ai_err_e
ngx_http_ai_err_by_name(ngx_http_ai_err_rule_t *rules, ngx_str_t *name)
{
    ngx_http_ai_err_rule_t  *rule;

    if (name->len == 0) {
        return NGX_HTTP_AI_ERR_NONE;
    }

    for (rule = rules; rule->text.len; rule++) {

        if (rule->text.len == name->len
            && ngx_strncasecmp(rule->text.data, name->data, name->len) == 0)
        {
            return rule->class;
        }
    }

    return NGX_HTTP_AI_ERR_NONE;
}


static ngx_http_ai_err_e
ngx_http_ai_err_by_text(ngx_uint_t status, ngx_str_t *message,
    ngx_uint_t no_quota)
{
    u_char                  *p, *last, low[NGX_HTTP_AI_ERROR_TEXT];
    size_t                   len;
    ngx_uint_t               on;
    ngx_http_ai_err_rule_t  *rule;

    if (message->len == 0) {
        return NGX_HTTP_AI_ERR_NONE;
    }

    if (status < 400) {
        on = NGX_HTTP_AI_ON_GOOD;

    } else if (status >= 500) {
        on = NGX_HTTP_AI_ON_SERVER;

    } else if (status == 401 || status == 403) {
        on = NGX_HTTP_AI_ON_AUTH;

    } else if (status == 424) {
        on = NGX_HTTP_AI_ON_BUSY;

    } else if (status == 429) {
        on = NGX_HTTP_AI_ON_LIMIT;

    } else {
        on = NGX_HTTP_AI_ON_CLIENT;
    }

    len = ngx_http_ai_min(message->len, sizeof(low));

    ngx_strlow(low, message->data, len);

    last = low + len;

    for (rule = ngx_http_ai_err_texts; rule->text.len; rule++) {

        if ((rule->on & on) == 0
            || (no_quota && rule->class == NGX_HTTP_AI_ERR_QUOTA))
        {
            continue;
        }

        for (p = low; (size_t) (last - p) >= rule->text.len; p++) {

            p = memchr(p, rule->text.data[0],
                       last - p - rule->text.len + 1);

            if (p == NULL) {
                break;
            }

            if (ngx_memcmp(p, rule->text.data, rule->text.len) == 0) {
                return rule->class;
            }
        }
    }

    return NGX_HTTP_AI_ERR_NONE;
}


static ngx_http_ai_err_e
ngx_http_ai_err_by_status(ngx_uint_t status)
{
    switch (status) {

    case 401:
        return NGX_HTTP_AI_ERR_AUTH;

    case 402:
        return NGX_HTTP_AI_ERR_BILLING;

    case 403:
        return NGX_HTTP_AI_ERR_PERMISSION;

    case 404:
    case 410:
        return NGX_HTTP_AI_ERR_NOT_FOUND;

    case 408:
    case 504:
        return NGX_HTTP_AI_ERR_TIMEOUT;

    case 413:
        return NGX_HTTP_AI_ERR_TOO_LARGE;

    case 424:
        return NGX_HTTP_AI_ERR_SERVER;

    case 429:
        return NGX_HTTP_AI_ERR_RATE_LIMIT;

    case 425:
    case 498:
    case 503:
    case 529:
        return NGX_HTTP_AI_ERR_OVERLOADED;

    case 501:
        return NGX_HTTP_AI_ERR_INVALID_REQUEST;

    default:
        return (status < 500) ? NGX_HTTP_AI_ERR_INVALID_REQUEST
                              : NGX_HTTP_AI_ERR_SERVER;
    }
}


/* an HTTP status of an error that came as a code, or 0 */

static ngx_uint_t
ngx_http_ai_error_number(ngx_str_t *s)
{
    ngx_int_t  n;

    if (s->len != 3) {
        return 0;
    }

    n = ngx_atoi(s->data, s->len);

    return (n >= 400 && n <= 599) ? (ngx_uint_t) n : 0;
}


ngx_int_t
ngx_http_ai_error_read(ngx_pool_t *pool, ngx_uint_t status, u_char *body,
    size_t len, ngx_http_ai_error_t *err)
{
    u_char              *p, *last;
    ngx_int_t            rc;
    ngx_str_t            text;
    ngx_http_ai_json_t   j;

    ngx_memzero(err, sizeof(ngx_http_ai_error_t));

    err->status = status;

    if (len == 0) {
        return ngx_http_ai_error_default(pool, status, err);
    }

    last = body + len;

    if (len >= 3 && body[0] == 0xef && body[1] == 0xbb && body[2] == 0xbf) {
        body += 3;
    }

    p = ngx_http_ai_json_skip_space(body, last);

    /* a refusal may come as the one event of a stream */

    if (last - p > 6 && ngx_strncmp(p, "event:", 6) == 0) {

        while (p < last && *p != LF && *p != CR) {
            p++;
        }

        p = ngx_http_ai_json_skip_space(p, last);
    }

    if (last - p > 5 && ngx_strncmp(p, "data:", 5) == 0) {
        p = ngx_http_ai_json_skip_space(p + 5, last);

        for (body = p; body < last && *body != LF && *body != CR; body++) {
            /* void */
        }

        last = body;
    }

    if (p == last) {
        return ngx_http_ai_error_default(pool, status, err);
    }

    if (*p == '{' || *p == '[' || *p == '"') {
        ngx_memzero(&j, sizeof(ngx_http_ai_json_t));

        j.pool = pool;
        j.max_nodes = NGX_HTTP_AI_ERROR_NODES;

        rc = ngx_http_ai_json_parse(&j, p, last - p);

        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (rc == NGX_OK) {
            return ngx_http_ai_error_json(&j, status, err);
        }

    } else if (*p == '<') {
        return ngx_http_ai_error_default(pool, status, err);
    }

    text.data = p;
    text.len = last - p;

    if (ngx_http_ai_error_copy(pool, &text, NGX_HTTP_AI_ERROR_TEXT, 0,
                               &err->message)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (err->message.len == 0) {
        return ngx_http_ai_error_default(pool, status, err);
    }

    ngx_http_ai_error_class(err, status);

    return NGX_OK;
}


static void
ngx_http_ai_error_class(ngx_http_ai_error_t *err, ngx_uint_t status)
{
    err->class = ngx_http_ai_err_classify(status, &err->type, &err->code,
                                          &err->message);

    if (status < 400) {
        err->status = ngx_http_ai_error_number(&err->code);

        if (err->status == 0) {
            err->status = ngx_http_ai_err_status(err->class);
        }
    }
}


static ngx_int_t
ngx_http_ai_error_json(ngx_http_ai_json_t *j, ngx_uint_t status,
    ngx_http_ai_error_t *err)
{
    u_char             *p;
    ngx_str_t           raw, *field;
    ngx_uint_t          i, k, n, top, obj;
    ngx_http_ai_err_e   class;

    static struct {
        ngx_str_t       name;
        ngx_uint_t      field;
    }  names[] = {
        { ngx_string("type"), offsetof(ngx_http_ai_error_t, type) },
        { ngx_string("status"), offsetof(ngx_http_ai_error_t, type) },
        { ngx_string("__type"), offsetof(ngx_http_ai_error_t, type) },
        { ngx_string("code"), offsetof(ngx_http_ai_error_t, code) },
        { ngx_string("error_code"), offsetof(ngx_http_ai_error_t, code) },
        { ngx_string("statusCode"), offsetof(ngx_http_ai_error_t, code) },
        { ngx_string("param"), offsetof(ngx_http_ai_error_t, param) },
        { ngx_null_string, 0 }
    };

    /* the first of several errors */

    for (top = 0, i = 0;
         ngx_http_ai_json_type(j, top) == NGX_HTTP_AI_JSON_ARRAY
         && i < NGX_HTTP_AI_ERROR_LEVELS;
         i++)
    {
        top = ngx_http_ai_json_first(j, top);
    }

    n = ngx_http_ai_error_message(j, top);

    if (n != NGX_HTTP_AI_JSON_NONE) {
        raw = ngx_http_ai_json_raw(j, n);

        if (ngx_http_ai_error_copy(j->pool, &raw, NGX_HTTP_AI_ERROR_TEXT, 1,
                                   &err->message)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    obj = top;

    for (i = 0; i < 3; i++) {
        n = ngx_http_ai_json_member(j, obj, "error");

        if (ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_OBJECT) {
            n = ngx_http_ai_json_member(j, obj, "response");
        }

        if (ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_OBJECT) {
            break;
        }

        obj = n;
    }

    for (k = 0; names[k].name.len; k++) {
        field = (ngx_str_t *) ((u_char *) err + names[k].field);

        if (field->data) {
            continue;
        }

        n = ngx_http_ai_json_get(j, obj, (char *) names[k].name.data,
                                 names[k].name.len);

        if (n == NGX_HTTP_AI_JSON_NONE
            || (j->nodes[n].type != NGX_HTTP_AI_JSON_STRING
                && j->nodes[n].type != NGX_HTTP_AI_JSON_NUMBER)
            || j->nodes[n].len == 0)
        {
            continue;
        }

        raw = ngx_http_ai_json_raw(j, n);

        /* the name of an event, not of a kind of errors */

        if (obj == top && names[k].field == offsetof(ngx_http_ai_error_t, type)
            && (ngx_http_ai_str_is(&raw, "error")
                || ngx_http_ai_str_is(&raw, "response.failed")))
        {
            continue;
        }

        if (ngx_http_ai_error_copy(j->pool, &raw, NGX_HTTP_AI_ERROR_NAME,
                                   j->nodes[n].type == NGX_HTTP_AI_JSON_STRING,
                                   field)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    /* "com.amazon.coral#ThrottlingException:http://..." */

    p = err->type.len ? ngx_strlchr(err->type.data,
                                    err->type.data + err->type.len, '#')
                      : NULL;
    if (p) {
        err->type.len -= p + 1 - err->type.data;
        err->type.data = p + 1;

        p = ngx_strlchr(err->type.data, err->type.data + err->type.len, ':');
        if (p) {
            err->type.len = p - err->type.data;
        }
    }

    ngx_http_ai_error_class(err, status);

    if (ngx_http_ai_error_details(j, obj, status, err) != NGX_OK) {
        return NGX_ERROR;
    }

    /* a router's "Provider returned error" with what the provider said */

    n = ngx_http_ai_json_member(j, obj, "metadata");
    n = ngx_http_ai_json_member(j, n, "raw");

    if (ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_STRING
        && (err->class == NGX_HTTP_AI_ERR_INVALID_REQUEST
            || err->class == NGX_HTTP_AI_ERR_SERVER))
    {
        raw = ngx_http_ai_json_raw(j, n);
        class = ngx_http_ai_err_by_text(status, &raw, 0);

        if (class != NGX_HTTP_AI_ERR_NONE) {
            err->class = class;
        }
    }

    if (err->message.len) {
        return NGX_OK;
    }

    class = err->class;

    if (ngx_http_ai_error_default(j->pool, status, err) != NGX_OK) {
        return NGX_ERROR;
    }

    err->class = class;

    return NGX_OK;
}


/* causes in Anthropic's and Google's "details" */

static ngx_uint_t
ngx_http_ai_error_details(ngx_http_ai_json_t *j, ngx_uint_t obj,
    ngx_uint_t status, ngx_http_ai_error_t *err)
{
    int64_t             wait;
    ngx_str_t           s, delay, empty;
    ngx_uint_t          details, i, n, q;
    ngx_http_ai_err_e   class;

    ngx_str_null(&empty);

    details = ngx_http_ai_json_member(j, obj, "details");

    if (ngx_http_ai_json_type(j, details) == NGX_HTTP_AI_JSON_OBJECT) {
        n = ngx_http_ai_json_member(j, details, "error_code");

        if (ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_STRING) {
            s = ngx_http_ai_json_raw(j, n);
            class = ngx_http_ai_err_by_name(ngx_http_ai_err_names, &s);

            if (class != NGX_HTTP_AI_ERR_NONE) {
                err->class = class;
            }

            if (err->code.data == NULL) {
                return ngx_http_ai_error_copy(j->pool, &s,
                                              NGX_HTTP_AI_ERROR_NAME, 1,
                                              &err->code);
            }
        }

        return NGX_OK;
    }

    if (ngx_http_ai_json_type(j, details) != NGX_HTTP_AI_JSON_ARRAY) {
        return NGX_OK;
    }

    for (i = ngx_http_ai_json_first(j, details);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, details, i))
    {
        n = ngx_http_ai_json_member(j, i, "reason");

        if (ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_STRING) {
            s = ngx_http_ai_json_raw(j, n);
            class = ngx_http_ai_err_by_name(ngx_http_ai_err_names, &s);

            if (class != NGX_HTTP_AI_ERR_NONE) {
                err->class = class;
            }
        }

        n = ngx_http_ai_json_member(j, i, "retryDelay");

        if (ngx_http_ai_json_type(j, n) == NGX_HTTP_AI_JSON_STRING) {
            delay = ngx_http_ai_json_raw(j, n);
            wait = ngx_http_ai_retry_after(&delay, &empty, 0);

            if (wait > 0) {
                err->retry_after = (ngx_msec_t) wait;
            }
        }

        n = ngx_http_ai_json_member(j, i, "violations");

        if (ngx_http_ai_json_type(j, n) != NGX_HTTP_AI_JSON_ARRAY) {
            continue;
        }

        for (q = ngx_http_ai_json_first(j, n);
             q != NGX_HTTP_AI_JSON_NONE;
             q = ngx_http_ai_json_next(j, n, q))
        {
            s = ngx_http_ai_json_raw(j, ngx_http_ai_json_member(j, q,
                                                                "quotaId"));

            for ( /* void */ ; s.len >= 6; s.data++, s.len--) {

                if (status == 429 && ngx_strncmp(s.data, "PerDay", 6) == 0) {
                    err->class = NGX_HTTP_AI_ERR_QUOTA;
                }
            }
        }
    }

    return NGX_OK;
}


/* the string that explains the error, whatever it is wrapped in */

static ngx_uint_t
ngx_http_ai_error_message(ngx_http_ai_json_t *j, ngx_uint_t n)
{
    ngx_uint_t  i, k, level, type;

    static ngx_str_t  outer[] = {
        ngx_string("error"),
        ngx_string("message"),
        ngx_string("Message"),
        ngx_string("detail"),
        ngx_string("errors"),
        ngx_string("msg"),
        ngx_string("response"),
        ngx_null_string
    };

    static ngx_str_t  inner[] = {
        ngx_string("message"),
        ngx_string("Message"),
        ngx_string("error"),
        ngx_string("detail"),
        ngx_string("errors"),
        ngx_string("msg"),
        ngx_null_string
    };

    ngx_str_t  *names;

    for (level = 0; level < NGX_HTTP_AI_ERROR_LEVELS; level++) {

        type = ngx_http_ai_json_type(j, n);

        if (type == NGX_HTTP_AI_JSON_STRING) {
            return j->nodes[n].len ? n : NGX_HTTP_AI_JSON_NONE;
        }

        if (type == NGX_HTTP_AI_JSON_ARRAY) {
            n = ngx_http_ai_json_first(j, n);
            continue;
        }

        if (type != NGX_HTTP_AI_JSON_OBJECT) {
            return NGX_HTTP_AI_JSON_NONE;
        }

        names = level ? inner : outer;
        i = NGX_HTTP_AI_JSON_NONE;

        for (k = 0; names[k].len; k++) {
            i = ngx_http_ai_json_get(j, n, (char *) names[k].data,
                                     names[k].len);

            type = ngx_http_ai_json_type(j, i);

            if ((type == NGX_HTTP_AI_JSON_STRING && j->nodes[i].len)
                || (type >= NGX_HTTP_AI_JSON_ARRAY
                    && ngx_http_ai_json_first(j, i) != NGX_HTTP_AI_JSON_NONE))
            {
                break;
            }
        }

        if (names[k].len == 0) {
            return NGX_HTTP_AI_JSON_NONE;
        }

        n = i;
    }

    return NGX_HTTP_AI_JSON_NONE;
}


/* a foreign text made safe: plain, short, one line, without credentials */

static ngx_int_t
ngx_http_ai_error_copy(ngx_pool_t *pool, ngx_str_t *raw, size_t max,
    ngx_uint_t json, ngx_str_t *out)
{
    u_char     *p, *last;
    ngx_str_t   s;

    s = *raw;

    /* six bytes at most for one of the result; masking needs whole words */

    s.len = ngx_http_ai_min(s.len, max * 8);

    out->data = ngx_pnalloc(pool, s.len + 1);
    if (out->data == NULL) {
        return NGX_ERROR;
    }

    if (json) {
        out->len = ngx_http_ai_json_unescape(out->data, &s) - out->data;

    } else {
        out->len = ngx_cpymem(out->data, s.data, s.len) - out->data;
    }

    last = out->data + out->len;

    for (p = out->data; p < last; p++) {
        if (*p < 0x20 || *p == 0x7f) {
            *p = ' ';
        }
    }

    while (out->len && out->data[out->len - 1] == ' ') {
        out->len--;
    }

    ngx_http_ai_mask(out);

    if (out->len > max) {

        /* not in the middle of a character */

        for (out->len = max; out->len; out->len--) {
            if ((out->data[out->len] & 0xc0) != 0x80) {
                break;
            }
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_error_default(ngx_pool_t *pool, ngx_uint_t status,
    ngx_http_ai_error_t *err)
{
    u_char  *p;

    if (status < 400) {
        ngx_str_set(&err->message, "upstream returned an invalid answer");

    } else {
        p = ngx_pnalloc(pool, sizeof("upstream returned HTTP ") - 1
                              + NGX_INT_T_LEN);
        if (p == NULL) {
            return NGX_ERROR;
        }

        err->message.data = p;
        err->message.len = ngx_sprintf(p, "upstream returned HTTP %ui", status)
                           - p;
    }

    ngx_http_ai_error_class(err, status);

    return NGX_OK;
}


#define ngx_http_ai_is_word(ch)                                               \
    (((ch) >= '0' && (ch) <= '9')                                             \
     || (((ch) | 0x20) >= 'a' && ((ch) | 0x20) <= 'z')                        \
     || (ch) == '_' || (ch) == '-' || (ch) == '*' || (ch) == '+'              \
     || (ch) == '/' || (ch) == '=' || (ch) == '.' || (ch) == ':')


/* how far behind a word like "key" a secret is looked for */

#define NGX_HTTP_AI_MASK_NEAR  3


void
ngx_http_ai_mask(ngx_str_t *s)
{
    u_char      *p, *dst, *word, *end, *last;
    size_t       k, n, len;
    ngx_uint_t   i, near;

    static ngx_str_t  prefixes[] = {
        ngx_string("sk-"), ngx_string("sk_"), ngx_string("pk-"),
        ngx_string("rk-"), ngx_string("gsk_"), ngx_string("xai-"),
        ngx_string("hf_"), ngx_string("r8_"), ngx_string("AIza"),
        ngx_string("AKIA"), ngx_string("ASIA"), ngx_string("ya29."),
        ngx_string("eyJ"), ngx_string("org-"), ngx_string("arn:"),
        ngx_string("pplx-"), ngx_string("csk-"), ngx_string("ghp_"),
        ngx_string("aigw_"),
        ngx_null_string
    };

    static ngx_str_t  words[] = {
        ngx_string("bearer"), ngx_string("key"), ngx_string("api-key"),
        ngx_string("api_key"), ngx_string("x-api-key"), ngx_string("apikey"),
        ngx_string("token"), ngx_string("secret"), ngx_string("password"),
        ngx_string("authorization"), ngx_string("credential"),
        ngx_null_string
    };

    p = s->data;
    dst = p;
    last = p + s->len;
    near = 0;

    while (p < last) {

        if (!ngx_http_ai_is_word(*p)) {
            *dst++ = *p++;
            continue;
        }

        word = p;

        while (p < last && ngx_http_ai_is_word(*p)) {
            p++;
        }

        /* "key:value", "key=value" */

        for (end = word; end < p; end++) {
            if ((*end == ':' || *end == '=') && end > word
                && (size_t) (p - end) > 1
                && ngx_strncmp(word, "arn:", 4) != 0)
            {
                end++;
                break;
            }
        }

        if (end < p) {
            p = end;
        }

        /* punctuation of the sentence */

        while (end > word + 1
               && (end[-1] == '.' || end[-1] == ':' || end[-1] == '='))
        {
            end--;
        }

        len = end - word;
        n = (size_t) -1;

        /* a key may be a part of an address or an assignment */

        for (k = 0; k < len && n == (size_t) -1; k++) {

            if (k != 0 && word[k - 1] != '/' && word[k - 1] != ':'
                && word[k - 1] != '=' && word[k - 1] != '.'
                && word[k - 1] != '+')
            {
                continue;
            }

            for (i = 0; prefixes[i].len; i++) {

                if (len - k >= prefixes[i].len + 4
                    && ngx_strncmp(word + k, prefixes[i].data,
                                   prefixes[i].len)
                       == 0)
                {
                    n = k + prefixes[i].len;
                    break;
                }
            }
        }

        if (n == (size_t) -1
            && ngx_http_ai_error_secret(word, len,
                                        near ? NGX_HTTP_AI_MASK_NEAR + 1 - near
                                             : 0))
        {
            n = 0;
        }

        if (n != (size_t) -1) {
            dst = ngx_movemem(dst, word, n);
            dst = ngx_cpymem(dst, "***", 3);
            dst = ngx_movemem(dst, end, p - end);
            continue;
        }

        dst = ngx_movemem(dst, word, p - word);

        if (near) {
            near--;
        }

        for (i = 0; words[i].len; i++) {

            if (len == words[i].len
                && ngx_strncasecmp(word, words[i].data, len) == 0)
            {
                near = NGX_HTTP_AI_MASK_NEAR;
                break;
            }
        }
    }

    s->len = dst - s->data;
}


/* near: 0 not behind a word like "key", 1 right behind it, 2 ... further */

static ngx_uint_t
ngx_http_ai_error_secret(u_char *p, size_t len, ngx_uint_t near)
{
    u_char      ch;
    size_t      i;
    ngx_uint_t  digits, upper, lower, hex, stars, dots;

    if (len < 8) {
        return 0;
    }

    digits = 0;
    upper = 0;
    lower = 0;
    hex = 0;
    stars = 0;
    dots = 0;

    for (i = 0; i < len; i++) {
        ch = p[i];

        if (ch >= '0' && ch <= '9') {
            digits++;
            hex++;

        } else if (ch >= 'a' && ch <= 'z') {
            lower++;
            hex += (ch <= 'f');

        } else if (ch >= 'A' && ch <= 'Z') {
            upper++;
            hex += (ch <= 'F');

        } else if (ch == '*') {
            stars++;

        } else if (ch == '.' || ch == '/') {
            dots++;
        }
    }

    if (stars >= 3 || (stars && near)) {
        return 1;
    }

    if (hex == len && len >= 32 && digits) {
        return 1;
    }

    if (len >= 40 && dots == 0 && digits >= 4 && upper >= 4 && lower >= 4) {
        return 1;
    }

    if (near == 0) {
        return 0;
    }

    if (near == 1 && digits && len >= 12 && dots == 0) {
        return 1;
    }

    return len >= 16
           && ((digits && upper && lower)
               || (hex == len && digits)
               || (digits && len >= 32 && dots <= 2));
}
