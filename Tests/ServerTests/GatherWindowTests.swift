import Server
import Testing

private let milliseconds: UInt64 = 1_000_000

/// A worker's turns: in each, these clients are heard of.
private struct Turns {
    var window = GatherWindow()
    var now: UInt64 = 1_000 * milliseconds
    var seen = [UInt32](repeating: 0, count: 64)

    init() { _ = window.endTurn(at: now) }

    /// - Returns: whether the window changed.
    @discardableResult
    mutating func turn(_ clients: Range<Int>, after nanoseconds: UInt64) -> Bool {
        now += nanoseconds
        for client in clients { window.note(&seen[client]) }
        return window.endTurn(at: now)
    }
}

@Suite struct `The gather window` {
    @Test func `opens while many different clients send, and closes when they stop`() {
        var turns = Turns()
        turns.turn(0..<20, after: milliseconds)
        #expect(turns.window.length == 0)
        let hasOpened = turns.turn(0..<20, after: milliseconds)
        #expect(hasOpened && turns.window.length > 0)
        let hasChanged = turns.turn(0..<20, after: 2 * milliseconds)
        #expect(!hasChanged && turns.window.length > 0)
        let hasClosed = turns.turn(0..<2, after: 2 * milliseconds)
        #expect(hasClosed && turns.window.length == 0)
    }

    @Test(arguments: [1, 4, 15]) func `stays shut for few clients, however much they send`(
        clients: Int
    ) {
        var turns = Turns()
        for _ in 0..<1_000 {
            turns.turn(0..<clients, after: 20_000)
            #expect(turns.window.length == 0)
        }
    }

    @Test func `stays shut for many clients that send seldom`() {
        var turns = Turns()
        // Fifty clients, one command of one of them every millisecond.
        for round in 0..<1_000 {
            turns.turn(round % 50..<round % 50 + 1, after: milliseconds)
            #expect(turns.window.length == 0)
        }
    }

    @Test func `is shut for the first client after a silence`() {
        var turns = Turns()
        turns.turn(0..<50, after: 2 * milliseconds)
        #expect(turns.window.length > 0)
        turns.turn(0..<1, after: 500 * milliseconds)
        #expect(turns.window.length == 0)
    }

    @Test func `counts a client once in a period that spans many turns`() {
        var turns = Turns()
        for _ in 0..<20 { turns.turn(0..<10, after: milliseconds / 10) }
        #expect(turns.window.length == 0)
        for first in 0..<20 { turns.turn(first..<first + 1, after: milliseconds / 10) }
        #expect(turns.window.length > 0)
    }

    // As long as replies are quick it is as short as it can be.
    @Test(
        arguments: zip(
            [0, 360_000, 1_800_000, 50_000_000, UInt64.max],
            [
                GatherWindow.shortest, GatherWindow.shortest, 300_000, GatherWindow.longest,
                GatherWindow.longest,
            ]))
    func `is a sixth of the time that a reply takes, within its bounds`(
        delay: UInt64, length: UInt64
    ) {
        var turns = Turns()
        for _ in 0..<200 {
            turns.window.note(delay: delay)
            turns.turn(0..<20, after: milliseconds)
        }
        // An average of whole nanoseconds, and nothing is changed for less than an eighth.
        #expect(turns.window.length.distance(to: length).magnitude <= length / 8)
        #expect(turns.window.length >= GatherWindow.shortest)
        #expect(turns.window.length <= GatherWindow.longest)
    }

    @Test func `stays shut for few clients, however long replies take`() {
        var turns = Turns()
        for _ in 0..<200 {
            turns.window.note(delay: 50 * milliseconds)
            turns.turn(0..<4, after: milliseconds)
            #expect(turns.window.length == 0)
        }
    }

    @Test func `opens for many clients that ask for much at once and wait long for it`() {
        var turns = Turns()
        // Three of them every millisecond: six in two milliseconds would be few.
        for round in 0..<200 {
            turns.window.note(delay: 12 * milliseconds)
            turns.turn(round * 3 % 48..<round * 3 % 48 + 3, after: milliseconds)
        }
        #expect(turns.window.length >= GatherWindow.longest * 7 / 8)
    }

    @Test func `becomes short again when replies are quick again`() {
        var turns = Turns()
        for delay in [5 * milliseconds, milliseconds / 10] {
            for _ in 0..<200 {
                turns.window.note(delay: delay)
                turns.turn(0..<20, after: milliseconds)
            }
        }
        #expect(turns.window.length <= GatherWindow.shortest * 9 / 8)
    }

    @Test func `survives the wrap of its period's number`() {
        var window = GatherWindow(number: .max)
        var seen: UInt32 = .max
        window.note(&seen)
        _ = window.endTurn(at: 10 * milliseconds)
        // A client that was never heard of has 0, and counts.
        var fresh = [UInt32](repeating: 0, count: 16)
        for client in fresh.indices { window.note(&fresh[client]) }
        let hasOpened = window.endTurn(at: 12 * milliseconds)
        #expect(hasOpened)
    }
}
