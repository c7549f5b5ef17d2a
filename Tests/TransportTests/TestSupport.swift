// What the tests of this room share: a seeded generator, deadlines, pairs of sockets, directories.

import Foundation
import Glibc
import Testing
import Transport

/// A failure of the test's own machinery.
struct TestError: Error, CustomStringConvertible {
    let description: String

    init(_ description: String) { self.description = description }
}

/// SplitMix64: the same seed gives the same run.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xbf58_476d_1ce4_e5b9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94d0_49bb_1331_11eb
        return mixed ^ (mixed >> 31)
    }
}

extension SeededGenerator {
    mutating func bytes(_ count: Int) -> [UInt8] {
        var bytes: [UInt8] = []
        bytes.reserveCapacity(count)
        while bytes.count < count {
            withUnsafeBytes(of: next()) { bytes.append(contentsOf: $0.prefix(count - bytes.count)) }
        }
        return bytes
    }
}

/// Two connected, non-blocking Unix sockets, closed when dropped unless closed before.
final class SocketPair {
    private(set) var left: Int32
    private(set) var right: Int32

    init() throws {
        var descriptors: [Int32] = [-1, -1]
        let type = SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue
        guard socketpair(AF_UNIX, Int32(type), 0, &descriptors) == 0 else {
            throw SystemError(call: "socketpair", number: errno)
        }
        left = descriptors[0]
        right = descriptors[1]
    }

    /// Lets the left end take only a few KiB at once.
    func shrinkBuffers() {
        var size: Int32 = 4_096
        setsockopt(left, SOL_SOCKET, SO_SNDBUF, &size, socklen_t(MemoryLayout<Int32>.size))
    }

    func closeLeft() {
        if left >= 0 { Socket.close(left) }
        left = -1
    }

    func closeRight() {
        if right >= 0 { Socket.close(right) }
        right = -1
    }

    deinit {
        closeLeft()
        closeRight()
    }
}

/// A directory that is removed with everything in it when dropped.
final class TemporaryDirectory: Sendable {
    let path: String

    init() throws {
        var template = Array("/tmp/transport-tests-XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else {
            throw SystemError(call: "mkdtemp", number: errno)
        }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    deinit { try? FileManager.default.removeItem(atPath: path) }
}

/// Waits until `descriptor` is ready for `events`, such as POLLIN; throws after ten seconds.
func waitUntilReady(_ descriptor: Int32, _ events: Int32) throws {
    var entry = pollfd(fd: descriptor, events: Int16(events), revents: 0)
    guard poll(&entry, 1, 10_000) == 1 else {
        throw TestError("descriptor \(descriptor) did not become ready")
    }
}

/// Connects to `address` and waits until that is done.
func connected(to address: SocketAddress) throws -> Int32 {
    switch Socket.connect(to: address) {
    case .connected(let descriptor): return descriptor
    case .failed(let error): throw error
    case .inProgress(let descriptor):
        try waitUntilReady(descriptor, Int32(POLLOUT))
        if let error = Socket.finishConnect(descriptor) {
            Socket.close(descriptor)
            throw error
        }
        return descriptor
    }
}

/// Accepts the next connection, waiting for it.
func accepted(from listener: ListeningSocket) throws -> (Int32, SocketAddress) {
    try waitUntilReady(listener.descriptor, Int32(POLLIN))
    switch Socket.accept(listener.descriptor) {
    case .accepted(let descriptor, let peer): return (descriptor, peer)
    case let other: throw TestError("accept gave \(other)")
    }
}

/// A listener on a free port of 127.0.0.1.
func loopbackListener() throws -> ListeningSocket {
    let sockets = try ListeningSocket.bind(to: .tcp(host: "127.0.0.1", port: 0))
    return try #require(sockets.first)
}

/// Two ends of one TCP connection over loopback: ours and the accepted one.
func tcpPair() throws -> (client: Int32, server: Int32) {
    let listener = try loopbackListener()
    defer { listener.close() }
    let client = try connected(to: listener.address)
    return (client, try accepted(from: listener).0)
}

/// Everything that can be received now, at most `limit` bytes.
func received(from descriptor: Int32, limit: Int = 1 << 20) -> (bytes: [UInt8], ReceiveResult) {
    var all: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 64 * 1024)
    while true {
        let room = min(buffer.count, limit - all.count)
        if room == 0 { return (all, .bytes(all.count)) }
        let result = buffer.withUnsafeMutableBytes {
            Socket.receive(descriptor, into: UnsafeMutableRawBufferPointer(rebasing: $0[..<room]))
        }
        guard case .bytes(let count) = result else { return (all, result) }
        all += buffer[..<count]
    }
}

/// Sends `bytes`, which must fit into the socket's buffer.
func send(_ bytes: [UInt8], to descriptor: Int32) throws {
    let result = bytes.withUnsafeBytes { Socket.send(descriptor, $0) }
    guard result == .sent(bytes.count) else { throw TestError("send gave \(result)") }
}

/// Runs `loop` until something stops it; fails the test when that takes longer than ten seconds.
func run(_ loop: EventLoop, sourceLocation: SourceLocation = #_sourceLocation) {
    final class Guard {
        var timer = TimerWatcher()
        let loop: EventLoop
        var hasExpired = false
        init(_ loop: EventLoop) { self.loop = loop }
    }
    let watchdog = Guard(loop)
    watchdog.timer.prepare(
        loop: loop,
        callback: { owner in
            let watchdog = Unmanaged<Guard>.fromOpaque(owner).takeUnretainedValue()
            watchdog.hasExpired = true
            watchdog.loop.stop()
        },
        owner: Unmanaged.passUnretained(watchdog).toOpaque()
    )
    watchdog.timer.start(at: monotonicNanoseconds() + 10_000_000_000)
    loop.run()
    watchdog.timer.stop()
    #expect(!watchdog.hasExpired, "the loop was not stopped", sourceLocation: sourceLocation)
}
