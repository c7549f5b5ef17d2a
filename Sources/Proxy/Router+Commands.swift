// The commands that are more than bytes to pass on: those that tie themselves to their
// connection, and those that the proxy answers because it stands in the server's place.
//
// The table "what ties a command to its connection" in Architecture.md says the same in words; the
// classes are checked against the server's COMMAND output by a test.

import Glibc
import RESP

extension Router {
    enum Verdict {
        /// Goes to the session's connection, like a plain request.
        case passOn
        /// Dealt with here.
        case handled
        /// Stays where it is and is looked at again when the session is unblocked.
        case wait
        /// Dealt with here, and the rest of what was received is dropped.
        case stop
    }

    /// Decides about one complete request that is not plain. Every earlier request of the session
    /// has been passed on. The bytes may be overwritten.
    func act(
        on command: CommandClass,
        _ request: UnsafeMutableRawBufferPointer,
        of session: SessionRef
    ) -> Verdict {
        if let verdict = actAsSubscriber(command, request, of: session) { return verdict }
        switch command {
        case .plain: return .passOn
        case .none: return .handled
        case .script, .function, .streamRead:
            if session.pointee.lane == .shared && isPlain(command, request) { return .passOn }
        case .auth: return answerAuth(request, of: session)
        case .hello: return answerHello(request, of: session)
        // With an argument it is refused for its arity, and does nothing.
        case .reset where subcommand(of: request) != nil: return .passOn
        case .reset: return answerReset(session)
        case .quit: return answerQuit(session)
        default: break
        }
        if session.pointee.lane == .shared {
            // The server counts the writes of the connection that waits, up to its last command:
            // that must be one after this session's writes, which the login of a new one is.
            guard takeOwn(session, fresh: command == .wait) else { return .wait }
        }
        let kind = tie(session, to: command, request)
        guard kind != .plain, let base = request.baseAddress else { return .passOn }
        passOn(session, base, request.count, 1, kind)
        return .handled
    }

    /// Notes what a command on its way to the session's own connection does to it.
    ///
    /// - Parameter request: nil if it is so long that it goes out before it is complete.
    /// - Returns: what its answer will tell. The answer to an incomplete one is not looked at.
    @discardableResult
    func tie(
        _ session: SessionRef,
        to command: CommandClass,
        _ request: UnsafeMutableRawBufferPointer?
    ) -> RunKind {
        guard let upstream = session.pointee.upstream else { return .plain }
        session.pointee.carriesState = true
        var kind = RunKind.plain
        switch command {
        case .multi: kind = .multi
        case .exec: kind = .exec
        case .discard: kind = .discard
        case .watch: kind = .watch
        case .unwatch: kind = .unwatch
        case .select, .lasting, .hello: kind = .lasting
        case .client: kind = tieByClient(upstream, subcommand(of: request))
        case .script:
            if subcommand(of: request)?.equalsIgnoringCase("DEBUG") ?? true { kind = .lasting }
        case .subscribe, .unsubscribe, .monitor, .replication:
            stopCounting(upstream)
        case .blocking, .wait:
            kind = .blocking
        case .streamRead:
            let waits = request.map { !isPlain(command, $0) } ?? true
            if waits { kind = .blocking }
        default: break
        }
        // In a transaction nothing waits. Whether it still is one is known when nothing is owed: what
        // is on its way may end it.
        if kind == .blocking && upstream.pointee.ties.contains(.transaction)
            && session.pointee.owed == 0
        {
            kind = .plain
        }
        if kind == .blocking {
            session.pointee.blocking += 1
        } else if request == nil && kind != .plain {
            upstream.pointee.ties.insert(.lasting)
        }
        return kind
    }

    /// CLIENT: some subcommands are about this connection, others are about the server.
    private func tieByClient(
        _ upstream: UpstreamRef,
        _ subcommand: UnsafeRawBufferPointer?
    ) -> RunKind {
        guard let subcommand else {
            stopCounting(upstream)
            return .plain
        }
        for aboutReplies in ["REPLY", "TRACKING"] as [StaticString]
        where subcommand.equalsIgnoringCase(aboutReplies) {
            stopCounting(upstream)
            return .plain
        }
        for aboutServer in ["LIST", "KILL", "UNBLOCK", "PAUSE", "UNPAUSE", "HELP"] as [StaticString]
        where subcommand.equalsIgnoringCase(aboutServer) {
            return .plain
        }
        return .lasting
    }

    /// The second word of a complete request.
    private func subcommand(
        of request: UnsafeMutableRawBufferPointer?
    ) -> UnsafeRawBufferPointer? {
        guard let request else { return nil }
        var arguments = RequestArguments(UnsafeRawBufferPointer(request))
        _ = arguments.next()
        return arguments.next()
    }

    /// Whether this form of a command that has others is plain.
    private func isPlain(
        _ command: CommandClass,
        _ request: UnsafeMutableRawBufferPointer
    ) -> Bool {
        var arguments = RequestArguments(UnsafeRawBufferPointer(request))
        _ = arguments.next()
        switch command {
        case .script, .function:
            guard let subcommand = arguments.next() else { return true }
            // KILL ends, and STATS looks at, a function that is running: neither can wait for it.
            return !subcommand.equalsIgnoringCase("KILL")
                && !subcommand.equalsIgnoringCase("STATS")
                && !subcommand.equalsIgnoringCase("DEBUG")
        default:
            // Anywhere: what stands where is the server's to know, and a group may be named STREAMS.
            while let argument = arguments.next() {
                if argument.equalsIgnoringCase("BLOCK") { return false }
            }
            return true
        }
    }

    /// An inline command becomes the multibulk request that the server would have made of it.
    func actOnInline(_ line: UnsafeRawBufferPointer, of session: SessionRef) -> Verdict {
        // The line may be a login: zeroed, whatever becomes of it.
        var request = Buffer(sensitive: true)
        let memory = request.spare(InlineCommand.capacity(for: line.count))
        switch InlineCommand.encode(line, into: memory) {
        case .none:
            wipe(memory)
            return .handled
        case .violation(let violation):
            wipe(memory)
            guard session.pointee.owed == 0 || session.pointee.lane == .own else {
                session.pointee.blocks.insert(.quiet)
                return .wait
            }
            report(.violation(session: session.pointee.id, violation.operatorDescription))
            session.pointee.violation = violation
            session.pointee.phase = .finished
            updateReading(session)
            endIfDone(session)
            return .stop
        case .request(let byteCount):
            request.didAppend(byteCount)
            let bytes = UnsafeMutableRawBufferPointer(start: request.bytes, count: byteCount)
            var framer = RequestFramer()
            guard case .frame(_, let command) = framer.next(request.bytes, count: byteCount)
            else { return .handled }
            let verdict = act(on: command, bytes, of: session)
            if case .passOn = verdict { passOn(session, request.bytes, byteCount, 1) }
            return verdict
        }
    }

    // MARK: AUTH, HELLO, RESET, QUIT

    /// A client's login is for us, and never goes on. Without a rule that asks for one, we are a
    /// server whose default user needs no password.
    private func answerAuth(
        _ request: UnsafeMutableRawBufferPointer,
        of session: SessionRef
    ) -> Verdict {
        let reply: [UInt8]
        var arguments = RequestArguments(UnsafeRawBufferPointer(request))
        _ = arguments.next()
        let first = arguments.next()
        let second = arguments.next()
        if first == nil {
            reply = ClientError.authArity.reply
        } else if arguments.next() != nil {
            reply = ClientError.syntax.reply
        } else if second == nil {
            reply = ClientError.authWithoutPassword.reply
        } else {
            reply =
                first.map(isDefaultUser) == true
                ? Array("+OK\r\n".utf8) : ClientError.wrongPassword.reply
        }
        return answerInPlace(reply, wiping: request, of: session)
    }

    private func isDefaultUser(_ name: UnsafeRawBufferPointer) -> Bool {
        name.elementsEqual("default".utf8)
    }

    /// Answers in the place of a request that must not reach the server.
    ///
    /// On an own connection a stand-in goes out instead, which the server refuses: its place in
    /// the order of replies is where our answer belongs, and inside MULTI it aborts the
    /// transaction as a refused command should.
    private func answerInPlace(
        _ reply: [UInt8],
        wiping request: UnsafeMutableRawBufferPointer,
        of session: SessionRef
    ) -> Verdict {
        let isCounted = session.pointee.upstream?.pointee.isCounted ?? true
        if session.pointee.lane == .shared || isCounted {
            guard session.pointee.owed == 0 else {
                session.pointee.blocks.insert(.quiet)
                return .wait
            }
        }
        wipe(request)
        guard session.pointee.lane == .own else {
            answer(session, reply)
            return .handled
        }
        if isCounted {
            session.pointee.substitute = reply
            session.pointee.blocks.insert(.substitute)
        }
        let standIn: StaticString = "*1\r\n$4\r\nAUTH\r\n"
        passOn(session, UnsafeRawPointer(standIn.utf8Start), standIn.utf8CodeUnitCount, 1)
        return .handled
    }

    private func answerHello(
        _ request: UnsafeMutableRawBufferPointer,
        of session: SessionRef
    ) -> Verdict {
        let hello = HelloRequest(UnsafeRawBufferPointer(request))
        if let error = hello.error {
            return answerInPlace(error, wiping: request, of: session)
        }
        if session.pointee.lane == .shared {
            guard session.pointee.owed == 0 else {
                session.pointee.blocks.insert(.quiet)
                return .wait
            }
            if hello.name != nil {
                // A name belongs to a connection.
                guard takeOwn(session) else { return .wait }
            } else {
                return answerHello(version: hello.version, wiping: request, of: session)
            }
        }
        session.pointee.carriesState = true
        if let version = hello.version, let upstream = session.pointee.upstream,
            upstream.pointee.isCounted
        {
            guard session.pointee.owed == 0 else {
                session.pointee.blocks.insert(.quiet)
                return .wait
            }
            if !upstream.pointee.ties.contains(.transaction) {
                session.pointee.protocolVersion = version
            }
        }
        guard hello.hasLogin else {
            guard let base = request.baseAddress else { return .handled }
            passOn(session, base, request.count, 1, .lasting)
            return .handled
        }
        wipe(request)
        let withoutLogin = hello.requestWithoutLogin()
        withoutLogin.withUnsafeBytes { bytes in
            if let base = bytes.baseAddress {
                passOn(session, base, bytes.count, 1, .lasting)
            }
        }
        return .handled
    }

    /// Answers HELLO from what the server said when the shared connection logged in.
    private func answerHello(
        version: UInt8?,
        wiping request: UnsafeMutableRawBufferPointer,
        of session: SessionRef
    ) -> Verdict {
        let wanted = version ?? session.pointee.protocolVersion
        let upstream = sharedUpstream(for: session, wanted)
        guard upstream.pointee.state == .ready else {
            session.pointee.blocks.insert(.facts)
            session.pointee.waitingSince = now
            upstream.pointee.addWaiter(session)
            if upstream.pointee.state == .idle { connect(upstream) }
            return .wait
        }
        session.pointee.protocolVersion = wanted
        wipe(request)
        let id = Array(String(session.pointee.id).utf8)
        answer(session, upstream.pointee.helloHead + id + upstream.pointee.helloTail)
        return .handled
    }

    private func answerReset(_ session: SessionRef) -> Verdict {
        if session.pointee.lane == .own, let upstream = session.pointee.upstream,
            !upstream.pointee.isCounted
        {
            upstream.pointee.awaitsReset = true
            session.pointee.blocks.insert(.reset)
            let requests: StaticString = "*1\r\n$5\r\nRESET\r\n*1\r\n$4\r\nQUIT\r\n"
            passOn(session, UnsafeRawPointer(requests.utf8Start), requests.utf8CodeUnitCount, 0)
            return .handled
        }
        guard session.pointee.owed == 0 else {
            session.pointee.blocks.insert(.quiet)
            return .wait
        }
        if session.pointee.lane == .own { giveUpOwn(session) }
        session.pointee.protocolVersion = 2
        answer(session, "+RESET\r\n")
        return .handled
    }

    private func answerQuit(_ session: SessionRef) -> Verdict {
        if session.pointee.lane == .own, let upstream = session.pointee.upstream,
            !upstream.pointee.isCounted
        {
            // The server answers where the answer belongs, and closes.
            let quit: StaticString = "*1\r\n$4\r\nQUIT\r\n"
            passOn(session, UnsafeRawPointer(quit.utf8Start), quit.utf8CodeUnitCount, 1)
            session.pointee.phase = .finished
            session.pointee.closeReason = .quit
            // With replies turned off the server has nothing to say to QUIT, and closes only when
            // its client does.
            upstream.pointee.endsAfterOutgoing = true
            updateReading(session)
            return .stop
        }
        guard session.pointee.owed == 0 else {
            session.pointee.blocks.insert(.quiet)
            return .wait
        }
        answer(session, "+OK\r\n")
        endWhenSent(session, .quit)
        return .stop
    }

    /// Zeroes a request that carried a client's login.
    private func wipe(_ request: UnsafeMutableRawBufferPointer) {
        if let base = request.baseAddress { explicit_bzero(base, request.count) }
    }

    // MARK: Lanes

    /// Whether another session may have a connection of its own. Dedicated ones are bounded by the
    /// number of sessions.
    func mayOwn(route: Int) -> Bool {
        routes[route].isDedicated || pinnedCount < limits.maximumPinned
    }

    /// Moves a session to a connection of its own; false if it has to wait for that.
    ///
    /// - Parameter fresh: not one that served others before.
    func takeOwn(_ session: SessionRef, fresh: Bool = false) -> Bool {
        guard session.pointee.owed == 0 else {
            session.pointee.blocks.insert(.quiet)
            return false
        }
        guard mayOwn(route: session.pointee.route) else {
            session.pointee.blocks.insert(.pin)
            session.pointee.waitingSince = now
            pinWaiters.append(session)
            return false
        }
        pinnedCount += 1
        session.pointee.lane = .own
        session.pointee.waitingSince = now
        let pool = sparePool(of: session)
        if !fresh, let upstream = spare[pool].popLast() {
            unneeded[pool] = min(unneeded[pool], spare[pool].count)
            upstream.pointee.owner = session
            upstream.pointee.hasHandedOver = false
            session.pointee.upstream = upstream
            return true
        }
        let upstream = makeUpstream(
            route: session.pointee.route,
            routes[session.pointee.route].user,
            session.pointee.protocolVersion,
            owner: session
        )
        session.pointee.upstream = upstream
        connect(upstream)
        return true
    }

    private func sparePool(of session: SessionRef) -> Int {
        session.pointee.route * 2 + Int(session.pointee.protocolVersion) - 2
    }

    /// Gives back a session's own connection, if nothing ties them to each other any more: a
    /// spare one is as its login left it, whoever used it before.
    func releaseOwn(_ session: SessionRef) {
        guard let upstream = session.pointee.upstream, upstream.pointee.state == .ready,
            upstream.pointee.isCounted, upstream.pointee.ties.isEmpty,
            upstream.pointee.queue.isEmpty, upstream.pointee.outgoing.isEmpty,
            !upstream.pointee.endsAfterOutgoing, !upstream.pointee.hasEnded,
            upstream.pointee.pausedFor == nil,
            !session.pointee.prefersOwn, !session.pointee.isMidRequest,
            session.pointee.substitute == nil, session.pointee.violation == nil
        else { return }
        session.pointee.lane = .shared
        session.pointee.upstream = nil
        session.pointee.carriesState = false
        upstream.pointee.owner = nil
        let pool = upstream.pointee.route * 2 + Int(upstream.pointee.protocolVersion) - 2
        spare[pool].append(upstream)
        pinnedCount -= 1
    }

    /// Closes the spare connections that nobody needed since the last call. To be called every ten
    /// seconds or so.
    package func trim() {
        for pool in spare.indices {
            let surplus = min(unneeded[pool], spare[pool].count - limits.spareConnections)
            for _ in 0..<max(0, surplus) {
                // The one that was idle longest.
                let upstream = spare[pool].removeFirst()
                upstream.pointee.state = .gone
                actions.append(.disconnect(upstream))
                deadUpstreams.append(upstream)
            }
            unneeded[pool] = spare[pool].count
        }
    }

    /// Lets the first session go on that waits for nothing but a connection of its own, if there
    /// is one to be had. Called until that makes no difference: who goes on may no longer want it.
    func wakePinWaiter() {
        guard pinnedCount < limits.maximumPinned,
            let index = pinWaiters.firstIndex(where: { $0.pointee.blocks == .pin })
        else { return }
        unblock(pinWaiters.remove(at: index), .pin)
    }

    /// Closes uploads that bring nothing, the longest silent first, one for each session that
    /// waits for what they hold.
    func endStalledUploads() {
        var missing = pinWaiters.count - max(0, limits.maximumPinned - pinnedCount)
        guard missing > 0 else { return }
        var stalled: [SessionRef] = []
        var next = firstSession
        while let session = next {
            next = session.pointee.next
            guard session.pointee.isMidRequest, session.pointee.wantsInput,
                !routes[session.pointee.route].isDedicated,
                session.pointee.lastPart + limits.uploadStall <= now
            else { continue }
            stalled.append(session)
        }
        stalled.sort { $0.pointee.lastPart < $1.pointee.lastPart }
        for session in stalled where missing > 0 {
            missing -= 1
            endWhenSent(session, .stalledUpload)
        }
    }

    /// Gives up a session's own connection, whatever is under way on it. The session is in the
    /// shared lane and owed nothing afterwards.
    func giveUpOwn(_ session: SessionRef) {
        guard session.pointee.lane == .own, let upstream = session.pointee.upstream else { return }
        session.pointee.lane = .shared
        session.pointee.upstream = nil
        session.pointee.owed = 0
        session.pointee.isMidRequest = false
        session.pointee.carriesState = false
        session.pointee.blocking = 0
        session.pointee.substitute = nil
        session.pointee.isLimited = false
        session.pointee.blocks.remove(.upstream)
        session.pointee.protocolVersion = 2
        unpause(upstream)
        if upstream.pointee.state != .idle && upstream.pointee.state != .waiting {
            actions.append(.disconnect(upstream))
        }
        upstream.pointee.state = .gone
        upstream.pointee.owner = nil
        upstream.pointee.queue.removeAll()
        deadUpstreams.append(upstream)
        pinnedCount -= 1
    }

    /// From here on the number of replies cannot be told from the requests: relay.
    func stopCounting(_ upstream: UpstreamRef) {
        guard upstream.pointee.isCounted else { return }
        upstream.pointee.isCounted = false
        upstream.pointee.unsentRuns = 0
        upstream.pointee.queue.removeAll()
        guard let owner = upstream.pointee.owner else { return }
        owner.pointee.owed = 0
        owner.pointee.isLimited = false
        let held = upstream.pointee.subscriptions.held.count
        guard held > 0 else { return }
        answer(owner, upstream.pointee.subscriptions.held.bytes, held)
        upstream.pointee.subscriptions.held = Buffer()
    }
}
