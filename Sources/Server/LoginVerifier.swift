// Whether a client's login is right, on a thread of its own: scrypt takes a tenth of a second and
// memory for it, and password files are read.
//
//     worker ── trial ──► mailbox ──► source has attempts left? ── no ──► parked, per source
//        ▲                                  │ yes                            │ one of its source ended
//        │                                  ▼◄───────────────────────────────┘
//        ├── accepted(route) ◄─────────── match
//        └── refused ◄──── after a delay ───┘
//
// One thread, so that one hash's memory is in use at a time. What waits is bounded, in all and per
// source; beyond that an attempt is refused at once, without being looked at.

import Glibc
package import Identity
import Logging
import Synchronization
import Transport

/// Why a password file has no password now, in words for the operator.
package struct UnreadablePassword: Error, Sendable {
    package let reason: String

    package init(reason: String) { self.reason = reason }
}

/// Reads a password file. Called on the thread of logins, may block.
package typealias PasswordReader = @Sendable (_ path: String) -> Result<Secret, UnreadablePassword>

/// One AUTH of one client.
struct LoginTrial: Sendable {
    /// For the worker, to find the session again, if it is still there.
    let attempt: UInt64
    let source: LoginSource
    /// Numbers of the rules that the client may become.
    let candidates: [Int]
    let name: [UInt8]
    let secret: Secret
    let worker: WorkerHandle
}

/// Judges logins. Usable from any thread.
final class LoginVerifier: Sendable {
    /// Attempts that may be under way or wait, of all clients.
    static let limit = 1024

    fileprivate enum Message: Sendable {
        case trial(LoginTrial)
        case follow([Login?])
        case stop
    }

    /// What the thread and its senders share besides the mailbox.
    fileprivate final class Shared: Sendable {
        let mailbox = Mailbox<Message>()
        let pending = Atomic(0)
        let isStopping = Atomic(false)
    }

    private let shared = Shared()
    private let thread: Mutex<Thread?>

    /// Starts the thread.
    ///
    /// - Parameter routes: the rules by number; those with a login may be candidates.
    /// - Throws: `SystemError` when there is no room for it.
    init(
        routes: [NumberedRule],
        readPassword: @escaping PasswordReader,
        logger: Logger
    ) throws(SystemError) {
        let logins = routes.map(\.login)
        let shared = shared
        let started = try Thread.start(name: "logins") {
            do throws(SystemError) {
                let desk = try LoginDesk(
                    logins: logins, readPassword: readPassword, logger: logger, shared: shared)
                desk.run()
            } catch {
                logger.critical("logins cannot be verified: \(error)")
                exit(71)
            }
        }
        thread = Mutex(started)
    }

    /// Judges an attempt; its worker gets the verdict through its mailbox.
    func verify(_ trial: LoginTrial) {
        let isRoom = shared.pending.add(1, ordering: .relaxed).newValue <= Self.limit
        if isRoom && shared.mailbox.post(.trial(trial)) { return }
        shared.pending.subtract(1, ordering: .relaxed)
        trial.answer(nil)
    }

    /// Judges by these rules from now on; their numbers are those of before, and more.
    func follow(_ routes: [NumberedRule]) {
        shared.mailbox.post(.follow(routes.map(\.login)))
    }

    /// Ends the thread and waits for it: for the one hash that it is at. May be called twice.
    func stop() {
        shared.isStopping.store(true, ordering: .relaxed)
        shared.mailbox.post(.stop)
        let thread = thread.withLock { thread in
            defer { thread = nil }
            return thread
        }
        thread?.join()
    }
}

extension NumberedRule {
    /// What can be logged in with; nothing once the rule is retired.
    fileprivate var login: Login? { isRetired ? nil : rule.login }
}

extension LoginTrial {
    /// - Parameter route: what the client becomes; nil: it is refused.
    func answer(_ route: Int?) {
        // A worker that has ended has no sessions.
        worker.mailbox.post(.verified(attempt: attempt, route: route))
    }
}

/// The part of the verifier that its thread owns.
private final class LoginDesk {
    private var logins: [Login?]
    private let readPassword: PasswordReader
    private let logger: Logger
    private let shared: LoginVerifier.Shared
    private let loop: EventLoop
    private let timer: UnsafeMutablePointer<TimerWatcher>
    private var failures = LoginFailures()
    private var lines = RepeatedLines()
    /// Attempts that may be judged, in the order in which they came.
    private var ready: [LoginTrial] = []
    /// Attempts of sources that have enough under way.
    private var parked: [LoginSource: [LoginTrial]] = [:]
    /// Failed attempts whose answer is due later, the earliest first.
    private var late: [(due: UInt64, trial: LoginTrial)] = []

    init(
        logins: [Login?],
        readPassword: @escaping PasswordReader,
        logger: Logger,
        shared: LoginVerifier.Shared
    ) throws(SystemError) {
        self.logins = logins
        self.readPassword = readPassword
        self.logger = logger
        self.shared = shared
        loop = try EventLoop()
        timer = .allocate(capacity: 1)
        timer.initialize(to: TimerWatcher())
    }

    deinit {
        timer.deinitialize(count: 1)
        timer.deallocate()
    }

    func run() {
        shared.mailbox.attach(to: loop) { [unowned self] messages in
            for message in messages {
                switch message {
                case .trial(let trial): receive(trial)
                case .follow(let logins): self.logins = logins
                case .stop: loop.stop()
                }
            }
            work()
        }
        timer.pointee.prepare(
            loop: loop,
            callback: { owner in
                Unmanaged<LoginDesk>.fromOpaque(owner)._withUnsafeGuaranteedRef { $0.work() }
            },
            owner: Unmanaged.passUnretained(self).toOpaque()
        )
        loop.run()
        timer.pointee.stop()
        shared.mailbox.close()
    }

    private func receive(_ trial: LoginTrial) {
        if failures.begin(trial.source, at: monotonicNanoseconds()) {
            ready.append(trial)
        } else {
            parked[trial.source, default: []].append(trial)
        }
    }

    /// Judges what may be judged, and gives the answers that have become due meanwhile.
    private func work() {
        answerLate()
        var next = 0
        while next < ready.count, !shared.isStopping.load(ordering: .relaxed) {
            judge(ready[next])
            next += 1
            answerLate()
        }
        ready.removeAll(keepingCapacity: true)
        if let first = late.first { timer.pointee.start(at: first.due) }
    }

    private func judge(_ trial: LoginTrial) {
        let candidates = trial.candidates.compactMap { route in
            logins[route].map { (route: route, login: $0) }
        }
        let check = LoginCheck(candidates.map(\.login))
        if let found = check.match(name: trial.name, trial.secret, readFile: read) {
            end(trial, route: candidates[found].route)
            return
        }
        let now = monotonicNanoseconds()
        let due = now + failures.fail(trial.source, at: now)
        let place = late.firstIndex { $0.due > due } ?? late.endIndex
        late.insert((due, trial), at: place)
    }

    private func read(_ path: String) -> Secret? {
        switch readPassword(path) {
        case .success(let secret):
            return secret
        case .failure(let problem):
            lines.say(
                .error, "a login's password_file cannot be read: \(problem.reason)",
                key: path, [:], to: logger, at: monotonicNanoseconds())
            return nil
        }
    }

    private func answerLate() {
        let now = monotonicNanoseconds()
        while let first = late.first, first.due <= now {
            late.removeFirst()
            end(first.trial, route: nil)
        }
    }

    /// Answers an attempt; the next of its source takes its place.
    private func end(_ trial: LoginTrial, route: Int?) {
        trial.answer(route)
        shared.pending.subtract(1, ordering: .relaxed)
        failures.end(trial.source)
        guard var waiting = parked[trial.source],
            failures.begin(trial.source, at: monotonicNanoseconds())
        else { return }
        ready.append(waiting.removeFirst())
        parked[trial.source] = waiting.isEmpty ? nil : waiting
    }
}
