// Where each user's credential comes from, and when it is fetched again.
//
//   file changed (inotify) ─┐
//   poll, every few seconds ─┼─► due(user) ─► read ─► CredentialSnapshot n+1 ─► every subscriber
//   requestRefresh(of:) ─────┤      at most once per 100 ms and user    ▲
//   token grows old ─────────┘                                          │
//   secret's poll, or a refresh ─► asked on another thread ─────────────┘
//
// One thread of its own does all reading and publishing; a file system that hangs makes credentials
// old and never holds up a client. Invariants: a user's versions grow by one with each publication
// and are delivered in order; a failed reading keeps the last good credential as long as it is
// usable; a refresh leads to a publication whose reading began after the request, even when nothing
// changed.
//
// IAM tokens are signed here, ahead of need, because a worker must not wait for anything: a snapshot
// always holds a token that is at most `tokenAge` old, so that every login has one with most of its
// 15 minutes before it. Whatever AWS must be asked for is asked elsewhere (`AWSCredentials`).
//
// A secret that the server refuses is looked at again at once, and after that at intervals that
// double. If AWSCURRENT is still what was refused, a rotation may be under way: the server knows
// AWSPENDING already, or AWSPREVIOUS still.
//
// inotify watches the directory and not the file: a watch on the file follows the old inode when a
// new file is renamed over it, and Kubernetes swaps a symlink (`..data`) beside it. The poll is for
// what inotify cannot see: network file systems, a link whose target lives elsewhere, a directory
// that did not exist yet. Rejected: a Swift-concurrency actor with timers (a thread pool that blocks
// in read(2) starves whatever else runs there).

import AWS
import Glibc
package import Identity
package import Logging
import Synchronization

/// Reads users' credentials, keeps them current, and publishes each as numbered snapshots.
///
/// Life: `init`, any number of `subscribe`, `start` once, `stop` once. `snapshot`, `subscribe` and
/// `requestRefresh` may be called from any thread.
package final class CredentialStore: Sendable {
    /// Shortest time between two readings for one user.
    package static let readInterval: Duration = .milliseconds(100)
    /// How long a changed directory is left alone before its files are read: a file that is
    /// created and then written is otherwise read while it is empty.
    package static let settleTime: Duration = .milliseconds(10)
    /// How old a token in a snapshot may become: shorter for connections that live shorter, and for
    /// tokens that do.
    package static let tokenAge: Duration = .seconds(60)
    /// Shortest age of tokens: their dates have no fraction of a second.
    static let shortestTokenAge: Duration = .seconds(1)
    /// Between two looks at a secret that the server refuses; doubles up to the other.
    static let shortestSecretPause: Duration = .seconds(1)
    static let longestSecretPause: Duration = .seconds(60)

    /// One user whose credential is to be kept.
    package struct User: Sendable {
        package var index: UserIndex
        /// The key in the configuration, for logs.
        package var name: String
        /// The ACL user's name as AUTH wants it.
        package var userName: String
        package var source: CredentialSource

        package init(
            index: UserIndex, name: String, userName: String, source: CredentialSource
        ) {
            self.index = index
            self.name = name
            self.userName = userName
            self.source = source
        }
    }

    /// Called with every publication.
    package typealias Subscriber = @Sendable (UserIndex, CredentialSnapshot) -> Void

    private let slots: [Slot]
    private let slotOfUser: [UserIndex: Int]
    private let environment: PasswordEnvironment
    private let pollEvery: Duration
    private let logger: Logger
    private let aws: AWSCredentials?
    private let isAWSChanged = Atomic<Bool>(false)
    private let answers = Mutex<[Answer]>([])
    private let wake: WakePipe
    private let stopping = Atomic<Bool>(false)
    private let control = Mutex(Control())

    /// What a look at a secret brought.
    private struct Answer {
        var slot: Int
        var result: Result<AWSCredentials.Found, AWSCredentials.Unavailable>
        var isAskedFor: Bool
    }

    /// What start, subscribe and stop share with the thread.
    private struct Control {
        var thread: BackgroundThread?
        /// Subscribers that have not been given the first snapshots yet.
        var arriving: [Subscriber] = []
    }

    /// - Parameters:
    ///   - users: each index at most once.
    ///   - environment: what `PasswordEnvironment.take` found for the users that need it.
    ///   - aws: for users whose source needs it; started and stopped with the store.
    ///   - pollEvery: how often files are looked at without an inotify event; at least 10 ms.
    package init(
        users: [User], environment: PasswordEnvironment = PasswordEnvironment(),
        aws: AWSCredentials? = nil, pollEvery: Duration = .seconds(5), logger: Logger
    ) {
        slots = users.map(Slot.init)
        slotOfUser = Dictionary(
            uniqueKeysWithValues: users.enumerated().map { ($1.index, $0) })
        self.environment = environment
        self.aws = aws
        self.pollEvery = max(.milliseconds(10), pollEvery)
        self.logger = logger
        wake = WakePipe()
    }

    /// Reads every credential once, so that `snapshot(of:)` has a version 1 when this returns, then
    /// starts the thread. What AWS must be asked for comes later: version 1 says so.
    ///
    /// Throws when the system gives no thread or no descriptor; a credential that cannot be read is
    /// no error here but a snapshot with a `failure`.
    package func start() throws(StartFailure) {
        guard wake.isUsable else {
            throw StartFailure(reason: "cannot create a pipe: \(errorText(wake.failure))")
        }
        for slot in slots {
            if slot.user.source.needsAWS {
                publish(slot, .failure(.notYet), isAskedFor: false)
            } else {
                read(slot)
            }
        }
        do throws(BackgroundThread.Unavailable) {
            try control.withLock { control throws(BackgroundThread.Unavailable) in
                precondition(control.thread == nil, "started twice")
                control.thread = try BackgroundThread.start { self.run() }
            }
        } catch {
            throw StartFailure(reason: "cannot start a thread for credentials: \(error.reason)")
        }
        do throws(AWSFailure) {
            try aws?.start { [weak self] in
                guard let self else { return }
                isAWSChanged.store(true, ordering: .releasing)
                wake.signal()
            }
        } catch {
            throw StartFailure(reason: error.reason)
        }
    }

    /// Waits until AWS has answered for every user that needs it, well or not, or time is up.
    package func waitForAWS(atMost limit: Duration) {
        let end = Monotonic.now() + limit
        while Monotonic.now() < end {
            let isWaiting = slots.contains { slot in
                slot.user.source.needsAWS && slot.snapshot.withLock { $0.version } < 2
            }
            if !isWaiting { return }
            usleep(10_000)
        }
    }

    /// The store could not start, in words for the operator.
    package struct StartFailure: Error {
        package let reason: String
    }

    /// The newest snapshot; version 0 with no credential before `start`, and for a user that is
    /// not in this store.
    package func snapshot(of user: UserIndex) -> CredentialSnapshot {
        guard let position = slotOfUser[user] else { return Slot.unread }
        return slots[position].snapshot.withLock { $0 }
    }

    /// Adds a listener for publications: called on the store's thread, first with the newest
    /// snapshot of every user, then with each new one. It must not block, or every user waits.
    package func subscribe(_ handler: @escaping Subscriber) {
        control.withLock { $0.arriving.append(handler) }
        wake.signal()
    }

    /// Asks for a reading that begins after this call and for its publication with a higher
    /// version, whether or not the content changed. Never blocks; requests that arrive before the
    /// reading begins are one.
    package func requestRefresh(of user: UserIndex) {
        guard let position = slotOfUser[user] else { return }
        if !slots[position].refreshWanted.exchange(true, ordering: .acquiringAndReleasing) {
            wake.signal()
        }
    }

    /// Ends the thread and waits for it. No subscriber is called after it returns.
    /// Must not be called from a subscriber.
    package func stop() {
        stopping.store(true, ordering: .releasing)
        wake.signal()
        let thread = control.withLock { control in
            defer { control.thread = nil }
            return control.thread
        }
        thread?.join()
        aws?.stop()
    }
}

// MARK: - One user

/// What is known of one user. The atomics and the snapshot are for every thread; the rest belongs
/// to whoever reads: `start` before the thread exists, then the thread.
private final class Slot: Sendable {
    static let unread = CredentialSnapshot(
        version: 0, credential: nil, failure: "the credential has not been read yet")

    let user: CredentialStore.User
    let refreshWanted = Atomic<Bool>(false)
    let snapshot = Mutex(Slot.unread)
    nonisolated(unsafe) var fingerprint: PasswordFile.Fingerprint?
    /// A change was seen: read when `earliestRead` has come.
    nonisolated(unsafe) var isDue = false
    nonisolated(unsafe) var earliestRead = Monotonic.now()
    nonisolated(unsafe) var wasWarnedOfMode = false
    /// A failure was logged and its end was not.
    nonisolated(unsafe) var isFailing = false
    /// For sources that need AWS: when to read again without any reason.
    nonisolated(unsafe) var nextRead = Monotonic.now()
    nonisolated(unsafe) var secret = SecretState()
    /// Who signed the newest token.
    nonisolated(unsafe) var tokenSigner: String?

    /// What is known of a secret in Secrets Manager.
    struct SecretState {
        var found: AWSCredentials.Found?
        /// Since when `found` is what it is.
        var foundAt = Monotonic(nanoseconds: 0)
        var isBeingFetched = false
        var failures = 0
        /// Looks that were asked for in a row and found nothing new.
        var vainLooks = 0
        var lastAskedLook = Monotonic(nanoseconds: 0)
        var nextAskedLook = Monotonic(nanoseconds: 0)
    }

    init(user: CredentialStore.User) {
        self.user = user
    }

    var path: String? {
        switch user.source {
        case .passwordFile(let path): path
        case .passwordEnvironment, .iam, .secretsManager: nil
        }
    }
}

// MARK: - Reading

extension CredentialStore {
    /// Why there is no credential, in words for the operator.
    private struct Unusable: Error {
        let reason: String
        /// Nothing went wrong: AWS has not answered yet.
        var isFirst = false

        static let notYet = Unusable(
            reason: "AWS has not been asked yet, or has not answered", isFirst: true)
    }

    /// Reads one user's source and makes the next snapshot of it. Returns the snapshot if there is
    /// news or if somebody asked; nil otherwise, and for a secret, which is asked for elsewhere.
    @discardableResult
    private func read(_ slot: Slot) -> CredentialSnapshot? {
        slot.isDue = false
        // Taken before the reading: a request that comes during it wants another one.
        let isAskedFor = slot.refreshWanted.exchange(false, ordering: .acquiringAndReleasing)
        slot.earliestRead = Monotonic.now() + Self.readInterval
        switch slot.user.source {
        case .passwordFile(let path):
            return publish(slot, read(slot, path: path), isAskedFor: isAskedFor)
        case .passwordEnvironment(let variable):
            return publish(slot, read(variable: variable, slot), isAskedFor: isAskedFor)
        case .iam(let source):
            if isAskedFor {
                // The server may have refused who signed. Another token of the same signer is no
                // better than one that is young: as no news it is tried at growing intervals.
                aws?.requestRefresh()
                if let credential = youngToken(slot) {
                    return publish(slot, .success(credential), isAskedFor: true)
                }
            }
            return publish(slot, sign(source, slot), isAskedFor: isAskedFor)
        case .secretsManager(let source):
            look(at: source, slot, isAskedFor: isAskedFor)
            return nil
        }
    }

    /// Makes the next snapshot if there is news or if somebody asked.
    @discardableResult
    private func publish(
        _ slot: Slot, _ result: Result<Credential, Unusable>, isAskedFor: Bool
    ) -> CredentialSnapshot? {
        let before = slot.snapshot.withLock { $0 }
        let credential: Credential?
        let failure: Unusable?
        switch result {
        case .success(let read): (credential, failure) = (read, nil)
        case .failure(let unusable):
            // What came before is not forgotten because the next one is not there yet.
            if unusable.isFirst, before.version > 0, !isAskedFor { return nil }
            let now = Monotonic.now().nanoseconds
            credential = before.credential.flatMap { $0.isUsable(at: now) ? $0 : nil }
            failure = unusable
        }
        let isNews =
            before.version == 0 || credential != before.credential
            || failure?.reason != before.failure
        guard isNews || isAskedFor else { return nil }
        if isNews { report(slot, before: before, credential: credential, failure: failure) }
        let next = CredentialSnapshot(
            version: before.version + 1, credential: credential, failure: failure?.reason)
        slot.snapshot.withLock { $0 = next }
        return next
    }

    private func read(_ slot: Slot, path: String) -> Result<Credential, Unusable> {
        // Before the reading: a change in between is then seen by the next poll.
        slot.fingerprint = PasswordFile.fingerprint(of: path)
        do throws(PasswordFile.Unusable) {
            let file = try PasswordFile.read(path)
            warnIfReadableByOthers(slot, path: path, mode: file.mode)
            return .success(Credential(userName: slot.user.userName, secret: file.secret))
        } catch {
            return .failure(Unusable(reason: error.reason))
        }
    }

    private func read(variable: String, _ slot: Slot) -> Result<Credential, Unusable> {
        guard let secret = environment.secret(named: variable), secret.count > 0 else {
            return .failure(
                Unusable(
                    reason: "environment variable \(variable) is not set or is empty:"
                        + " set it to the password and restart"))
        }
        return .success(Credential(userName: slot.user.userName, secret: secret))
    }

    private func warnIfReadableByOthers(_ slot: Slot, path: String, mode: UInt32) {
        let isReadable = mode & 0o004 != 0
        if isReadable, !slot.wasWarnedOfMode {
            logger.warning(
                "password file is readable by every user of this machine: chmod o-r",
                metadata: [
                    "user": "\(slot.user.name)", "path": "\(path)",
                    "mode": "0\(String(mode, radix: 8))",
                ])
        }
        slot.wasWarnedOfMode = isReadable
    }

    private func report(
        _ slot: Slot, before: CredentialSnapshot, credential: Credential?, failure: Unusable?
    ) {
        var fields: Logger.Metadata = [
            "user": "\(slot.user.name)", "source": "\(slot.user.source)",
            "version": "\(before.version + 1)",
        ]
        if let found = slot.secret.found { fields["stage"] = "\(found.stage.rawValue)" }
        if let failure {
            fields["reason"] = "\(failure.reason)"
            guard !failure.isFirst else {
                logger.debug("credential is being fetched", metadata: fields)
                return
            }
            slot.isFailing = true
            logger.error(
                credential == nil
                    ? "credential cannot be read: nobody can become this user until it can"
                    : "credential cannot be read: the last good one stays in use",
                metadata: fields)
            return
        }
        let wasFailing = slot.isFailing
        slot.isFailing = false
        switch credential?.kind {
        case .password where before.credential != nil || wasFailing:
            logger.info(
                credential == before.credential
                    ? "credential can be read again"
                    : "credential changed: every later login uses it",
                metadata: fields)
        case .iamToken where wasFailing:
            logger.info("tokens can be signed again", metadata: fields)
        default:
            logger.debug("credential read", metadata: fields)
        }
    }
}

// MARK: - AWS

extension CredentialStore {
    /// Signs a token, and says when to sign the next one.
    private func sign(_ source: IAMSource, _ slot: Slot) -> Result<Credential, Unusable> {
        slot.nextRead = Monotonic.now() + Self.shortestTokenAge
        guard let aws else { return .failure(.notYet) }
        do throws(AWSCredentials.Unavailable) {
            let token = try aws.token(source, userName: slot.user.userName)
            guard token.usableFor > .zero else {
                return .failure(
                    Unusable(reason: "the AWS credential expires now: \(token.signer)"))
            }
            let now = Monotonic.now()
            slot.tokenSigner = token.signer
            let age = min(Self.tokenAge, source.life.renewAfter / 16, token.usableFor / 4)
            slot.nextRead = now + max(age, Self.shortestTokenAge)
            let end = now + token.usableFor
            return .success(
                Credential(
                    userName: slot.user.userName, secret: token.secret,
                    kind: .iamToken(source.life), usableUntil: end.nanoseconds,
                    origin: token.origin))
        } catch {
            return .failure(Unusable(reason: error.reason, isFirst: error.isFirst))
        }
    }

    /// The newest token, if signing now would bring nothing better.
    private func youngToken(_ slot: Slot) -> Credential? {
        let now = Monotonic.now()
        guard now < slot.nextRead, let aws, aws.signer == slot.tokenSigner,
            let credential = slot.snapshot.withLock({ $0 }).credential,
            credential.isUsable(at: now.nanoseconds)
        else { return nil }
        return credential
    }

    /// Has a secret looked at on another thread; the answer comes to `take`.
    private func look(at source: SecretsManagerSource, _ slot: Slot, isAskedFor: Bool) {
        guard let aws, let position = slotOfUser[slot.user.index] else { return }
        let now = Monotonic.now()
        slot.secret.isBeingFetched = true
        var refused: AWSCredentials.Found?
        if isAskedFor {
            let pause = Self.shortestSecretPause
            let longest = Self.longestSecretPause
            if slot.secret.lastAskedLook + longest * 2 < now { slot.secret.vainLooks = 0 }
            slot.secret.lastAskedLook = now
            slot.secret.nextAskedLook =
                now + min(longest, pause * (1 << min(slot.secret.vainLooks, 10)))
            slot.secret.vainLooks += 1
            // Soon after another one was found the refusal may still be the old one's.
            if slot.secret.foundAt + pause <= now { refused = slot.secret.found }
        }
        aws.fetch(source, refused: refused) { [weak self] result in
            guard let self else { return }
            let answer = Answer(slot: position, result: result, isAskedFor: isAskedFor)
            answers.withLock { $0.append(answer) }
            wake.signal()
        }
    }

    /// Makes a snapshot of what a look at a secret brought.
    private func take(_ answer: Answer) -> CredentialSnapshot? {
        let slot = slots[answer.slot]
        guard case .secretsManager(let source) = slot.user.source else { return nil }
        let now = Monotonic.now()
        slot.secret.isBeingFetched = false
        switch answer.result {
        case .success(let found):
            slot.secret.failures = 0
            let jitter = Double.random(in: 0.9...1.1)
            slot.nextRead = now + (source.refreshEvery * jitter)
            if found.currentID != slot.secret.found?.currentID {
                slot.secret.vainLooks = 0
                slot.secret.nextAskedLook = min(
                    slot.secret.nextAskedLook, now + Self.shortestSecretPause)
            } else if !answer.isAskedFor, found.stage == .current {
                // A look without a reason leaves what a refusal has led to.
                return publishAgain(slot)
            }
            if found.version.id != slot.secret.found?.version.id { slot.secret.foundAt = now }
            slot.secret.found = found
            do throws(SecretLogin.Unusable) {
                let login = try SecretLogin(
                    found.version.value, userNameKey: source.userNameKey,
                    passwordKey: source.passwordKey)
                let credential = Credential(
                    userName: login.userName ?? slot.user.userName, secret: login.password,
                    origin: found.stage.rawValue)
                return publish(slot, .success(credential), isAskedFor: answer.isAskedFor)
            } catch {
                let reason = "secret \(source.secretID), \(found.stage.rawValue): \(error.reason)"
                return publish(
                    slot, .failure(Unusable(reason: reason)), isAskedFor: answer.isAskedFor)
            }
        case .failure(let unavailable):
            slot.secret.failures += 1
            let pause = min(
                Self.longestSecretPause,
                Self.shortestSecretPause * (1 << min(slot.secret.failures - 1, 10)))
            slot.nextRead = now + min(pause, source.refreshEvery)
            return publish(
                slot,
                .failure(Unusable(reason: unavailable.reason, isFirst: unavailable.isFirst)),
                isAskedFor: answer.isAskedFor)
        }
    }

    /// What is in use is still good, also if the looks before failed.
    private func publishAgain(_ slot: Slot) -> CredentialSnapshot? {
        guard let credential = slot.snapshot.withLock({ $0 }).credential else { return nil }
        return publish(slot, .success(credential), isAskedFor: false)
    }

    /// Whether a source of AWS's is to be read now; otherwise `wait` ends when it will be.
    private func isDue(_ slot: Slot, at now: Monotonic, isAWSChanged: Bool, _ wait: inout Int64)
        -> Bool
    {
        let isAskedFor = slot.refreshWanted.load(ordering: .acquiring)
        switch slot.user.source {
        case .passwordFile, .passwordEnvironment: return false
        case .iam:
            if isAWSChanged, youngToken(slot) == nil { return true }
            if now >= slot.nextRead { return true }
            wait = min(wait, slot.nextRead.milliseconds(since: now))
            return isAskedFor
        case .secretsManager:
            guard !slot.secret.isBeingFetched else { return false }
            if isAskedFor, now >= slot.secret.nextAskedLook { return true }
            if isAWSChanged, slot.secret.failures > 0 || slot.secret.found == nil { return true }
            if now >= slot.nextRead { return true }
            wait = min(wait, slot.nextRead.milliseconds(since: now))
            if isAskedFor { wait = min(wait, slot.secret.nextAskedLook.milliseconds(since: now)) }
            return false
        }
    }
}

// MARK: - The thread

extension CredentialStore {
    private func run() {
        var subscribers: [Subscriber] = []
        var watcher = DirectoryWatcher(paths: slots.compactMap(\.path))
        if !watcher.isUsable, slots.contains(where: { $0.path != nil }) {
            logger.warning(
                "inotify is not available: changed password files are noticed by polling only",
                metadata: ["reason": "\(watcher.failure)", "poll_ms": "\(pollEvery.milliseconds)"])
        }
        // What changed between the first reading and the watch.
        var nextPoll = Monotonic.now()

        while !stopping.load(ordering: .acquiring) {
            for subscriber in control.withLock({ control in
                defer { control.arriving = [] }
                return control.arriving
            }) {
                for slot in slots {
                    subscriber(slot.user.index, slot.snapshot.withLock { $0 })
                }
                subscribers.append(subscriber)
            }

            let now = Monotonic.now()
            if now >= nextPoll {
                watcher.refresh()
                for slot in slots {
                    guard let path = slot.path else { continue }
                    if PasswordFile.fingerprint(of: path) != slot.fingerprint { slot.isDue = true }
                }
                nextPoll = now + pollEvery
            }

            let answered = answers.withLock { answers in
                defer { answers = [] }
                return answers
            }
            for answer in answered {
                guard let snapshot = take(answer) else { continue }
                let user = slots[answer.slot].user.index
                for subscriber in subscribers { subscriber(user, snapshot) }
            }

            var wait = nextPoll.milliseconds(since: now)
            let isAWSChanged = isAWSChanged.exchange(false, ordering: .acquiringAndReleasing)
            for slot in slots {
                if slot.user.source.needsAWS {
                    if isDue(slot, at: now, isAWSChanged: isAWSChanged, &wait) {
                        slot.isDue = true
                    }
                } else if slot.refreshWanted.load(ordering: .acquiring) {
                    slot.isDue = true
                }
                guard slot.isDue else { continue }
                guard now >= slot.earliestRead else {
                    wait = min(wait, slot.earliestRead.milliseconds(since: now))
                    continue
                }
                let snapshot = read(slot)
                if case .iam = slot.user.source {
                    wait = min(wait, slot.nextRead.milliseconds(since: now))
                }
                guard let snapshot else { continue }
                for subscriber in subscribers { subscriber(slot.user.index, snapshot) }
            }

            if waitForNews(milliseconds: wait, &watcher) {
                let settled = Monotonic.now() + Self.settleTime
                for slot in slots where slot.path != nil {
                    slot.isDue = true
                    slot.earliestRead = max(slot.earliestRead, settled)
                }
            }
        }
    }

    /// Sleeps until something happens or time is up. True: a watched directory changed.
    private func waitForNews(milliseconds: Int64, _ watcher: inout DirectoryWatcher) -> Bool {
        var polled = [
            pollfd(fd: wake.descriptor, events: Int16(POLLIN), revents: 0),
            pollfd(fd: watcher.descriptor, events: Int16(POLLIN), revents: 0),
        ]
        // A negative descriptor (no inotify) is skipped by poll(2).
        guard poll(&polled, nfds_t(polled.count), Int32(clamping: milliseconds)) > 0 else {
            return false
        }
        if polled[0].revents != 0 { wake.clear() }
        return polled[1].revents != 0 && watcher.drain()
    }
}
