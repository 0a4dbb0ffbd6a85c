
/*
 * Copyright (C) nginx AI gateway authors
 */


#ifndef _STUB_H_INCLUDED_
#define _STUB_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/* the allocation that fails, counted down from it; 0: none does */
extern ngx_uint_t  stub_fail;

/* allocations that are alive in all pools */
extern ngx_uint_t  stub_alive;


#endif /* _STUB_H_INCLUDED_ */
