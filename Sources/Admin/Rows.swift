// An observation in rows, with names in the place of numbers: what metrics, the status document and the
// page are made of.

import Identity
import Proxy
import Server

/// Clients of one listener that are the same to the proxy.
struct SessionRow: Sendable {
    let listener: String
    /// The rule's; `not logged in` for those that have none yet.
    let principal: String
    /// The configuration's name of the user; empty for those that have not logged in.
    let user: String
    var tally: SessionTally
}

/// One user that clients can become.
struct UserRow: Sendable {
    let name: String
    let upstream: String
    let source: String
    let credential: CredentialReport
    let tally: UserTally
    /// There is something that may be sent.
    let hasCredential: Bool
    /// All in seconds.
    let credentialLeft: Double?
    let credentialAge: Double?
    let oldestLoginAge: Double?
    let nextRenewal: Double?
    /// How many connections are in which state, used for what.
    let connections: [(state: String, use: String, count: Int)]
}

extension Observation {
    var sessionRows: [SessionRow] {
        var rows: [SessionRow] = []
        func add(_ tallies: [SessionTally], _ listener: Int, _ principal: String, _ user: String) {
            let name = report.name(ofListener: listener)
            var sum = SessionTally()
            for tally in tallies { sum.add(tally) }
            let place = rows.firstIndex {
                ($0.listener, $0.principal, $0.user) == (name, principal, user)
            }
            if let place {
                rows[place].tally.add(sum)
            } else {
                rows.append(
                    SessionRow(listener: name, principal: principal, user: user, tally: sum))
            }
        }
        let tallies = report.workers.map(\.tally)
        for (number, route) in report.configuration.routes.enumerated() {
            add(
                tallies.compactMap {
                    $0.byRoute.indices.contains(number) ? $0.byRoute[number] : nil
                },
                route.listener, route.rule.principal,
                report.configuration.users[route.rule.user.rawValue].name)
        }
        for (number, listener) in report.configuration.listeners.enumerated()
        where listener.rules.contains(where: { $0.login != nil }) {
            add(
                tallies.compactMap {
                    $0.beforeLogin.indices.contains(number) ? $0.beforeLogin[number] : nil
                },
                number, "not logged in", "")
        }
        return rows
    }

    var userRows: [UserRow] {
        let now = report.takenAt
        let all = report.workers.flatMap(\.upstreams)
        return report.configuration.usersInUse.map { user in
            let (upstream, name) = report.names(of: user)
            let credential = report.credentials[user.rawValue]
            let left = credential.secondsLeft(at: now)
            let own = all.filter { $0.user == user }
            let loggedIn = own.compactMap { $0.loggedInAt?.nanoseconds }.min()
            let renewal = own.compactMap { $0.renewsAt?.nanoseconds }.min()
            var counts: [(state: String, use: String, count: Int)] = []
            for connection in own {
                let key = (connection.state.name, connection.use.name)
                if let place = counts.firstIndex(where: { ($0.state, $0.use) == key }) {
                    counts[place].count += 1
                } else {
                    counts.append((key.0, key.1, 1))
                }
            }
            return UserRow(
                name: name,
                upstream: upstream,
                source: report.configuration.users[user.rawValue].source,
                credential: credential,
                tally: report.tally(of: user),
                hasCredential: credential.isThere && left.map { $0 > 0 } ?? true,
                credentialLeft: left.map { max(0, $0) },
                credentialAge: credential.fetchedAt.map { seconds(from: $0, to: now) },
                oldestLoginAge: loggedIn.map { seconds(from: $0, to: now) },
                nextRenewal: renewal.map { seconds(from: now, to: $0) },
                connections: counts.sorted { ($0.use, $0.state) < ($1.use, $1.state) }
            )
        }
    }

    /// What is bounded in all workers together, and for one client or connection by the fullest.
    var limitFigures: [(name: String, allowed: Int, used: Int)] {
        let workers = report.workers
        let configured = max(1, report.configuration.threads)
        let waiting = workers.flatMap(\.upstreams).map(\.waiting).max() ?? 0
        return [
            ("max_sessions", report.maximumSessions, workers.reduce(0) { $0 + $1.sessionCount }),
            (
                "max_sessions_before_login", report.configuration.maximumSessionsBeforeLogin,
                workers.reduce(0) { $0 + $1.awaitingLoginCount }
            ),
            (
                "max_pinned", report.limits.maximumPinned * configured,
                workers.reduce(0) { $0 + $1.pinnedCount }
            ),
            ("upstream_buffer_bytes", report.limits.upstreamBuffer, waiting),
            (
                "reply_buffer_bytes", report.limits.replyBuffer,
                workers.map(\.fullestClient).max() ?? 0
            ),
        ]
    }
}

private func seconds(from earlier: UInt64, to later: UInt64) -> Double {
    Double(later - min(later, earlier)) / 1e9
}

extension ServerReport {
    /// Where a listener is bound; for one that is closed, where it was to be.
    func name(ofListener number: Int) -> String {
        let endpoint = configuration.listeners[number].endpoint
        if case .tcp(_, 0) = endpoint, let bound = addresses[number].first { return "\(bound)" }
        return "\(endpoint)"
    }

    /// The configuration's names.
    func names(of user: UserIndex) -> (upstream: String, user: String) {
        let user = configuration.users[user.rawValue]
        return (configuration.targets[user.target].name, user.name)
    }
}

extension Upstream.State {
    /// In words without spaces.
    var name: String {
        switch self {
        case .loggingIn: "logging_in"
        case .idle, .connecting, .ready, .waiting, .gone: "\(self)"
        }
    }
}

extension UpstreamStatus.Use {
    /// In one word.
    var name: String {
        switch self {
        case .shared: "shared"
        case .retired: "retired"
        case .own: "own"
        case .spare: "spare"
        case .second: "second"
        }
    }
}
