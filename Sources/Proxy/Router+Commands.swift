// The commands that are more than bytes to pass on: those that tie themselves to their
// connection, and those that the proxy answers because it stands in the server's place.
//
// The table "what ties a command to its connection" in Architecture.md says the same in words; the
// classes are checked against the server's COMMAND output by a test.

import Glibc
import Identity
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
        guard session.pointee.replies == .skip else { return decide(command, request, session) }
        session.pointee.replies = .skipping
        var verdict = decide(command, request, session)
        switch verdict {
        case .wait:
            session.pointee.replies = .skip
            return .wait
        case .passOn:
            if let base = request.baseAddress { passOnOne(session, base, request.count) }
            verdict = .handled
        case .handled, .stop: break
        }
        // Unless it was about replies itself.
        if session.pointee.replies == .skipping { session.pointee.replies = .on }
        return verdict
    }

    private func decide(
        _ command: CommandClass,
        _ request: UnsafeMutableRawBufferPointer,
        _ session: SessionRef
    ) -> Verdict {
        if let verdict = actAsSubscriber(command, request, of: session) { return verdict }
        switch command {
        case .plain: return .passOn
        case .none: return .handled
        case .script, .function, .streamRead:
            if session.pointee.lane == .shared && isPlain(command, request) { return .passOn }
        case .select:
            if let verdict = select(request, of: session) { return verdict }
        case .client:
            if let verdict = client(request, of: session) { return verdict }
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
            guard takeOwn(session, for: PinReason(command), fresh: command == .wait) else {
                return .wait
            }
        }
        if needsQuiet(command, request, session), !isQuiet(session) { return .wait }
        if command == .blocking || command == .wait || command == .streamRead,
            let verdict = block(command, request, of: session)
        {
            return verdict
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
        case .multi:
            // Whatever is queued may need the server to know that replies are off, and inside the
            // transaction it could not be told.
            if session.pointee.replies == .off { stopCounting(upstream) }
            kind = .multi
            retryRenewalBeforeTransaction(upstream)
        case .exec: kind = .exec
        case .discard: kind = .discard
        case .watch: kind = .watch
        case .unwatch: kind = .unwatch
        case .select, .lasting, .hello: kind = .lasting
        case .client: kind = tieByClient(upstream, request)
        case .script:
            if subcommand(of: request)?.equalsIgnoringCase("DEBUG") ?? true { kind = .lasting }
        case .replication:
            // A server does not answer its replicas.
            upstream.pointee.mayBeSilent = true
            stopCounting(upstream)
        case .subscribe, .unsubscribe, .monitor:
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
        if !upstream.pointee.isCounted {
            // Nobody looks at the answers: what may be refused ends nothing.
            if command == .multi { upstream.pointee.ties.insert(.transaction) }
            let mayExecute = permissions[upstream.pointee.user.rawValue].contains(.exec)
            if command == .exec, mayExecute, subcommand(of: request) == nil, request != nil {
                upstream.pointee.ties.remove(.transaction)
            }
            if kind == .identity { upstream.pointee.ties.insert(.identity) }
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
        _ request: UnsafeMutableRawBufferPointer?
    ) -> RunKind {
        // Without one it is refused. Too long to be looked at it is any but REPLY.
        guard let subcommand = subcommand(of: request) else { return .lasting }
        if subcommand.equalsIgnoringCase("REPLY") {
            if let mode = replyMode(request) {
                // Where replies are counted they are on, and stay so.
                if mode.equalsIgnoringCase("ON") && upstream.pointee.isCounted { return .plain }
                upstream.pointee.mayBeSilent = true
                stopCounting(upstream)
            }
            return .plain
        }
        for aboutServer in ["LIST", "KILL", "UNBLOCK", "PAUSE", "UNPAUSE", "HELP"] as [StaticString]
        where subcommand.equalsIgnoringCase(aboutServer) {
            return .plain
        }
        for aboutIdentity in ["ID", "INFO"] as [StaticString]
        where subcommand.equalsIgnoringCase(aboutIdentity) {
            return .identity
        }
        return .lasting
    }

    /// Whether a complete request may only go out when nothing is owed: the replies that follow it
    /// cannot be counted, or the server looks at what is on its way.
    private func needsQuiet(
        _ command: CommandClass,
        _ request: UnsafeMutableRawBufferPointer,
        _ session: SessionRef
    ) -> Bool {
        switch command {
        case .monitor, .replication: true
        case .multi: session.pointee.replies == .off
        // Refused while an answer is not written, be it to a request of ours.
        case .script: subcommand(of: request)?.equalsIgnoringCase("DEBUG") ?? false
        case .client: replyMode(request).map { !$0.equalsIgnoringCase("ON") } ?? false
        default: false
        }
    }

    /// The mode of a complete request that is a CLIENT REPLY; nil if the server refuses its words.
    private func replyMode(
        _ request: UnsafeMutableRawBufferPointer?
    ) -> UnsafeRawBufferPointer? {
        guard let request else { return nil }
        var arguments = RequestArguments(UnsafeRawBufferPointer(request))
        _ = arguments.next()
        guard arguments.next()?.equalsIgnoringCase("REPLY") ?? false, let mode = arguments.next(),
            arguments.next() == nil
        else { return nil }
        let isKnown =
            mode.equalsIgnoringCase("ON") || mode.equalsIgnoringCase("OFF")
            || mode.equalsIgnoringCase("SKIP")
        return isKnown ? mode : nil
    }

    /// The second word of a complete request.
    func subcommand(
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
            // Blank or not, it is the next line.
            if session.pointee.replies == .skip { session.pointee.replies = .on }
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
            if session.pointee.isAwaitingLogin { return actBeforeLogin(command, bytes, session) }
            let verdict = act(on: command, bytes, of: session)
            if case .passOn = verdict { passOnOne(session, request.bytes, byteCount) }
            return verdict
        }
    }

    // MARK: AUTH, HELLO, RESET, QUIT

    /// A client's login is for us, and never goes on. Without a rule that asks for one, we are a
    /// server whose default user needs no password.
    func answerAuth(
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
        } else if session.pointee.mayLogIn, !isInTransaction(session), let first {
            if !isRelayed(session) && !isQuiet(session) { return .wait }
            let name = second == nil ? Array("default".utf8) : Array(first)
            let secret = Secret(copying: second ?? first)
            wipe(request)
            return present(name, secret, nil, of: session)
        } else if !session.pointee.mayLogIn, routes[session.pointee.route].acceptsAnyLogin {
            reply = Array("+OK\r\n".utf8)
        } else if second == nil {
            reply = ClientError.authWithoutPassword.reply
        } else {
            reply =
                first.map(isDefaultUser) == true
                ? Array("+OK\r\n".utf8) : ClientError.wrongPassword.reply
        }
        // The number of arguments comes before everything else.
        let whileSubscribed: ClientError = first == nil ? .authArity : .authWhileSubscribed
        return answerInPlace(
            reply, whileSubscribed: whileSubscribed, wiping: request, of: session)
    }

    private func isDefaultUser(_ name: UnsafeRawBufferPointer) -> Bool {
        name.elementsEqual("default".utf8)
    }

    /// Answers in the place of a request that must not reach the server.
    ///
    /// On an own connection a stand-in goes out instead, which the server refuses: its place in
    /// the order of replies is where our answer belongs, and inside MULTI it aborts the
    /// transaction as a refused command should.
    func answerInPlace(
        _ reply: [UInt8],
        whileSubscribed: ClientError,
        wiping request: UnsafeMutableRawBufferPointer,
        of session: SessionRef
    ) -> Verdict {
        if isRelayed(session), let upstream = session.pointee.upstream {
            if waitsForSentinel(session, upstream) { return .wait }
            wipe(request)
            answerInRelay(session, upstream, reply, whileSubscribed: whileSubscribed.reply)
            return .handled
        }
        if !isQuiet(session) { return .wait }
        wipe(request)
        guard session.pointee.lane == .own else {
            respond(session, reply)
            return .handled
        }
        if !session.pointee.isMuted {
            session.pointee.substitute =
                isInTransaction(session) ? ClientError.loginInTransaction.reply : reply
            session.pointee.blocks.insert(.substitute)
        }
        passOn(session, Self.standIn, 1)
        return .handled
    }

    func answerHello(
        _ request: UnsafeMutableRawBufferPointer,
        of session: SessionRef
    ) -> Verdict {
        if !isRelayed(session) && !isQuiet(session) { return .wait }
        let hello = helloRequest(request, session)
        let isRefused =
            hello.error != nil || (session.pointee.isAwaitingLogin && hello.login == nil)
        if isRefused {
            let error = hello.error ?? ClientError.helloNotLoggedIn.reply
            // Its options take effect one after the other, up to the one that is refused.
            if let name = hello.name, !isRelayed(session), !isInTransaction(session) {
                session.pointee.attributes.name = name
                if session.pointee.lane == .own, let upstream = session.pointee.upstream {
                    introduce(session, to: upstream)
                }
            }
            return answerInPlace(
                error, whileSubscribed: .helloWhileSubscribed, wiping: request, of: session)
        }
        if let login = hello.login, !isInTransaction(session) {
            wipe(request)
            return present(login.name, login.secret, hello.withoutLogin(), of: session)
        }
        let verdict = grant(hello, session)
        if case .wait = verdict { return verdict }
        wipe(request)
        return verdict
    }

    func helloRequest(
        _ request: UnsafeMutableRawBufferPointer,
        _ session: SessionRef
    ) -> HelloRequest {
        HelloRequest(
            UnsafeRawBufferPointer(request),
            logins: session.pointee.mayLogIn
                ? .verified : routes[session.pointee.route].acceptsAnyLogin ? .any : .none
        )
    }

    /// Does what HELLO asks for; its login is dealt with.
    func grant(_ hello: HelloRequest, _ session: SessionRef) -> Verdict {
        if session.pointee.lane == .shared { return grantShared(hello, session) }
        if !isRelayed(session) && !isQuiet(session) { return .wait }
        if isInTransaction(session) {
            return answerInPlace(
                ClientError.loginInTransaction.reply, whileSubscribed: .helloWhileSubscribed,
                wiping: UnsafeMutableRawBufferPointer(start: nil, count: 0), of: session)
        }
        let withoutLogin = hello.requestWithoutLogin()
        return withoutLogin.withUnsafeBytes { bytes in
            guard let base = bytes.baseAddress else { return .handled }
            if isRelayed(session) {
                session.pointee.upstream?.pointee.ties.insert(.identity)
                passOn(session, base, bytes.count, 1)
                return .handled
            }
            session.pointee.carriesState = true
            guard let version = hello.version else {
                passOn(session, base, bytes.count, 1, .identity)
                return .handled
            }
            let change = Session.Change.hello(version: version, name: hello.name)
            return ask(bytes, .hello, change, of: session) ?? .handled
        }
    }

    /// Answers HELLO from what the server said when the shared connection logged in.
    private func grantShared(_ hello: HelloRequest, _ session: SessionRef) -> Verdict {
        guard isQuiet(session) else { return .wait }
        let wanted = hello.version ?? session.pointee.protocolVersion
        let database = pools[session.pointee.pool].database
        let pool = pool(route: session.pointee.route, wanted, database: database)
        let upstream = sharedUpstream(pool)
        guard upstream.pointee.state == .ready else {
            session.pointee.blocks.insert(.facts)
            session.pointee.waitingSince = now
            upstream.pointee.addWaiter(session)
            if upstream.pointee.state == .idle { connect(upstream) }
            return .wait
        }
        enter(session, pool)
        if let name = hello.name { session.pointee.attributes.name = name }
        let id = Array(String(session.pointee.id).utf8)
        respond(session, upstream.pointee.helloHead + id + upstream.pointee.helloTail)
        return .handled
    }

    private func answerReset(_ session: SessionRef) -> Verdict {
        if session.pointee.lane == .own, let upstream = session.pointee.upstream,
            !upstream.pointee.isCounted
        {
            if waitsForSentinel(session, upstream) { return .wait }
            resetRelay(session, upstream)
            return .handled
        }
        guard isQuiet(session) else { return .wait }
        if session.pointee.lane == .own, let upstream = session.pointee.upstream,
            !upstream.pointee.isEnding, upstream.pointee.hasHandedOver, !session.pointee.isLoggedIn
        {
            passOnReset(session)
            return .handled
        }
        if session.pointee.lane == .own { giveUpOwn(session) }
        // Answered even if replies are off, which it ends too, but not if this one is skipped.
        if session.pointee.replies != .skipping { answer(session, "+RESET\r\n") }
        resetState(session)
        if session.pointee.isLoggedIn { forgetLogin(session) }
        return session.pointee.phase == .open || session.pointee.phase == .finished
            ? .handled : .stop
    }

    /// RESET on the session's own connection, which stays: the client may know its id.
    func passOnReset(_ session: SessionRef) {
        // It turns replies on before it is answered.
        if session.pointee.replies == .off { session.pointee.replies = .on }
        passOn(session, Self.reset, 1, .reset)
        session.pointee.blocks.insert(.reset)
    }

    func answerQuit(_ session: SessionRef) -> Verdict {
        if session.pointee.lane == .own, let upstream = session.pointee.upstream,
            !upstream.pointee.isCounted
        {
            // The server answers where the answer belongs, and closes.
            passOn(session, Self.quit, 1)
            session.pointee.phase = .finished
            session.pointee.closeReason = .quit
            // With replies turned off the server has nothing to say to QUIT, and closes only when
            // its client does. Otherwise an end would take from it what waits before QUIT.
            upstream.pointee.endsAfterOutgoing = upstream.pointee.mayBeSilent
            updateReading(session)
            return .stop
        }
        guard isQuiet(session) else { return .wait }
        respond(session, Array("+OK\r\n".utf8))
        endWhenSent(session, .quit)
        return .stop
    }

    /// Zeroes a request that carried a client's login.
    private func wipe(_ request: UnsafeMutableRawBufferPointer) {
        if let base = request.baseAddress { explicit_bzero(base, request.count) }
    }

    /// Whether nothing is owed to the session, nor a push on its way, so that an answer of ours has
    /// a place; otherwise it waits for that.
    func isQuiet(_ session: SessionRef) -> Bool {
        if session.pointee.owed == 0 && !isMidMessage(session) { return true }
        session.pointee.blocks.insert(.quiet)
        return false
    }

    /// Whether a session that is owed nothing has a transaction open.
    func isInTransaction(_ session: SessionRef) -> Bool {
        guard session.pointee.lane == .own, let upstream = session.pointee.upstream else {
            return false
        }
        return upstream.pointee.isCounted && upstream.pointee.ties.contains(.transaction)
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
    func takeOwn(_ session: SessionRef, for reason: PinReason, fresh: Bool = false) -> Bool {
        guard isQuiet(session) else { return false }
        guard mayOwn(route: session.pointee.route) else {
            session.pointee.blocks.insert(.pin)
            session.pointee.waitingSince = now
            pinWaiters.append(session)
            return false
        }
        beginPin(session, reason)
        session.pointee.waitingSince = now
        let pool = session.pointee.pool
        if !fresh, let upstream = spare[pool].popLast() {
            unneeded[pool] = min(unneeded[pool], spare[pool].count)
            upstream.pointee.owner = session
            upstream.pointee.hasHandedOver = false
            session.pointee.upstream = upstream
            introduce(session, to: upstream)
            return true
        }
        let upstream = makeUpstream(pool: pool, owner: session)
        // It comes with the login.
        upstream.pointee.attributes.name = name(of: session)
        session.pointee.upstream = upstream
        introduce(session, to: upstream)
        // Unless it has something to say first, which connects it.
        if upstream.pointee.state == .idle { connect(upstream) }
        return true
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
            session.pointee.substitute == nil, session.pointee.violation == nil,
            upstream.pointee.pool == session.pointee.pool
        else { return }
        if upstream.pointee.outdatedAt <= now {
            giveUpOwn(session)
            return
        }
        endPin(session)
        upstream.pointee.owner = nil
        spare[upstream.pointee.pool].append(upstream)
    }

    /// Closes the spare connections that nobody needed since the last call. To be called every ten
    /// seconds or so.
    package func trim() {
        for pool in spare.indices {
            let surplus = min(unneeded[pool], spare[pool].count - limits.spareConnections)
            for _ in 0..<max(0, surplus) {
                // The one that was idle longest.
                dropOwn(spare[pool].removeFirst())
            }
            unneeded[pool] = spare[pool].count
            let isUnused = poolSessions[pool] == 0
            if isUnused && wasUnused[pool] { closeShared(pool) }
            wasUnused[pool] = isUnused
        }
        for route in routes.indices where isRetired[route] { closeUnneeded(route) }
    }

    /// Closes the shared connections of a pool without sessions, but for those that stand ready for
    /// the next client.
    func closeShared(_ pool: Int) {
        let isFirst = pools[pool].database == 0 && pools[pool].protocolVersion == 2
        guard !isFirst || isRetired[pools[pool].route] else { return }
        let first = firstShared(pool)
        for upstream in shared[first..<first + limits.connectionsPerPool]
        where upstream.pointee.state == .ready && upstream.pointee.queue.isEmpty {
            upstream.pointee.state = .idle
            actions.append(.disconnect(upstream))
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
        endPin(session)
        session.pointee.owed = 0
        session.pointee.isMidRequest = false
        session.pointee.blocking = 0
        session.pointee.substitute = nil
        session.pointee.isLimited = false
        session.pointee.change = nil
        unblock(session, [.upstream, .state, .blocked])
        dropOwn(upstream)
    }

    /// Ends an own connection that serves its session no longer.
    func dropOwn(_ upstream: UpstreamRef) {
        dropSecond(of: upstream)
        unpause(upstream)
        if upstream.pointee.state != .idle && upstream.pointee.state != .waiting {
            actions.append(.disconnect(upstream))
        }
        upstream.pointee.state = .gone
        upstream.pointee.owner = nil
        upstream.pointee.blocked = nil
        upstream.pointee.queue.removeAll()
        deadUpstreams.append(upstream)
    }

    /// From here on the number of replies cannot be told from the requests: relay.
    func stopCounting(_ upstream: UpstreamRef) {
        guard upstream.pointee.isCounted else { return }
        if let owner = upstream.pointee.owner {
            // From here on the server itself keeps what the client said of replies.
            switch owner.pointee.replies {
            case .on: break
            case .off:
                upstream.pointee.outgoing.append(request("CLIENT", "REPLY", "OFF"))
            case .skip, .skipping:
                upstream.pointee.outgoing.append(request("CLIENT", "REPLY", "SKIP"))
            }
            if owner.pointee.replies != .on { upstream.pointee.mayBeSilent = true }
            owner.pointee.replies = .on
        }
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
