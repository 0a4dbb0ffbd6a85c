
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "test.h"
#include "ngx_http_ai_cache_recent.h"


#define SLOTS  4096


static ngx_pool_t               *pool;
static ngx_http_ai_json_t        json, deeper, wider;
static ngx_http_ai_cache_ask_t   ask;
static ngx_str_t                 body = ngx_string("{\"model\":\"m\"}");


/* of its own size, so that reading behind it is seen */

static ngx_int_t
find(ngx_http_ai_cache_ask_t *a, ngx_str_t *text, uint64_t *tag,
    ngx_http_ai_cache_key_t *key)
{
    ngx_int_t  rc;
    ngx_str_t  copy;

    copy.len = text->len;
    copy.data = test_copy(text->data, text->len);

    rc = ngx_http_ai_cache_recent_find(pool, a, &copy, tag, key);

    free(copy.data);

    return rc;
}


static void
keep(ngx_http_ai_cache_ask_t *a, ngx_str_t *text, u_char mark)
{
    uint64_t                 tag[2];
    ngx_http_ai_cache_key_t  key;

    if (find(a, text, tag, &key) != NGX_DECLINED) {
        return;
    }

    ngx_memzero(&key, sizeof(ngx_http_ai_cache_key_t));
    memset(key.id, mark, NGX_HTTP_AI_CACHE_ID_LEN);
    key.exact = mark & 1;
    key.deterministic = !(mark & 1);
    key.scope = mark;
    key.model = mark + 1;

    ngx_http_ai_cache_recent_keep(tag, &key);
}


static void
other(ngx_http_ai_cache_ask_t *a, ngx_str_t *text, const char *name)
{
    uint64_t                 tag[2];
    ngx_http_ai_cache_key_t  key;

    ok(find(a, text, tag, &key) == NGX_DECLINED, name);
}


static void
set(ngx_http_ai_cache_ask_t *a, const char *scope, const char *model,
    const char *vary)
{
    *a = ask;

    a->scope.data = (u_char *) scope;
    a->scope.len = strlen(scope);
    a->model.data = (u_char *) model;
    a->model.len = strlen(model);
    a->vary.data = (u_char *) vary;
    a->vary.len = strlen(vary);
}


static void
test_inputs(void)
{
    char                     scope[2048];
    u_char                   secret[] = "a secret of zone";
    size_t                   i;
    uint64_t                 tag[2];
    ngx_str_t                text;
    ngx_http_ai_nh_t         nh;
    ngx_http_ai_cache_ask_t  a;
    ngx_http_ai_cache_key_t  key;

    other(&ask, &body, "nothing at first");

    keep(&ask, &body, 'k');

    ok(find(&ask, &body, tag, &key) == NGX_OK, "what was kept");
    ok(key.id[0] == 'k' && key.id[NGX_HTTP_AI_CACHE_ID_LEN - 1] == 'k'
       && key.exact && !key.deterministic
       && key.scope == 'k' && key.model == 'k' + 1,
       "all of it");

    /* each byte of the body, and its length */

    text.len = body.len;
    text.data = test_copy(body.data, body.len);

    for (i = 0; i < text.len; i++) {
        text.data[i] ^= 1;
        other(&ask, &text, "another body");
        text.data[i] ^= 1;
    }

    for (i = 0; i < body.len; i++) {
        text.len = i;
        other(&ask, &text, "a shorter body");
    }

    free(text.data);

    a = ask;
    a.dialect = &ngx_http_ai_dialect_anthropic;
    other(&a, &body, "another dialect");

    a = ask;
    a.op = NGX_HTTP_AI_OP_COMPLETIONS;
    other(&a, &body, "another operation");

    a = ask;
    a.plan = 2;
    other(&a, &body, "another plan");

    a = ask;
    a.json = &deeper;
    other(&a, &body, "another depth");

    a.json = &wider;
    other(&a, &body, "another number of values");

    a = ask;
    ngx_http_ai_nh_init(&nh, secret);
    a.nh = &nh;
    other(&a, &body, "a zone with a secret");

    keep(&a, &body, 's');
    ok(find(&a, &body, tag, &key) == NGX_OK && key.id[0] == 's',
       "what was kept for it");

    for (i = 0; i < NGX_HTTP_AI_SIPHASH_SECRET; i++) {
        secret[i] ^= 1;
        ngx_http_ai_nh_init(&nh, secret);
        other(&a, &body, "another secret");
        secret[i] ^= 1;
    }

    ok(find(&ask, &body, tag, &key) == NGX_OK && key.id[0] == 'k',
       "that without a secret");

    set(&a, "acme", "m", "v");
    ok(find(&a, &body, tag, &key) == NGX_OK, "the same in another place");

    set(&a, "acmf", "m", "v");
    other(&a, &body, "another scope");

    set(&a, "acme", "n", "v");
    other(&a, &body, "another model");

    set(&a, "acme", "m", "w");
    other(&a, &body, "another value of vary");

    set(&a, "acmem", "", "v");
    other(&a, &body, "scope and model, the same bytes");

    set(&a, "acme", "mv", "");
    other(&a, &body, "model and vary, the same bytes");

    set(&a, "", "acmem", "v");
    other(&a, &body, "no scope");

    /* longer than what is on the stack */

    memset(scope, 's', sizeof(scope));
    scope[sizeof(scope) - 1] = '\0';

    set(&a, scope, "m", "v");
    other(&a, &body, "a long scope");
    keep(&a, &body, 'l');
    ok(find(&a, &body, tag, &key) == NGX_OK && key.id[0] == 'l',
       "it is found");

    scope[sizeof(scope) - 2] = 't';
    other(&a, &body, "its last byte");
}


/* a place is taken by the last one; what was there is not confused with it */

static void
test_places(void)
{
    char                     text[32];
    uint64_t                 tag[2];
    ngx_str_t                s;
    ngx_uint_t               i, n, there, wrong;
    ngx_http_ai_cache_key_t  key;

    s.data = (u_char *) text;

    for (n = 0; n < 4 * SLOTS; n++) {
        s.len = sprintf(text, "{\"n\":%lu}", (unsigned long) n);
        keep(&ask, &s, n % 251);
    }

    there = 0;
    wrong = 0;

    for (i = 0; i < n; i++) {
        s.len = sprintf(text, "{\"n\":%lu}", (unsigned long) i);

        if (find(&ask, &s, tag, &key) == NGX_OK) {
            there++;
            wrong += (key.id[0] != i % 251 || key.scope != i % 251);
        }
    }

    ok(there > SLOTS / 2 && there <= SLOTS, "as many as there are places");
    ok(wrong == 0, "each with its own key");

    ngx_http_ai_cache_recent_exit();

    other(&ask, &body, "nothing after the exit");

    ngx_http_ai_cache_recent_exit();
}


int
main(void)
{
    pool = ngx_create_pool(4096, NULL);

    json.max_depth = 128;
    json.max_nodes = 1000;
    deeper = json;
    deeper.max_depth = 129;
    wider = json;
    wider.max_nodes = 1001;

    ask.dialect = &ngx_http_ai_dialect_openai;
    ask.op = NGX_HTTP_AI_OP_CHAT;
    ask.json = &json;
    ask.plan = 1;
    ngx_str_set(&ask.scope, "acme");
    ngx_str_set(&ask.model, "m");
    ngx_str_set(&ask.vary, "v");

    test_inputs();
    test_places();

    ngx_destroy_pool(pool);

    return done_testing();
}
