// The operator's log of one worker: events become lines that say what failed, what was wanted,
// what was got, where, and what to do.
//
// A condition that lasts (an upstream that is down, a login that is refused) is said once and then
// at most every `interval`, with the number of times that it was not said.

import Identity
package import Logging
package import Proxy

/// Writes a worker's events; used on its thread.
package struct EventLog {
    /// Pause between two lines that say the same.
    private static let interval: UInt64 = 10_000_000_000

    private struct Repetition {
        var text: String
        var last: UInt64
        var suppressed: Int
    }

    private let configuration: ServerConfiguration
    private let logger: Logger
    private var repetitions: [String: Repetition] = [:]

    package init(configuration: ServerConfiguration, logger: Logger) {
        self.configuration = configuration
        self.logger = logger
    }

    /// - Parameter now: nanoseconds of a monotonic clock.
    package mutating func write(_ event: Event, at now: UInt64) {
        switch event {
        case .ready(let facts):
            let key = key(facts)
            if repetitions.removeValue(forKey: key) != nil || facts.isShared {
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
                credential from \(user.source), got '\(reply)'. \(Self.remedy(for: reply))
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
        case .sessionClosed(let session, let reason):
            logger.debug(
                "session closed",
                metadata: ["session": "\(session)", "reason": "\(reason)"]
            )
        }
    }

    /// What an operator can do about a refused login.
    ///
    /// Source of the prefixes: redis 7.0, acl.c (WRONGPASS), networking.c (max number of clients,
    /// DENIED), server.c (LOADING, MASTERDOWN).
    static func remedy(for reply: String) -> String {
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
        var metadata = metadata
        if var repetition = repetitions[key], repetition.text == text,
            now < repetition.last + Self.interval
        {
            repetition.suppressed += 1
            repetitions[key] = repetition
            return
        }
        let suppressed = repetitions[key].map { $0.text == text ? $0.suppressed : 0 } ?? 0
        if suppressed > 0 { metadata["repeated"] = "\(suppressed)" }
        repetitions[key] = Repetition(text: text, last: now, suppressed: 0)
        logger.log(level: level, "\(text)", metadata: metadata)
    }
}
