// A secret's value as a rotation handles it: what is known is read, one thing is changed, and every
// other byte stays as it is.
//
//   {"username": "app", "password": "old", "user_arn": "arn:…", "unknown": [1.10]}
//                                   └─┬─┘
//                                   spliced; with no password yet, a member is added at the end
//
// Rejected: decoding and encoding again, which sorts keys, turns 1.10 into 1.1 and loses what a
// decoder does not know.

package import Identity

/// The text or JSON object that is one version of a secret.
package struct SecretDocument: Sendable {
    private let value: Secret
    private let members: JSONObject
    private let passwordKey: String
    /// Of the password in `value`, its quotes included; nil: there is none.
    private let passwordRange: Range<Int>?
    /// Whether it is an object, and not the password alone.
    package let isObject: Bool
    package let userName: String?
    /// nil: there is none yet.
    package let password: Secret?

    /// - Throws: `SecretLogin.Unusable`; nothing of the text is in it.
    package init(
        _ value: Secret, userNameKey: String = "username", passwordKey: String = "password"
    ) throws(SecretLogin.Unusable) {
        self.value = value
        self.passwordKey = passwordKey
        isObject = SecretLogin.isObject(value)
        guard isObject else {
            members = [:]
            passwordRange = nil
            userName = nil
            password =
                value.isBlank
                ? nil
                : try SecretLogin(value, userNameKey: userNameKey, passwordKey: passwordKey)
                    .password
            return
        }
        guard let object = JSONObject(value) else {
            throw SecretLogin.Unusable(
                reason: "wanted a plain text or a JSON object, got a broken one")
        }
        members = object
        let ranges = value.withBytes { bytes in
            MemberScanner(bytes).ranges(ofKey: passwordKey)
        }
        guard ranges.count <= 1 else {
            throw SecretLogin.Unusable(reason: "the key \(passwordKey) is there more than once")
        }
        passwordRange = ranges.first
        let hasPassword: Bool
        switch object[passwordKey] {
        // Whoever makes a secret to be filled by its first rotation writes any of these.
        case nil, .other: hasPassword = false
        case .text(let text): hasPassword = !text.isEmpty
        default: hasPassword = true
        }
        guard hasPassword else {
            password = nil
            switch object[userNameKey] {
            case .text(let name) where !name.isEmpty: userName = name
            default: userName = nil
            }
            return
        }
        let login = try SecretLogin(value, userNameKey: userNameKey, passwordKey: passwordKey)
        userName = login.userName
        password = login.password
    }

    /// The text or number under a key, other than the password's.
    package func text(_ key: String) -> String? {
        guard key != passwordKey else { return nil }
        switch members[key] {
        case .text(let text)? where !text.isEmpty: return text
        case .number(let number)?: return Int(exactly: number).map(String.init)
        default: return nil
        }
    }

    /// The same with another password.
    package func replacingPassword(with new: Secret) -> Secret {
        guard isObject else { return new }
        var text = WipedBuffer(capacity: value.count + new.count + 64)
        value.withBytes { bytes in
            if let passwordRange {
                text.append(UnsafeRawBufferPointer(rebasing: bytes[..<passwordRange.lowerBound]))
                text.appendJSON(new)
                text.append(UnsafeRawBufferPointer(rebasing: bytes[passwordRange.upperBound...]))
                return
            }
            guard let end = bytes.lastIndex(of: UInt8(ascii: "}")) else { return }
            text.append(UnsafeRawBufferPointer(rebasing: bytes[..<end]))
            text.append(members.isEmpty ? "" : ", ")
            text.appendJSON(passwordKey)
            text.append(": ")
            text.appendJSON(new)
            text.append(UnsafeRawBufferPointer(rebasing: bytes[end...]))
        }
        return text.secret()
    }
}

/// Finds members of the outermost object of a text that is known to be JSON; of another text it
/// finds anything or nothing, and reads no byte beyond it.
private struct MemberScanner {
    private let bytes: UnsafeRawBufferPointer
    private var position = 0

    init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
    }

    /// Where the values of a key are.
    func ranges(ofKey key: String) -> [Range<Int>] {
        var scanner = self
        var found: [Range<Int>] = []
        scanner.skip(to: UInt8(ascii: "{"))
        while scanner.skip(to: UInt8(ascii: "\"")) {
            let name = scanner.string()
            guard scanner.skip(to: UInt8(ascii: ":")) else { break }
            scanner.skipBlanks()
            let value = scanner.value()
            if Self.text(UnsafeRawBufferPointer(rebasing: bytes[name])) == key {
                found.append(value)
            }
        }
        return found
    }

    /// A key, which may be written with escapes.
    private static func text(_ quoted: UnsafeRawBufferPointer) -> String? {
        try? decode(String.self, Secret(copying: quoted))
    }

    /// Behind the next of these bytes; false: there is none.
    @discardableResult
    private mutating func skip(to byte: UInt8) -> Bool {
        while position < bytes.count {
            if bytes[position] == byte {
                // A string's quote is part of it.
                if byte != UInt8(ascii: "\"") { position += 1 }
                return true
            }
            position += 1
        }
        return false
    }

    private mutating func skipBlanks() {
        while position < bytes.count, [0x20, 0x09, 0x0a, 0x0d].contains(bytes[position]) {
            position += 1
        }
    }

    /// The string that begins here, with its quotes.
    private mutating func string() -> Range<Int> {
        let start = position
        position += 1
        while position < bytes.count, bytes[position] != UInt8(ascii: "\"") {
            position += bytes[position] == UInt8(ascii: "\\") ? 2 : 1
        }
        position = min(position + 1, bytes.count)
        return start..<position
    }

    /// The value that begins here.
    private mutating func value() -> Range<Int> {
        let start = position
        var depth = 0
        while position < bytes.count {
            switch bytes[position] {
            case UInt8(ascii: "\""):
                _ = string()
                if depth == 0 { return start..<position }
                continue
            case UInt8(ascii: "{"), UInt8(ascii: "["): depth += 1
            case UInt8(ascii: "}"), UInt8(ascii: "]"):
                if depth == 0 { return start..<position }
                depth -= 1
                if depth == 0 {
                    position += 1
                    return start..<position
                }
            case UInt8(ascii: ","), 0x20, 0x09, 0x0a, 0x0d:
                if depth == 0 { return start..<position }
            default: break
            }
            position += 1
        }
        return start..<position
    }
}
