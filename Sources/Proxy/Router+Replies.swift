// The way back: decrypted bytes become replies, replies go to the session that is owed them.
//
// Replies are framed, counted and handed on as ranges of the reply buffer; a reply that is longer
// than what has arrived goes on its way all the same, and its rest follows.

import Glibc
import RESP

extension Router {
    /// `count` decrypted bytes lie in `replyBuffer`. The sessions that have output now must be
    /// served before the buffer is filled again.
    package func didReceive(_ count: Int, from upstream: UpstreamRef) {
        guard count > 0, var base = UnsafeRawPointer(replyBuffer.baseAddress) else { return }
        var count = count
        if upstream.pointee.renewal == .underWay && !upstream.pointee.renewsAmongMessages {
            guard let taken = receiveRenewal(upstream, base, count), taken < count else {
                settle()
                return
            }
            base += taken
            count -= taken
        }
        switch upstream.pointee.state {
        case .ready:
            if !upstream.pointee.isCounted {
                relay(upstream, base, count)
            } else if upstream.pointee.ties.contains(.subscription) {
                receiveSubscribed(upstream, UnsafeMutableRawPointer(mutating: base), count)
            } else if upstream.pointee.first != nil {
                receiveSecond(upstream, base, count)
            } else if upstream.pointee.blocked != nil {
                receiveBlocked(upstream, base, count)
            } else if let owner = upstream.pointee.owner, owner.pointee.substitute != nil {
                substitute(upstream, owner, base, count)
            } else {
                match(upstream, base, 0, count)
            }
        case .loggingIn:
            didReceiveLoginReply(upstream, UnsafeRawBufferPointer(start: base, count: count))
        case .idle, .connecting, .waiting, .gone:
            break
        }
        if upstream.pointee.needsLogin {
            upstream.pointee.needsLogin = false
            if upstream.pointee.state == .loggingIn { logInAgain(upstream) }
        }
        tryRenewal(upstream)
        if upstream.pointee.complaint != .none { heed(upstream) }
        leaveIfAnswered(upstream)
        // What it learnt from an answer may let a paused one go on.
        if isPaused[upstream.pointee.user.rawValue] { markDirty(upstream) }
        settle()
    }

    /// Gives each reply to the session at the head of the queue.
    func match(
        _ upstream: UpstreamRef,
        _ base: UnsafeRawPointer,
        _ from: Int,
        _ end: Int
    ) {
        var offset = from
        var delivered = from
        while offset < end {
            // The last reply may have ended its session, and with it an own connection.
            guard upstream.pointee.state == .ready else { return }
            guard upstream.pointee.queue.count > upstream.pointee.unsentRuns else {
                // Nothing is owed. A push may come at any time; anything else means that the
                // stream is not what it was taken for, and no later reply could be trusted.
                guard let after = skipPush(upstream, base, offset, end) else { return }
                offset = after
                delivered = after
                continue
            }
            let run = upstream.pointee.queue.head
            if run.pointee.isMuted {
                guard let after = skipReply(upstream, base, offset, end) else { return }
                offset = after
                delivered = after
                continue
            }
            let session = run.pointee.session
            let since = run.pointee.since
            // How long others let it wait is no latency.
            let isBlocking = run.pointee.kind == .blocking
            var replies: UInt32 = 0
            scanning: while true {
                switch upstream.pointee.framer.next(base, from: offset, to: end) {
                case .reply(let after):
                    if upstream.pointee.framer.type == UInt8(ascii: "-") {
                        listen(
                            upstream,
                            UnsafeRawBufferPointer(start: base + offset, count: after - offset))
                    }
                    if run.pointee.kind != .plain {
                        hold(upstream, run.pointee.kind, base + offset, after - offset)
                        guard learn(run.pointee.kind, upstream) else {
                            failTransaction(upstream)
                            return
                        }
                    }
                    offset = after
                    replies &+= 1
                    upstream.pointee.partialReply = 0
                    if replies == run.pointee.replies {
                        upstream.pointee.queue.removeFirst()
                        break scanning
                    }
                    if offset == end {
                        run.pointee.replies &-= replies
                        break scanning
                    }
                case .push(let after):
                    // On a shared connection nobody asked for it. On an own one it is its
                    // session's, wherever it stands among the replies.
                    if upstream.pointee.isShared {
                        run.pointee.replies &-= replies
                        if replies > 0 { note(replies, since) }
                        deliver(session, base + delivered, offset - delivered, replies)
                        replies = 0
                        delivered = after
                    }
                    offset = after
                    if offset == end {
                        run.pointee.replies &-= replies
                        break scanning
                    }
                case .incomplete:
                    run.pointee.replies &-= replies
                    if replies > 0 { note(replies, since) }
                    if upstream.pointee.framer.inPush && upstream.pointee.isShared {
                        deliver(session, base + delivered, offset - delivered, replies)
                        return
                    }
                    if run.pointee.kind != .plain && !upstream.pointee.framer.inPush {
                        hold(upstream, run.pointee.kind, base + offset, end - offset)
                    }
                    upstream.pointee.partialReply &+= end &- offset
                    let total =
                        upstream.pointee.partialReply
                        &+ upstream.pointee.framer.bulkRemaining
                    if upstream.pointee.isShared && total > limits.bigReply {
                        session.pointee.prefersOwn = true
                        // It may have to wait for its reader: nobody new shall wait with it.
                        if total > limits.replyBuffer { retire(upstream) }
                    }
                    deliver(session, base + delivered, end - delivered, replies)
                    return
                case .violation:
                    run.pointee.replies &-= replies
                    deliver(session, base + delivered, offset - delivered, replies)
                    fail(upstream, "the server sent what is not RESP")
                    return
                }
            }
            if replies > 0 && !isBlocking { note(replies, since) }
            deliver(session, base + delivered, offset - delivered, replies)
            delivered = offset
            if upstream.pointee.isRetired && upstream.pointee.queue.isEmpty {
                dismiss(upstream)
                return
            }
        }
    }

    /// Counts replies of a run whose first request came at `since`.
    @inline(__always)
    private func note(_ replies: UInt32, _ since: Instant) {
        figures.pointee.note(replies, after: now.nanoseconds &- since.nanoseconds)
    }

    /// What the answer to a tracked request says about its connection.
    ///
    /// The answer, or its beginning, is in `heldBack`, which is empty afterwards.
    ///
    /// - Returns: false if the connection is not in a state to go on.
    func learn(_ kind: RunKind, _ upstream: UpstreamRef) -> Bool {
        defer { upstream.pointee.heldBack.removeAll() }
        let reply = upstream.pointee.heldBack.contents
        let isError = upstream.pointee.framer.type == UInt8(ascii: "-")
        if (kind == .hello || kind == .speak) && !isError {
            let isMap = upstream.pointee.framer.type == UInt8(ascii: "%")
            upstream.pointee.spokenVersion = isMap ? 3 : 2
        }
        switch kind {
        case .plain: break
        case .multi, .sharedMulti:
            if !isError { upstream.pointee.ties.insert(.transaction) }
        case .exec, .sharedExec:
            // Refused for want of permission or for its arity, EXEC leaves the transaction open;
            // without MULTI it leaves the watches.
            let user = upstream.pointee.user.rawValue
            if !isError || reply.starts(with: "-EXECABORT".utf8) {
                upstream.pointee.ties.subtract([.transaction, .watch])
                permissions[user].insert(.exec)
            } else if reply.starts(with: "-ERR EXEC without MULTI".utf8) {
                upstream.pointee.ties.remove(.transaction)
                permissions[user].insert(.exec)
            } else {
                permissions[user].remove(.exec)
                return kind == .exec || !upstream.pointee.ties.contains(.transaction)
            }
        case .discard:
            if !isError { upstream.pointee.ties.subtract([.transaction, .watch]) }
        case .watch:
            if !isError { upstream.pointee.ties.insert(.watch) }
        case .unwatch:
            // Inside a transaction it is only queued, and EXEC will end the watches anyway.
            if !isError && !upstream.pointee.ties.contains(.transaction) {
                upstream.pointee.ties.remove(.watch)
            }
        case .blocking:
            guard let owner = upstream.pointee.owner, owner.pointee.blocking > 0 else { break }
            owner.pointee.blocking -= 1
            unblock(owner, .blocked)
            updateReading(owner)
        case .lasting:
            if !isError { upstream.pointee.ties.insert(.lasting) }
        case .identity:
            if !isError { upstream.pointee.ties.insert(.identity) }
        case .reset:
            guard let owner = upstream.pointee.owner else { break }
            if !isError { didReset(owner, upstream) }
            unblock(owner, .reset)
        case .prelude:
            return !isError
        case .select, .hello, .setName, .getName, .setInfo, .replyMode:
            guard let owner = upstream.pointee.owner else { break }
            let change = owner.pointee.change
            if isError { owner.pointee.change = nil } else { agree(kind, owner, upstream) }
            if kind == .replyMode { answerReplyMode(reply, owner) }
            if case .ownName(isWanted: true) = change { answerName(reply, owner) }
        case .subscribe, .unsubscribe, .unsubscribeAll, .punsubscribeAll, .sunsubscribeAll, .ping,
            .speak:
            break
        }
        return true
    }

    /// Keeps the beginning of an answer that has to be looked at, as it may come in pieces.
    func hold(
        _ upstream: UpstreamRef,
        _ kind: RunKind,
        _ bytes: UnsafeRawPointer,
        _ count: Int
    ) {
        // Of EXEC's the first words are enough; an error is passed on whole.
        let isOurs = kind == .replyMode || kind == .getName
        let limit = isOurs ? limits.loginRequest : 64
        let room = limit - upstream.pointee.heldBack.count
        if room > 0 { upstream.pointee.heldBack.append(bytes, min(room, count)) }
    }

    /// Drops the next reply, which belongs to a muted run, as far as it has come; nil if the rest of
    /// the bytes is spent. Pushes in front of it or inside are passed on.
    private func skipReply(
        _ upstream: UpstreamRef,
        _ base: UnsafeRawPointer,
        _ offset: Int,
        _ end: Int
    ) -> Int? {
        let run = upstream.pointee.queue.head
        let session = run.pointee.session
        switch upstream.pointee.framer.next(base, from: offset, to: end) {
        case .reply(let after):
            let kind = run.pointee.kind
            if upstream.pointee.framer.type == UInt8(ascii: "-") {
                listen(
                    upstream, UnsafeRawBufferPointer(start: base + offset, count: after - offset))
            }
            upstream.pointee.partialReply = 0
            if kind != .plain { hold(upstream, kind, base + offset, after - offset) }
            guard kind == .plain || learn(kind, upstream) else {
                if kind == .prelude {
                    fail(upstream, "the server refused what a session's connection needs first")
                } else {
                    failTransaction(upstream)
                }
                return nil
            }
            run.pointee.replies &-= 1
            if run.pointee.replies == 0 { upstream.pointee.queue.removeFirst() }
            discharge(session, 1)
            if upstream.pointee.isRetired && upstream.pointee.queue.isEmpty {
                dismiss(upstream)
                return nil
            }
            return after
        case .push(let after):
            if let owner = upstream.pointee.owner {
                deliver(owner, base + offset, after - offset, 0)
            }
            return after
        case .incomplete:
            if upstream.pointee.framer.inPush {
                if let owner = upstream.pointee.owner {
                    deliver(owner, base + offset, end - offset, 0)
                }
            } else {
                if run.pointee.kind != .plain {
                    hold(upstream, run.pointee.kind, base + offset, end - offset)
                }
                upstream.pointee.partialReply &+= end &- offset
            }
            return nil
        case .violation:
            fail(upstream, "the server sent what is not RESP")
            return nil
        }
    }

    /// The server let a transaction begin on a shared connection and then refused EXEC, which it
    /// had not refused before: what others sent since is queued behind it and must never run.
    private func failTransaction(_ upstream: UpstreamRef) {
        fail(upstream, "the server refused the EXEC of a transaction on a shared connection")
    }

    /// Skips one push that arrived while nothing is owed; nil if the rest of the bytes is spent,
    /// or was no push and the connection was given up.
    private func skipPush(
        _ upstream: UpstreamRef,
        _ base: UnsafeRawPointer,
        _ offset: Int,
        _ end: Int
    ) -> Int? {
        switch upstream.pointee.framer.next(base, from: offset, to: end) {
        case .push(let after):
            if let owner = upstream.pointee.owner {
                deliver(owner, base + offset, after - offset, 0)
                // What waited for the end of the push.
                if owner.pointee.blocks.contains(.quiet) || owner.pointee.phase != .open {
                    didBecomeQuiet(owner)
                }
            }
            return after
        case .incomplete where upstream.pointee.framer.inPush:
            if let owner = upstream.pointee.owner {
                deliver(owner, base + offset, end - offset, 0)
            }
            return nil
        case .reply, .incomplete, .violation:
            fail(upstream, "the server sent a reply that nobody asked for")
            return nil
        }
    }

    /// Drops the answer to a stand-in for the client's login and delivers our own in its place.
    private func substitute(
        _ upstream: UpstreamRef,
        _ owner: SessionRef,
        _ base: UnsafeRawPointer,
        _ count: Int
    ) {
        var offset = 0
        while offset < count {
            switch upstream.pointee.framer.next(base, from: offset, to: count) {
            case .push(let after):
                deliver(owner, base + offset, after - offset, 0)
                offset = after
            case .incomplete:
                // A push in progress is rare here and may be passed on in parts; the stand-in's
                // answer is dropped in parts.
                if upstream.pointee.framer.inPush {
                    deliver(owner, base + offset, count - offset, 0)
                }
                return
            case .violation:
                fail(upstream, "the server sent what is not RESP")
                return
            case .reply(let after):
                upstream.pointee.queue.removeFirst()
                if let reply = owner.pointee.substitute { answer(owner, reply) }
                owner.pointee.substitute = nil
                unblock(owner, .substitute)
                discharge(owner, 1)
                match(upstream, base, after, count)
                return
            }
        }
    }

    /// When the request was read whose reply a shared connection brings next; nil if it owes none.
    @inline(__always)
    package func oldestRequest(of upstream: UpstreamRef) -> Instant? {
        guard upstream.pointee.isShared, upstream.pointee.state == .ready,
            upstream.pointee.queue.count > upstream.pointee.unsentRuns
        else { return nil }
        return upstream.pointee.queue.head.pointee.since
    }

    /// Hands `count` bytes, which contain the ends of `replies` replies, to a session.
    @inline(__always)
    func deliver(
        _ session: SessionRef,
        _ bytes: UnsafeRawPointer,
        _ count: Int,
        _ replies: UInt32
    ) {
        if count > 0 && session.pointee.phase != .gone {
            output(session, bytes, count)
            session.pointee.recentReplyBytes &+= count
        }
        if replies > 0 { discharge(session, replies) }
    }

    /// The session is no longer owed `replies` replies: they are delivered, or answered by us.
    @inline(__always)
    func discharge(_ session: SessionRef, _ replies: UInt32) {
        session.pointee.owed &-= replies
        if session.pointee.phase == .gone {
            if session.pointee.owed == 0 { bury(session) }
            return
        }
        judgeWindow(session, replies)
        if !session.pointee.blocks.isDisjoint(with: .window),
            session.pointee.owed &* 2 <= session.pointee.window
        {
            unblock(session, .window)
        }
        if session.pointee.owed == 0 {
            didBecomeQuiet(session)
        } else if session.pointee.isMidRequest && session.pointee.owed == 1 {
            // All but the request that is still on its way: if its rest never comes, this is all.
            endIfDone(session)
        }
    }

    /// Queues bytes of the reply buffer for a client: sent straight from there if they are all
    /// that it gets in this turn.
    @inline(__always)
    func output(_ session: SessionRef, _ bytes: UnsafeRawPointer, _ count: Int) {
        if session.pointee.output.isEmpty {
            guard let start = session.pointee.directStart else {
                session.pointee.directStart = bytes
                session.pointee.directCount = count
                markDirty(session)
                return
            }
            if start + session.pointee.directCount == bytes {
                session.pointee.directCount &+= count
                return
            }
            keepDirect(session)
        }
        session.pointee.output.append(bytes, count)
        markDirty(session)
    }

    /// Copies what would have been sent from the reply buffer, because more follows or because
    /// the client's socket is full.
    func keepDirect(_ session: SessionRef) {
        guard let start = session.pointee.directStart else { return }
        session.pointee.output.append(start, session.pointee.directCount)
        session.pointee.directStart = nil
        session.pointee.directCount = 0
    }

    /// An answer of the proxy's own.
    func answer(_ session: SessionRef, _ reply: StaticString) {
        answer(session, UnsafeRawPointer(reply.utf8Start), reply.utf8CodeUnitCount)
    }

    /// The answer to a request of the client's, unless it wants none.
    func respond(_ session: SessionRef, _ reply: [UInt8]) {
        if !session.pointee.isMuted { answer(session, reply) }
    }

    func answer(_ session: SessionRef, _ reply: [UInt8]) {
        reply.withUnsafeBytes { bytes in
            if let base = bytes.baseAddress { answer(session, base, bytes.count) }
        }
    }

    func answer(_ session: SessionRef, _ bytes: UnsafeRawPointer, _ count: Int) {
        guard count > 0, session.pointee.phase != .gone else { return }
        keepDirect(session)
        session.pointee.output.append(bytes, count)
        markDirty(session)
    }

    /// Opens the window while replies are small, and closes it when they are not.
    @inline(__always)
    private func judgeWindow(_ session: SessionRef, _ replies: UInt32) {
        session.pointee.recentReplies &+= replies
        let recent = session.pointee.recentReplies
        if recent >= 64 || session.pointee.recentReplyBytes > limits.replyWindow {
            let average = max(1, session.pointee.recentReplyBytes / Int(recent))
            let cap = min(Int(limits.maximumWindow), max(1, limits.replyWindow / average))
            session.pointee.windowCap = UInt32(truncatingIfNeeded: cap)
            session.pointee.recentReplies = 0
            session.pointee.recentReplyBytes = 0
        }
        if session.pointee.window < session.pointee.windowCap {
            session.pointee.window = min(
                session.pointee.windowCap,
                session.pointee.window &+ replies
            )
        } else {
            session.pointee.window = session.pointee.windowCap
        }
    }

    // MARK: Sending to the client

    /// What a session has to send. Valid until the next event.
    package func output(of session: SessionRef) -> UnsafeRawBufferPointer {
        if !session.pointee.output.isEmpty {
            return UnsafeRawBufferPointer(
                start: session.pointee.output.bytes,
                count: session.pointee.output.count
            )
        }
        return UnsafeRawBufferPointer(
            start: session.pointee.directStart,
            count: session.pointee.directCount
        )
    }

    /// The client's socket took `count` bytes of `output(of:)`; the rest, if any, is kept. To be
    /// called after each attempt, also when nothing was taken.
    package func didSend(_ count: Int, to session: SessionRef) {
        if let start = session.pointee.directStart {
            let rest = session.pointee.directCount &- count
            session.pointee.directStart = nil
            session.pointee.directCount = 0
            if rest > 0 { session.pointee.output.append(start + count, rest) }
        } else {
            session.pointee.output.consume(count)
        }
        if session.pointee.output.isEmpty {
            session.pointee.output.release()
            if session.pointee.blocks.isDisjoint(with: .output),
                session.pointee.phase == .open
            {
                return
            }
        }
        didSendSome(session, count)
        settle()
    }

    /// The part of `didSend` that concerns slow readers and sessions that are ending.
    private func didSendSome(_ session: SessionRef, _ count: Int) {
        let unread = session.pointee.output.count
        let upstream = session.pointee.upstream
        if let upstream, upstream.pointee.pausedFor == session {
            upstream.pointee.takenForMore -= count
            if upstream.pointee.takenForMore <= 0 { startReaderTime(upstream, session) }
        }
        if unread > limits.replyBuffer {
            session.pointee.blocks.insert(.output)
            updateReading(session)
            if let upstream { pauseIfBig(upstream, for: session) }
            if unread > limits.replyBufferMaximum && session.pointee.lane == .shared {
                end(session, .slowReader)
            }
        } else if unread <= limits.replyBuffer / 2 {
            if let upstream, upstream.pointee.pausedFor == session { unpause(upstream) }
            unblock(session, .output)
        }
        if unread == 0 { endIfDone(session) }
    }

    /// Stops reading a connection whose present reply is big and whose client does not keep up.
    ///
    /// Many small replies are never a reason to stop: redis-server (7.0.15) drops a TLS
    /// connection whose small replies it cannot write for a while.
    private func pauseIfBig(_ upstream: UpstreamRef, for session: SessionRef) {
        guard upstream.pointee.pausedFor == nil, upstream.pointee.state == .ready else { return }
        if upstream.pointee.isCounted && !upstream.pointee.ties.contains(.subscription) {
            guard upstream.pointee.queue.count > upstream.pointee.unsentRuns,
                upstream.pointee.queue.head.pointee.session == session,
                upstream.pointee.partialReply + upstream.pointee.framer.bulkRemaining
                    > limits.bigReply
            else { return }
        }
        upstream.pointee.pausedFor = session
        startReaderTime(upstream, session)
        paused.append(upstream)
        actions.append(.setUpstreamReading(upstream))
        if upstream.pointee.isShared { retire(upstream) }
    }

    /// Whoever leaves a big reply unread has `slowReaderTimeout` for a part of it, and not only
    /// for one byte, which would do to keep others waiting for ever.
    private func startReaderTime(_ upstream: UpstreamRef, _ session: SessionRef) {
        session.pointee.waitingSince = now
        upstream.pointee.takenForMore = max(1, limits.replyBuffer / 4)
    }

    func unpause(_ upstream: UpstreamRef) {
        guard upstream.pointee.pausedFor != nil else { return }
        upstream.pointee.pausedFor = nil
        paused.removeAll { $0 == upstream }
        if upstream.pointee.state == .ready { actions.append(.setUpstreamReading(upstream)) }
    }
}
