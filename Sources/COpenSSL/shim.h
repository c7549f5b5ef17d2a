// OpenSSL's macros as functions: Swift imports functions, not function-like macros.
#ifndef REDIS_AUTH_PROXY_COPENSSL_SHIM_H
#define REDIS_AUTH_PROXY_COPENSSL_SHIM_H
#include <openssl/ssl.h>
#include <openssl/err.h>
#endif
