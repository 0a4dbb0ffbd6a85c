
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_auth_record.h"
#include "ngx_http_ai_auth_key.h"


static ngx_str_t  ngx_http_ai_revoked_names[] = {
    ngx_string("key"),
    ngx_string("jti"),
    ngx_string("sub"),
    ngx_string("issuer"),
    ngx_string("until"),
    ngx_string("comment")
};


/* { "key" | "jti" | "sub": ..., "issuer", "until", "comment" } */

ngx_int_t
ngx_http_ai_auth_revoked_record(ngx_http_ai_data_load_t *load,
    ngx_http_ai_json_t *j, ngx_str_t *name, ngx_str_t *error)
{
    int64_t                until;
    uint64_t               seen;
    ngx_int_t              rc;
    ngx_str_t              values[4], blob, key;
    ngx_uint_t             i, n, dup, kind;
    ngx_http_ai_record_t   rec;

    rec.aamcf = load->conf;
    rec.load = load;
    rec.j = j;
    rec.pool = j->pool;
    rec.error = error;

    if (ngx_http_ai_json_type(j, 0) != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_record_error(&rec, "is not an object");
    }

    seen = 0;
    until = 0;
    ngx_memzero(values, sizeof(values));

    for (i = ngx_http_ai_json_first(j, 0);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, 0, i))
    {
        rc = ngx_http_ai_record_find(&rec, i, ngx_http_ai_revoked_names,
                                     sizeof(ngx_http_ai_revoked_names)
                                     / sizeof(ngx_str_t), &seen, &n);
        if (rc != NGX_OK) {
            return rc;
        }

        if (n < 4) {
            rc = ngx_http_ai_record_string(&rec, &ngx_http_ai_revoked_names[n],
                                           i + 1, &values[n]);

            if (rc == NGX_OK && values[n].len == 0) {
                return ngx_http_ai_record_error(&rec, "\"%V\" is empty",
                                             &ngx_http_ai_revoked_names[n]);
            }

        } else if (n == 4) {
            rc = ngx_http_ai_record_time(&rec, &ngx_http_ai_revoked_names[n],
                                         i + 1, &until);
        }

        if (rc != NGX_OK) {
            return rc;
        }
    }

    if ((values[0].len != 0) + (values[1].len != 0) + (values[2].len != 0)
        != 1)
    {
        return ngx_http_ai_record_error(&rec, "exactly one of \"key\", \"jti\""
                                        " and \"sub\" must be there");
    }

    if (values[0].len) {
        kind = NGX_HTTP_AI_AUTH_REVOKE_KEY;

        if (values[3].len) {
            return ngx_http_ai_record_error(&rec, "\"issuer\" is of tokens, "
                                            "not of a \"key\"");
        }

        if (ngx_http_ai_key_is_ours(values[0].data, values[0].len)) {
            return ngx_http_ai_record_error(&rec, "\"key\" must be the id of a"
                                            " record, not the key itself");
        }

        *name = values[0];

    } else {
        kind = values[1].len ? NGX_HTTP_AI_AUTH_REVOKE_JTI
                             : NGX_HTTP_AI_AUTH_REVOKE_SUB;
    }

    load->flags |= kind;

    blob.data = (u_char *) &until;
    blob.len = sizeof(int64_t);

    /*
     * The same may be there several times, as tools append to the file; the
     * one that lasts longest counts.
     */

    for (n = 0; n < NGX_HTTP_AI_AUTH_REVOKE_MAX; n++) {

        key = ngx_http_ai_auth_revoked_key(rec.pool, kind, &values[3],
                  &values[kind == NGX_HTTP_AI_AUTH_REVOKE_KEY ? 0
                          : kind == NGX_HTTP_AI_AUTH_REVOKE_JTI ? 1 : 2], n);
        if (key.data == NULL) {
            return NGX_ERROR;
        }

        rc = rec.aamcf->api->data_add(load, &blob, &key, 1, &dup);

        if (rc != NGX_DECLINED) {
            return rc;
        }
    }

    return ngx_http_ai_record_error(&rec, "there are more than %d entries for "
                                    "the same", NGX_HTTP_AI_AUTH_REVOKE_MAX);
}


ngx_str_t
ngx_http_ai_auth_revoked_key(ngx_pool_t *pool, ngx_uint_t kind,
    ngx_str_t *issuer, ngx_str_t *value, ngx_uint_t n)
{
    u_char     *p;
    ngx_str_t   key;

    key.len = 0;
    key.data = ngx_pnalloc(pool, 4 + issuer->len + value->len);

    if (key.data == NULL) {
        return key;
    }

    p = key.data;

    *p++ = (u_char) kind;
    *p++ = (u_char) n;
    *p++ = (issuer->len != 0);

    if (issuer->len) {
        p = ngx_cpymem(p, issuer->data, issuer->len);
        *p++ = '\0';
    }

    p = ngx_cpymem(p, value->data, value->len);

    key.len = p - key.data;

    return key;
}
