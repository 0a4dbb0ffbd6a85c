
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The rules are those of ngx_http_ai_auth_keys.c: what is good here must be
 * taken by nginx.
 */


#include "aigw.h"


#define AIGW_ID_MAX          128
#define AIGW_IDENTITIES_MAX  64
#define AIGW_TIME_MAX        100000000000.0


typedef struct {
    const char  *name;
    char      *(*handler)(aigw_record_t *r, cJSON *value);
} aigw_rule_t;


static char *aigw_rule_id(aigw_record_t *r, cJSON *value);
static char *aigw_rule_hash(aigw_record_t *r, cJSON *value);
static char *aigw_rule_string(aigw_record_t *r, cJSON *value);
static char *aigw_rule_identities(aigw_record_t *r, cJSON *value);
static char *aigw_rule_scopes(aigw_record_t *r, cJSON *value);
static char *aigw_rule_list(aigw_record_t *r, cJSON *value);
static char *aigw_rule_endpoints(aigw_record_t *r, cJSON *value);
static char *aigw_rule_zones(aigw_record_t *r, cJSON *value);
static char *aigw_rule_object(aigw_record_t *r, cJSON *value);
static char *aigw_rule_not_before(aigw_record_t *r, cJSON *value);
static char *aigw_rule_expires(aigw_record_t *r, cJSON *value);
static char *aigw_rule_disabled(aigw_record_t *r, cJSON *value);
static char *aigw_rule_foreign(aigw_record_t *r, cJSON *value);
static char *aigw_rule_any(aigw_record_t *r, cJSON *value);
static char *aigw_hash_parse(aigw_hash_t *hash, cJSON *value);
static char *aigw_tree(aigw_str_t *text, cJSON **json);
static char *aigw_hash_raw(aigw_str_t *record);
static char *aigw_record_rules(aigw_record_t *r);
static char *aigw_duplicates(cJSON *object);
static const char *aigw_type(cJSON *value);
static char *aigw_entry_rules(aigw_entry_t *e);
static int aigw_revoked_cmp(const void *one, const void *two);


static const aigw_rule_t  aigw_rules[] = {
    { "id", aigw_rule_id },
    { "hash", aigw_rule_hash },
    { "tenant", aigw_rule_string },
    { "user", aigw_rule_string },
    { "team", aigw_rule_string },
    { "plan", aigw_rule_string },
    { "scopes", aigw_rule_scopes },
    { "models", aigw_rule_list },
    { "deny", aigw_rule_list },
    { "providers", aigw_rule_list },
    { "endpoints", aigw_rule_endpoints },
    { "limits", aigw_rule_zones },
    { "quotas", aigw_rule_zones },
    { "metadata", aigw_rule_object },
    { "identities", aigw_rule_identities },
    { "not_before", aigw_rule_not_before },
    { "expires", aigw_rule_expires },
    { "disabled", aigw_rule_disabled },
    { "foreign", aigw_rule_foreign },
    { "name", aigw_rule_any },
    { "created", aigw_rule_any },
    { "comment", aigw_rule_any },
    { NULL, NULL }
};


const char *const  aigw_endpoints[] = {
    "chat", "completions", "embeddings", "count_tokens", "models",
    "passthrough", NULL
};


static const char *const  aigw_states[] = {
    "active", "pending", "expired", "disabled", "revoked", NULL
};


static const char *const  aigw_hash_members[] = {
    "hash", "not_before", "expires", "disabled", "comment", "created", NULL
};


static const char *const  aigw_entry_members[] = {
    "key", "jti", "sub", "issuer", "until", "comment", NULL
};


void
aigw_record_parse(aigw_record_t *r, aigw_str_t *text)
{
    memset(r, 0, sizeof(aigw_record_t));

    r->error = aigw_tree(text, &r->json);

    if (r->error == NULL) {
        r->error = aigw_record_rules(r);
    }

    if (r->error == NULL && r->nhashes
        && memchr(text->data, '\\', text->len) != NULL)
    {
        r->error = aigw_hash_raw(text);
    }
}


/* nginx is not that strict, but what it makes of such a text is a guess */

static char *
aigw_tree(aigw_str_t *text, cJSON **json)
{
    aigw_json_error_t  e;

    e.strict = 1;
    *json = NULL;

    if (aigw_json_skip(text->data, text->data + text->len, &e) == NULL) {
        return aigw_strdup(e.text);
    }

    *json = cJSON_ParseWithLength((char *) text->data, text->len);

    return *json ? NULL : aigw_strdup("the record cannot be parsed");
}


void
aigw_record_free(aigw_record_t *r)
{
    cJSON_Delete(r->json);
    free(r->hashes);
    free(r->error);
}


static char *
aigw_record_rules(aigw_record_t *r)
{
    size_t       i;
    char        *error, *near;
    cJSON       *m;
    const char  *names[sizeof(aigw_rules) / sizeof(aigw_rule_t)];

    error = aigw_duplicates(r->json);

    cJSON_ArrayForEach(m, r->json) {

        for (i = 0; aigw_rules[i].name; i++) {
            if (strcmp(aigw_rules[i].name, m->string) == 0) {
                break;
            }
        }

        if (aigw_rules[i].name) {

            /* the id is wanted for messages, whatever else is wrong */

            if (error == NULL || i == 0) {
                near = aigw_rules[i].handler(r, m);
                error = error ? error : near;
            }

            continue;
        }

        if (error) {
            continue;
        }

        for (i = 0; aigw_rules[i].name; i++) {
            names[i] = aigw_rules[i].name;
        }

        names[i] = NULL;

        near = aigw_near_text(m->string, names);
        error = aigw_format("unknown member \"%s\"%s", m->string, near);
        free(near);
    }

    if (error == NULL && r->id == NULL) {
        error = aigw_strdup("there is no \"id\"");
    }

    return error;
}


static char *
aigw_duplicates(cJSON *object)
{
    cJSON  *m, *other;

    cJSON_ArrayForEach(m, object) {
        for (other = m->next; other; other = other->next) {
            if (strcmp(m->string, other->string) == 0) {
                return aigw_format("duplicate member \"%s\"", m->string);
            }
        }
    }

    return NULL;
}


static const char *
aigw_type(cJSON *value)
{
    if (cJSON_IsString(value)) {
        return "a string";
    }

    if (cJSON_IsNumber(value)) {
        return "a number";
    }

    if (cJSON_IsBool(value)) {
        return "a boolean";
    }

    return cJSON_IsArray(value) ? "an array"
           : cJSON_IsObject(value) ? "an object" : "null";
}


const char *
aigw_id_error(const char *id)
{
    size_t         n;
    const u_char  *p;

    n = strlen(id);

    if (n == 0 || n > AIGW_ID_MAX) {
        return "it has from 1 to 128 characters";
    }

    for (p = (const u_char *) id; *p; p++) {
        if (*p <= ' ' || *p >= 0x7f || *p == '"' || *p == '\\') {
            return "it is of ASCII characters, without white space, quotes "
                   "and backslashes";
        }
    }

    if (ngx_http_ai_key_is_ours((const u_char *) id, n)) {
        return "it looks like a key, which must not be in the file";
    }

    return NULL;
}


static char *
aigw_rule_id(aigw_record_t *r, cJSON *value)
{
    const char  *error;

    if (!cJSON_IsString(value)) {
        return aigw_format("\"id\" is %s, it must be a string",
                           aigw_type(value));
    }

    error = aigw_id_error(value->valuestring);

    if (error) {
        return aigw_format("invalid \"id\": %s", error);
    }

    r->id = value->valuestring;

    return NULL;
}


int
aigw_hash_valid(const char *text)
{
    size_t  n;

    if (strncmp(text, "sha256:", 7) == 0) {
        text += 7;

    } else if (strncmp(text, "hmac-sha256:", 12) == 0) {
        text += 12;

    } else {
        return 0;
    }

    n = strspn(text, "0123456789abcdefABCDEF");

    return n == 64 && text[n] == '\0';
}


static char *
aigw_rule_hash(aigw_record_t *r, cJSON *value)
{
    int     n;
    char   *error;
    cJSON  *item;

    n = cJSON_IsArray(value) ? cJSON_GetArraySize(value) : 1;

    if (n == 0 || n > AIGW_HASHES_MAX) {
        return aigw_format("\"hash\" has %d items, it must have from 1 to %d",
                           n, AIGW_HASHES_MAX);
    }

    r->hashes = aigw_alloc(n * sizeof(aigw_hash_t));

    if (!cJSON_IsArray(value)) {
        if (!cJSON_IsString(value)) {
            return aigw_format("\"hash\" is %s, it must be a string or an "
                               "array", aigw_type(value));
        }

        error = aigw_hash_parse(r->hashes, value);
        r->nhashes = (error == NULL);
        return error;
    }

    cJSON_ArrayForEach(item, value) {
        error = aigw_hash_parse(&r->hashes[r->nhashes], item);

        if (error) {
            return error;
        }

        r->nhashes++;
    }

    return NULL;
}


static char *
aigw_hash_parse(aigw_hash_t *hash, cJSON *value)
{
    char   *error, *near;
    cJSON  *m;

    memset(hash, 0, sizeof(aigw_hash_t));

    if (cJSON_IsString(value)) {
        hash->text = value->valuestring;

    } else if (cJSON_IsObject(value)) {
        error = aigw_duplicates(value);

        if (error) {
            return error;
        }

        cJSON_ArrayForEach(m, value) {
            error = NULL;

            if (strcmp(m->string, "hash") == 0) {
                if (!cJSON_IsString(m)) {
                    return aigw_format("\"hash\" is %s, it must be a string",
                                       aigw_type(m));
                }

                hash->text = m->valuestring;

            } else if (strcmp(m->string, "not_before") == 0) {
                error = aigw_rule_time(m, &hash->not_before);

            } else if (strcmp(m->string, "expires") == 0) {
                error = aigw_rule_time(m, &hash->expires);

            } else if (strcmp(m->string, "disabled") == 0) {
                if (!cJSON_IsBool(m)) {
                    return aigw_format("\"disabled\" is %s, it must be true "
                                       "or false", aigw_type(m));
                }

                hash->disabled = cJSON_IsTrue(m);

            } else if (strcmp(m->string, "comment") != 0
                       && strcmp(m->string, "created") != 0)
            {
                near = aigw_near_text(m->string, aigw_hash_members);
                error = aigw_format("unknown member \"%s\" of a hash%s",
                                    m->string, near);
                free(near);
            }

            if (error) {
                return error;
            }
        }

        if (hash->text == NULL) {
            return aigw_strdup("a hash without \"hash\"");
        }

    } else {
        return aigw_format("a hash is %s, it must be a string or an object",
                           aigw_type(value));
    }

    if (!aigw_hash_valid(hash->text)) {
        return aigw_strdup("invalid hash: it is \"sha256:\" or "
                           "\"hmac-sha256:\" and 64 hexadecimal digits");
    }

    return NULL;
}


/* nginx takes the digits as they are written, without escapes */

static char *
aigw_hash_raw(aigw_str_t *record)
{
    u_char             *p, *last;
    aigw_str_t          item;
    aigw_member_t       m, hash;

    if (aigw_json_member(record, "hash", &m) != AIGW_OK) {
        return NULL;
    }

    p = m.value.data;
    last = p + m.value.len;

    if (*p != '[') {
        return memchr(p, '\\', last - p) ? aigw_strdup("escapes in a hash")
                                         : NULL;
    }

    for (p++; aigw_json_item(&p, last, &item) == AIGW_OK; /* void */ ) {

        if (item.data[0] == '{') {
            (void) aigw_json_member(&item, "hash", &hash);
            item = hash.value;
        }

        if (memchr(item.data, '\\', item.len) != NULL) {
            return aigw_strdup("escapes in a hash");
        }
    }

    return NULL;
}


static char *
aigw_rule_string(aigw_record_t *r, cJSON *value)
{
    const u_char  *p;

    if (cJSON_IsNull(value)) {
        return NULL;
    }

    if (!cJSON_IsString(value)) {
        return aigw_format("\"%s\" is %s, it must be a string",
                           value->string, aigw_type(value));
    }

    for (p = (u_char *) value->valuestring; *p; p++) {
        if (*p < ' ' || *p == 0x7f) {
            return aigw_format("control character in \"%s\"", value->string);
        }
    }

    return NULL;
}


static char *
aigw_rule_list(aigw_record_t *r, cJSON *value)
{
    cJSON         *item;
    const u_char  *p;

    if (!cJSON_IsArray(value)) {
        return aigw_format("\"%s\" is %s, it must be an array of strings",
                           value->string, aigw_type(value));
    }

    cJSON_ArrayForEach(item, value) {
        if (!cJSON_IsString(item)) {
            return aigw_format("an item of \"%s\" is %s, it must be a string",
                               value->string, aigw_type(item));
        }

        if (item->valuestring[0] == '\0') {
            return aigw_format("an item of \"%s\" is empty", value->string);
        }

        for (p = (u_char *) item->valuestring; *p; p++) {
            if (*p < ' ' || *p == 0x7f) {
                return aigw_format("control character in \"%s\"",
                                   value->string);
            }
        }
    }

    return NULL;
}


static char *
aigw_rule_identities(aigw_record_t *r, cJSON *value)
{
    char   *error;
    cJSON  *item, *other;

    error = aigw_rule_list(r, value);

    if (error) {
        return error;
    }

    if (cJSON_GetArraySize(value) > AIGW_IDENTITIES_MAX) {
        return aigw_format("\"identities\" has more than %d items",
                           AIGW_IDENTITIES_MAX);
    }

    cJSON_ArrayForEach(item, value) {
        for (other = item->next; other; other = other->next) {
            if (strcmp(item->valuestring, other->valuestring) == 0
                && (r->id == NULL
                    || strcmp(item->valuestring, r->id) != 0))
            {
                return aigw_format("identity \"%s\" is there twice",
                                   item->valuestring);
            }
        }
    }

    return NULL;
}


static char *
aigw_rule_scopes(aigw_record_t *r, cJSON *value)
{
    char   *error;
    cJSON  *item;

    if (cJSON_IsString(value)) {
        return aigw_rule_string(r, value);
    }

    error = aigw_rule_list(r, value);

    if (error) {
        return error;
    }

    cJSON_ArrayForEach(item, value) {
        if (strchr(item->valuestring, ' ')) {
            return aigw_format("a space in the scope \"%s\"",
                               item->valuestring);
        }
    }

    return NULL;
}


static char *
aigw_rule_endpoints(aigw_record_t *r, cJSON *value)
{
    char               *error, *near;
    cJSON              *item;
    const char *const  *e;

    error = aigw_rule_list(r, value);

    if (error) {
        return error;
    }

    cJSON_ArrayForEach(item, value) {
        for (e = aigw_endpoints; *e; e++) {
            if (strcmp(*e, item->valuestring) == 0) {
                break;
            }
        }

        if (*e == NULL) {
            near = aigw_near_text(item->valuestring, aigw_endpoints);
            error = aigw_format("unknown endpoint \"%s\"%s",
                                item->valuestring, near);
            free(near);
            return error;
        }
    }

    return NULL;
}


static char *
aigw_rule_object(aigw_record_t *r, cJSON *value)
{
    if (!cJSON_IsObject(value) && !cJSON_IsNull(value)) {
        return aigw_format("\"%s\" is %s, it must be an object",
                           value->string, aigw_type(value));
    }

    return NULL;
}


static char *
aigw_rule_zones(aigw_record_t *r, cJSON *value)
{
    char   *error;
    cJSON  *zone, *amount;

    error = aigw_rule_object(r, value);

    if (error) {
        return error;
    }

    cJSON_ArrayForEach(zone, value) {
        if (!cJSON_IsObject(zone)) {
            return aigw_format("\"%s\" of \"%s\" is %s, it must be an object",
                               zone->string, value->string, aigw_type(zone));
        }

        cJSON_ArrayForEach(amount, zone) {
            error = aigw_rule_amount(value->string, zone->string, amount,
                                     strcmp(value->string, "limits") == 0
                                     ? ngx_http_ai_quantity_limits
                                     : ngx_http_ai_quantity_quotas);

            if (error) {
                return error;
            }
        }
    }

    return NULL;
}


char *
aigw_rule_amount(const char *member, const char *zone, cJSON *amount,
    const ngx_http_ai_quantity_name_t *q)
{
    int          i, unit;
    char        *near, *error, text[64];
    int64_t      n;
    const char  *value, *wrong, *names[8];

    for (i = 0; q[i].name && strcmp(q[i].name, amount->string) != 0; i++) {
        names[i] = q[i].name;
    }

    if (q[i].name == NULL) {
        names[i] = NULL;
        near = aigw_near_text(amount->string, names);
        error = aigw_format("\"%s\" of zone \"%s\": unknown \"%s\"%s",
                            member, zone, amount->string, near);
        free(near);

        return error;
    }

    if (cJSON_IsNull(amount)) {
        return NULL;
    }

    if (cJSON_IsString(amount)) {
        value = amount->valuestring;

    } else if (cJSON_IsNumber(amount)) {
        snprintf(text, sizeof(text), "%.17g", amount->valuedouble);
        value = text;

    } else {
        return aigw_format("\"%s\" of zone \"%s\": \"%s\" is %s, it must be "
                           "a string such as \"60r/m\"", member, zone,
                           amount->string, aigw_type(amount));
    }

    /* a number without a unit has that of the zone */
    unit = NGX_HTTP_AI_QUANTITY_MINUTE;

    wrong = ngx_http_ai_quantity_read((const unsigned char *) value,
                                      strlen(value), q[i].kind, &n, &unit);

    if (wrong == NULL) {
        return NULL;
    }

    return aigw_format("\"%s\" of zone \"%s\": invalid \"%s\": \"%s\": %s",
                       member, zone, amount->string, value, wrong);
}


char *
aigw_rule_time(cJSON *value, time_t *t)
{
    *t = 0;

    if (cJSON_IsNull(value)) {
        return NULL;
    }

    if (cJSON_IsNumber(value)) {

        /* what is later is in milliseconds */

        if (value->valuedouble >= 1 && value->valuedouble < AIGW_TIME_MAX) {
            *t = (time_t) value->valuedouble;
            return NULL;
        }

        return aigw_format("invalid \"%s\": it is a number of seconds since "
                           "1970", value->string);
    }

    if (!cJSON_IsString(value)) {
        return aigw_format("\"%s\" is %s, it must be a time",
                           value->string, aigw_type(value));
    }

    if (aigw_time_parse(value->valuestring, t) != AIGW_OK || *t <= 0) {
        return aigw_format("invalid \"%s\": \"%s\" is no time such as "
                           "\"2030-01-31T00:00:00Z\"", value->string,
                           value->valuestring);
    }

    return NULL;
}


static char *
aigw_rule_not_before(aigw_record_t *r, cJSON *value)
{
    return aigw_rule_time(value, &r->not_before);
}


static char *
aigw_rule_expires(aigw_record_t *r, cJSON *value)
{
    return aigw_rule_time(value, &r->expires);
}


static char *
aigw_rule_disabled(aigw_record_t *r, cJSON *value)
{
    if (!cJSON_IsBool(value)) {
        return aigw_format("\"disabled\" is %s, it must be true or false",
                           aigw_type(value));
    }

    r->disabled = cJSON_IsTrue(value);

    return NULL;
}


static char *
aigw_rule_foreign(aigw_record_t *r, cJSON *value)
{
    if (!cJSON_IsBool(value)) {
        return aigw_format("\"foreign\" is %s, it must be true or false",
                           aigw_type(value));
    }

    return NULL;
}


static char *
aigw_rule_any(aigw_record_t *r, cJSON *value)
{
    return NULL;
}


/* a bad record is no reason to say that a key works */

aigw_state_e
aigw_hash_state(aigw_record_t *r, aigw_hash_t *hash, aigw_revoked_t *revoked,
    time_t now)
{
    if (r->id && aigw_revoked_has(revoked, r->id)) {
        return AIGW_REVOKED;
    }

    if (r->disabled || hash->disabled) {
        return AIGW_DISABLED;
    }

    if ((r->expires && r->expires <= now)
        || (hash->expires && hash->expires <= now))
    {
        return AIGW_EXPIRED;
    }

    if (r->not_before > now || hash->not_before > now) {
        return AIGW_PENDING;
    }

    return AIGW_ACTIVE;
}


/* the best of the keys; identities need none */

aigw_state_e
aigw_record_state(aigw_record_t *r, aigw_revoked_t *revoked, time_t now)
{
    size_t        i;
    aigw_hash_t   none;
    aigw_state_e  state, best;

    memset(&none, 0, sizeof(aigw_hash_t));

    best = aigw_hash_state(r, &none, revoked, now);

    if (best != AIGW_ACTIVE || r->nhashes == 0
        || cJSON_HasObjectItem(r->json, "identities"))
    {
        return best;
    }

    best = AIGW_DISABLED;

    for (i = 0; i < r->nhashes; i++) {
        state = aigw_hash_state(r, &r->hashes[i], revoked, now);

        if (state < best) {
            best = state;
        }
    }

    return best;
}


const char *
aigw_state_name(aigw_state_e state)
{
    return aigw_states[state];
}


const char *const *
aigw_state_names(void)
{
    return aigw_states;
}


int
aigw_record_is(aigw_str_t *record, const char *id)
{
    aigw_member_t  m;

    /* most records do not even contain it */

    if (memmem(record->data, record->len, id, strlen(id)) == NULL
        && memchr(record->data, '\\', record->len) == NULL)
    {
        return 0;
    }

    return aigw_json_member(record, "id", &m) == AIGW_OK
           && aigw_json_is(&m.value, id);
}


void
aigw_entry_parse(aigw_entry_t *e, aigw_str_t *text)
{
    memset(e, 0, sizeof(aigw_entry_t));

    e->error = aigw_tree(text, &e->json);

    if (e->error == NULL) {
        e->error = aigw_entry_rules(e);
    }
}


void
aigw_entry_free(aigw_entry_t *e)
{
    cJSON_Delete(e->json);
    free(e->error);
}


static char *
aigw_entry_rules(aigw_entry_t *e)
{
    int       n, issuer;
    char     *error, *near;
    u_char   *p;
    cJSON    *m;

    error = aigw_duplicates(e->json);

    if (error) {
        return error;
    }

    n = 0;
    issuer = 0;

    cJSON_ArrayForEach(m, e->json) {

        if (strcmp(m->string, "until") == 0) {
            error = aigw_rule_time(m, &e->until);

            if (error) {
                return error;
            }

            continue;
        }

        if (strcmp(m->string, "comment") == 0) {
            continue;
        }

        if (strcmp(m->string, "issuer") == 0) {
            issuer = 1;

        } else if (strcmp(m->string, "key") == 0
                   || strcmp(m->string, "jti") == 0
                   || strcmp(m->string, "sub") == 0)
        {
            n++;

        } else {
            near = aigw_near_text(m->string, aigw_entry_members);
            error = aigw_format("unknown member \"%s\"%s", m->string, near);
            free(near);
            return error;
        }

        if (!cJSON_IsString(m)) {
            return aigw_format("\"%s\" is %s, it must be a string", m->string,
                               aigw_type(m));
        }

        if (m->valuestring[0] == '\0') {
            return aigw_format("\"%s\" is empty", m->string);
        }

        for (p = (u_char *) m->valuestring; *p; p++) {
            if (*p < ' ' || *p == 0x7f) {
                return aigw_format("control character in \"%s\"", m->string);
            }
        }

        if (m->string[0] == 'i') {
            e->issuer = m->valuestring;

        } else {
            e->kind = m->string[0];
            e->value = m->valuestring;
        }

        if (m->string[0] == 'k') {
            e->key = m->valuestring;
        }
    }

    if (n != 1) {
        return aigw_strdup("an entry has one of \"key\", \"jti\" and "
                           "\"sub\"");
    }

    if (e->key
        && ngx_http_ai_key_is_ours((u_char *) e->key, strlen(e->key)))
    {
        return aigw_strdup("\"key\" is the id of a record, not the key "
                           "itself");
    }

    if (e->key && issuer) {
        return aigw_strdup("\"issuer\" is of tokens, not of a \"key\"");
    }

    return NULL;
}


static int
aigw_revoked_cmp(const void *one, const void *two)
{
    return strcmp(*(char *const *) one, *(char *const *) two);
}


void
aigw_revoked_read(aigw_revoked_t *revoked, aigw_line_t *line, int write)
{
    size_t        size;
    time_t        now;
    aigw_file_t  *f;
    aigw_entry_t  e;

    memset(revoked, 0, sizeof(aigw_revoked_t));

    f = &revoked->file;
    size = 0;
    now = time(NULL);

    aigw_file_open(f, "revoked", line, write);

    while (aigw_file_walk(f)) {
        aigw_entry_parse(&e, &f->record);

        if (e.error) {
            aigw_fail("%s:%zu: %s", f->path,
                      aigw_file_line(f, f->record.data), e.error);
        }

        if (e.key && (e.until == 0 || e.until > now)) {
            if (revoked->n == size) {
                size = size * 2 + 64;
                revoked->ids = aigw_realloc(revoked->ids,
                                            size * sizeof(char *));
            }

            revoked->ids[revoked->n++] = aigw_strdup(e.key);
        }

        aigw_entry_free(&e);
    }

    if (revoked->n) {
        qsort(revoked->ids, revoked->n, sizeof(char *), aigw_revoked_cmp);
    }
}


int
aigw_revoked_has(aigw_revoked_t *revoked, const char *id)
{
    return revoked != NULL && revoked->n
           && bsearch(&id, revoked->ids, revoked->n, sizeof(char *),
                      aigw_revoked_cmp) != NULL;
}
