// One connection to a server, made and used step by step, with the sockets and TLS of the proxy itself:
// what works here works there. It blocks, each step until a deadline, which suits a command that does
// one thing after the other; the proxy's own loop would not tell where it stands.

import Glibc
import Identity
import Transport

/// Why a step failed.
struct DoctorFailure: Error {
    var reason: String
    var advice: String?
}

/// A value from the server, in RESP2.
enum DoctorReply {
    case text([UInt8])
    case error(String)
    case integer(Int)
    case list([DoctorReply])
    case null

    /// The text of a bulk or simple string.
    var string: String? {
        if case .text(let bytes) = self { String(decoding: bytes, as: UTF8.self) } else { nil }
    }

    var items: [DoctorReply]? {
        if case .list(let items) = self { items } else { nil }
    }

    /// A flat list of names and values, as RESP2 has maps.
    func value(_ name: String) -> DoctorReply? {
        guard let items else { return nil }
        for index in stride(from: 0, to: items.count - 1, by: 2) {
            if items[index].string == name { return items[index + 1] }
        }
        return nil
    }
}

/// A connection to one address.
final class DoctorConnection {
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

    /// Connects; the descriptor is the caller's.
    static func connect(
        to address: SocketAddress, until deadline: UInt64
    ) throws(DoctorFailure) -> Int32 {
        switch Socket.connect(to: address) {
        case .connected(let descriptor): return descriptor
        case .failed(let error): throw refused(error)
        case .inProgress(let descriptor):
            guard wait(descriptor, Int16(POLLOUT), until: deadline) else {
                Socket.close(descriptor)
                throw DoctorFailure(
                    reason: "no answer before connect_timeout",
                    advice: "a firewall or security group may drop the packets, or the address is"
                        + " not reachable from this network")
            }
            if let error = Socket.finishConnect(descriptor) {
                Socket.close(descriptor)
                throw refused(error)
            }
            return descriptor
        }
    }

    private static func refused(_ error: SystemError) -> DoctorFailure {
        let advice: String? =
            switch error.number {
            case ECONNREFUSED: "nothing listens on that port there: check address and port"
            case EHOSTUNREACH, ENETUNREACH: "there is no way to that address from this network"
            default: nil
            }
        return DoctorFailure(reason: error.reason, advice: advice)
    }

    // MARK: TLS

    /// Takes a connected descriptor over, and sets TLS up on it if `context` is given.
    static func secure(
        _ descriptor: Int32, context: TLSContext?, serverName: String, pool: ChunkPool,
        until deadline: UInt64
    ) throws(DoctorFailure) -> DoctorConnection {
        guard let context else {
            return DoctorConnection(
                descriptor: descriptor, stream: SecureStream(plaintext: pool))
        }
        let stream: SecureStream
        do throws(TLSContextError) {
            stream = try SecureStream(context: context, serverName: serverName, pool: pool)
        } catch {
            Socket.close(descriptor)
            throw DoctorFailure(reason: "\(error)")
        }
        let connection = DoctorConnection(descriptor: descriptor, stream: stream)
        while true {
            let progress = stream.handshake()
            // Also when it failed: the alert tells the server why.
            let isSent = connection.flush(until: deadline)
            switch progress {
            case .done:
                return connection
            case .failed(let failure):
                throw DoctorFailure(reason: "\(failure)")
            case .needsInput:
                guard isSent, wait(descriptor, Int16(POLLIN), until: deadline) else {
                    throw DoctorFailure(
                        reason: "the server did not answer the TLS handshake before"
                            + " connect_timeout",
                        advice: "it may expect plaintext on that port, or be overloaded")
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
        _ credential: Credential, name: String, until deadline: UInt64
    ) throws(DoctorFailure) -> DoctorReply {
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
        _ arguments: String..., until deadline: UInt64
    ) throws(DoctorFailure) -> DoctorReply {
        var request = "*\(arguments.count)\r\n"
        for argument in arguments { request += "$\(argument.utf8.count)\r\n\(argument)\r\n" }
        let bytes = Array(request.utf8)
        let result: Result<DoctorReply, DoctorFailure> = bytes.withUnsafeBytes { bytes in
            do throws(DoctorFailure) {
                return .success(try ask(bytes, until: deadline))
            } catch {
                return .failure(error)
            }
        }
        return try result.get()
    }

    private func ask(
        _ request: UnsafeRawBufferPointer, until deadline: UInt64
    ) throws(DoctorFailure) -> DoctorReply {
        if let failure = stream.encrypt(request) { throw DoctorFailure(reason: "\(failure)") }
        guard flush(until: deadline) else { throw lost("the request could not be sent") }
        var buffer = [UInt8](repeating: 0, count: 16_384)
        while true {
            var decoder = DoctorReplyDecoder(bytes: received)
            switch decoder.decode(depth: 0) {
            case .value(let reply):
                received.removeFirst(decoder.position)
                return reply
            case .invalid:
                throw DoctorFailure(
                    reason: "the server's answer is not RESP",
                    advice: "another service listens there, or the server wants TLS")
            case .incomplete: break
            }
            guard received.count <= Self.replyLimit else {
                throw DoctorFailure(reason: "the server's answer is too long")
            }
            switch buffer.withUnsafeMutableBytes({ stream.decrypt(into: $0) }) {
            case .bytes(let count): received += buffer[..<count]
            case .closed: throw lost("the server closed the connection without an answer")
            case .failed(let failure): throw DoctorFailure(reason: "\(failure)")
            case .needsInput:
                guard Self.wait(descriptor, Int16(POLLIN), until: deadline) else {
                    throw DoctorFailure(
                        reason: "no answer before login_timeout",
                        advice: "the server may expect TLS on that port, or be overloaded")
                }
                if case .failed(let error) = stream.receiveCiphertext(from: descriptor) {
                    throw lost("the connection was lost (\(error.reason))")
                }
            }
        }
    }

    private func lost(_ reason: String) -> DoctorFailure {
        DoctorFailure(
            reason: reason,
            advice: stream.isEncrypted
                ? "look into the server's log"
                : "look into the server's log; a server that wants TLS does this too")
    }

    /// Sends what is to be sent; false if it could not be before the deadline.
    private func flush(until deadline: UInt64) -> Bool {
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

    private static func wait(_ descriptor: Int32, _ events: Int16, until deadline: UInt64) -> Bool {
        while true {
            let now = monotonicNanoseconds()
            guard now < deadline else { return false }
            var query = pollfd(fd: descriptor, events: events, revents: 0)
            let milliseconds = Int32(clamping: (deadline - now) / 1_000_000 + 1)
            let count = poll(&query, 1, milliseconds)
            if count > 0 { return true }
            if count < 0, errno != EINTR { return false }
        }
    }
}

/// Reads one RESP2 value from the front of some bytes, with limits on what a server can make of it.
struct DoctorReplyDecoder {
    enum Result {
        case value(DoctorReply)
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
            var items: [DoctorReply] = []
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
