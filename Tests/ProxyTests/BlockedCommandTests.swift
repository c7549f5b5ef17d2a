// Commands that wait longer than the login of their connection lasts.

import Identity
import Proxy
import Testing

@Suite("A command that blocks on a connection whose login ends")
struct BlockedCommandTests {
    private let life = LoginLife(renewAfter: .seconds(100), limit: .seconds(200))
    private let login = request("HELLO", "2", "AUTH", "app", Bench.secret)

    private func bench() -> Bench {
        let bench = Bench(password: nil)
        bench.publish(Bench.secret, kind: .iamToken(life))
        return bench
    }

    /// The timeout, in seconds, of the one request that was handed over: `BLPOP queue …`.
    private func slice(_ handed: String) throws -> Double {
        let words = handed.split(separator: "\r\n")
        try #require(words.count == 7 && words[2] == "BLPOP" && words[4] == "queue", "\(handed)")
        return try #require(Double(words[6]))
    }

    private func blocked(
        _ bench: Bench, _ timeout: String = "0"
    ) throws -> (client: SessionRef, own: UpstreamRef, slice: Double) {
        let client = bench.client()
        bench.send(request("BLPOP", "queue", timeout), from: client)
        let own = try #require(bench.connections.last)
        return (client, own, try slice(bench.handedOver(own)))
    }

    @Test("goes out in slices, and between two of them its connection logs in")
    func slices() throws {
        let bench = bench()
        let (client, own, first) = try blocked(bench)
        #expect((80...100).contains(first))
        bench.advance(first + 0.01)
        bench.reply("*-1\r\n", on: own)
        #expect(bench.handedOver(own) == login)
        bench.reply(Bench.helloReply, on: own)
        let second = try slice(bench.handedOver(own))
        #expect((80...100).contains(second))
        #expect(bench.received(by: client) == "")
        let element = "*2\r\n" + bulk("queue") + bulk("x")
        bench.reply(element, on: own)
        #expect(bench.received(by: client) == element)
        #expect(bench.attempts == 1, "all on one connection")
    }

    @Test(
        "gets its answer however it is cut, and what is behind it comes behind",
        arguments: 0...22)
    func cut(at: Int) throws {
        let bench = bench()
        let (client, own, first) = try blocked(bench)
        bench.send(request("GET", "a"), from: client)
        #expect(bench.handedOver(own) == "", "it would overtake between two slices")
        bench.advance(first + 0.01)
        for byte in Array("*-1\r\n".utf8) { bench.reply([byte], on: own) }
        #expect(bench.handedOver(own) == login)
        bench.reply(Bench.helloReply, on: own)
        _ = bench.handedOver(own)
        let element = Array(("*2\r\n" + bulk("queue") + bulk("x")).utf8)
        bench.reply(Array(element.prefix(at)), on: own)
        bench.reply(Array(element.dropFirst(at)), on: own)
        #expect(bench.received(by: client) == String(decoding: element, as: UTF8.self))
        let next = try #require(bench.connections.first { bench.handedOver($0) != "" })
        bench.reply(bulk("v"), on: next)
        #expect(bench.received(by: client) == bulk("v"))
    }

    @Test("gets the null that it was woken with before the end of a slice")
    func woken() throws {
        let bench = bench()
        let (client, own, _) = try blocked(bench)
        bench.advance(10)
        bench.reply("*-1\r\n", on: own)
        #expect(bench.received(by: client) == "*-1\r\n")
    }

    @Test("gets the null of its own timeout, on time")
    func timeout() throws {
        let bench = bench()
        let (client, own, first) = try blocked(bench, "150.5")
        #expect(first <= 100)
        bench.advance(first)
        bench.reply("*-1\r\n", on: own)
        #expect(bench.handedOver(own) == login)
        bench.reply(Bench.helloReply, on: own)
        let second = try slice(bench.handedOver(own))
        #expect(abs(first + second - 150.5) < 0.01)
        bench.advance(second)
        bench.reply("*-1\r\n", on: own)
        #expect(bench.received(by: client) == "*-1\r\n")
    }

    /// A command that waits for a login which is nearly due and goes first.
    private func behindLogin(
        _ bench: Bench, _ timeout: String
    ) throws -> (client: SessionRef, own: UpstreamRef) {
        let client = bench.client()
        bench.send(request("WATCH", "k"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n", on: own)
        bench.advance(88)
        bench.send(request("BLPOP", "queue", timeout), from: client)
        #expect(bench.handedOver(own) == login)
        return (client, own)
    }

    @Test("lets the login that is nearly due go first")
    func loginFirst() throws {
        let bench = bench()
        let (_, own) = try behindLogin(bench, "0")
        bench.reply(Bench.helloReply, on: own)
        #expect(try slice(bench.handedOver(own)) > 80)
    }

    @Test("goes on elsewhere when its connection's login is not renewed")
    func moves() throws {
        let bench = bench()
        let (client, own, first) = try blocked(bench)
        var last = first
        var refusals = 0
        while bench.attempts == 1 && refusals < 30 {
            bench.advance(last + 0.01)
            bench.reply("*-1\r\n", on: own)
            guard bench.attempts == 1 else { break }
            var handed = bench.handedOver(own)
            if handed == login {
                bench.reply("-WRONGPASS no\r\n", on: own)
                refusals += 1
                handed = bench.handedOver(own)
            }
            last = try slice(handed)
        }
        #expect(refusals > 2)
        #expect(bench.attempts == 2)
        let heir = try #require(bench.connections.last)
        #expect(heir != own)
        _ = try slice(bench.handedOver(heir))
        let element = "*2\r\n" + bulk("queue") + bulk("x")
        bench.reply(element, on: heir)
        #expect(bench.received(by: client) == element)
        #expect(!bench.isClosed(client))
    }

    @Test("was not run, as far as it matters, where it waited in vain and cannot go on elsewhere")
    func nowhereElse() throws {
        let bench = Bench(comesUp: false, password: nil)
        bench.publish(Bench.secret, kind: .iamToken(life))
        let client = bench.client()
        bench.send(request("BLPOP", "queue", "0"), from: client)
        let own = try #require(bench.connections.last)
        bench.bringUp(own)
        let first = try slice(bench.handedOver(own))
        // While it waits at the server nobody knows what becomes of it.
        bench.router.reconnect()
        bench.act()
        #expect(bench.connections == [own])
        bench.advance(first + 0.01)
        bench.reply("*-1\r\n", on: own)
        #expect(bench.connections.count == 1 && bench.connections != [own])
        bench.advance(4.9)
        #expect(bench.received(by: client) == "")
        bench.advance(0.2)
        #expect(bench.received(by: client) == WaitingTests.unreachable)
        #expect(bench.reason(client) == .errorInPlaceOfState)
    }

    @Test("goes on elsewhere behind what introduces its client there", arguments: [0, 1, 7, 12])
    func introduced(cut: Int) throws {
        let bench = bench()
        let client = bench.client()
        bench.send(request("CLIENT", "SETINFO", "LIB-NAME", "lib"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n", on: own)
        bench.send(request("BLPOP", "queue", "0"), from: client)
        while bench.attempts == 1 {
            let handed = bench.handedOver(own)
            if handed.hasPrefix(login) {
                bench.reply("-WRONGPASS no\r\n", on: own)
            } else {
                bench.advance(try slice(handed) + 0.01)
                bench.reply("*-1\r\n", on: own)
            }
        }
        let heir = try #require(bench.connections.last)
        let handed = bench.handedOver(heir)
        #expect(handed.hasPrefix(request("CLIENT", "SETINFO", "LIB-NAME", "lib")))
        #expect(handed.contains("BLPOP"))
        let element = "*2\r\n" + bulk("queue") + bulk("x")
        let answer = Array(("+OK\r\n" + element).utf8)
        _ = bench.received(by: client)
        bench.reply(Array(answer.prefix(cut)), on: heir)
        bench.reply(Array(answer.dropFirst(cut)), on: heir)
        #expect(bench.received(by: client) == element)
    }

    @Test("ends with a reason where it cannot go on elsewhere")
    func expires() throws {
        let bench = bench()
        let client = bench.client()
        bench.send(request("WATCH", "k"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n", on: own)
        bench.send(request("BLPOP", "queue", "0"), from: client)
        var seconds = 0.0
        while !bench.isClosed(client) && seconds < 250 {
            let handed = bench.handedOver(own)
            if handed == login {
                bench.reply("-WRONGPASS no\r\n", on: own)
            } else if handed != "" {
                let slice = try slice(handed)
                bench.advance(slice)
                seconds += slice
                bench.reply("*-1\r\n", on: own)
            } else {
                bench.advance(1)
                seconds += 1
            }
        }
        #expect(bench.reason(client) == .loginExpired)
        #expect(seconds < 200)
    }

    @Test(
        "is told apart by its timeout's place",
        arguments: [
            (["BRPOP", "a", "b", "0"], ["BRPOP", "a", "b"], [String]()),
            (["BLMOVE", "a", "b", "LEFT", "LEFT", "0"], ["BLMOVE", "a", "b", "LEFT", "LEFT"], []),
            (["BRPOPLPUSH", "a", "b", "0"], ["BRPOPLPUSH", "a", "b"], []),
            (["BZPOPMIN", "a", "0"], ["BZPOPMIN", "a"], []),
            (["blmpop", "0", "1", "a", "LEFT"], ["blmpop"], ["1", "a", "LEFT"]),
            (["BZMPOP", "0", "1", "a", "MIN"], ["BZMPOP"], ["1", "a", "MIN"]),
        ])
    func forms(words: [String], head: [String], tail: [String]) throws {
        let bench = bench()
        let client = bench.client()
        bench.send(request(words), from: client)
        let handed = bench.handedOver(try #require(bench.connections.last))
        let parts = handed.split(separator: "\r\n").enumerated()
            .filter { $0.offset > 0 && $0.offset % 2 == 0 }.map { String($0.element) }
        #expect(Array(parts.prefix(head.count)) == head)
        #expect(Array(parts.dropFirst(head.count + 1)) == tail)
        let slice = try #require(Double(parts[head.count]))
        #expect((80...100).contains(slice))
    }

    @Test("has its timeout in milliseconds in streams and WAIT, and an answer of WAIT is no null")
    func milliseconds() throws {
        let bench = bench()
        let reader = bench.client()
        bench.send(
            request("XREAD", "COUNT", "1", "BLOCK", "0", "STREAMS", "s", "1-1"), from: reader)
        let handed = bench.handedOver(try #require(bench.connections.last))
        let words = handed.split(separator: "\r\n")
        #expect(words[8] == "BLOCK")
        let milliseconds = try #require(Int(words[10]))
        #expect((80_000...100_000).contains(milliseconds))
        let waiter = bench.client()
        bench.send(request("WAIT", "1", "0"), from: waiter)
        let own = try #require(bench.connections.last)
        let slice = try #require(Double(bench.handedOver(own).split(separator: "\r\n")[6]))
        bench.advance(slice / 1000)
        bench.reply(":0\r\n", on: own)
        #expect(bench.received(by: waiter) == "")
        #expect(bench.handedOver(own) == login)
        bench.reply(Bench.helloReply, on: own)
        #expect(bench.handedOver(own).contains("WAIT"))
        bench.reply(":1\r\n", on: own)
        #expect(bench.received(by: waiter) == ":1\r\n")
    }

    @Test(
        "is sent as it is where the timeout is short, odd or wrong",
        arguments: ["0.5", "-1", "abc", "1e3", "0x10", ""])
    func asItIs(timeout: String) throws {
        let bench = bench()
        let client = bench.client()
        let sent = request("BLPOP", "queue", timeout)
        bench.send(sent, from: client)
        #expect(bench.handedOver(try #require(bench.connections.last)) == sent)
    }

    @Test("is sent as it is with a password, which does not end a login")
    func password() throws {
        let bench = Bench()
        let client = bench.client()
        bench.send(request("BLPOP", "queue", "0"), from: client)
        let own = try #require(bench.connections.last)
        #expect(bench.handedOver(own) == request("BLPOP", "queue", "0"))
    }

    @Test("does not block in a transaction, and is sent as it is")
    func transaction() throws {
        let bench = bench()
        let client = bench.client()
        bench.send(request("MULTI"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n", on: own)
        bench.send(request("BLPOP", "queue", "0"), from: client)
        #expect(bench.handedOver(own) == request("BLPOP", "queue", "0"))
    }

    @Test("goes out in slices although it came before there was a credential")
    func beforeCredential() throws {
        let bench = Bench(comesUp: false, password: nil)
        let (client, other) = (bench.client(), bench.client())
        bench.send(request("BLPOP", "queue", "0"), from: client)
        let own = try #require(bench.connections.last)
        bench.send(request("BLPOP", "queue", "0.5"), from: other)
        let short = try #require(bench.connections.last)
        bench.publish(Bench.secret, kind: .iamToken(life))
        bench.bringUp(own)
        bench.bringUp(short)
        #expect((80...100).contains(try slice(bench.handedOver(own))))
        #expect(bench.handedOver(short) == request("BLPOP", "queue", "0.5"))
    }

    @Test("waits as it was told to if the credential turns out to be a password")
    func beforePassword() throws {
        let bench = Bench(comesUp: false, password: nil)
        let client = bench.client()
        bench.send(request("BLPOP", "queue", "0"), from: client)
        let own = try #require(bench.connections.last)
        bench.publish(Bench.secret)
        bench.bringUp(own)
        #expect(bench.handedOver(own) == request("BLPOP", "queue", "0"))
        bench.advance(1000)
        bench.reply("*-1\r\n", on: own)
        #expect(bench.received(by: client) == "*-1\r\n")
    }

    @Test("waits for what is left of its own timeout when its login took a while")
    func loginTakesTime() throws {
        let bench = bench()
        let (client, own) = try behindLogin(bench, "50")
        bench.advance(4)
        bench.reply(Bench.helloReply, on: own)
        #expect(abs(try slice(bench.handedOver(own)) - 46) < 0.01)
        bench.advance(46)
        bench.reply("*-1\r\n", on: own)
        #expect(bench.received(by: client) == "+OK\r\n*-1\r\n")
    }

    @Test("goes on behind a push that comes with the end of a slice", arguments: 0...27)
    func pushed(cut: Int) throws {
        let bench = bench()
        let client = bench.client()
        bench.send(request("HELLO", "3"), from: client)
        bench.send(request("BLPOP", "queue", "0"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.received(by: client)
        let first = try slice(bench.handedOver(own))
        bench.advance(first + 0.01)
        let push = ">2\r\n" + bulk("invalidate") + "_\r\n"
        let end = Array(("_\r\n" + push).utf8)
        bench.reply(Array(end.prefix(cut)), on: own)
        let early = bench.handedOver(own)
        bench.reply(Array(end.dropFirst(cut)), on: own)
        #expect(bench.received(by: client) == push)
        let login = request("HELLO", "3", "AUTH", "app", Bench.secret)
        #expect(early + bench.handedOver(own) == login)
        bench.reply("%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:78\r\n", on: own)
        #expect(try slice(bench.handedOver(own)) > 80)
        let element = "*2\r\n" + bulk("queue") + bulk("x")
        bench.reply(element, on: own)
        #expect(bench.received(by: client) == element)
    }

    @Test("leaves nothing behind that its client would wait for, however long it is")
    func movesLong() throws {
        var limits = Limits()
        limits.uploadBuffer = 20
        let bench = Bench(limits: limits, comesUp: false, password: nil)
        bench.publish(Bench.secret, kind: .iamToken(life))
        let client = bench.client()
        bench.send(request("BLPOP", "queue", "0"), from: client)
        let own = try #require(bench.connections.last)
        bench.router.pause()
        bench.bringUp(own)
        bench.router.resume()
        bench.act()
        let heir = try #require(bench.connections.last)
        #expect(heir != own)
        bench.bringUp(heir)
        _ = try slice(bench.handedOver(heir))
        let element = "*2\r\n" + bulk("queue") + bulk("x")
        bench.reply(element, on: heir)
        #expect(bench.received(by: client) == element)
        bench.send(request("GET", "a"), from: client)
        bench.bringUp(bench.shared)
        #expect(bench.handedOver(bench.shared) == request("GET", "a"))
    }

    @Test("ends when its client has left, and is not sent again")
    func left() throws {
        let bench = bench()
        let (client, own, first) = try blocked(bench)
        bench.end(client)
        bench.advance(first + 1)
        bench.reply("*-1\r\n", on: own)
        #expect(bench.handedOver(own) == "")
        #expect(bench.isClosed(client))
    }

    // MARK: XREAD from $

    private let read = ["XREAD", "BLOCK", "0", "STREAMS", "s", "$"]

    /// A client that reads from now on, and the connection where it waits.
    private func reader(_ bench: Bench) throws -> (client: SessionRef, first: UpstreamRef) {
        let client = bench.client()
        bench.send(request(read), from: client)
        let first = try #require(bench.connections.last)
        let handed = bench.handedOver(first).split(separator: "\r\n")
        #expect(handed.count == 13 && handed[2] == "XREAD" && handed[12] == "$")
        let milliseconds = try #require(Int(handed[6]))
        #expect((180_000...200_000).contains(milliseconds), "as long as the login lasts")
        return (client, first)
    }

    /// The connection where a reader waits too, once the login of its first one is due.
    private func second(_ bench: Bench) throws -> UpstreamRef {
        bench.advance(101)
        let second = try #require(bench.connections.last)
        #expect(bench.handedOver(second).contains("XREAD"))
        return second
    }

    private let entry = "*1\r\n*2\r\n" + bulk("s") + "*0\r\n"

    @Test("is read on a second connection when the login of the first is due; the first answers")
    func firstAnswers() throws {
        let bench = bench()
        let (client, first) = try reader(bench)
        let second = try second(bench)
        #expect(bench.attempts == 2 && second != first)
        bench.reply(entry, on: first)
        #expect(bench.received(by: client) == entry)
        #expect(!bench.connections.contains(second))
        bench.send(request("GET", "a"), from: client)
        let next = try #require(bench.connections.last)
        _ = bench.handedOver(next)
        bench.reply(bulk("v"), on: next)
        #expect(bench.received(by: client) == bulk("v"))
    }

    @Test("is answered by the second connection, whichever is first")
    func secondAnswers() throws {
        let bench = bench()
        let (client, first) = try reader(bench)
        let second = try second(bench)
        for byte in Array(entry.utf8) { bench.reply([byte], on: second) }
        #expect(bench.received(by: client) == entry)
        #expect(!bench.connections.contains(first))
        #expect(!bench.isClosed(client))
    }

    @Test("is not answered by the second connection either where the client wants no replies")
    func secondIsMuted() throws {
        let bench = bench()
        let client = bench.client()
        bench.send(request("CLIENT", "REPLY", "OFF"), from: client)
        let asked = try #require(bench.connections.last)
        _ = bench.handedOver(asked)
        bench.reply("+OK\r\n", on: asked)
        bench.send(request(read), from: client)
        let first = try #require(bench.connections.last)
        #expect(bench.handedOver(first).contains("XREAD"))
        let second = try second(bench)
        bench.reply(entry, on: second)
        #expect(bench.received(by: client) == "")
        #expect(!bench.connections.contains(first))
    }

    @Test("goes on waiting on the second connection when the time of the first is over")
    func secondGoesOn() throws {
        let bench = bench()
        let (client, first) = try reader(bench)
        let second = try second(bench)
        bench.advance(93)
        bench.reply("*-1\r\n", on: first)
        #expect(bench.received(by: client) == "")
        #expect(!bench.connections.contains(first))
        bench.advance(8)
        #expect(bench.attempts == 3, "whose login grows old too")
        bench.reply(entry, on: second)
        #expect(bench.received(by: client) == entry)
    }

    @Test("tries a second connection again if the first try fails")
    func secondFails() throws {
        let bench = bench()
        let (client, first) = try reader(bench)
        let second = try second(bench)
        bench.lose(second)
        #expect(!bench.isClosed(client))
        bench.advance(2)
        let third = try #require(bench.connections.last)
        #expect(third != first && bench.handedOver(third).contains("XREAD"))
        bench.reply(entry, on: first)
        #expect(bench.received(by: client) == entry)
    }

    @Test("goes out on its second connection when a pause is over, which is a new one")
    func secondInPause() throws {
        let bench = bench()
        let (client, first) = try reader(bench)
        bench.router.pause()
        bench.advance(101)
        let held = try #require(bench.connections.last)
        #expect(held != first && bench.handedOver(held) == "")
        while bench.router.nextDirtyUpstream() != nil {}
        bench.router.resume()
        bench.act()
        let second = try #require(bench.connections.last)
        #expect(second != held && second != first)
        #expect(!bench.connections.contains(held))
        var dirty: [UpstreamRef] = []
        while let next = bench.router.nextDirtyUpstream() { dirty.append(next) }
        #expect(dirty.contains(second))
        #expect(bench.handedOver(second).contains("XREAD"))
        bench.reply(entry, on: second)
        #expect(bench.received(by: client) == entry)
    }

    @Test("takes its second connection with it")
    func leaves() throws {
        let bench = bench()
        let (client, _) = try reader(bench)
        bench.advance(101)
        bench.router.didLose(client)
        bench.act()
        #expect(bench.connections.isEmpty || bench.connections.allSatisfy { $0.pointee.isShared })
    }
}
