// What a client may log in with at the proxy itself, and whether it did.
//
// Nothing of this is ever sent upstream. Passwords are not kept where a hash will do:
//
//     password_sha256   for passwords that a program made, long and random: one hash, microseconds
//     password_scrypt   for passwords that people chose: as much time and memory as the hash says
//     password_file     the password itself, in a file that others read too
//
// How long the answer takes must not tell which names exist. So each attempt does the same work,
// whatever name it gives: all SHA-256 hashes and files of the candidates, and for each cost of
// scrypt as many computations as the name that has most of them.

import COpenSSL
import Glibc

/// A name and the passwords that go with it, each as good as the others.
package struct Login: Sendable, Equatable {
    package var name: String
    /// At least one.
    package var passwords: [StoredPassword]

    package init(name: String, passwords: [StoredPassword]) {
        self.name = name
        self.passwords = passwords
    }
}

/// What is kept of a password.
package enum StoredPassword: Sendable, Equatable {
    /// The SHA-256 of the password, 32 bytes.
    case sha256([UInt8])
    case scrypt(ScryptHash)
    /// A file that holds the password; read at each attempt.
    case file(path: String)

    /// Reads 64 hexadecimal digits, as `sha256sum` prints them and Redis's `ACL SETUSER #…` takes.
    package init?(hexadecimalSHA256 text: String) {
        let digits = Array(text.utf8)
        guard digits.count == 64 else { return nil }
        var bytes: [UInt8] = []
        for index in stride(from: 0, to: 64, by: 2) {
            guard let high = hexadecimalDigit(digits[index]),
                let low = hexadecimalDigit(digits[index + 1])
            else { return nil }
            bytes.append(high << 4 | low)
        }
        self = .sha256(bytes)
    }
}

private func hexadecimalDigit(_ byte: UInt8) -> UInt8? {
    switch byte {
    case 0x30...0x39: byte - 0x30
    case 0x61...0x66: byte - 0x61 + 10
    case 0x41...0x46: byte - 0x41 + 10
    default: nil
    }
}

/// The candidates of one client, and the work that each of its attempts is.
package struct LoginCheck: Sendable {
    private let logins: [Login]
    /// For each cost how many computations the name with most of them needs.
    private let work: [ScryptHash.Cost: Int]

    /// - Parameter logins: in the order of their rules.
    package init(_ logins: [Login]) {
        self.logins = logins
        var work: [ScryptHash.Cost: Int] = [:]
        for name in Set(logins.map(\.name)) {
            for (cost, count) in Self.costs(logins.filter { $0.name == name }) {
                work[cost] = max(work[cost] ?? 0, count)
            }
        }
        self.work = work
    }

    private static func costs(_ logins: [Login]) -> [ScryptHash.Cost: Int] {
        var costs: [ScryptHash.Cost: Int] = [:]
        for case .scrypt(let hash) in logins.flatMap(\.passwords) {
            costs[hash.cost, default: 0] += 1
        }
        return costs
    }

    /// Which of the logins, by position, the first is that has this name and one of whose passwords
    /// this is; nil if there is none. Takes milliseconds to seconds where there is scrypt, and as
    /// long for a name that nobody has; never on a loop's thread.
    ///
    /// - Parameter readFile: the password in a file; nil if there is none, which the caller then
    ///   knows and says.
    package func match(
        name: [UInt8],
        _ secret: Secret,
        readFile: (String) -> Secret?
    ) -> Int? {
        let digest = sha256(of: secret)
        var found: Int?
        var left = work
        for (index, login) in logins.enumerated() {
            let isName = login.name.utf8.elementsEqual(name)
            var isRight = false
            for password in login.passwords {
                switch password {
                case .sha256(let expected):
                    if isEqual(digest, expected) { isRight = true }
                case .file(let path):
                    if let content = readFile(path), isEqual(digest, sha256(of: content)) {
                        isRight = true
                    }
                case .scrypt(let hash):
                    guard isName else { continue }
                    left[hash.cost, default: 0] -= 1
                    if hash.matches(secret) { isRight = true }
                }
            }
            if isName && isRight && found == nil { found = index }
        }
        for (cost, count) in left {
            for _ in 0..<max(0, count) { cost.waste(on: secret) }
        }
        return found
    }
}

/// The SHA-256 of a secret, which is as good as the secret if that is long and random.
package func sha256(of secret: Secret) -> [UInt8] {
    var digest = [UInt8](repeating: 0, count: 32)
    let result = secret.withBytes {
        EVP_Digest($0.baseAddress, $0.count, &digest, nil, EVP_sha256(), nil)
    }
    precondition(result == 1, "OpenSSL has SHA-256")
    return digest
}

/// In time that depends on the lengths alone.
private func isEqual(_ left: [UInt8], _ right: [UInt8]) -> Bool {
    left.count == right.count && CRYPTO_memcmp(left, right, left.count) == 0
}

/// A password that scrypt (RFC 7914) has gone over, in the PHC string format that passlib and others
/// write:
///
///     $scrypt$ln=15,r=8,p=1$<salt>$<hash>        base64 without padding
///
/// ln is the logarithm of N to the base 2; the memory needed is 128 · r · 2^ln bytes.
package struct ScryptHash: Sendable, Equatable {
    /// What one computation takes.
    package struct Cost: Sendable, Hashable {
        /// log2 of N.
        package let logN: Int
        package let r: Int
        package let p: Int

        /// What `hash-password` uses: 32 MiB and about a tenth of a second. More than OWASP's
        /// minimum for p = 1 would allow a guess to be, and little enough for a proxy.
        package static let usual = Cost(logN: 15, r: 8, p: 1)

        /// Memory that one computation may take, in bytes: what a proxy can afford at a client's
        /// word. One is under way at a time.
        package static let memoryLimit = 256 << 20

        /// Refuses what is too little to protect anything, and what is too much to compute.
        package init?(checking logN: Int, r: Int, p: Int) {
            guard (10...24).contains(logN), (1...64).contains(r), (1...16).contains(p),
                (128 * r) << logN <= Self.memoryLimit
            else { return nil }
            self.init(logN: logN, r: r, p: p)
        }

        private init(logN: Int, r: Int, p: Int) {
            self.logN = logN
            self.r = r
            self.p = p
        }

        /// nil: there is not enough memory.
        func hash(_ secret: Secret, salt: [UInt8], count: Int) -> [UInt8]? {
            var result = [UInt8](repeating: 0, count: count)
            // OpenSSL refuses what would need more: N, p and r blocks of 128 · r bytes (RFC 7914).
            let limit = UInt64(128 * r) * (UInt64(1) << UInt64(logN) + UInt64(p) + 2) + 4096
            let isDone = secret.withBytes { bytes in
                EVP_PBE_scrypt(
                    bytes.baseAddress?.assumingMemoryBound(to: CChar.self), bytes.count, salt,
                    salt.count, UInt64(1) << UInt64(logN), UInt64(r), UInt64(p), limit, &result,
                    count)
            }
            return isDone == 1 ? result : nil
        }

        /// One computation for nothing.
        func waste(on secret: Secret) {
            _ = hash(secret, salt: [UInt8](repeating: 0, count: 16), count: 32)
        }
    }

    package let cost: Cost
    private let salt: [UInt8]
    private let hash: [UInt8]

    /// Why a text is no such hash.
    package enum Mistake: Error, Equatable {
        case notTheFormat
        case costOutOfRange
    }

    package init(_ text: String) throws(Mistake) {
        let parts = text.split(separator: "$", omittingEmptySubsequences: false)
        guard parts.count == 5, parts[0].isEmpty, parts[1] == "scrypt" else {
            throw .notTheFormat
        }
        let parameters = parts[2].split(separator: ",", omittingEmptySubsequences: false)
        guard parameters.count == 3,
            let logN = Self.number(parameters[0], "ln="),
            let r = Self.number(parameters[1], "r="),
            let p = Self.number(parameters[2], "p="),
            let salt = bytes(base64: parts[3]), (8...64).contains(salt.count),
            let hash = bytes(base64: parts[4]), (16...64).contains(hash.count)
        else { throw .notTheFormat }
        guard let cost = Cost(checking: logN, r: r, p: p) else { throw .costOutOfRange }
        self.cost = cost
        self.salt = salt
        self.hash = hash
    }

    /// Goes over a new password with a new random salt.
    ///
    /// - Returns: nil when there is not enough memory for it.
    package init?(of secret: Secret, cost: Cost = .usual) {
        var generator = SystemRandomNumberGenerator()
        let salt = (0..<16).map { _ in UInt8.random(in: .min ... .max, using: &generator) }
        guard let hash = cost.hash(secret, salt: salt, count: 32) else { return nil }
        self.cost = cost
        self.salt = salt
        self.hash = hash
    }

    private static func number(_ text: Substring, _ name: String) -> Int? {
        let digits = text.dropFirst(name.utf8.count)
        guard text.hasPrefix(name), (1...3).contains(digits.utf8.count),
            digits.utf8.allSatisfy({ (0x30...0x39).contains($0) })
        else { return nil }
        return Int(digits)
    }

    func matches(_ secret: Secret) -> Bool {
        guard let computed = cost.hash(secret, salt: salt, count: hash.count) else { return false }
        return isEqual(computed, hash)
    }

    /// The text that reads back as this.
    package var text: String {
        "$scrypt$ln=\(cost.logN),r=\(cost.r),p=\(cost.p)$\(base64(salt))$\(base64(hash))"
    }
}

extension ScryptHash: CustomStringConvertible {
    /// Without the hash, which can be guessed against.
    package var description: String { "<scrypt hash>" }
}

private let base64Digits = Array(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".utf8)

private func base64(_ bytes: [UInt8]) -> String {
    var digits: [UInt8] = []
    var bits: UInt32 = 0
    var count = 0
    for byte in bytes {
        bits = bits << 8 | UInt32(byte)
        count += 8
        while count >= 6 {
            count -= 6
            digits.append(base64Digits[Int(bits >> UInt32(count) & 63)])
        }
    }
    if count > 0 { digits.append(base64Digits[Int(bits << UInt32(6 - count) & 63)]) }
    return String(decoding: digits, as: UTF8.self)
}

/// nil: not base64 without padding, or bits are set that belong to no byte.
private func bytes(base64 text: Substring) -> [UInt8]? {
    guard text.utf8.count <= 128 else { return nil }
    var bytes: [UInt8] = []
    var bits: UInt32 = 0
    var count = 0
    for digit in text.utf8 {
        guard let value = base64Digits.firstIndex(of: digit) else { return nil }
        bits = bits << 6 | UInt32(value)
        count += 6
        if count >= 8 {
            count -= 8
            bytes.append(UInt8(truncatingIfNeeded: bits >> UInt32(count)))
            bits &= (1 << UInt32(count)) - 1
        }
    }
    return count < 6 && bits == 0 ? bytes : nil
}
