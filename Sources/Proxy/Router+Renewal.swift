// Logins are renewed where they are: on the connection that lives, long before its login ends.
//
//              due                nothing is on its way          accepted
//     none ──────────► waiting ─────────────────────────► underWay ────────► none, due again later
//      ▲                  │ what was passed on waits too     │ refused
//      └──────────────────┴──────────────────────────────────┘ the old login holds on; tried again
//
// A login goes out only when every reply has come and no push is half-way. Some servers drop the
// error of an AUTH behind a reply that is still in their buffer, and every later reply would be
// taken for another's (redis/redis#15640). Its answer proves that the stream is still what it was
// taken for: HELLO names the connection's id.
//
// While it waits for that moment, and for the answer, nothing else goes out, which takes as long as
// the replies that are owed and one round trip. It does not wait where that could be for ever: in a
// transaction, or in the middle of an upload, it is put off.
//
// On a relayed connection, whose answers cannot be counted, the error of an unknown command shows
// the place where nothing is owed (Router+Relay.swift); then AUTH goes out, and again nothing else.
//
// What cannot be renewed is given up before the server would close it: a shared connection gives
// its place to a new one and delivers what it owes; a session moves to another connection of its
// own at the first moment when nothing ties it to the old one. Only where there is no such moment,
// the session ends.

package import Identity
import RESP

/// See the head of this file.
enum Renewal: UInt8 {
    case none
    case waiting
    case underWay
}

extension Router {
    /// Sets when the login of a connection that has just logged in is to be renewed.
    func scheduleRenewal(_ upstream: UpstreamRef) {
        upstream.pointee.loggedInAt = now
        upstream.pointee.renewal = .none
        upstream.pointee.renewalFailures = 0
        upstream.pointee.refusedCredential = nil
        upstream.pointee.renewAt = .never
        upstream.pointee.replaceAt = .never
        upstream.pointee.closeAt = .never
        nextRenewal = min(nextRenewal, upstream.pointee.outdatedAt)
        guard case .iamToken(let life) = upstream.pointee.usedCredential?.kind else { return }
        // Spread, so that the connections of a start do not return together.
        let spread = Double.random(in: 0.9...1, using: &random)
        renew(upstream, at: now + life.dueAfter * spread)
        upstream.pointee.replaceAt = now + life.limit * 0.88
        upstream.pointee.closeAt = now + life.limit * 0.98
    }

    func renew(_ upstream: UpstreamRef, at instant: Instant) {
        upstream.pointee.renewAt = instant
        nextRenewal = min(nextRenewal, instant)
    }

    /// Every connection of a user whose password is another one logs in anew, within a moment.
    func renewPasswords(of user: UserIndex, _ credential: Credential) {
        guard credential.kind == .password else { return }
        for upstream in connections(of: user)
        where upstream.pointee.state == .ready && upstream.pointee.usedCredential != credential
            && upstream.pointee.refusedCredential != credential
        {
            let spread = Double.random(in: 0...1, using: &random)
            renew(upstream, at: now + limits.renewalSpread * spread)
        }
    }

    /// Every connection of a user, or of all, when it is called: what is done to one may end sessions
    /// and others.
    func connections(of user: UserIndex? = nil) -> [UpstreamRef] {
        var connections = shared + retired + spare.joined()
        var next = firstSession
        while let session = next {
            next = session.pointee.next
            if session.pointee.lane == .own, let upstream = session.pointee.upstream {
                connections.append(upstream)
            }
        }
        guard let user else { return connections }
        return connections.filter { $0.pointee.user == user }
    }

    /// Has every connection of a user, or of all, log in anew within a moment, and the credential
    /// fetched anew.
    package func renew(_ user: UserIndex? = nil) {
        for upstream in connections(of: user)
        where upstream.pointee.state == .ready && upstream.pointee.renewal == .none {
            let spread = Double.random(in: 0...1, using: &random)
            renew(upstream, at: now + limits.renewalSpread * spread)
        }
        for index in credentials.indices where user == nil || user == UserIndex(index) {
            actions.append(.refreshCredential(UserIndex(index)))
        }
    }

    /// Whether a renewal is due so soon that `tick` should be called.
    var renewsSoon: Bool { nextRenewal <= now + limits.renewalNotice }

    /// Acts on every login that is due.
    func renewLogins() {
        guard nextRenewal <= now else { return }
        nextRenewal = .never
        for upstream in connections() {
            guard upstream.pointee.state == .ready else { continue }
            if upstream.pointee.giveUpAt <= now {
                replace(upstream)
                guard upstream.pointee.state == .ready else { continue }
            }
            if upstream.pointee.closeAt <= now {
                expire(upstream)
                continue
            }
            if upstream.pointee.renewal == .underWay && upstream.pointee.deadline <= now {
                fail(upstream, "the server did not answer a login in \(limits.loginTimeout)")
                continue
            }
            if upstream.pointee.renewal == .none && upstream.pointee.renewAt <= now {
                renewNow(upstream)
            }
            tryRenewal(upstream)
            if upstream.pointee.renewal == .waiting { beginSecond(of: upstream) }
            noteNextRenewal(upstream)
        }
    }

    /// Has `renewLogins` look at this connection again when it has to.
    private func noteNextRenewal(_ upstream: UpstreamRef) {
        var next = upstream.pointee.closeAt
        switch upstream.pointee.renewal {
        case .none: next = min(next, upstream.pointee.renewAt)
        case .underWay: next = min(next, upstream.pointee.deadline)
        case .waiting:
            // The reply that it waits for has it go on. A login that ends is looked after besides.
            if next != .never { next = min(next, now + limits.renewalRetry) }
        }
        let replaceAt = upstream.pointee.replaceAt
        next = min(next, replaceAt > now ? replaceAt : now + limits.renewalRetry)
        // Once it is due, the end of what ties it is enough.
        if upstream.pointee.outdatedAt > now { next = min(next, upstream.pointee.outdatedAt) }
        nextRenewal = min(nextRenewal, next)
    }

    /// Sends a login that is due, if this is the moment.
    func tryRenewal(_ upstream: UpstreamRef) {
        guard upstream.pointee.renewal == .waiting, upstream.pointee.state == .ready else { return }
        // What is passed on may have waited for it.
        markDirty(upstream)
        let isRelayed = !upstream.pointee.isCounted
        guard isRelayed ? upstream.pointee.mayFindPlace : upstream.pointee.isQuiet else { return }
        let snapshot = credentials[upstream.pointee.user.rawValue]
        guard let credential = snapshot?.credential, credential.isUsable(at: now.nanoseconds) else {
            let reason = snapshot?.failure ?? "the credential has expired"
            report(.renewalFailed(upstream.pointee.facts, reason: reason))
            retryRenewal(upstream)
            return
        }
        upstream.pointee.renewal = .underWay
        upstream.pointee.renewsAmongMessages = upstream.pointee.ties.contains(.subscription)
        upstream.pointee.renewalCredential = credential
        upstream.pointee.deadline = now + limits.loginTimeout
        upstream.pointee.loginReply.removeAll()
        if isRelayed {
            // It may be behind a command that blocks.
            upstream.pointee.deadline = .never
            upstream.pointee.renewsAmongMessages = true
            placeRenewal(upstream)
        } else {
            upstream.pointee.writeRenewal(credential)
        }
    }

    /// The server has answered all that a relayed connection was sent.
    func writeRelayRenewal(_ upstream: UpstreamRef) {
        guard let credential = upstream.pointee.renewalCredential else { return }
        upstream.pointee.deadline = now + limits.loginTimeout
        upstream.pointee.writeAuth(credential)
        markDirty(upstream)
    }

    private func retryRenewal(_ upstream: UpstreamRef) {
        upstream.pointee.renewal = .none
        upstream.pointee.renewalFailures += 1
        upstream.pointee.renewalFailedAt = now
        actions.append(.refreshCredential(upstream.pointee.user))
        guard upstream.pointee.closeAt != .never else {
            // Its login does not end; another password will be news.
            upstream.pointee.renewAt = .never
            markDirty(upstream)
            return
        }
        let doublings = min(10, upstream.pointee.renewalFailures - 1)
        // As the end draws near, more often.
        let left = upstream.pointee.closeAt.since(now) / 8
        let pause = min(
            left, limits.renewalRetryMaximum, limits.renewalRetry * (1 << doublings))
        renew(upstream, at: now + pause * Double.random(in: 0.5...1, using: &random))
        if upstream.pointee.giveUpAt <= now, moveBlocked(upstream) { return }
        // It was to wait for longer than it may now.
        updateSlice(upstream)
        markDirty(upstream)
    }

    /// A transaction is about to begin: a login that was refused is tried again before it has to
    /// wait for the transaction's end.
    func retryRenewalBeforeTransaction(_ upstream: UpstreamRef) {
        if upstream.pointee.renewal == .none, upstream.pointee.renewalFailures > 0,
            upstream.pointee.renewalFailedAt + limits.renewalRetry / 2 <= now
        {
            renewNow(upstream)
        }
    }

    /// The login of a connection that serves is due now.
    func renewNow(_ upstream: UpstreamRef) {
        upstream.pointee.renewal = .waiting
        nextRenewal = min(nextRenewal, now)
    }

    /// Bytes of a connection that is not subscribed, while the answer to a login is awaited.
    ///
    /// - Returns: how many of them were the answer's; nil if all were and it is not complete, or
    ///   the connection was given up.
    func receiveRenewal(
        _ upstream: UpstreamRef,
        _ base: UnsafeRawPointer,
        _ count: Int
    ) -> Int? {
        upstream.pointee.loginReply.append(base, count)
        while !upstream.pointee.loginReply.isEmpty {
            var framer = ReplyFramer()
            let bytes = UnsafeRawPointer(upstream.pointee.loginReply.bytes)
            let held = upstream.pointee.loginReply.count
            switch framer.next(bytes, from: 0, to: held) {
            case .push(let end):
                if let owner = upstream.pointee.owner { answer(owner, bytes, end) }
                upstream.pointee.loginReply.consume(end)
            case .incomplete:
                if held > limits.replyBuffer {
                    fail(upstream, "the server's answer to a login is too long")
                }
                return nil
            case .violation:
                fail(upstream, "the server sent what is not RESP")
                return nil
            case .reply(let end):
                let reply = Array(UnsafeRawBufferPointer(start: bytes, count: end))
                upstream.pointee.loginReply.removeAll()
                upstream.pointee.loginReply.release()
                reply.withUnsafeBytes { judgeRenewal(upstream, $0) }
                guard upstream.pointee.state == .ready else { return nil }
                return count - (held - end)
            }
        }
        return nil
    }

    /// The answer to a login on a connection that lives.
    func judgeRenewal(_ upstream: UpstreamRef, _ reply: UnsafeRawBufferPointer) {
        let credential = upstream.pointee.renewalCredential
        upstream.pointee.renewalCredential = nil
        if reply.first == UInt8(ascii: "-") {
            let text = printable(UnsafeRawBufferPointer(rebasing: reply.dropFirst()))
            report(
                .renewalFailed(
                    upstream.pointee.facts,
                    reason: credential?.redacting(text) ?? text))
            upstream.pointee.refusedCredential = credential
            retryRenewal(upstream)
            return
        }
        guard
            !upstream.pointee.isCounted
                || HelloReply.parse(reply)?.connectionID == upstream.pointee.connectionID
        else {
            fail(upstream, "the server's answer to a login is not this connection's")
            return
        }
        upstream.pointee.usedCredential = credential
        scheduleRenewal(upstream)
        updateSlice(upstream)
        report(.renewed(upstream.pointee.facts))
        markDirty(upstream)
    }

    /// The server would close this connection very soon.
    func expire(_ upstream: UpstreamRef) {
        upstream.pointee.closeAt = .never
        upstream.pointee.renewAt = .never
        upstream.pointee.renewal = .none
        guard let owner = upstream.pointee.owner else {
            // It had been given up already, and still owes replies.
            if upstream.pointee.isRetired {
                fail(upstream, "its login ends and could not be renewed")
            } else {
                replace(upstream)
            }
            return
        }
        report(.loginExpired(upstream.pointee.facts))
        if moveBlocked(upstream) { return }
        endWhenSent(owner, .loginExpired)
    }
}

extension LoginLife {
    /// When a login is due: early enough for more than one attempt, whatever was configured.
    var dueAfter: Duration { min(renewAfter, limit * 0.85) }
}

extension Upstream {
    /// All that was handed over is answered, and nothing is half-way that a login could stand in.
    var isQuiet: Bool {
        state == .ready && isCounted && queue.count == unsentRuns && framer.isAtFrameStart
            && subscriptions.frame == .none && partialReply == 0 && heldBack.isEmpty
            && pausedFor == nil && !isEnding && !mustGoOn
    }

    /// Of a relayed connection: a request of ours can be placed between two of the client's.
    ///
    /// Not in a transaction, which an unknown command would abort, and not where the server may say
    /// nothing to it.
    var mayFindPlace: Bool {
        !mayBeSilent && sentinel == nil && outgoing.isEmpty && !mustGoOn
    }

    /// What was passed on cannot wait, because what the connection waits for is in it.
    var mustGoOn: Bool {
        ties.contains(.transaction) || owner?.pointee.isMidRequest == true || isEnding
            || (isCounted && hasRest)
    }

    /// What is passed on begins with the rest of a request whose beginning was handed over.
    var hasRest: Bool {
        var bytes = 0
        for index in queue.count - unsentRuns..<queue.count {
            bytes += Int(queue[index].pointee.bytes)
        }
        return bytes < outgoing.count
    }

    /// What was passed on stays for the moment.
    var holdsBack: Bool {
        switch renewal {
        case .none: false
        case .waiting: !mustGoOn && isCounted
        case .underWay: true
        }
    }

    /// `HELLO version AUTH user secret`, in the protocol that the connection speaks at present:
    /// name, database, watches and subscriptions stay.
    mutating func writeRenewal(_ credential: Credential) {
        writeHello(credential, version: spokenVersion, name: [])
    }
}
