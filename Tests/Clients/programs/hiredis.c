/* The scenario with hiredis, the C library under many other clients.
 *
 * usage: hiredis HOST PORT PREFIX
 *
 * One thread; where another client must act while a command blocks, the command is sent first
 * (redisAppendCommand, redisBufferWrite) and its reply read afterwards. Includes the asynchronous
 * interface, driven by a minimal poll loop. */

#include <hiredis/async.h>
#include <hiredis/hiredis.h>

#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

enum { LONGEST_TEXT = 200, BIG_BYTES = 1024 * 1024, WAIT_SECONDS = 10, MANY = 10000 };

static const char *host, *prefix;
static int port;
static redisContext *client, *other;

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

/* Printing */

static uint64_t digest(const char *bytes, size_t count) { /* FNV-1a */
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < count; i++) hash = (hash ^ (unsigned char)bytes[i]) * 0x100000001b3u;
    return hash;
}

static void print_text(const char *bytes, size_t count) {
    if (count > LONGEST_TEXT) {
        printf("<%zu bytes, %016llx>", count, (unsigned long long)digest(bytes, count));
        return;
    }
    putchar('"');
    for (size_t i = 0; i < count; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        if (byte >= ' ' && byte < 127 && byte != '"' && byte != '\\') putchar(byte);
        else printf("\\x%02x", byte);
    }
    putchar('"');
}

static void print_reply(const redisReply *reply) {
    switch (reply->type) {
    case REDIS_REPLY_STATUS: printf("status "), print_text(reply->str, reply->len); break;
    case REDIS_REPLY_ERROR: printf("error "), print_text(reply->str, reply->len); break;
    case REDIS_REPLY_STRING: print_text(reply->str, reply->len); break;
    case REDIS_REPLY_INTEGER: printf("%lld", reply->integer); break;
    case REDIS_REPLY_NIL: printf("nil"); break;
    case REDIS_REPLY_ARRAY:
        putchar('[');
        for (size_t i = 0; i < reply->elements; i++) {
            if (i > 0) printf(", ");
            print_reply(reply->element[i]);
        }
        putchar(']');
        break;
    default: fail("a reply of unknown type");
    }
}

static void print_step(const char *step, redisReply *reply) {
    if (reply == NULL) fail(client->errstr[0] ? client->errstr : other->errstr);
    printf("%s: ", step);
    print_reply(reply);
    putchar('\n');
    freeReplyObject(reply);
}

/* Commands: `%s` and `%b` as in hiredis. The prefix is passed as the first argument. */

static redisReply *run(redisContext *context, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    redisReply *reply = redisvCommand(context, format, arguments);
    va_end(arguments);
    if (reply == NULL) fail(context->errstr);
    return reply;
}

#define STEP(name, ...) print_step(name, run(client, __VA_ARGS__))
#define OTHER(name, ...) print_step(name, run(other, __VA_ARGS__))

static redisReply *next_reply(redisContext *context) {
    void *reply = NULL;
    if (redisGetReply(context, &reply) != REDIS_OK) fail(context->errstr);
    return reply;
}

static void send_now(redisContext *context) {
    for (int done = 0; !done;)
        if (redisBufferWrite(context, &done) != REDIS_OK) fail(context->errstr);
}

static redisContext *open_connection(void) {
    struct timeval limit = {.tv_sec = 20};
    redisContext *context = redisConnectWithTimeout(host, port, limit);
    if (context == NULL || context->err) fail(context ? context->errstr : "no memory");
    if (redisSetTimeout(context, limit) != REDIS_OK) fail("no timeout");
    return context;
}

static int is_blocked(const char *name) {
    char field[200];
    snprintf(field, sizeof field, " name=%s:%s ", prefix, name);
    redisReply *list = run(other, "CLIENT LIST");
    int found = 0;
    for (char *rest = list->str, *line; (line = strtok_r(rest, "\n", &rest)) != NULL;)
        if (strstr(line, field) && strstr(line, " flags=b ")) found = 1;
    freeReplyObject(list);
    return found;
}

static void wait_until_blocked(const char *name) {
    for (time_t end = time(NULL) + WAIT_SECONDS; !is_blocked(name);) {
        if (time(NULL) > end) fail("a command does not block");
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
}

/* Parts of the scenario that need more than a line */

static void scan(void) {
    for (int i = 0; i < 500; i++) redisAppendCommand(client, "SET %s:scan:%d %d", prefix, i, i);
    for (int i = 0; i < 500; i++) freeReplyObject(next_reply(client));
    int found = 0;
    long long sum = 0;
    char cursor[32] = "0", pattern[200];
    snprintf(pattern, sizeof pattern, "%s:scan:", prefix);
    do {
        redisReply *reply = run(client, "SCAN %s MATCH %s* COUNT 50", cursor, pattern);
        snprintf(cursor, sizeof cursor, "%s", reply->element[0]->str);
        for (size_t i = 0; i < reply->element[1]->elements; i++, found++)
            sum += atoi(reply->element[1]->element[i]->str + strlen(pattern));
        freeReplyObject(reply);
    } while (strcmp(cursor, "0") != 0);
    printf("scan: %d keys, sum %lld\n", found, sum);
}

static void big_pipeline(void) {
    uint64_t sum = 0;
    for (int i = 0; i < MANY; i++) {
        redisAppendCommand(client, "SET %s:bp value-%d", prefix, i);
        redisAppendCommand(client, "GET %s:bp", prefix);
    }
    for (int i = 0; i < 2 * MANY; i++) {
        redisReply *reply = next_reply(client);
        sum = sum * 31 + digest(reply->str, reply->len);
        freeReplyObject(reply);
    }
    printf("big pipeline: %d replies, %016llx\n", 2 * MANY, (unsigned long long)sum);
}

static void blocking(void) {
    redisContext *blocker = open_connection();
    print_step("blocking pop", run(blocker, "CLIENT SETNAME %s:blocker", prefix));
    redisAppendCommand(blocker, "BLPOP %s:q1 %s:q2 15", prefix, prefix);
    redisAppendCommand(blocker, "ECHO behind");
    send_now(blocker);
    wait_until_blocked("blocker");
    OTHER("blocking pop", "RPUSH %s:q2 %b c", prefix, "b\r\n", (size_t)3);
    print_step("blocking pop", next_reply(blocker));
    print_step("blocking pop", next_reply(blocker));
    print_step("blocking pop", run(blocker, "BRPOP %s:q2 1", prefix));
    print_step("blocking pop timeout", run(blocker, "BLPOP %s:q1 0.1", prefix));
    print_step("blocking pop timeout", run(blocker, "PING"));
    redisFree(blocker);
}

static void publish_and_subscribe(const char *big) {
    redisContext *subscriber = open_connection();
    print_step("subscribe", run(subscriber, "SUBSCRIBE %s:c1 %s:c2", prefix, prefix));
    print_step("subscribe", next_reply(subscriber));
    OTHER("subscribe", "PUBLISH %s:c1 %b", prefix, "m\r\n\0", (size_t)4);
    print_step("subscribe", next_reply(subscriber));
    OTHER("subscribe", "PUBLISH %s:c2 %b", prefix, big, (size_t)BIG_BYTES);
    print_step("subscribe", next_reply(subscriber));
    print_step("subscribe", run(subscriber, "PING alive"));
    print_step("subscribe", run(subscriber, "GET %s:text", prefix));
    print_step("subscribe", run(subscriber, "UNSUBSCRIBE %s:c1", prefix));
    OTHER("subscribe", "PUBLISH %s:c1 late", prefix);
    print_step("subscribe", run(subscriber, "UNSUBSCRIBE"));
    print_step("subscribe", run(subscriber, "GET %s:text", prefix));
    print_step("psubscribe", run(subscriber, "PSUBSCRIBE %s:p*", prefix));
    OTHER("psubscribe", "PUBLISH %s:p1 x", prefix);
    print_step("psubscribe", next_reply(subscriber));
    print_step("psubscribe", run(subscriber, "PUNSUBSCRIBE"));
    OTHER("psubscribe", "PUBLISH %s:p1 late", prefix);
    redisFree(subscriber);
}

static void reconnect(void) {
    STEP("reconnect", "SET %s:r kept", prefix);
    STEP("reconnect", "QUIT");
    redisReply *after = redisCommand(client, "PING");
    /* Whether the end or a reset comes first is a matter of time, also directly. */
    printf("reconnect: %s after QUIT\n", after ? "a reply" : "no reply");
    if (redisReconnect(client) != REDIS_OK) fail(client->errstr);
    STEP("reconnect", "GET %s:r", prefix);
    if (redisReconnect(client) != REDIS_OK) fail(client->errstr);
    STEP("reconnect", "GET %s:r", prefix);
}

static void hello(void) {
    redisReply *facts = run(client, "HELLO");
    printf("hello:");
    for (size_t i = 0; i + 1 < facts->elements; i += 2) {
        printf(" %s ", facts->element[i]->str);
        if (strcmp(facts->element[i]->str, "id") == 0)
            printf("of type %d", facts->element[i + 1]->type);
        else
            print_reply(facts->element[i + 1]);
    }
    putchar('\n');
    freeReplyObject(facts);
    STEP("hello", "HELLO 9");
    STEP("hello", "PING");
}

/* The asynchronous interface */

static short wanted;
static int answered;

static void want_read(void *data) { (void)data, wanted |= POLLIN; }
static void no_read(void *data) { (void)data, wanted &= ~POLLIN; }
static void want_write(void *data) { (void)data, wanted |= POLLOUT; }
static void no_write(void *data) { (void)data, wanted &= ~POLLOUT; }

static void count_answer(redisAsyncContext *context, void *reply, void *data) {
    (void)context;
    const redisReply *echo = reply;
    if (echo == NULL || echo->type != REDIS_REPLY_STRING) fail("no answer");
    if (atoi(echo->str) != (int)(intptr_t)data) fail("the answer to another command");
    answered += 1;
}

static void got_message(redisAsyncContext *context, void *reply, void *data) {
    (void)context, (void)data;
    if (reply == NULL) return; /* the context ends */
    printf("async: ");
    print_reply(reply);
    putchar('\n');
    answered += 1;
}

static void turn_until(redisAsyncContext *context, int count) {
    for (time_t end = time(NULL) + WAIT_SECONDS; answered < count;) {
        struct pollfd watched = {.fd = context->c.fd, .events = wanted};
        if (time(NULL) > end) fail("the asynchronous interface got no answer");
        poll(&watched, 1, 1000);
        if (watched.revents & POLLOUT) redisAsyncHandleWrite(context);
        if (watched.revents & (POLLIN | POLLHUP | POLLERR)) redisAsyncHandleRead(context);
    }
}

static void asynchronous(void) {
    redisAsyncContext *context = redisAsyncConnect(host, port);
    if (context == NULL || context->err) fail("no asynchronous connection");
    context->ev.addRead = want_read;
    context->ev.delRead = no_read;
    context->ev.addWrite = want_write;
    context->ev.delWrite = no_write;
    wanted = POLLIN | POLLOUT;
    for (int i = 0; i < 1000; i++)
        redisAsyncCommand(context, count_answer, (void *)(intptr_t)i, "ECHO %d", i);
    turn_until(context, 1000);
    printf("async: %d answers\n", answered);
    answered = 0;
    redisAsyncCommand(context, got_message, NULL, "SUBSCRIBE %s:a1 %s:a2", prefix, prefix);
    turn_until(context, 2);
    OTHER("async", "PUBLISH %s:a2 hello", prefix);
    turn_until(context, 3);
    redisAsyncFree(context);
}

int main(int count, char **arguments) {
    if (count != 4) fail("usage: hiredis HOST PORT PREFIX");
    host = arguments[1], port = atoi(arguments[2]), prefix = arguments[3];
    setvbuf(stdout, NULL, _IOLBF, 0);
    client = open_connection(), other = open_connection();
    printf("connect: %d\n", client->err);
    STEP("ping", "PING");
    STEP("ping", "PING %s", "hello");

    STEP("set and get", "SET %s:text value", prefix);
    STEP("set and get", "GET %s:text", prefix);
    STEP("set and get", "GET %s:missing", prefix);
    char bytes[256];
    for (int i = 0; i < 256; i++) bytes[i] = (char)i;
    STEP("binary value", "SET %s:binary %b", prefix, bytes, sizeof bytes);
    STEP("binary value", "GET %s:binary", prefix);
    STEP("binary value", "SET %s:crlf %b", prefix, "\r\n+OK\r\n\0$5", (size_t)10);
    STEP("binary value", "GET %s:crlf", prefix);
    STEP("empty value", "SET %s:empty %b", prefix, "", (size_t)0);
    STEP("empty value", "GET %s:empty", prefix);
    char *big = malloc(BIG_BYTES);
    for (int i = 0; i < BIG_BYTES; i++) big[i] = (char)(i * 7);
    STEP("big value", "SET %s:big %b", prefix, big, (size_t)BIG_BYTES);
    redisReply *stored = run(client, "GET %s:big", prefix);
    printf("big value: %d\n", stored->len == BIG_BYTES && !memcmp(stored->str, big, BIG_BYTES));
    freeReplyObject(stored);

    STEP("mset and mget", "MSET %s:m1 1 %s:m2 2", prefix, prefix);
    STEP("mset and mget", "MGET %s:m1 %s:missing %s:m2", prefix, prefix, prefix);
    STEP("incr", "INCR %s:n", prefix);
    STEP("incr", "INCRBY %s:n 41", prefix);
    STEP("incr", "INCR %s:text", prefix);
    STEP("expire and ttl", "EXPIRE %s:n 1000000", prefix);
    STEP("expire and ttl", "PERSIST %s:n", prefix);
    STEP("expire and ttl", "TTL %s:n", prefix);
    STEP("hash", "HSET %s:hash a 1 b 2", prefix);
    STEP("hash", "HGETALL %s:hash", prefix);
    STEP("list", "RPUSH %s:list 1 2 3", prefix);
    STEP("list", "LRANGE %s:list 0 -1", prefix);
    STEP("set", "SADD %s:set 3 1 2", prefix);
    STEP("set", "SMEMBERS %s:set", prefix); /* integers are kept sorted */
    STEP("sorted set", "ZADD %s:zset 1 a 2.5 b +inf c", prefix);
    STEP("sorted set", "ZRANGE %s:zset 0 -1 WITHSCORES", prefix);
    scan();

    for (int i = 0; i < 50; i++) {
        redisAppendCommand(client, "SET %s:p%d %d", prefix, i, i);
        redisAppendCommand(client, "GET %s:p%d", prefix, i);
    }
    for (int i = 0; i < 100; i++) print_step("pipeline", next_reply(client));
    big_pipeline();

    STEP("transaction", "WATCH %s:n", prefix);
    STEP("transaction", "MULTI");
    STEP("transaction", "INCR %s:n", prefix);
    STEP("transaction", "LPUSH %s:text x", prefix);
    STEP("transaction", "GET %s:n", prefix);
    STEP("transaction", "EXEC");
    STEP("transaction", "MULTI");
    STEP("transaction", "NOSUCHCOMMAND");
    STEP("transaction", "EXEC");
    STEP("transaction", "MULTI");
    STEP("transaction", "SET %s:n discarded", prefix);
    STEP("transaction", "DISCARD");
    STEP("transaction", "EXEC");
    STEP("transaction conflict", "WATCH %s:n", prefix);
    OTHER("transaction conflict", "SET %s:n changed", prefix);
    STEP("transaction conflict", "MULTI");
    STEP("transaction conflict", "SET %s:n mine", prefix);
    STEP("transaction conflict", "EXEC");
    STEP("transaction conflict", "GET %s:n", prefix);

    STEP("eval", "EVAL %s 1 %s:k %b", "return {KEYS[1],ARGV[1],7,false}", prefix, "a\r\n", (size_t)3);
    STEP("eval", "EVAL %s 0", "return redis.error_reply('MY error')");
    STEP("evalsha", "EVALSHA 0123456789012345678901234567890123456789 0");
    char script[300];
    snprintf(script, sizeof script, "return tonumber(ARGV[1]) + 2 -- %s", prefix);
    redisReply *sha = run(client, "SCRIPT LOAD %s", script);
    STEP("evalsha", "EVALSHA %s 0 40", sha->str);
    STEP("evalsha", "SCRIPT EXISTS %s", sha->str);
    print_step("evalsha", sha);

    STEP("select", "SELECT 1");
    STEP("select", "SET %s:db one", prefix);
    OTHER("select", "GET %s:db", prefix);
    STEP("select", "SELECT 99");
    STEP("select", "GET %s:db", prefix);
    STEP("select", "SELECT 0");
    STEP("select", "GET %s:db", prefix);

    blocking();
    publish_and_subscribe(big);

    STEP("client name", "CLIENT GETNAME");
    STEP("client name", "CLIENT SETNAME %s:name", prefix);
    STEP("client name", "CLIENT GETNAME");
    STEP("client name", "CLIENT SETNAME %s", "not allowed");
    STEP("errors", "LPUSH %s:text x", prefix);
    STEP("errors", "NOSUCHCOMMAND %b c", "a\r\nb", (size_t)4);
    STEP("errors", "GET");

    STEP("stream", "XADD %s:s 1-1 f %b", prefix, "v\r\n", (size_t)3);
    STEP("stream", "XADD %s:s 2-1 f v2 g v3", prefix);
    STEP("stream", "XREAD COUNT 10 STREAMS %s:s 0", prefix);
    STEP("stream", "XREAD BLOCK 20 STREAMS %s:s 2-1", prefix);
    STEP("stream group", "XGROUP CREATE %s:s group 0", prefix);
    STEP("stream group", "XREADGROUP GROUP group one COUNT 1 STREAMS %s:s >", prefix);
    STEP("stream group", "XACK %s:s group 1-1", prefix);
    STEP("stream group", "XREADGROUP GROUP group one BLOCK 20 STREAMS %s:s >", prefix);
    STEP("stream group", "XREADGROUP GROUP group one BLOCK 20 STREAMS %s:s >", prefix);
    STEP("stream group", "XPENDING %s:s group", prefix);

    reconnect();
    hello();
    asynchronous();
    redisFree(client), redisFree(other), free(big);
    return 0;
}
