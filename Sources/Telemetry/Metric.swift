// The table of metrics: every name that is exposed, with what it counts and by which labels.
//
//     Metric ──► MetricTable.all ──► /metrics, the alert rules' test, the documentation
//
// Names are redis_auth_proxy_<noun>_<unit>[_total]. A metric that is not here is not exposed.
//
// Invariant: the values of labels come from the configuration or from an enumeration of ours. Nothing
// that a client says, a name it logs in with included, is a label: a hostile client must not be able to
// make a series.

/// One metric: a name and the meaning of its samples.
package struct Metric: Sendable, Hashable {
    package enum Kind: String, Sendable {
        case counter
        case gauge
        case histogram
    }

    package let name: String
    package let kind: Kind
    /// nil: a plain number.
    package let unit: String?
    package let help: String
    package let labels: [String]

    fileprivate init(
        _ noun: String, _ kind: Kind, unit: String? = nil, by labels: [String] = [], _ help: String
    ) {
        let parts = [MetricTable.prefix, noun, unit, kind == .counter ? "total" : nil]
        name = parts.compactMap { $0 }.joined(separator: "_")
        self.kind = kind
        self.unit = unit
        self.help = help
        self.labels = labels
    }
}

/// All metrics there are.
package enum MetricTable {
    package static let prefix = "redis_auth_proxy"

    private static let rule = ["listener", "principal", "user"]

    // MARK: The process

    package static let buildInfo = Metric(
        "build_info", .gauge, by: ["version"], "1, with the version of the program.")
    package static let startTime = Metric(
        "start_time", .gauge, unit: "seconds", "When the process started, in Unix time.")
    package static let cpu = Metric(
        "cpu", .counter, unit: "seconds", "CPU time of the process, user and system.")
    package static let memory = Metric(
        "resident_memory", .gauge, unit: "bytes", "Memory of the process that is in RAM.")
    package static let openDescriptors = Metric(
        "open_fds", .gauge, "File descriptors that are open.")
    package static let maximumDescriptors = Metric(
        "max_fds", .gauge, "File descriptors that may be open.")
    package static let ready = Metric(
        "ready", .gauge, "1 if /ready says yes, 0 if it does not.")
    package static let draining = Metric(
        "draining", .gauge, "1 while the proxy takes no new clients and lets the others finish.")
    package static let lateWorkers = Metric(
        "late_workers", .gauge, "Workers that did not answer in time, and whose figures are older.")
    package static let loopLag = Metric(
        "loop_lag", .gauge, unit: "seconds", by: ["worker"],
        "How long the worker's loop took to turn to the question for these figures.")

    // MARK: Clients

    package static let sessions = Metric(
        "sessions", .gauge, by: rule,
        "Clients that are connected, by what they are now.")
    package static let pinnedSessions = Metric(
        "pinned_sessions", .gauge, by: rule,
        "Clients that have an upstream connection to themselves.")
    package static let sessionsOpened = Metric(
        "sessions_opened", .counter, by: rule,
        "Clients that were let in, by what they were then.")
    package static let sessionsClosed = Metric(
        "sessions_closed", .counter, by: rule + ["reason"],
        "Sessions that ended, by what they were then and why.")
    package static let sessionsRefused = Metric(
        "sessions_refused", .counter, by: ["reason"], "Clients that were not let in.")
    package static let clientLogins = Metric(
        "client_logins", .counter, by: ["listener", "result"],
        "Logins of clients at the proxy that were judged.")
    package static let violations = Metric(
        "protocol_violations", .counter, "Clients that were closed because they do not speak RESP.")
    package static let commands = Metric(
        "commands", .counter, by: rule, "Commands that were taken from clients.")
    package static let receivedBytes = Metric(
        "received", .counter, unit: "bytes", by: rule, "Bytes that came from clients.")
    package static let sentBytes = Metric(
        "sent", .counter, unit: "bytes", by: rule, "Bytes that went to clients.")
    package static let owedReplies = Metric(
        "owed_replies", .gauge, by: rule,
        "Replies that clients are owed for commands that were passed on.")
    package static let unsentBytes = Metric(
        "unread_reply", .gauge, unit: "bytes", by: rule,
        "Bytes of replies that clients have not taken yet.")
    package static let waitingSessions = Metric(
        "waiting_sessions", .gauge, by: ["reason"],
        "Clients whose commands have to wait in the proxy, by what for. One may be in several.")
    package static let pins = Metric(
        "pins", .counter, by: ["reason"],
        "How often a client was given an upstream connection to itself.")
    package static let pinned = Metric(
        "pinned", .counter, unit: "seconds", by: ["reason"],
        "For how long clients had an upstream connection to themselves.")
    package static let latency = Metric(
        "latency", .histogram, unit: "seconds",
        "Time from a command's arrival to its reply's, in the proxy and the server together. Without"
            + " commands that wait for others (BLPOP), subscribers and MONITOR.")

    // MARK: Upstream

    package static let upstreamConnections = Metric(
        "upstream_connections", .gauge, by: ["upstream", "user", "state", "use"],
        "Upstream connections, by what state they are in and what they are used for.")
    package static let upstreamOwedReplies = Metric(
        "upstream_owed_replies", .gauge, by: ["upstream", "user"],
        "Replies that upstream connections owe, for commands sent and for those that wait to be.")
    package static let upstreamWaitingBytes = Metric(
        "upstream_waiting", .gauge, unit: "bytes", by: ["upstream", "user"],
        "Bytes of commands that wait to be sent upstream.")
    package static let upstreamLost = Metric(
        "upstream_lost", .counter, by: ["upstream", "user"],
        "Upstream connections that served and were lost.")
    package static let commandsGivenUp = Metric(
        "commands_given_up", .counter, by: ["upstream", "user"],
        "Commands that waited too long for upstream and were answered with an error.")

    // MARK: Credentials

    package static let logins = Metric(
        "logins", .counter, by: ["upstream", "user", "result", "reason"],
        "Logins upstream on new connections.")
    package static let renewals = Metric(
        "renewals", .counter, by: ["upstream", "user", "result", "reason"],
        "Logins upstream on connections that live.")
    package static let loginsExpired = Metric(
        "logins_expired", .counter, by: ["upstream", "user"],
        "Connections that were given up because their login would have ended.")
    package static let oldestLogin = Metric(
        "oldest_login_age", .gauge, unit: "seconds", by: ["upstream", "user"],
        "Age of the oldest login on a connection that is up.")
    package static let nextRenewal = Metric(
        "next_renewal", .gauge, unit: "seconds", by: ["upstream", "user"],
        "Time until the first renewal that is due; absent for logins that do not end.")
    package static let credentialAvailable = Metric(
        "credential_available", .gauge, by: ["upstream", "user"],
        "1 if there is something to log in with that has not expired.")
    package static let credentialFailing = Metric(
        "credential_failing", .gauge, by: ["upstream", "user"],
        "1 if the newest attempt to fetch the credential failed.")
    package static let credentialAge = Metric(
        "credential_age", .gauge, unit: "seconds", by: ["upstream", "user"],
        "Time since the credential was last fetched with success.")
    package static let credentialLeft = Metric(
        "credential_left", .gauge, unit: "seconds", by: ["upstream", "user"],
        "Time for which the token may still be sent; absent for passwords, which do not expire.")

    // MARK: Limits

    package static let limit = Metric(
        "limit", .gauge, by: ["limit"], "What a setting allows, in all workers together.")
    package static let limitUsed = Metric(
        "limit_used", .gauge, by: ["limit"],
        "How much of that is in use; of limits for one client or connection, by the one that uses most."
    )

    /// In the order in which they are exposed.
    package static let all: [Metric] = [
        buildInfo, startTime, cpu, memory, openDescriptors, maximumDescriptors, ready, draining,
        lateWorkers, loopLag,
        sessions, pinnedSessions, sessionsOpened, sessionsClosed, sessionsRefused, clientLogins,
        violations, commands, receivedBytes, sentBytes, owedReplies, unsentBytes, waitingSessions,
        pins, pinned, latency,
        upstreamConnections, upstreamOwedReplies, upstreamWaitingBytes, upstreamLost,
        commandsGivenUp,
        logins, renewals, loginsExpired, oldestLogin, nextRenewal, credentialAvailable,
        credentialFailing, credentialAge, credentialLeft,
        limit, limitUsed,
    ]
}
