// An operator's orders about the commands and connections of a user.

import Identity
import Proxy
import Testing

@Suite("Orders")
struct PauseTests {
    private let get = request("GET", "a")
    private let set = request("SET", "a", "b")

    /// A client whose shared connection has served once.
    private func served(_ bench: Bench) throws -> (client: SessionRef, shared: UpstreamRef) {
        let client = bench.client()
        bench.send(get, from: client)
        let shared = try #require(bench.connections.last)
        #expect(bench.handedOver(shared) == get)
        bench.reply(bulk("v"), on: shared)
        #expect(bench.received(by: client) == bulk("v"))
        return (client, shared)
    }

    // MARK: PAUSE and RESUME

    @Test("While a user is paused its commands wait, and what was sent is answered")
    func pause() throws {
        let bench = Bench()
        let (client, shared) = try served(bench)
        bench.send(get, from: client)
        #expect(bench.handedOver(shared) == get)
        bench.router.pause()
        bench.act()
        #expect(bench.router.unfinished().commands == 1)
        bench.send(set, from: client)
        #expect(bench.handedOver(shared) == "")
        bench.reply(bulk("w"), on: shared)
        #expect(bench.received(by: client) == bulk("w"))
        #expect(bench.router.unfinished() == Unfinished())
        // Nobody gives up waiting.
        bench.advance(60)
        #expect(bench.handedOver(shared) == "")
        #expect(bench.received(by: client) == "")
        bench.router.resume()
        bench.act()
        let next = try #require(bench.connections.last)
        #expect(next != shared)
        #expect(!bench.connections.contains(shared), "a new one took its place")
        #expect(bench.handedOver(next) == set)
        bench.reply("+OK\r\n", on: next)
        #expect(bench.received(by: client) == "+OK\r\n")
    }

    @Test("A pause of one user leaves others alone")
    func pauseOne() throws {
        let routes = [0, 1].map { Route(user: UserIndex($0), isDedicated: false) }
        let bench = Bench(routes: routes)
        let client = bench.client()
        bench.router.pause(UserIndex(1))
        bench.send(get, from: client)
        let shared = try #require(bench.connections.last)
        #expect(bench.handedOver(shared) == get)
    }

    @Test(
        "Commands that wait for a server that is away wait on while paused, and their time begins anew"
    )
    func pauseWithoutServer() {
        let bench = Bench(comesUp: false)
        let client = bench.client()
        bench.send(get, from: client)
        bench.advance(4)
        bench.router.pause()
        bench.advance(100)
        #expect(bench.received(by: client) == "")
        bench.router.resume()
        bench.act()
        bench.advance(4)
        #expect(bench.received(by: client) == "")
        bench.advance(1.5)
        #expect(bench.received(by: client) == WaitingTests.unreachable)
    }

    @Test("A transaction that has begun goes on to its end, and what follows waits")
    func pauseInTransaction() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("MULTI"), from: client)
        let own = try #require(bench.connections.last)
        #expect(bench.handedOver(own) == request("MULTI"))
        bench.reply("+OK\r\n", on: own)
        bench.router.pause()
        #expect(bench.router.unfinished().clients == 1)
        bench.send(set, from: client)
        #expect(bench.handedOver(own) == set)
        bench.reply("+QUEUED\r\n", on: own)
        bench.send(request("EXEC"), from: client)
        #expect(bench.handedOver(own) == request("EXEC"))
        bench.reply("*1\r\n+OK\r\n", on: own)
        #expect(bench.router.unfinished() == Unfinished())
        bench.send(request("MULTI"), from: client)
        for connection in bench.connections { #expect(bench.handedOver(connection) == "") }
        #expect(bench.received(by: client) == "+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n")
    }

    @Test("A MULTI that was sent before the pause is seen through when its answer comes late")
    func pauseBehindMulti() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("MULTI"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.router.pause()
        bench.send(set + request("EXEC"), from: client)
        #expect(bench.handedOver(own) == "")
        bench.reply("+OK\r\n", on: own)
        #expect(bench.router.nextDirtyUpstream() == own, "it may go on")
        #expect(bench.handedOver(own) == set + request("EXEC"))
    }

    @Test("A blocked command does not hold up a pause, which says that it is there")
    func pauseWithBlocked() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("BLPOP", "q", "0"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.router.pause()
        var expected = Unfinished()
        expected.blocking = 1
        #expect(bench.router.unfinished() == expected)
        bench.reply("*-1\r\n", on: own)
        #expect(bench.router.unfinished() == Unfinished())
    }

    @Test("What waits on a connection of its own in a pause goes out on a new one")
    func resumeDedicated() throws {
        let bench = Bench(isDedicated: true)
        let client = bench.client()
        bench.send(get, from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply(bulk("v"), on: own)
        bench.router.pause()
        bench.send(set + get, from: client)
        #expect(bench.handedOver(own) == "")
        bench.router.resume()
        bench.act()
        let next = try #require(bench.connections.last)
        #expect(next != own)
        #expect(bench.handedOver(next) == set + get)
        bench.reply("+OK\r\n" + bulk("w"), on: next)
        #expect(bench.received(by: client) == bulk("v") + "+OK\r\n" + bulk("w"))
        #expect(bench.connections == [next])
    }

    @Test("A command that goes out in slices is not lost while there is no credential")
    func resumeBlockedWithoutCredential() throws {
        let bench = Bench(comesUp: false, password: nil)
        let life = LoginLife(renewAfter: .seconds(100), limit: .seconds(200))
        bench.publish(Bench.secret, kind: .iamToken(life))
        let client = bench.client()
        bench.send(request("BLPOP", "q", "0"), from: client)
        let own = try #require(bench.connections.last)
        bench.router.pause()
        bench.router.publish(
            CredentialSnapshot(version: 2, credential: nil, failure: "gone"), for: UserIndex(0))
        bench.router.resume()
        bench.act()
        bench.publish(Bench.secret, kind: .iamToken(life))
        bench.bringUp(own)
        let sent = bench.handedOver(own)
        #expect(sent.hasPrefix("*3\r\n$5\r\nBLPOP\r\n$1\r\nq\r\n"))
        #expect(!sent.hasSuffix("$1\r\n0\r\n"), "it ends before the login does")
    }

    // MARK: RECONNECT

    @Test("A shared connection is replaced, and answers what it was sent")
    func reconnect() throws {
        let bench = Bench()
        let (first, shared) = try served(bench)
        let second = bench.client()
        bench.send(get, from: first)
        #expect(bench.handedOver(shared) == get)
        // Not handed over yet: one that must stay behind what is under way, and one that need not.
        bench.send(set, from: first)
        bench.send(set, from: second)
        bench.router.reconnect()
        bench.act()
        let next = try #require(bench.connections.last)
        #expect(next != shared)
        #expect(bench.handedOver(next) == set)
        #expect(bench.handedOver(shared) == set)
        let isRead = first.pointee.wantsInput
        #expect(!isRead, "it waits until it can leave")
        bench.reply(bulk("v") + "+OK\r\n", on: shared)
        #expect(bench.received(by: first) == bulk("v") + "+OK\r\n")
        #expect(!bench.connections.contains(shared))
        bench.send(get, from: first)
        #expect(bench.handedOver(next) == get)
        bench.reply("+OK\r\n" + bulk("w"), on: next)
        #expect(bench.received(by: second) == "+OK\r\n")
        #expect(bench.received(by: first) == bulk("w"))
    }

    @Test("An own connection is replaced when nothing ties it any more")
    func reconnectOwn() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("WATCH", "k"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n", on: own)
        bench.router.reconnect()
        bench.act()
        #expect(bench.connections.contains(own))
        bench.send(request("UNWATCH"), from: client)
        #expect(bench.handedOver(own) == request("UNWATCH"))
        bench.reply("+OK\r\n", on: own)
        #expect(!bench.connections.contains(own))
        #expect(!bench.isClosed(client))
        bench.send(request("WATCH", "k"), from: client)
        let next = try #require(bench.connections.last)
        #expect(bench.handedOver(next) == request("WATCH", "k"))
    }

    @Test("A spare connection is replaced at once, and an attempt that is under way begins anew")
    func reconnectOthers() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("WATCH", "k") + request("UNWATCH"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n+OK\r\n", on: own)
        #expect(bench.router.spare.joined().contains(own))
        bench.router.reconnect()
        bench.act()
        #expect(!bench.connections.contains(own))

        let other = Bench(comesUp: false)
        other.send(get, from: other.client())
        #expect(other.attempts == 1)
        other.router.reconnect()
        other.act()
        #expect(other.attempts == 2)
        other.bringUp(other.shared)
        #expect(other.handedOver(other.shared) == get)
    }

    @Test("A connection is replaced when it is too old, each a little earlier at random")
    func age() throws {
        let route = Route(user: UserIndex(0), isDedicated: false, maximumAge: .seconds(100))
        let bench = Bench(routes: [route])
        let (client, shared) = try served(bench)
        bench.advance(79)
        #expect(bench.connections.contains(shared))
        bench.advance(22)
        #expect(!bench.connections.contains(shared))
        bench.send(get, from: client)
        let next = try #require(bench.connections.last)
        #expect(bench.handedOver(next) == get)
        #expect(
            bench.events.contains {
                if case .replaced(_, .age) = $0 { true } else { false }
            })
    }

    // MARK: RENEW and KILL

    @Test("Logins are renewed by order, and the credential is fetched anew")
    func renew() throws {
        let bench = Bench()
        let (_, shared) = try served(bench)
        bench.router.renew()
        bench.act()
        #expect(bench.refreshes == [UserIndex(0)])
        bench.advance(1.1)
        #expect(bench.handedOver(shared) == request("HELLO", "2", "AUTH", "app", Bench.secret))
        bench.reply(Bench.helloReply, on: shared)
        #expect(
            bench.events.contains {
                if case .renewed = $0 { true } else { false }
            })
    }

    @Test("A session is ended by its number, and nobody else")
    func kill() throws {
        let bench = Bench()
        let (first, shared) = try served(bench)
        let second = bench.client()
        bench.send(get, from: first)
        bench.send(set, from: second)
        _ = bench.handedOver(shared)
        #expect(bench.router.kill(session: first.pointee.id))
        bench.act()
        #expect(bench.reason(first) == .killed)
        #expect(!bench.router.kill(session: 99))
        bench.reply(bulk("v") + "+OK\r\n", on: shared)
        #expect(bench.received(by: second) == "+OK\r\n")
    }
}
