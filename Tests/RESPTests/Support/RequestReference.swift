// What a stream of requests holds, worked out the plain way: the whole stream at once, by copying,
// sharing no code and no cleverness with the framer.

import RESP

/// One thing found in a stream of requests.
enum RequestEvent: Equatable {
    case frame([UInt8], CommandClass)
    case inline([UInt8])
    case violation(ProtocolViolation)
    /// The stream ends inside a frame, of which these bytes are there.
    case unfinished([UInt8])
}

enum RequestReference {
    static let names: [CommandClass: [String]] = [
        .auth: ["AUTH"], .hello: ["HELLO"], .quit: ["QUIT"], .reset: ["RESET"],
        .select: ["SELECT"], .client: ["CLIENT"], .multi: ["MULTI"], .exec: ["EXEC"],
        .discard: ["DISCARD"], .watch: ["WATCH"], .unwatch: ["UNWATCH"],
        .blocking: [
            "BLPOP", "BRPOP", "BLMOVE", "BRPOPLPUSH", "BLMPOP", "BZPOPMIN", "BZPOPMAX", "BZMPOP",
        ],
        .streamRead: ["XREAD", "XREADGROUP"], .wait: ["WAIT", "WAITAOF"],
        .subscribe: ["SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"],
        .unsubscribe: ["UNSUBSCRIBE", "PUNSUBSCRIBE", "SUNSUBSCRIBE"],
        .monitor: ["MONITOR"], .replication: ["SYNC", "PSYNC", "REPLCONF"],
        .lasting: ["READONLY", "READWRITE", "ASKING", "DEBUG"], .script: ["SCRIPT"],
        .function: ["FUNCTION"], .outOfBand: ["SHUTDOWN", "FAILOVER"],
    ]

    private static let classes: [String: CommandClass] = names.reduce(into: [:]) { table, entry in
        for name in entry.value { table[name] = entry.key }
    }

    private enum Stop: Error {
        case unfinished
        case violation(ProtocolViolation)
    }

    static func events(in stream: [UInt8]) -> [RequestEvent] {
        var events: [RequestEvent] = []
        var rest = stream
        while !rest.isEmpty {
            do {
                let event = try first(in: rest)
                switch event {
                case .frame(let bytes, _), .inline(let bytes): rest.removeFirst(bytes.count)
                default: break
                }
                events.append(event)
            } catch Stop.violation(let violation) {
                return events + [.violation(violation)]
            } catch {
                return events + [.unfinished(rest)]
            }
        }
        return events
    }

    private static func first(in stream: [UInt8]) throws -> RequestEvent {
        if stream[0] != UInt8(ascii: "*") {
            if stream == [0x16] { throw Stop.unfinished }
            if stream.starts(with: [0x16, 0x03]) { throw Stop.violation(.tlsClientHello) }
            return .inline(try inlineLine(stream))
        }
        var position = 0
        let count = try number(
            stream, &position, tooBig: .tooBigMultibulkCount, malformed: .invalidMultibulkLength
        ) { $0 <= 2_147_483_647 }
        if count <= 0 { return .frame(Array(stream[..<position]), .none) }
        var command: CommandClass?
        for _ in 0..<count {
            guard position < stream.count else { throw Stop.unfinished }
            let type = stream[position]
            let length = try number(
                stream, &position, tooBig: .tooBigBulkCount,
                malformed: type == UInt8(ascii: "$")
                    ? .invalidBulkLength : .expectedBulk(got: type)
            ) { type == UInt8(ascii: "$") && (0...536_870_912).contains($0) }
            let body = stream[position...].prefix(length)
            if command == nil {
                if body.count < min(length, 13) { throw Stop.unfinished }
                command = try classify(Array(body))
            }
            guard stream.count - position >= length + 2 else { throw Stop.unfinished }
            guard stream[(position + length)...].starts(with: [0x0D, 0x0A]) else {
                throw Stop.violation(.bulkWithoutTerminator)
            }
            position += length + 2
        }
        return .frame(Array(stream[..<position]), command ?? .plain)
    }

    private static func inlineLine(_ stream: [UInt8]) throws -> [UInt8] {
        for (index, byte) in stream.enumerated() {
            if byte == 0x0A { return Array(stream[...index]) }
            if byte == 0 { throw Stop.violation(.lineWithNUL) }
            if index == 65_536 { throw Stop.violation(.tooBigInline) }
        }
        throw Stop.unfinished
    }

    /// The number in the line at `position`, whose first byte is a type.
    private static func number(
        _ stream: [UInt8], _ position: inout Int, tooBig: ProtocolViolation,
        malformed: ProtocolViolation, accepted: (Int) -> Bool
    ) throws -> Int {
        var index = position
        while index < stream.count, stream[index] != 0x0D {
            if stream[index] == 0 { throw Stop.violation(.lineWithNUL) }
            if index - position == 65_536 { throw Stop.violation(tooBig) }
            index += 1
        }
        guard index + 1 < stream.count else { throw Stop.unfinished }
        // A first byte of CR leaves no text; it is refused for its type.
        let text = String(
            decoding: stream[min(position + 1, index)..<index], as: UTF8.self)
        guard let value = Int(text), String(value) == text, accepted(value) else {
            throw Stop.violation(malformed)
        }
        guard stream[index + 1] == 0x0A else { throw Stop.violation(.headerWithoutLineFeed) }
        position = index + 2
        return value
    }

    /// The class of a name, of which at least 13 bytes are there if it has as many.
    static func classify(_ name: [UInt8]) throws -> CommandClass {
        let nul = name.prefix(13).firstIndex(of: 0)
        let text = String(decoding: name[..<(nul ?? name.count)], as: UTF8.self).uppercased()
        if !text.utf8.allSatisfy({ $0 < 0x80 }) { return .plain }
        if text == "POST" || text == "HOST:" { throw Stop.violation(.crossProtocol) }
        guard let found = classes[text] else { return .plain }
        if nul != nil { throw Stop.violation(.ambiguousCommand) }
        return found
    }
}
