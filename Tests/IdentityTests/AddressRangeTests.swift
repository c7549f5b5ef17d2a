import Identity
import Testing

@Suite struct `A range of addresses` {
    @Test(arguments: [
        ("10.0.0.0/8", "10.255.255.255", true),
        ("10.0.0.0/8", "11.0.0.0", false),
        ("10.0.0.0/8", "::ffff:10.1.2.3", true),
        ("0.0.0.0/0", "203.0.113.9", true),
        ("0.0.0.0/0", "::1", false),
        ("::/0", "::1", true),
        ("::/0", "127.0.0.1", false),
        ("127.0.0.1", "127.0.0.1", true),
        ("127.0.0.1/32", "127.0.0.2", false),
        ("::ffff:10.0.0.0/104", "10.9.9.9", true),
        ("2001:db8::/32", "2001:db8:ffff::1", true),
        ("2001:db8::/32", "2001:db9::", false),
        ("2001:db8:0:1::/65", "2001:db8:0:1:7fff::", true),
        ("2001:db8:0:1::/65", "2001:db8:0:1:8000::", false),
    ])
    func `holds what begins with its bits`(range: String, address: String, isIn: Bool) throws {
        let address = try #require(IPAddress(address))
        #expect(try AddressRange(range).contains(address) == isIn)
    }

    @Test(arguments: [
        "10.0.0.0/8", "127.0.0.1/32", "0.0.0.0/0", "2001:db8::/32", "::1/128", "::/0",
    ])
    func `prints as it is read`(text: String) throws {
        #expect(try AddressRange(text).description == text)
    }

    @Test(arguments: [
        "", "/8", "10.0.0.0/", "10.0.0.0/33", "10.0.0.0/8/8", "::1/129", "10.0.0/8", "fe80::1%lo",
        "[::1]", "10.0.0.0/+8", "10.0.0.0/-1", "localhost", "10.0.0.0\0/8",
        "::/9999999999999999999",
    ])
    func `is not every text`(text: String) {
        #expect(throws: AddressRange.Mistake.self) { try AddressRange(text) }
    }

    @Test func `with bits behind its prefix is refused with what was meant`() throws {
        let meant = try AddressRange("10.0.0.0/8")
        #expect(throws: AddressRange.Mistake.notTheFirst(meant)) { try AddressRange("10.1.2.3/8") }
    }

    @Test func `agrees with counting bits one by one`() throws {
        let seed = UInt64.random(in: .min ... .max)
        print("AddressRange agrees with counting bits: seed \(seed)")
        var random = Seeded(state: seed)
        for _ in 0..<10_000 {
            let one = IPAddress(high: random.next(), low: random.next())
            let bits = Int(random.next() % 129)
            let flip = Int(random.next() % 128)
            let other =
                flip < 64
                ? IPAddress(high: one.high ^ (1 << UInt64(63 - flip)), low: one.low)
                : IPAddress(high: one.high, low: one.low ^ (1 << UInt64(127 - flip)))
            let range = try AddressRange("\(one.prefix(bits))/\(bits)")
            #expect(range.contains(one))
            #expect(range.contains(other) == (flip >= bits), "\(range) \(other)")
        }
    }
}

/// SplitMix64.
private struct Seeded: RandomNumberGenerator {
    var state: UInt64

    mutating func next() -> UInt64 {
        state &+= 0x9e37_79b9_7f4a_7c15
        var z = state
        z = (z ^ z >> 30) &* 0xbf58_476d_1ce4_e5b9
        z = (z ^ z >> 27) &* 0x94d0_49bb_1331_11eb
        return z ^ z >> 31
    }
}
