// Certificates made by the openssl command, once per run of the tests.
//
//     authority ──┬── server        localhost, cache.test, *.wild.test, 127.0.0.1, ::1
//                 ├── addressless   other.test only
//                 ├── expired       localhost, ended yesterday
//                 └── client        CN=worker
//     stranger ────── foreign       localhost

import Foundation
import Synchronization
import Testing

/// Paths of PEM files.
struct TestCertificates: Sendable {
    private let directory: TemporaryDirectory

    /// Made at first use and removed at exit; a failure is every test's that needs it.
    static let shared = Result {
        let made = try TestCertificates()
        pathToRemove.withLock { $0 = made.path }
        atexit {
            TestCertificates.pathToRemove.withLock {
                try? FileManager.default.removeItem(atPath: $0)
            }
        }
        return made
    }

    private static let pathToRemove = Mutex("")

    func certificate(_ name: String) -> String { "\(directory.path)/\(name).crt" }
    func key(_ name: String) -> String { "\(directory.path)/\(name).key" }
    var caFile: String { certificate("authority") }
    var path: String { directory.path }

    private init() throws {
        directory = try TemporaryDirectory()
        let base = directory.path
        for authority in ["authority", "stranger"] {
            try openssl(
                "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", key(authority), "-out", certificate(authority), "-days", "2",
                "-subj", "/O=Transport Tests/CN=\(authority)")
        }
        try issue(
            "server",
            "DNS:localhost,DNS:cache.test,DNS:*.wild.test,IP:127.0.0.1,IP:::1")
        try issue("addressless", "DNS:other.test")
        try issue("expired", "DNS:localhost", days: "-1")
        try issue("client", "DNS:worker")
        try issue("foreign", "DNS:localhost", by: "stranger")
        try openssl(
            "ec", "-in", key("client"), "-aes128", "-passout", "pass:secret",
            "-out", key("encrypted"))
        try "not a certificate\n".write(
            toFile: base + "/garbage.crt", atomically: false, encoding: .utf8)
    }

    private func issue(
        _ name: String,
        _ alternativeNames: String,
        days: String = "2",
        by authority: String = "authority"
    ) throws {
        let request = directory.path + "/\(name).csr"
        let extensions = directory.path + "/\(name).ext"
        try "subjectAltName=\(alternativeNames)\n".write(
            toFile: extensions, atomically: false, encoding: .utf8)
        try openssl(
            "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", key(name), "-out", request, "-subj", "/O=Transport Tests/CN=\(name)")
        try openssl(
            "x509", "-req", "-in", request, "-CA", certificate(authority), "-CAkey",
            key(authority), "-CAcreateserial", "-days", days, "-extfile", extensions,
            "-out", certificate(name))
    }

    private func openssl(_ arguments: String...) throws {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/usr/bin/env")
        process.arguments = ["openssl"] + arguments
        let errors = Pipe()
        process.standardError = errors
        process.standardOutput = FileHandle.nullDevice
        try process.run()
        let text = errors.fileHandleForReading.readDataToEndOfFile()
        process.waitUntilExit()
        if process.terminationStatus != 0 {
            throw TestError(
                "openssl \(arguments.joined(separator: " ")): "
                    + String(decoding: text, as: UTF8.self))
        }
    }
}
