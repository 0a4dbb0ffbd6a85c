
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_auth_record.h"
#include "ngx_http_ai_auth_key.h"
#include "ngx_http_ai_conf.h"
#include "ngx_http_ai_quantity.h"


#define NGX_HTTP_AI_RECORD_ID          128

#define NGX_HTTP_AI_RECORD_DISABLED    0x01
#define NGX_HTTP_AI_RECORD_FOREIGN     0x02


/* of the blob; then the lengths of the fields that are there, the hashes with
 * terms of their own, the bytes of the fields */

typedef struct {
    int64_t                    not_before;
    int64_t                    expires;
    uint16_t                   flags;
    uint16_t                   fields;        /* bits */
    uint32_t                   nterms;
} ngx_http_ai_record_head_t;


typedef enum {
    NGX_HTTP_AI_RECORD_STRING = 0,
    NGX_HTTP_AI_RECORD_WORDS,                 /* a string, or a list */
    NGX_HTTP_AI_RECORD_LIST,
    NGX_HTTP_AI_RECORD_ENDPOINTS,
    NGX_HTTP_AI_RECORD_ZONES,                 /* an object of objects */
    NGX_HTTP_AI_RECORD_OBJECT,
    NGX_HTTP_AI_RECORD_TIME,
    NGX_HTTP_AI_RECORD_FLAG,
    NGX_HTTP_AI_RECORD_NAME,                  /* "id" */
    NGX_HTTP_AI_RECORD_HASH,
    NGX_HTTP_AI_RECORD_ALIASES,               /* "identities" */
    NGX_HTTP_AI_RECORD_IGNORE
} ngx_http_ai_record_type_e;


/* a field has its number in this table, KEY_ID is 0 */

#define NGX_HTTP_AI_RECORD_KEY_ID      0

static size_t  ngx_http_ai_record_fields[NGX_HTTP_AI_RECORD_FIELDS] = {
    offsetof(ngx_http_ai_principal_t, key_id),
    offsetof(ngx_http_ai_principal_t, tenant),
    offsetof(ngx_http_ai_principal_t, user),
    offsetof(ngx_http_ai_principal_t, team),
    offsetof(ngx_http_ai_principal_t, plan),
    offsetof(ngx_http_ai_principal_t, scopes),
    offsetof(ngx_http_ai_principal_t, models),
    offsetof(ngx_http_ai_principal_t, deny),
    offsetof(ngx_http_ai_principal_t, providers),
    offsetof(ngx_http_ai_principal_t, endpoints),
    offsetof(ngx_http_ai_principal_t, limits),
    offsetof(ngx_http_ai_principal_t, quotas),
    offsetof(ngx_http_ai_principal_t, metadata)
};


/* also the names for "did you mean", so in two tables of the same order */

static ngx_str_t  ngx_http_ai_record_names[] = {
    ngx_string("id"),
    ngx_string("hash"),
    ngx_string("tenant"),
    ngx_string("user"),
    ngx_string("team"),
    ngx_string("plan"),
    ngx_string("scopes"),
    ngx_string("models"),
    ngx_string("deny"),
    ngx_string("providers"),
    ngx_string("endpoints"),
    ngx_string("limits"),
    ngx_string("quotas"),
    ngx_string("metadata"),
    ngx_string("identities"),
    ngx_string("not_before"),
    ngx_string("expires"),
    ngx_string("disabled"),
    ngx_string("foreign"),
    ngx_string("name"),
    ngx_string("created"),
    ngx_string("comment")
};

static struct {
    ngx_http_ai_record_type_e  type;
    ngx_uint_t                 n;             /* field, or what is set */
} ngx_http_ai_record_types[] = {
    { NGX_HTTP_AI_RECORD_NAME, NGX_HTTP_AI_RECORD_KEY_ID },
    { NGX_HTTP_AI_RECORD_HASH, 0 },
    { NGX_HTTP_AI_RECORD_STRING, 1 },
    { NGX_HTTP_AI_RECORD_STRING, 2 },
    { NGX_HTTP_AI_RECORD_STRING, 3 },
    { NGX_HTTP_AI_RECORD_STRING, 4 },
    { NGX_HTTP_AI_RECORD_WORDS, 5 },
    { NGX_HTTP_AI_RECORD_LIST, 6 },
    { NGX_HTTP_AI_RECORD_LIST, 7 },
    { NGX_HTTP_AI_RECORD_LIST, 8 },
    { NGX_HTTP_AI_RECORD_ENDPOINTS, 9 },
    { NGX_HTTP_AI_RECORD_ZONES, 10 },
    { NGX_HTTP_AI_RECORD_ZONES, 11 },
    { NGX_HTTP_AI_RECORD_OBJECT, 12 },
    { NGX_HTTP_AI_RECORD_ALIASES, 0 },
    { NGX_HTTP_AI_RECORD_TIME, 0 },
    { NGX_HTTP_AI_RECORD_TIME, 1 },
    { NGX_HTTP_AI_RECORD_FLAG, NGX_HTTP_AI_RECORD_DISABLED },
    { NGX_HTTP_AI_RECORD_FLAG, NGX_HTTP_AI_RECORD_FOREIGN },
    { NGX_HTTP_AI_RECORD_IGNORE, 0 },
    { NGX_HTTP_AI_RECORD_IGNORE, 0 },
    { NGX_HTTP_AI_RECORD_IGNORE, 0 }
};

#define NGX_HTTP_AI_RECORD_NAMES                                              \
    (sizeof(ngx_http_ai_record_names) / sizeof(ngx_str_t))


/* "completions" and "models" as in the paths; kept as
 * ngx_http_ai_op_name() calls them */

static ngx_str_t  ngx_http_ai_record_endpoints[] = {
    ngx_string("chat"),
    ngx_string("completions"),
    ngx_string("embeddings"),
    ngx_string("count_tokens"),
    ngx_string("models"),
    ngx_string("passthrough")
};

static ngx_str_t  ngx_http_ai_record_ops[] = {
    ngx_string("chat\0"),
    ngx_string("text_completion\0"),
    ngx_string("embeddings\0"),
    ngx_string("count_tokens\0"),
    ngx_string("models\0model\0"),
    ngx_string("passthrough\0")
};

#define NGX_HTTP_AI_RECORD_OPS                                                \
    (sizeof(ngx_http_ai_record_ops) / sizeof(ngx_str_t))


static ngx_str_t  ngx_http_ai_record_hash_names[] = {
    ngx_string("hash"),
    ngx_string("not_before"),
    ngx_string("expires"),
    ngx_string("disabled"),
    ngx_string("comment"),
    ngx_string("created")
};


static ngx_int_t ngx_http_ai_record_member(ngx_http_ai_record_t *rec,
    ngx_uint_t member, ngx_uint_t node);
static ngx_int_t ngx_http_ai_record_blob(ngx_http_ai_record_t *rec,
    ngx_str_t *blob);
static ngx_int_t ngx_http_ai_record_id(ngx_http_ai_record_t *rec,
    ngx_uint_t node);
static ngx_int_t ngx_http_ai_record_hashes(ngx_http_ai_record_t *rec,
    ngx_uint_t node);
static ngx_int_t ngx_http_ai_record_hash(ngx_http_ai_record_t *rec,
    ngx_uint_t node, ngx_http_ai_record_term_t *term);
static ngx_int_t ngx_http_ai_record_terms(ngx_http_ai_record_t *rec,
    ngx_uint_t node, ngx_http_ai_record_term_t *term);
static ngx_int_t ngx_http_ai_record_aliases(ngx_http_ai_record_t *rec,
    ngx_uint_t node);
static ngx_int_t ngx_http_ai_record_list(ngx_http_ai_record_t *rec,
    ngx_uint_t member, ngx_uint_t node, ngx_str_t *list);
static ngx_int_t ngx_http_ai_record_endpoint(ngx_http_ai_record_t *rec,
    ngx_str_t *name, u_char **p);
static ngx_int_t ngx_http_ai_record_words(ngx_http_ai_record_t *rec,
    ngx_uint_t node, ngx_str_t *words);
static ngx_int_t ngx_http_ai_record_object(ngx_http_ai_record_t *rec,
    ngx_uint_t member, ngx_uint_t node, ngx_uint_t zones, ngx_str_t *text);
static ngx_int_t ngx_http_ai_record_zone(ngx_http_ai_record_t *rec,
    ngx_uint_t member, ngx_uint_t key);


ngx_int_t
ngx_http_ai_auth_keys_record(ngx_http_ai_data_load_t *load,
    ngx_http_ai_json_t *j, ngx_str_t *name, ngx_str_t *error)
{
    uint64_t               seen;
    ngx_int_t              rc;
    ngx_str_t              blob;
    ngx_uint_t             i, n, dup;
    ngx_http_ai_record_t   rec;

    rec.aamcf = load->conf;
    rec.load = load;
    rec.j = j;
    rec.pool = j->pool;
    rec.error = error;
    rec.times[0] = 0;
    rec.times[1] = 0;
    rec.flags = 0;
    rec.present = 0;
    rec.nterms = 0;
    rec.nkeys = 0;

    ngx_memzero(rec.fields, sizeof(rec.fields));

    /* first of all, so that messages can say whose record it is */

    rc = ngx_http_ai_record_id(&rec, ngx_http_ai_json_member(j, 0, "id"));
    if (rc != NGX_OK) {
        return rc;
    }

    *name = rec.fields[NGX_HTTP_AI_RECORD_KEY_ID];

    seen = 0;

    for (i = ngx_http_ai_json_first(j, 0);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, 0, i))
    {
        rc = ngx_http_ai_record_find(&rec, i, ngx_http_ai_record_names,
                                     NGX_HTTP_AI_RECORD_NAMES, &seen, &n);
        if (rc == NGX_OK) {
            rc = ngx_http_ai_record_member(&rec, n, i + 1);
        }

        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (rec.flags & NGX_HTTP_AI_RECORD_FOREIGN) {
        load->flags |= NGX_HTTP_AI_AUTH_FOREIGN;
    }

    rc = ngx_http_ai_record_blob(&rec, &blob);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = rec.aamcf->api->data_add(load, &blob, rec.keys, rec.nkeys, &dup);

    if (rc == NGX_DECLINED) {

        if (dup == 0) {
            return ngx_http_ai_record_error(&rec, "there is a record with "
                                            "this id, or identity, already");
        }

        if (rec.keys[dup].data[0] == NGX_HTTP_AI_AUTH_BY_NAME) {
            rec.keys[dup].data++;
            rec.keys[dup].len--;

            return ngx_http_ai_record_error(&rec, "identity \"%V\" is that of "
                                            "another record, or there twice",
                                            &rec.keys[dup]);
        }

        return ngx_http_ai_record_error(&rec, "its hash is that of another "
                                        "record, or there twice");
    }

    return rc;
}


static ngx_int_t
ngx_http_ai_record_member(ngx_http_ai_record_t *rec, ngx_uint_t member,
    ngx_uint_t node)
{
    ngx_int_t    rc;
    ngx_str_t   *name, *field;
    ngx_uint_t   n, flag;

    name = &ngx_http_ai_record_names[member];
    n = ngx_http_ai_record_types[member].n;
    field = &rec->fields[n];

    switch (ngx_http_ai_record_types[member].type) {

    case NGX_HTTP_AI_RECORD_STRING:
        rc = ngx_http_ai_record_string(rec, name, node, field);
        break;

    case NGX_HTTP_AI_RECORD_WORDS:
        rc = ngx_http_ai_record_words(rec, node, field);
        break;

    case NGX_HTTP_AI_RECORD_LIST:
    case NGX_HTTP_AI_RECORD_ENDPOINTS:
        rc = ngx_http_ai_record_list(rec, member, node, field);
        break;

    case NGX_HTTP_AI_RECORD_ZONES:
        rc = ngx_http_ai_record_object(rec, member, node, 1, field);
        break;

    case NGX_HTTP_AI_RECORD_OBJECT:
        rc = ngx_http_ai_record_object(rec, member, node, 0, field);
        break;

    case NGX_HTTP_AI_RECORD_TIME:
        return ngx_http_ai_record_time(rec, name, node, &rec->times[n]);

    case NGX_HTTP_AI_RECORD_FLAG:
        flag = 0;
        rc = ngx_http_ai_record_flag(rec, name, node, &flag);

        if (rc == NGX_OK && flag) {
            rec->flags |= n;
        }

        return rc;

    case NGX_HTTP_AI_RECORD_HASH:
        return ngx_http_ai_record_hashes(rec, node);

    case NGX_HTTP_AI_RECORD_ALIASES:
        return ngx_http_ai_record_aliases(rec, node);

    default: /* NGX_HTTP_AI_RECORD_NAME, NGX_HTTP_AI_RECORD_IGNORE */
        return NGX_OK;
    }

    /* an empty list allows nothing, which is not the same as none */

    if (rc == NGX_OK && field->data) {
        rec->present |= 1 << n;
    }

    return rc;
}


static ngx_int_t
ngx_http_ai_record_blob(ngx_http_ai_record_t *rec, ngx_str_t *blob)
{
    size_t                      size;
    u_char                     *p;
    uint32_t                    len;
    ngx_uint_t                  i, n;
    ngx_http_ai_record_term_t  *term;
    ngx_http_ai_record_head_t   head;

    /* a hash without terms of its own need not be told from others */

    n = 0;

    for (i = 0; i < rec->nterms; i++) {
        term = &rec->terms[i];

        if (term->not_before || term->expires || term->disabled) {
            rec->terms[n++] = *term;
        }
    }

    head.not_before = rec->times[0];
    head.expires = rec->times[1];
    head.flags = rec->flags;
    head.fields = rec->present;
    head.nterms = n;

    size = sizeof(ngx_http_ai_record_head_t)
           + n * sizeof(ngx_http_ai_record_term_t);

    for (i = 0; i < NGX_HTTP_AI_RECORD_FIELDS; i++) {
        if (rec->present & (1 << i)) {
            size += sizeof(uint32_t) + rec->fields[i].len;
        }
    }

    blob->data = ngx_pnalloc(rec->pool, size);
    if (blob->data == NULL) {
        return NGX_ERROR;
    }

    blob->len = size;

    p = ngx_cpymem(blob->data, &head, sizeof(ngx_http_ai_record_head_t));

    for (i = 0; i < NGX_HTTP_AI_RECORD_FIELDS; i++) {
        if (rec->present & (1 << i)) {
            len = rec->fields[i].len;
            p = ngx_cpymem(p, &len, sizeof(uint32_t));
        }
    }

    p = ngx_cpymem(p, rec->terms, n * sizeof(ngx_http_ai_record_term_t));

    for (i = 0; i < NGX_HTTP_AI_RECORD_FIELDS; i++) {
        if (rec->present & (1 << i)) {
            p = ngx_cpymem(p, rec->fields[i].data, rec->fields[i].len);
        }
    }

    return NGX_OK;
}


ngx_http_ai_auth_reason_e
ngx_http_ai_auth_record_read(ngx_str_t *blob, u_char *digest,
    ngx_uint_t foreign, time_t now, ngx_http_ai_principal_t *p)
{
    u_char                     *lens, *terms, *data, *last;
    int64_t                     not_before, expires;
    uint32_t                    len;
    ngx_str_t                  *field;
    ngx_uint_t                  i, disabled;
    ngx_http_ai_record_term_t   term;
    ngx_http_ai_record_head_t   head;

    ngx_memzero(p, sizeof(ngx_http_ai_principal_t));

    if (blob->len < sizeof(ngx_http_ai_record_head_t)) {
        return NGX_HTTP_AI_AUTH_UNAVAILABLE;
    }

    ngx_memcpy(&head, blob->data, sizeof(ngx_http_ai_record_head_t));

    last = blob->data + blob->len;
    lens = blob->data + sizeof(ngx_http_ai_record_head_t);
    terms = lens;

    for (i = 0; i < NGX_HTTP_AI_RECORD_FIELDS; i++) {
        if (head.fields & (1 << i)) {
            terms += sizeof(uint32_t);
        }
    }

    data = terms + head.nterms * sizeof(ngx_http_ai_record_term_t);

    if (head.nterms > NGX_HTTP_AI_RECORD_HASHES || data > last) {
        return NGX_HTTP_AI_AUTH_UNAVAILABLE;
    }

    for (i = 0; i < NGX_HTTP_AI_RECORD_FIELDS; i++) {
        if (head.fields & (1 << i)) {
            ngx_memcpy(&len, lens, sizeof(uint32_t));
            lens += sizeof(uint32_t);

            if (len > (size_t) (last - data)) {
                return NGX_HTTP_AI_AUTH_UNAVAILABLE;
            }

            field = (ngx_str_t *) ((char *) p + ngx_http_ai_record_fields[i]);
            field->data = data;
            field->len = len;

            data += len;
        }
    }

    not_before = head.not_before;
    expires = head.expires;
    disabled = head.flags & NGX_HTTP_AI_RECORD_DISABLED;

    for (i = 0; digest && i < head.nterms; i++) {
        ngx_memcpy(&term, terms + i * sizeof(ngx_http_ai_record_term_t),
                   sizeof(ngx_http_ai_record_term_t));

        if (ngx_memcmp(term.digest, digest, NGX_HTTP_AI_AUTH_DIGEST) != 0) {
            continue;
        }

        disabled |= term.disabled;
        not_before = ngx_max(not_before, term.not_before);

        if (term.expires && (expires == 0 || term.expires < expires)) {
            expires = term.expires;
        }
    }

    p->expires = (time_t) expires;

    if (foreign && !(head.flags & NGX_HTTP_AI_RECORD_FOREIGN)) {
        return NGX_HTTP_AI_AUTH_MALFORMED;
    }

    if (disabled) {
        return NGX_HTTP_AI_AUTH_DISABLED;
    }

    if (not_before > (int64_t) now) {
        return NGX_HTTP_AI_AUTH_NOT_YET;
    }

    if (expires && expires <= (int64_t) now) {
        return NGX_HTTP_AI_AUTH_EXPIRED;
    }

    return NGX_HTTP_AI_AUTH_OK;
}


/* an id may be logged, be a variable, and part of a header */

static ngx_int_t
ngx_http_ai_record_id(ngx_http_ai_record_t *rec, ngx_uint_t node)
{
    u_char      *p;
    ngx_int_t    rc;
    ngx_str_t   *id, *key;
    ngx_uint_t   i;

    id = &rec->fields[NGX_HTTP_AI_RECORD_KEY_ID];

    if (ngx_http_ai_json_type(rec->j, 0) != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_record_error(rec, "is not an object");
    }

    if (node == NGX_HTTP_AI_JSON_NONE) {
        return ngx_http_ai_record_error(rec, "\"id\" is missing");
    }

    rc = ngx_http_ai_record_string(rec, &ngx_http_ai_record_names[0], node,
                                   id);
    if (rc != NGX_OK) {
        return rc;
    }

    if (id->len == 0 || id->len > NGX_HTTP_AI_RECORD_ID) {
        return ngx_http_ai_record_error(rec, "\"id\" must have from 1 to %d "
                                        "characters", NGX_HTTP_AI_RECORD_ID);
    }

    for (i = 0; i < id->len; i++) {
        if (id->data[i] <= ' ' || id->data[i] >= 0x7f
            || id->data[i] == '"' || id->data[i] == '\\')
        {
            return ngx_http_ai_record_error(rec, "\"id\" must be of ASCII "
                                            "characters, without white space, "
                                            "quotes and backslashes");
        }
    }

    if (ngx_http_ai_key_is_ours(id->data, id->len)) {
        return ngx_http_ai_record_error(rec, "\"id\" is a key, which must not "
                                        "be in the file");
    }

    rec->present |= 1 << NGX_HTTP_AI_RECORD_KEY_ID;

    key = &rec->keys[rec->nkeys++];

    key->len = id->len + 1;
    key->data = ngx_pnalloc(rec->pool, key->len);
    if (key->data == NULL) {
        return NGX_ERROR;
    }

    p = key->data;
    *p++ = NGX_HTTP_AI_AUTH_BY_NAME;
    ngx_memcpy(p, id->data, id->len);

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_record_hashes(ngx_http_ai_record_t *rec, ngx_uint_t node)
{
    ngx_int_t                   rc;
    ngx_uint_t                  i, n;
    ngx_http_ai_record_term_t   only, *term;

    n = (ngx_http_ai_json_type(rec->j, node) == NGX_HTTP_AI_JSON_ARRAY)
        ? rec->j->nodes[node].count : 0;

    if (ngx_http_ai_json_type(rec->j, node) != NGX_HTTP_AI_JSON_ARRAY) {
        return ngx_http_ai_record_hash(rec, node, &only);
    }

    if (n == 0 || n > NGX_HTTP_AI_RECORD_HASHES) {
        return ngx_http_ai_record_error(rec, "\"hash\" must have from 1 to %d "
                                        "hashes", NGX_HTTP_AI_RECORD_HASHES);
    }

    for (i = ngx_http_ai_json_first(rec->j, node);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(rec->j, node, i))
    {
        term = &rec->terms[rec->nterms++];

        rc = (ngx_http_ai_json_type(rec->j, i) == NGX_HTTP_AI_JSON_OBJECT)
             ? ngx_http_ai_record_terms(rec, i, term)
             : ngx_http_ai_record_hash(rec, i, term);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_record_hash(ngx_http_ai_record_t *rec, ngx_uint_t node,
    ngx_http_ai_record_term_t *term)
{
    u_char      *p;
    u_char       kind;
    ngx_int_t    n, low;
    ngx_str_t    text, *key;
    ngx_uint_t   i;

    text = ngx_http_ai_json_raw(rec->j, node);
    p = text.data;

    if (ngx_http_ai_json_type(rec->j, node) != NGX_HTTP_AI_JSON_STRING) {
        goto invalid;
    }

    if (text.len > 7 && ngx_strncmp(p, "sha256:", 7) == 0) {
        kind = NGX_HTTP_AI_AUTH_BY_SHA;
        p += 7;

    } else if (text.len > 12 && ngx_strncmp(p, "hmac-sha256:", 12) == 0) {
        kind = NGX_HTTP_AI_AUTH_BY_HMAC;
        p += 12;

    } else {
        goto invalid;
    }

    if (text.data + text.len - p != 2 * NGX_HTTP_AI_AUTH_DIGEST) {
        goto invalid;
    }

    term->not_before = 0;
    term->expires = 0;
    term->disabled = 0;

    for (i = 0; i < NGX_HTTP_AI_AUTH_DIGEST; i++) {
        n = ngx_hextoi(p++, 1);
        low = ngx_hextoi(p++, 1);

        if (n == NGX_ERROR || low == NGX_ERROR) {
            goto invalid;
        }

        term->digest[i] = (u_char) (n << 4 | low);
    }

    if (kind == NGX_HTTP_AI_AUTH_BY_HMAC) {

        if (rec->aamcf->pepper.len == 0) {
            return ngx_http_ai_record_error(rec, "\"hash\" is an HMAC, which "
                                            "needs \"ai_key_secret\"");
        }

        rec->load->flags |= NGX_HTTP_AI_AUTH_HMAC;

    } else {
        rec->load->flags |= NGX_HTTP_AI_AUTH_SHA;
    }

    key = &rec->keys[rec->nkeys++];

    key->len = NGX_HTTP_AI_AUTH_DIGEST + 1;
    key->data = ngx_pnalloc(rec->pool, key->len);
    if (key->data == NULL) {
        return NGX_ERROR;
    }

    key->data[0] = kind;
    ngx_memcpy(key->data + 1, term->digest, NGX_HTTP_AI_AUTH_DIGEST);

    return NGX_OK;

invalid:

    /* not shown: it may be the key itself */

    return ngx_http_ai_record_error(rec, "\"hash\" must be \"sha256:\" or "
                                    "\"hmac-sha256:\" and 64 hexadecimal "
                                    "digits, or an array of such hashes");
}


static ngx_int_t
ngx_http_ai_record_terms(ngx_http_ai_record_t *rec, ngx_uint_t node,
    ngx_http_ai_record_term_t *term)
{
    int64_t              not_before, expires;
    uint64_t             seen;
    ngx_int_t            rc;
    ngx_str_t           *name;
    ngx_uint_t           i, n, hash, disabled;
    ngx_http_ai_json_t  *j;

    j = rec->j;
    seen = 0;
    not_before = 0;
    expires = 0;
    disabled = 0;
    hash = NGX_HTTP_AI_JSON_NONE;

    for (i = ngx_http_ai_json_first(j, node);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(j, node, i))
    {
        rc = ngx_http_ai_record_find(rec, i, ngx_http_ai_record_hash_names,
                                     sizeof(ngx_http_ai_record_hash_names)
                                     / sizeof(ngx_str_t), &seen, &n);
        if (rc != NGX_OK) {
            return rc;
        }

        name = &ngx_http_ai_record_hash_names[n];

        switch (n) {

        case 0:
            hash = i + 1;
            break;

        case 1:
            rc = ngx_http_ai_record_time(rec, name, i + 1, &not_before);
            break;

        case 2:
            rc = ngx_http_ai_record_time(rec, name, i + 1, &expires);
            break;

        case 3:
            rc = ngx_http_ai_record_flag(rec, name, i + 1, &disabled);
            break;
        }

        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (hash == NGX_HTTP_AI_JSON_NONE) {
        return ngx_http_ai_record_error(rec, "\"hash\" is missing in an object"
                                        " of \"hash\"");
    }

    rc = ngx_http_ai_record_hash(rec, hash, term);

    term->not_before = not_before;
    term->expires = expires;
    term->disabled = disabled;

    return rc;
}


static ngx_int_t
ngx_http_ai_record_aliases(ngx_http_ai_record_t *rec, ngx_uint_t node)
{
    ngx_int_t    rc;
    ngx_str_t   *key, name, *id;
    ngx_uint_t   i, n;

    n = (ngx_http_ai_json_type(rec->j, node) == NGX_HTTP_AI_JSON_ARRAY)
        ? rec->j->nodes[node].count : NGX_HTTP_AI_RECORD_IDENTITIES + 1;

    if (n > NGX_HTTP_AI_RECORD_IDENTITIES) {
        return ngx_http_ai_record_error(rec, "\"identities\" must be an array "
                                        "of at most %d strings",
                                        NGX_HTTP_AI_RECORD_IDENTITIES);
    }

    id = &rec->fields[NGX_HTTP_AI_RECORD_KEY_ID];

    for (i = ngx_http_ai_json_first(rec->j, node);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(rec->j, node, i))
    {
        rc = ngx_http_ai_record_string(rec,
                                       &ngx_http_ai_record_names[14], i,
                                       &name);
        if (rc != NGX_OK) {
            return rc;
        }

        if (name.len == 0) {
            return ngx_http_ai_record_error(rec, "an empty string in "
                                            "\"identities\"");
        }

        /* the id is one anyway */

        if (name.len == id->len
            && ngx_memcmp(name.data, id->data, id->len) == 0)
        {
            continue;
        }

        key = &rec->keys[rec->nkeys++];

        key->len = name.len + 1;
        key->data = ngx_pnalloc(rec->pool, key->len);
        if (key->data == NULL) {
            return NGX_ERROR;
        }

        key->data[0] = NGX_HTTP_AI_AUTH_BY_NAME;
        ngx_memcpy(key->data + 1, name.data, name.len);
    }

    return NGX_OK;
}


/* items with a NUL at the end of each */

static ngx_int_t
ngx_http_ai_record_list(ngx_http_ai_record_t *rec, ngx_uint_t member,
    ngx_uint_t node, ngx_str_t *list)
{
    u_char      *p;
    size_t       len;
    ngx_int_t    rc;
    ngx_str_t   *name, item;
    ngx_uint_t   i, endpoints;

    name = &ngx_http_ai_record_names[member];
    endpoints = (ngx_http_ai_record_types[member].type
                 == NGX_HTTP_AI_RECORD_ENDPOINTS);

    if (ngx_http_ai_json_type(rec->j, node) != NGX_HTTP_AI_JSON_ARRAY) {
        return ngx_http_ai_record_error(rec, "\"%V\" must be an array of "
                                        "strings", name);
    }

    /* no item takes more than its text, or its text and this */

    len = rec->j->nodes[node].len
          + (endpoints ? rec->j->nodes[node].count * 16 : 0);

    p = ngx_pnalloc(rec->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    list->data = p;

    for (i = ngx_http_ai_json_first(rec->j, node);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(rec->j, node, i))
    {
        if (ngx_http_ai_json_type(rec->j, i) != NGX_HTTP_AI_JSON_STRING) {
            return ngx_http_ai_record_error(rec, "\"%V\" must be an array of "
                                            "strings", name);
        }

        rc = ngx_http_ai_record_string(rec, name, i, &item);
        if (rc != NGX_OK) {
            return rc;
        }

        if (item.len == 0) {
            return ngx_http_ai_record_error(rec, "an empty string in \"%V\"",
                                            name);
        }

        if (endpoints) {
            rc = ngx_http_ai_record_endpoint(rec, &item, &p);
            if (rc != NGX_OK) {
                return rc;
            }

            continue;
        }

        p = ngx_cpymem(p, item.data, item.len);
        *p++ = '\0';
    }

    list->len = p - list->data;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_record_endpoint(ngx_http_ai_record_t *rec, ngx_str_t *name,
    u_char **p)
{
    ngx_str_t   near, shown;
    ngx_uint_t  i;

    for (i = 0; i < NGX_HTTP_AI_RECORD_OPS; i++) {

        if (name->len == ngx_http_ai_record_endpoints[i].len
            && ngx_memcmp(name->data, ngx_http_ai_record_endpoints[i].data,
                          name->len)
               == 0)
        {
            *p = ngx_cpymem(*p, ngx_http_ai_record_ops[i].data,
                            ngx_http_ai_record_ops[i].len);
            return NGX_OK;
        }
    }

    near = ngx_http_ai_near_text(rec->pool, name,
                                 ngx_http_ai_record_endpoints,
                                 NGX_HTTP_AI_RECORD_OPS);
    shown = ngx_http_ai_record_shown(rec->pool, name);

    return ngx_http_ai_record_error(rec, "unknown endpoint \"%V\"%V", &shown,
                                    &near);
}


/* with a space between them */

static ngx_int_t
ngx_http_ai_record_words(ngx_http_ai_record_t *rec, ngx_uint_t node,
    ngx_str_t *words)
{
    u_char      *p;
    ngx_int_t    rc;
    ngx_str_t   *name, text;
    ngx_uint_t   i, n, one;

    name = &ngx_http_ai_record_names[6];
    one = (ngx_http_ai_json_type(rec->j, node) == NGX_HTTP_AI_JSON_STRING);

    if (!one
        && ngx_http_ai_json_type(rec->j, node) != NGX_HTTP_AI_JSON_ARRAY)
    {
        return ngx_http_ai_record_error(rec, "\"%V\" must be an array of "
                                        "strings, or a string of words with "
                                        "spaces between them", name);
    }

    p = ngx_pnalloc(rec->pool, rec->j->nodes[node].len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    words->data = p;

    for (i = one ? node : ngx_http_ai_json_first(rec->j, node);
         i != NGX_HTTP_AI_JSON_NONE;
         i = one ? NGX_HTTP_AI_JSON_NONE
                 : ngx_http_ai_json_next(rec->j, node, i))
    {
        if (ngx_http_ai_json_type(rec->j, i) != NGX_HTTP_AI_JSON_STRING) {
            return ngx_http_ai_record_error(rec, "\"%V\" must be an array of "
                                            "strings", name);
        }

        rc = ngx_http_ai_record_string(rec, name, i, &text);
        if (rc != NGX_OK) {
            return rc;
        }

        if (!one && (text.len == 0
                     || ngx_strlchr(text.data, text.data + text.len, ' ')))
        {
            return ngx_http_ai_record_error(rec, "an item of \"%V\" is empty "
                                            "or has a space in it", name);
        }

        for (n = 0; n < text.len; n++) {

            if (text.data[n] == ' ') {
                continue;
            }

            if (p != words->data && (n == 0 || text.data[n - 1] == ' ')) {
                *p++ = ' ';
            }

            *p++ = text.data[n];
        }
    }

    words->len = p - words->data;

    return NGX_OK;
}


static ngx_int_t
ngx_http_ai_record_object(ngx_http_ai_record_t *rec, ngx_uint_t member,
    ngx_uint_t node, ngx_uint_t zones, ngx_str_t *text)
{
    ngx_int_t    rc;
    ngx_str_t   *name;
    ngx_uint_t   i, type;

    name = &ngx_http_ai_record_names[member];
    type = ngx_http_ai_json_type(rec->j, node);

    if (type == NGX_HTTP_AI_JSON_NULL) {
        return NGX_OK;
    }

    if (type != NGX_HTTP_AI_JSON_OBJECT) {
        return ngx_http_ai_record_error(rec, "\"%V\" must be an object", name);
    }

    for (i = zones ? ngx_http_ai_json_first(rec->j, node)
                   : NGX_HTTP_AI_JSON_NONE;
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(rec->j, node, i))
    {
        if (ngx_http_ai_json_type(rec->j, i + 1) != NGX_HTTP_AI_JSON_OBJECT) {
            return ngx_http_ai_record_error(rec, "\"%V\" must be an object of "
                                            "objects, one for each zone",
                                            name);
        }

        rc = ngx_http_ai_record_zone(rec, member, i);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    *text = ngx_http_ai_json_raw(rec->j, node);

    return NGX_OK;
}


/*
 * Zones are those of the configuration, but what can be said of one is always
 * the same.  A number without a unit has that of the zone.
 */

static ngx_int_t
ngx_http_ai_record_zone(ngx_http_ai_record_t *rec, ngx_uint_t member,
    ngx_uint_t key)
{
    int                                 unit;
    int64_t                             amount;
    ngx_str_t                           raw, name, near, zone, value;
    ngx_str_t                           names[5];
    ngx_uint_t                          i, n, k, type;
    const char                         *error;
    const ngx_http_ai_quantity_name_t  *q;

    q = ngx_http_ai_str_is(&ngx_http_ai_record_names[member], "limits")
        ? ngx_http_ai_quantity_limits : ngx_http_ai_quantity_quotas;

    raw = ngx_http_ai_json_raw(rec->j, key);
    zone = ngx_http_ai_record_shown(rec->pool, &raw);

    for (i = ngx_http_ai_json_first(rec->j, key + 1);
         i != NGX_HTTP_AI_JSON_NONE;
         i = ngx_http_ai_json_next(rec->j, key + 1, i))
    {
        raw = ngx_http_ai_json_raw(rec->j, i);

        if (ngx_http_ai_json_unescape_str(rec->pool, &raw, &name) != NGX_OK) {
            return NGX_ERROR;
        }

        for (k = 0, n = 0; q[n].name; n++) {
            names[n].data = (u_char *) q[n].name;
            names[n].len = ngx_strlen(q[n].name);

            if (name.len == names[n].len
                && ngx_memcmp(name.data, names[n].data, name.len) == 0)
            {
                k = n + 1;
            }
        }

        if (k == 0) {
            near = ngx_http_ai_near_text(rec->pool, &name, names, n);
            name = ngx_http_ai_record_shown(rec->pool, &name);

            return ngx_http_ai_record_error(rec, "\"%V\" of zone \"%V\": "
                                            "unknown \"%V\"%V",
                                            &ngx_http_ai_record_names[member],
                                            &zone, &name, &near);
        }

        type = ngx_http_ai_json_type(rec->j, i + 1);

        if (type == NGX_HTTP_AI_JSON_NULL) {
            continue;
        }

        raw = ngx_http_ai_json_raw(rec->j, i + 1);
        value = ngx_http_ai_record_shown(rec->pool, &raw);
        unit = NGX_HTTP_AI_QUANTITY_MINUTE;

        error = (type == NGX_HTTP_AI_JSON_STRING
                 || type == NGX_HTTP_AI_JSON_NUMBER)
                ? ngx_http_ai_quantity_read(raw.data, raw.len, q[k - 1].kind,
                                            &amount, &unit)
                : "it is a string such as \"60r/m\"";

        if (error) {
            return ngx_http_ai_record_error(rec, "\"%V\" of zone \"%V\": "
                                            "invalid \"%V\": \"%V\": %s",
                                            &ngx_http_ai_record_names[member],
                                            &zone, &name, &value, error);
        }
    }

    return NGX_OK;
}
