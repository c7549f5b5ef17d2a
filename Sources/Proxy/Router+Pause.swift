// PAUSE and RESUME: the commands of a user wait in the proxy while its server is exchanged.
//
//     clients ──► outgoing ──╳   server        nothing that is new is handed over; what was is answered
//                   fills up, then its sessions are not read
//
// A paused connection is one that does not send: everything before it works as ever, and its limits hold
// (`upstreamBuffer`, `uploadBuffer`). What a client has begun goes on until it is done, because only the
// connection that knows the beginning can take the rest: a transaction, a watch, the rest of a request.
// Connections whose replies are not counted (MONITOR and its kin) are not held at all, nor is what the
// proxy sends for itself, such as the renewal of a login.
//
// No command gives up waiting meanwhile: that it waits is what the operator wants. Its time begins anew
// with RESUME, which connects anew first, as the server may be another one.

package import Identity
import RESP

/// What a pause waits for.
package struct Unfinished: Sendable, Equatable {
    /// Commands that were sent and are not answered.
    package var commands = 0
    /// Clients in a transaction, with a watch, or in the middle of an upload.
    package var clients = 0
    /// Commands that wait at the server for others (BLPOP and its kin), as long as they please.
    package var blocking = 0

    /// Nothing.
    package init() {}

    package static func + (left: Unfinished, right: Unfinished) -> Unfinished {
        var sum = left
        sum.commands += right.commands
        sum.clients += right.clients
        sum.blocking += right.blocking
        return sum
    }
}

extension Router {
    /// Holds back the commands of a user, or of all users that there are or will be, from now on.
    package func pause(_ user: UserIndex? = nil) {
        guard let user else {
            pausesNewUsers = true
            for index in isPaused.indices { isPaused[index] = true }
            return
        }
        isPaused[user.rawValue] = true
    }

    /// Lets them go, to connections that are new.
    package func resume(_ user: UserIndex? = nil) {
        if user == nil { pausesNewUsers = false }
        for index in isPaused.indices where isPaused[index] {
            let index = UserIndex(index)
            guard user == nil || user == index else { continue }
            reconnect(index)
            isPaused[index.rawValue] = false
            for upstream in connections(of: index) { letGo(upstream) }
        }
        for session in pinWaiters { session.pointee.waitingSince = now }
        settle()
    }

    private func letGo(_ upstream: UpstreamRef) {
        let count = upstream.pointee.queue.count
        for index in count - upstream.pointee.unsentRuns..<count {
            upstream.pointee.queue[index].pointee.since = now
        }
        upstream.pointee.owner?.pointee.waitingSince = now
        for session in upstream.pointee.waiters { session.pointee.waitingSince = now }
        updateSlice(upstream)
        markDirty(upstream)
        guard let second = upstream.pointee.second else { return }
        updateSlice(second)
        markDirty(second)
    }

    /// What a pause of this user, or of all, still waits for.
    package func unfinished(of user: UserIndex? = nil) -> Unfinished {
        var unfinished = Unfinished()
        for upstream in connections(of: user)
        where upstream.pointee.state == .ready && upstream.pointee.isCounted {
            for index in 0..<upstream.pointee.queue.count - upstream.pointee.unsentRuns {
                let run = upstream.pointee.queue[index].pointee
                if run.kind == .blocking {
                    unfinished.blocking += Int(run.replies)
                } else {
                    unfinished.commands += Int(run.replies)
                }
            }
            guard let owner = upstream.pointee.owner else { continue }
            let isUploading = owner.pointee.isMidRequest && upstream.pointee.hasHandedOver
            if upstream.pointee.isMidway || isUploading { unfinished.clients += 1 }
        }
        return unfinished
    }

    /// Whether what waits on a connection stays there because its user is paused.
    func isHeld(_ upstream: UpstreamRef) -> Bool {
        guard isPaused[upstream.pointee.user.rawValue] else { return false }
        if upstream.pointee.isShared { return true }
        return upstream.pointee.isCounted && !upstream.pointee.isMidway
            && !upstream.pointee.isEnding && !upstream.pointee.hasRest
    }

    /// Whether the commands of a user are held back.
    package func isPaused(_ user: UserIndex) -> Bool { isPaused[user.rawValue] }

    /// Whether a session waits by order.
    func isPaused(_ session: SessionRef) -> Bool {
        session.pointee.route >= 0 && isPaused[routes[session.pointee.route].user.rawValue]
    }
}

extension Upstream {
    /// Its session has begun what only this connection can end.
    fileprivate var isMidway: Bool { !ties.isDisjoint(with: [.transaction, .watch]) }
}
