// A line typed by hand, made into the request it stands for.
//
// The proxy sends multibulk requests only: an inline command is read here by the server's rules and
// goes on in the other form, so that there is nothing left to disagree about.

/// Reads inline commands as redis-server does.
package enum InlineCommand {
    /// What a line stands for.
    package enum Result: Equatable, Sendable {
        /// A blank line: no command, no reply.
        case none
        /// The same command as a multibulk request.
        case request([UInt8])
        /// Not a command; the client gets the reply, if any, and is closed.
        case violation(ProtocolViolation)
    }

    /// Splits a line into arguments: separated by blanks; in double quotes with the escapes
    /// `\xHH \n \r \t \b \a` and `\` before any other byte for that byte; in single quotes with `\'`
    /// alone. A closing quote must be followed by a blank or the end.
    ///
    /// Source: Redis `sds.c`, `sdssplitargs`; `networking.c`, `processInlineBuffer`.
    /// - Parameter line: one line; LF, or CR LF, at its end is no part of it.
    /// - Returns: `violation` is one of `unbalancedQuotes`, `lineWithNUL`, `crossProtocol` and
    ///   `ambiguousCommand`.
    package static func encode(_ line: UnsafeRawBufferPointer) -> Result {
        var line = line[...]
        if line.last == 0x0A {
            line = line.dropLast()
            if line.last == 0x0D { line = line.dropLast() }
        }
        if line.contains(0) { return .violation(.lineWithNUL) }

        var arguments: [[UInt8]] = []
        var rest = line
        while true {
            rest = rest.drop(while: isSpace)
            if rest.isEmpty { break }
            guard let argument = takeArgument(&rest) else { return .violation(.unbalancedQuotes) }
            arguments.append(argument)
        }
        guard let name = arguments.first else { return .none }

        let verdict = name.withUnsafeBytes { bytes in
            // An empty argument has no address; a name of no bytes is as plain as any other.
            bytes.baseAddress.map { NameVerdict($0, count: bytes.count) } ?? .command(.plain)
        }
        switch verdict {
        case .command: break
        case .crossProtocol: return .violation(.crossProtocol)
        case .ambiguous: return .violation(.ambiguousCommand)
        }
        var request: [UInt8] = []
        RequestEncoder.append(arguments, to: &request)
        return .request(request)
    }

    /// Takes one argument off the front of `rest`, which begins with one; nil if its quotes are not
    /// in order.
    private static func takeArgument(_ rest: inout Slice<UnsafeRawBufferPointer>) -> [UInt8]? {
        var argument: [UInt8] = []
        while let byte = rest.popFirst() {
            switch byte {
            case 0x20, 0x0A, 0x0D, 0x09:
                // Not VT and FF: they separate arguments but do not end one.
                return argument
            case 0x22:
                return takeDoubleQuoted(&rest, into: &argument) ? argument : nil
            case 0x27:
                return takeSingleQuoted(&rest, into: &argument) ? argument : nil
            default:
                argument.append(byte)
            }
        }
        return argument
    }

    private static func takeDoubleQuoted(
        _ rest: inout Slice<UnsafeRawBufferPointer>, into argument: inout [UInt8]
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
                        argument.append(digits[0] << 4 | digits[1])
                        rest = rest.dropFirst(2)
                    } else {
                        argument.append(escaped)
                    }
                case UInt8(ascii: "n"): argument.append(0x0A)
                case UInt8(ascii: "r"): argument.append(0x0D)
                case UInt8(ascii: "t"): argument.append(0x09)
                case UInt8(ascii: "b"): argument.append(0x08)
                case UInt8(ascii: "a"): argument.append(0x07)
                default: argument.append(escaped)
                }
            default:
                argument.append(byte)
            }
        }
        return false
    }

    private static func takeSingleQuoted(
        _ rest: inout Slice<UnsafeRawBufferPointer>, into argument: inout [UInt8]
    ) -> Bool {
        while let byte = rest.popFirst() {
            switch byte {
            case 0x27:
                return rest.first.map(isSpace) ?? true
            case 0x5C where rest.first == 0x27:
                rest = rest.dropFirst()
                argument.append(0x27)
            default:
                argument.append(byte)
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
