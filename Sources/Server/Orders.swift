// What an operator wants of the data plane while it runs: each worker is told through its mailbox, does
// it in its next turn, and says what came of it (Inquiry.swift).
//
//     any thread ── carryOut(order) ──► [worker 0] [worker 1] …
//                        ▲                   │          │
//                        └────── answers ────┴──────────┘

package import Identity
package import Proxy

/// See the head of this file.
package struct Order: Sendable {
    package enum Kind: Sendable {
        /// Holds commands back, see Router+Pause.swift.
        case pause
        /// Lets them go, on new connections.
        case resume
        /// Replaces connections, see Router+Replacement.swift.
        case reconnect
        /// Has connections log in anew, with a credential that is fetched anew.
        case renew
        /// Ends one client.
        case kill(worker: Int, session: UInt64)
        /// Changes nothing.
        case look
    }

    package let kind: Kind
    /// Whose commands and connections are meant; nil: everybody's, and those of users to come.
    package let users: [UserIndex]?

    package init(_ kind: Kind, users: [UserIndex]? = nil) {
        self.kind = kind
        self.users = users
    }

    /// Those that the router of a worker is told one by one; nil stands for all of them.
    func users(in count: Int) -> [UserIndex?] {
        users.map { $0.filter { $0.rawValue < count } } ?? [nil]
    }
}

/// What came of an order, in one worker or in all.
package struct OrderAnswer: Sendable {
    /// What a pause of these users would wait for.
    package var unfinished = Unfinished()
    /// By user, whoever the order was about.
    package var isPaused: [Bool] = []
    /// There was a session to be ended.
    package var found = false
    /// Workers that did not answer in time: they will do it when they come to it.
    package var late = 0

    package init() {}

    static func + (left: OrderAnswer, right: OrderAnswer) -> OrderAnswer {
        var sum = left
        sum.unfinished = left.unfinished + right.unfinished
        if right.isPaused.count > left.isPaused.count { sum.isPaused = right.isPaused }
        sum.found = left.found || right.found
        return sum
    }
}

extension Server {
    /// Has all workers do something, and waits until they have. Not from a thread of the server's.
    ///
    /// - Parameter patience: how long a worker may take.
    package func carryOut(
        _ order: Order, patience: Duration = .milliseconds(500)
    ) -> OrderAnswer {
        let outcome = ask(order, WorkerMessage.order, patience)
        var answer = outcome.answers.compactMap(\.self).reduce(OrderAnswer(), +)
        answer.late = outcome.late.count
        return answer
    }

    /// Names of the users whose commands are held back. Not from a thread of the server's.
    var pausedUsers: [String] {
        let isPaused = carryOut(Order(.look)).isPaused
        return zip(configuration.users, isPaused).filter(\.1).map(\.0.name)
    }
}
