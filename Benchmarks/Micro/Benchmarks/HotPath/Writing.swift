// What batching saves in TLS: the same commands in one record, and in a record each.

import Benchmark
import COpenSSL
import Foundation
import Transport

/// A client's stream after its handshake with a server in the same process.
private final class Encrypting {
    let stream: SecureStream
    private let pool = ChunkPool()
    private let sockets: (client: Int32, server: Int32)
    private var drain = [UInt8](repeating: 0, count: 1 << 20)

    init() throws {
        let files = try Self.certificate()
        defer { try? FileManager.default.removeItem(at: files) }
        let certificate = files.appending(path: "certificate.pem").path
        var settings = TLSSettings()
        settings.caFile = certificate
        let context = try TLSContext(settings)
        stream = try SecureStream(context: context, serverName: "localhost", pool: pool)
        var pair: [Int32] = [0, 0]
        guard socketpair(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0, &pair) == 0 else {
            fatalError("socketpair: \(errno)")
        }
        sockets = (pair[0], pair[1])
        guard let serverContext = SSL_CTX_new(TLS_server_method()),
            SSL_CTX_use_certificate_chain_file(serverContext, certificate) == 1,
            SSL_CTX_use_PrivateKey_file(
                serverContext, files.appending(path: "key.pem").path, SSL_FILETYPE_PEM) == 1,
            let server = SSL_new(serverContext)
        else { fatalError("no TLS server") }
        SSL_set_fd(server, sockets.server)
        SSL_set_accept_state(server)
        // Both ends of a handshake in one thread: neither must wait.
        for descriptor in pair { _ = fcntl(descriptor, F_SETFL, O_NONBLOCK) }
        var isDone = false
        while !isDone {
            let progress = stream.handshake()
            _ = stream.flush(to: sockets.client)
            _ = SSL_do_handshake(server)
            _ = stream.receiveCiphertext(from: sockets.client)
            if case .failed(let failure) = progress { fatalError("\(failure)") }
            if case .done = progress { isDone = true }
        }
        flush()
    }

    /// One send, and the other end forgets what it got.
    func flush() {
        _ = stream.flush(to: sockets.client)
        while recv(sockets.server, &drain, drain.count, 0) > 0 {}
    }

    private static func certificate() throws -> URL {
        let directory = FileManager.default.temporaryDirectory
            .appending(path: "micro-\(getpid())")
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        let openssl = Process()
        openssl.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        openssl.arguments = [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
            "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
            "subjectAltName=DNS:localhost",
            "-keyout", directory.appending(path: "key.pem").path,
            "-out", directory.appending(path: "certificate.pem").path,
        ]
        openssl.standardError = FileHandle.nullDevice
        try openssl.run()
        openssl.waitUntilExit()
        guard openssl.terminationStatus == 0 else { fatalError("openssl made no certificate") }
        return directory
    }
}

func writingBenchmarks() throws {
    let request = command("SET", "key:000000000001", text(64))
    let one = Stream(request)
    let many = Stream(request, repeated: 50)
    let encrypting = try Encrypting()
    func encrypt(_ stream: Stream) {
        let bytes = UnsafeRawBufferPointer(start: launder(stream.base), count: stream.count)
        if let failure = encrypting.stream.encrypt(bytes) { fatalError("\(failure)") }
    }
    measure("TLS: 50 commands in a record, one send", bytes: one.count) { times in
        for _ in 0..<times / 50 {
            encrypt(many)
            encrypting.flush()
        }
    }
    measure("TLS: a record for each command, one send for 50", bytes: one.count) { times in
        for _ in 0..<times / 50 {
            for _ in 0..<50 { encrypt(one) }
            encrypting.flush()
        }
    }
    measure("TLS: a record and a send for each command", bytes: one.count) { times in
        for _ in 0..<times {
            encrypt(one)
            encrypting.flush()
        }
    }
}
