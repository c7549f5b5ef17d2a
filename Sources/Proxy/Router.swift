// The heart of a worker: which bytes go to which connection, and which replies to which client.
//
//      clients                         Router                              server
//   ┌──────────┐  didReceive   ┌──────────────────────┐  outgoing     ┌────────────────┐
//   │ session 1├──────────────►│ frame → class → lane ├──────────────►│ shared         │
//   │ session 2│               │   shared: append to  │               │ connection     │
//   │ session 3│◄──────────────┤   outgoing + a run   │◄──────────────┤ (per route and │
//   └──────────┘    output     │   own: a connection  │  didReceive   │  protocol)     │
//                              │   for one session    │               ├────────────────┤
//                              └──────────────────────┘               │ own connection │
//                                                                     └────────────────┘
//
// The router does no I/O and reads no clock. A performer (the worker, or a simulation) tells it
// what arrived and what time it is, and then carries out what it finds:
//
//   nextAction()          connect, disconnect, close, start or stop reading, write to the log
//   nextDirtySession()    has output to send
//   nextDirtyUpstream()   has bytes to hand over to TLS
//   reap()                frees what nobody refers to any more; called when the rest is done
//
// Invariants (checkInvariants): the replies owed to a session are the sum of its runs; a run lies
// in the queue of the connection that its session names; the bytes of the unsent runs are what is
// in `outgoing`; not one request byte is handed over by a connection that is not logged in.

package import Identity
import RESP

/// What the router wants done. Performed in order.
package enum Action {
    /// Resolve, connect and shake hands; then `didConnect` or `didFailToConnect`.
    case connect(UpstreamRef)
    /// Close the transport, whatever state it is in. Nothing is reported back.
    case disconnect(UpstreamRef)
    /// All was handed over and the client is finished: end the sending direction.
    case finishSending(UpstreamRef)
    /// Close the client's socket. Nothing is reported back.
    case closeSession(SessionRef)
    /// `wantsInput` has changed.
    case setSessionReading(SessionRef)
    /// `wantsReplies` has changed. Bytes that were received but not decrypted yet count as
    /// readable when reading starts again.
    case setUpstreamReading(UpstreamRef)
    /// Fetch this user's credential again and publish the result.
    case refreshCredential(UserIndex)
    /// Find out whether the client may log in so, and say so with `didVerifyLogin`.
    case verifyLogin(SessionRef, LoginAttempt)
    /// The client took back its login with RESET: the session is what it was opened as.
    case forgetLogin(SessionRef)
    case report(Event)
}

/// What a matched identity rule leads to.
package struct Route: Sendable {
    package let user: UserIndex
    /// One upstream connection per client instead of shared ones.
    package let isDedicated: Bool
    /// Who the sessions are, for the name under which their connections appear in CLIENT LIST and
    /// ACL LOG. Empty: that of the proxy alone.
    package let principal: String
    /// A login that nobody asked for is taken, whatever it is, and changes nothing.
    package let acceptsAnyLogin: Bool

    /// Pause before the second attempt to connect; doubles with each failure.
    package internal(set) var backoffMinimum: Duration
    /// The pause does not grow beyond this. Each pause is shortened by up to half, at random, so
    /// that many proxies do not return at the same moment.
    package internal(set) var backoffMaximum: Duration
    /// A connection that is older is replaced, each a little earlier at random. nil: never.
    package internal(set) var maximumAge: Duration?

    package init(
        user: UserIndex,
        isDedicated: Bool,
        principal: String = "",
        acceptsAnyLogin: Bool = false,
        backoffMinimum: Duration = .milliseconds(50),
        backoffMaximum: Duration = .seconds(2),
        maximumAge: Duration? = nil
    ) {
        self.user = user
        self.isDedicated = isDedicated
        self.principal = principal
        self.acceptsAnyLogin = acceptsAnyLogin
        self.backoffMinimum = backoffMinimum
        self.backoffMaximum = backoffMaximum
        self.maximumAge = maximumAge
    }
}

extension Route {
    /// `proxy:principal`, in what a server takes for a name; empty without a principal.
    func name(behind proxy: String) -> [UInt8] {
        guard !principal.isEmpty else { return [] }
        return "\(proxy):\(principal)".utf8.prefix(128).map {
            $0 >= 0x21 && $0 <= 0x7e ? $0 : UInt8(ascii: "_")
        }
    }
}

/// See the head of this file. Used on one thread.
package final class Router {
    var limits: Limits
    /// By number. Grows (`addRoute`), and what is in it stays.
    var routes: [Route] = []
    /// By route: no session is opened for it any more.
    var isRetired: [Bool] = []
    /// By route: its pool of RESP2 and database 0; that of RESP3 is the next.
    var firstPools: [Int] = []
    /// By route: the name under which shared connections appear in CLIENT LIST.
    var sharedNames: [[UInt8]] = []
    /// By route: the same of own connections whose client has not said its own. Empty: none.
    var ownNames: [[UInt8]] = []
    /// What those names begin with.
    let clientName: String
    var random: RandomSource

    package internal(set) var now = Instant(nanoseconds: 0)

    /// By user. nil: not fetched yet.
    var credentials: [CredentialSnapshot?]

    /// By user: what it may do, as far as the server has shown.
    var permissions: [Permissions]
    /// By user: the databases that it may select.
    var databases: [Set<Int>]
    /// By user: what its server is.
    var roles: [ServerRole]
    /// By user: its commands wait, see Router+Pause.swift.
    var isPaused: [Bool]
    /// So do those of users that come with another configuration.
    var pausesNewUsers = false

    /// For each route RESP2 then RESP3 of database 0 (`firstPools`); others as they are needed.
    var pools: [Pool] = []
    var otherPools: [Pool: Int] = [:]
    /// By pool: how many sessions are in it, and whether it had none at the last `trim`.
    var poolSessions: [Int] = []
    var wasUnused: [Bool] = []
    /// The shared places: for each pool `connectionsPerPool`.
    package internal(set) var shared: [UpstreamRef] = []
    /// By pool: connections that are logged in, in the state that the login left them in (but for
    /// the client's attributes), and nobody's.
    package internal(set) var spare: [[UpstreamRef]] = []
    /// By pool: how many spare ones nobody needed since the last `trim`.
    var unneeded: [Int] = []
    /// Connections that lost their place and still owe replies.
    package internal(set) var retired: [UpstreamRef] = []
    var firstSession: SessionRef?
    /// Sessions whose socket is open.
    package internal(set) var sessionCount = 0
    /// Own connections that exist.
    package internal(set) var pinnedCount = 0
    /// Sessions and connections that hold memory: those above, the shared places, and what is
    /// gone but still referred to. For tests, which look for leaks.
    package internal(set) var allocatedSessions = 0
    package internal(set) var allocatedUpstreams = 0
    var lastSessionID: UInt64 = 0
    var lastUpstreamID: UInt64 = 0
    /// By attempt: whose login is being verified.
    var logins: [UInt64: SessionRef] = [:]
    var lastAttempt: UInt64 = 0
    /// Sessions whose client has to log in first.
    package internal(set) var awaitingCount = 0
    package internal(set) var isDraining = false

    /// What is counted. Behind a pointer, so that counting is an addition and nothing else.
    let figures: UnsafeMutablePointer<Figures>

    /// Where a client's bytes arrive when none of them are waiting already.
    package let requestBuffer: UnsafeMutableRawBufferPointer
    /// Where the performer puts decrypted bytes before `didReceive(_:from:)`. What was delivered
    /// from it must be sent, or given up with `didSend`, before it is filled again.
    package let replyBuffer: UnsafeMutableRawBufferPointer

    var actions: [Action] = []
    var performed = 0
    var dirtySessions: [SessionRef] = []
    var dirtyUpstreams: [UpstreamRef] = []
    var runnable: [SessionRef] = []
    /// Connections on their way to being ready, looked at by `tick`.
    var unready: [UpstreamRef] = []
    /// No login is due before this.
    var nextRenewal = Instant.never
    /// Connections that are not read because a client leaves a big reply unread.
    var paused: [UpstreamRef] = []
    var pinWaiters: [SessionRef] = []
    /// Sessions with a command that may block, whose clients are not read: only looking for it
    /// tells whether they have ended. See `didSeeEnd`.
    package internal(set) var unwatched: [SessionRef] = []
    var deadSessions: [SessionRef] = []
    var deadUpstreams: [UpstreamRef] = []

    /// - Parameters:
    ///   - routes: what `openSession` may name.
    ///   - userCount: users are numbered from 0.
    ///   - clientName: without spaces or control characters.
    ///   - seed: of the jitter.
    package init(
        limits: Limits,
        routes: [Route],
        userCount: Int,
        clientName: String,
        seed: UInt64
    ) {
        self.limits = limits
        self.clientName = clientName
        random = RandomSource(seed: seed)
        credentials = Array(repeating: nil, count: userCount)
        permissions = Array(repeating: [], count: userCount)
        databases = Array(repeating: [], count: userCount)
        roles = Array(repeating: ServerRole(), count: userCount)
        isPaused = Array(repeating: false, count: userCount)
        figures = .allocate(capacity: 1)
        figures.initialize(to: Figures())
        requestBuffer = .allocate(byteCount: limits.receiveBuffer, alignment: 64)
        replyBuffer = .allocate(byteCount: limits.replyChunk, alignment: 64)
        actions.reserveCapacity(256)
        dirtySessions.reserveCapacity(1024)
        dirtyUpstreams.reserveCapacity(64)
        runnable.reserveCapacity(1024)
        for route in routes { addRoute(route) }
    }

    deinit {
        while let session = firstSession {
            unlink(session)
            destroy(session)
        }
        for session in deadSessions { destroy(session) }
        for upstream in shared + spare.joined() + retired + deadUpstreams { destroy(upstream) }
        figures.deinitialize(count: 1)
        figures.deallocate()
        requestBuffer.deallocate()
        replyBuffer.deallocate()
    }

    // MARK: What the performer takes

    /// The next thing to do; nil when there is nothing left.
    package func nextAction() -> Action? {
        guard performed < actions.count else {
            actions.removeAll(keepingCapacity: true)
            performed = 0
            return nil
        }
        defer { performed += 1 }
        return actions[performed]
    }

    /// A session with output to send, once.
    package func nextDirtySession() -> SessionRef? {
        while let session = dirtySessions.popLast() {
            session.pointee.isDirty = false
            if session.pointee.phase != .gone { return session }
        }
        return nil
    }

    /// A connection with bytes to hand over, once.
    package func nextDirtyUpstream() -> UpstreamRef? {
        while let upstream = dirtyUpstreams.popLast() {
            upstream.pointee.isDirty = false
            if upstream.pointee.state != .gone { return upstream }
        }
        return nil
    }

    /// Frees sessions and connections that ended. All actions must have been performed.
    package func reap() {
        precondition(performed == actions.count || actions.isEmpty)
        if !deadSessions.isEmpty {
            dirtySessions.removeAll { $0.pointee.phase == .gone }
            for session in deadSessions { destroy(session) }
            deadSessions.removeAll(keepingCapacity: true)
        }
        if !deadUpstreams.isEmpty {
            dirtyUpstreams.removeAll { $0.pointee.state == .gone }
            unready.removeAll { $0.pointee.state == .gone }
            for upstream in deadUpstreams { destroy(upstream) }
            deadUpstreams.removeAll(keepingCapacity: true)
        }
    }

    /// Moves the clock. Never backwards.
    package func advance(to instant: Instant) {
        if instant > now { now = instant }
    }

    // MARK: Pools

    @discardableResult
    func addPool(_ pool: Pool) -> Int {
        pools.append(pool)
        poolSessions.append(0)
        wasUnused.append(false)
        spare.append([])
        unneeded.append(0)
        let index = pools.count - 1
        for _ in 0..<limits.connectionsPerPool {
            shared.append(makeUpstream(pool: index, owner: nil))
        }
        return index
    }

    /// Index of a pool, which is made if there is none like it.
    func pool(route: Int, _ version: UInt8, database: Int) -> Int {
        if database == 0 { return firstPools[route] &+ Int(version) &- 2 }
        let pool = Pool(route: route, protocolVersion: version, database: database)
        if let index = otherPools[pool] { return index }
        let index = addPool(pool)
        otherPools[pool] = index
        return index
    }

    /// Index of a pool's first place in `shared`.
    func firstShared(_ pool: Int) -> Int { pool &* limits.connectionsPerPool }

    /// The connection of a pool for a session that is owed nothing: that with the shortest queue.
    func sharedUpstream(_ pool: Int) -> UpstreamRef {
        let first = firstShared(pool)
        var best = shared[first]
        if limits.connectionsPerPool > 1 {
            for index in first..<first + limits.connectionsPerPool
            where shared[index].pointee.queue.count < best.pointee.queue.count {
                best = shared[index]
            }
        }
        return best
    }

    // MARK: Life and death

    /// A new connection for the sessions of a pool.
    ///
    /// - Parameter isShared: nil: if it has no owner.
    func makeUpstream(
        pool: Int, owner: SessionRef?, isShared: Bool? = nil
    ) -> UpstreamRef {
        lastUpstreamID += 1
        allocatedUpstreams += 1
        let upstream = UpstreamRef.allocate(capacity: 1)
        upstream.initialize(
            to: Upstream(
                id: lastUpstreamID,
                pool: pool,
                pools[pool],
                user: routes[pools[pool].route].user,
                owner: owner,
                isShared: isShared ?? (owner == nil)
            )
        )
        return upstream
    }

    private func destroy(_ upstream: UpstreamRef) {
        allocatedUpstreams -= 1
        upstream.deinitialize(count: 1)
        upstream.deallocate()
    }

    private func destroy(_ session: SessionRef) {
        allocatedSessions -= 1
        session.deinitialize(count: 1)
        session.deallocate()
    }

    func unlink(_ session: SessionRef) {
        let (previous, next) = (session.pointee.previous, session.pointee.next)
        if let previous { previous.pointee.next = next } else { firstSession = next }
        next?.pointee.previous = previous
        session.pointee.previous = nil
        session.pointee.next = nil
    }

    // MARK: Marks

    @inline(__always)
    func markDirty(_ session: SessionRef) {
        guard !session.pointee.isDirty else { return }
        session.pointee.isDirty = true
        dirtySessions.append(session)
    }

    @inline(__always)
    func markDirty(_ upstream: UpstreamRef) {
        guard !upstream.pointee.isDirty else { return }
        upstream.pointee.isDirty = true
        dirtyUpstreams.append(upstream)
    }

    func report(_ event: Event) {
        actions.append(.report(event))
    }

    /// The session's requests may be looked at again.
    func unblock(_ session: SessionRef, _ block: Session.Blocks) {
        guard !session.pointee.blocks.isDisjoint(with: block) else { return }
        session.pointee.blocks.subtract(block)
        guard session.pointee.blocks.isEmpty, !session.pointee.isRunnable else { return }
        session.pointee.isRunnable = true
        runnable.append(session)
    }

    /// Runs the sessions that were unblocked, until none is left. Ends every event.
    func settle() {
        while true {
            // First, or whoever gave a connection back would take it again and again.
            if !pinWaiters.isEmpty { wakePinWaiter() }
            guard let session = runnable.popLast() else { return }
            session.pointee.isRunnable = false
            resume(session)
        }
    }

    /// Tells the performer to start or stop reading, if that has changed.
    @inline(__always)
    func updateReading(_ session: SessionRef) {
        let wanted = session.pointee.wantsInput
        if !wanted && session.pointee.mayBlock { noteUnwatched(session) }
        guard wanted != session.pointee.isRead, session.pointee.phase != .gone else { return }
        session.pointee.isRead = wanted
        if wanted { session.pointee.lastPart = now }
        actions.append(.setSessionReading(session))
    }
}
