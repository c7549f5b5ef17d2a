// A thread of the control plane, where waiting is allowed.

import Glibc

/// A running thread that handles no signals: they belong to the threads that wait for them.
///
/// Joined at most once; one that is never joined ends by itself when the process does.
package struct BackgroundThread: Sendable {
    private let handle: pthread_t

    /// The system gave no thread: there are as many as it allows.
    package struct Unavailable: Error {
        /// The system's words.
        package let reason: String
    }

    private final class Body: Sendable {
        let run: @Sendable () -> Void

        init(_ run: @escaping @Sendable () -> Void) { self.run = run }
    }

    /// Starts a thread that runs `body`, which is kept until it returns.
    package static func start(
        _ body: @escaping @Sendable () -> Void
    ) throws(Unavailable) -> BackgroundThread {
        let body = Unmanaged.passRetained(Body(body))
        var handle = pthread_t()
        let code = pthread_create(
            &handle, nil,
            { argument in
                guard let argument else { return nil }
                let body = Unmanaged<Body>.fromOpaque(argument).takeRetainedValue()
                var all = sigset_t()
                sigfillset(&all)
                pthread_sigmask(SIG_SETMASK, &all, nil)
                body.run()
                return nil
            }, body.toOpaque())
        guard code == 0 else {
            body.release()
            throw Unavailable(reason: errorText(code))
        }
        return BackgroundThread(handle: handle)
    }

    /// Waits for the thread's end. Not from the thread itself.
    package func join() { pthread_join(handle, nil) }
}
