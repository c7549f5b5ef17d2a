// Database, protocol, name, library and reply mode: kept by the proxy, agreed to by the server.

import Identity
import Proxy
import Testing

private let ok = "+OK\r\n"
private let noPermission = "-NOPERM no\r\n"

@Suite("The state of a session") struct SessionStateTests {
    /// Sends a request that the server has to agree to, and gives the server's answer to it.
    @discardableResult
    private func ask(
        _ bench: Bench,
        _ client: SessionRef,
        _ words: [String],
        _ answer: String,
        sourceLocation: SourceLocation = #_sourceLocation
    ) throws -> UpstreamRef {
        bench.send(request(words), from: client)
        let own = try #require(bench.connections.last, sourceLocation: sourceLocation)
        #expect(bench.handedOver(own).hasSuffix(request(words)), sourceLocation: sourceLocation)
        bench.reply(answer, on: own)
        return own
    }

    // MARK: SELECT

    @Test("The first SELECT of a user is the server's to answer, the next are answered for it")
    func selectIsMirrored() throws {
        let bench = Bench()
        let (first, second) = (bench.client(), bench.client())
        try ask(bench, first, ["SELECT", "5"], ok)
        #expect(bench.received(by: first) == ok)
        #expect(bench.router.pinnedCount == 0)
        bench.send(request("SELECT", "5"), from: second)
        #expect(bench.received(by: second) == ok)
        #expect(bench.attempts == 1)
    }

    @Test("Sessions share a connection with those of their database and nobody else")
    func databasesAreApart() throws {
        let bench = Bench()
        let (first, second) = (bench.client(), bench.client())
        bench.send(request("GET", "k"), from: second)
        _ = bench.handedOver(bench.shared)
        bench.reply(bulk("0"), on: bench.shared)
        try ask(bench, first, ["SELECT", "5"], ok)
        bench.send(request("GET", "k"), from: first)
        let other = try #require(bench.connections.last)
        #expect(other.pointee.database == 5)
        #expect(bench.handedOver(other) == request("GET", "k"))
        bench.reply(bulk("5"), on: other)
        #expect(bench.received(by: first) == ok + bulk("5"))
        bench.send(request("GET", "k"), from: second)
        #expect(bench.handedOver(bench.shared) == request("GET", "k"))
        #expect(bench.handedOver(other) == "")
    }

    @Test("The SELECT of a connection goes with its login, and before it is answered nothing does")
    func selectAtLogin() throws {
        let bench = Bench(comesUp: false)
        let client = bench.client()
        bench.send(request("SELECT", "5"), from: client)
        var own = try #require(bench.connections.last)
        bench.bringUp(own)
        _ = bench.handedOver(own)
        bench.reply(ok, on: own)
        bench.send(request("GET", "k"), from: client)
        own = try #require(bench.connections.last)
        bench.router.didConnect(own)
        let login = String(decoding: bench.router.outgoing(of: own), as: UTF8.self)
        #expect(login.hasPrefix("*5\r\n$5\r\nHELLO\r\n") && login.hasSuffix(request("SELECT", "5")))
        bench.router.didHandOver(own)
        for part in ["*4\r\n$5\r\nproto\r\n:2\r\n$2\r\nid", "\r\n:77\r\n", "+O"] {
            bench.reply(part, on: own)
            #expect(bench.handedOver(own) == "")
        }
        bench.reply("K\r\n", on: own)
        #expect(bench.handedOver(own) == request("GET", "k"))
    }

    @Test("A database that is refused behind the login is said, and no command goes out")
    func databaseRefusedAtLogin() throws {
        let bench = Bench(comesUp: false)
        let client = bench.client()
        bench.send(request("SELECT", "5") + request("GET", "k"), from: client)
        let asked = try #require(bench.connections.last)
        bench.bringUp(asked)
        _ = bench.handedOver(asked)
        bench.reply(ok, on: asked)
        let shared = try #require(bench.connections.last)
        bench.router.didConnect(shared)
        bench.router.didHandOver(shared)
        bench.reply(Bench.helloReply + noPermission, on: shared)
        let refused = bench.events.contains {
            if case .databaseRefused(let facts, "NOPERM no") = $0 {
                facts.database == 5
            } else {
                false
            }
        }
        #expect(refused)
        for _ in 0..<600 where !bench.isClosed(client) && bench.received(by: client) == "" {
            bench.advance(0.01)
            #expect(bench.handedOver(shared) == "")
        }
        #expect(bench.seconds > 5.5)
    }

    @Test(
        "What is refused changes nothing and is asked again",
        arguments: [
            ["SELECT", "5"], ["SELECT", "99"], ["CLIENT", "SETNAME", "n"], ["CLIENT", "GETNAME"],
            ["CLIENT", "SETINFO", "LIB-NAME", "x"],
        ])
    func refusal(words: [String]) throws {
        let bench = Bench()
        let client = bench.client()
        for _ in 0..<2 {
            try ask(bench, client, words, noPermission)
            #expect(bench.received(by: client) == noPermission)
            #expect(bench.router.pinnedCount == 0)
        }
        bench.send(request("GET", "k"), from: client)
        #expect(bench.handedOver(bench.shared) == request("GET", "k"))
    }

    @Test(
        "A SELECT that is no index of a database is left to the server",
        arguments: [
            ["SELECT"], ["SELECT", "x"], ["SELECT", "-1"], ["SELECT", "01"], ["SELECT", "1", "2"],
        ])
    func oddSelect(words: [String]) throws {
        let bench = Bench()
        let client = bench.client()
        try ask(bench, client, ["SELECT", "1"], ok)
        try ask(bench, client, words, "-ERR x\r\n")
        #expect(bench.received(by: client) == ok + "-ERR x\r\n")
        #expect(bench.router.pinnedCount == 0)
    }

    @Test("SELECT waits for the replies that are owed, and what follows for SELECT")
    func selectIsInOrder() throws {
        let bench = Bench()
        let client = bench.client()
        try ask(bench, client, ["SELECT", "5"], ok)
        try ask(bench, client, ["SELECT", "0"], ok)
        _ = bench.received(by: client)
        bench.send(request("GET", "a") + request("SELECT", "5") + request("GET", "b"), from: client)
        #expect(bench.handedOver(bench.shared) == request("GET", "a"))
        bench.reply(bulk("a"), on: bench.shared)
        #expect(bench.received(by: client) == bulk("a") + ok)
        #expect(bench.handedOver(bench.shared) == "")
        let other = try #require(bench.connections.last)
        #expect(bench.handedOver(other) == request("GET", "b"))
    }

    @Test("Behind a WATCH the connection itself changes its database, and is given back there")
    func selectBehindWatch() throws {
        let bench = Bench()
        let client = bench.client()
        let own = try ask(bench, client, ["WATCH", "k"], ok)
        try ask(bench, client, ["SELECT", "3"], ok)
        #expect(bench.router.pinnedCount == 1)
        try ask(bench, client, ["UNWATCH"], ok)
        #expect(bench.router.pinnedCount == 0)
        #expect(own.pointee.database == 3)
        // The next that needs one in that database gets it, and one in database 0 does not.
        let other = bench.client()
        bench.send(request("WATCH", "k"), from: other)
        #expect(bench.handedOver(own) == "")
        bench.send(request("WATCH", "k"), from: client)
        #expect(bench.handedOver(own) == request("WATCH", "k"))
    }

    @Test("Shared connections of a database that nobody uses any more are closed")
    func unusedDatabase() throws {
        let bench = Bench()
        let client = bench.client()
        try ask(bench, client, ["SELECT", "5"], ok)
        bench.send(request("GET", "k"), from: client)
        let shared = try #require(bench.connections.last)
        _ = bench.handedOver(shared)
        bench.reply(bulk("x"), on: shared)
        bench.router.trim()
        bench.router.trim()
        bench.act()
        #expect(bench.connections.contains(shared))
        bench.end(client)
        bench.flush()
        bench.router.trim()
        bench.router.trim()
        bench.act()
        #expect(!bench.connections.contains(shared))
    }

    // MARK: Names

    @Test("A name is the server's to judge once, and then kept by the proxy")
    func nameIsMirrored() throws {
        let bench = Bench()
        let client = bench.client()
        try ask(bench, client, ["CLIENT", "SETNAME", "one"], ok)
        try ask(bench, client, ["CLIENT", "GETNAME"], bulk("one"))
        _ = bench.received(by: client)
        bench.send(
            request("CLIENT", "SETNAME", "two") + request("client", "getname")
                + request("CLIENT", "SETNAME", "") + request("CLIENT", "GETNAME"),
            from: client
        )
        #expect(bench.received(by: client) == ok + bulk("two") + ok + "$-1\r\n")
        #expect(bench.attempts == 1)
    }

    @Test("What a client says of its library is kept, and told to the connection that it uses next")
    func libraryIsMirrored() throws {
        let bench = Bench()
        let (first, second) = (bench.client(), bench.client())
        let own = try ask(bench, first, ["CLIENT", "SETINFO", "LIB-NAME", "one"], ok)
        bench.send(
            request("CLIENT", "SETINFO", "LIB-NAME", "two")
                + request("client", "setinfo", "lib-ver", "1.0"),
            from: second
        )
        #expect(bench.received(by: second) == ok + ok)
        #expect(bench.router.pinnedCount == 0)
        bench.send(request("WATCH", "k"), from: second)
        #expect(
            bench.handedOver(own)
                == request("CLIENT", "SETINFO", "LIB-NAME", "two")
                + request("CLIENT", "SETINFO", "LIB-VER", "1.0") + request("WATCH", "k"))
        // What is malformed is the server's to refuse.
        try ask(bench, first, ["CLIENT", "SETINFO", "LIB-NAME", "a b"], ok + "-ERR x\r\n")
        #expect(bench.received(by: first) == ok + "-ERR x\r\n")
    }

    @Test("A new connection that is told something first is made once")
    func freshWithPrelude() throws {
        let bench = Bench()
        let (first, second) = (bench.client(), bench.client())
        let spare = try ask(bench, first, ["CLIENT", "SETINFO", "LIB-NAME", "one"], ok)
        bench.send(request("WATCH", "k"), from: second)
        _ = bench.handedOver(spare)
        let attempts = bench.attempts
        bench.send(request("WATCH", "k"), from: first)
        #expect(bench.attempts == attempts + 1)
        let own = try #require(bench.connections.last)
        #expect(
            bench.handedOver(own)
                == request("CLIENT", "SETINFO", "LIB-NAME", "one") + request("WATCH", "k"))
    }

    @Test("A connection of a session's own is told its name, in a way that every user may")
    func ownConnectionGetsName() throws {
        let bench = Bench()
        let (first, second) = (bench.client(), bench.client())
        let own = try ask(bench, first, ["CLIENT", "SETNAME", "one"], ok)
        _ = bench.received(by: first)
        bench.send(request("WATCH", "k"), from: second)
        #expect(
            bench.handedOver(own) == request("HELLO", "2", "SETNAME", "") + request("WATCH", "k"))
        bench.reply(Bench.helloReply + ok, on: own)
        #expect(bench.received(by: second) == ok)
        bench.send(request("UNWATCH"), from: second)
        _ = bench.handedOver(own)
        bench.reply(ok, on: own)
        bench.send(request("WATCH", "k"), from: first)
        #expect(
            bench.handedOver(own) == request("HELLO", "2", "SETNAME", "one") + request("WATCH", "k")
        )
    }

    @Test("A connection that cannot be told whose it is serves nobody")
    func refusedPrelude() throws {
        let bench = Bench()
        let (first, second) = (bench.client(), bench.client())
        let own = try ask(bench, first, ["CLIENT", "SETNAME", "one"], ok)
        bench.send(request("WATCH", "k"), from: second)
        _ = bench.handedOver(own)
        bench.reply("-ERR no\r\n", on: own)
        #expect(bench.reason(second) == .upstreamLost)
        #expect(bench.received(by: second) == "")
        #expect(!bench.connections.contains(own))
    }

    @Test("HELLO gives a name without a connection of its own, also where it is refused behind it")
    func helloName() throws {
        let bench = Bench()
        let client = bench.client()
        try ask(bench, client, ["CLIENT", "GETNAME"], "$-1\r\n")
        bench.send(
            request("HELLO", "2", "SETNAME", "a") + request("CLIENT", "GETNAME"), from: client)
        _ = bench.received(by: client)
        bench.send(
            request("HELLO", "2", "SETNAME", "b", "AUTH", "x", "y") + request("CLIENT", "GETNAME"),
            from: client
        )
        let got = bench.received(by: client)
        #expect(got.hasPrefix("-WRONGPASS") && got.hasSuffix(bulk("b")))
        #expect(bench.router.pinnedCount == 0)
    }

    @Test("RESET forgets name, database and protocol")
    func reset() throws {
        let bench = Bench()
        let client = bench.client()
        try ask(bench, client, ["CLIENT", "SETNAME", "one"], ok)
        try ask(bench, client, ["CLIENT", "GETNAME"], bulk("one"))
        try ask(bench, client, ["SELECT", "3"], ok)
        _ = bench.received(by: client)
        bench.send(
            request("RESET") + request("CLIENT", "GETNAME") + request("GET", "k"), from: client)
        #expect(bench.received(by: client) == "+RESET\r\n$-1\r\n")
        #expect(bench.handedOver(bench.shared) == request("GET", "k"))
    }

    // MARK: CLIENT REPLY

    private func silenced(_ bench: Bench, _ mode: String) throws -> SessionRef {
        let client = bench.client()
        bench.send(request("CLIENT", "REPLY", "ON"), from: client)
        let own = try #require(bench.connections.last)
        #expect(bench.handedOver(own) == request("CLIENT", "REPLY", "ON"))
        bench.reply("+O", on: own)
        bench.reply("K\r\n", on: own)
        #expect(bench.received(by: client) == ok)
        bench.send(request("CLIENT", "REPLY", mode), from: client)
        #expect(bench.received(by: client) == "")
        return client
    }

    @Test("With replies off commands share a connection, and their replies go nowhere")
    func off() throws {
        let bench = Bench()
        let client = try silenced(bench, "OFF")
        let other = bench.client()
        bench.send(request("GET", "a") + request("AUTH", "x"), from: client)
        bench.send(request("GET", "b"), from: other)
        #expect(bench.handedOver(bench.shared) == request("GET", "a") + request("GET", "b"))
        bench.reply("$1\r", on: bench.shared)
        bench.reply("\na\r\n" + bulk("b"), on: bench.shared)
        #expect(bench.received(by: client) == "")
        #expect(bench.received(by: other) == bulk("b"))
        bench.send(
            request("GET", "c") + request("CLIENT", "REPLY", "ON") + request("GET", "d"),
            from: client)
        _ = bench.handedOver(bench.shared)
        bench.reply(bulk("c"), on: bench.shared)
        _ = bench.handedOver(bench.shared)
        bench.reply(bulk("d"), on: bench.shared)
        #expect(bench.received(by: client) == ok + bulk("d"))
    }

    @Test(
        "SKIP is about the next request alone, whatever it is",
        arguments: [
            request("GET", "a"), "GET a\r\n", request("AUTH", "x"), "\r\n", "*0\r\n",
            request("UNWATCH"),
            request("SELECT", "x"),
        ])
    func skip(next: String) throws {
        let bench = Bench()
        let client = try silenced(bench, "SKIP")
        bench.send(next + request("ECHO", "b"), from: client)
        for _ in 0..<2 {
            for connection in [bench.shared] + bench.connections {
                let replies = bench.handedOver(connection).components(of: "*").map {
                    $0.contains("ECHO") ? bulk("b") : "-ERR x\r\n"
                }
                bench.reply(replies.joined(), on: connection)
            }
        }
        #expect(bench.received(by: client) == bulk("b"))
    }

    @Test("A user who may not turn replies off is told so, and gets replies")
    func replyRefused() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("CLIENT", "REPLY", "OFF") + request("GET", "a"), from: client)
        let own = try #require(bench.connections.last)
        #expect(bench.handedOver(own) == request("CLIENT", "REPLY", "ON"))
        bench.reply("-NOPERM ", on: own)
        bench.reply("no\r\n", on: own)
        #expect(bench.received(by: client) == noPermission)
        _ = bench.handedOver(bench.shared)
        bench.reply(bulk("a"), on: bench.shared)
        #expect(bench.received(by: client) == bulk("a"))
        #expect(bench.router.pinnedCount == 0)
    }

    @Test("Where replies cannot be counted the server is told which are wanted")
    func relayedSilence() throws {
        let bench = Bench()
        let client = try silenced(bench, "OFF")
        bench.send(request("MONITOR"), from: client)
        let own = try #require(bench.connections.last)
        #expect(bench.handedOver(own) == request("CLIENT", "REPLY", "OFF") + request("MONITOR"))
    }

    @Test("What a subscriber may not do is refused without a word if it wants none")
    func silentSubscriber() throws {
        let bench = Bench()
        let client = try silenced(bench, "OFF")
        bench.send(request("SUBSCRIBE", "c") + request("GET", "k"), from: client)
        let own = try #require(bench.connections.last)
        #expect(bench.handedOver(own) == request("HELLO", "3") + request("SUBSCRIBE", "c"))
        bench.reply(
            "%1\r\n$5\r\nproto\r\n:3\r\n>3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n", on: own)
        #expect(bench.received(by: client) == "*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n")
        #expect(bench.handedOver(own) == "")
        bench.send(request("CLIENT", "REPLY", "ON") + request("UNSUBSCRIBE"), from: client)
        #expect(bench.handedOver(own) == request("UNSUBSCRIBE"))
    }

    @Test("The server is told so before a transaction, in which it could not be told")
    func silentTransaction() throws {
        let bench = Bench()
        let client = try silenced(bench, "OFF")
        bench.send(request("MULTI") + request("SUBSCRIBE", "c") + request("EXEC"), from: client)
        let own = try #require(bench.connections.last)
        #expect(
            bench.handedOver(own)
                == request("CLIENT", "REPLY", "OFF") + request("MULTI") + request("SUBSCRIBE", "c")
                + request("EXEC"))
    }

    @Test("A MULTI whose reply is not wanted opens a transaction all the same")
    func skippedMulti() throws {
        let bench = Bench()
        let client = try silenced(bench, "SKIP")
        let own = try ask(bench, client, ["MULTI"], ok)
        #expect(bench.router.pinnedCount == 1)
        try ask(bench, client, ["EXEC"], "*0\r\n")
        #expect(bench.router.pinnedCount == 0)
        #expect(bench.received(by: client) == "*0\r\n")
        #expect(bench.router.spare[0] == [own])
    }
}

@Suite("A whole transaction") struct WholeTransactionTests {
    private let whole =
        request("MULTI") + request("SET", "a", "1") + request("GET", "a") + request("EXEC")
    private let replies = "+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n$1\r\n1\r\n"

    /// A router that has seen the server end a transaction for this user.
    private func bench() throws -> Bench {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("MULTI"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n", on: own)
        bench.send(request("EXEC"), from: client)
        _ = bench.handedOver(own)
        bench.reply("*0\r\n", on: own)
        bench.end(client)
        bench.flush()
        #expect(bench.router.pinnedCount == 0)
        return bench
    }

    @Test("goes to the shared connection as one piece, among the requests of others")
    func isShared() throws {
        let bench = try bench()
        let (client, other) = (bench.client(), bench.client())
        bench.send(request("GET", "x"), from: other)
        bench.send(whole + request("GET", "y"), from: client)
        bench.send(request("GET", "z"), from: other)
        #expect(
            bench.handedOver(bench.shared)
                == request("GET", "x") + whole + request("GET", "y") + request("GET", "z"))
        #expect(bench.router.pinnedCount == 0)
        let bytes = Array((bulk("x") + replies + bulk("y") + bulk("z")).utf8)
        for byte in bytes { bench.reply([byte], on: bench.shared) }
        #expect(bench.received(by: client) == replies + bulk("y"))
        #expect(bench.received(by: other) == bulk("x") + bulk("z"))
    }

    @Test("is not shared before the server has shown that it lets the user end one")
    func wantsProof() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(whole, from: client)
        #expect(bench.handedOver(bench.shared) == "")
        #expect(bench.router.pinnedCount == 1)
    }

    @Test(
        "is not shared unless it is whole and plain",
        arguments: [
            request("MULTI") + request("GET", "a"),
            request("MULTI") + request("BLPOP", "a", "0") + request("EXEC"),
            request("MULTI") + request("SELECT", "1") + request("EXEC"),
            request("MULTI") + request("DISCARD", "x") + request("EXEC"),
            request("MULTI") + request("GET", "a") + request("EXEC", "x"),
            request("MULTI", "x") + request("GET", "a") + request("EXEC"),
            request("MULTI") + "GET a\r\n" + request("EXEC"),
            request("MULTI") + request("QUIT") + request("EXEC"),
            request("MULTI") + request("WATCH", "a") + request("EXEC"),
            request("MULTI") + String(repeating: request("GET", "a"), count: 64) + request("EXEC"),
            request("MULTI") + String(request("EXEC").dropLast()),
        ])
    func mustBePlain(requests: String) throws {
        let bench = try bench()
        let client = bench.client()
        bench.send(requests, from: client)
        #expect(bench.handedOver(bench.shared) == "")
        #expect(bench.router.pinnedCount == 1)
    }

    @Test(
        "that the server aborts or refuses from the start harms nobody",
        arguments: [
            ["+OK\r\n", "-ERR unknown\r\n", "+QUEUED\r\n", "-EXECABORT x\r\n"],
            ["-NOPERM no\r\n", "+OK\r\n", "$1\r\n1\r\n", "-ERR EXEC without MULTI\r\n"],
            ["-NOPERM no\r\n", "+OK\r\n", "$1\r\n1\r\n", "-NOPERM no\r\n"],
        ])
    func aborts(replies: [String]) throws {
        let bench = try bench()
        let (client, other) = (bench.client(), bench.client())
        bench.send(whole, from: client)
        bench.send(request("GET", "z"), from: other)
        _ = bench.handedOver(bench.shared)
        bench.reply(replies.joined() + bulk("z"), on: bench.shared)
        #expect(bench.received(by: client) == replies.joined())
        #expect(bench.received(by: other) == bulk("z"))
    }

    @Test(
        "whose EXEC the server refuses all of a sudden ends the connection, and nothing queued runs"
    )
    func execRefused() throws {
        let bench = try bench()
        let (client, other, later) = (bench.client(), bench.client(), bench.client())
        bench.send(whole, from: client)
        bench.send(request("SET", "z", "1"), from: other)
        let shared = bench.shared
        _ = bench.handedOver(shared)
        bench.advance(1)
        bench.send(request("GET", "k"), from: later)
        bench.reply("+OK\r\n+QUEUED\r\n+QUEUED\r\n-NOPERM no\r\n+QUEUED\r\n", on: shared)
        #expect(bench.received(by: other) == "")
        #expect(bench.reason(client) == .upstreamLost)
        #expect(bench.reason(other) == .upstreamLost)
        #expect(!bench.isClosed(later))
        #expect(bench.handedOver(bench.shared) == request("GET", "k"))
        // And no other transaction is shared until it is shown again.
        bench.send(whole, from: later)
        bench.reply(bulk("k"), on: bench.shared)
        #expect(bench.router.pinnedCount == 1)
    }

    @Test("that was lost halfway through its answer keeps no later login waiting")
    func lostHalfway() throws {
        let bench = try bench()
        let life = LoginLife(renewAfter: .seconds(100), limit: .seconds(200))
        bench.publish(Bench.secret, kind: .iamToken(life))
        let client = bench.client()
        bench.send(whole, from: client)
        _ = bench.handedOver(bench.shared)
        bench.reply("+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n", on: bench.shared)
        bench.lose(bench.shared)
        #expect(bench.isClosed(client))
        let other = bench.client()
        bench.send(request("GET", "a"), from: other)
        bench.advance(1)
        #expect(bench.handedOver(bench.shared) == request("GET", "a"))
        bench.reply(bulk("v"), on: bench.shared)
        bench.advance(101)
        #expect(
            bench.handedOver(bench.shared) == request("HELLO", "2", "AUTH", "app", Bench.secret))
    }

    @Test("that waits too long is refused as a whole, and the session goes on")
    func waits() throws {
        let bench = Bench(comesUp: false)
        let client = bench.client()
        bench.send(request("MULTI"), from: client)
        let own = try #require(bench.connections.last)
        bench.bringUp(own)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n", on: own)
        bench.send(request("EXEC"), from: client)
        _ = bench.handedOver(own)
        bench.reply("*0\r\n", on: own)
        _ = bench.received(by: client)
        bench.send(whole, from: client)
        bench.advance(3)
        bench.send(request("GET", "k"), from: client)
        bench.advance(3)
        let error =
            "-ERR redis-auth-proxy: the server cannot be reached, the command was not run\r\n"
        #expect(bench.received(by: client) == error + error + error + error)
        bench.bringUp(bench.shared)
        #expect(bench.handedOver(bench.shared) == request("GET", "k"))
        #expect(!bench.isClosed(client))
    }
}

extension String {
    /// The requests in a text that contains no other `*`.
    fileprivate func components(of separator: Character) -> [Substring] {
        split(separator: separator)
    }
}
