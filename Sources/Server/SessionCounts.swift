// How many sessions there are of each rule, and before login: counted when a client is let in, by the
// acceptor, and when it leaves or becomes somebody else, by its worker.

import Synchronization

/// Shared by the acceptor and all workers.
final class SessionCounts: Sendable {
    /// Places of one kind.
    final class Places: Sendable {
        private let taken = Atomic(0)
        private let most: Atomic<Int>

        init(limit: Int) { most = Atomic(limit) }

        var limit: Int { most.load(ordering: .relaxed) }

        /// Places that are taken stay so if there are fewer from now on.
        func change(limit: Int) { most.store(limit, ordering: .relaxed) }

        /// Takes a place, if there is one.
        func take() -> Bool {
            if taken.add(1, ordering: .relaxed).newValue <= limit { return true }
            taken.subtract(1, ordering: .relaxed)
            return false
        }

        /// Takes a place whether there is one or not.
        func takeAnyway() { taken.add(1, ordering: .relaxed) }

        func giveBack() { taken.subtract(1, ordering: .relaxed) }
    }

    /// Something that only grows.
    final class Counter: Sendable {
        private let value = Atomic(0)

        var count: Int { value.load(ordering: .relaxed) }

        func add() { value.add(1, ordering: .relaxed) }
    }

    private let byRoute: [Places]
    private let beforeLogin: Places
    /// Clients that no rule let in, since the start.
    let refused: Counter
    /// Clients for whom there was no place, since the start.
    let full: Counter
    let ruleFull: Counter
    let beforeLoginFull: Counter

    init(_ configuration: ServerConfiguration) {
        byRoute = configuration.routes.map { Places(limit: $0.limit) }
        beforeLogin = Places(limit: configuration.maximumSessionsBeforeLogin)
        refused = Counter()
        full = Counter()
        ruleFull = Counter()
        beforeLoginFull = Counter()
    }

    /// The same places, and those of routes that are new. The limits are changed by `apply`.
    init(_ configuration: ServerConfiguration, following old: SessionCounts) {
        byRoute =
            old.byRoute
            + configuration.routes.dropFirst(old.byRoute.count).map { Places(limit: $0.limit) }
        beforeLogin = old.beforeLogin
        refused = old.refused
        full = old.full
        ruleFull = old.ruleFull
        beforeLoginFull = old.beforeLoginFull
    }

    /// Puts the limits of `configuration` into force.
    func apply(_ configuration: ServerConfiguration) {
        for (places, route) in zip(byRoute, configuration.routes) {
            places.change(limit: route.limit)
        }
        beforeLogin.change(limit: configuration.maximumSessionsBeforeLogin)
    }

    /// Clients that were not let in, since the start.
    var refusedClients: RefusedClients {
        RefusedClients(
            noRule: refused.count, full: full.count, ruleFull: ruleFull.count,
            beforeLoginFull: beforeLoginFull.count)
    }

    /// The places of a route; nil means those of clients that have not logged in.
    func places(of route: Int?) -> Places { route.map { byRoute[$0] } ?? beforeLogin }
}

extension NumberedRule {
    fileprivate var limit: Int { rule.maximumSessions ?? .max }
}
