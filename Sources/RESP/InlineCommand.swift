// A line typed by hand, made into the request it stands for.
//
// The proxy sends multibulk requests only: an inline command is read here by the server's rules and
// goes on in the other form, so that there is nothing left to disagree about.
//
// A line may hold a password (`AUTH …`), so its bytes go straight into memory of the caller's, who can
// wipe it, and nowhere else: the line is read twice, first to learn how long each argument is.

/// Reads inline commands as redis-server does.
package enum InlineCommand {
    /// What a line stands for.
    package enum Result: Equatable, Sendable {
        /// A blank line: no command, no reply.
        case none
        /// The same command as a multibulk request of so many bytes.
        case request(byteCount: Int)
        /// Not a command; the client gets the reply, if any, and is closed.
        case violation(ProtocolViolation)
    }

    /// Splits a line into arguments: separated by blanks; in double quotes with the escapes
    /// `\xHH \n \r \t \b \a` and `\` before any other byte for that byte; in single quotes with `\'`
    /// alone. A closing quote must be followed by a blank or the end.
    ///
    /// Source: Redis `sds.c`, `sdssplitargs`; `networking.c`, `processInlineBuffer`.
    /// - Parameters:
    ///   - line: one line; LF, or CR LF, at its end is no part of it.
    ///   - memory: where the request goes; at least `capacity(for:)` bytes of the line's length.
    /// - Returns: `violation` is one of `unbalancedQuotes`, `lineWithNUL`, `crossProtocol` and
    ///   `ambiguousCommand`.
    package static func encode(
        _ line: UnsafeRawBufferPointer,
        into memory: UnsafeMutableRawBufferPointer
    ) -> Result {
        precondition(memory.count >= capacity(for: line.count))
        var line = line[...]
        if line.last == 0x0A {
            line = line.dropLast()
            if line.last == 0x0D { line = line.dropLast() }
        }
        if line.contains(0) { return .violation(.lineWithNUL) }

        var lengths: [Int] = []
        var rest = line
        while skipBlanks(&rest) {
            var length = 0
            guard takeArgument(&rest, { _ in length += 1 }) else {
                return .violation(.unbalancedQuotes)
            }
            lengths.append(length)
        }
        if lengths.isEmpty { return .none }

        var end = 0
        func write(_ byte: UInt8) {
            memory[end] = byte
            end += 1
        }
        func writeHeader(_ type: UInt8, _ number: Int) {
            write(type)
            for digit in String(number).utf8 { write(digit) }
            write(0x0D)
            write(0x0A)
        }
        writeHeader(0x2A, lengths.count)
        var nameStart = 0
        rest = line
        for (index, length) in lengths.enumerated() {
            writeHeader(0x24, length)
            if index == 0 { nameStart = end }
            _ = skipBlanks(&rest) && takeArgument(&rest, write)
            write(0x0D)
            write(0x0A)
        }
        let name = UnsafeRawBufferPointer(
            rebasing: UnsafeRawBufferPointer(memory)[nameStart..<nameStart + lengths[0]])
        switch name.baseAddress.map({ NameVerdict($0, count: name.count) }) {
        case .command, nil: return .request(byteCount: end)
        case .crossProtocol: return .violation(.crossProtocol)
        case .ambiguous: return .violation(.ambiguousCommand)
        }
    }

    /// Bytes that the request made of any line of `count` bytes fits into: each argument takes at
    /// least one byte and a blank, or two quotes, and gets at most `$`, 20 digits and two CR LF.
    package static func capacity(for count: Int) -> Int {
        count + (count / 2 + 2) * 25
    }

    /// Whether there is an argument behind the blanks.
    private static func skipBlanks(_ rest: inout Slice<UnsafeRawBufferPointer>) -> Bool {
        rest = rest.drop(while: isSpace)
        return !rest.isEmpty
    }

    /// Takes one argument off the front of `rest`, which begins with one, and hands on its bytes
    /// without quotes and escapes; false if its quotes are not in order.
    private static func takeArgument(
        _ rest: inout Slice<UnsafeRawBufferPointer>, _ handOn: (UInt8) -> Void
    ) -> Bool {
        while let byte = rest.popFirst() {
            switch byte {
            case 0x20, 0x0A, 0x0D, 0x09:
                // Not VT and FF: blanks between arguments, but no end of one.
                return true
            case 0x22:
                return takeDoubleQuoted(&rest, handOn)
            case 0x27:
                return takeSingleQuoted(&rest, handOn)
            default:
                handOn(byte)
            }
        }
        return true
    }

    private static func takeDoubleQuoted(
        _ rest: inout Slice<UnsafeRawBufferPointer>, _ handOn: (UInt8) -> Void
    ) -> Bool {
        while let byte = rest.popFirst() {
            switch byte {
            case 0x22:
                return rest.first.map(isSpace) ?? true
            case 0x5C:
                guard let escaped = rest.popFirst() else { return false }
                switch escaped {
                case UInt8(ascii: "x"):
                    let digits = rest.prefix(2).compactMap(hexadecimal)
                    if digits.count == 2 {
                        handOn(digits[0] << 4 | digits[1])
                        rest = rest.dropFirst(2)
                    } else {
                        handOn(escaped)
                    }
                case UInt8(ascii: "n"): handOn(0x0A)
                case UInt8(ascii: "r"): handOn(0x0D)
                case UInt8(ascii: "t"): handOn(0x09)
                case UInt8(ascii: "b"): handOn(0x08)
                case UInt8(ascii: "a"): handOn(0x07)
                default: handOn(escaped)
                }
            default:
                handOn(byte)
            }
        }
        return false
    }

    private static func takeSingleQuoted(
        _ rest: inout Slice<UnsafeRawBufferPointer>, _ handOn: (UInt8) -> Void
    ) -> Bool {
        while let byte = rest.popFirst() {
            switch byte {
            case 0x27:
                return rest.first.map(isSpace) ?? true
            case 0x5C where rest.first == 0x27:
                rest = rest.dropFirst()
                handOn(0x27)
            default:
                handOn(byte)
            }
        }
        return false
    }

    /// C's `isspace` in the C locale.
    private static func isSpace(_ byte: UInt8) -> Bool {
        byte == 0x20 || (0x09...0x0D).contains(byte)
    }

    private static func hexadecimal(_ byte: UInt8) -> UInt8? {
        switch byte {
        case 0x30...0x39: byte - 0x30
        case 0x41...0x46: byte - 0x41 + 10
        case 0x61...0x66: byte - 0x61 + 10
        default: nil
        }
    }
}
