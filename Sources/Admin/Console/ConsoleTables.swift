// What SHOW shows: the data plane's report in tables. No secret is in a report.

import Configuration
import Identity
import Proxy
import Server

/// One question's answer, laid out.
struct ConsoleTables {
    let report: ServerReport
    let isPaused: [Bool]

    private var configuration: ServerConfiguration { report.configuration }

    private func user(_ index: UserIndex) -> UpstreamUser { configuration.users[index.rawValue] }

    /// How sessions and connections are named here and in the log: with their worker, if there are
    /// several.
    private func number(_ worker: Int, _ number: UInt64) -> String {
        configuration.threads > 1 ? "\(worker):\(number)" : "\(number)"
    }

    /// Whole seconds since a moment.
    private func seconds(since moment: UInt64?) -> Cell {
        guard let moment else { return .none }
        return .count((report.takenAt &- min(report.takenAt, moment)) / 1_000_000_000)
    }

    private func seconds(until moment: UInt64?) -> Cell {
        guard let moment else { return .none }
        return .count((moment &- min(report.takenAt, moment)) / 1_000_000_000)
    }

    var clients: ConsoleTable {
        var table = ConsoleTable(
            "session", "client", "listener", "principal", "user", "lane", "db", "resp", "commands",
            "owed", "waiting_bytes", "unsent_bytes", "received_bytes", "sent_bytes", "age_s",
            "idle_s",
            "paused")
        for session in report.workers.flatMap(\.sessions) {
            let status = session.status
            let rule = status.route.map { configuration.routes[$0].rule }
            table.add(
                .text(number(session.worker, status.id)),
                .text("\(session.client)"),
                .text("\(configuration.listeners[session.listener].endpoint)"),
                .text(rule.map { "\($0.principal)" }),
                .text(rule.map { user($0.user).name }),
                .text(status.pin.map { "own:\($0.reason.name)" } ?? "shared"),
                .number(status.database),
                .number(status.protocolVersion),
                .count(status.commands),
                .number(status.owedReplies),
                .number(status.waiting),
                .number(status.unsent),
                .count(session.received),
                .count(session.sent),
                seconds(since: session.openedAt),
                seconds(since: status.lastReceived?.nanoseconds ?? session.openedAt),
                .flag(rule.map { paused($0.user) } ?? false)
            )
        }
        return table
    }

    private func paused(_ user: UserIndex) -> Bool {
        isPaused.indices.contains(user.rawValue) && isPaused[user.rawValue]
    }

    var users: ConsoleTable {
        var table = ConsoleTable(
            "user", "upstream", "user_name", "sessions", "shared", "own", "spare", "logins",
            "login_failures", "last_failure", "paused")
        let upstreams = report.workers.flatMap(\.upstreams)
        for (index, user) in configuration.users.enumerated() where isInUse(UserIndex(index)) {
            let index = UserIndex(index)
            let routes = configuration.routes.indices.filter {
                configuration.routes[$0].rule.user == index
            }
            let sessions = report.workers.reduce(0) { sum, worker in
                routes.reduce(sum) { $0 + worker.tally.byRoute[$1].open }
            }
            let own = upstreams.filter { $0.user == index }
            let tallies = report.workers.compactMap { worker in
                worker.tally.byUser.indices.contains(index.rawValue)
                    ? worker.tally.byUser[index.rawValue] : nil
            }
            table.add(
                .text(user.name),
                .text(configuration.targets[user.target].name),
                .text(user.userName),
                .number(sessions),
                .number(own.count { $0.use == .shared || $0.use == .retired }),
                .number(own.count { if case .own = $0.use { true } else { $0.use == .second } }),
                .number(own.count { $0.use == .spare }),
                .count(tallies.reduce(0) { $0 &+ $1.logins }),
                .count(tallies.reduce(0) { $0 &+ $1.loginFailures.reduce(0, &+) }),
                .text(tallies.compactMap(\.failure).last),
                .flag(paused(index))
            )
        }
        return table
    }

    /// Users that a reload took away keep their number.
    private func isInUse(_ user: UserIndex) -> Bool {
        configuration.routes.contains { $0.rule.user == user && !$0.isRetired }
    }

    var upstreams: ConsoleTable {
        var table = ConsoleTable(
            "connection", "upstream", "address", "user", "state", "use", "session", "db", "resp",
            "owed", "waiting_bytes", "logged_in_s", "renews_in_s", "ends_in_s")
        for worker in report.workers {
            for upstream in worker.upstreams {
                let user = user(upstream.user)
                let target = configuration.targets[user.target]
                var session: Cell = .none
                let use: String
                switch upstream.use {
                case .shared: use = "shared"
                case .retired: use = "retired"
                case .spare: use = "spare"
                case .second: use = "second"
                case .own(let owner, let reason):
                    use = "own:\(reason.name)"
                    session = .text(number(worker.worker, owner))
                }
                table.add(
                    .text(number(worker.worker, upstream.id)),
                    .text(target.name),
                    .text("\(target.host):\(target.port)"),
                    .text(user.name),
                    .text("\(upstream.state)"),
                    .text(use),
                    session,
                    .number(upstream.database),
                    .number(upstream.protocolVersion),
                    .number(upstream.owedReplies),
                    .number(upstream.waiting),
                    seconds(since: upstream.loggedInAt?.nanoseconds),
                    seconds(until: upstream.renewsAt?.nanoseconds),
                    seconds(until: upstream.loginEndsAt?.nanoseconds)
                )
            }
        }
        return table
    }

    var credentials: ConsoleTable {
        var table = ConsoleTable(
            "user", "source", "kind", "version", "origin", "fetched_s", "usable_s", "failure")
        for (index, credential) in report.credentials.enumerated()
        where index < configuration.users.count && isInUse(UserIndex(index)) {
            table.add(
                .text(configuration.users[index].name),
                .text(configuration.users[index].source),
                .text(credential.isThere ? (credential.isToken ? "token" : "password") : "none"),
                .count(credential.version),
                .text(credential.origin),
                seconds(since: credential.fetchedAt),
                seconds(until: credential.usableUntil),
                .text(credential.failure)
            )
        }
        return table
    }

    var listeners: ConsoleTable {
        var table = ConsoleTable(
            "listener", "bound_to", "mode", "rules", "sessions", "before_login")
        for (index, listener) in configuration.listeners.enumerated()
        where report.addresses.indices.contains(index) && !report.addresses[index].isEmpty {
            let routes = configuration.routesOfListener[index]
            table.add(
                .text("\(listener.endpoint)"),
                .text(report.addresses[index].map { "\($0)" }.joined(separator: " ")),
                .text(listener.isDedicated ? "dedicated" : "multiplexed"),
                .number(listener.rules.count),
                .number(
                    report.workers.reduce(0) { sum, worker in
                        routes.reduce(sum) { $0 + worker.tally.byRoute[$1].open }
                    }),
                .number(report.workers.reduce(0) { $0 + $1.tally.beforeLogin[index].open })
            )
        }
        return table
    }

    /// Counts since the start, and what there is now, of all workers.
    var stats: ConsoleTable {
        var table = ConsoleTable("name", "value")
        let tallies = report.workers.flatMap { $0.tally.byRoute + $0.tally.beforeLogin }
        let users = report.workers.flatMap(\.tally.byUser)
        func add(_ name: String, _ value: UInt64) { table.add(.text(name), .count(value)) }
        func total(_ member: (SessionTally) -> UInt64) -> UInt64 {
            tallies.reduce(0) { $0 &+ member($1) }
        }
        add("workers", UInt64(report.workers.count))
        add("sessions", total { UInt64($0.open) })
        add("sessions_with_own_connection", total { UInt64($0.pinned) })
        add("sessions_opened", total { $0.opened })
        for reason in CloseReason.allCases {
            let count = total { $0.closed[Int(reason.rawValue)] }
            if count > 0 { add("sessions_closed_\(reason)", count) }
        }
        add(
            "sessions_refused",
            UInt64(
                report.refused.noRule + report.refused.full
                    + report.refused.ruleFull + report.refused.beforeLoginFull))
        add("commands", total { $0.commands })
        add("bytes_received", total { $0.received })
        add("bytes_sent", total { $0.sent })
        add("replies_owed", total { UInt64($0.owedReplies) })
        add("logins", users.reduce(0) { $0 &+ $1.logins })
        add("logins_failed", users.reduce(0) { $0 &+ $1.loginFailures.reduce(0, &+) })
        add("logins_renewed", users.reduce(0) { $0 &+ $1.renewals })
        add("renewals_failed", users.reduce(0) { $0 &+ $1.renewalFailures.reduce(0, &+) })
        add("connections_lost", users.reduce(0) { $0 &+ $1.lost })
        add("commands_given_up", users.reduce(0) { $0 &+ $1.commandsGivenUp })
        return table
    }

    /// What is bounded, how much of it is in use, and where it is set.
    var limits: ConsoleTable {
        var table = ConsoleTable("limit", "in_use", "at_most", "waiting")
        let workers = report.workers
        table.add(
            .text("max_sessions"),
            .number(workers.reduce(0) { $0 + $1.sessionCount }),
            .number(report.maximumSessions),
            .none)
        table.add(
            .text("max_sessions_before_login"),
            .number(workers.reduce(0) { $0 + $1.awaitingLoginCount }),
            .number(configuration.maximumSessionsBeforeLogin),
            .none)
        table.add(
            .text("max_pinned"),
            .number(workers.reduce(0) { $0 + $1.pinnedCount }),
            .number(report.limits.maximumPinned * configuration.threads),
            .number(workers.reduce(0) { $0 + $1.waiting.pin }))
        for route in configuration.routes.indices {
            let rule = configuration.routes[route]
            guard !rule.isRetired, let most = rule.rule.maximumSessions else { continue }
            table.add(
                .text("max_sessions of \(rule.rule.principal)"),
                .number(workers.reduce(0) { $0 + $1.tally.byRoute[route].open }),
                .number(most),
                .none)
        }
        return table
    }

    static func config(_ settings: Settings) -> ConsoleTable {
        var table = ConsoleTable("key", "value", "default")
        for row in settings.inUse {
            table.add(.text(row.key), .text(row.value), .text(row.defaultText))
        }
        return table
    }
}
