// Where a socket is or connects to: an IPv4, IPv6 or Unix address as the kernel takes it.

import Glibc

/// An address of a socket, as a value.
package struct SocketAddress: Sendable {
    private var storage = sockaddr_storage()
    private var length: socklen_t = 0

    /// Copies an address that the kernel or getaddrinfo filled in; nil when it cannot be one.
    init?(copying address: UnsafePointer<sockaddr>, length: socklen_t) {
        let size = Int(length)
        guard size >= MemoryLayout<sa_family_t>.size,
            size <= MemoryLayout<sockaddr_storage>.size
        else { return nil }
        withUnsafeMutableBytes(of: &storage) { bytes in
            bytes.copyMemory(from: UnsafeRawBufferPointer(start: address, count: size))
        }
        self.length = length
    }

    /// An IPv4 or IPv6 address written in figures (`127.0.0.1`, `::1`, `fe80::1%eth0`); nil for
    /// everything else. Never asks a name server.
    package init?(literal: String, port: UInt16) {
        var hints = addrinfo()
        hints.ai_family = AF_UNSPEC
        hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
        hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV
        // getaddrinfo accepts `127.1` and `0x7f.1` for IPv4; inet_pton is strict, and a name that
        // merely looks odd must not become an address.
        var strict = in_addr()
        guard literal.contains(":") || inet_pton(AF_INET, literal, &strict) == 1 else { return nil }
        var list: UnsafeMutablePointer<addrinfo>?
        guard getaddrinfo(literal, String(port), &hints, &list) == 0, let first = list else {
            return nil
        }
        defer { freeaddrinfo(first) }
        guard let address = first.pointee.ai_addr else { return nil }
        self.init(copying: address, length: first.pointee.ai_addrlen)
    }

    /// The address of a Unix socket; nil when the path is empty, holds a NUL or exceeds
    /// `maximumPathLength`.
    package init?(unixPath path: String) {
        let bytes = Array(path.utf8)
        guard !bytes.isEmpty, bytes.count <= Self.maximumPathLength, !bytes.contains(0) else {
            return nil
        }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { $0.copyBytes(from: bytes) }
        let size = MemoryLayout<sockaddr_un>.size
        withUnsafeMutableBytes(of: &storage) { target in
            withUnsafeBytes(of: &address) { target.copyMemory(from: $0) }
        }
        length = socklen_t(size)
    }

    /// Bytes that a Unix socket's path may have: sun_path's 108 without its NUL (unix(7)).
    package static let maximumPathLength = 107

    /// Lends the address in the form system calls take it.
    func withSockaddr<Result>(_ body: (UnsafePointer<sockaddr>, socklen_t) -> Result) -> Result {
        withUnsafePointer(to: storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { body($0, length) }
        }
    }

    /// The address family: AF_INET, AF_INET6 or AF_UNIX.
    package var family: Int32 { Int32(storage.ss_family) }

    /// Whether this is a Unix socket.
    package var isUnix: Bool { family == AF_UNIX }

    /// The TCP port; nil for a Unix socket.
    package var port: UInt16? {
        switch family {
        case AF_INET: return bound(to: sockaddr_in.self) { UInt16(bigEndian: $0.sin_port) }
        case AF_INET6: return bound(to: sockaddr_in6.self) { UInt16(bigEndian: $0.sin6_port) }
        default: return nil
        }
    }

    /// The same IP address with another port; a Unix address stays as it is.
    package func with(port: UInt16) -> SocketAddress {
        var copy = self
        withUnsafeMutablePointer(to: &copy.storage) { pointer in
            switch family {
            case AF_INET:
                pointer.withMemoryRebound(to: sockaddr_in.self, capacity: 1) {
                    $0.pointee.sin_port = port.bigEndian
                }
            case AF_INET6:
                pointer.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) {
                    $0.pointee.sin6_port = port.bigEndian
                }
            default: break
            }
        }
        return copy
    }

    /// Whether only this machine can be on the other side: 127.0.0.0/8, ::1, their IPv4-mapped
    /// form, or a Unix socket.
    package var isLoopback: Bool {
        switch family {
        case AF_UNIX: return true
        case AF_INET:
            return bound(to: sockaddr_in.self) {
                UInt32(bigEndian: $0.sin_addr.s_addr) >> 24 == 127
            }
        case AF_INET6:
            return bound(to: sockaddr_in6.self) { address in
                withUnsafeBytes(of: address.sin6_addr) { bytes in
                    let leading = bytes.prefix(10).allSatisfy { $0 == 0 }
                    let mapped = leading && bytes[10] == 0xff && bytes[11] == 0xff
                    if mapped { return bytes[12] == 127 }
                    return leading && bytes[10..<15].allSatisfy { $0 == 0 } && bytes[15] == 1
                }
            }
        default: return false
        }
    }

    /// The IP address as the two halves of its IPv6 form, IPv4 as `::ffff:a.b.c.d`; nil for a Unix
    /// socket.
    package var mappedIP: (high: UInt64, low: UInt64)? {
        switch family {
        case AF_INET:
            return bound(to: sockaddr_in.self) {
                (0, 0xffff_0000_0000 | UInt64(UInt32(bigEndian: $0.sin_addr.s_addr)))
            }
        case AF_INET6:
            return bound(to: sockaddr_in6.self) { address in
                withUnsafeBytes(of: address.sin6_addr) { bytes in
                    (
                        UInt64(bigEndian: bytes.loadUnaligned(as: UInt64.self)),
                        UInt64(bigEndian: bytes.loadUnaligned(fromByteOffset: 8, as: UInt64.self))
                    )
                }
            }
        default: return nil
        }
    }

    /// Whether a socket bound to one is found at the other: the kernel tells a path with another
    /// length than it was given.
    package func isSamePlace(as other: SocketAddress) -> Bool {
        isUnix ? unixPath != nil && unixPath == other.unixPath : self == other
    }

    private func bound<Family, Result>(to: Family.Type, _ body: (Family) -> Result) -> Result {
        withUnsafeBytes(of: storage) { body($0.load(as: Family.self)) }
    }
}

extension SocketAddress: Equatable {
    /// Compares family, address and port (and the scope of a link-local one).
    package static func == (left: SocketAddress, right: SocketAddress) -> Bool {
        guard left.length == right.length else { return false }
        let count = Int(left.length)
        return withUnsafeBytes(of: left.storage) { a in
            withUnsafeBytes(of: right.storage) { b in a.prefix(count).elementsEqual(b.prefix(count))
            }
        }
    }
}

extension SocketAddress: CustomStringConvertible {
    /// `127.0.0.1:6379`, `[::1]:6379`, `unix:/run/app.sock`, or `unix:(unnamed)` for a Unix client.
    package var description: String {
        switch family {
        case AF_INET, AF_INET6:
            let host = numericHost ?? "?"
            let port = port ?? 0
            return family == AF_INET6 ? "[\(host)]:\(port)" : "\(host):\(port)"
        case AF_UNIX: return "unix:\(unixPath ?? "(unnamed)")"
        default: return "family \(family)"
        }
    }

    /// The IP address alone in figures; nil for a Unix socket.
    package var numericHost: String? {
        guard family == AF_INET || family == AF_INET6 else { return nil }
        return withUnsafeTemporaryAllocation(of: CChar.self, capacity: Int(NI_MAXHOST)) { buffer in
            let result = withSockaddr { address, length in
                getnameinfo(
                    address, length, buffer.baseAddress, socklen_t(buffer.count), nil, 0,
                    NI_NUMERICHOST)
            }
            guard result == 0, let text = buffer.baseAddress else { return nil }
            return String(cString: text)
        }
    }

    /// The path of a Unix socket; nil when it has none. An abstract name starts with `@`.
    package var unixPath: String? {
        guard family == AF_UNIX else { return nil }
        let start = MemoryLayout<sockaddr_un>.offset(of: \.sun_path) ?? 2
        return withUnsafeBytes(of: storage) { bytes in
            let path = bytes[min(start, Int(length))..<min(Int(length), bytes.count)]
            guard let first = path.first else { return nil }
            if first == 0 {
                let name = path.dropFirst()
                if name.allSatisfy({ $0 == 0 }) { return nil }
                return "@" + String(decoding: name, as: UTF8.self)
            }
            return String(decoding: path.prefix { $0 != 0 }, as: UTF8.self)
        }
    }
}
