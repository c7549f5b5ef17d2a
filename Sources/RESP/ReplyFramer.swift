// Finds where a server's replies end, in RESP2 and RESP3, without keeping a byte.
//
//     *2 CR LF  $3 CR LF abc CR LF  %1 CR LF  +k CR LF  :1 CR LF
//     owed 1→2  2            →1     1→2       2 →1      1 →0      end of the reply
//
// Two counters are enough at any depth: the elements owed to the frame in progress, and the bytes
// owed to the bulk in progress. An aggregate of n takes its own slot and adds n; a map 2n; an
// attribute adds 2n and leaves its slot open, for it precedes what fills it. Header numbers are
// gathered digit by digit, so a chunk may end anywhere.
//
// Invariant: where a frame ends follows from the bytes alone, never from how they were split.
//
// A push inside an aggregate takes no slot of it. redis-server (7.0.15) writes the messages that a
// command brings about for its own client where they arise: between the replies in EXEC's array, and
// behind the header of ZPOPMIN's, if the client is subscribed to keyspace events.
//
// Inside EXEC's reply counting can go wrong all the same on a well-behaved server: SUBSCRIBE in a
// transaction sends a frame per channel, CLIENT REPLY OFF leaves slots empty. Sessions that queue
// such commands are the caller's to keep on a connection whose replies need no counting.
//
// Rejected: a stack of open aggregates (depth is the server's choice, so it would need a limit or
// memory); a search for line ends in bulk bodies (they are data).

/// What the framer says of the bytes so far; every offset counts as `next`'s `offset` and `end` do.
@usableFromInline
package enum ReplyScan: Equatable, Sendable {
    /// A reply, with the attributes before it, ends before this offset.
    case reply(end: Int)
    /// An out-of-band push ends before this offset; it answers no request.
    case push(end: Int)
    /// All bytes were taken; a frame goes on, or (`isAtFrameStart`) none has begun.
    case incomplete
    /// Not RESP: an unknown type, a malformed or oversized number, a missing CR LF, a streamed type
    /// (`$?`, `*?`). The stream cannot be trusted from here on; the framer says the same ever after.
    case violation
}

/// Finds where replies end; constant state, resumable at any byte, no allocation.
@usableFromInline
package struct ReplyFramer {
    @usableFromInline
    enum Phase: UInt8 {
        /// Before an element's type byte. → all
        case element
        /// In the text of a simple string or error, whose end is any CR LF. → lineEnd
        case text
        /// In a line whose bytes are checked against the type. → lineEnd
        case line
        /// Behind the CR of a simple string or error. → element, text
        case textEnd
        /// Behind the CR of a checked line. → element
        case lineEnd
        /// In the number of a header. → headerEnd
        case header
        /// Behind the CR of a header. → element, body
        case headerEnd
        /// In a bulk's body or its CR LF. → element
        case body
        /// Behind a violation. Final.
        case broken
    }

    /// Elements owed to the frame in progress; 0 between frames.
    @usableFromInline var owed = 0
    /// Bytes owed to the bulk in progress, CR LF included.
    @usableFromInline var bulk = 0
    /// The number of the header in progress.
    @usableFromInline var number = 0
    @usableFromInline var digits: UInt8 = 0
    @usableFromInline var negative = false
    @usableFromInline var phase = Phase.element
    /// The type byte of the element in progress, or `interposedPush`.
    @usableFromInline var element: UInt8 = 0
    @usableFromInline var frameType: UInt8 = 0
    /// Whether the reply that the attributes of this frame precede has begun.
    @usableFromInline var isTyped = false

    /// A framer before the first byte of a connection.
    @inlinable
    package init() {}

    /// Whether nothing of a frame has been seen.
    @inlinable package var isAtFrameStart: Bool { owed == 0 && phase == .element }

    /// The first byte of the frame in progress, or of the one just found; that of the reply itself,
    /// not of an attribute before it. 0 while only attributes have come.
    @inlinable package var type: UInt8 { frameType }

    /// Whether the frame in progress is a push.
    @inlinable package var inPush: Bool { owed > 0 && frameType == 0x3E }

    /// How many bytes of the bulk in progress are still to come, its CR LF included; 0 if none is.
    @inlinable package var bulkRemaining: Int { bulk }

    /// In the place of its type byte, for a push inside another frame. No type byte is like it.
    @usableFromInline static var interposedPush: UInt8 { 0xBE }

    /// The most digits a header's number may have; one more could pass 64 bits.
    @usableFromInline static var mostDigits: UInt8 { 18 }

    /// Goes on with the frame in progress, or begins the next one.
    ///
    /// Called again and again, each time from the end just found, until it says `.incomplete`.
    /// - Parameters:
    ///   - bytes: the base the offsets count from. Read only; not kept.
    ///   - offset: the first byte not yet given to the framer.
    ///   - end: behind the last byte that has arrived; not less than `offset`.
    @inlinable
    package mutating func next(
        _ bytes: UnsafeRawPointer, from offset: Int, to end: Int
    ) -> ReplyScan {
        // A whole reply of the kinds that are nearly all traffic; everything else goes to `resume`.
        if owed == 0, phase == .element, end &- offset >= 5 {
            let here = bytes + offset
            let first = here.load(as: UInt8.self)
            switch first {
            case 0x24:
                let close = Header.wholeBulk(bytes, from: offset, to: end)
                if close >= 0 {
                    frameType = first
                    return .reply(end: close)
                }
                // "$-1\r" and the LF behind it.
                guard UInt32(littleEndian: here.loadUnaligned(as: UInt32.self)) == 0x0D31_2D24,
                    here.load(fromByteOffset: 4, as: UInt8.self) == 0x0A
                else { break }
                frameType = first
                return .reply(end: offset &+ 5)
            case 0x2B:
                // "+OK\r" and the LF behind it.
                guard UInt32(littleEndian: here.loadUnaligned(as: UInt32.self)) == 0x0D4B_4F2B,
                    here.load(fromByteOffset: 4, as: UInt8.self) == 0x0A
                else { break }
                frameType = first
                return .reply(end: offset &+ 5)
            case 0x3A:
                let (_, length) = Header.short(here, available: end &- offset)
                guard length > 0 else { break }
                frameType = first
                return .reply(end: offset &+ length)
            default:
                break
            }
        }
        return resume(bytes, from: offset, to: end)
    }

    @usableFromInline @inline(never)
    mutating func resume(
        _ bytes: UnsafeRawPointer, from offset: Int, to end: Int
    ) -> ReplyScan {
        var position = offset
        while position < end {
            switch phase {
            case .element:
                element = bytes.load(fromByteOffset: position, as: UInt8.self)
                guard element != Self.interposedPush else { return fail() }
                if owed == 0 {
                    owed = 1
                    isTyped = false
                    frameType = 0
                }
                // While attributes come, one slot stays open for what they precede.
                if !isTyped, owed == 1, element != 0x7C {
                    isTyped = true
                    frameType = element
                } else if element == 0x3E {
                    element = Self.interposedPush
                }
                if let (next, scan) = wholeElement(bytes, from: position, to: end) {
                    if let scan { return scan }
                    position = next
                    continue
                }
                switch element {
                case 0x2B, 0x2D, 0x28:  // + - (
                    phase = .text
                case 0x3A, 0x2C, 0x23, 0x5F:  // : , # _
                    phase = .line
                    digits = 0
                    negative = false
                case 0x24, 0x2A, 0x21, 0x3D, 0x25, 0x7E, 0x3E, 0x7C,  // $ * ! = % ~ > |
                    Self.interposedPush:
                    phase = .header
                    number = 0
                    digits = 0
                    negative = false
                default:
                    return fail()
                }
                position += 1

            case .text:
                while position < end, bytes.load(fromByteOffset: position, as: UInt8.self) != 0x0D {
                    position += 1
                }
                if position < end {
                    phase = .textEnd
                    position += 1
                }

            case .textEnd:
                if bytes.load(fromByteOffset: position, as: UInt8.self) == 0x0A {
                    position += 1
                    if let scan = finishElement(at: position) { return scan }
                } else {
                    // Looked at again there: it may be the CR that counts.
                    phase = .text
                }

            case .line:
                let byte = bytes.load(fromByteOffset: position, as: UInt8.self)
                if byte == 0x0D {
                    guard digits > 0 || element == 0x5F else { return fail() }
                    phase = .lineEnd
                } else {
                    guard takeInLine(byte) else { return fail() }
                }
                position += 1

            case .lineEnd:
                guard bytes.load(fromByteOffset: position, as: UInt8.self) == 0x0A else {
                    return fail()
                }
                position += 1
                if let scan = finishElement(at: position) { return scan }

            case .header:
                let byte = bytes.load(fromByteOffset: position, as: UInt8.self)
                switch byte {
                case 0x30...0x39:
                    // No leading zero, and no second digit behind one.
                    guard digits < Self.mostDigits, digits == 0 || number != 0,
                        !(negative && byte == 0x30 && digits == 0)
                    else { return fail() }
                    number = number &* 10 &+ Int(byte &- 0x30)
                    digits += 1
                case 0x2D where digits == 0 && !negative:
                    negative = true
                case 0x0D where digits > 0:
                    phase = .headerEnd
                default:
                    return fail()
                }
                position += 1

            case .headerEnd:
                guard bytes.load(fromByteOffset: position, as: UInt8.self) == 0x0A else {
                    return fail()
                }
                position += 1
                if negative {
                    // RESP2's nulls; nothing else is less than nothing.
                    guard number == 1, element == 0x24 || element == 0x2A else { return fail() }
                    if let scan = finishElement(at: position) { return scan }
                } else if element == 0x24 || element == 0x21 || element == 0x3D {
                    bulk = number &+ 2
                    phase = .body
                } else if let scan = finishHeader(number, at: position) {
                    return scan
                }

            case .body:
                // Up to the CR in one step, then CR and LF one by one.
                if bulk > 2 {
                    let step = min(bulk - 2, end - position)
                    bulk -= step
                    position += step
                } else {
                    let wanted: UInt8 = bulk == 2 ? 0x0D : 0x0A
                    guard bytes.load(fromByteOffset: position, as: UInt8.self) == wanted else {
                        return fail()
                    }
                    bulk -= 1
                    position += 1
                    if bulk == 0, let scan = finishElement(at: position) { return scan }
                }

            case .broken:
                return .violation
            }
        }
        return phase == .broken ? .violation : .incomplete
    }

    /// Counts an element's header, text or number if all of it, and of a bulk the body too, is
    /// there and of a usual kind; changes nothing and says nil otherwise.
    ///
    /// Nothing but a short cut: what it takes, the phases would take byte by byte.
    private mutating func wholeElement(
        _ bytes: UnsafeRawPointer, from offset: Int, to end: Int
    ) -> (next: Int, scan: ReplyScan?)? {
        switch element {
        case 0x24, 0x21, 0x3D:  // $ ! =
            var next = Header.wholeBulk(bytes, from: offset, to: end)
            if next < 0 {
                // "$-1\r" and the LF behind it.
                guard end - offset >= 5,
                    UInt32(
                        littleEndian: bytes.loadUnaligned(
                            fromByteOffset: offset, as: UInt32.self)) == 0x0D31_2D24,
                    bytes.load(fromByteOffset: offset + 4, as: UInt8.self) == 0x0A
                else { return nil }
                next = offset + 5
            }
            return (next, finishElement(at: next))
        case 0x2A, 0x25, 0x7E, 0x3E, 0x7C, Self.interposedPush:  // * % ~ > |
            let (entries, length) = Header.short(bytes + offset, available: end - offset)
            guard length > 0 else { return nil }
            return (offset + length, finishHeader(entries, at: offset + length))
        case 0x3A:  // :
            // A number that is cut off, or is none, is left to the phases.
            var next = offset + 1
            if next < end, bytes.load(fromByteOffset: next, as: UInt8.self) == 0x2D { next += 1 }
            let first = next
            while next < end,
                bytes.load(fromByteOffset: next, as: UInt8.self) &- 0x30 <= 9
            {
                next += 1
            }
            guard next > first else { return nil }
            return lineEnd(bytes, at: next, to: end)
        case 0x2B, 0x2D, 0x28:  // + - (
            var next = offset + 1
            while next < end, bytes.load(fromByteOffset: next, as: UInt8.self) != 0x0D {
                next += 1
            }
            return lineEnd(bytes, at: next, to: end)
        case 0x5F:  // _
            return lineEnd(bytes, at: offset + 1, to: end)
        default:
            return nil
        }
    }

    /// Finishes an element whose CR LF stands here, if it does.
    private mutating func lineEnd(
        _ bytes: UnsafeRawPointer, at offset: Int, to end: Int
    ) -> (next: Int, scan: ReplyScan?)? {
        guard offset + 2 <= end,
            UInt16(
                littleEndian: bytes.loadUnaligned(fromByteOffset: offset, as: UInt16.self))
                == Header.lineEnd
        else { return nil }
        return (offset + 2, finishElement(at: offset + 2))
    }

    /// Takes a byte of a number, boolean or null; false if it may not stand here.
    private mutating func takeInLine(_ byte: UInt8) -> Bool {
        switch element {
        case 0x3A:  // :
            if digits == 0, !negative, byte == 0x2D {
                negative = true
                return true
            }
            digits = 1
            return (0x30...0x39).contains(byte)
        case 0x2C:  // ,  a number, inf or nan
            digits = 1
            switch byte {
            case 0x30...0x39, 0x2B, 0x2D, 0x2E, 0x45, 0x65, 0x69, 0x6E, 0x66, 0x61: return true
            default: return false
            }
        case 0x23:  // #
            defer { digits = 1 }
            return digits == 0 && (byte == 0x74 || byte == 0x66)
        default:
            return false
        }
    }

    /// Counts the entries an aggregate's header announces; a scan if that ended the frame, or if
    /// there are more than can be counted.
    private mutating func finishHeader(_ entries: Int, at position: Int) -> ReplyScan? {
        // A map's entries are two elements each, an attribute's too.
        let isAttribute = element == 0x7C
        let takesSlot = !isAttribute && element != Self.interposedPush
        let (slots, overflow) = entries.multipliedReportingOverflow(
            by: isAttribute || element == 0x25 ? 2 : 1)
        let (sum, overflowToo) = (owed - (takesSlot ? 1 : 0)).addingReportingOverflow(slots)
        guard !overflow, !overflowToo else { return fail() }
        owed = sum
        phase = .element
        return owed == 0 ? finishFrame(at: position) : nil
    }

    private mutating func finishElement(at position: Int) -> ReplyScan? {
        owed -= 1
        phase = .element
        return owed == 0 ? finishFrame(at: position) : nil
    }

    private func finishFrame(at position: Int) -> ReplyScan {
        frameType == 0x3E ? .push(end: position) : .reply(end: position)
    }

    private mutating func fail() -> ReplyScan {
        phase = .broken
        return .violation
    }
}
