// Texts to numbers, durations and sizes, without a way to overflow.

/// A text that does not say what a setting wants, with what to do about it when that is known.
struct Unwanted: Error {
    var advice: String?
}

/// `500ms`, `5s`, `2m`, `8h`, `1d`: digits and one unit.
func parseDuration(_ text: String) throws(Unwanted) -> Duration {
    let (number, unit) = try splitNumber(text)
    guard !unit.isEmpty else { throw Unwanted(advice: "write the unit, for example \(number)s") }
    guard let milliseconds = durationUnits.first(where: { $0.name == unit })?.milliseconds else {
        throw Unwanted(advice: "units are ms, s, m, h and d")
    }
    let (product, overflow) = number.multipliedReportingOverflow(by: milliseconds)
    guard !overflow else { throw Unwanted() }
    return .milliseconds(product)
}

/// The shortest text that `parseDuration` reads back as `duration`; milliseconds are the grain.
func text(of duration: Duration) -> String {
    let (seconds, attoseconds) = duration.components
    let milliseconds = seconds * 1_000 + attoseconds / 1_000_000_000_000_000
    for (name, unit) in durationUnits where milliseconds != 0 && milliseconds % unit == 0 {
        return "\(milliseconds / unit)\(name)"
    }
    return "\(milliseconds)ms"
}

private let durationUnits: [(name: String, milliseconds: Int64)] = [
    ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1),
]

/// `512B`, `64KiB`, `1MiB`, `2GiB`: digits and one unit.
func parseByteCount(_ text: String) throws(Unwanted) -> ByteCount {
    let (number, unit) = try splitNumber(text)
    guard !unit.isEmpty else {
        throw Unwanted(advice: "write the unit, for example \(number)KiB or \(number)B")
    }
    guard let size = sizeUnits.first(where: { $0.name == unit })?.bytes else {
        throw Unwanted(advice: "units are B, KiB, MiB and GiB")
    }
    let (product, overflow) = number.multipliedReportingOverflow(by: size)
    guard !overflow, let bytes = Int(exactly: product) else { throw Unwanted() }
    return ByteCount(bytes)
}

/// The shortest text that `parseByteCount` reads back as `size`.
func text(of size: ByteCount) -> String {
    for (name, unit) in sizeUnits where size.bytes != 0 && Int64(size.bytes) % unit == 0 {
        return "\(Int64(size.bytes) / unit)\(name)"
    }
    return "\(size.bytes)B"
}

private let sizeUnits: [(name: String, bytes: Int64)] = [
    ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1),
]

/// Digits only: no sign, no point, no exponent, no underscore.
func parseInteger(_ text: some StringProtocol) throws(Unwanted) -> Int {
    guard !text.isEmpty, text.utf8.allSatisfy({ (0x30...0x39).contains($0) }) else {
        throw Unwanted(advice: "write digits only")
    }
    guard let number = Int(text) else { throw Unwanted() }
    return number
}

/// `true` or `false`, and none of YAML's other spellings.
func parseBoolean(_ text: String) throws(Unwanted) -> Bool {
    switch text {
    case "true": return true
    case "false": return false
    default: throw Unwanted(advice: "write true or false")
    }
}

/// Octal permission bits, `0600` or `600`, with nothing beyond `0777`.
func parseSocketMode(_ text: String) throws(Unwanted) -> SocketMode {
    guard (3...4).contains(text.utf8.count), text.utf8.allSatisfy({ (0x30...0x37).contains($0) }),
        let bits = UInt16(text, radix: 8), bits <= 0o777
    else { throw Unwanted(advice: "write octal digits such as 0600 or 0660") }
    return SocketMode(bits)
}

/// As `parseSocketMode` reads it, with four digits.
func text(of mode: SocketMode) -> String {
    let digits = String(mode.bits, radix: 8)
    return String(repeating: "0", count: max(0, 4 - digits.utf8.count)) + digits
}

private func splitNumber(_ text: String) throws(Unwanted) -> (Int64, unit: String) {
    let digits = text.prefix { ("0"..."9").contains($0) }
    guard !digits.isEmpty else { throw Unwanted(advice: "begin with digits") }
    guard let number = Int64(digits) else { throw Unwanted() }
    return (number, String(text.dropFirst(digits.count)))
}

extension Duration {
    /// Reads a duration as settings are written: `500ms`, `5s`, `2m`, `8h`, `1d`. nil if it is none.
    package init?(setting word: String) {
        do throws(Unwanted) {
            self = try parseDuration(word)
        } catch {
            return nil
        }
    }

    /// As a setting would be written; milliseconds are the grain.
    package var settingText: String { text(of: self) }
}
