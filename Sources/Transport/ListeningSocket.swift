// Bound sockets that accept clients, TCP or Unix.
//
// A Unix socket is a file, and files outlive their makers. So its path is examined first:
//
//     nothing there ─────────────────────────────► bind
//     a socket that refuses (its maker is gone) ─► moved aside, compared, removed ─► bind
//     a socket that answers ─────────────────────► refused: somebody serves it
//     anything else ─────────────────────────────► refused and left alone
//
// Nobody can connect between bind and listen, so owner and mode are set in between and no client
// ever meets the file with other rights than those. It is removed at close only if it is still the
// file that was made here.
//
// TCP listeners use SO_REUSEADDR, so that a restart need not wait for TIME_WAIT, and never
// SO_REUSEPORT: with it, another process of the same user could take a share of the clients.
//
// Rejected: binding to a temporary name and renaming. It also works, but `ss -x` then shows the
// temporary name for ever.

import Glibc
import Synchronization

/// How a listener is made.
package struct ListenOptions: Sendable, Equatable {
    /// Connections the kernel holds until they are accepted (listen(2)); it caps them at
    /// net.core.somaxconn.
    package var backlog: Int32
    /// The rights of a Unix socket's file; connecting needs write permission.
    package var unixMode: UInt32
    /// The owner of a Unix socket's file; nil leaves ours.
    package var unixUser: UInt32?
    /// The group of a Unix socket's file; nil leaves ours.
    package var unixGroup: UInt32?

    package init(
        backlog: Int32 = 4096,
        unixMode: UInt32 = 0o600,
        unixUser: UInt32? = nil,
        unixGroup: UInt32? = nil
    ) {
        self.backlog = backlog
        self.unixMode = unixMode
        self.unixUser = unixUser
        self.unixGroup = unixGroup
    }
}

/// Why a listener could not be made.
package struct ListenError: Error, Equatable, Sendable, CustomStringConvertible {
    /// Where it should have listened.
    package let endpoint: Endpoint
    /// What went wrong and, where there is one, what to do.
    package let reason: String

    package var description: String { "cannot listen on \(endpoint): \(reason)" }
}

/// A socket that accepts. Usable from any thread; accepting is `Socket.accept(descriptor)`.
package final class ListeningSocket: Sendable {
    /// Non-blocking and close-on-exec; valid until `close()`.
    package let descriptor: Int32
    /// Where it listens, with the port that was given when 0 was asked.
    package let address: SocketAddress
    /// A Unix socket's, if it is ours to remove.
    package let file: SocketFile?
    /// Whom the descriptor is given back to in place of being closed.
    private let lender: InheritedSockets?
    private let isClosed = Atomic(false)
    private let isShared = Atomic(false)

    private init(descriptor: Int32, address: SocketAddress, file: SocketFile?) {
        self.descriptor = descriptor
        self.address = address
        self.file = file
        lender = nil
    }

    /// One that was bound elsewhere; see `InheritedSockets`.
    init(
        inherited descriptor: Int32, address: SocketAddress, file: SocketFile?,
        lender: InheritedSockets?
    ) {
        self.descriptor = descriptor
        self.address = address
        self.file = file
        self.lender = lender
    }

    /// Stops listening and removes a Unix socket's file if it is still this socket's. May be
    /// called twice. Stop the watcher first.
    package func close() {
        if isClosed.exchange(true, ordering: .acquiringAndReleasing) { return }
        if let lender { return lender.giveBack(descriptor) }
        if let file, !isShared.load(ordering: .acquiring), file.isThere { unlink(file.path) }
        Socket.close(descriptor)
    }

    /// Whether another process may listen here too, to whom a Unix socket's file then belongs: it is
    /// not removed at `close`.
    package func share(_ isShared: Bool) {
        self.isShared.store(isShared, ordering: .releasing)
    }

    /// Gives a Unix socket's file another mode and owner, if it is ours.
    ///
    /// - Throws: `ListenError`; a part may have changed then.
    package func change(_ options: ListenOptions) throws(ListenError) {
        guard let file, file.isThere else { return }
        try Self.setRights(of: file.path, options, .unix(path: file.path))
    }

    deinit { close() }

    /// Listens on every address that `endpoint` names: one for most, two for a `localhost` that is
    /// 127.0.0.1 and ::1. Asks the resolver and blocks meanwhile: for start and reload, never on a
    /// loop.
    ///
    /// - Parameter inherited: a socket of these that is bound to such an address already is taken in
    ///   place of a new one.
    /// - Throws: `ListenError`; nothing stays open then.
    package static func bind(
        to endpoint: Endpoint,
        options: ListenOptions = ListenOptions(),
        inheriting inherited: InheritedSockets? = nil
    ) throws(ListenError) -> [ListeningSocket] {
        switch endpoint {
        case .tcp(let host, let port):
            return try bindTCP(
                endpoint, host: host, port: port, options: options, inheriting: inherited)
        case .unix(let path):
            if let address = SocketAddress(unixPath: path),
                let socket = inherited?.take(address)
            {
                return [socket]
            }
            return [try bindUnix(endpoint, path: path, options: options)]
        }
    }

    // MARK: TCP

    private static func bindTCP(
        _ endpoint: Endpoint,
        host: String,
        port: UInt16,
        options: ListenOptions,
        inheriting inherited: InheritedSockets?
    ) throws(ListenError) -> [ListeningSocket] {
        let addresses: [SocketAddress]
        switch Resolver.lookUp(host: host, port: port) {
        case .success(let found): addresses = found
        case .failure(let error): throw ListenError(endpoint: endpoint, reason: error.description)
        }
        // With port 0 the first address picks the port and the others must get the same, which
        // may be taken there: then all is tried again. A fixed port is tried once.
        var attempts = port == 0 ? 16 : 1
        while true {
            attempts -= 1
            var sockets: [ListeningSocket] = []
            var missing: SystemError?
            var failure: SystemError?
            for address in addresses {
                let wanted = address.with(port: sockets.first?.address.port ?? port)
                do throws(SystemError) {
                    if let socket = inherited?.take(wanted) {
                        sockets.append(socket)
                    } else {
                        sockets.append(try bindTCP(wanted, options: options))
                    }
                } catch  where error.number == EADDRNOTAVAIL || error.number == EAFNOSUPPORT {
                    // A `localhost` with an ::1 that this machine does not have.
                    missing = error
                } catch {
                    failure = error
                    break
                }
            }
            guard let error = failure ?? (sockets.isEmpty ? missing : nil) else { return sockets }
            for socket in sockets { socket.close() }
            if attempts > 0 && error.number == EADDRINUSE { continue }
            throw ListenError(endpoint: endpoint, reason: error.description + advice(for: error))
        }
    }

    private static func bindTCP(
        _ address: SocketAddress,
        options: ListenOptions
    ) throws(SystemError) -> ListeningSocket {
        let descriptor = Socket.open(family: address.family)
        if descriptor < 0 { throw SystemError(call: "socket", number: errno) }
        var error = Socket.set(descriptor, SOL_SOCKET, SO_REUSEADDR, 1)
        if error == nil && address.family == AF_INET6 {
            // Or [::]:6379 would take 0.0.0.0:6379 too.
            error = Socket.set(descriptor, Int32(IPPROTO_IPV6), IPV6_V6ONLY, 1)
        }
        if error == nil, address.withSockaddr({ Glibc.bind(descriptor, $0, $1) }) != 0 {
            error = SystemError(call: "bind", number: errno)
        }
        if error == nil, listen(descriptor, options.backlog) != 0 {
            error = SystemError(call: "listen", number: errno)
        }
        if let error {
            Socket.close(descriptor)
            throw error
        }
        return ListeningSocket(
            descriptor: descriptor,
            address: Socket.localAddress(descriptor) ?? address,
            file: nil
        )
    }

    private static func advice(for error: SystemError) -> String {
        switch error.number {
        case EADDRINUSE: return " (another process listens there: stop it or choose another port)"
        case EACCES: return " (ports below 1024 need CAP_NET_BIND_SERVICE)"
        case EADDRNOTAVAIL: return " (no interface of this machine has that address)"
        default: return ""
        }
    }

    // MARK: Unix

    private static func bindUnix(
        _ endpoint: Endpoint,
        path: String,
        options: ListenOptions
    ) throws(ListenError) -> ListeningSocket {
        guard let address = SocketAddress(unixPath: path) else {
            throw ListenError(
                endpoint: endpoint,
                reason: "a Unix socket's path has 1 to \(SocketAddress.maximumPathLength) bytes, "
                    + "this one has \(path.utf8.count)"
            )
        }
        try clearTheWay(endpoint, path: path, address: address)

        let descriptor = Socket.open(family: AF_UNIX)
        if descriptor < 0 {
            let error = SystemError(call: "socket", number: errno)
            throw ListenError(endpoint: endpoint, reason: error.description)
        }
        // On Linux the file gets the mode of the unbound socket, less the umask: 0600 from its
        // first moment.
        fchmod(descriptor, 0o600)
        if address.withSockaddr({ Glibc.bind(descriptor, $0, $1) }) != 0 {
            let error = SystemError(call: "bind", number: errno)
            Socket.close(descriptor)
            throw ListenError(endpoint: endpoint, reason: error.description)
        }
        guard let file = SocketFile(at: path) else {
            let error = SystemError(call: "lstat", number: errno)
            Socket.close(descriptor)
            throw ListenError(endpoint: endpoint, reason: error.description)
        }
        let socket = ListeningSocket(descriptor: descriptor, address: address, file: file)
        try setRights(of: path, options, endpoint)
        if listen(descriptor, options.backlog) != 0 {
            let error = SystemError(call: "listen", number: errno)
            throw ListenError(endpoint: endpoint, reason: error.description)
        }
        // Until listen, our file looked as stale as the one that was here: somebody who started at
        // the same moment may have replaced it.
        if !file.isThere {
            throw ListenError(
                endpoint: endpoint,
                reason: "another process took the path at the same moment"
            )
        }
        return socket
    }

    private static func setRights(
        of path: String, _ options: ListenOptions, _ endpoint: Endpoint
    ) throws(ListenError) {
        let unchanged = uid_t.max
        if options.unixUser != nil || options.unixGroup != nil,
            lchown(path, options.unixUser ?? unchanged, options.unixGroup ?? unchanged) != 0
        {
            let error = SystemError(call: "chown", number: errno)
            throw ListenError(
                endpoint: endpoint,
                reason: "\(error) (giving a socket to another user needs root, to a group "
                    + "membership in it)"
            )
        }
        if chmod(path, mode_t(options.unixMode)) != 0 {
            let error = SystemError(call: "chmod", number: errno)
            throw ListenError(endpoint: endpoint, reason: error.description)
        }
    }

    /// Leaves nothing at `path`, or throws and leaves what is there.
    private static func clearTheWay(
        _ endpoint: Endpoint,
        path: String,
        address: SocketAddress
    ) throws(ListenError) {
        var status = stat()
        if lstat(path, &status) != 0 {
            let error = SystemError(call: "lstat", number: errno)
            if error.number == ENOENT { return }
            throw ListenError(endpoint: endpoint, reason: error.description)
        }
        guard status.st_mode & S_IFMT == S_IFSOCK else {
            throw ListenError(
                endpoint: endpoint,
                reason: "a file that is not a socket is there: remove it or choose another path"
            )
        }
        switch Socket.connect(to: address) {
        case .connected(let descriptor), .inProgress(let descriptor):
            Socket.close(descriptor)
            throw ListenError(
                endpoint: endpoint,
                reason: "another process listens there: stop it or choose another path"
            )
        case .failed(let error) where error.number == ECONNREFUSED: break
        case .failed(let error) where error.number == ENOENT: return
        case .failed(let error) where error.number == EAGAIN:
            throw ListenError(
                endpoint: endpoint,
                reason: "another process listens there, with a full backlog: stop it or choose "
                    + "another path"
            )
        case .failed(let error):
            throw ListenError(
                endpoint: endpoint,
                reason: "a socket is there and it is not known whether it is in use (\(error)): "
                    + "remove it or choose another path"
            )
        }

        // Moved aside before it is removed, so that what is removed is what was examined.
        let examined = (device: UInt64(status.st_dev), inode: UInt64(status.st_ino))
        let aside = path + ".\(getpid()).stale"
        if rename(path, aside) != 0 {
            let error = SystemError(call: "rename", number: errno)
            if error.number == ENOENT { return }
            throw ListenError(
                endpoint: endpoint,
                reason: "a stale socket is there and cannot be removed (\(error))"
            )
        }
        let moved = SocketFile(at: aside)
        if moved.map({ ($0.device, $0.inode) == examined }) != true {
            link(aside, path)
            unlink(aside)
            throw ListenError(
                endpoint: endpoint,
                reason: "another process took the path at the same moment"
            )
        }
        unlink(aside)
    }
}
