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
        #expect(!turns.window.isOpen)
        let hasOpened = turns.turn(0..<20, after: milliseconds)
        #expect(hasOpened && turns.window.isOpen)
        let hasChanged = turns.turn(0..<20, after: 2 * milliseconds)
        #expect(!hasChanged && turns.window.isOpen)
        let hasClosed = turns.turn(0..<2, after: 2 * milliseconds)
        #expect(hasClosed && !turns.window.isOpen)
    }

    @Test(arguments: [1, 4, 15]) func `stays shut for few clients, however much they send`(
        clients: Int
    ) {
        var turns = Turns()
        for _ in 0..<1_000 {
            turns.turn(0..<clients, after: 20_000)
            #expect(!turns.window.isOpen)
        }
    }

    @Test func `stays shut for many clients that send seldom`() {
        var turns = Turns()
        // Fifty clients, one command of one of them every millisecond.
        for round in 0..<1_000 {
            turns.turn(round % 50..<round % 50 + 1, after: milliseconds)
            #expect(!turns.window.isOpen)
        }
    }

    @Test func `is shut for the first client after a silence`() {
        var turns = Turns()
        turns.turn(0..<50, after: 2 * milliseconds)
        #expect(turns.window.isOpen)
        turns.turn(0..<1, after: 500 * milliseconds)
        #expect(!turns.window.isOpen)
    }

    @Test func `counts a client once in a period that spans many turns`() {
        var turns = Turns()
        for _ in 0..<20 { turns.turn(0..<10, after: milliseconds / 10) }
        #expect(!turns.window.isOpen)
        for first in 0..<20 { turns.turn(first..<first + 1, after: milliseconds / 10) }
        #expect(turns.window.isOpen)
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
