// A POSIX thread with a name.
//
// The body is @Sendable and runs in an ordinary function of this file. Threads must not be made
// from closures written in main.swift or in a @main type: those are inferred to belong to the main
// actor, compile cleanly, and crash at their first instruction on another thread.

import CEv
import Glibc
import Synchronization

/// A running thread. Joined at most once; one that is never joined is detached when dropped.
package final class Thread: Sendable {
    private let handle: pthread_t
    private let isJoined = Atomic(false)

    private init(handle: pthread_t) { self.handle = handle }

    /// Starts a thread that runs `body` and ends.
    ///
    /// - Parameter name: shown by top and ps; Linux keeps its first 15 bytes.
    /// - Throws: `SystemError` when the system has no room for another thread.
    package static func start(
        name: String,
        body: @escaping @Sendable () -> Void
    ) throws(SystemError) -> Thread {
        let start = Unmanaged.passRetained(Body(name: name, run: body)).toOpaque()
        var handle = pthread_t()
        let number = pthread_create(
            &handle,
            nil,
            { argument in
                guard let argument else { return nil }
                let body = Unmanaged<Body>.fromOpaque(argument).takeRetainedValue()
                // Fails only for a name that is too long, which this one is not.
                _ = pthread_setname_np(pthread_self(), body.name)
                body.run()
                return nil
            },
            start
        )
        if number != 0 {
            Unmanaged<Body>.fromOpaque(start).release()
            throw SystemError(call: "pthread_create", number: number)
        }
        return Thread(handle: handle)
    }

    /// Waits for the thread's end. Once, and not from the thread itself.
    package func join() {
        let wasJoined = isJoined.exchange(true, ordering: .acquiringAndReleasing)
        precondition(!wasJoined, "a thread is joined once")
        pthread_join(handle, nil)
    }

    deinit {
        if !isJoined.load(ordering: .acquiring) { pthread_detach(handle) }
    }
}

private final class Body: Sendable {
    let name: String
    let run: @Sendable () -> Void

    init(name: String, run: @escaping @Sendable () -> Void) {
        self.name = String(decoding: name.utf8.prefix(15), as: UTF8.self)
        self.run = run
    }
}
