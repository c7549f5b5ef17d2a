// One connection of the simulated network, with the simulated server at its far end.
//
//      handOver ──► toServer ──► serve: login, then RedisModel ──► toProxy ──► take
//                   both directions are delivered in parts, late, or never
//
// The server's end complains about whatever a right proxy never sends: a request before a login, a
// client's secret, a request twice or out of order, state on a shared connection, a broken frame.

import Glibc
import Proxy

final class SimulatedConnection {
    enum Phase {
        case connecting
        /// Will neither come up nor fail before the performer loses its patience.
        case hung
        case open
        case closed
    }

    let upstream: UpstreamRef
    let id: UInt64
    let isShared: Bool
    let user: Int
    var phase = Phase.connecting

    private var toServer: [UInt8] = []
    private var toServerStart = 0
    private(set) var toProxy: [UInt8] = []
    private(set) var toProxyStart = 0
    /// nil before the login and after RESET.
    private(set) var model: RedisModel?
    /// An answer that the server holds back until it is released.
    private(set) var held: [UInt8]?
    /// When what is held has waited for as long as it may.
    private var heldUntil: UInt64?
    private var heldToken: (client: Int, number: Int)?
    /// The proxy ended its direction.
    var hasProxyEnded = false
    /// The server ended its direction; its end shows behind `toProxy`.
    private(set) var hasServerEnded = false
    /// Bytes of clients were handed over.
    private(set) var isUsed = false
    /// Of an own connection: the session that it served last.
    private(set) var session: UInt64?
    /// The performer did not hand over what it was told to, for lack of room.
    var isCongested = false

    /// Of a shared connection: whose requests were handed over and not answered completely.
    private(set) var unanswered: [Int] = []
    private var replyEnds: [Int] = []
    /// A shared connection that the server left in a transaction: nothing behind that is anybody's.
    private(set) var isPoisoned = false
    /// Whose requests were handed over since, before the proxy could know.
    private(set) var poisonedClients: Set<Int> = []
    /// The server refused the login, or never answers it: what follows is refused too.
    private var isRefused = false
    /// The SELECT that belongs to the login is still to come.
    private var selects = false
    private var produced = 0
    private var fed = 0

    init(_ upstream: UpstreamRef) {
        self.upstream = upstream
        id = upstream.pointee.id
        isShared = upstream.pointee.isShared
        user = upstream.pointee.user.rawValue
    }

    var receivable: Int { toProxy.count - toProxyStart }
    var isServable: Bool { phase == .open && toServer.count > toServerStart && held == nil }

    // MARK: The proxy's end

    func handOver(_ bytes: UnsafeRawBufferPointer, isLogin: Bool, _ world: World) -> String? {
        toServer += bytes
        if isLogin { return nil }
        if world.endsLogins, world.now > lastLogin + Self.longestLogin {
            return "a request is handed to a connection whose login has ended"
        }
        isUsed = true
        if contains(bytes, "SECRET-") { return "a client's secret is handed over" }
        guard isShared else {
            let owner = upstream.pointee.owner?.pointee.id
            defer { session = owner }
            if let session, session != owner,
                model?.isAsAfterLogin(
                    version: upstream.pointee.protocolVersion,
                    database: upstream.pointee.database
                ) != true
            {
                return "a session gets what another one left behind: \(model?.state ?? "")"
            }
            return nil
        }
        var start = 0
        var openings = 0
        while start < bytes.count {
            guard case .request(let request, let end) = Self.parse(bytes, from: start) else {
                return "a shared connection is handed half a request"
            }
            start = end
            if request == [Array("MULTI".utf8)] {
                openings += 1
            } else if request == [Array("EXEC".utf8)], openings == 0, let client = unanswered.last {
                unanswered.append(client)
            } else if let token = Self.token(request) {
                // A transaction's first request says whose it is.
                for _ in 0...openings { unanswered.append(token.client) }
                if isPoisoned { poisonedClients.insert(token.client) }
                openings = 0
            } else {
                return "a shared connection is handed a request without a token: \(request)"
            }
        }
        return nil
    }

    func take(_ count: Int, into buffer: UnsafeMutableRawBufferPointer) {
        toProxy.withUnsafeBytes { bytes in
            buffer.copyMemory(
                from: UnsafeRawBufferPointer(
                    rebasing: bytes[toProxyStart..<toProxyStart + count]
                )
            )
        }
        toProxyStart += count
        fed += count
        if toProxyStart == toProxy.count {
            toProxy.removeAll(keepingCapacity: true)
            toProxyStart = 0
        }
        var answered = 0
        while answered < replyEnds.count && replyEnds[answered] <= fed { answered += 1 }
        if answered > 0 {
            replyEnds.removeFirst(answered)
            unanswered.removeFirst(answered)
        }
    }

    // MARK: The server's end

    private func send(_ bytes: [UInt8], isReply: Bool) {
        toProxy += bytes
        produced += bytes.count
        if isReply && isShared && model != nil { replyEnds.append(produced) }
    }

    /// A push that nobody asked for, as a RESP3 server may send one at any time.
    func push() {
        guard phase == .open, isShared, upstream.pointee.protocolVersion == 3, model != nil,
            !hasServerEnded
        else { return }
        send(Array(">2\r\n$10\r\ninvalidate\r\n*1\r\n$3\r\nkey\r\n".utf8), isReply: false)
    }

    /// Lets a command that waits come to its end.
    func release(_ world: World) {
        guard let reply = held else { return }
        let (heldUntil, heldToken) = (heldUntil, heldToken)
        held = nil
        self.heldUntil = nil
        self.heldToken = nil
        let null = Array((model?.version == 3 ? "_\r\n" : "*-1\r\n").utf8)
        let isOver = heldUntil.map { $0 <= world.now } ?? false
        // It did nothing. Woken before its time it may be sent again too, if the proxy took the
        // time to be over, which it counts from an earlier moment.
        if isOver || reply == null, heldUntil != nil, let token = heldToken {
            world.didWaitInVain(client: token.client, number: token.number)
        }
        if isOver {
            let isCount = reply.first == UInt8(ascii: ":")
            // Nor is there an answer where the client wants none.
            send(isCount || reply.isEmpty ? reply : null, isReply: false)
            return
        }
        send(reply, isReply: !isShared)
    }

    /// Closes from the server's side, in order.
    func endServer() {
        hasServerEnded = true
        held = nil
        toServer = []
        toServerStart = 0
    }

    /// Runs the next request, if a whole one has come. Returns what the proxy did wrong.
    func serve(_ world: World) -> String? {
        guard phase == .open, !hasServerEnded else { return nil }
        if hasProxyEnded && (held != nil || toServerStart == toServer.count) {
            endServer()
            return nil
        }
        guard held == nil, toServerStart < toServer.count else { return nil }
        let parsed = toServer.withUnsafeBytes { Self.parse($0, from: toServerStart) }
        let request: [[UInt8]]
        switch parsed {
        case .incomplete:
            if hasProxyEnded { endServer() }
            return nil
        case .malformed: return "the server is sent a broken frame"
        case .request(let complete, let end):
            request = complete
            toServerStart = end
            if toServerStart == toServer.count {
                toServer.removeAll(keepingCapacity: true)
                toServerStart = 0
            }
        }
        if request.contains(where: { $0.starts(with: "SECRET-".utf8) }) {
            return "the server sees a client's secret"
        }
        guard model != nil else { return logIn(request, world) }
        if selects {
            selects = false
            var reply: [UInt8] = []
            _ = model?.run(request, to: &reply)
            send(reply, isReply: false)
            let wanted = ["SELECT", "\(upstream.pointee.database)"].map { Array($0.utf8) }
            return request == wanted ? nil : "the database is not selected behind the login"
        }
        if request.count == 5, request[0] == Array("HELLO".utf8), request[2] == Array("AUTH".utf8) {
            return renew(request, world)
        }
        if request.count == 3, request[0] == Array("AUTH".utf8) {
            return renewRelayed(request, world)
        }
        if let wrong = check(request, world) { return wrong }
        world.didServe()
        var reply: [UInt8] = []
        model?.denied = world.denied[user]
        model?.isLoading = world.isLoading
        guard let after = model?.run(request, to: &reply) else { return nil }
        if model?.hasSeenCorruption == true { return "the server is sent a value that was changed" }
        switch after {
        case .next: send(reply, isReply: true)
        case .wait:
            held = reply
            heldUntil = Self.timeout(of: request).map { world.now + $0 }
            heldToken = Self.token(request)
        case .close:
            send(reply, isReply: true)
            endServer()
        }
        let name = String(decoding: request[0], as: UTF8.self).uppercased()
        if reply.starts(with: "-NOPERM this user".utf8) { world.count("refused: \(name)") }
        if !Self.plain.contains(name) { world.count("\(isShared ? "shared" : "own"): \(name)") }
        if isShared && name == "EXEC" && model?.isInTransaction == true {
            world.count("shared connections left in a transaction")
            isPoisoned = true
            for index in unanswered { world.mayClose(index) }
        }
        if reply.starts(with: "-LOADING".utf8) { world.count("refused while loading") }
        if name == "RESET" { model = nil }
        return nil
    }

    /// When the server took the connection's login.
    private var lastLogin: UInt64 = 0
    /// The limit, how late the proxy may learn when it begins, and how far the clock may jump
    /// between two looks of the proxy's at it.
    private static let longestLogin: UInt64 = 15_000_000_000 + 5_000_000_000 + 4_000_000_000

    /// Another login where one is in force.
    private func renew(_ request: [[UInt8]], _ world: World) -> String? {
        let text = request.map { String(decoding: $0, as: UTF8.self) }
        guard text[1] == "\(model?.version ?? 0)" else { return "a login in another protocol" }
        guard text[3] == "user\(user)" else { return "a login as somebody else" }
        guard model?.isInTransaction == false else { return "a login in a transaction" }
        guard unanswered.isEmpty else { return "a login behind replies that are owed" }
        var reply: [UInt8] = []
        switch world.judgeLogin(user: user, password: text[4]) {
        case .refuse(let reason):
            reply = Array("-\(reason)\r\n".utf8)
            world.count("renewals refused")
        case .silent:
            // Too late, perhaps.
            model?.appendHello(to: &reply)
            lastLogin = world.now
            held = reply
            return nil
        case .accept:
            model?.appendHello(to: &reply)
            lastLogin = world.now
        }
        send(reply, isReply: false)
        return nil
    }

    /// The same where the proxy does not count answers.
    private func renewRelayed(_ request: [[UInt8]], _ world: World) -> String? {
        let text = request.map { String(decoding: $0, as: UTF8.self) }
        guard text[1] == "user\(user)" else { return "a login as somebody else" }
        let mayLinger = world.settings.changesAccess || !world.settings.denied[user].isEmpty
        // Where EXEC may be refused nobody knows whether one has ended.
        guard mayLinger || model?.isInTransaction == false else {
            return "a login in a transaction"
        }
        switch world.judgeLogin(user: user, password: text[2]) {
        case .refuse(let reason): send(Array("-\(reason)\r\n".utf8), isReply: false)
        case .silent, .accept:
            lastLogin = world.now
            world.count("relayed logins renewed")
            send(Array("+OK\r\n".utf8), isReply: false)
        }
        return nil
    }

    private func logIn(_ request: [[UInt8]], _ world: World) -> String? {
        let text = request.map { String(decoding: $0, as: UTF8.self) }
        if isUsed, text.count == 1, RedisModel.isSentinel(text[0]) {
            send(RedisModel.unknownCommand(text[0]), isReply: false)
            return nil
        }
        if isRefused, text[0] == "SELECT" { return nil }
        let version = upstream.pointee.protocolVersion
        guard text.count >= 5, text[0] == "HELLO", text[1] == "\(version)", text[2] == "AUTH",
            text[3] == "user\(user)",
            text.count == 5 || (text.count == 7 && text[5] == "SETNAME"),
            !isShared
                || text.last == (user == 1 ? "simulated-proxy:somebody" : "simulated-proxy")
        else { return "the server is sent \(text[0]) before a login" }
        let judgement = world.judgeLogin(user: user, password: text[4])
        if case .accept = judgement {
        } else if isUsed, let session {
            // Behind RESET: whoever knows this connection's id cannot go on on another.
            world.mayClose(session: session)
        }
        switch judgement {
        case .refuse(let reason):
            isRefused = true
            send(Array("-\(reason)\r\n".utf8), isReply: false)
        case .silent: isRefused = true
        case .accept:
            if version == 3 { world.count("connections of RESP3") }
            selects = upstream.pointee.database != 0
            lastLogin = world.now
            var model = RedisModel(version: Int(version), name: request.count > 5 ? request[6] : [])
            model.id = Int(id)
            var reply: [UInt8] = []
            model.appendHello(to: &reply)
            send(reply, isReply: false)
            self.model = model
        }
        return nil
    }

    /// How long a request may wait, in nanoseconds; nil: for ever.
    private static func timeout(of request: [[UInt8]]) -> UInt64? {
        let words = request.map { String(decoding: $0, as: UTF8.self) }
        let seconds =
            switch words[0].uppercased() {
            case "BLPOP": Double(words[words.count - 1])
            case "WAIT": Double(words[2]).map { $0 / 1000 }
            default: Double(words[2]).map { $0 / 1000 }
            }
        guard let seconds, seconds > 0 else { return nil }
        return UInt64(seconds * 1e9)
    }

    static let plain: Set<String> = [
        "GET", "SET", "ECHO", "PING", "HGETALL", "LRANGE", "NEST", "WHERE", "UNKNOWN", "DENIED",
    ]

    private func check(_ request: [[UInt8]], _ world: World) -> String? {
        if isShared {
            let name = String(decoding: request[0], as: UTF8.self).uppercased()
            let isScript = name == "SCRIPT" || name == "XREAD"
            let isTransaction = name == "MULTI" || name == "EXEC"
            guard Self.plain.contains(name) || isScript || isTransaction else {
                return "\(name) is sent on a shared connection"
            }
        }
        guard let token = Self.token(request) else { return nil }
        if !isShared, request[0] == Array("XREAD".utf8) {
            // On two connections at the same time, now and then.
            world.mayRunAgain(client: token.client, number: token.number)
        }
        return world.didExecute(client: token.client, number: token.number)
    }

    // MARK: A parser that has nothing in common with the one under test

    enum Parsed {
        case request([[UInt8]], end: Int)
        case incomplete
        case malformed
    }

    static func parse(_ bytes: UnsafeRawBufferPointer, from start: Int) -> Parsed {
        var at = start
        func line(_ type: UInt8) -> Int? {
            var index = at
            while index < bytes.count && bytes[index] != 0x0a { index += 1 }
            guard index < bytes.count else { return nil }
            guard bytes[at] == type, bytes[index - 1] == 0x0d else { return -1 }
            var number = 0
            for digit in at + 1..<index - 1 { number = number * 10 + Int(bytes[digit]) - 48 }
            at = index + 1
            return number
        }
        guard let count = line(0x2a) else { return .incomplete }
        guard count > 0 else { return .malformed }
        var ranges: [Range<Int>] = []
        for _ in 0..<count {
            guard let length = line(0x24) else { return .incomplete }
            guard length >= 0 else { return .malformed }
            guard at + length + 2 <= bytes.count else { return .incomplete }
            ranges.append(at..<at + length)
            at += length + 2
            guard bytes[at - 2] == 0x0d, bytes[at - 1] == 0x0a else { return .malformed }
        }
        return .request(ranges.map { Array(bytes[$0]) }, end: at)
    }

    /// The client and number of a request, from its token `tCLIENT.NUMBER`.
    static func token(_ request: [[UInt8]]) -> (client: Int, number: Int)? {
        for argument in request.dropFirst().prefix(5) where argument.first == 0x74 {
            var numbers = [0, 0]
            var part = 0
            var isToken = true
            for byte in argument.dropFirst() {
                if byte == 0x2e, part == 0 {
                    part = 1
                } else if (0x30...0x39).contains(byte), numbers[part] < 1 << 40 {
                    numbers[part] = numbers[part] * 10 + Int(byte) - 48
                } else {
                    isToken = false
                    break
                }
            }
            if isToken && part == 1 { return (numbers[0], numbers[1]) }
        }
        return nil
    }
}

/// Whether `needle` is among the bytes.
func contains(_ bytes: UnsafeRawBufferPointer, _ needle: StaticString) -> Bool {
    let length = needle.utf8CodeUnitCount
    guard let base = bytes.baseAddress else { return false }
    var rest = bytes.count - length
    var at = base
    while rest >= 0, let found = memchr(at, Int32(needle.utf8Start[0]), rest + 1) {
        if memcmp(found, needle.utf8Start, length) == 0 { return true }
        rest -= UnsafeRawPointer(found) - at + 1
        at = UnsafeRawPointer(found) + 1
    }
    return false
}
