// Keeps one AWS credential fresh in the background, on a thread of its own.
//
//   fetched ────────── advisory margin ── expiry
//           use it     fetch the next     not used any more
//
// The margin is a quarter of what the credential has left when it is fetched, 15 minutes at most,
// and up to a fifth longer at random: sessions of six hours and of twenty seconds both have time for
// several attempts. Fetches that fail are repeated after pauses that double, and that a credential
// near its end keeps short. There is one fetch at a time, and whoever asks meanwhile gets the
// credential that is there.
//
// Static stability: a credential of instance metadata stays in use past its expiry when no newer one
// comes, for 10 to 15 minutes at a time. AWS asks for that: when its metadata service or what is
// behind it is out of order, the credential may still be accepted, and nothing better is there.
//
// Source: AWS SDKs and Tools Reference Guide, "IMDS credential provider"; botocore 1.43,
// credentials.RefreshableCredentials (15 minutes); the SDK for Rust (static stability).

import Identity
import Synchronization

/// Fetches a credential before the old one ends, as long as it runs.
package final class CredentialRefresher: Sendable {
    /// What is known now.
    package struct State: Sendable {
        /// The newest one, unless its time is over.
        package var credential: AWSCredential?
        /// Why the newest fetch brought nothing; nil if it went well, or none has ended yet.
        package var failure: AWSFailure?
    }

    static let longestMargin: Duration = .seconds(15 * 60)
    static let shortestPause: Duration = .milliseconds(250)
    static let longestPause: Duration = .seconds(60)
    /// How soon after a fetch another one that was asked for may follow; doubles up to the other, as
    /// long as requests go on.
    static let askedPause: Duration = .seconds(5)
    static let longestAskedPause: Duration = .seconds(300)

    private struct Shared {
        var state = State()
        var thread: BackgroundThread?
        /// Somebody thinks that the credential is no good.
        var isAsked = false
    }

    private let shared = Mutex(Shared())
    private let fetch: @Sendable () throws(AWSFailure) -> AWSCredential
    private let clock: AWSClock
    private let cancellation: Cancellation
    private let onChange: @Sendable (State) -> Void
    private let wake = WakePipe()

    /// - Parameters:
    ///   - fetch: called on the refresher's thread; may block, and must end when cancelled.
    ///   - onChange: called on that thread after each fetch, whatever came of it; must not block.
    package init(
        clock: AWSClock, cancellation: Cancellation,
        onChange: @escaping @Sendable (State) -> Void,
        fetch: @escaping @Sendable () throws(AWSFailure) -> AWSCredential
    ) {
        self.clock = clock
        self.cancellation = cancellation
        self.onChange = onChange
        self.fetch = fetch
    }

    /// What may be used now. Never blocks.
    package var state: State {
        var state = shared.withLock { $0.state }
        if let expiry = state.credential?.expiry, expiry <= clock.now() {
            state.credential = nil
            if state.failure == nil {
                state.failure = AWSFailure(.unavailable, "the AWS credential has expired")
            }
        }
        return state
    }

    /// Asks for a fetch soon, because a server did not accept what was signed. Never blocks.
    package func requestRefresh() {
        shared.withLock { $0.isAsked = true }
        wake.signal()
    }

    /// Starts the thread. Throws when the system gives none.
    package func start() throws(AWSFailure) {
        do throws(BackgroundThread.Unavailable) {
            try shared.withLock { shared throws(BackgroundThread.Unavailable) in
                precondition(shared.thread == nil, "started twice")
                shared.thread = try BackgroundThread.start { self.run() }
            }
        } catch {
            throw AWSFailure(
                .unavailable, "cannot start a thread for AWS credentials: \(error.reason)")
        }
    }

    /// Ends the thread and waits for it; raises the cancellation.
    package func stop() {
        cancellation.cancel()
        wake.signal()
        let thread = shared.withLock { shared in
            defer { shared.thread = nil }
            return shared.thread
        }
        thread?.join()
    }

    private func run() {
        var failures = 0
        var asked = 0
        var lastAsked = Monotonic.now()
        while !cancellation.isCancelled {
            let isAsked = shared.withLock { shared in
                defer { shared.isAsked = false }
                return shared.isAsked
            }
            if Monotonic.now() > lastAsked + Self.longestAskedPause * 2 { asked = 0 }
            if isAsked {
                asked += 1
                lastAsked = Monotonic.now()
            }
            do throws(AWSFailure) {
                let fetched = try fetch()
                take(fetched)
                guard state.credential != nil else {
                    throw AWSFailure(
                        .unavailable,
                        "\(fetched.source): wanted a credential, got one that has expired")
                }
                failures = 0
            } catch {
                if error.kind == .cancelled { return }
                failures += 1
                shared.withLock { $0.state.failure = error }
                extendIfStable()
            }
            onChange(state)
            let askedPause = Self.askedPause * (1 << min(max(0, asked - 1), 10))
            sleep(for: pause(failures), atLeast: min(askedPause, Self.longestAskedPause))
        }
    }

    private func take(_ fetched: AWSCredential) {
        shared.withLock { shared in
            shared.state = State(credential: fetched, failure: nil)
        }
        extendIfStable()
    }

    /// Gives a statically stable credential more time if its own is over.
    private func extendIfStable() {
        let now = clock.now()
        shared.withLock { shared in
            guard let credential = shared.state.credential, credential.isStaticallyStable,
                let expiry = credential.expiry, expiry.since(now) < .seconds(1)
            else { return }
            shared.state.credential?.expiry =
                now + .seconds(600) + .milliseconds(Int64.random(in: 0...300_000))
        }
    }

    /// Until the next fetch.
    private func pause(_ failures: Int) -> Duration {
        let state = self.state
        let left = state.credential?.expiry.map { $0.since(clock.now()) }
        if failures == 0 {
            guard let left else { return .seconds(365 * 86_400) }
            let margin = min(left / 4, Self.longestMargin) * Double.random(in: 1...1.2)
            return max(left - margin, Self.shortestPause)
        }
        var pause = min(Duration.seconds(1) * (1 << min(failures - 1, 10)), Self.longestPause)
        if let left { pause = min(pause, left / 4) }
        return max(pause * Double.random(in: 0.75...1), Self.shortestPause)
    }

    /// Sleeps; a request ends it, but not before `shortest` has passed.
    private func sleep(for duration: Duration, atLeast shortest: Duration) {
        let start = Monotonic.now()
        let end = start + duration
        while !cancellation.isCancelled {
            let isAsked = shared.withLock { $0.isAsked }
            let until = isAsked ? min(end, start + shortest) : end
            let left = until.milliseconds(since: Monotonic.now())
            if left <= 0 { return }
            wake.wait(milliseconds: left)
        }
    }
}
