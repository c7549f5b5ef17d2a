// The settings in use, key by key, as the configuration would say them: for operators who ask a running
// proxy. There are no secrets among settings, only where they are; hashes of logins are left out.

import Identity

/// One key and what it is.
package struct SettingInUse: Sendable, Equatable {
    /// Where it stands, such as `upstreams.cache.tls.ca_file`.
    package let key: String
    package let value: String
    /// As it would be written; nil if there is none.
    package let defaultText: String?
}

extension Settings {
    /// Every key that has a value, by default or not, in the order of the documentation.
    package var inUse: [SettingInUse] {
        var rows = Self.rows(self, "") + Self.rows(log, "log.") + Self.rows(admin, "admin.")
        for upstream in upstreams {
            let path = "upstreams.\(upstream.name)."
            rows += Self.rows(upstream, path)
            switch upstream.tls {
            case .off: rows.append(SettingInUse(key: path + "tls", value: "off", defaultText: "on"))
            case .on(let tls): rows += Self.rows(tls, path + "tls.")
            }
        }
        for user in users {
            let path = "users.\(user.name)."
            rows.append(
                SettingInUse(
                    key: path + "upstream", value: upstreams[user.upstream].name, defaultText: nil))
            rows += Self.rows(user, path)
            rows.append(
                SettingInUse(
                    key: path + "credentials", value: "\(user.credentials)", defaultText: nil))
        }
        for (index, listener) in listeners.enumerated() {
            let path = "listeners[\(index)]."
            rows += Self.rows(listener, path)
            for (place, rule) in listener.identities.enumerated() {
                rows.append(
                    SettingInUse(
                        key: path + "identities[\(place)]",
                        value: "\(rule.principal) is \(users[rule.user.rawValue].name)",
                        defaultText: nil))
            }
        }
        return rows
    }

    private static func rows<Root: Section>(_ root: Root, _ path: String) -> [SettingInUse] {
        Root.settings.compactMap { setting in
            guard !setting.isSensitive, let value = setting.text?(root) else { return nil }
            return SettingInUse(
                key: path + setting.name, value: value, defaultText: setting.defaultText)
        }
    }
}
