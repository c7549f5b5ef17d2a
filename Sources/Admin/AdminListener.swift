// Where operators and their programs look: HTTP, GET only, nothing that changes anything.
//
//     GET /             a page that shows what follows, live
//     GET /status.json  the same for programs
//     GET /metrics      for Prometheus
//     GET /startup      each user has logged in once      ┐
//     GET /ready        clients would be served           ├ 200, or 503 with the reasons
//     GET /live         the workers' loops answer         ┘
//
// A web page that somebody looks at on this machine can have its browser ask a loopback address, by a
// name whose address it changes (DNS rebinding). What tells such a question is the Host header, so it
// has to be one that nobody else can make point here.
//
// HTTP is FlyingFox's, which has no limit to a request's head nor to its connections: whoever can
// connect here could fill memory with them. So listen on loopback or on a Unix socket.

import FlyingFox
import FlyingSocks
import Foundation
package import Logging
import Synchronization
package import Transport

/// It cannot listen.
package struct AdminFailure: Error, CustomStringConvertible {
    package let description: String
}

/// See the head of this file. Usable from any thread.
package final class AdminListener: Sendable {
    /// Pause before it listens again where that has failed.
    private static let pause = Duration.seconds(1)
    /// The same while a process that has handed over may not have let go of the address yet.
    private static let shortPause = Duration.milliseconds(20)

    private let endpoint: Endpoint
    private let handler: AdminHandler
    private let logger: Logger
    private let task = Mutex<Task<Void, Never>?>(nil)
    /// A Unix socket's, which another process that listens there in its place may have replaced.
    private let file = Mutex<SocketFile?>(nil)

    /// - Parameter endpoint: where it will listen, as the configuration says; a Unix socket gets the
    ///   mode 0600.
    package init(_ endpoint: Endpoint, observer: Observer, logger: Logger) {
        self.endpoint = endpoint
        handler = AdminHandler(observer: observer, endpoint: endpoint)
        self.logger = logger
    }

    /// Listens, and answers from now on. Blocks until it listens. Once.
    ///
    /// - Parameter patience: how long the address may be another's still.
    /// - Returns: where, with the port that was given when 0 was asked.
    package func start(within patience: Duration = .zero) throws(AdminFailure) -> Endpoint {
        let began = Began()
        let deadline = ContinuousClock.now + patience
        task.withLock { $0 = Task { await serve(began, deadline) } }
        switch began.wait() {
        case .success(let endpoint): return endpoint
        case .failure(let failure): throw failure
        }
    }

    /// Listens no more; connections that are open end.
    package func stop() {
        let task = task.withLock { task in
            defer { task = nil }
            return task
        }
        guard let task else { return }
        // Before it listens no more: from then on somebody else may have the path.
        if let file = file.withLock({ $0 }), file.isThere { unlink(file.path) }
        task.cancel()
    }

    private func serve(_ began: Began, _ deadline: ContinuousClock.Instant) async {
        while !Task.isCancelled {
            do {
                try await listen(began)
            } catch {
                if !began.isOver && ContinuousClock.now < deadline {
                    try? await Task.sleep(for: Self.shortPause)
                    continue
                }
                guard began.isOver else {
                    let reason = (error as? ListenError)?.description
                    began.end(
                        .failure(
                            AdminFailure(
                                description: reason ?? "cannot listen on \(endpoint): \(error)")))
                    return
                }
                guard !Task.isCancelled else { return }
                logger.error(
                    "the admin listener ended and is opened again: \(error)",
                    metadata: ["address": "\(endpoint)"])
                try? await Task.sleep(for: Self.pause)
            }
        }
    }

    /// Listens until it is cancelled, or cannot any more.
    private func listen(_ began: Began) async throws {
        // Says in our words what is in the way, and takes away what an earlier process left.
        for socket in try ListeningSocket.bind(to: endpoint) { socket.close() }
        let server = HTTPServer(
            config: HTTPServer.Configuration(address: try address(), logger: .disabled),
            handler: handler)
        try await withThrowingTaskGroup(of: Void.self) { group in
            // A Unix socket's file gets its mode when it is bound: 0600 from its first moment.
            let earlier = umask(0o177)
            group.addTask { try await server.run() }
            do {
                defer { umask(earlier) }
                try await server.waitUntilListening()
            }
            if case .unix(let path) = endpoint {
                file.withLock { $0 = SocketFile(at: path) }
            }
            began.end(.success(place(await server.listeningAddress)))
            defer { group.cancelAll() }
            try await group.next()
        }
    }

    private func address() throws -> any FlyingSocks.SocketAddress {
        switch endpoint {
        case .unix(let path): return sockaddr_un.unix(path: path)
        case .tcp(let host, let port) where host.contains(":"):
            return try sockaddr_in6.inet6(ip6: host, port: port)
        case .tcp(let host, let port): return try sockaddr_in.inet(ip4: host, port: port)
        }
    }

    private func place(_ address: FlyingSocks.Socket.Address?) -> Endpoint {
        switch (endpoint, address) {
        case (.tcp(let host, _), .ip4(_, let port)), (.tcp(let host, _), .ip6(_, let port)):
            .tcp(host: host, port: port)
        default: endpoint
        }
    }
}

/// How an attempt to listen began, for one thread that waits for that.
private final class Began: Sendable {
    private let outcome = Mutex<Result<Endpoint, AdminFailure>?>(nil)
    private let semaphore = DispatchSemaphore(value: 0)

    var isOver: Bool { outcome.withLock { $0 != nil } }

    /// Only the first call counts.
    func end(_ result: Result<Endpoint, AdminFailure>) {
        let isFirst = outcome.withLock { outcome in
            guard outcome == nil else { return false }
            outcome = result
            return true
        }
        if isFirst { semaphore.signal() }
    }

    func wait() -> Result<Endpoint, AdminFailure> {
        semaphore.wait()
        return outcome.withLock { $0 } ?? .failure(AdminFailure(description: "it did not begin"))
    }
}
