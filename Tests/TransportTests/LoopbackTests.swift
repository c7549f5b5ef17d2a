// Everything together, in earnest: a loop, a TCP connection, and the openssl command as server.

import Foundation
import Glibc
import Testing
import Transport

/// `openssl s_server -rev`: answers each line with its characters in reverse order.
private final class OpenSSLServer {
    private let process = Process()
    let port: UInt16

    init() throws {
        let certificates = try TestCertificates.shared.get()
        let output = Pipe()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = [
            "openssl", "s_server", "-accept", "127.0.0.1:0", "-rev",
            "-cert", certificates.certificate("server"), "-key", certificates.key("server"),
        ]
        process.standardInput = FileHandle.nullDevice
        process.standardOutput = output
        process.standardError = FileHandle.nullDevice
        try process.run()
        // It prints `ACCEPT 127.0.0.1:PORT` once it listens.
        var text = ""
        while !text.contains("ACCEPT") || !text.hasSuffix("\n") {
            let data = output.fileHandleForReading.availableData
            if data.isEmpty { throw TestError("openssl s_server ended: \(text)") }
            text += String(decoding: data, as: UTF8.self)
        }
        let line = text.split(separator: "\n").last { $0.hasPrefix("ACCEPT") } ?? ""
        guard let port = line.split(separator: ":").last.flatMap({ UInt16($0) }) else {
            throw TestError("openssl s_server listens where? \(text)")
        }
        self.port = port
    }

    deinit {
        // Not SIGTERM: the child inherits the signal mask of the test's thread, which blocks it.
        kill(process.processIdentifier, SIGKILL)
        process.waitUntilExit()
    }
}

/// A client as the data plane is one: everything happens in callbacks, writes at the turn's end.
private struct Client {
    let loop: EventLoop
    let stream: SecureStream
    let descriptor: Int32
    var watcher = IOWatcher()
    var isConnected = false
    var isUp = false
    var stage: [UInt8] = []
    var received: [UInt8] = []
    var expected = 0
    var problem: String?

    mutating func fail(_ problem: String) {
        self.problem = problem
        watcher.stop()
        loop.stop()
    }

    mutating func ready() {
        if !isConnected {
            if let error = Socket.finishConnect(descriptor) { return fail("\(error)") }
            isConnected = true
            return goOn()
        }
        if case .failed(let error) = stream.receiveCiphertext(from: descriptor) {
            return fail("\(error)")
        }
        goOn()
    }

    mutating func goOn() {
        watcher.start(.read)
        if !isUp {
            switch stream.handshake() {
            case .needsInput: return
            case .failed(let failure): return fail("\(failure)")
            case .done: isUp = true
            }
        }
        withUnsafeTemporaryAllocation(byteCount: 64 * 1024, alignment: 1) { buffer in
            while true {
                switch stream.decrypt(into: buffer) {
                case .bytes(let count): received += buffer[..<count]
                case .needsInput: return
                case .closed: return fail("closed")
                case .failed(let failure): return fail("\(failure)")
                }
            }
        }
        if received.count >= expected { loop.stop() }
    }

    mutating func endTurn() {
        if isUp && !stage.isEmpty {
            if let failure = stage.withUnsafeBytes({ stream.encrypt($0) }) {
                return fail("\(failure)")
            }
            stage = []
        }
        if stream.unsentByteCount > 0 {
            if case .failed(let error) = stream.flush(to: descriptor) { return fail("\(error)") }
            if isConnected {
                watcher.start(stream.unsentByteCount > 0 ? [.read, .write] : .read)
            }
        }
    }
}

@Suite struct LoopbackTests {
    @Test("A loop, a connection and TLS carry lines to the openssl command and back")
    func carriesLines() throws {
        let server = try OpenSSLServer()
        let loop = try EventLoop()
        let pool = ChunkPool()
        let address = try #require(SocketAddress(literal: "127.0.0.1", port: server.port))
        let descriptor: Int32
        switch Socket.connect(to: address) {
        case .inProgress(let number), .connected(let number): descriptor = number
        case .failed(let error): throw error
        }
        defer { Socket.close(descriptor) }
        let lines = (1...200).map { String(repeating: "abcdefgh", count: $0 % 40) + "\($0)" }
        let stream = try SecureStream(
            context: trustingContext(), serverName: "127.0.0.1", pool: pool)
        let client = UnsafeMutablePointer<Client>.allocate(capacity: 1)
        client.initialize(to: Client(loop: loop, stream: stream, descriptor: descriptor))
        defer {
            client.pointee.watcher.stop()
            client.deinitialize(count: 1)
            client.deallocate()
        }
        let owner = UnsafeMutableRawPointer(client)
        client.pointee.stage = Array(lines.map { $0 + "\n" }.joined().utf8)
        client.pointee.expected = client.pointee.stage.count
        client.pointee.watcher.prepare(
            loop: loop,
            descriptor: descriptor,
            callback: { owner, _ in
                owner.assumingMemoryBound(to: Client.self).pointee.ready()
            },
            owner: owner)
        client.pointee.watcher.start(.write)
        loop.onTurnEnd(
            { owner in owner.assumingMemoryBound(to: Client.self).pointee.endTurn() },
            owner: owner)
        run(loop)
        #expect(client.pointee.problem == nil)
        let expected = lines.map { String($0.reversed()) + "\n" }.joined()
        #expect(String(decoding: client.pointee.received, as: UTF8.self) == expected)
        #expect(pool.lentCount == 0)
    }
}
