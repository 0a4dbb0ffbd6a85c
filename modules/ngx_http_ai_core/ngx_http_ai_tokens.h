
/*
 * Copyright (C) nginx AI gateway authors
 */


/*
 * Token estimate for answers and prompts whose provider reports no usage.
 * Not a tokenizer: a fixed-rate count by character class over raw JSON text,
 * calibrated against o200k_base (see docs/usage.md for the rates and errors).
 * Units are 1/100 token so that many small deltas add up without loss.
 */


#ifndef _NGX_HTTP_AI_TOKENS_H_INCLUDED_
#define _NGX_HTTP_AI_TOKENS_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include "ngx_http_ai_compat.h"


/* hundredths of a token in raw text; linear time, no memory */
uint64_t ngx_http_ai_tokens_raw(u_char *data, size_t len);

#define ngx_http_ai_tokens_round(hundredths)                                  \
    (int64_t) (((hundredths) + 99) / 100)


#endif /* _NGX_HTTP_AI_TOKENS_H_INCLUDED_ */
