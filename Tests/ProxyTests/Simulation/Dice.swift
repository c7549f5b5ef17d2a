// All chance in a simulation comes from one generator, so that a seed is the whole run.

import Proxy

/// Decisions by chance, repeatable from a seed.
struct Dice {
    private var source: RandomSource

    init(seed: UInt64) {
        source = RandomSource(seed: seed)
    }

    mutating func next() -> UInt64 { source.next() }

    /// 0..<sides.
    mutating func roll(_ sides: Int) -> Int {
        Int(truncatingIfNeeded: (source.next() >> 32) % UInt64(max(1, sides)))
    }

    /// True `times` out of `outOf`.
    mutating func chance(_ times: Int, in outOf: Int) -> Bool { roll(outOf) < times }

    /// 1...limit: half of the time all of it, else anything with small figures preferred, so that
    /// single bytes are common whatever the limit is.
    mutating func part(of limit: Int) -> Int {
        guard limit > 1 else { return limit }
        if chance(1, in: 2) { return limit }
        if chance(1, in: 3) { return 1 }
        return 1 + roll(min(limit, 1 << (1 + roll(16))))
    }

    mutating func pick<Element>(_ elements: [Element]) -> Element { elements[roll(elements.count)] }
}
