
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * list, show, verify
 */


#include "aigw.h"

#include <strings.h>


static int aigw_list_wanted(aigw_line_t *line, aigw_record_t *r,
    const char *state);
static void aigw_list_json(aigw_record_t *r, const char *state, size_t n);
static void aigw_list_text(aigw_record_t *r, const char *state);
static const char *aigw_string(cJSON *json, const char *name);
static void aigw_column(const char *text, int width);
static void aigw_show_json(aigw_str_t *record, const char *state);
static void aigw_show_text(aigw_record_t *r, const char *state);
static void aigw_show_line(const char *name, const char *text);
static int aigw_verified(aigw_line_t *line, aigw_record_t *r,
    const char *reason);


static const char *
aigw_string(cJSON *json, const char *name)
{
    cJSON  *m;

    m = cJSON_GetObjectItemCaseSensitive(json, name);

    return cJSON_IsString(m) ? m->valuestring : NULL;
}


int
aigw_keys_list(aigw_line_t *line)
{
    int              rc;
    char            *want, *near;
    size_t           n;
    time_t           now;
    const char      *state;
    aigw_file_t      f;
    aigw_record_t    r;
    aigw_revoked_t   revoked;

    const char *const  *s;

    want = aigw_value(line, AIGW_OPT_STATE);

    if (want) {
        for (s = aigw_state_names(); *s; s++) {
            if (strcmp(*s, want) == 0) {
                break;
            }
        }

        if (*s == NULL) {
            near = aigw_near_text(want, aigw_state_names());
            aigw_usage("invalid --state \"%s\"%s", want, near);
        }
    }

    aigw_file_open(&f, "keys", line, 0);

    if (!f.exists) {
        aigw_fail("%s: %s", f.path, strerror(ENOENT));
    }

    aigw_revoked_read(&revoked, line, 0);

    rc = 0;
    n = 0;
    now = time(NULL);

    if (aigw_has(line, AIGW_OPT_JSON)) {
        fputs("[", stdout);

    } else {
        puts("ID                   STATE     TENANT           USER"
             "             TEAM         PLAN         EXPIRES               "
             "NAME");
    }

    while (aigw_file_walk(&f)) {
        aigw_record_parse(&r, &f.record);

        if (r.error) {
            aigw_warn("%s:%zu: record \"%s\": %s", f.path,
                      aigw_file_line(&f, f.record.data), r.id ? r.id : "?",
                      r.error);
            rc = AIGW_FAILED;

        } else {
            state = aigw_state_name(aigw_record_state(&r, &revoked, now));

            if (aigw_list_wanted(line, &r, state)) {
                if (aigw_has(line, AIGW_OPT_JSON)) {
                    aigw_list_json(&r, state, n++);

                } else {
                    aigw_list_text(&r, state);
                }
            }
        }

        aigw_record_free(&r);
    }

    if (aigw_has(line, AIGW_OPT_JSON)) {
        fputs(n ? "\n]\n" : "]\n", stdout);
    }

    aigw_flush();

    return rc;
}


static int
aigw_list_wanted(aigw_line_t *line, aigw_record_t *r, const char *state)
{
    char        *want;
    size_t       i;
    const char  *have;

    static const struct {
        aigw_opt_e   opt;
        const char  *member;
    } filters[] = {
        { AIGW_OPT_TENANT, "tenant" },
        { AIGW_OPT_USER, "user" },
        { AIGW_OPT_TEAM, "team" },
        { AIGW_OPT_PLAN, "plan" },
        { AIGW_OPT_STATE, NULL }
    };

    for (i = 0; i < sizeof(filters) / sizeof(filters[0]); i++) {
        want = aigw_value(line, filters[i].opt);

        if (want == NULL) {
            continue;
        }

        have = filters[i].member ? aigw_string(r->json, filters[i].member)
                                 : state;

        if (have == NULL || strcmp(have, want) != 0) {
            return 0;
        }
    }

    return 1;
}


/* without the hashes: lists are passed around */

static void
aigw_list_json(aigw_record_t *r, const char *state, size_t n)
{
    char   *text;
    cJSON  *id;

    cJSON_DeleteItemFromObjectCaseSensitive(r->json, "hash");
    cJSON_AddNumberToObject(r->json, "keys", (double) r->nhashes);

    id = cJSON_DetachItemFromObjectCaseSensitive(r->json, "id");
    cJSON_InsertItemInArray(r->json, 0, cJSON_CreateString(state));
    r->json->child->string = aigw_strdup("state");
    cJSON_InsertItemInArray(r->json, 0, id);

    text = aigw_json_text(r->json);

    printf("%s\n%s", n ? "," : "", text);

    free(text);
    r->id = NULL;
}


static void
aigw_column(const char *text, int width)
{
    char  *shown;

    shown = aigw_shown(text && *text ? text : "-");

    printf("%-*s ", width, shown);

    free(shown);
}


static void
aigw_list_text(aigw_record_t *r, const char *state)
{
    char  *time, *name;

    time = r->expires ? aigw_time_text(r->expires) : NULL;

    aigw_column(r->id, 20);
    aigw_column(state, 9);
    aigw_column(aigw_string(r->json, "tenant"), 16);
    aigw_column(aigw_string(r->json, "user"), 16);
    aigw_column(aigw_string(r->json, "team"), 12);
    aigw_column(aigw_string(r->json, "plan"), 12);
    aigw_column(time ? time : "never", 21);

    name = (char *) aigw_string(r->json, "name");
    name = aigw_shown(name ? name : "-");
    puts(name);

    free(name);
    free(time);
}


int
aigw_keys_show(aigw_line_t *line)
{
    time_t           now;
    const char      *state;
    aigw_str_t       found;
    aigw_file_t      f;
    aigw_record_t    r;
    aigw_revoked_t   revoked;

    found.data = NULL;
    now = time(NULL);

    aigw_file_open(&f, "keys", line, 0);

    if (!f.exists) {
        aigw_fail("%s: %s", f.path, strerror(ENOENT));
    }

    while (found.data == NULL && aigw_file_walk(&f)) {
        if (aigw_record_is(&f.record, line->words[0])) {
            found = f.record;
        }
    }

    if (found.data == NULL) {
        aigw_fail("no record \"%s\" in %s", line->words[0], f.path);
    }

    aigw_revoked_read(&revoked, line, 0);
    aigw_record_parse(&r, &found);

    if (r.error) {
        aigw_fail("%s:%zu: record \"%s\": %s", f.path,
                  aigw_file_line(&f, found.data), line->words[0], r.error);
    }

    state = aigw_state_name(aigw_record_state(&r, &revoked, now));

    if (aigw_has(line, AIGW_OPT_JSON)) {
        aigw_show_json(&found, state);

    } else {
        aigw_show_text(&r, state);
    }

    aigw_flush();

    return 0;
}


/* the record as it is, and the state as its first member */

static void
aigw_show_json(aigw_str_t *record, const char *state)
{
    aigw_buf_t  b;

    memset(&b, 0, sizeof(aigw_buf_t));

    aigw_json_minify(&b, record);

    printf("{\"state\":\"%s\",%s\n", state, (char *) b.data + 1);

    free(b.data);
}


static void
aigw_show_text(aigw_record_t *r, const char *state)
{
    char    *text, *from, *to;
    size_t   i;
    cJSON   *m, *item;

    aigw_show_line("id", r->id);
    aigw_show_line("state", state);

    for (i = 0; i < r->nhashes; i++) {
        from = r->hashes[i].not_before
               ? aigw_time_text(r->hashes[i].not_before) : NULL;
        to = r->hashes[i].expires ? aigw_time_text(r->hashes[i].expires)
                                  : NULL;

        /* enough of it to tell two keys from each other */

        text = aigw_format("%.*s...%s%s%s%s%s",
                           (int) (strchr(r->hashes[i].text, ':') + 9
                                  - r->hashes[i].text),
                           r->hashes[i].text,
                           from ? ", from " : "", from ? from : "",
                           to ? ", until " : "", to ? to : "",
                           r->hashes[i].disabled ? ", disabled" : "");

        aigw_show_line("key", text);

        free(text);
        free(from);
        free(to);
    }

    cJSON_ArrayForEach(m, r->json) {

        if (strcmp(m->string, "id") == 0 || strcmp(m->string, "hash") == 0) {
            continue;
        }

        if (cJSON_IsString(m)) {
            aigw_show_line(m->string, m->valuestring);
            continue;
        }

        if (cJSON_IsArray(m)) {
            cJSON_ArrayForEach(item, m) {
                text = cJSON_IsString(item) ? aigw_strdup(item->valuestring)
                                            : aigw_json_text(item);
                aigw_show_line(m->string, text);
                free(text);
            }

            continue;
        }

        text = aigw_json_text(m);
        aigw_show_line(m->string, text);
        free(text);
    }
}


static void
aigw_show_line(const char *name, const char *text)
{
    char  *one, *two;

    one = aigw_format("%s:", name);
    two = aigw_shown(text);

    printf("%-12s %s\n", one, two);

    free(one);
    free(two);
}


/* would nginx take the key of the standard input, and whose is it? */

int
aigw_keys_verify(aigw_line_t *line)
{
    int              ours, hmacs;
    char            *hashes[2];
    size_t           i, n, k;
    time_t           now;
    const char      *names[4];
    aigw_file_t      f;
    aigw_record_t    r;
    aigw_state_e     state;
    aigw_revoked_t   revoked;
    const u_char    *public;

    now = time(NULL);

    aigw_secret_hmac(line);
    aigw_secret_read();

    ours = ngx_http_ai_key_is_ours(aigw_secret.key, aigw_secret.len);

    if (ours
        && !ngx_http_ai_key_check(aigw_secret.key, aigw_secret.len, &public))
    {
        return aigw_verified(line, NULL, "malformed");
    }

    hashes[0] = aigw_secret_hash(0);
    n = 1;

    if (aigw_secret.hmac_len) {
        hashes[n++] = aigw_secret_hash(1);
    }

    for (i = 0; i < n; i++) {
        names[2 * i] = aigw_digest(hashes[i]);
        names[2 * i + 1] = aigw_upper(names[2 * i]);
    }

    aigw_file_open(&f, "keys", line, 0);

    if (!f.exists) {
        aigw_fail("%s: %s", f.path, strerror(ENOENT));
    }

    aigw_revoked_read(&revoked, line, 0);

    hmacs = 0;

    while (aigw_file_walk(&f)) {

        if (!hmacs && n == 1) {
            hmacs = (memmem(f.record.data, f.record.len, "\"hmac-sha256:", 13)
                     != NULL);
        }

        if (!aigw_mentions(&f.record, names, 2 * n)) {
            continue;
        }

        aigw_record_parse(&r, &f.record);

        for (i = 0; i < r.nhashes; i++) {
            for (k = 0; k < n; k++) {
                if (strcasecmp(r.hashes[i].text, hashes[k]) == 0) {
                    break;
                }
            }

            if (k == n) {
                continue;
            }

            if (r.error) {
                aigw_fail("%s:%zu: record \"%s\": %s", f.path,
                          aigw_file_line(&f, f.record.data),
                          r.id ? r.id : "?", r.error);
            }

            state = aigw_hash_state(&r, &r.hashes[i], &revoked, now);

            if (state != AIGW_ACTIVE) {
                return aigw_verified(line, &r, aigw_state_name(state));
            }

            if (!ours
                && !cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(r.json,
                                                                  "foreign")))
            {
                return aigw_verified(line, &r, "not foreign");
            }

            return aigw_verified(line, &r, NULL);
        }

        aigw_record_free(&r);
    }

    if (hmacs) {
        aigw_info("there are HMACs in %s, use --secret-file or --secret-env",
                  f.path);
    }

    return aigw_verified(line, NULL, "unknown");
}


static int
aigw_verified(aigw_line_t *line, aigw_record_t *r, const char *reason)
{
    char   *text;
    cJSON  *json;

    if (aigw_has(line, AIGW_OPT_JSON)) {
        json = cJSON_CreateObject();
        cJSON_AddBoolToObject(json, "accepted", reason == NULL);

        if (r) {
            cJSON_AddStringToObject(json, "id", r->id);
        }

        cJSON_AddStringToObject(json, "state", reason ? reason : "active");

        text = aigw_json_text(json);
        puts(text);

    } else {
        if (r) {
            text = aigw_shown(r->id);
            printf("%s ", text);
        }

        printf("%s\n", reason ? reason : "active");
    }

    aigw_flush();

    return reason ? AIGW_FAILED : 0;
}
