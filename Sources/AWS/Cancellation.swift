// How a thread that waits for AWS is told to stop.

import Glibc
import Synchronization

/// A flag that any thread may raise, once, and that ends the waiting of those who look at it.
package final class Cancellation: Sendable {
    private let raised = Atomic<Bool>(false)
    private let pipe = WakePipe()

    package init() {}

    /// Readable from when the flag is raised; -1 if the system gave no pipe, then waits are in steps.
    package var descriptor: Int32 { pipe.descriptor }

    package var isCancelled: Bool { raised.load(ordering: .acquiring) }

    package func cancel() {
        guard !raised.exchange(true, ordering: .acquiringAndReleasing) else { return }
        pipe.signal()
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
