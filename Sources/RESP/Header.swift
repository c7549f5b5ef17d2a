// The line that begins a bulk string or an aggregate: a type byte, a number, CR LF.

/// Reads such lines from memory.
@usableFromInline
enum Header {
    /// CR LF as a word of two bytes loaded from memory.
    @inlinable static var lineEnd: UInt16 { 0x0A0D }

    /// The number of a header of up to five digits that has arrived whole, in one load or two.
    ///
    /// The type byte is the caller's to check. Says nothing (`length` 0) of anything unusual: a
    /// longer or negative number, a malformed one, one that is not all there.
    /// - Parameter available: how many bytes are readable at `bytes`.
    /// - Returns: the number, and the length of the line with CR LF.
    @inlinable @inline(__always)
    static func short(
        _ bytes: UnsafeRawPointer, available: Int
    ) -> (number: Int, length: Int) {
        // One test per length rather than a search for the CR: lengths repeat, and a predicted
        // branch takes the arithmetic off the path to the next header.
        guard available >= 8 else {
            guard available >= 4 else { return (0, 0) }
            let line = UInt32(littleEndian: bytes.loadUnaligned(as: UInt32.self))
            let digit = UInt64((line &>> 8) & 0xFF) &- 0x30
            return digit <= 9 && line &>> 16 == UInt32(lineEnd)
                ? (Int(truncatingIfNeeded: digit), 4) : (0, 0)
        }
        let line = UInt64(littleEndian: bytes.loadUnaligned(as: UInt64.self))
        let first = ((line &>> 8) & 0xFF) &- 0x30
        guard first <= 9 else { return (0, 0) }
        if line & 0xFFFF_0000 == 0x0A0D_0000 { return (Int(truncatingIfNeeded: first), 4) }
        let second = ((line &>> 16) & 0xFF) &- 0x30
        // A number of more than one digit does not begin with 0.
        guard second <= 9, first != 0 else { return (0, 0) }
        let two = first &* 10 &+ second
        if line & 0xFF_FF00_0000 == 0x0A_0D00_0000 { return (Int(truncatingIfNeeded: two), 5) }
        var number = two
        var shift: UInt64 = 24
        // At most three rounds: the line end of a five-digit number takes the last two bytes.
        while shift <= 40 {
            let digit = ((line &>> shift) & 0xFF) &- 0x30
            guard digit <= 9 else { return (0, 0) }
            number = number &* 10 &+ digit
            shift &+= 8
            if UInt16(truncatingIfNeeded: line &>> shift) == lineEnd {
                return (Int(truncatingIfNeeded: number), Int(truncatingIfNeeded: shift &>> 3) &+ 2)
            }
        }
        return (0, 0)
    }

    /// Skips a bulk string that has arrived whole, with a header of up to five digits.
    ///
    /// The type byte is the caller's to check. Says nothing (-1) of anything else.
    /// - Returns: the offset behind the bulk's last CR LF.
    @inlinable @inline(__always)
    static func wholeBulk(_ bytes: UnsafeRawPointer, from offset: Int, to end: Int) -> Int {
        let (number, length) = short(bytes + offset, available: end &- offset)
        let close = offset &+ length &+ number
        guard length > 0, close &+ 2 <= end,
            UInt16(littleEndian: bytes.loadUnaligned(fromByteOffset: close, as: UInt16.self))
                == lineEnd
        else { return -1 }
        return close &+ 2
    }

    /// What can be said of a number that stands before a CR.
    enum Number: Equatable {
        /// Neither a CR nor a byte that cannot stand here has come yet.
        case incomplete
        /// Not a number as the server's `string2ll` reads one.
        case malformed
        /// A number; its CR stands at this offset.
        case number(Int, carriageReturn: Int)
    }

    /// Reads a number as redis-server's `string2ll`: no sign but `-`, no leading zero, no space,
    /// within 64 bits.
    ///
    /// Source: Redis `util.c`, `string2ll`.
    /// - Parameters:
    ///   - offset: where the number begins.
    ///   - end: the offset behind the last byte that has arrived.
    static func number(_ bytes: UnsafeRawPointer, from offset: Int, to end: Int) -> Number {
        var index = offset
        var negative = false
        var magnitude: UInt64 = 0
        var digits = 0
        while index < end {
            let byte = bytes.load(fromByteOffset: index, as: UInt8.self)
            switch byte {
            case 0x30...0x39:
                // "0" is a number, "01" and "-0" are none.
                if byte == 0x30, digits == 0, negative { return .malformed }
                if digits > 0, magnitude == 0 { return .malformed }
                let (tens, overTens) = magnitude.multipliedReportingOverflow(by: 10)
                let (sum, overSum) = tens.addingReportingOverflow(UInt64(byte - 0x30))
                let limit = negative ? Int.min.magnitude : Int.max.magnitude
                if overTens || overSum || sum > limit { return .malformed }
                magnitude = sum
                digits += 1
            case 0x2D where index == offset:
                negative = true
            case 0x0D where digits > 0:
                let value =
                    negative
                    ? Int(truncatingIfNeeded: 0 &- magnitude) : Int(truncatingIfNeeded: magnitude)
                return .number(value, carriageReturn: index)
            default:
                return .malformed
            }
            index += 1
        }
        return .incomplete
    }
}
