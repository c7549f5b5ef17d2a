// The way in: a client's bytes become requests, requests go to a connection or are answered here.
//
// Plain requests that follow one another are passed on as one range of bytes and one run. Every
// other request ends the range and is looked at by itself (Router+Commands.swift).

import Glibc
import RESP

extension Router {
    /// A client has connected and is known. `route` indexes the routes given at `init`.
    ///
    /// - Parameter mayLogIn: a login of its own is verified, and may lead to another route.
    package func openSession(route: Int, mayLogIn: Bool = false) -> SessionRef {
        precondition(!isRetired[route], "a session for a route that is retired")
        let pool = pool(route: route, 2, database: 0)
        poolSessions[pool] += 1
        let session = makeSession(route: route, pool: pool, prefersOwn: routes[route].isDedicated)
        session.pointee.mayLogIn = mayLogIn
        return session
    }

    func makeSession(route: Int, pool: Int, prefersOwn: Bool) -> SessionRef {
        lastSessionID += 1
        allocatedSessions += 1
        let session = SessionRef.allocate(capacity: 1)
        session.initialize(
            to: Session(
                id: lastSessionID,
                route: route,
                pool: pool,
                prefersOwn: prefersOwn,
                limits: limits
            )
        )
        session.pointee.next = firstSession
        firstSession?.pointee.previous = session
        firstSession = session
        sessionCount += 1
        return session
    }

    /// Where the next bytes of this client belong. Fill some, then call `didReceive`.
    package func receiveBuffer(for session: SessionRef) -> UnsafeMutableRawBufferPointer {
        if session.pointee.input.isEmpty { return requestBuffer }
        let isWaiting = !session.pointee.blocks.isEmpty
        let missing = isWaiting ? limits.receiveBuffer : session.pointee.framer.missing
        let wanted = min(max(missing, 4096), limits.receiveBuffer)
        let spare = session.pointee.input.spare(wanted)
        return UnsafeMutableRawBufferPointer(
            rebasing: spare[..<min(spare.count, limits.receiveBuffer)]
        )
    }

    /// `count` bytes lie in the buffer that `receiveBuffer(for:)` gave.
    package func didReceive(_ count: Int, from session: SessionRef) {
        guard count > 0, session.pointee.phase == .open else { return }
        session.pointee.lastPart = now
        if session.pointee.input.isEmpty {
            guard let base = requestBuffer.baseAddress else { return }
            let taken =
                session.pointee.blocks.isEmpty ? process(session, base, count) : 0
            if session.pointee.phase != .open {
                // What was dropped behind the end may hold a login too.
                explicit_bzero(base, count)
            } else if taken < count {
                session.pointee.input.append(base + taken, count - taken)
                // What stays may be the beginning of a client's AUTH; it may stay in one place only.
                explicit_bzero(base + taken, count - taken)
            }
        } else {
            session.pointee.input.didAppend(count)
            if session.pointee.blocks.isEmpty { processInput(session) }
        }
        updateReading(session)
        settle()
    }

    /// The client will send nothing more (FIN), but may still read.
    package func didReceiveEnd(from session: SessionRef) {
        guard session.pointee.phase == .open else { return }
        session.pointee.phase = .finished
        updateReading(session)
        endIfDone(session)
        settle()
    }

    /// The client will send nothing more, which shows although what it sent last has not been read.
    ///
    /// Of meaning for the sessions in `unwatched`: the server is told at once, so that a command
    /// that waits on behalf of this client ends. What has not been read runs, if the server
    /// answers all that was passed on; it is lost with the connection otherwise, as it would be in
    /// the server's own buffer.
    package func didSeeEnd(of session: SessionRef) {
        guard session.pointee.phase == .open || session.pointee.phase == .finished else { return }
        passOnEnd(session)
        settle()
    }

    /// Tells the server that the client is finished, if a command of its may be waiting there.
    private func passOnEnd(_ session: SessionRef) {
        guard session.pointee.mayBlock, session.pointee.lane == .own,
            let upstream = session.pointee.upstream, upstream.pointee.isCounted,
            !upstream.pointee.isEnding
        else { return }
        upstream.pointee.endsAfterOutgoing = true
        markDirty(upstream)
    }

    /// Remembers a session that is not read although a command of its may block.
    func noteUnwatched(_ session: SessionRef) {
        guard !session.pointee.isUnwatched, isUnwatched(session) else { return }
        session.pointee.isUnwatched = true
        unwatched.append(session)
    }

    /// Whether it is the client that ended, and not the proxy that reads no further: because of a
    /// violation, a drain, or a QUIT.
    private func hasLeft(_ session: SessionRef) -> Bool {
        session.pointee.phase == .finished && session.pointee.closeReason == .clientClosed
            && session.pointee.violation == nil
    }

    /// Whether the session's end would be noticed by nobody, and matters.
    func isUnwatched(_ session: SessionRef) -> Bool {
        switch session.pointee.phase {
        case .open where session.pointee.wantsInput: return false
        case .finished where hasLeft(session): return false
        case .open, .finished: break
        case .closing, .gone: return false
        }
        guard session.pointee.mayBlock, session.pointee.lane == .own,
            let upstream = session.pointee.upstream
        else { return false }
        return upstream.pointee.isCounted && !upstream.pointee.isEnding
    }

    /// The client is gone: reset, or it does not take what is sent.
    package func didLose(_ session: SessionRef) {
        guard session.pointee.phase != .gone else { return }
        end(session, .clientReset)
        settle()
    }

    /// Looks again at what a session that was unblocked has waiting.
    func resume(_ session: SessionRef) {
        guard session.pointee.phase == .open || session.pointee.phase == .finished,
            session.pointee.blocks.isEmpty
        else { return }
        if finishLogin(session), session.pointee.blocks.isEmpty { processInput(session) }
        updateReading(session)
        endIfDone(session)
    }

    private func processInput(_ session: SessionRef) {
        guard !session.pointee.input.isEmpty else { return }
        let count = session.pointee.input.count
        let taken = process(session, session.pointee.input.bytes, count)
        // The session may have ended, and given up its input, meanwhile.
        session.pointee.input.consume(min(taken, session.pointee.input.count))
        session.pointee.input.release()
    }

    /// Frames `count` bytes and acts on each request; returns how many bytes are dealt with.
    private func process(
        _ session: SessionRef,
        _ base: UnsafeMutableRawPointer,
        _ count: Int
    ) -> Int {
        if session.pointee.isAwaitingLogin { return processBeforeLogin(session, base, count) }
        if session.pointee.prefersOwn && session.pointee.lane == .shared
            && mayOwn(route: session.pointee.route)
        {
            let isDedicated = routes[session.pointee.route].isDedicated
            guard takeOwn(session, for: isDedicated ? .dedicated : .bigReplies) else { return 0 }
        }
        if session.pointee.lane == .own, session.pointee.upstream?.pointee.isEnding == true {
            // Once all that was passed on is answered, another connection serves the rest.
            session.pointee.blocks.insert(.quiet)
            return 0
        }
        // base[start...] is the request in progress; base[run..<start] are whole plain requests
        // that were not passed on yet, `requests` in number.
        var start = 0
        var run = 0
        var requests: UInt32 = 0
        var commands: UInt64 = 0
        scanning: while start < count {
            if session.pointee.owed &+ requests >= session.pointee.window
                && !session.pointee.isMidRequest
            {
                passOn(session, base + run, start - run, requests)
                run = start
                requests = 0
                // A relayed connection is owed nothing that could be counted.
                if session.pointee.owed >= session.pointee.window {
                    session.pointee.blocks.insert(.window)
                    break
                }
            }
            switch session.pointee.framer.next(base + start, count: count &- start) {
            case .frame(let length, let command):
                if (command == .plain && !session.pointee.isLimited)
                    || session.pointee.isMidRequest
                {
                    start &+= length
                    // What was begun before was counted then.
                    if !session.pointee.isMidRequest { commands &+= 1 }
                    if session.pointee.replies == .skip && !session.pointee.isMidRequest {
                        passOnOne(session, base + run, length)
                        run = start
                    } else if session.pointee.isMidRequest {
                        // What is left of it goes into the run that began with it: if that is
                        // answered with an error, not one byte of the request may stay behind.
                        session.pointee.isMidRequest = false
                        passOn(session, base + run, start - run, 0)
                        run = start
                    } else {
                        requests &+= 1
                    }
                    continue
                }
                passOn(session, base + run, start - run, requests)
                run = start
                requests = 0
                if command == .multi, session.pointee.lane == .shared,
                    let block = wholeTransaction(session, base + start, length, count - start)
                {
                    passOn(block, of: session, base + start)
                    start += block.byteCount
                    run = start
                    // MULTI, EXEC and what is between.
                    commands &+= UInt64(block.bodyRequests) &+ 2
                    continue
                }
                let request = UnsafeMutableRawBufferPointer(start: base + start, count: length)
                switch act(on: command, request, of: session) {
                case .passOn:
                    requests = 1
                    start += length
                    commands &+= 1
                case .handled:
                    start += length
                    commands &+= 1
                    run = start
                    // RESET may have taken back a login.
                    if session.pointee.isAwaitingLogin {
                        start += processBeforeLogin(session, base + start, count - start)
                        run = start
                        break scanning
                    }
                    if !session.pointee.blocks.isEmpty { break scanning }
                case .wait:
                    break scanning
                case .stop:
                    start = count
                    run = count
                    commands &+= 1
                    break scanning
                }
            case .inline(let length):
                passOn(session, base + run, start - run, requests)
                run = start
                requests = 0
                let line = UnsafeRawBufferPointer(start: base + start, count: length)
                switch actOnInline(line, of: session) {
                case .handled, .passOn:
                    explicit_bzero(base + start, length)
                    start += length
                    run = start
                    commands &+= 1
                    if session.pointee.isAwaitingLogin {
                        start += processBeforeLogin(session, base + start, count - start)
                        run = start
                        break scanning
                    }
                    if !session.pointee.blocks.isEmpty { break scanning }
                case .wait:
                    break scanning
                case .stop:
                    start = count
                    run = count
                    commands &+= 1
                    break scanning
                }
            case .incomplete:
                let held = count - start
                // Until its name is known a request waits; the framer bounds what comes before it.
                guard let command = session.pointee.framer.command else { break scanning }
                if session.pointee.isLimited {
                    // Looked at whole, or judged by the server.
                    guard held + session.pointee.framer.missing > limits.sharedRequest else {
                        break scanning
                    }
                    passOn(session, base + run, start - run, requests)
                    run = start
                    requests = 0
                    guard session.pointee.replies == .on else {
                        // What is on its way may end the subscription.
                        guard isQuiet(session) else { break scanning }
                        // The server could not be told of that any more.
                        endWhenSent(session, .violation)
                        start = count
                        run = count
                        break scanning
                    }
                    yieldToServer(session)
                    break scanning
                }
                if session.pointee.lane == .own, canStream(session, command, held) {
                    // A header that is not all there is read again from its beginning.
                    let scanned = session.pointee.framer.scanned
                    guard scanned > 0 else { break scanning }
                    if !session.pointee.isMidRequest {
                        if command == .subscribe || command == .unsubscribe,
                            session.pointee.owed &+ requests > 0, !isRelayed(session)
                        {
                            // Nothing of ours may be under way where counting stops.
                            session.pointee.blocks.insert(.quiet)
                            break scanning
                        }
                        session.pointee.isMidRequest = true
                        requests &+= 1
                        commands &+= 1
                        if command != .plain { tie(session, to: command, nil) }
                    }
                    session.pointee.framer.discard(scanned)
                    start += scanned
                    if session.pointee.replies == .skip {
                        passOn(session, base + run, start - scanned - run, requests - 1)
                        run = start - scanned
                        requests = 0
                        passOnOne(session, base + run, scanned)
                        run = start
                    }
                    break scanning
                }
                let isLogin: Bool
                switch command {
                case .auth, .hello, .quit, .reset: isLogin = true
                default: isLogin = false
                }
                // An announcement alone costs nothing: what has come must be too long to share.
                let size = isLogin ? held + session.pointee.framer.missing : held
                guard size > limits.sharedRequest else { break scanning }
                passOn(session, base + run, start - run, requests)
                run = start
                requests = 0
                if isLogin {
                    guard isQuiet(session) else { break scanning }
                    refuse(session, .loginTooLong)
                    start = count
                    run = count
                    break scanning
                }
                guard takeOwn(session, for: .upload) else { break scanning }
            case .violation(let violation):
                passOn(session, base + run, start - run, requests)
                didViolate(session, violation)
                start = count
                run = count
                requests = 0
                break scanning
            }
        }
        passOn(session, base + run, start - run, requests)
        session.pointee.commands &+= commands
        return start
    }

    /// Whether a request of which `held` bytes have come may be passed on before it is complete:
    /// never before it is known that it is no login, nor what else has to be seen whole.
    private func canStream(
        _ session: SessionRef,
        _ command: CommandClass,
        _ held: Int
    ) -> Bool {
        if session.pointee.isMidRequest { return true }
        switch command {
        case .plain: return true
        case .auth, .hello, .quit, .reset, .none: return false
        // Looked at whole if that is possible.
        default: return held + session.pointee.framer.missing > limits.sharedRequest
        }
    }

    static var quit: StaticString { "*1\r\n$4\r\nQUIT\r\n" }
    static var reset: StaticString { "*1\r\n$5\r\nRESET\r\n" }
    /// Goes out in the place of a client's login: the server refuses it, and a transaction with it.
    static var standIn: StaticString { "*1\r\n$4\r\nAUTH\r\n" }

    /// Passes on a request of our own wording.
    func passOn(
        _ session: SessionRef,
        _ request: StaticString,
        _ requests: UInt32,
        _ kind: RunKind = .plain,
        isMuted: Bool = false
    ) {
        passOn(
            session, UnsafeRawPointer(request.utf8Start), request.utf8CodeUnitCount, requests, kind,
            isMuted: isMuted)
    }

    /// Appends whole requests, or a part of one, to what waits for the session's connection.
    @inline(__always)
    func passOn(
        _ session: SessionRef,
        _ bytes: UnsafeRawPointer,
        _ count: Int,
        _ requests: UInt32,
        _ kind: RunKind = .plain,
        isMuted: Bool = false
    ) {
        guard count > 0 else { return }
        let upstream: UpstreamRef
        if let current = session.pointee.upstream,
            session.pointee.lane == .own || session.pointee.owed > 0
        {
            upstream = current
        } else {
            upstream = sharedUpstream(session.pointee.pool)
            session.pointee.upstream = upstream
        }
        upstream.pointee.outgoing.append(bytes, count)
        if upstream.pointee.isCounted {
            session.pointee.owed &+= requests
            let isMuted = isMuted || session.pointee.isMuted
            upstream.pointee.note(session, requests, count, kind, isMuted, now)
        }
        markDirty(upstream)
        if upstream.pointee.state == .idle { connect(upstream) }
        let limit = upstream.pointee.isShared ? limits.upstreamBuffer : limits.uploadBuffer
        if upstream.pointee.outgoing.count > limit {
            session.pointee.blocks.insert(.upstream)
            upstream.pointee.addWaiter(session)
        }
    }

    /// One request, or the beginning of one, to which the client may want no reply.
    func passOnOne(_ session: SessionRef, _ bytes: UnsafeRawPointer, _ count: Int) {
        if session.pointee.replies == .skip { session.pointee.replies = .skipping }
        passOn(session, bytes, count, 1)
        if session.pointee.replies == .skipping { session.pointee.replies = .on }
    }

    /// Bytes that are no request: the answer comes after all that is owed, then the end.
    func didViolate(_ session: SessionRef, _ violation: ProtocolViolation) {
        report(.violation(session: session.pointee.id, violation.operatorDescription))
        session.pointee.violation = violation
        session.pointee.phase = .finished
        updateReading(session)
        endIfDone(session)
    }

    /// An error of our own that ends the session, once it is delivered. Nothing may be owed.
    func refuse(_ session: SessionRef, _ error: ClientError) {
        if !isRelayed(session) && session.pointee.replies == .on { answer(session, error.reply) }
        endWhenSent(session, .violation)
    }

    /// The session's replies are passed on uncounted, so that nobody knows whether the last byte
    /// was the end of one: an answer of our own has no place among them.
    func isRelayed(_ session: SessionRef) -> Bool {
        guard session.pointee.lane == .own, let upstream = session.pointee.upstream else {
            return false
        }
        return !upstream.pointee.isCounted
    }

    // MARK: The end of a session

    /// All that was owed has come.
    func didBecomeQuiet(_ session: SessionRef) {
        session.pointee.blocking = 0
        if session.pointee.lane == .own {
            if let upstream = subscribedUpstream(session), settleSubscriptions(session, upstream) {
                return
            }
            if !replaceOwn(session) { releaseOwn(session) }
            leaveEnding(session)
        }
        unblock(session, [.quiet, .state])
        endIfDone(session)
    }

    /// The end of a client was passed on, and all that went before it is answered: what follows
    /// it in the client's stream runs elsewhere, if it may.
    private func leaveEnding(_ session: SessionRef) {
        guard let upstream = session.pointee.upstream, session.pointee.lane == .own,
            upstream.pointee.isCounted, upstream.pointee.isEnding
        else { return }
        // The server ends a subscription in its time, behind the last message; unless a request
        // waits here, which can no longer be sent.
        let isWaiting =
            session.pointee.isRunnable
            || !session.pointee.blocks.isDisjoint(with: [.quiet, .window, .upstream])
        if upstream.pointee.ties.contains(.subscription) && !isWaiting { return }
        guard upstream.pointee.ties.isEmpty else {
            endWhenSent(session, session.pointee.closeReason)
            return
        }
        giveUpOwn(session)
    }

    /// Ends a session that is finished and has been given everything.
    func endIfDone(_ session: SessionRef) {
        switch session.pointee.phase {
        case .open, .gone:
            return
        case .closing:
            if session.pointee.unsent == 0 { end(session, session.pointee.closeReason) }
        case .finished:
            // Told at once, whatever waits: the server then ends a command that blocks.
            if hasLeft(session) { passOnEnd(session) }
            // Complete requests may still wait for their turn; an incomplete one never ends.
            guard session.pointee.blocks.isEmpty, !session.pointee.isRunnable else { return }
            let upstream = session.pointee.lane == .own ? session.pointee.upstream : nil
            let isCounted = upstream?.pointee.isCounted ?? true
            let isSubscribed = subscribedUpstream(session) != nil
            if session.pointee.violation != nil {
                guard !isCounted || session.pointee.owed == (session.pointee.isMidRequest ? 1 : 0)
                else { return }
                if isMidMessage(session) { return }
                if isCounted, session.pointee.replies == .on,
                    let reply = session.pointee.violation?.reply
                {
                    answer(session, reply)
                }
                endWhenSent(session, .violation)
            } else if !isCounted || (isSubscribed && session.pointee.closeReason != .quit) {
                // The server is told that the client is finished, and decides what that means
                // for a subscription, as on a direct connection.
                guard let upstream, session.pointee.closeReason != .quit,
                    !upstream.pointee.hasEnded
                else { return }
                upstream.pointee.endsAfterOutgoing = true
                markDirty(upstream)
            } else if session.pointee.owed == 0
                || (session.pointee.isMidRequest && session.pointee.owed == 1)
            {
                endWhenSent(session, session.pointee.closeReason)
            }
        }
    }

    /// Nothing more is read from this client; it gets what is there, and is closed.
    func endWhenSent(_ session: SessionRef, _ reason: CloseReason) {
        guard session.pointee.phase == .open || session.pointee.phase == .finished else { return }
        session.pointee.phase = .closing
        session.pointee.closeReason = reason
        session.pointee.input.removeAll()
        session.pointee.input.release()
        updateReading(session)
        if session.pointee.lane == .own { giveUpOwn(session) }
        if session.pointee.unsent == 0 { end(session, reason) }
    }

    /// Closes the client's socket now.
    func end(_ session: SessionRef, _ reason: CloseReason) {
        guard session.pointee.phase != .gone else { return }
        if session.pointee.lane == .own { giveUpOwn(session) }
        session.pointee.phase = .gone
        session.pointee.closeReason = reason
        session.pointee.input.removeAll()
        session.pointee.input.release()
        session.pointee.output.removeAll()
        session.pointee.output.release()
        session.pointee.directStart = nil
        session.pointee.directCount = 0
        forgetWaits(session)
        unlink(session)
        sessionCount -= 1
        if session.pointee.isAwaitingLogin {
            awaitingCount -= 1
        } else {
            poolSessions[session.pointee.pool] -= 1
        }
        if let login = session.pointee.login { logins[login.attempt] = nil }
        report(.sessionClosed(session: session.pointee.id, reason))
        actions.append(.closeSession(session))
        if let upstream = session.pointee.upstream, upstream.pointee.pausedFor == session {
            unpause(upstream)
        }
        if session.pointee.owed == 0 { bury(session) }
    }

    /// Takes a session off every list that it may wait on.
    private func forgetWaits(_ session: SessionRef) {
        if !session.pointee.blocks.isDisjoint(with: [.upstream, .facts]) {
            for upstream in shared + retired {
                upstream.pointee.waiters.removeAll { $0 == session }
            }
        }
        if session.pointee.blocks.contains(.pin) { pinWaiters.removeAll { $0 == session } }
        if session.pointee.isUnwatched { unwatched.removeAll { $0 == session } }
        if session.pointee.isRunnable { runnable.removeAll { $0 == session } }
        session.pointee.isRunnable = false
        session.pointee.blocks = []
    }

    /// Nobody owes a reply to a session that is gone: its memory goes at the next reap.
    func bury(_ session: SessionRef) {
        deadSessions.append(session)
    }

    // MARK: Drain

    /// No more requests are read; what was received is finished, and sessions end as they become
    /// quiet.
    package func drain() {
        isDraining = true
        var next = firstSession
        while let session = next {
            next = session.pointee.next
            guard session.pointee.phase == .open else { continue }
            session.pointee.phase = .finished
            session.pointee.closeReason = .drained
            updateReading(session)
            endIfDone(session)
        }
        settle()
    }

    /// Ends every session at once.
    package func endAll() {
        while let session = firstSession { end(session, .drainTimeout) }
        settle()
    }
}
