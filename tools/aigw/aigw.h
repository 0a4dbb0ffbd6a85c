
/*
 * Copyright (C) nginx AI gateway authors
 */


#ifndef _AIGW_H_INCLUDED_
#define _AIGW_H_INCLUDED_


#include <sys/types.h>
#include <sys/stat.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cjson/cJSON.h>

#include "ngx_http_ai_auth_key.h"
#include "ngx_http_ai_quantity.h"


#define AIGW_OK            0
#define AIGW_ERROR        -1
#define AIGW_DONE         -4
#define AIGW_DECLINED     -5

/* exit codes */
#define AIGW_FAILED        1
#define AIGW_USAGE         2

/* limits of nginx's reader */
#define AIGW_RECORD_MAX    (256 * 1024)
#define AIGW_DEPTH_MAX     128
#define AIGW_HASHES_MAX    16

/* of ai_key_secret */
#define AIGW_SECRET_MIN    16
#define AIGW_SECRET_MAX    16384

#define AIGW_DATA          "/etc/nginx/ai"


typedef struct {
    size_t               len;
    u_char              *data;
} aigw_str_t;


typedef struct {
    u_char              *data;
    size_t               len;
    size_t               size;
} aigw_buf_t;


/*
 * Command line
 */

typedef enum {
    AIGW_OPT_FILE = 0,
    AIGW_OPT_DATA,
    AIGW_OPT_ID,
    AIGW_OPT_TENANT,
    AIGW_OPT_USER,
    AIGW_OPT_TEAM,
    AIGW_OPT_PLAN,
    AIGW_OPT_SCOPE,
    AIGW_OPT_MODEL,
    AIGW_OPT_DENY,
    AIGW_OPT_PROVIDER,
    AIGW_OPT_ENDPOINT,
    AIGW_OPT_LIMIT,
    AIGW_OPT_QUOTA,
    AIGW_OPT_META,
    AIGW_OPT_IDENTITY,
    AIGW_OPT_NAME,
    AIGW_OPT_COMMENT,
    AIGW_OPT_NOT_BEFORE,
    AIGW_OPT_EXPIRES,
    AIGW_OPT_ENV,
    AIGW_OPT_NO_KEY,
    AIGW_OPT_DISABLED,
    AIGW_OPT_CLEAR,
    AIGW_OPT_GRACE,
    AIGW_OPT_HASH,
    AIGW_OPT_FOREIGN,
    AIGW_OPT_UNTIL,
    AIGW_OPT_UNREVOKE,
    AIGW_OPT_STATE,
    AIGW_OPT_SECRET_FILE,
    AIGW_OPT_SECRET_ENV,
    AIGW_OPT_PROVIDER_MAP,
    AIGW_OPT_TEXT,
    AIGW_OPT_STATUS,
    AIGW_OPT_KEY,
    AIGW_OPT_RAISE,
    AIGW_OPT_JSON,
    AIGW_OPT_QUIET,
    AIGW_OPT_HELP,
    AIGW_OPT_VERSION,
    AIGW_OPT_N
} aigw_opt_e;


typedef struct {
    aigw_opt_e           opt;
    char                *value;
} aigw_arg_t;


typedef struct {
    aigw_arg_t          *args;
    size_t               nargs;
    char               **words;        /* that are no options */
    size_t               nwords;
    uint64_t             seen;
} aigw_line_t;


typedef struct {
    const char          *name;
    int                (*handler)(aigw_line_t *line);
    uint64_t             options;
    size_t               min;          /* number of words */
    size_t               max;
    const char          *args;
    const char          *text;
} aigw_command_t;


#define aigw_bit(opt)         ((uint64_t) 1 << (opt))
#define aigw_has(line, opt)   (((line)->seen & aigw_bit(opt)) != 0)

/* the value of an option that may be given once; NULL: it was not */
char *aigw_value(aigw_line_t *line, aigw_opt_e opt);
const char *aigw_opt_name(aigw_opt_e opt);


/*
 * aigw_util.c
 */

void aigw_usage(const char *fmt, ...)
    __attribute__((noreturn, format(printf, 1, 2)));
void aigw_fail(const char *fmt, ...)
    __attribute__((noreturn, format(printf, 1, 2)));
void aigw_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void aigw_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void aigw_quiet(void);

void *aigw_alloc(size_t size);
void *aigw_realloc(void *p, size_t size);
char *aigw_strdup(const char *s);
char *aigw_format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

void aigw_buf_add(aigw_buf_t *b, const void *data, size_t len);
void aigw_buf_text(aigw_buf_t *b, const char *text);

/* text of a file for a terminal: control characters are shown, not sent */
char *aigw_shown(const char *text);

/* writes all of it to a descriptor, past the buffers of stdio */
int aigw_write(int fd, const void *data, size_t len);

/* ends the output of stdio; fails when not all of it could be written */
void aigw_flush(void);

/* the name that is near to another one, or NULL */
const char *aigw_near(const char *name, const char *const *names);
char *aigw_near_text(const char *name, const char *const *names);

int aigw_utf8(const u_char *p, const u_char *last);

/* "1d12h" to seconds; AIGW_ERROR: not of this form */
int aigw_duration(const char *text, time_t *seconds);

/* RFC 3339 */
int aigw_time_parse(const char *text, time_t *t);
char *aigw_time_text(time_t t);

/* value of an option that is a time or a duration from now; exits on errors */
time_t aigw_time_option(aigw_opt_e opt, const char *text, time_t now);


/*
 * aigw_json.c: the text of JSON, so that what is not changed stays as it is
 */

typedef struct {
    const char          *text;
    u_char              *at;
    int                  strict;       /* set by the caller: texts are UTF-8,
                                          and have no null character */
} aigw_json_error_t;


typedef struct {
    aigw_str_t           name;         /* with quotes */
    aigw_str_t           value;
} aigw_member_t;


u_char *aigw_json_space(u_char *p, u_char *last);

/* checks one value; its end, or NULL with *e */
u_char *aigw_json_skip(u_char *p, u_char *last, aigw_json_error_t *e);

/* members of an object that was checked, until the handler returns not 0 */
int aigw_json_member(aigw_str_t *object, const char *name,
    aigw_member_t *member);

/* the next item of an array, *p is behind the "[" at first */
int aigw_json_item(u_char **p, u_char *last, aigw_str_t *item);

/* copies of the object with a member set (value is JSON) or removed */
aigw_str_t aigw_json_set(aigw_str_t *object, const char *name,
    const char *value);
aigw_str_t aigw_json_remove(aigw_str_t *object, const char *name);

/* the text without white space between the tokens */
void aigw_json_minify(aigw_buf_t *b, aigw_str_t *text);

/* is the text a string with this value? */
int aigw_json_is(aigw_str_t *value, const char *text);

char *aigw_json_text(cJSON *json);


/*
 * aigw_file.c: a dataset in a file
 */

typedef enum {
    AIGW_LINES = 0,
    AIGW_ARRAY,
    AIGW_OBJECT
} aigw_form_e;


typedef struct {
    const char          *name;         /* "keys" */
    char                *path;         /* for messages */
    char                *real;         /* symbolic links resolved */
    struct stat          st;
    int                  exists;
    aigw_form_e          form;
    u_char              *start;
    u_char              *last;

    /* of the walk */
    u_char              *p;
    u_char              *open;         /* behind the "[" */
    u_char              *close;        /* the "]", when it was reached */
    u_char              *gap;          /* white space before the last one */
    aigw_str_t           record;
    size_t               records;
    aigw_json_error_t    error;
    int                  cut;          /* the file ends within a record */

    /* for line numbers */
    u_char              *line_at;
    size_t               line;
} aigw_file_t;


typedef struct {
    u_char              *start;
    u_char              *end;
    aigw_str_t           text;
} aigw_edit_t;


/* opens keys.* or revoked.* of --file or --data for reading; for writing with
 * the lock of its directory; exits on errors */
void aigw_file_open(aigw_file_t *f, const char *name, aigw_line_t *line,
    int write);

/* where the files are */
char *aigw_file_directory(aigw_line_t *line);

/* the next record: AIGW_OK, AIGW_DONE, AIGW_ERROR with f->error */
int aigw_file_next(aigw_file_t *f);
void aigw_file_rewind(aigw_file_t *f);

/* the same, exits on errors */
int aigw_file_walk(aigw_file_t *f);

size_t aigw_file_line(aigw_file_t *f, u_char *at);

/* may the file be empty, as one of JSON Lines? */
int aigw_file_lines(aigw_file_t *f);

/* the edit that adds a record to a file that was walked to its end */
aigw_edit_t aigw_file_append(aigw_file_t *f, aigw_str_t *record);

/* replaces the file; exits on errors, the old one is then as it was */
void aigw_file_write(aigw_file_t *f, aigw_edit_t *edit);

void aigw_file_cleanup(void);


/*
 * aigw_record.c: what is in records
 */

typedef enum {
    AIGW_ACTIVE = 0,
    AIGW_PENDING,
    AIGW_EXPIRED,
    AIGW_DISABLED,
    AIGW_REVOKED
} aigw_state_e;


typedef struct {
    const char          *text;
    time_t               not_before;
    time_t               expires;      /* 0: never */
    int                  disabled;
} aigw_hash_t;


typedef struct {
    cJSON               *json;
    const char          *id;           /* NULL: none, bad */
    aigw_hash_t         *hashes;
    size_t               nhashes;
    time_t               not_before;
    time_t               expires;
    int                  disabled;
    char                *error;        /* NULL: the record is good */
} aigw_record_t;


typedef struct {
    char                 kind;         /* 'k'ey, 'j'ti or 's'ub */
    const char          *value;
    const char          *issuer;       /* or NULL */
    const char          *key;          /* or NULL */
    time_t               until;        /* 0: forever */
    cJSON               *json;
    char                *error;
} aigw_entry_t;


typedef struct {
    aigw_file_t          file;
    char               **ids;          /* in force, sorted */
    size_t               n;
} aigw_revoked_t;


/* the tree and what it means; r->error when it is bad */
void aigw_record_parse(aigw_record_t *r, aigw_str_t *text);
void aigw_record_free(aigw_record_t *r);

aigw_state_e aigw_record_state(aigw_record_t *r, aigw_revoked_t *revoked,
    time_t now);
aigw_state_e aigw_hash_state(aigw_record_t *r, aigw_hash_t *hash,
    aigw_revoked_t *revoked, time_t now);
const char *aigw_state_name(aigw_state_e state);
const char *const *aigw_state_names(void);

const char *aigw_id_error(const char *id);
int aigw_hash_valid(const char *text);

extern const char *const  aigw_endpoints[];

void aigw_entry_parse(aigw_entry_t *e, aigw_str_t *text);
void aigw_entry_free(aigw_entry_t *e);

/* the list of revoked keys; exits when it cannot be read */
void aigw_revoked_read(aigw_revoked_t *revoked, aigw_line_t *line, int write);
int aigw_revoked_has(aigw_revoked_t *revoked, const char *id);

/* does the record have this id? */
int aigw_record_is(aigw_str_t *record, const char *id);


/*
 * aigw_secret.c: keys, which are wiped from memory on exit
 */

typedef struct {
    u_char               key[NGX_HTTP_AI_KEY_TEXT_MAX + 2];
    size_t               len;
    u_char               hmac[AIGW_SECRET_MAX + 1];
    size_t               hmac_len;
} aigw_secret_t;


extern aigw_secret_t  aigw_secret;


int aigw_secret_env(const char *env);

/* 8 random characters, and the null */
void aigw_secret_id(char *id);

void aigw_secret_create(const char *env, const char *id);

/* one line of the standard input */
void aigw_secret_read(void);

/* the secret of ai_key_secret, if an option names it */
void aigw_secret_hmac(aigw_line_t *line);

/* "sha256:..." or "hmac-sha256:..." of the key */
char *aigw_secret_hash(int hmac);

/* writes the key to the standard output: alone, or in an object with the
 * members */
int aigw_secret_show(int json, const char *members);

void aigw_secret_wipe(void);


/*
 * aigw_change.c: changes of one record
 */

typedef struct {
    aigw_str_t           record;
    u_char              *before;       /* end of the one before, or NULL */
    u_char              *after;        /* start of the one behind, or NULL */
} aigw_found_t;


/* the next record of a file: is it the one that is looked for? */
void aigw_found_add(aigw_found_t *found, aigw_str_t *record, int is);

/* the good record of the command's first word, for writing */
void aigw_record_find(aigw_file_t *f, aigw_found_t *found, aigw_line_t *line,
    aigw_record_t *r);

/* checks the new text of the record and writes the file */
void aigw_record_replace(aigw_file_t *f, aigw_found_t *found,
    aigw_str_t *text);

/* says what has happened to the record of the first word */
int aigw_done(aigw_line_t *line, aigw_file_t *f, const char *state);


/* the edit that takes the record out of the file */
aigw_edit_t aigw_record_cut(aigw_file_t *f, aigw_found_t *found);


/*
 * aigw_create.c
 */

int aigw_mentions(aigw_str_t *record, const char **names, size_t n);

/* behind the "sha256:" */
const char *aigw_digest(const char *hash);

/* the hash as it may also be in a file, with digits above 9 in upper case */
char *aigw_upper(const char *digest);

/* public part of a key with this id; 0: the id is of another form */
int aigw_public(const char *id, char *public);


/*
 * aigw_prices.c, aigw_switch.c: what is wrong with a record, or NULL
 */

char *aigw_price_error(cJSON *json);
char *aigw_switch_error(cJSON *json);

/* a member that is a string, or NULL */
const char *aigw_price_text(cJSON *json, const char *name);

/* "scope", "name" and "key" of a switch */
char *aigw_switch_name(cJSON *json);


/*
 * aigw_record.c
 */

/* what is wrong with the time of a record, or NULL and *t */
char *aigw_rule_time(cJSON *value, time_t *t);

/* ... with an amount of limits; member and zone are of the message */
char *aigw_rule_amount(const char *member, const char *zone, cJSON *amount,
    const ngx_http_ai_quantity_name_t *names);


/*
 * aigw_check.c
 */

/* warns when a bad record keeps a change from being in force */
void aigw_recheck(aigw_line_t *line);


/*
 * commands
 */

int aigw_keys_create(aigw_line_t *line);
int aigw_keys_import(aigw_line_t *line);
int aigw_keys_update(aigw_line_t *line);
int aigw_keys_list(aigw_line_t *line);
int aigw_keys_show(aigw_line_t *line);
int aigw_keys_rotate(aigw_line_t *line);
int aigw_keys_disable(aigw_line_t *line);
int aigw_keys_enable(aigw_line_t *line);
int aigw_keys_revoke(aigw_line_t *line);
int aigw_keys_delete(aigw_line_t *line);
int aigw_keys_verify(aigw_line_t *line);
int aigw_keys_check(aigw_line_t *line);

int aigw_prices_import(aigw_line_t *line);
int aigw_prices_list(aigw_line_t *line);
int aigw_prices_show(aigw_line_t *line);
int aigw_prices_check(aigw_line_t *line);

int aigw_switch_on(aigw_line_t *line);
int aigw_switch_off(aigw_line_t *line);
int aigw_switch_list(aigw_line_t *line);


#endif /* _AIGW_H_INCLUDED_ */
