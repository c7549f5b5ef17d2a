// libev's macros as functions: Swift imports functions, not function-like macros.
#ifndef REDIS_AUTH_PROXY_CEV_SHIM_H
#define REDIS_AUTH_PROXY_CEV_SHIM_H
#include <ev.h>
#endif
