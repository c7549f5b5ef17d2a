import ArgumentParser
import Glibc
import Identity

/// `hash-password`: what a rule's login needs to know of a password, and no more.
struct HashPasswordCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "hash-password",
        abstract: "Print the hash of a password for a rule's login.",
        discussion: """
            Reads one password, a line, from standard input (from a terminal without showing it) \
            and prints what the configuration wants to know of it.

            Without a flag: scrypt, for passwords that people chose, to be put in quotes behind \
            password_scrypt. With --sha256: for passwords that a program made, behind \
            password_sha256. A hash that is fast to compute is fast to guess against, so that \
            wants 32 random characters or more.

            EXAMPLES
              redis-auth-proxy hash-password
              openssl rand -hex 32 | tee /run/secrets/legacy | redis-auth-proxy hash-password --sha256
            """)

    /// Longer passwords do not fit into a client's AUTH before login.
    private static let limit = 16_384

    @Flag(help: "SHA-256, for passwords that a program made.")
    var sha256 = false

    func run() throws {
        let password: Secret
        do throws(Unreadable) {
            password = try read()
        } catch {
            complain("wanted a password on standard input, got \(error.what)")
            throw Exit.usage.code
        }
        if sha256 {
            let digits = Identity.sha256(of: password).map { byte in
                let text = String(byte, radix: 16)
                return byte < 16 ? "0" + text : text
            }
            say(digits.joined())
            return
        }
        guard let hash = ScryptHash(of: password) else {
            complain("not enough memory to compute the hash: it takes 32 MiB")
            throw Exit.system.code
        }
        say(hash.text)
    }

    private struct Unreadable: Error {
        let what: String
    }

    /// The first line, without its end.
    private func read() throws(Unreadable) -> Secret {
        let isTerminal = isatty(STDIN_FILENO) == 1
        var before = termios()
        if isTerminal {
            _ = prompt("Password: ")
            tcgetattr(STDIN_FILENO, &before)
            var silent = before
            silent.c_lflag &= ~tcflag_t(ECHO)
            tcsetattr(STDIN_FILENO, TCSAFLUSH, &silent)
        }
        defer {
            if isTerminal {
                tcsetattr(STDIN_FILENO, TCSAFLUSH, &before)
                complain("")
            }
        }
        let buffer = UnsafeMutableRawPointer.allocate(byteCount: Self.limit + 2, alignment: 1)
        var count = 0
        defer {
            explicit_bzero(buffer, count)
            buffer.deallocate()
        }
        while count < Self.limit + 2 {
            let got = Glibc.read(STDIN_FILENO, buffer + count, Self.limit + 2 - count)
            if got == -1, errno == EINTR { continue }
            guard got >= 0 else { throw Unreadable(what: String(cString: strerror(errno))) }
            if got == 0 { break }
            count += got
            if memchr(buffer, 0x0a, count) != nil { break }
        }
        var line = UnsafeRawBufferPointer(start: buffer, count: count)[...]
        if let end = line.firstIndex(of: 0x0a) {
            guard end == line.endIndex - 1 else {
                throw Unreadable(what: "more than one line: give one password, and nothing else")
            }
            line = line[..<end]
        }
        if line.last == 0x0d { line.removeLast() }
        guard !line.isEmpty else { throw Unreadable(what: "an empty line") }
        guard line.count <= Self.limit else {
            throw Unreadable(what: "more than \(Self.limit) bytes")
        }
        guard !line.contains(0) else { throw Unreadable(what: "a NUL in it") }
        return Secret(copying: UnsafeRawBufferPointer(rebasing: line))
    }

    private func prompt(_ text: String) -> Int {
        text.withCString { Glibc.write(STDERR_FILENO, $0, strlen($0)) }
    }
}
