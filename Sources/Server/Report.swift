// What the data plane is doing, asked for from outside: a question to each worker through its mailbox
// (Inquiry.swift), and the answers as one value.
//
//     any thread ── report() ──► [worker 0] [worker 1] …      each answers in its next turn
//                       ▲             │          │
//                       └── answers ──┴──────────┘            a worker that does not in time is named,
//                                                             and what it said before is used
//
// Workers share nothing: each makes its answer from what only it touches, and lets go of it. What it
// costs is a walk over the worker's sessions and connections, so do not ask in a loop.

package import Identity
package import Proxy
import Synchronization
package import Transport

/// What one worker says of itself.
package struct WorkerReport: Sendable {
    package let worker: Int
    /// Nanoseconds of CLOCK_MONOTONIC.
    package internal(set) var takenAt: UInt64
    /// How long the question lay in the mailbox, in nanoseconds: how long the loop takes to turn to
    /// what comes in.
    package internal(set) var lag: UInt64
    package internal(set) var tally: Tally
    package internal(set) var figures: Figures
    package internal(set) var waiting: WaitingSessions
    package internal(set) var upstreams: [UpstreamStatus]
    /// Of clients, as many as were asked for.
    package internal(set) var sessions: [SessionReport]
    package internal(set) var sessionCount: Int
    package internal(set) var pinnedCount: Int
    package internal(set) var awaitingLoginCount: Int
    /// Bytes of replies that the client has not taken which has taken least.
    package internal(set) var fullestClient: Int
    package internal(set) var isDraining: Bool
}

/// What one client is and does.
package struct SessionReport: Sendable {
    package var worker: Int
    package var status: SessionStatus
    /// Its number in the configuration.
    package var listener: Int
    package var client: Client
    /// Bytes from the client.
    package var received: UInt64
    /// Bytes to the client.
    package var sent: UInt64
    /// Nanoseconds of CLOCK_MONOTONIC.
    package var openedAt: UInt64
}

/// What is known of one user's credential, without the credential.
package struct CredentialReport: Sendable {
    /// Of the newest snapshot.
    package var version: UInt64 = 0
    /// There is something to log in with.
    package var isThere = false
    package var isToken = false
    /// The last moment at which it may be sent, in nanoseconds of CLOCK_MONOTONIC; nil: it does not
    /// expire.
    package var usableUntil: UInt64?
    /// Where it comes from, beyond what the configuration says.
    package var origin: String?
    /// Why the newest fetch brought nothing.
    package var failure: String?
    /// When it was last fetched with success, in nanoseconds of CLOCK_MONOTONIC.
    package var fetchedAt: UInt64?

    package init() {}

    init(_ snapshot: CredentialSnapshot, after earlier: CredentialReport?, at now: UInt64) {
        version = snapshot.version
        failure = snapshot.failure
        fetchedAt = snapshot.failure == nil ? now : earlier?.fetchedAt
        guard let credential = snapshot.credential else { return }
        isThere = true
        if case .iamToken = credential.kind { isToken = true }
        usableUntil = credential.usableUntil
        origin = credential.origin
    }
}

/// The data plane at one moment, or at moments that are close to each other: one for each worker.
package struct ServerReport: Sendable {
    /// Nanoseconds of CLOCK_MONOTONIC.
    package var takenAt: UInt64
    /// Numbers in all that follows are places in it.
    package var configuration: ServerConfiguration
    /// What each listener is bound to, by its number; empty for one that is closed.
    package var addresses: [[SocketAddress]]
    /// By number; without those that have never answered.
    package var workers: [WorkerReport]
    /// Numbers of the workers that did not answer in time. What is in `workers` of them is older.
    package var late: [Int]
    /// By user.
    package var credentials: [CredentialReport]
    /// Clients that were not let in, by the reason.
    package var refused: RefusedClients
    package var isDraining: Bool
    package var limits: Limits
    /// Clients at the same time, in all workers: the configuration's, or what descriptors suffice for.
    package var maximumSessions: Int
}

/// Clients that were not let in, since the start.
package struct RefusedClients: Sendable {
    /// No identity rule held for them.
    package var noRule = 0
    /// `max_sessions` were connected.
    package var full = 0
    /// `max_sessions` of their rule were connected.
    package var ruleFull = 0
    /// `max_sessions_before_login` were connected.
    package var beforeLoginFull = 0
}

/// How many sessions each worker lists; 0: none.
struct ReportQuestion: Sendable {
    let sessionLimit: Int
    /// Where each answer is kept, also one that comes too late.
    let archive: ReportArchive
}

/// The last answer of each worker.
final class ReportArchive: Sendable {
    private let last: Mutex<[WorkerReport?]>

    init(workers: Int) { last = Mutex(Array(repeating: nil, count: workers)) }

    func keep(_ report: WorkerReport) {
        last.withLock { last in
            if let older = last[report.worker], older.takenAt > report.takenAt { return }
            last[report.worker] = report
            // They are of the past at once.
            last[report.worker]?.sessions = []
        }
    }

    func last(of worker: Int) -> WorkerReport? { last.withLock { $0[worker] } }
}
