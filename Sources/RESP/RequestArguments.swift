// The arguments of a request that has been framed, for the few commands the proxy must understand.

/// The arguments of one complete multibulk request, the command's name first.
///
/// Iterates over a frame that `RequestFramer` found; of anything else it yields what it can and
/// ends, so it can neither trap nor read outside the buffer. The buffer must outlive the iteration.
package struct RequestArguments: Sequence, IteratorProtocol {
    private let frame: UnsafeRawBufferPointer
    private var position: Int
    private var left: Int

    /// The arguments of `frame`, which begins with `*`.
    package init(_ frame: UnsafeRawBufferPointer) {
        self.frame = frame
        (left, position) = Self.header(frame, at: 0, type: 0x2A) ?? (0, 0)
    }

    /// The next argument's bytes, inside the frame; nil behind the last.
    package mutating func next() -> UnsafeRawBufferPointer? {
        guard left > 0,
            let (length, body) = Self.header(frame, at: position, type: 0x24),
            length >= 0, length <= frame.count - body - 2
        else {
            left = 0
            return nil
        }
        left -= 1
        position = body + length + 2
        return UnsafeRawBufferPointer(rebasing: frame[body..<body + length])
    }

    /// The lengths that the beginning of a request announces, as far as it has come: looked at
    /// before the request is complete, and whatever it is.
    package struct Announced {
        private let bytes: UnsafeRawBufferPointer
        /// What stands behind `*`; nil if that has not come, or no such thing.
        package let count: Int?
        private var position = 0

        package init(_ bytes: UnsafeRawBufferPointer) {
            self.bytes = bytes
            let first = RequestArguments.header(bytes, at: 0, type: 0x2A)
            count = first?.number
            position = first?.next ?? bytes.count
        }

        /// What stands behind the next `$`; nil if that has not come, or no such thing.
        package mutating func next() -> Int? {
            guard let (length, body) = RequestArguments.header(bytes, at: position, type: 0x24)
            else { return nil }
            let (end, overflow) = body.addingReportingOverflow(length)
            position = overflow || length < 0 || end > bytes.count - 2 ? bytes.count : end + 2
            return length
        }
    }

    /// Reads `type number CR LF`, and where the next byte stands.
    private static func header(
        _ frame: UnsafeRawBufferPointer, at position: Int, type: UInt8
    ) -> (number: Int, next: Int)? {
        guard position < frame.count, frame[position] == type, let base = frame.baseAddress,
            case .number(let number, let carriageReturn) = Header.number(
                base, from: position + 1, to: frame.count),
            carriageReturn + 2 <= frame.count
        else { return nil }
        return (number, carriageReturn + 2)
    }
}

extension UnsafeRawBufferPointer {
    /// Whether redis-server would take this argument for the keyword `word`.
    ///
    /// The server compares keywords as C strings without regard to case: `OFF\0x` *is* OFF to it,
    /// so what follows a NUL byte does not count here either.
    ///
    /// Source: Redis, e.g. `networking.c`, `clientCommand`: `strcasecmp(c->argv[2]->ptr,"on")`.
    /// - Parameter word: ASCII, in any case, not empty.
    package func equalsIgnoringCase(_ word: StaticString) -> Bool {
        let length = word.utf8CodeUnitCount
        guard count >= length else { return false }
        for index in 0..<length {
            if Self.lowercase(self[index]) != Self.lowercase(word.utf8Start[index]) { return false }
        }
        return count == length || self[length] == 0
    }

    private static func lowercase(_ byte: UInt8) -> UInt8 {
        (0x41...0x5A).contains(byte) ? byte | 0x20 : byte
    }
}
