// Where a process gets its listening sockets from, before it binds any.
//
//     the service manager passed some ──────────────────────────► those, and no hand-over
//     handover_socket ──► a process is there ──► users can log in ──► its sockets
//                    └──► nobody there ─────────────────────────► none
//
// What goes wrong ends this process and leaves the other one as it is.

import AWS
import Configuration
import Glibc
import Logging
import Server
import Transport

/// What a process starts with.
struct Inheritance {
    /// For the listeners; nil: they bind their own.
    var sockets: InheritedSockets?
    /// The process whose sockets these are, which accepts until it is told that this one is ready.
    var taker: HandoverTaker?
    /// Where the next process asks.
    var handoverSocket: ListeningSocket?

    /// - Throws: `InheritanceError`, `HandoverError` or `ListenError`.
    init(
        _ settings: Settings, manager: ServiceManager, credentials: LiveCredentials, logger: Logger
    ) throws {
        sockets = try manager.takeSockets()
        guard let path = settings.handoverSocket else { return }
        guard sockets == nil else {
            logger.notice("handover_socket is not used: the service manager passes the sockets")
            return
        }
        let endpoint = Endpoint.unix(path: path)
        guard HandoverTaker.isOffered(at: path) else {
            handoverSocket = try ListeningSocket.bind(to: endpoint).first
            return
        }
        logger.info("another process runs: taking over from it")
        let problems = LoginCheck(settings: settings, credentials: credentials).problems()
        guard problems.isEmpty else {
            for problem in problems { logger.error("\(problem)") }
            throw HandoverError(
                "not taking over, the running process goes on: \(problems.count) of the users cannot"
                    + " log in")
        }
        let taker = try HandoverTaker(path: path) {
            SignalWatcher.isPending(SIGTERM) || SignalWatcher.isPending(SIGINT)
        }
        self.taker = taker
        sockets = taker.sockets
        handoverSocket = try taker.own ?? ListeningSocket.bind(to: endpoint).first
    }

    /// Makes the sockets this process's own, once everything that can fail is done.
    ///
    /// - Throws: `InheritanceError` if the manager passed what no listener wants; `HandoverError` if
    ///   the other process does not let go.
    func settle(with server: Server, logger: Logger) throws {
        let rest = sockets?.untaken ?? []
        guard let taker else {
            guard rest.isEmpty else {
                let listeners = server.addresses.joined().map(\.description)
                throw InheritanceError(
                    "the service manager passed sockets for which there is no listener:"
                        + " \(rest.joined(separator: ", ")); listeners:"
                        + " \(listeners.joined(separator: ", "))")
            }
            return
        }
        try taker.finish()
        handoverSocket?.share(false)
        server.unshare()
        taker.sockets.closeRest()
        for address in rest { logger.info("no longer listening on \(address)") }
        logger.info("took over", metadata: ["pid": "\(taker.processID)"])
    }
}
