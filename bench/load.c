
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Load for bench/run, one thread, HTTP/1.1 to 127.0.0.1, a closed loop: each
 * connection sends its next request when the answer is complete.
 *
 *   load -p PORT -k chat|embed|stream [-m MODEL] [-c CONNECTIONS]
 *        [-d SECONDS] [-r RAMP_MS] [-b PROMPT_BYTES] [-n PIECES] [-a KEY]
 *        [-u] [-H]
 *
 * After -d seconds no request is sent any more, and those that run are waited
 * for.  An answer is good when its status is 200 and all of it has come: the
 * text that mock.c sends is marked with "~", a vector has its commas, a stream
 * its [DONE].  The result is printed as one JSON object.
 *
 * With -u no request is like another: their prompts have different numbers.
 *
 * With -H streams are held: when each has had two pieces, "held" is printed,
 * and at the end of standard input, or after -d seconds, they are cut.
 */


#define _GNU_SOURCE

#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>


#define LOAD_OK        0
#define LOAD_ERROR    -1
#define LOAD_AGAIN    -2

#define LOAD_EVENTS    256
#define LOAD_HEAD      8192
#define LOAD_TAIL      16
#define LOAD_DIGITS    16
#define LOAD_MAX_CONN  10000
#define LOAD_DRAIN     10000000          /* microseconds */
#define LOAD_COMMAS    1536
#define LOAD_MAX_BAD   100


typedef enum {
    LOAD_CHAT = 0,
    LOAD_EMBED,
    LOAD_STREAM
} load_kind_e;


typedef enum {
    load_head = 0,
    load_length,
    load_size,
    load_extension,
    load_data,
    load_data_end,
    load_trailer,
    load_done
} load_state_e;


typedef struct {
    int             fd;
    unsigned        busy:1;
    unsigned        close:1;             /* after the answer */
    unsigned        trailer_line:1;      /* it has something */

    size_t          sent;
    load_state_e    state;
    size_t          head_len;
    uint64_t        rest;                /* of the body, or of a chunk */
    unsigned        status;

    uint64_t        start;
    uint64_t        first;
    size_t          bytes;
    unsigned        marks;
    unsigned        tail_len;
    char            tail[LOAD_TAIL];
    char            head[LOAD_HEAD + 1];
} load_conn_t;


typedef struct {
    uint32_t       *data;
    size_t          n;
    size_t          size;
} load_samples_t;


static uint64_t load_now(void);
static int load_request(int port, size_t prompt);
static int load_open(load_conn_t *c);
static void load_close(load_conn_t *c);
static void load_start(load_conn_t *c);
static void load_count(void);
static void load_send(load_conn_t *c);
static void load_read(load_conn_t *c, int drain);
static int load_parse(load_conn_t *c, char *p, size_t len);
static int load_header(load_conn_t *c, char **pos, char *last);
static int load_body(load_conn_t *c, const char *p, size_t len);
static void load_finish(load_conn_t *c);
static void load_bad(load_conn_t *c, const char *what);
static void load_sample(load_samples_t *s, uint64_t value);
static void load_print_samples(const char *name, load_samples_t *s);
static int load_compare(const void *one, const void *two);
static void load_print(double seconds);


static int                  load_ep;
static int                  load_ended;
static int                  load_hold;
static int                  load_unique;
static char                *load_number;
static int                  load_held;
static load_kind_e          load_kind;
static const char          *load_model = "bench";
static const char          *load_key = "sk-bench-0123456789";
static unsigned             load_pieces = 64;
static char                *load_out;
static size_t               load_out_len;
static struct sockaddr_in   load_addr;
static load_samples_t       load_latency, load_ttft;
static uint64_t             load_ok, load_ok_in_time, load_failed, load_marks;
static char                 load_why[128];
static int                  load_running;


int
main(int argc, char *const *argv)
{
    int                  i, n, o, port, conns, opened, ramp, want;
    double               seconds;
    size_t               prompt;
    uint64_t             begin, now, end, limit;
    load_conn_t         *c, *list;
    struct rlimit        rl;
    struct epoll_event   ev, events[LOAD_EVENTS];

    port = 0;
    conns = 1;
    ramp = 0;
    prompt = 200;
    seconds = 1;

    while ((o = getopt(argc, argv, "p:k:m:c:d:r:b:n:a:uH")) != -1) {
        switch (o) {

        case 'p':
            port = atoi(optarg);
            break;

        case 'k':
            load_kind = (optarg[0] == 'e') ? LOAD_EMBED
                        : (optarg[0] == 's') ? LOAD_STREAM : LOAD_CHAT;
            break;

        case 'm':
            load_model = optarg;
            break;

        case 'c':
            conns = atoi(optarg);
            break;

        case 'd':
            seconds = atof(optarg);
            break;

        case 'r':
            ramp = atoi(optarg);
            break;

        case 'b':
            prompt = strtoul(optarg, NULL, 10);
            break;

        case 'n':
            load_pieces = atoi(optarg);
            break;

        case 'a':
            load_key = optarg;
            break;

        case 'u':
            load_unique = 1;
            break;

        case 'H':
            load_hold = 1;
            break;

        default:
            return 2;
        }
    }

    if (port < 1 || port > 65535 || conns < 1 || conns > LOAD_MAX_CONN
        || seconds <= 0 || seconds > 3600 || ramp < 0
        || (load_unique && prompt < LOAD_DIGITS))
    {
        fprintf(stderr, "load: invalid option\n");
        return 2;
    }

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGPIPE, SIG_IGN);

    if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
        rl.rlim_cur = rl.rlim_max;
        setrlimit(RLIMIT_NOFILE, &rl);
    }

    list = calloc(conns, sizeof(load_conn_t));
    load_ep = epoll_create1(EPOLL_CLOEXEC);

    if (list == NULL || load_ep == -1
        || load_request(port, prompt) != LOAD_OK)
    {
        perror("load");
        return 1;
    }

    if (load_hold) {
        ev.events = EPOLLIN;
        ev.data.ptr = NULL;

        if (epoll_ctl(load_ep, EPOLL_CTL_ADD, STDIN_FILENO, &ev) == -1) {
            perror("load: standard input must be a pipe");
            return 1;
        }
    }

    begin = load_now();
    end = begin + (uint64_t) (seconds * 1000000);
    limit = end + LOAD_DRAIN;
    opened = 0;

    for ( ;; ) {
        now = load_now();

        if (now >= end) {
            load_ended = 1;

            if (load_hold || load_running == 0 || now >= limit) {
                break;
            }
        }

        /* a broken stream is not replaced */

        if (load_hold && load_failed) {
            break;
        }

        want = conns;

        if (ramp && now - begin < (uint64_t) ramp * 1000) {
            want = (now - begin) * conns / ((uint64_t) ramp * 1000) + 1;
        }

        while (opened < want && opened < conns && !load_ended) {
            list[opened].fd = -1;
            load_start(&list[opened++]);
        }

        if (load_hold && load_held == conns) {
            printf("held\n");
            fflush(stdout);
            load_held++;
        }

        n = epoll_wait(load_ep, events, LOAD_EVENTS, opened < conns ? 1 : 20);

        if (n == -1 && errno != EINTR) {
            perror("load: epoll_wait");
            return 1;
        }

        for (i = 0; i < n; i++) {
            c = events[i].data.ptr;

            if (c == NULL) {
                end = 0;
                continue;
            }

            if (events[i].events & EPOLLOUT) {
                load_send(c);
            }

            if (c->fd != -1 && (events[i].events & ~EPOLLOUT)) {
                load_read(c, events[i].events & (EPOLLRDHUP|EPOLLHUP
                                                 |EPOLLERR));
            }
        }

        /* after some failures the result is useless anyway */

        for (i = 0; i < opened && !load_ended && !load_hold; i++) {
            if (list[i].fd == -1 && load_failed < LOAD_MAX_BAD) {
                load_start(&list[i]);
            }
        }
    }

    for (i = 0; i < opened && !load_hold; i++) {
        if (list[i].busy) {
            load_bad(&list[i], "no end of the answer");
        }
    }

    load_print(seconds);

    free(list);

    return load_failed ? 1 : 0;
}


static uint64_t
load_now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}


/* all requests are the same; the prompt is prose with line feeds and quotes */

static int
load_request(int port, size_t prompt)
{
    int     n;
    char   *body, *text;
    size_t  i, len;

    static char  prose[] =
        "The user asked for a short summary of the quarterly report. It says "
        "that\\nrevenue grew by twelve percent, while costs stayed where they "
        "were. The\\nauthors call this \\\"a solid result\\\" and expect the "
        "same for the next year.\\n";

    memset(&load_addr, 0, sizeof(struct sockaddr_in));
    load_addr.sin_family = AF_INET;
    load_addr.sin_port = htons(port);
    load_addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

    text = malloc(prompt + sizeof(prose));
    body = malloc(prompt + 1024);
    load_out = malloc(prompt + strlen(load_key) + 2048);

    if (text == NULL || body == NULL || load_out == NULL) {
        return LOAD_ERROR;
    }

    for (len = 0; len < prompt; len += i) {
        i = sizeof(prose) - 1;
        i = (i < prompt - len) ? i : prompt - len;
        memcpy(text + len, prose, i);
    }

    /* an escape may be cut */

    while (len && text[len - 1] == '\\') {
        text[len - 1] = '.';
    }

    text[len] = '\0';

    if (load_unique) {
        memset(text, '0', LOAD_DIGITS);
    }

    if (load_kind == LOAD_EMBED) {
        n = sprintf(body, "{\"model\":\"%s\",\"input\":\"%s\","
                          "\"encoding_format\":\"float\"}",
                    load_model, text);

    } else {
        n = sprintf(body, "{\"model\":\"%s\",%s\"max_tokens\":256,"
                          "\"temperature\":0.2,\"messages\":["
                          "{\"role\":\"system\",\"content\":"
                          "\"You are a helpful assistant.\"},"
                          "{\"role\":\"user\",\"content\":\"%s\"}]}",
                    load_model,
                    load_kind == LOAD_STREAM ? "\"stream\":true," : "", text);
    }

    load_out_len = sprintf(load_out,
                           "POST /v1/%s HTTP/1.1\r\n"
                           "Host: 127.0.0.1:%d\r\n"
                           "Authorization: Bearer %s\r\n"
                           "Content-Type: application/json\r\n"
                           "Accept: application/json\r\n"
                           "User-Agent: bench\r\n"
                           "Content-Length: %d\r\n"
                           "\r\n%s",
                           load_kind == LOAD_EMBED ? "embeddings"
                                                   : "chat/completions",
                           port, load_key, n, body);
    if (load_unique) {
        load_number = strstr(load_out, "0000000000000000");
    }

    free(text);
    free(body);

    return LOAD_OK;
}


static int
load_open(load_conn_t *c)
{
    int                  on;
    struct epoll_event   ev;

    c->fd = socket(AF_INET, SOCK_STREAM|SOCK_NONBLOCK|SOCK_CLOEXEC, 0);
    if (c->fd == -1) {
        return LOAD_ERROR;
    }

    on = 1;
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(int));

    ev.events = EPOLLIN|EPOLLOUT|EPOLLRDHUP|EPOLLET;
    ev.data.ptr = c;

    if ((connect(c->fd, (struct sockaddr *) &load_addr,
                 sizeof(struct sockaddr_in))
         == -1 && errno != EINPROGRESS)
        || epoll_ctl(load_ep, EPOLL_CTL_ADD, c->fd, &ev) == -1)
    {
        close(c->fd);
        c->fd = -1;
        return LOAD_ERROR;
    }

    return LOAD_OK;
}


static void
load_close(load_conn_t *c)
{
    if (c->fd != -1) {
        close(c->fd);
        c->fd = -1;
    }
}


static void
load_start(load_conn_t *c)
{
    c->busy = 1;
    c->close = 0;
    c->sent = 0;
    c->state = load_head;
    c->head_len = 0;
    c->first = 0;
    c->bytes = 0;
    c->marks = 0;
    c->tail_len = 0;
    c->start = load_now();

    load_running++;

    if (load_unique) {
        load_count();
    }

    if (c->fd == -1 && load_open(c) != LOAD_OK) {
        load_bad(c, "no connection");
        return;
    }

    load_send(c);
}


/* the next number; no other run has the same ones */

static void
load_count(void)
{
    char      *p;
    uint64_t   n;

    static uint64_t  last;

    if (last == 0) {
        last = load_now() * 1000;
    }

    n = ++last;

    for (p = load_number + LOAD_DIGITS; p > load_number; n >>= 4) {
        *--p = "0123456789abcdef"[n & 15];
    }
}


static void
load_send(load_conn_t *c)
{
    ssize_t  n;

    while (c->busy && c->sent < load_out_len) {
        n = write(c->fd, load_out + c->sent, load_out_len - c->sent);

        if (n == -1) {
            if (errno == EINTR) {
                continue;
            }

            /* an answer may explain it */

            if (errno != EAGAIN && errno != EPIPE && errno != ECONNRESET) {
                load_bad(c, strerror(errno));
            }

            return;
        }

        c->sent += n;
    }
}


static void
load_read(load_conn_t *c, int drain)
{
    ssize_t      n;

    static char  buf[262144];

    for ( ;; ) {
        n = read(c->fd, buf, sizeof(buf));

        if (n == -1) {
            if (errno == EINTR) {
                continue;
            }

            if (errno != EAGAIN) {
                load_bad(c, strerror(errno));
            }

            return;
        }

        if (n == 0) {
            if (c->busy) {
                load_bad(c, "connection closed");
            }

            load_close(c);
            return;
        }

        if (!c->busy || load_parse(c, buf, n) != LOAD_OK) {
            load_bad(c, "not HTTP");
            return;
        }

        if (c->state == load_done) {
            load_finish(c);

            if (c->fd == -1) {
                return;
            }
        }

        /* edge-triggered: a short read means that nothing is left */

        if ((size_t) n < sizeof(buf) && !drain) {
            return;
        }
    }
}


static int
load_parse(load_conn_t *c, char *p, size_t len)
{
    int       rc;
    char      ch, *last;
    uint64_t  n;

    last = p + len;

    while (p < last) {

        switch (c->state) {

        case load_head:
            rc = load_header(c, &p, last);
            if (rc != LOAD_OK) {
                return (rc == LOAD_AGAIN) ? LOAD_OK : LOAD_ERROR;
            }

            break;

        case load_length:
        case load_data:
            n = (uint64_t) (last - p);
            n = (n < c->rest) ? n : c->rest;

            if (load_body(c, p, n) != LOAD_OK) {
                return LOAD_ERROR;
            }

            p += n;
            c->rest -= n;

            if (c->rest == 0) {
                c->state = (c->state == load_data) ? load_data_end : load_done;
            }

            break;

        case load_size:
        case load_extension:
            ch = *p++;

            if (ch == '\n') {
                c->state = c->rest ? load_data : load_trailer;
                c->trailer_line = 0;
                break;
            }

            if (c->state == load_extension || ch == '\r') {
                break;
            }

            if (ch == ';' || ch == ' ') {
                c->state = load_extension;
                break;
            }

            if (ch >= '0' && ch <= '9') {
                c->rest = c->rest * 16 + (ch - '0');

            } else if ((ch | 0x20) >= 'a' && (ch | 0x20) <= 'f') {
                c->rest = c->rest * 16 + ((ch | 0x20) - 'a' + 10);

            } else {
                return LOAD_ERROR;
            }

            break;

        case load_data_end:
            if (*p++ == '\n') {
                c->state = load_size;
                c->rest = 0;
            }

            break;

        case load_trailer:
            ch = *p++;

            if (ch == '\n') {
                if (!c->trailer_line) {
                    c->state = load_done;
                }

                c->trailer_line = 0;

            } else if (ch != '\r') {
                c->trailer_line = 1;
            }

            break;

        case load_done:
            return LOAD_ERROR;
        }
    }

    return LOAD_OK;
}


static int
load_header(load_conn_t *c, char **pos, char *last)
{
    char    *end, *value;
    size_t   n, old;

    old = c->head_len;

    n = last - *pos;
    n = (n < LOAD_HEAD - old) ? n : LOAD_HEAD - old;

    memcpy(c->head + old, *pos, n);
    c->head_len += n;
    c->head[c->head_len] = '\0';

    end = strstr(c->head, "\r\n\r\n");

    if (end == NULL) {
        *pos += n;
        return (c->head_len < LOAD_HEAD) ? LOAD_AGAIN : LOAD_ERROR;
    }

    *pos += (end + 4 - c->head) - old;
    end[2] = '\0';

    if (strncmp(c->head, "HTTP/1.1 ", 9) != 0) {
        return LOAD_ERROR;
    }

    c->status = atoi(c->head + 9);
    c->rest = 0;

    if (strcasestr(c->head, "\r\nConnection: close\r\n") != NULL) {
        c->close = 1;
    }

    value = strcasestr(c->head, "\r\nContent-Length:");

    if (value != NULL) {
        c->rest = strtoull(value + sizeof("\r\nContent-Length:") - 1, NULL,
                           10);
        c->state = c->rest ? load_length : load_done;
        return LOAD_OK;
    }

    if (strcasestr(c->head, "\r\nTransfer-Encoding: chunked\r\n") == NULL) {
        return LOAD_ERROR;
    }

    c->state = load_size;

    return LOAD_OK;
}


static int
load_body(load_conn_t *c, const char *p, size_t len)
{
    char         mark;
    size_t       keep;
    unsigned     marks;
    const char  *s, *last;

    marks = c->marks;
    mark = (load_kind == LOAD_EMBED) ? ',' : '~';
    last = p + len;

    for (s = p; s < last; s++) {
        s = memchr(s, mark, last - s);
        if (s == NULL) {
            break;
        }

        c->marks++;
    }

    c->bytes += len;

    if (load_kind == LOAD_STREAM) {

        if (marks == 0 && c->marks) {
            c->first = load_now();
        }

        if (load_hold && marks < 2 && c->marks >= 2) {
            load_held++;
        }

        /* the last bytes of the stream */

        if (len >= LOAD_TAIL) {
            memcpy(c->tail, last - LOAD_TAIL, LOAD_TAIL);
            c->tail_len = LOAD_TAIL;

        } else {
            keep = LOAD_TAIL - len;
            keep = (keep < c->tail_len) ? keep : c->tail_len;

            memmove(c->tail, c->tail + c->tail_len - keep, keep);
            memcpy(c->tail + keep, p, len);
            c->tail_len = keep + len;
        }
    }

    return LOAD_OK;
}


static void
load_finish(load_conn_t *c)
{
    char      what[64];
    uint64_t  now;

    now = load_now();

    if (load_hold && c->status == 200) {
        load_bad(c, "the stream has ended");
        return;
    }

    if (c->status != 200) {
        sprintf(what, "status %u", c->status);
        load_bad(c, what);
        return;
    }

    switch (load_kind) {

    case LOAD_CHAT:
        if (c->marks != 2) {
            load_bad(c, "incomplete text");
            return;
        }

        break;

    case LOAD_EMBED:
        if (c->marks < LOAD_COMMAS || c->bytes < 16384) {
            load_bad(c, "incomplete vector");
            return;
        }

        break;

    case LOAD_STREAM:
        if (c->marks != load_pieces) {
            sprintf(what, "%u of %u pieces", c->marks, load_pieces);
            load_bad(c, what);
            return;
        }

        if (memmem(c->tail, c->tail_len, "data: [DONE]", 12) == NULL) {
            load_bad(c, "no [DONE]");
            return;
        }

        load_marks += c->marks;
        load_sample(&load_ttft, c->first - c->start);
        break;
    }

    c->busy = 0;
    load_running--;
    load_ok++;
    load_sample(&load_latency, now - c->start);

    if (c->close) {
        load_close(c);
    }

    if (!load_ended) {
        load_ok_in_time++;
        load_start(c);
    }
}


static void
load_bad(load_conn_t *c, const char *what)
{
    if (load_why[0] == '\0') {
        snprintf(load_why, sizeof(load_why), "%s", what);
    }

    if (c->busy) {
        load_running--;
    }

    load_failed++;
    c->busy = 0;
    load_close(c);
}


static void
load_sample(load_samples_t *s, uint64_t value)
{
    if (s->n == s->size) {
        s->size = s->size ? s->size * 2 : 65536;
        s->data = realloc(s->data, s->size * sizeof(uint32_t));

        if (s->data == NULL) {
            perror("load");
            exit(1);
        }
    }

    s->data[s->n++] = (value < UINT32_MAX) ? value : UINT32_MAX;
}


static void
load_print_samples(const char *name, load_samples_t *s)
{
    size_t  p50, p99;

    if (s->n == 0) {
        printf(",\"%s\":null", name);
        return;
    }

    qsort(s->data, s->n, sizeof(uint32_t), load_compare);

    p50 = (s->n * 50 + 99) / 100 - 1;
    p99 = (s->n * 99 + 99) / 100 - 1;

    printf(",\"%s\":{\"p50\":%u,\"p99\":%u}", name, s->data[p50],
           s->data[p99]);
}


static int
load_compare(const void *one, const void *two)
{
    uint32_t  a, b;

    a = *(const uint32_t *) one;
    b = *(const uint32_t *) two;

    return (a > b) - (a < b);
}


static void
load_print(double seconds)
{
    char           *p;
    struct rusage   ru;

    for (p = load_why; *p; p++) {
        if (*p == '"' || *p == '\\' || *p < ' ') {
            *p = ' ';
        }
    }

    memset(&ru, 0, sizeof(struct rusage));
    getrusage(RUSAGE_SELF, &ru);

    printf("{\"ok\":%llu,\"bad\":%llu,\"why\":\"%s\",\"chunks\":%llu,"
           "\"rate\":%.1f,\"cpu_us\":%llu",
           (unsigned long long) load_ok, (unsigned long long) load_failed,
           load_why, (unsigned long long) load_marks,
           load_ok_in_time / seconds,
           (unsigned long long) (ru.ru_utime.tv_sec + ru.ru_stime.tv_sec)
               * 1000000 + ru.ru_utime.tv_usec + ru.ru_stime.tv_usec);

    load_print_samples("latency_us", &load_latency);
    load_print_samples("ttft_us", &load_ttft);

    printf("}\n");
}
