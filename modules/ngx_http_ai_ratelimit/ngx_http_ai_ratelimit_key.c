
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The key of a request in a zone.  Most keys are a variable, with perhaps some
 * text around it: these are put together here, what is more is a complex
 * value.
 */


#include <ngx_sha1.h>
#include "ngx_http_ai_ratelimit.h"


#define ngx_http_ai_key_char(ch)                                              \
    ((((ch) | 0x20) >= 'a' && ((ch) | 0x20) <= 'z')                           \
     || ((ch) >= '0' && (ch) <= '9') || (ch) == '_')


static ngx_inline ngx_int_t ngx_http_ai_key_join(ngx_http_request_t *r,
    ngx_http_ai_limit_zone_t *zone, ngx_str_t *key, u_char *room);
static ngx_inline u_char *ngx_http_ai_key_copy(u_char *p, u_char *data,
    size_t len);


/* the text is good: it was compiled as a complex value */

ngx_int_t
ngx_http_ai_zone_key(ngx_conf_t *cf, ngx_http_ai_limit_zone_t *zone)
{
    u_char                  *p, *last;
    ngx_str_t                name;
    ngx_uint_t               n, brace;
    ngx_http_ai_key_part_t  *part;

    p = zone->key_text.data;
    last = p + zone->key_text.len;

    for (n = 0; p < last; n++) {

        if (n == NGX_HTTP_AI_LIMIT_PARTS) {
            return NGX_OK;
        }

        part = &zone->parts[n];

        if (*p != '$') {
            part->index = NGX_ERROR;
            part->text.data = p;

            while (p < last && *p != '$') {
                p++;
            }

            part->text.len = p - part->text.data;
            continue;
        }

        p++;
        brace = (p < last && *p == '{');
        p += brace;

        name.data = p;

        while (p < last && ngx_http_ai_key_char(*p)) {
            p++;
        }

        name.len = p - name.data;
        p += brace;

        if (name.len == 0 || (name.data[0] >= '0' && name.data[0] <= '9')) {
            /* of a regular expression */
            return NGX_OK;
        }

        part->index = ngx_http_get_variable_index(cf, &name);

        if (part->index == NGX_ERROR) {
            return NGX_ERROR;
        }
    }

    zone->nparts = n;

    if (n == 1 && zone->parts[0].index == NGX_ERROR
        && zone->key_text.len <= NGX_HTTP_AI_LIMIT_KEY_MAX)
    {
        zone->constant = zone->key_text;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_ai_limit_key(ngx_http_request_t *r, ngx_http_ai_limit_zone_t *zone,
    ngx_str_t *key, u_char *room)
{
    if (ngx_http_ai_key_join(r, zone, key, room) == NGX_OK
        && key->len <= NGX_HTTP_AI_LIMIT_KEY_MAX)
    {
        return key->len ? NGX_OK : NGX_DECLINED;
    }

    if (ngx_http_complex_value(r, &zone->key, key) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_ai_key_fit(r, key);
}


/* NGX_DECLINED: of many parts, or too long for the room */

static ngx_inline ngx_int_t
ngx_http_ai_key_join(ngx_http_request_t *r, ngx_http_ai_limit_zone_t *zone,
    ngx_str_t *key, u_char *room)
{
    u_char                     *p, *data;
    size_t                      len;
    ngx_http_ai_key_part_t     *part, *last;
    ngx_http_variable_value_t  *vv;

    if (zone->nparts == 0) {
        return NGX_DECLINED;
    }

    p = room;
    last = zone->parts + zone->nparts;

    for (part = zone->parts; part < last; part++) {

        if (part->index == NGX_ERROR) {
            len = part->text.len;
            data = part->text.data;

        } else {
            vv = ngx_http_get_flushed_variable(r, part->index);

            if (vv == NULL || vv->not_found) {
                len = 0;
                data = NULL;

            } else {
                len = vv->len;
                data = vv->data;
            }

            if (zone->nparts == 1) {
                key->len = len;
                key->data = data;
                return NGX_OK;
            }
        }

        if (len > (size_t) (room + NGX_HTTP_AI_LIMIT_KEY_ROOM - p)) {
            return NGX_DECLINED;
        }

        p = ngx_http_ai_key_copy(p, data, len);
    }

    key->len = p - room;
    key->data = room;

    return NGX_OK;
}


/* most parts are short: an address, a digit with a dash */

static ngx_inline u_char *
ngx_http_ai_key_copy(u_char *p, u_char *data, size_t len)
{
    if (len < 8) {

        while (len) {
            *p++ = *data++;
            len--;
        }

        return p;
    }

    if (len > 16) {
        return ngx_cpymem(p, data, len);
    }

    ngx_memcpy(p, data, 8);
    ngx_memcpy(p + len - 8, data + len - 8, 8);

    return p + len;
}


/* of a long one the beginning, for people, and a digest of the whole */

ngx_int_t
ngx_http_ai_key_fit(ngx_http_request_t *r, ngx_str_t *key)
{
    u_char      *p, digest[20];
    ngx_sha1_t   sha1;

    if (key->len <= NGX_HTTP_AI_LIMIT_KEY_MAX) {
        return key->len ? NGX_OK : NGX_DECLINED;
    }

    p = ngx_pnalloc(r->pool, NGX_HTTP_AI_LIMIT_KEY_MAX);
    if (p == NULL) {
        return NGX_ERROR;
    }

    ngx_sha1_init(&sha1);
    ngx_sha1_update(&sha1, key->data, key->len);
    ngx_sha1_final(digest, &sha1);

    ngx_memcpy(p, key->data, NGX_HTTP_AI_LIMIT_KEY_MAX - 41);
    p[NGX_HTTP_AI_LIMIT_KEY_MAX - 41] = '#';
    ngx_hex_dump(p + NGX_HTTP_AI_LIMIT_KEY_MAX - 40, digest, 20);

    key->data = p;
    key->len = NGX_HTTP_AI_LIMIT_KEY_MAX;

    return NGX_OK;
}


/* where the worker has last seen a key of this form; only a guess */

uint32_t *
ngx_http_ai_key_guess(ngx_http_ai_limit_zone_t *zone, ngx_str_t *key)
{
    uint64_t  a, b;

    a = 0;
    b = 0;

    if (key->len >= 8) {
        ngx_memcpy(&a, key->data, 8);
        ngx_memcpy(&b, key->data + key->len - 8, 8);

    } else {
        ngx_memcpy(&a, key->data, key->len);
    }

    a = (a ^ (b << 7 | b >> 57)) * 0x9e3779b97f4a7c15;

    return &zone->guesses[a >> 56 & (NGX_HTTP_AI_LIMIT_GUESSES - 1)];
}
