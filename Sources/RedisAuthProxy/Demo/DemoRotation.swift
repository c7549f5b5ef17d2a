// Passwords that change while everybody works.
//
//   every interval, for each user:  new password valid upstream ─► file rewritten ─► old one invalid
//                                                                  └── overlap ────┘
// The overlap is what real rotations have too (Secrets Manager's AWSPENDING, ElastiCache's two
// passwords): a login that began with the old password must not fail.

import Glibc
import Synchronization
import Transport

/// Changes the demo's passwords on a thread of its own until it is stopped.
final class DemoRotation: Sendable {
    private struct State {
        var isStopping = false
        var thread: Thread?
    }

    private let state = Mutex(State())
    private let interval: Duration
    private let runFor: Duration?

    /// - Parameter runFor: after this time the process is sent SIGTERM, as `kill` would do.
    init(every interval: Duration, runFor: Duration?) {
        self.interval = interval
        self.runFor = runFor
    }

    /// `server` must not be used by anybody else until `stop` has returned.
    func start(_ server: DemoServer) throws {
        // The server is handed over whole: this thread uses it alone, until stop has joined it.
        nonisolated(unsafe) let server = server
        let thread = try Thread.start(name: "rotation") { [self] in run(server) }
        state.withLock { $0.thread = thread }
    }

    func stop() {
        let thread = state.withLock { state in
            state.isStopping = true
            defer { state.thread = nil }
            return state.thread
        }
        thread?.join()
    }

    private func run(_ server: DemoServer) {
        let start = ContinuousClock.now
        let end = runFor.map { start + $0 }
        var nextRotation = start + interval
        var replaced: [(user: String, password: DemoPassword)] = []
        var retirement: ContinuousClock.Instant?
        var count = 0
        // A coarse tick: nobody minds a rotation a twentieth of a second late, and stop is quick.
        while !state.withLock({ $0.isStopping }) {
            let now = ContinuousClock.now
            if let end, now >= end {
                kill(getpid(), SIGTERM)
                return
            }
            if let due = retirement, now >= due {
                retirement = nil
                attempt {
                    for (user, password) in replaced { try server.retire(password, of: user) }
                    say("rotation \(count): the old passwords are not valid any more")
                }
                replaced = []
            }
            if now >= nextRotation {
                nextRotation = now + interval
                retirement = now + interval / 4
                count += 1
                attempt {
                    for user in DemoServer.users {
                        if let old = try server.rotate(user.name) {
                            replaced.append((user.name, old))
                        }
                    }
                    let names = DemoServer.users.map(\.name).joined(separator: ", ")
                    say("rotation \(count): new passwords for \(names)")
                }
            }
            usleep(50_000)
        }
    }

    private func attempt(_ body: () throws -> Void) {
        do {
            try body()
        } catch {
            complain("rotation failed: \(error)")
        }
    }
}
