// Watchers of descriptors and of time, made to be stored inside their owner.
//
//     struct Session {                    UnsafeMutablePointer<Session>
//         var watcher: IOWatcher   ◄────── libev keeps the address of this field
//         …
//     }
//
// libev links the address of a watcher into its own lists. So a watcher lives in memory that does
// not move: a stored field of a struct behind an UnsafeMutablePointer, or of a class. It is
// prepared there, in place, and never copied afterwards; debug builds check that its address is
// still the one it was prepared at.
//
// Rejected: one class per watcher with a closure, which costs reference counting and a heap
// object per event source, and two watchers per descriptor, which make libev merge their interests.

import CEv

/// What a descriptor is ready for, or what one wants to know of it.
package struct Readiness: OptionSet, Sendable {
    package let rawValue: Int32

    package init(rawValue: Int32) { self.rawValue = rawValue }

    /// Bytes, a connection, the end of the stream, or an error to be fetched by reading.
    package static let read = Readiness(rawValue: Int32(EV_READ))
    /// Room in the send buffer, a finished connect, or an error to be fetched by writing.
    package static let write = Readiness(rawValue: Int32(EV_WRITE))
}

/// Called with the watcher's owner and with what is ready, as `Readiness(rawValue:)`.
///
/// The raw value, because a C function cannot take a Swift struct. An error or hang-up shows as
/// every readiness that was asked for. The callback may stop or free any watcher, its own included.
package typealias ReadyCallback =
    @convention(c) (_ owner: UnsafeMutableRawPointer, _ readiness: Int32) -> Void

/// Watches one descriptor. Address-stable: see the head of this file.
package struct IOWatcher {
    // First, because libev hands back its address and the watcher's is derived from it.
    private var io = ev_io()
    private var callback: ReadyCallback?
    private var loop: OpaquePointer?
    #if DEBUG
        private var home: UnsafeRawPointer?
    #endif

    /// A watcher that watches nothing yet; `prepare` it where it will stay.
    package init() {}

    /// Binds the watcher to a loop, a descriptor and an owner; `start` makes it watch.
    ///
    /// Must not be active. The owner is not retained; the loop must outlive the watcher's activity.
    package mutating func prepare(
        loop: EventLoop,
        descriptor: Int32,
        callback: ReadyCallback,
        owner: UnsafeMutableRawPointer
    ) {
        precondition(io.active == 0, "an active watcher cannot be prepared anew")
        cev_io_init(
            &io,
            { _, io, events in
                guard let io, let owner = io.pointee.data else { return }
                let watcher = UnsafeRawPointer(io).assumingMemoryBound(to: IOWatcher.self)
                watcher.pointee.callback?(owner, events & Int32(EV_READ | EV_WRITE))
            },
            descriptor,
            0
        )
        io.data = owner
        self.callback = callback
        self.loop = loop.raw
        #if DEBUG
            home = withUnsafePointer(to: &io) { UnsafeRawPointer($0) }
        #endif
    }

    /// Watches for exactly these interests from the next poll on; an empty set stops.
    ///
    /// Costs a comparison when nothing changes, and at most one epoll_ctl per turn when it does.
    package mutating func start(_ interests: Readiness) {
        checkHome()
        guard let loop else { preconditionFailure("prepare the watcher before it starts") }
        if io.active != 0 {
            if cev_io_events(&io) == interests.rawValue { return }
            ev_io_stop(loop, &io)
        }
        if interests.isEmpty { return }
        cev_io_modify(&io, interests.rawValue)
        ev_io_start(loop, &io)
    }

    /// Stops watching and drops an event that was already on its way. Before the descriptor is
    /// closed, always.
    package mutating func stop() {
        checkHome()
        if let loop { ev_io_stop(loop, &io) }
    }

    /// Whether anything is watched.
    package var isActive: Bool { io.active != 0 }

    /// What is watched; empty when stopped.
    package var interests: Readiness {
        io.active == 0 ? [] : Readiness(rawValue: io.events & Int32(EV_READ | EV_WRITE))
    }

    @inline(__always)
    private mutating func checkHome() {
        #if DEBUG
            let here = withUnsafePointer(to: &io) { UnsafeRawPointer($0) }
            precondition(home == nil || home == here, "a watcher must not move once prepared")
        #endif
    }
}

/// Calls once at a moment of the monotonic clock. Address-stable: see the head of this file.
///
/// Resolution is the poll's, one millisecond; it is never early by the loop's own `now`.
package struct TimerWatcher {
    // First, because libev hands back its address and the watcher's is derived from it.
    private var timer = ev_timer()
    private var callback: LoopCallback?
    private var loop: OpaquePointer?
    private var state: UnsafeMutablePointer<LoopState>?
    private var due: UInt64 = 0
    #if DEBUG
        private var home: UnsafeRawPointer?
    #endif

    /// A timer that is not set; `prepare` it where it will stay.
    package init() {}

    /// Binds the timer to a loop and an owner; `start` sets it.
    ///
    /// Must not be active. The owner is not retained; the loop must outlive the timer's activity.
    package mutating func prepare(
        loop: EventLoop,
        callback: LoopCallback,
        owner: UnsafeMutableRawPointer
    ) {
        precondition(timer.active == 0, "an active timer cannot be prepared anew")
        cev_timer_init(&timer) { _, timer, _ in
            guard let timer, let owner = timer.pointee.data else { return }
            let watcher = UnsafeMutableRawPointer(timer).assumingMemoryBound(to: TimerWatcher.self)
            // libev's clock is read at another moment than ours and counts in doubles, so it can
            // be microseconds ahead; a state machine that is asked too early would do nothing.
            if let state = watcher.pointee.state, state.pointee.now < watcher.pointee.due {
                watcher.pointee.start(at: watcher.pointee.due)
                return
            }
            watcher.pointee.callback?(owner)
        }
        timer.data = owner
        self.callback = callback
        self.loop = loop.raw
        state = loop.state
        #if DEBUG
            home = withUnsafePointer(to: &timer) { UnsafeRawPointer($0) }
        #endif
    }

    /// Sets the timer to `deadline`, in nanoseconds of `EventLoop.now`'s clock; a moment that has
    /// passed means the next turn. Replaces what was set before.
    package mutating func start(at deadline: UInt64) {
        #if DEBUG
            let here = withUnsafePointer(to: &timer) { UnsafeRawPointer($0) }
            precondition(home == nil || home == here, "a timer must not move once prepared")
        #endif
        guard let loop, let state else { preconditionFailure("prepare the timer before it starts") }
        if timer.active != 0 {
            if due == deadline { return }
            ev_timer_stop(loop, &timer)
        }
        due = deadline
        let now = state.pointee.now
        let wait = deadline > now ? Double(deadline - now) * 1e-9 : 0
        cev_timer_set(&timer, wait)
        ev_timer_start(loop, &timer)
    }

    /// Sets the timer `nanoseconds` after the loop's `now`. Replaces what was set before.
    package mutating func start(after nanoseconds: UInt64) {
        guard let state else { preconditionFailure("prepare the timer before it starts") }
        let (deadline, overflow) = state.pointee.now.addingReportingOverflow(nanoseconds)
        start(at: overflow ? .max : deadline)
    }

    /// Unsets the timer and drops a call that was already on its way.
    package mutating func stop() {
        if let loop { ev_timer_stop(loop, &timer) }
    }

    /// Whether the timer is set.
    package var isActive: Bool { timer.active != 0 }

    /// The moment it is set to, in nanoseconds; nil when it is not set.
    package var deadline: UInt64? { timer.active == 0 ? nil : due }
}
