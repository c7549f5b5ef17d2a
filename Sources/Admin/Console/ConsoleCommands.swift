// The commands of the console: what each is called, what it wants, and what it does.
//
//     words ──► Command ──► SHOW: a report, laid out
//                      └──► an order: told to every worker, and what came of it
//
// A word may be written in any case. An error says what was wanted and what was got.

package import Configuration
import Glibc
import Identity
import Proxy
package import Server

/// What the console can have done. Called on threads of the console's; may block.
package struct ConsoleActions: Sendable {
    package typealias Problems = [String]

    let report: @Sendable (_ sessionLimit: Int) -> ServerReport
    let carryOut: @Sendable (Order) -> OrderAnswer
    let settings: @Sendable () -> Settings
    let reload: @Sendable () -> Problems
    let drain: @Sendable () -> Void

    /// - Parameters:
    ///   - report: what the data plane does.
    ///   - settings: those in use.
    ///   - reload: reads the configuration again and goes over to it; says what was wrong, or nothing.
    ///   - drain: begins to drain; returns at once.
    package init(
        report: @escaping @Sendable (_ sessionLimit: Int) -> ServerReport,
        carryOut: @escaping @Sendable (Order) -> OrderAnswer,
        settings: @escaping @Sendable () -> Settings,
        reload: @escaping @Sendable () -> Problems,
        drain: @escaping @Sendable () -> Void
    ) {
        self.report = report
        self.carryOut = carryOut
        self.settings = settings
        self.reload = reload
        self.drain = drain
    }
}

/// See the head of this file.
struct ConsoleCommands: Sendable {
    /// How many clients SHOW CLIENTS shows of each worker.
    static let mostClients = 10_000
    /// How long PAUSE waits for what is under way.
    static let patience: Duration = .seconds(10)

    let actions: ConsoleActions

    static let help = [
        "SHOW CLIENTS                 sessions: who, from where, doing what",
        "SHOW USERS                   users of the configuration, and whether they are paused",
        "SHOW UPSTREAMS               connections to servers",
        "SHOW CREDENTIALS             what the proxy logs in with: where from, how old",
        "SHOW LISTENERS               where clients connect",
        "SHOW STATS                   counts since the start",
        "SHOW CONFIG                  the settings in use",
        "SHOW LIMITS                  what is bounded, and how much of it is in use",
        "PAUSE [USER|UPSTREAM]        hold commands back; OK when nothing is under way any more",
        "RESUME [USER|UPSTREAM]       connect anew, and let the commands go",
        "RECONNECT [USER|UPSTREAM]    replace upstream connections, each when that harms nobody",
        "RENEW [USER|UPSTREAM]        fetch credentials anew, and log in again where connected",
        "KILL SESSION                 end one client, by its number in SHOW CLIENTS",
        "RELOAD                       read the configuration again, as on SIGHUP",
        "DRAIN                        let sessions finish and exit, as on SIGTERM",
        "PING, HELLO 2|3, QUIT",
    ]

    private static let subjects = [
        "CLIENTS", "USERS", "UPSTREAMS", "CREDENTIALS", "LISTENERS", "STATS", "CONFIG", "LIMITS",
        "HELP",
    ]

    /// Does what a request wants. `words` has one at least.
    func answer(_ words: [String]) -> ConsoleReply {
        let name = words[0].uppercased()
        let arguments = Array(words.dropFirst())
        switch (name, arguments.count) {
        case ("SHOW", 1): return show(arguments[0])
        case ("SHOW", _):
            return .error(
                "SHOW: wanted one of \(list(Self.subjects)), got \(arguments.count) words")
        case ("HELP", _): return .lines(Self.help)
        case ("PING", 0): return .status("PONG")
        case ("PING", 1): return .status(arguments[0])
        case ("COMMAND", _): return .nothing
        case ("PAUSE", 0...1): return about(arguments.first, pause)
        case ("RESUME", 0...1):
            return about(arguments.first) { tell(Order(.resume, users: $0)) }
        case ("RECONNECT", 0...1):
            return about(arguments.first) { tell(Order(.reconnect, users: $0)) }
        case ("RENEW", 0...1): return about(arguments.first) { tell(Order(.renew, users: $0)) }
        case ("PAUSE", _), ("RESUME", _), ("RECONNECT", _), ("RENEW", _):
            return .error(
                "\(name): wanted the name of a user or an upstream, or none, got"
                    + " \(arguments.count) words")
        case ("KILL", 1): return kill(arguments[0])
        case ("KILL", _):
            return .error("KILL: wanted the number of a session, got \(arguments.count) words")
        case ("RELOAD", 0):
            let problems = actions.reload()
            return problems.isEmpty
                ? .status("OK")
                : .error("reload refused, nothing has changed: \(list(problems, "; "))")
        case ("DRAIN", 0):
            actions.drain()
            return .status("OK")
        default:
            return .error("wanted a command that SHOW HELP shows, got '\(words[0].prefix(64))'")
        }
    }

    private func list(_ words: [String], _ separator: String = ", ") -> String {
        words.joined(separator: separator)
    }

    private func show(_ subject: String) -> ConsoleReply {
        switch subject.uppercased() {
        case "HELP": return .lines(Self.help)
        case "CONFIG": return .table(ConsoleTables.config(actions.settings()))
        case "CLIENTS": return .table(tables(sessionLimit: Self.mostClients).clients)
        case "USERS": return .table(tables().users)
        case "UPSTREAMS": return .table(tables().upstreams)
        case "CREDENTIALS": return .table(tables().credentials)
        case "LISTENERS": return .table(tables().listeners)
        case "STATS": return .table(tables().stats)
        case "LIMITS": return .table(tables().limits)
        default:
            return .error(
                "SHOW: wanted one of \(list(Self.subjects)), got '\(subject.prefix(64))'")
        }
    }

    private func tables(sessionLimit: Int = 0) -> ConsoleTables {
        ConsoleTables(
            report: actions.report(sessionLimit), isPaused: actions.carryOut(Order(.look)).isPaused)
    }

    // MARK: Orders

    /// Finds out who is meant.
    private func about(
        _ name: String?, _ body: (_ users: [UserIndex]?) -> ConsoleReply
    ) -> ConsoleReply {
        guard let name else { return body(nil) }
        let configuration = actions.report(0).configuration
        let users = configuration.users.indices.filter {
            let user = configuration.users[$0]
            return user.name == name || configuration.targets[user.target].name == name
        }
        guard !users.isEmpty else {
            let names = configuration.users.map(\.name) + configuration.targets.map(\.name)
            let known = Array(Set(names)).sorted()
            return .error(
                "wanted the name of a user or an upstream (\(list(known))), got '\(name.prefix(64))'"
            )
        }
        return body(users.map { UserIndex($0) })
    }

    private func tell(_ order: Order) -> ConsoleReply {
        let answer = actions.carryOut(order)
        return answer.late == 0
            ? .status("OK")
            : .error(
                "\(answer.late) workers have not answered in time: they are busy, and will do it as"
                    + " soon as they can")
    }

    private func pause(_ users: [UserIndex]?) -> ConsoleReply {
        var answer = actions.carryOut(Order(.pause, users: users))
        let end = ContinuousClock.now + Self.patience
        while !answer.isSettled && ContinuousClock.now < end {
            usleep(2_000)
            answer = actions.carryOut(Order(.look, users: users))
        }
        let rest = answer.unfinished
        guard answer.isSettled else {
            return .error(
                "paused, but after \(Self.patience) there are still under way: \(rest.commands)"
                    + " commands, \(rest.clients) clients in a transaction, a watch or an upload,"
                    + " \(answer.late) workers that do not answer")
        }
        return rest.blocking == 0
            ? .status("OK")
            : .status("OK, and \(rest.blocking) commands are blocked at the server, as BLPOP does")
    }

    private func kill(_ text: String) -> ConsoleReply {
        let threads = actions.report(0).configuration.threads
        let parts = text.split(separator: ":", omittingEmptySubsequences: false)
        let numbers = parts.compactMap { UInt64($0) }
        let isWhole = numbers.count == parts.count
        guard isWhole, numbers.count == 2 || (numbers.count == 1 && threads == 1),
            let session = numbers.last, numbers[0] < UInt64(Int32.max) || numbers.count == 1
        else {
            return .error(
                "KILL: wanted the number of a session as SHOW CLIENTS shows it"
                    + "\(threads > 1 ? " (WORKER:NUMBER)" : ""), got '\(text.prefix(64))'")
        }
        let worker = numbers.count == 2 ? Int(numbers[0]) : 0
        let answer = actions.carryOut(Order(.kill(worker: worker, session: session)))
        return answer.found ? .status("OK") : .error("KILL: there is no session \(text)")
    }
}

extension OrderAnswer {
    /// All workers have answered, and nothing is under way that a pause would wait for.
    fileprivate var isSettled: Bool {
        late == 0 && unfinished.commands == 0 && unfinished.clients == 0
    }
}
