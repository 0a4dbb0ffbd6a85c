
/*
 * Copyright (C) nginx AI gateway authors
 */


#ifndef _TEST_H_INCLUDED_
#define _TEST_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "stub.h"


static ngx_uint_t  test_count;
static ngx_uint_t  test_failed;


#define test_unused  __attribute__((unused))


/* one line of TAP */

__attribute__((format(printf, 2, 3)))
test_unused
static int
ok(int good, const char *fmt, ...)
{
    char      name[256], *p;
    va_list   args;

    va_start(args, fmt);
    vsnprintf(name, sizeof(name), fmt, args);
    va_end(args);

    /* nothing in a name may look like a directive or a line */

    for (p = name; *p; p++) {
        if ((u_char) *p < ' ' || *p == '#') {
            *p = '.';
        }
    }

    printf("%sok %u - %s\n", good ? "" : "not ", (unsigned) ++test_count,
           name);
    fflush(stdout);

    if (!good) {
        test_failed++;
    }

    return good;
}


__attribute__((format(printf, 1, 2)))
test_unused
static void
skip(const char *fmt, ...)
{
    va_list  args;

    printf("ok %u # SKIP ", (unsigned) ++test_count);

    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);

    printf("\n");
}


__attribute__((format(printf, 1, 2)))
test_unused
static void
diag(const char *fmt, ...)
{
    va_list  args;

    printf("# ");

    va_start(args, fmt);
    vprintf(fmt, args);
    va_end(args);

    printf("\n");
}


test_unused
static int
is_int(int64_t got, int64_t expected, const char *name)
{
    int  good;

    good = ok(got == expected, "%s", name);

    if (!good) {
        diag("got %lld, expected %lld", (long long) got,
             (long long) expected);
    }

    return good;
}


test_unused
static int
is_mem(const void *got, size_t len, const char *expected, size_t elen,
    const char *name)
{
    int  good;

    good = ok(len == elen && (len == 0 || memcmp(got, expected, len) == 0),
              "%s", name);

    if (!good) {
        diag("got \"%.*s\", expected \"%.*s\"", (int) len,
             (const char *) got, (int) elen, expected);
    }

    return good;
}


#define is_str(s, expected, name)                                             \
    is_mem((s)->data, (s)->len, expected, strlen(expected), name)


test_unused
static int
done_testing(void)
{
    printf("1..%u\n", (unsigned) test_count);

    return test_failed ? 1 : 0;
}


/* a copy of exactly this size, so that a byte beyond it is noticed */

test_unused
static u_char *
test_copy(const void *data, size_t len)
{
    u_char  *p;

    p = malloc(len ? len : 1);

    if (p == NULL) {
        abort();
    }

    if (len) {
        memcpy(p, data, len);
    }

    return p;
}


/* the directory of recordings, or NULL */

test_unused
static const char *
test_fixtures(void)
{
    size_t               i;
    char                *env;
    struct stat          st;
    static const char   *dirs[] = { "../../../shared/fixtures",
                                    "../shared/fixtures", NULL };

    env = getenv("AI_FIXTURES");

    if (env && *env) {
        return (stat(env, &st) == 0) ? env : NULL;
    }

    for (i = 0; dirs[i]; i++) {
        if (stat(dirs[i], &st) == 0) {
            return dirs[i];
        }
    }

    return NULL;
}


/* a whole file of the recordings, malloc()ed, or NULL */

test_unused
static u_char *
test_read(const char *name, size_t *len)
{
    FILE        *f;
    u_char      *p;
    char         path[4096];
    const char  *dir;
    struct stat  st;

    dir = test_fixtures();

    if (dir == NULL) {
        return NULL;
    }

    if ((size_t) snprintf(path, sizeof(path), "%s/%s", dir, name)
        >= sizeof(path))
    {
        return NULL;
    }

    f = fopen(path, "rb");

    if (f == NULL) {
        return NULL;
    }

    if (fstat(fileno(f), &st) != 0) {
        fclose(f);
        return NULL;
    }

    p = malloc(st.st_size + 1);

    if (p == NULL) {
        abort();
    }

    *len = fread(p, 1, st.st_size, f);

    fclose(f);

    return p;
}


#endif /* _TEST_H_INCLUDED_ */
