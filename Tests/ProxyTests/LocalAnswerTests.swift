// Commands that the proxy answers because it stands in the server's place.

import Glibc
import Proxy
import Testing

@Suite("Answers of the proxy's own")
struct LocalAnswerTests {
    static let wrongPassword = "-WRONGPASS invalid username-password pair or user is disabled.\r\n"

    @Test(
        "AUTH is answered as by a server whose default user has no password",
        arguments: [
            (request("AUTH", "default", "SECRET"), "+OK\r\n"),
            (request("auth", "bob", "SECRET"), wrongPassword),
            (request("AUTH"), "-ERR wrong number of arguments for 'auth' command\r\n"),
            (request("AUTH", "a", "SECRET", "b"), "-ERR syntax error\r\n"),
            (
                request("AUTH", "SECRET"),
                "-ERR AUTH <password> called without any password configured for the default user. "
                    + "Are you sure your configuration is correct?\r\n"
            ),
            ("AUTH default SECRET\r\n", "+OK\r\n"),
        ]
    )
    func auth(request: String, reply: String) {
        let bench = Bench()
        let client = bench.client()
        bench.send(request, from: client)
        #expect(bench.received(by: client) == reply)
        #expect(bench.attempts == 0, "AUTH needs no connection")
        #expect(!bench.remembers("SECRET"))
    }

    @Test(
        "A refused HELLO is answered here",
        arguments: [
            (request("HELLO", "4"), "-NOPROTO unsupported protocol version\r\n"),
            (
                request("HELLO", "x"),
                "-ERR Protocol version is not an integer or out of range\r\n"
            ),
            (request("HELLO", "3", "AUTH", "bob", "SECRET"), wrongPassword),
            (request("HELLO", "3", "SETNAME"), "-ERR Syntax error in HELLO option 'SETNAME'\r\n"),
            (
                request("HELLO", "3", "SETNAME", "a b"),
                "-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
            ),
        ]
    )
    func refusedHello(request: String, reply: String) {
        let bench = Bench()
        let client = bench.client()
        bench.send(request, from: client)
        #expect(bench.received(by: client) == reply)
        #expect(!bench.isClosed(client))
        #expect(!bench.remembers("SECRET"))
    }

    @Test("HELLO waits for a connection of its protocol and gives the session's number as its id")
    func hello() throws {
        let bench = Bench(comesUp: false)
        _ = bench.client()
        let client = bench.client()
        bench.send(request("HELLO", "3", "AUTH", "default", "SECRET"), from: client)
        #expect(bench.received(by: client) == "")
        let upstream = try #require(bench.connections.first)
        let version = upstream.pointee.protocolVersion
        #expect(version == 3)
        bench.bringUp(upstream, version: 3)
        #expect(bench.received(by: client) == "%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:2\r\n")
        #expect(bench.handedOver(upstream) == "")
        bench.send(request("GET", "a"), from: client)
        #expect(bench.handedOver(upstream) == request("GET", "a"))
        #expect(!bench.remembers("SECRET"))
    }

    @Test("Inside a transaction a login is answered in its place, and the server aborts")
    func authInTransaction() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(
            request("MULTI") + request("AUTH", "default", "SECRET") + request("EXEC"),
            from: client
        )
        let own = try #require(bench.connections.last)
        #expect(bench.handedOver(own) == request("MULTI"))
        bench.reply("+OK\r\n", on: own)
        #expect(bench.handedOver(own) == request("AUTH"))
        bench.reply("-ERR wrong number of ", on: own)
        bench.reply("arguments for 'auth' command\r\n", on: own)
        #expect(bench.handedOver(own) == request("EXEC"))
        bench.reply("-EXECABORT …\r\n", on: own)
        let error = "-ERR redis-auth-proxy: AUTH and HELLO have no place in a transaction\r\n"
        #expect(bench.received(by: client) == "+OK\r\n" + error + "-EXECABORT …\r\n")
        #expect(!bench.remembers("SECRET"))
    }

    @Test("On an own connection HELLO goes to the server, without its login")
    func helloOnOwnConnection() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("WATCH", "k"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n", on: own)
        bench.send(
            request("HELLO", "3", "AUTH", "default", "SECRET", "SETNAME", "n"),
            from: client
        )
        #expect(bench.handedOver(own) == request("HELLO", "3", "SETNAME", "n"))
        #expect(!bench.remembers("SECRET"))
    }

    @Test("An answer of our own waits for the replies that are owed before it")
    func order() {
        let bench = Bench()
        let client = bench.client()
        bench.send(
            request("GET", "a") + request("AUTH", "default", "SECRET") + request("GET", "b"),
            from: client
        )
        #expect(bench.received(by: client) == "")
        #expect(bench.handedOver(bench.shared) == request("GET", "a"))
        #expect(!bench.remembers("SECRET"), "what waits has left the buffer that all share")
        bench.reply(bulk("a"), on: bench.shared)
        #expect(bench.received(by: client) == bulk("a") + "+OK\r\n")
        #expect(bench.handedOver(bench.shared) == request("GET", "b"))
    }

    @Test("A login that is too long is refused behind the replies that are owed")
    func longLogin() {
        var limits = Limits()
        limits.sharedRequest = 100
        let bench = Bench(limits: limits)
        let client = bench.client()
        bench.send(
            request("GET", "a") + "*3\r\n$4\r\nAUTH\r\n$7\r\ndefault\r\n$5000\r\nSECRET",
            from: client
        )
        #expect(bench.received(by: client) == "")
        _ = bench.handedOver(bench.shared)
        bench.reply(bulk("a"), on: bench.shared)
        #expect(
            bench.received(by: client) == bulk("a")
                + "-ERR Protocol error: AUTH or HELLO is too long\r\n"
        )
        #expect(bench.reason(client) == .violation)
        #expect(!bench.remembers("SECRET"))
    }

    @Test("A login that was never completed is not kept by anybody")
    func partOfLogin() {
        let bench = Bench()
        let client = bench.client()
        bench.send("*3\r\n$4\r\nAUTH\r\n$7\r\ndefault\r\n$50\r\nSECRET", from: client)
        #expect(!bench.remembers("SECRET"))
        bench.end(client)
        #expect(bench.reason(client) == .clientClosed)
    }

    @Test("QUIT is answered behind what is owed, and nothing behind it runs")
    func quit() {
        let bench = Bench()
        let client = bench.client()
        bench.send(
            request("GET", "a") + request("QUIT") + request("SET", "x", "1")
                + request("AUTH", "SECRET"),
            from: client
        )
        #expect(bench.handedOver(bench.shared) == request("GET", "a"))
        bench.reply(bulk("a"), on: bench.shared)
        #expect(bench.received(by: client) == bulk("a") + "+OK\r\n")
        #expect(bench.reason(client) == .quit)
        #expect(bench.handedOver(bench.shared) == "")
    }

    @Test("What is dropped behind a QUIT is wiped, for it may be a login")
    func secretBehindQuit() {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("QUIT") + request("AUTH", "SECRET"), from: client)
        #expect(!bench.remembers("SECRET"))
    }

    @Test("RESET in the shared lane brings back RESP2")
    func resetShared() throws {
        let bench = Bench(comesUp: false)
        let client = bench.client()
        bench.send(request("HELLO", "3"), from: client)
        bench.bringUp(try #require(bench.connections.first), version: 3)
        _ = bench.received(by: client)
        bench.send(request("RESET") + request("GET", "a"), from: client)
        #expect(bench.received(by: client) == "+RESET\r\n")
        let upstream = try #require(bench.connections.last)
        let version = upstream.pointee.protocolVersion
        #expect(version == 2)
    }

    /// The login of the proxy's own, as it stands behind RESET.
    private let login =
        "*5\r\n$5\r\nHELLO\r\n$1\r\n2\r\n$4\r\nAUTH\r\n$3\r\napp\r\n$9\r\nPROXYPASS\r\n"

    @Test("RESET goes to an own connection, which is logged in again and given back")
    func resetOwn() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("WATCH", "k") + request("RESET") + request("GET", "a"), from: client)
        let own = try #require(bench.connections.last)
        #expect(bench.handedOver(own) == request("WATCH", "k"))
        bench.reply("+OK\r\n", on: own)
        #expect(bench.handedOver(own) == request("RESET"))
        bench.reply("+RESET\r\n", on: own)
        #expect(bench.received(by: client) == "+OK\r\n+RESET\r\n")
        #expect(bench.handedOver(own) == login)
        bench.reply(Bench.helloReply, on: own)
        #expect(bench.handedOver(own) == request("GET", "a"))
        bench.reply(bulk("1"), on: own)
        #expect(bench.received(by: client) == bulk("1"))
        #expect(bench.router.pinnedCount == 0)
        #expect(bench.router.spare.joined().contains(own))
    }

    @Test("A session that knows its connection's id keeps the connection behind RESET")
    func resetIdentified() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("CLIENT", "ID") + request("RESET"), from: client)
        let own = try #require(bench.connections.last)
        #expect(bench.handedOver(own) == request("CLIENT", "ID"))
        bench.reply(":77\r\n", on: own)
        #expect(bench.handedOver(own) == request("RESET"))
        bench.reply("+RESET\r\n", on: own)
        #expect(bench.handedOver(own) == login)
        bench.reply(Bench.helloReply, on: own)
        #expect(bench.received(by: client) == ":77\r\n+RESET\r\n")
        bench.send(request("CLIENT", "ID"), from: client)
        #expect(bench.handedOver(own) == request("CLIENT", "ID"))
        #expect(bench.router.pinnedCount == 1)
    }

    @Test("A session that knows its connection's id ends if the login behind RESET is refused")
    func resetRefused() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("CLIENT", "ID") + request("RESET") + request("GET", "a"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply(":77\r\n", on: own)
        _ = bench.handedOver(own)
        bench.reply("+RESET\r\n", on: own)
        #expect(bench.handedOver(own) == login)
        bench.reply("-WRONGPASS no\r\n", on: own)
        #expect(
            bench.received(by: client)
                == ":77\r\n+RESET\r\n"
                + String(decoding: ClientError.loginRefused.reply, as: UTF8.self))
        #expect(bench.reason(client) == .upstreamLost)
    }

    @Test("Not one byte of a command goes out between RESET and the login behind it")
    func resetHoldsBack() throws {
        let bench = Bench(isDedicated: true)
        let client = bench.client()
        bench.send(request("GET", "a"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply(bulk("1"), on: own)
        bench.send(request("RESET") + request("GET", "b"), from: client)
        #expect(bench.handedOver(own) == request("RESET"))
        bench.reply("+RESET\r\n", on: own)
        bench.send(request("GET", "c"), from: client)
        #expect(bench.handedOver(own) == login)
        #expect(bench.handedOver(own) == "")
        bench.reply(Bench.helloReply, on: own)
        #expect(bench.handedOver(own) == request("GET", "b") + request("GET", "c"))
    }

    @Test("Blank lines and empty requests get no answer")
    func nothing() {
        let bench = Bench()
        let client = bench.client()
        bench.send("\r\n*0\r\n*-1\r\n   \r\n" + request("GET", "a"), from: client)
        #expect(bench.handedOver(bench.shared) == request("GET", "a"))
        bench.reply(bulk("a"), on: bench.shared)
        #expect(bench.received(by: client) == bulk("a"))
    }

    @Test("An inline command goes on as the request that it stands for")
    func inline() {
        let bench = Bench()
        let client = bench.client()
        bench.send("SET \"a b\" 'c'\r\nGET \"a b\"\n", from: client)
        #expect(
            bench.handedOver(bench.shared) == request("SET", "a b", "c") + request("GET", "a b")
        )
    }

    @Test("What is no request is answered behind what is owed, and ends the session")
    func violation() {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("GET", "a") + "*1\r\n!", from: client)
        bench.send("x\r\n" + request("SET", "b", "c"), from: client)
        #expect(bench.handedOver(bench.shared) == request("GET", "a"))
        bench.reply(bulk("a"), on: bench.shared)
        #expect(
            bench.received(by: client) == bulk("a")
                + "-ERR Protocol error: expected '$', got '!'\r\n"
        )
        #expect(bench.reason(client) == .violation)
    }
}

extension Bench {
    /// Whether the buffer that all clients' bytes arrive in still holds this text.
    func remembers(_ text: String) -> Bool {
        String(decoding: router.requestBuffer, as: UTF8.self).contains(text)
    }
}
