// A question to a proxy that runs, as `wait` asks it again and again.

import Configuration

/// What is asked for.
enum ProbeQuestion {
    /// Whether clients would be served.
    case ready
    /// Whether the proxy answers, with or without its server.
    case live
}

/// What was got.
enum ProbeAnswer: Equatable {
    /// Of a peer's words so much is passed on, in characters.
    static let longestText = 2_000

    case wanted
    /// Something else, which holds no secret.
    case other(String)
    /// A connection, and nothing on it before the deadline.
    case nothing
}

/// Asks in one way at one place.
protocol Probe {
    var address: ListenerAddress { get }
    /// In words for the operator: "wanted …".
    var wanted: String { get }

    func ask(until deadline: Deadline) -> ProbeAnswer
}
