// A generated password, and the form in which a Redis server keeps it.
//
// What it guards is a throwaway server on loopback; it is treated as a real one all the same: 256
// random bits, never an argument, never printed, and the server is told only its hash.

import COpenSSL
import Glibc

/// 32 random bytes in hexadecimal.
struct DemoPassword {
    private let text: [UInt8]

    /// A new one from the kernel's generator.
    init() {
        var generator = SystemRandomNumberGenerator()  // getrandom(2) on Linux
        text = (0..<4).flatMap { _ in
            let word = String(generator.next(), radix: 16)
            return Array(String(repeating: "0", count: 16 - word.utf8.count).utf8) + word.utf8
        }
    }

    /// The SHA-256 in hexadecimal, which ACL rules take after `#` (add) and `!` (remove).
    var hash: String {
        var digest = [UInt8](repeating: 0, count: Int(EVP_MAX_MD_SIZE))
        var count: UInt32 = 0
        let isDone = EVP_Digest(text, text.count, &digest, &count, EVP_sha256(), nil)
        precondition(isDone == 1, "SHA-256 failed")
        return digest[..<Int(count)].map { byte in
            let digits = String(byte, radix: 16)
            return digits.utf8.count == 1 ? "0" + digits : digits
        }.joined()
    }

    /// For a child's environment.
    var forEnvironment: String { String(decoding: text, as: UTF8.self) }

    /// Puts it in a file in one step: whoever reads sees the old content or the new one.
    func write(to path: String) throws {
        let draft = path + ".new"
        let descriptor = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0o600)
        guard descriptor >= 0 else { throw Self.failure("cannot create \(draft)") }
        let written = text.withUnsafeBytes { Glibc.write(descriptor, $0.baseAddress, $0.count) }
        close(descriptor)
        guard written == text.count else { throw Self.failure("cannot write \(draft)") }
        guard rename(draft, path) == 0 else { throw Self.failure("cannot rename \(draft)") }
    }

    private static func failure(_ what: String) -> ProgramFailure {
        ProgramFailure(description: "\(what): \(String(cString: strerror(errno)))")
    }
}
