// A simulated Redis: what one connection to a server remembers, and what it answers.
//
// It is a test fixture, not a Redis: there is no data. A value follows from its key alone, so that
// every reply can be told from the request and the state of the connection that it came through.
// That state (database, protocol, transaction, watch, subscriptions, name, reply mode) is what the
// proxy must keep apart between clients, and it is modelled after redis 7.0.15.
//
// The same machine is used twice: one instance for each connection of the simulated server, fed
// with what the proxy sends, and one for each client, fed with what the client sends, as if it had
// a connection of its own. A proxy that is right cannot be told from the latter.
//
//     ECHO t             the token                 BLPOP t 0          waits, then an array
//     GET t n            n bytes made from t       XREAD … BLOCK …    waits, then null
//     SET t v            checks v against t        WAIT n ms          waits, then an integer
//     HGETALL t n        a map or a flat array     SUBSCRIBE …        a confirmation per channel
//     LRANGE t n m       n bulks of m bytes        PING [t]           in RESP2's subscribed state
//     NEST t             every type there is                          followed by messages
//     WHERE t            database and protocol     UNKNOWN, DENIED    errors

/// The state of one connection to a simulated Redis.
struct RedisModel: Equatable {
    enum Replies {
        case on
        case off
        case skipNext
    }

    /// What happens after a request.
    enum After {
        case next
        /// Nothing behind it is run before it is released; the answer comes with the release.
        case wait
        case close
    }

    /// What HELLO says of this connection; on the client's side of the comparison any will do.
    var id = 0
    private(set) var version = 2
    private(set) var database = 0
    private(set) var name: [UInt8] = []
    private(set) var queued: [[[UInt8]]]?
    private(set) var isAborted = false
    private(set) var isWatching = false
    /// A watched key was changed: EXEC does nothing.
    private(set) var isOverwritten = false
    private(set) var replies = Replies.on
    private(set) var channels: [[UInt8]] = []
    private(set) var isTracking = false
    /// A value came that is not the one that was sent.
    private(set) var hasSeenCorruption = false
    /// Commands that the user may not run.
    var denied: Set<String> = []
    /// The server has its data not together yet.
    var isLoading = false

    var isInTransaction: Bool { queued != nil }
    var queuedRequests: Int { queued?.count ?? 0 }

    /// Nothing is left of whoever used the connection since its login.
    func isAsAfterLogin(version: UInt8, database: Int) -> Bool {
        self.version == Int(version) && self.database == database && queued == nil && !isWatching
            && replies == .on && channels.isEmpty && !isTracking
    }

    /// Whether a request that another answers than the server gets no reply.
    mutating func isSilent() -> Bool {
        let mode = replies
        if mode == .skipNext { replies = .on }
        return mode != .on
    }

    /// For whoever has to understand a failure.
    var state: String {
        "v=\(version) db=\(database) name=\(name.count) queued=\(queued?.count ?? -1) "
            + "watching=\(isWatching) replies=\(replies) channels=\(channels.count) "
            + "tracking=\(isTracking)"
    }

    /// As after a login with `HELLO version`.
    init(version: Int = 2, name: [UInt8] = []) {
        self.version = version
        self.name = name
    }

    // MARK: Content

    private static let noise: [UInt8] = {
        var dice = Dice(seed: 7)
        // Line ends and type bytes among letters, to mislead whoever looks at values.
        let alphabet = Array("abcdefghijklmnopqrstuvwxyz\r\n+-:$*>%_|\0\u{7f}".utf8)
        return (0..<65_536).map { _ in dice.pick(alphabet) }
    }()

    static func hash(_ token: [UInt8]) -> Int {
        var hash: UInt32 = 2_166_136_261
        for byte in token { hash = (hash ^ UInt32(byte)) &* 16_777_619 }
        return Int(hash)
    }

    /// Appends the value that belongs to a token.
    static func appendValue(_ token: [UInt8], _ size: Int, to out: inout [UInt8]) {
        var start = hash(token) & 0xffff
        var left = size
        while left > 0 {
            let count = min(left, noise.count - start)
            out += noise[start..<start + count]
            left -= count
            start = 0
        }
    }

    // MARK: Encoding

    static func appendBulk(_ bytes: some Collection<UInt8>, to out: inout [UInt8]) {
        out += "$\(bytes.count)\r\n".utf8
        out += bytes
        out += "\r\n".utf8
    }

    private static func appendValueBulk(_ token: [UInt8], _ size: Int, to out: inout [UInt8]) {
        out += "$\(size)\r\n".utf8
        appendValue(token, size, to: &out)
        out += "\r\n".utf8
    }

    private func appendNull(_ out: inout [UInt8]) {
        out += (version == 3 ? "_\r\n" : "$-1\r\n").utf8
    }

    // MARK: Requests

    /// Runs one request, its name first, and appends what the server sends for it.
    mutating func run(_ request: [[UInt8]], to out: inout [UInt8]) -> After {
        guard let first = request.first else { return .next }
        let name = String(decoding: first, as: UTF8.self).uppercased()
        let start = out.count
        let mode = replies
        if mode == .skipNext { replies = .on }
        var after = After.next
        var isQueued = false
        var isRefused = false
        if queued != nil, !["EXEC", "DISCARD", "MULTI", "WATCH", "RESET", "QUIT"].contains(name) {
            if let error = refusal(of: request, name) {
                isRefused = true
                isAborted = true
                out += error
            } else {
                queued?.append(request)
                out += "+QUEUED\r\n".utf8
                isQueued = true
            }
        } else if let error = refusal(of: request, name) {
            isRefused = true
            isAborted = isInTransaction
            out += error
        } else {
            after = perform(request, name, to: &out)
        }
        let isReplyOn =
            name == "CLIENT" && replies == .on && request.count > 1
            && request[1] == Array("REPLY".utf8)
        let isSilent = mode == .skipNext ? !isReplyOn : mode == .off && replies == .off
        if isSilent && (isQueued || isRefused || !name.hasSuffix("SUBSCRIBE")) {
            out.removeLast(out.count - start)
        }
        if !isQueued && !isRefused { appendUnasked(request, name, to: &out) }
        return after
    }

    /// What the server sends of its own accord behind the answer.
    private func appendUnasked(_ request: [[UInt8]], _ name: String, to out: inout [UInt8]) {
        let token = request.count > 1 ? request[1] : []
        if name == "GET", isTracking, version == 3 {
            out += ">2\r\n$10\r\ninvalidate\r\n*1\r\n".utf8
            Self.appendBulk(token, to: &out)
        }
        if name == "PING", let channel = channels.last {
            for index in 0..<Self.hash(token) % 4 { appendMessage(channel, index, to: &out) }
        }
    }

    /// What is found wrong with a request before it is run or queued.
    private func refusal(of request: [[UInt8]], _ name: String) -> [UInt8]? {
        switch name {
        case "UNKNOWN":
            let token = request.count > 1 ? String(decoding: request[1], as: UTF8.self) : ""
            return Array(
                "-ERR unknown command 'UNKNOWN', with args beginning with: '\(token)' \r\n".utf8)
        case _ where Self.isSentinel(name):
            return Self.unknownCommand(String(decoding: request[0], as: UTF8.self))
        case "DENIED":
            return Array(
                "-NOPERM this user has no permissions to run the 'denied' command\r\n".utf8)
        case "AUTH" where request.count == 1:
            return Array("-ERR wrong number of arguments for 'auth' command\r\n".utf8)
        case "MULTI" where request.count > 1:
            return Array("-ERR wrong number of arguments for 'multi' command\r\n".utf8)
        case _ where denied.contains(name):
            let full = Self.isContainer(name) && request.count > 1 ? [name, word(request)] : [name]
            return Array(
                ("-NOPERM this user has no permissions to run the '"
                    + full.joined(separator: "|").lowercased() + "' command\r\n").utf8
            )
        case "SUBSCRIBE" where request.contains(Array("denied".utf8)):
            return Array("-NOPERM this user has no permissions to access a channel\r\n".utf8)
        case "SUBSCRIBE", "UNSUBSCRIBE", "PING", "RESET", "QUIT":
            return nil
        case _ where version == 2 && !channels.isEmpty:
            return Array("-ERR Can't execute '\(name.lowercased())': \(Self.allowed)\r\n".utf8)
        case _ where isLoading && Self.needsData.contains(name):
            return Array("-LOADING Redis is loading the dataset in memory\r\n".utf8)
        default:
            return nil
        }
    }

    /// A word that the proxy drew at random to mark a place in what comes back.
    static func isSentinel(_ name: String) -> Bool {
        name.uppercased().hasPrefix("REDIS-AUTH-PROXY-")
    }

    static func unknownCommand(_ name: String) -> [UInt8] {
        Array("-ERR unknown command '\(name)', with args beginning with: \r\n".utf8)
    }

    static let abort = Array(
        "-EXECABORT Transaction discarded because of previous errors.\r\n".utf8
    )

    /// Commands that an access string may leave out. The others every user may run, or tell what
    /// connection they run on.
    static let deniable = [
        "SELECT", "CLIENT", "MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH", "SUBSCRIBE",
        "UNSUBSCRIBE", "BLPOP", "WAIT", "XREAD", "READONLY", "SCRIPT", "GET", "SET", "PING",
    ]

    /// Commands that a server refuses while it is loading.
    static let needsData: Set<String> = ["GET", "SET", "HGETALL", "LRANGE", "BLPOP", "XREAD"]

    private static func isContainer(_ name: String) -> Bool { name == "CLIENT" || name == "SCRIPT" }

    private func word(_ request: [[UInt8]]) -> String {
        String(decoding: request[1], as: UTF8.self)
    }

    /// What a RESP2 subscriber is told.
    static let allowed =
        "only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context"

    private static func number(_ request: [[UInt8]], _ index: Int) -> Int {
        guard index < request.count else { return 0 }
        return Int(String(decoding: request[index], as: UTF8.self)) ?? 0
    }

    private mutating func perform(
        _ request: [[UInt8]],
        _ name: String,
        to out: inout [UInt8]
    ) -> After {
        let token = request.count > 1 ? request[1] : []
        switch name {
        case "ECHO":
            Self.appendBulk(token, to: &out)
        case "GET":
            Self.appendValueBulk(token, Self.number(request, 2), to: &out)
        case "SET":
            if request.count == 3 {
                var wanted: [UInt8] = []
                Self.appendValue(token, request[2].count, to: &wanted)
                if wanted != request[2] { hasSeenCorruption = true }
            } else {
                hasSeenCorruption = true
            }
            out += "+OK\r\n".utf8
        case "HGETALL":
            let count = Self.number(request, 2)
            out += (version == 3 ? "%\(count)\r\n" : "*\(count * 2)\r\n").utf8
            for index in 0..<count {
                Self.appendBulk("f\(index)".utf8, to: &out)
                Self.appendValueBulk(token, index * 7 % 50, to: &out)
            }
        case "LRANGE":
            let count = Self.number(request, 2)
            out += "*\(count)\r\n".utf8
            for _ in 0..<count { Self.appendValueBulk(token, Self.number(request, 3), to: &out) }
        case "NEST":
            appendEveryType(token, to: &out)
        case "WHERE":
            out += "+\(String(decoding: token, as: UTF8.self)) db=\(database) v=\(version)\r\n".utf8
        case "PING":
            if version == 2, !channels.isEmpty {
                out += "*2\r\n$4\r\npong\r\n".utf8
                Self.appendBulk(token, to: &out)
            } else if token.isEmpty {
                out += "+PONG\r\n".utf8
            } else {
                Self.appendBulk(token, to: &out)
            }
        case "SCRIPT", "READONLY", "XREAD":
            if request.contains(where: { $0 == Array("BLOCK".utf8) }) {
                out += (version == 3 ? "_\r\n" : "*-1\r\n").utf8
                return .wait
            }
            out += "+OK\r\n".utf8
        case "BLPOP":
            out += "*2\r\n".utf8
            Self.appendBulk(token, to: &out)
            Self.appendValueBulk(token, Self.hash(token) % 300, to: &out)
            return .wait
        case "WAIT":
            out += ":0\r\n".utf8
            return .wait
        case "SELECT":
            let wanted = Self.number(request, 1)
            if wanted < 16 {
                database = wanted
                out += "+OK\r\n".utf8
            } else {
                out += "-ERR DB index is out of range\r\n".utf8
            }
        case "MULTI", "EXEC", "DISCARD", "WATCH", "UNWATCH":
            return performTransaction(name, token, to: &out)
        case "SUBSCRIBE", "UNSUBSCRIBE":
            performSubscription(name, request, to: &out)
        case "CLIENT":
            performClient(request, to: &out)
        case "HELLO":
            performHello(request, to: &out)
        case "RESET":
            let (id, corrupt, denied) = (id, hasSeenCorruption, denied)
            self = RedisModel()
            self.id = id
            self.denied = denied
            hasSeenCorruption = corrupt
            out += "+RESET\r\n".utf8
        case "QUIT":
            out += "+OK\r\n".utf8
            return .close
        default:
            out += "-ERR the simulated server knows no \(name)\r\n".utf8
        }
        return .next
    }

    private func appendEveryType(_ token: [UInt8], to out: inout [UInt8]) {
        guard version == 3 else {
            out += "*5\r\n*-1\r\n$-1\r\n*0\r\n*2\r\n:-7\r\n*1\r\n".utf8
            Self.appendBulk(token, to: &out)
            out += "-ERR inside\r\n".utf8
            return
        }
        out += "|1\r\n+ttl\r\n:3600\r\n*9\r\n_\r\n#t\r\n,-1.5e10\r\n(12345678901234567890\r\n".utf8
        out += "=8\r\ntxt:a\r\nb\r\n!5\r\nERR x\r\n~2\r\n%1\r\n+k\r\n*0\r\n:1\r\n".utf8
        out += "|1\r\n+a\r\n%0\r\n".utf8
        Self.appendBulk(token, to: &out)
        out += "*-1\r\n".utf8
    }

    private func appendMessage(_ channel: [UInt8], _ index: Int, to out: inout [UInt8]) {
        out += (version == 3 ? ">3\r\n" : "*3\r\n").utf8
        Self.appendBulk("message".utf8, to: &out)
        Self.appendBulk(channel, to: &out)
        Self.appendValueBulk(channel, index * 40, to: &out)
    }

    private mutating func performTransaction(
        _ name: String,
        _ token: [UInt8],
        to out: inout [UInt8]
    ) -> After {
        switch name {
        case "MULTI":
            if queued != nil {
                out += "-ERR MULTI calls can not be nested\r\n".utf8
            } else {
                queued = []
                out += "+OK\r\n".utf8
            }
        case "WATCH":
            if queued != nil {
                out += "-ERR WATCH inside MULTI is not allowed\r\n".utf8
            } else {
                isWatching = true
                // Somebody else writes to every third key.
                if Self.hash(token).isMultiple(of: 3) { isOverwritten = true }
                out += "+OK\r\n".utf8
            }
        case "UNWATCH":
            isOverwritten = false
            isWatching = false
            out += "+OK\r\n".utf8
        case "DISCARD":
            out += (queued == nil ? "-ERR DISCARD without MULTI\r\n" : "+OK\r\n").utf8
            endTransaction()
        default:
            guard let requests = queued else {
                out += "-ERR EXEC without MULTI\r\n".utf8
                return .next
            }
            let (aborted, overwritten) = (isAborted, isOverwritten)
            endTransaction()
            if aborted {
                out += Self.abort
            } else if overwritten {
                out += (version == 3 ? "_\r\n" : "*-1\r\n").utf8
            } else {
                out += "*\(requests.count)\r\n".utf8
                for request in requests {
                    let name = String(decoding: request[0], as: UTF8.self).uppercased()
                    _ = perform(request, name, to: &out)
                }
            }
        }
        return .next
    }

    private mutating func endTransaction() {
        queued = nil
        isAborted = false
        isOverwritten = false
        isWatching = false
    }

    private mutating func performSubscription(
        _ name: String,
        _ request: [[UInt8]],
        to out: inout [UInt8]
    ) {
        let isLeaving = name == "UNSUBSCRIBE"
        let word = isLeaving ? "unsubscribe" : "subscribe"
        var names = Array(request.dropFirst())
        if names.isEmpty { names = channels }
        if names.isEmpty {
            out += (version == 3 ? ">3\r\n" : "*3\r\n").utf8
            Self.appendBulk(word.utf8, to: &out)
            appendNull(&out)
            out += ":0\r\n".utf8
        }
        for channel in names {
            if isLeaving {
                channels.removeAll { $0 == channel }
            } else if !channels.contains(channel) {
                channels.append(channel)
            }
            out += (version == 3 ? ">3\r\n" : "*3\r\n").utf8
            Self.appendBulk(word.utf8, to: &out)
            Self.appendBulk(channel, to: &out)
            out += ":\(channels.count)\r\n".utf8
            // Others publish all the time.
            guard !isLeaving, queued == nil else { continue }
            for index in 0..<Self.hash(channel) % 3 { appendMessage(channel, index, to: &out) }
        }
    }

    private mutating func performClient(_ request: [[UInt8]], to out: inout [UInt8]) {
        let word = request.count > 1 ? String(decoding: request[1], as: UTF8.self) : ""
        let argument = request.count > 2 ? request[2] : []
        switch word.uppercased() {
        case "SETNAME":
            name = argument
            out += "+OK\r\n".utf8
        case "GETNAME":
            if name.isEmpty { appendNull(&out) } else { Self.appendBulk(name, to: &out) }
        case "TRACKING":
            isTracking = argument == Array("ON".utf8)
            out += "+OK\r\n".utf8
        case "REPLY":
            switch String(decoding: argument, as: UTF8.self) {
            case "ON":
                replies = .on
                out += "+OK\r\n".utf8
            case "OFF": replies = .off
            default: if replies == .on { replies = .skipNext }
            }
        default:
            out += "+OK\r\n".utf8
        }
    }

    private mutating func performHello(_ request: [[UInt8]], to out: inout [UInt8]) {
        if request.count > 1, Int(word(request)) == nil {
            out += "-ERR Protocol version is not an integer or out of range\r\n".utf8
            return
        }
        if request.count > 1 {
            version = Self.number(request, 1)
            if request.count > 3, request[request.count - 2] == Array("SETNAME".utf8) {
                name = request[request.count - 1]
            }
        }
        appendHello(to: &out)
    }

    /// The answer to HELLO, with this connection's id.
    func appendHello(to out: inout [UInt8]) {
        out += Self.helloHead(version)
        out += "\(id)".utf8
        out += Self.helloTail
    }

    static func helloHead(_ version: Int) -> [UInt8] {
        var out = Array((version == 3 ? "%7\r\n" : "*14\r\n").utf8)
        out += "$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n".utf8
        out += "$5\r\nproto\r\n:\(version)\r\n$2\r\nid\r\n:".utf8
        return out
    }

    static let helloTail = Array(
        "\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n"
            .utf8
    )
}
