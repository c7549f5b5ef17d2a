// A new configuration in the numbers of the one that is in use.
//
//      in use:   listeners  0 :6379      1 unix:a       rules  0 app   1 cron   2 any
//      wanted:              unix:a       :6380                 cron    any    legacy
//                           ──────────────────────             ───────────────────────
//      together:            0 closed     1 unix:a  2 :6380     0 retired  1 cron  2 any  3 legacy
//
// Targets, users, listeners and rules are known by number to sessions, connections and threads that go
// on. What is the same keeps its number, what is new gets the next one, what is gone keeps its place
// without being used, and gets it back if it comes back. What "the same" is:
//
//      target     name, address, server name, TLS or not     (the rest is replaced: certificates, times)
//      user       name, user name, target                    (its credential's source is replaced)
//      listener   endpoint
//      rule       listener with its mode and accept_any_login, user, conditions, login's name
//                                                    (who is in a group, passwords, how many)
//
// Invariant: whoever reads a number that was given out finds there what it was given out for.

package import Identity
import Synchronization
package import Transport

extension ServerConfiguration {
    /// This configuration followed by `next`, and for each user of `next` its number in the result.
    ///
    /// The number of worker threads stays as it is.
    package func succeeded(
        by next: ServerConfiguration
    ) -> (configuration: ServerConfiguration, users: [UserIndex]) {
        var result = self
        result.limits = next.limits
        result.gathers = next.gathers
        result.maximumSessions = next.maximumSessions
        result.maximumSessionsBeforeLogin = next.maximumSessionsBeforeLogin

        var targetNumbers: [Int] = []
        for target in next.targets {
            targetNumbers.append(
                result.targets.place(target, taken: targetNumbers) { $0.isSame(as: target) })
        }
        var userNumbers: [Int] = []
        for var user in next.users {
            user.target = targetNumbers[user.target]
            userNumbers.append(
                result.users.place(user, taken: userNumbers) {
                    ($0.name, $0.userName, $0.target) == (user.name, user.userName, user.target)
                })
        }
        var listenerNumbers: [Int] = []
        for var listener in next.listeners {
            listener.rules = listener.rules.map { rule in
                var rule = rule
                rule.user = UserIndex(userNumbers[rule.user.rawValue])
                return rule
            }
            listenerNumbers.append(
                result.listeners.place(listener, taken: listenerNumbers) {
                    $0.endpoint == listener.endpoint
                })
        }
        for index in result.listeners.indices where !listenerNumbers.contains(index) {
            // Nobody comes in there.
            result.listeners[index].rules = []
        }
        result.number(after: routes)
        return (result, userNumbers.map { UserIndex($0) })
    }

    /// Gives the rules of all listeners their numbers, those of `old` where they were there before.
    mutating func number(after old: [NumberedRule]) {
        routes = old
        for index in routes.indices { routes[index].isRetired = true }
        var taken: [Int] = []
        routesOfListener = listeners.enumerated().map { index, listener in
            listener.rules.map { rule in
                let wanted = NumberedRule(
                    listener: index, rule: rule, isDedicated: listener.isDedicated,
                    acceptsAnyLogin: listener.acceptsAnyLogin)
                let number = routes.place(wanted, taken: taken) { $0.isSame(as: wanted) }
                taken.append(number)
                return number
            }
        }
    }

    /// Whether clients may come in through a listener: it has a rule.
    package func isOpen(listener: Int) -> Bool { !listeners[listener].rules.isEmpty }
}

extension Array {
    /// Puts `element` in the place of the first that is the same and not `taken`, or at the end.
    fileprivate mutating func place(
        _ element: Element, taken: [Int], isSame: (Element) -> Bool
    ) -> Int {
        let found = indices.first { !taken.contains($0) && isSame(self[$0]) }
        if let found {
            self[found] = element
            return found
        }
        append(element)
        return count - 1
    }
}

extension UpstreamTarget {
    fileprivate func isSame(as other: UpstreamTarget) -> Bool {
        name == other.name && host == other.host && port == other.port
            && serverName == other.serverName && (tls == nil) == (other.tls == nil)
    }
}

extension NumberedRule {
    fileprivate func isSame(as other: NumberedRule) -> Bool {
        listener == other.listener && isDedicated == other.isDedicated
            && acceptsAnyLogin == other.acceptsAnyLogin
            && rule.user == other.rule.user && rule.login?.name == other.rule.login?.name
            && rule.conditions.count == other.rule.conditions.count
            && zip(rule.conditions, other.rule.conditions).allSatisfy { $0.isSame(as: $1) }
    }
}

extension IdentityRule.Condition {
    /// But for who is in a group.
    fileprivate func isSame(as other: IdentityRule.Condition) -> Bool {
        switch (self, other) {
        case (.group(let one, _), .group(let two, _)): one == two
        default: self == other
        }
    }
}

/// What a client is, as far as the rules decide it.
package struct Standing {
    package var listener: Int
    /// What was found out about it, with its groups where they can be asked for.
    package var client: Client
    /// Whether the kernel was asked whose it is, where it can be.
    package var wasAsked: Bool
    /// The number of the rule that it is; nil: it has not logged in.
    package var route: Int?
    /// What it came in as.
    package var firstRoute: Int?
    /// The rules that a login can make it.
    package var logins: [Int]

    package init(
        listener: Int, client: Client, wasAsked: Bool, route: Int?, firstRoute: Int?,
        logins: [Int] = []
    ) {
        self.listener = listener
        self.client = client
        self.wasAsked = wasAsked
        self.route = route
        self.firstRoute = firstRoute
        self.logins = logins
    }
}

extension ServerConfiguration {
    /// What becomes of a client that was let in by an earlier configuration with these numbers.
    ///
    /// Whose a TCP connection is, is asked when it comes and not again. Where the rules did not want
    /// to know it then and do now, in a way that could make the client somebody else, it is not known
    /// to be what it is, and has to come again.
    /// - Returns: the rules that a login can make it from now on; nil: it may no longer be what it is.
    package func reviewed(_ standing: Standing) -> [Int]? {
        let numbers = routesOfListener[standing.listener]
        if !standing.wasAsked {
            let user = (standing.route ?? standing.firstRoute).map { routes[$0].rule.user }
            let isInDoubt = listeners[standing.listener].rules.contains {
                $0.needsAccount && $0.user != user
            }
            if isInDoubt { return nil }
        }
        var admittedAs: Int?
        let logins: [Int]
        switch listeners[standing.listener].rules.admission(of: standing.client) {
        case .admitted(let rule, let candidates):
            admittedAs = numbers[rule]
            logins = candidates.map { numbers[$0] }
        case .mustLogIn(let candidates):
            logins = candidates.map { numbers[$0] }
        case .refused:
            return nil
        }
        // The same user by another rule is the same.
        if let first = standing.firstRoute {
            guard let admittedAs, routes[admittedAs].rule.user == routes[first].rule.user else {
                return nil
            }
        } else if admittedAs != nil && standing.route == nil {
            // It waits to be let log in, and need not: let it come again.
            return nil
        }
        let remaining = standing.logins.filter(logins.contains)
        if let route = standing.route, route != standing.firstRoute {
            // It has logged in, which must still lead to the same.
            let login = routes[route].rule.login?.name
            let isThere = logins.contains {
                routes[$0].rule.login?.name == login
                    && routes[$0].rule.user == routes[route].rule.user
            }
            guard isThere else { return nil }
        } else if standing.route == nil && remaining.isEmpty {
            return nil
        }
        return remaining
    }
}

/// A configuration that is to follow the one in use, with everything that could have failed done.
/// Made by `Server.prepare`; without `Server.follow` it leaves nothing behind.
package struct Succession: @unchecked Sendable {
    // Unchecked for `identification`, which is used by whoever made it until the acceptor has it, and
    // by the acceptor alone from then on.

    package let configuration: ServerConfiguration
    /// For each user of the configuration as it was given, its number in the server.
    package let users: [UserIndex]
    /// Numbers of the listeners that are new.
    let openedListeners: [Int]
    /// The same, and what they are bound to.
    package let opened: [(endpoint: Endpoint, addresses: [SocketAddress])]
    /// The endpoints that are no longer listened on.
    package let closed: [Endpoint]
    let sockets: [(ListeningSocket, listener: Int)]
    let identification: Identification
    let counts: SessionCounts
    let verifier: LoginVerifier?
    let maximumSessions: Int
    /// Set by the acceptor once the listeners that are gone are closed.
    let isInForce = Flag()

    final class Flag: Sendable {
        private let value = Atomic(false)

        var isSet: Bool { value.load(ordering: .acquiring) }

        func set() { value.store(true, ordering: .releasing) }
    }
}
