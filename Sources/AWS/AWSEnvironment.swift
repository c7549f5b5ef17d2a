// What the process's environment says about AWS, and files that it points to.

import Glibc
import Identity

/// The variables that matter, taken once; an empty one counts as not set.
package struct AWSEnvironment: Sendable {
    private let variables: [String: String]
    private let secrets: [String: Secret]

    /// Variables whose values are never held as text.
    static let secretNames: Set<String> = [
        "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    ]

    /// Those of this process. Call it before other threads exist, or while none changes them.
    package static func ofProcess() -> AWSEnvironment {
        var variables: [String: String] = [:]
        var secrets: [String: Secret] = [:]
        var entry = environ
        while let pointer = entry.pointee {
            defer { entry += 1 }
            guard let equals = strchr(pointer, Int32(UInt8(ascii: "="))) else { continue }
            let name = String(
                decoding: UnsafeRawBufferPointer(start: pointer, count: equals - pointer),
                as: UTF8.self)
            guard name.hasPrefix("AWS_") || name == "HOME" else { continue }
            let value = UnsafeRawBufferPointer(start: equals + 1, count: strlen(equals + 1))
            if secretNames.contains(name) {
                secrets[name] = Secret(copying: value)
            } else {
                variables[name] = String(decoding: value, as: UTF8.self)
            }
        }
        return AWSEnvironment(variables: variables, secrets: secrets)
    }

    /// For tests: secrets are among the variables.
    package init(_ variables: [String: String]) {
        self.init(
            variables: variables.filter { !Self.secretNames.contains($0.key) },
            secrets: variables.filter { Self.secretNames.contains($0.key) }
                .mapValues { Secret($0.utf8) })
    }

    private init(variables: [String: String], secrets: [String: Secret]) {
        self.variables = variables
        self.secrets = secrets
    }

    /// The same, with a variable that has another value.
    package func setting(_ name: String, to value: String) -> AWSEnvironment {
        var variables = variables
        variables[name] = value
        return AWSEnvironment(variables: variables, secrets: secrets)
    }

    package subscript(name: String) -> String? {
        variables[name].flatMap { $0.trimmed().isEmpty ? nil : $0 }
    }

    func secret(_ name: String) -> Secret? { secrets[name].flatMap { $0.isBlank ? nil : $0 } }

    /// Whether a variable says `true`, in any case.
    func isTrue(_ name: String) -> Bool { self[name]?.trimmed().lowercased() == "true" }

    /// `~/` as the home directory.
    func expanded(_ path: String) -> String {
        guard path.hasPrefix("~/"), let home = self["HOME"] else { return path }
        return home + path.dropFirst(1)
    }
}

extension Secret {
    /// Whether there is nothing in it but blanks.
    var isBlank: Bool {
        withBytes { $0.allSatisfy { $0 == 0x20 || $0 == 0x09 || $0 == 0x0a || $0 == 0x0d } }
    }
}

/// A whole file. nil: there is none of that name.
///
/// - Throws: `refused` if it cannot be read, is no regular file or is larger than `limit` bytes.
func contents(of path: String, limit: Int = 1 << 20) throws(AWSFailure) -> Secret? {
    // O_NONBLOCK: a FIFO without a writer must be refused, not waited for.
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
    guard descriptor >= 0 else {
        if errno == ENOENT || errno == ENOTDIR { return nil }
        throw AWSFailure(.refused, "cannot open \(path): \(errorText(errno))")
    }
    defer { close(descriptor) }
    var status = stat()
    guard fstat(descriptor, &status) == 0 else {
        throw AWSFailure(.refused, "cannot stat \(path): \(errorText(errno))")
    }
    // A usual way to say that there shall be no such file.
    if path == "/dev/null" { return nil }
    guard status.st_mode & S_IFMT == S_IFREG else {
        throw AWSFailure(.refused, "\(path): wanted a regular file, got something else")
    }
    var buffer = WipedBuffer(capacity: 16_384)
    let failure = withUnsafeTemporaryAllocation(byteCount: 16_384, alignment: 1) { chunk -> Int32 in
        defer { if let base = chunk.baseAddress { explicit_bzero(base, chunk.count) } }
        while buffer.count <= limit {
            let got = read(descriptor, chunk.baseAddress, chunk.count)
            if got == -1, errno == EINTR { continue }
            guard got >= 0 else { return errno }
            if got == 0 { return 0 }
            buffer.append(UnsafeRawBufferPointer(rebasing: chunk[..<got]))
        }
        return EFBIG
    }
    guard failure == 0 else {
        throw AWSFailure(.refused, "cannot read \(path): \(errorText(failure))")
    }
    return buffer.secret()
}
