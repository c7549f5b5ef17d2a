// Publish/subscribe: what is counted, what a RESP2 client gets from a RESP3 connection, and when
// the connection is given back.

import Proxy
import Testing

private let hello2 = request("HELLO", "2")
private let hello3 = request("HELLO", "3")
private let isRESP2 = "*2\r\n$5\r\nproto\r\n:2\r\n"
private let isRESP3 = "%1\r\n$5\r\nproto\r\n:3\r\n"

/// As RESP3 has it; as RESP2 has it with another first byte.
private func confirmation(_ word: String, _ name: String?, _ total: Int) -> String {
    ">3\r\n" + bulk(word) + (name.map { bulk($0) } ?? "_\r\n") + ":\(total)\r\n"
}

private func message(_ channel: String, _ text: String) -> String {
    ">3\r\n" + bulk("message") + bulk(channel) + bulk(text)
}

/// Pushes of three elements.
private func inRESP2(_ pushes: String) -> String {
    pushes.replacing(">3\r\n", with: "*3\r\n").replacing("_\r\n", with: "$-1\r\n")
}

private func connection(of client: SessionRef) throws -> UpstreamRef {
    let upstream = client.pointee.upstream
    return try #require(upstream)
}

@Suite("Publish/subscribe")
struct SubscriptionTests {
    /// A bench with a subscriber and its connection; everything is answered.
    private struct Subscriber {
        let bench: Bench
        let client: SessionRef
        let own: UpstreamRef

        init(
            _ requests: String = request("SUBSCRIBE", "a"),
            _ answers: String = confirmation("subscribe", "a", 1),
            isRESP3 speaksRESP3: Bool = false,
            isDedicated: Bool = false,
            limits: Limits = Limits()
        ) throws {
            bench = Bench(limits: limits, isDedicated: isDedicated)
            client = bench.client()
            if speaksRESP3 {
                bench.send(hello3, from: client)
                if isDedicated, let first = client.pointee.upstream {
                    _ = bench.handedOver(first)
                    bench.reply(isRESP3, on: first)
                }
                _ = bench.received(by: client)
            }
            bench.send(requests, from: client)
            own = try connection(of: client)
            #expect(bench.handedOver(own) == (speaksRESP3 ? "" : hello3) + requests)
            bench.reply((speaksRESP3 ? "" : isRESP3) + answers, on: own)
            #expect(bench.received(by: client) == (speaksRESP3 ? answers : inRESP2(answers)))
        }

        /// Sends a request, which goes upstream as it is, and gives it the server's answer.
        func run(_ request: String, _ answer: String) -> String {
            bench.send(request, from: client)
            #expect(bench.handedOver(own) == request)
            bench.reply(answer, on: own)
            return bench.received(by: client)
        }
    }

    @Test("A RESP2 client gets in RESP2 what its RESP3 connection says, wherever that is cut")
    func translation() throws {
        let requests =
            request("SUBSCRIBE", "a", "b") + request("PSUBSCRIBE", "p*")
            + request("SSUBSCRIBE", "s") + request("PING") + request("PING", "x")
            + request("PING", "x", "y") + request("UNSUBSCRIBE", "a") + request("SUBSCRIBE")
            + request("UNSUBSCRIBE") + request("PUNSUBSCRIBE", "p*") + request("UNSUBSCRIBE")
            + request("SUNSUBSCRIBE") + request("PING") + request("PING", "x")
        let error = "-ERR wrong number of arguments\r\n"
        let pmessage = ">4\r\n" + bulk("pmessage") + bulk("p*") + bulk("p1") + bulk(">3\r\n")
        let smessage = ">3\r\n" + bulk("smessage") + bulk("s") + bulk("")
        let steps: [(server: String, client: String)] = [
            (isRESP3, ""),
            (confirmation("subscribe", "a", 1), inRESP2(confirmation("subscribe", "a", 1))),
            (message("a", "_\r\n"), "*" + message("a", "_\r\n").dropFirst()),
            (confirmation("subscribe", "b", 2), inRESP2(confirmation("subscribe", "b", 2))),
            (confirmation("psubscribe", "p*", 3), inRESP2(confirmation("psubscribe", "p*", 3))),
            (pmessage, "*" + pmessage.dropFirst()),
            (confirmation("ssubscribe", "s", 1), inRESP2(confirmation("ssubscribe", "s", 1))),
            (smessage, "*" + smessage.dropFirst()),
            (">1\r\n" + bulk("news"), ""),
            ("+PONG\r\n", "*2\r\n" + bulk("pong") + bulk("")),
            (bulk("x"), "*2\r\n" + bulk("pong") + bulk("x")),
            (error, error),
            (
                ">2\r\n" + bulk("invalidate") + "*1\r\n" + bulk("k"),
                "*3\r\n" + bulk("message") + bulk("__redis__:invalidate") + "*1\r\n" + bulk("k")
            ),
            (confirmation("unsubscribe", "a", 2), inRESP2(confirmation("unsubscribe", "a", 2))),
            (error, error),
            (confirmation("unsubscribe", "b", 1), inRESP2(confirmation("unsubscribe", "b", 1))),
            (confirmation("punsubscribe", "p*", 0), inRESP2(confirmation("punsubscribe", "p*", 0))),
            (confirmation("unsubscribe", nil, 0), inRESP2(confirmation("unsubscribe", nil, 0))),
            (confirmation("sunsubscribe", "s", 0), inRESP2(confirmation("sunsubscribe", "s", 0))),
            ("+PONG\r\n", "+PONG\r\n"),
            (bulk("x"), bulk("x")),
            (">2\r\n" + bulk("invalidate") + "*1\r\n" + bulk("k"), ""),
        ]
        let stream = Array(steps.map(\.server).joined().utf8)
        let expected = steps.map(\.client).joined()
        for cut in 0..<stream.count {
            let bench = Bench()
            let client = bench.client()
            bench.send(requests, from: client)
            let own = try connection(of: client)
            #expect(bench.handedOver(own) == hello3 + requests)
            bench.reply(Array(stream[..<cut]), on: own)
            bench.reply(Array(stream[cut...]), on: own)
            #expect(bench.received(by: client) == expected, "cut at \(cut)")
            #expect(bench.handedOver(own) == hello2, "cut at \(cut)")
            bench.reply(isRESP2, on: own)
            #expect(bench.received(by: client) == "")
            #expect(bench.router.pinnedCount == 0)
        }
        let bench = Bench()
        let client = bench.client()
        bench.send(requests, from: client)
        let own = try connection(of: client)
        _ = bench.handedOver(own)
        for byte in stream { bench.reply([byte], on: own) }
        #expect(bench.received(by: client) == expected, "byte by byte")
    }

    @Test("The connection is given back behind the last unsubscription, in its old protocol")
    func givenBack() throws {
        let subscriber = try Subscriber()
        let bench = subscriber.bench
        let gone = confirmation("unsubscribe", "a", 0)
        #expect(subscriber.run(request("UNSUBSCRIBE", "a"), gone) == inRESP2(gone))
        #expect(bench.router.pinnedCount == 1)
        #expect(bench.handedOver(subscriber.own) == hello2)
        bench.reply(isRESP2, on: subscriber.own)
        #expect(bench.router.pinnedCount == 0)
        #expect(bench.router.spare[0] == [subscriber.own])
        let other = bench.client()
        bench.send(request("WATCH", "k"), from: other)
        #expect(bench.handedOver(subscriber.own) == request("WATCH", "k"))
        #expect(bench.received(by: subscriber.client) == "")
    }

    @Test("A RESP3 subscriber's connection is given back without a word of ours")
    func givenBackInRESP3() throws {
        let subscriber = try Subscriber(isRESP3: true)
        let bench = subscriber.bench
        #expect(subscriber.run(request("GET", "k"), bulk("v")) == bulk("v"))
        #expect(bench.router.pinnedCount == 1)
        let gone = confirmation("unsubscribe", "a", 0)
        #expect(subscriber.run(request("UNSUBSCRIBE"), gone) == gone)
        #expect(bench.handedOver(subscriber.own) == "")
        #expect(bench.router.spare[1] == [subscriber.own])
    }

    @Test("Frames of a RESP3 subscriber are passed on as they are, wherever they are cut")
    func passedOnInRESP3() throws {
        let requests =
            request("GET", "k") + request("SUBSCRIBE", "a", "b") + request("GET", "k")
            + request("EXEC") + request("UNSUBSCRIBE") + request("GET", "k")
        let stream =
            ">2\r\n" + bulk("invalidate") + "_\r\n" + confirmation("subscribe", "a", 1)
            + message("a", "x") + confirmation("subscribe", "b", 2) + message("b", "y") + bulk("v")
            + "*2\r\n" + message("a", "inside") + ":1\r\n_\r\n" + message("a", "behind")
            + confirmation("unsubscribe", "b", 1) + message("a", "last")
            + confirmation("unsubscribe", "a", 0) + "_\r\n"
        for cut in 0...stream.utf8.count {
            let subscriber = try Subscriber(
                request("SSUBSCRIBE", "s"), confirmation("ssubscribe", "s", 1), isRESP3: true)
            let bench = subscriber.bench
            #expect(subscriber.run(request("GET", "k"), bulk("v")) == bulk("v"))
            bench.send(requests, from: subscriber.client)
            #expect(bench.handedOver(subscriber.own) == requests)
            let bytes = Array(("_\r\n" + stream).utf8)
            bench.reply(Array(bytes[..<cut]), on: subscriber.own)
            bench.reply(Array(bytes[cut...]), on: subscriber.own)
            #expect(bench.received(by: subscriber.client) == "_\r\n" + stream, "cut at \(cut)")
            #expect(bench.router.pinnedCount == 1)
        }
    }

    @Test("One error answers a command with several names")
    func refused() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("SUBSCRIBE", "a", "b", "c") + request("GET", "k"), from: client)
        let own = try connection(of: client)
        #expect(bench.handedOver(own) == hello3 + request("SUBSCRIBE", "a", "b", "c"))
        bench.reply(isRESP3 + "-NOPERM no\r\n", on: own)
        #expect(bench.handedOver(own) == hello2)
        bench.reply(isRESP2, on: own)
        #expect(bench.received(by: client) == "-NOPERM no\r\n")
        #expect(bench.handedOver(bench.shared) == request("GET", "k"))
    }

    @Test("UNSUBSCRIBE without names is answered once for each name that is left")
    func unsubscribeAll() throws {
        let answers =
            confirmation("subscribe", "a", 1) + confirmation("subscribe", "a", 1)
            + confirmation("subscribe", "b", 2)
        let subscriber = try Subscriber(request("SUBSCRIBE", "a", "a", "b"), answers)
        let bench = subscriber.bench
        let part = confirmation("unsubscribe", "b", 1)
        bench.send(request("UNSUBSCRIBE") + request("GET", "k"), from: subscriber.client)
        #expect(bench.handedOver(subscriber.own) == request("UNSUBSCRIBE"))
        bench.reply(part, on: subscriber.own)
        #expect(bench.handedOver(subscriber.own) == "")
        let rest = confirmation("unsubscribe", "a", 0)
        bench.reply(rest, on: subscriber.own)
        #expect(bench.received(by: subscriber.client) == inRESP2(part + rest))
        #expect(bench.handedOver(subscriber.own) == hello2)
        bench.reply(isRESP2, on: subscriber.own)
        #expect(bench.handedOver(bench.shared) == request("GET", "k"))
    }

    @Test("What a RESP2 subscriber may not send is judged by the server, in RESP2, and relayed")
    func notAllowed() throws {
        let subscriber = try Subscriber()
        let (bench, own) = (subscriber.bench, subscriber.own)
        bench.send(request("GET", "k") + request("PING"), from: subscriber.client)
        #expect(bench.handedOver(own) == hello2)
        // A message before the protocol changes, and one after it.
        bench.reply(message("a", "x") + isRESP2 + inRESP2(message("a", "y")), on: own)
        #expect(
            bench.received(by: subscriber.client)
                == inRESP2(message("a", "x")) + inRESP2(message("a", "y")))
        #expect(bench.handedOver(own) == request("GET", "k") + request("PING"))
        bench.reply("-ERR Can't execute 'get'\r\n*2\r\n", on: own)
        #expect(bench.received(by: subscriber.client) == "-ERR Can't execute 'get'\r\n*2\r\n")
        #expect(bench.router.pinnedCount == 1)
    }

    @Test("What may not be allowed waits for the confirmations that are owed")
    func notAllowedWaits() throws {
        let bench = Bench()
        let client = bench.client()
        let subscribe = request("SUBSCRIBE", "a") + request("PING") + request("UNSUBSCRIBE", "a")
        bench.send(subscribe + request("SET", "a", "b"), from: client)
        let own = try connection(of: client)
        #expect(bench.handedOver(own) == hello3 + subscribe)
        bench.reply(isRESP3 + confirmation("subscribe", "a", 1) + "+PONG\r\n", on: own)
        #expect(bench.handedOver(own) == "")
        bench.reply(confirmation("unsubscribe", "a", 0), on: own)
        #expect(bench.handedOver(own) == hello2)
        bench.reply(isRESP2, on: own)
        #expect(bench.handedOver(bench.shared) == request("SET", "a", "b"))
    }

    @Test(
        "A login of a RESP2 subscriber is refused as by the server, in its place among messages",
        arguments: [
            (request("AUTH", "SECRET"), "Can't execute 'auth': "),
            (request("HELLO", "3", "AUTH", "default", "SECRET"), "Can't execute 'hello': "),
            (request("AUTH"), "wrong number of arguments for 'auth' command"),
        ]
    )
    func login(login: String, refusal: String) throws {
        let subscriber = try Subscriber()
        let (bench, own) = (subscriber.bench, subscriber.own)
        let text = message("a", "0123456789")
        bench.reply(String(text.dropLast(5)), on: own)
        bench.send(login + request("PING"), from: subscriber.client)
        #expect(bench.handedOver(own) == request("AUTH"))
        bench.reply(text.suffix(5) + text + "-ERR arity\r\n" + text, on: own)
        let allowed =
            "only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"
        let error = refusal + (refusal.hasSuffix(": ") ? allowed : "")
        #expect(
            bench.received(by: subscriber.client)
                == inRESP2(text + text) + "-ERR \(error)\r\n" + inRESP2(text))
        #expect(bench.handedOver(own) == request("PING"))
    }

    @Test("AUTH of a RESP3 subscriber is answered in its place among messages")
    func authInRESP3() throws {
        let subscriber = try Subscriber(isRESP3: true)
        let (bench, own) = (subscriber.bench, subscriber.own)
        bench.send(request("AUTH", "default", "SECRET") + request("PING"), from: subscriber.client)
        #expect(bench.handedOver(own) == request("AUTH"))
        bench.reply(message("a", "x") + "-ERR wrong number\r\n" + message("a", "y"), on: own)
        #expect(
            bench.received(by: subscriber.client)
                == message("a", "x") + "+OK\r\n" + message("a", "y"))
        #expect(bench.handedOver(own) == request("PING"))
    }

    @Test("RESET is the server's to answer, behind the last message", arguments: [false, true])
    func reset(isRESP3: Bool) throws {
        let subscriber = try Subscriber(isRESP3: isRESP3)
        let (bench, own) = (subscriber.bench, subscriber.own)
        bench.send(request("RESET") + request("GET", "k"), from: subscriber.client)
        #expect(bench.handedOver(own) == request("RESET"))
        let last = message("a", "x")
        bench.reply(last + "+RESET\r\n", on: own)
        #expect(
            bench.received(by: subscriber.client) == (isRESP3 ? last : inRESP2(last)) + "+RESET\r\n"
        )
        #expect(bench.handedOver(own).hasSuffix("$9\r\nPROXYPASS\r\n"))
        bench.reply(Bench.helloReply, on: own)
        // In RESP2, and not one of the messages' connection any more.
        #expect(bench.handedOver(own) == request("GET", "k"))
        bench.reply(bulk("v"), on: own)
        #expect(bench.received(by: subscriber.client) == bulk("v"))
        #expect(bench.router.pinnedCount == 0)
    }

    @Test("QUIT is the server's to answer, behind the last message", arguments: [false, true])
    func quit(isRESP3: Bool) throws {
        let subscriber = try Subscriber(isRESP3: isRESP3)
        let (bench, own) = (subscriber.bench, subscriber.own)
        bench.send(request("QUIT") + request("PING"), from: subscriber.client)
        #expect(bench.handedOver(own) == request("QUIT"))
        let last = message("a", "x")
        bench.reply(last + "+OK\r\n", on: own)
        #expect(
            bench.received(by: subscriber.client) == (isRESP3 ? last : inRESP2(last)) + "+OK\r\n")
        #expect(bench.reason(subscriber.client) == .quit)
        #expect(!bench.connections.contains(own))
    }

    @Test("A subscriber whose connection is lost before QUIT is answered is closed for that")
    func lostInQuit() throws {
        let subscriber = try Subscriber()
        let (bench, own) = (subscriber.bench, subscriber.own)
        bench.send(request("QUIT"), from: subscriber.client)
        _ = bench.handedOver(own)
        bench.lose(own)
        #expect(bench.received(by: subscriber.client) == "")
        #expect(bench.reason(subscriber.client) == .upstreamLost)
    }

    @Test("SUBSCRIBE in a transaction is relayed for life")
    func inTransaction() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("MULTI") + request("SUBSCRIBE", "a", "b"), from: client)
        let own = try connection(of: client)
        #expect(bench.handedOver(own) == request("MULTI"))
        bench.reply("+OK\r\n", on: own)
        #expect(bench.handedOver(own) == request("SUBSCRIBE", "a", "b"))
        for part in ["+QUE", "UED\r\n", "*1\r\n*3\r\n", "…"] {
            bench.reply(part, on: own)
            #expect(bench.received(by: client).hasSuffix(part))
        }
    }

    @Test("A RESP3 subscriber that subscribes in a transaction is relayed for life")
    func inTransactionInRESP3() throws {
        let subscriber = try Subscriber(isRESP3: true)
        let (bench, own) = (subscriber.bench, subscriber.own)
        bench.send(
            request("GET", "k") + request("MULTI") + request("UNSUBSCRIBE"),
            from: subscriber.client)
        #expect(bench.handedOver(own) == request("GET", "k") + request("MULTI"))
        let start = bulk("v") + "+OK\r\n" + message("a", "x").dropLast(2)
        bench.reply(start, on: own)
        #expect(bench.received(by: subscriber.client) == start)
        #expect(bench.handedOver(own) == request("UNSUBSCRIBE"))
        for part in ["\r\n+QUE", "UED\r\n", "*1\r\n>3\r\n", "…"] {
            bench.reply(part, on: own)
            #expect(bench.received(by: subscriber.client) == part)
        }
    }

    @Test("A RESP3 subscriber whose HELLO 2 is refused is counted on")
    func helloRefusedInRESP3() throws {
        let subscriber = try Subscriber(isRESP3: true)
        let (bench, own) = (subscriber.bench, subscriber.own)
        bench.send(request("HELLO", "2", "AUTH", "nobody", "x"), from: subscriber.client)
        #expect(bench.handedOver(own) == request("AUTH"))
        bench.reply("-ERR wrong number\r\n", on: own)
        #expect(bench.received(by: subscriber.client).hasPrefix("-WRONGPASS"))
        let gone = confirmation("unsubscribe", "a", 0)
        #expect(subscriber.run(request("UNSUBSCRIBE"), gone) == gone)
        #expect(bench.router.pinnedCount == 0)
    }

    @Test("A RESP3 subscriber that goes back to RESP2 is relayed for life")
    func backToRESP2() throws {
        let subscriber = try Subscriber(isRESP3: true)
        let (bench, own) = (subscriber.bench, subscriber.own)
        bench.send(hello2, from: subscriber.client)
        #expect(bench.handedOver(own) == hello2)
        for part in [isRESP2, "*3\r\n", "…"] {
            bench.reply(part, on: own)
            #expect(bench.received(by: subscriber.client) == part)
        }
    }

    @Test("A message goes on its way before its end has come")
    func streamedMessage() throws {
        let subscriber = try Subscriber()
        let (bench, own) = (subscriber.bench, subscriber.own)
        let head = ">3\r\n" + bulk("message") + bulk("a") + "$300000000\r\n"
        bench.reply(head, on: own)
        #expect(bench.received(by: subscriber.client) == "*" + head.dropFirst())
        bench.reply(String(repeating: "x", count: 100_000), on: own)
        #expect(bench.received(by: subscriber.client).count == 100_000)
    }

    @Test("A client that reads no messages stops the reading of its connection")
    func slowReader() throws {
        var limits = Limits()
        limits.replyBuffer = 10_000
        let subscriber = try Subscriber(limits: limits)
        let (bench, own) = (subscriber.bench, subscriber.own)
        bench.room[subscriber.client] = 0
        let text = message("a", String(repeating: "x", count: 100))
        var sent = 0
        while own.pointee.wantsReplies && sent < 1_000_000 {
            bench.reply(text, on: own)
            sent += text.utf8.count
        }
        #expect(sent < 11_000)
        bench.room[subscriber.client] = nil
        bench.flush(subscriber.client)
        let isRead = own.pointee.wantsReplies
        #expect(isRead)
        bench.reply(text, on: own)
        let received = bench.received(by: subscriber.client)
        #expect(received.utf8.count == sent + text.utf8.count)
    }

    @Test("The end of a client is told to the server, which may have messages on their way")
    func halfClose() throws {
        let subscriber = try Subscriber()
        let (bench, own) = (subscriber.bench, subscriber.own)
        bench.end(subscriber.client)
        _ = bench.handedOver(own)
        #expect(bench.ended == [own])
        bench.reply(message("a", "x"), on: own)
        #expect(bench.received(by: subscriber.client) == inRESP2(message("a", "x")))
        #expect(!bench.isClosed(subscriber.client))
        bench.lose(own)
        #expect(bench.reason(subscriber.client) == .clientClosed)
    }

    @Test("Half a request at a client's end keeps no message from it")
    func halfCloseWithinRequest() throws {
        let subscriber = try Subscriber()
        let (bench, own) = (subscriber.bench, subscriber.own)
        bench.send(request("SUBSCRIBE", "b") + "*1\r\n$4\r\nPI", from: subscriber.client)
        bench.end(subscriber.client)
        _ = bench.handedOver(own)
        let frames = confirmation("subscribe", "b", 2) + message("b", "x")
        bench.reply(frames, on: own)
        #expect(bench.received(by: subscriber.client) == inRESP2(frames))
        bench.lose(own)
        #expect(bench.reason(subscriber.client) == .clientClosed)
    }

    @Test("A protocol error is answered behind the message that is on its way")
    func violation() throws {
        let subscriber = try Subscriber()
        let (bench, own) = (subscriber.bench, subscriber.own)
        let text = message("a", "0123456789")
        bench.reply(String(text.dropLast(5)), on: own)
        bench.send("*1\r\n!3\r\n", from: subscriber.client)
        #expect(!bench.isClosed(subscriber.client))
        bench.reply(String(text.suffix(5)), on: own)
        #expect(
            bench.received(by: subscriber.client) == inRESP2(text)
                + "-ERR Protocol error: expected '$', got '!'\r\n")
        #expect(bench.reason(subscriber.client) == .violation)
    }

    @Test("Loss of the connection closes the session, whether anything is owed or not")
    func loss() throws {
        let subscriber = try Subscriber()
        subscriber.bench.lose(subscriber.own)
        #expect(subscriber.bench.reason(subscriber.client) == .upstreamLost)
    }

    @Test("A shard subscription that the server ends is over", arguments: [false, true])
    func endedByServer(isRESP3 speaksRESP3: Bool) throws {
        let subscriber = try Subscriber(
            request("SSUBSCRIBE", "s"), confirmation("ssubscribe", "s", 1), isRESP3: speaksRESP3)
        let (bench, own) = (subscriber.bench, subscriber.own)
        // The client's own request for it is on its way, and is confirmed too.
        bench.send(request("SUNSUBSCRIBE", "s"), from: subscriber.client)
        _ = bench.handedOver(own)
        let gone = confirmation("sunsubscribe", "s", 0)
        bench.reply(gone, on: own)
        #expect(bench.handedOver(own) == (speaksRESP3 ? hello3 : hello2))
        bench.reply(gone + (speaksRESP3 ? isRESP3 : isRESP2), on: own)
        let told = speaksRESP3 ? gone : inRESP2(gone)
        #expect(bench.received(by: subscriber.client) == told + told)
        #expect(bench.router.pinnedCount == 0)
    }

    @Test("In dedicated mode the connection stays, in its client's protocol")
    func dedicated() throws {
        let subscriber = try Subscriber(isDedicated: true)
        let (bench, own) = (subscriber.bench, subscriber.own)
        let gone = confirmation("unsubscribe", "a", 0)
        #expect(subscriber.run(request("UNSUBSCRIBE", "a"), gone) == inRESP2(gone))
        #expect(bench.handedOver(own) == hello2)
        bench.reply(isRESP2, on: own)
        #expect(subscriber.run(request("GET", "k"), bulk("v")) == bulk("v"))
        bench.send(request("SUBSCRIBE", "a"), from: subscriber.client)
        #expect(bench.handedOver(own) == hello3 + request("SUBSCRIBE", "a"))
    }

    @Test("In dedicated mode a client that speaks RESP3 gets pushes")
    func dedicatedInRESP3() throws {
        let subscriber = try Subscriber(isRESP3: true, isDedicated: true)
        let gone = confirmation("unsubscribe", "a", 0)
        #expect(subscriber.run(request("UNSUBSCRIBE", "a"), gone) == gone)
        #expect(subscriber.bench.handedOver(subscriber.own) == "")
    }

    @Test("Behind WATCH the connection stays until UNWATCH")
    func watching() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("WATCH", "k"), from: client)
        let own = try connection(of: client)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n", on: own)
        bench.send(request("SUBSCRIBE", "a") + request("UNSUBSCRIBE", "a"), from: client)
        _ = bench.handedOver(own)
        bench.reply(
            isRESP3 + confirmation("subscribe", "a", 1) + confirmation("unsubscribe", "a", 0),
            on: own)
        #expect(bench.handedOver(own) == hello2)
        bench.reply(isRESP2, on: own)
        #expect(bench.router.pinnedCount == 1)
        bench.send(request("UNWATCH"), from: client)
        #expect(bench.handedOver(own) == request("UNWATCH"))
        bench.reply("+OK\r\n", on: own)
        #expect(bench.router.pinnedCount == 0)
    }

    @Test("A subscriber's request that is too long to look at whole is relayed")
    func tooLong() throws {
        var limits = Limits()
        limits.sharedRequest = 200
        let subscriber = try Subscriber(limits: limits)
        let (bench, own) = (subscriber.bench, subscriber.own)
        let long = request("PING", String(repeating: "x", count: 1_000))
        bench.send(String(long.prefix(500)), from: subscriber.client)
        #expect(bench.handedOver(own) == hello2)
        bench.reply(isRESP2, on: own)
        bench.send(String(long.dropFirst(500)), from: subscriber.client)
        #expect(bench.handedOver(own) == long)
        bench.reply("…", on: own)
        #expect(bench.received(by: subscriber.client) == "…")
    }

    @Test("A server that refuses our HELLO is given up")
    func helloRefused() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("SUBSCRIBE", "a"), from: client)
        let own = try connection(of: client)
        _ = bench.handedOver(own)
        bench.reply("-ERR no\r\n", on: own)
        #expect(bench.received(by: client) == "")
        #expect(bench.reason(client) == .upstreamLost)
    }
}
