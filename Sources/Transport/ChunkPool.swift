// Buffers of one size, lent for a moment to whoever reads or writes now.
//
// A stream needs a big buffer while bytes pass and none while it is idle, and on one thread only
// a few streams are busy at a time. So the buffers belong to the thread, not to the stream: ten
// thousand idle connections hold none.

/// A thread's spare buffers. Created and used on one thread; outlived by none of its borrowers.
package final class ChunkPool {
    /// Bytes of every chunk: several TLS records of 16 KiB in one recv or send.
    package static let chunkSize = 128 * 1024

    /// Spare chunks kept; more are freed. Few are in use at once, since an idle stream has none.
    package static let spareLimit = 8

    /// The first bytes of a spare chunk hold the address of the next one.
    struct FreeList {
        var first: UnsafeMutableRawPointer?
        var count = 0
        var lent = 0

        mutating func take() -> UnsafeMutableRawPointer {
            lent += 1
            guard let chunk = first else {
                return UnsafeMutableRawPointer.allocate(
                    byteCount: ChunkPool.chunkSize, alignment: 64)
            }
            first = chunk.load(as: UnsafeMutableRawPointer?.self)
            count -= 1
            return chunk
        }

        mutating func give(_ chunk: UnsafeMutableRawPointer) {
            lent -= 1
            if count == ChunkPool.spareLimit {
                chunk.deallocate()
                return
            }
            chunk.storeBytes(of: first, as: UnsafeMutableRawPointer?.self)
            first = chunk
            count += 1
        }
    }

    let free: UnsafeMutablePointer<FreeList>

    package init() {
        free = UnsafeMutablePointer.allocate(capacity: 1)
        free.initialize(to: FreeList())
    }

    /// Chunks that streams hold now; 0 when all are idle.
    package var lentCount: Int { free.pointee.lent }

    deinit {
        precondition(free.pointee.lent == 0, "a chunk pool outlives its borrowers")
        while let chunk = free.pointee.first {
            free.pointee.first = chunk.load(as: UnsafeMutableRawPointer?.self)
            chunk.deallocate()
        }
        free.deallocate()
    }
}
