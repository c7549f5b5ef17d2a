// Finds where a client's requests end and which commands they are, without parsing them.
//
//     *3 CR LF  $3 CR LF SET CR LF  $1 CR LF k CR LF  $5 CR LF hello CR LF
//     └─count─┘ └length┘ └─body──┘                    └length┘ └──body───┘
//      .count    .length  .body                        .length  .body
//
// The framer hops from length to length; a body is never looked at. It keeps one offset, the number
// of arguments owed and the command's class, so it can stop at any byte and a big body costs nothing
// while it arrives. The caller keeps the bytes of the frame in progress contiguous, from its first
// byte on or, once the command is known, from whatever byte it has not handed on (`discard`).
//
// Invariant: where a frame ends follows from its bytes alone, never from how they were split, and is
// what the server will find; where the server's reading leaves room, the request is refused.
//
// `next` is the path for a whole small request from its first byte, and nothing else: it writes no
// state unless the request is cut off. Everything unusual goes to `resume`, which can do everything.
// Rejected: a search for line ends (memchr or SIMD: slower than hopping); keeping header digits
// across calls (a good header is at most 22 bytes, read again at each call until it is whole).

/// What the framer says of the bytes so far.
@usableFromInline
package enum RequestScan: Equatable, Sendable {
    /// A complete multibulk request of `length` bytes; the framer is ready for the next.
    case frame(length: Int, command: CommandClass)
    /// A complete inline line of `length` bytes with its line feed, possibly blank; to be encoded
    /// with `InlineCommand`. The framer is ready for the next.
    case inline(length: Int)
    /// The frame goes on behind the last byte that has arrived.
    case incomplete
    /// Not a request. The client gets `reply` and is closed; the framer says the same ever after.
    case violation(ProtocolViolation)
}

/// Finds where requests end; constant state, resumable at any byte, no allocation.
@usableFromInline
package struct RequestFramer {
    @usableFromInline
    enum Phase: UInt8 {
        /// Before a frame's first byte, or behind a first byte that needs a second one. → all
        case start
        /// In the `*n` line. → length, badCount, start
        case count
        /// In an argument's `$n` line, which begins at `cursor`. → body, badLength
        case length
        /// In an argument, whose CR LF belongs at `cursor`. → length, start
        case body
        /// In an inline command; `cursor` bytes of it hold no line feed. → start
        case inline
        /// In a `*n` line that is no number; `probe` bytes hold no CR. → broken
        case badCount
        /// In a `$n` line that is no length; up to `probe` there is no CR. → broken
        case badLength
        /// Behind a violation. Final.
        case broken
    }

    /// Offset from the first retained byte; what stands there depends on `phase`. In `.body` it may
    /// lie behind what has arrived.
    @usableFromInline var cursor = 0
    /// How many retained bytes there were at the last call.
    @usableFromInline var arrived = 0
    /// Arguments not yet scanned to their end, the one in progress included.
    @usableFromInline var owed = 0
    /// In a bad line: where the search for its end goes on. In the name's body: where it begins.
    @usableFromInline var probe = 0
    @usableFromInline var phase = Phase.start
    @usableFromInline var known: CommandClass?
    @usableFromInline var violation = ProtocolViolation.invalidMultibulkLength

    /// A framer before the first byte of a connection.
    @inlinable
    package init() {}

    /// The command of the frame in progress, once enough of its name has arrived; nil before that,
    /// between frames and for an inline command.
    @inlinable package var command: CommandClass? { known }

    /// Whether nothing of a frame has been seen.
    @inlinable package var isAtFrameStart: Bool { phase == .start && arrived == 0 }

    /// How many retained bytes are known to belong to the frame in progress and need not be seen
    /// again: at most as many as have arrived.
    @inlinable package var scanned: Int {
        switch phase {
        case .length, .body, .badLength: min(cursor, arrived)
        default: 0
        }
    }

    /// A lower bound of the bytes still to come before the frame in progress can be complete: the
    /// rest of the body in progress, and six bytes for every further argument; at least 1.
    package var missing: Int {
        switch phase {
        case .length:
            max(1, cursor + Self.leastArgumentBytes - arrived)
                + (owed - 1) * Self.leastArgumentBytes
        case .body:
            max(1, cursor + 2 - arrived) + (owed - 1) * Self.leastArgumentBytes
        default: 1
        }
    }

    /// The length of `$0 CR LF CR LF`.
    private static let leastArgumentBytes = 6

    /// Goes on with the frame in progress, or begins the next one.
    ///
    /// Called again and again, each time behind the frame just found, until it says `.incomplete`.
    /// - Parameters:
    ///   - bytes: the first retained byte of the frame in progress, or the byte behind the last
    ///     frame. Read only; not kept.
    ///   - count: all bytes readable at `bytes`, those of earlier calls included.
    @inlinable
    package mutating func next(_ bytes: UnsafeRawPointer, count: Int) -> RequestScan {
        // A first line and a length line of one digit each are eight bytes: "*3\r\n$3\r\n".
        guard phase == .start, count >= 12 else { return resume(bytes, count: count) }
        let head = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
        let further = (head &>> 8 & 0xFF) &- 0x31
        let nameLength = Int(truncatingIfNeeded: (head &>> 40 & 0xFF) &- 0x30)
        let nameEnd = 8 &+ nameLength
        guard head & 0xFFFF_00FF_FFFF_00FF == 0x0A0D_0024_0A0D_002A,
            further < 9, UInt(bitPattern: nameLength) <= 8, nameEnd &+ 2 <= count,
            UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: nameEnd, as: UInt16.self))
                == Header.lineEnd
        else { return resume(bytes, count: count) }

        // The eight bytes that end with the name: what stands before it is the length line.
        let tail = UInt64(
            littleEndian: bytes.loadUnaligned(fromByteOffset: nameLength, as: UInt64.self))
        guard nameLength > 0, !hasNUL(tail),
            case .command(let command) = NameVerdict(
                head: tail &>> UInt64(truncatingIfNeeded: 64 &- 8 &* nameLength),
                length: nameLength)
        else { return resume(bytes, count: count) }

        var left = Int(truncatingIfNeeded: further)
        var position = nameEnd &+ 2
        while left > 0 {
            guard position < count, bytes.load(fromByteOffset: position, as: UInt8.self) == 0x24,
                case let end = Header.wholeBulk(bytes, from: position, to: count), end >= 0
            else {
                suspend(at: position, owed: left, command: command)
                return resume(bytes, count: count)
            }
            position = end
            left &-= 1
        }
        return .frame(length: position, command: command)
    }

    /// Takes note that the first `count` retained bytes were handed on and are gone.
    ///
    /// Lengths and `bytes` count from the first byte that is left. The caller must have seen
    /// `command`, and `count` must not be more than `scanned`.
    package mutating func discard(_ count: Int) {
        precondition(known != nil && count >= 0 && count <= scanned)
        cursor -= count
        arrived -= count
        if phase == .badLength { probe -= count }
    }

    /// Leaves the rest of a frame, from the length line at `cursor` on, to `resume`.
    @usableFromInline
    mutating func suspend(at cursor: Int, owed: Int, command: CommandClass) {
        self.cursor = cursor
        self.owed = owed
        phase = .length
        known = command
    }

    @usableFromInline @inline(never)
    mutating func resume(_ bytes: UnsafeRawPointer, count: Int) -> RequestScan {
        arrived = count
        while true {
            switch phase {
            case .start:
                guard count > 0 else { return .incomplete }
                switch bytes.load(as: UInt8.self) {
                case 0x2A:
                    phase = .count
                case 0x16:
                    // A TLS record: type handshake, then the major version 3.
                    guard count > 1 else { return .incomplete }
                    if bytes.load(fromByteOffset: 1, as: UInt8.self) == 0x03 {
                        return fail(.tlsClientHello)
                    }
                    phase = .inline
                default:
                    phase = .inline
                }
                cursor = 0

            case .count:
                switch Header.number(bytes, from: 1, to: count) {
                case .incomplete:
                    return .incomplete
                case .malformed:
                    phase = .badCount
                    probe = 1
                case .number(let number, let carriageReturn):
                    guard carriageReturn + 1 < count else { return .incomplete }
                    guard number <= Limits.multibulkCount else {
                        return fail(.invalidMultibulkLength)
                    }
                    guard bytes.load(fromByteOffset: carriageReturn + 1, as: UInt8.self) == 0x0A
                    else { return fail(.headerWithoutLineFeed) }
                    guard number > 0 else {
                        reset()
                        return .frame(length: carriageReturn + 2, command: .none)
                    }
                    owed = number
                    cursor = carriageReturn + 2
                    phase = .length
                }

            case .length:
                if let known {
                    // Arguments that are all there, without a write to memory for each.
                    var position = cursor
                    var left = owed
                    while position < count,
                        bytes.load(fromByteOffset: position, as: UInt8.self) == 0x24,
                        case let end = Header.wholeBulk(bytes, from: position, to: count), end >= 0
                    {
                        position = end
                        left -= 1
                        if left == 0 {
                            reset()
                            return .frame(length: position, command: known)
                        }
                    }
                    cursor = position
                    owed = left
                }
                guard cursor < count else { return .incomplete }
                guard bytes.load(fromByteOffset: cursor, as: UInt8.self) == 0x24 else {
                    phase = .badLength
                    probe = cursor
                    continue
                }
                var (number, length) = Header.short(bytes + cursor, available: count - cursor)
                if length == 0 {
                    switch Header.number(bytes, from: cursor + 1, to: count) {
                    case .incomplete:
                        return .incomplete
                    case .malformed:
                        phase = .badLength
                        probe = cursor + 1
                        continue
                    case .number(let long, let carriageReturn):
                        guard carriageReturn + 1 < count else { return .incomplete }
                        guard long >= 0, long <= Limits.bulkBytes else {
                            return fail(.invalidBulkLength)
                        }
                        guard
                            bytes.load(fromByteOffset: carriageReturn + 1, as: UInt8.self) == 0x0A
                        else { return fail(.headerWithoutLineFeed) }
                        number = long
                        length = carriageReturn + 2 - cursor
                    }
                }
                cursor += length
                if known == nil { probe = cursor }
                cursor += number
                phase = .body

            case .body:
                if known == nil {
                    let nameLength = cursor - probe
                    guard count >= probe + min(nameLength, NameVerdict.significantBytes) else {
                        return .incomplete
                    }
                    switch NameVerdict(bytes + probe, count: nameLength) {
                    case .command(let command): known = command
                    case .crossProtocol: return fail(.crossProtocol)
                    case .ambiguous: return fail(.ambiguousCommand)
                    }
                }
                guard cursor + 2 <= count else { return .incomplete }
                guard
                    UInt16(
                        littleEndian: bytes.loadUnaligned(
                            fromByteOffset: cursor, as: UInt16.self)) == Header.lineEnd
                else { return fail(.bulkWithoutTerminator) }
                cursor += 2
                owed -= 1
                phase = .length
                if owed == 0 {
                    let scan = RequestScan.frame(length: cursor, command: known ?? .plain)
                    reset()
                    return scan
                }

            case .inline:
                while cursor < count {
                    switch bytes.load(fromByteOffset: cursor, as: UInt8.self) {
                    case 0x0A:
                        let length = cursor + 1
                        reset()
                        return .inline(length: length)
                    case 0x00:
                        return fail(.lineWithNUL)
                    default:
                        if cursor >= Limits.lineBytes { return fail(.tooBigInline) }
                        cursor += 1
                    }
                }
                return .incomplete

            case .badCount, .badLength:
                // The server's verdict comes when it has found a CR and one byte more.
                while probe < count {
                    switch bytes.load(fromByteOffset: probe, as: UInt8.self) {
                    case 0x0D:
                        guard probe + 1 < count else { return .incomplete }
                        if phase == .badCount { return fail(.invalidMultibulkLength) }
                        let first = bytes.load(fromByteOffset: cursor, as: UInt8.self)
                        return fail(
                            first == 0x24 ? .invalidBulkLength : .expectedBulk(got: first))
                    case 0x00:
                        return fail(.lineWithNUL)
                    default:
                        if probe - cursor >= Limits.lineBytes {
                            return fail(
                                phase == .badCount ? .tooBigMultibulkCount : .tooBigBulkCount)
                        }
                        probe += 1
                    }
                }
                return .incomplete

            case .broken:
                return .violation(violation)
            }
        }
    }

    private mutating func reset() {
        cursor = 0
        arrived = 0
        owed = 0
        phase = .start
        known = nil
    }

    private mutating func fail(_ violation: ProtocolViolation) -> RequestScan {
        self.violation = violation
        phase = .broken
        return .violation(violation)
    }
}
