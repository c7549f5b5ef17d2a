// Which commands get a connection of their own, and what such a connection is like.

import Proxy
import Testing

@Suite("Own connections")
struct LaneTests {
    @Test(
        "A command that ties itself to its connection gets its own",
        arguments: [
            "MULTI", "EXEC", "DISCARD", "WATCH k", "UNWATCH", "SELECT 1", "BLPOP k 0",
            "BZMPOP 0 1 k MIN", "XREAD STREAMS BLOCK 0", "XREAD BLOCK 0 STREAMS k $",
            "XREADGROUP GROUP g c BLOCK 5 STREAMS k >",
            "WAIT 1 0", "SUBSCRIBE c", "UNSUBSCRIBE", "PSUBSCRIBE c", "MONITOR", "CLIENT ID",
            "CLIENT REPLY OFF", "READONLY", "ASKING", "SCRIPT KILL", "FUNCTION KILL",
            "SCRIPT DEBUG YES", "SHUTDOWN", "FAILOVER", "DEBUG SLEEP 0",
            "PSYNC ? -1",
        ]
    )
    func tied(line: String) throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(line + "\r\n", from: client)
        let own = try #require(bench.connections.last)
        #expect(own != bench.shared)
        #expect(bench.router.pinnedCount == 1)
        #expect(bench.handedOver(own).hasPrefix("*"))
    }

    @Test(
        "A plain command shares a connection",
        arguments: [
            "GET a", "NOSUCHCOMMAND", "XREAD COUNT 2 STREAMS k 0",
            "SCRIPT LOAD x", "FUNCTION LIST", "SCRIPT", "PUBLISH a b", "EVAL x 0", "PING",
        ]
    )
    func plain(line: String) {
        let bench = Bench()
        let client = bench.client()
        bench.send(line + "\r\n", from: client)
        #expect(bench.connections == [bench.shared])
        #expect(bench.router.pinnedCount == 0)
    }

    @Test("A move to an own connection waits for the replies that are owed")
    func moveWaits() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("SET", "a", "1") + request("WAIT", "1", "0"), from: client)
        #expect(bench.connections == [bench.shared])
        #expect(bench.handedOver(bench.shared) == request("SET", "a", "1"))
        bench.reply("+OK\r\n", on: bench.shared)
        let own = try #require(bench.connections.last)
        #expect(own != bench.shared)
        #expect(bench.handedOver(own) == request("WAIT", "1", "0"))
    }

    @Test("In dedicated mode every client has its own connection from its first command on")
    func dedicated() throws {
        let bench = Bench(isDedicated: true)
        let (first, second) = (bench.client(), bench.client())
        #expect(bench.connections.isEmpty)
        bench.send(request("GET", "a"), from: first)
        bench.send(request("GET", "b"), from: second)
        #expect(bench.connections.count == 2)
        #expect(bench.handedOver(bench.connections[0]) == request("GET", "a"))
        #expect(bench.handedOver(bench.connections[1]) == request("GET", "b"))
    }

    @Test("Beyond the most own connections a command waits for one, and then takes it")
    func mostPinned() throws {
        var limits = Limits()
        limits.maximumPinned = 1
        let bench = Bench(limits: limits)
        let (first, second) = (bench.client(), bench.client())
        bench.send(request("SELECT", "1"), from: first)
        bench.send(request("SELECT", "2"), from: second)
        #expect(bench.connections.count == 1)
        bench.router.didLose(first)
        bench.act()
        let own = try #require(bench.connections.last)
        #expect(bench.handedOver(own) == request("SELECT", "2"))
    }

    @Test("A free own connection goes to the first that can use it")
    func freeForWhoCanRun() throws {
        var limits = Limits()
        limits.maximumPinned = 1
        limits.replyBuffer = 1_000
        let bench = Bench(limits: limits)
        let (holder, full, other) = (bench.client(), bench.client(), bench.client())
        bench.send(request("WATCH", "a"), from: holder)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n", on: own)
        // Waits for an own connection, and then for its client to read.
        bench.room[full] = 0
        bench.send(request("GET", "a") + request("WATCH", "b"), from: full)
        let shared = bench.shared
        _ = bench.handedOver(shared)
        bench.reply(bulk(String(repeating: "x", count: 2_000)), on: shared)
        bench.send(request("WATCH", "c"), from: other)
        bench.send(request("UNWATCH"), from: holder)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n", on: own)
        #expect(bench.handedOver(own) == request("WATCH", "c"))
        // And when that one is done, it is the other's turn, which reads by now.
        bench.room[full] = nil
        bench.flush(full)
        bench.send(request("UNWATCH"), from: other)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n+OK\r\n", on: own)
        #expect(bench.handedOver(own) == request("WATCH", "b"))
    }

    @Test("Who gives an own connection back gets the next one after those who wait")
    func turns() throws {
        var limits = Limits()
        limits.maximumPinned = 1
        let bench = Bench(limits: limits)
        let (first, second) = (bench.client(), bench.client())
        // What AUTH waits for is also when the connection is given back.
        bench.send(
            request("WATCH", "a") + request("UNWATCH") + request("AUTH", "default", "x")
                + request("WATCH", "b"),
            from: first
        )
        bench.send(request("WATCH", "c"), from: second)
        let own = try #require(bench.connections.last)
        #expect(bench.handedOver(own) == request("WATCH", "a") + request("UNWATCH"))
        bench.reply("+OK\r\n+OK\r\n", on: own)
        #expect(bench.handedOver(own) == request("WATCH", "c"))
        #expect(bench.received(by: first) == "+OK\r\n+OK\r\n+OK\r\n")
    }

    @Test("A command that waits too long for an own connection gets an error and the end")
    func pinWaitEnds() {
        var limits = Limits()
        limits.maximumPinned = 1
        let bench = Bench(limits: limits)
        let (first, second) = (bench.client(), bench.client())
        bench.send(request("SELECT", "1"), from: first)
        bench.send(request("SELECT", "2") + request("SET", "a", "b"), from: second)
        bench.advance(4.9)
        #expect(!bench.isClosed(second))
        bench.advance(0.2)
        #expect(
            bench.received(by: second)
                == "-ERR redis-auth-proxy: this command needs a connection of its own and none is "
                + "free, it was not run\r\n"
        )
        #expect(bench.reason(second) == .errorInPlaceOfState)
    }

    @Test("A relay passes on everything as it comes, however many frames a command brings")
    func relay() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("MONITOR"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        for part in ["*3\r\n$9\r\nsub", "scribe\r\n$1\r\na\r\n:1\r\n*3", "\r\n", "…"] {
            bench.reply(part, on: own)
            #expect(bench.received(by: client) == part)
        }
    }

    /// The error with which the server answers what it does not know, `word` in it.
    private func unknown(_ word: some StringProtocol) -> String {
        "-ERR unknown command '\(word)', with args beginning with: \r\n"
    }

    /// The word that the proxy drew at random, out of the last request, or the last but one.
    private func word(_ handedOver: String) throws -> Substring {
        try #require(
            handedOver.split(separator: "\r\n").last { $0.hasPrefix("redis-auth-proxy-") })
    }

    @Test("RESET ends a relay at its place in the stream, wherever the bytes are cut")
    func resetEndsRelay() throws {
        let stream = "*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n$8\r\n-ERR unk\r\n\r\n+RESET\r\n"
        var cut = 0
        while true {
            let bench = Bench()
            let client = bench.client()
            bench.send(
                request("MONITOR") + request("RESET") + request("GET", "k"),
                from: client
            )
            let own = try #require(bench.connections.last)
            let sent = bench.handedOver(own)
            let word = try word(sent)
            #expect(sent == request("MONITOR") + request("RESET") + request(String(word)))
            let bytes = Array((stream + unknown(word)).utf8)
            bench.reply(Array(bytes[..<cut]), on: own)
            bench.reply(Array(bytes[cut...]), on: own)
            #expect(bench.received(by: client) == stream)
            #expect(bench.handedOver(own).hasSuffix("PROXYPASS\r\n"))
            bench.reply(Bench.helloReply, on: own)
            #expect(bench.handedOver(own) == request("GET", "k"))
            bench.reply(bulk("v"), on: own)
            #expect(bench.received(by: client) == bulk("v"))
            #expect(bench.router.pinnedCount == 0)
            cut += 1
            guard cut <= bytes.count else { break }
        }
    }

    @Test("A RESET without an answer ends the relay all the same")
    func silentReset() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("MONITOR"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n", on: own)
        bench.send(request("CLIENT", "REPLY", "SKIP") + request("RESET"), from: client)
        let word = try word(bench.handedOver(own))
        bench.reply("$1\r\nx\r\n" + unknown(word), on: own)
        #expect(bench.received(by: client) == "+OK\r\n$1\r\nx\r\n")
        #expect(bench.handedOver(own).hasSuffix("PROXYPASS\r\n"))
    }

    @Test(
        "A login in a relay is answered at its place, as the server would just then",
        arguments: [
            ("-ERR Protocol version is not an integer or out of range\r\n", "+OK\r\n"),
            (
                "-ERR Can't execute 'hello': only …\r\n",
                String(decoding: ClientError.authWhileSubscribed.reply, as: UTF8.self)
            ),
            ("+QUEUED\r\n", String(decoding: ClientError.loginInTransaction.reply, as: UTF8.self)),
        ]
    )
    func loginInRelay(judgement: String, expected: String) throws {
        let before = "+1700000000.1 [0 lua] \"-ERR unknown\"\r\n"
        let message = "*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$5\r\n-ERR \r\n"
        var cut = 0
        while true {
            let bench = Bench()
            let client = bench.client()
            bench.send(
                request("MONITOR") + request("AUTH", "default", "SECRET") + request("PING"),
                from: client
            )
            let own = try #require(bench.connections.last)
            let sent = bench.handedOver(own)
            let word = String(try word(sent))
            #expect(sent == request("MONITOR") + request(word) + request("HELLO", word))
            let bytes = Array((before + unknown(word) + message + judgement + message).utf8)
            bench.reply(Array(bytes[..<cut]), on: own)
            bench.reply(Array(bytes[cut...]), on: own)
            #expect(bench.received(by: client) == before + message + expected + message)
            #expect(bench.handedOver(own) == request("PING"))
            cut += 1
            guard cut <= bytes.count else { break }
        }
    }

    @Test("A connection lost before RESET was answered ends the session")
    func lostInReset() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("MONITOR") + request("RESET"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n+RESET\r\n-ERR unkn", on: own)
        bench.lose(own)
        #expect(bench.reason(client) == .upstreamLost)
    }

    @Test("Among bytes that nobody counts there is no place for an error of our own")
    func violationInRelay() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("MONITOR"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply("*3\r\n$9\r\nsubsc", on: own)
        bench.send("*1\r\n!3\r\n", from: client)
        #expect(bench.received(by: client) == "*3\r\n$9\r\nsubsc")
        #expect(bench.reason(client) == .violation)
    }

    @Test("QUIT in a relay is the server's to answer")
    func quitInRelay() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("MONITOR") + request("QUIT") + request("GET", "k"), from: client)
        let own = try #require(bench.connections.last)
        #expect(bench.handedOver(own) == request("MONITOR") + request("QUIT"))
        bench.reply("*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n+OK\r\n", on: own)
        #expect(bench.received(by: client).hasSuffix("+OK\r\n"))
        bench.lose(own)
        #expect(bench.reason(client) == .quit)
    }

    @Test("A push on a shared connection is dropped, wherever it stands and is cut")
    func pushOnShared() throws {
        let push = ">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"
        let stream = push + bulk("a") + push + bulk("b") + push
        for cut in 0..<stream.utf8.count {
            let bench = Bench(comesUp: false)
            let client = bench.client()
            bench.send(request("HELLO", "3"), from: client)
            let upstream = try #require(bench.connections.last)
            bench.bringUp(upstream, version: 3)
            _ = bench.received(by: client)
            bench.send(request("GET", "a") + request("GET", "b"), from: client)
            _ = bench.handedOver(upstream)
            let bytes = Array(stream.utf8)
            bench.reply(Array(bytes[..<cut]), on: upstream)
            bench.reply(Array(bytes[cut...]), on: upstream)
            #expect(bench.received(by: client) == bulk("a") + bulk("b"))
            #expect(bench.connections == [upstream])
        }
    }

    @Test("A push on an own connection is its client's, even when nothing is owed")
    func pushOnOwn() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("READONLY"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n>1\r\n+x\r\n", on: own)
        bench.reply(">1\r\n+y\r\n", on: own)
        #expect(bench.received(by: client) == "+OK\r\n>1\r\n+x\r\n>1\r\n+y\r\n")
    }
}
