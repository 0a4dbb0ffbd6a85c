
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "aigw.h"


#define AIGW_NEAR_MAX  64


static void aigw_message(const char *level, const char *fmt, va_list args);
static void aigw_no_memory(void) __attribute__((noreturn));
static size_t aigw_distance(const char *a, const char *b);
static int aigw_digits(const char **p, int n, int *value);
static int aigw_month_days(int year, int month);


static int  aigw_is_quiet;


void
aigw_usage(const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    aigw_message("", fmt, args);
    va_end(args);

    fprintf(stderr, "Try \"aigw --help\".\n");

    exit(AIGW_USAGE);
}


void
aigw_fail(const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    aigw_message("", fmt, args);
    va_end(args);

    aigw_file_cleanup();

    exit(AIGW_FAILED);
}


void
aigw_warn(const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    aigw_message("warning: ", fmt, args);
    va_end(args);
}


void
aigw_info(const char *fmt, ...)
{
    va_list  args;

    if (aigw_is_quiet) {
        return;
    }

    va_start(args, fmt);
    aigw_message("", fmt, args);
    va_end(args);
}


void
aigw_quiet(void)
{
    aigw_is_quiet = 1;
}


static void
aigw_message(const char *level, const char *fmt, va_list args)
{
    char  *text, *shown;

    if (vasprintf(&text, fmt, args) == -1) {
        fprintf(stderr, "aigw: out of memory\n");
        return;
    }

    /* arguments and contents of files may hold anything */

    shown = aigw_shown(text);

    fprintf(stderr, "aigw: %s%s\n", level, shown);

    free(shown);
    free(text);
}


void *
aigw_alloc(size_t size)
{
    return aigw_realloc(NULL, size);
}


void *
aigw_realloc(void *p, size_t size)
{
    p = realloc(p, size ? size : 1);

    if (p == NULL) {
        aigw_no_memory();
    }

    return p;
}


static void
aigw_no_memory(void)
{
    fprintf(stderr, "aigw: out of memory\n");
    aigw_file_cleanup();

    exit(AIGW_FAILED);
}


char *
aigw_strdup(const char *s)
{
    size_t  len;

    len = strlen(s) + 1;

    return memcpy(aigw_alloc(len), s, len);
}


char *
aigw_format(const char *fmt, ...)
{
    char    *text;
    va_list  args;

    va_start(args, fmt);

    if (vasprintf(&text, fmt, args) == -1) {
        text = NULL;
    }

    va_end(args);

    if (text == NULL) {
        aigw_no_memory();
    }

    return text;
}


void
aigw_buf_add(aigw_buf_t *b, const void *data, size_t len)
{
    if (b->size - b->len < len + 1) {
        b->size = (b->len + len + 1) * 2;
        b->data = aigw_realloc(b->data, b->size);
    }

    if (len) {
        memcpy(b->data + b->len, data, len);
        b->len += len;
    }

    b->data[b->len] = '\0';
}


void
aigw_buf_text(aigw_buf_t *b, const char *text)
{
    aigw_buf_add(b, text, strlen(text));
}


char *
aigw_shown(const char *text)
{
    char          *out, *dst;
    const u_char  *p, *last;

    p = (const u_char *) text;
    last = p + strlen(text);

    out = aigw_alloc(4 * strlen(text) + 1);
    dst = out;

    while (p < last) {

        /* C0, DEL, and C1 which is 0xc2 0x80 to 0xc2 0x9f */

        if (*p < ' ' || *p == 0x7f
            || (*p == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f))
        {
            dst += sprintf(dst, "\\x%02x", *p == 0xc2 ? p[1] : *p);
            p += (*p == 0xc2) ? 2 : 1;
            continue;
        }

        *dst++ = (char) *p++;
    }

    *dst = '\0';

    return out;
}


int
aigw_write(int fd, const void *data, size_t len)
{
    ssize_t      n;
    const char  *p;

    for (p = data; len; p += n, len -= n) {
        n = write(fd, p, len);

        if (n == -1) {
            if (errno == EINTR) {
                n = 0;
                continue;
            }

            return AIGW_ERROR;
        }
    }

    return AIGW_OK;
}


void
aigw_flush(void)
{
    if (fflush(stdout) != 0 || ferror(stdout)) {
        aigw_fail("cannot write to the standard output: %s",
                  strerror(errno));
    }
}


/* edits that lead from one to the other; a swap of neighbours is one */

static size_t
aigw_distance(const char *a, const char *b)
{
    size_t  i, j, n, m, d, row[3][AIGW_NEAR_MAX + 1], *cur, *up, *up2;

    n = strlen(a);
    m = strlen(b);

    if (n > AIGW_NEAR_MAX || m > AIGW_NEAR_MAX) {
        return AIGW_NEAR_MAX;
    }

    for (j = 0; j <= m; j++) {
        row[0][j] = j;
    }

    for (i = 1; i <= n; i++) {
        cur = row[i % 3];
        up = row[(i + 2) % 3];
        up2 = row[(i + 1) % 3];

        cur[0] = i;

        for (j = 1; j <= m; j++) {
            d = up[j - 1] + (a[i - 1] != b[j - 1]);

            if (up[j] + 1 < d) {
                d = up[j] + 1;
            }

            if (cur[j - 1] + 1 < d) {
                d = cur[j - 1] + 1;
            }

            if (i > 1 && j > 1 && a[i - 1] == b[j - 2]
                && a[i - 2] == b[j - 1] && up2[j - 2] + 1 < d)
            {
                d = up2[j - 2] + 1;
            }

            cur[j] = d;
        }
    }

    return row[n % 3][m];
}


const char *
aigw_near(const char *name, const char *const *names)
{
    size_t       d, best, len;
    const char  *found;

    len = strlen(name);
    best = len < 4 ? 2 : 1 + len / 3;
    found = NULL;

    for ( /* void */ ; *names; names++) {
        d = aigw_distance(name, *names);

        if (d < best) {
            best = d;
            found = *names;
        }
    }

    return found;
}


char *
aigw_near_text(const char *name, const char *const *names)
{
    const char  *near;

    near = aigw_near(name, names);

    return near ? aigw_format(", did you mean \"%s\"?", near)
                : aigw_strdup("");
}


int
aigw_utf8(const u_char *p, const u_char *last)
{
    size_t    n;
    u_char    ch;
    uint32_t  c, min;

    while (p < last) {
        ch = *p++;

        if (ch < 0x80) {
            continue;
        }

        if (ch >= 0xc2 && ch <= 0xdf) {
            n = 1;
            c = ch & 0x1f;
            min = 0x80;

        } else if (ch >= 0xe0 && ch <= 0xef) {
            n = 2;
            c = ch & 0x0f;
            min = 0x800;

        } else if (ch >= 0xf0 && ch <= 0xf4) {
            n = 3;
            c = ch & 0x07;
            min = 0x10000;

        } else {
            return 0;
        }

        if ((size_t) (last - p) < n) {
            return 0;
        }

        for ( /* void */ ; n; n--) {
            if ((*p & 0xc0) != 0x80) {
                return 0;
            }

            c = c << 6 | (*p++ & 0x3f);
        }

        if (c < min || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) {
            return 0;
        }
    }

    return 1;
}


int
aigw_duration(const char *text, time_t *seconds)
{
    time_t       n, unit, total;
    const char  *p;

    p = text;
    total = 0;

    if (*p == '\0') {
        return AIGW_ERROR;
    }

    if (strcmp(p, "0") == 0) {
        *seconds = 0;
        return AIGW_OK;
    }

    while (*p) {
        if (*p < '0' || *p > '9') {
            return AIGW_ERROR;
        }

        for (n = 0; *p >= '0' && *p <= '9'; p++) {
            n = n * 10 + (*p - '0');

            if (n > 3153600000LL) {
                return AIGW_ERROR;
            }
        }

        switch (*p++) {

        case 's':
            unit = 1;
            break;

        case 'm':
            unit = 60;
            break;

        case 'h':
            unit = 3600;
            break;

        case 'd':
            unit = 86400;
            break;

        case 'w':
            unit = 7 * 86400;
            break;

        case 'M':
            unit = 30 * 86400;
            break;

        case 'y':
            unit = 365 * 86400;
            break;

        default:
            return AIGW_ERROR;
        }

        /* a hundred years are more than anyone means */

        if (n > 3153600000LL / unit) {
            return AIGW_ERROR;
        }

        total += n * unit;

        if (total > 3153600000LL) {
            return AIGW_ERROR;
        }
    }

    *seconds = total;

    return AIGW_OK;
}


static int
aigw_digits(const char **p, int n, int *value)
{
    int  i;

    *value = 0;

    for (i = 0; i < n; i++) {
        if (**p < '0' || **p > '9') {
            return AIGW_ERROR;
        }

        *value = *value * 10 + (*(*p)++ - '0');
    }

    return AIGW_OK;
}


static int
aigw_month_days(int year, int month)
{
    static const int  days[] = { 31, 28, 31, 30, 31, 30,
                                 31, 31, 30, 31, 30, 31 };

    if (month == 2
        && ((year % 4 == 0 && year % 100 != 0) || year % 400 == 0))
    {
        return 29;
    }

    return days[month - 1];
}


int
aigw_time_parse(const char *text, time_t *t)
{
    int          sign, hour, min;
    time_t       zone;
    struct tm    tm;
    const char  *p;

    p = text;
    zone = 0;
    memset(&tm, 0, sizeof(struct tm));

    if (aigw_digits(&p, 4, &tm.tm_year) != AIGW_OK || *p++ != '-'
        || aigw_digits(&p, 2, &tm.tm_mon) != AIGW_OK || *p++ != '-'
        || aigw_digits(&p, 2, &tm.tm_mday) != AIGW_OK
        || (*p != 'T' && *p != 't' && *p != ' ')
        || (p++, aigw_digits(&p, 2, &tm.tm_hour) != AIGW_OK) || *p++ != ':'
        || aigw_digits(&p, 2, &tm.tm_min) != AIGW_OK || *p++ != ':'
        || aigw_digits(&p, 2, &tm.tm_sec) != AIGW_OK)
    {
        return AIGW_ERROR;
    }

    if (tm.tm_year < 1970 || tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1
        || tm.tm_mday > aigw_month_days(tm.tm_year, tm.tm_mon)
        || tm.tm_hour > 23 || tm.tm_min > 59 || tm.tm_sec > 60)
    {
        return AIGW_ERROR;
    }

    if (*p == '.') {
        p++;

        if (*p < '0' || *p > '9') {
            return AIGW_ERROR;
        }

        while (*p >= '0' && *p <= '9') {
            p++;
        }
    }

    if (*p == 'Z' || *p == 'z') {
        p++;

    } else if (*p == '+' || *p == '-') {
        sign = (*p++ == '-') ? 1 : -1;

        if (aigw_digits(&p, 2, &hour) != AIGW_OK || *p++ != ':'
            || aigw_digits(&p, 2, &min) != AIGW_OK || hour > 23 || min > 59)
        {
            return AIGW_ERROR;
        }

        zone = sign * (hour * 3600 + min * 60);

    } else {
        return AIGW_ERROR;
    }

    if (*p != '\0') {
        return AIGW_ERROR;
    }

    tm.tm_year -= 1900;
    tm.tm_mon--;

    *t = timegm(&tm) + zone;

    return AIGW_OK;
}


char *
aigw_time_text(time_t t)
{
    char       text[sizeof("1970-09-28T12:00:00Z") + 16];
    struct tm  tm;

    if (gmtime_r(&t, &tm) == NULL
        || strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
    {
        return aigw_strdup("?");
    }

    return aigw_strdup(text);
}


time_t
aigw_time_option(aigw_opt_e opt, const char *text, time_t now)
{
    time_t  t;

    if (aigw_duration(text, &t) == AIGW_OK) {
        return now + t;
    }

    if (aigw_time_parse(text, &t) == AIGW_OK) {
        return t;
    }

    aigw_usage("invalid %s \"%s\", it is a time such as "
               "\"2030-01-31T00:00:00Z\", or one from now such as \"90d\" "
               "(units: s m h d w M y)", aigw_opt_name(opt), text);
}
