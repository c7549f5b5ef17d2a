// What goes wrong on the way to AWS, as a value whose text is for the operator's log.

/// Something that AWS, or what stands between, did not give. The text says what was wanted, what was
/// got and where; it holds no secret and is one line.
package struct AWSFailure: Error, Sendable, Equatable, CustomStringConvertible {
    package enum Kind: Sendable, Equatable {
        /// Not there now: a connection, a time-out, an error of the service. Trying again may help.
        case unavailable
        /// Refused because of too many requests: try again, later.
        case throttled
        /// The clock of this machine differs too much from AWS's.
        case clockSkew
        /// The answer was no, or was none: trying again does not help until something changes.
        case refused
        /// We are stopping.
        case cancelled
    }

    package let kind: Kind
    package let reason: String
    /// AWS's own name for the error, such as `ResourceNotFoundException`.
    package let code: String?

    package init(_ kind: Kind, _ reason: String, code: String? = nil) {
        self.kind = kind
        self.reason = oneLine(reason)
        self.code = code
    }

    static let cancelled = AWSFailure(.cancelled, "the proxy is stopping")

    package var description: String { reason }
}

/// What a log line may contain of a text that others wrote: no control characters, and not too much.
func oneLine(_ text: String, limit: Int = 600) -> String {
    var line = String.UnicodeScalarView()
    for scalar in text.unicodeScalars.prefix(limit) {
        let isControl =
            scalar.value < 0x20 || (0x7f...0x9f).contains(scalar.value)
            || scalar.value == 0x2028 || scalar.value == 0x2029
        line.append(isControl ? " " : scalar)
    }
    return String(line)
}
