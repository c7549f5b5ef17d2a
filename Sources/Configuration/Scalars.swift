// Texts to numbers, durations and sizes, and back; without a way to overflow.

/// A text that does not say what a setting wants, with what to do about it when that is known.
package struct Unwanted: Error {
    package var advice: String?
}

extension Duration {
    private static let units: [(name: String, milliseconds: Int64)] = [
        ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1),
    ]

    /// Reads `500ms`, `5s`, `2m`, `8h`, `1d`: digits and one unit.
    package init(setting word: String) throws(Unwanted) {
        let (number, unit) = try splitNumber(word)
        guard !unit.isEmpty else {
            throw Unwanted(advice: "write the unit, for example \(number)s")
        }
        guard let factor = Self.units.first(where: { $0.name == unit })?.milliseconds else {
            throw Unwanted(advice: "units are ms, s, m, h and d")
        }
        let (milliseconds, overflow) = number.multipliedReportingOverflow(by: factor)
        guard !overflow else { throw Unwanted() }
        self = .milliseconds(milliseconds)
    }

    /// The shortest text that reads back as this duration; milliseconds are the grain.
    package var settingText: String {
        let (seconds, attoseconds) = components
        let milliseconds = seconds * 1_000 + attoseconds / 1_000_000_000_000_000
        for (name, unit) in Self.units where milliseconds != 0 && milliseconds % unit == 0 {
            return "\(milliseconds / unit)\(name)"
        }
        return "\(milliseconds)ms"
    }
}

extension ByteCount {
    private static let units: [(name: String, bytes: Int64)] = [
        ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1),
    ]

    /// Reads `512B`, `64KiB`, `1MiB`, `2GiB`: digits and one unit.
    package init(setting word: String) throws(Unwanted) {
        let (number, unit) = try splitNumber(word)
        guard !unit.isEmpty else {
            throw Unwanted(advice: "write the unit, for example \(number)KiB or \(number)B")
        }
        guard let factor = Self.units.first(where: { $0.name == unit })?.bytes else {
            throw Unwanted(advice: "units are B, KiB, MiB and GiB")
        }
        let (product, overflow) = number.multipliedReportingOverflow(by: factor)
        guard !overflow, let bytes = Int(exactly: product) else { throw Unwanted() }
        self.init(bytes)
    }

    /// The shortest text that reads back as this size.
    package var settingText: String {
        for (name, unit) in Self.units where bytes != 0 && Int64(bytes) % unit == 0 {
            return "\(Int64(bytes) / unit)\(name)"
        }
        return "\(bytes)B"
    }
}

extension Int {
    /// Reads digits only: no sign, no point, no exponent, no underscore.
    package init(setting word: String) throws(Unwanted) {
        guard !word.isEmpty, word.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else {
            throw Unwanted(advice: "write digits only")
        }
        guard let number = Int(word) else { throw Unwanted() }
        self = number
    }
}

extension Bool {
    /// Reads `true` or `false`, and none of YAML's other spellings.
    package init(setting word: String) throws(Unwanted) {
        switch word {
        case "true": self = true
        case "false": self = false
        default: throw Unwanted(advice: "write true or false")
        }
    }
}

extension SocketMode {
    /// Reads octal permission bits, `0600` or `600`, with nothing beyond `0777`.
    package init(setting word: String) throws(Unwanted) {
        guard (3...4).contains(word.utf8.count),
            word.utf8.allSatisfy({ (0x30...0x37).contains($0) }),
            let bits = UInt16(word, radix: 8), bits <= 0o777
        else { throw Unwanted(advice: "write octal digits such as 0600 or 0660") }
        self.init(bits)
    }

    /// As it is read, with four digits.
    package var settingText: String {
        let digits = String(bits, radix: 8)
        return String(repeating: "0", count: Swift.max(0, 4 - digits.utf8.count)) + digits
    }
}

private func splitNumber(_ text: String) throws(Unwanted) -> (Int64, unit: String) {
    let digits = text.prefix { ("0"..."9").contains($0) }
    guard !digits.isEmpty else { throw Unwanted(advice: "begin with digits") }
    guard let number = Int64(digits) else { throw Unwanted() }
    return (number, String(text.dropFirst(digits.count)))
}
