import RESP
import Testing

/// A stream and what it holds, named on one line.
private struct Vector<Outcome: Sendable>: CustomTestStringConvertible, Sendable {
    let text: String
    let expected: Outcome

    init(_ text: String, _ expected: Outcome) {
        self.text = text
        self.expected = expected
    }

    var testDescription: String { text.debugDescription }
}

/// Streams whose events are written down, each fed whole, byte by byte and at every cut.
private let vectors: [Vector<[RequestEvent]>] = {
    func frame(_ text: String, _ command: CommandClass) -> RequestEvent {
        .frame(Array(text.utf8), command)
    }
    func inline(_ text: String) -> RequestEvent { .inline(Array(text.utf8)) }
    func unfinished(_ text: String) -> RequestEvent { .unfinished(Array(text.utf8)) }
    let get = "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"
    let ping = "*1\r\n$4\r\nPING\r\n"
    let z = "*4\r\n$13\r\nZRANGEBYSCORE\r\n$2\r\nzz\r\n$4\r\n-inf\r\n$0\r\n\r\n"
    return [
        Vector(get + ping, [frame(get, .plain), frame(ping, .plain)]),
        Vector(z + z, [frame(z, .plain), frame(z, .plain)]),
        Vector("*1\r\n$0\r\n\r\n", [frame("*1\r\n$0\r\n\r\n", .plain)]),
        Vector("*1\r\n$1\r\n\r\r\n", [frame("*1\r\n$1\r\n\r\r\n", .plain)]),
        Vector("*1\r\n$2\r\n\r\n\r\n", [frame("*1\r\n$2\r\n\r\n\r\n", .plain)]),
        Vector("*1\r\n$5\r\nmulti\r\n", [frame("*1\r\n$5\r\nmulti\r\n", .multi)]),
        Vector(
            "*2\r\n$12\r\npunsubscribe\r\n$1\r\nx\r\n",
            [frame("*2\r\n$12\r\npunsubscribe\r\n$1\r\nx\r\n", .unsubscribe)]
        ),
        Vector(
            "*0\r\n*-1\r\n\r\n\n",
            [
                frame("*0\r\n", .none), frame("*-1\r\n", .none), inline("\r\n"), inline("\n"),
            ]
        ),
        Vector("*-9223372036854775808\r\n", [frame("*-9223372036854775808\r\n", .none)]),
        Vector(
            "PING a\r\nGET k\n\u{16}x\n",
            [
                inline("PING a\r\n"), inline("GET k\n"), inline("\u{16}x\n"),
            ]
        ),
        Vector(
            get + "*2147483647\r\n$1\r\nx\r\n$3\r\nab",
            [
                frame(get, .plain), unfinished("*2147483647\r\n$1\r\nx\r\n$3\r\nab"),
            ]
        ),
        Vector("*1\r\n$536870912\r\nx", [unfinished("*1\r\n$536870912\r\nx")]),
        Vector("\u{16}", [unfinished("\u{16}")]),
        Vector("*1\r", [unfinished("*1\r")]),
        Vector("*x", [unfinished("*x")]),
        Vector("*1\r\nx\r", [unfinished("*1\r\nx\r")]),
    ]
}()

private let violations: [Vector<ProtocolViolation>] = [
    Vector("*\r\n", .invalidMultibulkLength),
    Vector("*x\r\n", .invalidMultibulkLength),
    Vector("*1x\r\n", .invalidMultibulkLength),
    Vector("*+1\r\n", .invalidMultibulkLength),
    Vector("* 1\r\n", .invalidMultibulkLength),
    Vector("*1 \r\n", .invalidMultibulkLength),
    Vector("*01\r\n", .invalidMultibulkLength),
    Vector("*00\r\n", .invalidMultibulkLength),
    Vector("*-0\r\n", .invalidMultibulkLength),
    Vector("*-\r\n", .invalidMultibulkLength),
    Vector("*--1\r\n", .invalidMultibulkLength),
    Vector("*1\n$4\nPING\n\r\n", .invalidMultibulkLength),
    Vector("*2147483648\r\n", .invalidMultibulkLength),
    Vector("*9223372036854775808\r\n", .invalidMultibulkLength),
    Vector("*-9223372036854775809\r\n", .invalidMultibulkLength),
    Vector("*18446744073709551617\r\n", .invalidMultibulkLength),
    // 4, if multiplying by ten may lose what passes 64 bits.
    Vector("*18446744073709551620\r\n", .invalidMultibulkLength),
    Vector("*1\r\n$18446744073709551620\r\nPING\r\n", .invalidBulkLength),
    Vector("*2147483648\rx", .invalidMultibulkLength),
    Vector("*1\r\n$\r\n", .invalidBulkLength),
    Vector("*1\r\n$-1\r\n", .invalidBulkLength),
    Vector("*1\r\n$04\r\nPING\r\n", .invalidBulkLength),
    Vector("*1\r\n$+4\r\nPING\r\n", .invalidBulkLength),
    Vector("*1\r\n$4 \r\nPING\r\n", .invalidBulkLength),
    Vector("*1\r\n$4\nPING\r\n", .invalidBulkLength),
    Vector("*1\r\n$536870913\r\n", .invalidBulkLength),
    Vector("*1\r\n$99999999999999999999\r\n", .invalidBulkLength),
    Vector("*2\r\n$3\r\nGET\r\n$01\r\nx\r\n", .invalidBulkLength),
    Vector("*1\r\nPING\r\n", .expectedBulk(got: UInt8(ascii: "P"))),
    Vector("*2\r\n$3\r\nGET\r\n:1\r\n", .expectedBulk(got: UInt8(ascii: ":"))),
    Vector("*1\r\n\r\n", .expectedBulk(got: 0x0D)),
    Vector("*1\r\n*1\r\n", .expectedBulk(got: UInt8(ascii: "*"))),
    Vector("*1\r\n$4\r\nPINGxx", .bulkWithoutTerminator),
    Vector("*1\r\n$4\r\nPING\rx", .bulkWithoutTerminator),
    Vector("*1\r\n$4\r\nPING\n\r", .bulkWithoutTerminator),
    Vector("*2\r\n$3\r\nGET\r\n$1\r\nkey\r\n", .bulkWithoutTerminator),
    Vector("*1\rx", .headerWithoutLineFeed),
    Vector("*0\r\r", .headerWithoutLineFeed),
    Vector("*1\r\n$4\rx", .headerWithoutLineFeed),
    Vector("*1\0\r\n", .lineWithNUL),
    Vector("*1\r\n\0\r\n", .lineWithNUL),
    Vector("PING\0\r\n", .lineWithNUL),
    Vector("*1\r\n$4\r\nPOST\r\n", .crossProtocol),
    Vector("*3\r\n$5\r\nhOsT:\r\n$1\r\nx\r\n", .crossProtocol),
    Vector("*1\r\n$9\r\npost\0more\r\n", .crossProtocol),
    Vector("*1\r\n$6\r\nMULTI\0\r\n", .ambiguousCommand),
    Vector("*1\r\n$20\r\npunsubscribe\0abcdefg\r\n", .ambiguousCommand),
    Vector("\u{16}\u{03}\u{01}", .tlsClientHello),
]

private func feed(_ stream: [UInt8], cuts: [Int], atFront: Bool) -> [RequestEvent] {
    var feeder = RequestFeeder(memory: FencedMemory(capacity: stream.count + 1))
    var start = 0
    for cut in cuts + [stream.count] {
        feeder.feed(stream[start..<cut], atFront: atFront)
        start = cut
    }
    return feeder.finish()
}

@Suite struct RequestFramerTests {
    @Test(arguments: vectors)
    fileprivate func `A stream holds the same requests whole, byte by byte and at every cut`(
        _ vector: Vector<[RequestEvent]>
    ) {
        let stream = Array(vector.text.utf8)
        let expected = vector.expected
        #expect(RequestReference.events(in: stream) == expected)
        for atFront in [true, false] {
            #expect(feed(stream, cuts: [], atFront: atFront) == expected)
            #expect(feed(stream, cuts: Array(1..<stream.count), atFront: atFront) == expected)
            for cut in 0...stream.count {
                #expect(feed(stream, cuts: [cut], atFront: atFront) == expected, "cut at \(cut)")
            }
        }
    }

    @Test(arguments: violations)
    fileprivate func `A violation is found however the stream is cut, behind good requests too`(
        _ vector: Vector<ProtocolViolation>
    ) {
        let text = vector.text
        let violation = RequestEvent.violation(vector.expected)
        let good = Array("*2\r\n$3\r\nGET\r\n$1\r\nk\r\n".utf8)
        for stream in [Array(text.utf8), good + Array(text.utf8)] {
            let expected =
                stream.count == text.utf8.count
                ? [violation] : [.frame(good, .plain), violation]
            #expect(RequestReference.events(in: stream) == expected)
            #expect(feed(stream, cuts: Array(1..<stream.count), atFront: false) == expected)
            for cut in 0...stream.count {
                #expect(feed(stream, cuts: [cut], atFront: false) == expected, "cut at \(cut)")
            }
        }
    }

    @Test func `After a violation nothing is a request`() {
        var framer = RequestFramer()
        let bytes = Array("*x\r\n*1\r\n$4\r\nPING\r\n".utf8)
        bytes.withUnsafeBytes { raw in
            let expected = RequestScan.violation(.invalidMultibulkLength)
            #expect(framer.next(raw.baseAddress!, count: raw.count) == expected)
            #expect(framer.next(raw.baseAddress! + 4, count: raw.count - 4) == expected)
            #expect(framer.next(raw.baseAddress!, count: 0) == expected)
        }
    }

    /// A line of `count` bytes before its end.
    private func line(_ start: String, _ byte: Character, _ count: Int) -> [UInt8] {
        Array(start.utf8) + Array(repeating: byte.asciiValue ?? 0, count: count - start.utf8.count)
    }

    @Test func `A line of 64 KiB may go on, and one byte more may not`() {
        let limits: [(String, String, ProtocolViolation)] = [
            ("", "x", .tooBigInline), ("*", "1", .tooBigMultibulkCount),
        ]
        for (start, byte, violation) in limits {
            let most = line(start, Character(byte), 65_536)
            #expect(feed(most, cuts: [], atFront: false) == [.unfinished(most)])
            #expect(feed(most + [0x78], cuts: [], atFront: false) == [.violation(violation)])
            #expect(feed(most + [0x78], cuts: [65_536], atFront: false) == [.violation(violation)])
        }
        #expect(
            feed(line("", "x", 65_536) + [0x0A], cuts: [9], atFront: false)
                == [.inline(line("", "x", 65_536) + [0x0A])])
        #expect(
            feed(line("*", "x", 65_536) + [0x0D, 0x0A], cuts: [9], atFront: false)
                == [.violation(.invalidMultibulkLength)])
        for (start, byte) in [("$", "1"), ("x", "x")] {
            let head = Array("*1\r\n".utf8)
            let most = head + line(start, Character(byte), 65_536)
            #expect(feed(most, cuts: [], atFront: false) == [.unfinished(most)])
            #expect(
                feed(most + [0x78], cuts: [70], atFront: false)
                    == [.violation(.tooBigBulkCount)])
        }
    }

    @Test func `Bytes that were looked at are not looked at again`() {
        let starts = ["", "*x", "*1\r\nx", "*1\r\n$4x", "*2\r\n$3\r\nGET\r\n$9000\r\n"]
        for start in starts {
            var stream = Array(start.utf8) + [UInt8](repeating: 0x78, count: 4000)
            let half = start.utf8.count + 2000
            var framer = RequestFramer()
            stream.withUnsafeBytes {
                #expect(framer.next($0.baseAddress!, count: half) == .incomplete)
            }
            // Whatever would end a line, or be refused in one.
            for index in start.utf8.count..<half { stream[index] = [0x0A, 0x0D, 0][index % 3] }
            stream.withUnsafeBytes {
                #expect(
                    framer.next($0.baseAddress!, count: $0.count) == .incomplete,
                    "\(start.debugDescription)")
            }
        }
    }

    @Test func `A big argument is told by what is missing, and handed on as it comes`() {
        let head = Array("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000000\r\n".utf8)
        let body = [UInt8](repeating: 0x61, count: 1_000_000)
        let memory = FencedMemory(capacity: 4096)
        var framer = RequestFramer()
        func next(_ bytes: ArraySlice<UInt8>) -> RequestScan {
            framer.next(memory.place(bytes, atFront: false), count: bytes.count)
        }
        #expect(next(head[...]) == .incomplete)
        #expect(framer.command == .plain)
        #expect(framer.scanned == head.count)
        #expect(framer.missing == 1_000_002)
        framer.discard(head.count)
        for start in stride(from: 0, to: 1_000_000, by: 4000) {
            #expect(framer.missing == 1_000_002 - start)
            #expect(next(body[start..<start + 4000]) == .incomplete)
            #expect(framer.scanned == 4000)
            framer.discard(4000)
        }
        #expect(framer.missing == 2)
        #expect(next([0x0D]) == .incomplete)
        #expect(framer.scanned == 0)
        #expect(framer.missing == 1)
        #expect(next([0x0D, 0x0A, 0x2A]) == .frame(length: 2, command: .plain))
        #expect(framer.isAtFrameStart)
        #expect(framer.command == nil)
    }

    @Test func `The command is known as soon as its name has come`() {
        let stream = Array("*2\r\n$4\r\nauth\r\n$6\r\nsecret\r\n".utf8)
        var framer = RequestFramer()
        stream.withUnsafeBytes { raw in
            for count in 1..<raw.count {
                #expect(framer.next(raw.baseAddress!, count: count) == .incomplete)
                #expect(framer.command == (count < 12 ? nil : .auth), "after \(count) bytes")
            }
        }
    }

    @Test func `A name of half a gigabyte is plain after thirteen bytes`() {
        let stream = Array("*1\r\n$536870912\r\nSUBSCRIBEXXXX".utf8)
        var framer = RequestFramer()
        stream.withUnsafeBytes { raw in
            #expect(framer.next(raw.baseAddress!, count: raw.count - 1) == .incomplete)
            #expect(framer.command == nil)
            #expect(framer.next(raw.baseAddress!, count: raw.count) == .incomplete)
            #expect(framer.command == .plain)
            #expect(framer.missing == 536_870_912 - 13 + 2)
        }
    }

    @Test func `Nothing is missing less than what comes, and something always is`() {
        let stream = Array("*3\r\n$3\r\nSET\r\n$0\r\n\r\n$12\r\nabcdefghijkl\r\n".utf8)
        var framer = RequestFramer()
        stream.withUnsafeBytes { raw in
            for count in 1..<raw.count {
                #expect(framer.next(raw.baseAddress!, count: count) == .incomplete)
                #expect((1...raw.count - count).contains(framer.missing), "after \(count) bytes")
                #expect((0...count).contains(framer.scanned))
                #expect(!framer.isAtFrameStart)
            }
        }
    }

    @Test func `No bytes at all are no frame`() {
        var framer = RequestFramer()
        withUnsafeBytes(of: 0) { raw in
            #expect(framer.next(raw.baseAddress!, count: 0) == .incomplete)
        }
        #expect(framer.isAtFrameStart)
    }
}

@Suite struct RequestFramerExhaustion {
    @Test func `With any byte replaced by any other a stream is what the reference says`() {
        let memory = FencedMemory(capacity: 4096)
        for text in [
            "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", "*1\r\n$4\r\nPOST\r\n",
            "*1\r\n$12\r\nPUNSUBSCRIBE\r\n",
            "*3\r\n$3\r\nSET\r\n$10\r\n0123456789\r\n$2\r\n\r\n\r\n",
            "*2\r\n$3\r\nGET\r\n$101\r\n\(String(repeating: "x", count: 101))\r\n",
            "*10\r\n\(String(repeating: "$1\r\nx\r\n", count: 10))",
            "*-1\r\n", "ECHO x\r\n",
        ] {
            var stream = Array(text.utf8)
            // Behind it, what a wrong number could swallow.
            stream += Array("*2\r\n$4\r\nECHO\r\n$1\r\nx\r\n".utf8)
            for index in 0..<text.utf8.count {
                for byte in UInt8.min...UInt8.max {
                    var changed = stream
                    changed[index] = byte
                    let expected = RequestReference.events(in: changed)
                    var whole = RequestFeeder(memory: memory)
                    whole.feed(changed[...], atFront: false)
                    if whole.finish() != expected {
                        Issue.record("byte \(index) of \(text.debugDescription) made \(byte)")
                    }
                }
            }
        }
    }
}

@Suite struct RequestFramerProperties {
    /// Streams per property; each is fed whole, byte by byte and at random cuts.
    private let rounds = 1500

    private func randomCuts(_ count: Int, using generator: inout SeededGenerator) -> [Int] {
        (0..<generator.small(upTo: 12)).map { _ in Int.random(in: 0...count, using: &generator) }
            .sorted()
    }

    @Test func `Framer and reference agree on valid and on mutated streams, however cut`() {
        let seed = testSeed()
        var generator = SeededGenerator(seed: seed)
        var seen: Set<String> = []
        let memory = FencedMemory(capacity: 1 << 20)
        for round in 0..<rounds {
            var stream = RequestGenerator.stream(
                requests: 1 + generator.small(upTo: 5), using: &generator)
            if !generator.oneIn(3) { RequestGenerator.mutate(&stream, using: &generator) }
            let expected = RequestReference.events(in: stream)
            for event in expected { seen.insert(kind(event)) }

            var whole = RequestFeeder(memory: memory)
            whole.feed(stream[...], atFront: generator.oneIn(2))
            #expect(whole.finish() == expected, "whole, round \(round), seed \(seed)")

            var start = 0
            var pieces = RequestFeeder(memory: memory)
            let cuts = randomCuts(stream.count, using: &generator)
            for cut in cuts + [stream.count] {
                pieces.feed(
                    stream[start..<cut], atFront: generator.oneIn(2),
                    handOn: { generator.oneIn(2) ? generator.small(upTo: $0) : $0 })
                start = cut
            }
            #expect(pieces.finish() == expected, "cut, round \(round), seed \(seed)")
            if !whole.isBroken {
                #expect(pieces.state == whole.state, "state, round \(round), seed \(seed)")
            }

            if stream.count < 3000 {
                var bytes = RequestFeeder(memory: memory)
                for index in stream.indices {
                    bytes.feed(stream[index...index], atFront: false)
                }
                #expect(bytes.finish() == expected, "bytes, round \(round), seed \(seed)")
                if !whole.isBroken {
                    #expect(bytes.state == whole.state, "state, round \(round), seed \(seed)")
                }
            }
        }
        // A generator that never makes a kind of event would test nothing of it.
        for wanted in [
            "frame", "inline", "unfinished", "bulkWithoutTerminator",
            "invalidBulkLength", "invalidMultibulkLength", "expectedBulk", "lineWithNUL",
        ] {
            #expect(seen.contains(wanted), "no \(wanted) in \(rounds) rounds, seed \(seed)")
        }
    }

    private func kind(_ event: RequestEvent) -> String {
        switch event {
        case .frame: "frame"
        case .inline: "inline"
        case .unfinished: "unfinished"
        case .violation(let violation):
            String(String(describing: violation).prefix { $0 != "(" })
        }
    }

    @Test func `At every cut of a valid stream what is missing is no more than what comes`() {
        let seed = testSeed()
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<200 {
            let request = RequestGenerator.multibulk(
                arguments: 1 + generator.small(upTo: 12), using: &generator)
            var framer = RequestFramer()
            request.withUnsafeBytes { raw in
                for count in 1..<raw.count {
                    #expect(framer.next(raw.baseAddress!, count: count) == .incomplete)
                    if !(1...raw.count - count).contains(framer.missing) {
                        Issue.record("\(framer.missing) missing at \(count), seed \(seed)")
                    }
                }
            }
        }
    }

    @Test func `Garbage is read to an end without a trap`() {
        let seed = testSeed()
        var generator = SeededGenerator(seed: seed)
        let memory = FencedMemory(capacity: 4096)
        for round in 0..<4000 {
            let count = generator.small(upTo: 300)
            var stream = (0..<count).map { _ in
                generator.oneIn(3)
                    ? generator.byte()
                    : RequestGenerator.tellingBytes.randomElement(using: &generator) ?? 0
            }
            if generator.oneIn(2) { stream = Array("*2\r\n".utf8) + stream }
            let expected = RequestReference.events(in: stream)
            var feeder = RequestFeeder(memory: memory)
            var start = 0
            for cut in randomCuts(stream.count, using: &generator) + [stream.count] {
                feeder.feed(stream[start..<cut], atFront: generator.oneIn(2), handOn: { $0 })
                start = cut
            }
            #expect(feeder.finish() == expected, "round \(round), seed \(seed)")
        }
    }
}
