// What `users apply` says while it is under way: lines for people, or JSON for scripts, a line at a time.

import Configuration

/// Writes to standard output what would be changed, and what was.
struct UsersReport {
    let isJSON: Bool

    private struct Event: Encodable {
        struct Permissions: Encodable {
            let subject: String
            let inSelector: Bool
            let names: [String]

            enum CodingKeys: String, CodingKey {
                case subject, names
                case inSelector = "in_selector"
            }
        }

        var event: String
        var user: String?
        var place: String?
        var new: Bool?
        var more: [Permissions]?
        var less: [Permissions]?
        var authentication: [String]?
        var message: String?
    }

    func plan(_ account: any DeclaredAccount, _ change: any UserChange) {
        guard isJSON else { return planLines(account, change) }
        guard !change.isEmpty else {
            return write(
                Event(event: "unchanged", user: account.userName, place: account.place))
        }
        func permissions(
            _ names: (AccessDifference) -> [String]
        ) -> [Event.Permissions] {
            change.differences.filter { !names($0).isEmpty }.map {
                Event.Permissions(
                    subject: $0.subject.rawValue, inSelector: $0.isInSelector, names: names($0))
            }
        }
        write(
            Event(
                event: "plan", user: account.userName, place: account.place, new: change.isNew,
                more: permissions(\.missing), less: permissions(\.extra),
                authentication: change.authentication))
    }

    private func planLines(_ account: any DeclaredAccount, _ change: any UserChange) {
        guard !change.isEmpty else {
            return say(escaped("user \(account.userName) at \(account.place): as declared"))
        }
        say(
            escaped("user \(account.userName) at \(account.place):")
                + (change.isNew ? " new" : ""))
        for difference in change.differences {
            let subject =
                difference.subject.rawValue + (difference.isInSelector ? " in a selector" : "")
            for (sign, names) in [("+", difference.missing), ("-", difference.extra)]
            where !names.isEmpty {
                say("  \(sign) \(subject): \(AccessDifference.list(names))")
            }
        }
        for text in change.authentication { say("  ~ \(text)") }
    }

    func done(_ account: any DeclaredAccount, isNew: Bool) {
        guard !isJSON else {
            return write(
                Event(event: "done", user: account.userName, place: account.place, new: isNew))
        }
        say(
            escaped(
                "user \(account.userName) at \(account.place): \(isNew ? "created" : "changed")"))
    }

    func waiting(_ message: String) {
        guard !isJSON else { return write(Event(event: "waiting", message: message)) }
        say(escaped("waiting: \(message)"))
    }

    func warning(_ account: any DeclaredAccount, _ message: String) {
        guard !isJSON else {
            return write(
                Event(
                    event: "warning", user: account.userName, place: account.place,
                    message: message))
        }
        complain(escaped("warning: user \(account.userName) at \(account.place): \(message)"))
    }

    /// - Parameter message: holds no secret.
    func end(_ outcome: String, _ message: String) {
        guard !isJSON else { return write(Event(event: outcome, message: message)) }
        // What failed has been said on standard error.
        if outcome != "failed" { say(message) }
    }

    private func write(_ event: Event) {
        say(UsersCommand.json(event))
    }
}
