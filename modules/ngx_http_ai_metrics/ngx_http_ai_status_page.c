
/*
 * Copyright (C) nginx AI gateway authors
 */


#include "ngx_http_ai_status.h"


const ngx_str_t  ngx_http_ai_status_page = ngx_string("");
const ngx_str_t  ngx_http_ai_status_policy = ngx_string("");
