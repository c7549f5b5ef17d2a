// A SecureStream and a TLS server on the two ends of a socket pair, in one thread.
//
//     SecureStream ── socket pair ── wire bytes, cut as the test wants ── memory BIOs ── SSL server
//
// Nothing runs by itself: the test says when how many bytes move, so every run is the same.

import COpenSSL
import Glibc
import Testing
import Transport

/// What a test's server is like.
struct ServerSettings {
    var certificate = "server"
    var minimumVersion = TLS1_2_VERSION
    var maximumVersion = TLS1_3_VERSION
    var wantsClientCertificate = false
    var resumes = true
    /// Of TLS 1.3; nil: OpenSSL's.
    var cipherSuites: String?
}

/// The server's side that outlives connections, so that sessions can be resumed.
final class ServerContext {
    let raw: OpaquePointer

    init(_ settings: ServerSettings = ServerSettings()) throws {
        let certificates = try TestCertificates.shared.get()
        guard let raw = SSL_CTX_new(TLS_server_method()) else { throw TestError("SSL_CTX_new") }
        self.raw = raw
        let name = settings.certificate
        guard SSL_CTX_use_certificate_chain_file(raw, certificates.certificate(name)) == 1,
            SSL_CTX_use_PrivateKey_file(raw, certificates.key(name), SSL_FILETYPE_PEM) == 1
        else { throw TestError("the server's certificate does not load") }
        SSL_CTX_ctrl(raw, SSL_CTRL_SET_MIN_PROTO_VERSION, Int(settings.minimumVersion), nil)
        SSL_CTX_ctrl(raw, SSL_CTRL_SET_MAX_PROTO_VERSION, Int(settings.maximumVersion), nil)
        if let suites = settings.cipherSuites, SSL_CTX_set_ciphersuites(raw, suites) != 1 {
            throw TestError("no such cipher suites: \(suites)")
        }
        // A server that verifies clients must name what its sessions are for.
        SSL_CTX_set_session_id_context(raw, "tests", 5)
        if settings.wantsClientCertificate {
            SSL_CTX_load_verify_file(raw, certificates.caFile)
            SSL_CTX_set_verify(raw, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nil)
        }
        if !settings.resumes {
            SSL_CTX_set_num_tickets(raw, 0)
            SSL_CTX_set_options(raw, 1 << 14)  // SSL_OP_NO_TICKET
            SSL_CTX_ctrl(raw, SSL_CTRL_SET_SESS_CACHE_MODE, Int(SSL_SESS_CACHE_OFF), nil)
        }
    }

    deinit { SSL_CTX_free(raw) }
}

/// One connection between a stream and a server.
final class TLSPair {
    let pool = ChunkPool()
    let stream: SecureStream
    let sockets: SocketPair
    let server: OpaquePointer
    private let context: ServerContext
    private let toServer: OpaquePointer
    private let fromServer: OpaquePointer
    /// What the server wrote and the wire has not carried yet.
    private var wire: [UInt8] = []
    /// What the server decrypted.
    private(set) var serverReceived: [UInt8] = []
    /// Whether the server saw the client's close_notify.
    private(set) var serverSawCloseNotify = false
    /// The server's last failure, OpenSSL's number.
    private(set) var serverError: UInt = 0
    private(set) var serverIsDone = false

    init(
        _ clientContext: TLSContext,
        _ context: ServerContext,
        serverName: String = "localhost"
    ) throws {
        self.context = context
        sockets = try SocketPair()
        stream = try SecureStream(context: clientContext, serverName: serverName, pool: pool)
        guard let server = SSL_new(context.raw), let toServer = BIO_new(BIO_s_mem()),
            let fromServer = BIO_new(BIO_s_mem())
        else { throw TestError("no TLS server") }
        self.server = server
        self.toServer = toServer
        self.fromServer = fromServer
        SSL_set_bio(server, toServer, fromServer)
        SSL_set_accept_state(server)
    }

    deinit { SSL_free(server) }

    /// The client's next flight reaches the server.
    func carryToServer() throws {
        while stream.unsentByteCount > 0 {
            let result = stream.flush(to: sockets.left)
            let bytes = received(from: sockets.right).bytes
            if !bytes.isEmpty && !feedServer(bytes) { throw TestError("BIO_write") }
            if case .failed(let error) = result { throw error }
        }
    }

    /// Bytes reach the server as if from the wire; whether it took them all.
    func feedServer(_ bytes: [UInt8]) -> Bool {
        bytes.withUnsafeBytes {
            BIO_write(toServer, $0.baseAddress, Int32($0.count)) == Int32($0.count)
        }
    }

    /// Lets the server do what it can with what it got.
    func runServer() {
        ERR_clear_error()
        if !serverIsDone {
            let result = SSL_do_handshake(server)
            if result != 1 {
                if SSL_get_error(server, result) == SSL_ERROR_SSL { serverError = ERR_peek_error() }
                return
            }
            serverIsDone = true
        }
        var buffer = [UInt8](repeating: 0, count: 32 * 1024)
        while true {
            let count = SSL_read(server, &buffer, Int32(buffer.count))
            if count > 0 {
                serverReceived += buffer[..<Int(count)]
                continue
            }
            let error = SSL_get_error(server, count)
            if error == SSL_ERROR_ZERO_RETURN { serverSawCloseNotify = true }
            if error == SSL_ERROR_SSL { serverError = ERR_peek_error() }
            return
        }
    }

    /// The server's next bytes reach the client's socket: `limit` of them, or fewer.
    /// Returns how many did.
    func carryToClient(limit: Int = .max) throws -> Int {
        collectWire()
        let count = min(limit, wire.count)
        if count == 0 { return 0 }
        let result = wire.withUnsafeBytes {
            Socket.send(sockets.right, UnsafeRawBufferPointer(rebasing: $0[..<count]))
        }
        switch result {
        case .sent(let sent):
            wire.removeFirst(sent)
            return sent
        case .wouldBlock: return 0
        case .failed(let error): throw error
        }
    }

    /// Bytes that the server wrote and the client's socket has not got.
    var wireCount: Int {
        collectWire()
        return wire.count
    }

    private func collectWire() {
        var buffer = [UInt8](repeating: 0, count: 64 * 1024)
        while true {
            let count = BIO_read(fromServer, &buffer, Int32(buffer.count))
            if count <= 0 { return }
            wire += buffer[..<Int(count)]
        }
    }

    /// Handshakes until it is done or has failed, and lets the server end its part.
    func handshake() throws -> HandshakeProgress {
        var progress = stream.handshake()
        for _ in 0..<100 {
            try carryToServer()
            runServer()
            _ = try carryToClient()
            guard case .needsInput = progress else { return progress }
            let result = stream.receiveCiphertext(from: sockets.left)
            if case .failed(let error) = result { throw error }
            progress = stream.handshake()
        }
        throw TestError("the handshake does not end")
    }

    /// Handshakes and expects that to succeed; tickets are read too.
    func establish(sourceLocation: SourceLocation = #_sourceLocation) throws {
        switch try handshake() {
        case .done: break
        case .needsInput: throw TestError("the handshake needs input")
        case .failed(let failure): throw failure
        }
        let received = try receiveAll()
        #expect(received.isEmpty, sourceLocation: sourceLocation)
    }

    /// Handshakes and expects that to fail, in the handshake or, as TLS 1.3 has it for what the
    /// server finds, after it.
    func failure() throws -> TLSFailure {
        switch try handshake() {
        case .failed(let failure): return failure
        case .needsInput: throw TestError("the handshake needs input")
        case .done: break
        }
        try carryToServer()
        runServer()
        do { _ = try receiveAll() } catch let failure as TLSFailure { return failure }
        throw TestError("the connection did not fail")
    }

    /// Everything the wire has for the client now, decrypted.
    func receiveAll(bufferSize: Int = 64 * 1024) throws -> [UInt8] {
        var all: [UInt8] = []
        while true {
            let carried = try carryToClient()
            let result = stream.receiveCiphertext(from: sockets.left)
            let before = all.count
            if try !decrypt(into: &all, bufferSize: bufferSize) { return all }
            if case .failed(let error) = result { throw error }
            if carried == 0 && all.count == before && result == .wouldBlock { return all }
        }
    }

    /// Decrypts what has been received; false when the stream is closed.
    func decrypt(into all: inout [UInt8], bufferSize: Int) throws -> Bool {
        var buffer = [UInt8](repeating: 0, count: bufferSize)
        while true {
            switch buffer.withUnsafeMutableBytes({ stream.decrypt(into: $0) }) {
            case .bytes(let count): all += buffer[..<count]
            case .needsInput: return true
            case .closed: return false
            case .failed(let failure): throw failure
            }
        }
    }

    /// The server encrypts `bytes` onto the wire.
    func serverSend(_ bytes: [UInt8]) throws {
        var sent = 0
        while sent < bytes.count {
            let count = bytes[sent...].withUnsafeBytes {
                SSL_write(server, $0.baseAddress, Int32($0.count))
            }
            if count <= 0 { throw TestError("the server cannot write") }
            sent += Int(count)
        }
    }

    /// The client encrypts `bytes`; nil, or why it could not.
    func clientSend(_ bytes: [UInt8]) -> TLSFailure? {
        bytes.withUnsafeBytes { stream.encrypt($0) }
    }

    /// The name that the client sent (SNI).
    var serverNameIndication: String? {
        SSL_get_servername(server, TLSEXT_NAMETYPE_host_name).map { String(cString: $0) }
    }

    /// The common name of the client's certificate.
    var clientCertificateName: String? {
        guard let certificate = SSL_get0_peer_certificate(server) else { return nil }
        var buffer = [CChar](repeating: 0, count: 256)
        let count = X509_NAME_get_text_by_NID(
            X509_get_subject_name(certificate), NID_commonName, &buffer, Int32(buffer.count))
        if count < 0 { return nil }
        return String(
            decoding: buffer.prefix(Int(count)).map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}

/// A context that trusts the tests' authority.
func trustingContext(
    minimumVersion: TLSSettings.Version = .tls12,
    client: String? = nil
) throws -> TLSContext {
    let certificates = try TestCertificates.shared.get()
    return try TLSContext(
        TLSSettings(
            caFile: certificates.caFile,
            minimumVersion: minimumVersion,
            certificateFile: client.map { certificates.certificate($0) },
            keyFile: client.map { certificates.key($0) }
        ))
}
