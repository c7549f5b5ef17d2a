// Connections that are lost, and what becomes of the sessions that they served.

import Proxy
import Testing

@Suite("Lost connections")
struct LossTests {
    @Test("A session with a request sent and unanswered is closed, and what it had unsent dropped")
    func sentAndUnanswered() {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("GET", "a"), from: client)
        #expect(bench.handedOver(bench.shared) == request("GET", "a"))
        bench.send(request("GET", "b"), from: client)
        bench.lose(bench.shared)
        #expect(bench.reason(client) == .upstreamLost)
        #expect(bench.handedOver(bench.shared) == "")
    }

    @Test("A session with nothing sent notices nothing: its requests go out next, in order")
    func nothingSent() {
        let bench = Bench()
        let (unlucky, lucky) = (bench.client(), bench.client())
        bench.send(request("GET", "a"), from: unlucky)
        _ = bench.handedOver(bench.shared)
        bench.send(request("GET", "b"), from: lucky)
        bench.send(request("GET", "c"), from: unlucky)
        bench.send(request("GET", "d"), from: lucky)
        bench.lose(bench.shared)
        bench.advance(1)
        #expect(bench.handedOver(bench.shared) == request("GET", "b") + request("GET", "d"))
        bench.reply(bulk("b") + bulk("d"), on: bench.shared)
        #expect(bench.received(by: lucky) == bulk("b") + bulk("d"))
        #expect(bench.isClosed(unlucky) && !bench.isClosed(lucky))
    }

    @Test("A session whose replies have all come survives a loss")
    func answered() {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("GET", "a"), from: client)
        _ = bench.handedOver(bench.shared)
        bench.reply(bulk("a"), on: bench.shared)
        bench.lose(bench.shared)
        #expect(bench.received(by: client) == bulk("a"))
        bench.send(request("GET", "b"), from: client)
        bench.advance(1)
        #expect(bench.handedOver(bench.shared) == request("GET", "b"))
    }

    @Test("A client gets the part of a reply that came before the loss, and then the end")
    func partOfReply() {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("GET", "a"), from: client)
        _ = bench.handedOver(bench.shared)
        bench.room[client] = 0
        bench.reply("$10\r\nabc", on: bench.shared)
        bench.lose(bench.shared)
        #expect(!bench.isClosed(client))
        bench.room[client] = nil
        bench.flush(client)
        #expect(bench.received(by: client) == "$10\r\nabc")
        #expect(bench.reason(client) == .upstreamLost)
    }

    @Test("The report of a loss counts sessions, not their requests")
    func report() throws {
        let bench = Bench()
        let (first, second) = (bench.client(), bench.client())
        for client in [first, second, first, second] {
            bench.send(request("GET", "a"), from: client)
        }
        bench.lose(bench.shared)
        let counts = bench.events.compactMap { event -> [Int]? in
            if case .lost(_, _, let closed, let kept) = event { return [closed, kept] }
            return nil
        }
        #expect(counts == [[0, 2]])
    }

    @Test("An own connection that nothing was sent on is replaced without its client noticing")
    func ownUnused() throws {
        let bench = Bench(comesUp: false)
        let client = bench.client()
        bench.send(request("SELECT", "1"), from: client)
        let own = try #require(bench.connections.last)
        bench.bringUp(own)
        bench.lose(own)
        bench.advance(1)
        bench.bringUp(own)
        #expect(bench.handedOver(own) == request("SELECT", "1"))
        bench.lose(own)
        #expect(bench.reason(client) == .upstreamLost)
        #expect(bench.router.pinnedCount == 0)
    }

    @Test("A loss is called one, also for a client that had ended and was owed replies")
    func ownLostAfterEnd() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("SELECT", "1"), from: client)
        bench.end(client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.lose(own)
        #expect(bench.reason(client) == .upstreamLost)
    }

    @Test("A reply that nobody asked for ends the connection")
    func unsolicitedReply() {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("GET", "a"), from: client)
        _ = bench.handedOver(bench.shared)
        bench.reply(bulk("a") + bulk("b"), on: bench.shared)
        #expect(bench.received(by: client) == bulk("a"))
        #expect(!bench.connections.contains(bench.shared))
        #expect(!bench.isClosed(client))
    }

    @Test("What is not RESP ends the connection and the session it was for")
    func notRESP() {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("GET", "a") + request("GET", "b"), from: client)
        _ = bench.handedOver(bench.shared)
        bench.reply(bulk("a") + "HTTP/1.1 400 Bad Request\r\n", on: bench.shared)
        #expect(bench.received(by: client) == bulk("a"))
        #expect(bench.reason(client) == .upstreamLost)
    }

    @Test("Replies to a client that left are counted and thrown away")
    func replyToNobody() {
        let bench = Bench()
        let (gone, client) = (bench.client(), bench.client())
        bench.send(request("GET", "a") + request("GET", "b"), from: gone)
        bench.send(request("GET", "c"), from: client)
        _ = bench.handedOver(bench.shared)
        bench.router.didLose(gone)
        bench.act()
        bench.router.reap()
        bench.reply(bulk("a") + bulk("b") + bulk("c"), on: bench.shared)
        #expect(bench.received(by: client) == bulk("c"))
        bench.router.reap()
        #expect(bench.router.allocatedSessions == 1)
    }

    @Test("Bytes behind the reply that ends a session and its own connection are left alone")
    func bytesBehindTheEnd() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("READONLY"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.end(client)
        bench.reply("+OK\r\n+MORE\r\n", on: own)
        #expect(bench.reason(client) == .clientClosed)
        let losses = bench.events.filter { if case .lost = $0 { true } else { false } }
        #expect(losses.isEmpty)
        bench.router.reap()
        #expect(bench.router.allocatedUpstreams == 2)
    }
}
