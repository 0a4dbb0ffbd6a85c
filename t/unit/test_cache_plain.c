
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Chats that have a plain form, and those that have none; the form of many is
 * compared with that of the decoder.
 */


#include "test.h"
#include "plain.h"


#define BODIES  200000


static ngx_pool_t  *pool;
static uint32_t     seed = 20261122;


static const char  *plain[] = {
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}]}",
    "{\"messages\":[{\"content\":\"\",\"role\":\"assistant\"}]}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"\\u00e9\\ud800\"}]}",
    "{\"messages\":[{\"r\\u006fle\":\"user\",\"content\":\"a\"}]}",
    "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"s\"},"
    "{\"role\":\"developer\",\"content\":\"d\"},{\"role\":\"user\","
    "\"content\":\"a\"},{\"role\":\"assistant\",\"content\":\"b\"}],"
    "\"temperature\":0.0,\"max_tokens\":1e2,\"stream\":true,"
    "\"stream_options\":{\"include_usage\":true},\"top_p\":1,\"user\":\"u\","
    "\"seed\":-7,\"frequency_penalty\":0.5,\"presence_penalty\":-0.5}",
    "{\"max_completion_tokens\":5,\"messages\":[{\"role\":\"user\","
    "\"content\":\"a\"}]}",
    NULL
};


static const char  *others[] = {
    "{}",
    "[]",
    "[\"messages\",[{\"role\":\"user\",\"content\":\"a\"}]]",
    "1",
    "{\"messages\":[]}",
    "{\"messages\":{}}",
    "{\"messages\":[1]}",
    "{\"messages\":[[\"role\",\"user\",\"content\",\"a\"]]}",
    "{\"messages\":[{}]}",
    "{\"messages\":[{\"role\":\"user\"}]}",
    "{\"messages\":[{\"role\":\"user\",\"role\":\"user\"}]}",
    "{\"messages\":[{\"content\":\"a\",\"content\":\"a\"}]}",
    "{\"messages\":[{\"role\":\"user\",\"content\":null}]}",
    "{\"messages\":[{\"role\":\"user\",\"content\":[]}]}",
    "{\"messages\":[{\"role\":[],\"content\":\"a\"}]}",
    "{\"messages\":[{\"role\":\"tool\",\"content\":\"a\"}]}",
    "{\"messages\":[{\"role\":\"us\\u0065r\",\"content\":\"a\"}]}",
    "{\"messages\":[{\"role\":\"User\",\"content\":\"a\"}]}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\",\"name\":\"n\"}]}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"messages\":"
    "[{\"role\":\"user\",\"content\":\"a\"}]}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"n\":1}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"m\\u006fdel\":"
    "\"m\"}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"max_tokens\":-1}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"max_tokens\":"
    "1e99}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"max_tokens\":1,"
    "\"max_completion_tokens\":1}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"seed\":null}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"}],\"stop\":\"s\"}",
    "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\","
    "\"content\":\"b\",\"x\":1}]}",
    NULL
};


/* what random bodies are made of; the first ones are plain */

static const char  *members[] = {
    "\"model\":\"m\"", "\"temperature\":0", "\"temperature\":0.7",
    "\"max_tokens\":256", "\"max_completion_tokens\":1.50e2", "\"top_p\":1.0",
    "\"stream\":true", "\"stream\":false", "\"user\":\"u\"", "\"seed\":12",
    "\"stream_options\":{\"include_usage\":true}", "\"stream_options\":{}",
    "\"frequency_penalty\":-0", "\"presence_penalty\":0.125",
    "\"temperature\":-0.0e5", "\"max_tokens\":0", "\"max_tokens\":2.5",

    "\"max_tokens\":-3", "\"max_tokens\":\"3\"", "\"temperature\":\"0\"",
    "\"stream\":1", "\"stream_options\":null", "\"user\":7", "\"model\":null",
    "\"t\\u0065mperature\":1", "\"n\":1", "\"n\":2", "\"metadata\":{}",
    "\"stop\":[\"a\"]", "\"top_k\":3", "\"tools\":[]", "\"min_p\":0.5",
    "\"reasoning_effort\":\"low\"", "\"response_format\":{\"type\":\"text\"}",
    "\"seed\":[]", "\"max_completion_tokens\":null"
};

#define NMEMBERS  (sizeof(members) / sizeof(members[0]))
#define NPLAIN    17


static const char  *messages[] = {
    "{\"role\":\"user\",\"content\":\"What is it?\"}",
    "{\"role\":\"system\",\"content\":\"\"}",
    "{\"content\":\"It is \\\"that\\\".\\n\",\"role\":\"assistant\"}",
    "{ \"role\" : \"developer\" , \"content\" : \"x\\ud83d\\ude00\" }",
    "{\"role\":\"user\",\"content\":\"\\udc00 \\ufffd\"}",

    "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"}]}",
    "{\"role\":\"assistant\",\"content\":null}",
    "{\"role\":\"assistant\",\"content\":\"a\",\"refusal\":null}",
    "{\"role\":\"tool\",\"content\":\"a\"}",
    "{\"role\":\"user\",\"content\":\"a\",\"role\":\"system\"}",
    "{\"role\":\"user\"}",
    "[]"
};

#define NMESSAGES  (sizeof(messages) / sizeof(messages[0]))
#define NTEXTS     5


static uint32_t
rnd(uint32_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;

    return seed % n;
}


static int
check(const char *text)
{
    u_char              *copy;
    ngx_http_ai_json_t   j;

    copy = ngx_pnalloc(pool, strlen(text));
    ngx_memcpy(copy, text, strlen(text));

    ngx_memzero(&j, sizeof(j));
    j.pool = pool;

    if (ngx_http_ai_json_parse(&j, copy, strlen(text)) != NGX_OK) {
        diag("not JSON: %s", text);
        abort();
    }

    return plain_check(pool, &j);
}


static void
test_random(void)
{
    int          rc;
    char         body[4096], *p;
    ngx_uint_t   i, k, n, at, odd, yes, no, wrong;

    yes = no = wrong = 0;

    for (i = 0; i < BODIES; i++) {

        if (i % 1000 == 0) {
            ngx_reset_pool(pool);
        }

        /* half of them have nothing but what may be plain */

        odd = rnd(2);
        n = rnd(8);
        at = rnd(n + 1);
        p = body;
        *p++ = '{';

        for (k = 0; k <= n; k++) {

            if (k) {
                *p++ = ',';
            }

            if (k != at) {
                p += sprintf(p, "%s", members[rnd(odd ? NMEMBERS : NPLAIN)]);
                continue;
            }

            p += sprintf(p, "\"messages\":[");

            do {
                p += sprintf(p, "%s%s", (p[-1] == '[') ? "" : ", ",
                             messages[rnd(odd && rnd(3) == 0 ? NMESSAGES
                                                             : NTEXTS)]);
            } while (rnd(3));

            *p++ = ']';
        }

        *p++ = '}';
        *p = '\0';

        rc = check(body);

        if (rc < 0 && wrong++ == 0) {
            diag("%s", body);
        }

        yes += (rc > 0);
        no += (rc == 0);
    }

    ok(wrong == 0, "the same form");
    ok(yes > BODIES / 20 && no > BODIES / 20, "of many, %u of %u",
       (unsigned) yes, (unsigned) (yes + no));
}


int
main(void)
{
    const char  **p;

    pool = ngx_create_pool(16384, NULL);

    for (p = plain; *p; p++) {
        ok(check(*p) == 1, "plain: %s", *p);
    }

    for (p = others; *p; p++) {
        ok(check(*p) == 0, "not plain: %s", *p);
    }

    test_random();

    ngx_destroy_pool(pool);

    return done_testing();
}
