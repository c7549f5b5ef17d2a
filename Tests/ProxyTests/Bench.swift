// A router on the bench: a test says byte by byte what arrives and looks at what comes out.
//
//     bench.send("…", from: client)         ──►  router  ──►  bench.handedOver(connection)
//     bench.received(by: client)            ◄──  router  ◄──  bench.reply("…", on: connection)
//
// Connections come up and log in by themselves unless the test wants to do that; nothing else
// happens that the test did not ask for. Invariants are checked after every call.

import Identity
import Proxy
import Testing

final class Bench {
    let router: Router
    /// Connections with an attempt under way or up, in the order of the attempts.
    private(set) var connections: [UpstreamRef] = []
    /// All attempts there have been.
    private(set) var attempts = 0
    private(set) var closed: [SessionRef] = []
    private(set) var reasons: [UInt64: CloseReason] = [:]
    private(set) var events: [Event] = []
    private(set) var refreshes: [UserIndex] = []
    private(set) var ended: [UpstreamRef] = []
    private(set) var logins: [LoginAttempt] = []
    private(set) var forgotten: [SessionRef] = []
    private var sent: [SessionRef: [UInt8]] = [:]
    /// How many bytes the sockets of clients take; nil for all.
    var room: [SessionRef: Int] = [:]
    let comesUp: Bool
    private let userCount: Int
    var seconds = 1.0

    /// What the simulated server answers to HELLO.
    static let helloReply = "*4\r\n$5\r\nproto\r\n:2\r\n$2\r\nid\r\n:77\r\n"
    static let secret = "PROXYPASS"

    /// - Parameters:
    ///   - comesUp: connections are up and logged in at once, shared and own alike.
    ///   - password: nil for a credential that is not there.
    init(
        limits: Limits = Limits(),
        isDedicated: Bool = false,
        comesUp: Bool = true,
        password: String? = Bench.secret,
        routes: [Route]? = nil
    ) {
        self.comesUp = comesUp
        userCount = routes?.count ?? 1
        router = Router(
            limits: limits,
            routes: routes ?? [Route(user: UserIndex(0), isDedicated: isDedicated)],
            userCount: userCount,
            clientName: "",
            seed: 1
        )
        // What the memory held before is not the router's doing.
        router.requestBuffer.initializeMemory(as: UInt8.self, repeating: 0)
        router.advance(to: Instant(nanoseconds: 1_000_000_000))
        if let password { publish(password) }
    }

    // MARK: Time and credentials

    func advance(_ duration: Double) {
        seconds += duration
        router.advance(to: Instant(nanoseconds: UInt64(seconds * 1e9)))
        router.tick()
        act()
    }

    func publish(_ password: String, kind: Credential.Kind = .password) {
        for user in 0..<userCount {
            router.publish(
                CredentialSnapshot(
                    version: 1,
                    credential: Credential(
                        userName: "app", secret: Secret(password.utf8), kind: kind),
                    failure: nil
                ),
                for: UserIndex(user)
            )
        }
        act()
    }

    // MARK: The performer

    func act() {
        router.checkInvariants()
        while let action = router.nextAction() {
            switch action {
            case .connect(let upstream):
                attempts += 1
                #expect(!connections.contains(upstream), "it is on its way already")
                connections.append(upstream)
            case .disconnect(let upstream): connections.removeAll { $0 == upstream }
            case .finishSending(let upstream): ended.append(upstream)
            case .closeSession(let session): closed.append(session)
            case .setSessionReading, .setUpstreamReading: break
            case .refreshCredential(let user): refreshes.append(user)
            case .verifyLogin(_, let attempt): logins.append(attempt)
            case .forgetLogin(let session): forgotten.append(session)
            case .report(let event):
                events.append(event)
                if case .sessionClosed(let id, let reason) = event { reasons[id] = reason }
            }
        }
        if comesUp {
            for upstream in connections where upstream.pointee.state == .connecting {
                bringUp(upstream, version: Int(upstream.pointee.protocolVersion))
            }
        }
    }

    /// Connects and logs in.
    func bringUp(_ upstream: UpstreamRef, version: Int = 2) {
        router.didConnect(upstream)
        _ = router.outgoing(of: upstream)
        router.didHandOver(upstream)
        let hello =
            version == 2 ? Self.helloReply : "%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:78\r\n"
        reply(hello + (upstream.pointee.database == 0 ? "" : "+OK\r\n"), on: upstream)
    }

    // MARK: Clients

    func client(mayLogIn: Bool = false) -> SessionRef {
        let session = router.openSession(route: 0, mayLogIn: mayLogIn)
        act()
        return session
    }

    /// One that has to log in before it is served.
    func stranger() -> SessionRef {
        let session = router.openSessionAwaitingLogin()
        act()
        return session
    }

    func judge(_ attempt: LoginAttempt, _ verdict: LoginVerdict) {
        router.didVerifyLogin(attempt: attempt.id, verdict: verdict)
        act()
    }

    func send(_ text: String, from session: SessionRef) {
        send(Array(text.utf8), from: session)
    }

    /// Delivers bytes in as many reads as the receive buffer makes necessary, as long as the
    /// router wants them.
    func send(_ bytes: [UInt8], from session: SessionRef) {
        var rest = bytes[...]
        while !rest.isEmpty && session.pointee.wantsInput {
            let buffer = router.receiveBuffer(for: session)
            let part = rest.prefix(buffer.count)
            buffer.copyBytes(from: part)
            rest = rest.dropFirst(part.count)
            router.didReceive(part.count, from: session)
            act()
        }
        #expect(rest.isEmpty, "the router does not read on")
    }

    func end(_ session: SessionRef) {
        router.didReceiveEnd(from: session)
        act()
    }

    /// All that was sent to a client since the last time it was asked for.
    func received(by session: SessionRef) -> String {
        flush()
        defer { sent[session] = nil }
        return String(decoding: sent[session] ?? [], as: UTF8.self)
    }

    /// One attempt to send for each session with output.
    func flush() {
        while let session = router.nextDirtySession() { flush(session) }
    }

    func flush(_ session: SessionRef) {
        let output = router.output(of: session)
        guard !output.isEmpty else { return }
        let count = min(output.count, room[session] ?? .max)
        if let left = room[session] { room[session] = left - count }
        sent[session, default: []] += output[..<count]
        router.didSend(count, to: session)
        act()
    }

    func isClosed(_ session: SessionRef) -> Bool { closed.contains(session) }

    func reason(_ session: SessionRef) -> CloseReason? { reasons[session.pointee.id] }

    // MARK: Connections

    var shared: UpstreamRef { router.shared[0] }

    /// What waits to be handed over, which it is thereby.
    func handedOver(_ upstream: UpstreamRef) -> String {
        let text = String(decoding: router.outgoing(of: upstream), as: UTF8.self)
        router.didHandOver(upstream)
        act()
        return text
    }

    func reply(_ text: String, on upstream: UpstreamRef) {
        reply(Array(text.utf8), on: upstream)
    }

    func reply(_ bytes: [UInt8], on upstream: UpstreamRef) {
        var rest = bytes[...]
        while !rest.isEmpty && upstream.pointee.wantsReplies {
            let part = rest.prefix(router.replyBuffer.count)
            router.replyBuffer.copyBytes(from: part)
            rest = rest.dropFirst(part.count)
            router.didReceive(part.count, from: upstream)
            flush()
            act()
        }
    }

    /// The connection is no longer there.
    func forget(_ upstream: UpstreamRef) {
        connections.removeAll { $0 == upstream }
    }

    func lose(_ upstream: UpstreamRef) {
        forget(upstream)
        router.didLose(upstream, reason: "reset by the test")
        act()
    }
}

/// A multibulk request.
func request(_ arguments: String...) -> String { request(arguments) }

/// A multibulk request.
func request(_ arguments: [String]) -> String {
    arguments.reduce("*\(arguments.count)\r\n") { $0 + "$\($1.utf8.count)\r\n\($1)\r\n" }
}

/// A bulk string.
func bulk(_ text: String) -> String { "$\(text.utf8.count)\r\n\(text)\r\n" }
