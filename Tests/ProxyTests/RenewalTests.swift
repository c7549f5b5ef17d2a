// Logins that are renewed on connections that live.

import Identity
import Proxy
import Testing

@Suite("The login of a connection")
struct RenewalTests {
    private let life = LoginLife(renewAfter: .seconds(100), limit: .seconds(200))

    private func login(_ version: Int, _ password: String = Bench.secret) -> String {
        request("HELLO", "\(version)", "AUTH", "app", password)
    }

    private func bench() -> Bench {
        let bench = Bench(password: nil)
        bench.publish(Bench.secret, kind: .iamToken(life))
        return bench
    }

    /// A shared connection that has served once.
    private func served(_ bench: Bench) throws -> (client: SessionRef, shared: UpstreamRef) {
        let client = bench.client()
        bench.send(request("GET", "a"), from: client)
        let shared = try #require(bench.connections.first)
        #expect(bench.handedOver(shared) == request("GET", "a"))
        bench.reply(bulk("v"), on: shared)
        #expect(bench.received(by: client) == bulk("v"))
        return (client, shared)
    }

    @Test("is renewed where it is, before its time, unnoticed")
    func renewed() throws {
        let bench = bench()
        let (client, shared) = try served(bench)
        bench.advance(89)
        #expect(bench.handedOver(shared) == "")
        bench.advance(12)
        #expect(bench.handedOver(shared) == login(2))
        bench.send(request("GET", "b"), from: client)
        #expect(bench.handedOver(shared) == "")
        bench.reply(Bench.helloReply, on: shared)
        #expect(bench.handedOver(shared) == request("GET", "b"))
        bench.reply(bulk("w"), on: shared)
        #expect(bench.received(by: client) == bulk("w"))
        #expect(bench.attempts == 1)
        bench.advance(80)
        #expect(bench.handedOver(shared) == "")
        bench.advance(21)
        #expect(bench.handedOver(shared) == login(2), "and again, later")
    }

    @Test("waits for the replies that are owed, and nothing overtakes it", arguments: 0...50)
    func waits(cut: Int) throws {
        let bench = bench()
        let (client, shared) = try served(bench)
        bench.send(request("GET", "b"), from: client)
        #expect(bench.handedOver(shared) == request("GET", "b"))
        bench.advance(101)
        bench.send(request("GET", "c"), from: client)
        #expect(bench.handedOver(shared) == "")
        bench.reply("$3\r\nab", on: shared)
        #expect(bench.handedOver(shared) == "")
        bench.reply("c\r\n", on: shared)
        #expect(bench.handedOver(shared) == login(2))
        let answer = Array(Bench.helloReply.utf8)
        bench.reply(Array(answer.prefix(cut)), on: shared)
        bench.reply(Array(answer.dropFirst(cut)), on: shared)
        #expect(bench.handedOver(shared) == request("GET", "c"))
        bench.reply(bulk("d"), on: shared)
        #expect(bench.received(by: client) == bulk("abc") + bulk("d"))
    }

    @Test("holds on when its renewal is refused, which is tried again with a fresh credential")
    func refused() throws {
        let bench = bench()
        let (client, shared) = try served(bench)
        bench.advance(101)
        #expect(bench.handedOver(shared) == login(2))
        bench.send(request("GET", "b"), from: client)
        bench.reply("-WRONGPASS no\r\n", on: shared)
        #expect(bench.refreshes == [UserIndex(0)])
        #expect(bench.handedOver(shared) == request("GET", "b"))
        bench.reply(bulk("w"), on: shared)
        #expect(bench.received(by: client) == bulk("w"))
        bench.publish("NEWTOKEN", kind: .iamToken(life))
        bench.advance(1.1)
        #expect(bench.handedOver(shared) == login(2, "NEWTOKEN"))
        bench.reply(Bench.helloReply, on: shared)
        #expect(bench.attempts == 1)
    }

    @Test("is put off in a transaction, and not behind WATCH")
    func transaction() throws {
        let bench = bench()
        let client = bench.client()
        bench.send(request("WATCH", "k"), from: client)
        let own = try #require(bench.connections.last)
        #expect(bench.handedOver(own) == request("WATCH", "k"))
        bench.reply("+OK\r\n", on: own)
        bench.send(request("MULTI"), from: client)
        #expect(bench.handedOver(own) == request("MULTI"))
        bench.reply("+OK\r\n", on: own)
        bench.advance(101)
        #expect(bench.handedOver(own) == "")
        bench.send(request("GET", "k") + request("EXEC") + request("WATCH", "k"), from: client)
        #expect(
            bench.handedOver(own)
                == request("GET", "k") + request("EXEC") + request("WATCH", "k"))
        bench.reply("+QUEUED\r\n*1\r\n" + bulk("v") + "+OK\r\n", on: own)
        #expect(bench.handedOver(own) == login(2))
        bench.reply(Bench.helloReply, on: own)
        let replies = "+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n" + bulk("v") + "+OK\r\n"
        #expect(bench.received(by: client) == replies)
    }

    @Test("of a RESP2 subscriber is renewed in RESP3, among its messages")
    func subscriber() throws {
        let bench = bench()
        let client = bench.client()
        bench.send(request("SUBSCRIBE", "a"), from: client)
        let own = try #require(bench.connections.last)
        #expect(bench.handedOver(own) == request("HELLO", "3") + request("SUBSCRIBE", "a"))
        let hello = "%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:77\r\n"
        bench.reply(hello + ">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", on: own)
        bench.advance(101)
        #expect(bench.handedOver(own) == login(3))
        let message = "3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n"
        let stream = Array((">" + message + hello + ">" + message).utf8)
        _ = bench.received(by: client)
        for byte in stream { bench.reply([byte], on: own) }
        #expect(bench.received(by: client) == "*" + message + "*" + message)
        #expect(!bench.isClosed(client))
    }

    @Test("is trusted only with the connection's own id in the answer")
    func otherID() throws {
        let bench = bench()
        let (client, shared) = try served(bench)
        bench.advance(101)
        _ = bench.handedOver(shared)
        bench.reply("*4\r\n$5\r\nproto\r\n:2\r\n$2\r\nid\r\n:78\r\n", on: shared)
        #expect(!bench.connections.contains(shared))
        #expect(!bench.isClosed(client))
    }

    @Test("is renewed when the password is another one")
    func password() throws {
        let bench = Bench()
        let (_, shared) = try served(bench)
        bench.publish("NEWPASS")
        bench.advance(1.1)
        #expect(bench.handedOver(shared) == login(2, "NEWPASS"))
        bench.reply(Bench.helloReply, on: shared)
        bench.publish("NEWPASS")
        bench.advance(1.1)
        #expect(bench.handedOver(shared) == "", "once")
    }

    @Test("stays as it is when another password is refused, which is not tried twice")
    func refusedPassword() throws {
        let bench = Bench()
        let (client, shared) = try served(bench)
        bench.publish("NEWPASS")
        bench.advance(1.1)
        #expect(bench.handedOver(shared) == login(2, "NEWPASS"))
        bench.reply("-WRONGPASS no\r\n", on: shared)
        #expect(bench.refreshes == [UserIndex(0)])
        bench.publish("NEWPASS")
        bench.advance(100)
        bench.send(request("GET", "b"), from: client)
        #expect(bench.handedOver(shared) == request("GET", "b"))
        bench.publish("OTHERPASS")
        bench.reply(bulk("v"), on: shared)
        bench.advance(1.1)
        #expect(bench.handedOver(shared) == login(2, "OTHERPASS"))
    }

    @Test("ends with its connection where it cannot be renewed, and a shared one is replaced")
    func expires() throws {
        let bench = bench()
        let (client, shared) = try served(bench)
        let pinned = bench.client()
        bench.send(request("MULTI"), from: pinned)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n", on: own)
        for _ in 0..<40 {
            bench.advance(5)
            if bench.handedOver(shared) != "" { bench.reply("-WRONGPASS no\r\n", on: shared) }
        }
        #expect(!bench.connections.contains(shared))
        #expect(bench.reason(pinned) == .loginExpired)
        bench.send(request("GET", "b"), from: client)
        let next = try #require(bench.connections.last)
        #expect(bench.handedOver(next) == request("GET", "b"))
        bench.reply(bulk("w"), on: next)
        #expect(bench.received(by: client) == bulk("w"))
    }

    @Test("is renewed beneath MONITOR, whose lines go on")
    func monitor() throws {
        let bench = bench()
        let client = bench.client()
        bench.send(request("MONITOR"), from: client)
        let own = try #require(bench.connections.last)
        _ = bench.handedOver(own)
        let line = "+1.0 [0 127.0.0.1:1] \"GET\" \"a\"\r\n"
        bench.reply("+OK\r\n" + line, on: own)
        bench.advance(101)
        let word = bench.handedOver(own).split(separator: "\r\n")[2]
        bench.send(request("GET", "a"), from: client)
        #expect(bench.handedOver(own) == "")
        _ = bench.received(by: client)
        let error = "-ERR unknown command '\(word)', with args beginning with: \r\n"
        for byte in Array((line + error + line).utf8) { bench.reply([byte], on: own) }
        #expect(bench.handedOver(own) == request("AUTH", "app", Bench.secret))
        for byte in Array((line + "+OK\r\n" + line).utf8) { bench.reply([byte], on: own) }
        #expect(bench.received(by: client) == line + line + line + line)
        #expect(bench.handedOver(own) == request("GET", "a"))
        bench.advance(80)
        #expect(bench.handedOver(own) == "")
        bench.advance(21)
        #expect(bench.handedOver(own) != "", "and again, later")
    }

    @Test("is not renewed in a transaction whose replies are not counted")
    func relayedTransaction() throws {
        let bench = bench()
        let client = bench.client()
        // The user may do that.
        bench.send(request("MULTI"), from: client)
        let own = try #require(bench.connections.last)
        bench.send(request("EXEC"), from: client)
        _ = bench.handedOver(own)
        bench.reply("+OK\r\n*0\r\n", on: own)
        bench.send(request("MONITOR"), from: client)
        bench.send(request("MULTI"), from: client)
        _ = bench.handedOver(own)
        bench.advance(101)
        #expect(bench.handedOver(own) == "")
        bench.send(request("EXEC"), from: client)
        #expect(bench.handedOver(own) == request("EXEC"))
        bench.advance(1.1)
        #expect(bench.handedOver(own).contains("redis-auth-proxy-"))
    }
}
