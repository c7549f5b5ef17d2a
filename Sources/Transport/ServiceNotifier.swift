// What the service manager is told: sd_notify(3) without its library.
//
//     READY=1                           clients are served
//     RELOADING=1, MONOTONIC_USEC=…     the configuration is read again; READY=1 follows in any case
//     STOPPING=1                        the end has begun
//     WATCHDOG=1                        all threads go on
//     MAINPID=…                         another process is the service from now on
//     STATUS=…                          a line for people
//
// One datagram each, to the Unix socket that NOTIFY_SOCKET names. It is a matter of politeness: a
// manager that cannot be told is told nothing, and the proxy goes on.

import Glibc

/// Tells a service manager what the process does. Usable from any thread.
package final class ServiceNotifier: Sendable {
    /// How long a manager that does not read is waited for.
    private static let patience = timeval(tv_sec: 1, tv_usec: 0)

    private let descriptor: Int32
    private let address: SocketAddress

    /// - Parameter path: of a Unix socket; a name that begins with `@` is an abstract one.
    /// - Throws: `SystemError` when there is no such address (as for vsock), or no descriptor.
    package init(path: String) throws(SystemError) {
        guard path.hasPrefix("/") || path.hasPrefix("@"),
            let address = SocketAddress(notifyPath: path)
        else { throw SystemError(call: "socket", number: EAFNOSUPPORT) }
        self.address = address
        let type = Int32(SOCK_DGRAM.rawValue | SOCK_CLOEXEC.rawValue)
        descriptor = socket(AF_UNIX, type, 0)
        if descriptor < 0 { throw SystemError(call: "socket", number: errno) }
        var patience = Self.patience
        setsockopt(
            descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience,
            socklen_t(MemoryLayout<timeval>.size))
    }

    deinit { Socket.close(descriptor) }

    /// Sends variables, such as `READY=1`, in one datagram. A newline in one is a space.
    ///
    /// - Returns: why it did not arrive.
    @discardableResult
    package func send(_ variables: [String]) -> SystemError? {
        let lines = variables.map { String($0.map { $0.isNewline ? " " : $0 }) }
        let text = Array(lines.joined(separator: "\n").utf8)
        while true {
            let sent = address.withSockaddr { address, length in
                sendto(descriptor, text, text.count, Int32(MSG_NOSIGNAL), address, length)
            }
            if sent >= 0 { return nil }
            if errno != EINTR { return SystemError(call: "sendto", number: errno) }
        }
    }
}

extension SocketAddress {
    /// A Unix socket's address with `@` for the NUL of an abstract name.
    init?(notifyPath path: String) {
        guard path.hasPrefix("@") else {
            self.init(unixPath: path)
            return
        }
        let bytes = Array(path.utf8)
        guard bytes.count > 1, bytes.count <= SocketAddress.maximumPathLength else { return nil }
        var address = sockaddr_un()
        address.sun_family = sa_family_t(AF_UNIX)
        withUnsafeMutableBytes(of: &address.sun_path) { path in
            path.copyBytes(from: [0] + bytes.dropFirst())
        }
        // An abstract name is as long as the address says; it has no end of its own (unix(7)).
        let start = MemoryLayout<sockaddr_un>.offset(of: \.sun_path) ?? 2
        let length = socklen_t(start + bytes.count)
        let copied = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                SocketAddress(copying: $0, length: length)
            }
        }
        guard let copied else { return nil }
        self = copied
    }
}
