// Counts what the worker threads of a proxy do: preloaded into it, it stands before the functions that
// it counts and passes every call on. The counts lie in a file that a test reads meanwhile; their
// order is that of `NAMES` in counts.py.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    ALLOCATIONS,
    OPENSSL_ALLOCATIONS,
    REFERENCES,
    RECEIVES,
    SENDS,
    OTHER_CALLS,
    TURNS,
    RECORDS,
    KINDS,
};

static uint64_t nowhere[KINDS];
static uint64_t *counts = nowhere;

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);
extern void *__libc_memalign(size_t, size_t);

// Initial-exec: the general model may itself allocate on a thread's first use.
static __thread int is_worker __attribute__((tls_model("initial-exec")));

// A thread is named some time after it has begun.
static void count(int kind, uint64_t amount) {
    if (!is_worker) {
        char name[16] = "";
        int saved = errno;
        prctl(PR_GET_NAME, name);
        errno = saved;
        if (strncmp(name, "worker ", 7) != 0) return;
        is_worker = 1;
    }
    __atomic_fetch_add(counts + kind, amount, __ATOMIC_RELAXED);
}

// Where the code of OpenSSL's two libraries lies.
static uintptr_t openssl_start[2], openssl_end[2];

static int find_openssl(struct dl_phdr_info *library, size_t size, void *data) {
    (void)size, (void)data;
    int number = strstr(library->dlpi_name, "libcrypto.so") ? 0
        : strstr(library->dlpi_name, "libssl.so")           ? 1
                                                            : -1;
    for (int index = 0; number >= 0 && index < library->dlpi_phnum; index++) {
        const ElfW(Phdr) *part = library->dlpi_phdr + index;
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X)) continue;
        openssl_start[number] = library->dlpi_addr + part->p_vaddr;
        openssl_end[number] = openssl_start[number] + part->p_memsz;
    }
    return 0;
}

static int is_openssl(uintptr_t caller) {
    return (caller >= openssl_start[0] && caller < openssl_end[0])
        || (caller >= openssl_start[1] && caller < openssl_end[1]);
}

#define COUNT_ALLOCATION()                                                                   \
    count(                                                                                   \
        is_openssl((uintptr_t)__builtin_return_address(0)) ? OPENSSL_ALLOCATIONS : ALLOCATIONS, 1)

__attribute__((constructor)) static void open_counts(void) {
    dl_iterate_phdr(find_openssl, NULL);
    const char *path = getenv("COUNTS_FILE");
    int file = path ? open(path, O_RDWR) : -1;
    if (file < 0) _exit(69);
    void *memory = mmap(NULL, sizeof nowhere, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) _exit(71);
    counts = memory;
    close(file);
}

void *malloc(size_t size) {
    COUNT_ALLOCATION();
    return __libc_malloc(size);
}

void *calloc(size_t number, size_t size) {
    COUNT_ALLOCATION();
    return __libc_calloc(number, size);
}

void *realloc(void *old, size_t size) {
    COUNT_ALLOCATION();
    return __libc_realloc(old, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    COUNT_ALLOCATION();
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
    COUNT_ALLOCATION();
    void *found = __libc_memalign(alignment, size);
    if (!found) return ENOMEM;
    *memory = found;
    return 0;
}

#define NEXT(type, name, ...)                                   \
    static type (*next)(__VA_ARGS__);                           \
    if (!next) next = (type(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define REFERENCE(type, function)       \
    type function(void *object) {       \
        NEXT(type, #function, void *);  \
        count(REFERENCES, 1);           \
        return next(object);            \
    }

REFERENCE(void *, swift_retain)
REFERENCE(void, swift_release)
REFERENCE(void *, swift_bridgeObjectRetain)
REFERENCE(void, swift_bridgeObjectRelease)

ssize_t recv(int descriptor, void *buffer, size_t size, int flags) {
    NEXT(ssize_t, "recv", int, void *, size_t, int);
    count(RECEIVES, 1);
    return next(descriptor, buffer, size, flags);
}

// What goes to the server begins with a record of TLS (RFC 8446, section 5.1: type, version, length),
// what goes to a client does not.
static uint64_t records(const unsigned char *bytes, size_t size) {
    uint64_t found = 0;
    while (size >= 5 && bytes[0] == 23 && bytes[1] == 3) {
        size_t length = 5 + ((size_t)bytes[3] << 8 | bytes[4]);
        found++;
        if (length > size) break;
        bytes += length;
        size -= length;
    }
    return found;
}

ssize_t send(int descriptor, const void *bytes, size_t size, int flags) {
    NEXT(ssize_t, "send", int, const void *, size_t, int);
    count(SENDS, 1);
    count(RECORDS, records(bytes, size));
    return next(descriptor, bytes, size, flags);
}

int epoll_wait(int epoll, struct epoll_event *events, int most, int milliseconds) {
    NEXT(int, "epoll_wait", int, struct epoll_event *, int, int);
    count(TURNS, 1);
    return next(epoll, events, most, milliseconds);
}

int epoll_ctl(int epoll, int operation, int descriptor, struct epoll_event *event) {
    NEXT(int, "epoll_ctl", int, int, int, struct epoll_event *);
    count(OTHER_CALLS, 1);
    return next(epoll, operation, descriptor, event);
}

ssize_t read(int descriptor, void *buffer, size_t size) {
    NEXT(ssize_t, "read", int, void *, size_t);
    count(OTHER_CALLS, 1);
    return next(descriptor, buffer, size);
}

ssize_t write(int descriptor, const void *bytes, size_t size) {
    NEXT(ssize_t, "write", int, const void *, size_t);
    count(OTHER_CALLS, 1);
    return next(descriptor, bytes, size);
}

// The gather window's sleep.
int clock_nanosleep(
    clockid_t clock, int flags, const struct timespec *time, struct timespec *rest) {
    NEXT(int, "clock_nanosleep", clockid_t, int, const struct timespec *, struct timespec *);
    count(OTHER_CALLS, 1);
    return next(clock, flags, time, rest);
}

int nanosleep(const struct timespec *time, struct timespec *rest) {
    NEXT(int, "nanosleep", const struct timespec *, struct timespec *);
    count(OTHER_CALLS, 1);
    return next(time, rest);
}
