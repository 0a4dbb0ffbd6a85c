
/*
 * Copyright (C) nginx AI gateway authors
 */


/* SipHash-1-3 of a text, a word at a time */


static inline void
siphash_fast(u_char *secret, u_char *data, size_t len, uint64_t *tag)
{
    uint64_t            word;
    ngx_http_ai_sip_t   sip;

    ngx_http_ai_sip_init(&sip, secret);

    for ( /* void */ ; len >= 8; data += 8, len -= 8) {
        memcpy(&word, data, 8);
        ngx_http_ai_sip_words(&sip, &word, 1);
    }

    ngx_http_ai_sip_end(&sip, data, len, tag);
}
