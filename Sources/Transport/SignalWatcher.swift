// Signals as readable bytes of a descriptor, instead of code that runs between any two instructions.
//
// A signal that is blocked in every thread stays pending until a signalfd reads it. So `block`
// comes first, before any thread exists (threads inherit the mask), and the watcher then reads
// them in one loop. Child processes inherit the mask too: whoever spawns one unblocks there.

import CEv
import Glibc

/// Reads signals in a loop. Created, used and dropped on the loop's thread.
package final class SignalWatcher {
    private struct Box {
        var watcher = IOWatcher()
        var descriptor: Int32 = -1
        var handler: (Int32) -> Void = { _ in }
    }

    private let box: UnsafeMutablePointer<Box>

    /// Blocks `signals` (such as SIGTERM) in the calling thread and in every thread it will start.
    package static func block(_ signals: [Int32]) {
        var set = Self.set(of: signals)
        pthread_sigmask(SIG_BLOCK, &set, nil)
    }

    /// Whether a blocked signal has come that nobody has read yet.
    package static func isPending(_ signal: Int32) -> Bool {
        var set = sigset_t()
        return sigpending(&set) == 0 && sigismember(&set, signal) == 1
    }

    /// Calls `handler` with the number of each of `signals` that arrives.
    ///
    /// The signals must have been blocked. Several of the same number that arrive before they are
    /// read are one (signal(7)).
    /// - Throws: `SystemError` when there is no descriptor left.
    package init(
        loop: EventLoop,
        signals: [Int32],
        handler: @escaping (Int32) -> Void
    ) throws(SystemError) {
        var set = Self.set(of: signals)
        let flags = Int32(SFD_NONBLOCK | SFD_CLOEXEC)
        let descriptor = signalfd(-1, &set, flags)
        if descriptor < 0 { throw SystemError(call: "signalfd", number: errno) }
        box = UnsafeMutablePointer.allocate(capacity: 1)
        box.initialize(to: Box(descriptor: descriptor, handler: handler))
        box.pointee.watcher.prepare(
            loop: loop,
            descriptor: descriptor,
            callback: { owner, _ in
                SignalWatcher.drain(owner.assumingMemoryBound(to: Box.self))
            },
            owner: UnsafeMutableRawPointer(box)
        )
        box.pointee.watcher.start(.read)
    }

    deinit {
        box.pointee.watcher.stop()
        Socket.close(box.pointee.descriptor)
        box.deinitialize(count: 1)
        box.deallocate()
    }

    private static func drain(_ box: UnsafeMutablePointer<Box>) {
        // Copies, because the handler may drop the watcher.
        let descriptor = box.pointee.descriptor
        let handler = box.pointee.handler
        var received: [Int32] = []
        var information = signalfd_siginfo()
        let size = MemoryLayout<signalfd_siginfo>.size
        while read(descriptor, &information, size) == size {
            received.append(Int32(truncatingIfNeeded: information.ssi_signo))
        }
        for number in received { handler(number) }
    }

    private static func set(of signals: [Int32]) -> sigset_t {
        var set = sigset_t()
        sigemptyset(&set)
        for number in signals { sigaddset(&set, number) }
        return set
    }
}
