// How many sessions there are of each rule, and before login: counted when a client is let in, by the
// acceptor, and when it leaves or becomes somebody else, by its worker.

import Synchronization

/// Shared by the acceptor and all workers.
final class SessionCounts: Sendable {
    /// Places of one kind.
    final class Places: Sendable {
        private let taken = Atomic(0)
        let limit: Int

        init(limit: Int) { self.limit = limit }

        /// Takes a place, if there is one.
        func take() -> Bool {
            if taken.add(1, ordering: .relaxed).newValue <= limit { return true }
            taken.subtract(1, ordering: .relaxed)
            return false
        }

        func giveBack() { taken.subtract(1, ordering: .relaxed) }
    }

    private let byRoute: [Places]
    private let beforeLogin: Places
    /// Clients that no rule let in, since the start.
    let refused = Atomic(0)

    init(_ configuration: ServerConfiguration) {
        byRoute = configuration.routes.map { Places(limit: $0.rule.maximumSessions ?? .max) }
        beforeLogin = Places(limit: configuration.maximumSessionsBeforeLogin)
    }

    /// The places of a route; nil means those of clients that have not logged in.
    func places(of route: Int?) -> Places { route.map { byRoute[$0] } ?? beforeLogin }
}
