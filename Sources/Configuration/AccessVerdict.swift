// Whether an access string allows a command, and by which of its rules.
//
//   command allowed? ──no──► denied: by the last rule that is about it, or by none
//        │ yes
//   each key fits a pattern that allows what is done with it? ──no──► denied: the key
//        │ yes
//   each channel fits a pattern? ──no──► denied: the channel
//        │ yes
//      allowed
//
// So for the user itself, and for each selector: one that allows all of it suffices. Where none does, the
// one that came furthest says why.
//
// Source: acl.c of Redis 7.0, ACLSelectorCheckCmd and ACLCheckAllUserCommandPerm.

/// What an access string says to one command.
package struct AccessVerdict: Sendable, Equatable {
    package let isAllowed: Bool
    /// Such as `by +@read at character 12; key app:1 (read) by ~app:* at character 4`.
    package let reason: String
    /// The rules that decided, as written, with the characters before each.
    package let rules: [PlacedAccessRule]

    /// - Parameter keys: what the command uses; from a server, or `AccessRequest.keys`.
    package init(
        _ access: AccessString, _ request: AccessRequest, keys: [AccessKeyUse],
        dialect: AccessDialect = .newest
    ) {
        if request.needsNoPermission {
            self.init(
                isAllowed: true, reason: "\(request.name) needs no permission, as logins do not",
                rules: [])
            return
        }
        let judges = AccessJudge.all(access.rules, dialect)
        let findings = judges.map { $0.judge(request, keys, dialect) }
        let decisive =
            findings.first { $0.progress == .allowed }
            ?? findings.enumerated().max { left, right in
                // Of those that came equally far the first.
                (left.element.progress.rawValue, -left.offset)
                    < (right.element.progress.rawValue, -right.offset)
            }?.element
        guard let decisive else {
            self.init(isAllowed: false, reason: "no rule allows anything", rules: [])
            return
        }
        self.init(
            isAllowed: decisive.progress == .allowed, reason: decisive.reason,
            rules: decisive.rules)
    }

    private init(isAllowed: Bool, reason: String, rules: [PlacedAccessRule]) {
        self.isAllowed = isAllowed
        self.reason = reason
        self.rules = rules
    }
}

/// The rules of the user itself or of one selector.
private struct AccessJudge {
    enum Progress: Int {
        case command
        case key
        case channel
        case allowed
    }

    struct Finding {
        let progress: Progress
        let reason: String
        let rules: [PlacedAccessRule]
    }

    /// Where it is said that it is a selector; empty for the user itself.
    let place: String
    var rules: [PlacedAccessRule]

    /// The user itself, and its selectors in their order; what `reset` undoes is gone.
    static func all(_ rules: [PlacedAccessRule], _ dialect: AccessDialect) -> [AccessJudge] {
        var root = AccessJudge(place: "", rules: [])
        var selectors: [AccessJudge] = []
        for placed in rules {
            switch placed.rule {
            case .selector(let inner):
                selectors.append(
                    AccessJudge(
                        place: " in the selector at character \(placed.offset + 1)", rules: inner))
            case .clearSelectors: selectors = []
            case .reset:
                root.rules = []
                selectors = []
            default: root.rules.append(placed)
            }
        }
        return [root] + selectors
    }

    func judge(
        _ request: AccessRequest, _ keys: [AccessKeyUse], _ dialect: AccessDialect
    ) -> Finding {
        let command = judgeCommand(request, dialect)
        guard let rule = command.allowedBy else {
            return Finding(
                progress: .command, reason: command.reason,
                rules: command.deniedBy.map { [$0] } ?? [])
        }
        var reasons = ["by \(text(rule))"]
        var used = [rule]
        let allKeys = lastPatterns(
            isAll: { $0 == .allKeys }, isNone: { $0 == .resetKeys },
            isPattern: { if case .keys = $0 { true } else { false } })
        for key in keys where allKeys.all == nil {
            switch judgeKey(key, allKeys.patterns) {
            case .success(let rule):
                reasons.append("key \(shown(key)) by \(text(rule))")
                used.append(rule)
            case .failure(let denial):
                return Finding(progress: .key, reason: denial.reason, rules: denial.rules)
            }
        }
        if let rule = allKeys.all, !keys.isEmpty {
            reasons.append(
                "\(keys.count == 1 ? "its key" : "its \(keys.count) keys") by \(text(rule))")
            used.append(rule)
        }
        // Before 6.2 there were no permissions of channels.
        guard dialect >= .redis62 else { return allowed(reasons, used) }
        let allChannels = lastPatterns(
            isAll: { $0 == .allChannels }, isNone: { $0 == .resetChannels },
            isPattern: { if case .channels = $0 { true } else { false } })
        for (channel, isPattern) in request.channels where allChannels.all == nil {
            let rule = allChannels.patterns.first { placed in
                guard case .channels(let pattern) = placed.rule else { return false }
                // A pattern is allowed where it is allowed literally.
                return isPattern
                    ? Array(pattern.utf8) == channel : AccessPattern(pattern).matches(channel)
            }
            guard let rule else {
                let what = "\(isPattern ? "channel pattern" : "channel") \(shown(channel))"
                return Finding(
                    progress: .channel,
                    reason: allChannels.patterns.isEmpty
                        ? "\(what): no channel is allowed\(place)"
                        : "\(what) \(isPattern ? "is none of" : "matches none of")"
                            + " \(list(allChannels.patterns))\(place)",
                    rules: allChannels.patterns)
            }
            reasons.append("channel \(shown(channel)) by \(text(rule))")
            used.append(rule)
        }
        if let rule = allChannels.all, !request.channels.isEmpty {
            reasons.append("its channels by \(text(rule))")
            used.append(rule)
        }
        return allowed(reasons, used)
    }

    private func allowed(_ reasons: [String], _ rules: [PlacedAccessRule]) -> Finding {
        Finding(
            progress: .allowed, reason: reasons.joined(separator: "; ") + place, rules: rules)
    }

    // MARK: Commands

    private struct CommandFinding {
        var allowedBy: PlacedAccessRule?
        var deniedBy: PlacedAccessRule?
        var reason = ""
    }

    private func judgeCommand(
        _ request: AccessRequest, _ dialect: AccessDialect
    ) -> CommandFinding {
        // Before subcommands were commands, rules were about the whole command.
        let name =
            dialect >= .redis7
            ? request.name : request.name.split(separator: "|").first.map(String.init) ?? ""
        var allowedBy: PlacedAccessRule?
        var deniedBy: PlacedAccessRule?
        var firstArguments: [(argument: String, rule: PlacedAccessRule)] = []
        for placed in rules {
            let isAllowed: Bool
            switch placed.rule {
            case .category(let category, let allows):
                guard AccessScope.commands(in: category, dialect).contains(name) else { continue }
                isAllowed = allows
            case .command(let command, let allows):
                guard AccessScope.commands(named: command, dialect).contains(name) else { continue }
                isAllowed = allows
            case .firstArgument(let command, let argument):
                if command == name, allowedBy == nil { firstArguments.append((argument, placed)) }
                continue
            default: continue
            }
            firstArguments = []
            allowedBy = isAllowed ? placed : nil
            deniedBy = isAllowed ? nil : placed
        }
        if let allowedBy { return CommandFinding(allowedBy: allowedBy) }
        // The first argument of a subcommand is the word behind it.
        let position = name.contains("|") ? 2 : 1
        let argument =
            request.words.count > position
            ? String(decoding: request.words[position], as: UTF8.self).lowercased() : nil
        if let found = firstArguments.first(where: { $0.argument == argument }) {
            return CommandFinding(allowedBy: found.rule)
        }
        let spoken = request.name.replacing("|", with: " ")
        if !firstArguments.isEmpty {
            return CommandFinding(
                deniedBy: firstArguments[0].rule,
                reason: "\(spoken) is allowed with the first argument of"
                    + " \(list(firstArguments.map(\.rule))) only\(place)")
        }
        if let deniedBy {
            return CommandFinding(deniedBy: deniedBy, reason: "by \(text(deniedBy))\(place)")
        }
        return CommandFinding(reason: "no rule allows \(spoken)\(place)")
    }

    // MARK: Keys

    private struct Denial: Error {
        let reason: String
        let rules: [PlacedAccessRule]
    }

    private func judgeKey(
        _ use: AccessKeyUse, _ patterns: [PlacedAccessRule]
    ) -> Result<PlacedAccessRule, Denial> {
        // What several rules say of the same pattern is one permission.
        var permissions: [String: (mayRead: Bool, mayWrite: Bool)] = [:]
        for case .keys(let pattern, let mayRead, let mayWrite) in patterns.map(\.rule) {
            let before = permissions[pattern] ?? (false, false)
            permissions[pattern] = (before.mayRead || mayRead, before.mayWrite || mayWrite)
        }
        var matching: [PlacedAccessRule] = []
        for placed in patterns {
            guard case .keys(let pattern, _, _) = placed.rule,
                AccessPattern(pattern).matches(use.key), let may = permissions[pattern]
            else { continue }
            if (may.mayRead || !use.reads) && (may.mayWrite || !use.writes) {
                return .success(placed)
            }
            matching.append(placed)
        }
        if patterns.isEmpty {
            return .failure(
                Denial(reason: "key \(shown(use)): no key is allowed\(place)", rules: []))
        }
        guard matching.isEmpty else {
            return .failure(
                Denial(
                    reason: "key \(shown(use)): \(list(matching)) does not allow that\(place)",
                    rules: matching))
        }
        return .failure(
            Denial(
                reason: "key \(shown(use)) matches none of \(list(patterns))\(place)",
                rules: patterns))
    }

    /// The rule that allows everything, or the patterns that are left.
    private func lastPatterns(
        isAll: (AccessRule) -> Bool, isNone: (AccessRule) -> Bool, isPattern: (AccessRule) -> Bool
    ) -> (all: PlacedAccessRule?, patterns: [PlacedAccessRule]) {
        var all: PlacedAccessRule?
        var patterns: [PlacedAccessRule] = []
        for placed in rules {
            if isAll(placed.rule) {
                all = placed
                patterns = []
            } else if isNone(placed.rule) {
                all = nil
                patterns = []
            } else if isPattern(placed.rule) {
                patterns.append(placed)
            }
        }
        return (all, patterns)
    }

    // MARK: Words

    private func text(_ placed: PlacedAccessRule) -> String {
        "\(escaped(placed.text)) at character \(placed.offset + 1)"
    }

    private func list(_ rules: [PlacedAccessRule]) -> String {
        AccessDifference.list(rules.map(\.text))
    }

    private func shown(_ use: AccessKeyUse) -> String {
        let what =
            switch (use.reads, use.writes) {
            case (true, true): "read and write"
            case (true, false): "read"
            case (false, true): "write"
            // Such as EXISTS: any permission on the key will do.
            case (false, false): "any access"
            }
        return "\(shown(use.key)) (\(what))"
    }

    private func shown(_ bytes: [UInt8]) -> String {
        let text = String(decoding: bytes.prefix(60), as: UTF8.self)
        return escaped(bytes.count > 60 ? text + "…" : text)
    }
}
