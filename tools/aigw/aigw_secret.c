
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The text of a key is in one place, which is wiped before the process ends;
 * it is written with write(), since stdio would keep a copy.
 */


#include "aigw.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>


static void aigw_secret_random(u_char *dst, size_t n);
static void aigw_secret_trim(const char *what);


aigw_secret_t  aigw_secret;


static void
aigw_secret_random(u_char *dst, size_t n)
{
    size_t  i, used;
    u_char  bytes[64];

    static const char  digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "abcdefghijklmnopqrstuvwxyz";

    used = sizeof(bytes);

    for (i = 0; i < n; /* void */ ) {

        if (used == sizeof(bytes)) {
            if (RAND_priv_bytes(bytes, sizeof(bytes)) != 1) {
                OPENSSL_cleanse(bytes, sizeof(bytes));
                aigw_fail("no random numbers are available");
            }

            used = 0;
        }

        /* 256 is no multiple of 62: the rest would favour some digits */

        if (bytes[used] < 4 * 62) {
            dst[i++] = (u_char) digits[bytes[used] % 62];
        }

        used++;
    }

    OPENSSL_cleanse(bytes, sizeof(bytes));
}


int
aigw_secret_env(const char *env)
{
    u_char  key[NGX_HTTP_AI_KEY_MAX], zero[NGX_HTTP_AI_KEY_SECRET];

    memset(zero, '0', sizeof(zero));

    return ngx_http_ai_key_write(key, env, zero, zero) != 0;
}


void
aigw_secret_id(char *id)
{
    aigw_secret_random((u_char *) id, NGX_HTTP_AI_KEY_ID);
    id[NGX_HTTP_AI_KEY_ID] = '\0';
}


void
aigw_secret_create(const char *env, const char *id)
{
    u_char  secret[NGX_HTTP_AI_KEY_SECRET];

    aigw_secret_random(secret, NGX_HTTP_AI_KEY_SECRET);

    aigw_secret.len = ngx_http_ai_key_write(aigw_secret.key, env,
                                            (const u_char *) id, secret);

    OPENSSL_cleanse(secret, NGX_HTTP_AI_KEY_SECRET);
}


void
aigw_secret_read(void)
{
    size_t   i, size;
    ssize_t  n;

    if (isatty(STDIN_FILENO)) {
        aigw_info("the key is read from the standard input");
    }

    size = sizeof(aigw_secret.key);

    while (aigw_secret.len < size) {
        n = read(STDIN_FILENO, aigw_secret.key + aigw_secret.len,
                 size - aigw_secret.len);

        if (n == -1) {
            if (errno == EINTR) {
                continue;
            }

            aigw_fail("cannot read the standard input: %s", strerror(errno));
        }

        if (n == 0) {
            break;
        }

        aigw_secret.len += n;

        if (memchr(aigw_secret.key, '\n', aigw_secret.len)) {
            break;
        }
    }

    for (i = 0; i < aigw_secret.len; i++) {
        if (aigw_secret.key[i] == '\n') {
            break;
        }
    }

    if (i + 1 < aigw_secret.len) {
        aigw_fail("more than one line on the standard input");
    }

    if (i && aigw_secret.key[i - 1] == '\r') {
        i--;
    }

    aigw_secret.len = i;

    if (i == 0) {
        aigw_fail("no key on the standard input");
    }

    if (i > NGX_HTTP_AI_KEY_TEXT_MAX) {
        aigw_fail("the key is longer than %d bytes",
                  NGX_HTTP_AI_KEY_TEXT_MAX);
    }

    /* what cannot be sent in a header cannot be a key */

    while (i--) {
        if (aigw_secret.key[i] <= ' ' || aigw_secret.key[i] >= 0x7f) {
            aigw_fail("the key contains white space or other characters that "
                      "no header takes");
        }
    }
}


void
aigw_secret_hmac(aigw_line_t *line)
{
    int      fd;
    char    *name, *value;
    size_t   size;
    ssize_t  n;

    size = sizeof(aigw_secret.hmac);

    if (aigw_has(line, AIGW_OPT_SECRET_FILE)
        && aigw_has(line, AIGW_OPT_SECRET_ENV))
    {
        aigw_usage("--secret-file or --secret-env, not both");
    }

    if (aigw_has(line, AIGW_OPT_SECRET_ENV)) {
        name = aigw_value(line, AIGW_OPT_SECRET_ENV);
        value = getenv(name);

        if (value == NULL) {
            aigw_fail("the environment variable \"%s\" is not set", name);
        }

        aigw_secret.hmac_len = strlen(value);

        if (aigw_secret.hmac_len <= size) {
            memcpy(aigw_secret.hmac, value, aigw_secret.hmac_len);
        }

        aigw_secret_trim(name);
    }

    if (aigw_has(line, AIGW_OPT_SECRET_FILE)) {
        name = aigw_value(line, AIGW_OPT_SECRET_FILE);
        fd = open(name, O_RDONLY|O_CLOEXEC);

        if (fd == -1) {
            aigw_fail("cannot open %s: %s", name, strerror(errno));
        }

        do {
            n = read(fd, aigw_secret.hmac + aigw_secret.hmac_len,
                     size - aigw_secret.hmac_len);

            if (n == -1) {
                aigw_fail("cannot read %s: %s", name, strerror(errno));
            }

            aigw_secret.hmac_len += n;

        } while (n && aigw_secret.hmac_len < size);

        close(fd);

        aigw_secret_trim(name);
    }
}


/* as nginx does: white space and controls at both ends are no part of it */

static void
aigw_secret_trim(const char *what)
{
    u_char  *p;
    size_t   n;

    p = aigw_secret.hmac;
    n = aigw_secret.hmac_len;

    if (n > AIGW_SECRET_MAX) {
        aigw_fail("the secret of %s is too long", what);
    }

    while (n && p[0] <= ' ') {
        p++;
        n--;
    }

    while (n && p[n - 1] <= ' ') {
        n--;
    }

    if (n < AIGW_SECRET_MIN) {
        aigw_fail("the secret of %s has less than %d bytes, nginx would not "
                  "take it", what, AIGW_SECRET_MIN);
    }

    memmove(aigw_secret.hmac, p, n);
    aigw_secret.hmac_len = n;
}


char *
aigw_secret_hash(int hmac)
{
    char         *text, *p;
    u_char        md[EVP_MAX_MD_SIZE];
    unsigned int  i, len;

    if (hmac) {
        if (HMAC(EVP_sha256(), aigw_secret.hmac, (int) aigw_secret.hmac_len,
                 aigw_secret.key, aigw_secret.len, md, &len)
            == NULL)
        {
            aigw_fail("HMAC-SHA-256 failed");
        }

    } else if (EVP_Digest(aigw_secret.key, aigw_secret.len, md, &len,
                          EVP_sha256(), NULL)
               != 1)
    {
        aigw_fail("SHA-256 failed");
    }

    text = aigw_alloc(sizeof("hmac-sha256:") + 2 * len);
    p = text + sprintf(text, "%s:", hmac ? "hmac-sha256" : "sha256");

    for (i = 0; i < len; i++) {
        p += sprintf(p, "%02x", md[i]);
    }

    return text;
}


int
aigw_secret_show(int json, const char *members)
{
    int     rc;
    size_t  len;
    u_char  text[NGX_HTTP_AI_KEY_MAX + 32];

    /* the members come first: they are written apart, keys have no quotes */

    if (json) {
        if (aigw_write(STDOUT_FILENO, members, strlen(members)) != AIGW_OK) {
            return AIGW_ERROR;
        }

        len = sprintf((char *) text, ",\"key\":\"");

    } else {
        len = 0;
    }

    memcpy(text + len, aigw_secret.key, aigw_secret.len);
    len += aigw_secret.len;

    if (json) {
        memcpy(text + len, "\"}", 2);
        len += 2;
    }

    text[len++] = '\n';

    rc = aigw_write(STDOUT_FILENO, text, len);

    OPENSSL_cleanse(text, sizeof(text));

    return rc;
}


void
aigw_secret_wipe(void)
{
    OPENSSL_cleanse(&aigw_secret, sizeof(aigw_secret_t));
}
