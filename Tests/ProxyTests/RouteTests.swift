// Routes that come and go while sessions are served.

import Identity
import Proxy
import Testing

@Suite("A route")
struct RouteTests {
    private func route(_ user: UserIndex = UserIndex(0)) -> Route {
        Route(user: user, isDedicated: false)
    }

    private func credential(_ name: String) -> CredentialSnapshot {
        CredentialSnapshot(
            version: 1,
            credential: Credential(userName: name, secret: Secret("SECRET-\(name)".utf8)),
            failure: nil)
    }

    /// A session of a route with a GET that was handed over; its connection.
    private func use(_ bench: Bench, _ route: Int, _ key: String) throws -> (
        SessionRef, UpstreamRef
    ) {
        let session = bench.router.openSession(route: route)
        bench.act()
        bench.send(request("GET", key), from: session)
        let upstream = session.pointee.upstream
        let connection = try #require(upstream)
        #expect(bench.handedOver(connection) == request("GET", key))
        return (session, connection)
    }

    @Test("that is added serves sessions on connections of its own, as its user")
    func added() throws {
        let bench = Bench()
        let (_, first) = try use(bench, 0, "a")
        let user = bench.router.addUser()
        #expect(user == UserIndex(1))
        bench.router.publish(credential("second"), for: user)
        let number = bench.router.addRoute(route(user))
        #expect(number == 1)
        let (session, second) = try use(bench, number, "b")
        #expect(second != first)
        #expect(second.pointee.user == user)
        bench.reply("$1\r\nB\r\n", on: second)
        #expect(bench.received(by: session) == "$1\r\nB\r\n")
        bench.reply("$1\r\nA\r\n", on: first)
    }

    @Test("that is added late has pools of its own for each protocol and database")
    func addedBehindOtherPools() throws {
        let bench = Bench()
        // A pool of another database stands between the routes' own ones.
        let client = bench.client()
        bench.send(request("SELECT", "5"), from: client)
        let upstream = client.pointee.upstream
        let own = try #require(upstream)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n", on: own)
        #expect(bench.received(by: client) == "+OK\r\n")
        let number = bench.router.addRoute(route())
        let (session, connection) = try use(bench, number, "k")
        bench.reply("$-1\r\n", on: connection)
        #expect(bench.received(by: session) == "$-1\r\n")
        bench.send(request("HELLO", "3"), from: session)
        #expect(bench.received(by: session).hasPrefix("%"))
    }

    @Test("follows other limits with the sessions that are there, and wakes who waited for more")
    func otherLimits() throws {
        var limits = Limits()
        limits.maximumPinned = 1
        let bench = Bench(limits: limits)
        let first = bench.client()
        let second = bench.client()
        bench.send(request("WATCH", "a"), from: first)
        bench.send(request("WATCH", "b"), from: second)
        #expect(bench.router.pinnedCount == 1)
        limits.maximumPinned = 2
        limits.receiveBuffer = 1
        limits.replyChunk = 1
        limits.connectionsPerPool = 7
        bench.router.follow(limits)
        bench.act()
        #expect(bench.router.pinnedCount == 2, "there is room for it now")
        let client = bench.client()
        bench.send(request("GET", "k"), from: client)
        let upstream = client.pointee.upstream
        let connection = try #require(upstream)
        #expect(bench.handedOver(connection) == request("GET", "k"))
        // Below what is in use: nobody is ended.
        limits.maximumPinned = 1
        bench.router.follow(limits)
        bench.advance(1)
        #expect(bench.closed.isEmpty)
    }

    @Test("whose pauses change waits for the new ones after its next failure")
    func otherPauses() throws {
        let bench = Bench(comesUp: false)
        bench.router.changePauses(ofRoute: 0, from: .seconds(100), to: .seconds(100))
        let client = bench.client()
        bench.send(request("GET", "k"), from: client)
        let connection = try #require(bench.connections.first)
        #expect(bench.attempts == 1)
        bench.router.didFailToConnect(connection, reason: "a test")
        bench.act()
        bench.advance(40)
        #expect(bench.attempts == 1)
    }

    @Test("that is retired closes what it holds ready, and what is in use when that is over")
    func retired() throws {
        let bench = Bench()
        let number = bench.router.addRoute(route())
        let (session, connection) = try use(bench, number, "k")
        bench.router.retire(route: number)
        bench.act()
        #expect(bench.connections.contains(connection))
        bench.reply("$-1\r\n", on: connection)
        #expect(bench.received(by: session) == "$-1\r\n")
        // The session goes on.
        bench.send(request("GET", "l"), from: session)
        #expect(bench.handedOver(connection) == request("GET", "l"))
        bench.reply("$-1\r\n", on: connection)
        bench.end(session)
        bench.act()
        bench.router.trim()
        bench.act()
        #expect(!bench.connections.contains(connection))
    }

    @Test("that is retired touches no session and no connection of another")
    func othersAreUntouched() throws {
        let bench = Bench()
        let number = bench.router.addRoute(route())
        let (stays, connection) = try use(bench, 0, "a")
        let (goes, other) = try use(bench, number, "b")
        bench.router.retire(route: number)
        bench.router.endSessions { $0.pointee.route == number }
        bench.act()
        #expect(bench.isClosed(goes) && !bench.isClosed(stays))
        #expect(bench.reason(goes) == .noLongerAdmitted)
        // What the other one was owed is dropped, and its connection is closed when it has come.
        bench.reply("$1\r\nB\r\n", on: other)
        bench.router.trim()
        bench.act()
        #expect(!bench.connections.contains(other))
        bench.reply("$1\r\nA\r\n", on: connection)
        #expect(bench.received(by: stays) == "$1\r\nA\r\n")
        #expect(bench.router.sessionCount == 1)
    }

    @Test("that is revived serves again, with no more memory than before")
    func revived() throws {
        let bench = Bench()
        let number = bench.router.addRoute(route())
        let before = bench.router.allocatedUpstreams
        for _ in 0..<10 {
            let (session, connection) = try use(bench, number, "k")
            bench.reply("$-1\r\n", on: connection)
            _ = bench.received(by: session)
            bench.router.retire(route: number)
            bench.router.endSessions { $0.pointee.route == number }
            bench.act()
            bench.router.reap()
            bench.router.revive(route: number)
        }
        #expect(bench.router.allocatedUpstreams == before)
        #expect(bench.router.allocatedSessions == 0)
    }

    @Test("ends a session wherever it stands: waiting, in a transaction, subscribed, in an upload")
    func endsAnywhere() throws {
        for wanted in [
            request("MULTI"), request("BLPOP", "k", "0"), request("SUBSCRIBE", "c"),
            request("WATCH", "k"),
        ] {
            let bench = Bench()
            let session = bench.client()
            bench.send(wanted, from: session)
            let upstream = session.pointee.upstream
            let own = try #require(upstream)
            bench.router.endSessions { $0 == session }
            bench.act()
            #expect(bench.isClosed(session))
            #expect(!bench.connections.contains(own))
            #expect(bench.router.pinnedCount == 0)
        }
        let bench = Bench(comesUp: false)
        let waiting = bench.client()
        bench.send(request("GET", "k"), from: waiting)
        bench.router.endSessions { _ in true }
        bench.act()
        #expect(bench.isClosed(waiting))
    }
}
