
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * The form of the gateway's own keys.  Plain C on bytes, used by the module
 * and by the command-line tool alike:
 *
 *     aigw_<env>_<id><secret><crc>
 *
 * env:    1 to 16 of [a-z0-9], "live" by default
 * id:     8 of [0-9A-Za-z], public: it may be logged and shown
 * secret: 31 of [0-9A-Za-z], 184 bits from the system's random source; with
 *         an env of 4 the key is 55 bytes, the most that SHA-256 takes as one
 *         block
 * crc:    6 of [0-9A-Za-z]: CRC-32 (IEEE) of all bytes before it as a base-62
 *         number with leading zeros, digits 0-9A-Za-z in this order
 */


#ifndef _NGX_HTTP_AI_AUTH_KEY_H_INCLUDED_
#define _NGX_HTTP_AI_AUTH_KEY_H_INCLUDED_


#include <stddef.h>


#define NGX_HTTP_AI_KEY_PREFIX      "aigw_"
#define NGX_HTTP_AI_KEY_ENV_MAX     16
#define NGX_HTTP_AI_KEY_ID          8
#define NGX_HTTP_AI_KEY_SECRET      31
#define NGX_HTTP_AI_KEY_CRC         6
#define NGX_HTTP_AI_KEY_MAX                                                   \
    (sizeof(NGX_HTTP_AI_KEY_PREFIX) - 1 + NGX_HTTP_AI_KEY_ENV_MAX + 1         \
     + NGX_HTTP_AI_KEY_ID + NGX_HTTP_AI_KEY_SECRET + NGX_HTTP_AI_KEY_CRC)

/* longest credential of any kind that is looked up, bytes */
#define NGX_HTTP_AI_KEY_TEXT_MAX    512


/* begins like one of ours: then its form decides, nothing is looked up */
int ngx_http_ai_key_is_ours(const unsigned char *key, size_t len);

/* form and checksum; *id points to its 8 public characters */
int ngx_http_ai_key_check(const unsigned char *key, size_t len,
    const unsigned char **id);

/* writes a key of id and secret (both given) to dst of
 * NGX_HTTP_AI_KEY_MAX bytes; returns its length, 0 when env is not valid */
size_t ngx_http_ai_key_write(unsigned char *dst, const char *env,
    const unsigned char *id, const unsigned char *secret);


#endif /* _NGX_HTTP_AI_AUTH_KEY_H_INCLUDED_ */
