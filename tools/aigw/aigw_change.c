
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * update, rotate, disable, enable, revoke, delete: changes of one record
 */


#include "aigw.h"


static void aigw_look(aigw_file_t *f, aigw_found_t *found, const char *id);
static char *aigw_rotated(aigw_record_t *r, aigw_str_t *record, char *hash,
    time_t expires, time_t now, time_t grace);
static void aigw_rotated_add(aigw_buf_t *b, aigw_str_t *item,
    aigw_hash_t *hash, time_t now, time_t grace);
static void aigw_unrevoke(aigw_line_t *line, const char *id);


/* to the end of the file: all of it has to be readable */

static void
aigw_look(aigw_file_t *f, aigw_found_t *found, const char *id)
{
    memset(found, 0, sizeof(aigw_found_t));

    while (aigw_file_walk(f)) {
        aigw_found_add(found, &f->record, aigw_record_is(&f->record, id));
    }
}


void
aigw_found_add(aigw_found_t *found, aigw_str_t *record, int is)
{
    if (found->record.data) {

        if (found->after == NULL) {
            found->after = record->data;
        }

    } else if (is) {
        found->record = *record;

    } else {
        found->before = record->data + record->len;
    }
}


void
aigw_record_find(aigw_file_t *f, aigw_found_t *found, aigw_line_t *line,
    aigw_record_t *r)
{
    char  *id;

    id = line->words[0];

    aigw_file_open(f, "keys", line, 1);

    if (!f->exists) {
        aigw_fail("%s: %s", f->path, strerror(ENOENT));
    }

    aigw_look(f, found, id);

    if (found->record.data == NULL) {
        aigw_fail("no record \"%s\" in %s", id, f->path);
    }

    aigw_record_parse(r, &found->record);

    if (r->error) {
        aigw_fail("%s:%zu: record \"%s\": %s", f->path,
                  aigw_file_line(f, found->record.data), id, r->error);
    }
}


void
aigw_record_replace(aigw_file_t *f, aigw_found_t *found, aigw_str_t *text)
{
    aigw_edit_t    edit;
    aigw_record_t  r;

    aigw_record_parse(&r, text);

    if (r.error) {
        aigw_usage("%s", r.error);
    }

    if (text->len > AIGW_RECORD_MAX) {
        aigw_usage("the record would be too large");
    }

    aigw_record_free(&r);

    if (text->len == found->record.len
        && memcmp(text->data, found->record.data, text->len) == 0)
    {
        return;
    }

    edit.start = found->record.data;
    edit.end = found->record.data + found->record.len;
    edit.text = *text;

    aigw_file_write(f, &edit);
}


int
aigw_done(aigw_line_t *line, aigw_file_t *f, const char *state)
{
    char   *text;
    cJSON  *json;

    if (aigw_has(line, AIGW_OPT_JSON)) {
        json = cJSON_CreateObject();
        cJSON_AddStringToObject(json, "id", line->words[0]);
        cJSON_AddStringToObject(json, "state", state);

        text = aigw_json_text(json);
        printf("%s\n", text);

        free(text);
        cJSON_Delete(json);
        aigw_flush();
    }

    aigw_info("%s is %s in %s", line->words[0], state, f->path);
    aigw_recheck(line);

    return 0;
}


int
aigw_keys_rotate(aigw_line_t *line)
{
    char            *hash, *value, *text, *id, public[NGX_HTTP_AI_KEY_ID + 1];
    cJSON           *json;
    size_t           i, n;
    time_t           now, grace, expires;
    aigw_str_t       record;
    const char      *env;
    aigw_file_t      f;
    aigw_found_t     found;
    aigw_record_t    r;
    aigw_revoked_t   revoked;

    id = line->words[0];
    now = time(NULL);
    grace = 86400;
    expires = 0;

    value = aigw_value(line, AIGW_OPT_GRACE);

    if (value && aigw_duration(value, &grace) != AIGW_OK) {
        aigw_usage("invalid --grace \"%s\", it is a time such as \"24h\", or "
                   "\"0\" (units: s m h d w M y)", value);
    }

    value = aigw_value(line, AIGW_OPT_EXPIRES);

    if (value) {
        expires = aigw_time_option(AIGW_OPT_EXPIRES, value, now);

        if (expires <= now) {
            aigw_usage("--expires \"%s\" is in the past", value);
        }
    }

    env = aigw_value(line, AIGW_OPT_ENV);
    env = env ? env : "live";

    if (!aigw_secret_env(env)) {
        aigw_usage("invalid --env \"%s\", it is 1 to %d of a-z and 0-9", env,
                   NGX_HTTP_AI_KEY_ENV_MAX);
    }

    aigw_secret_hmac(line);

    aigw_record_find(&f, &found, line, &r);
    aigw_revoked_read(&revoked, line, 0);

    if (aigw_revoked_has(&revoked, id)) {
        aigw_fail("%s is revoked, a new key of it would be refused", id);
    }

    for (i = 0, n = 1; i < r.nhashes; i++) {
        if (r.hashes[i].expires == 0 || r.hashes[i].expires > now) {
            n++;
        }
    }

    if (grace && n > AIGW_HASHES_MAX) {
        aigw_fail("%s has %zu keys that have not expired, %d are the most; "
                  "use a shorter --grace, or 0", id, n - 1, AIGW_HASHES_MAX);
    }

    if (!aigw_public(id, public)) {
        aigw_secret_id(public);
    }

    aigw_secret_create(env, public);
    hash = aigw_secret_hash(aigw_secret.hmac_len > 0);

    text = aigw_rotated(&r, &found.record, hash, expires, now, grace);
    record = aigw_json_set(&found.record, "hash", text);

    aigw_record_replace(&f, &found, &record);

    json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "id", id);

    if (r.nhashes) {
        cJSON_AddStringToObject(json, "old_expires",
                                aigw_time_text(now + grace));
    }

    if (expires) {
        cJSON_AddStringToObject(json, "expires", aigw_time_text(expires));
    }

    text = aigw_json_text(json);
    text[strlen(text) - 1] = '\0';

    if (aigw_secret_show(aigw_has(line, AIGW_OPT_JSON), text) != AIGW_OK) {
        aigw_fail("%s was rotated in %s, but its new key could not be "
                  "written: %s; rotate it again", id, f.path,
                  strerror(errno));
    }

    if (r.nhashes == 0) {
        aigw_info("%s has a key in %s now; it is shown only this once", id,
                  f.path);

    } else if (grace) {
        aigw_info("%s has a new key in %s, shown only this once; old ones "
                  "are good until %s", id, f.path,
                  aigw_time_text(now + grace));

    } else {
        aigw_info("%s has a new key in %s, shown only this once; old ones "
                  "are refused", id, f.path);
    }

    aigw_recheck(line);

    if (r.disabled) {
        aigw_warn("%s is disabled, so is the new key", id);
    }

    if (r.expires && r.expires <= now) {
        aigw_warn("%s has expired, so has the new key", id);
    }

    return 0;
}


/* the new value of "hash": the new one and what is still good of the old */

static char *
aigw_rotated(aigw_record_t *r, aigw_str_t *record, char *hash, time_t expires,
    time_t now, time_t grace)
{
    u_char         *p, *last;
    size_t          i, n;
    aigw_buf_t      b;
    aigw_str_t      item;
    aigw_member_t   m;

    memset(&b, 0, sizeof(aigw_buf_t));

    if (expires) {
        aigw_buf_text(&b, aigw_format("{\"hash\":\"%s\",\"expires\":\"%s\"}",
                                      hash, aigw_time_text(expires)));
    } else {
        aigw_buf_text(&b, aigw_format("\"%s\"", hash));
    }

    n = b.len;

    if (grace && aigw_json_member(record, "hash", &m) == AIGW_OK) {

        if (m.value.data[0] != '[') {
            aigw_rotated_add(&b, &m.value, &r->hashes[0], now, grace);

        } else {
            last = m.value.data + m.value.len;
            p = m.value.data + 1;

            for (i = 0; aigw_json_item(&p, last, &item) == AIGW_OK; i++) {
                aigw_rotated_add(&b, &item, &r->hashes[i], now, grace);
            }
        }
    }

    if (b.len == n) {
        return (char *) b.data;
    }

    return aigw_format("[%s]", (char *) b.data);
}


static void
aigw_rotated_add(aigw_buf_t *b, aigw_str_t *item, aigw_hash_t *hash,
    time_t now, time_t grace)
{
    char        *time;
    aigw_str_t   text;

    if (hash->expires && hash->expires <= now) {
        return;
    }

    time = aigw_time_text(now + grace);
    aigw_buf_text(b, ",");

    if (item->data[0] == '"') {
        aigw_buf_text(b, "{\"hash\":");
        aigw_buf_add(b, item->data, item->len);
        aigw_buf_text(b, ",\"expires\":\"");
        aigw_buf_text(b, time);
        aigw_buf_text(b, "\"}");

    } else if (hash->expires && hash->expires <= now + grace) {
        aigw_buf_add(b, item->data, item->len);

    } else {
        text = aigw_json_set(item, "expires",
                             aigw_format("\"%s\"", time));
        aigw_buf_add(b, text.data, text.len);
        free(text.data);
    }

    free(time);
}


int
aigw_keys_disable(aigw_line_t *line)
{
    aigw_str_t     text;
    aigw_file_t    f;
    aigw_found_t   found;
    aigw_record_t  r;

    aigw_record_find(&f, &found, line, &r);

    if (!r.disabled) {
        text = aigw_json_set(&found.record, "disabled", "true");
        aigw_record_replace(&f, &found, &text);
    }

    return aigw_done(line, &f, "disabled");
}


int
aigw_keys_enable(aigw_line_t *line)
{
    aigw_str_t       text;
    aigw_file_t      f;
    aigw_found_t     found;
    aigw_record_t    r;
    aigw_revoked_t   revoked;

    aigw_record_find(&f, &found, line, &r);
    aigw_revoked_read(&revoked, line, 0);

    if (aigw_revoked_has(&revoked, line->words[0])
        && !aigw_has(line, AIGW_OPT_UNREVOKE))
    {
        aigw_fail("%s is revoked, use --unrevoke to take it back",
                  line->words[0]);
    }

    if (r.disabled) {
        text = aigw_json_remove(&found.record, "disabled");
        aigw_record_replace(&f, &found, &text);
    }

    if (aigw_has(line, AIGW_OPT_UNREVOKE)) {
        aigw_unrevoke(line, line->words[0]);
    }

    if (r.expires && r.expires <= time(NULL)) {
        aigw_warn("%s has expired", line->words[0]);
    }

    return aigw_done(line, &f, "enabled");
}


/* all entries of the key, one at a time: there is hardly ever a second one */

static void
aigw_unrevoke(aigw_line_t *line, const char *id)
{
    u_char         *before, *start;
    aigw_edit_t     edit;
    aigw_file_t     f;
    aigw_found_t    found;
    aigw_member_t   m;

    for ( ;; ) {
        aigw_file_open(&f, "revoked", line, 1);

        memset(&found, 0, sizeof(aigw_found_t));
        before = NULL;

        while (aigw_file_walk(&f)) {
            start = f.record.data;

            if (found.record.data) {
                if (found.after == NULL) {
                    found.after = start;
                }

            } else if (aigw_json_member(&f.record, "key", &m) == AIGW_OK
                       && aigw_json_is(&m.value, id))
            {
                found.record = f.record;
                found.before = before;
            }

            before = start + f.record.len;
        }

        if (found.record.data == NULL) {
            return;
        }

        edit = aigw_record_cut(&f, &found);
        aigw_file_write(&f, &edit);
    }
}


/*
 * The list comes first: it is small, and in force at once where a file of a
 * million keys is read for seconds.  "disabled" stays when the entry is gone.
 */

int
aigw_keys_revoke(aigw_line_t *line)
{
    char            *value, *entry;
    cJSON           *json;
    time_t           now, until;
    aigw_str_t       text;
    aigw_edit_t      edit;
    aigw_file_t      f;
    aigw_found_t     found;
    aigw_record_t    r;
    aigw_revoked_t   revoked;

    now = time(NULL);

    json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "key", line->words[0]);

    value = aigw_value(line, AIGW_OPT_UNTIL);

    if (value) {
        until = aigw_time_option(AIGW_OPT_UNTIL, value, now);

        if (until <= now) {
            aigw_usage("--until \"%s\" is in the past", value);
        }

        cJSON_AddStringToObject(json, "until", aigw_time_text(until));
    }

    value = aigw_value(line, AIGW_OPT_COMMENT);

    if (value) {
        cJSON_AddStringToObject(json, "comment", value);
    }

    aigw_record_find(&f, &found, line, &r);
    aigw_revoked_read(&revoked, line, 1);

    if (!aigw_revoked_has(&revoked, line->words[0])) {
        entry = aigw_json_text(json);
        text.data = (u_char *) entry;
        text.len = strlen(entry);

        edit = aigw_file_append(&revoked.file, &text);
        aigw_file_write(&revoked.file, &edit);
    }

    if (!r.disabled) {
        text = aigw_json_set(&found.record, "disabled", "true");
        aigw_record_replace(&f, &found, &text);
    }

    return aigw_done(line, &revoked.file, "revoked");
}


aigw_edit_t
aigw_record_cut(aigw_file_t *f, aigw_found_t *found)
{
    u_char       *p;
    aigw_edit_t   edit;

    static u_char  none[] = "[]\n";

    edit.start = found->record.data;
    edit.end = found->record.data + found->record.len;
    edit.text.data = NULL;
    edit.text.len = 0;

    if (f->form != AIGW_LINES) {

        /* with the comma before it, or behind the first one */

        if (found->before) {
            edit.start = found->before;

        } else if (found->after) {
            edit.end = found->after;
        }

        return edit;
    }

    /* no JSON text is empty, a file of no lines is */

    if (f->records == 1 && !aigw_file_lines(f)) {
        edit.start = f->start;
        edit.end = f->last;
        edit.text.data = none;
        edit.text.len = sizeof(none) - 1;

        return edit;
    }

    /* the whole line, if nothing else is in it */

    for (p = edit.start; p > f->start && (p[-1] == ' ' || p[-1] == '\t'); p--)
    {
        /* void */
    }

    if (p > f->start && p[-1] != '\n') {
        return edit;
    }

    edit.start = p;

    for (p = edit.end; p < f->last && (*p == ' ' || *p == '\t' || *p == '\r');
         p++)
    {
        /* void */
    }

    if (p == f->last) {
        edit.end = p;

    } else if (*p == '\n') {
        edit.end = p + 1;

    } else {
        edit.start = found->record.data;
    }

    return edit;
}


/* an entry of the list of revoked keys stays: the old file may be in force for
 * a moment longer than the new list */

int
aigw_keys_delete(aigw_line_t *line)
{
    aigw_edit_t    edit;
    aigw_file_t    f;
    aigw_found_t   found;
    char          *id;

    id = line->words[0];

    aigw_file_open(&f, "keys", line, 1);
    aigw_look(&f, &found, id);

    if (found.record.data == NULL) {
        aigw_fail("no record \"%s\" in %s", id, f.path);
    }

    edit = aigw_record_cut(&f, &found);
    aigw_file_write(&f, &edit);

    return aigw_done(line, &f, "deleted");
}
