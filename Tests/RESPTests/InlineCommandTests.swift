import RESP
import Testing

/// `InlineCommand.Result`, with the request's bytes.
private enum Encoded: Equatable {
    case none
    case request([UInt8])
    case violation(ProtocolViolation)
}

private func encode(_ line: [UInt8]) -> Encoded {
    let capacity = InlineCommand.capacity(for: line.count)
    let (input, output) = (
        FencedMemory(capacity: line.count + 1), FencedMemory(capacity: capacity)
    )
    let memory = UnsafeMutableRawBufferPointer(
        start: UnsafeMutableRawPointer(
            mutating: output.place(Array(repeating: 0, count: capacity)[...], atFront: false)),
        count: capacity
    )
    let line = UnsafeRawBufferPointer(
        start: input.place(line[...], atFront: false), count: line.count)
    switch InlineCommand.encode(line, into: memory) {
    case .none: return .none
    case .request(let byteCount): return .request(Array(memory[..<byteCount]))
    case .violation(let violation): return .violation(violation)
    }
}

private func request(_ arguments: [[UInt8]]) -> Encoded {
    var request: [UInt8] = []
    RequestEncoder.append(arguments, to: &request)
    return .request(request)
}

private func request(_ arguments: String...) -> Encoded {
    request(arguments.map { Array($0.utf8) })
}

@Suite struct InlineCommandTests {
    private func expect(
        _ line: String, _ expected: Encoded,
        sourceLocation: SourceLocation = #_sourceLocation
    ) {
        for end in ["", "\n", "\r\n"] {
            #expect(
                encode(Array((line + end).utf8)) == expected, "\((line + end).debugDescription)",
                sourceLocation: sourceLocation)
        }
    }

    @Test func `Arguments are separated by any number of blanks`() {
        expect("PING", request("PING"))
        expect("SET k v", request("SET", "k", "v"))
        expect("  \t SET \u{0B}\u{0C} k\tv  ", request("SET", "k", "v"))
        expect("SET k\rv", request("SET", "k", "v"))
    }

    @Test func `A vertical tab or form feed inside a word is part of it`() {
        expect("a\u{0B}b\u{0C} c", request("a\u{0B}b\u{0C}", "c"))
    }

    @Test func `A blank line is no command`() {
        for line in ["", " ", "\t \u{0B}\u{0C}", "\r"] { expect(line, .none) }
    }

    @Test func `Double quotes hold blanks and know escapes`() {
        expect(#"SET "a b" """#, request("SET", "a b", ""))
        expect(#""\n\r\t\b\a\\\"\q\xZZ\x4""#, request("\n\r\t\u{8}\u{7}\\\"qxZZx4"))
        expect(#""'""#, request("'"))
        #expect(encode(Array(#"a "\xfF\x0a\x00""#.utf8)) == request([[0x61], [0xFF, 0x0A, 0]]))
    }

    @Test func `Single quotes hold all but a quote, which is escaped`() {
        expect(#"'a "b" \n \x41' 'it\'s'"#, request(#"a "b" \n \x41"#, "it's"))
    }

    @Test func `Quotes may begin inside a word`() {
        expect(#"a"b c"  d'e'"#, request("ab c", "de"))
    }

    @Test func `A quote not closed, or closed inside a word, is refused`() {
        for line in [
            #"""#, #"'"#, #"SET "a"#, #"SET 'a"#, #""a"b"#, #"'a'b"#, #""a""b""#, #"'a''b'"#,
            #""a\""#, #"'a\'"#, #""a\"#, #"a"b"c"#,
        ] {
            expect(line, .violation(.unbalancedQuotes))
        }
    }

    @Test func `A name of POST or Host: in any form is refused`() {
        for line in [
            "POST / HTTP/1.1", "post", "Host: example.com", "HOST:", #""\x70ost" x"#, "'host:'",
            #""post\x00x""#,
        ] {
            expect(line, .violation(.crossProtocol))
        }
        expect("POSTS", request("POSTS"))
        expect("SET POST Host:", request("SET", "POST", "Host:"))
        expect("host\u{1A}", request("host\u{1A}"))
    }

    @Test func `A NUL byte is refused in the line, and behind a name that needs treatment`() {
        expect("PI\0NG", .violation(.lineWithNUL))
        expect(#""multi\x00""#, .violation(.ambiguousCommand))
        #expect(encode(Array(#""get\x00" k"#.utf8)) == request([[0x67, 0x65, 0x74, 0], [0x6B]]))
    }

    @Test func `What comes out is one request that says the same as what went in`() {
        let seed = testSeed()
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<2000 {
            let arguments = (0..<1 + generator.small(upTo: 5)).map { index in
                index == 0
                    ? Array("GET".utf8)
                    : (0..<generator.small(upTo: 40)).map { _ in generator.byte() }
            }
            let line = arguments.map { argument in
                "\""
                    + argument.map { byte in
                        if generator.oneIn(2), (0x30...0x39).contains(byte) || byte > 0x60,
                            byte < 0x7B
                        {
                            return String(UnicodeScalar(byte))
                        }
                        let digits = String(byte, radix: 16)
                        return "\\x" + (digits.count == 1 ? "0" : "") + digits
                    }.joined() + "\""
            }.joined(separator: " ")
            guard case .request(let encoded) = encode(Array(line.utf8)) else {
                Issue.record("\(line), seed \(seed)")
                continue
            }
            encoded.withUnsafeBytes { raw in
                var framer = RequestFramer()
                #expect(
                    framer.next(raw.baseAddress!, count: raw.count)
                        == .frame(length: raw.count, command: .plain))
                #expect(RequestArguments(raw).map { Array($0) } == arguments, "seed \(seed)")
            }
        }
    }

    @Test func `Garbage is read to an end without a trap`() {
        let seed = testSeed()
        var generator = SeededGenerator(seed: seed)
        let telling = Array("\"'\\xn \taF0".utf8)
        var kinds: Set<String> = []
        for _ in 0..<20_000 {
            let line = (0..<generator.small(upTo: 24)).map { _ in
                generator.oneIn(12)
                    ? generator.byte() : telling.randomElement(using: &generator) ?? 0
            }
            switch encode(line) {
            case .none: kinds.insert("none")
            case .request(let encoded):
                kinds.insert("request")
                if case .frame(let bytes, _)? = RequestReference.events(in: encoded).first {
                    #expect(bytes == encoded, "seed \(seed)")
                } else {
                    Issue.record("\(line) is no request, seed \(seed)")
                }
            case .violation: kinds.insert("violation")
            }
        }
        #expect(kinds == ["none", "request", "violation"])
    }
}
