import RESP
import Testing

private func parse(_ bytes: [UInt8]) -> HelloReply? {
    let memory = FencedMemory(capacity: bytes.count + 1)
    return HelloReply.parse(
        UnsafeRawBufferPointer(
            start: memory.place(bytes[...], atFront: false), count: bytes.count))
}

private func parse(_ text: String) -> HelloReply? { parse(Array(text.utf8)) }

private let facts =
    "$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:3\r\n"
    + "$2\r\nid\r\n:1063\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
    + "$7\r\nmodules\r\n"
private let map = "%7\r\n" + facts + "*0\r\n"
private let array = "*14\r\n" + facts + "*0\r\n"
private let withModules =
    "%8\r\n$3\r\nnew\r\n|1\r\n+a\r\n+b\r\n*1\r\n%1\r\n+x\r\n_\r\n" + facts
    + "*1\r\n%4\r\n$4\r\nname\r\n$2\r\nbf\r\n$3\r\nver\r\n:20612\r\n$2\r\nid\r\n:9\r\n"
    + "$4\r\nargs\r\n*0\r\n"

@Suite struct HelloReplyTests {
    @Test func `Both protocols' replies are read, modules and unknown keys passed over`() {
        for text in [map, array, withModules] {
            let reply = parse(text)
            #expect(reply?.protocolVersion == 3)
            #expect(reply?.connectionID == 1063)
            #expect(reply?.version == Array("7.0.15".utf8))
            #expect(reply?.mode == Array("standalone".utf8))
            #expect(reply?.role == Array("master".utf8))
        }
    }

    @Test func `The ranges are those of the digits`() throws {
        for text in [map, array, withModules] {
            let reply = try #require(parse(text))
            let bytes = Array(text.utf8)
            #expect(bytes[try #require(reply.connectionIDRange)] == Array("1063".utf8)[...])
            #expect(bytes[try #require(reply.protocolVersionRange)] == Array("3".utf8)[...])
        }
    }

    @Test func `What the server does not say is missing`() throws {
        for text in ["%0\r\n", "*0\r\n"] {
            let reply = try #require(parse(text))
            #expect(reply.protocolVersion == nil && reply.protocolVersionRange == nil)
            #expect(reply.connectionID == nil && reply.connectionIDRange == nil)
            #expect(reply.version.isEmpty && reply.mode.isEmpty && reply.role.isEmpty)
        }
        #expect(parse("%1\r\n+mode\r\n+cluster\r\n")?.mode == Array("cluster".utf8))
        #expect(parse("%1\r\n+mode\r\n+cluster\r\n")?.connectionID == nil)
    }

    @Test func `Anything else than a map of facts is none`() {
        for text in [
            "", "%", "%1", "-NOPROTO unsupported protocol version\r\n", "+OK\r\n", "*-1\r\n",
            "%-1\r\n", "*3\r\n+id\r\n:1\r\n+mode\r\n", "%1\r\n:1\r\n:1\r\n", "%1\r\n+id\r\n+7\r\n",
            "%1\r\n+id\r\n:99999999999999999999\r\n", "%1\r\n+id\r\n:\r\n", "%1\r\n+proto\r\n_\r\n",
            "%1\r\n+role\r\n:1\r\n", "%1\r\n+role\r\n$-1\r\n", "%2\r\n+id\r\n:1\r\n+id\r\n:2\r\n",
            "%1\r\n+id\r\n:1\r\nx", "%1\r\n+id\r\n:1\r\n+OK\r\n", "%2\r\n+id\r\n:1\r\n",
            "%1\r\n+id\r\n>0\r\n", "%9223372036854775807\r\n", "%65\r\n",
            "%1\r\n$9223372036854775807\r\nid\r\n:1\r\n", "|1\r\n+a\r\n+b\r\n%0\r\n",
        ] {
            #expect(parse(text) == nil, "\(text.debugDescription)")
        }
    }

    @Test func `A reply cut off anywhere is none`() {
        for text in [map, array, withModules] {
            let bytes = Array(text.utf8)
            for count in 0..<bytes.count { #expect(parse(Array(bytes[..<count])) == nil) }
        }
    }

    @Test func `Garbage is read to an end without a trap, and ranges stay inside the reply`() {
        let seed = testSeed()
        var generator = SeededGenerator(seed: seed)
        var readable = 0
        for _ in 0..<5000 {
            var bytes = Array([map, array, withModules].randomElement(using: &generator)!.utf8)
            RequestGenerator.mutate(&bytes, using: &generator)
            guard let reply = parse(bytes) else { continue }
            readable += 1
            for range in [reply.connectionIDRange, reply.protocolVersionRange] {
                guard let range else { continue }
                #expect(range.lowerBound > 0 && range.upperBound < bytes.count, "seed \(seed)")
                #expect(Int(String(decoding: bytes[range], as: UTF8.self)) != nil, "seed \(seed)")
            }
        }
        #expect(readable > 0)
    }
}
