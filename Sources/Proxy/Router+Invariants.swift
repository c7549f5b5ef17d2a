// What must be true between any two events. Called by tests and simulations after each of them.

extension Router {
    /// Traps where the state contradicts itself.
    package func checkInvariants() {
        var owed: [SessionRef: Int] = [:]
        var own = 0
        for upstream in shared + retired { check(upstream, &owed) }
        for upstream in spare.joined() {
            precondition(upstream.pointee.owner == nil && upstream.pointee.ties.isEmpty)
            precondition(upstream.pointee.queue.isEmpty && upstream.pointee.outgoing.isEmpty)
            precondition(upstream.pointee.state == .ready && upstream.pointee.isCounted)
            precondition(upstream.pointee.subscriptions.phase == .none)
            precondition(pools[upstream.pointee.pool].database == upstream.pointee.database)
        }
        var sessions = 0
        var awaiting = 0
        var inPools = Array(repeating: 0, count: pools.count)
        var next = firstSession
        while let session = next {
            sessions += 1
            if session.pointee.isAwaitingLogin {
                awaiting += 1
                precondition(session.pointee.route < 0 && session.pointee.lane == .shared)
                precondition(session.pointee.upstream == nil && session.pointee.owed == 0)
            } else {
                inPools[session.pointee.pool] += 1
                let pool = pools[session.pointee.pool]
                precondition(pool.protocolVersion == session.pointee.protocolVersion)
                precondition(pool.route == session.pointee.route)
            }
            if session.pointee.blocks.contains(.login) {
                precondition(
                    session.pointee.login.map { $0.verdict == nil } ?? false,
                    "waits for what is there")
            }
            precondition(session.pointee.replies != .skipping, "between two requests")
            if session.pointee.lane == .shared, session.pointee.owed > 0 {
                precondition(session.pointee.upstream?.pointee.pool == session.pointee.pool)
            }
            precondition(session.pointee.phase != .gone, "a session that is gone is still listed")
            if session.pointee.lane == .own {
                own += 1
                guard let upstream = session.pointee.upstream else {
                    preconditionFailure("a session in the own lane has no connection")
                }
                precondition(upstream.pointee.owner == session, "an own connection serves another")
                precondition(!upstream.pointee.isShared)
                check(upstream, &owed)
                let phase = upstream.pointee.subscriptions.phase
                let isTied = upstream.pointee.ties.contains(.subscription)
                precondition((phase != .none) == isTied, "a subscription without its tie")
            }
            if session.pointee.isLimited {
                precondition(subscribedUpstream(session) != nil, "limited without subscription")
            }
            if session.pointee.directStart != nil {
                precondition(session.pointee.output.isEmpty, "output would be reordered")
            }
            if session.pointee.phase == .open && session.pointee.blocks.isEmpty {
                precondition(session.pointee.isRead, "a session that may go on is not read")
            }
            if session.pointee.isRead {
                precondition(session.pointee.phase == .open, "an ended session is read")
            }
            next = session.pointee.next
        }
        precondition(sessions == sessionCount && own == pinnedCount)
        precondition(awaiting == awaitingCount)
        precondition(inPools == poolSessions)
        next = firstSession
        while let session = next {
            let sum = owed[session] ?? 0
            precondition(
                Int(session.pointee.owed) == sum,
                "session \(session.pointee.id) is owed \(session.pointee.owed), queued are \(sum)"
            )
            next = session.pointee.next
        }
    }

    private func check(_ upstream: UpstreamRef, _ owed: inout [SessionRef: Int]) {
        let count = upstream.pointee.queue.count
        precondition(upstream.pointee.unsentRuns <= count)
        var unsentBytes = 0
        for index in 0..<count {
            let run = upstream.pointee.queue[index].pointee
            precondition(run.replies > 0, "an empty run")
            precondition(run.session.pointee.upstream == upstream, "a run in a foreign queue")
            owed[run.session, default: 0] += Int(run.replies)
            if index >= count - upstream.pointee.unsentRuns { unsentBytes += Int(run.bytes) }
        }
        if upstream.pointee.isShared {
            precondition(unsentBytes == upstream.pointee.outgoing.count, "bytes without a run")
        }
        if upstream.pointee.state != .ready {
            precondition(
                upstream.pointee.unsentRuns == count,
                "a connection that is not ready has handed a request over"
            )
        }
    }
}
