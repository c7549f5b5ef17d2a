import Histogram
import Identity
import Proxy
import Testing

@Suite struct `A router counts` {
    @Test func `each reply once, with the time since its run began`() {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("GET", "a") + request("GET", "b"), from: client)
        _ = bench.handedOver(bench.shared)
        bench.advance(0.003)
        bench.reply(bulk("1") + bulk("2"), on: bench.shared)
        let latency = bench.router.currentFigures.latency
        #expect(latency.totalCount == 2)
        #expect(latency.countForValue(3_000_000) == 2)
    }

    @Test func `replies that come in two pieces when they come`() {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("GET", "a") + request("GET", "b"), from: client)
        _ = bench.handedOver(bench.shared)
        bench.advance(0.001)
        bench.reply(bulk("1") + "$1\r\n", on: bench.shared)
        bench.advance(0.001)
        bench.reply("2\r\n", on: bench.shared)
        let latency = bench.router.currentFigures.latency
        #expect(latency.totalCount == 2)
        #expect(latency.countForValue(1_000_000) == 1)
        #expect(latency.countForValue(2_000_000) == 1)
    }

    @Test func `no reply to a command that waits for others`() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("BLPOP", "a", "0"), from: client)
        let upstream = client.pointee.upstream
        let own = try #require(upstream)
        _ = bench.handedOver(own)
        bench.advance(100)
        bench.reply("*2\r\n" + bulk("a") + bulk("1"), on: own)
        #expect(bench.received(by: client).hasSuffix(bulk("1")))
        #expect(bench.router.currentFigures.latency.totalCount == 0)
    }

    @Test func `what is slower than the histogram's range as its end`() {
        var limits = Limits()
        limits.upstreamWait = .seconds(1_000)
        let bench = Bench(limits: limits)
        let client = bench.client()
        bench.send(request("GET", "a"), from: client)
        _ = bench.handedOver(bench.shared)
        bench.advance(500)
        bench.reply(bulk("1"), on: bench.shared)
        let latency = bench.router.currentFigures.latency
        #expect(latency.totalCount == 1)
        #expect(latency.countForValue(60_000_000_000) == 1)
    }

    @Test func `pins by their reason, and for how long they last`() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("WATCH", "a"), from: client)
        let upstream = client.pointee.upstream
        let own = try #require(upstream)
        bench.advance(2)
        var figures = bench.router.currentFigures
        let watch = Int(PinReason.watch.rawValue)
        #expect(figures.pins[watch] == 1)
        #expect(figures.pinned[watch] == 2_000_000_000, "it goes on")
        let pin = client.pointee.pin
        #expect(pin?.reason == .watch)
        bench.send(request("UNWATCH"), from: client)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n+OK\r\n", on: own)
        bench.advance(5)
        figures = bench.router.currentFigures
        #expect(bench.router.status(of: client).pin == nil)
        #expect(figures.pins.reduce(0, +) == 1)
        #expect(figures.pinned[watch] == 2_000_000_000)
    }

    @Test func `a dedicated client's pin as that, and its end with the client's`() {
        let bench = Bench(isDedicated: true)
        let client = bench.client()
        bench.send(request("GET", "a"), from: client)
        bench.advance(1)
        bench.router.didLose(client)
        bench.act()
        bench.advance(1)
        let figures = bench.router.currentFigures
        #expect(figures.pins[Int(PinReason.dedicated.rawValue)] == 1)
        #expect(figures.pinned[Int(PinReason.dedicated.rawValue)] == 1_000_000_000)
    }

    @Test func `and hands out copies that later work does not change`() {
        let bench = Bench()
        let client = bench.client()
        let before = bench.router.currentFigures
        bench.send(request("GET", "a"), from: client)
        _ = bench.handedOver(bench.shared)
        bench.reply(bulk("1"), on: bench.shared)
        #expect(before.latency.totalCount == 0)
        var sum = bench.router.currentFigures
        sum.add(bench.router.currentFigures)
        #expect(sum.latency.totalCount == 2)
    }
}

@Suite struct `A router says of its connections` {
    @Test func `which are shared, own and spare, and what they owe`() throws {
        let bench = Bench()
        let one = bench.client()
        let two = bench.client()
        bench.send(request("GET", "a") + request("GET", "b"), from: one)
        bench.send(request("WATCH", "a"), from: two)
        var statuses = bench.router.upstreamStatuses
        #expect(statuses.count == 2)
        #expect(statuses.first { $0.use == .shared }?.owedReplies == 2)
        let upstream = two.pointee.upstream
        let own = try #require(upstream)
        #expect(statuses.contains { $0.use == .own(session: two.pointee.id, .watch) })
        bench.send(request("UNWATCH"), from: two)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n+OK\r\n", on: own)
        statuses = bench.router.upstreamStatuses
        #expect(statuses.contains { $0.use == .spare && $0.state == .ready })
    }

    @Test func `how old their login is and when it is renewed`() throws {
        let bench = Bench(password: nil)
        let life = LoginLife(renewAfter: .seconds(100), limit: .seconds(200))
        bench.publish("token", kind: .iamToken(life))
        let client = bench.client()
        bench.send(request("GET", "a"), from: client)
        bench.advance(10)
        let status = try #require(bench.router.upstreamStatuses.first)
        let loggedInAt = try #require(status.loggedInAt)
        #expect(bench.router.now.since(loggedInAt) == .seconds(10))
        let renewsAt = try #require(status.renewsAt)
        #expect(renewsAt.since(loggedInAt) >= .seconds(90))
        #expect(renewsAt.since(loggedInAt) <= .seconds(100))
        #expect(try #require(status.loginEndsAt).since(loggedInAt) == .seconds(196))
    }

    @Test func `what its sessions wait for`() {
        let bench = Bench(comesUp: false)
        let client = bench.client()
        bench.send(
            String(repeating: request("GET", "a"), count: 100), from: client)
        var waiting = WaitingSessions()
        bench.router.forEachSession { $0.pointee.count(in: &waiting) }
        #expect(waiting.window == 1)
        #expect(bench.router.status(of: client).owedReplies == 64)
    }
}
