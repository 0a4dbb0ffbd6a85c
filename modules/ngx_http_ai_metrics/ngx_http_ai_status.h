
/*
 * Copyright (C) nginx AI gateway authors
 */


#ifndef _NGX_HTTP_AI_STATUS_H_INCLUDED_
#define _NGX_HTTP_AI_STATUS_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_ai_core.h"
#include "ngx_http_ai_conf.h"


typedef struct {
    const ngx_http_ai_api_t   *api;
} ngx_http_ai_status_main_conf_t;


extern ngx_module_t  ngx_http_ai_status_module;


#endif /* _NGX_HTTP_AI_STATUS_H_INCLUDED_ */
