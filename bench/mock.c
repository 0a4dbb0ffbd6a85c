
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * A provider with canned answers, one thread, HTTP/1.1 on 127.0.0.1:
 *
 *   /v1/chat/completions, /v1/messages   an answer of 1 KB, or a stream
 *   /v1/embeddings                       one vector of 1536 numbers, 17 KB
 *   /v1/traces                           {}: a collector of spans
 *
 * The name of the model says what to do: "bench" is an answer in one piece,
 * "bench-n64-i20" a stream of 64 pieces of text, one every 20 ms.  Each piece
 * has one "~", which is nowhere else in a stream, and is written by its own
 * system call, as providers do.
 *
 *   mock PORT    0: any free port; "port N" is printed when it listens
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
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>


#define MOCK_OK          0
#define MOCK_ERROR      -1
#define MOCK_AGAIN      -2

#define MOCK_IN         16384
#define MOCK_MAX_HEAD   65536
#define MOCK_MAX_BODY   (64 * 1024 * 1024)
#define MOCK_EVENT      2048
#define MOCK_QUEUES     16
#define MOCK_EVENTS     256
#define MOCK_NUMBERS    1536
#define MOCK_WORDS      "~ the quick brown fox"


typedef struct mock_conn_s  mock_conn_t;


/* streams of one interval: what is due first is at the head */

typedef struct {
    uint64_t        interval;     /* microseconds */
    mock_conn_t    *head;
    mock_conn_t    *tail;
} mock_queue_t;


typedef struct {
    char           *data;
    size_t          len;
    size_t          size;
} mock_buf_t;


struct mock_conn_s {
    int             fd;
    unsigned        anthropic:1;
    unsigned        usage:1;
    unsigned        queued:1;

    mock_buf_t      in;
    mock_buf_t      out;
    size_t          sent;         /* of out */
    size_t          head;         /* length of the header, 0: not complete */
    size_t          body;

    char            model[64];
    unsigned        chunks;
    unsigned        left;
    uint64_t        due;
    mock_queue_t   *queue;
    mock_conn_t    *prev;
    mock_conn_t    *next;
};


static uint64_t mock_now(void);
static int mock_listen(int port);
static void mock_accept(int ep, int lfd);
static void mock_close(mock_conn_t *c);
static int mock_reserve(mock_buf_t *b, size_t size);
static int mock_read(mock_conn_t *c, int drain);
static int mock_flush(mock_conn_t *c);
static int mock_send(mock_conn_t *c, const char *data, size_t len);
static int mock_requests(mock_conn_t *c);
static int mock_header(mock_conn_t *c);
static int mock_answer(mock_conn_t *c);
static void mock_model(mock_conn_t *c, const char *body, size_t len);
static int mock_whole(mock_conn_t *c, int status, const char *body,
    size_t len);
static int mock_chat(mock_conn_t *c);
static int mock_embedding(mock_conn_t *c);
static int mock_stream(mock_conn_t *c, unsigned interval);
static int mock_piece(mock_conn_t *c);
static int mock_end(mock_conn_t *c);
static size_t mock_event(char *out, const char *name, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void mock_enqueue(mock_conn_t *c);
static void mock_dequeue(mock_conn_t *c);
static int mock_timers(void);


static char          mock_text[1025];
static char          mock_vector[32768];
static size_t        mock_vector_len;
static mock_queue_t  mock_queues[MOCK_QUEUES];


int
main(int argc, char *const *argv)
{
    int                  i, n, ep, lfd, rc;
    mock_conn_t         *c;
    struct rlimit        rl;
    struct epoll_event   ev, events[MOCK_EVENTS];

    if (argc != 2) {
        fprintf(stderr, "usage: mock PORT\n");
        return 2;
    }

    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGPIPE, SIG_IGN);

    if (getrlimit(RLIMIT_NOFILE, &rl) == 0) {
        rl.rlim_cur = rl.rlim_max;
        setrlimit(RLIMIT_NOFILE, &rl);
    }

    for (i = 0; i < 1024; i++) {
        mock_text[i] = "Sphinx of black quartz, judge my vow. "[i % 38];
    }

    for (i = 0; i < MOCK_NUMBERS; i++) {
        mock_vector_len += sprintf(mock_vector + mock_vector_len,
                                   "%s%s0.%08d", i ? "," : "",
                                   i % 2 ? "-" : "",
                                   (i * 79193 + 104729) % 100000000);
    }

    lfd = mock_listen(atoi(argv[1]));
    if (lfd == -1) {
        perror("mock: listen");
        return 1;
    }

    ep = epoll_create1(EPOLL_CLOEXEC);

    ev.events = EPOLLIN;
    ev.data.ptr = NULL;

    if (ep == -1 || epoll_ctl(ep, EPOLL_CTL_ADD, lfd, &ev) == -1) {
        perror("mock: epoll");
        return 1;
    }

    for ( ;; ) {
        n = epoll_wait(ep, events, MOCK_EVENTS, mock_timers());

        if (n == -1 && errno != EINTR) {
            perror("mock: epoll_wait");
            return 1;
        }

        for (i = 0; i < n; i++) {
            c = events[i].data.ptr;

            if (c == NULL) {
                mock_accept(ep, lfd);
                continue;
            }

            rc = MOCK_OK;

            if (events[i].events & EPOLLOUT) {
                rc = mock_flush(c);
            }

            if (rc == MOCK_OK && (events[i].events & ~EPOLLOUT)) {
                rc = mock_read(c, events[i].events & (EPOLLRDHUP|EPOLLHUP
                                                      |EPOLLERR));
            }

            if (rc == MOCK_ERROR) {
                mock_close(c);
            }
        }
    }
}


static uint64_t
mock_now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * 1000000 + ts.tv_nsec / 1000;
}


static int
mock_listen(int port)
{
    int                 fd, on;
    socklen_t           len;
    struct sockaddr_in  sin;

    fd = socket(AF_INET, SOCK_STREAM|SOCK_NONBLOCK|SOCK_CLOEXEC, 0);
    if (fd == -1) {
        return -1;
    }

    on = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(int));

    memset(&sin, 0, sizeof(struct sockaddr_in));
    sin.sin_family = AF_INET;
    sin.sin_port = htons(port);
    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

    len = sizeof(struct sockaddr_in);

    if (bind(fd, (struct sockaddr *) &sin, len) == -1
        || listen(fd, 4096) == -1
        || getsockname(fd, (struct sockaddr *) &sin, &len) == -1)
    {
        close(fd);
        return -1;
    }

    printf("port %d\n", ntohs(sin.sin_port));
    fflush(stdout);

    return fd;
}


static void
mock_accept(int ep, int lfd)
{
    int                  fd, on;
    mock_conn_t         *c;
    struct epoll_event   ev;

    for ( ;; ) {
        fd = accept4(lfd, NULL, NULL, SOCK_NONBLOCK|SOCK_CLOEXEC);

        if (fd == -1) {
            if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
                perror("mock: accept");
                exit(1);
            }

            return;
        }

        on = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(int));

        c = calloc(1, sizeof(mock_conn_t));
        if (c == NULL) {
            close(fd);
            continue;
        }

        c->fd = fd;

        ev.events = EPOLLIN|EPOLLOUT|EPOLLRDHUP|EPOLLET;
        ev.data.ptr = c;

        if (epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev) == -1) {
            mock_close(c);
        }
    }
}


static void
mock_close(mock_conn_t *c)
{
    mock_dequeue(c);
    close(c->fd);
    free(c->in.data);
    free(c->out.data);
    free(c);
}


/* room for size bytes after what is there, and a zero */

static int
mock_reserve(mock_buf_t *b, size_t size)
{
    char    *p;
    size_t   need;

    need = b->len + size + 1;

    if (need <= b->size) {
        return MOCK_OK;
    }

    need = (need > b->size * 2) ? need : b->size * 2;

    p = realloc(b->data, need);
    if (p == NULL) {
        return MOCK_ERROR;
    }

    b->data = p;
    b->size = need;

    return MOCK_OK;
}


/* events are edge-triggered: a short read means that nothing is left, unless
 * the end was announced */

static int
mock_read(mock_conn_t *c, int drain)
{
    size_t   size;
    ssize_t  n;

    for ( ;; ) {
        if (mock_reserve(&c->in, MOCK_IN) != MOCK_OK) {
            return MOCK_ERROR;
        }

        size = c->in.size - c->in.len - 1;
        n = read(c->fd, c->in.data + c->in.len, size);

        if (n == -1) {
            if (errno == EINTR) {
                continue;
            }

            return (errno == EAGAIN) ? MOCK_OK : MOCK_ERROR;
        }

        if (n == 0) {
            return MOCK_ERROR;
        }

        c->in.len += n;
        c->in.data[c->in.len] = '\0';

        if (mock_requests(c) != MOCK_OK) {
            return MOCK_ERROR;
        }

        if ((size_t) n < size && !drain) {
            return MOCK_OK;
        }
    }
}


static int
mock_flush(mock_conn_t *c)
{
    ssize_t  n;

    while (c->sent < c->out.len) {
        n = write(c->fd, c->out.data + c->sent, c->out.len - c->sent);

        if (n == -1) {
            if (errno == EINTR) {
                continue;
            }

            return (errno == EAGAIN) ? MOCK_OK : MOCK_ERROR;
        }

        c->sent += n;
    }

    c->sent = 0;
    c->out.len = 0;

    return MOCK_OK;
}


static int
mock_send(mock_conn_t *c, const char *data, size_t len)
{
    ssize_t  n;

    n = 0;

    if (c->out.len == 0) {
        n = write(c->fd, data, len);

        if (n == (ssize_t) len) {
            return MOCK_OK;
        }

        if (n == -1) {
            if (errno != EAGAIN && errno != EINTR) {
                return MOCK_ERROR;
            }

            n = 0;
        }
    }

    if (mock_reserve(&c->out, len - n) != MOCK_OK) {
        return MOCK_ERROR;
    }

    memcpy(c->out.data + c->out.len, data + n, len - n);
    c->out.len += len - n;

    return MOCK_OK;
}


static int
mock_requests(mock_conn_t *c)
{
    int     rc;
    size_t  size;

    while (c->in.len && c->left == 0) {

        if (c->head == 0) {
            rc = mock_header(c);
            if (rc != MOCK_OK) {
                return (rc == MOCK_AGAIN) ? MOCK_OK : MOCK_ERROR;
            }
        }

        size = c->head + c->body;

        if (c->in.len < size) {
            return mock_reserve(&c->in, size - c->in.len);
        }

        if (mock_answer(c) != MOCK_OK) {
            return MOCK_ERROR;
        }

        c->in.len -= size;
        memmove(c->in.data, c->in.data + size, c->in.len + 1);
        c->head = 0;
    }

    return MOCK_OK;
}


static int
mock_header(mock_conn_t *c)
{
    char  *end, *p;

    end = memmem(c->in.data, c->in.len, "\r\n\r\n", 4);

    if (end == NULL) {
        return (c->in.len < MOCK_MAX_HEAD) ? MOCK_AGAIN : MOCK_ERROR;
    }

    c->head = end + 4 - c->in.data;
    c->body = 0;

    end[2] = '\0';

    if (strcasestr(c->in.data, "\r\nTransfer-Encoding:") != NULL) {
        fprintf(stderr, "mock: a request without Content-Length\n");
        return MOCK_ERROR;
    }

    p = strcasestr(c->in.data, "\r\nContent-Length:");
    if (p != NULL) {
        c->body = strtoul(p + sizeof("\r\nContent-Length:") - 1, NULL, 10);
    }

    return (c->body <= MOCK_MAX_BODY) ? MOCK_OK : MOCK_ERROR;
}


static int
mock_answer(mock_conn_t *c)
{
    int          chat;
    char        *p, *body;
    unsigned     interval;
    const char  *path;

    static char  unknown[] = "{\"error\":{\"message\":\"no such path\","
                             "\"type\":\"invalid_request_error\"}}";
    static char  invalid[] = "{\"error\":{\"message\":\"not a stream\","
                             "\"type\":\"invalid_request_error\"}}";

    body = c->in.data + c->head;
    path = strchr(c->in.data, ' ');

    if (path == NULL) {
        return MOCK_ERROR;
    }

    path++;

    if (strncmp(path, "/v1/embeddings ", 15) == 0) {
        mock_model(c, body, c->body);
        return mock_embedding(c);
    }

    if (strncmp(path, "/v1/traces ", 11) == 0) {
        return mock_whole(c, 200, "{}", 2);
    }

    c->anthropic = (strncmp(path, "/v1/messages ", 13) == 0);
    chat = (strncmp(path, "/v1/chat/completions ", 21) == 0);

    if (!c->anthropic && !chat) {
        return mock_whole(c, 404, unknown, sizeof(unknown) - 1);
    }

    mock_model(c, body, c->body);

    p = strstr(c->model, "-n");

    if (p == NULL) {
        return mock_chat(c);
    }

    if (memmem(body, c->body, "\"stream\":true", 13) == NULL) {
        return mock_whole(c, 400, invalid, sizeof(invalid) - 1);
    }

    c->usage = (memmem(body, c->body, "\"include_usage\":true", 20) != NULL);
    c->chunks = strtoul(p + 2, NULL, 10);

    p = strstr(c->model, "-i");
    interval = (p != NULL) ? strtoul(p + 2, NULL, 10) : 0;

    return mock_stream(c, interval);
}


static void
mock_model(mock_conn_t *c, const char *body, size_t len)
{
    size_t       i;
    const char  *p, *last;

    i = 0;
    last = body + len;

    p = memmem(body, len, "\"model\":", 8);

    if (p != NULL) {
        p += 8;

        while (p < last && (*p == ' ' || *p == '"')) {
            p++;
        }

        while (p < last && *p != '"' && i < sizeof(c->model) - 1) {
            c->model[i++] = *p++;
        }
    }

    c->model[i] = '\0';
}


static int
mock_whole(mock_conn_t *c, int status, const char *body, size_t len)
{
    int   n;
    char  answer[65536];

    n = snprintf(answer, sizeof(answer),
                 "HTTP/1.1 %d %s\r\n"
                 "Content-Type: application/json\r\n"
                 "Content-Length: %zu\r\n"
                 "x-request-id: req_0123456789abcdef\r\n"
                 "\r\n"
                 "%.*s",
                 status, status == 200 ? "OK" : "Error", len, (int) len, body);

    return mock_send(c, answer, n);
}


static int
mock_chat(mock_conn_t *c)
{
    int   n, pad;
    char  body[MOCK_EVENT];

    static char  openai[] =
        "{\"id\":\"chatcmpl-0123456789abcdefghij\","
        "\"object\":\"chat.completion\",\"created\":1767225600,"
        "\"model\":\"%s\",\"choices\":[{\"index\":0,\"message\":{"
        "\"role\":\"assistant\",\"content\":\"~%.*s~\",\"refusal\":null,"
        "\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
        "\"usage\":{\"prompt_tokens\":96,\"completion_tokens\":160,"
        "\"total_tokens\":256,\"prompt_tokens_details\":{"
        "\"cached_tokens\":0},\"completion_tokens_details\":{"
        "\"reasoning_tokens\":0}},\"service_tier\":\"default\"}";

    static char  anthropic[] =
        "{\"id\":\"msg_0123456789abcdefghij\",\"type\":\"message\","
        "\"role\":\"assistant\",\"model\":\"%s\",\"content\":[{"
        "\"type\":\"text\",\"text\":\"~%.*s~\"}],"
        "\"stop_reason\":\"end_turn\",\"stop_sequence\":null,"
        "\"usage\":{\"input_tokens\":96,\"cache_creation_input_tokens\":0,"
        "\"cache_read_input_tokens\":0,\"output_tokens\":160,"
        "\"service_tier\":\"standard\"}}";

    /* the body has 1024 bytes in both formats */

    if (c->anthropic) {
        n = snprintf(NULL, 0, anthropic, c->model, 0, mock_text);
        pad = 1024 - n;
        n = snprintf(body, sizeof(body), anthropic, c->model, pad, mock_text);

    } else {
        n = snprintf(NULL, 0, openai, c->model, 0, mock_text);
        pad = 1024 - n;
        n = snprintf(body, sizeof(body), openai, c->model, pad, mock_text);
    }

    return mock_whole(c, 200, body, n);
}


static int
mock_embedding(mock_conn_t *c)
{
    int   n;
    char  body[sizeof(mock_vector) + 512];

    n = snprintf(body, sizeof(body),
                 "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\","
                 "\"index\":0,\"embedding\":[%.*s]}],\"model\":\"%s\","
                 "\"usage\":{\"prompt_tokens\":96,\"total_tokens\":96}}",
                 (int) mock_vector_len, mock_vector, c->model);

    return mock_whole(c, 200, body, n);
}


static int
mock_stream(mock_conn_t *c, unsigned interval)
{
    int            n, i;
    char           out[MOCK_EVENT * 4];
    mock_queue_t  *q;

    q = NULL;

    for (i = 0; i < MOCK_QUEUES; i++) {
        q = &mock_queues[i];

        if (q->head == NULL || q->interval == (uint64_t) interval * 1000) {
            break;
        }
    }

    if (i == MOCK_QUEUES) {
        fprintf(stderr, "mock: too many different intervals\n");
        return MOCK_ERROR;
    }

    q->interval = (uint64_t) interval * 1000;
    c->queue = q;

    n = sprintf(out, "HTTP/1.1 200 OK\r\n"
                     "Content-Type: text/event-stream\r\n"
                     "Cache-Control: no-cache\r\n"
                     "Transfer-Encoding: chunked\r\n"
                     "x-request-id: req_0123456789abcdef\r\n"
                     "\r\n");

    if (c->anthropic) {
        n += mock_event(out + n, "message_start",
                        "\"message\":{\"id\":\"msg_0123456789abcdefghij\","
                        "\"type\":\"message\",\"role\":\"assistant\","
                        "\"model\":\"%s\",\"content\":[],"
                        "\"stop_reason\":null,\"stop_sequence\":null,"
                        "\"usage\":{\"input_tokens\":96,"
                        "\"cache_creation_input_tokens\":0,"
                        "\"cache_read_input_tokens\":0,"
                        "\"output_tokens\":1}}", c->model);
        n += mock_event(out + n, "content_block_start",
                        "\"index\":0,\"content_block\":{"
                        "\"type\":\"text\",\"text\":\"\"}");

    } else {
        n += mock_event(out + n, NULL,
                        "\"model\":\"%s\",\"choices\":[{\"index\":0,"
                        "\"delta\":{\"role\":\"assistant\",\"content\":\"\","
                        "\"refusal\":null},\"logprobs\":null,"
                        "\"finish_reason\":null}]%s", c->model,
                        c->usage ? ",\"usage\":null" : "");
    }

    if (mock_send(c, out, n) != MOCK_OK) {
        return MOCK_ERROR;
    }

    c->left = c->chunks;

    if (c->left == 0) {
        return mock_end(c);
    }

    if (mock_piece(c) != MOCK_OK) {
        return MOCK_ERROR;
    }

    if (c->left) {
        c->due = mock_now() + q->interval;
        mock_enqueue(c);
    }

    return MOCK_OK;
}


/* one piece of text; after the last one, the end of the stream */

static int
mock_piece(mock_conn_t *c)
{
    size_t  n;
    char    out[MOCK_EVENT];

    if (c->anthropic) {
        n = mock_event(out, "content_block_delta",
                       "\"index\":0,\"delta\":{\"type\":\"text_delta\","
                       "\"text\":\"" MOCK_WORDS "\"}");

    } else {
        n = mock_event(out, NULL,
                       "\"model\":\"%s\",\"choices\":[{\"index\":0,"
                       "\"delta\":{\"content\":\"" MOCK_WORDS "\"},"
                       "\"logprobs\":null,\"finish_reason\":null}]%s",
                       c->model, c->usage ? ",\"usage\":null" : "");
    }

    if (mock_send(c, out, n) != MOCK_OK) {
        return MOCK_ERROR;
    }

    if (--c->left == 0) {
        return mock_end(c);
    }

    return MOCK_OK;
}


static int
mock_end(mock_conn_t *c)
{
    size_t  n;
    char    out[MOCK_EVENT * 4];

    n = 0;

    if (c->anthropic) {
        n += mock_event(out + n, "content_block_stop", "\"index\":0");
        n += mock_event(out + n, "message_delta",
                        "\"delta\":{\"stop_reason\":\"end_turn\","
                        "\"stop_sequence\":null},"
                        "\"usage\":{\"output_tokens\":%u}", c->chunks * 5);
        n += mock_event(out + n, "message_stop", "%s", "");

    } else {
        n += mock_event(out + n, NULL,
                        "\"model\":\"%s\",\"choices\":[{\"index\":0,"
                        "\"delta\":{},\"logprobs\":null,"
                        "\"finish_reason\":\"stop\"}]%s", c->model,
                        c->usage ? ",\"usage\":null" : "");

        if (c->usage) {
            n += mock_event(out + n, NULL,
                            "\"model\":\"%s\",\"choices\":[],"
                            "\"usage\":{\"prompt_tokens\":96,"
                            "\"completion_tokens\":%u,\"total_tokens\":%u}",
                            c->model, c->chunks * 5, c->chunks * 5 + 96);
        }

        n += sprintf(out + n, "e\r\ndata: [DONE]\n\n\r\n");
    }

    n += sprintf(out + n, "0\r\n\r\n");

    return mock_send(c, out, n);
}


/* one event as one HTTP chunk; without a name, in the form of OpenAI */

static size_t
mock_event(char *out, const char *name, const char *fmt, ...)
{
    int      n;
    char     data[MOCK_EVENT];
    va_list  args;

    if (name != NULL) {
        n = sprintf(data, "event: %s\ndata: {\"type\":\"%s\"", name, name);

        if (fmt[0] == '"') {
            data[n++] = ',';
        }

    } else {
        n = sprintf(data, "data: {\"id\":\"chatcmpl-0123456789abcdefghij\","
                          "\"object\":\"chat.completion.chunk\","
                          "\"created\":1767225600,"
                          "\"service_tier\":\"default\","
                          "\"system_fingerprint\":\"fp_0123456789\",");
    }

    va_start(args, fmt);
    n += vsnprintf(data + n, sizeof(data) - n - 8, fmt, args);
    va_end(args);

    n += sprintf(data + n, "}\n\n");

    return sprintf(out, "%x\r\n%s\r\n", n, data);
}


static void
mock_enqueue(mock_conn_t *c)
{
    mock_queue_t  *q;

    q = c->queue;

    c->queued = 1;
    c->next = NULL;
    c->prev = q->tail;

    if (q->tail != NULL) {
        q->tail->next = c;

    } else {
        q->head = c;
    }

    q->tail = c;
}


static void
mock_dequeue(mock_conn_t *c)
{
    mock_queue_t  *q;

    if (!c->queued) {
        return;
    }

    q = c->queue;

    if (c->prev != NULL) {
        c->prev->next = c->next;

    } else {
        q->head = c->next;
    }

    if (c->next != NULL) {
        c->next->prev = c->prev;

    } else {
        q->tail = c->prev;
    }

    c->queued = 0;
}


/* sends what is due; returns how many milliseconds to wait */

static int
mock_timers(void)
{
    int            i, rc;
    uint64_t       now, wait;
    mock_conn_t   *c;
    mock_queue_t  *q;

    now = mock_now();
    wait = UINT64_MAX;

    for (i = 0; i < MOCK_QUEUES; i++) {
        q = &mock_queues[i];

        while (q->head != NULL && q->head->due <= now) {
            c = q->head;
            mock_dequeue(c);

            rc = mock_piece(c);

            if (rc == MOCK_OK && c->left) {
                c->due += q->interval ? q->interval : 1;
                mock_enqueue(c);
                continue;
            }

            /* the next request may have come already */

            if (rc != MOCK_OK || mock_requests(c) != MOCK_OK) {
                mock_close(c);
            }
        }

        if (q->head != NULL && q->head->due - now < wait) {
            wait = q->head->due - now;
        }
    }

    return (wait == UINT64_MAX) ? -1 : (int) ((wait + 999) / 1000);
}
