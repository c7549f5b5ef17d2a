// Where to listen, as settings say it. What a name means is asked when a listener is bound.

/// A TCP host and port, or a Unix socket's path.
package enum Endpoint: Hashable, Sendable {
    /// A host name or an IP address without brackets, and a port; 0 asks for any free one.
    case tcp(host: String, port: UInt16)
    /// A Unix socket's path.
    case unix(path: String)
}

extension Endpoint: CustomStringConvertible {
    /// `HOST:PORT`, `[IPv6]:PORT` or `unix:PATH`.
    package var description: String {
        switch self {
        case .tcp(let host, let port):
            return host.contains(":") ? "[\(host)]:\(port)" : "\(host):\(port)"
        case .unix(let path): return "unix:\(path)"
        }
    }
}
