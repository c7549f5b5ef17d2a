// Upstream connections: coming up, logging in, being lost, and what becomes of the commands that
// wait for them meanwhile.

package import Identity
import RESP

extension Router {
    // MARK: Coming up

    /// Connects the shared RESP2 place of a route ahead of the first command.
    package func warm(route: Int) {
        for upstream in shared
        where upstream.pointee.pool == pool(route: route, 2, database: 0)
            && upstream.pointee.state == .idle
        {
            connect(upstream)
        }
    }

    func connect(_ upstream: UpstreamRef) {
        upstream.pointee.state = .connecting
        watch(upstream)
        actions.append(.connect(upstream))
    }

    /// Puts a connection on the list that `tick` looks at.
    private func watch(_ upstream: UpstreamRef) {
        guard !upstream.pointee.isUnready else { return }
        upstream.pointee.isUnready = true
        unready.append(upstream)
    }

    /// TCP and TLS are up, the server is verified: the login goes out at once.
    package func didConnect(_ upstream: UpstreamRef) {
        guard upstream.pointee.state == .connecting else { return }
        scheduleReplacement(upstream)
        logIn(upstream)
        settle()
    }

    /// Sends the login on a connection on which nobody is logged in.
    func logIn(_ upstream: UpstreamRef) {
        let snapshot = credentials[upstream.pointee.user.rawValue]
        guard let credential = snapshot?.credential, credential.isUsable(at: now.nanoseconds) else {
            let reason =
                snapshot?.failure
                ?? (snapshot?.credential == nil
                    ? "the credential was not read yet" : "the credential has expired")
            report(.noCredential(upstream.pointee.facts, reason: reason))
            upstream.pointee.usedCredential = nil
            upstream.pointee.lastFailure = .refused
            actions.append(.refreshCredential(upstream.pointee.user))
            didFailLogin(upstream)
            return
        }
        upstream.pointee.usedCredential = credential
        upstream.pointee.writeLogin(
            credential,
            name: upstream.pointee.isShared
                ? sharedNames[upstream.pointee.route] : upstream.pointee.attributes.name
        )
        upstream.pointee.loginReply.removeAll()
        upstream.pointee.framer = ReplyFramer()
        upstream.pointee.state = .loggingIn
        upstream.pointee.deadline = now + limits.loginTimeout
        watch(upstream)
        markDirty(upstream)
    }

    /// `reason`: which step failed, against which address, and why.
    package func didFailToConnect(_ upstream: UpstreamRef, reason: String) {
        guard upstream.pointee.state == .connecting else { return }
        upstream.pointee.failures += 1
        upstream.pointee.lastFailure = .unreachable
        report(.connectFailed(upstream.pointee.facts, reason: reason))
        pause(upstream)
        settle()
    }

    func didReceiveLoginReply(_ upstream: UpstreamRef, _ bytes: UnsafeRawBufferPointer) {
        upstream.pointee.loginReply.append(bytes)
        let reply = UnsafeRawBufferPointer(
            start: upstream.pointee.loginReply.bytes,
            count: upstream.pointee.loginReply.count
        )
        var framer = ReplyFramer()
        guard let base = reply.baseAddress else { return }
        switch framer.next(base, from: 0, to: reply.count) {
        case .incomplete where reply.count <= limits.loginRequest:
            return
        case .reply(let end) where framer.type == UInt8(ascii: "-"):
            let text = printable(UnsafeRawBufferPointer(rebasing: reply[1..<end]))
            let credential = credentials[upstream.pointee.user.rawValue]?.credential
            let shown = credential?.redacting(text) ?? text
            report(.loginRefused(upstream.pointee.facts, reply: shown))
            upstream.pointee.loginReply.removeAll()
            upstream.pointee.lastFailure = .refused
            actions.append(.refreshCredential(upstream.pointee.user))
            didFailLogin(upstream)
        case .reply(let end) where end == reply.count || upstream.pointee.database != 0:
            if upstream.pointee.database != 0 {
                switch framer.next(base, from: end, to: reply.count) {
                case .incomplete where reply.count <= limits.loginRequest:
                    return
                case .reply(let last) where last == reply.count && framer.type == 0x2B:
                    break
                case .reply(let last) where last == reply.count && framer.type == 0x2D:
                    let text = printable(UnsafeRawBufferPointer(rebasing: reply[(end + 1)..<last]))
                    report(.databaseRefused(upstream.pointee.facts, reply: text))
                    upstream.pointee.loginReply.removeAll()
                    upstream.pointee.lastFailure = .databaseRefused
                    databases[upstream.pointee.user.rawValue].remove(upstream.pointee.database)
                    didFailLogin(upstream)
                    return
                default:
                    upstream.pointee.loginReply.removeAll()
                    fail(upstream, "the server's answer to the login is not an answer to HELLO")
                    return
                }
            }
            let hello = UnsafeRawBufferPointer(rebasing: reply[..<end])
            guard let said = HelloReply.parse(hello), let id = said.connectionIDRange else {
                upstream.pointee.loginReply.removeAll()
                fail(upstream, "the server's answer to the login is not an answer to HELLO")
                return
            }
            upstream.pointee.connectionID = said.connectionID ?? 0
            upstream.pointee.helloHead = Array(reply[..<id.lowerBound])
            upstream.pointee.helloTail = Array(hello[id.upperBound...])
            upstream.pointee.isCluster = said.mode.elementsEqual("cluster".utf8)
            noteRole(said.role, of: upstream)
            upstream.pointee.loginReply.removeAll()
            upstream.pointee.loginReply.release()
            didLogIn(upstream)
        default:
            upstream.pointee.loginReply.removeAll()
            fail(upstream, "the server's answer to the login is not an answer to HELLO")
        }
    }

    private func didLogIn(_ upstream: UpstreamRef) {
        upstream.pointee.state = .ready
        upstream.pointee.readySince = now
        upstream.pointee.failures = 0
        // Who knows its connection's id must not go on on another.
        upstream.pointee.hasHandedOver = upstream.pointee.ties.contains(.identity)
        // An own one's are noted when the request is, if that is too long to be looked at whole.
        if upstream.pointee.isShared { upstream.pointee.ties = [] }
        // What had come of a reply when the connection before was lost is not the beginning of one.
        upstream.pointee.partialReply = 0
        upstream.pointee.heldBack.removeAll()
        upstream.pointee.framer = ReplyFramer()
        upstream.pointee.spokenVersion = upstream.pointee.protocolVersion
        scheduleRenewal(upstream)
        updateSlice(upstream)
        report(.ready(upstream.pointee.facts))
        markDirty(upstream)
        wakeWaiters(upstream, .facts)
        // Behind RESET nothing may tie it to its session any more.
        if let owner = upstream.pointee.owner, owner.pointee.owed == 0 { releaseOwn(owner) }
    }

    /// Error text of the server's, fit for a log: bounded, without line breaks.
    func printable(_ bytes: UnsafeRawBufferPointer) -> String {
        var text = bytes.prefix(200)
        while let last = text.last, last == 13 || last == 10 { text = text.dropLast() }
        return String(
            decoding: text.map { $0 >= 0x20 && $0 < 0x7f ? $0 : UInt8(ascii: "?") },
            as: UTF8.self
        )
    }

    /// The login cannot be made, or was refused: nothing of a client goes out on this connection.
    private func didFailLogin(_ upstream: UpstreamRef) {
        upstream.pointee.failures += 1
        if endIdentified(upstream, .loginRefused) { return }
        actions.append(.disconnect(upstream))
        pause(upstream)
    }

    /// Ends the session of a connection that is lost in the login behind RESET, if it knows the
    /// connection's id.
    private func endIdentified(_ upstream: UpstreamRef, _ error: ClientError) -> Bool {
        guard upstream.pointee.ties.contains(.identity), let owner = upstream.pointee.owner else {
            return false
        }
        if owner.pointee.owed > 0 { answer(owner, error.reply) }
        endWhenSent(owner, .upstreamLost)
        return true
    }

    /// Waits before the next attempt, if anybody wants one.
    private func pause(_ upstream: UpstreamRef) {
        upstream.pointee.login.removeAll()
        guard upstream.pointee.isWanted else {
            upstream.pointee.state = .idle
            return
        }
        let doublings = min(16, max(0, upstream.pointee.failures - 1))
        let route = routes[upstream.pointee.route]
        let full = min(route.backoffMaximum, route.backoffMinimum * (1 << doublings))
        let jitter = Double.random(in: 0.5...1, using: &random)
        upstream.pointee.state = .waiting
        upstream.pointee.deadline = now + full * jitter
        watch(upstream)
    }

    /// A credential was fetched, or could not be.
    package func publish(_ snapshot: CredentialSnapshot, for user: UserIndex) {
        credentials[user.rawValue] = snapshot
        guard let credential = snapshot.credential else { return }
        for upstream in unready
        where upstream.pointee.user == user && upstream.pointee.state == .waiting
            && upstream.pointee.lastFailure == .refused
            && upstream.pointee.usedCredential != credential
        {
            // Another secret than the one that was refused: no reason to wait.
            connect(upstream)
        }
        renewPasswords(of: user, credential)
    }

    // MARK: Handing over

    /// What is to be handed over to TLS now, whole: the login, or what the sessions passed on.
    package func outgoing(of upstream: UpstreamRef) -> UnsafeRawBufferPointer {
        switch upstream.pointee.state {
        case .loggingIn,
            .ready where holdsBack(upstream):
            upstream.pointee.login.contents
        case .ready: upstream.pointee.outgoing.contents
        case .idle, .connecting, .waiting, .gone: UnsafeRawBufferPointer(start: nil, count: 0)
        }
    }

    /// What was passed on stays for the moment: a login goes first, or the user is paused.
    private func holdsBack(_ upstream: UpstreamRef) -> Bool {
        upstream.pointee.holdsBack || isHeld(upstream)
    }

    /// All of `outgoing(of:)` was handed over: from here on its outcome is the server's business.
    package func didHandOver(_ upstream: UpstreamRef) {
        switch upstream.pointee.state {
        case .loggingIn,
            .ready where holdsBack(upstream):
            upstream.pointee.login.removeAll()
            upstream.pointee.login.release()
        case .ready:
            if !upstream.pointee.outgoing.isEmpty { upstream.pointee.hasHandedOver = true }
            upstream.pointee.outgoing.consume(upstream.pointee.outgoing.count)
            if !upstream.pointee.isShared { upstream.pointee.outgoing.release(above: 65_536) }
            upstream.pointee.unsentRuns = 0
            if !upstream.pointee.waiters.isEmpty {
                wakeWaiters(upstream, .upstream)
                settle()
            }
            if upstream.pointee.endsAfterOutgoing && upstream.pointee.outgoing.isEmpty {
                upstream.pointee.endsAfterOutgoing = false
                upstream.pointee.hasEnded = true
                actions.append(.finishSending(upstream))
            }
        case .idle, .connecting, .waiting, .gone:
            break
        }
    }

    private func wakeWaiters(_ upstream: UpstreamRef, _ block: Session.Blocks) {
        let waiters = upstream.pointee.waiters
        upstream.pointee.waiters = waiters.filter { $0.pointee.blocks.isDisjoint(with: block) }
        for session in waiters { unblock(session, block) }
    }

    // MARK: Being lost

    /// The transport is gone: closed by the server, reset, or failed. `reason` in words.
    package func didLose(_ upstream: UpstreamRef, reason: String) {
        switch upstream.pointee.state {
        case .idle, .waiting, .gone:
            return
        case .connecting:
            didFailToConnect(upstream, reason: reason)
            return
        case .loggingIn:
            upstream.pointee.failures += 1
            upstream.pointee.lastFailure = .unreachable
            report(.connectFailed(upstream.pointee.facts, reason: reason))
            if !endIdentified(upstream, .upstreamUnreachable) { pause(upstream) }
        case .ready:
            upstream.pointee.state = .idle
            upstream.pointee.renewal = .none
            upstream.pointee.renewalCredential = nil
            upstream.pointee.login.removeAll()
            unpause(upstream)
            // A server that takes the login and then hangs up must not be called in a tight loop.
            if now.since(upstream.pointee.readySince)
                < routes[upstream.pointee.route].backoffMinimum
            {
                upstream.pointee.failures += 1
                upstream.pointee.lastFailure = .unreachable
            }
            if upstream.pointee.isShared {
                shed(upstream, reason)
            } else {
                loseOwn(upstream, reason)
            }
        }
        settle()
    }

    /// Gives a connection up from our side, and treats it as lost.
    func fail(_ upstream: UpstreamRef, _ reason: String) {
        actions.append(.disconnect(upstream))
        didLose(upstream, reason: reason)
    }

    private func loseOwn(_ upstream: UpstreamRef, _ reason: String) {
        guard let owner = upstream.pointee.owner else {
            // Nobody's: the next session that needs one gets another.
            if let first = upstream.pointee.first { retrySecond(of: first) }
            spare[upstream.pointee.pool].removeAll { $0 == upstream }
            dropOwn(upstream)
            return
        }
        if !upstream.pointee.hasHandedOver {
            reconnect(upstream)
            return
        }
        // The server was told that the client is finished, or was sent its QUIT, whose answer ends
        // a session before that where answers are counted.
        let isExpected =
            upstream.pointee.hasEnded
            || (owner.pointee.phase == .finished && owner.pointee.closeReason == .quit
                && !upstream.pointee.isCounted)
        if !isExpected {
            report(.lost(upstream.pointee.facts, reason: reason, closed: 1, kept: 0))
        }
        endWhenSent(owner, isExpected ? owner.pointee.closeReason : .upstreamLost)
    }

    /// A shared connection is lost: sessions with a request handed over and unanswered are
    /// closed and what they had not handed over is dropped; the others' requests stay, in order,
    /// for the next connection.
    private func shed(_ upstream: UpstreamRef, _ reason: String) {
        let sent = upstream.pointee.queue.count - upstream.pointee.unsentRuns
        var lost: [SessionRef] = []
        for index in 0..<sent {
            let run = upstream.pointee.queue[index].pointee
            run.session.pointee.owed &-= run.replies
            if run.session.pointee.phase != .gone && run.session.pointee.phase != .closing {
                run.session.pointee.phase = .closing
                run.session.pointee.closeReason = .upstreamLost
                lost.append(run.session)
            } else if run.session.pointee.phase == .gone && run.session.pointee.owed == 0 {
                bury(run.session)
            }
        }
        var kept: [Run] = []
        var offset = 0
        var outgoing = Buffer()
        for index in sent..<upstream.pointee.queue.count {
            var run = upstream.pointee.queue[index].pointee
            let bytes = Int(run.bytes)
            switch run.session.pointee.phase {
            case .open, .finished:
                outgoing.append(upstream.pointee.outgoing.bytes + offset, bytes)
                run.since = now
                kept.append(run)
            case .closing, .gone:
                run.session.pointee.owed &-= run.replies
                if run.session.pointee.phase == .gone && run.session.pointee.owed == 0 {
                    bury(run.session)
                }
            }
            offset += bytes
        }
        upstream.pointee.queue.removeAll()
        upstream.pointee.unsentRuns = 0
        upstream.pointee.partialReply = 0
        // What is kept of a retired connection goes to the one that has its place.
        let heir = heir(of: upstream)
        if heir == upstream {
            upstream.pointee.outgoing = outgoing
        } else {
            upstream.pointee.outgoing = Buffer()
            if !outgoing.isEmpty { heir.pointee.outgoing.append(outgoing.bytes, outgoing.count) }
        }
        for run in kept {
            heir.pointee.queue.append(run)
            run.session.pointee.upstream = heir
        }
        heir.pointee.unsentRuns += kept.count
        let keptSessions = Set(kept.map(\.session)).count
        report(
            .lost(upstream.pointee.facts, reason: reason, closed: lost.count, kept: keptSessions)
        )
        for session in lost {
            session.pointee.input.removeAll()
            session.pointee.input.release()
            updateReading(session)
            endIfDone(session)
        }
        wakeWaiters(upstream, .upstream)
        if heir == upstream {
            reconnect(upstream)
        } else {
            dismiss(upstream)
            markDirty(heir)
            if heir.pointee.state == .idle && heir.pointee.isWanted { connect(heir) }
        }
    }

    /// The connection that takes over what a lost one had not handed over.
    private func heir(of upstream: UpstreamRef) -> UpstreamRef {
        guard upstream.pointee.isRetired else { return upstream }
        return shared[firstShared(upstream.pointee.pool)]
    }

    /// Gives a shared connection's place to a new one. The old one delivers what it owes; sessions
    /// that it owes nothing go to the new one with their next command.
    func retire(_ upstream: UpstreamRef) {
        guard !upstream.pointee.isRetired, let index = shared.firstIndex(of: upstream) else {
            return
        }
        upstream.pointee.isRetired = true
        shared[index] = makeUpstream(pool: upstream.pointee.pool, owner: nil)
        retired.append(upstream)
        wakeWaiters(upstream, .upstream)
    }

    /// Lets go of a retired connection that owes nothing any more.
    func dismiss(_ upstream: UpstreamRef) {
        if upstream.pointee.state != .idle { actions.append(.disconnect(upstream)) }
        unpause(upstream)
        wakeWaiters(upstream, .upstream)
        upstream.pointee.state = .gone
        retired.removeAll { $0 == upstream }
        deadUpstreams.append(upstream)
    }

    private func reconnect(_ upstream: UpstreamRef) {
        if upstream.pointee.failures > 0 {
            pause(upstream)
        } else if upstream.pointee.isWanted {
            connect(upstream)
        }
    }

    // MARK: Time

    /// Whether `tick` has anything to look at. While it has, call it every few tens of
    /// milliseconds; that is the grain of every time-out here.
    package var wantsTicks: Bool {
        !unready.isEmpty || !paused.isEmpty || !pinWaiters.isEmpty || !unwatched.isEmpty
            || awaitingCount > 0 || renewsSoon
    }

    /// Acts on all deadlines that have passed. Afterwards the performer looks at the sockets of
    /// the sessions that are `unwatched`.
    package func tick() {
        for upstream in unready {
            switch upstream.pointee.state {
            case .waiting where upstream.pointee.deadline <= now:
                if upstream.pointee.isWanted {
                    connect(upstream)
                } else {
                    upstream.pointee.state = .idle
                }
            case .loggingIn where upstream.pointee.deadline <= now:
                fail(upstream, "the server did not answer the login in \(limits.loginTimeout)")
            default: break
            }
            giveUpWaiting(upstream)
        }
        unready.removeAll { upstream in
            switch upstream.pointee.state {
            case .idle, .ready, .gone:
                upstream.pointee.isUnready = false
                return true
            case .connecting, .loggingIn, .waiting:
                return false
            }
        }
        for upstream in paused { endSlowReader(upstream) }
        unwatched.removeAll { session in
            session.pointee.isUnwatched = isUnwatched(session)
            return !session.pointee.isUnwatched
        }
        endLateLogins()
        renewLogins()
        if !pinWaiters.isEmpty { endStalledUploads() }
        while let index = pinWaiters.firstIndex(where: {
            $0.pointee.waitingSince + limits.upstreamWait <= now && !isPaused($0)
        }) {
            let session = pinWaiters.remove(at: index)
            session.pointee.blocks.remove(.pin)
            answer(session, ClientError.noPinnedConnection.reply)
            endWhenSent(session, .errorInPlaceOfState)
        }
        settle()
    }

    /// Answers what has waited too long for a connection with errors.
    private func giveUpWaiting(_ upstream: UpstreamRef) {
        if isPaused[upstream.pointee.user.rawValue] { return }
        switch upstream.pointee.state {
        case .ready, .gone: return
        case .idle, .connecting, .loggingIn, .waiting: break
        }
        let (wait, error): (Duration, ClientError) =
            switch upstream.pointee.lastFailure {
            case .unreachable: (limits.upstreamWait, .upstreamUnreachable)
            case .refused: (limits.loginTimeout, .loginRefused)
            case .databaseRefused: (limits.loginTimeout, .databaseRefused)
            }
        var commands = 0
        if let owner = upstream.pointee.owner, !upstream.pointee.isCounted,
            owner.pointee.waitingSince + wait <= now
        {
            commands += 1
            answer(owner, error.reply)
            endWhenSent(owner, .errorInPlaceOfState)
        }
        while upstream.pointee.state != .gone, !upstream.pointee.queue.isEmpty,
            upstream.pointee.queue.head.pointee.since + wait <= now
        {
            let run = upstream.pointee.queue.head.pointee
            let session = run.session
            commands += Int(run.replies)
            if session.pointee.carriesState || session.pointee.isMidRequest
                || session.pointee.substitute != nil || run.kind == .prelude
            {
                answer(session, error.reply)
                endWhenSent(session, .errorInPlaceOfState)
                break
            }
            upstream.pointee.queue.removeFirst()
            upstream.pointee.unsentRuns -= 1
            upstream.pointee.outgoing.consume(Int(run.bytes))
            if !run.isMuted { for _ in 0..<run.replies { answer(session, error.reply) } }
            discharge(session, run.replies)
        }
        for session in upstream.pointee.waiters
        where session.pointee.blocks.contains(.facts)
            && session.pointee.waitingSince + wait <= now
        {
            commands += 1
            upstream.pointee.waiters.removeAll { $0 == session }
            session.pointee.blocks.remove(.facts)
            answer(session, error.reply)
            endWhenSent(session, .errorInPlaceOfState)
        }
        if commands > 0 {
            report(.gaveUp(upstream.pointee.facts, commands: commands))
            wakeWaiters(upstream, .upstream)
        }
    }

    /// The one declared loser: a client that leaves a big reply unread on a connection on which
    /// others wait.
    private func endSlowReader(_ upstream: UpstreamRef) {
        guard let session = upstream.pointee.pausedFor, upstream.pointee.isShared,
            session.pointee.waitingSince + limits.slowReaderTimeout <= now
        else { return }
        let others = upstream.pointee.queue.count > 1 || !upstream.pointee.outgoing.isEmpty
        if others { end(session, .slowReader) }
    }
}

extension Upstream {
    /// `HELLO version AUTH user secret [SETNAME name]`: a form of login that every ACL user may
    /// use, and whose answer carries the connection's id. Behind it, unless it is 0, the SELECT of
    /// the pool's database.
    mutating func writeLogin(_ credential: Credential, name: [UInt8]) {
        writeHello(credential, version: protocolVersion, name: name)
        guard database != 0 else { return }
        let index = String(database)
        login.append("*2\r\n$6\r\nSELECT\r\n$\(index.utf8.count)\r\n\(index)\r\n".utf8)
    }

    mutating func writeHello(_ credential: Credential, version: UInt8, name: [UInt8]) {
        login.removeAll()
        login.append((name.isEmpty ? "*5" : "*7").utf8)
        login.append("\r\n$5\r\nHELLO\r\n$1\r\n\(version)\r\n".utf8)
        appendAuth(credential)
        if !name.isEmpty {
            login.append("$7\r\nSETNAME\r\n$\(name.count)\r\n".utf8)
            login.append(name)
            login.append("\r\n".utf8)
        }
    }

    /// `AUTH user secret`, where it is not known which protocol the connection speaks.
    mutating func writeAuth(_ credential: Credential) {
        login.removeAll()
        login.append("*3\r\n".utf8)
        appendAuth(credential)
    }

    /// Three arguments, of AUTH and of HELLO alike.
    private mutating func appendAuth(_ credential: Credential) {
        login.append("$4\r\nAUTH\r\n".utf8)
        login.append("$\(credential.userName.utf8.count)\r\n\(credential.userName)\r\n".utf8)
        login.append("$\(credential.secret.count)\r\n".utf8)
        credential.secret.withBytes { login.append($0) }
        login.append("\r\n".utf8)
    }
}
