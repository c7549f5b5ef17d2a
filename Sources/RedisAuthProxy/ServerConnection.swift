// One connection to a server, made and used step by step, with the sockets and TLS of the proxy itself:
// what works here works there. It blocks, each step until a deadline, which suits whoever does one
// thing after the other on a thread of its own; the proxy's own loop would not tell where it stands.

import AWS
import Glibc
import Identity
import Transport

/// Why a step failed.
struct ConnectionFailure: Error, CustomStringConvertible {
    /// For whoever has words of its own.
    enum Kind {
        /// The deadline passed.
        case timeout
        /// The connection ended.
        case closed
        case other
    }

    var reason: String
    var advice: String?
    var kind = Kind.other

    var description: String { reason }
}

/// A value from the server, in RESP2.
enum ServerReply {
    case text([UInt8])
    case error(String)
    case integer(Int)
    case list([ServerReply])
    case null

    /// The text of a bulk or simple string.
    var string: String? {
        if case .text(let bytes) = self { String(decoding: bytes, as: UTF8.self) } else { nil }
    }

    var items: [ServerReply]? {
        if case .list(let items) = self { items } else { nil }
    }

    /// A flat list of names and values, as RESP2 has maps.
    func value(_ name: String) -> ServerReply? {
        guard let items else { return nil }
        for index in stride(from: 0, to: items.count - 1, by: 2) {
            if items[index].string == name { return items[index + 1] }
        }
        return nil
    }
}

/// A connection to one address.
final class ServerConnection {
    /// The most bytes of one answer: ACL LIST of a thousand users is far below.
    private static let replyLimit = 4 << 20

    private let descriptor: Int32
    private let stream: SecureStream
    private var received: [UInt8] = []

    private init(descriptor: Int32, stream: SecureStream) {
        self.descriptor = descriptor
        self.stream = stream
    }

    deinit { Socket.close(descriptor) }

    // MARK: TCP

    /// A connection that is ready for its login.
    ///
    /// - Parameters:
    ///   - context: nil: plaintext.
    ///   - deadline: for TCP, and again for TLS.
    static func open(
        to address: SocketAddress, context: TLSContext?, serverName: String,
        within deadline: () -> Deadline
    ) throws(ConnectionFailure) -> ServerConnection {
        let descriptor = try connect(to: address, until: deadline())
        return try secure(
            descriptor, context: context, serverName: serverName, pool: ChunkPool(),
            until: deadline())
    }

    /// Connects; the descriptor is the caller's.
    static func connect(
        to address: SocketAddress, until deadline: Deadline
    ) throws(ConnectionFailure) -> Int32 {
        switch Socket.connect(to: address) {
        case .connected(let descriptor): return descriptor
        case .failed(let error): throw refused(error)
        case .inProgress(let descriptor):
            guard wait(descriptor, Int16(POLLOUT), until: deadline) else {
                Socket.close(descriptor)
                throw ConnectionFailure(
                    reason: "no answer before connect_timeout",
                    advice: "a firewall or security group may drop the packets, or the address is"
                        + " not reachable from this network",
                    kind: .timeout)
            }
            if let error = Socket.finishConnect(descriptor) {
                Socket.close(descriptor)
                throw refused(error)
            }
            return descriptor
        }
    }

    private static func refused(_ error: SystemError) -> ConnectionFailure {
        let advice: String? =
            switch error.number {
            case ECONNREFUSED: "nothing listens on that port there: check address and port"
            case EHOSTUNREACH, ENETUNREACH: "there is no way to that address from this network"
            default: nil
            }
        return ConnectionFailure(reason: error.reason, advice: advice)
    }

    // MARK: TLS

    /// Takes a connected descriptor over, and sets TLS up on it if `context` is given.
    static func secure(
        _ descriptor: Int32, context: TLSContext?, serverName: String, pool: ChunkPool,
        until deadline: Deadline
    ) throws(ConnectionFailure) -> ServerConnection {
        guard let context else {
            return ServerConnection(
                descriptor: descriptor, stream: SecureStream(plaintext: pool))
        }
        let stream: SecureStream
        do throws(TLSContextError) {
            stream = try SecureStream(context: context, serverName: serverName, pool: pool)
        } catch {
            Socket.close(descriptor)
            throw ConnectionFailure(reason: "\(error)")
        }
        let connection = ServerConnection(descriptor: descriptor, stream: stream)
        while true {
            let progress = stream.handshake()
            // Also when it failed: the alert tells the server why.
            let isSent = connection.flush(until: deadline)
            switch progress {
            case .done:
                return connection
            case .failed(let failure):
                throw ConnectionFailure(reason: "\(failure)")
            case .needsInput:
                guard isSent, wait(descriptor, Int16(POLLIN), until: deadline) else {
                    throw ConnectionFailure(
                        reason: "the server did not answer the TLS handshake before"
                            + " connect_timeout",
                        advice: "it may expect plaintext on that port, or be overloaded",
                        kind: .timeout)
                }
                _ = stream.receiveCiphertext(from: descriptor)
            }
        }
    }

    var peerDescription: String { stream.peerDescription }
    var peerCertificate: PeerCertificate? { stream.peerCertificate }

    // MARK: Questions

    /// Logs in as the proxy does.
    func login(
        _ credential: Credential, name: String, until deadline: Deadline
    ) throws(ConnectionFailure) -> ServerReply {
        let user = Array(credential.userName.utf8)
        let head =
            "*7\r\n$5\r\nHELLO\r\n$1\r\n2\r\n$4\r\nAUTH\r\n$\(user.count)\r\n"
            + "\(credential.userName)\r\n$\(credential.secret.count)\r\n"
        let tail = "\r\n$7\r\nSETNAME\r\n$\(name.utf8.count)\r\n\(name)\r\n"
        let count = head.utf8.count + credential.secret.count + tail.utf8.count
        // Not an array, which would leave copies of the secret behind.
        let request = UnsafeMutableRawBufferPointer.allocate(byteCount: count, alignment: 1)
        defer {
            if let base = request.baseAddress { explicit_bzero(base, request.count) }
            request.deallocate()
        }
        var end = 0
        func append(_ bytes: some Collection<UInt8>) {
            UnsafeMutableRawBufferPointer(rebasing: request[end...]).copyBytes(from: bytes)
            end += bytes.count
        }
        append(head.utf8)
        credential.secret.withBytes { append($0) }
        append(tail.utf8)
        let reply = try ask(UnsafeRawBufferPointer(request), until: deadline)
        if case .error(let text) = reply { return .error(credential.redacting(text)) }
        return reply
    }

    /// One command and its answer.
    func ask(
        _ arguments: String..., until deadline: Deadline
    ) throws(ConnectionFailure) -> ServerReply {
        try ask(arguments, until: deadline)
    }

    /// One command and its answer.
    func ask(
        _ arguments: [String], until deadline: Deadline
    ) throws(ConnectionFailure) -> ServerReply {
        var request = "*\(arguments.count)\r\n"
        for argument in arguments { request += "$\(argument.utf8.count)\r\n\(argument)\r\n" }
        let bytes = Array(request.utf8)
        let result: Result<ServerReply, ConnectionFailure> = bytes.withUnsafeBytes { bytes in
            do throws(ConnectionFailure) {
                return .success(try ask(bytes, until: deadline))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    private func ask(
        _ request: UnsafeRawBufferPointer, until deadline: Deadline
    ) throws(ConnectionFailure) -> ServerReply {
        if let failure = stream.encrypt(request) { throw ConnectionFailure(reason: "\(failure)") }
        guard flush(until: deadline) else { throw lost("the request could not be sent") }
        var buffer = [UInt8](repeating: 0, count: 16_384)
        while true {
            var decoder = ServerReplyDecoder(bytes: received)
            switch decoder.decode(depth: 0) {
            case .value(let reply):
                received.removeFirst(decoder.position)
                return reply
            case .invalid:
                throw ConnectionFailure(
                    reason: "the server's answer is not RESP",
                    advice: "another service listens there, or the server wants TLS")
            case .incomplete: break
            }
            guard received.count <= Self.replyLimit else {
                throw ConnectionFailure(reason: "the server's answer is too long")
            }
            switch buffer.withUnsafeMutableBytes({ stream.decrypt(into: $0) }) {
            case .bytes(let count): received += buffer[..<count]
            case .closed: throw lost("the server closed the connection without an answer")
            case .failed(let failure): throw ConnectionFailure(reason: "\(failure)")
            case .needsInput:
                guard Self.wait(descriptor, Int16(POLLIN), until: deadline) else {
                    throw ConnectionFailure(
                        reason: "no answer before login_timeout",
                        advice: "the server may expect TLS on that port, or be overloaded",
                        kind: .timeout)
                }
                if case .failed(let error) = stream.receiveCiphertext(from: descriptor) {
                    throw lost("the connection was lost (\(error.reason))")
                }
            }
        }
    }

    private func lost(_ reason: String) -> ConnectionFailure {
        ConnectionFailure(
            reason: reason,
            advice: stream.isEncrypted
                ? "look into the server's log"
                : "look into the server's log; a server that wants TLS does this too",
            kind: .closed)
    }

    /// Sends what is to be sent; false if it could not be before the deadline.
    private func flush(until deadline: Deadline) -> Bool {
        while stream.unsentByteCount > 0 {
            switch stream.flush(to: descriptor) {
            case .sent: continue
            case .failed: return false
            case .wouldBlock:
                guard Self.wait(descriptor, Int16(POLLOUT), until: deadline) else { return false }
            }
        }
        return true
    }

    private static func wait(
        _ descriptor: Int32, _ events: Int16, until deadline: Deadline
    ) -> Bool {
        while let milliseconds = deadline.millisecondsLeft {
            // A negative descriptor is skipped by poll(2).
            var queries = [
                pollfd(fd: descriptor, events: events, revents: 0),
                pollfd(
                    fd: deadline.cancellation?.descriptor ?? -1, events: Int16(POLLIN), revents: 0),
            ]
            let count = poll(&queries, nfds_t(queries.count), milliseconds)
            if count > 0 { return queries[1].revents == 0 }
            if count < 0, errno != EINTR { return false }
        }
        return false
    }
}

/// Until when to wait, and who may end the waiting sooner.
struct Deadline {
    private let end: Monotonic
    let cancellation: Cancellation?

    init(after duration: Duration, unless cancellation: Cancellation? = nil) {
        end = Monotonic.now() + duration
        self.cancellation = cancellation
    }

    /// nil: it is over.
    var millisecondsLeft: Int32? {
        let left = end.milliseconds(since: Monotonic.now())
        return left > 0 && cancellation?.isCancelled != true ? Int32(clamping: left) : nil
    }
}

/// Reads one RESP2 value from the front of some bytes, with limits on what a server can make of it.
struct ServerReplyDecoder {
    enum Result {
        case value(ServerReply)
        case incomplete
        case invalid
    }

    private static let depthLimit = 8
    private static let itemLimit = 100_000

    let bytes: [UInt8]
    /// Behind the value, once there is one.
    private(set) var position = 0

    init(bytes: [UInt8]) {
        self.bytes = bytes
    }

    mutating func decode(depth: Int) -> Result {
        guard depth < Self.depthLimit else { return .invalid }
        guard position < bytes.count else { return .incomplete }
        guard let end = bytes[position...].firstIndex(of: 0x0a) else { return .incomplete }
        guard end > position, bytes[end - 1] == 0x0d else { return .invalid }
        let type = bytes[position]
        let line = Array(bytes[(position + 1)..<(end - 1)])
        position = end + 1
        switch type {
        case UInt8(ascii: "+"): return .value(.text(line))
        case UInt8(ascii: "-"): return .value(.error(String(decoding: line, as: UTF8.self)))
        default: break
        }
        guard let number = Int(String(decoding: line, as: UTF8.self)) else { return .invalid }
        switch type {
        case UInt8(ascii: ":"): return .value(.integer(number))
        case UInt8(ascii: "$"):
            guard number >= 0 else { return .value(.null) }
            guard number <= 1 << 29 else { return .invalid }
            guard bytes.count - position >= number + 2 else { return .incomplete }
            let text = Array(bytes[position..<(position + number)])
            position += number + 2
            return .value(.text(text))
        case UInt8(ascii: "*"):
            guard number >= 0 else { return .value(.null) }
            guard number <= Self.itemLimit else { return .invalid }
            var items: [ServerReply] = []
            for _ in 0..<number {
                switch decode(depth: depth + 1) {
                case .value(let item): items.append(item)
                case .incomplete: return .incomplete
                case .invalid: return .invalid
                }
            }
            return .value(.list(items))
        default: return .invalid
        }
    }
}
