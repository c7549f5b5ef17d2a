// Which passwords a service takes, and a new one that it does.
//
// AWS's own rotation function draws from an alphabet that has a comma, which ElastiCache refuses, and
// stores what it drew before it asks: one password of 20 characters in five cannot be set. Here a
// password is checked before it is stored, whoever made it.

import Glibc
package import Identity

/// What a service takes for a password.
package struct PasswordRules: Sendable, Equatable {
    package let lengths: ClosedRange<Int>
    /// Printable characters that are refused besides.
    package let refused: Set<UInt8>

    /// ElastiCache and MemoryDB. Source: Amazon ElastiCache User Guide, "Authenticating users with
    /// RBAC": 16 to 128 printable characters, none of `, " / @`; and no blank here.
    package static let aws = PasswordRules(lengths: 16...128, refused: Set(",\"/@".utf8))

    /// A server of one's own: what a password file, a URL and an ACL file hold without a doubt. It
    /// has hashes of passwords, so that length costs nothing.
    package static let server = PasswordRules(lengths: 1...512, refused: [])

    /// What is wrong with a password, in words that do not repeat it; nil: nothing.
    package func problem(with password: Secret) -> String? {
        guard lengths.contains(password.count) else {
            return "wanted \(lengths.lowerBound) to \(lengths.upperBound) characters, got"
                + " \(password.count)"
        }
        return password.withBytes { bytes in
            if bytes.contains(where: { $0 <= 0x20 || $0 >= 0x7f }) {
                return "wanted printable ASCII without blanks, got something else in it"
            }
            if bytes.contains(where: { refused.contains($0) }) {
                let list = String(decoding: refused.sorted(), as: UTF8.self)
                return
                    "wanted none of \(list.map(String.init).joined(separator: " ")) in it, got one"
            }
            return nil
        }
    }
}

/// How new passwords are made.
package struct PasswordRecipe: Sendable, Equatable {
    /// Letters, digits and what needs no quoting in URLs, shells, JSON and YAML (RFC 3986, section
    /// 2.3): 66 characters, so that 32 of them are 193 bits.
    static let alphabet = Array(
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~".utf8)
    /// Fewer bits can be guessed from the hashes that an ACL file has.
    static let leastBits = 80.0

    private let length: Int
    private let characters: [UInt8]

    /// 32 of all characters.
    package init() {
        length = 32
        characters = Self.alphabet
    }

    /// Throws `unusable` if no good password can be made so.
    package init(length: Int = 32, excluding: String) throws(RotationFailure) {
        let excluded = Set(excluding.utf8)
        characters = Self.alphabet.filter { !excluded.contains($0) }
        self.length = length
        guard PasswordRules.aws.lengths.contains(length) else {
            throw RotationFailure(
                .unusable,
                "password length: wanted \(PasswordRules.aws.lengths.lowerBound) to"
                    + " \(PasswordRules.aws.lengths.upperBound), got \(length)")
        }
        guard Double(length) * log2(Double(characters.count)) >= Self.leastBits else {
            throw RotationFailure(
                .unusable,
                "excluded characters: \(characters.count) kinds are left, which are too few for a"
                    + " password of \(length)",
                advice: "exclude fewer, or make passwords longer")
        }
    }

    /// Draws one. The system's generator is getrandom(2); what is drawn is wiped but for the result.
    package func make() -> Secret {
        var generator = SystemRandomNumberGenerator()
        return withUnsafeTemporaryAllocation(byteCount: length, alignment: 1) { bytes in
            for index in bytes.indices {
                // Unbiased: randomElement rejects what does not divide evenly.
                bytes[index] = characters.randomElement(using: &generator) ?? 0x78
            }
            defer { if let base = bytes.baseAddress { explicit_bzero(base, bytes.count) } }
            return Secret(copying: UnsafeRawBufferPointer(bytes))
        }
    }
}
