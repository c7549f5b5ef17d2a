// Connections that do not come up, logins that are refused, and the commands that wait meanwhile.

import Identity
import Proxy
import Testing

@Suite("Waiting for a connection")
struct WaitingTests {
    static let unreachable =
        "-ERR redis-auth-proxy: the server cannot be reached, the command was not run\r\n"
    static let refused =
        "-ERR redis-auth-proxy: the server refused the proxy's login, the command was not run\r\n"

    @Test("When the wait is over, n commands get n errors, and the session goes on")
    func waitEnds() {
        let bench = Bench(comesUp: false)
        let client = bench.client()
        bench.send(request("GET", "a") + request("GET", "b"), from: client)
        bench.advance(3)
        bench.send(request("GET", "c"), from: client)
        bench.advance(2.1)
        #expect(bench.received(by: client) == Self.unreachable + Self.unreachable)
        bench.advance(3)
        #expect(bench.received(by: client) == Self.unreachable)
        #expect(!bench.isClosed(client))
        bench.bringUp(bench.shared)
        bench.send(request("GET", "d"), from: client)
        #expect(bench.handedOver(bench.shared) == request("GET", "d"))
    }

    @Test(
        "An error in place of a command that carries state ends the session",
        arguments: ["MULTI", "WATCH a", "SELECT 1", "SUBSCRIBE a", "HELLO 3", "CLIENT SETNAME a"]
    )
    func errorInPlaceOfState(line: String) {
        let bench = Bench(comesUp: false)
        let client = bench.client()
        bench.send(line + "\r\n" + request("SET", "a", "b"), from: client)
        bench.advance(5.1)
        #expect(bench.received(by: client) == Self.unreachable)
        #expect(bench.reason(client) == .errorInPlaceOfState)
        #expect(bench.router.pinnedCount == 0)
    }

    @Test("In dedicated mode an AUTH that nobody can place ends the session")
    func dedicatedAuth() {
        let bench = Bench(isDedicated: true, comesUp: false)
        let client = bench.client()
        bench.send(request("AUTH", "default", "SECRET"), from: client)
        bench.advance(5.1)
        #expect(bench.received(by: client) == Self.unreachable)
        #expect(bench.reason(client) == .errorInPlaceOfState)
    }

    @Test("The login goes first, and nothing of a client before its success")
    func loginFirst() {
        let bench = Bench(comesUp: false)
        let client = bench.client()
        bench.send(request("GET", "a"), from: client)
        #expect(bench.handedOver(bench.shared) == "")
        bench.router.didConnect(bench.shared)
        #expect(
            bench.handedOver(bench.shared)
                == request("HELLO", "2", "AUTH", "app", Bench.secret)
        )
        #expect(bench.handedOver(bench.shared) == "")
        let half = Bench.helloReply.utf8.count / 2
        bench.reply(String(Bench.helloReply.prefix(half)), on: bench.shared)
        #expect(bench.handedOver(bench.shared) == "")
        bench.reply(String(Bench.helloReply.dropFirst(half)), on: bench.shared)
        #expect(bench.handedOver(bench.shared) == request("GET", "a"))
    }

    @Test("A refused login fetches the credential again and is retried at once with a new one")
    func refusedLogin() {
        let bench = Bench(comesUp: false)
        let client = bench.client()
        bench.send(request("GET", "a"), from: client)
        bench.router.didConnect(bench.shared)
        _ = bench.handedOver(bench.shared)
        bench.reply("-WRONGPASS no\r\n", on: bench.shared)
        #expect(bench.refreshes.count == 1)
        #expect(bench.connections.isEmpty)
        bench.publish(Bench.secret)
        #expect(bench.attempts == 1, "the same secret is no reason to hurry")
        bench.publish("another")
        #expect(bench.attempts == 2)
        bench.router.didConnect(bench.shared)
        #expect(
            bench.handedOver(bench.shared) == request("HELLO", "2", "AUTH", "app", "another")
        )
        bench.reply(Bench.helloReply, on: bench.shared)
        #expect(bench.handedOver(bench.shared) == request("GET", "a"))
    }

    @Test("A login that stays refused ends in errors that say so, and never in a command sent")
    func staysRefused() {
        let bench = Bench(comesUp: false)
        let client = bench.client()
        bench.send(request("GET", "a"), from: client)
        var handedOver = ""
        for _ in 0..<60 {
            for upstream in bench.connections {
                bench.router.didConnect(upstream)
                handedOver += bench.handedOver(upstream)
                bench.reply("-NOAUTH\r\n", on: upstream)
                handedOver += bench.handedOver(upstream)
            }
            bench.advance(0.1)
        }
        #expect(bench.received(by: client) == Self.refused)
        #expect(!handedOver.contains("GET"))
    }

    @Test("Without a credential nothing is sent, and one is asked for")
    func noCredential() {
        let bench = Bench(comesUp: false, password: nil)
        let client = bench.client()
        bench.send(request("GET", "a"), from: client)
        bench.router.didConnect(bench.shared)
        bench.act()
        #expect(bench.handedOver(bench.shared) == "")
        #expect(bench.refreshes.count == 1)
        bench.publish(Bench.secret)
        #expect(bench.attempts == 2)
    }

    @Test("No event says a secret")
    func eventsKeepSecrets() {
        let bench = Bench(comesUp: false)
        let client = bench.client()
        bench.send(request("AUTH", "default", "CLIENTSECRET") + request("GET", "a"), from: client)
        bench.router.didConnect(bench.shared)
        _ = bench.handedOver(bench.shared)
        bench.reply("-ERR no\u{1}\r\n", on: bench.shared)
        let text = bench.events.map { "\($0)" }.joined()
        #expect(text.contains("ERR no?"))
        #expect(!text.contains(Bench.secret) && !text.contains("CLIENTSECRET"))
    }

    @Test("Pauses between attempts grow, keep under the maximum, and end when one succeeds")
    func backoff() {
        let bench = Bench(comesUp: false)
        let client = bench.client()
        bench.send(request("BLPOP", "a", "0"), from: client)
        var pauses: [Double] = []
        var last = bench.seconds
        while bench.seconds < 5.5 {
            for upstream in bench.connections {
                pauses.append(bench.seconds - last)
                last = bench.seconds
                bench.fail(upstream)
            }
            bench.advance(0.001)
        }
        let waits = pauses.dropFirst()
        #expect(waits.count >= 5)
        #expect(waits.allSatisfy { $0 >= 0.024 && $0 <= 2.002 })
        #expect(waits.last ?? 0 > 0.3)
    }

    @Test("A server that takes the login and hangs up is not called in a tight loop")
    func hangsUp() {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("GET", "a"), from: client)
        bench.lose(bench.shared)
        #expect(bench.attempts == 1)
        bench.advance(0.05)
        #expect(bench.attempts == 2)
    }

    @Test("A login without an answer is given up")
    func silentServer() {
        let bench = Bench(comesUp: false)
        bench.router.warm(route: 0)
        bench.act()
        bench.router.didConnect(bench.shared)
        _ = bench.handedOver(bench.shared)
        bench.advance(5.1)
        #expect(bench.connections.isEmpty)
    }

    @Test("What waits for a connection is bounded: its client is not read on")
    func bounded() {
        var limits = Limits()
        limits.upstreamBuffer = 1_000
        limits.initialWindow = 10_000
        let bench = Bench(limits: limits, comesUp: false)
        let client = bench.client()
        bench.send(request("SET", "a", String(repeating: "x", count: 990)), from: client)
        let wantsMore = client.pointee.wantsInput
        #expect(!wantsMore)
        bench.bringUp(bench.shared)
        _ = bench.handedOver(bench.shared)
        let wantsAgain = client.pointee.wantsInput
        #expect(wantsAgain)
    }
}

extension Bench {
    /// The attempt fails.
    func fail(_ upstream: UpstreamRef) {
        forget(upstream)
        router.didFailToConnect(upstream, reason: "refused by the test")
        act()
    }
}
