// The words of a hand-over; what two processes make of them is in Tests/Integration/test_restart.py.

import Glibc
import Identity
import Logging
import Server
import Testing
import Transport

@Suite struct `A message of the hand-over` {
    private static let file = SocketFile(path: "/run/my app/s.sock", device: 2_049, inode: 77)
    static let messages: [(HandoverMessage, String)] = [
        (.hello(version: 1, processID: 10), "redis-auth-proxy handover 1 pid 10"),
        (.refused("it took too long"), "refused it took too long"),
        (.socket(nil), "socket"),
        (.socket(file), "socket 2049 77 /run/my app/s.sock"),
        (.handover(file), "handover 2049 77 /run/my app/s.sock"),
        (.end, "end"), (.ready, "ready"), (.yours, "yours"), (.mine, "mine"),
    ]

    @Test(arguments: messages)
    func `is a line, and back`(message: HandoverMessage, line: String) {
        #expect(message.line == line)
        #expect(HandoverMessage(line) == message)
    }

    @Test(arguments: [
        "", " ", "READY", "ready now", "socket 1", "socket 1 2", "socket 1 2 ", "socket a 2 /s",
        "socket -1 2 /s", "handover", "redis-auth-proxy", "redis-auth-proxy handover x pid 1",
        "redis-auth-proxy handover 1", "redis-auth-proxy takeover 1 pid 1", "refuse", "endx",
        "socket 99999999999999999999 1 /s",
    ])
    func `that makes no sense is none`(line: String) {
        #expect(HandoverMessage(line) == nil)
    }

    @Test func `of another version can be read`() {
        #expect(
            HandoverMessage("redis-auth-proxy handover 7 pid 3")
                == .hello(version: 7, processID: 3))
    }
}

@Suite(.serialized) struct `A hand-over socket` {
    @Test func `at which nobody listens offers nothing`() throws {
        let path = "/tmp/handover-tests-\(getpid()).sock"
        #expect(!HandoverTaker.isOffered(at: path))
        let socket = try #require(try ListeningSocket.bind(to: .unix(path: path)).first)
        #expect(HandoverTaker.isOffered(at: path))
        socket.share(true)
        socket.close()
        #expect(access(path, F_OK) == 0)
        #expect(!HandoverTaker.isOffered(at: path), "its maker is gone")
        unlink(path)
        #expect(throws: HandoverError.self) { try HandoverTaker(path: path) }
    }
}

@Suite(.serialized) struct `The pulse of a server` {
    private func start(_ path: String) throws -> Server {
        let target = UpstreamTarget(
            name: "nowhere", host: "127.0.0.1", port: 1, serverName: "", tls: nil,
            connectTimeout: .seconds(1),
            keepAlive: KeepAlive(idleSeconds: 1, intervalSeconds: 1, probes: 1),
            userTimeout: .zero, reconnectMinimum: .seconds(1), reconnectMaximum: .seconds(1))
        let listener = Listener(
            endpoint: .unix(path: path), options: ListenOptions(), rules: [IdentityRule()],
            isDedicated: false)
        return try Server(
            ServerConfiguration(
                targets: [target],
                users: [UpstreamUser(name: "app", userName: "app", source: "a test", target: 0)],
                listeners: [listener], threads: 3, limits: .init(), maximumSessions: 10),
            credentials: [CredentialSnapshot(version: 1, credential: nil, failure: "a test")],
            logger: Logger(label: "test") { _ in SwiftLogNoOpLogHandler() },
            readPassword: { _ in .failure(UnreadablePassword(reason: "a test")) },
            refresh: { _ in })
    }

    private func isComplete(_ pulse: Pulse) -> Bool {
        let deadline = monotonicNanoseconds() + 10_000_000_000
        while !pulse.isComplete && monotonicNanoseconds() < deadline { usleep(1_000) }
        return pulse.isComplete
    }

    @Test func `is complete when every loop has answered, and where none is left`() throws {
        let path = "/tmp/pulse-tests-\(getpid()).sock"
        let server = try start(path)
        #expect(isComplete(server.feelPulse()))
        server.retire()
        #expect(isComplete(server.feelPulse()), "the acceptor has ended")
        server.drain()
        #expect(isComplete(server.feelPulse()))
        server.stop()
        #expect(server.feelPulse().isComplete)
    }

    @Test func `a server that shares its sockets leaves their files`() throws {
        let path = "/tmp/share-tests-\(getpid()).sock"
        for isShared in [true, false] {
            let server = try start(path)
            #expect(server.share().map(\.file?.path) == [path])
            if !isShared { server.unshare() }
            server.stop()
            #expect((access(path, F_OK) == 0) == isShared)
        }
    }
}
