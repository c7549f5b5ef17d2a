// What a router counts while it works, and what it can say of its sessions and connections when it is
// asked.
//
//     a command        nothing: a session counts its own anyway
//     a run of replies one entry in the histogram
//     a pin            three additions
//     a question       a walk over all sessions and connections
//
// Plain integers of one thread. Whoever wants them asks for a copy.

package import Histogram
package import Identity

/// What has happened since the router was made.
package struct Figures: Sendable {
    /// What is below a microsecond is that; what is above a minute is a minute.
    private static let range: ClosedRange<UInt64> = 1_000...60_000_000_000

    /// Nanoseconds from the turn of the loop in which the first request of a run was read, or began
    /// to wait for another connection, to the turn in which replies to it were: one count for each
    /// reply. Without commands that wait for others (BLPOP), subscribers, and what is relayed.
    package private(set) var latency = Self.emptyLatency
    /// By `PinReason`: how many sessions were given a connection of their own.
    package fileprivate(set) var pins = [UInt64](repeating: 0, count: PinReason.allCases.count)
    /// By `PinReason`: for how many nanoseconds they had it.
    package fileprivate(set) var pinned = [UInt64](repeating: 0, count: PinReason.allCases.count)

    package init() {}

    /// One without entries, for others to be added to: with two significant digits it is never resized.
    package static var emptyLatency: Histogram<UInt64> {
        Histogram(
            lowestDiscernibleValue: range.lowerBound, highestTrackableValue: range.upperBound,
            numberOfSignificantValueDigits: .two)
    }

    @inline(__always)
    mutating func note(_ replies: UInt32, after nanoseconds: UInt64) {
        latency.record(
            min(nanoseconds, Self.range.upperBound), count: UInt64(truncatingIfNeeded: replies))
    }

    /// A copy that shares nothing with this one, which is written to without being copied first.
    package func copied() -> Figures {
        var copy = Figures()
        copy.add(self)
        return copy
    }

    /// Adds what another router has counted.
    package mutating func add(_ other: Figures) {
        latency.add(other.latency)
        for reason in pins.indices {
            pins[reason] &+= other.pins[reason]
            pinned[reason] &+= other.pinned[reason]
        }
    }
}

/// What one session is doing.
package struct SessionStatus: Sendable {
    package var id: UInt64
    /// Index into the router's routes; nil: its client has not logged in.
    package var route: Int?
    /// Why it has a connection of its own, and since when; nil: it has none.
    package var pin: (reason: PinReason, since: Instant)?
    package var owedReplies: Int
    /// Bytes that the client has not taken yet.
    package var unsent: Int
    /// Bytes of requests that wait in the proxy.
    package var waiting: Int
    package var commands: UInt64
    package var database: Int
    package var protocolVersion: Int
    /// When bytes last came from the client; nil: none have.
    package var lastReceived: Instant?
}

/// What one upstream connection is doing.
package struct UpstreamStatus: Sendable {
    package enum Use: Sendable, Equatable {
        case shared
        /// Shared before; it only delivers what it owes.
        case retired
        /// Of this session alone.
        case own(session: UInt64, PinReason)
        /// Logged in, for the next session that needs one.
        case spare
        /// It waits for the same blocking command as another one, to take over from it.
        case second
    }

    package var id: UInt64
    package var route: Int
    package var user: UserIndex
    package var state: Upstream.State
    package var use: Use
    package var owedReplies: Int
    /// Bytes that are not handed over to TLS yet.
    package var waiting: Int
    package var database: Int
    package var protocolVersion: Int
    /// When the last login on it was accepted; nil: it is not logged in.
    package var loggedInAt: Instant?
    /// When it logs in again; nil: never, or not before a new password.
    package var renewsAt: Instant?
    /// When the server would end it; nil: never.
    package var loginEndsAt: Instant?
}

/// How many sessions cannot go on just now, by what they wait for. A session may be in several.
package struct WaitingSessions: Sendable {
    /// As many requests in flight as its replies' sizes allow.
    package var window = 0
    /// Its client does not read.
    package var output = 0
    /// The upstream connection has enough bytes waiting.
    package var upstream = 0
    /// `Limits.maximumPinned` sessions have a connection of their own.
    package var pin = 0
    /// Its login is being verified.
    package var login = 0

    package init() {}
}

extension Router {
    /// What was counted, and for pins that go on, until now.
    package var currentFigures: Figures {
        var current = figures.pointee.copied()
        forEachSession { session in
            guard let pin = session.pointee.pin else { return }
            current.pinned[Int(pin.reason.rawValue)] &+= now.nanoseconds &- pin.since.nanoseconds
        }
        return current
    }

    /// Calls `body` for every session whose socket is open.
    package func forEachSession(_ body: (SessionRef) -> Void) {
        var next = firstSession
        while let session = next {
            next = session.pointee.next
            body(session)
        }
    }

    /// What can be said of a session now.
    package func status(of session: SessionRef) -> SessionStatus {
        let pool = session.pointee.pool
        let lastPart = session.pointee.lastPart
        return SessionStatus(
            id: session.pointee.id,
            route: pool < 0 ? nil : session.pointee.route,
            pin: session.pointee.pin,
            owedReplies: session.pointee.owedReplies,
            unsent: session.pointee.unsent,
            waiting: session.pointee.input.count,
            commands: session.pointee.commands,
            database: pool < 0 ? 0 : pools[pool].database,
            protocolVersion: Int(session.pointee.protocolVersion),
            lastReceived: lastPart.nanoseconds == 0 ? nil : lastPart
        )
    }

    /// Every connection that there is, but for shared places that nobody has needed yet.
    package var upstreamStatuses: [UpstreamStatus] {
        var statuses = shared.filter { $0.pointee.state != .idle }.map {
            $0.pointee.status(.shared)
        }
        statuses += retired.map { $0.pointee.status(.retired) }
        statuses += spare.joined().map { $0.pointee.status(.spare) }
        forEachSession { session in
            guard session.pointee.lane == .own, let upstream = session.pointee.upstream else {
                return
            }
            let use = UpstreamStatus.Use.own(
                session: session.pointee.id, session.pointee.pinReason)
            statuses.append(upstream.pointee.status(use))
            if let second = upstream.pointee.second {
                statuses.append(second.pointee.status(.second))
            }
        }
        return statuses
    }

    func beginPin(_ session: SessionRef, _ reason: PinReason) {
        pinnedCount += 1
        session.pointee.lane = .own
        session.pointee.pinReason = reason
        session.pointee.pinnedSince = now
        figures.pointee.pins[Int(reason.rawValue)] &+= 1
    }

    func endPin(_ session: SessionRef) {
        pinnedCount -= 1
        session.pointee.lane = .shared
        session.pointee.upstream = nil
        session.pointee.carriesState = false
        let reason = Int(session.pointee.pinReason.rawValue)
        let nanoseconds = now.nanoseconds &- session.pointee.pinnedSince.nanoseconds
        figures.pointee.pinned[reason] &+= nanoseconds
    }
}

extension Session {
    /// Replies that are to come for requests that were passed on.
    package var owedReplies: Int { Int(owed) }

    /// Bytes that its client has not taken yet.
    package var unsentBytes: Int { unsent }

    /// Why it has a connection of its own; nil: it has none.
    package var pin: (reason: PinReason, since: Instant)? {
        lane == .own ? (pinReason, pinnedSince) : nil
    }

    /// Adds to `waiting` what keeps this session from going on.
    package func count(in waiting: inout WaitingSessions) {
        if blocks.isEmpty { return }
        if blocks.contains(.window) { waiting.window += 1 }
        if blocks.contains(.output) { waiting.output += 1 }
        if blocks.contains(.upstream) { waiting.upstream += 1 }
        if blocks.contains(.pin) { waiting.pin += 1 }
        if blocks.contains(.login) { waiting.login += 1 }
    }
}

extension Upstream {
    fileprivate func status(_ use: UpstreamStatus.Use) -> UpstreamStatus {
        var owed = 0
        for index in 0..<queue.count { owed += Int(queue[index].pointee.replies) }
        let isLoggedIn = state == .ready
        return UpstreamStatus(
            id: id,
            route: route,
            user: user,
            state: state,
            use: use,
            owedReplies: owed,
            waiting: outgoing.count,
            database: database,
            protocolVersion: Int(protocolVersion),
            loggedInAt: isLoggedIn ? loggedInAt : nil,
            renewsAt: isLoggedIn && renewAt != .never ? renewAt : nil,
            loginEndsAt: isLoggedIn && closeAt != .never ? closeAt : nil
        )
    }
}
