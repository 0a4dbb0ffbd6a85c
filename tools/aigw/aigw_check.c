
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * check: what nginx would say of the files
 */


#include "aigw.h"


#define AIGW_CHECK_MAX    100
#define AIGW_SAME_MAX     64
#define AIGW_RECHECK_MAX  (32 * 1024 * 1024)
#define AIGW_SWITCHES_MAX 1024


/* texts that are unique in a file, with the record that has them */

typedef struct {
    uint32_t      hash;
    uint32_t      record;
    size_t        text;              /* offset in the buffer */
} aigw_slot_t;


typedef struct {
    aigw_slot_t  *slots;
    size_t        size;              /* a power of two */
    size_t        n;
    aigw_buf_t    texts;
} aigw_unique_t;


typedef struct {
    aigw_line_t  *line;
    cJSON        *json;              /* errors, with --json */
    size_t        errors;
} aigw_check_t;


static size_t aigw_check_keys(aigw_check_t *c);
static size_t aigw_check_revoked(aigw_check_t *c);
static size_t aigw_check_prices(aigw_check_t *c);
static size_t aigw_check_switches(aigw_check_t *c);
static size_t aigw_check_other(aigw_check_t *c, const char *name,
    char *(*error)(cJSON *json), char *(*id)(cJSON *json), size_t max);
static char *aigw_check_model(cJSON *json);
static int aigw_check_there(aigw_line_t *line, const char *name);
static void aigw_check_unique(aigw_check_t *c, aigw_file_t *f,
    aigw_record_t *r, aigw_unique_t *u);
static void aigw_check_dup(aigw_check_t *c, aigw_file_t *f, aigw_record_t *r,
    aigw_unique_t *u, char kind, const char *text);
static void aigw_check_entry(aigw_check_t *c, aigw_file_t *f,
    aigw_entry_t *e, aigw_unique_t *u);
static int aigw_check_next(aigw_check_t *c, aigw_file_t *f);
static void aigw_check_error(aigw_check_t *c, aigw_file_t *f, u_char *at,
    const char *id, const char *text);
static uint32_t aigw_unique_add(aigw_unique_t *u, const char *text,
    uint32_t record);


int
aigw_keys_check(aigw_line_t *line)
{
    char          *text;
    cJSON         *json;
    aigw_check_t   c;

    memset(&c, 0, sizeof(aigw_check_t));

    c.line = line;
    c.json = cJSON_CreateArray();

    json = cJSON_CreateObject();

    cJSON_AddNumberToObject(json, "keys", (double) aigw_check_keys(&c));
    cJSON_AddNumberToObject(json, "revoked",
                            (double) aigw_check_revoked(&c));

    cJSON_AddNumberToObject(json, "prices", (double) aigw_check_prices(&c));
    cJSON_AddNumberToObject(json, "switches",
                            (double) aigw_check_switches(&c));

    cJSON_AddItemToObject(json, "errors", c.json);

    if (aigw_has(line, AIGW_OPT_JSON)) {
        text = aigw_json_text(json);
        puts(text);
    }

    aigw_flush();

    return c.errors ? AIGW_FAILED : 0;
}


static size_t
aigw_check_keys(aigw_check_t *c)
{
    size_t          errors;
    aigw_file_t     f;
    aigw_record_t   r;
    aigw_unique_t   u;

    aigw_file_open(&f, "keys", c->line, 0);

    if (!f.exists) {

        if (!aigw_has(c->line, AIGW_OPT_FILE)
            && (aigw_check_there(c->line, "prices")
                || aigw_check_there(c->line, "switches")))
        {
            return 0;
        }

        aigw_fail("%s: %s", f.path, strerror(ENOENT));
    }

    memset(&u, 0, sizeof(aigw_unique_t));
    errors = c->errors;

    while (aigw_check_next(c, &f)) {
        aigw_record_parse(&r, &f.record);

        if (r.error) {
            aigw_check_error(c, &f, f.record.data, r.id, r.error);

        } else {
            aigw_check_unique(c, &f, &r, &u);
        }

        aigw_record_free(&r);
    }

    free(u.slots);
    free(u.texts.data);

    if (c->errors == errors) {
        aigw_info("%s: %zu record%s, good", f.path, f.records,
                  f.records == 1 ? "" : "s");
    }

    return f.records;
}


static size_t
aigw_check_revoked(aigw_check_t *c)
{
    size_t          errors;
    aigw_file_t     f;
    aigw_entry_t    e;
    aigw_unique_t   u;

    memset(&u, 0, sizeof(aigw_unique_t));
    aigw_file_open(&f, "revoked", c->line, 0);

    if (!f.exists) {
        return 0;
    }

    errors = c->errors;

    while (aigw_check_next(c, &f)) {
        aigw_entry_parse(&e, &f.record);

        if (e.error) {
            aigw_check_error(c, &f, f.record.data, NULL, e.error);

        } else {
            aigw_check_entry(c, &f, &e, &u);
        }

        aigw_entry_free(&e);
    }

    free(u.slots);
    free(u.texts.data);

    if (c->errors == errors) {
        aigw_info("%s: %zu record%s, good", f.path, f.records,
                  f.records == 1 ? "" : "s");
    }

    return f.records;
}


static int
aigw_check_there(aigw_line_t *line, const char *name)
{
    aigw_file_t  f;

    aigw_file_open(&f, name, line, 0);

    return f.exists;
}


static size_t
aigw_check_prices(aigw_check_t *c)
{
    return aigw_check_other(c, "prices", aigw_price_error, aigw_check_model,
                            0);
}


static char *
aigw_check_model(cJSON *json)
{
    const char  *model;

    model = aigw_price_text(json, "model");

    return aigw_strdup(model ? model : "?");
}


static size_t
aigw_check_switches(aigw_check_t *c)
{
    return aigw_check_other(c, "switches", aigw_switch_error,
                            aigw_switch_name, AIGW_SWITCHES_MAX);
}


/* files that need not be there, and have nothing to do with --file */

static size_t
aigw_check_other(aigw_check_t *c, const char *name,
    char *(*error)(cJSON *json), char *(*id)(cJSON *json), size_t max)
{
    char           *copy, *who, *wrong;
    cJSON          *json;
    size_t          errors;
    uint32_t        other;
    aigw_file_t     f;
    aigw_unique_t   u;

    if (aigw_has(c->line, AIGW_OPT_FILE)) {
        return 0;
    }

    aigw_file_open(&f, name, c->line, 0);

    if (!f.exists) {
        return 0;
    }

    memset(&u, 0, sizeof(aigw_unique_t));
    errors = c->errors;

    while (aigw_check_next(c, &f)) {
        copy = aigw_format("%.*s", (int) f.record.len,
                           (char *) f.record.data);
        json = cJSON_Parse(copy);
        free(copy);

        if (json == NULL) {
            aigw_check_error(c, &f, f.record.data, NULL,
                             "the record is no JSON");
            continue;
        }

        who = id(json);
        wrong = error(json);

        if (wrong == NULL) {
            other = aigw_unique_add(&u, who, (uint32_t) f.records);

            if (other) {
                wrong = aigw_format("it is record %u, too", other);

            } else if (max && f.records > max) {
                wrong = aigw_format("there are more than %zu records", max);
            }
        }

        if (wrong) {
            aigw_check_error(c, &f, f.record.data, who, wrong);
        }

        free(wrong);
        free(who);
        cJSON_Delete(json);
    }

    free(u.slots);
    free(u.texts.data);

    if (c->errors == errors) {
        aigw_info("%s: %zu record%s, good", f.path, f.records,
                  f.records == 1 ? "" : "s");
    }

    return f.records;
}


/* what is revoked twice is so until the later of both ends; not for ever */

static void
aigw_check_entry(aigw_check_t *c, aigw_file_t *f, aigw_entry_t *e,
    aigw_unique_t *u)
{
    int        i;
    char      *text;
    uint32_t   other;

    for (i = 0; i < AIGW_SAME_MAX; i++) {
        text = aigw_format("%c%d\n%s\n%s", e->kind, i,
                           e->issuer ? e->issuer : "", e->value);

        other = aigw_unique_add(u, text, (uint32_t) f->records);

        free(text);

        if (other == 0) {
            return;
        }
    }

    aigw_check_error(c, f, f->record.data, e->key,
                     "there are more than 64 entries for the same");
}


/*
 * A change is in force only when all records of the file are good.  Files that
 * are so large that this would be felt are left to "aigw check" and to nginx.
 */

void
aigw_recheck(aigw_line_t *line)
{
    aigw_file_t     f;
    aigw_record_t   r;

    aigw_file_open(&f, "keys", line, 0);

    if (f.last - f.start > AIGW_RECHECK_MAX) {
        return;
    }

    while (aigw_file_walk(&f)) {
        aigw_record_parse(&r, &f.record);

        if (r.error) {
            aigw_warn("%s:%zu: record \"%s\": %s; a bad record keeps nginx "
                      "from taking the file", f.path,
                      aigw_file_line(&f, f.record.data), r.id ? r.id : "?",
                      r.error);
            return;
        }

        aigw_record_free(&r);
    }
}


/* behind a broken line the next one may be well again */

static int
aigw_check_next(aigw_check_t *c, aigw_file_t *f)
{
    int      rc;
    u_char  *p;

    for ( ;; ) {
        rc = aigw_file_next(f);

        if (rc == AIGW_OK) {
            return 1;
        }

        if (rc == AIGW_DONE) {
            if (f->form == AIGW_LINES && f->records == 0 && c->errors == 0
                && !aigw_file_lines(f))
            {
                aigw_check_error(c, f, f->start, NULL,
                                 "the file is empty, \"[]\" means no "
                                 "records");
            }

            return 0;
        }

        aigw_check_error(c, f, f->error.at, NULL, f->error.text);

        if (f->form != AIGW_LINES || f->cut) {
            return 0;
        }

        p = memchr(f->error.at, '\n', f->last - f->error.at);

        if (p == NULL) {
            return 0;
        }

        f->p = p;
    }
}


static void
aigw_check_error(aigw_check_t *c, aigw_file_t *f, u_char *at, const char *id,
    const char *text)
{
    char    *shown, *all;
    cJSON   *json;
    size_t   line;

    if (++c->errors > AIGW_CHECK_MAX) {
        if (c->errors == AIGW_CHECK_MAX + 1) {
            aigw_info("more than %d errors, no others are shown",
                      AIGW_CHECK_MAX);
        }

        return;
    }

    line = aigw_file_line(f, at);

    if (aigw_has(c->line, AIGW_OPT_JSON)) {
        json = cJSON_CreateObject();
        cJSON_AddStringToObject(json, "file", f->path);
        cJSON_AddNumberToObject(json, "line", (double) line);

        if (id) {
            cJSON_AddStringToObject(json, "id", id);
        }

        cJSON_AddStringToObject(json, "message", text);
        cJSON_AddItemToArray(c->json, json);

        return;
    }

    /* as compilers do, so that editors find the place */

    all = id ? aigw_format("%s:%zu: record \"%s\": %s", f->path, line, id,
                           text)
             : aigw_format("%s:%zu: %s", f->path, line, text);

    shown = aigw_shown(all);
    fprintf(stderr, "%s\n", shown);

    free(shown);
    free(all);
}


/* ids and identities are names of one kind, hashes those of another */

static void
aigw_check_unique(aigw_check_t *c, aigw_file_t *f, aigw_record_t *r,
    aigw_unique_t *u)
{
    size_t   i;
    cJSON   *list, *item;

    aigw_check_dup(c, f, r, u, 'n', r->id);

    list = cJSON_GetObjectItemCaseSensitive(r->json, "identities");

    cJSON_ArrayForEach(item, list) {
        if (strcmp(item->valuestring, r->id) != 0) {
            aigw_check_dup(c, f, r, u, 'n', item->valuestring);
        }
    }

    for (i = 0; i < r->nhashes; i++) {
        aigw_check_dup(c, f, r, u, 'h', r->hashes[i].text);
    }
}


static void
aigw_check_dup(aigw_check_t *c, aigw_file_t *f, aigw_record_t *r,
    aigw_unique_t *u, char kind, const char *text)
{
    char      buf[4096], *p, *error;
    uint32_t  other;

    snprintf(buf, sizeof(buf), "%c%s", kind, text);

    if (kind == 'h') {
        for (p = buf; *p; p++) {
            if (*p >= 'A' && *p <= 'F') {
                *p |= 0x20;
            }
        }
    }

    other = aigw_unique_add(u, buf, (uint32_t) f->records);

    if (other == 0) {
        return;
    }

    if (kind == 'h') {
        error = aigw_format("its hash is that of record %u, too", other);

    } else {
        error = aigw_format("the id or identity \"%s\" is that of record %u, "
                            "too", text, other);
    }

    aigw_check_error(c, f, f->record.data, r->id, error);

    free(error);
}


/* 0, or the number of the record that has the text already */

static uint32_t
aigw_unique_add(aigw_unique_t *u, const char *text, uint32_t record)
{
    size_t        i, n, size;
    uint32_t      hash;
    const char   *p;
    aigw_slot_t  *slot, *old;

    if (u->n * 2 >= u->size) {
        old = u->slots;
        size = u->size;

        u->size = size ? size * 2 : 1024;
        u->slots = aigw_alloc(u->size * sizeof(aigw_slot_t));
        memset(u->slots, 0, u->size * sizeof(aigw_slot_t));

        for (n = 0; n < size; n++) {
            if (old[n].record == 0) {
                continue;
            }

            i = old[n].hash & (u->size - 1);

            while (u->slots[i].record) {
                i = (i + 1) & (u->size - 1);
            }

            u->slots[i] = old[n];
        }

        free(old);
    }

    hash = 2166136261u;

    for (p = text; *p; p++) {
        hash = (hash ^ (u_char) *p) * 16777619u;
    }

    hash ^= hash >> 15;

    for (i = hash & (u->size - 1); /* void */ ; i = (i + 1) & (u->size - 1)) {
        slot = &u->slots[i];

        if (slot->record == 0) {
            break;
        }

        if (slot->hash == hash
            && strcmp((char *) u->texts.data + slot->text, text) == 0)
        {
            return slot->record;
        }
    }

    slot->hash = hash;
    slot->record = record;
    slot->text = u->texts.len;
    u->n++;

    aigw_buf_add(&u->texts, text, strlen(text) + 1);

    return 0;
}
