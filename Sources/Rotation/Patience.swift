// How long a rotation waits for a user that is being changed, and how often it looks.
//
//   pause i   1 s × 1.5^i, at most `longestPause`, a random half of it less
//
// ElastiCache has no way to be told when a user is active again, and seconds are usual. Many secrets
// that rotate in the same minute must not ask at the same moments: AWS throttles such requests per
// account.

package import AWS
import Glibc

/// Time as a rotation sees it; a test has its own.
package struct RotationClock: Sendable {
    package let now: @Sendable () -> Monotonic
    package let wait: @Sendable (Duration) -> Void

    package init(
        now: @escaping @Sendable () -> Monotonic, wait: @escaping @Sendable (Duration) -> Void
    ) {
        self.now = now
        self.wait = wait
    }

    /// The machine's.
    package static let system = RotationClock(
        now: { Monotonic.now() },
        wait: { duration in
            // Without descriptors poll(2) is a sleep; a signal that ends it sooner ends a wait sooner.
            poll(nil, 0, Int32(clamping: duration.milliseconds))
        })
}

/// Until when to wait, in pauses that grow.
package struct Patience: Sendable {
    static let firstPause: Duration = .seconds(1)

    package let end: Monotonic
    private let clock: RotationClock
    private let longestPause: Duration
    private var pause: Duration

    /// - Parameter longestPause: also the first one, if it is shorter than that.
    package init(until end: Monotonic, longestPause: Duration, clock: RotationClock) {
        self.end = end
        self.clock = clock
        self.longestPause = longestPause
        pause = min(Self.firstPause, longestPause)
    }

    /// Waits for a pause; false, without waiting, if that would be too long.
    package mutating func wait() -> Bool {
        let drawn = pause * Double.random(in: 0.5...1)
        guard clock.now() + drawn < end else { return false }
        clock.wait(drawn)
        pause = min(pause * 1.5, longestPause)
        return true
    }
}
