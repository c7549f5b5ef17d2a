// Publish/subscribe: confirmations are counted, so that the connection is given back behind the
// last one, and a RESP2 client is served from a connection that speaks RESP3 meanwhile.
//
//   client            own connection
//   SUBSCRIBE a b ──► HELLO 3 (ours)      the answer is dropped
//                     SUBSCRIBE a b
//   *3 subscribe… ◄── >3 subscribe…       one for each name, or one error for the whole command
//   *3 message…   ◄── >3 message…         as they come
//   UNSUBSCRIBE   ──► UNSUBSCRIBE
//   *3 unsub… :0  ◄── >3 unsubscribe… :0  nothing is left
//                     HELLO 2 (ours)      behind its answer the connection is as it was before
//
//             first (un)subscribe          quiet, nothing is left
//     none ────────────────────► active ──────────────────────────► returning ──► none
//      ▲                          │ │ ▲                                 │ (RESP3) subscribe
//      └── RESP3, nothing left ───┘ │ └─────────────────────────────────┘
//                                   │ a RESP2 client asks for what a subscriber may not do
//                                   ▼
//                               yielding ──► relayed as bytes for life
//
// Why RESP3: its messages differ from answers, so that answers can be counted, and the login of the
// connection can be renewed: a RESP2 connection that is subscribed refuses AUTH.
//
// What the client sees follows from the totals that the server's own confirmations carry: channels
// and patterns share one, shard channels have the other. While both are zero a connection is not
// subscribed, as on the server.
//
// A RESP2 subscriber that asks for anything but (un)subscribing, PING, QUIT and RESET is refused by
// the server in the server's words: the connection is put back to RESP2 under way, where the server
// has that rule, and relayed from there on. Such a client is at fault and rare.
//
// Rejected: a request of ours behind each UNSUBSCRIBE whose answer marks the end of confirmations
// (one more for each, where counting says the same); answering what a RESP2 subscriber may not do
// ourselves (unknown commands, arity and permission come first, and are the server's to judge).

import Glibc
import RESP

/// What publish/subscribe makes of one own connection.
struct Subscriptions: ~Copyable {
    enum Phase: UInt8 {
        /// Nobody subscribed, or it was long ago.
        case none
        /// Speaks RESP3; subscribed, or a confirmation is on its way.
        case active
        /// Nothing is left; our HELLO is on its way, behind which all is as before.
        case returning
        /// Subscribed; our HELLO 2 is on its way, behind which all is relayed.
        case yielding
    }

    /// What becomes of the frame in progress.
    enum Frame: UInt8 {
        /// There is none.
        case none
        /// Kept until it is clear what it is, or, for a confirmation, until it is whole.
        case held
        case passing
        case dropping
    }

    var phase = Phase.none
    var frame = Frame.none
    var channels = 0
    var patterns = 0
    var shards = 0
    /// The server may end a shard subscription of its own accord, in place of the client's request
    /// or besides: only an answer to something else tells that all confirmations are in.
    var hasHadShards = false
    /// The beginning of the frame in progress.
    var held = Buffer()

    var isSubscribed: Bool { channels + patterns + shards > 0 }

    /// Takes note of a confirmation. The total counts channels and patterns, or shard channels.
    mutating func note(_ push: Push, total: Int) {
        switch push {
        case .subscribe, .unsubscribe: channels = max(0, total - patterns)
        case .psubscribe, .punsubscribe: patterns = max(0, total - channels)
        case .ssubscribe, .sunsubscribe: shards = max(0, total)
        case .unknown, .message, .invalidation, .other: break
        }
    }
}

/// What kind of push begins with some bytes.
enum Push: UInt8 {
    /// More bytes are needed to tell.
    case unknown
    /// Of a channel, pattern or shard channel.
    case message
    case subscribe
    case psubscribe
    case ssubscribe
    case unsubscribe
    case punsubscribe
    case sunsubscribe
    /// A key that another session tracks, which redirects to this one, has changed.
    case invalidation
    case other

    /// Behind so many bytes the word that says what a push is has come whole, if it is one of ours.
    private static let mostBytes = 32

    /// - Parameter bytes: the beginning of a push, as far as it has come.
    init(_ bytes: UnsafeRawBufferPointer) {
        var reader = PushReader(bytes)
        guard reader.number(UInt8(ascii: ">")) != nil, let word = reader.bulk() else {
            self = bytes.count < Self.mostBytes ? .unknown : .other
            return
        }
        self = Self.named(UnsafeRawBufferPointer(rebasing: bytes[word]))
    }

    private static func named(_ word: UnsafeRawBufferPointer) -> Push {
        switch word.count {
        case 7 where equals(word, "message"): .message
        case 8 where equals(word, "pmessage") || equals(word, "smessage"): .message
        case 9 where equals(word, "subscribe"): .subscribe
        case 10 where equals(word, "psubscribe"): .psubscribe
        case 10 where equals(word, "ssubscribe"): .ssubscribe
        case 10 where equals(word, "invalidate"): .invalidation
        case 11 where equals(word, "unsubscribe"): .unsubscribe
        case 12 where equals(word, "punsubscribe"): .punsubscribe
        case 12 where equals(word, "sunsubscribe"): .sunsubscribe
        default: .other
        }
    }

    /// `word` is as long as `name`.
    private static func equals(_ word: UnsafeRawBufferPointer, _ name: StaticString) -> Bool {
        guard let base = word.baseAddress else { return false }
        return memcmp(base, name.utf8Start, name.utf8CodeUnitCount) == 0
    }

    var isConfirmation: Bool {
        switch self {
        case .subscribe, .psubscribe, .ssubscribe, .unsubscribe, .punsubscribe, .sunsubscribe: true
        case .unknown, .message, .invalidation, .other: false
        }
    }

    /// Whether this confirms a name of a request that was passed on as `kind`.
    func confirms(_ kind: RunKind) -> Bool {
        switch kind {
        case .subscribe: self == .subscribe || self == .psubscribe || self == .ssubscribe
        case .unsubscribe: self == .unsubscribe || self == .punsubscribe || self == .sunsubscribe
        case .unsubscribeAll: self == .unsubscribe
        case .punsubscribeAll: self == .punsubscribe
        case .sunsubscribeAll: self == .sunsubscribe
        default: false
        }
    }
}

/// Reads the few elements of a push that matter, and never beyond what has come.
struct PushReader {
    private let bytes: UnsafeRawBufferPointer
    private(set) var position = 0

    init(_ bytes: UnsafeRawBufferPointer) {
        self.bytes = bytes
    }

    /// A line of a type byte and a number; nil, and no step, if none stands here.
    mutating func number(_ type: UInt8) -> Int? {
        var at = position
        guard at < bytes.count, bytes[at] == type else { return nil }
        at += 1
        var value = 0
        let first = at
        while at < bytes.count, bytes[at] &- 0x30 <= 9, at - first < 18 {
            value = value * 10 + Int(bytes[at] - 0x30)
            at += 1
        }
        guard at > first, at + 2 <= bytes.count, bytes[at] == 0x0d, bytes[at + 1] == 0x0a else {
            return nil
        }
        position = at + 2
        return value
    }

    /// Where the body of a bulk string stands; nil, and no step, if none stands here whole.
    mutating func bulk() -> Range<Int>? {
        let start = position
        guard let length = number(UInt8(ascii: "$")) else { return nil }
        guard length <= bytes.count - position - 2 else {
            position = start
            return nil
        }
        let body = position..<position + length
        position += length + 2
        return body
    }

    /// Steps over a null of RESP3; false if none stands here.
    mutating func null() -> Bool {
        guard bytes.count - position >= 3, bytes[position] == UInt8(ascii: "_") else {
            return false
        }
        position += 3
        return true
    }
}

// MARK: - Requests

extension Router {
    /// What a subscription makes of a complete request; nil if it makes no difference.
    func actAsSubscriber(
        _ command: CommandClass,
        _ request: UnsafeMutableRawBufferPointer,
        of session: SessionRef
    ) -> Verdict? {
        switch command {
        case .none: return nil
        case .subscribe, .unsubscribe: return subscribe(command, request, of: session)
        default: break
        }
        guard let upstream = subscribedUpstream(session) else { return nil }
        let isLimited = session.pointee.isLimited
        if isLimited && upstream.pointee.subscriptions.phase != .active {
            return waitForQuiet(session)
        }
        switch command {
        case .quit:
            // A message may come before the answer.
            passOn(session, Self.quit, 1)
            session.pointee.phase = .finished
            session.pointee.closeReason = .quit
            updateReading(session)
            return .stop
        case .reset where subcommand(of: request) == nil:
            passOnReset(session)
            return .handled
        case .reset: return .passOn
        case .plain where isLimited && isPing(request):
            guard let base = request.baseAddress else { return .handled }
            passOn(session, base, request.count, 1, .ping)
            return .handled
        case .auth where isLimited:
            return refuse(
                request, subcommand(of: request) == nil ? .authArity : .authWhileSubscribed, session
            )
        case .hello where isLimited: return refuse(request, .helloWhileSubscribed, session)
        case .hello where !isLimited:
            // To RESP2, with subscriptions that stay.
            let hello = helloRequest(request, session)
            guard hello.error == nil, hello.version == 2 else { return nil }
            guard session.pointee.owed == 0 else { return waitForQuiet(session) }
            stopCounting(upstream)
            return nil
        case .client where !isLimited, .monitor where !isLimited, .replication where !isLimited:
            // Nothing of ours may be under way where counting stops.
            return session.pointee.owed == 0 ? nil : waitForQuiet(session)
        default:
            guard isLimited else { return nil }
            if session.pointee.isMuted {
                // Whatever the server says to it, the client is not to hear it.
                return isQuiet(session) ? .handled : .wait
            }
            yieldToServer(session)
            return .wait
        }
    }

    /// The session's own connection, if it is subscribed or on the way there or back.
    func subscribedUpstream(_ session: SessionRef) -> UpstreamRef? {
        guard session.pointee.lane == .own, let upstream = session.pointee.upstream,
            upstream.pointee.isCounted, upstream.pointee.ties.contains(.subscription)
        else { return nil }
        return upstream
    }

    /// Whether an answer of ours to this session would stand inside a message.
    func isMidMessage(_ session: SessionRef) -> Bool {
        guard session.pointee.lane == .own, let upstream = session.pointee.upstream else {
            return false
        }
        return upstream.pointee.isCounted && !upstream.pointee.framer.isAtFrameStart
    }

    private func waitForQuiet(_ session: SessionRef) -> Verdict {
        session.pointee.blocks.insert(.quiet)
        return .wait
    }

    private func isPing(_ request: UnsafeMutableRawBufferPointer) -> Bool {
        var arguments = RequestArguments(UnsafeRawBufferPointer(request))
        return arguments.next()?.equalsIgnoringCase("PING") ?? false
    }

    /// (P|S)SUBSCRIBE and (P|S)UNSUBSCRIBE.
    private func subscribe(
        _ command: CommandClass,
        _ request: UnsafeMutableRawBufferPointer,
        of session: SessionRef
    ) -> Verdict {
        if session.pointee.lane == .shared {
            guard takeOwn(session, for: .subscription) else { return .wait }
        }
        guard let upstream = session.pointee.upstream, upstream.pointee.isCounted,
            let base = request.baseAddress
        else { return .passOn }
        session.pointee.carriesState = true
        switch upstream.pointee.subscriptions.phase {
        case .none:
            guard session.pointee.owed == 0 else { return waitForQuiet(session) }
        case .active, .returning:
            if session.pointee.isLimited {
                guard upstream.pointee.subscriptions.phase == .active else {
                    return waitForQuiet(session)
                }
            } else if mayBeInTransaction(upstream) && session.pointee.owed > 0 {
                return waitForQuiet(session)
            }
        case .yielding: return waitForQuiet(session)
        }
        if upstream.pointee.ties.contains(.transaction) {
            // EXEC's array has one place for a command, and confirmations come for each name.
            stopCounting(upstream)
            return .passOn
        }
        if upstream.pointee.subscriptions.phase == .none { beginSubscribing(session, upstream) }
        upstream.pointee.subscriptions.phase = .active
        var arguments = RequestArguments(UnsafeRawBufferPointer(request))
        let first = arguments.next()?.first.map { $0 & 0xDF }
        let names = arguments.reduce(0) { count, _ in count + 1 }
        let isSharded = first == UInt8(ascii: "S") && isShardCommand(request)
        if isSharded { upstream.pointee.subscriptions.hasHadShards = true }
        let kind: RunKind =
            if command == .subscribe {
                .subscribe
            } else if names > 0 {
                .unsubscribe
            } else if first == UInt8(ascii: "P") {
                .punsubscribeAll
            } else {
                first == UInt8(ascii: "S") ? .sunsubscribeAll : .unsubscribeAll
            }
        let replies = UInt32(truncatingIfNeeded: max(1, names))
        passOn(session, base, request.count, replies, kind)
        return .handled
    }

    /// SSUBSCRIBE and SUNSUBSCRIBE, as opposed to SUBSCRIBE.
    private func isShardCommand(_ request: UnsafeMutableRawBufferPointer) -> Bool {
        var arguments = RequestArguments(UnsafeRawBufferPointer(request))
        return arguments.next().map { !$0.equalsIgnoringCase("SUBSCRIBE") } ?? false
    }

    /// Whether a transaction is open or may be opened by what is on its way. Behind a request that
    /// subscribes, or unsubscribes, on a connection that is counted there was none.
    private func mayBeInTransaction(_ upstream: UpstreamRef) -> Bool {
        if upstream.pointee.ties.contains(.transaction) { return true }
        var index = upstream.pointee.queue.count
        while index > 0 {
            index -= 1
            switch upstream.pointee.queue[index].pointee.kind {
            case .multi: return true
            case .subscribe, .unsubscribe, .unsubscribeAll, .punsubscribeAll, .sunsubscribeAll:
                return false
            default: break
            }
        }
        return false
    }

    private func beginSubscribing(_ session: SessionRef, _ upstream: UpstreamRef) {
        upstream.pointee.ties.insert(.subscription)
        upstream.pointee.subscriptions.channels = 0
        upstream.pointee.subscriptions.patterns = 0
        upstream.pointee.subscriptions.shards = 0
        upstream.pointee.subscriptions.hasHadShards = false
        // Nothing is owed, so that only a push can be in progress.
        upstream.pointee.subscriptions.frame =
            upstream.pointee.framer.isAtFrameStart ? .none : .passing
        guard session.pointee.protocolVersion == 2 else { return }
        session.pointee.isLimited = true
        speak("*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n", session)
    }

    /// A HELLO of our own.
    private func speak(_ hello: StaticString, _ session: SessionRef) {
        passOn(session, hello, 1, .speak, isMuted: true)
        // It may be as much as may wait, at a moment when nothing was received from the client.
        updateReading(session)
    }

    /// Has the server judge what a RESP2 subscriber asks for, once nothing is owed.
    func yieldToServer(_ session: SessionRef) {
        if session.pointee.owed == 0, let upstream = session.pointee.upstream {
            upstream.pointee.subscriptions.phase = .yielding
            speak("*2\r\n$5\r\nHELLO\r\n$1\r\n2\r\n", session)
        }
        session.pointee.blocks.insert(.quiet)
    }

    /// A login goes nowhere, so that we say what the server would.
    private func refuse(
        _ request: UnsafeMutableRawBufferPointer,
        _ error: ClientError,
        _ session: SessionRef
    ) -> Verdict {
        guard session.pointee.owed == 0 else { return waitForQuiet(session) }
        if let base = request.baseAddress { explicit_bzero(base, request.count) }
        if session.pointee.isMuted { return .handled }
        // Where the answer to a stand-in comes, behind the messages before it, is its place.
        session.pointee.substitute = error.reply
        session.pointee.blocks.insert(.substitute)
        passOn(session, Self.standIn, 1)
        return .handled
    }

    /// Nothing is owed on a connection that was subscribed: sees whether it is no longer.
    ///
    /// - Returns: something of ours went out for it, whose answer has to come first.
    func settleSubscriptions(_ session: SessionRef, _ upstream: UpstreamRef) -> Bool {
        // Neither could anything be sent, nor would anybody need it.
        guard session.pointee.closeReason != .quit, !upstream.pointee.isEnding else { return false }
        switch upstream.pointee.subscriptions.phase {
        case .none: return false
        case .yielding:
            stopCounting(upstream)
            return false
        case .returning: break
        case .active:
            if upstream.pointee.subscriptions.isSubscribed { return false }
            let isLimited = session.pointee.isLimited
            if isLimited || upstream.pointee.subscriptions.hasHadShards {
                // In a transaction ours would be queued.
                if upstream.pointee.ties.contains(.transaction) { return false }
                upstream.pointee.subscriptions.phase = .returning
                speak(
                    isLimited
                        ? "*2\r\n$5\r\nHELLO\r\n$1\r\n2\r\n" : "*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n",
                    session)
                return true
            }
        }
        upstream.pointee.subscriptions.phase = .none
        upstream.pointee.ties.remove(.subscription)
        session.pointee.isLimited = false
        return false
    }
}

// MARK: - Replies

extension Router {
    /// Bytes of a connection that is subscribed, or on the way there or back.
    func receiveSubscribed(_ upstream: UpstreamRef, _ base: UnsafeMutableRawPointer, _ count: Int) {
        var offset = 0
        while offset < count {
            // The last frame may have been the end of the session, or of the subscription.
            guard upstream.pointee.state == .ready, let owner = upstream.pointee.owner else {
                return
            }
            guard upstream.pointee.isCounted else {
                deliver(owner, base + offset, count - offset, 0)
                return
            }
            guard upstream.pointee.ties.contains(.subscription) else {
                match(upstream, base, offset, count)
                return
            }
            switch upstream.pointee.framer.next(base, from: offset, to: count) {
            case .push(let after), .reply(let after):
                let isPush = upstream.pointee.framer.type == UInt8(ascii: ">")
                didReceiveFrame(upstream, owner, base + offset, after - offset, isPush)
                offset = after
            case .incomplete:
                didReceivePart(upstream, owner, base + offset, count - offset)
                return
            case .violation:
                fail(upstream, "the server sent what is not RESP")
                return
            }
        }
    }

    /// The rest of a frame, or all of it.
    private func didReceiveFrame(
        _ upstream: UpstreamRef,
        _ owner: SessionRef,
        _ bytes: UnsafeMutableRawPointer,
        _ count: Int,
        _ isPush: Bool
    ) {
        let frame = upstream.pointee.subscriptions.frame
        upstream.pointee.subscriptions.frame = .none
        upstream.pointee.partialReply = 0
        switch frame {
        case .none where isPush: didPush(upstream, owner, bytes, count)
        case .none where upstream.pointee.renewal == .underWay:
            judgeRenewal(upstream, UnsafeRawBufferPointer(start: bytes, count: count))
        case .none: didReply(upstream, owner, bytes, count)
        case .held:
            // Out of the way, because what is learnt from it may end the connection.
            var held = Buffer()
            swap(&held, &upstream.pointee.subscriptions.held)
            held.append(bytes, count)
            if isPush {
                didPush(upstream, owner, held.bytes, held.count)
            } else if upstream.pointee.renewal == .underWay {
                judgeRenewal(upstream, UnsafeRawBufferPointer(start: held.bytes, count: held.count))
            } else {
                didReply(upstream, owner, held.bytes, held.count)
            }
        case .passing, .dropping:
            if frame == .passing { pass(owner, bytes, count) }
            if isPush {
                didEndPush(upstream, owner)
            } else {
                didAnswer(upstream, owner, UnsafeRawBufferPointer(start: nil, count: 0))
            }
        }
    }

    /// Part of a frame whose end has not come.
    private func didReceivePart(
        _ upstream: UpstreamRef,
        _ owner: SessionRef,
        _ bytes: UnsafeMutableRawPointer,
        _ count: Int
    ) {
        switch upstream.pointee.subscriptions.frame {
        case .none:
            let frame = begin(upstream, owner, bytes, count)
            upstream.pointee.subscriptions.frame = frame
            if frame == .held { upstream.pointee.subscriptions.held.append(bytes, count) }
        case .held:
            upstream.pointee.subscriptions.held.append(bytes, count)
            let held = upstream.pointee.subscriptions.held.count
            let frame = begin(upstream, owner, upstream.pointee.subscriptions.held.bytes, held)
            guard frame == .held else {
                upstream.pointee.subscriptions.frame = frame
                upstream.pointee.subscriptions.held = Buffer()
                return
            }
            // A confirmation repeats a name of a request that was looked at whole.
            if held > limits.sharedRequest + 4096 {
                fail(upstream, "the server confirmed what nobody asked for")
            }
        case .passing: pass(owner, bytes, count)
        case .dropping: break
        }
    }

    /// Decides about a frame of which `count` bytes have come, and passes them on if they are to be.
    private func begin(
        _ upstream: UpstreamRef,
        _ owner: SessionRef,
        _ bytes: UnsafeMutableRawPointer,
        _ count: Int
    ) -> Subscriptions.Frame {
        guard upstream.pointee.framer.inPush else {
            if upstream.pointee.renewal == .underWay { return .held }
            guard upstream.pointee.queue.count > upstream.pointee.unsentRuns else {
                // Found out when it is whole.
                return .dropping
            }
            let run = upstream.pointee.queue.head
            // The answer to it is passed on after all if it is an error.
            if run.pointee.kind == .replyMode || run.pointee.kind == .getName { return .held }
            if run.pointee.isMuted || owner.pointee.substitute != nil { return .dropping }
            if run.pointee.kind == .ping && upstream.pointee.subscriptions.isSubscribed {
                switch upstream.pointee.framer.type {
                case UInt8(ascii: "$"): answer(owner, Self.pong)
                case UInt8(ascii: "+"): return .held
                default: break
                }
            }
            // What an error of EXEC says of the transaction is told by its text.
            if run.pointee.kind == .exec && upstream.pointee.framer.type == UInt8(ascii: "-") {
                return .held
            }
            pass(owner, bytes, count)
            return .passing
        }
        let push = Push(UnsafeRawBufferPointer(start: bytes, count: count))
        switch push {
        case .unknown, .subscribe, .psubscribe, .ssubscribe, .unsubscribe, .punsubscribe,
            .sunsubscribe:
            return .held
        case .message, .invalidation, .other:
            return passPush(push, upstream, owner, bytes, count) ? .passing : .dropping
        }
    }

    /// Passes on the beginning, or all, of a push that is no confirmation, as the client speaks;
    /// false if it is not for this client.
    private func passPush(
        _ push: Push,
        _ upstream: UpstreamRef,
        _ owner: SessionRef,
        _ bytes: UnsafeMutableRawPointer,
        _ count: Int
    ) -> Bool {
        guard owner.pointee.isLimited else {
            pass(owner, bytes, count)
            return true
        }
        switch push {
        case .message:
            bytes.storeBytes(of: UInt8(ascii: "*"), as: UInt8.self)
            pass(owner, bytes, count)
            return true
        case .invalidation:
            // In RESP2 they come as messages of this channel, to whoever is subscribed to anything.
            guard upstream.pointee.subscriptions.isSubscribed else { return false }
            var reader = PushReader(UnsafeRawBufferPointer(start: bytes, count: count))
            _ = reader.number(UInt8(ascii: ">"))
            _ = reader.bulk()
            answer(owner, "*3\r\n$7\r\nmessage\r\n$20\r\n__redis__:invalidate\r\n")
            answer(owner, bytes + reader.position, count - reader.position)
            return true
        default:
            // RESP2 has no pushes.
            return false
        }
    }

    /// A whole push.
    private func didPush(
        _ upstream: UpstreamRef,
        _ owner: SessionRef,
        _ bytes: UnsafeMutableRawPointer,
        _ count: Int
    ) {
        let frame = UnsafeRawBufferPointer(start: bytes, count: count)
        let push = Push(frame)
        guard push.isConfirmation else {
            _ = passPush(push, upstream, owner, bytes, count)
            didEndPush(upstream, owner)
            return
        }
        var reader = PushReader(frame)
        _ = reader.number(UInt8(ascii: ">"))
        _ = reader.bulk()
        let head = reader.position
        let isNull = reader.null()
        if !isNull { _ = reader.bulk() }
        let tail = reader.position
        guard let total = reader.number(UInt8(ascii: ":")) else {
            fail(upstream, "the server sent a confirmation without a total")
            return
        }
        if owner.pointee.isLimited {
            bytes.storeBytes(of: UInt8(ascii: "*"), as: UInt8.self)
            if isNull {
                answer(owner, bytes, head)
                answer(owner, "$-1\r\n")
                answer(owner, bytes + tail, count - tail)
            } else {
                pass(owner, bytes, count)
            }
        } else {
            pass(owner, bytes, count)
        }
        didConfirm(push, total, upstream, owner)
    }

    private func didConfirm(
        _ push: Push,
        _ total: Int,
        _ upstream: UpstreamRef,
        _ owner: SessionRef
    ) {
        upstream.pointee.subscriptions.note(push, total: total)
        guard upstream.pointee.queue.count > upstream.pointee.unsentRuns,
            push.confirms(upstream.pointee.queue.head.pointee.kind)
        else {
            didEndPush(upstream, owner)
            return
        }
        let run = upstream.pointee.queue.head
        let left =
            switch run.pointee.kind {
            case .unsubscribeAll: upstream.pointee.subscriptions.channels
            case .punsubscribeAll: upstream.pointee.subscriptions.patterns
            case .sunsubscribeAll: upstream.pointee.subscriptions.shards
            default: 0
            }
        guard left == 0 else { return }
        run.pointee.replies &-= 1
        if run.pointee.replies == 0 { upstream.pointee.queue.removeFirst() }
        discharge(owner, 1)
    }

    /// A push is through that answered nothing: what waited for that may go on.
    private func didEndPush(_ upstream: UpstreamRef, _ owner: SessionRef) {
        guard owner.pointee.owed == 0 else { return }
        if owner.pointee.blocks.contains(.quiet) || owner.pointee.phase != .open
            || !upstream.pointee.subscriptions.isSubscribed
        {
            didBecomeQuiet(owner)
        }
    }

    /// A whole reply.
    private func didReply(
        _ upstream: UpstreamRef,
        _ owner: SessionRef,
        _ bytes: UnsafeMutableRawPointer,
        _ count: Int
    ) {
        guard upstream.pointee.queue.count > upstream.pointee.unsentRuns else {
            fail(upstream, "the server sent a reply that nobody asked for")
            return
        }
        let run = upstream.pointee.queue.head
        if !run.pointee.isMuted && owner.pointee.substitute == nil {
            if run.pointee.kind == .ping && upstream.pointee.subscriptions.isSubscribed {
                switch upstream.pointee.framer.type {
                case UInt8(ascii: "+"): answer(owner, "*2\r\n$4\r\npong\r\n$0\r\n\r\n")
                case UInt8(ascii: "$"):
                    answer(owner, Self.pong)
                    pass(owner, bytes, count)
                default: pass(owner, bytes, count)
                }
            } else {
                pass(owner, bytes, count)
            }
        }
        didAnswer(upstream, owner, UnsafeRawBufferPointer(start: bytes, count: count))
    }

    /// What stands before the text of a RESP2 subscriber's PING.
    private static let pong: StaticString = "*2\r\n$4\r\npong\r\n"

    /// The request at the head is answered.
    ///
    /// - Parameter reply: empty if it came in parts.
    private func didAnswer(
        _ upstream: UpstreamRef,
        _ owner: SessionRef,
        _ reply: UnsafeRawBufferPointer
    ) {
        guard upstream.pointee.queue.count > upstream.pointee.unsentRuns else {
            fail(upstream, "the server sent a reply that nobody asked for")
            return
        }
        let run = upstream.pointee.queue.head
        let isError = upstream.pointee.framer.type == UInt8(ascii: "-")
        var answered: UInt32 = 1
        switch run.pointee.kind {
        case .subscribe, .unsubscribe, .unsubscribeAll, .punsubscribeAll, .sunsubscribeAll:
            // One error for the whole command.
            answered = run.pointee.replies
        case .speak where isError:
            fail(upstream, "the server refused HELLO")
            return
        case .plain: break
        case let kind:
            if let base = reply.baseAddress { hold(upstream, kind, base, reply.count) }
            guard learn(kind, upstream) else {
                fail(upstream, "the server refused what a session's connection needs first")
                return
            }
        }
        if let substitute = owner.pointee.substitute {
            answer(owner, substitute)
            owner.pointee.substitute = nil
            unblock(owner, .substitute)
        }
        run.pointee.replies &-= answered
        if run.pointee.replies == 0 { upstream.pointee.queue.removeFirst() }
        discharge(owner, answered)
    }

    /// Hands bytes to the client: straight from the reply buffer if they are in it.
    private func pass(_ owner: SessionRef, _ bytes: UnsafeRawPointer, _ count: Int) {
        if let base = replyBuffer.baseAddress, bytes >= UnsafeRawPointer(base),
            bytes < UnsafeRawPointer(base) + replyBuffer.count
        {
            output(owner, bytes, count)
        } else {
            answer(owner, bytes, count)
        }
    }
}
