// A real Redis server for the demo: TLS only, on loopback, with ACL users and a throwaway CA.
//
//   DIRECTORY/ (0700)   ca.pem  server.pem  server.key     the CA's own key is deleted at once
//                       users.acl     hashes only          redis.conf  redis.log
//                       app.password  producer.password  consumer.password

import Glibc

/// The running server and everything it lives on.
final class DemoServer {
    /// One of the users that clients become.
    struct User: Sendable {
        let name: String
        /// What it may do, as ACL SETUSER takes it.
        let accessString: String
    }

    static let users = [
        User(name: "app", accessString: "~* &* +@all"),
        User(name: "producer", accessString: "~* -@all +set"),
        User(name: "consumer", accessString: "~* -@all +get"),
    ]

    /// Changes the others' passwords; may do that and nothing else.
    private static let administrator = User(
        name: "rotation", accessString: "-@all +ping +acl|setuser")

    let directory: String
    private(set) var port: UInt16 = 0
    private let cli: String
    private let redis: String
    private let openssl: String
    private let administratorPassword = DemoPassword()
    private var passwords: [String: DemoPassword] = [:]
    private var child: ChildProcess?

    var caFile: String { "\(directory)/ca.pem" }

    func passwordFile(of user: String) -> String { "\(directory)/\(user).password" }

    /// Makes the directory; nothing else is done before `start`. Whoever made one calls `remove`.
    init() throws {
        redis = try ChildProcess.path(of: "redis-server", package: "redis-server")
        cli = try ChildProcess.path(of: "redis-cli", package: "redis-tools")
        openssl = try ChildProcess.path(of: "openssl", package: "openssl")
        let parent = getenv("TMPDIR").map { String(cString: $0) } ?? "/tmp"
        var template = Array("\(parent)/redis-auth-proxy-demo-XXXXXX".utf8CString)
        // mkdtemp makes it 0700.
        guard mkdtemp(&template) != nil else {
            throw ProgramFailure(
                description: "cannot make a directory in \(parent):"
                    + " \(String(cString: strerror(errno)))")
        }
        directory = String(
            decoding: template.dropLast().map(UInt8.init(bitPattern:)), as: UTF8.self)
    }

    /// Makes certificates and users, and starts the server on a free port.
    ///
    /// - Parameter isInterrupted: asked between steps; true ends the start with `Interrupted`.
    func start(isInterrupted: () -> Bool) throws {
        try makeCertificates()
        if isInterrupted() { throw Interrupted() }
        try writeUsers()
        // A free port can be taken by somebody else before the server has it.
        for attempt in 1...5 {
            port = try freePort()
            try writeConfiguration()
            let child = try ChildProcess.start(
                [redis, "\(directory)/redis.conf"], outputTo: "\(directory)/redis.log")
            self.child = child
            if try isUp(child, isInterrupted: isInterrupted) { return }
            self.child = nil
            if attempt == 5 {
                throw ProgramFailure(description: "redis-server does not start:\n\(logTail())")
            }
        }
    }

    /// Ctrl-C came before the proxy was there to drain.
    struct Interrupted: Error {}

    /// Gives a user another password: from here on both the old and the new one are valid, and the
    /// user's file holds the new one. The old one stays valid until `retire`.
    func rotate(_ user: String) throws -> DemoPassword? {
        let new = DemoPassword()
        try command("ACL SETUSER \(user) #\(new.hash)")
        try new.write(to: passwordFile(of: user))
        return passwords.updateValue(new, forKey: user)
    }

    /// Ends the validity of a password that `rotate` replaced.
    func retire(_ password: DemoPassword, of user: String) throws {
        try command("ACL SETUSER \(user) !\(password.hash)")
    }

    /// Ends the server and removes the directory.
    func remove() {
        child?.stop()
        child = nil
        try? removeDirectory()
    }

    // MARK: - Steps

    private func makeCertificates() throws {
        try writeFile(
            "server.ext",
            "subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
        let key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        try ChildProcess.run(
            [openssl, "req", "-x509", "-days", "30", "-subj", "/CN=redis-auth-proxy demo CA"] + key
                + ["-keyout", "\(directory)/ca.key", "-out", caFile])
        try ChildProcess.run(
            [openssl, "req", "-subj", "/CN=localhost"] + key
                + ["-keyout", "\(directory)/server.key", "-out", "\(directory)/server.csr"])
        try ChildProcess.run(
            [
                openssl, "x509", "-req", "-days", "30", "-in", "\(directory)/server.csr",
                "-CA", caFile, "-CAkey", "\(directory)/ca.key", "-CAcreateserial",
                "-extfile", "\(directory)/server.ext", "-out", "\(directory)/server.pem",
            ])
        // Nothing will be signed again.
        unlink("\(directory)/ca.key")
    }

    private func writeUsers() throws {
        var lines = ["user default off"]
        for user in Self.users {
            let password = DemoPassword()
            try password.write(to: passwordFile(of: user.name))
            passwords[user.name] = password
            lines.append("user \(user.name) on #\(password.hash) \(user.accessString)")
        }
        let administrator = Self.administrator
        lines.append(
            "user \(administrator.name) on #\(administratorPassword.hash)"
                + " \(administrator.accessString)")
        try writeFile("users.acl", lines.joined(separator: "\n") + "\n")
    }

    private func writeConfiguration() throws {
        try writeFile(
            "redis.conf",
            """
            port 0
            tls-port \(port)
            bind 127.0.0.1
            tls-cert-file "\(directory)/server.pem"
            tls-key-file "\(directory)/server.key"
            tls-ca-cert-file "\(directory)/ca.pem"
            tls-auth-clients no
            aclfile "\(directory)/users.acl"
            dir "\(directory)"
            save ""
            appendonly no
            daemonize no

            """)
    }

    /// Waits until the server answers; false if it ended instead.
    private func isUp(_ child: ChildProcess, isInterrupted: () -> Bool) throws -> Bool {
        for _ in 0..<200 {
            if isInterrupted() { throw Interrupted() }
            guard child.isRunning else { return false }
            if (try? command("PING")) != nil { return true }
            usleep(50_000)
        }
        throw ProgramFailure(description: "redis-server does not answer:\n\(logTail())")
    }

    /// Has the server perform one command as the administrator.
    private func command(_ line: String) throws {
        let answer = try ChildProcess.run(
            [
                cli, "-h", "127.0.0.1", "-p", "\(port)", "--tls", "--cacert", caFile,
                "--user", Self.administrator.name, "--no-auth-warning",
            ], input: Array((line + "\n").utf8),
            environment: ["REDISCLI_AUTH": administratorPassword.forEnvironment])
        // redis-cli ends with 0 whatever the server answers to a line of its input.
        let word = answer.prefix { !$0.isNewline }
        guard word == "OK" || word == "PONG" else {
            throw ProgramFailure(description: "the server refused a command: \(word)")
        }
    }

    private func logTail() -> String {
        let lines =
            (try? ChildProcess.run(["/usr/bin/tail", "-n", "10", "\(directory)/redis.log"]))
        return lines ?? "(no log)"
    }

    private func writeFile(_ name: String, _ text: String) throws {
        let path = "\(directory)/\(name)"
        let descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else {
            throw ProgramFailure(
                description: "cannot write \(path): \(String(cString: strerror(errno)))")
        }
        defer { close(descriptor) }
        let bytes = Array(text.utf8)
        guard write(descriptor, bytes, bytes.count) == bytes.count else {
            throw ProgramFailure(description: "cannot write \(path)")
        }
    }

    private func removeDirectory() throws {
        guard let stream = opendir(directory) else { return }
        while let entry = readdir(stream) {
            let name = withUnsafeBytes(of: entry.pointee.d_name) { bytes in
                String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
            }
            if name != "." && name != ".." { unlink("\(directory)/\(name)") }
        }
        closedir(stream)
        rmdir(directory)
    }
}

/// A TCP port of 127.0.0.1 that nobody uses now.
func freePort() throws -> UInt16 {
    guard let port = bindableLoopbackPort(0) else {
        throw ProgramFailure(description: "cannot find a free port on 127.0.0.1")
    }
    return port
}

/// `wanted` (0: any) if 127.0.0.1 can be bound to it now, as the port that it is; nil if not.
func bindableLoopbackPort(_ wanted: UInt16) -> UInt16? {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    guard descriptor >= 0 else { return nil }
    defer { close(descriptor) }
    // As a listener does: a port in TIME_WAIT is not taken.
    var yes: Int32 = 1
    setsockopt(descriptor, SOL_SOCKET, SO_REUSEADDR, &yes, socklen_t(MemoryLayout<Int32>.size))
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = wanted.bigEndian
    address.sin_addr.s_addr = UInt32(0x7f00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let isBound = withUnsafeMutablePointer(to: &address) { pointer in
        pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { general in
            bind(descriptor, general, length) == 0 && listen(descriptor, 1) == 0
                && getsockname(descriptor, general, &length) == 0
        }
    }
    return isBound ? UInt16(bigEndian: address.sin_port) : nil
}
