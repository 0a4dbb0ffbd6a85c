
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Tokens that are almost right, by chance and by intent: none but those that
 * were signed may be accepted.
 *
 *     AI_JWT_MUTATIONS  how many, 50000 by default
 *     AI_JWT_SEED       of the sequence
 */


#include "jose.h"


#define NOW      1700000000
#define NTOKENS  8


typedef struct {
    jose_key_t  *key;
    ngx_str_t    header;
    ngx_str_t    payload;
    ngx_str_t    token;
    size_t       dots[2];
} base_t;


/* what mutants are made of, and what became of them */

typedef struct {
    ngx_str_t            (*make)(ngx_pool_t *pool, base_t *b);
    const char            *name;
    ngx_uint_t             n;
    ngx_uint_t             same;        /* nothing was changed */
    ngx_uint_t             results[NGX_HTTP_AI_JWT_NO_MEMORY + 1];
} mutator_t;


static uint64_t                  state;
static jose_key_t                hs, hs5, rs, ps, es, es3, ed;
static jose_key_t                evil_hs, evil_rs, evil_ps, evil_es,
                                 evil_ed;
static base_t                    bases[NTOKENS];
static ngx_http_ai_jwks_t       *jwks;
static ngx_http_ai_jwt_rules_t   rules;


static ngx_uint_t
pick(ngx_uint_t n)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;

    return (ngx_uint_t) ((state >> 16) % n);
}


static ngx_str_t
concat(ngx_pool_t *pool, ngx_str_t *a, ngx_str_t *b, ngx_str_t *c)
{
    u_char     *p;
    ngx_str_t   s;

    s.len = a->len + b->len + c->len;
    s.data = ngx_pnalloc(pool, s.len);

    p = s.data;

    if (a->len) {
        p = ngx_cpymem(p, a->data, a->len);
    }

    if (b->len) {
        p = ngx_cpymem(p, b->data, b->len);
    }

    if (c->len) {
        ngx_memcpy(p, c->data, c->len);
    }

    return s;
}


/* part 0, 1, 2 of a token */

static ngx_str_t
part_of(base_t *b, ngx_uint_t n)
{
    ngx_str_t  s;

    s.data = b->token.data + (n ? b->dots[n - 1] + 1 : 0);
    s.len = (n < 2 ? b->dots[n] : b->token.len) - (s.data - b->token.data);

    return s;
}


static ngx_str_t
with_parts(ngx_pool_t *pool, ngx_str_t *h, ngx_str_t *p, ngx_str_t *sig)
{
    ngx_str_t  s, dot;

    ngx_str_set(&dot, ".");

    s = concat(pool, h, &dot, p);
    s = concat(pool, &s, &dot, sig);

    return s;
}


/* a new header or payload, the old signature */

static ngx_str_t
resaid(ngx_pool_t *pool, base_t *b, ngx_str_t *header, ngx_str_t *payload)
{
    ngx_str_t  h, p, sig;

    h = header ? jose_b64(pool, header->data, header->len) : part_of(b, 0);
    p = payload ? jose_b64(pool, payload->data, payload->len)
                : part_of(b, 1);
    sig = part_of(b, 2);

    return with_parts(pool, &h, &p, &sig);
}


static ngx_str_t
flip_bit(ngx_pool_t *pool, base_t *b)
{
    ngx_str_t  s;

    s = jose_dup(pool, b->token.data, b->token.len);
    s.data[pick(s.len)] ^= (u_char) (1 << pick(8));

    return s;
}


static ngx_str_t
change_bytes(ngx_pool_t *pool, base_t *b)
{
    ngx_str_t    s;
    ngx_uint_t   n;

    static const char  chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmno"
                                 "pqrstuvwxyz0123456789-_=+/. \n%&";

    s = jose_dup(pool, b->token.data, b->token.len);

    for (n = pick(4) + 1; n; n--) {
        s.data[pick(s.len)] = pick(8)
                              ? (u_char) chars[pick(sizeof(chars) - 1)]
                              : (u_char) pick(256);
    }

    return s;
}


/* bytes of the decoded signature, so that base64 is never what is wrong */

static ngx_str_t
change_signature(ngx_pool_t *pool, base_t *b)
{
    size_t     n;
    ngx_str_t  h, p, s, sig, text;

    text = part_of(b, 2);
    (void) ngx_http_ai_jwt_base64url(pool, &text, &s);
    sig = jose_dup(pool, s.data, s.len);

    switch (pick(9)) {

    case 0:
        sig.data[pick(sig.len)] ^= (u_char) (1 << pick(8));
        break;

    case 1:
        sig.data[pick(sig.len)] ^= (u_char) (1 + pick(255));
        break;

    case 2:
        sig.len = pick(sig.len);
        break;

    case 3:
        ngx_memzero(sig.data, sig.len);
        break;

    case 4:
        ngx_memset(sig.data, 0xff, sig.len);
        break;

    case 5:
        n = pick(2) * (sig.len / 2);
        ngx_memzero(sig.data + n, sig.len / 2);
        break;

    case 6:
        n = pick(80) + 1;
        s.data = ngx_pcalloc(pool, sig.len + n);
        ngx_memcpy(s.data + (pick(2) ? n : 0), sig.data, sig.len);
        sig.data = s.data;
        sig.len += n;
        break;

    case 7:
        n = sig.len / 2;
        ngx_memcpy(sig.data, s.data + n, n);
        ngx_memcpy(sig.data + n, s.data, n);
        break;

    default:

        for (n = 0; n < sig.len; n++) {
            sig.data[n] = (u_char) pick(256);
        }

        break;
    }

    sig = jose_b64(pool, sig.data, sig.len);
    h = part_of(b, 0);
    p = part_of(b, 1);

    return with_parts(pool, &h, &p, &sig);
}


static ngx_str_t
change_payload(ngx_pool_t *pool, base_t *b)
{
    ngx_str_t  p;

    p = jose_dup(pool, b->payload.data, b->payload.len);

    if (pick(2)) {
        p.data[pick(p.len)] ^= (u_char) (1 << pick(8));

    } else {
        p.data[pick(p.len)] = (u_char) ('0' + pick(75));
    }

    return resaid(pool, b, NULL, &p);
}


static ngx_str_t
change_header(ngx_pool_t *pool, base_t *b)
{
    ngx_str_t  h;

    h = jose_dup(pool, b->header.data, b->header.len);

    if (pick(2)) {
        h.data[pick(h.len)] ^= (u_char) (1 << pick(8));

    } else {
        h.data[pick(h.len)] = (u_char) ('0' + pick(75));
    }

    return resaid(pool, b, &h, NULL);
}


static const char *
any_alg(void)
{
    static const char  *names[] = {
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256",
        "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
        "Ed448", "none", "None", "NONE", "nOnE", "none ", "\\u006eone", "",
        "null", "HS", "RS1", "HS1", "ES256K", "dir", "A128KW", "RSA-OAEP",
        "none\\u0000", "HS256\\u0000", "hs256", "rs256"
    };

    return names[pick(sizeof(names) / sizeof(names[0]))];
}


static const char *
any_kid(void)
{
    static const char  *kids[] = {
        "", ",\"kid\":\"k-rs\"", ",\"kid\":\"k-ps\"", ",\"kid\":\"k-es\"",
        ",\"kid\":\"k-ed\"", ",\"kid\":\"k-es3\"", ",\"kid\":\"\"",
        ",\"kid\":null", ",\"kid\":\"../../../dev/null\"",
        ",\"kid\":\"x' OR '1'='1\"", ",\"kid\":\"k-rs\",\"kid\":\"k-es\""
    };

    return kids[pick(sizeof(kids) / sizeof(kids[0]))];
}


static const char *
any_more(void)
{
    static const char  *more[] = {
        "", "", "", ",\"typ\":\"JWT\"", ",\"crit\":[\"exp\"]",
        ",\"b64\":false,\"crit\":[\"b64\"]", ",\"zip\":\"DEF\"",
        ",\"jku\":\"https://evil.example/keys\"",
        ",\"x5u\":\"https://evil.example/cert\"",
        ",\"jwk\":{\"kty\":\"oct\",\"k\":\"AAAA\"}",
        ",\"x5c\":[\"AAAA\"]", ",\"enc\":\"A128GCM\"",
        ",\"alg\":\"none\"", ",\"alg\":\"HS256\"", ",\"typ\":\"dpop+jwt\""
    };

    return more[pick(sizeof(more) / sizeof(more[0]))];
}


static ngx_str_t
any_header(ngx_pool_t *pool, const char *alg)
{
    char  buf[512];

    snprintf(buf, sizeof(buf), "{\"alg\":\"%s\"%s%s}", alg, any_kid(),
             any_more());

    return jose_text(pool, buf);
}


/* the header says something else of the same signature, or of none */

static ngx_str_t
change_algorithm(ngx_pool_t *pool, base_t *b)
{
    ngx_str_t  h, p, sig;

    h = any_header(pool, any_alg());

    if (pick(2)) {
        return resaid(pool, b, &h, NULL);
    }

    h = jose_b64(pool, h.data, h.len);
    p = part_of(b, 1);
    ngx_str_null(&sig);

    return with_parts(pool, &h, &p, &sig);
}


static ngx_str_t
any_claims(ngx_pool_t *pool)
{
    char  buf[512];

    snprintf(buf, sizeof(buf), "{\"iss\":\"https://login.acme.com\",\"aud\":"
             "\"ai\",\"exp\":1700000100,\"sub\":\"mallory-%u\"}",
             (unsigned) pick(1000000));

    return jose_text(pool, buf);
}


/* signed well, by a key of the attacker that the header may offer */

static ngx_str_t
sign_as_another(ngx_pool_t *pool, base_t *b)
{
    char         buf[4096];
    ngx_str_t    h, p;
    jose_key_t  *key;
    const char  *alg, *kid;

    static jose_key_t  *keys[] = { &evil_hs, &evil_hs, &evil_es, &evil_ed,
                                   &evil_hs, &evil_es };

    /* signing with RSA takes its time */

    key = pick(64) ? keys[pick(6)] : pick(2) ? &evil_rs : &evil_ps;

    alg = pick(4) ? key->alg : any_alg();
    kid = any_kid();

    switch (pick(4)) {

    case 0:
        snprintf(buf, sizeof(buf), "{\"alg\":\"%s\"%s,\"jwk\":%s}", alg, kid,
                 key->jwk);
        break;

    case 1:
        snprintf(buf, sizeof(buf), "{\"jwk\":%s,\"jku\":\"https://evil.exampl"
                 "e/\",\"alg\":\"%s\"%s}", key->jwk, alg, kid);
        break;

    default:
        snprintf(buf, sizeof(buf), "{\"alg\":\"%s\"%s%s}", alg, kid,
                 any_more());
        break;
    }

    h = jose_text(pool, buf);
    p = any_claims(pool);

    return jose_sign(pool, key, &h, &p);
}


/* HMAC by what everybody knows: public keys in all their spellings */

static ngx_str_t
sign_with_public(ngx_pool_t *pool, base_t *b)
{
    int          n;
    char         pem[4096];
    u_char      *der;
    size_t       len;
    ngx_str_t    h, p, input, sig;
    const char  *alg, *secret;
    jose_key_t  *key;

    static jose_key_t  *keys[] = { &rs, &ps, &es, &es3, &ed };
    static const char  *algs[] = { "HS256", "HS384", "HS512" };

    key = keys[pick(5)];
    alg = algs[pick(3)];

    h = any_header(pool, alg);
    p = any_claims(pool);
    input = jose_input(pool, &h, &p);

    secret = pem;
    len = 0;

    switch (pick(6)) {

    case 0:
        secret = key->jwk;
        len = strlen(key->jwk);
        break;

    case 1:
        secret = key->members;
        len = strlen(key->members);
        break;

    case 2:
        break;

    case 3:
        ngx_memzero(pem, 64);
        len = pick(65);
        break;

    default:
        der = NULL;
        n = i2d_PUBKEY(key->pkey, &der);

        if (pick(2)) {
            memcpy(pem, der, n);
            len = n;

        } else {
            len = snprintf(pem, sizeof(pem), "-----BEGIN PUBLIC KEY-----\n");
            len += EVP_EncodeBlock((u_char *) pem + len, der, n);
            len += snprintf(pem + len, sizeof(pem) - len,
                            "\n-----END PUBLIC KEY-----%s",
                            pick(2) ? "\n" : "");
        }

        OPENSSL_free(der);
        break;
    }

    sig = jose_mac(pool, alg, secret, len, &input);

    return jose_join(pool, &input, &sig);
}


/* parts of several tokens */

static ngx_str_t
mix(ngx_pool_t *pool, base_t *b)
{
    ngx_str_t  h, p, sig;

    h = part_of(&bases[pick(NTOKENS)], 0);
    p = part_of(&bases[pick(NTOKENS)], 1);
    sig = part_of(&bases[pick(NTOKENS)], 2);

    return with_parts(pool, &h, &p, &sig);
}


/* spellings of the same bytes */

static ngx_str_t
respell(ngx_pool_t *pool, base_t *b)
{
    u_char      *p;
    size_t       at;
    ngx_str_t    s, head, tail, add;
    ngx_uint_t   n;

    static const char  *adds[] = { "=", "==", "===", " ", "\n", "\r\n", "%3D",
                                   ".", "..", "+", "/", "A", "AA", "\t",
                                   ".AAAA", "-", "_", "\xc2\xa0" };

    s = jose_dup(pool, b->token.data, b->token.len);

    switch (pick(4)) {

    case 0:

        /* bits that are left over in the last digit of a part */

        at = pick(3);
        at = (at < 2) ? b->dots[at] : s.len;
        s.data[at - 1]++;

        return s;

    case 1:
        p = s.data;

        for (n = 0; n < s.len; n++) {

            if (p[n] == '-') {
                p[n] = '+';

            } else if (p[n] == '_') {
                p[n] = '/';
            }
        }

        return s;

    default:

        /* with a zero byte now and then */

        n = pick(sizeof(adds) / sizeof(adds[0]) + 1);
        add.data = (u_char *) (n ? adds[n - 1] : "");
        add.len = n ? strlen(adds[n - 1]) : 1;

        switch (pick(5)) {

        case 0:
            at = 0;
            break;

        case 1:
            at = s.len;
            break;

        case 2:
            at = b->dots[pick(2)];
            break;

        default:
            at = pick(s.len + 1);
            break;
        }

        head.data = s.data;
        head.len = at;
        tail.data = s.data + at;
        tail.len = s.len - at;

        return concat(pool, &head, &add, &tail);
    }
}


static ngx_str_t
cut(ngx_pool_t *pool, base_t *b)
{
    size_t     from, to;
    ngx_str_t  head, tail, none;

    ngx_str_null(&none);

    from = pick(b->token.len);
    to = pick(3) ? b->token.len : from + pick(b->token.len - from) + 1;

    head.data = b->token.data;
    head.len = from;
    tail.data = b->token.data + to;
    tail.len = b->token.len - to;

    return concat(pool, &head, &tail, &none);
}


/* members put into the header or the claims, under the old signature */

static ngx_str_t
insert(ngx_pool_t *pool, base_t *b)
{
    ngx_str_t    head, tail, s, text;
    ngx_uint_t   n;

    static const char  *headers[] = {
        "\"alg\":\"none\",", "\"crit\":[],", "\"b64\":false,",
        "\"jwk\":{},", "\"kid\":\"x\",", "\"x\":1,", "\"typ\":\"at+jwt\","
    };

    static const char  *claims[] = {
        "\"admin\":true,", "\"exp\":9999999999,", "\"sub\":\"root\",",
        "\"scope\":\"*\",", "\"aud\":\"ai\",", "\"x\":{\"y\":[]},"
    };

    n = pick(2);
    s = n ? b->header : b->payload;

    head.data = s.data;
    head.len = 1;
    tail.data = s.data + 1;
    tail.len = s.len - 1;

    text = n ? jose_text(pool, headers[pick(7)])
             : jose_text(pool, claims[pick(6)]);

    s = concat(pool, &head, &text, &tail);

    return resaid(pool, b, n ? &s : NULL, n ? NULL : &s);
}


static mutator_t  mutators[] = {
    { flip_bit, "a bit", 0, 0, { 0 } },
    { change_bytes, "bytes", 0, 0, { 0 } },
    { change_signature, "signature", 0, 0, { 0 } },
    { change_payload, "payload", 0, 0, { 0 } },
    { change_header, "header", 0, 0, { 0 } },
    { change_algorithm, "algorithm", 0, 0, { 0 } },
    { sign_as_another, "keys of another", 0, 0, { 0 } },
    { sign_with_public, "public keys as secrets", 0, 0, { 0 } },
    { mix, "parts of several", 0, 0, { 0 } },
    { respell, "base64", 0, 0, { 0 } },
    { cut, "cut", 0, 0, { 0 } },
    { insert, "members added", 0, 0, { 0 } }
};

#define NMUTATORS  (sizeof(mutators) / sizeof(mutators[0]))


static ngx_http_ai_jwt_e
accepted(ngx_pool_t *pool, ngx_str_t *token)
{
    u_char             *copy;
    time_t              expires;
    ngx_str_t           s;
    ngx_http_ai_jwt_t   jwt;
    ngx_http_ai_jwt_e   rc;

    copy = test_copy(token->data, token->len);

    s.data = copy;
    s.len = token->len;

    rc = ngx_http_ai_jwt_parse(pool, &s, &jwt);

    if (rc == NGX_HTTP_AI_JWT_OK) {
        rc = ngx_http_ai_jwt_verify(&jwt, jwks, &rules);
    }

    if (rc == NGX_HTTP_AI_JWT_OK) {
        rc = ngx_http_ai_jwt_check(&jwt, &rules, NOW, &expires);
    }

    free(copy);

    return rc;
}


static ngx_uint_t
is_base(ngx_str_t *token)
{
    ngx_uint_t  i;

    for (i = 0; i < NTOKENS; i++) {

        if (bases[i].token.len == token->len
            && memcmp(bases[i].token.data, token->data, token->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


static void
test_mutants(ngx_uint_t count)
{
    ngx_str_t            s;
    ngx_uint_t           i, k, bypass, same, wrong;
    ngx_pool_t          *pool;
    mutator_t           *m;
    ngx_http_ai_jwt_e    rc;

    bypass = 0;
    same = 0;
    wrong = 0;

    for (i = 0; i < count; i++) {
        pool = ngx_create_pool(4096, NULL);

        m = &mutators[i % NMUTATORS];
        s = m->make(pool, &bases[pick(NTOKENS)]);
        rc = accepted(pool, &s);

        m->n++;
        m->results[rc]++;

        if (is_base(&s)) {
            m->same++;
            same++;

            /* nothing is left of what went before it */

            wrong += (rc != NGX_HTTP_AI_JWT_OK);

        } else if (rc == NGX_HTTP_AI_JWT_OK) {

            if (bypass++ < 10) {
                diag("%s: %.*s", m->name, (int) s.len, s.data);
            }
        }

        ngx_destroy_pool(pool);
    }

    for (i = 0; i < NMUTATORS; i++) {
        m = &mutators[i];

        diag("%-24s %8u, unchanged %u", m->name, (unsigned) m->n,
             (unsigned) m->same);

        for (k = 1; k <= NGX_HTTP_AI_JWT_NO_MEMORY; k++) {

            if (m->results[k]) {
                diag("    %8u %s", (unsigned) m->results[k],
                     ngx_http_ai_jwt_error(k));
            }
        }
    }

    ok(bypass == 0, "%u mutants: none is accepted",
       (unsigned) (count - same));
    ok(wrong == 0, "%u that were not changed: all are accepted",
       (unsigned) same);

    /* each way of refusal was taken */

    for (k = NGX_HTTP_AI_JWT_MALFORMED; k <= NGX_HTTP_AI_JWT_SIGNATURE; k++) {
        same = 0;

        for (i = 0; i < NMUTATORS; i++) {
            same += mutators[i].results[k];
        }

        ok(same > 0, "some: %s", ngx_http_ai_jwt_error(k));
    }
}


/*
 * Key sets that are almost right, with a token that was not changed: as its
 * key is another, or another kind of key, it is refused.
 */

static void
test_sets(ngx_uint_t count)
{
    char                 set[4096];
    u_char              *p, *last;
    ngx_int_t            rc;
    ngx_str_t            text, name;
    ngx_uint_t           i, n, k, bypass, usable;
    ngx_pool_t          *pool;
    const char          *error, *from;
    jose_key_t          *key, *other;
    base_t              *b;
    ngx_http_ai_jwks_t  *saved;

    static const char  *words[] = {
        "\"RSA\"", "\"EC\"", "\"OKP\"", "\"oct\"", "\"rsa\"", "\"RSA \"",
        "\"\"", "null", "1", "[]", "{}", "\"P-256\"", "\"P-384\"",
        "\"P-521\"", "\"Ed25519\"", "\"Ed448\"", "\"enc\"", "\"HS256\"",
        "\"RS256\"", "\"PS256\"", "\"ES256\"", "\"ES384\"", "\"none\"",
        "\"AQ\"", "\"Ag\"", "\"AA\"", "\"EdDSA\"", "\"X25519\"",
        "\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"", "\"RS384\""
    };

    static const char  *names[] = {
        "\"kty\":", "\"crv\":", "\"alg\":", "\"use\":", "\"n\":", "\"e\":",
        "\"x\":", "\"y\":", "\"k\":"
    };

    bypass = 0;
    usable = 0;
    saved = jwks;

    for (i = 0; i < count; i++) {
        pool = ngx_create_pool(4096, NULL);

        b = &bases[pick(NTOKENS)];
        key = b->key;

        snprintf(set, sizeof(set), "{\"keys\":[%s]}", key->jwk);

        n = pick(9);
        from = strstr(set, names[n]);

        if (from == NULL) {
            ngx_destroy_pool(pool);
            continue;
        }

        /* the value of one member, to that of another key or to a word */

        text.data = (u_char *) set;
        text.len = from - set + strlen(names[n]);

        p = text.data + text.len;
        last = (u_char *) strchr((char *) p + 1, '"') + 1;

        other = bases[pick(NTOKENS)].key;

        if (pick(2)
            && other->pkey
            && strstr(other->jwk, names[n])
            && names[n][2] != 'l')
        {
            name.data = (u_char *) strstr(other->jwk, names[n])
                        + strlen(names[n]);
            name.len = (u_char *) strchr((char *) name.data + 1, '"') + 1
                       - name.data;

        } else if (pick(2) && last - p > 12) {

            /* one digit of what makes the key */

            name = jose_dup(pool, p, last - p);
            k = 1 + pick(name.len - 4);
            name.data[k] = (u_char) (name.data[k] == 'A' ? 'B' : 'A');

        } else {
            k = pick(sizeof(words) / sizeof(words[0]));
            name = jose_text(pool, words[k]);
        }

        if (name.len == (size_t) (last - p)
            && memcmp(name.data, p, name.len) == 0)
        {
            ngx_destroy_pool(pool);
            continue;
        }

        {
            ngx_str_t  rest;

            rest.data = last;
            rest.len = set + strlen(set) - (char *) last;
            text = concat(pool, &text, &name, &rest);
        }

        rc = ngx_http_ai_jwks_parse(pool, &text, JOSE_ALL, 8, &jwks, &error);

        if (rc == NGX_OK) {
            usable += (ngx_http_ai_jwks_count(jwks, NULL) != 0);

            if (accepted(pool, &b->token) == NGX_HTTP_AI_JWT_OK
                && bypass++ < 10)
            {
                diag("%.*s", (int) text.len, text.data);
                diag("%.*s", (int) b->token.len, b->token.data);
            }
        }

        ngx_destroy_pool(pool);
    }

    jwks = saved;

    ok(bypass == 0, "%u mutants of key sets", (unsigned) count);
    ok(usable > 0, "%u of them have keys", (unsigned) usable);
}


int
main(void)
{
    char                 header[128], *set, *env;
    ngx_str_t           *s, secret;
    ngx_uint_t           i, count;
    ngx_pool_t          *pool;
    const char          *error;

    static struct {
        jose_key_t  *key;
        const char  *header;
    } made[NTOKENS] = {
        { &hs, "" },
        { &rs, ",\"kid\":\"k-rs\",\"typ\":\"JWT\"" },
        { &es, ",\"kid\":\"k-es\"" },
        { &ed, ",\"kid\":\"k-ed\"" },
        { &es, "" },
        { &ps, ",\"kid\":\"k-ps\"" },
        { &hs5, ",\"typ\":\"at+jwt\"" },
        { &ed, ",\"typ\":\"application/at+JWT\"" }
    };

    pool = ngx_create_pool(4096, NULL);

    env = getenv("AI_JWT_MUTATIONS");
    count = (env && *env) ? (ngx_uint_t) atol(env) : 50000;

    env = getenv("AI_JWT_SEED");
    state = 0x9e3779b97f4a7c15ULL ^ ((env && *env) ? (uint64_t) atol(env) : 0);

    jose_new(pool, &hs, "HS256", NULL);
    jose_new(pool, &hs5, "HS512", NULL);
    jose_new(pool, &rs, "RS256", "k-rs");
    jose_new(pool, &ps, "PS256", "k-ps");
    jose_new(pool, &es, "ES256", "k-es");
    jose_new(pool, &es3, "ES384", "k-es3");
    jose_new(pool, &ed, "EdDSA", "k-ed");

    jose_new(pool, &evil_hs, "HS256", NULL);
    jose_new(pool, &evil_rs, "RS256", "k-rs");
    jose_new(pool, &evil_ps, "PS256", "k-ps");
    jose_new(pool, &evil_es, "ES256", "k-es");
    jose_new(pool, &evil_ed, "EdDSA", "k-ed");

    /* the worst that can be configured: everything is allowed */

    set = ngx_palloc(pool, 16384);
    snprintf(set, 16384, "%s,%s,%s,%s,%s", rs.jwk, ps.jwk, es.jwk, es3.jwk,
             ed.jwk);
    jwks = jose_set(pool, set, JOSE_ALL);

    secret = jose_dup(pool, hs.secret, hs.len);

    if (ngx_http_ai_jwks_add_secret(jwks, &secret, NGX_HTTP_AI_JWA_HS256,
                                    &error) != NGX_OK)
    {
        jose_die(error);
    }

    secret = jose_dup(pool, hs5.secret, hs5.len);

    if (ngx_http_ai_jwks_add_secret(jwks, &secret, NGX_HTTP_AI_JWA_HS512,
                                    &error) != NGX_OK)
    {
        jose_die(error);
    }

    is_int(ngx_http_ai_jwks_count(jwks, NULL), 7, "seven keys");

    rules.algs = JOSE_ALL;
    ngx_str_set(&rules.issuer, "https://login.acme.com");

    rules.audiences = ngx_array_create(pool, 1, sizeof(ngx_str_t));
    s = ngx_array_push(rules.audiences);
    ngx_str_set(s, "ai");

    for (i = 0; i < NTOKENS; i++) {
        snprintf(header, sizeof(header), "{\"alg\":\"%s\"%s}",
                 made[i].key->alg, made[i].header);

        bases[i].key = made[i].key;
        bases[i].header = jose_text(pool, header);
        bases[i].payload = any_claims(pool);
        bases[i].token = jose_sign(pool, made[i].key, &bases[i].header,
                                   &bases[i].payload);

        bases[i].dots[0] = (u_char *) memchr(bases[i].token.data, '.',
                                             bases[i].token.len)
                           - bases[i].token.data;
        bases[i].dots[1] = (u_char *) memchr(bases[i].token.data
                                             + bases[i].dots[0] + 1, '.',
                                             bases[i].token.len
                                             - bases[i].dots[0] - 1)
                           - bases[i].token.data;

        ok(accepted(pool, &bases[i].token) == NGX_HTTP_AI_JWT_OK, "%s",
           header);
    }

    test_mutants(count);
    test_sets(count / 50 + 100);

    ok(ERR_peek_error() == 0, "no error is left");

    jose_free(&rs);
    jose_free(&ps);
    jose_free(&es);
    jose_free(&es3);
    jose_free(&ed);
    jose_free(&evil_rs);
    jose_free(&evil_ps);
    jose_free(&evil_es);
    jose_free(&evil_ed);

    ngx_destroy_pool(pool);

    is_int(stub_alive, 0, "nothing is left");

    return done_testing();
}
