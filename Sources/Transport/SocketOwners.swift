// Who made the other end's socket of a TCP connection over loopback.
//
//     accepted descriptor ──► the four numbers that name the connection, seen from the client
//                             (its address and port, ours) ──► sock_diag(7) ──► uid, state, inode
//
// Both ends of a loopback connection are sockets of this machine, in this network namespace, and the
// kernel knows the user of each. The answer counts only if nothing is doubtful:
//
//   - It is about exactly this connection. The kernel's look-up falls back to a listening socket,
//     and to what is left of a closed connection, when it does not find an open one.
//   - The client's socket is ESTABLISHED and has an inode. A socket that no process holds any more
//     is shown with user 0: without this, whoever closes in time would be root.
//   - Our own end is ESTABLISHED after the answer. As long as it is, no other connection can have
//     these four numbers, so the answer is about the client that was accepted.
//
// One netlink socket serves for ever. The kernel answers before sendto(2) returns; the time-out is
// for the case that it does not. An answer is known by its sequence number, so that a late one is
// never taken for the next one's.

import CEv
import Glibc

/// Asks the kernel whose a client's TCP socket is. Used by one thread.
package final class SocketOwners {
    /// What the kernel said, or why it does not count.
    package enum Answer: Sendable, Equatable {
        case user(UInt32)
        case unknown(Doubt)
    }

    /// Words for the log.
    package enum Doubt: String, Sendable {
        case notLoopback = "the connection is not over loopback"
        case noSocket = "the kernel has no such connection"
        case otherConnection = "the kernel answered about another connection"
        case notEstablished = "the client has closed its end"
        case noOwner = "no process holds the client's socket"
        case overflow = "the user has no number in this user namespace"
        case weAreClosed = "the connection ended while the kernel was asked"
        case noAnswer = "the kernel did not answer"
    }

    /// How long an answer may take. The acceptor waits meanwhile.
    private static let timeout = timeval(tv_sec: 0, tv_usec: 200_000)
    /// Messages that are looked at for one answer: what a time-out left behind is among them.
    private static let messageLimit = 16

    private var descriptor: Int32 = -1
    private var sequence: UInt32 = 0

    /// - Throws: `SystemError` when the kernel has no such socket for us.
    package init() throws(SystemError) {
        try open()
    }

    deinit {
        if descriptor >= 0 { Socket.close(descriptor) }
    }

    private func open() throws(SystemError) {
        let type = Int32(SOCK_RAW.rawValue | SOCK_CLOEXEC.rawValue)
        let opened = socket(AF_NETLINK, type, NETLINK_SOCK_DIAG)
        guard opened >= 0 else { throw SystemError(call: "socket", number: errno) }
        var timeout = Self.timeout
        let size = socklen_t(MemoryLayout<timeval>.size)
        guard setsockopt(opened, SOL_SOCKET, SO_RCVTIMEO, &timeout, size) == 0 else {
            let error = SystemError(call: "setsockopt", number: errno)
            Socket.close(opened)
            throw error
        }
        descriptor = opened
    }

    /// Whose the other end of `connection` is, which came from `peer`. Before a byte of it is read.
    package func owner(of connection: Int32, from peer: SocketAddress) -> Answer {
        guard peer.isLoopback, let local = Socket.localAddress(connection), local.isLoopback,
            let client = End(peer), let server = End(local)
        else { return .unknown(.notLoopback) }
        guard let answer = ask(client, server) else { return .unknown(.noAnswer) }
        switch answer {
        case .error: return .unknown(.noSocket)
        case .socket(let found):
            let verdict = Self.judge(found, client, server)
            guard case .user = verdict else { return verdict }
            return Self.isEstablished(connection) ? verdict : .unknown(.weAreClosed)
        }
    }

    /// One end of a connection, IPv4 in its IPv6 form: a client's IPv6 socket can be connected to
    /// our IPv4 one, and the kernel shows each in its own way.
    package struct End: Sendable, Equatable {
        package var high: UInt64
        package var low: UInt64
        package var port: UInt16

        var isIPv4: Bool { high == 0 && low >> 32 == 0xffff }

        package init(high: UInt64, low: UInt64, port: UInt16) {
            self.high = high
            self.low = low
            self.port = port
        }

        init?(_ address: SocketAddress) {
            guard let (high, low) = address.mappedIP, let port = address.port else { return nil }
            self.init(high: high, low: low, port: port)
        }

        typealias Words = (UInt32, UInt32, UInt32, UInt32)

        /// In the order of the wire: one word for IPv4, four for IPv6.
        var words: Words {
            func word(_ number: UInt64) -> UInt32 { UInt32(truncatingIfNeeded: number).bigEndian }
            return isIPv4
                ? (word(low), 0, 0, 0) : (word(high >> 32), word(high), word(low >> 32), word(low))
        }

        init(family: UInt8, _ words: Words, port: UInt16) {
            func number(_ word: UInt32) -> UInt64 { UInt64(UInt32(bigEndian: word)) }
            let isIPv4 = family == UInt8(AF_INET)
            self.init(
                high: isIPv4 ? 0 : number(words.0) << 32 | number(words.1),
                low: isIPv4
                    ? 0xffff_0000_0000 | number(words.0) : number(words.2) << 32 | number(words.3),
                port: UInt16(bigEndian: port)
            )
        }
    }

    /// What the kernel said about a socket.
    package struct Found: Sendable {
        package var source: End
        package var destination: End
        package var state: Int
        package var userID: UInt32
        package var inode: UInt32

        package init(source: End, destination: End, state: Int, userID: UInt32, inode: UInt32) {
            self.source = source
            self.destination = destination
            self.state = state
            self.userID = userID
            self.inode = inode
        }

        init(_ message: inet_diag_msg) {
            let (family, id) = (message.idiag_family, message.id)
            self.init(
                source: End(family: family, id.idiag_src, port: id.idiag_sport),
                destination: End(family: family, id.idiag_dst, port: id.idiag_dport),
                state: Int(message.idiag_state),
                userID: message.idiag_uid,
                inode: message.idiag_inode
            )
        }
    }

    private enum Reply {
        case socket(Found)
        case error
    }

    /// nil: no answer came, and what may come later is forgotten with the socket.
    private func ask(_ client: End, _ server: End) -> Reply? {
        if descriptor < 0 {
            do throws(SystemError) { try open() } catch { return nil }
        }
        sequence &+= 1
        guard send(question(client, server)), let reply = receive() else {
            Socket.close(descriptor)
            descriptor = -1
            return nil
        }
        return reply
    }

    private func question(_ client: End, _ server: End) -> cev_socket_question {
        var question = cev_socket_question()
        question.header.nlmsg_len = UInt32(MemoryLayout<cev_socket_question>.size)
        question.header.nlmsg_type = UInt16(SOCK_DIAG_BY_FAMILY)
        question.header.nlmsg_flags = UInt16(NLM_F_REQUEST)
        question.header.nlmsg_seq = sequence
        let family = client.isIPv4 && server.isIPv4 ? AF_INET : AF_INET6
        question.request.sdiag_family = UInt8(family)
        question.request.sdiag_protocol = UInt8(IPPROTO_TCP)
        question.request.idiag_states = .max
        question.request.id.idiag_sport = client.port.bigEndian
        question.request.id.idiag_dport = server.port.bigEndian
        question.request.id.idiag_src = client.words
        question.request.id.idiag_dst = server.words
        // INET_DIAG_NOCOOKIE: any socket with these numbers.
        question.request.id.idiag_cookie = (.max, .max)
        return question
    }

    private func send(_ question: cev_socket_question) -> Bool {
        var kernel = sockaddr_nl()
        kernel.nl_family = sa_family_t(AF_NETLINK)
        return withUnsafeBytes(of: question) { bytes in
            withUnsafePointer(to: &kernel) { pointer in
                pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) { address in
                    while true {
                        let size = socklen_t(MemoryLayout<sockaddr_nl>.size)
                        let sent = sendto(
                            descriptor, bytes.baseAddress, bytes.count, 0, address, size)
                        if sent == -1 && errno == EINTR { continue }
                        return sent == bytes.count
                    }
                }
            }
        }
    }

    /// The answer to the question that was just sent.
    private func receive() -> Reply? {
        // A message with its attributes has some 120 bytes.
        withUnsafeTemporaryAllocation(byteCount: 4096, alignment: 8) { buffer in
            for _ in 0..<Self.messageLimit {
                var sender = sockaddr_nl()
                var length = socklen_t(MemoryLayout<sockaddr_nl>.size)
                let count = withUnsafeMutablePointer(to: &sender) { pointer in
                    pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                        recvfrom(descriptor, buffer.baseAddress, buffer.count, 0, $0, &length)
                    }
                }
                if count == -1 && errno == EINTR { continue }
                guard count > 0 else { return nil }
                // Only the kernel knows, whoever else may send to netlink sockets.
                guard sender.nl_pid == 0 else { continue }
                if let reply = Self.parse(UnsafeRawBufferPointer(buffer)[..<count], sequence) {
                    return reply
                }
            }
            return nil
        }
    }

    /// The first message of a datagram; nil if it answers another question.
    private static func parse(
        _ datagram: Slice<UnsafeRawBufferPointer>,
        _ sequence: UInt32
    ) -> Reply? {
        let bytes = UnsafeRawBufferPointer(rebasing: datagram)
        let headerSize = MemoryLayout<nlmsghdr>.size
        guard bytes.count >= headerSize else { return nil }
        let header = bytes.loadUnaligned(as: nlmsghdr.self)
        guard header.nlmsg_seq == sequence, Int(header.nlmsg_len) <= bytes.count else { return nil }
        guard header.nlmsg_type == UInt16(SOCK_DIAG_BY_FAMILY),
            Int(header.nlmsg_len) >= headerSize + MemoryLayout<inet_diag_msg>.size
        else { return .error }
        return .socket(
            Found(bytes.loadUnaligned(fromByteOffset: headerSize, as: inet_diag_msg.self)))
    }

    /// Whether what the kernel found is the client's open end of this connection.
    package static func judge(_ found: Found, _ client: End, _ server: End) -> Answer {
        guard found.source == client, found.destination == server else {
            return .unknown(.otherConnection)
        }
        guard found.state == TCP_ESTABLISHED else { return .unknown(.notEstablished) }
        guard found.inode != 0 else { return .unknown(.noOwner) }
        guard PeerCredentials.isAccount(found.userID) else { return .unknown(.overflow) }
        return .user(found.userID)
    }

    private static func isEstablished(_ connection: Int32) -> Bool {
        // The state is tcp_info's first byte.
        var information: UInt8 = 0
        var length = socklen_t(1)
        return getsockopt(connection, Int32(IPPROTO_TCP), TCP_INFO, &information, &length) == 0
            && length == 1 && information == UInt8(TCP_ESTABLISHED)
    }
}
