// Errors that say that the server is not the one that is wanted.

import Identity
import Proxy
import Testing

@Suite("Failover")
struct FailoverTests {
    private let set = request("SET", "a", "b")
    private let readOnly = "-READONLY You can't write against a read only replica.\r\n"

    private func hello(_ role: String) -> String {
        "*6\r\n$5\r\nproto\r\n:2\r\n$2\r\nid\r\n:77\r\n$4\r\nrole\r\n" + bulk(role)
    }

    private func logIn(_ bench: Bench, _ upstream: UpstreamRef, _ role: String) {
        bench.router.didConnect(upstream)
        _ = bench.handedOver(upstream)
        bench.reply(hello(role), on: upstream)
    }

    private func failovers(_ bench: Bench) -> Int {
        bench.events.count { if case .failover = $0 { true } else { false } }
    }

    /// A client with a command under way on a connection to a server of this role.
    private func bench(_ role: String) throws -> (Bench, SessionRef, UpstreamRef) {
        let bench = Bench(comesUp: false)
        let client = bench.client()
        bench.send(set, from: client)
        let shared = try #require(bench.connections.last)
        logIn(bench, shared, role)
        #expect(bench.handedOver(shared) == set)
        return (bench, client, shared)
    }

    @Test(
        "An error about the server reaches its client, and the next command goes elsewhere",
        arguments: [
            "-READONLY You can't write against a read only replica.",
            "-LOADING Redis is loading the dataset in memory",
            "-MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
            "-UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
        ]
    )
    func reconnects(error: String) throws {
        let (bench, client, shared) = try bench("master")
        bench.reply(error + "\r\n", on: shared)
        #expect(bench.received(by: client) == error + "\r\n")
        #expect(!bench.connections.contains(shared))
        #expect(failovers(bench) == 1)
        bench.send(set, from: client)
        let next = try #require(bench.connections.last)
        logIn(bench, next, "master")
        #expect(bench.handedOver(next) == set)
        bench.reply("+OK\r\n", on: next)
        #expect(bench.received(by: client) == "+OK\r\n")
    }

    @Test(
        "Other errors are about the command",
        arguments: [
            "-ERR READONLY", "-UNBLOCKED client unblocked via CLIENT UNBLOCK", "-READONLYX no no",
            "-WRONGTYPE Operation against a key holding the wrong kind of value", "-L", "-",
        ]
    )
    func otherErrors(error: String) throws {
        let (bench, client, shared) = try bench("master")
        bench.reply(error + "\r\n", on: shared)
        #expect(bench.received(by: client) == error + "\r\n")
        #expect(bench.connections.contains(shared))
        #expect(failovers(bench) == 0)
    }

    @Test("A value that reads like the error is none")
    func value() throws {
        let (bench, client, shared) = try bench("master")
        bench.reply(bulk(readOnly), on: shared)
        #expect(bench.received(by: client) == bulk(readOnly))
        #expect(bench.connections.contains(shared))
    }

    @Test("Who reads from a replica on purpose is told so, and stays")
    func replica() throws {
        let (bench, client, shared) = try bench("replica")
        bench.reply(readOnly, on: shared)
        #expect(bench.received(by: client) == readOnly)
        #expect(bench.connections.contains(shared))
        #expect(failovers(bench) == 0)
    }

    @Test("While the name leads to the old server it is tried again, with growing pauses")
    func rate() throws {
        let (bench, client, first) = try bench("master")
        bench.reply(readOnly, on: first)
        var attempts: [Double] = []
        for _ in 0..<1_000 {
            let before = bench.attempts
            bench.send(set, from: client)
            let next = try #require(bench.connections.last)
            if next.pointee.state == .connecting { logIn(bench, next, "replica") }
            #expect(bench.handedOver(next) == set)
            bench.reply(readOnly, on: next)
            if bench.attempts > before { attempts.append(bench.seconds) }
            bench.advance(0.01)
        }
        // 50 ms, doubled up to 2 s, each up to half shorter: in ten seconds no more than these.
        #expect((8...17).contains(attempts.count), "\(attempts)")
        let received = bench.received(by: client)
        #expect(received == String(repeating: readOnly, count: 1_001))
    }

    @Test("Who is owed replies gets them from the old connection, in order")
    func owed() throws {
        let (bench, first, shared) = try bench("master")
        let second = bench.client()
        bench.send(request("GET", "a") + request("GET", "b"), from: second)
        _ = bench.handedOver(shared)
        bench.reply(readOnly + bulk("a"), on: shared)
        #expect(bench.connections.contains(shared))
        bench.send(set, from: first)
        let next = try #require(bench.connections.last)
        #expect(next != shared)
        logIn(bench, next, "master")
        #expect(bench.handedOver(next) == set)
        bench.reply(bulk("b"), on: shared)
        #expect(bench.received(by: second) == bulk("a") + bulk("b"))
        #expect(!bench.connections.contains(shared))
        #expect(!bench.isClosed(second))
    }

    @Test("One of a session's own is given up when the session is done with it")
    func own() throws {
        let bench = Bench(comesUp: false)
        let client = bench.client()
        bench.send(request("WATCH", "k"), from: client)
        let own = try #require(bench.connections.last)
        logIn(bench, own, "master")
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n", on: own)
        bench.send(set, from: client)
        _ = bench.handedOver(own)
        bench.reply(readOnly, on: own)
        #expect(bench.connections.contains(own), "the watch is there")
        bench.send(request("UNWATCH"), from: client)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n", on: own)
        #expect(!bench.connections.contains(own))
        #expect(bench.received(by: client) == "+OK\r\n" + readOnly + "+OK\r\n")
    }
}
