// An address as an operator writes it: HOST:PORT, [IPv6]:PORT or unix:PATH.
//
// Parsing is pure: no name server, no file system. What a name means is asked at bind and connect.

import Glibc

/// Where to listen or connect, as written.
package enum Endpoint: Hashable, Sendable {
    /// A host name or an IP address without brackets, and a port; 0 asks for any free one.
    case tcp(host: String, port: UInt16)
    /// A Unix socket's path.
    case unix(path: String)

    /// Reads `HOST:PORT`, `[IPv6]:PORT` or `unix:PATH`.
    ///
    /// - Throws: `EndpointError`, which says what was wanted and what was got.
    package init(parsing text: String) throws(EndpointError) {
        if text.hasPrefix("unix:") {
            let path = String(text.dropFirst("unix:".count))
            if path.isEmpty { throw EndpointError(got: text, reason: "the path is empty") }
            if path.utf8.contains(0) {
                throw EndpointError(got: "unix:…", reason: "the path holds a NUL byte")
            }
            if path.utf8.count > SocketAddress.maximumPathLength {
                let limit = SocketAddress.maximumPathLength
                throw EndpointError(
                    got: text,
                    reason: "the path has \(path.utf8.count) bytes; a Unix socket's has at most "
                        + "\(limit)"
                )
            }
            self = .unix(path: path)
            return
        }

        guard let colon = text.lastIndex(of: ":") else {
            throw EndpointError(got: text, reason: "the port is missing")
        }
        let hostPart = text[..<colon]
        let portPart = text[text.index(after: colon)...]
        let host: String
        if hostPart.hasPrefix("[") {
            guard hostPart.hasSuffix("]") else {
                let reason =
                    text.hasSuffix("]") ? "the port is missing" : "the bracket is not closed"
                throw EndpointError(got: text, reason: reason)
            }
            host = String(hostPart.dropFirst().dropLast())
            if !Self.isIPv6(host) {
                throw EndpointError(got: text, reason: "\"\(host)\" is not an IPv6 address")
            }
        } else {
            if hostPart.contains(":") {
                throw EndpointError(got: text, reason: "an IPv6 address needs brackets")
            }
            host = String(hostPart)
            if let problem = Self.problem(inHost: host) {
                throw EndpointError(got: text, reason: problem)
            }
        }
        if portPart.isEmpty { throw EndpointError(got: text, reason: "the port is missing") }
        // UInt16("+1") is 1, and a sign is not part of a port.
        guard portPart.utf8.allSatisfy({ $0 >= 0x30 && $0 <= 0x39 }), let port = UInt16(portPart)
        else {
            throw EndpointError(
                got: text,
                reason: "\"\(portPart)\" is not a port; a port is a number from 0 to 65535"
            )
        }
        self = .tcp(host: host, port: port)
    }

    private static func isIPv6(_ text: String) -> Bool {
        // A zone such as %eth0 is the resolver's to judge.
        let address = text.prefix { $0 != "%" }
        var parsed = in6_addr()
        return inet_pton(AF_INET6, String(address), &parsed) == 1
    }

    private static func problem(inHost host: String) -> String? {
        if host.isEmpty { return "the host is missing" }
        if host.utf8.count > 253 { return "a host name has at most 253 bytes (RFC 1035)" }
        for byte in host.utf8 {
            switch byte {
            case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "."),
                UInt8(ascii: "_"):
                continue
            default:
                return "a host name has letters, digits, hyphens, dots and underscores only"
            }
        }
        return nil
    }
}

extension Endpoint: CustomStringConvertible {
    /// As it would be parsed again.
    package var description: String {
        switch self {
        case .tcp(let host, let port):
            return host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        case .unix(let path): return "unix:\(path)"
        }
    }
}

/// A text that is no endpoint.
package struct EndpointError: Error, Equatable, Sendable, CustomStringConvertible {
    /// The text as it was given.
    package let got: String
    /// What is wrong with it.
    package let reason: String

    package var description: String {
        "wanted HOST:PORT, [IPv6]:PORT or unix:PATH, got \"\(got)\": \(reason)"
    }
}
