
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * A process that dies after each single instruction of each operation on a
 * store of answers: the next one that takes the lock finds a sound store, in
 * which an answer is right or not there, and what was purged stays purged.
 */


#include "test.h"
#include <sys/mman.h>
#include <sys/wait.h>

#if (NGX_LINUX)
#include <sys/ptrace.h>
#endif

#include "ngx_http_ai_cache_block.h"


#define SIZE      (64 * 1024)
#define T0        ((int64_t) 1700000000000)
#define FOREVER   (T0 + 86400000)
#define IDS       24
#define MAX       8192


#if (NGX_LINUX && defined PT_STEP)

typedef struct {
    const char                 *name;
    void                      (*prepare)(void);
    void                      (*run)(void);
} step_t;


static u_char                     *block, *copy, *seen;
static ngx_http_ai_cache_store_t  *st;
static uint64_t                    flight;
static u_char                      bytes[IDS][MAX], buf[SIZE];


static ngx_http_ai_cache_meta_t
meta_of(uint64_t n)
{
    uint64_t                  w;
    ngx_uint_t                i;
    ngx_http_ai_cache_meta_t  m;

    memset(&m, 0, sizeof(m));

    for (i = 0; i < 4; i++) {
        w = (n * 4 + i + 1) * 0x9e3779b97f4a7c15ull;
        w ^= w >> 29;
        memcpy(m.id + i * 8, &w, 8);
    }

    m.scope = n % 7 + 1;
    m.model = n % 3 + 1;
    m.tag = n;
    m.created = T0;
    m.fresh = FOREVER;
    m.stale = FOREVER;

    return m;
}


/* made before, so that it is not stepped through */

static u_char *
data_of(uint64_t n, size_t size)
{
    if (size > MAX) {
        abort();
    }

    return bytes[n];
}


static void
put(uint64_t n, size_t size)
{
    ngx_http_ai_cache_meta_t  m;

    m = meta_of(n);

    (void) ngx_http_ai_cache_put(st, &m, data_of(n, size), size, T0);
}


static void
purge(ngx_uint_t kind, uint64_t hash, int64_t time)
{
    ngx_http_ai_cache_rule_t  rule;

    rule.kind = kind;
    rule.hash = hash;
    rule.time = time;

    (void) ngx_http_ai_cache_purge_add(st, &rule);
}


static void
prepare(void)
{
    ngx_uint_t                i;
    ngx_http_ai_cache_meta_t  m;

    memset(block, 0, SIZE);
    st = ngx_http_ai_cache_store_init(block, SIZE);

    (void) ngx_http_ai_cache_enroll(st, getpid(), T0);
    (void) ngx_http_ai_cache_enroll(st, getppid(), T0);
    st->ticked = T0;

    for (i = 0; i < 6; i++) {
        put(i, 500 + i * 700);
    }

    m = meta_of(20);
    (void) ngx_http_ai_cache_begin(st, &m, 0, T0, &flight);
    (void) ngx_http_ai_cache_begin(st, &m, 1, T0, &flight);
    (void) ngx_http_ai_cache_append(st, flight, 0, data_of(20, 1500), 1500,
                                    T0);
}


static void
prepare_full(void)
{
    ngx_uint_t                i, n;
    ngx_http_ai_cache_meta_t  m;

    prepare();

    for (i = 6; i < 19; i++) {
        put(i, 3000);
    }

    m = meta_of(21);

    for (n = 0; n < 9; n++) {
        (void) ngx_http_ai_cache_get(st, m.id, T0, &m);
    }
}


static void
prepare_failed(void)
{
    prepare();
    ngx_http_ai_cache_fail(st, flight, 0, 1, 0, T0);
}


static void
prepare_whole(void)
{
    ngx_http_ai_cache_meta_t  m;

    prepare();
    m = meta_of(20);
    (void) ngx_http_ai_cache_end(st, flight, 0, &m, T0);
}


static void
prepare_rules(void)
{
    ngx_uint_t  i;

    prepare();

    for (i = 0; i < NGX_HTTP_AI_CACHE_RULES; i++) {
        purge(NGX_HTTP_AI_CACHE_RULE_TAG, 100 + i, T0 + i / 2);
    }
}


static void
run_put(void)
{
    put(7, 4000);
}


static void
run_replace(void)
{
    put(3, 100);
}


static void
run_put_full(void)
{
    put(21, 6000);
}


static void
run_get(void)
{
    ngx_http_ai_cache_meta_t  m;

    m = meta_of(2);
    (void) ngx_http_ai_cache_get(st, m.id, T0, &m);
    m = meta_of(0);
    (void) ngx_http_ai_cache_get(st, m.id, T0, &m);
}


static void
run_gone(void)
{
    ngx_http_ai_cache_meta_t  m;

    m = meta_of(2);
    (void) ngx_http_ai_cache_get(st, m.id, FOREVER, &m);
}


static void
run_remove(void)
{
    ngx_http_ai_cache_meta_t  m;

    m = meta_of(4);
    ngx_http_ai_cache_remove(st, m.id);
}


static void
run_begin(void)
{
    uint64_t                  f;
    ngx_http_ai_cache_meta_t  m;

    m = meta_of(21);
    (void) ngx_http_ai_cache_begin(st, &m, 1, T0, &f);
    m = meta_of(20);
    (void) ngx_http_ai_cache_begin(st, &m, 1, T0, &f);
}


static void
run_append(void)
{
    ngx_http_ai_cache_meta_t  m;

    m = meta_of(20);
    m.stream = 1;
    (void) ngx_http_ai_cache_open(st, flight, 0, &m);
    (void) ngx_http_ai_cache_append(st, flight, 0,
                                    data_of(20, 4500) + 1500, 3000, T0);
}


static void
run_end(void)
{
    ngx_http_ai_cache_meta_t  m;

    m = meta_of(20);
    (void) ngx_http_ai_cache_end(st, flight, 0, &m, T0);
}


static void
run_fail(void)
{
    ngx_http_ai_cache_fail(st, flight, 0, 1, 1, T0);
}


static void
run_takeover(void)
{
    (void) ngx_http_ai_cache_takeover(st, flight, 1, T0);
}


static void
run_depart(void)
{
    ngx_http_ai_cache_depart(st, flight, 1);
}


static void
run_dismiss(void)
{
    ngx_http_ai_cache_dismiss(st, 0, T0);
}


static void
run_tick(void)
{
    purge(NGX_HTTP_AI_CACHE_RULE_SCOPE, 3, T0);
    (void) ngx_http_ai_cache_tick(st, 0, getpid(),
                                  T0 + NGX_HTTP_AI_CACHE_LINGER + 1);
}


static void
run_purge(void)
{
    purge(NGX_HTTP_AI_CACHE_RULE_SCOPE, 3, T0 + 5);
}


static void
run_purge_all(void)
{
    purge(NGX_HTTP_AI_CACHE_RULE_ALL, 0, T0 + 60);
}


static step_t  steps[] = {
    { "put", prepare, run_put },
    { "replace", prepare, run_replace },
    { "put into a full zone", prepare_full, run_put_full },
    { "get", prepare, run_get },
    { "get what is gone", prepare, run_gone },
    { "remove", prepare, run_remove },
    { "begin", prepare, run_begin },
    { "append", prepare, run_append },
    { "append in a full zone", prepare_full, run_append },
    { "end", prepare, run_end },
    { "end in a full zone", prepare_full, run_end },
    { "fail", prepare, run_fail },
    { "takeover", prepare_failed, run_takeover },
    { "depart", prepare_whole, run_depart },
    { "dismiss", prepare, run_dismiss },
    { "tick", prepare_whole, run_tick },
    { "purge", prepare, run_purge },
    { "purge with too many rules", prepare_rules, run_purge },
    { "purge all", prepare_rules, run_purge_all }
};


/* NULL, or what is wrong with a store that somebody has died in */

static const char *
look(ngx_http_ai_cache_store_t *c, u_char *purged)
{
    size_t                      n;
    uint64_t                    i;
    const char                 *error;
    ngx_http_ai_cache_meta_t    m;
    ngx_http_ai_cache_reader_t  rd;

    error = ngx_http_ai_cache_store_check(c);
    if (error) {
        return error;
    }

    memset(&rd, 0, sizeof(rd));
    rd.flight = flight;

    n = ngx_http_ai_cache_read(c, &rd, buf, sizeof(buf));

    if (n && memcmp(buf, data_of(20, n), n) != 0) {
        return "wrong bytes of a flight";
    }

    for (i = 0; i < IDS; i++) {
        m = meta_of(i);

        if (ngx_http_ai_cache_get(c, m.id, T0, &m) == NGX_OK
            && (ngx_http_ai_cache_copy(c, &m, buf) != NGX_OK
                || memcmp(buf, data_of(i, m.size), m.size) != 0))
        {
            return "a wrong answer";
        }
    }

    for (i = 0; i < 400; i++) {
        m = meta_of(i);
        m.created = T0 + i % 100;

        if (purged[i] && !ngx_http_ai_cache_purged(c, &m)) {
            return "a purge is lost";
        }
    }

    m = meta_of(23);

    if (ngx_http_ai_cache_put(c, &m, data_of(23, 100), 100, T0) != NGX_OK
        && !ngx_http_ai_cache_purged(c, &m)
        && ngx_http_ai_cache_spare(c) > 0)
    {
        return "nothing can be stored";
    }

    return ngx_http_ai_cache_store_check(c);
}


static ngx_int_t
step_through(step_t *s)
{
    int                        status;
    pid_t                      pid;
    time_t                     start;
    u_char                     purged[400];
    ngx_uint_t                 i, nsteps, nstates, emptied, bad;
    const char                *error;
    ngx_http_ai_cache_meta_t   m;

    ngx_http_ai_cache_store_t  *c = (ngx_http_ai_cache_store_t *) copy;

    s->prepare();

    for (i = 0; i < 400; i++) {
        m = meta_of(i);
        m.created = T0 + i % 100;
        purged[i] = ngx_http_ai_cache_purged(st, &m);
    }

    memcpy(seen, block, SIZE);
    fflush(stdout);

    pid = fork();

    if (pid == -1) {
        return NGX_ERROR;
    }

    if (pid == 0) {

        if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) == -1) {
            _exit(2);
        }

        raise(SIGSTOP);
        s->run();
        _exit(0);
    }

    nsteps = 0;
    nstates = 0;
    emptied = 0;
    bad = 0;
    start = time(NULL);

    for ( ;; ) {

        if (waitpid(pid, &status, 0) == -1) {
            return NGX_ERROR;
        }

        if (!WIFSTOPPED(status)) {
            break;
        }

        if (memcmp(seen, block, SIZE) != 0) {
            nstates++;

            memcpy(seen, block, SIZE);
            memcpy(copy, block, SIZE);

            emptied += ngx_http_ai_cache_enter(c);
            error = look(c, purged);

            if (error && bad++ == 0) {
                diag("%s, step %u: %s", s->name, (unsigned) nsteps, error);
            }
        }

        if (time(NULL) - start > 60) {
            diag("%s: too slow", s->name);
            kill(pid, SIGKILL);
            bad++;
            continue;
        }

        nsteps++;

        if (ptrace(PT_STEP, pid, NULL, NULL) == -1) {
            kill(pid, SIGKILL);
            (void) waitpid(pid, &status, 0);
            return NGX_DECLINED;
        }
    }

    if (WIFEXITED(status) && WEXITSTATUS(status) == 2) {
        return NGX_DECLINED;
    }

    error = look(st, purged);

    if (error) {
        diag("%s: %s", s->name, error);
        bad++;
    }

    ok(bad == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0
       && nsteps > 100, "%s: %u instructions, %u states, %u emptied", s->name,
       (unsigned) nsteps, (unsigned) nstates, (unsigned) emptied);

    return NGX_OK;
}

#endif


int
main(void)
{
#if (NGX_LINUX && defined PT_STEP)

    ngx_uint_t  i, n;

    for (n = 0; n < IDS; n++) {
        for (i = 0; i < MAX; i++) {
            bytes[n][i] = (u_char) (n * 31 + i * 7);
        }
    }

    block = mmap(NULL, SIZE, PROT_READ|PROT_WRITE, MAP_ANON|MAP_SHARED, -1, 0);
    copy = mmap(NULL, SIZE, PROT_READ|PROT_WRITE, MAP_ANON|MAP_PRIVATE, -1, 0);
    seen = malloc(SIZE);

    if (block == MAP_FAILED || copy == MAP_FAILED || seen == NULL) {
        return 1;
    }

    for (i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        if (step_through(&steps[i]) != NGX_OK) {
            skip("%s: a process cannot be traced here", steps[i].name);
        }
    }

    free(seen);

#else

    skip("single steps need ptrace()");

#endif

    return done_testing();
}
