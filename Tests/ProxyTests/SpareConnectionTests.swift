// Own connections that are given back when nothing ties them to their session any more.

import Proxy
import Testing

@Suite("A connection of a session's own")
struct SpareConnectionTests {
    /// Sends a request on its own and gives it the server's answer.
    private func run(
        _ request: String,
        _ answer: String,
        _ bench: Bench,
        _ client: SessionRef
    ) throws -> UpstreamRef {
        bench.send(request, from: client)
        let upstream = client.pointee.upstream
        let connection = try #require(upstream)
        #expect(bench.handedOver(connection) == request)
        bench.reply(answer, on: connection)
        #expect(bench.received(by: client) == answer)
        return connection
    }

    @Test("is given back after EXEC and serves the next transaction of anybody")
    func transactionGivesBack() throws {
        let bench = Bench()
        let (first, second) = (bench.client(), bench.client())
        let own = try run(request("MULTI"), "+OK\r\n", bench, first)
        #expect(own != bench.shared)
        let queued = try run(request("GET", "k"), "+QUEUED\r\n", bench, first)
        #expect(queued == own)
        #expect(bench.router.pinnedCount == 1)
        let executed = try run(request("EXEC"), "*1\r\n$-1\r\n", bench, first)
        #expect(executed == own)
        #expect(bench.router.pinnedCount == 0)
        let plain = try run(request("GET", "k"), "$-1\r\n", bench, first)
        #expect(plain == bench.shared)
        let watching = try run(request("WATCH", "k"), "+OK\r\n", bench, second)
        #expect(watching == own)
        #expect(bench.attempts == 2)
    }

    @Test(
        "stays with its session as long as an answer left a tie",
        arguments: [
            (["MULTI"], "+OK\r\n"), (["WATCH", "k"], "+OK\r\n"), (["READONLY"], "+OK\r\n"),
            (["CLIENT", "ID"], ":7\r\n"),
        ]
    )
    func tieStays(words: [String], answer: String) throws {
        let bench = Bench()
        let client = bench.client()
        let own = try run(request(words), answer, bench, client)
        #expect(bench.router.pinnedCount == 1)
        let same = try run(request("GET", "k"), "$-1\r\n", bench, client)
        #expect(same == own)
    }

    @Test("stays with its session after an EXEC without MULTI, which leaves the watches")
    func watchStays() throws {
        let bench = Bench()
        let client = bench.client()
        let own = try run(request("WATCH", "k"), "+OK\r\n", bench, client)
        let same = try run(request("EXEC"), "-ERR EXEC without MULTI\r\n", bench, client)
        #expect(same == own)
        #expect(bench.router.pinnedCount == 1)
    }

    @Test(
        "is given back at once when the command that would have tied it is refused",
        arguments: [
            ["MULTI"], ["WATCH", "k"], ["SELECT", "1"], ["CLIENT", "SETNAME", "n"], ["EXEC"],
            ["DISCARD"],
        ]
    )
    func refusalLeavesNoTie(words: [String]) throws {
        let bench = Bench()
        let client = bench.client()
        _ = try run(request(words), "-NOPERM no\r\n", bench, client)
        #expect(bench.router.pinnedCount == 0)
    }

    @Test("stays in a transaction whose EXEC or DISCARD is refused")
    func refusedEndLeavesTransactionOpen() throws {
        let bench = Bench()
        let client = bench.client()
        _ = try run(request("MULTI"), "+OK\r\n", bench, client)
        _ = try run(request("EXEC"), "-NOPERM no\r\n", bench, client)
        _ = try run(request("DISCARD", "x"), "-ERR wrong number\r\n", bench, client)
        #expect(bench.router.pinnedCount == 1)
        _ = try run(request("EXEC"), "-EXECABORT Transaction discarded\r\n", bench, client)
        #expect(bench.router.pinnedCount == 0)
    }

    @Test("is given back after a transaction that was aborted, wherever EXEC's error is cut")
    func abortGivesBack() throws {
        let error = "-EXECABORT Transaction discarded because of previous errors.\r\n"
        for cut in 1..<error.utf8.count {
            let bench = Bench()
            let client = bench.client()
            let own = try run(request("MULTI"), "+OK\r\n", bench, client)
            bench.send(request("EXEC"), from: client)
            _ = bench.handedOver(own)
            bench.reply(String(error.prefix(cut)), on: own)
            bench.reply(String(error.dropFirst(cut)), on: own)
            #expect(bench.received(by: client) == error)
            #expect(bench.router.pinnedCount == 0, "cut at \(cut)")
        }
    }

    @Test("that was told of its client's end is never given back")
    func halfClosedIsNotSpare() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("BLPOP", "k", "0"), from: client)
        let upstream = client.pointee.upstream
        let own = try #require(upstream)
        _ = bench.handedOver(own)
        bench.end(client)
        #expect(bench.handedOver(own) == "")
        #expect(bench.ended == [own])
        // The element came before the server saw the end.
        bench.reply("*2\r\n$1\r\nk\r\n$1\r\nv\r\n", on: own)
        #expect(bench.router.spare.allSatisfy { $0.isEmpty })
    }

    @Test("comes new for WAIT, which counts the writes of the connection that asks")
    func waitIsFresh() throws {
        let bench = Bench()
        let client = bench.client()
        let used = try run(request("BLPOP", "k", "1"), "*-1\r\n", bench, client)
        let fresh = try run(request("WAIT", "0", "1"), ":0\r\n", bench, client)
        #expect(fresh != used)
    }

    @Test("that nobody needs for a while is closed, down to a few")
    func surplusIsTrimmed() throws {
        var limits = Limits()
        limits.spareConnections = 1
        let bench = Bench(limits: limits)
        let clients = (0..<3).map { _ in bench.client() }
        for client in clients { _ = try run(request("MULTI"), "+OK\r\n", bench, client) }
        for client in clients { _ = try run(request("DISCARD"), "+OK\r\n", bench, client) }
        bench.router.trim()
        bench.act()
        #expect(bench.router.spare[0].count == 3)
        bench.router.trim()
        bench.act()
        #expect(bench.router.spare[0].count == 1)
    }

    @Test("that is lost while nobody's is forgotten")
    func lostSpareIsForgotten() throws {
        let bench = Bench()
        let client = bench.client()
        let own = try run(request("BLPOP", "k", "1"), "*-1\r\n", bench, client)
        bench.router.didLose(own, reason: "closed")
        bench.act()
        #expect(bench.router.spare.allSatisfy { $0.isEmpty })
        #expect(!bench.isClosed(client))
    }
}
