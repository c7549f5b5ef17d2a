// Streams of replies of every type; invalid ones come from `RequestGenerator.mutate`.

import RESP

enum ReplyGenerator {
    static func stream(replies: Int, using generator: inout SeededGenerator) -> [UInt8] {
        (0..<replies).flatMap { _ -> [UInt8] in
            let attributes =
                generator.oneIn(6)
                ? aggregate("|", perEntry: 2, depth: 2, using: &generator) : []
            let isPush = generator.oneIn(10)
            return attributes
                + (isPush
                    ? aggregate(">", perEntry: 1, depth: 2, using: &generator)
                    : element(depth: generator.small(upTo: 4), using: &generator))
        }
    }

    static func element(depth: Int, using generator: inout SeededGenerator) -> [UInt8] {
        switch Int.random(in: 0..<(depth > 0 ? 20 : 14), using: &generator) {
        case 0: return text("+", ["OK", "", "PONG", "QUEUED", "a\rb\nc\r"], using: &generator)
        case 1: return text("-", ["ERR x", "", "MOVED 1 h:1", "\r\r"], using: &generator)
        case 2:
            return text(
                ":", ["0", "1", "-1", "12345", "123456", "-9223372036854775808"],
                using: &generator)
        case 3: return text(",", ["1.5", "inf", "-inf", "-nan", "1e+17"], using: &generator)
        case 4: return text("(", ["123456789012345678901234567890", "12x"], using: &generator)
        case 5: return text("#", ["t", "f"], using: &generator)
        case 6: return Array("_\r\n".utf8)
        case 7: return Array("$-1\r\n".utf8)
        case 8: return Array("*-1\r\n".utf8)
        case 9: return bulk("!", RequestGenerator.argument(using: &generator))
        case 10: return bulk("=", Array("txt:".utf8) + RequestGenerator.argument(using: &generator))
        case 11: return text("*", ["0", "0"], using: &generator)
        case 12...13: return bulk("$", RequestGenerator.argument(using: &generator))
        case 14...15: return aggregate("*", perEntry: 1, depth: depth - 1, using: &generator)
        case 16: return aggregate("~", perEntry: 1, depth: depth - 1, using: &generator)
        case 17: return aggregate("%", perEntry: 2, depth: depth - 1, using: &generator)
        case 18:
            return aggregate(">", perEntry: 1, depth: depth - 1, using: &generator)
                + element(depth: depth - 1, using: &generator)
        default:
            return aggregate("|", perEntry: 2, depth: depth - 1, using: &generator)
                + element(depth: depth - 1, using: &generator)
        }
    }

    private static func text(
        _ type: String, _ choices: [String], using generator: inout SeededGenerator
    ) -> [UInt8] {
        Array("\(type)\(choices.randomElement(using: &generator) ?? "")\r\n".utf8)
    }

    private static func bulk(_ type: String, _ body: [UInt8]) -> [UInt8] {
        Array("\(type)\(body.count)\r\n".utf8) + body + [0x0D, 0x0A]
    }

    private static func aggregate(
        _ type: String, perEntry: Int, depth: Int, using generator: inout SeededGenerator
    ) -> [UInt8] {
        let count = generator.small(upTo: 4)
        var bytes = Array("\(type)\(count)\r\n".utf8)
        for _ in 0..<count * perEntry { bytes += element(depth: depth, using: &generator) }
        return bytes
    }
}
