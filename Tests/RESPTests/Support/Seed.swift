// Randomness that can be run again: every property test prints its seed and takes it from
// RESP_TEST_SEED if that is set.

import Foundation

/// SplitMix64.
struct SeededGenerator: RandomNumberGenerator {
    private var state: UInt64

    init(seed: UInt64) { state = seed }

    mutating func next() -> UInt64 {
        state &+= 0x9E37_79B9_7F4A_7C15
        var mixed = state
        mixed = (mixed ^ (mixed >> 30)) &* 0xBF58_476D_1CE4_E5B9
        mixed = (mixed ^ (mixed >> 27)) &* 0x94D0_49BB_1331_11EB
        return mixed ^ (mixed >> 31)
    }

    /// True once in `odds` times.
    mutating func oneIn(_ odds: Int) -> Bool { Int.random(in: 0..<odds, using: &self) == 0 }

    /// A number from 0 to `bound`, the small ones more often.
    mutating func small(upTo bound: Int) -> Int {
        Int.random(in: 0...max(0, Int.random(in: 0...bound, using: &self)), using: &self)
    }

    mutating func byte() -> UInt8 { UInt8.random(in: 0...255, using: &self) }
}

/// The seed of this run, printed with the name of the test that uses it.
func testSeed(_ name: String = #function) -> UInt64 {
    let given = ProcessInfo.processInfo.environment["RESP_TEST_SEED"].flatMap { UInt64($0) }
    let seed = given ?? UInt64.random(in: 0 ... .max)
    print("\(name): RESP_TEST_SEED=\(seed)")
    return seed
}
