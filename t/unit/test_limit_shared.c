
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Processes that share ledgers and are killed at any moment, also inside of a
 * change, against a model.
 *
 * Each operation is written to a log next to its ledger: what is intended
 * before it, what became of it after it.  When its process dies between, the
 * next one that takes the lock concludes from the ledger what became of it.
 * The main process kills, forces locks open as nginx's master does, and
 * replays the logs in a model of its own that knows no crash.
 *
 *   AI_LIMIT_OPS  operations, in rounds of 100,000 (10000000: the long mode,
 *                 with more than 10,000 kills)
 *   AI_LIMIT_SEED
 */


#include "test.h"
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include "ngx_http_ai_limit_block.h"


#define M(name)     NGX_HTTP_AI_METER_ ## name
#define MAX         NGX_HTTP_AI_METER_MAX

#define ZONES       4
#define PROCS       4
#define KEYS        12
#define MANY        600
#define RUNNING     12
#define LOG         1024
#define ROUND       100000
#define IDS         60000
#define OWNERS      4096
#define SIZE        (64 * 1024)

#define T0          ((int64_t) 1700000000000)
#define HOUR        3600000
#define DEADLINE    3000

#define OP_RESERVE  1
#define OP_TOPUP    2
#define OP_SETTLE   3
#define OP_REAP     4

#define DONE        1
#define REFUSED     2
#define NOTHING     3


typedef struct {
    volatile uint32_t           op;
    uint32_t                    result;
    uint32_t                    doubt;
    uint32_t                    key;
    uint32_t                    known;      /* the key has a slot */
    uint32_t                    late;
    uint32_t                    deaths;
    uint32_t                    dead;       /* its process was */
    uint64_t                    id;
    int64_t                     now;
    int64_t                     time;
    ngx_http_ai_hold_t          hold;
    ngx_http_ai_limit_stats_t   before;
    ngx_http_ai_limit_t         limits[MAX];
    ngx_http_ai_amounts_t       asked;
    ngx_http_ai_amounts_t       had;
    ngx_http_ai_amounts_t       has;        /* or was charged with */
    ngx_http_ai_calendar_t      windows[NGX_HTTP_AI_LIMIT_WINDOWS];
    int64_t                     rates[NGX_HTTP_AI_LIMIT_RATES];
    int64_t                     used[NGX_HTTP_AI_LIMIT_RATES];
} record_t;


typedef struct {
    volatile int64_t            lo;
    volatile int64_t            hi;
} seen_t;


typedef struct {
    u_char                      block[SIZE];
    volatile ngx_atomic_t       lock;
    volatile uint64_t           n;
    record_t                    log[LOG];
    seen_t                      seen[IDS];
} zone_t;


typedef struct {
    volatile ngx_atomic_t       id;
    volatile ngx_atomic_t       clock;      /* ms since T0 */
    volatile int64_t            step;
    volatile uint32_t           stop;
    volatile uint32_t           failed;
    volatile uint32_t           deaths;
    volatile uint32_t           died[OWNERS];   /* 0: alive, or which death */
    zone_t                      zones[ZONES];
} shared_t;


/* a request, as its process knows it */

typedef struct {
    uint64_t                    id;
    uint32_t                    n;
    uint32_t                    zones[ZONES];
    uint32_t                    keys[ZONES];
    ngx_http_ai_hold_t          holds[ZONES];
    int64_t                     output;
} running_t;


/* the model */

typedef struct {
    u_char                      state;      /* of the slot's */
    uint32_t                    key;
    int64_t                     then;
    ngx_http_ai_amounts_t       v;          /* held or charged */
    int32_t                     events[NGX_HTTP_AI_LIMIT_RATES];
} mhold_t;


typedef struct {
    ngx_http_ai_calendar_t      windows[NGX_HTTP_AI_LIMIT_WINDOWS];
    int64_t                     slots;
    int64_t                     holds;
} mkey_t;


typedef struct {
    int64_t                     time;
    int64_t                     limit;      /* from now on */
    int64_t                     burst;
    int64_t                     amount;
    int32_t                     next;       /* of the same hold */
    u_char                      admitted;
    u_char                      m;
    uint16_t                    key;
} event_t;


static shared_t                    *sh;
static ngx_http_ai_limit_store_t   *st[ZONES];
static uint64_t                     rnd;
static uint32_t                     self;
static pid_t                        my_pid;

static mhold_t                     *mholds[ZONES];
static mkey_t                       mkeys[ZONES][MANY];
static event_t                     *events[ZONES];
static int32_t                      nevents[ZONES], maxevents;
static int64_t                      last_time[ZONES], last_now[ZONES];
static uint64_t                     done, counts[5][4], doubts[5][4], late;


static int64_t
below(int64_t n)
{
    rnd ^= rnd << 13;
    rnd ^= rnd >> 7;
    rnd ^= rnd << 17;

    return (rnd >> 11) % n;
}


static void
die(const char *what)
{
    diag("process %u: %s", self, what);
    fflush(stdout);

    sh->failed = 1;
    sh->stop = 1;
    _exit(1);
}


static ngx_http_ai_amounts_t
held(ngx_http_ai_limit_slot_t *h)
{
    ngx_uint_t             m;
    ngx_http_ai_amounts_t  a;

    for (m = 0; m < MAX; m++) {
        a.v[m] = (h->place.mask & 1 << m) ? h->amounts.v[m] : 0;
    }

    return a;
}


static void
conclude(ngx_uint_t z, record_t *r)
{
    char                        key[16];
    uint32_t                    i;
    uint64_t                    id;
    ngx_str_t                   s;
    ngx_uint_t                  m;
    ngx_http_ai_limit_key_t    *k;
    ngx_http_ai_limit_slot_t   *h;
    ngx_http_ai_limit_stats_t  *now;

    now = &st[z]->head.stats;
    r->result = NOTHING;
    r->time = st[z]->time;

    if (now->refused != r->before.refused) {
        r->result = REFUSED;
    }

    switch (r->op) {

    case OP_RESERVE:

        if (now->reserved == r->before.reserved) {
            break;
        }

        r->result = DONE;

        for (i = 1; i <= st[z]->head.htop; i++) {
            h = ngx_http_ai_limit_slot(st[z], i);
            memcpy(&id, h->id, 8);

            if (h->place.state == NGX_HTTP_AI_HOLD_LIVE && id == r->id) {
                r->has = held(h);
                break;
            }
        }

        if (i > st[z]->head.htop) {
            die("a hold is not there");
        }

        break;

    case OP_TOPUP:
        h = ngx_http_ai_limit_slot(st[z], r->hold.index);

        if (h->place.serial != r->hold.serial
            || h->place.state != NGX_HTTP_AI_HOLD_LIVE)
        {
            break;
        }

        r->has = held(h);
        r->result = memcmp(&r->has, &r->had, sizeof(r->has)) ? DONE : REFUSED;

        break;

    case OP_SETTLE:

        if (now->settled != r->before.settled) {
            r->result = DONE;
        }

        break;

    case OP_REAP:

        if (now->expired == r->before.expired) {
            break;
        }

        h = ngx_http_ai_limit_slot(st[z], st[z]->head.tomb_last);
        memcpy(&r->id, h->id, 8);

        k = ngx_http_ai_limit_key(st[z], h->key);
        r->key = atoi((char *) k->data);
        r->has = h->amounts;
        r->dead = sh->died[h->owner] && sh->died[h->owner] <= r->deaths;
        r->result = DONE;
    }

    snprintf(key, sizeof(key), "%u.", (unsigned) r->key);
    s.data = (u_char *) key;
    s.len = strlen(key);

    r->known = ngx_http_ai_limit_find(st[z], &s,
                            ngx_http_ai_limit_hash(st[z]->seed, s.data,
                                                   s.len));

    if (r->known) {
        k = ngx_http_ai_limit_key(st[z], r->known);
        memcpy(r->windows, k->meters.windows, sizeof(r->windows));

        for (m = 0; m < NGX_HTTP_AI_LIMIT_RATES; m++) {
            r->rates[m] = k->meters.rates[m].limit;
            r->used[m] = k->meters.rates[m].used;
        }
    }
}


static void
end(ngx_uint_t z)
{
    record_t  *r;

    r = &sh->zones[z].log[sh->zones[z].n];

    conclude(z, r);

    ngx_memory_barrier();
    sh->zones[z].n++;
}


static void
lock(ngx_uint_t z)
{
    time_t      start;
    record_t   *r;
    ngx_uint_t  n;

    start = 0;

    for (n = 0; !ngx_atomic_cmp_set(&sh->zones[z].lock, 0, my_pid); n++) {
        sched_yield();

        if (n % 1024 == 0) {
            start = start ? start : time(NULL);

            if (time(NULL) - start > 30) {
                die("a lock is stuck");
            }
        }
    }

    (void) ngx_http_ai_limit_enter(st[z]);

    if (sh->zones[z].n < LOG) {
        r = &sh->zones[z].log[sh->zones[z].n];

        if (r->op) {
            r->doubt = 1;
            end(z);
        }
    }
}


static void
unlock(ngx_uint_t z)
{
    ngx_http_ai_limit_leave(st[z]);
    ngx_memory_barrier();
    sh->zones[z].lock = 0;
}


static int64_t
clock_now(ngx_uint_t z)
{
    int64_t  now;

    now = T0 + ngx_atomic_fetch_add(&sh->clock, below(3));

    /* the last zone's windows must not come again: it gives up keys */

    return now + ((z == ZONES - 1) ? 0 : sh->step) - below(20);
}


/* the lock is held; NULL: the log is full */

static record_t *
begin(ngx_uint_t z)
{
    record_t  *r;

    lock(z);

    if (sh->zones[z].n == LOG) {
        unlock(z);
        usleep(200);
        return NULL;
    }

    r = &sh->zones[z].log[sh->zones[z].n];

    memset(r, 0, sizeof(record_t));
    r->before = st[z]->head.stats;
    r->deaths = sh->deaths;

    return r;
}


static void
set_limits(ngx_uint_t z, int64_t now, ngx_http_ai_limit_t *limits)
{
    int64_t     raise, length;
    ngx_uint_t  m;

    static const int64_t  values[ZONES][MAX] = {
        { 3000, 60000, -1, -1, 8, -1, -1, -1 },
        { -1, -1, -1, -1, -1, 300, 60000, 9000000 },
        { 2000, 50000, 20000, 40000, -1, -1, -1, -1 },
        { -1, -1, -1, -1, 6, 500, 30000, 4000000 }
    };

    memset(limits, 0, MAX * sizeof(ngx_http_ai_limit_t));

    /* limits are raised and lowered */

    raise = (below(4) == 0) ? below(150) + 25 : 100;

    for (m = 0; m < MAX; m++) {
        limits[m].limit = values[z][m];

        if (values[z][m] < 0) {
            continue;
        }

        limits[m].limit = values[z][m] * raise / 100;
        limits[m].period = (z == 0) ? 7000 : 6000;
        limits[m].burst = (z == 0 && m == M(REQUESTS)) ? 50
                          : (z == 2) ? limits[m].limit / 2 : 0;

        if (m > M(CONCURRENT)) {
            length = 2000 * (m - M(CONCURRENT));
            limits[m].start = now / length * length;
            limits[m].end = limits[m].start + length;
        }
    }
}


static void
set_amounts(ngx_http_ai_amounts_t *a)
{
    int64_t  in, out;

    memset(a, 0, sizeof(ngx_http_ai_amounts_t));

    in = below(200);
    out = below(below(16) ? 300 : 40000);

    a->v[M(REQUESTS)] = 1;
    a->v[M(INPUT)] = in;
    a->v[M(OUTPUT)] = out;
    a->v[M(TOKENS)] = in + out;
    a->v[M(CONCURRENT)] = 1;
    a->v[M(Q_REQUESTS)] = 1;
    a->v[M(Q_TOKENS)] = in + out;
    a->v[M(Q_MONEY)] = in * 25 + out * 100;
}


static ngx_int_t
settle(running_t *q, ngx_uint_t i, ngx_http_ai_amounts_t *actual)
{
    u_char                     id[16];
    int64_t                    now;
    record_t                  *r;
    ngx_uint_t                 z;
    ngx_http_ai_limit_e        rc;
    ngx_http_ai_limit_slot_t  *h;

    z = q->zones[i];
    r = begin(z);

    if (r == NULL) {
        return NGX_AGAIN;
    }

    now = clock_now(z);

    memset(id, 0, 16);
    memcpy(id, &q->id, 8);

    h = ngx_http_ai_limit_slot(st[z], q->holds[i].index);

    r->key = q->keys[i];
    r->id = q->id;
    r->now = now;
    r->asked = *actual;
    r->hold = q->holds[i];
    r->late = (h->place.state == NGX_HTTP_AI_HOLD_TOMB);
    ngx_memory_barrier();
    r->op = OP_SETTLE;

    rc = ngx_http_ai_limit_settle(st[z], &q->holds[i], id, now, actual);

    end(z);

    if ((rc == NGX_HTTP_AI_LIMIT_OK) != (r->result == DONE)) {
        die("a settle has done something else");
    }

    if (rc == NGX_HTTP_AI_LIMIT_OK && below(20) == 0
        && ngx_http_ai_limit_settle(st[z], &q->holds[i], id, now, actual)
           != NGX_HTTP_AI_LIMIT_GONE)
    {
        die("a hold was settled twice");
    }

    unlock(z);

    return NGX_OK;
}


static void
finish(running_t *q, ngx_uint_t give_back)
{
    ngx_uint_t             i, m;
    ngx_http_ai_amounts_t  a;

    memset(&a, 0, sizeof(a));

    if (!give_back) {
        set_amounts(&a);

        for (m = 0; m < MAX; m++) {
            a.v[m] = below(4) ? below(a.v[m] + 1) : a.v[m];
        }

        a.v[M(REQUESTS)] = below(8) ? 1 : 0;
    }

    for (i = 0; i < q->n; i++) {
        while (settle(q, i, &a) == NGX_AGAIN) {
            if (sh->stop) {
                return;
            }
        }
    }

    q->id = 0;
}


static void
start(running_t *q)
{
    char                         key[16];
    u_char                       id[16];
    int64_t                      now;
    record_t                    *r;
    ngx_str_t                    s;
    ngx_uint_t                   z, i;
    ngx_http_ai_hold_t           again;
    ngx_http_ai_limit_e          rc;
    ngx_http_ai_limit_t          limits[MAX];
    ngx_http_ai_amounts_t        a;
    ngx_http_ai_limit_refusal_t  refusal;

    memset(q, 0, sizeof(running_t));
    again.key = 0;

    q->id = ngx_atomic_fetch_add(&sh->id, 1);

    if (q->id >= IDS) {
        q->id = 0;
        usleep(1000);
        return;
    }

    memset(id, 0, 16);
    memcpy(id, &q->id, 8);
    set_amounts(&a);

    for (z = below(ZONES); z < ZONES; z += 1 + below(2)) {
        i = q->n;
        q->zones[i] = z;
        q->keys[i] = (z == ZONES - 1) ? below(MANY) : below(below(KEYS) + 1);

        snprintf(key, sizeof(key), "%u.", (unsigned) q->keys[i]);
        s.data = (u_char *) key;
        s.len = strlen(key);

        for ( ;; ) {
            r = begin(z);

            if (r) {
                break;
            }

            if (sh->stop) {
                return;
            }
        }

        now = clock_now(z);
        set_limits(z, now, limits);

        r->key = q->keys[i];
        r->id = q->id;
        r->now = now;
        r->asked = a;
        memcpy(r->limits, limits, sizeof(limits));
        ngx_memory_barrier();
        r->op = OP_RESERVE;

        rc = ngx_http_ai_limit_reserve(st[z], &s, id, self, now,
                                       now + (below(16) ? DEADLINE : 50),
                                       limits, &a, &q->holds[i], &refusal);

        end(z);

        if ((rc == NGX_HTTP_AI_LIMIT_OK) != (r->result == DONE)
            || (rc == NGX_HTTP_AI_LIMIT_REFUSED) != (r->result == REFUSED))
        {
            die("a reserve has done something else");
        }

        if (rc == NGX_HTTP_AI_LIMIT_OK && below(20) == 0
            && (ngx_http_ai_limit_reserve(st[z], &s, id, self, now,
                                          now + DEADLINE, limits, &a, &again,
                                          &refusal)
                != NGX_HTTP_AI_LIMIT_REPEATED
                || again.index != q->holds[i].index
                || again.serial != q->holds[i].serial))
        {
            die("the same id has another hold");
        }

        unlock(z);

        if (rc != NGX_HTTP_AI_LIMIT_OK) {
            finish(q, 1);
            return;
        }

        q->n++;
    }
}


static void
more(running_t *q)
{
    int64_t                      now;
    record_t                    *r;
    ngx_uint_t                   i, z;
    ngx_http_ai_limit_e          rc;
    ngx_http_ai_limit_t          limits[MAX];
    ngx_http_ai_amounts_t        a;
    ngx_http_ai_limit_slot_t    *h;
    ngx_http_ai_limit_refusal_t  refusal;

    memset(&a, 0, sizeof(a));

    if (below(4)) {
        a.v[M(OUTPUT)] = below(256);
        a.v[M(TOKENS)] = a.v[M(OUTPUT)];
        a.v[M(Q_TOKENS)] = a.v[M(OUTPUT)];
        a.v[M(Q_MONEY)] = a.v[M(OUTPUT)] * 100;
    }

    for (i = 0; i < q->n; i++) {
        z = q->zones[i];
        r = begin(z);

        if (r == NULL) {
            return;
        }

        now = clock_now(z);
        set_limits(z, now, limits);

        h = ngx_http_ai_limit_slot(st[z], q->holds[i].index);

        r->key = q->keys[i];
        r->id = q->id;
        r->now = now;
        r->asked = a;
        r->had = held(h);
        r->hold = q->holds[i];
        memcpy(r->limits, limits, sizeof(limits));
        ngx_memory_barrier();
        r->op = OP_TOPUP;

        rc = ngx_http_ai_limit_topup(st[z], &q->holds[i], now, now + DEADLINE,
                                     limits, &a, &refusal);

        end(z);

        if (r->result == DONE && rc != NGX_HTTP_AI_LIMIT_OK) {
            die("a refused top-up has taken something");
        }

        unlock(z);
    }
}


static void
see(running_t *q)
{
    seen_t     *s;
    ngx_uint_t  i;

    q->output += below(400);

    for (i = 0; i < q->n; i++) {
        s = &sh->zones[q->zones[i]].seen[q->id];

        s->hi = q->output;
        ngx_memory_barrier();
        ngx_http_ai_limit_seen(st[q->zones[i]], &q->holds[i], q->output,
                               q->output * 100);
        ngx_memory_barrier();
        s->lo = q->output;
    }
}


static ngx_uint_t
alive(uint64_t owner)
{
    return sh->died[owner] == 0;
}


static ngx_int_t
reap(ngx_uint_t z)
{
    int64_t     now;
    record_t   *r;
    ngx_uint_t  n;

    r = begin(z);

    if (r == NULL) {
        return NGX_AGAIN;
    }

    now = clock_now(z);

    r->now = now;
    r->key = KEYS;
    ngx_memory_barrier();
    r->op = OP_REAP;

    n = ngx_http_ai_limit_reap(st[z], now, alive, 1);

    end(z);

    if (n != (r->result == DONE)) {
        die("a reaper has done something else");
    }

    unlock(z);

    return n ? NGX_OK : NGX_DONE;
}


static void
work(uint32_t owner)
{
    running_t   running[RUNNING], *q;

    self = owner;
    my_pid = getpid();
    rnd = (rnd ^ ((uint64_t) owner << 32) ^ owner) * 0x9e3779b97f4a7c15 | 1;

    memset(running, 0, sizeof(running));

    while (!sh->stop) {
        q = &running[below(RUNNING)];

        if (q->id == 0) {
            start(q);
            continue;
        }

        switch (below(10)) {

        case 0:
        case 1:
        case 2:
        case 3:
            more(q);
            break;

        case 4:
            see(q);
            break;

        case 5:
            reap(below(ZONES));
            break;

        case 6:
            if (below(20) == 0) {
                /* forgotten: its deadline comes */
                q->id = 0;
                break;
            }

            /* fall through */

        default:
            finish(q, below(16) == 0);
        }
    }

    _exit(0);
}


#include "test_limit_model.h"


/* returns how many records there were */

static ngx_uint_t
drain(ngx_uint_t z)
{
    const char  *error;
    ngx_uint_t   i, n;

    lock(z);

    error = ngx_http_ai_limit_check(st[z]);

    if (error) {
        diag("zone %u: check: %s", (unsigned) z, error);
        sh->failed = 1;
    }

    n = sh->zones[z].n;

    for (i = 0; i < n && !sh->failed; i++) {
        model_record(z, &sh->zones[z].log[i]);
    }

    for (i = 0; i < n; i++) {
        sh->zones[z].log[i].op = 0;
    }

    sh->zones[z].n = 0;

    unlock(z);

    return n;
}


static void
spawn(pid_t *pid, uint32_t *owner, uint32_t n)
{
    if (n >= OWNERS) {
        die("too many processes");
    }

    fflush(stdout);

    *owner = n;
    *pid = fork();

    if (*pid == 0) {
        work(n);
    }

    if (*pid == -1) {
        die("fork");
    }
}


static void
bury(pid_t pid, uint32_t owner, ngx_uint_t *inside)
{
    int         status;
    ngx_uint_t  z;

    while (waitpid(pid, &status, 0) == -1 && errno == EINTR) { /* void */ }

    sh->died[owner] = sh->deaths + 1;
    sh->deaths++;

    /* as ngx_unlock_mutexes() */

    for (z = 0; z < ZONES; z++) {
        *inside += ngx_atomic_cmp_set(&sh->zones[z].lock, pid, 0);
    }
}


static ngx_uint_t
round_of(ngx_uint_t ops, ngx_uint_t *kills, ngx_uint_t *inside,
    uint64_t *repaired)
{
    pid_t         pids[PROCS];
    time_t        begun;
    int64_t       back;
    uint32_t      owners[PROCS], owner;
    ngx_int_t     rc;
    ngx_uint_t    i, k, z, n, next, step, quiet;

    memset(sh, 0, sizeof(shared_t));
    memset(mkeys, 0, sizeof(mkeys));

    sh->id = 1;
    sh->clock = 100000;

    for (z = 0; z < ZONES; z++) {
        st[z] = ngx_http_ai_limit_store_init(sh->zones[z].block, SIZE, 16);
        memset(mholds[z], 0, IDS * sizeof(mhold_t));
        nevents[z] = 0;
        last_time[z] = 0;
        last_now[z] = 0;

        for (i = 0; i < MANY; i++) {
            for (n = 0; n < NGX_HTTP_AI_LIMIT_WINDOWS; n++) {
                mkeys[z][i].windows[n].limit = -1;
            }
        }
    }

    owner = 1;

    for (i = 0; i < PROCS; i++) {
        spawn(&pids[i], &owners[i], owner++);
    }

    n = 0;
    next = 0;
    step = 5000;
    back = 0;
    begun = time(NULL);

    while (n < ops && sh->id < IDS && !sh->failed) {
        quiet = 1;

        for (z = 0; z < ZONES; z++) {
            i = drain(z);
            n += i;
            quiet &= (i == 0);
        }

        for (k = 0; n >= next && k < PROCS; k++) {
            next += 1 + below(1400);
            i = below(PROCS);

            kill(pids[i], SIGKILL);
            bury(pids[i], owners[i], inside);
            spawn(&pids[i], &owners[i], owner++);
            (*kills)++;

            for (z = 0; z < ZONES; z++) {
                n += drain(z);
            }
        }

        if (n >= step) {
            step = n + 3000 + below(10000);

            /* an hour back or forth, or back to where it was */

            back = back ? 0 : (below(2) ? HOUR : -HOUR);
            sh->step = back;
        }

        if (waitpid(-1, NULL, WNOHANG) > 0) {
            diag("a process has died by itself");
            sh->failed = 1;
        }

        if (time(NULL) - begun > 300) {
            diag("too slow");
            sh->failed = 1;
        }

        usleep(quiet ? 1000 : 100 + below(500));
    }

    sh->stop = 1;

    for (i = 0; i < PROCS; i++) {
        if (below(2)) {
            kill(pids[i], SIGKILL);
        }

        bury(pids[i], owners[i], inside);
    }

    self = 0;

    for (z = 0; z < ZONES && !sh->failed; z++) {

        do {
            n += drain(z);
            rc = reap(z);
        } while (rc != NGX_DONE && !sh->failed);

        n += drain(z);

        for (i = 0; i < ((z == ZONES - 1) ? MANY : KEYS); i++) {
            if (mkeys[z][i].slots || mkeys[z][i].holds) {
                diag("zone %u: %lld slots", (unsigned) z,
                     (long long) mkeys[z][i].slots);
                sh->failed = 1;
            }
        }

        if (st[z]->head.nlive || ngx_http_ai_limit_check(st[z])) {
            diag("zone %u: %u holds are left", (unsigned) z,
                 st[z]->head.nlive);
            sh->failed = 1;
        }

        if (z == 0 || z == 2) {
            model_rates(z);
        }

        *repaired += st[z]->head.stats.repaired;
    }

    done += n;

    return sh->failed;
}


int
main(void)
{
    char        *s;
    uint64_t     ops, repaired;
    ngx_uint_t   z, i, rounds, kills, inside;

    s = getenv("AI_LIMIT_OPS");
    ops = s ? strtoull(s, NULL, 10) : ROUND;

    s = getenv("AI_LIMIT_SEED");
    rnd = s ? strtoull(s, NULL, 10) : (uint64_t) time(NULL);
    diag("AI_LIMIT_SEED=%llu", (unsigned long long) rnd);
    rnd = rnd * 0x9e3779b97f4a7c15 | 1;

    my_pid = getpid();

    sh = mmap(NULL, sizeof(shared_t), PROT_READ|PROT_WRITE,
              MAP_SHARED|MAP_ANON, -1, 0);

    if (sh == MAP_FAILED) {
        skip("no shared memory");
        return done_testing();
    }

    maxevents = 8 * ROUND;

    for (z = 0; z < ZONES; z++) {
        mholds[z] = malloc(IDS * sizeof(mhold_t));
        events[z] = malloc(maxevents * sizeof(event_t));

        if (mholds[z] == NULL || events[z] == NULL) {
            abort();
        }
    }

    kills = 0;
    inside = 0;
    repaired = 0;

    for (rounds = 0; done < ops; rounds++) {
        if (round_of(ngx_min(ops - done, ROUND), &kills, &inside, &repaired))
        {
            break;
        }
    }

    ok(done >= ops && !sh->failed, "%llu operations, %u kills: the ledger "
       "is the truth, no limit was passed, nothing is held",
       (unsigned long long) done, (unsigned) kills);

    diag("%u kills while the lock was held, %llu changes undone",
         (unsigned) inside, (unsigned long long) repaired);

    diag("%llu holds were reaped and settled later",
         (unsigned long long) late);

    for (i = OP_RESERVE; i <= OP_REAP; i++) {
        diag("%s: done %llu, refused %llu, nothing %llu; after a death: "
             "%llu, %llu, %llu",
             (i == OP_RESERVE) ? "reserve" : (i == OP_TOPUP) ? "top up"
             : (i == OP_SETTLE) ? "settle" : "reap",
             (unsigned long long) counts[i][DONE],
             (unsigned long long) counts[i][REFUSED],
             (unsigned long long) counts[i][NOTHING],
             (unsigned long long) doubts[i][DONE],
             (unsigned long long) doubts[i][REFUSED],
             (unsigned long long) doubts[i][NOTHING]);
    }

    for (z = 0; z < ZONES; z++) {
        free(mholds[z]);
        free(events[z]);
    }

    return done_testing();
}
