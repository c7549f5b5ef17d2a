// What a worker has counted since it began: of sessions by their rule, of logins by their user.
//
//     by listener and rule   ── sessions opened, closed (by reason), commands, bytes
//     by user                ── logins and renewals (by what became of them), connections lost
//
// Rows are the numbers of the configuration, of which there are as many as it has: nothing that a
// client says makes a row.
//
// Commands and bytes of a session are added when it ends or becomes somebody else; those of sessions
// that go on are added when somebody asks. So a command costs no addition here.

package import Proxy

/// Of the sessions of one rule, or of those of one listener that have not logged in.
package struct SessionTally: Sendable {
    package internal(set) var opened: UInt64 = 0
    /// By `CloseReason`.
    package internal(set) var closed = [UInt64](repeating: 0, count: CloseReason.allCases.count)
    package internal(set) var commands: UInt64 = 0
    /// Bytes from clients.
    package internal(set) var received: UInt64 = 0
    /// Bytes to clients.
    package internal(set) var sent: UInt64 = 0

    // What there is now.

    package internal(set) var open = 0
    /// Those with an upstream connection of their own.
    package internal(set) var pinned = 0
    package internal(set) var owedReplies = 0
    /// Bytes that clients have not taken yet.
    package internal(set) var unsent = 0

    package init() {}

    /// Adds what another worker, or another rule, has.
    package mutating func add(_ other: SessionTally) {
        opened &+= other.opened
        for reason in closed.indices { closed[reason] &+= other.closed[reason] }
        commands &+= other.commands
        received &+= other.received
        sent &+= other.sent
        open += other.open
        pinned += other.pinned
        owedReplies += other.owedReplies
        unsent += other.unsent
    }
}

/// Of the logins of one user.
package struct UserTally: Sendable {
    package internal(set) var logins: UInt64 = 0
    /// By `LoginFailure`'s place among all.
    package internal(set) var loginFailures = [UInt64](
        repeating: 0, count: LoginFailure.allCases.count)
    package internal(set) var renewals: UInt64 = 0
    package internal(set) var renewalFailures = [UInt64](
        repeating: 0, count: LoginFailure.allCases.count)
    /// Connections that were given up because their login would have ended.
    package internal(set) var expired: UInt64 = 0
    /// Connections that served and are gone.
    package internal(set) var lost: UInt64 = 0
    /// Commands that waited too long and were answered with an error.
    package internal(set) var commandsGivenUp: UInt64 = 0
    /// Of the last login or renewal; nil: there was none yet.
    package internal(set) var outcome: LoginOutcome?
    /// When that was, in nanoseconds of CLOCK_MONOTONIC.
    package internal(set) var outcomeAt: UInt64 = 0
    /// What the server or the system said when it failed last; fit for a log.
    package internal(set) var failure: String?

    package init() {}

    /// Adds what another worker has; the later of two last words is the last one.
    package mutating func add(_ other: UserTally) {
        logins &+= other.logins
        renewals &+= other.renewals
        for kind in loginFailures.indices {
            loginFailures[kind] &+= other.loginFailures[kind]
            renewalFailures[kind] &+= other.renewalFailures[kind]
        }
        expired &+= other.expired
        lost &+= other.lost
        commandsGivenUp &+= other.commandsGivenUp
        guard other.outcome != nil, outcome == nil || other.outcomeAt > outcomeAt else { return }
        outcome = other.outcome
        outcomeAt = other.outcomeAt
        failure = other.failure ?? failure
    }

    mutating func accept(at now: UInt64) {
        outcome = .accepted
        outcomeAt = now
    }

    mutating func fail(_ kind: LoginFailure, _ reason: String, at now: UInt64) {
        outcome = .failed(kind)
        outcomeAt = now
        failure = reason
    }
}

/// See the head of this file. A value of the worker's.
package struct Tally: Sendable {
    /// By number of the rule.
    package internal(set) var byRoute: [SessionTally] = []
    /// By listener: of clients that have not logged in.
    package internal(set) var beforeLogin: [SessionTally] = []
    package internal(set) var byUser: [UserTally] = []
    /// By listener: logins of clients at the proxy.
    package internal(set) var clientLogins: [UInt64] = []
    package internal(set) var clientLoginsRefused: [UInt64] = []
    /// Clients that were closed because they do not speak RESP.
    package internal(set) var violations: UInt64 = 0

    package init(_ configuration: ServerConfiguration) { grow(to: configuration) }

    /// Makes room for what a configuration has more of.
    package mutating func grow(to configuration: ServerConfiguration) {
        byRoute.extend(to: configuration.routes.count, with: SessionTally())
        beforeLogin.extend(to: configuration.listeners.count, with: SessionTally())
        byUser.extend(to: configuration.users.count, with: UserTally())
        clientLogins.extend(to: configuration.listeners.count, with: 0)
        clientLoginsRefused.extend(to: configuration.listeners.count, with: 0)
    }

    /// Changes the row of a rule, or of a listener's clients that have none.
    mutating func update(
        listener: Int, route: Int?, _ body: (inout SessionTally) -> Void
    ) {
        if let route { body(&byRoute[route]) } else { body(&beforeLogin[listener]) }
    }

    /// Counts what a router reports.
    ///
    /// - Parameter now: nanoseconds of CLOCK_MONOTONIC.
    package mutating func note(_ event: Event, at now: UInt64) {
        switch event {
        case .ready(let facts):
            byUser[facts.user.rawValue].logins &+= 1
            byUser[facts.user.rawValue].accept(at: now)
        case .connectFailed(let facts, let reason):
            failLogin(facts, .unreachable, reason, now)
        case .loginRefused(let facts, let reply):
            failLogin(facts, LoginFailure(reply: reply), reply, now)
        case .databaseRefused(let facts, let reply):
            // The login itself was accepted.
            byUser[facts.user.rawValue].loginFailures[LoginFailure.databaseRefused.index] &+= 1
            byUser[facts.user.rawValue].failure = reply
        case .noCredential(let facts, let reason): failLogin(facts, .noCredential, reason, now)
        case .renewed(let facts):
            byUser[facts.user.rawValue].renewals &+= 1
            byUser[facts.user.rawValue].accept(at: now)
        case .renewalFailed(let facts, let reason):
            let kind = LoginFailure(reply: reason)
            byUser[facts.user.rawValue].renewalFailures[kind.index] &+= 1
            byUser[facts.user.rawValue].fail(kind, reason, at: now)
        case .loginExpired(let facts): byUser[facts.user.rawValue].expired &+= 1
        case .lost(let facts, _, _, _): byUser[facts.user.rawValue].lost &+= 1
        case .gaveUp(let facts, let commands):
            byUser[facts.user.rawValue].commandsGivenUp &+= UInt64(commands)
        case .replaced, .failover: break
        case .violation: violations &+= 1
        case .sessionClosed: break  // Counted by who knows whose it was.
        }
    }

    private mutating func failLogin(
        _ facts: UpstreamFacts, _ kind: LoginFailure, _ reason: String, _ now: UInt64
    ) {
        byUser[facts.user.rawValue].loginFailures[kind.index] &+= 1
        byUser[facts.user.rawValue].fail(kind, reason, at: now)
    }
}

extension LoginFailure {
    /// Its place in the arrays of `UserTally`.
    package var index: Int { Self.allCases.firstIndex(of: self) ?? 0 }
}

extension Array {
    fileprivate mutating func extend(to count: Int, with element: Element) {
        while self.count < count { append(element) }
    }
}
