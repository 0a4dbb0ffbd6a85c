
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_near.h"


#define NGX_HTTP_AI_NEAR_LEN     64
#define NGX_HTTP_AI_NEAR_PREFIX  3


static ngx_uint_t ngx_http_ai_near_distance(ngx_str_t *a, ngx_str_t *b,
    ngx_uint_t limit);


ngx_str_t *
ngx_http_ai_near(ngx_str_t *name, ngx_str_t *names, ngx_uint_t n)
{
    ngx_str_t   *found;
    ngx_uint_t   i, score, best;

    found = NULL;
    best = NGX_MAX_UINT32_VALUE;

    for (i = 0; i < n; i++) {
        score = ngx_http_ai_near_score(name, &names[i]);

        if (score < best) {
            best = score;
            found = &names[i];
        }
    }

    return found;
}


ngx_str_t
ngx_http_ai_near_text(ngx_pool_t *pool, ngx_str_t *name, ngx_str_t *names,
    ngx_uint_t n)
{
    ngx_str_t  *near, text;

    ngx_str_null(&text);

    near = ngx_http_ai_near(name, names, n);
    if (near == NULL) {
        return text;
    }

    text.data = ngx_pnalloc(pool, sizeof(", did you mean \"\"?") + near->len);
    if (text.data == NULL) {
        return text;
    }

    text.len = ngx_sprintf(text.data, ", did you mean \"%V\"?", near)
               - text.data;

    return text;
}


ngx_uint_t
ngx_http_ai_near_score(ngx_str_t *name, ngx_str_t *other)
{
    size_t      min;
    ngx_uint_t  limit, distance;

    limit = ngx_max(1, name->len / 3);

    distance = ngx_http_ai_near_distance(name, other, limit);

    if (distance <= limit && distance < name->len) {
        return distance;
    }

    min = ngx_min(name->len, other->len);

    if (min < NGX_HTTP_AI_NEAR_PREFIX
        || ngx_strncasecmp(name->data, other->data, min) != 0)
    {
        return NGX_MAX_UINT32_VALUE;
    }

    return NGX_HTTP_AI_NEAR_LEN + ngx_max(name->len, other->len) - min;
}


/*
 * Levenshtein's distance where a swap of neighbours counts once; more than
 * limit as soon as it cannot be less.  The client chooses "a", so the length
 * is limited.
 */

static ngx_uint_t
ngx_http_ai_near_distance(ngx_str_t *a, ngx_str_t *b, ngx_uint_t limit)
{
    u_char      ca, cb, pa, pb;
    ngx_uint_t  i, j, d, least, *prev2, *prev, *row, *swap,
                rows[3][NGX_HTTP_AI_NEAR_LEN + 1];

    if (a->len == 0 || b->len == 0
        || a->len > NGX_HTTP_AI_NEAR_LEN || b->len > NGX_HTTP_AI_NEAR_LEN
        || a->len > b->len + limit || b->len > a->len + limit)
    {
        return limit + 1;
    }

    prev2 = rows[0];
    prev = rows[1];
    row = rows[2];

    for (j = 0; j <= b->len; j++) {
        prev2[j] = 0;
        prev[j] = j;
    }

    pa = '\0';

    for (i = 1; i <= a->len; i++) {
        ca = ngx_tolower(a->data[i - 1]);
        row[0] = i;
        least = i;
        pb = '\0';

        for (j = 1; j <= b->len; j++) {
            cb = ngx_tolower(b->data[j - 1]);

            d = prev[j - 1] + (ca != cb);
            d = ngx_min(d, prev[j] + 1);
            d = ngx_min(d, row[j - 1] + 1);

            if (i > 1 && j > 1 && ca == pb && pa == cb) {
                d = ngx_min(d, prev2[j - 2] + 1);
            }

            row[j] = d;
            least = ngx_min(least, d);
            pb = cb;
        }

        if (least > limit) {
            return limit + 1;
        }

        swap = prev2;
        prev2 = prev;
        prev = row;
        row = swap;
        pa = ca;
    }

    return prev[b->len];
}
