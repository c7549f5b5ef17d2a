// The users' credentials over reloads: one store after the other, for the same subscriber.
//
//     store of generation 1 ──┐
//                             ├──► one number per publication and user ──► server
//     store of generation 2 ──┘    (what generation 1 still says is dropped)
//
// A store's users are fixed, which keeps it simple; a reload that adds users or changes where a
// credential comes from makes a new one. What must not start anew is kept here: the numbers of the
// snapshots, which grow for ever (a refused login waits for a higher one), and the last good credential
// of a user whose source stayed the same and cannot be read just now.

import AWS
import Credentials
import Identity
import Synchronization
import Transport

/// What the server gets its credentials from. Usable from any thread.
final class LiveCredentials: Sendable {
    private struct State {
        var generation = 0
        var store: CredentialStore?
        /// By user: what was published last.
        var newest: [UserIndex: CredentialSnapshot] = [:]
        /// By user: where that came from, and whose it is.
        var origins: [UserIndex: CredentialStore.User] = [:]
        var publish: (@Sendable (UserIndex, CredentialSnapshot) -> Void)?
    }

    private let state = Mutex(State())
    /// How long a start waits for AWS: so that the first clients need not. Without AWS they do, and
    /// passwords from files do not.
    private static let awsPatience: Duration = .seconds(2)

    private let makeStore: Maker

    typealias Maker = @Sendable ([CredentialStore.User]) throws(AWSFailure) -> CredentialStore

    /// - Parameter makeStore: a store that is not started.
    init(makeStore: @escaping Maker) {
        self.makeStore = makeStore
    }

    /// A store that reads, and that `follow` puts into use.
    ///
    /// - Throws: `AWSFailure` or `CredentialStore.StartFailure`.
    func prepare(_ users: [CredentialStore.User]) throws -> CredentialStore {
        let store = try makeStore(users)
        try store.start()
        store.waitForAWS(atMost: Self.awsPatience)
        return store
    }

    /// From now on the credentials of `users` come from `store`, which is started. The store before
    /// is stopped.
    func follow(_ store: CredentialStore, _ users: [CredentialStore.User]) {
        let (generation, old) = state.withLock { state in
            state.generation += 1
            for user in users {
                if let origin = state.origins[user.index],
                    (origin.source, origin.userName) != (user.source, user.userName)
                {
                    // What was good for it is another's.
                    state.newest[user.index] = state.newest[user.index].map {
                        CredentialSnapshot(
                            version: $0.version, credential: nil, failure: $0.failure)
                    }
                }
                state.origins[user.index] = user
            }
            let old = state.store
            state.store = store
            return (state.generation, old)
        }
        forget(allBut: Set(users.map(\.index)))
        for user in users { take(store.snapshot(of: user.index), user.index, generation) }
        store.subscribe { [weak self] user, snapshot in self?.take(snapshot, user, generation) }
        old?.stop()
    }

    /// Nobody is these users any more: their secrets are let go of, here and in the server.
    private func forget(allBut users: Set<UserIndex>) {
        state.withLock { state in
            for (user, snapshot) in state.newest where !users.contains(user) {
                let empty = CredentialSnapshot(
                    version: snapshot.version + 1, credential: nil,
                    failure: "the configuration no longer has this user")
                state.newest[user] = empty
                state.origins[user] = nil
                state.publish?(user, empty)
            }
        }
    }

    private func take(_ snapshot: CredentialSnapshot, _ user: UserIndex, _ generation: Int) {
        state.withLock { state in
            guard generation == state.generation else { return }
            let before = state.newest[user]
            // A token that has expired is not kept: the store took it away for that.
            let kept = before?.credential.flatMap { credential in
                credential.isUsable(at: monotonicNanoseconds()) ? credential : nil
            }
            let next = CredentialSnapshot(
                version: (before?.version ?? 0) + 1,
                credential: snapshot.credential ?? kept,
                failure: snapshot.failure)
            state.newest[user] = next
            // Under the lock, so that publications arrive in the order of their numbers. It posts
            // to mailboxes and does not block.
            state.publish?(user, next)
        }
    }

    /// The newest of a user; without a credential for one that there is none of.
    func snapshot(of user: UserIndex) -> CredentialSnapshot {
        state.withLock { $0.newest[user] }
            ?? CredentialSnapshot(version: 0, credential: nil, failure: "not read yet")
    }

    /// Asks for a user's credential to be read again. Never blocks for long.
    func requestRefresh(of user: UserIndex) {
        state.withLock { $0.store }?.requestRefresh(of: user)
    }

    /// Calls `handler` with the newest snapshot of every user, and then with each publication; once.
    func subscribe(_ handler: @escaping @Sendable (UserIndex, CredentialSnapshot) -> Void) {
        state.withLock { state in
            state.publish = handler
            for (user, snapshot) in state.newest { handler(user, snapshot) }
        }
    }

    /// Ends the store's thread. Nothing is published after it returns.
    func stop() {
        let store = state.withLock { state in
            state.generation += 1
            state.publish = nil
            defer { state.store = nil }
            return state.store
        }
        store?.stop()
    }
}
