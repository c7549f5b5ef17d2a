import RESP
import Testing

/// One frame and the type a caller should see.
private struct Frame: ExpressibleByStringLiteral {
    let text: String
    let type: UInt8

    init(_ text: String, type: Character? = nil) {
        self.text = text
        self.type = type?.asciiValue ?? text.utf8.first ?? 0
    }

    init(stringLiteral text: String) { self.init(text) }
}

/// Streams of one frame, or of several.
private let wellFormed: [[Frame]] = [
    ["+OK\r\n"], ["+\r\n"], ["+a\rb\nc\r\r\n"], ["-ERR no\r\n"], ["-\r\n"],
    [":0\r\n"], [":-1\r\n"], [":123456789012345678901\r\n"], [":007\r\n"],
    ["$0\r\n\r\n"], ["$2\r\n\r\n\r\n"], ["$-1\r\n"], ["$10\r\n0123456789\r\n"],
    [Frame("$123\r\n" + String(repeating: "x", count: 123) + "\r\n")],
    ["*0\r\n"], ["*-1\r\n"], ["*2\r\n:1\r\n$1\r\na\r\n"], ["*1\r\n*1\r\n*0\r\n"],
    [Frame("*12\r\n" + String(repeating: ":1\r\n", count: 12))],
    ["*3\r\n$-1\r\n*-1\r\n_\r\n"],
    ["_\r\n"], [",1.5\r\n"], [",-inf\r\n"], [",nan\r\n"], [",1e-7\r\n"], ["#t\r\n"], ["#f\r\n"],
    ["!5\r\nERR x\r\n"], ["=5\r\ntxt:a\r\n"], ["(-123456789012345678901234567890\r\n"],
    ["(12x\r\n"],
    ["%0\r\n"], ["%2\r\n+a\r\n:1\r\n+b\r\n%1\r\n+c\r\n_\r\n"], ["~2\r\n:1\r\n:2\r\n"],
    [Frame("|1\r\n+ttl\r\n:9\r\n$1\r\na\r\n", type: "$")], [Frame("|0\r\n+OK\r\n", type: "+")],
    [Frame("|1\r\n+k\r\n*2\r\n:1\r\n:2\r\n*2\r\n:1\r\n:2\r\n", type: "*")],
    [Frame("|1\r\n+a\r\n:1\r\n|1\r\n+b\r\n:2\r\n+OK\r\n", type: "+")],
    ["*2\r\n|1\r\n+a\r\n:1\r\n:5\r\n:6\r\n"],
    [Frame("|1\r\n|1\r\n+x\r\n:1\r\n+k\r\n|0\r\n+v\r\n*1\r\n:1\r\n", type: "*")],
    ["+OK\r\n", ":1\r\n", "$2\r\nab\r\n", "_\r\n", "*1\r\n+a\r\n", "+OK\r\n"],
]

private let malformed: [String] = [
    "x", "\r\n", "\0", "*x", "*\r\n", "*1x", "*01", "*-0", "*--", "*-2\r\n", "*+1", "* 1",
    "$x", "$\r\n", "$-2\r\n", "$-10\r\n", "$01", "$1\rx", "$1\r\naxx", "$1\r\nabc", "$1\r\na\rx",
    "$0\r\nx", "*1\rx", "%-1\r\n", "~-1\r\n", ">-1\r\n", "|-1\r\n", "!-1\r\n", "=-1\r\n",
    "$?", "*?", "%?", ".\r\n", ";4", ":\r\n", ":-\r\n", ":1-", ":+1", ":1a", ":1\rx", "_x", "_\rx",
    "#\r\n", "#x", "#tt", "#t\rx", ",\r\n", ",x", ",1\rx",
    "$1234567890123456789", "*1234567890123456789", "*99999999999999999999999",
    "*2\r\n:1\r\nx", "|1\r\n+a\r\n+b\r\nx",
    String(repeating: "%999999999999999999\r\n", count: 5),
]

private func events(_ stream: [UInt8], cuts: [Int]) -> [ReplyEvent] {
    var feeder = ReplyFeeder(memory: FencedMemory(capacity: stream.count + 1))
    var start = 0
    for cut in cuts + [stream.count] {
        feeder.feed(stream[start..<cut], atFront: cut.isMultiple(of: 2))
        start = cut
    }
    return feeder.finish()
}

@Suite struct ReplyFramerTests {
    @Test func `A reply of every type ends where it ends, whole, byte by byte and at every cut`() {
        for frames in wellFormed {
            let stream = Array(frames.map(\.text).joined().utf8)
            var end = 0
            let expected = frames.map { frame in
                end += frame.text.utf8.count
                return ReplyEvent.reply(type: frame.type, end: end)
            }
            let name = frames.map(\.text).joined().debugDescription
            #expect(ReplyReference.events(in: stream) == expected, "reference, \(name)")
            #expect(events(stream, cuts: []) == expected, "\(name)")
            #expect(events(stream, cuts: Array(1..<stream.count)) == expected, "\(name)")
            for cut in 0...stream.count {
                #expect(events(stream, cuts: [cut]) == expected, "\(name) cut at \(cut)")
            }
        }
    }

    @Test func `What is not RESP is refused, whole, byte by byte and at every cut`() {
        for text in malformed {
            let good = Array("*1\r\n+OK\r\n".utf8)
            for stream in [Array(text.utf8), good + Array(text.utf8)] {
                let expected: [ReplyEvent] =
                    stream.count == text.utf8.count
                    ? [.violation] : [.reply(type: 0x2A, end: good.count), .violation]
                let name = text.debugDescription
                #expect(events(stream, cuts: []) == expected, "\(name)")
                #expect(events(stream, cuts: Array(1..<stream.count)) == expected, "\(name)")
                for cut in 0...stream.count {
                    #expect(events(stream, cuts: [cut]) == expected, "\(name) cut at \(cut)")
                }
            }
        }
    }

    @Test func `After a violation nothing is a reply`() {
        var framer = ReplyFramer()
        let bytes = Array("x+OK\r\n".utf8)
        bytes.withUnsafeBytes { raw in
            #expect(framer.next(raw.baseAddress!, from: 0, to: 6) == .violation)
            #expect(framer.next(raw.baseAddress!, from: 1, to: 6) == .violation)
            #expect(framer.next(raw.baseAddress!, from: 6, to: 6) == .violation)
        }
    }

    @Test func `A push is told from a reply, complete and in progress`() {
        let push = Array(">2\r\n+invalidate\r\n*1\r\n$3\r\nkey\r\n".utf8)
        let stream = Array("+OK\r\n".utf8) + push + Array(":1\r\n".utf8)
        let expected: [ReplyEvent] = [
            .reply(type: 0x2B, end: 5), .push(end: 5 + push.count),
            .reply(type: 0x3A, end: stream.count),
        ]
        #expect(ReplyReference.events(in: stream) == expected)
        for cut in 0...stream.count { #expect(events(stream, cuts: [cut]) == expected) }
        var feeder = ReplyFeeder(memory: FencedMemory(capacity: 64))
        for (index, byte) in push.dropLast().enumerated() {
            feeder.feed([byte][...], atFront: false)
            #expect(feeder.state.inPush && !feeder.state.isAtFrameStart, "after \(index + 1) bytes")
        }
        feeder.feed([0x0A][...], atFront: false)
        #expect(!feeder.state.inPush && feeder.state.isAtFrameStart)
    }

    @Test(
        "A push inside an aggregate takes no slot of it",
        arguments: [
            "*2\r\n>3\r\n$7\r\nmessage\r\n$1\r\na\r\n$1\r\nx\r\n:1\r\n_\r\n",
            "*1\r\n>4\r\n+a\r\n+b\r\n+c\r\n+d\r\n>0\r\n*2\r\n>1\r\n*1\r\n:1\r\n$1\r\na\r\n,1\r\n",
        ]
    )
    func interposedPush(reply: String) {
        let stream = Array(reply.utf8)
        for cut in 0...stream.count {
            #expect(events(stream, cuts: [cut]) == [.reply(type: 0x2A, end: stream.count)])
        }
    }

    @Test func `The type is that of the reply, not of the attribute before it`() {
        var framer = ReplyFramer()
        let bytes = Array("|1\r\n+a\r\n*1\r\n:1\r\n%0\r\n".utf8)
        bytes.withUnsafeBytes { raw in
            for index in 0..<raw.count - 4 {
                #expect(framer.next(raw.baseAddress!, from: index, to: index + 1) == .incomplete)
                #expect(framer.type == 0)
                #expect(!framer.isAtFrameStart)
            }
            #expect(
                framer.next(raw.baseAddress!, from: raw.count - 4, to: raw.count)
                    == .reply(end: raw.count))
            #expect(framer.type == UInt8(ascii: "%"))
        }
    }

    @Test func `Of a bulk in progress the bytes still to come are known`() {
        for (start, total) in [("$100\r\n", 102), ("*2\r\n$1000000\r\n", 1_000_002), ("=7\r\n", 9)]
        {
            var framer = ReplyFramer()
            let stream = Array(start.utf8) + Array(repeating: 0x78, count: 5)
            stream.withUnsafeBytes { raw in
                for index in 0..<start.utf8.count - 1 {
                    _ = framer.next(raw.baseAddress!, from: index, to: index + 1)
                    #expect(framer.bulkRemaining == 0)
                }
                _ = framer.next(
                    raw.baseAddress!, from: start.utf8.count - 1, to: start.utf8.count)
                #expect(framer.bulkRemaining == total)
                _ = framer.next(raw.baseAddress!, from: start.utf8.count, to: raw.count)
                #expect(framer.bulkRemaining == total - 5)
            }
        }
    }

    @Test func `A bulk longer than any chunk is passed over without a look at it`() {
        var framer = ReplyFramer()
        let head = Array("$300000000\r\n".utf8)
        let chunk = Array("*1\r\n".utf8) + Array(repeating: UInt8(0x0D), count: 999_996)
        head.withUnsafeBytes {
            #expect(framer.next($0.baseAddress!, from: 0, to: $0.count) == .incomplete)
        }
        chunk.withUnsafeBytes { raw in
            for _ in 0..<300 {
                #expect(framer.next(raw.baseAddress!, from: 0, to: raw.count) == .incomplete)
            }
        }
        #expect(framer.bulkRemaining == 2)
        ([0x0D, 0x0A, 0x2B] as [UInt8]).withUnsafeBytes {
            #expect(framer.next($0.baseAddress!, from: 0, to: 3) == .reply(end: 2))
        }
    }

    @Test func `Depth costs nothing`() {
        let depth = 200_000
        for opening in ["*1\r\n", "%1\r\n+k\r\n", "|1\r\n+k\r\n"] {
            let stream =
                Array(String(repeating: opening, count: depth).utf8) + Array(":1\r\n".utf8)
            // An attribute's own slot is still open behind what it holds.
            let rest = opening.hasPrefix("|") ? String(repeating: ":2\r\n", count: depth) : ""
            let all = stream + Array(rest.utf8)
            all.withUnsafeBytes { raw in
                var framer = ReplyFramer()
                #expect(
                    framer.next(raw.baseAddress!, from: 0, to: raw.count)
                        == .reply(end: raw.count))
            }
        }
    }

    @Test func `Counts that do not fit 64 bits are refused, and those that do are counted`() {
        let most = "*999999999999999999\r\n"
        let fits = Array(String(repeating: most, count: 9).utf8)
        #expect(events(fits, cuts: []) == [.unfinished(start: 0)])
        #expect(events(fits + Array(most.utf8), cuts: []) == [.violation])
        #expect(
            events(Array(String(repeating: "|999999999999999999\r\n", count: 5).utf8), cuts: [])
                == [.violation])
    }
}

@Suite struct ReplyFramerExhaustion {
    @Test func `With any byte replaced by any other a stream is what the reference says`() {
        let memory = FencedMemory(capacity: 4096)
        for frames in wellFormed {
            let text = frames.map(\.text).joined()
            // Behind it, what a wrong number could swallow.
            let stream = Array(text.utf8) + Array("+OK\r\n:1\r\n$1\r\na\r\n".utf8)
            for index in 0..<min(text.utf8.count, 60) {
                for byte in UInt8.min...UInt8.max {
                    var changed = stream
                    changed[index] = byte
                    let expected = ReplyReference.events(in: changed)
                    var whole = ReplyFeeder(memory: memory)
                    whole.feed(changed[...], atFront: false)
                    var pieces = ReplyFeeder(memory: memory)
                    pieces.feed(changed[..<index], atFront: false)
                    pieces.feed(changed[index...], atFront: false)
                    if whole.finish() != expected || pieces.finish() != expected {
                        Issue.record("byte \(index) of \(text.debugDescription) made \(byte)")
                    }
                }
            }
        }
    }
}

@Suite struct ReplyFramerProperties {
    private let rounds = 2500

    @Test func `Framer and reference agree on valid and on mutated streams, however cut`() {
        let seed = testSeed()
        var generator = SeededGenerator(seed: seed)
        let memory = FencedMemory(capacity: 1 << 20)
        var seen: Set<String> = []
        for round in 0..<rounds {
            var stream = ReplyGenerator.stream(
                replies: 1 + generator.small(upTo: 6), using: &generator)
            if !generator.oneIn(3) { RequestGenerator.mutate(&stream, using: &generator) }
            if stream.count > memory.capacity { continue }
            let expected = ReplyReference.events(in: stream)
            for event in expected { seen.insert(kind(event)) }

            var whole = ReplyFeeder(memory: memory)
            whole.feed(stream[...], atFront: generator.oneIn(2))
            #expect(whole.finish() == expected, "whole, round \(round), seed \(seed)")

            var pieces = ReplyFeeder(memory: memory)
            var start = 0
            let cuts = (0..<generator.small(upTo: 12))
                .map { _ in Int.random(in: 0...stream.count, using: &generator) }.sorted()
            for cut in cuts + [stream.count] {
                pieces.feed(stream[start..<cut], atFront: generator.oneIn(2))
                start = cut
            }
            #expect(pieces.finish() == expected, "cut, round \(round), seed \(seed)")

            var bytes = ReplyFeeder(memory: memory)
            for index in stream.indices { bytes.feed(stream[index...index], atFront: false) }
            #expect(bytes.finish() == expected, "bytes, round \(round), seed \(seed)")
            if !whole.isBroken {
                #expect(pieces.state == whole.state, "state, round \(round), seed \(seed)")
                #expect(bytes.state == whole.state, "state, round \(round), seed \(seed)")
            }
        }
        let wanted = Set("+-:,(#_$*!=~%".utf8.map { "reply \($0)" })
            .union(["push", "violation", "unfinished"])
        #expect(wanted.subtracting(seen).isEmpty, "seed \(seed)")
    }

    private func kind(_ event: ReplyEvent) -> String {
        switch event {
        case .reply(let type, _): "reply \(type)"
        case .push: "push"
        case .violation: "violation"
        case .unfinished: "unfinished"
        }
    }

    @Test func `Garbage is read to an end without a trap`() {
        let seed = testSeed()
        var generator = SeededGenerator(seed: seed)
        let memory = FencedMemory(capacity: 4096)
        let telling = Array("*$%~>|!=+-:,(#_0123456789\r\n\r\n".utf8)
        for round in 0..<6000 {
            let stream = (0..<generator.small(upTo: 200)).map { _ in
                generator.oneIn(20)
                    ? generator.byte() : telling.randomElement(using: &generator) ?? 0
            }
            let expected = ReplyReference.events(in: stream)
            var feeder = ReplyFeeder(memory: memory)
            var start = 0
            while start < stream.count {
                let end = min(stream.count, start + 1 + generator.small(upTo: 40))
                feeder.feed(stream[start..<end], atFront: generator.oneIn(2))
                start = end
            }
            #expect(feeder.finish() == expected, "round \(round), seed \(seed)")
        }
    }
}
