
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * create, import-hash, update: records from options
 */


#include "aigw.h"

#include <strings.h>


typedef struct {
    aigw_opt_e   opt;
    const char  *member;
    char         kind;           /* s: string, l: list, i: list without commas,
                                    z: zones, m: map, t: time, b: true */
} aigw_field_t;


static cJSON *aigw_fields(aigw_line_t *line, time_t now);
static void aigw_field_items(cJSON *list, aigw_field_t *field, char *value);
static void aigw_field_zone(cJSON *zones, aigw_field_t *field, char *value);
static void aigw_field_meta(cJSON *map, char *value);
static void aigw_field_check(aigw_field_t *field, const char *value);
static int aigw_name_valid(const char *name, const char *more);
static char *aigw_pattern_error(const char *value);
static int aigw_clash(aigw_file_t *f, const char *id, int made_up,
    const char *hash, cJSON *identities, u_char *except);
static int aigw_same_name(aigw_record_t *r, const char *name);
static int aigw_keys_new(aigw_line_t *line, int import);
static int aigw_new_shown(aigw_line_t *line, aigw_file_t *f, aigw_record_t *r,
    int key);
static char *aigw_import_hash(aigw_line_t *line);
static void aigw_clear_check(const char *name, cJSON *fields);


static aigw_field_t  aigw_field_table[] = {
    { AIGW_OPT_TENANT, "tenant", 's' },
    { AIGW_OPT_USER, "user", 's' },
    { AIGW_OPT_TEAM, "team", 's' },
    { AIGW_OPT_PLAN, "plan", 's' },
    { AIGW_OPT_SCOPE, "scopes", 'l' },
    { AIGW_OPT_MODEL, "models", 'l' },
    { AIGW_OPT_DENY, "deny", 'l' },
    { AIGW_OPT_PROVIDER, "providers", 'l' },
    { AIGW_OPT_ENDPOINT, "endpoints", 'l' },
    { AIGW_OPT_LIMIT, "limits", 'z' },
    { AIGW_OPT_QUOTA, "quotas", 'z' },
    { AIGW_OPT_META, "metadata", 'm' },
    { AIGW_OPT_IDENTITY, "identities", 'i' },
    { AIGW_OPT_NOT_BEFORE, "not_before", 't' },
    { AIGW_OPT_EXPIRES, "expires", 't' },
    { AIGW_OPT_DISABLED, "disabled", 'b' },
    { AIGW_OPT_NAME, "name", 's' },
    { AIGW_OPT_COMMENT, "comment", 's' }
};


#define AIGW_FIELDS  (sizeof(aigw_field_table) / sizeof(aigw_field_t))


/* an object with the members that options set, in the order of the table */

static cJSON *
aigw_fields(aigw_line_t *line, time_t now)
{
    char          *text;
    size_t         i, n;
    time_t         t, begin, end;
    cJSON         *record, *value;
    aigw_arg_t    *arg;
    aigw_field_t  *field;

    record = cJSON_CreateObject();
    begin = 0;
    end = 0;

    for (i = 0; i < AIGW_FIELDS; i++) {
        field = &aigw_field_table[i];

        if (!aigw_has(line, field->opt)) {
            continue;
        }

        value = NULL;

        if (field->kind == 'l' || field->kind == 'i') {
            value = cJSON_AddArrayToObject(record, field->member);

        } else if (field->kind == 'z' || field->kind == 'm') {
            value = cJSON_AddObjectToObject(record, field->member);

        } else if (field->kind == 'b') {
            cJSON_AddTrueToObject(record, field->member);
        }

        for (n = 0; n < line->nargs; n++) {
            arg = &line->args[n];

            if (arg->opt != field->opt) {
                continue;
            }

            switch (field->kind) {

            case 's':
                aigw_field_check(field, arg->value);
                cJSON_AddStringToObject(record, field->member, arg->value);
                break;

            case 'i':
                aigw_field_check(field, arg->value);
                cJSON_AddItemToArray(value, cJSON_CreateString(arg->value));
                break;

            case 'l':
                aigw_field_items(value, field, arg->value);
                break;

            case 'z':
                aigw_field_zone(value, field, arg->value);
                break;

            case 'm':
                aigw_field_meta(value, arg->value);
                break;

            case 't':
                t = aigw_time_option(field->opt, arg->value, now);

                if (field->opt == AIGW_OPT_EXPIRES) {
                    if (t <= now) {
                        aigw_usage("--expires \"%s\" is in the past",
                                   arg->value);
                    }

                    end = t;

                } else {
                    begin = t;
                }

                text = aigw_time_text(t);
                cJSON_AddStringToObject(record, field->member, text);
                free(text);
                break;
            }
        }
    }

    if (begin && end && begin >= end) {
        aigw_usage("--not-before is not before --expires");
    }

    return record;
}


static void
aigw_field_check(aigw_field_t *field, const char *value)
{
    const u_char  *p;

    if (*value == '\0') {
        aigw_usage("the value of %s is empty", aigw_opt_name(field->opt));
    }

    for (p = (const u_char *) value; *p; p++) {
        if (*p < ' ' || *p == 0x7f) {
            aigw_usage("control character in the value of %s",
                       aigw_opt_name(field->opt));
        }
    }
}


/* names have no commas, so that several may be given at once */

static void
aigw_field_items(cJSON *list, aigw_field_t *field, char *value)
{
    char               *p, *copy, *error, *near;
    cJSON              *item;
    const char *const  *e;

    aigw_field_check(field, value);

    copy = aigw_strdup(value);

    for (value = copy; value; value = p) {
        p = strchr(value, ',');

        if (p) {
            *p++ = '\0';
        }

        error = aigw_pattern_error(value);

        if (error) {
            aigw_usage("%s: %s", aigw_opt_name(field->opt), error);
        }

        if (field->opt == AIGW_OPT_ENDPOINT) {
            for (e = aigw_endpoints; *e; e++) {
                if (strcmp(*e, value) == 0) {
                    break;
                }
            }

            if (*e == NULL) {
                near = aigw_near_text(value, aigw_endpoints);
                aigw_usage("unknown endpoint \"%s\"%s", value, near);
            }
        }

        cJSON_ArrayForEach(item, list) {
            if (strcmp(item->valuestring, value) == 0) {
                break;
            }
        }

        if (item == NULL) {
            cJSON_AddItemToArray(list, cJSON_CreateString(value));
        }
    }

    free(copy);
}


static char *
aigw_pattern_error(const char *value)
{
    if (*value == '\0') {
        return aigw_strdup("an item is empty");
    }

    if (strchr(value, ' ')) {
        return aigw_format("a space in \"%s\"", value);
    }

    return NULL;
}


static int
aigw_name_valid(const char *name, const char *more)
{
    size_t  n;

    for (n = 0; name[n]; n++) {
        if (!((name[n] >= 'a' && name[n] <= 'z')
              || (name[n] >= '0' && name[n] <= '9')
              || strchr(more, name[n]) != NULL))
        {
            return 0;
        }
    }

    return n > 0 && n <= 64;
}


/* ZONE:NAME=VALUE[,NAME=VALUE...] */

static void
aigw_field_zone(cJSON *zones, aigw_field_t *field, char *value)
{
    char        *copy, *p, *next, *eq;
    cJSON       *zone;
    const char  *opt;

    opt = aigw_opt_name(field->opt);
    aigw_field_check(field, value);

    copy = aigw_strdup(value);
    p = strchr(copy, ':');

    if (p) {
        *p++ = '\0';
    }

    if (p == NULL
        || !aigw_name_valid(copy, "ABCDEFGHIJKLMNOPQRSTUVWXYZ_-."))
    {
        aigw_usage("invalid %s \"%s\", it is zone:name=value", opt, value);
    }

    zone = cJSON_GetObjectItemCaseSensitive(zones, copy);

    if (zone == NULL) {
        zone = cJSON_AddObjectToObject(zones, copy);
    }

    for ( /* void */ ; p; p = next) {
        next = strchr(p, ',');

        if (next) {
            *next++ = '\0';
        }

        eq = strchr(p, '=');

        if (eq) {
            *eq++ = '\0';
        }

        if (eq == NULL || *eq == '\0' || !aigw_name_valid(p, "_")) {
            aigw_usage("invalid %s \"%s\", it is zone:name=value", opt,
                       value);
        }

        if (cJSON_GetObjectItemCaseSensitive(zone, p)) {
            aigw_usage("%s: \"%s\" of zone \"%s\" is given twice", opt, p,
                       copy);
        }

        cJSON_AddStringToObject(zone, p, eq);
    }

    free(copy);
}


static void
aigw_field_meta(cJSON *map, char *value)
{
    char  *copy, *eq;

    copy = aigw_strdup(value);
    eq = strchr(copy, '=');

    if (eq) {
        *eq++ = '\0';
    }

    /* it is a part of the name of a variable */

    if (eq == NULL || !aigw_name_valid(copy, "_")) {
        aigw_usage("invalid --meta \"%s\", it is name=value with a name of "
                   "a-z, 0-9 and \"_\"", value);
    }

    if (cJSON_GetObjectItemCaseSensitive(map, copy)) {
        aigw_usage("--meta: \"%s\" is given twice", copy);
    }

    cJSON_AddStringToObject(map, copy, eq);

    free(copy);
}


static int
aigw_same_name(aigw_record_t *r, const char *name)
{
    cJSON  *list, *item;

    if (r->id && strcmp(r->id, name) == 0) {
        return 1;
    }

    list = cJSON_GetObjectItemCaseSensitive(r->json, "identities");

    cJSON_ArrayForEach(item, list) {
        if (cJSON_IsString(item) && strcmp(item->valuestring, name) == 0) {
            return 1;
        }
    }

    return 0;
}


/*
 * Walks the whole file: nothing is added to one that nginx could not read.
 * Ids, identities and keys are unique in it.  1 when an id that was made up is
 * taken; what was asked for and is taken ends the program.
 */

static int
aigw_clash(aigw_file_t *f, const char *id, int made_up, const char *hash,
    cJSON *identities, u_char *except)
{
    int             found;
    size_t          i, n, size;
    cJSON          *item;
    const char    **names;
    aigw_record_t   r;

    names = aigw_alloc((cJSON_GetArraySize(identities) + 3) * sizeof(char *));
    n = 0;

    names[n++] = id;

    cJSON_ArrayForEach(item, identities) {
        for (i = 1; i < n; i++) {
            if (strcmp(names[i], item->valuestring) == 0) {
                aigw_usage("--identity \"%s\" is given twice", names[i]);
            }
        }

        names[n++] = item->valuestring;
    }

    size = n;

    if (hash) {
        names[size++] = aigw_digest(hash);
        names[size++] = aigw_upper(aigw_digest(hash));
    }

    found = 0;
    aigw_file_rewind(f);

    while (aigw_file_walk(f)) {

        if (f->record.data == except
            || !aigw_mentions(&f->record, names, size))
        {
            continue;
        }

        aigw_record_parse(&r, &f->record);

        for (i = 0; i < n; i++) {
            if (!aigw_same_name(&r, names[i])) {
                continue;
            }

            if (!made_up || i > 0) {
                aigw_fail("%s:%zu: there is a record with the id or identity "
                          "\"%s\" already", f->path,
                          aigw_file_line(f, f->record.data), names[i]);
            }

            found = 1;
        }

        for (i = 0; hash && i < r.nhashes; i++) {
            if (strcasecmp(aigw_digest(r.hashes[i].text), aigw_digest(hash))
                == 0)
            {
                aigw_fail("%s:%zu: the record \"%s\" has this key already",
                          f->path, aigw_file_line(f, f->record.data),
                          r.id ? r.id : "?");
            }
        }

        aigw_record_free(&r);
    }

    free(names);

    return found;
}


/* can one of the names be in the record?  Most contain none of them */

int
aigw_mentions(aigw_str_t *record, const char **names, size_t n)
{
    size_t  i;

    for (i = 0; i < n; i++) {
        if (memmem(record->data, record->len, names[i], strlen(names[i]))) {
            return 1;
        }
    }

    return memchr(record->data, '\\', record->len) != NULL;
}


const char *
aigw_digest(const char *hash)
{
    return strchr(hash, ':') + 1;
}


char *
aigw_upper(const char *digest)
{
    char  *text, *p;

    text = aigw_strdup(digest);

    for (p = text; *p; p++) {
        if (*p >= 'a' && *p <= 'f') {
            *p &= ~0x20;
        }
    }

    return text;
}


int
aigw_keys_create(aigw_line_t *line)
{
    return aigw_keys_new(line, 0);
}


int
aigw_keys_import(aigw_line_t *line)
{
    return aigw_keys_new(line, 1);
}


static int
aigw_keys_new(aigw_line_t *line, int import)
{
    int              made_up, key, try;
    char            *id, *hash, *text, public[NGX_HTTP_AI_KEY_ID + 1];
    cJSON           *fields, *record;
    time_t           now;
    const char      *env, *error;
    aigw_str_t       out;
    aigw_edit_t      edit;
    aigw_file_t      f;
    aigw_record_t    r;
    aigw_revoked_t   revoked;

    now = time(NULL);
    id = aigw_value(line, AIGW_OPT_ID);
    env = aigw_value(line, AIGW_OPT_ENV);
    made_up = (id == NULL);
    key = !import && !aigw_has(line, AIGW_OPT_NO_KEY);

    error = id ? aigw_id_error(id) : NULL;

    if (error) {
        aigw_usage("invalid --id: %s", error);
    }

    if (env && !key) {
        aigw_usage("--env is of a key, --no-key makes none");
    }

    if (env && !aigw_secret_env(env)) {
        aigw_usage("invalid --env \"%s\", it is 1 to %d of a-z and 0-9", env,
                   NGX_HTTP_AI_KEY_ENV_MAX);
    }

    if (!key && !import) {
        if (aigw_has(line, AIGW_OPT_SECRET_FILE)
            || aigw_has(line, AIGW_OPT_SECRET_ENV))
        {
            aigw_usage("a secret is for the hash of a key, --no-key makes "
                       "none");
        }

        if (id == NULL && !aigw_has(line, AIGW_OPT_IDENTITY)) {
            aigw_usage("--no-key expects --id or --identity, nothing would "
                       "find the record");
        }
    }

    fields = aigw_fields(line, now);
    hash = import ? aigw_import_hash(line) : NULL;

    if (key) {
        aigw_secret_hmac(line);
    }

    aigw_file_open(&f, "keys", line, 1);
    aigw_revoked_read(&revoked, line, 0);

    for (try = 0; try < 8; try++) {

        if (made_up) {
            aigw_secret_id(public);
            id = aigw_format("k_%s", public);

        } else if (!aigw_public(id, public)) {
            aigw_secret_id(public);
        }

        if (aigw_clash(&f, id, made_up, hash,
                       cJSON_GetObjectItem(fields, "identities"), NULL))
        {
            continue;
        }

        if (!aigw_revoked_has(&revoked, id)) {
            break;
        }

        if (!made_up) {
            aigw_fail("\"%s\" is on the list of revoked keys, %s", id,
                      revoked.file.path);
        }
    }

    if (key) {
        aigw_secret_create(env ? env : "live", public);
        hash = aigw_secret_hash(aigw_secret.hmac_len > 0);
    }

    record = cJSON_CreateObject();
    cJSON_AddStringToObject(record, "id", id);

    if (hash) {
        cJSON_AddStringToObject(record, "hash", hash);
    }

    while (fields->child) {
        text = aigw_strdup(fields->child->string);
        cJSON_AddItemToObject(record, text,
                              cJSON_DetachItemViaPointer(fields,
                                                         fields->child));
        free(text);
    }

    if (aigw_has(line, AIGW_OPT_FOREIGN)) {
        cJSON_AddTrueToObject(record, "foreign");
    }

    cJSON_AddStringToObject(record, "created", aigw_time_text(now));

    text = aigw_json_text(record);
    out.data = (u_char *) text;
    out.len = strlen(text);

    aigw_record_parse(&r, &out);

    if (r.error) {
        aigw_usage("%s", r.error);
    }

    if (out.len > AIGW_RECORD_MAX) {
        aigw_usage("the record is too large");
    }

    edit = aigw_file_append(&f, &out);
    aigw_file_write(&f, &edit);

    return aigw_new_shown(line, &f, &r, key);
}


/* "k_7Hx2m9Qa" is the id of the keys aigw_..._7Hx2m9Qa... */

int
aigw_public(const char *id, char *public)
{
    static const char  digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "abcdefghijklmnopqrstuvwxyz";

    if (strncmp(id, "k_", 2) != 0
        || strlen(id + 2) != NGX_HTTP_AI_KEY_ID
        || strspn(id + 2, digits) != NGX_HTTP_AI_KEY_ID)
    {
        return 0;
    }

    memcpy(public, id + 2, NGX_HTTP_AI_KEY_ID + 1);

    return 1;
}


static int
aigw_new_shown(aigw_line_t *line, aigw_file_t *f, aigw_record_t *r, int key)
{
    char   *text;
    cJSON  *json;

    json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "id", r->id);

    if (r->expires) {
        cJSON_AddStringToObject(json, "expires", aigw_time_text(r->expires));
    }

    text = aigw_json_text(json);

    if (!key) {
        if (aigw_has(line, AIGW_OPT_JSON)) {
            printf("%s\n", text);

        } else {
            printf("%s\n", r->id);
        }

        aigw_flush();
        aigw_info("record %s was added to %s", r->id, f->path);
        aigw_recheck(line);

        return 0;
    }

    /* without the brace: the key follows */

    text[strlen(text) - 1] = '\0';

    if (aigw_secret_show(aigw_has(line, AIGW_OPT_JSON), text) != AIGW_OK) {
        aigw_fail("the record %s was added to %s, but its key could not be "
                  "written: %s; delete it or rotate it", r->id, f->path,
                  strerror(errno));
    }

    aigw_info("key %s was added to %s; it is shown only this once", r->id,
              f->path);
    aigw_recheck(line);

    return 0;
}


/* the hash of a key from elsewhere: as it is, or of the standard input */

static char *
aigw_import_hash(aigw_line_t *line)
{
    int            foreign;
    char          *hash, *p;
    const u_char  *public;

    foreign = aigw_has(line, AIGW_OPT_FOREIGN);
    hash = aigw_value(line, AIGW_OPT_HASH);

    if (hash) {
        if (!aigw_hash_valid(hash)) {
            aigw_usage("invalid --hash, it is \"sha256:\" or \"hmac-sha256:\" "
                       "and 64 hexadecimal digits");
        }

        if (aigw_has(line, AIGW_OPT_SECRET_FILE)
            || aigw_has(line, AIGW_OPT_SECRET_ENV))
        {
            aigw_usage("a secret is for a key on the standard input, --hash "
                       "is complete");
        }

        for (p = hash; *p; p++) {
            if (*p >= 'A' && *p <= 'F') {
                *p |= 0x20;
            }
        }

        return hash;
    }

    aigw_secret_hmac(line);
    aigw_secret_read();

    if (ngx_http_ai_key_is_ours(aigw_secret.key, aigw_secret.len)) {
        if (!ngx_http_ai_key_check(aigw_secret.key, aigw_secret.len, &public))
        {
            aigw_fail("the key begins with \"%s\" but its form or checksum "
                      "is wrong, nginx would never take it",
                      NGX_HTTP_AI_KEY_PREFIX);
        }

        if (foreign) {
            aigw_usage("--foreign is for keys that are not of the gateway's "
                       "own form, this one is");
        }

    } else if (!foreign) {
        aigw_usage("the key is not of the gateway's own form, it is imported "
                   "with --foreign only");

    } else if (aigw_secret.len < 20 && aigw_secret.hmac_len == 0) {
        aigw_warn("a short key can be found from its SHA-256 by trying, use "
                  "--secret-file");
    }

    return aigw_secret_hash(aigw_secret.hmac_len > 0);
}


int
aigw_keys_update(aigw_line_t *line)
{
    int             clear;
    char           *value, *item, *next;
    size_t          i;
    cJSON          *fields, *m, *identities;
    aigw_str_t      text;
    aigw_file_t     f;
    aigw_found_t    found;
    aigw_record_t   r;

    fields = aigw_fields(line, time(NULL));
    clear = aigw_has(line, AIGW_OPT_CLEAR);

    if (fields->child == NULL && !clear) {
        aigw_usage("nothing to update, options say what");
    }

    aigw_record_find(&f, &found, line, &r);
    text = found.record;

    cJSON_ArrayForEach(m, fields) {
        text = aigw_json_set(&text, m->string, aigw_json_text(m));
    }

    for (i = 0; i < line->nargs; i++) {
        if (line->args[i].opt != AIGW_OPT_CLEAR) {
            continue;
        }

        value = aigw_strdup(line->args[i].value);

        for (item = value; item; item = next) {
            next = strchr(item, ',');

            if (next) {
                *next++ = '\0';
            }

            aigw_clear_check(item, fields);
            text = aigw_json_remove(&text, item);
        }

        free(value);
    }

    identities = cJSON_GetObjectItemCaseSensitive(fields, "identities");

    if (identities) {
        (void) aigw_clash(&f, line->words[0], 0, NULL, identities,
                          found.record.data);
    }

    aigw_record_replace(&f, &found, &text);

    return aigw_done(line, &f, "updated");
}


static void
aigw_clear_check(const char *name, cJSON *fields)
{
    char        *near;
    size_t       i;
    const char  *names[AIGW_FIELDS + 1];

    for (i = 0; i < AIGW_FIELDS; i++) {
        names[i] = aigw_field_table[i].member;

        if (strcmp(names[i], name) == 0) {
            if (cJSON_GetObjectItemCaseSensitive(fields, name)) {
                aigw_usage("\"%s\" is set and cleared", name);
            }

            return;
        }
    }

    names[i] = NULL;
    near = aigw_near_text(name, names);

    aigw_usage("--clear: no member \"%s\" that can be cleared%s", name, near);
}
