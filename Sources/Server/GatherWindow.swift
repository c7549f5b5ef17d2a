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
// in a hurry for many. Lately means while a reply takes: a client that asks for much at once waits
// long for it and sends seldom, and fifty of those are many as well. A worker that is busy for longer
// than the window never waits.
//
// How long is a matter of what clients wait anyway. Where a reply takes milliseconds, because each
// client asks for much at once or because there are a thousand of them, something else is full: the
// server, the network or the clients. A window of a sixth of that adds a sixth at the most, and
// nothing where the server or the clients are what is full. Where replies are quick it stays short.

/// Decides, from the clients and the replies of late, whether turns are held apart, and how far.
package struct GatherWindow {
    /// How long a turn waits for company at the least, in nanoseconds.
    package static let shortest: UInt64 = 100_000
    /// The same at the most: whoever waits for it waits for a reply more than ten milliseconds anyway.
    package static let longest: UInt64 = 2_000_000
    /// A window is this part of the time that a reply takes, between the two.
    package static let share: UInt64 = 6
    /// Over which time clients are counted at the least, in nanoseconds: a few round trips of a busy
    /// client. Where replies take longer, it is as long as one of them takes.
    package static let period: UInt64 = 2_000_000
    /// So many different clients in a period are many.
    package static let manyClients: UInt64 = 16

    /// By how much turns are held apart, in nanoseconds; 0: not at all.
    package private(set) var length: UInt64 = 0
    /// How long replies take, in nanoseconds: an average in which each counts for a sixteenth.
    private var delay: UInt64 = 0
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

    /// Replies have come, of which the first took so long. One sample for each receipt is enough.
    ///
    /// - Parameter sample: nanoseconds; longer ones than could matter count as just that.
    @inline(__always)
    package mutating func note(delay sample: UInt64) {
        let bounded = min(sample, 2 &* Self.share &* Self.longest)
        delay = delay &- delay / 16 &+ bounded / 16
    }

    /// At the end of each turn. Whether `length` has changed.
    ///
    /// - Parameter now: nanoseconds of a clock that never goes back.
    @inline(__always)
    package mutating func endTurn(at now: UInt64) -> Bool {
        let elapsed = now &- periodStart
        let period = max(Self.period, delay)
        if elapsed < period { return false }
        // A turn may be longer than a period, and a sleep much longer.
        let many = clients &* period >= elapsed &* Self.manyClients
        periodStart = now
        // Never 0, which is nobody's period.
        number = number == .max ? 1 : number + 1
        clients = 0
        let wanted = many ? min(max(delay / Self.share, Self.shortest), Self.longest) : 0
        // Not for less than an eighth of it: an average is never quite still.
        let change = wanted > length ? wanted - length : length - wanted
        if change <= length / 8 { return false }
        length = wanted
        return true
    }
}
