// Requests that are too long to share a connection.

import Proxy
import Testing

@Suite("Requests that stream through a connection of their own")
struct StreamedRequestTests {
    private func bench(limit: Int = 100) -> Bench {
        var limits = Limits()
        limits.sharedRequest = limit
        return Bench(limits: limits)
    }

    @Test("A big value goes through an own connection before it has all come")
    func bigValueStreams() throws {
        let bench = bench()
        let client = bench.client()
        bench.send(
            "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$500\r\n" + String(repeating: "x", count: 300),
            from: client)
        let own = try #require(bench.connections.last)
        #expect(own != bench.shared)
        #expect(bench.handedOver(own).hasSuffix("xxx"))
        bench.send(String(repeating: "y", count: 200) + "\r\n", from: client)
        #expect(bench.handedOver(own) == String(repeating: "y", count: 200) + "\r\n")
        bench.reply("+OK\r\n", on: own)
        #expect(bench.received(by: client) == "+OK\r\n")
    }

    @Test("A header that is cut in the middle of a streamed request waits for its rest")
    func cutHeader() throws {
        let big = String(repeating: "x", count: 200)
        let whole = request("MSET", "a", big, "b", big)
        // Cut between any two bytes, headers included.
        for cut in 1..<whole.utf8.count - 1 {
            let bench = bench()
            let client = bench.client()
            bench.send(String(whole.prefix(cut)), from: client)
            bench.send(String(whole.dropFirst(cut)), from: client)
            let own = try #require(bench.connections.last)
            #expect(bench.handedOver(own) == whole)
            bench.reply("+OK\r\n", on: own)
            #expect(bench.received(by: client) == "+OK\r\n")
        }
    }

    @Test("A request that announces many arguments is not passed on before its name is known")
    func nameBeforeAnything() throws {
        let bench = bench()
        let client = bench.client()
        bench.send(request("SELECT", "1"), from: client)
        let own = try #require(bench.connections.last)
        #expect(bench.handedOver(own) == request("SELECT", "1"))
        bench.reply("+OK\r\n", on: own)
        bench.send("*20000\r\n$4\r\nAU", from: client)
        bench.send("TH\r\n$6\r\nSECRET\r\n", from: client)
        #expect(bench.handedOver(own) == "")
        #expect(
            bench.received(by: client)
                == "+OK\r\n-ERR Protocol error: AUTH or HELLO is too long\r\n"
        )
        #expect(bench.isClosed(client))
    }

    @Test(
        "A long command that ties itself to its connection streams through the one it has",
        arguments: ["WATCH", "BLPOP", "EXEC", "SUBSCRIBE", "CLIENT", "XREAD"]
    )
    func longTyingCommand(name: String) throws {
        let bench = bench()
        let client = bench.client()
        bench.send(request("SELECT", "1"), from: client)
        let own = try #require(bench.connections.last)
        #expect(bench.handedOver(own) == request("SELECT", "1"))
        bench.reply("+OK\r\n", on: own)
        let whole = request(name, String(repeating: "k", count: 200), "x")
        bench.send(String(whole.dropLast(20)), from: client)
        bench.send(String(whole.suffix(20)), from: client)
        #expect(bench.handedOver(own) == whole)
        #expect(bench.connections.count == 1)
        #expect(bench.router.pinnedCount == 1)
        bench.reply("+OK\r\n", on: own)
        #expect(bench.received(by: client) == "+OK\r\n+OK\r\n")
    }

    @Test("A client that ends in the middle of a streamed request gets what it is owed")
    func endMidRequest() throws {
        let bench = bench()
        let client = bench.client()
        bench.send(request("READONLY"), from: client)
        bench.send("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$500\r\nxxx", from: client)
        bench.end(client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        #expect(!bench.isClosed(client))
        bench.reply("+OK\r\n", on: own)
        #expect(bench.received(by: client) == "+OK\r\n")
        #expect(bench.reason(client) == .clientClosed)
        #expect(bench.router.pinnedCount == 0)
    }

    @Test("A request that only announces its size costs no connection")
    func announcement() {
        let bench = bench()
        for _ in 0..<200 {
            bench.send("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$64000000\r\n", from: bench.client())
        }
        #expect(bench.connections.isEmpty)
        #expect(bench.router.pinnedCount == 0)
    }

    @Test("An upload that brings nothing more makes room for those who wait, and only then")
    func stalledUpload() throws {
        var limits = Limits()
        limits.sharedRequest = 100
        limits.maximumPinned = 2
        let bench = Bench(limits: limits)
        let start = "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$500\r\n" + String(repeating: "x", count: 200)
        let (stalled, slow) = (bench.client(), bench.client())
        bench.send(start, from: stalled)
        bench.send(start, from: slow)
        #expect(bench.router.pinnedCount == 2)
        bench.advance(10)
        bench.send("x", from: slow)
        #expect(!bench.isClosed(stalled), "nobody waits")
        let other = bench.client()
        bench.send(request("WATCH", "a"), from: other)
        bench.advance(0.1)
        #expect(bench.reason(stalled) == .stalledUpload)
        #expect(!bench.isClosed(slow))
        let own = try #require(bench.connections.last)
        #expect(bench.handedOver(own) == request("WATCH", "a"))
    }

    @Test("An upload that the server does not take is not its client's fault")
    func uploadWaitsForServer() {
        var limits = Limits()
        limits.sharedRequest = 100
        limits.uploadBuffer = 150
        limits.maximumPinned = 1
        let bench = Bench(limits: limits)
        let (upload, other) = (bench.client(), bench.client())
        bench.send(
            "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$500\r\n" + String(repeating: "x", count: 200),
            from: upload
        )
        bench.send(request("WATCH", "a"), from: other)
        bench.advance(2)
        #expect(!bench.isClosed(upload))
    }

    @Test("A streamed request that waits too long is taken back to its last byte")
    func waitEnds() throws {
        var limits = Limits()
        limits.sharedRequest = 100
        let bench = Bench(limits: limits, comesUp: false)
        let client = bench.client()
        let whole = request("SET", "k", String(repeating: "x", count: 500))
        bench.send(String(whole.prefix(300)), from: client)
        bench.advance(1)
        bench.send(String(whole.dropFirst(300)) + request("GET", "k"), from: client)
        bench.advance(4.1)
        let own = try #require(bench.connections.last)
        bench.bringUp(own)
        #expect(bench.handedOver(own) == request("GET", "k"))
        #expect(bench.received(by: client).hasPrefix("-ERR redis-auth-proxy: "))
    }
}
