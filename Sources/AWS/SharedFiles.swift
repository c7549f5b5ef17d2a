// The files that AWS's tools share: ~/.aws/config and ~/.aws/credentials.
//
//   [profile app]                    config; the default profile is [default] or [profile default]
//   role_arn = arn:aws:iam::…        a property; names in any case
//   services =
//     secrets_manager =              a property without a value, and below it, indented, its own
//   [sso-session corp]  [services x] sections that profiles refer to
//
//   [app]                            credentials
//
// The rules are those of AWS's SDKs: sections of one name merge and the last value of a property
// wins, [profile default] replaces [default], a property in the credentials file goes over the
// config file's, ` #` and ` ;` begin a comment after a blank, a line that begins with a blank
// continues the value above, and what cannot be understood is skipped, not fatal.
//
// The text is read as bytes, so that secrets in it become Secrets without ever being a String.

package import Identity

/// What both files say.
package struct SharedFiles: Sendable {
    /// One section's properties.
    package struct Section: Sendable {
        /// Names are in lower case.
        package var texts: [String: String] = [:]
        package var secrets: [String: Secret] = [:]
        /// Properties below a property that has no value of its own.
        package var nested: [String: [String: String]] = [:]

        package subscript(name: String) -> String? { texts[name].flatMap { $0.isEmpty ? nil : $0 } }

        fileprivate mutating func merge(_ other: Section) {
            texts.merge(other.texts) { $1 }
            secrets.merge(other.secrets) { $1 }
            nested.merge(other.nested) { $0.merging($1) { $1 } }
        }
    }

    package private(set) var profiles: [String: Section] = [:]
    package private(set) var ssoSessions: [String: Section] = [:]
    package private(set) var services: [String: Section] = [:]

    /// Where they are.
    let configPath: String
    let credentialsPath: String

    /// Properties whose values are never held as text.
    static let secretNames: Set<String> = ["aws_secret_access_key", "aws_session_token"]

    /// Reads both; a file that is not there has no sections.
    init(_ environment: AWSEnvironment) throws(AWSFailure) {
        configPath = environment.expanded(environment["AWS_CONFIG_FILE"] ?? "~/.aws/config")
        credentialsPath = environment.expanded(
            environment["AWS_SHARED_CREDENTIALS_FILE"] ?? "~/.aws/credentials")
        add(config: try contents(of: configPath), credentials: try contents(of: credentialsPath))
    }

    /// For tests.
    package init(config: String, credentials: String) {
        configPath = "config"
        credentialsPath = "credentials"
        add(config: Secret(config.utf8), credentials: Secret(credentials.utf8))
    }

    private mutating func add(config: Secret?, credentials: Secret?) {
        var plainDefault = Section()
        var hasProfileDefault = false
        for (title, section) in Self.sections(config) {
            let words = title.replacing("\t", with: " ").split(separator: " ", maxSplits: 1)
                .map { String($0) }
            let name = words.count == 2 ? words[1].trimmed().unquoted() : ""
            if words == ["default"] { plainDefault.merge(section) }
            guard words.count == 2, Self.isName(name) else { continue }
            switch words[0] {
            case "profile":
                if name == "default" { hasProfileDefault = true }
                profiles[name, default: Section()].merge(section)
            case "sso-session": ssoSessions[name, default: Section()].merge(section)
            case "services": services[name, default: Section()].merge(section)
            default: break
            }
        }
        if !hasProfileDefault, !plainDefault.isEmpty { profiles["default"] = plainDefault }
        for (title, section) in Self.sections(credentials)
        where Self.isName(title) {
            profiles[title, default: Section()].merge(section)
        }
    }

    private static func isName(_ name: String) -> Bool {
        !name.isEmpty && !name.utf8.contains { $0 <= 0x20 || $0 == 0x7f }
    }
}

extension SharedFiles.Section {
    fileprivate var isEmpty: Bool { texts.isEmpty && secrets.isEmpty && nested.isEmpty }
}

extension String {
    fileprivate func unquoted() -> String {
        guard utf8.count >= 2, let first, first == last, first == "\"" || first == "'" else {
            return self
        }
        return String(dropFirst().dropLast())
    }
}

// MARK: - Lines

extension SharedFiles {
    /// The sections in their order, titles as they stand between the brackets.
    package static func sections(_ file: Secret?) -> [(title: String, section: Section)] {
        guard let file else { return [] }
        return file.withBytes { bytes in
            var reader = Reader()
            for line in bytes.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: true)
            {
                reader.take(UnsafeRawBufferPointer(rebasing: line))
            }
            return reader.sections
        }
    }

    private struct Reader {
        var sections: [(title: String, section: Section)] = []
        /// The property that an indented line continues.
        var property: String?

        mutating func take(_ line: UnsafeRawBufferPointer) {
            let content = line.trimmed()
            guard let first = line.first, !content.isEmpty else { return }
            if first == UInt8(ascii: "#") || first == UInt8(ascii: ";") { return }
            if first == 0x20 || first == 0x09 {
                takeContinuation(content)
            } else if first == UInt8(ascii: "[") {
                property = nil
                guard let end = content.firstIndex(of: UInt8(ascii: "]")) else {
                    // What follows belongs to no section that we know.
                    sections.append(("", Section()))
                    return
                }
                let title = UnsafeRawBufferPointer(rebasing: content[1..<end])
                sections.append((title.trimmed().text, Section()))
            } else {
                takeProperty(content)
            }
        }

        private mutating func takeProperty(_ line: UnsafeRawBufferPointer) {
            property = nil
            guard !sections.isEmpty, let (name, value) = line.assignment() else { return }
            property = name
            let last = sections.count - 1
            let plain = value.withoutComment()
            if SharedFiles.secretNames.contains(name) {
                sections[last].section.secrets[name] = Secret(copying: plain)
            } else {
                sections[last].section.texts[name] = plain.text
            }
        }

        private mutating func takeContinuation(_ line: UnsafeRawBufferPointer) {
            guard let property, !sections.isEmpty else { return }
            let last = sections.count - 1
            guard let text = sections[last].section.texts[property] else { return }
            if text.isEmpty {
                guard let (name, value) = line.assignment() else { return }
                sections[last].section.nested[property, default: [:]][name] = value.text
            } else {
                sections[last].section.texts[property] = text + "\n" + line.text
            }
        }
    }
}

extension UnsafeRawBufferPointer {
    fileprivate var text: String { String(decoding: self, as: UTF8.self) }

    fileprivate func trimmed() -> UnsafeRawBufferPointer {
        var rest = self[...]
        while let first = rest.first, first.isBlank { rest = rest.dropFirst() }
        while let last = rest.last, last.isBlank { rest = rest.dropLast() }
        return UnsafeRawBufferPointer(rebasing: rest)
    }

    /// `name = value`, the name in lower case; nil if there is no name or no equals sign.
    fileprivate func assignment() -> (name: String, value: UnsafeRawBufferPointer)? {
        guard let equals = firstIndex(of: UInt8(ascii: "=")) else { return nil }
        let name = UnsafeRawBufferPointer(rebasing: self[..<equals]).trimmed().text.lowercased()
        guard !name.isEmpty else { return nil }
        return (name, UnsafeRawBufferPointer(rebasing: self[(equals + 1)...]).trimmed())
    }

    /// Up to a `#` or `;` behind a blank.
    fileprivate func withoutComment() -> UnsafeRawBufferPointer {
        for index in indices.dropFirst()
        where (self[index] == UInt8(ascii: "#") || self[index] == UInt8(ascii: ";"))
            && self[index - 1].isBlank
        {
            return UnsafeRawBufferPointer(rebasing: self[..<index]).trimmed()
        }
        return self
    }
}

extension UInt8 {
    fileprivate var isBlank: Bool { self == 0x20 || self == 0x09 || self == 0x0d }
}
