// What all TLS connections to one upstream have in common: whom we trust, who we are, and the
// sessions that can be resumed.
//
// Immutable once made and shared by all workers, as OpenSSL allows for an SSL_CTX that is no
// longer changed. The exception is the store of resumable sessions, under a lock that only
// handshakes touch. There is no switch that turns verification off.

import COpenSSL
import Synchronization

/// What an operator can choose about TLS.
package struct TLSSettings: Equatable, Sendable {
    /// The lowest protocol version that is acceptable.
    package enum Version: Equatable, Sendable {
        case tls12
        case tls13
    }

    /// PEM file of the certificate authorities that are trusted; nil trusts the system's.
    package var caFile: String?
    package var minimumVersion: Version
    /// PEM file of our own certificate and the chain above it; goes with `keyFile`.
    package var certificateFile: String?
    /// PEM file of our own certificate's key, not encrypted.
    package var keyFile: String?

    package init(
        caFile: String? = nil,
        minimumVersion: Version = .tls12,
        certificateFile: String? = nil,
        keyFile: String? = nil
    ) {
        self.caFile = caFile
        self.minimumVersion = minimumVersion
        self.certificateFile = certificateFile
        self.keyFile = keyFile
    }
}

/// Why a context could not be made, such as a file that cannot be read.
package struct TLSContextError: Error, Equatable, Sendable, CustomStringConvertible {
    /// What failed, and in which file.
    package let what: String
    /// OpenSSL's whole error queue, oldest first.
    package let errorQueue: [String]

    package var description: String {
        errorQueue.isEmpty ? what : "\(what): \(errorQueue.joined(separator: "; "))"
    }
}

/// Trust, identity and resumable sessions of TLS connections. Shared by all threads.
package final class TLSContext: Sendable {
    /// Tickets kept per server name. A TLS 1.3 ticket is used once (RFC 8446, appendix C.4) and a
    /// server sends a few per handshake.
    static let sessionLimit = 8

    nonisolated(unsafe) let raw: OpaquePointer
    /// What every connection wants, in words for a failure.
    let expectation: TLSFailure.Expectation
    private let sessions = Mutex<[String: [Session]]>([:])

    /// Loads the files that `settings` names.
    ///
    /// - Throws: `TLSContextError`, naming the file and why it cannot be used.
    package init(_ settings: TLSSettings = TLSSettings()) throws(TLSContextError) {
        OpenSSLErrors.clear()
        guard let raw = SSL_CTX_new(TLS_client_method()) else {
            throw TLSContextError(what: "no TLS context", errorQueue: OpenSSLErrors.drain())
        }
        self.raw = raw
        expectation = TLSFailure.Expectation(
            trust: settings.caFile ?? "the system's certificate store",
            minimumVersion: settings.minimumVersion == .tls13 ? "TLS 1.3" : "TLS 1.2"
        )

        let version = settings.minimumVersion == .tls13 ? TLS1_3_VERSION : TLS1_2_VERSION
        if copenssl_ctx_set_min_proto_version(raw, version) != 1 {
            let what = "the minimum TLS version is not available in this OpenSSL"
            throw TLSContextError(what: what, errorQueue: OpenSSLErrors.drain())
        }
        _ = copenssl_ctx_set_safe_options(raw)
        // Two record buffers of 17 KiB per connection otherwise, also while it is idle.
        _ = copenssl_ctx_set_mode(raw, Int(SSL_MODE_RELEASE_BUFFERS))
        Self.preferShortKeys(raw)

        if let file = settings.caFile {
            if SSL_CTX_load_verify_file(raw, file) != 1 {
                throw Self.error("the certificate authorities cannot be loaded from \(file)")
            }
        } else if SSL_CTX_set_default_verify_paths(raw) != 1 {
            throw Self.error("the system's certificate store cannot be used")
        }
        SSL_CTX_set_verify(raw, SSL_VERIFY_PEER) { isGood, store in
            if isGood != 1, let store { SecureStream.recordProblem(store) }
            return isGood
        }

        try Self.loadIdentity(raw, settings)

        let mode = SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL
        _ = copenssl_ctx_set_session_cache_mode(raw, Int(mode))
        // 0: OpenSSL keeps the session's only reference, we keep a copy.
        SSL_CTX_sess_set_new_cb(raw) { ssl, session in
            if let ssl, let session { SecureStream.rememberSession(session, of: ssl) }
            return 0
        }
    }

    deinit { SSL_CTX_free(raw) }

    /// Offers AES with keys of 128 bits ahead of 256, in TLS 1.3: beyond attack too, and ten rounds
    /// a block in place of fourteen. Only among what the system's OpenSSL is configured to allow.
    private static func preferShortKeys(_ raw: OpaquePointer) {
        let preferred = "TLS_AES_128_GCM_SHA256"
        guard let ciphers = SSL_CTX_get_ciphers(raw) else { return }
        let names = (0..<OPENSSL_sk_num(ciphers)).compactMap { index -> String? in
            guard let cipher = OPENSSL_sk_value(ciphers, index) else { return nil }
            return SSL_CIPHER_get_name(OpaquePointer(cipher)).map { String(cString: $0) }
        }
        // Only the suites of TLS 1.3 have names that begin so.
        let suites = names.filter { $0.hasPrefix("TLS_") }
        guard suites.contains(preferred) else { return }
        let others = suites.filter { $0 != preferred }
        // The suites were all there before, so this cannot fail.
        _ = SSL_CTX_set_ciphersuites(raw, ([preferred] + others).joined(separator: ":"))
    }

    private static func loadIdentity(
        _ raw: OpaquePointer,
        _ settings: TLSSettings
    ) throws(TLSContextError) {
        let certificateFile: String
        let keyFile: String
        switch (settings.certificateFile, settings.keyFile) {
        case (nil, nil): return
        case (let certificate?, let key?):
            certificateFile = certificate
            keyFile = key
        case (let certificate?, nil):
            throw error("the client certificate \(certificate) has no key file")
        case (nil, let key?):
            throw error("the client key \(key) has no certificate file")
        }
        // The default asks for a pass phrase on the terminal and waits.
        SSL_CTX_set_default_passwd_cb(raw) { _, _, _, _ in -1 }
        if SSL_CTX_use_certificate_chain_file(raw, certificateFile) != 1 {
            throw error("the client certificate cannot be loaded from \(certificateFile)")
        }
        if SSL_CTX_use_PrivateKey_file(raw, keyFile, SSL_FILETYPE_PEM) != 1 {
            throw error(
                "the client key cannot be loaded from \(keyFile) (it must be PEM, without a pass "
                    + "phrase, and belong to \(certificateFile))"
            )
        }
        if SSL_CTX_check_private_key(raw) != 1 {
            throw error("the client key in \(keyFile) does not belong to \(certificateFile)")
        }
    }

    private static func error(_ what: String) -> TLSContextError {
        TLSContextError(what: what, errorQueue: OpenSSLErrors.drain())
    }

    // MARK: Resumption

    /// Keeps a copy of a session the server offers to resume.
    ///
    /// A copy, because OpenSSL marks a session as not resumable when its connection ends without
    /// close_notify, which is just when we want it: the server went away and we connect again.
    func remember(_ session: OpaquePointer, for serverName: String) {
        guard SSL_SESSION_is_resumable(session) == 1, let copy = SSL_SESSION_dup(session) else {
            return
        }
        let kept = Session(copy)
        sessions.withLock { sessions in
            var list = sessions[serverName] ?? []
            if !kept.isSingleUse { list = [] }
            if list.count >= Self.sessionLimit { list.removeFirst() }
            list.append(kept)
            sessions[serverName] = list
        }
    }

    /// A session to offer to `serverName`: the latest, and if it is TLS 1.3's, for the last time.
    func takeSession(for serverName: String) -> Session? {
        sessions.withLock { sessions in
            guard let latest = sessions[serverName]?.last else { return nil }
            if latest.isSingleUse { sessions[serverName]?.removeLast() }
            return latest
        }
    }

    /// Drops what is kept for `serverName`, after a handshake with it failed.
    func forgetSessions(for serverName: String) {
        sessions.withLock { sessions in sessions[serverName] = nil }
    }
}

/// A resumable session of ours alone.
final class Session: @unchecked Sendable {
    private let raw: OpaquePointer
    let isSingleUse: Bool

    init(_ raw: OpaquePointer) {
        self.raw = raw
        isSingleUse = SSL_SESSION_get_protocol_version(raw) >= TLS1_3_VERSION
    }

    /// Offers it in a handshake that has not begun. Copied, because a connection writes to its
    /// session, and a TLS 1.2 session can be offered by two threads at once.
    func offer(in ssl: OpaquePointer) {
        guard let copy = SSL_SESSION_dup(raw) else { return }
        SSL_set_session(ssl, copy)
        SSL_SESSION_free(copy)
    }

    deinit { SSL_SESSION_free(raw) }
}
