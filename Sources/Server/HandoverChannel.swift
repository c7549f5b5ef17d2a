// One connection between two processes that hand over: lines one way and the other, and descriptors.

import Glibc
import Transport

/// Sends and receives messages without blocking. Used by one thread; closes what it holds when dropped.
final class HandoverChannel {
    /// What a look at the connection brought.
    enum Received {
        /// As many as there are now, perhaps none.
        case messages([HandoverMessage])
        /// The other process is gone, or has closed the connection.
        case end
        /// It is none of ours, or speaks otherwise.
        case failed(String)
    }

    /// Bytes that may wait for the end of their line.
    private static let limit = HandoverMessage.lineLimit

    let descriptor: Int32
    private var line: [UInt8] = []
    private var descriptors: [Int32] = []

    /// - Parameter descriptor: a connected Unix stream socket, now the channel's.
    init(_ descriptor: Int32) { self.descriptor = descriptor }

    deinit {
        for one in descriptors { Socket.close(one) }
        Socket.close(descriptor)
    }

    /// The next descriptor that has come; the caller's from now on.
    func takeDescriptor() -> Int32? {
        descriptors.isEmpty ? nil : descriptors.removeFirst()
    }

    /// Sends one message, and a descriptor with it, which stays the caller's.
    ///
    /// A full buffer is a failure too: all of this is less than any Unix socket's holds.
    /// - Returns: why it did not go.
    func send(_ message: HandoverMessage, passing passed: Int32? = nil) -> String? {
        assert((passed != nil) == message.hasDescriptor)
        let bytes = Array((message.line + "\n").utf8)
        switch Socket.send(descriptor, bytes, passing: passed.map { [$0] } ?? []) {
        case .sent(bytes.count): return nil
        case .sent, .wouldBlock: return "the other process does not read"
        case .failed(let error): return error.description
        }
    }

    /// What has come.
    func receive() -> Received {
        var messages: [HandoverMessage] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        while true {
            let result = buffer.withUnsafeMutableBytes {
                Socket.receivePassed(descriptor, into: $0)
            }
            switch result {
            case .wouldBlock:
                return .messages(messages)
            case .end:
                return messages.isEmpty ? .end : .messages(messages)
            case .failed(let error):
                return messages.isEmpty ? .failed(error.description) : .messages(messages)
            case .bytes(let count, let passed):
                descriptors += passed
                for byte in buffer[..<count] {
                    if byte != 0x0a {
                        line.append(byte)
                        guard line.count <= Self.limit else { return .failed("a line is too long") }
                        continue
                    }
                    let text = String(decoding: line, as: UTF8.self)
                    line.removeAll()
                    guard let message = HandoverMessage(text) else {
                        return .failed("a line was not understood")
                    }
                    messages.append(message)
                }
            }
        }
    }

    /// Waits until there is something to receive. For threads that may block.
    ///
    /// - Parameter isInterrupted: asked ten times a second.
    /// - Returns: false: interrupted, or not before the deadline, in nanoseconds of the monotonic
    ///   clock.
    func wait(until deadline: UInt64, unless isInterrupted: () -> Bool) -> Bool {
        while monotonicNanoseconds() < deadline && !isInterrupted() {
            if Socket.waitReadable(descriptor, milliseconds: 100) { return true }
        }
        return false
    }
}
