// The client's own login, where a listener's rules ask for one or allow it.
//
//               AUTH, HELLO … AUTH                        accepted(route)
//     awaiting ────────────────────► being verified ──────────────────────► admitted
//      │  ▲  ▲                        │ refused                              │ AUTH: verified again;
//      │  │  └────────────────────────┘ (WRONGPASS)                          │ another rule's route is
//      │  └──────────────────────────────────────────────────────────────────┘ taken if nothing
//      ▼ too late                                RESET                         ties the session
//     gone
//
// Invariant: a session that is awaiting has no route and no pool, so there is nothing that its
// requests could be passed on to. Until it is admitted it gets what a server says to a client that
// has not logged in, and may make requests no bigger than a server takes then.
//
// The password is judged elsewhere, because that takes time: meanwhile the session's requests wait.

import Glibc
package import Identity
import RESP

/// A name and a password that a client presented.
package struct LoginAttempt: Sendable {
    /// Grows by one with each attempt in a worker's life.
    package let id: UInt64
    /// `default` where the client gave none. Any bytes, at most `Limits.loginRequest`.
    package let name: [UInt8]
    package let secret: Secret
}

/// What became of an attempt.
package enum LoginVerdict: Sendable {
    /// The client is who it says, and is served by this route.
    case accepted(route: Int)
    case refused
}

/// An attempt of one session that is not answered yet.
struct PendingLogin {
    let attempt: UInt64
    /// nil: AUTH.
    let hello: HelloRequest?
    /// The client wants no reply.
    let isMuted: Bool
    var verdict: LoginVerdict?
}

extension Router {
    /// A client has connected that has to log in before it is served. `didVerifyLogin` gives it its
    /// route; it is closed if that has not happened within `Limits.loginDeadline`.
    package func openSessionAwaitingLogin() -> SessionRef {
        let session = makeSession(route: -1, pool: -1, prefersOwn: false)
        session.pointee.mayLogIn = true
        startAwaiting(session)
        return session
    }

    /// The verdict on an attempt, in any order; ignored if its session is gone.
    package func didVerifyLogin(attempt: UInt64, verdict: LoginVerdict) {
        guard let session = logins.removeValue(forKey: attempt) else { return }
        session.pointee.login?.verdict = verdict
        unblock(session, .login)
        settle()
    }

    private func startAwaiting(_ session: SessionRef) {
        awaitingCount += 1
        session.pointee.loginDeadline = now + limits.loginDeadline
    }

    // MARK: Before the login

    /// Like `process`, for a session that has no route.
    func processBeforeLogin(
        _ session: SessionRef,
        _ base: UnsafeMutableRawPointer,
        _ count: Int
    ) -> Int {
        var start = 0
        while start < count && session.pointee.blocks.isEmpty {
            let rest = UnsafeRawBufferPointer(start: base + start, count: count - start)
            if let violation = violationBeforeLogin(rest) {
                didViolate(session, violation)
                return count
            }
            let verdict: Verdict
            let length: Int
            switch session.pointee.framer.next(base + start, count: count - start) {
            case .frame(let frame, let command):
                length = frame
                let request = UnsafeMutableRawBufferPointer(start: base + start, count: frame)
                verdict = actBeforeLogin(command, request, session)
            case .inline(let line):
                length = line
                verdict = actOnInline(
                    UnsafeRawBufferPointer(start: base + start, count: line), of: session)
                if case .wait = verdict { break }
                explicit_bzero(base + start, line)
            case .incomplete:
                return start
            case .violation(let violation):
                didViolate(session, violation)
                return count
            }
            switch verdict {
            case .handled, .passOn:
                start += length
                session.pointee.commands &+= 1
            case .wait: return start
            case .stop: return count
            }
        }
        return start
    }

    /// What a server finds too big in a request of somebody who has not logged in, as soon as it
    /// is announced.
    ///
    /// Source: redis 7.0, networking.c, processMultibulkBuffer.
    private func violationBeforeLogin(_ bytes: UnsafeRawBufferPointer) -> ProtocolViolation? {
        var arguments = RequestArguments.Announced(bytes)
        guard let count = arguments.count else { return nil }
        if count > limits.argumentsBeforeLogin { return .unauthenticatedMultibulkLength }
        while let length = arguments.next() {
            if length > limits.argumentBeforeLogin { return .unauthenticatedBulkLength }
        }
        return nil
    }

    /// Decides about one complete request of a session that is awaiting.
    func actBeforeLogin(
        _ command: CommandClass,
        _ request: UnsafeMutableRawBufferPointer,
        _ session: SessionRef
    ) -> Verdict {
        switch command {
        case .none: return .handled
        case .auth: return answerAuth(request, of: session)
        case .hello: return answerHello(request, of: session)
        case .quit: return answerQuit(session)
        case .reset where subcommand(of: request) == nil:
            session.pointee.attributes = ClientAttributes()
            answer(session, "+RESET\r\n")
            return .handled
        default:
            if let base = request.baseAddress { explicit_bzero(base, request.count) }
            answer(session, ClientError.notLoggedIn.reply)
            return .handled
        }
    }

    // MARK: The attempt

    /// Has a client's login judged, and its session wait for that.
    func present(
        _ name: [UInt8],
        _ secret: Secret,
        _ hello: HelloRequest?,
        of session: SessionRef
    ) -> Verdict {
        lastAttempt += 1
        session.pointee.login = PendingLogin(
            attempt: lastAttempt, hello: hello, isMuted: session.pointee.isMuted)
        session.pointee.blocks.insert(.login)
        logins[lastAttempt] = session
        let attempt = LoginAttempt(id: lastAttempt, name: name, secret: secret)
        actions.append(.verifyLogin(session, attempt))
        return .handled
    }

    /// Does what the verdict says. False: it has to wait, and the session is blocked for that.
    func finishLogin(_ session: SessionRef) -> Bool {
        guard let login = session.pointee.login else { return true }
        guard let verdict = login.verdict else { return false }
        let replies = session.pointee.replies
        if login.isMuted && replies == .on { session.pointee.replies = .skipping }
        defer { if session.pointee.replies == .skipping { session.pointee.replies = replies } }
        let outcome: Verdict
        switch verdict {
        case .refused:
            outcome = answerLogin(session, ClientError.wrongPassword.reply, login)
        case .accepted(let route) where isRetired[route]:
            // Right when it was judged, and no longer.
            outcome = answerLogin(session, ClientError.wrongPassword.reply, login)
        case .accepted(let route):
            if let refusal = take(route, session) {
                outcome = answerLogin(session, refusal.reply, login)
            } else if session.pointee.blocks.isEmpty {
                session.pointee.isLoggedIn = true
                outcome =
                    login.hello.map { grant($0, session) }
                    ?? answerLogin(session, Array("+OK\r\n".utf8), login)
            } else {
                outcome = .wait
            }
        }
        if case .wait = outcome { return false }
        session.pointee.login = nil
        return true
    }

    private func answerLogin(
        _ session: SessionRef,
        _ reply: [UInt8],
        _ login: PendingLogin
    ) -> Verdict {
        let nothing = UnsafeMutableRawBufferPointer(start: nil, count: 0)
        return answerInPlace(
            reply,
            whileSubscribed: login.hello == nil ? .authWhileSubscribed : .helloWhileSubscribed,
            wiping: nothing,
            of: session
        )
    }

    /// Gives a session the route that its login leads to; the error if it cannot have it. It may
    /// have to wait for that, and is blocked then.
    private func take(_ route: Int, _ session: SessionRef) -> ClientError? {
        if session.pointee.isAwaitingLogin {
            admit(session, route)
            return nil
        }
        guard route != session.pointee.route else { return nil }
        // What is tied to the connection is tied to its user.
        if isRelayed(session) { return .loginWhileTied }
        guard isQuiet(session) else { return nil }
        if session.pointee.lane == .own {
            guard session.pointee.upstream?.pointee.ties.isEmpty ?? true else {
                return .loginWhileTied
            }
            giveUpOwn(session)
        }
        move(session, to: route)
        return nil
    }

    private func admit(_ session: SessionRef, _ route: Int) {
        awaitingCount -= 1
        let pool = pool(route: route, 2, database: 0)
        poolSessions[pool] += 1
        session.pointee.route = route
        session.pointee.pool = pool
        session.pointee.prefersOwn = routes[route].isDedicated
    }

    /// Moves a session without a connection of its own to another route.
    private func move(_ session: SessionRef, to route: Int) {
        let database = pools[session.pointee.pool].database
        let version = session.pointee.protocolVersion
        session.pointee.route = route
        session.pointee.prefersOwn = routes[route].isDedicated
        enter(session, pool(route: route, version, database: database))
    }

    /// RESET takes back a login. The session has no connection of its own, and its state is reset.
    func forgetLogin(_ session: SessionRef) {
        session.pointee.isLoggedIn = false
        if session.pointee.home >= 0 {
            guard !isRetired[session.pointee.home] else {
                endWhenSent(session, .noLongerAdmitted)
                return
            }
            move(session, to: session.pointee.home)
        } else {
            poolSessions[session.pointee.pool] -= 1
            session.pointee.pool = -1
            session.pointee.route = -1
            session.pointee.upstream = nil
            session.pointee.prefersOwn = false
            startAwaiting(session)
        }
        actions.append(.forgetLogin(session))
    }

    /// Ends the sessions that have not logged in in time.
    func endLateLogins() {
        guard awaitingCount > 0 else { return }
        var next = firstSession
        while let session = next {
            next = session.pointee.next
            if session.pointee.isAwaitingLogin, session.pointee.loginDeadline <= now {
                endWhenSent(session, .loginDeadline)
            }
        }
    }
}
