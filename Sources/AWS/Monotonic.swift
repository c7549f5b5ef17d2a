// What deadlines of the control plane are made of.

import Glibc

/// A point on CLOCK_MONOTONIC, the clock that deadlines are on. Not a date.
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
