// One function per system call on a socket; each folds errno once, into an enum.
//
// EINTR is retried here and nowhere else. No call raises SIGPIPE. Descriptors are plain Int32 and
// are owned by whoever got them; all are non-blocking and close-on-exec.

import CEv
package import Glibc

/// What a recv brought.
package enum ReceiveResult: Equatable, Sendable {
    /// So many bytes, at least one.
    case bytes(Int)
    /// Nothing now; the loop will say when.
    case wouldBlock
    /// The peer sends no more; it may still receive.
    case end
    /// The connection is lost.
    case failed(SystemError)
}

/// What looking at a socket without reading it shows.
package enum ProbeResult: Equatable, Sendable {
    case open
    /// The peer sends no more; there may be bytes to read before that.
    case ended
    /// The connection is reset, or otherwise broken.
    case lost
}

/// What a send took.
package enum SendResult: Equatable, Sendable {
    /// So many bytes, possibly fewer than were offered.
    case sent(Int)
    /// Nothing now; the loop will say when.
    case wouldBlock
    /// The connection is lost.
    case failed(SystemError)
}

/// What an accept brought.
package enum AcceptResult: Sendable {
    /// A connection, non-blocking and close-on-exec, now the caller's, and where it comes from.
    case accepted(Int32, SocketAddress)
    /// No more now; the loop will say when.
    case wouldBlock
    /// No descriptor or memory left. The connection stays in the backlog and its listener stays
    /// readable: stop watching it for a while, or the loop spins.
    case exhausted(SystemError)
    /// This one connection was lost before it was accepted; try the next.
    case aborted(SystemError)
    /// The listener itself is broken.
    case failed(SystemError)
}

/// What a connect did.
package enum ConnectResult: Sendable {
    /// Wait until the descriptor is writable, then ask `Socket.finishConnect`.
    case inProgress(Int32)
    /// Done at once, as Unix sockets are.
    case connected(Int32)
    /// Refused at once; no descriptor is left open.
    case failed(SystemError)
}

/// When the kernel probes a silent peer and when it gives up.
package struct KeepAlive: Equatable, Sendable {
    /// Silence before the first probe.
    package var idleSeconds: Int32
    /// Time between probes.
    package var intervalSeconds: Int32
    /// Unanswered probes after which the connection is lost.
    package var probes: Int32

    package init(idleSeconds: Int32, intervalSeconds: Int32, probes: Int32) {
        self.idleSeconds = idleSeconds
        self.intervalSeconds = intervalSeconds
        self.probes = probes
    }
}

/// The system calls on sockets.
package enum Socket {
    /// One recv into `buffer`, which must not be empty (a zero would look like the end).
    @inline(__always)
    package static func receive(
        _ descriptor: Int32,
        into buffer: UnsafeMutableRawBufferPointer
    ) -> ReceiveResult {
        assert(!buffer.isEmpty)
        while true {
            let count = recv(descriptor, buffer.baseAddress, buffer.count, 0)
            if count > 0 { return .bytes(count) }
            if count == 0 { return .end }
            let number = errno
            if number == EINTR { continue }
            if number == EAGAIN || number == EWOULDBLOCK { return .wouldBlock }
            return .failed(SystemError(call: "recv", number: number))
        }
    }

    /// POLLRDHUP, which glibc hides without _GNU_SOURCE. Source: poll(2), linux/poll.h.
    private static let endOfInput: Int16 = 0x2000

    /// Whether the peer has ended or is lost, told without reading what it sent before: epoll
    /// as libev uses it says neither of a socket that nobody wants to read.
    package static func probe(_ descriptor: Int32) -> ProbeResult {
        var query = pollfd(fd: descriptor, events: endOfInput, revents: 0)
        guard poll(&query, 1, 0) > 0 else { return .open }
        if Int32(query.revents) & (POLLERR | POLLNVAL) != 0 { return .lost }
        // A Unix socket whose peer closed it hangs up, and what the peer sent can still be read.
        return query.revents & (endOfInput | Int16(POLLHUP)) != 0 ? .ended : .open
    }

    /// Blocks until there is something to read, an end included; for threads without a loop.
    ///
    /// - Returns: false: not within the time, or a signal came.
    package static func waitReadable(_ descriptor: Int32, milliseconds: Int32) -> Bool {
        var query = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        return poll(&query, 1, milliseconds) > 0
    }

    /// One send of as much of `bytes` as the kernel takes.
    @inline(__always)
    package static func send(_ descriptor: Int32, _ bytes: UnsafeRawBufferPointer) -> SendResult {
        while true {
            let count = Glibc.send(
                descriptor, bytes.baseAddress, bytes.count, Int32(MSG_NOSIGNAL))
            if count >= 0 { return .sent(count) }
            let number = errno
            if number == EINTR { continue }
            if number == EAGAIN || number == EWOULDBLOCK { return .wouldBlock }
            return .failed(SystemError(call: "send", number: number))
        }
    }

    /// One sendmsg of two ranges, the first one first. `sent` counts over both.
    package static func send(
        _ descriptor: Int32,
        _ first: UnsafeRawBufferPointer,
        _ second: UnsafeRawBufferPointer
    ) -> SendResult {
        withUnsafeTemporaryAllocation(of: iovec.self, capacity: 2) { vectors in
            vectors[0] = iovec(
                iov_base: UnsafeMutableRawPointer(mutating: first.baseAddress),
                iov_len: first.count)
            vectors[1] = iovec(
                iov_base: UnsafeMutableRawPointer(mutating: second.baseAddress),
                iov_len: second.count)
            return sendVector(descriptor, UnsafeBufferPointer(vectors))
        }
    }

    /// One sendmsg of several ranges, in order; at most IOV_MAX (1024) of them.
    package static func sendVector(
        _ descriptor: Int32,
        _ vectors: UnsafeBufferPointer<iovec>
    ) -> SendResult {
        var message = msghdr()
        message.msg_iov = UnsafeMutablePointer(mutating: vectors.baseAddress)
        message.msg_iovlen = vectors.count
        while true {
            let count = sendmsg(descriptor, &message, Int32(MSG_NOSIGNAL))
            if count >= 0 { return .sent(count) }
            let number = errno
            if number == EINTR { continue }
            if number == EAGAIN || number == EWOULDBLOCK { return .wouldBlock }
            return .failed(SystemError(call: "sendmsg", number: number))
        }
    }

    /// One accept. The connection is non-blocking and close-on-exec.
    ///
    /// Source of the classes: accept(2), "Error handling".
    package static func accept(_ descriptor: Int32) -> AcceptResult {
        var storage = sockaddr_storage()
        while true {
            var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
            let (connection, peer) = withUnsafeMutablePointer(to: &storage) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                    let flags = Int32(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)
                    let connection = accept4(descriptor, address, &length, flags)
                    let peer =
                        connection < 0 ? nil : SocketAddress(copying: address, length: length)
                    return (connection, peer)
                }
            }
            if connection >= 0 {
                guard let peer else {
                    close(connection)
                    return .aborted(SystemError(call: "accept4", number: EPROTO))
                }
                return .accepted(connection, peer)
            }
            let error = SystemError(call: "accept4", number: errno)
            switch error.number {
            case EINTR: continue
            case EAGAIN, EWOULDBLOCK: return .wouldBlock
            case EMFILE, ENFILE, ENOBUFS, ENOMEM: return .exhausted(error)
            // Linux passes an error already pending on the new connection through accept.
            case ECONNABORTED, EPERM, EPROTO, ENOPROTOOPT, ENETDOWN, ENETUNREACH, EHOSTDOWN,
                EHOSTUNREACH, ENONET, ETIMEDOUT:
                return .aborted(error)
            default: return .failed(error)
            }
        }
    }

    /// Starts to connect a new non-blocking, close-on-exec socket.
    package static func connect(to address: SocketAddress) -> ConnectResult {
        let descriptor = open(family: address.family)
        if descriptor < 0 { return .failed(SystemError(call: "socket", number: errno)) }
        while true {
            let result = address.withSockaddr { Glibc.connect(descriptor, $0, $1) }
            if result == 0 { return .connected(descriptor) }
            let number = errno
            if number == EINTR { continue }
            // EALREADY and EISCONN come only after an EINTR that had started the connect.
            if number == EINPROGRESS || number == EALREADY { return .inProgress(descriptor) }
            if number == EISCONN { return .connected(descriptor) }
            close(descriptor)
            return .failed(SystemError(call: "connect", number: number))
        }
    }

    /// How a connect in progress ended, once its descriptor is writable; nil when it succeeded.
    ///
    /// A TCP connect to a local port that nobody listens on can meet itself when the kernel picks
    /// that very port for our end. That is reported as refused, which it should have been.
    package static func finishConnect(_ descriptor: Int32) -> SystemError? {
        if let error = pendingError(descriptor) {
            return SystemError(call: "connect", number: error.number)
        }
        switch (localAddress(descriptor), peerAddress(descriptor)) {
        case (_, nil): return SystemError(call: "connect", number: ENOTCONN)
        case (let local?, let peer?) where !local.isUnix && local == peer:
            return SystemError(call: "connect", number: ECONNREFUSED)
        default: return nil
        }
    }

    /// Fetches and clears the error waiting on a socket (SO_ERROR); nil when there is none.
    package static func pendingError(_ descriptor: Int32) -> SystemError? {
        var number: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        if getsockopt(descriptor, SOL_SOCKET, SO_ERROR, &number, &length) != 0 {
            return SystemError(call: "getsockopt", number: errno)
        }
        return number == 0 ? nil : SystemError(call: "getsockopt", number: number)
    }

    /// Our own end's address; nil for a descriptor that is no socket.
    package static func localAddress(_ descriptor: Int32) -> SocketAddress? {
        address { getsockname(descriptor, $0, $1) }
    }

    /// The other end's address; nil when not connected.
    package static func peerAddress(_ descriptor: Int32) -> SocketAddress? {
        address { getpeername(descriptor, $0, $1) }
    }

    private static func address(
        _ body: (UnsafeMutablePointer<sockaddr>, UnsafeMutablePointer<socklen_t>) -> Int32
    ) -> SocketAddress? {
        var storage = sockaddr_storage()
        var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
        return withUnsafeMutablePointer(to: &storage) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                body(address, &length) == 0
                    ? SocketAddress(copying: address, length: length) : nil
            }
        }
    }

    /// Sends small writes at once (TCP_NODELAY); a Unix socket has no such option. Connections that
    /// a listening socket accepts inherit it (Linux, net/ipv4/inet_connection_sock.c,
    /// inet_csk_clone_lock).
    package static func setNoDelay(_ descriptor: Int32) -> SystemError? {
        set(descriptor, Int32(IPPROTO_TCP), TCP_NODELAY, 1)
    }

    /// Probes a silent peer (SO_KEEPALIVE, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT).
    package static func setKeepAlive(_ descriptor: Int32, _ keepAlive: KeepAlive) -> SystemError? {
        set(descriptor, SOL_SOCKET, SO_KEEPALIVE, 1)
            ?? set(descriptor, Int32(IPPROTO_TCP), TCP_KEEPIDLE, keepAlive.idleSeconds)
            ?? set(descriptor, Int32(IPPROTO_TCP), TCP_KEEPINTVL, keepAlive.intervalSeconds)
            ?? set(descriptor, Int32(IPPROTO_TCP), TCP_KEEPCNT, keepAlive.probes)
    }

    /// Gives the connection up when sent bytes stay unacknowledged this long (TCP_USER_TIMEOUT,
    /// tcp(7)); 0 leaves it to the system, about 15 minutes.
    package static func setUserTimeout(
        _ descriptor: Int32,
        milliseconds: Int32
    ) -> SystemError? {
        set(descriptor, Int32(IPPROTO_TCP), TCP_USER_TIMEOUT, milliseconds)
    }

    /// Makes `close` reset the connection instead of finishing it (SO_LINGER of zero), so that the
    /// peer cannot take a cut-off stream for a whole one.
    package static func setResetOnClose(_ descriptor: Int32) -> SystemError? {
        var option = linger(l_onoff: 1, l_linger: 0)
        let size = socklen_t(MemoryLayout<linger>.size)
        if setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &option, size) == 0 { return nil }
        return SystemError(call: "setsockopt", number: errno)
    }

    /// Tells the peer that no more will be sent; receiving goes on. An error means that the
    /// connection is gone, which the next receive says too.
    @discardableResult
    package static func shutdownWrite(_ descriptor: Int32) -> SystemError? {
        if shutdown(descriptor, Int32(SHUT_WR)) == 0 { return nil }
        return SystemError(call: "shutdown", number: errno)
    }

    /// Closes a descriptor. Stop its watcher first.
    ///
    /// Not retried on EINTR: Linux has closed it by then, and the number may be somebody else's
    /// already (close(2)).
    package static func close(_ descriptor: Int32) {
        let result = Glibc.close(descriptor)
        assert(result == 0 || errno != EBADF, "a descriptor was closed twice")
    }

    static func open(family: Int32) -> Int32 {
        let type = SOCK_STREAM.rawValue | SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue
        return socket(family, Int32(type), 0)
    }

    /// An option of the socket itself that is a number; nil if there is none, or no socket.
    package static func option(_ descriptor: Int32, _ option: Int32) -> Int32? {
        var value: Int32 = 0
        var length = socklen_t(MemoryLayout<Int32>.size)
        guard getsockopt(descriptor, SOL_SOCKET, option, &value, &length) == 0 else { return nil }
        return value
    }

    /// Makes a descriptor that came from elsewhere non-blocking and close-on-exec.
    package static func makeOurs(_ descriptor: Int32) -> SystemError? {
        let flags = fcntl(descriptor, F_GETFL)
        guard flags >= 0, fcntl(descriptor, F_SETFL, flags | O_NONBLOCK) == 0,
            fcntl(descriptor, F_SETFD, FD_CLOEXEC) == 0
        else { return SystemError(call: "fcntl", number: errno) }
        return nil
    }

    static func set(
        _ descriptor: Int32,
        _ level: Int32,
        _ option: Int32,
        _ value: Int32
    ) -> SystemError? {
        var value = value
        let size = socklen_t(MemoryLayout<Int32>.size)
        if setsockopt(descriptor, level, option, &value, size) == 0 { return nil }
        return SystemError(call: "setsockopt", number: errno)
    }
}
