// Whether clients would be served: the answer to /startup, /ready and /live.
//
//     live     the workers' loops answer
//     started  listening, and each user has logged in once
//     ready    live, listening, and each user's last login was accepted and its credential lasts
//
// A connection that was lost is no reason against: the next command brings up another, and if that
// fails, its login is the user's last, and was not accepted.

import Identity
package import Server

/// What stands against an answer of yes; nothing does if it is empty.
package struct Readiness: Sendable, Equatable {
    /// A token that may be sent for less than this is about to lapse. Tokens are replaced when they
    /// are a minute old, of fifteen.
    static let leastSecondsLeft = 30.0

    /// One reason, with what it is about.
    package struct Obstacle: Sendable, Equatable {
        package let subject: String
        package let reason: String
    }

    /// Against /live.
    package private(set) var stalled: [Obstacle] = []
    /// Against /startup.
    package private(set) var unstarted: [Obstacle] = []
    /// Against /ready, those of the other two included.
    package private(set) var obstacles: [Obstacle] = []

    package init(_ report: ServerReport) {
        for worker in report.late {
            stalled.append(
                Obstacle(subject: "worker \(worker)", reason: "its loop does not answer"))
        }
        let configuration = report.configuration
        let open = configuration.listeners.indices.filter(configuration.isOpen(listener:))
        for listener in open where report.addresses[listener].isEmpty {
            unstarted.append(
                Obstacle(
                    subject: "listener \(configuration.listeners[listener].endpoint)",
                    reason: "it is not bound"))
        }
        obstacles = stalled + unstarted
        if report.isDraining {
            obstacles.append(Obstacle(subject: "proxy", reason: "it is draining"))
        }
        for user in configuration.usersInUse {
            judge(user, report)
        }
    }

    private mutating func judge(_ user: UserIndex, _ report: ServerReport) {
        let name = "user \(report.configuration.users[user.rawValue].name)"
        let credential = report.credentials[user.rawValue]
        let tally = report.tally(of: user)
        var reasons: [String] = []
        if !credential.isThere {
            reasons.append(
                "there is no credential: \(credential.failure ?? "none has been fetched yet")")
        } else if let left = credential.secondsLeft(at: report.takenAt),
            left < Self.leastSecondsLeft
        {
            let why = credential.failure.map { ": \($0)" } ?? ""
            reasons.append(
                left > 0
                    ? "its token may be sent for \(Int(left)) s more\(why)"
                    : "its token has expired\(why)")
        }
        switch tally.outcome {
        case .accepted: break
        case .failed(let kind):
            reasons.append(
                "its last login failed (\(kind.rawValue)): \(tally.failure ?? "no reason is known")"
            )
        case nil where report.configuration.isOnlyDedicated(user): break
        case nil: reasons.append("it has not logged in yet")
        }
        if tally.logins == 0 && !report.configuration.isOnlyDedicated(user) {
            unstarted.append(
                Obstacle(subject: name, reason: reasons.last ?? "it has not logged in yet"))
        }
        obstacles += reasons.map { Obstacle(subject: name, reason: $0) }
    }
}

extension ServerConfiguration {
    /// The users that a client can become.
    var usersInUse: [UserIndex] {
        let users = Set(routes.filter { !$0.isRetired }.map { $0.rule.user.rawValue })
        return users.sorted().map { UserIndex($0) }
    }

    /// Nobody logs in as this user before a client comes.
    func isOnlyDedicated(_ user: UserIndex) -> Bool {
        routes.allSatisfy { $0.isRetired || $0.rule.user != user || $0.isDedicated }
    }
}

extension ServerReport {
    /// What all workers have counted of a user's logins, and the last word of any.
    func tally(of user: UserIndex) -> UserTally {
        var sum = UserTally()
        for worker in workers where user.rawValue < worker.tally.byUser.count {
            sum.add(worker.tally.byUser[user.rawValue])
        }
        return sum
    }
}

extension CredentialReport {
    /// For how long a token may still be sent; nil for what does not expire.
    func secondsLeft(at now: UInt64) -> Double? {
        usableUntil.map { (Double($0) - Double(now)) / 1e9 }
    }
}
