// The operator's log of one worker: events become lines that say what failed, what was wanted,
// what was got, where, and what to do.
//
// A condition that lasts (an upstream that is down, a login that is refused) is said once and then
// now and then, with the number of times that it was not said (`RepeatedLines`). A session has one line,
// when it is closed, with all that is to be said of it: a line costs as much as a few commands, which
// short-lived clients would pay twice.

package import Identity
package import Logging
package import Proxy

/// What went through a session.
package struct SessionFigures: Sendable {
    /// Bytes from the client.
    package var received: UInt64 = 0
    /// Bytes to the client.
    package var sent: UInt64 = 0
    package var commands: UInt64 = 0
    /// Nanoseconds.
    package var lifetime: UInt64 = 0

    package init() {}
}

/// Writes a worker's events; used on its thread.
package struct EventLog {
    /// May be replaced by one in which the numbers of this mean the same.
    package var configuration: ServerConfiguration {
        didSet { names = Names(configuration) }
    }
    private var names: Names
    private let logger: Logger
    private var lines = RepeatedLines()
    /// Of each user's newest credential.
    private var origins: [UserIndex: String] = [:]

    package init(configuration: ServerConfiguration, logger: Logger) {
        self.configuration = configuration
        names = Names(configuration)
        self.logger = logger
    }

    /// What the lines about sessions say of the configuration, put into words once.
    private struct Names {
        /// By listener.
        let endpoints: [Logger.Metadata.Value]
        /// By route.
        let principals: [Logger.Metadata.Value]
        let users: [Logger.Metadata.Value]

        init(_ configuration: ServerConfiguration) {
            endpoints = configuration.listeners.map { "\($0.endpoint)" }
            principals = configuration.routes.map { "\($0.rule.principal)" }
            users = configuration.routes.map {
                "\(configuration.users[$0.rule.user.rawValue].userName)"
            }
        }
    }

    /// Notes where a user's newest credential comes from, for when the server refuses it.
    package mutating func note(_ snapshot: CredentialSnapshot, for user: UserIndex) {
        guard let credential = snapshot.credential else { return }
        origins[user] = credential.origin
    }

    /// - Parameter now: nanoseconds of a monotonic clock.
    package mutating func write(_ event: Event, at now: UInt64) {
        switch event {
        case .ready(let facts):
            let key = key(facts)
            if lines.end(key) || facts.isShared {
                logger.info("logged in upstream", metadata: metadata(facts))
            } else {
                logger.debug("logged in upstream", metadata: metadata(facts))
            }
        case .connectFailed(let facts, let reason):
            say(
                .error,
                "cannot connect to upstream: \(reason)",
                key: key(facts),
                metadata(facts),
                now
            )
        case .loginRefused(let facts, let reply):
            let user = configuration.users[facts.user.rawValue]
            say(
                .error,
                """
                upstream refused the login: wanted to log in as '\(user.userName)' with the \
                credential from \(user.source)\(origin(of: facts.user)), got '\(reply)'. \
                \(Self.remedy(for: reply, isIAM: user.isIAM))
                """,
                key: key(facts),
                metadata(facts),
                now
            )
        case .databaseRefused(let facts, let reply):
            let user = configuration.users[facts.user.rawValue]
            say(
                .error,
                """
                upstream refused a database: wanted SELECT \(facts.database) as \
                '\(user.userName)', which it allowed before, got '\(reply)'. Check the ACL \
                user's permissions
                """,
                key: key(facts),
                metadata(facts),
                now
            )
        case .noCredential(let facts, let reason):
            say(
                .error,
                "no credential to log in with: \(reason). The login is retried",
                key: key(facts),
                metadata(facts),
                now
            )
        case .renewed(let facts):
            let level: Logger.Level = lines.end("renewal " + key(facts)) ? .info : .debug
            logger.log(level: level, "logged in upstream again", metadata: metadata(facts))
        case .renewalFailed(let facts, let reason):
            let user = configuration.users[facts.user.rawValue]
            say(
                .error,
                """
                cannot renew a login upstream: wanted to log in again as '\(user.userName)' with \
                the credential from \(user.source)\(origin(of: facts.user)), got '\(reason)'. The \
                connection serves on with the login that it has. \
                \(Self.remedy(for: reason, isIAM: user.isIAM))
                """,
                key: "renewal " + key(facts),
                metadata(facts),
                now
            )
        case .loginExpired(let facts):
            logger.warning(
                """
                gave up an upstream connection whose login could not be renewed before the server \
                would have ended it
                """,
                metadata: metadata(facts)
            )
        case .replaced(let facts, let reason):
            logger.debug(
                "replacing an upstream connection",
                metadata: metadata(facts).merging(["reason": "\(reason)"]) { $1 })
        case .failover(let facts, let reply):
            say(
                .warning,
                """
                the server is not what it was: wanted a primary that serves, got '\(reply)'. Its name \
                is resolved anew and its connections are replaced
                """,
                key: "failover " + key(facts),
                metadata(facts),
                now
            )
        case .lost(let facts, let reason, let closed, let kept):
            var metadata = metadata(facts)
            metadata["sessions_closed"] = "\(closed)"
            metadata["commands_kept"] = "\(kept)"
            logger.log(
                level: facts.isShared ? .warning : .debug,
                "lost the upstream connection: \(reason)",
                metadata: metadata
            )
        case .gaveUp(let facts, let commands):
            say(
                .warning,
                "commands waited too long for upstream and were answered with an error",
                key: "gave up " + key(facts),
                metadata(facts).merging(["commands": "\(commands)"]) { $1 },
                now
            )
        case .violation(let session, let description):
            say(
                .warning,
                "closing a client that does not speak RESP: \(description)",
                key: "violation",
                ["session": "\(session)"],
                now
            )
        case .sessionClosed(let session, .stalledUpload):
            say(
                .warning,
                """
                closed a client that stopped in the middle of an upload: it held a connection of \
                its own that other clients waited for (see max_pinned)
                """,
                key: "stalled upload",
                ["session": "\(session)"],
                now
            )
        case .sessionClosed:
            // Written by `closed`, which knows the session's figures.
            break
        }
    }

    // MARK: Sessions

    /// A client has been let in.
    ///
    /// - Parameter route: what it is; nil: it must log in first.
    package func opened(_ session: UInt64, _ client: Client, listener: Int, route: Int?) {
        guard logger.logLevel <= .debug else { return }
        var metadata = identity(session, client, route)
        place(client, listener, &metadata)
        logger.debug("session opened", metadata: metadata)
    }

    /// A client has logged in at the proxy.
    package func loggedIn(_ session: UInt64, _ client: Client, route: Int) {
        guard logger.logLevel <= .info else { return }
        logger.info("session logged in", metadata: identity(session, client, route))
    }

    /// A client's login was refused. `name` is what it gave as a name, if that is the name of a
    /// login that it could have had: what else stands there may be a password.
    package mutating func loginFailed(
        _ session: UInt64,
        _ client: Client,
        name: String?,
        at now: UInt64
    ) {
        say(
            .warning,
            "refused a client's login",
            key: "login \(client.userID.map { "uid \($0)" } ?? client.address?.description ?? "")",
            identity(session, client, nil)
                .merging(["name": "\(name ?? "of no login")"]) { $1 },
            now
        )
    }

    /// A client logged in as somebody of whom there are enough.
    package mutating func loginHadNoRoom(
        _ session: UInt64,
        _ client: Client,
        route: Int,
        at now: UInt64
    ) {
        say(
            .warning,
            "refused a client's login: max_sessions of its rule are connected",
            key: "full \(route)",
            identity(session, client, route),
            now
        )
    }

    /// A session has ended, with what went through it.
    package func closed(
        _ session: UInt64,
        _ client: Client,
        listener: Int,
        route: Int?,
        reason: CloseReason,
        _ figures: SessionFigures
    ) {
        guard logger.logLevel <= .info else { return }
        var metadata = identity(session, client, route)
        place(client, listener, &metadata)
        metadata["reason"] = .string(reason.name)
        metadata["received"] = .string(String(figures.received))
        metadata["sent"] = .string(String(figures.sent))
        metadata["commands"] = .string(String(figures.commands))
        metadata["milliseconds"] = .string(String(figures.lifetime / 1_000_000))
        logger.info("session closed", metadata: metadata)
    }

    /// Where a client came in, and from which process.
    private func place(_ client: Client, _ listener: Int, _ metadata: inout Logger.Metadata) {
        metadata["listener"] = names.endpoints[listener]
        if let processID = client.processID { metadata["pid"] = .string(String(processID)) }
    }

    private func identity(_ session: UInt64, _ client: Client, _ route: Int?) -> Logger.Metadata {
        // Room for all that `closed` says.
        var metadata = Logger.Metadata(minimumCapacity: 12)
        metadata["session"] = .string(String(session))
        metadata["client"] = .string(client.description)
        if let userID = client.userID { metadata["uid"] = .string(String(userID)) }
        if let route {
            metadata["principal"] = names.principals[route]
            metadata["user"] = names.users[route]
        }
        return metadata
    }

    /// What to look at when a token is refused, the usual first; what was signed stands beside it.
    ///
    /// Source: ElastiCache and MemoryDB, "Authenticating with IAM"; the order is that of reports by
    /// those who use it.
    package static let causesOfRefusedToken = """
        The server has this one answer for every token that it does not take. Check, in this order: \
        that the AWS identity may elasticache:Connect (memorydb:Connect) to the cache and to the \
        user, both; that the user's id is its name, that it authenticates with IAM, and that it is in \
        the cache's user group; the cache's name, its region and its account, and whether it is \
        serverless; that the access key is still good; this machine's clock
        """

    /// What an operator can do about a refused login.
    ///
    /// Source of the prefixes: redis 7.0, acl.c (WRONGPASS), networking.c (max number of clients,
    /// DENIED), server.c (LOADING, MASTERDOWN).
    static func remedy(for reply: String, isIAM: Bool = false) -> String {
        if isIAM, reply.hasPrefix("WRONGPASS") { return causesOfRefusedToken + "; retried" }
        if reply.hasPrefix("WRONGPASS") || reply.hasPrefix("NOAUTH") {
            return """
                Check that the ACL user exists, is on, and has this password; the credential is \
                read again and the login retried
                """
        }
        if reply.hasPrefix("ERR max number of clients") {
            return "The server has no room for another client: raise its maxclients; retried"
        }
        if reply.hasPrefix("DENIED") {
            return "The server is in protected mode: give its default user a password; retried"
        }
        if reply.hasPrefix("ERR unknown command") {
            return "The server does not know HELLO: Redis 6.0 or newer is needed"
        }
        return "The login is retried"
    }

    private func origin(of user: UserIndex) -> String {
        origins[user].map { ", \($0)" } ?? ""
    }

    private func key(_ facts: UpstreamFacts) -> String { "user \(facts.user.rawValue)" }

    private func metadata(_ facts: UpstreamFacts) -> Logger.Metadata {
        let user = configuration.users[facts.user.rawValue]
        let target = configuration.targets[user.target]
        var metadata: Logger.Metadata = [
            "user": "\(user.userName)",
            "upstream": "\(target.name)",
            "address": "\(target.address)",
            "connection": "\(facts.connection)",
            "lane": facts.isShared ? "shared" : "own",
            "protocol": "RESP\(facts.protocolVersion)",
        ]
        if facts.database != 0 { metadata["database"] = "\(facts.database)" }
        return metadata
    }

    private mutating func say(
        _ level: Logger.Level,
        _ text: String,
        key: String,
        _ metadata: Logger.Metadata,
        _ now: UInt64
    ) {
        lines.say(level, text, key: key, metadata, to: logger, at: now)
    }
}
