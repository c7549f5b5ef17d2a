// What AWS takes for a name: known to the configuration, which refuses others where they are
// written, and to whoever signs them.

/// Rules of names in AWS.
package enum AWSNames {
    /// nil: it can be the name of a cache. Otherwise what to do about it, in words for the operator.
    ///
    /// Letters, digits and single hyphens, a letter first. Source: the developer toolkit of
    /// ElastiCache, which refuses anything else before it signs.
    package static func adviceAgainst(cacheName name: String) -> String? {
        guard !name.contains(where: { ".:/".contains($0) }) else {
            return "that looks like an endpoint: give the replication group's id, the serverless"
                + " cache's or the cluster's name alone, since the server checks the signature of"
                + " that name"
        }
        let bytes = Array(name.utf8)
        let isName =
            (1...255).contains(bytes.count) && isLetter(bytes[0])
            && bytes.last != UInt8(ascii: "-") && !name.contains("--")
            && bytes.allSatisfy { isLetter($0) || isDigit($0) || $0 == UInt8(ascii: "-") }
        return isName
            ? nil : "a name has letters, digits and single hyphens, and begins with a letter"
    }

    /// Whether it can be a region's name, which becomes part of host names.
    package static func isRegion(_ text: String) -> Bool {
        let bytes = Array(text.utf8)
        return (1...63).contains(bytes.count) && bytes.first != UInt8(ascii: "-")
            && bytes.last != UInt8(ascii: "-")
            && bytes.allSatisfy {
                (0x61...0x7a).contains($0) || isDigit($0) || $0 == UInt8(ascii: "-")
            }
    }

    /// The region in `arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME`; nil if it is no such ARN.
    package static func region(ofSecret id: String) -> String? {
        let parts = id.split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        guard parts.count >= 7, parts[0] == "arn", parts[2] == "secretsmanager",
            isRegion(parts[3])
        else { return nil }
        return parts[3]
    }

    private static func isLetter(_ byte: UInt8) -> Bool {
        (0x41...0x5a).contains(byte) || (0x61...0x7a).contains(byte)
    }

    private static func isDigit(_ byte: UInt8) -> Bool { (0x30...0x39).contains(byte) }
}
