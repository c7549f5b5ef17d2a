// The lists of `identities`: each entry to a rule, and what is wrong with the entry or its place.

import Identity

extension SettingsReader {
    /// - Parameter address: where the listener is; a path that is empty is not known, because what
    ///   was written is wrong.
    mutating func readIdentities(_ node: Node, at address: ListenerAddress) -> [IdentityRule] {
        guard case .sequence(let items) = node.content, !items.isEmpty else {
            let got = if case .sequence = node.content { "an empty one" } else { node.kind }
            error(
                node.position,
                "identities: wanted a list with at least one rule, got \(got):"
                    + " write [{ any: true, user: NAME }]")
            return []
        }
        var rules: [(rule: IdentityRule, position: Position)] = []
        for item in items {
            guard let rule = readRule(item, at: address) else { continue }
            if let first = rules.first(where: { $0.rule.hides(rule) }) {
                warning(
                    item.position,
                    "identities: this rule never decides anything, because the one at"
                        + " \(first.position), \(first.rule.principal), holds whenever it does:"
                        + " put it before that one, or remove it")
            }
            rules.append((rule, item.position))
        }
        return rules.map(\.rule)
    }

    /// nil: something is wrong with its conditions, so that nothing can be said about its place.
    private mutating func readRule(
        _ item: Node, at address: ListenerAddress
    ) -> IdentityRule? {
        var written = IdentitySettings()
        let before = diagnostics.count
        let parts = section(item, "identity rule", into: &written)
        var rule = IdentityRule()
        if let reference = parts["user"], let name = name(reference, "user") {
            if let index = indexOfUser[name] {
                rule.user = index
            } else {
                reportMissing(
                    "a user", name, at: reference.position, among: Array(indexOfUser.keys))
            }
        }
        rule.maximumSessions = written.maxSessions
        if let login = parts["login"] { rule.login = readLogin(login) }
        rule.conditions = conditions(written, of: item, at: address)
        checkPlace(written, of: item, at: address)
        let isMapping = if case .mapping = item.content { true } else { false }
        if written.any, written.hasCondition || parts["login"] != nil {
            error(
                item.position(ofKey: "any"),
                "any: wanted it alone, since it holds for every client, got other conditions beside"
                    + " it: remove it or them")
        } else if isMapping, !written.any, !written.hasCondition, parts["login"] == nil,
            diagnostics.count == before
        {
            error(
                item.position,
                "identity rule: wanted a condition (any, unix_user, uid, unix_group, gid, source or"
                    + " login), got none: write any: true if it shall hold for every client")
        }
        return diagnostics.count == before ? rule : nil
    }

    private mutating func conditions(
        _ written: IdentitySettings, of item: Node, at address: ListenerAddress
    ) -> [IdentityRule.Condition] {
        var conditions: [IdentityRule.Condition] = []
        if let name = written.unixUser, let id = number(of: name, "unix_user", accounts.user, item)
        {
            conditions.append(.user(.init(id: id, name: name)))
        }
        if let id = written.uid { conditions.append(.user(.init(id: id))) }
        if let name = written.unixGroup,
            let id = number(of: name, "unix_group", accounts.group, item)
        {
            conditions.append(.group(.init(id: id, name: name), members: members(id, address)))
        }
        if let id = written.gid {
            conditions.append(.group(.init(id: id), members: members(id, address)))
        }
        if let range = written.source { conditions.append(.source(range)) }
        return conditions
    }

    /// A Unix socket's clients come with their groups.
    private func members(_ group: UInt32, _ address: ListenerAddress) -> Set<UInt32> {
        if case .unix = address { [] } else { accounts.members(group) }
    }

    private mutating func number(
        of name: String, _ key: String, _ lookUp: (String) -> Accounts.Answer, _ item: Node
    ) -> UInt32? {
        let kind = key == "unix_user" ? "user" : "group"
        let position = item.position(ofKey: key)
        switch lookUp(name) {
        case .found(overflowID):
            error(
                position,
                "\(key): wanted a \(kind) that can be told from others, got \(quoted(name)), whose"
                    + " number 65534 stands for every account without one: use another \(kind)")
        case .found(let id):
            return id
        case .unknown:
            let isNumber = name.utf8.allSatisfy { (0x30...0x39).contains($0) }
            let numberKey = key == "unix_user" ? "uid" : "gid"
            error(
                position,
                "\(key): wanted a \(kind) of this system, got \(quoted(name)), which there is not: "
                    + (isNumber
                        ? "write \(numberKey): \(name) for a number" : "correct it, or create it"))
        case .failed(let reason):
            error(
                position,
                "\(key): wanted to look up the \(kind) \(quoted(name)), got an error of the system"
                    + " (\(escaped(reason))): try again, or give its number")
        }
        return nil
    }

    /// What cannot hold where the listener is.
    private mutating func checkPlace(
        _ written: IdentitySettings, of item: Node, at address: ListenerAddress
    ) {
        switch address {
        case .unix(let path):
            guard !path.isEmpty, written.source != nil else { return }
            error(
                item.position(ofKey: "source"),
                "source: wanted a TCP listener for it, got the Unix socket \(address), whose clients"
                    + " have no address: use unix_user or unix_group")
        case .tcp:
            guard !address.isLocal else { return }
            for (key, isThere) in [
                ("unix_user", written.unixUser != nil), ("uid", written.uid != nil),
                ("unix_group", written.unixGroup != nil), ("gid", written.gid != nil),
            ] where isThere {
                error(
                    item.position(ofKey: key),
                    "\(key): wanted a listener on loopback or a Unix socket for it, got"
                        + " \(address): the kernel knows the users of this machine's connections"
                        + " alone; use source or login")
            }
        }
    }

    private mutating func readLogin(_ node: Node) -> Login {
        var written = LoginSettings()
        let before = diagnostics.count
        let parts = section(node, "login", into: &written)
        var passwords: [StoredPassword] = []
        for (text, position) in texts(parts["password_scrypt"], "password_scrypt") {
            do throws(ScryptHash.Mistake) {
                passwords.append(.scrypt(try ScryptHash(text)))
            } catch {
                let advice =
                    switch error {
                    case .notTheFormat:
                        "$scrypt$ln=15,r=8,p=1$SALT$HASH, got something else: put what"
                            + " hash-password prints in quotes"
                    case .costOutOfRange:
                        "ln of 10 to 24, r up to 64, p up to 16 and at most 256 MiB"
                            + " (128 · r · 2^ln), got other costs: make the hash anew"
                    }
                self.error(position, "password_scrypt: wanted \(advice)")
            }
        }
        for (text, position) in texts(parts["password_sha256"], "password_sha256") {
            if let password = StoredPassword(hexadecimalSHA256: text) {
                passwords.append(password)
            } else {
                error(
                    position,
                    "password_sha256: wanted 64 hexadecimal digits, got something else (not shown,"
                        + " it may be a secret): hash-password --sha256 prints them")
            }
        }
        for (text, position) in texts(parts["password_file"], "password_file") {
            do throws(Unwanted) {
                passwords.append(.file(path: try plainText(text)))
                warnIfUnreadable(text, "password_file", at: position)
            } catch {
                self.error(
                    position,
                    "password_file: wanted the path of a file, got"
                        + " \(text.isEmpty ? "nothing" : "control characters in it"):"
                        + " \(error.advice ?? "correct it")")
            }
        }
        if passwords.isEmpty, diagnostics.count == before {
            error(
                node.position,
                "login: wanted at least one of password_scrypt, password_sha256 and password_file,"
                    + " got none: hash-password makes a hash")
        }
        return Login(name: written.name, passwords: passwords)
    }

    /// A text, or a list of texts.
    private mutating func texts(_ node: Node?, _ key: String) -> [(String, Position)] {
        guard let node else { return [] }
        var nodes = [node]
        if case .sequence(let items) = node.content { nodes = items }
        if nodes.isEmpty { error(node.position, "\(key): wanted at least one, got an empty list") }
        return nodes.compactMap { item in
            if case .scalar(let text, _) = item.content, item.kind == "a text" {
                return (text, item.position)
            }
            error(item.position, "\(key): wanted a text or a list of texts, got \(item.kind)")
            return nil
        }
    }
}
