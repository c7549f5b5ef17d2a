// Nodes to settings: every problem is noted with its place, and reading goes on.
//
// A problem in one place must not cause others: a user whose credentials are wrong still counts as
// a user that listeners may name. What comes out is used only if no error was noted.

import Glibc
import Identity

/// Reads one tree into `Settings`.
struct SettingsReader {
    private(set) var diagnostics: [Diagnostic] = []
    private(set) var settings = Settings()
    /// Whether to look if the files that are named can be read, and variables are set.
    private let checksFiles: Bool
    let accounts: Accounts
    private(set) var indexOfUser: [String: UserIndex] = [:]
    private var indexOfUpstream: [String: Int] = [:]

    init(checksFiles: Bool, accounts: Accounts) {
        self.checksFiles = checksFiles
        self.accounts = accounts
    }

    mutating func read(_ root: Node) {
        // A copy, because a section is written while problems are noted beside it.
        var general = Settings()
        let parts = section(root, "the configuration", into: &general)
        if let log = parts["log"] { section(log, "log", into: &general.log) }
        if let admin = parts["admin"] { readAdmin(admin, into: &general.admin) }
        settings = general
        if let upstreams = parts["upstreams"] { readUpstreams(upstreams) }
        if let users = parts["users"] { readUsers(users) }
        if let listeners = parts["listeners"] { readListeners(listeners) }
        if let path = settings.handoverSocket,
            settings.listeners.contains(where: { $0.address == .unix(path: path) })
        {
            error(
                root.position(ofKey: "handover_socket"),
                "handover_socket: wanted a path of its own, got \(quoted(path)), which is a"
                    + " listener's: change one of them")
        }
        warnAboutUnused(parts)
    }

    private mutating func readAdmin(_ node: Node, into admin: inout AdminSettings) {
        section(node, "admin", into: &admin)
        guard let address = admin.address, !address.isLocal else { return }
        warning(
            node.position(ofKey: "address"),
            "admin.address: \(address) can be reached from other machines, where everybody sees who is"
                + " connected and in what state the proxy is: listen on 127.0.0.1, [::1] or a Unix"
                + " socket unless something else protects it")
    }

    mutating func error(_ position: Position, _ message: String) {
        diagnostics.append(Diagnostic(.error, at: position, message))
    }

    mutating func warning(_ position: Position, _ message: String) {
        diagnostics.append(Diagnostic(.warning, at: position, message))
    }
}

// MARK: - Any section

extension SettingsReader {
    /// Reads the texts of a section into `root` and returns its structures by name.
    @discardableResult
    mutating func section<Root: Section>(
        _ node: Node, _ what: String, into root: inout Root
    ) -> [String: Node] {
        let table = Root.settings
        // A section whose keys are all commented out.
        if node.kind == "nothing", !table.contains(where: \.isRequired) { return [:] }
        guard case .mapping(let entries) = node.content else {
            let names = table.map(\.name).joined(separator: ", ")
            error(
                node.position, "\(what): wanted a mapping, got \(node.kind): its keys are \(names)")
            return [:]
        }
        var parts: [String: Node] = [:]
        for entry in entries {
            guard let setting = table.first(where: { $0.name == entry.key }) else {
                reportUnknown(entry, in: what, known: table.map(\.name))
                continue
            }
            guard let assign = setting.assign else {
                parts[entry.key] = entry.value
                continue
            }
            guard case .scalar(let word, let isPlain) = entry.value.content else {
                error(
                    entry.value.position,
                    "\(entry.key): wanted \(setting.wanted), got \(entry.value.kind)")
                continue
            }
            guard !(isPlain && entry.value.kind == "nothing") else {
                error(
                    entry.value.position,
                    "\(entry.key): wanted \(setting.wanted), got nothing"
                        + remedy(setting))
                continue
            }
            do throws(Unwanted) {
                try assign(word, &root)
            } catch {
                // A value with an @ may be a URL with a password in it, whatever the setting.
                let got =
                    setting.isSensitive || word.contains("@")
                    ? "something else (not shown, it may be a secret)" : quoted(word)
                let advice = error.advice.map { ": \($0)" } ?? remedy(setting)
                self.error(
                    entry.value.position,
                    "\(entry.key): wanted \(setting.wanted), got \(got)\(advice)")
            }
        }
        for setting in table where setting.isRequired && !entries.contains(key: setting.name) {
            error(
                node.position,
                "\(what): wanted the key \(setting.name) (\(setting.wanted)), got none: add it")
        }
        return parts
    }

    private func remedy(_ setting: Setting<some Section>) -> String {
        setting.defaultText.map { ": correct it, or leave it out for the default, \($0)" } ?? ""
    }

    private mutating func reportUnknown(_ entry: Node.Entry, in what: String, known: [String]) {
        var message = "\(what): wanted a known key, got \(quoted(entry.key))"
        if let near = suggestion(for: entry.key, among: known) {
            message += ": did you mean \(near)?"
        } else if let home = Settings.home(ofKey: entry.key) {
            message += ": it belongs under \(home)"
        } else {
            message += ": the keys here are \(known.joined(separator: ", "))"
        }
        error(entry.keyPosition, message)
    }

    /// The entries of a mapping from names of the operator's choice. Nothing for anything else,
    /// which is reported.
    private mutating func named(_ node: Node, _ what: String) -> [Node.Entry] {
        guard case .mapping(let entries) = node.content, !entries.isEmpty else {
            let got = if case .mapping = node.content { "an empty one" } else { node.kind }
            error(node.position, "\(what): wanted a mapping with at least one name, got \(got)")
            return []
        }
        return entries.filter { entry in
            let isName =
                !entry.key.isEmpty && entry.key.utf8.count <= 255
                && !entry.key.utf8.contains { $0 <= 0x20 || $0 == 0x7f }
            if !isName {
                error(
                    entry.keyPosition,
                    "\(what): wanted a name of 1 to 255 bytes without spaces or control"
                        + " characters, got \(quoted(entry.key))")
            }
            return isName
        }
    }

    /// The text of a reference; nil for anything else, which is reported.
    mutating func name(_ node: Node, _ what: String) -> String? {
        guard case .scalar(let word, _) = node.content, node.kind == "a text" else {
            error(node.position, "\(what): wanted a name, got \(node.kind)")
            return nil
        }
        return word
    }

    mutating func reportMissing(
        _ kind: String, _ name: String, at position: Position, among known: [String]
    ) {
        let near = suggestion(for: name, among: known).map { ": did you mean \($0)?" }
        let all = known.isEmpty ? "" : ": the names are \(known.sorted().joined(separator: ", "))"
        error(
            position,
            "wanted \(kind) that exists, got \(quoted(name))\(near ?? all)")
    }
}

extension [Node.Entry] {
    fileprivate func contains(key: String) -> Bool { contains { $0.key == key } }
}

// MARK: - Upstreams

extension SettingsReader {
    private mutating func readUpstreams(_ node: Node) {
        for entry in named(node, "upstreams") {
            var upstream = UpstreamSettings()
            upstream.name = entry.key
            let parts = section(entry.value, "upstream \(entry.key)", into: &upstream)
            if let tls = parts["tls"] { upstream.tls = readTLS(tls) }
            if upstream.reconnectMax < upstream.reconnectMin {
                error(
                    entry.keyPosition,
                    "upstream \(entry.key): wanted reconnect_max of at least reconnect_min"
                        + " (\(upstream.reconnectMin.settingText)), got"
                        + " \(upstream.reconnectMax.settingText): raise it")
            }
            if case .off = upstream.tls, let tls = parts["tls"] {
                warning(
                    tls.position,
                    "upstream \(entry.key) is reached without TLS: passwords and data can be read"
                        + " on the way; leave tls out if the server can do it")
            }
            indexOfUpstream[entry.key] = settings.upstreams.count
            settings.upstreams.append(upstream)
        }
    }

    private mutating func readTLS(_ node: Node) -> UpstreamTLS {
        if case .scalar(let word, _) = node.content, node.kind != "nothing" {
            switch word {
            case "off": return .off
            case "on": return .on(UpstreamTLSSettings())
            default:
                error(
                    node.position,
                    "tls: wanted off, on, or a mapping with ca_file and so on, got \(quoted(word))")
                return .on(UpstreamTLSSettings())
            }
        }
        var tls = UpstreamTLSSettings()
        section(node, "tls", into: &tls)
        if (tls.certificateFile == nil) != (tls.keyFile == nil) {
            error(
                node.position,
                "tls: wanted certificate_file and key_file together, got one of them: add the other"
            )
        }
        for (key, path) in [
            ("ca_file", tls.caFile), ("certificate_file", tls.certificateFile),
            ("key_file", tls.keyFile),
        ] {
            warnIfUnreadable(path, key, in: node)
        }
        return .on(tls)
    }

    private mutating func warnIfUnreadable(_ path: String?, _ key: String, in node: Node) {
        if let path { warnIfUnreadable(path, key, at: node.position(ofKey: key)) }
    }

    mutating func warnIfUnreadable(_ path: String, _ key: String, at position: Position) {
        guard checksFiles, access(path, R_OK) != 0 else { return }
        warning(
            position,
            "\(key): \(quoted(path)) cannot be read now:"
                + " \(String(cString: strerror(errno)))")
    }
}

extension Node {
    /// Where a key's value stands; the mapping's own place if it has no such key.
    func position(ofKey key: String) -> Position {
        guard case .mapping(let entries) = content else { return position }
        return entries.first { $0.key == key }?.value.position ?? position
    }
}

// MARK: - Users

extension SettingsReader {
    private mutating func readUsers(_ node: Node) {
        // Sorted, so that a UserIndex does not depend on the order in which they were written.
        for entry in named(node, "users").sorted(by: { $0.key < $1.key }) {
            var user = UserSettings()
            user.name = entry.key
            user.userName = entry.key
            let parts = section(entry.value, "user \(entry.key)", into: &user)
            if let reference = parts["upstream"], let name = name(reference, "upstream") {
                if let index = indexOfUpstream[name] {
                    user.upstream = index
                } else {
                    reportMissing(
                        "an upstream", name, at: reference.position,
                        among: Array(indexOfUpstream.keys))
                }
            }
            if let credentials = parts["credentials"] {
                readCredentials(credentials, of: entry.key, into: &user)
            }
            if let text = parts["access_string"] { readAccessString(text, into: &user) }
            indexOfUser[entry.key] = UserIndex(settings.users.count)
            settings.users.append(user)
        }
    }

    private mutating func readAccessString(_ node: Node, into user: inout UserSettings) {
        guard case .scalar(let text, _) = node.content, node.kind == "a text" else {
            diagnostics.append(
                Diagnostic(
                    .error, at: node.position,
                    "access_string: wanted one text with the rules of an ACL user, got"
                        + " \(node.kind): write it in quotes, such as \"on ~app:* -@all +@read\"",
                    accessStringOf: user.name))
            return
        }
        let access = AccessString(text)
        user.accessString = access
        // A user whose upstream is wrong has that of index 0, if there is one.
        let isAWS =
            settings.upstreams.indices.contains(user.upstream)
            && isManagedByAWS(host: settings.upstreams[user.upstream].address.host)
        for problem in access.lint(isAWS: isAWS) {
            let place =
                node.textOffset == nil
                ? "character \(problem.offset + 1) of access_string" : "access_string"
            diagnostics.append(
                Diagnostic(
                    problem.severity, at: node.position(ofCharacter: problem.offset),
                    "\(place): \(problem.message)", accessStringOf: user.name))
        }
    }

    private mutating func readCredentials(
        _ node: Node, of user: String, into settings: inout UserSettings
    ) {
        var credentials = CredentialSettings()
        let before = diagnostics.count
        let parts = section(node, "credentials", into: &credentials)
        if let iam = parts["iam"] {
            var source = IAMSource()
            section(iam, "iam", into: &source)
            check(source, of: settings, at: iam)
            credentials.sources.append(.iam(source))
        }
        if let secret = parts["secrets_manager"] {
            var source = SecretsManagerSource()
            section(secret, "secrets_manager", into: &source)
            source.region = source.region ?? AWSNames.region(ofSecret: source.secretID)
            credentials.sources.append(.secretsManager(source))
        }
        guard credentials.sources.count == 1, let source = credentials.sources.first else {
            // Silent when the one source is there but was refused: that is said already.
            if diagnostics.count == before {
                let got = credentials.sources.isEmpty ? "none" : "\(credentials.sources.count)"
                error(
                    node.position,
                    "credentials of \(user): wanted one of password_file, password_env, iam and"
                        + " secrets_manager, got \(got)")
            }
            return
        }
        settings.credentials = source
        switch source {
        case .passwordFile(let path):
            warnIfUnreadable(path, "password_file", in: node)
        case .passwordEnvironment(let variable):
            if checksFiles, getenv(variable) == nil {
                warning(
                    node.position(ofKey: "password_env"),
                    "password_env: the variable \(variable) is not set here")
            }
        case .iam, .secretsManager: break
        }
    }

    /// What AWS refuses with nothing but WRONGPASS is refused here, with a reason.
    private mutating func check(_ source: IAMSource, of user: UserSettings, at node: Node) {
        if source.service == .memoryDB, source.isServerless {
            error(
                node.position(ofKey: "serverless"),
                "serverless: wanted service elasticache with it, got memorydb: leave it out")
        }
        if source.life.limit <= source.life.renewAfter {
            error(
                node.position(ofKey: "renew_after"),
                "renew_after: wanted less than connection_limit"
                    + " (\(source.life.limit.settingText)), got"
                    + " \(source.life.renewAfter.settingText): a connection must have logged in again"
                    + " before the server ends it")
        }
        if user.userName.utf8.contains(where: { (0x41...0x5a).contains($0) }) {
            error(
                node.position,
                "iam: wanted a user's name in lower case, got \(quoted(user.userName)): an IAM"
                    + " user's name is its id, and AWS keeps ids in lower case; write user_name so")
        }
        // A user whose upstream is wrong has that of index 0, if there is one.
        guard settings.upstreams.indices.contains(user.upstream) else { return }
        let upstream = settings.upstreams[user.upstream]
        if case .off = upstream.tls {
            error(
                node.position,
                "iam: wanted TLS for upstream \(upstream.name), got tls: off: AWS takes tokens over"
                    + " TLS only")
        }
        let isServerless = upstream.address.host.lowercased().split(separator: ".")
            .contains("serverless")
        if isServerless, isManagedByAWS(host: upstream.address.host), !source.isServerless {
            warning(
                node.position,
                "iam: the address of upstream \(upstream.name) is a serverless cache's, whose tokens"
                    + " must say so: add serverless: true")
        }
    }
}

// MARK: - Listeners

extension SettingsReader {
    private mutating func readListeners(_ node: Node) {
        guard case .sequence(let items) = node.content, !items.isEmpty else {
            let got = if case .sequence = node.content { "an empty one" } else { node.kind }
            error(
                node.position,
                "listeners: wanted a list with at least one listener, got \(got): begin each with -"
            )
            return
        }
        var seen: [(address: ListenerAddress, position: Position)] = []
        for item in items {
            var listener = ListenerSettings()
            let before = diagnostics.count
            let parts = section(item, "listener", into: &listener)
            if let identities = parts["identities"] {
                listener.identities = readIdentities(identities, at: listener.address)
            }
            let isAddressKnown = listener.address != ListenerSettings.defaults.address
            if isAddressKnown {
                checkAddress(listener, of: item, seen: &seen)
                checkSocketKeys(listener.address, of: item)
            }
            if diagnostics.count == before || isAddressKnown {
                settings.listeners.append(listener)
            }
        }
    }

    private mutating func checkAddress(
        _ listener: ListenerSettings, of item: Node,
        seen: inout [(address: ListenerAddress, position: Position)]
    ) {
        let address = listener.address
        let position = item.position(ofKey: "address")
        if let admin = settings.admin.address, admin.collides(with: address) {
            error(
                position,
                "address: wanted an address of its own, got \(quoted("\(address)")), which collides"
                    + " with admin.address: change one of them")
        }
        if let first = seen.first(where: { $0.address.collides(with: address) }) {
            error(
                position,
                "address: wanted each address once, got \(quoted("\(address)")), which collides"
                    + " with \(first.address) at \(first.position): change one of them")
        }
        seen.append((address, position))
        guard !address.isLocal else { return }
        let wantsLogin =
            !listener.identities.isEmpty && listener.identities.allSatisfy { $0.login != nil }
        warning(
            position,
            "address: \(address) can be reached from other machines, in plain text and "
                + (wantsLogin ? "with passwords that can be read on the way" : "without a password")
                + ": listen on 127.0.0.1, [::1] or a Unix socket unless something else protects it")
    }

    private mutating func checkSocketKeys(_ address: ListenerAddress, of item: Node) {
        guard case .tcp = address, case .mapping(let entries) = item.content else { return }
        for entry in entries where entry.key.hasPrefix("socket_") {
            guard ListenerSettings.settings.contains(where: { $0.name == entry.key }) else {
                continue
            }
            error(
                entry.keyPosition,
                "\(entry.key): wanted a Unix socket for it, got the TCP address \(address):"
                    + " remove the key, or listen on unix:PATH")
        }
    }

    /// What is configured and never used is probably a mistake elsewhere.
    private mutating func warnAboutUnused(_ parts: [String: Node]) {
        guard !diagnostics.contains(where: { $0.severity == .error }) else { return }
        let usedUsers = Set(settings.listeners.flatMap(\.identities).map(\.user))
        let usedUpstreams = Set(settings.users.map(\.upstream))
        for (position, user) in settings.users.enumerated()
        where !usedUsers.contains(UserIndex(position)) {
            warning(
                parts["users"]?.keyPosition(user.name) ?? .wholeFile(""),
                "user \(user.name) is named by no listener: nobody can become it")
        }
        for (position, upstream) in settings.upstreams.enumerated()
        where !usedUpstreams.contains(position) {
            warning(
                parts["upstreams"]?.keyPosition(upstream.name) ?? .wholeFile(""),
                "upstream \(upstream.name) is named by no user: nothing is sent to it")
        }
    }
}

extension Node {
    fileprivate func keyPosition(_ key: String) -> Position {
        guard case .mapping(let entries) = content else { return position }
        return entries.first { $0.key == key }?.keyPosition ?? position
    }
}
