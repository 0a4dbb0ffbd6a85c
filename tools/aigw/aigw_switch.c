
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * switch on, off, list
 */


#include "aigw.h"


#define AIGW_SWITCH_TEXT  1024


typedef struct {
    char          *scope;
    char          *name;              /* NULL: of "all" */
    const char    *key;               /* or NULL */
} aigw_switch_t;


static void aigw_switch_parse(aigw_line_t *line, aigw_switch_t *sw);
static cJSON *aigw_switch_record(aigw_line_t *line, aigw_switch_t *sw);
static void aigw_switch_member(cJSON *json, aigw_line_t *line, aigw_opt_e opt,
    const char *name);
static void aigw_switch_raise(cJSON *json, aigw_line_t *line);
static char *aigw_switch_zone_error(cJSON *json);
static char *aigw_switch_known(const char *what, const char *word,
    const char *const *names);
static char *aigw_switch_useless(cJSON *json, const char *name);
static void aigw_switch_find(aigw_file_t *f, aigw_switch_t *sw,
    aigw_found_t *found);
static int aigw_switch_is(aigw_str_t *record, aigw_switch_t *sw);
static int aigw_switch_same(cJSON *json, const char *name, const char *value);


static const char *const  aigw_scopes[] = {
    "all", "tenant", "key", "provider", "model", "feature", "zone", NULL
};


static const char *const  aigw_actions[] = {
    "deny", "drain", "cut", "reroute", NULL
};


static const char *const  aigw_switch_members[] = {
    "scope", "name", "action", "text", "model", "until", "status", "key",
    "raise", "comment", NULL
};


static const char *const  aigw_features[] = {
    "stream", "tools", "images", "audio", "chat", "completions", "embeddings",
    "count_tokens", "models", "passthrough", NULL
};


static void
aigw_switch_word(const char *what, const char *word, const char *const *names)
{
    size_t  i;

    for (i = 0; names[i]; i++) {
        if (strcmp(names[i], word) == 0) {
            return;
        }
    }

    aigw_usage("unknown %s \"%s\"%s", what, word,
               aigw_near_text(word, names));
}


static void
aigw_switch_parse(aigw_line_t *line, aigw_switch_t *sw)
{
    memset(sw, 0, sizeof(aigw_switch_t));

    sw->scope = aigw_strdup(line->words[0]);
    sw->name = strchr(sw->scope, ':');

    if (sw->name) {
        *sw->name++ = '\0';
    }

    aigw_switch_word("scope", sw->scope, aigw_scopes);

    if (strcmp(sw->scope, "all") == 0) {
        if (sw->name) {
            aigw_usage("\"all\" has no name");
        }

    } else if (sw->name == NULL || *sw->name == '\0') {
        aigw_usage("whose? It is %s:NAME", sw->scope);
    }

    if (strcmp(sw->scope, "feature") == 0) {
        aigw_switch_word("feature", sw->name, aigw_features);
    }

    sw->key = aigw_value(line, AIGW_OPT_KEY);

    if ((strcmp(sw->scope, "zone") == 0) != (sw->key != NULL)) {
        aigw_usage(sw->key ? "--key is of a zone" : "a zone needs --key");
    }
}


static cJSON *
aigw_switch_record(aigw_line_t *line, aigw_switch_t *sw)
{
    char         *value, *end;
    cJSON        *json;
    long          status;
    const char   *action;

    action = (line->nwords > 1) ? line->words[1] : NULL;

    json = cJSON_CreateObject();
    cJSON_AddStringToObject(json, "scope", sw->scope);

    if (sw->name) {
        cJSON_AddStringToObject(json, "name", sw->name);
    }

    if (sw->key) {

        if (action || aigw_has(line, AIGW_OPT_TEXT)
            || aigw_has(line, AIGW_OPT_STATUS)
            || aigw_has(line, AIGW_OPT_MODEL))
        {
            aigw_usage("a zone has --raise, no action");
        }

        cJSON_AddStringToObject(json, "key", sw->key);
        aigw_switch_raise(json, line);

    } else {

        if (action == NULL) {
            aigw_usage("what? It is deny, drain, cut or reroute");
        }

        aigw_switch_word("action", action, aigw_actions);

        if (aigw_has(line, AIGW_OPT_RAISE)) {
            aigw_usage("--raise is of a zone");
        }

        if ((strcmp(action, "reroute") == 0)
            != (aigw_has(line, AIGW_OPT_MODEL) != 0))
        {
            aigw_usage("\"reroute\" needs --model, others have none");
        }

        if (strcmp(action, "reroute") == 0
            && (strcmp(sw->scope, "provider") == 0
                || aigw_has(line, AIGW_OPT_TEXT)
                || aigw_has(line, AIGW_OPT_STATUS)))
        {
            aigw_usage("\"reroute\" is not for a provider, and has no --text "
                       "or --status");
        }

        cJSON_AddStringToObject(json, "action", action);
        aigw_switch_member(json, line, AIGW_OPT_MODEL, "model");
        aigw_switch_member(json, line, AIGW_OPT_TEXT, "text");
    }

    value = aigw_value(line, AIGW_OPT_STATUS);

    if (value) {
        status = strtol(value, &end, 10);

        if (*end != '\0' || status < 400 || status > 599) {
            aigw_usage("invalid --status \"%s\", it is 400 to 599", value);
        }

        cJSON_AddNumberToObject(json, "status", (double) status);
    }

    value = aigw_value(line, AIGW_OPT_UNTIL);

    if (value) {
        cJSON_AddStringToObject(json, "until",
                     aigw_time_text(aigw_time_option(AIGW_OPT_UNTIL, value,
                                                     time(NULL))));
    }

    aigw_switch_member(json, line, AIGW_OPT_COMMENT, "comment");

    return json;
}


static void
aigw_switch_member(cJSON *json, aigw_line_t *line, aigw_opt_e opt,
    const char *name)
{
    char    *value;
    size_t   i, n;

    value = aigw_value(line, opt);

    if (value == NULL) {
        return;
    }

    for (i = 0, n = 0; i < line->nargs; i++) {
        n += (line->args[i].opt == opt);
    }

    if (n > 1) {
        aigw_usage("%s is given twice", aigw_opt_name(opt));
    }

    if (*value == '\0' || strlen(value) > 1024) {
        aigw_usage("%s is empty or longer than 1024 bytes",
                   aigw_opt_name(opt));
    }

    cJSON_AddStringToObject(json, name, value);
}


static void
aigw_switch_raise(cJSON *json, aigw_line_t *line)
{
    char    *name, *value;
    cJSON   *raise;
    size_t   i;

    raise = cJSON_AddObjectToObject(json, "raise");

    for (i = 0; i < line->nargs; i++) {

        if (line->args[i].opt != AIGW_OPT_RAISE) {
            continue;
        }

        name = aigw_strdup(line->args[i].value);
        value = strchr(name, '=');

        if (value == NULL || value == name || value[1] == '\0') {
            aigw_usage("invalid --raise \"%s\", it is NAME=VALUE", name);
        }

        *value++ = '\0';

        if (cJSON_GetObjectItemCaseSensitive(raise, name)) {
            aigw_usage("--raise %s is given twice", name);
        }

        cJSON_AddStringToObject(raise, name, value);
        free(name);
    }

    if (raise->child == NULL) {
        aigw_usage("a zone needs --raise");
    }
}


static int
aigw_switch_same(cJSON *json, const char *name, const char *value)
{
    cJSON  *m;

    m = cJSON_GetObjectItemCaseSensitive(json, name);

    if (value == NULL || !cJSON_IsString(m)) {
        return value == NULL && m == NULL;
    }

    return strcmp(m->valuestring, value) == 0;
}


static int
aigw_switch_is(aigw_str_t *record, aigw_switch_t *sw)
{
    int     same;
    char   *copy;
    cJSON  *json;

    copy = aigw_format("%.*s", (int) record->len, (char *) record->data);
    json = cJSON_Parse(copy);

    same = aigw_switch_same(json, "scope", sw->scope)
           && aigw_switch_same(json, "name", sw->name)
           && aigw_switch_same(json, "key", sw->key);

    cJSON_Delete(json);
    free(copy);

    return same;
}


static void
aigw_switch_find(aigw_file_t *f, aigw_switch_t *sw, aigw_found_t *found)
{
    memset(found, 0, sizeof(aigw_found_t));

    while (aigw_file_walk(f)) {
        aigw_found_add(found, &f->record, aigw_switch_is(&f->record, sw));
    }
}


int
aigw_switch_on(aigw_line_t *line)
{
    char           *text;
    cJSON          *json;
    aigw_str_t      record;
    aigw_edit_t     edit;
    aigw_file_t     f;
    aigw_found_t    found;
    aigw_switch_t   sw;

    aigw_switch_parse(line, &sw);

    json = aigw_switch_record(line, &sw);
    text = aigw_json_text(json);

    record.data = (u_char *) text;
    record.len = strlen(text);

    aigw_file_open(&f, "switches", line, 1);
    aigw_switch_find(&f, &sw, &found);

    if (found.record.data) {
        edit.start = found.record.data;
        edit.end = found.record.data + found.record.len;
        edit.text = record;

    } else {
        edit = aigw_file_append(&f, &record);
    }

    aigw_file_write(&f, &edit);

    if (aigw_has(line, AIGW_OPT_JSON)) {
        puts(text);
        aigw_flush();
    }

    aigw_info("%s is on in %s", line->words[0], f.path);

    return 0;
}


int
aigw_switch_off(aigw_line_t *line)
{
    aigw_edit_t     edit;
    aigw_file_t     f;
    aigw_found_t    found;
    aigw_switch_t   sw;

    aigw_switch_parse(line, &sw);

    aigw_file_open(&f, "switches", line, 1);
    aigw_switch_find(&f, &sw, &found);

    if (found.record.data == NULL) {
        aigw_fail("no switch \"%s\" in %s", line->words[0], f.path);
    }

    edit = aigw_record_cut(&f, &found);
    aigw_file_write(&f, &edit);

    aigw_info("%s is off in %s", line->words[0], f.path);

    return 0;
}


int
aigw_switch_list(aigw_line_t *line)
{
    char         *text, *shown;
    size_t        n;
    aigw_buf_t    b;
    aigw_file_t   f;

    aigw_file_open(&f, "switches", line, 0);

    n = 0;

    if (aigw_has(line, AIGW_OPT_JSON)) {
        fputs("[", stdout);
    }

    while (aigw_file_walk(&f)) {
        memset(&b, 0, sizeof(aigw_buf_t));

        aigw_json_minify(&b, &f.record);
        text = aigw_format("%.*s", (int) b.len, (char *) b.data);

        if (aigw_has(line, AIGW_OPT_JSON)) {
            printf("%s%s", n++ ? ",\n " : "\n ", text);

        } else {
            shown = aigw_shown(text);
            puts(shown);
            free(shown);
        }

        free(text);
        free(b.data);
    }

    if (aigw_has(line, AIGW_OPT_JSON)) {
        fputs(n ? "\n]\n" : "]\n", stdout);
    }

    aigw_flush();

    return 0;
}


/* as nginx does it, but for zones: their names and limits are those of the
 * configuration */

char *
aigw_switch_error(cJSON *json)
{
    char        *error;
    size_t       i;
    time_t       until;
    cJSON       *m;
    const char  *scope, *name, *action;

    cJSON_ArrayForEach(m, json) {

        for (i = 0; aigw_switch_members[i]; i++) {
            if (strcmp(aigw_switch_members[i], m->string) == 0) {
                break;
            }
        }

        if (aigw_switch_members[i] == NULL) {
            return aigw_format("unknown member \"%s\"%s", m->string,
                               aigw_near_text(m->string,
                                              aigw_switch_members));
        }

        if (cJSON_GetObjectItemCaseSensitive(json, m->string) != m) {
            return aigw_format("duplicate member \"%s\"", m->string);
        }

        if (strcmp(m->string, "comment") == 0) {
            continue;
        }

        if (strcmp(m->string, "raise") == 0) {
            if (!cJSON_IsObject(m)) {
                return aigw_strdup("\"raise\" must be an object");
            }

            continue;
        }

        if (strcmp(m->string, "status") == 0) {
            if (!cJSON_IsNumber(m) || m->valuedouble < 400
                || m->valuedouble > 599)
            {
                return aigw_strdup("\"status\" must be a number from 400 to "
                                   "599");
            }

            continue;
        }

        if (strcmp(m->string, "until") == 0) {
            error = cJSON_IsNull(m) ? aigw_strdup("\"until\" is null")
                                    : aigw_rule_time(m, &until);
            if (error) {
                return error;
            }

            continue;
        }

        if (!cJSON_IsString(m)) {
            return aigw_format("\"%s\" must be a string", m->string);
        }

        if (m->valuestring[0] == '\0') {
            return aigw_format("\"%s\" is empty", m->string);
        }

        if (strlen(m->valuestring) > AIGW_SWITCH_TEXT) {
            return aigw_format("\"%s\" is longer than %d bytes", m->string,
                               AIGW_SWITCH_TEXT);
        }
    }

    scope = aigw_price_text(json, "scope");
    name = aigw_price_text(json, "name");
    action = aigw_price_text(json, "action");

    if (scope == NULL) {
        return aigw_strdup("no \"scope\"");
    }

    error = aigw_switch_known("scope", scope, aigw_scopes);

    if (error) {
        return error;
    }

    if (name == NULL && strcmp(scope, "all") != 0) {
        return aigw_strdup("no \"name\"");
    }

    if (strcmp(scope, "zone") == 0) {
        return aigw_switch_zone_error(json);
    }

    if (action == NULL) {
        return aigw_strdup("no \"action\"");
    }

    error = aigw_switch_known("action", action, aigw_actions);

    if (error == NULL && strcmp(scope, "feature") == 0) {
        error = aigw_switch_known("feature", name, aigw_features);
    }

    if (error == NULL) {
        error = aigw_switch_useless(json, "key");
    }

    if (error == NULL) {
        error = aigw_switch_useless(json, "raise");
    }

    if (error == NULL && strcmp(scope, "all") == 0) {
        error = aigw_switch_useless(json, "name");
    }

    if (error || strcmp(action, "reroute") != 0) {
        return error ? error : aigw_switch_useless(json, "model");
    }

    if (aigw_price_text(json, "model") == NULL) {
        return aigw_strdup("no \"model\" to reroute to");
    }

    if (strcmp(scope, "provider") == 0) {
        return aigw_strdup("a provider is not rerouted: fallbacks serve where "
                           "it is denied");
    }

    error = aigw_switch_useless(json, "text");

    return error ? error : aigw_switch_useless(json, "status");
}


static char *
aigw_switch_zone_error(cJSON *json)
{
    int                                 i;
    char                               *error;
    cJSON                              *raise, *m;
    size_t                              n;
    const ngx_http_ai_quantity_name_t  *q;

    static const char *const  useless[] = {
        "action", "text", "model", "status", NULL
    };

    raise = cJSON_GetObjectItemCaseSensitive(json, "raise");

    if (raise == NULL) {
        return aigw_strdup("no \"raise\"");
    }

    if (aigw_price_text(json, "key") == NULL) {
        return aigw_strdup("no \"key\"");
    }

    for (n = 0; useless[n]; n++) {
        error = aigw_switch_useless(json, useless[n]);

        if (error) {
            return error;
        }
    }

    cJSON_ArrayForEach(m, raise) {

        /* what a zone limits may be of either kind */

        q = ngx_http_ai_quantity_quotas;

        for (i = 0; q[i].name && strcmp(q[i].name, m->string) != 0; i++) {
            /* void */
        }

        if (q[i].name == NULL
            || (cJSON_IsString(m) && strstr(m->valuestring, "/s")))
        {
            q = ngx_http_ai_quantity_limits;
        }

        if (cJSON_IsNull(m)) {
            return aigw_format("\"%s\" must be a string such as \"60r/m\"",
                               m->string);
        }

        error = aigw_rule_amount("raise", aigw_price_text(json, "name"), m,
                                 q);

        if (error) {
            return error;
        }
    }

    return NULL;
}


static char *
aigw_switch_known(const char *what, const char *word,
    const char *const *names)
{
    size_t  i;

    for (i = 0; names[i]; i++) {
        if (strcmp(names[i], word) == 0) {
            return NULL;
        }
    }

    return aigw_format("unknown %s \"%s\"%s", what, word,
                       aigw_near_text(word, names));
}


static char *
aigw_switch_useless(cJSON *json, const char *name)
{
    if (cJSON_GetObjectItemCaseSensitive(json, name) == NULL) {
        return NULL;
    }

    return aigw_format("\"%s\" is of no use here", name);
}


char *
aigw_switch_name(cJSON *json)
{
    const char  *scope, *name, *key;

    scope = aigw_price_text(json, "scope");
    name = aigw_price_text(json, "name");
    key = aigw_price_text(json, "key");

    return aigw_format("%s%s%s%s%s", scope ? scope : "?", name ? ":" : "",
                       name ? name : "", key ? ":" : "", key ? key : "");
}
