// What a server says of itself and of the connection in its reply to HELLO.
//
// RESP3 sends a map, RESP2 the same keys and values in a flat array:
//     %7 CR LF  $6 CR LF server CR LF  $5 CR LF redis CR LF  …  $2 CR LF id CR LF  :3 CR LF  …
// Values under keys we do not know (`modules`, and whatever servers add) are skipped whole.

/// The parts of a reply to HELLO the proxy uses.
package struct HelloReply: Equatable, Sendable {
    /// 2 or 3.
    package private(set) var protocolVersion: Int?
    /// The server's number of the connection.
    package private(set) var connectionID: Int64?
    /// The server's version, such as `7.0.15`; empty if it did not say.
    package private(set) var version: [UInt8] = []
    /// `standalone`, `cluster` or `sentinel`; empty if the server did not say.
    package private(set) var mode: [UInt8] = []
    /// `master` or `replica`; empty if the server did not say.
    package private(set) var role: [UInt8] = []
    /// Where the digits of `id` stand in the reply, for a caller who sends it on with another one.
    package private(set) var connectionIDRange: Range<Int>?
    /// Where the digits of `proto` stand in the reply.
    package private(set) var protocolVersionRange: Range<Int>?

    /// The most entries looked at; servers send seven.
    private static let mostEntries = 64

    /// Reads one complete reply.
    /// - Parameter reply: the frame's bytes, from its type byte to the last CR LF.
    /// - Returns: nil if this is anything but a map, or a flat array, of keys and values, such as
    ///   an error; or if a known key has a value of the wrong kind or stands there twice.
    package static func parse(_ reply: UnsafeRawBufferPointer) -> HelloReply? {
        guard let base = reply.baseAddress,
            let (type, number, start) = header(reply, at: 0)
        else { return nil }
        let entries: Int
        switch type {
        case 0x25: entries = number
        case 0x2A where number.isMultiple(of: 2): entries = number / 2
        default: return nil
        }
        guard (0...mostEntries).contains(entries) else { return nil }

        var parsed = HelloReply()
        var position = start
        for _ in 0..<entries {
            guard let key = string(reply, at: position) else { return nil }
            let value = key.next
            var framer = ReplyFramer()
            guard
                case .reply(let end) = framer.next(base, from: value, to: reply.count)
            else { return nil }
            guard parsed.take(reply, key: reply[key.range], valueAt: value) else { return nil }
            position = end
        }
        return position == reply.count ? parsed : nil
    }

    /// Takes the value of a key we know; false if it is of the wrong kind.
    private mutating func take(
        _ reply: UnsafeRawBufferPointer, key: Slice<UnsafeRawBufferPointer>, valueAt value: Int
    ) -> Bool {
        func text() -> [UInt8]? {
            Self.string(reply, at: value).map { Array(reply[$0.range]) }
        }
        func integer() -> (value: Int, range: Range<Int>)? {
            guard let (type, number, next) = Self.header(reply, at: value), type == 0x3A else {
                return nil
            }
            return (number, value + 1..<next - 2)
        }
        if key.elementsEqual("proto".utf8) {
            guard protocolVersion == nil, let found = integer() else { return false }
            (protocolVersion, protocolVersionRange) = (found.value, found.range)
        } else if key.elementsEqual("id".utf8) {
            guard connectionID == nil, let found = integer() else { return false }
            (connectionID, connectionIDRange) = (Int64(found.value), found.range)
        } else if key.elementsEqual("version".utf8) {
            guard version.isEmpty, let found = text() else { return false }
            version = found
        } else if key.elementsEqual("mode".utf8) {
            guard mode.isEmpty, let found = text() else { return false }
            mode = found
        } else if key.elementsEqual("role".utf8) {
            guard role.isEmpty, let found = text() else { return false }
            role = found
        }
        return true
    }

    /// Reads `type number CR LF`, and where the next byte stands.
    private static func header(
        _ reply: UnsafeRawBufferPointer, at position: Int
    ) -> (type: UInt8, number: Int, next: Int)? {
        guard position < reply.count, let base = reply.baseAddress,
            case .number(let number, let carriageReturn) = Header.number(
                base, from: position + 1, to: reply.count),
            carriageReturn + 1 < reply.count, reply[carriageReturn + 1] == 0x0A
        else { return nil }
        return (reply[position], number, carriageReturn + 2)
    }

    /// Where the bytes of a bulk or simple string stand, and where the next element begins.
    private static func string(
        _ reply: UnsafeRawBufferPointer, at position: Int
    ) -> (range: Range<Int>, next: Int)? {
        guard position < reply.count else { return nil }
        if reply[position] == 0x2B {
            guard
                let end = reply[position...].firstIndex(of: 0x0D),
                end + 1 < reply.count, reply[end + 1] == 0x0A
            else { return nil }
            return (position + 1..<end, end + 2)
        }
        guard let (type, length, body) = header(reply, at: position), type == 0x24, length >= 0,
            length <= reply.count - body - 2
        else { return nil }
        return (body..<body + length, body + length + 2)
    }
}
