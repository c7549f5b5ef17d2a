// Connections that give their place to new ones, without harm to anybody.
//
//     its login ends soon (Router+Renewal.swift) ──┐
//     it is old, give or take a fifth ─────────────┤                  ┌─► shared: retired. Who it owes
//     RECONNECT, RESUME ───────────────────────────┼─► to be given up ┤   something stays until that has
//     the server is not what it was ───────────────┘                  │   come, all others go on
//     (Router+Failover.swift)                                         │   on the new one
//                                                                     ├─► spare: closed
//                                                                     ├─► second (Router+Blocking.swift):
//                                                                     │   begun anew, if nothing was sent
//                                                                     └─► own: when nothing ties it to
//                                                                         its session, and nothing is
//                                                                         under way
//
// A new connection resolves its server's name anew. What was passed on and not handed over goes with
// its session, in its order, to the new connection; what was handed over is answered by the old one.
// So nothing is lost, runs twice, or overtakes.

package import Identity
import RESP

/// Why a connection gave its place to another.
package enum ReplacementReason: Sendable {
    case age
    case order
    /// The server answers as one that is not, or no longer, the one that is wanted.
    case failover
}

extension Router {
    // MARK: When

    /// A connection that has just come up is as young as can be.
    func scheduleReplacement(_ upstream: UpstreamRef) {
        upstream.pointee.outdatedAt = .never
        upstream.pointee.outdatedFor = .age
        guard let age = routes[upstream.pointee.route].maximumAge else { return }
        // Spread, so that the connections of a start are not replaced together.
        upstream.pointee.outdatedAt = now + age * Double.random(in: 0.8...1, using: &random)
    }

    /// Connects anew, for one user or for all: each connection as soon as that harms nobody. What is
    /// not up yet tries again at once.
    package func reconnect(_ user: UserIndex? = nil) {
        for upstream in connections(of: user) { outdate(upstream, .order) }
        settle()
    }

    /// Has a connection give up its place at the first moment when that harms nobody.
    func outdate(_ upstream: UpstreamRef, _ reason: ReplacementReason) {
        if let second = upstream.pointee.second { outdate(second, reason) }
        switch upstream.pointee.state {
        case .idle, .gone: break
        case .connecting, .waiting:
            // What is under way may lead to where the server was.
            if upstream.pointee.state == .connecting { actions.append(.disconnect(upstream)) }
            connect(upstream)
        case .loggingIn, .ready:
            upstream.pointee.outdatedAt = now
            upstream.pointee.outdatedFor = reason
            // A second one that waits for its login has nothing under way either.
            if upstream.pointee.state == .ready || upstream.pointee.first != nil {
                replace(upstream)
            }
        }
    }

    // MARK: How

    /// Gives a connection up that is due for that, if it harms nobody.
    func replace(_ upstream: UpstreamRef) {
        if upstream.pointee.isShared {
            if !upstream.pointee.isRetired {
                reportReplacement(upstream)
                retire(upstream)
            }
            leave(upstream)
        } else if let owner = upstream.pointee.owner {
            if !replaceOwn(owner) { moveOwn(owner) }
        } else if let first = upstream.pointee.first {
            guard upstream.pointee.unsentRuns == upstream.pointee.queue.count else { return }
            reportReplacement(upstream)
            dropSecond(of: first)
            beginSecond(of: first)
        } else {
            reportReplacement(upstream)
            spare[upstream.pointee.pool].removeAll { $0 == upstream }
            dropOwn(upstream)
        }
    }

    private func reportReplacement(_ upstream: UpstreamRef) {
        if upstream.pointee.replaceAt <= now {
            report(.loginExpired(upstream.pointee.facts))
        } else {
            report(.replaced(upstream.pointee.facts, upstream.pointee.outdatedFor))
        }
    }

    /// Takes the sessions of a retired connection to the one that has its place: those that it owes
    /// nothing at once, the others when it has answered.
    func leave(_ old: UpstreamRef) {
        let heir = shared[firstShared(old.pointee.pool)]
        let sent = old.pointee.queue.count - old.pointee.unsentRuns
        var staying: Set<SessionRef> = []
        for index in 0..<sent { staying.insert(old.pointee.queue[index].pointee.session) }
        moveUnsent(from: old, to: heir, butOf: staying)
        for session in staying
        where session.pointee.phase == .open || session.pointee.phase == .finished {
            // Or whoever always has something under way would never leave.
            session.pointee.blocks.insert(.quiet)
            updateReading(session)
        }
        if old.pointee.queue.isEmpty { dismiss(old) } else { markDirty(old) }
        markDirty(heir)
        let isWanted = heir.pointee.isWanted || poolSessions[heir.pointee.pool] > 0
        if heir.pointee.state == .idle && isWanted { connect(heir) }
    }

    /// A retired connection has answered something: what waits there for the moment goes on elsewhere.
    func leaveIfAnswered(_ old: UpstreamRef) {
        guard old.pointee.isRetired, old.pointee.state == .ready, old.pointee.outdatedAt <= now,
            old.pointee.unsentRuns > 0, old.pointee.unsentRuns == old.pointee.queue.count
        else { return }
        leave(old)
    }

    /// Moves what was passed on and not handed over, in its order, with its sessions.
    ///
    /// - Parameter staying: sessions that have something under way on the old connection.
    private func moveUnsent(
        from old: UpstreamRef, to heir: UpstreamRef, butOf staying: Set<SessionRef>
    ) {
        let count = old.pointee.queue.count
        let sent = count - old.pointee.unsentRuns
        guard sent < count else { return }
        let runs = (sent..<count).map { old.pointee.queue[$0].pointee }
        old.pointee.queue.removeLast(runs.count)
        old.pointee.unsentRuns = 0
        var outgoing = Buffer()
        swap(&outgoing, &old.pointee.outgoing)
        var offset = 0
        for run in runs {
            let target = staying.contains(run.session) ? old : heir
            target.pointee.outgoing.append(outgoing.bytes + offset, Int(run.bytes))
            target.pointee.queue.append(run)
            target.pointee.unsentRuns += 1
            run.session.pointee.upstream = target
            offset += Int(run.bytes)
        }
    }

    /// Gives up a session's own connection that is due for it, if nothing ties them and nothing is
    /// on its way.
    ///
    /// - Returns: whether it did.
    func replaceOwn(_ session: SessionRef) -> Bool {
        guard let upstream = replaceable(session), upstream.pointee.queue.isEmpty,
            upstream.pointee.outgoing.isEmpty, session.pointee.owed == 0
        else { return false }
        reportReplacement(upstream)
        giveUpOwn(session)
        return true
    }

    /// The same where requests were passed on of which the server has not seen one: they go to a new
    /// connection of the session's own.
    private func moveOwn(_ session: SessionRef) {
        guard let upstream = replaceable(session), upstream.pointee.unsentRuns > 0,
            upstream.pointee.unsentRuns == upstream.pointee.queue.count
        else { return }
        if upstream.pointee.blocked != nil {
            _ = moveBlocked(upstream)
            return
        }
        reportReplacement(upstream)
        let heir = makeUpstream(pool: session.pointee.pool, owner: session)
        heir.pointee.attributes.name = name(of: session)
        session.pointee.upstream = heir
        introduce(session, to: heir)
        moveUnsent(from: upstream, to: heir, butOf: [])
        let waiters = upstream.pointee.waiters
        upstream.pointee.waiters = []
        dropOwn(upstream)
        for waiter in waiters { unblock(waiter, .upstream) }
        markDirty(heir)
        if heir.pointee.state == .idle { connect(heir) }
    }

    /// The own connection of a session, if it is due for replacement and could be any other.
    private func replaceable(_ session: SessionRef) -> UpstreamRef? {
        guard session.pointee.lane == .own, let upstream = session.pointee.upstream,
            upstream.pointee.giveUpAt <= now, upstream.pointee.state == .ready,
            upstream.pointee.ties.isEmpty, upstream.pointee.isCounted,
            !upstream.pointee.isEnding, upstream.pointee.pausedFor == nil,
            upstream.pointee.pool == session.pointee.pool,
            !session.pointee.isMidRequest, session.pointee.substitute == nil,
            session.pointee.violation == nil, session.pointee.phase == .open
        else { return nil }
        return upstream
    }
}

extension Upstream {
    /// From here on it is given up at the first moment when that harms nobody.
    var giveUpAt: Instant { min(replaceAt, outdatedAt) }
}
