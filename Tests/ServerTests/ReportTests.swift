import Glibc
import Identity
import Logging
import Proxy
import Server
import Testing
import Transport

private let quiet = Logger(label: "test") { _ in SwiftLogNoOpLogHandler() }

/// A server whose one upstream refuses connections.
private func start(threads: Int = 2) throws(ServerError) -> Server {
    let configuration = ServerConfiguration(
        targets: [target("nowhere", host: "127.0.0.1", port: 1)],
        users: [UpstreamUser(name: "app", userName: "app", source: "a test", target: 0)],
        listeners: [
            Listener(
                endpoint: .tcp(host: "127.0.0.1", port: 0), options: ListenOptions(),
                rules: [IdentityRule()], isDedicated: false)
        ],
        threads: threads,
        limits: Limits(),
        maximumSessions: 10
    )
    let credential = Credential(
        userName: "app", secret: Secret("pw".utf8), usableUntil: 1_000_000_000)
    return try Server(
        configuration,
        credentials: [CredentialSnapshot(version: 7, credential: credential, failure: nil)],
        logger: quiet,
        readPassword: { _ in .failure(UnreadablePassword(reason: "a test")) },
        refresh: { _ in }
    )
}

/// A client that has been answered once, so that it is known to have been taken in.
private func connect(to server: Server) throws -> Int32 {
    let address = try #require(server.addresses[0].first)
    guard case .inProgress(let client) = Socket.connect(to: address) else {
        Issue.record("cannot connect to \(address)")
        return -1
    }
    poll(client, POLLOUT)
    let request = "RESET\r\n"
    #expect(send(client, request, request.utf8.count, 0) == request.utf8.count)
    poll(client, POLLIN)
    var answer = [UInt8](repeating: 0, count: 64)
    #expect(recv(client, &answer, answer.count, 0) == 8)
    return client
}

private func poll(_ descriptor: Int32, _ events: Int32) {
    var entry = pollfd(fd: descriptor, events: Int16(events), revents: 0)
    #expect(Glibc.poll(&entry, 1, 10_000) > 0)
}

@Suite(.serialized) struct `A server's report` {
    private let patience = Duration.seconds(10)

    @Test func `has an answer of each worker`() throws {
        let server = try start(threads: 3)
        defer { server.stop() }
        let report = server.report(patience: patience)
        #expect(report.workers.map(\.worker) == [0, 1, 2])
        #expect(report.late.isEmpty)
        #expect(report.addresses.count == 1 && report.addresses[0] == server.addresses[0])
    }

    @Test func `counts sessions, commands and bytes, and lists as many clients as wanted`() throws {
        let server = try start(threads: 1)
        defer { server.stop() }
        let clients = [try connect(to: server), try connect(to: server)]
        var worker = try #require(server.report(sessionLimit: 1, patience: patience).workers.first)
        #expect(worker.sessions.count == 1)
        #expect(worker.sessions[0].received == 7 && worker.sessions[0].sent == 8)
        #expect(worker.sessions[0].status.route == 0)
        let tally = worker.tally.byRoute[0]
        #expect(tally.opened == 2 && tally.open == 2)
        #expect(tally.commands == 2 && tally.received == 14 && tally.sent == 16)
        for client in clients { Socket.close(client) }
        while server.sessionCount > 0 { usleep(1_000) }
        worker = try #require(server.report(patience: patience).workers.first)
        #expect(worker.tally.byRoute[0].open == 0)
        #expect(worker.tally.byRoute[0].commands == 2, "they were counted once")
        #expect(worker.tally.byRoute[0].received == 14)
        #expect(worker.tally.byRoute[0].closed[Int(CloseReason.clientClosed.rawValue)] == 2)
    }

    @Test func `says of credentials how old and how good they are, and nothing more`() throws {
        let server = try start()
        defer { server.stop() }
        server.publish(
            CredentialSnapshot(version: 8, credential: nil, failure: "no such file"),
            for: UserIndex(0))
        let report = server.report(patience: patience)
        #expect(report.credentials.count == 1)
        #expect(report.credentials[0].version == 8)
        #expect(report.credentials[0].failure == "no such file")
        #expect(report.credentials[0].fetchedAt != nil)
    }

    @Test func `tells how logins failed`() throws {
        let server = try start(threads: 1)
        defer { server.stop() }
        var user: UserTally?
        // The first attempt is made without a client.
        repeat {
            user = server.report(patience: patience).workers.first?.tally.byUser[0]
        } while user?.outcome == nil
        #expect(user?.outcome == .failed(.unreachable))
        #expect(user?.loginFailures[LoginFailure.unreachable.index] == 1)
        #expect(user?.failure?.contains("127.0.0.1:1") == true)
    }

    @Test func `comes at once when the server has ended, with what was said last`() throws {
        let server = try start(threads: 2)
        let earlier = server.report(patience: patience)
        server.stop()
        let report = server.report(patience: .seconds(600))
        #expect(report.late.isEmpty)
        #expect(zip(report.workers, earlier.workers).allSatisfy { $0.takenAt >= $1.takenAt })
        #expect(report.workers.count == 2)
    }
}

@Suite struct `What a server says to a login` {
    @Test(arguments: [
        ("WRONGPASS invalid username-password pair", LoginFailure.wrongPassword),
        ("NOPERM this user has no permissions", .notPermitted),
        ("ERR max number of clients reached", .tooManyClients),
        ("LOADING Redis is loading the dataset in memory", .notNow),
        ("ERR unknown command 'HELLO'", .unknownCommand),
        ("something new", .other),
    ])
    func `is one of few kinds`(reply: String, kind: LoginFailure) {
        #expect(LoginFailure(reply: reply) == kind)
    }
}
