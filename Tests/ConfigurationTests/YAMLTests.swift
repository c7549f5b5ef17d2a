// YAML that is broken, clever or hostile.

import Configuration
import Testing

@Suite struct YAMLTests {
    /// Everything that is said about a text that is refused; nothing is said if it is accepted.
    private func refusal(_ text: [UInt8]) -> [Diagnostic] {
        do throws(InvalidConfiguration) {
            _ = try Settings.load(yaml: text, named: "c.yaml")
            return []
        } catch {
            return error.diagnostics
        }
    }

    @Test(arguments: [
        ("threads: 1\n  max_pinned: 2\n", 2, 13),
        ("threads: [1, 2\n", 2, 1),
        ("threads: \"1\nx: 2", 2, 5),
        ("a: b: c\n", 1, 5),
        ("threads: 1\n\tmax_pinned: 2\n", 2, 1),
        ("threads: @1\n", 1, 10),
    ])
    func `a syntax error has its place`(text: String, line: Int, column: Int) {
        let diagnostics = refusal(Array(text.utf8))
        #expect(diagnostics.map(\.position) == [.file("c.yaml", line: line, column: column)])
        #expect(diagnostics[0].message.hasPrefix("wanted YAML, got a text that is none: "))
    }

    @Test func `bytes that are no UTF-8 have their place`() {
        let diagnostics = refusal(Array("threads: 1\n# \u{e9}\nx: ".utf8) + [0xff, 0x0a])
        #expect(diagnostics.map(\.position) == [.file("c.yaml", line: 3, column: 4)])
    }

    @Test func `control characters are refused`() {
        for byte: UInt8 in [0x00, 0x07, 0x1b, 0x7f] {
            let diagnostics = refusal(Array("x: ".utf8) + [byte, 0x0a])
            #expect(diagnostics.count == 1)
        }
    }

    @Test func `a key that is there twice is an error with both places, and reading goes on`() {
        #expect(
            problems("threads: 1\n" + good + "threads: 2\nmax_pinned: x\n") == [
                "c.yaml:13:1: error: wanted each key once, got \"threads\" again (first in line 1):"
                    + " remove one of them",
                "c.yaml:14:13: error: max_pinned: wanted a number from 1 to 1000000, got \"x\":"
                    + " write digits only",
            ])
    }

    @Test func `anchors, aliases, merges and tags are refused where they stand`() {
        let found = problems(
            """
            upstreams:
              a: &tls { address: "h:1" }
              b: *tls
              c:
                <<: *tls
            users: !!map {}
            listeners: []
            """)
        let places = ["2:6", "3:6", "5:9", "6:8"]
        for place in places {
            #expect(found.contains { $0.hasPrefix("c.yaml:\(place): error: wanted ") }, "\(place)")
        }
    }

    @Test func `a second document is refused`() {
        let found = problems(good + "---\n" + good)
        #expect(found.count == 1)
        #expect(found[0].hasPrefix("c.yaml:12:1: error: wanted one YAML document"))
    }

    @Test func `keys are words`() {
        let found = problems(good + "[a, b]: 1\n")
        #expect(found == ["c.yaml:12:1: error: wanted a word as a key, got a list"])
    }

    @Test(arguments: ["[", "{a: ", "- ", "? ", "- ? "])
    func `deep nesting is refused and does not exhaust the stack`(opening: String) {
        let text = String(repeating: opening, count: 100_000)
        let diagnostics = refusal(Array(text.utf8))
        #expect(diagnostics.count == 1)
    }

    @Test func `a bomb of aliases is refused, not expanded`() {
        var text = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
        for level in 1...30 {
            let list = Array(repeating: "*a\(level - 1)", count: 9).joined(separator: ", ")
            text += "a\(level): &a\(level) [\(list)]\n"
        }
        text += "? *a30\n: boom\n"
        #expect(problems(text).count > 100)
    }

    @Test func `a file beyond the limit is refused before it is parsed`() {
        let text = [UInt8](repeating: UInt8(ascii: "#"), count: (1 << 20) + 1)
        let diagnostics = refusal(text)
        #expect(diagnostics.map(\.position) == [.wholeFile("c.yaml")])
    }

    @Test func `no mutation of a configuration can crash the reader`() {
        var seed = UInt64.random(in: .min ... .max)
        let printed = seed
        func random(_ bound: Int) -> Int {
            // SplitMix64
            seed &+= 0x9e37_79b9_7f4a_7c15
            var z = seed
            z = (z ^ (z >> 30)) &* 0xbf58_476d_1ce4_e5b9
            z = (z ^ (z >> 27)) &* 0x94d0_49bb_1331_11eb
            return Int((z ^ (z >> 31)) % UInt64(bound))
        }
        let original = Array(good.utf8)
        let spice = Array("[]{}:,-?&*!|>'\"%@` \n\t#~<0\0".utf8) + [0xff, 0xc3]
        var accepted = 0
        for _ in 0..<3_000 {
            var text = original
            for _ in 0...random(4) {
                let place = random(text.count)
                switch random(3) {
                case 0: text[place] = spice[random(spice.count)]
                case 1: text.insert(spice[random(spice.count)], at: place)
                default: text.remove(at: place)
                }
            }
            do throws(InvalidConfiguration) {
                _ = try Settings.load(yaml: text, named: "c.yaml")
                accepted += 1
            } catch {
                #expect(error.diagnostics.contains { $0.severity == .error }, "seed \(printed)")
            }
        }
        #expect(accepted < 3_000, "seed \(printed)")
    }
}
