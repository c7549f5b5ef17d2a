// libev's macros as functions, and the few Linux calls that Swift's Glibc module does not show.
//
// Swift imports functions, not function-like macros. glibc hides the GNU calls unless _GNU_SOURCE
// is defined, and defining it here would give this module another fd_set than Glibc's own, which
// the compiler refuses; so those few are declared as their man pages print them.
#ifndef REDIS_AUTH_PROXY_CEV_SHIM_H
#define REDIS_AUTH_PROXY_CEV_SHIM_H
#include <ev.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>

static inline void cev_io_init(ev_io *w, void (*callback)(struct ev_loop *, ev_io *, int),
                               int descriptor, int events) {
    ev_io_init(w, callback, descriptor, events);
}

// ev_io_set would mark the descriptor as possibly another file and so cost an epoll_ctl;
// ev_io_modify changes the events alone.
static inline void cev_io_modify(ev_io *w, int events) {
    ev_io_modify(w, events);
}

static inline int cev_io_events(const ev_io *w) {
    return w->events & (EV_READ | EV_WRITE);
}

static inline void cev_timer_init(ev_timer *w, void (*callback)(struct ev_loop *, ev_timer *, int)) {
    ev_timer_init(w, callback, 0., 0.);
}

static inline void cev_timer_set(ev_timer *w, double after) {
    ev_timer_set(w, after, 0.);
}

static inline void cev_prepare_init(ev_prepare *w,
                                    void (*callback)(struct ev_loop *, ev_prepare *, int)) {
    ev_prepare_init(w, callback);
}

// At the highest priority, so that it runs before every other watcher of the turn.
static inline void cev_check_init_first(ev_check *w,
                                        void (*callback)(struct ev_loop *, ev_check *, int)) {
    ev_check_init(w, callback);
    ev_set_priority(w, EV_MAXPRI);
}

static inline void cev_idle_init(ev_idle *w, void (*callback)(struct ev_loop *, ev_idle *, int)) {
    ev_idle_init(w, callback);
}

static inline void cev_async_init(ev_async *w, void (*callback)(struct ev_loop *, ev_async *, int)) {
    ev_async_init(w, callback);
}

static inline int cev_set_timer_slack(unsigned long nanoseconds) {
    return prctl(PR_SET_TIMERSLACK, nanoseconds, 0, 0, 0);
}

static inline int cev_set_dumpable(int dumpable) {
    return prctl(PR_SET_DUMPABLE, dumpable, 0, 0, 0);
}

static inline int cev_get_dumpable(void) {
    return prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
}

// The header netlink(7) puts before each message, and this one kind of question (sock_diag(7)).
struct cev_socket_question {
    struct nlmsghdr header;
    struct inet_diag_req_v2 request;
};

// GNU extensions: accept4(2), pthread_setname_np(3). With the bare types behind socklen_t and
// pthread_t, because including their headers here would hide some of their names from files that
// import Glibc alone.
struct sockaddr;
extern int accept4(int descriptor, struct sockaddr *address, unsigned int *length, int flags);
extern int pthread_setname_np(unsigned long thread, const char *name);
#endif
