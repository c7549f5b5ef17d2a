// The framers against the server itself: what we find in a stream is what it finds.
//
// Every stream goes to the server twice: as it is, and as the requests we found in it, one multibulk
// request each. Both must draw the same bytes, and the first, if we refuse the stream, our reply to
// it behind them.

import RESP
import Testing

/// How we read a stream.
private struct Reading {
    /// What we found, as we would send it on.
    var requests: [UInt8] = []
    var replies = 0
    var violation: ProtocolViolation?
    /// How much of the stream was whole requests.
    var length = 0

    init(_ stream: [UInt8]) {
        var framer = RequestFramer()
        stream.withUnsafeBytes { raw in
            guard let base = raw.baseAddress else { return }
            while true {
                switch framer.next(base + length, count: raw.count - length) {
                case .frame(let count, let command):
                    requests += raw[length..<length + count]
                    replies += command == .none ? 0 : 1
                    length += count
                case .inline(let count):
                    let memory = UnsafeMutableRawBufferPointer.allocate(
                        byteCount: InlineCommand.capacity(for: count), alignment: 1)
                    defer { memory.deallocate() }
                    let line = UnsafeRawBufferPointer(rebasing: raw[length..<length + count])
                    switch InlineCommand.encode(line, into: memory) {
                    case .none: break
                    case .request(let byteCount):
                        requests += memory[..<byteCount]
                        replies += 1
                    case .violation(let found):
                        violation = found
                        return
                    }
                    length += count
                case .incomplete:
                    return
                case .violation(let found):
                    violation = found
                    return
                }
            }
        }
    }
}

private func countReplies(_ bytes: [UInt8]) -> Int? {
    let events = ReplyFeeder.events(in: bytes)
    let whole = events.allSatisfy {
        if case .reply = $0 { true } else { false }
    }
    return whole ? events.count : nil
}

extension ReplyFeeder {
    fileprivate static func events(in bytes: [UInt8]) -> [ReplyEvent] {
        var feeder = ReplyFeeder(memory: FencedMemory(capacity: bytes.count + 1))
        feeder.feed(bytes[...], atFront: false)
        return feeder.finish()
    }
}

/// Whether redis-server 7.0.15 refuses these too.
private func isServersVerdict(_ violation: ProtocolViolation) -> Bool {
    switch violation {
    case .headerWithoutLineFeed, .bulkWithoutTerminator, .lineWithNUL, .ambiguousCommand,
        .tlsClientHello:
        false
    default:
        true
    }
}

@Suite struct ServerAgreementTests {
    private func expectAgreement(
        _ stream: [UInt8], with server: RedisServer, _ context: String
    ) throws -> ProtocolViolation? {
        let reading = Reading(stream)
        let ours = try server.exchange(reading.requests)
        #expect(countReplies(ours) == reading.replies, "\(context)")
        guard let violation = reading.violation else {
            #expect(try server.exchange(stream) == ours, "\(context)")
            return nil
        }
        guard isServersVerdict(violation) else {
            #expect(try server.exchange(Array(stream[..<reading.length])) == ours, "\(context)")
            return violation
        }
        let theirs = try server.exchange(stream)
        if var reply = violation.reply {
            if case .expectedBulk(let byte) = violation, byte != 0x0D, byte != 0x0A {
                // The server repeats any byte but these; we repeat none that is not printable.
                reply[reply.count - 4] = byte
            }
            #expect(theirs == ours + reply, "\(context)")
        } else {
            // The server drops replies it had not sent yet.
            #expect(ours.starts(with: theirs), "\(context)")
        }
        return violation
    }

    private func request(using generator: inout SeededGenerator) -> [UInt8] {
        let quoted = ["'a b'", "\"\\x41\\n\"", "x\"y z\"", "''", "\u{0B}", "plain"]
        switch Int.random(in: 0..<10, using: &generator) {
        case 0:
            return Array(
                ["\r\n", "\n", " \r\n", "*0\r\n", "*-3\r\n"]
                    .randomElement(using: &generator)!.utf8)
        case 1...3:
            let words = (0..<generator.small(upTo: 3))
                .map { _ in quoted.randomElement(using: &generator)! }
            return Array(("ECHO " + words.joined(separator: " ") + "\r\n").utf8)
        default:
            var request: [UInt8] = []
            let count = 1 + generator.small(upTo: 3)
            RequestEncoder.append(
                (0..<count).map { index in
                    index == 0
                        ? Array(
                            ["ECHO", "ping", "GET", "", "nosuch"]
                                .randomElement(using: &generator)!.utf8)
                        : RequestGenerator.argument(using: &generator)
                }, to: &request)
            return request
        }
    }

    @Test func `On valid and on mutated streams the server finds the requests that we find`() throws
    {
        let seed = testSeed()
        var generator = SeededGenerator(seed: seed)
        let server = try RedisServer()
        var refused = 0
        for round in 0..<1000 {
            var stream: [UInt8] = []
            for _ in 0...generator.small(upTo: 5) {
                // The server reads 16 KiB at a time; behind that, what it does at a violation
                // depends on how fast we write.
                let more = request(using: &generator)
                if stream.count + more.count < 14_000 { stream += more }
            }
            if !generator.oneIn(4) { RequestGenerator.mutate(&stream, using: &generator) }
            let context = "round \(round), seed \(seed)"
            if try expectAgreement(stream, with: server, context) != nil { refused += 1 }
        }
        #expect(refused > 100)
    }

    @Test func `The server refuses what we refuse, in the same words`() throws {
        let server = try RedisServer()
        let texts = [
            "*x\r\n", "*\r\n", "*-0\r\n", "*01\r\n", "*+1\r\n", "* 1\r\n", "*1 \r\n",
            "*2147483648\r\n", "*-9223372036854775809\r\n", "*1\r\n$-1\r\n", "*1\r\n$536870913\r\n",
            "*1\r\n$x\r\n", "*1\r\nx\r\n", "*1\r\n\r\n", "*1\r\n\n\r\n",
            "*2\r\n$4\r\nECHO\r\n:1\r\n",
            "ECHO \"a\r\n", "ECHO 'a'b\r\n", "POST / HTTP/1.1\r\n", "hOsT: x\r\n",
            "*1\r\n$4\r\npOsT\r\n", "*1\r\n$6\r\nPOST\0x\r\n", "\"pos\\x74\"\r\n",
            "*" + String(repeating: "1", count: 65_536),
            "*1\r\n$" + String(repeating: "1", count: 65_536),
            "*1\r\n" + String(repeating: "x", count: 65_537),
            String(repeating: "x", count: 65_537),
        ]
        for text in texts {
            let violation = try expectAgreement(
                Array("PING\r\n\(text)".utf8), with: server, text.prefix(40).debugDescription)
            #expect(violation != nil, "\(text.prefix(40).debugDescription)")
        }
    }

    @Test func `The server accepts what we accept at the edges`() throws {
        let server = try RedisServer()
        for text in [
            "*-9223372036854775808\r\nPING\r\n", "*2147483647\r\n", "*1\r\n$536870912\r\n",
            "*" + String(repeating: "1", count: 65_535), String(repeating: "x", count: 65_536),
            "ECHO a\u{0B}b\r\n", "\"ECHO\"\u{0B}x\r\n", "\"\"\r\n", "*1\r\n$0\r\n\r\n",
            "*1\r\n$x\r",
        ] {
            let violation = try expectAgreement(
                Array("PING\r\n\(text)".utf8), with: server, text.prefix(40).debugDescription)
            #expect(violation == nil, "\(text.prefix(40).debugDescription)")
        }
    }

    @Test func `Every type of reply the server can send is framed, in both protocols`() throws {
        let server = try RedisServer()
        let types = [
            "string", "integer", "double", "null", "array", "set", "map", "verbatim", "true",
            "false", "bignum", "attrib", "push",
        ]
        var seen: Set<UInt8> = []
        var pushes = 0
        for version in [2, 3] {
            for type in types where version == 3 || type != "push" {
                let stream = Array("HELLO \(version)\r\nDEBUG PROTOCOL \(type)\r\n".utf8)
                let events = ReplyFeeder.events(in: try server.exchange(stream))
                var replies = 0
                for event in events {
                    switch event {
                    case .reply(let type, _):
                        replies += 1
                        seen.insert(type)
                    case .push: pushes += 1
                    default: Issue.record("\(event) for \(type) in RESP\(version)")
                    }
                }
                #expect(replies == 2, "\(type) in RESP\(version)")
            }
        }
        #expect(seen == Set("$:,*_~%=#(".utf8))
        #expect(pushes == 1)
    }

    @Test func `Bytes a script puts into a reply make no second one`() throws {
        let server = try RedisServer()
        let scripts = [
            "return redis.error_reply('a\\r\\n+b')",
            "return redis.status_reply('a\\r\\n+b\\rc\\0')",
            "error('a\\r\\n+b')", "redis.setresp(3) return {big_number='1\\r\\n:2\\0'}",
            "redis.setresp(3) return {double=0/0}", "redis.setresp(3) return {double=-1/0}",
            "redis.setresp(3) return {double=1e300}",
            "redis.setresp(3) return {verbatim_string={format='x\\r\\n',string='\\r\\n'}}",
        ]
        for version in ["2", "3"] {
            for script in scripts {
                var stream: [UInt8] = []
                RequestEncoder.append(["HELLO", version], to: &stream)
                RequestEncoder.append(["EVAL", script, "0"], to: &stream)
                #expect(countReplies(try server.exchange(stream)) == 2, "\(script)")
            }
        }
    }

    @Test func `The server's HELLO is read in both protocols`() throws {
        let server = try RedisServer()
        for version in [2, 3] {
            let reply = try server.exchange(Array("HELLO \(version)\r\n".utf8))
            let hello = try #require(reply.withUnsafeBytes { HelloReply.parse($0) })
            #expect(hello.protocolVersion == version)
            #expect(try #require(hello.connectionID) > 0)
            #expect(hello.role == Array("master".utf8))
            #expect(!hello.version.isEmpty && !hello.mode.isEmpty)
        }
    }

    @Test func `The server stops at a NUL byte in a keyword, as our comparison does`() throws {
        let server = try RedisServer()
        var stream: [UInt8] = []
        RequestEncoder.append(["CLIENT", "REPLY", "OFF\0junk"], to: &stream)
        RequestEncoder.append(["PING"], to: &stream)
        #expect(try server.exchange(stream) == [])
        #expect(Array("OFF\0junk".utf8).withUnsafeBytes { $0.equalsIgnoringCase("OFF") })
    }

    @Test func `The server takes some names with a NUL byte for the command before it`() throws {
        let server = try RedisServer()
        var stream: [UInt8] = []
        for number in 0..<10_000 { RequestEncoder.append(["PING\0\(number)"], to: &stream) }
        let replies = try server.exchange(stream)
        // Which ones depends on the server's seed; of 10,000 about 40. Were there none, refusing
        // such names would be needless.
        #expect(replies.split(separator: 0x0A).contains { $0.elementsEqual("+PONG\r".utf8) })
    }
}
