
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * prices import, list, show, check
 */


#include "aigw.h"

#include <math.h>


#define AIGW_LITELLM      "litellm"
#define AIGW_LITELLM_MAX  (64 * 1024 * 1024)
#define AIGW_MODEL_MAX    256
#define AIGW_TIERS        4
#define AIGW_RATES        8


typedef struct {
    const char    *from;
    const char    *to;
} aigw_pair_t;


typedef struct {
    aigw_line_t   *line;
    const char    *version;
    char         **names;             /* of kept and written records */
    size_t         nnames;
    aigw_buf_t     out;
    size_t         records;
    size_t         written;
    size_t         skipped;
    int            lines;
} aigw_import_t;


static void aigw_import_keep(aigw_import_t *im, aigw_file_t *f);
static void aigw_import_entry(aigw_import_t *im, cJSON *entry);
static char *aigw_import_name(aigw_import_t *im, cJSON *entry);
static const char *aigw_import_map(aigw_import_t *im, const char *provider);
static void aigw_import_tiers(cJSON *entry, aigw_buf_t *b);
static int aigw_import_rate(aigw_buf_t *b, const char *name, cJSON *value,
    const char *comma);
static void aigw_import_add(aigw_import_t *im, const char *text, size_t len);
static int aigw_import_known(aigw_import_t *im, const char *name);
static cJSON *aigw_import_read(const char *path, char **version);
static char *aigw_price_rates(cJSON *json, int base);


/* what LiteLLM calls the rates of the gateway's records */

static const aigw_pair_t  aigw_rates[] = {
    { "input_cost_per_token", "input" },
    { "output_cost_per_token", "output" },
    { "cache_read_input_token_cost", "cached" },
    { "cache_creation_input_token_cost", "cache_write" },
    { "cache_creation_input_token_cost_above_1hr", "cache_write_1h" },
    { "output_cost_per_reasoning_token", "reasoning" },
    { "input_cost_per_audio_token", "audio_input" },
    { "output_cost_per_audio_token", "audio_output" },
    { NULL, NULL }
};


/* ... and the providers, where that is another name */

static const aigw_pair_t  aigw_providers[] = {
    { "text-completion-openai", "openai" },
    { "azure_text", "azure" },
    { "together_ai", "together" },
    { "fireworks_ai", "fireworks" },
    { "fireworks_ai-embedding-models", "fireworks" },
    { "vertex_ai-", "vertex_ai" },
    { "cohere_chat", "cohere" },
    { NULL, NULL }
};


static const char *const  aigw_price_members[] = {
    "input", "output", "cached", "cache_write", "cache_write_1h", "reasoning",
    "audio_input", "audio_output", "request", "image", "above", "batch",
    "currency", "version", "model", "comment", NULL
};


static const char *const  aigw_rate_members[] = {
    "input", "output", "cached", "cache_write", "cache_write_1h", "reasoning",
    "audio_input", "audio_output", NULL
};


int
aigw_prices_import(aigw_line_t *line)
{
    char           *version, *text;
    cJSON          *json, *entry;
    size_t          i;
    const char     *map;
    aigw_edit_t     edit;
    aigw_file_t     f;
    aigw_import_t   im;

    if (strcmp(line->words[0], AIGW_LITELLM) != 0) {
        aigw_usage("unknown form \"%s\", it is \"" AIGW_LITELLM "\"",
                   line->words[0]);
    }

    for (i = 0; i < line->nargs; i++) {
        map = line->args[i].value;

        if (line->args[i].opt == AIGW_OPT_PROVIDER_MAP
            && (map[0] == '=' || strchr(map, '=') == NULL))
        {
            aigw_usage("invalid --provider-map \"%s\", it is FROM=TO", map);
        }
    }

    memset(&im, 0, sizeof(aigw_import_t));

    json = aigw_import_read(line->words[1], &version);

    im.line = line;
    im.version = version;

    aigw_file_open(&f, "prices", line, 1);

    i = strlen(f.path);
    im.lines = (i > 6 && strcmp(f.path + i - 6, ".jsonl") == 0);

    if (!im.lines) {
        aigw_buf_text(&im.out, "[\n");
    }

    if (f.exists) {
        aigw_import_keep(&im, &f);
    }

    cJSON_ArrayForEach(entry, json) {
        aigw_import_entry(&im, entry);
    }

    if (im.written == 0) {
        aigw_fail("%s has no prices of models", line->words[1]);
    }

    aigw_buf_text(&im.out, im.lines ? "\n" : "\n]\n");

    edit.start = f.start;
    edit.end = f.last;
    edit.text.data = im.out.data;
    edit.text.len = im.out.len;

    aigw_file_write(&f, &edit);

    if (aigw_has(line, AIGW_OPT_JSON)) {
        text = aigw_format("{\"imported\":%zu,\"kept\":%zu,\"skipped\":%zu}",
                           im.written, im.records - im.written, im.skipped);
        puts(text);
        free(text);
        aigw_flush();
    }

    aigw_info("%s: %zu prices imported, %zu of other sources kept, %zu "
              "entries without a price per token left out", f.path, im.written,
              im.records - im.written, im.skipped);

    return 0;
}


static cJSON *
aigw_import_read(const char *path, char **version)
{
    FILE         *file;
    char         *text, *time;
    cJSON        *json;
    size_t        n;
    struct stat   st;

    file = fopen(path, "r");

    if (file == NULL || fstat(fileno(file), &st) == -1) {
        aigw_fail("%s: %s", path, strerror(errno));
    }

    if (!S_ISREG(st.st_mode) || st.st_size > AIGW_LITELLM_MAX) {
        aigw_fail("%s is no file, or larger than 64 MB", path);
    }

    text = aigw_alloc((size_t) st.st_size + 1);
    n = fread(text, 1, (size_t) st.st_size, file);
    text[n] = '\0';

    fclose(file);

    json = cJSON_Parse(text);

    if (!cJSON_IsObject(json)) {
        aigw_fail("%s is not a JSON object", path);
    }

    time = aigw_time_text(st.st_mtime);
    *version = aigw_format(AIGW_LITELLM " %.10s", time);

    free(text);

    return json;
}


static void
aigw_import_keep(aigw_import_t *im, aigw_file_t *f)
{
    char        *copy;
    cJSON       *json;
    const char  *model, *comment;

    while (aigw_file_walk(f)) {
        copy = aigw_format("%.*s", (int) f->record.len,
                           (char *) f->record.data);
        json = cJSON_Parse(copy);

        model = aigw_price_text(json, "model");
        comment = aigw_price_text(json, "comment");

        if (comment == NULL || strcmp(comment, AIGW_LITELLM) != 0) {
            aigw_import_add(im, (char *) f->record.data, f->record.len);

            if (model) {
                im->names = aigw_realloc(im->names, (im->nnames + 1)
                                                    * sizeof(char *));
                im->names[im->nnames++] = aigw_strdup(model);
            }
        }

        cJSON_Delete(json);
        free(copy);
    }
}


static void
aigw_import_entry(aigw_import_t *im, cJSON *entry)
{
    char        *name, *quoted;
    cJSON       *m, *batch;
    double       in, out;
    size_t       i;
    aigw_buf_t   b;
    const char  *mode;

    static const char  *modes[] = {
        "chat", "completion", "responses", "embedding", NULL
    };

    mode = aigw_price_text(entry, "mode");

    for (i = 0; modes[i]; i++) {
        if (mode && strcmp(mode, modes[i]) == 0) {
            break;
        }
    }

    name = NULL;

    if (modes[i]) {
        name = aigw_import_name(im, entry);
    }

    if (name == NULL) {
        im->skipped++;
        return;
    }

    m = cJSON_GetObjectItemCaseSensitive(entry, "input_cost_per_token");
    in = cJSON_IsNumber(m) ? m->valuedouble : -1;

    m = cJSON_GetObjectItemCaseSensitive(entry, "output_cost_per_token");
    out = cJSON_IsNumber(m) ? m->valuedouble
                            : (strcmp(mode, "embedding") == 0) ? 0 : -1;

    /* what is free there may be paid for in another way */

    if (in < 0 || out < 0 || (in == 0 && out == 0) || in > 1 || out > 1
        || aigw_import_known(im, name))
    {
        im->skipped++;
        free(name);
        return;
    }

    memset(&b, 0, sizeof(aigw_buf_t));

    m = cJSON_CreateString(name);
    quoted = aigw_json_text(m);
    cJSON_Delete(m);

    aigw_buf_text(&b, "{\"model\":");
    aigw_buf_text(&b, quoted);
    free(quoted);

    for (i = 0; aigw_rates[i].from; i++) {
        m = cJSON_GetObjectItemCaseSensitive(entry, aigw_rates[i].from);

        if (m) {
            (void) aigw_import_rate(&b, aigw_rates[i].to, m, ",");

        } else if (strcmp(aigw_rates[i].to, "output") == 0) {
            aigw_buf_text(&b, ",\"output\":0");
        }
    }

    m = cJSON_GetObjectItemCaseSensitive(entry, "input_cost_per_image");

    if (cJSON_IsNumber(m) && m->valuedouble >= 0 && m->valuedouble < 1000) {
        quoted = aigw_format(",\"image\":%.12g", m->valuedouble);
        aigw_buf_text(&b, quoted);
        free(quoted);
    }

    aigw_import_tiers(entry, &b);

    batch = cJSON_GetObjectItemCaseSensitive(entry,
                                             "input_cost_per_token_batches");
    m = cJSON_GetObjectItemCaseSensitive(entry,
                                         "output_cost_per_token_batches");

    if (cJSON_IsNumber(batch) && cJSON_IsNumber(m)) {
        aigw_buf_text(&b, ",\"batch\":{");
        i = (size_t) aigw_import_rate(&b, "input", batch, "");
        (void) aigw_import_rate(&b, "output", m, i ? "," : "");
        aigw_buf_text(&b, "}");
    }

    aigw_buf_text(&b, ",\"version\":\"");
    aigw_buf_text(&b, im->version);
    aigw_buf_text(&b, "\",\"comment\":\"" AIGW_LITELLM "\"}");

    aigw_import_add(im, (char *) b.data, b.len);

    im->names = aigw_realloc(im->names, (im->nnames + 1) * sizeof(char *));
    im->names[im->nnames++] = name;
    im->written++;

    free(b.data);
}


/* "gpt-5" of "openai", "azure/gpt-5" of "azure": provider/model */

static char *
aigw_import_name(aigw_import_t *im, cJSON *entry)
{
    char        *name;
    size_t       len;
    const char  *provider, *to, *model;

    provider = aigw_price_text(entry, "litellm_provider");

    if (provider == NULL) {
        return NULL;
    }

    to = aigw_import_map(im, provider);
    model = entry->string;
    len = strlen(provider);

    if (strncmp(model, provider, len) == 0 && model[len] == '/') {
        model += len + 1;

    } else {
        len = strcspn(model, "/");

        if (model[len] == '/' && strncmp(model, provider, len) == 0) {
            /* "vertex_ai/..." of "vertex_ai-language-models" */
            model += len + 1;
        }
    }

    if (to[0] == '\0' || model[0] == '\0' || strchr(model, '*')) {
        return NULL;
    }

    name = aigw_format("%s/%s", to, model);

    if (strlen(name) > AIGW_MODEL_MAX) {
        free(name);
        return NULL;
    }

    return name;
}


static const char *
aigw_import_map(aigw_import_t *im, const char *provider)
{
    size_t       i, len;
    const char  *p;

    for (i = 0; i < im->line->nargs; i++) {

        if (im->line->args[i].opt != AIGW_OPT_PROVIDER_MAP) {
            continue;
        }

        p = strchr(im->line->args[i].value, '=');
        len = (size_t) (p - im->line->args[i].value);

        if (strlen(provider) == len
            && memcmp(provider, im->line->args[i].value, len) == 0)
        {
            return p + 1;
        }
    }

    for (i = 0; aigw_providers[i].from; i++) {
        len = strlen(aigw_providers[i].from);

        if (strncmp(provider, aigw_providers[i].from, len) == 0
            && (provider[len] == '\0'
                || aigw_providers[i].from[len - 1] == '-'))
        {
            return aigw_providers[i].to;
        }
    }

    return provider;
}


/* "..._above_200k_tokens" */

static void
aigw_import_tiers(cJSON *entry, aigw_buf_t *b)
{
    long         tiers[AIGW_TIERS], n;
    char        *end, *name;
    cJSON       *m;
    size_t       i, k, ntiers, some, all;
    const char  *p;

    ntiers = 0;

    cJSON_ArrayForEach(m, entry) {
        p = strstr(m->string, "_above_");

        while (p) {
            n = strtol(p + 7, &end, 10);

            if (n > 0 && n < 1000000 && strcmp(end, "k_tokens") == 0
                && cJSON_IsNumber(m))
            {
                for (k = 0; k < ntiers && tiers[k] != n; k++) {
                    /* void */
                }

                if (k == ntiers && ntiers < AIGW_TIERS) {
                    tiers[ntiers++] = n;
                }
            }

            p = strstr(p + 1, "_above_");
        }
    }

    all = 0;

    for (k = 0; k < ntiers; k++) {
        some = 0;

        for (i = 0; aigw_rates[i].from; i++) {
            name = aigw_format("%s_above_%ldk_tokens", aigw_rates[i].from,
                               tiers[k]);
            m = cJSON_GetObjectItemCaseSensitive(entry, name);
            free(name);

            if (!cJSON_IsNumber(m) || !(m->valuedouble >= 0)
                || m->valuedouble > 1)
            {
                continue;
            }

            if (!some) {
                name = aigw_format("%s\"%ld000\":{",
                                   all++ ? "," : ",\"above\":{", tiers[k]);
                aigw_buf_text(b, name);
                free(name);
            }

            (void) aigw_import_rate(b, aigw_rates[i].to, m,
                                    some++ ? "," : "");
        }

        if (some) {
            aigw_buf_text(b, "}");
        }
    }

    if (all) {
        aigw_buf_text(b, "}");
    }
}


/* USD per token to USD per million tokens, to the pico-dollar */

static int
aigw_import_rate(aigw_buf_t *b, const char *name, cJSON *value,
    const char *comma)
{
    char       text[128];
    size_t     n;
    long long  pico;

    if (!cJSON_IsNumber(value) || !(value->valuedouble >= 0)
        || value->valuedouble > 1)
    {
        return 0;
    }

    pico = llround(value->valuedouble * 1e12);

    n = (size_t) snprintf(text, sizeof(text), "%s\"%s\":%lld.%06lld", comma,
                          name, pico / 1000000, pico % 1000000);

    while (text[n - 1] == '0') {
        n--;
    }

    if (text[n - 1] == '.') {
        n--;
    }

    aigw_buf_add(b, text, n);

    return 1;
}


static void
aigw_import_add(aigw_import_t *im, const char *text, size_t len)
{
    if (im->records++) {
        aigw_buf_text(&im->out, im->lines ? "\n" : ",\n");
    }

    aigw_buf_add(&im->out, text, len);
}


static int
aigw_import_known(aigw_import_t *im, const char *name)
{
    size_t  i;

    for (i = 0; i < im->nnames; i++) {
        if (strcmp(im->names[i], name) == 0) {
            return 1;
        }
    }

    return 0;
}


const char *
aigw_price_text(cJSON *json, const char *name)
{
    cJSON  *m;

    m = cJSON_GetObjectItemCaseSensitive(json, name);

    return cJSON_IsString(m) ? m->valuestring : NULL;
}


int
aigw_prices_list(aigw_line_t *line)
{
    char         *copy, *shown;
    cJSON        *json, *m;
    size_t        n, i;
    const char   *model, *version;
    aigw_file_t   f;

    static const char  *columns[] = { "input", "output", "cached" };

    aigw_file_open(&f, "prices", line, 0);

    if (!f.exists) {
        aigw_fail("%s: %s", f.path, strerror(ENOENT));
    }

    n = 0;

    if (aigw_has(line, AIGW_OPT_JSON)) {
        fputs("[", stdout);

    } else {
        puts("     INPUT     OUTPUT     CACHED  MODEL");
    }

    while (aigw_file_walk(&f)) {
        copy = aigw_format("%.*s", (int) f.record.len,
                           (char *) f.record.data);

        if (aigw_has(line, AIGW_OPT_JSON)) {
            printf("%s%s", n++ ? ",\n " : "\n ", copy);
            free(copy);
            continue;
        }

        json = cJSON_Parse(copy);
        free(copy);

        for (i = 0; i < 3; i++) {
            m = cJSON_GetObjectItemCaseSensitive(json, columns[i]);

            if (cJSON_IsNumber(m)) {
                printf("%10.6g ", m->valuedouble);
            } else {
                printf("%10s ", "-");
            }
        }

        model = aigw_price_text(json, "model");
        version = aigw_price_text(json, "version");

        shown = aigw_shown(model ? model : "?");
        printf(" %s", shown);
        free(shown);

        if (version) {
            shown = aigw_shown(version);
            printf("  (%s)", shown);
            free(shown);
        }

        puts("");

        cJSON_Delete(json);
    }

    if (aigw_has(line, AIGW_OPT_JSON)) {
        fputs(n ? "\n]\n" : "]\n", stdout);
    }

    aigw_flush();

    return 0;
}


int
aigw_prices_show(aigw_line_t *line)
{
    char         *copy;
    cJSON        *json;
    const char   *model;
    aigw_file_t   f;

    aigw_file_open(&f, "prices", line, 0);

    if (!f.exists) {
        aigw_fail("%s: %s", f.path, strerror(ENOENT));
    }

    while (aigw_file_walk(&f)) {
        copy = aigw_format("%.*s", (int) f.record.len,
                           (char *) f.record.data);
        json = cJSON_Parse(copy);
        model = aigw_price_text(json, "model");

        if (model && strcmp(model, line->words[0]) == 0) {
            puts(copy);
            aigw_flush();
            return 0;
        }

        cJSON_Delete(json);
        free(copy);
    }

    aigw_fail("no price of \"%s\" in %s", line->words[0], f.path);
}


int
aigw_prices_check(aigw_line_t *line)
{
    int             rc;
    char           *copy, *error;
    cJSON          *json;
    const char     *model;
    aigw_file_t     f;
    aigw_import_t   im;

    aigw_file_open(&f, "prices", line, 0);

    if (!f.exists) {
        aigw_fail("%s: %s", f.path, strerror(ENOENT));
    }

    memset(&im, 0, sizeof(aigw_import_t));
    rc = 0;

    while (aigw_file_walk(&f)) {
        copy = aigw_format("%.*s", (int) f.record.len,
                           (char *) f.record.data);
        json = cJSON_Parse(copy);
        free(copy);

        model = aigw_price_text(json, "model");
        error = aigw_price_error(json);

        if (error == NULL && aigw_import_known(&im, model)) {
            error = aigw_strdup("the \"model\" is there twice");
        }

        if (error) {
            aigw_warn("%s:%zu: record \"%s\": %s", f.path,
                      aigw_file_line(&f, f.record.data), model ? model : "?",
                      error);
            free(error);
            rc = AIGW_FAILED;

        } else {
            im.names = aigw_realloc(im.names, (im.nnames + 1)
                                              * sizeof(char *));
            im.names[im.nnames++] = aigw_strdup(model);
        }

        cJSON_Delete(json);
    }

    if (aigw_has(line, AIGW_OPT_JSON)) {
        printf("{\"prices\":%zu,\"bad\":%zu}\n", f.records,
               f.records - im.nnames);
        aigw_flush();
    }

    if (rc == 0) {
        aigw_info("%s: %zu record%s, good", f.path, f.records,
                  f.records == 1 ? "" : "s");
    }

    return rc;
}


char *
aigw_price_error(cJSON *json)
{
    char        *error, *end;
    cJSON       *m, *t;
    size_t       n;
    const char  *text;

    text = aigw_price_text(json, "model");

    if (text == NULL || *text == '\0') {
        return aigw_strdup("no \"model\"");
    }

    if (strlen(text) > AIGW_MODEL_MAX) {
        return aigw_strdup("\"model\" is too long");
    }

    error = aigw_price_rates(json, 1);

    if (error) {
        return error;
    }

    if (cJSON_GetObjectItemCaseSensitive(json, "input") == NULL) {
        return aigw_strdup("no \"input\"");
    }

    if (cJSON_GetObjectItemCaseSensitive(json, "output") == NULL) {
        return aigw_strdup("no \"output\"");
    }

    m = cJSON_GetObjectItemCaseSensitive(json, "batch");

    if (m) {
        if (!cJSON_IsObject(m)) {
            return aigw_strdup("\"batch\" must be an object");
        }

        error = aigw_price_rates(m, 0);

        if (error) {
            return error;
        }
    }

    m = cJSON_GetObjectItemCaseSensitive(json, "above");

    if (m == NULL) {
        return NULL;
    }

    if (!cJSON_IsObject(m)) {
        return aigw_strdup("\"above\" must be an object");
    }

    n = 0;

    cJSON_ArrayForEach(t, m) {

        if (t->string[0] < '0' || t->string[0] > '9'
            || strtoll(t->string, &end, 10) <= 0 || *end != '\0')
        {
            return aigw_format("\"above\": \"%s\" is no number of tokens",
                               t->string);
        }

        if (!cJSON_IsObject(t)) {
            return aigw_format("\"above\": \"%s\" must be an object",
                               t->string);
        }

        if (++n > AIGW_TIERS) {
            return aigw_strdup("\"above\" has more than 4 members");
        }

        error = aigw_price_rates(t, 0);

        if (error) {
            return error;
        }
    }

    return NULL;
}


static char *
aigw_price_rates(cJSON *json, int base)
{
    cJSON       *m;
    size_t       i;
    double       max;
    const char  *const *names;

    names = base ? aigw_price_members : aigw_rate_members;

    cJSON_ArrayForEach(m, json) {

        for (i = 0; names[i]; i++) {
            if (strcmp(names[i], m->string) == 0) {
                break;
            }
        }

        if (names[i] == NULL) {
            return aigw_format("unknown member \"%s\"%s", m->string,
                               aigw_near_text(m->string, names));
        }

        if (cJSON_GetObjectItemCaseSensitive(json, m->string) != m) {
            return aigw_format("duplicate member \"%s\"", m->string);
        }

        if (i < AIGW_RATES + 2) {
            max = (i < AIGW_RATES) ? 1000000 : 1000;

            if (!cJSON_IsNumber(m) || !(m->valuedouble >= 0)) {
                return aigw_format("\"%s\" must be a number of dollars, 0 or "
                                   "more", m->string);
            }

            if (m->valuedouble > max) {
                return aigw_format("\"%s\" is too much", m->string);
            }

        } else if (strcmp(names[i], "above") != 0
                   && strcmp(names[i], "batch") != 0)
        {
            if (!cJSON_IsString(m)) {
                return aigw_format("\"%s\" must be a string", m->string);
            }

            if (strcmp(names[i], "currency") == 0
                && strcmp(m->valuestring, "USD") != 0)
            {
                return aigw_strdup("\"currency\" must be \"USD\"");
            }

            if (strcmp(names[i], "version") == 0
                && strlen(m->valuestring) > 64)
            {
                return aigw_strdup("\"version\" is longer than 64 bytes");
            }
        }
    }

    return NULL;
}
