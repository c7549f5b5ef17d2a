import Glibc
import Identity
import Logging
import Proxy
import Server
import Testing
import Transport

private let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// A server that serves nobody: its one upstream refuses connections.
private func configuration(_ endpoints: [Endpoint]) -> ServerConfiguration {
    ServerConfiguration(
        targets: [target("nowhere", host: "127.0.0.1", port: 1)],
        users: [UpstreamUser(name: "app", userName: "app", source: "a test", target: 0)],
        listeners: endpoints.map {
            Listener(
                endpoint: $0,
                options: ListenOptions(),
                rules: [IdentityRule()],
                isDedicated: false
            )
        },
        threads: 2,
        limits: Limits(),
        maximumSessions: 10
    )
}

private func start(_ endpoints: [Endpoint]) throws(ServerError) -> Server {
    let credential = Credential(userName: "app", secret: Secret("pw".utf8))
    return try Server(
        configuration(endpoints),
        credentials: [CredentialSnapshot(version: 1, credential: credential, failure: nil)],
        logger: quiet,
        readPassword: { _ in .failure(UnreadablePassword(reason: "a test")) },
        refresh: { _ in }
    )
}

@Suite(.serialized) struct `A server` {
    @Test func `binds what it is told, and drains at once when nobody is there`() throws {
        let server = try start([.tcp(host: "127.0.0.1", port: 0)])
        #expect(server.addresses.count == 1)
        #expect(try #require(server.addresses[0].first?.port) != 0)
        server.drain()
        #expect(server.stop() == 0)
    }

    @Test func `that cannot bind one listener leaves none behind`() throws {
        let first = try start([.tcp(host: "127.0.0.1", port: 0)])
        defer { first.stop() }
        let taken = try #require(first.addresses[0].first?.port)
        let path = "/tmp/server-tests-\(getpid()).sock"
        #expect(throws: ServerError.self) {
            try start([.unix(path: path), .tcp(host: "127.0.0.1", port: taken)])
        }
        #expect(access(path, F_OK) != 0, "\(path) is still there")
    }

    @Test func `closes a client that owes nothing when it drains`() throws {
        let server = try start([.tcp(host: "127.0.0.1", port: 0)])
        let address = try #require(server.addresses[0].first)
        guard case .inProgress(let client) = Socket.connect(to: address) else {
            Issue.record("cannot connect to \(address)")
            return
        }
        defer { Socket.close(client) }
        // The answer to QUIT shows that the client was taken in.
        #expect(poll(client, POLLOUT) > 0)
        let request = "RESET\r\n"
        #expect(send(client, request, request.utf8.count, 0) == request.utf8.count)
        #expect(poll(client, POLLIN) > 0)
        var answer = [UInt8](repeating: 0, count: 64)
        #expect(recv(client, &answer, answer.count, 0) == 8)
        #expect(server.sessionCount == 1)
        server.drain()
        #expect(poll(client, POLLIN) > 0)
        #expect(recv(client, &answer, answer.count, 0) == 0)
        server.stop()
    }

    /// Waits until the descriptor is ready, at most ten seconds.
    private func poll(_ descriptor: Int32, _ events: Int32) -> Int32 {
        var entry = pollfd(fd: descriptor, events: Int16(events), revents: 0)
        return Glibc.poll(&entry, 1, 10_000)
    }
}
