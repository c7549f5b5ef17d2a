// Addresses as operators write them. Pure: no name is resolved and no socket opened here.

import Glibc

extension HostAndPort {
    /// Reads an upstream's `HOST:PORT`, where HOST is a name, an IPv4 address or an IPv6 address in
    /// brackets.
    package init(setting text: String) throws(Unwanted) {
        if text.contains("://") {
            throw Unwanted(advice: "leave the scheme out; encryption is the setting tls")
        }
        let (host, port) = try splitAddress(text)
        guard port > 0 else { throw Unwanted(advice: "0 is no port of a server") }
        self.init(host: host, port: port)
    }
}

extension ListenerAddress {
    /// Reads `ADDRESS:PORT` or `unix:PATH`. The address is numeric, or `localhost`, which means
    /// 127.0.0.1: which addresses are listened on must not depend on a name server.
    package init(setting text: String) throws(Unwanted) {
        if let path = text.dropPrefix("unix:") {
            guard !path.isEmpty else { throw Unwanted(advice: "write the path after unix:") }
            guard path.utf8.count <= 107 else {
                throw Unwanted(advice: "a Unix socket's path has at most 107 bytes, this one more")
            }
            guard !path.utf8.contains(0) else { throw Unwanted(advice: "a path has no NUL") }
            self = .unix(path: path)
            return
        }
        if text.hasPrefix("/") { throw Unwanted(advice: "write unix:\(text) for a Unix socket") }
        let (host, port) = try splitAddress(text)
        if host == "localhost" {
            self = .tcp(address: "127.0.0.1", port: port)
            return
        }
        guard let address = canonicalAddress(host) else {
            throw Unwanted(
                advice: "give the IP address of an interface, for example 127.0.0.1:\(port)")
        }
        self = .tcp(address: address, port: port)
    }

    /// Whether only this machine can connect: 127.0.0.0/8, ::1, a Unix socket.
    package var isLocal: Bool {
        switch self {
        case .unix: return true
        case .tcp(let address, _):
            if address.hasPrefix("::ffff:127.") { return true }
            return address == "::1" || (address.hasPrefix("127.") && !address.contains(":"))
        }
    }

    /// Whether both cannot be bound at once: the same place, or one port of all IPv4 addresses and
    /// of one of them. Port 0 is a different port each time.
    func collides(with other: ListenerAddress) -> Bool {
        switch (self, other) {
        case (.unix(let path), .unix(let otherPath)):
            return path == otherPath
        case (.tcp(let address, let port), .tcp(let otherAddress, let otherPort)):
            guard port == otherPort, port != 0 else { return false }
            if address == otherAddress { return true }
            let isIPv4 = !address.contains(":") && !otherAddress.contains(":")
            return isIPv4 && (address == "0.0.0.0" || otherAddress == "0.0.0.0")
        default:
            return false
        }
    }
}

/// `rediss://HOST[:PORT]` or `redis://HOST[:PORT]`; the port is 6379 if it is not given.
/// Never repeats what it was given: a URL is where passwords are pasted.
package func parseUpstreamURL(
    _ url: String
) throws(Unwanted) -> (address: HostAndPort, isTLS: Bool) {
    let isTLS: Bool
    var rest: String
    if let address = url.dropPrefix("rediss://") {
        (isTLS, rest) = (true, address)
    } else if let address = url.dropPrefix("redis://") {
        (isTLS, rest) = (false, address)
    } else {
        throw Unwanted(advice: "begin with rediss:// (or redis:// for plaintext)")
    }
    guard !rest.contains("@") else {
        throw Unwanted(
            advice: "a user name or password does not belong here: use --user and --password-file")
    }
    if rest.hasSuffix("/") { rest.removeLast() }
    guard !rest.contains(where: { "/?#".contains($0) }) else {
        throw Unwanted(
            advice: "leave out what follows the port; clients choose their database themselves")
    }
    let hasPort = rest.hasPrefix("[") ? !rest.hasSuffix("]") : rest.contains(":")
    return (try HostAndPort(setting: hasPort ? rest : "\(rest):6379"), isTLS)
}

private func splitAddress(_ text: String) throws(Unwanted) -> (host: String, port: UInt16) {
    guard let colon = text.lastIndex(of: ":"), !text.hasSuffix("]") else {
        throw Unwanted(advice: "the port is missing")
    }
    let portText = text[text.index(after: colon)...]
    guard portText.utf8.allSatisfy({ (0x30...0x39).contains($0) }), let port = UInt16(portText)
    else { throw Unwanted(advice: "a port is a number up to 65535") }

    var host = String(text[..<colon])
    if host.hasPrefix("["), host.hasSuffix("]") {
        host = String(host.dropFirst().dropLast())
        guard host.contains(":"), let address = canonicalAddress(host) else {
            throw Unwanted(advice: "what is in brackets is not an IPv6 address")
        }
        return (address, port)
    }
    guard !host.contains(":") else {
        throw Unwanted(advice: "put brackets around an IPv6 address, for example [::1]:\(port)")
    }
    guard !host.isEmpty else { throw Unwanted(advice: "the host is missing") }
    // 253: the longest name that fits a DNS message (RFC 1035, section 2.3.4).
    guard host.utf8.count <= 253, host.utf8.allSatisfy(isHostNameByte) else {
        throw Unwanted(advice: "a host name has letters, digits, hyphens, dots and underscores")
    }
    return (host, port)
}

private func isHostNameByte(_ byte: UInt8) -> Bool {
    switch byte {
    case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, UInt8(ascii: "-"), UInt8(ascii: "."),
        UInt8(ascii: "_"):
        true
    default:
        false
    }
}

/// The one way to write a numeric address; nil if it is none.
private func canonicalAddress(_ text: String) -> String? {
    // A numeric address has no NUL, and what is behind one would be ignored.
    guard !text.utf8.contains(0) else { return nil }
    let family = text.contains(":") ? AF_INET6 : AF_INET
    var address = in6_addr()  // large enough for either
    guard inet_pton(family, text, &address) == 1 else { return nil }
    var buffer = [CChar](repeating: 0, count: 64)
    guard let shown = inet_ntop(family, &address, &buffer, socklen_t(buffer.count)) else {
        return nil
    }
    return String(cString: shown)
}

extension String {
    /// What follows `prefix`; nil if the text does not begin with it.
    fileprivate func dropPrefix(_ prefix: String) -> String? {
        hasPrefix(prefix) ? String(dropFirst(prefix.count)) : nil
    }
}
