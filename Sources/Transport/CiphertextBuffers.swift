// What is on its way between a socket and OpenSSL, and the BIO through which OpenSSL sees it.
//
//     socket ── one recv ──► input  ── BIO read ──► OpenSSL ──► plaintext
//     socket ◄── one send ── output ◄─ BIO write ── OpenSSL ◄── plaintext
//
// With our own buffers one recv covers many records and one send carries many. The BIO's write
// never has to wait, so OpenSSL's rules for repeating a write with the same arguments never
// apply; how much is unsent is seen, and bounded, by whoever fills the stream.
//
// Both buffers are borrowed from the thread's ChunkPool while they hold bytes and given back when
// they are empty. A partial record does not stay here: OpenSSL takes it over at once.

import COpenSSL
import Glibc

/// A stream's ciphertext in both directions; for a plaintext stream, its plain bytes.
struct CiphertextBuffers {
    private let pool: UnsafeMutablePointer<ChunkPool.FreeList>

    private var input: UnsafeMutableRawPointer?
    private var inputHead = 0
    private var inputTail = 0

    private var output: UnsafeMutableRawPointer?
    private var outputHead = 0
    private var outputTail = 0
    private var outputCapacity = 0

    init(pool: UnsafeMutablePointer<ChunkPool.FreeList>) { self.pool = pool }

    // MARK: Input

    var unreadCount: Int { inputTail - inputHead }

    /// One recv behind what is still unread.
    ///
    /// `wouldBlock` also when there is no room, which is when a whole chunk is unread.
    mutating func receive(from descriptor: Int32) -> ReceiveResult {
        let chunk = input ?? pool.pointee.take()
        input = chunk
        if inputHead > 0 {
            let rest = inputTail - inputHead
            if rest > 0 { memmove(chunk, chunk + inputHead, rest) }
            inputHead = 0
            inputTail = rest
        }
        let room = ChunkPool.chunkSize - inputTail
        if room == 0 { return .wouldBlock }
        let result = Socket.receive(
            descriptor,
            into: UnsafeMutableRawBufferPointer(start: chunk + inputTail, count: room))
        if case .bytes(let count) = result { inputTail += count }
        releaseInputIfEmpty()
        return result
    }

    /// Moves up to `count` unread bytes to `target`; 0 when there are none.
    mutating func read(into target: UnsafeMutableRawPointer, count: Int) -> Int {
        let taken = min(count, inputTail - inputHead)
        guard taken > 0, let input else { return 0 }
        target.copyMemory(from: input + inputHead, byteCount: taken)
        inputHead += taken
        return taken
    }

    mutating func releaseInputIfEmpty() {
        guard inputHead == inputTail, let chunk = input else { return }
        pool.pointee.give(chunk)
        input = nil
        inputHead = 0
        inputTail = 0
    }

    // MARK: Output

    var unsentCount: Int { outputTail - outputHead }

    mutating func append(_ bytes: UnsafeRawPointer, count: Int) {
        if count > outputCapacity - outputTail { makeRoom(for: count) }
        guard let output else { return }
        (output + outputTail).copyMemory(from: bytes, byteCount: count)
        outputTail += count
    }

    private mutating func makeRoom(for count: Int) {
        let rest = outputTail - outputHead
        let needed = rest + count
        guard let old = output else {
            if needed <= ChunkPool.chunkSize {
                output = pool.pointee.take()
                outputCapacity = ChunkPool.chunkSize
            } else {
                output = UnsafeMutableRawPointer.allocate(byteCount: needed, alignment: 64)
                outputCapacity = needed
            }
            return
        }
        // Moving pays only when it frees at least as much as it copies.
        if needed <= outputCapacity && outputHead >= rest {
            memmove(old, old + outputHead, rest)
        } else {
            let capacity = max(outputCapacity * 2, needed)
            let bigger = UnsafeMutableRawPointer.allocate(byteCount: capacity, alignment: 64)
            bigger.copyMemory(from: old + outputHead, byteCount: rest)
            freeOutput(old)
            output = bigger
            outputCapacity = capacity
        }
        outputHead = 0
        outputTail = rest
    }

    /// One send of everything unsent; the rest stays. `.sent(0)` when nothing is unsent.
    mutating func send(to descriptor: Int32) -> SendResult {
        guard let output, outputTail > outputHead else { return .sent(0) }
        let result = Socket.send(
            descriptor,
            UnsafeRawBufferPointer(start: output + outputHead, count: outputTail - outputHead))
        if case .sent(let count) = result {
            outputHead += count
            if outputHead == outputTail { releaseOutput() }
        }
        return result
    }

    private mutating func releaseOutput() {
        if let output { freeOutput(output) }
        output = nil
        outputHead = 0
        outputTail = 0
        outputCapacity = 0
    }

    private func freeOutput(_ buffer: UnsafeMutableRawPointer) {
        // Only a chunk has a chunk's size: bigger buffers are bigger.
        if outputCapacity == ChunkPool.chunkSize {
            pool.pointee.give(buffer)
        } else {
            buffer.deallocate()
        }
    }

    /// Gives everything back; what was in it is gone.
    mutating func releaseAll() {
        inputHead = inputTail
        releaseInputIfEmpty()
        releaseOutput()
    }

    // MARK: BIO

    /// A BIO over these buffers, which must stay where they are as long as it lives.
    static func makeBIO(over buffers: UnsafeMutablePointer<CiphertextBuffers>) -> OpaquePointer? {
        guard let bio = BIO_new(method) else { return nil }
        BIO_set_data(bio, UnsafeMutableRawPointer(buffers))
        BIO_set_init(bio, 1)
        return bio
    }

    /// Made once per process and never freed, as OpenSSL's own methods are.
    private nonisolated(unsafe) static let method: OpaquePointer? = {
        let type = BIO_get_new_index() | BIO_TYPE_SOURCE_SINK
        guard let method = BIO_meth_new(type, "redis-auth-proxy buffers") else { return nil }
        // int (*)(BIO *, char *, int): -1 with the retry flag set means that no byte is there yet.
        BIO_meth_set_read(method) { bio, target, count in
            copenssl_bio_clear_retry_flags(bio)
            guard let target, count > 0, let data = BIO_get_data(bio) else { return 0 }
            let buffers = data.assumingMemoryBound(to: CiphertextBuffers.self)
            let taken = buffers.pointee.read(into: target, count: Int(count))
            if taken > 0 { return Int32(truncatingIfNeeded: taken) }
            copenssl_bio_set_retry_read(bio)
            return -1
        }
        // int (*)(BIO *, const char *, int): takes everything, always.
        BIO_meth_set_write(method) { bio, bytes, count in
            copenssl_bio_clear_retry_flags(bio)
            guard let bytes, count > 0, let data = BIO_get_data(bio) else { return 0 }
            let buffers = data.assumingMemoryBound(to: CiphertextBuffers.self)
            buffers.pointee.append(bytes, count: Int(count))
            return count
        }
        // long (*)(BIO *, int, long, void *): a flush has nothing to do and must succeed, or the
        // handshake stops after its first flight.
        BIO_meth_set_ctrl(method) { _, command, _, _ in command == BIO_CTRL_FLUSH ? 1 : 0 }
        return method
    }()
}
