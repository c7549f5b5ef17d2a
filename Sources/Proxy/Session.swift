// One client connection's life, as the proxy sees it.
//
//            FIN from the client               everything owed is delivered
//     open ───────────────────────► finished ─────────────────────────────┐
//      │                                │                                 ▼
//      │ QUIT, violation, error in      │ the same                      gone ──► freed, once no
//      ├─ place of state, loss, drain ──┴──────────► closing ────────────►▲      connection owes
//      │                                      (unread output goes first)  │      it a reply
//      └───────────── reset, or a failed write ───────────────────────────┘
//
//     open      requests are read, framed and passed on
//     finished  no more bytes will come; what came is still served
//     closing   nothing more is read or passed on; what is in `output` still goes out
//     gone      the socket is closed; replies still owed are counted and thrown away
//
// A session runs in one of two lanes. In the shared lane its plain commands go to a connection
// that it shares; a command that ties itself to its connection moves it, once nothing is owed, to
// the own lane, where one upstream connection serves it alone until nothing ties them any more.

import RESP

/// Where a session lives: allocated by the router, valid until `Action.closeSession` was
/// performed and the router reaped it.
package typealias SessionRef = UnsafeMutablePointer<Session>

/// See the head of this file.
package struct Session: ~Copyable {
    enum Phase: UInt8 {
        case open
        case finished
        case closing
        case gone
    }

    enum Lane: UInt8 {
        case shared
        case own
    }

    /// Why requests of this session are not looked at right now. Empty: they are.
    struct Blocks: OptionSet {
        let rawValue: UInt16
        /// As many requests in flight as its replies' sizes allow.
        static let window = Blocks(rawValue: 1)
        /// The client has not read what it was sent.
        static let output = Blocks(rawValue: 2)
        /// The upstream connection has enough bytes waiting.
        static let upstream = Blocks(rawValue: 4)
        /// The next request must wait until nothing is owed.
        static let quiet = Blocks(rawValue: 8)
        /// HELLO waits for a connection of the wanted protocol.
        static let facts = Blocks(rawValue: 16)
        /// The answer to a stand-in for the client's AUTH or HELLO has to come first.
        static let substitute = Blocks(rawValue: 32)
        /// The answer to RESET has to come first.
        static let reset = Blocks(rawValue: 64)
        /// Waiting for another session to give up its own connection.
        static let pin = Blocks(rawValue: 128)
        /// The server's word on a change of the session's state has to come first.
        static let state = Blocks(rawValue: 256)
        /// The client's login is being verified.
        static let login = Blocks(rawValue: 512)
        /// A command that goes out in slices has to be answered first.
        static let blocked = Blocks(rawValue: 1024)
    }

    /// Which replies the client wants (CLIENT REPLY).
    enum Replies: UInt8 {
        case on
        case off
        /// None to the next request.
        case skip
        /// None to the request that is being dealt with; then `on`.
        case skipping
    }

    /// What the server was asked to agree to.
    enum Change {
        case database(Int)
        case hello(version: UInt8, name: [UInt8]?)
        case name([UInt8])
        /// Nothing changes: the client asked for its name, and whether it wants the answer.
        case ownName(isWanted: Bool)
        case libraryName([UInt8])
        case libraryVersion([UInt8])
        case replies(Replies)
    }

    /// Number of this session in its worker's life; in the log, and what a client is told its
    /// connection id is as long as it has no connection of its own.
    package let id: UInt64
    /// Index into the router's routes; -1 while the client has to log in first.
    package internal(set) var route: Int
    /// The route that the session was opened with, and has again behind RESET.
    let home: Int
    /// A login of the client's is verified, instead of taken for one that nobody asked for.
    var mayLogIn = false
    /// The route is that of the client's login.
    var isLoggedIn = false
    var login: PendingLogin?
    var loginDeadline = Instant(nanoseconds: 0)
    /// Owned by whoever performs the router's actions; the router never looks at it.
    package var performer: UnsafeMutableRawPointer?

    var phase = Phase.open
    var lane = Lane.shared
    var blocks = Blocks()
    /// Why the session ends or has ended; of meaning once it does.
    package internal(set) var closeReason = CloseReason.clientClosed
    /// Requests that were taken from the client, the answered ones and those passed on alike.
    package internal(set) var commands: UInt64 = 0
    /// Index into the router's pools; -1 while the client has to log in first.
    var pool: Int
    /// 2 or 3: what the client speaks, and so the protocol of the connections that serve it.
    var protocolVersion: UInt8 = 2
    var replies = Replies.on
    var attributes = ClientAttributes()
    /// Waits for the server's agreement (blocks.state).
    var change: Change?

    /// Wants a connection of its own although its commands would do without: dedicated mode, big
    /// replies. It makes do with a shared one while there is none.
    var prefersOwn = false
    /// Part of a request was already passed on (own lane), and its reply counted as owed.
    var isMidRequest = false
    /// Bytes of a request that cannot be framed followed; answered once nothing else is owed.
    var violation: ProtocolViolation?
    /// Something was sent on the own connection that ties to it what comes after, so that an error
    /// in the place of a request ends the session.
    var carriesState = false
    /// Commands on the own connection that wait for others (BLPOP and its kin) and are not answered.
    var blocking: UInt32 = 0
    /// Delivered instead of the next reply.
    var substitute: [UInt8]?
    /// A RESP2 client that is subscribed, or on the way there or back, on a connection that speaks
    /// RESP3: each of its requests is looked at, for there are few that it may send.
    var isLimited = false
    /// The performer was last told to read from the client.
    var isRead = true
    var isDirty = false
    var isRunnable = false

    /// Replies that are to come for requests that were passed on.
    var owed: UInt32 = 0
    var window: UInt32
    var windowCap: UInt32
    /// Replies and their bytes since the window was last judged.
    var recentReplies: UInt32 = 0
    var recentReplyBytes = 0

    /// Bytes that are read although they have to wait, while a command may block: behind them
    /// stands the client's end.
    let keptInput: Int
    var framer = RequestFramer()
    /// Requests that are incomplete or have to wait. May hold an AUTH, hence sensitive.
    var input = Buffer(sensitive: true)
    /// Replies that the client's socket did not take yet.
    var output = Buffer()
    /// Replies in the router's reply buffer, to be sent from there; comes after `output`, which
    /// is empty whenever this is not.
    var directStart: UnsafeRawPointer?
    var directCount = 0

    /// The connection that owes replies to this session, or serves it alone.
    package internal(set) var upstream: UpstreamRef?
    /// Why it is in the own lane, and since when; of meaning while it is.
    var pinReason = PinReason.lasting
    var pinnedSince = Instant(nanoseconds: 0)
    /// When the present wait (blocks.facts, blocks.pin, an unread big reply) began.
    var waitingSince = Instant(nanoseconds: 0)
    /// When the last part of the request in progress came; of meaning while `isMidRequest`.
    var lastPart = Instant(nanoseconds: 0)
    /// On the router's list of those whose end nobody would notice.
    var isUnwatched = false

    var previous: SessionRef?
    var next: SessionRef?

    init(id: UInt64, route: Int, pool: Int, prefersOwn: Bool, limits: Limits) {
        self.id = id
        self.route = route
        home = route
        self.pool = pool
        self.prefersOwn = prefersOwn
        keptInput = limits.keptInput
        window = limits.initialWindow
        windowCap = limits.initialWindow
    }

    /// The client has to log in first.
    var isAwaitingLogin: Bool { pool < 0 }

    /// The server may be keeping a command of this session waiting.
    var mayBlock: Bool { blocking > 0 }

    /// Whether bytes from the client are welcome now.
    package var wantsInput: Bool {
        phase == .open && (blocks.isEmpty || (mayBlock && input.count < keptInput))
    }

    var unsent: Int { output.count &+ directCount }

    /// The client wants no reply to the request that is being dealt with.
    var isMuted: Bool { replies == .off || replies == .skipping }
}
