// Clients that leave while a command of theirs may wait in the server: it must not go on waiting.

import Proxy
import Testing

@Suite("The end of a client behind a blocking command")
struct EndTests {
    private func bench(window: UInt32 = 4, kept: Int = 65_536) -> Bench {
        var limits = Limits()
        limits.initialWindow = window
        limits.maximumWindow = window
        limits.keptInput = kept
        return Bench(limits: limits)
    }

    private let gets = String(repeating: request("GET", "a"), count: 20)

    @Test("The server is told at once, although the window is full")
    func windowIsFull() throws {
        let bench = bench()
        let client = bench.client()
        bench.send(request("BLPOP", "k", "0") + gets, from: client)
        let own = try #require(bench.connections.last)
        bench.end(client)
        #expect(bench.handedOver(own).hasPrefix(request("BLPOP", "k", "0")))
        #expect(bench.ended == [own])
        bench.lose(own)
        #expect(bench.reason(client) == .clientClosed)
        #expect(bench.router.pinnedCount == 0)
    }

    @Test(
        "The server is told at once, although a command waits for the answer",
        arguments: [
            request("QUIT"), request("AUTH", "default", "x"), request("RESET"),
        ])
    func commandWaits(next: String) throws {
        let bench = bench()
        let client = bench.client()
        bench.send(request("BLPOP", "k", "0") + next, from: client)
        let own = try #require(bench.connections.last)
        bench.end(client)
        #expect(bench.handedOver(own) == request("BLPOP", "k", "0"))
        #expect(bench.ended == [own])
    }

    @Test(
        "The server is told of an end behind what ended a transaction",
        arguments: [request("EXEC"), request("DISCARD")])
    func transactionEnds(end: String) throws {
        let bench = bench()
        let client = bench.client()
        bench.send(request("MULTI"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n", on: own)
        bench.send(end + request("BLPOP", "k", "0"), from: client)
        bench.end(client)
        #expect(bench.handedOver(own) == end + request("BLPOP", "k", "0"))
        #expect(bench.ended == [own])
    }

    @Test("What a client sent before its end runs, if the command did not block")
    func doesNotBlock() throws {
        let bench = bench()
        let client = bench.client()
        bench.send(request("BLPOP", "k", "0") + gets + request("QUIT"), from: client)
        let own = try #require(bench.connections.last)
        bench.end(client)
        _ = bench.handedOver(own)
        bench.reply("*0\r\n" + String(repeating: bulk("x"), count: 3), on: own)
        #expect(!bench.connections.contains(own))
        for _ in 0..<5 {
            let burst = bench.handedOver(bench.shared)
            #expect(gets.hasPrefix(burst))
            let count = burst.utf8.count / request("GET", "a").utf8.count
            bench.reply(String(repeating: bulk("x"), count: count), on: bench.shared)
        }
        #expect(
            bench.received(by: client)
                == "*0\r\n" + String(repeating: bulk("x"), count: 20) + "+OK\r\n"
        )
        #expect(bench.reason(client) == .quit)
    }

    @Test("Once the command is answered, an end is the client's own business")
    func answered() throws {
        let bench = bench(window: 8)
        let client = bench.client()
        bench.send(request("WATCH", "k") + request("BLPOP", "k", "0") + gets, from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n*0\r\n" + bulk("x"), on: own)
        let isRead = client.pointee.wantsInput
        #expect(!isRead)
        #expect(bench.router.unwatched.isEmpty)
        for _ in 0..<5 { bench.reply(bulk("x"), on: own) }
        bench.end(client)
        while true {
            let burst = bench.handedOver(own).utf8.count / request("GET", "a").utf8.count
            guard burst > 0 else { break }
            bench.reply(String(repeating: bulk("x"), count: burst), on: own)
        }
        #expect(
            bench.received(by: client)
                == "+OK\r\n*0\r\n" + String(repeating: bulk("x"), count: 20)
        )
        #expect(bench.reason(client) == .clientClosed)
    }

    @Test("What would need the state of an ended connection does not run")
    func tiedToItsConnection() throws {
        let bench = bench()
        let client = bench.client()
        bench.send(request("WATCH", "k") + request("BLPOP", "k", "0") + gets, from: client)
        let own = try #require(bench.connections.last)
        bench.end(client)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n*0\r\n" + String(repeating: bulk("x"), count: 2), on: own)
        #expect(bench.handedOver(bench.shared) == "")
        #expect(bench.received(by: client) == "+OK\r\n*0\r\n" + bulk("x") + bulk("x"))
        #expect(bench.reason(client) == .clientClosed)
    }

    @Test("Beyond what is kept the end is looked for")
    func lookedFor() throws {
        let bench = bench(kept: 100)
        let client = bench.client()
        bench.push(request("BLPOP", "k", "0") + gets, from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        let isRead = client.pointee.wantsInput
        #expect(!isRead)
        #expect(bench.router.wantsTicks)
        #expect(bench.router.unwatched == [client])
        bench.router.didSeeEnd(of: client)
        bench.act()
        _ = bench.handedOver(own)
        #expect(bench.ended == [own])
        bench.advance(0.1)
        #expect(bench.router.unwatched.isEmpty)
        // It was not blocked after all: the rest is read, and runs.
        bench.reply("*0\r\n" + String(repeating: bulk("x"), count: 3), on: own)
        #expect(bench.handedOver(bench.shared).hasPrefix(request("GET", "a")))
    }

    @Test("A client that is read again, or gone, is no longer looked at")
    func lookedForNoMore() throws {
        let bench = bench(kept: 100)
        let (first, second) = (bench.client(), bench.client())
        bench.push(request("BLPOP", "k", "0") + gets, from: first)
        let own = try #require(bench.connections.last)
        bench.push(request("BLPOP", "k", "0") + gets, from: second)
        bench.router.didLose(second)
        bench.act()
        #expect(bench.router.unwatched == [first])
        _ = bench.handedOver(own)
        bench.reply("*0\r\n" + String(repeating: bulk("x"), count: 3), on: own)
        bench.advance(0.1)
        #expect(bench.router.unwatched.isEmpty)
    }

    @Test("During a drain the end of a client that waits is looked for")
    func duringDrain() throws {
        let bench = bench()
        let client = bench.client()
        bench.send(request("BLPOP", "k", "0"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.router.drain()
        bench.act()
        #expect(bench.ended.isEmpty)
        #expect(bench.router.unwatched == [client])
        bench.router.didSeeEnd(of: client)
        bench.act()
        _ = bench.handedOver(own)
        #expect(bench.ended == [own])
    }

    @Test("What is no request behind a blocking command does not end the command")
    func violationWaits() throws {
        let bench = bench()
        let client = bench.client()
        bench.send(request("BLPOP", "k", "0") + "*1\r\n!3\r\n", from: client)
        let own = try #require(bench.connections.last)
        #expect(bench.handedOver(own) == request("BLPOP", "k", "0"))
        #expect(bench.ended.isEmpty)
        #expect(bench.router.unwatched == [client])
        bench.reply("*0\r\n", on: own)
        #expect(
            bench.received(by: client) == "*0\r\n-ERR Protocol error: expected '$', got '!'\r\n"
        )
    }

    @Test("Bytes that come while a session waits are kept, and run in their order")
    func kept() throws {
        var limits = Limits()
        limits.uploadBuffer = 20
        let bench = Bench(limits: limits, comesUp: false)
        let client = bench.client()
        bench.send(request("BLPOP", "k", "0"), from: client)
        bench.send(request("GET", "a"), from: client)
        let own = try #require(bench.connections.last)
        bench.bringUp(own)
        #expect(bench.handedOver(own) == request("BLPOP", "k", "0"))
        #expect(bench.handedOver(own) == request("GET", "a"))
    }
}
