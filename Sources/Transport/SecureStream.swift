// One connection to a server as a stream of bytes: through TLS, or plain with the same surface.
//
//     readable:  receiveCiphertext(from: fd)       one recv
//                handshake()                       until done
//                decrypt(into: buffer)             until needsInput, closed or failed
//     turn end:  encrypt(bytes)                    never waits
//                flush(to: fd)                     one send; unsentByteCount > 0: wait for writable
//
// The stream does no waiting and knows no loop; the caller owns the descriptor. Any of handshake,
// decrypt and closeNotify can leave something to be flushed, so every turn ends with a flush when
// unsentByteCount is not 0; that includes a failure, whose alert tells the server why.
//
// One final class with a branch for plain instead of a protocol with two types: the branch costs
// nothing, an existential call does.

import COpenSSL
import Glibc

/// What a handshake came to so far.
package enum HandshakeProgress: Sendable {
    /// Encrypted and verified; always the answer of a plain stream.
    case done
    /// More bytes from the server are needed; flush first.
    case needsInput
    /// It cannot come about. Flush, so that the server gets our alert, and close.
    case failed(TLSFailure)
}

/// What a decryption brought.
package enum DecryptResult: Sendable {
    /// So many bytes, at least one. Call again before the next receive.
    case bytes(Int)
    /// All that has been received is decrypted.
    case needsInput
    /// The server ended the stream properly: close_notify, or the end of a plain stream.
    case closed
    /// The stream broke. What was decrypted before is genuine.
    case failed(TLSFailure)
}

/// A TLS (or plain) connection's bytes, without the connection. Used on one thread.
package final class SecureStream {
    private struct TLS {
        let context: TLSContext
        let serverName: String
    }

    private let pool: ChunkPool
    private let buffers: UnsafeMutablePointer<CiphertextBuffers>
    // Apart from `tls`, so that the hot path loads a pointer and counts no reference.
    private let ssl: OpaquePointer?
    private let tls: TLS?
    private var handshakeIsDone: Bool
    private var inputHasEnded = false
    private var problem: CertificateProblem?
    private var failure: TLSFailure?
    private var isClosedByPeer = false

    /// A plaintext stream.
    ///
    /// - Parameter pool: the thread's; the stream holds a chunk of it only while bytes are in it.
    package init(plaintext pool: ChunkPool) {
        self.pool = pool
        buffers = UnsafeMutablePointer.allocate(capacity: 1)
        buffers.initialize(to: CiphertextBuffers(pool: pool.free))
        ssl = nil
        tls = nil
        handshakeIsDone = true
    }

    /// A TLS client's stream; `handshake()` begins it.
    ///
    /// - Parameters:
    ///   - serverName: the host name or IP address that the server's certificate must be for. A
    ///     host name is also sent to the server (SNI, RFC 6066), an address is not.
    ///   - pool: the thread's; the stream holds a chunk of it only while bytes are in it.
    /// - Throws: `TLSContextError` when the name cannot be one, or memory is gone.
    package init(
        context: TLSContext,
        serverName: String,
        pool: ChunkPool
    ) throws(TLSContextError) {
        OpenSSLErrors.clear()
        self.pool = pool
        buffers = UnsafeMutablePointer.allocate(capacity: 1)
        buffers.initialize(to: CiphertextBuffers(pool: pool.free))
        guard let ssl = SSL_new(context.raw) else {
            buffers.deallocate()
            throw TLSContextError(what: "no TLS connection", errorQueue: OpenSSLErrors.drain())
        }
        self.ssl = ssl
        tls = TLS(context: context, serverName: serverName)
        handshakeIsDone = false

        guard let bio = CiphertextBuffers.makeBIO(over: buffers) else {
            throw TLSContextError(what: "no TLS connection", errorQueue: OpenSSLErrors.drain())
        }
        // One BIO for both directions; SSL_set_bio takes the one reference.
        SSL_set_bio(ssl, bio, bio)
        SSL_set_connect_state(ssl)
        SSL_set_ex_data(ssl, 0, Unmanaged.passUnretained(self).toOpaque())
        if !Self.expect(serverName, of: ssl) {
            throw TLSContextError(
                what: "\"\(serverName)\" is not a server name", errorQueue: OpenSSLErrors.drain())
        }
        context.takeSession(for: serverName)?.offer(in: ssl)
    }

    deinit {
        if let ssl { SSL_free(ssl) }
        buffers.pointee.releaseAll()
        buffers.deallocate()
    }

    private static func expect(_ serverName: String, of ssl: OpaquePointer) -> Bool {
        if serverName.isEmpty || serverName.utf8.contains(0) { return false }
        if let address = SocketAddress(literal: serverName, port: 0) {
            // RFC 6066, section 3: no literal addresses in SNI.
            let plain = address.numericHost?.prefix { $0 != "%" } ?? ""
            return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), String(plain)) == 1
        }
        // `f*.example.com` is not something an authority should sign.
        SSL_set_hostflags(ssl, UInt32(X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS))
        // A trailing dot makes the name absolute for DNS and is in no certificate.
        let name = serverName.hasSuffix(".") ? String(serverName.dropLast()) : serverName
        return SSL_set1_host(ssl, name) == 1 && copenssl_set_server_name(ssl, name) == 1
    }

    // MARK: Input

    /// One recv from `descriptor` into a borrowed chunk, behind what is still unread.
    ///
    /// Then `handshake` or `decrypt` until they need input; `end` and `failed` too are followed by
    /// that, since a last record or close_notify may have come before. `wouldBlock` also while a
    /// whole chunk is unread: stop watching for readable until `decrypt` has taken it.
    package func receiveCiphertext(from descriptor: Int32) -> ReceiveResult {
        let result = buffers.pointee.receive(from: descriptor)
        if case .end = result { inputHasEnded = true }
        return result
    }

    /// Whether `decrypt` has something to work on that no poll will report.
    package var hasBufferedInput: Bool {
        if buffers.pointee.unreadCount > 0 || failure != nil { return true }
        guard let ssl, handshakeIsDone else { return false }
        return SSL_pending(ssl) > 0
    }

    /// Goes on with the handshake as far as the received bytes allow.
    package func handshake() -> HandshakeProgress {
        guard let ssl, !handshakeIsDone else { return failure.map { .failed($0) } ?? .done }
        if let failure { return .failed(failure) }
        OpenSSLErrors.clear()
        let result = SSL_do_handshake(ssl)
        defer { buffers.pointee.releaseInputIfEmpty() }
        if result == 1 {
            handshakeIsDone = true
            return .done
        }
        let wantsInput = SSL_get_error(ssl, result) == SSL_ERROR_WANT_READ
        if wantsInput && !inputHasEnded { return .needsInput }
        // Perhaps it was the session that the server did not like.
        if let tls { tls.context.forgetSessions(for: tls.serverName) }
        return .failed(fail(wantsInput ? .closedDuringHandshake : nil))
    }

    /// Decrypts as much as fits into `target`, many records if there are, which must not be empty.
    ///
    /// Only after the handshake. Can leave something to be flushed, such as an alert.
    package func decrypt(into target: UnsafeMutableRawBufferPointer) -> DecryptResult {
        guard let base = target.baseAddress, !target.isEmpty else { return .needsInput }
        defer { buffers.pointee.releaseInputIfEmpty() }
        guard let ssl else {
            let count = buffers.pointee.read(into: base, count: target.count)
            if count > 0 { return .bytes(count) }
            return inputHasEnded ? .closed : .needsInput
        }
        var filled = 0
        reading: while filled < target.count {
            // Without input a read can only fail, and that costs as much as one that succeeds.
            if buffers.pointee.unreadCount == 0 && SSL_pending(ssl) == 0 { break }
            OpenSSLErrors.clear()
            let room = Int32(clamping: target.count - filled)
            let count = SSL_read(ssl, base + filled, room)
            if count > 0 {
                filled += Int(count)
                continue
            }
            switch SSL_get_error(ssl, count) {
            case SSL_ERROR_WANT_READ, SSL_ERROR_WANT_WRITE: break reading
            case SSL_ERROR_ZERO_RETURN:
                isClosedByPeer = true
                break reading
            default:
                _ = fail(nil)
                break reading
            }
        }
        if filled > 0 { return .bytes(filled) }
        if let failure { return .failed(failure) }
        if isClosedByPeer { return .closed }
        if inputHasEnded { return .failed(fail(.truncated)) }
        return .needsInput
    }

    // MARK: Output

    /// Encrypts all of `bytes` into the output, in records as large as possible.
    ///
    /// Only after the handshake. The output grows as needed: who fills it bounds it by
    /// `unsentByteCount`.
    /// - Returns: nil, or why the stream is broken.
    package func encrypt(_ bytes: UnsafeRawBufferPointer) -> TLSFailure? {
        guard let base = bytes.baseAddress, !bytes.isEmpty else { return nil }
        guard let ssl else {
            buffers.pointee.append(base, count: bytes.count)
            return nil
        }
        if let failure { return failure }
        precondition(handshakeIsDone, "nothing can be encrypted before the handshake is done")
        OpenSSLErrors.clear()
        var written = 0
        if SSL_write_ex(ssl, base, bytes.count, &written) == 1 && written == bytes.count {
            return nil
        }
        return fail(nil)
    }

    /// Queues close_notify, which tells the server that our stream ends here. Then flush, and shut
    /// the descriptor down for writing. Does nothing on a plain or broken stream.
    package func closeNotify() {
        guard let ssl, handshakeIsDone, failure == nil else { return }
        OpenSSLErrors.clear()
        if SSL_get_shutdown(ssl) & SSL_SENT_SHUTDOWN == 0 { SSL_shutdown(ssl) }
        OpenSSLErrors.clear()
    }

    /// One send of everything that is in the output; what the kernel does not take stays.
    package func flush(to descriptor: Int32) -> SendResult {
        buffers.pointee.send(to: descriptor)
    }

    /// Bytes in the output, as they will be on the wire.
    package var unsentByteCount: Int { buffers.pointee.unsentCount }

    // MARK: About the peer

    /// Whether bytes are encrypted.
    package var isEncrypted: Bool { ssl != nil }

    /// Whether the handshake resumed an earlier session.
    package var isResumed: Bool { ssl.map { SSL_session_reused($0) == 1 } ?? false }

    /// Such as `TLSv1.3 TLS_AES_256_GCM_SHA384, resumed`; `plaintext` for a plain stream.
    package var peerDescription: String {
        guard let ssl else { return "plaintext" }
        guard handshakeIsDone else { return "TLS, handshake not done" }
        let version = SSL_get_version(ssl).map { String(cString: $0) } ?? "TLS"
        let cipher =
            SSL_CIPHER_get_name(SSL_get_current_cipher(ssl)).map { String(cString: $0) } ?? "?"
        return "\(version) \(cipher)" + (isResumed ? ", resumed" : "")
    }

    /// The server's certificate, once the handshake is done; nil for a plain stream.
    package var peerCertificate: PeerCertificate? {
        guard let ssl, handshakeIsDone, let certificate = SSL_get1_peer_certificate(ssl) else {
            return nil
        }
        defer { X509_free(certificate) }
        return PeerCertificate(certificate)
    }

    // MARK: Failing

    /// Makes the failure that every later call answers with; the first one stays.
    private func fail(_ reason: TLSFailure.Reason?) -> TLSFailure {
        if let failure { return failure }
        guard let tls else { preconditionFailure("a plain stream has nothing that can fail") }
        let made: TLSFailure
        if let reason {
            made = TLSFailure(
                reason: reason,
                serverName: tls.serverName,
                expectation: tls.context.expectation,
                errorQueue: OpenSSLErrors.drain()
            )
        } else {
            made = TLSFailure(
                folding: problem,
                serverName: tls.serverName,
                expectation: tls.context.expectation,
                handshakeIsDone: handshakeIsDone
            )
        }
        failure = made
        return made
    }

    // MARK: Called by OpenSSL

    private static func stream(of ssl: OpaquePointer) -> SecureStream? {
        guard let data = SSL_get_ex_data(ssl, 0) else { return nil }
        return Unmanaged<SecureStream>.fromOpaque(data).takeUnretainedValue()
    }

    /// Keeps what the verification found: afterwards OpenSSL no longer has the certificate.
    static func recordProblem(_ store: OpaquePointer) {
        let index = SSL_get_ex_data_X509_STORE_CTX_idx()
        guard let ssl = X509_STORE_CTX_get_ex_data(store, index),
            let stream = stream(of: OpaquePointer(ssl)), stream.problem == nil
        else { return }
        stream.problem = CertificateProblem(store)
    }

    /// Keeps a session that the server offers to resume later.
    static func rememberSession(_ session: OpaquePointer, of ssl: OpaquePointer) {
        guard let tls = stream(of: ssl)?.tls else { return }
        tls.context.remember(session, for: tls.serverName)
    }
}
