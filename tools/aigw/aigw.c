
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * aigw, the tool for the files of live data: command line, help
 */


#include "aigw.h"

#include <sys/resource.h>
#include <fcntl.h>
#include <signal.h>


typedef struct {
    const char    *name;
    const char    *arg;               /* NULL: takes none */
    int            many;
    const char    *text;
} aigw_option_t;


typedef struct {
    const char      *name;
    aigw_command_t  *commands;
} aigw_group_t;


static void aigw_prepare(void);
static void aigw_parse(aigw_line_t *line, int argc, char **argv);
static aigw_opt_e aigw_option(const char *name, size_t len);
static aigw_command_t *aigw_command(aigw_line_t *line, aigw_group_t **group);
static void aigw_command_check(aigw_command_t *command, aigw_line_t *line);
static void aigw_help(void);
static void aigw_help_group(aigw_group_t *group);
static void aigw_help_command(aigw_group_t *group, aigw_command_t *command);


static aigw_option_t  aigw_options[] = {
    { "file", "FILE", 0, "the file with keys; revoked.json is beside it" },
    { "data", "DIR", 0, "the directory of ai_data, with keys.json or "
      "keys.jsonl" },
    { "id", "ID", 0, "id of the record, made up without" },
    { "tenant", "NAME", 0, "tenant" },
    { "user", "NAME", 0, "user" },
    { "team", "NAME", 0, "team" },
    { "plan", "NAME", 0, "plan" },
    { "scope", "SCOPE", 1, "scope; may be repeated, or a list with commas" },
    { "model", "PATTERN", 1, "model that may be used (*: any text); a list "
      "as above" },
    { "deny", "PATTERN", 1, "model that may not be used; a list" },
    { "provider", "PATTERN", 1, "provider that may be used; a list" },
    { "endpoint", "NAME", 1, "endpoint that may be used; a list" },
    { "limit", "ZONE:NAME=VALUE", 1, "override of a limit, as in "
      "perkey:requests=60r/m" },
    { "quota", "ZONE:NAME=VALUE", 1, "override of a quota, as in "
      "spend:usd=100/month" },
    { "meta", "NAME=VALUE", 1, "the variable $ai_key_meta_NAME; may be "
      "repeated" },
    { "identity", "NAME", 1, "name that nginx has verified, of \"ai_auth "
      "variable=\"; may be repeated" },
    { "name", "TEXT", 0, "what people call the key" },
    { "comment", "TEXT", 0, "comment" },
    { "not-before", "TIME", 0, "refused before this time" },
    { "expires", "TIME", 0, "refused from this time on: "
      "2030-01-31T00:00:00Z, or 90d from now" },
    { "env", "NAME", 0, "the \"live\" of aigw_live_..." },
    { "no-key", NULL, 0, "no key: a record for \"ai_auth variable=\"" },
    { "disabled", NULL, 0, "refused until \"aigw keys enable\"" },
    { "clear", "MEMBER", 1, "members to remove, such as \"expires\"; a "
      "list" },
    { "grace", "TIME", 0, "how long old keys are still good, 24h by default; "
      "0: not at all" },
    { "hash", "HASH", 0, "the hash itself, no key is read" },
    { "foreign", NULL, 0, "the key is not of the gateway's own form" },
    { "until", "TIME", 0, "when the entry in the list of revoked keys ends" },
    { "unrevoke", NULL, 0, "takes the key from the list of revoked keys, "
      "too" },
    { "state", "STATE", 0, "active, pending, expired, disabled or revoked" },
    { "secret-file", "FILE", 0, "the secret of ai_key_secret file:, for "
      "HMAC-SHA-256" },
    { "secret-env", "NAME", 0, "the secret of ai_key_secret env:" },
    { "provider-map", "FROM=TO", 1, "what the gateway calls a provider of "
      "the imported file; empty: leave it out" },
    { "text", "TEXT", 0, "what clients are told" },
    { "status", "NUMBER", 0, "status of the refusal" },
    { "key", "KEY", 0, "key of the zone" },
    { "raise", "NAME=VALUE", 1, "larger limit for a while, as in "
      "usd=1000/month" },
    { "json", NULL, 0, "output is JSON" },
    { "quiet", NULL, 0, "errors and warnings only on standard error (-q)" },
    { "help", NULL, 0, "this help (-h)" },
    { "version", NULL, 0, "version (-V)" }
};


#define B(opt)  aigw_bit(AIGW_OPT_##opt)

#define AIGW_COMMON                                                           \
    (B(FILE)|B(DATA)|B(JSON)|B(QUIET)|B(HELP)|B(VERSION))

#define AIGW_FIELDS                                                           \
    (B(TENANT)|B(USER)|B(TEAM)|B(PLAN)|B(SCOPE)|B(MODEL)|B(DENY)|B(PROVIDER)  \
     |B(ENDPOINT)|B(LIMIT)|B(QUOTA)|B(META)|B(IDENTITY)|B(NAME)|B(COMMENT)    \
     |B(NOT_BEFORE)|B(EXPIRES))

#define AIGW_SECRET  (B(SECRET_FILE)|B(SECRET_ENV))


static aigw_command_t  aigw_commands[] = {

    { "create", aigw_keys_create,
      AIGW_COMMON|AIGW_FIELDS|AIGW_SECRET|B(ID)|B(ENV)|B(NO_KEY)|B(DISABLED),
      0, 0, "", "makes a key, adds its record, and writes the key to the "
      "standard output" },

    { "import-hash", aigw_keys_import,
      AIGW_COMMON|AIGW_FIELDS|AIGW_SECRET|B(ID)|B(HASH)|B(FOREIGN)
      |B(DISABLED),
      0, 0, "", "adds a record for a key that exists: of the standard input, "
      "or its hash" },

    { "list", aigw_keys_list,
      AIGW_COMMON|B(TENANT)|B(USER)|B(TEAM)|B(PLAN)|B(STATE),
      0, 0, "", "lists records" },

    { "show", aigw_keys_show,
      AIGW_COMMON,
      1, 1, "ID", "shows a record" },

    { "update", aigw_keys_update,
      AIGW_COMMON|AIGW_FIELDS|B(CLEAR),
      1, 1, "ID", "sets or clears members of a record" },

    { "rotate", aigw_keys_rotate,
      AIGW_COMMON|AIGW_SECRET|B(GRACE)|B(ENV)|B(EXPIRES),
      1, 1, "ID", "adds a new key to a record and lets the old ones expire" },

    { "disable", aigw_keys_disable,
      AIGW_COMMON,
      1, 1, "ID", "marks a record as disabled" },

    { "enable", aigw_keys_enable,
      AIGW_COMMON|B(UNREVOKE),
      1, 1, "ID", "the reverse of \"disable\"" },

    { "revoke", aigw_keys_revoke,
      AIGW_COMMON|B(UNTIL)|B(COMMENT),
      1, 1, "ID", "disables a record, and adds it to the list of revoked "
      "keys, which is in force at once" },

    { "delete", aigw_keys_delete,
      AIGW_COMMON,
      1, 1, "ID", "removes a record" },

    { "verify", aigw_keys_verify,
      AIGW_COMMON|AIGW_SECRET,
      0, 0, "", "says whose the key of the standard input is, and fails when "
      "it would be refused" },

    { "check", aigw_keys_check,
      AIGW_COMMON,
      0, 1, "[DIR]", "checks the files as nginx does" },

    { NULL, NULL, 0, 0, 0, NULL, NULL }
};


#define AIGW_FILES                                                            \
    (B(DATA)|B(JSON)|B(QUIET)|B(HELP)|B(VERSION))


static aigw_command_t  aigw_price_commands[] = {

    { "import", aigw_prices_import,
      AIGW_FILES|B(PROVIDER_MAP),
      2, 2, "litellm FILE", "converts model_prices_and_context_window.json of "
      "LiteLLM; records that were not imported stay" },

    { "list", aigw_prices_list,
      AIGW_FILES,
      0, 0, "", "lists prices, USD per million tokens" },

    { "show", aigw_prices_show,
      AIGW_FILES,
      1, 1, "MODEL", "shows a record" },

    { "check", aigw_prices_check,
      AIGW_FILES,
      0, 0, "", "checks the file as nginx does" },

    { NULL, NULL, 0, 0, 0, NULL, NULL }
};


static aigw_command_t  aigw_switch_commands[] = {

    { "on", aigw_switch_on,
      AIGW_FILES|B(TEXT)|B(STATUS)|B(UNTIL)|B(MODEL)|B(COMMENT)|B(KEY)
      |B(RAISE),
      1, 2, "SCOPE[:NAME] [ACTION]", "all, tenant:, key:, model:, provider: "
      "or feature:NAME, and deny, drain, cut, or reroute with --model; or "
      "zone:NAME with --key and --raise" },

    { "off", aigw_switch_off,
      AIGW_FILES|B(KEY),
      1, 1, "SCOPE[:NAME]", "removes a switch" },

    { "list", aigw_switch_list,
      AIGW_FILES,
      0, 0, "", "lists switches" },

    { NULL, NULL, 0, 0, 0, NULL, NULL }
};


static aigw_group_t  aigw_groups[] = {
    { "keys", aigw_commands },
    { "prices", aigw_price_commands },
    { "switch", aigw_switch_commands },
    { NULL, NULL }
};


int
main(int argc, char **argv)
{
    aigw_line_t      line;
    aigw_group_t    *group;
    aigw_command_t  *command;

    aigw_prepare();

    memset(&line, 0, sizeof(aigw_line_t));
    aigw_parse(&line, argc, argv);

    if (aigw_has(&line, AIGW_OPT_QUIET)) {
        aigw_quiet();
    }

    if (aigw_has(&line, AIGW_OPT_VERSION)) {
        printf("aigw %s\n", AIGW_VERSION);
        aigw_flush();
        return 0;
    }

    command = aigw_command(&line, &group);

    if (command == NULL) {
        return 0;
    }

    if (aigw_has(&line, AIGW_OPT_HELP)) {
        aigw_help_command(group, command);
        return 0;
    }

    aigw_command_check(command, &line);

    return command->handler(&line);
}


static void
aigw_prepare(void)
{
    int            fd;
    struct rlimit  limit;

    /* a file that is opened must not become the standard output */

    do {
        fd = open("/dev/null", O_RDONLY);

        if (fd == -1) {
            exit(AIGW_FAILED);
        }

    } while (fd <= STDERR_FILENO);

    close(fd);

    if ((fcntl(STDOUT_FILENO, F_GETFL) & O_ACCMODE) == O_RDONLY) {
        aigw_fail("the standard output is not open for writing");
    }

    /* keys are written there: a full disk is an error, no signal */

    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);

    /* a core file would hold the key */

    limit.rlim_cur = 0;
    limit.rlim_max = 0;
    (void) setrlimit(RLIMIT_CORE, &limit);

    atexit(aigw_secret_wipe);
}


static void
aigw_parse(aigw_line_t *line, int argc, char **argv)
{
    int              i, options;
    char            *arg, *value;
    size_t           len;
    aigw_opt_e       opt;

    line->args = aigw_alloc(argc * sizeof(aigw_arg_t));
    line->words = aigw_alloc(argc * sizeof(char *));
    options = 1;

    for (i = 1; i < argc; i++) {
        arg = argv[i];

        if (!aigw_utf8((u_char *) arg, (u_char *) arg + strlen(arg))) {
            aigw_usage("argument %d is not UTF-8", i);
        }

        if (!options || arg[0] != '-' || arg[1] == '\0') {
            line->words[line->nwords++] = arg;
            continue;
        }

        if (strcmp(arg, "--") == 0) {
            options = 0;
            continue;
        }

        value = NULL;

        if (strcmp(arg, "-h") == 0) {
            opt = AIGW_OPT_HELP;

        } else if (strcmp(arg, "-q") == 0) {
            opt = AIGW_OPT_QUIET;

        } else if (strcmp(arg, "-V") == 0) {
            opt = AIGW_OPT_VERSION;

        } else if (arg[1] != '-') {
            aigw_usage("unknown option \"%s\"", arg);

        } else {
            value = strchr(arg, '=');
            len = value ? (size_t) (value - arg) : strlen(arg);
            opt = aigw_option(arg + 2, len - 2);

            if (value) {
                value++;

                if (aigw_options[opt].arg == NULL) {
                    aigw_usage("--%s takes no value", aigw_options[opt].name);
                }

            } else if (aigw_options[opt].arg) {
                if (i + 1 == argc) {
                    aigw_usage("--%s expects a value",
                               aigw_options[opt].name);
                }

                value = argv[++i];

                if (!aigw_utf8((u_char *) value,
                               (u_char *) value + strlen(value)))
                {
                    aigw_usage("argument %d is not UTF-8", i);
                }
            }
        }

        if (aigw_has(line, opt) && !aigw_options[opt].many
            && aigw_options[opt].arg)
        {
            aigw_usage("--%s is given twice", aigw_options[opt].name);
        }

        line->seen |= aigw_bit(opt);
        line->args[line->nargs].opt = opt;
        line->args[line->nargs].value = value;
        line->nargs++;
    }
}


static aigw_opt_e
aigw_option(const char *name, size_t len)
{
    char        *text, *near;
    size_t       i;
    const char  *names[AIGW_OPT_N + 1];

    for (i = 0; i < AIGW_OPT_N; i++) {
        names[i] = aigw_options[i].name;

        if (strlen(names[i]) == len && memcmp(names[i], name, len) == 0) {
            return (aigw_opt_e) i;
        }
    }

    names[i] = NULL;

    text = aigw_format("%.*s", (int) len, name);
    near = (char *) aigw_near(text, names);

    if (near) {
        aigw_usage("unknown option \"--%s\", did you mean \"--%s\"?", text,
                   near);
    }

    aigw_usage("unknown option \"--%s\"", text);
}


char *
aigw_value(aigw_line_t *line, aigw_opt_e opt)
{
    size_t  i;

    for (i = 0; i < line->nargs; i++) {
        if (line->args[i].opt == opt) {
            return line->args[i].value;
        }
    }

    return NULL;
}


const char *
aigw_opt_name(aigw_opt_e opt)
{
    static char  text[32];

    snprintf(text, sizeof(text), "--%s", aigw_options[opt].name);

    return text;
}


/* takes the command's words from the line; NULL: help was shown */

static aigw_command_t *
aigw_command(aigw_line_t *line, aigw_group_t **group)
{
    char            *near;
    size_t           i;
    const char      *names[sizeof(aigw_commands) / sizeof(aigw_command_t)];
    aigw_group_t    *g;
    aigw_command_t  *command;

    static const char *const  top[] = {
        "keys", "prices", "switch", "check", "help", NULL
    };

    if (line->nwords && strcmp(line->words[0], "help") == 0) {
        line->words++;
        line->nwords--;
        line->seen |= aigw_bit(AIGW_OPT_HELP);
    }

    if (line->nwords == 0) {
        if (aigw_has(line, AIGW_OPT_HELP)) {
            aigw_help();
            return NULL;
        }

        aigw_usage("no command");
    }

    for (g = aigw_groups; g->name; g++) {
        if (strcmp(line->words[0], g->name) == 0) {
            break;
        }
    }

    if (g->name) {
        line->words++;
        line->nwords--;

        if (line->nwords == 0) {
            if (aigw_has(line, AIGW_OPT_HELP)) {
                aigw_help_group(g);
                return NULL;
            }

            aigw_usage("no command of \"%s\"", g->name);
        }

    } else if (strcmp(line->words[0], "check") == 0) {
        g = aigw_groups;

    } else {
        near = aigw_near_text(line->words[0], top);
        aigw_usage("unknown command \"%s\"%s", line->words[0], near);
    }

    *group = g;

    for (i = 0; g->commands[i].name; i++) {
        names[i] = g->commands[i].name;
        command = &g->commands[i];

        if (strcmp(command->name, line->words[0]) == 0) {
            line->words++;
            line->nwords--;
            return command;
        }
    }

    names[i] = NULL;
    near = aigw_near_text(line->words[0], names);

    aigw_usage("unknown command \"%s %s\"%s", g->name, line->words[0], near);
}


static void
aigw_command_check(aigw_command_t *command, aigw_line_t *line)
{
    size_t  i;

    for (i = 0; i < line->nargs; i++) {
        if (!(command->options & aigw_bit(line->args[i].opt))) {
            aigw_usage("\"%s\" has no option %s", command->name,
                       aigw_opt_name(line->args[i].opt));
        }
    }

    if (line->nwords < command->min) {
        aigw_usage("\"%s\" expects %s", command->name, command->args);
    }

    if (line->nwords > command->max) {
        aigw_usage("unexpected \"%s\"", line->words[command->max]);
    }

    if (aigw_has(line, AIGW_OPT_FILE) && aigw_has(line, AIGW_OPT_DATA)) {
        aigw_usage("--file or --data, not both");
    }

    /* check DIR */

    if (command->handler == aigw_keys_check && line->nwords) {
        if (aigw_has(line, AIGW_OPT_FILE) || aigw_has(line, AIGW_OPT_DATA)) {
            aigw_usage("a directory, or --file or --data, not both");
        }

        line->args = aigw_realloc(line->args, (line->nargs + 1)
                                              * sizeof(aigw_arg_t));
        line->args[line->nargs].opt = AIGW_OPT_DATA;
        line->args[line->nargs].value = line->words[0];
        line->nargs++;
        line->seen |= aigw_bit(AIGW_OPT_DATA);
    }
}


static void
aigw_help(void)
{
    puts("Usage: aigw keys COMMAND [options]\n"
         "       aigw prices COMMAND [options]\n"
         "       aigw switch COMMAND [options]\n"
         "       aigw check [DIR]\n"
         "\n"
         "Manages the files of live data of the nginx AI gateway.\n"
         "\n"
         "  aigw keys --help            commands for keys\n"
         "  aigw keys COMMAND --help    options of a command\n"
         "  aigw prices --help          commands for prices\n"
         "  aigw switch --help          commands for switches\n"
         "  aigw --version              version\n"
         "\n"
         "The files are in the directory of --data, of the environment "
         "variable\n"
         "AIGW_DATA, or in " AIGW_DATA ".  Changes are in force without a "
         "reload.\n"
         "\n"
         "Exit codes: 0 done, 1 failed or not found, 2 wrong command line.");

    aigw_flush();
}


static void
aigw_help_group(aigw_group_t *group)
{
    size_t           i;
    aigw_command_t  *c;

    printf("Usage: aigw %s COMMAND [options]\n\n", group->name);

    for (i = 0; group->commands[i].name; i++) {
        c = &group->commands[i];
        printf("  %-12s%-6s %s\n", c->name, c->args, c->text);
    }

    aigw_flush();
}


static void
aigw_help_command(aigw_group_t *group, aigw_command_t *command)
{
    char    *text;
    size_t   i;

    printf("Usage: aigw %s %s%s%s [options]\n\n  %s\n\n", group->name,
           command->name, command->args[0] ? " " : "", command->args,
           command->text);

    for (i = 0; i < AIGW_OPT_N; i++) {
        if (!(command->options & aigw_bit(i))) {
            continue;
        }

        text = aigw_format("--%s%s%s", aigw_options[i].name,
                           aigw_options[i].arg ? " " : "",
                           aigw_options[i].arg ? aigw_options[i].arg : "");

        printf("  %-25s %s\n", text, aigw_options[i].text);

        free(text);
    }

    aigw_flush();
}
