
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * A file is mapped and walked record by record, and written anew as a copy
 * with one edit, so that a million keys need neither a tree nor memory.  The
 * copy takes the place of the file by rename(): whoever reads it, or stops the
 * program at any moment, has the old content or the new one.
 */


#include "aigw.h"

#include <sys/file.h>
#include <sys/mman.h>
#include <sys/xattr.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>


#define AIGW_LOCK       ".aigw.lock"
#define AIGW_LOCK_WAIT  120
#define AIGW_ACL        "system.posix_acl_access"


static void aigw_file_find(aigw_file_t *f, aigw_line_t *line);
static char *aigw_file_dirname(const char *path);
static void aigw_file_lock(const char *dir);
static void aigw_file_map(aigw_file_t *f);
static void aigw_file_bus(int signo);
static void aigw_file_start(aigw_file_t *f);
static int aigw_file_end(aigw_file_t *f);
static int aigw_file_failed(aigw_file_t *f, u_char *at, const char *text);
static void aigw_file_keep(aigw_file_t *f, int fd, const char *dir);
static void aigw_file_sync(const char *dir);


static char  *aigw_temp;


char *
aigw_file_directory(aigw_line_t *line)
{
    char  *dir;

    if (aigw_has(line, AIGW_OPT_FILE)) {
        return aigw_file_dirname(aigw_value(line, AIGW_OPT_FILE));
    }

    dir = aigw_value(line, AIGW_OPT_DATA);

    if (dir == NULL) {
        dir = getenv("AIGW_DATA");
    }

    return aigw_strdup(dir != NULL && *dir ? dir : AIGW_DATA);
}


static char *
aigw_file_dirname(const char *path)
{
    char  *copy, *dir;

    copy = aigw_strdup(path);
    dir = aigw_strdup(dirname(copy));

    free(copy);

    return dir;
}


/* path, real and exists */

static void
aigw_file_find(aigw_file_t *f, aigw_line_t *line)
{
    char         *dir, *lines, *real;
    struct stat   st;

    dir = aigw_file_directory(line);

    if (aigw_has(line, AIGW_OPT_FILE) && strcmp(f->name, "keys") == 0) {
        f->path = aigw_strdup(aigw_value(line, AIGW_OPT_FILE));
        f->exists = (stat(f->path, &st) == 0);

        if (!f->exists && errno != ENOENT) {
            aigw_fail("%s: %s", f->path, strerror(errno));
        }

    } else {
        f->path = aigw_format("%s/%s.json", dir, f->name);
        lines = aigw_format("%s/%s.jsonl", dir, f->name);

        f->exists = (stat(f->path, &st) == 0);

        if (!f->exists && errno != ENOENT) {
            aigw_fail("%s: %s", f->path, strerror(errno));
        }

        if (stat(lines, &st) != 0) {
            if (errno != ENOENT) {
                aigw_fail("%s: %s", lines, strerror(errno));
            }

            if (!f->exists && lstat(f->path, &st) != 0) {
                free(f->path);
                f->path = lines;
            }

        } else if (f->exists) {
            aigw_fail("there are %s and %s, remove one", f->path, lines);

        } else {
            f->exists = 1;
            free(f->path);
            f->path = lines;
        }
    }

    if (f->exists) {
        f->real = realpath(f->path, NULL);

        if (f->real == NULL) {
            aigw_fail("%s: %s", f->path, strerror(errno));
        }

    } else {
        if (lstat(f->path, &st) == 0) {
            aigw_fail("%s is a symbolic link to a file that is not there",
                      f->path);
        }

        real = realpath(dir, NULL);

        if (real == NULL) {
            aigw_fail("directory %s: %s", dir, strerror(errno));
        }

        free(dir);
        dir = aigw_strdup(f->path);
        f->real = aigw_format("%s/%s", real, basename(dir));
        free(real);
    }

    free(dir);
}


void
aigw_file_open(aigw_file_t *f, const char *name, aigw_line_t *line, int write)
{
    int    i;
    char  *dir, *again;

    memset(f, 0, sizeof(aigw_file_t));

    f->name = name;
    aigw_file_find(f, line);

    /* a link may have been turned to elsewhere while the lock was awaited */

    for (i = 0; write; i++) {
        dir = aigw_file_dirname(f->real);
        aigw_file_lock(dir);

        aigw_file_find(f, line);
        again = aigw_file_dirname(f->real);

        if (strcmp(dir, again) == 0) {
            break;
        }

        if (i == 8) {
            aigw_fail("%s is moved again and again", f->path);
        }
    }

    if (f->exists) {
        aigw_file_map(f);
    }

    aigw_file_rewind(f);
}


/* the lock is held until the end of the process */

static void
aigw_file_lock(const char *dir)
{
    int           fd, i;
    char         *path;
    struct stat   st;

    static struct stat  locked[32];
    static int          nlocked;

    path = aigw_format("%s/%s", dir, AIGW_LOCK);

    fd = open(path, O_RDWR|O_CREAT|O_CLOEXEC|O_NOFOLLOW|O_NONBLOCK, 0600);

    if (fd == -1 || fstat(fd, &st) == -1) {
        aigw_fail("cannot open %s: %s", path, strerror(errno));
    }

    for (i = 0; i < nlocked; i++) {
        if (locked[i].st_dev == st.st_dev && locked[i].st_ino == st.st_ino) {
            close(fd);
            free(path);
            return;
        }
    }

    for (i = 0; flock(fd, LOCK_EX|LOCK_NB) == -1; i++) {

        if (errno != EWOULDBLOCK && errno != EINTR) {
            aigw_fail("cannot lock %s: %s", path, strerror(errno));
        }

        if (i == 100) {
            aigw_info("waiting for another aigw that holds %s", path);
        }

        if (i == AIGW_LOCK_WAIT * 50) {
            aigw_fail("%s is locked by another process", path);
        }

        usleep(20000);
    }

    locked[nlocked++] = st;
    free(path);
}


static void
aigw_file_map(aigw_file_t *f)
{
    int  fd;

    fd = open(f->real, O_RDONLY|O_CLOEXEC|O_NONBLOCK);

    if (fd == -1 || fstat(fd, &f->st) == -1) {
        aigw_fail("cannot open %s: %s", f->path, strerror(errno));
    }

    if (!S_ISREG(f->st.st_mode)) {
        aigw_fail("%s is not a regular file", f->path);
    }

    if (f->st.st_size > 0) {
        signal(SIGBUS, aigw_file_bus);

        f->start = mmap(NULL, f->st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);

        if (f->start == MAP_FAILED) {
            aigw_fail("cannot read %s: %s", f->path, strerror(errno));
        }

        madvise(f->start, f->st.st_size, MADV_SEQUENTIAL);
        f->last = f->start + f->st.st_size;
    }

    close(fd);
}


/* the file was cut by another program while it was read */

static void
aigw_file_bus(int signo)
{
    static const char  text[] = "aigw: a file was changed while it was read\n";

    (void) !write(STDERR_FILENO, text, sizeof(text) - 1);

    if (aigw_temp) {
        (void) unlink(aigw_temp);
    }

    _exit(AIGW_FAILED);
}


void
aigw_file_rewind(aigw_file_t *f)
{
    f->p = NULL;
    f->open = NULL;
    f->close = NULL;
    f->gap = NULL;
    f->records = 0;
    f->record.data = NULL;
    f->record.len = 0;
    f->line_at = f->start;
    f->line = 1;
}


int
aigw_file_lines(aigw_file_t *f)
{
    size_t  len;

    len = strlen(f->real);

    return len < 5 || strcmp(f->real + len - 5, ".json") != 0;
}


static void
aigw_file_start(aigw_file_t *f)
{
    u_char  *p, *last;
    size_t   len;

    f->form = AIGW_LINES;

    p = f->start;
    last = f->last;

    if (last - p >= 3 && memcmp(p, "\xef\xbb\xbf", 3) == 0) {
        p += 3;
    }

    f->p = p;

    p = aigw_json_space(p, last);

    if (p == last) {
        return;
    }

    if (*p == '[') {
        f->form = AIGW_ARRAY;
        f->open = p + 1;
        f->p = p + 1;
        return;
    }

    if (*p != '{') {
        return;
    }

    /* { "keys": [ */

    len = strlen(f->name);
    p = aigw_json_space(p + 1, last);

    if ((size_t) (last - p) < len + 2 || *p != '"'
        || memcmp(p + 1, f->name, len) != 0 || p[len + 1] != '"')
    {
        return;
    }

    p = aigw_json_space(p + len + 2, last);

    if (p == last || *p != ':') {
        return;
    }

    p = aigw_json_space(p + 1, last);

    if (p < last && *p == '[') {
        f->form = AIGW_OBJECT;
        f->open = p + 1;
        f->p = p + 1;
    }
}


static int
aigw_file_failed(aigw_file_t *f, u_char *at, const char *text)
{
    f->error.at = at;
    f->error.text = text;

    return AIGW_ERROR;
}


int
aigw_file_next(aigw_file_t *f)
{
    u_char  *p, *end;

    if (f->p == NULL) {
        if (f->start == f->last) {
            return AIGW_DONE;
        }

        aigw_file_start(f);
    }

    p = aigw_json_space(f->p, f->last);

    if (f->form == AIGW_LINES) {
        if (p == f->last) {
            return AIGW_DONE;
        }

    } else {
        if (f->close) {
            return AIGW_DONE;
        }

        if (p == f->last) {
            return aigw_file_failed(f, p, "unexpected end of data");
        }

        if (*p == ']' && f->records == 0) {
            f->close = p;
            return aigw_file_end(f);
        }

        if (f->records) {
            if (*p == ']') {
                f->close = p;
                return aigw_file_end(f);
            }

            if (*p != ',') {
                return aigw_file_failed(f, p, "expected \",\" or \"]\"");
            }

            f->p = p + 1;
            p = aigw_json_space(f->p, f->last);

            if (p == f->last) {
                return aigw_file_failed(f, p, "unexpected end of data");
            }
        }
    }

    if (*p != '{') {
        return aigw_file_failed(f, p, "a record is an object, "
                                      "expected \"{\"");
    }

    f->gap = f->p;

    end = aigw_json_skip(p, f->last, &f->error);

    if (end == NULL) {
        if (f->error.at == f->last) {
            f->cut = 1;
            return aigw_file_failed(f, p, "unexpected end of the file in a "
                                          "record");
        }

        return AIGW_ERROR;
    }

    if (end - p > AIGW_RECORD_MAX) {
        return aigw_file_failed(f, p, "the record is too large");
    }

    f->p = end;
    f->record.data = p;
    f->record.len = end - p;
    f->records++;

    return AIGW_OK;
}


static int
aigw_file_end(aigw_file_t *f)
{
    u_char  *p;

    p = aigw_json_space(f->close + 1, f->last);

    if (f->form == AIGW_OBJECT) {
        if (p == f->last) {
            return aigw_file_failed(f, p, "unexpected end of data");
        }

        if (*p == ',') {
            return aigw_file_failed(f, p, "an object with records has no "
                                          "other members, expected \"}\"");
        }

        if (*p != '}') {
            return aigw_file_failed(f, p, "expected \"}\"");
        }

        p = aigw_json_space(p + 1, f->last);
    }

    if (p != f->last) {
        return aigw_file_failed(f, p, "unexpected data after the end");
    }

    return AIGW_DONE;
}


int
aigw_file_walk(aigw_file_t *f)
{
    int  rc;

    rc = aigw_file_next(f);

    if (rc == AIGW_ERROR) {
        aigw_fail("%s:%zu: %s", f->path, aigw_file_line(f, f->error.at),
                  f->error.text);
    }

    return rc == AIGW_OK;
}


size_t
aigw_file_line(aigw_file_t *f, u_char *at)
{
    u_char  *p;

    if (at == NULL || at < f->line_at) {
        f->line_at = f->start;
        f->line = 1;
    }

    while (f->line_at < at) {
        p = memchr(f->line_at, '\n', at - f->line_at);

        if (p == NULL) {
            break;
        }

        f->line++;
        f->line_at = p + 1;
    }

    return f->line;
}


aigw_edit_t
aigw_file_append(aigw_file_t *f, aigw_str_t *record)
{
    u_char       *p;
    aigw_buf_t    b;
    aigw_edit_t   edit;

    memset(&b, 0, sizeof(aigw_buf_t));

    if (f->form == AIGW_LINES) {
        edit.start = f->last;
        edit.end = f->last;

        if (f->start != f->last && f->last[-1] != '\n') {
            aigw_buf_text(&b, "\n");
        }

        aigw_buf_add(&b, record->data, record->len);
        aigw_buf_text(&b, "\n");

    } else if (f->records == 0) {
        edit.start = f->open;
        edit.end = f->close;

        aigw_buf_text(&b, "\n");
        aigw_buf_add(&b, record->data, record->len);
        aigw_buf_text(&b, "\n");

    } else {
        p = f->record.data + f->record.len;
        edit.start = p;
        edit.end = p;

        aigw_buf_text(&b, ",");
        aigw_buf_add(&b, f->gap, f->record.data - f->gap);
        aigw_buf_add(&b, record->data, record->len);
    }

    edit.text.data = b.data;
    edit.text.len = b.len;

    return edit;
}


void
aigw_file_write(aigw_file_t *f, aigw_edit_t *edit)
{
    int           fd;
    char         *dir, *base, *copy;
    struct stat   st;

    dir = aigw_file_dirname(f->real);
    copy = aigw_strdup(f->real);
    base = basename(copy);

    /* what a killed process has left; the lock is ours */

    aigw_temp = aigw_format("%s/.%s.aigw", dir, base);
    (void) unlink(aigw_temp);

    fd = open(aigw_temp, O_WRONLY|O_CREAT|O_EXCL|O_CLOEXEC|O_NOFOLLOW, 0600);

    if (fd == -1) {
        copy = aigw_temp;
        aigw_temp = NULL;
        aigw_fail("cannot create %s: %s", copy, strerror(errno));
    }

    aigw_file_keep(f, fd, dir);

    if (aigw_write(fd, f->start, edit->start - f->start) != AIGW_OK
        || aigw_write(fd, edit->text.data, edit->text.len) != AIGW_OK
        || aigw_write(fd, edit->end, f->last - edit->end) != AIGW_OK
        || fsync(fd) == -1
        || close(fd) == -1)
    {
        aigw_fail("cannot write %s: %s", aigw_temp, strerror(errno));
    }

    /* editors know nothing of the lock */

    if (stat(f->real, &st) == 0
        ? (!f->exists || st.st_dev != f->st.st_dev
           || st.st_ino != f->st.st_ino || st.st_size != f->st.st_size
           || st.st_mtim.tv_sec != f->st.st_mtim.tv_sec
           || st.st_mtim.tv_nsec != f->st.st_mtim.tv_nsec)
        : f->exists)
    {
        aigw_fail("%s was changed by another program meanwhile, nothing was "
                  "written, try again", f->path);
    }

    if (rename(aigw_temp, f->real) == -1) {
        aigw_fail("cannot rename %s to %s: %s", aigw_temp, f->real,
                  strerror(errno));
    }

    free(aigw_temp);
    aigw_temp = NULL;

    aigw_file_sync(dir);

    free(dir);
    free(copy);
}


/* who could read the file still can */

static void
aigw_file_keep(aigw_file_t *f, int fd, const char *dir)
{
    char         acl[4096];
    ssize_t      n;
    struct stat  st, own;

    if (fstat(fd, &own) == -1) {
        aigw_fail("%s: %s", aigw_temp, strerror(errno));
    }

    if (!f->exists) {

        /* of root's files nginx's workers could read nothing otherwise */

        if (geteuid() == 0 && stat(dir, &st) == 0 && st.st_gid != own.st_gid
            && fchown(fd, (uid_t) -1, st.st_gid) == -1)
        {
            aigw_warn("cannot set the group of %s: %s", f->path,
                      strerror(errno));
        }

        if (fchmod(fd, 0640) == -1) {
            aigw_fail("%s: %s", aigw_temp, strerror(errno));
        }

        return;
    }

    if ((own.st_uid != f->st.st_uid || own.st_gid != f->st.st_gid)
        && fchown(fd, f->st.st_uid, f->st.st_gid) == -1)
    {
        aigw_fail("cannot keep the owner of %s: %s", f->path,
                  strerror(errno));
    }

    if (fchmod(fd, f->st.st_mode & 07777) == -1) {
        aigw_fail("cannot keep the mode of %s: %s", f->path,
                  strerror(errno));
    }

    n = getxattr(f->real, AIGW_ACL, acl, sizeof(acl));

    if (n > 0 && fsetxattr(fd, AIGW_ACL, acl, n, 0) == -1) {
        aigw_fail("cannot keep the ACL of %s: %s", f->path, strerror(errno));
    }
}


static void
aigw_file_sync(const char *dir)
{
    int  fd;

    fd = open(dir, O_RDONLY|O_DIRECTORY|O_CLOEXEC);

    /* not every file system can do it */

    if (fd == -1 || (fsync(fd) == -1 && errno != EINVAL && errno != EROFS)) {
        aigw_warn("fsync of directory %s: %s, the change is made but may not "
                  "survive a crash", dir, strerror(errno));
    }

    if (fd != -1) {
        close(fd);
    }
}


void
aigw_file_cleanup(void)
{
    if (aigw_temp) {
        (void) unlink(aigw_temp);
        aigw_temp = NULL;
    }
}
