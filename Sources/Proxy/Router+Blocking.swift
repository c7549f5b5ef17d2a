// Commands that wait longer than a login lasts.
//
// A login that is sent while a command waits on the same connection waits behind it. So a command
// that may wait for long on a connection whose login ends goes out in slices:
//
//     client:  BLPOP queue 0 ─────────────────────────────────────────────────────► its element
//     server:  BLPOP queue 28000 ──► null   HELLO AUTH   BLPOP queue 28000 ──► null  …
//                                    kept back           the same once more
//
// A null at the end of a slice took nothing, so nothing can be lost or come twice; an earlier one is
// the client's own (CLIENT UNBLOCK), and so is the one at the end of its own timeout. Between two
// slices the command has lost its place among those that wait for the same key.
//
// Nothing goes out behind such a command before its answer has come: it would overtake it between
// two slices.
//
// XREAD from `$` is not sent again, because what is added between two of them is seen by neither:
// when its connection's login is due, a second connection sends the same while the first still
// waits, and the first answer counts.
//
// Rejected: CLIENT UNBLOCK, which few users may send.

import Identity
import RESP

/// A command that goes out in slices, on its session's own connection.
struct BlockedCommand {
    let request: BlockingRequest
    /// The end of the client's own timeout; nil: it has none.
    let deadline: Instant?
    /// When the slice ends that is on its way; nil if it lasts to the client's own end.
    var sliceEnd: Instant?
}

extension Router {
    // MARK: Going out

    /// How long a login of this connection's lasts, if it ends.
    private func life(of upstream: UpstreamRef) -> LoginLife? {
        guard case .iamToken(let life) = credential(of: upstream)?.kind else { return nil }
        return life
    }

    /// What a connection has logged in with, or would now; nil if there is none.
    private func credential(of upstream: UpstreamRef) -> Credential? {
        upstream.pointee.state == .ready
            ? upstream.pointee.usedCredential
            : credentials[upstream.pointee.user.rawValue]?.credential
    }

    /// Sends a command that may wait for long in slices; nil: it may be sent as it is.
    func block(
        _ command: CommandClass,
        _ request: UnsafeMutableRawBufferPointer,
        of session: SessionRef
    ) -> Verdict? {
        guard let upstream = session.pointee.upstream, upstream.pointee.isCounted,
            upstream.pointee.subscriptions.phase == .none
        else { return nil }
        let life = life(of: upstream)
        // Without a credential nobody knows whether the login will end.
        guard life != nil || credential(of: upstream) == nil,
            let parsed = BlockingRequest(command, UnsafeRawBufferPointer(request))
        else { return nil }
        let shortest = life.map { min(.seconds(1), $0.dueAfter / 20) } ?? .seconds(1)
        if let timeout = parsed.timeout, timeout < shortest { return nil }
        guard isQuiet(session) else { return .wait }
        if upstream.pointee.ties.contains(.transaction) || upstream.pointee.isEnding { return nil }
        tie(session, to: command, request)
        upstream.pointee.blocked = BlockedCommand(
            request: parsed, deadline: parsed.timeout.map { now + $0 }, sliceEnd: nil)
        session.pointee.blocks.insert(.blocked)
        let slice = nextSlice(upstream)
        slice.withUnsafeBytes { bytes in
            if let base = bytes.baseAddress { passOn(session, base, bytes.count, 1, .blocking) }
        }
        tryRenewal(upstream)
        return .handled
    }

    /// The command that is blocked on this connection, for as long as it may wait now.
    private func nextSlice(_ upstream: UpstreamRef) -> [UInt8] {
        guard var blocked = upstream.pointee.blocked else { return [] }
        let rest = blocked.deadline.map { $0.since(now) }
        guard let life = life(of: upstream) else {
            // There is no credential just now: said anew when it has logged in.
            blocked.sliceEnd = nil
            upstream.pointee.blocked = blocked
            return blocked.request.bytes(timeout: rest)
        }
        let isOnce = blocked.request.readsFromNow
        var slice = isOnce ? life.limit * 0.9 : life.dueAfter * 0.9
        if upstream.pointee.state == .ready && upstream.pointee.renewal == .none {
            let due = upstream.pointee.renewAt.since(now)
            if upstream.pointee.renewalFailures == 0 && due < life.dueAfter / 10 {
                // Better now than in the middle of it.
                renewNow(upstream)
            } else {
                let longest = upstream.pointee.closeAt.since(now) - life.limit / 100
                let replaceable = upstream.pointee.giveUpAt.since(now)
                slice =
                    isOnce
                    ? longest : min(due, longest, replaceable > .zero ? replaceable : longest)
            }
        }
        slice = max(slice, .milliseconds(50))
        if let rest, rest <= slice {
            blocked.sliceEnd = nil
            slice = rest
        } else {
            blocked.sliceEnd = now + slice
        }
        upstream.pointee.blocked = blocked
        return blocked.request.bytes(timeout: slice)
    }

    /// Says anew how long the blocked command may wait, if it has not been handed over.
    func updateSlice(_ upstream: UpstreamRef) {
        guard upstream.pointee.blocked != nil, upstream.pointee.unsentRuns > 0 else { return }
        let run = upstream.pointee.queue.last
        let length = Int(run.pointee.bytes)
        let slice = nextSlice(upstream)
        upstream.pointee.outgoing.remove(at: upstream.pointee.outgoing.count - length, length)
        upstream.pointee.outgoing.append(slice)
        run.pointee.bytes = UInt32(truncatingIfNeeded: slice.count)
    }

    // MARK: Coming back

    /// Bytes on a connection where a command is blocked that goes out in slices.
    func receiveBlocked(_ upstream: UpstreamRef, _ base: UnsafeRawPointer, _ count: Int) {
        guard let owner = upstream.pointee.owner else { return }
        upstream.pointee.heldBack.append(base, count)
        while !upstream.pointee.heldBack.isEmpty {
            var framer = ReplyFramer()
            let bytes = UnsafeRawPointer(upstream.pointee.heldBack.bytes)
            let held = upstream.pointee.heldBack.count
            switch framer.next(bytes, from: 0, to: held) {
            case .push(let end):
                answer(owner, bytes, end)
                upstream.pointee.heldBack.consume(end)
            case .reply(let end) where isPrelude(upstream):
                // What is learnt from an answer is held back there too.
                var rest = Buffer()
                swap(&rest, &upstream.pointee.heldBack)
                match(upstream, bytes, 0, end)
                guard upstream.pointee.state == .ready else { return }
                rest.consume(end)
                swap(&rest, &upstream.pointee.heldBack)
            case .incomplete where framer.inPush ? held <= limits.replyBuffer : held <= 64:
                return
            case .reply(let end)
            where upstream.pointee.unsentRuns == 0
                && isEndOfSlice(upstream, UnsafeRawBufferPointer(start: bytes, count: end)):
                upstream.pointee.heldBack.consume(end)
                goOn(upstream)
                // A push may follow; elsewhere nobody is told of it.
                guard upstream.pointee.state == .ready, upstream.pointee.owner == owner else {
                    return
                }
            case .reply, .incomplete, .violation:
                // The client's own answer, or the beginning of it.
                var answer = Buffer()
                swap(&answer, &upstream.pointee.heldBack)
                upstream.pointee.blocked = nil
                dropSecond(of: upstream)
                match(upstream, answer.bytes, 0, answer.count)
                keepDirect(owner)
                return
            }
        }
    }

    /// What is answered next is a request of ours, before the blocked one.
    private func isPrelude(_ upstream: UpstreamRef) -> Bool {
        upstream.pointee.queue.count > upstream.pointee.unsentRuns
            && upstream.pointee.queue.head.pointee.kind == .prelude
    }

    private func isEndOfSlice(_ upstream: UpstreamRef, _ reply: UnsafeRawBufferPointer) -> Bool {
        guard let blocked = upstream.pointee.blocked, let end = blocked.sliceEnd,
            // Its clock and ours need not agree to the last millisecond.
            end <= now + .milliseconds(20)
        else { return false }
        if blocked.request.isAboutConnection { return reply.first != UInt8(ascii: "-") }
        return ["*-1\r\n", "$-1\r\n", "_\r\n"].contains { reply.elementsEqual($0.utf8) }
    }

    /// A slice has ended with nothing: the next, behind a login if one is due, or elsewhere.
    private func goOn(_ upstream: UpstreamRef) {
        if upstream.pointee.isEnding {
            // Its client has left.
            if let owner = upstream.pointee.owner { endWhenSent(owner, owner.pointee.closeReason) }
            return
        }
        if upstream.pointee.blocked?.request.readsFromNow == true {
            if let second = upstream.pointee.second, second.pointee.state == .ready,
                second.pointee.unsentRuns == 0
            {
                goOn(on: second, from: upstream)
            } else {
                expire(upstream)
            }
            return
        }
        upstream.pointee.unsentRuns = 1
        upstream.pointee.queue.last.pointee.bytes = 0
        upstream.pointee.queue.last.pointee.since = now
        if upstream.pointee.giveUpAt <= now, moveBlocked(upstream) { return }
        if upstream.pointee.renewal == .none {
            if let life = life(of: upstream), upstream.pointee.closeAt <= now + life.limit / 50 {
                expire(upstream)
                return
            }
            if upstream.pointee.renewAt <= now { renewNow(upstream) }
        }
        updateSlice(upstream)
        markDirty(upstream)
    }

    /// A session whose blocked command is not on its way goes on on another connection, which
    /// takes the place of one that is about to end, if nothing ties it to that.
    ///
    /// - Returns: whether it does.
    func moveBlocked(_ upstream: UpstreamRef) -> Bool {
        guard let owner = upstream.pointee.owner, let blocked = upstream.pointee.blocked,
            upstream.pointee.queue.count == 1, upstream.pointee.unsentRuns == 1,
            upstream.pointee.ties.isEmpty, !blocked.request.isAboutConnection,
            !blocked.request.readsFromNow,
            owner.pointee.phase == .open
        else { return false }
        let run = upstream.pointee.queue.head.pointee
        let heir = makeUpstream(pool: owner.pointee.pool, owner: owner)
        heir.pointee.attributes.name = name(of: owner)
        owner.pointee.upstream = heir
        owner.pointee.waitingSince = now
        introduce(owner, to: heir)
        heir.pointee.blocked = blocked
        heir.pointee.queue.append(run)
        heir.pointee.unsentRuns += 1
        heir.pointee.queue.last.pointee.bytes = 0
        heir.pointee.queue.last.pointee.since = now
        updateSlice(heir)
        let waiters = upstream.pointee.waiters
        upstream.pointee.waiters = []
        dropOwn(upstream)
        for waiter in waiters { unblock(waiter, .upstream) }
        if heir.pointee.state == .idle { connect(heir) }
        return true
    }

    // MARK: On two connections

    /// Sends what is blocked on a connection on a second one too, if it may not be sent again
    /// after it has ended.
    func beginSecond(of upstream: UpstreamRef) {
        guard let blocked = upstream.pointee.blocked, blocked.request.readsFromNow,
            upstream.pointee.second == nil, upstream.pointee.unsentRuns == 0,
            // Nothing of ours before it is owed, which the second would not bring.
            upstream.pointee.queue.count == 1,
            let owner = upstream.pointee.owner, !upstream.pointee.isEnding,
            upstream.pointee.ties.isEmpty
        else { return }
        let second = makeUpstream(pool: owner.pointee.pool, owner: nil, isShared: false)
        second.pointee.attributes.name = name(of: owner)
        second.pointee.blocked = blocked
        second.pointee.first = upstream
        upstream.pointee.second = second
        // Nobody is told that it waits for its connection: the first still does its work.
        second.pointee.queue.append(
            Run(
                session: owner, replies: 1, bytes: 0, kind: .blocking,
                isMuted: upstream.pointee.queue.head.pointee.isMuted, since: .never))
        second.pointee.unsentRuns = 1
        updateSlice(second)
        connect(second)
    }

    /// Bytes on a second connection: the first one's part is over.
    func receiveSecond(_ second: UpstreamRef, _ base: UnsafeRawPointer, _ count: Int) {
        guard let first = second.pointee.first else { return }
        if base.load(as: UInt8.self) == UInt8(ascii: "-") {
            dropSecond(of: first)
            // Another, after a moment.
            retrySecond(of: first)
            return
        }
        goOn(on: second, from: first)
        receiveBlocked(second, base, count)
    }

    private func goOn(on second: UpstreamRef, from first: UpstreamRef) {
        guard let owner = first.pointee.owner else { return }
        first.pointee.second = nil
        second.pointee.first = nil
        second.pointee.owner = owner
        owner.pointee.upstream = second
        dropOwn(first)
    }

    func retrySecond(of first: UpstreamRef) {
        first.pointee.second = nil
        first.pointee.renewal = .none
        renew(first, at: now + limits.renewalRetry)
    }

    /// Ends the second connection of one whose command has its answer.
    func dropSecond(of first: UpstreamRef) {
        guard let second = first.pointee.second else { return }
        first.pointee.second = nil
        second.pointee.first = nil
        dropOwn(second)
    }
}
