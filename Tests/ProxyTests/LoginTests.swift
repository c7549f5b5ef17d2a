// What a session may do before its client has logged in, and what its login leads to.

import Identity
import Proxy
import Testing

@Suite("A session that has to log in")
struct LoginTests {
    private let refused = "-NOAUTH Authentication required.\r\n"
    private let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n"

    private func text(_ error: ClientError) -> String {
        String(decoding: error.reply, as: UTF8.self)
    }

    private func text(_ secret: Secret) -> String {
        secret.withBytes { String(decoding: $0, as: UTF8.self) }
    }

    /// Two routes, of users 0 and 1; the second is dedicated if `isDedicated`.
    private func bench(isDedicated: Bool = false) -> Bench {
        Bench(routes: [
            Route(user: UserIndex(0), isDedicated: false),
            Route(user: UserIndex(1), isDedicated: isDedicated),
        ])
    }

    @Test(
        "gets a server's words to everything else, and not a byte of it goes upstream",
        arguments: [
            "GET k", "MULTI", "SUBSCRIBE a", "SELECT 1", "CLIENT SETNAME n", "CLIENT REPLY OFF",
            "MONITOR", "BLPOP k 0", "SYNC", "RESET now", "COMMAND",
        ]
    )
    func refuses(line: String) {
        let bench = bench()
        let client = bench.stranger()
        bench.send(request(line.split(separator: " ").map(String.init)), from: client)
        bench.send(line + "\r\n", from: client)
        #expect(bench.received(by: client) == refused + refused)
        #expect(bench.connections.isEmpty)
        #expect(bench.logins.isEmpty)
    }

    @Test("may leave, start afresh, and say nothing")
    func allowed() {
        let bench = bench()
        let client = bench.stranger()
        bench.send(
            "\r\n*0\r\n" + request("RESET") + request("QUIT") + request("GET", "k"), from: client)
        #expect(bench.received(by: client) == "+RESET\r\n+OK\r\n")
        #expect(bench.reason(client) == .quit)
        #expect(bench.connections.isEmpty)
    }

    @Test("is told what HELLO needs, and what is wrong with it")
    func hello() {
        let bench = bench()
        let client = bench.stranger()
        bench.send(request("HELLO") + request("HELLO", "3"), from: client)
        bench.send(request("HELLO", "4", "AUTH", "a", "b"), from: client)
        #expect(
            bench.received(by: client)
                == text(.helloNotLoggedIn) + text(.helloNotLoggedIn) + text(.protocolVersion))
        #expect(bench.logins.isEmpty)
    }

    @Test("waits for the verdict on its AUTH, then runs what it sent behind it, in order")
    func auth() throws {
        let bench = bench()
        let client = bench.stranger()
        bench.send(
            request("GET", "a") + request("AUTH", "alice", "SECRET") + request("GET", "b")
                + request("GET", "c"), from: client)
        let attempt = try #require(bench.logins.first)
        #expect(attempt.name == Array("alice".utf8) && text(attempt.secret) == "SECRET")
        #expect(!bench.remembers("SECRET"))
        #expect(bench.received(by: client) == refused)
        #expect(bench.connections.isEmpty)
        bench.judge(attempt, .accepted(route: 1))
        #expect(bench.received(by: client) == "+OK\r\n")
        let shared = try #require(bench.connections.first)
        let user = shared.pointee.user
        #expect(user == UserIndex(1))
        #expect(bench.handedOver(shared) == request("GET", "b") + request("GET", "c"))
    }

    @Test("presents one argument as the password of default, inline too")
    func oneArgument() throws {
        let bench = bench()
        let client = bench.stranger()
        bench.send("AUTH \"SEC RET\"\r\n", from: client)
        let attempt = try #require(bench.logins.first)
        #expect(attempt.name == Array("default".utf8) && text(attempt.secret) == "SEC RET")
        #expect(!bench.remembers("SEC RET"))
    }

    @Test("stays outside when it is refused, and may try again")
    func wrongPassword() throws {
        let bench = bench()
        let client = bench.stranger()
        bench.send(request("AUTH", "alice", "x") + request("GET", "a"), from: client)
        bench.judge(bench.logins[0], .refused)
        #expect(bench.received(by: client) == wrong + refused)
        bench.send(request("AUTH", "alice", "y"), from: client)
        bench.judge(bench.logins[1], .accepted(route: 0))
        #expect(bench.received(by: client) == "+OK\r\n")
    }

    @Test("gets HELLO's answer in its protocol once it is let in")
    func helloAuth() throws {
        let bench = Bench(
            comesUp: false,
            routes: [Route(user: UserIndex(0), isDedicated: false)])
        let client = bench.stranger()
        bench.send(
            request("HELLO", "3", "AUTH", "alice", "SECRET", "SETNAME", "me")
                + request("CLIENT", "GETNAME"), from: client)
        bench.judge(try #require(bench.logins.first), .accepted(route: 0))
        let shared = try #require(bench.connections.first)
        bench.bringUp(shared, version: 3)
        #expect(bench.received(by: client).hasPrefix("%2\r\n$5\r\nproto\r\n:3\r\n"))
        #expect(!bench.remembers("SECRET"))
    }

    @Test("is closed when it takes too long, also after wrong tries")
    func deadline() {
        let bench = bench()
        let (first, second) = (bench.stranger(), bench.stranger())
        bench.send(request("AUTH", "a", "b"), from: second)
        bench.advance(9.9)
        #expect(!bench.isClosed(first) && !bench.isClosed(second))
        bench.advance(0.2)
        #expect(bench.reason(first) == .loginDeadline && bench.reason(second) == .loginDeadline)
        bench.judge(bench.logins[0], .accepted(route: 0))
        #expect(bench.router.awaitingCount == 0)
    }

    @Test("may send no more and nothing bigger than a server takes before a login")
    func limits() {
        for (bytes, violation) in [
            ("*11\r\n", "unauthenticated multibulk length"),
            ("*2\r\n$3\r\nGET\r\n$16385\r\n", "unauthenticated bulk length"),
            ("*1\r\n$999999999\r\n", "unauthenticated bulk length"),
        ] {
            for cut in 0...bytes.utf8.count {
                let bench = bench()
                let client = bench.stranger()
                let parts = Array(bytes.utf8)
                bench.send(Array(parts[..<cut]), from: client)
                if cut < parts.count { bench.send(Array(parts[cut...]), from: client) }
                #expect(
                    bench.received(by: client) == "-ERR Protocol error: \(violation)\r\n")
                #expect(bench.reason(client) == .violation)
            }
        }
        let bench = bench()
        let client = bench.stranger()
        let long = String(repeating: "x", count: 16_384)
        bench.send(request(Array(repeating: long, count: 10)), from: client)
        #expect(bench.received(by: client) == refused)
    }

    @Test(
        "is outside again behind RESET, whatever it sent in the same breath",
        arguments: [false, true])
    func reset(isDedicated: Bool) throws {
        let bench = bench(isDedicated: isDedicated)
        let client = bench.stranger()
        bench.send(request("AUTH", "alice", "x"), from: client)
        bench.judge(bench.logins[0], .accepted(route: 1))
        bench.send(request("GET", "a"), from: client)
        let upstream = try #require(bench.connections.first)
        #expect(bench.handedOver(upstream) == request("GET", "a"))
        bench.reply(bulk("v"), on: upstream)
        bench.send(request("RESET") + request("GET", "b"), from: client)
        #expect(bench.received(by: client) == "+OK\r\n" + bulk("v") + "+RESET\r\n" + refused)
        #expect(bench.handedOver(upstream) == "")
        #expect(bench.forgotten == [client])
        bench.advance(10.1)
        #expect(bench.reason(client) == .loginDeadline)
    }

    @Test("is outside again behind a RESET that the server answers, as a subscriber and in a relay")
    func resetUpstream() throws {
        for first in [request("SUBSCRIBE", "a"), request("MONITOR")] {
            let bench = bench()
            let client = bench.stranger()
            bench.send(request("HELLO", "3", "AUTH", "alice", "x"), from: client)
            bench.judge(bench.logins[0], .accepted(route: 1))
            bench.send(first, from: client)
            let own = try #require(bench.connections.last)
            _ = bench.handedOver(own)
            bench.reply(
                first == request("MONITOR")
                    ? "+OK\r\n" : ">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", on: own)
            _ = bench.received(by: client)
            bench.send(request("RESET") + request("GET", "b"), from: client)
            let sent = bench.handedOver(own)
            let word = sent.split(separator: "\r\n").last { $0.hasPrefix("redis-auth-proxy-") }
            bench.reply(
                "+RESET\r\n" + (word.map { "-ERR unknown command '\($0)', \r\n" } ?? ""), on: own)
            #expect(bench.received(by: client) == "+RESET\r\n" + refused)
            #expect(!bench.connections.contains(own))
            #expect(bench.forgotten == [client])
        }
    }

    @Test("changes its user with another login, unless something ties it to its connection")
    func anotherLogin() throws {
        let bench = bench()
        let client = bench.client(mayLogIn: true)
        bench.send(request("GET", "a"), from: client)
        let first = try #require(bench.connections.first)
        _ = bench.handedOver(first)
        bench.send(request("AUTH", "alice", "x") + request("GET", "b"), from: client)
        #expect(bench.logins.isEmpty, "waits for the reply that is owed")
        bench.reply(bulk("v"), on: first)
        bench.judge(try #require(bench.logins.first), .accepted(route: 1))
        #expect(bench.received(by: client) == bulk("v") + "+OK\r\n")
        let second = try #require(bench.connections.last)
        #expect(second != first)
        #expect(bench.handedOver(second) == request("GET", "b"))
        bench.reply(bulk("w"), on: second)

        bench.send(request("WATCH", "k"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n", on: own)
        _ = bench.received(by: client)
        bench.send(request("AUTH", "bob", "x"), from: client)
        bench.judge(bench.logins[1], .accepted(route: 0))
        #expect(bench.handedOver(own) == request("AUTH"))
        bench.reply("-ERR wrong number\r\n", on: own)
        #expect(bench.received(by: client) == text(.loginWhileTied))
    }

    @Test("goes back to whom it was served as, behind RESET")
    func home() throws {
        let bench = bench()
        let client = bench.client(mayLogIn: true)
        bench.send(request("AUTH", "alice", "x"), from: client)
        bench.judge(bench.logins[0], .accepted(route: 1))
        bench.send(request("RESET") + request("GET", "a"), from: client)
        #expect(bench.received(by: client) == "+OK\r\n+RESET\r\n")
        let shared = try #require(bench.connections.last)
        let user = shared.pointee.user
        #expect(user == UserIndex(0))
    }

    @Test("A verdict on a client that is gone changes nothing")
    func late() {
        let bench = bench()
        let client = bench.stranger()
        bench.send(request("AUTH", "alice", "x"), from: client)
        bench.router.didLose(client)
        bench.act()
        bench.judge(bench.logins[0], .accepted(route: 1))
        #expect(bench.connections.isEmpty)
    }

    @Test("A client that ends behind its login still gets the answers")
    func halfClose() throws {
        let bench = bench()
        let client = bench.stranger()
        bench.send(request("AUTH", "alice", "x") + request("GET", "a"), from: client)
        bench.end(client)
        bench.judge(bench.logins[0], .accepted(route: 0))
        let shared = try #require(bench.connections.last)
        #expect(bench.handedOver(shared) == request("GET", "a"))
        bench.reply(bulk("v"), on: shared)
        #expect(bench.received(by: client) == "+OK\r\n" + bulk("v"))
        #expect(bench.isClosed(client))
    }

    @Test("Where any login is accepted, it changes nothing")
    func anyLogin() throws {
        let bench = Bench(routes: [
            Route(user: UserIndex(0), isDedicated: false, acceptsAnyLogin: true)
        ])
        let client = bench.client()
        bench.send(
            request("AUTH", "x") + request("AUTH", "a", "b") + request("AUTH", "a", "b", "c"),
            from: client)
        #expect(bench.received(by: client) == "+OK\r\n+OK\r\n" + text(.syntax))
        #expect(bench.logins.isEmpty)
    }

    @Test("A name that was set in a transaction is the client's")
    func nameInTransaction() throws {
        let bench = Bench(
            routes: [Route(user: UserIndex(0), isDedicated: false, principal: "any")])
        let client = bench.client()
        bench.send(request("CLIENT", "GETNAME"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply(bulk("n"), on: own)
        #expect(bench.received(by: client) == bulk("n"))
    }

    @Test("A connection is called after the principal, and a client that has no name has none")
    func names() throws {
        let bench = Bench(
            comesUp: false,
            routes: [Route(user: UserIndex(0), isDedicated: false, principal: "uid: 7")])
        let client = bench.client()
        bench.send(request("CLIENT", "GETNAME"), from: client)
        let own = try #require(bench.connections.last)
        bench.router.didConnect(own)
        #expect(bench.handedOver(own).hasSuffix("$7\r\nSETNAME\r\n$7\r\n:uid:_7\r\n"))
        bench.reply(Bench.helloReply, on: own)
        #expect(bench.handedOver(own) == request("CLIENT", "GETNAME"))
        bench.reply(bulk(":uid:_7"), on: own)
        #expect(bench.received(by: client) == "$-1\r\n")
    }
}
