// Tells the operator of a running proxy that an upstream is a cluster of several shards, once.
//
//   worker logged in, "mode: cluster" ──► wanted ── asked ──► answered: a line in the log, if need be
//                 ▲                                  │
//                 └────────── unasked ◄── not reached, refused, no credential
//
// A worker connects ahead of the first client, so that this comes with the start; a server that is no
// cluster is asked nothing. The question goes over a connection of its own, from a thread of its own,
// and is closed with the answer: nothing waits for it, and what the data plane does depends on nothing
// that it finds.
//
// Rejected: to ask on the data plane's connections, where an answer of whatever size and shape would
// stand among those that are counted off to clients.

import AWS
import Configuration
import Identity
import Logging
import Server
import Synchronization
import Transport

/// Asks each upstream of a running proxy for its shape. Usable from any thread.
final class ClusterCheck: Sendable {
    /// Users that are tried at one upstream, since one may ask what another may not.
    private static let mostUsers = 4

    private struct Upstream {
        var settings: UpstreamSettings
        var users: [UserIndex]
        var loginTimeout: Duration
        var progress = Progress.unasked

        func isSame(as other: UpstreamSettings) -> Bool {
            (settings.name, settings.address) == (other.name, other.address)
        }
    }

    private enum Progress {
        case unasked
        case wanted
        case answered
    }

    private let credentials: LiveCredentials
    private let logger: Logger
    private let upstreams = Mutex<[Upstream]>([])
    private let thread = Mutex<BackgroundThread?>(nil)
    private let cancellation = Cancellation()
    private let wake = WakePipe()
    /// Held while there is anything of OpenSSL's on the thread.
    private let connecting = Mutex(())

    init(credentials: LiveCredentials, logger: Logger) {
        self.credentials = credentials
        self.logger = logger
    }

    /// From now on these are the upstreams. One that has been asked is not asked again.
    ///
    /// - Parameter numbers: what each user is known by where its credential is used.
    func follow(_ settings: Settings, numbered numbers: [UserIndex]) {
        upstreams.withLock { upstreams in
            upstreams = settings.upstreams.enumerated().map { position, upstream in
                let before = upstreams.first { $0.isSame(as: upstream) }
                return Upstream(
                    settings: upstream,
                    users: zip(settings.users, numbers).filter { $0.0.upstream == position }
                        .map(\.1),
                    loginTimeout: settings.loginTimeout,
                    progress: before?.progress ?? .unasked)
            }
        }
    }

    /// A server that says that it is part of a cluster has let this user in. Never blocks for long.
    func ask(as user: UserIndex) {
        let isWanted = upstreams.withLock { upstreams in
            let index = upstreams.firstIndex {
                $0.progress == .unasked && $0.users.contains(user)
            }
            if let index { upstreams[index].progress = .wanted }
            return index != nil
        }
        guard isWanted else { return }
        wake.signal()
        do throws(BackgroundThread.Unavailable) {
            try thread.withLock { thread throws(BackgroundThread.Unavailable) in
                if thread == nil { thread = try BackgroundThread.start { self.run() } }
            }
        } catch {
            logger.warning(
                "upstream: it is a cluster, and there is no thread to ask of how many shards",
                metadata: ["reason": "\(error.reason)"])
        }
    }

    /// Asks nothing any more. When it returns the thread makes no connection; it may still look a
    /// name up, which nothing can end.
    func stop() {
        cancellation.cancel()
        wake.signal()
        connecting.withLock { _ in }
    }

    // MARK: The thread

    private func run() {
        while !cancellation.isCancelled {
            let next = upstreams.withLock { $0.first { $0.progress == .wanted } }
            guard let next else {
                wake.wait(milliseconds: 3_600_000)
                continue
            }
            let shape = ask(next)
            if cancellation.isCancelled { return }
            upstreams.withLock { upstreams in
                for index in upstreams.indices where upstreams[index].isSame(as: next.settings) {
                    upstreams[index].progress = shape == nil ? .unasked : .answered
                }
            }
            if let shape { tell(shape, next.settings) }
        }
    }

    private func tell(_ shape: ClusterShape, _ upstream: UpstreamSettings) {
        guard let limits = shape.limits, let remedy = shape.remedy else { return }
        var fields: Logger.Metadata = [
            "upstream": "\(upstream.name)", "address": "\(upstream.address)",
        ]
        if case .shards(let count) = shape { fields["shards"] = "\(count)" }
        // What is not known to be wrong is no warning.
        let level: Logger.Level = if case .unknown = shape { .notice } else { .warning }
        logger.log(level: level, "upstream: \(limits). Remedy: \(remedy)", metadata: fields)
    }

    /// nil: nobody could be logged in here, although the proxy could.
    private func ask(_ upstream: Upstream) -> ClusterShape? {
        let address = upstream.settings.address
        guard
            case .success(let addresses) = Resolver.lookUp(host: address.host, port: address.port)
        else { return nil }
        var answer: ClusterShape?
        for user in upstream.users.prefix(Self.mostUsers) {
            let credential = credentials.snapshot(of: user).credential
            guard let credential, credential.isUsable(at: Monotonic.now().nanoseconds) else {
                continue
            }
            let shape = connecting.withLock { _ in
                ask(upstream, addresses, credential)
            }
            switch shape {
            case nil: continue
            case .unknown: answer = shape
            case let shape?: return shape
            }
        }
        return answer
    }

    /// nil: no address could be reached, or the login was refused; the proxy's own connections have
    /// the words for it.
    private func ask(
        _ upstream: Upstream, _ addresses: [SocketAddress], _ credential: Credential
    ) -> ClusterShape? {
        // The data plane says what is wrong with the way there.
        let login = UpstreamLogin(
            upstream: upstream.settings, credential: credential, timeout: upstream.loginTimeout,
            cancellation: cancellation)
        do throws(ConnectionFailure) {
            let answered = try login.attempt(at: addresses)
            guard answered.isAccepted else { return nil }
            return ClusterShape(hello: answered.hello) { command, argument in
                do throws(ConnectionFailure) {
                    return try answered.connection.ask(
                        command, argument, until: login.deadline(upstream.loginTimeout))
                } catch {
                    return .error(error.reason)
                }
            }
        } catch {
            logger.debug(
                "could not ask whether it is a cluster: \(error)",
                metadata: ["upstream": "\(upstream.settings.name)"])
            return nil
        }
    }
}
