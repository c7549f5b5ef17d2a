// One connection to the server, as the proxy sees it.
//
//            demand              TCP and TLS up           login accepted
//     idle ─────────► connecting ──────────────► loggingIn ─────────────► ready
//      ▲ ▲                │ failed                  │ refused               │ lost
//      │ └── no demand ── waiting ◄─────────────────┘                       │
//      │                  │    ▲                                            │
//      │                  └────┼──► connecting, when the pause is over      │
//      └───────────────────────┴────────────────────────────────────────────┘
//
//     ready ── RESET answered ──► loggingIn: RESET logs out, and the connection stays (own ones)
//
//     idle       no connection and nobody who wants one
//     connecting the performer resolves, connects and shakes hands
//     loggingIn  the login is out; not one byte of a client's command goes before its success
//     ready      what is in `outgoing` goes out at the end of each loop turn
//     waiting    the last attempt failed; the next comes after a pause
//     gone       an own connection that was given up; freed at the next reap
//
// A shared connection's place outlives its connections: commands that wait stay in `outgoing` and
// in the queue of runs while the place reconnects. An own connection dies with its session.

package import Identity
import RESP

/// Where an upstream connection lives: allocated and freed by the router.
package typealias UpstreamRef = UnsafeMutablePointer<Upstream>

/// See the head of this file.
package struct Upstream: ~Copyable {
    package enum State: UInt8 {
        case idle
        case connecting
        case loggingIn
        case ready
        case waiting
        case gone
    }

    struct Ties: OptionSet {
        let rawValue: UInt8
        static let transaction = Ties(rawValue: 1)
        static let watch = Ties(rawValue: 2)
        /// A protocol, READONLY …: ended by RESET alone.
        static let lasting = Ties(rawValue: 4)
        /// `subscriptions` is in any phase but `none`.
        static let subscription = Ties(rawValue: 8)
        /// The session knows the connection's id: never cleared.
        static let identity = Ties(rawValue: 16)
    }

    enum Failure: UInt8 {
        case unreachable
        case refused
        /// The login was accepted, the pool's database was not.
        case databaseRefused
    }

    package let id: UInt64
    /// Index into the router's routes.
    package let route: Int
    package let user: UserIndex
    /// Of the pool's; what a client's HELLO switches to is not noted here.
    package internal(set) var protocolVersion: UInt8
    /// What the server was last seen to speak on it: what is on its way may change that.
    var spokenVersion: UInt8 = 2
    /// Index into the router's pools: where an own connection goes when it is given back.
    var pool: Int
    package internal(set) var database: Int
    /// What the server knows of the client.
    var attributes = ClientAttributes()
    /// Owned by whoever performs the router's actions; the router never looks at it.
    package var performer: UnsafeMutableRawPointer?

    package internal(set) var state = State.idle
    /// The one session of an own connection; nil for a shared one, and for a spare one.
    package internal(set) var owner: SessionRef?
    /// What keeps an own connection with its session when nothing is owed.
    var ties = Ties()
    package let isShared: Bool
    /// A shared connection that no longer has a place in the pool; gone once it owes nothing.
    var isRetired = false

    /// Requests that wait to be handed over, in the order of the unsent runs.
    var outgoing = Buffer()
    /// The login, before it is handed over. Zeroed behind it.
    var login = Buffer(sensitive: true)
    /// The server's answer to the login, as far as it has come.
    var loginReply = Buffer()
    var queue = RunQueue()
    /// How many runs at the end of the queue are not handed over.
    var unsentRuns = 0
    var framer = ReplyFramer()
    /// Bytes of the reply in progress that have been delivered.
    var partialReply = 0
    /// Replies are matched by counting. Off for good once the session monitors, replicates, or
    /// does anything else that brings replies which cannot be counted: from then on its bytes are
    /// relayed.
    var isCounted = true
    var subscriptions = Subscriptions()
    /// A command of its session's that goes out in slices.
    var blocked: BlockedCommand?
    /// Another connection where the same command waits, to go on there.
    var second: UpstreamRef?
    /// The connection whose second this is.
    var first: UpstreamRef?
    /// Of a relayed connection: the server may have been told to send no replies.
    var mayBeSilent = false
    /// Of a relayed connection: what is looked for in the bytes that come.
    var sentinel: Sentinel?
    /// Bytes that may be the beginning of its answer. On a counted connection the beginning of an
    /// answer that has to be looked at.
    var heldBack = Buffer()

    /// The performer was last told to read replies.
    var isRead = true
    /// RESET has logged it out: nothing goes out before the login that follows.
    var needsLogin = false
    /// Reading is paused for the sake of this session, which leaves a big reply unread.
    var pausedFor: SessionRef?
    /// Bytes that this session has to take before its time to do so begins anew.
    var takenForMore = 0
    /// The client is finished: say so to the server when all is handed over.
    var endsAfterOutgoing = false
    /// The server was told so: nothing can be sent any more.
    var hasEnded = false
    var isDirty = false
    var isUnready = false

    /// Sessions that are blocked by `.upstream` or `.facts` on this connection.
    var waiters: [SessionRef] = []

    var failures = 0
    var lastFailure = Failure.unreachable
    /// When the present state ends by itself: pause over, or login unanswered for too long.
    var deadline = Instant(nanoseconds: 0)
    var readySince = Instant(nanoseconds: 0)
    /// When the last login on it was accepted.
    var loggedInAt = Instant(nanoseconds: 0)
    /// What the last login was tried with.
    var usedCredential: Credential?
    /// The server's number of the connection.
    var connectionID: Int64 = 0
    var renewal = Renewal.none
    /// The connection was subscribed when the login went out: its answer comes among messages,
    /// whatever the client has asked for since.
    var renewsAmongMessages = false
    /// What the renewal under way is tried with.
    var renewalCredential: Credential?
    /// What a renewal was last refused with.
    var refusedCredential: Credential?
    var renewalFailures = 0
    /// When the last of them was.
    var renewalFailedAt = Instant(nanoseconds: 0)
    var renewAt = Instant.never
    /// Its login could not be renewed and ends soon: see `giveUpAt`.
    var replaceAt = Instant.never
    /// It is too old, or not to be used any more for the reason beside it: see `giveUpAt`.
    var outdatedAt = Instant.never
    var outdatedFor = ReplacementReason.age
    /// What the server's errors said of the server itself, and in which words.
    var complaint = Complaint.none
    var complaintText: [UInt8] = []
    /// It is given up here, whatever is under way.
    var closeAt = Instant.never
    /// Requests were handed over since the connection is ready, or is its session's.
    package internal(set) var hasHandedOver = false
    /// What HELLO answers on this connection, before and after the connection's id.
    var helloHead: [UInt8] = []
    var helloTail: [UInt8] = []
    /// What it said of its mode there.
    var isCluster = false

    init(
        id: UInt64, pool: Int, _ shape: Pool, user: UserIndex, owner: SessionRef?, isShared: Bool
    ) {
        self.id = id
        self.pool = pool
        route = shape.route
        self.user = user
        protocolVersion = shape.protocolVersion
        database = shape.database
        self.owner = owner
        self.isShared = isShared
    }

    /// The client's end was passed on, or will be when all is handed over: nothing can be added.
    var isEnding: Bool { endsAfterOutgoing || hasEnded }

    /// Whether bytes from the server are welcome now.
    package var wantsReplies: Bool { pausedFor == nil }

    /// Requests of `session` were appended to `outgoing`.
    @inline(__always)
    mutating func note(
        _ session: SessionRef,
        _ requests: UInt32,
        _ bytes: Int,
        _ kind: RunKind,
        _ isMuted: Bool,
        _ now: Instant
    ) {
        let bytes = UInt32(truncatingIfNeeded: bytes)
        if unsentRuns > 0 && kind == .plain {
            let last = queue.last
            if last.pointee.session == session
                && (requests == 0
                    || (last.pointee.kind == .plain && last.pointee.isMuted == isMuted))
                && (requests == 0 || state == .ready || last.pointee.since == now)
            {
                last.pointee.replies &+= requests
                last.pointee.bytes &+= bytes
                return
            }
        }
        // The rest of a request whose run was handed over already needs no run of its own.
        guard requests > 0 else { return }
        queue.append(
            Run(
                session: session,
                replies: requests,
                bytes: bytes,
                kind: kind,
                isMuted: isMuted,
                since: now
            )
        )
        unsentRuns &+= 1
    }

    mutating func addWaiter(_ session: SessionRef) {
        if !waiters.contains(session) { waiters.append(session) }
    }

    /// Somebody waits for this connection.
    var isWanted: Bool {
        owner != nil || !queue.isEmpty
            || waiters.contains { $0.pointee.blocks.contains(.facts) }
    }

    var facts: UpstreamFacts {
        UpstreamFacts(
            connection: id,
            route: route,
            user: user,
            isShared: isShared,
            protocolVersion: Int(protocolVersion),
            database: database,
            failures: failures,
            isCluster: isCluster
        )
    }
}
