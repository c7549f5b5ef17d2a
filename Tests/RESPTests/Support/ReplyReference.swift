// What a stream of replies holds, worked out the plain way: by recursive descent over the whole
// stream, sharing no code and no counters with the framer.

import RESP

/// One thing found in a stream of replies; ends are offsets into the stream.
enum ReplyEvent: Equatable {
    case reply(type: UInt8, end: Int)
    case push(end: Int)
    case violation
    /// The stream ends inside a frame which begins here.
    case unfinished(start: Int)
}

enum ReplyReference {
    private enum Stop: Error {
        case unfinished
        case violation
    }

    static func events(in stream: [UInt8]) -> [ReplyEvent] {
        var events: [ReplyEvent] = []
        var position = 0
        while position < stream.count {
            let start = position
            do {
                var type = stream[position]
                while type == UInt8(ascii: "|") {
                    try attribute(stream, &position)
                    guard position < stream.count else { throw Stop.unfinished }
                    type = stream[position]
                }
                try element(stream, &position, isNested: false)
                events.append(
                    type == UInt8(ascii: ">")
                        ? .push(end: position) : .reply(type: type, end: position))
            } catch Stop.violation {
                return events + [.violation]
            } catch {
                return events + [.unfinished(start: start)]
            }
        }
        return events
    }

    private static func attribute(_ stream: [UInt8], _ position: inout Int) throws {
        guard let count = try header(stream, &position) else { throw Stop.violation }
        for _ in 0..<count {
            try element(stream, &position)
            try element(stream, &position)
        }
    }

    private static func element(
        _ stream: [UInt8], _ position: inout Int, isNested: Bool = true
    ) throws {
        guard position < stream.count else { throw Stop.unfinished }
        switch Character(UnicodeScalar(stream[position])) {
        case "|":
            try attribute(stream, &position)
            try element(stream, &position)
        case "+", "-", "(":
            position += 1
            while true {
                guard position + 1 < stream.count else { throw Stop.unfinished }
                if stream[position] == 0x0D, stream[position + 1] == 0x0A { break }
                position += 1
            }
            position += 2
        case ":":
            position += 1
            if position < stream.count, stream[position] == UInt8(ascii: "-") { position += 1 }
            try line(stream, &position, of: "0123456789", atLeast: 1)
        case ",":
            position += 1
            try line(stream, &position, of: "0123456789+-.eEinfa", atLeast: 1)
        case "#":
            position += 1
            try line(stream, &position, of: "tf", atLeast: 1, atMost: 1)
        case "_":
            position += 1
            try line(stream, &position, of: "", atLeast: 0)
        case "$", "!", "=":
            let type = stream[position]
            guard let length = try header(stream, &position) else {
                if type == UInt8(ascii: "$") { return }
                throw Stop.violation
            }
            guard stream.count - position >= length else { throw Stop.unfinished }
            position += length
            try lineEnd(stream, &position)
        case "*", "~", ">", "%":
            let type = stream[position]
            guard let count = try header(stream, &position) else {
                if type == UInt8(ascii: "*") { return }
                throw Stop.violation
            }
            for _ in 0..<count * (type == UInt8(ascii: "%") ? 2 : 1) {
                try element(stream, &position)
            }
            // A push that came between: what it interrupted goes on.
            if type == UInt8(ascii: ">"), isNested { try element(stream, &position) }
        default:
            throw Stop.violation
        }
    }

    /// The number of a header; nil for -1.
    private static func header(_ stream: [UInt8], _ position: inout Int) throws -> Int? {
        position += 1
        let start = position
        var text = ""
        while true {
            guard position < stream.count else { throw Stop.unfinished }
            if stream[position] == 0x0D, !text.isEmpty, text != "-" { break }
            text.unicodeScalars.append(UnicodeScalar(stream[position]))
            // Whatever cannot grow into a number is refused at once.
            guard text == "-" || Int(text).map(String.init) == text,
                position - start < (text.hasPrefix("-") ? 19 : 18)
            else { throw Stop.violation }
            position += 1
        }
        try lineEnd(stream, &position)
        guard let number = Int(text) else { throw Stop.violation }
        if number >= 0 { return number }
        guard number == -1 else { throw Stop.violation }
        return nil
    }

    private static func line(
        _ stream: [UInt8], _ position: inout Int, of allowed: String, atLeast least: Int,
        atMost most: Int = .max
    ) throws {
        let start = position
        while true {
            guard position < stream.count else { throw Stop.unfinished }
            if stream[position] == 0x0D { break }
            guard allowed.utf8.contains(stream[position]), position - start < most else {
                throw Stop.violation
            }
            position += 1
        }
        guard position - start >= least else { throw Stop.violation }
        try lineEnd(stream, &position)
    }

    private static func lineEnd(_ stream: [UInt8], _ position: inout Int) throws {
        for wanted: UInt8 in [0x0D, 0x0A] {
            guard position < stream.count else { throw Stop.unfinished }
            guard stream[position] == wanted else { throw Stop.violation }
            position += 1
        }
    }
}
