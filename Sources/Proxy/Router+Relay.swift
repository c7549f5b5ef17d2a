// Connections whose answers cannot be counted: their bytes go to their one session as they come.
//
//     client: RESET      server is sent: RESET, <word>            <word> is drawn at random, and
//     client: AUTH …                     <word>, HELLO <word>     no server knows such a command
//
//     … bytes that nobody counts … -ERR unknown command '<word>', …
//                                  ▲
//                                  a place in the stream: all before it is answered
//
// A server refuses an unknown command before it looks at anything else: whether the connection is
// logged in, subscribed, in a transaction, or what its user may do. The error is dropped, and a
// place of which nobody knew what it was becomes known: behind it RESET is done, or the next error
// is that to our HELLO, which tells whether the server would look at a login just now.
//
// Rejected: a QUIT behind RESET, whose answer is the last thing in the stream: the connection, and
// with it the id that the client may know, would be gone.

import RESP

/// A request of ours on a relayed connection whose answer marks a place in what comes back.
struct Sentinel {
    enum Purpose {
        /// RESET went out before it.
        case reset
        /// It stands in the place of a login, which is answered so, unless the server would not
        /// look at one because the client is subscribed.
        case login(reply: [UInt8], whileSubscribed: [UInt8])
        /// The connection's own login goes out behind it.
        case renewal
    }

    /// Letters and digits that occur nowhere else.
    let word: [UInt8]
    let purpose: Purpose
    /// Its error has come; that to the HELLO behind it has not.
    var isPassed = false

    private static let head = Array("-ERR unknown command ".utf8)

    /// Where its error line begins in `bytes`, and where that ends if it is all there; the end of
    /// the bytes if there is none, nor the beginning of one.
    ///
    /// Source of the line: redis 7.0, server.c, commandCheckExistence; before 7.0 the word stands
    /// between other quotes.
    func find(in bytes: UnsafeRawBufferPointer) -> (start: Int, end: Int?) {
        var start = 0
        while start < bytes.count {
            guard let dash = bytes[start...].firstIndex(of: UInt8(ascii: "-")) else { break }
            start = dash
            let rest = bytes[dash...]
            let isHead = zip(rest, Self.head).allSatisfy { $0 == $1 }
            let quoted = rest.dropFirst(Self.head.count + 1)
            if isHead, zip(quoted, word).allSatisfy({ $0 == $1 }) {
                guard quoted.count > word.count,
                    let newline = quoted.firstIndex(of: UInt8(ascii: "\n"))
                else { return (start, nil) }
                return (start, newline + 1)
            }
            start += 1
        }
        return (bytes.count, nil)
    }
}

extension Router {
    // MARK: Requests

    /// Waits for the place of another request of ours, of which there can be only one.
    func waitsForSentinel(_ session: SessionRef, _ upstream: UpstreamRef) -> Bool {
        guard upstream.pointee.sentinel != nil else { return false }
        session.pointee.blocks.insert(.substitute)
        return true
    }

    /// RESET on a relayed connection.
    func resetRelay(_ session: SessionRef, _ upstream: UpstreamRef) {
        session.pointee.blocks.insert(.reset)
        passOn(session, Self.reset, 0)
        place(Sentinel(word: randomWord(), purpose: .reset), session, upstream, hello: false)
    }

    /// Answers a login on a relayed connection, which must not reach the server.
    func answerInRelay(
        _ session: SessionRef,
        _ upstream: UpstreamRef,
        _ reply: [UInt8],
        whileSubscribed: [UInt8]
    ) {
        if upstream.pointee.mayBeSilent {
            // Nothing to look for, if the server says nothing; otherwise this is refused.
            passOn(session, Self.standIn, 0)
            return
        }
        session.pointee.blocks.insert(.substitute)
        let purpose = Sentinel.Purpose.login(reply: reply, whileSubscribed: whileSubscribed)
        place(Sentinel(word: randomWord(), purpose: purpose), session, upstream, hello: true)
    }

    private func place(
        _ sentinel: Sentinel,
        _ session: SessionRef,
        _ upstream: UpstreamRef,
        hello: Bool
    ) {
        upstream.pointee.sentinel = sentinel
        let requests = request(sentinel.word) + (hello ? request("HELLO", sentinel.word) : [])
        requests.withUnsafeBytes { bytes in
            if let base = bytes.baseAddress { passOn(session, base, bytes.count, 0) }
        }
    }

    /// Finds the place where nothing is owed on a relayed connection, for its login.
    func placeRenewal(_ upstream: UpstreamRef) {
        let sentinel = Sentinel(word: randomWord(), purpose: .renewal)
        upstream.pointee.sentinel = sentinel
        upstream.pointee.login.removeAll()
        upstream.pointee.login.append(request(sentinel.word))
    }

    private func randomWord() -> [UInt8] {
        let digits = Array("0123456789abcdef".utf8)
        var word = Array("redis-auth-proxy-".utf8)
        for _ in 0..<32 { word.append(digits[Int(random.next() & 15)]) }
        return word
    }

    // MARK: Replies

    /// Passes everything on to the one session of a connection whose replies cannot be counted.
    func relay(_ upstream: UpstreamRef, _ base: UnsafeRawPointer, _ count: Int) {
        guard let owner = upstream.pointee.owner else { return }
        guard let sentinel = upstream.pointee.sentinel else {
            deliver(owner, base, count, 0)
            return
        }
        upstream.pointee.heldBack.append(base, count)
        if !sentinel.isPassed {
            let held = upstream.pointee.heldBack.contents
            let (start, end) = sentinel.find(in: held)
            answer(owner, upstream.pointee.heldBack.bytes, start)
            upstream.pointee.heldBack.consume(end ?? start)
            guard end != nil else { return }
            upstream.pointee.sentinel?.isPassed = true
        }
        switch sentinel.purpose {
        case .reset:
            guard upstream.pointee.heldBack.isEmpty else {
                fail(upstream, "the server sent more than the answer to RESET")
                return
            }
            upstream.pointee.sentinel = nil
            upstream.pointee.isCounted = true
            upstream.pointee.mayBeSilent = false
            didReset(owner, upstream)
            unblock(owner, .reset)
        case .renewal:
            // Alone on its way, see Router+Renewal.swift.
            if !sentinel.isPassed { writeRelayRenewal(upstream) }
            receiveRelayRenewal(upstream, owner)
        case .login(let reply, let whileSubscribed):
            judgeLogin(upstream, owner, reply, whileSubscribed)
        }
    }

    /// The answer to AUTH, which went out when nothing was owed: what else comes is a line of
    /// MONITOR's, a message or a push.
    private func receiveRelayRenewal(_ upstream: UpstreamRef, _ owner: SessionRef) {
        let reply = takeAnswer("a login", upstream, owner) { type, frame in
            type == UInt8(ascii: "-") || frame.elementsEqual("+OK\r\n".utf8)
        }
        guard let reply else { return }
        endSentinel(upstream, owner)
        reply.withUnsafeBytes { judgeRenewal(upstream, $0) }
    }

    /// Behind a sentinel's error: finds the answer to our HELLO among messages, and says to the
    /// client's login what the server would have.
    private func judgeLogin(
        _ upstream: UpstreamRef,
        _ owner: SessionRef,
        _ reply: [UInt8],
        _ whileSubscribed: [UInt8]
    ) {
        let queued = "+QUEUED\r\n".utf8
        let said = takeAnswer("HELLO", upstream, owner) { type, frame in
            type == UInt8(ascii: "-") || frame.elementsEqual(queued)
        }
        guard let said else { return }
        let isSubscribed = said.starts(with: "-ERR Can't execute".utf8)
        answer(
            owner,
            said.elementsEqual(queued)
                ? ClientError.loginInTransaction.reply
                : isSubscribed ? whileSubscribed : reply
        )
        endSentinel(upstream, owner)
    }

    /// Takes the answer to a request of ours out of what is held back; all before it is passed on.
    ///
    /// - Parameter isAnswer: whether a frame of this type is it.
    /// - Returns: nil if it is not there yet, or the connection was given up.
    private func takeAnswer(
        _ request: String,
        _ upstream: UpstreamRef,
        _ owner: SessionRef,
        _ isAnswer: (_ type: UInt8, _ frame: UnsafeRawBufferPointer) -> Bool
    ) -> [UInt8]? {
        while let base = upstream.pointee.heldBack.contents.baseAddress {
            var framer = ReplyFramer()
            switch framer.next(base, from: 0, to: upstream.pointee.heldBack.count) {
            case .incomplete:
                if upstream.pointee.heldBack.count > limits.replyBuffer {
                    fail(upstream, "the server did not answer \(request)")
                }
                return nil
            case .violation:
                fail(upstream, "the server sent what is not RESP")
                return nil
            case .push(let end), .reply(let end):
                let frame = UnsafeRawBufferPointer(start: base, count: end)
                let found = isAnswer(framer.type, frame) ? Array(frame) : nil
                if found == nil { answer(owner, base, end) }
                upstream.pointee.heldBack.consume(end)
                if let found { return found }
            }
        }
        return nil
    }

    /// What is behind the answer is the client's again.
    private func endSentinel(_ upstream: UpstreamRef, _ owner: SessionRef) {
        upstream.pointee.sentinel = nil
        let rest = upstream.pointee.heldBack.contents
        if let base = rest.baseAddress { answer(owner, base, rest.count) }
        upstream.pointee.heldBack.removeAll()
        unblock(owner, .substitute)
    }
}
