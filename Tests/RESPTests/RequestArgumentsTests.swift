import RESP
import Testing

private func arguments(_ text: String) -> [String] {
    let bytes = Array(text.utf8)
    let memory = FencedMemory(capacity: bytes.count + 1)
    let frame = UnsafeRawBufferPointer(
        start: memory.place(bytes[...], atFront: false), count: bytes.count)
    return RequestArguments(frame).map { String(decoding: $0, as: UTF8.self) }
}

@Suite struct RequestArgumentsTests {
    @Test func `The arguments of a request come in their order`() {
        #expect(
            arguments("*3\r\n$3\r\nSET\r\n$0\r\n\r\n$4\r\na\r\nb\r\n") == ["SET", "", "a\r\nb"])
        #expect(arguments("*0\r\n") == [])
        #expect(arguments("*-1\r\n") == [])
    }

    @Test func `Of what is no request there is as much as is one, and no trap`() {
        #expect(arguments("") == [])
        #expect(arguments("*") == [])
        #expect(arguments("PING\r\n") == [])
        #expect(arguments("*9223372036854775807\r\n$1\r\na\r\n") == ["a"])
        #expect(arguments("*2\r\n$1\r\na\r\n$5\r\nab\r\n") == ["a"])
        #expect(arguments("*2\r\n$1\r\na\r\n$9223372036854775807\r\nab\r\n") == ["a"])
        #expect(arguments("*2\r\n$1\r\na\r\n:1\r\n") == ["a"])
        #expect(arguments("*1\r\n$-1\r\n") == [])
        #expect(arguments("*1\r\n$1\r\na") == [])
        #expect(arguments("*1\r\n$1\r\na\r") == [])
        #expect(arguments("*1\r") == [])
    }

    @Test func `Garbage is read to an end without a trap`() {
        let seed = testSeed()
        var generator = SeededGenerator(seed: seed)
        for _ in 0..<5000 {
            var bytes = RequestGenerator.multibulk(
                arguments: 1 + generator.small(upTo: 5), using: &generator)
            RequestGenerator.mutate(&bytes, using: &generator)
            bytes.withUnsafeBytes { raw in
                let arguments = Array(RequestArguments(raw))
                #expect(arguments.map(\.count).reduce(0, +) <= raw.count, "seed \(seed)")
            }
        }
    }

    @Test func `A keyword is compared as the server compares it`() {
        func equals(_ text: String, _ word: StaticString) -> Bool {
            Array(text.utf8).withUnsafeBytes { $0.equalsIgnoringCase(word) }
        }
        #expect(equals("OFF", "off"))
        #expect(equals("oFf", "OFF"))
        #expect(equals("off\0junk", "OFF"))
        #expect(equals("off\0", "OFF"))
        #expect(!equals("offx", "OFF"))
        #expect(!equals("of", "OFF"))
        #expect(!equals("of\0", "OFF"))
        #expect(!equals("", "OFF"))
        #expect(!equals("\0off", "OFF"))
        #expect(!equals("o&f", "OFF"))
        #expect(equals("no-evict", "NO-EVICT"))
        // "\r" and "-" differ in the bit that tells the cases of letters apart.
        #expect(!equals("no\revict", "NO-EVICT"))
        #expect(!equals("@", "`"))
    }

    @Test func `A request is encoded as the server reads it`() {
        var buffer = Array("before".utf8)
        RequestEncoder.append(["HELLO", "3", ""], to: &buffer)
        RequestEncoder.append([[0xFF, 0x0D, 0x0A]], to: &buffer)
        #expect(
            buffer == Array("before*3\r\n$5\r\nHELLO\r\n$1\r\n3\r\n$0\r\n\r\n*1\r\n$3\r\n".utf8)
                + [0xFF, 0x0D, 0x0A, 0x0D, 0x0A])
    }
}
