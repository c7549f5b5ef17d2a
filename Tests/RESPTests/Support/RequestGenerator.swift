// Streams of requests: valid ones, and valid ones with a few bytes changed.

import RESP

enum RequestGenerator {
    /// Bytes that mean something to a framer, and some that do not.
    static let tellingBytes: [UInt8] =
        Array("*$0123456789-+ \r\n\r\n\"'\\xaP:".utf8) + [0, 0xFF, 0x16, 3]

    static func stream(requests: Int, using generator: inout SeededGenerator) -> [UInt8] {
        (0..<requests).flatMap { _ in request(using: &generator) }
    }

    static func request(using generator: inout SeededGenerator) -> [UInt8] {
        switch Int.random(in: 0..<12, using: &generator) {
        case 0:
            return Array(
                ["\r\n", "\n", "*0\r\n", "*-1\r\n", "*-7\r\n", "   \r\n"]
                    .randomElement(using: &generator)?.utf8 ?? "".utf8)
        case 1: return Array("\(name(using: &generator)) a 'b c' \"\\x41\"\r\n".utf8)
        case 2: return multibulk(arguments: 10 + generator.small(upTo: 30), using: &generator)
        default: return multibulk(arguments: 1 + generator.small(upTo: 4), using: &generator)
        }
    }

    static func multibulk(
        arguments count: Int, using generator: inout SeededGenerator
    ) -> [UInt8] {
        var request = Array("*\(count)\r\n".utf8)
        for index in 0..<count {
            let argument =
                index == 0
                ? Array(name(using: &generator).utf8) : argument(using: &generator)
            request += Array("$\(argument.count)\r\n".utf8) + argument + [0x0D, 0x0A]
        }
        return request
    }

    static func name(using generator: inout SeededGenerator) -> String {
        let plain = ["GET", "SET", "g", "", "PING", "ZRANGEBYSCORE", "MSET", "INCRBY", "MULTIX"]
        let special = RequestReference.names.values.joined().sorted()
        let name = (generator.oneIn(2) ? plain : special).randomElement(using: &generator) ?? ""
        return generator.oneIn(2) ? name.lowercased() : name
    }

    static func argument(using generator: inout SeededGenerator) -> [UInt8] {
        let lengths = [0, 1, 5, 9, 10, 64, 99, 100, 101, 999, 1000, 9999, 10_000]
        let length =
            generator.oneIn(4)
            ? lengths.randomElement(using: &generator) ?? 0 : generator.small(upTo: 30)
        return (0..<length).map { _ in
            generator.oneIn(3) ? tellingBytes.randomElement(using: &generator) ?? 0 : 0x61
        }
    }

    /// Changes, inserts, removes or repeats a few bytes.
    static func mutate(_ stream: inout [UInt8], using generator: inout SeededGenerator) {
        for _ in 0...generator.small(upTo: 3) where !stream.isEmpty {
            let index = Int.random(in: 0..<stream.count, using: &generator)
            let byte =
                generator.oneIn(4)
                ? generator.byte() : tellingBytes.randomElement(using: &generator) ?? 0
            switch Int.random(in: 0..<5, using: &generator) {
            case 0: stream[index] = byte
            case 1: stream.insert(byte, at: index)
            case 2: stream.remove(at: index)
            case 3: stream.removeSubrange(index..<min(stream.count, index + 8))
            default: stream.insert(contentsOf: stream[index...].prefix(6), at: index)
            }
        }
    }
}
