// Whether all loops of the data plane still turn: a message that each answers when it comes to it.
//
//     Server.feelPulse() ── Pulse ──► each mailbox ──► each loop: one answer less to wait for
//
// A loop that hangs answers nothing, however much its thread may be doing; a mailbox that is closed has
// no loop any more that could hang.

import Synchronization

/// A question to every loop. Usable from any thread.
package final class Pulse: Sendable {
    private let missing: Atomic<Int>

    init(of loops: Int) { missing = Atomic(loops) }

    /// Called once by, or in place of, each loop.
    func answer() { missing.subtract(1, ordering: .relaxed) }

    /// Whether every loop has answered.
    package var isComplete: Bool { missing.load(ordering: .relaxed) <= 0 }
}
