// What a session has of its own that the proxy keeps for it: database, protocol, name, library, and
// which replies it wants.
//
//     SELECT 5 ──► nothing owed? ──► did the server ever let this user? ──yes──► +OK, next pool
//                                            │ no
//                                            ▼
//                     the request itself, on a connection of the session's own; the server's
//                     answer is the client's, and success is remembered for the user
//
// Invariant: what the server would refuse is refused in the server's own words, because it is the
// server that refuses. Only what it has allowed once is answered in its place afterwards.
//
// A connection that a session takes from another's hands is told who uses it now (`introduce`).
// HELLO does that for the name, because every user may send it, whatever the ACL says of CLIENT.

import RESP

extension Router {
    // MARK: SELECT and CLIENT

    /// nil: to be treated like any command that ties its session to a connection.
    func select(
        _ request: UnsafeMutableRawBufferPointer,
        of session: SessionRef
    ) -> Verdict? {
        var arguments = RequestArguments(UnsafeRawBufferPointer(request))
        _ = arguments.next()
        guard !isRelayed(session), let index = arguments.next(), arguments.next() == nil,
            let database = integer(index), database >= 0
        else { return nil }
        guard isQuiet(session) else { return .wait }
        let user = routes[session.pointee.route].user.rawValue
        guard session.pointee.lane == .shared, databases[user].contains(database) else {
            return ask(UnsafeRawBufferPointer(request), .select, .database(database), of: session)
        }
        let version = session.pointee.protocolVersion
        enter(session, pool(route: session.pointee.route, version, database: database))
        respond(session, Array("+OK\r\n".utf8))
        return .handled
    }

    /// nil: to be treated like any command that ties its session to a connection.
    func client(
        _ request: UnsafeMutableRawBufferPointer,
        of session: SessionRef
    ) -> Verdict? {
        var arguments = RequestArguments(UnsafeRawBufferPointer(request))
        _ = arguments.next()
        guard !isRelayed(session), let subcommand = arguments.next() else { return nil }
        let first = arguments.next()
        let second = arguments.next()
        guard arguments.next() == nil else { return nil }
        let request = UnsafeRawBufferPointer(request)
        switch (first, second) {
        case (nil, nil) where subcommand.equalsIgnoringCase("GETNAME"):
            return getName(request, of: session)
        case (let name?, nil) where subcommand.equalsIgnoringCase("SETNAME"):
            let change = Session.Change.name(Array(name))
            return set(change, .setName, isValidName(name), .setName, request, of: session)
        case (let mode?, nil) where subcommand.equalsIgnoringCase("REPLY"):
            return replyMode(mode, of: session)
        case (let what?, let value?) where subcommand.equalsIgnoringCase("SETINFO"):
            let change: Session.Change
            if what.equalsIgnoringCase("LIB-NAME") {
                change = .libraryName(Array(value))
            } else if what.equalsIgnoringCase("LIB-VER") {
                change = .libraryVersion(Array(value))
            } else {
                return nil
            }
            return set(change, .setInfo, isValidName(value), .setInfo, request, of: session)
        default: return nil
        }
    }

    private func permits(_ session: SessionRef, _ permission: Permissions) -> Bool {
        permissions[routes[session.pointee.route].user.rawValue].contains(permission)
    }

    /// A name: kept here if the server let the user say such a thing before, and it is well-formed.
    private func set(
        _ change: Session.Change,
        _ permission: Permissions,
        _ isValid: Bool,
        _ kind: RunKind,
        _ request: UnsafeRawBufferPointer,
        of session: SessionRef
    ) -> Verdict? {
        guard isQuiet(session) else { return .wait }
        guard session.pointee.lane == .shared, isValid, permits(session, permission) else {
            return ask(request, kind, change, of: session)
        }
        session.pointee.attributes.apply(change)
        respond(session, Array("+OK\r\n".utf8))
        return .handled
    }

    private func getName(
        _ request: UnsafeRawBufferPointer,
        of session: SessionRef
    ) -> Verdict? {
        guard isQuiet(session) else { return .wait }
        guard session.pointee.lane == .shared, permits(session, .getName) else {
            let change = Session.Change.ownName(isWanted: !session.pointee.isMuted)
            // The server may know the connection by another name, see `name(of:)`.
            return ask(request, .getName, change, of: session, isMuted: true)
        }
        respondName(session)
        return .handled
    }

    private func respondName(_ session: SessionRef) {
        let name = session.pointee.attributes.name
        if name.isEmpty {
            respond(
                session, Array((session.pointee.protocolVersion == 2 ? "$-1\r\n" : "_\r\n").utf8))
        } else {
            respond(session, Array("$\(name.count)\r\n".utf8) + name + Array("\r\n".utf8))
        }
    }

    /// The server has said what it calls the session's connection, or that it must not ask.
    func answerName(_ reply: UnsafeRawBufferPointer, _ session: SessionRef) {
        // A name of ours is none of the client's. It may have set its own in a transaction.
        let label = ownNames[session.pointee.route]
        let isOurs =
            session.pointee.attributes.name.isEmpty && !label.isEmpty
            && reply.elementsEqual(Array("$\(label.count)\r\n".utf8) + label + [13, 10])
        if isOurs {
            respondName(session)
        } else if let base = reply.baseAddress {
            answer(session, base, reply.count)
        }
    }

    /// CLIENT REPLY: the connection's replies stay on, and those that the client does not want are
    /// dropped here.
    private func replyMode(
        _ mode: UnsafeRawBufferPointer,
        of session: SessionRef
    ) -> Verdict? {
        let wanted: Session.Replies
        if mode.equalsIgnoringCase("ON") {
            wanted = .on
        } else if mode.equalsIgnoringCase("OFF") {
            wanted = .off
        } else if mode.equalsIgnoringCase("SKIP") {
            wanted = .skip
        } else {
            return nil
        }
        guard isQuiet(session) else { return .wait }
        guard permits(session, .replyMode) else {
            let stated = self.request("CLIENT", "REPLY", "ON")
            return stated.withUnsafeBytes {
                ask($0, .replyMode, .replies(wanted), of: session, isMuted: true)
            }
        }
        // Inside a transaction it is the server's to keep what is queued.
        if isInTransaction(session) { return nil }
        want(wanted, session)
        return .handled
    }

    private func want(_ replies: Session.Replies, _ session: SessionRef) {
        switch replies {
        case .on, .skipping:
            session.pointee.replies = .on
            answer(session, "+OK\r\n")
        case .off: session.pointee.replies = .off
        case .skip: if session.pointee.replies != .off { session.pointee.replies = .skip }
        }
    }

    /// Sends a request that changes the session's state on a connection of its own, and has the
    /// session wait for the server's word.
    ///
    /// - Returns: nil inside a transaction, where the request is only queued.
    func ask(
        _ request: UnsafeRawBufferPointer,
        _ kind: RunKind,
        _ change: Session.Change,
        of session: SessionRef,
        isMuted: Bool = false
    ) -> Verdict? {
        guard isQuiet(session) else { return .wait }
        if isInTransaction(session) { return nil }
        if session.pointee.lane == .shared && !takeOwn(session, for: .state) { return .wait }
        guard let base = request.baseAddress else { return .handled }
        session.pointee.carriesState = true
        session.pointee.change = change
        passOn(session, base, request.count, 1, kind, isMuted: isMuted)
        session.pointee.blocks.insert(.state)
        return .handled
    }

    /// The server agreed to the change that `session` asked for on its own connection `upstream`.
    func agree(_ kind: RunKind, _ session: SessionRef, _ upstream: UpstreamRef) {
        let user = upstream.pointee.user.rawValue
        let version = session.pointee.protocolVersion
        switch session.pointee.change {
        case nil: return
        case .database(let database):
            databases[user].insert(database)
            let pool = pool(route: session.pointee.route, version, database: database)
            enter(session, pool)
            upstream.pointee.database = database
            // Where it is given back to; one that was switched to another protocol never is.
            upstream.pointee.pool = self.pool(
                route: upstream.pointee.route,
                upstream.pointee.protocolVersion,
                database: database
            )
        case .hello(let wanted, let name):
            if let name {
                session.pointee.attributes.name = name
                upstream.pointee.attributes.name = name
            }
            upstream.pointee.ties.insert(.identity)
            let database = pools[session.pointee.pool].database
            enter(session, pool(route: session.pointee.route, wanted, database: database))
        case .name, .libraryName, .libraryVersion:
            permissions[user].insert(kind == .setName ? .setName : .setInfo)
            if let change = session.pointee.change {
                session.pointee.attributes.apply(change)
                upstream.pointee.attributes.apply(change)
            }
        case .ownName: permissions[user].insert(.getName)
        case .replies:
            permissions[user].insert(.replyMode)
            // Takes effect in `answerReplyMode`.
            return
        }
        session.pointee.change = nil
    }

    /// What was sent in the place of the client's CLIENT REPLY has its answer.
    func answerReplyMode(_ reply: UnsafeRawBufferPointer, _ session: SessionRef) {
        if case .replies(let wanted) = session.pointee.change {
            session.pointee.change = nil
            // What was skipped was this very request.
            if session.pointee.replies == .skipping { session.pointee.replies = .on }
            want(wanted, session)
        } else if !session.pointee.isMuted, let base = reply.baseAddress {
            answer(session, base, reply.count)
        }
    }

    // MARK: Where the state lives

    /// Moves a session that is owed nothing to another pool.
    func enter(_ session: SessionRef, _ pool: Int) {
        poolSessions[session.pointee.pool] -= 1
        poolSessions[pool] += 1
        session.pointee.pool = pool
        session.pointee.protocolVersion = pools[pool].protocolVersion
        if session.pointee.lane == .shared { session.pointee.upstream = nil }
    }

    /// As the session was when its client connected.
    func resetState(_ session: SessionRef) {
        enter(session, pool(route: session.pointee.route, 2, database: 0))
        session.pointee.attributes = ClientAttributes()
        session.pointee.replies = .on
        session.pointee.change = nil
    }

    /// The server has reset the session's own connection: the session is as its client found it,
    /// and the connection as it was before its login, which follows at once.
    func didReset(_ session: SessionRef, _ upstream: UpstreamRef) {
        resetState(session)
        session.pointee.isLimited = false
        session.pointee.carriesState = false
        session.pointee.blocking = 0
        upstream.pointee.pool = session.pointee.pool
        upstream.pointee.protocolVersion = session.pointee.protocolVersion
        upstream.pointee.database = 0
        upstream.pointee.attributes = ClientAttributes(name: name(of: session))
        upstream.pointee.ties.formIntersection(.identity)
        upstream.pointee.subscriptions = Subscriptions()
        upstream.pointee.hasHandedOver = upstream.pointee.ties.contains(.identity)
        // Goes out when the answer to RESET has been dealt with.
        upstream.pointee.state = .loggingIn
        upstream.pointee.needsLogin = true
    }

    /// Behind RESET, once its answer has been dealt with.
    func logInAgain(_ upstream: UpstreamRef) {
        if let owner = upstream.pointee.owner, owner.pointee.isLoggedIn {
            // Another user's connection may be needed, if any.
            giveUpOwn(owner)
            forgetLogin(owner)
        } else {
            logIn(upstream)
        }
    }

    /// What a session's own connection is called: as the client said, or else for its principal.
    func name(of session: SessionRef) -> [UInt8] {
        let own = session.pointee.attributes.name
        return own.isEmpty ? ownNames[session.pointee.route] : own
    }

    /// Tells the server who uses a connection from now on, if it was told otherwise before.
    func introduce(_ session: SessionRef, to upstream: UpstreamRef) {
        var wanted = session.pointee.attributes
        wanted.name = name(of: session)
        let known = upstream.pointee.attributes
        guard wanted != known else { return }
        if wanted.name != known.name {
            // Every user may send it.
            let version = Array(String(session.pointee.protocolVersion).utf8)
            prepare(session, request("HELLO", version, "SETNAME", wanted.name))
        }
        if wanted.libraryName != known.libraryName {
            prepare(session, request("CLIENT", "SETINFO", "LIB-NAME", wanted.libraryName))
        }
        if wanted.libraryVersion != known.libraryVersion {
            prepare(session, request("CLIENT", "SETINFO", "LIB-VER", wanted.libraryVersion))
        }
        upstream.pointee.attributes = wanted
    }

    private func prepare(_ session: SessionRef, _ request: [UInt8]) {
        request.withUnsafeBytes { bytes in
            if let base = bytes.baseAddress {
                passOn(session, base, bytes.count, 1, .prelude, isMuted: true)
            }
        }
    }

    // MARK: Whole transactions

    struct Transaction {
        let multiBytes: Int
        let bodyBytes: Int
        let execBytes: Int
        let bodyRequests: UInt32

        var byteCount: Int { multiBytes + bodyBytes + execBytes }
    }

    /// A transaction that can go to the shared connection as one piece: all of it is there, MULTI
    /// and EXEC stand alone, nothing in between is more than plain, and the server is known to let
    /// the user end it.
    ///
    /// Where any of this is not so, the server could keep the transaction open for everybody
    /// else's requests (a refused EXEC), or run a part of it by itself (a refused MULTI in front of
    /// what waits).
    ///
    /// - Parameters:
    ///   - bytes: begins with a MULTI of `multi` bytes.
    ///   - count: how much there is.
    func wholeTransaction(
        _ session: SessionRef,
        _ bytes: UnsafeMutableRawPointer,
        _ multi: Int,
        _ count: Int
    ) -> Transaction? {
        guard permits(session, .exec), session.pointee.replies != .skip,
            standsAlone(bytes, multi)
        else { return nil }
        var framer = RequestFramer()
        var offset = multi
        var requests: UInt32 = 0
        while offset < count {
            guard
                case .frame(let length, let command) = framer.next(
                    bytes + offset, count: count - offset)
            else { return nil }
            switch command {
            case .plain:
                requests += 1
                offset += length
            case .exec
            where standsAlone(bytes + offset, length)
                && session.pointee.owed &+ requests &+ 2 <= session.pointee.window:
                return Transaction(
                    multiBytes: multi,
                    bodyBytes: offset - multi,
                    execBytes: length,
                    bodyRequests: requests
                )
            default: return nil
            }
        }
        return nil
    }

    /// Whether a request is its name alone.
    private func standsAlone(_ request: UnsafeMutableRawPointer, _ count: Int) -> Bool {
        var arguments = RequestArguments(UnsafeRawBufferPointer(start: request, count: count))
        return arguments.next() != nil && arguments.next() == nil
    }

    func passOn(_ block: Transaction, of session: SessionRef, _ bytes: UnsafeRawPointer) {
        passOn(session, bytes, block.multiBytes, 1, .sharedMulti)
        passOn(session, bytes + block.multiBytes, block.bodyBytes, block.bodyRequests)
        let exec = bytes + block.multiBytes + block.bodyBytes
        passOn(session, exec, block.execBytes, 1, .sharedExec)
    }

    // MARK: Requests of our own

    func request(_ arguments: any RequestArgument...) -> [UInt8] {
        var request: [UInt8] = []
        RequestEncoder.append(arguments.map(\.bytes), to: &request)
        return request
    }
}

extension ClientAttributes {
    mutating func apply(_ change: Session.Change) {
        switch change {
        case .name(let name): self.name = name
        case .libraryName(let name): libraryName = name
        case .libraryVersion(let version): libraryVersion = version
        case .database, .hello, .replies, .ownName: break
        }
    }
}

/// A word of a request of ours: text, or bytes that a client chose.
protocol RequestArgument {
    var bytes: [UInt8] { get }
}

extension String: RequestArgument {
    var bytes: [UInt8] { Array(utf8) }
}

extension [UInt8]: RequestArgument {
    var bytes: [UInt8] { self }
}
