// What the operator is told, as values; the words are chosen by whoever writes the log.

package import Identity

/// Something worth a line in the operator's log or a count in a metric.
package enum Event: Sendable {
    /// An upstream connection is logged in and serves.
    case ready(UpstreamFacts)
    /// Connecting failed; `reason` says at which step and why.
    case connectFailed(UpstreamFacts, reason: String)
    /// The server refused the login. `reply` is the server's error line, made printable.
    case loginRefused(UpstreamFacts, reply: String)
    /// The server accepted the login, but refused the SELECT behind it.
    case databaseRefused(UpstreamFacts, reply: String)
    /// There is nothing to log in with.
    case noCredential(UpstreamFacts, reason: String)
    /// A connection that lives has logged in anew.
    case renewed(UpstreamFacts)
    /// It could not, and serves on with the login that it has.
    case renewalFailed(UpstreamFacts, reason: String)
    /// It was given up because its login would have ended.
    case loginExpired(UpstreamFacts)
    /// It gave its place to a new one, and is closed when it owes nothing any more.
    case replaced(UpstreamFacts, ReplacementReason)
    /// The server's error says that it is not, or no longer, the server that is wanted: the
    /// connections of its user are replaced.
    case failover(UpstreamFacts, reply: String)
    /// A connection that served is gone. `closed` sessions had a command in flight; `kept`
    /// sessions had none, and their waiting commands go out on the next connection.
    case lost(UpstreamFacts, reason: String, closed: Int, kept: Int)
    /// Commands waited too long and were answered with an error.
    case gaveUp(UpstreamFacts, commands: Int)
    /// A client sent what is not a request. The description echoes none of its bytes raw.
    case violation(session: UInt64, String)
    /// A session ended.
    case sessionClosed(session: UInt64, CloseReason)
}

/// Which upstream connection an event is about.
package struct UpstreamFacts: Sendable {
    package let connection: UInt64
    package let route: Int
    package let user: UserIndex
    package let isShared: Bool
    package let protocolVersion: Int
    package let database: Int
    /// Attempts that failed since the last success of this connection.
    package let failures: Int
    /// The server said at the last login that it is part of a cluster.
    package let isCluster: Bool

    package init(
        connection: UInt64,
        route: Int,
        user: UserIndex,
        isShared: Bool,
        protocolVersion: Int,
        database: Int = 0,
        failures: Int,
        isCluster: Bool = false
    ) {
        self.connection = connection
        self.route = route
        self.user = user
        self.isShared = isShared
        self.protocolVersion = protocolVersion
        self.database = database
        self.failures = failures
        self.isCluster = isCluster
    }
}

/// Why a session ended.
package enum CloseReason: UInt8, Sendable, CaseIterable {
    case clientClosed
    case clientReset
    case quit
    case violation
    /// The upstream connection was lost with a command of this session in flight, or with state
    /// that cannot be carried to another.
    case upstreamLost
    /// An error took the place of a command that carries state.
    case errorInPlaceOfState
    case slowReader
    /// An upload that brought nothing more held a connection that others waited for.
    case stalledUpload
    /// A reload left no rule that makes the client what it was.
    case noLongerAdmitted
    /// An operator ended it.
    case killed
    case drained
    case drainTimeout
    /// It did not log in in time.
    case loginDeadline
    /// The login of its own connection would have ended and could not be renewed.
    case loginExpired

    private static let names = allCases.map { "\($0)" }

    /// As it stands in logs. Made once: to ask the runtime for a case's name is slow.
    package var name: String { Self.names[Int(rawValue)] }
}
