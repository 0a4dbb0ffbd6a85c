
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_metrics_families.h"


static ngx_str_t *ngx_http_ai_family_outcome(ngx_uint_t i);
static ngx_str_t *ngx_http_ai_family_token(ngx_uint_t i);
static ngx_str_t *ngx_http_ai_family_usage(ngx_uint_t i);
static ngx_str_t *ngx_http_ai_family_cached(ngx_uint_t i);
static ngx_str_t *ngx_http_ai_family_finish(ngx_uint_t i);
static ngx_str_t *ngx_http_ai_family_error(ngx_uint_t i);


static ngx_str_t  ngx_http_ai_family_outcomes[] = {
    ngx_string("success"),
    ngx_string("error"),
    ngx_string("invalid"),
    ngx_string("denied"),
    ngx_string("limited"),
    ngx_string("canceled")
};

static ngx_str_t  ngx_http_ai_family_tokens[] = {
    ngx_string("input"),
    ngx_string("output"),
    ngx_string("cache_read"),
    ngx_string("cache_write"),
    ngx_string("reasoning")
};

static ngx_str_t  ngx_http_ai_family_finishes[] = {
    ngx_null_string,
    ngx_string("stop"),
    ngx_string("stop_sequence"),
    ngx_string("length"),
    ngx_string("tool_calls"),
    ngx_string("content_filter"),
    ngx_string("refusal"),
    ngx_string("context"),
    ngx_string("pause"),
    ngx_string("error"),
    ngx_string("unknown")
};


#define ngx_http_ai_plain(name, help, KIND, kind, member, flags, scale)       \
    { name, help, NGX_HTTP_AI_METRICS_##KIND, flags,                          \
      offsetof(ngx_http_ai_##kind##_cells_t, member),                         \
      NULL, 1, NULL, NULL, 0, scale }

#define ngx_http_ai_by(name, help, KIND, kind, member, flags, label, value)   \
    { name, help, NGX_HTTP_AI_METRICS_##KIND, flags,                          \
      offsetof(ngx_http_ai_##kind##_cells_t, member), label,                  \
      sizeof(((ngx_http_ai_##kind##_cells_t *) 0)->member)                    \
      / sizeof(uint64_t), value, NULL, 0, 0 }

#define ngx_http_ai_times(name, help, KIND, kind, member, flags, bounds, ex)  \
    { name, help, NGX_HTTP_AI_METRICS_##KIND, flags,                          \
      offsetof(ngx_http_ai_##kind##_cells_t, member), NULL, 0, NULL,          \
      &ngx_http_ai_bounds_##bounds, ex, 6 }

#define ngx_http_ai_sizes(name, help, member, type)                           \
    { name, help, NGX_HTTP_AI_METRICS_SIZE, NGX_HTTP_AI_FAMILY_OTEL,          \
      offsetof(ngx_http_ai_size_cells_t, member), type, 0, NULL,              \
      &ngx_http_ai_bounds_size, NGX_HTTP_AI_FAMILY_NO_EXEMPLARS, 0 }

#define NGX_HTTP_AI_FAMILY_DURATION                                           \
    offsetof(ngx_http_ai_exemplars_t, duration)

#define NGX_HTTP_AI_FAMILY_FIRST                                              \
    offsetof(ngx_http_ai_exemplars_t, first)


/* one that has the name of the one before goes on with its family */

const ngx_http_ai_family_t  ngx_http_ai_families[] = {

    ngx_http_ai_by("nginx_ai_requests",
        "Requests that have ended, by how they did.",
        REQUEST, request, outcomes, NGX_HTTP_AI_FAMILY_ZERO,
        "outcome", ngx_http_ai_family_outcome),

    ngx_http_ai_by("nginx_ai_request_errors",
        "Requests that have failed, by the class of the error.",
        REQUEST, request, errors, 0, "error", ngx_http_ai_family_error),

    ngx_http_ai_plain("nginx_ai_streamed_requests",
        "Requests for a stream.",
        REQUEST, request, streams, 0, 0),

    ngx_http_ai_plain("nginx_ai_fallbacks",
        "Answers by another target than the first choice.",
        REQUEST, request, fallbacks, 0, 0),

    ngx_http_ai_plain("nginx_ai_recovered_answers",
        "Answers that another target went on with.",
        REQUEST, request, recovered, 0, 0),

    ngx_http_ai_by("nginx_ai_tokens",
        "Tokens: input and output are all, the other types parts of them.",
        REQUEST, request, tokens, 0, "type", ngx_http_ai_family_token),

    ngx_http_ai_plain("nginx_ai_cost_dollars",
        "What it has cost.",
        REQUEST, request, cost, 0, 9),

    ngx_http_ai_plain("nginx_ai_unpriced_requests",
        "Requests with usage whose cost is not known.",
        REQUEST, request, unpriced, 0, 0),

    ngx_http_ai_by("nginx_ai_usage_states",
        "Requests by where their figures of usage come from.",
        REQUEST, request, usage, 0, "state", ngx_http_ai_family_usage),

    ngx_http_ai_by("nginx_ai_finish_reasons",
        "Answers by why they have ended.",
        REQUEST, request, finishes, 0, "reason", ngx_http_ai_family_finish),

    ngx_http_ai_by("nginx_ai_cache_results",
        "Requests by what the cache had for them.",
        REQUEST, request, cached, 0, "result", ngx_http_ai_family_cached),

    ngx_http_ai_times("nginx_ai_request_duration_seconds",
        "Time of requests that a provider was asked for.",
        REQUEST, request, duration, 0, duration, NGX_HTTP_AI_FAMILY_DURATION),

    ngx_http_ai_times("nginx_ai_time_to_first_token_seconds",
        "Time until the first token of streams.",
        REQUEST, request, first, 0, first, NGX_HTTP_AI_FAMILY_FIRST),

    ngx_http_ai_times("nginx_ai_time_per_output_token_seconds",
        "Time per output token behind the first of streams.",
        REQUEST, request, per_token, 0, token,
        NGX_HTTP_AI_FAMILY_NO_EXEMPLARS),

    ngx_http_ai_times("nginx_ai_overhead_seconds",
        "Time of requests while no attempt was running.",
        REQUEST, request, overhead, 0, overhead,
        NGX_HTTP_AI_FAMILY_NO_EXEMPLARS),

    ngx_http_ai_by("nginx_ai_attempts",
        "Attempts to ask a target, by what came of them.",
        ATTEMPT, attempt, results, 0, "reason",
        ngx_http_ai_metrics_result_name),

    ngx_http_ai_times("nginx_ai_attempt_duration_seconds",
        "Time of attempts.",
        ATTEMPT, attempt, duration, 0, duration,
        NGX_HTTP_AI_FAMILY_NO_EXEMPLARS),

    ngx_http_ai_times("nginx_ai_attempt_first_event_seconds",
        "Time of attempts until the first event of the answer.",
        ATTEMPT, attempt, first, 0, first, NGX_HTTP_AI_FAMILY_NO_EXEMPLARS),

    ngx_http_ai_by("nginx_ai_tenant_requests",
        "Requests of tenants, by how they have ended.",
        TENANT, caller, outcomes, 0, "outcome", ngx_http_ai_family_outcome),

    ngx_http_ai_by("nginx_ai_tenant_tokens",
        "Tokens of tenants.",
        TENANT, caller, tokens, 0, "type", ngx_http_ai_family_token),

    ngx_http_ai_plain("nginx_ai_tenant_cost_dollars",
        "What the requests of tenants have cost.",
        TENANT, caller, cost, 0, 9),

    ngx_http_ai_by("nginx_ai_key_requests",
        "Requests of keys, by how they have ended.",
        KEY, caller, outcomes, 0, "outcome", ngx_http_ai_family_outcome),

    ngx_http_ai_by("nginx_ai_key_tokens",
        "Tokens of keys.",
        KEY, caller, tokens, 0, "type", ngx_http_ai_family_token),

    ngx_http_ai_plain("nginx_ai_key_cost_dollars",
        "What the requests of keys have cost.",
        KEY, caller, cost, 0, 9),

    /* names of OpenTelemetry's conventions, as Prometheus writes them */

    ngx_http_ai_sizes("gen_ai_client_token_usage",
        "Number of input and output tokens used.",
        input, "gen_ai_token_type=\"input\""),

    ngx_http_ai_sizes("gen_ai_client_token_usage", NULL,
        output, "gen_ai_token_type=\"output\""),

    ngx_http_ai_times("gen_ai_client_operation_duration_seconds",
        "GenAI operation duration.",
        REQUEST, request, duration, NGX_HTTP_AI_FAMILY_OTEL, duration,
        NGX_HTTP_AI_FAMILY_DURATION),

    ngx_http_ai_times("gen_ai_server_time_to_first_token_seconds",
        "Time to generate first token for successful responses.",
        REQUEST, request, first, NGX_HTTP_AI_FAMILY_OTEL, first,
        NGX_HTTP_AI_FAMILY_FIRST),

    ngx_http_ai_times("gen_ai_server_time_per_output_token_seconds",
        "Time per output token generated after the first token for "
        "successful responses.",
        REQUEST, request, per_token, NGX_HTTP_AI_FAMILY_OTEL, token,
        NGX_HTTP_AI_FAMILY_NO_EXEMPLARS),

    { NULL, NULL, 0, 0, 0, NULL, 0, NULL, NULL, 0, 0 }
};


static const char
    *ngx_http_ai_family_names[NGX_HTTP_AI_METRICS_KINDS]
                             [NGX_HTTP_AI_METRICS_NAMES] =
{
    { "model", "provider", "operation" },
    { "model", "provider", "target" },
    { "model", "provider", "operation" },
    { "model", NULL, NULL },
    { "tenant", NULL, NULL },
    { "key", NULL, NULL }
};

static const char
    *ngx_http_ai_family_otel[NGX_HTTP_AI_METRICS_NAMES] =
{
    "gen_ai_request_model", "gen_ai_provider_name", "gen_ai_operation_name"
};


void
ngx_http_ai_family_labels(ngx_http_ai_out_t *labels,
    ngx_http_ai_metrics_kind_e kind, ngx_str_t *names, ngx_uint_t otel)
{
    ngx_uint_t    i;
    const char  **label;

    label = otel ? ngx_http_ai_family_otel : ngx_http_ai_family_names[kind];

    for (i = 0; i < NGX_HTTP_AI_METRICS_NAMES && label[i]; i++) {
        ngx_http_ai_text_label(labels, label[i], &names[i]);
    }
}


void
ngx_http_ai_family_samples(ngx_http_ai_text_t *t,
    const ngx_http_ai_family_t *f, ngx_str_t *labels, void *cells,
    ngx_http_ai_exemplars_t *exemplars)
{
    uint64_t                *cell;
    ngx_str_t               *value, both;
    ngx_uint_t               i;
    ngx_http_ai_out_t        more;
    ngx_http_ai_exemplar_t  *e;

    cell = (uint64_t *) ((u_char *) cells + f->offset);

    if (f->bounds) {

        for (i = 0; i <= f->bounds->n; i++) {
            if (cell[i]) {
                break;
            }
        }

        if (i > f->bounds->n) {
            return;
        }

        if (f->label) {
            /* one of several histograms of the family */

            if (ngx_http_ai_out_init(&more, t->out.pool, labels->len + 64)
                != NGX_OK)
            {
                t->out.failed = 1;
                return;
            }

            ngx_http_ai_out_str(&more, labels);
            ngx_http_ai_out_lit(&more, ",");
            ngx_http_ai_out_mem(&more, f->label, ngx_strlen(f->label));

            if (more.failed) {
                t->out.failed = 1;
                return;
            }

            both.data = more.start;
            both.len = more.last - more.start;
            labels = &both;
        }

        e = NULL;

        if (exemplars && f->exemplars != NGX_HTTP_AI_FAMILY_NO_EXEMPLARS) {
            e = (ngx_http_ai_exemplar_t *) ((u_char *) exemplars
                                            + f->exemplars);
        }

        ngx_http_ai_text_histogram(t, labels, cell, f->bounds, f->scale, e);

        return;
    }

    for (i = 0; i < f->n; i++) {

        if (cell[i] == 0 && !(f->flags & NGX_HTTP_AI_FAMILY_ZERO)) {
            continue;
        }

        value = f->value ? f->value(i) : NULL;

        if (value && value->len == 0) {
            continue;
        }

        ngx_http_ai_text_sample(t, labels, f->label, value,
                                (int64_t) cell[i], f->scale);
    }
}


ngx_str_t *
ngx_http_ai_metrics_outcome_name(ngx_http_ai_outcome_e outcome)
{
    return &ngx_http_ai_family_outcomes[outcome];
}


ngx_str_t *
ngx_http_ai_metrics_token_name(ngx_http_ai_token_e token)
{
    return &ngx_http_ai_family_tokens[token];
}


ngx_str_t *
ngx_http_ai_metrics_result_name(ngx_uint_t result)
{
    static ngx_str_t  success = ngx_string("success");

    if (result == NGX_HTTP_AI_ERR_NONE) {
        return &success;
    }

    if (result == NGX_HTTP_AI_ATTEMPT_CANCELED) {
        return &ngx_http_ai_family_outcomes[NGX_HTTP_AI_OUTCOME_CANCELED];
    }

    return ngx_http_ai_err_name(result);
}


static ngx_str_t *
ngx_http_ai_family_outcome(ngx_uint_t i)
{
    return ngx_http_ai_metrics_outcome_name(i);
}


static ngx_str_t *
ngx_http_ai_family_token(ngx_uint_t i)
{
    return ngx_http_ai_metrics_token_name(i);
}


static ngx_str_t *
ngx_http_ai_family_usage(ngx_uint_t i)
{
    return ngx_http_ai_usage_name(i);
}


static ngx_str_t *
ngx_http_ai_family_cached(ngx_uint_t i)
{
    return ngx_http_ai_cached_name(i);
}


static ngx_str_t *
ngx_http_ai_family_finish(ngx_uint_t i)
{
    return &ngx_http_ai_family_finishes[i];
}


static ngx_str_t *
ngx_http_ai_family_error(ngx_uint_t i)
{
    return ngx_http_ai_err_name(i);
}
