// From what the operator wrote to `Settings`, or to everything that is wrong with it.
//
//   file ──► nodes ─┐
//                   ├──► environment over it ──► flags over that ──► SettingsReader ──► Settings
//   quick start ────┘
//
// Flags that stand in for a file become the nodes that the file would have become: one reader, one
// set of rules, one wording.

import Glibc

/// Settings that can be used, and what is dubious about them.
package struct LoadedSettings: Sendable {
    package let settings: Settings
    package let warnings: [Diagnostic]
}

/// A value that goes over the file's.
package struct SettingOverride: Sendable {
    /// The keys from the top, such as `["log", "level"]`.
    let path: [String]
    let value: Node

    private init(path: [String], value: Node) {
        self.path = path
        self.value = value
    }

    /// A setting that may be overridden: its path, flag and variable, and its sentence for help.
    package struct Key: Sendable {
        package let path: [String]
        package let sentence: String
        package let defaultText: String?

        /// Such as `log-level`, without dashes in front.
        package var flag: String {
            path.joined(separator: "-").replacing("_", with: "-")
        }

        /// Such as `REDIS_AUTH_PROXY_LOG_LEVEL`.
        package var variable: String {
            "REDIS_AUTH_PROXY_" + path.joined(separator: "_").uppercased()
        }
    }

    /// Everything that may be overridden, in the order of the table.
    package static let keys: [Key] =
        Settings.settings.filter(\.isOverridable).map {
            Key(path: [$0.name], sentence: $0.sentence, defaultText: $0.defaultText)
        }
        + LogSettings.settings.filter(\.isOverridable).map {
            Key(path: ["log", $0.name], sentence: $0.sentence, defaultText: $0.defaultText)
        }

    /// What the environment says; a variable that is empty says nothing.
    package static func environment(
        _ value: (_ variable: String) -> String?
    ) -> [SettingOverride] {
        keys.compactMap { key in
            guard let text = value(key.variable), !text.isEmpty else { return nil }
            return SettingOverride(
                path: key.path, value: .text(text, at: .environment(key.variable)))
        }
    }

    /// What flags say; `value` gives the text of a flag, named without dashes, or nil.
    package static func flags(_ value: (_ flag: String) -> String?) -> [SettingOverride] {
        keys.compactMap { key in
            value(key.flag).map {
                SettingOverride(path: key.path, value: .text($0, at: .flag("--\(key.flag)")))
            }
        }
    }
}

extension Settings {
    /// Reads a configuration file.
    ///
    /// - Parameters:
    ///   - path: as given; it stands in every message.
    ///   - environment: what goes over the file.
    ///   - flags: what goes over both.
    ///   - checksFiles: warns about files that cannot be read and variables that are not set.
    ///   - accounts: where names of users and groups are looked up; blocks for as long as that does.
    package static func load(
        file path: String, environment: [SettingOverride] = [], flags: [SettingOverride] = [],
        checksFiles: Bool = false, accounts: Accounts = .system
    ) throws(InvalidConfiguration) -> LoadedSettings {
        let text: [UInt8]
        do throws(Unwanted) {
            text = try contents(of: path, limit: YAMLReader.sizeLimit)
        } catch {
            let message = "cannot be read: \(error.advice ?? "unknown error")"
            throw InvalidConfiguration(
                diagnostics: [Diagnostic(.error, at: .wholeFile(path), message)])
        }
        return try load(
            yaml: text, named: path, environment: environment, flags: flags,
            checksFiles: checksFiles, accounts: accounts)
    }

    /// Reads a configuration from memory; `name` stands in every message.
    package static func load(
        yaml text: [UInt8], named name: String, environment: [SettingOverride] = [],
        flags: [SettingOverride] = [], checksFiles: Bool = false, accounts: Accounts = .system
    ) throws(InvalidConfiguration) -> LoadedSettings {
        let (root, diagnostics) = YAMLReader.read(text, named: name)
        guard let root else { throw InvalidConfiguration(diagnostics: diagnostics.inOrder()) }
        return try load(
            root, diagnostics, overrides: environment + flags, checksFiles: checksFiles,
            accounts: accounts)
    }

    /// Builds the configuration that flags alone describe.
    package static func load(
        quickStart: QuickStart, environment: [SettingOverride] = [],
        flags: [SettingOverride] = [], checksFiles: Bool = false, accounts: Accounts = .system
    ) throws(InvalidConfiguration) -> LoadedSettings {
        let (root, diagnostics) = quickStart.node()
        guard let root else { throw InvalidConfiguration(diagnostics: diagnostics) }
        return try load(
            root, diagnostics, overrides: environment + flags, checksFiles: checksFiles,
            accounts: accounts)
    }

    private static func load(
        _ root: Node, _ found: [Diagnostic], overrides: [SettingOverride], checksFiles: Bool,
        accounts: Accounts
    ) throws(InvalidConfiguration) -> LoadedSettings {
        var root = root
        for override in overrides { root.set(override.path[...], to: override.value) }
        var reader = SettingsReader(checksFiles: checksFiles, accounts: accounts)
        reader.read(root)
        let diagnostics = (found + reader.diagnostics).inOrder()
        guard !diagnostics.contains(where: { $0.severity == .error }) else {
            throw InvalidConfiguration(diagnostics: diagnostics)
        }
        return LoadedSettings(settings: reader.settings, warnings: diagnostics)
    }
}

/// The bytes of a file, or one byte more than `limit` of them.
private func contents(of path: String, limit: Int) throws(Unwanted) -> [UInt8] {
    let descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY)
    guard descriptor >= 0 else { throw Unwanted(advice: String(cString: strerror(errno))) }
    defer { close(descriptor) }
    var bytes: [UInt8] = []
    var chunk = [UInt8](repeating: 0, count: 65_536)
    while bytes.count <= limit {
        let got = read(descriptor, &chunk, chunk.count)
        if got == -1, errno == EINTR { continue }
        guard got >= 0 else { throw Unwanted(advice: String(cString: strerror(errno))) }
        if got == 0 { break }
        bytes += chunk[..<got]
    }
    return bytes
}
