// The time that AWS has, as far as we know: the system's clock and what was learnt of its error.
//
// A machine whose clock is wrong gets every signed request refused, and every token. AWS's answers
// carry a Date; when a refusal says that the clock is the cause, the difference is kept and used
// for whatever is signed from then on, tokens included.

import Synchronization

/// AWS's time, for all threads.
package final class AWSClock: Sendable {
    private let system: @Sendable () -> WallTime
    private let offsetMilliseconds = Atomic<Int64>(0)

    /// - Parameter system: this machine's time; a test has its own.
    package init(system: @escaping @Sendable () -> WallTime = WallTime.now) {
        self.system = system
    }

    package func now() -> WallTime {
        WallTime(
            milliseconds: system().milliseconds
                &+ offsetMilliseconds.load(ordering: .relaxed))
    }

    /// How far AWS is ahead of this machine.
    package var offset: Duration { .milliseconds(offsetMilliseconds.load(ordering: .relaxed)) }

    /// Takes AWS's word for what time it is. Returns whether that changed anything: less than the
    /// second that a Date is rounded to is nothing.
    func learn(_ time: WallTime) -> Bool {
        let error = time.milliseconds - now().milliseconds
        guard error.magnitude > 1500 else { return false }
        offsetMilliseconds.wrappingAdd(error, ordering: .relaxed)
        return true
    }
}
