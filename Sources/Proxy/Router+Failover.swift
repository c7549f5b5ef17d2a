// What a server's error says about the server, and not about the command.
//
//     -READONLY …              it was the primary, and is a replica now
//     -UNBLOCKED force …       it has just become one
//     -LOADING …               it restarts, or fetches everything from another
//     -MASTERDOWN …            it has lost its primary
//
// The client gets the error that it was sent. The user's connections are given up as soon as that harms
// nobody (Router+Replacement.swift), so that the next commands go where the name leads by now. A server
// that is lost needs none of this: each attempt to connect resolves the name anew.
//
// A user that never had a primary reads from a replica on purpose: there -READONLY is about the
// command. Whether a connection leads to a primary is what the server said at its login.
//
// Only errors are looked at, and only their first bytes, and only if they came in one piece: the server
// says it again. The name may still lead to the old server, so that there is a pause between two
// attempts, which doubles, as between attempts to connect.
//
// Source of the texts: redis 7.0, server.c (createSharedObjects: roslaveerr, loadingerr,
// masterdownerr), blocked.c (disconnectAllBlockedClients).

import Identity

/// What a connection's replies have shown since it was last looked at.
enum Complaint: UInt8 {
    case none
    /// It is a replica.
    case isReplica
    /// It has no data to serve at present.
    case hasNoData
}

/// What the proxy knows of the server that a user logs in to.
struct ServerRole {
    /// Some login was on a primary.
    var hasBeenPrimary = false
    /// No attempt to find the primary before this.
    var nextAttempt = Instant(nanoseconds: 0)
    /// Attempts one soon after the other.
    var attempts = 0
}

extension Router {
    /// Notes what an error says of the server. `reply` is all of it.
    @inline(never)
    func listen(_ upstream: UpstreamRef, _ reply: UnsafeRawBufferPointer) {
        guard upstream.pointee.partialReply == 0, reply.count > 9 else { return }
        switch reply[1] {
        case UInt8(ascii: "R") where reply.starts(with: "-READONLY ".utf8),
            UInt8(ascii: "U") where reply.starts(with: "-UNBLOCKED force ".utf8):
            upstream.pointee.complaint = .isReplica
        case UInt8(ascii: "L") where reply.starts(with: "-LOADING ".utf8),
            UInt8(ascii: "M") where reply.starts(with: "-MASTERDOWN ".utf8):
            upstream.pointee.complaint = .hasNoData
        default: return
        }
        upstream.pointee.complaintText = Array(reply.prefix(200))
    }

    /// Acts on what an error said of the server.
    func heed(_ upstream: UpstreamRef) {
        let complaint = upstream.pointee.complaint
        let text = upstream.pointee.complaintText
        upstream.pointee.complaint = .none
        upstream.pointee.complaintText = []
        let user = upstream.pointee.user
        let role = roles[user.rawValue]
        guard upstream.pointee.state == .ready, upstream.pointee.outdatedAt > now,
            complaint == .hasNoData || role.hasBeenPrimary, role.nextAttempt <= now
        else { return }
        let route = routes[upstream.pointee.route]
        // It was well meanwhile.
        if role.nextAttempt + route.backoffMaximum * 4 <= now { roles[user.rawValue].attempts = 0 }
        let doublings = min(16, roles[user.rawValue].attempts)
        let pause = min(route.backoffMaximum, route.backoffMinimum * (1 << doublings))
        roles[user.rawValue].attempts += 1
        roles[user.rawValue].nextAttempt =
            now + pause * Double.random(in: 0.5...1, using: &random)
        let reply = text.withUnsafeBytes {
            printable(UnsafeRawBufferPointer(rebasing: $0.dropFirst()))
        }
        report(.failover(upstream.pointee.facts, reply: reply))
        for upstream in connections(of: user) { outdate(upstream, .failover) }
    }

    /// What a server said of itself at a login.
    func noteRole(_ role: [UInt8], of upstream: UpstreamRef) {
        if role.isEmpty || role.elementsEqual("master".utf8) {
            roles[upstream.pointee.user.rawValue].hasBeenPrimary = true
        }
    }
}
