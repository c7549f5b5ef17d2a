// A simulated client: it sends pipelines that make sense for the state that it is in, reads when
// it pleases, and compares every byte that it gets with what a server would have sent to it alone.
//
//      generate ──► toProxy ──────► (proxy) ──────► accept ──► compared with `expected`
//                   cut anywhere                    into a socket that holds little
//
// The only bytes that may differ are the digits of a connection's id in HELLO's answer, and an
// error of the proxy's own in the place of a reply.

import Glibc

/// What is to come for one request.
struct Expectation {
    var bytes: [UInt8]
    /// Digits of any connection id stand at this offset of `bytes`.
    var idOffset: Int?
    /// Number of the request in its client's life.
    var number: Int
    /// The request's first words, for whoever has to understand a failure.
    var name = ""
    /// The request, or an earlier one, ties the session to its connection: an error in the place
    /// of the reply must be the last thing that the client gets.
    var isTied: Bool
    /// The server may hold the reply back.
    var isBlocking: Bool
    /// How many bytes of the client's stream end with this request.
    var requestEnd: Int
    /// Nothing comes after it, and the proxy closes.
    var isLast = false
    /// What the server may say instead, because what it refuses changes.
    var refusals: [[UInt8]] = []
    /// The state of the session after a refusal, where that makes a difference, and whether a
    /// state of its lasts then.
    var refused: (shadow: RedisModel, isLasting: Bool)?
    /// The EXEC of a transaction that was sent as a whole, any part of which may be refused.
    var endsUnsureBlock = false
}

final class SimulatedClient {
    enum End {
        case open
        /// FIN was sent; replies are still read.
        case finished
        case reset
    }

    /// Settings of the load, all by chance.
    struct Habits {
        var biggestValue = 400
        var tiesItself = true
        var sendsSecrets = true
        var blocks = true
        var violates = true
        var speaksInline = true
        var maximumRequests = 40
        /// What the server refuses changes all the time: the client waits for the answer to
        /// whatever changes its state.
        var isUnsure = false
        /// Sends many transactions, each as a whole.
        var sendsBlocks = false
    }

    let id: UInt64
    let index: Int
    var habits: Habits
    /// The session as it would be on a connection of its own.
    private(set) var shadow = RedisModel()
    /// The proxy relays this session's replies uncounted, from here on until RESET.
    private(set) var isRelayed = false
    /// Database, name and the like: state that lasts until RESET.
    private(set) var isLasting = false
    /// Sent CLIENT REPLY: an error may come where no reply is owed.
    private var hasAskedForSilence = false
    /// MULTI was answered with an error of the proxy's, and EXEC was not yet.
    private var isTransactionRefused = false
    private var isTied: Bool {
        isLasting || isRelayed || shadow.isInTransaction || shadow.isWatching
            || !shadow.channels.isEmpty
    }
    /// QUIT or something malformed was sent: what follows must not run.
    private(set) var hasEnded = false
    /// Nobody knows whether a transaction is open.
    private var needsReset = false
    private(set) var firstForbidden = Int.max
    private(set) var requests = 0
    var end = End.open
    /// The proxy closed.
    var isClosed = false
    var hasSeenEnd = false

    /// Bytes that the client wrote and the proxy has not read.
    private(set) var toProxy: [UInt8] = []
    private(set) var toProxyStart = 0
    /// All that was ever written, and all that the proxy has read.
    private(set) var written = 0
    private(set) var taken = 0

    private(set) var expected: [Expectation] = []
    private(set) var firstExpected = 0
    /// How much of the expectation at hand has come.
    private var position = 0
    private var idDigits = 0
    /// Begin of a reply that is not the expected one but may become one of the proxy's errors.
    private var oddReply: [UInt8] = []
    /// An error stands in the place of a reply; after a tied one nothing more may come.
    private(set) var errors = 0
    private(set) var refusals = 0
    private(set) var lastWasError = false
    private(set) var mustGetNothing = false
    private(set) var erroredNumbers: Set<Int> = []

    /// Bytes in the client's receive buffer.
    var unread = 0
    var capacity = 65_536
    /// The performer was last told to read.
    var isReadable = true
    /// The performer waits for room in this client's receive buffer.
    var isBlocked = false
    var isLazy = false
    /// The connection that owed it something is lost: it must be closed for that.
    var mustBeClosed = false
    /// It had something under way on a connection that the proxy had to give up.
    var mayBeClosed = false
    var closeReason: String?

    /// Must log in before it is served, and again behind RESET.
    private(set) var hasToLogIn = false
    private var isOutside = false
    /// The numbers of its requests that must never run.
    private(set) var outside: Set<Int> = []

    /// What the server ran of it.
    var lastExecuted = -1
    var executed: Set<Int> = []

    init(id: UInt64, index: Int, habits: Habits, denied: Set<String>) {
        self.id = id
        self.index = index
        self.habits = habits
        shadow.denied = denied
    }

    var pending: Int { toProxy.count - toProxyStart }
    var outstanding: Int { expected.count - firstExpected }
    var current: Expectation? { firstExpected < expected.count ? expected[firstExpected] : nil }
    var isPartway: Bool { position > 0 || !oddReply.isEmpty }

    /// A server that sees the client leave may drop what it owes it.
    var mayBeCut: Bool {
        isRelayed || wasRelayed || leftBlocked || hasTracked || hasBlockedSilently
    }
    /// A command that waits was sent with replies turned off: nobody sees when it ends.
    private var hasBlockedSilently = false
    private var wasRelayed = false
    /// Pushes may come behind a reply, and nobody is owed them.
    private var hasTracked = false
    /// It left as a subscriber, or while a command of its might be waiting in the server.
    private(set) var leftBlocked = false
    /// The performer has seen its end, if only by looking for it.
    private(set) var hasShownEnd = false

    func showEnd() {
        hasShownEnd = true
        if !shadow.channels.isEmpty { leftBlocked = true }
        if expected[firstExpected...].contains(where: { $0.isBlocking }) { leftBlocked = true }
    }

    // MARK: Sending

    /// Takes up to `count` bytes of what waits for the proxy.
    func take(_ count: Int, into buffer: UnsafeMutableRawBufferPointer) {
        toProxy.withUnsafeBytes { bytes in
            buffer.copyMemory(
                from: UnsafeRawBufferPointer(
                    rebasing: bytes[toProxyStart..<toProxyStart + count]
                )
            )
        }
        toProxyStart += count
        taken += count
        if toProxyStart == toProxy.count {
            toProxy.removeAll(keepingCapacity: true)
            toProxyStart = 0
        }
    }

    /// FIN, after `keeping` bytes of what is still unread.
    func finish(keeping: Int) {
        end = .finished
        toProxy.removeLast(pending - keeping)
        written = taken + keeping
        while let last = expected.last, last.requestEnd > written {
            guard expected.count > firstExpected else { break }
            expected.removeLast()
        }
    }

    private func write(_ arguments: [[UInt8]], inline: Bool = false) {
        if inline {
            for (index, argument) in arguments.enumerated() {
                if index > 0 { toProxy.append(0x20) }
                toProxy += argument
            }
            toProxy += "\r\n".utf8
        } else {
            toProxy += "*\(arguments.count)\r\n".utf8
            for argument in arguments { RedisModel.appendBulk(argument, to: &toProxy) }
        }
        written = taken + pending
    }

    // MARK: Making requests

    private func token() -> [UInt8] { Array("t\(index).\(requests)".utf8) }

    private func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }

    /// Appends one request to what is to be sent, and its reply to what is expected.
    func generate(_ dice: inout Dice) {
        if let last = expected.last, outstanding > 0, last.refused != nil || last.endsUnsureBlock {
            return
        }
        if needsReset {
            needsReset = false
            reset()
            return
        }
        if hasEnded {
            // Pipelined behind the end: must never run.
            send([bytes("ECHO"), token()], expects: false)
            return
        }
        if isOutside {
            generateOutside(&dice)
        } else if !shadow.channels.isEmpty {
            generateSubscribed(&dice)
        } else if shadow.isInTransaction {
            generateInTransaction(&dice)
        } else if habits.sendsBlocks && !isRelayed && shadow.replies == .on
            && dice.chance(1, in: 4)
        {
            generateBlock(&dice)
        } else if habits.tiesItself && dice.chance(1, in: 12) {
            generateTying(&dice)
        } else if habits.sendsSecrets && dice.chance(1, in: 25) {
            generateLogin(&dice)
        } else if dice.chance(1, in: 60) {
            generateOdd(&dice)
        } else {
            generatePlain(&dice)
        }
    }

    func mustLogIn() {
        hasToLogIn = true
        isOutside = true
    }

    /// Before its login a client is told so, whatever it asks for.
    private func generateOutside(_ dice: inout Dice) {
        let refusal = "-NOAUTH Authentication required.\r\n"
        switch dice.roll(9) {
        case 0: answer([bytes("AUTH"), bytes("default"), secret()], "+OK\r\n")
        case 1:
            // In RESP2, as every session begins.
            hello([bytes("HELLO"), bytes("2"), bytes("AUTH"), bytes("default"), secret()])
        case 2:
            let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n"
            answer([bytes("AUTH"), bytes("bob"), secret()], wrong)
            return
        case 3:
            answer([bytes("RESET")], "+RESET\r\n")
            return
        default:
            outside.insert(requests)
            let words = dice.pick([
                ["GET"], ["SET"], ["MULTI"], ["EXEC"], ["SUBSCRIBE"], ["CLIENT", "REPLY", "OFF"],
                ["SELECT"], ["BLPOP"], ["MONITOR"], ["UNKNOWN"],
            ])
            answer(words.map(bytes) + (words.count > 1 ? [] : [token()]), refusal)
            return
        }
        isOutside = false
    }

    private func size(_ dice: inout Dice) -> Int {
        dice.chance(1, in: 30) ? dice.roll(habits.biggestValue) : dice.roll(60)
    }

    private func generatePlain(_ dice: inout Dice) {
        let token = token()
        switch dice.roll(14) {
        case 0...3:
            send([bytes("GET"), token, bytes("\(size(&dice))")])
        case 4...6:
            var value: [UInt8] = []
            RedisModel.appendValue(token, size(&dice), to: &value)
            send([bytes("SET"), token, value])
        case 7:
            let inline = habits.speaksInline && dice.chance(1, in: 2)
            send([bytes(dice.pick(["ECHO", "echo", "Ping"])), token], inline: inline)
        case 8:
            send([bytes("HGETALL"), token, bytes("\(dice.roll(12))")])
        case 9:
            send([bytes("LRANGE"), token, bytes("\(dice.roll(20))"), bytes("\(size(&dice) / 4)")])
        case 10: send([bytes("NEST"), token])
        case 11: send([bytes("WHERE"), token])
        case 12: send([bytes(dice.pick(["UNKNOWN", "DENIED", "XREAD"])), token])
        default: send([bytes("SCRIPT"), bytes("LOAD"), token])
        }
    }

    private func generateTying(_ dice: inout Dice) {
        switch dice.roll(habits.blocks ? 14 : 11) {
        // With replies off it depends on how it is cut whether the proxy relays what follows.
        case 0...1 where shadow.replies != .off: send([bytes("MULTI")], ties: true)
        case 2: send([bytes("WATCH"), token()], ties: true)
        case 3: send([bytes("SELECT"), bytes("\(dice.roll(18))")], ties: true)
        case 4:
            var channels = (0...dice.roll(3)).map { bytes("c\($0)") }
            if dice.chance(1, in: 6) { channels.append(bytes("denied")) }
            let word = dice.chance(1, in: 6) ? "UNSUBSCRIBE" : "SUBSCRIBE"
            send([bytes(word)] + channels, ties: true)
        case 5:
            send([bytes("CLIENT"), bytes("SETNAME"), bytes("n\(dice.roll(9))")], ties: true)
        // In a relay it is the server's to answer, which knows the principal's name.
        case 6 where !isRelayed: send([bytes("CLIENT"), bytes("GETNAME")], ties: true)
        case 7:
            hasAskedForSilence = true
            let word = habits.isUnsure ? "ON" : dice.pick(["ON", "OFF", "SKIP"])
            send([bytes("CLIENT"), bytes("REPLY"), bytes(word)], ties: true)
        case 8 where !habits.isUnsure:
            hasTracked = true
            send([bytes("CLIENT"), bytes("TRACKING"), bytes("ON")], ties: true, lasts: true)
        case 9: send([bytes("READONLY")], ties: true, lasts: true)
        case 10:
            // More keys than fit into what may share a connection.
            let keys = (0..<dice.roll(habits.biggestValue / 8)).map { bytes("key\($0)") }
            send([bytes("WATCH"), token()] + keys, ties: true)
        case 11: send([bytes("BLPOP"), token(), bytes("0")], ties: true, blocks: true)
        case 12: send([bytes("WAIT"), bytes("0"), bytes("100")], ties: true, blocks: true)
        default:
            let arguments = ["XREAD", "BLOCK", "0", "STREAMS"].map(bytes)
            send(arguments + [token(), bytes("$")], ties: true, blocks: true)
        }
    }

    /// A transaction as most clients send it: all of it at once.
    private func generateBlock(_ dice: inout Dice) {
        let count = 1 + dice.roll(5)
        guard habits.isUnsure else {
            send([bytes("MULTI")], ties: true)
            for _ in 0..<count { generatePlain(&dice) }
            if shadow.isInTransaction { send([bytes("EXEC")], ties: true) }
            return
        }
        // Each part may be refused by itself. If MULTI is, what follows runs at once; if EXEC is,
        // the transaction stays open, which only this client may come to feel.
        let isInTransaction = shadow.isInTransaction
        send([bytes("MULTI")], ties: true)
        guard outstanding > 0, !isInTransaction else { return }
        expected[expected.count - 1].refused = nil
        var bare = shadow
        var ignored: [UInt8] = []
        _ = bare.run([bytes("DISCARD")], to: &ignored)
        for _ in 0..<count {
            let token = token()
            let request = dice.pick([
                [bytes("GET"), token, bytes("\(size(&dice))")],
                [bytes("ECHO"), token],
                [bytes("WHERE"), token],
                [bytes("HGETALL"), token, bytes("\(dice.roll(12))")],
            ])
            send(request, ties: true)
            let last = expected.count - 1
            expected[last].refused = nil
            // If MULTI was refused, it ties nothing.
            expected[last].isTied = false
            var reply: [UInt8] = []
            _ = bare.run(request, to: &reply)
            expected[last].refusals.append(reply)
        }
        send([bytes("EXEC")], ties: true)
        let last = expected.count - 1
        expected[last].refused = nil
        expected[last].endsUnsureBlock = true
        expected[last].refusals += [RedisModel.abort, bytes("-ERR EXEC without MULTI\r\n")]
    }

    private func generateInTransaction(_ dice: inout Dice) {
        switch dice.roll(12) {
        case 0...1 where shadow.queuedRequests > 0:
            send([bytes("EXEC")], ties: true)
        case 2: send([bytes("DISCARD")], ties: true)
        case 3:
            isRelayed = true
            send([bytes("SUBSCRIBE"), bytes("a"), bytes("b")], ties: true)
        case 4 where habits.sendsSecrets: generateLogin(&dice)
        case 5: send([bytes("WATCH"), token()], ties: true)
        case 6 where habits.blocks:
            // Does not wait, which the proxy cannot know before the answer to MULTI.
            send([bytes("BLPOP"), token(), bytes("0")], ties: true, blocks: true)
        case 7: send([bytes("SELECT"), bytes("\(dice.roll(18))")], ties: true)
        case 8 where dice.chance(1, in: 3): reset()
        default: generatePlain(&dice)
        }
    }

    private func generateSubscribed(_ dice: inout Dice) {
        let isLimited = shadow.version == 2
        switch dice.roll(11) {
        case 8 where habits.sendsSecrets && !shadow.isInTransaction:
            let error = "-ERR Can't execute 'auth': \(RedisModel.allowed)\r\n"
            answer([bytes("AUTH"), bytes("default"), secret()], isLimited ? error : "+OK\r\n")
        case 9 where isLimited && dice.chance(1, in: 4):
            // Without a wish for the answer nobody needs the server's.
            if shadow.replies == .on { isRelayed = true }
            send([bytes(dice.pick(["ECHO", "WHERE", "UNKNOWN", "DENIED"])), token()], ties: true)
        case 9 where !isLimited: generatePlain(&dice)
        case 10
        where !isLimited && !shadow.isInTransaction && !habits.isUnsure && shadow.replies != .off:
            send([bytes("MULTI")], ties: true)
            generatePlain(&dice)
            if dice.chance(1, in: 6) {
                if shadow.isInTransaction { isRelayed = true }
                send([bytes("SUBSCRIBE"), bytes("c1"), bytes("c2")], ties: true)
            }
            send([bytes("EXEC")], ties: true)
            if dice.chance(1, in: 10) && !shadow.isInTransaction {
                isRelayed = true
                hello([bytes("HELLO"), bytes("2")])
            }
        case 0...3: send([bytes("PING"), token()], ties: true)
        case 4: send([bytes("SUBSCRIBE"), bytes("c\(dice.roll(6))")], ties: true)
        case 5: send([bytes("UNSUBSCRIBE"), bytes("c\(dice.roll(6))")], ties: true)
        case 6 where dice.chance(1, in: 2): reset()
        case 7 where dice.chance(1, in: 6) && habits.violates: quit(&dice)
        default: send([bytes("UNSUBSCRIBE")], ties: true)
        }
    }

    private func secret() -> [UInt8] { bytes("SECRET-\(index)-\(requests)") }

    /// Logins for the proxy alone, in all forms.
    private func generateLogin(_ dice: inout Dice) {
        switch dice.roll(shadow.isInTransaction ? 5 : 9) {
        case 0:
            answer([bytes("AUTH"), bytes("default"), secret()], "+OK\r\n")
        case 1:
            answer(
                [bytes("auth"), bytes("bob"), secret()],
                "-WRONGPASS invalid username-password pair or user is disabled.\r\n"
            )
        case 2:
            answer(
                [bytes("AUTH"), secret()],
                hasToLogIn
                    ? "+OK\r\n"
                    : "-ERR AUTH <password> called without any password configured for the default"
                        + " user. Are you sure your configuration is correct?\r\n"
            )
        case 3:
            answer([bytes("AUTH"), bytes("a"), secret(), bytes("b")], "-ERR syntax error\r\n")
        case 4:
            let hello = [bytes("HELLO"), bytes("3"), bytes("AUTH"), bytes("bob"), secret()]
            answer(hello, "-WRONGPASS invalid username-password pair or user is disabled.\r\n")
        case 5:
            answer([bytes("HELLO"), bytes("4")], "-NOPROTO unsupported protocol version\r\n")
        case 6:
            let version = dice.pick(["2", "3"])
            hello([bytes("HELLO"), bytes(version), bytes("AUTH"), bytes("default"), secret()])
        case 7:
            hello(dice.pick([[bytes("HELLO")], [bytes("HELLO"), bytes("3")]]))
        default:
            let name = bytes("h\(dice.roll(9))")
            hello(
                [bytes("HELLO"), bytes("3"), bytes("AUTH"), bytes("default"), secret()]
                    + [bytes("SETNAME"), name]
            )
        }
    }

    /// A request that the proxy answers.
    private func answer(_ request: [[UInt8]], _ reply: String) {
        var out: [UInt8] = []
        let inline = habits.speaksInline && requests.isMultiple(of: 3)
        if shadow.isInTransaction {
            _ = shadow.run([bytes("AUTH")], to: &out)
            if !out.isEmpty { out = Self.loginInTransaction }
        } else if !shadow.isSilent() {
            out = bytes(reply)
        }
        if isRelayed && shadow.version == 2 && !shadow.channels.isEmpty && !out.isEmpty {
            let name = String(decoding: request[0], as: UTF8.self).lowercased()
            out = bytes("-ERR Can't execute '\(name)': \(RedisModel.allowed)\r\n")
        }
        expect(out, blocks: false)
        // Where the server may send no replies a bare AUTH takes its place.
        if isRelayed && hasAskedForSilence && !out.isEmpty {
            let bare = bytes("-ERR wrong number of arguments for 'auth' command\r\n")
            expected[expected.count - 1].refusals.append(bare)
        }
        write(request, inline: inline)
        didWrite(request)
    }

    private func hello(_ request: [[UInt8]]) {
        var out: [UInt8] = []
        var plain = [request[0]]
        if request.count > 1 { plain.append(request[1]) }
        if let last = request.last, request.contains(bytes("SETNAME")) {
            plain += [bytes("SETNAME"), last]
        }
        _ = shadow.run(plain, to: &out)
        expect(out, blocks: false)
        if !out.isEmpty {
            expected[expected.count - 1].idOffset = RedisModel.helloHead(shadow.version).count
            expected[expected.count - 1].isTied = true
        }
        write(request)
        didWrite(request)
    }

    private func reset() {
        send([bytes("RESET")])
        wasRelayed = wasRelayed || isRelayed
        isRelayed = false
        isLasting = false
        isOutside = hasToLogIn
    }

    private func quit(_ dice: inout Dice) {
        send([bytes("QUIT")], inline: habits.speaksInline && dice.chance(1, in: 2))
        close()
    }

    private func close() {
        if outstanding > 0, expected[expected.count - 1].number == requests - 1 {
            expected[expected.count - 1].isLast = true
        }
        hasEnded = true
        firstForbidden = requests
    }

    private func generateOdd(_ dice: inout Dice) {
        switch dice.roll(7) {
        case 0: sendNothing("*0\r\n")
        case 1: sendNothing("\r\n")
        case 2: sendNothing("*-1\r\n")
        case 3: reset()
        case 4 where habits.violates && dice.chance(1, in: 3): quit(&dice)
        // What comes behind a reply of its own accord may come too late for the end.
        case 5 where habits.violates && !hasTracked && dice.chance(1, in: 3): violate(&dice)
        case 6 where dice.chance(1, in: 3) && habits.violates && habits.sendsSecrets:
            // Longer than what may be looked at whole.
            toProxy += "*3\r\n$4\r\nAUTH\r\n$7\r\ndefault\r\n$900000\r\n".utf8
            toProxy += secret()
            let isSilent = shadow.isSilent() || isRelayed
            let reply = "-ERR Protocol error: AUTH or HELLO is too long\r\n"
            expect(isSilent ? [] : bytes(reply), blocks: false)
            didWrite()
            close()
        default: break
        }
        written = taken + pending
    }

    /// No request; but it takes the place of the one that CLIENT REPLY SKIP is about.
    private func sendNothing(_ text: String) {
        toProxy += text.utf8
        _ = shadow.isSilent()
    }

    private func violate(_ dice: inout Dice) {
        let (request, reply) = dice.pick([
            ("*1\r\n!3\r\nfoo\r\n", "-ERR Protocol error: expected '$', got '!'\r\n"),
            ("*x\r\n ", "-ERR Protocol error: invalid multibulk length\r\n"),
            ("*2\r\n$3\r\nGET\r\n$-5\r\n ", "-ERR Protocol error: invalid bulk length\r\n"),
            ("ECHO 'a\r\n", "-ERR Protocol error: unbalanced quotes in request\r\n"),
            ("POST / HTTP/1.1\r\n", ""),
            ("*2\r\n$3\r\nGET\r\n$1\r\nabc", "-ERR Protocol error: expected CRLF after bulk\r\n"),
        ])
        toProxy += request.utf8
        let isSilent = shadow.isSilent() || isRelayed
        expect(isSilent ? [] : bytes(reply), blocks: false)
        didWrite()
        close()
    }

    private func send(
        _ request: [[UInt8]],
        inline: Bool = false,
        ties: Bool = false,
        lasts: Bool = false,
        blocks: Bool = false,
        expects: Bool = true
    ) {
        if expects {
            let (before, wasTied, wasLasting) = (shadow, isTied, isLasting)
            var out: [UInt8] = []
            _ = shadow.run(request, to: &out)
            if blocks && out.isEmpty { hasBlockedSilently = true }
            if lasts && out.first != UInt8(ascii: "-") { isLasting = true }
            expect(out, blocks: blocks, isTied: ties || wasTied || isTied)
            if habits.isUnsure && !out.isEmpty { expectRefusals(request, before, wasLasting) }
        }
        write(request, inline: inline)
        didWrite(request)
    }

    /// The request that was run last might as well be refused.
    private func expectRefusals(_ request: [[UInt8]], _ before: RedisModel, _ wasLasting: Bool) {
        let name = String(decoding: request[0], as: UTF8.self).uppercased()
        let last = expected.count - 1
        for isLoading in [false, true] {
            guard (isLoading ? RedisModel.needsData.contains : RedisModel.deniable.contains)(name)
            else { continue }
            var refused = before
            var out: [UInt8] = []
            if isLoading { refused.isLoading = true } else { refused.denied = [name] }
            _ = refused.run(request, to: &out)
            refused.isLoading = false
            refused.denied = []
            expected[last].refusals.append(out)
            if refused != shadow || wasLasting != isLasting {
                expected[last].refused = (refused, wasLasting)
            }
        }
    }

    private func expect(_ reply: [UInt8], blocks: Bool, isTied: Bool? = nil) {
        guard !reply.isEmpty else { return }
        expected.append(
            Expectation(
                bytes: reply,
                number: requests,
                isTied: isTied ?? self.isTied,
                isBlocking: blocks,
                requestEnd: 0
            )
        )
    }

    /// How often which request was sent, by its first word.
    private(set) var sent: [String: Int] = [:]

    private func didWrite(_ request: [[UInt8]] = []) {
        if let name = request.first {
            sent[String(decoding: name, as: UTF8.self).uppercased(), default: 0] += 1
        }
        written = taken + pending
        if let last = expected.last, last.number == requests {
            expected[expected.count - 1].requestEnd = written
            expected[expected.count - 1].name = request.prefix(3).map {
                String(decoding: $0.prefix(20), as: UTF8.self)
            }.joined(separator: " ")
        }
        requests += 1
    }

    // MARK: Receiving

    /// Bytes of the proxy's arrive. Returns what is wrong with them, if anything is.
    func accept(_ bytes: UnsafeRawBufferPointer) -> String? {
        var rest = bytes
        while !rest.isEmpty {
            guard !mustGetNothing else { return "gets bytes behind an error that ends the session" }
            // With replies turned off, or for half a request, nothing is owed; and yet the end may
            // need a word.
            if current == nil && (isRelayed || hasAskedForSilence || end != .open) {
                expect([0], blocks: false, isTied: true)
            }
            guard let wanted = current else { return "gets bytes that nobody owes it" }
            if !oddReply.isEmpty {
                if let wrong = acceptError(&rest, wanted) { return wrong }
                continue
            }
            if let idOffset = wanted.idOffset, position == idOffset {
                while let digit = rest.first, digit >= 0x30, digit <= 0x39 {
                    idDigits += 1
                    rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst())
                }
                guard !rest.isEmpty else { return nil }
                guard idDigits > 0 else { return "gets no id in the answer to HELLO" }
                position += 1
                continue
            }
            let limit = wanted.idOffset.map { position < $0 ? $0 : .max } ?? .max
            let count = min(rest.count, min(limit, wanted.bytes.count) - position)
            let same = wanted.bytes.withUnsafeBytes { expected -> Int in
                let part = UnsafeRawBufferPointer(
                    rebasing: expected[position..<position + count]
                )
                if let a = part.baseAddress, let b = rest.baseAddress, memcmp(a, b, count) == 0 {
                    return count
                }
                var same = 0
                while same < count && part[same] == rest[same] { same += 1 }
                return same
            }
            position += same
            rest = UnsafeRawBufferPointer(rebasing: rest[same...])
            if same < count {
                oddReply = Array(wanted.bytes[..<position])
                guard position < 200 else { return different(wanted, rest) }
                if let wrong = acceptError(&rest, wanted) { return wrong }
                continue
            }
            if position == wanted.bytes.count {
                if isTransactionRefused { return "gets a reply inside a refused transaction" }
                didGetReply(wanted, isError: false)
            }
        }
        return nil
    }

    /// The requests around the next reply that is owed, for whoever has to understand a failure.
    var unanswered: String {
        let range = max(0, firstExpected - 6)..<min(expected.count, firstExpected + 4)
        return expected[range].map { "\($0.number) \($0.name)" }.joined(separator: ", ")
            + "; next \(firstExpected < expected.count ? expected[firstExpected].number : -1)"
    }

    private func didGetReply(_ wanted: Expectation, isError: Bool) {
        position = 0
        idDigits = 0
        oddReply = []
        firstExpected += 1
        lastWasError = isError
        if firstExpected > 256 && firstExpected * 2 > expected.count {
            expected.removeFirst(firstExpected)
            firstExpected = 0
        }
    }

    static let loginInTransaction = Array(
        "-ERR redis-auth-proxy: AUTH and HELLO have no place in a transaction\r\n".utf8)

    private static let ownErrors = [
        "-ERR redis-auth-proxy: the server cannot be reached, the command was not run\r\n",
        "-ERR redis-auth-proxy: the server refused the proxy's login, the command was not run\r\n",
        "-ERR redis-auth-proxy: this command needs a connection of its own and none is free, "
            + "it was not run\r\n",
    ].map { Array($0.utf8) }

    private func acceptError(
        _ rest: inout UnsafeRawBufferPointer,
        _ wanted: Expectation
    ) -> String? {
        while let byte = rest.first {
            oddReply.append(byte)
            rest = UnsafeRawBufferPointer(rebasing: rest.dropFirst())
            guard (Self.ownErrors + wanted.refusals).contains(where: { $0.starts(with: oddReply) })
            else { return different(wanted, rest) }
            if wanted.refusals.contains(oddReply) {
                if let refused = wanted.refused {
                    shadow = refused.shadow
                    isLasting = refused.isLasting
                }
                if wanted.endsUnsureBlock && oddReply != RedisModel.abort { needsReset = true }
                refusals += 1
                didGetReply(wanted, isError: false)
                return nil
            }
            if Self.ownErrors.contains(oddReply) {
                errors += 1
                erroredNumbers.insert(wanted.number)
                // A transaction that went as a whole is refused as a whole.
                if wanted.name == "MULTI" {
                    isTransactionRefused = true
                } else if wanted.isTied && !isTransactionRefused {
                    mustGetNothing = true
                }
                if wanted.name == "EXEC" { isTransactionRefused = false }
                if executed.contains(wanted.number) {
                    return
                        "is told that request \(wanted.number) (\(wanted.name)) was not run, but it was"
                }
                didGetReply(wanted, isError: true)
                return nil
            }
        }
        return nil
    }

    private func different(_ wanted: Expectation, _ rest: UnsafeRawBufferPointer) -> String {
        let got = String(decoding: oddReply.suffix(100) + rest.prefix(60), as: UTF8.self)
        let expected = String(
            decoding: wanted.bytes.dropFirst(max(0, position - 60)).prefix(160),
            as: UTF8.self
        )
        return "gets \(got.debugDescription) at byte \(position) of reply \(wanted.number) "
            + "(\(wanted.name)) instead of \(expected.debugDescription)"
            + ", around: \(unanswered); \(shadow.state)"
    }
}
