import Glibc

/// A pipe to oneself: any thread may `signal` it without blocking; one thread polls and clears it.
final class WakePipe: Sendable {
    /// The end to poll.
    let descriptor: Int32
    /// errno of the creation; 0 if it went well.
    let failure: Int32
    private let writeEnd: Int32

    init() {
        var ends: [Int32] = [-1, -1]
        let isMade = pipe(&ends) == 0
        failure = isMade ? 0 : errno
        (descriptor, writeEnd) = (ends[0], ends[1])
        for end in ends where isMade {
            _ = fcntl(end, F_SETFD, FD_CLOEXEC)
            _ = fcntl(end, F_SETFL, O_NONBLOCK)
        }
    }

    deinit {
        guard isUsable else { return }
        close(descriptor)
        close(writeEnd)
    }

    var isUsable: Bool { failure == 0 }

    /// Wakes the poller. A full pipe fails with EAGAIN, which is as good: it is readable already.
    func signal() {
        var byte: UInt8 = 1
        _ = write(writeEnd, &byte, 1)
    }

    func clear() {
        withUnsafeTemporaryAllocation(byteCount: 512, alignment: 1) { buffer in
            while read(descriptor, buffer.baseAddress, buffer.count) > 0 {}
        }
    }
}
