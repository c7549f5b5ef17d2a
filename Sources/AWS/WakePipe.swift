// How a thread of the control plane is woken while it waits for something else in poll(2).

import Glibc

/// A pipe to oneself: any thread may `signal` it without blocking; one thread polls and clears it.
package final class WakePipe: Sendable {
    /// The end to poll; -1 if the system gave no pipe.
    package let descriptor: Int32
    /// errno of the creation; 0 if it went well.
    package let failure: Int32
    private let writeEnd: Int32

    package init() {
        var ends: [Int32] = [-1, -1]
        if pipe(&ends) == 0 {
            failure = 0
            for end in ends {
                _ = fcntl(end, F_SETFD, FD_CLOEXEC)
                _ = fcntl(end, F_SETFL, O_NONBLOCK)
            }
        } else {
            failure = errno
            ends = [-1, -1]
        }
        (descriptor, writeEnd) = (ends[0], ends[1])
    }

    deinit {
        guard isUsable else { return }
        close(descriptor)
        close(writeEnd)
    }

    package var isUsable: Bool { failure == 0 }

    /// Wakes the poller. A full pipe fails with EAGAIN, which is as good: it is readable already.
    package func signal() {
        var byte: UInt8 = 1
        _ = write(writeEnd, &byte, 1)
    }

    package func clear() {
        withUnsafeTemporaryAllocation(byteCount: 512, alignment: 1) { buffer in
            while read(descriptor, buffer.baseAddress, buffer.count) > 0 {}
        }
    }

    /// Waits for a signal and clears it, or until the time is over.
    ///
    /// Without a descriptor poll(2) is a sleep: a short one, so that the caller looks again.
    package func wait(milliseconds: Int64) {
        var polled = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        let step = isUsable ? milliseconds : min(milliseconds, 200)
        if poll(&polled, 1, Int32(clamping: step)) > 0 { clear() }
    }
}
