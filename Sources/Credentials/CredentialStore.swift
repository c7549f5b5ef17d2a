// Where each user's credential comes from, and when it is fetched again.
//
//   file changed (inotify) ─┐
//   poll, every few seconds ─┼─► due(user) ─► read ─► CredentialSnapshot n+1 ─► every subscriber
//   requestRefresh(of:) ─────┘      at most once per 100 ms and user
//
// One thread of its own does all reading and publishing; a file system that hangs makes credentials
// old and never holds up a client. Invariants: a user's versions grow by one with each publication
// and are delivered in order; a failed reading keeps the last good credential; a refresh leads to a
// publication whose reading began after the request, even when nothing changed.
//
// inotify watches the directory and not the file: a watch on the file follows the old inode when a
// new file is renamed over it, and Kubernetes swaps a symlink (`..data`) beside it. The poll is for
// what inotify cannot see: network file systems, a link whose target lives elsewhere, a directory
// that did not exist yet. Rejected: a Swift-concurrency actor with timers (a thread pool that blocks
// in read(2) starves whatever else runs there).

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
    private let pollMilliseconds: Int64
    private let logger: Logger
    private let wake: WakePipe
    private let stopping = Atomic<Bool>(false)
    private let control = Mutex(Control())

    /// What start, subscribe and stop share with the thread.
    private struct Control {
        var thread: pthread_t?
        /// Subscribers that have not been given the first snapshots yet.
        var arriving: [Subscriber] = []
    }

    /// - Parameters:
    ///   - users: each index at most once.
    ///   - environment: what `PasswordEnvironment.take` found for the users that need it.
    ///   - pollEvery: how often files are looked at without an inotify event; at least 10 ms.
    package init(
        users: [User], environment: PasswordEnvironment = PasswordEnvironment(),
        pollEvery: Duration = .seconds(5), logger: Logger
    ) {
        slots = users.map(Slot.init)
        slotOfUser = Dictionary(
            uniqueKeysWithValues: users.enumerated().map { ($1.index, $0) })
        self.environment = environment
        pollMilliseconds = max(10, pollEvery.wholeMilliseconds)
        self.logger = logger
        wake = WakePipe()
    }

    /// Reads every credential once, so that `snapshot(of:)` has a version 1 when this returns, then
    /// starts the thread.
    ///
    /// Throws when the system gives no thread or no descriptor; a credential that cannot be read is
    /// no error here but a snapshot with a `failure`.
    package func start() throws(StartFailure) {
        guard wake.isUsable else {
            throw StartFailure(reason: "cannot create a pipe: \(errorText(wake.failure))")
        }
        for slot in slots { read(slot) }
        let reason = control.withLock { control -> String? in
            precondition(control.thread == nil, "started twice")
            var thread = pthread_t()
            let store = Unmanaged.passRetained(self)
            let code = pthread_create(
                &thread, nil,
                { argument in
                    guard let argument else { return nil }
                    Unmanaged<CredentialStore>.fromOpaque(argument).takeRetainedValue().run()
                    return nil
                }, store.toOpaque())
            guard code == 0 else {
                store.release()
                return "cannot start a thread for credentials: \(errorText(code))"
            }
            control.thread = thread
            return nil
        }
        if let reason { throw StartFailure(reason: reason) }
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
        if let thread { pthread_join(thread, nil) }
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

    init(user: CredentialStore.User) {
        self.user = user
    }

    var path: String? {
        switch user.source {
        case .passwordFile(let path): path
        case .passwordEnvironment: nil
        }
    }
}

// MARK: - Reading

extension CredentialStore {
    /// Reads one user's source and makes the next snapshot of it. Returns the snapshot if there is
    /// news or if somebody asked; nil otherwise.
    @discardableResult
    private func read(_ slot: Slot) -> CredentialSnapshot? {
        slot.isDue = false
        // Taken before the reading: a request that comes during it wants another one.
        let isAskedFor = slot.refreshWanted.exchange(false, ordering: .acquiringAndReleasing)
        slot.earliestRead = Monotonic.now() + Self.readInterval.wholeMilliseconds

        let before = slot.snapshot.withLock { $0 }
        let credential: Credential?
        let failure: String?
        switch fetch(slot) {
        case .success(let secret):
            credential = Credential(userName: slot.user.userName, secret: secret)
            failure = nil
        case .failure(let unusable):
            credential = before.credential
            failure = unusable.reason
        }
        let isNews =
            before.version == 0 || credential != before.credential || failure != before.failure
        guard isNews || isAskedFor else { return nil }
        if isNews { report(slot, before: before, credential: credential, failure: failure) }
        let next = CredentialSnapshot(
            version: before.version + 1, credential: credential, failure: failure)
        slot.snapshot.withLock { $0 = next }
        return next
    }

    private func fetch(_ slot: Slot) -> Result<Secret, PasswordFile.Unusable> {
        switch slot.user.source {
        case .passwordFile(let path):
            // Before the reading: a change in between is then seen by the next poll.
            slot.fingerprint = PasswordFile.fingerprint(of: path)
            do throws(PasswordFile.Unusable) {
                let file = try PasswordFile.read(path)
                warnIfReadableByOthers(slot, path: path, mode: file.mode)
                return .success(file.secret)
            } catch {
                return .failure(error)
            }
        case .passwordEnvironment(let variable):
            guard let secret = environment.secret(named: variable), secret.count > 0 else {
                return .failure(
                    PasswordFile.Unusable(
                        reason: "environment variable \(variable) is not set or is empty:"
                            + " set it to the password and restart"))
            }
            return .success(secret)
        }
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
        _ slot: Slot, before: CredentialSnapshot, credential: Credential?, failure: String?
    ) {
        var fields: Logger.Metadata = [
            "user": "\(slot.user.name)", "source": "\(slot.user.source)",
            "version": "\(before.version + 1)",
        ]
        if let failure {
            fields["reason"] = "\(failure)"
            logger.error(
                credential == nil
                    ? "credential cannot be read: nobody can become this user until it can"
                    : "credential cannot be read: the last good one stays in use",
                metadata: fields)
        } else if before.version == 0 {
            logger.debug("credential read", metadata: fields)
        } else if credential != before.credential {
            logger.info("credential changed: every later login uses it", metadata: fields)
        } else {
            logger.info("credential can be read again", metadata: fields)
        }
    }
}

// MARK: - The thread

extension CredentialStore {
    private func run() {
        // Signals belong to the threads that handle them.
        var all = sigset_t()
        sigfillset(&all)
        pthread_sigmask(SIG_SETMASK, &all, nil)

        var subscribers: [Subscriber] = []
        var watcher = DirectoryWatcher(paths: slots.compactMap(\.path))
        if !watcher.isUsable, slots.contains(where: { $0.path != nil }) {
            logger.warning(
                "inotify is not available: changed password files are noticed by polling only",
                metadata: ["reason": "\(watcher.failure)", "poll_ms": "\(pollMilliseconds)"])
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
                nextPoll = now + pollMilliseconds
            }

            var wait = now.milliseconds(until: nextPoll)
            for slot in slots {
                if slot.refreshWanted.load(ordering: .acquiring) { slot.isDue = true }
                guard slot.isDue else { continue }
                guard now >= slot.earliestRead else {
                    wait = min(wait, now.milliseconds(until: slot.earliestRead))
                    continue
                }
                guard let snapshot = read(slot) else { continue }
                for subscriber in subscribers { subscriber(slot.user.index, snapshot) }
            }

            if waitForNews(milliseconds: wait, &watcher) {
                let settled = Monotonic.now() + Self.settleTime.wholeMilliseconds
                for slot in slots where slot.path != nil {
                    slot.isDue = true
                    slot.earliestRead = max(slot.earliestRead, settled)
                }
            }
        }
    }

    /// Sleeps until something happens or time is up. True: a watched directory changed.
    private func waitForNews(milliseconds: Int32, _ watcher: inout DirectoryWatcher) -> Bool {
        var polled = [
            pollfd(fd: wake.descriptor, events: Int16(POLLIN), revents: 0),
            pollfd(fd: watcher.descriptor, events: Int16(POLLIN), revents: 0),
        ]
        // A negative descriptor (no inotify) is skipped by poll(2).
        guard poll(&polled, nfds_t(polled.count), milliseconds) > 0 else { return false }
        if polled[0].revents != 0 { wake.clear() }
        return polled[1].revents != 0 && watcher.drain()
    }
}

extension Duration {
    /// Rounded down.
    var wholeMilliseconds: Int64 {
        let (seconds, attoseconds) = components
        return seconds * 1_000 + attoseconds / 1_000_000_000_000_000
    }
}
