// Access strings: what an ACL user may do, in the words of ACL SETUSER.
//
//     on ~app:* %R~shared:* &news:* -@all +@read +config|get (~tmp:* +set)
//     │  │      │           │       └── commands, from left to right       └── a selector: another
//     │  │      │           └── channels    set of commands, keys and channels that suffices by itself
//     │  └──────┴── keys, for everything or only to read
//     └── whether the user may log in
//
// The parser accepts what the server's own does, and refuses what it refuses, each with the place and
// the reason; the tests give the same strings to a real server. Two exceptions, on purpose: passwords,
// which a server accepts and which do not belong into a configuration, and quotes inside a selector,
// which a server takes for its own quoting and not for a part of the pattern.
//
// Source: acl.c of Redis 7.0 (ACLSetUser, ACLSetSelector, ACLMergeSelectorArguments), acl.c of Redis 6,
// and for databases that of Valkey 9.1.

/// Whose grammar and commands an access string is read with. Later ones know more.
package enum AccessDialect: Int, Comparable, Sendable {
    /// Redis 6.0: no channels, no subcommands to take away.
    case redis6
    /// Redis 6.2: channels.
    case redis62
    /// Redis 7.0: selectors, keys to read or write only, subcommands as commands.
    case redis7
    /// Everything that any server is known to understand: Redis 8, Valkey 9.1.
    case newest

    /// The dialect of a server that calls itself `version`, such as `7.0.15`.
    ///
    /// Valkey and managed servers tell a Redis version that is true enough for this.
    package init(version: String) {
        let parts = version.split(separator: ".", maxSplits: 2).map { Int($0) ?? 0 }
        let major = parts.first ?? 0
        let minor = parts.count > 1 ? parts[1] : 0
        switch (major, minor) {
        case (...6, ...1): self = .redis6
        case (...6, _): self = .redis62
        case (7, 0): self = .redis7
        default: self = .newest
        }
    }

    package static func < (left: AccessDialect, right: AccessDialect) -> Bool {
        left.rawValue < right.rawValue
    }
}

/// One word of an access string, understood.
package enum AccessRule: Sendable, Equatable {
    case on
    case off
    /// `nopass`: any password will do.
    case noPassword
    /// `resetpass`: no password will do.
    case resetPasswords
    case sanitizePayload(Bool)
    case allKeys
    case resetKeys
    /// `~pattern`, `%R~pattern`, `%W~pattern`.
    case keys(pattern: String, mayRead: Bool, mayWrite: Bool)
    case allChannels
    case resetChannels
    case channels(pattern: String)
    case allDatabases
    case resetDatabases
    case databases([Int])
    /// `+@read` or `-@read`; `+@all` is also written `allcommands`. In lower case.
    case category(String, isAllowed: Bool)
    /// `+get`, `-config|set`. In lower case.
    case command(String, isAllowed: Bool)
    /// `+select|0`: a command, but only with this first argument.
    case firstArgument(command: String, argument: String)
    case selector([PlacedAccessRule])
    case clearSelectors
    /// `reset`: as if the user had just been made.
    case reset
}

/// A rule and where it stands.
package struct PlacedAccessRule: Sendable, Equatable {
    package let rule: AccessRule
    /// Characters before it in the access string.
    package let offset: Int
    /// As written.
    package let text: String
}

/// Something that is wrong with an access string, or dubious.
package struct AccessProblem: Sendable, Equatable {
    package let severity: Diagnostic.Severity
    /// Characters before the word that it is about.
    package let offset: Int
    /// What was wanted, what was got, what to do. Never holds a password.
    package let message: String
}

/// An access string that has been read.
package struct AccessString: Sendable, Equatable {
    /// As written. May hold a password if `problems` says so: do not print then. What
    /// `Settings.load` gives has none.
    package let text: String
    /// What could be understood, in order.
    package let rules: [PlacedAccessRule]
    /// Errors only; `lint` finds what is dubious.
    package let problems: [AccessProblem]

    /// Reads `text`; what cannot be understood is left out of `rules` and stands in `problems`.
    ///
    /// - Parameter isFromServer: takes a command that is not known for one that exists.
    package init(_ text: String, dialect: AccessDialect = .newest, isFromServer: Bool = false) {
        var parser = AccessParser(dialect: dialect, keepsUnknownCommands: isFromServer)
        parser.read(text)
        self.text = text
        rules = parser.rules
        problems = parser.problems
    }

    /// The same text, as a server of another version would read it.
    package func reread(_ dialect: AccessDialect) -> AccessString {
        AccessString(text, dialect: dialect)
    }
}

/// A word and the characters before it.
private struct AccessWord {
    var text: String
    var offset: Int
}

private struct AccessParser {
    let dialect: AccessDialect
    let keepsUnknownCommands: Bool
    var rules: [PlacedAccessRule] = []
    var problems: [AccessProblem] = []

    init(dialect: AccessDialect, keepsUnknownCommands: Bool) {
        self.dialect = dialect
        self.keepsUnknownCommands = keepsUnknownCommands
    }

    // MARK: Words

    mutating func read(_ text: String) {
        var words = words(of: text, from: 0)[...]
        while let word = words.popFirst() {
            guard word.text.hasPrefix("(") else {
                read(word, isInSelector: false)
                continue
            }
            // A selector is one word, or goes on to the first that ends in a parenthesis.
            var parts = [word]
            while parts.last?.text.hasSuffix(")") != true, let next = words.popFirst() {
                parts.append(next)
            }
            readSelector(parts)
        }
    }

    /// Splits where the server does: C's isspace.
    private func words(of text: String, from offset: Int) -> [AccessWord] {
        var words: [AccessWord] = []
        var word = String.UnicodeScalarView()
        var position = offset
        for scalar in text.unicodeScalars {
            switch scalar {
            case " ", "\t", "\n", "\r", "\u{0b}", "\u{0c}":
                if !word.isEmpty {
                    words.append(AccessWord(text: String(word), offset: position - word.count))
                }
                word = String.UnicodeScalarView()
            default:
                word.append(scalar)
            }
            position += 1
        }
        if !word.isEmpty {
            words.append(AccessWord(text: String(word), offset: position - word.count))
        }
        return words
    }

    private mutating func readSelector(_ parts: [AccessWord]) {
        let start = parts[0].offset
        let text = parts.map(\.text).joined(separator: " ")
        guard text.hasSuffix(")"), text.unicodeScalars.count > 1 else {
            return error(
                start,
                "wanted a ) that ends the selector begun here, got none: write it, before a"
                    + " space or at the end")
        }
        guard dialect >= .redis7 else {
            return error(
                start,
                "wanted a rule that Redis 6 knows, got a selector: selectors came with Redis"
                    + " 7.0; make it a user of its own")
        }
        var inner = parts
        inner[0].text.unicodeScalars.removeFirst()
        inner[0].offset += 1
        inner[inner.count - 1].text.unicodeScalars.removeLast()
        let outside = rules
        rules = []
        for word in inner where !word.text.isEmpty {
            if let quote = word.text.unicodeScalars.firstIndex(where: { $0 == "\"" || $0 == "'" }) {
                let before = word.text.unicodeScalars.distance(
                    from: word.text.unicodeScalars.startIndex, to: quote)
                error(
                    word.offset + before,
                    "wanted no quotes inside a selector, got one: the server would take it for"
                        + " quoting and not for a part of the pattern")
                continue
            }
            read(word, isInSelector: true)
        }
        let selector = rules
        rules = outside
        rules.append(PlacedAccessRule(rule: .selector(selector), offset: start, text: text))
    }

    // MARK: Rules

    private mutating func read(_ word: AccessWord, isInSelector: Bool) {
        if word.text.unicodeScalars.contains("\0") {
            return error(word.offset, "wanted a rule, got one with a NUL in it: remove it")
        }
        let first = word.text.unicodeScalars.first
        let rule: AccessRule?
        switch first {
        case "+", "-":
            rule = commandRule(word, isAllowed: first == "+")
        case "~", "%":
            rule = keyRule(word)
        case "&":
            rule = channelRule(word)
        case ">", "<", "#", "!":
            return error(
                word.offset,
                "wanted a rule, got a password (not shown): passwords do not belong into an access"
                    + " string; the proxy reads its own from credentials")
        default:
            rule = keyword(word, isInSelector: isInSelector)
        }
        guard let rule else { return }
        if case .keys = rule, hasAllKeys(rules) {
            return error(
                word.offset,
                "wanted no key pattern behind ~* or allkeys, got \(quoted(word.text)): it would"
                    + " have no effect; remove it or the ~*")
        }
        if case .channels = rule, hasAllChannels(rules) {
            return error(
                word.offset,
                "wanted no channel pattern behind &* or allchannels, got \(quoted(word.text)): it"
                    + " would have no effect; remove it or the &*")
        }
        rules.append(PlacedAccessRule(rule: rule, offset: word.offset, text: word.text))
    }

    private func hasAllKeys(_ rules: [PlacedAccessRule]) -> Bool {
        let last = rules.last { [.allKeys, .resetKeys, .reset].contains($0.rule) }
        return last?.rule == .allKeys
    }

    private func hasAllChannels(_ rules: [PlacedAccessRule]) -> Bool {
        let last = rules.last { [.allChannels, .resetChannels, .reset].contains($0.rule) }
        return last?.rule == .allChannels
    }

    private static let selectorKeywords: [(String, AccessRule, AccessDialect)] = [
        ("allkeys", .allKeys, .redis6), ("resetkeys", .resetKeys, .redis6),
        ("allchannels", .allChannels, .redis62), ("resetchannels", .resetChannels, .redis62),
        ("allcommands", .category("all", isAllowed: true), .redis6),
        ("nocommands", .category("all", isAllowed: false), .redis6),
        ("alldbs", .allDatabases, .newest), ("resetdbs", .resetDatabases, .newest),
    ]

    private static let userKeywords: [(String, AccessRule, AccessDialect)] = [
        ("on", .on, .redis6), ("off", .off, .redis6), ("nopass", .noPassword, .redis6),
        ("resetpass", .resetPasswords, .redis6), ("reset", .reset, .redis6),
        ("sanitize-payload", .sanitizePayload(true), .redis62),
        ("skip-sanitize-payload", .sanitizePayload(false), .redis62),
        ("clearselectors", .clearSelectors, .redis7),
    ]

    private mutating func keyword(_ word: AccessWord, isInSelector: Bool) -> AccessRule? {
        let name = word.text.lowercased()
        let known = Self.selectorKeywords + (isInSelector ? [] : Self.userKeywords)
        if let (_, rule, since) = known.first(where: { $0.0 == name }), since <= dialect {
            return rule
        }
        if name.hasPrefix("db="), dialect >= .newest { return databaseRule(word) }
        if isInSelector, Self.userKeywords.contains(where: { $0.0 == name }) {
            error(
                word.offset,
                "wanted commands, keys or channels inside a selector, got \(name): it is said of"
                    + " the whole user; write it before the parenthesis")
            return nil
        }
        // A word without a sign in front may be a password: it is shown only if it is nearly a rule.
        if let near = suggestion(for: word.text, among: known.map(\.0)) {
            error(
                word.offset,
                "wanted a rule, got \(quoted(word.text)): did you mean \(near)?")
        } else if let near = lookUp(name)?.name {
            error(
                word.offset,
                "wanted a rule, got \(quoted(word.text)): did you mean +\(near)?")
        } else {
            error(
                word.offset,
                "wanted a rule, got a word that is none (not shown, it may be a secret): commands"
                    + " begin with + or -, categories with +@ or -@, keys with ~, channels with &")
        }
        return nil
    }

    private mutating func databaseRule(_ word: AccessWord) -> AccessRule? {
        let list = word.text.dropFirst(3).split(separator: ",", omittingEmptySubsequences: false)
        var numbers: [Int] = []
        for text in list {
            guard !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }),
                let number = Int32(text)
            else {
                error(
                    word.offset,
                    "wanted database numbers such as db=0,1, got \(quoted(word.text)): write"
                        + " digits, with commas between them")
                return nil
            }
            numbers.append(Int(number))
        }
        return .databases(numbers)
    }

    private mutating func keyRule(_ word: AccessWord) -> AccessRule? {
        let scalars = word.text.unicodeScalars
        if scalars.first == "~" {
            let pattern = String(scalars.dropFirst())
            return pattern == "*"
                ? .allKeys : .keys(pattern: pattern, mayRead: true, mayWrite: true)
        }
        guard dialect >= .redis7 else {
            error(
                word.offset,
                "wanted a rule that Redis 6 knows, got \(quoted(word.text)): permissions to read"
                    + " or write only came with Redis 7.0; write ~ and the pattern")
            return nil
        }
        var (mayRead, mayWrite) = (false, false)
        var rest = scalars.dropFirst()
        while let letter = rest.popFirst() {
            switch letter {
            case "R" where !mayRead, "r" where !mayRead: mayRead = true
            case "W" where !mayWrite, "w" where !mayWrite: mayWrite = true
            case "~" where mayRead || mayWrite:
                return .keys(pattern: String(rest), mayRead: mayRead, mayWrite: mayWrite)
            default:
                error(
                    word.offset,
                    "wanted %R~, %W~ or %RW~ and a pattern, got \(quoted(word.text)): write R to"
                        + " allow reading, W writing, and ~ before the pattern")
                return nil
            }
        }
        // The server accepts `%R` and `%RW`, for the key that is empty.
        guard mayRead || mayWrite else {
            error(
                word.offset,
                "wanted %R~, %W~ or %RW~ and a pattern, got \(quoted(word.text)): write what is"
                    + " missing")
            return nil
        }
        return .keys(pattern: "", mayRead: mayRead, mayWrite: mayWrite)
    }

    private mutating func channelRule(_ word: AccessWord) -> AccessRule? {
        guard dialect >= .redis62 else {
            error(
                word.offset,
                "wanted a rule that Redis 6.0 knows, got \(quoted(word.text)): channel patterns"
                    + " came with Redis 6.2; leave it out")
            return nil
        }
        let pattern = String(word.text.unicodeScalars.dropFirst())
        return pattern == "*" ? .allChannels : .channels(pattern: pattern)
    }

    // MARK: Commands

    private mutating func commandRule(_ word: AccessWord, isAllowed: Bool) -> AccessRule? {
        let sign = isAllowed ? "+" : "-"
        let name = word.text.dropFirst()
        if name.hasPrefix("@") {
            return categoryRule(word, String(name.dropFirst()).lowercased(), isAllowed: isAllowed)
        }
        guard !name.isEmpty else {
            error(
                word.offset,
                "wanted a command behind \(sign), got none: write it without a space between")
            return nil
        }
        let full = name.lowercased()
        guard let bar = full.lastIndex(of: "|") else {
            return knownCommand(full, word, sign).map { .command($0, isAllowed: isAllowed) }
        }
        if dialect < .redis7, isAllowed {
            // There whatever follows the first | is an argument.
            let parts = name.split(separator: "|", maxSplits: 1, omittingEmptySubsequences: false)
            return firstArgumentRule(String(parts[0]).lowercased(), String(parts[1]), word)
        }
        if !isAllowed || full[..<bar].contains("|") {
            return subcommandRule(full, word, isAllowed: isAllowed)
        }
        let command = String(full[..<bar])
        if AccessCommands.subcommands[command] != nil, !full.hasSuffix("|") {
            return subcommandRule(full, word, isAllowed: true)
        }
        // Everything in front of the bar is ASCII where it is known, so that the counts agree.
        return firstArgumentRule(command, String(name.dropFirst(command.count + 1)), word)
    }

    /// `+select|0`. The server tells capitals in the argument apart no more than in the command.
    private mutating func firstArgumentRule(
        _ command: String, _ argument: String, _ word: AccessWord
    ) -> AccessRule? {
        guard knownCommand(command, word, "+") != nil else { return nil }
        guard !argument.isEmpty else {
            error(
                word.offset,
                "wanted a subcommand behind +\(command)|, got none: write it, or remove the |")
            return nil
        }
        return .firstArgument(command: command, argument: argument.lowercased())
    }

    /// `+config|get`, and everything with a | in it that takes away.
    private mutating func subcommandRule(
        _ full: String, _ word: AccessWord, isAllowed: Bool
    ) -> AccessRule? {
        let sign = isAllowed ? "+" : "-"
        let parts = full.split(separator: "|", omittingEmptySubsequences: false).map(String.init)
        let command = parts[0]
        if keepsUnknownCommands { return .command(full, isAllowed: isAllowed) }
        guard knownCommand(command, word, sign) != nil else { return nil }
        guard dialect >= .redis7 else {
            error(
                word.offset,
                "wanted a command behind \(sign), got the subcommand \(quoted(word.text)): Redis 6"
                    + " cannot take single subcommands away; write \(sign)\(command) and add the"
                    + " others")
            return nil
        }
        let known = AccessCommands.subcommands[command] ?? []
        guard parts.count == 2 else {
            error(
                word.offset,
                "wanted a command and one subcommand, got \(quoted(word.text)): what follows a"
                    + " subcommand cannot be chosen; remove it")
            return nil
        }
        // A module's command may have subcommands that nobody here knows.
        if known.isEmpty, command.contains(".") { return .command(full, isAllowed: isAllowed) }
        guard !known.isEmpty else {
            error(
                word.offset,
                "wanted a command behind \(sign), got \(quoted(word.text)): \(command) has no"
                    + " subcommands, and a first argument can only be allowed; remove |\(parts[1])")
            return nil
        }
        if let found = AccessCommands.table[full], found.since <= dialect {
            return .command(full, isAllowed: isAllowed)
        }
        let near = suggestion(
            for: parts[1], among: known.map { String($0.dropFirst(command.count + 1)) })
        let newer = AccessCommands.table[full] != nil
        error(
            word.offset,
            "wanted a subcommand of \(command), got \(quoted(word.text)): "
                + (newer
                    ? "it came with a later version than the server's"
                    : near.map { "did you mean \(sign)\(command)|\($0)?" }
                        ?? "they are "
                        + known.map { String($0.dropFirst(command.count + 1)) }
                        .joined(separator: ", ")))
        return nil
    }

    private mutating func categoryRule(
        _ word: AccessWord, _ name: String, isAllowed: Bool
    ) -> AccessRule? {
        let sign = isAllowed ? "+@" : "-@"
        let known =
            AccessCommands.categories + (dialect >= .newest ? AccessCommands.moduleCategories : [])
        if keepsUnknownCommands || known.contains(name) {
            return .category(name, isAllowed: isAllowed)
        }
        let advice: String
        if lookUp(name) != nil {
            advice = "it is a command; write \(isAllowed ? "+" : "-")\(name)"
        } else if let near = suggestion(for: name, among: known) {
            advice = "did you mean \(sign)\(near)?"
        } else {
            advice = "they are \(known.joined(separator: ", "))"
        }
        error(word.offset, "wanted a category, got \(quoted(word.text)): \(advice)")
        return nil
    }

    private func lookUp(_ name: String) -> AccessCommands.Command? {
        AccessCommands.table[name].flatMap { $0.since <= dialect ? $0 : nil }
    }

    /// The command's name if it exists; an error otherwise.
    private mutating func knownCommand(
        _ name: String, _ word: AccessWord, _ sign: String
    ) -> String? {
        // Which commands of modules exist is the server's affair.
        if keepsUnknownCommands || lookUp(name) != nil { return name }
        if name.contains("."), dialect >= .newest { return name }
        let known = AccessCommands.table.values.filter { $0.since <= dialect }.map(\.name).sorted()
        let advice: String
        if AccessCommands.table[name] != nil {
            advice = "it came with a later version than the server's"
        } else if AccessCommands.categories.contains(name) {
            advice = "it is a category; write \(sign)@\(name)"
        } else if let near = suggestion(for: name, among: known) {
            advice = "did you mean \(sign)\(near)?"
        } else {
            advice =
                "correct it, or leave access_string out if the server is newer than this program"
        }
        error(word.offset, "wanted a command, got \(quoted(word.text)): \(advice)")
        return nil
    }

    private mutating func error(_ offset: Int, _ message: String) {
        problems.append(AccessProblem(severity: .error, offset: offset, message: message))
    }
}
