
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * A process that dies after each single instruction of each operation: the
 * next one that takes the lock finds what was before the operation or what
 * is after it, nothing else.
 */


#include "test.h"
#include <sys/mman.h>
#include <sys/wait.h>

#if (NGX_LINUX)
#include <sys/ptrace.h>
#endif

#include "ngx_http_ai_limit_block.h"


#define M(name)   NGX_HTTP_AI_METER_ ## name

#define SIZE      (24 * 1024)
#define T0        ((int64_t) 1700000000000)
#define HOUR      3600000


#if (NGX_LINUX && defined PT_STEP)

typedef struct {
    const char  *name;
    void       (*prepare)(void);
    void       (*run)(void);
    ngx_uint_t   several;           /* changes, one after another */
} step_t;


static u_char                     *block, *copy, *seen, *before, *after, *now;
static size_t                      nbefore, nafter;
static ngx_http_ai_limit_store_t  *st;
static ngx_http_ai_limit_t         limits[M(MAX)];
static ngx_http_ai_hold_t          holds[256];
static u_char                      snapshot[8192];
static size_t                      nsnapshot;
static uint32_t                   wide;


static ngx_http_ai_limit_e
take(const char *key, ngx_uint_t n, int64_t time, int64_t amount)
{
    u_char                       id[16];
    ngx_str_t                    s;
    ngx_uint_t                   m;
    ngx_http_ai_amounts_t        a;
    ngx_http_ai_limit_refusal_t  refusal;

    memset(id, 0, sizeof(id));
    id[0] = n;
    id[8] = n;

    for (m = 0; m < M(MAX); m++) {
        a.v[m] = amount;
    }

    a.v[M(REQUESTS)] = 1;
    a.v[M(CONCURRENT)] = 1;

    s.data = (u_char *) key;
    s.len = strlen(key);

    return ngx_http_ai_limit_reserve(st, &s, id, 1, time, time + 1000, limits,
                                     &a, &holds[n], &refusal);
}


static void
topup(ngx_uint_t n, int64_t amount)
{
    ngx_uint_t                   m;
    ngx_http_ai_amounts_t        a;
    ngx_http_ai_limit_refusal_t  refusal;

    for (m = 0; m < M(MAX); m++) {
        a.v[m] = amount;
    }

    a.v[M(REQUESTS)] = 0;
    a.v[M(CONCURRENT)] = 0;

    (void) ngx_http_ai_limit_topup(st, &holds[n], T0 + 50, T0 + 1000, limits,
                                   &a, &refusal);
}


static void
settle(ngx_uint_t n, int64_t amount)
{
    u_char                 id[16];
    ngx_uint_t             m;
    ngx_http_ai_amounts_t  a;

    memset(id, 0, sizeof(id));
    id[0] = n;
    id[8] = n;

    for (m = 0; m < M(MAX); m++) {
        a.v[m] = amount;
    }

    (void) ngx_http_ai_limit_settle(st, &holds[n], id, T0 + 100, &a);
}


static ngx_uint_t
dead(uint64_t owner)
{
    return 0;
}


static void
init(void)
{
    ngx_uint_t  i;

    memset(block, 0, SIZE);
    st = ngx_http_ai_limit_store_init(block, SIZE, 16);

    /* each time the same */

    st->seed[0] = 1;
    st->seed[1] = 2;

    /* long chains */

    wide = st->hmask;

    st->kmask = 1;
    st->hmask = 1;

    memset(limits, 0, sizeof(limits));

    for (i = 0; i < M(MAX); i++) {
        limits[i].limit = 10000;
        limits[i].period = 60000;
        limits[i].start = T0 / HOUR * HOUR;
        limits[i].end = limits[i].start + HOUR;
    }
}


static void
some(void)
{
    char        key[8];
    ngx_uint_t  i;

    init();

    for (i = 0; i < 8; i++) {
        snprintf(key, sizeof(key), "k%u", (unsigned) i % 4);
        take(key, i, T0 + i, 100 + i);
    }

    settle(3, 50);
    settle(5, 500);
}


/* no hold is in the chain of another, so they come and go the usual way */

static void
plain(void)
{
    init();

    st->hmask = wide;

    take("k1", 1, T0, 100);
    take("k2", 2, T0, 100);
    take("k2", 3, T0 + 1, 100);
    settle(3, 50);
}


/* others of the key are running, so the least use since is noted */

static void
plain_several(void)
{
    plain();

    take("k2", 4, T0 + 20, 100);
    take("k2", 5, T0 + 30, 100);
    take("k2", 6, T0 + 40, 100);
    settle(6, 500);
}


static void
full_keys(void)
{
    char        key[8];
    ngx_uint_t  i;

    some();

    for (i = 8; i < 120; i++) {
        snprintf(key, sizeof(key), "f%u", (unsigned) i);

        if (take(key, i, T0, 10) == NGX_HTTP_AI_LIMIT_FULL) {
            break;
        }
    }

    /* the windows are over, and so is one hold */

    settle(9, 10);

    for (i = 0; i < M(MAX); i++) {
        limits[i].start += HOUR;
        limits[i].end += HOUR;
    }
}


static void
full_holds(void)
{
    ngx_uint_t  i;

    some();

    for (i = 8; i < 200; i++) {
        if (take("k1", i, T0, 0) == NGX_HTTP_AI_LIMIT_FULL) {
            break;
        }
    }

    (void) ngx_http_ai_limit_reap(st, T0, dead, 3);
}


static void
tombs(void)
{
    some();

    (void) ngx_http_ai_limit_reap(st, T0, dead, 3);
}


static void
saved(void)
{
    some();

    nsnapshot = ngx_http_ai_limit_snapshot(st, snapshot, sizeof(snapshot));

    init();
    take("k2", 1, T0, 10);
}


static void
saved_one(void)
{
    ngx_uint_t  m;

    init();
    take("k2", 1, T0, 10);
    settle(1, 7);

    nsnapshot = ngx_http_ai_limit_snapshot(st, snapshot, sizeof(snapshot));

    for (m = 0; m < 3; m++) {
        ngx_http_ai_limit_key(st, 1)->meters.windows[m].used = 1;
    }
}


/* of a process that died in the midst of it */

static void
broken(void)
{
    some();

    ngx_http_ai_limit_keep(st, &st->head, sizeof(st->head));
    memset(&st->head, 0xff, sizeof(st->head));

    ngx_http_ai_limit_keep(st, ngx_http_ai_limit_key(st, 1),
                           sizeof(ngx_http_ai_limit_link_t));
    memset(ngx_http_ai_limit_key(st, 1), 0xff,
           sizeof(ngx_http_ai_limit_link_t));

    ngx_http_ai_limit_keep(st, &ngx_http_ai_limit_key(st, 1)->link.next, 4);
    ngx_http_ai_limit_key(st, 1)->link.next = 7;
}


static void
run_reserve(void)
{
    take("k1", 20, T0 + 100, 50);
}


static void
run_plain(void)
{
    /* where it is */

    holds[25].key = 2;
    take("k2", 25, T0 + 100, 50);
}


/* what was changed already is put back at once */

static void
run_plain_refused(void)
{
    holds[25].key = 2;
    take("k2", 25, T0 + 100, 9990);
}


static void
run_plain_settle(void)
{
    settle(2, 20);
}


static void
run_plain_settle_more(void)
{
    settle(2, 2000);
}


static void
run_new(void)
{
    take("new", 20, T0 + 100, 50);
}


static void
run_refused(void)
{
    take("k1", 20, T0 + 100, 9990);
}


static void
run_repeated(void)
{
    take("k1", 1, T0 + 100, 10);
}


static void
run_room(void)
{
    take("new", 120, T0 + HOUR, 50);
}


static void
run_space(void)
{
    take("k1", 220, T0 + 100, 0);
}


static void
run_topup(void)
{
    topup(1, 40);
}


static void
run_topup_refused(void)
{
    topup(1, 9990);
}


static void
run_settle(void)
{
    settle(1, 20);
}


static void
run_settle_more(void)
{
    settle(1, 2000);
}


static void
run_late(void)
{
    settle(1, 20);
}


static void
run_reap(void)
{
    (void) ngx_http_ai_limit_reap(st, T0 + 10, dead, 1);
}


static void
run_lapse(void)
{
    (void) ngx_http_ai_limit_reap(st, T0 + HOUR / 60, NULL, 0);
    (void) ngx_http_ai_limit_reap(st, T0 + 2 * HOUR, NULL, 0);
    st->jumped = 0;
    (void) ngx_http_ai_limit_reap(st, T0 + 2 * HOUR, NULL, 0);
}


static void
run_reset(void)
{
    ngx_str_t  s = ngx_string("k1");

    (void) ngx_http_ai_limit_reset(st, &s);
}


static void
run_reset_all(void)
{
    (void) ngx_http_ai_limit_reset(st, NULL);
}


static void
run_restore(void)
{
    (void) ngx_http_ai_limit_restore(st, snapshot, nsnapshot);
}


static void
run_enter(void)
{
    (void) ngx_http_ai_limit_enter(st);
}


static step_t  steps[] = {
    { "reserve", some, run_reserve, 0 },
    { "reserve, plain", plain, run_plain, 0 },
    { "reserve, plain, several", plain_several, run_plain, 0 },
    { "reserve, not plain after all", plain_several, run_plain_refused, 0 },
    { "settle, plain", plain, run_plain_settle, 0 },
    { "settle, plain, several", plain_several, run_plain_settle, 0 },
    { "settle, plain, more", plain_several, run_plain_settle_more, 0 },
    { "reserve, a new key", some, run_new, 0 },
    { "reserve, refused", some, run_refused, 0 },
    { "reserve, repeated", some, run_repeated, 0 },
    { "reserve, a key gives way", full_keys, run_room, 1 },
    { "reserve, a tombstone gives way", full_holds, run_space, 1 },
    { "top up", some, run_topup, 0 },
    { "top up, refused", some, run_topup_refused, 0 },
    { "settle", some, run_settle, 0 },
    { "settle, more than was held", some, run_settle_more, 0 },
    { "settle, after it was reaped", tombs, run_late, 0 },
    { "reap", some, run_reap, 0 },
    { "reap, another", tombs, run_reap, 0 },
    { "reap, old tombstones", tombs, run_lapse, 1 },
    { "reset", some, run_reset, 0 },
    { "reset, all", some, run_reset_all, 1 },
    { "restore", saved, run_restore, 1 },
    { "restore, one", saved_one, run_restore, 0 },
    { "undo", broken, run_enter, 0 },
};


/* what counts of a ledger: not what is in free slots, and not the clocks */

static size_t
digest(ngx_http_ai_limit_store_t *s, u_char *to)
{
    u_char                    *p;
    uint32_t                   i;
    ngx_http_ai_limit_head_t   head;
    ngx_http_ai_limit_key_t   *k;
    ngx_http_ai_limit_slot_t  *h;

    head = s->head;
    head.stats.repaired = 0;

    p = ngx_cpymem(to, &head, sizeof(head));

    p = ngx_cpymem(p, ngx_http_ai_limit_kchain(s, 0), 4 * (s->kmask + 1));
    p = ngx_cpymem(p, ngx_http_ai_limit_hchain(s, 0), 4 * (s->hmask + 1));

    for (i = 1; i <= s->head.ktop && i <= s->nkeys; i++) {
        k = ngx_http_ai_limit_key(s, i);
        p = ngx_cpymem(p, &k->link, sizeof(k->link));

        if (k->link.used) {
            p = ngx_cpymem(p, &k->meters, sizeof(k->meters));
            p = ngx_cpymem(p, k->data, k->link.len);
        }
    }

    for (i = 1; i <= s->head.htop && i <= s->nholds; i++) {
        h = ngx_http_ai_limit_slot(s, i);
        p = ngx_cpymem(p, &h->place, sizeof(h->place));

        if (h->place.state != NGX_HTTP_AI_HOLD_FREE) {
            p = ngx_cpymem(p, (u_char *) h + sizeof(h->place),
                           offsetof(ngx_http_ai_limit_slot_t, output)
                           - sizeof(h->place));
        }
    }

    return p - to;
}


static ngx_int_t
step_through(step_t *s)
{
    int           status;
    pid_t         pid;
    size_t        n;
    time_t        start;
    ngx_uint_t    nsteps, nstates, undone, bad;
    const char   *error;

    ngx_http_ai_limit_store_t  *c = (ngx_http_ai_limit_store_t *) copy;

    /* what is before and after it */

    s->prepare();
    memcpy(copy, block, SIZE);

    (void) ngx_http_ai_limit_enter(c);
    nbefore = digest(c, before);

    s->run();
    nafter = digest(st, after);

    s->prepare();
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
    undone = 0;
    bad = 0;
    error = NULL;
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

            undone += ngx_http_ai_limit_enter(c);
            error = ngx_http_ai_limit_check(c);
            n = digest(c, now);

            if (error
                || (!s->several
                    && (n != nbefore || memcmp(now, before, n) != 0)
                    && (n != nafter || memcmp(now, after, n) != 0)))
            {
                if (bad++ == 0) {
                    diag("%s, step %u: %s", s->name, (unsigned) nsteps,
                         error ? error : "neither before nor after");
                }
            }
        }

        if (time(NULL) - start > 30) {
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

    n = digest(st, now);
    error = ngx_http_ai_limit_check(st);

    if (error || n != nafter || memcmp(now, after, n) != 0) {
        diag("%s: %s", s->name, error ? error : "not done");
        bad++;
    }

    ok(bad == 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0
       && nsteps > 100, "%s: %u instructions, %u states, %u undone", s->name,
       (unsigned) nsteps, (unsigned) nstates, (unsigned) undone);

    return NGX_OK;
}


int
main(void)
{
    ngx_int_t   rc;
    ngx_uint_t  i;

    block = mmap(NULL, SIZE, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANON, -1,
                 0);
    copy = aligned_alloc(64, SIZE);
    seen = malloc(SIZE);
    before = malloc(SIZE);
    after = malloc(SIZE);
    now = malloc(SIZE);

    if (block == MAP_FAILED || copy == NULL || seen == NULL || before == NULL
        || after == NULL || now == NULL)
    {
        abort();
    }

    for (i = 0; i < sizeof(steps) / sizeof(step_t); i++) {
        rc = step_through(&steps[i]);

        if (rc != NGX_OK) {
            skip("processes cannot be traced here");
            break;
        }
    }

    free(copy);
    free(seen);
    free(before);
    free(after);
    free(now);

    return done_testing();
}

#else

int
main(void)
{
    skip("processes cannot be traced in single steps here");

    return done_testing();
}

#endif
