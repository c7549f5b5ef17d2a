// Time as the state machines see it: a number that the caller moves forward. Nothing in this
// room reads a clock, so that a simulation can be a day long and take a second.

/// A point on a monotonic clock, in nanoseconds since an arbitrary start.
package struct Instant: Comparable, Sendable, BitwiseCopyable {
    package let nanoseconds: UInt64

    package init(nanoseconds: UInt64) {
        self.nanoseconds = nanoseconds
    }

    /// Later than everything.
    package static let never = Instant(nanoseconds: .max)

    package static func < (left: Instant, right: Instant) -> Bool {
        left.nanoseconds < right.nanoseconds
    }

    /// Saturates at both ends: a deadline that is too far away to be represented never comes.
    package static func + (instant: Instant, duration: Duration) -> Instant {
        let (seconds, attoseconds) = duration.components
        guard seconds >= 0 else { return instant }
        let (whole, tooLong) = UInt64(seconds).multipliedReportingOverflow(by: 1_000_000_000)
        let (sum, tooLate) = instant.nanoseconds.addingReportingOverflow(
            whole &+ UInt64(max(0, attoseconds)) / 1_000_000_000
        )
        return Instant(nanoseconds: tooLong || tooLate ? .max : sum)
    }

    /// How long ago `earlier` was; zero if it was not.
    package func since(_ earlier: Instant) -> Duration {
        .nanoseconds(Int64(clamping: nanoseconds &- min(nanoseconds, earlier.nanoseconds)))
    }
}
