// A real redis-server on a Unix socket in a directory of its own, so that no port is needed.

import Foundation
import Glibc

/// What went wrong outside the code under test.
struct ServerFailure: Error, CustomStringConvertible {
    let description: String
}

/// A running server; it ends with this object, and by itself after two minutes at the latest.
///
/// Started with `posix_spawn` rather than `Foundation.Process`, whose children inherit the signal
/// mask of a dispatch thread, which blocks SIGTERM.
final class RedisServer {
    private let process: pid_t
    private let directory: String
    private var path: String { directory + "/s" }

    init() throws {
        directory = NSTemporaryDirectory() + "resp-\(UInt32.random(in: 0 ... .max))"
        try FileManager.default.createDirectory(
            atPath: directory, withIntermediateDirectories: true)
        let output = Pipe()
        let log = output.fileHandleForWriting.fileDescriptor
        process = try Self.start(
            [
                "timeout", "120", "redis-server", "--port", "0", "--unixsocket", directory + "/s",
                "--save", "", "--dir", directory, "--enable-debug-command", "yes",
            ], output: log)
        output.fileHandleForWriting.closeFile()
        var text = Data()
        while !text.contains("ready to accept connections at") {
            let more = output.fileHandleForReading.availableData
            if more.isEmpty {
                throw ServerFailure(
                    description: "redis-server did not start; 7.0 or newer is needed. It said: "
                        + String(decoding: text, as: UTF8.self))
            }
            text += more
        }
    }

    deinit {
        kill(process, SIGTERM)
        waitpid(process, nil, 0)
        try? FileManager.default.removeItem(atPath: directory)
    }

    /// Starts a program with no signal blocked, and both its outputs on one descriptor.
    private static func start(_ words: [String], output: Int32) throws -> pid_t {
        var attributes = posix_spawnattr_t()
        var actions = posix_spawn_file_actions_t()
        var none = sigset_t()
        posix_spawnattr_init(&attributes)
        posix_spawn_file_actions_init(&actions)
        defer {
            posix_spawnattr_destroy(&attributes)
            posix_spawn_file_actions_destroy(&actions)
        }
        sigemptyset(&none)
        posix_spawnattr_setsigmask(&attributes, &none)
        posix_spawnattr_setflags(&attributes, Int16(POSIX_SPAWN_SETSIGMASK))
        posix_spawn_file_actions_adddup2(&actions, output, 1)
        posix_spawn_file_actions_adddup2(&actions, output, 2)
        var arguments = words.map { strdup($0) }
        defer { for argument in arguments { free(argument) } }
        arguments.append(nil)
        var process: pid_t = 0
        let error = posix_spawnp(&process, words[0], &actions, &attributes, arguments, environ)
        guard error == 0 else {
            throw ServerFailure(description: "starting \(words[0]): errno \(error)")
        }
        return process
    }

    /// Sends these bytes on a new connection, ends it, and returns all the server sent.
    func exchange(_ bytes: [UInt8]) throws -> [UInt8] {
        let descriptor = socket(AF_UNIX, Int32(SOCK_STREAM.rawValue), 0)
        guard descriptor >= 0 else { throw ServerFailure(description: "socket: errno \(errno)") }
        defer { close(descriptor) }
        var patience = timeval(tv_sec: 20, tv_usec: 0)
        setsockopt(
            descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, socklen_t(MemoryLayout<timeval>.size))
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: path.utf8) }
        let connected = withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_un>.size))
            }
        }
        guard connected == 0 else { throw ServerFailure(description: "connect: errno \(errno)") }
        var sent = 0
        while sent < bytes.count {
            // The server closes early on a violation; what it said before can still be read.
            let count = bytes[sent...].withUnsafeBytes {
                send(descriptor, $0.baseAddress, $0.count, Int32(MSG_NOSIGNAL))
            }
            if count < 0 { break }
            sent += count
        }
        shutdown(descriptor, Int32(SHUT_WR))
        var received: [UInt8] = []
        var chunk = [UInt8](repeating: 0, count: 65_536)
        while true {
            let count = recv(descriptor, &chunk, chunk.count, 0)
            if count > 0 {
                received += chunk[..<count]
            } else if count == 0 || errno == ECONNRESET {
                return received
            } else {
                throw ServerFailure(description: "recv: errno \(errno)")
            }
        }
    }
}

extension Data {
    fileprivate func contains(_ text: String) -> Bool { range(of: Data(text.utf8)) != nil }
}
