import RESP
import Testing

private let all: [ProtocolViolation] =
    [
        .invalidMultibulkLength, .invalidBulkLength, .tooBigMultibulkCount, .tooBigBulkCount,
        .tooBigInline, .unbalancedQuotes, .headerWithoutLineFeed, .bulkWithoutTerminator,
        .lineWithNUL, .ambiguousCommand, .crossProtocol, .tlsClientHello,
    ] + (0...255).map { .expectedBulk(got: $0) }

@Suite struct ProtocolViolationTests {
    @Test func `The server's own verdicts have the server's own words`() {
        let texts: [(ProtocolViolation, String)] = [
            (.invalidMultibulkLength, "invalid multibulk length"),
            (.invalidBulkLength, "invalid bulk length"),
            (.expectedBulk(got: UInt8(ascii: "x")), "expected '$', got 'x'"),
            (.expectedBulk(got: 0x0D), "expected '$', got ' '"),
            (.tooBigMultibulkCount, "too big mbulk count string"),
            (.tooBigBulkCount, "too big bulk count string"),
            (.tooBigInline, "too big inline request"),
            (.unbalancedQuotes, "unbalanced quotes in request"),
        ]
        for (violation, text) in texts {
            #expect(violation.reply == Array("-ERR Protocol error: \(text)\r\n".utf8))
        }
    }

    @Test func `A reply is one line of printable ASCII`() {
        for violation in all {
            guard let reply = violation.reply else { continue }
            #expect(reply.suffix(2) == [0x0D, 0x0A])
            #expect(reply.dropLast(2).allSatisfy { (0x20...0x7E).contains($0) })
            #expect(ReplyReference.events(in: reply) == [.reply(type: 0x2D, end: reply.count)])
        }
    }

    @Test func `Other protocols get no reply`() {
        #expect(all.filter { $0.reply == nil } == [.crossProtocol, .tlsClientHello])
    }

    @Test func `The operator reads no byte the client sent`() {
        for violation in all {
            #expect(violation.operatorDescription.utf8.allSatisfy { (0x20...0x7E).contains($0) })
        }
        // The byte is told as a number.
        #expect(
            ProtocolViolation.expectedBulk(got: 0x51).operatorDescription.contains("byte 81"))
    }
}
