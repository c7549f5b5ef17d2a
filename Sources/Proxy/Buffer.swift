// Bytes on their way: appended at the tail, taken from the head.
//
//      base        head              tail        capacity
//       │ consumed │     readable     │   spare    │
//
// Memory is held only while there is something to hold: an empty buffer that was released costs
// nothing, so an idle session has none. A sensitive buffer zeroes every byte that it leaves
// behind, when it grows, moves its content or dies, because it may hold a client's password.

import Glibc

/// A growable queue of bytes, owned by one session or connection and used on one thread.
package struct Buffer: ~Copyable {
    private var base: UnsafeMutableRawPointer?
    private var capacity = 0
    private var head = 0
    private var tail = 0
    private let sensitive: Bool

    /// A buffer without memory. `sensitive`: zero what is left behind.
    package init(sensitive: Bool = false) {
        self.sensitive = sensitive
    }

    deinit {
        if let base {
            if sensitive { explicit_bzero(base, capacity) }
            free(base)
        }
    }

    /// Bytes that can be read.
    package var count: Int { tail &- head }
    package var isEmpty: Bool { tail == head }
    /// Bytes of memory held.
    package var reserved: Int { capacity }

    /// The readable bytes; valid until the next mutation. Must not be asked of an empty buffer.
    package var bytes: UnsafeMutableRawPointer {
        // swift-format-ignore: NeverForceUnwrap
        base! + head
    }

    /// The readable bytes, also none; valid until the next mutation.
    package var contents: UnsafeRawBufferPointer {
        UnsafeRawBufferPointer(start: isEmpty ? nil : bytes, count: count)
    }

    /// At least `minimum` bytes of spare memory behind the tail, to be filled and then announced
    /// with `didAppend`.
    package mutating func spare(_ minimum: Int) -> UnsafeMutableRawBufferPointer {
        reserve(minimum)
        // swift-format-ignore: NeverForceUnwrap
        return UnsafeMutableRawBufferPointer(start: base! + tail, count: capacity - tail)
    }

    /// `count` bytes were written into the spare memory.
    package mutating func didAppend(_ count: Int) {
        precondition(count >= 0 && count <= capacity - tail)
        tail &+= count
    }

    @inline(__always)
    package mutating func append(_ source: UnsafeRawPointer, _ count: Int) {
        if capacity &- tail < count { reserve(count) }
        // swift-format-ignore: NeverForceUnwrap
        memcpy(base! + tail, source, count)
        tail &+= count
    }

    package mutating func append(_ source: some Collection<UInt8>) {
        let count = source.count
        guard count > 0 else { return }
        UnsafeMutableRawBufferPointer(rebasing: spare(count)[..<count]).copyBytes(from: source)
        tail &+= count
    }

    /// The first `count` bytes have been dealt with.
    @inline(__always)
    package mutating func consume(_ count: Int) {
        precondition(count >= 0 && count <= tail &- head)
        head &+= count
        if head == tail {
            head = 0
            tail = 0
        }
    }

    /// Takes away `length` bytes that begin `offset` bytes behind the head.
    package mutating func remove(at offset: Int, _ length: Int) {
        precondition(offset >= 0 && length >= 0 && offset + length <= count)
        guard length > 0 else { return }
        memmove(bytes + offset, bytes + offset + length, count - offset - length)
        tail &-= length
        if sensitive { explicit_bzero(bytes + count, length) }
        if head == tail {
            head = 0
            tail = 0
        }
    }

    /// Overwrites the first `count` readable bytes with zeros; they stay to be consumed.
    package mutating func wipe(_ count: Int) {
        precondition(count <= self.count)
        if count > 0 { explicit_bzero(bytes, count) }
    }

    /// Gives the memory back if nothing is in it and more than `limit` bytes are held.
    package mutating func release(above limit: Int = 0) {
        guard isEmpty, capacity > limit, let memory = base else { return }
        if sensitive { explicit_bzero(memory, capacity) }
        free(memory)
        base = nil
        capacity = 0
    }

    package mutating func removeAll() {
        if sensitive, let base { explicit_bzero(base, capacity) }
        head = 0
        tail = 0
    }

    /// Makes room for `minimum` more bytes, by moving the content to the front where that gains
    /// half of the memory, else by doubling.
    private mutating func reserve(_ minimum: Int) {
        guard capacity - tail < minimum else { return }
        let held = count
        if let base, head >= capacity / 2, capacity - held >= minimum {
            memmove(base, base + head, held)
            if sensitive { explicit_bzero(base + held, tail - held) }
        } else {
            var size = max(512, capacity)
            while size - held < minimum { size *= 2 }
            guard let memory = malloc(size) else {
                fatalError("out of memory: wanted \(size) bytes for a buffer")
            }
            if let base {
                memcpy(memory, base + head, held)
                if sensitive { explicit_bzero(base, capacity) }
                free(base)
            }
            base = memory
            capacity = size
        }
        head = 0
        tail = held
    }
}
