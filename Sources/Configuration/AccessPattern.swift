// Whether a key or channel fits a pattern, byte by byte as the server decides it.
//
//     *  any bytes     ?  one byte     [ab-z] [^a]  one of them, or none     \x  x itself
//
// With its oddities: a bracket that is not closed ends with the pattern, a range may be written
// backwards, and what is empty fits no pattern but the empty one.
//
// Source: util.c of Redis 7.0, stringmatchlen_impl.

/// A pattern of an access rule.
struct AccessPattern {
    private let pattern: [UInt8]

    init(_ text: String) {
        pattern = Array(text.utf8)
    }

    func matches(_ text: [UInt8]) -> Bool {
        // Without it a pattern of many stars takes exponential time.
        var isHopeless = false
        return matches(pattern[...], text[...], &isHopeless)
    }

    private func matches(
        _ pattern: ArraySlice<UInt8>, _ text: ArraySlice<UInt8>, _ isHopeless: inout Bool
    ) -> Bool {
        var pattern = pattern
        var text = text
        while let first = pattern.first, let byte = text.first {
            switch first {
            case UInt8(ascii: "*"):
                while pattern.count > 1, pattern[pattern.startIndex + 1] == first {
                    pattern.removeFirst()
                }
                if pattern.count == 1 { return true }
                while !text.isEmpty {
                    if matches(pattern.dropFirst(), text, &isHopeless) { return true }
                    if isHopeless { return false }
                    text.removeFirst()
                }
                // Nothing behind this star fits anywhere, so that an earlier one need not try.
                isHopeless = true
                return false
            case UInt8(ascii: "?"): break
            case UInt8(ascii: "["):
                pattern.removeFirst()
                guard Self.bracket(&pattern, holds: byte) else { return false }
            case UInt8(ascii: "\\") where pattern.count > 1:
                pattern.removeFirst()
                fallthrough
            default:
                guard pattern.first == byte else { return false }
            }
            text.removeFirst()
            // A bracket that is not closed has used the pattern up.
            if !pattern.isEmpty { pattern.removeFirst() }
            if text.isEmpty {
                while pattern.first == UInt8(ascii: "*") { pattern.removeFirst() }
                break
            }
        }
        return pattern.isEmpty && text.isEmpty
    }

    /// Reads what is behind a bracket up to the one that closes it, which stays.
    private static func bracket(_ pattern: inout ArraySlice<UInt8>, holds byte: UInt8) -> Bool {
        let isNegated = pattern.first == UInt8(ascii: "^")
        if isNegated { pattern.removeFirst() }
        var isIn = false
        while let first = pattern.first, first != UInt8(ascii: "]") {
            let next = pattern.startIndex + 1
            if first == UInt8(ascii: "\\"), pattern.count >= 2 {
                pattern.removeFirst()
                if pattern.first == byte { isIn = true }
            } else if pattern.count >= 3, pattern[next] == UInt8(ascii: "-") {
                let (start, end) = (first, pattern[next + 1])
                if (min(start, end)...max(start, end)).contains(byte) { isIn = true }
                pattern.removeFirst(2)
            } else if first == byte {
                isIn = true
            }
            pattern.removeFirst()
        }
        return isIn != isNegated
    }
}
