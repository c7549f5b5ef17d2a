// Jitter has to be random in production and repeatable in a simulation, so it comes from a seed.
//
// Source of the constants: Steele, Lea, Flood, "Fast Splittable Pseudorandom Number Generators".

/// SplitMix64: a small deterministic generator. Not for secrets.
package struct RandomSource: RandomNumberGenerator, Sendable {
    private var state: UInt64

    package init(seed: UInt64) {
        state = seed
    }

    package mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ (z &>> 30)) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ (z &>> 27)) &* 0x94d0_49bb_1331_11eb
        return z ^ (z &>> 31)
    }
}
