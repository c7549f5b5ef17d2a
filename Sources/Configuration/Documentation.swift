// The table of settings as people read it: in `check --help`, and in the manual.

import Identity

/// One documented key.
package struct DocumentedSetting: Sendable, Equatable {
    /// Where it stands, such as `upstreams.NAME.tls.ca_file` or `listeners[].mode`.
    package let key: String
    package let name: String
    package let wanted: String
    /// As it would be written; nil if there is none.
    package let defaultText: String?
    package let isRequired: Bool
    /// Its flag and variable, if it may be overridden.
    package let overrides: [String]
    package let sentence: String
}

extension Settings {
    /// Every key that a configuration may contain.
    package static var documentation: [DocumentedSetting] {
        rows(Settings.self, "") + rows(LogSettings.self, "log.")
            + rows(UpstreamSettings.self, "upstreams.NAME.")
            + rows(UpstreamTLSSettings.self, "upstreams.NAME.tls.")
            + rows(UserSettings.self, "users.NAME.")
            + rows(CredentialSettings.self, "users.NAME.credentials.")
            + rows(IAMSource.self, "users.NAME.credentials.iam.")
            + rows(SecretsManagerSource.self, "users.NAME.credentials.secrets_manager.")
            + rows(ListenerSettings.self, "listeners[].")
            + rows(IdentitySettings.self, "listeners[].identities[].")
            + rows(LoginSettings.self, "listeners[].identities[].login.")
            + rows(AdminSettings.self, "admin.")
    }

    /// A table in Markdown.
    package static var documentationTable: String {
        var lines = ["| key | what | default | meaning |", "|---|---|---|---|"]
        for row in documentation {
            let fallback = row.isRequired ? "required" : row.defaultText.map { "`\($0)`" } ?? ""
            let overrides =
                row.overrides.isEmpty
                ? "" : " Also " + row.overrides.map { "`\($0)`" }.joined(separator: ", ") + "."
            lines.append(
                "| `\(row.key)` | \(row.wanted) | \(fallback) | \(row.sentence)\(overrides) |")
        }
        return lines.joined(separator: "\n") + "\n"
    }

    /// A list for a terminal.
    package static var documentationText: String {
        documentation.map { row in
            let fallback = row.isRequired ? "required" : row.defaultText.map { "default \($0)" }
            let facts = [row.wanted, fallback].compactMap(\.self).joined(separator: "; ")
            return "\(row.key)\n    \(facts)\n    \(row.sentence)"
        }.joined(separator: "\n")
    }

    /// Where a key would be at home that was found elsewhere.
    static func home(ofKey name: String) -> String? {
        guard let row = documentation.first(where: { $0.name == name }) else { return nil }
        let path = row.key.dropLast(name.count + 1)
        return path.isEmpty ? "the top level" : String(path)
    }

    private static func rows<Root: Section>(
        _ section: Root.Type, _ path: String
    ) -> [DocumentedSetting] {
        Root.settings.map { setting in
            let key = SettingOverride.keys.first {
                $0.path == (path + setting.name).split(separator: ".").map(String.init)
            }
            return DocumentedSetting(
                key: path + setting.name, name: setting.name, wanted: setting.wanted,
                defaultText: setting.defaultText, isRequired: setting.isRequired,
                overrides: key.map { ["--\($0.flag)", $0.variable] } ?? [],
                sentence: setting.sentence)
        }
    }
}
