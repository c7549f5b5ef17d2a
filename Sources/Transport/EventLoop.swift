// One libev loop for one thread.
//
//            ┌──────────────────────────── one turn ────────────────────────────┐
//     poll (blocks) ──► now is refreshed ──► timers, descriptors, mailboxes ──► onTurnEnd ──► poll
//
// A turn gathers: whatever the watchers left to be written goes out in onTurnEnd, once, just
// before the loop would block. Watchers call plain C functions with a raw owner pointer, because
// a closure or a class reference per event would cost reference counting on the hot path.
//
// Invariant: everything here, and every watcher, is touched by one thread only. The two doors
// for other threads are `Mailbox` and, for signals, `SignalWatcher`.

import CEv
import Glibc

/// A function that the loop calls with the owner it was registered with.
///
/// A C function, so it captures nothing: `{ owner in … }` written in place works as long as it
/// uses only its argument.
package typealias LoopCallback = @convention(c) (_ owner: UnsafeMutableRawPointer) -> Void

/// What the loop and its timers share, at an address that never changes.
struct LoopState {
    var prepare = ev_prepare()
    var check = ev_check()
    var idle = ev_idle()
    var now: UInt64 = 0
    var turnEnd: LoopCallback?
    var turnEndOwner: UnsafeMutableRawPointer?
}

/// A libev loop on epoll. Created, run and dropped on one thread.
///
/// Stop all watchers before the loop is dropped: they keep an unowned pointer to it.
package final class EventLoop {
    let raw: OpaquePointer
    let state: UnsafeMutablePointer<LoopState>
    private var stopRequested = false
    private var sleepsExactly = false

    /// Creates the loop, epoll descriptor included.
    ///
    /// - Throws: `SystemError` when there is no descriptor or memory left for it.
    package init() throws(SystemError) {
        // NOENV: LIBEV_FLAGS in the environment must not be able to change the backend.
        let flags = UInt32(EVBACKEND_EPOLL) | UInt32(EVFLAG_NOENV)
        guard let raw = ev_loop_new(flags) else {
            throw SystemError(call: "epoll_create", number: errno)
        }
        self.raw = raw
        state = UnsafeMutablePointer.allocate(capacity: 1)
        state.initialize(to: LoopState())
        state.pointee.now = monotonicNanoseconds()

        cev_check_init_first(&state.pointee.check) { _, watcher, _ in
            guard let data = watcher?.pointee.data else { return }
            data.assumingMemoryBound(to: LoopState.self).pointee.now = monotonicNanoseconds()
        }
        cev_prepare_init(&state.pointee.prepare) { _, watcher, _ in
            guard let data = watcher?.pointee.data else { return }
            let state = data.assumingMemoryBound(to: LoopState.self)
            if let turnEnd = state.pointee.turnEnd, let owner = state.pointee.turnEndOwner {
                turnEnd(owner)
            }
        }
        cev_idle_init(&state.pointee.idle) { loop, watcher, _ in ev_idle_stop(loop, watcher) }
        state.pointee.check.data = UnsafeMutableRawPointer(state)
        state.pointee.prepare.data = UnsafeMutableRawPointer(state)
        ev_check_start(raw, &state.pointee.check)
        ev_prepare_start(raw, &state.pointee.prepare)
    }

    deinit {
        ev_idle_stop(raw, &state.pointee.idle)
        ev_prepare_stop(raw, &state.pointee.prepare)
        ev_check_stop(raw, &state.pointee.check)
        ev_loop_destroy(raw)
        state.deinitialize(count: 1)
        state.deallocate()
    }

    /// CLOCK_MONOTONIC in nanoseconds, read once per turn, right after the poll returned.
    package var now: UInt64 { state.pointee.now }

    /// Runs turns until `stop()`; a `stop()` that came before makes it return at once.
    package func run() {
        if !stopRequested {
            ev_now_update(raw)
            state.pointee.now = monotonicNanoseconds()
            ev_run(raw, 0)
        }
        stopRequested = false
    }

    /// Makes `run()` return at the end of this turn. Only from the loop's own thread.
    package func stop() {
        stopRequested = true
        ev_break(raw, Int32(EVBREAK_ALL))
    }

    /// Calls `callback` once per turn, just before the loop would block; replaces the one before.
    ///
    /// It may start and stop watchers; what it changes counts for the poll that follows.
    package func onTurnEnd(_ callback: LoopCallback, owner: UnsafeMutableRawPointer) {
        state.pointee.turnEnd = callback
        state.pointee.turnEndOwner = owner
    }

    /// From the next poll on, a turn begins no sooner than this after the one before it began; 0 as
    /// soon as there is anything to do. What comes meanwhile is dealt with in one turn.
    ///
    /// - Parameter nanoseconds: some milliseconds at the most. Timers may be late by it.
    package func holdTurnsApart(by nanoseconds: UInt64) {
        if nanoseconds > 0 && !sleepsExactly {
            // By default the kernel may add 50 µs to each sleep of a thread; this one is as short.
            _ = cev_set_timer_slack(1_000)
            sleepsExactly = true
        }
        ev_set_io_collect_interval(raw, Double(nanoseconds) * 1e-9)
    }

    /// Lets the next poll return at once, so that work left over from this turn goes on after the
    /// other watchers had theirs. For bytes in our own buffers, which no poll can report.
    package func runAnotherTurn() {
        if state.pointee.idle.active == 0 { ev_idle_start(raw, &state.pointee.idle) }
    }
}

/// CLOCK_MONOTONIC in nanoseconds, for threads without a loop; a loop's own code uses its `now`.
package func monotonicNanoseconds() -> UInt64 {
    var time = timespec()
    clock_gettime(CLOCK_MONOTONIC, &time)
    return UInt64(truncatingIfNeeded: time.tv_sec) &* 1_000_000_000
        &+ UInt64(truncatingIfNeeded: time.tv_nsec)
}
