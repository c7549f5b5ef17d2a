// What the worker keeps for each session and each upstream connection: the descriptor and its
// watcher. Everything about the protocol is in the router's Session and Upstream.
//
//     Session.performer  ──► ClientSocket   ──► descriptor
//     Upstream.performer ──► UpstreamSocket ──► descriptor, SecureStream
//
// Both live at an address that does not change, since libev keeps the watcher's. What was closed
// is freed at the end of the loop turn, because the callback that led to it may still look at it.

import Identity
import Proxy
import Transport

/// A client's socket, and who the client is.
struct ClientSocket {
    var watcher = IOWatcher()
    let descriptor: Int32
    let session: SessionRef
    let worker: Unmanaged<Worker>
    let client: Client
    let listener: Int
    /// Whether the kernel was asked whose the connection is.
    let wasAsked: Bool
    /// The number of its rule; nil: it has not logged in.
    var route: Int?
    /// What a login leads to, as long as it is not known whether the session could follow it.
    var nextRoute: Int?
    /// Its login that is being judged.
    var attempt: UInt64?
    /// What it came in as.
    let firstRoute: Int?
    /// The rules that a login can make it.
    var logins: [Int]
    /// When it came, in nanoseconds of the loop's clock.
    let openedAt: UInt64
    var received: UInt64 = 0
    var sent: UInt64 = 0
    /// What of this is in the worker's tally already.
    var accounted = SessionFigures()
    /// The gather window's: when it was last heard of.
    var lastPeriod: UInt32 = 0
    /// The socket is full: nothing is sent before it is writable again.
    var isBlocked = false
    var isClosed = false
}

typealias ClientSocketRef = UnsafeMutablePointer<ClientSocket>

/// A connection to the server on its way up, or up.
final class UpstreamSocket {
    enum Phase {
        case resolving
        /// TCP: waits to become writable.
        case connecting
        case handshaking
        case open
        case closed
    }

    var watcher = IOWatcher()
    var timer = TimerWatcher()
    let id: UInt64
    let upstream: UpstreamRef
    let target: UpstreamTarget
    /// The worker outlives its sockets.
    unowned(unsafe) let worker: Worker
    var phase = Phase.resolving
    var descriptor: Int32 = -1
    var stream: SecureStream?
    /// What is left to try of what the name resolved to.
    var addresses: ArraySlice<SocketAddress> = []
    var address: SocketAddress?
    /// What went wrong with the addresses tried so far.
    var failures: [String] = []
    /// close_notify is queued; the sending direction ends when it has gone.
    var endsAfterFlush = false

    init(id: UInt64, upstream: UpstreamRef, target: UpstreamTarget, worker: Worker) {
        self.id = id
        self.upstream = upstream
        self.target = target
        self.worker = worker
    }
}
