// Windows, slow readers, half-closed clients, and the drain.

import Proxy
import Testing

@Suite("Flow control and ends")
struct FlowTests {
    @Test("Requests in flight are bounded, and each waits for its turn")
    func window() {
        var limits = Limits()
        limits.initialWindow = 2
        let bench = Bench(limits: limits)
        let client = bench.client()
        let get = request("GET", "a")
        bench.send(String(repeating: get, count: 20), from: client)
        #expect(bench.handedOver(bench.shared) == get + get)
        bench.reply(String(repeating: bulk("x"), count: 2), on: bench.shared)
        var replies = 2
        while true {
            let burst = bench.handedOver(bench.shared).utf8.count / get.utf8.count
            guard burst > 0 else { break }
            replies += burst
            bench.reply(String(repeating: bulk("x"), count: burst), on: bench.shared)
        }
        #expect(replies == 20)
    }

    @Test("The window grows to thousands while replies are small")
    func windowOpens() {
        let bench = Bench()
        let client = bench.client()
        let get = request("GET", "a")
        var sent = 0
        for round in 0..<12 {
            let count = 64 << round
            bench.push(String(repeating: get, count: min(count, 4_000)), from: client)
            let burst = bench.handedOver(bench.shared).utf8.count / get.utf8.count
            sent = max(sent, burst)
            bench.reply(String(repeating: "+OK\r\n", count: burst), on: bench.shared)
        }
        #expect(sent > 1_000)
    }

    @Test("The window closes when replies are big")
    func windowCloses() {
        let bench = Bench()
        let client = bench.client()
        let get = request("GET", "a")
        for _ in 0..<3 {
            bench.push(String(repeating: get, count: 64), from: client)
            let burst = bench.handedOver(bench.shared).utf8.count / get.utf8.count
            let reply = bulk(String(repeating: "x", count: 60_000))
            for _ in 0..<burst { bench.reply(reply, on: bench.shared) }
            _ = bench.received(by: client)
        }
        bench.push(String(repeating: get, count: 64), from: client)
        let burst = bench.handedOver(bench.shared).utf8.count / get.utf8.count
        #expect(burst <= 18)
    }

    @Test("A client that does not read what it was sent is not read either")
    func slowReader() {
        var limits = Limits()
        limits.replyBuffer = 1_000
        let bench = Bench(limits: limits)
        let client = bench.client()
        bench.room[client] = 0
        bench.send(request("GET", "a"), from: client)
        _ = bench.handedOver(bench.shared)
        bench.reply(bulk(String(repeating: "x", count: 2_000)), on: bench.shared)
        let blocked = client.pointee.wantsInput
        #expect(!blocked)
        let isRead = bench.shared.pointee.wantsReplies
        #expect(isRead, "a reply that has all come is no reason to stop reading")
        bench.room[client] = 1_600
        bench.flush(client)
        let open = client.pointee.wantsInput
        #expect(open)
    }

    @Test("A big reply that its client leaves unread stops its connection, and nobody else")
    func bigUnreadReply() throws {
        var limits = Limits()
        limits.replyBuffer = 1_000
        limits.bigReply = 1_000
        let bench = Bench(limits: limits)
        let (slow, other) = (bench.client(), bench.client())
        let shared = bench.shared
        bench.room[slow] = 0
        bench.send(request("GET", "a"), from: slow)
        bench.send(request("GET", "b"), from: other)
        _ = bench.handedOver(shared)
        bench.reply("$100000\r\n" + String(repeating: "x", count: 2_000), on: shared)
        let isRead = shared.pointee.wantsReplies
        #expect(!isRead)
        let newcomer = bench.client()
        bench.send(request("GET", "c"), from: newcomer)
        #expect(bench.shared != shared)
        #expect(bench.handedOver(bench.shared) == request("GET", "c"))
        bench.reply(bulk("c"), on: bench.shared)
        #expect(bench.received(by: newcomer) == bulk("c"))
        // The client reads on: the connection is read on, and ends when it owes nothing.
        bench.room[slow] = nil
        bench.flush(slow)
        let isReadAgain = shared.pointee.wantsReplies
        #expect(isReadAgain)
        bench.reply(String(repeating: "x", count: 98_000) + "\r\n" + bulk("b"), on: shared)
        #expect(bench.received(by: slow).utf8.count == 100_011)
        #expect(bench.received(by: other) == bulk("b"))
        #expect(!bench.connections.contains(shared))
        bench.router.reap()
        #expect(bench.router.allocatedUpstreams == 2)
    }

    @Test("A client that leaves a big reply unread while others wait is closed in the end")
    func slowReaderEnds() {
        var limits = Limits()
        limits.replyBuffer = 1_000
        limits.bigReply = 1_000
        let bench = Bench(limits: limits)
        let (slow, other) = (bench.client(), bench.client())
        let shared = bench.shared
        bench.room[slow] = 0
        bench.send(request("GET", "a"), from: slow)
        bench.send(request("GET", "b"), from: other)
        _ = bench.handedOver(shared)
        bench.reply("$100000\r\n" + String(repeating: "x", count: 2_000), on: shared)
        bench.advance(4.9)
        #expect(!bench.isClosed(slow))
        bench.advance(0.2)
        #expect(bench.reason(slow) == .slowReader)
        bench.reply(String(repeating: "x", count: 98_000) + "\r\n" + bulk("b"), on: shared)
        #expect(bench.received(by: other) == bulk("b"))
    }

    @Test("A client that takes a byte now and then is as slow as one that takes none")
    func creepingReaderEnds() {
        var limits = Limits()
        limits.replyBuffer = 1_000
        limits.bigReply = 1_000
        let bench = Bench(limits: limits)
        let (slow, other) = (bench.client(), bench.client())
        let shared = bench.shared
        bench.room[slow] = 0
        bench.send(request("GET", "a"), from: slow)
        bench.send(request("GET", "b"), from: other)
        _ = bench.handedOver(shared)
        bench.reply("$100000\r\n" + String(repeating: "x", count: 2_000), on: shared)
        for _ in 0..<49 {
            bench.advance(0.1)
            bench.room[slow] = 1
            bench.flush(slow)
        }
        #expect(!bench.isClosed(slow))
        bench.advance(0.2)
        #expect(bench.reason(slow) == .slowReader)
    }

    @Test("A client that takes a quarter of what may wait gets the whole time again")
    func slowReaderGoesOn() {
        var limits = Limits()
        limits.replyBuffer = 1_000
        limits.bigReply = 1_000
        let bench = Bench(limits: limits)
        let (slow, other) = (bench.client(), bench.client())
        let shared = bench.shared
        bench.room[slow] = 0
        bench.send(request("GET", "a"), from: slow)
        bench.send(request("GET", "b"), from: other)
        _ = bench.handedOver(shared)
        bench.reply("$100000\r\n" + String(repeating: "x", count: 2_000), on: shared)
        bench.advance(4)
        bench.room[slow] = 250
        bench.flush(slow)
        bench.advance(4)
        #expect(!bench.isClosed(slow))
        bench.advance(1.1)
        #expect(bench.reason(slow) == .slowReader)
    }

    @Test("A client that has ended still gets all that it is owed")
    func halfClose() {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("GET", "a") + request("GET", "b"), from: client)
        bench.end(client)
        _ = bench.handedOver(bench.shared)
        bench.reply(bulk("a"), on: bench.shared)
        #expect(!bench.isClosed(client))
        bench.reply(bulk("b"), on: bench.shared)
        #expect(bench.received(by: client) == bulk("a") + bulk("b"))
        #expect(bench.reason(client) == .clientClosed)
    }

    @Test("A client that has ended gets what its socket does not take at once")
    func halfCloseSlow() {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("GET", "a"), from: client)
        bench.end(client)
        _ = bench.handedOver(bench.shared)
        bench.room[client] = 3
        bench.reply(bulk("abc"), on: bench.shared)
        #expect(!bench.isClosed(client))
        bench.room[client] = nil
        bench.flush(client)
        #expect(bench.received(by: client) == bulk("abc"))
        #expect(bench.reason(client) == .clientClosed)
    }

    @Test("A blocked command's end is the server's decision when its client ends")
    func halfCloseBlocked() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("BLPOP", "a", "0"), from: client)
        let own = try #require(bench.connections.last)
        bench.end(client)
        #expect(bench.ended.isEmpty)
        #expect(bench.handedOver(own) == request("BLPOP", "a", "0"))
        #expect(bench.ended == [own])
        bench.lose(own)
        #expect(bench.reason(client) == .clientClosed)
    }

    @Test("A drain reads nothing more, and ends sessions when they are owed nothing")
    func drain() {
        let bench = Bench()
        let (busy, idle) = (bench.client(), bench.client())
        bench.send(request("GET", "a"), from: busy)
        bench.router.drain()
        bench.act()
        #expect(bench.reason(idle) == .drained)
        #expect(!bench.isClosed(busy))
        let wantsInput = busy.pointee.wantsInput
        #expect(!wantsInput)
        #expect(bench.handedOver(bench.shared) == request("GET", "a"))
        bench.reply(bulk("a"), on: bench.shared)
        #expect(bench.received(by: busy) == bulk("a"))
        #expect(bench.reason(busy) == .drained)
        #expect(bench.router.sessionCount == 0)
    }

    @Test("In a drain the server is told that a subscriber leaves, and its end is the session's")
    func drainSubscriber() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("SUBSCRIBE", "a"), from: client)
        let own = try #require(bench.connections.last)
        bench.router.drain()
        bench.act()
        #expect(!bench.isClosed(client))
        #expect(bench.handedOver(own) == request("HELLO", "3") + request("SUBSCRIBE", "a"))
        #expect(bench.ended == [own])
        bench.reply("%0\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", on: own)
        bench.lose(own)
        #expect(bench.received(by: client).hasSuffix(":1\r\n"))
        #expect(bench.reason(client) == .drained)
    }

    @Test("A session that subscribes with what a drain left it to do ends all the same")
    func drainThenSubscribe() throws {
        var limits = Limits()
        limits.initialWindow = 1
        let bench = Bench(limits: limits)
        let client = bench.client()
        bench.send(request("GET", "a") + request("SUBSCRIBE", "a"), from: client)
        bench.router.drain()
        bench.act()
        _ = bench.handedOver(bench.shared)
        bench.reply(bulk("a"), on: bench.shared)
        let own = try #require(bench.connections.last)
        #expect(bench.handedOver(own) == request("HELLO", "3") + request("SUBSCRIBE", "a"))
        #expect(bench.ended == [own])
        bench.lose(own)
        #expect(bench.reason(client) == .drained)
    }

    @Test("The end of a drain's patience ends every session")
    func endAll() throws {
        let bench = Bench()
        let (busy, blocked) = (bench.client(), bench.client())
        bench.send(request("GET", "a"), from: busy)
        bench.send(request("BLPOP", "a", "0"), from: blocked)
        bench.router.drain()
        bench.router.endAll()
        bench.act()
        #expect(bench.reason(busy) == .drainTimeout)
        #expect(bench.reason(blocked) == .drainTimeout)
        #expect(bench.router.sessionCount == 0)
        #expect(bench.router.pinnedCount == 0)
    }

    @Test("Replies that come in parts arrive whole and in order, at every cut")
    func cuts() {
        let stream = bulk("first") + "*2\r\n:1\r\n+x\r\n" + "$-1\r\n" + "-ERR no\r\n" + bulk("last")
        for cut in 0...stream.utf8.count {
            let bench = Bench()
            let (first, second) = (bench.client(), bench.client())
            let get = request("GET", "a")
            bench.send(get, from: first)
            bench.send(get + get + get, from: second)
            bench.send(get, from: first)
            _ = bench.handedOver(bench.shared)
            let bytes = Array(stream.utf8)
            bench.reply(Array(bytes[..<cut]), on: bench.shared)
            bench.reply(Array(bytes[cut...]), on: bench.shared)
            #expect(bench.received(by: first) == bulk("first") + bulk("last"))
            #expect(bench.received(by: second) == "*2\r\n:1\r\n+x\r\n$-1\r\n-ERR no\r\n")
        }
    }

    @Test("Requests that come in parts go out whole and in order, at every cut")
    func requestCuts() {
        let stream = request("SET", "a", "1") + "PING\r\n" + "\r\n" + request("GET", "a")
        let whole = request("SET", "a", "1") + request("PING") + request("GET", "a")
        for cut in 0...stream.utf8.count {
            let bench = Bench()
            let client = bench.client()
            let bytes = Array(stream.utf8)
            bench.send(Array(bytes[..<cut]), from: client)
            bench.send(Array(bytes[cut...]), from: client)
            #expect(bench.handedOver(bench.shared) == whole)
        }
    }
}

extension Bench {
    /// As `send`, but without complaint when the router does not read on.
    func push(_ text: String, from session: SessionRef) {
        var rest = Array(text.utf8)[...]
        while !rest.isEmpty && session.pointee.wantsInput {
            let buffer = router.receiveBuffer(for: session)
            let part = rest.prefix(buffer.count)
            buffer.copyBytes(from: part)
            rest = rest.dropFirst(part.count)
            router.didReceive(part.count, from: session)
            act()
        }
    }
}
