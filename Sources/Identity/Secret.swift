// The bytes that must not leak: a password or a token.
//
// A Secret lives in memory of its own, is readable only inside a closure, prints as `<secret>`
// whatever asks it to print, and is overwritten with zeros when its last owner lets go of it.

import Glibc

/// A password or token. Immutable, shareable between threads, zeroed when dropped.
package final class Secret: Sendable {
    /// Length in bytes. Not itself a secret: it is visible in the size of the login on the wire.
    package let count: Int
    private nonisolated(unsafe) let storage: UnsafeMutableRawPointer

    /// Copies `bytes` into memory of its own; the caller still owns, and should wipe, the original.
    package init(copying bytes: UnsafeRawBufferPointer) {
        count = bytes.count
        storage = UnsafeMutableRawPointer.allocate(byteCount: max(1, count), alignment: 1)
        if let base = bytes.baseAddress, count > 0 {
            storage.copyMemory(from: base, byteCount: count)
        }
    }

    /// Copies a collection of bytes, such as `"text".utf8` in a test.
    package init(_ bytes: some Collection<UInt8>) {
        count = bytes.count
        storage = UnsafeMutableRawPointer.allocate(byteCount: max(1, count), alignment: 1)
        UnsafeMutableRawBufferPointer(start: storage, count: count).copyBytes(from: bytes)
    }

    deinit {
        explicit_bzero(storage, count)
        storage.deallocate()
    }

    /// Lends the bytes for the duration of `body`. They must not escape it.
    package func withBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows
        -> Result
    {
        try body(UnsafeRawBufferPointer(start: storage, count: count))
    }
}

extension Secret: Equatable {
    /// Compares in time that depends on the lengths only, not on where the bytes differ.
    package static func == (left: Secret, right: Secret) -> Bool {
        guard left.count == right.count else { return false }
        var difference: UInt8 = 0
        left.withBytes { a in
            right.withBytes { b in
                for index in 0..<a.count { difference |= a[index] ^ b[index] }
            }
        }
        return difference == 0
    }
}

extension Secret: CustomStringConvertible, CustomDebugStringConvertible, CustomReflectable {
    package var description: String { "<secret>" }
    package var debugDescription: String { "<secret>" }
    package var customMirror: Mirror { Mirror(self, children: []) }
}
