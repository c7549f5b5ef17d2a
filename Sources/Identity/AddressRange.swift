// IP addresses and ranges of them, as two integers: comparing them costs two operations, and an IPv4
// client is the same whether the kernel says 10.0.0.1 or ::ffff:10.0.0.1.

import Glibc

/// An IP address. IPv4 is kept in its IPv6 form (RFC 4291, section 2.5.5.2), so that each address
/// has one form.
package struct IPAddress: Sendable, Hashable {
    /// The first eight bytes, as a number.
    package let high: UInt64
    /// The last eight.
    package let low: UInt64

    package init(high: UInt64, low: UInt64) {
        self.high = high
        self.low = low
    }

    /// Reads what inet_pton(3) does, and nothing behind it: no zone, no brackets.
    package init?(_ text: String) {
        // What is behind a NUL would be ignored.
        guard !text.utf8.contains(0) else { return nil }
        if text.utf8.contains(UInt8(ascii: ":")) {
            var address = in6_addr()
            guard inet_pton(AF_INET6, text, &address) == 1 else { return nil }
            (high, low) = withUnsafeBytes(of: &address) { bytes in
                (
                    UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)),
                    UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
                )
            }
        } else {
            var address = in_addr()
            guard inet_pton(AF_INET, text, &address) == 1 else { return nil }
            high = 0
            low = Self.mapped | UInt64(UInt32(bigEndian: address.s_addr))
        }
    }

    /// What stands before the four bytes of an IPv4 address.
    private static let mapped: UInt64 = 0xffff_0000_0000

    package var isIPv4: Bool { high == 0 && low & ~0xffff_ffff == Self.mapped }

    /// The address with all but the first `count` bits of its IPv6 form at zero.
    package func prefix(_ count: Int) -> IPAddress {
        func mask(_ bits: Int) -> UInt64 {
            bits <= 0 ? 0 : bits >= 64 ? .max : ~(UInt64.max >> UInt64(bits))
        }
        return IPAddress(high: high & mask(count), low: low & mask(count - 64))
    }
}

extension IPAddress: CustomStringConvertible {
    /// As people write it: `10.0.0.1`, `2001:db8::1`.
    package var description: String {
        withUnsafeTemporaryAllocation(of: CChar.self, capacity: 64) { buffer in
            let shown: UnsafePointer<CChar>?
            if isIPv4 {
                var address = in_addr(s_addr: UInt32(truncatingIfNeeded: low).bigEndian)
                shown = inet_ntop(
                    AF_INET, &address, buffer.baseAddress, socklen_t(buffer.count))
            } else {
                var words = (high.bigEndian, low.bigEndian)
                shown = inet_ntop(AF_INET6, &words, buffer.baseAddress, socklen_t(buffer.count))
            }
            return shown.map { String(cString: $0) } ?? "?"
        }
    }
}

/// All addresses that begin with the same bits (CIDR, RFC 4632). IPv4 and IPv6 are apart: `::/0`
/// holds no IPv4 address.
package struct AddressRange: Sendable, Hashable {
    package let first: IPAddress
    /// How many bits of the IPv6 form are fixed: 96 to 128 for IPv4.
    package let fixedBits: Int

    /// Why a text is no range.
    package enum Mistake: Error, Equatable {
        case notAnAddress
        case prefixTooLong
        /// The address has bits set behind the prefix; the range that was probably meant.
        case notTheFirst(AddressRange)
    }

    /// Reads `ADDRESS/BITS`; an address alone is the range of that one.
    package init(_ text: String) throws(Mistake) {
        let parts = text.split(
            separator: "/", maxSplits: 1, omittingEmptySubsequences: false)
        guard let address = IPAddress(String(parts[0])) else { throw .notAnAddress }
        let isWrittenAsIPv4 = !parts[0].utf8.contains(UInt8(ascii: ":"))
        let width = isWrittenAsIPv4 ? 32 : 128
        var bits = width
        if parts.count == 2 {
            let digits = parts[1].utf8
            guard !digits.isEmpty, digits.allSatisfy({ (0x30...0x39).contains($0) }),
                let number = Int(parts[1]), number <= width
            else { throw .prefixTooLong }
            bits = number
        }
        let fixed = isWrittenAsIPv4 ? bits + 96 : bits
        let range = AddressRange(first: address.prefix(fixed), fixedBits: fixed)
        guard range.first == address else { throw .notTheFirst(range) }
        self = range
    }

    private init(first: IPAddress, fixedBits: Int) {
        self.first = first
        self.fixedBits = fixedBits
    }

    private var isIPv4: Bool { first.isIPv4 && fixedBits >= 96 }

    package func contains(_ address: IPAddress) -> Bool {
        address.isIPv4 == isIPv4 && address.prefix(fixedBits) == first
    }

    /// Whether everything in `other` is in this one.
    package func contains(_ other: AddressRange) -> Bool {
        other.isIPv4 == isIPv4 && other.fixedBits >= fixedBits
            && other.first.prefix(fixedBits) == first
    }
}

extension AddressRange: CustomStringConvertible {
    /// As it is read: `10.0.0.0/8`.
    package var description: String {
        "\(first)/\(isIPv4 ? fixedBits - 96 : fixedBits)"
    }
}
