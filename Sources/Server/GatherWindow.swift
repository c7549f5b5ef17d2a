// When turns of the loop are held apart, so that one turn serves many clients.
//
//     alone    ─●──────●─────●─────────●────●──────     each event a wake-up, a record, a send
//     gather   ───────●●●────────────●●●●──────────     one for all that came within the window
//
// Most of what a command costs is the kernel's: waking up, waking the server up, one send. A worker
// that is faster than its server and its clients pays that for each event anew, because it sleeps
// between any two. Waiting a little lets them come together, which also saves the server the work
// of receiving one record at a time; what that wins in latency is, under load, more than the window.
//
// For few clients it can only lose: all that could come has come. So it is done only while many
// different clients have been sending lately. Counting commands instead would mistake four clients
// in a hurry for many. A worker that is busy for longer than the window never waits.

/// Decides, from the clients that were heard of lately, whether turns are held apart.
package struct GatherWindow {
    /// How long a turn waits for company, in nanoseconds.
    package static let window: UInt64 = 100_000
    /// Over which time clients are counted, in nanoseconds: a few round trips of a busy client.
    package static let period: UInt64 = 2_000_000
    /// So many different clients in a period are many.
    package static let manyClients: UInt64 = 16

    /// Whether turns are held apart.
    package private(set) var isOpen = false
    private var periodStart: UInt64 = 0
    private var number: UInt32
    private var clients: UInt64 = 0

    /// - Parameter number: of the first period; for tests of what happens after the last one.
    package init(number: UInt32 = 1) { self.number = number }

    /// A client has sent something.
    ///
    /// - Parameter seen: the client's own; the period in which it was last heard of, 0 at first.
    @inline(__always)
    package mutating func note(_ seen: inout UInt32) {
        if seen != number {
            seen = number
            clients &+= 1
        }
    }

    /// At the end of each turn. Whether `isOpen` has changed.
    ///
    /// - Parameter now: nanoseconds of a clock that never goes back.
    @inline(__always)
    package mutating func endTurn(at now: UInt64) -> Bool {
        let elapsed = now &- periodStart
        if elapsed < Self.period { return false }
        // A turn may be longer than a period, and a sleep much longer.
        let many = clients &* Self.period >= elapsed &* Self.manyClients
        periodStart = now
        // Never 0, which is nobody's period.
        number = number == .max ? 1 : number + 1
        clients = 0
        if many == isOpen { return false }
        isOpen = many
        return true
    }
}
