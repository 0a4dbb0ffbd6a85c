
/*
 * Copyright (C) nginx AI gateway authors
 */


#ifndef _NGX_HTTP_AI_LOG_H_INCLUDED_
#define _NGX_HTTP_AI_LOG_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_http_ai_core.h"
#include "ngx_http_ai_conf.h"
#include "ngx_http_ai_log_text.h"


/* bits of what is wanted of prompts and answers */

#define NGX_HTTP_AI_LOG_HASH  1
#define NGX_HTTP_AI_LOG_FULL  2


/* shared by all workers, kept over reloads */

typedef struct {
    ngx_atomic_t               lines;
    ngx_atomic_t               lost;
} ngx_http_ai_log_sh_t;


/* where lines go; one for each name, of a worker once it runs */

typedef struct {

    /*
     * As ngx_http_log_buf_t has it: an access_log with a buffer and the same
     * name finds this in file->data, and refuses it for its "gzip".
     */
    u_char                    *start;
    u_char                    *pos;
    u_char                    *last;
    ngx_event_t               *event;
    ngx_msec_t                 flush;
    ngx_int_t                  gzip;

    ngx_str_t                  name;
    ngx_open_file_t           *file;
    ngx_syslog_peer_t         *syslog;
    ngx_http_ai_log_sh_t     **sh;
    ngx_fd_t                   pipe;          /* NGX_INVALID_FILE: none */
    size_t                     size;          /* of the buffer; 0: none */
    size_t                     max;           /* of a line; 0: any */
    ngx_uint_t                 lines;         /* in the buffer */
    ngx_uint_t                 lost;          /* not yet told */
    time_t                     full;          /* second of a full disk */
    time_t                     told;          /* of the last message */
    ngx_event_t                timer;
    unsigned                   torn:1;        /* ends within a line */
} ngx_http_ai_log_sink_t;


/* an ai_log */

typedef struct {
    ngx_http_ai_log_sink_t    *sink;
    ngx_http_complex_value_t  *filter;
    size_t                     max;           /* bytes of a text */
    ngx_uint_t                 content;       /* one of the bits */
} ngx_http_ai_log_t;


/* variables of other modules, that may not be there */

typedef enum {
    NGX_HTTP_AI_LOG_LIMIT = 0,
    NGX_HTTP_AI_LOG_QUOTA,
    NGX_HTTP_AI_LOG_GUARD,
    NGX_HTTP_AI_LOG_VARIABLES
} ngx_http_ai_log_variable_e;


typedef struct {
    const ngx_http_ai_api_t   *api;
    ngx_array_t                sinks;         /* ngx_http_ai_log_sink_t * */
    ngx_http_ai_log_sh_t      *sh;
    ngx_int_t                  index[NGX_HTTP_AI_LOG_VARIABLES];
    ngx_uint_t                 content;       /* bits of all logs */
    ngx_uint_t                 health;        /* bits of all ai_health */
    u_char                    *file;          /* of the last of these that */
    ngx_uint_t                 line;          /* ... requires something */
} ngx_http_ai_log_main_conf_t;


typedef struct {
    ngx_array_t               *logs;          /* ngx_http_ai_log_t */
    ngx_uint_t                 content;       /* bits of these */
    size_t                     max;           /* the largest of these */
    ngx_flag_t                 off;

    /* ai_health */
    ngx_uint_t                 health;        /* bits, 0: none */
    ngx_str_t                  drain;         /* a file; empty: none */
} ngx_http_ai_log_loc_conf_t;


/* ngx_http_ai_log_sink.c */

/* the sink of the directive that is being read, which has args[1] as its name;
 * size and flush: of the buffer, or 0.  NULL after an [emerg] */
ngx_http_ai_log_sink_t *ngx_http_ai_log_sink(ngx_conf_t *cf,
    ngx_http_ai_log_main_conf_t *mcf, size_t size, ngx_msec_t flush);

/* room for a line of up to n bytes, without its LF; NULL: there is none, the
 * line is lost */
u_char *ngx_http_ai_log_sink_begin(ngx_http_ai_log_sink_t *sink,
    ngx_http_request_t *r, size_t n);

/* the line of the room that ngx_http_ai_log_sink_begin() gave */
void ngx_http_ai_log_sink_end(ngx_http_ai_log_sink_t *sink,
    ngx_http_request_t *r, u_char *line, u_char *last);

void ngx_http_ai_log_sinks_exit(ngx_cycle_t *cycle,
    ngx_http_ai_log_main_conf_t *mcf);


/* ngx_http_ai_log_line.c: the handler of the log phase */

ngx_int_t ngx_http_ai_log_handler(ngx_http_request_t *r);


/* ngx_http_ai_log_content.c */

/* installs the filter that sees answers */
void ngx_http_ai_log_content_init(void);

/* what the log wants of prompt and answer, in the request's pool: members,
 * each behind a ","; empty where nothing is known */
void ngx_http_ai_log_contents(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    ngx_http_ai_log_t *log, ngx_str_t *members);

/* prompt and answer as OpenTelemetry's gen_ai.input.messages and
 * gen_ai.output.messages, JSON in the request's pool, of "max" bytes of text
 * each; empty where nothing is known */
void ngx_http_ai_log_messages(ngx_http_request_t *r, ngx_http_ai_ctx_t *ctx,
    size_t max, ngx_http_ai_out_t *input, ngx_http_ai_out_t *output);


/* ngx_http_ai_health_probe.c */

char *ngx_http_ai_probe_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* is there what they require?  When all of http {} was read */
ngx_int_t ngx_http_ai_probe_init(ngx_conf_t *cf,
    ngx_http_ai_log_main_conf_t *mcf);


extern ngx_module_t  ngx_http_ai_log_module;


#endif /* _NGX_HTTP_AI_LOG_H_INCLUDED_ */
