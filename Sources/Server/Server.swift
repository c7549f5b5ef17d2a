// The data plane as a whole: listeners, one acceptor thread, worker threads.
//
//     init ──► running ── drain() ──► draining: sessions end as they are owed nothing
//                 └───────────────────────┴── stop() ──► ended

import Glibc
package import Identity
package import Logging
import Proxy
import Synchronization
package import Transport

/// Why the data plane could not start.
package enum ServerError: Error, CustomStringConvertible {
    case listen(ListenError)
    case system(SystemError, doing: String)

    package var description: String {
        switch self {
        case .listen(let error): error.description
        case .system(let error, let doing): "\(doing): \(error)"
        }
    }
}

/// A running data plane. Usable from any thread.
package final class Server: Sendable {
    /// Descriptors kept for connections to servers, the log, clients that are being sent away, and
    /// what else the process opens.
    package static let reservedDescriptors = 64

    /// What each listener is bound to, in the configuration's order.
    package let addresses: [[SocketAddress]]
    let workers: [WorkerHandle]
    private let acceptor = Mailbox<AcceptorMessage>()
    private let threads: Mutex<[Thread]>
    private let resolver: Resolver
    /// What is in use, and changes with `follow`.
    private struct Current {
        var configuration: ServerConfiguration
        /// Those that listen, with the number of their listener.
        var sockets: [(ListeningSocket, listener: Int)]
        var counts: SessionCounts
        /// nil: no rule has had a login.
        var verifier: LoginVerifier?
        var maximumSessions: Int
        /// By listener.
        var addresses: [[SocketAddress]]
    }
    private let current: Mutex<Current>
    private let archive: ReportArchive
    /// By user.
    private let credentials: Mutex<[CredentialReport]>
    private let isDraining = Atomic(false)
    private let logger: Logger
    private let readPassword: PasswordReader
    private let inherited: InheritedSockets?

    /// Binds all listeners, then starts the threads.
    ///
    /// - Parameters:
    ///   - credentials: the first snapshot of each user; later ones come through `publish`.
    ///   - readPassword: for rules with a `password_file`.
    ///   - refresh: asks for a user's credential to be fetched again and published; called on
    ///     worker threads, must not block.
    ///   - metCluster: told as whom each connection to a server of a cluster has logged in; called on
    ///     worker threads, must not block.
    ///   - inherited: sockets that are bound already, for listeners to take; also later ones.
    ///   - isPaused: clients are left in the kernel's queue until `open`.
    /// - Throws: `ServerError`; nothing is left behind then.
    package init(
        _ configuration: ServerConfiguration,
        credentials: [CredentialSnapshot],
        logger: Logger,
        readPassword: @escaping PasswordReader,
        refresh: @escaping @Sendable (UserIndex) -> Void,
        metCluster: @escaping @Sendable (UserIndex) -> Void = { _ in },
        inheriting inherited: InheritedSockets? = nil,
        isPaused: Bool = false
    ) throws(ServerError) {
        let bound = try Self.bind(
            configuration.listeners.indices, of: configuration, inheriting: inherited)
        let sockets = bound.flatMap(\.sockets)
        addresses = bound.map(\.addresses)
        let verifier: LoginVerifier?
        do throws(SystemError) {
            // The acceptor makes its own on its thread; whether it can is better known now.
            _ = try Identification(configuration.listeners)
            verifier = try Self.verifier(for: configuration, readPassword, logger)
        } catch {
            for (socket, _) in sockets { socket.close() }
            throw .system(error, doing: "cannot identify clients")
        }
        self.logger = logger
        self.readPassword = readPassword
        self.inherited = inherited
        let counts = SessionCounts(configuration)
        let maximumSessions = Self.maximumSessions(configuration)
        current = Mutex(
            Current(
                configuration: configuration, sockets: sockets, counts: counts,
                verifier: verifier, maximumSessions: maximumSessions, addresses: addresses))
        archive = ReportArchive(workers: configuration.threads)
        self.credentials = Mutex(
            credentials.map { CredentialReport($0, after: nil, at: monotonicNanoseconds()) })
        resolver = Resolver()
        workers = (0..<configuration.threads).map { _ in WorkerHandle() }
        for (index, snapshot) in credentials.enumerated() {
            for worker in workers {
                worker.mailbox.post(.credential(UserIndex(index), snapshot))
            }
        }
        var started: [Thread] = []
        do throws(SystemError) {
            for (index, handle) in workers.enumerated() {
                var logger = logger
                if configuration.threads > 1 { logger[metadataKey: "worker"] = "\(index)" }
                started.append(
                    try Self.startWorker(
                        index, configuration, handle, resolver, verifier, counts, logger, refresh,
                        metCluster)
                )
            }
            started.append(
                try Self.startAcceptor(
                    sockets,
                    acceptor,
                    workers,
                    maximumSessions,
                    configuration,
                    counts,
                    isPaused,
                    logger
                )
            )
        } catch {
            for handle in workers { handle.mailbox.post(.stop) }
            for thread in started { thread.join() }
            verifier?.stop()
            for (socket, _) in sockets { socket.close() }
            throw .system(error, doing: "cannot start the data plane")
        }
        threads = Mutex(started)
    }

    private typealias Bound = (
        sockets: [(ListeningSocket, listener: Int)], addresses: [SocketAddress]
    )

    /// Binds these listeners, or none of them.
    private static func bind(
        _ indices: some Sequence<Int>, of configuration: ServerConfiguration,
        inheriting inherited: InheritedSockets?
    ) throws(ServerError) -> [Bound] {
        var all: [Bound] = []
        for index in indices {
            let listener = configuration.listeners[index]
            do throws(ListenError) {
                let bound = try ListeningSocket.bind(
                    to: listener.endpoint, options: listener.options, inheriting: inherited)
                all.append((bound.map { ($0, index) }, bound.map(\.address)))
            } catch {
                for (socket, _) in all.flatMap(\.sockets) { socket.close() }
                throw .listen(error)
            }
        }
        return all
    }

    /// nil: no rule has a login.
    private static func verifier(
        for configuration: ServerConfiguration, _ readPassword: @escaping PasswordReader,
        _ logger: Logger
    ) throws(SystemError) -> LoginVerifier? {
        guard configuration.routes.contains(where: { $0.rule.login != nil }) else { return nil }
        return try LoginVerifier(
            routes: configuration.routes, readPassword: readPassword, logger: logger)
    }

    /// What the configuration allows, and what the descriptors suffice for.
    private static func maximumSessions(_ configuration: ServerConfiguration) -> Int {
        let descriptors = ProcessLimits.raiseDescriptorLimit()
        let perSession = configuration.listeners.contains { $0.isDedicated } ? 2 : 1
        let own =
            perSession == 2 ? 0 : min(configuration.limits.maximumPinned, descriptors / 4)
        let enough = max(1, (descriptors - reservedDescriptors - own) / perSession)
        return min(configuration.maximumSessions, enough)
    }

    private static func startWorker(
        _ index: Int,
        _ configuration: ServerConfiguration,
        _ handle: WorkerHandle,
        _ resolver: Resolver,
        _ verifier: LoginVerifier?,
        _ counts: SessionCounts,
        _ logger: Logger,
        _ refresh: @escaping @Sendable (UserIndex) -> Void,
        _ metCluster: @escaping @Sendable (UserIndex) -> Void
    ) throws(SystemError) -> Thread {
        try Thread.start(name: "worker \(index)") {
            do throws(SystemError) {
                let worker = try Worker(
                    number: index,
                    configuration: configuration,
                    handle: handle,
                    resolver: resolver,
                    verifier: verifier,
                    counts: counts,
                    logger: logger,
                    seed: UInt64.random(in: .min ... .max),
                    refresh: refresh,
                    metCluster: metCluster
                )
                worker.run()
            } catch {
                logger.critical("worker \(index) cannot start: \(error)")
                exit(71)
            }
        }
    }

    private static func startAcceptor(
        _ sockets: [(ListeningSocket, listener: Int)],
        _ mailbox: Mailbox<AcceptorMessage>,
        _ workers: [WorkerHandle],
        _ maximumSessions: Int,
        _ configuration: ServerConfiguration,
        _ counts: SessionCounts,
        _ isPaused: Bool,
        _ logger: Logger
    ) throws(SystemError) -> Thread {
        try Thread.start(name: "acceptor") {
            do throws(SystemError) {
                let acceptor = try Acceptor(
                    sockets: sockets,
                    mailbox: mailbox,
                    workers: workers,
                    maximumSessions: maximumSessions,
                    configuration: configuration,
                    identification: Identification(configuration.listeners),
                    counts: counts,
                    isPaused: isPaused,
                    logger: logger
                )
                acceptor.run()
            } catch {
                logger.critical("the acceptor cannot start: \(error)")
                exit(71)
            }
        }
    }

    /// Hands a credential to every worker.
    package func publish(_ snapshot: CredentialSnapshot, for user: UserIndex) {
        credentials.withLock { reports in
            while reports.count <= user.rawValue { reports.append(CredentialReport()) }
            reports[user.rawValue] = CredentialReport(
                snapshot, after: reports[user.rawValue], at: monotonicNanoseconds())
        }
        for worker in workers { worker.mailbox.post(.credential(user, snapshot)) }
    }

    /// Clients that are connected.
    package var sessionCount: Int {
        workers.reduce(0) { $0 + $1.sessions.load(ordering: .relaxed) }
    }

    /// The one in use.
    var configuration: ServerConfiguration { current.withLock { $0.configuration } }

    /// Clients that no identity rule let in, since the start.
    package var refusedCount: Int { current.withLock { $0.counts.refused.count } }

    /// Asks each worker what it does, and waits for the answers. Not from a thread of the server's.
    ///
    /// - Parameters:
    ///   - sessionLimit: of how many clients each worker says what they do; 0: of none.
    ///   - patience: how long a worker may take. The last answer of one that takes longer is used.
    package func report(
        sessionLimit: Int = 0, patience: Duration = .milliseconds(500)
    ) -> ServerReport {
        let takenAt = monotonicNanoseconds()
        let question = ReportQuestion(sessionLimit: sessionLimit, archive: archive)
        let outcome = ask(question, WorkerMessage.report, patience)
        // Behind the answers, so that every number in them has its place in it.
        let current = current.withLock { $0 }
        var credentials = credentials.withLock { $0 }
        while credentials.count < current.configuration.users.count {
            credentials.append(CredentialReport())
        }
        return ServerReport(
            takenAt: takenAt,
            configuration: current.configuration,
            addresses: current.addresses,
            workers: outcome.answers.enumerated().compactMap { $1 ?? archive.last(of: $0) },
            late: outcome.late,
            credentials: credentials,
            refused: current.counts.refusedClients,
            isDraining: isDraining.load(ordering: .relaxed),
            limits: current.configuration.limits,
            maximumSessions: current.maximumSessions
        )
    }

    // MARK: Another configuration

    /// Does everything about another configuration that can fail: binds the listeners that are new,
    /// and finds out whether clients can be identified. Changes nothing yet.
    ///
    /// Asks the resolver where an endpoint has a name, and blocks meanwhile. Not from two threads
    /// at once.
    package func prepare(_ next: ServerConfiguration) throws(ServerError) -> Succession {
        let old = current.withLock { $0 }
        let (configuration, users) = old.configuration.succeeded(by: next)
        var opening: [Int] = []
        var closed: [Endpoint] = []
        for (index, listener) in configuration.listeners.enumerated() {
            let wasOpen =
                index < old.configuration.listeners.count
                && old.configuration.isOpen(listener: index)
            switch (wasOpen, configuration.isOpen(listener: index)) {
            case (false, true): opening.append(index)
            case (true, false): closed.append(listener.endpoint)
            case (true, true), (false, false): break
            }
        }
        let bound = try Self.bind(opening, of: configuration, inheriting: inherited)
        let sockets = bound.flatMap(\.sockets)
        do throws(SystemError) {
            let identification = try Identification(configuration.listeners)
            var verifier = old.verifier
            if verifier == nil {
                verifier = try Self.verifier(for: configuration, readPassword, logger)
            }
            return Succession(
                configuration: configuration,
                users: users,
                openedListeners: opening,
                opened: zip(opening, bound).map { index, bound in
                    (configuration.listeners[index].endpoint, bound.addresses)
                },
                closed: closed,
                sockets: sockets,
                identification: identification,
                counts: SessionCounts(configuration, following: old.counts),
                verifier: verifier,
                maximumSessions: Self.maximumSessions(configuration)
            )
        } catch {
            for (socket, _) in sockets { socket.close() }
            throw .system(error, doing: "cannot identify clients")
        }
    }

    /// Goes over to what was prepared. Sessions that may no longer be what they are are ended, all
    /// others go on. Credentials of users that are new are published afterwards.
    ///
    /// Returns when the listeners that are gone are closed, so that what comes next can bind their
    /// addresses again; not later than in five seconds.
    package func follow(_ succession: Succession) {
        let (before, staying) = current.withLock { current in
            let before = current.configuration.listeners
            current.configuration = succession.configuration
            current.sockets.removeAll { !succession.configuration.isOpen(listener: $0.listener) }
            defer { current.sockets += succession.sockets }
            current.counts = succession.counts
            current.verifier = succession.verifier
            current.maximumSessions = succession.maximumSessions
            for index in succession.configuration.listeners.indices {
                if index >= current.addresses.count { current.addresses.append([]) }
                let opened = succession.openedListeners.firstIndex(of: index)
                if let opened {
                    current.addresses[index] = succession.opened[opened].addresses
                } else if !succession.configuration.isOpen(listener: index) {
                    current.addresses[index] = []
                }
            }
            return (before, current.sockets)
        }
        for (socket, number) in staying {
            let listener = succession.configuration.listeners[number]
            if before[number].options != listener.options { setRights(of: socket, listener) }
        }
        succession.counts.apply(succession.configuration)
        succession.verifier?.follow(succession.configuration.routes)
        guard acceptor.post(.follow(succession)) else { return }
        let deadline = monotonicNanoseconds() + 5_000_000_000
        while !succession.isInForce.isSet && monotonicNanoseconds() < deadline { usleep(1_000) }
    }

    /// Lets go of what was prepared and is not wanted.
    package func abandon(_ succession: Succession) {
        for (socket, _) in succession.sockets { socket.close() }
        let isOurs = current.withLock { $0.verifier === succession.verifier }
        if !isOurs { succession.verifier?.stop() }
    }

    /// As the settings say, of a Unix socket that was there before.
    private func setRights(of socket: ListeningSocket, _ listener: Listener) {
        do throws(ListenError) {
            try socket.change(listener.options)
        } catch {
            logger.warning(
                "a socket's file could not be given the mode, owner and group of the settings",
                metadata: ["listener": "\(listener.endpoint)", "reason": "\(error.reason)"])
        }
    }

    // MARK: Another process

    /// Leaves clients in the kernel's queue until `open`.
    package func pause() { acceptor.post(.pause) }

    /// Accepts, after `pause` or an init that was told to wait. Sockets that were inherited get the
    /// rights that the settings say.
    package func open() {
        let (sockets, listeners) = current.withLock { ($0.sockets, $0.configuration.listeners) }
        for (socket, listener) in sockets where inherited != nil {
            setRights(of: socket, listeners[listener])
        }
        acceptor.post(.open)
    }

    /// The sockets that clients come in through, which another process may accept from as well from
    /// now on: the files of Unix sockets stay when this one ends.
    package func share() -> [ListeningSocket] {
        let sockets = current.withLock { $0.sockets.map(\.0) }
        for socket in sockets { socket.share(true) }
        return sockets
    }

    /// They are this process's alone again.
    package func unshare() {
        for (socket, _) in current.withLock({ $0.sockets }) { socket.share(false) }
    }

    /// Stops accepting; the sessions go on.
    package func retire() { acceptor.post(.stop) }

    /// Asks all loops whether they turn.
    package func feelPulse() -> Pulse {
        let pulse = Pulse(of: workers.count + 1)
        for worker in workers where !worker.mailbox.post(.pulse(pulse)) { pulse.answer() }
        if !acceptor.post(.pulse(pulse)) { pulse.answer() }
        return pulse
    }

    // MARK: The end

    /// Stops accepting and lets the sessions finish what is owed to them; returns at once.
    package func drain() {
        isDraining.store(true, ordering: .relaxed)
        acceptor.post(.stop)
        for worker in workers { worker.mailbox.post(.drain) }
    }

    /// Ends the sessions that are left and all threads, and waits for them. Once, and not from a
    /// thread of the server's.
    ///
    /// - Returns: how many sessions were left.
    @discardableResult
    package func stop() -> Int {
        acceptor.post(.stop)
        let rest = sessionCount
        for worker in workers { worker.mailbox.post(.stop) }
        let threads = threads.withLock { threads in
            defer { threads = [] }
            return threads
        }
        for thread in threads { thread.join() }
        current.withLock { $0.verifier }?.stop()
        resolver.close()
        return rest
    }
}
