// Whether the users can log in: asked before another process is told to let go of its listeners.
//
// With connections of its own, one after the other: the data plane has none yet, and what it would do at
// its first login is what is done here.

import AWS
import Configuration
import Credentials
import Identity
import Transport

/// Logs in as users and closes again. Blocks.
struct LoginCheck {
    let settings: Settings
    /// In the numbers of the settings.
    let credentials: LiveCredentials

    /// What keeps users that a listener leads to from logging in; empty: nothing does.
    func problems() -> [String] {
        let used = Set(settings.listeners.flatMap { $0.identities.map(\.user) })
        return settings.users.indices.map { UserIndex($0) }.filter(used.contains).compactMap {
            problem(of: $0)
        }
    }

    private func problem(of index: UserIndex) -> String? {
        let user = settings.user(index)
        let upstream = settings.upstream(of: index)
        let who = "user \(user.name) cannot log in at \(upstream.address)"
        let snapshot = credentials.snapshot(of: index)
        guard let credential = snapshot.credential,
            credential.isUsable(at: Monotonic.now().nanoseconds)
        else { return "\(who): no credential: \(snapshot.failure ?? "it has ended")" }
        let addresses: [SocketAddress]
        switch Resolver.lookUp(host: upstream.address.host, port: upstream.address.port) {
        case .success(let found): addresses = found
        case .failure(let error): return "\(who): \(error)"
        }
        let login = UpstreamLogin(
            upstream: upstream, credential: credential, timeout: settings.loginTimeout)
        do throws(ConnectionFailure) {
            let answered = try login.attempt(at: addresses)
            if answered.isAccepted { return nil }
            if case .error(let text) = answered.hello { return "\(who): the server said: \(text)" }
            return "\(who): the server's answer to HELLO was not understood"
        } catch {
            return "\(who): \(error.reason)"
        }
    }
}
