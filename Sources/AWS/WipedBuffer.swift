// Bytes under construction that may contain a secret: what was in memory is overwritten when the
// buffer grows and when it goes.

import Glibc
package import Identity

/// A growing buffer that leaves nothing behind.
package struct WipedBuffer: ~Copyable {
    private var storage: UnsafeMutableRawBufferPointer
    package private(set) var count = 0

    package init(capacity: Int = 1024) {
        storage = .allocate(byteCount: max(64, capacity), alignment: 1)
    }

    deinit {
        if let base = storage.baseAddress { explicit_bzero(base, count) }
        storage.deallocate()
    }

    /// What has been appended; valid during `body`.
    package func withBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows
        -> Result
    {
        try body(UnsafeRawBufferPointer(rebasing: storage[..<count]))
    }

    package mutating func append(_ bytes: UnsafeRawBufferPointer) {
        reserve(bytes.count)
        UnsafeMutableRawBufferPointer(rebasing: storage[count...]).copyMemory(from: bytes)
        count += bytes.count
    }

    package mutating func append(_ text: String) {
        var text = text
        text.withUTF8 { append(UnsafeRawBufferPointer($0)) }
    }

    package mutating func append(_ secret: Secret) {
        secret.withBytes { append($0) }
    }

    package mutating func append(byte: UInt8) {
        reserve(1)
        storage[count] = byte
        count += 1
    }

    /// Keeps what is unreserved in RFC 3986 (section 2.3) and writes every other byte as %XX, as
    /// AWS wants names and values in a query: a space is %20, never a plus.
    package mutating func appendEncoded(_ bytes: UnsafeRawBufferPointer) {
        for byte in bytes {
            switch byte {
            case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, UInt8(ascii: "-"), UInt8(ascii: "."),
                UInt8(ascii: "_"), UInt8(ascii: "~"):
                append(byte: byte)
            default:
                append(byte: UInt8(ascii: "%"))
                append(byte: hexDigit(byte >> 4, upper: true))
                append(byte: hexDigit(byte & 15, upper: true))
            }
        }
    }

    package mutating func appendEncoded(_ text: String) {
        var text = text
        text.withUTF8 { appendEncoded(UnsafeRawBufferPointer($0)) }
    }

    package mutating func appendEncoded(_ secret: Secret) {
        secret.withBytes { appendEncoded($0) }
    }

    /// A copy that wipes itself as well.
    package func secret() -> Secret { withBytes { Secret(copying: $0) } }

    private mutating func reserve(_ more: Int) {
        guard count + more > storage.count else { return }
        let grown = UnsafeMutableRawBufferPointer.allocate(
            byteCount: max(count + more, storage.count * 2), alignment: 1)
        withBytes { grown.copyMemory(from: $0) }
        if let base = storage.baseAddress { explicit_bzero(base, count) }
        storage.deallocate()
        storage = grown
    }
}

func hexDigit(_ value: UInt8, upper: Bool = false) -> UInt8 {
    value < 10 ? UInt8(ascii: "0") + value : UInt8(ascii: upper ? "A" : "a") + value - 10
}
