// What is dubious about an access string that a server would accept.
//
// A warning is worth a line only if the operator probably meant something else, or gives away more
// than the words say. That `~* +@all` is generous is plain to see; that it contains ACL SETUSER, with
// which any client of the listener becomes whoever it likes, is not. Where the service keeps those
// commands to itself, as AWS does, nothing is said.

package import Identity

extension AccessString {
    /// Commands with which a client that may use them owns the server, or what else it holds.
    private static let takeover = [
        "acl|setuser", "acl|load", "config|set", "module|load", "module|loadex", "debug",
        "replicaof", "slaveof", "shutdown",
    ]

    /// Everything that is wrong or dubious, from left to right.
    ///
    /// - Parameter isAWS: the user is ElastiCache's or MemoryDB's, which refuse more.
    package func lint(dialect: AccessDialect = .newest, isAWS: Bool) -> [AccessProblem] {
        var linter = AccessLinter(problems: problems)
        if isAWS { linter.refuseForAWS(rules) }
        // What was not understood changes what the rest amounts to.
        if linter.problems.isEmpty {
            let permissions = AccessPermissions(self, dialect: dialect)
            linter.warnAboutLogin(rules, permissions)
            linter.warnAboutOrder(rules)
            linter.warnAboutNothing(rules, permissions)
            linter.warnAboutPubSub(rules, permissions)
            if !isAWS { linter.warnAboutTakeover(permissions, Self.takeover) }
        }
        return linter.problems.enumerated().sorted {
            ($0.element.offset, $0.offset) < ($1.element.offset, $1.offset)
        }.map(\.element)
    }
}

/// Which of AWS's services a server of that name is, as far as a name can tell; nil: neither.
/// Source: the endpoints that both services give, such as `….cache.amazonaws.com`.
package func managingService(host: String) -> IAMSource.Service? {
    let name = host.lowercased()
    guard name.hasSuffix(".amazonaws.com") || name.hasSuffix(".amazonaws.com.cn") else {
        return nil
    }
    let labels = name.split(separator: ".")
    if labels.contains("memorydb") { return .memoryDB }
    return labels.contains("cache") ? .elastiCache : nil
}

/// Whether a server of that name is ElastiCache's or MemoryDB's, as far as a name can tell.
package func isManagedByAWS(host: String) -> Bool { managingService(host: host) != nil }

private struct AccessLinter {
    var problems: [AccessProblem]

    private mutating func error(_ offset: Int, _ message: String) {
        problems.append(AccessProblem(severity: .error, offset: offset, message: message))
    }

    private mutating func warning(_ offset: Int, _ message: String) {
        problems.append(AccessProblem(severity: .warning, offset: offset, message: message))
    }

    // MARK: ElastiCache and MemoryDB

    mutating func refuseForAWS(_ rules: [PlacedAccessRule]) {
        for placed in rules {
            switch placed.rule {
            case .reset:
                error(
                    placed.offset,
                    "wanted a rule that ElastiCache and MemoryDB accept, got reset: they begin with"
                        + " a new user anyway; remove it")
            case .command(let name, _), .firstArgument(let name, _):
                let command = name.split(separator: "|").first.map(String.init) ?? name
                let isRestricted =
                    AccessCommands.restrictedByAWS.contains(name)
                    || AccessCommands.restrictedByAWS.contains(command)
                if isRestricted {
                    error(
                        placed.offset,
                        "wanted a command that ElastiCache and MemoryDB have, got"
                            + " \(quoted(placed.text)): they keep \(name) to themselves and refuse"
                            + " to have it named; remove it")
                }
            case .noPassword:
                warning(
                    placed.offset,
                    "nopass: ElastiCache and MemoryDB want this said of the user and not in its"
                        + " access string (NoPasswordRequired); remove it")
            case .selector(let inner): refuseForAWS(inner)
            default: break
            }
        }
    }

    // MARK: Who may log in

    mutating func warnAboutLogin(
        _ rules: [PlacedAccessRule], _ permissions: AccessPermissions
    ) {
        if !permissions.isOn {
            let last = rules.last { [.off, .reset].contains($0.rule) }
            let why =
                last.map { $0.rule == .off ? "it says off" : "reset switches it off" }
                ?? "it says neither on nor off, which means off"
            warning(last?.offset ?? 0, "nobody can log in as this user: \(why); write on")
        }
        if permissions.needsNoPassword,
            let place = rules.last(where: { $0.rule == .noPassword })
        {
            warning(
                place.offset,
                "nopass: whoever reaches the server can log in as this user with any password;"
                    + " remove it, and give the user one")
        }
    }

    // MARK: Rules without effect

    mutating func warnAboutOrder(_ rules: [PlacedAccessRule]) {
        warnAboutOrder(
            rules, isCommand: true,
            undoneBy: { rule, later in
                // `-@all +@all` is what a server itself writes.
                if case .category("all", _) = rule { return false }
                if case .category("all", _) = later { return true }
                return later == .reset
            })
        warnAboutOrder(
            rules, isCommand: false,
            undoneBy: { rule, later in
                switch (rule, later) {
                case (_, .reset), (.keys, .resetKeys), (.keys, .allKeys), (.allKeys, .resetKeys),
                    (.channels, .resetChannels), (.channels, .allChannels),
                    (.allChannels, .resetChannels), (.selector, .clearSelectors),
                    (.on, .off), (.off, .on):
                    true
                default: false
                }
            })
        for case (let placed, .selector(let inner)) in rules.map({ ($0, $0.rule) }) {
            if inner.isEmpty {
                warning(placed.offset, "a selector with nothing in it allows nothing; remove it")
            }
            warnAboutOrder(inner)
        }
    }

    /// Warns about the first rule of a kind that a later one undoes.
    private mutating func warnAboutOrder(
        _ rules: [PlacedAccessRule], isCommand: Bool,
        undoneBy isUndone: (AccessRule, AccessRule) -> Bool
    ) {
        for (position, placed) in rules.enumerated() {
            let isOne =
                switch placed.rule {
                case .command, .category, .firstArgument: true
                default: false
                }
            guard isOne == isCommand else { continue }
            let later = rules[(position + 1)...].first { isUndone(placed.rule, $0.rule) }
            guard let later else { continue }
            warning(
                placed.offset,
                "\(quoted(placed.text)) has no effect, because \(later.text) comes behind it and"
                    + " rules are applied from left to right; exchange them, or remove it")
            return
        }
    }

    // MARK: Rules that do not suffice

    mutating func warnAboutNothing(
        _ rules: [PlacedAccessRule], _ permissions: AccessPermissions
    ) {
        if permissions.scopes.allSatisfy(\.allowsNothing) {
            warning(
                rules.last?.offset ?? 0,
                "this user may do nothing: add commands, such as +@read or +get")
            return
        }
        let selectors = rules.filter {
            if case .selector = $0.rule { true } else { false }
        }
        let isCleared = rules.contains { [.clearSelectors, .reset].contains($0.rule) }
        let places =
            [0] + (isCleared ? permissions.selectors.map { _ in 0 } : selectors.map(\.offset))
        for (scope, offset) in zip(permissions.scopes, places) {
            if scope.keys.isEmpty, let command = scope.keyedCommands.first,
                permissions.scopes.allSatisfy({ $0.keys.isEmpty }) || offset > 0
            {
                let more = scope.keyedCommands.count - 1
                let commands = more > 0 ? "\(command) and \(more) more" : command
                warning(
                    offset,
                    "no key is allowed, so that every use of \(commands) is refused: add ~ and a"
                        + " pattern, or ~* for all keys")
            }
        }
        warnAboutEmptyPatterns(rules)
    }

    private mutating func warnAboutEmptyPatterns(_ rules: [PlacedAccessRule]) {
        for placed in rules {
            if case .selector(let inner) = placed.rule { warnAboutEmptyPatterns(inner) }
            guard case .keys(pattern: "", _, _) = placed.rule else { continue }
            warning(
                placed.offset,
                "\(quoted(placed.text)) allows the key whose name is empty, and no other: write the"
                    + " pattern behind ~")
        }
    }

    /// Only where publish and subscribe are asked for by name: with +@all they may not be wanted.
    mutating func warnAboutPubSub(
        _ rules: [PlacedAccessRule], _ permissions: AccessPermissions
    ) {
        guard permissions.scopes.allSatisfy({ $0.channels.isEmpty }) else { return }
        let wanting: Set<String> = [
            "subscribe", "psubscribe", "ssubscribe", "publish", "spublish",
        ]
        for placed in rules {
            switch placed.rule {
            case .category("pubsub", isAllowed: true): break
            case .command(let name, isAllowed: true) where wanting.contains(name): break
            default: continue
            }
            warning(
                placed.offset,
                "no channel is allowed, so that Redis 7 and later refuse what \(placed.text)"
                    + " allows: add & and a pattern, or &* for all channels")
            return
        }
    }

    // MARK: Rules that suffice for too much

    mutating func warnAboutTakeover(
        _ permissions: AccessPermissions, _ takeover: [String]
    ) {
        guard permissions.isOn else { return }
        let found = takeover.filter { name in
            permissions.scopes.contains { $0.commands.contains(name) }
        }
        guard !found.isEmpty else { return }
        let names = found.prefix(4).map { $0.uppercased().replacing("|", with: " ") }
            .joined(separator: ", ")
        warning(
            0,
            "every client that becomes this user can take the server over (\(names)\(found.count > 4 ? " …" : "")):"
                + " write -@admin -@dangerous at the end, and name behind it what is needed of them"
        )
    }
}
