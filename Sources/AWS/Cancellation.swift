// How a thread that waits for AWS is told to stop.

import Glibc
import Synchronization

/// A flag that any thread may raise, once, and that ends the waiting of those who look at it.
package final class Cancellation: Sendable {
    private let raised = Atomic<Bool>(false)
    /// Readable from when the flag is raised; -1 if the system gave no pipe, then waits are in steps.
    let descriptor: Int32
    private let writeEnd: Int32

    package init() {
        var ends: [Int32] = [-1, -1]
        if pipe(&ends) == 0 {
            for end in ends { _ = fcntl(end, F_SETFD, FD_CLOEXEC) }
        } else {
            ends = [-1, -1]
        }
        (descriptor, writeEnd) = (ends[0], ends[1])
    }

    deinit {
        if descriptor >= 0 { close(descriptor) }
        if writeEnd >= 0 { close(writeEnd) }
    }

    package var isCancelled: Bool { raised.load(ordering: .acquiring) }

    package func cancel() {
        guard !raised.exchange(true, ordering: .acquiringAndReleasing) else { return }
        var byte: UInt8 = 1
        _ = write(writeEnd, &byte, 1)
    }

    /// Waits. Throws if the flag is raised before the time is over.
    package func wait(for duration: Duration) throws(AWSFailure) {
        let end = Monotonic.now() + duration
        while !isCancelled {
            let left = end.milliseconds(since: Monotonic.now())
            if left <= 0 { return }
            var polled = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
            // Without a descriptor poll(2) is a sleep: short ones, so that the flag is seen.
            let step = descriptor >= 0 ? left : min(left, 100)
            _ = poll(&polled, 1, Int32(clamping: step))
        }
        throw .cancelled
    }
}

/// A point on CLOCK_MONOTONIC, the clock that deadlines are on.
package struct Monotonic: Comparable, Hashable, Sendable {
    package let nanoseconds: UInt64

    package init(nanoseconds: UInt64) {
        self.nanoseconds = nanoseconds
    }

    package static func now() -> Monotonic {
        var time = timespec()
        clock_gettime(CLOCK_MONOTONIC, &time)
        return Monotonic(nanoseconds: UInt64(time.tv_sec) * 1_000_000_000 + UInt64(time.tv_nsec))
    }

    package static func < (left: Monotonic, right: Monotonic) -> Bool {
        left.nanoseconds < right.nanoseconds
    }

    /// Before the clock's start there is nothing, and behind its end neither.
    package static func + (instant: Monotonic, duration: Duration) -> Monotonic {
        let (seconds, attoseconds) = duration.components
        let nanoseconds = seconds.multipliedReportingOverflow(by: 1_000_000_000)
        let offset =
            nanoseconds.overflow
            ? (seconds < 0 ? Int64.min : Int64.max)
            : nanoseconds.partialValue &+ attoseconds / 1_000_000_000
        let sum =
            offset < 0
            ? instant.nanoseconds.subtractingReportingOverflow(offset.magnitude)
            : instant.nanoseconds.addingReportingOverflow(UInt64(offset))
        guard sum.overflow else { return Monotonic(nanoseconds: sum.partialValue) }
        return Monotonic(nanoseconds: offset < 0 ? 0 : .max)
    }

    /// Rounded up; 0 or less if `earlier` is not earlier.
    package func milliseconds(since earlier: Monotonic) -> Int64 {
        guard nanoseconds > earlier.nanoseconds else { return 0 }
        return Int64(clamping: (nanoseconds - earlier.nanoseconds + 999_999) / 1_000_000)
    }
}
