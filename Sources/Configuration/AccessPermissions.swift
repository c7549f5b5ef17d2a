// What an access string amounts to: the commands, keys and channels that are left when all its rules
// have been applied, from left to right.
//
// Two access strings that are written differently can amount to the same (`+@all -@all +get`, and
// `-@all +get`, which is what a server makes of it), so that what is compared is this and not the text.

/// What a user may do.
package struct AccessPermissions: Sendable, Equatable {
    package var isOn = false
    /// Whether any password will do.
    package var needsNoPassword = false
    package var root = AccessScope()
    package var selectors: [AccessScope] = []

    /// The permissions of a user to whom `access` is said, and nothing before it.
    package init(_ access: AccessString, dialect: AccessDialect = .newest) {
        for placed in access.rules { apply(placed.rule, dialect) }
    }

    private mutating func apply(_ rule: AccessRule, _ dialect: AccessDialect) {
        switch rule {
        case .on: isOn = true
        case .off: isOn = false
        case .noPassword: needsNoPassword = true
        case .resetPasswords: needsNoPassword = false
        case .selector(let rules):
            var scope = AccessScope()
            for placed in rules { scope.apply(placed.rule, dialect) }
            selectors.append(scope)
        case .clearSelectors: selectors = []
        case .reset:
            isOn = false
            needsNoPassword = false
            root = AccessScope()
            selectors = []
        default: root.apply(rule, dialect)
        }
    }

    /// All its scopes: each suffices to allow a command.
    var scopes: [AccessScope] { [root] + selectors }
}

/// A set of commands with the keys, channels and databases that they may be used on.
package struct AccessScope: Sendable, Equatable {
    struct Keys: Sendable, Hashable {
        let pattern: String
        let mayRead: Bool
        let mayWrite: Bool

        /// As it is written.
        var text: String {
            if mayRead && mayWrite { return "~\(pattern)" }
            return (mayRead ? "%R~" : "%W~") + pattern
        }
    }

    private static let allKeys = Keys(pattern: "*", mayRead: true, mayWrite: true)

    /// Full names; where a command has subcommands, theirs alone. A module's category, whose commands
    /// nobody here knows, stands for itself: `@json`.
    var commands: Set<String> = []
    /// Commands that are allowed with these first arguments only.
    var firstArguments: [String: Set<String>] = [:]
    var keys: Set<Keys> = []
    var channels: Set<String> = []
    /// nil: all.
    var databases: Set<Int>?

    mutating func apply(_ rule: AccessRule, _ dialect: AccessDialect) {
        switch rule {
        case .allKeys: keys = [Self.allKeys]
        case .resetKeys: keys = []
        case .keys(let pattern, let mayRead, let mayWrite):
            // A server makes one of two that have the same pattern: `%R~a %W~a` is `~a`.
            let same = keys.first { $0.pattern == pattern }
            if let same { keys.remove(same) }
            keys.insert(
                Keys(
                    pattern: pattern, mayRead: mayRead || same?.mayRead == true,
                    mayWrite: mayWrite || same?.mayWrite == true))
        case .allChannels: channels = ["*"]
        case .resetChannels: channels = []
        case .channels(let pattern): channels.insert(pattern)
        case .allDatabases: databases = nil
        case .resetDatabases: databases = []
        case .databases(let numbers): databases = (databases ?? []).union(numbers)
        case .category(let name, let isAllowed):
            set(Self.commands(in: name, dialect), isAllowed)
        case .command(let name, let isAllowed):
            set(Self.commands(named: name, dialect), isAllowed)
        case .firstArgument(let command, let argument):
            if !commands.contains(command) {
                firstArguments[command, default: []].insert(argument)
            }
        default: break  // said of the whole user
        }
    }

    private mutating func set(_ names: Set<String>, _ isAllowed: Bool) {
        if isAllowed { commands.formUnion(names) } else { commands.subtract(names) }
        for name in names { firstArguments[name] = nil }
    }

    var allowsNothing: Bool { commands.isEmpty && firstArguments.isEmpty }

    /// The commands that it allows and that want a key.
    var keyedCommands: [String] {
        (commands.union(firstArguments.keys)).filter { AccessCommands.table[$0]?.hasKeys == true }
            .sorted()
    }

    /// What a rule that names a command is about.
    static func commands(named name: String, _ dialect: AccessDialect) -> Set<String> {
        guard dialect >= .redis7, let names = AccessCommands.subcommands[name] else {
            return [name]
        }
        return Set(names.filter { isThere($0, dialect) })
    }

    /// What a rule that names a category is about.
    static func commands(in category: String, _ dialect: AccessDialect) -> Set<String> {
        guard AccessCommands.categories.contains(category) else { return ["@\(category)"] }
        var names: Set<String> = []
        for command in AccessCommands.table.values where isThere(command.name, dialect) {
            let isIn = category == "all" || command.categories.contains(Substring(category))
            guard isIn else { continue }
            if dialect >= .redis7 {
                names.formUnion(commands(named: command.name, dialect))
            } else {
                // Before subcommands were commands, their categories were the whole command's.
                names.insert(command.name.split(separator: "|").first.map(String.init) ?? "")
            }
        }
        if category == "all" {
            names.formUnion(AccessCommands.moduleCategories.map { "@\($0)" })
        }
        return names
    }

    private static func isThere(_ name: String, _ dialect: AccessDialect) -> Bool {
        guard let command = AccessCommands.table[name] else { return false }
        // A subcommand may be older as an argument than as a command.
        return command.since <= dialect
    }
}

/// One respect in which what a user may do is not what it should be.
package struct AccessDifference: Sendable, Equatable {
    package enum Subject: String, Sendable {
        /// Whether it can log in at all; in words.
        case user
        case commands
        case keys
        case channels
        case databases
        case selectors
    }

    package let subject: Subject
    /// Within the selector that both sides have in this place.
    package var isInSelector = false
    /// What should be allowed and is not, in the words of access strings, sorted.
    package let missing: [String]
    /// What is allowed and should not be.
    package let extra: [String]
}

extension AccessPermissions {
    /// What must be added to `actual` and taken from it to make it these; empty if nothing.
    ///
    /// Whether the user needs a password is compared only where it matters: `actual` needs none.
    package func comparison(with actual: AccessPermissions) -> [AccessDifference] {
        var found: [AccessDifference] = []
        if isOn != actual.isOn {
            found.append(
                AccessDifference(
                    subject: .user, missing: isOn ? ["on"] : [], extra: isOn ? [] : ["on"]))
        }
        if actual.needsNoPassword && !needsNoPassword {
            found.append(AccessDifference(subject: .user, missing: [], extra: ["nopass"]))
        }
        found += root.comparison(with: actual.root)
        let missing = selectors.filter { !actual.selectors.contains($0) }
        let extra = actual.selectors.filter { !selectors.contains($0) }
        if missing.count == 1, extra.count == 1 {
            found += missing[0].comparison(with: extra[0]).map { difference in
                var difference = difference
                difference.isInSelector = true
                return difference
            }
        } else if !missing.isEmpty || !extra.isEmpty {
            found.append(
                AccessDifference(
                    subject: .selectors, missing: missing.map(\.text), extra: extra.map(\.text)))
        }
        return found
    }

    /// How `actual` differs from these, in sentences for an operator; empty if it does not.
    package func differences(from actual: AccessPermissions) -> [String] {
        comparison(with: actual).flatMap { difference in
            let place = difference.isInSelector ? "in a selector: " : ""
            return difference.sentences.map { place + $0 }
        }
    }
}

extension AccessDifference {
    fileprivate var sentences: [String] {
        switch subject {
        case .user:
            if extra == ["nopass"] { return ["the user needs no password (nopass), and should"] }
            return [
                missing.isEmpty
                    ? "the user is on, and should be off" : "the user is off, and should be on"
            ]
        case .databases:
            return [
                "databases: wanted \(missing.joined(separator: ", ")), allowed"
                    + " \(extra.joined(separator: ", "))"
            ]
        case .selectors:
            return [
                missing.isEmpty ? nil : "\(missing.count) selectors are not there",
                extra.isEmpty ? nil : "\(extra.count) selectors are there beyond it",
            ].compactMap(\.self)
        case .commands, .keys, .channels:
            return [
                missing.isEmpty ? nil : "\(subject.rawValue) not allowed: \(Self.list(missing))",
                extra.isEmpty
                    ? nil : "\(subject.rawValue) allowed beyond it: \(Self.list(extra))",
            ].compactMap(\.self)
        }
    }

    /// The first of them, for people to read.
    package static func list(_ names: [String]) -> String {
        let shown = names.prefix(8).map { escaped(String($0.prefix(60))) }.joined(separator: ", ")
        return names.count > 8 ? "\(shown) … (\(names.count) in all)" : shown
    }
}

extension AccessScope {
    fileprivate func comparison(with actual: AccessScope) -> [AccessDifference] {
        var found: [AccessDifference] = []
        func compare(
            _ subject: AccessDifference.Subject, _ wanted: Set<String>, _ got: Set<String>
        ) {
            let missing = wanted.subtracting(got).sorted()
            let extra = got.subtracting(wanted).sorted()
            guard !missing.isEmpty || !extra.isEmpty else { return }
            found.append(AccessDifference(subject: subject, missing: missing, extra: extra))
        }
        compare(.commands, commandTexts, actual.commandTexts)
        compare(.keys, Set(keys.map(\.text)), Set(actual.keys.map(\.text)))
        compare(.channels, Set(channels.map { "&\($0)" }), Set(actual.channels.map { "&\($0)" }))
        if databases != actual.databases {
            func texts(_ numbers: Set<Int>?) -> [String] {
                guard let numbers else { return ["all"] }
                return numbers.isEmpty ? ["none"] : numbers.sorted().map(String.init)
            }
            found.append(
                AccessDifference(
                    subject: .databases, missing: texts(databases), extra: texts(actual.databases)))
        }
        return found
    }

    private var commandTexts: Set<String> {
        commands.union(firstArguments.flatMap { name, list in list.map { "\(name)|\($0)" } })
    }

    /// As an operator would write it, but for many commands.
    fileprivate var text: String {
        let patterns = keys.map(\.text).sorted() + channels.map { "&\($0)" }.sorted()
        let names = commandTexts.sorted()
        let shown = names.prefix(8).map { "+\($0)" } + (names.count > 8 ? ["… \(names.count)"] : [])
        return "(\((patterns + shown).joined(separator: " ")))"
    }
}
