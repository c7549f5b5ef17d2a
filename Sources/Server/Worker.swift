// One thread of the data plane: it performs on sockets what its router decides.
//
//      one loop turn
//   ┌──────────────────────────────────────────────────────────────────────────────────────┐
//   │ each ready client:     one recv ──► router.didReceive                                │
//   │ each ready upstream:   one recv ──► decrypt ──► router.didReceive ──► one send per   │
//   │                                                                       client         │
//   │ turn end:              each touched upstream: encrypt all, one send                  │
//   │                        each session with an answer of our own: one send              │
//   └──────────────────────────────────────────────────────────────────────────────────────┘
//
// Nothing is shared with other workers. What comes from other threads comes through one mailbox:
// accepted clients, credentials, resolved names, and the orders to drain and to stop.

import Glibc
import Identity
import Logging
import Proxy
import Synchronization
import Transport

/// What other threads tell a worker.
enum WorkerMessage: Sendable {
    case client(Arrival)
    /// What became of a client's login.
    case verified(attempt: UInt64, route: Int?)
    case credential(UserIndex, CredentialSnapshot)
    case resolved(UInt64, ResolveResult)
    case follow(Succession)
    case report(Inquiry<ReportQuestion, WorkerReport>)
    case order(Inquiry<Order, OrderAnswer>)
    case pulse(Pulse)
    case drain
    /// Ends what is left.
    case stop
}

/// The part of a worker that other threads may touch.
final class WorkerHandle: Sendable {
    let mailbox = Mailbox<WorkerMessage>()
    /// Clients that were given to this worker and have not left.
    let sessions = Atomic(0)
}

/// See the head of this file.
final class Worker {
    /// Grain of the router's time-outs while it has any.
    private static let tick: UInt64 = 20_000_000
    /// How long after a login that failed, of a user that nobody waits for, the next is tried.
    private static let warmPause: UInt64 = 1_000_000_000
    /// How often connections that nobody needs are closed.
    private static let trimInterval: UInt64 = 10_000_000_000
    /// Ciphertext waiting for the kernel above which no more is handed over.
    private static let ciphertextLimit = 131_072

    /// Its place among the workers.
    private let number: Int
    private var configuration: ServerConfiguration
    let handle: WorkerHandle
    private let loop: EventLoop
    private let router: Router
    private let pool = ChunkPool()
    private let resolver: Resolver
    private var verifier: LoginVerifier?
    private var counts: SessionCounts
    private let refresh: @Sendable (UserIndex) -> Void
    private let metCluster: @Sendable (UserIndex) -> Void
    private var log: EventLog
    private var tally: Tally
    private var gathering = GatherWindow()
    private let ticker: UnsafeMutablePointer<TimerWatcher>
    private let trimmer: UnsafeMutablePointer<TimerWatcher>

    /// By attempt: logins that are being judged, of clients that are still there.
    private var trials: [UInt64: (client: ClientSocketRef, name: String?)] = [:]
    private var closedClients: [ClientSocketRef] = []
    /// By upstream id: so that an answer of the resolver finds its socket, or finds it gone.
    private var upstreams: [UInt64: UpstreamSocket] = [:]
    private var closedUpstreams: [UpstreamSocket] = []
    /// Upstream connections that may be read again and may have bytes received before.
    private var resumed: [UInt64] = []
    private var isWarm = false
    private let warmer: UnsafeMutablePointer<TimerWatcher>
    /// Doubles with each attempt in vain, up to `trimInterval`.
    private var warmPause = Worker.warmPause
    /// Users that the router knows, and credentials of some that it does not know yet.
    private var userCount: Int
    private var early: [UserIndex: CredentialSnapshot] = [:]
    /// Users of whose credential anything has been said in this configuration.
    private var told: Set<UserIndex> = []

    /// - Parameters:
    ///   - refresh: asks for a user's credential to be fetched again; must not block.
    ///   - metCluster: told as whom each connection to a server of a cluster has logged in; must not
    ///     block.
    init(
        number: Int,
        configuration: ServerConfiguration,
        handle: WorkerHandle,
        resolver: Resolver,
        verifier: LoginVerifier?,
        counts: SessionCounts,
        logger: Logger,
        seed: UInt64,
        refresh: @escaping @Sendable (UserIndex) -> Void,
        metCluster: @escaping @Sendable (UserIndex) -> Void
    ) throws(SystemError) {
        self.number = number
        self.configuration = configuration
        tally = Tally(configuration)
        userCount = configuration.users.count
        self.handle = handle
        self.resolver = resolver
        self.verifier = verifier
        self.counts = counts
        self.refresh = refresh
        self.metCluster = metCluster
        log = EventLog(configuration: configuration, logger: logger)
        loop = try EventLoop()
        router = Router(
            limits: configuration.limits,
            routes: configuration.routes.map(configuration.route),
            userCount: configuration.users.count,
            clientName: "redis-auth-proxy",
            seed: seed
        )
        ticker = .allocate(capacity: 1)
        ticker.initialize(to: TimerWatcher())
        trimmer = .allocate(capacity: 1)
        trimmer.initialize(to: TimerWatcher())
        warmer = .allocate(capacity: 1)
        warmer.initialize(to: TimerWatcher())
    }

    deinit {
        ticker.deinitialize(count: 1)
        ticker.deallocate()
        trimmer.deinitialize(count: 1)
        trimmer.deallocate()
        warmer.deinitialize(count: 1)
        warmer.deallocate()
    }

    private var pointer: UnsafeMutableRawPointer { Unmanaged.passUnretained(self).toOpaque() }

    /// Runs until the worker is drained or stopped.
    func run() {
        let now = Instant(nanoseconds: monotonicNanoseconds())
        router.advance(to: now)
        handle.mailbox.attach(to: loop) { [unowned self] messages in
            for message in messages { receive(message) }
            // Not before the first credentials, which lie in the mailbox from the beginning.
            warm()
        }
        ticker.pointee.prepare(
            loop: loop,
            callback: { owner in
                Unmanaged<Worker>.fromOpaque(owner)._withUnsafeGuaranteedRef { $0.onTick() }
            },
            owner: pointer
        )
        trimmer.pointee.prepare(
            loop: loop,
            callback: { owner in
                Unmanaged<Worker>.fromOpaque(owner)._withUnsafeGuaranteedRef { $0.onTrim() }
            },
            owner: pointer
        )
        trimmer.pointee.start(after: Self.trimInterval)
        warmer.pointee.prepare(
            loop: loop,
            callback: { owner in
                Unmanaged<Worker>.fromOpaque(owner)._withUnsafeGuaranteedRef { $0.onWarm() }
            },
            owner: pointer
        )
        loop.onTurnEnd(
            { owner in
                Unmanaged<Worker>.fromOpaque(owner)._withUnsafeGuaranteedRef { $0.onTurnEnd() }
            },
            owner: pointer
        )
        loop.run()
        shutDown()
    }

    /// Connects upstream ahead of the first client: it will wait less, and the operator sees at
    /// once what is wrong.
    private func warm() {
        guard !isWarm else { return }
        isWarm = true
        // One for each user of each listener: what is wrong with a user shows there.
        var warmed: [(listener: Int, user: UserIndex)] = []
        for (number, route) in configuration.routes.enumerated()
        where !route.isDedicated && !route.isRetired
            && !warmed.contains(where: { $0 == (route.listener, route.rule.user) })
        {
            guard told.contains(route.rule.user) else {
                isWarm = false
                continue
            }
            warmed.append((route.listener, route.rule.user))
            router.warm(route: number)
        }
        perform()
    }

    /// Leaves nothing open behind.
    private func shutDown() {
        router.endAll()
        perform()
        ticker.pointee.stop()
        trimmer.pointee.stop()
        warmer.pointee.stop()
        for socket in upstreams.values { close(socket) }
        upstreams = [:]
        for message in handle.mailbox.close() {
            switch message {
            case .client(let arrival): turnAway(arrival)
            case .report(let inquiry): answer(inquiry)
            case .order(let inquiry): inquiry.excuse(number)
            case .pulse(let pulse): pulse.answer()
            default: break
            }
        }
        free()
        closedUpstreams = []
    }

    // MARK: Messages

    private func receive(_ message: WorkerMessage) {
        advance()
        switch message {
        case .client(let arrival):
            open(arrival)
        case .verified(let attempt, let route):
            didVerify(attempt, route)
        case .credential(let user, let snapshot):
            publish(snapshot, for: user)
        case .resolved(let id, let result):
            if let socket = upstreams[id] { didResolve(socket, result) }
        case .follow(let succession):
            follow(succession)
        case .report(let inquiry):
            answer(inquiry)
        case .order(let inquiry):
            inquiry.answer(carryOut(inquiry.question), of: number)
        case .pulse(let pulse):
            pulse.answer()
        case .drain:
            router.drain()
        case .stop:
            router.endAll()
            loop.stop()
        }
        perform()
    }

    /// A client that came when there was nobody to take it in any more.
    private func turnAway(_ arrival: Arrival) {
        Socket.close(arrival.descriptor)
        counts.places(of: arrival.route).giveBack()
        handle.sessions.subtract(1, ordering: .relaxed)
    }

    private func open(_ arrival: Arrival) {
        guard !router.isDraining else {
            turnAway(arrival)
            return
        }
        let session =
            arrival.route.map { router.openSession(route: $0, mayLogIn: !arrival.logins.isEmpty) }
            ?? router.openSessionAwaitingLogin()
        let client = ClientSocketRef.allocate(capacity: 1)
        client.initialize(
            to: ClientSocket(
                descriptor: arrival.descriptor,
                session: session,
                worker: Unmanaged.passUnretained(self),
                client: arrival.client,
                listener: arrival.listener,
                wasAsked: arrival.client.address == nil
                    || configuration.listeners[arrival.listener].rules
                        .contains(where: \.needsAccount),
                route: arrival.route,
                firstRoute: arrival.route,
                logins: arrival.logins,
                openedAt: loop.now
            )
        )
        log.opened(
            session.pointee.id, arrival.client, listener: arrival.listener, route: arrival.route)
        session.pointee.performer = UnsafeMutableRawPointer(client)
        tally.update(listener: arrival.listener, route: arrival.route) { $0.opened &+= 1 }
        client.pointee.watcher.prepare(
            loop: loop,
            descriptor: arrival.descriptor,
            callback: { owner, readiness in
                let client = owner.assumingMemoryBound(to: ClientSocket.self)
                client.pointee.worker._withUnsafeGuaranteedRef {
                    $0.onReady(client, Readiness(rawValue: readiness))
                }
            },
            owner: UnsafeMutableRawPointer(client)
        )
        client.pointee.watcher.start(.read)
    }

    // MARK: Other configurations

    /// A user that this worker does not know yet is about to be made known.
    private func publish(_ snapshot: CredentialSnapshot, for user: UserIndex) {
        log.note(snapshot, for: user)
        told.insert(user)
        if user.rawValue < userCount {
            router.publish(snapshot, for: user)
        } else {
            early[user] = snapshot
        }
    }

    /// Goes over to another configuration, and ends the sessions that it leaves no room for.
    private func follow(_ succession: Succession) {
        let old = configuration.routes
        configuration = succession.configuration
        counts = succession.counts
        verifier = succession.verifier
        log.configuration = configuration
        tally.grow(to: configuration)
        // The credentials of its users, all of them, come behind it.
        told = Set(early.keys)
        while userCount < configuration.users.count {
            let user = router.addUser()
            userCount += 1
            if let snapshot = early.removeValue(forKey: user) {
                router.publish(snapshot, for: user)
            }
        }
        router.follow(configuration.limits)
        loop.holdTurnsApart(by: configuration.gathers ? gathering.length : 0)
        for (number, route) in configuration.routes.enumerated() {
            if number < old.count {
                let target = configuration.target(of: route)
                router.changePauses(
                    ofRoute: number, from: target.reconnectMinimum, to: target.reconnectMaximum)
                router.changeMaximumAge(ofRoute: number, to: target.connectionMaximumAge)
            }
            if number >= old.count {
                router.addRoute(configuration.route(route))
            } else if route.isRetired != old[number].isRetired {
                if route.isRetired {
                    router.retire(route: number)
                } else {
                    router.revive(route: number)
                }
            }
        }
        router.endSessions { session in
            guard let performer = session.pointee.performer else { return false }
            return !review(performer.assumingMemoryBound(to: ClientSocket.self))
        }
        isWarm = false
    }

    /// Whether a client may stay what it is; what it can become by logging in is brought up to date.
    private func review(_ client: ClientSocketRef) -> Bool {
        // It may be on its way there, which nobody could follow any more.
        if let next = client.pointee.nextRoute, configuration.routes[next].isRetired {
            return false
        }
        var known = client.pointee.client
        let rules = configuration.listeners[client.pointee.listener].rules
        if known.address == nil, rules.contains(where: \.needsGroups) {
            let peer = PeerCredentials.ofUnixPeer(client.pointee.descriptor, withGroups: true)
            // Who it is was settled when it came; only its groups were not kept.
            if let peer, peer.userID == known.userID { known.groupIDs = peer.groupIDs }
        }
        let logins = configuration.reviewed(
            Standing(
                listener: client.pointee.listener,
                client: known,
                wasAsked: client.pointee.wasAsked,
                route: client.pointee.route,
                firstRoute: client.pointee.firstRoute,
                logins: client.pointee.logins
            ))
        guard let logins else { return false }
        client.pointee.logins = logins
        return true
    }

    // MARK: Turns

    private func advance() {
        router.advance(to: Instant(nanoseconds: loop.now))
    }

    private func onTick() {
        advance()
        router.tick()
        perform()
        if !router.unwatched.isEmpty { lookForEnds() }
        if router.wantsTicks { ticker.pointee.start(after: Self.tick) }
    }

    /// Clients that are not read, and whose end must be noticed all the same.
    private func lookForEnds() {
        for session in router.unwatched {
            guard let performer = session.pointee.performer else { continue }
            let client = performer.assumingMemoryBound(to: ClientSocket.self)
            switch Socket.probe(client.pointee.descriptor) {
            case .open: break
            case .ended: router.didSeeEnd(of: session)
            case .lost: router.didLose(session)
            }
        }
        perform()
    }

    private func onTrim() {
        advance()
        router.trim()
        perform()
        trimmer.pointee.start(after: Self.trimInterval)
    }

    private func onTurnEnd() {
        while let id = resumed.popLast() {
            if let socket = upstreams[id] { pump(socket) }
        }
        var more = true
        while more {
            more = false
            while let upstream = router.nextDirtyUpstream() {
                more = true
                flush(upstream)
            }
            while let session = router.nextDirtySession() {
                more = true
                flush(session)
            }
            perform()
        }
        if !resumed.isEmpty { loop.runAnotherTurn() }
        router.reap()
        free()
        if gathering.endTurn(at: loop.now) && configuration.gathers {
            loop.holdTurnsApart(by: gathering.length)
        }
        if router.wantsTicks && !ticker.pointee.isActive {
            ticker.pointee.start(after: Self.tick)
        }
        if router.isDraining && router.sessionCount == 0 { loop.stop() }
    }

    private func free() {
        guard !closedClients.isEmpty || !closedUpstreams.isEmpty else { return }
        for client in closedClients {
            client.deinitialize(count: 1)
            client.deallocate()
        }
        closedClients.removeAll(keepingCapacity: true)
        closedUpstreams.removeAll(keepingCapacity: true)
    }

    /// Carries out what the router decided.
    private func perform() {
        while let action = router.nextAction() {
            switch action {
            case .connect(let upstream): connect(upstream)
            case .disconnect(let upstream):
                if let socket = upstreams[upstream.pointee.id] { close(socket) }
            case .finishSending(let upstream):
                if let socket = upstreams[upstream.pointee.id] { finishSending(socket) }
            case .closeSession(let session): close(session)
            case .setSessionReading(let session): updateInterest(session)
            case .setUpstreamReading(let upstream):
                if let socket = upstreams[upstream.pointee.id] { resume(socket) }
            case .refreshCredential(let user): refresh(user)
            case .verifyLogin(let session, let attempt): verify(session, attempt)
            case .forgetLogin(let session): didForgetLogin(session)
            case .report(let event):
                log.write(event, at: loop.now)
                note(event)
                if case .ready(let facts) = event, facts.isCluster { metCluster(facts.user) }
            }
        }
    }

    /// Counts what happened. A login that failed is tried again although nobody waits for it, so
    /// that whoever watches sees when the way there is free again.
    private func note(_ event: Event) {
        tally.note(event, at: loop.now)
        switch event {
        case .ready: warmPause = Self.warmPause
        case .connectFailed, .loginRefused, .noCredential:
            guard !warmer.pointee.isActive, !router.isDraining else { return }
            warmer.pointee.start(after: warmPause)
            warmPause = min(warmPause * 2, Self.trimInterval)
        default: break
        }
    }

    private func onWarm() {
        advance()
        for (number, route) in configuration.routes.enumerated()
        where !route.isDedicated && !route.isRetired {
            if case .failed = tally.byUser[route.rule.user.rawValue].outcome {
                router.warm(route: number)
            }
        }
        perform()
    }

    // MARK: Clients

    private func onReady(_ client: ClientSocketRef, _ readiness: Readiness) {
        advance()
        let session = client.pointee.session
        if readiness.contains(.write) && client.pointee.isBlocked {
            client.pointee.isBlocked = false
            flush(session)
            updateInterest(session)
        }
        if readiness.contains(.read) && !client.pointee.isClosed && session.pointee.wantsInput {
            switch Socket.receive(
                client.pointee.descriptor,
                into: router.receiveBuffer(for: session)
            ) {
            case .bytes(let count):
                gathering.note(&client.pointee.lastPeriod)
                client.pointee.received &+= UInt64(truncatingIfNeeded: count)
                router.didReceive(count, from: session)
            case .end: router.didReceiveEnd(from: session)
            case .wouldBlock: break
            case .failed: router.didLose(session)
            }
        }
        perform()
    }

    /// One send of what a session has.
    private func flush(_ session: SessionRef) {
        guard let performer = session.pointee.performer else { return }
        let client = performer.assumingMemoryBound(to: ClientSocket.self)
        if client.pointee.isClosed { return }
        let output = router.output(of: session)
        if output.isEmpty { return }
        if client.pointee.isBlocked {
            router.didSend(0, to: session)
            return
        }
        switch Socket.send(client.pointee.descriptor, output) {
        case .sent(let count):
            let isPartial = count < output.count
            client.pointee.sent &+= UInt64(truncatingIfNeeded: count)
            router.didSend(count, to: session)
            if isPartial { block(client) }
        case .wouldBlock:
            router.didSend(0, to: session)
            block(client)
        case .failed:
            router.didLose(session)
        }
    }

    private func block(_ client: ClientSocketRef) {
        client.pointee.isBlocked = true
        updateInterest(client.pointee.session)
    }

    private func updateInterest(_ session: SessionRef) {
        guard let performer = session.pointee.performer else { return }
        let client = performer.assumingMemoryBound(to: ClientSocket.self)
        if client.pointee.isClosed { return }
        var interest: Readiness = session.pointee.wantsInput ? .read : []
        if client.pointee.isBlocked { interest.insert(.write) }
        client.pointee.watcher.start(interest)
    }

    private func close(_ session: SessionRef) {
        guard let performer = session.pointee.performer else { return }
        session.pointee.performer = nil
        let client = performer.assumingMemoryBound(to: ClientSocket.self)
        client.pointee.isClosed = true
        client.pointee.watcher.stop()
        Socket.close(client.pointee.descriptor)
        handle.sessions.subtract(1, ordering: .relaxed)
        if let attempt = client.pointee.attempt { trials[attempt] = nil }
        settle(client)
        counts.places(of: client.pointee.route).giveBack()
        var figures = SessionFigures()
        figures.received = client.pointee.received
        figures.sent = client.pointee.sent
        figures.commands = session.pointee.commands
        figures.lifetime = loop.now &- client.pointee.openedAt
        let reason = session.pointee.closeReason
        log.closed(
            session.pointee.id, client.pointee.client, listener: client.pointee.listener,
            route: client.pointee.route, reason: reason, figures)
        settleAccount(client)
        tally.update(listener: client.pointee.listener, route: client.pointee.route) {
            $0.closed[Int(reason.rawValue)] &+= 1
        }
        closedClients.append(client)
    }

    // MARK: Logins

    /// Has a client's login judged.
    private func verify(_ session: SessionRef, _ attempt: LoginAttempt) {
        guard let performer = session.pointee.performer, let verifier else {
            router.didVerifyLogin(attempt: attempt.id, verdict: .refused)
            return
        }
        let client = performer.assumingMemoryBound(to: ClientSocket.self)
        let names = client.pointee.logins.compactMap { configuration.routes[$0].rule.login?.name }
        let name = names.first { $0.utf8.elementsEqual(attempt.name) }
        client.pointee.attempt = attempt.id
        trials[attempt.id] = (client, name)
        verifier.verify(
            LoginTrial(
                attempt: attempt.id,
                source: LoginSource(client.pointee.client),
                candidates: client.pointee.logins,
                name: attempt.name,
                secret: attempt.secret,
                worker: handle
            )
        )
    }

    private func didVerify(_ attempt: UInt64, _ route: Int?) {
        // Without it the client has left meanwhile.
        guard let (client, name) = trials.removeValue(forKey: attempt) else { return }
        client.pointee.attempt = nil
        let session = client.pointee.session.pointee.id
        // A reload may have taken the rule away meanwhile.
        guard let route, client.pointee.logins.contains(route) else {
            log.loginFailed(session, client.pointee.client, name: name, at: loop.now)
            tally.clientLoginsRefused[client.pointee.listener] &+= 1
            router.didVerifyLogin(attempt: attempt, verdict: .refused)
            return
        }
        settle(client)
        if route != client.pointee.route {
            guard counts.places(of: route).take() else {
                log.loginHadNoRoom(session, client.pointee.client, route: route, at: loop.now)
                tally.clientLoginsRefused[client.pointee.listener] &+= 1
                router.didVerifyLogin(attempt: attempt, verdict: .refused)
                return
            }
            client.pointee.nextRoute = route
        }
        log.loggedIn(session, client.pointee.client, route: route)
        tally.clientLogins[client.pointee.listener] &+= 1
        router.didVerifyLogin(attempt: attempt, verdict: .accepted(route: route))
        if client.pointee.session.pointee.route == route { settle(client) }
    }

    /// The client has taken its login back, and is what it came in as. There is always room for
    /// that: it was there before.
    private func didForgetLogin(_ session: SessionRef) {
        guard let performer = session.pointee.performer else { return }
        let client = performer.assumingMemoryBound(to: ClientSocket.self)
        settle(client)
        settleAccount(client)
        counts.places(of: client.pointee.firstRoute).takeAnyway()
        counts.places(of: client.pointee.route).giveBack()
        client.pointee.route = client.pointee.firstRoute
    }

    /// Of the two places that a client has while it is not known whether it can follow its login,
    /// gives back the one that it has not.
    private func settle(_ client: ClientSocketRef) {
        guard let next = client.pointee.nextRoute else { return }
        client.pointee.nextRoute = nil
        if client.pointee.session.pointee.route == next {
            settleAccount(client)
            counts.places(of: client.pointee.route).giveBack()
            client.pointee.route = next
        } else {
            counts.places(of: next).giveBack()
        }
    }

    // MARK: Orders

    private func carryOut(_ order: Order) -> OrderAnswer {
        var answer = OrderAnswer()
        for user in order.users(in: userCount) {
            switch order.kind {
            case .pause: router.pause(user)
            case .resume: router.resume(user)
            case .reconnect: router.reconnect(user)
            case .renew: router.renew(user)
            case .kill(let worker, let session):
                if worker == number && user == nil { answer.found = router.kill(session: session) }
            case .look: break
            }
            answer.unfinished = answer.unfinished + router.unfinished(of: user)
        }
        answer.isPaused = (0..<userCount).map { router.isPaused(UserIndex($0)) }
        return answer
    }

    // MARK: What others ask

    /// Adds to the tally what went through a session while it was what it is now.
    private func settleAccount(_ client: ClientSocketRef) {
        let commands = client.pointee.session.pointee.commands
        tally.update(listener: client.pointee.listener, route: client.pointee.route) {
            $0.commands &+= commands &- client.pointee.accounted.commands
            $0.received &+= client.pointee.received &- client.pointee.accounted.received
            $0.sent &+= client.pointee.sent &- client.pointee.accounted.sent
        }
        client.pointee.accounted.commands = commands
        client.pointee.accounted.received = client.pointee.received
        client.pointee.accounted.sent = client.pointee.sent
    }

    private func answer(_ inquiry: Inquiry<ReportQuestion, WorkerReport>) {
        let report = report(
            askedAt: inquiry.askedAt, sessionLimit: inquiry.question.sessionLimit)
        inquiry.question.archive.keep(report)
        inquiry.answer(report, of: number)
    }

    private func report(askedAt: UInt64, sessionLimit: Int) -> WorkerReport {
        let now = monotonicNanoseconds()
        var present = tally
        var waiting = WaitingSessions()
        var fullest = 0
        var sessions: [SessionReport] = []
        sessions.reserveCapacity(min(sessionLimit, router.sessionCount))
        router.forEachSession { session in
            guard let performer = session.pointee.performer else { return }
            let client = performer.assumingMemoryBound(to: ClientSocket.self)
            session.pointee.count(in: &waiting)
            fullest = max(fullest, session.pointee.unsentBytes)
            present.update(listener: client.pointee.listener, route: client.pointee.route) {
                $0.open += 1
                if session.pointee.pin != nil { $0.pinned += 1 }
                $0.owedReplies += session.pointee.owedReplies
                $0.unsent += session.pointee.unsentBytes
                $0.commands &+= session.pointee.commands &- client.pointee.accounted.commands
                $0.received &+= client.pointee.received &- client.pointee.accounted.received
                $0.sent &+= client.pointee.sent &- client.pointee.accounted.sent
            }
            guard sessions.count < sessionLimit else { return }
            sessions.append(
                SessionReport(
                    worker: number,
                    status: router.status(of: session),
                    listener: client.pointee.listener,
                    client: client.pointee.client,
                    received: client.pointee.received,
                    sent: client.pointee.sent,
                    openedAt: client.pointee.openedAt
                )
            )
        }
        return WorkerReport(
            worker: number,
            takenAt: now,
            lag: now &- min(now, askedAt),
            tally: present,
            figures: router.currentFigures,
            waiting: waiting,
            upstreams: router.upstreamStatuses,
            sessions: sessions,
            sessionCount: router.sessionCount,
            pinnedCount: router.pinnedCount,
            awaitingLoginCount: router.awaitingCount,
            fullestClient: fullest,
            isDraining: router.isDraining
        )
    }

    // MARK: Upstream: coming up

    private func connect(_ upstream: UpstreamRef) {
        let id = upstream.pointee.id
        let user = configuration.users[upstream.pointee.user.rawValue]
        let target = configuration.targets[user.target]
        let socket = UpstreamSocket(id: id, upstream: upstream, target: target, worker: self)
        upstream.pointee.performer = Unmanaged.passUnretained(socket).toOpaque()
        upstreams[id] = socket
        let owner = Unmanaged.passUnretained(socket).toOpaque()
        socket.timer.prepare(
            loop: loop,
            callback: { owner in
                Unmanaged<UpstreamSocket>.fromOpaque(owner)._withUnsafeGuaranteedRef {
                    $0.worker.onTimeout($0)
                }
            },
            owner: owner
        )
        let mailbox = handle.mailbox
        resolver.resolve(host: target.host, port: target.port) { result in
            mailbox.post(.resolved(id, result))
        }
        socket.timer.start(after: target.connectTimeout.nanoseconds)
    }

    private func didResolve(_ socket: UpstreamSocket, _ result: ResolveResult) {
        guard socket.phase == .resolving else { return }
        switch result {
        case .success(let addresses):
            socket.addresses = addresses[...]
            tryNext(socket)
        case .failure(let error):
            socket.failures = [error.description]
            giveUp(socket)
        }
    }

    /// Begins to connect to the next address; the name's others follow if that fails.
    private func tryNext(_ socket: UpstreamSocket) {
        drop(socket)
        while let address = socket.addresses.popFirst() {
            socket.address = address
            switch Socket.connect(to: address) {
            case .inProgress(let descriptor), .connected(let descriptor):
                socket.phase = .connecting
                socket.descriptor = descriptor
                socket.watcher.prepare(
                    loop: loop,
                    descriptor: descriptor,
                    callback: { owner, readiness in
                        Unmanaged<UpstreamSocket>.fromOpaque(owner)._withUnsafeGuaranteedRef {
                            $0.worker.onReady($0, Readiness(rawValue: readiness))
                        }
                    },
                    owner: Unmanaged.passUnretained(socket).toOpaque()
                )
                socket.watcher.start(.write)
                socket.timer.start(after: socket.target.connectTimeout.nanoseconds)
                return
            case .failed(let error):
                socket.failures.append("\(address): \(error)")
            }
        }
        giveUp(socket)
    }

    /// This address did not work out.
    private func fail(_ socket: UpstreamSocket, _ reason: String) {
        socket.failures.append("\(socket.address?.description ?? socket.target.address): \(reason)")
        tryNext(socket)
    }

    private func giveUp(_ socket: UpstreamSocket) {
        let reason = socket.failures.joined(separator: "; ")
        let upstream = socket.upstream
        close(socket)
        router.didFailToConnect(upstream, reason: reason)
    }

    private func onTimeout(_ socket: UpstreamSocket) {
        advance()
        let timeout = socket.target.connectTimeout
        switch socket.phase {
        case .resolving:
            socket.failures = ["\(socket.target.host) was not resolved within \(timeout)"]
            giveUp(socket)
        case .connecting: fail(socket, "no TCP connection within \(timeout)")
        case .handshaking: fail(socket, "the TLS handshake did not end within \(timeout)")
        case .open, .closed: break
        }
        perform()
    }

    private func didConnectTCP(_ socket: UpstreamSocket) {
        if let error = Socket.finishConnect(socket.descriptor) {
            fail(socket, error.description)
            return
        }
        // Refused only for a connection that is gone, which the handshake will say.
        _ = Socket.setNoDelay(socket.descriptor)
        _ = Socket.setKeepAlive(socket.descriptor, socket.target.keepAlive)
        let milliseconds = socket.target.userTimeout.nanoseconds / 1_000_000
        _ = Socket.setUserTimeout(socket.descriptor, milliseconds: Int32(clamping: milliseconds))
        guard let context = socket.target.tls else {
            socket.stream = SecureStream(plaintext: pool)
            didSecure(socket)
            return
        }
        do throws(TLSContextError) {
            socket.stream = try SecureStream(
                context: context,
                serverName: socket.target.serverName,
                pool: pool
            )
        } catch {
            fail(socket, error.description)
            return
        }
        socket.phase = .handshaking
        shakeHands(socket)
    }

    private func shakeHands(_ socket: UpstreamSocket) {
        guard let stream = socket.stream else { return }
        let progress = stream.handshake()
        let result = stream.flush(to: socket.descriptor)
        switch progress {
        case .failed(let failure): fail(socket, failure.description)
        case .done: didSecure(socket)
        case .needsInput:
            if case .failed(let error) = result {
                fail(socket, error.description)
            } else {
                socket.watcher.start(stream.unsentByteCount > 0 ? [.read, .write] : .read)
            }
        }
    }

    private func didSecure(_ socket: UpstreamSocket) {
        socket.phase = .open
        socket.timer.stop()
        socket.failures = []
        socket.addresses = []
        socket.watcher.start(.read)
        router.didConnect(socket.upstream)
        // The server's first bytes may have come with the end of the handshake.
        perform()
        pump(socket)
    }

    // MARK: Upstream: up

    private func onReady(_ socket: UpstreamSocket, _ readiness: Readiness) {
        advance()
        switch socket.phase {
        case .connecting:
            didConnectTCP(socket)
        case .handshaking:
            if readiness.contains(.read), let stream = socket.stream,
                case .failed(let error) = stream.receiveCiphertext(from: socket.descriptor)
            {
                fail(socket, error.description)
            } else {
                shakeHands(socket)
            }
        case .open:
            if readiness.contains(.write) { flush(socket.upstream) }
            if readiness.contains(.read) && socket.phase == .open { receive(socket) }
        case .resolving, .closed:
            break
        }
        perform()
    }

    private func receive(_ socket: UpstreamSocket) {
        guard let stream = socket.stream, socket.upstream.pointee.wantsReplies else { return }
        switch stream.receiveCiphertext(from: socket.descriptor) {
        case .bytes, .end: pump(socket)
        case .wouldBlock: break
        case .failed(let error): lose(socket, error.description)
        }
    }

    /// Decrypts what was received, and sends on what came of it.
    private func pump(_ socket: UpstreamSocket) {
        guard let stream = socket.stream else { return }
        let upstream = socket.upstream
        while socket.phase == .open && upstream.pointee.wantsReplies {
            switch stream.decrypt(into: router.replyBuffer) {
            case .bytes(let count):
                if let since = router.oldestRequest(of: upstream) {
                    gathering.note(delay: loop.now &- min(loop.now, since.nanoseconds))
                }
                router.didReceive(count, from: upstream)
                while let session = router.nextDirtySession() { flush(session) }
                perform()
            case .needsInput:
                if stream.unsentByteCount > 0 { flush(upstream) }
                return
            case .closed:
                lose(socket, "the server closed the connection")
                return
            case .failed(let failure):
                lose(socket, failure.description)
                return
            }
        }
    }

    /// Reading was paused or may go on.
    private func resume(_ socket: UpstreamSocket) {
        guard socket.phase == .open else { return }
        updateInterest(socket)
        // What was received before the pause is in no poll's power to report.
        if socket.upstream.pointee.wantsReplies { resumed.append(socket.id) }
    }

    private func updateInterest(_ socket: UpstreamSocket) {
        var interest: Readiness = socket.upstream.pointee.wantsReplies ? .read : []
        if let stream = socket.stream, stream.unsentByteCount > 0 { interest.insert(.write) }
        socket.watcher.start(interest)
    }

    /// Hands over what waits, unless the kernel does not take what was handed over before; then
    /// one send.
    private func flush(_ upstream: UpstreamRef) {
        guard let performer = upstream.pointee.performer else { return }
        let socket = Unmanaged<UpstreamSocket>.fromOpaque(performer).takeUnretainedValue()
        guard socket.phase == .open, let stream = socket.stream else { return }
        // More than once, because a handover lets sessions go on that had to wait for it, and a
        // send makes room for what could not be handed over before.
        repeat {
            if stream.unsentByteCount < Self.ciphertextLimit {
                let outgoing = router.outgoing(of: upstream)
                if !outgoing.isEmpty, let failure = stream.encrypt(outgoing) {
                    lose(socket, failure.description)
                    return
                }
                router.didHandOver(upstream)
            }
            if stream.unsentByteCount > 0,
                case .failed(let error) = stream.flush(to: socket.descriptor)
            {
                lose(socket, error.description)
                return
            }
        } while stream.unsentByteCount < Self.ciphertextLimit
            && !router.outgoing(of: upstream).isEmpty
        updateInterest(socket)
        if socket.endsAfterFlush && stream.unsentByteCount == 0 {
            socket.endsAfterFlush = false
            Socket.shutdownWrite(socket.descriptor)
        }
    }

    private func finishSending(_ socket: UpstreamSocket) {
        guard socket.phase == .open, let stream = socket.stream else { return }
        stream.closeNotify()
        socket.endsAfterFlush = true
        flush(socket.upstream)
    }

    private func lose(_ socket: UpstreamSocket, _ reason: String) {
        let upstream = socket.upstream
        close(socket)
        router.didLose(upstream, reason: reason)
        // Sessions that end now get what they were already sent.
        while let session = router.nextDirtySession() { flush(session) }
    }

    /// Lets go of the descriptor, not of the attempt.
    private func drop(_ socket: UpstreamSocket) {
        guard socket.descriptor >= 0 else { return }
        socket.watcher.stop()
        if socket.phase == .open, let stream = socket.stream {
            stream.closeNotify()
            _ = stream.flush(to: socket.descriptor)
        }
        Socket.close(socket.descriptor)
        socket.descriptor = -1
        socket.stream = nil
    }

    private func close(_ socket: UpstreamSocket) {
        guard socket.phase != .closed else { return }
        drop(socket)
        socket.timer.stop()
        socket.phase = .closed
        socket.upstream.pointee.performer = nil
        // In this order: callbacks lend the socket without owning it, so that something must own
        // it at every moment until the turn's end.
        closedUpstreams.append(socket)
        upstreams[socket.id] = nil
    }
}

extension ServerConfiguration {
    fileprivate func target(of route: NumberedRule) -> UpstreamTarget {
        targets[users[route.rule.user.rawValue].target]
    }

    /// A rule as the router knows it.
    fileprivate func route(_ route: NumberedRule) -> Route {
        let target = target(of: route)
        return Route(
            user: route.rule.user,
            isDedicated: route.isDedicated,
            principal: route.rule.principal,
            acceptsAnyLogin: route.acceptsAnyLogin,
            backoffMinimum: target.reconnectMinimum,
            backoffMaximum: target.reconnectMaximum,
            maximumAge: target.connectionMaximumAge
        )
    }
}

extension Duration {
    /// Whole nanoseconds, zero if negative.
    var nanoseconds: UInt64 {
        let (seconds, attoseconds) = components
        guard seconds >= 0, attoseconds >= 0 else { return 0 }
        return UInt64(seconds).multipliedReportingOverflow(by: 1_000_000_000).partialValue
            &+ UInt64(attoseconds) / 1_000_000_000
    }
}
