// A load generator for Redis that knows every byte it must get back.
//
//     cc -O2 -o load load.c -lssl -lcrypto
//     load --port 6379 --clients 50 --pipeline 16 --value-bytes 64
//
// Each client has a key and a value of its own and sends SET, GET, SET, GET … The reply to each is
// known to the byte, so a reply is checked by comparing memory, which costs next to nothing, and a
// reply that belongs to another client, is altered, or is one too many ends the run with exit code 1
// and what was got. So does a connection that is lost.
//
//     --mode closed    each client sends its next `--pipeline` commands when it has the replies
//     --mode rate      `--rate` commands a second in all, spread evenly over time and clients; a
//                      latency counts from the moment the command was due, sent or not, so that a
//                      stalled server is charged for all that waited (no coordinated omission)
//     --mode churn     connect, one command, close; a latency counts from the connect
//     --mode idle      each client sends one SET and stays
//
// Whoever starts it steers it over standard input and output:
//
//     load                                     its parent
//     "ready"       all clients are connected, logged in, and have had a reply
//                                     "start"  begins to count
//                                     "stop"   ends the count
//     {"requests": …, "p50_us": …}
//                                     end of file: it exits, so it cannot outlive its parent
//
// redis-benchmark can do neither a fixed rate nor a window inside a run, and compares no reply.
// One thread: it shares a core with the server, as it does in every row of a comparison.

#define _GNU_SOURCE

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "histogram.h"

enum {
    // As many sockets connect at a time; more would test backlogs and handshakes, not the steady
    // state.
    SETUP_AT_ONCE = 64,
    // Batches of one client that may be due and unanswered: one, but for `rate`, where the schedule
    // does not wait. A multiple of the two batches that take turns.
    OUTSTANDING = 2,
    OUTSTANDING_AT_A_RATE = 4096,
    READ_BYTES = 256 * 1024,
    EVENTS = 512,
    // Closed connections block their port for a minute; so many source addresses share that.
    SOURCE_ADDRESSES = 16,
};

enum mode { CLOSED, RATE, CHURN, IDLE };

static struct {
    enum mode mode;
    int port;
    unsigned clients, pipeline, rate;
    size_t value_bytes;
    const char *tls_ca, *tls_name, *user;
    bool login;
} options = {.clients = 50, .pipeline = 1, .value_bytes = 64, .rate = 1000};

enum phase { UNCONNECTED, CONNECTING, HANDSHAKE, LOGIN, RUNNING };

struct text {
    char *bytes;
    size_t length;
};

// One client. Batches are numbered from 0 over the client's whole life, also across reconnects;
// batch n sends request[n % 2] and must be answered with reply[n % 2].
//
//     answered ≤ started ≤ due        answered: the next to get its reply
//                                     started:  the next to be written
//                                     due:      the next to become due, at times[]
struct client {
    enum phase phase;
    int descriptor;
    SSL *tls;
    bool wants_to_write;
    struct text request[2], reply[2];
    const char *unsent;
    size_t unsent_length;
    size_t matched;
    unsigned answered, started, due;
    uint64_t *times;
};

static struct client *clients;
static struct text login_request;
static const struct text login_reply = {"+OK\r\n", 5};
static struct histogram histogram;
static int poller;
static SSL_CTX *tls_context;
static unsigned outstanding, next_to_connect, in_setup, set_up;
static bool released;
static uint64_t counting_since;
static uint64_t schedule_start, scheduled;

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

__attribute__((format(printf, 1, 2), noreturn)) static void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

// What is sent and what must come back

static unsigned identity(const struct client *client) { return (unsigned)(client - clients); }

static void append(struct text *text, const char *bytes, size_t length) {
    text->bytes = realloc(text->bytes, text->length + length);
    if (!text->bytes) fail("no memory for the requests");
    memcpy(text->bytes + text->length, bytes, length);
    text->length += length;
}

__attribute__((format(printf, 2, 3))) static void append_line(
    struct text *text, const char *format, ...) {
    char line[256];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    append(text, line, (size_t)length);
}

/// Both batches of a client. With an odd depth they differ: one begins with SET, one with GET.
static void write_batches(struct client *client) {
    char key[32];
    int key_length = snprintf(key, sizeof key, "load:%06u", identity(client));
    char *value = malloc(options.value_bytes + 1);
    if (!value) fail("no memory for a value");
    memset(value, 'a' + (int)(identity(client) % 26), options.value_bytes);
    char number[16];
    int digits = snprintf(number, sizeof number, "%u:", identity(client));
    memcpy(value, number, (size_t)digits < options.value_bytes ? (size_t)digits : options.value_bytes);

    for (unsigned position = 0; position < 2 * options.pipeline; position++) {
        struct text *request = &client->request[position / options.pipeline];
        struct text *reply = &client->reply[position / options.pipeline];
        if (position % 2 == 0) {
            append_line(request, "*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%zu\r\n", key_length, key,
                        options.value_bytes);
            append(request, value, options.value_bytes);
            append_line(request, "\r\n");
            append_line(reply, "+OK\r\n");
        } else {
            append_line(request, "*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n", key_length, key);
            append_line(reply, "$%zu\r\n", options.value_bytes);
            append(reply, value, options.value_bytes);
            append_line(reply, "\r\n");
        }
    }
    free(value);
}

static void write_login(void) {
    const char *password = getenv("LOAD_PASSWORD");
    if (!password) fail("wanted the password of --login in LOAD_PASSWORD, which is not set");
    if (options.user && *options.user) {
        append_line(&login_request, "*3\r\n$4\r\nAUTH\r\n$%zu\r\n%s\r\n", strlen(options.user),
                    options.user);
    } else {
        append_line(&login_request, "*2\r\n$4\r\nAUTH\r\n");
    }
    append_line(&login_request, "$%zu\r\n%s\r\n", strlen(password), password);
}

// Connections

static void watch(struct client *client, int operation, bool write) {
    struct epoll_event event = {
        .events = EPOLLIN | (write ? EPOLLOUT : 0u), .data.ptr = client};
    if (epoll_ctl(poller, operation, client->descriptor, &event) != 0)
        fail("epoll_ctl: %s", strerror(errno));
    client->wants_to_write = write;
}

static void connect_client(struct client *client) {
    int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (descriptor < 0) fail("socket: %s", strerror(errno));
    int on = 1;
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    if (options.mode == CHURN || options.mode == IDLE) {
        setsockopt(descriptor, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof on);
        struct sockaddr_in source = {.sin_family = AF_INET};
        source.sin_addr.s_addr =
            htonl(INADDR_LOOPBACK + 1 + (identity(client) + client->answered) % SOURCE_ADDRESSES);
        if (bind(descriptor, (struct sockaddr *)&source, sizeof source) != 0)
            fail("bind: %s", strerror(errno));
    }
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)options.port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(descriptor, (struct sockaddr *)&address, sizeof address) != 0 &&
        errno != EINPROGRESS)
        fail("connect to port %d: %s", options.port, strerror(errno));
    client->descriptor = descriptor;
    client->phase = CONNECTING;
    client->matched = 0;
    watch(client, EPOLL_CTL_ADD, true);
}

static void disconnect(struct client *client) {
    if (client->tls) {
        SSL_shutdown(client->tls);
        SSL_free(client->tls);
        client->tls = NULL;
    }
    close(client->descriptor);
    client->phase = UNCONNECTED;
}

static void connect_next(void) {
    while (in_setup < SETUP_AT_ONCE && next_to_connect < options.clients) {
        in_setup++;
        struct client *client = &clients[next_to_connect++];
        client->times[0] = now();
        client->due = 1;
        connect_client(client);
    }
}

// Bytes out

/// Up to `length` bytes on their way; 0 if the socket takes none now.
static size_t send_some(struct client *client, const char *bytes, size_t length) {
    if (client->tls) {
        int sent = SSL_write(client->tls, bytes, (int)(length > 1 << 30 ? 1 << 30 : length));
        if (sent > 0) return (size_t)sent;
        int error = SSL_get_error(client->tls, sent);
        if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) return 0;
        fail("client %u: SSL_write failed (%d)", identity(client), error);
    }
    ssize_t sent = send(client->descriptor, bytes, length, MSG_NOSIGNAL);
    if (sent >= 0) return (size_t)sent;
    if (errno == EAGAIN) return 0;
    fail("client %u: send: %s", identity(client), strerror(errno));
}

static void write_what_is_due(struct client *client) {
    for (;;) {
        if (client->unsent_length == 0) {
            if (client->phase != RUNNING || client->started == client->due) break;
            const struct text *request = &client->request[client->started++ % 2];
            client->unsent = request->bytes;
            client->unsent_length = request->length;
        }
        size_t sent = send_some(client, client->unsent, client->unsent_length);
        client->unsent += sent;
        client->unsent_length -= sent;
        if (sent == 0) {
            if (!client->wants_to_write) watch(client, EPOLL_CTL_MOD, true);
            return;
        }
    }
    if (client->wants_to_write) watch(client, EPOLL_CTL_MOD, false);
}

static void make_due(struct client *client, uint64_t time) {
    if (client->due - client->answered == outstanding)
        fail("client %u has %u commands unanswered: the rate is above what is possible",
             identity(client), outstanding);
    client->times[client->due++ % outstanding] = time;
}

// Bytes in

static void all_set_up(void) {
    released = true;
    puts("ready");
    fflush(stdout);
    schedule_start = now();
    if (options.mode == IDLE || options.mode == RATE) return;
    for (unsigned index = 0; index < options.clients; index++) {
        struct client *client = &clients[index];
        make_due(client, now());
        if (options.mode == CHURN) connect_client(client);
        else write_what_is_due(client);
    }
}

/// The reply to a whole batch is there.
static void complete(struct client *client, uint64_t time) {
    uint64_t due_at = client->times[client->answered % outstanding];
    unsigned batch = client->answered++;
    client->matched = 0;
    if (options.mode == CHURN) disconnect(client);
    if (batch == 0) {
        // It waits for the others: what is measured begins when all are there.
        in_setup--;
        if (++set_up == options.clients) all_set_up();
        else connect_next();
        return;
    }
    histogram_record(&histogram, time - due_at, options.pipeline);
    if (options.mode == CLOSED || options.mode == CHURN) {
        make_due(client, time);
        if (options.mode == CHURN) connect_client(client);
        else write_what_is_due(client);
    }
}

static void start_running(struct client *client) {
    client->phase = RUNNING;
    write_what_is_due(client);
}

/// Compares what came with what must come; anything else ends the program.
static void match(struct client *client, const char *bytes, size_t length) {
    uint64_t time = now();
    while (length > 0) {
        const struct text *reply = &client->reply[client->answered % 2];
        if (client->phase == LOGIN) reply = &login_reply;
        bool owed = client->phase == LOGIN || client->answered < client->started;
        size_t compared = reply->length - client->matched;
        if (compared > length) compared = length;
        if (!owed || memcmp(reply->bytes + client->matched, bytes, compared) != 0)
            fail("client %u: wanted %s, got %.*s", identity(client),
                 owed ? "its own reply" : "nothing more", (int)(length > 200 ? 200 : length),
                 bytes);
        client->matched += compared;
        bytes += compared;
        length -= compared;
        if (client->matched < reply->length) return;
        if (client->phase == LOGIN) {
            client->matched = 0;
            start_running(client);
        } else {
            complete(client, time);
            if (client->phase != RUNNING && length > 0)
                fail("client %u: %zu bytes too many", identity(client), length);
        }
    }
}

static void read_some(struct client *client) {
    static char buffer[READ_BYTES];
    if (client->tls) {
        while (client->phase == LOGIN || client->phase == RUNNING) {
            int length = SSL_read(client->tls, buffer, sizeof buffer);
            if (length <= 0) {
                int error = SSL_get_error(client->tls, length);
                if (error == SSL_ERROR_WANT_READ) return;
                fail("client %u: SSL_read failed (%d)", identity(client), error);
            }
            match(client, buffer, (size_t)length);
        }
        return;
    }
    ssize_t length = recv(client->descriptor, buffer, sizeof buffer, 0);
    if (length > 0) match(client, buffer, (size_t)length);
    else if (length == 0) fail("client %u: the connection was closed", identity(client));
    else if (errno != EAGAIN) fail("client %u: recv: %s", identity(client), strerror(errno));
}

static void start_login(struct client *client) {
    if (options.login) {
        client->phase = LOGIN;
        client->unsent = login_request.bytes;
        client->unsent_length = login_request.length;
        write_what_is_due(client);
    } else {
        start_running(client);
    }
}

static void handshake(struct client *client) {
    int result = SSL_connect(client->tls);
    if (result == 1) {
        start_login(client);
        return;
    }
    int error = SSL_get_error(client->tls, result);
    bool write = error == SSL_ERROR_WANT_WRITE;
    if (!write && error != SSL_ERROR_WANT_READ) {
        ERR_print_errors_fp(stderr);
        fail("client %u: the TLS handshake failed (%d)", identity(client), error);
    }
    if (write != client->wants_to_write) watch(client, EPOLL_CTL_MOD, write);
}

static void handle(struct client *client, uint32_t events) {
    if (client->phase == CONNECTING) {
        int error = 0;
        socklen_t length = sizeof error;
        getsockopt(client->descriptor, SOL_SOCKET, SO_ERROR, &error, &length);
        if (error) fail("client %u: connect: %s", identity(client), strerror(error));
        if (!tls_context) {
            start_login(client);
            return;
        }
        client->tls = SSL_new(tls_context);
        SSL_set_fd(client->tls, client->descriptor);
        SSL_set_tlsext_host_name(client->tls, options.tls_name);
        SSL_set1_host(client->tls, options.tls_name);
        client->phase = HANDSHAKE;
        handshake(client);
        return;
    }
    if (client->phase == HANDSHAKE) {
        handshake(client);
        return;
    }
    if (events & EPOLLOUT) write_what_is_due(client);
    if (events & ~(uint32_t)EPOLLOUT) read_some(client);
}

// Steering

static void report(void) {
    double seconds = (double)(now() - counting_since) / 1e9;
    printf("{\"requests\": %llu, \"seconds\": %.6f", (unsigned long long)histogram.total, seconds);
    static const struct {
        const char *name;
        double share;
    } percentiles[] = {{"p50_us", .5}, {"p90_us", .9}, {"p99_us", .99}, {"p99_9_us", .999}};
    for (size_t index = 0; index < sizeof percentiles / sizeof *percentiles; index++) {
        printf(", \"%s\": %.1f", percentiles[index].name,
               (double)histogram_percentile(&histogram, percentiles[index].share) / 1e3);
    }
    printf(", \"max_us\": %.1f}\n", (double)histogram.greatest / 1e3);
    fflush(stdout);
}

static void read_command(void) {
    char command[64];
    ssize_t length = read(STDIN_FILENO, command, sizeof command - 1);
    if (length <= 0) exit(0);
    command[length] = 0;
    if (strcmp(command, "start\n") == 0) {
        histogram_reset(&histogram);
        counting_since = now();
    } else if (strcmp(command, "stop\n") == 0) {
        report();
    } else {
        fail("wanted start or stop on standard input, got %s", command);
    }
}

/// Makes due what the schedule says, and returns how long nothing is due, in nanoseconds.
static uint64_t follow_schedule(void) {
    uint64_t time = now();
    for (;;) {
        uint64_t due_at = schedule_start + (uint64_t)((double)scheduled * 1e9 / options.rate);
        if (due_at > time) return due_at - time;
        struct client *client = &clients[scheduled++ % options.clients];
        make_due(client, due_at);
        write_what_is_due(client);
    }
}

static unsigned long number(const char *name, const char *text, unsigned long greatest) {
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (errno || *end || end == text || value == 0 || value > greatest)
        fail("--%s: wanted a number from 1 to %lu, got %s", name, greatest, text);
    return value;
}

static void read_options(int count, char **arguments) {
    static const struct option known[] = {
        {"port", required_argument, NULL, 'p'},     {"clients", required_argument, NULL, 'c'},
        {"pipeline", required_argument, NULL, 'P'}, {"value-bytes", required_argument, NULL, 'd'},
        {"mode", required_argument, NULL, 'm'},     {"rate", required_argument, NULL, 'r'},
        {"tls-ca", required_argument, NULL, 't'},   {"tls-name", required_argument, NULL, 'n'},
        {"login", required_argument, NULL, 'u'},    {0},
    };
    static const char *const modes[] = {"closed", "rate", "churn", "idle"};
    options.tls_name = "localhost";
    for (int option; (option = getopt_long(count, arguments, "", known, NULL)) != -1;) {
        switch (option) {
        case 'p': options.port = (int)number("port", optarg, 65535); break;
        case 'c': options.clients = (unsigned)number("clients", optarg, 100000); break;
        case 'P': options.pipeline = (unsigned)number("pipeline", optarg, 10000); break;
        case 'd': options.value_bytes = number("value-bytes", optarg, 512ul << 20); break;
        case 'r': options.rate = (unsigned)number("rate", optarg, 10000000); break;
        case 't': options.tls_ca = optarg; break;
        case 'n': options.tls_name = optarg; break;
        case 'u': options.login = true, options.user = optarg; break;
        case 'm':
            for (options.mode = CLOSED; strcmp(modes[options.mode], optarg) != 0; options.mode++)
                if (options.mode == IDLE)
                    fail("--mode: wanted closed, rate, churn or idle, got %s", optarg);
            break;
        default: exit(64);
        }
    }
    if (options.port == 0) fail("wanted --port, got none");
    // A command of its own is what has a due time, and what a short-lived client sends.
    if (options.mode != CLOSED) options.pipeline = 1;
}

int main(int count, char **arguments) {
    read_options(count, arguments);
    signal(SIGPIPE, SIG_IGN);
    // The default of 50 µs would be a quarter of the distance between commands at 5,000 a second.
    prctl(PR_SET_TIMERSLACK, 1ul, 0ul, 0ul, 0ul);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if (options.login) write_login();
    if (options.tls_ca) {
        tls_context = SSL_CTX_new(TLS_client_method());
        if (SSL_CTX_load_verify_locations(tls_context, options.tls_ca, NULL) != 1)
            fail("%s: no certificate authority could be read from it", options.tls_ca);
        SSL_CTX_set_verify(tls_context, SSL_VERIFY_PEER, NULL);
        SSL_CTX_set_mode(
            tls_context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
        SSL_CTX_set_read_ahead(tls_context, 1);
    }
    poller = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, STDIN_FILENO, &event) != 0)
        fail("standard input must be a pipe or a terminal: %s", strerror(errno));

    outstanding = options.mode == RATE ? OUTSTANDING_AT_A_RATE : OUTSTANDING;
    clients = calloc(options.clients, sizeof *clients);
    if (!clients) fail("no memory for %u clients", options.clients);
    for (unsigned index = 0; index < options.clients; index++) {
        clients[index].times = calloc(outstanding, sizeof *clients[index].times);
        if (!clients[index].times) fail("no memory for %u clients", options.clients);
        write_batches(&clients[index]);
    }
    connect_next();

    for (;;) {
        struct epoll_event events[EVENTS];
        struct timespec timeout, *wait = NULL;
        if (options.mode == RATE && released) {
            uint64_t nanoseconds = follow_schedule();
            timeout = (struct timespec){(time_t)(nanoseconds / 1000000000u),
                                        (long)(nanoseconds % 1000000000u)};
            wait = &timeout;
        }
        int ready = epoll_pwait2(poller, events, EVENTS, wait, NULL);
        if (ready < 0 && errno != EINTR) fail("epoll_pwait2: %s", strerror(errno));
        for (int index = 0; index < ready; index++) {
            struct client *client = events[index].data.ptr;
            if (!client) read_command();
            else handle(client, events[index].events);
        }
    }
}
